/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring and its connections on real sockets, once with every feature the kernel has and once
 * with none (the fallbacks of older kernels).
 */
#include "core/base/must.h"
#include "io/conn.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TABLE_SIZE 8
#define TURNS_MAX  2000

struct world {
    struct ring *ring;
    struct wheel wheel;
    struct now now;
    struct metrics metrics;
    struct conn_table table;
};

/* What one connection saw. */
struct seen {
    struct buf in;
    size_t take_max; /* octets taken per call */
    int opened, ended, closed;
    int open_result, end_result;
    uint64_t sent;
    bool must_close_on_data;
};

static void clock_now(struct now *now)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    now->mono_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct world *world_new(bool force_plain)
{
    struct world *w = mem_zalloc(sizeof *w);
    struct ring_config cfg = { .sockets_max = TABLE_SIZE, .force_plain = force_plain };
    struct buf error;
    buf_init(&error, 512);
    assert_int_equal(ring_new(&cfg, &w->ring, &error), STATUS_OK);
    buf_done(&error);
    clock_now(&w->now);
    wheel_init(&w->wheel, w->now.mono_ms);
    conn_table_init(&w->table, w->ring, &w->wheel, &w->metrics, &w->now, TABLE_SIZE);
    return w;
}

static bool turn(struct world *w)
{
    ring_turn(w->ring, 5, 1);
    clock_now(&w->now);
    wheel_advance(&w->wheel, w->now.mono_ms);
    return conn_table_flush(&w->table);
}

#define turn_until(w, condition)                                                                   \
    do {                                                                                           \
        int turns = 0;                                                                             \
        while (!(condition) && turns++ < TURNS_MAX)                                                \
            turn(w);                                                                               \
        assert_true(condition);                                                                    \
    } while (0)

static void world_free(struct world *w)
{
    turn_until(w, conn_table_live(&w->table) == 0);
    ring_free(w->ring);
    conn_table_done(&w->table);
    free(w);
}

static void on_open(struct conn *c, int result)
{
    struct seen *s = c->owner;
    s->opened++;
    s->open_result = result;
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct seen *s = c->owner;
    size_t n = in.len < s->take_max ? in.len : s->take_max;
    assert_int_equal(buf_append(&s->in, slice_head(in, n)), STATUS_OK);
    if (s->must_close_on_data)
        conn_close(c);
    return n;
}

static void on_end(struct conn *c, int result)
{
    struct seen *s = c->owner;
    s->ended++;
    s->end_result = result;
    conn_close(c);
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct seen *s = c->owner;
    s->sent = sent;
}

static void on_closed(struct conn *c)
{
    struct seen *s = c->owner;
    s->closed++;
}

static const struct conn_events events = { on_open, on_data, on_end, NULL, on_sent, on_closed };

static struct seen *seen_new(void)
{
    struct seen *s = mem_zalloc(sizeof *s);
    buf_init(&s->in, 64 * 1024 * 1024);
    s->take_max = SIZE_MAX;
    return s;
}

static void seen_free(struct seen *s)
{
    buf_done(&s->in);
    free(s);
}

/* A connection of the table and a plain blocking socket at its other end. */
static struct conn *open_pair(struct world *w, struct seen *s, int *other)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    *other = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(*other, (struct sockaddr *)&addr, len), 0);
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    close(listener);
    struct conn *c = conn_adopt(&w->table, (struct ring_socket){ fd, false }, &events, s);
    assert_non_null(c);
    return c;
}

static bool is_plain(void **state)
{
    return *state != NULL;
}

static void test_what_is_not_taken_is_held_and_comes_again(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    s->take_max = 3;
    struct conn *c = open_pair(w, s, &other);
    assert_int_equal(write(other, "abcdefgh", 8), 8);
    turn_until(w, s->in.len == 3);
    assert_int_equal(write(other, "ij", 2), 2);
    for (int i = 0; i < 20; i++)
        turn(w);
    assert_int_equal(s->in.len, 3); /* paused: nothing more before conn_resume */
    s->take_max = SIZE_MAX;
    conn_resume(c);
    turn_until(w, s->in.len == 10);
    assert_memory_equal(s->in.ptr, "abcdefghij", 10);
    assert_int_equal(write(other, "k", 1), 1);
    turn_until(w, s->in.len == 11);
    close(other);
    turn_until(w, s->closed == 1);
    assert_int_equal(s->ended, 1);
    world_free(w);
    seen_free(s);
}

