/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entropy - bytes fetched 256 at a time and wiped as they are handed out, so that a queue id costs
 * a copy and memory never shows a number that was already used.
 */
#include "core/base/entropy.h"
#include "core/base/must.h"
#include <string.h>

void entropy_init(struct entropy *e, entropy_fill_fn *fill, void *ctx)
{
    *e = (struct entropy){ .fill = fill, .ctx = ctx, .used = sizeof e->pool };
}

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do, every seed gives the same run again. */
static uint64_t splitmix(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill_seeded(void *ctx, void *out, size_t len)
{
    char *at = out;
    while (len) {
        uint64_t word = splitmix(ctx);
        size_t n = len < sizeof word ? len : sizeof word;
        memcpy(at, &word, n);
        at += n;
        len -= n;
    }
}

void entropy_init_seeded(struct entropy *e, uint64_t *seed)
{
    entropy_init(e, fill_seeded, seed);
}

void entropy_bytes(struct entropy *e, void *out, size_t len)
{
    if (len > sizeof e->pool) {
        e->fill(e->ctx, out, len);
        return;
    }
    if (sizeof e->pool - e->used < len) {
        e->fill(e->ctx, e->pool, sizeof e->pool);
        e->used = 0;
    }
    memcpy(out, e->pool + e->used, len);
    memset(e->pool + e->used, 0, len);
    e->used += (uint32_t)len;
}

uint64_t entropy_u64(struct entropy *e)
{
    uint64_t value;
    entropy_bytes(e, &value, sizeof value);
    return value;
}

uint64_t entropy_below(struct entropy *e, uint64_t bound)
{
    must(bound > 0);
    /* Values below 2^64 mod bound would make the low results more likely: draw again. */
    uint64_t unfair = -bound % bound;
    uint64_t value;
    do {
        value = entropy_u64(e);
    } while (value < unfair);
    return value % bound;
}
