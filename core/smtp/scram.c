/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scram - text on one side, HMAC and PBKDF2 on the other; the order of the exchange is sasl.c's.
 *
 * The server keeps StoredKey and ServerKey, never the password: with P the client's proof,
 *     ClientKey = P xor HMAC(StoredKey, AuthMessage), and right is SHA256(ClientKey) == StoredKey.
 */
#include "core/smtp/scram.h"
#include "core/base/must.h"
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/sha.h>

/* --- text ------------------------------------------------------------------------------------ */

/* Cuts "x=value" off the front, with the comma behind it; false: it does not begin so, or nothing
 * follows the comma. */
static bool cut_attribute(struct slice *rest, char letter, struct slice *value)
{
    if (rest->len < 2 || rest->ptr[0] != letter || rest->ptr[1] != '=')
        return false;
    *rest = slice_skip(*rest, 2);
    size_t comma = slice_find(*rest, ',');
    bool is_last = comma == rest->len;
    *value = slice_head(*rest, comma);
    *rest = slice_skip(*rest, comma + 1);
    return is_last || rest->len > 0;
}

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Extensions are signed with the rest and ignored (RFC 5802 7), but for "m=", which says that we
 * must understand what follows (5.1). Stops before `end`, an attribute's letter; '\0': at none. */
static bool skip_extensions(struct slice *rest, char end)
{
    struct slice ignored;
    while (rest->len > 0 && rest->ptr[0] != end) {
        char letter = rest->ptr[0];
        if (!is_letter(letter) || letter == 'm' || !cut_attribute(rest, letter, &ignored))
            return false;
    }
    return true;
}

/* Printable ASCII but the comma. */
static bool is_nonce(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < 0x21 || text.ptr[i] > 0x7e || text.ptr[i] == ',')
            return false;
    return text.len > 0;
}

/* gs2-cbind-flag "," [ authzid ] "," */
static bool read_gs2(struct slice *rest, struct scram_first *out)
{
    struct slice start = *rest;
    out->binding = rest->len > 0 ? rest->ptr[0] : '\0';
    if (out->binding == 'p') {
        if (!cut_attribute(rest, 'p', &out->bind_name) || out->bind_name.len == 0)
            return false;
    } else {
        if (rest->len < 2 || (out->binding != 'n' && out->binding != 'y') || rest->ptr[1] != ',')
            return false;
        *rest = slice_skip(*rest, 2);
    }
    if (rest->len > 0 && rest->ptr[0] == 'a') {
        if (!cut_attribute(rest, 'a', &out->authzid) || out->authzid.len == 0)
            return false;
    } else {
        if (rest->len == 0 || rest->ptr[0] != ',')
            return false;
        *rest = slice_skip(*rest, 1);
    }
    out->gs2 = slice_head(start, start.len - rest->len);
    return out->gs2.ptr[out->gs2.len - 1] == ',';
}

bool scram_read_first(struct slice message, struct scram_first *out)
{
    *out = (struct scram_first){ 0 };
    if (!read_gs2(&message, out) || out->gs2.len > SCRAM_GS2_MAX)
        return false;
    out->bare = message;
    if (message.len > SCRAM_BARE_MAX)
        return false;
    if (!cut_attribute(&message, 'n', &out->name) || out->name.len == 0)
        return false;
    if (!cut_attribute(&message, 'r', &out->nonce))
        return false;
    return is_nonce(out->nonce) && out->nonce.len <= SCRAM_NONCE_MAX &&
           skip_extensions(&message, '\0');
}

bool scram_read_name(struct slice in, struct buf *out)
{
    if (slice_find(in, ',') < in.len)
        return false;
    while (in.len > 0) {
        size_t plain = slice_find(in, '=');
        if (buf_append(out, slice_head(in, plain)) != STATUS_OK)
            return false;
        in = slice_skip(in, plain);
        if (in.len == 0)
            break;
        struct slice code = slice_head(in, 3);
        bool is_comma = slice_eq(code, SLICE("=2C"));
        if (!is_comma && !slice_eq(code, SLICE("=3D")))
            return false;
        if (buf_append(out, is_comma ? SLICE(",") : SLICE("=")) != STATUS_OK)
            return false;
        in = slice_skip(in, 3);
    }
    return true;
}

bool scram_read_final(struct slice message, struct scram_final *out)
{
    struct slice rest = message;
    if (!cut_attribute(&rest, 'c', &out->binding) || !cut_attribute(&rest, 'r', &out->nonce))
        return false;
    if (!skip_extensions(&rest, 'p'))
        return false;
    size_t before = message.len - rest.len;
    if (before == 0 || message.ptr[before - 1] != ',')
        return false;
    out->without_proof = slice_head(message, before - 1);
    return cut_attribute(&rest, 'p', &out->proof) && rest.len == 0;
}

/* --- arithmetic ------------------------------------------------------------------------------ */

static void hmac(const void *key, size_t key_len, struct slice data, uint8_t out[32])
{
    unsigned len = 0;
    must(HMAC(EVP_sha256(), key, key_len, (const uint8_t *)data.ptr, data.len, out, &len));
    must(len == 32);
}

bool scram_check_proof(const struct scram_verifier *v, struct slice auth_message,
                       const uint8_t proof[32], uint8_t signature[32])
{
    uint8_t client_key[32], stored[32];
    hmac(v->stored_key, sizeof v->stored_key, auth_message, client_key);
    for (size_t i = 0; i < sizeof client_key; i++)
        client_key[i] ^= proof[i];
    SHA256(client_key, sizeof client_key, stored);
    hmac(v->server_key, sizeof v->server_key, auth_message, signature);
    bool is_right = CRYPTO_memcmp(stored, v->stored_key, sizeof stored) == 0;
    OPENSSL_cleanse(client_key, sizeof client_key);
    return is_right;
}

void scram_make_verifier(struct slice password, const uint8_t salt[16], uint32_t iterations,
                         struct scram_verifier *out)
{
    uint8_t salted[32], client_key[32];
    *out = (struct scram_verifier){ .iterations = iterations, .salt_len = 16 };
    memcpy(out->salt, salt, 16);
    must(PKCS5_PBKDF2_HMAC(password.ptr, password.len, salt, 16, iterations, EVP_sha256(),
                           sizeof salted, salted) == 1);
    hmac(salted, sizeof salted, SLICE("Client Key"), client_key);
    hmac(salted, sizeof salted, SLICE("Server Key"), out->server_key);
    SHA256(client_key, sizeof client_key, out->stored_key);
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client_key, sizeof client_key);
}

void scram_fake_verifier(struct slice user, const uint8_t secret[32], struct scram_verifier *out)
{
    uint8_t salt[32];
    *out = (struct scram_verifier){ .iterations = 4096, .salt_len = 16 };
    hmac(secret, 32, user, salt);
    memcpy(out->salt, salt, 16);
    /* Keys that nobody can prove: digests of the salt and of what nobody knows. */
    hmac(secret, 32, slice_of((const char *)salt, 16), out->stored_key);
    hmac(secret, 32, slice_of((const char *)out->stored_key, 32), out->server_key);
}
