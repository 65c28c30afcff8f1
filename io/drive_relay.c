/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outbound connections: what the pool decides, done; what the peers say, told.
 *
 * Life of a delivery here:   relay_add -> waiting in the pool -> on an outbound connection ->
 * decided
 *     -> finishing (its end is on the way to Redis) -> freed
 * A delivery starts only while this worker's lease in its shard is live; otherwise it waits for the
 * heartbeat.
 *
 * An outbound (one connection) owns the SMTP client machine, the pool's slot and the body that is
 * being written. Bodies are written by reference; the message is pinned until the bytes have left,
 * even when the peer answers early (P-186). Large messages are read from Redis chunk by chunk while
 * they are sent, one chunk ahead.
 *
 * What an outcome becomes is settled in settle.c.
 */
#include "io/drive_relay.h"
#include "core/base/must.h"
#include "core/relay/pool.h"
#include "io/drive_queue.h"
#include "io/resolver.h"
#include "io/settle.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_UNSENT_MAX                                                                           \
    (512 * 1024) /* octets of a large body on their way before the next chunk is read */
#define BODY_OVERLAP_MAX                                                                           \
    (64 * 1024) /* octets unsent above which no second transaction is begun                        \
                 */

/* A message whose octets are on their way. */
struct pin {
    struct list node;
    struct message *message; /* one reference; NULL when `copy` is the matter */
    char *copy;              /* owned; a chunk's octets */
    size_t octets;           /* of copy */
    uint64_t end;            /* stream offset after which it may go */
};

/* The body that is being written. */
struct body {
    struct smtp_txn *txn; /* borrowed; NULL: none */
    struct dot_stuffer stuffer;
    uint32_t chunk;            /* the next chunk to ask for */
    struct queue_chunk *asked; /* borrowed; the chunk on its way */
};

struct outbound {
    struct list node; /* on the driver's outbounds */
    struct relay_driver *r;
    struct relay_slot *slot; /* borrowed; the pool's */
    struct conn *conn;       /* borrowed; ours until on_closed */
    struct smtp_client client;
    struct wheel_timer timer;
    struct body body;
    struct list pins;
    bool was_ready;       /* greeted and EHLO done: the pool knows */
    bool has_served;      /* a transaction has ended well on it */
    bool is_closing;      /* conn_finish or conn_close was called */
    const char *lost_why; /* static; why we closed it ourselves */
};

/* What this worker has of one shard. */
struct relay_shard {
    uint32_t held; /* deliveries in memory */
    int64_t
        barred_until_ms; /* monotonic; nothing is claimed before, nor while a lost one is held */
    bool is_barred;
};

struct relay_driver {
    struct worker *w; /* borrowed */
    struct relay_pool *pool;
    struct resolver *resolver;
    struct list outbounds;
    struct list lookups; /* at the resolver */
    struct settle settle;
    uint32_t held;      /* deliveries in memory */
    uint32_t in_flight; /* of those, on a connection */
    uint32_t held_max;
    struct relay_shard *shards; /* owned; one for each shard */
    bool is_waiting_for_lease;  /* the last pump stopped at a delivery without a live lease */
};

/* A destination at the resolver. */
struct lookup {
    struct list node; /* on the driver's lookups */
    struct relay_driver *r;
    struct relay_dest *dest; /* the pool keeps it while it is being resolved */
};

static const struct conn_events outbound_events;
static void pump_outbound(struct outbound *o);
static void on_poll(void *ctx, const struct ring_done *done);
static void on_settled(void *ctx, const struct delivery *d);

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
    if (resolver_new(w->cfg, &w->entropy, &w->metrics, &r->resolver, &w->error) != STATUS_OK) {
        relay_pool_free(r->pool);
        free(r->shards);
        free(r);
        return NULL;
    }
    ring_on(w->ring, RING_POLL, on_poll, r);
    arm_resolver(r);
    return r;
}

static void forget(struct relay_driver *r, const struct delivery *d)
{
    r->held--;
    r->shards[d->shard].held--;
}

static void drop(struct relay_driver *r, struct delivery *d)
{
    forget(r, d);
    delivery_free(d);
}

