/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of a message: DATA, or BDAT in chunks (RFC 3030), and the queue's verdict.
 *
 * The octets of a chunk are taken whatever is wrong with it: refused, misplaced or too many, they
 * are read and dropped before its reply, so that nothing inside is ever taken for a command (P-99,
 * P-100). Only a chunk of unknown length ends the session (P-101). After the first fault all later
 * chunks of the transaction get the same answer (P-107).
 */
#include "core/base/must.h"
#include "core/smtp/content.h"
#include "core/smtp/queue_id.h"
#include "core/smtp/session_private.h"
#include <inttypes.h>
#include <stdio.h>

/* --- what DATA and BDAT share ------------------------------------------------------------------
 */

static struct smtp_content_policy policy_of(const struct smtp_session *s)
{
    const struct account *a = s->account;
    const struct config_tenant *t = s->tenant;
    struct smtp_content_policy policy = {
        .is_esmtp = s->is_esmtp,
        .is_authenticated = a != NULL,
        .is_binary = s->message->flags & MESSAGE_BINARY,
        .is_utf8 = s->message->flags & MESSAGE_UTF8,
        .tls = s->tls,
        .size_max = session_size_max(s),
        .lane_best = t ? t->lane_best : LANE_URGENT,
        .lists_are_bulk = t && t->lists_are_bulk && s->message->priority == 0,
        .idempotency = t ? t->idempotency : IDEMPOTENCY_OFF,
        .tenant = t ? slice_str(t->name) : SLICE_NONE,
        .is_signed = s->server->signs,
    };
    if (a && a->senders.count > 0) {
        policy.senders = a->senders.patterns;
        policy.sender_count = a->senders.count;
    } else if (t && t->sender_count > 0) {
        policy.senders = t->senders;
        policy.sender_count = t->sender_count;
    } else if (a) {
        policy.own_name = slice_str(a->name);
    }
    return policy;
}

static void begin_content(struct smtp_session *s, const struct now *now)
{
    struct smtp_content_policy policy = policy_of(s);
    if (s->is_returned)
        policy.reader = s->message->returned = returned_reader_new();
    queue_id_make(s->message->id, now->wall_ms, s->server->entropy);
    s->content = smtp_content_new(s->server, s->message, &policy, now);
}

/* Whatever was wrong with the content is said now (P-57, P-83). */
static enum smtp_state end_content(struct smtp_session *s, const struct now *now)
{
    enum reply_id why = smtp_content_finish(s->content, now);
    smtp_content_free(s->content);
    s->content = NULL;
    if (why == REPLY_OK)
        return SMTP_COMMIT;
    session_say(s, why);
    return SMTP_READY;
}

/* --- DATA ------------------------------------------------------------------------------------ */

enum smtp_state session_on_data(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    if (s->message->flags & MESSAGE_BINARY)
        return session_refuse(s, REPLY_NEED_BDAT); /* P-106 */
    begin_content(s, now);
    session_say(s, REPLY_START_MAIL);
    return SMTP_DATA;
}

size_t session_take_content(struct smtp_session *s, struct slice in, const struct now *now)
{
    size_t used;
    s->last_progress_ms = now->mono_ms;
    if (smtp_content_feed(s->content, in, &used) == DOT_END)
        session_enter(s, end_content(s, now));
    return used;
}

/* --- BDAT ------------------------------------------------------------------------------------ */

/* 1*DIGIT [SP "LAST"] (P-101, P-104). */
static bool read_chunk(struct slice argument, uint64_t *octets, bool *is_last)
{
    size_t end = slice_find(argument, ' ');
    struct slice rest = slice_skip(argument, end);
    while (rest.len > 0 && rest.ptr[0] == ' ')
        rest = slice_skip(rest, 1);
    *is_last = slice_eq_nocase(rest, SLICE("LAST"));
    return (rest.len == 0 || *is_last) && smtp_size_parse(slice_head(argument, end), octets) &&
           *octets < UINT64_MAX / 2;
}

/* REPLY_OK, or why the chunk is refused. */
static enum reply_id check_chunk(const struct smtp_session *s)
{
    uint64_t max = session_size_max(s);
    if (s->chunk_fault != REPLY_OK)
        return (enum reply_id)s->chunk_fault;
    return max && s->chunk_sum > max ? REPLY_TOO_BIG : REPLY_OK; /* P-102 */
}

