/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that speak TLS, on real sockets over the ring; the other end is a client session of
 * ours on a plain socket, so that it can also do what no client should.
 */
#include "core/base/must.h"
#include "io/conn_private.h"
#include "tests/lib/certificates.h"
#include "tests/lib/private_redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#define TABLE_SIZE 64
#define TURNS_MAX  4000

/* --- our side -------------------------------------------------------------------------------- */

struct world {
    struct ring *ring;
    struct wheel wheel;
    struct now now;
    struct metrics metrics;
    struct conn_table table;
    struct tls_store *store;
    struct tls_client *client;
};

/* One store for all tests: making keys is slow. */
static char dir[64], cert_path[96], key_path[96];
static struct config cfg;
static char *cert_paths[] = { cert_path }, *key_paths[] = { key_path };

static int make_files(void **state)
{
    struct made_cert made = cert_make(&(struct cert_wish){ "a.example", { "a.example" } });
    make_temp_dir(dir);
    snprintf(cert_path, sizeof cert_path, "%s/cert.pem", dir);
    snprintf(key_path, sizeof key_path, "%s/key.pem", dir);
    cert_write(&made, cert_path, key_path);
    cert_free(&made);
    cfg.tls.certificates = cert_paths;
    cfg.tls.private_keys = key_paths;
    cfg.tls.certificate_count = cfg.tls.private_key_count = 1;
    cfg.tls.ticket_rotate_ms = 3600 * 1000;
    return 0;
}

static int remove_files(void **state)
{
    remove_tree(dir);
    return 0;
}

static void clock_now(struct now *now)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    now->mono_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct world *world_new(void)
{
    struct world *w = mem_zalloc(sizeof *w);
    struct ring_config ring_cfg = { .sockets_max = TABLE_SIZE };
    struct buf error;
    buf_init(&error, 512);
    assert_int_equal(ring_new(&ring_cfg, &w->ring, &error), STATUS_OK);
    assert_int_equal(tls_store_new(&cfg, &w->store, &error), STATUS_OK);
    buf_done(&error);
    w->client = tls_client_new();
    clock_now(&w->now);
    wheel_init(&w->wheel, w->now.mono_ms);
    conn_table_init(&w->table, w->ring, &w->wheel, &w->metrics, &w->now, TABLE_SIZE);
    return w;
}

static void turn(struct world *w)
{
    bool more = !list_is_empty(&w->table.dirty) || !list_is_empty(&w->table.handshakes);
    ring_turn(w->ring, more ? 0 : 1, 1);
    clock_now(&w->now);
    wheel_advance(&w->wheel, w->now.mono_ms);
    conn_table_flush(&w->table);
}

static void world_free(struct world *w)
{
    for (int i = 0; i < TURNS_MAX && conn_table_live(&w->table) > 0; i++)
        turn(w);
    assert_int_equal(conn_table_live(&w->table), 0);
    ring_free(w->ring);
    conn_table_done(&w->table);
    tls_store_free(w->store);
    tls_client_free(w->client);
    free(w);
}

/* What the owner of one connection saw, and how it behaves. */
struct seen {
    struct world *world;
    struct buf in;
    size_t take_max; /* octets taken per call; 0: paused */
    int secured, ended, closed, sent_calls;
    int secure_result, end_result;
    uint64_t sent;
    bool starts_tls;  /* at a line that begins with STARTTLS */
    bool echoes;      /* what it takes */
    bool says_hello;  /* before the handshake is over */
    bool keeps_going; /* does not close at the end */
};

static void start_tls(struct conn *c)
{
    struct seen *s = c->owner;
    conn_start_tls(c, tls_session_new(s->world->store));
}

static size_t take_starttls(struct conn *c, struct slice in)
{
    struct slice line = slice_head(in, slice_find(in, '\n') + 1);
    struct seen *s = c->owner;
    if (line.len < 8 || memcmp(line.ptr, "STARTTLS", 8) != 0)
        return 0;
    s->starts_tls = false;
    gather_copy(conn_out(c), SLICE("220 Go\r\n"));
    start_tls(c);
    return line.len;
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct seen *s = c->owner;
    if (s->starts_tls)
        return take_starttls(c, in);
    size_t n = in.len < s->take_max ? in.len : s->take_max;
    assert_int_equal(buf_append(&s->in, slice_head(in, n)), STATUS_OK);
    if (s->echoes)
        gather_copy(conn_out(c), slice_head(in, n));
    return n;
}

