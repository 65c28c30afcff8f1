/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_cache - a hash table of chains, and one list from the longest unused to the latest used.
 *
 * The digest is its own hash: its key is random and of this process, so nobody can choose what
 * collides. When `max` are there the longest unused one makes room. One that is too old is dropped
 * when it is found. Entries are wiped before they are freed.
 *
 * Limits: max entries of about 80 octets; the table has at least as many slots.
 */
#include "io/auth_cache.h"
#include "core/base/list.h"

#include <openssl/mem.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct list used;   /* in auth_cache.used */
    struct entry *next; /* of the same slot */
    int64_t until_ms;   /* monotonic */
    uint8_t digest[AUTH_DIGEST_LEN];
};

struct auth_cache {
    struct list used; /* struct entry, longest unused first */
    struct entry **slots;
    uint32_t slot_mask, count, max, ttl_ms;
};

struct auth_cache *auth_cache_new(uint32_t max, uint32_t ttl_ms)
{
    struct auth_cache *c = mem_zalloc(sizeof *c);
    uint32_t slots = 1;
    while (slots < max)
        slots *= 2;
    list_init(&c->used);
    c->slots = mem_zalloc(slots * sizeof(struct entry *));
    c->slot_mask = slots - 1;
    c->max = ttl_ms > 0 ? max : 0;
    c->ttl_ms = ttl_ms;
    return c;
}

static struct entry **slot_of(const struct auth_cache *c, const uint8_t *digest)
{
    uint32_t hash;
    memcpy(&hash, digest, sizeof hash);
    return &c->slots[hash & c->slot_mask];
}

/* Where the entry hangs; what it points at is NULL when there is none. */
static struct entry **find(const struct auth_cache *c, const uint8_t *digest)
{
    struct entry **at = slot_of(c, digest);
    while (*at && CRYPTO_memcmp((*at)->digest, digest, AUTH_DIGEST_LEN) != 0)
        at = &(*at)->next;
    return at;
}

static void drop(struct auth_cache *c, struct entry **at)
{
    struct entry *e = *at;
    *at = e->next;
    list_remove(&e->used);
    OPENSSL_cleanse(e, sizeof *e);
    free(e);
    c->count--;
}

void auth_cache_free(struct auth_cache *c)
{
    if (!c)
        return;
    while (c->count > 0)
        drop(c, find(c, list_entry(c->used.next, struct entry, used)->digest));
    free(c->slots);
    free(c);
}

bool auth_cache_has(struct auth_cache *c, const uint8_t digest[AUTH_DIGEST_LEN], int64_t now_ms)
{
    struct entry **at = find(c, digest);
    if (!*at)
        return false;
    if ((*at)->until_ms <= now_ms) {
        drop(c, at);
        return false;
    }
    list_remove(&(*at)->used);
    list_push_back(&c->used, &(*at)->used);
    return true;
}

void auth_cache_put(struct auth_cache *c, const uint8_t digest[AUTH_DIGEST_LEN], int64_t now_ms)
{
    struct entry **at = find(c, digest);
    if (c->max == 0)
        return;
    if (*at)
        drop(c, at);
    if (c->count == c->max)
        drop(c, find(c, list_entry(c->used.next, struct entry, used)->digest));
    struct entry *e = mem_zalloc(sizeof *e);
    memcpy(e->digest, digest, AUTH_DIGEST_LEN);
    e->until_ms = now_ms + c->ttl_ms;
    at = slot_of(c, digest);
    e->next = *at;
    *at = e;
    list_push_back(&c->used, &e->used);
    c->count++;
}

uint32_t auth_cache_count(const struct auth_cache *c)
{
    return c->count;
}
