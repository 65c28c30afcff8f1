/* SPDX-License-Identifier: Apache-2.0 */
/* content: what BDAT brings and DATA cannot: an end without CR LF, and a body of any octets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/content_run.h"
#include <stdio.h>

#define FULL "Date: d\r\nMessage-ID: m\r\nFrom: f\r\n"
#define ADDED                                                                                      \
    "Date: " TEST_DATE "\r\nMessage-ID: <" CONTENT_ID "@mx.test>\r\nFrom: a@example.com\r\n"
#define X10(s)  s s s s s s s s s s
#define X100(s) X10(X10(s))
#define L998    X100("abcdefghi") X10("abcdefghi") "12345678"

static struct test_server t;
static struct smtp_content_policy policy;

struct row {
    const char *name;
    struct slice in;
    enum reply_id reply; /* REPLY_OK: accepted */
    struct slice want;   /* behind the trace field, when accepted */
    uint32_t flags;
};

#define OK(name, in, want, flags)                                                                  \
    {                                                                                              \
        name, { in, sizeof(in) - 1 }, REPLY_OK, { want, sizeof(want) - 1 }, flags                  \
    }
#define SAME(name, in, flags) OK(name, in, in, flags)
#define NO(name, in, reply)                                                                        \
    {                                                                                              \
        name, { in, sizeof(in) - 1 }, REPLY_##reply, { NULL, 0 }, 0                                \
    }

static struct content_result play_cut(const struct row *row, size_t first, size_t piece)
{
    struct message *m = content_message(&t, "a@example.com", "b@example.org");
    m->flags = policy.is_binary ? MESSAGE_BINARY : 0; /* as the session may have it */
    return content_run(&t, m, &policy, true, row->in, first, piece);
}

static void check_same(const struct row *row, const struct content_result *whole, size_t first,
                       size_t piece)
{
    struct content_result cut = play_cut(row, first, piece);
    if (!content_result_eq(whole, &cut) && whole->reply == REPLY_OK)
        fail_msg("%s: cut at %zu, then by %zu", row->name, first, piece);
    if (whole->reply != cut.reply)
        fail_msg("%s: cut at %zu, then by %zu: %d not %d", row->name, first, piece, cut.reply,
                 whole->reply);
    free(cut.content);
}

static void check_row(const struct row *row)
{
    struct content_result whole = play_cut(row, row->in.len + 1, 1);
    if (whole.reply != row->reply)
        fail_msg("%s: %d %d", row->name, whole.reply, reply_code(whole.reply));
    if (whole.reply == REPLY_OK) {
        const char *got = strstr(whole.content, TEST_DATE "\r\n") + sizeof(TEST_DATE "\r\n") - 1;
        struct slice rest =
            slice_skip(slice_of(whole.content, whole.len), (size_t)(got - whole.content));
        if (!slice_eq(rest, row->want))
            fail_msg("%s:\n%s", row->name, got);
        assert_int_equal(whole.flags, row->flags);
    }
    assert_int_equal(whole.size, whole.len);
    check_same(row, &whole, 1, 1);
    for (size_t cut = 1; cut < row->in.len; cut++)
        check_same(row, &whole, cut, row->in.len);
    free(whole.content);
    assert_int_equal(t.budget.used, 0);
}

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_row(&rows[i]);
}

/* P-98, P-105; in text the rules of DATA hold (P-77, P-84, P-85). */
static void text_may_end_anywhere(void **state)
{
    static const struct row rows[] = {
        SAME("dots are octets", FULL "\r\n.\r\n..\r\n.x\r\n", MESSAGE_DOT_LINES),
        SAME("no CR LF in the body", FULL "\r\nabc", 0),
        SAME("8-bit", FULL "\r\n\xc3\xa4", MESSAGE_8BIT),
        OK("nothing", "", ADDED, 0),
        OK("a field without its end", "Subject: x", "Subject: x\r\n" ADDED, 0),
        OK("a fold without its end", FULL "X: y\r\n z", FULL "X: y\r\n z\r\n", 0),
        OK("a stripped field", FULL "Bcc: y\r\n z", FULL, 0),
        OK("a field that is cut off", FULL "Authentication-Results: mx.test; z", FULL, 0),
        OK("text", "Hello", ADDED "\r\nHello", 0),
        OK("text with a space", "Hello you ", ADDED "\r\nHello you ", 0),
        OK("a dot", ".", ADDED "\r\n.", MESSAGE_DOT_LINES),
        NO("text behind fields", FULL "Hello", BAD_HEADER),
        NO("text with a space behind fields", FULL "Hello ", BAD_HEADER),
        NO("a CR behind fields", FULL "\r", BARE_CR_LF),
        NO("a CR alone", "\r", BARE_CR_LF),
        NO("a field and a CR", FULL "X: y\r", BARE_CR_LF),
        NO("a body and a CR", FULL "\r\nx\r", BARE_CR_LF),
        NO("bare LF", FULL "\r\nx\ny", BARE_CR_LF),
        NO("bare CR", FULL "\r\nx\ry", BARE_CR_LF),
        NO("NUL", FULL "\r\nx\0y", NUL_IN_CONTENT),
        SAME("998 octets", FULL "\r\n" L998, 0),
        NO("999 octets", FULL "\r\n" L998 "9", CONTENT_LINE_TOO_LONG),
    };
    check_rows(rows, ARRAY_LEN(rows));
}

