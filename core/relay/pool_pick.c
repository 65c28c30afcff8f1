/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_pick - what to do next.
 *
 * Destinations that may have something to do are on `turns`. relay_pool_next takes the first, asks
 * it for one action, and puts it at the end again: destinations take turns, one action each. One
 * that has nothing to do leaves the list and comes back by an event (pool_touch). So a call costs
 * the same with ten destinations as with a hundred thousand.
 *
 * When no turn has anything, every idle connection is one that nobody waits for. Only then are idle
 * connections closed: for a destination that is starved of one, or because their time is over.
 *
 * To add a rule: a pick_ function here and a case in test_pool.c.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"

#define WAITING_PER_SLOT 4 /* open one more when more than this many wait for each that works */

static const struct relay_action nothing = { .kind = RELAY_NOTHING };

/* --- one destination ------------------------------------------------------------------------- */

static struct relay_action pick_resolve(struct relay_dest *dest)
{
    dest->state = DEST_RESOLVING;
    return (struct relay_action){ .kind = RELAY_RESOLVE, .dest = dest };
}

/* A new connection that takes mail shows that the destination works. One that only came up does
 * not, and one that has worked all the time says nothing about the hosts that fail now. */
static void end_round(struct relay_dest *dest)
{
    dest->failures = 0;
    dest->hosts_failed = 0;
    dest->is_round_over = false;
}

static bool is_used_up(const struct relay_pool *p, const struct relay_slot *slot)
{
    return slot->messages >= p->cfg->relay.messages_per_connection ||
           (slot->messages_max > 0 && slot->messages >= slot->messages_max);
}

struct relay_action pool_send(struct relay_pool *p, struct relay_slot *slot, struct delivery *d)
{
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    slot->state = SLOT_BUSY;
    slot->in_flight++;
    slot->messages++;
    if (slot->messages == 1 && !slot->is_for_misfits)
        end_round(slot->dest);
    if (is_used_up(p, slot))
        pool_slot_drain(p, slot);
    return (
        struct relay_action){ .kind = RELAY_SEND, .dest = slot->dest, .slot = slot, .delivery = d };
}

static struct relay_action pick_send(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = list_entry(dest->offers.next, struct relay_slot, offer);
    return pool_send(p, slot, pool_pop_waiting(p, dest));
}

static bool wants_connection(const struct relay_pool *p, const struct relay_dest *dest)
{
    uint64_t enough = (uint64_t)WAITING_PER_SLOT * pool_dest_working(dest);
    return dest->slot_count < p->cfg->relay.per_destination_max && dest->waiting_count > enough;
}

/* Soonest first. Those that hold have failed within the last second and have, or had until now, a
 * connection each, so the walk is short. */
static struct relay_action pick_hold(struct relay_pool *p, struct relay_dest *dest)
{
    struct list *at = p->holding.prev;
    while (at != &p->holding &&
           list_entry(at, struct relay_dest, node)->not_before_ms > dest->not_before_ms)
        at = at->prev;
    pool_place(p, dest, PLACE_HOLDING, at->next);
    return nothing;
}

static struct relay_action pick_starve(struct relay_pool *p, struct relay_dest *dest)
{
    pool_place(p, dest, PLACE_STARVED, &p->starved);
    return nothing;
}

static struct relay_action pick_connect(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = pool_slot_new(p, dest, dest->host_next);
    return (struct relay_action){
        .kind = RELAY_CONNECT, .dest = dest, .slot = slot, .host = &dest->hosts[slot->host]
    };
}

/* A round goes on with the hosts it began with: one that hangs for longer than its addresses are
 * good for would be the first again each time, and the others never tried. */
static bool needs_hosts(const struct relay_dest *dest, const struct now *now)
{
    return now->mono_ms >= dest->hosts_expire_ms && dest->hosts_failed == 0;
}

static struct relay_action pick_waiting(struct relay_pool *p, struct relay_dest *dest,
                                        const struct now *now)
{
    if (dest->waiting_count == 0)
        return nothing;
    if (!list_is_empty(&dest->offers))
        return pick_send(p, dest);
    if (!wants_connection(p, dest))
        return nothing;
    if (now->mono_ms < dest->not_before_ms)
        return pick_hold(p, dest);
    if (p->slots >= p->cfg->relay.connections_max)
        return pick_starve(p, dest);
    if (needs_hosts(dest, now))
        return pick_resolve(dest);
    return pick_connect(p, dest);
}

/* Misfits first: they waited before. */
static struct relay_action pick_open(struct relay_pool *p, struct relay_dest *dest,
                                     const struct now *now)
{
    struct relay_action a = dest->misfit_count > 0 ? pool_pick_misfit(p, dest) : nothing;
    if (a.kind == RELAY_NOTHING)
        a = pick_waiting(p, dest, now);
    bool lacks_slot = pool_misfit_wants(dest) && p->slots >= p->cfg->relay.connections_max;
    if (a.kind == RELAY_NOTHING && dest->place == PLACE_NONE && lacks_slot)
        return pick_starve(p, dest);
    return a;
}

static struct relay_action pick_resolving(struct relay_pool *p, struct relay_dest *dest)
{
    bool can_send = !list_is_empty(&dest->offers) && dest->waiting_count > 0;
    return can_send ? pick_send(p, dest) : nothing;
}

