/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_secure - what stands between EHLO and the first message: STARTTLS and AUTH.
 *
 *     EHLO --offered, wanted--> STARTTLS --220--> TLS (the driver's) --> EHLO
 *         |                        `--refused--> in clear, or broken, as the policy says
 *         |--a login is due--> AUTH --334--> what the mechanism says next --235--> READY
 *         |                       `--refused--> broken (P-159: deferred, nothing bounces)
 *         `--> READY
 *
 * A policy that demands encryption is never met in clear, whatever the peer says (P-193); a login
 * is said over TLS only, however it is offered (P-158), and the configuration sees to it that the
 * peer was verified. Whether a certificate is good is the driver's to find out.
 *
 * Mechanisms: XOAUTH2 when there is a token, else PLAIN, else LOGIN. What a peer may ask in an
 * exchange is counted, so that none goes on for ever (P-160).
 */
#include "core/smtp/client_rows.h"
#include "core/smtp/sasl.h"
#include <openssl/mem.h>

static enum client_step broken(struct smtp_client *c, enum outcome_stage stage,
                               const char *enhanced, const char *why)
{
    client_break(c, client_verdict_ours(stage, 451, enhanced, why), NULL);
    return STEP_IDLE;
}

/* --- STARTTLS -------------------------------------------------------------------------------- */

void client_break_injected(struct smtp_client *c)
{
    broken(c, OUTCOME_LOST, "4.7.5", "octets came in clear behind the reply to STARTTLS");
}

enum client_step client_say_starttls(struct smtp_client *c, struct gather *out)
{
    gather_copy(out, SLICE("STARTTLS\r\n"));
    return STEP_AWAIT;
}

static enum client_step after_tls(struct smtp_client *c);

enum client_step client_on_starttls_reply(struct smtp_client *c, const struct client_expect *e,
                                          const struct smtp_reply *r)
{
    if (r->code == 220) {
        client_enter(c, CLIENT_TLS);
        return STEP_TLS;
    }
    if (smtp_reply_is_positive(r) || r->code / 100 == 3)
        return client_protocol_error(c, e, "only 220 is a positive reply to STARTTLS");
    if (c->policy.tls == CLIENT_TLS_MAY) /* P-193 */
        return after_tls(c);
    return client_refused(c, r, OUTCOME_TLS);
}

/* --- AUTH ------------------------------------------------------------------------------------ */

void client_take_logins(struct smtp_client *c, struct slice words)
{
    static const struct {
        struct slice name;
        enum client_login login;
    } known[] = {
        { { "PLAIN", 5 }, CLIENT_LOGIN_PLAIN },
        { { "LOGIN", 5 }, CLIENT_LOGIN_LOGIN },
        { { "XOAUTH2", 7 }, CLIENT_LOGIN_XOAUTH2 },
    };
    struct slice word;
    while ((word = client_next_word(&words)).len > 0)
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (slice_eq_nocase(word, known[i].name))
                c->logins |= known[i].login;
}

static enum client_login chosen(const struct smtp_client *c)
{
    uint32_t both = c->logins & c->policy.logins;
    return both & CLIENT_LOGIN_XOAUTH2 ? CLIENT_LOGIN_XOAUTH2
           : both & CLIENT_LOGIN_PLAIN ? CLIENT_LOGIN_PLAIN
                                       : (enum client_login)(both & CLIENT_LOGIN_LOGIN);
}

/* Appends the base64 of octets, and wipes both copies of them. */
static void put_secret(struct gather *out, struct buf *octets)
{
    struct buf text;
    buf_init(&text, SASL_TEXT_MAX);
    must(base64_encode(buf_slice(octets), &text) == STATUS_OK);
    gather_copy(out, buf_slice(&text));
    OPENSSL_cleanse(text.ptr, text.len);
    OPENSSL_cleanse(octets->ptr, octets->len);
    buf_done(&text);
    buf_done(octets);
}

static void append(struct buf *b, struct slice s)
{
    must(buf_append(b, s) == STATUS_OK); /* the configuration bounds user and secret */
}

/* RFC 4616: no authorization identity. */
static void put_plain(const struct smtp_client *c, struct gather *out)
{
    struct buf b;
    buf_init(&b, SASL_TEXT_MAX);
    append(&b, slice_of("", 1));
    append(&b, c->policy.user);
    append(&b, slice_of("", 1));
    append(&b, c->policy.secret);
    put_secret(out, &b);
}

static void put_xoauth2(const struct smtp_client *c, struct gather *out)
{
    struct buf b;
    buf_init(&b, SASL_TEXT_MAX);
    append(&b, SLICE("user="));
    append(&b, c->policy.user);
    append(&b, SLICE("\1auth=Bearer "));
    append(&b, c->policy.secret);
    append(&b, SLICE("\1\1"));
    put_secret(out, &b);
}

static void put_word(struct slice word, struct gather *out)
{
    struct buf b;
    buf_init(&b, SASL_TEXT_MAX);
    append(&b, word);
    put_secret(out, &b);
}

enum client_step client_say_auth(struct smtp_client *c, struct gather *out)
{
    c->challenges = 0;
    switch (chosen(c)) {
    case CLIENT_LOGIN_XOAUTH2:
        gather_copy(out, SLICE("AUTH XOAUTH2 "));
        put_xoauth2(c, out);
        break;
    case CLIENT_LOGIN_PLAIN:
        gather_copy(out, SLICE("AUTH PLAIN "));
        put_plain(c, out);
        break;
    case CLIENT_LOGIN_LOGIN: gather_copy(out, SLICE("AUTH LOGIN")); break;
    }
    gather_copy(out, SLICE("\r\n"));
    return STEP_AWAIT;
}

/* LOGIN: the name, then the password, whatever the prompts say. XOAUTH2: an empty line lets the
 * server say its 535 (P-153). */
enum client_step client_say_auth_next(struct smtp_client *c, struct gather *out)
{
    if (chosen(c) == CLIENT_LOGIN_LOGIN)
        put_word(c->challenges == 1 ? c->policy.user : c->policy.secret, out);
    gather_copy(out, SLICE("\r\n"));
    return STEP_AWAIT;
}

/* LOGIN asks twice; XOAUTH2 explains a refusal once. */
static uint8_t challenges_max(const struct smtp_client *c)
{
    switch (chosen(c)) {
    case CLIENT_LOGIN_LOGIN: return 2;
    case CLIENT_LOGIN_XOAUTH2: return 1;
    case CLIENT_LOGIN_PLAIN: break;
    }
    return 0;
}

enum client_step client_on_auth_reply(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r)
{
    if (r->code == 334 && c->challenges++ < challenges_max(c))
        return STEP_AUTH_NEXT;
    if (r->code == 334)
        return client_protocol_error(c, e, "the server asks for more than the login has");
    if (r->code / 100 == 3)
        return client_protocol_error(c, e, "334 is the only 3xx reply to AUTH");
    if (!smtp_reply_is_positive(r))
        return client_refused(c, r, OUTCOME_AUTH);
    c->is_logged_in = true;
    client_enter(c, CLIENT_READY);
    return STEP_IDLE;
}

/* --- what comes next ------------------------------------------------------------------------- */

static bool wants_login(const struct smtp_client *c)
{
    return c->policy.user.len > 0 && !c->is_logged_in;
}

static enum client_step begin_login(struct smtp_client *c)
{
    if (!c->is_secure)
        return broken(c, OUTCOME_AUTH, "4.7.11", "a login is never said in clear"); /* P-158 */
    if (!chosen(c))
        return broken(c, OUTCOME_AUTH, "4.7.9", "the server offers no login that can be used");
    client_enter(c, CLIENT_AUTH);
    return STEP_AUTH;
}

static enum client_step after_tls(struct smtp_client *c)
{
    if (wants_login(c))
        return begin_login(c);
    client_enter(c, CLIENT_READY);
    return STEP_IDLE;
}

enum client_step client_after_ehlo(struct smtp_client *c)
{
    bool wants_tls = c->policy.tls != CLIENT_TLS_OFF && !c->is_secure;
    if (wants_tls && client_can(c, CLIENT_CAN_STARTTLS))
        return STEP_STARTTLS;
    if (wants_tls && c->policy.tls != CLIENT_TLS_MAY)
        return broken(c, OUTCOME_TLS, "4.7.10",
                      "the host does not offer STARTTLS, which this route demands");
    return after_tls(c);
}
