/* SPDX-License-Identifier: Apache-2.0 */
/* content: what becomes of the octets between 354 and the final dot, or of BDAT's chunks, however
 * they are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/content_run.h"
#include <stdio.h>

#define ID CONTENT_ID
#define TRACE                                                                                      \
    "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Kilat) with ESMTP id " ID           \
    "\r\n\tfor <b@example.org>; " TEST_DATE "\r\n"
#define DATE     "Date: " TEST_DATE "\r\n"
#define MSGID    "Message-ID: <" ID "@mx.test>\r\n"
#define FROM     "From: a@example.com\r\n"
#define FULL     "Date: d\r\nMessage-ID: m\r\nFrom: f\r\n" /* nothing is missing */
#define X10(s)   s s s s s s s s s s
#define X100(s)  X10(X10(s))
#define X1000(s) X10(X100(s))

static struct test_server t;
static struct smtp_content_policy policy;

struct row {
    const char *name;
    struct slice wire;   /* with the final dot */
    enum reply_id reply; /* REPLY_OK: accepted */
    struct slice want;   /* content behind the trace header, when accepted */
};

#define ACCEPTED(name, wire, want)                                                                 \
    {                                                                                              \
        name, { wire, sizeof(wire) - 1 }, REPLY_OK,                                                \
        {                                                                                          \
            want, sizeof(want) - 1                                                                 \
        }                                                                                          \
    }
#define REFUSED(name, wire, reply)                                                                 \
    {                                                                                              \
        name, { wire, sizeof(wire) - 1 }, REPLY_##reply,                                           \
        {                                                                                          \
            NULL, 0                                                                                \
        }                                                                                          \
    }
#define DOT ".\r\n"

