/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting, and what concerns all submissions at once: the end of a turn, draining. A single one
 * is submission.c's.
 */
#include "io/drive_submit.h"
#include "core/base/must.h"
#include "io/submission.h"
#include <errno.h>
#include <stdlib.h>

#define ACCEPTS_PER_LISTENER 16
#define ACCEPT_PAUSE_MS      100

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

/* A certificate of the client is only there under TLS; the rest the authenticator knows. */
static uint32_t mechanisms_of(const struct worker *w, const struct config_listener *l)
{
    if (l->auth == AUTH_OFF || !w->auth_shared)
        return 0;
    return w->cfg->auth.mechanisms & auth_shared_mechanisms(w->auth_shared);
}

static struct smtp_service service_of(const struct submit_driver *d,
                                      const struct config_listener *l)
{
    return (struct smtp_service){
        .server = &d->servers[l->hide_client],
        .tls = l->tls,
        .auth = l->auth,
        .auth_without_tls = l->auth_without_tls,
        .mechanisms = mechanisms_of(d->w, l),
        .cfg = d->w->cfg,
        .tenant = l->tenant ? config_find_tenant(d->w->cfg, slice_str(l->tenant)) : NULL,
        .lane = l->lane,
        .returns = l->role == LISTENER_BOUNCES ? d->w->return_key : NULL,
        .judge = submission_judge,
        .judge_ctx = l,
    };
}

static struct smtp_server server_of(struct worker *w)
{
    return (struct smtp_server){
        .limits = limits_of(w->cfg),
        .hostname = slice_str(w->cfg->hostname),
        .entropy = &w->entropy,
        .metrics = &w->metrics,
        .budget = &w->budget,
        .signs = w->dkim != NULL,
    };
}

struct submit_driver *submit_new(struct worker *w)
{
    struct submit_driver *d = mem_zalloc(sizeof *d);
    d->w = w;
    d->servers[0] = d->servers[1] = server_of(w);
    d->servers[1].hides_client = true;
    d->services = mem_zalloc((w->listener_count + 1) * sizeof *d->services);
    for (size_t i = 0; i < w->listener_count; i++)
        d->services[i] = service_of(d, w->listeners[i].cfg);
    d->returns = returns_new(w);
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
    returns_free(d->returns);
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
static void refuse(struct submit_driver *d, struct ring_socket socket,
                   const struct accept_slot *slot, enum reply_id why)
{
    struct conn *c = conn_adopt(&d->w->conns, socket, &refused_events, NULL);
    if (!c) {
        metrics_add(&d->w->metrics, METRIC_SESSIONS_REFUSED_TOTAL, 1);
        ring_close(d->w->ring, socket);
        wheel_set(&d->w->wheel, &d->accept_pause, d->w->now.mono_ms + ACCEPT_PAUSE_MS);
        return;
    }
    submission_dismiss(d->w, c, d->w->listeners[slot->listener].cfg, why);
}

static void open_or_refuse(struct submit_driver *d, struct ring_socket socket,
                           const struct accept_slot *slot)
{
    if (!submission_open(d, socket, slot))
        refuse(d, socket, slot, REPLY_BUSY);
}

static void on_accept(void *ctx, const struct ring_done *done)
{
    struct submit_driver *d = ctx;
    struct accept_slot *slot = &d->slots[done->index];
    slot->is_armed = false;
    if (done->result >= 0) {
        struct ring_socket socket = { done->result, ring_features(d->w->ring).direct_sockets };
        if (d->w->is_draining)
            refuse(d, socket, slot, REPLY_SHUTTING_DOWN);
        else if (d->session_count >= d->session_max)
            refuse(d, socket, slot, REPLY_BUSY);
        else
            open_or_refuse(d, socket, slot);
    } else if (done->result == -ENFILE || done->result == -EMFILE || done->result == -ENOMEM ||
               done->result == -ENOBUFS) {
        /* The machine is out of something: rest, then go on. */
        wheel_set(&d->w->wheel, &d->accept_pause, d->w->now.mono_ms + ACCEPT_PAUSE_MS);
    }
    arm_accepts(d);
}

/* --- the end of a turn, the end of the worker ------------------------------------------------ */

void submit_pump(struct submit_driver *d)
{
    if (list_is_empty(&d->memory_waiters) || chain_budget_is_over(&d->w->budget))
        return;
    struct list *node;
    while ((node = list_pop_front(&d->memory_waiters)))
        submission_unblock(list_entry(node, struct submission, waiter));
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
    d->servers[0].is_draining = d->servers[1].is_draining = true;
    stop_accepting(d);
    list_for_each_safe (node, &d->sessions) {
        struct submission *s = list_entry(node, struct submission, node);
        if (s->is_over)
            continue;
        if (!s->is_greeted) {
            submission_close(s);
            continue;
        }
        smtp_session_drain(&s->session, &d->w->now);
        submission_after_event(s);
    }
}

void submit_abandon(struct submit_driver *d)
{
    stop_accepting(d);
    list_for_each_safe (node, &d->sessions) {
        struct submission *s = list_entry(node, struct submission, node);
        submission_close(s);
    }
}

bool submit_is_quiet(const struct submit_driver *d)
{
    for (size_t i = 0; i < d->slot_count; i++)
        if (d->slots[i].is_armed)
            return false;
    return true;
}
