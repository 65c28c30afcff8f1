/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets: one per worker for each address, so that the kernel spreads connections over
 * them and no worker waits for another.
 */
#include "core/base/must.h"
#include "io/node_private.h"
#include "io/worker.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096

size_t node_bind_count(const struct config *cfg)
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
    node_line(n, LOG_INFO, "listen.open");
    log_cstr(&n->log, "name", l->name);
    log_str(&n->log, "addr", slice_of(text, (size_t)len));
    node_line_end(n);
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

enum status node_bind_all(struct node *n, struct worker_listener **sets)
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
