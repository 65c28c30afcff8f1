/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MAIL and RCPT: who may send as whom (P-31, P-34), what the parameters ask for, and who may be
 * written to.
 *
 * Senders: an account's own patterns decide, else its tenant's, else its name, when that is an
 * address. Clients that need no account have their listener's tenant's patterns, or none.
 *
 * A recipient is added to the message before it is admitted, and taken off again when it is not:
 * in between the session takes no input, so there is only ever one of them.
 */
#include "core/base/must.h"
#include "core/smtp/params.h"
#include "core/smtp/return_path.h"
#include "core/smtp/session_private.h"

#define TRACE_SIZE    512 /* octets: about what the fields that we add take */
#define EXPECTED_SIZE (64 * 1024)
#define URGENT_FROM   4  /* MT-PRIORITY of the urgent lane, and better */
#define BULK_UP_TO    -4 /* of the bulk lane, and worse */

/* --- parameters ------------------------------------------------------------------------------ */

/* A client that said HELO was offered none (P-6). */
static uint32_t offered_params(const struct smtp_session *s)
{
    uint32_t all = 0;
    if (!s->is_esmtp)
        return 0;
#define OFFER(id) (1u << SMTP_PARAM_##id)
    all = OFFER(SIZE) | OFFER(BODY) | OFFER(RET) | OFFER(ENVID) | OFFER(NOTIFY) | OFFER(ORCPT) |
          OFFER(SMTPUTF8) | OFFER(BY) | OFFER(MT_PRIORITY);
    if (s->service->returns)
        return all & ~(OFFER(BY) | OFFER(MT_PRIORITY));
    if (s->service->auth != AUTH_OFF)
        all |= OFFER(AUTH);
    if (s->tls)
        all |= OFFER(REQUIRETLS);
    if (s->server->limits.hold_max_ms)
        all |= OFFER(HOLDFOR) | OFFER(HOLDUNTIL);
#undef OFFER
    return all;
}

static enum reply_id reply_to_params(enum params_result result)
{
    return result == PARAMS_UNKNOWN     ? REPLY_UNKNOWN_PARAM
           : result == PARAMS_BAD_VALUE ? REPLY_BAD_PARAM_VALUE
                                        : REPLY_OK;
}

/* Resolves a time into a moment; REPLY_OK, or the refusal (P-67, P-68). */
static enum reply_id read_times(const struct smtp_session *s, struct mail_params *p,
                                const struct now *now)
{
    int64_t latest = now->wall_ms + (int64_t)s->server->limits.hold_max_ms;
    if (p->has_hold_for)
        p->hold_until_ms = now->wall_ms + (int64_t)p->hold_for_s * 1000;
    if ((p->has_hold_for || p->has_hold_until) && p->hold_until_ms > latest)
        return REPLY_HOLD_TOO_LONG;
    if (p->has_by && p->by_return && p->by_s < (int64_t)s->server->limits.deliver_by_min_s)
        return REPLY_BAD_PARAM_VALUE;
    if (p->has_by && p->by_return && now->wall_ms + (int64_t)p->by_s * 1000 <= p->hold_until_ms)
        return REPLY_HOLD_TOO_LONG; /* it would be returned on the day it is let go */
    return REPLY_OK;
}

/* --- MAIL ------------------------------------------------------------------------------------ */

/* REPLY_OK, or why nobody may send now. */
static enum reply_id check_client(const struct smtp_session *s)
{
    const struct smtp_service *service = s->service;
    if (service->returns)
        return REPLY_OK; /* where it may go is all that counts (session_on_rcpt) */
    bool needs_account =
        service->auth == AUTH_REQUIRED || (service->auth == AUTH_OPTIONAL && !s->peer.is_trusted);
    if (!needs_account || s->account)
        return REPLY_OK;
    return session_auth_is_offered(s) ? REPLY_NEED_AUTH : REPLY_NEED_TLS; /* P-31, P-126 */
}

/* Nobody but an account has a name of its own. */
static bool may_send_as(const struct smtp_session *s, struct slice mailbox)
{
    const struct account *a = s->account;
    if (a && a->senders.count > 0)
        return sender_list_allows(a->senders.patterns, a->senders.count, mailbox);
    if (s->tenant && s->tenant->sender_count > 0)
        return sender_list_allows(s->tenant->senders, s->tenant->sender_count, mailbox);
    return !a || sender_is_own(slice_str(a->name), mailbox);
}

static enum reply_id check_sender(const struct smtp_session *s, const struct address *path)
{
    if (s->service->returns)
        return REPLY_OK;
    if (path->mailbox.len == 0)
        return s->tenant && !s->tenant->null_sender ? REPLY_NULL_SENDER_DENIED : REPLY_OK;
    return may_send_as(s, path->mailbox) ? REPLY_OK : REPLY_SENDER_DENIED;
}

uint64_t session_size_max(const struct smtp_session *s)
{
    return s->tenant && s->tenant->message_size_max ? s->tenant->message_size_max
                                                    : s->server->limits.message_size_max;
}

/* The lane that was asked for, no better than the tenant may; else the user's own, or the
 * listener's. A field of the header may ask once more (X-Kilat-Lane). */
