/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool - destinations, their connections, and whose turn it is.
 *
 * Every destination that may have something to do is on one list, `turns`. relay_pool_next takes
 * the first, asks it for one action, and puts it at the end again: destinations take turns, one
 * action each. One that has nothing to do leaves the list and comes back by an event (touch). So a
 * call costs the same with ten destinations as with a hundred thousand.
 *
 * Life of a destination:   NEW -> RESOLVING -> OPEN -> (every host failed) BACKOFF -> NEW ...
 * In BACKOFF nothing waits: deliveries that come are deferred with the words of the last failure.
 * One without work and slots is freed; the resolver remembers its hosts.
 *
 * A slot that may take a delivery is on its destination's `offers`: READY ones first, then those
 * that can overlap. READY ones are also on the pool's `idle` list, oldest first, which gives both
 * the idle timeout and, when connections are short, the one to do without.
 *
 * To add a rule: the pick_ functions, and a case in test_pool.c.
 */
#include "core/relay/pool.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

#define BUCKETS_MIN      64
#define WAITING_PER_SLOT 4 /* open one more when more than this many wait for each that is up */
#define BACKOFF_MIN_MS   1000
#define BACKOFF_MAX_MS   60000
#define CONNECT_HOLD_MS  1000 /* after a failed round while other connections still work */

struct relay_pool {
    const struct config *cfg;    /* borrowed */
    struct relay_dest **buckets; /* owned; a power of two of them */
    uint32_t bucket_count, dest_count;
    uint32_t waiting, slots;
    struct list turns;   /* destinations that may have something to do */
    struct list starved; /* destinations that wait for a connection to be free */
    struct list resting; /* destinations in BACKOFF */
    struct list idle;    /* READY slots, oldest first (relay_slot.idle) */
    struct list quits;   /* DRAINING slots to be closed (relay_slot.idle) */
    struct list defers;  /* deliveries to give back */
    struct list taken;   /* deliveries found by relay_pool_take_shard */
    bool is_draining;
};

/* --- destinations ---------------------------------------------------------------------------- */

static uint32_t hash_of(const char *key)
{
    uint32_t h = 2166136261u;
    for (; *key; key++)
        h = (h ^ (uint8_t)*key) * 16777619u;
    return h;
}

static struct relay_dest **bucket_of(const struct relay_pool *p, const char *key)
{
    return &p->buckets[hash_of(key) & (p->bucket_count - 1)];
}

static void grow(struct relay_pool *p)
{
    struct relay_dest **old = p->buckets;
    uint32_t old_count = p->bucket_count;
    p->bucket_count *= 2;
    p->buckets = mem_zalloc(p->bucket_count * sizeof *p->buckets);
    for (uint32_t i = 0; i < old_count; i++)
        while (old[i]) {
            struct relay_dest *d = old[i], **to = bucket_of(p, d->key);
            old[i] = d->hash_next;
            d->hash_next = *to;
            *to = d;
        }
    free(old);
}

static struct relay_dest *dest_new(struct relay_pool *p, const char *key)
{
    if (p->dest_count == p->bucket_count)
        grow(p);
    struct relay_dest *d = mem_zalloc(sizeof *d), **to = bucket_of(p, key);
    snprintf(d->key, sizeof d->key, "%s", key);
    d->route = route_of_key(p->cfg, slice_str(key));
    must(d->route && d->route->relay != RELAY_HOLD);
    list_init(&d->node);
    list_init(&d->waiting);
    list_init(&d->slots);
    list_init(&d->offers);
    d->hash_next = *to;
    *to = d;
    p->dest_count++;
    return d;
}

static struct relay_dest *dest_find(const struct relay_pool *p, const char *key)
{
    struct relay_dest *d = *bucket_of(p, key);
    while (d && strcmp(d->key, key) != 0)
        d = d->hash_next;
    return d;
}

static void dest_free(struct relay_pool *p, struct relay_dest *d)
{
    struct relay_dest **link = bucket_of(p, d->key);
    while (*link != d)
        link = &(*link)->hash_next;
    *link = d->hash_next;
    list_remove(&d->node);
    free(d->hosts);
    free(d);
    p->dest_count--;
}

/* It may have something to do: it gets a turn. */
static void touch(struct relay_pool *p, struct relay_dest *d)
{
    list_remove(&d->node);
    list_push_back(&p->turns, &d->node);
}