static const struct row rows[] = {
    /* P-97: byte-exact when nothing is missing */
    ACCEPTED("whole", FULL "\r\nbody\r\n" DOT, FULL "\r\nbody\r\n"),
    ACCEPTED("no body", FULL "\r\n" DOT, FULL "\r\n"),
    ACCEPTED("no empty line", FULL DOT, FULL),
    ACCEPTED("odd but legal",
             "fRoM:f\r\nDATE:\td\r\nmessage-id:\r\n\t<m>\r\n \r\nX!#$~:\xff\r\n\r\n\r\n..x\r\n" DOT,
             "fRoM:f\r\nDATE:\td\r\nmessage-id:\r\n\t<m>\r\n \r\nX!#$~:\xff\r\n\r\n\r\n.x\r\n"),
    ACCEPTED("header-like lines in the body",
             FULL "\r\nBcc: x\r\nFrom: y\r\nFrom: z\r\n q\r\nZ : 1\r\n" DOT,
             FULL "\r\nBcc: x\r\nFrom: y\r\nFrom: z\r\n q\r\nZ : 1\r\n"),
    ACCEPTED("dots", FULL "\r\n..\r\n...\r\na.b\r\n" DOT, FULL "\r\n.\r\n..\r\na.b\r\n"), /* P-79 */
    /* P-95, P-90: what is missing */
    ACCEPTED("nothing at all", DOT, DATE MSGID FROM),
    ACCEPTED("an empty line only", "\r\n" DOT, DATE MSGID FROM "\r\n"),
    ACCEPTED("body behind an empty line", "\r\nbody\r\n" DOT, DATE MSGID FROM "\r\nbody\r\n"),
    ACCEPTED("no Date", "From: f\r\nMessage-ID: m\r\n\r\nx\r\n" DOT,
             "From: f\r\nMessage-ID: m\r\n" DATE "\r\nx\r\n"),
    ACCEPTED("no Message-ID", "From: f\r\nDate: m\r\n\r\nx\r\n" DOT,
             "From: f\r\nDate: m\r\n" MSGID "\r\nx\r\n"),
    ACCEPTED("no From", "Date: f\r\nMessage-ID: m\r\n\r\nx\r\n" DOT,
             "Date: f\r\nMessage-ID: m\r\n" FROM "\r\nx\r\n"),
    ACCEPTED("resent fields are others",
             "Resent-Date: d\r\nResent-From: x\r\nResent-Message-ID: m\r\n\r\n" DOT,
             "Resent-Date: d\r\nResent-From: x\r\nResent-Message-ID: m\r\n" DATE MSGID FROM "\r\n"),
    ACCEPTED("missing, at the end of data", "Subject: s\r\n" DOT, "Subject: s\r\n" DATE MSGID FROM),
    /* P-87: no header section */
    ACCEPTED("text", "Hello you\r\nFrom: x\r\n" DOT,
             DATE MSGID FROM "\r\nHello you\r\nFrom: x\r\n"),
    ACCEPTED("one word", "Hello\r\n" DOT, DATE MSGID FROM "\r\nHello\r\n"),
    ACCEPTED("long word", X10("longer than what is kept ") "\r\n\r\nx\r\n" DOT,
             DATE MSGID FROM "\r\n" X10("longer than what is kept ") "\r\n\r\nx\r\n"),
    ACCEPTED("long word without space", X100("abcdefghi") "\r\n" DOT,
             DATE MSGID FROM "\r\n" X100("abcdefghi") "\r\n"),
    ACCEPTED("a colon first", ": x\r\n" DOT, DATE MSGID FROM "\r\n: x\r\n"),
    ACCEPTED("8-bit first", "\xc3\xa4: x\r\n" DOT, DATE MSGID FROM "\r\n\xc3\xa4: x\r\n"),
    ACCEPTED("mbox line", "From a@b Mon Jan 1\r\nDate: x\r\n" DOT,
             DATE MSGID FROM "\r\nFrom a@b Mon Jan 1\r\nDate: x\r\n"),
    ACCEPTED("dot first", "..hidden\r\n" DOT, DATE MSGID FROM "\r\n.hidden\r\n"),
    /* P-88: disputed header sections */
    REFUSED("no field later", FULL "Hello you\r\n\r\nx\r\n" DOT, BAD_HEADER),
    REFUSED("no field later, one word", FULL "Hello\r\n" DOT, BAD_HEADER),
    REFUSED("fold first", " Subject: x\r\n" FULL "\r\n" DOT, BAD_HEADER),
    REFUSED("tab first", "\tx\r\n\r\n" DOT, BAD_HEADER),
    REFUSED("space before the colon", FULL "Subject : x\r\n\r\n" DOT, BAD_HEADER),
    REFUSED("space before the first colon", "Subject \t: x\r\n" FULL "\r\n" DOT, BAD_HEADER),
    REFUSED("no field behind a stripped one", "Bcc: x\r\nHello you\r\n" DOT, BAD_HEADER),
    REFUSED("8-bit in a name", FULL "S\xc3\xbc: x\r\n\r\n" DOT, BAD_HEADER),
    /* P-96: stripped, folds too */
    ACCEPTED("Bcc", "Bcc: x\r\n" FULL "\r\n" DOT, FULL "\r\n"),
    ACCEPTED("Bcc, folded", FULL "bCC:\r\n\tx@y,\r\n z@w\r\n \r\nSubject: s\r\n\r\nb\r\n" DOT,
             FULL "Subject: s\r\n\r\nb\r\n"),
    ACCEPTED("Bcc last", FULL "Bcc: x\r\n y\r\n\r\nb\r\n" DOT, FULL "\r\nb\r\n"),
    ACCEPTED("Bcc at the end of data", FULL "Bcc: x\r\n y\r\n" DOT, FULL),
    ACCEPTED("all three, twice",
             "Return-Path: <x>\r\n" FULL
             "Resent-Bcc: x\r\nBcc: y\r\nBcc: z\r\nTo: t\r\nReturn-path:\r\n\r\nb\r\n" DOT,
             FULL "To: t\r\n\r\nb\r\n"),
    ACCEPTED("names alike stay",
             "Bc: 1\r\nBccc: 2\r\nX-Bcc: 3\r\nReturn-Pathology: 4\r\nReturn-PathX: 5\r\n" FULL
             "\r\n" DOT,
             "Bc: 1\r\nBccc: 2\r\nX-Bcc: 3\r\nReturn-Pathology: 4\r\nReturn-PathX: 5\r\n" FULL
             "\r\n"),
    /* P-89 */
    REFUSED("two From", FULL "From: x\r\n\r\n" DOT, DUPLICATE_HEADER),
    REFUSED("two Date", FULL "DATE: x\r\n\r\n" DOT, DUPLICATE_HEADER),
    REFUSED("two To", "To: x\r\nTo: y\r\n\r\n" DOT, DUPLICATE_HEADER),
    REFUSED("two Subject", "Subject: x\r\nA: b\r\nSubject: y\r\n\r\n" DOT, DUPLICATE_HEADER),
    REFUSED("two Sender", "Sender: x\r\nsender: y\r\n\r\n" DOT, DUPLICATE_HEADER),
    ACCEPTED("others may repeat", FULL "Cc: 1\r\nCc: 2\r\nComments: a\r\nComments: b\r\n\r\n" DOT,
             FULL "Cc: 1\r\nCc: 2\r\nComments: a\r\nComments: b\r\n\r\n"),
    /* P-91: 50 are too many here */
    ACCEPTED("49 Received",
             X10("Received: 1\r\nReceived: 2\r\nReceived: 3\r\nReceived: 4\r\n")
                 X10("X: y\r\n") "Received: 1\r\nReceived: 2\r\n" FULL "\r\n" DOT,
             X10("Received: 1\r\nReceived: 2\r\nReceived: 3\r\nReceived: 4\r\n")
                 X10("X: y\r\n") "Received: 1\r\nReceived: 2\r\n" FULL "\r\n"),
    REFUSED("50 Received",
            X10("received: 1\r\nReceived: 2\r\nReceived: 3\r\nReceived: 4\r\nReceived: 5\r\n") FULL
            "\r\n" DOT,
            LOOP),
    /* P-86: 4000 octets are too many here; 1000 fields are always */
    REFUSED("big header section",
            FULL X100("X-Forty: 012345678901234567890123456789\r\n") "\r\n" DOT, HEADER_TOO_BIG),
    REFUSED("big field",
            FULL "X:\r\n" X100(" 01234567890123456789012345678901234567\r\n") "\r\n" DOT,
            HEADER_TOO_BIG),
    REFUSED("big field, stripped",
            FULL "Bcc:\r\n" X100(" 01234567890123456789012345678901234567\r\n") "\r\n" DOT,
            HEADER_TOO_BIG),
    /* P-76, P-77: look-alikes end nothing and are refused */
    REFUSED("LF . LF", FULL "\r\na\n.\nb\r\n" DOT, BARE_CR_LF),
    REFUSED("LF . CRLF", FULL "\r\na\n.\r\nb\r\n" DOT, BARE_CR_LF),
    REFUSED("CRLF . LF", FULL "\r\na\r\n.\nb\r\n" DOT, BARE_CR_LF),
    REFUSED("CR . CR", FULL "\r\na\r.\rb\r\n" DOT, BARE_CR_LF),
    REFUSED("CR CRLF . CR CRLF", FULL "\r\na\r\r\n.\r\r\nb\r\n" DOT, BARE_CR_LF),
    REFUSED("bare CR where the empty line would be", FULL "\rx\r\n" DOT, BARE_CR_LF),
    REFUSED("bare LF in the header section", "From: f\nBcc: x\r\n\r\n" DOT, BARE_CR_LF),
    REFUSED("a defect outweighs a fault before it", " x\r\n\r\na\nb\r\n" DOT, BARE_CR_LF),
    REFUSED("NUL", FULL "\r\na\0b\r\n" DOT, NUL_IN_CONTENT), /* P-85 */
    REFUSED("NUL in a name", FULL "Sub\0ject: x\r\n\r\n" DOT, NUL_IN_CONTENT),
    /* P-84 */
    ACCEPTED("998 octets", FULL "\r\n" X100("abcdefghi") X10("abcdefghi") "12345678\r\n" DOT,
             FULL "\r\n" X100("abcdefghi") X10("abcdefghi") "12345678\r\n"),
    REFUSED("999 octets", FULL "\r\n" X100("abcdefghi") X10("abcdefghi") "123456789\r\n" DOT,
            CONTENT_LINE_TOO_LONG),
    REFUSED("999 octets without a colon", X100("abcdefghi") X10("abcdefghi") "123456789\r\n" DOT,
            CONTENT_LINE_TOO_LONG),
    /* P-57: 10,000 octets are the limit here */
    REFUSED("too big", FULL "\r\n" X100(X10("12345678\r\n")) "x\r\n" DOT, TOO_BIG),
    REFUSED("too big outweighs", " x\r\n" X1000("1234567\n\n\0") DOT "\r\n" DOT, TOO_BIG),
};

