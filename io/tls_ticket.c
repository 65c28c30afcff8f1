/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session tickets: the client keeps the session for us, sealed with a key that only we know.
 *
 * Time is cut into epochs of tls.ticket_rotate. The keys of an epoch are HKDF of the secret and the
 * epoch's number, so nothing is stored, all workers and all nodes with the same secret agree, and
 * an old key is gone when the secret is. Tickets are sealed with the keys of this epoch. Those of
 * the epoch before are accepted and replaced, those of the next one too: another node's clock may
 * be a little ahead. A ticket is therefore good for one to two epochs (P-133).
 *
 * A ticket holds what TLS negotiated and the client's certificate, if there was one; who logged
 * in is not part of it.
 */
#include "core/base/must.h"
#include "io/tls_private.h"

#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/hkdf.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>

#define TICKET_SALT   "kilat ticket secret 1"
#define LIFETIME_MAX  (7 * 24 * 3600) /* seconds; RFC 8446 4.6.1 */
#define ROTATE_MIN_MS 1000

/* The keys of one epoch; the name tells tickets of different epochs apart. */
struct ticket_keys {
    uint8_t name[SSL_TICKET_KEY_NAME_LEN];
    uint8_t seal[32]; /* AES-256-CBC */
    uint8_t mac[32];  /* HMAC-SHA-256 */
};

void tls_tickets_init(struct tls_set *set, struct slice secret)
{
    size_t len;
    must(HKDF_extract(set->ticket_prk, &len, EVP_sha256(), (const uint8_t *)secret.ptr, secret.len,
                      (const uint8_t *)TICKET_SALT, sizeof TICKET_SALT - 1) == 1);
    must(len == sizeof set->ticket_prk);
}

static uint64_t rotate_ms(const struct tls_set *set)
{
    return set->ticket_rotate_ms < ROTATE_MIN_MS ? ROTATE_MIN_MS : set->ticket_rotate_ms;
}

static void derive(const struct tls_set *set, uint64_t epoch, struct ticket_keys *out)
{
    uint8_t info[8];
    for (int i = 0; i < 8; i++)
        info[i] = (uint8_t)(epoch >> (56 - 8 * i));
    must(HKDF_expand((uint8_t *)out, sizeof *out, EVP_sha256(), set->ticket_prk,
                     sizeof set->ticket_prk, info, sizeof info) == 1);
}

static int seal(const struct ticket_keys *keys, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher,
                HMAC_CTX *hmac)
{
    memcpy(name, keys->name, sizeof keys->name);
    if (!RAND_bytes(iv, EVP_CIPHER_iv_length(EVP_aes_256_cbc())) ||
        !EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->seal, iv) ||
        !HMAC_Init_ex(hmac, keys->mac, sizeof keys->mac, EVP_sha256(), NULL))
        return -1;
    return 1;
}

static bool open_with(const struct ticket_keys *keys, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
                      HMAC_CTX *hmac)
{
    return EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->seal, iv) &&
           HMAC_Init_ex(hmac, keys->mac, sizeof keys->mac, EVP_sha256(), NULL);
}

/* BoringSSL's: 0 no key of ours fits, 1 good, 2 good and to be replaced by a new one, -1 broken. */
static int on_ticket(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac,
                     int encrypt)
{
    static const struct {
        int epochs; /* from now */
        int result;
    } accepted[] = { { 0, 1 }, { -1, 2 }, { 1, 1 } };
    const struct tls_set *set = tls_set_of(ssl);
    uint64_t now = (uint64_t)set->clock() / rotate_ms(set);
    struct ticket_keys keys;
    int result = 0;
    if (encrypt) {
        derive(set, now, &keys);
        result = seal(&keys, name, iv, cipher, hmac);
    }
    for (size_t i = 0; !encrypt && result == 0 && i < ARRAY_LEN(accepted); i++) {
        derive(set, now + (uint64_t)(int64_t)accepted[i].epochs, &keys);
        if (CRYPTO_memcmp(name, keys.name, sizeof keys.name) == 0)
            result = open_with(&keys, iv, cipher, hmac) ? accepted[i].result : -1;
    }
    OPENSSL_cleanse(&keys, sizeof keys);
    return result;
}

void tls_tickets_use(SSL_CTX *ctx, const struct tls_set *set)
{
    uint64_t seconds = 2 * rotate_ms(set) / 1000;
    uint32_t lifetime = seconds < LIFETIME_MAX ? (uint32_t)seconds : LIFETIME_MAX;
    SSL_CTX_set_tlsext_ticket_key_cb(ctx, on_ticket);
    SSL_CTX_set_timeout(ctx, lifetime);
    SSL_CTX_set_session_psk_dhe_timeout(ctx, lifetime);
    /* One is enough for a client that comes again; it may use it more than once. */
    must(SSL_CTX_set_num_tickets(ctx, 1) == 1);
}
