/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds conversations with the outbound client, written down as they would be seen on the wire.
 *
 *     "< "  the peer's line                   "> "  our line since the peer's last one
 *     "> (body N)"  transaction N's content    "! "  an event: begin N, quit, lost, timeout, hold,
 *                                                    write, binary, utf8 (what the message is)
 *
 * Each is held twice, whole and byte by byte, and then once more per octet of the peer's, losing
 * the connection there: every outcome must be decided, once, and nobody bounced whom the peer did
 * not refuse.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/smtp/client.h"

#define TXNS_MAX  4
#define RCPTS_MAX 300

static const char *const stage_names[] = {
    [OUTCOME_NONE] = "none",         [OUTCOME_DNS] = "dns",         [OUTCOME_CONNECT] = "connect",
    [OUTCOME_GREETING] = "greeting", [OUTCOME_EHLO] = "ehlo",       [OUTCOME_MAIL] = "mail",
    [OUTCOME_RCPT] = "rcpt",         [OUTCOME_DATA] = "data",       [OUTCOME_DOT] = "dot",
    [OUTCOME_LOST] = "lost",         [OUTCOME_UNKNOWN] = "unknown", [OUTCOME_LOCAL] = "local",
};

static const char *const state_names[] = {
    [CLIENT_GREETING] = "greeting", [CLIENT_EHLO] = "ehlo",     [CLIENT_HELO] = "helo",
    [CLIENT_READY] = "ready",       [CLIENT_BUSY] = "busy",     [CLIENT_QUIT] = "quit",
    [CLIENT_CLOSED] = "closed",     [CLIENT_BROKEN] = "broken",
};

/* --- a client with a peer of paper ----------------------------------------------------------- */

struct mail {
    struct smtp_txn txn;
    struct arena arena;
    uint32_t rcpts[RCPTS_MAX];
    struct rcpt_outcome outcomes[RCPTS_MAX];
    int finished; /* times it came back */
    bool begun;
};

struct talk {
    struct smtp_client client;
    struct now now;
    struct message *message;
    struct mail mails[TXNS_MAX];
    struct gather out;
    struct buf said;          /* since the peer's last line; one line per command */
    struct smtp_txn *writing; /* with is_holding: content whose end is not written yet */
    bool is_holding;
    bool is_closed; /* the client asked for it */
};

static void talk_init(struct talk *t, uint32_t rcpt_count)
{
    memset(t, 0, sizeof(*t));
    t->now.mono_ms = 1000;
    t->message = message_new(NULL);
    t->message->size = 1234;
    t->message->sender = SLICE("s@a.example");
    for (uint32_t i = 0; i < rcpt_count; i++) {
        char address[32];
        int len = snprintf(address, sizeof(address), "r%u@b.example", i);
        struct slice s = slice_of(address, (size_t)len);
        message_add_rcpt(t->message, s, slice_skip(s, slice_find(s, '@') + 1));
    }
    gather_init(&t->out);
    buf_init(&t->said, 1024 * 1024);
    smtp_client_init(&t->client, &(struct client_policy){ .tls = CLIENT_TLS_OFF },
                     SLICE("me.example"), 0, &t->now);
}

static void say(struct talk *t, struct slice s)
{
    assert_int_equal(buf_append(&t->said, s), STATUS_OK);
}

static void take_output(struct talk *t)
{
    struct iovec iov[64];
    uint32_t n = gather_iov(&t->out, 0, 0, iov, 64);
    for (uint32_t i = 0; i < n; i++)
        say(t, slice_of(iov[i].iov_base, iov[i].iov_len));
    gather_clear(&t->out);
}

static int number_of(struct talk *t, const struct smtp_txn *txn)
{
    for (int i = 0; i < TXNS_MAX; i++)
        if (txn == &t->mails[i].txn)
            return i + 1;
    fail_msg("an unknown transaction");
    return 0;
}

static void write_body(struct talk *t, struct smtp_txn *txn)
{
    char line[32];
    int len = snprintf(line, sizeof(line), "(body %d)\r\n", number_of(t, txn));
    say(t, slice_of(line, (size_t)len));
    smtp_client_body_sent(&t->client, txn, &t->now);
}

static void collect(struct talk *t)
{
    struct smtp_txn *txn;
    while ((txn = smtp_client_finished(&t->client))) {
        t->mails[number_of(t, txn) - 1].finished++;
        if (t->writing == txn)
            t->writing = NULL;
    }
}

/* What the driver does after every event. */
static void pump(struct talk *t)
{
    struct smtp_txn *txn = NULL;
    collect(t);
    for (;;) {
        if (t->writing)
            break;
        enum client_next next = smtp_client_next(&t->client, &t->out, &txn, &t->now);
        take_output(t);
        if (next == CLIENT_NEXT_BODY && t->is_holding)
            t->writing = txn;
        else if (next == CLIENT_NEXT_BODY)
            write_body(t, txn);
        t->is_closed = next == CLIENT_NEXT_CLOSE;
        if (next == CLIENT_NEXT_NOTHING || next == CLIENT_NEXT_CLOSE)
            break;
    }
    collect(t);
}

static void begin(struct talk *t, int number)
{
    struct mail *m = &t->mails[number - 1];
    uint32_t count = t->message->rcpt_count;
    assert_false(m->begun);
    m->begun = true;
    for (uint32_t i = 0; i < count; i++)
        m->rcpts[i] = i;
    m->txn = (struct smtp_txn){
        .message = t->message,
        .rcpts = m->rcpts,
        .rcpt_count = count,
        .outcomes = m->outcomes,
        .arena = &m->arena,
    };
    smtp_client_begin(&t->client, &m->txn, &t->now);
    pump(t);
}

static void hear(struct talk *t, struct slice in, bool is_cut)
{
    while (in.len > 0) {
        size_t n = is_cut ? 1 : in.len;
        smtp_client_input(&t->client, slice_head(in, n), &t->now);
        in = slice_skip(in, n);
        pump(t);
    }
}

static void lose(struct talk *t)
{
    smtp_client_lost(&t->client, OUTCOME_LOST, "the connection was closed by the peer");
    pump(t);
}

static void happen(struct talk *t, struct slice event)
{
    if (event.len == 7 && slice_eq(slice_head(event, 6), SLICE("begin ")))
        begin(t, event.ptr[6] - '0');
    else if (slice_eq(event, SLICE("quit")))
        smtp_client_quit(&t->client);
    else if (slice_eq(event, SLICE("lost")))
        lose(t);
    else if (slice_eq(event, SLICE("timeout")))
        smtp_client_timeout(&t->client);
    else if (slice_eq(event, SLICE("hold")))
        t->is_holding = true;
    else if (slice_eq(event, SLICE("binary")))
        t->message->flags |= MESSAGE_BINARY;
    else if (slice_eq(event, SLICE("utf8"))) {
        t->message->flags |= MESSAGE_UTF8;
        t->message->rcpts[0].address = SLICE("\xc3\xa9@b.example");
    } else if (slice_eq(event, SLICE("write")) && t->writing) {
        struct smtp_txn *txn = t->writing;
        t->writing = NULL;
        write_body(t, txn);
    } else if (!slice_eq(event, SLICE("write")))
        fail_msg("no such event: %.*s", SLICE_ARG(event));
    pump(t);
}

/* "1: dot 250 2.0.0, rcpt 550 5.1.1" for each transaction begun. */
static void describe(struct talk *t, struct buf *out)
{
    for (int i = 0; i < TXNS_MAX; i++) {
        struct mail *m = &t->mails[i];
        if (!m->begun)
            continue;
        assert_int_equal(buf_printf(out, "%s%d:", out->len ? "; " : "", i + 1), STATUS_OK);
        for (uint32_t k = 0; k < m->txn.rcpt_count; k++) {
            const struct rcpt_outcome *o = &m->outcomes[k];
            assert_int_equal(buf_printf(out, "%s %s %d%s%s", k ? "," : "", stage_names[o->stage],
                                        o->code, o->enhanced[0] ? " " : "", o->enhanced),
                             STATUS_OK);
        }
    }
}

/* Every transaction begun came back once with every outcome decided. */
static void check_over(struct talk *t)
{
    for (int i = 0; i < TXNS_MAX; i++) {
        struct mail *m = &t->mails[i];
        assert_int_equal(m->finished, m->begun ? 1 : 0);
        for (uint32_t k = 0; m->begun && k < m->txn.rcpt_count; k++) {
            assert_int_not_equal(m->outcomes[k].stage, OUTCOME_NONE);
            assert_in_range(m->outcomes[k].code, 200, 599);
        }
    }
}

