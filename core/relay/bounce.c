/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce - the report of failure, as a message.
 *
 *     header                    From: Mail Delivery System, To: the sender, Auto-Submitted
 *     text/plain                for a person: who was not reached, why, and what to do
 *     message/delivery-status   for a program: the fields of RFC 3464
 *     message/rfc822            what came back, when it is small, complete and clean; else
 *     text/rfc822-headers       its header section, as far as it is in memory
 *
 * Every word of a peer or a client that goes in is made printable, bounded and free of line ends
 * first: a reply must not be able to write fields of ours (P-230). All of it is ASCII in lines of
 * at most 998 octets, but for octets above 127 in what is returned, which are declared. There is no
 * Original-Recipient field: it repeats what an ORCPT parameter said (RFC 3464 2.3.1), and none is
 * offered.
 *
 * The boundary comes from entropy and is looked for in what is returned; peers' words were there
 * before it was chosen.
 *
 * Limits: BOUNCE_RETURNED_MAX octets of the original, WORDS_MAX octets of a peer's words in a
 * field. To add a field of the report: write_rcpt_status; to word it differently: write_text.
 */
#include "core/relay/bounce.h"
#include "core/base/must.h"
#include "core/smtp/dot.h"
#include "core/smtp/queue_id.h"
#include <stdio.h>

#define WORDS_MAX    500 /* octets of a peer's words in one field, P-230 */
#define FOLD_AT      60  /* octets of them on a line from which a space may end it */
#define FOLD_MAX     76  /* octets of them on a line at most */
#define ADDRESS_MAX  900 /* octets of an address that fit a line with all that stands around it */
#define BOUNDARY_MAX 40

struct writer {
    struct message *m;
    const struct delivery *d;
    const struct bounce_context *ctx;
    const struct now *now;
    struct slice returned; /* of the original, or its header section */
    bool is_whole;         /* True when returned is all of it and clean */
    bool is_8bit;          /* True when returned has octets above 127 */
    char boundary[BOUNDARY_MAX];
};

/* P-227: never to nobody, never about a bounce. */
bool bounce_is_due(const struct message *m)
{
    return m->sender.len > 0 && !(m->flags & MESSAGE_BOUNCE);
}

/* --- writing --------------------------------------------------------------------------------- */

static void put(struct writer *w, struct slice s)
{
    chain_append(&w->m->content, s);
}

/* For what is ours and short. */
static void PRINTF_LIKE(2, 3) putf(struct writer *w, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    must(len >= 0 && (size_t)len < sizeof line);
    put(w, slice_of(line, (size_t)len));
}

