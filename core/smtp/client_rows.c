/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_rows - every command of ours: what I say beside where its reply leads.
 *
 * A speaker appends its command and names the step after it. A listener takes the whole reply,
 * decides what it decides, and names where the send cursor goes; STEP_SAME leaves it. Neither looks
 * at the ring of expected replies nor at time: client.c walks the rows.
 *
 * To add a command: a step in client_rows.h, a row here, a case in test_client.c.
 */
#include "core/smtp/client_rows.h"

#define MINUTES(n) ((n)*60 * 1000)
#define LIMIT_MAX  999999 /* RFC 9422 4: six digits */

static client_say_fn say_ehlo, say_helo, say_mail, say_rcpt, say_data, say_lone_dot, say_rset,
    say_quit;
static client_on_fn on_greeting, on_ehlo_reply, on_helo_reply, on_mail_reply, on_rcpt_reply,
    on_data_reply, on_dot_reply, on_lone_dot_reply, on_rset_reply, on_quit_reply;

/* Timeouts: RFC 5321 4.5.3.2, for the whole reply, however many lines it drips in (P-161). */
const struct client_row client_rows[] = {
    [STEP_GREETING] = { "greeting", NULL, on_greeting, MINUTES(5), OUTCOME_GREETING },
    [STEP_EHLO] = { "EHLO", say_ehlo, on_ehlo_reply, MINUTES(5), OUTCOME_EHLO },
    [STEP_HELO] = { "HELO", say_helo, on_helo_reply, MINUTES(5), OUTCOME_EHLO },
    [STEP_STARTTLS] = { "STARTTLS", client_say_starttls, client_on_starttls_reply, MINUTES(2),
                        OUTCOME_TLS },
    [STEP_AUTH] = { "AUTH", client_say_auth, client_on_auth_reply, MINUTES(2), OUTCOME_AUTH },
    [STEP_AUTH_NEXT] = { "AUTH", client_say_auth_next, client_on_auth_reply, MINUTES(2),
                         OUTCOME_AUTH },
    [STEP_MAIL] = { "MAIL", say_mail, on_mail_reply, MINUTES(5), OUTCOME_MAIL },
    [STEP_RCPT] = { "RCPT", say_rcpt, on_rcpt_reply, MINUTES(5), OUTCOME_RCPT },
    [STEP_DATA] = { "DATA", say_data, on_data_reply, MINUTES(2), OUTCOME_DATA },
    [STEP_DOT] = { "end of data", NULL, on_dot_reply, MINUTES(10), OUTCOME_DOT },
    [STEP_LONE_DOT] = { "end of no data", say_lone_dot, on_lone_dot_reply, MINUTES(10),
                        OUTCOME_LOST },
    [STEP_RSET] = { "RSET", say_rset, on_rset_reply, MINUTES(5), OUTCOME_LOST },
    [STEP_QUIT] = { "QUIT", say_quit, on_quit_reply, 30 * 1000, OUTCOME_LOST },
    [STEP_SAME] = { NULL },
};

enum client_step client_protocol_error(struct smtp_client *c, const struct client_expect *e,
                                       const char *why)
{
    client_break_protocol(c, e, why);
    return STEP_IDLE;
}

enum client_step client_refused(struct smtp_client *c, const struct smtp_reply *r,
                                enum outcome_stage stage)
{
    client_break(c, client_verdict_of(r, stage), NULL);
    return STEP_IDLE;
}

/* --- greeting and capabilities ---------------------------------------------------------------- */

static enum client_step on_greeting(struct smtp_client *c, const struct client_expect *e,
                                    const struct smtp_reply *r)
{
    if (smtp_reply_is_transient(r) || smtp_reply_is_permanent(r))
        return client_refused(c, r, OUTCOME_GREETING);
    if (r->code != 220) /* P-162 */
        return client_protocol_error(c, e, "the greeting was not 220");
    c->is_greeted = true;
    client_enter(c, c->policy.is_helo_only ? CLIENT_HELO : CLIENT_EHLO);
    return c->policy.is_helo_only ? STEP_HELO : STEP_EHLO;
}

static enum client_step say_ehlo(struct smtp_client *c, struct gather *out)
{
    c->ehlo_lines = 0;
    gather_printf(out, "EHLO %.*s\r\n", SLICE_ARG(c->helo));
    return STEP_AWAIT;
}

