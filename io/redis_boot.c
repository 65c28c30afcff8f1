/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_boot - may this Redis hold other people's mail? Asked once, before any worker runs.
 *
 * In order: connect; INFO (loaded, master, version, no cluster); CONFIG GET for what a 250 rests on
 * (eviction, AOF, fsync), each refused unless named in redis.accept_risk; the schema version and
 * the shard count in {cfg}, made when missing; the function library. Where CONFIG is denied (a
 * narrow ACL, a hosted Redis), INFO still tells eviction and AOF; an appendfsync nobody can see
 * counts as not `always`.
 *
 * Nothing is written that is there already: a full Redis must be able to restart its gateway, and
 * HSET and FUNCTION LOAD are refused when memory is full.
 *
 * To add a check: a row in promises[] or a function in checks[].
 */
#include "io/redis_boot.h"
#include "core/base/must.h"
#include "io/fail.h"
#include "queue/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define VERSION_MIN_MAJOR 7 /* functions came with 7.0 */
#define LOADING_WAIT_S    300
#define SHARDS_MAX        1024
#define LIBRARY_NAME      "kilat"

struct boot {
    redisContext *redis;
    const struct config *cfg;
    struct buf *error;
    char *info; /* owned; INFO's text */
};

/* One command; NULL when the link is gone. The caller frees. */
static redisReply *ask(struct boot *b, int argc, const char **argv)
{
    return redisCommandArgv(b->redis, argc, argv, NULL);
}
#define ASK(b, ...)                                                                                \
    ask(b, (int)ARRAY_LEN(((const char *[]){ __VA_ARGS__ })), (const char *[]){ __VA_ARGS__ })

static bool is_error(const redisReply *r)
{
    return !r || r->type == REDIS_REPLY_ERROR;
}

static const char *error_text(const struct boot *b, const redisReply *r)
{
    return r ? r->str : b->redis->errstr;
}

/* ---- INFO ---- */

/* Copies the value of a line "name:value" of INFO; false: there is no such line. */
static bool info_get(const struct boot *b, const char *name, char *out, size_t len)
{
    size_t name_len = strlen(name);
    for (const char *line = b->info; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, name_len) != 0 || line[name_len] != ':')
            continue;
        line += name_len + 1;
        snprintf(out, len, "%.*s", (int)strcspn(line, "\r\n"), line);
        return true;
    }
    return false;
}

static bool info_is(const struct boot *b, const char *name, const char *value)
{
    char got[64];
    return info_get(b, name, got, sizeof got) && strcmp(got, value) == 0;
}

static enum status read_info(struct boot *b)
{
    redisReply *r = ASK(b, "INFO");
    enum status st = STATUS_OK;
    if (!r || r->type != REDIS_REPLY_STRING) {
        st = fail_with(b->error, STATUS_REFUSED, "Redis refused INFO: %s", error_text(b, r));
    } else {
        free(b->info);
        b->info = mem_strdup(r->str);
    }
    freeReplyObject(r);
    return st;
}

static enum status check_loaded(struct boot *b)
{
    enum status st = read_info(b);
    for (int s = 0; st == STATUS_OK && info_is(b, "loading", "1"); s++) {
        if (s == LOADING_WAIT_S)
            return fail_with(b->error, STATUS_REFUSED, "Redis is still loading its data after %d s",
                             LOADING_WAIT_S);
        (void)nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
        st = read_info(b);
    }
    return st;
}

static enum status check_version(struct boot *b)
{
    char version[64] = "unknown";
    (void)info_get(b, "redis_version", version, sizeof version);
    if (atoi(version) >= VERSION_MIN_MAJOR)
        return STATUS_OK;
    return fail_with(b->error, STATUS_REFUSED,
                     "this Redis has version %s; Kilat needs %d.0 or newer (or Valkey)", version,
                     VERSION_MIN_MAJOR);
}

static enum status check_role(struct boot *b)
{
    char host[256] = "another server", port[16] = "?";
    if (!info_is(b, "role", "slave"))
        return STATUS_OK;
    (void)info_get(b, "master_host", host, sizeof host);
    (void)info_get(b, "master_port", port, sizeof port);
    return fail_with(b->error, STATUS_REFUSED,
                     "this Redis is a replica of %s port %s and takes no writes: name the master",
                     host, port);
}

