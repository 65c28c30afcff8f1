/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli - one process, one command, one Redis connection that may block.
 *
 * Every command visits all shards in turn, because any shard may hold any destination. What is
 * printed is one row per delivery with fixed columns, so that awk can take it apart; the last
 * column is free text (cli_print.c).
 *
 * Limits: lists stop at -n rows (1,000 unless told) and say so; pages of PAGE_ROWS keep Redis
 * responsive.
 *
 * To add a command: a row in commands[] and a cmd_* function; its work in Redis is a function of
 * lua/operators.lua.
 */
#include "io/cli.h"
#include "core/base/must.h"
#include "core/smtp/queue_id.h"
#include "io/cli_fsck.h"
#include "io/cli_print.h"
#include "io/cli_redis.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_ROWS     200
#define LIST_ROWS     1000
#define LIST_ROWS_MAX 100000000
#define COUNTERS_MAX  64

/* ---- Redis ---- */

/* Adds up a function's numbers over all shards; `is_paged`: it does a part at a time, until 0. */
static bool sum(struct cli *c, const char *function, int argc, const char *const *args,
                bool is_paged, long long *total)
{
    *total = 0;
    for (long shard = 0; shard < c->shards; shard++) {
        long long n;
        do {
            redisReply *r = cli_call(c, shard, function, argc, args);
            if (!r)
                return false;
            n = r->type == REDIS_REPLY_INTEGER ? r->integer : 0;
            freeReplyObject(r);
            *total += n;
        } while (is_paged && n > 0);
    }
    return true;
}

/* ---- list, dead ---- */

static const char *const states[] = { "ready", "scheduled", "leased", "held", "dead" };

/* Prints up to *left rows of one state of one shard. */
static bool list_shard(struct cli *c, long shard, const char *state, long *left)
{
    char offset_text[24], count_text[24];
    const char *args[] = { state, offset_text, count_text };
    long offset = 0, want, got;
    do {
        want = *left < PAGE_ROWS ? *left : PAGE_ROWS;
        snprintf(offset_text, sizeof offset_text, "%ld", offset);
        snprintf(count_text, sizeof count_text, "%ld", want);
        redisReply *r = cli_call(c, shard, "kilat_list", 3, args);
        if (!r)
            return false;
        got = r->type == REDIS_REPLY_ARRAY ? (long)r->elements : 0;
        for (long i = 0; i < got; i++) {
            const redisReply *row = r->element[i];
            cli_print_row(state, cli_field(row, 0), cli_field(row, 1), cli_field(row, 2),
                          cli_field(row, 3));
        }
        freeReplyObject(r);
        offset += got;
        *left -= got;
    } while (got == want && *left > 0);
    return true;
}

static int list_states(struct cli *c, const char *const *which, size_t count, long rows)
{
    long left = rows;
    cli_print_header();
    for (size_t s = 0; s < count; s++) {
        for (long shard = 0; shard < c->shards && left > 0; shard++) {
            if (!list_shard(c, shard, which[s], &left))
                return CLI_FAILED;
        }
    }
    if (left == 0)
        fprintf(stderr, "stopped after %ld rows; there may be more: -n COUNT\n", rows);
    return CLI_OK;
}

/* [STATE] [-n COUNT] */
static int cmd_list(struct cli *c, int argc, char **argv)
{
    const char *const *which = states;
    size_t count = ARRAY_LEN(states);
    long rows = LIST_ROWS;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            rows = strtol(argv[++i], NULL, 10);
            continue;
        }
        for (which = states, count = 1; which < states + ARRAY_LEN(states); which++) {
            if (strcmp(*which, argv[i]) == 0)
                break;
        }
        if (which == states + ARRAY_LEN(states))
            return CLI_USAGE;
    }
    if (rows < 1 || rows > LIST_ROWS_MAX)
        return CLI_USAGE;
    return list_states(c, which, count, rows);
}

static int cmd_dead(struct cli *c, int argc, char **argv)
{
    const char *dead = "dead";
    return list_states(c, &dead, 1, LIST_ROWS_MAX);
}

/* ---- show ---- */

