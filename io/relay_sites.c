/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_sites - the limits that all nodes keep together, agreed on through Redis.
 *
 * While there are sites with limits a call goes every POLL_MS, or as soon as there is something to
 * ask; it renews the lease, asks, and brings news: that something is free, that others wait. The
 * answer is good for two thirds of the lease, counted from when the question was sent. A worker
 * that has no newer one by then, because Redis is out of reach, closes the connections that count
 * for a site, and opens none; a third of the lease later the others may have them.
 *
 * Limits: SITES_MAX sites in one call; the rest goes with the next.
 */
#include "io/relay_sites.h"
#include "core/base/must.h"
#include "io/drive_queue.h"
#include "io/drive_relay_private.h"
#include "io/rules_store.h"
#include "queue/schema.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define POLL_MS   200
#define AGAIN_MS  1000 /* between questions for what was not to be had */
#define SITES_MAX 64
#define LEASES    3 /* of queue.lease: one that is longer, for it closes connections */
#define ARGS_MAX  (6 + 2 * SITES_MAX)
#define ASK_MAX   (14 * 11) /* octets of a question */

struct relay_sites {
    struct relay_driver *r; /* borrowed; NULL: freed, as soon as the reply has come */
    struct redis_request request;
    bool is_out;      /* True exactly from sending to the reply */
    bool was_refused; /* Redis answered with an error */
    bool has_agreed;  /* what the pool was told is good until good_until_ms */
    int64_t sent_ms, good_until_ms, poll_at_ms, again_at_ms; /* monotonic */
    struct relay_site *asked[SITES_MAX];
    size_t count;
};

struct relay_sites *relay_sites_new(struct relay_driver *r)
{
    struct relay_sites *s = mem_zalloc(sizeof *s);
    s->r = r;
    return s;
}

void relay_sites_free(struct relay_sites *s)
{
    s->r = NULL;
    if (!s->is_out)
        free(s);
}

static int64_t now_of(const struct relay_sites *s)
{
    return s->r->w->now.mono_ms;
}

static int64_t lease_ms(const struct relay_sites *s)
{
    return (int64_t)s->r->w->cfg->queue.lease_ms * LEASES;
}

/* --- connections that may not be ------------------------------------------------------------- */

static void close_excess(struct relay_sites *s)
{
    list_for_each_safe (node, &s->r->outbounds) {
        struct outbound *o = list_entry(node, struct outbound, node);
        if (!o->is_closing && relay_slot_is_excess(o->slot))
            outbound_give_up(o, "closed here: the limit of the site is no longer ours");
    }
}

static void log_void(struct relay_sites *s)
{
    struct log *log = &s->r->w->log;
    log_begin(log, LOG_WARN, "relay.sites_void");
    log_num(log, "worker", s->r->w->id);
    log_num(log, "sites", relay_pool_sites(s->r->pool));
    log_end(log);
}

static void end_agreement(struct relay_sites *s)
{
    s->has_agreed = false;
    metrics_add(&s->r->w->metrics, METRIC_SITES_VOID_TOTAL, 1);
    log_void(s);
    relay_pool_sites_void(s->r->pool);
    close_excess(s);
}

/* --- pace ------------------------------------------------------------------------------------ */

static bool is_peers(enum outcome_stage stage)
{
    return stage >= OUTCOME_GREETING && stage <= OUTCOME_DOT;
}

/* 421 is of the host, not of the message (RFC 5321 3.8), but one that takes so many messages on a
 * connection says it too, to the next. Other limits the rules know; those at RCPT are of a mailbox,
 * unless the rule has the whole destination rest. */
static bool asks_for_less(const struct outbound *o, const struct rcpt_outcome *outcome)
{
    struct settle *s = &o->r->settle;
    if (!is_peers(outcome->stage) || outcome->code < 400)
        return false;
    rules_store_refresh(s->w->rules, &s->rules, &s->rules_serial);
    struct reply_verdict v = classify(s->rules, outcome, slice_str(o->slot->host_name));
    if (v.suspend_ms > 0)
        return true;
    if (outcome->code == 421)
        return outcome->stage != OUTCOME_MAIL || !o->has_served;
    return outcome->stage != OUTCOME_RCPT && v.category == CATEGORY_RATE_LIMITED;
}

