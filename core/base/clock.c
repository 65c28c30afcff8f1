/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock - dates from milliseconds, in UTC, without the C library's time zone state. Every message
 * carries a Received date and every log line a stamp, so this avoids printf.
 *
 * Limits: years 0000 to 9999; instants outside are shown as the nearest one inside, because a
 * broken clock must not make a broken header.
 */
#include "core/base/clock.h"

#define DAY_MS    INT64_C(86400000)
#define WALL_MIN  (INT64_C(-719528) * DAY_MS)     /* 0000-01-01 */
#define WALL_LAST (INT64_C(2932897) * DAY_MS - 1) /* 9999-12-31T23:59:59.999 */

struct civil {
    int64_t days; /* since 1970-01-01 */
    int year, month, day, hour, minute, second, millisecond;
};

/* Howard Hinnant's civil_from_days: eras of 400 years whose years begin in March. */
static void set_date(struct civil *c)
{
    int64_t z = c->days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int doe = (int)(z - era * 146097);
    int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int mp = (5 * doy + 2) / 153;
    c->day = doy - (153 * mp + 2) / 5 + 1;
    c->month = mp < 10 ? mp + 3 : mp - 9;
    c->year = (int)(yoe + era * 400) + (c->month <= 2);
}

static struct civil civil_of(int64_t wall_ms)
{
    if (wall_ms < WALL_MIN)
        wall_ms = WALL_MIN;
    if (wall_ms > WALL_LAST)
        wall_ms = WALL_LAST;
    int64_t days = wall_ms / DAY_MS - (wall_ms % DAY_MS < 0);
    int rest = (int)(wall_ms - days * DAY_MS);
    struct civil c = { .days = days };
    c.millisecond = rest % 1000;
    c.second = rest / 1000 % 60;
    c.minute = rest / 60000 % 60;
    c.hour = rest / 3600000;
    set_date(&c);
    return c;
}

static char *put_digits(char *at, int value, int width)
{
    for (int i = width - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + width;
}

static char *put_text(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

static char *put_time(char *at, const struct civil *c)
{
    at = put_digits(at, c->hour, 2);
    *at++ = ':';
    at = put_digits(at, c->minute, 2);
    *at++ = ':';
    return put_digits(at, c->second, 2);
}

size_t clock_format_rfc5322(int64_t wall_ms, char out[CLOCK_DATE_MAX])
{
    static const char weekdays[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct civil c = civil_of(wall_ms);
    int weekday = (int)(((c.days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    char *at = put_text(out, weekdays + 3 * weekday, 3);
    at = put_text(at, ", ", 2);
    at = put_digits(at, c.day, 2);
    *at++ = ' ';
    at = put_text(at, months + 3 * (c.month - 1), 3);
    *at++ = ' ';
    at = put_digits(at, c.year, 4);
    *at++ = ' ';
    at = put_time(at, &c);
    at = put_text(at, " +0000", 7); /* with its NUL */
    return (size_t)(at - out) - 1;
}

size_t clock_format_rfc3339(int64_t wall_ms, char out[CLOCK_DATE_MAX])
{
    struct civil c = civil_of(wall_ms);
    char *at = put_digits(out, c.year, 4);
    *at++ = '-';
    at = put_digits(at, c.month, 2);
    *at++ = '-';
    at = put_digits(at, c.day, 2);
    *at++ = 'T';
    at = put_time(at, &c);
    *at++ = '.';
    at = put_digits(at, c.millisecond, 3);
    at = put_text(at, "Z", 2); /* with its NUL */
    return (size_t)(at - out) - 1;
}
