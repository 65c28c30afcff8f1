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
 * A rate is kept by tokens, one for each message that begins. They come in blocks of what the rate
 * lets pass in token_hold_ms, for a time that Redis names, and are good for that long from then.
 * Who is to wait is told for how long, once, and has his place then; nobody asks twice. In any
 * period no more than the rate begin, on all nodes: intervals are a little longer for what a block
 * blurs.
 *
 * A site that asks for less mail (421, or what a rule takes for a limit) is given half as much:
 * Redis halves its pace, once in five seconds, and raises it bit by bit as messages are taken
 * again; it applies to its limits, and here to relay.per_destination_max, for a site without any.
 * Workers learn of it with any answer about the site, those without limits with their own first
 * question.
 *
 * Limits: as many sites as destinations with a limit. A site is kept until Redis knows that nothing
 * of it is used any more.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdio.h>
#include <stdlib.h>

#define HOLD_MS      2000          /* that a connection is used while others wait for it */
#define HOLD_MAX_MS  1000          /* that tokens are good for */
#define GOOD_TOLD    20            /* messages taken, by a slowed site, before Redis is told */
#define PACE_KEPT_MS (3600 * 1000) /* since it was changed; Redis keeps it for as long */

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

static bool is_limited(const struct relay_site *site)
{
    return site->most > 0 || site->rate.messages > 0;
}

static void site_free(struct relay_pool *p, struct relay_site *site)
{
    must(site->refs == 0 && list_is_empty(&site->slots) && list_is_empty(&site->waiting));
    list_remove(&site->node);
    list_remove(&site->hash);
    list_remove(&site->ask);
    list_remove(&site->timed);
    p->site_count -= is_limited(site);
    p->slowed_count -= site->pace < PACE_FULL;
    list_remove(&site->slowed);
    free(site);
}

