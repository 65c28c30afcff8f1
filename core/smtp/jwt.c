/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jwt - three parts of base64url with dots between: header, claims, signature.
 *
 * The signature is checked first, over the octets as they came; only then are the claims looked at.
 * JSON is jansson's, fed with at most TOKEN_MAX octets and DEPTH_MAX levels, so that no token can
 * cost more than a message line.
 *
 * To add an algorithm: a row in algorithms[] and, if its signature has a form of its own, a case in
 * check_signature.
 */
#include "core/smtp/jwt.h"
#include "core/base/must.h"
#include "core/smtp/sasl.h"
#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#define TOKEN_MAX    8192
#define DEPTH_MAX    16
#define KEYS_MAX     64
#define FILE_MAX     (256 * 1024)
#define RSA_BITS_MIN 2048

struct jwt_key {
    EVP_PKEY *key; /* owned */
    char *kid;     /* owned; NULL: none */
};

struct jwt_keys {
    struct jwt_key keys[KEYS_MAX];
    size_t count;
};

/* Of a JWK; NULL: it is malformed. */
typedef EVP_PKEY *wrap_fn(const json_t *jwk);
static wrap_fn wrap_rsa, wrap_ec, wrap_ed25519;

static const struct {
    int type;              /* of the key */
    struct slice name;     /* as `alg` says it */
    struct slice kty, crv; /* as a JWK says it; no crv: not looked at */
    wrap_fn *wrap;
} algorithms[] = {
    { EVP_PKEY_RSA, { "RS256", 5 }, { "RSA", 3 }, { NULL, 0 }, wrap_rsa },
    { EVP_PKEY_EC, { "ES256", 5 }, { "EC", 2 }, { "P-256", 5 }, wrap_ec },
    { EVP_PKEY_ED25519, { "EdDSA", 5 }, { "OKP", 3 }, { "Ed25519", 7 }, wrap_ed25519 },
};

/* --- base64url (RFC 7515 2) ------------------------------------------------------------------ */

/* Strict: the alphabet, no padding, no stray bits. */
static bool decode_url(struct slice text, struct buf *out)
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

/* An object; NULL: it is none. */
static json_t *parse_object(struct slice text)
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

static struct slice string_of(const json_t *value)
{
    return json_is_string(value) ? slice_of(json_string_value(value), json_string_length(value))
                                 : SLICE_NONE;
}

static json_t *parse_part(struct slice text)
{
    struct buf octets;
    json_t *root = NULL;
    buf_init(&octets, TOKEN_MAX);
    if (decode_url(text, &octets))
        root = parse_object(buf_slice(&octets));
    buf_done(&octets);
    return root;
}

/* --- keys ------------------------------------------------------------------------------------ */

/* NULL, or why it cannot be used. */
static const char *check_key(EVP_PKEY *key)
{
    switch (EVP_PKEY_id(key)) {
    case EVP_PKEY_RSA:
        return EVP_PKEY_bits(key) >= RSA_BITS_MIN ? NULL : "an RSA key has fewer than 2048 bits";
    case EVP_PKEY_EC:
        return EC_GROUP_get_curve_name(EC_KEY_get0_group(EVP_PKEY_get0_EC_KEY(key))) ==
                       NID_X9_62_prime256v1
                   ? NULL
                   : "an elliptic key is not on P-256";
    case EVP_PKEY_ED25519: return NULL;
    default: return "a key is neither RSA, P-256 nor Ed25519";
    }
}

/* Takes the key. */
static const char *add_key(struct jwt_keys *k, EVP_PKEY *key, struct slice kid)
{
    const char *why = k->count == KEYS_MAX ? "there are more than 64 keys" : check_key(key);
    if (why) {
        EVP_PKEY_free(key);
        return why;
    }
    struct jwt_key *added = &k->keys[k->count++];
    added->key = key;
    if (kid.ptr) {
        added->kid = mem_alloc(kid.len + 1);
        memcpy(added->kid, kid.ptr, kid.len);
        added->kid[kid.len] = '\0';
    }
    return NULL;
}

