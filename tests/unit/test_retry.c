/* SPDX-License-Identifier: Apache-2.0 */
/* Shows what each stage and code becomes, for a recipient and for a destination, and how long to
 * wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/config.h"
#include "core/base/entropy.h"
#include "core/relay/retry.h"

/* One letter per fate: Delivered, Later, Failed; for codes 250, 354, 0, 450, 550. */
static const struct {
    enum outcome_stage stage;
    const char *fates;
} fate_rows[] = {
    { OUTCOME_DNS, "LLLLF" },      /* P-210, P-211 */
    { OUTCOME_CONNECT, "LLLLL" },  /* P-176 */
    { OUTCOME_GREETING, "LLLLF" }, /* P-162 */
    { OUTCOME_EHLO, "LLLLF" },     { OUTCOME_MAIL, "LLLLF" },
    { OUTCOME_RCPT, "LLLLF" },                                   /* P-181 */
    { OUTCOME_DATA, "LLLLF" },     { OUTCOME_DOT, "DLLLF" },     /* P-185: nothing else delivers */
    { OUTCOME_LOST, "LLLLL" },     { OUTCOME_UNKNOWN, "LLLLL" }, /* P-185 */
    { OUTCOME_LOCAL, "LLLLF" },                                  /* P-178 */
};

static const int codes[] = { 250, 354, 0, 450, 550 };

static enum retry_fate fate_of_letter(char letter)
{
    switch (letter) {
    case 'D': return RETRY_DELIVERED;
    case 'F': return RETRY_FAILED;
    default: return RETRY_LATER;
    }
}

static void fates_by_stage_and_code(void **state)
{
    struct now now = { .wall_ms = 1000 };
    for (size_t i = 0; i < ARRAY_LEN(fate_rows); i++) {
        for (size_t k = 0; k < ARRAY_LEN(codes); k++) {
            struct rcpt_outcome o = { .stage = fate_rows[i].stage, .code = codes[k] };
            enum retry_fate want = fate_of_letter(fate_rows[i].fates[k]);
            if (retry_fate(&o, NULL, 1001, &now) != want)
                fail_msg("stage %d code %d", (int)o.stage, o.code);
            /* P-219: at its time, what is not decided has expired; verdicts stay. */
            enum retry_fate late = want == RETRY_LATER ? RETRY_EXPIRED : want;
            if (retry_fate(&o, NULL, 1000, &now) != late)
                fail_msg("late: stage %d code %d", (int)o.stage, o.code);
        }
    }
}

/* P-166: the first digit decides, whatever the enhanced code says. */
static void the_enhanced_code_decides_nothing(void **state)
{
    struct now now = { .wall_ms = 0 };
    struct rcpt_outcome o = { .stage = OUTCOME_RCPT, .code = 450, .enhanced = "5.1.1" };
    assert_int_equal(retry_fate(&o, NULL, 1, &now), RETRY_LATER);
}

/* A rule keeps a 5xx and ends a 4xx; not a delivery, nor what no reply could end. */
static void a_rule_says_otherwise(void **state)
{
    static const struct {
        enum outcome_stage stage;
        int code;
        uint32_t actions;
        enum retry_fate fate;
    } rows[] = {
        { OUTCOME_RCPT, 550, REPLY_RETRY, RETRY_LATER },
        { OUTCOME_RCPT, 450, REPLY_RETRY, RETRY_LATER },
        { OUTCOME_RCPT, 450, REPLY_BOUNCE, RETRY_FAILED },
        { OUTCOME_RCPT, 550, REPLY_BOUNCE | REPLY_SLOW | REPLY_SUSPEND, RETRY_FAILED },
        { OUTCOME_DOT, 250, REPLY_BOUNCE, RETRY_DELIVERED },
        { OUTCOME_UNKNOWN, 451, REPLY_BOUNCE, RETRY_LATER },
        { OUTCOME_LOST, 421, REPLY_BOUNCE, RETRY_LATER },
    };
    struct now now = { .wall_ms = 1000 };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rcpt_outcome o = { .stage = rows[i].stage, .code = rows[i].code };
        struct reply_verdict v = { .actions = rows[i].actions, .slow_factor = 1 };
        assert_int_equal(retry_fate(&o, &v, 1001, &now), rows[i].fate);
    }
    struct rcpt_outcome o = { .stage = OUTCOME_RCPT, .code = 550 };
    struct reply_verdict v = { .actions = REPLY_RETRY, .slow_factor = 1 };
    assert_int_equal(retry_fate(&o, &v, 1000, &now), RETRY_EXPIRED);
}

static void rules_make_waits_longer(void **state)
{
    struct entropy e;
    uint64_t seed = 5;
    entropy_init_seeded(&e, &seed);
    assert_int_equal(retry_longer_ms(1000, 1, 0, &e), 1000);
    assert_int_equal(retry_longer_ms(1000, 4, 0, &e), 4000);
    assert_int_equal(retry_longer_ms(1000, 4, 3000, &e), 4000);
    assert_in_range(retry_longer_ms(1000, 2, 60000, &e), 60000, 66000);
    assert_int_equal(retry_longer_ms(UINT32_MAX, 100, 0, &e), UINT32_MAX);
}

