/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From outcomes to the queue's words.
 *
 * Recipients fall into three heaps: delivered, later, failed. What the sender is to be told of them
 * (report.h) is one bounce, queued in the same transaction that ends or reschedules the delivery,
 * so a crash can neither lose the report nor send it without ending what it reports. The header of
 * a large message is in its first chunk, which is read back before its bounce is made.
 */
#include "io/settle.h"
#include "core/base/must.h"
#include "core/relay/bounce.h"
#include "core/relay/event.h"
#include "io/drive_queue.h"
#include "io/drive_relay.h"
#include "io/relay_return.h"
#include "io/rules_store.h"
#include "queue/policy.h"
#include <stdio.h>
#include <stdlib.h>

/* Characters after "<queue id>/" of a delivery made by a split: as many as fit, for they are drawn,
 * and one message may have tens of thousands. */
#define SPLIT_SUFFIX_LEN (DELIVERY_ID_MAX - QUEUE_ID_LEN - 2)

/* A delivery whose fate is being written down. */
struct verdicts {
    uint32_t *later; /* owned; indices into message->rcpts */
    uint32_t later_count;
    uint32_t crowded_count; /* of them: the host takes only so many at once */
    uint32_t delivered_count;
    uint32_t failed_count, first_failed; /* an index into d->rcpts */
    uint32_t expired_count;              /* of them */
    struct report_rcpt *reports;         /* owned */
    uint32_t report_count;
    uint32_t slow_factor; /* what rules want for those that are later; 1: nothing */
    uint32_t suspend_ms;  /* ... for the destination; 0: nothing */
    uint32_t suspend_why; /* an index into d->rcpts */
    uint32_t notices;     /* bits of enum delivery_told that are due */
};

static void verdicts_done(struct verdicts *v)
{
    free(v->later);
    free(v->reports);
}

/* A delivery whose bounce waits for the first chunk of the original. */
struct header_wait {
    struct list node;          /* on the settle's waits */
    struct queue_chunk *chunk; /* borrowed; on its way */
    struct settle *s;
    struct delivery *d;
    struct verdicts v;
    char host[256];
};

void settle_init(struct settle *s, struct worker *w, settled_fn *on_settled, void *ctx)
{
    s->w = w;
    s->on_settled = on_settled;
    s->ctx = ctx;
    list_init(&s->finishing);
    list_init(&s->waits);
    s->rules = NULL;
    s->rules_serial = 0;
}

void settle_done(struct settle *s)
{
    struct list *node;
    while ((node = list_pop_front(&s->waits))) {
        struct header_wait *wait = list_entry(node, struct header_wait, node);
        queue_chunk_forget(wait->chunk);
        verdicts_done(&wait->v);
        free(wait);
    }
    while ((node = list_pop_front(&s->finishing)))
        delivery_free(list_entry(node, struct delivery, node));
    reply_rules_unref(s->rules);
}

/* --- telling the queue ----------------------------------------------------------------------- */

static void on_finished(struct commit_finish *f, bool was_lost)
{
    struct delivery *d = f->owner;
    struct settle *s = d->owner;
    if (was_lost) {
        metrics_add(&s->w->metrics, METRIC_LEASE_LOST_TOTAL, 1);
        log_begin(&s->w->log, LOG_WARN, "relay.lease_lost");
        log_cstr(&s->w->log, "id", d->id);
        log_end(&s->w->log);
    }
    list_remove(&d->node);
    s->on_settled(s->ctx, d);
    delivery_free(d);
    commit_finish_free(f);
}

static struct commit_finish *finish_for(struct settle *s, struct delivery *d,
                                        enum commit_finish_kind kind)
{
    struct commit_finish *f = commit_finish_new(kind, d->shard, d->id);
    f->owner = d;
    f->done = on_finished;
    d->owner = s;
    list_push_back(&s->finishing, &d->node);
    return f;
}

