/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client - our side of one outbound connection.
 *
 * States of the connection:
 *
 *     GREETING --220--> EHLO --2xx--> READY <--> BUSY        READY --quit--> QUIT --any--> CLOSED
 *                         \--5xx--> HELO --2xx--^
 *                         |--2xx, STARTTLS, 220--> TLS --secured--> EHLO
 *                         `--2xx, logins--> AUTH --235--> READY         (client_secure.c)
 *     any --421, protocol error, timeout, loss--> BROKEN     (QUIT goes to CLOSED instead)
 *
 * Every command is a row of client_rows[]: what I say beside where its reply leads. Two cursors
 * walk the rows. The send cursor (sending, send_step) is the next row to be said; saying a row puts
 * it on the ring of expected replies. The receive cursor is the head of that ring: a complete reply
 * goes to the listener of the oldest expected row, which may turn the send cursor. With PIPELINING
 * the send cursor runs ahead until it comes to a row that has nothing to say: AWAIT after DATA,
 * until the 354 is there. Without, it moves only when the ring is empty. So there is one machine,
 * not two.
 *
 *     MAIL -> RCPT ... -> DATA -> AWAIT --354--> BODY -> WRITING -> (dot expected) -> next MAIL
 *                                   |---354, nobody accepted--> LONE_DOT -> next MAIL   (P-182)
 *                                   `---4xx 5xx--> RSET -> next MAIL
 *     ... by BDAT:  RCPT ... -> AWAIT --all answered, some accepted--> BODY -> as above
 *                                   `---nobody accepted--> RSET -> next MAIL
 *
 * Life of a transaction: begin puts it on `active`; it comes out on `done` when every outcome is
 * decided and no reply to a command of it is expected any more, or when the connection is over.
 * When its dot was said, the commands of the next one follow at once (RFC 2920 3.1). A transaction
 * that ends without a dot leaves its MAIL standing, so a RSET clears it; after a dot, whatever was
 * answered, the peer has forgotten it (RFC 5321 4.1.1.4).
 *
 * What a broken conversation means: EOF and timeouts leave verdicts as they are and defer the rest;
 * after the dot the rest is UNKNOWN (P-185). A reply that cannot belong where it came (too few
 * replies, too many, no reply at all) throws doubt on every verdict of a transaction whose content
 * was not sent, so those become transient too (P-168, P-169).
 *
 * BDAT carries what nothing else can, binary content, and spares a peer without PIPELINING the
 * round trip of DATA. It is said when every recipient was answered, not with them: octets behind a
 * RCPT that is refused would be read as commands by a peer that does not count them (P-100). With
 * PIPELINING that is the flight in which 354 comes too, so DATA costs nothing more there and stays
 * the default. A peer that refuses the command BDAT itself gets the message by DATA, in a new
 * transaction (P-188). Nothing is said behind a chunk before its reply: when it was refused, RSET
 * comes first (RFC 3030 2).
 *
 * Content with octets above 127 goes to a peer without 8BITMIME as it is (P-179): converting it
 * would break signatures, and such peers pass it on in practice. What else a peer may lack, and
 * what follows from it: client_needs.c.
 *
 * Limits: CLIENT_WINDOW expected replies (P-172), two transactions, replies as reply.h bounds them.
 * The rows, with what each command says and hears, are in client_rows.c; how outcomes are written,
 * in client_verdict.c. To add a command: see client_rows.c.
 */
#include "core/smtp/client_rows.h"
#include <stdio.h>
#include <stdlib.h>

#define CLIENT_WINDOW        100 /* replies awaited at most; RFC 5321 has 100 recipients at least */
#define EXPECT_CAP_FIRST     8
#define BLOCK_TIMEOUT_MS     (3 * 60 * 1000) /* RFC 5321 4.5.3.2.5 */
#define HANDSHAKE_TIMEOUT_MS (60 * 1000)

/* --- cursors ---------------------------------------------------------------------------------- */

/* The first transaction whose turn to speak has not come, or NULL. */
static struct smtp_txn *first_unspoken(const struct smtp_client *c)
{
    list_for_each (node, &c->active) {
        struct smtp_txn *txn = list_entry(node, struct smtp_txn, node);
        if (!txn->dot_sent)
            return txn;
    }
    return NULL;
}

/* Turns the send cursor; where a transaction is over and nothing is to be cleaned up, the next one
 * speaks. */
static void turn(struct smtp_client *c, enum client_step step)
{
    if (step == STEP_SAME)
        return;
    c->send_step = step;
    if (step != STEP_IDLE)
        return;
    c->sending = first_unspoken(c);
    if (c->sending)
        c->send_step = STEP_MAIL;
}

static void grow_ring(struct smtp_client *c)
{
    uint32_t cap = c->expect_cap ? 2 * c->expect_cap : EXPECT_CAP_FIRST;
    struct client_expect *ring = mem_alloc(cap * sizeof *ring);
    for (uint32_t i = 0; i < c->expect_count; i++)
        ring[i] = c->expect[(c->expect_head + i) % c->expect_cap];
    free(c->expect);
    c->expect = ring;
    c->expect_head = 0;
    c->expect_cap = cap;
}

static void expect_reply(struct smtp_client *c, struct client_expect e, const struct now *now)
{
    must(c->expect_count < CLIENT_WINDOW);
    if (c->expect_count == c->expect_cap)
        grow_ring(c);
    c->expect[(c->expect_head + c->expect_count) % c->expect_cap] = e;
    if (c->expect_count++ == 0)
        c->waiting_since_ms = now->mono_ms;
    if (e.txn)
        e.txn->awaited++;
}

/* The oldest expected reply is here; the clock of the next one starts. */
static struct client_expect take_expected(struct smtp_client *c, const struct now *now)
{
    struct client_expect e = c->expect[c->expect_head];
    c->expect_head = (c->expect_head + 1) % c->expect_cap;
    c->expect_count--;
    c->waiting_since_ms = c->expect_count > 0 ? now->mono_ms : -1;
    if (e.txn)
        e.txn->awaited--;
    return e;
}

/* A transaction is over when nothing of it is undecided and nothing is awaited. */
static void finish_if_over(struct smtp_client *c, struct smtp_txn *txn)
{
    if (!client_all_decided(txn) || txn->awaited > 0)
        return;
    bool has_cursor = c->sending == txn;
    client_finish(c, txn);
    if (has_cursor && c->send_step != STEP_LONE_DOT)
        turn(c, txn->mail_failed ? STEP_IDLE : STEP_RSET);
}

/* --- listening -------------------------------------------------------------------------------- */

/* A reply that nothing was said for. While content is written it is an early verdict on it (P-186);
 * otherwise nobody knows what it belongs to (P-169). The connection is of no use after either. */
static void on_unexpected(struct smtp_client *c, const struct smtp_reply *r)
{
    bool is_refusal = smtp_reply_is_transient(r) || smtp_reply_is_permanent(r);
    if (c->send_step == STEP_WRITING && is_refusal)
        client_break(c, client_verdict_of(r, OUTCOME_DOT), c->sending);
    else if (r->code == 421)
        client_break(c, client_verdict_of(r, OUTCOME_LOST), NULL);
    else
        client_break_protocol(c, NULL, "a reply came that no command asked for");
}

static void on_reply(struct smtp_client *c, const struct smtp_reply *r, const struct now *now)
{
    if (c->expect_count == 0) {
        on_unexpected(c, r);
        return;
    }
    struct client_expect e = take_expected(c, now);
    if (r->code == 421 && e.step != STEP_QUIT) { /* P-170 */
        client_break(c, client_verdict_of(r, client_rows[e.step].stage), e.txn);
        return;
    }
    turn(c, client_rows[e.step].listen(c, &e, r));
    if (e.txn && !client_is_over(c))
        finish_if_over(c, e.txn);
}

static void on_invalid(struct smtp_client *c)
{
    struct client_expect *e = c->expect_count ? &c->expect[c->expect_head] : NULL;
    if (c->state == CLIENT_QUIT)
        client_enter(c, CLIENT_CLOSED);
    else
        client_break_protocol(c, e, "what came is no SMTP reply"); /* P-165 */
}

void smtp_client_input(struct smtp_client *c, struct slice in, const struct now *now)
{
    while (in.len > 0 && !client_is_over(c)) {
        struct slice text;
        size_t used;
        if (c->state == CLIENT_TLS) { /* P-194: the peer has nothing to say before the handshake */
            client_break_injected(c);
            return;
        }
        enum reply_event event = reply_parser_feed(&c->parser, in, &used, &text);
        in = slice_skip(in, used);
        if (event == REPLY_EVENT_LINE || event == REPLY_EVENT_DONE)
            client_take_ehlo_line(c, text);
        if (event == REPLY_EVENT_DONE)
            on_reply(c, &c->parser.reply, now);
        else if (event == REPLY_EVENT_INVALID)
            on_invalid(c);
    }
}

/* --- speaking --------------------------------------------------------------------------------- */

/* QUIT is no part of anything: it waits until all else is over. */
static void turn_to_quit(struct smtp_client *c)
{
    bool is_idle = c->state == CLIENT_READY && c->expect_count == 0;
    if (c->quit_wanted && is_idle && c->send_step != STEP_LONE_DOT)
        c->send_step = STEP_QUIT;
}

/* One command at a time, or up to the window (P-172). */
static bool may_say(const struct smtp_client *c)
{
    if (!client_rows[c->send_step].say)
        return false;
    return c->expect_count == 0 ||
           (client_can(c, CLIENT_CAN_PIPELINING) && c->expect_count < CLIENT_WINDOW);
}

static void say(struct smtp_client *c, struct gather *out, const struct now *now)
{
    struct client_expect e = { c->send_step, 0, c->sending };
    if (e.step == STEP_RCPT)
        e.rcpt = c->sending->rcpt_next;
    expect_reply(c, e, now);
    turn(c, client_rows[e.step].say(c, out));
}

enum client_next smtp_client_next(struct smtp_client *c, struct gather *out, struct smtp_txn **txn,
                                  const struct now *now)
{
    size_t before = out->octets;
    c->wall_ms = now->wall_ms;
    if (client_is_over(c))
        return CLIENT_NEXT_CLOSE;
    turn_to_quit(c);
    while (may_say(c))
        say(c, out, now);
    if (out->octets > before)
        return CLIENT_NEXT_BYTES;
    if (c->send_step == STEP_TLS) {
        c->send_step = STEP_AWAIT;
        c->waiting_since_ms = now->mono_ms;
        return CLIENT_NEXT_TLS;
    }
    if (c->send_step != STEP_BODY)
        return CLIENT_NEXT_NOTHING;
    c->send_step = STEP_WRITING;
    c->waiting_since_ms = now->mono_ms;
    *txn = c->sending;
    if (c->sending->by_bdat)
        gather_printf(out, "BDAT %llu LAST\r\n",
                      (unsigned long long)message_sent_size(c->sending->message));
    return CLIENT_NEXT_BODY;
}

void smtp_client_progress(struct smtp_client *c, const struct now *now)
{
    bool is_dot_next = c->expect_count > 0 && c->expect[c->expect_head].step == STEP_DOT;
    if (c->send_step == STEP_WRITING || is_dot_next)
        c->waiting_since_ms = now->mono_ms;
}

void smtp_client_body_sent(struct smtp_client *c, struct smtp_txn *txn, const struct now *now)
{
    if (c->sending != txn || c->send_step != STEP_WRITING) /* it was decided early */
        return;
    txn->body_sent = txn->dot_sent = true;
    expect_reply(c, (struct client_expect){ STEP_DOT, 0, txn }, now);
    turn(c, STEP_IDLE);
}

/* --- life ------------------------------------------------------------------------------------- */

static void expect_greeting(struct smtp_client *c, const struct now *now)
{
    client_enter(c, CLIENT_GREETING);
    expect_reply(c, (struct client_expect){ STEP_GREETING, 0, NULL }, now);
}

void smtp_client_init(struct smtp_client *c, const struct client_policy *policy, struct slice helo,
                      uint32_t reply_timeout_cap_ms, const struct now *now)
{
    *c = (struct smtp_client){
        .state = CLIENT_TLS,
        .policy = *policy,
        .helo = helo,
        .reply_timeout_cap_ms = reply_timeout_cap_ms,
        .waiting_since_ms = now->mono_ms,
        .send_step = STEP_TLS,
    };
    list_init(&c->active);
    list_init(&c->done);
    reply_parser_init(&c->parser);
    if (policy->tls == CLIENT_TLS_IMPLICIT)
        return;
    c->send_step = STEP_IDLE;
    expect_greeting(c, now);
}

void smtp_client_secured(struct smtp_client *c, bool is_verified, const struct now *now)
{
    must(c->state == CLIENT_TLS && c->expect_count == 0);
    c->is_secure = true;
    c->is_verified = is_verified;
    c->waiting_since_ms = -1;
    if (!c->is_greeted) {
        expect_greeting(c, now);
        return;
    }
    client_forget_offers(c); /* P-195 */
    client_enter(c, CLIENT_EHLO);
    c->send_step = STEP_EHLO;
}

bool smtp_client_may_go_clear(const struct smtp_client *c)
{
    return c->state == CLIENT_BROKEN && c->policy.tls == CLIENT_TLS_MAY && !c->is_secure &&
           c->failure.stage == OUTCOME_TLS;
}

bool smtp_client_awaits_ehlo(const struct smtp_client *c)
{
    return c->state == CLIENT_EHLO && c->expect_count > 0 && c->parser.lines == 0 &&
           c->parser.line.len == 0;
}

void smtp_client_done(struct smtp_client *c)
{
    must(list_is_empty(&c->active) && list_is_empty(&c->done));
    reply_parser_done(&c->parser);
    free(c->expect);
    c->expect = NULL;
    c->expect_cap = c->expect_count = 0;
}

bool smtp_client_can_take(const struct smtp_client *c)
{
    if (c->quit_wanted)
        return false;
    if (c->state == CLIENT_READY)
        return true;
    if (c->state != CLIENT_BUSY || !client_can(c, CLIENT_CAN_PIPELINING))
        return false;
    struct smtp_txn *first = list_entry(c->active.next, struct smtp_txn, node);
    if (first->by_bdat) /* when it is refused, RSET comes next */
        return false;
    return first->node.next == &c->active && (first->dot_sent || c->send_step == STEP_WRITING);
}

/* A transaction that is decided before a word is said. */
static void decline(struct smtp_client *c, struct smtp_txn *txn, struct rcpt_outcome v)
{
    client_decide_open(txn, v);
    list_push_back(&c->done, &txn->node);
}

void smtp_client_begin(struct smtp_client *c, struct smtp_txn *txn, const struct now *now)
{
    struct rcpt_outcome why;
    must(txn->rcpt_count > 0);
    c->wall_ms = now->wall_ms;
    c->transactions++;
    list_init(&txn->node);
    if (client_is_over(c) || c->state == CLIENT_QUIT) { /* the peer was quicker than the caller */
        decline(c, txn,
                client_verdict_ours(OUTCOME_LOST, 451, "4.4.2",
                                    "the connection ended before the message was begun"));
        return;
    }
    must(c->state == CLIENT_READY || c->state == CLIENT_BUSY);
    if (!client_meets_needs(c, txn, &why)) {
        decline(c, txn, why);
        return;
    }
    client_decline_rcpts(c, txn);
    txn->rcpt_next = client_open_rcpt(txn, 0);
    txn->by_bdat = client_prefers_bdat(c, txn->message);
    txn->passes_dsn = client_can(c, CLIENT_CAN_DSN);
    must(list_is_empty(&c->active) || c->active.next->next == &c->active);
    list_push_back(&c->active, &txn->node);
    client_enter(c, CLIENT_BUSY);
    if (c->send_step == STEP_IDLE)
        turn(c, STEP_IDLE);
}

struct smtp_txn *smtp_client_finished(struct smtp_client *c)
{
    struct list *node = list_pop_front(&c->done);
    return node ? list_entry(node, struct smtp_txn, node) : NULL;
}

void smtp_client_lost(struct smtp_client *c, enum outcome_stage stage, const char *why)
{
    if (client_is_over(c))
        return;
    if (c->state == CLIENT_QUIT) {
        client_enter(c, CLIENT_CLOSED);
        return;
    }
    const char *enhanced = stage == OUTCOME_CONNECT ? "4.4.1" : "4.4.2"; /* P-176 */
    if (stage == OUTCOME_TLS)
        enhanced = "4.7.5";
    client_break(c, client_verdict_ours(stage, 451, enhanced, why), NULL);
}

void smtp_client_quit(struct smtp_client *c)
{
    c->quit_wanted = true;
}

int64_t smtp_client_deadline(const struct smtp_client *c)
{
    int64_t timeout_ms;
    if (client_is_over(c))
        return INT64_MAX;
    if (c->state == CLIENT_TLS)
        timeout_ms = HANDSHAKE_TIMEOUT_MS;
    else if (c->expect_count > 0)
        timeout_ms = client_rows[c->expect[c->expect_head].step].timeout_ms;
    else if (c->send_step == STEP_WRITING)
        timeout_ms = BLOCK_TIMEOUT_MS;
    else
        return INT64_MAX;
    if (c->reply_timeout_cap_ms > 0 && c->reply_timeout_cap_ms < timeout_ms)
        timeout_ms = c->reply_timeout_cap_ms;
    return c->waiting_since_ms + timeout_ms;
}

void smtp_client_timeout(struct smtp_client *c)
{
    char why[64] = "the peer takes no content any more";
    if (c->expect_count > 0)
        snprintf(why, sizeof why, "no reply to %s in time",
                 client_rows[c->expect[c->expect_head].step].name);
    if (c->state == CLIENT_TLS)
        smtp_client_lost(c, OUTCOME_TLS, "the TLS handshake takes too long");
    else
        smtp_client_lost(c, OUTCOME_LOST, why);
}
