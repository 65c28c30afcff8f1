/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check - `kilat check`: everything that a start reads and asks is read and asked, and nothing is
 * started: the kernel, the certificates, the users, the keys of tokens and of DKIM, the addresses
 * that mail leaves from, an external Redis. What is good is said on standard output; the first
 * thing that is not, on standard error.
 *
 * Not asked: whether ports are free (the gateway that runs has them) and the embedded Redis.
 *
 * To check more: a function of the shape check_xxx, and a row in checks[].
 */
#include "core/base/must.h"
#include "io/authenticator.h"
#include "io/dkim_store.h"
#include "io/fail.h"
#include "io/node.h"
#include "io/node_private.h"
#include "io/redis_boot.h"
#include "io/ring.h"
#include "io/rules_store.h"
#include "io/tls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ERROR_MAX 2048

static void print_text(const char *name, const char *value)
{
    printf("  %-18s %s\n", name, value);
}

/* --- limits ---------------------------------------------------------------------------------- */

/* Every session is an open file, and so is every outbound connection. */
static void print_limits(const struct config *cfg)
{
    struct rlimit limit = { 0 };
    uint64_t wanted =
        cfg->limits.sessions_max + (uint64_t)cfg->relay.connections_max * node_worker_count(cfg);
    printf("limits\n  %-18s %u\n", "sessions", cfg->limits.sessions_max);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    printf("  %-18s %llu%s\n", "open files", (unsigned long long)limit.rlim_cur,
           limit.rlim_cur < wanted
               ? " (fewer than limits.sessions_max and outbound connections: accepting rests when "
                 "they are used up; raise LimitNOFILE or lower sessions_max)"
               : "");
}

/* --- the kernel ------------------------------------------------------------------------------ */

static void print_feature(const char *name, bool is_used, const char *otherwise)
{
    print_text(name, is_used ? "yes" : otherwise);
}

static void print_ring(const struct ring_features *f)
{
    printf("io_uring\n");
    print_feature("single issuer", f->single_issuer, "no");
    print_feature("deferred task run", f->defer_taskrun,
                  f->coop_taskrun ? "no (cooperative)" : "no");
    print_feature("registered ring", f->ring_fd, "no (one lookup more per call)");
    print_feature("direct sockets", f->direct_sockets, "no (plain descriptors)");
    print_feature("multishot receive", f->multishot_recv, "no (one-shot receives)");
}

static enum status check_ring(const struct config *cfg, struct buf *error)
{
    struct ring *ring;
    struct ring_config rc = { .sockets_max = cfg->limits.sessions_max };
    enum status st = ring_new(&rc, &ring, error);
    if (st != STATUS_OK)
        return st;
    struct ring_features features = ring_features(ring);
    print_ring(&features);
    ring_free(ring);
    return STATUS_OK;
}

/* --- files ----------------------------------------------------------------------------------- */

/* The day the first certificate ends. An expired one is no reason not to start: clients that do not
 * look are still served. */
static void print_expiry(int64_t expires_ms)
{
    char text[64];
    struct tm tm;
    time_t at = (time_t)(expires_ms / 1000);
    bool is_over = at <= time(NULL);
    if (gmtime_r(&at, &tm) == NULL ||
        strftime(text, sizeof text, is_over ? "%Y-%m-%d (expired)" : "%Y-%m-%d", &tm) == 0)
        return;
    print_text("good until", text);
}

static enum status check_certificates(const struct config *cfg, struct buf *error)
{
    struct tls_store *store;
    if (cfg->tls.certificate_count == 0)
        return STATUS_OK;
    enum status st = tls_store_new(cfg, &store, error);
    if (st != STATUS_OK)
        return st;
    printf("tls\n  %-18s %zu\n", "certificates", cfg->tls.certificate_count);
    print_expiry(tls_store_expires_ms(store));
    tls_store_free(store);
    return STATUS_OK;
}

static enum status check_users(const struct config *cfg, struct buf *error)
{
    struct auth_shared *shared;
    if (!node_needs_users(cfg))
        return STATUS_OK;
    enum status st = auth_shared_new(cfg, &shared, error);
    if (st != STATUS_OK)
        return st;
    printf("auth\n");
    print_text("users", cfg->auth.users_file ? cfg->auth.users_file : "in Redis");
    if (cfg->auth.jwt_keys)
        print_text("keys of tokens", cfg->auth.jwt_keys);
    auth_shared_free(shared);
    return STATUS_OK;
}

