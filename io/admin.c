/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin - three pages for machines, by libmicrohttpd in a thread of its own.
 *
 * The thread reads atomics and asks not_ready; it takes no lock that a worker could wait for, so a
 * slow or hostile client of this port costs one small connection and nothing else. Connections,
 * their memory and their silence are bounded; everything but GET and HEAD is refused.
 *
 * To add a page: a row in pages[].
 */
#include "io/admin.h"
#include "core/base/must.h"
#include "io/fail.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECTIONS_MAX   64
#define CONNECTION_MEMORY 8192 /* octets: request line and header fields */
#define SILENCE_MAX_S     10
#define BACKLOG           64
#define PAGE_MAX          (1024 * 1024)

#define TYPE_TEXT       "text/plain; charset=utf-8"
#define TYPE_PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"

struct admin {
    struct MHD_Daemon *daemon;
    struct admin_view view;
    uint16_t port;
};

/* Fills the page; returns the HTTP status. What does not fit is a 500, never a cut page. */
typedef unsigned page_fn(const struct admin *a, struct buf *out);

static unsigned ok_if(enum status st)
{
    return st == STATUS_OK ? MHD_HTTP_OK : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

static unsigned page_metrics(const struct admin *a, struct buf *out)
{
    return ok_if(metrics_format(a->view.sets, a->view.set_count, out));
}

static unsigned page_healthz(const struct admin *a, struct buf *out)
{
    return ok_if(buf_append(out, SLICE("ok\n")));
}

static unsigned page_readyz(const struct admin *a, struct buf *out)
{
    const char *why = a->view.not_ready(a->view.ctx);
    if (!why)
        return ok_if(buf_append(out, SLICE("ready\n")));
    enum status st = buf_printf(out, "not ready: %s\n", why);
    return st == STATUS_OK ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

static const struct {
    const char *path;
    const char *type;
    page_fn *fill;
} pages[] = {
    { "/metrics", TYPE_PROMETHEUS, page_metrics },
    { "/healthz", TYPE_TEXT, page_healthz },
    { "/readyz", TYPE_TEXT, page_readyz },
};

static enum MHD_Result reply(struct MHD_Connection *conn, unsigned status, const char *type,
                             struct slice body)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.ptr,
                                                             MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    bool good = MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
                MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES;
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        good = good && MHD_add_response_header(r, "Allow", "GET, HEAD") == MHD_YES;
    enum MHD_Result queued = good ? MHD_queue_response(conn, status, r) : MHD_NO;
    MHD_destroy_response(r);
    return queued;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **request)
{
    const struct admin *a = ctx;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return reply(conn, MHD_HTTP_METHOD_NOT_ALLOWED, TYPE_TEXT, SLICE("only GET and HEAD\n"));
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (strcmp(url, pages[i].path) != 0)
            continue;
        struct buf out;
        buf_init(&out, PAGE_MAX);
        unsigned status = pages[i].fill(a, &out);
        enum MHD_Result queued = reply(conn, status, pages[i].type, buf_slice(&out));
        buf_done(&out);
        return queued;
    }
    return reply(conn, MHD_HTTP_NOT_FOUND, TYPE_TEXT, SLICE("/metrics /healthz /readyz\n"));
}

/* A listening socket of our own, for clear errors and close-on-exec; -1: error says why. */
static int listen_on(const struct config_bind *bind_to, struct buf *error)
{
    int on = 1;
    const struct sockaddr *addr = (const struct sockaddr *)&bind_to->addr;
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, addr, bind_to->addr_len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    (void)fail_with(error, STATUS_SYSTEM, "admin: cannot listen on %s port %u: %s", bind_to->host,
                    bind_to->port, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    must(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                            : ((struct sockaddr_in *)&addr)->sin_port);
}

/* The thread is made with every signal blocked: signals are the main thread's business. */
static struct MHD_Daemon *start_quietly(struct admin *a, int fd)
{
    sigset_t all, before;
    must(sigfillset(&all) == 0 && pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, on_request, a,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SILENCE_MAX_S, MHD_OPTION_END);
    must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return d;
}

enum status admin_start(const struct config_bind *bind, const struct admin_view *view,
                        struct admin **out, struct buf *error)
{
    int fd = listen_on(bind, error);
    if (fd < 0)
        return STATUS_SYSTEM;
    struct admin *a = mem_zalloc(sizeof *a);
    a->view = *view;
    a->port = port_of(fd);
    a->daemon = start_quietly(a, fd);
    if (!a->daemon) {
        (void)close(fd);
        free(a);
        return fail_with(error, STATUS_SYSTEM, "admin: libmicrohttpd cannot start");
    }
    *out = a;
    return STATUS_OK;
}

uint16_t admin_port(const struct admin *a)
{
    return a->port;
}

void admin_stop(struct admin *a)
{
    if (!a)
        return;
    MHD_stop_daemon(a->daemon); /* closes the socket and ends the thread */
    free(a);
}
