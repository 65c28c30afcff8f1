/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tenant_index - an open hash table, at most half full. Nothing is added or taken away after it was
 * made. Limits: as many tenants as the configuration has.
 */
#include "core/base/tenant_index.h"
#include "core/base/must.h"
#include <stdlib.h>

/* FNV-1a. */
static uint32_t hash_of(struct slice name)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.ptr[i]) * 16777619u;
    return h;
}

/* Where it stands, or would. */
static uint32_t *cell_of(const struct tenant_index *t, struct slice name)
{
    uint32_t i = hash_of(name) & t->mask;
    while (t->cells[i] > 0 && !slice_eq(slice_str(t->cfg->tenants[t->cells[i] - 1].name), name))
        i = (i + 1) & t->mask;
    return &t->cells[i];
}

void tenant_index_init(struct tenant_index *t, const struct config *cfg)
{
    uint32_t size = 2;
    while (size < cfg->tenant_count * 2)
        size *= 2;
    t->cfg = cfg;
    t->cells = mem_zalloc(size * sizeof *t->cells);
    t->mask = size - 1;
    for (uint32_t i = 0; i < cfg->tenant_count; i++)
        *cell_of(t, slice_str(cfg->tenants[i].name)) = i + 1;
}

void tenant_index_done(struct tenant_index *t)
{
    free(t->cells);
    t->cells = NULL;
}

uint32_t tenant_index_find(const struct tenant_index *t, struct slice name)
{
    uint32_t cell = name.len > 0 ? *cell_of(t, name) : 0;
    return cell > 0 ? cell - 1 : (uint32_t)t->cfg->tenant_count;
}
