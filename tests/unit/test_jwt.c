/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed tokens (P-154): the examples of RFC 7515 A.2, A.3 and RFC 8037 A, every claim on both
 * sides of its bound, tokens that choose their own algorithm, and files of keys. Tokens that the
 * RFCs do not have are signed here, with RFC 8037's private key.
 */
#include "core/smtp/jwt.h"
#include "core/smtp/sasl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/curve25519.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cmocka.h>

#define COUNT(list) (sizeof(list) / sizeof(list)[0])
#define ROOM        65536

#define RSA_N                                                                                      \
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4" \
    "d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re" \
    "xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX" \
    "FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA       "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}"
#define EC_X      "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y      "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"
#define ED_X      "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define ED        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}"
#define SET(list) "{\"keys\":[" list "]}"

/* {"iss":"joe", "exp":1300819380, "http://example.com/is_root":true} */
#define PAYLOAD                                                                                    \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"
#define RS256                                                                                      \
    "eyJhbGciOiJSUzI1NiJ9." PAYLOAD                                                                \
    ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp" \
    "5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHl" \
    "b1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9Q" \
    "OYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define ES256                                                                                      \
    "eyJhbGciOiJFUzI1NiJ9." PAYLOAD                                                                \
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
#define EDDSA                                                                                      \
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"                                     \
    ".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

#define EXP INT64_C(1300819380)

/* The keys of the examples again, as files have them: A.3's with a certificate around it, too. */
#define PEM(kind, lines) "-----BEGIN " kind "-----\n" lines "-----END " kind "-----\n"
#define RSA_PEM                                                                                    \
    PEM("PUBLIC KEY", "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj\n"         \
                      "NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz\n"         \
                      "P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo\n"         \
                      "9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB\n"         \
                      "EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX\n"         \
                      "FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp\n"         \
                      "oQIDAQAB\n")
#define EC_LINES                                                                                   \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"                           \
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
#define EC_PEM PEM("PUBLIC KEY", EC_LINES)
#define EC_CERTIFICATE                                                                             \
    PEM("CERTIFICATE", "MIIBhDCCASugAwIBAgIUNe2HIzRsuyy9khI7MFoJN6ydS0cwCgYIKoZIzj0EAwIw\n"        \
                       "FzEVMBMGA1UEAwwMa2V5cy5leGFtcGxlMCAXDTI2MTEyMzA1NDQzMloYDzIxMjYx\n"        \
                       "MDMwMDU0NDMyWjAXMRUwEwYDVQQDDAxrZXlzLmV4YW1wbGUwWTATBgcqhkjOPQIB\n"        \
                       "BggqhkjOPQMBBwNCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp7xO6z248e9FURcfx\n"        \
                       "RM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWto1MwUTAdBgNVHQ4EFgQUzo0W\n"        \
                       "sckzjrf+OXmZrkW+7j+1hoYwHwYDVR0jBBgwFoAUzo0Wsckzjrf+OXmZrkW+7j+1\n"        \
                       "hoYwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAB7jm9RcosDQ9Q\n"        \
                       "1gpseTA+ZWGoTi9d2C3J4WK6mSFVzwIgVkKwjYqBAgOGCQCOfS2PyxcLK0pqokDd\n"        \
                       "riyyvykhrlo=\n")
#define ED_PEM PEM("PUBLIC KEY", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n")
#define RSA_1024_PEM                                                                               \
    PEM("PUBLIC KEY", "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDzyaGQxjKeVKf5+IxXGC37jNON\n"         \
                      "tkU49Oqu5uris/CNcQKXvJdX4oHTuC2cC30a/Kp/o9+Lk7r99o7xIFrh86X91I0q\n"         \
                      "reG3KDEPsKVXq1KmBrJqOMPWGHag527bWBuibueMRZPKooA1glqz2RmQXAx5jDtm\n"         \
                      "SlTMiSiry3Jj40D4OQIDAQAB\n")
#define P384_PEM                                                                                   \
    PEM("PUBLIC KEY", "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEJ+0sRk2tZI3szRdmVq5qph9khOJ2Sczz\n"         \
                      "PRe1GOMRICZcTrj7lD2BmR+YyU0Wr4THzZTtDAnY896VQzTZnAuQanCz1ugFYxhD\n"         \
                      "TBvWSNiY+JWBG+OaDHcX9xgv3o/OHDdK\n")
