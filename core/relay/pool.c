/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool - what happened to destinations and their connections, and what that changes.
 *
 * Life of a destination:   NEW -> RESOLVING -> OPEN -> (every host failed) BACKOFF -> RESOLVING ...
 * Events change its state and give it a turn; what is then done about it is decided in pool_pick.c.
 *
 * Hosts are tried in a round: a connection that fails passes the turn to the next host, each host
 * once, and a connection that takes a message ends the round. When a round is over without one, the
 * destination backs off, 1 s, 2 s, 4 s ... 60 s, and what waits is given back to the queue with the
 * words of the last failure; what arrives meanwhile too, so that mail for a dead host costs nothing
 * here. A destination that still has working connections only stops opening more for a second.
 *
 * A slot that may take a delivery is on a list of its destination: `offers` when it is READY,
 * `overlaps` when it can overlap.
 *
 * To add an event: a function here that ends in pool_touch for the destinations it changes.
 */
#include "core/relay/pool.h"
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdlib.h>

#define BUCKETS_MIN       64
#define BACKOFF_MIN_MS    1000
#define BACKOFF_MAX_MS    60000
#define CONNECT_HOLD_MS   1000 /* after a failed round while other connections still work */
#define HOSTS_KEPT_MIN_MS 1000 /* a TTL of zero is good for the connections of now */

struct relay_pool *relay_pool_new(const struct config *cfg)
{
    struct relay_pool *p = mem_zalloc(sizeof *p);
    p->cfg = cfg;
    p->bucket_count = BUCKETS_MIN;
    p->buckets = mem_zalloc(p->bucket_count * sizeof *p->buckets);
    list_init(&p->turns);
    list_init(&p->starved);
    list_init(&p->holding);
    list_init(&p->resting);
    list_init(&p->idle);
    list_init(&p->quits);
    list_init(&p->defers);
    list_init(&p->taken);
    list_init(&p->crowds);
    p->crowd_least = UINT32_MAX;
    pool_waits_init(p);
    pool_sites_init(p);
    pool_shares_init(p);
    return p;
}

void relay_pool_free(struct relay_pool *p)
{
    pool_dests_free(p);
    pool_sites_done(p);
    pool_shares_done(p);
    pool_waits_done(p);
    free(p);
}

uint32_t relay_pool_waiting(const struct relay_pool *p)
{
    return p->waiting;
}

uint32_t relay_pool_connections(const struct relay_pool *p)
{
    return p->slots;
}

/* --- deliveries ------------------------------------------------------------------------------ */

const struct rcpt_outcome pool_shutting_down = {
    .stage = OUTCOME_LOCAL,
    .code = 451,
    .enhanced = "4.3.2",
    .text = { "not tried, shutting down", sizeof "not tried, shutting down" - 1 },
};

static void put_waiting(struct relay_pool *p, struct delivery *d, bool is_first)
{
    if (p->is_draining) {
        pool_give_back(p, d, &pool_shutting_down);
        return;
    }
    struct relay_dest *dest = pool_dest(p, d->dest);
    pool_put_waiting(p, dest, d, is_first);
    pool_touch(p, dest);
}

void relay_pool_add(struct relay_pool *p, struct delivery *d)
{
    put_waiting(p, d, false);
}

void relay_pool_requeue(struct relay_pool *p, struct delivery *d)
{
    put_waiting(p, d, true);
}

/* --- slots ----------------------------------------------------------------------------------- */

struct relay_slot *pool_slot_new(struct relay_pool *p, struct relay_dest *dest, size_t host)
{
    must(host < dest->host_count);
    struct relay_slot *slot = mem_zalloc(sizeof *slot);
    slot->dest = dest;
    slot->state = SLOT_CONNECTING;
    slot->host = host;
    slot->hosts_serial = dest->hosts_serial;
    memcpy(slot->host_name, dest->hosts[slot->host].name, sizeof slot->host_name);
    list_init(&slot->offer);
    list_init(&slot->idle);
    list_init(&slot->share);
    list_push_back(&dest->slots, &slot->node);
    dest->slot_count++;
    dest->connecting_count++;
    dest->is_round_over = false;
    p->slots++;
    pool_site_add_slot(p, slot);
    return slot;
}

void pool_slot_drain(struct relay_pool *p, struct relay_slot *slot)
{
    must(slot->state != SLOT_CONNECTING);
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    list_remove(&slot->share);
    if (slot->state != SLOT_DRAINING) {
        slot->state = SLOT_DRAINING;
        slot->dest->draining_count++;
        slot->dest->plain_draining_count += slot->is_plain;
        pool_touch(p, slot->dest);
    }
    if (slot->in_flight == 0 && !slot->is_closing && !slot->is_asked)
        list_push_back(&p->quits, &slot->idle);
}

