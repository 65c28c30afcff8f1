/* SPDX-License-Identifier: Apache-2.0 */
/* MTA-STS records and policies (RFC 8461), and the HTTP replies that carry policies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/relay/http_reply.h"
#include "core/relay/sts.h"

#define LONG_ID "01234567890123456789012345678901"

/* P-202 */
static void records(void **state)
{
    static const struct {
        const char *texts[2];
        const char *id; /* NULL: none */
    } rows[] = {
        { { "v=STSv1; id=20160831085700Z;" }, "20160831085700Z" },
        { { "v=STSv1;id=1" }, "1" },
        { { "v=STSv1 ; id = a1 ; more=x" }, "a1" },
        { { "v=STSv1; more=x; id=7" }, "7" },
        { { "v=STSv1; id=" LONG_ID }, LONG_ID },
        { { "v=spf1 -all", "v=STSv1; id=2" }, "2" },
        { { "v=STSv1; id=" LONG_ID "x" }, NULL },
        { { "v=STSv1; id=a-b" }, NULL },
        { { "v=STSv1; id=" }, NULL },
        { { "v=STSv1" }, NULL },
        { { "v=STSv12; id=1" }, NULL },
        { { "V=STSv1; id=1" }, NULL },
        { { "id=1; v=STSv1" }, NULL },
        { { "" }, NULL },
        { { "v=STSv1; id=1", "v=STSv1; id=1" }, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice texts[2];
        char id[STS_ID_MAX + 1];
        size_t count = 0;
        while (count < 2 && rows[i].texts[count]) {
            texts[count] = slice_str(rows[i].texts[count]);
            count++;
        }
        assert_int_equal(sts_read_record(texts, count, id), rows[i].id != NULL);
        if (rows[i].id)
            assert_string_equal(id, rows[i].id);
    }
}

/* P-203 */
static void policies(void **state)
{
    static const struct {
        const char *text;
        const char *why; /* NULL: good */
        enum sts_mode mode;
        uint32_t max_age_s, mx_count;
    } rows[] = {
        { "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n"
          "max_age: 604800\r\n",
          NULL, STS_ENFORCE, 604800, 2 },
        { "version:STSv1\nmode:testing\nmx:a.b\nmax_age:1", NULL, STS_TESTING, 1, 1 },
        { "version: STSv1\nmode: none\nmax_age: 0\n", NULL, STS_NONE, 0, 0 },
        { "mode: none\nmax_age: 99999999\nversion: STSv1\nnew: x\n\n", NULL, STS_NONE, 31557600,
          0 },
        { "version: STSv1\nmode: enforce\nmode: none\nmx: a.b\nmax_age: 1\nmax_age: 2\n", NULL,
          STS_ENFORCE, 1, 1 },
        { "version: STSv2\nmode: none\nmax_age: 1\n", "its version", 0, 0, 0 },
        { "version: STSv1\nmode: strict\nmx: a.b\nmax_age: 1\n", "its mode", 0, 0, 0 },
        { "version: STSv1\nmode: none\nmax_age: 1d\n", "its max_age", 0, 0, 0 },
        { "version: STSv1\nmode: none\nmax_age: 12345678901\n", "its max_age", 0, 0, 0 },
        { "version: STSv1\nmode: enforce\nmax_age: 1\n", "it names no mx", 0, 0, 0 },
        { "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n", "an mx", 0, 0, 0 },
        { "version: STSv1\nmode: enforce\nmx: *.*.b\nmax_age: 1\n", "an mx", 0, 0, 0 },
        { "version: STSv1\nmx: a.b\nmax_age: 1\n", "version, mode or max_age", 0, 0, 0 },
        { "<html>", "version, mode or max_age", 0, 0, 0 },
        { "", "version, mode or max_age", 0, 0, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sts_policy policy;
        const char *why = "";
        bool is_good = sts_read_policy(slice_str(rows[i].text), &policy, &why);
        assert_int_equal(is_good, rows[i].why == NULL);
        if (rows[i].why) {
            assert_memory_equal(why, rows[i].why, strlen(rows[i].why));
            continue;
        }
        assert_int_equal(policy.mode, rows[i].mode);
        assert_int_equal(policy.max_age_s, rows[i].max_age_s);
        assert_int_equal(policy.mx_count, rows[i].mx_count);
    }
}

/* RFC 8461 4.1 */
static void hosts(void **state)
{
    static const struct sts_policy policy = { .mode = STS_ENFORCE,
                                              .mx_count = 2,
                                              .mx = { "mail.example.com", "*.example.net" } };
    static const struct {
        const char *host;
        bool is_allowed;
    } rows[] = {
        { "mail.example.com", true }, { "MAIL.example.COM.", true },  { "a.example.net", true },
        { "example.net", false },     { "a.b.example.net", false },   { ".example.net", false },
        { "example.com", false },     { "xmail.example.com", false }, { "", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(sts_allows(&policy, rows[i].host), rows[i].is_allowed);
}

#define OK "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"

static void replies(void **state)
{
    static const struct {
        const char *text;
        bool is_ended;
        enum http_progress progress;
        int status;
        const char *body;
    } rows[] = {
        { OK "Content-Length: 3\r\n\r\nabc", false, HTTP_DONE, 200, "abc" },
        { OK "Content-Length: 3\r\n\r\nabcde", false, HTTP_DONE, 200, "abc" },
        { OK "Content-Length: 3\r\n\r\nab", false, HTTP_MORE, 0, NULL },
        { OK "Content-Length: 3\r\n\r\nab", true, HTTP_BAD, 0, NULL },
        { OK "\r\nab", false, HTTP_MORE, 0, NULL },
        { OK "\r\nab", true, HTTP_DONE, 200, "ab" },
        { OK "transfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", false,
          HTTP_DONE, 200, "abcde" },
        { OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd", false, HTTP_MORE, 0, NULL },
        { OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd", true, HTTP_BAD, 0, NULL },
        { OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { OK "Transfer-Encoding: chunked\r\n\r\nx\r\n", false, HTTP_BAD, 0, NULL },
        { OK "Transfer-Encoding: gzip\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { OK "Content-Encoding: gzip\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", false, HTTP_BAD, 0, NULL },
        { OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { OK "Content-Length: -1\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { OK "no colon\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { "HTTP/1.0 404 Not Found\r\n\r\n", true, HTTP_DONE, 404, "" },
        { "HTTP/1.1 301 Moved\r\nLocation: x\r\nContent-Length: 0\r\n\r\n", false, HTTP_DONE, 301,
          "" },
        { "HTTP/1.1 100 Continue\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { "HTTP/2 200\r\n\r\n", false, HTTP_BAD, 0, NULL },
        { "220 mx ESMTP\r\n", false, HTTP_BAD, 0, NULL },
        { "HTTP/1.1 2", false, HTTP_MORE, 0, NULL },
        { "", true, HTTP_BAD, 0, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_reply reply;
        struct buf plain;
        buf_init(&plain, 100);
        enum http_progress progress =
            http_read(slice_str(rows[i].text), rows[i].is_ended, &reply, &plain);
        assert_int_equal(progress, rows[i].progress);
        if (progress == HTTP_DONE) {
            assert_int_equal(reply.status, rows[i].status);
            assert_true(slice_eq(reply.body, slice_str(rows[i].body)));
        }
        buf_done(&plain);
    }
}

/* A post is answered when its status is known, whatever becomes of the body. */
static void the_head_of_a_reply(void **state)
{
    static const struct {
        const char *text;
        enum http_progress progress;
        int status;
    } rows[] = {
        { "HTTP/1.1 204 No Content\r\n\r\n", HTTP_DONE, 204 },
        { "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhalf of", HTTP_DONE, 200 },
        { "HTTP/1.1 500 x\r\nContent-Length: 100\r\n\r\n", HTTP_DONE, 500 },
        { "HTTP/1.1 200 OK\r\nServer: x\r\n", HTTP_MORE, 200 },
        { "HTTP/1.1 2", HTTP_MORE, 0 },
        { "220 mx.example ESMTP\r\n", HTTP_BAD, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_reply reply;
        assert_int_equal(http_read_head(slice_str(rows[i].text), &reply), rows[i].progress);
        assert_int_equal(reply.status, rows[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_head_of_a_reply),
        cmocka_unit_test(records),
        cmocka_unit_test(policies),
        cmocka_unit_test(hosts),
        cmocka_unit_test(replies),
    };
    return cmocka_run_group_tests_name("sts", tests, NULL, NULL);
}
