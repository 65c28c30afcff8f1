/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * chain - the bytes of one message, in segments that never move once written, so that a send may
 * point into them.
 *
 * Segments grow with the message (2 KiB, then doubling to 64 KiB), so that a short alert does
 * not hold the memory of a newsletter. Every chain counts its segments' memory against a budget,
 * which is how a worker knows when to stop reading.
 */
#include "core/base/slice.h"
#include <stdint.h>

/* Memory held by all chains of one worker. */
struct chain_budget {
    size_t used; /* octets allocated in segments */
    size_t max;  /* above this the worker stops reading message content */
};

struct chain_seg {
    struct chain_seg *next;
    uint32_t len; /* octets written */
    uint32_t cap; /* octets of data[] */
    char data[];
};

struct chain {
    struct chain_seg *head, *tail; /* owned */
    size_t len;                    /* octets in all segments */
    struct chain_budget *budget;   /* borrowed; NULL: not counted */
    uint32_t expect;               /* private: octets that the next segment is asked to hold */
};

/* A place in a chain to go back to; valid until the chain is cut at or before it. */
struct chain_mark {
    struct chain_seg *seg; /* NULL: the very beginning */
    uint32_t seg_len;
    size_t len;
};

void chain_init(struct chain *c, struct chain_budget *budget);
void chain_done(struct chain *c); /* frees; c is empty and usable afterwards */
void chain_append(struct chain *c, struct slice s);
/* The next segment made will hold at least this many octets (a declared SIZE); a hint, clipped
 * to 64 KiB. */
void chain_expect(struct chain *c, size_t octets);
struct chain_mark chain_mark(const struct chain *c);
void chain_truncate(struct chain *c, struct chain_mark mark); /* drops all that came after */
/* Moves the first n octets (0 < n <= from->len) to the end of an empty chain `to`. Bytes are
 * copied only where n falls inside a segment. Ends every mark. */
void chain_split(struct chain *from, size_t n, struct chain *to);
static inline bool chain_budget_is_over(const struct chain_budget *b)
{
    return b->used > b->max;
}