static void encode_item(const struct delivery *d, uint32_t attempts, struct slice dest,
                        const uint32_t *rcpts, uint32_t rcpt_count, struct buf *out)
{
    const struct message *m = d->message;
    struct queue_item item = {
        .lane = m->lane,
        .dest = dest,
        .attempts = attempts,
        .accepted_ms = m->accepted_ms,
        .expires_ms = d->expires_ms,
        .tenant = m->tenant,
        .chunks = m->chunk_count,
        .size = m->size,
        .rcpts = rcpts,
        .rcpt_count = rcpt_count,
        .told = d->told,
    };
    must(queue_item_encode(&item, out) == STATUS_OK);
}

/* --- fates ----------------------------------------------------------------------------------- */

static const char *const fate_names[] = {
    [RETRY_DELIVERED] = "delivered",
    [RETRY_LATER] = "deferred",
    [RETRY_FAILED] = "bounced",
    [RETRY_EXPIRED] = "expired",
};

static const enum metric fate_metrics[] = {
    [RETRY_DELIVERED] = METRIC_DELIVERED_TOTAL,
    [RETRY_LATER] = METRIC_DEFERRED_TOTAL,
    [RETRY_FAILED] = METRIC_BOUNCED_TOTAL,
    [RETRY_EXPIRED] = METRIC_EXPIRED_TOTAL,
};

static const enum metric category_metrics[] = {
#define X(id, name, meaning) [CATEGORY_##id] = METRIC_FAILURES_##id,
    CATEGORIES_TABLE(X)
#undef X
};

static void log_outcome(struct settle *s, const struct delivery *d, uint32_t i,
                        enum retry_fate fate, const struct reply_verdict *reply, const char *host)
{
    const struct rcpt_outcome *o = &d->outcomes[i];
    struct log *log = &s->w->log;
    log_begin(log, fate == RETRY_DELIVERED ? LOG_INFO : LOG_WARN, "relay.done");
    log_cstr(log, "id", d->id);
    log_cstr(log, "dest", d->dest);
    log_cstr(log, "host", host);
    log_str(log, "rcpt", d->message->rcpts[d->rcpts[i]].address);
    log_cstr(log, "fate", fate_names[fate]);
    log_num(log, "code", o->code);
    log_cstr(log, "stage", outcome_stage_name(o->stage));
    if (reply->category != CATEGORY_NONE)
        log_cstr(log, "category", category_name(reply->category));
    log_num(log, "attempt", d->attempts + 1);
    log_num(log, "ms", d->started_ms ? s->w->now.mono_ms - d->started_ms : 0);
    log_str(log, "text", o->text);
    log_end(log);
}

static void count_outcome(struct settle *s, enum retry_fate fate, const struct reply_verdict *reply)
{
    metrics_add(&s->w->metrics, fate_metrics[fate], 1);
    if (reply->category != CATEGORY_NONE)
        metrics_add(&s->w->metrics, category_metrics[reply->category], 1);
}

/* As core/smtp/client_rows.c calls it. */
static bool is_crowded(const struct rcpt_outcome *o)
{
    return o->stage == OUTCOME_RCPT && o->code == 452 && strcmp(o->enhanced, "4.5.3") == 0;
}

static void sort_in(struct settle *s, const struct delivery *d, uint32_t i, enum retry_fate fate,
                    const struct reply_verdict *reply, struct verdicts *v)
{
    enum report_action action = report_action(s->w->cfg, d, i, fate, v->notices);
    if (action != REPORT_NONE)
        v->reports[v->report_count++] = (struct report_rcpt){
            .i = i,
            .action = action,
            .category = reply->category,
            .is_given_up = fate == RETRY_FAILED && d->outcomes[i].code / 100 != 5,
        };
    v->delivered_count += fate == RETRY_DELIVERED;
    v->crowded_count += fate == RETRY_LATER && is_crowded(&d->outcomes[i]);
    v->expired_count += fate == RETRY_EXPIRED;
    if (fate == RETRY_LATER)
        v->later[v->later_count++] = d->rcpts[i];
    else if (fate != RETRY_DELIVERED && v->failed_count++ == 0)
        v->first_failed = i;
}

