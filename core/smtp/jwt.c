/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jwt - three parts of base64url with dots between: header, claims, signature.
 *
 * The signature is checked first, over the octets as they came; only when one of our keys made it
 * are the claims read. JSON is jansson's, fed with at most TOKEN_MAX octets and DEPTH_MAX levels,
 * so that no token can cost more than a message line.
 *
 * To look at another claim: check_policy, or check_times.
 */
#include "core/base/must.h"
#include "core/smtp/jwt_private.h"
#include "core/smtp/sasl.h"
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>

#define TOKEN_MAX 8192
#define DEPTH_MAX 16

/* --- base64url (RFC 7515 2) ------------------------------------------------------------------ */

bool jwt_decode_url(struct slice text, struct buf *out)
{
    char copy[TOKEN_MAX + 4];
    if (text.len > TOKEN_MAX || text.len % 4 == 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '+' || c == '/' || c == '=')
            return false;
        copy[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    size_t len = text.len;
    while (len % 4)
        copy[len++] = '=';
    return base64_decode(slice_of(copy, len), out) == STATUS_OK;
}

/* --- JSON ------------------------------------------------------------------------------------ */

/* jansson's own limit of depth is 2,048: far beyond what a token needs. */
static bool is_shallow(struct slice text)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            depth++;
        else if (!in_string && (c == '}' || c == ']'))
            depth--;
        if (depth > DEPTH_MAX)
            return false;
    }
    return true;
}