void relay_free(struct relay_driver *r)
{
    must(list_is_empty(&r->outbounds));
    struct delivery *d;
    for (uint16_t shard = 0; shard < r->w->shards; shard++)
        while ((d = relay_pool_take_shard(r->pool, shard)))
            drop(r, d);
    settle_done(&r->settle);
    free(r->shards);
    relay_pool_free(r->pool);
    resolver_free(r->resolver);
    struct list *node;
    while ((node = list_pop_front(&r->lookups)))
        free(list_entry(node, struct lookup, node));
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

/* Deliveries may use half of the content memory; the other half is for what arrives. */
uint32_t relay_room(const struct relay_driver *r)
{
    if (r->held >= r->held_max || r->w->budget.used > r->w->budget.max / 2)
        return 0;
    return r->held_max - r->held;
}

/* Handed back: what others have by now is not ours to give, and what a commit leased to us
 * meanwhile is not left behind. */
void relay_lease_lost(struct relay_driver *r, uint16_t shard)
{
    struct delivery *d;
    r->shards[shard].is_barred = true;
    r->shards[shard].barred_until_ms = r->w->now.mono_ms + r->w->cfg->queue.lease_ms;
    while ((d = relay_pool_take_shard(r->pool, shard)))
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
        char key[DEST_KEY_MAX];
        struct slice domain = d->message->rcpts[d->rcpts[i]].domain;
        size_t len = route_dest_key(route_find(r->w->cfg, domain), domain, key);
        if (!slice_eq(slice_of(key, len), slice_str(d->dest)))
            return false;
    }
    return true;
}

static void take(struct relay_driver *r, const struct delivery *d)
{
    r->held++;
    r->shards[d->shard].held++;
}

void relay_give_back(struct relay_driver *r, struct delivery *d)
{
    take(r, d);
    settle_release(&r->settle, d);
}

void relay_add(struct relay_driver *r, struct delivery *d)
{
    take(r, d);
    if (!is_routed_as_before(r, d))
        settle_resplit(&r->settle, d);
    else if (r->w->is_draining)
        settle_release(&r->settle, d);
    else
        relay_pool_add(r->pool, d);
}

static void on_settled(void *ctx, const struct delivery *d)
{
    forget(ctx, d);
}

/* --- pins ------------------------------------------------------------------------------------ */

static void pin(struct outbound *o, struct message *message, char *copy, size_t octets)
{
    struct pin *p = mem_zalloc(sizeof *p);
    p->message = message ? message_ref(message) : NULL;
    p->copy = copy;
    p->octets = octets;
    o->r->w->budget.used += octets;
    p->end = conn_offset(o->conn);
    list_push_back(&o->pins, &p->node);
}

static void unpin(struct outbound *o, uint64_t sent)
{
    while (!list_is_empty(&o->pins)) {
        struct pin *p = list_entry(o->pins.next, struct pin, node);
        if (p->end > sent)
            return;
        list_remove(&p->node);
        message_unref(p->message);
        o->r->w->budget.used -= p->octets;
        free(p->copy);
        free(p);
    }
}

/* --- bodies ---------------------------------------------------------------------------------- */

static void write_span(struct outbound *o, struct slice rest, bool must_stuff)
{
    struct gather *out = conn_out(o->conn);
    struct slice span;
    if (!must_stuff) {
        gather_ref(out, rest);
        return;
    }
    while (dot_stuff_next(&o->body.stuffer, &rest, &span))
        gather_ref(out, span);
}

/* Content that an SMTP client sent ends in CR LF (or is empty), so without lines that begin with a
 * dot there is nothing to look for. */
static void write_rest(struct outbound *o)
{
    struct smtp_txn *txn = o->body.txn;
    struct message *m = ((struct delivery *)txn->owner)->message;
    bool must_stuff = m->flags & MESSAGE_DOT_LINES;
    if (m->blob)
        write_span(o, m->body, must_stuff);
    else
        for (struct chain_seg *seg = m->content.head; seg; seg = seg->next)
            write_span(o, slice_of(seg->data, seg->len), must_stuff);
    gather_ref(conn_out(o->conn), must_stuff ? dot_stuff_end(&o->body.stuffer) : SLICE(".\r\n"));
    pin(o, m, NULL, 0);
    o->body.txn = NULL;
    smtp_client_body_sent(&o->client, txn, &o->r->w->now);
}

static void give_up(struct outbound *o, const char *why);

