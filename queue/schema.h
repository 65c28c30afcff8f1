/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * schema - the queue's names in Redis, and the text of an item. Everything that knows a key lives
 * here and in lua/.
 *
 * Every shard has a tag, {q0} ... {qN-1}; keys are the tag and a suffix:
 *     b:<id>       record: envelope and content (of a large message: envelope and last part)
 *     b:<id>:<n>   chunk n of a large message; has a TTL until the commit
 *     k:<key>      string, TTL: "<id> <digest>[ +]" of the message that was queued under this
 *                  idempotency key; "+": a sender who tried again was given that id
 *     w:<worker>   hash: delivery id -> item, leased to that worker
 *     hb           zset: worker -> lease expiry, Redis' clock in ms
 *     r:<lane>:<dest>  list: "<delivery id>\t<item>", ready, oldest first, of mail without tenant
 *     r:<lane>:<dest> SP <tenant>  the same of a tenant
 *     v:<lane>:<dest>  zset: tenant -> deliveries claimed, by weight; those with a list
 *     d:<lane>     zset: dest -> earliest claim time ms; +inf: held
 *     t, ti        zset: delivery id -> due ms; hash: delivery id -> item; with no attempt in
 *                  the item it is mail whose sender holds it back
 *     c            hash: id -> deliveries left, only when a message has several
 *     x, xr        zset: delivery id -> died ms; hash: delivery id -> "reason\titem"
 *     n            hash: counters
 *     e            stream: events, field j, while a gateway tells them (lua/events.lua)
 *     tw           hash: tenant -> weight, where it is not 10
 *     p:<worker>   string: number and delivery ids of the worker's last claim
 *     g:<worker>   string, TTL: that worker was reaped and does not know it yet
 *     o:<queue id>.<n>  string, TTL: who got mail from a return path of ours (queue/trace.h)
 *     s:<tenant>   hash: canonical address -> reason; its suppression list
 *     h:<tenant>:..  string, TTL: hard bounces of an address so far (lua/policy.lua)
 *     a:<tenant>:..  string, TTL: recipients of late (lua/policy.lua)
 * {cfg} holds the shard count, the schema version, a secret of authentication and one of return
 * paths, and beside it are
 *     {cfg}users         hash: name -> line of core/smtp/account.h
 *     {cfg}af:.., ak:..  strings, TTL: failed logins, and where users are known (lua/auth.lua)
 *     {cfg}sw, s?:..     who uses how much of sites with limits (lua/sites.lua)
 *     {cfg}wu:..         strings, TTL: what left from sources that are warmed up (lua/warm.lua)
 *
 * A delivery id is the queue id, or "<queue id>/<k>" for one of several destinations.
 */
#include "core/base/buf.h"
#include "core/base/status.h"
#include "core/relay/delivery.h"

#define QUEUE_SCHEMA_VERSION 1
#define QUEUE_CFG_KEY        "{cfg}"
#define QUEUE_USERS_KEY      "{cfg}users"
#define QUEUE_STS_PREFIX     "{cfg}sts:"    /* and a domain: its MTA-STS policy */
#define QUEUE_TLSRPT_PREFIX  "{cfg}tlsrpt:" /* and a day: who is told of it; and a domain: what */
#define QUEUE_WEBHOOK_KEY    "{cfg}webhook" /* who posts events; with ":at": how far */
#define QUEUE_WORKER_LEN     16             /* characters of a worker token, [0-9a-f] */
#define QUEUE_KEY_MAX        320
#define QUEUE_ITEM_MAX       (1024 * 1024) /* 100,000 recipients, every other one */
#define QUEUE_CHUNK_SIZE     (256 * 1024)  /* octets of one chunk of a large message */
#define QUEUE_CHUNK_TTL_S    86400         /* an upload that never commits vanishes after this */

/* An item: what a worker must know to deliver, besides the record. Text, tab-separated:
 * lane, dest, attempts, accepted ms, expires ms, tenant, chunks, size, recipients ("0-4,7"); then
 * `told`, when it is not zero. */
struct queue_item {
    char lane;
    struct slice dest;
    uint32_t attempts;
    int64_t accepted_ms, expires_ms; /* wall clock */
    struct slice tenant;
    uint32_t chunks;
    uint64_t size;
    const uint32_t *rcpts; /* ascending */
    uint32_t rcpt_count;
    uint32_t told; /* bits of enum delivery_told */
};

NODISCARD enum status queue_item_encode(const struct queue_item *item, struct buf *out);
/* Slices point into text; rcpts lie in the arena. BAD: not an item. */
NODISCARD enum status queue_item_decode(struct slice text, struct arena *arena,
                                        struct queue_item *out);

/* Keys, written to out, which is what the result points into. */
struct slice queue_key_counters(char out[QUEUE_KEY_MAX], uint16_t shard); /* KEYS[1] of all calls */
struct slice queue_key_record(char out[QUEUE_KEY_MAX], uint16_t shard, const char *queue_id);
struct slice queue_key_chunk(char out[QUEUE_KEY_MAX], uint16_t shard, const char *queue_id,
                             uint32_t n);

struct slice queue_key_events(char out[QUEUE_KEY_MAX], uint16_t shard);
struct slice queue_key_suppression(char out[QUEUE_KEY_MAX], uint16_t shard, struct slice tenant);

/* An idempotency key, or a body's digest, as it stands in Redis: its first half in hex. */
#define QUEUE_DIGEST_HEX 32
void queue_digest_hex(char out[QUEUE_DIGEST_HEX + 1], const uint8_t digest[32]);

/* The shard that a message of this idempotency key belongs to. */
uint16_t queue_key_shard(const uint8_t key[32], uint16_t shards);
/* The shard that a tenant's lists and counts are in. */
uint16_t queue_tenant_shard(struct slice tenant, uint16_t shards);

/* The text of queue/lua, built in; for FUNCTION LOAD REPLACE. */
extern const char queue_lua[];
extern const size_t queue_lua_len;
