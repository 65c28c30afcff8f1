/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - the server side of SMTP (RFC 5321, 1870, 2034, 2920, 6152) for one client.
 *
 *                    EHLO, HELO           MAIL            RCPT            DATA
 *     START ------------------> READY ----------> MAIL ---------> RCPT ---------> DATA
 *       |                       ^   ^              | RSET, EHLO    | |             |  |
 *       |                       |   +--------------+---------------+ +--<RCPT>--   |  | end of data
 *       |                       +------- refused after the final dot --------------+  v
 *       |                       +------- verdict of the queue ------------------- COMMIT
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
 * end of data all octets are content.c's.
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
 * in say_ehlo, its parameters in read_mail_params or on_rcpt. To add a deadline: next_deadline.
 */
#include "core/smtp/session.h"
#include "core/base/must.h"
#include "core/smtp/command.h"
#include "core/smtp/content.h"
#include "core/smtp/queue_id.h"
#include <inttypes.h>
#include <stdlib.h>

#define OUT_FIRST     256 /* octets: the replies to a pipelined transaction fit */
#define TRACE_SIZE    512 /* octets: about what the fields that we add take */
#define EXPECTED_SIZE (64 * 1024)

typedef enum smtp_state handler_fn(struct smtp_session *s, const struct smtp_command *c,
                                   const struct now *now);

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
    handler_fn *handle;
};

static handler_fn on_ehlo, on_helo, on_mail, on_rcpt, on_data, on_rset, on_noop, on_vrfy, on_help,
    on_quit, on_unknown, on_foreign, on_not_offered;

#define IN(state)   (1u << SMTP_##state)
#define COMMANDS    (IN(START) | IN(READY) | IN(MAIL) | IN(RCPT))
#define TRANSACTION (IN(MAIL) | IN(RCPT) | IN(DATA) | IN(COMMIT))
#define EVERYWHERE  (COMMANDS | IN(REFUSED))

/* What is offered, then what is known and not offered (P-13, P-14). */
static const struct verb_rule rules[SMTP_VERB_COUNT] = {
    [SMTP_VERB_EHLO] = { COMMANDS, ARG_FREE, REPLY_OK, on_ehlo },
    [SMTP_VERB_HELO] = { COMMANDS, ARG_FREE, REPLY_OK, on_helo },
    [SMTP_VERB_MAIL] = { IN(READY), ARG_FREE, REPLY_NESTED_MAIL, on_mail },
    [SMTP_VERB_RCPT] = { IN(MAIL) | IN(RCPT), ARG_FREE, REPLY_NEED_MAIL, on_rcpt },
    [SMTP_VERB_DATA] = { IN(RCPT), ARG_NONE, REPLY_NEED_RCPT, on_data },
    [SMTP_VERB_RSET] = { COMMANDS, ARG_NONE, REPLY_OK, on_rset },
    [SMTP_VERB_NOOP] = { COMMANDS, ARG_FREE, REPLY_OK, on_noop },
    [SMTP_VERB_VRFY] = { COMMANDS, ARG_NEEDED, REPLY_OK, on_vrfy },
    [SMTP_VERB_HELP] = { COMMANDS, ARG_FREE, REPLY_OK, on_help },
    [SMTP_VERB_QUIT] = { EVERYWHERE, ARG_NONE, REPLY_OK, on_quit },
    [SMTP_VERB_UNKNOWN] = { COMMANDS, ARG_FREE, REPLY_OK, on_unknown },
    [SMTP_VERB_FOREIGN] = { EVERYWHERE, ARG_IGNORED, REPLY_OK, on_foreign },

    [SMTP_VERB_EXPN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_BDAT] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_STARTTLS] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_AUTH] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_ETRN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_TURN] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SEND] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SOML] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_SAML] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
    [SMTP_VERB_XCLIENT] = { COMMANDS, ARG_FREE, REPLY_OK, on_not_offered },
};

static bool is_in(enum smtp_state state, uint32_t states)
{
    return states >> state & 1;
}

/* --- saying ---------------------------------------------------------------------------------- */

/* Input stops at SMTP_OUT_HIGH, and no command is answered by half as much again. */
static void say_text(struct smtp_session *s, struct slice text)
{
    must(buf_append(&s->out, text) == STATUS_OK);
}

static void say(struct smtp_session *s, enum reply_id id)
{
    int code = reply_code(id);
    must(s->out.ptr || buf_reserve(&s->out, OUT_FIRST));
    must(reply_write(&s->out, id) == STATUS_OK);
    if (code >= 500)
        metrics_add(s->server->metrics, METRIC_REPLIES_5XX_TOTAL, 1);
    else if (code >= 400)
        metrics_add(s->server->metrics, METRIC_REPLIES_4XX_TOTAL, 1);
}

