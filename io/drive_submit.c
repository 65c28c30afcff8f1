/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submission sessions on connections.
 *
 * A submission is made at accept and lives until its connection's slot is free. It is *blocked*
 * while it waits for the queue's verdict, for chunks on their way to Redis, or for content memory:
 * then it takes no input (the connection holds what comes) until something calls unblock().
 *
 * Large messages: once the header section is over, content leaves for Redis in chunks of 256 KiB
 * while it still arrives, two on their way at most, so a session never holds more than about three.
 * When content memory is used up, chunks are cut smaller, which frees memory without waiting for
 * anybody to finish.
 */
#include "io/drive_submit.h"
#include "core/base/must.h"
#include "core/smtp/session.h"
#include "io/drive_queue.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ACCEPTS_PER_LISTENER 16
#define CHUNKS_IN_FLIGHT_MAX 2
#define CHUNK_UNDER_PRESSURE (16 * 1024)
/* Octets of replies unsent above which reading stops (P-112). */
#define OUT_HIGH        (128 * 1024)
#define CLIENT_MAX      64
#define ACCEPT_PAUSE_MS 100

struct accept_slot {
    struct sockaddr_storage addr;
    socklen_t len;
    size_t listener;
    bool is_armed; /* True exactly while an accept is submitted and not completed */
};

struct submit_driver {
    struct worker *w; /* borrowed */
    struct smtp_server server;
    struct smtp_service *services; /* owned; one for each of the worker's listeners */
    struct accept_slot *slots;     /* owned; ACCEPTS_PER_LISTENER for each listener */
    size_t slot_count;
    struct list sessions;       /* struct submission */
    struct list memory_waiters; /* blocked for content memory */
    uint32_t session_count, session_max;
    uint32_t busy, committing; /* sessions inside a transaction; of those, waiting for the queue */
    struct wheel_timer accept_pause; /* set while accepting rests */
};

struct submission {
    struct list node;   /* on sessions */
    struct list waiter; /* on memory_waiters, while blocked for memory */
    struct submit_driver *d;
    struct conn *conn; /* borrowed; ours until on_closed */
    struct smtp_session session;
    struct wheel_timer timer;
    struct commit_entry *entry;             /* borrowed; while the queue has the message */
    struct submit_stream *stream;           /* owned; only for a large message */
    const struct config_listener *listener; /* borrowed */
    bool is_busy;                           /* counted in d->busy */
    bool is_over;                           /* conn_finish or conn_close was called */
    bool peer_is_gone;                      /* the client ended its side */
    char client[CLIENT_MAX];
};

/* Content on its way to Redis while it arrives. */
struct submit_stream {
    struct queue_chunk *chunks[CHUNKS_IN_FLIGHT_MAX]; /* borrowed; NULL: free place */
    uint32_t in_flight;
    uint16_t shard;
    enum smtp_verdict verdict; /* SMTP_QUEUED while every chunk was stored */
    bool is_committing;        /* the end of data was seen; commit when in_flight is 0 */
    struct message *message;   /* owned; with is_committing */
};

static const struct conn_events session_events;
static void arm_accepts(struct submit_driver *d);

/* --- the driver ------------------------------------------------------------------------------ */

static void on_accept(void *ctx, const struct ring_done *done);
static void on_accept_pause_over(struct wheel_timer *timer);

static struct smtp_limits limits_of(const struct config *cfg)
{
    return (struct smtp_limits){
        .message_size_max = cfg->limits.message_size_max,
        .recipients_max = cfg->limits.recipients_max,
        .errors_max = cfg->limits.errors_max,
        .received_max = cfg->limits.received_max,
        .header_size_max = cfg->limits.header_size_max,
        .auth_attempts_max = cfg->auth.attempts_max,
        .mails_max = cfg->limits.mails_max,
        .hold_max_ms = cfg->limits.hold_max_ms,
        .deliver_by_min_s = cfg->limits.deliver_by_min_s,
        .command_timeout_ms = cfg->limits.command_timeout_ms,
        .data_timeout_ms = cfg->limits.data_timeout_ms,
        .session_timeout_ms = cfg->limits.session_timeout_ms,
        .transaction_timeout_ms = cfg->limits.transaction_timeout_ms,
    };
}

