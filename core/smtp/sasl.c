/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sasl - one table of mechanisms, each with what it does with a response and with an answer.
 *
 * An exchange is in a phase of its mechanism; a response or an answer leads to the next one. All
 * that a client sent and that is needed again lives in `user`, `secret` and `text`, which are wiped
 * with the exchange. Phases are numbered per mechanism and named where they are used.
 *
 * Names and passwords are UTF-8 without NUL, at most 255 and 1024 octets, taken as they are: no
 * SASLprep, so that what `kilat user` stored is what must be typed.
 *
 * Bearer tokens have a file of their own, sasl_bearer.c; the messages and sums of SCRAM are in
 * scram.c, their order is here.
 *
 * To add a mechanism: a row in mechanisms[], a step and an answer.
 */
#include "core/base/must.h"
#include "core/smtp/sasl_private.h"
#include "core/smtp/scram.h"
#include <openssl/mem.h>
#include <stdlib.h>

#define NAME_MAX_LEN   255
#define SECRET_MAX_LEN 1024
#define TOKEN_MAX_LEN  8192
/* Octets of an AuthMessage. The client's first message and our answer (a nonce, a salt of 64
 * octets, a number) must fit; a last message for which no room is left is malformed. */
#define TEXT_MAX_LEN 8192

static sasl_step_fn step_plain, step_login, step_scram, step_external;
static sasl_answer_fn answer_scram;

/* In the order of the bits. */
static const struct sasl_mechanism mechanisms[] = {
    { "PLAIN", AUTH_PLAIN, step_plain, sasl_answer_at_once },
    { "LOGIN", AUTH_LOGIN, step_login, sasl_answer_at_once },
    { "SCRAM-SHA-256", AUTH_SCRAM_SHA_256, step_scram, answer_scram },
    { "SCRAM-SHA-256-PLUS", AUTH_SCRAM_SHA_256_PLUS, step_scram, answer_scram },
    { "OAUTHBEARER", AUTH_OAUTHBEARER, sasl_step_bearer, sasl_answer_bearer },
    { "XOAUTH2", AUTH_XOAUTH2, sasl_step_bearer, sasl_answer_bearer },
    { "EXTERNAL", AUTH_EXTERNAL, step_external, sasl_answer_at_once },
};

/* --- what mechanisms share ------------------------------------------------------------------- */

enum sasl_step sasl_ask(struct sasl_exchange *x, enum sasl_question question)
{
    x->question = question;
    return SASL_ASK;
}

enum sasl_step sasl_refuse(struct sasl_exchange *x, enum auth_result result)
{
    x->result = result;
    return SASL_REFUSED;
}

enum sasl_step sasl_say(struct buf *challenge, struct slice text)
{
    must(buf_append(challenge, text) == STATUS_OK);
    return SASL_CHALLENGE;
}

static void wipe(struct buf *b)
{
    if (b->ptr)
        OPENSSL_cleanse(b->ptr, b->cap);
    buf_done(b);
}

