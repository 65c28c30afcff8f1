/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench tools count with: times in a histogram, messages by number, contents of a size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/body.h"
#include "bench/histogram.h"
#include "bench/numbers.h"
#include "core/base/must.h"

static void nothing_was_recorded(void **state)
{
    struct histogram *h = histogram_new();
    assert_int_equal(histogram_at(h, 50), 0);
    free(h);
}

/* Every recorded time alone comes back, at most a two-thousandth too large. */
static void times_have_three_digits(void **state)
{
    for (int64_t ns = 0; ns < INT64_C(7000000000000); ns = ns * 5 / 4 + 1) {
        struct histogram *h = histogram_new();
        histogram_record(h, ns);
        histogram_record(h, ns * 2); /* so that the most does not say it */
        int64_t found = histogram_at(h, 50);
        assert_true(found >= ns && found <= ns + ns / 1000);
        free(h);
    }
}

static void percentiles_of_a_ramp(void **state)
{
    struct histogram *h = histogram_new();
    for (int64_t ns = 1; ns <= 1000; ns++)
        histogram_record(h, ns);
    assert_int_equal(histogram_at(h, 50), 500);
    assert_int_equal(histogram_at(h, 99), 990);
    assert_int_equal(histogram_at(h, 99.9), 999);
    assert_int_equal(histogram_at(h, 100), 1000);
    assert_int_equal(h->least_ns, 1);
    assert_int_equal(h->most_ns, 1000);
    histogram_record(h, -5); /* a clock that stepped back */
    histogram_record(h, INT64_MAX);
    assert_int_equal(h->count, 1002);
    free(h);
}

static char *printed(const struct numbers *n)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    numbers_print(n, out);
    fclose(out);
    return text;
}

static void numbers_once_and_twice(void **state)
{
    static const uint64_t some[] = { 0, 1, 2, 5, 63, 64, 65, 1000000, 5 };
    struct numbers n;
    numbers_init(&n);
    assert_false(numbers_has(&n, 0));
    for (size_t i = 0; i < ARRAY_LEN(some); i++)
        numbers_add(&n, some[i]);
    assert_int_equal(n.count, 8);
    assert_int_equal(n.duplicates, 1);
    assert_true(numbers_has(&n, 1000000));
    assert_false(numbers_has(&n, 999999));
    assert_false(numbers_has(&n, UINT32_MAX));
    char *text = printed(&n);
    assert_string_equal(text, "0-2,5,63-65,1000000");
    free(text);
    numbers_done(&n);
}

static void the_field_of_a_run(void **state)
{
    uint32_t run;
    uint64_t number;
    assert_true(
        numbers_find(SLICE("Received: x\r\nX-Bench-Run: 00c0ffee-0000000042\r\n"), &run, &number));
    assert_int_equal(run, 0xc0ffee);
    assert_int_equal(number, 42);
    assert_false(numbers_find(SLICE("X-Bench-Run: 00c0ffee-000000004"), &run, &number));
    assert_false(numbers_find(SLICE("Subject: x\r\n"), &run, &number));
    assert_false(numbers_find(SLICE_NONE, &run, &number));
}

/* Lines end in CR LF, none is too long, none begins with a dot, the size is exact. */
static void check_body(uint32_t octets, bool is_noise)
{
    char *body = body_make(octets, is_noise);
    uint32_t column = 0;
    for (uint32_t i = 0; i < octets; i++) {
        assert_true(column > 0 || body[i] != '.');
        assert_true((body[i] == '\n') == (i > 0 && body[i - 1] == '\r'));
        column = body[i] == '\n' ? 0 : column + 1;
        assert_true(column <= 80);
    }
    assert_memory_equal(body + octets - 2, "\r\n", 2);
    free(body);
}

static void bodies_of_every_size(void **state)
{
    for (uint32_t octets = 200; octets < 700; octets++) {
        check_body(octets, false);
        check_body(octets, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_was_recorded),  cmocka_unit_test(times_have_three_digits),
        cmocka_unit_test(percentiles_of_a_ramp), cmocka_unit_test(numbers_once_and_twice),
        cmocka_unit_test(the_field_of_a_run),    cmocka_unit_test(bodies_of_every_size),
    };
    return cmocka_run_group_tests_name("counting", tests, NULL, NULL);
}