static struct smtp_service service_of(const struct submit_driver *d,
                                      const struct config_listener *l)
{
    return (struct smtp_service){
        .server = &d->server,
        .tls = l->tls,
        .auth = l->auth,
        .auth_without_tls = l->auth_without_tls,
        .cfg = d->w->cfg,
        .tenant = l->tenant ? config_find_tenant(d->w->cfg, slice_str(l->tenant)) : NULL,
        .lane = l->lane,
    };
}

struct submit_driver *submit_new(struct worker *w)
{
    struct submit_driver *d = mem_zalloc(sizeof *d);
    d->w = w;
    d->server = (struct smtp_server){
        .limits = limits_of(w->cfg),
        .hostname = slice_str(w->cfg->hostname),
        .entropy = &w->entropy,
        .metrics = &w->metrics,
        .budget = &w->budget,
    };
    d->services = mem_zalloc((w->listener_count + 1) * sizeof *d->services);
    for (size_t i = 0; i < w->listener_count; i++)
        d->services[i] = service_of(d, w->listeners[i].cfg);
    list_init(&d->sessions);
    list_init(&d->memory_waiters);
    d->session_max = (uint32_t)worker_share(w, w->cfg->limits.sessions_max);
    d->slot_count = w->listener_count * ACCEPTS_PER_LISTENER;
    d->slots = mem_zalloc((d->slot_count + 1) * sizeof *d->slots);
    for (size_t i = 0; i < d->slot_count; i++)
        d->slots[i].listener = i / ACCEPTS_PER_LISTENER;
    wheel_timer_init(&d->accept_pause, on_accept_pause_over);
    ring_on(w->ring, RING_ACCEPT, on_accept, d);
    return d;
}

void submit_free(struct submit_driver *d)
{
    must(list_is_empty(&d->sessions));
    free(d->slots);
    free(d->services);
    free(d);
}

uint32_t submit_sessions(const struct submit_driver *d)
{
    return d->session_count;
}

uint32_t submit_busy(const struct submit_driver *d)
{
    return d->busy;
}

uint32_t submit_talking(const struct submit_driver *d)
{
    return d->busy - d->committing;
}

/* --- accepting ------------------------------------------------------------------------------- */

void submit_start(struct submit_driver *d)
{
    arm_accepts(d);
}

static void arm_accepts(struct submit_driver *d)
{
    if (d->w->is_draining || wheel_timer_is_set(&d->accept_pause))
        return;
    for (size_t i = 0; i < d->slot_count; i++) {
        struct accept_slot *slot = &d->slots[i];
        if (slot->is_armed)
            continue;
        slot->is_armed = true;
        ring_accept(d->w->ring, d->w->listeners[slot->listener].fd, &slot->addr, &slot->len,
                    (struct ring_tag){ RING_ACCEPT, 0, (uint32_t)i });
    }
}

static void on_accept_pause_over(struct wheel_timer *timer)
{
    arm_accepts(container_of(timer, struct submit_driver, accept_pause));
}

/* "192.0.2.1", "IPv6:2001:db8::1"; an IPv4 client on an IPv6 socket is shown as IPv4 (P-28). */
static void format_client(const struct sockaddr_storage *ss, char out[CLIENT_MAX])
{
    char text[INET6_ADDRSTRLEN] = "unknown";
    if (ss->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)ss)->sin_addr, text, sizeof text);
        snprintf(out, CLIENT_MAX, "%s", text);
        return;
    }
    const struct in6_addr *a = &((const struct sockaddr_in6 *)ss)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(a)) {
        inet_ntop(AF_INET, &a->s6_addr[12], text, sizeof text);
        snprintf(out, CLIENT_MAX, "%s", text);
    } else {
        inet_ntop(AF_INET6, a, text, sizeof text);
        snprintf(out, CLIENT_MAX, "IPv6:%s", text);
    }
}

static void log_session(const struct submission *s, const char *event, const char *reason)
{
    struct log *log = &s->d->w->log;
    log_begin(log, LOG_DEBUG, event);
    log_cstr(log, "listener", s->listener->name);
    log_cstr(log, "client", s->client);
    if (reason)
        log_cstr(log, "reason", reason);
    log_end(log);
}

static size_t refused_data(struct conn *c, struct slice in)
{
    return in.len;
}

static void refused_end(struct conn *c, int result)
{
    conn_close(c);
}

static void refused_closed(struct conn *c) {}

static const struct conn_events refused_events = {
    .on_data = refused_data,
    .on_end = refused_end,
    .on_closed = refused_closed,
};

