/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * buf - a growing run of bytes that cannot be made without its maximum.
 *
 * Memory comes with the first byte and goes with buf_done or buf_release; an empty buf costs only
 * its struct. Every append is all or nothing.
 */
#include "core/base/slice.h"
#include "core/base/status.h"
#include <stdarg.h>
#include <stdint.h>

struct buf {
    char *ptr;    /* owned; NULL while nothing was appended */
    uint32_t len; /* octets in use */
    uint32_t cap; /* octets allocated */
    uint32_t max; /* octets it may ever hold */
};

void buf_init(struct buf *b, uint32_t max);
void buf_done(struct buf *b); /* frees; b may be used again */
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
} /* keeps the memory */
NODISCARD enum status buf_append(struct buf *b, struct slice s); /* FULL: nothing was appended */
NODISCARD enum status buf_printf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
NODISCARD enum status buf_vprintf(struct buf *b, const char *format, va_list args)
    PRINTF_LIKE(2, 0);
/* Room for n more octets at the end, for a writer that then adds to b->len; NULL when FULL. */
NODISCARD char *buf_reserve(struct buf *b, uint32_t n);
/* Takes the first n octets away and moves the rest to the front. */
void buf_consume(struct buf *b, uint32_t n);

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->ptr, b->len);
}