/* --- making ---------------------------------------------------------------------------------- */

struct relay_pool *relay_pool_new(const struct config *cfg)
{
    struct relay_pool *p = mem_zalloc(sizeof *p);
    p->cfg = cfg;
    p->bucket_count = BUCKETS_MIN;
    p->buckets = mem_zalloc(p->bucket_count * sizeof *p->buckets);
    list_init(&p->turns);
    list_init(&p->starved);
    list_init(&p->resting);
    list_init(&p->idle);
    list_init(&p->quits);
    list_init(&p->defers);
    list_init(&p->taken);
    return p;
}

static void free_deliveries(struct list *deliveries)
{
    struct list *node;
    while ((node = list_pop_front(deliveries)))
        delivery_free(list_entry(node, struct delivery, node));
}

void relay_pool_free(struct relay_pool *p)
{
    for (uint32_t i = 0; i < p->bucket_count; i++)
        while (p->buckets[i]) {
            struct relay_dest *d = p->buckets[i];
            struct list *node;
            free_deliveries(&d->waiting);
            while ((node = list_pop_front(&d->slots)))
                free(list_entry(node, struct relay_slot, node));
            dest_free(p, d);
        }
    free_deliveries(&p->defers);
    free_deliveries(&p->taken);
    free(p->buckets);
    free(p);
}

/* --- deliveries ------------------------------------------------------------------------------ */

/* Gives a delivery back untried, with the reason as its outcome. */
static void give_back(struct relay_pool *p, struct delivery *d, const struct rcpt_outcome *why)
{
    delivery_fail_open(d, why->stage, why->code, why->enhanced, why->text);
    list_push_back(&p->defers, &d->node);
}

static struct delivery *pop_waiting(struct relay_pool *p, struct relay_dest *dest)
{
    struct list *node = list_pop_front(&dest->waiting);
    must(node != NULL);
    dest->waiting_count--;
    p->waiting--;
    return list_entry(node, struct delivery, node);
}

static void give_back_all(struct relay_pool *p, struct relay_dest *dest,
                          const struct rcpt_outcome *why)
{
    while (dest->waiting_count > 0)
        give_back(p, pop_waiting(p, dest), why);
}

static const struct rcpt_outcome shutting_down = { .stage = OUTCOME_LOCAL,
                                                   .code = 451,
                                                   .enhanced = "4.3.2",
                                                   .text = { "not tried, shutting down", 24 } };

static struct relay_dest *dest_for(struct relay_pool *p, const char *key)
{
    struct relay_dest *dest = dest_find(p, key);
    return dest ? dest : dest_new(p, key);
}

void relay_pool_add(struct relay_pool *p, struct delivery *d)
{
    if (p->is_draining) {
        give_back(p, d, &shutting_down);
        return;
    }
    struct relay_dest *dest = dest_for(p, d->dest);
    list_push_back(&dest->waiting, &d->node);
    dest->waiting_count++;
    p->waiting++;
    touch(p, dest);
}

void relay_pool_requeue(struct relay_pool *p, struct delivery *d)
{
    if (p->is_draining) {
        give_back(p, d, &shutting_down);
        return;
    }
    struct relay_dest *dest = dest_for(p, d->dest);
    list_push_front(&dest->waiting, &d->node);
    dest->waiting_count++;
    p->waiting++;
    touch(p, dest);
}

/* --- slots ----------------------------------------------------------------------------------- */

static void quit(struct relay_pool *p, struct relay_slot *slot)
{
    slot->state = SLOT_DRAINING;
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    if (slot->in_flight == 0 && !slot->is_closing)
        list_push_back(&p->quits, &slot->idle);
}

static void make_ready(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    if (p->is_draining || slot->is_closing ||
        slot->messages >= p->cfg->relay.messages_per_connection) {
        quit(p, slot);
        return;
    }
    slot->state = SLOT_READY;
    slot->idle_since_ms = now->mono_ms;
    list_remove(&slot->offer);
    list_push_front(&slot->dest->offers, &slot->offer);
    list_push_back(&p->idle, &slot->idle);
    touch(p, slot->dest);
}

