/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session: what a conversation on paper (tests/transcript) does not show: cuts anywhere, memory,
 * backpressure, counters, ownership.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/smtp_server.h"
#include <stdio.h>

#define HELLO    "EHLO client.test\r\n"
#define ENVELOPE "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
#define MESSAGE  ENVELOPE "Subject: x\r\nBcc: y\r\n z\r\n\r\nbody\r\n..dot\r\n.\r\n"

static struct test_server t;
static struct smtp_session s;

static int setup(void **state)
{
    test_server_init(&t);
    struct smtp_peer peer = { .client = SLICE("192.0.2.1"), .is_trusted = true };
    smtp_session_init(&s, &t.service, &peer, &t.now);
    return 0;
}

static int teardown(void **state)
{
    smtp_session_done(&s);
    return t.budget.used == 0 ? 0 : -1;
}

static void flush(void)
{
    buf_done(&s.out);
}

/* Says it all; everything must be taken. */
static void say(const char *text)
{
    struct slice in = slice_str(text);
    assert_int_equal(smtp_session_input(&s, in, &t.now), in.len);
}

static void expect(const char *replies)
{
    assert_true(slice_eq(buf_slice(&s.out), slice_str(replies)));
    flush();
}

/* --- the same, however it is cut ------------------------------------------------------------- */

/* Takes every message and gives each its verdict in turn; what was said and accepted, as one text.
 */
static char *converse(const struct slice *pieces, size_t count)
{
    struct buf all;
    unsigned verdicts = 0;
    buf_init(&all, 1 << 20);
    for (size_t i = 0; i < count; i++) {
        struct slice in = pieces[i];
        while (in.len > 0) {
            in = slice_skip(in, smtp_session_input(&s, in, &t.now));
            assert_int_equal(buf_append(&all, buf_slice(&s.out)), STATUS_OK);
            flush();
            if (s.wait != SMTP_WAIT_COMMIT)
                continue;
            struct message *m = smtp_session_take_message(&s);
            char *text = test_flatten(&m->content);
            assert_int_equal(buf_printf(&all, "[%s %u]\n", text, m->rcpt_count), STATUS_OK);
            smtp_session_verdict(&s, (enum smtp_verdict)(verdicts++ % 3), m->id, &t.now);
            free(text);
            message_unref(m);
        }
    }
    assert_int_equal(buf_append(&all, buf_slice(&s.out)), STATUS_OK);
    flush();
    assert_int_equal(buf_append(&all, slice_of("", 1)), STATUS_OK);
    return all.ptr;
}

static const char conversation[] = HELLO MESSAGE MESSAGE
    "NOOP\r\nBAD\r\nNOOP\nMAIL FROM:<>\r\nRSET\r\n" MESSAGE
    "MAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<x@y.example>\r\nRCPT TO:<x@Y.example>\r\nDATA\r\n"
    "no header\r\n\r\n.\n\r\n.\r\n"
    "HELO other.test\r\n" ENVELOPE "\r\n.\r\n" ENVELOPE ".\r\nVRFY x\r\nQUIT\r\nNOOP\r\n";

static void cut_in_two_anywhere(void **state)
{
    struct slice text = slice_of(conversation, sizeof conversation - 1);
    char *want = converse(&text, 1);
    assert_non_null(strstr(want, "221 2.0.0 Bye\r\n"));
    for (size_t cut = 1; cut < text.len; cut++) {
        teardown(NULL);
        setup(NULL);
        struct slice pieces[] = { slice_head(text, cut), slice_skip(text, cut) };
        char *got = converse(pieces, 2);
        assert_string_equal(got, want);
        free(got);
    }
    free(want);
}

static void byte_by_byte(void **state)
{
    struct slice text = slice_of(conversation, sizeof conversation - 1);
    struct slice pieces[sizeof conversation];
    char *want = converse(&text, 1);
    teardown(NULL);
    setup(NULL);
    for (size_t i = 0; i < text.len; i++)
        pieces[i] = slice_of(text.ptr + i, 1);
    char *got = converse(pieces, text.len);
    assert_string_equal(got, want);
    free(got);
    free(want);
}

/* --- the queue ------------------------------------------------------------------------------- */

static void no_input_is_taken_while_the_queue_decides(void **state)
{
    struct slice in = SLICE(HELLO MESSAGE "NOOP\r\n");
    assert_int_equal(smtp_session_input(&s, in, &t.now), in.len - 6);
    assert_int_equal(s.wait, SMTP_WAIT_COMMIT);
    assert_int_equal(smtp_session_input(&s, SLICE("NOOP\r\n"), &t.now), 0);
    assert_int_equal(smtp_session_deadline(&s), INT64_MAX);
    flush();
    struct message *m = smtp_session_take_message(&s);
    assert_null(s.message);
    assert_int_equal(m->refs, 1);
    assert_int_equal(m->size, m->content.len);
    assert_int_equal(m->accepted_ms, TEST_WALL_MS);
    assert_int_equal(m->flags, MESSAGE_DOT_LINES);
    smtp_session_verdict(&s, SMTP_QUEUED, "0123456789abcdefghjk", &t.now);
    expect("250 2.0.0 Ok: queued as 0123456789abcdefghjk\r\n");
    assert_int_equal(s.wait, SMTP_WAIT_INPUT);
    message_unref(m);
}