static struct message *make_message(const char *sender)
{
    return content_message(&t, sender, "b@example.org");
}

static struct content_result run(struct message *m, struct slice wire, size_t first, size_t piece)
{
    policy.size_max = t.server.limits.message_size_max;
    return content_run(&t, m, &policy, false, wire, first, piece);
}

static void check_result(const struct row *row, size_t cut, const struct content_result *r)
{
    size_t trace = sizeof TRACE - 1;
    if (r->reply != row->reply)
        print_error("%s, cut at %zu: reply %d\n", row->name, cut, reply_code(r->reply));
    assert_int_equal(r->reply, row->reply);
    assert_int_equal(r->size, r->len);
    if (r->reply != REPLY_OK) {
        assert_int_equal(r->len, 0); /* what is doomed is not kept */
        return;
    }
    struct slice got = slice_skip(slice_of(r->content, r->len), trace);
    assert_memory_equal(r->content, TRACE, trace);
    if (!slice_eq(got, row->want))
        print_error("%s, cut at %zu:\n%s\n", row->name, cut, got.ptr);
    assert_true(slice_eq(got, row->want));
}

static void check_row(const struct row *row, size_t first, size_t piece)
{
    static char undotted[200000];
    struct content_result r = run(make_message("a@example.com"), row->wire, first, piece);
    check_result(row, first, &r);
    free(r.content);
    r = content_run(&t, make_message("a@example.com"), &policy, true,
                    content_undot(row->wire, undotted), first, piece); /* P-98 */
    check_result(row, first, &r);
    free(r.content);
    assert_int_equal(t.budget.used, 0);
}

