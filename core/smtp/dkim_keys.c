/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dkim_keys - private keys, and which of them sign for a domain.
 *
 * A set is made by one thread, sealed, and then only read; the last reference frees it, whichever
 * thread holds it. BoringSSL lets any number of threads sign with one key at once.
 *
 * Which domain signs (P-243): that of From, or the nearest one above it that has keys, so that the
 * signature is aligned with From in the relaxed sense of RFC 7489 3.1.1. A tenant's users never
 * sign with what is another tenant's, and not with a key further up either: whoever owns
 * example.org's key owns all below it.
 */
#include "core/base/must.h"
#include "core/smtp/dkim.h"
#include "core/smtp/sasl.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#define SELECTOR_MAX 128

/* --- one key --------------------------------------------------------------------------------- */

static enum status complain(struct buf *error, EVP_PKEY *pkey, const char *why)
{
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    if (buf_append(error, slice_str(why)) != STATUS_OK)
        buf_clear(error);
    return STATUS_BAD;
}

/* Nobody is there to type a password. */
static int no_password(char *buf, int size, int writing, void *ctx)
{
    return 0;
}

bool dkim_key_is_ed25519(const EVP_PKEY *pkey)
{
    return EVP_PKEY_id(pkey) == EVP_PKEY_ED25519;
}

enum status dkim_key_parse(struct slice pem, EVP_PKEY **out, struct buf *error)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    must(bio && pem.len <= INT32_MAX);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    BIO_free(bio);
    if (!pkey)
        return complain(error, NULL, "is no PEM private key without a password");
    bool is_rsa = EVP_PKEY_id(pkey) == EVP_PKEY_RSA;
    if (!is_rsa && !dkim_key_is_ed25519(pkey))
        return complain(error, pkey, "is neither an RSA nor an Ed25519 key");
    if (is_rsa && EVP_PKEY_bits(pkey) < DKIM_RSA_BITS_MIN)
        return complain(error, pkey, "is an RSA key of fewer than 1024 bits (RFC 8301)");
    if (is_rsa && EVP_PKEY_bits(pkey) > DKIM_RSA_BITS_MAX)
        return complain(error, pkey, "is an RSA key of more than 8192 bits");
    *out = pkey;
    return STATUS_OK;
}

static enum status append_base64(struct buf *out, const uint8_t *octets, size_t len)
{
    struct buf text;
    buf_init(&text, 4 * ((uint32_t)len / 3 + 1));
    must(base64_encode(slice_of((const char *)octets, len), &text) == STATUS_OK);
    enum status st = buf_append(out, buf_slice(&text));
    buf_done(&text);
    return st;
}

static enum status record_of_ed25519(const EVP_PKEY *pkey, struct buf *out)
{
    uint8_t raw[32];
    size_t len = sizeof raw;
    must(EVP_PKEY_get_raw_public_key(pkey, raw, &len) == 1);
    enum status st = buf_append(out, SLICE("v=DKIM1; k=ed25519; p="));
    return st == STATUS_OK ? append_base64(out, raw, len) : st;
}

static enum status record_of_rsa(const EVP_PKEY *pkey, struct buf *out)
{
    uint8_t *der = NULL;
    int len = i2d_PUBKEY((EVP_PKEY *)(uintptr_t)pkey, &der);
    must(len > 0);
    enum status st = buf_append(out, SLICE("v=DKIM1; k=rsa; p="));
    if (st == STATUS_OK)
        st = append_base64(out, der, (size_t)len);
    OPENSSL_free(der);
    return st;
}

enum status dkim_key_record(const EVP_PKEY *pkey, struct buf *out)
{
    return dkim_key_is_ed25519(pkey) ? record_of_ed25519(pkey, out) : record_of_rsa(pkey, out);
}

