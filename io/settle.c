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
#include "io/drive_queue.h"
#include <stdlib.h>

/* Characters after "<queue id>/" of a delivery made by a split: as many as fit, for they are drawn,
 * and one message may have tens of thousands. */
#define SPLIT_SUFFIX_LEN (DELIVERY_ID_MAX - QUEUE_ID_LEN - 2)

/* A delivery whose fate is being written down. */
struct verdicts {
    uint32_t *later; /* owned; indices into message->rcpts */
    uint32_t later_count;
    uint32_t failed_count, first_failed; /* an index into d->rcpts */
    struct report_rcpt *reports;         /* owned */
    uint32_t report_count;
    uint32_t notices; /* bits of enum delivery_told that are due */
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

static const char *const stage_names[] = {
    [OUTCOME_NONE] = "none",         [OUTCOME_DNS] = "dns",         [OUTCOME_CONNECT] = "connect",
    [OUTCOME_GREETING] = "greeting", [OUTCOME_EHLO] = "ehlo",       [OUTCOME_MAIL] = "mail",
    [OUTCOME_RCPT] = "rcpt",         [OUTCOME_DATA] = "data",       [OUTCOME_DOT] = "dot",
    [OUTCOME_LOST] = "lost",         [OUTCOME_UNKNOWN] = "unknown", [OUTCOME_LOCAL] = "local",
    [OUTCOME_AUTH] = "auth",         [OUTCOME_TLS] = "tls",
};

static void log_outcome(struct settle *s, const struct delivery *d, uint32_t i,
                        enum retry_fate fate, const char *host)
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
    log_cstr(log, "stage", stage_names[o->stage]);
    log_num(log, "attempt", d->attempts + 1);
    log_num(log, "ms", d->started_ms ? s->w->now.mono_ms - d->started_ms : 0);
    log_str(log, "text", o->text);
    log_end(log);
}

static void sort_in(struct settle *s, const struct delivery *d, uint32_t i, enum retry_fate fate,
                    struct verdicts *v)
{
    enum report_action action = report_action(s->w->cfg, d, i, fate, v->notices);
    if (action != REPORT_NONE)
        v->reports[v->report_count++] = (struct report_rcpt){ i, action };
    if (fate == RETRY_LATER)
        v->later[v->later_count++] = d->rcpts[i];
    else if (fate != RETRY_DELIVERED && v->failed_count++ == 0)
        v->first_failed = i;
}

static struct verdicts judge(struct settle *s, struct delivery *d, const char *host)
{
    struct verdicts v = { .later = mem_alloc(d->rcpt_count * sizeof *v.later),
                          .reports = mem_alloc(d->rcpt_count * sizeof *v.reports),
                          .notices = report_notices_due(s->w->cfg, d, &s->w->now) };
    bool is_ambiguous = false;
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        enum retry_fate fate = retry_fate(&d->outcomes[i], d->expires_ms, &s->w->now);
        log_outcome(s, d, i, fate, host);
        metrics_add(&s->w->metrics, fate_metrics[fate], 1);
        is_ambiguous |= d->outcomes[i].stage == OUTCOME_UNKNOWN;
        sort_in(s, d, i, fate, &v);
    }
    if (v.later_count > 0)
        d->told |= v.notices;
    metrics_add(&s->w->metrics, METRIC_RELAY_ATTEMPTS_TOTAL, 1);
    metrics_add(&s->w->metrics, METRIC_AMBIGUOUS_TOTAL, is_ambiguous);
    return v;
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
    return v->failed_count > 0 && !can_tell ? FINISH_DEAD : FINISH_DONE;
}

static void fill_finish(struct settle *s, struct commit_finish *f, const struct delivery *d,
                        const struct verdicts *v)
{
    if (f->kind == FINISH_RETRY) {
        uint32_t delay_ms = retry_delay_ms(s->w->cfg, d->attempts + 1, &s->w->entropy);
        f->delay_ms = retry_cap_delay_ms(delay_ms, d->message, &s->w->now);
        encode_item(d, d->attempts + 1, slice_str(d->dest), v->later, v->later_count, &f->item);
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

void settle_decided(struct settle *s, struct delivery *d, const char *host)
{
    struct verdicts v = judge(s, d, host);
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
    size_t n = route_split(s->w->cfg, d->message, d->rcpts, d->rcpt_count, &d->arena, &groups,
                           &unrouted, &unrouted_count);
    struct commit_finish *f = split_into(s, d, n);
    for (size_t i = 0; i < n; i++)
        append_split(s, d, groups[i].key, groups[i].rcpts, groups[i].rcpt_count, &f->item);
    queue_finish(s->w->queue, f);
}