/* One letter per answer: Next host, Defer all, Fail all; for 4xx and 5xx, with a next host and
 * without. */
static const struct {
    enum outcome_stage stage;
    const char *with_next, *last;
} connection_rows[] = {
    { OUTCOME_DNS, "DF", "DF" },      /* P-210, P-211: there is no other host */
    { OUTCOME_CONNECT, "NN", "DD" },  /* P-176: always transient */
    { OUTCOME_GREETING, "NN", "DF" }, /* P-162 */
    { OUTCOME_EHLO, "NN", "DF" },     { OUTCOME_LOST, "NN", "DD" },
};

static char letter_of(enum retry_connection c)
{
    return "NDF"[c];
}

static void connections_by_stage_and_code(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(connection_rows); i++) {
        for (size_t k = 0; k < 2; k++) {
            struct rcpt_outcome o = { connection_rows[i].stage, k ? 554 : 421, "", SLICE_NONE };
            assert_int_equal(letter_of(retry_connection_fate(&o, true)),
                             connection_rows[i].with_next[k]);
            assert_int_equal(letter_of(retry_connection_fate(&o, false)),
                             connection_rows[i].last[k]);
        }
    }
}

static uint32_t schedule[] = { 1000, 5000, 60000 };

static void the_schedule_repeats_its_last(void **state)
{
    struct config cfg = { .retry = { .schedule_ms = schedule, .schedule_len = 3 } };
    struct entropy e;
    uint64_t seed = 1;
    entropy_init_seeded(&e, &seed);
    assert_int_equal(retry_delay_ms(&cfg, 1, &e), 1000);
    assert_int_equal(retry_delay_ms(&cfg, 2, &e), 5000);
    assert_int_equal(retry_delay_ms(&cfg, 3, &e), 60000);
    assert_int_equal(retry_delay_ms(&cfg, 4, &e), 60000);
    assert_int_equal(retry_delay_ms(&cfg, UINT32_MAX, &e), 60000);
}

/* P-217: both sides of the schedule, all of the range, nothing outside it. */
static void jitter_keeps_its_bounds(void **state)
{
    struct config cfg = { .retry = {
                              .schedule_ms = schedule, .schedule_len = 3, .jitter_percent = 20 } };
    struct entropy e;
    uint64_t seed = 7;
    uint32_t least = UINT32_MAX, most = 0;
    entropy_init_seeded(&e, &seed);
    for (int i = 0; i < 20000; i++) {
        uint32_t delay = retry_delay_ms(&cfg, 1, &e);
        least = delay < least ? delay : least;
        most = delay > most ? delay : most;
    }
    assert_int_equal(least, 800);
    assert_int_equal(most, 1200);
}

/* The longest that the settings allow does not overflow. */
static void the_longest_wait_fits(void **state)
{
    uint32_t week = 7 * 24 * 3600 * 1000u;
    struct config cfg = { .retry = {
                              .schedule_ms = &week, .schedule_len = 1, .jitter_percent = 90 } };
    struct entropy e;
    uint64_t seed = 3;
    entropy_init_seeded(&e, &seed);
    for (int i = 0; i < 1000; i++)
        assert_in_range(retry_delay_ms(&cfg, 9, &e), week / 10, week / 10 * 19 + 10);
}

/* P-68: an attempt when the time is over, not after it. */
static void a_wait_ends_when_the_time_is_over(void **state)
{
    struct now now = { .wall_ms = 10000 };
    struct message m = { .deliver_by_ms = 0 };
    assert_int_equal(retry_cap_delay_ms(5000, &m, &now), 5000);
    m.deliver_by_ms = 12000;
    assert_int_equal(retry_cap_delay_ms(5000, &m, &now), 2000);
    m.deliver_by_ms = 15001;
    assert_int_equal(retry_cap_delay_ms(5000, &m, &now), 5000);
    m.deliver_by_ms = 10000; /* over: as ever */
    assert_int_equal(retry_cap_delay_ms(5000, &m, &now), 5000);
    m.deliver_by_ms = INT64_MAX;
    assert_int_equal(retry_cap_delay_ms(UINT32_MAX, &m, &now), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fates_by_stage_and_code),
        cmocka_unit_test(the_enhanced_code_decides_nothing),
        cmocka_unit_test(a_rule_says_otherwise),
        cmocka_unit_test(rules_make_waits_longer),
        cmocka_unit_test(connections_by_stage_and_code),
        cmocka_unit_test(the_schedule_repeats_its_last),
        cmocka_unit_test(jitter_keeps_its_bounds),
        cmocka_unit_test(the_longest_wait_fits),
        cmocka_unit_test(a_wait_ends_when_the_time_is_over),
    };
    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
