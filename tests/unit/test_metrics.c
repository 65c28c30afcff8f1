/* SPDX-License-Identifier: Apache-2.0 */
/* metrics: every row is shown with its sum, in Prometheus text format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/metrics.h"
#include "core/base/must.h"

static void sums_of_all_workers_are_shown(void **state)
{
    static struct metrics one, two;
    const struct metrics *sets[] = { &one, &two };
    metrics_add(&one, METRIC_ACCEPTED_TOTAL, 40);
    metrics_add(&two, METRIC_ACCEPTED_TOTAL, 2);
    metrics_set(&one, METRIC_SESSIONS_OPEN, 7);
    metrics_add(&one, METRIC_SESSIONS_OPEN, -2);
    struct buf out;
    buf_init(&out, 100000);
    assert_int_equal(metrics_format(sets, ARRAY_LEN(sets), &out), STATUS_OK);
    assert_int_equal(buf_append(&out, slice_of("", 1)), STATUS_OK);
    assert_non_null(strstr(out.ptr, "\n# TYPE kilat_messages_accepted_total counter\n"
                                    "kilat_messages_accepted_total 42\n"));
    assert_non_null(strstr(out.ptr, "\n# TYPE kilat_sessions_open gauge\nkilat_sessions_open 5\n"));
    buf_done(&out);
}

static void every_row_has_three_lines_and_a_name_prometheus_accepts(void **state)
{
    static struct metrics one;
    const struct metrics *sets[] = { &one };
    struct buf out;
    buf_init(&out, 100000);
    assert_int_equal(metrics_format(sets, 1, &out), STATUS_OK);
    size_t lines = 0;
    for (struct slice s = buf_slice(&out); s.len; s = slice_skip(s, slice_find(s, '\n') + 1)) {
        if (lines % 3 == 2) {
            size_t name = slice_find(s, ' ');
            assert_int_equal(strspn(s.ptr, "abcdefghijklmnopqrstuvwxyz0123456789_"), name);
        } else {
            assert_int_equal(s.ptr[0], '#');
        }
        lines++;
    }
    assert_int_equal(lines, 3 * METRIC_COUNT);
    buf_done(&out);
}

static void too_small_a_buffer_is_said(void **state)
{
    static struct metrics one;
    const struct metrics *sets[] = { &one };
    struct buf out;
    buf_init(&out, 500);
    assert_int_equal(metrics_format(sets, 1, &out), STATUS_FULL);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_all_workers_are_shown),
        cmocka_unit_test(every_row_has_three_lines_and_a_name_prometheus_accepts),
        cmocka_unit_test(too_small_a_buffer_is_said),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
