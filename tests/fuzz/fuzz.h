/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What every fuzz target shares. A target defines LLVMFuzzerTestOneInput and states what must hold
 * for any input with must(): a broken promise aborts, which is what the fuzzer looks for. libFuzzer
 * links it with its own main; replay.c feeds it the seeds of tests/fuzz/corpus in every test run.
 */
#include "core/base/must.h"
#include "core/base/slice.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts inputs at places that the input itself chooses. */
struct cutter {
    uint64_t x;
};

static inline size_t cutter_next(struct cutter *c)
{
    c->x ^= c->x << 13;
    c->x ^= c->x >> 7;
    c->x ^= c->x << 17;
    return c->x % 4 == 0 ? 1 + c->x / 4 % 300 : 1 + c->x / 4 % 7;
}

static inline struct cutter cutter_of(struct slice in)
{
    struct cutter c = { .x = 0x9e3779b97f4a7c15u };
    for (size_t i = 0; i < in.len && i < 64; i++)
        c.x = c.x * 31 + (unsigned char)in.ptr[i] + 1;
    c.x |= 1;
    return c;
}

/* True when `part` lies in `whole`; an empty one may lie anywhere. */
static inline bool slice_lies_in(struct slice part, struct slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.len <= whole.len &&
                             (size_t)(part.ptr - whole.ptr) <= whole.len - part.len);
}

static inline bool slice_is_printable(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < ' ' || s.ptr[i] > '~')
            return false;
    return true;
}

/* A heap block of exactly this length, so that ASan sees a read past its end; free() it. */
static inline char *exact_copy(struct slice s)
{
    char *copy = mem_alloc(s.len > 0 ? s.len : 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}