/* 221 or 421, and the end (P-15, P-16). Returns the next state. */
static enum smtp_state hang_up(struct smtp_session *s, enum reply_id id, const char *reason)
{
    say(s, id);
    s->end_reason = s->state == SMTP_REFUSED ? "refused" : reason;
    return SMTP_CLOSED;
}

/* No, and it is no fault of the protocol. */
static enum smtp_state decline(struct smtp_session *s, enum reply_id why)
{
    say(s, why);
    return s->state;
}

/* No, and one error more; one too many is answered by the end (P-24). */
static enum smtp_state refuse(struct smtp_session *s, enum reply_id why)
{
    if (++s->errors > s->server->limits.errors_max)
        return hang_up(s, REPLY_TOO_MANY_ERRORS, "errors");
    return decline(s, s->state == SMTP_REFUSED ? REPLY_REFUSED_SESSION : why);
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

static void enter(struct smtp_session *s, enum smtp_state next)
{
    if (next == SMTP_READY && s->server->is_draining)
        next = hang_up(s, REPLY_SHUTTING_DOWN, "shutdown");
    if (!is_in(next, TRANSACTION) && s->message)
        end_transaction(s);
    s->state = next;
    s->wait = next == SMTP_CLOSED   ? SMTP_WAIT_CLOSE
              : next == SMTP_COMMIT ? SMTP_WAIT_COMMIT
                                    : SMTP_WAIT_INPUT;
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

static void say_ehlo(struct smtp_session *s)
{
    must(buf_printf(&s->out,
                    "250-%.*s\r\n250-PIPELINING\r\n250-SIZE %" PRIu64
                    "\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
                    SLICE_ARG(s->server->hostname),
                    s->server->limits.message_size_max) == STATUS_OK);
}

/* In the middle of a transaction it is an RSET too (P-7). */
static enum smtp_state on_ehlo(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    if (!take_helo(s, c->argument))
        return refuse(s, REPLY_BAD_HELO);
    s->is_esmtp = true;
    say_ehlo(s);
    return SMTP_READY;
}

static enum smtp_state on_helo(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    if (!take_helo(s, c->argument))
        return refuse(s, REPLY_BAD_HELO);
    s->is_esmtp = false;
    say_text(s, SLICE("250 "));
    say_text(s, s->server->hostname);
    say_text(s, SLICE("\r\n"));
    return SMTP_READY;
}

/* --- MAIL, RCPT, DATA ------------------------------------------------------------------------ */

struct mail_params {
    uint64_t size; /* declared; 0: unknown */
    bool is_8bit;
};

/* REPLY_OK, or the reply to the first parameter that is wrong. A client that said HELO was offered
 * none (P-6); those of extensions that are not offered are unknown (P-39). */
static enum reply_id read_mail_params(const struct smtp_session *s, struct slice params,
                                      struct mail_params *out)
{
    struct smtp_param p;
    while (smtp_param_next(&params, &p)) {
        bool is_good;
        if (!s->is_esmtp)
            return REPLY_UNKNOWN_PARAM;
        switch (p.id) {
        case SMTP_PARAM_SIZE: is_good = p.has_value && smtp_size_parse(p.value, &out->size); break;
        case SMTP_PARAM_BODY:
            is_good = p.has_value && smtp_body_parse(p.value, &out->is_8bit);
            break;
        default: return REPLY_UNKNOWN_PARAM;
        }
        if (!is_good)
            return REPLY_BAD_PARAM_VALUE;
    }
    return REPLY_OK;
}

static struct message *new_message(struct smtp_session *s, struct slice sender,
                                   const struct mail_params *params)
{
    struct message *m = message_new(s->server->budget);
    m->sender = arena_copy(&m->arena, sender);
    m->helo = arena_copy(&m->arena, slice_str(s->helo));
    m->client = arena_copy(&m->arena, s->peer.client);
    if (params->is_8bit)
        m->flags |= MESSAGE_8BIT;
    if (params->size > 0 && params->size < EXPECTED_SIZE)
        chain_expect(&m->content, params->size + TRACE_SIZE);
    else if (params->size > 0)
        chain_expect(&m->content, EXPECTED_SIZE);
    return m;
}

static enum smtp_state on_mail(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    struct mail_params params = { 0 };
    uint64_t size_max = s->server->limits.message_size_max;
    enum reply_id why = read_mail_params(s, c->params, &params);
    if (why != REPLY_OK)
        return refuse(s, why);
    if (size_max && params.size > size_max)
        return decline(s, REPLY_TOO_BIG); /* P-56 */
    if (chain_budget_is_over(s->server->budget))
        return decline(s, REPLY_NO_ROOM);
    s->message = new_message(s, c->path.mailbox, &params);
    s->transaction_ms = now->mono_ms;
    say(s, REPLY_SENDER_OK);
    return SMTP_MAIL;
}

/* Each recipient has a verdict of its own; the good ones stay (P-52, P-53). */
static enum smtp_state on_rcpt(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    const struct address *path = &c->path;
    if (c->params.len > 0)
        return refuse(s, REPLY_UNKNOWN_PARAM); /* no extension that is offered has one */
    if (path->is_literal)
        return decline(s, REPLY_RCPT_LITERAL); /* P-48 */
    if (!rcpt_set_contains(&s->rcpts, s->message, path->mailbox, path->domain)) {
        if (s->message->rcpt_count >= s->server->limits.recipients_max)
            return decline(s, REPLY_TOO_MANY_RCPTS);
        message_add_rcpt(s->message, path->mailbox, path->domain);
        rcpt_set_note_last(&s->rcpts, s->message);
    }
    say(s, REPLY_RCPT_OK);
    return SMTP_RCPT;
}

static enum smtp_state on_data(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    queue_id_make(s->message->id, now->wall_ms, s->server->entropy);
    struct smtp_content_policy policy = {
        .is_esmtp = s->is_esmtp,
        .size_max = s->server->limits.message_size_max,
    };
    s->content = smtp_content_new(s->server, s->message, &policy, now);
    say(s, REPLY_START_MAIL);
    return SMTP_DATA;
}

/* The final dot. Whatever was wrong with the content is said now (P-57, P-83). */
static enum smtp_state on_end_of_data(struct smtp_session *s, const struct now *now)
{
    enum reply_id why = smtp_content_finish(s->content, now);
    smtp_content_free(s->content);
    s->content = NULL;
    if (why == REPLY_OK)
        return SMTP_COMMIT;
    say(s, why);
    return SMTP_READY;
}

/* --- the rest -------------------------------------------------------------------------------- */

static enum smtp_state on_rset(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    say(s, REPLY_OK);
    return s->state == SMTP_START ? SMTP_START : SMTP_READY;
}

static enum smtp_state on_noop(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    say(s, REPLY_OK);
    return s->state;
}

/* Confirms nothing, so nothing can be harvested (P-12). */
static enum smtp_state on_vrfy(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    say(s, REPLY_VRFY_MAYBE);
    return s->state;
}

static enum smtp_state on_help(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    say(s, REPLY_HELP);
    return s->state;
}

static enum smtp_state on_quit(struct smtp_session *s, const struct smtp_command *c,
                               const struct now *now)
{
    return hang_up(s, REPLY_BYE, "quit");
}

static enum smtp_state on_unknown(struct smtp_session *s, const struct smtp_command *c,
                                  const struct now *now)
{
    return refuse(s, REPLY_UNKNOWN_COMMAND);
}

/* P-25: whoever makes a browser speak to us must not get a second line obeyed. */
static enum smtp_state on_foreign(struct smtp_session *s, const struct smtp_command *c,
                                  const struct now *now)
{
    return hang_up(s, REPLY_NOT_SMTP, "foreign-protocol");
}

static enum smtp_state on_not_offered(struct smtp_session *s, const struct smtp_command *c,
                                      const struct now *now)
{
    return refuse(s, REPLY_NOT_IMPLEMENTED);
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
    case COMMAND_BAD_OCTET: return refuse(s, REPLY_BAD_OCTET);
    case COMMAND_BAD_ADDRESS: return decline(s, bad_address_reply(c));
    case COMMAND_BAD_PARAM: return refuse(s, REPLY_BAD_PARAM_VALUE);
    case COMMAND_DUPLICATE_PARAM: return refuse(s, REPLY_DUPLICATE_PARAM);
    case COMMAND_BAD_SYNTAX:
    case COMMAND_NO_SPACE:
    case COMMAND_OK: break;
    }
    return refuse(s, REPLY_BAD_ARGUMENT);
}

/* Order first, then syntax, then the handler. Returns the next state. */
static enum smtp_state obey(struct smtp_session *s, struct slice line, const struct now *now)
{
    struct smtp_command c;
    enum command_error error = smtp_command_parse(line, &c);
    const struct verb_rule *rule = &rules[c.verb];
    metrics_add(s->server->metrics, METRIC_COMMANDS_TOTAL, 1);
    if (!is_in(s->state, rule->legal_in))
        return refuse(s, s->state == SMTP_START ? REPLY_NEED_EHLO : rule->misplaced);
    if (error != COMMAND_OK && rule->argument != ARG_IGNORED)
        return refuse_faulty(s, &c, error);
    if (rule->argument == ARG_NONE && c.argument.len > 0)
        return refuse(s, REPLY_NO_ARGUMENT);
    if (rule->argument == ARG_NEEDED && c.argument.len == 0)
        return refuse(s, REPLY_BAD_ARGUMENT);
    return rule->handle(s, &c, now);
}

/* A line without its LF. */
static void end_line(struct smtp_session *s, struct slice line, const struct now *now)
{
    bool has_cr = line.len > 0 && line.ptr[line.len - 1] == '\r';
    s->last_progress_ms = now->mono_ms;
    if (has_cr)
        enter(s, obey(s, slice_head(line, line.len - 1), now));
    else
        enter(s, refuse(s, REPLY_BARE_LF));
}

/* One reply when the limit is passed, and silence to the next LF (P-21). */
static void end_overlong(struct smtp_session *s, bool is_whole)
{
    buf_done(&s->line);
    s->line_is_overlong = !is_whole;
    enter(s, refuse(s, REPLY_LINE_TOO_LONG));
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
    if (s->line.len + part.len > SMTP_LINE_MAX) {
        end_overlong(s, is_whole);
    } else if (is_whole && s->line.len == 0) {
        end_line(s, part, now);
    } else {
        must(buf_append(&s->line, part) == STATUS_OK);
        if (is_whole) {
            end_line(s, buf_slice(&s->line), now);
            buf_clear(&s->line);
        }
    }
    return part.len + is_whole;
}

static size_t take_content(struct smtp_session *s, struct slice in, const struct now *now)
{
    size_t used;
    s->last_progress_ms = now->mono_ms;
    if (smtp_content_feed(s->content, in, &used) == DOT_END)
        enter(s, on_end_of_data(s, now));
    return used;
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
    buf_init(&s->line, SMTP_LINE_MAX);
    buf_init(&s->out, SMTP_OUT_MAX);
    if (peer->is_refused) {
        say(s, REPLY_NOT_TRUSTED);
        enter(s, SMTP_REFUSED);
        return;
    }
    /* P-1: the name and "ESMTP"; no version. */
    say_text(s, SLICE("220 "));
    say_text(s, server->hostname);
    say_text(s, SLICE(" ESMTP Kilat\r\n"));
    enter(s, SMTP_START);
}

void smtp_session_done(struct smtp_session *s)
{
    end_transaction(s);
    buf_done(&s->line);
    buf_done(&s->out);
    free(s->helo);
    s->helo = NULL;
}

size_t smtp_session_input(struct smtp_session *s, struct slice in, const struct now *now)
{
    size_t taken = 0;
    while (taken < in.len && s->wait == SMTP_WAIT_INPUT && s->out.len <= SMTP_OUT_HIGH) {
        struct slice rest = slice_skip(in, taken);
        taken += s->state == SMTP_DATA ? take_content(s, rest, now) : take_line(s, rest, now);
    }
    if (s->line.len == 0 && s->line.ptr)
        buf_done(&s->line);
    if (s->out.len == 0 && s->out.ptr)
        buf_done(&s->out);
    return s->state == SMTP_CLOSED ? in.len : taken; /* nothing behind a QUIT counts (P-27) */
}

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
    must(reply_write_text(&s->out, REPLY_OK, slice_of(text, sizeof queued - 1 + len)) == STATUS_OK);
}

