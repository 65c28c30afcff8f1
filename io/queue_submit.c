/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_submit - messages on their way into the queue.
 *
 * Every message in the hands of the committer is a submission: whom to tell, and the entry. When
 * a commit succeeds, the targets that were born leased become deliveries of this worker. A message
 * that another stands for, because it was sent again under its idempotency key, is dropped.
 */
#include "core/base/must.h"
#include "core/relay/event.h"
#include "io/drive_queue_private.h"
#include "io/drive_relay.h"
#include <stdlib.h>

/* Who waits for a message's verdict. */
struct queued {
    struct commit_entry entry;
    struct queue_driver *q;
    queue_verdict_fn *fn; /* NULL: forgotten */
    void *owner;
    uint32_t lease_epoch; /* the driver's, when it was submitted */
};

static void log_accepted(struct queue_driver *q, const struct message *m, uint32_t deliveries)
{
    struct log *log = &q->w->log;
    log_begin(log, LOG_INFO, m->flags & MESSAGE_BOUNCE ? "bounce.queued" : "msg.accepted");
    log_cstr(log, "id", m->id);
    log_str(log, "from", m->sender);
    log_num(log, "rcpts", m->rcpt_count);
    log_str(log, "rcpt", m->rcpts[0].address);
    log_num(log, "size", (int64_t)m->size);
    log_num(log, "deliveries", deliveries);
    log_str(log, "client", m->client);
    log_str(log, "helo", m->helo);
    if (m->tenant.len > 0)
        log_str(log, "tenant", m->tenant);
    if (m->user.len > 0)
        log_str(log, "user", m->user);
    if (m->hold_until_ms > 0)
        log_num(log, "hold_until", m->hold_until_ms);
    if (message_lane(m) != LANE_NORMAL)
        log_cstr(log, "lane", message_lane(m) == LANE_URGENT ? "urgent" : "bulk");
    log_end(log);
}

/* Another message stands for this one, or its key is another's. */
static void log_repeated(struct queue_driver *q, const struct message *m, const char *first_id)
{
    struct log *log = &q->w->log;
    log_begin(log, LOG_INFO, *first_id ? "msg.repeated" : "msg.key_conflict");
    log_cstr(log, "id", m->id);
    if (*first_id)
        log_cstr(log, "first", first_id);
    log_str(log, "from", m->sender);
    log_str(log, "client", m->client);
    if (m->tenant.len > 0)
        log_str(log, "tenant", m->tenant);
    log_end(log);
}

static void count_accepted(struct queue_driver *q, const struct message *m)
{
    if (m->flags & MESSAGE_BOUNCE) {
        metrics_add(&q->w->metrics, METRIC_BOUNCES_SENT_TOTAL, 1);
        return;
    }
    metrics_add(&q->w->metrics, METRIC_ACCEPTED_TOTAL, 1);
    metrics_add(&q->w->metrics, METRIC_ACCEPTED_BYTES_TOTAL, (int64_t)m->size);
    metrics_add(&q->w->metrics, METRIC_ACCEPTED_RCPTS_TOTAL, m->rcpt_count);
}

static bool has_room(const struct queue_driver *q, const struct delivery *d)
{
    enum mail_lane lane = message_lane(d->message);
    return !q->w->is_draining && relay_room(q->w->relay, lane) > 0 &&
           !relay_is_crowded(q->w->relay, d->dest, lane);
}

/* What was born leased is delivered from memory by this worker, or handed on: when a lease was
 * lost meanwhile, and nobody knows whether before or after; and when there is no room for it, or
 * its destination has none. (Born ready it would be anybody's before we know that it was born: a
 * batch that must be sent again could make it a second time.) */
static void deliver_leased(struct queue_driver *q, const struct commit_entry *entry, bool is_ours)
{
    for (uint32_t k = 0; k < entry->target_count; k++) {
        const struct commit_target *t = &entry->targets[k];
        char id[DELIVERY_ID_MAX];
        if (t->mode == COMMIT_READY)
            claim_hint(q->claimer);
        if (t->mode != COMMIT_LEASED)
            continue;
        delivery_id_format(id, entry->message->id, k, entry->target_count);
        struct delivery *d = delivery_new(entry->message, id, slice_str(t->dest), entry->shard,
                                          t->rcpts, t->rcpt_count);
        d->expires_ms = entry->expires_ms;
        if (is_ours && has_room(q, d)) {
            relay_add(q->w->relay, d);
        } else {
            relay_give_back(q->w->relay, d);
            claim_hint(q->claimer);
        }
    }
}

/* It is durable, or another one that stands for it. */
static void is_queued(struct queue_driver *q, const struct queued *s)
{
    const struct commit_entry *entry = &s->entry;
    if (entry->first_id[0]) {
        metrics_add(&q->w->metrics, METRIC_REPEATED_TOTAL, 1);
        log_repeated(q, entry->message, entry->first_id);
        return;
    }
    count_accepted(q, entry->message);
    log_accepted(q, entry->message, entry->target_count);
    deliver_leased(q, entry, s->lease_epoch == q->lease_epoch);
}

