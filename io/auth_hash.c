/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_hash - argon2id (RFC 9106), and SCRAM verifiers as password hashes where there is no other.
 *
 * Every check that fails has computed one argon2id of the default cost, so that an unknown user,
 * one without a password and one with only a SCRAM verifier take about as long as a wrong password
 * (P-145); the rest is hidden by auth.failure_delay.
 *
 * Why both forms are stored: PLAIN and LOGIN need any of them, SCRAM only works with its own. Who
 * steals the users attacks the weaker one: SCRAM's, whose iterations the client pays too (4,096 of
 * PBKDF2 are what RFC 7677 asks and what every client bears). --no-scram leaves it out.
 *
 * Cost of a check: 19 MiB and about 20 ms of one core; auth.threads of them run at once.
 */
#include "io/auth_hash.h"
#include "core/base/must.h"

#include <argon2.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <stdlib.h>

/* OWASP Password Storage Cheat Sheet: the least for argon2id with one lane. Older hashes are
 * checked with the cost they were made with. */
#define ARGON2_MEMORY_KIB 19456
#define ARGON2_PASSES     2
#define ARGON2_LANES      1
#define ARGON2_OCTETS     32
#define ENCODED_MAX       160
#define SALT_OCTETS       16
#define SCRAM_ITERATIONS  4096 /* as scram_fake_verifier shows for users that do not exist */

static enum status set_argon2(struct account *a, struct slice password)
{
    uint8_t salt[SALT_OCTETS];
    char encoded[ENCODED_MAX];
    must(RAND_bytes(salt, sizeof salt) == 1);
    if (argon2id_hash_encoded(ARGON2_PASSES, ARGON2_MEMORY_KIB, ARGON2_LANES, password.ptr,
                              password.len, salt, sizeof salt, ARGON2_OCTETS, encoded,
                              sizeof encoded) != ARGON2_OK)
        return STATUS_SYSTEM;
    a->argon2 = mem_strdup(encoded);
    return STATUS_OK;
}

static void set_scram(struct account *a, struct slice password)
{
    uint8_t salt[SALT_OCTETS];
    must(RAND_bytes(salt, sizeof salt) == 1);
    scram_make_verifier(password, salt, SCRAM_ITERATIONS, &a->scram);
}

enum status auth_hash_set(struct account *a, struct slice password, bool argon2, bool scram)
{
    must(password.len > 0 && password.len <= AUTH_PASSWORD_MAX);
    free(a->argon2);
    a->argon2 = NULL;
    a->has_scram = scram;
    a->scram = (struct scram_verifier){ 0 };
    if (scram)
        set_scram(a, password);
    return argon2 ? set_argon2(a, password) : STATUS_OK;
}

static void waste_time(struct slice password)
{
    static const uint8_t salt[SALT_OCTETS] = "nobody's salt  ";
    uint8_t out[ARGON2_OCTETS];
    if (argon2id_hash_raw(ARGON2_PASSES, ARGON2_MEMORY_KIB, ARGON2_LANES, password.ptr,
                          password.len, salt, sizeof salt, out, sizeof out) == ARGON2_OK)
        OPENSSL_cleanse(out, sizeof out);
}

static bool fits_scram(const struct scram_verifier *v, struct slice password)
{
    struct scram_verifier made;
    uint8_t salt[SALT_OCTETS];
    memcpy(salt, v->salt, sizeof salt);
    scram_make_verifier(password, salt, v->iterations, &made);
    bool fits = CRYPTO_memcmp(made.stored_key, v->stored_key, sizeof made.stored_key) == 0;
    OPENSSL_cleanse(&made, sizeof made);
    return fits;
}

bool auth_hash_is_right(const struct account *a, struct slice password)
{
    if (password.len <= AUTH_PASSWORD_MAX) {
        if (a && a->argon2)
            return argon2_verify(a->argon2, password.ptr, password.len, Argon2_id) == ARGON2_OK;
        if (a && a->has_scram && a->scram.salt_len == SALT_OCTETS &&
            fits_scram(&a->scram, password))
            return true;
    }
    waste_time(slice_head(password, AUTH_PASSWORD_MAX));
    return false;
}