static struct relay_slot *slot_new(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = mem_zalloc(sizeof *slot);
    slot->dest = dest;
    slot->state = SLOT_CONNECTING;
    slot->host = dest->host_next;
    memcpy(slot->host_name, dest->hosts[slot->host].name, sizeof slot->host_name);
    list_init(&slot->offer);
    list_init(&slot->idle);
    list_push_back(&dest->slots, &slot->node);
    dest->slot_count++;
    dest->connecting_count++;
    p->slots++;
    return slot;
}

void relay_pool_connected(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    must(slot->state == SLOT_CONNECTING);
    slot->dest->connecting_count--;
    slot->dest->failures = 0;
    make_ready(p, slot, now);
}

void relay_pool_can_overlap(struct relay_pool *p, struct relay_slot *slot)
{
    if (slot->state != SLOT_BUSY || slot->in_flight != 1 || slot->dest->waiting_count == 0 ||
        slot->messages >= p->cfg->relay.messages_per_connection || !list_is_empty(&slot->offer))
        return;
    list_push_back(&slot->dest->offers, &slot->offer);
    touch(p, slot->dest);
}

void relay_pool_sent(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    must(slot->in_flight > 0);
    slot->in_flight--;
    if (slot->in_flight > 0)
        return;
    if (slot->state == SLOT_DRAINING)
        quit(p, slot);
    else
        make_ready(p, slot, now);
}

void relay_pool_slot_closing(struct relay_pool *p, struct relay_slot *slot)
{
    slot->is_closing = true;
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    if (slot->state == SLOT_READY || slot->state == SLOT_BUSY)
        slot->state = SLOT_DRAINING;
}

/* --- failures -------------------------------------------------------------------------------- */

static bool has_working_slot(const struct relay_dest *dest)
{
    return dest->slot_count > 0;
}

static int64_t backoff_ms(uint32_t failures)
{
    uint32_t doublings = failures - 1 < 6 ? failures - 1 : 6;
    int64_t ms = (int64_t)BACKOFF_MIN_MS << doublings;
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

/* Every host failed: what waits is given back, what comes soon will be too. */
static void back_off(struct relay_pool *p, struct relay_dest *dest,
                     const struct rcpt_outcome *failure, const struct now *now)
{
    size_t len = failure->text.len < sizeof dest->failure_text ? failure->text.len
                                                               : sizeof dest->failure_text;
    dest->failures++;
    dest->state = DEST_BACKOFF;
    dest->not_before_ms = now->mono_ms + backoff_ms(dest->failures);
    dest->failure = *failure;
    if (len > 0)
        memcpy(dest->failure_text, failure->text.ptr, len);
    dest->failure.text = slice_of(dest->failure_text, len);
    give_back_all(p, dest, &dest->failure);
    list_remove(&dest->node);
    list_push_back(&p->resting, &dest->node);
}

static void host_failed(struct relay_pool *p, struct relay_dest *dest, size_t host,
                        const struct rcpt_outcome *failure, const struct now *now)
{
    if (dest->state != DEST_OPEN)
        return;
    if (host == dest->host_next)
        dest->host_next++;
    bool has_next = dest->host_next < dest->host_count;
    enum retry_connection fate = retry_connection_fate(failure, has_next);
    if (!has_next)
        dest->host_next = 0;
    if (fate == RETRY_NEXT_HOST) {
        touch(p, dest);
    } else if (has_working_slot(dest)) {
        dest->not_before_ms = now->mono_ms + CONNECT_HOLD_MS;
        touch(p, dest);
    } else {
        back_off(p, dest, failure, now);
    }
}

static void feed_starved(struct relay_pool *p)
{
    struct list *node = list_pop_front(&p->starved);
    if (node)
        list_push_back(&p->turns, node);
}

void relay_pool_slot_gone(struct relay_pool *p, struct relay_slot *slot,
                          const struct rcpt_outcome *failure, const struct now *now)
{
    struct relay_dest *dest = slot->dest;
    size_t host = slot->host;
    must(slot->in_flight == 0);
    if (slot->state == SLOT_CONNECTING)
        dest->connecting_count--;
    list_remove(&slot->node);
    list_remove(&slot->offer);
    list_remove(&slot->idle);
    free(slot);
    dest->slot_count--;
    p->slots--;
    feed_starved(p);
    if (failure)
        host_failed(p, dest, host, failure, now);
    else if (dest->state != DEST_BACKOFF)
        touch(p, dest);
}

void relay_pool_resolved(struct relay_pool *p, struct relay_dest *dest,
                         const struct relay_host *hosts, size_t host_count, uint32_t ttl_ms,
                         const struct rcpt_outcome *failure, const struct now *now)
{
    must(dest->state == DEST_RESOLVING);
    free(dest->hosts);
    dest->hosts = NULL;
    dest->host_count = host_count;
    dest->host_next = 0;
    if (host_count == 0) {
        back_off(p, dest, failure, now);
        return;
    }
    dest->hosts = mem_alloc(host_count * sizeof *hosts);
    memcpy(dest->hosts, hosts, host_count * sizeof *hosts);
    dest->hosts_expire_ms = now->mono_ms + ttl_ms;
    dest->not_before_ms = 0;
    dest->state = DEST_OPEN;
    touch(p, dest);
}

/* --- deciding -------------------------------------------------------------------------------- */

static struct relay_action pick_resolve(struct relay_dest *dest)
{
    dest->state = DEST_RESOLVING;
    return (struct relay_action){ .kind = RELAY_RESOLVE, .dest = dest };
}

static struct relay_action pick_send(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = list_entry(list_pop_front(&dest->offers), struct relay_slot, offer);
    list_remove(&slot->idle);
    slot->state = SLOT_BUSY;
    slot->in_flight++;
    slot->messages++;
    return (struct relay_action){
        .kind = RELAY_SEND, .dest = dest, .slot = slot, .delivery = pop_waiting(p, dest)
    };
}

static bool wants_connection(const struct relay_pool *p, const struct relay_dest *dest,
                             const struct now *now)
{
    if (dest->slot_count == 0)
        return true;
    return dest->slot_count < p->cfg->relay.per_destination_max &&
           dest->waiting_count > WAITING_PER_SLOT * dest->slot_count &&
           now->mono_ms >= dest->not_before_ms;
}

static struct relay_action pick_quit(struct relay_pool *p, struct relay_slot *slot)
{
    quit(p, slot);
    list_remove(&slot->idle);
    return (struct relay_action){ .kind = RELAY_QUIT, .dest = slot->dest, .slot = slot };
}

/* All connections are taken: an idle one of somebody else is done without. */
static struct relay_action pick_victim(struct relay_pool *p, struct relay_dest *dest)
{
    list_push_back(&p->starved, &dest->node);
    list_for_each (node, &p->idle) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, idle);
        if (slot->dest->waiting_count == 0)
            return pick_quit(p, slot);
    }
    return (struct relay_action){ .kind = RELAY_NOTHING };
}