bool sasl_is_utf8(struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.ptr, *end = p + s.len;
    while (p < end) {
        size_t len = *p < 0x80   ? 1
                     : *p < 0xc2 ? 0
                     : *p < 0xe0 ? 2
                     : *p < 0xf0 ? 3
                     : *p < 0xf5 ? 4
                                 : 0;
        if (len == 0 || *p == 0 || (size_t)(end - p) < len)
            return false;
        if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
            (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
            return false;
        for (size_t i = 1; i < len; i++)
            if ((p[i] & 0xc0) != 0x80)
                return false;
        p += len;
    }
    return true;
}

bool sasl_keep(struct buf *to, struct slice text)
{
    buf_clear(to);
    return text.len > 0 && sasl_is_utf8(text) && buf_append(to, text) == STATUS_OK;
}

/* The identity to act as must be the one that authenticates (P-146). */
static bool is_self(struct slice authzid, struct slice user)
{
    return authzid.len == 0 || slice_eq(authzid, user);
}

enum sasl_step sasl_answer_at_once(struct sasl_exchange *x, const struct sasl_answer *answer,
                                   struct buf *challenge)
{
    return answer->result == AUTH_RESULT_OK ? SASL_DONE : sasl_refuse(x, answer->result);
}

/* --- PLAIN (RFC 4616) ------------------------------------------------------------------------ */

static enum sasl_step step_plain(struct sasl_exchange *x, bool has_response, struct slice in,
                                 struct buf *challenge)
{
    if (!has_response && x->phase++ == 0)
        return SASL_CHALLENGE;
    size_t first = slice_find(in, '\0');
    struct slice authzid = slice_head(in, first), rest = slice_skip(in, first + 1);
    size_t second = slice_find(rest, '\0');
    struct slice user = slice_head(rest, second), secret = slice_skip(rest, second + 1);
    if (first >= in.len || second >= rest.len || slice_find(secret, '\0') < secret.len)
        return SASL_MALFORMED;
    if (!sasl_keep(&x->user, user) || !sasl_keep(&x->secret, secret))
        return SASL_MALFORMED;
    /* Asked all the same, under a secret that nobody has: a refusal looks like any other. */
    if (!is_self(authzid, user))
        buf_clear(&x->secret);
    return sasl_ask(x, SASL_ASK_PASSWORD);
}

/* --- LOGIN ----------------------------------------------------------------------------------- */

enum { LOGIN_START, LOGIN_NAME, LOGIN_SECRET };

/* Clients look for these very words (P-147). */
static enum sasl_step step_login(struct sasl_exchange *x, bool has_response, struct slice in,
                                 struct buf *challenge)
{
    if (x->phase == LOGIN_START && !has_response) {
        x->phase = LOGIN_NAME;
        return sasl_say(challenge, SLICE("Username:"));
    }
    if (x->phase == LOGIN_SECRET)
        return sasl_keep(&x->secret, in) ? sasl_ask(x, SASL_ASK_PASSWORD) : SASL_MALFORMED;
    if (!sasl_keep(&x->user, in))
        return SASL_MALFORMED;
    x->phase = LOGIN_SECRET;
    return sasl_say(challenge, SLICE("Password:"));
}

/* --- EXTERNAL (RFC 4422 A) ------------------------------------------------------------------- */

static enum sasl_step step_external(struct sasl_exchange *x, bool has_response, struct slice in,
                                    struct buf *challenge)
{
    if (!has_response && x->phase++ == 0)
        return SASL_CHALLENGE;
    if (in.len > 0 && !sasl_is_utf8(in))
        return SASL_MALFORMED;
    struct slice name = x->channel.client_name;
    if (!sasl_keep(&x->user, name) || !is_self(in, name))
        return sasl_refuse(x, AUTH_RESULT_WRONG);
    return sasl_ask(x, SASL_ASK_EXTERNAL);
}

/* --- SCRAM-SHA-256 (RFC 5802, 7677) ---------------------------------------------------------- */

enum { SCRAM_FIRST, SCRAM_VERIFIER, SCRAM_FINAL, SCRAM_PROOF, SCRAM_LAST };

/* "n": the client has no bindings. "y": it has, and believes that we have none: somebody took them
 * out of our offer. "p": it binds, and only -PLUS does (P-150). */
static bool flag_is_right(const struct sasl_exchange *x, const struct scram_first *first)
{
    bool is_plus = x->mechanism->bit == AUTH_SCRAM_SHA_256_PLUS;
    if (first->binding == 'p')
        return is_plus && x->channel.binding_name &&
               slice_eq(first->bind_name, slice_str(x->channel.binding_name));
    return !is_plus && (first->binding == 'n' || !x->channel.offers_plus);
}

static bool keep_all(struct buf *to, struct slice text)
{
    return buf_append(to, text) == STATUS_OK;
}

static bool keep_first(struct sasl_exchange *x, const struct scram_first *first)
{
    return scram_read_name(first->name, &x->user) && sasl_is_utf8(buf_slice(&x->user)) &&
           keep_all(&x->gs2, first->gs2) && keep_all(&x->nonce, first->nonce) &&
           keep_all(&x->text, first->bare);
}

static enum sasl_step take_first(struct sasl_exchange *x, struct slice in)
{
    struct scram_first first;
    if (!scram_read_first(in, &first) || !flag_is_right(x, &first) || !keep_first(x, &first))
        return SASL_MALFORMED;
    if (!is_self(first.authzid, first.name))
        return sasl_refuse(x, AUTH_RESULT_WRONG);
    x->phase = SCRAM_VERIFIER;
    return sasl_ask(x, SASL_ASK_VERIFIER);
}

/* r=<theirs><ours>,s=<salt>,i=<count> */
static enum sasl_step say_server_first(struct sasl_exchange *x, struct buf *challenge)
{
    uint8_t chance[18];
    uint32_t start = challenge->len;
    entropy_bytes(x->channel.entropy, chance, sizeof chance);
    must(base64_encode(slice_of((const char *)chance, sizeof chance), &x->nonce) == STATUS_OK);
    must(buf_append(challenge, SLICE("r=")) == STATUS_OK);
    must(buf_append(challenge, buf_slice(&x->nonce)) == STATUS_OK);
    must(buf_append(challenge, SLICE(",s=")) == STATUS_OK);
    must(base64_encode(slice_of((const char *)x->verifier.salt, x->verifier.salt_len), challenge) ==
         STATUS_OK);
    must(buf_printf(challenge, ",i=%u", x->verifier.iterations) == STATUS_OK);
    struct slice said = slice_skip(buf_slice(challenge), start);
    must(keep_all(&x->text, SLICE(",")) && keep_all(&x->text, said));
    x->phase = SCRAM_FINAL;
    return SASL_CHALLENGE;
}

/* What c= must hold: the header as it was sent, and the channel's octets when it said "p". */
static bool binding_is_right(const struct sasl_exchange *x, struct slice given)
{
    struct buf want, text;
    buf_init(&want, SCRAM_GS2_MAX + 256);
    buf_init(&text, (SCRAM_GS2_MAX + 256 + 2) / 3 * 4);
    bool is_right = keep_all(&want, buf_slice(&x->gs2));
    if (is_right && x->gs2.ptr[0] == 'p')
        is_right = keep_all(&want, x->channel.binding);
    is_right = is_right && base64_encode(buf_slice(&want), &text) == STATUS_OK &&
               given.len == text.len && CRYPTO_memcmp(given.ptr, text.ptr, text.len) == 0;
    buf_done(&want);
    buf_done(&text);
    return is_right;
}

/* 32 octets; with what the server keeps they would give away the client's key. */
static bool read_proof(struct slice text, uint8_t proof[32])
{
    struct buf octets;
    buf_init(&octets, 64);
    bool is_good = base64_decode(text, &octets) == STATUS_OK && octets.len == 32;
    if (is_good)
        memcpy(proof, octets.ptr, 32);
    wipe(&octets);
    return is_good;
}

static enum sasl_step take_final(struct sasl_exchange *x, struct slice in)
{
    struct scram_final final;
    uint8_t proof[32];
    if (!scram_read_final(in, &final) || !keep_all(&x->text, SLICE(",")) ||
        !keep_all(&x->text, final.without_proof) || !read_proof(final.proof, proof))
        return SASL_MALFORMED;
    bool is_right = scram_check_proof(&x->verifier, buf_slice(&x->text), proof, x->signature);
    bool is_this = slice_eq(final.nonce, buf_slice(&x->nonce)); /* no secret is compared */
    OPENSSL_cleanse(proof, sizeof proof);
    x->is_proven = is_right && is_this && binding_is_right(x, final.binding);
    x->phase = SCRAM_PROOF;
    return sasl_ask(x, SASL_ASK_PROOF);
}

static enum sasl_step step_scram(struct sasl_exchange *x, bool has_response, struct slice in,
                                 struct buf *challenge)
{
    switch (x->phase) {
    case SCRAM_FIRST:
        if (!has_response)
            return SASL_CHALLENGE;
        return take_first(x, in);
    case SCRAM_FINAL: return take_final(x, in);
    default: return in.len == 0 ? SASL_DONE : SASL_MALFORMED; /* SCRAM_LAST */
    }
}

static enum sasl_step answer_scram(struct sasl_exchange *x, const struct sasl_answer *answer,
                                   struct buf *challenge)
{
    if (answer->result != AUTH_RESULT_OK)
        return sasl_refuse(x, answer->result);
    if (x->phase == SCRAM_VERIFIER) {
        x->verifier = answer->verifier;
        return say_server_first(x, challenge);
    }
    must(x->phase == SCRAM_PROOF && x->is_proven);
    x->phase = SCRAM_LAST;
    must(buf_append(challenge, SLICE("v=")) == STATUS_OK);
    must(base64_encode(slice_of((const char *)x->signature, sizeof x->signature), challenge) ==
         STATUS_OK);
    return SASL_CHALLENGE;
}

/* --- entry points ---------------------------------------------------------------------------- */

uint32_t sasl_mechanism_find(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if (slice_eq_nocase(name, slice_str(mechanisms[i].name)))
            return mechanisms[i].bit;
    return 0;
}

static const struct sasl_mechanism *row_of(uint32_t bit)
{
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if (mechanisms[i].bit == bit)
            return &mechanisms[i];
    must(!"a mechanism of the table");
    return NULL;
}

const char *sasl_mechanism_name(uint32_t mechanism)
{
    return row_of(mechanism)->name;
}

struct sasl_exchange *sasl_new(uint32_t mechanism, const struct sasl_channel *channel)
{
    struct sasl_exchange *x = mem_zalloc(sizeof *x);
    x->mechanism = row_of(mechanism);
    x->channel = *channel;
    x->last = SASL_CHALLENGE; /* the client speaks first */
    x->result = AUTH_RESULT_WRONG;
    bool is_bearer = mechanism & (AUTH_OAUTHBEARER | AUTH_XOAUTH2);
    buf_init(&x->user, NAME_MAX_LEN);
    buf_init(&x->secret, is_bearer ? TOKEN_MAX_LEN : SECRET_MAX_LEN);
    buf_init(&x->text, TEXT_MAX_LEN);
    buf_init(&x->gs2, SCRAM_GS2_MAX);
    buf_init(&x->nonce, SCRAM_NONCE_MAX + SCRAM_NONCE_LEN);
    return x;
}

void sasl_free(struct sasl_exchange *x)
{
    if (!x)
        return;
    wipe(&x->user);
    wipe(&x->secret);
    wipe(&x->text);
    wipe(&x->gs2);
    wipe(&x->nonce);
    OPENSSL_cleanse(x, sizeof *x);
    free(x);
}

enum sasl_step sasl_step(struct sasl_exchange *x, bool has_response, struct slice response,
                         struct buf *challenge)
{
    must(x->last == SASL_CHALLENGE);
    x->last = x->mechanism->step(x, has_response, response, challenge);
    return x->last;
}

void sasl_get_request(const struct sasl_exchange *x, struct sasl_request *out)
{
    *out = (struct sasl_request){
        .question = x->question,
        .user = buf_slice(&x->user),
        .secret = buf_slice(&x->secret),
        .is_proven = x->is_proven,
    };
}

enum sasl_step sasl_answer(struct sasl_exchange *x, const struct sasl_answer *answer,
                           struct buf *challenge)
{
    must(x->last == SASL_ASK);
    x->last = x->mechanism->answer(x, answer, challenge);
    return x->last;
}

enum auth_result sasl_result(const struct sasl_exchange *x)
{
    return x->result;
}
