/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: everything that happens once.
 *
 * Start: listeners are bound first (a taken port is the commonest mistake and costs nothing to
 * find), then Redis, then the workers, then the admin port. End: SIGTERM or SIGINT drains the
 * workers, each within limits.drain_timeout; a second signal ends the process at once, as a kill
 * would. SIGCHLD: the embedded Redis died; it is started again and the workers reconnect.
 */
#include "io/node.h"
#include "core/base/must.h"
#include "core/smtp/return_path.h"
#include "io/address_caps.h"
#include "io/admin.h"
#include "io/authenticator.h"
#include "io/dkim_store.h"
#include "io/node_private.h"
#include "io/rules_store.h"
#include "io/shared_secret.h"
#include "io/tls.h"
#include "io/worker.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define JOIN_LOOK_MS     500  /* while workers drain, Redis is looked after this often */
#define NOTICE_LOOK_MS   50   /* while notice is given, Redis is looked after this often */
#define READY_WAIT_TURNS 1000 /* of 5 ms, at most, before serve.ready is said all the same */

/* --- the log --------------------------------------------------------------------------------- */

static void flush_log(struct node *n)
{
    struct slice rest = buf_slice(&n->log.out);
    while (rest.len > 0) {
        ssize_t done = write(n->log_fd, rest.ptr, rest.len);
        if (done < 0 && errno != EINTR)
            break;
        rest = slice_skip(rest, done > 0 ? (size_t)done : 0);
    }
    buf_clear(&n->log.out);
}

void node_line(struct node *n, enum log_level level, const char *event)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    n->now.wall_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    log_begin(&n->log, level, event);
}

void node_line_end(struct node *n)
{
    log_end(&n->log);
    flush_log(n);
}

/* Workers write to it at once. Without append each would write at a position that another is about
 * to move, and lines would be lost; pipes and terminals have no position. */
static void make_append_only(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        fcntl(fd, F_SETFL, flags | O_APPEND);
}

