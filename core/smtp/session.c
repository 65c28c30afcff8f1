/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - the server side of SMTP (RFC 5321 and the extensions that EHLO names) for one client.
 *
 *              EHLO, HELO           MAIL            RCPT          DATA, BDAT
 *     START ------------> READY ----------> MAIL ---------> RCPT -----------> DATA, BDAT
 *       ^  ^              ^  ^ ^             | RSET, EHLO    | |              |     |
 *       |  | handshake    |  | +-------------+---------------+ +--<RCPT>--    |     | end of data
 *       |  +---- TLS <----+  +------------ refused behind the end ------------+     v
 *       |  STARTTLS       |  +------------ verdict of the queue ---------------- COMMIT
 *       |       AUTH <----+
 *       |  QUIT, a deadline, errors, a foreign protocol, shutdown
 *       +--> CLOSED <-- any state;    REFUSED (554 greeting) --QUIT--> CLOSED
 *
 * Bytes become lines, a line becomes a command (command.c), the command finds its row in rules[]:
 * in which states it is legal, whether it has an argument, who handles it. The handler answers and
 * returns the next state. A handler that refuses returns the state it found. enter() alone writes
 * s->state, what the session waits for with it, and lets the transaction go when it is over.
 *
 * A line ends at LF, and is obeyed only when that is CR LF; one ended by a bare LF is refused as a
 * whole, in every state (P-17). Content is never looked at as lines of commands: from DATA to the
 * end of data, and inside a chunk of BDAT, all octets are session_data.c's.
 *
 * Errors are counted when the client breaks the protocol (wrong order, unknown, bad syntax), not
 * when a recipient, a sender or a message is refused: one list of bad addresses must not cost the
 * good ones their mail (P-53). What that leaves open, the session timeout bounds.
 *
 * Deadlines start with progress, not with octets: a command line has command_timeout from its first
 * octet, a transaction and a session have theirs whatever happens in them (P-114).
 *
 * Memory: an idle session has its EHLO name and nothing else. A transaction has one message; its
 * envelope goes with the message's arena.
 *
 * To add a command: a row in rules[], a handler; a verb in command.h. To offer an extension: a line
 * in say_ehlo, its parameters in params.c and offered_params. To add a deadline: next_deadline.
 */
#include "core/smtp/session.h"
#include "core/base/must.h"
#include "core/smtp/content.h"
#include "core/smtp/session_private.h"
#include <openssl/mem.h>
#include <stdlib.h>

#define OUT_FIRST 256 /* octets: the replies to a pipelined transaction fit */

enum argument_rule {
    ARG_FREE,    /* the handler looks */
    ARG_NONE,    /* 501 when there is one (P-13) */
    ARG_NEEDED,  /* 501 when there is none */
    ARG_IGNORED, /* whatever it is, even octets that no command may have */
};

struct verb_rule {
    uint32_t legal_in; /* bits of states */
    enum argument_rule argument;
    enum reply_id misplaced; /* the reply where it is not legal; before EHLO it is NEED_EHLO */
    session_handler *handle;
};

static session_handler on_rset, on_noop, on_vrfy, on_help, on_quit, on_unknown, on_foreign,
    on_not_offered;

#define IN(state)   SESSION_IN(state)
#define COMMANDS    (IN(START) | IN(READY) | IN(MAIL) | IN(RCPT))
#define BETWEEN     (COMMANDS | IN(BDAT)) /* between chunks too (P-103) */
#define TRANSACTION (IN(MAIL) | IN(RCPT) | IN(DATA) | IN(BDAT) | IN(COMMIT))
#define EVERYWHERE  (BETWEEN | IN(REFUSED))

