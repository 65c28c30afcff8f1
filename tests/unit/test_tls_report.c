/* SPDX-License-Identifier: Apache-2.0 */
/* TLSRPT (RFC 8460, P-205): records, counters as Redis has them, the report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/tls_report.h"
#include <jansson.h>

static void records(void **state)
{
    static const struct {
        const char *texts[2];
        const char *rua; /* NULL: none */
    } rows[] = {
        { { "v=TLSRPTv1; rua=mailto:a@b.example" }, "mailto:a@b.example" },
        { { "v=TLSRPTv1;rua=mailto:a@b,https://c.example/x" }, "mailto:a@b,https://c.example/x" },
        { { "v=TLSRPTv1 ; x=y ; RUA = mailto:a@b ;" }, "mailto:a@b" },
        { { "v=spf1 -all", "v=TLSRPTv1;rua=mailto:a@b" }, "mailto:a@b" },
        { { "v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:c@d" }, NULL },
        { { "v=TLSRPTv1" }, NULL },
        { { "v=TLSRPTv1;rua=" }, NULL },
        { { "v=TLSRPTv12;rua=mailto:a@b" }, NULL },
        { { "rua=mailto:a@b;v=TLSRPTv1" }, NULL },
        { { "" }, NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char rua[TLS_REPORT_RUA_MAX + 1];
        size_t count = rows[i].texts[1] ? 2 : 1;
        struct slice texts[] = { slice_str(rows[i].texts[0]),
                                 slice_str(rows[i].texts[1] ? rows[i].texts[1] : "") };
        assert_int_equal(tls_report_read_record(texts, count, rua), rows[i].rua != NULL);
        if (rows[i].rua)
            assert_string_equal(rua, rows[i].rua);
    }
}

static void a_list_that_is_too_long_is_none(void **state)
{
    char text[TLS_REPORT_RUA_MAX + 100], rua[TLS_REPORT_RUA_MAX + 1];
    memset(text, 'x', sizeof text);
    memcpy(text, "v=TLSRPTv1;rua=", 15);
    struct slice whole = slice_of(text, sizeof text);
    assert_false(tls_report_read_record(&whole, 1, rua));
}

static void addresses(void **state)
{
    struct slice rua = SLICE(" mailto:a@b.example , ,https://c.example/x,MAILTO:d%2Be@f?subject=x");
    static const char *const uris[] = { "mailto:a@b.example", "https://c.example/x",
                                        "MAILTO:d%2Be@f?subject=x" };
    static const char *const mailboxes[] = { "a@b.example", NULL, "d+e@f" };
    struct buf mailbox;
    struct slice uri;
    buf_init(&mailbox, 20);
    for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
        assert_true(tls_report_next_address(&rua, &uri));
        assert_true(slice_eq(uri, slice_str(uris[i])));
        assert_int_equal(tls_report_mailbox(uri, &mailbox), mailboxes[i] != NULL);
        if (mailboxes[i])
            assert_true(slice_eq(buf_slice(&mailbox), slice_str(mailboxes[i])));
    }
    assert_false(tls_report_next_address(&rua, &uri));
    assert_false(tls_report_mailbox(SLICE("mailto:"), &mailbox));
    assert_false(tls_report_mailbox(SLICE("mailto:longer@than-twenty.example"), &mailbox));
    assert_true(tls_report_mailbox(SLICE("mailto:a%4"), &mailbox)); /* as it is */
    buf_done(&mailbox);
}

static void counters_are_read_as_they_were_written(void **state)
{
    for (int outcome = 0; outcome < TLS_OUTCOME_COUNT; outcome++)
        for (int policy = 0; policy < TLS_POLICY_COUNT; policy++) {
            char name[TLS_REPORT_FIELD_MAX];
            struct tls_count read,
                count = { .policy = (enum tls_policy)policy, .outcome = (enum tls_outcome)outcome };
            if (outcome != TLS_OUTCOME_SUCCESS) {
                count.host = SLICE("mx.example.org");
                count.address = SLICE("2001:db8::1");
            }
            size_t len = tls_count_name(&count, name);
            assert_true(tls_count_read(slice_of(name, len), &read));
            assert_int_equal(read.policy, policy);
            assert_int_equal(read.outcome, outcome);
            assert_true(slice_eq(read.host, count.host));
            assert_true(slice_eq(read.address, count.address));
        }
    struct tls_count none;
    assert_false(tls_count_read(SLICE("rua"), &none));
    assert_false(tls_count_read(SLICE("policy sts"), &none));
    assert_false(tls_count_read(SLICE("sts"), &none));
    assert_false(tls_count_read(SLICE("sts unheard-of mx 192.0.2.1"), &none));
}