static void talk_done(struct talk *t)
{
    lose(t);
    check_over(t);
    assert_true(t->is_closed);
    smtp_client_done(&t->client);
    for (int i = 0; i < TXNS_MAX; i++)
        arena_done(&t->mails[i].arena);
    gather_done(&t->out);
    buf_done(&t->said);
    message_unref(t->message);
}

/* --- conversations --------------------------------------------------------------------------- */

/* How a conversation is held. */
struct manner {
    bool is_cut;       /* byte by byte */
    size_t octets_max; /* the connection is lost after so many of the peer's */
};

static struct slice next_line(const char **script)
{
    struct slice line = slice_of(*script, strcspn(*script, "\n"));
    *script += line.len + ((*script)[line.len] == '\n');
    return line;
}

static void check_said(struct talk *t, struct buf *want, const char *name, const char *how)
{
    if (!slice_eq(buf_slice(want), buf_slice(&t->said)))
        fail_msg("%s (%s): said\n%.*s\nnot\n%.*s", name, how, SLICE_ARG(buf_slice(&t->said)),
                 SLICE_ARG(buf_slice(want)));
    buf_clear(want);
    buf_clear(&t->said);
}

static void append_line(struct buf *out, struct slice line)
{
    assert_int_equal(buf_printf(out, "%.*s\r\n", SLICE_ARG(slice_skip(line, 2))), STATUS_OK);
}

/* Feeds what gathered in heard, as far as the manner allows; false: the connection is lost. */
static bool deliver(struct talk *t, struct buf *heard, struct manner *manner)
{
    struct slice in = slice_head(buf_slice(heard), manner->octets_max);
    bool is_whole = in.len == heard->len;
    hear(t, in, manner->is_cut);
    manner->octets_max -= in.len;
    buf_clear(heard);
    return is_whole;
}

/* Holds a conversation; with check, what we say must be what is written. */
static void hold_talk(struct talk *t, const char *script, struct manner manner, const char *name)
{
    const char *how = manner.is_cut ? "cut" : "whole";
    bool check = manner.octets_max == SIZE_MAX, is_up = true;
    struct buf heard, want;
    buf_init(&heard, 1024 * 1024);
    buf_init(&want, 1024 * 1024);
    pump(t);
    while (*script && is_up) {
        struct slice line = next_line(&script);
        if (line.ptr[0] != '<' && heard.len > 0)
            is_up = deliver(t, &heard, &manner);
        if (line.ptr[0] == '<') {
            if (check)
                check_said(t, &want, name, how);
            append_line(&heard, line);
        } else if (line.ptr[0] == '>') {
            append_line(&want, line);
        } else if (is_up) {
            happen(t, slice_skip(line, 2));
        }
    }
    if (is_up)
        deliver(t, &heard, &manner);
    if (check)
        check_said(t, &want, name, how);
    buf_done(&heard);
    buf_done(&want);
}

#define LOCKSTEP                                                                                   \
    "< 220 mx\n> EHLO me.example\n"                                                                \
    "< 250 mx\n! begin 1\n> MAIL FROM:<s@a.example>\n"
#define PIPELINING                                                                                 \
    "< 220-mx\n< 220 hello\n> EHLO me.example\n"                                                   \
    "< 250-mx\n< 250-SIZE 100000\n< 250-8bitmime\n< 250 pipelining\n"
#define GROUP                                                                                      \
    "> MAIL FROM:<s@a.example> SIZE=1234\n> RCPT TO:<r0@b.example>\n> RCPT TO:<r1@b.example>\n"    \
    "> DATA\n"
#define BINARY                                                                                     \
    "< 220 mx\n> EHLO me.example\n"                                                                \
    "< 250-mx\n< 250-chunking\n< 250-BinaryMime\n< 250 PIPELINING\n! binary\n"
#define BINARY_GROUP "> MAIL FROM:<s@a.example> BODY=BINARYMIME\n" R0 R1
#define CHUNKS                                                                                     \
    "< 220 mx\n> EHLO me.example\n< 250-mx\n< 250 CHUNKING\n! begin 1\n"                           \
    "> MAIL FROM:<s@a.example>\n"
#define R0 "> RCPT TO:<r0@b.example>\n"
#define R1 "> RCPT TO:<r1@b.example>\n"

