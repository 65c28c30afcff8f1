/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rcpt_set - open addressing with linear probing, never more than half full; when it would be, a
 * table of twice the size is filled anew and the old one stays in the arena until the message goes.
 *
 * Limits: as many recipients as the session allows. Addresses chosen to collide cost a comparison
 * each, which that limit bounds.
 */
#include "core/smtp/rcpt_set.h"
#include "core/base/must.h"

static bool is_same(const struct rcpt *r, struct slice address, struct slice domain)
{
    if (r->address.len != address.len || r->domain.len != domain.len)
        return false;
    size_t local = address.len - domain.len; /* with the '@' */
    return slice_eq(slice_head(r->address, local), slice_head(address, local)) &&
           slice_eq_nocase(r->domain, domain);
}

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* FNV-1a, with the domain in lower case. */
static uint32_t hash(struct slice address, struct slice domain)
{
    size_t local = address.len - domain.len;
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < address.len; i++) {
        char c = i < local ? address.ptr[i] : fold(address.ptr[i]);
        h = (h ^ (unsigned char)c) * 16777619u;
    }
    return h;
}

static bool table_contains(const struct rcpt_set *set, const struct message *m,
                           struct slice address, struct slice domain)
{
    uint32_t mask = set->cap - 1;
    for (uint32_t at = hash(address, domain) & mask; set->slots[at]; at = (at + 1) & mask)
        if (is_same(&m->rcpts[set->slots[at] - 1], address, domain))
            return true;
    return false;
}

bool rcpt_set_contains(const struct rcpt_set *set, const struct message *m, struct slice address,
                       struct slice domain)
{
    if (set->cap > 0)
        return table_contains(set, m, address, domain);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        if (is_same(&m->rcpts[i], address, domain))
            return true;
    return false;
}

static void put(struct rcpt_set *set, const struct message *m, uint32_t index)
{
    uint32_t mask = set->cap - 1;
    uint32_t at = hash(m->rcpts[index].address, m->rcpts[index].domain) & mask;
    while (set->slots[at])
        at = (at + 1) & mask;
    set->slots[at] = index + 1;
}

static void grow(struct rcpt_set *set, struct message *m)
{
    set->cap = set->cap ? set->cap * 2 : RCPT_SET_LINEAR * 4;
    set->slots = arena_alloc(&m->arena, set->cap * sizeof *set->slots);
    for (uint32_t i = 0; i + 1 < m->rcpt_count; i++)
        put(set, m, i);
}

void rcpt_set_note_last(struct rcpt_set *set, struct message *m)
{
    must(m->rcpt_count > 0);
    if (m->rcpt_count <= RCPT_SET_LINEAR)
        return;
    if (m->rcpt_count * 2 > set->cap)
        grow(set, m);
    put(set, m, m->rcpt_count - 1);
}
