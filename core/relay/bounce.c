/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce - the report of what became of mail, as a message.
 *
 *     header                    From: Mail Delivery System, To: the sender, Auto-Submitted
 *     text/plain                for a person: who was not reached, why, and what to do
 *     message/delivery-status   for a program: the fields of RFC 3464
 *     message/rfc822            what came back, when it is small, complete and clean; else
 *     text/rfc822-headers       its header section, as far as it is in memory
 *
 * One report tells of every recipient of a delivery that something is to be told of, each with its
 * own action; the header is worded for the worst. The original comes back whole only with a
 * failure, and not when RET=HDRS was said, nor when REQUIRETLS was: a bounce goes out in clear
 * (P-204).
 *
 * All of it is ASCII in lines of at most 998 octets, but for addresses in UTF-8, which make the
 * parts those of RFC 6533 (message/global-delivery-status, P-231), and for octets above 127 in what
 * is returned; both are declared. Only a sender's address in UTF-8 makes the bounce itself need
 * SMTPUTF8: nothing else of that kind is in its envelope or its header. Who sent SMTPUTF8 mail is
 * taken to be able to read of it.
 *
 * The boundary comes from entropy and is looked for in what is returned; peers' words were there
 * before it was chosen.
 *
 * Limits: BOUNCE_RETURNED_MAX octets of the original; words: bounce_words.c. To add a field of the
 * report: bounce_status.c; to word it differently: sections[].
 */
#include "core/base/must.h"
#include "core/relay/bounce_inside.h"
#include "core/smtp/dot.h"
#include "core/smtp/idn.h"
#include "core/smtp/queue_id.h"
#include <stdio.h>

/* --- the header ------------------------------------------------------------------------------ */

/* What is told of a group of recipients, the worst first. */
static const struct section {
    enum report_action action;
    const char *subject;
    const char *before, *after; /* the list of addresses and reasons */
} sections[] = {
    { REPORT_FAILED, "Undelivered mail returned to sender",
      "Your message could not be delivered to the recipients below, and no further\r\n"
      "attempt will be made. Below each address is the reason, in the words of the\r\n"
      "mail server that gave it.\r\n\r\n",
      "What you can do: check the addresses for mistakes and send the message again.\r\n"
      "If they are right, give this report to the people who run your mail, or reach\r\n"
      "the recipients another way.\r\n\r\n" },
    { REPORT_DELAYED, "Delayed mail, still being tried",
      "Your message has not been delivered to the recipients below yet. It is tried\r\n"
      "further; you need not send it again. Below each address is what happened last.\r\n\r\n",
      "" },
    { REPORT_RELAYED, "Mail was passed on",
      "Your message was passed on to the mail server of the recipients below, which does\r\n"
      "not report what becomes of it. You will hear of them again only if it sends your\r\n"
      "message back.\r\n\r\n",
      "" },
};

static bool has_section(const struct bounce_writer *w, const struct section *section)
{
    for (uint32_t k = 0; k < w->rcpt_count; k++)
        if (w->rcpts[k].action == section->action)
            return true;
    return false;
}

static const char *subject(const struct bounce_writer *w)
{
    const struct section *section = sections;
    while (!has_section(w, section))
        section++;
    must(section < sections + ARRAY_LEN(sections));
    return section->subject;
}

static void write_header(struct bounce_writer *w)
{
    struct slice host = w->ctx->hostname;
    bounce_putf(w, "Received: by %.*s (Kilat) id %s;\r\n\t", SLICE_ARG(host), w->m->id);
    bounce_put_date(w, w->now->wall_ms);
    bounce_put(w, SLICE("\r\nDate: "));
    bounce_put_date(w, w->now->wall_ms);
    bounce_putf(w, "\r\nFrom: Mail Delivery System <MAILER-DAEMON@%.*s>\r\nTo: <", SLICE_ARG(host));
    bounce_put_address(w, w->d->message->sender);
    bounce_putf(w, ">\r\nSubject: %s\r\nMessage-ID: <%s@%.*s>\r\n", subject(w), w->m->id,
                SLICE_ARG(host));
    /* P-235, RFC 3834 5. The encoding of a part must hold for the whole too (RFC 2045 6.4). */
    bounce_putf(w,
                "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n%s"
                "Content-Type: multipart/report; report-type=%sdelivery-status;\r\n"
                "\tboundary=\"%s\"\r\n",
                w->is_8bit ? "Content-Transfer-Encoding: 8bit\r\n" : "",
                w->is_global ? "global-" : "", w->boundary);
}

