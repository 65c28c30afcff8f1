/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drive_relay - deliveries in memory, and what the pool decides about them, done.
 *
 * Life of a delivery here:   relay_add -> waiting in the pool -> on an outbound connection ->
 * decided -> finishing (its end is on the way to Redis) -> freed
 * A delivery starts only while this worker's lease in its shard is live; otherwise it waits for the
 * heartbeat. One that no host could serve is decided without asking any. One with more recipients
 * than its peer takes at once (LIMITS) is divided in the queue first, so that a crash between two
 * parts repeats none of them.
 *
 * Memory is shared by destinations too: one that is stuck, or slower than what comes for it, keeps
 * the rest of its mail in Redis, where other destinations' mail does not wait behind it.
 *
 * A connection is the matter of relay_outbound.c, content of relay_body.c; what an outcome becomes
 * is settled in settle.c.
 */
#include "core/base/must.h"
#include "io/drive_queue.h"
#include "io/drive_relay_private.h"
#include "io/resolver.h"
#include "io/sts_store.h"
#include "io/tls.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_FAMILY    "the source has no address of the family that the hosts have"
#define NONE_ALLOWED "the MTA-STS policy of the domain allows none of its MX hosts"

/* A destination at the resolver. A smarthost's fallbacks are looked up one after the other, and
 * their addresses follow those of the host. */
struct lookup {
    struct list node; /* on the driver's lookups */
    struct relay_driver *r;
    struct relay_dest *dest;  /* the pool keeps it while it is being resolved */
    size_t fallback_next;     /* of the route */
    struct relay_host *hosts; /* owned; found so far */
    size_t host_count;
    uint32_t ttl_ms;             /* the least of theirs */
    struct rcpt_outcome failure; /* of the first that was not found; its text in failure_text */
    char failure_text[256];
};

static void lookup_free(struct lookup *l)
{
    free(l->hosts);
    free(l);
}

static void on_poll(void *ctx, const struct ring_done *done);
static void on_settled(void *ctx, const struct delivery *d);

/* A destination of which less waits is never looked at closely. So at most CLAIM_CROWDED_MAX are at
 * once. */
static uint32_t crowd_least(const struct relay_driver *r)
{
    return r->held_max / CLAIM_CROWDED_MAX + 1;
}

/* --- the driver ------------------------------------------------------------------------------ */

static void arm_resolver(struct relay_driver *r)
{
    ring_poll_in(r->w->ring, resolver_fd(r->resolver), (struct ring_tag){ RING_POLL, 0, 0 });
}

struct relay_driver *relay_new(struct worker *w)
{
    struct relay_driver *r = mem_zalloc(sizeof *r);
    r->w = w;
    list_init(&r->outbounds);
    list_init(&r->lookups);
    r->shards = mem_zalloc(w->shards * sizeof *r->shards);
    settle_init(&r->settle, w, on_settled, r);
    r->held_max = (uint32_t)worker_share(w, w->cfg->queue.deliveries_max);
    r->pool = relay_pool_new(w->cfg);
    relay_pool_watch_crowds(r->pool, crowd_least(r));
    r->tls = tls_client_new();
    if (resolver_new(w->cfg, &w->entropy, &w->metrics, &r->resolver, &w->error) != STATUS_OK) {
        relay_pool_free(r->pool);
        tls_client_free(r->tls);
        free(r->shards);
        free(r);
        return NULL;
    }
    r->sites = relay_sites_new(r);
    r->sources = relay_sources_new(r);
    r->reports = tls_reports_new(w, r->resolver);
    r->sts = sts_store_new(w, r->resolver, r->tls, r->reports);
    r->webhook = webhook_new(w, r->resolver, r->tls);
    ring_on(w->ring, RING_POLL, on_poll, r);
    arm_resolver(r);
    return r;
}

static void forget(struct relay_driver *r, const struct delivery *d)
{
    r->held--;
    r->held_of[message_lane(d->message)]--;
    r->shards[d->shard].held--;
}

static void drop(struct relay_driver *r, struct delivery *d)
{
    forget(r, d);
    delivery_free(d);
}

/* A delivery of that shard that is not on a connection; NULL: none is left. */
static struct delivery *take_waiting(struct relay_driver *r, uint16_t shard)
{
    struct delivery *d = relay_sources_take_shard(r->sources, shard);
    return d ? d : relay_pool_take_shard(r->pool, shard);
}

