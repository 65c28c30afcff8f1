/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_pace - how many messages a site gets in a time, and what happens when it asks for less.
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
 */
#include "core/relay/pool_site.h"

#define HOLD_MAX_MS  1000          /* that tokens are good for */
#define PACE_KEPT_MS (3600 * 1000) /* since it was changed; Redis keeps it for as long */

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

void pool_site_ask_rate(const struct relay_site *site, struct relay_site_ask *ask)
{
    if (site->rate.messages == 0)
        return;
    ask->burst = burst_of(site);
    ask->interval_us = interval_us_of(site);
}

static bool has_token(const struct relay_site *site, const struct now *now)
{
    return site->tokens > 0 && now->mono_ms >= site->tokens_from_ms &&
           now->mono_ms < site->tokens_until_ms;
}

void pool_site_drop_tokens(struct relay_site *site)
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
        pool_site_drop_tokens(site);
    pool_site_wait(p, dest, WANT_TOKEN);
    if (site->tokens == 0)
        pool_site_touch(p, site);
    return true;
}

void pool_site_count(struct relay_dest *dest)
{
    if (dest->site && dest->site->tokens > 0)
        dest->site->tokens--;
}

void pool_site_take_tokens(struct relay_pool *p, struct relay_site *site,
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
        pool_site_wake(p, site);
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

/* --- pace ------------------------------------------------------------------------------------ */

uint32_t pool_dest_most(const struct relay_pool *p, const struct relay_dest *dest)
{
    uint32_t most = p->cfg->relay.per_destination_max;
    if (!dest->site || dest->site->pace >= PACE_FULL)
        return most;
    most = (uint32_t)((uint64_t)most * dest->site->pace / PACE_FULL);
    return most > 0 ? most : 1;
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

void pool_site_set_pace(struct relay_pool *p, struct relay_site *site, uint32_t pace,
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

void pool_sites_forget_pace(struct relay_pool *p, const struct now *now)
{
    list_for_each_safe (node, &p->slowed) {
        struct relay_site *site = list_entry(node, struct relay_site, slowed);
        if (now->mono_ms < site->pace_until_ms || site->is_asked)
            return;
        pool_site_set_pace(p, site, PACE_FULL, now);
        pool_site_touch(p, site);
    }
}

void relay_pool_slow_down(struct relay_pool *p, const struct relay_slot *slot)
{
    struct relay_site *site = slot->dest->site;
    if (!p->cfg->relay.adaptive || !site)
        return;
    site->is_cut = true;
    pool_site_touch(p, site);
}

void relay_pool_went_well(struct relay_pool *p, const struct relay_slot *slot)
{
    struct relay_site *site = slot->dest->site;
    if (site && site->pace < PACE_FULL && ++site->good >= GOOD_TOLD)
        pool_site_touch(p, site);
}

uint32_t relay_pool_slowed(const struct relay_pool *p)
{
    return p->slowed_count;
}

uint32_t relay_site_pace(const struct relay_site *site)
{
    return site->pace;
}