#define X25519_PEM                                                                                 \
    PEM("PUBLIC KEY", "MCowBQYDK2VuAyEAH+YE79SbwE2yUsApWXVmuBoIPbtYjq84M7LXFrZQom8=\n")
#define PRIVATE_PEM                                                                                \
    PEM("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEINd4krmh/LPaUCewo2m60EmTs0wMxdRnjD1tfZe990yR\n")

static const struct jwt_policy by_issuer = { .user_claim = "iss" };

static struct jwt_keys *keys_of(const char *text)
{
    struct jwt_keys *keys = NULL;
    struct buf error;
    buf_init(&error, 512);
    if (jwt_keys_parse(slice_str(text), &keys, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    assert_int_equal(error.len, 0);
    buf_done(&error);
    return keys;
}

struct outcome {
    enum jwt_verdict verdict;
    char user[512];
    int64_t expires_s;
};

/* From a block of exactly its length, so that ASan sees a read past its end. */
static struct outcome check(const struct jwt_keys *keys, const struct jwt_policy *policy,
                            struct slice token, int64_t now_s)
{
    struct outcome o = { .expires_s = -1 };
    const struct now now = { .wall_ms = now_s * 1000 };
    struct buf user;
    char *copy = malloc(token.len + !token.len);
    if (token.len)
        memcpy(copy, token.ptr, token.len);
    buf_init(&user, 255);
    o.verdict = jwt_check(keys, policy, slice_of(copy, token.len), &now, &user, &o.expires_s);
    snprintf(o.user, sizeof o.user, "%.*s", SLICE_ARG(buf_slice(&user)));
    if (o.verdict != JWT_GOOD)
        assert_true(user.len == 0 && o.expires_s == -1);
    buf_done(&user);
    free(copy);
    return o;
}

static enum jwt_verdict verdict_with(const char *keys_text, const char *token)
{
    struct jwt_keys *keys = keys_of(keys_text);
    enum jwt_verdict v = check(keys, &by_issuer, slice_str(token), EXP - 10).verdict;
    jwt_keys_free(keys);
    return v;
}

/* --- tokens signed here ---------------------------------------------------------------------- */

static void put(struct buf *out, struct slice text)
{
    assert_int_equal(buf_append(out, text), STATUS_OK);
}

static void put_url(struct buf *out, struct slice octets)
{
    uint32_t start = out->len;
    assert_int_equal(base64_encode(octets, out), STATUS_OK);
    for (uint32_t i = start; i < out->len; i++)
        out->ptr[i] = out->ptr[i] == '+' ? '-' : out->ptr[i] == '/' ? '_' : out->ptr[i];
    while (out->len > start && out->ptr[out->len - 1] == '=')
        out->len--;
}

static void put_unsigned(struct buf *out, struct slice header, struct slice claims)
{
    put_url(out, header);
    put(out, SLICE("."));
    put_url(out, claims);
}

/* With the private key of RFC 8037 A.1. */
static void put_signed(struct buf *out, struct slice header, struct slice claims)
{
    static const uint8_t seed[32] = { 0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60,
                                      0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
                                      0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19,
                                      0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60 };
    uint8_t public[32], private[64], signature[64];
    ED25519_keypair_from_seed(public, private, seed);
    put_unsigned(out, header, claims);
    assert_int_equal(ED25519_sign(signature, (const uint8_t *)out->ptr, out->len, private), 1);
    put(out, SLICE("."));
    put_url(out, slice_of((const char *)signature, sizeof signature));
}

static struct outcome check_made(const char *keys_text, const struct jwt_policy *policy,
                                 const char *header, struct slice claims, int64_t now_s)
{
    struct buf token;
    struct jwt_keys *keys = keys_of(keys_text);
    buf_init(&token, ROOM);
    put_signed(&token, slice_str(header), claims);
    struct outcome o = check(keys, policy, buf_slice(&token), now_s);
    buf_done(&token);
    jwt_keys_free(keys);
    return o;
}

static struct outcome check_claims(const struct jwt_policy *policy, const char *claims)
{
    return check_made(SET(ED), policy, "{\"alg\":\"EdDSA\"}", slice_str(claims), 1000);
}

static enum jwt_verdict verdict_of_header(const char *keys_text, const char *header)
{
    return check_made(keys_text, &by_issuer, header, SLICE("{\"iss\":\"joe\",\"exp\":2000}"), 1000)
        .verdict;
}

/* --- signatures ------------------------------------------------------------------------------ */

static void the_examples_of_rfc_7515(void **state)
{
    static const char *const tokens[] = { RS256, ES256 };
    struct jwt_keys *keys = keys_of(SET(RSA "," EC "," ED));
    for (size_t i = 0; i < COUNT(tokens); i++) {
        struct outcome o = check(keys, &by_issuer, slice_str(tokens[i]), EXP - 10);
        assert_int_equal(o.verdict, JWT_GOOD);
        assert_string_equal(o.user, "joe");
        assert_int_equal(o.expires_s, EXP);
        o = check(keys, &by_issuer, slice_str(tokens[i]), EXP + JWT_LEEWAY_S);
        assert_int_equal(o.verdict, JWT_EXPIRED);
    }
    jwt_keys_free(keys);
}

/* What it signs is a sentence: the signature is right, and then there are no claims. */
static void the_example_of_rfc_8037(void **state)
{
    struct buf token;
    buf_init(&token, ROOM);
    put_signed(&token, SLICE("{\"alg\":\"EdDSA\"}"), SLICE("Example of Ed25519 signing"));
    assert_true(slice_eq(buf_slice(&token), SLICE(EDDSA)));
    buf_done(&token);
    assert_int_equal(verdict_with(SET(ED), EDDSA), JWT_MALFORMED);
    assert_int_equal(verdict_with(SET(EC), EDDSA), JWT_BAD_SIGNATURE);
}

/* Any other letter in the place of any: no signature is good in two ways. */
static void signatures_changed(void **state)
{
    static const char *const tokens[] = { RS256, ES256, EDDSA };
    struct jwt_keys *keys = keys_of(SET(RSA "," EC "," ED));
    for (size_t i = 0; i < COUNT(tokens); i++) {
        char text[2048];
        strcpy(text, tokens[i]);
        for (char *at = strrchr(text, '.') + 1; *at; at++) {
            char was = *at;
            *at = was == 'Q' ? 'g' : 'Q'; /* both end a group without stray bits */
            assert_int_equal(check(keys, &by_issuer, slice_str(text), EXP - 10).verdict,
                             JWT_BAD_SIGNATURE);
            *at = was;
        }
    }
    jwt_keys_free(keys);
}

static void signatures_that_are_longer(void **state)
{
    static const char *const tokens[] = { RS256 "AAAA", ES256 "AAAA", EDDSA "AAAA" };
    for (size_t i = 0; i < COUNT(tokens); i++)
        assert_int_equal(verdict_with(SET(RSA "," EC "," ED), tokens[i]), JWT_BAD_SIGNATURE);
}

static void signed_parts_changed(void **state)
{
    struct jwt_keys *keys = keys_of(SET(RSA "," EC));
    char text[2048];
    strcpy(text, ES256);
    for (char *at = strchr(text, '.') + 1; *at != '.'; at++) {
        char was = *at;
        *at = was == 'A' ? 'B' : 'A';
        assert_int_equal(check(keys, &by_issuer, slice_str(text), EXP - 10).verdict,
                         JWT_BAD_SIGNATURE);
        *at = was;
    }
    jwt_keys_free(keys);
}

/* --- who chooses the algorithm --------------------------------------------------------------- */

/* P-154, RFC 8725 2.1: the key does. */
static void algorithms_of_the_tokens_choice(void **state)
{
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"None\"}",
        "{\"alg\":\"HS256\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"ES256\"}",
        "{\"alg\":\"eddsa\"}",
        "{\"alg\":\"EdDSA \"}",
        "{\"alg\":\"\"}",
        "{\"alg\":null}",
        "{\"alg\":[\"EdDSA\"]}",
        "{}",
    };
    assert_int_equal(verdict_of_header(SET(RSA "," EC "," ED), "{\"alg\":\"EdDSA\"}"), JWT_GOOD);
    for (size_t i = 0; i < COUNT(headers); i++)
        if (verdict_of_header(SET(RSA "," EC "," ED), headers[i]) != JWT_BAD_SIGNATURE)
            fail_msg("%s", headers[i]);
}

static void tokens_without_a_signature(void **state) /* P-154: alg=none */
{
    struct buf token;
    buf_init(&token, ROOM);
    put_unsigned(&token, SLICE("{\"alg\":\"none\"}"),
                 SLICE("{\"iss\":\"joe\",\"exp\":2000000000}"));
    put(&token, SLICE("."));
    struct jwt_keys *keys = keys_of(SET(RSA "," EC "," ED));
    assert_int_equal(check(keys, &by_issuer, buf_slice(&token), 1000).verdict, JWT_BAD_SIGNATURE);
    token.len--;
    assert_int_equal(check(keys, &by_issuer, buf_slice(&token), 1000).verdict, JWT_MALFORMED);
    jwt_keys_free(keys);
    buf_done(&token);
}

/* The public key, which everybody has, as the secret of an HMAC. */
static void a_public_key_is_no_secret(void **state)
{
    struct buf token;
    uint8_t mac[32];
    unsigned len = sizeof mac;
    buf_init(&token, ROOM);
    put_unsigned(&token, SLICE("{\"alg\":\"HS256\"}"),
                 SLICE("{\"iss\":\"joe\",\"exp\":2000000000}"));
    assert_non_null(HMAC(EVP_sha256(), RSA_PEM, strlen(RSA_PEM), (const uint8_t *)token.ptr,
                         token.len, mac, &len));
    put(&token, SLICE("."));
    put_url(&token, slice_of((const char *)mac, sizeof mac));
    struct jwt_keys *keys = keys_of(RSA_PEM);
    assert_int_equal(check(keys, &by_issuer, buf_slice(&token), 1000).verdict, JWT_BAD_SIGNATURE);
    jwt_keys_free(keys);
    buf_done(&token);
}

static void critical_extensions(void **state) /* RFC 7515 4.1.11 */
{
    static const char *const headers[] = { "{\"alg\":\"EdDSA\",\"crit\":[\"exp\"],\"exp\":1}",
                                           "{\"alg\":\"EdDSA\",\"crit\":[]}",
                                           "{\"alg\":\"EdDSA\",\"crit\":null}" };
    for (size_t i = 0; i < COUNT(headers); i++)
        assert_int_equal(verdict_of_header(SET(ED), headers[i]), JWT_BAD_SIGNATURE);
    assert_int_equal(verdict_of_header(SET(ED), "{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"x\":1}"),
                     JWT_GOOD);
}

#define ED_NAMED(kid) "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" kid "\",\"x\":\"" ED_X "\"}"
#define ED_OTHER(kid)                                                                              \
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" kid "\","                                    \
    "\"x\":\"5JWTPYDxmB0TWMtwo5KVR3lUugt7HwzTIsdK2_teBww\"}"

static void names_of_keys(void **state)
{
    static const struct {
        const char *keys, *header;
        enum jwt_verdict verdict;
    } rows[] = {
        { SET(ED_OTHER("b") "," ED_NAMED("a")), "{\"alg\":\"EdDSA\",\"kid\":\"a\"}", JWT_GOOD },
        { SET(ED_OTHER("b") "," ED_NAMED("a")), "{\"alg\":\"EdDSA\"}", JWT_GOOD },
        { SET(ED_OTHER("a") "," ED), "{\"alg\":\"EdDSA\",\"kid\":\"a\"}", JWT_GOOD },
        { SET(ED_NAMED("a")), "{\"alg\":\"EdDSA\",\"kid\":\"b\"}", JWT_BAD_SIGNATURE },
        { SET(ED_NAMED("a")), "{\"alg\":\"EdDSA\",\"kid\":\"\"}", JWT_BAD_SIGNATURE },
        { SET(ED_OTHER("a")), "{\"alg\":\"EdDSA\",\"kid\":\"a\"}", JWT_BAD_SIGNATURE },
        { SET(ED_OTHER("a") "," ED_NAMED("b")), "{\"alg\":\"EdDSA\",\"kid\":\"a\"}",
          JWT_BAD_SIGNATURE },
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (verdict_of_header(rows[i].keys, rows[i].header) != rows[i].verdict)
            fail_msg("row %zu", i);
}

/* --- claims ---------------------------------------------------------------------------------- */

static void times(void **state) /* P-154; it is 1000 */
{
    static const struct {
        const char *claims;
        enum jwt_verdict verdict;
    } rows[] = {
        { "{\"iss\":\"u\",\"exp\":1001}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":1000}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":941}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":940}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":0}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":-1}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":1001.5}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":1e300}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":1000000000000}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":\"2000\"}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":true}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":null}", JWT_EXPIRED },
        { "{\"iss\":\"u\"}", JWT_EXPIRED },
        { "{\"iss\":\"u\",\"exp\":2000,\"nbf\":1060}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":2000,\"nbf\":1061}", JWT_NOT_YET },
        { "{\"iss\":\"u\",\"exp\":2000,\"nbf\":\"1\"}", JWT_NOT_YET },
        { "{\"iss\":\"u\",\"exp\":2000,\"iat\":1060}", JWT_GOOD },
        { "{\"iss\":\"u\",\"exp\":2000,\"iat\":1061}", JWT_NOT_YET },
        { "{\"iss\":\"u\",\"exp\":2000,\"iat\":null}", JWT_NOT_YET },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct outcome o = check_claims(&by_issuer, rows[i].claims);
        if (o.verdict != rows[i].verdict)
            fail_msg("%s: %s", rows[i].claims, jwt_verdict_name(o.verdict));
    }
    assert_int_equal(check_claims(&by_issuer, "{\"iss\":\"u\",\"exp\":1001.9}").expires_s, 1001);
}