void pool_sites_done(struct relay_pool *p)
{
    for (uint32_t i = 0; i < SITE_BUCKETS; i++)
        while (!list_is_empty(&p->site_buckets[i]))
            site_free(p, list_entry(p->site_buckets[i].next, struct relay_site, hash));
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

static struct relay_site *site_new(struct relay_pool *p, const char *name)
{
    struct relay_site *site = mem_zalloc(sizeof *site);
    snprintf(site->name, sizeof site->name, "%s", name);
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
static void site_touch(struct relay_pool *p, struct relay_site *site)
{
    if (!site->is_asked && list_is_empty(&site->ask))
        list_push_back(&p->asks, &site->ask);
}

static void unref(struct relay_pool *p, struct relay_site *site)
{
    must(site->refs > 0);
    site->refs--;
    site_touch(p, site);
}

/* Of several routes to one site the strictest counts. */
static void limit(struct relay_pool *p, struct relay_site *site, const struct config_route *route)
{
    bool was_limited = is_limited(site);
    const struct config_rate *new = &route->rate, *old = &site->rate;
    if (route->connections > 0 && (site->most == 0 || route->connections < site->most))
        site->most = route->connections;
    if (new->messages > 0 && (old->messages == 0 || (uint64_t) new->messages * old->per_ms <
                                                        (uint64_t)old->messages *new->per_ms))
        site->rate = *new;
    if (!was_limited && is_limited(site)) {
        list_push_back(&p->sites, &site->node);
        p->site_count++;
    }
}

static bool has_limits(const struct config_route *route)
{
    return route->connections > 0 || route->rate.messages > 0;
}

static void name_site(const struct relay_dest *dest, char out[SITE_NAME_MAX])
{
    const struct relay_host *first = &dest->hosts[0];
    if (dest->route->relay == RELAY_SMARTHOST)
        snprintf(out, SITE_NAME_MAX, "%s:%u", dest->route->host, dest->route->port);
    else
        snprintf(out, SITE_NAME_MAX, "%s", first->site[0] ? first->site : first->name);
}

void pool_site_join(struct relay_pool *p, struct relay_dest *dest, bool none)
{
    struct relay_site *old = dest->site;
    dest->site = NULL;
    if (!none && (p->cfg->relay.adaptive || has_limits(dest->route))) {
        char name[SITE_NAME_MAX];
        name_site(dest, name);
        dest->site = site_find(p, slice_str(name));
        if (!dest->site)
            dest->site = site_new(p, name);
        dest->site->refs++;
        limit(p, dest->site, dest->route);
    }
    if (old)
        unref(p, old);
}

/* --- what is in use -------------------------------------------------------------------------- */

/* Those that wait may find what they want, as many as there is something for. */
static void wake(struct relay_pool *p, struct relay_site *site)
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
static int importance(const struct relay_dest *dest)
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
    if (importance(dest) > dest->site->refused)
        site_touch(p, dest->site);
}

uint32_t pool_dest_most(const struct relay_pool *p, const struct relay_dest *dest)
{
    uint32_t most = p->cfg->relay.per_destination_max;
    if (!dest->site || dest->site->pace >= PACE_FULL)
        return most;
    most = (uint32_t)((uint64_t)most * dest->site->pace / PACE_FULL);
    return most > 0 ? most : 1;
}

/* --- messages -------------------------------------------------------------------------------- */

/* A twentieth of the period, at most a second. */
static uint32_t token_hold_ms(const struct relay_site *site)
{
    uint32_t ms = site->rate.per_ms / 20;
    return ms < HOLD_MAX_MS ? ms : HOLD_MAX_MS;
}

/* Tokens that a block may have. */
static uint32_t burst_of(const struct relay_site *site)
{
    uint64_t burst = (uint64_t)site->rate.messages * token_hold_ms(site) / site->rate.per_ms;
    return burst > 0 ? (uint32_t)burst : 1;
}

/* One is used up to two holds before or after its turn, and a burst may come first. */
static uint32_t interval_us_of(const struct relay_site *site)
{
    uint64_t period_us = 1000 * ((uint64_t)site->rate.per_ms + 2 * token_hold_ms(site));
    uint64_t us = period_us / (site->rate.messages - burst_of(site) + 1) + 1;
    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static bool has_token(const struct relay_site *site, const struct now *now)
{
    return site->tokens > 0 && now->mono_ms >= site->tokens_from_ms &&
           now->mono_ms < site->tokens_until_ms;
}

static void drop_tokens(struct relay_site *site)
{
    site->tokens = 0;
    list_remove(&site->timed);
}

static bool has_connection(const struct relay_dest *dest)
{
    return !list_is_empty(&dest->offers) || !list_is_empty(&dest->overlaps);
}

bool pool_site_bars(struct relay_pool *p, struct relay_dest *dest, const struct now *now)
{
    struct relay_site *site = dest->site;
    if (!site || site->rate.messages == 0 || dest->state == DEST_BACKOFF || has_token(site, now) ||
        !has_connection(dest))
        return false;
    if (now->mono_ms >= site->tokens_until_ms)
        drop_tokens(site);
    pool_site_wait(p, dest, WANT_TOKEN);
    if (site->tokens == 0)
        site_touch(p, site);
    return true;
}

void pool_site_count(struct relay_dest *dest)
{
    if (dest->site && dest->site->tokens > 0)
        dest->site->tokens--;
}

static void take_tokens(struct relay_pool *p, struct relay_site *site,
                        const struct relay_site_answer *answer, const struct now *now)
{
    if (answer->tokens == 0)
        return;
    site->tokens = answer->tokens;
    site->tokens_from_ms = now->mono_ms + answer->wait_ms;
    site->tokens_until_ms = site->tokens_from_ms + token_hold_ms(site);
    list_remove(&site->timed);
    if (answer->wait_ms > 0)
        list_push_back(&p->timed, &site->timed);
}

void pool_sites_wake(struct relay_pool *p, const struct now *now)
{
    list_for_each_safe (node, &p->timed) {
        struct relay_site *site = list_entry(node, struct relay_site, timed);
        if (now->mono_ms < site->tokens_from_ms)
            continue;
        list_remove(node);
        wake(p, site);
    }
}

int64_t pool_sites_wake_ms(const struct relay_pool *p)
{
    int64_t soonest = INT64_MAX;
    list_for_each (node, &p->timed) {
        const struct relay_site *site = list_entry(node, struct relay_site, timed);
        if (site->tokens_from_ms < soonest)
            soonest = site->tokens_from_ms;
    }
    return soonest;
}

/* --- questions ------------------------------------------------------------------------------- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void count_want(const struct relay_dest *dest, struct relay_site_ask *ask)
{
    int matters = importance(dest);
    if (dest->site_want == WANT_TOKEN)
        ask->tokens += dest->site->tokens == 0 ? dest->waiting_count + dest->misfit_count : 0;
    else if (dest->site_want == WANT_TURN)
        ask->turned += matters > 0;
    else if (dest->site_want == WANT_URGENT)
        *(matters > 1 ? &ask->urgent : &ask->urgent_welcome) += matters > 0;
    else
        *(matters > 1 ? &ask->plain : &ask->plain_welcome) += matters > 0;
    if (matters > dest->site->asked)
        dest->site->asked = matters;
}

/* What a site can be asked for at most; more of those that wait are not counted. */
static bool is_enough(const struct relay_site_ask *ask)
{
    return ask->urgent + ask->plain + ask->turned + ask->tokens >= ask->most + ask->burst;
}

static void fill_ask(struct relay_pool *p, struct relay_site *site, struct relay_site_ask *ask)
{
    uint32_t plain_used = least(site->plain_count + site->connecting_count, site->slot_count);
    uint32_t plain_held = site->is_giving ? plain_used : site->slot_count;
    *ask = (struct relay_site_ask){ .most = site->most,
                                    .plain_most = pool_plain_share(p, site->most),
                                    .kept = least(site->slot_count, site->allowed),
                                    .plain_kept = least(plain_held, site->plain_allowed) };
    if (site->rate.messages > 0) {
        ask->burst = burst_of(site);
        ask->interval_us = interval_us_of(site);
    }
    site->asked = 0;
    list_for_each (node, &site->waiting) {
        if (p->is_draining || is_enough(ask))
            break;
        count_want(list_entry(node, struct relay_dest, node), ask);
    }
    ask->tokens = least(ask->tokens, ask->burst);
    ask->asks_for_less = site->is_cut;
    ask->good = site->good;
}

static bool wants_any(const struct relay_site_ask *ask)
{
    return ask->urgent + ask->plain + ask->turned + ask->urgent_welcome + ask->plain_welcome > 0;
}

/* Redis knows better what is ours when something is wanted, or less is in use. */
static bool is_news(const struct relay_site *site, const struct relay_site_ask *ask)
{
    return ask->tokens > 0 || ask->asks_for_less || ask->good >= GOOD_TOLD ||
           (wants_any(ask) && site->asked > site->refused) || ask->kept < site->allowed ||
           ask->plain_kept < site->plain_allowed ||
           (site->is_queued && ask->urgent + ask->plain + ask->turned == 0) ||
           (site->refs == 0 && site->is_known);
}

struct relay_site *relay_pool_site_next(struct relay_pool *p, struct relay_site_ask *ask)
{
    struct list *node;
    while ((node = list_pop_front(&p->asks))) {
        struct relay_site *site = list_entry(node, struct relay_site, ask);
        fill_ask(p, site, ask);
        if (is_news(site, ask)) {
            site->is_asked = true;
            site->is_known = is_limited(site);
            site->cut_asked = ask->asks_for_less;
            site->good_asked = ask->good;
            site->is_giving = false;
            site->asked_for =
                ask->kept + ask->urgent + ask->plain + ask->urgent_welcome + ask->plain_welcome;
            site->allowed = ask->kept;
            site->plain_allowed = ask->plain_kept;
            return site;
        }
        if (site->refs == 0 && site->pace == PACE_FULL)
            site_free(p, site);
    }
    return NULL;
}

const char *relay_site_name(const struct relay_site *site)
{
    return site->name;
}

static void drain_some(struct relay_pool *p, struct relay_site *site, enum relay_slot_state state,
                       uint32_t *count)
{
    list_for_each (node, &site->slots) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, site_node);
        if (*count == 0 || slot->state != state)
            continue;
        pool_slot_drain(p, slot);
        --*count;
    }
}