static void offer_idle(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    slot->state = SLOT_READY;
    pool_slot_set_plain(p, slot, false);
    if (p->is_draining || slot->is_closing) {
        pool_slot_drain(p, slot);
        return;
    }
    slot->idle_since_ms = now->mono_ms;
    list_remove(&slot->offer);
    list_push_front(&slot->dest->offers, &slot->offer);
    list_push_back(&p->idle, &slot->idle);
    pool_share_offer(p, slot);
    pool_touch(p, slot->dest);
}

void relay_pool_connected(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    must(slot->state == SLOT_CONNECTING);
    slot->dest->connecting_count--;
    if (slot->dest->misfit_slot == slot)
        slot->dest->misfit_slot = NULL;
    pool_site_connected(p, slot, now);
    offer_idle(p, slot, now);
}

void relay_pool_can_overlap(struct relay_pool *p, struct relay_slot *slot)
{
    if (slot->state != SLOT_BUSY || slot->in_flight != 1 || !list_is_empty(&slot->offer))
        return;
    if (slot->is_plain)
        list_push_back(&slot->dest->overlaps, &slot->offer);
    else
        list_push_front(&slot->dest->overlaps, &slot->offer);
    if (slot->dest->waiting_count > 0)
        pool_touch(p, slot->dest);
}

void relay_pool_sent(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    must(slot->in_flight > 0 && slot->state != SLOT_CONNECTING);
    slot->in_flight--;
    if (slot->in_flight > 0)
        return;
    if (slot->state == SLOT_DRAINING)
        pool_slot_drain(p, slot);
    else
        offer_idle(p, slot, now);
}

void relay_pool_slot_closing(struct relay_pool *p, struct relay_slot *slot)
{
    slot->is_closing = true;
    if (slot->state != SLOT_CONNECTING)
        pool_slot_drain(p, slot);
}

/* --- failures -------------------------------------------------------------------------------- */

int64_t pool_backoff_ms(uint32_t failures)
{
    must(failures > 0);
    uint32_t doublings = failures - 1;
    if (doublings >= 6)
        return BACKOFF_MAX_MS;
    return (int64_t)BACKOFF_MIN_MS << doublings;
}

static void remember_failure(struct relay_dest *dest, const struct rcpt_outcome *failure)
{
    struct slice text = slice_head(failure->text, sizeof dest->failure_text);
    if (text.len > 0)
        memcpy(dest->failure_text, text.ptr, text.len);
    dest->failure = *failure;
    dest->failure.text = slice_of(dest->failure_text, text.len);
}

/* What waits is given back, what comes soon will be too. A permanent failure is believed for a
 * second only: it ends mail for good. */
static void back_off(struct relay_pool *p, struct relay_dest *dest,
                     const struct rcpt_outcome *failure, const struct now *now)
{
    bool is_permanent = retry_connection_fate(failure, false) == RETRY_FAIL_ALL;
    dest->failures = is_permanent ? 1 : dest->failures + 1;
    dest->state = DEST_BACKOFF;
    dest->not_before_ms = now->mono_ms + pool_backoff_ms(dest->failures);
    remember_failure(dest, failure);
    pool_give_back_all(p, dest, &dest->failure);
    pool_touch(p, dest);
}

/* Nothing is given up while there are connections that work: it is only too many of them. */
static void hold_or_back_off(struct relay_pool *p, struct relay_dest *dest,
                             const struct rcpt_outcome *failure, const struct now *now)
{
    if (pool_dest_working(dest) == 0) {
        back_off(p, dest, failure, now);
        return;
    }
    dest->state = DEST_OPEN;
    dest->not_before_ms = now->mono_ms + CONNECT_HOLD_MS;
    pool_touch(p, dest);
}

/* The first connection to fail passes the turn on; others to the same host failed with it. */
static void pass_turn(struct relay_dest *dest, size_t host)
{
    if (host != dest->host_next)
        return;
    dest->host_next = (dest->host_next + 1) % dest->host_count;
    dest->hosts_failed++;
}

static void host_failed(struct relay_pool *p, struct relay_dest *dest, size_t host,
                        const struct rcpt_outcome *failure, const struct now *now)
{
    memcpy(dest->failure_host, dest->hosts[host].name, sizeof dest->failure_host);
    pass_turn(dest, host);
    bool has_next = dest->hosts_failed < dest->host_count;
    enum retry_connection fate = retry_connection_fate(failure, has_next);
    if (!has_next)
        dest->hosts_failed = 0;
    /* The last of several connections to fail finds that the others have ended the round. */
    bool is_over = dest->is_round_over && pool_dest_working(dest) == 0;
    dest->is_round_over |= fate != RETRY_NEXT_HOST;
    if (fate == RETRY_NEXT_HOST && !is_over)
        pool_touch(p, dest);
    else
        hold_or_back_off(p, dest, failure, now);
}

/* A host that greets and hangs up would be connected to without end: that it ended in good order is
 * believed only of a connection that was asked to, served, or was not needed: mail that waits may
 * not use what is kept for urgent mail. */
static bool was_useless(const struct relay_pool *p, const struct relay_slot *slot)
{
    return slot->messages == 0 && !slot->is_asked && pool_dest_needs_slots(p, slot->dest);
}

