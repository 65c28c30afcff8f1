/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * pack - a message's content as it is stored when that is shorter: one LZ4 block. Shared by the
 * entry that is to be queued and the batches that carry it, within one worker thread.
 */
#include "core/base/slice.h"
#include "core/smtp/message.h"

#define PACK_MIN (1024)       /* octets of content below which it is not tried */
#define PACK_MAX (256 * 1024) /* ... above; such messages have left in chunks, mostly */

struct pack {
    uint32_t refs;
    uint32_t len;
    char octets[];
};

/* One reference; NULL: the content is better stored as it is. `scratch` is the caller's, to be used
 * again; it grows to PACK_MAX and what a block may need. */
struct pack *pack_new(const struct message *m, struct buf *scratch);
struct pack *pack_ref(struct pack *p); /* NULL is harmless */
void pack_unref(struct pack *p);       /* likewise */