/* Every one has two recipients. */
static const struct {
    const char *name, *script, *outcomes, *state;
} rows[] = {
    { "P-172 pipelined, everything fine",
      PIPELINING "! begin 1\n" GROUP
                 "< 250 2.1.0 ok\n< 250 2.1.5 ok\n< 251 will forward\n< 354 go\n"
                 "> (body 1)\n< 250 2.0.0 queued as 1\n",
      "1: dot 250 2.0.0, dot 250 2.0.0", "ready" },
    { "one at a time, everything fine",
      LOCKSTEP "< 250 ok\n" R0 "< 250 ok\n" R1 "< 252 ok\n> DATA\n< 354 go\n> (body 1)\n"
               "< 250 ok\n! quit\n> QUIT\n< 221 bye\n",
      "1: dot 250, dot 250", "closed" },
    { "P-181 verdicts are each recipient's own",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 550-5.1.1 who\n< 550 5.1.1 is that\n< 250 ok\n"
                 "< 354 go\n> (body 1)\n< 250 ok\n",
      "1: rcpt 550 5.1.1, dot 250", "ready" },
    { "P-181 one at a time",
      LOCKSTEP "< 250 ok\n" R0 "< 450 4.2.0 grey\n" R1 "< 250 ok\n> DATA\n< 354 go\n> (body 1)\n"
               "< 554 5.7.1 spam\n",
      "1: rcpt 450 4.2.0, dot 554 5.7.1", "ready" },
    { "P-181 552 after one was accepted is too many",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 552 5.5.3 too many\n< 354 go\n"
                 "> (body 1)\n< 250 ok\n",
      "1: dot 250, rcpt 452 4.5.3", "ready" },
    { "552 before any was accepted is a refusal",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 552 5.2.2 full\n< 250 ok\n< 354 go\n> (body 1)\n"
                 "< 250 ok\n",
      "1: rcpt 552 5.2.2, dot 250", "ready" },
    { "P-182 all refused, DATA refused: RSET and the next one in one flight",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 550 no\n< 551 no\n< 503 no recipients\n"
                 "> RSET\n! begin 2\n" GROUP
                 "< 250 reset\n< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 2)\n< 250 ok\n",
      "1: rcpt 550, rcpt 551; 2: dot 250, dot 250", "ready" },
    { "P-182 all refused, 354 all the same: a lone dot, its reply ignored",
      PIPELINING "! begin 1\n" GROUP
                 "< 250 ok\n< 550 no\n< 450 later\n< 354 go\n> .\n! begin 2\n" GROUP
                 "< 250 delivered to nobody\n< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n"
                 "> (body 2)\n< 250 ok\n",
      "1: rcpt 550, rcpt 450; 2: dot 250, dot 250", "ready" },
    { "P-182 one at a time: RSET instead of DATA",
      LOCKSTEP "< 250 ok\n" R0 "< 550 no\n" R1 "< 551 no\n> RSET\n! begin 2\n< 250 ok\n"
               "> MAIL FROM:<s@a.example>\n< 250 ok\n" R0 "< 250 ok\n" R1 "< 250 ok\n> DATA\n"
               "< 354 go\n> (body 2)\n< 250 ok\n",
      "1: rcpt 550, rcpt 551; 2: dot 250, dot 250", "ready" },
    { "MAIL refused, pipelined: nothing of the rest counts, no RSET",
      PIPELINING "! begin 1\n" GROUP
                 "< 550 5.1.8 you\n< 503 what\n< 250 huh\n< 503 no\n! begin 2\n" GROUP
                 "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 2)\n< 250 ok\n",
      "1: mail 550 5.1.8, mail 550 5.1.8; 2: dot 250, dot 250", "ready" },
    { "MAIL refused, one at a time",
      LOCKSTEP "< 451 4.3.0 later\n! begin 2\n> MAIL FROM:<s@a.example>\n< 552 no\n",
      "1: mail 451 4.3.0, mail 451 4.3.0; 2: mail 552, mail 552", "ready" },
    { "MAIL refused and yet 354: a lone dot",
      PIPELINING "! begin 1\n" GROUP "< 550 you\n< 503 no\n< 503 no\n< 354 go\n> .\n< 554 empty\n",
      "1: mail 550, mail 550", "ready" },
    { "P-183 DATA refused",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 451 4.3.0 no\n> RSET\n"
                 "< 250 ok\n",
      "1: data 451 4.3.0, rcpt 550", "ready" },
    { "P-183 250 to DATA: the content is not sent",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 250 ok\n",
      "1: data 451 4.5.0, data 451 4.5.0", "broken" },
    { "P-183 another 3xx to DATA",
      LOCKSTEP "< 250 ok\n" R0 "< 250 ok\n" R1 "< 550 no\n> DATA\n< 334 go\n",
      "1: data 451 4.5.0, data 451 4.5.0", "broken" },
    { "P-168 a reply is missing: the 354 comes for a RCPT, the 550 is nobody's",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 550 no\n< 354 go\n",
      "1: rcpt 451 4.5.0, rcpt 451 4.5.0", "broken" },
    { "354 to MAIL", PIPELINING "! begin 1\n" GROUP "< 354 go\n",
      "1: mail 451 4.5.0, mail 451 4.5.0", "broken" },
    { "P-169 a reply too many: not reused, verdicts in doubt",
      LOCKSTEP "< 250 ok\n" R0 "< 550 no\n" R1 "< 250 ok\n> DATA\n< 354 go\n> (body 1)\n"
               "< 250 ok\n! begin 2\n> MAIL FROM:<s@a.example>\n< 250 ok\n" R0 "< 550 no\n" R1
               "! hold\n< 250 ok\n> DATA\n< 354 go\n< 250 what\n",
      "1: rcpt 550, dot 250; 2: lost 451 4.5.0, lost 451 4.5.0", "broken" },
    { "P-169 a reply too many when idle",
      LOCKSTEP "< 250 ok\n" R0 "< 550 no\n" R1 "< 250 ok\n> DATA\n< 354 go\n> (body 1)\n"
               "< 250 ok\n< 250 ok\n",
      "1: rcpt 550, dot 250", "broken" },
    { "P-169 a stray 550 shifts the replies of a pipelined transaction",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n"
                 "! begin 2\n" GROUP "< 250 queued\n< 550 stray\n< 250 ok\n< 250 ok\n< 250 ok\n",
      "1: dot 250, dot 250; 2: data 451 4.5.0, data 451 4.5.0", "broken" },
    { "P-170 421 for a RCPT: the rest is deferred, the verdict before stands",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 550 5.1.1 no\n< 421 4.3.2 bye\n< 354 go\n",
      "1: rcpt 550 5.1.1, rcpt 421 4.3.2", "broken" },
    { "P-170 421 for MAIL", LOCKSTEP "< 421 4.7.0 too many messages\n",
      "1: mail 421 4.7.0, mail 421 4.7.0", "broken" },
    { "P-170 421 for DATA", PIPELINING "! begin 1\n" GROUP "< 250 a\n< 250 a\n< 250 a\n< 421 bye\n",
      "1: data 421, data 421", "broken" },
    { "P-170 421 for the dot: the next one was merely there",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n"
                 "! begin 2\n" GROUP "< 421 4.3.2 bye\n",
      "1: dot 421 4.3.2, dot 421 4.3.2; 2: lost 421 4.3.2, lost 421 4.3.2", "broken" },
    { "P-170 421 when idle, then a transaction comes too late",
      "< 220 mx\n> EHLO me.example\n< 250 mx\n< 421 idle too long\n! begin 1\n",
      "1: lost 451 4.4.2, lost 451 4.4.2", "broken" },
    { "P-185 lost after the dot: unknown; the next one was not taken",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n> (body 1)\n"
                 "! begin 2\n" GROUP "< 250-half a reply\n! lost\n",
      "1: unknown 451 4.4.2, rcpt 550; 2: lost 451 4.4.2, lost 451 4.4.2", "broken" },
    { "P-185 the dot's reply is nonsense: unknown",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n> (body 1)\n"
                 "< OK\n",
      "1: unknown 451 4.5.0, rcpt 550", "broken" },
    { "P-185 the dot's reply is 354: unknown",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n> (body 1)\n"
                 "< 354 go on\n",
      "1: unknown 451 4.5.0, rcpt 550", "broken" },
    { "P-185 timeout after the dot",
      LOCKSTEP "< 250 ok\n" R0 "< 250 ok\n" R1 "< 250 ok\n> DATA\n< 354 go\n> (body 1)\n"
               "! timeout\n",
      "1: unknown 451 4.4.2, unknown 451 4.4.2", "broken" },
    { "timeout before", LOCKSTEP "< 250 ok\n" R0 "! timeout\n", "1: lost 451 4.4.2, lost 451 4.4.2",
      "broken" },
    { "P-186 refused while content is written: that code counts, writing ends",
      "! hold\n" PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n"
      "! begin 2\n< 552 5.3.4 too big\n! write\n",
      "1: dot 552 5.3.4, rcpt 550; 2: lost 552 5.3.4, lost 552 5.3.4", "broken" },
    { "P-186 accepted while content is written: nonsense",
      "! hold\n" PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n"
      "! begin 2\n< 250 fine\n! write\n",
      "1: lost 451 4.5.0, lost 451 4.5.0; 2: lost 451 4.5.0, lost 451 4.5.0", "broken" },
    { "lost while content is written: not taken",
      "! hold\n" PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n! lost\n",
      "1: lost 451 4.4.2, rcpt 550", "broken" },
    { "overlap: the next one follows the dot; its content waits for its own 354",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n"
                 "! begin 2\n" GROUP "< 250 2.0.0 one\n! begin 3\n"
                 "< 250 ok\n< 250 ok\n< 550 no\n< 354 go\n> (body 2)\n" GROUP
                 "< 450 4.2.0 two\n< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 3)\n< 250 3\n",
      "1: dot 250 2.0.0, dot 250 2.0.0; 2: dot 450 4.2.0, rcpt 550; 3: dot 250, dot 250", "ready" },
    { "overlap: given while the content is written, said after it",
      "! hold\n" PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n"
      "! begin 2\n! write\n> (body 1)\n" GROUP "< 554 no\n< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n"
      "! write\n> (body 2)\n< 250 ok\n",
      "1: dot 554, dot 554; 2: dot 250, dot 250", "ready" },
    { "overlap: the second's MAIL is refused",
      PIPELINING "! begin 1\n" GROUP "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n"
                 "! begin 2\n" GROUP "< 250 ok\n< 452 4.3.1 full\n< 503 no\n< 503 no\n< 503 no\n"
                 "! begin 3\n" GROUP
                 "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 3)\n< 250 3\n",
      "1: dot 250, dot 250; 2: mail 452 4.3.1, mail 452 4.3.1; 3: dot 250, dot 250", "ready" },
    { "RSET refused: the peer is not given another",
      LOCKSTEP "< 250 ok\n" R0 "< 550 no\n" R1 "< 551 no\n> RSET\n! begin 2\n< 502 what\n",
      "1: rcpt 550, rcpt 551; 2: lost 451 4.5.0, lost 451 4.5.0", "broken" },
    { "P-163 EHLO refused: HELO, and no parameters (P-177)",
      "< 220 mx\n> EHLO me.example\n< 502-what\n< 502 PIPELINING\n> HELO me.example\n< 250 mx\n"
      "! begin 1\n> MAIL FROM:<s@a.example>\n< 250 ok\n" R0 "! quit\n< 550 no\n" R1
      "< 550 no\n> QUIT\n! lost\n",
      "1: rcpt 550, rcpt 550", "closed" },
    { "P-171 QUIT answered by nonsense",
      "< 220 mx\n> EHLO me.example\n< 250 mx\n! quit\n> QUIT\n< bye\n", "", "closed" },
    { "P-171 QUIT answered by 500",
      "< 220 mx\n> EHLO me.example\n< 250 mx\n! quit\n> QUIT\n< 500\n", "", "closed" },
    { "QUIT not answered", "< 220 mx\n> EHLO me.example\n< 250 mx\n! quit\n> QUIT\n! timeout\n", "",
      "closed" },
    { "P-106 binary content goes by BDAT when all recipients are answered",
      BINARY "! begin 1\n" BINARY_GROUP
             "< 250 ok\n< 250 ok\n< 550 no\n> BDAT 1234 LAST\n> (body 1)\n"
             "< 250 2.0.0 got it\n! begin 2\n" BINARY_GROUP
             "< 250 ok\n< 250 ok\n< 250 ok\n> BDAT 1234 LAST\n> (body 2)\n< 250 ok\n",
      "1: dot 250 2.0.0, rcpt 550; 2: dot 250, dot 250", "ready" },
    { "P-106 binary: nobody is left, no chunk",
      BINARY "! begin 1\n" BINARY_GROUP "< 250 ok\n< 450 later\n< 550 no\n> RSET\n< 250 ok\n",
      "1: rcpt 450, rcpt 550", "ready" },
    { "P-106 binary: MAIL refused, no RSET",
      BINARY "! begin 1\n" BINARY_GROUP "< 550 no\n< 503 no\n< 503 no\n! begin 2\n" BINARY_GROUP
             "< 451 no\n< 503 no\n< 503 no\n",
      "1: mail 550, mail 550; 2: mail 451, mail 451", "ready" },
    { "P-188 the chunk is refused: RSET, then the next",
      BINARY "! begin 1\n" BINARY_GROUP "< 250 ok\n< 250 ok\n< 250 ok\n> BDAT 1234 LAST\n"
             "> (body 1)\n< 554 5.6.0 bad\n> RSET\n! begin 2\n" BINARY_GROUP
             "< 250 ok\n< 250 ok\n< 250 ok\n< 250 ok\n> BDAT 1234 LAST\n> (body 2)\n< 250 ok\n",
      "1: dot 554 5.6.0, dot 554 5.6.0; 2: dot 250, dot 250", "ready" },
    { "P-188 a binary chunk is refused with 503: it cannot go another way",
      BINARY "! begin 1\n" BINARY_GROUP "< 250 ok\n< 250 ok\n< 250 ok\n> BDAT 1234 LAST\n"
             "> (body 1)\n< 503 what\n> RSET\n< 250 ok\n",
      "1: dot 503, dot 503", "ready" },
    { "P-186 binary: refused while the chunk is written",
      "! hold\n" BINARY "! begin 1\n" BINARY_GROUP
      "< 250 ok\n< 250 ok\n< 550 no\n> BDAT 1234 LAST\n< 552 5.3.4 too big\n! write\n",
      "1: dot 552 5.3.4, rcpt 550", "broken" },
    { "P-185 binary: lost after the chunk is unknown",
      BINARY "! begin 1\n" BINARY_GROUP "< 250 ok\n< 250 ok\n< 550 no\n> BDAT 1234 LAST\n"
             "> (body 1)\n! lost\n",
      "1: unknown 451 4.4.2, rcpt 550", "broken" },
    { "P-106 binary, and no BINARYMIME: not a word",
      "< 220 mx\n> EHLO me.example\n< 250-mx\n< 250 CHUNKING\n! binary\n! begin 1\n",
      "1: local 554 5.6.3, local 554 5.6.3", "ready" },
    { "P-106 binary, and no CHUNKING: not a word",
      "< 220 mx\n> EHLO me.example\n< 250-mx\n< 250 BINARYMIME\n! binary\n! begin 1\n",
      "1: local 554 5.6.3, local 554 5.6.3", "ready" },
    { "BDAT spares a peer without PIPELINING the trip of DATA",
      CHUNKS "< 250 ok\n" R0 "< 250 ok\n" R1
             "< 250 ok\n> BDAT 1234 LAST\n> (body 1)\n< 250 2.0.0 ok\n! begin 2\n"
             "> MAIL FROM:<s@a.example>\n< 250 ok\n" R0 "< 550 no\n" R1 "< 550 no\n> RSET\n"
             "< 250 ok\n",
      "1: dot 250 2.0.0, dot 250 2.0.0; 2: rcpt 550, rcpt 550", "ready" },
    { "with PIPELINING, DATA stays the default",
      "< 220 mx\n> EHLO me.example\n< 250-mx\n< 250-CHUNKING\n< 250 PIPELINING\n! begin 1\n"
      "> MAIL FROM:<s@a.example>\n" R0 R1 "> DATA\n"
      "< 250 ok\n< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n< 250 ok\n",
      "1: dot 250, dot 250", "ready" },
    { "P-188 503 to BDAT: the same by DATA, for who is left, and so from then on",
      CHUNKS "< 250 ok\n" R0 "< 550 no\n" R1
             "< 250 ok\n> BDAT 1234 LAST\n> (body 1)\n< 503 what\n> RSET\n< 250 ok\n"
             "> MAIL FROM:<s@a.example>\n< 250 ok\n" R1
             "< 250 ok\n> DATA\n< 354 go\n> (body 1)\n< 250 fine\n! begin 2\n"
             "> MAIL FROM:<s@a.example>\n< 250 ok\n" R0 "< 250 ok\n" R1
             "< 250 ok\n> DATA\n< 354 go\n> (body 2)\n< 250 fine\n",
      "1: rcpt 550, dot 250; 2: dot 250, dot 250", "ready" },
    { "P-188 502 to BDAT, and its octets were commands to the peer: not reused, nothing is lost",
      CHUNKS "< 250 ok\n" R0 "< 250 ok\n" R1
             "< 250 ok\n> BDAT 1234 LAST\n> (body 1)\n< 502 what\n> RSET\n< 500 what\n",
      "1: lost 451 4.5.0, lost 451 4.5.0", "broken" },
    { "P-188 lost after the RSET: not taken",
      CHUNKS "< 250 ok\n" R0 "< 250 ok\n" R1
             "< 250 ok\n> BDAT 1234 LAST\n> (body 1)\n< 503 what\n> RSET\n! lost\n",
      "1: lost 451 4.4.2, lost 451 4.4.2", "broken" },
    { "P-188 another 5xx is about the message",
      CHUNKS "< 250 ok\n" R0 "< 250 ok\n" R1
             "< 250 ok\n> BDAT 1234 LAST\n> (body 1)\n< 550 5.7.1 spam\n> RSET\n< 250 ok\n",
      "1: dot 550 5.7.1, dot 550 5.7.1", "ready" },
    { "P-180 SMTPUTF8 is not offered: those who cannot be told are declined, the others get it",
      PIPELINING "! utf8\n! begin 1\n> MAIL FROM:<s@a.example> SIZE=1234\n" R1 "> DATA\n"
                 "< 250 ok\n< 250 ok\n< 354 go\n> (body 1)\n< 250 ok\n",
      "1: local 553 5.6.7, dot 250", "ready" },
    { "P-180 declined, and the other refused",
      PIPELINING "! utf8\n! begin 1\n> MAIL FROM:<s@a.example> SIZE=1234\n" R1 "> DATA\n"
                 "< 250 ok\n< 550 no\n< 503 no\n> RSET\n< 250 ok\n",
      "1: local 553 5.6.7, rcpt 550", "ready" },
    { "P-162 greeting 554", "< 554 no\n", "", "broken" },
    { "P-162 greeting 421", "< 421 busy\n", "", "broken" },
    { "P-162 greeting 250", "< 250 hi\n", "", "broken" },
    { "P-165 greeting of another protocol", "< SSH-2.0-OpenSSH\n", "", "broken" },
    { "P-162 lost before the greeting", "! lost\n", "", "broken" },
    { "EHLO 450", "< 220 mx\n> EHLO me.example\n< 450 no\n", "", "broken" },
    { "EHLO 354", "< 220 mx\n> EHLO me.example\n< 354 no\n", "", "broken" },
    { "HELO 550", "< 220 mx\n> EHLO me.example\n< 500 no\n> HELO me.example\n< 550 no\n", "",
      "broken" },
};

