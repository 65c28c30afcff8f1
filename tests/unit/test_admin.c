/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin port over a real socket: pages, methods, readiness, a silent client, ports that are
 * taken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/must.h"
#include "io/admin.h"

struct fixture {
    struct metrics metrics[2];
    const struct metrics *sets[2];
    struct config_bind bind;
    char host[16];
    const char *_Atomic why; /* not ready; NULL: ready */
    struct admin *admin;
    char reply[65536];
};

static const char *not_ready(void *ctx)
{
    struct fixture *f = ctx;
    return f->why;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&f->bind.addr;
    struct buf error;
    buf_init(&error, 256);
    snprintf(f->host, sizeof f->host, "127.0.0.1");
    f->bind.host = f->host;
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    f->bind.addr_len = sizeof *v4;
    f->sets[0] = &f->metrics[0];
    f->sets[1] = &f->metrics[1];
    struct admin_view view = { .sets = f->sets, .set_count = 2, .not_ready = not_ready, .ctx = f };
    assert_int_equal(admin_start(&f->bind, &view, &f->admin, &error), STATUS_OK);
    assert_int_not_equal(admin_port(f->admin), 0);
    buf_done(&error);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    admin_stop(f->admin);
    free(f);
    return 0;
}

static int dial(struct fixture *f)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(admin_port(f->admin)) };
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* Sends a request line with the fields a client sends; f->reply holds all that came back. */
static void request(struct fixture *f, const char *line)
{
    char text[512];
    size_t at = 0;
    int fd = dial(f);
    int len =
        snprintf(text, sizeof text, "%s\r\nHost: localhost\r\nConnection: close\r\n\r\n", line);
    assert_int_equal(write(fd, text, (size_t)len), len);
    for (ssize_t n; at < sizeof f->reply - 1; at += (size_t)n) {
        n = read(fd, f->reply + at, sizeof f->reply - 1 - at);
        if (n <= 0)
            break;
    }
    f->reply[at] = '\0';
    close(fd);
}

static void check(struct fixture *f, const char *line, const char *status, const char *part)
{
    request(f, line);
    if (strncmp(f->reply, status, strlen(status)) != 0 || !strstr(f->reply, part))
        fail_msg("%s: %s", line, f->reply);
}

static void metrics_are_summed(void **state)
{
    struct fixture *f = *state;
    metrics_add(&f->metrics[0], METRIC_ACCEPTED_TOTAL, 40);
    metrics_add(&f->metrics[1], METRIC_ACCEPTED_TOTAL, 2);
    check(f, "GET /metrics HTTP/1.1", "HTTP/1.1 200", "kilat_messages_accepted_total 42\n");
    assert_non_null(strstr(f->reply, "version=0.0.4"));
    assert_non_null(strstr(f->reply, "# TYPE kilat_sessions_open gauge"));
}

static void health_and_readiness(void **state)
{
    struct fixture *f = *state;
    check(f, "GET /healthz HTTP/1.1", "HTTP/1.1 200", "\r\n\r\nok\n");
    check(f, "GET /readyz HTTP/1.1", "HTTP/1.1 200", "\r\n\r\nready\n");
    f->why = "redis";
    check(f, "GET /readyz HTTP/1.1", "HTTP/1.1 503", "\r\n\r\nnot ready: redis\n");
    check(f, "GET /healthz HTTP/1.1", "HTTP/1.1 200", "ok");
    f->why = NULL;
    check(f, "GET /readyz?verbose=1 HTTP/1.1", "HTTP/1.1 200", "ready");
}

static void head_has_no_body(void **state)
{
    struct fixture *f = *state;
    check(f, "HEAD /healthz HTTP/1.1", "HTTP/1.1 200", "Content-Length: 3");
    assert_null(strstr(f->reply, "ok"));
}

static void the_rest_is_refused(void **state)
{
    struct fixture *f = *state;
    check(f, "GET / HTTP/1.1", "HTTP/1.1 404", "/metrics");
    check(f, "GET /metrics/ HTTP/1.1", "HTTP/1.1 404", "");
    check(f, "GET /../etc/passwd HTTP/1.1", "HTTP/1.1 404", "");
    check(f, "POST /metrics HTTP/1.1", "HTTP/1.1 405", "Allow: GET, HEAD");
    check(f, "DELETE /healthz HTTP/1.1", "HTTP/1.1 405", "");
    request(f, "\001\002 nonsense");
    assert_null(strstr(f->reply, "HTTP/1.1 200"));
}

/* Clients that say nothing do not keep others from being served. */
static void silent_clients_do_not_matter(void **state)
{
    struct fixture *f = *state;
    int idle[20];
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        idle[i] = dial(f);
    check(f, "GET /healthz HTTP/1.1", "HTTP/1.1 200", "ok");
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        close(idle[i]);
}

/* Above the limit of connections a client waits in the backlog, and is served when one leaves. */
static void connections_are_bounded(void **state)
{
    struct fixture *f = *state;
    static const char ask[] = "GET /healthz HTTP/1.0\r\n\r\n";
    char got[512] = "";
    int idle[64];
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        idle[i] = dial(f);
    struct pollfd late = { .fd = dial(f), .events = POLLIN };
    assert_int_equal(write(late.fd, ask, sizeof ask - 1), sizeof ask - 1);
    assert_int_equal(poll(&late, 1, 300), 0);
    close(idle[0]);
    assert_int_equal(poll(&late, 1, 5000), 1);
    assert_true(read(late.fd, got, sizeof got - 1) > 0);
    assert_non_null(strstr(got, "200 OK"));
    close(late.fd);
    for (size_t i = 1; i < ARRAY_LEN(idle); i++)
        close(idle[i]);
}

static void taken_port_is_told(void **state)
{
    struct fixture *f = *state;
    struct admin_view view = { .not_ready = not_ready, .ctx = f };
    struct admin *second = NULL;
    struct buf error;
    buf_init(&error, 256);
    f->bind.port = admin_port(f->admin);
    ((struct sockaddr_in *)&f->bind.addr)->sin_port = htons(f->bind.port);
    assert_int_equal(admin_start(&f->bind, &view, &second, &error), STATUS_SYSTEM);
    assert_non_null(memmem(error.ptr, error.len, "Address already in use", 22));
    buf_done(&error);
}

#define WITH_PORT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PORT(metrics_are_summed),
        WITH_PORT(health_and_readiness),
        WITH_PORT(head_has_no_body),
        WITH_PORT(the_rest_is_refused),
        WITH_PORT(silent_clients_do_not_matter),
        WITH_PORT(connections_are_bounded),
        WITH_PORT(taken_port_is_told),
    };
    return cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