/* Of its connections as many go as it gets less, idle ones first; one stays. */
static void shrink(struct relay_pool *p, struct relay_site *site, uint32_t pace)
{
    uint32_t kept = (uint32_t)((uint64_t)site->slot_count * pace / site->pace);
    uint32_t excess = site->slot_count - kept;
    if (kept == 0)
        excess = site->slot_count > 0 ? site->slot_count - 1 : 0;
    drain_some(p, site, SLOT_READY, &excess);
    drain_some(p, site, SLOT_BUSY, &excess);
}

static void set_pace(struct relay_pool *p, struct relay_site *site, uint32_t pace,
                     const struct now *now)
{
    if (pace < site->pace)
        shrink(p, site, pace);
    p->slowed_count += (pace < PACE_FULL) - (site->pace < PACE_FULL);
    site->pace = pace;
    site->pace_until_ms = now->mono_ms + PACE_KEPT_MS;
    list_remove(&site->slowed);
    if (pace < PACE_FULL)
        list_push_back(&p->slowed, &site->slowed);
}

/* Those that nobody has mail for, and that were slowed long ago. */
static void forget_pace(struct relay_pool *p, const struct now *now)
{
    list_for_each_safe (node, &p->slowed) {
        struct relay_site *site = list_entry(node, struct relay_site, slowed);
        if (now->mono_ms < site->pace_until_ms || site->is_asked)
            return;
        set_pace(p, site, PACE_FULL, now);
        site_touch(p, site);
    }
}

