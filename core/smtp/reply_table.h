/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Every reply the server ever gives: id, code, enhanced code ("" where none belongs), text. The
 * class of the enhanced code equals that of the code (P-23, tested). Texts say what to do where one
 * can.
 */
#define REPLY_TABLE(X)                                                                             \
    X(OK, 250, "2.0.0", "Ok")                                                                      \
    X(BYE, 221, "2.0.0", "Bye")                                                                    \
    X(SENDER_OK, 250, "2.1.0", "Sender ok")                                                        \
    X(RCPT_OK, 250, "2.1.5", "Recipient ok")                                                       \
    X(START_MAIL, 354, "", "End data with <CR><LF>.<CR><LF>")                                      \
    X(VRFY_MAYBE, 252, "2.1.5", "Send some mail, it will be tried")                                \
    X(HELP, 214, "2.0.0", "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; see RFC 5321")       \
    X(NOT_TRUSTED, 554, "5.7.1", "Your address is not in this listener's trusted networks")        \
    X(REFUSED_SESSION, 503, "5.5.1", "This session was refused; only QUIT is accepted")            \
    X(BUSY, 421, "4.3.2", "Too many sessions, try again later")                                    \
    X(SHUTTING_DOWN, 421, "4.3.2", "Shutting down, try again later")                               \
    X(IDLE_TIMEOUT, 421, "4.4.2", "Timeout, closing the connection")                               \
    X(TOO_MANY_ERRORS, 421, "4.7.0", "Too many errors, closing the connection")                    \
    X(NOT_SMTP, 421, "4.7.0", "This is an SMTP server, closing the connection")                    \
    X(UNKNOWN_COMMAND, 500, "5.5.2", "Unknown command")                                            \
    X(LINE_TOO_LONG, 500, "5.5.2", "Line too long")                                                \
    X(BAD_OCTET, 500, "5.5.2", "Control or 8-bit octet in a command")                              \
    X(BARE_LF, 500, "5.5.2", "Commands must end with <CR><LF>")                                    \
    X(NO_ARGUMENT, 501, "5.5.4", "This command takes no argument")                                 \
    X(BAD_ARGUMENT, 501, "5.5.4", "Bad argument")                                                  \
    X(BAD_HELO, 501, "5.5.4", "Give a domain name or an address literal")                          \
    X(BAD_SENDER, 501, "5.1.7", "Bad sender address syntax")                                       \
    X(BAD_RCPT, 501, "5.1.3", "Bad recipient address syntax")                                      \
    X(SENDER_NEEDS_UTF8, 553, "5.6.7", "This address needs SMTPUTF8, which is not offered")        \
    X(RCPT_NEEDS_UTF8, 553, "5.6.7", "This address needs SMTPUTF8, which is not offered")          \
    X(RCPT_NO_DOMAIN, 501, "5.1.3", "The recipient needs a domain")                                \
    X(RCPT_LITERAL, 550, "5.7.1", "Mail to address literals is not relayed")                       \
    X(BAD_PARAM_VALUE, 501, "5.5.4", "Bad parameter value")                                        \
    X(DUPLICATE_PARAM, 501, "5.5.4", "The same parameter twice")                                   \
    X(UNKNOWN_PARAM, 555, "5.5.4", "Parameter not recognized")                                     \
    X(NOT_IMPLEMENTED, 502, "5.5.1", "Command not implemented")                                    \
    X(NEED_EHLO, 503, "5.5.1", "Send EHLO or HELO first")                                          \
    X(NEED_MAIL, 503, "5.5.1", "Send MAIL first")                                                  \
    X(NEED_RCPT, 503, "5.5.1", "No valid recipients")                                              \
    X(NESTED_MAIL, 503, "5.5.1", "Nested MAIL")                                                    \
    X(TOO_MANY_RCPTS, 452, "4.5.3", "Too many recipients, send the rest in a new transaction")     \
    X(NO_ROOM, 452, "4.3.1", "Not enough room now, try again later")                               \
    X(TOO_BIG, 552, "5.3.4", "Message exceeds the size limit")                                     \
    X(QUEUE_TROUBLE, 451, "4.3.0", "The queue did not answer, nothing was queued, try again")      \
    X(KEY_CONFLICT, 554, "5.6.0", "This idempotency key was used for another message")             \
    X(BARE_CR_LF, 554, "5.6.0",                                                                    \
      "Bare <CR> or <LF> in message content; lines must end with <CR><LF>")                        \
    X(NUL_IN_CONTENT, 554, "5.6.0", "NUL octet in message content")                                \
    X(CONTENT_LINE_TOO_LONG, 554, "5.6.0", "A line of message content exceeds 998 octets")         \
    X(HEADER_TOO_BIG, 552, "5.3.4", "The header section is too large")                             \
    X(BAD_HEADER, 554, "5.6.0", "The header section has a line that is not a header field")        \
    X(DUPLICATE_HEADER, 550, "5.6.0", "From, Sender, Subject, Date or To occurs more than once")   \
    X(NO_FROM, 550, "5.6.0", "The message has no From field")                                      \
    X(NEED_SENDER, 550, "5.6.0", "Several addresses in From need a Sender field")                  \
    X(BAD_FROM, 550, "5.6.0", "The From or Sender field cannot be understood")                     \
    X(FROM_NOT_ALLOWED, 550, "5.7.1", "You may not send as an address in From or Sender")          \
    X(BAD_KEY, 554, "5.6.0", "X-Idempotency-Key must stand once, with 1 to 255 printable octets")  \
    X(LOOP, 554, "5.4.6", "Too many Received fields, this looks like a loop")

enum reply_id {
#define X(id, code, enhanced, text) REPLY_##id,
    REPLY_TABLE(X)
#undef X
        REPLY_COUNT
};