/* P-81, P-82: whoever owns the message when the session ends, frees it. */
static void an_untaken_message_goes_with_the_session(void **state)
{
    say(HELLO MESSAGE);
    assert_int_equal(s.wait, SMTP_WAIT_COMMIT);
    assert_true(t.budget.used > 0);
    smtp_session_done(&s);
    assert_int_equal(t.budget.used, 0);
    setup(state);
    say(HELLO ENVELOPE "Subject: half");
    assert_true(t.budget.used > 0);
    smtp_session_done(&s);
    assert_int_equal(t.budget.used, 0);
    setup(state);
}

static void the_time_for_a_verdict_is_not_the_clients(void **state)
{
    say(HELLO MESSAGE);
    message_unref(smtp_session_take_message(&s));
    test_server_pass_ms(&t, 600000);
    smtp_session_tick(&s, &t.now);
    assert_int_equal(s.wait, SMTP_WAIT_COMMIT);
    smtp_session_verdict(&s, SMTP_NOT_QUEUED, "", &t.now);
    assert_int_equal(smtp_session_deadline(&s), t.now.mono_ms + 300000);
}

/* --- memory ---------------------------------------------------------------------------------- */

static void an_idle_session_holds_its_name_only(void **state)
{
    assert_true(sizeof s <= 288);
    flush();
    say(HELLO);
    flush();
    say("NOO");
    assert_non_null(s.line.ptr);
    say("P\r\n");
    flush();
    say(MESSAGE);
    message_unref(smtp_session_take_message(&s));
    smtp_session_verdict(&s, SMTP_QUEUE_FULL, "", &t.now);
    flush();
    assert_null(s.line.ptr);
    assert_null(s.out.ptr);
    assert_null(s.message);
    assert_null(s.content);
    assert_string_equal(s.helo, "client.test");
}

/* P-21: nothing is kept of a line that is too long. */
static void a_long_line_costs_nothing(void **state)
{
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    flush();
    for (int i = 0; i < 5120; i++) { /* 40 MiB */
        assert_int_equal(smtp_session_input(&s, slice_of(junk, sizeof junk), &t.now), sizeof junk);
        assert_null(s.line.ptr);
    }
    expect("500 5.5.2 Line too long\r\n");
    say("\r\nNOOP\r\n");
    expect("250 2.0.0 Ok\r\n");
}

/* P-112: replies that nobody reads stop the input, and nothing is lost when they are read. */
static void unread_replies_stop_the_input(void **state)
{
    struct buf in;
    size_t replies = 0;
    buf_init(&in, 1 << 20);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buf_append(&in, SLICE("HELP\r\n")), STATUS_OK);
    flush();
    while (in.len > 0) {
        size_t taken = smtp_session_input(&s, buf_slice(&in), &t.now);
        assert_true(taken > 0);
        assert_true(s.out.len <= SMTP_OUT_HIGH + 512);
        assert_true(in.len == taken || s.out.len > SMTP_OUT_HIGH);
        assert_int_equal(s.wait, SMTP_WAIT_INPUT);
        if (s.out.len > SMTP_OUT_HIGH)
            assert_int_equal(smtp_session_input(&s, SLICE("NOOP\r\n"), &t.now), 0);
        for (uint32_t i = 0; i < s.out.len; i++)
            replies += s.out.ptr[i] == '\n';
        flush();
        buf_consume(&in, (uint32_t)taken);
    }
    assert_int_equal(replies, 10000);
    buf_done(&in);
}

/* --- deadlines, shutdown (P-114, P-120) ------------------------------------------------------- */

static void the_nearest_deadline_counts(void **state)
{
    int64_t start = t.now.mono_ms;
    assert_int_equal(smtp_session_deadline(&s), start + 300000);
    test_server_pass_ms(&t, 100000);
    say(HELLO);
    assert_int_equal(smtp_session_deadline(&s), start + 400000);
    say(ENVELOPE);
    assert_int_equal(smtp_session_deadline(&s), start + 280000);
    t.server.limits.transaction_timeout_ms = 170000;
    assert_int_equal(smtp_session_deadline(&s), start + 270000);
    t.server.limits.session_timeout_ms = 150000;
    assert_int_equal(smtp_session_deadline(&s), start + 150000);
    smtp_session_tick(&s, &t.now);
    assert_int_equal(s.state, SMTP_DATA);
    test_server_pass_ms(&t, 50000);
    flush();
    smtp_session_tick(&s, &t.now);
    expect("421 4.4.2 Timeout, closing the connection\r\n");
    assert_int_equal(s.wait, SMTP_WAIT_CLOSE);
    assert_int_equal(smtp_session_deadline(&s), INT64_MAX);
    smtp_session_tick(&s, &t.now);
    expect("");
    assert_int_equal(t.budget.used, 0);
}