/* Reads the record of a queue id; NULL: it is gone, or its form is newer than we are. */
static struct message *read_record(struct cli *c, long shard, struct slice delivery,
                                   struct chain_budget *budget)
{
    char key[QUEUE_KEY_MAX], id[QUEUE_ID_LEN + 1];
    const char *argv[] = { "GET", key };
    snprintf(id, sizeof id, "%.*s", SLICE_ARG(delivery));
    cli_set_key(key, queue_key_record(key, (uint16_t)shard, id));
    redisReply *r = cli_ask(c, 2, argv);
    struct message *m = NULL;
    if (r && r->type == REDIS_REPLY_STRING) {
        char *blob = mem_alloc((size_t)r->len + 1);
        memcpy(blob, r->str, (size_t)r->len);
        if (message_decode(blob, (size_t)r->len, budget, &m) != STATUS_OK)
            free(blob);
    }
    freeReplyObject(r);
    return m;
}

static void show_row(struct cli *c, long shard, const redisReply *row)
{
    char state[16];
    struct chain_budget budget = { .max = SIZE_MAX };
    snprintf(state, sizeof state, "%.*s", SLICE_ARG(cli_field(row, 0)));
    bool is_dead = strcmp(state, "dead") == 0; /* its info is the reason, not a time */
    cli_print_row(state, cli_field(row, 1), cli_field(row, 2),
                  is_dead ? SLICE_NONE : cli_field(row, 3),
                  is_dead ? cli_field(row, 3) : SLICE_NONE);
    struct message *m = read_record(c, shard, cli_field(row, 1), &budget);
    if (m)
        cli_print_envelope(m, cli_field(row, 2));
    else
        fputs("    (no readable record)\n", stdout);
    message_unref(m);
}

static int nothing_there(const char *what, const char *id)
{
    fprintf(stderr, "kilat queue: %s %s\n", what, id);
    return CLI_FAILED;
}

static int cmd_show(struct cli *c, int argc, char **argv)
{
    const char *args[] = { argv[0] };
    size_t rows = 0;
    for (long shard = 0; shard < c->shards; shard++) {
        redisReply *r = cli_call(c, shard, "kilat_find", 1, args);
        if (!r)
            return CLI_FAILED;
        for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++) {
            if (rows++ == 0)
                cli_print_header();
            show_row(c, shard, r->element[i]);
        }
        freeReplyObject(r);
    }
    return rows > 0 ? CLI_OK : nothing_there("the queue does not hold", argv[0]);
}

/* ---- delete, hold, release, retry, revive ---- */

static int cmd_delete(struct cli *c, int argc, char **argv)
{
    const char *args[] = { argv[0] };
    long long dropped = 0, leased = 0;
    for (long shard = 0; shard < c->shards; shard++) {
        redisReply *r = cli_call(c, shard, "kilat_drop", 1, args);
        if (!r)
            return CLI_FAILED;
        if (r->type == REDIS_REPLY_ARRAY && r->elements == 2) {
            dropped += r->element[0]->integer;
            leased += r->element[1]->integer;
        }
        freeReplyObject(r);
    }
    if (dropped + leased == 0)
        return nothing_there("the queue does not hold", argv[0]);
    printf("deleted %lld deliveries of %s\n", dropped, argv[0]);
    if (leased == 0)
        return CLI_OK;
    fprintf(stderr, "kilat queue: %lld are being delivered just now and were left alone\n", leased);
    return CLI_FAILED;
}

/* Destinations are kept in lower case. */
static void lower(char *text)
{
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
    }
}

static int cmd_hold(struct cli *c, int argc, char **argv)
{
    long long total;
    lower(argv[0]);
    const char *args[] = { argv[0], "*" };
    if (!sum(c, "kilat_hold", 2, args, false, &total))
        return CLI_FAILED;
    printf("holding %s until `kilat queue release %s`\n", argv[0], argv[0]);
    return CLI_OK;
}

static const char *or_star(const char *arg)
{
    return strcmp(arg, "all") == 0 ? "*" : arg;
}