#define WITH(more) "{\"iss\":\"joe\",\"email\":\"joe@example.org\",\"exp\":2000" more "}"

static void what_the_policy_asks(void **state) /* P-154 */
{
    static const struct jwt_policy all = {
        .issuer = "joe", .audience = "kilat", .scope = "smtp", .user_claim = "email"
    };
    static const struct jwt_policy issuer = { .issuer = "jane", .user_claim = "email" };
    static const struct jwt_policy audience = { .audience = "kilat", .user_claim = "email" };
    static const struct jwt_policy scope = { .scope = "smtp", .user_claim = "email" };
    static const struct jwt_policy none = { .user_claim = "email" };
    static const struct {
        const struct jwt_policy *policy;
        const char *claims;
        enum jwt_verdict verdict;
    } rows[] = {
        { &all, WITH(",\"aud\":\"kilat\",\"scope\":\"smtp\""), JWT_GOOD },
        { &none, WITH(",\"aud\":1,\"scope\":2"), JWT_GOOD },
        { &issuer, WITH(""), JWT_WRONG_CLAIM },
        { &audience, WITH(""), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":\"Kilat\""), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":\"kilat2\""), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":\"x kilat\""), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":[\"x\",\"kilat\"]"), JWT_GOOD },
        { &audience, WITH(",\"aud\":[\"x\",[\"kilat\"],7]"), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":[]"), JWT_WRONG_CLAIM },
        { &audience, WITH(",\"aud\":{\"kilat\":\"kilat\"}"), JWT_WRONG_CLAIM },
        { &scope, WITH(""), JWT_WRONG_CLAIM },
        { &scope, WITH(",\"scope\":\"openid smtp\""), JWT_GOOD },
        { &scope, WITH(",\"scope\":\"smtp openid\""), JWT_GOOD },
        { &scope, WITH(",\"scope\":\"a  smtp \""), JWT_GOOD },
        { &scope, WITH(",\"scope\":\"smtps asmtp smtp:read\""), JWT_WRONG_CLAIM },
        { &scope, WITH(",\"scope\":\"\""), JWT_WRONG_CLAIM },
        { &scope, WITH(",\"scope\":[\"smtp\"]"), JWT_WRONG_CLAIM },
        { &scope, WITH(",\"scp\":[\"a\",\"smtp\"]"), JWT_GOOD },
        { &scope, WITH(",\"scp\":\"smtp\""), JWT_GOOD },
        { &scope, WITH(",\"scp\":[\"a smtp\"]"), JWT_WRONG_CLAIM },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct outcome o = check_claims(rows[i].policy, rows[i].claims);
        if (o.verdict != rows[i].verdict)
            fail_msg("row %zu (%s): %s", i, rows[i].claims, jwt_verdict_name(o.verdict));
        if (o.verdict == JWT_GOOD)
            assert_string_equal(o.user, "joe@example.org");
    }
}