void relay_pool_slow_down(struct relay_pool *p, const struct relay_slot *slot)
{
    struct relay_site *site = slot->dest->site;
    if (!p->cfg->relay.adaptive || !site)
        return;
    site->is_cut = true;
    site_touch(p, site);
}

void relay_pool_went_well(struct relay_pool *p, const struct relay_slot *slot)
{
    struct relay_site *site = slot->dest->site;
    if (site && site->pace < PACE_FULL && ++site->good >= GOOD_TOLD)
        site_touch(p, site);
}

uint32_t relay_pool_slowed(const struct relay_pool *p)
{
    return p->slowed_count;
}

uint32_t relay_site_pace(const struct relay_site *site)
{
    return site->pace;
}

void relay_pool_site_answered(struct relay_pool *p, struct relay_site *site,
                              const struct relay_site_answer *answer, const struct now *now)
{
    must(site->is_asked);
    bool is_short = answer->is_queued || answer->connections < site->asked_for;
    site->is_asked = false;
    site->is_queued = answer->is_queued;
    site->refused = is_short ? site->asked : 0;
    site->allowed = answer->connections;
    site->plain_allowed = answer->plain;
    site->is_known = is_limited(site) && (site->refs > 0 || answer->connections > 0);
    site->is_cut &= !site->cut_asked;
    site->good -= site->good_asked;
    set_pace(p, site, answer->pace, now);
    take_tokens(p, site, answer, now);
    if (site->refs == 0 || site->slot_count < site->allowed)
        site_touch(p, site);
    wake(p, site);
}

void relay_pool_site_unanswered(struct relay_pool *p, struct relay_site *site)
{
    must(site->is_asked);
    site->is_asked = false;
    site->refused = 0;
    site_touch(p, site);
}

bool relay_pool_asks(const struct relay_pool *p)
{
    return !list_is_empty(&p->asks);
}

/* --- giving ---------------------------------------------------------------------------------- */

void relay_pool_site_news(struct relay_pool *p, struct slice news)
{
    struct relay_site *site = news.len > 1 ? site_find(p, slice_skip(news, 1)) : NULL;
    if (!site)
        return;
    if (news.ptr[0] == 'f') {
        site->refused = 0;
        site_touch(p, site);
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
    site_touch(p, site);
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
    forget_pace(p, now);
    list_for_each (node, &p->sites) {
        struct relay_site *site = list_entry(node, struct relay_site, node);
        if (site->wanted && (give_turn(p, site) || give_one(p, site, now) || site->slot_count == 0))
            site->wanted = 0;
        if (!again || list_is_empty(&site->waiting))
            continue;
        site->refused = 0;
        site_touch(p, site);
    }
}

/* --- the agreement ends ---------------------------------------------------------------------- */

void relay_pool_sites_void(struct relay_pool *p)
{
    list_for_each (node, &p->sites) {
        struct relay_site *site = list_entry(node, struct relay_site, node);
        site->allowed = site->plain_allowed = 0;
        drop_tokens(site);
        site_touch(p, site);
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
