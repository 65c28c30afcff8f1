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

/* A name of a family, and labels. */
static void check_name(struct slice line)
{
    size_t name = strspn(line.ptr, "abcdefghijklmnopqrstuvwxyz0123456789_");
    size_t end = slice_find(line, ' ');
    assert_true(name == end || (line.ptr[name] == '{' && line.ptr[end - 1] == '}'));
}

static void every_row_has_a_line_and_a_name_prometheus_accepts(void **state)
{
    static struct metrics one;
    const struct metrics *sets[] = { &one };
    struct buf out;
    buf_init(&out, 100000);
    assert_int_equal(metrics_format(sets, 1, &out), STATUS_OK);
    size_t lines = 0;
    for (struct slice s = buf_slice(&out); s.len; s = slice_skip(s, slice_find(s, '\n') + 1)) {
        bool is_comment = s.ptr[0] == '#';
        if (!is_comment)
            check_name(s);
        lines += !is_comment;
    }
    assert_int_equal(lines, METRIC_COUNT);
    buf_done(&out);
}

static void a_family_is_described_once(void **state)
{
    static struct metrics one;
    const struct metrics *sets[] = { &one };
    struct buf out;
    buf_init(&out, 100000);
    metrics_add(&one, METRIC_FAILURES_DNS, 3);
    assert_int_equal(metrics_format(sets, 1, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, slice_of("", 1)), STATUS_OK);
    const char *type = "# TYPE kilat_recipient_failures_total counter\n";
    const char *first = strstr(out.ptr, type);
    assert_non_null(first);
    assert_null(strstr(first + 1, type));
    assert_non_null(strstr(first, "kilat_recipient_failures_total{category=\"dns\"} 3\n"));
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
        cmocka_unit_test(every_row_has_a_line_and_a_name_prometheus_accepts),
        cmocka_unit_test(a_family_is_described_once),
        cmocka_unit_test(too_small_a_buffer_is_said),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
