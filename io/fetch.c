/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch - one GET or POST.
 *
 * A post goes to the next address when a connection ends without a reply: it may come twice.
 *
 * Life:   NAMING (the resolver has it) -> TALKING (the connection has it) -> freed
 * It frees itself when the one that has it lets go: on_hosts without a host to connect to,
 * on_closed without another address to try. A cancelled one only waits for that.
 */
#include "io/fetch.h"
#include "core/base/must.h"
#include "core/relay/http_reply.h"
#include "io/resolver.h"
#include "io/resolver_answer.h"
#include "io/tls.h"
#include "io/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX  (16 * 1024) /* octets of a reply before its body */
#define HOSTS_MAX 4           /* addresses that are tried */

struct fetch {
    struct list node; /* on request.home */
    struct worker *w;
    struct tls_client *tls;
    struct fetch_request request; /* host and path: ours */
    fetch_fn *fn;                 /* NULL: was called, or cancelled */
    void *ctx;
    struct conn *conn; /* borrowed; NULL: none */
    bool is_naming;    /* the resolver will call */
    bool is_starting;  /* fetch_start has it */
    struct wheel_timer timer;
    struct relay_host hosts[HOSTS_MAX];
    size_t host_count, host_next;
    struct buf text;
    char why[256];
};

static const struct conn_events events;

/* --- the end --------------------------------------------------------------------------------- */

static void fetch_free(struct fetch *f)
{
    list_remove(&f->node);
    buf_done(&f->text);
    free((char *)f->request.host);
    free((char *)f->request.path);
    free((char *)f->request.headers);
    free((char *)f->request.post.ptr);
    free(f);
}

static void tell(struct fetch *f, const char *why, struct slice body)
{
    fetch_fn *fn = f->fn;
    f->fn = NULL;
    wheel_clear(&f->w->wheel, &f->timer);
    if (fn)
        fn(f->ctx, why, body);
}

/* Told, and had by nobody any more. */
static void free_if_over(struct fetch *f)
{
    if (!f->fn && !f->conn && !f->is_naming && !f->is_starting)
        fetch_free(f);
}

static void end(struct fetch *f, const char *why, struct slice body)
{
    tell(f, why, body);
    if (f->conn)
        conn_close(f->conn); /* on_closed frees it */
    free_if_over(f);
}

void fetch_cancel(struct fetch *f)
{
    if (!f)
        return;
    f->fn = NULL;
    end(f, NULL, SLICE_NONE);
}

void fetch_cancel_all(struct list *home)
{
    list_for_each_safe (node, home)
        fetch_cancel(list_entry(node, struct fetch, node));
}

void fetch_free_all(struct list *home)
{
    list_for_each_safe (node, home)
        fetch_free(list_entry(node, struct fetch, node));
}

static void on_timer(struct wheel_timer *timer)
{
    end(container_of(timer, struct fetch, timer), "it took too long", SLICE_NONE);
}

/* --- the connection -------------------------------------------------------------------------- */

/* The next address, or the end with why the last one failed. */
static void connect_next(struct fetch *f)
{
    while (f->fn && f->host_next < f->host_count) {
        const struct relay_host *host = &f->hosts[f->host_next++];
        f->conn = conn_connect(&f->w->conns, NULL, (const struct sockaddr *)&host->addr,
                               host->addr_len, &events, f);
        if (f->conn)
            return;
        snprintf(f->why, sizeof f->why, "no socket here");
    }
    end(f, f->why, SLICE_NONE);
}

static void on_open(struct conn *c, int result)
{
    struct fetch *f = c->owner;
    char host[300];
    if (result < 0) {
        snprintf(f->why, sizeof f->why, "cannot connect: %s", strerror(-result));
        return; /* on_closed follows */
    }
    snprintf(host, sizeof host, "%s:%u", f->request.host, f->request.port);
    conn_start_tls(c, tls_session_new_client(f->tls, f->request.host, host));
}