static void who_it_is(void **state)
{
    struct buf claims;
    static const char *const bad[] = { "{\"exp\":2000}", "{\"iss\":\"\",\"exp\":2000}",
                                       "{\"iss\":7,\"exp\":2000}", "{\"iss\":[\"u\"],\"exp\":2000}",
                                       "{\"ISS\":\"u\",\"exp\":2000}" };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(check_claims(&by_issuer, bad[i]).verdict, JWT_WRONG_CLAIM);
    assert_string_equal(check_claims(&by_issuer, "{\"iss\":\"j\\u00f6e\",\"exp\":2000}").user,
                        "j\xc3\xb6"
                        "e");
    for (int len = 255; len <= 256; len++) { /* what the caller has room for */
        buf_init(&claims, 1024);
        assert_int_equal(buf_printf(&claims, "{\"iss\":\"%0*d\",\"exp\":2000}%c", len, 0, 0),
                         STATUS_OK);
        assert_int_equal(check_claims(&by_issuer, claims.ptr).verdict,
                         len == 255 ? JWT_GOOD : JWT_WRONG_CLAIM);
        buf_done(&claims);
    }
}

/* --- form ------------------------------------------------------------------------------------ */

#define GOOD "\"iss\":\"u\",\"exp\":2000"

static void claims_that_are_no_object(void **state)
{
    static const struct slice bad[] = {
        SLICE(""),
        SLICE("[]"),
        SLICE("\"u\""),
        SLICE("7"),
        SLICE("{"),
        SLICE("{" GOOD),
        SLICE("{" GOOD ",}"),
        SLICE("{" GOOD "}{}"),
        SLICE("{" GOOD "}x"),
        SLICE("{" GOOD "}\0"),
        SLICE("{" GOOD ",\"iss\":\"v\"}"), /* two of one name: who reads which? */
        SLICE("{\"exp\":2000,\"iss\":\"u\\u0000v\"}"),
        SLICE("{\"exp\":2000,\"iss\":\"u\0v\"}"),
        SLICE("{\"exp\":2000,\"iss\":\"\xff\"}"),
        SLICE("{\"exp\":2000,\"iss\":\"\\ud800\"}"),
        SLICE("{\"iss\":\"u\",\"exp\":99999999999999999999}"),
        SLICE("{" GOOD ",\"x\":1e999}"),
        SLICE("{" GOOD ",\"x\":]}"),
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct outcome o = check_made(SET(ED), &by_issuer, "{\"alg\":\"EdDSA\"}", bad[i], 1000);
        if (o.verdict != JWT_MALFORMED)
            fail_msg("row %zu (%.*s): %s", i, SLICE_ARG(bad[i]), jwt_verdict_name(o.verdict));
    }
}

