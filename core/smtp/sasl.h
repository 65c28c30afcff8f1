/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sasl - the server side of one authentication exchange (RFC 4422, 4954): decoded responses in,
 * challenges out, and questions to the authenticator, which knows the users.
 *
 *     sasl_new -> sasl_step(response) -> CHALLENGE -> sasl_step(response) ...
 *                                     -> ASK       -> sasl_answer(answer) -> CHALLENGE | DONE
 *                                     -> a refusal
 * Every way to DONE, and every refusal of a proof, a password or a token, leads through ASK: the
 * authenticator counts failures and decides when the answer is given, so that unknown users, wrong
 * passwords and disabled accounts look the same (P-145). What no answer could change is refused at
 * once, and tells nothing about users: a malformed response, the wish of SCRAM or EXTERNAL to act
 * as somebody else, a bearer response without a token.
 *
 * Pure: no system calls, no clock but `now`, chance from `entropy`. Secrets are wiped on sasl_free.
 * Base64 is the session's: octets come and go decoded.
 *
 * To add a mechanism: a row in the table of sasl.c and its steps.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/entropy.h"

#define SASL_TEXT_MAX 12288 /* octets of one response, as base64 on the wire (RFC 4954 4) */

struct scram_verifier {  /* RFC 5803; SCRAM-SHA-256 */
    uint32_t iterations; /* at least 4096 */
    uint8_t salt_len;    /* octets used of salt, 8 to 64 */
    uint8_t salt[64];
    uint8_t stored_key[32], server_key[32];
};

/* What the connection lends to an exchange; borrowed. */
struct sasl_channel {
    struct entropy *entropy;
    bool offers_plus; /* SCRAM-SHA-256-PLUS was in the EHLO reply: "y" is a downgrade (P-150) */
    const char *binding_name; /* "tls-exporter", "tls-unique"; NULL: none */
    struct slice binding;
    struct slice client_name; /* of the client's certificate, for EXTERNAL; empty: none */
};

enum sasl_step {
    SASL_CHALLENGE, /* send what is in the buffer as 334, wait for a response */
    SASL_ASK,       /* put sasl_request to the authenticator, then sasl_answer */
    SASL_DONE,      /* authenticated; nothing is to be sent (SCRAM's v= goes as a challenge before,
                       and the client answers empty: RFC 4954 4) */
    SASL_REFUSED,   /* not authenticated: the answer's result says which reply */
    SASL_MALFORMED, /* 501 5.5.2: not what the mechanism allows */
};

enum sasl_question {
    SASL_ASK_PASSWORD, /* user, secret: is it right? */
    SASL_ASK_VERIFIER, /* user: its SCRAM verifier; an unknown user gets a fake one (P-148) */
    SASL_ASK_PROOF,    /* user, is_proven: count it, and let in or not; OK only when proven */
    SASL_ASK_TOKEN,    /* user (may be empty), secret: a bearer token */
    SASL_ASK_EXTERNAL, /* user: as the client's certificate says */
};

struct sasl_request { /* slices live in the exchange until sasl_answer */
    enum sasl_question question;
    struct slice
        user; /* authentication identity; equal to a given authorization identity (P-146) */
    struct slice secret; /* password or token */
    bool is_proven;
};

enum auth_result {
    AUTH_RESULT_OK,
    AUTH_RESULT_WRONG,     /* 535 5.7.8, whatever was wrong */
    AUTH_RESULT_DOWN,      /* 454 4.7.0: the users are out of reach (P-144) */
    AUTH_RESULT_BUSY,      /* 454 4.7.0: too many checks wait (P-157) */
    AUTH_RESULT_THROTTLED, /* 454 4.7.0: too many failures (P-117) */
    AUTH_RESULT_TOO_MANY,  /* 454 4.7.0: the tenant's sessions are used up */
};

struct account;
struct sasl_answer {
    enum auth_result result;
    struct scram_verifier verifier; /* ASK_VERIFIER with OK */
    struct account *account; /* with OK, but for ASK_VERIFIER; the session takes the reference */
};

struct sasl_exchange;

/* The names as in EHLO, in the order of the bits of enum auth_mechanism. 0: not known (P-139). */
uint32_t sasl_mechanism_find(struct slice name); /* in any case */
const char *sasl_mechanism_name(uint32_t mechanism);

struct sasl_exchange *sasl_new(uint32_t mechanism, const struct sasl_channel *channel);
void sasl_free(struct sasl_exchange *x); /* NULL is harmless */
/* Only at the start and after CHALLENGE. has_response false: the AUTH command had no initial
 * response. challenge is appended to: at most 1 KiB. */
enum sasl_step sasl_step(struct sasl_exchange *x, bool has_response, struct slice response,
                         struct buf *challenge);
void sasl_get_request(const struct sasl_exchange *x, struct sasl_request *out);
/* Only after ASK. */
enum sasl_step sasl_answer(struct sasl_exchange *x, const struct sasl_answer *answer,
                           struct buf *challenge);
/* After REFUSED. */
enum auth_result sasl_result(const struct sasl_exchange *x);

/* Makes a verifier: PBKDF2 of the password, slow by intent: never in a worker. salt: 16 octets. */
void scram_make_verifier(struct slice password, const uint8_t salt[16], uint32_t iterations,
                         struct scram_verifier *out);
/* The verifier shown to whoever asks for a user that does not exist: the same each time. */
void scram_fake_verifier(struct slice user, const uint8_t secret[32], struct scram_verifier *out);

/* Strict (P-142): no white space, no missing padding, no stray bits. FULL: out is too small. */
NODISCARD enum status base64_decode(struct slice text, struct buf *out);
NODISCARD enum status base64_encode(struct slice octets, struct buf *out);