static struct relay_action pick_connect(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_slot *slot = slot_new(p, dest);
    return (struct relay_action){
        .kind = RELAY_CONNECT, .dest = dest, .slot = slot, .host = &dest->hosts[slot->host]
    };
}

/* One action for a destination that is open and has something waiting. */
static struct relay_action pick_open(struct relay_pool *p, struct relay_dest *dest,
                                     const struct now *now)
{
    if (dest->slot_count == 0 && now->mono_ms >= dest->hosts_expire_ms)
        return pick_resolve(dest);
    if (!list_is_empty(&dest->offers))
        return pick_send(p, dest);
    if (!wants_connection(p, dest, now))
        return (struct relay_action){ .kind = RELAY_NOTHING };
    if (p->slots >= p->cfg->relay.connections_max)
        return pick_victim(p, dest);
    return pick_connect(p, dest);
}

static struct relay_action pick_for(struct relay_pool *p, struct relay_dest *dest,
                                    const struct now *now)
{
    struct relay_action nothing = { .kind = RELAY_NOTHING };
    if (dest->waiting_count == 0)
        return nothing;
    switch (dest->state) {
    case DEST_NEW: return pick_resolve(dest);
    case DEST_RESOLVING: return nothing;
    case DEST_OPEN: return pick_open(p, dest, now);
    case DEST_BACKOFF: break;
    }
    if (now->mono_ms >= dest->not_before_ms)
        return pick_resolve(dest);
    give_back_all(p, dest, &dest->failure);
    list_push_back(&p->resting, &dest->node);
    return nothing;
}

/* Nothing waits, nothing is open, nothing is remembered: it need not be kept. */
static void free_if_unused(struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->waiting_count == 0 && dest->slot_count == 0 &&
        (dest->state == DEST_NEW || dest->state == DEST_OPEN))
        dest_free(p, dest);
}

