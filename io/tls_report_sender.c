/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_report_sender - the reports of yesterday, one after the other.
 *
 *     SPOP of the day's set -> a domain -> HGETALL of its counters -> JSON, gzip -> a mail for each
 *     mailto: address -> signed -> queued -> the next domain
 *
 * Taking a domain out of the set is what makes one node of the cluster the one that reports to it.
 * A node that dies in between has told nothing, and nobody else will: a report is lost rather than
 * sent twice. Reports begin at a random time of the first relay.tls_report_delay after midnight
 * (RFC 8460 4.1).
 *
 * Addresses of another kind than mailto: are left out; the log says so.
 */
#include "core/base/must.h"
#include "core/smtp/address.h"
#include "core/smtp/queue_id.h"
#include "io/auth_call.h"
#include "io/drive_queue.h"
#include "io/signer.h"
#include "io/tls_reports_private.h"
#include "io/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define FIRST_MS      (1000)      /* after the start */
#define CHECK_MS      (10 * 1000) /* between looks into the set */
#define JSON_MAX      (4 * 1024 * 1024)
#define ADDRESSES_MAX 5   /* of one domain that are told */
#define ADDRESS_MAX   320 /* octets of one */

struct tls_report_sender {
    struct worker *w;
    struct wheel_timer timer;
    int64_t delay_ms; /* after midnight */
    struct auth_call *call;
    struct sign_work *signing;
    /* The domain that is being told. */
    char domain[256];
    int64_t day_ms;
    char rua[TLS_REPORT_RUA_MAX + 1];
    struct slice rest; /* of rua */
    uint32_t told;     /* addresses */
    struct buf gzip;
};

static void next_domain(struct tls_report_sender *s);
static void next_mail(struct tls_report_sender *s);

static void log_report(struct tls_report_sender *s, struct slice to, const char *error)
{
    struct log *log = &s->w->log;
    log_begin(log, error ? LOG_WARN : LOG_INFO, error ? "tlsrpt.failed" : "tlsrpt.sent");
    log_cstr(log, "domain", s->domain);
    log_str(log, "to", to);
    if (error)
        log_cstr(log, "error", error);
    log_end(log);
}

/* --- one mail -------------------------------------------------------------------------------- */

static void submit(struct tls_report_sender *s, struct message *m)
{
    log_report(s, m->rcpts[0].address, NULL);
    metrics_add(&s->w->metrics, METRIC_TLS_REPORTS_TOTAL, 1);
    queue_submit(s->w->queue, m, COMMIT_ANY_SHARD, NULL, NULL);
}

static void refuse(struct tls_report_sender *s, struct message *m)
{
    log_report(s, m->rcpts[0].address, "it could not be signed");
    message_unref(m);
}

static void on_signed(void *owner, struct message *m, bool is_signed)
{
    struct tls_report_sender *s = owner;
    s->signing = NULL;
    if (is_signed)
        submit(s, m);
    else
        refuse(s, m);
    next_mail(s);
}

/* Receivers want a signature (RFC 8460 3); without any key at all it goes as it is. */
static void sign(struct tls_report_sender *s, struct message *m)
{
    enum sign_start start =
        s->w->signer ? signer_begin(s->w->signer, m, on_signed, s, &s->signing) : SIGN_NOTHING;
    if (start == SIGN_BEGUN)
        return;
    if (start == SIGN_NOTHING)
        submit(s, m);
    else
        refuse(s, m);
    next_mail(s);
}

static struct tls_report report_of(const struct tls_report_sender *s, const char *id)
{
    return (struct tls_report){ .domain = slice_str(s->domain),
                                .submitter = slice_str(s->w->cfg->hostname),
                                .contact = slice_str(s->w->cfg->relay.tls_report_from),
                                .id = id,
                                .day_ms = s->day_ms };
}

static struct message *make_mail(struct tls_report_sender *s, struct slice to)
{
    char id[QUEUE_ID_LEN + 1];
    struct worker *w = s->w;
    queue_id_make(id, w->now.wall_ms, &w->entropy);
    struct tls_report report = report_of(s, id);
    return tls_report_mail(&report, buf_slice(&s->gzip), to, &w->entropy, &w->budget, &w->now);
}

static void next_mail(struct tls_report_sender *s)
{
    struct slice uri;
    struct buf mailbox;
    struct address parsed;
    if (s->told++ == ADDRESSES_MAX || !tls_report_next_address(&s->rest, &uri)) {
        next_domain(s);
        return;
    }
    buf_init(&mailbox, ADDRESS_MAX);
    bool is_mailbox = tls_report_mailbox(uri, &mailbox) &&
                      address_parse_mailbox(buf_slice(&mailbox), &parsed) == ADDRESS_OK;
    struct message *m = is_mailbox ? make_mail(s, buf_slice(&mailbox)) : NULL;
    if (!m)
        log_report(s, uri, "reports go to mailto: addresses only");
    buf_done(&mailbox);
    if (m)
        sign(s, m);
    else
        next_mail(s);
}

/* --- one domain ------------------------------------------------------------------------------ */