static enum status open_log(struct node *n)
{
    n->log_fd = STDOUT_FILENO;
    make_append_only(n->log_fd);
    if (n->cfg->log.file) {
        n->log_fd = open(n->cfg->log.file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (n->log_fd < 0) {
            must(buf_printf(&n->error, "%s: %s (log.file)", n->cfg->log.file, strerror(errno)) ==
                 STATUS_OK);
            return STATUS_SYSTEM;
        }
    }
    log_init(&n->log, n->cfg->log.json ? LOG_JSON : LOG_PLAIN, (enum log_level)n->cfg->log.level,
             &n->now);
    return STATUS_OK;
}

/* --- start ----------------------------------------------------------------------------------- */

uint32_t node_worker_count(const struct config *cfg)
{
    cpu_set_t cpus;
    if (cfg->workers > 0)
        return cfg->workers;
    if (sched_getaffinity(0, sizeof cpus, &cpus) < 0)
        return 1;
    return (uint32_t)CPU_COUNT(&cpus);
}

/* Every session is an open file. */
void node_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* One that nobody uses is not made. */
static enum status adopt_return_key(struct node *n)
{
    shared_secret_make(n->return_key.octets);
    for (size_t i = 0; i < n->cfg->listener_count; i++)
        if (n->cfg->listeners[i].role == LISTENER_BOUNCES)
            return shared_secret_adopt(&n->redis, "return_secret", n->return_key.octets, &n->error);
    return STATUS_OK;
}

static enum status start_redis(struct node *n)
{
    enum status st = STATUS_OK;
    if (n->cfg->redis.mode == REDIS_EMBEDDED)
        st = redis_child_start(n->cfg, &n->child, &n->error);
    if (st == STATUS_OK)
        st = redis_address_of(n->cfg, &n->redis, &n->error);
    if (st == STATUS_OK)
        st = redis_boot(n->cfg, &n->redis, &n->shards, &n->error);
    if (st == STATUS_OK && n->auth)
        st = auth_shared_adopt(n->auth, &n->redis, &n->error);
    if (st == STATUS_OK)
        st = adopt_return_key(n);
    return st;
}

static enum status prepare_workers(struct node *n)
{
    size_t count = node_bind_count(n->cfg);
    struct worker_listener **sets = mem_zalloc(n->worker_count * sizeof *sets);
    for (uint32_t i = 0; i < n->worker_count; i++) {
        sets[i] = mem_zalloc(count * sizeof **sets);
        for (size_t j = 0; j < count; j++)
            sets[i][j].fd = -1;
    }
    enum status st = node_load_tls(n);
    if (st == STATUS_OK)
        st = node_load_users(n);
    if (st == STATUS_OK)
        st = rules_store_new(n->cfg, &n->rules, &n->error);
    if (st == STATUS_OK)
        st = node_load_dkim(n);
    if (st == STATUS_OK)
        st = node_bind_all(n, sets);
    if (st == STATUS_OK)
        st = start_redis(n);
    for (uint32_t i = 0; i < n->worker_count; i++) {
        worker_init(&n->workers[i], i, n->worker_count, n->cfg, &n->redis, n->shards, n->log_fd,
                    sets[i], count);
        n->workers[i].tls = n->tls;
        n->workers[i].auth_shared = n->auth;
        n->workers[i].return_key = &n->return_key;
        n->workers[i].rules = n->rules;
        n->workers[i].dkim = n->dkim;
        n->workers[i].tenant_sessions = n->tenant_sessions;
        n->workers[i].address_caps = n->address_caps;
        n->sets[i] = &n->workers[i].metrics;
    }
    free(sets);
    return st;
}

static const char *not_ready(void *ctx)
{
    struct node *n = ctx;
    if (atomic_load(&n->is_draining))
        return "draining";
    for (uint32_t i = 0; i < n->worker_count; i++) {
        int trouble = atomic_load_explicit(&n->workers[i].trouble, memory_order_relaxed);
        const char *name = worker_trouble_name((enum worker_trouble)trouble);
        if (name)
            return name;
    }
    return NULL;
}

static enum status start_admin(struct node *n)
{
    struct admin_view view = {
        .sets = n->sets, .set_count = n->worker_count, .not_ready = not_ready, .ctx = n
    };
    if (!n->cfg->admin.bind)
        return STATUS_OK;
    enum status st = admin_start(n->cfg->admin.bind, &view, &n->admin, &n->error);
    if (st != STATUS_OK)
        return st;
    char text[300];
    int len = snprintf(text, sizeof text, "%s:%u", n->cfg->admin.bind->host, admin_port(n->admin));
    node_line(n, LOG_INFO, "admin.open");
    log_str(&n->log, "addr", slice_of(text, (size_t)len));
    node_line_end(n);
    return STATUS_OK;
}

/* --- running --------------------------------------------------------------------------------- */

static void drain(struct node *n)
{
    for (uint32_t i = 0; i < n->worker_count; i++)
        worker_drain(&n->workers[i]);
}

static void look_after_child(struct node *n)
{
    char note[256] = "";
    if (!n->child)
        return;
    bool restarted = redis_child_reap(n->child, note, sizeof note);
    if (!note[0] && !restarted)
        return;
    node_line(n, LOG_ERROR, restarted ? "redis.restarted" : "redis.ended");
    log_cstr(&n->log, "note", note);
    node_line_end(n);
}

static bool any_worker_failed(const struct node *n)
{
    for (uint32_t i = 0; i < n->worker_count; i++)
        if (atomic_load(&n->workers[i].has_failed))
            return true;
    return false;
}

/* /readyz is false from here on; load balancers get limits.drain_notice to see it, while everybody
 * is served as before. */
static void give_notice(struct node *n)
{
    struct timespec pause = { .tv_nsec = NOTICE_LOOK_MS * 1000000 };
    atomic_store(&n->is_draining, true);
    if (n->cfg->limits.drain_notice_ms == 0)
        return;
    node_line(n, LOG_INFO, "serve.notice");
    log_num(&n->log, "ms", n->cfg->limits.drain_notice_ms);
    node_line_end(n);
    for (uint32_t ms = 0; ms < n->cfg->limits.drain_notice_ms && !any_worker_failed(n);
         ms += NOTICE_LOOK_MS) {
        nanosleep(&pause, NULL);
        look_after_child(n);
    }
}

/* Waits for signals; a look every second catches what has no signal. */
static void run_until_signal(struct node *n, const sigset_t *signals)
{
    struct timespec second = { .tv_sec = 1 };
    for (;;) {
        int sig = sigtimedwait(signals, NULL, &second);
        if (sig == SIGTERM || sig == SIGINT)
            return;
        if (any_worker_failed(n))
            return;
        look_after_child(n);
        node_watch_files(n, sig == SIGHUP);
    }
}

static void on_second_signal(int sig)
{
    _exit(128 + sig);
}

static void hear_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGCHLD);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void allow_second_signal(const sigset_t *signals)
{
    signal(SIGTERM, on_second_signal);
    signal(SIGINT, on_second_signal);
    signal(SIGHUP, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, signals, NULL);
}