static void on_body_chunk(void *owner, bool is_ok, struct slice data)
{
    struct outbound *o = owner;
    o->body.asked = NULL;
    if (!is_ok) {
        give_up(o, "a chunk of the message could not be read from the queue");
        return;
    }
    struct message *m = ((struct delivery *)o->body.txn->owner)->message;
    char *copy = mem_alloc(data.len);
    memcpy(copy, data.ptr, data.len);
    write_span(o, slice_of(copy, data.len), m->flags & MESSAGE_DOT_LINES);
    pin(o, NULL, copy, data.len);
    pump_outbound(o);
}

/* One step of the body: the next chunk, or the rest. False: wait. */
static bool write_body(struct outbound *o)
{
    struct delivery *d = o->body.txn->owner;
    if (o->body.asked)
        return false;
    if (o->body.chunk == d->message->chunk_count) {
        write_rest(o);
        return true;
    }
    if (conn_unsent(o->conn) < CHUNK_UNSENT_MAX)
        o->body.asked = queue_chunk_get(o->r->w->queue, d->shard, d->message->id, o->body.chunk++,
                                        on_body_chunk, o);
    return false;
}

static void begin_body(struct outbound *o, struct smtp_txn *txn)
{
    o->body = (struct body){ .txn = txn };
    dot_stuffer_init(&o->body.stuffer);
}

static void end_body(struct outbound *o)
{
    if (o->body.asked)
        queue_chunk_forget(o->body.asked);
    o->body = (struct body){ 0 };
}

/* --- an outbound's turn ---------------------------------------------------------------------- */

static void set_timer(struct outbound *o)
{
    int64_t deadline = smtp_client_deadline(&o->client);
    if (deadline == INT64_MAX)
        wheel_clear(&o->r->w->wheel, &o->timer);
    else if (!wheel_timer_is_set(&o->timer) || o->timer.due_ms != deadline)
        wheel_set(&o->r->w->wheel, &o->timer, deadline);
}

/* A connection that served before and went stale says nothing about the message: the delivery goes
 * back to the front, once (P-174). */
static bool is_stale_loss(const struct outbound *o, const struct delivery *d)
{
    if (!o->has_served || d->was_requeued)
        return false;
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        const struct rcpt_outcome *out = &d->outcomes[i];
        bool is_stale =
            out->stage == OUTCOME_LOST || (out->stage == OUTCOME_MAIL && out->code == 421);
        if (!is_stale)
            return false;
    }
    return true;
}

static void collect_finished(struct outbound *o)
{
    struct smtp_txn *txn;
    while ((txn = smtp_client_finished(&o->client))) {
        struct delivery *d = txn->owner;
        if (o->body.txn == txn)
            end_body(o);
        relay_pool_sent(o->r->pool, o->slot, &o->r->w->now);
        o->r->in_flight--;
        if (is_stale_loss(o, d)) {
            delivery_restart(d);
            d->was_requeued = true;
            relay_pool_requeue(o->r->pool, d);
            continue;
        }
        o->has_served = true;
        settle_decided(&o->r->settle, d, o->slot->host_name);
    }
}

static void close_outbound(struct outbound *o, bool gently)
{
    if (o->is_closing)
        return;
    o->is_closing = true;
    relay_pool_slot_closing(o->r->pool, o->slot);
    wheel_clear(&o->r->w->wheel, &o->timer);
    if (gently)
        conn_finish(o->conn);
    else
        conn_close(o->conn);
}

/* Writes what the machine wants written; true when something may follow. */
static bool step_outbound(struct outbound *o)
{
    struct smtp_txn *txn = NULL;
    if (o->body.txn)
        return write_body(o);
    switch (smtp_client_next(&o->client, conn_out(o->conn), &txn, &o->r->w->now)) {
    case CLIENT_NEXT_BYTES: return true;
    case CLIENT_NEXT_BODY: begin_body(o, txn); return true;
    case CLIENT_NEXT_CLOSE: close_outbound(o, o->client.state == CLIENT_CLOSED); return false;
    case CLIENT_NEXT_NOTHING: break;
    }
    return false;
}

static void tell_pool(struct outbound *o)
{
    enum client_state state = o->client.state;
    if (!o->was_ready && (state == CLIENT_READY || state == CLIENT_BUSY)) {
        o->was_ready = true;
        relay_pool_connected(o->r->pool, o->slot, &o->r->w->now);
    }
    if (o->was_ready && state == CLIENT_BUSY && smtp_client_can_take(&o->client) &&
        conn_unsent(o->conn) < BODY_OVERLAP_MAX)
        relay_pool_can_overlap(o->r->pool, o->slot);
}

