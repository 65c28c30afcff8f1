/* SPDX-License-Identifier: Apache-2.0 */
/*
 * returns - from a report to what it changes.
 *
 *     whom is it about (the address it came to, or that a complaint names)
 *       -> its trace in Redis -> event, suppression -> both durable -> 250
 *
 * Only the proof in a return path says whom a report is about; addresses that the report itself
 * names are never looked at (P-250). So a stranger can tell lies about nobody, and a recipient
 * about nobody but himself.
 *
 * What cannot be matched is answered 250 as well and logged: a sender who gave the right address
 * has done all that he can, and a bounce of a bounce helps nobody. Only when Redis cannot be asked
 * is it 451. What a bounce has changed is changed again when it comes again; hard bounces are
 * counted by delivery, so nothing counts twice.
 *
 * To act on another kind of report: a row of what it changes in act_on.
 */
#include "io/returns.h"
#include "core/base/must.h"
#include "core/relay/event.h"
#include "core/relay/rules.h"
#include "core/smtp/return_path.h"
#include "core/smtp/returned.h"
#include "io/drive_queue.h"
#include "io/rules_store.h"
#include "queue/policy.h"
#include "queue/trace.h"
#include <stdio.h>
#include <stdlib.h>

#define ASK_AGAIN_MS 50

struct returns {
    struct worker *w;          /* borrowed */
    struct list all;           /* struct returning */
    struct reply_rules *rules; /* one reference; the newest set of the process's */
    uint32_t rules_serial;
};

/* Apart from the report, which may be gone before the answer. */
struct lookup {
    struct redis_request request;
    struct returning *one; /* borrowed; NULL: nobody waits */
};

struct returning {
    struct list node; /* on all */
    struct returns *r;
    struct message *message;       /* one reference; has the reader */
    const struct returned *report; /* the reader's */
    struct return_path path;
    struct lookup *lookup;    /* borrowed; while Redis is asked */
    int64_t deadline_ms;      /* monotonic; when it is answered 451 */
    uint32_t finishes;        /* on their way */
    struct wheel_timer timer; /* the deadline, or when to ask again */
    returned_fn *fn;          /* NULL: it was called, or nobody waits */
    void *owner;
};

struct returns *returns_new(struct worker *w)
{
    struct returns *r = mem_zalloc(sizeof *r);
    r->w = w;
    list_init(&r->all);
    return r;
}

static void end(struct returning *one)
{
    wheel_clear(&one->r->w->wheel, &one->timer);
    if (one->lookup)
        one->lookup->one = NULL;
    list_remove(&one->node);
    message_unref(one->message);
    free(one);
}

void returns_free(struct returns *r)
{
    while (!list_is_empty(&r->all))
        end(list_entry(r->all.next, struct returning, node));
    reply_rules_unref(r->rules);
    free(r);
}

static void answer(struct returning *one, bool is_kept)
{
    returned_fn *fn = one->fn;
    one->fn = NULL;
    wheel_clear(&one->r->w->wheel, &one->timer);
    if (fn)
        fn(one->owner, is_kept);
}

void returns_forget(struct returning *one)
{
    one->fn = NULL;
    wheel_clear(&one->r->w->wheel, &one->timer);
    if (!one->lookup && one->finishes == 0)
        end(one);
}

static bool ask(struct returning *one);

/* A host that bounces at once is faster than the end of the delivery, which is not durable yet. */
static void ask_again(struct returning *one)
{
    int64_t at = one->r->w->now.mono_ms + ASK_AGAIN_MS;
    wheel_set(&one->r->w->wheel, &one->timer, at < one->deadline_ms ? at : one->deadline_ms);
}

/* What is on its way goes on; nobody waits for it any more. */
static void on_timer(struct wheel_timer *timer)
{
    struct returning *one = container_of(timer, struct returning, timer);
    bool is_busy = one->lookup || one->finishes > 0;
    bool is_late = one->r->w->now.mono_ms >= one->deadline_ms;
    if (!is_busy && !is_late && ask(one))
        return;
    answer(one, false);
    if (!is_busy)
        end(one);
}

/* --- words ----------------------------------------------------------------------------------- */

static void log_one(const struct returning *one, const struct queue_trace *trace,
                    enum bounce_category category)
{
    struct log *log = &one->r->w->log;
    const struct returned *report = one->report;
    bool is_bounce = report->kind == RETURNED_BOUNCE;
    log_begin(log, LOG_INFO, is_bounce ? "return.bounce" : "return.complaint");
    log_cstr(log, "id", one->path.id);
    log_str(log, "tenant", trace->tenant);
    log_str(log, "rcpt", trace->rcpt);
    log_cstr(log, is_bounce ? "action" : "feedback", is_bounce ? report->action : report->feedback);
    if (is_bounce) {
        log_cstr(log, "status", report->status);
        if (category != CATEGORY_NONE)
            log_cstr(log, "category", category_name(category));
        log_cstr(log, "host", report->host);
        log_cstr(log, "text", report->text);
    }
    log_end(log);
}

