/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_dests - the destinations of a pool.
 *
 * Destinations are found by key in a hash table that doubles when it is as full as it has buckets.
 * One is made by its first delivery and freed as soon as it has neither deliveries nor connections
 * nor a failure to remember: an idle timeout after its last message. The resolver, not the pool,
 * remembers hosts for longer.
 *
 * Limits: as many destinations as have deliveries in memory (queue.deliveries_max) or connections,
 * and those that rest after a failure, a minute or two each.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdio.h>
#include <stdlib.h>

/* --- the table ------------------------------------------------------------------------------- */

/* FNV-1a. */
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

static void insert(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_dest **to = bucket_of(p, dest->key);
    dest->hash_next = *to;
    *to = dest;
}

static void grow(struct relay_pool *p)
{
    struct relay_dest **old = p->buckets, *dest;
    uint32_t old_count = p->bucket_count;
    p->bucket_count *= 2;
    p->buckets = mem_zalloc(p->bucket_count * sizeof *p->buckets);
    for (uint32_t i = 0; i < old_count; i++)
        while ((dest = old[i])) {
            old[i] = dest->hash_next;
            insert(p, dest);
        }
    free(old);
}

struct relay_dest *pool_find_dest(const struct relay_pool *p, const char *key)
{
    struct relay_dest *dest = *bucket_of(p, key);
    while (dest && strcmp(dest->key, key) != 0)
        dest = dest->hash_next;
    return dest;
}

/* --- destinations ---------------------------------------------------------------------------- */

static struct relay_dest *dest_new(struct relay_pool *p, const char *key)
{
    if (p->dest_count == p->bucket_count)
        grow(p);
    struct relay_dest *dest = mem_zalloc(sizeof *dest);
    snprintf(dest->key, sizeof dest->key, "%s", key);
    dest->route = route_of_key(p->cfg, slice_str(key));
    must(dest->route && dest->route->relay != RELAY_HOLD);
    dest->source = route_key_source(p->cfg, key);
    list_init(&dest->node);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        list_init(&dest->lanes[lane].turns);
    list_init(&dest->crowd);
    list_init(&dest->misfits);
    list_init(&dest->slots);
    list_init(&dest->offers);
    list_init(&dest->overlaps);
    insert(p, dest);
    p->dest_count++;
    return dest;
}

struct relay_dest *pool_dest(struct relay_pool *p, const char *key)
{
    struct relay_dest *dest = pool_find_dest(p, key);
    return dest ? dest : dest_new(p, key);
}

void pool_unlist(struct relay_pool *p, struct relay_dest *dest)
{
    list_remove(&dest->node);
    p->starved_count -= dest->place == PLACE_STARVED;
    dest->place = PLACE_NONE;
}

static void dest_free(struct relay_pool *p, struct relay_dest *dest)
{
    struct relay_dest **link = bucket_of(p, dest->key);
    while (*link != dest)
        link = &(*link)->hash_next;
    *link = dest->hash_next;
    pool_unlist(p, dest);
    pool_drop_lines(p, dest);
    list_remove(&dest->crowd);
    pool_site_join(p, dest, true);
    free(dest->hosts);
    free(dest);
    p->dest_count--;
}

/* RESOLVING is kept too: the driver holds it until relay_pool_resolved. */
void pool_dest_drop(struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->waiting_count == 0 && dest->misfit_count == 0 && dest->slot_count == 0 &&
        dest->state != DEST_RESOLVING)
        dest_free(p, dest);
}

void pool_place(struct relay_pool *p, struct relay_dest *dest, enum relay_dest_place place,
                struct list *before)
{
    pool_unlist(p, dest);
    list_push_back(before, &dest->node);
    dest->place = place;
    p->starved_count += place == PLACE_STARVED;
}

/* One that is on its way to a turn keeps its place, however much comes for it. */
void pool_touch(struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->place != PLACE_TURNS)
        pool_place(p, dest, PLACE_TURNS, &p->turns);
}

uint32_t pool_dest_working(const struct relay_dest *dest)
{
    must(dest->draining_count <= dest->slot_count);
    return dest->slot_count - dest->draining_count;
}

/* --- deliveries ------------------------------------------------------------------------------ */

void pool_give_back(struct relay_pool *p, struct delivery *d, const struct rcpt_outcome *why)
{
    delivery_fail_open(d, why->stage, why->code, why->enhanced, why->text);
    list_push_back(&p->defers, &d->node);
}

static void give_back_from(struct relay_pool *p, const struct relay_dest *dest, struct delivery *d,
                           const struct rcpt_outcome *why)
{
    struct slice host = slice_of(dest->failure_host, strlen(dest->failure_host) + 1);
    if (why == &dest->failure && host.len > 1)
        d->said_by = arena_copy(&d->arena, host).ptr;
    pool_give_back(p, d, why);
}

void pool_give_back_all(struct relay_pool *p, struct relay_dest *dest,
                        const struct rcpt_outcome *why)
{
    while (dest->misfit_count > 0)
        give_back_from(p, dest, pool_pop_misfit(p, dest), why);
    while (pool_urgent_waiting(dest) > 0)
        give_back_from(p, dest, pool_pop_waiting(p, dest, LANE_URGENT), why);
    while (dest->waiting_count > 0)
        give_back_from(p, dest, pool_pop_plain(p, dest), why);
}

/* --- the end --------------------------------------------------------------------------------- */

static void free_deliveries(struct list *deliveries)
{
    struct list *node;
    while ((node = list_pop_front(deliveries)))
        delivery_free(list_entry(node, struct delivery, node));
}

static void free_slots(struct relay_pool *p, struct relay_dest *dest)
{
    struct list *node;
    while ((node = list_pop_front(&dest->slots))) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, node);
        pool_site_drop_slot(p, slot);
        free(slot);
    }
}

void pool_dests_free(struct relay_pool *p)
{
    for (uint32_t i = 0; i < p->bucket_count; i++)
        while (p->buckets[i]) {
            pool_take_waiting(p, p->buckets[i], &p->taken, POOL_ALL_SHARDS);
            free_deliveries(&p->buckets[i]->misfits);
            free_slots(p, p->buckets[i]);
            dest_free(p, p->buckets[i]);
        }
    free_deliveries(&p->defers);
    free_deliveries(&p->taken);
    free(p->buckets);
}