static void slot_free(struct relay_pool *p, struct relay_slot *slot)
{
    struct relay_dest *dest = slot->dest;
    must(slot->in_flight == 0);
    dest->connecting_count -= slot->state == SLOT_CONNECTING;
    dest->draining_count -= slot->state == SLOT_DRAINING;
    dest->plain_draining_count -= slot->is_plain && slot->state == SLOT_DRAINING;
    pool_slot_set_plain(p, slot, false);
    pool_site_drop_slot(p, slot);
    dest->slot_count--;
    p->slots--;
    p->leaving -= slot->is_asked;
    list_remove(&slot->node);
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    list_remove(&slot->share);
    free(slot);
}

void relay_pool_slot_gone(struct relay_pool *p, struct relay_slot *slot,
                          const struct rcpt_outcome *failure, const struct now *now)
{
    static const char useless_text[] = "the host closes connections before it takes a message";
    static const struct rcpt_outcome useless = {
        .stage = OUTCOME_LOST,
        .code = 421,
        .enhanced = "4.4.2",
        .text = { useless_text, sizeof useless_text - 1 },
    };
    struct relay_dest *dest = slot->dest;
    size_t host = slot->host;
    bool is_present_list = slot->hosts_serial == dest->hosts_serial && dest->state == DEST_OPEN;
    if (!failure && was_useless(p, slot))
        failure = &useless;
    if (slot->is_for_misfits && slot->messages == 0) { /* the usual host is another one */
        pool_misfit_unreached(slot, failure ? failure : &useless);
        failure = NULL;
    }
    slot_free(p, slot);
    if (failure && is_present_list)
        host_failed(p, dest, host, failure, now);
    else
        pool_touch(p, dest);
}

/* --- hosts ----------------------------------------------------------------------------------- */

static void take_hosts(struct relay_dest *dest, const struct relay_host *hosts, size_t host_count)
{
    free(dest->hosts);
    dest->hosts = mem_alloc(host_count * sizeof *hosts);
    memcpy(dest->hosts, hosts, host_count * sizeof *hosts);
    dest->host_count = host_count;
    dest->host_next = 0;
    dest->hosts_failed = 0;
    dest->hosts_serial++;
}

void relay_pool_resolved(struct relay_pool *p, struct relay_dest *dest,
                         const struct relay_host *hosts, size_t host_count, uint32_t ttl_ms,
                         const struct rcpt_outcome *failure, const struct now *now)
{
    must(dest->state == DEST_RESOLVING);
    if (pool_is_suspended(p, dest, now))
        return;
    if (host_count == 0) {
        must(failure != NULL);
        dest->failure_host[0] = '\0';
        hold_or_back_off(p, dest, failure, now);
        return;
    }
    take_hosts(dest, hosts, host_count);
    pool_share_judge(dest);
    pool_site_join(p, dest, false);
    dest->hosts_expire_ms =
        now->mono_ms + (ttl_ms > HOSTS_KEPT_MIN_MS ? ttl_ms : HOSTS_KEPT_MIN_MS);
    dest->state = DEST_OPEN;
    pool_touch(p, dest);
}

/* --- the whole pool -------------------------------------------------------------------------- */

void relay_pool_drain(struct relay_pool *p)
{
    p->is_draining = true;
    for (uint32_t i = 0; i < p->bucket_count; i++)
        for (struct relay_dest *d = p->buckets[i]; d; d = d->hash_next)
            pool_give_back_all(p, d, &pool_shutting_down);
    while (!list_is_empty(&p->idle))
        pool_slot_drain(p, list_entry(p->idle.next, struct relay_slot, idle));
}

static uint32_t move_shard(struct list *from, struct list *to, uint16_t shard)
{
    uint32_t count = 0;
    list_for_each_safe (node, from) {
        if (list_entry(node, struct delivery, node)->shard != shard)
            continue;
        list_remove(node);
        list_push_back(to, node);
        count++;
    }
    return count;
}

/* A walk over everything: leases are lost rarely. */
static void find_shard(struct relay_pool *p, uint16_t shard)
{
    move_shard(&p->defers, &p->taken, shard);
    for (uint32_t i = 0; i < p->bucket_count; i++)
        for (struct relay_dest *d = p->buckets[i]; d; d = d->hash_next) {
            pool_take_waiting(p, d, &p->taken, shard);
            uint32_t misfits = move_shard(&d->misfits, &p->taken, shard);
            d->misfit_count -= misfits;
            p->waiting -= misfits;
        }
}

struct delivery *relay_pool_take_shard(struct relay_pool *p, uint16_t shard)
{
    if (list_is_empty(&p->taken))
        find_shard(p, shard);
    struct list *node = list_pop_front(&p->taken);
    if (!node)
        return NULL;
    struct delivery *d = list_entry(node, struct delivery, node);
    must(d->shard == shard); /* the caller takes all of one shard before another */
    return d;
}
