/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * entropy - chance is an argument. io/ fills it from BoringSSL's generator, a test from a seed.
 */
#include <stddef.h>
#include <stdint.h>

typedef void entropy_fill_fn(void *ctx, void *out, size_t len);

struct entropy {
    entropy_fill_fn *fill; /* never fails: io/ ends the process rather than give weak bytes */
    void *ctx;             /* borrowed */
    uint8_t pool[256];     /* bytes fetched ahead; wiped as they are used */
    uint32_t used;         /* octets of pool that are spent */
};

void entropy_init(struct entropy *e, entropy_fill_fn *fill, void *ctx);
void entropy_init_seeded(struct entropy *e, uint64_t *seed); /* deterministic, for tests only */
void entropy_bytes(struct entropy *e, void *out, size_t len);
uint64_t entropy_u64(struct entropy *e);
/* Uniform in [0, bound); bound > 0. */
uint64_t entropy_below(struct entropy *e, uint64_t bound);
