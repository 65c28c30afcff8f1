/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_outbound - one connection to a peer.
 *
 * An outbound owns the SMTP client machine, the pool's slot and the body that is being written
 * (relay_body.c). Events of the connection and the timer feed the machine; after each, a turn says
 * what it wants said, hands over what is over, and tells the pool what the slot can take.
 *
 * Life:   outbound_connect -> on_open -> turns -> outbound_close (is_closing) -> on_closed: freed
 * A slot lives as long as its outbound, with two exceptions, each once: a peer that hangs up where
 * its reply to EHLO should be is connected to again with HELO (P-163), and one with which TLS
 * fails, where the route wants it only if it can be had, again in clear (P-192).
 *
 * TLS and logins: relay_secure.c.
 */
#include "core/base/must.h"
#include "io/drive_relay_private.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Octets unsent above which no second transaction is begun. */
#define BODY_OVERLAP_MAX (64 * 1024)

static const struct conn_events outbound_events;
static void say_no_socket(const struct config_source *source, char *why, size_t cap)
{
    if (source)
        snprintf(why, cap, "no socket here, source \"%s\": %s", source->name, strerror(errno));
    else
        snprintf(why, cap, "no socket here: %s", strerror(errno));
}

/* Who we say that we are. */
static struct slice helo_of(const struct config *cfg, const struct config_source *source)
{
    if (source && source->helo)
        return slice_str(source->helo);
    return slice_str(cfg->relay.helo ? cfg->relay.helo : cfg->hostname);
}

static void connect_to(struct relay_driver *r, struct relay_slot *slot,
                       const struct relay_host *host, enum outbound_way way);

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

/* This host lacks what it needs, or a rule about its replies says so. */
static bool is_for_another_host(struct outbound *o, const struct smtp_txn *txn)
{
    return txn->is_unfit || settle_wants_other_host(&o->r->settle, txn->owner, o->slot->host_name);
}

