/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_redis - the connection of a command line: it may block, and ends with the command.
 */
#include "io/cli_redis.h"
#include "core/base/must.h"
#include "io/fail.h"
#include "io/redis_boot.h"

#include <stdlib.h>

#define ERROR_MAX 4096

redisReply *cli_ask(struct cli *c, int argc, const char **argv)
{
    redisReply *r = redisCommandArgv(c->redis, argc, argv, NULL);
    if (r && r->type != REDIS_REPLY_ERROR)
        return r;
    (void)fail_with(&c->error, STATUS_REFUSED, "Redis: %s", r ? r->str : c->redis->errstr);
    freeReplyObject(r);
    return NULL;
}

void cli_set_key(char key[QUEUE_KEY_MAX], struct slice made)
{
    must(made.ptr == key && made.len < QUEUE_KEY_MAX);
    key[made.len] = '\0';
}

redisReply *cli_call(struct cli *c, long shard, const char *function, int argc,
                     const char *const *args)
{
    char key[QUEUE_KEY_MAX];
    const char *argv[4 + CLI_ARGS_MAX] = { "FCALL", function, "1", key };
    must(argc <= CLI_ARGS_MAX);
    cli_set_key(key, queue_key_counters(key, (uint16_t)shard));
    for (int i = 0; i < argc; i++)
        argv[4 + i] = args[i];
    return cli_ask(c, 4 + argc, argv);
}

struct slice cli_field(const redisReply *row, size_t i)
{
    if (row->type != REDIS_REPLY_ARRAY || i >= row->elements ||
        row->element[i]->type != REDIS_REPLY_STRING)
        return SLICE_NONE;
    return slice_of(row->element[i]->str, row->element[i]->len);
}

bool cli_connect(struct cli *c, const struct config *cfg)
{
    struct redis_address addr = { 0 };
    *c = (struct cli){ .cfg = cfg };
    buf_init(&c->error, ERROR_MAX);
    if (redis_address_of(cfg, &addr, &c->error) != STATUS_OK)
        return false;
    c->redis = redis_connect_blocking(&addr, &c->error);
    redis_address_done(&addr);
    if (!c->redis) {
        if (cfg->redis.mode == REDIS_EMBEDDED &&
            buf_append(&c->error, SLICE(" (the embedded Redis runs while the gateway does)")) !=
                STATUS_OK)
            return false;
        return false;
    }
    const char *argv[] = { "HGET", QUEUE_CFG_KEY, "shards" };
    redisReply *r = cli_ask(c, 3, argv);
    if (!r)
        return false;
    c->shards = r->type == REDIS_REPLY_STRING ? atol(r->str) : 0;
    freeReplyObject(r);
    if (c->shards > 0)
        return true;
    (void)fail_with(&c->error, STATUS_MISSING, "there is no queue in this Redis yet");
    return false;
}

void cli_close(struct cli *c)
{
    if (c->redis)
        redisFree(c->redis);
    c->redis = NULL;
    buf_done(&c->error);
}
