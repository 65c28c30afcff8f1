/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_needs - what a message asks of the peer, and what is said to it about that.
 *
 * A message that needs what a peer lacks is not sent to it: one row of needs[] each, with the words
 * for the sender. Nothing was said then, so another host of the destination may be asked
 * (is_unfit). What a peer need not have is said when it is offered and left out otherwise (P-177):
 * SIZE, 8BITMIME (P-179), DSN, MT-PRIORITY, DELIVERBY with by-mode N. Time held back
 * (FUTURERELEASE) is spent here and never passed on.
 *
 * REQUIRETLS goes to a peer whose certificate was verified and that offers it too (P-204).
 *
 * SMTPUTF8 is said of every message that came with it and has a use for it. To a peer without it,
 * such a message can still go when this transaction's addresses and the header are ASCII (P-180):
 * the header is looked through then, unless its beginning is not in memory.
 *
 * To add a parameter: its words in put_*, and a row in needs[] if it cannot be left out.
 */
#include "core/smtp/client_rows.h"
#include "core/smtp/idn.h"

#define BY_MAX_S 999999999 /* RFC 2852 4: nine digits */

/* --- what is needed -------------------------------------------------------------------------- */

static bool lacks_tls(const struct smtp_client *c, const struct smtp_txn *txn)
{
    return (txn->message->flags & MESSAGE_REQUIRE_TLS) &&
           !(c->is_verified && client_can(c, CLIENT_CAN_REQUIRETLS));
}

/* Seconds until the message must have been delivered; rounded down, so that time never grows. */
static int64_t seconds_left(const struct smtp_client *c, const struct message *m)
{
    int64_t ms = m->deliver_by_ms - c->wall_ms, s = ms / 1000 - (ms % 1000 < 0);
    if (s > BY_MAX_S)
        return BY_MAX_S;
    return s < -BY_MAX_S ? -BY_MAX_S : s;
}

static bool must_be_in_time(const struct message *m)
{
    return m->deliver_by_ms > 0 && (m->flags & MESSAGE_BY_RETURN);
}

static bool is_late(const struct smtp_client *c, const struct smtp_txn *txn)
{
    return must_be_in_time(txn->message) && seconds_left(c, txn->message) <= 0;
}

/* RFC 2852: what must be in time goes to no server that does not promise to look at the time, or
 * not to so short a one. */
static bool lacks_deliver_by(const struct smtp_client *c, const struct smtp_txn *txn)
{
    const struct message *m = txn->message;
    return must_be_in_time(m) && (!client_can(c, CLIENT_CAN_DELIVERBY) ||
                                  (uint64_t)seconds_left(c, m) < c->deliver_by_min_s);
}

static bool lacks_size(const struct smtp_client *c, const struct smtp_txn *txn)
{
    return c->size_max > 0 && message_sent_size(txn->message) > c->size_max;
}

static bool lacks_binary(const struct smtp_client *c, const struct smtp_txn *txn)
{
    const uint32_t both = CLIENT_CAN_BINARYMIME | CLIENT_CAN_CHUNKING;
    return (txn->message->flags & MESSAGE_BINARY) && (c->capabilities & both) != both;
}

static bool lacks_utf8(const struct smtp_client *c, const struct smtp_txn *txn)
{
    return (txn->message->flags & MESSAGE_UTF8) && !client_can(c, CLIENT_CAN_SMTPUTF8);
}

static struct slice rcpt_address(const struct smtp_txn *txn, uint32_t i)
{
    return txn->message->rcpts[txn->rcpts[i]].address;
}

/* The sender's address, or everybody's: nobody can be told. */
static bool lacks_utf8_address(const struct smtp_client *c, const struct smtp_txn *txn)
{
    uint32_t i = 0;
    if (!lacks_utf8(c, txn))
        return false;
    while (i < txn->rcpt_count && idn_is_needed(rcpt_address(txn, i)))
        i++;
    return i == txn->rcpt_count || idn_is_needed(client_sender(txn));
}

/* Looks for the empty line that ends a header section, over pieces cut anywhere. */
struct header_end {
    uint8_t state; /* LFs seen in a row, CRs between them not counted */
    bool is_8bit;
};