void relay_free(struct relay_driver *r)
{
    must(list_is_empty(&r->outbounds));
    struct delivery *d;
    for (uint16_t shard = 0; shard < r->w->shards; shard++)
        while ((d = take_waiting(r, shard)))
            drop(r, d);
    settle_done(&r->settle);
    free(r->shards);
    relay_pool_free(r->pool);
    resolver_free(r->resolver);
    sts_store_free(r->sts);
    tls_reports_free(r->reports);
    webhook_free(r->webhook);
    relay_sites_free(r->sites);
    relay_sources_free(r->sources);
    tls_client_free(r->tls);
    struct list *node;
    while ((node = list_pop_front(&r->lookups)))
        lookup_free(list_entry(node, struct lookup, node));
    free(r);
}

uint32_t relay_held(const struct relay_driver *r)
{
    return r->held;
}

uint32_t relay_talking(const struct relay_driver *r)
{
    return r->in_flight;
}

/* Of the deliveries that may be held each lane has a part of its own, which the others leave free
 * for it: a worker full of a newsletter takes a password reset at once. */
static uint32_t kept_for(const struct relay_driver *r, enum mail_lane lane)
{
    static const uint32_t parts[LANE_COUNT] = {
        [LANE_URGENT] = 8, [LANE_NORMAL] = 8, [LANE_BULK] = 16
    };
    uint32_t kept = r->held_max / parts[lane];
    return kept > r->held_of[lane] ? kept - r->held_of[lane] : 0;
}

/* Deliveries may use half of the content memory, the better lanes a little more and bulk mail less;
 * the rest is for what arrives. */
static bool has_content_room(const struct relay_driver *r, enum mail_lane lane)
{
    static const uint64_t eighths[LANE_COUNT] = {
        [LANE_URGENT] = 5, [LANE_NORMAL] = 4, [LANE_BULK] = 3
    };
    return r->w->budget.used <= r->w->budget.max / 8 * eighths[lane];
}

static uint32_t room_beside(const struct relay_driver *r, uint32_t kept)
{
    return r->held + kept < r->held_max ? r->held_max - r->held - kept : 0;
}

uint32_t relay_room(const struct relay_driver *r, enum mail_lane lane)
{
    uint32_t kept = 0;
    for (int other = 0; other < LANE_COUNT; other++)
        kept += other == (int)lane ? 0 : kept_for(r, (enum mail_lane)other);
    return has_content_room(r, lane) ? room_beside(r, kept) : 0;
}

/* What one destination may have of the memory: as much as is left free, so that one that is stuck
 * takes half, two take a third each, and a busy one that is alone lacks nothing. */
static uint32_t crowd_max(const struct relay_driver *r)
{
    uint32_t left = room_beside(r, 0), least = crowd_least(r);
    return left > least ? left : least;
}

/* Urgent mail has a part of the memory kept for it. */
bool relay_is_crowded(const struct relay_driver *r, const char *dest, enum mail_lane lane)
{
    return lane != LANE_URGENT && relay_pool_crowd(r->pool, dest) >= crowd_max(r);
}

struct claim_room relay_rooms(const struct relay_driver *r)
{
    struct claim_room room = { .plain = room_beside(r, kept_for(r, LANE_URGENT)),
                               .all = room_beside(r, 0) };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        room.lanes[lane] = relay_room(r, (enum mail_lane)lane);
    room.crowded_count =
        relay_pool_crowded(r->pool, crowd_max(r), room.crowded, ARRAY_LEN(room.crowded));
    return room;
}

/* Handed back: what others have by now is not ours to give, and what a commit leased to us
 * meanwhile is not left behind. */
void relay_lease_lost(struct relay_driver *r, uint16_t shard)
{
    struct delivery *d;
    r->shards[shard].is_barred = true;
    r->shards[shard].barred_until_ms = r->w->now.mono_ms + r->w->cfg->queue.lease_ms;
    while ((d = take_waiting(r, shard)))
        settle_release(&r->settle, d);
}

bool relay_may_claim(const struct relay_driver *r, uint16_t shard)
{
    struct relay_shard *s = &r->shards[shard];
    if (s->held == 0 && r->w->now.mono_ms >= s->barred_until_ms)
        s->is_barred = false;
    return !s->is_barred;
}