/* --- the text -------------------------------------------------------------------------------- */

static void write_category(struct bounce_writer *w, enum bounce_category category)
{
    if (category != CATEGORY_NONE)
        bounce_putf(w, "    (%s: %s)\r\n", category_name(category), category_meaning(category));
}

static void write_reason(struct bounce_writer *w, uint32_t k)
{
    const struct rcpt_outcome *o = bounce_outcome(w, k);
    if (w->rcpts[k].action == REPORT_FAILED && bounce_has_expired(w, k))
        bounce_put(
            w, SLICE("    could not be delivered in time; the last thing that happened was:\r\n"));
    bounce_put(w, SLICE("    "));
    bounce_put_reply(w, o, "\r\n    ");
    bounce_put(w, SLICE("\r\n"));
    write_category(w, w->rcpts[k].category);
    bounce_put(w, SLICE("\r\n"));
}

static void write_section(struct bounce_writer *w, const struct section *section)
{
    bounce_put(w, slice_str(section->before));
    for (uint32_t k = 0; k < w->rcpt_count; k++) {
        if (w->rcpts[k].action != section->action)
            continue;
        bounce_put(w, SLICE("<"));
        bounce_put_address(w, bounce_rcpt(w, k)->address);
        bounce_put(w, SLICE(">\r\n"));
        write_reason(w, k);
    }
    if (section->action == REPORT_DELAYED) {
        bounce_put(w, SLICE("Delivery is tried until "));
        bounce_put_date(w, w->d->expires_ms);
        bounce_put(w, SLICE(".\r\n\r\n"));
    }
    bounce_put(w, slice_str(section->after));
}

static void write_text(struct bounce_writer *w)
{
    bounce_putf(w,
                "\r\n--%s\r\nContent-Type: text/plain; charset=%s\r\n%s\r\n"
                "This is the mail gateway at %.*s.\r\n\r\n",
                w->boundary, w->is_global ? "utf-8" : "us-ascii",
                w->is_global ? "Content-Transfer-Encoding: 8bit\r\n" : "",
                SLICE_ARG(w->ctx->hostname));
    for (size_t i = 0; i < ARRAY_LEN(sections); i++)
        if (has_section(w, &sections[i]))
            write_section(w, &sections[i]);
    bounce_putf(w, "The queue id of the message was %s.\r\n\r\n", w->d->message->id);
}

/* --- what is returned ------------------------------------------------------------------------ */

/* The first line with its CR LF, taken from the front of s; empty when no whole line is left, or
 * when it is none that may be sent: over 998 octets, with a NUL, a bare CR or a bare LF. */
static struct slice take_line(struct slice *s)
{
    size_t len = slice_find(*s, '\n') + 1;
    struct slice line = slice_head(*s, len);
    if (len > s->len || len < 2 || len > DOT_LINE_MAX + 2 || slice_find(line, '\r') != len - 2 ||
        slice_find(line, '\0') != len)
        return SLICE_NONE;
    *s = slice_skip(*s, len);
    return line;
}

static bool is_clean(struct slice s)
{
    while (s.len > 0)
        if (take_line(&s).len == 0)
            return false;
    return true;
}

/* The clean lines before the first empty one. */
static struct slice header_of(struct slice original)
{
    struct slice rest = original, line;
    size_t len = 0;
    while ((line = take_line(&rest)).len > 2)
        len += line.len;
    return slice_head(original, len);
}

/* RET is about failures; of other mail the header tells which it is (RFC 3461 4.3). */
static bool may_return_body(const struct bounce_writer *w)
{
    const struct message *m = w->d->message;
    return has_section(w, &sections[0]) && m->ret != DSN_RET_HDRS &&
           !(m->flags & MESSAGE_REQUIRE_TLS);
}