static void on_secure(struct conn *c, int result)
{
    struct seen *s = c->owner;
    s->secured++;
    s->secure_result = result;
}

static void on_end(struct conn *c, int result)
{
    struct seen *s = c->owner;
    s->ended++;
    s->end_result = result;
    if (!s->keeps_going)
        conn_close(c);
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct seen *s = c->owner;
    assert_true(sent > s->sent);
    s->sent = sent;
    s->sent_calls++;
}

static void on_closed(struct conn *c)
{
    struct seen *s = c->owner;
    s->closed++;
}

static const struct conn_events events = {
    .on_data = on_data,
    .on_end = on_end,
    .on_secure = on_secure,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

static struct seen *seen_new(struct world *w)
{
    struct seen *s = mem_zalloc(sizeof *s);
    buf_init(&s->in, 64 * 1024 * 1024);
    s->world = w;
    s->take_max = SIZE_MAX;
    return s;
}

static void seen_free(struct seen *s)
{
    buf_done(&s->in);
    free(s);
}

/* --- the other side -------------------------------------------------------------------------- */

struct peer {
    int fd;
    struct tls_session *tls; /* owned; NULL: in clear */
    bool is_secure, is_ended, is_notified;
    enum tls_result result;
    struct gather out; /* ciphertext to be written from `written` on */
    size_t written;
    struct buf in; /* what was decrypted, or read in clear */
};

static struct peer *peer_new(int fd)
{
    struct peer *p = mem_zalloc(sizeof *p);
    p->fd = fd;
    gather_init(&p->out);
    buf_init(&p->in, 64 * 1024 * 1024);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return p;
}

static void peer_free(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    tls_session_free(p->tls);
    gather_done(&p->out);
    buf_done(&p->in);
    free(p);
}

static void peer_start_tls(struct world *w, struct peer *p)
{
    p->tls = tls_session_new_client(w->client, "a.example", "a");
}

static void peer_read(struct peer *p)
{
    static char plain[16384];
    size_t len;
    if (!p->is_secure) {
        p->result = tls_session_handshake(p->tls);
        p->is_secure = p->result == TLS_DONE;
    }
    while (p->is_secure &&
           (p->result = tls_session_read(p->tls, plain, sizeof plain, &len)) == TLS_DONE)
        assert_int_equal(buf_append(&p->in, slice_of(plain, len)), STATUS_OK);
    p->is_notified |= p->result == TLS_ENDED;
}

static void peer_write(struct peer *p)
{
    struct iovec iov;
    if (p->tls)
        tls_session_take_output(p->tls, &p->out);
    while (gather_iov(&p->out, 0, (uint32_t)p->written, &iov, 1) == 1) {
        ssize_t n = write(p->fd, iov.iov_base, iov.iov_len);
        if (n <= 0)
            return;
        p->written += (size_t)n;
    }
    gather_clear(&p->out);
    p->written = 0;
}

static void peer_turn(struct peer *p)
{
    static char in[65536];
    ssize_t n;
    peer_write(p);
    while ((n = read(p->fd, in, sizeof in)) > 0) {
        if (!p->tls) {
            assert_int_equal(buf_append(&p->in, slice_of(in, (size_t)n)), STATUS_OK);
            continue;
        }
        tls_session_feed(p->tls, slice_of(in, (size_t)n));
        peer_read(p);
    }
    p->is_ended |= n == 0 || (errno != EAGAIN && errno != EINTR);
    peer_write(p);
}

static void peer_say(struct peer *p, struct slice text)
{
    if (p->tls)
        assert_int_equal(tls_session_write(p->tls, text), STATUS_OK);
    else
        gather_copy(&p->out, text);
}

#define turn_until(w, p, condition)                                                                \
    do {                                                                                           \
        for (int turns = 0; !(condition) && turns < TURNS_MAX; turns++) {                          \
            peer_turn(p);                                                                          \
            turn(w);                                                                               \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static void turn_some(struct world *w, struct peer *p)
{
    for (int i = 0; i < 20; i++) {
        peer_turn(p);
        turn(w);
    }
}

/* A connection of the table and its peer, both in clear. */
static struct conn *open_pair(struct world *w, struct seen *s, struct peer **peer)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&addr, len), 0);
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    close(listener);
    struct conn *c = conn_adopt(&w->table, (struct ring_socket){ fd, false }, &events, s);
    assert_non_null(c);
    *peer = peer_new(client);
    return c;
}