/* What is offered, then what is known and not offered (P-13, P-14). */
static const struct verb_rule rules[SMTP_VERB_COUNT] = {
    [SMTP_VERB_EHLO] = { BETWEEN, ARG_FREE, REPLY_OK, session_on_ehlo },
    [SMTP_VERB_HELO] = { BETWEEN, ARG_FREE, REPLY_OK, session_on_helo },
    [SMTP_VERB_STARTTLS] = { IN(START) | IN(READY), ARG_NONE, REPLY_NESTED, session_on_starttls },
    [SMTP_VERB_AUTH] = { IN(READY), ARG_FREE, REPLY_AUTH_MISPLACED, session_on_auth },
    [SMTP_VERB_MAIL] = { IN(READY), ARG_FREE, REPLY_NESTED_MAIL, session_on_mail },
    [SMTP_VERB_RCPT] = { IN(MAIL) | IN(RCPT), ARG_FREE, REPLY_NEED_MAIL, session_on_rcpt },
    [SMTP_VERB_DATA] = { IN(RCPT), ARG_NONE, REPLY_NEED_RCPT, session_on_data },
    [SMTP_VERB_BDAT] = { BETWEEN | IN(REFUSED), ARG_FREE, REPLY_OK, session_on_bdat },
    [SMTP_VERB_RSET] = { BETWEEN, ARG_NONE, REPLY_OK, on_rset },
    [SMTP_VERB_NOOP] = { BETWEEN, ARG_FREE, REPLY_OK, on_noop },
    [SMTP_VERB_VRFY] = { COMMANDS, ARG_NEEDED, REPLY_OK, on_vrfy },
    [SMTP_VERB_HELP] = { COMMANDS, ARG_FREE, REPLY_OK, on_help },
    [SMTP_VERB_QUIT] = { EVERYWHERE, ARG_NONE, REPLY_OK, on_quit },
    [SMTP_VERB_XCLIENT] = { IN(START) | IN(READY), ARG_FREE, REPLY_NESTED, session_on_xclient },
    [SMTP_VERB_UNKNOWN] = { COMMANDS, ARG_FREE, REPLY_OK, on_unknown },
    [SMTP_VERB_FOREIGN] = { EVERYWHERE, ARG_IGNORED, REPLY_OK, on_foreign },

    [SMTP_VERB_EXPN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_ETRN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_TURN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SEND] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SOML] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SAML] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
};

/* --- saying ---------------------------------------------------------------------------------- */

/* Input stops at SMTP_OUT_HIGH, and no command is answered by half as much again. */
void session_say_text(struct smtp_session *s, struct slice text)
{
    must(s->out.ptr || buf_reserve(&s->out, OUT_FIRST));
    must(buf_append(&s->out, text) == STATUS_OK);
}

static void count_reply(struct smtp_session *s, int code)
{
    if (code >= 500)
        metrics_add(s->server->metrics, METRIC_REPLIES_5XX_TOTAL, 1);
    else if (code >= 400)
        metrics_add(s->server->metrics, METRIC_REPLIES_4XX_TOTAL, 1);
}

void session_say(struct smtp_session *s, enum reply_id id)
{
    must(s->out.ptr || buf_reserve(&s->out, OUT_FIRST));
    must(reply_write(&s->out, id) == STATUS_OK);
    count_reply(s, reply_code(id));
}

void session_say_with(struct smtp_session *s, enum reply_id id, struct slice text)
{
    must(reply_write_text(&s->out, id, text) == STATUS_OK);
    count_reply(s, reply_code(id));
}

enum smtp_state session_hang_up(struct smtp_session *s, enum reply_id id, const char *reason)
{
    session_say(s, id);
    s->end_reason = s->state == SMTP_REFUSED ? "refused" : reason;
    return SMTP_CLOSED;
}

enum smtp_state session_decline(struct smtp_session *s, enum reply_id why)
{
    session_say(s, why);
    return s->state;
}

enum smtp_state session_refuse(struct smtp_session *s, enum reply_id why)
{
    if (++s->errors > s->server->limits.errors_max)
        return session_hang_up(s, REPLY_TOO_MANY_ERRORS, "errors");
    return session_decline(s, s->state == SMTP_REFUSED ? REPLY_REFUSED_SESSION : why);
}

/* --- states ---------------------------------------------------------------------------------- */

static void end_transaction(struct smtp_session *s)
{
    smtp_content_free(s->content);
    s->content = NULL;
    message_unref(s->message);
    s->message = NULL;
    s->rcpts = (struct rcpt_set){ 0 };
}

void session_enter_waiting(struct smtp_session *s, enum smtp_state state, enum smtp_wait wait)
{
    s->state = state;
    s->wait = wait;
}

