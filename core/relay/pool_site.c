/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_site - limits that all workers of all nodes keep together.
 *
 * A site is a set of hosts: the MX hosts that several domains may share, or a smarthost. When a
 * route limits the connections to it, a pool opens one only when it is allowed one more. What it is
 * allowed it is told (relay_pool_site_answered), by io/relay_sites.c, which asks Redis for it
 * (lua/sites.lua): a question for each connection that is opened or closed, none for a message.
 *
 * A question says what is in use, which Redis never takes away, and what is wanted beside it. So an
 * answer that is lost does no harm: the next question says the same again. What is allowed and not
 * used is given back with the next question, and what more is wanted waits its turn among all
 * workers; nobody can pass something on to himself.
 *
 * Wanted is: a connection by a destination that has none (it waits, and others are told); by one
 * that has some and could use more (welcome: it gets what is over); and the permission to carry
 * mail that is not urgent, for urgent mail has a share of a site's connections to itself.
 *
 * Who is told that others wait gives one up: an idle one at once; one at work when its transaction
 * is over, for urgent mail; for other mail when it has had HOLD_MS. That goes for two destinations
 * of one worker too.
 *
 * Questions and answers: pool_site_ask.c; rates and the pace of a site: pool_pace.c.
 *
 * Limits: as many sites as destinations with a limit. A site is kept until Redis knows that nothing
 * of it is used any more.
 */
#include "core/relay/pool_site.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

#define HOLD_MS 2000 /* that a connection is used while others wait for it */

/* --- sites ----------------------------------------------------------------------------------- */

void pool_sites_init(struct relay_pool *p)
{
    list_init(&p->sites);
    list_init(&p->asks);
    list_init(&p->timed);
    list_init(&p->slowed);
    p->site_buckets = mem_alloc(SITE_BUCKETS * sizeof *p->site_buckets);
    for (uint32_t i = 0; i < SITE_BUCKETS; i++)
        list_init(&p->site_buckets[i]);
}

void pool_site_free(struct relay_pool *p, struct relay_site *site)
{
    must(site->refs == 0 && list_is_empty(&site->slots) && list_is_empty(&site->waiting));
    list_remove(&site->node);
    list_remove(&site->hash);
    list_remove(&site->ask);
    list_remove(&site->timed);
    p->site_count -= pool_site_is_limited(site);
    p->slowed_count -= site->pace < PACE_FULL;
    list_remove(&site->slowed);
    free(site);
}

void pool_sites_done(struct relay_pool *p)
{
    for (uint32_t i = 0; i < SITE_BUCKETS; i++)
        while (!list_is_empty(&p->site_buckets[i]))
            pool_site_free(p, list_entry(p->site_buckets[i].next, struct relay_site, hash));
    free(p->site_buckets);
}

/* FNV-1a. */
static struct list *bucket_of(struct relay_pool *p, struct slice name)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.ptr[i]) * 16777619u;
    return &p->site_buckets[h % SITE_BUCKETS];
}

static struct relay_site *site_find(struct relay_pool *p, struct slice name)
{
    struct list *bucket = bucket_of(p, name);
    list_for_each (node, bucket) {
        struct relay_site *site = list_entry(node, struct relay_site, hash);
        if (slice_eq(slice_str(site->name), name))
            return site;
    }
    return NULL;
}

static struct relay_site *site_new(struct relay_pool *p, const char *name, const char *host)
{
    size_t name_size = strlen(name) + 1, host_size = strlen(host) + 1;
    struct relay_site *site = mem_zalloc(sizeof *site + name_size + host_size);
    memcpy(site->name, name, name_size);
    memcpy(site->name + name_size, host, host_size);
    site->host = name_size;
    list_init(&site->ask);
    list_init(&site->timed);
    list_init(&site->slowed);
    list_init(&site->node);
    site->pace = PACE_FULL;
    list_init(&site->slots);
    list_init(&site->waiting);
    list_push_back(bucket_of(p, slice_str(name)), &site->hash);
    return site;
}

/* There may be something to ask about it. */
void pool_site_touch(struct relay_pool *p, struct relay_site *site)
{
    if (!site->is_asked && list_is_empty(&site->ask))
        list_push_back(&p->asks, &site->ask);
}

static void unref(struct relay_pool *p, struct relay_site *site)
{
    must(site->refs > 0);
    site->refs--;
    pool_site_touch(p, site);
}

/* What the source says beats what the route says; 0: neither says anything. */
static uint32_t connections_of(const struct relay_dest *dest)
{
    return dest->source && dest->source->connections ? dest->source->connections
                                                     : dest->route->connections;
}

static const struct config_rate *rate_of(const struct relay_dest *dest)
{
    return dest->source && dest->source->rate.messages ? &dest->source->rate : &dest->route->rate;
}

