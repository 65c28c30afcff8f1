/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_age - counts in buckets of fixed bounds, one row for each lane and tenant.
 *
 * A row is made when its first delivery ends, by the worker, and is there from then on; the reader
 * finds it by an atomic pointer. Counters are relaxed atomics with one writer, as in metrics.h.
 *
 * Recent is this window of WINDOW_MS and the one before: two sets of counts, of which the worker
 * empties the older when a new window begins. p50 and p99 are read off the buckets, on a straight
 * line between the bounds of the one that they fall into; beyond the last bound they are that
 * bound.
 *
 * Limits: (QUEUE_AGE_TENANTS + 2) * LANE_COUNT rows of half a KiB.
 * To change the bounds: bounds_ms[], and the widths that dashboards have drawn.
 */
#include "core/base/queue_age.h"
#include "core/base/metrics_table.h"
#include "core/base/must.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW_MS (5 * 60 * 1000)
#define LABEL_MAX 64 /* octets of lane="...",tenant="..." beside the tenant's name */

static const int64_t bounds_ms[] = { 10,     25,     50,      100,      250,     500,
                                     1000,   2500,   5000,    10000,    30000,   60000,
                                     300000, 900000, 3600000, 14400000, 86400000 };

#define BUCKETS (ARRAY_LEN(bounds_ms) + 1)

enum slot { SLOT_OTHER = QUEUE_AGE_TENANTS, SLOT_NONE, SLOTS };

struct age_window {
    _Atomic int64_t number; /* which window these are of */
    _Atomic int64_t counts[BUCKETS];
};

struct age_row {
    _Atomic int64_t counts[BUCKETS];
    _Atomic int64_t sum_ms;
    struct age_window recent[2]; /* by the window's number, even or odd */
};

struct queue_age {
    struct tenant_index index;
    _Atomic int64_t window;                            /* the present one */
    _Atomic(struct age_row *) rows[LANE_COUNT][SLOTS]; /* owned; NULL until there is something */
};

static const char *const lane_names[LANE_COUNT] = {
    [LANE_URGENT] = "urgent", [LANE_NORMAL] = "normal", [LANE_BULK] = "bulk"
};

