/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sasl_private - an exchange as its mechanisms see it, and what they share.
 */
#include "core/smtp/sasl.h"

typedef enum sasl_step sasl_step_fn(struct sasl_exchange *x, bool has_response,
                                    struct slice response, struct buf *challenge);
typedef enum sasl_step sasl_answer_fn(struct sasl_exchange *x, const struct sasl_answer *answer,
                                      struct buf *challenge);

struct sasl_mechanism {
    const char *name;
    uint32_t bit;
    sasl_step_fn *step;
    sasl_answer_fn *answer;
};

struct sasl_exchange {
    const struct sasl_mechanism *mechanism; /* static */
    struct sasl_channel channel;            /* its slices are borrowed */
    enum sasl_step last; /* what the caller was told to do, and must now have done */
    int phase;
    enum sasl_question question;
    enum auth_result result;
    bool is_proven;
    struct buf user, secret;
    struct buf text; /* SCRAM: the AuthMessage as it grows; bearer: nothing */
    struct buf gs2;  /* SCRAM: the header that c= must repeat */
    struct buf nonce;
    struct scram_verifier verifier;
    uint8_t signature[32];
};

/* Steps, written so that a mechanism can return them. */
enum sasl_step sasl_ask(struct sasl_exchange *x, enum sasl_question question);
enum sasl_step sasl_refuse(struct sasl_exchange *x, enum auth_result result);
enum sasl_step sasl_say(struct buf *challenge, struct slice text);

/* Strict UTF-8 (RFC 3629) without NUL. */
bool sasl_is_utf8(struct slice s);
/* Such a text, not empty, in the place of what the buffer held; false: it is none, or too long. */
bool sasl_keep(struct buf *to, struct slice text);

/* One question, one answer. */
sasl_answer_fn sasl_answer_at_once;

/* OAUTHBEARER and XOAUTH2: sasl_bearer.c. */
sasl_step_fn sasl_step_bearer;
sasl_answer_fn sasl_answer_bearer;