static void log_unread(const struct returning *one, const char *why)
{
    struct log *log = &one->r->w->log;
    metrics_add(&one->r->w->metrics, METRIC_RETURNED_UNREAD_TOTAL, 1);
    log_begin(log, LOG_INFO, "return.unread");
    log_cstr(log, "id", one->path.id);
    log_str(log, "client", one->message->client);
    log_str(log, "from", one->message->sender);
    log_str(log, "to", one->message->rcpts[0].address);
    log_cstr(log, "reason", why);
    log_end(log);
}

/* --- what it changes ------------------------------------------------------------------------- */

static void on_durable(struct commit_finish *f, bool was_lost)
{
    struct returning *one = f->owner;
    commit_finish_free(f);
    if (--one->finishes > 0)
        return;
    answer(one, true);
    end(one);
}

static struct commit_finish *finish_for(struct returning *one, enum commit_finish_kind kind,
                                        uint16_t shard)
{
    char id[DELIVERY_ID_MAX];
    int len = snprintf(id, sizeof id, "%s/%u", one->path.id, one->path.rcpt);
    must(len > 0 && (size_t)len < sizeof id);
    struct commit_finish *f = commit_finish_new(kind, shard, id);
    f->owner = one;
    f->done = on_durable;
    one->finishes++;
    return f;
}

static void tell_event(struct returning *one, const struct queue_trace *trace,
                       const struct returned_reply *reply, enum bounce_category category)
{
    struct worker *w = one->r->w;
    struct event_returned event = { .id = one->path.id,
                                    .tenant = trace->tenant,
                                    .sender = trace->sender,
                                    .rcpt = trace->rcpt,
                                    .report = one->report,
                                    .reply = reply,
                                    .category = category,
                                    .delivered_ms = trace->delivered_ms,
                                    .wall_ms = w->now.wall_ms };
    if (w->cfg->events.size_max == 0)
        return;
    struct commit_finish *f = finish_for(one, FINISH_EVENT, one->path.shard);
    must(event_returned(&event, &f->item) == STATUS_OK); /* all in it is bounded */
    metrics_add(&w->metrics, METRIC_EVENTS_TOTAL, 1);
    queue_finish(w->queue, f);
}

/* How many such reports put the recipient on the tenant's list; 0: this one does not count. */
static uint32_t reports_to_suppress(const struct returning *one, const struct config_tenant *t,
                                    bool is_hard)
{
    const char *feedback = one->report->feedback;
    if (!t || !t->suppression)
        return 0;
    if (one->report->kind == RETURNED_BOUNCE)
        return is_hard ? t->suppress_after_bounces : 0;
    bool is_about_mail = strcmp(feedback, "not-spam") != 0 && strcmp(feedback, "auth-failure") != 0;
    return t->suppress_complaints && is_about_mail;
}

static void suppress(struct returning *one, const struct queue_trace *trace, bool is_hard,
                     const struct returned_reply *reply, enum bounce_category category)
{
    struct worker *w = one->r->w;
    char reason[POLICY_REASON_MAX];
    uint32_t limit = reports_to_suppress(one, config_find_tenant(w->cfg, trace->tenant), is_hard);
    if (limit == 0)
        return;
    if (one->report->kind == RETURNED_BOUNCE)
        snprintf(reason, sizeof reason, "returned: %s, %d %s, %s", category_name(category),
                 reply->code, reply->enhanced, one->path.id);
    else
        snprintf(reason, sizeof reason, "complaint: %s, %s", one->report->feedback, one->path.id);
    struct commit_finish *f =
        finish_for(one, FINISH_SUPPRESS, queue_tenant_shard(trace->tenant, w->shards));
    policy_hard_bounce(&f->item, trace->tenant, limit, trace->rcpt, slice_str(reason));
    metrics_add(&w->metrics, METRIC_HARD_BOUNCES_TOTAL, one->report->kind == RETURNED_BOUNCE);
    queue_finish(w->queue, f);
}

static struct rcpt_outcome outcome_of(const struct returned_reply *reply)
{
    struct rcpt_outcome o = { .stage = OUTCOME_RCPT, .code = reply->code };
    memcpy(o.enhanced, reply->enhanced, sizeof o.enhanced);
    o.text = slice_str(reply->text);
    return o;
}