static void on_told(struct commit_finish *f, bool was_lost)
{
    commit_finish_free(f);
}

static void log_hard_bounce(struct settle *s, const struct delivery *d, struct slice rcpt,
                            uint32_t limit, const struct reply_verdict *reply)
{
    log_begin(&s->w->log, LOG_INFO, "relay.hard_bounce");
    log_cstr(&s->w->log, "id", d->id);
    log_str(&s->w->log, "tenant", d->message->tenant);
    log_str(&s->w->log, "rcpt", rcpt);
    log_cstr(&s->w->log, "category", category_name(reply->category));
    log_num(&s->w->log, "after", limit);
    log_end(&s->w->log);
}

/* Said before the finish that ends the delivery, and durable before it. */
static void tell_event(struct settle *s, const struct delivery *d, uint32_t i, enum retry_fate fate,
                       const struct reply_verdict *reply, const char *host)
{
    if (s->w->cfg->events.size_max == 0)
        return;
    struct event_outcome event = { .event = fate_names[fate],
                                   .message = d->message,
                                   .rcpt = &d->message->rcpts[d->rcpts[i]],
                                   .dest = d->dest,
                                   .host = host,
                                   .outcome = &d->outcomes[i],
                                   .category = reply->category,
                                   .attempt = d->attempts + 1,
                                   .wall_ms = s->w->now.wall_ms };
    struct commit_finish *f = commit_finish_new(FINISH_EVENT, d->shard, d->id);
    f->done = on_told;
    if (event_outcome(&event, &f->item) != STATUS_OK) {
        commit_finish_free(f);
        return;
    }
    metrics_add(&s->w->metrics, METRIC_EVENTS_TOTAL, 1);
    queue_finish(s->w->queue, f);
}

/* How many hard bounces put an address on the list of the message's tenant; 0: none do. */
static uint32_t bounces_to_suppress(const struct settle *s, const struct message *m)
{
    const struct config_tenant *tenant = config_find_tenant(s->w->cfg, m->tenant);
    bool is_bounce = m->flags & MESSAGE_BOUNCE;
    return tenant && tenant->suppression && !is_bounce ? tenant->suppress_after_bounces : 0;
}

/*
 * P-238. The tenant's list is in a shard of its own, so this is a finish beside that of the
 * delivery, and said before it: both ride the same batch. Only where Redis is a cluster, or is
 * being reached again, may it come a batch later; a crash between the two leaves the address for
 * its next hard bounce. A reply to the content is about this recipient only when there is no other.
 */
static void tell_hard_bounce(struct settle *s, const struct delivery *d, uint32_t i,
                             const struct reply_verdict *reply)
{
    char reason[POLICY_REASON_MAX];
    const struct rcpt_outcome *o = &d->outcomes[i];
    const struct message *m = d->message;
    uint32_t limit = bounces_to_suppress(s, m);
    if (limit == 0 || (o->stage == OUTCOME_DOT && d->rcpt_count > 1))
        return;
    int len = snprintf(reason, sizeof reason, "hard bounce: %s, %d%s%s, %s",
                       category_name(reply->category), o->code, o->enhanced[0] ? " " : "",
                       o->enhanced, m->id);
    must(len > 0 && (size_t)len < sizeof reason);
    struct commit_finish *f =
        commit_finish_new(FINISH_SUPPRESS, queue_tenant_shard(m->tenant, s->w->shards), d->id);
    struct slice rcpt = m->rcpts[d->rcpts[i]].address;
    policy_hard_bounce(&f->item, m->tenant, limit, rcpt, slice_of(reason, (size_t)len));
    f->done = on_told;
    metrics_add(&s->w->metrics, METRIC_HARD_BOUNCES_TOTAL, 1);
    log_hard_bounce(s, d, rcpt, limit, reply);
    queue_finish(s->w->queue, f);
}