static struct relay_action pick_backoff(struct relay_pool *p, struct relay_dest *dest,
                                        const struct now *now)
{
    if (now->mono_ms >= dest->not_before_ms)
        return pick_resolve(dest);
    pool_give_back_all(p, dest, &dest->failure);
    return nothing;
}

static struct relay_action pick_for(struct relay_pool *p, struct relay_dest *dest,
                                    const struct now *now)
{
    if (dest->waiting_count == 0 && dest->misfit_count == 0)
        return nothing;
    switch (dest->state) {
    case DEST_NEW: return pick_resolve(dest);
    case DEST_RESOLVING: return pick_resolving(p, dest);
    case DEST_OPEN: return pick_open(p, dest, now);
    case DEST_BACKOFF: return pick_backoff(p, dest, now);
    }
    return nothing;
}

/* --- turns ----------------------------------------------------------------------------------- */

/* It had nothing to do and waits for an event, on a list or on none. */
static void put_away(struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->state == DEST_BACKOFF)
        pool_place(p, dest, PLACE_RESTING, &p->resting);
    else
        pool_dest_drop(p, dest);
}

static struct relay_action take_turns(struct relay_pool *p, const struct now *now)
{
    while (!list_is_empty(&p->turns)) {
        struct relay_dest *dest = list_entry(p->turns.next, struct relay_dest, node);
        pool_unlist(p, dest);
        struct relay_action a = pick_for(p, dest, now);
        if (a.kind != RELAY_NOTHING) {
            pool_touch(p, dest);
            return a;
        }
        put_away(p, dest);
    }
    return nothing;
}

/* The failures of a destination are forgotten when it has rested twice as long as it had to. One is
 * looked at in each call. */
static void forget_rested(struct relay_pool *p, const struct now *now)
{
    if (list_is_empty(&p->resting))
        return;
    struct relay_dest *dest = list_entry(p->resting.next, struct relay_dest, node);
    pool_place(p, dest, PLACE_RESTING, &p->resting);
    if (now->mono_ms >= dest->not_before_ms + pool_backoff_ms(dest->failures))
        pool_dest_drop(p, dest);
}

/* Gives a turn to a destination that had to wait for time or room; false: to none. */
static bool wake_one(struct relay_pool *p, const struct now *now)
{
    struct list *node = p->holding.next;
    if (node != &p->holding &&
        list_entry(node, struct relay_dest, node)->not_before_ms <= now->mono_ms) {
        pool_touch(p, list_entry(node, struct relay_dest, node));
        return true;
    }
    if (p->starved_count == 0 || p->slots >= p->cfg->relay.connections_max)
        return false;
    pool_touch(p, list_entry(p->starved.next, struct relay_dest, node));
    return true;
}

/* --- connections that are done without ------------------------------------------------------- */

static struct relay_action pick_quit(struct relay_pool *p, struct relay_slot *slot)
{
    list_remove(&slot->idle);
    slot->is_asked = true;
    p->leaving++;
    return (struct relay_action){ .kind = RELAY_QUIT, .dest = slot->dest, .slot = slot };
}

/* More want a connection than are about to be free. */
static bool lacks_room(const struct relay_pool *p)
{
    return p->leaving < p->starved_count;
}

static int64_t idle_until_ms(const struct relay_pool *p)
{
    if (list_is_empty(&p->idle))
        return INT64_MAX;
    return list_entry(p->idle.next, struct relay_slot, idle)->idle_since_ms +
           p->cfg->relay.idle_timeout_ms;
}

static struct relay_action pick_idle(struct relay_pool *p, const struct now *now)
{
    if (list_is_empty(&p->idle) || (!lacks_room(p) && now->mono_ms < idle_until_ms(p)))
        return nothing;
    struct relay_slot *slot = list_entry(p->idle.next, struct relay_slot, idle);
    pool_slot_drain(p, slot);
    return pick_quit(p, slot);
}

/* --- entry points ---------------------------------------------------------------------------- */

struct relay_action relay_pool_next(struct relay_pool *p, const struct now *now)
{
    struct relay_action a;
    forget_rested(p, now);
    do {
        struct list *node;
        if ((node = list_pop_front(&p->defers)))
            return (struct relay_action){ .kind = RELAY_DEFER,
                                          .delivery = list_entry(node, struct delivery, node) };
        if (!list_is_empty(&p->quits))
            return pick_quit(p, list_entry(p->quits.next, struct relay_slot, idle));
        a = take_turns(p, now);
        if (a.kind != RELAY_NOTHING)
            return a;
    } while (!list_is_empty(&p->defers) || !list_is_empty(&p->quits) || wake_one(p, now));
    return pick_idle(p, now);
}

int64_t relay_pool_wake_ms(const struct relay_pool *p)
{
    bool has_room = p->slots < p->cfg->relay.connections_max;
    bool may_make_room = lacks_room(p) && !list_is_empty(&p->idle);
    if (!list_is_empty(&p->defers) || !list_is_empty(&p->quits) || !list_is_empty(&p->turns) ||
        (p->starved_count > 0 && (has_room || may_make_room)))
        return 0;
    int64_t idle = idle_until_ms(p), hold = INT64_MAX;
    if (!list_is_empty(&p->holding))
        hold = list_entry(p->holding.next, struct relay_dest, node)->not_before_ms;
    return idle < hold ? idle : hold;
}