static void whole(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(&rows[i], rows[i].wire.len, 1);
}

static void byte_by_byte(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(&rows[i], 1, 1);
}

/* Every place where two reads can meet; long rows at each of the first places. */
static void cut_anywhere(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 1; cut < rows[i].wire.len && cut < 600; cut++)
            check_row(&rows[i], cut, rows[i].wire.len);
}

static void many_fields_are_refused(void **state)
{
    /* P-86 */
    struct buf wire;
    buf_init(&wire, 1 << 20);
    t.server.limits.header_size_max = t.server.limits.message_size_max = 1 << 20;
    for (int i = 0; i <= SMTP_HEADER_FIELDS_MAX; i++) {
        struct buf all;
        buf_init(&all, 1 << 20);
        assert_int_equal(buf_append(&wire, SLICE("X: y\r\n")), STATUS_OK);
        if (i + 2 < SMTP_HEADER_FIELDS_MAX)
            continue;
        assert_int_equal(buf_append(&all, buf_slice(&wire)), STATUS_OK);
        assert_int_equal(buf_append(&all, SLICE("\r\n" DOT)), STATUS_OK);
        struct content_result r = run(make_message("a@b.c"), buf_slice(&all), all.len, 1);
        assert_int_equal(r.reply, i < SMTP_HEADER_FIELDS_MAX ? REPLY_OK : REPLY_HEADER_TOO_BIG);
        free(r.content);
        buf_done(&all);
    }
    buf_done(&wire);
}

/* P-86: the limit itself is still in. */
static void the_header_size_is_exact(void **state)
{
    for (uint32_t over = 0; over < 2; over++) {
        t.server.limits.header_size_max = sizeof FULL - 1 - over;
        struct content_result r = run(make_message("a@b.c"), SLICE(FULL "\r\n" DOT), 7, 3);
        assert_int_equal(r.reply, over ? REPLY_HEADER_TOO_BIG : REPLY_OK);
        free(r.content);
    }
}

static void a_null_sender_needs_a_from(void **state)
{
    /* P-90 */
    struct content_result r = run(make_message(""), SLICE("Date: x\r\n\r\n" DOT), 5, 1);
    assert_int_equal(r.reply, REPLY_NO_FROM);
    free(r.content);
    r = run(make_message(""), SLICE("text\r\n" DOT), 3, 1);
    assert_int_equal(r.reply, REPLY_NO_FROM);
    free(r.content);
    r = run(make_message(""), SLICE(DOT), 3, 1);
    assert_int_equal(r.reply, REPLY_NO_FROM);
    free(r.content);
    r = run(make_message(""), SLICE(FULL DOT), 5, 1);
    assert_int_equal(r.reply, REPLY_OK);
    free(r.content);
}

static void for_is_only_for_one(void **state)
{
    /* P-92 */
    struct message *m = make_message("a@b.c");
    message_add_rcpt(m, SLICE("c@d"), SLICE("d"));
    struct content_result r = run(m, SLICE(FULL DOT), 100, 1);
    assert_string_equal(r.content,
                        "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Kilat) with "
                        "ESMTP id " ID ";\r\n\t" TEST_DATE "\r\n" FULL);
    free(r.content);
}