static enum smtp_wait wait_of(enum smtp_state state)
{
    switch (state) {
    case SMTP_CLOSED: return SMTP_WAIT_CLOSE;
    case SMTP_COMMIT: return SMTP_WAIT_COMMIT;
    case SMTP_TLS: return SMTP_WAIT_TLS;
    default: return SMTP_WAIT_INPUT;
    }
}

void session_enter(struct smtp_session *s, enum smtp_state next)
{
    if (next == SMTP_READY && s->server->is_draining)
        next = session_hang_up(s, REPLY_SHUTTING_DOWN, "shutdown");
    if (!(TRANSACTION >> next & 1) && s->message)
        end_transaction(s);
    session_enter_waiting(s, next, wait_of(next));
}

/* --- the rest -------------------------------------------------------------------------------- */

static enum smtp_state on_rset(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    session_say(s, REPLY_OK);
    return s->state == SMTP_START ? SMTP_START : SMTP_READY;
}

static enum smtp_state on_noop(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    session_say(s, REPLY_OK);
    return s->state;
}

/* Confirms nothing, so nothing can be harvested (P-12). */
static enum smtp_state on_vrfy(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    session_say(s, REPLY_VRFY_MAYBE);
    return s->state;
}

static enum smtp_state on_help(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    session_say(s, REPLY_HELP);
    return s->state;
}

static enum smtp_state on_quit(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    return session_hang_up(s, REPLY_BYE, "quit");
}

static enum smtp_state on_unknown(struct smtp_session *s, const struct smtp_command *c,
                                  const struct now *now)
{
    return session_refuse(s, REPLY_UNKNOWN_COMMAND);
}

/* P-25: whoever makes a browser speak to us must not get a second line obeyed. */
static enum smtp_state on_foreign(struct smtp_session *s, const struct smtp_command *c,
                                  const struct now *now)
{
    return session_hang_up(s, REPLY_NOT_SMTP, "foreign-protocol");
}

static enum smtp_state on_not_offered(struct smtp_session *s, const struct smtp_command *c,
                                      const struct now *now)
{
    return session_refuse(s, REPLY_NOT_IMPLEMENTED);
}

/* --- from octets to commands ----------------------------------------------------------------- */

static enum reply_id bad_address_reply(const struct smtp_command *c)
{
    bool is_rcpt = c->verb == SMTP_VERB_RCPT;
    if (c->address_error == ADDRESS_NOT_ASCII)
        return is_rcpt ? REPLY_RCPT_NEEDS_UTF8 : REPLY_SENDER_NEEDS_UTF8;
    if (c->address_error == ADDRESS_NO_DOMAIN && is_rcpt)
        return REPLY_RCPT_NO_DOMAIN;
    return is_rcpt ? REPLY_BAD_RCPT : REPLY_BAD_SENDER;
}

static enum smtp_state refuse_faulty(struct smtp_session *s, const struct smtp_command *c,
                                     enum command_error error)
{
    switch (error) {
    case COMMAND_BAD_OCTET: return session_refuse(s, REPLY_BAD_OCTET);
    case COMMAND_BAD_ADDRESS: return session_decline(s, bad_address_reply(c));
    case COMMAND_BAD_PARAM: return session_refuse(s, REPLY_BAD_PARAM_VALUE);
    case COMMAND_DUPLICATE_PARAM: return session_refuse(s, REPLY_DUPLICATE_PARAM);
    case COMMAND_BAD_SYNTAX:
    case COMMAND_NO_SPACE:
    case COMMAND_OK: break;
    }
    return session_refuse(s, REPLY_BAD_ARGUMENT);
}

static enum reply_id misplaced(const struct smtp_session *s, const struct verb_rule *rule)
{
    return s->state == SMTP_START  ? REPLY_NEED_EHLO
           : s->state == SMTP_BDAT ? REPLY_AFTER_BDAT
                                   : rule->misplaced;
}

