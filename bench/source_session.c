/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_session - one SMTP conversation of kilat-source.
 *
 * Replies are expected in a queue: what is said puts one there, a reply takes the oldest out. So
 * pipelining needs no states of its own; without it there is one at most.
 *
 *     closed -> connecting -> greeting -> EHLO -> (STARTTLS, EHLO) -> (AUTH) -> up -> QUIT ->
 * closed
 */
#include "bench/source.h"
#include "core/base/must.h"
#include "core/smtp/sasl.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TOOL     "kilat-source"
#define AGAIN_MS 100 /* after a connection that failed */

enum source_reply {
    REPLY_GREETING,
    REPLY_EHLO,
    REPLY_STARTTLS,
    REPLY_AUTH,
    REPLY_MAIL,
    REPLY_RCPT,
    REPLY_DATA,
    REPLY_CONTENT,
    REPLY_RSET,
    REPLY_QUIT,
};

static struct gather *out(struct source_session *ss)
{
    return conn_out(ss->conn);
}

static void expect(struct source_session *ss, enum source_reply reply)
{
    must(ss->expect_count < ARRAY_LEN(ss->expects));
    if (ss->expect_count == 0 && !ss->is_idle)
        ss->s->talking++;
    ss->expects[(ss->expect_first + ss->expect_count++) % ARRAY_LEN(ss->expects)] = (uint8_t)reply;
}

static void forget_expected(struct source_session *ss)
{
    if (ss->expect_count > 0 && !ss->is_idle)
        ss->s->talking--;
    ss->expect_count = 0;
}

static void say(struct source_session *ss, struct slice text, enum source_reply reply)
{
    gather_copy(out(ss), text);
    expect(ss, reply);
}

/* --- messages -------------------------------------------------------------------------------- */

static struct source_txn *newest(struct source_session *ss)
{
    return &ss->txns[(ss->first + ss->count - 1) % SOURCE_DEPTH];
}

static struct source_txn *oldest(struct source_session *ss)
{
    must(ss->count > 0);
    return &ss->txns[ss->first];
}

static bool is_last(const struct source_session *ss)
{
    return ss->begun >= ss->s->o.per_connection || ss->s->is_over;
}

static bool can_begin(const struct source_session *ss)
{
    const struct source_options *o = &ss->s->o;
    if (!ss->is_up || ss->is_idle || ss->is_quitting || ss->awaits_354 || is_last(ss))
        return false;
    return ss->count < (o->is_pipelining ? o->depth : 1);
}

static void update_ready(struct source_session *ss)
{
    bool is_ready = can_begin(ss);
    if (is_ready == ss->is_ready)
        return;
    ss->is_ready = is_ready;
    if (is_ready)
        list_push_back(&ss->s->ready, &ss->node);
    else
        list_remove(&ss->node);
}

static void say_rcpt(struct source_session *ss, const struct source_txn *txn)
{
    const struct source_options *o = &ss->s->o;
    const char *at = strrchr(o->rcpt, '@');
    int local = (int)(at - o->rcpt);
    if (o->rcpts == 1 && o->domains == 0)
        gather_printf(out(ss), "RCPT TO:<%s>\r\n", o->rcpt);
    else if (o->domains == 0)
        gather_printf(out(ss), "RCPT TO:<%.*s%u@%s>\r\n", local, o->rcpt, txn->left, at + 1);
    else
        gather_printf(out(ss), "RCPT TO:<%.*s%u@d%" PRIu64 ".%s>\r\n", local, o->rcpt, txn->left,
                      txn->number % o->domains, at + 1);
    expect(ss, REPLY_RCPT);
}

static void say_content(struct source_session *ss, struct source_txn *txn)
{
    const struct source_size *size = &ss->s->o.sizes[txn->size];
    if (ss->s->o.has_bdat)
        gather_printf(out(ss), "BDAT %u LAST\r\n", size->octets);
    gather_printf(out(ss), BENCH_FIELD "%08" PRIx32 "-%010" PRIu64 "\r\n", ss->s->run, txn->number);
    gather_ref(out(ss), slice_of(size->body, size->body_len));
    if (!ss->s->o.has_bdat)
        gather_copy(out(ss), SLICE(".\r\n"));
    expect(ss, REPLY_CONTENT);
    txn->end_ns = engine_ns();
}

