/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A submission's life: the door, the session, the end.
 *
 * On a listener with proxy_protocol the first octets are a PROXY header, which must be whole within
 * limits.proxy_timeout; only then there is a session, under the address that the header carries
 * (P-254 to P-257). A connection that brings none is closed without a word: there is nobody on that
 * port but load balancers. An address that has as many sessions as it may, or begins too many
 * handshakes, is turned away here too (io/address_caps.h).
 *
 * After every event the session's replies are handed to the connection, and what it waits for is
 * started. While it waits it is blocked; the answer unblocks it.
 */
#include "io/submission.h"
#include "core/base/must.h"
#include "io/address_caps.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

/* Octets of replies unsent above which reading stops (P-112). */
#define OUT_HIGH      (128 * 1024)
#define DISMISSAL_MAX 512 /* octets of the one reply to who gets no session */

static const struct conn_events session_events;

/* --- the door -------------------------------------------------------------------------------- */

/* "192.0.2.1", "IPv6:2001:db8::1"; an IPv4 client on an IPv6 socket is shown as IPv4 (P-28). */
static void format_client(const struct sockaddr_storage *ss, char out[SUBMISSION_CLIENT_MAX])
{
    char text[INET6_ADDRSTRLEN] = "unknown";
    if (ss->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)ss)->sin_addr, text, sizeof text);
        snprintf(out, SUBMISSION_CLIENT_MAX, "%s", text);
        return;
    }
    const struct in6_addr *a = &((const struct sockaddr_in6 *)ss)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(a)) {
        inet_ntop(AF_INET, &a->s6_addr[12], text, sizeof text);
        snprintf(out, SUBMISSION_CLIENT_MAX, "%s", text);
    } else {
        inet_ntop(AF_INET6, a, text, sizeof text);
        snprintf(out, SUBMISSION_CLIENT_MAX, "IPv6:%s", text);
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

/* With AUTH everybody is welcome as far as the door; `networks` narrows even that when AUTH is
 * required. */
static void judge_by(const struct config_listener *l, bool is_inside, struct smtp_peer *peer)
{
    if (l->role == LISTENER_BOUNCES) { /* what comes back may come from anywhere */
        peer->is_refused = l->network_count > 0 && !is_inside;
        return;
    }
    peer->is_trusted = l->auth != AUTH_REQUIRED && is_inside;
    peer->is_refused =
        !is_inside && (l->auth == AUTH_OFF || (l->auth == AUTH_REQUIRED && l->network_count > 0));
}

static struct smtp_peer judge(const struct submission *s, const struct sockaddr *addr)
{
    const struct config_listener *l = s->listener;
    struct smtp_peer peer = {
        .client = slice_str(s->client),
        .may_xclient = config_networks_contain(l->xclient_networks, l->xclient_network_count, addr),
    };
    judge_by(l, config_networks_contain(l->networks, l->network_count, addr), &peer);
    return peer;
}

/* The same for an address in words, as XCLIENT names it. */
void submission_judge(const void *ctx, struct slice client, struct smtp_peer *peer)
{
    const struct config_listener *l = ctx;
    struct sockaddr_in6 addr = { .sin6_family = AF_INET6 };
    struct slice tag = SLICE("IPv6:");
    char text[SUBMISSION_CLIENT_MAX];
    bool is_v6 = slice_eq_nocase(slice_head(client, tag.len), tag);
    snprintf(text, sizeof text, "%s%.*s",
             is_v6 ? "" : "::ffff:", SLICE_ARG(is_v6 ? slice_skip(client, tag.len) : client));
    bool is_inside =
        inet_pton(AF_INET6, text, &addr.sin6_addr) == 1 &&
        config_networks_contain(l->networks, l->network_count, (const struct sockaddr *)&addr);
    judge_by(l, is_inside, peer);
}

static const struct smtp_service *service_of(const struct submission *s, size_t listener)
{
    return &s->d->services[listener];
}

/* P-116, P-135. A peer that speaks for others has as many sessions as they have. */
static enum address_verdict count_address(struct submission *s, const struct sockaddr *addr,
                                          const struct smtp_peer *peer)
{
    struct worker *w = s->d->w;
    if (peer->may_xclient)
        return ADDRESS_WELCOME;
    return address_caps_enter(w->address_caps, addr, s->listener->tls != TLS_OFF, w->now.mono_ms,
                              &s->address_ticket);
}

void submission_dismiss(struct worker *w, struct conn *c, const struct config_listener *l,
                        enum reply_id why)
{
    struct buf line;
    metrics_add(&w->metrics, METRIC_SESSIONS_REFUSED_TOTAL, 1);
    if (l->tls == TLS_IMPLICIT) {
        conn_close(c);
        return;
    }
    buf_init(&line, DISMISSAL_MAX);
    must(reply_write(&line, why) == STATUS_OK);
    gather_copy(conn_out(c), buf_slice(&line));
    buf_done(&line);
    conn_finish(c);
}

/* Before a session is made of it, and before a handshake is paid for. */
static void turn_away(struct submission *s, enum address_verdict why)
{
    bool is_many = why == ADDRESS_TOO_MANY;
    s->session.end_reason = is_many ? "address-sessions" : "address-rate";
    s->is_over = true;
    wheel_clear(&s->d->w->wheel, &s->timer);
    submission_dismiss(s->d->w, s->conn, s->listener,
                       is_many ? REPLY_ADDRESS_BUSY : REPLY_ADDRESS_FAST);
}

/* Without is_client addr is that of a load balancer, which looks whether we live and is not
 * counted. */
static void greet(struct submission *s, const struct smtp_service *service,
                  const struct sockaddr_storage *addr, bool is_client)
{
    struct worker *w = s->d->w;
    format_client(addr, s->client);
    struct smtp_peer peer = judge(s, (const struct sockaddr *)addr);
    enum address_verdict verdict = ADDRESS_WELCOME;
    if (is_client)
        verdict = count_address(s, (const struct sockaddr *)addr, &peer);
    if (verdict != ADDRESS_WELCOME) {
        turn_away(s, verdict);
        return;
    }
    if (peer.is_refused)
        metrics_add(&w->metrics, METRIC_SESSIONS_REFUSED_TOTAL, 1);
    smtp_session_init(&s->session, service, &peer, &w->now);
    s->is_greeted = true;
    log_session(s, "session.open", peer.is_refused ? "not trusted" : NULL);
    submission_after_event(s);
}

static void on_timer(struct wheel_timer *timer);

static bool expects_proxy(const struct submission *s)
{
    return s->listener->proxy_network_count > 0;
}

static void open_door(struct submission *s, const struct sockaddr_storage *addr)
{
    struct worker *w = s->d->w;
    const struct config_listener *l = s->listener;
    s->door = mem_zalloc(sizeof *s->door);
    buf_init(&s->door->proxy, PROXY_HEADER_MAX);
    s->door->addr = *addr;
    s->door->deadline_ms = w->now.mono_ms + w->cfg->limits.proxy_timeout_ms;
    format_client(addr, s->client);
    if (!config_networks_contain(l->proxy_networks, l->proxy_network_count,
                                 (const struct sockaddr *)addr)) {
        metrics_add(&w->metrics, METRIC_PROXY_REFUSED_TOTAL, 1);
        s->session.end_reason = "no-load-balancer";
        submission_close(s);
        return;
    }
    wheel_set(&w->wheel, &s->timer, s->door->deadline_ms);
}

static void close_door(struct submission *s)
{
    if (!s->door)
        return;
    buf_done(&s->door->proxy);
    free(s->door);
    s->door = NULL;
}

bool submission_open(struct submit_driver *d, struct ring_socket socket,
                     const struct accept_slot *slot)
{
    struct submission *s = mem_zalloc(sizeof *s);
    s->conn = conn_adopt(&d->w->conns, socket, &session_events, s);
    if (!s->conn) {
        free(s);
        return false;
    }
    s->d = d;
    s->listener = d->w->listeners[slot->listener].cfg;
    s->session.service = service_of(s, slot->listener);
    list_push_back(&d->sessions, &s->node);
    list_init(&s->waiter);
    wheel_timer_init(&s->timer, on_timer);
    d->session_count++;
    metrics_add(&d->w->metrics, METRIC_SESSIONS_TOTAL, 1);
    if (expects_proxy(s))
        open_door(s, &slot->addr);
    else
        greet(s, s->session.service, &slot->addr, true);
    return true;
}

/* A header that names nobody is a health check: it goes by the connection's own address (P-257). */
static void pass_door(struct submission *s, const struct proxy_header *header)
{
    bool is_client = header->has_source;
    struct sockaddr_storage addr = is_client ? header->source : s->door->addr;
    close_door(s);
    greet(s, s->session.service, &addr, is_client);
}

/* Takes the octets of the header and none behind it. */
static size_t take_proxy(struct submission *s, struct slice in)
{
    struct buf *proxy = &s->door->proxy;
    struct proxy_header header;
    size_t used, had = proxy->len;
    size_t room = proxy->max - proxy->len;
    struct slice part = slice_head(in, room);
    must(buf_append(proxy, part) == STATUS_OK);
    switch (proxy_parse(buf_slice(proxy), &used, &header)) {
    case PROXY_MORE: return part.len;
    case PROXY_DONE: pass_door(s, &header); return used - had;
    case PROXY_BAD: break;
    }
    metrics_add(&s->d->w->metrics, METRIC_PROXY_REFUSED_TOTAL, 1);
    s->session.end_reason = "bad-proxy-header";
    submission_close(s);
    return in.len;
}

/* --- after each event ------------------------------------------------------------------------ */

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

/* Begins what the session waits for, once. */
static void serve_wait(struct submission *s)
{
    switch (s->session.wait) {
    case SMTP_WAIT_TLS:
        if (!s->handshake_until_ms)
            submission_start_tls(s);
        break;
    case SMTP_WAIT_AUTH:
        if (!s->ask)
            submission_ask_auth(s);
        break;
    case SMTP_WAIT_ADMIT:
        if (!s->admit)
            submission_ask_admission(s);
        break;
    case SMTP_WAIT_COMMIT:
        if (!s->entry && !s->signing && !s->returning && !(s->stream && s->stream->is_committing))
            submission_begin_commit(s);
        break;
    case SMTP_WAIT_INPUT:
    case SMTP_WAIT_CLOSE: break;
    }
}

static void finish(struct submission *s)
{
    if (!s->is_over)
        conn_finish(s->conn);
    s->is_over = true;
    wheel_clear(&s->d->w->wheel, &s->timer);
}

/* A deadline that only moved away is left alone: the timer looks again when it fires. */
static void set_timer(struct submission *s)
{
    int64_t deadline =
        s->handshake_until_ms ? s->handshake_until_ms : smtp_session_deadline(&s->session);
    if (!wheel_timer_is_set(&s->timer) || deadline < s->timer.due_ms)
        wheel_set(&s->d->w->wheel, &s->timer, deadline);
}

void submission_after_event(struct submission *s)
{
    send_replies(s);
    count_busy(s);
    if (submission_stream_is_orphaned(s))
        submission_stream_done(s);
    if (s->session.wait == SMTP_WAIT_CLOSE) {
        finish(s);
        return;
    }
    serve_wait(s);
    if (!s->is_over)
        set_timer(s);
}

void submission_close(struct submission *s)
{
    s->is_over = true;
    wheel_clear(&s->d->w->wheel, &s->timer);
    conn_close(s->conn);
}

static void on_timer(struct wheel_timer *timer)
{
    struct submission *s = container_of(timer, struct submission, timer);
    int64_t now = s->d->w->now.mono_ms;
    if (s->door || (s->handshake_until_ms && now >= s->handshake_until_ms)) {
        s->session.end_reason = s->door ? "proxy-timeout" : "handshake-timeout";
        submission_close(s);
        return;
    }
    smtp_session_tick(&s->session, &s->d->w->now);
    submission_after_event(s);
}

void submission_unblock(struct submission *s)
{
    if (!s->is_over)
        conn_resume(s->conn);
}

/* --- connection events ----------------------------------------------------------------------- */

static bool is_in_content(const struct submission *s)
{
    return s->session.state == SMTP_DATA || s->session.state == SMTP_BDAT;
}

bool submission_is_blocked(struct submission *s)
{
    if (s->session.wait != SMTP_WAIT_INPUT || conn_unsent(s->conn) > OUT_HIGH)
        return true;
    if (!is_in_content(s))
        return false;
    if (!submission_stream_content(s))
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
    if (s->door)
        taken = take_proxy(s, in);
    while (taken < in.len && !s->is_over && !s->door && !submission_is_blocked(s)) {
        taken += smtp_session_input(&s->session, slice_skip(in, taken), &s->d->w->now);
        submission_after_event(s);
    }
    return s->is_over ? in.len : taken;
}

/* A client may shut its side and still want the verdict (P-82). */
static bool awaits_answer(const struct submission *s)
{
    return s->session.wait == SMTP_WAIT_COMMIT || s->session.wait == SMTP_WAIT_AUTH ||
           s->session.wait == SMTP_WAIT_ADMIT;
}

static void on_end(struct conn *c, int result)
{
    struct submission *s = c->owner;
    s->peer_is_gone = true;
    if (s->is_over && result == 0)
        return; /* it said QUIT and shut its side at once: our last replies are on their way */
    if (s->is_over || result < 0 || !s->is_greeted) {
        submission_close(s);
        return;
    }
    if (awaits_answer(s))
        return;
    s->is_over = true;
    conn_finish(c);
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct submission *s = c->owner;
    if (c->is_paused && s->is_greeted && s->session.wait == SMTP_WAIT_INPUT)
        submission_unblock(s);
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
    if (s->returning) {
        returns_forget(s->returning);
        d->committing--;
    }
    if (s->signing) {
        signer_forget(s->signing);
        d->committing--;
    }
    submission_stream_done(s);
    submission_forget_asks(s);
    address_caps_leave(d->w->address_caps, s->address_ticket);
    if (s->is_busy)
        d->busy--;
    wheel_clear(&d->w->wheel, &s->timer);
    list_remove(&s->node);
    list_remove(&s->waiter);
    if (s->is_greeted)
        smtp_session_done(&s->session);
    close_door(s);
    free(s->tls);
    d->session_count--;
    free(s);
}

static const struct conn_events session_events = {
    .on_data = on_data,
    .on_end = on_end,
    .on_secure = submission_on_secure,
    .on_sent = on_sent,
    .on_closed = on_closed,
};
