/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_report - records, counters and the JSON of TLSRPT.
 *
 * A counter's name is "POLICY RESULT [HOST ADDRESS]", such as
 *     sts certificate-expired mx.example.org 192.0.2.1
 * and a policy's text is in the field "policy sts". What is in Redis may have been written by
 * another version: names that are not understood are left out of the report.
 *
 * Limits: RESULTS_MAX kinds of failure in one policy's details; more are counted, not listed.
 */
#include "core/relay/tls_report.h"
#include "core/base/clock.h"
#include "core/base/must.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define DETAILS_MAX 1000
#define DAY_MS      (24 * 60 * 60 * 1000)

static const char *const results[] = {
#define X(name, text) text,
    TLS_OUTCOME_TABLE(X)
#undef X
};

static const char *const policies[TLS_POLICY_COUNT] = {
    [TLS_POLICY_NONE] = "no-policy-found",
    [TLS_POLICY_STS] = "sts",
    [TLS_POLICY_TLSA] = "tlsa",
};

/* --- who wants reports ----------------------------------------------------------------------- */

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = slice_skip(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s = slice_head(s, s.len - 1);
    return s;
}

/* Cuts the text up to `sign` off the front. */
static struct slice cut(struct slice *rest, char sign)
{
    size_t end = slice_find(*rest, sign);
    struct slice part = slice_head(*rest, end);
    *rest = slice_skip(*rest, end < rest->len ? end + 1 : end);
    return trim(part);
}

/* RFC 8460 3: "v=TLSRPTv1" first, then fields; the addresses of the field rua. */
static bool read_record(struct slice text, struct slice *rua)
{
    if (!slice_eq(cut(&text, ';'), SLICE("v=TLSRPTv1")))
        return false;
    while (text.len > 0) {
        struct slice field = cut(&text, ';');
        struct slice name = cut(&field, '=');
        if (slice_eq_nocase(name, SLICE("rua"))) {
            *rua = trim(field);
            return rua->len > 0 && rua->len <= TLS_REPORT_RUA_MAX;
        }
    }
    return false;
}

static bool is_record(struct slice text)
{
    return slice_eq(slice_head(text, sizeof "v=TLSRPTv1" - 1), SLICE("v=TLSRPTv1"));
}

bool tls_report_read_record(const struct slice *texts, size_t count,
                            char rua[TLS_REPORT_RUA_MAX + 1])
{
    struct slice record = SLICE_NONE, list;
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        if (is_record(texts[i])) {
            record = texts[i];
            found++;
        }
    if (found != 1 || !read_record(record, &list))
        return false;
    snprintf(rua, TLS_REPORT_RUA_MAX + 1, "%.*s", SLICE_ARG(list));
    return true;
}