/* P-106: the body of BINARYMIME is any octets; the header section obeys the rules; what turned out
 * to be text may go by DATA. */
static void a_binary_body_may_be_anything(void **state)
{
    static const struct row rows[] = {
        SAME("text", FULL "\r\nabc\r\n", 0),
        SAME("text without an end", FULL "\r\nabc", 0),
        SAME("NUL", FULL "\r\na\0b\r\n", MESSAGE_BINARY),
        SAME("bare CR", FULL "\r\na\rb", MESSAGE_BINARY),
        SAME("bare LF", FULL "\r\na\nb", MESSAGE_BINARY),
        SAME("a CR at the end", FULL "\r\na\r", MESSAGE_BINARY),
        SAME("998 octets", FULL "\r\n" L998 "\r\n", 0),
        SAME("999 octets", FULL "\r\n" L998 "9", MESSAGE_BINARY),
        SAME("8-bit", FULL "\r\n\xff\n", MESSAGE_BINARY | MESSAGE_8BIT),
        SAME("dots", FULL "\r\n\n.\r\n.\n\r\n", MESSAGE_BINARY | MESSAGE_DOT_LINES),
        OK("no header section", "\0\1\2", ADDED "\r\n\0\1\2", MESSAGE_BINARY),
        OK("no header section, later", "a\0: \n\r", ADDED "\r\na\0: \n\r", MESSAGE_BINARY),
        OK("a long first line", L998 "\0 x\n", ADDED "\r\n" L998 "\0 x\n", MESSAGE_BINARY),
        NO("a longer first line", L998 "9 x\r\n\0\n", CONTENT_LINE_TOO_LONG),
        NO("a longer first line with NUL", L998 "9\0\n", NUL_IN_CONTENT),
        NO("a longer first line with NUL behind", L998 "9\n\0\n", BARE_CR_LF),
        NO("NUL in a field", FULL "X: a\0b\r\n\r\n", NUL_IN_CONTENT),
        NO("bare LF in a field", FULL "X: a\nY: z\r\n\r\n\0", BARE_CR_LF),
        NO("bare CR in a field", FULL "X: a\rb\r\n\r\n\0", BARE_CR_LF),
        NO("bare CR for the empty line", FULL "\rx\r\n\0", BARE_CR_LF),
        NO("a long field", FULL "X: " L998 "\r\n\r\n\0", CONTENT_LINE_TOO_LONG),
        NO("a fault, then a defect in its line", FULL "X : a\0\n\r\n\r\n", NUL_IN_CONTENT),
        NO("a fault, then a defect behind its line", FULL "X : a\r\n\0\n", BAD_HEADER),
        NO("a fault, and no end", FULL "X : a", BAD_HEADER),
        NO("text behind fields", FULL "Hello\r\n\0\n", BAD_HEADER),
        NO("a CR at the end of the fields", FULL "\r", BARE_CR_LF),
    };
    policy.is_binary = true;
    check_rows(rows, ARRAY_LEN(rows));
}

/* P-102: the limit counts the octets of all chunks, whatever they are. */
static void chunks_have_one_limit(void **state)
{
    static const struct row fits = SAME("fits", FULL "\r\n0123456789", 0);
    static const struct row over = NO("over", FULL "\r\n0123456789x", TOO_BIG);
    static const struct row header = NO("over in the header", FULL FULL FULL "\0\n", TOO_BIG);
    for (int binary = 0; binary < 2; binary++) {
        policy.is_binary = binary;
        policy.size_max = fits.in.len;
        check_row(&fits);
        check_row(&over);
        check_row(&header);
    }
}

/* A large binary body streams: its front may be taken, and it is never held for a line's end. */
static void a_binary_body_streams(void **state)
{
    static const char zeros[70000];
    struct chain taken;
    struct message *m = content_message(&t, "a@example.com", "b@example.org");
    policy.is_binary = true;
    policy.size_max = 0;
    struct smtp_content *c = smtp_content_new(&t.server, m, &policy, &t.now);
    smtp_content_feed_chunk(c, SLICE(FULL "\r"));
    assert_false(smtp_content_is_body(c));
    smtp_content_feed_chunk(c, SLICE("\n"));
    assert_true(smtp_content_is_body(c));
    size_t len = m->content.len;
    smtp_content_feed_chunk(c, slice_of(zeros, sizeof zeros));
    chain_init(&taken, &t.budget);
    chain_split(&m->content, len + 1000, &taken);
    smtp_content_feed_chunk(c, SLICE_NONE); /* BDAT 0 LAST (P-104) */
    assert_int_equal(smtp_content_finish(c, &t.now), REPLY_OK);
    assert_int_equal(m->size, len + sizeof zeros);
    assert_int_equal(m->content.len, sizeof zeros - 1000);
    assert_int_equal(m->flags, MESSAGE_BINARY);
    chain_done(&taken);
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
        TEST(text_may_end_anywhere),
        TEST(a_binary_body_may_be_anything),
        TEST(chunks_have_one_limit),
        TEST(a_binary_body_streams),
    };
    return cmocka_run_group_tests_name("content_chunk", tests, NULL, NULL);
}