static enum jwt_verdict verdict_of_depth(int depth, const char *before)
{
    struct buf claims;
    buf_init(&claims, 8192);
    put(&claims, SLICE("{" GOOD ",\"x\":"));
    put(&claims, slice_str(before));
    for (int i = 0; i < depth; i++)
        put(&claims, SLICE("["));
    for (int i = 0; i < depth; i++)
        put(&claims, SLICE("]"));
    put(&claims, *before ? SLICE("]}") : SLICE("}"));
    struct outcome o =
        check_made(SET(ED), &by_issuer, "{\"alg\":\"EdDSA\"}", buf_slice(&claims), 1000);
    buf_done(&claims);
    return o.verdict;
}

static void nesting_is_bounded(void **state)
{
    assert_int_equal(verdict_of_depth(15, ""), JWT_GOOD);
    assert_int_equal(verdict_of_depth(16, ""), JWT_MALFORMED);
    assert_int_equal(verdict_of_depth(1500, ""), JWT_MALFORMED);
    /* brackets in strings are none, and strings end where JSON says that they do */
    assert_int_equal(verdict_of_depth(14, "[\"[[[[[[[[[[[[[[[[[[[[\","), JWT_GOOD);
    assert_int_equal(verdict_of_depth(14, "[\"\\\"[[[[[[[[[[[[[[[[[[\","), JWT_GOOD);
    assert_int_equal(verdict_of_depth(15, "[\"]]]]]]]]]]]]]]]]]]]]\","), JWT_MALFORMED);
    assert_int_equal(verdict_of_depth(15, "[\"\\\\\","), JWT_MALFORMED);
}

