/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_trace - the fields we write: Received on top, and what a header section must have and
 * lacks at its end.
 *
 * The Received field says how the mail came and to whom: "for" only when it betrays nobody (P-92),
 * the protocol's name as RFC 3848 and RFC 6531 3.7.3 have it (P-93), TLS in a comment only, the
 * priority in the clause of RFC 6710 (P-66). A listener may leave out the "from" clause: the
 * address is often somebody's home, and the name in EHLO that of a machine there (P-94). It carries
 * no version of ours and not who authenticated (P-156). Every word in it has been through a grammar
 * or is ours, so none can begin a line of its own.
 *
 * To add a clause: content_store_trace, before the date.
 */
#include "core/smtp/content_private.h"

#include <stdio.h>

static void store_all(struct smtp_content *c, const struct slice *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        content_store(c, parts[i]);
}

#define STORE(c, ...)                                                                              \
    store_all(c, (const struct slice[]){ __VA_ARGS__ },                                            \
              sizeof((const struct slice[]){ __VA_ARGS__ }) / sizeof(struct slice))

/* P-93. HELO has no extensions, so nothing is added to it. */
static struct slice protocol_of(const struct smtp_content_policy *p)
{
    static const struct slice names[2][2][2] = {
        { { { "ESMTP", 5 }, { "ESMTPA", 6 } }, { { "ESMTPS", 6 }, { "ESMTPSA", 7 } } },
        { { { "UTF8SMTP", 8 }, { "UTF8SMTPA", 9 } }, { { "UTF8SMTPS", 9 }, { "UTF8SMTPSA", 10 } } },
    };
    return p->is_esmtp ? names[p->is_utf8][p->tls != NULL][p->is_authenticated] : SLICE("SMTP");
}

static void store_tls(struct smtp_content *c)
{
    const struct smtp_tls *tls = c->policy.tls;
    if (tls)
        STORE(c, SLICE("\r\n\t("), slice_str(tls->version), SLICE(" "), slice_str(tls->cipher),
              SLICE(")"));
}

static void store_priority(struct smtp_content *c)
{
    char text[sizeof " PRIORITY -9"];
    if (c->message->priority == 0)
        return;
    int len = snprintf(text, sizeof text, " PRIORITY %d", c->message->priority);
    content_store(c, slice_of(text, (size_t)len));
}

static void store_origin(struct smtp_content *c)
{
    const struct message *m = c->message;
    if (!c->server->hides_client)
        STORE(c, SLICE("from "), m->helo, SLICE(" (["), m->client, SLICE("])\r\n\t"));
}

void content_store_trace(struct smtp_content *c)
{
    const struct message *m = c->message;
    char date[CLOCK_DATE_MAX];
    struct slice now = slice_of(date, clock_format_rfc5322(c->wall_ms, date));
    bool is_for_one = m->rcpt_count == 1;
    content_store(c, SLICE("Received: "));
    store_origin(c);
    STORE(c, SLICE("by "), c->server->hostname, SLICE(" (Kilat) with "), protocol_of(&c->policy));
    store_tls(c);
    STORE(c, SLICE(" id "), slice_of(m->id, QUEUE_ID_LEN));
    if (is_for_one)
        STORE(c, SLICE("\r\n\tfor <"), m->rcpts[0].address, SLICE(">"));
    store_priority(c);
    STORE(c, is_for_one ? SLICE("; ") : SLICE(";\r\n\t"), now, SLICE("\r\n"));
}

static void store_date(struct smtp_content *c)
{
    char date[CLOCK_DATE_MAX];
    STORE(c, SLICE("Date: "), slice_of(date, clock_format_rfc5322(c->wall_ms, date)),
          SLICE("\r\n"));
}

void content_store_missing(struct smtp_content *c)
{
    const struct message *m = c->message;
    if (!(c->seen & FIELD_DATE))
        store_date(c);
    if (!(c->seen & FIELD_MESSAGE_ID))
        STORE(c, SLICE("Message-ID: <"), slice_of(m->id, QUEUE_ID_LEN), SLICE("@"),
              c->server->hostname, SLICE(">\r\n"));
    if (!(c->seen & FIELD_FROM))
        STORE(c, SLICE("From: "), m->sender, SLICE("\r\n"));
}