/* One destination whose back-off is over is forgotten in each call, from the front. */
static void forget_rested(struct relay_pool *p, const struct now *now)
{
    struct list *node = list_pop_front(&p->resting);
    if (!node)
        return;
    struct relay_dest *dest = list_entry(node, struct relay_dest, node);
    /* Its failures count until it has rested twice as long. */
    if (dest->slot_count == 0 && dest->waiting_count == 0 &&
        now->mono_ms >= dest->not_before_ms + backoff_ms(dest->failures))
        dest_free(p, dest);
    else
        list_push_back(&p->resting, node);
}

static struct relay_action take_turns(struct relay_pool *p, const struct now *now)
{
    struct list *node;
    while ((node = list_pop_front(&p->turns))) {
        struct relay_dest *dest = list_entry(node, struct relay_dest, node);
        struct relay_action a = pick_for(p, dest, now);
        if (a.kind == RELAY_NOTHING) {
            free_if_unused(p, dest);
            continue;
        }
        if (list_is_empty(node))
            list_push_back(&p->turns, node);
        return a;
    }
    return (struct relay_action){ .kind = RELAY_NOTHING };
}

struct relay_action relay_pool_next(struct relay_pool *p, const struct now *now)
{
    struct list *node = list_pop_front(&p->defers);
    if (node)
        return (struct relay_action){ .kind = RELAY_DEFER,
                                      .delivery = list_entry(node, struct delivery, node) };
    node = list_pop_front(&p->quits);
    if (node) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, idle);
        return (struct relay_action){ .kind = RELAY_QUIT, .dest = slot->dest, .slot = slot };
    }
    if (!list_is_empty(&p->idle)) {
        struct relay_slot *slot = list_entry(p->idle.next, struct relay_slot, idle);
        if (now->mono_ms >= slot->idle_since_ms + p->cfg->relay.idle_timeout_ms)
            return pick_quit(p, slot);
    }
    forget_rested(p, now);
    struct relay_action a = take_turns(p, now);
    if (a.kind == RELAY_NOTHING && !list_is_empty(&p->defers))
        return relay_pool_next(p, now);
    return a;
}

int64_t relay_pool_wake_ms(const struct relay_pool *p)
{
    if (!list_is_empty(&p->defers) || !list_is_empty(&p->quits) || !list_is_empty(&p->turns))
        return 0;
    if (list_is_empty(&p->idle))
        return INT64_MAX;
    return list_entry(p->idle.next, struct relay_slot, idle)->idle_since_ms +
           p->cfg->relay.idle_timeout_ms;
}

/* --- the whole pool -------------------------------------------------------------------------- */

void relay_pool_drain(struct relay_pool *p)
{
    p->is_draining = true;
    for (uint32_t i = 0; i < p->bucket_count; i++)
        for (struct relay_dest *d = p->buckets[i]; d; d = d->hash_next)
            give_back_all(p, d, &shutting_down);
    while (!list_is_empty(&p->idle))
        quit(p, list_entry(p->idle.next, struct relay_slot, idle));
}

static void move_shard(struct list *from, struct list *to, uint16_t shard, uint32_t *count)
{
    list_for_each_safe (node, from) {
        if (list_entry(node, struct delivery, node)->shard != shard)
            continue;
        list_remove(node);
        list_push_back(to, node);
        (*count)++;
    }
}

struct delivery *relay_pool_take_shard(struct relay_pool *p, uint16_t shard)
{
    uint32_t given_back = 0;
    if (list_is_empty(&p->taken)) {
        move_shard(&p->defers, &p->taken, shard, &given_back);
        for (uint32_t i = 0; i < p->bucket_count; i++)
            for (struct relay_dest *d = p->buckets[i]; d; d = d->hash_next) {
                uint32_t count = 0;
                move_shard(&d->waiting, &p->taken, shard, &count);
                d->waiting_count -= count;
                p->waiting -= count;
            }
    }
    struct list *node = list_pop_front(&p->taken);
    return node ? list_entry(node, struct delivery, node) : NULL;
}

uint32_t relay_pool_waiting(const struct relay_pool *p)
{
    return p->waiting;
}

uint32_t relay_pool_connections(const struct relay_pool *p)
{
    return p->slots;
}
