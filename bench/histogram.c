/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/histogram.h"
#include "core/base/must.h"

#define SUB  (1u << HISTOGRAM_SUB_BITS)
#define HALF (SUB / 2)

/* The first bucket has SUB cells of 1 ns; each further one the upper half of its cells, for the
 * lower half is the bucket before. */
static size_t cell_of(uint64_t ns)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(ns | 1);
    unsigned bucket = bits > HISTOGRAM_SUB_BITS ? bits - HISTOGRAM_SUB_BITS : 0;
    return (size_t)bucket * HALF + (size_t)(ns >> bucket);
}

/* The largest time of that cell. */
static int64_t value_of(size_t cell)
{
    size_t bucket = cell < SUB ? 0 : cell / HALF - 1;
    uint64_t sub = cell - bucket * HALF;
    return (int64_t)(((sub + 1) << bucket) - 1);
}

struct histogram *histogram_new(void)
{
    struct histogram *h = mem_zalloc(sizeof *h);
    h->least_ns = INT64_MAX;
    return h;
}

void histogram_record(struct histogram *h, int64_t ns)
{
    size_t cell = cell_of((uint64_t)(ns > 0 ? ns : 0));
    size_t last = sizeof h->cells / sizeof *h->cells - 1;
    h->cells[cell < last ? cell : last]++;
    h->count++;
    h->sum_ns += (uint64_t)(ns > 0 ? ns : 0);
    h->least_ns = ns < h->least_ns ? ns : h->least_ns;
    h->most_ns = ns > h->most_ns ? ns : h->most_ns;
}

int64_t histogram_at(const struct histogram *h, double percent)
{
    uint64_t wanted = (uint64_t)((double)h->count * percent / 100 + 0.5), seen = 0;
    if (h->count == 0)
        return 0;
    wanted = wanted < 1 ? 1 : wanted;
    for (size_t i = 0; i < sizeof h->cells / sizeof *h->cells; i++) {
        seen += h->cells[i];
        if (seen >= wanted)
            return value_of(i) < h->most_ns ? value_of(i) : h->most_ns;
    }
    return h->most_ns;
}