json_t *jwt_parse_object(struct slice text)
{
    json_error_t ignored;
    if (!is_shallow(text))
        return NULL;
    json_t *root = json_loadb(text.ptr ? text.ptr : "", text.len, JSON_REJECT_DUPLICATES, &ignored);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

struct slice jwt_string_of(const json_t *value)
{
    return json_is_string(value) ? slice_of(json_string_value(value), json_string_length(value))
                                 : SLICE_NONE;
}

bool jwt_has_word(const json_t *object, const char *name, struct slice want)
{
    return slice_eq(jwt_string_of(json_object_get(object, name)), want);
}

static json_t *parse_part(struct slice text)
{
    struct buf octets;
    json_t *root = NULL;
    buf_init(&octets, TOKEN_MAX);
    if (jwt_decode_url(text, &octets))
        root = jwt_parse_object(buf_slice(&octets));
    buf_done(&octets);
    return root;
}

/* --- the signature --------------------------------------------------------------------------- */

/* ES256 signs as two numbers of 32 octets; BoringSSL wants them in DER (RFC 7518 3.4). */
static bool check_ecdsa(EVP_PKEY *key, struct slice signed_part, struct slice signature)
{
    uint8_t digest[32];
    bool is_right = false;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    if (signature.len == 64) {
        const uint8_t *p = (const uint8_t *)signature.ptr;
        BN_bin2bn(p, 32, sig->r);
        BN_bin2bn(p + 32, 32, sig->s);
        unsigned len = 0;
        must(EVP_Digest(signed_part.ptr, signed_part.len, digest, &len, EVP_sha256(), NULL) == 1);
        is_right = ECDSA_do_verify(digest, len, sig, EVP_PKEY_get0_EC_KEY(key)) == 1;
    }
    ECDSA_SIG_free(sig);
    return is_right;
}

static bool check_digest(EVP_PKEY *key, const EVP_MD *md, struct slice signed_part,
                         struct slice signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_right = EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
                    EVP_DigestVerify(ctx, (const uint8_t *)signature.ptr, signature.len,
                                     (const uint8_t *)signed_part.ptr, signed_part.len) == 1;
    EVP_MD_CTX_free(ctx);
    return is_right;
}

static bool check_signature(EVP_PKEY *key, struct slice signed_part, struct slice signature)
{
    bool is_right;
    switch (EVP_PKEY_id(key)) {
    case EVP_PKEY_EC: is_right = check_ecdsa(key, signed_part, signature); break;
    case EVP_PKEY_RSA: is_right = check_digest(key, EVP_sha256(), signed_part, signature); break;
    default: is_right = check_digest(key, NULL, signed_part, signature); break;
    }
    ERR_clear_error();
    return is_right;
}

/* The key decides the algorithm; the token may only agree. */
static bool key_fits(const struct jwt_key *key, struct slice alg, struct slice kid)
{
    if (kid.ptr && key->kid && !slice_eq(kid, slice_str(key->kid)))
        return false;
    return slice_eq(alg, jwt_algorithm_of(key->key));
}

static bool is_signed(const struct jwt_keys *keys, const json_t *header, struct slice signed_part,
                      struct slice signature)
{
    struct slice alg = jwt_string_of(json_object_get(header, "alg"));
    struct slice kid = jwt_string_of(json_object_get(header, "kid"));
    if (json_object_get(header, "crit"))
        return false; /* we understand no extension (RFC 7515 4.1.11) */
    for (size_t i = 0; i < keys->count; i++)
        if (key_fits(&keys->keys[i], alg, kid) &&
            check_signature(keys->keys[i].key, signed_part, signature))
            return true;
    return false;
}

/* --- claims ---------------------------------------------------------------------------------- */

/* False: there is none, or it is no number that a clock could show. Fractions are cut off. */
static bool read_time(const json_t *claims, const char *name, int64_t *seconds)
{
    const json_t *value = json_object_get(claims, name);
    if (!json_is_number(value))
        return false;
    double number = json_number_value(value);
    if (!(number >= 0 && number < 1e12))
        return false;
    *seconds = (int64_t)number;
    return true;
}

static enum jwt_verdict check_times(const json_t *claims, const struct now *now, int64_t *expires_s)
{
    int64_t now_s = now->wall_ms / 1000, at;
    if (!read_time(claims, "exp", expires_s) || *expires_s + JWT_LEEWAY_S <= now_s)
        return JWT_EXPIRED;
    if (json_object_get(claims, "nbf") &&
        (!read_time(claims, "nbf", &at) || at > now_s + JWT_LEEWAY_S))
        return JWT_NOT_YET;
    if (json_object_get(claims, "iat") &&
        (!read_time(claims, "iat", &at) || at > now_s + JWT_LEEWAY_S))
        return JWT_NOT_YET;
    return JWT_GOOD;
}

/* A string that is it, or a list that holds it. */
static bool holds(const json_t *value, struct slice want)
{
    if (json_is_string(value))
        return slice_eq(jwt_string_of(value), want);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (slice_eq(jwt_string_of(json_array_get(value, i)), want))
            return true;
    return false;
}

static bool scope_holds(struct slice words, struct slice want)
{
    while (words.len > 0) {
        size_t end = slice_find(words, ' ');
        if (slice_eq(slice_head(words, end), want))
            return true;
        words = slice_skip(words, end < words.len ? end + 1 : end);
    }
    return false;
}

static bool check_policy(const json_t *claims, const struct jwt_policy *p)
{
    if (p->issuer && !jwt_has_word(claims, "iss", slice_str(p->issuer)))
        return false;
    if (p->audience && !holds(json_object_get(claims, "aud"), slice_str(p->audience)))
        return false;
    if (!p->scope)
        return true;
    return scope_holds(jwt_string_of(json_object_get(claims, "scope")), slice_str(p->scope)) ||
           holds(json_object_get(claims, "scp"), slice_str(p->scope));
}

static enum jwt_verdict check_claims(const json_t *claims, const struct jwt_policy *policy,
                                     const struct now *now, struct buf *user, int64_t *expires_s)
{
    int64_t exp;
    enum jwt_verdict verdict = check_times(claims, now, &exp);
    if (verdict != JWT_GOOD)
        return verdict;
    struct slice name = jwt_string_of(json_object_get(claims, policy->user_claim));
    if (!check_policy(claims, policy) || name.len == 0 || buf_append(user, name) != STATUS_OK)
        return JWT_WRONG_CLAIM;
    *expires_s = exp;
    return JWT_GOOD;
}

/* --- entry points ---------------------------------------------------------------------------- */

static enum jwt_verdict check_signed(const struct jwt_keys *keys, struct slice token, size_t first,
                                     size_t second)
{
    enum jwt_verdict verdict = JWT_MALFORMED;
    struct buf signature;
    json_t *header = parse_part(slice_head(token, first));
    buf_init(&signature, TOKEN_MAX);
    if (header && jwt_decode_url(slice_skip(token, second + 1), &signature))
        verdict = is_signed(keys, header, slice_head(token, second), buf_slice(&signature))
                      ? JWT_GOOD
                      : JWT_BAD_SIGNATURE;
    buf_done(&signature);
    json_decref(header);
    return verdict;
}

enum jwt_verdict jwt_check(const struct jwt_keys *keys, const struct jwt_policy *policy,
                           struct slice token, const struct now *now, struct buf *user,
                           int64_t *expires_s)
{
    size_t first = slice_find(token, '.');
    if (token.len > TOKEN_MAX || first >= token.len)
        return JWT_MALFORMED;
    size_t second = first + 1 + slice_find(slice_skip(token, first + 1), '.');
    if (second >= token.len)
        return JWT_MALFORMED;
    enum jwt_verdict verdict = check_signed(keys, token, first, second);
    if (verdict != JWT_GOOD)
        return verdict;
    json_t *claims = parse_part(slice_skip(slice_head(token, second), first + 1));
    if (!claims)
        return JWT_MALFORMED;
    verdict = check_claims(claims, policy, now, user, expires_s);
    json_decref(claims);
    return verdict;
}

const char *jwt_verdict_name(enum jwt_verdict v)
{
    static const char *const names[] = {
        [JWT_GOOD] = "good token",
        [JWT_MALFORMED] = "malformed token",
        [JWT_BAD_SIGNATURE] = "token signed by nobody known",
        [JWT_EXPIRED] = "expired token",
        [JWT_NOT_YET] = "token not valid yet",
        [JWT_WRONG_CLAIM] = "token for somebody or something else",
    };
    return names[v];
}
