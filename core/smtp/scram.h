/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * scram - the messages and the arithmetic of SCRAM-SHA-256 (RFC 5802, 7677), for sasl.c.
 */
#include "core/smtp/sasl.h"

#define SCRAM_NONCE_LEN 24   /* characters of ours: 18 octets of chance (P-148) */
#define SCRAM_NONCE_MAX 256  /* characters of the client's */
#define SCRAM_GS2_MAX   1024 /* an identity of 255 octets, each of them escaped, fits */
#define SCRAM_BARE_MAX  2048 /* the client's first message without its header */

/* What the client's first message said. */
struct scram_first {
    char binding;           /* 'n', 'y' or 'p' */
    struct slice bind_name; /* with 'p' */
    struct slice authzid;   /* as sent, escapes not undone; empty: none */
    struct slice gs2;       /* the header, for c= */
    struct slice bare;      /* what follows it */
    struct slice name;      /* as sent, escapes not undone */
    struct slice nonce;
};

/* Slices point into message. False: malformed, longer than the limits above, or with an extension
 * that we would have to understand ("m=", P-149); others are signed and ignored. */
bool scram_read_first(struct slice message, struct scram_first *out);
/* "=2C" and "=3D" undone, appended to out; false: another escape, a bare comma, or too long. Every
 * name has one text only, so two names are equal exactly when their texts are. */
bool scram_read_name(struct slice in, struct buf *out);

struct scram_final {
    struct slice binding; /* c=, base64 */
    struct slice nonce;   /* r= */
    struct slice proof;   /* p=, base64 */
    struct slice without_proof;
};
bool scram_read_final(struct slice message, struct scram_final *out);

/* auth_message: client-first-bare "," server-first "," client-final-without-proof. True when the
 * proof is right; the server's signature is written all the same. Constant time in the secrets. */
bool scram_check_proof(const struct scram_verifier *v, struct slice auth_message,
                       const uint8_t proof[32], uint8_t signature[32]);