static void helo_is_with_smtp(void **state)
{
    /* P-93, P-28 */
    struct message *m = make_message("a@b.c");
    m->client = SLICE("IPv6:2001:db8::1");
    policy.is_esmtp = false;
    smtp_content_free(smtp_content_new(&t.server, m, &policy, &t.now));
    char *text = test_flatten(&m->content);
    assert_string_equal(text,
                        "Received: from client.test ([IPv6:2001:db8::1])\r\n\tby mx.test "
                        "(Kilat) with SMTP id " ID "\r\n\tfor <b@example.org>; " TEST_DATE "\r\n");
    free(text);
    message_unref(m);
}

static void flags_and_times(void **state)
{
    struct content_result r = run(make_message("a@b.c"), SLICE(FULL "\r\nplain\r\n" DOT), 100, 1);
    assert_int_equal(r.flags, 0);
    free(r.content);
    r = run(make_message("a@b.c"), SLICE(FULL "\r\n\xe4\r\n" DOT), 100, 1);
    assert_int_equal(r.flags, MESSAGE_8BIT); /* P-60 */
    free(r.content);
    r = run(make_message("a@b.c"), SLICE(FULL "\r\n..\r\n" DOT), 100, 1);
    assert_int_equal(r.flags, MESSAGE_DOT_LINES);
    free(r.content);
}

/* The front may go once the body has begun; the size still tells of all. */
static void the_front_may_be_taken(void **state)
{
    struct chain taken;
    size_t used;
    struct message *m = make_message("a@b.c");
    struct smtp_content *c = smtp_content_new(&t.server, m, &policy, &t.now);
    assert_int_equal(smtp_content_feed(c, SLICE("Subject: x\r\n\r"), &used), DOT_MORE);
    assert_false(smtp_content_is_body(c));
    assert_int_equal(smtp_content_feed(c, SLICE("\nbody"), &used), DOT_MORE);
    assert_true(smtp_content_is_body(c));
    size_t len = m->content.len;
    chain_init(&taken, &t.budget);
    chain_split(&m->content, len, &taken);
    assert_int_equal(smtp_content_feed(c, SLICE(" more\r\n" DOT), &used), DOT_END);
    assert_int_equal(smtp_content_finish(c, &t.now), REPLY_OK);
    assert_int_equal(m->content.len, 7);
    assert_int_equal(m->size, len + 7);
    assert_int_equal(m->accepted_ms, TEST_WALL_MS);
    chain_done(&taken);
    smtp_content_free(c);
    message_unref(m);
}

/* What is doomed gives its memory back at once, not at the final dot. */
static void doomed_content_is_freed(void **state)
{
    size_t used;
    struct message *m = make_message("a@b.c");
    struct smtp_content *c = smtp_content_new(&t.server, m, &policy, &t.now);
    assert_int_equal(smtp_content_feed(c, SLICE(FULL "\r\nbody\r\n"), &used), DOT_MORE);
    assert_true(t.budget.used > 0);
    assert_int_equal(smtp_content_feed(c, SLICE("a\nb"), &used), DOT_MORE);
    assert_int_equal(t.budget.used, 0);
    assert_int_equal(smtp_content_feed(c, SLICE("more\r\n"), &used), DOT_MORE);
    assert_int_equal(t.budget.used, 0);
    assert_false(smtp_content_is_body(c));
    smtp_content_free(c);
    message_unref(m);
}

/* What follows the final dot is not content. */
static void stops_behind_the_final_dot(void **state)
{
    size_t used;
    struct message *m = make_message("a@b.c");
    struct smtp_content *c = smtp_content_new(&t.server, m, &policy, &t.now);
    assert_int_equal(smtp_content_feed(c, SLICE("x\r\n.\r\nMAIL FROM:<>\r\n"), &used), DOT_END);
    assert_int_equal(used, 6);
    smtp_content_free(c);
    message_unref(m);
}

static int setup(void **state)
{
    test_server_init(&t);
    policy = (struct smtp_content_policy){ .is_esmtp = true, .size_max = 10000 };
    return 0;
}

static int teardown(void **state)
{
    return t.budget.used == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(whole),
        TEST(byte_by_byte),
        TEST(cut_anywhere),
        TEST(many_fields_are_refused),
        TEST(the_header_size_is_exact),
        TEST(a_null_sender_needs_a_from),
        TEST(for_is_only_for_one),
        TEST(helo_is_with_smtp),
        TEST(flags_and_times),
        TEST(the_front_may_be_taken),
        TEST(doomed_content_is_freed),
        TEST(stops_behind_the_final_dot),
    };
    return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
