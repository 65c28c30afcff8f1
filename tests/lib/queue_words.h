/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * queue_words - a private Redis with the functions of queue/lua, spoken to in words: SAY("GET",
 * key), FN("done", worker, id); replies come as text. Header only: every test is one program.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "queue/schema.h"

#define W1  "1111111111111111"
#define W2  "2222222222222222"
#define TAG "{q7}"
#define A   "a0000000000000000000"
#define B   "b0000000000000000000"
#define C   "c0000000000000000000"
/* Items: lane, destination, chunks. */
#define ITEM_OF(lane, dest, chunks) lane "\t" dest "\t0\t1000\t5000\t\t" chunks "\t10\t0"
#define ITEM                        ITEM_OF("n", "x.example", "0")
#define TRIED                       "n\tx.example\t1\t1000\t5000\t\t0\t10\t0"
#define LONG                        "60000"

static struct private_redis server;
static redisContext *redis;

/* --- talking --------------------------------------------------------------------------------- */

static inline void describe(const redisReply *r, char *out, size_t max)
{
    size_t n = strlen(out);
    if (r->type == REDIS_REPLY_INTEGER)
        snprintf(out + n, max - n, "%lld ", r->integer);
    else if (r->type == REDIS_REPLY_NIL)
        snprintf(out + n, max - n, "nil ");
    else if (r->type != REDIS_REPLY_ARRAY)
        snprintf(out + n, max - n, "%s ", r->str);
    else {
        snprintf(out + n, max - n, "[ ");
        for (size_t i = 0; i < r->elements; i++)
            describe(r->element[i], out, max);
        n = strlen(out);
        snprintf(out + n, max - n, "] ");
    }
}

/* The reply as text, without the last space; good until eight more were asked for. */
static inline const char *text_of(redisReply *r)
{
    static char texts[8][8192];
    static int next;
    char *text = texts[next++ % 8];
    assert_non_null(r);
    text[0] = 0;
    describe(r, text, sizeof texts[0]);
    freeReplyObject(r);
    text[strlen(text) - 1] = 0;
    return text;
}

static inline const char *say(const char *first, ...)
{
    const char *argv[64] = { first };
    int argc = 1;
    va_list args;
    va_start(args, first);
    while ((argv[argc] = va_arg(args, const char *)))
        argc++;
    va_end(args);
    return text_of(redisCommandArgv(redis, argc, argv, NULL));
}
#define SAY(...)      say(__VA_ARGS__, NULL)
#define FN(name, ...) say("FCALL", "kilat_" name, "1", TAG "n", ##__VA_ARGS__, NULL)

#define expect(got, want) assert_string_equal(got, want)

/* One delivery queued, with its record, as the committer does it: in one transaction. */
static inline const char *enqueue(const char *worker, const char *lease, const char *id,
                                  const char *item, const char *mode, const char *chunks)
{
    char key[64];
    snprintf(key, sizeof key, TAG "b:%.20s", id);
    SAY("MULTI");
    FN("enq", worker, lease, "1", id, item, mode, "0", chunks);
    SAY("SET", key, "record", "XX", "KEEPTTL");
    return SAY("EXEC");
}

static inline const char *counts(void)
{
    return FN("count");
}

static inline void expect_counts(int ready, int scheduled, int leased, int held, int dead)
{
    char want[128];
    snprintf(want, sizeof want, "[ ready %d scheduled %d leased %d held %d dead %d ]", ready,
             scheduled, leased, held, dead);
    expect(counts(), want);
}

/* Nothing is left but heartbeats, counters and notes to workers. */
static inline void expect_empty(void)
{
    static const char *const keys[] = {
        "b:*", "w:*", "r:*", "v:*", "d:*", "t", "ti", "c", "x", "xr"
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char pattern[32];
        snprintf(pattern, sizeof pattern, TAG "%s", keys[i]);
        expect(SAY("KEYS", pattern), "[ ]");
    }
}

/* Every delivery that ever came is over or still there. */
static inline void expect_accounts(void)
{
    redisReply *r = redisCommand(redis, "HMGET " TAG "n enqueued split done cancelled dropped");
    redisReply *now = redisCommand(redis, "FCALL kilat_count 1 " TAG "n");
    long n[5], there = 0;
    for (int i = 0; i < 5; i++)
        n[i] = r->element[i]->str ? atol(r->element[i]->str) : 0;
    for (size_t i = 1; i < now->elements; i += 2)
        there += (long)now->element[i]->integer;
    assert_int_equal(n[0] + n[1], n[2] + n[3] + n[4] + there);
    freeReplyObject(r);
    freeReplyObject(now);
}

static inline int start_server(void **state)
{
    static const char *const options[] = { "--appendonly", "no", NULL };
    private_redis_start(&server, options);
    redis = redisConnectUnix(server.socket);
    assert_non_null(redis);
    assert_int_equal(redis->err, 0);
    redisReply *r = redisCommand(redis, "FUNCTION LOAD REPLACE %b", queue_lua, queue_lua_len);
    expect(text_of(r), "kilat");
    return 0;
}

static inline int stop_server(void **state)
{
    redisFree(redis);
    private_redis_stop(&server);
    return 0;
}

static inline int flush(void **state)
{
    expect(SAY("CONFIG", "SET", "maxmemory", "0"), "OK");
    expect(SAY("FLUSHALL"), "OK");
    return 0;
}

static inline int check_accounts(void **state)
{
    expect_accounts();
    return 0;
}

/* A case begins with an empty Redis, and its accounts must add up in the end. */
#define row(test) cmocka_unit_test_setup_teardown(test, flush, check_accounts)
