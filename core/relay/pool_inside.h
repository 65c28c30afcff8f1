/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * pool_inside - what the files of the relay pool share: pool_dests.c (destinations), pool_wait.c
 * (what waits for them, in lanes), pool.c (what happened), pool_pick.c (what to do next),
 * pool_misfit.c (what a host could not take), pool_suspend.c (rest that a rule asks for),
 * pool_site.h (limits of a site). Nobody else includes it.
 */
#include "core/base/tenant_index.h"
#include "core/relay/pool.h"

/* Lines of tenants (pool_wait.c). */
struct pool_waits {
    struct pool_line **lines; /* owned; a hash table, a power of two of buckets */
    uint32_t bucket_count, line_count;
    struct list spare; /* lines without a delivery */
    uint32_t spare_count;
    struct tenant_index tenants;
};

#define SHARE_BUCKETS 1024

struct relay_pool {
    const struct config *cfg;    /* borrowed */
    struct relay_dest **buckets; /* owned; a power of two of them */
    uint32_t bucket_count;
    uint32_t dest_count;
    uint32_t waiting;       /* deliveries in lanes and on the lists `misfits` */
    uint32_t slots;         /* in any state */
    uint32_t leaving;       /* slots asked to quit and not gone yet */
    uint32_t starved_count; /* destinations on `starved` */
    struct pool_waits waits;
    /* A destination is on one of these (relay_dest.place), or on none when an event must come
     * first. */
    struct list turns;   /* may have something to do */
    struct list starved; /* want a connection while connections_max are open */
    struct list holding; /* want a connection, but not before not_before_ms; soonest first */
    struct list resting; /* in BACKOFF */
    /* Slots, by relay_slot.idle. */
    struct list idle;  /* READY, idle for longest first */
    struct list quits; /* DRAINING and to be asked to quit */
    /* Deliveries. */
    struct list defers; /* to be given back */
    struct list crowds; /* destinations for which crowd_least wait, or more */
    uint32_t crowd_least;
    struct list taken;  /* found by relay_pool_take_shard */
    struct list sites;  /* struct relay_site */
    struct list asks;   /* of them, those with something to ask */
    struct list timed;  /* of them, those with tokens for later */
    struct list slowed; /* all that get less than they may */
    uint32_t slowed_count;
    struct list *site_buckets; /* owned; SITE_BUCKETS of them */
    uint32_t site_count;
    struct list *share_buckets; /* owned; SHARE_BUCKETS of them: slots, by relay_slot.share */
    bool is_draining;
};

/* NULL: there is none of that key. */
struct relay_dest *pool_find_dest(const struct relay_pool *p, const char *key);
/* Finds or makes the destination of that key, which must have a route that delivers. */
struct relay_dest *pool_dest(struct relay_pool *p, const char *key);
/* Frees the destination when nothing waits, is open, or needs to be remembered. */
void pool_dest_drop(struct relay_pool *p, struct relay_dest *dest);
void pool_dests_free(struct relay_pool *p);
/* It may have something to do: it gets a turn. */
void pool_touch(struct relay_pool *p, struct relay_dest *dest);
/* Takes it off the list it is on. */
void pool_unlist(struct relay_pool *p, struct relay_dest *dest);
/* Moves it to the list that `place` names, before that node: the head puts it at the end. */
void pool_place(struct relay_pool *p, struct relay_dest *dest, enum relay_dest_place place,
                struct list *before);
/* Connections that will take deliveries, now or soon. */
uint32_t pool_dest_working(const struct relay_dest *dest);

void pool_waits_init(struct relay_pool *p);
void pool_waits_done(struct relay_pool *p); /* nothing waits any more */
/* is_first: before all of its tenant and lane. */
void pool_put_waiting(struct relay_pool *p, struct relay_dest *dest, struct delivery *d,
                      bool is_first);
/* The destination goes: what its lanes had kept, empty. */
void pool_drop_lines(struct relay_pool *p, struct relay_dest *dest);
/* The next one of a lane that has one. */
struct delivery *pool_pop_waiting(struct relay_pool *p, struct relay_dest *dest,
                                  enum mail_lane lane);
/* The next one that is not urgent; there is one. */
struct delivery *pool_pop_plain(struct relay_pool *p, struct relay_dest *dest);
/* The lane that it will be of. */
enum mail_lane pool_plain_lane(const struct relay_dest *dest);
/* Moves what waits and belongs to the shard to the list, in its order within each line. */
#define POOL_ALL_SHARDS UINT32_MAX
void pool_take_waiting(struct relay_pool *p, struct relay_dest *dest, struct list *to,
                       uint32_t shard);