/* --- deliveries in --------------------------------------------------------------------------- */

/* True when the configuration still sends all of a claimed delivery's recipients to its
 * destination. */
static bool is_routed_as_before(struct relay_driver *r, const struct delivery *d)
{
    if (d->dest[0] == '!')
        return false;
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        struct slice domain = d->message->rcpts[d->rcpts[i]].domain;
        struct route_query query = route_query_of(d->message, domain);
        if (!route_key_is_current(r->w->cfg, &query, d->dest))
            return false;
    }
    return true;
}

static void take(struct relay_driver *r, const struct delivery *d)
{
    r->held++;
    r->held_of[message_lane(d->message)]++;
    r->shards[d->shard].held++;
}

void relay_give_back(struct relay_driver *r, struct delivery *d)
{
    take(r, d);
    settle_pass(&r->settle, d);
}

void relay_add(struct relay_driver *r, struct delivery *d)
{
    take(r, d);
    if (!is_routed_as_before(r, d))
        settle_resplit(&r->settle, d);
    else if (delivery_is_hopeless(d, &r->w->now))
        settle_decided(&r->settle, d, "");
    else if (r->w->is_draining)
        settle_release(&r->settle, d);
    else if (!relay_sources_hold(r->sources, d))
        relay_pool_add(r->pool, d);
}

static void on_settled(void *ctx, const struct delivery *d)
{
    forget(ctx, d);
}

/* --- rest that a reply asks for -------------------------------------------------------------- */

/* Replies to what was under way meanwhile ask for the same rest: within a tenth of it they are no
 * news. */
bool relay_suspend(struct relay_driver *r, const char *dest, uint32_t ms,
                   const struct rcpt_outcome *why)
{
    bool is_news = relay_suspension_ms(r, dest) < ms - ms / 10;
    if (is_news)
        relay_pool_suspend(r->pool, dest, r->w->now.mono_ms + ms, why, &r->w->now);
    return is_news;
}

int64_t relay_suspension_ms(const struct relay_driver *r, const char *dest)
{
    return relay_pool_suspension_ms(r->pool, dest, &r->w->now);
}

uint64_t relay_rest_ms(const struct relay_driver *r, const char *dest)
{
    uint64_t suspension = (uint64_t)relay_suspension_ms(r, dest);
    uint64_t rest = relay_sources_rest_ms(r->sources, dest);
    return rest > suspension ? rest : suspension;
}

uint64_t relay_spent_sources(const struct relay_driver *r)
{
    return relay_sources_spent(r->sources);
}

/* --- what the pool asks ---------------------------------------------------------------------- */

static void keep_failure(struct lookup *l, const struct rcpt_outcome *failure)
{
    struct slice text = slice_head(failure->text, sizeof l->failure_text);
    if (l->failure.stage != OUTCOME_NONE)
        return;
    if (text.len > 0)
        memcpy(l->failure_text, text.ptr, text.len);
    l->failure = *failure;
    l->failure.text = slice_of(l->failure_text, text.len);
}

static void keep_hosts(struct lookup *l, const struct relay_host *hosts, size_t count,
                       uint32_t ttl_ms)
{
    l->hosts = mem_realloc(l->hosts, (l->host_count + count) * sizeof *hosts);
    memcpy(l->hosts + l->host_count, hosts, count * sizeof *hosts);
    l->host_count += count;
    if (ttl_ms < l->ttl_ms)
        l->ttl_ms = ttl_ms;
}

static void on_resolved(void *ctx, const struct relay_host *hosts, size_t host_count,
                        uint32_t ttl_ms, const struct rcpt_outcome *failure);

/* A source without an address of their family cannot reach them. */
static void keep_reachable(struct lookup *l)
{
    static const struct rcpt_outcome unreachable = {
        .stage = OUTCOME_CONNECT,
        .code = 451,
        .enhanced = "4.4.4",
        .text = { NO_FAMILY, sizeof NO_FAMILY - 1 },
    };
    const struct config_source *source = l->dest->source;
    size_t kept = 0;
    if (!source || l->host_count == 0)
        return;
    for (size_t i = 0; i < l->host_count; i++) {
        bool is_v6 = l->hosts[i].addr.ss_family == AF_INET6;
        if ((is_v6 ? source->v6 : source->v4).ss_family)
            l->hosts[kept++] = l->hosts[i];
    }
    l->host_count = kept;
    if (kept == 0)
        keep_failure(l, &unreachable);
}