/* P-228, P-236: all of a small message, else nothing but its header section. */
static void choose_returned(struct bounce_writer *w)
{
    struct slice original = w->ctx->original;
    w->is_whole = may_return_body(w) && original.len == w->d->message->size &&
                  original.len <= BOUNCE_RETURNED_MAX && is_clean(original);
    w->returned = w->is_whole ? original : header_of(slice_head(original, BOUNCE_RETURNED_MAX));
}

static void look_for_8bit(struct bounce_writer *w)
{
    w->is_global = idn_is_needed(w->d->message->sender);
    for (uint32_t k = 0; k < w->rcpt_count; k++)
        w->is_global |= idn_is_needed(bounce_rcpt(w, k)->address);
    w->is_8bit = w->is_global || idn_is_needed(w->returned);
}

static bool holds(struct slice s, struct slice what)
{
    return s.len > 0 && memmem(s.ptr, s.len, what.ptr, what.len) != NULL;
}

static void choose_boundary(struct bounce_writer *w)
{
    do {
        snprintf(w->boundary, sizeof w->boundary, "=_%016llx%016llx",
                 (unsigned long long)entropy_u64(w->ctx->entropy),
                 (unsigned long long)entropy_u64(w->ctx->entropy));
    } while (holds(w->returned, slice_str(w->boundary)));
}

/* RFC 6533 6: a header in UTF-8 makes the message one of RFC 6532. */
static const char *returned_type(const struct bounce_writer *w)
{
    bool is_utf8 = w->d->message->flags & MESSAGE_UTF8;
    if (w->is_whole)
        return is_utf8 ? "message/global" : "message/rfc822";
    return is_utf8 ? "message/global-headers" : "text/rfc822-headers";
}

static void write_returned(struct bounce_writer *w)
{
    bounce_putf(w, "\r\n--%s\r\nContent-Type: %s\r\n%s\r\n", w->boundary, returned_type(w),
                idn_is_needed(w->returned) ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    bounce_put(w, w->returned);
    bounce_putf(w, "\r\n--%s--\r\n", w->boundary);
}

/* --- making ---------------------------------------------------------------------------------- */

/* The domain of a mailbox; the last '@' divides it, also when the local part is quoted. */
static struct slice domain_of(struct slice mailbox)
{
    const char *at = memrchr(mailbox.ptr, '@', mailbox.len);
    return slice_skip(mailbox, at ? (size_t)(at - mailbox.ptr) + 1 : mailbox.len);
}

static void write_content(struct bounce_writer *w)
{
    choose_returned(w);
    look_for_8bit(w);
    choose_boundary(w);
    write_header(w);
    write_text(w);
    bounce_write_status(w);
    write_returned(w);
    w->m->size = w->m->content.len;
    if (w->is_8bit)
        w->m->flags |= MESSAGE_8BIT;
    if (idn_is_needed(w->d->message->sender))
        w->m->flags |= MESSAGE_UTF8;
    /* No line of ours begins with a dot: folded words have a blank before them. */
    if (holds(w->returned, SLICE("\n.")) || holds(slice_head(w->returned, 1), SLICE(".")))
        w->m->flags |= MESSAGE_DOT_LINES;
}

struct message *bounce_make(const struct delivery *d, const struct report_rcpt *rcpts,
                            uint32_t rcpt_count, const struct bounce_context *ctx,
                            const struct now *now)
{
    must(report_is_possible(d->message) && rcpt_count > 0);
    struct message *m = message_new(ctx->budget);
    struct bounce_writer w = {
        .m = m, .d = d, .rcpts = rcpts, .rcpt_count = rcpt_count, .ctx = ctx, .now = now
    };
    queue_id_make(m->id, now->wall_ms, ctx->entropy);
    m->lane = 'n';
    m->flags = MESSAGE_BOUNCE;
    m->accepted_ms = now->wall_ms;
    m->tenant = arena_copy(&m->arena, d->message->tenant);
    m->helo = arena_copy(&m->arena, ctx->hostname);
    m->client = SLICE("local");
    message_add_rcpt(m, d->message->sender, domain_of(d->message->sender));
    message_set_rcpt_dsn(m, DSN_NOTIFY_NEVER, SLICE_NONE); /* P-227 */
    write_content(&w);
    return m;
}