static void test_the_end_is_told_after_what_was_held(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    s->take_max = 0;
    struct conn *c = open_pair(w, s, &other);
    assert_int_equal(write(other, "QUIT\r\n", 6), 6);
    close(other);
    for (int i = 0; i < 20; i++)
        turn(w);
    assert_int_equal(s->ended, 0);
    s->take_max = SIZE_MAX;
    conn_resume(c);
    turn_until(w, s->closed == 1);
    assert_int_equal(s->in.len, 6);
    assert_int_equal(s->ended, 1);
    world_free(w);
    seen_free(s);
}

/* Input that comes between conn_resume and the end of the turn stays behind what was held. */
static void test_octets_never_overtake_what_was_held(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    s->take_max = 0;
    struct conn *c = open_pair(w, s, &other);
    assert_int_equal(write(other, "abc", 3), 3);
    turn_until(w, c->held != NULL);
    s->take_max = SIZE_MAX;
    conn_resume(c);
    assert_int_equal(write(other, "def", 3), 3);
    ring_turn(w->ring, 50, 1); /* the receive is told before the end of the turn */
    turn_until(w, s->in.len == 6);
    assert_memory_equal(s->in.ptr, "abcdef", 6);
    close(other);
    turn_until(w, s->closed == 1);
    world_free(w);
    seen_free(s);
}

/* More parts than one sendmsg takes and more octets than the socket does at once: every short send
 * goes on where it stopped. */
static void test_long_gathers_arrive_whole(void **state)
{
    enum { PARTS = 3000, PART = 1000 };
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    static char block[PART];
    int other;
    struct conn *c = open_pair(w, s, &other);
    memset(block, 'x', sizeof block);
    for (int i = 0; i < PARTS; i++) {
        gather_printf(conn_out(c), "%08d", i);
        gather_ref(conn_out(c), slice_of(block, sizeof block));
    }
    uint64_t end = conn_offset(c);
    assert_int_equal(end, PARTS * (PART + 8));
    fcntl(other, F_SETFL, O_NONBLOCK);
    size_t got = 0;
    static char in[PARTS * (PART + 8) + 1];
    for (int i = 0; i < TURNS_MAX && got < end; i++) {
        ssize_t n;
        turn(w);
        while ((n = read(other, in + got, sizeof in - got)) > 0)
            got += (size_t)n;
    }
    assert_int_equal(got, end);
    for (int i = 0; i < PARTS; i++) {
        char number[16];
        snprintf(number, sizeof number, "%08d", i);
        assert_memory_equal(in + (size_t)i * (PART + 8), number, 8);
    }
    turn_until(w, s->sent == end);
    close(other);
    turn_until(w, s->closed == 1);
    world_free(w);
    seen_free(s);
}

/* P-15: what was said last is not lost by a reset, although input was left unread. */
static void test_finish_flushes_then_waits_for_the_peer(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    char in[16];
    struct conn *c = open_pair(w, s, &other);
    assert_int_equal(write(other, "late", 4), 4);
    gather_copy(conn_out(c), SLICE("221 Bye\r\n"));
    conn_finish(c);
    for (int i = 0; i < 10; i++)
        turn(w);
    assert_int_equal(s->closed, 0); /* lingering */
    assert_int_equal(read(other, in, sizeof in), 9);
    assert_int_equal(read(other, in, sizeof in), 0);
    close(other);
    turn_until(w, s->closed == 1);
    world_free(w);
    seen_free(s);
}

static void test_a_peer_that_never_ends_is_not_waited_for(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    struct conn *c = open_pair(w, s, &other);
    conn_finish(c);
    int64_t start = w->now.mono_ms;
    turn_until(w, s->closed == 1);
    assert_in_range(w->now.mono_ms - start, CONN_LINGER_MS - WHEEL_TICK_MS, CONN_LINGER_MS + 3000);
    close(other);
    world_free(w);
    seen_free(s);
}

static void test_closing_inside_an_event_ends_quietly(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    int other;
    s->must_close_on_data = true;
    open_pair(w, s, &other);
    assert_int_equal(write(other, "x", 1), 1);
    turn_until(w, s->closed == 1);
    assert_int_equal(s->ended, 0);
    close(other);
    world_free(w);
    seen_free(s);
}

