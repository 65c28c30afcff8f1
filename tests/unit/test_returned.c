/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what comes back: each report whole, octet by octet, and with bare LFs (P-250, P-251).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/returned.h"

#define TOP                                                                                        \
    "From: MAILER-DAEMON@mx.test\r\nContent-Type: multipart/report;\r\n"                           \
    " report-type=delivery-status; boundary=\"=_a b\"\r\n\r\npreamble\r\n"
#define PART(type) "--=_a b\r\nContent-Type: " type "\r\n\r\n"
#define END        "--=_a b--\r\n"
#define PROSE      PART("text/plain") "Action: failed\r\nStatus: 5.9.9\r\n"

static const struct {
    const char *what, *text;
    enum returned_kind kind;
    const char *action, *status, *host, *text_read, *feedback, *sender;
    int code;
    const char *enhanced, *words;
} reports[] = {
    { "nothing", "", RETURNED_OTHER, "", "", "", "", "", "", 0, "", "" },
    { "an answer", "Subject: away\r\n\r\nAction: failed\r\n", RETURNED_OTHER, "", "", "", "", "",
      "", 0, "", "" },
    { "a bounce",
      TOP PROSE PART("message/delivery-status") "Reporting-MTA: dns; mx.test\r\n"
                                                "\r\n"
                                                "Final-Recipient: rfc822; a@b.test\r\n"
                                                "Action: Failed (really)\r\n"
                                                "Status: 5.1.1 (no such)\r\n"
                                                "Remote-MTA: dns; store.test (192.0.2.1)\r\n"
                                                "Diagnostic-Code: smtp; 550 5.1.1\r\n"
                                                "  No such\tuser\r\n" END,
      RETURNED_BOUNCE, "failed", "5.1.1", "store.test", "550 5.1.1  No such user", "", "", 550,
      "5.1.1", "No such user" },
    { "without a Remote-MTA, and a vague status",
      TOP PART("message/global-delivery-status") "Reporting-MTA: dns;mx.test\r\n\r\n"
                                                 "action:failed\r\nstatus:5.0.0\r\n"
                                                 "diagnostic-code: smtp;552-5.2.2 Full\r\n" END,
      RETURNED_BOUNCE, "failed", "5.0.0", "mx.test", "552-5.2.2 Full", "", "", 552, "5.2.2",
      "Full" },
    { "of several recipients the first that failed",
      TOP PART("message/delivery-status") "Reporting-MTA: dns; mx.test\r\n\r\n"
                                          "Action: delayed\r\nStatus: 4.0.0\r\n\r\n"
                                          "Action: failed\r\nStatus: 5.1.2\r\n\r\n"
                                          "Action: failed\r\nStatus: 5.1.3\r\n" END,
      RETURNED_BOUNCE, "failed", "5.1.2", "mx.test", "", "", "", 550, "5.1.2", "" },
    { "without its last boundary",
      TOP PART("message/delivery-status") "\r\nAction: delayed\r\nStatus: 4.4.1", RETURNED_BOUNCE,
      "delayed", "4.4.1", "", "", "", "", 450, "4.4.1", "" },
    { "octets that are not printable",
      TOP PART("message/delivery-status") "\r\nAction: failed\r\nStatus: 5.1.1\r\n"
                                          "Diagnostic-Code: x-unix; \x01\x80 bad\r\n" END,
      RETURNED_BOUNCE, "failed", "5.1.1", "", "?? bad", "", "", 550, "5.1.1", "?? bad" },
    { "a complaint",
      TOP PROSE PART(
          "message/feedback-report") "Feedback-Type: Abuse\r\nVersion: 1\r\n"
                                     "Original-Mail-From: <me@a.test>\r\n" PART(
                                         "message/rfc822") "Return-Path: <x@y.test>\r\n"
                                                           "Subject: x\r\n\r\n"
                                                           "Return-Path: <no@no.test>\r\n" END,
      RETURNED_COMPLAINT, "", "", "", "", "abuse", "me@a.test", 0, "", "" },
    { "a complaint whose mail says where it is from, below a host's own word",
      TOP PART("message/feedback-report") "Feedback-Type: fraud\r\n" PART(
          "text/rfc822-headers") "Return-Path: <box@isp.test>\r\n"
                                 "Return-Path: "
                                 "<b-0abcdefghjkmnpqrstvw-1-2-0000000000000000@b.test>\r\n"
                                 "Return-Path: <last@isp.test>\r\n" END,
      RETURNED_COMPLAINT, "", "", "", "", "fraud",
      "b-0abcdefghjkmnpqrstvw-1-2-0000000000000000@b.test", 0, "", "" },
    { "a part in a part is not looked into",
      TOP PART("multipart/mixed; boundary=b") "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
                                              "\r\nAction: failed\r\n--b--\r\n" END,
      RETURNED_OTHER, "", "", "", "", "", "", 0, "", "" },
    { "a report without a boundary",
      "Content-Type: multipart/report; report-type=delivery-status\r\n\r\n--\r\nAction: failed\r\n",
      RETURNED_OTHER, "", "", "", "", "", "", 0, "", "" },
};

static void check(size_t i, struct slice in, size_t step)
{
    struct returned_reader *r = returned_reader_new();
    struct returned_reply reply;
    for (size_t at = 0; at < in.len; at += step)
        returned_read(r, slice_head(slice_skip(in, at), step));
    const struct returned *got = returned_end(r);
    returned_reply_of(got, &reply);
    if (got->kind != reports[i].kind)
        fail_msg("%s: kind %d", reports[i].what, got->kind);
    assert_string_equal(got->action, reports[i].action);
    assert_string_equal(got->status, reports[i].status);
    assert_string_equal(got->host, reports[i].host);
    assert_string_equal(got->text, reports[i].text_read);
    assert_string_equal(got->feedback, reports[i].feedback);
    assert_string_equal(got->sender, reports[i].sender);
    assert_int_equal(reply.code, reports[i].code);
    assert_string_equal(reply.enhanced, reports[i].enhanced);
    assert_string_equal(reply.text, reports[i].words);
    returned_reader_free(r);
}

static size_t without_cr(const char *text, char *out)
{
    size_t n = 0;
    for (; *text; text++)
        if (*text != '\r')
            out[n++] = *text;
    return n;
}

static void reports_are_read(void **state)
{
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
        struct slice text = slice_str(reports[i].text);
        char *bare = malloc(text.len + 1);
        assert_non_null(bare);
        check(i, text, text.len + 1);
        check(i, text, 1);
        check(i, slice_of(bare, without_cr(reports[i].text, bare)), 7);
        free(bare);
    }
}

/* Lines and fields without end are cut; what follows is read all the same. */
static void nothing_grows(void **state)
{
    struct returned_reader *r = returned_reader_new();
    char x[4096];
    memset(x, 'x', sizeof x);
    returned_read(r, SLICE(TOP PART("message/delivery-status") "\r\nAction: failed\r\nStatus: "
                                                               "5.1.1\r\nDiagnostic-Code: smtp; "));
    for (int i = 0; i < 100; i++) {
        returned_read(r, slice_of(x, sizeof x));
        returned_read(r, SLICE("\r\n "));
    }
    returned_read(r, SLICE("\r\nRemote-MTA: dns; store.test\r\n" END));
    const struct returned *got = returned_end(r);
    assert_int_equal(strlen(got->text), RETURNED_TEXT_MAX - 1);
    assert_string_equal(got->host, "store.test");
    returned_reader_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reports_are_read),
        cmocka_unit_test(nothing_grows),
    };
    return cmocka_run_group_tests_name("returned", tests, NULL, NULL);
}