static enum client_step say_helo(struct smtp_client *c, struct gather *out)
{
    gather_printf(out, "HELO %.*s\r\n", SLICE_ARG(c->helo));
    return STEP_AWAIT;
}

/* The next word of a line, words cut off; empty at its end. */
struct slice client_next_word(struct slice *line)
{
    while (line->len > 0 && line->ptr[0] == ' ')
        *line = slice_skip(*line, 1);
    struct slice word = slice_head(*line, slice_find(*line, ' '));
    *line = slice_skip(*line, word.len);
    return word;
}

/* Digits only; anything else, and more than fits, is no limit: the peer will say so itself. */
static uint64_t number_of(struct slice word)
{
    uint64_t number = 0;
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9' || number > (UINT64_MAX - 9) / 10)
            return 0;
        number = number * 10 + (uint64_t)(word.ptr[i] - '0');
    }
    return number;
}

/* One of the words after LIMITS, "RCPTMAX=100" (RFC 9422 3, P-173). The first of a name counts, as
 * everywhere; zero, a sign or too many digits make it none. */
static void take_limit(struct client_limits *limits, struct slice word)
{
    const struct {
        struct slice name;
        uint32_t *limit;
    } known[] = {
        { { "MAILMAX", 7 }, &limits->mail_max },
        { { "RCPTMAX", 7 }, &limits->rcpt_max },
        { { "RCPTDOMAINMAX", 13 }, &limits->rcpt_domain_max },
    };
    size_t equals = slice_find(word, '=');
    uint64_t number = number_of(slice_skip(word, equals + 1));
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (slice_eq_nocase(slice_head(word, equals), known[i].name) && *known[i].limit == 0 &&
            number <= LIMIT_MAX)
            *known[i].limit = (uint32_t)number;
}

static void take_limits(struct smtp_client *c, struct slice line)
{
    struct slice word;
    while ((word = client_next_word(&line)).len > 0)
        take_limit(&c->limits, word);
}

/* One keyword line (P-164): any case, unknown, empty and repeated ones mean nothing. */
static void take_keyword(struct smtp_client *c, struct slice line)
{
    static const struct {
        struct slice name;
        enum client_capability capability;
    } keywords[] = {
        { { "PIPELINING", 10 }, CLIENT_CAN_PIPELINING },
        { { "SIZE", 4 }, CLIENT_CAN_SIZE },
        { { "8BITMIME", 8 }, CLIENT_CAN_8BITMIME },
        { { "ENHANCEDSTATUSCODES", 19 }, CLIENT_CAN_ENHANCED },
        { { "CHUNKING", 8 }, CLIENT_CAN_CHUNKING },
        { { "STARTTLS", 8 }, CLIENT_CAN_STARTTLS },
        { { "BINARYMIME", 10 }, CLIENT_CAN_BINARYMIME },
        { { "SMTPUTF8", 8 }, CLIENT_CAN_SMTPUTF8 },
        { { "DSN", 3 }, CLIENT_CAN_DSN },
        { { "DELIVERBY", 9 }, CLIENT_CAN_DELIVERBY },
        { { "MT-PRIORITY", 11 }, CLIENT_CAN_MT_PRIORITY },
        { { "LIMITS", 6 }, CLIENT_CAN_LIMITS },
        { { "REQUIRETLS", 10 }, CLIENT_CAN_REQUIRETLS },
        { { "AUTH", 4 }, CLIENT_CAN_AUTH },
    };
    struct slice word = client_next_word(&line);
    for (size_t i = 0; i < ARRAY_LEN(keywords); i++) {
        enum client_capability capability = keywords[i].capability;
        if (!slice_eq_nocase(word, keywords[i].name) || client_can(c, capability))
            continue;
        c->capabilities |= capability;
        if (capability == CLIENT_CAN_SIZE)
            c->size_max = number_of(client_next_word(&line));
        else if (capability == CLIENT_CAN_DELIVERBY)
            c->deliver_by_min_s = number_of(client_next_word(&line));
        else if (capability == CLIENT_CAN_LIMITS)
            take_limits(c, line);
        else if (capability == CLIENT_CAN_AUTH)
            client_take_logins(c, line);
    }
}

