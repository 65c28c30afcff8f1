/* SPDX-License-Identifier: Apache-2.0 */
/* tlsa - records into what they demand; see tlsa.h. */
#include "core/relay/tlsa.h"
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <string.h>

#define HEAD_LEN 3 /* usage, selector, matching type */

static size_t digest_len(uint8_t matching)
{
    return matching == TLSA_SHA512 ? SHA512_DIGEST_LENGTH : SHA256_DIGEST_LENGTH;
}

static void digest(uint8_t matching, struct slice der, uint8_t out[TLSA_DIGEST_MAX])
{
    if (matching == TLSA_SHA512)
        SHA512((const uint8_t *)der.ptr, der.len, out);
    else
        SHA256((const uint8_t *)der.ptr, der.len, out);
}

static bool is_usable(uint8_t usage, uint8_t selector, uint8_t matching)
{
    return (usage == TLSA_DANE_TA || usage == TLSA_DANE_EE) &&
           (selector == TLSA_CERTIFICATE || selector == TLSA_KEY) && matching <= TLSA_SHA512;
}

void tlsa_add(struct tlsa_set *set, struct slice data)
{
    if (data.len <= HEAD_LEN)
        return;
    struct tlsa_record r = { .usage = (uint8_t)data.ptr[0],
                             .selector = (uint8_t)data.ptr[1],
                             .matching = (uint8_t)data.ptr[2] };
    struct slice rest = slice_skip(data, HEAD_LEN);
    bool is_digest = r.matching == TLSA_SHA256 || r.matching == TLSA_SHA512;
    if (is_digest && rest.len != digest_len(r.matching))
        return;
    set->is_present = true;
    if (!is_usable(r.usage, r.selector, r.matching) || set->count == TLSA_RECORDS_MAX)
        return;
    if (is_digest) {
        memcpy(r.digest, rest.ptr, rest.len);
    } else {
        r.matching = TLSA_SHA256;
        digest(TLSA_SHA256, rest, r.digest);
    }
    set->records[set->count++] = r;
}

bool tlsa_record_fits(const struct tlsa_record *r, struct slice der)
{
    uint8_t found[TLSA_DIGEST_MAX];
    digest(r->matching, der, found);
    return CRYPTO_memcmp(found, r->digest, digest_len(r->matching)) == 0;
}
