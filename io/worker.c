/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop. Order at the end of a turn matters: sessions may have produced messages, so the queue
 * comes after them; commits may have given deliveries to the relay, whose finished work rides the
 * next commit; output is submitted last, with everything the turn has produced.
 */
#include "io/worker.h"
#include "core/base/must.h"
#include "io/authenticator.h"
#include "io/drive_queue.h"
#include "io/drive_relay.h"
#include "io/drive_submit.h"
#include "io/signer.h"
#include <openssl/rand.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define CONNS_SPARE   64   /* Redis links, refused clients on their way out */
#define WAIT_MAX_MS   1000 /* gauges and buffers are looked at this often */
#define CALM_EVERY_MS 60000
#define GATHER_SHARE  2
#define GATHER_MAX    64
#define LOAD_HIGH     90 /* percent of a limit at which /readyz turns false */
#define LOAD_CALM     70 /* ... and below which it is true again */
/* The oldest commit may be this part of limits.commit_timeout old before it counts as full. */
#define COMMIT_AGE_SHARE 3
#define QUIET_TURNS      200 /* turns of 10 ms that the last connections get to end */

static void fill_random(void *ctx, void *out, size_t len)
{
    must(RAND_bytes(out, len) == 1);
}

static int64_t clock_ms(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void read_clocks(struct worker *w)
{
    w->now.mono_ms = clock_ms(CLOCK_MONOTONIC);
    w->now.wall_ms = clock_ms(CLOCK_REALTIME);
}

void worker_init(struct worker *w, uint32_t id, uint32_t worker_count, const struct config *cfg,
                 const struct redis_address *redis, uint16_t shards, int log_fd,
                 struct worker_listener *listeners, size_t listener_count)
{
    *w = (struct worker){
        .id = id,
        .worker_count = worker_count,
        .cfg = cfg,
        .redis = redis,
        .shards = shards,
        .log_fd = log_fd,
        .listeners = listeners,
        .listener_count = listener_count,
        .trouble = WORKER_NO_REDIS, /* until it is known */
        .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .metrics = { .ages = queue_age_new(cfg) },
    };
    must(w->wake_fd >= 0);
    helper_inbox_init(&w->inbox, w->wake_fd);
    buf_init(&w->error, 1024);
    entropy_init(&w->entropy, fill_random, NULL);
    w->budget.max = worker_share(w, cfg->limits.content_memory_max);
}

/* --- the loop -------------------------------------------------------------------------------- */

static void on_wake(void *ctx, const struct ring_done *done)
{
    struct worker *w = ctx;
    uint64_t count;
    if (read(w->wake_fd, &count, sizeof count) == (ssize_t)sizeof count || !w->is_draining)
        ring_poll_in(w->ring, w->wake_fd, (struct ring_tag){ RING_WAKE, 0, 0 });
}

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t wait_ms(struct worker *w, bool more_to_do)
{
    if (more_to_do)
        return 0;
    int64_t now = w->now.mono_ms, wait = WAIT_MAX_MS;
    int64_t wheel = wheel_wait_ms(&w->wheel, now);
    if (wheel >= 0)
        wait = min_of(wait, wheel);
    wait = min_of(wait, queue_wake_ms(w->queue) - now);
    wait = min_of(wait, relay_wake_ms(w->relay) - now);
    return wait > 0 ? wait : 0;
}

/* How many completions to gather before waking: half of the peers that have something to say,
 * so nobody waits for a loop that few use, and a busy one is not woken for each segment. */
static uint32_t expected(const struct worker *w)
{
    uint32_t talking = submit_talking(w->submit) + relay_talking(w->relay);
    return talking / GATHER_SHARE < GATHER_MAX ? talking / GATHER_SHARE : GATHER_MAX;
}

/* In percent of what leads to a refusal. */
static uint64_t load_of(const struct worker *w)
{
    uint64_t sessions =
        100 * (uint64_t)submit_sessions(w->submit) / worker_share(w, w->cfg->limits.sessions_max);
    uint64_t memory = 100 * (uint64_t)w->budget.used / w->budget.max;
    uint64_t commit = 100 * (uint64_t)queue_commit_age_ms(w->queue) /
                      (w->cfg->limits.commit_timeout_ms / COMMIT_AGE_SHARE);
    uint64_t most = sessions > memory ? sessions : memory;
    return most > commit ? most : commit;
}

/* Overload begins near the limit and is over only well below it: a balancer should not see it
 * flicker. */
static enum worker_trouble trouble_of(const struct worker *w)
{
    bool was_overloaded =
        atomic_load_explicit(&w->trouble, memory_order_relaxed) == WORKER_OVERLOADED;
    if (!queue_is_up(w->queue))
        return WORKER_NO_REDIS;
    return load_of(w) >= (was_overloaded ? LOAD_CALM : LOAD_HIGH) ? WORKER_OVERLOADED
                                                                  : WORKER_READY;
}

const char *worker_trouble_name(enum worker_trouble trouble)
{
    static const char *const names[] = {
        [WORKER_READY] = NULL, [WORKER_NO_REDIS] = "redis", [WORKER_OVERLOADED] = "overload"
    };
    return names[trouble];
}

/* Tells /readyz, and the log once for each change. */
static void update_trouble(struct worker *w)
{
    enum worker_trouble trouble = trouble_of(w);
    if ((int)trouble == atomic_load_explicit(&w->trouble, memory_order_relaxed))
        return;
    atomic_store_explicit(&w->trouble, trouble, memory_order_relaxed);
    bool is_ready = trouble == WORKER_READY;
    log_begin(&w->log, is_ready ? LOG_INFO : LOG_WARN,
              is_ready ? "worker.ready" : "worker.not_ready");
    log_num(&w->log, "worker", w->id);
    if (!is_ready)
        log_str(&w->log, "reason", slice_str(worker_trouble_name(trouble)));
    log_end(&w->log);
}

static void update_gauges(struct worker *w)
{
    metrics_add(&w->metrics, METRIC_LOOP_TURNS_TOTAL, 1);
    queue_age_tick(w->metrics.ages, w->now.mono_ms);
    metrics_set(&w->metrics, METRIC_SESSIONS_OPEN, submit_sessions(w->submit));
    metrics_set(&w->metrics, METRIC_DELIVERIES_HELD, relay_held(w->relay));
    metrics_set(&w->metrics, METRIC_MEMORY_CONTENT_BYTES, (int64_t)w->budget.used);
    metrics_set(&w->metrics, METRIC_LOG_DROPPED_TOTAL, (int64_t)w->log.dropped);
    if (w->now.mono_ms >= w->calm_at_ms) {
        ring_buffers_calm(w->ring);
        w->calm_at_ms = w->now.mono_ms + CALM_EVERY_MS;
    }
}

static bool end_turn(struct worker *w)
{
    if (w->signer)
        signer_pump(w->signer);
    if (w->auth)
        authenticator_pump(w->auth);
    submit_pump(w->submit);
    relay_pump(w->relay);
    queue_pump(w->queue);
    bool more = conn_table_flush(&w->conns);
    update_trouble(w);
    log_sink_pump(&w->sink);
    update_gauges(w);
    return more;
}

static void begin_drain(struct worker *w)
{
    w->is_draining = true;
    w->drain_until_ms = w->now.mono_ms + w->cfg->limits.drain_timeout_ms;
    log_begin(&w->log, LOG_INFO, "worker.drain");
    log_num(&w->log, "worker", w->id);
    log_num(&w->log, "sessions", submit_sessions(w->submit));
    log_num(&w->log, "deliveries", relay_held(w->relay));
    log_end(&w->log);
    submit_drain(w->submit);
    relay_drain(w->relay);
}

/* What must be over before the worker may go: sessions first, then deliveries, then what they have
 * left to say to Redis, then the leases. At the deadline it goes as a kill would, losing nothing.
 */
static bool drain_is_over(struct worker *w)
{
    if (w->now.mono_ms >= w->drain_until_ms)
        return true;
    if (submit_sessions(w->submit) > 0 || relay_held(w->relay) > 0 || queue_pending(w->queue) > 0)
        return false;
    return relay_bye(w->relay) && queue_bye(w->queue);
}

static void loop(struct worker *w)
{
    bool more = false;
    for (;;) {
        ring_wait(w->ring, wait_ms(w, more), expected(w));
        read_clocks(w); /* after the wait: handlers see the time of now */
        ring_dispatch(w->ring);
        wheel_advance(&w->wheel, w->now.mono_ms);
        if (!w->is_draining && atomic_load(&w->drain_wanted))
            begin_drain(w);
        more = end_turn(w);
        if (w->is_draining && drain_is_over(w))
            return;
    }
}

/* --- the thread ------------------------------------------------------------------------------ */

static uint32_t sockets_max(const struct worker *w)
{
    return (uint32_t)worker_share(w, w->cfg->limits.sessions_max) + w->cfg->relay.connections_max +
           CONNS_SPARE;
}

static enum status assemble(struct worker *w)
{
    struct ring_config ring = { .sockets_max = sockets_max(w) };
    enum status st = ring_new(&ring, &w->ring, &w->error);
    if (st != STATUS_OK)
        return st;
    read_clocks(w);
    wheel_init(&w->wheel, w->now.mono_ms);
    log_init(&w->log, w->cfg->log.json ? LOG_JSON : LOG_PLAIN, (enum log_level)w->cfg->log.level,
             &w->now);
    log_sink_init(&w->sink, w->ring, &w->log, w->log_fd);
    conn_table_init(&w->conns, w->ring, &w->wheel, &w->metrics, &w->now, sockets_max(w));
    ring_on(w->ring, RING_WAKE, on_wake, w);
    w->queue = queue_new(w);
    w->auth = w->auth_shared ? authenticator_new(w, w->auth_shared) : NULL;
    w->signer = w->dkim ? signer_new(w, w->dkim) : NULL;
    w->relay = relay_new(w);
    w->submit = submit_new(w);
    if (!w->relay)
        return STATUS_SYSTEM;
    ring_poll_in(w->ring, w->wake_fd, (struct ring_tag){ RING_WAKE, 0, 0 });
    return STATUS_OK;
}

/* Connections end first: the kernel may read or write their memory until the last completion. */
static void quiet(struct worker *w)
{
    submit_abandon(w->submit);
    relay_abandon(w->relay);
    queue_abandon(w->queue);
    for (int i = 0; i < QUIET_TURNS; i++) {
        log_sink_pump(&w->sink);
        bool more = conn_table_flush(&w->conns);
        if (conn_table_live(&w->conns) == 0 && submit_is_quiet(w->submit) && !w->sink.is_writing)
            return;
        ring_turn(w->ring, more ? 0 : 10, 1);
        read_clocks(w);
        wheel_advance(&w->wheel, w->now.mono_ms);
    }
}

static void dismantle(struct worker *w)
{
    quiet(w);
    ring_free(w->ring);
    log_sink_finish(&w->sink);
    submit_free(w->submit);
    signer_free(w->signer);
    if (w->auth)
        authenticator_free(w->auth);
    relay_free(w->relay);
    queue_free(w->queue);
    conn_table_done(&w->conns);
    log_done(&w->log);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    if (assemble(w) != STATUS_OK) {
        atomic_store(&w->has_failed, true);
        return NULL;
    }
    queue_start(w->queue);
    submit_start(w->submit);
    loop(w);
    dismantle(w);
    return NULL;
}

enum status worker_start(struct worker *w)
{
    return pthread_create(&w->thread, NULL, run, w) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

void worker_drain(struct worker *w)
{
    uint64_t one = 1;
    atomic_store(&w->drain_wanted, true);
    /* A full counter has woken it already. */
    if (write(w->wake_fd, &one, sizeof one) < 0)
        return;
}

bool worker_join_within(struct worker *w, uint32_t wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_timedjoin_np(w->thread, NULL, &until) == 0;
}

void worker_done(struct worker *w)
{
    for (size_t i = 0; i < w->listener_count; i++)
        close(w->listeners[i].fd);
    free(w->listeners);
    queue_age_free(w->metrics.ages);
    helper_inbox_done(&w->inbox);
    close(w->wake_fd);
    buf_done(&w->error);
}
