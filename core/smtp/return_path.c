/* SPDX-License-Identifier: Apache-2.0 */
/*
 * return_path - letters and digits only, and hyphens: other signs in a local part, "+" and "="
 * among them, are refused or rewritten by too many hosts to come back whole.
 */
#include "core/smtp/return_path.h"
#include "core/base/must.h"
#include "core/smtp/queue_id.h"
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <stdio.h>

#define PREFIX     "b-"
#define PREFIX_LEN (sizeof PREFIX - 1)
#define PROOF_LEN  16 /* characters, of 5 bits each */

/* --- the proof ------------------------------------------------------------------------------- */

static void prove(const struct return_path_key *key, struct slice said, char out[PROOF_LEN])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t mac[32];
    unsigned len = sizeof mac;
    must(HMAC(EVP_sha256(), key->octets, sizeof key->octets, (const uint8_t *)said.ptr, said.len,
              mac, &len));
    for (unsigned i = 0; i < PROOF_LEN; i++) {
        unsigned bit = i * 5, pair = (unsigned)mac[bit / 8] << 8 | mac[bit / 8 + 1];
        out[i] = digits[pair >> (11 - bit % 8) & 31];
    }
}

void return_path_make(const struct return_path_key *key, const struct return_path *path,
                      char out[RETURN_PATH_LOCAL_MAX])
{
    int len =
        snprintf(out, RETURN_PATH_LOCAL_MAX, PREFIX "%s-%u-%u-", path->id, path->shard, path->rcpt);
    must(len > 0 && (size_t)len + PROOF_LEN < RETURN_PATH_LOCAL_MAX);
    prove(key, slice_of(out, (size_t)len), out + len);
    out[(size_t)len + PROOF_LEN] = '\0';
}

/* --- reading --------------------------------------------------------------------------------- */

static struct slice lower(struct slice in, char out[RETURN_PATH_LOCAL_MAX])
{
    for (size_t i = 0; i < in.len; i++)
        out[i] = in.ptr[i] >= 'A' && in.ptr[i] <= 'Z' ? (char)(in.ptr[i] | 0x20) : in.ptr[i];
    return slice_of(out, in.len);
}

/* Digits up to a hyphen, which is taken too. */
static bool take_number(struct slice *rest, uint32_t max, uint32_t *out)
{
    size_t len = slice_find(*rest, '-');
    uint64_t n = 0;
    if (len == 0 || len > 10 || len == rest->len)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (rest->ptr[i] < '0' || rest->ptr[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(rest->ptr[i] - '0');
    }
    *rest = slice_skip(*rest, len + 1);
    *out = (uint32_t)n;
    return n <= max;
}

/* Everything but the proof, which *rest is then. */
static bool take_words(struct slice *rest, struct return_path *out)
{
    uint32_t shard;
    if (!slice_eq(slice_head(*rest, PREFIX_LEN), SLICE(PREFIX)))
        return false;
    *rest = slice_skip(*rest, PREFIX_LEN);
    struct slice id = slice_head(*rest, slice_find(*rest, '-'));
    if (!queue_id_is_valid(id) || id.len == rest->len)
        return false;
    memcpy(out->id, id.ptr, id.len);
    out->id[id.len] = '\0';
    *rest = slice_skip(*rest, id.len + 1);
    if (!take_number(rest, UINT16_MAX, &shard) || !take_number(rest, UINT32_MAX, &out->rcpt))
        return false;
    out->shard = (uint16_t)shard;
    return rest->len == PROOF_LEN;
}

bool return_path_read(const struct return_path_key *key, struct slice local,
                      struct return_path *out)
{
    char text[RETURN_PATH_LOCAL_MAX], proof[PROOF_LEN];
    if (local.len >= sizeof text)
        return false;
    struct slice all = lower(local, text), rest = all;
    if (!take_words(&rest, out))
        return false;
    prove(key, slice_head(all, all.len - PROOF_LEN), proof);
    return CRYPTO_memcmp(proof, rest.ptr, PROOF_LEN) == 0;
}

bool return_path_is_likely(struct slice local)
{
    char text[RETURN_PATH_LOCAL_MAX];
    struct return_path path;
    if (local.len >= sizeof text)
        return false;
    struct slice rest = lower(local, text);
    return take_words(&rest, &path);
}

/* --- which domains --------------------------------------------------------------------------- */

const char *return_path_domain(const struct config *cfg, struct slice tenant)
{
    const struct config_tenant *t = tenant.len > 0 ? config_find_tenant(cfg, tenant) : NULL;
    return t && t->bounce_domain ? t->bounce_domain : cfg->bounces.domain;
}

bool return_path_is_domain(const struct config *cfg, struct slice domain)
{
    if (cfg->bounces.domain && slice_eq_nocase(slice_str(cfg->bounces.domain), domain))
        return true;
    for (size_t i = 0; i < cfg->tenant_count; i++) {
        const char *own = cfg->tenants[i].bounce_domain;
        if (own && slice_eq_nocase(slice_str(own), domain))
            return true;
    }
    return false;
}

bool return_path_is_complaints(const struct config *cfg, struct slice local)
{
    return slice_eq_nocase(local, slice_str(cfg->bounces.complaints));
}

bool return_path_is_postmaster(const struct config *cfg, struct slice local)
{
    return cfg->bounces.postmaster &&
           (slice_eq_nocase(local, SLICE("postmaster")) || slice_eq_nocase(local, SLICE("abuse")));
}
