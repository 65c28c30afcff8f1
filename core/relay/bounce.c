/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce - the report of failure, as a message.
 *
 *     header            From: Mail Delivery System, To: the sender, Auto-Submitted: auto-replied
 *     text/plain        for a person: who was not reached, and what the remote host said
 *     message/delivery-status   for a program: RFC 3464 fields
 *     message/rfc822 or text/rfc822-headers   what came back: whole when small and safe, else its
 * header section
 *
 * Every word of a peer that goes in is made printable, bounded and free of line ends first: a
 * reply must not be able to write fields of ours (P-230). What is returned is the client's own
 * content, which was accepted line by line, so it cannot hold our boundary's octets by more than
 * chance; the boundary is chosen from entropy and looked for all the same.
 *
 * To add a field of the report: write_status; to word it differently: write_text.
 */
#include "core/relay/bounce.h"
#include "core/base/must.h"
#include "core/smtp/queue_id.h"
#include <stdio.h>

#define DIAGNOSTIC_MAX 400 /* octets of a peer's words in one field */
#define LINE_WORDS_MAX 70  /* octets of them on one line before folding */
#define BOUNDARY_LEN   32

struct writer {
    struct message *m;
    const struct delivery *d;
    const struct bounce_context *ctx;
    const struct now *now;
    char boundary[BOUNDARY_LEN + 1];
};

bool bounce_is_due(const struct message *m)
{
    return m->sender.len > 0 && !(m->flags & MESSAGE_BOUNCE);
}

/* --- writing --------------------------------------------------------------------------------- */

static void put(struct writer *w, struct slice s)
{
    chain_append(&w->m->content, s);
}

static void PRINTF_LIKE(2, 3) putf(struct writer *w, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    must(len >= 0 && (size_t)len < sizeof line);
    put(w, slice_of(line, (size_t)len));
}

/* A peer's or a client's words: printable ASCII, bounded, folded at spaces when there are some. */
static void put_words(struct writer *w, struct slice words, const char *fold)
{
    char line[LINE_WORDS_MAX];
    size_t len = 0;
    words = slice_head(words, DIAGNOSTIC_MAX);
    for (size_t i = 0; i < words.len; i++) {
        unsigned char c = (unsigned char)words.ptr[i];
        line[len++] = c >= 32 && c < 127 ? (char)c : '?';
        bool is_break = len == sizeof line || (len > LINE_WORDS_MAX - 20 && c == ' ');
        if (!is_break)
            continue;
        put(w, slice_of(line, len));
        len = 0;
        if (i + 1 < words.len)
            put(w, slice_str(fold));
    }
    put(w, slice_of(line, len));
}

/* An address goes into a field as it is, but for octets that could end the line. */
static void put_address(struct writer *w, struct slice address)
{
    for (size_t i = 0; i < address.len; i++) {
        unsigned char c = (unsigned char)address.ptr[i];
        char safe = c >= 32 && c != 127 ? (char)c : '?';
        put(w, slice_of(&safe, 1));
    }
}

/* --- the parts ------------------------------------------------------------------------------- */

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
    putf(w,
         "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
         "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n",
         w->boundary);
}

static const char *status_of(const struct rcpt_outcome *o, char out[16])
{
    if (o->code / 100 == 4)
        return "4.4.7"; /* given up: its time was over (P-219) */
    snprintf(out, 16, "%s", o->enhanced[0] == '5' ? o->enhanced : "5.0.0");
    return out;
}

static void write_reason(struct writer *w, const struct rcpt_outcome *o)
{
    if (o->code / 100 == 4)
        put(w, SLICE("    was tried until its time was over; the last answer was:\r\n"));
    put(w, SLICE("    "));
    putf(w, "%d %s%s", o->code, o->enhanced, o->enhanced[0] ? " " : "");
    put_words(w, o->text, "\r\n    ");
    put(w, SLICE("\r\n\r\n"));
}