bool tls_report_next_address(struct slice *rua, struct slice *uri)
{
    while (rua->len > 0) {
        *uri = cut(rua, ',');
        if (uri->len > 0)
            return true;
    }
    return false;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 6068 2: what follows '?' is for people's mail programs. */
bool tls_report_mailbox(struct slice uri, struct buf *out)
{
    struct slice scheme = SLICE("mailto:");
    if (!slice_eq_nocase(slice_head(uri, scheme.len), scheme))
        return false;
    uri = slice_skip(uri, scheme.len);
    uri = slice_head(uri, slice_find(uri, '?'));
    buf_clear(out);
    for (size_t i = 0; i < uri.len; i++) {
        char c = uri.ptr[i];
        if (c == '%' && i + 2 < uri.len && hex_value(uri.ptr[i + 1]) >= 0 &&
            hex_value(uri.ptr[i + 2]) >= 0) {
            c = (char)(hex_value(uri.ptr[i + 1]) * 16 + hex_value(uri.ptr[i + 2]));
            i += 2;
        }
        if (buf_append(out, slice_of(&c, 1)) != STATUS_OK)
            return false;
    }
    return out->len > 0;
}

/* --- counters -------------------------------------------------------------------------------- */

size_t tls_count_name(const struct tls_count *c, char out[TLS_REPORT_FIELD_MAX])
{
    int len =
        snprintf(out, TLS_REPORT_FIELD_MAX, "%s %s", policies[c->policy], results[c->outcome]);
    if (c->host.len > 0)
        len = snprintf(out, TLS_REPORT_FIELD_MAX, "%s %s %.*s %.*s", policies[c->policy],
                       results[c->outcome], (int)(c->host.len < 255 ? c->host.len : 255),
                       c->host.ptr, (int)(c->address.len < 64 ? c->address.len : 64),
                       c->address.len ? c->address.ptr : "");
    must(len > 0 && len < TLS_REPORT_FIELD_MAX);
    return (size_t)len;
}

/* The place of a word; `count` when it is none of them. */
static size_t find_word(const char *const *words, size_t count, struct slice word)
{
    size_t i = 0;
    while (i < count && !slice_eq(slice_str(words[i]), word))
        i++;
    return i;
}

bool tls_count_read(struct slice name, struct tls_count *out)
{
    size_t policy = find_word(policies, TLS_POLICY_COUNT, cut(&name, ' '));
    size_t result = find_word(results, TLS_OUTCOME_COUNT, cut(&name, ' '));
    if (policy == TLS_POLICY_COUNT || result == TLS_OUTCOME_COUNT)
        return false;
    out->policy = (enum tls_policy)policy;
    out->outcome = (enum tls_outcome)result;
    out->host = cut(&name, ' ');
    out->address = trim(name);
    return true;
}

const char *tls_policy_field(enum tls_policy policy)
{
    static const char *const fields[TLS_POLICY_COUNT] = {
        [TLS_POLICY_NONE] = "policy none",
        [TLS_POLICY_STS] = "policy sts",
        [TLS_POLICY_TLSA] = "policy tlsa",
    };
    return fields[policy];
}

void tls_policy_text_sts(const struct sts_policy *policy, struct buf *out)
{
    static const char *const modes[] = { "none", "testing", "enforce" };
    buf_clear(out);
    enum status st = buf_printf(out, "version: STSv1\nmode: %s\nmax_age: %" PRIu32,
                                modes[policy->mode], policy->max_age_s);
    for (uint32_t i = 0; i < policy->mx_count && st == STATUS_OK; i++)
        st = buf_printf(out, "\nmx: %s", policy->mx[i]);
}

/* RFC 6698 2.2. */
void tls_policy_text_tlsa(const struct tlsa_set *tlsa, struct buf *out)
{
    enum status st = STATUS_OK;
    buf_clear(out);
    for (size_t i = 0; i < tlsa->count && st == STATUS_OK; i++) {
        const struct tlsa_record *r = &tlsa->records[i];
        size_t len = r->matching == TLSA_SHA512 ? 64 : 32;
        st = buf_printf(out, "%s%u %u %u ", i > 0 ? "\n" : "", r->usage, r->selector, r->matching);
        for (size_t j = 0; j < len && st == STATUS_OK; j++)
            st = buf_printf(out, "%02x", r->digest[j]);
    }
}

/* --- the report ------------------------------------------------------------------------------ */

/* What is known of one policy. */
struct tally {
    json_t *details; /* failure-details */
    struct slice text;
    json_int_t successes, failures;
};

static json_t *text_of(struct slice s)
{
    json_t *value = json_stringn(s.ptr ? s.ptr : "", s.len);
    return value ? value : json_string("?"); /* it is no UTF-8 */
}

static json_int_t number_of(struct slice s)
{
    json_int_t n = 0;
    for (size_t i = 0; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9' && n < INT32_MAX; i++)
        n = n * 10 + (s.ptr[i] - '0');
    return n;
}

static void add_failure(struct tally *t, const struct tls_count *c, json_int_t n)
{
    t->failures += n;
    if (json_array_size(t->details) == DETAILS_MAX)
        return;
    json_t *detail = json_object();
    json_object_set_new(detail, "result-type", json_string(results[c->outcome]));
    if (c->host.len > 0)
        json_object_set_new(detail, "receiving-mx-hostname", text_of(c->host));
    if (c->address.len > 0)
        json_object_set_new(detail, "receiving-ip", text_of(c->address));
    json_object_set_new(detail, "failed-session-count", json_integer(n));
    json_array_append_new(t->details, detail);
}

static void add_field(struct tally tallies[TLS_POLICY_COUNT], const struct tls_report_field *f)
{
    struct tls_count c;
    json_int_t n = number_of(f->value);
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++)
        if (slice_eq(f->name, slice_str(tls_policy_field((enum tls_policy)i))))
            tallies[i].text = f->value;
    if (!tls_count_read(f->name, &c) || n == 0)
        return;
    if (c.outcome == TLS_OUTCOME_SUCCESS)
        tallies[c.policy].successes += n;
    else
        add_failure(&tallies[c.policy], &c, n);
}

/* The patterns of an MTA-STS policy stand twice: in its text, and by themselves. */
static json_t *policy_of(const struct tls_report *r, enum tls_policy kind, struct slice text)
{
    json_t *policy = json_object(), *strings = json_array(), *hosts = json_array();
    while (text.len > 0) {
        struct slice line = cut(&text, '\n'), mx = SLICE("mx: ");
        json_array_append_new(strings, text_of(line));
        if (slice_eq(slice_head(line, mx.len), mx))
            json_array_append_new(hosts, text_of(slice_skip(line, mx.len)));
    }
    json_object_set_new(policy, "policy-type", json_string(policies[kind]));
    json_object_set_new(policy, "policy-domain", text_of(r->domain));
    if (json_array_size(strings) > 0)
        json_object_set(policy, "policy-string", strings);
    if (kind == TLS_POLICY_STS && json_array_size(hosts) > 0)
        json_object_set(policy, "mx-host", hosts);
    json_decref(strings);
    json_decref(hosts);
    return policy;
}

static json_t *policies_of(const struct tls_report *r, struct tally tallies[TLS_POLICY_COUNT])
{
    json_t *list = json_array();
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++) {
        struct tally *t = &tallies[i];
        if (t->successes + t->failures == 0)
            continue;
        json_t *entry = json_object(), *summary = json_object();
        json_object_set_new(summary, "total-successful-session-count", json_integer(t->successes));
        json_object_set_new(summary, "total-failure-session-count", json_integer(t->failures));
        json_object_set_new(entry, "policy", policy_of(r, (enum tls_policy)i, t->text));
        json_object_set_new(entry, "summary", summary);
        if (t->failures > 0)
            json_object_set(entry, "failure-details", t->details);
        json_array_append_new(list, entry);
    }
    return list;
}