static inline uint32_t pool_urgent_waiting(const struct relay_dest *dest)
{
    return dest->lanes[LANE_URGENT].count;
}
static inline uint32_t pool_plain_waiting(const struct relay_dest *dest)
{
    return dest->waiting_count - pool_urgent_waiting(dest);
}
/* Of so many connections, those that mail which is not urgent may use at once. */
uint32_t pool_plain_share(const struct relay_pool *p, uint32_t connections);
/* True when something that waits might use another connection to it, were there one. */
bool pool_dest_needs_slots(const struct relay_pool *p, const struct relay_dest *dest);
/* Gives a delivery back untried, with the reason as its outcome. */
void pool_give_back(struct relay_pool *p, struct delivery *d, const struct rcpt_outcome *why);
void pool_give_back_all(struct relay_pool *p, struct relay_dest *dest,
                        const struct rcpt_outcome *why);

/* True when it was suspended, and begins its rest: the hosts that were found are not asked. */
bool pool_is_suspended(struct relay_pool *p, struct relay_dest *dest, const struct now *now);
/* Milliseconds a destination rests after so many failed rounds. */
int64_t pool_backoff_ms(uint32_t failures);
/* A slot for that host of the destination's list. */
struct relay_slot *pool_slot_new(struct relay_pool *p, struct relay_dest *dest, size_t host);
/* It takes nothing more; with nothing in flight it is to be asked to quit. */
void pool_slot_drain(struct relay_pool *p, struct relay_slot *slot);

/* Sites (pool_site.c). */
void pool_sites_init(struct relay_pool *p);
void pool_sites_done(struct relay_pool *p); /* all destinations are gone */
/* The destination's hosts are known, or it goes: with `none`. */
void pool_site_join(struct relay_pool *p, struct relay_dest *dest, bool none);
void pool_site_add_slot(struct relay_pool *p, struct relay_slot *slot);
void pool_site_drop_slot(struct relay_pool *p, struct relay_slot *slot);
void pool_site_connected(struct relay_pool *p, struct relay_slot *slot, const struct now *now);
void pool_slot_set_plain(struct relay_pool *p, struct relay_slot *slot, bool is_plain);
/* Connections that this worker may have to it. */
uint32_t pool_dest_most(const struct relay_pool *p, const struct relay_dest *dest);
/* True when its site allows one more connection. */
bool pool_site_may_connect(const struct relay_dest *dest, bool is_urgent);
/* True when its site allows that the slot takes mail that is not urgent. */
bool pool_site_may_be_plain(const struct relay_slot *slot);
/* True when it must wait before it may send anything; it is listed for that. */
bool pool_site_bars(struct relay_pool *p, struct relay_dest *dest, const struct now *now);
/* A message of the destination is sent. */
void pool_site_count(struct relay_dest *dest);
/* Gives turns to destinations whose tokens are good now. */
void pool_sites_wake(struct relay_pool *p, const struct now *now);
int64_t pool_sites_wake_ms(const struct relay_pool *p); /* INT64_MAX: never */
/* Lists a destination that must wait for its site. */
void pool_site_wait(struct relay_pool *p, struct relay_dest *dest, enum relay_site_want want);
/* True when urgent mail has no connection that it need not share. */
uint32_t pool_urgent_working(const struct relay_dest *dest);

/* Why deliveries are given back while the pool drains. */
extern const struct rcpt_outcome pool_shutting_down;

/* Gives the delivery, which is on no list, to the slot (pool_pick.c). */
struct relay_action pool_send(struct relay_pool *p, struct relay_slot *slot, struct delivery *d);
/* Something for the misfits of an open destination; RELAY_NOTHING: they wait for an event. */
struct relay_action pool_pick_misfit(struct relay_pool *p, struct relay_dest *dest);
/* True when they wait for a connection that is not being made. */
bool pool_misfit_wants(const struct relay_dest *dest);
struct delivery *pool_pop_misfit(struct relay_pool *p, struct relay_dest *dest);
/* A slot that was made for them went without having taken one. */
void pool_misfit_unreached(struct relay_slot *slot, const struct rcpt_outcome *failure);

/* pool_share.c */

void pool_shares_init(struct relay_pool *p);
void pool_shares_done(struct relay_pool *p);
/* Its hosts are new: whether others may use its connections. */
void pool_share_judge(struct relay_dest *dest);
/* The slot is READY: others may take it, if its destination allows. */
void pool_share_offer(struct relay_pool *p, struct relay_slot *slot);
/* Moves an idle slot of another destination to this one's offers; false: there is none. */
bool pool_share_take(struct relay_pool *p, struct relay_dest *dest);
/* Gives a turn to one that starves and can take the slot that is idle longest; false: to none. */
bool pool_share_wake(struct relay_pool *p);
