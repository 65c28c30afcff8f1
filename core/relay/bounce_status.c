/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce_status - the part of a bounce that programs read: the fields of RFC 3464, with UTF-8
 * addresses as RFC 6533 has them.
 *
 * Envelope id and original recipient are what the sender gave with ENVID and ORCPT, decoded from
 * xtext; what does not decode, in a record that was not written by us, is left out.
 */
#include "core/base/must.h"
#include "core/relay/bounce_inside.h"
#include "core/smtp/command.h"
#include "core/smtp/idn.h"

#define XTEXT_MAX 500 /* octets of ORCPT, RFC 3461 4.2 */

/* --- what there is to say -------------------------------------------------------------------- */

/* One to three digits from *s on, which moves behind them. */
static bool skip_number(const char **s)
{
    size_t digits = strspn(*s, "0123456789");
    *s += digits;
    return digits >= 1 && digits <= 3;
}

/* "5.d.d", RFC 3463 2. */
static bool is_status_of(char class, const char *s)
{
    if (s[0] != class || s[1] != '.')
        return false;
    s += 2;
    return skip_number(&s) && *s++ == '.' && skip_number(&s) && *s == '\0';
}

static const char *enhanced_or(const struct rcpt_outcome *o, const char *other)
{
    return is_status_of(other[0], o->enhanced) ? o->enhanced : other;
}

static bool is_time_over(const struct bounce_writer *w)
{
    const struct message *m = w->d->message;
    return m->deliver_by_ms > 0 && w->now->wall_ms >= m->deliver_by_ms;
}

static const char *failed_status(const struct bounce_writer *w, uint32_t k)
{
    const struct rcpt_outcome *o = bounce_outcome(w, k);
    if (!bounce_has_expired(w, k))
        return enhanced_or(o, w->rcpts[k].is_given_up ? "4.0.0" : "5.0.0");
    bool must_be_in_time = w->d->message->flags & MESSAGE_BY_RETURN;
    return must_be_in_time && is_time_over(w) ? "5.4.7" : "4.4.7"; /* P-68, P-219 */
}

static const char *status_of(const struct bounce_writer *w, uint32_t k)
{
    const struct rcpt_outcome *o = bounce_outcome(w, k);
    switch (w->rcpts[k].action) {
    case REPORT_RELAYED: return enhanced_or(o, "2.0.0");
    case REPORT_DELAYED: return is_time_over(w) ? "4.4.7" : enhanced_or(o, "4.0.0");
    case REPORT_FAILED:
    case REPORT_NONE: break;
    }
    return failed_status(w, k);
}

/* Only the words of a peer are an SMTP diagnostic, and only they have a remote host. */
static bool is_of_peer(const struct rcpt_outcome *o)
{
    return o->stage >= OUTCOME_GREETING && o->stage <= OUTCOME_DOT;
}

/* --- fields ---------------------------------------------------------------------------------- */

/* False: it is no xtext of a bearable length; nothing was written. */
static bool put_xtext_field(struct bounce_writer *w, const char *name, struct slice xtext)
{
    char text[XTEXT_MAX];
    size_t len;
    if (xtext.len > sizeof text || !smtp_xtext_decode(xtext, text, &len))
        return false;
    bounce_put(w, slice_str(name));
    bounce_put_words(w, slice_of(text, len), "\r\n\t");
    return true;
}

/* "rfc822;bob+40example.org" (RFC 3461 4.2). */
static void put_original_recipient(struct bounce_writer *w, struct slice orcpt)
{
    size_t semicolon = slice_find(orcpt, ';');
    char name[64];
    if (semicolon == 0 || semicolon == orcpt.len || semicolon > 20)
        return;
    for (size_t i = 0; i < semicolon; i++) /* a word of the grammar, whatever a record says */
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-",
                    orcpt.ptr[i]))
            return;
    snprintf(name, sizeof name, "Original-Recipient: %.*s; ",
             SLICE_ARG(slice_head(orcpt, semicolon)));
    if (put_xtext_field(w, name, slice_skip(orcpt, semicolon + 1)))
        bounce_put(w, SLICE("\r\n"));
}

static void put_final_recipient(struct bounce_writer *w, struct slice address)
{
    bounce_putf(w, "Final-Recipient: %s; ", idn_is_needed(address) ? "utf-8" : "rfc822");
    bounce_put_address(w, address);
    bounce_put(w, SLICE("\r\n"));
}

static void put_remote_mta(struct bounce_writer *w, const struct rcpt_outcome *o)
{
    if (w->ctx->remote_mta.len == 0 || o->stage == OUTCOME_LOCAL || o->stage == OUTCOME_DNS)
        return;
    bounce_put(w, SLICE("Remote-MTA: dns; "));
    bounce_put_words(w, w->ctx->remote_mta, "");
    bounce_put(w, SLICE("\r\n"));
}

/* RFC 3464 2.3. */
static void write_rcpt(struct bounce_writer *w, uint32_t k)
{
    static const char *const actions[] = {
        [REPORT_FAILED] = "failed", [REPORT_DELAYED] = "delayed", [REPORT_RELAYED] = "relayed"
    };
    const struct rcpt_outcome *o = bounce_outcome(w, k);
    bounce_put(w, SLICE("\r\n"));
    put_original_recipient(w, bounce_rcpt(w, k)->orcpt);
    put_final_recipient(w, bounce_rcpt(w, k)->address);
    bounce_putf(w, "Action: %s\r\nStatus: %s\r\n", actions[w->rcpts[k].action], status_of(w, k));
    put_remote_mta(w, o);
    bounce_putf(w, "Diagnostic-Code: %s; ", is_of_peer(o) ? "smtp" : "x-kilat");
    bounce_put_reply(w, o, "\r\n\t");
    bounce_put(w, SLICE("\r\n"));
    if (w->rcpts[k].action == REPORT_DELAYED) {
        bounce_put(w, SLICE("Will-Retry-Until: "));
        bounce_put_date(w, w->d->expires_ms);
        bounce_put(w, SLICE("\r\n"));
    }
}

/* RFC 3464 2.2. */
static void write_message(struct bounce_writer *w)
{
    const struct message *m = w->d->message;
    if (m->envid.len > 0 && put_xtext_field(w, "Original-Envelope-Id: ", m->envid))
        bounce_put(w, SLICE("\r\n"));
    bounce_putf(w, "Reporting-MTA: dns; %.*s\r\nArrival-Date: ", SLICE_ARG(w->ctx->hostname));
    bounce_put_date(w, m->accepted_ms);
    bounce_put(w, SLICE("\r\n"));
}

void bounce_write_status(struct bounce_writer *w)
{
    bounce_putf(w, "--%s\r\nContent-Type: message/%sdelivery-status\r\n%s\r\n", w->boundary,
                w->is_global ? "global-" : "",
                w->is_global ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    write_message(w);
    for (uint32_t k = 0; k < w->rcpt_count; k++)
        write_rcpt(w, k);
}