/* A line of the reply to EHLO; the first one is the peer's name. */
void client_take_ehlo_line(struct smtp_client *c, struct slice line)
{
    if (c->expect_count == 0 || c->expect[c->expect_head].step != STEP_EHLO)
        return;
    if (c->ehlo_lines++ > 0)
        take_keyword(c, line);
}

/* What was offered, in clear or before HELO, is no longer. */
void client_forget_offers(struct smtp_client *c)
{
    c->capabilities = c->logins = 0;
    c->size_max = c->deliver_by_min_s = 0;
    c->limits = (struct client_limits){ 0 };
}

static enum client_step on_ehlo_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    if (smtp_reply_is_positive(r))
        return client_after_ehlo(c);
    client_forget_offers(c);
    if (smtp_reply_is_transient(r))
        return client_refused(c, r, OUTCOME_EHLO);
    if (!smtp_reply_is_permanent(r))
        return client_protocol_error(c, e, "3xx is no reply to EHLO");
    client_enter(c, CLIENT_HELO); /* P-163 */
    return STEP_HELO;
}

static enum client_step on_helo_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    if (smtp_reply_is_positive(r))
        return client_after_ehlo(c);
    if (smtp_reply_is_transient(r) || smtp_reply_is_permanent(r))
        return client_refused(c, r, OUTCOME_EHLO);
    return client_protocol_error(c, e, "3xx is no reply to HELO");
}

/* --- a transaction ---------------------------------------------------------------------------- */

struct slice client_sender(const struct smtp_txn *txn)
{
    return txn->return_path.len > 0 ? txn->return_path : txn->message->sender;
}

/* The null sender stays <> (P-190). */
static enum client_step say_mail(struct smtp_client *c, struct gather *out)
{
    const struct message *m = c->sending->message;
    gather_copy(out, SLICE("MAIL FROM:<"));
    gather_copy(out, client_sender(c->sending));
    gather_copy(out, SLICE(">"));
    client_put_mail_params(c, m, out);
    gather_copy(out, SLICE("\r\n"));
    return STEP_RCPT;
}

static enum client_step on_mail_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    if (smtp_reply_is_positive(r))
        return STEP_SAME;
    if (r->code / 100 == 3)
        return client_protocol_error(c, e, "3xx is no reply to MAIL");
    e->txn->mail_failed = true;
    client_decide_open(e->txn, client_verdict_of(r, OUTCOME_MAIL));
    return STEP_AWAIT; /* what was said already will be answered; nothing more is said */
}

static enum client_step say_rcpt(struct smtp_client *c, struct gather *out)
{
    struct smtp_txn *txn = c->sending;
    const struct rcpt *rcpt = &txn->message->rcpts[txn->rcpts[txn->rcpt_next]];
    gather_copy(out, SLICE("RCPT TO:<"));
    gather_copy(out, rcpt->address);
    gather_copy(out, SLICE(">"));
    client_put_rcpt_params(c, txn->message, rcpt, out);
    gather_copy(out, SLICE("\r\n"));
    txn->rcpts_said++;
    txn->rcpt_next = client_open_rcpt(txn, txn->rcpt_next + 1);
    if (txn->rcpt_next < txn->rcpt_count)
        return STEP_RCPT;
    return txn->by_bdat ? STEP_AWAIT : STEP_DATA;
}

/* After some were accepted, 552 and 452 mean "too many": the rest goes in a new transaction
 * (RFC 5321 4.5.3.1.10, P-181). */
static struct rcpt_outcome rcpt_verdict(const struct smtp_txn *txn, const struct smtp_reply *r)
{
    struct rcpt_outcome v = client_verdict_of(r, OUTCOME_RCPT);
    if (txn->rcpts_good > 0 && (r->code == 552 || r->code == 452)) {
        v.code = 452;
        client_set_enhanced(&v, "4.5.3");
    }
    return v;
}

/* All were said and answered, and somebody is to get it: now the chunk. With nobody left the
 * transaction is over. */
static enum client_step after_rcpt(const struct smtp_client *c, const struct smtp_txn *txn)
{
    bool is_last = txn->rcpt_next == txn->rcpt_count && txn->rcpts_replied == txn->rcpts_said;
    return txn->by_bdat && is_last && txn->rcpts_good > 0 ? STEP_BODY : STEP_SAME;
}