static void check_talk(size_t i, bool is_cut)
{
    struct talk *t = test_malloc(sizeof(*t));
    struct buf got;
    talk_init(t, 2);
    buf_init(&got, 4096);
    hold_talk(t, rows[i].script, (struct manner){ is_cut, SIZE_MAX }, rows[i].name);
    const char *state = state_names[t->client.state];
    check_over(t);
    describe(t, &got);
    if (!slice_eq(buf_slice(&got), slice_str(rows[i].outcomes)))
        fail_msg("%s: outcomes '%.*s', not '%s'", rows[i].name, SLICE_ARG(buf_slice(&got)),
                 rows[i].outcomes);
    if (strcmp(state, rows[i].state) != 0)
        fail_msg("%s: state %s, not %s", rows[i].name, state, rows[i].state);
    buf_done(&got);
    talk_done(t);
    test_free(t);
}

static void conversations_go_as_written(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_talk(i, false);
        check_talk(i, true);
    }
}

/* --- the connection is lost everywhere ------------------------------------------------------- */

static size_t octets_heard(const char *script)
{
    size_t octets = 0;
    while (*script) {
        struct slice line = next_line(&script);
        if (line.ptr[0] == '<')
            octets += line.len; /* "< " gone, CR LF added */
    }
    return octets;
}