static bool is_selector_octet(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

bool dkim_is_selector(struct slice selector)
{
    char last = '.';
    if (selector.len > SELECTOR_MAX)
        return false;
    for (size_t i = 0; i < selector.len; i++) {
        char c = selector.ptr[i];
        if (c == '.' ? last == '.' : !is_selector_octet(c))
            return false;
        last = c;
    }
    return last != '.';
}

/* --- sets ------------------------------------------------------------------------------------ */

struct dkim_keys *dkim_keys_new(void)
{
    struct dkim_keys *k = mem_zalloc(sizeof *k);
    atomic_init(&k->refs, 1);
    return k;
}

struct dkim_keys *dkim_keys_ref(struct dkim_keys *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void dkim_domain_drop_keys(struct dkim_domain *d)
{
    for (uint32_t i = 0; i < d->key_count; i++) {
        free(d->keys[i].selector);
        EVP_PKEY_free(d->keys[i].pkey);
    }
    d->key_count = 0;
}

void dkim_keys_unref(struct dkim_keys *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < k->count; i++) {
        dkim_domain_drop_keys(&k->domains[i]);
        free(k->domains[i].name);
    }
    free(k->domains);
    free(k);
}

static char *copy_lower(struct slice name)
{
    char *copy = mem_alloc(name.len + 1);
    for (size_t i = 0; i < name.len; i++)
        copy[i] =
            (char)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? name.ptr[i] | 0x20 : name.ptr[i]);
    copy[name.len] = '\0';
    return copy;
}

/* Room doubles at each power of two. */
struct dkim_domain *dkim_keys_add(struct dkim_keys *k, struct slice name)
{
    if ((k->count & (k->count - 1)) == 0)
        k->domains = mem_realloc(k->domains, (k->count * 2 + 1) * sizeof *k->domains);
    struct dkim_domain *d = &k->domains[k->count++];
    *d = (struct dkim_domain){ .name = copy_lower(name) };
    return d;
}

bool dkim_domain_add_key(struct dkim_domain *d, struct slice selector, EVP_PKEY *pkey)
{
    for (uint32_t i = 0; i < d->key_count; i++)
        if (dkim_key_is_ed25519(d->keys[i].pkey) == dkim_key_is_ed25519(pkey))
            return false;
    must(d->key_count < ARRAY_LEN(d->keys));
    char *copy = mem_alloc(selector.len + 1);
    memcpy(copy, selector.ptr, selector.len);
    copy[selector.len] = '\0';
    d->keys[d->key_count++] = (struct dkim_key){ copy, pkey };
    return true;
}

static int compare_domains(const void *a, const void *b)
{
    return strcmp(((const struct dkim_domain *)a)->name, ((const struct dkim_domain *)b)->name);
}

void dkim_keys_seal(struct dkim_keys *k)
{
    if (k->count > 0)
        qsort(k->domains, k->count, sizeof *k->domains, compare_domains);
}

/* --- finding --------------------------------------------------------------------------------- */

static int compare_name(struct slice name, const char *other)
{
    size_t len = strlen(other);
    size_t least = name.len < len ? name.len : len;
    int order = least > 0 ? memcmp(name.ptr, other, least) : 0;
    return order ? order : (name.len > len) - (name.len < len);
}

/* The first that is not before the name. */
static size_t lower_bound(const struct dkim_keys *k, struct slice name)
{
    size_t low = 0, high = k->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(name, k->domains[middle].name) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_tenants(const struct dkim_domain *d, struct slice tenant)
{
    for (size_t i = 0; i < d->tenant_count; i++)
        if (slice_eq(slice_str(d->tenants[i]), tenant))
            return true;
    return false;
}

/* Among those of one name. */
static enum dkim_match find_exactly(const struct dkim_keys *k, struct slice name,
                                    struct slice tenant, const struct dkim_domain **out)
{
    const struct dkim_domain *best = NULL;
    size_t first = lower_bound(k, name), i = first;
    for (; i < k->count && compare_name(name, k->domains[i].name) == 0; i++) {
        const struct dkim_domain *d = &k->domains[i];
        if (is_tenants(d, tenant) || (d->tenant_count == 0 && !best))
            best = d;
    }
    if (!best)
        return i > first ? DKIM_FOREIGN : DKIM_NO_KEY;
    if (best->key_count == 0)
        return DKIM_BROKEN;
    *out = best;
    return DKIM_FOUND;
}

enum dkim_match dkim_keys_find(const struct dkim_keys *k, struct slice domain, struct slice tenant,
                               const struct dkim_domain **out)
{
    while (domain.len > 0) {
        enum dkim_match match = find_exactly(k, domain, tenant, out);
        if (match != DKIM_NO_KEY)
            return match;
        domain = slice_skip(domain, slice_find(domain, '.') + 1);
    }
    enum dkim_match blind = find_exactly(k, SLICE_NONE, tenant, out);
    return blind == DKIM_BROKEN ? DKIM_BROKEN : DKIM_NO_KEY;
}