/* Of a key's kind; every kind that add_key takes has a row. */
static struct slice algorithm_of(const EVP_PKEY *key)
{
    for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
        if (algorithms[i].type == EVP_PKEY_id(key))
            return algorithms[i].name;
    must(!"a key of the table");
    return SLICE_NONE;
}

static BIGNUM *number_of(const json_t *jwk, const char *name)
{
    struct buf octets;
    BIGNUM *n = NULL;
    buf_init(&octets, 1024);
    if (decode_url(string_of(json_object_get(jwk, name)), &octets) && octets.len > 0)
        n = BN_bin2bn((const uint8_t *)octets.ptr, octets.len, NULL);
    buf_done(&octets);
    return n;
}

static EVP_PKEY *wrap_rsa(const json_t *jwk)
{
    RSA *rsa = RSA_new();
    EVP_PKEY *key = EVP_PKEY_new();
    BIGNUM *n = number_of(jwk, "n"), *e = number_of(jwk, "e");
    bool is_good = n && e && RSA_set0_key(rsa, n, e, NULL) == 1;
    if (!is_good) {
        BN_free(n);
        BN_free(e);
    }
    is_good = is_good && RSA_check_key(rsa) == 1 && EVP_PKEY_set1_RSA(key, rsa) == 1;
    RSA_free(rsa);
    if (is_good)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

static EVP_PKEY *wrap_ec(const json_t *jwk)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    BIGNUM *x = number_of(jwk, "x"), *y = number_of(jwk, "y");
    bool is_good = x && y && EC_KEY_set_public_key_affine_coordinates(ec, x, y) == 1 &&
                   EVP_PKEY_set1_EC_KEY(key, ec) == 1;
    BN_free(x);
    BN_free(y);
    EC_KEY_free(ec);
    if (is_good)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

static EVP_PKEY *wrap_ed25519(const json_t *jwk)
{
    struct buf octets;
    EVP_PKEY *key = NULL;
    buf_init(&octets, 64);
    if (decode_url(string_of(json_object_get(jwk, "x")), &octets) && octets.len == 32)
        key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const uint8_t *)octets.ptr, 32);
    buf_done(&octets);
    return key;
}

static bool has_word(const json_t *object, const char *name, struct slice want)
{
    return slice_eq(string_of(json_object_get(object, name)), want);
}

/* True when the member is absent, or is this word. */
static bool may_be(const json_t *jwk, const char *name, struct slice want)
{
    return !json_object_get(jwk, name) || has_word(jwk, name, want);
}

/* Keys for encryption, or of kinds that are not ours, stand in such sets too. */
static const char *read_jwk(struct jwt_keys *k, const json_t *jwk)
{
    for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
        if (!has_word(jwk, "kty", algorithms[i].kty) || !may_be(jwk, "use", SLICE("sig")) ||
            !may_be(jwk, "alg", algorithms[i].name) ||
            (algorithms[i].crv.len > 0 && !has_word(jwk, "crv", algorithms[i].crv)))
            continue;
        EVP_PKEY *key = algorithms[i].wrap(jwk);
        return key ? add_key(k, key, string_of(json_object_get(jwk, "kid")))
                   : "a key of the set is malformed";
    }
    return NULL; /* RFC 7517 5: what is not understood is passed over */
}

static const char *read_set(struct jwt_keys *k, const json_t *set)
{
    const json_t *list = json_object_get(set, "keys");
    const char *why = NULL;
    if (!json_is_array(list))
        return "is JSON, but has no \"keys\"";
    for (size_t i = 0; i < json_array_size(list) && !why; i++)
        why = read_jwk(k, json_array_get(list, i));
    return why;
}

