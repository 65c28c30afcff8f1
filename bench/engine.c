/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine - one loop. Clocks are read once a turn; who measures reads engine_ns itself.
 */
#include "bench/engine.h"
#include "core/base/config_value.h"
#include "core/base/must.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

volatile int engine_is_told_to_stop, engine_is_asked;

static void on_stop(int number)
{
    engine_is_told_to_stop = 1;
}

static void on_ask(int number)
{
    engine_is_asked = 1;
}

void engine_die(const char *tool, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", tool);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

int64_t engine_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

double engine_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void read_clocks(struct engine *e)
{
    struct timespec ts;
    e->now.mono_ms = engine_ns() / 1000000;
    clock_gettime(CLOCK_REALTIME, &ts);
    e->now.wall_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void raise_file_limit(const char *tool, uint32_t connections)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < connections + 64)
        engine_die(tool,
                   "%u connections need more open files than the %llu this process may have: "
                   "raise ulimit -n, or use several processes",
                   connections, (unsigned long long)limit.rlim_cur);
}

void engine_init(struct engine *e, const char *tool, uint32_t connections)
{
    struct ring_config cfg = { .sockets_max = connections };
    struct buf error;
    struct sigaction stop = { .sa_handler = on_stop }, ask = { .sa_handler = on_ask };
    *e = (struct engine){ 0 };
    buf_init(&error, 512);
    raise_file_limit(tool, connections);
    if (ring_new(&cfg, &e->ring, &error) != STATUS_OK)
        engine_die(tool, "%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    read_clocks(e);
    wheel_init(&e->wheel, e->now.mono_ms);
    conn_table_init(&e->conns, e->ring, &e->wheel, &e->metrics, &e->now, connections);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &ask, NULL);
    signal(SIGPIPE, SIG_IGN);
}

void engine_done(struct engine *e)
{
    ring_free(e->ring);
    conn_table_done(&e->conns);
}

void engine_turn(struct engine *e, int64_t wait_ms, uint32_t expected, void (*pump)(void *),
                 void *ctx)
{
    int64_t wheel = wheel_wait_ms(&e->wheel, e->now.mono_ms);
    if (wheel >= 0 && wheel < wait_ms)
        wait_ms = wheel;
    ring_wait(e->ring, e->has_more ? 0 : wait_ms, expected);
    read_clocks(e);
    ring_dispatch(e->ring);
    wheel_advance(&e->wheel, e->now.mono_ms);
    pump(ctx);
    e->has_more = conn_table_flush(&e->conns);
}

socklen_t engine_address(const char *tool, const char *option, const char *text,
                         struct sockaddr_storage *out)
{
    struct config_bind bind;
    char port[8];
    struct addrinfo *found,
        hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    if (!config_value_bind(slice_str(text), &bind))
        engine_die(tool, "%s: \"%s\" is no address: write for example 127.0.0.1:2525", option,
                   text);
    snprintf(port, sizeof port, "%u", bind.port);
    int error = getaddrinfo(bind.host, port, &hints, &found);
    if (error)
        engine_die(tool, "%s: \"%s\": %s: write an IP address and a port", option, text,
                   gai_strerror(error));
    socklen_t len = found->ai_addrlen;
    memcpy(out, found->ai_addr, len);
    freeaddrinfo(found);
    free(bind.host);
    return len;
}

uint64_t engine_number(const char *tool, const char *option, const char *text, uint64_t least,
                       uint64_t most)
{
    uint64_t n;
    if (!config_value_size(slice_str(text), &n))
        engine_die(tool, "%s: \"%s\" is no number", option, text);
    if (n < least || n > most)
        engine_die(tool, "%s: %s is out of range: %llu to %llu", option, text,
                   (unsigned long long)least, (unsigned long long)most);
    return n;
}