static void collect_finished(struct outbound *o)
{
    struct smtp_txn *txn;
    while ((txn = smtp_client_finished(&o->client))) {
        struct delivery *d = txn->owner;
        if (o->body.txn == txn)
            body_end(o);
        relay_pool_sent(o->r->pool, o->slot, &o->r->w->now);
        o->r->in_flight--;
        relay_sites_heard(o, d->outcomes, d->rcpt_count);
        if (is_for_another_host(o, txn) && relay_pool_misfit(o->r->pool, o->slot, d))
            continue;
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

/* How the same host is to be tried once more; the way it was tried: not at all. */
static enum outbound_way next_way(const struct outbound *o)
{
    if (o->r->w->is_draining || o->is_abandoned || o->way != OUTBOUND_USUAL)
        return o->way;
    if (o->hung_up_on_ehlo)
        return OUTBOUND_HELO;
    return smtp_client_may_go_clear(&o->client) ? OUTBOUND_CLEAR : o->way;
}

void outbound_close(struct outbound *o, bool gently)
{
    if (o->is_closing)
        return;
    o->is_closing = true;
    if (next_way(o) == o->way)
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
        return body_write(o);
    switch (smtp_client_next(&o->client, conn_out(o->conn), &txn, &o->r->w->now)) {
    case CLIENT_NEXT_BYTES: return true;
    case CLIENT_NEXT_BODY: body_begin(o, txn); return true;
    case CLIENT_NEXT_TLS: outbound_start_tls(o); return false;
    case CLIENT_NEXT_CLOSE: outbound_close(o, o->client.state == CLIENT_CLOSED); return false;
    case CLIENT_NEXT_NOTHING: break;
    }
    return false;
}

static void tell_pool(struct outbound *o)
{
    enum client_state state = o->client.state;
    if (!o->was_ready && (state == CLIENT_READY || state == CLIENT_BUSY)) {
        o->was_ready = true;
        outbound_report_clear(o);
        o->slot->messages_max = o->client.limits.mail_max;
        o->slot->is_downgraded = o->way == OUTBOUND_CLEAR;
        relay_pool_connected(o->r->pool, o->slot, &o->r->w->now);
    }
    if (o->was_ready && state == CLIENT_BUSY && smtp_client_can_take(&o->client) &&
        conn_unsent(o->conn) < BODY_OVERLAP_MAX)
        relay_pool_can_overlap(o->r->pool, o->slot);
}

void outbound_pump(struct outbound *o)
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

void outbound_give_up(struct outbound *o, const char *why)
{
    smtp_client_lost(&o->client, OUTCOME_LOST, why);
    collect_finished(o);
    outbound_close(o, false);
}

static void on_timer(struct wheel_timer *timer)
{
    struct outbound *o = container_of(timer, struct outbound, timer);
    if (smtp_client_deadline(&o->client) <= o->r->w->now.mono_ms)
        smtp_client_timeout(&o->client);
    outbound_pump(o);
}

/* --- connection events ----------------------------------------------------------------------- */

static void on_connect_timeout(struct wheel_timer *timer)
{
    struct outbound *o = container_of(timer, struct outbound, timer);
    smtp_client_lost(&o->client, OUTCOME_CONNECT, "connecting timed out");
    outbound_close(o, false);
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
    outbound_pump(o);
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct outbound *o = c->owner;
    if (!o->is_closing) {
        smtp_client_input(&o->client, in, &o->r->w->now);
        outbound_pump(o);
    }
    return in.len;
}

static void on_end(struct conn *c, int result)
{
    struct outbound *o = c->owner;
    bool is_shaking = o->client.state == CLIENT_TLS;
    o->hung_up_on_ehlo = smtp_client_awaits_ehlo(&o->client);
    smtp_client_lost(&o->client, is_shaking ? OUTCOME_TLS : OUTCOME_LOST,
                     result < 0 ? strerror(-result) : "the connection was closed by the peer");
    collect_finished(o);
    outbound_close(o, false);
}

/* A failed handshake closes the connection by itself. */
static void on_secure(struct conn *c, int result)
{
    struct outbound *o = c->owner;
    if (o->is_closing)
        return;
    if (result < 0) {
        outbound_report_tls(o, outbound_tls_policy(o), TLS_OUTCOME_OTHER);
        smtp_client_lost(&o->client, OUTCOME_TLS, outbound_tls_error(o));
        outbound_close(o, true);
    } else {
        outbound_take_tls(o);
        outbound_pump(o);
    }
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct outbound *o = c->owner;
    body_unpin(o, sent);
    smtp_client_progress(&o->client, &o->r->w->now);
    if (!o->is_closing)
        outbound_pump(o);
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

/* The same address, another way. */
static void try_again(const struct outbound *o, enum outbound_way way)
{
    struct relay_host host = {
        .addr = o->addr, .addr_len = o->addr_len, .tlsa = o->tlsa, .sts = o->sts
    };
    connect_to(o->r, o->slot, &host, way);
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
    body_end(o);
    log_closed(o, failure);
    if (failure)
        relay_sites_heard(o, failure, 1);
    if (failure && failure->stage == OUTCOME_TLS)
        outbound_report_clear(o);
    body_unpin(o, UINT64_MAX);
    wheel_clear(&r->w->wheel, &o->timer);
    outbound_free_secret(o->secret);
    if (next_way(o) != o->way)
        try_again(o, next_way(o));
    else
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
    .on_secure = on_secure,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

/* --- entry points ---------------------------------------------------------------------------- */

static void connect_failed(struct relay_driver *r, struct relay_slot *slot,
                           enum outcome_stage stage, const char *why)
{
    struct rcpt_outcome failure = {
        .stage = stage, .code = 451, .enhanced = "4.3.0", .text = slice_str(why)
    };
    relay_pool_slot_gone(r->pool, slot, &failure, &r->w->now);
}

/* Hosts of a family that the source does not have were left out (drive_relay.c). */
static const struct sockaddr *address_of(const struct config_source *source, sa_family_t family)
{
    if (!source)
        return NULL;
    return (const struct sockaddr *)(family == AF_INET6 ? &source->v6 : &source->v4);
}

static struct outbound *outbound_new(struct relay_driver *r, struct relay_slot *slot,
                                     const struct relay_host *host)
{
    struct outbound *o = mem_zalloc(sizeof *o);
    o->conn =
        conn_connect(&r->w->conns, address_of(slot->dest->source, host->addr.ss_family),
                     (const struct sockaddr *)&host->addr, host->addr_len, &outbound_events, o);
    if (!o->conn) {
        free(o);
        return NULL;
    }
    o->r = r;
    o->slot = slot;
    slot->conn = o;
    o->addr = host->addr;
    o->addr_len = host->addr_len;
    o->tlsa = host->tlsa;
    o->sts = host->sts;
    list_init(&o->pins);
    list_push_back(&r->outbounds, &o->node);
    return o;
}

static void connect_to(struct relay_driver *r, struct relay_slot *slot,
                       const struct relay_host *host, enum outbound_way way)
{
    const struct config *cfg = r->w->cfg;
    struct client_policy policy;
    char *secret, why[512];
    if (!outbound_policy(slot->dest->route, host, way, &policy, &secret, why, sizeof why)) {
        connect_failed(r, slot, OUTCOME_AUTH, why);
        return;
    }
    struct outbound *o = outbound_new(r, slot, host);
    if (!o) {
        say_no_socket(slot->dest->source, why, sizeof why);
        outbound_free_secret(secret);
        connect_failed(r, slot, OUTCOME_CONNECT, why);
        return;
    }
    o->way = way;
    o->secret = secret;
    smtp_client_init(&o->client, &policy, helo_of(cfg, slot->dest->source),
                     cfg->relay.reply_timeout_ms, &r->w->now);
    wheel_timer_init(&o->timer, on_connect_timeout);
    wheel_set(&r->w->wheel, &o->timer, r->w->now.mono_ms + cfg->relay.connect_timeout_ms);
    metrics_add(&r->w->metrics, METRIC_RELAY_CONNECTIONS_TOTAL, 1);
    metrics_add(&r->w->metrics, METRIC_RELAY_CONNECTIONS_OPEN, 1);
}

void outbound_connect(struct relay_driver *r, struct relay_slot *slot,
                      const struct relay_host *host)
{
    connect_to(r, slot, host, OUTBOUND_USUAL);
}

void outbound_send(struct outbound *o, struct delivery *d)
{
    d->started_ms = o->r->w->now.mono_ms;
    d->txn = (struct smtp_txn){
        .message = d->message,
        .rcpts = d->rcpts,
        .rcpt_count = d->rcpt_count,
        .return_path = relay_return_path(o, d),
        .outcomes = d->outcomes,
        .arena = &d->arena,
        .owner = d,
    };
    list_init(&d->txn.node);
    smtp_client_begin(&o->client, &d->txn, &o->r->w->now);
    o->r->in_flight++;
    outbound_pump(o);
}

void outbound_quit(struct outbound *o)
{
    smtp_client_quit(&o->client);
    outbound_pump(o);
}