static enum client_step on_rcpt_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    struct smtp_txn *txn = e->txn;
    if (r->code / 100 == 3)
        return client_protocol_error(c, e, "3xx is no reply to RCPT: a reply is missing");
    txn->rcpts_replied++;
    if (txn->mail_failed) /* decided with MAIL */
        return STEP_SAME;
    if (smtp_reply_is_positive(r))
        txn->rcpts_good++;
    else
        client_decide(txn, e->rcpt, rcpt_verdict(txn, r));
    return after_rcpt(c, txn);
}

static enum client_step say_data(struct smtp_client *c, struct gather *out)
{
    gather_copy(out, SLICE("DATA\r\n"));
    return STEP_AWAIT;
}

static enum client_step on_data_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    struct smtp_txn *txn = e->txn;
    if (smtp_reply_is_positive(r) || (r->code / 100 == 3 && r->code != 354))
        return client_protocol_error(c, e, "only 354 is a positive reply to DATA"); /* P-183 */
    if (r->code == 354) /* when nobody is to get it: an empty message, its reply ignored (P-182) */
        return txn->rcpts_good > 0 ? STEP_BODY : STEP_LONE_DOT;
    txn->data_failed = true;
    client_decide_open(txn, client_verdict_of(r, OUTCOME_DATA));
    return STEP_SAME;
}

/* P-188: it is the command BDAT that was refused, not the message, which can go another way. */
static bool is_bdat_refused(const struct smtp_txn *txn, const struct smtp_reply *r)
{
    return txn->by_bdat && r->code >= 500 && r->code <= 504 &&
           !(txn->message->flags & MESSAGE_BINARY);
}

/* Once more from MAIL on, by DATA, for those who were not refused. Nothing else is under way: no
 * transaction is begun behind a chunk. */
static enum client_step try_data(struct smtp_client *c, struct smtp_txn *txn)
{
    must(txn->awaited == 0 && c->expect_count == 0 && !c->sending);
    c->capabilities &= ~(uint32_t)CLIENT_CAN_CHUNKING;
    txn->by_bdat = txn->body_sent = txn->dot_sent = false;
    txn->rcpt_next = client_open_rcpt(txn, 0);
    txn->rcpts_said = txn->rcpts_replied = txn->rcpts_good = 0;
    return STEP_RSET;
}

/* 2xx: the peer has the message. One reply covers all accepted recipients (P-189). */
static enum client_step on_dot_reply(struct smtp_client *c, const struct client_expect *e,
                                     const struct smtp_reply *r)
{
    if (r->code / 100 == 3)
        return client_protocol_error(c, e, "3xx is no reply to the end of data");
    if (is_bdat_refused(e->txn, r))
        return try_data(c, e->txn);
    client_decide_open(e->txn, client_verdict_of(r, OUTCOME_DOT));
    return e->txn->by_bdat && !smtp_reply_is_positive(r) ? STEP_RSET : STEP_SAME;
}

static enum client_step say_lone_dot(struct smtp_client *c, struct gather *out)
{
    gather_copy(out, SLICE(".\r\n"));
    return STEP_IDLE;
}

static enum client_step on_lone_dot_reply(struct smtp_client *c, const struct client_expect *e,
                                          const struct smtp_reply *r)
{
    if (r->code / 100 == 3)
        return client_protocol_error(c, e, "3xx is no reply to the end of data");
    return STEP_SAME;
}

static enum client_step say_rset(struct smtp_client *c, struct gather *out)
{
    gather_copy(out, SLICE("RSET\r\n"));
    return STEP_IDLE;
}

/* A peer that cannot forget a transaction is not given another. */
static enum client_step on_rset_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    return smtp_reply_is_positive(r) ? STEP_SAME : client_protocol_error(c, e, "RSET was refused");
}

static enum client_step say_quit(struct smtp_client *c, struct gather *out)
{
    gather_copy(out, SLICE("QUIT\r\n"));
    client_enter(c, CLIENT_QUIT);
    return STEP_AWAIT;
}

/* Whatever it says (P-171). */
static enum client_step on_quit_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    client_enter(c, CLIENT_CLOSED);
    return STEP_AWAIT;
}
