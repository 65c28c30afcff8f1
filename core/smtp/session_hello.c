/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who speaks with whom: the greeting, EHLO and what it offers, STARTTLS, XCLIENT.
 *
 * EHLO offers what works in the present state and nothing else (P-3): no STARTTLS under TLS, no
 * AUTH in clear, no REQUIRETLS without TLS.
 *
 * XCLIENT (a proxy that speaks SMTP names the true client; P-252, P-253): only from peers that the
 * listener lists. The address is taken, and judged as that of a connection would be; names and
 * logins are not, since whoever may say XCLIENT is not thereby believed in everything. The proxy's
 * own certificate is not its client's: no EXTERNAL behind an XCLIENT.
 */
#include "core/base/must.h"
#include "core/smtp/session_private.h"
#include <inttypes.h>
#include <stdlib.h>

#define XCLIENT_ADDRESS_MAX 64
#define XCLIENT_VALUE_MAX   256

void session_greet(struct smtp_session *s)
{
    /* P-1: the name and "ESMTP"; no version. */
    session_say_text(s, SLICE("220 "));
    session_say_text(s, s->server->hostname);
    session_say_text(s, SLICE(" ESMTP Kilat\r\n"));
}

void session_forget(struct smtp_session *s)
{
    free(s->helo);
    s->helo = NULL;
    account_unref(s->account);
    s->account = NULL;
    s->tenant = s->service->tenant;
    s->is_esmtp = false;
}

/* --- EHLO, HELO ------------------------------------------------------------------------------ */

/* Only what has the form of a name or an address literal is taken, so nothing else can reach a
 * header field, a log or Redis (P-4, P-5). Names need no dot and need not fit the address. */
static bool take_helo(struct smtp_session *s, struct slice name)
{
    if (!address_domain_is_valid(name) && !address_literal_is_valid(name))
        return false;
    free(s->helo);
    s->helo = mem_alloc(name.len + 1);
    memcpy(s->helo, name.ptr, name.len);
    s->helo[name.len] = '\0';
    return true;
}

static void offer(struct smtp_session *s, const char *format, ...) PRINTF_LIKE(2, 3);
static void offer(struct smtp_session *s, const char *format, ...)
{
    va_list args;
    session_say_text(s, SLICE("250-"));
    va_start(args, format);
    must(buf_vprintf(&s->out, format, args) == STATUS_OK);
    va_end(args);
    session_say_text(s, SLICE("\r\n"));
}

static void offer_auth(struct smtp_session *s)
{
    uint32_t mechanisms = session_mechanisms(s);
    if (!mechanisms)
        return;
    session_say_text(s, SLICE("250-AUTH"));
    for (uint32_t bit = 1; bit <= AUTH_EXTERNAL; bit <<= 1)
        if (mechanisms & bit)
            must(buf_printf(&s->out, " %s", sasl_mechanism_name(bit)) == STATUS_OK);
    session_say_text(s, SLICE("\r\n"));
}

/* RFC 4865 4: the longest time and the latest moment. */
static void offer_hold(struct smtp_session *s, const struct now *now)
{
    uint64_t max_ms = s->server->limits.hold_max_ms;
    char date[CLOCK_DATE_MAX];
    if (max_ms == 0)
        return;
    size_t len = clock_format_rfc3339(now->wall_ms + (int64_t)max_ms, date);
    must(len > 5); /* ".042Z" */
    offer(s, "FUTURERELEASE %" PRIu64 " %.*sZ", max_ms / 1000, (int)(len - 5), date);
}

static void offer_limits(struct smtp_session *s)
{
    uint32_t rcpts = session_recipients_max(s), mails = s->server->limits.mails_max;
    if (mails)
        offer(s, "LIMITS RCPTMAX=%u MAILMAX=%u", rcpts, mails);
    else
        offer(s, "LIMITS RCPTMAX=%u", rcpts);
}

/* What only mail that goes on has a use for. */
static void offer_delivery(struct smtp_session *s, const struct now *now)
{
    if (s->tls)
        offer(s, "REQUIRETLS");
    offer(s, "DELIVERBY %u", s->server->limits.deliver_by_min_s);
    offer_hold(s, now);
    offer(s, "MT-PRIORITY");
}

static void say_ehlo(struct smtp_session *s, const struct now *now)
{
    offer(s, "%.*s", SLICE_ARG(s->server->hostname));
    offer(s, "PIPELINING");
    offer(s, "SIZE %" PRIu64, session_size_max(s));
    if (s->service->tls == TLS_STARTTLS && !s->tls)
        offer(s, "STARTTLS");
    offer_auth(s);
    offer(s, "8BITMIME");
    offer(s, "SMTPUTF8");
    offer(s, "CHUNKING");
    offer(s, "BINARYMIME");
    offer(s, "DSN");
    if (!s->service->returns)
        offer_delivery(s, now);
    offer_limits(s);
    if (s->peer.may_xclient)
        offer(s, "XCLIENT NAME ADDR PORT PROTO HELO");
    session_say_text(s, SLICE("250 ENHANCEDSTATUSCODES\r\n"));
}

/* In the middle of a transaction it is an RSET too (P-7). */
enum smtp_state session_on_ehlo(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    if (!take_helo(s, c->argument))
        return session_refuse(s, REPLY_BAD_HELO);
    s->is_esmtp = true;
    say_ehlo(s, now);
    return SMTP_READY;
}

