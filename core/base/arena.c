/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena - blocks that start at 512 octets and double to 16 KiB; an allocation larger than what is
 * left opens a new block of at least its own size. Nothing is ever given back alone.
 */
#include "core/base/arena.h"
#include "core/base/must.h"
#include <stdlib.h>

#define BLOCK_FIRST 512
#define BLOCK_MAX   (16 * 1024)
#define ALIGNMENT   8

struct arena_block {
    struct arena_block *next; /* older */
    size_t used, cap;         /* octets of data[] */
    _Alignas(ALIGNMENT) char data[];
};

void arena_init(struct arena *a)
{
    *a = (struct arena){ 0 };
}

void arena_done(struct arena *a)
{
    struct arena_block *block = a->blocks;
    while (block) {
        struct arena_block *older = block->next;
        free(block);
        block = older;
    }
    arena_init(a);
}

static struct arena_block *add_block(struct arena *a, size_t need)
{
    size_t total = BLOCK_FIRST;
    if (a->blocks)
        total = 2 * (sizeof *a->blocks + a->blocks->cap);
    if (total > BLOCK_MAX)
        total = BLOCK_MAX;
    if (total < sizeof(struct arena_block) + need)
        total = sizeof(struct arena_block) + need;
    struct arena_block *block = mem_alloc(total);
    *block = (struct arena_block){ .next = a->blocks, .cap = total - sizeof *block };
    a->blocks = block;
    return block;
}

void *arena_alloc(struct arena *a, size_t size)
{
    must(size < SIZE_MAX / 2);
    size_t need = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    struct arena_block *block = a->blocks;
    if (!block || block->cap - block->used < need)
        block = add_block(a, need);
    void *ptr = block->data + block->used;
    block->used += need;
    a->used += need;
    return memset(ptr, 0, need);
}

struct slice arena_copy(struct arena *a, struct slice s)
{
    char *ptr = arena_alloc(a, s.len);
    if (s.len)
        memcpy(ptr, s.ptr, s.len);
    return slice_of(ptr, s.len);
}