/* What the rules want besides: the slowest and the longest of all recipients' counts. */
static void note_actions(uint32_t i, enum retry_fate fate, const struct reply_verdict *reply,
                         struct verdicts *v)
{
    if (fate == RETRY_LATER && reply->slow_factor > v->slow_factor)
        v->slow_factor = reply->slow_factor;
    if (reply->suspend_ms > v->suspend_ms) {
        v->suspend_ms = reply->suspend_ms;
        v->suspend_why = i;
    }
}

static void judge_rcpt(struct settle *s, struct delivery *d, uint32_t i, const char *host,
                       struct verdicts *v)
{
    const struct rcpt_outcome *o = &d->outcomes[i];
    struct reply_verdict reply = classify(s->rules, o, slice_str(host));
    enum retry_fate fate = retry_fate(o, &reply, d->expires_ms, &s->w->now);
    log_outcome(s, d, i, fate, &reply, host);
    count_outcome(s, fate, &reply);
    sort_in(s, d, i, fate, &reply, v);
    note_actions(i, fate, &reply, v);
    tell_event(s, d, i, fate, &reply, host);
    if (fate == RETRY_DELIVERED)
        relay_return_keep(s->w, d, i);
    if (fate == RETRY_FAILED && classify_is_hard(o, &reply))
        tell_hard_bounce(s, d, i, &reply);
}

/* The last recipient of a delivery is decided. */
static void note_age(struct settle *s, const struct message *m)
{
    int64_t from = m->hold_until_ms > m->accepted_ms ? m->hold_until_ms : m->accepted_ms;
    queue_age_note(s->w->metrics.ages, message_lane(m), m->tenant, s->w->now.wall_ms - from);
}

static struct verdicts judge(struct settle *s, struct delivery *d, const char *host)
{
    struct verdicts v = { .later = mem_alloc(d->rcpt_count * sizeof *v.later),
                          .reports = mem_alloc(d->rcpt_count * sizeof *v.reports),
                          .notices = report_notices_due(s->w->cfg, d, &s->w->now),
                          .slow_factor = 1 };
    bool is_ambiguous = false;
    rules_store_refresh(s->w->rules, &s->rules, &s->rules_serial);
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        judge_rcpt(s, d, i, host, &v);
        is_ambiguous |= d->outcomes[i].stage == OUTCOME_UNKNOWN;
    }
    if (v.later_count > 0)
        d->told |= v.notices;
    else
        note_age(s, d->message);
    metrics_add(&s->w->metrics, METRIC_RELAY_ATTEMPTS_TOTAL, 1);
    metrics_add(&s->w->metrics, METRIC_AMBIGUOUS_TOTAL, is_ambiguous);
    return v;
}

/* A reply asked for less mail: the destination rests. */
static void suspend(struct settle *s, const struct delivery *d, const struct verdicts *v,
                    const char *host)
{
    const struct rcpt_outcome *o = &d->outcomes[v->suspend_why];
    if (v->suspend_ms == 0 || !relay_suspend(s->w->relay, d->dest, v->suspend_ms, o))
        return;
    metrics_add(&s->w->metrics, METRIC_SUSPENDED_TOTAL, 1);
    log_begin(&s->w->log, LOG_WARN, "relay.suspended");
    log_cstr(&s->w->log, "dest", d->dest);
    log_cstr(&s->w->log, "host", host);
    log_num(&s->w->log, "ms", v->suspend_ms);
    log_num(&s->w->log, "code", o->code);
    log_str(&s->w->log, "text", o->text);
    log_end(&s->w->log);
}

/* --- bounces --------------------------------------------------------------------------------- */