/* No session is free: the client is told so and may come back (P-16). */
static void refuse(struct submit_driver *d, struct ring_socket socket, enum reply_id why)
{
    metrics_add(&d->w->metrics, METRIC_SESSIONS_REFUSED_TOTAL, 1);
    struct conn *c = conn_adopt(&d->w->conns, socket, &refused_events, NULL);
    if (!c) {
        ring_close(d->w->ring, socket);
        wheel_set(&d->w->wheel, &d->accept_pause, d->w->now.mono_ms + ACCEPT_PAUSE_MS);
        return;
    }
    struct buf line;
    buf_init(&line, 512);
    must(reply_write(&line, why) == STATUS_OK);
    gather_copy(conn_out(c), buf_slice(&line));
    buf_done(&line);
    conn_finish(c);
}

static void on_timer(struct wheel_timer *timer);
static void after_event(struct submission *s);

static void open_session(struct submit_driver *d, struct ring_socket socket,
                         const struct accept_slot *slot)
{
    const struct config_listener *listener = d->w->listeners[slot->listener].cfg;
    struct submission *s = mem_zalloc(sizeof *s);
    s->conn = conn_adopt(&d->w->conns, socket, &session_events, s);
    if (!s->conn) {
        free(s);
        refuse(d, socket, REPLY_BUSY);
        return;
    }
    s->d = d;
    s->listener = listener;
    format_client(&slot->addr, s->client);
    list_push_back(&d->sessions, &s->node);
    list_init(&s->waiter);
    d->session_count++;
    metrics_add(&d->w->metrics, METRIC_SESSIONS_TOTAL, 1);
    bool is_trusted = config_networks_contain(listener->networks, listener->network_count,
                                              (const struct sockaddr *)&slot->addr);
    if (!is_trusted)
        metrics_add(&d->w->metrics, METRIC_SESSIONS_REFUSED_TOTAL, 1);
    struct smtp_peer peer = { .client = slice_str(s->client),
                              .is_trusted = is_trusted,
                              .is_refused = !is_trusted };
    smtp_session_init(&s->session, &d->services[slot->listener], &peer, &d->w->now);
    wheel_timer_init(&s->timer, on_timer);
    log_session(s, "session.open", is_trusted ? NULL : "not trusted");
    after_event(s);
}

static void on_accept(void *ctx, const struct ring_done *done)
{
    struct submit_driver *d = ctx;
    struct accept_slot *slot = &d->slots[done->index];
    slot->is_armed = false;
    if (done->result >= 0) {
        struct ring_socket socket = { done->result, ring_features(d->w->ring).direct_sockets };
        if (d->w->is_draining)
            refuse(d, socket, REPLY_SHUTTING_DOWN);
        else if (d->session_count >= d->session_max)
            refuse(d, socket, REPLY_BUSY);
        else
            open_session(d, socket, slot);
    } else if (done->result == -ENFILE || done->result == -EMFILE || done->result == -ENOMEM ||
               done->result == -ENOBUFS) {
        /* The machine is out of something: rest, then go on. */
        wheel_set(&d->w->wheel, &d->accept_pause, d->w->now.mono_ms + ACCEPT_PAUSE_MS);
    }
    arm_accepts(d);
}

/* --- sessions: after each event -------------------------------------------------------------- */

static void send_replies(struct submission *s)
{
    if (s->session.out.len == 0)
        return;
    gather_copy(conn_out(s->conn), buf_slice(&s->session.out));
    buf_done(&s->session.out);
}

static void count_busy(struct submission *s)
{
    bool is_busy = s->session.state >= SMTP_MAIL && s->session.state <= SMTP_COMMIT;
    if (is_busy != s->is_busy)
        s->d->busy += is_busy ? 1 : (uint32_t)-1;
    s->is_busy = is_busy;
}

static void begin_commit(struct submission *s);
static void stream_done(struct submission *s);

/* A streamed message that was refused or dropped: its chunks are not waited for, and vanish. */
static bool stream_is_orphaned(const struct submission *s)
{
    return s->stream && !s->stream->is_committing && s->session.state != SMTP_DATA &&
           s->session.state != SMTP_COMMIT;
}

/* Sends what the session said, does what it waits for, and moves its deadline. A deadline that only
 * moved away is left alone: the timer looks again when it fires. */