void smtp_session_verdict(struct smtp_session *s, enum smtp_verdict verdict, const char *id,
                          const struct now *now)
{
    must(s->state == SMTP_COMMIT && !s->message);
    switch (verdict) {
    case SMTP_QUEUED: say_queued(s, id); break;
    case SMTP_NOT_QUEUED: say(s, REPLY_QUEUE_TROUBLE); break;
    case SMTP_QUEUE_FULL: say(s, REPLY_NO_ROOM); break;
    case SMTP_KEY_CONFLICT: say(s, REPLY_KEY_CONFLICT); break;
    }
    s->last_progress_ms = now->mono_ms;
    enter(s, SMTP_READY);
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
           s->state == SMTP_DATA ? l->data_timeout_ms : l->command_timeout_ms, "idle-timeout");
    sooner(&d, s->started_ms, l->session_timeout_ms, "session-timeout");
    if (is_in(s->state, TRANSACTION))
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
        enter(s, hang_up(s, REPLY_IDLE_TIMEOUT, d.reason));
}

void smtp_session_drain(struct smtp_session *s, const struct now *now)
{
    if (is_in(s->state, IN(START) | IN(READY) | IN(REFUSED)))
        enter(s, hang_up(s, REPLY_SHUTTING_DOWN, "shutdown"));
}