static enum status check_cluster(struct boot *b)
{
    if (!info_is(b, "cluster_enabled", "1"))
        return STATUS_OK;
    return fail_with(
        b->error, STATUS_REFUSED,
        "this Redis runs in cluster mode, which is not supported: use a single master");
}

/* ---- what a 250 rests on ---- */

/* CONFIG GET of one setting; false: denied, or not known. */
static bool config_get(struct boot *b, const char *name, char *out, size_t len)
{
    redisReply *r = ASK(b, "CONFIG", "GET", name);
    bool good = r && r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
                r->element[1]->type == REDIS_REPLY_STRING;
    if (good)
        snprintf(out, len, "%s", r->element[1]->str);
    freeReplyObject(r);
    return good;
}

static void get_eviction(struct boot *b, char *out, size_t len)
{
    if (!config_get(b, "maxmemory-policy", out, len) && !info_get(b, "maxmemory_policy", out, len))
        snprintf(out, len, "unknown");
}

static void get_aof(struct boot *b, char *out, size_t len)
{
    if (!config_get(b, "appendonly", out, len))
        snprintf(out, len, info_is(b, "aof_enabled", "1") ? "yes" : "no");
}

/* Without an AOF there is no fsync to ask for: that risk was named with "no-aof". */
static void get_fsync(struct boot *b, char *out, size_t len)
{
    char aof[16], pause[16];
    get_aof(b, aof, sizeof aof);
    if (strcmp(aof, "yes") != 0)
        snprintf(out, len, "always");
    else if (!config_get(b, "appendfsync", out, len))
        snprintf(out, len, "unknown (CONFIG GET is denied)");
    else if (config_get(b, "no-appendfsync-on-rewrite", pause, sizeof pause) &&
             strcmp(pause, "yes") == 0)
        snprintf(out, len, "paused by no-appendfsync-on-rewrite");
}

static const struct {
    enum redis_risk risk;
    const char *risk_name; /* in redis.accept_risk */
    const char *setting;
    const char *wanted;
    void (*get)(struct boot *b, char *out, size_t len);
    const char *otherwise; /* what happens without it */
} promises[] = {
    { REDIS_RISK_EVICTION, "eviction", "maxmemory-policy", "noeviction", get_eviction,
      "a full Redis would throw queued mail away" },
    { REDIS_RISK_NO_AOF, "no-aof", "appendonly", "yes", get_aof,
      "queued mail would not survive a restart of Redis" },
    { REDIS_RISK_FSYNC, "appendfsync", "appendfsync", "always", get_fsync,
      "mail answered with 250 could be lost with the machine's power" },
};

static enum status check_promises(struct boot *b)
{
    char got[64];
    for (size_t i = 0; i < ARRAY_LEN(promises); i++) {
        promises[i].get(b, got, sizeof got);
        bool is_kept = strcmp(got, promises[i].wanted) == 0;
        if (is_kept || (b->cfg->redis.accept_risk & promises[i].risk))
            continue;
        return fail_with(b->error, STATUS_REFUSED,
                         "Redis has %s = %s, wanted is %s: %s; set it, or name the risk: "
                         "redis { accept_risk = [\"%s\"]; }",
                         promises[i].setting, got, promises[i].wanted, promises[i].otherwise,
                         promises[i].risk_name);
    }
    return STATUS_OK;
}

/* ---- {cfg}: schema version, shard count ---- */

/* A number in {cfg}, made `fresh` when it is not there (two gateways may race: HSETNX lets one
 * win, and both read what it wrote). */
