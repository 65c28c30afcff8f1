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
 * Of its connections a destination keeps a share for urgent mail (relay.urgent_share), and so does
 * the pool of all: mail of the other lanes, "plain" here, is on no more than the rest at once.
 * Which ones is not fixed; a slot is plain from the plain delivery that it takes until it is READY
 * again. Urgent mail takes whatever is READY. When nothing is, it has a connection made for it, and
 * waits for that or for the first to be READY, while plain mail stands back. It goes behind a plain
 * transaction (overlaps it) only where no other connection is to be had: that one may be stuck. So
 * what it waits for is at most what was on the wire when it came.
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

static void mark_plain(struct relay_pool *p, struct relay_slot *slot, const struct delivery *d)
{
    if (message_lane(d->message) != LANE_URGENT)
        pool_slot_set_plain(p, slot, true);
}

struct relay_action pool_send(struct relay_pool *p, struct relay_slot *slot, struct delivery *d)
{
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    list_remove(&slot->share);
    slot->state = SLOT_BUSY;
    mark_plain(p, slot, d);
    slot->in_flight++;
    slot->messages++;
    pool_site_count(slot->dest);
    if (slot->messages == 1 && !slot->is_for_misfits)
        end_round(slot->dest);
    if (is_used_up(p, slot))
        pool_slot_drain(p, slot);
    return (
        struct relay_action){ .kind = RELAY_SEND, .dest = slot->dest, .slot = slot, .delivery = d };
}

uint32_t pool_plain_share(const struct relay_pool *p, uint32_t connections)
{
    uint32_t kept = (uint32_t)((uint64_t)connections * p->cfg->relay.urgent_share / 100);
    if (p->cfg->relay.urgent_share == 0 || connections < 2)
        return connections;
    return connections - (kept > 0 ? kept : 1);
}

static bool may_be_plain(const struct relay_pool *p, const struct relay_dest *dest)
{
    return dest->plain_count < pool_plain_share(p, pool_dest_most(p, dest));
}

bool pool_dest_needs_slots(const struct relay_pool *p, const struct relay_dest *dest)
{
    return pool_urgent_waiting(dest) > 0 || (dest->waiting_count > 0 && may_be_plain(p, dest));
}

static bool exceeds(uint32_t waiting, uint32_t slots)
{
    return waiting > (uint64_t)WAITING_PER_SLOT * slots;
}

static struct relay_slot *slot_at(struct list *offer, const struct list *head)
{
    return offer == head ? NULL : list_entry(offer, struct relay_slot, offer);
}

