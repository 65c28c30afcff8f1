/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather - an array of parts over one buffer of copied octets.
 *
 * Neighbours are joined: copied octets that follow each other, and references that continue where
 * the last one ended, so a reply of ten lines or a body that came in one piece is one iovec. How
 * much is queued is bounded by who appends (sessions stop at their own limits); GATHER_BYTES_MAX
 * only catches a caller that forgot.
 */
#include "core/base/gather.h"
#include "core/base/must.h"
#include <stdlib.h>

#define GATHER_BYTES_MAX (256u * 1024 * 1024)
#define PARTS_FIRST      8

void gather_init(struct gather *g)
{
    *g = (struct gather){ 0 };
    buf_init(&g->bytes, GATHER_BYTES_MAX);
}

void gather_done(struct gather *g)
{
    free(g->parts);
    buf_done(&g->bytes);
    gather_init(g);
}

void gather_clear(struct gather *g)
{
    g->part_count = 0;
    g->octets = 0;
    buf_clear(&g->bytes);
}

static void add_part(struct gather *g, struct gather_part part)
{
    if (g->part_count == g->part_cap) {
        g->part_cap = g->part_cap ? 2 * g->part_cap : PARTS_FIRST;
        g->parts = mem_realloc(g->parts, g->part_cap * sizeof *g->parts);
    }
    g->parts[g->part_count++] = part;
}

/* Octets from `offset` of bytes to its end have just been copied there. */
static void add_copied(struct gather *g, uint32_t offset)
{
    uint32_t len = g->bytes.len - offset;
    struct gather_part *last = g->part_count ? &g->parts[g->part_count - 1] : NULL;
    g->octets += len;
    if (last && !last->ptr) /* then it ends where this begins: bytes only grow */
        last->len += len;
    else if (len)
        add_part(g, (struct gather_part){ NULL, offset, len });
}

void gather_copy(struct gather *g, struct slice s)
{
    uint32_t offset = g->bytes.len;
    enum status st = buf_append(&g->bytes, s);
    must(st == STATUS_OK);
    add_copied(g, offset);
}

void gather_printf(struct gather *g, const char *format, ...)
{
    uint32_t offset = g->bytes.len;
    va_list args;
    va_start(args, format);
    enum status st = buf_vprintf(&g->bytes, format, args);
    va_end(args);
    must(st == STATUS_OK);
    add_copied(g, offset);
}

void gather_ref(struct gather *g, struct slice s)
{
    if (s.len == 0)
        return;
    must(s.len <= UINT32_MAX);
    g->octets += s.len;
    struct gather_part *last = g->part_count ? &g->parts[g->part_count - 1] : NULL;
    if (last && last->ptr && last->ptr + last->len == s.ptr && s.len <= UINT32_MAX - last->len)
        last->len += (uint32_t)s.len;
    else
        add_part(g, (struct gather_part){ s.ptr, 0, (uint32_t)s.len });
}

uint32_t gather_iov(const struct gather *g, uint32_t part, uint32_t offset_in_part,
                    struct iovec *iov, uint32_t max)
{
    uint32_t filled = 0;
    for (; part < g->part_count && filled < max; part++, offset_in_part = 0) {
        const struct gather_part *p = &g->parts[part];
        must(offset_in_part <= p->len);
        if (offset_in_part == p->len)
            continue;
        const char *start = p->ptr ? p->ptr : g->bytes.ptr + p->offset;
        iov[filled++] =
            (struct iovec){ (void *)(uintptr_t)(start + offset_in_part), p->len - offset_in_part };
    }
    return filled;
}
