/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_share - domains that are hosted together use each other's connections.
 *
 * A destination that wants a connection takes over an idle one of another destination with the same
 * MX hosts under the same route, before it makes one of its own. So ten thousand domains at one
 * provider need as many connections as their mail does, not ten thousand.
 *
 * Not where the connection was judged for its domain's sake: TLSA records, an MTA-STS policy
 * (P-202) and tls = verify are about one domain. A smarthost is one destination anyway. A slot
 * whose own destination has mail for it stays there.
 *
 * READY slots that may be taken are in buckets, by the name of their hosts. When all connections
 * are used up, the one that has been idle longest looks for a destination that starves and could
 * use it, among the first STARVED_LOOK of them; only when there is none is it closed.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdlib.h>

#define STARVED_LOOK 32

void pool_shares_init(struct relay_pool *p)
{
    p->share_buckets = mem_alloc(SHARE_BUCKETS * sizeof *p->share_buckets);
    for (uint32_t i = 0; i < SHARE_BUCKETS; i++)
        list_init(&p->share_buckets[i]);
}

void pool_shares_done(struct relay_pool *p)
{
    free(p->share_buckets);
}

/* FNV-1a. */
static struct list *bucket_of(const struct relay_pool *p, const char *site)
{
    uint32_t h = 2166136261u;
    for (; *site; site++)
        h = (h ^ (uint8_t)*site) * 16777619u;
    return &p->share_buckets[h % SHARE_BUCKETS];
}

void pool_share_judge(struct relay_dest *dest)
{
    const struct config_route *route = dest->route;
    dest->is_sharing = route->relay == RELAY_MX && route->tls != ROUTE_TLS_VERIFY &&
                       dest->host_count > 0 && dest->hosts[0].site[0] != '\0';
    for (size_t i = 0; i < dest->host_count; i++)
        if (dest->hosts[i].tlsa.is_present || dest->hosts[i].sts != STS_NONE)
            dest->is_sharing = false;
}

void pool_share_offer(struct relay_pool *p, struct relay_slot *slot)
{
    struct relay_dest *dest = slot->dest;
    list_remove(&slot->share);
    if (dest->is_sharing && slot->hosts_serial == dest->hosts_serial && !slot->is_for_misfits &&
        !slot->is_downgraded)
        list_push_back(bucket_of(p, dest->hosts[0].site), &slot->share);
}

/* --- taking ---------------------------------------------------------------------------------- */

/* Where the slot's host is in the list of dest; host_count: nowhere. */
static size_t host_in(const struct relay_dest *dest, const struct relay_slot *slot)
{
    const struct relay_host *host = &slot->dest->hosts[slot->host];
    size_t i = 0;
    while (i < dest->host_count && (dest->hosts[i].addr_len != host->addr_len ||
                                    memcmp(&dest->hosts[i].addr, &host->addr, host->addr_len) != 0))
        i++;
    return i;
}

static bool is_spare(const struct relay_slot *slot)
{
    const struct relay_dest *owner = slot->dest;
    return !list_is_empty(&slot->share) && slot->hosts_serial == owner->hosts_serial &&
           owner->is_sharing && owner->waiting_count == 0 && owner->misfit_count == 0;
}

static bool may_take(const struct relay_dest *dest, const struct relay_slot *slot)
{
    const struct relay_dest *owner = slot->dest;
    return dest != owner && dest->is_sharing && dest->state == DEST_OPEN && is_spare(slot) &&
           dest->route == owner->route && dest->source == owner->source &&
           dest->site == slot->site && strcmp(dest->hosts[0].site, owner->hosts[0].site) == 0 &&
           host_in(dest, slot) < dest->host_count;
}

static void move_slot(struct relay_pool *p, struct relay_slot *slot, struct relay_dest *dest)
{
    struct relay_dest *owner = slot->dest;
    must(slot->state == SLOT_READY && !slot->is_plain);
    slot->host = host_in(dest, slot);
    slot->hosts_serial = dest->hosts_serial;
    list_remove(&slot->node);
    list_push_back(&dest->slots, &slot->node);
    list_remove(&slot->offer);
    list_push_front(&dest->offers, &slot->offer);
    owner->slot_count--;
    dest->slot_count++;
    slot->dest = dest;
    pool_touch(p, owner);
}

bool pool_share_take(struct relay_pool *p, struct relay_dest *dest)
{
    if (!dest->is_sharing || dest->state != DEST_OPEN)
        return false;
    struct list *bucket = bucket_of(p, dest->hosts[0].site);
    list_for_each (node, bucket) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, share);
        if (!may_take(dest, slot))
            continue;
        move_slot(p, slot, dest);
        return true;
    }
    return false;
}

bool pool_share_wake(struct relay_pool *p)
{
    if (list_is_empty(&p->idle))
        return false;
    const struct relay_slot *slot = list_entry(p->idle.next, struct relay_slot, idle);
    uint32_t looked = 0;
    list_for_each (node, &p->starved) {
        struct relay_dest *dest = list_entry(node, struct relay_dest, node);
        if (may_take(dest, slot)) {
            pool_touch(p, dest);
            return true;
        }
        if (++looked == STARVED_LOOK)
            break;
    }
    return false;
}