/* An outcome of the whole conversation, or one that a loss makes. */
static void check_sane(const struct rcpt_outcome *o, const char *name, size_t cut)
{
    bool is_loss = o->stage == OUTCOME_LOST || o->stage == OUTCOME_UNKNOWN;
    bool is_peers = o->stage >= OUTCOME_MAIL && o->stage <= OUTCOME_DOT;
    bool is_declined = o->stage == OUTCOME_LOCAL && o->code / 100 == 5;
    if (!is_loss && !is_peers && !is_declined)
        fail_msg("%s: lost at %zu: stage %s", name, cut, stage_names[o->stage]);
    if (is_loss && o->code / 100 == 2)
        fail_msg("%s: lost at %zu: delivered by a loss", name, cut);
    if (is_peers && o->stage != OUTCOME_DOT && o->code / 100 == 2)
        fail_msg("%s: lost at %zu: delivered before the dot", name, cut);
}

static void check_cut(size_t i, size_t cut)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 2);
    hold_talk(t, rows[i].script, (struct manner){ true, cut }, rows[i].name);
    lose(t);
    check_over(t);
    for (int k = 0; k < TXNS_MAX; k++)
        for (uint32_t r = 0; t->mails[k].begun && r < 2; r++)
            check_sane(&t->mails[k].outcomes[r], rows[i].name, cut);
    talk_done(t);
    test_free(t);
}

/* P-167, P-176, P-185: whatever was said until then, every outcome is decided, once. */
static void a_loss_anywhere_decides_all(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 0; cut < octets_heard(rows[i].script); cut++)
            check_cut(i, cut);
}

/* The stages a loss gives along one delivery: lost until the dot is out, unknown until its reply is
 * whole, delivered then. */
static void a_loss_names_what_was_known(void **state)
{
    static const char script[] = PIPELINING
        "! begin 1\n" GROUP "< 250 ok\n< 550 no\n< 250 ok\n< 354 go\n> (body 1)\n< 250 ok\n";
    size_t all = octets_heard(script), dot = all - 8;
    size_t begun = octets_heard(PIPELINING), verdict = begun + 8 + 8;
    for (size_t cut = begun; cut <= all; cut++) {
        struct talk *t = test_malloc(sizeof(*t));
        talk_init(t, 2);
        hold_talk(t, script, (struct manner){ true, cut }, "loss");
        lose(t);
        if (t->mails[0].begun) {
            /* The LF alone ends a line as well, so the CR LF counts from its last octet. */
            enum outcome_stage first = cut < verdict ? OUTCOME_LOST : OUTCOME_RCPT;
            enum outcome_stage second = cut < dot ? OUTCOME_LOST : OUTCOME_UNKNOWN;
            if (cut == all)
                second = OUTCOME_DOT;
            assert_int_equal(t->mails[0].outcomes[0].stage, first);
            assert_int_equal(t->mails[0].outcomes[1].stage, second);
        }
        talk_done(t);
        test_free(t);
    }
}

/* --- capabilities and parameters ------------------------------------------------------------- */

/* P-164, P-177 */
static void keywords_are_read_leniently(void **state)
{
    static const struct {
        const char *lines;
        uint32_t capabilities;
        uint64_t size_max;
    } cases[] = {
        { "250 mx\r\n", 0, 0 },
        { "250 PIPELINING SIZE\r\n", 0, 0 }, /* the first line is a name */
        { "250-mx\r\n250 PIPELINING\r\n", CLIENT_CAN_PIPELINING, 0 },
        { "250-mx\n250-pipeLINING\n250 chunking\n", CLIENT_CAN_PIPELINING | CLIENT_CAN_CHUNKING,
          0 },
        { "250-mx\r\n250-PIPELININGX\r\n250-\r\n250 XPIPELINING\r\n", 0, 0 },
        { "250-mx\r\n250-STARTTLS\r\n250 8BITMIME extra\r\n",
          CLIENT_CAN_STARTTLS | CLIENT_CAN_8BITMIME, 0 },
        { "250-mx\r\n250 SIZE\r\n", CLIENT_CAN_SIZE, 0 },
        { "250-mx\r\n250 SIZE 0\r\n", CLIENT_CAN_SIZE, 0 },
        { "250-mx\r\n250-SIZE 500\r\n250 SIZE 5\r\n", CLIENT_CAN_SIZE, 500 },
        { "250-mx\r\n250 SIZE  77 junk\r\n", CLIENT_CAN_SIZE, 77 },
        { "250-mx\r\n250 SIZE -5\r\n", CLIENT_CAN_SIZE, 0 },
        { "250-mx\r\n250 SIZE 5k\r\n", CLIENT_CAN_SIZE, 0 },
        { "250-mx\r\n250 SIZE 99999999999999999999999\r\n", CLIENT_CAN_SIZE, 0 },
        { "250-mx\r\n250 ENHANCEDSTATUSCODES\r\n", CLIENT_CAN_ENHANCED, 0 },
        { "250-mx\r\n250-BINARYMIME\r\n250-SMTPUTF8\r\n250-dsn\r\n250-DELIVERBY\r\n"
          "250-LIMITS\r\n250 MT-PRIORITY STANAG4406\r\n",
          CLIENT_CAN_BINARYMIME | CLIENT_CAN_SMTPUTF8 | CLIENT_CAN_DSN | CLIENT_CAN_DELIVERBY |
              CLIENT_CAN_LIMITS | CLIENT_CAN_MT_PRIORITY,
          0 },
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct talk *t = test_malloc(sizeof(*t));
        talk_init(t, 1);
        hear(t, SLICE("220 mx\r\n"), false);
        hear(t, slice_str(cases[i / 2].lines), i % 2);
        assert_int_equal(t->client.state, CLIENT_READY);
        assert_int_equal(t->client.capabilities, cases[i / 2].capabilities);
        assert_true(t->client.size_max == cases[i / 2].size_max);
        talk_done(t);
        test_free(t);
    }
}

/* P-173: names in any case, positive numbers of six digits at most, the first of a name; the rest
 * means nothing. */
static void limits_are_read_leniently(void **state)
{
    static const struct {
        const char *words;
        struct client_limits limits;
    } cases[] = {
        { "", { 0, 0, 0 } },
        { " MAILMAX=10 RCPTMAX=100 RCPTDOMAINMAX=1", { 10, 100, 1 } },
        { " rcptmax=7", { 0, 7, 0 } },
        { " RCPTMAX=0 RCPTMAX=5", { 0, 5, 0 } },
        { " RCPTMAX=5 RCPTMAX=6", { 0, 5, 0 } },
        { " RCPTMAX=-5 MAILMAX=+5", { 0, 0, 0 } },
        { " RCPTMAX= MAILMAX RCPTDOMAINMAX=2x", { 0, 0, 0 } },
        { " RCPTMAX=999999", { 0, 999999, 0 } },
        { " RCPTMAX=1000000 MAILMAX=99999999999999999999999", { 0, 0, 0 } },
        { " XRCPTMAX=5 RCPTMAXX=5  MAILMAX=3", { 3, 0, 0 } },
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct talk *t = test_malloc(sizeof(*t));
        char reply[200];
        int len =
            snprintf(reply, sizeof reply, "250-mx\r\n250-LIMITS%s\r\n250 LIMITS RCPTMAX=1\r\n",
                     cases[i / 2].words);
        talk_init(t, 1);
        hear(t, SLICE("220 mx\r\n"), false);
        hear(t, slice_of(reply, (size_t)len), i % 2);
        assert_int_equal(t->client.limits.mail_max, cases[i / 2].limits.mail_max);
        assert_int_equal(t->client.limits.rcpt_max, cases[i / 2].limits.rcpt_max);
        assert_int_equal(t->client.limits.rcpt_domain_max, cases[i / 2].limits.rcpt_domain_max);
        talk_done(t);
        test_free(t);
    }
}