static void pump_outbound(struct outbound *o)
{
    collect_finished(o);
    while (!o->is_closing && step_outbound(o))
        ;
    collect_finished(o);
    if (o->is_closing)
        return;
    tell_pool(o);
    set_timer(o);
}

static void give_up(struct outbound *o, const char *why)
{
    smtp_client_lost(&o->client, OUTCOME_LOST, why);
    collect_finished(o);
    close_outbound(o, false);
}

static void on_timer(struct wheel_timer *timer)
{
    struct outbound *o = container_of(timer, struct outbound, timer);
    if (smtp_client_deadline(&o->client) <= o->r->w->now.mono_ms)
        smtp_client_timeout(&o->client);
    pump_outbound(o);
}

/* --- connection events ----------------------------------------------------------------------- */

static void on_connect_timeout(struct wheel_timer *timer)
{
    struct outbound *o = container_of(timer, struct outbound, timer);
    smtp_client_lost(&o->client, OUTCOME_CONNECT, "connecting timed out");
    close_outbound(o, false);
}

static void on_open(struct conn *c, int result)
{
    struct outbound *o = c->owner;
    wheel_clear(&o->r->w->wheel, &o->timer);
    if (result < 0) {
        smtp_client_lost(&o->client, OUTCOME_CONNECT, strerror(-result));
        relay_pool_slot_closing(o->r->pool, o->slot);
        o->is_closing = true;
        return;
    }
    wheel_timer_init(&o->timer, on_timer);
    pump_outbound(o);
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct outbound *o = c->owner;
    if (!o->is_closing) {
        smtp_client_input(&o->client, in, &o->r->w->now);
        pump_outbound(o);
    }
    return in.len;
}

static void on_end(struct conn *c, int result)
{
    struct outbound *o = c->owner;
    smtp_client_lost(&o->client, OUTCOME_LOST,
                     result < 0 ? strerror(-result) : "the connection was closed by the peer");
    collect_finished(o);
    close_outbound(o, false);
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct outbound *o = c->owner;
    unpin(o, sent);
    smtp_client_progress(&o->client, &o->r->w->now);
    if (!o->is_closing)
        pump_outbound(o);
}

static void log_closed(struct outbound *o, const struct rcpt_outcome *failure)
{
    struct log *log = &o->r->w->log;
    log_begin(log, failure ? LOG_WARN : LOG_DEBUG, failure ? "relay.failed" : "relay.closed");
    log_cstr(log, "dest", o->slot->dest->key);
    log_cstr(log, "host", o->slot->host_name);
    log_num(log, "messages", o->slot->messages);
    if (failure) {
        log_num(log, "code", failure->code);
        log_str(log, "text", failure->text);
    }
    log_end(log);
}

static void on_closed(struct conn *c)
{
    struct outbound *o = c->owner;
    struct relay_driver *r = o->r;
    /* A connection that had come to EHLO says nothing bad about its host by ending. */
    const struct rcpt_outcome *failure =
        o->client.state == CLIENT_BROKEN && !o->was_ready ? &o->client.failure : NULL;
    smtp_client_lost(&o->client, OUTCOME_LOST, "the connection was closed");
    collect_finished(o);
    end_body(o);
    log_closed(o, failure);
    unpin(o, UINT64_MAX);
    wheel_clear(&r->w->wheel, &o->timer);
    relay_pool_slot_gone(r->pool, o->slot, failure, &r->w->now);
    metrics_add(&r->w->metrics, METRIC_RELAY_CONNECTIONS_OPEN, -1);
    smtp_client_done(&o->client);
    list_remove(&o->node);
    free(o);
}

static const struct conn_events outbound_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_end = on_end,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

/* --- what the pool asks ---------------------------------------------------------------------- */

static void connect_failed(struct relay_driver *r, struct relay_slot *slot, int err)
{
    char text[128];
    int len = snprintf(text, sizeof text, "no socket here: %s", strerror(err));
    struct rcpt_outcome failure = {
        .stage = OUTCOME_CONNECT, .code = 451, .enhanced = "4.3.0", .text = { text, (size_t)len }
    };
    relay_pool_slot_gone(r->pool, slot, &failure, &r->w->now);
}

