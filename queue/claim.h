/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * claim - the worker's other dealings with the shared queue: heartbeats, moving what is due,
 * claiming ready items and reading their records back, and the chunks of large messages.
 *
 * Runs on its own link, so that reading never delays a commit. Pure: appends commands to `out`,
 * gets replies through the link.
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"
#include "queue/redis_link.h"
#include "queue/schema.h"

struct claim_config {
    uint16_t shards;
    uint32_t lease_ms;
    char worker[QUEUE_WORKER_LEN + 1];
    struct metrics *metrics;
    struct chain_budget *budget;
    const struct config_tenant *tenants; /* borrowed; their weights are told to Redis */
    size_t tenant_count;
};

struct claim_sink {
    void *ctx;
    /* A claimed item whose record was read; the callee owns the delivery. Its dest is the item's.
     */
    void (*on_delivery)(void *ctx, struct delivery *d);
    /* A claimed item whose record is missing or unreadable: make it a dead letter. */
    void (*on_broken)(void *ctx, uint16_t shard, const char *id, const char *reason);
    /* The heartbeat found that this worker's leases in the shard had passed to others: deliveries
     * of that shard that were not begun must be dropped. */
    void (*on_lease_lost)(void *ctx, uint16_t shard);
    /* False: nothing is to be claimed from the shard now, since words about an earlier lease in it
     * are still on their way. NULL: always true. */
    bool (*may_claim)(void *ctx, uint16_t shard);
};

struct claimer; /* claim.c */

struct claimer *claim_new(const struct claim_config *cfg, const struct claim_sink *sink);
void claim_free(struct claimer *c);
#define CLAIM_CROWDED_MAX 16
/* How many more deliveries may be held. */
struct claim_room {
    uint32_t lanes[LANE_COUNT]; /* of each lane, were it alone */
    uint32_t plain;             /* of normal and bulk together */
    uint32_t all;
    /* Destinations that have enough: of them urgent mail only. Borrowed for the call. */
    const char *crowded[CLAIM_CROWDED_MAX];
    size_t crowded_count;
};
/* Appends what is due: a heartbeat per shard once a second; kilat_tick per shard every 250 ms;
 * claims, as long as there is room: at most 64 items of one shard at a time, shards in turn, at
 * once again while claims come back full. No room: claims nothing. */
void claim_pump(struct claimer *c, struct redis_link *link, const struct claim_room *room,
                struct gather *out, const struct now *now);
/* Monotonic ms when claim_pump has something to do. */
int64_t claim_wake_ms(const struct claimer *c);
void claim_link_up(struct claimer *c);   /* heartbeats at once */
void claim_link_down(struct claimer *c); /* after redis_link_lost */
/* True when this worker surely holds its leases in the shard: the last confirmed heartbeat was sent
 * less than lease_ms ago. No delivery may begin otherwise. */
bool claim_lease_is_live(const struct claimer *c, uint16_t shard, const struct now *now);
/* A shard was newly given work (an enqueue, a release): look sooner. */
void claim_hint(struct claimer *c);
/* Draining: appends kilat_bye for every shard: leases that are left go back to the queue. */
void claim_bye(struct claimer *c, struct redis_link *link, struct gather *out);
/* True when kilat_bye was answered by every shard. */
bool claim_bye_is_done(const struct claimer *c);

/* Chunks of large messages. Writing: SET b:<id>:<n> with the TTL; reading: GET. The request and the
 * bytes stay alive until on_reply. */
void claim_chunk_put(struct redis_link *link, struct redis_request *req, redis_reply_fn *on_reply,
                     uint16_t shard, const char *id, uint32_t n, const struct chain *content,
                     struct gather *out);
void claim_chunk_get(struct redis_link *link, struct redis_request *req, redis_reply_fn *on_reply,
                     uint16_t shard, const char *id, uint32_t n, struct gather *out);