/* True when the header goes on behind this piece. */
static bool look_through(struct header_end *h, struct slice piece)
{
    for (size_t i = 0; i < piece.len; i++) {
        unsigned char octet = (unsigned char)piece.ptr[i];
        if (octet == '\n' && ++h->state == 2)
            return false;
        if (octet != '\n' && octet != '\r')
            h->state = 0;
        h->is_8bit |= octet > 127;
    }
    return true;
}

static bool header_is_8bit(const struct message *m)
{
    struct header_end h = { .state = 1 };
    if (!(m->flags & MESSAGE_8BIT))
        return false;
    if (m->chunk_count > 0) /* it is in Redis */
        return true;
    if (m->blob)
        look_through(&h, m->body);
    for (struct chain_seg *seg = m->content.head; seg; seg = seg->next)
        if (!look_through(&h, slice_of(seg->data, seg->len)))
            break;
    return h.is_8bit;
}

static bool lacks_utf8_header(const struct smtp_client *c, const struct smtp_txn *txn)
{
    return lacks_utf8(c, txn) && header_is_8bit(txn->message);
}

static const struct need {
    bool (*is_unmet)(const struct smtp_client *c, const struct smtp_txn *txn);
    bool may_be_met_elsewhere;
    int code;
    const char *enhanced, *text;
} needs[] = {
    { lacks_tls, true, 550, "5.7.30", /* P-204 */
      "REQUIRETLS was asked for, and the next hop does not offer it over verified TLS" },
    { is_late, false, 550, "5.4.7", "the time to deliver it by is over" },               /* P-68 */
    { lacks_size, true, 552, "5.3.4", "the message is larger than the next hop takes" }, /* P-178 */
    { lacks_binary, true, 554, "5.6.3", "the next hop takes no binary content" },        /* P-106 */
    { lacks_utf8_address, true, 553, "5.6.7",                                            /* P-180 */
      "an address needs SMTPUTF8, which the next hop does not offer" },
    { lacks_utf8_header, true, 554, "5.6.9",
      "the header needs SMTPUTF8, which the next hop does not offer" },
    { lacks_deliver_by, true, 550, "5.4.7",
      "the next hop does not promise to deliver in so short a time" },
};

bool client_meets_needs(const struct smtp_client *c, struct smtp_txn *txn, struct rcpt_outcome *why)
{
    for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
        const struct need *need = &needs[i];
        if (!need->is_unmet(c, txn))
            continue;
        *why = client_verdict_ours(OUTCOME_LOCAL, need->code, need->enhanced, need->text);
        txn->is_unfit = need->may_be_met_elsewhere;
        return false;
    }
    return true;
}

void client_decline_rcpts(const struct smtp_client *c, struct smtp_txn *txn)
{
    static const char why[] = "this address needs SMTPUTF8, which the next hop does not offer";
    if (!lacks_utf8(c, txn))
        return;
    for (uint32_t i = 0; i < txn->rcpt_count; i++)
        if (idn_is_needed(rcpt_address(txn, i)))
            client_decide(txn, i, client_verdict_ours(OUTCOME_LOCAL, 553, "5.6.7", why));
}

/* A chunk that a peer might refuse to hear of is small: its octets are out before the refusal is
 * read, so that the refusal is not taken for an early verdict on content (P-186). */
bool client_prefers_bdat(const struct smtp_client *c, const struct message *m)
{
    if (m->flags & MESSAGE_BINARY)
        return true;
    return client_can(c, CLIENT_CAN_CHUNKING) && !client_can(c, CLIENT_CAN_PIPELINING) &&
           m->chunk_count == 0;
}

/* --- MAIL ------------------------------------------------------------------------------------ */

/* Said of nearly every message: by hand, that is a tenth of what all of its words cost. */
static void put_size(uint64_t size, struct gather *out)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + size % 10);
        size /= 10;
    } while (size > 0);
    gather_copy(out, SLICE(" SIZE="));
    gather_copy(out, slice_of(digits + at, sizeof digits - at));
}