static void check_mail_line(const char *ehlo, uint32_t flags, const char *sender, const char *want)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    t->message->flags = flags;
    t->message->sender = slice_str(sender);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, slice_str(ehlo), false);
    buf_clear(&t->said);
    begin(t, 1);
    struct slice said = buf_slice(&t->said);
    assert_true(slice_eq(slice_head(said, slice_find(said, '\n') + 1), slice_str(want)));
    talk_done(t);
    test_free(t);
}

/* P-177, P-179 (8-bit content goes out as it is), P-190 */
static void mail_says_what_was_offered(void **state)
{
    check_mail_line("250 mx\r\n", MESSAGE_8BIT, "a@b", "MAIL FROM:<a@b>\r\n");
    check_mail_line("250-mx\r\n250 SIZE 0\r\n", MESSAGE_8BIT, "a@b",
                    "MAIL FROM:<a@b> SIZE=1234\r\n");
    check_mail_line("250-mx\r\n250 8BITMIME\r\n", MESSAGE_8BIT, "",
                    "MAIL FROM:<> BODY=8BITMIME\r\n");
    check_mail_line("250-mx\r\n250 8BITMIME\r\n", 0, "a@b", "MAIL FROM:<a@b>\r\n");
}

/* Everything a message can ask for; each is said exactly when its keyword was offered. */
static void ask_for_all(struct message *m)
{
    m->flags = MESSAGE_8BIT | MESSAGE_UTF8 | MESSAGE_BY_TRACE;
    m->sender = SLICE("\xc3\xa9@b");
    m->envid = SLICE("QQ314+2B159");
    m->ret = DSN_RET_HDRS;
    m->priority = -3;
    m->hold_until_ms = 5000;
    m->deliver_by_ms = 100500;
    message_set_rcpt_dsn(m, DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY, SLICE("rfc822;bob+2Bx@b"));
}

/* Says MAIL and RCPT to a peer that offers these keywords, 20 seconds after 1970. */
static void check_lines(const char *keywords, void (*prepare)(struct message *), const char *want)
{
    struct talk *t = test_malloc(sizeof(*t));
    char reply[200];
    int len = snprintf(reply, sizeof reply, "250-mx\r\n250-PIPELINING\r\n%s250 XEND\r\n", keywords);
    talk_init(t, 1);
    t->now.wall_ms = 20000;
    prepare(t->message);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, slice_of(reply, (size_t)len), false);
    buf_clear(&t->said);
    begin(t, 1);
    struct slice said = slice_head(buf_slice(&t->said), t->said.len - strlen("DATA\r\n"));
    if (!slice_eq(said, slice_str(want)))
        fail_msg("%s: said\n%.*s\nnot\n%s", keywords, SLICE_ARG(said), want);
    talk_done(t);
    test_free(t);
}

#define UTF8_MAIL  "MAIL FROM:<\xc3\xa9@b>"
#define PLAIN_RCPT "RCPT TO:<r0@b.example>\r\n"

/* P-65, P-68, P-177 */
static void each_parameter_is_said_when_it_was_offered(void **state)
{
    check_lines("250-SMTPUTF8\r\n", ask_for_all, UTF8_MAIL " SMTPUTF8\r\n" PLAIN_RCPT);
    check_lines("250-SMTPUTF8\r\n250-8BITMIME\r\n250-SIZE\r\n", ask_for_all,
                UTF8_MAIL " SIZE=1234 BODY=8BITMIME SMTPUTF8\r\n" PLAIN_RCPT);
    check_lines("250-SMTPUTF8\r\n250-DSN\r\n", ask_for_all,
                UTF8_MAIL " SMTPUTF8 RET=HDRS ENVID=QQ314+2B159\r\n"
                          "RCPT TO:<r0@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+2Bx@b\r\n");
    check_lines("250-SMTPUTF8\r\n250-DELIVERBY 3000\r\n", ask_for_all,
                UTF8_MAIL " SMTPUTF8 BY=80;NT\r\n" PLAIN_RCPT);
    check_lines("250-SMTPUTF8\r\n250-MT-PRIORITY\r\n", ask_for_all,
                UTF8_MAIL " SMTPUTF8 MT-PRIORITY=-3\r\n" PLAIN_RCPT);
    check_lines("250-SMTPUTF8\r\n250-FUTURERELEASE 1 2\r\n250-REQUIRETLS\r\n250-CHUNKING\r\n",
                ask_for_all, UTF8_MAIL " SMTPUTF8\r\n" PLAIN_RCPT);
}

static void ask_for_nothing(struct message *m) {}

static void never_notify(struct message *m)
{
    m->ret = DSN_RET_FULL;
    message_set_rcpt_dsn(m, DSN_NOTIFY_NEVER, SLICE_NONE);
}

static void notify_failure(struct message *m)
{
    m->rcpts[0].address = SLICE("\"a +=b\"@b.example");
    message_set_rcpt_dsn(m, DSN_NOTIFY_FAILURE, SLICE_NONE);
}

static void be_empty(struct message *m)
{
    m->size = 0;
}

static void be_immense(struct message *m)
{
    m->size = UINT64_MAX;
}

static void be_late(struct message *m)
{
    m->deliver_by_ms = 18999;
}

static void have_ages(struct message *m)
{
    m->deliver_by_ms = INT64_MAX;
}

static void be_in_time(struct message *m)
{
    m->flags = MESSAGE_BY_RETURN;
    m->deliver_by_ms = 21999;
}

/* P-64: an ORCPT of ours only for one of whom reports are wanted; P-68: time that is over, and time
 * without end. */
static void parameters_of_reports_and_time(void **state)
{
    check_lines("250-DSN\r\n250-DELIVERBY\r\n250-MT-PRIORITY\r\n250-SMTPUTF8\r\n", ask_for_nothing,
                "MAIL FROM:<s@a.example>\r\n" PLAIN_RCPT);
    check_lines("250-DSN\r\n", never_notify,
                "MAIL FROM:<s@a.example> RET=FULL\r\nRCPT TO:<r0@b.example> NOTIFY=NEVER\r\n");
    check_lines("250-DSN\r\n", notify_failure,
                "MAIL FROM:<s@a.example>\r\nRCPT TO:<\"a +=b\"@b.example> NOTIFY=FAILURE "
                "ORCPT=rfc822;\"a+20+2B+3Db\"@b.example\r\n");
    check_lines("250-SIZE\r\n", be_empty, "MAIL FROM:<s@a.example> SIZE=0\r\n" PLAIN_RCPT);
    check_lines("250-SIZE\r\n", be_immense,
                "MAIL FROM:<s@a.example> SIZE=18446744073709551615\r\n" PLAIN_RCPT);
    check_lines("250-DELIVERBY\r\n", be_late, "MAIL FROM:<s@a.example> BY=-2;N\r\n" PLAIN_RCPT);
    check_lines("250-DELIVERBY\r\n", have_ages,
                "MAIL FROM:<s@a.example> BY=999999999;N\r\n" PLAIN_RCPT);
    check_lines("250-DELIVERBY 1\r\n", be_in_time, "MAIL FROM:<s@a.example> BY=1;R\r\n" PLAIN_RCPT);
}

/* --- what a peer lacks ----------------------------------------------------------------------- */

static void be_secret(struct message *m)
{
    m->flags = MESSAGE_REQUIRE_TLS;
}

static void be_too_late(struct message *m)
{
    m->flags = MESSAGE_BY_RETURN;
    m->deliver_by_ms = 20999;
}

static void have_a_utf8_sender(struct message *m)
{
    m->flags = MESSAGE_UTF8;
    m->sender = SLICE("\xc3\xa9@b");
}

static void have_utf8_rcpts(struct message *m)
{
    m->flags = MESSAGE_UTF8;
    m->rcpts[0].address = SLICE("\xc3\xa9@b");
}

static void say_content(struct message *m, struct slice content)
{
    m->flags = MESSAGE_UTF8 | MESSAGE_8BIT;
    for (size_t i = 0; i < content.len; i++) /* a segment may end anywhere */
        chain_append(&m->content, slice_of(&content.ptr[i], 1));
}

static void have_a_utf8_header(struct message *m)
{
    say_content(m, SLICE("Subject: \xc3\xa9\r\n\r\nbody\r\n"));
}

/* As it is after a claim. */
static void be_a_record_with_a_utf8_header(struct message *m)
{
    m->flags = MESSAGE_UTF8 | MESSAGE_8BIT;
    m->blob = strdup("A: b\r\nSubject: \xc3\xa9\r\n\r\n");
    m->body = slice_str(m->blob);
}

