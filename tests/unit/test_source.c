/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which source a message leaves from, and how much may leave from one on which day. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/source.h"

#define DAY_MS INT64_C(86400000)

static uint32_t days[] = { 50, 0, 200 };
static struct config_source sources[] = {
    { .name = "a", .weight = 10 },
    { .name = "b", .weight = 30 },
    { .name = "c", .weight = 10, .warmup = days, .warmup_count = 3, .first_day = 100 },
};
static const struct config cfg = { .sources = sources, .source_count = ARRAY_LEN(sources) };
static struct config_route route = { .relay = RELAY_MX, .source_set = 3 };

static const struct config_source *pick(int n, uint64_t spent)
{
    char id[16];
    snprintf(id, sizeof id, "id%d", n);
    return source_pick(&cfg, &route, id, spent);
}

static void a_message_keeps_its_source(void **state)
{
    for (int n = 0; n < 100; n++)
        assert_ptr_equal(pick(n, 0), pick(n, 0));
}

static void shares_follow_the_weights(void **state)
{
    int of_a = 0;
    for (int n = 0; n < 10000; n++) {
        assert_ptr_not_equal(pick(n, 0), &sources[2]); /* the route does not name it */
        of_a += pick(n, 0) == &sources[0];
    }
    assert_in_range(of_a, 2300, 2700);
}

static void one_that_is_spent_is_left_out(void **state)
{
    for (int n = 0; n < 100; n++) {
        assert_ptr_equal(pick(n, 1), &sources[1]);
        assert_ptr_equal(pick(n, 2 | 4), &sources[0]);
        assert_ptr_equal(pick(n, 3), pick(n, 0)); /* all are: who waits keeps its own */
    }
}

static void a_route_without_sources_has_none(void **state)
{
    const struct config_route none = { .relay = RELAY_MX };
    const struct config_route held = { .relay = RELAY_HOLD, .source_set = 3 };
    assert_null(source_pick(&cfg, &none, "x", 0));
    assert_null(source_pick(&cfg, &held, "x", 0));
}

static void days_are_utc(void **state)
{
    assert_int_equal(source_day(100 * DAY_MS - 1), 99);
    assert_int_equal(source_day(100 * DAY_MS), 100);
    assert_int_equal(source_next_day_ms(100 * DAY_MS), 101 * DAY_MS);
    assert_int_equal(source_next_day_ms(101 * DAY_MS - 1), 101 * DAY_MS);
}

static void a_warm_up_has_a_first_and_a_last_day(void **state)
{
    static const struct {
        int32_t day;
        uint32_t allowance;
    } rows[] = { { 0, 0 },   { 99, 0 },    { 100, 50 },
                 { 101, 0 }, { 102, 200 }, { 103, SOURCE_UNLIMITED } };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(source_allowance(&sources[2], rows[i].day), rows[i].allowance);
    assert_int_equal(source_allowance(&sources[0], 0), SOURCE_UNLIMITED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_keeps_its_source),
        cmocka_unit_test(shares_follow_the_weights),
        cmocka_unit_test(one_that_is_spent_is_left_out),
        cmocka_unit_test(a_route_without_sources_has_none),
        cmocka_unit_test(days_are_utc),
        cmocka_unit_test(a_warm_up_has_a_first_and_a_last_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
