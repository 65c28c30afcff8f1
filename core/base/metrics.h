/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * metrics - counters and gauges; one set per worker, written by that worker alone, read by the
 * admin thread. Relaxed atomics: a plain add on the hot path, no lock, no lost update.
 */
#include "core/base/buf.h"
#include "core/base/metrics_table.h"
#include "core/base/queue_age.h"
#include <stdatomic.h>
#include <stdint.h>

enum metric {
#define X(id, type, name, help) METRIC_##id,
    METRICS_TABLE(X)
#undef X
        METRIC_COUNT
};

struct metrics {
    _Atomic int64_t value[METRIC_COUNT];
    struct queue_age *ages; /* owned by the worker, from before its start; NULL: none are kept */
};

static inline void metrics_add(struct metrics *m, enum metric which, int64_t n)
{
    int64_t old = atomic_load_explicit(&m->value[which], memory_order_relaxed);
    atomic_store_explicit(&m->value[which], old + n, memory_order_relaxed);
}

static inline void metrics_set(struct metrics *m, enum metric which, int64_t n)
{
    atomic_store_explicit(&m->value[which], n, memory_order_relaxed);
}

static inline int64_t metrics_get(const struct metrics *m, enum metric which)
{
    return atomic_load_explicit(&m->value[which], memory_order_relaxed);
}

/* The sum over several workers in Prometheus text format (version 0.0.4). FULL: out is too small.
 */
NODISCARD enum status metrics_format(const struct metrics *const *sets, size_t count,
                                     struct buf *out);
