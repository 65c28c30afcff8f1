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
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_BACKLOG   4096
#define JOIN_LOOK_MS     500 /* while workers drain, Redis is looked after this often */
#define ERROR_MAX        2048
#define NOTICE_LOOK_MS   50   /* while notice is given, Redis is looked after this often */
#define READY_WAIT_TURNS 1000 /* of 5 ms, at most, before serve.ready is said all the same */

struct node {
    const struct config *cfg; /* borrowed */
    struct worker *workers;   /* owned */
    uint32_t worker_count;
    struct redis_address redis;
    struct redis_child *child; /* owned; NULL with an external Redis */
    uint16_t shards;
    struct tls_store *tls;             /* owned; NULL: no listener encrypts */
    struct return_path_key return_key; /* as all nodes have it, once Redis is there */
    struct auth_shared *auth;          /* owned; NULL: no listener has AUTH */
    struct rules_store *rules;         /* owned */
    struct dkim_store *dkim;           /* owned; NULL: nothing is signed */
    _Atomic uint32_t *tenant_sessions; /* owned; one for each tenant */
    struct address_caps *address_caps; /* owned; NULL: no address is limited */
    struct admin *admin;               /* owned; NULL without an admin port */
    const struct metrics **sets;
    int log_fd;
    struct log log; /* the main thread's few lines */
    struct now now;
    _Atomic bool is_draining;
    struct buf error;
};

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

static void begin_line(struct node *n, enum log_level level, const char *event)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    n->now.wall_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    log_begin(&n->log, level, event);
}

static void end_line(struct node *n)
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

/* --- listeners ------------------------------------------------------------------------------- */

static size_t bind_count(const struct config *cfg)
{
    size_t count = 0;
    for (size_t i = 0; i < cfg->listener_count; i++)
        count += cfg->listeners[i].bind_count;
    return count;
}

static enum status bind_one(struct node *n, const struct config_listener *l,
                            const struct config_bind *b, const struct sockaddr_storage *addr,
                            int *out)
{
    int one = 1;
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
        /* Accepted sockets inherit it: replies leave at once. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (addr->ss_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    }
    if (fd < 0 || bind(fd, (const struct sockaddr *)addr, b->addr_len) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        must(buf_printf(&n->error, "%s:%d: listener \"%s\": bind %s:%u: %s", n->cfg->file, l->line,
                        l->name, b->host, b->port, strerror(errno)) == STATUS_OK);
        if (fd >= 0)
            close(fd);
        return STATUS_SYSTEM;
    }
    *out = fd;
    return STATUS_OK;
}

static uint16_t port_of(const struct sockaddr_storage *addr)
{
    return ntohs(addr->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)addr)->sin6_port
                                             : ((const struct sockaddr_in *)addr)->sin_port);
}

static void log_listen(struct node *n, const struct config_listener *l, const struct config_bind *b,
                       const struct sockaddr_storage *addr)
{
    char text[300];
    int len = snprintf(text, sizeof text, addr->ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u",
                       b->host, port_of(addr));
    begin_line(n, LOG_INFO, "listen.open");
    log_cstr(&n->log, "name", l->name);
    log_str(&n->log, "addr", slice_of(text, (size_t)len));
    end_line(n);
}

/* One socket per worker for each address; the kernel spreads connections over them. Port 0 is
 * chosen once. */
static enum status bind_for_all(struct node *n, const struct config_listener *l,
                                const struct config_bind *b, struct worker_listener **sets,
                                size_t at)
{
    struct sockaddr_storage addr = b->addr;
    for (uint32_t w = 0; w < n->worker_count; w++) {
        sets[w][at].cfg = l;
        enum status st = bind_one(n, l, b, &addr, &sets[w][at].fd);
        if (st != STATUS_OK)
            return st;
        socklen_t len = sizeof addr;
        if (b->port == 0 && getsockname(sets[w][at].fd, (struct sockaddr *)&addr, &len) < 0)
            return STATUS_SYSTEM;
    }
    log_listen(n, l, b, &addr);
    return STATUS_OK;
}

static enum status bind_all(struct node *n, struct worker_listener **sets)
{
    size_t at = 0;
    for (size_t i = 0; i < n->cfg->listener_count; i++)
        for (size_t j = 0; j < n->cfg->listeners[i].bind_count; j++) {
            const struct config_listener *l = &n->cfg->listeners[i];
            enum status st = bind_for_all(n, l, &l->binds[j], sets, at++);
            if (st != STATUS_OK)
                return st;
        }
    return STATUS_OK;
}

/* --- certificates ---------------------------------------------------------------------------- */

static enum status load_tls(struct node *n)
{
    if (n->cfg->tls.certificate_count == 0)
        return STATUS_OK;
    return tls_store_new(n->cfg, &n->tls, &n->error);
}

/* Bad files leave the good certificates in place; the log says so once for each change. */
static void reload_tls(struct node *n)
{
    struct buf error;
    buf_init(&error, ERROR_MAX);
    bool is_good = tls_store_reload(n->tls, &error) == STATUS_OK;
    begin_line(n, is_good ? LOG_INFO : LOG_ERROR, is_good ? "tls.reloaded" : "tls.bad");
    if (!is_good)
        log_str(&n->log, "error", buf_slice(&error));
    end_line(n);
    buf_done(&error);
}

static void look_after_tls(struct node *n, bool is_asked)
{
    if (n->tls && (is_asked || tls_store_has_changed(n->tls)))
        reload_tls(n);
}

/* --- users ----------------------------------------------------------------------------------- */

bool node_needs_users(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->listener_count; i++)
        if (cfg->listeners[i].auth != AUTH_OFF)
            return true;
    return false;
}

