/* SPDX-License-Identifier: Apache-2.0 */
/* Shows of which fates a sender is told, by NOTIFY and by what else was asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/config.h"
#include "core/base/must.h"
#include "core/relay/report.h"

#define NEVER   DSN_NOTIFY_NEVER
#define SUCCESS DSN_NOTIFY_SUCCESS
#define FAILURE DSN_NOTIFY_FAILURE
#define DELAY   DSN_NOTIFY_DELAY

static struct config cfg;
static struct message *message;
static struct delivery *delivery;

static int start(void **state)
{
    const uint32_t rcpts[] = { 1, 0 };
    cfg = (struct config){ .retry = { .bounces = true, .delay_notice_ms = 1000 } };
    message = message_new(NULL);
    message->sender = SLICE("s@y.example");
    message->accepted_ms = 5000;
    message_add_rcpt(message, SLICE("a@x.example"), SLICE("x.example"));
    message_add_rcpt(message, SLICE("b@x.example"), SLICE("x.example"));
    delivery = delivery_new(message, "id", SLICE("x.example"), 0, rcpts, 2);
    return 0;
}

static int stop(void **state)
{
    delivery_free(delivery);
    message_unref(message);
    return 0;
}

/* One letter per fate: delivered to a peer without DSN, to one with, failed, expired; later with no
 * notice due, with that of a delay, with that of a time that is over. -: nothing, F, D, R. */
static const struct {
    uint32_t notify;
    const char *actions;
} rows[] = {
    { 0, "--FF--D" },
    { NEVER, "-------" },   /* P-233 */
    { SUCCESS, "R------" }, /* P-232 */
    { FAILURE, "--FF---" },
    { DELAY, "-----DD" }, /* P-218 */
    { SUCCESS | FAILURE, "R-FF---" },
    { SUCCESS | FAILURE | DELAY, "R-FF-DD" },
};

static char letter(uint32_t notify, int column)
{
    static const enum retry_fate fates[] = { RETRY_DELIVERED, RETRY_DELIVERED, RETRY_FAILED,
                                             RETRY_EXPIRED,   RETRY_LATER,     RETRY_LATER,
                                             RETRY_LATER };
    static const uint32_t notices[] = { 0, 0, 0, 0, 0, DELIVERY_TOLD_DELAY, DELIVERY_TOLD_LATE };
    message->rcpts[0].notify = notify; /* the delivery's second */
    delivery->txn.passes_dsn = column == 1;
    return "-FDR"[report_action(&cfg, delivery, 1, fates[column], notices[column])];
}

static void by_notify_and_fate(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int column = 0; column < 7; column++)
            if (letter(rows[i].notify, column) != rows[i].actions[column])
                fail_msg("NOTIFY %u, column %d: %c", rows[i].notify, column,
                         letter(rows[i].notify, column));
}

/* P-227 */
static void never_about_a_bounce_or_to_nobody(void **state)
{
    assert_true(report_is_possible(message));
    message->flags = MESSAGE_BOUNCE;
    for (int column = 0; column < 7; column++)
        assert_int_equal(letter(SUCCESS | FAILURE | DELAY, column), '-');
    message->flags = 0;
    message->sender = SLICE_NONE;
    for (int column = 0; column < 7; column++)
        assert_int_equal(letter(SUCCESS | FAILURE | DELAY, column), '-');
}

/* retry.bounces is about failures. */
static void failures_may_be_dead_letters_instead(void **state)
{
    cfg.retry.bounces = false;
    for (int column = 0; column < 7; column++)
        assert_int_equal(letter(SUCCESS | FAILURE | DELAY, column), "R----DD"[column]);
}

/* P-68: BY=...T, whoever else reports. */
static void a_trace_tells_of_passing_on(void **state)
{
    message->flags = MESSAGE_BY_TRACE;
    assert_int_equal(letter(0, 0), 'R');
    assert_int_equal(letter(FAILURE, 1), 'R');
    assert_int_equal(letter(NEVER, 0), '-');
    assert_int_equal(letter(0, 4), '-');
}

static uint32_t due(int64_t wall_ms)
{
    struct now now = { .wall_ms = wall_ms };
    return report_notices_due(&cfg, delivery, &now);
}

/* P-218, P-67 */
static void a_delay_is_due_once(void **state)
{
    assert_int_equal(due(5999), 0);
    assert_int_equal(due(6000), DELIVERY_TOLD_DELAY);
    delivery->told = DELIVERY_TOLD_DELAY;
    assert_int_equal(due(60000), 0);
    delivery->told = 0;
    message->hold_until_ms = 8000; /* it could not go before */
    assert_int_equal(due(8999), 0);
    assert_int_equal(due(9000), DELIVERY_TOLD_DELAY);
    cfg.retry.delay_notice_ms = 0;
    assert_int_equal(due(INT64_MAX), 0);
}

/* P-68 */
static void a_time_that_is_over_is_due_once(void **state)
{
    cfg.retry.delay_notice_ms = 0;
    message->deliver_by_ms = 7000;
    assert_int_equal(due(6999), 0);
    assert_int_equal(due(7000), DELIVERY_TOLD_LATE);
    delivery->told = DELIVERY_TOLD_LATE;
    assert_int_equal(due(7000), 0);
    delivery->told = DELIVERY_TOLD_DELAY; /* the other notice is another thing */
    assert_int_equal(due(7000), DELIVERY_TOLD_LATE);
    message->flags = MESSAGE_BY_RETURN; /* then it fails instead */
    assert_int_equal(due(7000), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(by_notify_and_fate),
        CASE(never_about_a_bounce_or_to_nobody),
        CASE(failures_may_be_dead_letters_instead),
        CASE(a_trace_tells_of_passing_on),
        CASE(a_delay_is_due_once),
        CASE(a_time_that_is_over_is_due_once),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