static void after_event(struct submission *s)
{
    send_replies(s);
    count_busy(s);
    if (stream_is_orphaned(s))
        stream_done(s);
    if (s->session.wait == SMTP_WAIT_CLOSE) {
        if (!s->is_over)
            conn_finish(s->conn);
        s->is_over = true;
        wheel_clear(&s->d->w->wheel, &s->timer);
        return;
    }
    if (s->session.wait == SMTP_WAIT_COMMIT && !s->entry &&
        !(s->stream && s->stream->is_committing))
        begin_commit(s);
    int64_t deadline = smtp_session_deadline(&s->session);
    if (!wheel_timer_is_set(&s->timer) || deadline < s->timer.due_ms)
        wheel_set(&s->d->w->wheel, &s->timer, deadline);
}

static void on_timer(struct wheel_timer *timer)
{
    struct submission *s = container_of(timer, struct submission, timer);
    smtp_session_tick(&s->session, &s->d->w->now);
    after_event(s);
}

static void unblock(struct submission *s)
{
    if (!s->is_over)
        conn_resume(s->conn);
}

/* --- large messages -------------------------------------------------------------------------- */

static void on_chunk_stored(void *owner, bool is_ok, struct slice data)
{
    struct submission *s = owner;
    struct submit_stream *stream = s->stream;
    /* Chunks are answered in order: the oldest is the first. */
    stream->chunks[0] = stream->chunks[1];
    stream->chunks[1] = NULL;
    stream->in_flight--;
    if (!is_ok)
        stream->verdict =
            slice_eq(slice_head(data, 3), SLICE("OOM")) ? SMTP_QUEUE_FULL : SMTP_NOT_QUEUED;
    if (stream->is_committing)
        begin_commit(s);
    else
        unblock(s);
}

static struct submit_stream *stream_of(struct submission *s)
{
    if (!s->stream) {
        s->stream = mem_zalloc(sizeof *s->stream);
        s->stream->shard = queue_pick_shard(s->d->w->queue);
    }
    return s->stream;
}

static void put_chunk(struct submission *s, size_t octets)
{
    struct submit_stream *stream = stream_of(s);
    struct message *m = s->session.message;
    struct chain chunk;
    chain_init(&chunk, m->content.budget);
    chain_split(&m->content, octets, &chunk);
    stream->chunks[stream->in_flight++] = queue_chunk_put(
        s->d->w->queue, stream->shard, m->id, m->chunk_count++, &chunk, on_chunk_stored, s);
}

/* Moves content to Redis while it arrives. False: no more can be taken now. */
static bool stream_content(struct submission *s)
{
    struct message *m = s->session.message;
    if (s->session.state != SMTP_DATA || !m || !smtp_session_content_is_body(&s->session))
        return true;
    bool is_pressed = chain_budget_is_over(&s->d->w->budget);
    uint32_t threshold = s->d->w->cfg->queue.stream_size;
    size_t least = is_pressed                                  ? CHUNK_UNDER_PRESSURE
                   : s->stream || threshold < QUEUE_CHUNK_SIZE ? QUEUE_CHUNK_SIZE
                                                               : threshold;
    while (m->content.len >= least) {
        if (s->stream && s->stream->in_flight == CHUNKS_IN_FLIGHT_MAX)
            return false;
        size_t octets = m->content.len < QUEUE_CHUNK_SIZE ? m->content.len : QUEUE_CHUNK_SIZE;
        put_chunk(s, octets);
    }
    return true;
}

static void stream_done(struct submission *s)
{
    struct submit_stream *stream = s->stream;
    if (!stream)
        return;
    for (uint32_t i = 0; i < stream->in_flight; i++)
        queue_chunk_forget(stream->chunks[i]);
    message_unref(stream->message);
    free(stream);
    s->stream = NULL;
}

/* --- the commit ------------------------------------------------------------------------------ */

static void give_verdict(struct submission *s, enum smtp_verdict verdict, const char *id)
{
    smtp_session_verdict(&s->session, verdict, id, &s->d->w->now);
    stream_done(s);
    after_event(s);
    if (s->peer_is_gone && !s->is_over) {
        s->is_over = true;
        conn_finish(s->conn);
        return;
    }
    unblock(s);
}

static void on_verdict(void *owner, enum smtp_verdict verdict, const char *id)
{
    struct submission *s = owner;
    s->entry = NULL;
    s->d->committing--;
    give_verdict(s, verdict, id);
}

