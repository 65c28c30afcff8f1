/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a token, as the JSON inside a token that is rightly signed, or as a file of keys;
 * the first octet says which (two bits) and what the policy asks for. The keys and the signed
 * examples are those of RFC 7515 A.2, A.3 and RFC 8037 A, and the clock stands where they are
 * valid.
 *
 * Whatever comes: a good token names a user and is not expired, any other says nothing; what is
 * signed stops being good when one bit of its signature changes; a file that is refused says why.
 */
#include "core/smtp/jwt.h"
#include "core/smtp/sasl.h"
#include "tests/fuzz/fuzz.h"
#include <openssl/curve25519.h>

#define MODE_BITS    0x03
#define ASK_ISSUER   0x08
#define ASK_AUDIENCE 0x10
#define ASK_SCOPE    0x20

#define TEXT_MAX 32768
#define NOW_S    INT64_C(1300819000) /* 380 seconds before the examples expire */

enum { AS_TOKEN, AS_JSON, AS_KEYS };

/* Their private key is RFC 8037's, too: what a fuzzer writes can be signed with it. */
static const char keys_text[] =
    "{\"keys\":["
    "{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw"
    "-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LO"
    "L-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9k"
    "G4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\","
    "\"e\":\"AQAB\"},"
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},"
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\","
    "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

static const uint8_t private_seed[32] = { 0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60,
                                          0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
                                          0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19,
                                          0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60 };

static struct jwt_keys *parse_keys(struct slice text)
{
    struct jwt_keys *keys = NULL;
    struct buf error;
    buf_init(&error, 512);
    enum status st = jwt_keys_parse(text, &keys, &error);
    must(st == STATUS_OK || st == STATUS_BAD);
    must((st == STATUS_OK) == (keys != NULL) && (st == STATUS_BAD) == (error.len > 0));
    buf_done(&error);
    return keys;
}

static enum jwt_verdict check(const struct jwt_keys *keys, uint8_t choice, struct slice token)
{
    const struct jwt_policy policy = { .issuer = choice & ASK_ISSUER ? "joe" : NULL,
                                       .audience = choice & ASK_AUDIENCE ? "kilat" : NULL,
                                       .scope = choice & ASK_SCOPE ? "smtp" : NULL,
                                       .user_claim = "iss" };
    const struct now now = { .wall_ms = NOW_S * 1000 };
    int64_t expires_s = -1;
    struct buf user;
    buf_init(&user, 255);
    enum jwt_verdict verdict = jwt_check(keys, &policy, token, &now, &user, &expires_s);
    must(jwt_verdict_name(verdict)[0]);
    if (verdict == JWT_GOOD) {
        must(user.len > 0 && slice_find(buf_slice(&user), '\0') == user.len);
        must(expires_s + JWT_LEEWAY_S > NOW_S);
    } else
        must(user.len == 0 && expires_s == -1);
    buf_done(&user);
    return verdict;
}

static void put_url(struct buf *out, struct slice octets)
{
    uint32_t start = out->len;
    must(base64_encode(octets, out) == STATUS_OK);
    for (uint32_t i = start; i < out->len; i++)
        out->ptr[i] = out->ptr[i] == '+' ? '-' : out->ptr[i] == '/' ? '_' : out->ptr[i];
    while (out->len > start && out->ptr[out->len - 1] == '=')
        out->len--;
}

static void put(struct buf *out, struct slice text)
{
    must(buf_append(out, text) == STATUS_OK);
}

/* header NUL claims */
static void check_json(const struct jwt_keys *keys, uint8_t choice, struct slice text)
{
    struct buf token;
    uint8_t public[32], private[64], signature[64];
    size_t end = slice_find(text, '\0');
    buf_init(&token, TEXT_MAX * 2);
    put_url(&token, slice_head(text, end));
    put(&token, SLICE("."));
    put_url(&token, slice_skip(text, end + 1));
    ED25519_keypair_from_seed(public, private, private_seed);
    must(ED25519_sign(signature, (const uint8_t *)token.ptr, token.len, private) == 1);
    put(&token, SLICE("."));
    uint32_t start = token.len;
    put_url(&token, slice_of((const char *)signature, sizeof signature));
    enum jwt_verdict verdict = check(keys, choice, buf_slice(&token));
    token.ptr[start + 7] ^= token.ptr[start + 7] == 'A' ? 'A' ^ 'B' : token.ptr[start + 7] ^ 'A';
    enum jwt_verdict changed = check(keys, choice, buf_slice(&token));
    must(changed == JWT_BAD_SIGNATURE || (changed == JWT_MALFORMED && verdict == JWT_MALFORMED));
    buf_done(&token);
}

static void check_keys(struct slice text)
{
    struct jwt_keys *keys = parse_keys(text);
    if (keys)
        check(keys, 0, SLICE("eyJhbGciOiJSUzI1NiJ9.e30.AAAA"));
    jwt_keys_free(keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jwt_keys *keys;
    if (size == 0 || size > TEXT_MAX)
        return 0;
    if (!keys)
        keys = parse_keys(SLICE(keys_text));
    must(keys);
    char *copy = exact_copy(slice_of((const char *)data + 1, size - 1));
    struct slice text = slice_of(copy, size - 1);
    switch (data[0] & MODE_BITS) {
    case AS_TOKEN: check(keys, data[0], text); break;
    case AS_JSON: check_json(keys, data[0], text); break;
    default: check_keys(text); break;
    }
    free(copy);
    return 0;
}