static void tokens_of_other_forms(void **state)
{
    static const struct slice bad[] = {
        SLICE(""),
        SLICE("."),
        SLICE(".."),
        SLICE("..."),
        SLICE("e30"),
        SLICE("e30.e30"),
        SLICE("e30.e30.AA.AA"),
        SLICE("e30.e30.AA.AA.AA"), /* encrypted: RFC 7516 */
        SLICE("e30=.e30.AA"),
        SLICE("e3+.e30.AA"),
        SLICE("e3/.e30.AA"),
        SLICE("e30 .e30.AA"),
        SLICE("\ne30.e30.AA"),
        SLICE("e31.e30.AA"), /* stray bits */
        SLICE("e30.e30.A"),
        SLICE("e30.e30.AB"),
        SLICE("e30.e30.A\0"),
        SLICE("W10.e30.AA"), /* [] */
        SLICE("e3s.e30.AA"), /* {{ */
    };
    struct jwt_keys *keys = keys_of(SET(RSA "," EC "," ED));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (check(keys, &by_issuer, bad[i], 1000).verdict != JWT_MALFORMED)
            fail_msg("row %zu: %.*s", i, SLICE_ARG(bad[i]));
    for (size_t len = 0; len < strlen(ES256); len++)
        assert_int_not_equal(
            check(keys, &by_issuer, slice_head(SLICE(ES256), len), EXP - 10).verdict, JWT_GOOD);
    assert_int_equal(check(keys, &by_issuer, SLICE(ES256 "\n"), EXP - 10).verdict, JWT_MALFORMED);
    jwt_keys_free(keys);
}