static void say_post(const struct fetch *f, struct gather *out)
{
    gather_printf(out,
                  "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Kilat\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                  f->request.path, f->request.host, f->request.post.len);
    if (f->request.headers)
        gather_copy(out, slice_str(f->request.headers));
    gather_copy(out, SLICE("Connection: close\r\n\r\n"));
    gather_copy(out, f->request.post);
}

static void on_secure(struct conn *c, int result)
{
    struct fetch *f = c->owner;
    const char *names[] = { f->request.host };
    if (result < 0) {
        snprintf(f->why, sizeof f->why, "TLS: %s", tls_session_error(conn_tls(c)));
    } else if (tls_client_verify(f->tls, conn_tls(c), f->request.ca_file, names, 1, f->why,
                                 sizeof f->why) != TLS_TRUSTED) {
        end(f, f->why, SLICE_NONE);
    } else if (f->request.post.len > 0) {
        say_post(f, conn_out(c));
    } else {
        gather_printf(conn_out(c),
                      "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Kilat\r\nAccept: %s\r\n"
                      "Connection: close\r\n\r\n",
                      f->request.path, f->request.host, f->request.type);
    }
}

/* RFC 8461 3.3: 200, the right type, no larger than it may be. */
static void judge(struct fetch *f, const struct http_reply *reply)
{
    bool is_success = f->request.post.len > 0 ? reply->status / 100 == 2 : reply->status == 200;
    if (!is_success)
        snprintf(f->why, sizeof f->why, "the host answered %d", reply->status);
    else if (f->request.type && !slice_eq_nocase(reply->type, slice_str(f->request.type)))
        snprintf(f->why, sizeof f->why, "its type is not %s", f->request.type);
    else if (reply->body.len > f->request.size_max)
        snprintf(f->why, sizeof f->why, "it is larger than %u octets", f->request.size_max);
    else
        f->why[0] = '\0';
    end(f, f->why[0] ? f->why : NULL, reply->body);
}

static void look(struct fetch *f, bool is_ended)
{
    struct http_reply reply;
    struct buf plain;
    buf_init(&plain, f->request.size_max);
    bool is_post = f->request.post.len > 0;
    switch (is_post ? http_read_head(buf_slice(&f->text), &reply)
                    : http_read(buf_slice(&f->text), is_ended, &reply, &plain)) {
    case HTTP_MORE: break;
    case HTTP_DONE: judge(f, &reply); break;
    case HTTP_BAD: end(f, "the reply is no HTTP, too large or cut off", SLICE_NONE); break;
    }
    buf_done(&plain);
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct fetch *f = c->owner;
    if (!f->fn)
        return in.len;
    if (buf_append(&f->text, in) != STATUS_OK)
        end(f, "the reply is too large", SLICE_NONE);
    else
        look(f, false);
    return in.len;
}

static void on_end(struct conn *c, int result)
{
    struct fetch *f = c->owner;
    if (f->fn)
        look(f, result == 0);
    if (f->fn)
        end(f, "the connection ended early", SLICE_NONE);
}

/* An address that could not be reached, or did not come to speak, leaves its turn to the next. */
static void on_closed(struct conn *c)
{
    struct fetch *f = c->owner;
    f->conn = NULL;
    if (f->fn)
        connect_next(f);
    else
        free_if_over(f);
}

static const struct conn_events events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_end = on_end,
    .on_secure = on_secure,
    .on_closed = on_closed,
};

/* --- names ----------------------------------------------------------------------------------- */

/* P-213: whoever owns a domain does not choose whom we talk to in our own networks. */
static bool may_connect(const struct fetch *f, const struct relay_host *host)
{
    return f->request.is_ours || f->w->cfg->relay.allow_private ||
           resolver_address_is_public((const struct sockaddr *)&host->addr);
}

static void on_hosts(void *ctx, const struct relay_host *hosts, size_t host_count, uint32_t ttl_ms,
                     const struct rcpt_outcome *failure)
{
    struct fetch *f = ctx;
    f->is_naming = false;
    snprintf(f->why, sizeof f->why, "the host has no address that may be connected to");
    for (size_t i = 0; i < host_count && f->host_count < HOSTS_MAX; i++)
        if (may_connect(f, &hosts[i]))
            f->hosts[f->host_count++] = hosts[i];
    if (f->fn)
        connect_next(f);
    else
        free_if_over(f);
}

static struct slice copy_of(struct slice s)
{
    if (s.len == 0)
        return SLICE_NONE;
    char *copy = mem_alloc(s.len);
    memcpy(copy, s.ptr, s.len);
    return slice_of(copy, s.len);
}

struct fetch *fetch_start(struct worker *w, struct resolver *resolver, struct tls_client *tls,
                          const struct fetch_request *request, fetch_fn *fn, void *ctx)
{
    struct fetch *f = mem_zalloc(sizeof *f);
    f->w = w;
    f->tls = tls;
    f->request = *request;
    f->request.host = mem_strdup(request->host);
    f->request.path = mem_strdup(request->path);
    f->request.headers = request->headers ? mem_strdup(request->headers) : NULL;
    f->request.post = copy_of(request->post);
    f->fn = fn;
    f->ctx = ctx;
    f->is_naming = f->is_starting = true;
    list_push_back(request->home, &f->node);
    buf_init(&f->text, request->size_max + HEAD_MAX);
    wheel_timer_init(&f->timer, on_timer);
    wheel_set(&w->wheel, &f->timer, w->now.mono_ms + request->timeout_ms);
    resolver_lookup_host(resolver, request->host, request->port, &w->now, on_hosts, f);
    f->is_starting = false;
    bool is_over = !f->fn;
    free_if_over(f);
    return is_over ? NULL : f;
}
