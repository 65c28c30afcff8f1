/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AUTH (RFC 4954): base64 lines between the client and a sasl_exchange, and the exchange's
 * questions between it and whoever drives the session.
 *
 *     READY --AUTH--> AUTH (a challenge is out: the next line is the response)
 *                     AUTH, waiting (a question is out: no input is taken; P-110)
 *     AUTH --> READY, with or without an account
 *
 * Failures are counted over the whole session: neither RSET nor EHLO starts anew (P-155). What a
 * client sent is never in a log (P-121); it lives in the exchange, which wipes it.
 */
#include "core/base/must.h"
#include "core/smtp/session_private.h"
#include <openssl/mem.h>
#include <stdlib.h>

/* Under TLS, or where the listener says so in as many words (P-125). */
bool session_auth_is_offered(const struct smtp_session *s)
{
    return s->service->auth != AUTH_OFF && !s->account && (s->tls || s->service->auth_without_tls);
}

uint32_t session_mechanisms(const struct smtp_session *s)
{
    uint32_t mechanisms = s->service->mechanisms;
    if (!session_auth_is_offered(s))
        return 0;
    if (!s->tls || !s->tls->binding_name)
        mechanisms &= ~(uint32_t)AUTH_SCRAM_SHA_256_PLUS;
    if (!s->tls || s->tls->client_name.len == 0 || s->xclient)
        mechanisms &= ~(uint32_t)AUTH_EXTERNAL;
    return mechanisms;
}

void session_end_auth(struct smtp_session *s)
{
    sasl_free(s->sasl);
    s->sasl = NULL;
}

/* SCRAM lets in before the client has said its last word. */
static void abandon(struct smtp_session *s)
{
    session_end_auth(s);
    account_unref(s->account);
    s->account = NULL;
    s->tenant = s->service->tenant;
}

/* --- what an exchange comes to --------------------------------------------------------------- */

static enum smtp_state fail(struct smtp_session *s, enum reply_id why)
{
    abandon(s);
    if (++s->auth_failures >= s->server->limits.auth_attempts_max) {
        session_say(s, why);
        return session_hang_up(s, REPLY_TOO_MANY_FAILURES, "auth-failures");
    }
    session_say(s, why);
    return SMTP_READY;
}

void session_fail_auth(struct smtp_session *s, enum reply_id why)
{
    session_enter(s, fail(s, why));
}

static enum smtp_state succeed(struct smtp_session *s)
{
    session_end_auth(s);
    must(s->account);
    session_say(s, REPLY_AUTH_OK);
    return SMTP_READY;
}

static enum reply_id reply_to(enum auth_result result)
{
    switch (result) {
    case AUTH_RESULT_DOWN: return REPLY_AUTH_DOWN;
    case AUTH_RESULT_BUSY: return REPLY_AUTH_BUSY;
    case AUTH_RESULT_THROTTLED: return REPLY_AUTH_THROTTLED;
    case AUTH_RESULT_TOO_MANY: return REPLY_AUTH_TOO_MANY;
    case AUTH_RESULT_OK:
    case AUTH_RESULT_WRONG: break;
    }
    return REPLY_AUTH_WRONG;
}

static void challenge(struct smtp_session *s, const struct buf *octets)
{
    session_say_text(s, SLICE("334 ")); /* with its space, also when nothing follows (P-140) */
    must(base64_encode(buf_slice(octets), &s->out) == STATUS_OK);
    session_say_text(s, SLICE("\r\n"));
}

static void after_step(struct smtp_session *s, enum sasl_step step, const struct buf *octets)
{
    switch (step) {
    case SASL_CHALLENGE:
        challenge(s, octets);
        session_enter(s, SMTP_AUTH);
        return;
    case SASL_ASK: session_enter_waiting(s, SMTP_AUTH, SMTP_WAIT_AUTH); return;
    case SASL_DONE: session_enter(s, succeed(s)); return;
    case SASL_REFUSED: session_enter(s, fail(s, reply_to(sasl_result(s->sasl)))); return;
    case SASL_MALFORMED: session_enter(s, fail(s, REPLY_AUTH_MALFORMED)); return;
    }
}

/* --- lines ----------------------------------------------------------------------------------- */