static void length_is_bounded(void **state)
{
    enum jwt_verdict last = JWT_GOOD;
    struct jwt_keys *keys = keys_of(SET(ED));
    for (int pad = 5900; pad < 6200; pad++) {
        struct buf claims, token;
        buf_init(&claims, 8192);
        buf_init(&token, ROOM);
        assert_int_equal(buf_printf(&claims, "{" GOOD ",\"x\":\"%0*d\"}", pad, 0), STATUS_OK);
        put_signed(&token, SLICE("{\"alg\":\"EdDSA\"}"), buf_slice(&claims));
        last = check(keys, &by_issuer, buf_slice(&token), 1000).verdict;
        assert_int_equal(last, token.len <= 8192 ? JWT_GOOD : JWT_MALFORMED);
        buf_done(&claims);
        buf_done(&token);
    }
    assert_int_equal(last, JWT_MALFORMED); /* both sides were seen */
    jwt_keys_free(keys);
}

/* --- files of keys --------------------------------------------------------------------------- */

static void files_of_keys(void **state)
{
    static const struct {
        const char *text;
        bool rs256, es256, eddsa;
    } rows[] = {
        { RSA_PEM EC_PEM ED_PEM, true, true, true },
        { EC_CERTIFICATE, false, true, false },
        { "# of the provider\n\n" EC_PEM "\nand another:\n" RSA_PEM "\n", true, true, false },
        { SET(RSA "," EC "," ED), true, true, true },
        { " \r\n\t" SET(ED), false, false, true },
        { "{\"x\":1,\"keys\":[" EC "]}\n", false, true, false },
        /* RFC 7517 5: what is for something else, or not understood, is passed over */
        { SET("7,{},{\"kty\":\"oct\",\"k\":\"AA\"},{\"kty\":\"EC\",\"crv\":\"secp256k1\"},"
              "{\"kty\":\"OKP\",\"crv\":\"X25519\"},{\"kty\":\"RSA\",\"use\":\"enc\"},"
              "{\"kty\":\"RSA\",\"alg\":\"RSA-OAEP\"},{\"kty\":\"EC\",\"crv\":\"P-256\","
              "\"alg\":\"ES512\"}," ED),
          false, false, true },
        { SET("{\"use\":\"sig\",\"alg\":\"ES256\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X
              "\",\"y\":\"" EC_Y "\"}"),
          false, true, false },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(verdict_with(rows[i].text, RS256) == JWT_GOOD, rows[i].rs256);
        assert_int_equal(verdict_with(rows[i].text, ES256) == JWT_GOOD, rows[i].es256);
        assert_int_equal(verdict_of_header(rows[i].text, "{\"alg\":\"EdDSA\"}") == JWT_GOOD,
                         rows[i].eddsa);
    }
}

static void check_refused(struct slice text, const char *want)
{
    struct jwt_keys *keys = NULL;
    struct buf error;
    buf_init(&error, 512);
    assert_int_equal(jwt_keys_parse(text, &keys, &error), STATUS_BAD);
    assert_null(keys);
    char why[512];
    snprintf(why, sizeof why, "%.*s", SLICE_ARG(buf_slice(&error)));
    if (!strstr(why, want))
        fail_msg("says \"%s\", not \"%s\"", why, want);
    buf_done(&error);
}

