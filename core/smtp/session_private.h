/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * session_private - what the session*.c files share: how a session speaks and moves, and the
 * handlers that the rule table of session.c names.
 *
 *     session.c        octets to commands, the rule table, states, deadlines
 *     session_hello.c  greeting, EHLO, STARTTLS, XCLIENT
 *     session_auth.c   the lines of an authentication exchange
 *     session_mail.c   MAIL and RCPT; who may send, to whom, how much
 *     session_data.c   DATA, BDAT, the queue's verdict
 */
#include "core/smtp/command.h"
#include "core/smtp/session.h"

/* A handler answers and returns the next state; one that refuses returns the state it found. */
typedef enum smtp_state session_handler(struct smtp_session *s, const struct smtp_command *c,
                                        const struct now *now);

session_handler session_on_ehlo, session_on_helo, session_on_starttls, session_on_xclient;
session_handler session_on_auth;
session_handler session_on_mail, session_on_rcpt;
session_handler session_on_data, session_on_bdat;

void session_say(struct smtp_session *s, enum reply_id id);
/* Text is ours, or has been made printable (P-22). */
void session_say_with(struct smtp_session *s, enum reply_id id, struct slice text);
void session_say_text(struct smtp_session *s, struct slice text);
/* No, and it is no fault of the protocol. */
enum smtp_state session_decline(struct smtp_session *s, enum reply_id why);
/* No, and one error more; one too many is answered by the end (P-24). */
enum smtp_state session_refuse(struct smtp_session *s, enum reply_id why);
/* 221 or 421, and the end (P-15, P-16). */
enum smtp_state session_hang_up(struct smtp_session *s, enum reply_id id, const char *reason);
/* Moves, and sets what the session waits for. */
void session_enter(struct smtp_session *s, enum smtp_state next);
void session_enter_waiting(struct smtp_session *s, enum smtp_state state, enum smtp_wait wait);

void session_greet(struct smtp_session *s);
/* All that a client has said and been given but the connection itself. */
void session_forget(struct smtp_session *s);
bool session_auth_is_offered(const struct smtp_session *s);
/* Mechanisms that would work now. */
uint32_t session_mechanisms(const struct smtp_session *s);
/* The tenant's, else the listener's; 0: none. */
uint64_t session_size_max(const struct smtp_session *s);
uint32_t session_recipients_max(const struct smtp_session *s);
/* One line of an exchange, without its CR LF. */
void session_take_response(struct smtp_session *s, struct slice line, const struct now *now);
void session_fail_auth(struct smtp_session *s, enum reply_id why);
void session_end_auth(struct smtp_session *s);

size_t session_take_content(struct smtp_session *s, struct slice in, const struct now *now);
size_t session_take_chunk(struct smtp_session *s, struct slice in, const struct now *now);

#define SESSION_IN(state) (1u << SMTP_##state)
static inline bool session_is_in(const struct smtp_session *s, uint32_t states)
{
    return states >> s->state & 1;
}