void relay_sites_heard(const struct outbound *o, const struct rcpt_outcome *outcomes, size_t count)
{
    bool is_well = false, is_less = false;
    for (size_t i = 0; i < count && !is_less; i++) {
        is_well |= outcomes[i].stage == OUTCOME_DOT && outcomes[i].code < 300;
        is_less = asks_for_less(o, &outcomes[i]);
    }
    if (is_less)
        relay_pool_slow_down(o->r->pool, o->slot);
    else if (is_well)
        relay_pool_went_well(o->r->pool, o->slot);
}

static void note_pace(struct relay_sites *s, const struct relay_site *site, uint32_t pace)
{
    struct log *log = &s->r->w->log;
    uint32_t before = relay_site_pace(site);
    bool is_cut = pace < before;
    if (pace == before)
        return;
    metrics_add(&s->r->w->metrics, METRIC_SITES_CUT_TOTAL, is_cut);
    log_begin(log, is_cut ? LOG_WARN : pace < 1000 ? LOG_DEBUG : LOG_INFO, "relay.pace");
    log_cstr(log, "site", relay_site_name(site));
    log_cstr(log, "host", relay_site_host(site));
    log_num(log, "percent", pace / 10);
    log_end(log);
}

/* --- answers --------------------------------------------------------------------------------- */

static bool read_answer(struct relay_sites *s, size_t i, const redisReply *answer)
{
    struct relay_site_answer a;
    unsigned is_queued;
    if (answer->type != REDIS_REPLY_STRING ||
        sscanf(answer->str, "%u %u %u %u %u %u", &a.connections, &a.plain, &is_queued, &a.tokens,
               &a.wait_ms, &a.pace) != 6)
        return false;
    if (a.pace < 1 || a.pace > 1000)
        return false;
    a.is_queued = is_queued != 0;
    note_pace(s, s->asked[i], a.pace);
    relay_pool_site_answered(s->r->pool, s->asked[i], &a, &s->r->w->now);
    return true;
}

static void take_answer(struct relay_sites *s, const redisReply *reply)
{
    s->has_agreed = true;
    s->good_until_ms = s->sent_ms + lease_ms(s) * 2 / 3;
    for (size_t i = 0; i < s->count; i++)
        if (!read_answer(s, i, reply->element[1 + i]))
            relay_pool_site_unanswered(s->r->pool, s->asked[i]);
    for (size_t i = 1 + s->count; i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_STRING)
            relay_pool_site_news(s->r->pool,
                                 slice_of(reply->element[i]->str, reply->element[i]->len));
    close_excess(s);
    relay_pool_sites_tick(s->r->pool, false, &s->r->w->now);
}

/* Once, until it answers again: it is asked five times a second. */
static void log_refused(struct relay_sites *s, const redisReply *reply)
{
    struct log *log = &s->r->w->log;
    bool is_first = !s->was_refused;
    s->was_refused = reply->type == REDIS_REPLY_ERROR;
    if (!s->was_refused || !is_first)
        return;
    log_begin(log, LOG_ERROR, "relay.sites_refused");
    log_num(log, "worker", s->r->w->id);
    log_str(log, "error", slice_of(reply->str, reply->len));
    log_end(log);
}

static void on_reply(struct redis_request *req, const redisReply *reply)
{
    struct relay_sites *s = container_of(req, struct relay_sites, request);
    s->is_out = false;
    if (!s->r) {
        free(s);
        return;
    }
    if (reply)
        log_refused(s, reply);
    if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > s->count) {
        take_answer(s, reply);
    } else {
        for (size_t i = 0; i < s->count; i++)
            relay_pool_site_unanswered(s->r->pool, s->asked[i]);
        s->poll_at_ms = now_of(s) + POLL_MS;
    }
    s->count = 0;
}