/* Says what the rules say of a reply in a session, and feeds the lists as that would. */
static void act_on(struct returning *one, const struct queue_trace *trace)
{
    struct returns *r = one->r;
    struct returned_reply reply;
    struct reply_verdict verdict = { .category = CATEGORY_NONE };
    bool is_failure =
        one->report->kind == RETURNED_BOUNCE && strcmp(one->report->action, "failed") == 0;
    returned_reply_of(one->report, &reply);
    struct rcpt_outcome outcome = outcome_of(&reply);
    rules_store_refresh(r->w->rules, &r->rules, &r->rules_serial);
    if (is_failure)
        verdict = classify(r->rules, &outcome, slice_str(one->report->host));
    metrics_add(&r->w->metrics,
                one->report->kind == RETURNED_BOUNCE ? METRIC_RETURNED_BOUNCES_TOTAL
                                                     : METRIC_RETURNED_COMPLAINTS_TOTAL,
                1);
    log_one(one, trace, verdict.category);
    one->finishes++; /* ours, until all are on their way */
    tell_event(one, trace, &reply, verdict.category);
    suppress(one, trace, is_failure && classify_is_hard(&outcome, &verdict), &reply,
             verdict.category);
    if (--one->finishes > 0)
        return;
    answer(one, true);
    end(one);
}

/* --- whom it is about ------------------------------------------------------------------------ */

static void on_trace(struct redis_request *request, const redisReply *reply)
{
    struct lookup *lookup = container_of(request, struct lookup, request);
    struct returning *one = lookup->one;
    struct queue_trace trace;
    free(lookup);
    if (!one)
        return;
    one->lookup = NULL;
    if (reply && reply->type == REDIS_REPLY_INTEGER && one->fn) {
        ask_again(one);
        return;
    }
    bool is_answer = reply && reply->type != REDIS_REPLY_ERROR;
    if (is_answer && reply->type == REDIS_REPLY_STRING &&
        queue_trace_decode(slice_of(reply->str, reply->len), &trace) == STATUS_OK) {
        act_on(one, &trace);
        return;
    }
    if (is_answer && reply->type != REDIS_REPLY_INTEGER)
        log_unread(one, "nothing is known of that delivery any more");
    answer(one, is_answer);
    end(one);
}

static bool ask(struct returning *one)
{
    char key[QUEUE_KEY_MAX], rcpt[12];
    int len = snprintf(rcpt, sizeof rcpt, "%u", one->path.rcpt);
    struct slice argv[] = { SLICE("FCALL_RO"),
                            SLICE("kilat_traced"),
                            SLICE("1"),
                            queue_key_counters(key, one->path.shard),
                            slice_str(one->path.id),
                            slice_of(rcpt, (size_t)len) };
    struct lookup *lookup = mem_zalloc(sizeof *lookup);
    lookup->one = one;
    one->lookup = lookup;
    wheel_set(&one->r->w->wheel, &one->timer, one->deadline_ms);
    if (queue_ask(one->r->w->queue, &lookup->request, on_trace, argv, ARRAY_LEN(argv)))
        return true;
    one->lookup = NULL;
    free(lookup);
    return false;
}

static bool read_path(struct returning *one, struct slice mailbox)
{
    const struct worker *w = one->r->w;
    struct address address;
    return address_parse_mailbox(mailbox, &address) == ADDRESS_OK &&
           return_path_is_domain(w->cfg, address.domain) &&
           return_path_read(w->return_key, address.local, &one->path) &&
           one->path.shard < w->shards;
}

/* NULL: it is known whom it is about; else why it is not. */
static const char *find_path(struct returning *one)
{
    if (one->report->kind == RETURNED_OTHER)
        return "it is no bounce and no complaint that can be read";
    if (read_path(one, one->message->rcpts[0].address))
        return NULL;
    if (one->report->kind == RETURNED_COMPLAINT && read_path(one, slice_str(one->report->sender)))
        return NULL;
    memset(&one->path, 0, sizeof one->path);
    return "it names no return path of ours";
}

void returns_take(struct returns *r, struct message *m, returned_fn *fn, void *owner,
                  struct returning **out)
{
    struct returning *one = mem_zalloc(sizeof *one);
    *one = (struct returning){ .r = r, .message = m, .fn = fn, .owner = owner };
    one->report = returned_end(m->returned);
    list_push_back(&r->all, &one->node);
    wheel_timer_init(&one->timer, on_timer);
    one->deadline_ms = r->w->now.mono_ms + r->w->cfg->limits.commit_timeout_ms;
    const char *why = find_path(one);
    if (!why && ask(one)) {
        *out = one;
        return;
    }
    if (why)
        log_unread(one, why);
    answer(one, why != NULL);
    end(one);
}