static enum mail_lane lane_of(const struct smtp_session *s, const struct mail_params *p)
{
    enum mail_lane lane = s->account && s->account->has_lane ? s->account->lane : s->service->lane;
    if (p->has_priority)
        lane = p->priority >= URGENT_FROM  ? LANE_URGENT
               : p->priority <= BULK_UP_TO ? LANE_BULK
                                           : LANE_NORMAL;
    return s->tenant && lane < s->tenant->lane_best ? s->tenant->lane_best : lane;
}

static uint32_t flags_of(const struct mail_params *p)
{
    uint32_t flags = 0;
    if (p->body != SMTP_BODY_7BIT)
        flags |= MESSAGE_8BIT;
    if (p->body == SMTP_BODY_BINARYMIME)
        flags |= MESSAGE_BINARY;
    if (p->is_utf8)
        flags |= MESSAGE_UTF8;
    if (p->requires_tls)
        flags |= MESSAGE_REQUIRE_TLS;
    if (p->by_return)
        flags |= MESSAGE_BY_RETURN;
    if (p->by_trace)
        flags |= MESSAGE_BY_TRACE;
    return flags;
}

static struct message *new_message(struct smtp_session *s, struct slice sender,
                                   const struct mail_params *p, const struct now *now)
{
    struct message *m = message_new(s->server->budget);
    m->sender = arena_copy(&m->arena, sender);
    m->helo = arena_copy(&m->arena, slice_str(s->helo));
    m->client = arena_copy(&m->arena, s->peer.client);
    m->lane = lane_letter(lane_of(s, p));
    m->flags |= flags_of(p);
    m->ret = p->ret;
    m->envid = arena_copy(&m->arena, p->envid);
    m->priority = p->priority;
    m->hold_until_ms = p->hold_until_ms;
    m->deliver_by_ms = p->has_by ? now->wall_ms + (int64_t)p->by_s * 1000 : 0;
    if (s->tenant)
        m->tenant = arena_copy(&m->arena, slice_str(s->tenant->name));
    if (s->account)
        m->user = arena_copy(&m->arena, slice_str(s->account->name));
    if (p->size > 0)
        chain_expect(&m->content, p->size < EXPECTED_SIZE ? p->size + TRACE_SIZE : EXPECTED_SIZE);
    return m;
}

/* RFC 6710 5.1: who asks for more than it may have is told so, and not refused (P-66). */
static void say_sender_ok(struct smtp_session *s, const struct mail_params *p)
{
    if (p->has_priority && s->tenant && p->priority >= URGENT_FROM &&
        s->tenant->lane_best != LANE_URGENT)
        session_say_with(s, REPLY_SENDER_OK, SLICE("Sender ok, X.3.6: priority was lowered"));
    else
        session_say(s, REPLY_SENDER_OK);
}

enum smtp_state session_on_mail(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    struct mail_params p;
    enum reply_id why = check_client(s);
    if (why != REPLY_OK)
        return session_refuse(s, why);
    why = reply_to_params(mail_params_read(c->params, offered_params(s), &p));
    if (why == REPLY_OK)
        why = read_times(s, &p, now);
    if (why != REPLY_OK)
        return session_refuse(s, why);
    if (c->path.is_utf8 && !p.is_utf8)
        return session_decline(s, REPLY_SENDER_NEEDS_UTF8); /* P-70 */
    why = check_sender(s, &c->path);
    if (why != REPLY_OK)
        return session_decline(s, why);
    if (session_size_max(s) && p.size > session_size_max(s))
        return session_decline(s, REPLY_TOO_BIG); /* P-56 */
    if (chain_budget_is_over(s->server->budget))
        return session_decline(s, REPLY_NO_ROOM);
    if (s->server->limits.mails_max && s->mails >= s->server->limits.mails_max)
        return session_hang_up(s, REPLY_TOO_MANY_MAILS, "mails-max"); /* P-73 */
    s->mails++;
    s->message = new_message(s, c->path.mailbox, &p, now);
    s->transaction_ms = now->mono_ms;
    say_sender_ok(s, &p);
    return SMTP_MAIL;
}

/* --- RCPT ------------------------------------------------------------------------------------ */

uint32_t session_recipients_max(const struct smtp_session *s)
{
    uint32_t most = s->server->limits.recipients_max;
    uint32_t tenant = s->tenant ? s->tenant->recipients_max : 0;
    if (s->service->returns)
        return 1; /* a report is about one delivery; whoever has more says it again (P-181) */
    return tenant && tenant < most ? tenant : most;
}

void smtp_session_get_admission(const struct smtp_session *s, struct smtp_admission *out)
{
    const struct account *a = s->account;
    const struct config_tenant *t = s->tenant;
    const struct message *m = s->message;
    *out = (struct smtp_admission){
        .tenant = t,
        .user = a ? slice_str(a->name) : SLICE_NONE,
        .rcpt = m->rcpts[m->rcpt_count - 1].address,
    };
    if (!a || !t)
        return;
    out->user_per_minute =
        a->recipients_per_minute ? a->recipients_per_minute : t->user_recipients_per_minute;
    out->user_per_day = a->recipients_per_day ? a->recipients_per_day : t->user_recipients_per_day;
}

