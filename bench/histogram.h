/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * histogram - how often a time was measured, with three significant digits from 1 ns to hours, in
 * the way of HdrHistogram: buckets of 2,048 equal cells, each bucket twice as wide as the one
 * before. Recording costs an addition.
 */
#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 11
#define HISTOGRAM_BUCKETS  34 /* up to 2^43 ns, more than two hours */

struct histogram {
    uint64_t count, sum_ns;
    int64_t least_ns, most_ns;
    uint64_t cells[HISTOGRAM_BUCKETS << (HISTOGRAM_SUB_BITS - 1)];
};

struct histogram *histogram_new(void); /* free() it */
/* Below 0 counts as 0, above the range as its end. */
void histogram_record(struct histogram *h, int64_t ns);
/* The time that so many percent did not exceed, to three digits; 0 when nothing was recorded. */
int64_t histogram_at(const struct histogram *h, double percent);