/* Order first, then syntax, then the handler. Returns the next state. */
static enum smtp_state obey(struct smtp_session *s, struct slice line, const struct now *now)
{
    struct smtp_command c;
    enum command_error error = smtp_command_parse(line, &c);
    const struct verb_rule *rule = &rules[c.verb];
    metrics_add(s->server->metrics, METRIC_COMMANDS_TOTAL, 1);
    if (!session_is_in(s, rule->legal_in))
        return session_refuse(s, misplaced(s, rule));
    if (error != COMMAND_OK && rule->argument != ARG_IGNORED)
        return refuse_faulty(s, &c, error);
    if (rule->argument == ARG_NONE && c.argument.len > 0)
        return session_refuse(s, REPLY_NO_ARGUMENT);
    if (rule->argument == ARG_NEEDED && c.argument.len == 0)
        return session_refuse(s, REPLY_BAD_ARGUMENT);
    return rule->handle(s, &c, now);
}

/* What waits for an answer has been entered already. */
static void obey_and_enter(struct smtp_session *s, struct slice line, const struct now *now)
{
    enum smtp_state next = obey(s, line, now);
    bool is_waiting = s->wait == SMTP_WAIT_AUTH || s->wait == SMTP_WAIT_ADMIT;
    if (!is_waiting)
        session_enter(s, next);
}

/* A line of an authentication holds a secret. */
static void clear_line(struct smtp_session *s)
{
    if (s->line.ptr)
        OPENSSL_cleanse(s->line.ptr, s->line.len);
    buf_clear(&s->line);
}

/* A line without its LF. */
static void end_line(struct smtp_session *s, struct slice line, const struct now *now)
{
    bool has_cr = line.len > 0 && line.ptr[line.len - 1] == '\r';
    s->last_progress_ms = now->mono_ms;
    if (!has_cr && s->state == SMTP_AUTH)
        session_fail_auth(s, REPLY_BARE_LF); /* the client takes it for the end of the exchange */
    else if (!has_cr)
        session_enter(s, session_refuse(s, REPLY_BARE_LF));
    else if (s->state == SMTP_AUTH)
        session_take_response(s, slice_head(line, line.len - 1), now);
    else
        obey_and_enter(s, slice_head(line, line.len - 1), now);
}

/* Told by its first octets, wherever the line was cut on its way. */
static bool is_auth_line(const struct smtp_session *s, struct slice part)
{
    char start[sizeof "AUTH " - 1];
    struct slice old = slice_head(buf_slice(&s->line), sizeof start);
    struct slice rest = slice_head(part, sizeof start - old.len);
    if (s->state == SMTP_AUTH)
        return true;
    if (old.len > 0)
        memcpy(start, old.ptr, old.len);
    if (rest.len > 0)
        memcpy(start + old.len, rest.ptr, rest.len);
    return slice_eq_nocase(slice_of(start, old.len + rest.len), SLICE("AUTH "));
}

/* More octets before its LF than a line may have: there may be more of an authentication's (P-20).
 */
static bool is_too_long(const struct smtp_session *s, struct slice part)
{
    size_t len = s->line.len + part.len;
    return len > SMTP_LINE_MAX &&
           len > (is_auth_line(s, part) ? SMTP_LINE_MAX_AUTH : SMTP_LINE_MAX);
}

/* One reply when the limit is passed, and silence to the next LF (P-21). */
static void end_overlong(struct smtp_session *s, struct slice part, bool is_whole)
{
    enum reply_id why = is_auth_line(s, part) ? REPLY_AUTH_TOO_LONG : REPLY_LINE_TOO_LONG;
    clear_line(s);
    buf_done(&s->line);
    s->line_is_overlong = !is_whole;
    if (s->state == SMTP_AUTH)
        session_fail_auth(s, why); /* P-143 */
    else
        session_enter(s, session_refuse(s, why));
}

/* Takes octets up to the end of one line. A line that lies whole in the input is obeyed where it
 * lies. */
static size_t take_line(struct smtp_session *s, struct slice in, const struct now *now)
{
    struct slice part = slice_head(in, slice_find(in, '\n'));
    bool is_whole = part.len < in.len;
    if (s->line_is_overlong) {
        s->line_is_overlong = !is_whole;
        return part.len + is_whole;
    }
    if (s->line.len == 0)
        s->last_progress_ms = now->mono_ms;
    if (is_too_long(s, part)) {
        end_overlong(s, part, is_whole);
    } else if (is_whole && s->line.len == 0) {
        end_line(s, part, now);
    } else {
        must(buf_append(&s->line, part) == STATUS_OK);
        if (is_whole) {
            end_line(s, buf_slice(&s->line), now);
            clear_line(s);
        }
    }
    return part.len + is_whole;
}

