/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jwt_keys - a file of public keys, as an operator or a provider writes it: PEM blocks one after
 * another, with any words between them, or a JWK set. Read once, when the configuration is; a key
 * that cannot be used is an error with its reason, so that nobody finds out by failed logins.
 *
 * To add a kind of key, and with it an algorithm: a row in algorithms[], its wrap_fn, a case in
 * check_key, and, if its signature has a form of its own, a case in check_signature of jwt.c.
 */
#include "core/base/must.h"
#include "core/smtp/jwt_private.h"
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#define FILE_MAX     (256 * 1024)
#define RSA_BITS_MIN 2048

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

struct slice jwt_algorithm_of(const EVP_PKEY *key)
{
    for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
        if (algorithms[i].type == EVP_PKEY_id(key))
            return algorithms[i].name;
    must(!"a key of the table");
    return SLICE_NONE;
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
    const char *why = k->count == JWT_KEYS_MAX ? "there are more than 64 keys" : check_key(key);
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

static BIGNUM *number_of(const json_t *jwk, const char *name)
{
    struct buf octets;
    BIGNUM *n = NULL;
    buf_init(&octets, 1024);
    if (jwt_decode_url(jwt_string_of(json_object_get(jwk, name)), &octets) && octets.len > 0)
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
    if (jwt_decode_url(jwt_string_of(json_object_get(jwk, "x")), &octets) && octets.len == 32)
        key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const uint8_t *)octets.ptr, 32);
    buf_done(&octets);
    return key;
}

/* True when the member is absent, or is this word. */
static bool may_be(const json_t *jwk, const char *name, struct slice want)
{
    return !json_object_get(jwk, name) || jwt_has_word(jwk, name, want);
}

/* Keys for encryption, or of kinds that are not ours, stand in such sets too. */
static const char *read_jwk(struct jwt_keys *k, const json_t *jwk)
{
    for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
        if (!jwt_has_word(jwk, "kty", algorithms[i].kty) || !may_be(jwk, "use", SLICE("sig")) ||
            !may_be(jwk, "alg", algorithms[i].name) ||
            (algorithms[i].crv.len > 0 && !jwt_has_word(jwk, "crv", algorithms[i].crv)))
            continue;
        EVP_PKEY *key = algorithms[i].wrap(jwk);
        return key ? add_key(k, key, jwt_string_of(json_object_get(jwk, "kid")))
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
    json_t *set = jwt_parse_object(text);
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