static void start_workers(struct node *n)
{
    for (uint32_t i = 0; i < n->worker_count; i++)
        must(worker_start(&n->workers[i]) == STATUS_OK);
}

static int join_workers(struct node *n)
{
    int code = 0;
    for (uint32_t i = 0; i < n->worker_count; i++) {
        while (!worker_join_within(&n->workers[i], JOIN_LOOK_MS))
            look_after_child(n);
        if (!atomic_load(&n->workers[i].has_failed))
            continue;
        fprintf(stderr, "kilat: worker %u: %.*s\n", i, SLICE_ARG(buf_slice(&n->workers[i].error)));
        code = 1;
    }
    return code;
}

/* Ready means that mail is welcome: every worker has its Redis links. */
static void wait_for_workers(struct node *n)
{
    struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
    for (int i = 0; i < READY_WAIT_TURNS && not_ready(n) && !any_worker_failed(n); i++)
        nanosleep(&pause, NULL);
}

static int serve_prepared(struct node *n, const sigset_t *signals)
{
    start_workers(n);
    wait_for_workers(n);
    node_line(n, LOG_INFO, "serve.ready");
    log_cstr(&n->log, "version", KILAT_VERSION);
    log_num(&n->log, "workers", n->worker_count);
    log_num(&n->log, "shards", n->shards);
    node_line_end(n);
    run_until_signal(n, signals);
    allow_second_signal(signals);
    give_notice(n);
    drain(n);
    int code = join_workers(n);
    node_line(n, LOG_INFO, "serve.end");
    node_line_end(n);
    return code;
}

static struct address_caps *make_address_caps(const struct config *cfg)
{
    struct address_limits limits = { .sessions = cfg->limits.sessions_per_address,
                                     .per_second = cfg->tls.handshakes_per_address };
    return address_caps_new(&limits, cfg->limits.sessions_max);
}

static void node_init(struct node *n, const struct config *cfg)
{
    *n = (struct node){ .cfg = cfg, .worker_count = node_worker_count(cfg), .log_fd = -1 };
    n->workers = mem_zalloc(n->worker_count * sizeof *n->workers);
    n->sets = mem_zalloc(n->worker_count * sizeof *n->sets);
    n->tenant_sessions = mem_zalloc((cfg->tenant_count + 1) * sizeof *n->tenant_sessions);
    n->address_caps = make_address_caps(cfg);
    buf_init(&n->error, NODE_ERROR_MAX);
}

static void node_done(struct node *n)
{
    if (n->admin)
        admin_stop(n->admin);
    for (uint32_t i = 0; i < n->worker_count; i++)
        if (n->workers[i].listeners)
            worker_done(&n->workers[i]);
    if (n->child)
        redis_child_stop(n->child);
    redis_address_done(&n->redis);
    log_done(&n->log);
    if (n->cfg->log.file && n->log_fd >= 0)
        close(n->log_fd);
    buf_done(&n->error);
    auth_shared_free(n->auth);
    rules_store_free(n->rules);
    dkim_store_free(n->dkim);
    tls_store_free(n->tls);
    free((void *)n->tenant_sessions);
    address_caps_free(n->address_caps);
    free(n->workers);
    free(n->sets);
}

int node_serve(const struct config *cfg)
{
    struct node n;
    sigset_t signals;
    int code = 1;
    node_raise_file_limit();
    hear_signals(&signals);
    node_init(&n, cfg);
    enum status st = open_log(&n);
    if (st == STATUS_OK)
        st = prepare_workers(&n);
    if (st == STATUS_OK)
        st = start_admin(&n);
    if (st == STATUS_OK)
        code = serve_prepared(&n, &signals);
    else
        fprintf(stderr, "kilat: %.*s\n", SLICE_ARG(buf_slice(&n.error)));
    node_done(&n);
    return code;
}
