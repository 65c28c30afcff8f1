/* SPDX-License-Identifier: Apache-2.0 */
/* Shows how queue ages are counted, forgotten and shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/metrics.h"
#include "core/base/must.h"
#include <stdio.h>

#define WINDOW_MS 300000

static struct config_tenant tenants[QUEUE_AGE_TENANTS + 10];
static char names[QUEUE_AGE_TENANTS + 10][8];
static struct config cfg;
static struct queue_age *ages[2];
static struct buf out;

static int start(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(tenants); i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tenants[i].name = names[i];
    }
    cfg = (struct config){ .tenants = tenants, .tenant_count = ARRAY_LEN(tenants) };
    for (int i = 0; i < 2; i++) {
        ages[i] = queue_age_new(&cfg);
        queue_age_tick(ages[i], 1000000);
    }
    buf_init(&out, 1 << 20);
    return 0;
}

static int stop(void **state)
{
    for (int i = 0; i < 2; i++)
        queue_age_free(ages[i]);
    buf_done(&out);
    return 0;
}

static void note(int worker, enum mail_lane lane, const char *tenant, int64_t age_ms, int times)
{
    while (times-- > 0)
        queue_age_note(ages[worker], lane, slice_str(tenant), age_ms);
}

static const char *page(void)
{
    buf_clear(&out);
    assert_int_equal(queue_age_format((const struct queue_age *const *)ages, 2, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, slice_of("", 1)), STATUS_OK);
    return out.ptr;
}

static void has(const char *line)
{
    char want[200];
    const char *text = page();
    snprintf(want, sizeof want, "\n%s\n", line);
    if (!strstr(text, want))
        fail_msg("no line %s in\n%s", line, text);
}

static void has_not(const char *part)
{
    if (strstr(page(), part))
        fail_msg("%s is there", part);
}

static void series_come_with_their_first_delivery(void **state)
{
    has("# TYPE kilat_queue_age_seconds histogram");
    has("# TYPE kilat_queue_age_p99_seconds gauge");
    has_not("{");
    note(0, LANE_URGENT, "t1", 20, 1);
    has("kilat_queue_age_seconds_bucket{lane=\"urgent\",tenant=\"t1\",le=\"0.01\"} 0");
    has("kilat_queue_age_seconds_bucket{lane=\"urgent\",tenant=\"t1\",le=\"0.025\"} 1");
    has("kilat_queue_age_seconds_bucket{lane=\"urgent\",tenant=\"t1\",le=\"86400\"} 1");
    has("kilat_queue_age_seconds_sum{lane=\"urgent\",tenant=\"t1\"} 0.020");
    has_not("bulk");
    has_not("t2");
}

static void workers_add_up(void **state)
{
    note(0, LANE_BULK, "t1", 100, 3);
    note(1, LANE_BULK, "t1", 90000000, 1); /* beyond the last bound */
    note(1, LANE_BULK, "t1", -5, 1);
    has("kilat_queue_age_seconds_bucket{lane=\"bulk\",tenant=\"t1\",le=\"0.01\"} 1");
    has("kilat_queue_age_seconds_bucket{lane=\"bulk\",tenant=\"t1\",le=\"86400\"} 4");
    has("kilat_queue_age_seconds_bucket{lane=\"bulk\",tenant=\"t1\",le=\"+Inf\"} 5");
    has("kilat_queue_age_seconds_count{lane=\"bulk\",tenant=\"t1\"} 5");
    has("kilat_queue_age_p99_seconds{lane=\"bulk\",tenant=\"t1\"} 86400.000");
}

static void the_number_of_labels_is_bounded(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(tenants); i++)
        note(0, LANE_NORMAL, names[i], 1, 1);
    note(0, LANE_NORMAL, "", 1, 2);
    note(0, LANE_NORMAL, "gone", 1, 1);
    has("kilat_queue_age_seconds_count{lane=\"normal\",tenant=\"t49\"} 1");
    has_not("\"t50\"");
    has("kilat_queue_age_seconds_count{lane=\"normal\",tenant=\"(other)\"} 10");
    has("kilat_queue_age_seconds_count{lane=\"normal\",tenant=\"\"} 3");
}

static void quantiles_lie_in_their_bucket(void **state)
{
    note(0, LANE_NORMAL, "", 70, 98);
    note(1, LANE_NORMAL, "", 40000, 2);
    has("kilat_queue_age_p50_seconds{lane=\"normal\",tenant=\"\"} 0.076");
    has("kilat_queue_age_p99_seconds{lane=\"normal\",tenant=\"\"} 45.000");
}

/* The histogram keeps what the quantiles forget. */
static void quantiles_are_of_the_last_minutes(void **state)
{
    note(0, LANE_NORMAL, "", 40000, 10);
    queue_age_tick(ages[0], 1000000 + WINDOW_MS);
    note(0, LANE_NORMAL, "", 1, 90);
    has("kilat_queue_age_p99_seconds{lane=\"normal\",tenant=\"\"} 57.000");
    queue_age_tick(ages[0], 1000000 + 2 * WINDOW_MS);
    has("kilat_queue_age_p99_seconds{lane=\"normal\",tenant=\"\"} 0.010");
    note(0, LANE_NORMAL, "", 40000, 1);
    has("kilat_queue_age_p50_seconds{lane=\"normal\",tenant=\"\"} 0.005");
    queue_age_tick(ages[1],
                   1000000 + 4 * WINDOW_MS); /* a worker that has nothing to do still ticks */
    has_not("p99_seconds{");
    has("kilat_queue_age_seconds_count{lane=\"normal\",tenant=\"\"} 101");
}

static void what_does_not_fit_is_said(void **state)
{
    struct buf little;
    note(0, LANE_NORMAL, "", 1, 1);
    for (uint32_t size = 1; size < 1500; size += 37) {
        buf_init(&little, size);
        assert_int_equal(queue_age_format((const struct queue_age *const *)ages, 2, &little),
                         STATUS_FULL);
        buf_done(&little);
    }
}

static void they_are_a_part_of_all_metrics(void **state)
{
    struct metrics with = { .ages = ages[0] }, without = { .ages = NULL };
    const struct metrics *sets[] = { &without, &with };
    note(0, LANE_NORMAL, "", 1, 1);
    assert_int_equal(metrics_format(sets, 2, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, slice_of("", 1)), STATUS_OK);
    assert_non_null(
        strstr(out.ptr, "kilat_queue_age_seconds_count{lane=\"normal\",tenant=\"\"} 1\n"));
}

static void tenants_are_found(void **state)
{
    struct tenant_index index;
    struct config none = { 0 };
    tenant_index_init(&index, &cfg);
    for (uint32_t i = 0; i < ARRAY_LEN(tenants); i++)
        assert_int_equal(tenant_index_find(&index, slice_str(names[i])), i);
    assert_int_equal(tenant_index_find(&index, SLICE("t")), ARRAY_LEN(tenants));
    assert_int_equal(tenant_index_find(&index, SLICE_NONE), ARRAY_LEN(tenants));
    tenant_index_done(&index);
    tenant_index_init(&index, &none);
    assert_int_equal(tenant_index_find(&index, SLICE("t1")), 0);
    tenant_index_done(&index);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(series_come_with_their_first_delivery), CASE(workers_add_up),
        CASE(the_number_of_labels_is_bounded),       CASE(quantiles_lie_in_their_bucket),
        CASE(quantiles_are_of_the_last_minutes),     CASE(what_does_not_fit_is_said),
        CASE(they_are_a_part_of_all_metrics),        CASE(tenants_are_found),
    };
    return cmocka_run_group_tests_name("queue age", tests, NULL, NULL);
}