/* Of several routes to one site the strictest counts. */
static void limit(struct relay_pool *p, struct relay_site *site, const struct relay_dest *dest)
{
    bool was_limited = pool_site_is_limited(site);
    const struct config_rate *new = rate_of(dest), *old = &site->rate;
    uint32_t connections = connections_of(dest);
    if (connections > 0 && (site->most == 0 || connections < site->most))
        site->most = connections;
    if (new->messages > 0 && (old->messages == 0 || (uint64_t) new->messages * old->per_ms <
                                                        (uint64_t)old->messages *new->per_ms))
        site->rate = *new;
    if (!was_limited && pool_site_is_limited(site)) {
        list_push_back(&p->sites, &site->node);
        p->site_count++;
    }
}

static bool has_limits(const struct relay_dest *dest)
{
    return connections_of(dest) > 0 || rate_of(dest)->messages > 0;
}

#define NAME_MAX_LEN 308 /* of a source, a host, and a port */

static void name_site(const struct relay_dest *dest, char out[NAME_MAX_LEN])
{
    const struct relay_host *first = &dest->hosts[0];
    const char *source = dest->source ? dest->source->name : "", *caret = dest->source ? "^" : "";
    if (dest->route->relay == RELAY_SMARTHOST)
        snprintf(out, NAME_MAX_LEN, "%s%s%s:%u", source, caret, dest->route->host,
                 dest->route->port);
    else
        snprintf(out, NAME_MAX_LEN, "%s%s%s", source, caret,
                 first->site[0] ? first->site : first->name);
    for (char *c = out; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
}

void pool_site_join(struct relay_pool *p, struct relay_dest *dest, bool none)
{
    struct relay_site *old = dest->site;
    dest->site = NULL;
    if (!none && (p->cfg->relay.adaptive || has_limits(dest))) {
        char name[NAME_MAX_LEN];
        name_site(dest, name);
        dest->site = site_find(p, slice_str(name));
        if (!dest->site)
            dest->site = site_new(p, name, dest->hosts[0].name);
        dest->site->refs++;
        limit(p, dest->site, dest);
    }
    if (old)
        unref(p, old);
}

/* --- what is in use -------------------------------------------------------------------------- */

/* Those that wait may find what they want, as many as there is something for. */
void pool_site_wake(struct relay_pool *p, struct relay_site *site)
{
    uint32_t count = site->plain_allowed + site->tokens;
    if (site->allowed > site->slot_count)
        count += site->allowed - site->slot_count;
    while (count-- > 0 && !list_is_empty(&site->waiting))
        pool_touch(p, list_entry(site->waiting.next, struct relay_dest, node));
}

static void wake_one(struct relay_pool *p, struct relay_site *site)
{
    if (!list_is_empty(&site->waiting))
        pool_touch(p, list_entry(site->waiting.next, struct relay_dest, node));
}

void pool_site_add_slot(struct relay_pool *p, struct relay_slot *slot)
{
    struct relay_site *site = slot->dest->site;
    list_init(&slot->site_node);
    if (!site)
        return;
    slot->site = site;
    list_push_back(&site->slots, &slot->site_node);
    site->refs++;
    site->slot_count++;
    site->connecting_count++;
}

void pool_site_connected(struct relay_pool *p, struct relay_slot *slot, const struct now *now)
{
    slot->opened_ms = now->mono_ms;
    if (!slot->site)
        return;
    slot->site->connecting_count--;
    wake_one(p, slot->site);
}

void pool_site_drop_slot(struct relay_pool *p, struct relay_slot *slot)
{
    struct relay_site *site = slot->site;
    if (!site)
        return;
    list_remove(&slot->site_node);
    site->slot_count--;
    site->connecting_count -= slot->state == SLOT_CONNECTING;
    slot->site = NULL;
    unref(p, site);
}

void pool_slot_set_plain(struct relay_pool *p, struct relay_slot *slot, bool is_plain)
{
    if (slot->is_plain == is_plain)
        return;
    slot->is_plain = is_plain;
    slot->dest->plain_count += is_plain ? 1 : UINT32_MAX;
    if (!slot->site)
        return;
    slot->site->plain_count += is_plain ? 1 : UINT32_MAX;
    if (!is_plain)
        wake_one(p, slot->site);
}

static bool has_plain_room(const struct relay_site *site)
{
    return site->plain_count + site->connecting_count < site->plain_allowed;
}

bool pool_site_may_connect(const struct relay_dest *dest, bool is_urgent)
{
    const struct relay_site *site = dest->site;
    if (!site || site->most == 0)
        return true;
    return !site->is_asked && site->slot_count < site->allowed &&
           (is_urgent || has_plain_room(site));
}

bool pool_site_may_be_plain(const struct relay_slot *slot)
{
    return !slot->site || slot->site->most == 0 || slot->is_plain ||
           slot->site->plain_count < slot->site->plain_allowed;
}

/* 0: it can do without; 1: welcome; 2: it has nothing; 3: and that for urgent mail. */
int pool_site_importance(const struct relay_dest *dest)
{
    if (dest->waiting_count == 0 && dest->misfit_count == 0)
        return 0;
    switch (dest->site_want) {
    case WANT_URGENT: return pool_urgent_working(dest) > 0 ? 1 : 3;
    case WANT_PLAIN: return dest->slot_count > 0 ? 1 : 2;
    case WANT_TURN: return dest->plain_count > dest->plain_draining_count ? 0 : 2;
    case WANT_TOKEN: return 0; /* it does not depend on who else waits */
    }
    return 0;
}

void pool_site_wait(struct relay_pool *p, struct relay_dest *dest, enum relay_site_want want)
{
    if (!dest->site)
        return;
    dest->site_want = want;
    bool is_first = pool_urgent_waiting(dest) > 0;
    pool_place(p, dest, PLACE_SITE, is_first ? dest->site->waiting.next : &dest->site->waiting);
    if (pool_site_importance(dest) > dest->site->refused)
        pool_site_touch(p, dest->site);
}

/* --- giving ---------------------------------------------------------------------------------- */

void relay_pool_site_news(struct relay_pool *p, struct slice news)
{
    struct relay_site *site = news.len > 1 ? site_find(p, slice_skip(news, 1)) : NULL;
    if (!site)
        return;
    if (news.ptr[0] == 'f') {
        site->refused = 0;
        pool_site_touch(p, site);
    } else if (site->wanted != 'u') {
        site->wanted = news.ptr[0];
    }
}

static bool has_had_its_time(const struct relay_slot *slot, const struct now *now)
{
    return now->mono_ms - slot->opened_ms >= HOLD_MS;
}

/* How readily a connection is given up; 0: not now. */
static int readiness(const struct relay_site *site, const struct relay_slot *slot,
                     const struct now *now)
{
    bool is_useful = site->wanted != 'p' || slot->is_plain;
    if (slot->state == SLOT_READY && is_useful)
        return 3;
    if (slot->state != SLOT_BUSY || !is_useful)
        return 0;
    if (site->wanted == 'u')
        return slot->is_plain ? 2 : 1;
    return has_had_its_time(slot, now) ? 1 : 0;
}

/* Permission to carry plain mail that nothing uses: true when it goes with the next question. */
static bool give_turn(struct relay_pool *p, struct relay_site *site)
{
    if (site->wanted != 'p' || site->plain_count + site->connecting_count >= site->plain_allowed)
        return false;
    site->is_giving = true;
    pool_site_touch(p, site);
    return true;
}

/* One at a time; true when one is on its way out. */
static bool give_one(struct relay_pool *p, struct relay_site *site, const struct now *now)
{
    struct relay_slot *best = NULL;
    int best_readiness = 0;
    list_for_each (node, &site->slots) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, site_node);
        if (slot->state == SLOT_DRAINING && (site->wanted != 'p' || slot->is_plain))
            return true;
        int ready = readiness(site, slot, now);
        if (ready > best_readiness) {
            best = slot;
            best_readiness = ready;
        }
    }
    if (best)
        pool_slot_drain(p, best);
    return best != NULL;
}

/* Who waits says so again, every second. */
void relay_pool_sites_tick(struct relay_pool *p, bool again, const struct now *now)
{
    pool_sites_forget_pace(p, now);
    list_for_each (node, &p->sites) {
        struct relay_site *site = list_entry(node, struct relay_site, node);
        if (site->wanted && (give_turn(p, site) || give_one(p, site, now) || site->slot_count == 0))
            site->wanted = 0;
        if (!again || list_is_empty(&site->waiting))
            continue;
        site->refused = 0;
        pool_site_touch(p, site);
    }
}

/* --- the agreement ends ---------------------------------------------------------------------- */

void relay_pool_sites_void(struct relay_pool *p)
{
    list_for_each (node, &p->sites) {
        struct relay_site *site = list_entry(node, struct relay_site, node);
        site->allowed = site->plain_allowed = 0;
        pool_site_drop_tokens(site);
        pool_site_touch(p, site);
    }
}

uint32_t relay_pool_sites(const struct relay_pool *p)
{
    return p->site_count;
}

bool relay_slot_is_excess(const struct relay_slot *slot)
{
    const struct relay_site *site = slot->site;
    return site && site->most > 0 && site->slot_count > site->allowed;
}
