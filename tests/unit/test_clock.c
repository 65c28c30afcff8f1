/* SPDX-License-Identifier: Apache-2.0 */
/* clock (P-226): dates against the C library over four thousand years, and at the edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/must.h"
#include <time.h>

static void known_instants(void **state)
{
    static const struct {
        int64_t wall_ms;
        const char *rfc5322, *rfc3339;
    } rows[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z" },
        { -1, "Wed, 31 Dec 1969 23:59:59 +0000", "1969-12-31T23:59:59.999Z" },
        { 951782400000, "Tue, 29 Feb 2000 00:00:00 +0000", "2000-02-29T00:00:00.000Z" },
        { 1795392741042, "Mon, 23 Nov 2026 00:12:21 +0000", "2026-11-23T00:12:21.042Z" },
        { INT64_MAX, "Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31T23:59:59.999Z" },
        { INT64_MIN, "Sat, 01 Jan 0000 00:00:00 +0000", "0000-01-01T00:00:00.000Z" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[CLOCK_DATE_MAX];
        assert_int_equal(clock_format_rfc5322(rows[i].wall_ms, out), strlen(rows[i].rfc5322));
        assert_string_equal(out, rows[i].rfc5322);
        assert_int_equal(clock_format_rfc3339(rows[i].wall_ms, out), strlen(rows[i].rfc3339));
        assert_string_equal(out, rows[i].rfc3339);
    }
}

static void agrees_with_the_c_library(void **state)
{
    int64_t seconds = -30000000000; /* the year 1019 */
    for (int i = 0; i < 200000; i++, seconds += 654321) {
        char expect[CLOCK_DATE_MAX], out[CLOCK_DATE_MAX];
        time_t t = seconds;
        struct tm tm;
        assert_non_null(gmtime_r(&t, &tm));
        assert_true(strftime(expect, sizeof expect, "%a, %d %b %Y %H:%M:%S +0000", &tm) > 0);
        (void)clock_format_rfc5322(seconds * 1000 + 17, out);
        assert_string_equal(out, expect);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_instants),
        cmocka_unit_test(agrees_with_the_c_library),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