/* A slot that is used again is another connection: nothing of the old one reaches the new owner. */
static void test_slots_are_reused_without_mixing(void **state)
{
    struct world *w = world_new(is_plain(state));
    for (int round = 0; round < 50; round++) {
        struct seen *s = seen_new();
        int other;
        char text[16];
        struct conn *c = open_pair(w, s, &other);
        int n = snprintf(text, sizeof text, "round %d", round);
        assert_int_equal(write(other, text, (size_t)n), n);
        if (round % 2)
            turn_until(w, s->in.len == (uint32_t)n);
        conn_close(c);
        turn_until(w, s->closed == 1);
        if (s->in.len > 0)
            assert_memory_equal(s->in.ptr, text, (size_t)n);
        close(other);
        seen_free(s);
    }
    world_free(w);
}

static void test_a_full_table_says_so(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s[TABLE_SIZE];
    int other[TABLE_SIZE], pair[2];
    for (int i = 0; i < TABLE_SIZE; i++) {
        s[i] = seen_new();
        open_pair(w, s[i], &other[i]);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_null(conn_adopt(&w->table, (struct ring_socket){ pair[0], false }, &events, NULL));
    close(pair[0]);
    close(pair[1]);
    for (int i = 0; i < TABLE_SIZE; i++) {
        close(other[i]);
        turn_until(w, s[i]->closed == 1);
        seen_free(s[i]);
    }
    world_free(w);
}

static void test_connecting_and_being_refused(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct seen *s = seen_new();
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    struct conn *c = conn_connect(&w->table, NULL, (struct sockaddr *)&addr, len, &events, s);
    turn_until(w, s->opened == 1);
    assert_int_equal(s->open_result, 0);
    conn_close(c);
    turn_until(w, s->closed == 1);
    close(listener);
    assert_non_null(conn_connect(&w->table, NULL, (struct sockaddr *)&addr, len, &events, s));
    turn_until(w, s->closed == 2);
    assert_int_equal(s->open_result, -ECONNREFUSED);
    world_free(w);
    seen_free(s);
}

struct accepted {
    int count, socket;
};

static void on_accept(void *ctx, const struct ring_done *done)
{
    struct accepted *a = ctx;
    a->count++;
    a->socket = done->result;
}

/* The peer's address comes with the accept, also when the socket is a direct descriptor. */
static void test_accept_tells_the_peer(void **state)
{
    struct world *w = world_new(is_plain(state));
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_storage peer;
    socklen_t len = sizeof addr, peer_len;
    struct accepted accepted = { 0 };
    char in[4];
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    ring_on(w->ring, RING_ACCEPT, on_accept, &accepted);
    ring_accept(w->ring, listener, &peer, &peer_len, (struct ring_tag){ RING_ACCEPT, 0, 0 });
    assert_int_equal(connect(client, (struct sockaddr *)&addr, len), 0);
    turn_until(w, accepted.count == 1);
    assert_true(accepted.socket >= 0);
    assert_int_equal(peer.ss_family, AF_INET);
    struct seen *s = seen_new();
    struct ring_socket socket = { accepted.socket, ring_features(w->ring).direct_sockets };
    struct conn *c = conn_adopt(&w->table, socket, &events, s);
    gather_copy(conn_out(c), SLICE("220"));
    turn_until(w, s->sent == 3);
    assert_int_equal(read(client, in, sizeof in), 3);
    close(client);
    close(listener);
    turn_until(w, s->closed == 1);
    world_free(w);
    seen_free(s);
}

static void test_plain_mode_uses_no_feature(void **state)
{
    struct world *w = world_new(true);
    struct ring_features f = ring_features(w->ring);
    assert_false(f.direct_sockets || f.multishot_recv || f.defer_taskrun || f.ring_fd);
    world_free(w);
}

int main(void)
{
    static int plain;
#define BOTH(test) cmocka_unit_test(test), cmocka_unit_test_prestate(test, &plain)
    const struct CMUnitTest tests[] = {
        BOTH(test_what_is_not_taken_is_held_and_comes_again),
        BOTH(test_the_end_is_told_after_what_was_held),
        BOTH(test_octets_never_overtake_what_was_held),
        BOTH(test_long_gathers_arrive_whole),
        BOTH(test_finish_flushes_then_waits_for_the_peer),
        BOTH(test_a_peer_that_never_ends_is_not_waited_for),
        BOTH(test_closing_inside_an_event_ends_quietly),
        BOTH(test_slots_are_reused_without_mixing),
        BOTH(test_a_full_table_says_so),
        BOTH(test_connecting_and_being_refused),
        BOTH(test_accept_tells_the_peer),
        cmocka_unit_test(test_plain_mode_uses_no_feature),
    };
    return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