static void draining_leaves_a_commit_alone(void **state)
{
    say(HELLO MESSAGE);
    flush();
    t.server.is_draining = true;
    smtp_session_drain(&s, &t.now);
    assert_int_equal(s.wait, SMTP_WAIT_COMMIT);
    message_unref(smtp_session_take_message(&s));
    smtp_session_verdict(&s, SMTP_QUEUED, "x", &t.now);
    expect("250 2.0.0 Ok: queued as x\r\n421 4.3.2 Shutting down, try again later\r\n");
    assert_int_equal(s.wait, SMTP_WAIT_CLOSE);
    assert_string_equal(s.end_reason, "shutdown");
    smtp_session_drain(&s, &t.now);
    expect("");
}

/* --- the rest -------------------------------------------------------------------------------- */

static void commands_and_refusals_are_counted(void **state)
{
    say(HELLO "BAD\r\nMAIL FROM:<a@b.example> SIZE=99999\r\n" MESSAGE);
    message_unref(smtp_session_take_message(&s));
    smtp_session_verdict(&s, SMTP_NOT_QUEUED, "", &t.now);
    assert_int_equal(metrics_get(&t.metrics, METRIC_COMMANDS_TOTAL), 6);
    assert_int_equal(metrics_get(&t.metrics, METRIC_REPLIES_5XX_TOTAL), 2);
    assert_int_equal(metrics_get(&t.metrics, METRIC_REPLIES_4XX_TOTAL), 1);
}

static void the_body_begins_behind_the_empty_line(void **state)
{
    say(HELLO);
    assert_false(smtp_session_content_is_body(&s));
    say(ENVELOPE "Subject: x\r\n");
    assert_false(smtp_session_content_is_body(&s));
    say("\r\n");
    assert_true(smtp_session_content_is_body(&s));
    say(".\r\n");
    assert_false(smtp_session_content_is_body(&s));
}

static void say_rcpt(char letter, int number)
{
    char line[64];
    snprintf(line, sizeof line, "RCPT TO:<%c%d@%cxample.org>\r\n", 'u', number, letter);
    say(line);
    assert_true(s.out.len > 0 && s.out.ptr[0] == '2');
    flush();
}

/* P-52, P-54: a thousand recipients, each said four times. */
static void many_recipients_once_each(void **state)
{
    t.server.limits.recipients_max = 1000;
    say(HELLO "MAIL FROM:<>\r\n");
    for (int i = 0; i < 1000; i++) {
        say_rcpt('e', i);
        say_rcpt('E', i);
    }
    for (int i = 999; i >= 0; i--) {
        say_rcpt('E', i);
        say_rcpt('e', i);
    }
    assert_int_equal(s.message->rcpt_count, 1000);
    for (int i = 0; i < 1000; i++) {
        char want[64];
        snprintf(want, sizeof want, "u%d@example.org", i);
        assert_true(slice_eq(s.message->rcpts[i].address, slice_str(want)));
        assert_true(slice_eq(s.message->rcpts[i].domain, SLICE("example.org")));
    }
}

/* The table of recipients goes with its transaction, however that ends. */
static void the_next_transaction_knows_no_recipient(void **state)
{
    static const char *const ends[] = { "RSET\r\n", HELLO, "DATA\r\n.\n\r\n.\r\n",
                                        "DATA\r\n.\r\n" };
    say(HELLO);
    for (size_t i = 0; i <= ARRAY_LEN(ends); i++) {
        say("MAIL FROM:<a@b.example>\r\n");
        flush();
        for (int n = 0; n < 50; n++)
            say_rcpt('e', n);
        assert_int_equal(s.message->rcpt_count, 50);
        if (i == ARRAY_LEN(ends))
            break;
        say(ends[i]);
        if (s.wait != SMTP_WAIT_COMMIT)
            continue;
        message_unref(smtp_session_take_message(&s));
        smtp_session_verdict(&s, SMTP_QUEUED, "x", &t.now);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cut_in_two_anywhere),
        TEST(byte_by_byte),
        TEST(no_input_is_taken_while_the_queue_decides),
        TEST(an_untaken_message_goes_with_the_session),
        TEST(the_time_for_a_verdict_is_not_the_clients),
        TEST(an_idle_session_holds_its_name_only),
        TEST(a_long_line_costs_nothing),
        TEST(unread_replies_stop_the_input),
        TEST(the_nearest_deadline_counts),
        TEST(draining_leaves_a_commit_alone),
        TEST(commands_and_refusals_are_counted),
        TEST(the_body_begins_behind_the_empty_line),
        TEST(many_recipients_once_each),
        TEST(the_next_transaction_knows_no_recipient),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
