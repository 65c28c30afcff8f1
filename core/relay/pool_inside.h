/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * pool_inside - what the files of the relay pool share: pool_dests.c (destinations and what waits
 * for them), pool.c (what happened), pool_pick.c (what to do next), pool_misfit.c (what a host
 * could not take). Nobody else includes it.
 */
#include "core/relay/pool.h"

struct relay_pool {
    const struct config *cfg;    /* borrowed */
    struct relay_dest **buckets; /* owned; a power of two of them */
    uint32_t bucket_count;
    uint32_t dest_count;
    uint32_t waiting;       /* deliveries on the lists `waiting` and `misfits` */
    uint32_t slots;         /* in any state */
    uint32_t leaving;       /* slots asked to quit and not gone yet */
    uint32_t starved_count; /* destinations on `starved` */
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
    struct list taken;  /* found by relay_pool_take_shard */
    bool is_draining;
};

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

struct delivery *pool_pop_waiting(struct relay_pool *p, struct relay_dest *dest);
/* Gives a delivery back untried, with the reason as its outcome. */
void pool_give_back(struct relay_pool *p, struct delivery *d, const struct rcpt_outcome *why);
void pool_give_back_all(struct relay_pool *p, struct relay_dest *dest,
                        const struct rcpt_outcome *why);

/* Milliseconds a destination rests after so many failed rounds. */
int64_t pool_backoff_ms(uint32_t failures);
/* A slot for that host of the destination's list. */
struct relay_slot *pool_slot_new(struct relay_pool *p, struct relay_dest *dest, size_t host);
/* It takes nothing more; with nothing in flight it is to be asked to quit. */
void pool_slot_drain(struct relay_pool *p, struct relay_slot *slot);

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