/* RFC 3339 in whole seconds. */
static json_t *time_of(int64_t wall_ms)
{
    char text[CLOCK_DATE_MAX];
    size_t len = clock_format_rfc3339(wall_ms, text);
    must(len > 5);
    snprintf(text + len - 5, 2, "Z"); /* instead of ".000Z" */
    return json_string(text);
}

static json_t *range_of(const struct tls_report *r)
{
    json_t *range = json_object();
    json_object_set_new(range, "start-datetime", time_of(r->day_ms));
    json_object_set_new(range, "end-datetime", time_of(r->day_ms + DAY_MS - 1000));
    return range;
}

static int put_json(const char *octets, size_t len, void *ctx)
{
    return buf_append(ctx, slice_of(octets, len)) == STATUS_OK ? 0 : -1;
}

bool tls_report_json(const struct tls_report *r, struct buf *out)
{
    struct tally tallies[TLS_POLICY_COUNT] = { 0 };
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++)
        tallies[i].details = json_array();
    for (size_t i = 0; i < r->field_count; i++)
        add_field(tallies, &r->fields[i]);
    json_t *report = json_object(), *list = policies_of(r, tallies);
    json_object_set_new(report, "organization-name", text_of(r->submitter));
    json_object_set_new(report, "date-range", range_of(r));
    json_object_set_new(report, "contact-info", text_of(r->contact));
    json_object_set_new(report, "report-id", json_string(r->id));
    json_object_set(report, "policies", list);
    bool is_told =
        json_array_size(list) > 0 && json_dump_callback(report, put_json, out, JSON_COMPACT) == 0;
    json_decref(list);
    json_decref(report);
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++)
        json_decref(tallies[i].details);
    return is_told;
}