static void put_body(const struct smtp_client *c, const struct message *m, struct gather *out)
{
    if (m->flags & MESSAGE_BINARY)
        gather_copy(out, SLICE(" BODY=BINARYMIME"));
    else if ((m->flags & MESSAGE_8BIT) && client_can(c, CLIENT_CAN_8BITMIME))
        gather_copy(out, SLICE(" BODY=8BITMIME"));
}

/* RET and ENVID as they were given (P-65). */
static void put_mail_dsn(const struct message *m, struct gather *out)
{
    if (m->ret != DSN_RET_NONE)
        gather_copy(out, m->ret == DSN_RET_FULL ? SLICE(" RET=FULL") : SLICE(" RET=HDRS"));
    if (m->envid.len > 0)
        gather_printf(out, " ENVID=%.*s", SLICE_ARG(m->envid));
}

/* P-68: what is left of the time. */
static void put_deliver_by(const struct smtp_client *c, const struct message *m, struct gather *out)
{
    gather_printf(out, " BY=%lld;%c%s", (long long)seconds_left(c, m),
                  m->flags & MESSAGE_BY_RETURN ? 'R' : 'N', m->flags & MESSAGE_BY_TRACE ? "T" : "");
}

void client_put_mail_params(const struct smtp_client *c, const struct message *m,
                            struct gather *out)
{
    if (client_can(c, CLIENT_CAN_SIZE))
        put_size(message_sent_size(m), out);
    put_body(c, m, out);
    if ((m->flags & MESSAGE_UTF8) && client_can(c, CLIENT_CAN_SMTPUTF8))
        gather_copy(out, SLICE(" SMTPUTF8"));
    if (client_can(c, CLIENT_CAN_DSN))
        put_mail_dsn(m, out);
    if (m->deliver_by_ms > 0 && client_can(c, CLIENT_CAN_DELIVERBY))
        put_deliver_by(c, m, out);
    if (m->flags & MESSAGE_REQUIRE_TLS)
        gather_copy(out, SLICE(" REQUIRETLS"));
    if (m->priority != 0 && client_can(c, CLIENT_CAN_MT_PRIORITY))
        gather_printf(out, " MT-PRIORITY=%d", m->priority);
}

/* --- RCPT ------------------------------------------------------------------------------------ */

static void put_notify(uint32_t notify, struct gather *out)
{
    static const struct {
        enum dsn_notify bit;
        const char *name;
    } names[] = {
        { DSN_NOTIFY_NEVER, "NEVER" },
        { DSN_NOTIFY_SUCCESS, "SUCCESS" },
        { DSN_NOTIFY_FAILURE, "FAILURE" },
        { DSN_NOTIFY_DELAY, "DELAY" },
    };
    const char *before = " NOTIFY=";
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!(notify & names[i].bit))
            continue;
        gather_printf(out, "%s%s", before, names[i].name);
        before = ",";
    }
}

/* RFC 3461 4: printable, but for "+" and "=". */
static void put_xtext(struct slice s, struct gather *out)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c > ' ' && c <= '~' && c != '+' && c != '=')
            gather_copy(out, slice_of(&s.ptr[i], 1));
        else
            gather_printf(out, "+%02X", c);
    }
}

/* P-64: as it was given. Where none was, the address as it came in is what a report further on is
 * to name; only for a recipient of whom reports were asked, the others save the octets (RFC 3461
 * 5.2.1 b leaves it free). */
static void put_orcpt(const struct rcpt *rcpt, struct gather *out)
{
    const uint32_t reports = DSN_NOTIFY_SUCCESS | DSN_NOTIFY_FAILURE | DSN_NOTIFY_DELAY;
    if (rcpt->orcpt.len > 0 && !idn_is_needed(rcpt->orcpt)) {
        gather_copy(out, SLICE(" ORCPT="));
        gather_copy(out, rcpt->orcpt);
    } else if ((rcpt->notify & reports) && !idn_is_needed(rcpt->address)) {
        gather_copy(out, SLICE(" ORCPT=rfc822;"));
        put_xtext(rcpt->address, out);
    }
}

void client_put_rcpt_params(const struct smtp_client *c, const struct message *m,
                            const struct rcpt *rcpt, struct gather *out)
{
    if (!client_can(c, CLIENT_CAN_DSN))
        return;
    put_notify(rcpt->notify, out);
    put_orcpt(rcpt, out);
}