/* A word character of a peer's or client's: what is not printable ASCII becomes a question mark. */
static char printable(char c)
{
    return c >= ' ' && c <= '~' ? c : '?';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/*
 * A peer's words on lines of their own making, not its: blanks and line ends become one space, and
 * `fold` goes in at a space where a line is long enough, or anywhere when there is none. No line is
 * left blank, so nothing ends the field (RFC 5322 2.2.3).
 */
static void put_words(struct writer *w, struct slice words, const char *fold)
{
    char line[FOLD_MAX];
    size_t len = 0;
    bool is_after_blank = false, has_begun = false;
    words = slice_head(words, WORDS_MAX);
    for (size_t i = 0; i < words.len; i++) {
        if (is_blank(words.ptr[i])) {
            is_after_blank = has_begun;
            continue;
        }
        if (len == sizeof line || (is_after_blank && len >= FOLD_AT)) {
            put(w, slice_of(line, len));
            put(w, slice_str(fold));
            len = 0;
        } else if (is_after_blank) {
            line[len++] = ' ';
        }
        is_after_blank = false;
        has_begun = true;
        line[len++] = printable(words.ptr[i]);
    }
    put(w, slice_of(line, len));
}

/* An address was checked when it came in; one that was read back from Redis is made harmless. */
static void put_address(struct writer *w, struct slice address)
{
    address = slice_head(address, ADDRESS_MAX);
    for (size_t i = 0; i < address.len; i++) {
        char c = printable(address.ptr[i]);
        put(w, slice_of(&c, 1));
    }
}

/* --- the header ------------------------------------------------------------------------------ */

static void write_header(struct writer *w)
{
    char date[CLOCK_DATE_MAX];
    struct slice host = w->ctx->hostname;
    struct slice stamp = slice_of(date, clock_format_rfc5322(w->now->wall_ms, date));
    putf(w, "Received: by %.*s (Kilat) id %s;\r\n\t%.*s\r\n", SLICE_ARG(host), w->m->id,
         SLICE_ARG(stamp));
    putf(w, "Date: %.*s\r\nFrom: Mail Delivery System <MAILER-DAEMON@%.*s>\r\nTo: <",
         SLICE_ARG(stamp), SLICE_ARG(host));
    put_address(w, w->d->message->sender);
    putf(w, ">\r\nSubject: Undelivered mail returned to sender\r\nMessage-ID: <%s@%.*s>\r\n",
         w->m->id, SLICE_ARG(host));
    /* P-235, RFC 3834 5. The encoding of a part must hold for the whole too (RFC 2045 6.4). */
    putf(w,
         "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n%s"
         "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n",
         w->is_8bit ? "Content-Transfer-Encoding: 8bit\r\n" : "", w->boundary);
}

/* --- the text -------------------------------------------------------------------------------- */

/* retry.h: what is not a permanent reply has expired. */
static bool has_expired(const struct rcpt_outcome *o)
{
    return o->code / 100 != 5;
}

static void write_reason(struct writer *w, const struct rcpt_outcome *o)
{
    if (has_expired(o))
        put(w, SLICE("    could not be delivered in time; the last thing that happened was:\r\n"));
    put(w, SLICE("    "));
    if (o->code > 0)
        putf(w, "%d ", o->code);
    put_words(w, slice_str(o->enhanced), "");
    put(w, o->enhanced[0] ? SLICE(" ") : SLICE(""));
    put_words(w, o->text, "\r\n    ");
    put(w, SLICE("\r\n\r\n"));
}

static void write_text(struct writer *w, const uint32_t *failed, uint32_t failed_count)
{
    putf(w,
         "\r\n--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
         "This is the mail gateway at %.*s.\r\n\r\n"
         "Your message could not be delivered to the recipients below, and no further\r\n"
         "attempt will be made. Below each address is the reason, in the words of the\r\n"
         "mail server that gave it.\r\n\r\n",
         w->boundary, SLICE_ARG(w->ctx->hostname));
    for (uint32_t i = 0; i < failed_count; i++) {
        put(w, SLICE("<"));
        put_address(w, w->d->message->rcpts[w->d->rcpts[failed[i]]].address);
        put(w, SLICE(">\r\n"));
        write_reason(w, &w->d->outcomes[failed[i]]);
    }
    putf(w,
         "What you can do: check the addresses for mistakes and send the message again.\r\n"
         "If they are right, give this report to the people who run your mail, or reach\r\n"
         "the recipients another way. The queue id of the message was %s.\r\n\r\n",
         w->d->message->id);
}

/* --- the status ------------------------------------------------------------------------------ */

/* One to three digits from *s on, which moves behind them. */
static bool skip_number(const char **s)
{
    size_t digits = strspn(*s, "0123456789");
    *s += digits;
    return digits >= 1 && digits <= 3;
}

/* "5.d.d", RFC 3463 2. */
static bool is_permanent_status(const char *s)
{
    if (s[0] != '5' || s[1] != '.')
        return false;
    s += 2;
    return skip_number(&s) && *s++ == '.' && skip_number(&s) && *s == '\0';
}

static const char *status_of(const struct rcpt_outcome *o)
{
    if (has_expired(o))
        return "4.4.7"; /* P-219 */
    return is_permanent_status(o->enhanced) ? o->enhanced : "5.0.0";
}

/* Only the words of a peer are an SMTP diagnostic, and only they have a remote host. */
static bool is_of_peer(const struct rcpt_outcome *o)
{
    return o->stage >= OUTCOME_GREETING && o->stage <= OUTCOME_DOT;
}

static void write_diagnostic(struct writer *w, const struct rcpt_outcome *o)
{
    putf(w, "Diagnostic-Code: %s; ", is_of_peer(o) ? "smtp" : "x-kilat");
    if (o->code > 0)
        putf(w, "%d ", o->code);
    put_words(w, slice_str(o->enhanced), "");
    put(w, o->enhanced[0] ? SLICE(" ") : SLICE(""));
    put_words(w, o->text, "\r\n\t");
    put(w, SLICE("\r\n"));
}

/* RFC 3464 2.3. */
static void write_rcpt_status(struct writer *w, const struct rcpt_outcome *o, struct slice address)
{
    put(w, SLICE("\r\nFinal-Recipient: rfc822; "));
    put_address(w, address);
    putf(w, "\r\nAction: failed\r\nStatus: %s\r\n", status_of(o));
    if (w->ctx->remote_mta.len > 0 && o->stage != OUTCOME_LOCAL && o->stage != OUTCOME_DNS) {
        put(w, SLICE("Remote-MTA: dns; "));
        put_words(w, w->ctx->remote_mta, "");
        put(w, SLICE("\r\n"));
    }
    write_diagnostic(w, o);
}

static void write_status(struct writer *w, const uint32_t *failed, uint32_t failed_count)
{
    char date[CLOCK_DATE_MAX];
    struct slice arrival = slice_of(date, clock_format_rfc5322(w->d->message->accepted_ms, date));
    putf(w, "--%s\r\nContent-Type: message/delivery-status\r\n\r\n", w->boundary);
    putf(w, "Reporting-MTA: dns; %.*s\r\nArrival-Date: %.*s\r\n", SLICE_ARG(w->ctx->hostname),
         SLICE_ARG(arrival));
    for (uint32_t i = 0; i < failed_count; i++)
        write_rcpt_status(w, &w->d->outcomes[failed[i]],
                          w->d->message->rcpts[w->d->rcpts[failed[i]]].address);
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

static bool has_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return true;
    return false;
}

/* P-228, P-236: all of a small message, else nothing but its header section. */
static void choose_returned(struct writer *w)
{
    struct slice original = w->ctx->original;
    w->is_whole = original.len == w->d->message->size && original.len <= BOUNCE_RETURNED_MAX &&
                  is_clean(original);
    w->returned = w->is_whole ? original : header_of(slice_head(original, BOUNCE_RETURNED_MAX));
    w->is_8bit = has_8bit(w->returned);
}

static bool holds(struct slice s, struct slice what)
{
    return s.len > 0 && memmem(s.ptr, s.len, what.ptr, what.len) != NULL;
}

static void choose_boundary(struct writer *w)
{
    do {
        snprintf(w->boundary, sizeof w->boundary, "=_%016llx%016llx",
                 (unsigned long long)entropy_u64(w->ctx->entropy),
                 (unsigned long long)entropy_u64(w->ctx->entropy));
    } while (holds(w->returned, slice_str(w->boundary)));
}

static void write_returned(struct writer *w)
{
    putf(w, "\r\n--%s\r\nContent-Type: %s\r\n%s\r\n", w->boundary,
         w->is_whole ? "message/rfc822" : "text/rfc822-headers",
         w->is_8bit ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    put(w, w->returned);
    putf(w, "\r\n--%s--\r\n", w->boundary);
}

/* --- making ---------------------------------------------------------------------------------- */

/* The domain of a mailbox; the last '@' divides it, also when the local part is quoted. */
static struct slice domain_of(struct slice mailbox)
{
    const char *at = memrchr(mailbox.ptr, '@', mailbox.len);
    return slice_skip(mailbox, at ? (size_t)(at - mailbox.ptr) + 1 : mailbox.len);
}

static void write_content(struct writer *w, const uint32_t *failed, uint32_t failed_count)
{
    choose_returned(w);
    choose_boundary(w);
    write_header(w);
    write_text(w, failed, failed_count);
    write_status(w, failed, failed_count);
    write_returned(w);
    w->m->size = w->m->content.len;
    if (w->is_8bit)
        w->m->flags |= MESSAGE_8BIT;
    /* No line of ours begins with a dot: folded words have a blank before them. */
    if (holds(w->returned, SLICE("\n.")) || holds(slice_head(w->returned, 1), SLICE(".")))
        w->m->flags |= MESSAGE_DOT_LINES;
}

struct message *bounce_make(const struct delivery *d, const uint32_t *failed, uint32_t failed_count,
                            const struct bounce_context *ctx, const struct now *now)
{
    must(bounce_is_due(d->message) && failed_count > 0);
    struct message *m = message_new(ctx->budget);
    struct writer w = { .m = m, .d = d, .ctx = ctx, .now = now };
    queue_id_make(m->id, now->wall_ms, ctx->entropy);
    m->lane = 'n';
    m->flags = MESSAGE_BOUNCE;
    m->accepted_ms = now->wall_ms;
    m->tenant = arena_copy(&m->arena, d->message->tenant);
    m->helo = arena_copy(&m->arena, ctx->hostname);
    m->client = SLICE("local");
    message_add_rcpt(m, d->message->sender, domain_of(d->message->sender));
    write_content(&w, failed, failed_count);
    return m;
}