static void have_hosts(struct lookup *l)
{
    keep_reachable(l);
    list_remove(&l->node);
    relay_pool_resolved(l->r->pool, l->dest, l->hosts, l->host_count, l->ttl_ms, &l->failure,
                        &l->r->w->now);
    lookup_free(l);
}

static bool wants_policy(const struct lookup *l)
{
    const struct config_route *route = l->dest->route;
    return l->r->w->cfg->relay.mta_sts && route->relay == RELAY_MX && route->tls != ROUTE_TLS_OFF &&
           !route_key_waives_tls(l->dest->key);
}

/* Keeps the hosts that a policy allows; one that is tested only keeps all (RFC 8461 5). A host
 * with TLSA records that can be used is held to those, whatever the policy says (P-201). */
static void obey(struct lookup *l, const struct sts_policy *policy)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->host_count; i++) {
        bool is_allowed = sts_allows(policy, l->hosts[i].name);
        if (!is_allowed && policy->mode == STS_ENFORCE && l->hosts[i].tlsa.count == 0)
            continue;
        l->hosts[kept] = l->hosts[i];
        l->hosts[kept++].sts = is_allowed ? policy->mode : STS_NONE;
    }
    l->host_count = kept;
}

/* P-203: the hosts that are left, or none. */
static void on_policy(void *ctx, const struct sts_policy *policy)
{
    static const struct rcpt_outcome none_allowed = {
        .stage = OUTCOME_DNS,
        .code = 451,
        .enhanced = "4.7.5",
        .text = { NONE_ALLOWED, sizeof NONE_ALLOWED - 1 },
    };
    struct lookup *l = ctx;
    if (policy && policy->mode != STS_NONE) {
        tls_reports_note_policy(l->r->reports, route_key_domain(l->dest->key), policy);
        obey(l, policy);
    }
    if (l->host_count == 0) {
        keep_failure(l, &none_allowed);
        relay_report_no_host(l->r, l->dest, TLS_POLICY_STS, TLS_OUTCOME_OTHER);
    }
    have_hosts(l);
}

static void look_up_fallback(struct lookup *l)
{
    const struct config_route *route = l->dest->route;
    struct slice host;
    char name[256];
    uint16_t port = route->port;
    must(config_host_of(slice_str(route->fallbacks[l->fallback_next++]), &host, &port));
    snprintf(name, sizeof name, "%.*s", SLICE_ARG(host));
    resolver_lookup_host(l->r->resolver, name, port, &l->r->w->now, on_resolved, l);
}

static void on_resolved(void *ctx, const struct relay_host *hosts, size_t host_count,
                        uint32_t ttl_ms, const struct rcpt_outcome *failure)
{
    struct lookup *l = ctx;
    if (host_count > 0)
        keep_hosts(l, hosts, host_count, ttl_ms);
    else
        keep_failure(l, failure);
    if (host_count == 0 && strcmp(failure->enhanced, "4.7.5") == 0)
        relay_report_no_host(l->r, l->dest, TLS_POLICY_TLSA, TLS_OUTCOME_DNSSEC);
    if (l->fallback_next < l->dest->route->fallback_count) {
        look_up_fallback(l);
        return;
    }
    if (l->host_count > 0 && wants_policy(l))
        sts_store_lookup(l->r->sts, route_key_domain(l->dest->key), on_policy, l);
    else
        have_hosts(l);
}

static void resolve(struct relay_driver *r, struct relay_dest *dest)
{
    struct lookup *l = mem_zalloc(sizeof *l);
    l->r = r;
    l->dest = dest;
    l->ttl_ms = UINT32_MAX;
    list_push_back(&r->lookups, &l->node);
    if (dest->route->relay == RELAY_SMARTHOST)
        resolver_lookup_host(r->resolver, dest->route->host, dest->route->port, &r->w->now,
                             on_resolved, l);
    else if (route_key_waives_tls(dest->key))
        resolver_lookup_mx_without_dane(r->resolver, slice_str(route_key_domain(dest->key)),
                                        &r->w->now, on_resolved, l);
    else
        resolver_lookup_mx(r->resolver, slice_str(route_key_domain(dest->key)), &r->w->now,
                           on_resolved, l);
}