static bool needs_admission(const struct smtp_session *s)
{
    struct smtp_admission a;
    if (!s->tenant)
        return false;
    smtp_session_get_admission(s, &a);
    return a.tenant->suppression || a.tenant->recipients_per_minute ||
           a.tenant->recipients_per_day || a.user_per_minute || a.user_per_day;
}

static enum smtp_state accept_rcpt(struct smtp_session *s)
{
    rcpt_set_note_last(&s->rcpts, s->message);
    session_say(s, REPLY_RCPT_OK);
    return SMTP_RCPT;
}

/* Of a listener for bounces: REPLY_OK, or why this is no address that anything comes back to. */
static enum reply_id check_return_path(const struct smtp_session *s, const struct address *path)
{
    struct return_path known;
    if (!s->service->returns)
        return REPLY_OK;
    if (path->domain.len > 0 && !return_path_is_domain(s->service->cfg, path->domain))
        return REPLY_NOT_RETURNED;
    return return_path_is_postmaster(s->service->cfg, path->local) ||
                   return_path_is_complaints(s->service->cfg, path->local) ||
                   return_path_read(s->service->returns, path->local, &known)
               ? REPLY_OK
               : REPLY_NO_RETURN_PATH;
}

/* What is for postmaster goes on to whom the configuration names (P-36), and a stranger hears
 * nothing of what becomes of it: he may be somebody else (P-234). */
static void add_rcpt(struct smtp_session *s, const struct address *path,
                     const struct rcpt_params *p)
{
    struct address to = *path;
    bool is_sent_on =
        s->service->returns && return_path_is_postmaster(s->service->cfg, path->local);
    if (is_sent_on)
        must(address_parse_mailbox(slice_str(s->service->cfg->bounces.postmaster), &to) ==
             ADDRESS_OK);
    message_add_rcpt(s->message, to.mailbox, to.domain);
    if (is_sent_on)
        message_set_rcpt_dsn(s->message, DSN_NOTIFY_NEVER, SLICE_NONE);
    else
        message_set_rcpt_dsn(s->message, p->notify, p->orcpt);
    s->is_returned = s->service->returns && !is_sent_on;
}

/* Each recipient has a verdict of its own; the good ones stay (P-52, P-53). */
enum smtp_state session_on_rcpt(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    const struct address *path = &c->path;
    struct rcpt_params p;
    enum reply_id why = reply_to_params(rcpt_params_read(c->params, offered_params(s), &p));
    if (why != REPLY_OK)
        return session_refuse(s, why);
    if (path->is_utf8 && !(s->message->flags & MESSAGE_UTF8))
        return session_decline(s, REPLY_RCPT_NEEDS_UTF8);
    if (path->is_literal)
        return session_decline(s, REPLY_RCPT_LITERAL); /* P-48 */
    why = check_return_path(s, path);
    if (why != REPLY_OK)
        return session_decline(s, why);
    if (rcpt_set_contains(&s->rcpts, s->message, path->mailbox, path->domain)) {
        session_say(s, REPLY_RCPT_OK); /* P-54 */
        return SMTP_RCPT;
    }
    if (s->message->rcpt_count >= session_recipients_max(s))
        return session_decline(s, REPLY_TOO_MANY_RCPTS);
    add_rcpt(s, path, &p);
    if (!needs_admission(s))
        return accept_rcpt(s);
    session_enter_waiting(s, s->state, SMTP_WAIT_ADMIT);
    return s->state;
}

static void say_refusal(struct smtp_session *s, enum smtp_admit answer, struct slice reason)
{
    char text[256] = "Recipient is suppressed: ";
    size_t len = strlen(text);
    switch (answer) {
    case SMTP_ADMIT_OK: break;
    case SMTP_ADMIT_SUPPRESSED:
        if (reason.len == 0) {
            session_say(s, REPLY_SUPPRESSED);
            break;
        }
        reason = slice_head(reason, sizeof text - len);
        memcpy(text + len, reason.ptr, reason.len);
        session_say_with(s, REPLY_SUPPRESSED, slice_of(text, len + reason.len));
        break;
    case SMTP_ADMIT_RATE: session_say(s, REPLY_RATE_EXCEEDED); break;
    case SMTP_ADMIT_QUOTA: session_say(s, REPLY_QUOTA_EXCEEDED); break;
    case SMTP_ADMIT_DOWN: session_say(s, REPLY_ADMISSION_DOWN); break;
    }
}

void smtp_session_admitted(struct smtp_session *s, enum smtp_admit answer, struct slice reason,
                           const struct now *now)
{
    must(s->wait == SMTP_WAIT_ADMIT && s->message->rcpt_count > 0);
    s->last_progress_ms = now->mono_ms;
    if (answer == SMTP_ADMIT_OK) {
        session_enter(s, accept_rcpt(s));
        return;
    }
    s->message->rcpt_count--;
    say_refusal(s, answer, reason);
    session_enter(s, s->state);
}