static void policies_as_text(void **state)
{
    struct buf text;
    struct sts_policy sts = { .mode = STS_TESTING,
                              .max_age_s = 86400,
                              .mx_count = 2,
                              .mx = { "mx.a.example", "*.b.example" } };
    struct tlsa_set tlsa = { .is_present = true,
                             .count = 1,
                             .records = { { .usage = 3,
                                            .selector = 1,
                                            .matching = TLSA_SHA256,
                                            .digest = { 0xab, 0x01 } } } };
    buf_init(&text, 1000);
    tls_policy_text_sts(&sts, &text);
    assert_true(
        slice_eq(buf_slice(&text), SLICE("version: STSv1\nmode: testing\nmax_age: 86400\nmx: "
                                         "mx.a.example\nmx: *.b.example")));
    tls_policy_text_tlsa(&tlsa, &text);
    assert_int_equal(text.len, 6 + 64);
    assert_memory_equal(text.ptr, "3 1 1 ab0100", 12);
    buf_done(&text);
}

static const struct tls_report_field fields[] = {
    { { "sts successful", 14 }, { "5326", 4 } },
    { { "sts certificate-expired mx.a.example 192.0.2.1", 46 }, { "100", 3 } },
    { { "sts starttls-not-supported mx.a.example 192.0.2.1", 49 }, { "200", 3 } },
    { { "no-policy-found successful", 26 }, { "7", 1 } },
    { { "policy sts", 10 }, { "version: STSv1\nmode: testing\nmx: *.a.example", 44 } },
    { { "later successful", 16 }, { "9", 1 } }, /* of another version */
};
static const struct tls_report report = {
    .domain = { "a.example", 9 },
    .submitter = { "gateway.example", 15 },
    .contact = { "tls@gateway.example", 19 },
    .id = "0123456789",
    .day_ms = 1795392000000, /* 2026-11-23 */
    .fields = fields,
    .field_count = ARRAY_LEN(fields),
};

static const char *text_at(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void the_report(void **state)
{
    struct buf json;
    buf_init(&json, 100000);
    assert_true(tls_report_json(&report, &json));
    json_t *all = json_loadb(json.ptr, json.len, 0, NULL);
    assert_non_null(all);
    assert_string_equal(text_at(all, "organization-name"), "gateway.example");
    assert_string_equal(text_at(all, "contact-info"), "tls@gateway.example");
    const json_t *range = json_object_get(all, "date-range");
    assert_string_equal(text_at(range, "start-datetime"), "2026-11-23T00:00:00Z");
    assert_string_equal(text_at(range, "end-datetime"), "2026-11-23T23:59:59Z");
    const json_t *list = json_object_get(all, "policies");
    assert_int_equal(json_array_size(list), 2);
    const json_t *sts = json_array_get(list, 1), *policy = json_object_get(sts, "policy");
    assert_string_equal(text_at(policy, "policy-type"), "sts");
    assert_string_equal(text_at(policy, "policy-domain"), "a.example");
    assert_int_equal(json_array_size(json_object_get(policy, "policy-string")), 3);
    assert_string_equal(json_string_value(json_array_get(json_object_get(policy, "mx-host"), 0)),
                        "*.a.example");
    const json_t *summary = json_object_get(sts, "summary");
    assert_int_equal(json_integer_value(json_object_get(summary, "total-successful-session-count")),
                     5326);
    assert_int_equal(json_integer_value(json_object_get(summary, "total-failure-session-count")),
                     300);
    const json_t *details = json_object_get(sts, "failure-details");
    assert_int_equal(json_array_size(details), 2);
    assert_string_equal(text_at(json_array_get(details, 0), "result-type"), "certificate-expired");
    assert_string_equal(text_at(json_array_get(details, 0), "receiving-ip"), "192.0.2.1");
    json_decref(all);
    buf_done(&json);
}

static void nothing_is_no_report(void **state)
{
    struct tls_report r = report;
    struct buf json;
    buf_init(&json, 100000);
    r.fields = &fields[4];
    r.field_count = 2;
    assert_false(tls_report_json(&r, &json));
    buf_done(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),
        cmocka_unit_test(a_list_that_is_too_long_is_none),
        cmocka_unit_test(addresses),
        cmocka_unit_test(counters_are_read_as_they_were_written),
        cmocka_unit_test(policies_as_text),
        cmocka_unit_test(the_report),
        cmocka_unit_test(nothing_is_no_report),
    };
    return cmocka_run_group_tests_name("tls report", tests, NULL, NULL);
}