static void have_a_utf8_body(struct message *m)
{
    say_content(m, SLICE("Subject: e\r\n\r\nbody \xc3\xa9\r\n"));
}

static void have_no_header(struct message *m)
{
    say_content(m, SLICE("\r\n\xc3\xa9\r\n"));
}

static void have_utf8_nobody_needs(struct message *m)
{
    m->flags = MESSAGE_UTF8;
}

static void have_chunks(struct message *m)
{
    m->flags = MESSAGE_UTF8 | MESSAGE_8BIT;
    m->chunk_count = 1;
}

static const struct {
    void (*prepare)(struct message *m);
    const char *keywords, *enhanced; /* "": it is sent */
    bool is_unfit;
} needs[] = {
    { be_secret, "250-STARTTLS\r\n250-REQUIRETLS\r\n", "5.7.30", true }, /* P-204 */
    { be_too_late, "250-DELIVERBY\r\n", "5.4.7", false },                /* P-68 */
    { be_in_time, "", "5.4.7", true },
    { be_in_time, "250-DELIVERBY 2\r\n", "5.4.7", true },
    { be_in_time, "250-DELIVERBY 1\r\n", "", false },
    { be_late, "", "", false },                /* by-mode N */
    { have_a_utf8_sender, "", "5.6.7", true }, /* P-180 */
    { have_utf8_rcpts, "", "5.6.7", true },
    { have_a_utf8_header, "", "5.6.9", true },
    { be_a_record_with_a_utf8_header, "", "5.6.9", true },
    { have_a_utf8_body, "", "", false },
    { have_no_header, "", "", false },
    { have_utf8_nobody_needs, "", "", false },
    { have_chunks, "", "5.6.9", true },
    { have_a_utf8_sender, "250-SMTPUTF8\r\n", "", false },
    { have_a_utf8_header, "250-SMTPUTF8\r\n", "", false },
    { ask_for_nothing, "250-SIZE 1233\r\n", "5.3.4", true }, /* P-178 */
    { ask_for_nothing, "250-SIZE 1234\r\n", "", false },
};

static void check_need(size_t i)
{
    struct talk *t = test_malloc(sizeof(*t));
    char reply[200];
    int len = snprintf(reply, sizeof reply, "250-mx\r\n%s250 XEND\r\n", needs[i].keywords);
    talk_init(t, 1);
    t->now.wall_ms = 20000;
    needs[i].prepare(t->message);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, slice_of(reply, (size_t)len), false);
    buf_clear(&t->said);
    begin(t, 1);
    bool is_sent = t->said.len > 0;
    if (is_sent != !needs[i].enhanced[0] ||
        (!is_sent && strcmp(t->mails[0].outcomes[0].enhanced, needs[i].enhanced) != 0) ||
        t->mails[0].txn.is_unfit != needs[i].is_unfit)
        fail_msg("need %zu: %s", i, is_sent ? "sent" : t->mails[0].outcomes[0].enhanced);
    if (!is_sent) {
        assert_int_equal(t->mails[0].outcomes[0].stage, OUTCOME_LOCAL);
        assert_int_equal(t->mails[0].outcomes[0].code / 100, 5);
        assert_int_equal(t->client.state, CLIENT_READY);
    }
    talk_done(t);
    test_free(t);
}

static void what_a_peer_lacks_is_not_tried(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(needs); i++)
        check_need(i);
}

/* P-163 */
static void helo_when_ehlo_was_hung_up_on(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    assert_false(smtp_client_awaits_ehlo(&t->client));
    hear(t, SLICE("220 mx\r\n"), false);
    assert_true(smtp_client_awaits_ehlo(&t->client));
    hear(t, SLICE("2"), false);
    assert_false(smtp_client_awaits_ehlo(&t->client));
    hear(t, SLICE("50-mx\r\n"), false);
    assert_false(smtp_client_awaits_ehlo(&t->client));
    talk_done(t);

    talk_init(t, 1);
    t->client.policy.is_helo_only = true;
    hear(t, SLICE("220 mx\r\n"), false);
    assert_true(slice_eq(buf_slice(&t->said), SLICE("HELO me.example\r\n")));
    assert_false(smtp_client_awaits_ehlo(&t->client));
    hear(t, SLICE("250-mx\r\n250 PIPELINING\r\n"), false);
    assert_int_equal(t->client.state, CLIENT_READY);
    assert_int_equal(t->client.capabilities, 0);
    talk_done(t);
    test_free(t);
}

/* P-178 */
static void a_message_over_the_size_is_not_sent(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 2);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250-mx\r\n250 SIZE 1233\r\n"), false);
    buf_clear(&t->said);
    begin(t, 1);
    assert_int_equal(t->said.len, 0);
    assert_int_equal(t->mails[0].finished, 1);
    assert_int_equal(t->mails[0].outcomes[1].stage, OUTCOME_LOCAL);
    assert_int_equal(t->mails[0].outcomes[1].code, 552);
    assert_string_equal(t->mails[0].outcomes[1].enhanced, "5.3.4");
    assert_int_equal(t->client.state, CLIENT_READY);
    t->message->size = 1233;
    begin(t, 2);
    assert_true(t->said.len > 0);
    talk_done(t);
    test_free(t);
}

/* P-169: replies to commands that were not said yet. */
static void talk_out_of_turn_ends_it(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 2);
    hear(t, SLICE("220 mx\r\n250 hi\r\n"), false);
    assert_int_equal(t->client.state, CLIENT_BROKEN);
    talk_done(t);

    talk_init(t, 2);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250 mx\r\n"), false);
    begin(t, 1);
    hear(t, SLICE("250 ok\r\n550 no\r\n550 no\r\n"), false); /* only MAIL was said */
    assert_int_equal(t->client.state, CLIENT_BROKEN);
    assert_int_equal(t->mails[0].outcomes[0].stage, OUTCOME_LOST);
    assert_int_equal(t->mails[0].outcomes[0].code, 451);
    talk_done(t);
    test_free(t);
}

/* --- bounds ---------------------------------------------------------------------------------- */

static size_t count(struct slice s, const char *word)
{
    size_t n = 0;
    for (size_t i = 0; i + strlen(word) <= s.len; i++)
        n += memcmp(s.ptr + i, word, strlen(word)) == 0;
    return n;
}

/* P-172: 300 recipients, never more than 100 replies awaited, DATA with the last of them. */
static void many_recipients_go_by_a_window(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, RCPTS_MAX);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250-mx\r\n250 PIPELINING\r\n"), false);
    begin(t, 1);
    assert_int_equal(count(buf_slice(&t->said), "RCPT TO"), 99);
    for (size_t i = 0; i < RCPTS_MAX + 1; i++) {
        size_t said = count(buf_slice(&t->said), "RCPT TO") + 1;
        assert_in_range(said - i, 0, 100);
        assert_int_equal(count(buf_slice(&t->said), "DATA"), i + 100 >= RCPTS_MAX + 2);
        hear(t, i % 3 == 2 ? SLICE("550 no\r\n") : SLICE("250 ok\r\n"), false);
    }
    assert_int_equal(count(buf_slice(&t->said), "RCPT TO"), RCPTS_MAX);
    hear(t, SLICE("354 go\r\n"), false);
    hear(t, SLICE("250 ok\r\n"), false);
    for (size_t i = 0; i < RCPTS_MAX; i++)
        assert_int_equal(t->mails[0].outcomes[i].stage, i % 3 == 1 ? OUTCOME_RCPT : OUTCOME_DOT);
    talk_done(t);
    test_free(t);
}

/* MAIL refused while recipients wait behind the window: they are not said any more. */
static void a_refused_mail_stops_its_recipients(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, RCPTS_MAX);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250-mx\r\n250 PIPELINING\r\n"), false);
    begin(t, 1);
    hear(t, SLICE("550 no\r\n"), false);
    for (size_t i = 0; i < 99; i++) {
        assert_int_equal(t->client.state, CLIENT_BUSY);
        hear(t, SLICE("503 no\r\n"), false);
    }
    assert_int_equal(count(buf_slice(&t->said), "RCPT TO"), 99);
    assert_int_equal(count(buf_slice(&t->said), "DATA"), 0);
    assert_int_equal(t->client.state, CLIENT_READY);
    talk_done(t);
    test_free(t);
}