/* Nothing begins without a live lease. False: come back after the next heartbeat. */
static bool may_begin(struct relay_driver *r, const struct relay_action *a)
{
    return queue_lease_is_live(r->w->queue, a->delivery->shard);
}

/* Not tried: because the destination failed, or because this worker is going. */
static void defer(struct relay_driver *r, struct delivery *d)
{
    if (r->w->is_draining)
        settle_release(&r->settle, d);
    else
        settle_decided(&r->settle, d, d->said_by ? d->said_by : "");
}

/* True when the peer's LIMITS are kept by dividing the delivery: it is taken (P-173). Mail with a
 * return path of its own goes to each recipient alone (P-191). */
static bool is_divided(struct relay_driver *r, struct delivery *d, const struct outbound *o)
{
    struct client_limits own = o->client.limits, *limits = &own;
    struct delivery_part *parts;
    if (relay_return_domain(o, d->message))
        own.rcpt_max = 1;
    if (!delivery_may_exceed(d, limits))
        return false;
    size_t count = delivery_split(d, limits, &d->arena, &parts);
    if (count > 1)
        settle_split(&r->settle, d, parts, count);
    return count > 1;
}

/* Carries out RELAY_SEND; false: nothing begins now. */
static bool send_on(struct relay_driver *r, const struct relay_action *a)
{
    struct outbound *o = a->slot->conn;
    if (!may_begin(r, a)) {
        relay_pool_sent(r->pool, a->slot, &r->w->now);
        relay_pool_requeue(r->pool, a->delivery);
        r->is_waiting_for_lease = true;
        return false;
    }
    if (delivery_is_hopeless(a->delivery, &r->w->now)) { /* it has waited for too long */
        relay_pool_sent(r->pool, a->slot, &r->w->now);
        settle_decided(&r->settle, a->delivery, "");
    } else if (is_divided(r, a->delivery, o)) {
        relay_pool_sent(r->pool, a->slot, &r->w->now);
    } else {
        outbound_send(o, a->delivery);
    }
    return true;
}

/* Carries out one decision of the pool; false: nothing more now. */
static bool act(struct relay_driver *r)
{
    struct relay_action a = relay_pool_next(r->pool, &r->w->now);
    switch (a.kind) {
    case RELAY_RESOLVE: resolve(r, a.dest); return true;
    case RELAY_CONNECT: outbound_connect(r, a.slot, a.host); return true;
    case RELAY_SEND: return send_on(r, &a);
    case RELAY_QUIT: outbound_quit(a.slot->conn); return true;
    case RELAY_DEFER: defer(r, a.delivery); return true;
    case RELAY_NOTHING: break;
    }
    return false;
}

void relay_pump(struct relay_driver *r)
{
    r->is_waiting_for_lease = false;
    while (act(r))
        ;
    relay_sites_pump(r->sites);
    relay_sources_pump(r->sources);
}

int64_t relay_wake_ms(const struct relay_driver *r)
{
    int64_t sites = relay_sites_wake_ms(r->sites), sources = relay_sources_wake_ms(r->sources);
    int64_t pool = r->is_waiting_for_lease ? INT64_MAX : relay_pool_wake_ms(r->pool);
    int64_t others = sites < sources ? sites : sources;
    return others < pool ? others : pool;
}

static void on_poll(void *ctx, const struct ring_done *done)
{
    struct relay_driver *r = ctx;
    resolver_process(r->resolver, &r->w->now);
    arm_resolver(r);
}

/* --- the end --------------------------------------------------------------------------------- */

void relay_drain(struct relay_driver *r)
{
    struct delivery *d;
    for (uint16_t shard = 0; shard < r->w->shards; shard++)
        while ((d = relay_sources_take_shard(r->sources, shard)))
            settle_release(&r->settle, d);
    relay_pool_drain(r->pool);
}

bool relay_bye(struct relay_driver *r)
{
    return relay_sites_bye(r->sites);
}

void relay_abandon(struct relay_driver *r)
{
    sts_store_abandon(r->sts);
    tls_reports_abandon(r->reports);
    webhook_abandon(r->webhook);
    list_for_each_safe (node, &r->outbounds) {
        struct outbound *o = list_entry(node, struct outbound, node);
        o->is_abandoned = true;
        outbound_close(o, false);
        conn_close(o->conn);
    }
}