static void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct queued *s = container_of(entry, struct queued, entry);
    struct queue_driver *q = s->q;
    if (verdict == SMTP_QUEUED)
        is_queued(q, s);
    else if (verdict == SMTP_KEY_CONFLICT)
        log_repeated(q, entry->message, "");
    else
        metrics_add(&q->w->metrics, METRIC_COMMIT_FAILED_TOTAL, 1);
    if (s->fn)
        s->fn(s->owner, verdict, entry->first_id[0] ? entry->first_id : entry->message->id);
    message_unref(entry->message);
    free(s);
}

/* What its sender holds back waits for its time (RFC 4865), whatever its route says then. Held
 * routes are kept. All else is born leased, also what this worker will have no room for. */
static enum commit_mode mode_for(const struct queue_driver *q, const struct message *m,
                                 const struct config_route *route)
{
    if (m->hold_until_ms > q->w->now.wall_ms)
        return COMMIT_SCHEDULED;
    if (route->relay == RELAY_HOLD)
        return COMMIT_HELD;
    return COMMIT_LEASED;
}

static void set_targets(struct queue_driver *q, struct commit_entry *entry)
{
    struct message *m = entry->message;
    struct route_group *groups;
    uint32_t *unrouted, unrouted_count;
    size_t n = route_split(q->w->cfg, relay_spent_sources(q->w->relay), m, NULL, 0, &m->arena,
                           &groups, &unrouted, &unrouted_count);
    must(unrouted_count == 0 && n > 0); /* the configuration always has a route "*" */
    entry->targets = arena_alloc(&m->arena, n * sizeof *entry->targets);
    entry->target_count = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        struct commit_target *t = &entry->targets[i];
        memcpy(t->dest, groups[i].key, sizeof t->dest);
        t->mode = mode_for(q, m, groups[i].route);
        t->rcpts = groups[i].rcpts;
        t->rcpt_count = groups[i].rcpt_count;
    }
}

/* When to give up: its lifetime begins when it may go (P-67); a time that the client set ends it
 * earlier (RFC 2852 4.1.3.1, by-mode R). */
static int64_t expires_ms(const struct queue_driver *q, const struct message *m)
{
    int64_t now_ms = q->w->now.wall_ms;
    int64_t from_ms = m->hold_until_ms > now_ms ? m->hold_until_ms : now_ms;
    int64_t until_ms = from_ms + (int64_t)q->w->cfg->retry.expire_ms;
    if ((m->flags & MESSAGE_BY_RETURN) && m->deliver_by_ms > 0 && m->deliver_by_ms < until_ms)
        return m->deliver_by_ms;
    return until_ms;
}

/* It is told when it is durable, in the same transaction. */
static void set_event(struct queue_driver *q, struct commit_entry *entry)
{
    struct buf text;
    if (q->w->cfg->events.size_max == 0)
        return;
    buf_init(&text, EVENT_MAX);
    if (event_accepted(entry->message, &text) == STATUS_OK) {
        entry->event = arena_copy(&entry->message->arena, buf_slice(&text));
        metrics_add(&q->w->metrics, METRIC_EVENTS_TOTAL, 1);
    }
    buf_done(&text);
}

static struct queued *queued_new(struct queue_driver *q, struct message *m, uint16_t shard)
{
    struct queued *s = mem_zalloc(sizeof *s);
    s->q = q;
    s->lease_epoch = q->lease_epoch;
    s->entry = (struct commit_entry){
        .message = m,
        .shard = shard,
        .due_ms = m->hold_until_ms,
        .expires_ms = expires_ms(q, m),
        .deadline_ms = q->w->now.mono_ms + q->w->cfg->limits.commit_timeout_ms,
        .done = on_verdict,
    };
    list_init(&s->entry.with);
    set_targets(q, &s->entry);
    set_event(q, &s->entry);
    return s;
}

struct commit_entry *queue_submit(struct queue_driver *q, struct message *m, uint16_t shard,
                                  queue_verdict_fn *fn, void *owner)
{
    struct queued *s = queued_new(q, m, shard);
    s->fn = fn;
    s->owner = owner;
    commit_add(q->committer, &s->entry, &q->w->now);
    return &s->entry;
}

void queue_forget(struct commit_entry *entry)
{
    container_of(entry, struct queued, entry)->fn = NULL;
}

void queue_submit_with(struct queue_driver *q, struct message *m, struct commit_finish *with)
{
    struct queued *s = queued_new(q, m, with->shard);
    /* Nobody waits for this verdict; the finish is not done before the bounce is durable. */
    s->entry.deadline_ms = INT64_MAX;
    list_push_back(&s->entry.with, &with->node);
    commit_add(q->committer, &s->entry, &q->w->now);
}

void queue_finish(struct queue_driver *q, struct commit_finish *f)
{
    commit_finish(q->committer, f, &q->w->now);
}

uint16_t queue_pick_shard(struct queue_driver *q)
{
    q->next_shard = (uint16_t)((q->next_shard + 1) % q->w->shards);
    return q->next_shard;
}

uint16_t queue_shard_of_key(const struct queue_driver *q, const uint8_t key[32])
{
    return queue_key_shard(key, q->w->shards);
}