static void files_that_are_refused(void **state)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "", "holds no key" },
        { " \n", "holds no key" },
        { "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n", "holds no key" },
        { RSA_1024_PEM, "fewer than 2048 bits" },
        { ED_PEM RSA_1024_PEM, "fewer than 2048 bits" },
        { P384_PEM, "not on P-256" },
        { X25519_PEM, "neither RSA, P-256 nor Ed25519" },
        { PRIVATE_PEM, "neither a PUBLIC KEY nor a CERTIFICATE" },
        { PEM("PUBLIC KEY", "AAAA\n"), "neither a PUBLIC KEY nor" },
        { PEM("CERTIFICATE", "AAAA\n"), "neither a PUBLIC KEY nor" },
        { PEM("X509 CRL", "AAAA\n"), "neither a PUBLIC KEY nor" },
        /* a damaged block behind a good one: not as if it were not there */
        { ED_PEM "-----BEGIN PUBLIC KEY-----\n" EC_LINES, "neither a PUBLIC KEY nor" },
        { ED_PEM PEM("PUBLIC KEY", "!" EC_LINES), "neither a PUBLIC KEY nor" },
        { "{", "is no JSON object" },
        { "{\"keys\":[" ED "]", "is no JSON object" },
        { ED, "no \"keys\"" },
        { "{\"keys\":" ED "}", "no \"keys\"" },
        { SET(""), "holds no key" },
        { SET("{\"kty\":\"oct\",\"k\":\"AA\"}"), "holds no key" },
        { SET("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}"), "malformed" },
        { SET("{\"kty\":\"RSA\",\"e\":\"AQAB\"}"), "malformed" },
        { SET("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"\"}"), "malformed" },
        { SET("{\"kty\":\"RSA\",\"n\":\"" RSA_N "=\",\"e\":\"AQAB\"}"), "malformed" },
        { SET("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AA\"}"), "malformed" },
        { SET("{\"kty\":\"RSA\",\"n\":7,\"e\":\"AQAB\"}"), "malformed" },
        { SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\"}"), "malformed" },
        { SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_X "\"}"),
          "malformed" },
        { SET("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}"), "malformed" },
        { SET("{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}"), "malformed" },
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        check_refused(slice_str(rows[i].text), rows[i].why);
}

static void key_files_are_bounded(void **state)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 64; i++)
        put(&text, SLICE(ED_PEM));
    put(&text, SLICE("\0"));
    jwt_keys_free(keys_of(text.ptr));
    text.len--;
    put(&text, SLICE(ED_PEM));
    check_refused(buf_slice(&text), "more than 64 keys");
    while (text.len <= 256 * 1024)
        put(&text, SLICE("a line of words that say nothing about keys\n"));
    check_refused(buf_slice(&text), "larger than 256 KiB");
    buf_done(&text);
    jwt_keys_free(NULL);
}

static void verdicts_have_names(void **state)
{
    for (int v = JWT_GOOD; v <= JWT_WRONG_CLAIM; v++) {
        const char *name = jwt_verdict_name((enum jwt_verdict)v);
        assert_true(name && strlen(name) > 5);
        for (int w = JWT_GOOD; w < v; w++)
            assert_string_not_equal(name, jwt_verdict_name((enum jwt_verdict)w));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_rfc_7515),
        cmocka_unit_test(the_example_of_rfc_8037),
        cmocka_unit_test(signatures_changed),
        cmocka_unit_test(signatures_that_are_longer),
        cmocka_unit_test(signed_parts_changed),
        cmocka_unit_test(algorithms_of_the_tokens_choice),
        cmocka_unit_test(tokens_without_a_signature),
        cmocka_unit_test(a_public_key_is_no_secret),
        cmocka_unit_test(critical_extensions),
        cmocka_unit_test(names_of_keys),
        cmocka_unit_test(times),
        cmocka_unit_test(what_the_policy_asks),
        cmocka_unit_test(who_it_is),
        cmocka_unit_test(claims_that_are_no_object),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(tokens_of_other_forms),
        cmocka_unit_test(length_is_bounded),
        cmocka_unit_test(files_of_keys),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(key_files_are_bounded),
        cmocka_unit_test(verdicts_have_names),
    };
    return cmocka_run_group_tests_name("jwt", tests, NULL, NULL);
}