/* --- entry points ---------------------------------------------------------------------------- */

void smtp_session_init(struct smtp_session *s, const struct smtp_service *service,
                       const struct smtp_peer *peer, const struct now *now)
{
    const struct smtp_server *server = service->server;
    *s = (struct smtp_session){
        .server = server, .service = service, .peer = *peer, .tenant = service->tenant
    };
    s->started_ms = s->last_progress_ms = now->mono_ms;
    buf_init(&s->line, SMTP_LINE_MAX_AUTH);
    buf_init(&s->out, SMTP_OUT_MAX);
    if (service->tls == TLS_IMPLICIT) {
        session_enter(s, SMTP_TLS);
    } else if (peer->is_refused) {
        session_say(s, REPLY_NOT_TRUSTED);
        session_enter(s, SMTP_REFUSED);
    } else {
        session_greet(s);
        session_enter(s, SMTP_START);
    }
}

void smtp_session_done(struct smtp_session *s)
{
    end_transaction(s);
    session_end_auth(s);
    session_forget(s);
    clear_line(s);
    buf_done(&s->line);
    buf_done(&s->out);
    free(s->xclient);
    s->xclient = NULL;
}

static size_t take(struct smtp_session *s, struct slice in, const struct now *now)
{
    if (s->chunk_left > 0)
        return session_take_chunk(s, in, now);
    return s->state == SMTP_DATA ? session_take_content(s, in, now) : take_line(s, in, now);
}

size_t smtp_session_input(struct smtp_session *s, struct slice in, const struct now *now)
{
    size_t taken = 0;
    while (taken < in.len && s->wait == SMTP_WAIT_INPUT && s->out.len <= SMTP_OUT_HIGH) {
        struct slice rest = slice_skip(in, taken);
        taken += take(s, rest, now);
    }
    if (s->line.len == 0 && s->line.ptr)
        buf_done(&s->line);
    if (s->out.len == 0 && s->out.ptr)
        buf_done(&s->out);
    return s->state == SMTP_CLOSED ? in.len : taken; /* nothing behind a QUIT counts (P-27) */
}

/* --- deadlines ------------------------------------------------------------------------------- */

struct deadline {
    int64_t at_ms;
    const char *reason;
};

static void sooner(struct deadline *d, int64_t since_ms, uint32_t after_ms, const char *reason)
{
    if (since_ms + after_ms < d->at_ms)
        *d = (struct deadline){ since_ms + after_ms, reason };
}

static struct deadline next_deadline(const struct smtp_session *s)
{
    const struct smtp_limits *l = &s->server->limits;
    struct deadline d = { INT64_MAX, NULL };
    if (s->wait != SMTP_WAIT_INPUT)
        return d;
    sooner(&d, s->last_progress_ms,
           s->state == SMTP_DATA || s->chunk_left > 0 ? l->data_timeout_ms : l->command_timeout_ms,
           "idle-timeout");
    sooner(&d, s->started_ms, l->session_timeout_ms, "session-timeout");
    if (session_is_in(s, TRANSACTION))
        sooner(&d, s->transaction_ms, l->transaction_timeout_ms, "transaction-timeout");
    return d;
}

int64_t smtp_session_deadline(const struct smtp_session *s)
{
    return next_deadline(s).at_ms;
}

void smtp_session_tick(struct smtp_session *s, const struct now *now)
{
    struct deadline d = next_deadline(s);
    if (now->mono_ms >= d.at_ms)
        session_enter(s, session_hang_up(s, REPLY_IDLE_TIMEOUT, d.reason));
}

void smtp_session_drain(struct smtp_session *s, const struct now *now)
{
    if (session_is_in(s, IN(START) | IN(READY) | IN(REFUSED)) && s->chunk_left == 0)
        session_enter(s, session_hang_up(s, REPLY_SHUTTING_DOWN, "shutdown"));
}