/* Connections that there may be in all, for urgent or for plain mail. */
static uint32_t room_for(const struct relay_pool *p, bool is_urgent)
{
    uint32_t most = p->cfg->relay.connections_max;
    return is_urgent ? most : pool_plain_share(p, most);
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

/* Those with urgent mail come before all others. */
static struct relay_action pick_starve(struct relay_pool *p, struct relay_dest *dest,
                                       bool is_urgent)
{
    pool_place(p, dest, PLACE_STARVED, is_urgent ? p->starved.next : &p->starved);
    dest->is_starved_urgent = is_urgent;
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

/* A connection for mail that waits, urgent or plain, as soon as there may be one. */
static struct relay_action pick_make(struct relay_pool *p, struct relay_dest *dest, bool is_urgent,
                                     const struct now *now)
{
    if (now->mono_ms < dest->not_before_ms)
        return pick_hold(p, dest);
    if (!needs_hosts(dest, now) && pool_share_take(p, dest)) {
        pool_touch(p, dest); /* to find it among its own */
        return nothing;
    }
    if (p->slots >= room_for(p, is_urgent))
        return pick_starve(p, dest, is_urgent);
    if (needs_hosts(dest, now))
        return pick_resolve(dest);
    if (!pool_site_may_connect(dest, is_urgent)) {
        pool_site_wait(p, dest, is_urgent ? WANT_URGENT : WANT_PLAIN);
        return nothing;
    }
    return pick_connect(p, dest);
}

/* --- urgent mail ----------------------------------------------------------------------------- */

/* Connections that it need not share: those that are being made too. */
uint32_t pool_urgent_working(const struct relay_dest *dest)
{
    return pool_dest_working(dest) - (dest->plain_count - dest->plain_draining_count);
}

static bool urgent_wants(const struct relay_pool *p, const struct relay_dest *dest)
{
    return dest->slot_count < pool_dest_most(p, dest) &&
           exceeds(pool_urgent_waiting(dest), pool_urgent_working(dest));
}

/* A slot that it may have at once, were no other to be had; NULL: none. */
static struct relay_slot *urgent_slot(const struct relay_dest *dest, bool may_follow_plain)
{
    struct relay_slot *slot = slot_at(dest->offers.next, &dest->offers);
    if (slot)
        return slot;
    slot = slot_at(dest->overlaps.next, &dest->overlaps);
    if (slot && slot->is_plain && (!may_follow_plain || pool_urgent_working(dest) > 0))
        return NULL;
    return slot;
}

static struct relay_action send_urgent(struct relay_pool *p, struct relay_dest *dest,
                                       struct relay_slot *slot)
{
    return pool_send(p, slot, pool_pop_waiting(p, dest, LANE_URGENT));
}

static bool may_connect(const struct relay_pool *p, const struct relay_dest *dest,
                        const struct now *now)
{
    return now->mono_ms >= dest->not_before_ms && p->slots < room_for(p, true) &&
           pool_site_may_connect(dest, true);
}

static struct relay_action pick_urgent(struct relay_pool *p, struct relay_dest *dest,
                                       const struct now *now)
{
    bool wants = urgent_wants(p, dest);
    struct relay_slot *slot = urgent_slot(dest, !wants || !may_connect(p, dest, now));
    if (slot)
        return send_urgent(p, dest, slot);
    return wants ? pick_make(p, dest, true, now) : nothing;
}

/* --- all other mail -------------------------------------------------------------------------- */

static struct relay_slot *plain_slot(const struct relay_pool *p, const struct relay_dest *dest)
{
    bool may_take = may_be_plain(p, dest);
    struct relay_slot *slot = slot_at(dest->offers.next, &dest->offers);
    if (slot && may_take && pool_site_may_be_plain(slot))
        return slot;
    slot = slot_at(dest->overlaps.prev, &dest->overlaps);
    return slot && (slot->is_plain || (may_take && pool_site_may_be_plain(slot))) ? slot : NULL;
}

static bool plain_wants(const struct relay_pool *p, const struct relay_dest *dest)
{
    uint32_t working = dest->plain_count - dest->plain_draining_count + dest->connecting_count;
    uint32_t most = pool_dest_most(p, dest);
    return dest->slot_count < most &&
           dest->plain_count + dest->connecting_count < pool_plain_share(p, most) &&
           exceeds(pool_plain_waiting(dest), working);
}

static struct relay_action pick_plain(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = plain_slot(p, dest);
    if (slot)
        return pool_send(p, slot, pool_pop_plain(p, dest));
    if (!list_is_empty(&dest->offers) && may_be_plain(p, dest))
        pool_site_wait(p, dest, WANT_TURN);
    return nothing;
}

/* While urgent mail waits nothing else is sent, but connections for it are made. */
static struct relay_action pick_waiting(struct relay_pool *p, struct relay_dest *dest,
                                        const struct now *now)
{
    struct relay_action a = nothing;
    if (pool_urgent_waiting(dest) > 0)
        a = pick_urgent(p, dest, now);
    else if (dest->waiting_count > 0)
        a = pick_plain(p, dest);
    if (a.kind == RELAY_NOTHING && dest->place == PLACE_NONE && plain_wants(p, dest))
        a = pick_make(p, dest, false, now);
    return a;
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
        return pick_starve(p, dest, false);
    return a;
}

static struct relay_action pick_resolving(struct relay_pool *p, struct relay_dest *dest)
{
    if (pool_urgent_waiting(dest) == 0)
        return dest->waiting_count > 0 ? pick_plain(p, dest) : nothing;
    struct relay_slot *slot = urgent_slot(dest, true);
    return slot ? send_urgent(p, dest, slot) : nothing;
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
    if (now->mono_ms < dest->suspended_until_ms) { /* also one that is being looked up */
        pool_give_back_all(p, dest, &dest->failure);
        return nothing;
    }
    if (pool_site_bars(p, dest, now))
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

/* True when the first that is starved of a connection may have one now. */
static bool starved_has_room(const struct relay_pool *p)
{
    if (p->starved_count == 0)
        return false;
    const struct relay_dest *dest = list_entry(p->starved.next, struct relay_dest, node);
    return p->slots < room_for(p, dest->is_starved_urgent);
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
    if (!starved_has_room(p))
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
    uint32_t looks = 0; /* for a destination that starves: who could not use it starves again */
    forget_rested(p, now);
    pool_sites_wake(p, now);
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
    } while (!list_is_empty(&p->defers) || !list_is_empty(&p->quits) || wake_one(p, now) ||
             (looks++ == 0 && pool_share_wake(p)));
    return pick_idle(p, now);
}

int64_t relay_pool_wake_ms(const struct relay_pool *p)
{
    bool may_make_room = lacks_room(p) && !list_is_empty(&p->idle);
    if (!list_is_empty(&p->defers) || !list_is_empty(&p->quits) || !list_is_empty(&p->turns) ||
        starved_has_room(p) || may_make_room)
        return 0;
    int64_t idle = idle_until_ms(p), hold = INT64_MAX;
    if (!list_is_empty(&p->holding))
        hold = list_entry(p->holding.next, struct relay_dest, node)->not_before_ms;
    int64_t site = pool_sites_wake_ms(p), soonest = idle < hold ? idle : hold;
    return site < soonest ? site : soonest;
}
