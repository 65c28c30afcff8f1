/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf - growth by doubling, so that appending n octets costs O(n) however small the pieces are.
 *
 * The capacity never exceeds the maximum; what does not fit is refused before anything is written.
 * Sums are made in 64 bits, because a length from the wire may be anything.
 */
#include "core/base/buf.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

#define BUF_FIRST 64 /* octets of the first allocation, when the maximum allows */

void buf_init(struct buf *b, uint32_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_done(struct buf *b)
{
    free(b->ptr);
    buf_init(b, b->max);
}

static void grow(struct buf *b, uint64_t need)
{
    uint64_t cap = b->cap ? b->cap : BUF_FIRST;
    while (cap < need)
        cap *= 2;
    if (cap > b->max)
        cap = b->max;
    b->ptr = mem_realloc(b->ptr, cap);
    b->cap = (uint32_t)cap;
}

/* True when need octets fit, now or after growing. */
static inline bool make_room(struct buf *b, uint64_t need)
{
    if (need <= b->cap)
        return true;
    if (need > b->max)
        return false;
    grow(b, need);
    return true;
}

enum status buf_append(struct buf *b, struct slice s)
{
    if (s.len == 0)
        return STATUS_OK;
    if (s.len > b->max || !make_room(b, (uint64_t)b->len + s.len))
        return STATUS_FULL;
    memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += (uint32_t)s.len;
    return STATUS_OK;
}

char *buf_reserve(struct buf *b, uint32_t n)
{
    if (!make_room(b, (uint64_t)b->len + n))
        return NULL;
    if (!b->ptr) /* n is 0: still a place to point at */
        grow(b, 1);
    return b->ptr + b->len;
}

enum status buf_vprintf(struct buf *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    uint32_t room = b->cap - b->len;
    int n = vsnprintf(room ? b->ptr + b->len : NULL, room, format, args);
    must(n >= 0);
    enum status st = STATUS_OK;
    if ((uint32_t)n >= room) {
        /* vsnprintf writes a NUL that is not part of the text; at the very maximum it has no
         * place, so the text goes through memory of its own. */
        char *text = mem_alloc((size_t)n + 1);
        must(vsnprintf(text, (size_t)n + 1, format, again) == n);
        st = buf_append(b, slice_of(text, (size_t)n));
        free(text);
    } else {
        b->len += (uint32_t)n;
    }
    va_end(again);
    return st;
}

enum status buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    enum status st = buf_vprintf(b, format, args);
    va_end(args);
    return st;
}

void buf_consume(struct buf *b, uint32_t n)
{
    must(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    if (b->len)
        memmove(b->ptr, b->ptr + n, b->len);
}
