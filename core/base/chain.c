/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain - a singly linked list of segments, written only at the tail.
 *
 * No segment in a chain is ever empty, so the end of a chain is always (tail, tail->len). A
 * segment's memory, header included, is counted against the budget of the chain that holds it;
 * the chain itself never refuses bytes, the worker stops reading when the budget is over.
 */
#include "core/base/chain.h"
#include "core/base/must.h"
#include <stdlib.h>

#define SEG_FIRST 2048
#define SEG_MAX   (64 * 1024)

static inline size_t seg_memory(const struct chain_seg *seg)
{
    return sizeof *seg + seg->cap;
}

static void count(struct chain *c, const struct chain_seg *seg)
{
    if (c->budget)
        c->budget->used += seg_memory(seg);
}

static void uncount(struct chain *c, const struct chain_seg *seg)
{
    if (!c->budget)
        return;
    must(c->budget->used >= seg_memory(seg));
    c->budget->used -= seg_memory(seg);
}

/* An empty segment of `memory` octets, header included; the caller links and counts it. */
static struct chain_seg *seg_new(size_t memory)
{
    struct chain_seg *seg = mem_alloc(memory);
    seg->next = NULL;
    seg->len = 0;
    seg->cap = (uint32_t)(memory - sizeof *seg);
    return seg;
}

static void link_tail(struct chain *c, struct chain_seg *seg)
{
    if (c->tail)
        c->tail->next = seg;
    else
        c->head = seg;
    c->tail = seg;
}

static void free_from(struct chain *c, struct chain_seg *seg)
{
    while (seg) {
        struct chain_seg *next = seg->next;
        uncount(c, seg);
        free(seg);
        seg = next;
    }
}

void chain_init(struct chain *c, struct chain_budget *budget)
{
    *c = (struct chain){ .budget = budget };
}

void chain_done(struct chain *c)
{
    free_from(c, c->head);
    chain_init(c, c->budget);
}

/* Twice the last one, or what is known to come, but never more than SEG_MAX. */
static struct chain_seg *add_seg(struct chain *c, size_t coming)
{
    size_t memory = c->tail ? 2 * seg_memory(c->tail) : SEG_FIRST;
    if (coming < c->expect)
        coming = c->expect;
    if (memory < sizeof(struct chain_seg) + coming)
        memory = sizeof(struct chain_seg) + coming;
    if (memory > SEG_MAX)
        memory = SEG_MAX;
    c->expect = 0;
    struct chain_seg *seg = seg_new(memory);
    count(c, seg);
    link_tail(c, seg);
    return seg;
}

void chain_append(struct chain *c, struct slice s)
{
    c->len += s.len;
    while (s.len) {
        struct chain_seg *seg = c->tail;
        if (!seg || seg->len == seg->cap)
            seg = add_seg(c, s.len);
        size_t n = seg->cap - seg->len;
        if (n > s.len)
            n = s.len;
        memcpy(seg->data + seg->len, s.ptr, n);
        seg->len += (uint32_t)n;
        s = slice_skip(s, n);
    }
}

void chain_expect(struct chain *c, size_t octets)
{
    c->expect = octets < SEG_MAX ? (uint32_t)octets : SEG_MAX;
}

struct chain_mark chain_mark(const struct chain *c)
{
    return (struct chain_mark){ c->tail, c->tail ? c->tail->len : 0, c->len };
}

void chain_truncate(struct chain *c, struct chain_mark mark)
{
    must(mark.len <= c->len);
    if (!mark.seg) {
        chain_done(c);
        return;
    }
    must(mark.seg_len <= mark.seg->len);
    free_from(c, mark.seg->next);
    mark.seg->next = NULL;
    mark.seg->len = mark.seg_len;
    c->tail = mark.seg;
    c->len = mark.len;
}

/* What lies in seg after the first n octets, in a segment of its own. When more is still to be
 * written there, it gets as much room as seg had. */
static struct chain_seg *cut_seg(struct chain_seg *seg, uint32_t n)
{
    uint32_t rest = seg->len - n;
    struct chain_seg *back = seg_new(seg->next ? sizeof *seg + rest : seg_memory(seg));
    memcpy(back->data, seg->data + n, rest);
    back->len = rest;
    back->next = seg->next;
    seg->len = n;
    seg->next = NULL;
    return back;
}

static void pop_head(struct chain *c)
{
    c->head = c->head->next;
    if (!c->head)
        c->tail = NULL;
}

void chain_split(struct chain *from, size_t n, struct chain *to)
{
    must(n > 0 && n <= from->len && to->len == 0);
    from->len -= n;
    to->len = n;
    while (n) {
        struct chain_seg *seg = from->head;
        if (seg->len > n) {
            struct chain_seg *back = cut_seg(seg, (uint32_t)n);
            if (from->tail == seg)
                from->tail = back;
            seg->next = back;
            count(from, back);
        }
        n -= seg->len;
        pop_head(from);
        seg->next = NULL;
        uncount(from, seg);
        count(to, seg);
        link_tail(to, seg);
    }
}