/* --- questions ------------------------------------------------------------------------------- */

static struct slice write_ask(char text[ASK_MAX], const struct relay_site_ask *a)
{
    int len =
        snprintf(text, ASK_MAX, "%u %u %u %u %u %u %u %u %u %u %u %u %d %u", a->most, a->plain_most,
                 a->kept, a->plain_kept, a->urgent, a->plain, a->turned, a->urgent_welcome,
                 a->plain_welcome, a->tokens, a->interval_us, a->burst, a->asks_for_less, a->good);
    return slice_of(text, (size_t)len);
}

static void ask(struct relay_sites *s)
{
    struct worker *w = s->r->w;
    char lease[24], texts[SITES_MAX][ASK_MAX];
    struct relay_site_ask a;
    struct slice argv[ARGS_MAX] = { SLICE("FCALL"), SLICE("kilat_sites"), SLICE("1"),
                                    SLICE(QUEUE_CFG_KEY), slice_str(queue_token(w->queue)) };
    size_t argc = 5;
    argv[argc++] = slice_of(lease, (size_t)snprintf(lease, sizeof lease, "%" PRId64, lease_ms(s)));
    s->count = 0;
    while (s->count < SITES_MAX && (s->asked[s->count] = relay_pool_site_next(s->r->pool, &a))) {
        argv[argc++] = slice_str(relay_site_name(s->asked[s->count]));
        argv[argc++] = write_ask(texts[s->count++], &a);
    }
    bool is_due = now_of(s) >= s->poll_at_ms;
    if (s->count > 0 || is_due)
        s->poll_at_ms = now_of(s) + POLL_MS;
    if (s->count == 0 && (!is_due || relay_pool_sites(s->r->pool) == 0))
        return;
    s->sent_ms = now_of(s);
    s->is_out = queue_ask(w->queue, &s->request, on_reply, argv, argc);
    if (s->is_out)
        metrics_add(&w->metrics, METRIC_SITES_ASKED_TOTAL, 1);
    else
        on_reply(&s->request, NULL);
}

/* --- turns ----------------------------------------------------------------------------------- */

static void tick(struct relay_sites *s)
{
    bool again = now_of(s) >= s->again_at_ms;
    if (again)
        s->again_at_ms = now_of(s) + AGAIN_MS;
    relay_pool_sites_tick(s->r->pool, again, &s->r->w->now);
}

/* No site has limits, and there is nothing to ask. */
static bool is_idle(const struct relay_sites *s)
{
    return relay_pool_sites(s->r->pool) == 0 && relay_pool_slowed(s->r->pool) == 0 &&
           !relay_pool_asks(s->r->pool);
}

void relay_sites_pump(struct relay_sites *s)
{
    metrics_set(&s->r->w->metrics, METRIC_SITES_LIMITED, relay_pool_sites(s->r->pool));
    metrics_set(&s->r->w->metrics, METRIC_SITES_SLOWED, relay_pool_slowed(s->r->pool));
    if (is_idle(s))
        return;
    if (s->has_agreed && now_of(s) >= s->good_until_ms)
        end_agreement(s);
    if (s->is_out)
        return;
    if (now_of(s) >= s->poll_at_ms)
        tick(s);
    ask(s);
}

int64_t relay_sites_wake_ms(const struct relay_sites *s)
{
    if (relay_pool_sites(s->r->pool) == 0)
        return INT64_MAX;
    if (!s->is_out)
        return s->poll_at_ms;
    return s->has_agreed ? s->good_until_ms : INT64_MAX;
}

bool relay_sites_bye(struct relay_sites *s)
{
    if (relay_pool_sites(s->r->pool) == 0 || !queue_is_up(s->r->w->queue))
        return true;
    list_for_each_safe (node, &s->r->outbounds) {
        struct outbound *o = list_entry(node, struct outbound, node);
        if (o->slot->site)
            outbound_close(o, o->was_ready);
    }
    return false;
}
