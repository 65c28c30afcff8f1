/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * arena - memory that is given out piece by piece and goes in one stroke. What belongs to one mail
 * (its envelope) lives in the mail's arena.
 */
#include "core/base/slice.h"
#include <stdint.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* owned; newest first; NULL while nothing was given out */
    size_t used;                /* octets given out so far */
};

void arena_init(struct arena *a);
void arena_done(struct arena *a);                /* frees everything that was given out */
void *arena_alloc(struct arena *a, size_t size); /* 8-byte aligned, cleared, never NULL */
struct slice arena_copy(struct arena *a, struct slice s);
