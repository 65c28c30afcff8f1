/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sasl_bearer - OAUTHBEARER (RFC 7628) and XOAUTH2, which is older and much the same: one response
 * of pairs with ^A between them, one of which is the token. Whether it is a good one is for the
 * authenticator to say; a client with a bad one is told so in JSON, says a word, and is refused.
 *
 *     n,a=user@example.org,^Ahost=...^Aauth=Bearer TOKEN^A^A       OAUTHBEARER
 *     user=user@example.org^Aauth=Bearer TOKEN^A^A                 XOAUTH2
 */
#include "core/smtp/sasl_private.h"
#include "core/smtp/scram.h"

enum { BEARER_START, BEARER_FAILED };

/* 1*ALPHA (RFC 7628 3.1) */
static bool is_key(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((text.ptr[i] | 0x20) < 'a' || (text.ptr[i] | 0x20) > 'z')
            return false;
    return text.len > 0;
}

/* Cuts "key=value^A" off the front; ^A alone gives an empty key, the end of the list. */
static bool cut_pair(struct slice *rest, struct slice *key, struct slice *value)
{
    size_t end = slice_find(*rest, '\1');
    if (end >= rest->len)
        return false;
    struct slice pair = slice_head(*rest, end);
    *rest = slice_skip(*rest, end + 1);
    *key = slice_head(pair, slice_find(pair, '='));
    *value = slice_skip(pair, key->len + 1);
    return pair.len == 0 || (key->len < pair.len && is_key(*key));
}

/* gs2-header kvsep: "n,a=user@example.org,^A". */
static bool cut_gs2(struct sasl_exchange *x, struct slice *rest)
{
    size_t end = slice_find(*rest, '\1');
    struct slice header = slice_head(*rest, end);
    if (end >= rest->len || header.len < 3 || (header.ptr[0] != 'n' && header.ptr[0] != 'y') ||
        header.ptr[1] != ',' || header.ptr[header.len - 1] != ',')
        return false;
    *rest = slice_skip(*rest, end + 1);
    header = slice_skip(slice_head(header, header.len - 1), 2);
    if (header.len == 0)
        return true;
    return slice_eq(slice_head(header, 2), SLICE("a=")) &&
           scram_read_name(slice_skip(header, 2), &x->user) && x->user.len > 0 &&
           sasl_is_utf8(buf_slice(&x->user));
}

static bool take_token(struct sasl_exchange *x, struct slice auth)
{
    struct slice scheme = slice_head(auth, 7);
    struct slice token = slice_skip(auth, 7);
    while (token.len > 0 && token.ptr[0] == ' ')
        token = slice_skip(token, 1);
    return slice_eq_nocase(scheme, SLICE("Bearer ")) && sasl_keep(&x->secret, token);
}

/* user=...^Aauth=Bearer ...^A^A; in OAUTHBEARER the user stands in the header. Other keys (host,
 * port) are nothing that we need. */
static bool read_bearer(struct sasl_exchange *x, struct slice in, struct slice *auth)
{
    bool is_google = x->mechanism->bit == AUTH_XOAUTH2;
    struct slice key, value;
    *auth = SLICE_NONE;
    if (!is_google && !cut_gs2(x, &in))
        return false;
    while (cut_pair(&in, &key, &value)) {
        if (key.len == 0)
            return in.len == 0 && auth->ptr;
        if (slice_eq(key, SLICE("auth"))) {
            if (auth->ptr)
                return false;
            *auth = value;
        } else if (is_google && slice_eq(key, SLICE("user"))) {
            if (x->user.len > 0 || !sasl_keep(&x->user, value))
                return false;
        }
    }
    return false;
}

/* The client hears why, says anything, and is refused then (P-152, P-153). */
static enum sasl_step deny(struct sasl_exchange *x, struct buf *challenge)
{
    x->phase = BEARER_FAILED;
    return sasl_say(challenge, x->mechanism->bit == AUTH_XOAUTH2
                                   ? SLICE("{\"status\":\"invalid_token\",\"schemes\":\"Bearer\"}")
                                   : SLICE("{\"status\":\"invalid_token\"}"));
}

enum sasl_step sasl_step_bearer(struct sasl_exchange *x, bool has_response, struct slice in,
                                struct buf *challenge)
{
    struct slice auth;
    if (x->phase == BEARER_FAILED)
        return sasl_refuse(x, AUTH_RESULT_WRONG);
    if (!has_response)
        return SASL_CHALLENGE;
    if (!read_bearer(x, in, &auth))
        return SASL_MALFORMED;
    if (auth.len == 0) /* who has no token may ask where to get one (RFC 7628 4.3) */
        return deny(x, challenge);
    return take_token(x, auth) ? sasl_ask(x, SASL_ASK_TOKEN) : SASL_MALFORMED;
}

enum sasl_step sasl_answer_bearer(struct sasl_exchange *x, const struct sasl_answer *answer,
                                  struct buf *challenge)
{
    if (answer->result == AUTH_RESULT_WRONG)
        return deny(x, challenge);
    return sasl_answer_at_once(x, answer, challenge);
}