static EVP_PKEY *next_pem(BIO *in, bool *is_over)
{
    char *name = NULL, *header = NULL;
    uint8_t *data = NULL;
    long len = 0;
    EVP_PKEY *key = NULL;
    *is_over = PEM_read_bio(in, &name, &header, &data, &len) != 1;
    if (*is_over)
        return NULL;
    const uint8_t *at = data;
    if (strcmp(name, PEM_STRING_PUBLIC) == 0) {
        key = d2i_PUBKEY(NULL, &at, len);
    } else if (strcmp(name, PEM_STRING_X509) == 0) {
        X509 *cert = d2i_X509(NULL, &at, len);
        key = cert ? X509_get_pubkey(cert) : NULL;
        X509_free(cert);
    }
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    return key;
}

static const char *read_pem(struct jwt_keys *k, struct slice text)
{
    BIO *in = BIO_new_mem_buf(text.ptr ? text.ptr : "", (int)text.len);
    const char *why = NULL;
    bool is_over = false;
    ERR_clear_error();
    while (!why && !is_over) {
        EVP_PKEY *key = next_pem(in, &is_over);
        if (key)
            why = add_key(k, key, SLICE_NONE);
        else if (!is_over || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
            why = "a block is neither a PUBLIC KEY nor a CERTIFICATE that can be read";
    }
    BIO_free(in);
    ERR_clear_error();
    return why;
}

static bool looks_like_json(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!strchr(" \t\r\n", text.ptr[i]))
            return text.ptr[i] == '{';
    return false;
}

static const char *read_keys(struct jwt_keys *k, struct slice text)
{
    if (text.len > FILE_MAX)
        return "is larger than 256 KiB";
    if (!looks_like_json(text))
        return read_pem(k, text);
    json_t *set = parse_object(text);
    const char *why = set ? read_set(k, set) : "is no JSON object";
    json_decref(set);
    return why;
}

enum status jwt_keys_parse(struct slice text, struct jwt_keys **out, struct buf *error)
{
    struct jwt_keys *k = mem_zalloc(sizeof *k);
    const char *why = read_keys(k, text);
    if (!why && k->count == 0)
        why = "holds no key: write PEM public keys or a JWK set";
    if (!why) {
        *out = k;
        return STATUS_OK;
    }
    jwt_keys_free(k);
    must(buf_printf(error, "%s", why) == STATUS_OK);
    return STATUS_BAD;
}

void jwt_keys_free(struct jwt_keys *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->count; i++) {
        EVP_PKEY_free(k->keys[i].key);
        free(k->keys[i].kid);
    }
    free(k);
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
    return slice_eq(alg, algorithm_of(key->key));
}

static bool is_signed(const struct jwt_keys *keys, const json_t *header, struct slice signed_part,
                      struct slice signature)
{
    struct slice alg = string_of(json_object_get(header, "alg"));
    struct slice kid = string_of(json_object_get(header, "kid"));
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
        return slice_eq(string_of(value), want);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (slice_eq(string_of(json_array_get(value, i)), want))
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
    if (p->issuer && !has_word(claims, "iss", slice_str(p->issuer)))
        return false;
    if (p->audience && !holds(json_object_get(claims, "aud"), slice_str(p->audience)))
        return false;
    if (!p->scope)
        return true;
    return scope_holds(string_of(json_object_get(claims, "scope")), slice_str(p->scope)) ||
           holds(json_object_get(claims, "scp"), slice_str(p->scope));
}

static enum jwt_verdict check_claims(const json_t *claims, const struct jwt_policy *policy,
                                     const struct now *now, struct buf *user, int64_t *expires_s)
{
    int64_t exp;
    enum jwt_verdict verdict = check_times(claims, now, &exp);
    if (verdict != JWT_GOOD)
        return verdict;
    struct slice name = string_of(json_object_get(claims, policy->user_claim));
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
    if (header && decode_url(slice_skip(token, second + 1), &signature))
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
