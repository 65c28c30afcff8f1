/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack - why: of what a message costs on its way into Redis a third is paid by the octet, mostly by
 * Redis: copies through the socket and into the append-only file, and fresh memory; and memory is
 * what a queue runs out of. HTML and text come down to a half or a third at some 1 GB/s; what does
 * not, attachments in base64, is found out about four times as fast.
 *
 * A block that saves less than an eighth is not worth the way back.
 */
#include "queue/pack.h"
#include "core/base/must.h"
#include <lz4.h>
#include <stdlib.h>

struct pack *pack_ref(struct pack *p)
{
    if (p)
        p->refs++;
    return p;
}

void pack_unref(struct pack *p)
{
    if (p && --p->refs == 0)
        free(p);
}

/* The content in one piece; it fits. */
static struct slice joined(const struct message *m, char *to)
{
    size_t len = 0;
    if (m->blob)
        return m->body;
    if (m->content.head && m->content.head->len == m->content.len)
        return slice_of(m->content.head->data, m->content.head->len);
    for (const struct chain_seg *seg = m->content.head; seg; seg = seg->next) {
        memcpy(to + len, seg->data, seg->len);
        len += seg->len;
    }
    return slice_of(to, len);
}

struct pack *pack_new(const struct message *m, struct buf *scratch)
{
    size_t len = m->blob ? m->body.len : m->content.len;
    if (m->chunk_count > 0 || len < PACK_MIN || len > PACK_MAX)
        return NULL;
    size_t most = len - len / 8;
    buf_clear(scratch);
    char *room = buf_reserve(scratch, (uint32_t)(len + most));
    if (!room)
        return NULL;
    struct slice in = joined(m, room);
    int packed = LZ4_compress_default(in.ptr, room + len, (int)len, (int)most);
    if (packed <= 0)
        return NULL;
    struct pack *p = mem_alloc(sizeof *p + (size_t)packed);
    p->refs = 1;
    p->len = (uint32_t)packed;
    memcpy(p->octets, room + len, (size_t)packed);
    return p;
}