static enum status check_rules(const struct config *cfg, struct buf *error)
{
    struct rules_store *store;
    enum status st = rules_store_new(cfg, &store, error);
    if (st != STATUS_OK)
        return st;
    if (cfg->relay.rules) {
        printf("relay\n");
        print_text("rules", cfg->relay.rules);
    }
    rules_store_free(store);
    return STATUS_OK;
}

/* A gateway starts with a key that it cannot read, and defers that domain's mail. */
static enum status check_dkim(const struct config *cfg, struct buf *error)
{
    struct dkim_store *store;
    if (!dkim_store_is_wanted(cfg))
        return STATUS_OK;
    enum status st = dkim_store_new(cfg, &store, error);
    if (st != STATUS_OK)
        return st;
    struct slice troubles = dkim_store_troubles(store);
    if (troubles.len > 0)
        st = fail_with(error, STATUS_BAD, "%.*s", (int)slice_find(troubles, '\n'), troubles.ptr);
    else
        printf("dkim\n  %-18s %u\n", "keys", dkim_store_count(store));
    dkim_store_free(store);
    return st;
}

/* --- addresses that mail leaves from --------------------------------------------------------- */

/* A gateway starts without an address that the machine does not have (yet), and defers what would
 * leave from it. */
static enum status try_address(const struct config_source *source,
                               const struct sockaddr_storage *addr, struct buf *error)
{
    if (addr->ss_family == 0)
        return STATUS_OK;
    socklen_t len =
        addr->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_ours = fd >= 0 && bind(fd, (const struct sockaddr *)addr, len) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    return is_ours ? STATUS_OK
                   : fail_with(error, STATUS_BAD,
                               "source \"%s\": no mail can leave from its %s address: %s: write an "
                               "address of this machine",
                               source->name, addr->ss_family == AF_INET ? "IPv4" : "IPv6",
                               strerror(why));
}

static enum status check_sources(const struct config *cfg, struct buf *error)
{
    for (size_t i = 0; i < cfg->source_count; i++) {
        const struct config_source *source = &cfg->sources[i];
        enum status st = try_address(source, &source->v4, error);
        if (st == STATUS_OK)
            st = try_address(source, &source->v6, error);
        if (st != STATUS_OK)
            return st;
    }
    if (cfg->source_count > 0)
        printf("sources\n  %-18s %zu\n", "addresses usable", cfg->source_count);
    return STATUS_OK;
}

/* --- Redis ----------------------------------------------------------------------------------- */

/* A URL without its user and password. */
static void print_redis(const char *url, uint16_t shards)
{
    const char *at = strrchr(url, '@');
    printf("redis\n  %-18s ok\n  %-18s %u\n", at ? at + 1 : url, "shards", shards);
}

static enum status check_redis(const struct config *cfg, struct buf *error)
{
    struct redis_address addr = { 0 };
    uint16_t shards = 0;
    if (cfg->redis.mode != REDIS_EXTERNAL)
        return STATUS_OK;
    enum status st = redis_address_of(cfg, &addr, error);
    if (st == STATUS_OK)
        st = redis_boot(cfg, &addr, &shards, error);
    if (st == STATUS_OK)
        print_redis(cfg->redis.url, shards);
    redis_address_done(&addr);
    return st;
}

int node_check(const struct config *cfg)
{
    static enum status (*const checks[])(const struct config *, struct buf *) = {
        check_ring, check_certificates, check_users, check_rules,
        check_dkim, check_sources,      check_redis
    };
    struct buf error;
    enum status st = STATUS_OK;
    buf_init(&error, ERROR_MAX);
    node_raise_file_limit();
    printf("configuration\n  %-18s ok\n  %-18s %u\n", cfg->file, "workers", node_worker_count(cfg));
    print_limits(cfg);
    for (size_t i = 0; i < ARRAY_LEN(checks) && st == STATUS_OK; i++)
        st = checks[i](cfg, &error);
    if (st != STATUS_OK)
        fprintf(stderr, "kilat: %.*s\n", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return st == STATUS_OK ? 0 : 1;
}