static void say_quit(struct source_session *ss)
{
    if (ss->is_quitting)
        return;
    ss->is_quitting = true;
    say(ss, SLICE("QUIT\r\n"), REPLY_QUIT);
}

/* The last content is said: QUIT rides along, or comes when all is answered. */
static void quit_when_done(struct source_session *ss)
{
    if (ss->is_up && !ss->is_idle && is_last(ss) && !ss->awaits_354 &&
        (ss->count == 0 || (ss->s->o.is_pipelining && newest(ss)->end_ns)))
        say_quit(ss);
    update_ready(ss);
}

void source_session_begin(struct source_session *ss, uint64_t number, int64_t due_ns)
{
    struct source *s = ss->s;
    struct source_txn *txn = &ss->txns[(ss->first + ss->count++) % SOURCE_DEPTH];
    uint32_t draw = (uint32_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 32) % s->o.weights;
    *txn = (struct source_txn){ .number = number, .due_ns = due_ns, .left = s->o.rcpts };
    while (draw >= s->o.sizes[txn->size].weight)
        draw -= s->o.sizes[txn->size++].weight;
    ss->begun++;
    gather_printf(out(ss), "MAIL FROM:<%s>%s\r\n", s->o.sender,
                  s->o.has_bdat ? " BODY=8BITMIME" : "");
    expect(ss, REPLY_MAIL);
    if (s->o.is_pipelining) {
        for (; txn->left > 0; txn->left--)
            say_rcpt(ss, txn);
        if (s->o.has_bdat) {
            say_content(ss, txn);
        } else {
            say(ss, SLICE("DATA\r\n"), REPLY_DATA);
            ss->awaits_354 = true;
        }
    }
    quit_when_done(ss);
}

static void count_end(struct source *s, const struct source_txn *txn, int code)
{
    int64_t now = engine_ns();
    s->last_ns = now;
    s->ended++;
    if (code == 250)
        numbers_add(&s->acknowledged, txn->number);
    if (s->ended <= s->o.warm_up) {
        if (s->ended == s->o.warm_up) {
            s->warm_ns = now;
            s->warm_cpu_s = engine_cpu_s();
        }
        return;
    }
    s->counts.accepted += code == 250;
    s->counts.tempfailed += code / 100 == 4;
    s->counts.rejected += code / 100 == 5;
    s->counts.lost += code == 0;
    if (code != 250)
        return;
    s->counts.octets += s->o.sizes[txn->size].octets;
    histogram_record(s->end_to_250, now - txn->end_ns);
    histogram_record(s->due_to_250, now - txn->due_ns);
}

static void end_txn(struct source_session *ss, int code)
{
    struct source_txn *txn = oldest(ss);
    count_end(ss->s, txn, txn->refused ? txn->refused : code);
    ss->first = (ss->first + 1) % SOURCE_DEPTH;
    ss->count--;
}

static void refuse(struct source_session *ss, int code)
{
    struct source_txn *txn = oldest(ss);
    if (!txn->refused)
        txn->refused = code;
    if (!ss->s->o.is_pipelining)
        say(ss, SLICE("RSET\r\n"), REPLY_RSET);
}

/* --- replies --------------------------------------------------------------------------------- */

static void say_ehlo(struct source_session *ss)
{
    say(ss, SLICE("EHLO source.bench.test\r\n"), REPLY_EHLO);
}

static void say_auth(struct source_session *ss)
{
    const struct source_options *o = &ss->s->o;
    struct buf plain, text;
    buf_init(&plain, 1024);
    buf_init(&text, 2048);
    must(buf_printf(&plain, "%c%s%c%s", 0, o->user, 0, o->password) == STATUS_OK &&
         buf_append(&text, SLICE("AUTH PLAIN ")) == STATUS_OK &&
         base64_encode(buf_slice(&plain), &text) == STATUS_OK &&
         buf_append(&text, SLICE("\r\n")) == STATUS_OK);
    say(ss, buf_slice(&text), REPLY_AUTH);
    buf_done(&plain);
    buf_done(&text);
}

