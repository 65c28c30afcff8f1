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
    p->tls = tls_session_new_client(w->client, "a.example");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_implicit_tls_echoes),
        cmocka_unit_test(test_what_is_said_early_waits_for_the_handshake),
        cmocka_unit_test(test_starttls_discards_what_was_injected),
    };
    return cmocka_run_group_tests_name("conn_tls", tests, make_files, remove_files);
}
