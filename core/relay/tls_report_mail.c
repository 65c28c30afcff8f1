/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_report_mail - a TLS report as a mail (RFC 8460 5.3): a line for people, and the compressed
 * JSON in base64.
 *
 * It must arrive although TLS is what is broken: it says "TLS-Required: No" in its header and in
 * its record (RFC 8460 3, RFC 8689 5). What DKIM signs of it is taken here.
 */
#include "core/base/clock.h"
#include "core/base/must.h"
#include "core/relay/tls_report.h"
#include "core/smtp/dkim.h"
#include "core/smtp/queue_id.h"
#include "core/smtp/sasl.h"
#include <inttypes.h>
#include <stdio.h>

#define MAIL_MAX    (16 * 1024 * 1024) /* octets; the JSON is bounded far below */
#define BASE64_LINE 76
#define DAY_MS      (24 * 60 * 60 * 1000)

static void put(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);

static void put(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    enum status st = buf_vprintf(b, format, args);
    va_end(args);
    must(st == STATUS_OK);
}

static void put_header(struct buf *b, const struct tls_report *r, struct slice to,
                       const char *boundary, int64_t now_ms)
{
    char date[CLOCK_DATE_MAX];
    size_t len = clock_format_rfc5322(now_ms, date);
    put(b, "Received: by %.*s (Kilat) id %s;\r\n\t%.*s\r\n", SLICE_ARG(r->submitter), r->id,
        (int)len, date);
    put(b, "Date: %.*s\r\nFrom: <%.*s>\r\nTo: <%.*s>\r\n", (int)len, date, SLICE_ARG(r->contact),
        SLICE_ARG(to));
    put(b, "Subject: Report Domain: %.*s\r\n Submitter: %.*s\r\n Report-ID: <%s@%.*s>\r\n",
        SLICE_ARG(r->domain), SLICE_ARG(r->submitter), r->id, SLICE_ARG(r->submitter));
    put(b, "Message-ID: <%s@%.*s>\r\nAuto-Submitted: auto-generated\r\n", r->id,
        SLICE_ARG(r->submitter));
    put(b, "TLS-Report-Domain: %.*s\r\nTLS-Report-Submitter: %.*s\r\nTLS-Required: No\r\n",
        SLICE_ARG(r->domain), SLICE_ARG(r->submitter));
    put(b,
        "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=\"tlsrpt\";\r\n"
        "\tboundary=\"%s\"\r\n",
        boundary);
}

static void put_base64(struct buf *b, struct slice octets)
{
    struct buf text;
    buf_init(&text, MAIL_MAX);
    enum status st = base64_encode(octets, &text);
    must(st == STATUS_OK);
    for (struct slice rest = buf_slice(&text); rest.len > 0;
         rest = slice_skip(rest, slice_head(rest, BASE64_LINE).len))
        put(b, "%.*s\r\n", SLICE_ARG(slice_head(rest, BASE64_LINE)));
    buf_done(&text);
}

static void put_body(struct buf *b, const struct tls_report *r, struct slice gzip,
                     const char *boundary)
{
    char day[CLOCK_DATE_MAX];
    clock_format_rfc3339(r->day_ms, day);
    put(b,
        "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        "This is a report on the TLS sessions of %.*s with the mail\r\nhosts of %.*s on %.10s "
        "(RFC 8460).\r\n\r\n",
        boundary, SLICE_ARG(r->submitter), SLICE_ARG(r->domain), day);
    put(b,
        "--%s\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n"
        "Content-Disposition: attachment;\r\n\tfilename=\"%.*s!%.*s!%" PRId64 "!%" PRId64
        ".json.gz\"\r\n\r\n",
        boundary, SLICE_ARG(r->submitter), SLICE_ARG(r->domain), r->day_ms / 1000,
        (r->day_ms + DAY_MS) / 1000 - 1);
    put_base64(b, gzip);
    put(b, "\r\n--%s--\r\n", boundary);
}

static void fill_envelope(struct message *m, const struct tls_report *r, struct slice to)
{
    const char *at = memrchr(to.ptr, '@', to.len);
    m->lane = lane_letter(LANE_BULK);
    m->flags = MESSAGE_TLS_OPTIONAL;
    m->sender = arena_copy(&m->arena, r->contact);
    m->helo = arena_copy(&m->arena, r->submitter);
    m->client = SLICE("local");
    message_add_rcpt(m, to, slice_skip(to, at ? (size_t)(at - to.ptr) + 1 : to.len));
    message_set_rcpt_dsn(m, DSN_NOTIFY_NEVER, SLICE_NONE);
}

struct message *tls_report_mail(const struct tls_report *r, struct slice gzip, struct slice to,
                                struct entropy *entropy, struct chain_budget *budget,
                                const struct now *now)
{
    struct message *m = message_new(budget);
    struct buf header, body;
    char boundary[40];
    snprintf(m->id, sizeof m->id, "%s", r->id);
    m->accepted_ms = now->wall_ms;
    snprintf(boundary, sizeof boundary, "=_%016" PRIx64, entropy_u64(entropy));
    buf_init(&header, MAIL_MAX);
    buf_init(&body, MAIL_MAX);
    fill_envelope(m, r, to);
    put_header(&header, r, to, boundary, now->wall_ms);
    put_body(&body, r, gzip, boundary);
    m->dkim = dkim_digest_new(buf_slice(&header));
    dkim_digest_update(m->dkim, buf_slice(&body));
    dkim_digest_end(m->dkim);
    chain_append(&m->content, buf_slice(&header));
    chain_append(&m->content, SLICE("\r\n"));
    chain_append(&m->content, buf_slice(&body));
    m->size = m->content.len;
    buf_done(&header);
    buf_done(&body);
    return m;
}