/* Mail that a route holds has no way on while the configuration says so: it would be held again. */
static bool is_held_by_route(const struct cli *c, const char *dest)
{
    const struct config_route *route = route_of_key(c->cfg, slice_str(dest));
    return dest[0] == '!' && route && route->relay == RELAY_HOLD;
}

static int cmd_release(struct cli *c, int argc, char **argv)
{
    long long total;
    lower(argv[0]);
    if (is_held_by_route(c, argv[0])) {
        fprintf(stderr,
                "kilat queue: %s: route \"%s\" in %s still holds this mail: give the route another "
                "relay, restart, then release\n",
                argv[0], argv[0] + 1, c->cfg->file);
        return CLI_FAILED;
    }
    const char *args[] = { or_star(argv[0]) };
    if (!sum(c, "kilat_free", 1, args, false, &total))
        return CLI_FAILED;
    if (total == 0)
        return nothing_there("not on hold:", argv[0]);
    printf("released %s\n", argv[0]);
    return CLI_OK;
}

static int move_ids(struct cli *c, const char *function, const char *arg, const char *done,
                    const char *none)
{
    long long total;
    const char *args[] = { or_star(arg) };
    bool is_all = strcmp(args[0], "*") == 0;
    if (!sum(c, function, 1, args, is_all, &total))
        return CLI_FAILED;
    if (total == 0 && !is_all)
        return nothing_there(none, arg);
    printf("%lld %s\n", total, done);
    return CLI_OK;
}

static int cmd_retry(struct cli *c, int argc, char **argv)
{
    return move_ids(c, "kilat_kick", argv[0], "deliveries are due now", "not waiting for a retry:");
}

static int cmd_revive(struct cli *c, int argc, char **argv)
{
    return move_ids(c, "kilat_revive", argv[0], "dead letters are in the queue again",
                    "not a dead letter:");
}

/* ---- stats ---- */

struct counter {
    char name[32];
    long long n;
};

/* Adds a flat [name, number, ...] reply to the counters. */
static void add_counters(struct counter *all, size_t *count, const redisReply *r)
{
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i + 1 < r->elements; i += 2) {
        const redisReply *value = r->element[i + 1];
        long long n = value->type == REDIS_REPLY_INTEGER ? value->integer
                      : value->str                       ? atoll(value->str)
                                                         : 0;
        char name[sizeof all->name];
        snprintf(name, sizeof name, "%.*s", SLICE_ARG(cli_field(r, i)));
        size_t at = 0;
        while (at < *count && strcmp(all[at].name, name) != 0)
            at++;
        if (at == COUNTERS_MAX)
            continue;
        if (at == *count) {
            memcpy(all[at].name, name, sizeof name);
            (*count)++;
        }
        all[at].n += n;
    }
}

static int cmd_stats(struct cli *c, int argc, char **argv)
{
    struct counter now[COUNTERS_MAX] = { 0 }, ever[COUNTERS_MAX] = { 0 };
    size_t now_count = 0, ever_count = 0;
    for (long shard = 0; shard < c->shards; shard++) {
        char key[QUEUE_KEY_MAX];
        const char *get[] = { "HGETALL", key };
        cli_set_key(key, queue_key_counters(key, (uint16_t)shard));
        redisReply *r = cli_call(c, shard, "kilat_count", 0, NULL);
        redisReply *counters = r ? cli_ask(c, 2, get) : NULL;
        if (counters) {
            add_counters(now, &now_count, r);
            add_counters(ever, &ever_count, counters);
        }
        bool good = counters != NULL;
        freeReplyObject(r);
        freeReplyObject(counters);
        if (!good)
            return CLI_FAILED;
    }
    printf("shards %ld\n", c->shards);
    for (size_t i = 0; i < now_count; i++)
        printf("%s %lld\n", now[i].name, now[i].n);
    for (size_t i = 0; i < ever_count; i++)
        printf("total_%s %lld\n", ever[i].name, ever[i].n);
    return CLI_OK;
}

static int cmd_fsck(struct cli *c, int argc, char **argv)
{
    return cli_fsck(c);
}

/* ---- the table ---- */

enum arg_kind { ARG_NONE, ARG_OPTIONS, ARG_ID, ARG_ID_OR_ALL, ARG_DEST };