/* The same after a handshake. */
static struct conn *open_secure_pair(struct world *w, struct seen *s, struct peer **peer)
{
    struct conn *c = open_pair(w, s, peer);
    start_tls(c);
    peer_start_tls(w, *peer);
    turn_until(w, *peer, s->secured == 1 && (*peer)->is_secure);
    assert_int_equal(s->secure_result, 0);
    return c;
}

static void end_of_pair(struct world *w, struct seen *s, struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    for (int i = 0; i < TURNS_MAX && s->closed == 0; i++)
        turn(w);
    assert_int_equal(s->closed, 1);
    peer_free(p);
    seen_free(s);
}

static bool is_text(const struct buf *b, struct slice text)
{
    return slice_eq(buf_slice(b), text);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void test_implicit_tls_echoes(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct tls_info info;
    s->echoes = true;
    struct conn *c = open_secure_pair(w, s, &p);
    tls_session_info(conn_tls(c), &info);
    assert_string_equal(info.version, "TLSv1.3");
    peer_say(p, SLICE("EHLO client\r\n"));
    turn_until(w, p, p->in.len == 13);
    assert_true(is_text(&p->in, SLICE("EHLO client\r\n")));
    turn_until(w, p, s->sent == 13);
    assert_int_equal(conn_unsent(c), 0);
    end_of_pair(w, s, p);
    world_free(w);
}

/* A greeting that was appended before the handshake waits for it; references are free once they
 * are encrypted; offsets count plaintext. */
static void test_what_is_said_early_waits_for_the_handshake(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct conn *c = open_pair(w, s, &p);
    start_tls(c);
    gather_copy(conn_out(c), SLICE("220 early\r\n"));
    turn_some(w, p);
    assert_int_equal(p->in.len, 0);
    peer_start_tls(w, p);
    turn_until(w, p, p->in.len == 11);
    turn_until(w, p, s->sent == 11);
    assert_int_equal(s->sent_calls, 1);
    end_of_pair(w, s, p);
    world_free(w);
}

/* P-122, P-123: what came together with STARTTLS, or after it and before our 220 left, is gone. */
static void test_starttls_discards_what_was_injected(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    s->starts_tls = true;
    open_pair(w, s, &p);
    peer_say(p, SLICE("STARTTLS\r\nEHLO forged\r\nMAIL FROM:<forged@example.org>\r\n"));
    turn_until(w, p, p->in.len == 8);
    assert_true(is_text(&p->in, SLICE("220 Go\r\n")));
    buf_clear(&p->in);
    peer_start_tls(w, p);
    turn_until(w, p, s->secured == 1 && p->is_secure);
    peer_say(p, SLICE("EHLO true\r\n"));
    turn_until(w, p, s->in.len == 11);
    assert_true(is_text(&s->in, SLICE("EHLO true\r\n")));
    end_of_pair(w, s, p);
    world_free(w);
}

/* The same when they come in a receive of their own, but before the 220 left. */
static void test_what_comes_before_our_word_left_is_dropped(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    s->starts_tls = true;
    struct conn *c = open_pair(w, s, &p);
    peer_say(p, SLICE("STARTTLS\r\n"));
    peer_write(p);
    for (int i = 0; i < 100 && !c->secure; i++)
        ring_turn(w->ring, 10, 1); /* no end of turn: nothing is sent */
    peer_say(p, SLICE("EHLO forged\r\n"));
    peer_write(p);
    for (int i = 0; i < 10; i++)
        ring_turn(w->ring, 5, 1);
    assert_int_equal(p->in.len, 0);
    turn_until(w, p, p->in.len == 8);
    peer_start_tls(w, p);
    turn_until(w, p, s->secured == 1 && p->is_secure);
    assert_int_equal(s->secure_result, 0);
    assert_int_equal(s->in.len, 0);
    end_of_pair(w, s, p);
    world_free(w);
}

/* Forged octets that lie in the socket when TLS begins are no handshake. */
static void test_what_comes_after_our_word_in_clear_breaks_the_handshake(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    s->starts_tls = true;
    open_pair(w, s, &p);
    peer_say(p, SLICE("STARTTLS\r\n"));
    turn_until(w, p, p->in.len == 8);
    peer_say(p, SLICE("EHLO forged\r\n"));
    turn_until(w, p, s->secured == 1);
    assert_int_equal(s->secure_result, -EPROTO);
    assert_int_equal(s->in.len, 0);
    end_of_pair(w, s, p);
    world_free(w);
}

/* What was held while the owner paused is forged too when TLS is started later. */
static void test_held_input_is_discarded_when_tls_starts_later(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    s->take_max = 0;
    struct conn *c = open_pair(w, s, &p);
    peer_say(p, SLICE("EHLO forged\r\n"));
    turn_until(w, p, c->held != NULL);
    gather_copy(conn_out(c), SLICE("220 Go\r\n"));
    start_tls(c);
    s->take_max = SIZE_MAX;
    turn_until(w, p, p->in.len == 8);
    peer_start_tls(w, p);
    turn_until(w, p, s->secured == 1 && p->is_secure);
    peer_say(p, SLICE("EHLO true\r\n"));
    turn_until(w, p, s->in.len == 11);
    assert_true(is_text(&s->in, SLICE("EHLO true\r\n")));
    end_of_pair(w, s, p);
    world_free(w);
}

/* A load balancer sends its header and the client's first octets together: while nothing was said,
 * what the owner left is the beginning of TLS. */
static void test_a_header_before_implicit_tls(void **state)
{
    for (int is_late = 0; is_late < 2; is_late++) {
        struct world *w = world_new();
        struct seen *s = seen_new(w);
        struct peer *p;
        s->take_max = 7;
        struct conn *c = open_pair(w, s, &p);
        peer_say(p, SLICE("HEADER\n"));
        peer_start_tls(w, p);
        turn_until(w, p, c->held != NULL);
        assert_true(is_text(&s->in, SLICE("HEADER\n")));
        buf_clear(&s->in);
        s->take_max = SIZE_MAX;
        start_tls(c);
        if (is_late)
            turn_some(w, p);
        turn_until(w, p, s->secured == 1 && p->is_secure);
        peer_say(p, SLICE("EHLO true\r\n"));
        turn_until(w, p, s->in.len == 11);
        end_of_pair(w, s, p);
        world_free(w);
    }
}

/* P-127: who speaks in clear where TLS is expected gets the end at once, with an alert for all
 * but what speaks HTTP. */
static void test_clear_text_on_an_implicit_port_is_ended(void **state)
{
    static const struct {
        struct slice opening;
        uint32_t alert_len;
    } rows[] = {
        { { "EHLO client.example\r\n", 21 }, 7 },
        { { "GET / HTTP/1.1\r\n\r\n", 18 }, 0 },
        { { "\x16\x03\x01\xff\xff\x01", 6 }, 7 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = world_new();
        struct seen *s = seen_new(w);
        struct peer *p;
        struct conn *c = open_pair(w, s, &p);
        start_tls(c);
        gather_copy(conn_out(c), SLICE("220 never in clear\r\n"));
        peer_say(p, rows[i].opening);
        turn_until(w, p, p->is_ended);
        assert_int_equal(s->secured, 1);
        assert_int_equal(s->secure_result, -EPROTO);
        assert_int_equal(s->ended, 0);
        assert_int_equal(p->in.len, rows[i].alert_len);
        if (rows[i].alert_len > 0) {
            assert_int_equal(p->in.ptr[0], 21); /* alert */
            assert_int_equal(p->in.ptr[5], 2);  /* fatal */
        }
        assert_int_equal(s->closed, 0); /* it lingers, so that no reset eats the alert */
        assert_int_equal(s->in.len, 0);
        end_of_pair(w, s, p);
        world_free(w);
    }
}

static void fill(struct buf *b, size_t len)
{
    char *at = buf_reserve(b, (uint32_t)len);
    assert_non_null(at);
    for (size_t i = 0; i < len; i++)
        at[i] = (char)(i * 7 + (i >> 10) * 13);
    b->len += (uint32_t)len;
}

/* 5 MiB to an owner that takes little at a time and pauses in between; then 5 MiB back, by
 * reference and by copy. */
static void test_much_goes_both_ways(void **state)
{
    enum { MUCH = 5 * 1024 * 1024 };
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct buf much;
    struct peer *p;
    struct conn *c = open_secure_pair(w, s, &p);
    buf_init(&much, MUCH);
    fill(&much, MUCH);
    s->take_max = 50001;
    for (size_t at = 0; at < MUCH; at += 100000) {
        peer_say(p, slice_head(slice_skip(buf_slice(&much), at), 100000));
        peer_write(p);
    }
    size_t paused = 0;
    for (int i = 0; i < 100 * TURNS_MAX && s->in.len < MUCH; i++) {
        s->take_max = i % 3 ? 3001 : 0;
        peer_turn(p);
        turn(w);
        paused += c->is_paused;
        if (c->is_paused)
            conn_resume(c);
    }
    assert_true(paused > 10);
    assert_true(is_text(&s->in, buf_slice(&much)));
    for (size_t at = 0; at < MUCH; at += 80000) {
        gather_copy(conn_out(c), slice_head(slice_skip(buf_slice(&much), at), 10000));
        gather_ref(conn_out(c), slice_head(slice_skip(buf_slice(&much), at + 10000), 70000));
    }
    assert_int_equal(conn_offset(c), MUCH);
    turn_until(w, p, p->in.len == MUCH);
    assert_true(is_text(&p->in, buf_slice(&much)));
    turn_until(w, p, s->sent == MUCH);
    assert_int_equal(conn_unsent(c), 0);
    assert_true(s->sent_calls >= MUCH / (64 * 1024));
    buf_done(&much);
    end_of_pair(w, s, p);
    world_free(w);
}

/* While the owner is paused nothing more is decrypted, and it all comes later and in order. */
static void test_a_pausing_owner_holds_ciphertext(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct conn *c = open_secure_pair(w, s, &p);
    s->take_max = 3;
    peer_say(p, SLICE("abcdefgh"));
    turn_until(w, p, s->in.len == 3);
    peer_say(p, SLICE("ij"));
    turn_some(w, p);
    peer_say(p, SLICE("kl"));
    turn_some(w, p);
    assert_int_equal(s->in.len, 3);
    assert_int_equal(c->held->len, 5);
    assert_true(c->secure->cipher->len > 4);
    tls_session_shutdown(p->tls);
    turn_some(w, p);
    assert_int_equal(s->ended, 0); /* told after all that came before it was taken */
    s->take_max = SIZE_MAX;
    conn_resume(c);
    turn_until(w, p, s->ended == 1);
    assert_true(is_text(&s->in, SLICE("abcdefghijkl")));
    assert_int_equal(s->end_result, 0);
    end_of_pair(w, s, p);
    world_free(w);
}

/* P-136: an end without close_notify may be a cut. */
static void test_a_truncation_is_seen(void **state)
{
    enum { NOTIFIED, CUT, RESET, CUT_WHILE_HELD, IN_HANDSHAKE, WAYS };
    static const int results[WAYS] = { 0, -ECONNABORTED, -ECONNRESET, -ECONNABORTED,
                                       -ECONNABORTED };
    for (int way = 0; way < WAYS; way++) {
        struct world *w = world_new();
        struct seen *s = seen_new(w);
        struct peer *p;
        struct linger linger = { 1, 0 };
        struct conn *c;
        if (way == IN_HANDSHAKE) {
            c = open_pair(w, s, &p);
            start_tls(c);
        } else {
            c = open_secure_pair(w, s, &p);
            s->take_max = way == CUT_WHILE_HELD ? 0 : SIZE_MAX;
            peer_say(p, SLICE("DATA"));
            turn_until(w, p, way == CUT_WHILE_HELD ? c->held != NULL : s->in.len == 4);
            if (way == NOTIFIED)
                tls_session_shutdown(p->tls);
            if (way == CUT_WHILE_HELD)
                peer_say(p, SLICE("more"));
            peer_write(p);
        }
        if (way == RESET)
            setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(p->fd);
        p->fd = -1;
        if (way == CUT_WHILE_HELD) {
            for (int i = 0; i < 20; i++)
                turn(w);
            assert_int_equal(s->ended, 0);
            s->take_max = SIZE_MAX;
            conn_resume(c);
        }
        for (int i = 0; i < TURNS_MAX && s->closed == 0; i++)
            turn(w);
        assert_int_equal(s->ended, 1);
        if (s->end_result != results[way])
            fail_msg("way %d: %d, not %d", way, s->end_result, results[way]);
        if (way == CUT_WHILE_HELD)
            assert_true(is_text(&s->in, SLICE("DATAmore")));
        end_of_pair(w, s, p);
        world_free(w);
    }
}

/* A peer that has said close_notify may still be spoken to. */
static void test_half_closed_tls_still_gets_its_reply(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct conn *c = open_secure_pair(w, s, &p);
    s->keeps_going = true;
    peer_say(p, SLICE("QUIT\r\n"));
    tls_session_shutdown(p->tls);
    turn_until(w, p, s->ended == 1);
    assert_true(is_text(&s->in, SLICE("QUIT\r\n")));
    gather_copy(conn_out(c), SLICE("221 Bye\r\n"));
    conn_finish(c);
    turn_until(w, p, p->in.len == 9 && p->is_notified);
    end_of_pair(w, s, p);
    world_free(w);
}

/* P-15, P-136: what was said last leaves, close_notify behind it, then the end. */
static void test_finish_says_close_notify(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct conn *c = open_secure_pair(w, s, &p);
    peer_say(p, SLICE("QUIT\r\n"));
    turn_until(w, p, s->in.len == 6);
    gather_copy(conn_out(c), SLICE("221 Bye\r\n"));
    conn_finish(c);
    turn_until(w, p, p->is_ended);
    assert_true(is_text(&p->in, SLICE("221 Bye\r\n")));
    assert_true(p->is_notified);
    assert_int_equal(s->sent, 9);
    assert_int_equal(s->closed, 0);
    end_of_pair(w, s, p);
    world_free(w);
}

static void test_finish_inside_a_handshake_closes(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    struct conn *c = open_pair(w, s, &p);
    start_tls(c);
    turn(w);
    conn_finish(c);
    turn_until(w, p, s->closed == 1 && p->is_ended);
    assert_int_equal(p->in.len, 0);
    end_of_pair(w, s, p);
    world_free(w);
}

/* Octets changed on the way: an alert, also when the owner closes at once, the end, and no word of
 * it to the owner as input. */
static void test_a_broken_record_ends_the_connection(void **state)
{
    for (int keeps_going = 0; keeps_going < 2; keeps_going++) {
        struct world *w = world_new();
        struct seen *s = seen_new(w);
        struct peer *p;
        struct conn *c = open_secure_pair(w, s, &p);
        s->keeps_going = keeps_going;
        peer_say(p, SLICE("MAIL FROM:<a@example.org>\r\n"));
        tls_session_take_output(p->tls, &p->out);
        p->out.bytes.ptr[p->out.bytes.len - 3] ^= 1;
        turn_until(w, p, p->is_ended);
        assert_int_equal(s->ended, 1);
        assert_int_equal(s->end_result, -EPROTO);
        assert_int_equal(s->in.len, 0);
        assert_int_equal(p->result, TLS_FAILED); /* the alert */
        if (keeps_going)
            assert_string_not_equal(tls_session_error(conn_tls(c)), "");
        end_of_pair(w, s, p);
        world_free(w);
    }
}

/* Records of a stretch of ciphertext. */
static int count_records(struct slice wire)
{
    int count = 0;
    while (wire.len >= 5) {
        size_t len = (size_t)((uint8_t)wire.ptr[3] << 8 | (uint8_t)wire.ptr[4]);
        assert_true(wire.len >= 5 + len);
        wire = slice_skip(wire, 5 + len);
        count++;
    }
    assert_int_equal(wire.len, 0);
    return count;
}

/* Replies that are appended in one turn are one record, however many parts they have; what is
 * referred to is free as soon as it was encrypted. */
static void test_a_group_of_replies_is_one_record(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    char wire[8192], text[100] = "referred\r\n";
    struct conn *c = open_secure_pair(w, s, &p);
    gather_copy(conn_out(c), SLICE("250 first\r\n")); /* the ticket leaves with it */
    turn_until(w, p, p->in.len == 11);
    buf_clear(&p->in);
    for (int i = 0; i < 50; i++) {
        gather_printf(conn_out(c), "250 %d\r\n", i);
        gather_ref(conn_out(c), slice_of(text, 10));
    }
    uint64_t end = conn_offset(c);
    conn_table_flush(&w->table);
    memset(text, 'x', sizeof text);
    ssize_t n = -1;
    for (int i = 0; i < 100 && n < 0; i++) {
        turn(w);
        n = read(p->fd, wire, sizeof wire);
    }
    assert_int_equal(count_records(slice_of(wire, (size_t)n)), 1);
    tls_session_feed(p->tls, slice_of(wire, (size_t)n));
    peer_read(p);
    assert_int_equal(p->in.len, end - 11);
    assert_memory_equal(p->in.ptr, "250 0\r\nreferred\r\n250 1\r\n", 24);
    turn_until(w, p, s->sent == end);
    end_of_pair(w, s, p);
    world_free(w);
}

/* P-115, P-135: a flood of clients that begin is served eight steps a turn, in order of arrival,
 * and who is at work already does not wait for them. */
static void test_a_flood_of_handshakes_is_bounded(void **state)
{
    enum { FLOOD = 40 };
    struct world *w = world_new();
    struct seen *worker = seen_new(w), *s[FLOOD];
    struct peer *busy, *p[FLOOD];
    struct conn *c[FLOOD];
    worker->echoes = true;
    open_secure_pair(w, worker, &busy);
    for (int i = 0; i < FLOOD; i++) {
        s[i] = seen_new(w);
        c[i] = open_pair(w, s[i], &p[i]);
        start_tls(c[i]);
        peer_start_tls(w, p[i]);
        peer_write(p[i]);
    }
    for (int i = 0; i < 20; i++)
        ring_turn(w->ring, 1, FLOOD); /* all hellos are there; no end of turn yet */
    peer_say(busy, SLICE("NOOP\r\n"));
    for (int turns = 0; turns < FLOOD / 8; turns++) {
        int answered = 0;
        peer_turn(busy);
        ring_turn(w->ring, 0, 1);
        bool more = conn_table_flush(&w->table);
        for (int i = 0; i < FLOOD; i++)
            answered += c[i]->flying != NULL || c[i]->secure->cipher == NULL;
        assert_int_equal(answered, (turns + 1) * 8);
        assert_true(c[answered - 1]->secure->cipher == NULL); /* the oldest first */
        assert_true(more || answered == FLOOD);
    }
    turn_until(w, busy, busy->in.len == 6);
    for (int i = 0; i < FLOOD; i++) {
        turn_until(w, p[i], s[i]->secured == 1 && s[i]->secure_result == 0);
        end_of_pair(w, s[i], p[i]);
    }
    end_of_pair(w, worker, busy);
    world_free(w);
}

/* The owner closes where it is told something. */
static void close_at_once(struct conn *c, int result)
{
    on_secure(c, result);
    conn_close(c);
}

static size_t close_on_data(struct conn *c, struct slice in)
{
    struct seen *s = c->owner;
    s->take_max = in.len;
    conn_close(c);
    return 0;
}

static void test_closing_inside_an_event_ends_quietly(void **state)
{
    static const struct conn_events closing_events[] = {
        { .on_data = on_data,
          .on_end = on_end,
          .on_secure = close_at_once,
          .on_closed = on_closed },
        { .on_data = close_on_data, .on_end = on_end, .on_closed = on_closed },
    };
    for (size_t i = 0; i < ARRAY_LEN(closing_events); i++) {
        struct world *w = world_new();
        struct seen *s = seen_new(w);
        struct peer *p;
        struct conn *c = open_pair(w, s, &p);
        c->events = &closing_events[i];
        start_tls(c);
        peer_start_tls(w, p);
        turn_until(w, p, p->is_secure || s->closed == 1);
        peer_say(p, SLICE("one"));
        peer_say(p, SLICE("two"));
        turn_until(w, p, s->closed == 1);
        assert_int_equal(s->ended, 0);
        assert_int_equal(s->take_max, i == 0 ? SIZE_MAX : 3);
        end_of_pair(w, s, p);
        world_free(w);
    }
}

static void test_a_handshake_may_come_octet_by_octet(void **state)
{
    struct world *w = world_new();
    struct seen *s = seen_new(w);
    struct peer *p;
    int one = 1;
    s->echoes = true;
    struct conn *c = open_pair(w, s, &p);
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    start_tls(c);
    peer_start_tls(w, p);
    peer_say(p, SLICE(""));
    while (!p->is_secure || s->secured == 0 || tls_session_has_output(p->tls) ||
           p->out.octets > 0) {
        struct iovec iov;
        tls_session_take_output(p->tls, &p->out);
        if (gather_iov(&p->out, 0, (uint32_t)p->written, &iov, 1) == 1)
            p->written += (size_t)write(p->fd, iov.iov_base, 1);
        if (p->written == p->out.octets) {
            gather_clear(&p->out);
            p->written = 0;
            peer_turn(p);
        }
        turn(w);
        assert_int_equal(s->closed, 0);
    }
    peer_say(p, SLICE("NOOP\r\n"));
    turn_until(w, p, p->in.len == 6);
    end_of_pair(w, s, p);
    world_free(w);
}

/* --- both ends are ours ---------------------------------------------------------------------- */

static void client_opened(struct conn *c, int result)
{
    assert_int_equal(result, 0);
    gather_copy(conn_out(c), SLICE("STARTTLS\r\n"));
}

/* Outbound: STARTTLS, and after the 220 the client's turn. */
static size_t client_data(struct conn *c, struct slice in)
{
    struct seen *s = c->owner;
    if (conn_tls(c))
        return on_data(c, in);
    conn_start_tls(c, tls_session_new_client(s->world->client, NULL, "b"));
    return in.len;
}

static void client_secure(struct conn *c, int result)
{
    on_secure(c, result);
    gather_copy(conn_out(c), SLICE("EHLO us\r\n"));
}

static void test_outbound_starttls(void **state)
{
    static const struct conn_events client_events = {
        .on_open = client_opened,
        .on_data = client_data,
        .on_end = on_end,
        .on_secure = client_secure,
        .on_closed = on_closed,
    };
    struct world *w = world_new();
    struct seen *ours = seen_new(w), *theirs = seen_new(w);
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    theirs->starts_tls = theirs->echoes = true;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    struct conn *c =
        conn_connect(&w->table, NULL, (struct sockaddr *)&addr, len, &client_events, ours);
    turn(w);
    int fd = accept(listener, NULL, NULL);
    assert_non_null(conn_adopt(&w->table, (struct ring_socket){ fd, false }, &events, theirs));
    for (int i = 0; i < TURNS_MAX && ours->in.len < 9; i++)
        turn(w);
    assert_true(is_text(&ours->in, SLICE("EHLO us\r\n")));
    conn_finish(c);
    for (int i = 0; i < TURNS_MAX && theirs->closed + ours->closed < 2; i++)
        turn(w);
    assert_int_equal(theirs->ended, 1);
    assert_int_equal(theirs->end_result, 0);
    assert_int_equal(ours->closed, 1);
    close(listener);
    seen_free(ours);
    seen_free(theirs);
    world_free(w);
}

/* --- memory ---------------------------------------------------------------------------------- */

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t allocated(void)
{
    if (__sanitizer_get_current_allocated_bytes)
        return __sanitizer_get_current_allocated_bytes();
    return mallinfo2().uordblks;
}

/* An idle connection that has spoken TLS: at most 4 KiB, all in. */
static void test_an_idle_connection_is_small(void **state)
{
    enum { IDLE = 32 };
    struct world *w = world_new();
    struct seen *s[IDLE];
    struct peer *p[IDLE];
    for (int i = 0; i < IDLE; i++) {
        s[i] = seen_new(w);
        open_secure_pair(w, s[i], &p[i]);
        gather_copy(conn_out(&w->table.slots[i]), SLICE("220 hello\r\n"));
        peer_say(p[i], SLICE("EHLO a\r\n"));
        turn_until(w, p[i], s[i]->sent == 11 && s[i]->in.len == 8);
    }
    size_t before = allocated();
    for (int i = 0; i < IDLE; i++)
        conn_close(&w->table.slots[i]);
    for (int i = 0; i < TURNS_MAX && conn_table_live(&w->table) > 0; i++)
        turn(w);
    size_t each = (before - allocated()) / IDLE + sizeof(struct conn);
    print_message("# idle TLS connection: %zu octets\n", each);
    assert_in_range(each, 1000, 4096);
    for (int i = 0; i < IDLE; i++)
        end_of_pair(w, s[i], p[i]);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_implicit_tls_echoes),
        cmocka_unit_test(test_what_is_said_early_waits_for_the_handshake),
        cmocka_unit_test(test_starttls_discards_what_was_injected),
        cmocka_unit_test(test_what_comes_before_our_word_left_is_dropped),
        cmocka_unit_test(test_what_comes_after_our_word_in_clear_breaks_the_handshake),
        cmocka_unit_test(test_held_input_is_discarded_when_tls_starts_later),
        cmocka_unit_test(test_a_header_before_implicit_tls),
        cmocka_unit_test(test_clear_text_on_an_implicit_port_is_ended),
        cmocka_unit_test(test_much_goes_both_ways),
        cmocka_unit_test(test_a_pausing_owner_holds_ciphertext),
        cmocka_unit_test(test_a_truncation_is_seen),
        cmocka_unit_test(test_half_closed_tls_still_gets_its_reply),
        cmocka_unit_test(test_finish_says_close_notify),
        cmocka_unit_test(test_finish_inside_a_handshake_closes),
        cmocka_unit_test(test_a_broken_record_ends_the_connection),
        cmocka_unit_test(test_a_group_of_replies_is_one_record),
        cmocka_unit_test(test_a_flood_of_handshakes_is_bounded),
        cmocka_unit_test(test_closing_inside_an_event_ends_quietly),
        cmocka_unit_test(test_a_handshake_may_come_octet_by_octet),
        cmocka_unit_test(test_outbound_starttls),
        cmocka_unit_test(test_an_idle_connection_is_small),
    };
    return cmocka_run_group_tests_name("conn_tls", tests, make_files, remove_files);
}
