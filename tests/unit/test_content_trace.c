/* SPDX-License-Identifier: Apache-2.0 */
/* content_trace: the Received field, word by word, in every circumstance that changes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/content_run.h"
#include <stdlib.h>

#define FROM  "from client.test ([192.0.2.1])\r\n\t"
#define BY(w) "by mx.test (Kilat) with " w
#define ID    " id " CONTENT_ID
#define ONE   "\r\n\tfor <b@example.org>; " TEST_DATE "\r\n"
#define WHOLE "Date: d\r\nMessage-ID: m\r\nFrom: f\r\n\r\n"

static const struct smtp_tls tls13 = { .version = "TLSv1.3", .cipher = "TLS_AES_128_GCM_SHA256" };
#define UNDER_TLS "\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)"

struct row {
    struct smtp_content_policy policy;
    bool hides_client;
    int8_t priority;
    const char *second; /* a recipient more; NULL: none */
    const char *want;
};

static const struct row rows[] = {
    /* P-93: the name of the protocol tells HELO from EHLO, TLS, AUTH and SMTPUTF8 */
    { { 0 }, false, 0, NULL, FROM BY("SMTP") ID ONE },
    { { .tls = &tls13, .is_authenticated = true },
      false,
      0,
      NULL,
      FROM BY("SMTP") UNDER_TLS ID ONE },
    { { .is_esmtp = true }, false, 0, NULL, FROM BY("ESMTP") ID ONE },
    { { .is_esmtp = true, .tls = &tls13 }, false, 0, NULL, FROM BY("ESMTPS") UNDER_TLS ID ONE },
    { { .is_esmtp = true, .is_authenticated = true }, false, 0, NULL, FROM BY("ESMTPA") ID ONE },
    { { .is_esmtp = true, .tls = &tls13, .is_authenticated = true },
      false,
      0,
      NULL,
      FROM BY("ESMTPSA") UNDER_TLS ID ONE },
    { { .is_esmtp = true, .is_utf8 = true }, false, 0, NULL, FROM BY("UTF8SMTP") ID ONE },
    { { .is_esmtp = true, .is_utf8 = true, .tls = &tls13, .is_authenticated = true },
      false,
      0,
      NULL,
      FROM BY("UTF8SMTPSA") UNDER_TLS ID ONE },
    /* P-92: "for" betrays nobody to another recipient */
    { { .is_esmtp = true },
      false,
      0,
      "c@example.org",
      FROM BY("ESMTP") ID ";\r\n\t" TEST_DATE "\r\n" },
    /* P-66: the priority in the clause of RFC 6710 */
    { { .is_esmtp = true },
      false,
      -3,
      NULL,
      FROM BY("ESMTP") ID "\r\n\tfor <b@example.org> PRIORITY -3; " TEST_DATE "\r\n" },
    /* P-94: neither the address nor the name that the client gave; the rest as ever */
    { { .is_esmtp = true }, true, 0, NULL, BY("ESMTP") ID ONE },
    { { .is_esmtp = true, .tls = &tls13, .is_authenticated = true },
      true,
      0,
      "c@example.org",
      BY("ESMTPSA") UNDER_TLS ID ";\r\n\t" TEST_DATE "\r\n" },
};

static struct test_server t;

static void play(const struct row *row)
{
    struct message *m = content_message(&t, "a@example.com", "b@example.org");
    struct slice want = slice_str(row->want), wire = SLICE(WHOLE ".\r\n");
    if (row->second)
        message_add_rcpt(m, slice_str(row->second), SLICE("example.org"));
    m->priority = row->priority;
    t.server.hides_client = row->hides_client;
    struct content_result r = content_run(&t, m, &row->policy, false, wire, wire.len, 1);
    struct slice got = slice_of(r.content, r.len);
    assert_int_equal(r.reply, REPLY_OK);
    assert_true(slice_eq(slice_head(got, 10), SLICE("Received: ")));
    got = slice_skip(got, 10);
    if (!slice_eq(slice_head(got, want.len), want))
        fail_msg("want %.*s\ngot  %.*s", SLICE_ARG(want), SLICE_ARG(got));
    assert_true(slice_eq(slice_skip(got, want.len), SLICE(WHOLE)));
    free(r.content);
}

static void received_field(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        play(&rows[i]);
}

static int set_up(void **state)
{
    test_server_init(&t);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(received_field) };
    return cmocka_run_group_tests_name("content_trace", tests, set_up, NULL);
}