static const struct {
    const char *name;
    enum arg_kind arg;
    int (*run)(struct cli *c, int argc, char **argv);
    const char *usage;
} commands[] = {
    { "list", ARG_OPTIONS, cmd_list,
      "list [ready|scheduled|leased|held|dead] [-n COUNT]   what is in the queue" },
    { "show", ARG_ID, cmd_show, "show ID              one message: where it is, its envelope" },
    { "delete", ARG_ID, cmd_delete, "delete ID            ends it without a bounce" },
    { "hold", ARG_DEST, cmd_hold, "hold DESTINATION     deliver nothing there until released" },
    { "release", ARG_DEST, cmd_release, "release DESTINATION|all   ends a hold" },
    { "retry", ARG_ID_OR_ALL, cmd_retry, "retry ID|all         makes scheduled retries due now" },
    { "dead", ARG_NONE, cmd_dead, "dead                 the dead letters, with reasons" },
    { "revive", ARG_ID_OR_ALL, cmd_revive, "revive ID|all        puts dead letters back" },
    { "stats", ARG_NONE, cmd_stats, "stats                how many, in which state" },
    { "fsck", ARG_NONE, cmd_fsck, "fsck                 looks for what was lost or left over" },
};

static int usage(void)
{
    fputs("usage: kilat queue -c FILE COMMAND\n", stderr);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(stderr, "  %s\n", commands[i].usage);
    return CLI_USAGE;
}

/* "<queue id>" or "<queue id>/<number>" */
static bool is_delivery_id(struct slice id)
{
    struct slice rest = slice_skip(id, QUEUE_ID_LEN);
    if (id.len >= DELIVERY_ID_MAX || !queue_id_is_valid(slice_head(id, QUEUE_ID_LEN)))
        return false;
    if (rest.len == 0)
        return true;
    for (size_t i = 1; i < rest.len; i++) {
        if (rest.ptr[i] < '0' || rest.ptr[i] > '9')
            return false;
    }
    return rest.ptr[0] == '/' && rest.len > 1;
}

static bool is_dest(struct slice dest)
{
    for (size_t i = 0; i < dest.len; i++) {
        if (dest.ptr[i] <= 0x20 || dest.ptr[i] >= 0x7f)
            return false;
    }
    return dest.len > 0 && dest.len < DEST_KEY_MAX;
}

/* Only what could be meant reaches Redis; else the reason is printed. */
static bool args_fit(enum arg_kind kind, int argc, char **argv)
{
    if (kind == ARG_OPTIONS)
        return true;
    if (argc != (kind == ARG_NONE ? 0 : 1))
        return false;
    if (kind == ARG_NONE)
        return true;
    struct slice arg = slice_str(argv[0]);
    bool fits = kind == ARG_DEST
                    ? is_dest(arg)
                    : is_delivery_id(arg) || (kind == ARG_ID_OR_ALL &&
                                              slice_eq(slice_str(or_star(argv[0])), SLICE("*")));
    if (!fits)
        fprintf(stderr, "kilat queue: not %s: %s\n",
                kind == ARG_DEST ? "a destination" : "a queue id", argv[0]);
    return fits;
}

static int run(const struct config *cfg, size_t which, int argc, char **argv)
{
    struct cli c;
    int rc = CLI_FAILED;
    if (cli_connect(&c, cfg))
        rc = commands[which].run(&c, argc, argv);
    if (c.error.len > 0)
        fprintf(stderr, "kilat queue: %.*s\n", SLICE_ARG(buf_slice(&c.error)));
    cli_close(&c);
    /* A full disk behind `> file` must not look like success. */
    if (fflush(stdout) != 0 && rc == CLI_OK)
        rc = CLI_FAILED;
    return rc == CLI_USAGE ? usage() : rc;
}

int cli_queue(const struct config *cfg, int argc, char **argv)
{
    for (size_t i = 0; argc > 0 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, argv[0]) != 0)
            continue;
        if (!args_fit(commands[i].arg, argc - 1, argv + 1))
            return usage();
        return run(cfg, i, argc - 1, argv + 1);
    }
    return usage();
}
