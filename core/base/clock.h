/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * clock - time is an argument. io/ reads the clocks once a loop turn and hands both down:
 * monotonic for timers, wall for dates (P-226).
 */
#include "core/base/slice.h"
#include <stdint.h>

struct now {
    int64_t mono_ms; /* CLOCK_MONOTONIC, milliseconds: deadlines, durations */
    int64_t wall_ms; /* CLOCK_REALTIME, milliseconds since 1970: dates, expiry kept in Redis */
};

#define CLOCK_DATE_MAX 40

/* RFC 5322 date-time in UTC, "Mon, 23 Nov 2026 00:12:21 +0000". Returns the length written. */
size_t clock_format_rfc5322(int64_t wall_ms, char out[CLOCK_DATE_MAX]);
/* RFC 3339 with milliseconds in UTC, "2026-11-23T00:12:21.042Z". Returns the length written. */
size_t clock_format_rfc3339(int64_t wall_ms, char out[CLOCK_DATE_MAX]);