static void is_up(struct source_session *ss)
{
    if (ss->s->o.is_pipelining && !ss->offers_pipelining)
        engine_die(TOOL, "--pipelining: the server does not offer it");
    if (ss->s->o.has_bdat && !ss->offers_chunking)
        engine_die(TOOL, "--bdat: the server does not offer CHUNKING");
    ss->is_up = true;
    ss->s->connecting--;
    ss->s->counts.connections++;
    ss->s->held += ss->is_idle;
    quit_when_done(ss);
}

static void start_tls(struct source_session *ss)
{
    char host[32] = "host";
    if (!ss->s->o.resumes) /* a host of its own: nothing is remembered of it */
        snprintf(host, sizeof host, "%u.%" PRIu64, (unsigned)(ss - ss->s->sessions),
                 ss->s->counts.connections);
    conn_start_tls(ss->conn, tls_session_new_client(ss->s->tls, NULL, host));
}

static void on_secure(struct conn *c, int result)
{
    struct source_session *ss = c->owner;
    if (result < 0)
        return;
    ss->is_secure = true;
    if (ss->s->o.tls == SOURCE_STARTTLS)
        say_ehlo(ss);
}

static void greeted(struct source_session *ss)
{
    const struct source_options *o = &ss->s->o;
    if (o->tls == SOURCE_STARTTLS && !ss->is_secure)
        say(ss, SLICE("STARTTLS\r\n"), REPLY_STARTTLS);
    else if (o->user)
        say_auth(ss);
    else
        is_up(ss);
}

/* A reply that ends the conversation before it has begun is an error of the setup: it is told. */
static void setup_failed(struct source_session *ss, struct slice line)
{
    if (ss->s->counts.connections == 0)
        engine_die(TOOL, "the server says: %.*s", SLICE_ARG(line));
    conn_close(ss->conn);
}

static void on_rcpt(struct source_session *ss, int code)
{
    struct source_txn *txn = oldest(ss);
    if (code / 100 != 2) {
        refuse(ss, code);
        return;
    }
    if (ss->s->o.is_pipelining)
        return;
    if (--txn->left > 0)
        say_rcpt(ss, txn);
    else if (ss->s->o.has_bdat)
        say_content(ss, txn);
    else
        say(ss, SLICE("DATA\r\n"), REPLY_DATA);
}

static void on_data_reply(struct source_session *ss, int code)
{
    struct source_txn *txn = newest(ss);
    ss->awaits_354 = false;
    if (code == 354 && txn->refused) {
        say(ss, SLICE(".\r\n"), REPLY_CONTENT);
    } else if (code == 354) {
        say_content(ss, txn);
    } else {
        txn->refused = txn->refused ? txn->refused : code;
        say(ss, SLICE("RSET\r\n"), REPLY_RSET);
    }
    quit_when_done(ss);
}

static void take_reply(struct source_session *ss, struct slice line, int code)
{
    must(ss->expect_count > 0);
    enum source_reply reply = ss->expects[ss->expect_first];
    ss->expect_first = (ss->expect_first + 1) % ARRAY_LEN(ss->expects);
    if (--ss->expect_count == 0 && !ss->is_idle)
        ss->s->talking--;
    bool is_good = code / 100 == 2;
    switch (reply) {
    case REPLY_GREETING:
    case REPLY_EHLO:
    case REPLY_STARTTLS:
    case REPLY_AUTH:
        if (!is_good)
            setup_failed(ss, line);
        else if (reply == REPLY_GREETING)
            say_ehlo(ss);
        else if (reply == REPLY_EHLO)
            greeted(ss);
        else if (reply == REPLY_STARTTLS)
            start_tls(ss);
        else
            is_up(ss);
        break;
    case REPLY_MAIL:
        if (!is_good)
            refuse(ss, code);
        else if (!ss->s->o.is_pipelining)
            say_rcpt(ss, oldest(ss));
        break;
    case REPLY_RCPT: on_rcpt(ss, code); break;
    case REPLY_DATA: on_data_reply(ss, code); break;
    case REPLY_RSET:
    case REPLY_CONTENT:
        end_txn(ss, code);
        quit_when_done(ss);
        break;
    case REPLY_QUIT: conn_close(ss->conn); break;
    }
}