static int64_t get(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void set(_Atomic int64_t *value, int64_t n)
{
    atomic_store_explicit(value, n, memory_order_relaxed);
}

/* --- counting -------------------------------------------------------------------------------- */

struct queue_age *queue_age_new(const struct config *cfg)
{
    struct queue_age *q = mem_zalloc(sizeof *q);
    tenant_index_init(&q->index, cfg);
    return q;
}

void queue_age_free(struct queue_age *q)
{
    if (!q)
        return;
    for (int i = 0; i < LANE_COUNT * SLOTS; i++)
        free(atomic_load_explicit(&q->rows[i / SLOTS][i % SLOTS], memory_order_relaxed));
    tenant_index_done(&q->index);
    free(q);
}

void queue_age_tick(struct queue_age *q, int64_t mono_ms)
{
    set(&q->window, mono_ms / WINDOW_MS + 1);
}

static enum slot slot_of(const struct queue_age *q, struct slice tenant)
{
    uint32_t i = tenant_index_find(&q->index, tenant);
    if (i >= q->index.cfg->tenant_count)
        return SLOT_NONE;
    return i < QUEUE_AGE_TENANTS ? (enum slot)i : SLOT_OTHER;
}

static struct age_row *row_of(const struct queue_age *q, int lane, int slot)
{
    return atomic_load_explicit(&q->rows[lane][slot], memory_order_acquire);
}

static struct age_row *make_row(struct queue_age *q, int lane, int slot)
{
    struct age_row *row = row_of(q, lane, slot);
    if (row)
        return row;
    row = mem_zalloc(sizeof *row);
    atomic_store_explicit(&q->rows[lane][slot], row, memory_order_release);
    return row;
}

static size_t bucket_of(int64_t age_ms)
{
    size_t i = 0;
    while (i < ARRAY_LEN(bounds_ms) && age_ms > bounds_ms[i])
        i++;
    return i;
}

static void note_recent(struct age_row *row, int64_t window, size_t bucket)
{
    struct age_window *w = &row->recent[window & 1];
    if (get(&w->number) != window) {
        for (size_t i = 0; i < BUCKETS; i++)
            set(&w->counts[i], 0);
        set(&w->number, window);
    }
    set(&w->counts[bucket], get(&w->counts[bucket]) + 1);
}

void queue_age_note(struct queue_age *q, enum mail_lane lane, struct slice tenant, int64_t age_ms)
{
    struct age_row *row = make_row(q, (int)lane, (int)slot_of(q, tenant));
    int64_t age = age_ms > 0 ? age_ms : 0; /* clocks of two machines, or one that was set back */
    size_t bucket = bucket_of(age);
    set(&row->counts[bucket], get(&row->counts[bucket]) + 1);
    set(&row->sum_ms, get(&row->sum_ms) + age);
    note_recent(row, get(&q->window), bucket);
}

/* --- showing --------------------------------------------------------------------------------- */

/* One series, of all workers. */
struct series {
    char labels[LABEL_MAX + 64];
    bool is_there;
    int64_t counts[BUCKETS], recent[BUCKETS], sum_ms;
};

static int64_t window_now(const struct queue_age *const *ages, size_t count)
{
    int64_t last = 0;
    for (size_t i = 0; i < count; i++)
        if (get(&ages[i]->window) > last)
            last = get(&ages[i]->window);
    return last;
}

static void add_row(struct series *s, const struct age_row *row, int64_t window)
{
    s->is_there = true;
    s->sum_ms += get(&row->sum_ms);
    for (size_t i = 0; i < BUCKETS; i++)
        s->counts[i] += get(&row->counts[i]);
    for (int w = 0; w < 2; w++)
        for (size_t i = 0; i < BUCKETS && get(&row->recent[w].number) + 1 >= window; i++)
            s->recent[i] += get(&row->recent[w].counts[i]);
}

static const char *tenant_name(const struct queue_age *q, int slot)
{
    return slot == SLOT_NONE    ? ""
           : slot == SLOT_OTHER ? "(other)"
                                : q->index.cfg->tenants[slot].name;
}

static struct series series_of(const struct queue_age *const *ages, size_t count, int lane,
                               int slot)
{
    struct series s = { .is_there = false };
    int64_t window = window_now(ages, count);
    for (size_t i = 0; i < count; i++) {
        const struct age_row *row = row_of(ages[i], lane, slot);
        if (row)
            add_row(&s, row, window);
    }
    if (s.is_there)
        snprintf(s.labels, sizeof s.labels, "lane=\"%s\",tenant=\"%s\"", lane_names[lane],
                 tenant_name(ages[0], slot));
    return s;
}

static int64_t total_of(const int64_t counts[BUCKETS])
{
    int64_t total = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        total += counts[i];
    return total;
}

/* Seconds that this part of the recent ones did not exceed. */
static double quantile(const struct series *s, double part)
{
    double rank = part * (double)total_of(s->recent), before = 0;
    for (size_t i = 0; i < ARRAY_LEN(bounds_ms); i++) {
        double here = (double)s->recent[i], low = i > 0 ? (double)bounds_ms[i - 1] : 0;
        if (here > 0 && before + here >= rank)
            return (low + ((double)bounds_ms[i] - low) * (rank - before) / here) / 1000;
        before += here;
    }
    return (double)bounds_ms[ARRAY_LEN(bounds_ms) - 1] / 1000;
}

typedef enum status show_fn(const struct series *s, const char *name, struct buf *out);

static enum status show_p50(const struct series *s, const char *name, struct buf *out)
{
    if (total_of(s->recent) == 0)
        return STATUS_OK;
    return buf_printf(out, "kilat_%s{%s} %.3f\n", name, s->labels, quantile(s, 0.5));
}

static enum status show_p99(const struct series *s, const char *name, struct buf *out)
{
    if (total_of(s->recent) == 0)
        return STATUS_OK;
    return buf_printf(out, "kilat_%s{%s} %.3f\n", name, s->labels, quantile(s, 0.99));
}

static enum status show_buckets(const struct series *s, const char *name, struct buf *out)
{
    int64_t sum = 0;
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < ARRAY_LEN(bounds_ms); i++) {
        sum += s->counts[i];
        st = buf_printf(out, "kilat_%s_bucket{%s,le=\"%g\"} %" PRId64 "\n", name, s->labels,
                        (double)bounds_ms[i] / 1000, sum);
    }
    sum += s->counts[BUCKETS - 1];
    if (st == STATUS_OK)
        st = buf_printf(out,
                        "kilat_%s_bucket{%s,le=\"+Inf\"} %" PRId64 "\nkilat_%s_sum{%s} %.3f\n"
                        "kilat_%s_count{%s} %" PRId64 "\n",
                        name, s->labels, sum, name, s->labels, (double)s->sum_ms / 1000, name,
                        s->labels, sum);
    return st;
}

static const struct {
    const char *type, *name, *help;
    show_fn *show;
} families[] = {
#define X(show, type, name, help) { #type, name, help, show },
    QUEUE_AGE_TABLE(X)
#undef X
};

static enum status show_family(const struct queue_age *const *ages, size_t count, size_t family,
                               struct buf *out)
{
    const char *name = families[family].name;
    enum status st = buf_printf(out, "# HELP kilat_%s %s\n# TYPE kilat_%s %s\n", name,
                                families[family].help, name, families[family].type);
    for (int i = 0; st == STATUS_OK && i < LANE_COUNT * SLOTS; i++) {
        struct series s = series_of(ages, count, i / SLOTS, i % SLOTS);
        if (s.is_there)
            st = families[family].show(&s, name, out);
    }
    return st;
}

enum status queue_age_format(const struct queue_age *const *ages, size_t count, struct buf *out)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < ARRAY_LEN(families); i++)
        st = show_family(ages, count, i, out);
    return st;
}
