/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_digest - SHA-256 over what makes a message the same when it is sent again.
 *
 *     envelope = H(sender 0 recipient 0 recipient 0 ...)     domains in lower case, sorted
 *     key      = H(tenant 0 key)    or    H(tenant 1 envelope Message-ID)
 *     digest   = H(envelope body)
 *
 * No address holds a NUL and no tenant an octet below a space, so no two inputs run together. The
 * body is taken as it streams by; of its header only the key is looked at. Whoever knows another
 * tenant's key cannot meet it: the tenant is part of every key.
 *
 * Limits: one SHA-256 state (112 octets) and two results, only for messages that have a key.
 */
#include "core/smtp/content_digest.h"
#include "core/base/must.h"

#include <openssl/sha.h>
#include <stdlib.h>

struct content_digest {
    SHA256_CTX body;
    uint8_t envelope[SHA256_DIGEST_LENGTH], key[SHA256_DIGEST_LENGTH];
    bool has_key;     /* any */
    bool is_explicit; /* the client's own */
};

static void add(SHA256_CTX *ctx, struct slice s)
{
    if (s.len > 0)
        SHA256_Update(ctx, s.ptr, s.len);
}

static struct slice octets_of(const uint8_t octets[SHA256_DIGEST_LENGTH])
{
    return slice_of((const char *)octets, SHA256_DIGEST_LENGTH);
}

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Local part as given, domain in lower case, and a NUL. */
static void add_address(SHA256_CTX *ctx, struct slice address, size_t domain_len)
{
    char lower[256];
    struct slice domain = slice_skip(address, address.len - domain_len);
    add(ctx, slice_head(address, address.len - domain_len));
    while (domain.len > 0) {
        size_t n = domain.len < sizeof lower ? domain.len : sizeof lower;
        for (size_t i = 0; i < n; i++)
            lower[i] = fold(domain.ptr[i]);
        add(ctx, slice_of(lower, n));
        domain = slice_skip(domain, n);
    }
    add(ctx, SLICE("\0"));
}

/* Octets behind the last '@'; a quoted local part may hold one too, but not behind it. */
static size_t domain_len(struct slice mailbox)
{
    const char *at = mailbox.len ? memrchr(mailbox.ptr, '@', mailbox.len) : NULL;
    return at ? mailbox.len - (size_t)(at + 1 - mailbox.ptr) : 0;
}

static int compare_octets(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Domains first, in any case; recipients that differ are told apart (P-54 leaves no others). */
static int compare_rcpts(const void *left, const void *right)
{
    const struct rcpt *a = *(const struct rcpt *const *)left,
                      *b = *(const struct rcpt *const *)right;
    if (a->domain.len != b->domain.len)
        return a->domain.len < b->domain.len ? -1 : 1;
    int order = a->domain.len ? strncasecmp(a->domain.ptr, b->domain.ptr, a->domain.len) : 0;
    if (order)
        return order;
    return compare_octets(slice_head(a->address, a->address.len - a->domain.len),
                          slice_head(b->address, b->address.len - b->domain.len));
}

static void add_rcpts(SHA256_CTX *ctx, const struct message *m)
{
    const struct rcpt **sorted = mem_alloc((m->rcpt_count + 1) * sizeof *sorted);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        sorted[i] = &m->rcpts[i];
    qsort(sorted, m->rcpt_count, sizeof *sorted, compare_rcpts);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        add_address(ctx, sorted[i]->address, sorted[i]->domain.len);
    free(sorted);
}

struct content_digest *content_digest_new(const struct message *m)
{
    struct content_digest *d = mem_zalloc(sizeof *d);
    SHA256_CTX ctx;
    SHA256_Init(&ctx);
    add_address(&ctx, m->sender, domain_len(m->sender));
    add_rcpts(&ctx, m);
    SHA256_Final(d->envelope, &ctx);
    SHA256_Init(&d->body);
    add(&d->body, octets_of(d->envelope));
    return d;
}

void content_digest_free(struct content_digest *d)
{
    free(d);
}

bool content_digest_set_key(struct content_digest *d, struct slice tenant, struct slice key)
{
    SHA256_CTX ctx;
    if (d->is_explicit)
        return false;
    SHA256_Init(&ctx);
    add(&ctx, tenant);
    add(&ctx, SLICE("\0"));
    add(&ctx, key);
    SHA256_Final(d->key, &ctx);
    d->has_key = d->is_explicit = true;
    return true;
}

void content_digest_set_message_id(struct content_digest *d, struct slice tenant, struct slice id)
{
    SHA256_CTX ctx;
    if (d->has_key)
        return;
    SHA256_Init(&ctx);
    add(&ctx, tenant);
    add(&ctx, SLICE("\1"));
    add(&ctx, octets_of(d->envelope));
    add(&ctx, id);
    SHA256_Final(d->key, &ctx);
    d->has_key = true;
}

void content_digest_update(struct content_digest *d, struct slice body)
{
    add(&d->body, body);
}

void content_digest_tell_key(const struct content_digest *d, struct message *m)
{
    must(d->has_key);
    _Static_assert(sizeof m->key == sizeof d->key, "a key is a SHA-256");
    memcpy(m->key, d->key, sizeof m->key);
    m->has_key = true;
}

void content_digest_end(struct content_digest *d, struct message *m)
{
    must(m->has_key);
    SHA256_Final(m->digest, &d->body);
}
