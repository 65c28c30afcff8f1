/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * gather - output that is partly ours and partly borrowed: protocol bytes are copied in, bodies are
 * pointed at. io/conn sends one with a single sendmsg; only then may what it points at go.
 */
#include "core/base/buf.h"
#include <sys/uio.h>

struct gather_part {
    const char *ptr; /* borrowed; NULL: the octets lie in bytes at `offset` */
    uint32_t offset;
    uint32_t len;
};

struct gather {
    struct gather_part *parts; /* owned */
    uint32_t part_count, part_cap;
    struct buf bytes; /* copied octets; may move while appending, so parts hold offsets */
    size_t octets;    /* in all parts */
};

void gather_init(struct gather *g);
void gather_done(struct gather *g);
void gather_clear(struct gather *g); /* empties, keeps the memory */
void gather_copy(struct gather *g, struct slice s);
void gather_printf(struct gather *g, const char *format, ...) PRINTF_LIKE(2, 3);
void gather_ref(struct gather *g, struct slice s); /* s.ptr stays valid until the send completes */
/* Fills iov from octet `offset_in_part` of part `part` on; returns how many it filled (at most
 * max). Call it when nothing is appended any more. */
uint32_t gather_iov(const struct gather *g, uint32_t part, uint32_t offset_in_part,
                    struct iovec *iov, uint32_t max);