/* As much of the original as a bounce may return, in one piece. */
static struct slice original_of(const struct message *m, struct buf *copy)
{
    if (m->blob)
        return slice_head(m->body, BOUNCE_RETURNED_MAX + 1);
    for (struct chain_seg *seg = m->content.head; seg; seg = seg->next) {
        size_t room = BOUNCE_RETURNED_MAX + 1 - copy->len;
        if (buf_append(copy, slice_head(slice_of(seg->data, seg->len), room)) != STATUS_OK)
            break;
    }
    return buf_slice(copy);
}

static struct message *make_bounce(struct settle *s, struct delivery *d, const struct verdicts *v,
                                   const char *host, struct slice header)
{
    struct worker *w = s->w;
    struct buf copy;
    buf_init(&copy, BOUNCE_RETURNED_MAX + 1);
    struct bounce_context ctx = {
        .hostname = slice_str(w->cfg->hostname),
        .remote_mta = slice_str(host),
        .original = d->message->chunk_count > 0 ? header : original_of(d->message, &copy),
        .entropy = &w->entropy,
        .budget = &w->budget,
    };
    struct message *bounce = bounce_make(d, v->reports, v->report_count, &ctx, &w->now);
    buf_done(&copy);
    return bounce;
}

/* Mail without a sender is never bounced (P-227): it ends as a dead letter, for somebody to see. So
 * does all that fails where nobody is told by configuration. That a sender did not want to be told
 * (P-233) is an end like any other. */
static enum commit_finish_kind kind_for(const struct settle *s, const struct delivery *d,
                                        const struct verdicts *v)
{
    bool can_tell = s->w->cfg->retry.bounces && report_is_possible(d->message);
    if (v->later_count > 0)
        return FINISH_RETRY;
    if (v->failed_count == 0)
        return FINISH_DONE;
    if (!can_tell)
        return FINISH_DEAD;
    return v->expired_count == v->failed_count ? FINISH_EXPIRED : FINISH_BOUNCED;
}

/* P-181: the host took as many recipients as it takes at once, and the message for them. The rest
 * goes in a new transaction, at once, and the schedule stays where it is: that was no failure. It
 * ends, for each time somebody gets the message. */
static bool gets_on(const struct verdicts *v)
{
    return v->delivered_count > 0 && v->crowded_count == v->later_count && v->slow_factor == 1;
}

static void fill_finish(struct settle *s, struct commit_finish *f, const struct delivery *d,
                        const struct verdicts *v)
{
    if (f->kind == FINISH_RETRY) {
        uint32_t attempts = d->attempts + !gets_on(v);
        uint32_t delay_ms = gets_on(v) ? 0 : retry_delay_ms(s->w->cfg, attempts, &s->w->entropy);
        delay_ms = retry_longer_ms(delay_ms, v->slow_factor, relay_rest_ms(s->w->relay, d->dest),
                                   &s->w->entropy);
        f->delay_ms = retry_cap_delay_ms(delay_ms, d->message, &s->w->now);
        encode_item(d, attempts, slice_str(d->dest), v->later, v->later_count, &f->item);
    } else if (f->kind == FINISH_DEAD) {
        metrics_add(&s->w->metrics, METRIC_DEAD_TOTAL, 1);
        const struct rcpt_outcome *o = &d->outcomes[v->first_failed];
        must(buf_printf(&f->item, "%d %.*s", o->code, SLICE_ARG(slice_head(o->text, 200))) ==
             STATUS_OK);
    }
}

static void conclude(struct settle *s, struct delivery *d, const struct verdicts *v,
                     const char *host, struct slice header)
{
    struct commit_finish *f = finish_for(s, d, kind_for(s, d, v));
    fill_finish(s, f, d, v);
    if (v->report_count > 0)
        queue_submit_with(s->w->queue, make_bounce(s, d, v, host, header), f);
    else
        queue_finish(s->w->queue, f);
}

/* --- bounces of large messages --------------------------------------------------------------- */

