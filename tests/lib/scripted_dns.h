/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * scripted_dns - a name server on a loopback UDP port, in a thread of the test, that answers from a
 * table of rows and counts what it was asked. A name without a row does not exist.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define DNS_A    1
#define DNS_MX   15
#define DNS_AAAA 28

#define DNS_OK       0
#define DNS_SERVFAIL 2
#define DNS_NXDOMAIN 3
#define DNS_REFUSED  5

/* One record ("10 mx.example." for MX, an address), or with data NULL only the rcode: OK makes it
 * "no such record". Rows of one name and type make one answer. */
struct dns_row {
    const char *name;
    int type;
    int rcode;
    uint32_t ttl;
    const char *data;
};

struct scripted_dns {
    const struct dns_row *rows; /* up to a row without a name */
    int fd;
    uint16_t port;
    pthread_t thread;
    _Atomic int asked[64]; /* per row; of several rows of one question the first counts */
    _Atomic int delay_ms;
};

static inline size_t dns_put_name(unsigned char *out, const char *name)
{
    size_t at = 0;
    while (*name) {
        size_t len = strcspn(name, ".");
        out[at++] = (unsigned char)len;
        memcpy(out + at, name, len);
        at += len;
        name += len + (name[len] == '.');
    }
    out[at++] = 0;
    return at;
}

static inline size_t dns_put_data(unsigned char *out, const struct dns_row *row)
{
    if (row->type == DNS_A)
        return inet_pton(AF_INET, row->data, out) == 1 ? 4 : 0;
    if (row->type == DNS_AAAA)
        return inet_pton(AF_INET6, row->data, out) == 1 ? 16 : 0;
    char *name = NULL;
    unsigned long preference = strtoul(row->data, &name, 10);
    out[0] = (unsigned char)(preference >> 8);
    out[1] = (unsigned char)preference;
    name += *name == ' ';
    return 2 + dns_put_name(out + 2, strcmp(name, ".") == 0 ? "" : name);
}

static inline size_t dns_put_record(unsigned char *out, const struct dns_row *row)
{
    size_t len = dns_put_data(out + 12, row);
    const unsigned char head[12] = { 0xc0,
                                     12,
                                     0,
                                     (unsigned char)row->type,
                                     0,
                                     1,
                                     (unsigned char)(row->ttl >> 24),
                                     (unsigned char)(row->ttl >> 16),
                                     (unsigned char)(row->ttl >> 8),
                                     (unsigned char)row->ttl,
                                     (unsigned char)(len >> 8),
                                     (unsigned char)len };
    memcpy(out, head, sizeof head);
    return sizeof head + len;
}

/* Reads the question's name as text; returns the octets of the whole question. */
static inline size_t dns_read_question(const unsigned char *in, size_t len, char name[256],
                                       int *type)
{
    size_t at = 0, out = 0;
    while (at < len && in[at] != 0 && at + 1 + in[at] < len && out + in[at] + 1 < 255) {
        if (out > 0)
            name[out++] = '.';
        memcpy(name + out, in + at + 1, in[at]);
        out += in[at];
        at += 1 + (size_t)in[at];
    }
    name[out] = '\0';
    if (at + 5 > len)
        return 0;
    *type = in[at + 1] << 8 | in[at + 2];
    return at + 5;
}

static inline size_t dns_answer(struct scripted_dns *d, const unsigned char *in, size_t len,
                                unsigned char *out)
{
    char name[256];
    int type = 0, rcode = DNS_NXDOMAIN, answers = 0;
    size_t question = len > 12 ? dns_read_question(in + 12, len - 12, name, &type) : 0;
    size_t at = 12 + question;
    bool is_counted = false;
    if (question == 0)
        return 0;
    memcpy(out, in, at);
    for (size_t i = 0; d->rows[i].name; i++) {
        const struct dns_row *row = &d->rows[i];
        if (strcasecmp(row->name, name) != 0)
            continue;
        if (rcode == DNS_NXDOMAIN && row->type != type)
            rcode = DNS_OK; /* the name exists, this record of it perhaps not */
        if (row->type != type)
            continue;
        if (!is_counted)
            atomic_fetch_add(&d->asked[i], 1);
        is_counted = true;
        rcode = row->rcode;
        if (row->data) {
            at += dns_put_record(out + at, row);
            answers++;
        }
    }
    const unsigned char head[10] = { 0x81, (unsigned char)(0x80 | rcode), 0, 1,
                                     0,    (unsigned char)answers };
    memcpy(out + 2, head, sizeof head);
    return at;
}

static inline void *dns_serve(void *arg)
{
    struct scripted_dns *d = arg;
    unsigned char in[4096], out[8192];
    for (;;) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(d->fd, in, sizeof in, 0, (struct sockaddr *)&from, &from_len);
        if (n <= 1) /* one octet: the test is over */
            return NULL;
        usleep((useconds_t)atomic_load(&d->delay_ms) * 1000);
        size_t len = dns_answer(d, in, (size_t)n, out);
        if (len > 0)
            (void)sendto(d->fd, out, len, 0, (struct sockaddr *)&from, from_len);
    }
}

static inline bool scripted_dns_start(struct scripted_dns *d, const struct dns_row *rows)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    memset(d, 0, sizeof *d);
    d->rows = rows;
    d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (d->fd < 0 || bind(d->fd, (struct sockaddr *)&addr, len) != 0 ||
        getsockname(d->fd, (struct sockaddr *)&addr, &len) != 0)
        return false;
    d->port = ntohs(addr.sin_port);
    return pthread_create(&d->thread, NULL, dns_serve, d) == 0;
}

static inline void scripted_dns_stop(struct scripted_dns *d)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_port = htons(d->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    (void)sendto(d->fd, "", 1, 0, (struct sockaddr *)&addr, sizeof addr);
    pthread_join(d->thread, NULL);
    close(d->fd);
}

/* How often the question of the row at this index was asked. */
static inline int scripted_dns_asked(struct scripted_dns *d, const char *name, int type)
{
    for (size_t i = 0; d->rows[i].name; i++) {
        if (strcmp(d->rows[i].name, name) == 0 && d->rows[i].type == type)
            return atomic_load(&d->asked[i]);
    }
    return -1;
}
