/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * jwt - checks a signed token (RFC 7519, compact serialization) against keys from a file, for
 * OAUTHBEARER and XOAUTH2 (P-154).
 *
 * The key decides the algorithm, never the token: an RSA key verifies RS256, a P-256 key ES256, an
 * Ed25519 key EdDSA; "none" and HMAC are nothing a key of ours can verify. With `kid` in the token
 * and in the keys the one of that name is tried, else each.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"

struct jwt_keys; /* immutable once made; any thread may read it */

/* PEM public keys one after another (certificates too), or a JWK set (RFC 7517), whose keys for
 * other purposes or of other kinds are passed over. BAD: error says what, and so when no key is
 * left. */
NODISCARD enum status jwt_keys_parse(struct slice text, struct jwt_keys **out, struct buf *error);
void jwt_keys_free(struct jwt_keys *k);

struct jwt_policy { /* borrowed; NULL: not looked at */
    const char *issuer, *audience, *scope;
    const char *user_claim;
};

#define JWT_LEEWAY_S 60 /* clocks may differ by this much */

enum jwt_verdict {
    JWT_GOOD,
    JWT_MALFORMED,
    JWT_BAD_SIGNATURE,
    JWT_EXPIRED,
    JWT_NOT_YET,
    JWT_WRONG_CLAIM
};

/* GOOD: user (appended) is the value of user_claim, as whoever signed wrote it; expires_s is its
 * exp. A token without exp is refused as EXPIRED. User and expires_s are written with GOOD only. */
enum jwt_verdict jwt_check(const struct jwt_keys *keys, const struct jwt_policy *policy,
                           struct slice token, const struct now *now, struct buf *user,
                           int64_t *expires_s);
const char *jwt_verdict_name(enum jwt_verdict v); /* for the log */
