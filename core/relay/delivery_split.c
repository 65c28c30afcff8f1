/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delivery_split - a delivery in parts that a peer's LIMITS allow (RFC 9422, P-173).
 *
 * Recipients keep their order, or stand together by domain where domains are counted. Parts are
 * filled one after the other; after PARTS_MAX of them the rest stays together and is divided when
 * its turn comes, so that what is said to the queue at once stays small.
 */
#include "core/base/must.h"
#include "core/relay/delivery.h"
#include <stdlib.h>

#define PARTS_MAX 100

struct place {
    struct slice domain; /* empty where domains are not counted */
    uint32_t rcpt;       /* index into message->rcpts */
};

static int by_number(size_t a, size_t b)
{
    return (a > b) - (a < b);
}

static bool is_same_domain(const struct place *a, const struct place *b)
{
    return slice_eq_nocase(a->domain, b->domain);
}

static int by_domain(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (is_same_domain(a, b))
        return by_number(a->rcpt, b->rcpt);
    if (a->domain.len != b->domain.len)
        return by_number(a->domain.len, b->domain.len);
    return strncasecmp(a->domain.ptr, b->domain.ptr, a->domain.len);
}

static int by_rcpt(const void *left, const void *right)
{
    return by_number(*(const uint32_t *)left, *(const uint32_t *)right);
}

static struct place *find_places(const struct delivery *d, bool are_domains_counted)
{
    struct place *places = mem_alloc(d->rcpt_count * sizeof *places);
    for (uint32_t i = 0; i < d->rcpt_count; i++) {
        struct slice domain = d->message->rcpts[d->rcpts[i]].domain;
        places[i] = (struct place){ are_domains_counted ? domain : SLICE_NONE, d->rcpts[i] };
    }
    if (are_domains_counted)
        qsort(places, d->rcpt_count, sizeof *places, by_domain);
    return places;
}

/* How many of the places one transaction takes. */
static uint32_t run_length(const struct place *places, uint32_t count,
                           const struct client_limits *limits)
{
    uint32_t n = 1, domains = 1;
    for (; n < count; n++) {
        domains += !is_same_domain(&places[n], &places[n - 1]);
        if ((limits->rcpt_max > 0 && n == limits->rcpt_max) ||
            (limits->rcpt_domain_max > 0 && domains > limits->rcpt_domain_max))
            break;
    }
    return n;
}

/* The queue wants a delivery's recipients in ascending order. */
static void fill_part(struct delivery_part *part, const struct place *places, uint32_t count,
                      struct arena *arena)
{
    part->rcpts = arena_alloc(arena, count * sizeof *part->rcpts);
    part->rcpt_count = count;
    for (uint32_t i = 0; i < count; i++)
        part->rcpts[i] = places[i].rcpt;
    qsort(part->rcpts, count, sizeof *part->rcpts, by_rcpt);
}

size_t delivery_split(const struct delivery *d, const struct client_limits *limits,
                      struct arena *arena, struct delivery_part **parts)
{
    struct place *places = find_places(d, limits->rcpt_domain_max > 0);
    size_t count = 0;
    *parts = arena_alloc(arena, PARTS_MAX * sizeof **parts);
    for (uint32_t done = 0; done < d->rcpt_count;) {
        uint32_t left = d->rcpt_count - done;
        uint32_t n = count + 1 < PARTS_MAX ? run_length(places + done, left, limits) : left;
        fill_part(&(*parts)[count++], places + done, n, arena);
        done += n;
    }
    free(places);
    return count;
}

bool delivery_may_exceed(const struct delivery *d, const struct client_limits *limits)
{
    return (limits->rcpt_max > 0 && d->rcpt_count > limits->rcpt_max) ||
           (limits->rcpt_domain_max > 0 && d->rcpt_count > limits->rcpt_domain_max);
}
