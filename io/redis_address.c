/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_address - where Redis is: from a URL, or from the configuration; and one blocking
 * connection to it.
 *
 * A URL is redis://[user:pass@]host[:port][/db] or unix:///path. User and password may be
 * percent-encoded; the last '@' before the path ends them, so that a careless '@' in a password
 * still works. Host names are resolved here, once, on the main thread: a Redis that moves needs a
 * restart. Nothing printed from here ever holds the password.
 *
 * To add a form (Sentinel, TLS): a row in schemes[] and a parse_* function.
 */
#include "core/base/must.h"
#include "io/fail.h"
#include "io/redis_boot.h"
#include "io/redis_home.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define CONNECT_TIMEOUT_S 5
#define COMMAND_TIMEOUT_S 10
#define DEFAULT_PORT      6379
#define DATABASE_MAX      16384

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undoes %XX; NULL when one is malformed or stands for NUL. The caller frees. */
static char *percent_decode(struct slice s)
{
    char *out = mem_alloc(s.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '%') {
            out[len++] = s.ptr[i];
            continue;
        }
        int high = i + 2 < s.len ? hex_value(s.ptr[i + 1]) : -1;
        int low = i + 2 < s.len ? hex_value(s.ptr[i + 2]) : -1;
        if (high < 0 || low < 0 || high * 16 + low == 0) {
            free(out);
            return NULL;
        }
        out[len++] = (char)(high * 16 + low);
        i += 2;
    }
    out[len] = '\0';
    return out;
}

/* A decimal number without sign, 0 to max; -1: it is none. */
static long parse_number(struct slice s, long max)
{
    long n = 0;
    if (s.len == 0 || s.len > 9)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return -1;
        n = n * 10 + (s.ptr[i] - '0');
    }
    return n <= max ? n : -1;
}

static enum status set_unix_path(struct slice path, struct redis_address *out, struct buf *error)
{
    if (path.len >= sizeof out->path)
        return fail_with(
            error, STATUS_BAD,
            "the Unix socket path %.*s is longer than %zu octets: use a shorter directory",
            SLICE_ARG(path), sizeof out->path - 1);
    out->is_unix = true;
    memcpy(out->path, path.ptr, path.len);
    out->path[path.len] = '\0';
    return STATUS_OK;
}

static enum status parse_unix(struct slice rest, struct redis_address *out, struct buf *error)
{
    if (rest.len < 2 || rest.ptr[0] != '/')
        return fail_with(error, STATUS_BAD,
                         "unix:// needs an absolute path, unix:///run/redis.sock");
    return set_unix_path(rest, out, error);
}

/* "user:pass", ":pass"; a user without a password says nothing that AUTH could use. */
static enum status parse_credentials(struct slice s, struct redis_address *out, struct buf *error)
{
    size_t colon = slice_find(s, ':');
    if (colon == s.len)
        return fail_with(error, STATUS_BAD,
                         "the URL names a user without a password: redis://user:password@host");
    out->password = percent_decode(slice_skip(s, colon + 1));
    if (colon > 0)
        out->user = percent_decode(slice_head(s, colon));
    if (!out->password || (colon > 0 && !out->user))
        return fail_with(error, STATUS_BAD, "user or password hold a malformed %%XX escape");
    return STATUS_OK;
}

static enum status resolve(struct slice host, long port, struct redis_address *out,
                           struct buf *error)
{
    char name[256], service[24];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
    if (host.len == 0 || host.len >= sizeof name)
        return fail_with(error, STATUS_BAD, "the URL names no host, or one longer than 255 octets");
    snprintf(name, sizeof name, "%.*s", SLICE_ARG(host));
    snprintf(service, sizeof service, "%ld", port);
    int rc = getaddrinfo(name, service, &hints, &found);
    if (rc != 0)
        return fail_with(error, STATUS_MISSING, "host %s: %s", name, gai_strerror(rc));
    memcpy(&out->addr, found->ai_addr, found->ai_addrlen);
    out->addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return STATUS_OK;
}

/* "host", "host:port", "[v6]", "[v6]:port" */
static enum status parse_host(struct slice s, struct redis_address *out, struct buf *error)
{
    struct slice host, rest;
    if (s.len > 0 && s.ptr[0] == '[') {
        size_t end = slice_find(s, ']');
        if (end == s.len)
            return fail_with(error, STATUS_BAD, "the URL's host begins with [ and has no ]");
        host = slice_of(s.ptr + 1, end - 1);
        rest = slice_skip(s, end + 1);
    } else {
        size_t colon = slice_find(s, ':');
        host = slice_head(s, colon);
        rest = slice_skip(s, colon);
    }
    long port = DEFAULT_PORT;
    if (rest.len > 0)
        port = rest.ptr[0] == ':' ? parse_number(slice_skip(rest, 1), 65535) : -1;
    if (port <= 0)
        return fail_with(error, STATUS_BAD, "the URL's port is not a number from 1 to 65535");
    return resolve(host, port, out, error);
}