static void connect_slot(struct relay_driver *r, struct relay_slot *slot,
                         const struct relay_host *host)
{
    const struct config *cfg = r->w->cfg;
    struct outbound *o = mem_zalloc(sizeof *o);
    o->conn = conn_connect(&r->w->conns, (const struct sockaddr *)&host->addr, host->addr_len,
                           &outbound_events, o);
    if (!o->conn) {
        free(o);
        connect_failed(r, slot, errno);
        return;
    }
    o->r = r;
    o->slot = slot;
    slot->conn = o;
    list_init(&o->pins);
    list_push_back(&r->outbounds, &o->node);
    smtp_client_init(&o->client, slice_str(cfg->relay.helo ? cfg->relay.helo : cfg->hostname),
                     cfg->relay.reply_timeout_ms, &r->w->now);
    wheel_timer_init(&o->timer, on_connect_timeout);
    wheel_set(&r->w->wheel, &o->timer, r->w->now.mono_ms + cfg->relay.connect_timeout_ms);
    metrics_add(&r->w->metrics, METRIC_RELAY_CONNECTIONS_TOTAL, 1);
    metrics_add(&r->w->metrics, METRIC_RELAY_CONNECTIONS_OPEN, 1);
}

static void on_resolved(void *ctx, const struct relay_host *hosts, size_t host_count,
                        uint32_t ttl_ms, const struct rcpt_outcome *failure)
{
    struct lookup *l = ctx;
    list_remove(&l->node);
    relay_pool_resolved(l->r->pool, l->dest, hosts, host_count, ttl_ms, failure, &l->r->w->now);
    free(l);
}

static void resolve(struct relay_driver *r, struct relay_dest *dest)
{
    struct lookup *l = mem_zalloc(sizeof *l);
    l->r = r;
    l->dest = dest;
    list_push_back(&r->lookups, &l->node);
    if (dest->route->relay == RELAY_SMARTHOST)
        resolver_lookup_host(r->resolver, dest->route->host, dest->route->port, &r->w->now,
                             on_resolved, l);
    else
        resolver_lookup_mx(r->resolver, slice_str(dest->key), &r->w->now, on_resolved, l);
}

static void send_delivery(struct relay_driver *r, struct relay_slot *slot, struct delivery *d)
{
    struct outbound *o = slot->conn;
    d->started_ms = r->w->now.mono_ms;
    d->txn = (struct smtp_txn){
        .message = d->message,
        .rcpts = d->rcpts,
        .rcpt_count = d->rcpt_count,
        .outcomes = d->outcomes,
        .arena = &d->arena,
        .owner = d,
    };
    list_init(&d->txn.node);
    smtp_client_begin(&o->client, &d->txn, &r->w->now);
    r->in_flight++;
    pump_outbound(o);
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
        settle_decided(&r->settle, d, "");
}

/* Carries out one decision of the pool; false: nothing more now. */
static bool act(struct relay_driver *r)
{
    struct relay_action a = relay_pool_next(r->pool, &r->w->now);
    switch (a.kind) {
    case RELAY_RESOLVE: resolve(r, a.dest); return true;
    case RELAY_CONNECT: connect_slot(r, a.slot, a.host); return true;
    case RELAY_SEND:
        if (may_begin(r, &a)) {
            send_delivery(r, a.slot, a.delivery);
            return true;
        }
        relay_pool_sent(r->pool, a.slot, &r->w->now);
        relay_pool_requeue(r->pool, a.delivery);
        r->is_waiting_for_lease = true;
        return false;
    case RELAY_QUIT: {
        struct outbound *o = a.slot->conn;
        smtp_client_quit(&o->client);
        pump_outbound(o);
        return true;
    }
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
}

int64_t relay_wake_ms(const struct relay_driver *r)
{
    return r->is_waiting_for_lease ? INT64_MAX : relay_pool_wake_ms(r->pool);
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
    relay_pool_drain(r->pool);
}

void relay_abandon(struct relay_driver *r)
{
    list_for_each_safe (node, &r->outbounds) {
        struct outbound *o = list_entry(node, struct outbound, node);
        close_outbound(o, false);
        conn_close(o->conn);
    }
}
