/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics - the text that Prometheus scrapes. Reading while workers count gives each value as it
 * was at some moment of the scrape; no two values are from the same instant, which is what
 * counters are for.
 */
#include "core/base/metrics.h"
#include <inttypes.h>

static const struct metric_row {
    const char *type, *name, *help;
} rows[METRIC_COUNT] = {
#define X(id, type, name, help) { #type, name, help },
    METRICS_TABLE(X)
#undef X
};

static int64_t sum_of(const struct metrics *const *sets, size_t count, size_t which)
{
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += metrics_get(sets[i], (enum metric)which);
    return sum;
}

/* The name without its labels. */
static struct slice family_of(const struct metric_row *row)
{
    struct slice name = slice_str(row->name);
    return slice_head(name, slice_find(name, '{'));
}

/* What stands once before all series of a family. */
static enum status describe(size_t i, struct buf *out)
{
    struct slice family = family_of(&rows[i]);
    if (i > 0 && slice_eq(family, family_of(&rows[i - 1])))
        return STATUS_OK;
    return buf_printf(out, "# HELP kilat_%.*s %s\n# TYPE kilat_%.*s %s\n", SLICE_ARG(family),
                      rows[i].help, SLICE_ARG(family), rows[i].type);
}

#define SETS_MAX 1024 /* workers have at most 256 */

static enum status format_ages(const struct metrics *const *sets, size_t count, struct buf *out)
{
    const struct queue_age *ages[SETS_MAX];
    size_t with = 0;
    for (size_t i = 0; i < count && with < SETS_MAX; i++)
        if (sets[i]->ages)
            ages[with++] = sets[i]->ages;
    return with > 0 ? queue_age_format(ages, with, out) : STATUS_OK;
}

enum status metrics_format(const struct metrics *const *sets, size_t count, struct buf *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        enum status st = describe(i, out);
        if (st == STATUS_OK)
            st = buf_printf(out, "kilat_%s %" PRId64 "\n", rows[i].name, sum_of(sets, count, i));
        if (st != STATUS_OK)
            return st;
    }
    return format_ages(sets, count, out);
}