static void on_header(void *owner, bool is_ok, struct slice data)
{
    struct header_wait *wait = owner;
    list_remove(&wait->node);
    list_remove(&wait->d->node);
    conclude(wait->s, wait->d, &wait->v, wait->host,
             is_ok ? slice_head(data, BOUNCE_RETURNED_MAX + 1) : SLICE_NONE);
    verdicts_done(&wait->v);
    free(wait);
}

static void read_header_first(struct settle *s, struct delivery *d, struct verdicts v,
                              const char *host)
{
    struct header_wait *wait = mem_zalloc(sizeof *wait);
    *wait = (struct header_wait){ .s = s, .d = d, .v = v };
    memcpy(wait->host, host, strnlen(host, sizeof wait->host - 1));
    list_push_back(&s->finishing, &d->node);
    list_push_back(&s->waits, &wait->node);
    wait->chunk = queue_chunk_get(s->w->queue, d->shard, d->message->id, 0, on_header, wait);
}

/* --- entry points ---------------------------------------------------------------------------- */

bool settle_wants_other_host(struct settle *s, const struct delivery *d, const char *host)
{
    rules_store_refresh(s->w->rules, &s->rules, &s->rules_serial);
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        struct reply_verdict reply = classify(s->rules, &d->outcomes[i], slice_str(host));
        if (!(reply.actions & REPLY_REROUTE))
            return false;
    }
    return true;
}

void settle_decided(struct settle *s, struct delivery *d, const char *host)
{
    struct verdicts v = judge(s, d, host);
    suspend(s, d, &v, host);
    if (d->message->chunk_count > 0 && v.report_count > 0) {
        read_header_first(s, d, v, host);
        return;
    }
    conclude(s, d, &v, host, SLICE_NONE);
    verdicts_done(&v);
}

void settle_release(struct settle *s, struct delivery *d)
{
    metrics_add(&s->w->metrics, METRIC_RELEASED_TOTAL, 1);
    queue_finish(s->w->queue, finish_for(s, d, FINISH_RELEASE));
}

void settle_pass(struct settle *s, struct delivery *d)
{
    queue_finish(s->w->queue, finish_for(s, d, FINISH_PASS));
}

static void append_split(struct settle *s, const struct delivery *d, const char *dest,
                         const uint32_t *rcpts, uint32_t rcpt_count, struct buf *out)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    char suffix[SPLIT_SUFFIX_LEN + 1] = "";
    for (int i = 0; i < SPLIT_SUFFIX_LEN; i++)
        suffix[i] = digits[entropy_below(&s->w->entropy, sizeof digits - 1)];
    must(buf_printf(out, "\n%s/%s\t", d->message->id, suffix) == STATUS_OK);
    encode_item(d, d->attempts, slice_str(dest), rcpts, rcpt_count, out);
}

static struct commit_finish *split_into(struct settle *s, struct delivery *d, size_t count)
{
    struct commit_finish *f = finish_for(s, d, FINISH_RESPLIT);
    must(buf_printf(&f->item, "%zu", count) == STATUS_OK);
    return f;
}

void settle_split(struct settle *s, struct delivery *d, const struct delivery_part *parts,
                  size_t count)
{
    must(count > 1);
    struct commit_finish *f = split_into(s, d, count);
    for (size_t i = 0; i < count; i++)
        append_split(s, d, d->dest, parts[i].rcpts, parts[i].rcpt_count, &f->item);
    queue_finish(s->w->queue, f);
}

void settle_resplit(struct settle *s, struct delivery *d)
{
    struct route_group *groups;
    uint32_t *unrouted, unrouted_count;
    size_t n = route_split(s->w->cfg, relay_spent_sources(s->w->relay), d->message, d->rcpts,
                           d->rcpt_count, &d->arena, &groups, &unrouted, &unrouted_count);
    struct commit_finish *f = split_into(s, d, n);
    for (size_t i = 0; i < n; i++)
        append_split(s, d, groups[i].key, groups[i].rcpts, groups[i].rcpt_count, &f->item);
    queue_finish(s->w->queue, f);
}