/* What the server offers, a line of the reply to EHLO each. */
static void note_offer(struct source_session *ss, struct slice line)
{
    struct slice word = slice_skip(line, 4);
    ss->offers_pipelining |= slice_eq_nocase(word, SLICE("PIPELINING"));
    ss->offers_chunking |= slice_eq_nocase(word, SLICE("CHUNKING"));
}

/* One line without its end. */
static void take_line(struct source_session *ss, struct slice line)
{
    char text[4] = "";
    if (!ss->is_up)
        note_offer(ss, line);
    if (line.len < 3 || (line.len > 3 && line.ptr[3] == '-'))
        return;
    memcpy(text, line.ptr, 3);
    if (ss->expect_count == 0) { /* 421, unasked */
        conn_close(ss->conn);
        return;
    }
    take_reply(ss, line, atoi(text));
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct source_session *ss = c->owner;
    struct slice rest = in;
    while (rest.len > 0 && c->state == CONN_OPEN) {
        size_t end = slice_find(rest, '\n');
        struct slice piece = slice_head(rest, end);
        bool is_whole = end < rest.len;
        rest = slice_skip(rest, end + 1);
        if (!is_whole || ss->line_len > 0) {
            size_t room = sizeof ss->line - ss->line_len;
            piece = slice_head(piece, room);
            memcpy(ss->line + ss->line_len, piece.ptr, piece.len);
            ss->line_len += (uint32_t)piece.len;
            piece = slice_of(ss->line, ss->line_len);
        }
        if (!is_whole)
            break;
        ss->line_len = 0;
        if (piece.len > 0 && piece.ptr[piece.len - 1] == '\r')
            piece.len--;
        take_line(ss, piece);
    }
    return in.len;
}

/* --- connections ----------------------------------------------------------------------------- */

static void on_open(struct conn *c, int result)
{
    struct source_session *ss = c->owner;
    if (result < 0 && ss->s->counts.connections == 0)
        engine_die(TOOL, "cannot connect: %s", strerror(-result));
    if (result < 0)
        return;
    expect(ss, REPLY_GREETING);
    if (ss->s->o.tls == SOURCE_IMPLICIT)
        start_tls(ss);
}

static void on_end(struct conn *c, int result)
{
    conn_close(c);
}

static void to_be_connected(struct source_session *ss)
{
    list_push_back(&ss->s->closed, &ss->node);
}

static void on_again(struct wheel_timer *timer)
{
    to_be_connected(container_of(timer, struct source_session, again));
}

static void on_closed(struct conn *c)
{
    struct source_session *ss = c->owner;
    struct source *s = ss->s;
    bool was_up = ss->is_up, was_done = ss->is_quitting && ss->count == 0;
    forget_expected(ss);
    while (ss->count > 0) {
        oldest(ss)->refused = 0;
        end_txn(ss, 0);
    }
    ss->conn = NULL;
    ss->is_up = ss->awaits_354 = false;
    update_ready(ss);
    if (!was_up) {
        s->connecting--;
        s->counts.failed += !s->is_over;
    }
    s->held -= was_up && ss->is_idle;
    if (s->is_over)
        return;
    if (was_done)
        to_be_connected(ss);
    else
        wheel_set(&s->engine.wheel, &ss->again, s->engine.now.mono_ms + AGAIN_MS);
}

void source_session_init(struct source_session *ss, struct source *s, bool is_idle)
{
    *ss = (struct source_session){ .s = s, .is_idle = is_idle };
    wheel_timer_init(&ss->again, on_again);
    to_be_connected(ss);
}

void source_session_connect(struct source_session *ss)
{
    static const struct conn_events events = {
        on_open, on_data, on_end, on_secure, NULL, on_closed
    };
    struct source *s = ss->s;
    ss->begun = 0;
    ss->expect_first = ss->line_len = 0;
    ss->is_quitting = ss->is_secure = false;
    s->connecting++;
    ss->conn = conn_connect(&s->engine.conns, NULL, (const struct sockaddr *)&s->o.addr,
                            s->o.addr_len, &events, ss);
    if (!ss->conn)
        engine_die(TOOL, "cannot make a socket: fewer sessions, or raise ulimit -n");
}

void source_session_wind_up(struct source_session *ss)
{
    if (!ss->conn)
        return;
    if (ss->is_idle || !ss->is_up)
        conn_close(ss->conn);
    else
        quit_when_done(ss);
}