static void when_it_can_take(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    assert_false(smtp_client_can_take(&t->client));
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250-mx\r\n250 PIPELINING\r\n"), false);
    assert_true(smtp_client_can_take(&t->client));
    t->is_holding = true;
    begin(t, 1);
    assert_false(smtp_client_can_take(&t->client));
    hear(t, SLICE("250 ok\r\n250 ok\r\n"), false);
    assert_false(smtp_client_can_take(&t->client));
    hear(t, SLICE("354 go\r\n"), false);
    assert_true(smtp_client_can_take(&t->client)); /* content under way */
    begin(t, 2);
    assert_false(smtp_client_can_take(&t->client)); /* two are enough */
    happen(t, SLICE("write"));
    hear(t, SLICE("250 ok\r\n"), false);
    assert_false(smtp_client_can_take(&t->client)); /* the second has no 354 */
    hear(t, SLICE("250 ok\r\n250 ok\r\n354 go\r\n"), false);
    happen(t, SLICE("write"));
    assert_true(smtp_client_can_take(&t->client));
    smtp_client_quit(&t->client);
    assert_false(smtp_client_can_take(&t->client));
    talk_done(t);

    talk_init(t, 1); /* no overlap without PIPELINING */
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250 mx\r\n"), false);
    begin(t, 1);
    hear(t, SLICE("250 ok\r\n"), false);
    hear(t, SLICE("250 ok\r\n"), false);
    hear(t, SLICE("354 go\r\n"), false);
    assert_false(smtp_client_can_take(&t->client));
    talk_done(t);

    talk_init(t, 1); /* nor behind a chunk */
    t->message->flags = MESSAGE_BINARY;
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"), false);
    begin(t, 1);
    hear(t, SLICE("250 ok\r\n250 ok\r\n"), false);
    assert_true(t->mails[0].txn.dot_sent);
    assert_false(smtp_client_can_take(&t->client));
    hear(t, SLICE("250 ok\r\n"), false);
    assert_true(smtp_client_can_take(&t->client));
    talk_done(t);
    test_free(t);
}

/* --- time ------------------------------------------------------------------------------------ */

static void expect_timeout(struct talk *t, int64_t ms)
{
    assert_int_equal(smtp_client_deadline(&t->client) - t->now.mono_ms, ms);
}

/* P-161: each command has its own; a reply starts the clock of the next one, a line of it does
 * not. */
static void timeouts_are_those_of_the_rfc(void **state)
{
    const int64_t minute = 60 * 1000;
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    t->is_holding = true;
    expect_timeout(t, 5 * minute);
    hear(t, SLICE("220 mx\r\n"), false);
    expect_timeout(t, 5 * minute);
    t->now.mono_ms += minute;
    hear(t, SLICE("250-mx\r\n"), false);
    expect_timeout(t, 4 * minute);
    hear(t, SLICE("250 PIPELINING\r\n"), false);
    assert_true(smtp_client_deadline(&t->client) == INT64_MAX);
    begin(t, 1);
    t->now.mono_ms += minute;
    expect_timeout(t, 4 * minute);
    hear(t, SLICE("250 ok\r\n"), false);
    expect_timeout(t, 5 * minute);
    hear(t, SLICE("250 ok\r\n"), false);
    expect_timeout(t, 2 * minute);
    hear(t, SLICE("354 ok\r\n"), false);
    expect_timeout(t, 3 * minute);
    t->now.mono_ms += 2 * minute;
    smtp_client_progress(&t->client, &t->now);
    expect_timeout(t, 3 * minute);
    happen(t, SLICE("write"));
    t->now.mono_ms += 2 * minute;
    expect_timeout(t, 8 * minute);
    smtp_client_progress(&t->client, &t->now);
    expect_timeout(t, 10 * minute);
    t->now.mono_ms += minute;
    begin(t, 2); /* commands that are said behind it do not make the dot younger */
    expect_timeout(t, 9 * minute);
    hear(t, SLICE("250 ok\r\n"), false);
    expect_timeout(t, 5 * minute);
    smtp_client_progress(&t->client, &t->now);
    t->client.reply_timeout_cap_ms = 7;
    expect_timeout(t, 7);
    smtp_client_timeout(&t->client);
    pump(t);
    assert_int_equal(t->client.state, CLIENT_BROKEN);
    assert_string_equal(t->client.failure_text, "no reply to MAIL in time");
    assert_true(smtp_client_deadline(&t->client) == INT64_MAX);
    talk_done(t);
    test_free(t);
}

/* --- failures of the connection -------------------------------------------------------------- */

static void check_failure(const char *heard, enum outcome_stage stage, int code, const char *text)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    while (*heard) {
        struct slice line = next_line(&heard);
        hear(t, slice_of(line.ptr, line.len + 1), false);
    }
    assert_int_equal(t->client.state, CLIENT_BROKEN);
    assert_int_equal(t->client.failure.stage, stage);
    assert_int_equal(t->client.failure.code, code);
    assert_true(slice_eq(t->client.failure.text, slice_str(text)));
    talk_done(t);
    test_free(t);
}

static void failures_say_why(void **state)
{
    check_failure("554 5.7.1 go away\n", OUTCOME_GREETING, 554, "go away");
    check_failure("421-one\n421 two\n", OUTCOME_GREETING, 421, "one two");
    check_failure("250 hi\n", OUTCOME_GREETING, 451, "the greeting was not 220");
    check_failure("what\n", OUTCOME_GREETING, 451, "what came is no SMTP reply");
    check_failure("220 mx\n550-no\n550 ehlo\n550 5.7.0 no helo\n", OUTCOME_EHLO, 550, "no helo");
    check_failure("220 mx\n450 no\n", OUTCOME_EHLO, 450, "no");
    check_failure("220 mx\n250 mx\n421 4.4.2 idle\n", OUTCOME_LOST, 421, "idle");
}

static void a_connection_that_never_was(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    smtp_client_lost(&t->client, OUTCOME_CONNECT, "connection refused");
    assert_int_equal(t->client.failure.stage, OUTCOME_CONNECT);
    assert_int_equal(t->client.failure.code, 451);
    assert_string_equal(t->client.failure.enhanced, "4.4.1");
    smtp_client_lost(&t->client, OUTCOME_LOST, "again"); /* says nothing new */
    assert_int_equal(t->client.failure.stage, OUTCOME_CONNECT);
    pump(t);
    talk_done(t);
    test_free(t);
}

/* P-165: what the peer says is bounded and printable where it ends up. */
static void texts_are_printable_and_bounded(void **state)
{
    struct talk *t = test_malloc(sizeof(*t));
    talk_init(t, 1);
    hear(t, SLICE("220 mx\r\n"), false);
    hear(t, SLICE("250 mx\r\n"), false);
    begin(t, 1);
    hear(t, SLICE("550-5.1.0 a\x01\xff\0b\r\n"), true);
    for (int i = 0; i < 100; i++)
        hear(t, SLICE("550-5.1.0 long and longer, and there is more of it\r\n"), true);
    hear(t, SLICE("550 end\r\n"), true);
    struct slice text = t->mails[0].outcomes[0].text;
    assert_int_equal(t->mails[0].finished, 1);
    assert_in_range(text.len, 100, SMTP_REPLY_TEXT_MAX - 1);
    assert_true(slice_eq(slice_head(text, 5), SLICE("a???b")));
    talk_done(t);
    test_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_go_as_written),
        cmocka_unit_test(a_loss_anywhere_decides_all),
        cmocka_unit_test(a_loss_names_what_was_known),
        cmocka_unit_test(keywords_are_read_leniently),
        cmocka_unit_test(limits_are_read_leniently),
        cmocka_unit_test(mail_says_what_was_offered),
        cmocka_unit_test(each_parameter_is_said_when_it_was_offered),
        cmocka_unit_test(parameters_of_reports_and_time),
        cmocka_unit_test(what_a_peer_lacks_is_not_tried),
        cmocka_unit_test(helo_when_ehlo_was_hung_up_on),
        cmocka_unit_test(a_message_over_the_size_is_not_sent),
        cmocka_unit_test(talk_out_of_turn_ends_it),
        cmocka_unit_test(many_recipients_go_by_a_window),
        cmocka_unit_test(a_refused_mail_stops_its_recipients),
        cmocka_unit_test(when_it_can_take),
        cmocka_unit_test(timeouts_are_those_of_the_rfc),
        cmocka_unit_test(failures_say_why),
        cmocka_unit_test(a_connection_that_never_was),
        cmocka_unit_test(texts_are_printable_and_bounded),
    };
    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