static enum status load_users(struct node *n)
{
    return node_needs_users(n->cfg) ? auth_shared_new(n->cfg, &n->auth, &n->error) : STATUS_OK;
}

static void look_after_users(struct node *n, bool is_asked)
{
    struct buf error;
    if (!n->auth || (!is_asked && !auth_shared_has_changed(n->auth)))
        return;
    buf_init(&error, ERROR_MAX);
    bool is_good = auth_shared_reload(n->auth, &error) == STATUS_OK;
    begin_line(n, is_good ? LOG_INFO : LOG_ERROR, is_good ? "users.reloaded" : "users.bad");
    if (!is_good)
        log_str(&n->log, "error", buf_slice(&error));
    end_line(n);
    buf_done(&error);
}

/* --- rules about replies --------------------------------------------------------------------- */

static void look_after_rules(struct node *n, bool is_asked)
{
    struct buf error;
    if (!n->cfg->relay.rules || (!is_asked && !rules_store_has_changed(n->rules)))
        return;
    buf_init(&error, ERROR_MAX);
    bool is_good = rules_store_reload(n->rules, &error) == STATUS_OK;
    begin_line(n, is_good ? LOG_INFO : LOG_ERROR, is_good ? "rules.reloaded" : "rules.bad");
    if (!is_good)
        log_str(&n->log, "error", buf_slice(&error));
    end_line(n);
    buf_done(&error);
}

/* --- keys that sign -------------------------------------------------------------------------- */

static void log_troubles(struct node *n)
{
    struct slice rest = dkim_store_troubles(n->dkim);
    while (rest.len > 0) {
        size_t len = slice_find(rest, '\n');
        begin_line(n, LOG_ERROR, "dkim.bad");
        log_str(&n->log, "error", slice_head(rest, len));
        end_line(n);
        rest = slice_skip(rest, len + 1);
    }
}

static enum status load_dkim(struct node *n)
{
    if (!dkim_store_is_wanted(n->cfg))
        return STATUS_OK;
    enum status st = dkim_store_new(n->cfg, &n->dkim, &n->error);
    if (st == STATUS_OK)
        log_troubles(n);
    return st;
}

static void look_after_dkim(struct node *n, bool is_asked)
{
    if (!n->dkim || (!is_asked && !dkim_store_has_changed(n->dkim)))
        return;
    dkim_store_reload(n->dkim);
    begin_line(n, LOG_INFO, "dkim.reloaded");
    log_num(&n->log, "keys", dkim_store_count(n->dkim));
    end_line(n);
    log_troubles(n);
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
    size_t count = bind_count(n->cfg);
    struct worker_listener **sets = mem_zalloc(n->worker_count * sizeof *sets);
    for (uint32_t i = 0; i < n->worker_count; i++) {
        sets[i] = mem_zalloc(count * sizeof **sets);
        for (size_t j = 0; j < count; j++)
            sets[i][j].fd = -1;
    }
    enum status st = load_tls(n);
    if (st == STATUS_OK)
        st = load_users(n);
    if (st == STATUS_OK)
        st = rules_store_new(n->cfg, &n->rules, &n->error);
    if (st == STATUS_OK)
        st = load_dkim(n);
    if (st == STATUS_OK)
        st = bind_all(n, sets);
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
    begin_line(n, LOG_INFO, "admin.open");
    log_str(&n->log, "addr", slice_of(text, (size_t)len));
    end_line(n);
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
    begin_line(n, LOG_ERROR, restarted ? "redis.restarted" : "redis.ended");
    log_cstr(&n->log, "note", note);
    end_line(n);
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
    begin_line(n, LOG_INFO, "serve.notice");
    log_num(&n->log, "ms", n->cfg->limits.drain_notice_ms);
    end_line(n);
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
        look_after_tls(n, sig == SIGHUP);
        look_after_users(n, sig == SIGHUP);
        look_after_rules(n, sig == SIGHUP);
        look_after_dkim(n, sig == SIGHUP);
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
    begin_line(n, LOG_INFO, "serve.ready");
    log_cstr(&n->log, "version", KILAT_VERSION);
    log_num(&n->log, "workers", n->worker_count);
    log_num(&n->log, "shards", n->shards);
    end_line(n);
    run_until_signal(n, signals);
    allow_second_signal(signals);
    give_notice(n);
    drain(n);
    int code = join_workers(n);
    begin_line(n, LOG_INFO, "serve.end");
    end_line(n);
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
    buf_init(&n->error, ERROR_MAX);
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