static enum smtp_state end_chunk(struct smtp_session *s, const struct now *now)
{
    char text[48];
    if (s->chunk_is_misplaced) {
        s->chunk_is_misplaced = false;
        return session_refuse(s, (enum reply_id)s->chunk_fault);
    }
    if (s->chunk_fault != REPLY_OK) {
        session_say(s, (enum reply_id)s->chunk_fault);
        return s->chunk_is_last ? SMTP_READY : SMTP_BDAT;
    }
    if (s->chunk_is_last)
        return end_content(s, now);
    int len = snprintf(text, sizeof text, "%" PRIu32 " octets received", s->chunk_size);
    session_say_with(s, REPLY_CHUNK_OK, slice_of(text, (size_t)len));
    return SMTP_BDAT;
}

/* No transaction, or none that has come to its content: the octets come all the same (P-99). */
static enum smtp_state misplace_chunk(struct smtp_session *s, const struct now *now)
{
    s->chunk_is_misplaced = true;
    s->chunk_fault = s->state == SMTP_START ? REPLY_NEED_EHLO : REPLY_NEED_RCPT;
    return s->chunk_left > 0 ? s->state : end_chunk(s, now);
}

enum smtp_state session_on_bdat(struct smtp_session *s, const struct smtp_command *c,
                                const struct now *now)
{
    uint64_t octets;
    bool is_last;
    if (!read_chunk(c->argument, &octets, &is_last)) {
        session_say(s, REPLY_BAD_CHUNK);
        return session_hang_up(s, REPLY_CHUNK_LOST, "bad-chunk");
    }
    s->chunk_left = octets;
    s->chunk_size = octets < UINT32_MAX ? (uint32_t)octets : UINT32_MAX;
    s->chunk_is_last = is_last;
    if (!session_is_in(s, SESSION_IN(RCPT) | SESSION_IN(BDAT)))
        return misplace_chunk(s, now);
    if (s->state == SMTP_RCPT) {
        s->chunk_sum = 0;
        s->chunk_fault = REPLY_OK;
        begin_content(s, now);
    }
    s->chunk_sum += octets;
    s->chunk_fault = check_chunk(s);
    return s->chunk_left > 0 ? SMTP_BDAT : end_chunk(s, now);
}

size_t session_take_chunk(struct smtp_session *s, struct slice in, const struct now *now)
{
    struct slice part = in.len < s->chunk_left ? in : slice_head(in, (size_t)s->chunk_left);
    s->last_progress_ms = now->mono_ms;
    s->chunk_left -= part.len;
    if (!s->chunk_is_misplaced && s->chunk_fault == REPLY_OK)
        smtp_content_feed_chunk(s->content, part);
    if (s->chunk_left == 0)
        session_enter(s, end_chunk(s, now));
    return part.len;
}

/* --- the queue ------------------------------------------------------------------------------- */

bool smtp_session_content_is_body(const struct smtp_session *s)
{
    return s->content && smtp_content_is_body(s->content);
}

struct message *smtp_session_take_message(struct smtp_session *s)
{
    must(s->wait == SMTP_WAIT_COMMIT && s->message);
    struct message *m = s->message;
    s->message = NULL;
    s->rcpts = (struct rcpt_set){ 0 };
    return m;
}

static void say_queued(struct smtp_session *s, const char *id)
{
    static const char queued[] = "Ok: queued as ";
    char text[sizeof queued + QUEUE_ID_LEN];
    size_t len = strlen(id);
    must(len <= QUEUE_ID_LEN);
    memcpy(text, queued, sizeof queued - 1);
    memcpy(text + sizeof queued - 1, id, len);
    session_say_with(s, REPLY_OK, slice_of(text, sizeof queued - 1 + len));
}

void smtp_session_verdict(struct smtp_session *s, enum smtp_verdict verdict, const char *id,
                          const struct now *now)
{
    must(s->state == SMTP_COMMIT && !s->message);
    switch (verdict) {
    case SMTP_QUEUED: say_queued(s, id); break;
    case SMTP_NOT_QUEUED: session_say(s, REPLY_QUEUE_TROUBLE); break;
    case SMTP_QUEUE_FULL: session_say(s, REPLY_NO_ROOM); break;
    case SMTP_KEY_CONFLICT: session_say(s, REPLY_KEY_CONFLICT); break;
    case SMTP_RETURNED: session_say(s, REPLY_RETURNED); break;
    case SMTP_NOT_SIGNED: session_say(s, REPLY_NOT_SIGNED); break;
    }
    s->last_progress_ms = now->mono_ms;
    session_enter(s, SMTP_READY);
}