/* [user:pass@]host[:port][/db] */
static enum status parse_tcp(struct slice rest, struct redis_address *out, struct buf *error)
{
    /* The path begins after the credentials, which may hold a '/'. */
    const char *at = rest.len ? memrchr(rest.ptr, '@', rest.len) : NULL;
    if (at) {
        size_t len = (size_t)(at - rest.ptr);
        enum status st = parse_credentials(slice_head(rest, len), out, error);
        if (st != STATUS_OK)
            return st;
        rest = slice_skip(rest, len + 1);
    }
    size_t slash = slice_find(rest, '/');
    struct slice db = slice_skip(rest, slash + 1);
    if (db.len > 0) {
        long n = parse_number(db, DATABASE_MAX);
        if (n < 0)
            return fail_with(error, STATUS_BAD, "the URL's database is not a number from 0 to %d",
                             DATABASE_MAX);
        out->db = (int)n;
    }
    return parse_host(slice_head(rest, slash), out, error);
}

static enum status refuse_tls(struct slice rest, struct redis_address *out, struct buf *error)
{
    return fail_with(
        error, STATUS_BAD,
        "rediss:// (TLS to Redis) is not supported: use redis:// over a trusted network");
}

static const struct {
    struct slice prefix;
    enum status (*parse)(struct slice rest, struct redis_address *out, struct buf *error);
} schemes[] = {
    { { "redis://", 8 }, parse_tcp },
    { { "unix://", 7 }, parse_unix },
    { { "rediss://", 9 }, refuse_tls },
};

enum status redis_address_parse(const char *url, struct redis_address *out, struct buf *error)
{
    struct slice s = slice_str(url);
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        struct slice prefix = schemes[i].prefix;
        if (!slice_eq_nocase(slice_head(s, prefix.len), prefix))
            continue;
        struct redis_address a = { 0 };
        enum status st = schemes[i].parse(slice_skip(s, prefix.len), &a, error);
        if (st == STATUS_OK)
            *out = a;
        else
            redis_address_done(&a);
        return st;
    }
    return fail_with(error, STATUS_BAD,
                     "a Redis URL begins with redis:// or unix:// "
                     "(redis://[user:pass@]host[:port][/db], unix:///path)");
}

/* Passwords do not outlive their use. */
static void free_secret(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void redis_address_done(struct redis_address *a)
{
    free(a->user);
    a->user = NULL;
    free_secret(&a->password);
}

enum status redis_address_of(const struct config *cfg, struct redis_address *out, struct buf *error)
{
    if (cfg->redis.mode == REDIS_EXTERNAL)
        return redis_address_parse(cfg->redis.url, out, error);
    struct redis_address a = { 0 };
    char path[512];
    int len =
        snprintf(path, sizeof path, "%s/" REDIS_HOME_DIR "/" REDIS_HOME_SOCKET, cfg->data_dir);
    if (len < 0 || (size_t)len >= sizeof path)
        return fail_with(error, STATUS_BAD, "data_dir is too long for a Unix socket in it");
    enum status st = set_unix_path(slice_of(path, (size_t)len), &a, error);
    if (st == STATUS_OK)
        *out = a;
    return st;
}

/* "host:port" or the path, for messages. */
static void describe(const struct redis_address *a, char *out, size_t len)
{
    char host[64], port[8];
    if (a->is_unix)
        snprintf(out, len, "%s", a->path);
    else if (getnameinfo((const struct sockaddr *)&a->addr, a->addr_len, host, sizeof host, port,
                         sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(out, len, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    else
        snprintf(out, len, "?");
}

static redisContext *open_context(const struct redis_address *a)
{
    struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S };
    char host[64], port[8];
    if (a->is_unix)
        return redisConnectUnixWithTimeout(a->path, timeout);
    if (getnameinfo((const struct sockaddr *)&a->addr, a->addr_len, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return NULL;
    return redisConnectWithTimeout(host, atoi(port), timeout);
}

/* One command that must not fail; *error is set when it does. */
static bool say(redisContext *c, const char *what, struct buf *error, int argc, const char **argv)
{
    redisReply *reply = redisCommandArgv(c, argc, argv, NULL);
    bool good = reply && reply->type != REDIS_REPLY_ERROR;
    if (!good)
        (void)fail_with(error, STATUS_REFUSED, "%s: %s", what, reply ? reply->str : c->errstr);
    freeReplyObject(reply);
    return good;
}

static bool log_in(redisContext *c, const struct redis_address *a, struct buf *error)
{
    const char *auth[3] = { "AUTH", a->user ? a->user : a->password, a->password };
    if (a->password && !say(c, "Redis AUTH", error, a->user ? 3 : 2, auth))
        return false;
    char db[16];
    snprintf(db, sizeof db, "%d", a->db);
    const char *select[2] = { "SELECT", db };
    return a->db == 0 || say(c, "Redis SELECT", error, 2, select);
}

redisContext *redis_connect_blocking(const struct redis_address *addr, struct buf *error)
{
    char where[160];
    buf_clear(error);
    describe(addr, where, sizeof where);
    redisContext *c = open_context(addr);
    if (!c || c->err) {
        (void)fail_with(error, STATUS_SYSTEM, "cannot connect to Redis at %s: %s", where,
                        c ? c->errstr : "out of memory");
        if (c)
            redisFree(c);
        return NULL;
    }
    /* hiredis leaves its sockets open across exec; a restarted server must not inherit one. */
    (void)fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    struct timeval timeout = { .tv_sec = COMMAND_TIMEOUT_S };
    if (redisSetTimeout(c, timeout) != REDIS_OK || !log_in(c, addr, error)) {
        if (error->len == 0)
            (void)fail_with(error, STATUS_SYSTEM, "Redis at %s: %s", where, c->errstr);
        redisFree(c);
        return NULL;
    }
    return c;
}
