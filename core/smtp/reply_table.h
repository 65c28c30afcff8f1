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
    X(HELP, 214, "2.0.0", "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT")  \
    X(NOT_TRUSTED, 554, "5.7.1", "Your address is not in this listener's trusted networks")        \
    X(REFUSED_SESSION, 503, "5.5.1", "This session was refused; only QUIT is accepted")            \
    X(BUSY, 421, "4.3.2", "Too many sessions, try again later")                                    \
    X(SHUTTING_DOWN, 421, "4.3.2", "Shutting down, try again later")                               \
    X(ADDRESS_BUSY, 421, "4.7.0", "Too many sessions from your address, try again later")          \
    X(ADDRESS_FAST, 421, "4.7.0", "Too many connections from your address, try again later")       \
    X(IDLE_TIMEOUT, 421, "4.4.2", "Timeout, closing the connection")                               \
    X(TOO_MANY_ERRORS, 421, "4.7.0", "Too many errors, closing the connection")                    \
    X(NOT_SMTP, 421, "4.7.0", "This is an SMTP server, closing the connection")                    \
    X(START_TLS, 220, "2.0.0", "Ready to start TLS")                                               \
    X(TLS_TWICE, 503, "5.5.1", "TLS is on already")                                                \
    X(NEED_TLS, 530, "5.7.0", "Must issue a STARTTLS command first")                               \
    X(AUTH_OK, 235, "2.7.0", "Authentication successful")                                          \
    X(AUTH_WRONG, 535, "5.7.8", "Authentication credentials invalid")                              \
    X(AUTH_MALFORMED, 501, "5.5.2", "Malformed authentication response")                           \
    X(AUTH_CANCELLED, 501, "5.7.0", "Authentication cancelled")                                    \
    X(AUTH_TOO_LONG, 500, "5.5.6", "Authentication response too long")                             \
    X(AUTH_UNKNOWN, 504, "5.5.4", "Unknown or unavailable authentication mechanism")               \
    X(AUTH_NEEDS_TLS, 538, "5.7.11", "Encryption is needed: issue STARTTLS first")                 \
    X(AUTH_MISPLACED, 503, "5.5.1", "AUTH is not allowed now")                                     \
    X(AUTH_DOWN, 454, "4.7.0", "Users are out of reach, try again later")                          \
    X(AUTH_BUSY, 454, "4.7.0", "Too many authentications at once, try again later")                \
    X(AUTH_THROTTLED, 454, "4.7.0", "Too many failed authentications, try again later")            \
    X(AUTH_TOO_MANY, 454, "4.7.0", "Too many sessions of this account, try again later")           \
    X(AUTH_NO_TENANT, 454, "4.7.0", "This account's tenant is not known here")                     \
    X(TOO_MANY_FAILURES, 421, "4.7.0", "Too many failed authentications, closing the connection")  \
    X(NEED_AUTH, 530, "5.7.0", "Authentication required")                                          \
    X(XCLIENT_DENIED, 550, "5.7.0", "XCLIENT is not allowed from your address")                    \
    X(SENDER_DENIED, 550, "5.7.1", "You may not send from this address")                           \
    X(NULL_SENDER_DENIED, 550, "5.7.1", "You may not send from the null address")                  \
    X(SUPPRESSED, 550, "5.7.1", "Recipient is suppressed")                                         \
    X(RETURNED, 250, "2.0.0", "Ok: read")                                                          \
    X(NO_RETURN_PATH, 550, "5.1.1", "No mail was sent from this address")                          \
    X(NOT_RETURNED, 550, "5.7.1", "Only bounces and complaints come in here; no mail is relayed")  \
    X(RATE_EXCEEDED, 450, "4.7.1", "Too many recipients in this minute, try again later")          \
    X(QUOTA_EXCEEDED, 452, "4.7.1", "Too many recipients in this day, try again later")            \
    X(ADMISSION_DOWN, 451, "4.3.0", "The queue did not answer, try again")                         \
    X(TOO_MANY_MAILS, 421, "4.7.0", "Too many messages in this session, connect again")            \
    X(NEED_BDAT, 503, "5.5.1", "BINARYMIME is sent by BDAT, not by DATA")                          \
    X(AFTER_BDAT, 503, "5.5.1", "Only BDAT, RSET, NOOP and QUIT are allowed between chunks")       \
    X(CHUNK_OK, 250, "2.0.0", "Chunk received")                                                    \
    X(BAD_CHUNK, 501, "5.5.4", "BDAT needs a number of octets, and LAST for the last chunk")       \
    X(CHUNK_LOST, 421, "4.3.0", "The length of that chunk is unknown, closing the connection")     \
    X(HOLD_TOO_LONG, 501, "5.5.4", "Mail cannot be held back for so long")                         \
    X(UNKNOWN_COMMAND, 500, "5.5.2", "Unknown command")                                            \
    X(LINE_TOO_LONG, 500, "5.5.2", "Line too long")                                                \
    X(BAD_OCTET, 500, "5.5.2", "Control or 8-bit octet in a command")                              \
    X(BARE_LF, 500, "5.5.2", "Commands must end with <CR><LF>")                                    \
    X(NO_ARGUMENT, 501, "5.5.4", "This command takes no argument")                                 \
    X(BAD_ARGUMENT, 501, "5.5.4", "Bad argument")                                                  \
    X(BAD_HELO, 501, "5.5.4", "Give a domain name or an address literal")                          \
    X(BAD_SENDER, 501, "5.1.7", "Bad sender address syntax")                                       \
    X(BAD_RCPT, 501, "5.1.3", "Bad recipient address syntax")                                      \
    X(SENDER_NEEDS_UTF8, 553, "5.6.7", "This address needs SMTPUTF8: say it in MAIL")              \
    X(RCPT_NEEDS_UTF8, 553, "5.6.7", "This address needs SMTPUTF8: say it in MAIL")                \
    X(RCPT_NO_DOMAIN, 501, "5.1.3", "The recipient needs a domain")                                \
    X(RCPT_LITERAL, 550, "5.7.1", "Mail to address literals is not relayed")                       \
    X(BAD_PARAM_VALUE, 501, "5.5.4", "Bad parameter value")                                        \
    X(DUPLICATE_PARAM, 501, "5.5.4", "The same parameter twice")                                   \
    X(UNKNOWN_PARAM, 555, "5.5.4", "Parameter not recognized")                                     \
    X(NOT_IMPLEMENTED, 502, "5.5.1", "Command not implemented")                                    \
    X(NEED_EHLO, 503, "5.5.1", "Send EHLO or HELO first")                                          \
    X(NEED_MAIL, 503, "5.5.1", "Send MAIL first")                                                  \
    X(NEED_RCPT, 503, "5.5.1", "No valid recipients")                                              \
    X(NESTED, 503, "5.5.1", "This command is not allowed inside a transaction")                    \
    X(NESTED_MAIL, 503, "5.5.1", "Nested MAIL")                                                    \
    X(TOO_MANY_RCPTS, 452, "4.5.3", "Too many recipients, send the rest in a new transaction")     \
    X(NO_ROOM, 452, "4.3.1", "Not enough room now, try again later")                               \
    X(TOO_BIG, 552, "5.3.4", "Message exceeds the size limit")                                     \
    X(QUEUE_TROUBLE, 451, "4.3.0", "The queue did not answer, nothing was queued, try again")      \
    X(KEY_CONFLICT, 554, "5.6.0", "This idempotency key was used for another message")             \
    X(NOT_SIGNED, 451, "4.7.5", "The message cannot be signed now, try again later")               \
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