static void step(struct smtp_session *s, bool has_response, struct slice response)
{
    struct buf octets;
    buf_init(&octets, SASL_TEXT_MAX);
    enum sasl_step next = sasl_step(s->sasl, has_response, response, &octets);
    after_step(s, next, &octets);
    buf_done(&octets);
}

/* Secrets are in there. */
static void wipe(struct buf *b)
{
    if (b->ptr)
        OPENSSL_cleanse(b->ptr, b->cap);
    buf_done(b);
}

static void take_base64(struct smtp_session *s, struct slice text)
{
    struct buf octets;
    buf_init(&octets, SASL_TEXT_MAX);
    if (base64_decode(text, &octets) == STATUS_OK)
        step(s, true, buf_slice(&octets));
    else
        session_enter(s, fail(s, REPLY_AUTH_MALFORMED)); /* P-142 */
    wipe(&octets);
}

/* P-141. No guess was made, so it is no failure; but who does nothing else is an error (P-24). */
static void cancel(struct smtp_session *s)
{
    abandon(s);
    enum smtp_state next = session_refuse(s, REPLY_AUTH_CANCELLED);
    session_enter(s, next == SMTP_CLOSED ? next : SMTP_READY);
}

void session_take_response(struct smtp_session *s, struct slice line, const struct now *now)
{
    if (line.len == 1 && line.ptr[0] == '*')
        cancel(s);
    else
        take_base64(s, line);
}

static struct sasl_channel channel_of(const struct smtp_session *s)
{
    struct sasl_channel channel = { .entropy = s->server->entropy };
    channel.offers_plus = session_mechanisms(s) & AUTH_SCRAM_SHA_256_PLUS;
    if (s->tls) {
        channel.binding_name = s->tls->binding_name;
        channel.binding = s->tls->binding;
        channel.client_name = s->tls->client_name;
    }
    return channel;
}

/* What the exchange comes to is entered right here. */
enum smtp_state session_on_auth(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    if (s->service->auth == AUTH_OFF)
        return session_refuse(s, REPLY_NOT_IMPLEMENTED);
    if (s->account || !s->is_esmtp)
        return session_refuse(s, REPLY_AUTH_MISPLACED); /* P-138 */
    if (!session_auth_is_offered(s))
        return session_refuse(s, REPLY_AUTH_NEEDS_TLS);
    size_t end = slice_find(c->argument, ' ');
    struct slice name = slice_head(c->argument, end), initial = slice_skip(c->argument, end + 1);
    if (name.len == 0)
        return session_refuse(s, REPLY_BAD_ARGUMENT);
    uint32_t mechanism = sasl_mechanism_find(name);
    if (!(mechanism & session_mechanisms(s)))
        return session_refuse(s, REPLY_AUTH_UNKNOWN); /* P-139 */
    struct sasl_channel channel = channel_of(s);
    s->sasl = sasl_new(mechanism, &channel);
    if (end >= c->argument.len)
        step(s, false, SLICE_NONE);
    else if (slice_eq(initial, SLICE("=")))
        step(s, true, SLICE_NONE);
    else
        take_base64(s, initial);
    return s->state;
}

/* --- answers --------------------------------------------------------------------------------- */

void smtp_session_get_auth(const struct smtp_session *s, struct sasl_request *out)
{
    must(s->sasl);
    sasl_get_request(s->sasl, out);
}

static bool take_account(struct smtp_session *s, struct account *account)
{
    const struct config_tenant *tenant = NULL;
    if (*account->tenant) {
        tenant = config_find_tenant(s->service->cfg, slice_str(account->tenant));
        if (!tenant)
            return false;
    }
    must(!s->account);
    s->account = account;
    s->tenant = tenant;
    return true;
}

void smtp_session_auth_answer(struct smtp_session *s, const struct sasl_answer *answer,
                              const struct now *now)
{
    struct buf octets;
    must(s->wait == SMTP_WAIT_AUTH);
    s->last_progress_ms = now->mono_ms;
    if (answer->account && !take_account(s, answer->account)) {
        account_unref(answer->account);
        session_enter(s, fail(s, REPLY_AUTH_NO_TENANT));
        return;
    }
    buf_init(&octets, SASL_TEXT_MAX);
    enum sasl_step next = sasl_answer(s->sasl, answer, &octets);
    after_step(s, next, &octets);
    buf_done(&octets);
}