/* Replaces what out holds; false: it does not fit. */
static bool compress_into(struct slice octets, struct buf *out)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)octets.ptr, .avail_in = (uInt)octets.len };
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    uint32_t room = (uint32_t)deflateBound(&z, (uLong)octets.len);
    buf_clear(out);
    z.next_out = (Bytef *)buf_reserve(out, room);
    z.avail_out = room;
    bool is_done = z.next_out && deflate(&z, Z_FINISH) == Z_STREAM_END;
    out->len += is_done ? (uint32_t)z.total_out : 0;
    deflateEnd(&z);
    return is_done;
}

/* Pairs of names and values, as HGETALL gives them. Returns how many. */
static size_t read_fields(struct tls_report_sender *s, const redisReply *reply,
                          struct tls_report_field *fields)
{
    size_t count = 0;
    s->rua[0] = '\0';
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        const redisReply *name = reply->element[i], *value = reply->element[i + 1];
        struct tls_report_field f = { slice_of(name->str, name->len),
                                      slice_of(value->str, value->len) };
        if (slice_eq(f.name, SLICE("rua")))
            snprintf(s->rua, sizeof s->rua, "%.*s", SLICE_ARG(f.value));
        else
            fields[count++] = f;
    }
    return count;
}

static bool make_report(struct tls_report_sender *s, const redisReply *reply)
{
    struct tls_report_field *fields = mem_alloc((reply->elements / 2 + 1) * sizeof *fields);
    char id[QUEUE_ID_LEN + 1];
    struct buf json;
    queue_id_make(id, s->w->now.wall_ms, &s->w->entropy);
    struct tls_report report = report_of(s, id);
    report.fields = fields;
    report.field_count = read_fields(s, reply, fields);
    buf_init(&json, JSON_MAX);
    bool is_made = tls_report_json(&report, &json) && compress_into(buf_slice(&json), &s->gzip);
    buf_done(&json);
    free(fields);
    return is_made;
}

static void on_counts(void *owner, const redisReply *reply)
{
    struct tls_report_sender *s = owner;
    s->call = NULL;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || !make_report(s, reply)) {
        log_report(s, SLICE_NONE, "its counters could not be read");
        next_domain(s);
        return;
    }
    s->rest = slice_str(s->rua);
    s->told = 0;
    next_mail(s);
}

static void on_domain(void *owner, const redisReply *reply)
{
    struct tls_report_sender *s = owner;
    char key[TLS_REPORTS_KEY_MAX];
    s->call = NULL;
    if (!reply || reply->type != REDIS_REPLY_STRING || reply->len >= sizeof s->domain) {
        wheel_set(&s->w->wheel, &s->timer, s->w->now.mono_ms + CHECK_MS);
        return;
    }
    snprintf(s->domain, sizeof s->domain, "%s", reply->str);
    const struct slice argv[] = { SLICE("HGETALL"), tls_reports_key(key, s->day_ms, s->domain) };
    s->call = auth_call_new(s->w, argv, ARRAY_LEN(argv), on_counts, s);
    if (!s->call)
        on_counts(s, NULL);
}

static void next_domain(struct tls_report_sender *s)
{
    char key[TLS_REPORTS_KEY_MAX];
    const struct slice argv[] = { SLICE("SPOP"), tls_reports_key(key, s->day_ms, NULL) };
    s->call = auth_call_new(s->w, argv, ARRAY_LEN(argv), on_domain, s);
    if (!s->call)
        on_domain(s, NULL);
}

static void on_timer(struct wheel_timer *timer)
{
    struct tls_report_sender *s = container_of(timer, struct tls_report_sender, timer);
    int64_t since_ms = s->w->now.wall_ms % TLS_REPORTS_DAY_MS; /* midnight */
    s->day_ms = s->w->now.wall_ms - since_ms - TLS_REPORTS_DAY_MS;
    if (since_ms >= s->delay_ms && !s->w->is_draining)
        next_domain(s);
    else
        wheel_set(&s->w->wheel, &s->timer, s->w->now.mono_ms + CHECK_MS);
}

/* --- start and end --------------------------------------------------------------------------- */

struct tls_report_sender *tls_report_sender_new(struct worker *w)
{
    struct tls_report_sender *s = mem_zalloc(sizeof *s);
    s->w = w;
    s->delay_ms = (int64_t)entropy_below(&w->entropy, w->cfg->relay.tls_report_delay_ms + 1);
    buf_init(&s->gzip, JSON_MAX);
    wheel_timer_init(&s->timer, on_timer);
    wheel_set(&w->wheel, &s->timer, w->now.mono_ms + FIRST_MS);
    return s;
}

void tls_report_sender_abandon(struct tls_report_sender *s)
{
    if (!s)
        return;
    wheel_clear(&s->w->wheel, &s->timer);
    auth_call_forget(s->call);
    s->call = NULL;
    if (s->signing)
        signer_forget(s->signing);
    s->signing = NULL;
}

void tls_report_sender_free(struct tls_report_sender *s)
{
    if (!s)
        return;
    buf_done(&s->gzip);
    free(s);
}