/* The message goes to the queue, but only after its chunks are in Redis. */
static void begin_commit(struct submission *s)
{
    struct submit_stream *stream = s->stream;
    struct message *m =
        stream && stream->is_committing ? stream->message : smtp_session_take_message(&s->session);
    if (stream) {
        stream->message = m;
        stream->is_committing = true;
        if (stream->in_flight > 0)
            return;
        stream->message = NULL;
        if (stream->verdict != SMTP_QUEUED) {
            message_unref(m);
            give_verdict(s, stream->verdict, "");
            return;
        }
    }
    s->d->committing++;
    s->entry =
        queue_submit(s->d->w->queue, m, stream ? stream->shard : COMMIT_ANY_SHARD, on_verdict, s);
}

/* --- connection events ----------------------------------------------------------------------- */

/* True when the session must not be given more input now. */
static bool is_blocked(struct submission *s)
{
    if (s->session.wait != SMTP_WAIT_INPUT || conn_unsent(s->conn) > OUT_HIGH)
        return true;
    if (s->session.state != SMTP_DATA)
        return false;
    if (!stream_content(s))
        return true;
    if (!chain_budget_is_over(&s->d->w->budget))
        return false;
    if (list_is_empty(&s->waiter))
        list_push_back(&s->d->memory_waiters, &s->waiter);
    return true;
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct submission *s = c->owner;
    size_t taken = 0;
    while (taken < in.len && !s->is_over && !is_blocked(s)) {
        taken += smtp_session_input(&s->session, slice_skip(in, taken), &s->d->w->now);
        after_event(s);
    }
    return s->is_over ? in.len : taken;
}

static void on_end(struct conn *c, int result)
{
    struct submission *s = c->owner;
    s->peer_is_gone = true;
    if (s->is_over || result < 0) {
        s->is_over = true;
        conn_close(c);
        return;
    }
    /* A client may shut its side and still want the verdict (P-82). */
    if (s->session.wait == SMTP_WAIT_COMMIT)
        return;
    s->is_over = true;
    conn_finish(c);
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct submission *s = c->owner;
    if (c->is_paused && s->session.wait == SMTP_WAIT_INPUT)
        unblock(s);
}

static void on_closed(struct conn *c)
{
    struct submission *s = c->owner;
    struct submit_driver *d = s->d;
    log_session(s, "session.end", s->session.end_reason ? s->session.end_reason : "disconnected");
    if (s->entry) {
        queue_forget(s->entry);
        d->committing--;
    }
    stream_done(s);
    if (s->is_busy)
        d->busy--;
    wheel_clear(&d->w->wheel, &s->timer);
    list_remove(&s->node);
    list_remove(&s->waiter);
    smtp_session_done(&s->session);
    d->session_count--;
    free(s);
}

static const struct conn_events session_events = {
    .on_data = on_data,
    .on_end = on_end,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

/* --- the end of a turn, the end of the worker ------------------------------------------------ */

void submit_pump(struct submit_driver *d)
{
    if (list_is_empty(&d->memory_waiters) || chain_budget_is_over(&d->w->budget))
        return;
    struct list *node;
    while ((node = list_pop_front(&d->memory_waiters)))
        unblock(list_entry(node, struct submission, waiter));
}

static void stop_accepting(struct submit_driver *d)
{
    wheel_clear(&d->w->wheel, &d->accept_pause);
    for (size_t i = 0; i < d->slot_count; i++)
        if (d->slots[i].is_armed)
            ring_cancel(d->w->ring, (struct ring_tag){ RING_ACCEPT, 0, (uint32_t)i });
}

void submit_drain(struct submit_driver *d)
{
    d->server.is_draining = true;
    stop_accepting(d);
    list_for_each_safe (node, &d->sessions) {
        struct submission *s = list_entry(node, struct submission, node);
        if (s->is_over)
            continue;
        smtp_session_drain(&s->session, &d->w->now);
        after_event(s);
    }
}

void submit_abandon(struct submit_driver *d)
{
    stop_accepting(d);
    list_for_each_safe (node, &d->sessions) {
        struct submission *s = list_entry(node, struct submission, node);
        s->is_over = true;
        conn_close(s->conn);
    }
}

bool submit_is_quiet(const struct submit_driver *d)
{
    for (size_t i = 0; i < d->slot_count; i++)
        if (d->slots[i].is_armed)
            return false;
    return true;
}