static void write_text(struct writer *w, const uint32_t *failed, uint32_t failed_count)
{
    putf(w, "\r\n--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", w->boundary);
    putf(w,
         "This is the mail gateway at %.*s.\r\n\r\n"
         "Your message could not be delivered to the recipients below. It will not be\r\n"
         "tried again. Its queue id was %s.\r\n\r\n",
         SLICE_ARG(w->ctx->hostname), w->d->message->id);
    for (uint32_t i = 0; i < failed_count; i++) {
        put(w, SLICE("<"));
        put_address(w, w->d->message->rcpts[w->d->rcpts[failed[i]]].address);
        put(w, SLICE(">\r\n"));
        write_reason(w, &w->d->outcomes[failed[i]]);
    }
}

static void write_rcpt_status(struct writer *w, const struct rcpt_outcome *o, struct slice address)
{
    char status[16];
    put(w, SLICE("\r\nFinal-Recipient: rfc822; "));
    put_address(w, address);
    putf(w, "\r\nAction: failed\r\nStatus: %s\r\n", status_of(o, status));
    if (w->ctx->remote_mta.len > 0 && o->stage != OUTCOME_LOCAL) {
        put(w, SLICE("Remote-MTA: dns; "));
        put_words(w, w->ctx->remote_mta, "");
        put(w, SLICE("\r\n"));
    }
    /* Only words of a peer are an SMTP diagnostic; ours are a local reason. */
    bool is_theirs = o->stage >= OUTCOME_GREETING && o->stage <= OUTCOME_DOT;
    putf(w, "Diagnostic-Code: %s; %d %s%s", is_theirs ? "smtp" : "x-kilat", o->code, o->enhanced,
         o->enhanced[0] ? " " : "");
    put_words(w, o->text, "\r\n\t");
    put(w, SLICE("\r\n"));
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

/* The header section with its last line end, or all when it has no end within what we have. */
static struct slice header_of(struct slice original)
{
    const char *end = original.len ? memmem(original.ptr, original.len, "\r\n\r\n", 4) : NULL;
    if (end)
        return slice_head(original, (size_t)(end - original.ptr) + 2);
    /* Cut within: up to the last whole line. */
    const char *last = original.len ? memrchr(original.ptr, '\n', original.len) : NULL;
    return slice_head(original, last ? (size_t)(last - original.ptr) + 1 : 0);
}

static bool has_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return true;
    return false;
}

static void write_original(struct writer *w)
{
    struct slice original = w->ctx->original;
    bool is_whole = original.len <= BOUNCE_RETURNED_MAX && original.len == w->d->message->size;
    struct slice returned = is_whole ? original : header_of(original);
    bool is_8bit = has_8bit(returned);
    putf(w, "\r\n--%s\r\nContent-Type: %s\r\n%s\r\n", w->boundary,
         is_whole ? "message/rfc822" : "text/rfc822-headers",
         is_8bit ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    put(w, returned);
    putf(w, "\r\n--%s--\r\n", w->boundary);
    if (is_8bit)
        w->m->flags |= MESSAGE_8BIT;
    if (returned.len > 0 && memmem(returned.ptr, returned.len, "\n.", 2))
        w->m->flags |= MESSAGE_DOT_LINES;
    if (returned.len > 0 && returned.ptr[0] == '.')
        w->m->flags |= MESSAGE_DOT_LINES;
}

/* --- making ---------------------------------------------------------------------------------- */

static void choose_boundary(struct writer *w)
{
    struct slice o = w->ctx->original;
    do {
        snprintf(w->boundary, sizeof w->boundary, "=_%014llx%014llx",
                 (unsigned long long)(entropy_u64(w->ctx->entropy) >> 8),
                 (unsigned long long)(entropy_u64(w->ctx->entropy) >> 8));
    } while (o.len > 0 && memmem(o.ptr, o.len, w->boundary, strlen(w->boundary)));
}

/* The domain of a mailbox; the last '@' divides it, also when the local part is quoted. */
static struct slice domain_of(struct slice mailbox)
{
    const char *at = mailbox.len ? memrchr(mailbox.ptr, '@', mailbox.len) : NULL;
    return at ? slice_skip(mailbox, (size_t)(at - mailbox.ptr) + 1)
              : slice_skip(mailbox, mailbox.len);
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
    choose_boundary(&w);
    write_header(&w);
    write_text(&w, failed, failed_count);
    write_status(&w, failed, failed_count);
    write_original(&w);
    m->size = m->content.len;
    return m;
}
