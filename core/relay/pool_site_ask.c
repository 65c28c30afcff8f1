/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_site_ask - what is asked about a site, and what an answer changes.
 *
 * A site with something to ask is on the pool's `asks`. From its question to the answer it begins
 * nothing new: what is allowed is what it uses. An answer that did not give all is not asked for
 * again by what matters as little; Redis tells when something is free, and every second it is asked
 * all the same. So a destination that could use more connections than there are costs a question a
 * second, however many messages it sends.
 */
#include "core/base/must.h"
#include "core/relay/pool_site.h"

/* --- questions ------------------------------------------------------------------------------- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void count_want(const struct relay_dest *dest, struct relay_site_ask *ask)
{
    int matters = pool_site_importance(dest);
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
    pool_site_ask_rate(site, ask);
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
            site->is_known = pool_site_is_limited(site);
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
            pool_site_free(p, site);
    }
    return NULL;
}

const char *relay_site_name(const struct relay_site *site)
{
    return site->name;
}

const char *relay_site_host(const struct relay_site *site)
{
    return site->name + site->host;
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
    site->is_known = pool_site_is_limited(site) && (site->refs > 0 || answer->connections > 0);
    site->is_cut &= !site->cut_asked;
    site->good -= site->good_asked;
    pool_site_set_pace(p, site, answer->pace, now);
    pool_site_take_tokens(p, site, answer, now);
    if (site->refs == 0 || site->slot_count < site->allowed)
        pool_site_touch(p, site);
    pool_site_wake(p, site);
}

void relay_pool_site_unanswered(struct relay_pool *p, struct relay_site *site)
{
    must(site->is_asked);
    site->is_asked = false;
    site->refused = 0;
    pool_site_touch(p, site);
}

bool relay_pool_asks(const struct relay_pool *p)
{
    return !list_is_empty(&p->asks);
}
