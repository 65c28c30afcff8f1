/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_secret - asked for once, at start, by the main thread, before any worker runs.
 */
#include "io/shared_secret.h"
#include "core/base/must.h"
#include "io/fail.h"
#include "queue/schema.h"
#include <openssl/rand.h>
#include <string.h>

void shared_secret_make(uint8_t secret[SHARED_SECRET_LEN])
{
    must(RAND_bytes(secret, SHARED_SECRET_LEN) == 1);
}

static bool take(uint8_t secret[SHARED_SECRET_LEN], const redisReply *r)
{
    bool is_good = r && r->type == REDIS_REPLY_STRING && r->len == SHARED_SECRET_LEN;
    if (is_good)
        memcpy(secret, r->str, SHARED_SECRET_LEN);
    return is_good;
}

/* Ours, if there is none yet. A full Redis refuses it: mail must flow all the same. */
static redisReply *offer(const char *field, const uint8_t secret[SHARED_SECRET_LEN],
                         redisContext *c)
{
    redisReply *r =
        redisCommand(c, "HSETNX %s %s %b", QUEUE_CFG_KEY, field, secret, (size_t)SHARED_SECRET_LEN);
    if (!r || r->type == REDIS_REPLY_ERROR)
        return r;
    freeReplyObject(r);
    return redisCommand(c, "HGET %s %s", QUEUE_CFG_KEY, field);
}

enum status shared_secret_adopt(const struct redis_address *addr, const char *field,
                                uint8_t secret[SHARED_SECRET_LEN], struct buf *error)
{
    redisContext *c = redis_connect_blocking(addr, error);
    if (!c)
        return STATUS_SYSTEM;
    redisReply *r = redisCommand(c, "HGET %s %s", QUEUE_CFG_KEY, field);
    if (r && r->type == REDIS_REPLY_NIL) {
        freeReplyObject(r);
        r = offer(field, secret, c);
    }
    bool is_good = take(secret, r) || (r && r->type == REDIS_REPLY_ERROR);
    if (!is_good)
        (void)fail_with(error, STATUS_SYSTEM, "Redis: %s of %s: %s", field, QUEUE_CFG_KEY,
                        c->err ? c->errstr : "not a secret of ours; HDEL it to make a new one");
    freeReplyObject(r);
    redisFree(c);
    return is_good ? STATUS_OK : STATUS_SYSTEM;
}
