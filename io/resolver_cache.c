/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolver_cache - a hash table of names with the known ones in a queue: the oldest answer goes
 * first when there are too many. No use counts: an answer lives for its TTL at most, an hour or so,
 * and the relay pool keeps the hosts of a busy destination itself.
 *
 * Limits: CACHE_ENTRIES_MAX names or CACHE_OCTETS_MAX octets, whichever is met first. Entries that
 * are asking do not count and are never evicted.
 */
#include "io/resolver_cache.h"
#include "core/base/must.h"

#include <stdlib.h>

#define CACHE_ENTRIES_MAX 65536
#define CACHE_OCTETS_MAX  (32 * 1024 * 1024)
#define HASH_BUCKETS      16384 /* a power of two */

void resolver_cache_init(struct resolver_cache *c, uint64_t seed)
{
    c->buckets = mem_zalloc(HASH_BUCKETS * sizeof *c->buckets);
    c->seed = seed;
    c->count = c->octets = 0;
    list_init(&c->known);
}

static struct resolver_entry **bucket_of(struct resolver_cache *c, bool is_mx, struct slice name)
{
    uint64_t h = c->seed ^ is_mx;
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (unsigned char)name.ptr[i]) * 0x100000001b3ULL;
    return &c->buckets[(h ^ h >> 29) & (HASH_BUCKETS - 1)];
}

struct resolver_entry *resolver_cache_find(struct resolver_cache *c, bool is_mx, struct slice name)
{
    struct resolver_entry *e = *bucket_of(c, is_mx, name);
    while (e && (e->is_mx != is_mx || !slice_eq(slice_str(e->name), name)))
        e = e->hash_next;
    return e;
}

struct resolver_entry *resolver_cache_add(struct resolver_cache *c, bool is_mx, struct slice name)
{
    struct resolver_entry *e = mem_zalloc(sizeof *e + name.len + 1);
    memcpy(e->name, name.ptr, name.len);
    e->is_mx = is_mx;
    e->state = is_mx ? ENTRY_MX : ENTRY_ADDRESSES;
    e->ttl_ms = UINT32_MAX;
    list_init(&e->node);
    list_init(&e->waiters);
    struct resolver_entry **bucket = bucket_of(c, is_mx, name);
    e->hash_next = *bucket;
    *bucket = e;
    return e;
}

static size_t entry_octets(const struct resolver_entry *e)
{
    return sizeof *e + strlen(e->name) + e->host_count * sizeof *e->hosts;
}

static void entry_free(struct resolver_entry *e)
{
    list_for_each_safe (node, &e->waiters)
        free(list_entry(node, struct resolver_waiter, node));
    free(e->targets);
    free(e->found);
    free(e->hosts);
    free(e);
}

void resolver_cache_drop(struct resolver_cache *c, struct resolver_entry *e)
{
    must(e->state == ENTRY_KNOWN);
    struct resolver_entry **link = bucket_of(c, e->is_mx, slice_str(e->name));
    while (*link != e)
        link = &(*link)->hash_next;
    *link = e->hash_next;
    list_remove(&e->node);
    c->count--;
    c->octets -= entry_octets(e);
    entry_free(e);
}

static void evict(struct resolver_cache *c)
{
    while (c->count > CACHE_ENTRIES_MAX || c->octets > CACHE_OCTETS_MAX)
        resolver_cache_drop(c, list_entry(c->known.next, struct resolver_entry, node));
}

void resolver_cache_keep(struct resolver_cache *c, struct resolver_entry *e)
{
    list_push_back(&c->known, &e->node);
    c->count++;
    c->octets += entry_octets(e);
    evict(c);
}

void resolver_cache_done(struct resolver_cache *c)
{
    for (size_t i = 0; i < HASH_BUCKETS; i++) {
        for (struct resolver_entry *e = c->buckets[i], *next; e; e = next) {
            next = e->hash_next;
            entry_free(e);
        }
    }
    free(c->buckets);
}