enum smtp_state session_on_helo(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    if (!take_helo(s, c->argument))
        return session_refuse(s, REPLY_BAD_HELO);
    s->is_esmtp = false;
    session_say_text(s, SLICE("250 "));
    session_say_text(s, s->server->hostname);
    session_say_text(s, SLICE("\r\n"));
    return SMTP_READY;
}

/* --- STARTTLS -------------------------------------------------------------------------------- */

enum smtp_state session_on_starttls(struct smtp_session *s, const struct smtp_command *c,
                                    const struct now *now)
{
    if (s->service->tls == TLS_OFF)
        return session_refuse(s, REPLY_NOT_IMPLEMENTED);
    if (s->tls)
        return session_refuse(s, REPLY_TLS_TWICE); /* P-122 */
    session_say(s, REPLY_START_TLS);
    return SMTP_TLS;
}

void smtp_session_secured(struct smtp_session *s, const struct smtp_tls *tls, const struct now *now)
{
    must(s->state == SMTP_TLS && !s->tls);
    session_forget(s); /* P-124 */
    s->tls = tls;
    s->last_progress_ms = now->mono_ms;
    if (s->service->tls == TLS_IMPLICIT && s->peer.is_refused) {
        session_say(s, REPLY_NOT_TRUSTED);
        session_enter(s, SMTP_REFUSED);
        return;
    }
    if (s->service->tls == TLS_IMPLICIT)
        session_greet(s);
    session_enter(s, SMTP_START);
}

/* --- XCLIENT --------------------------------------------------------------------------------- */

/* "192.0.2.1" or "IPV6:2001:db8::1", as the message's client is written. */
static bool read_xclient_address(struct slice text, char out[XCLIENT_ADDRESS_MAX])
{
    struct slice tag = SLICE("IPV6:");
    bool is_v6 = slice_eq_nocase(slice_head(text, tag.len), tag);
    char literal[XCLIENT_ADDRESS_MAX + 2];
    struct slice bare = is_v6 ? slice_skip(text, tag.len) : text;
    size_t len = 0;
    if (bare.len + 8 > XCLIENT_ADDRESS_MAX)
        return false;
    literal[len++] = '[';
    if (is_v6) {
        memcpy(literal + len, "IPv6:", 5);
        len += 5;
    }
    memcpy(literal + len, bare.ptr, bare.len);
    len += bare.len;
    literal[len++] = ']';
    if (!address_literal_is_valid(slice_of(literal, len)))
        return false;
    memcpy(out, literal + 1, len - 2);
    out[len - 2] = '\0';
    return true;
}

static bool is_unavailable(struct slice value)
{
    return slice_eq_nocase(value, SLICE("[UNAVAILABLE]")) ||
           slice_eq_nocase(value, SLICE("[TEMPUNAVAIL]"));
}

/* What one XCLIENT says. */
struct attributes {
    char address[XCLIENT_ADDRESS_MAX]; /* "": none was said */
    bool is_hidden;                    /* the proxy does not know it */
};

static bool take_address(struct slice value, struct attributes *a)
{
    a->is_hidden = is_unavailable(value);
    return a->is_hidden || read_xclient_address(value, a->address);
}

/* One NAME=value; false: it is none that we know. */
static bool take_attribute(struct slice word, struct attributes *a)
{
    static const char *const ignored[] = { "NAME", "PORT", "PROTO", "HELO" };
    char value[XCLIENT_VALUE_MAX];
    size_t eq = slice_find(word, '='), len;
    struct slice name = slice_head(word, eq), text = slice_skip(word, eq + 1);
    if (text.len == 0 || text.len > sizeof value || !smtp_xtext_decode(text, value, &len))
        return false;
    if (slice_eq_nocase(name, SLICE("ADDR")))
        return take_address(slice_of(value, len), a);
    for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
        if (slice_eq_nocase(name, slice_str(ignored[i])))
            return true;
    return false;
}

static bool take_attributes(struct slice words, struct attributes *a)
{
    while (words.len > 0) {
        size_t end = slice_find(words, ' ');
        if (!take_attribute(slice_head(words, end), a))
            return false;
        words = slice_skip(words, end < words.len ? end + 1 : end);
    }
    return true;
}

/* Whom nobody knows is trusted as an address outside of all networks is: that of the proxy must not
 * speak for it. */
static void become(struct smtp_session *s, const struct attributes *a)
{
    const struct smtp_service *service = s->service;
    struct slice client = a->address[0] ? slice_str(a->address) : s->peer.client;
    char *copy = mem_alloc(client.len + 1);
    memcpy(copy, client.ptr, client.len);
    copy[client.len] = '\0';
    free(s->xclient);
    s->xclient = copy;
    s->peer.client = slice_of(copy, client.len);
    if (a->is_hidden)
        service->judge(service->judge_ctx, SLICE("unavailable"), &s->peer);
    else if (a->address[0])
        service->judge(service->judge_ctx, s->peer.client, &s->peer);
}

enum smtp_state session_on_xclient(struct smtp_session *s, const struct smtp_command *c,
                                   const struct now *now)
{
    struct attributes a = { .is_hidden = false };
    if (!s->peer.may_xclient || !s->service->judge)
        return session_refuse(s, REPLY_XCLIENT_DENIED);
    if (c->argument.len == 0 || !take_attributes(c->argument, &a))
        return session_refuse(s, REPLY_BAD_ARGUMENT);
    become(s, &a);
    session_forget(s);
    if (s->peer.is_refused) {
        session_say(s, REPLY_NOT_TRUSTED);
        return SMTP_REFUSED;
    }
    session_greet(s);
    return SMTP_START;
}