static enum status cfg_number(struct boot *b, const char *field, long fresh, long *out)
{
    char text[16];
    snprintf(text, sizeof text, "%ld", fresh);
    redisReply *r = ASK(b, "HGET", QUEUE_CFG_KEY, field);
    if (r && r->type == REDIS_REPLY_NIL) {
        freeReplyObject(r);
        r = ASK(b, "HSETNX", QUEUE_CFG_KEY, field, text);
        if (!is_error(r)) {
            freeReplyObject(r);
            r = ASK(b, "HGET", QUEUE_CFG_KEY, field);
        }
    }
    enum status st = STATUS_OK;
    if (!r || r->type != REDIS_REPLY_STRING)
        st = fail_with(b->error, STATUS_REFUSED, "Redis refused to read or write %s: %s",
                       QUEUE_CFG_KEY, is_error(r) ? error_text(b, r) : "unexpected reply");
    else
        *out = atol(r->str);
    freeReplyObject(r);
    return st;
}

static enum status check_schema(struct boot *b)
{
    long version = 0;
    enum status st = cfg_number(b, "version", QUEUE_SCHEMA_VERSION, &version);
    if (st == STATUS_OK && version != QUEUE_SCHEMA_VERSION)
        st = fail_with(b->error, STATUS_REFUSED,
                       "the queue in this Redis has schema version %ld, this Kilat has %d: use the "
                       "Kilat that made it until it is empty, or another database",
                       version, QUEUE_SCHEMA_VERSION);
    return st;
}

static enum status adopt_shards(struct boot *b, uint16_t *shards)
{
    long count = 0;
    enum status st = cfg_number(b, "shards", (long)b->cfg->queue.shards, &count);
    if (st != STATUS_OK)
        return st;
    if (count < 1 || count > SHARDS_MAX)
        return fail_with(b->error, STATUS_REFUSED,
                         "the queue in this Redis claims %ld shards; possible are 1 to %d", count,
                         SHARDS_MAX);
    *shards = (uint16_t)count;
    return STATUS_OK;
}

/* ---- the function library ---- */

/* The value of a key in a flat [key, value, ...] reply. */
static const redisReply *map_get(const redisReply *map, const char *key)
{
    for (size_t i = 0; i + 1 < map->elements; i += 2) {
        if (map->element[i]->type == REDIS_REPLY_STRING && strcmp(map->element[i]->str, key) == 0)
            return map->element[i + 1];
    }
    return NULL;
}

/* True when the library that is loaded is ours to the octet. */
static bool library_is_loaded(struct boot *b)
{
    redisReply *r = ASK(b, "FUNCTION", "LIST", "LIBRARYNAME", LIBRARY_NAME, "WITHCODE");
    bool same = false;
    if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 1) {
        const redisReply *code = map_get(r->element[0], "library_code");
        same = code && code->type == REDIS_REPLY_STRING && code->len == queue_lua_len &&
               memcmp(code->str, queue_lua, queue_lua_len) == 0;
    }
    freeReplyObject(r);
    return same;
}

static enum status load_library(struct boot *b)
{
    if (library_is_loaded(b))
        return STATUS_OK;
    const char *argv[] = { "FUNCTION", "LOAD", "REPLACE", queue_lua };
    const size_t lens[] = { 8, 4, 7, queue_lua_len };
    redisReply *r = redisCommandArgv(b->redis, 4, argv, lens);
    enum status st = STATUS_OK;
    if (is_error(r))
        st = fail_with(b->error, STATUS_REFUSED,
                       "Redis refused FUNCTION LOAD of the library %s: %s (the user needs the "
                       "commands function|load and function|list)",
                       LIBRARY_NAME, error_text(b, r));
    freeReplyObject(r);
    return st;
}

/* In this order: a queue of another schema keeps its own functions. */
static enum status (*const checks[])(struct boot *b) = {
    check_loaded,   check_version, check_role,   check_cluster,
    check_promises, check_schema,  load_library,
};

enum status redis_boot(const struct config *cfg, const struct redis_address *addr, uint16_t *shards,
                       struct buf *error)
{
    struct boot b = { .cfg = cfg, .error = error };
    b.redis = redis_connect_blocking(addr, error);
    if (!b.redis)
        return STATUS_SYSTEM;
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < ARRAY_LEN(checks); i++)
        st = checks[i](&b);
    if (st == STATUS_OK)
        st = adopt_shards(&b, shards);
    redisFree(b.redis);
    free(b.info);
    return st;
}
