/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * smtp_session - the server side of one submission session, bytes in, effects out.
 *
 * The driver (io/drive_submit.c) feeds received bytes to smtp_session_input; replies collect in
 * s->out; s->wait says what must happen before more input is taken. No system calls, no clock:
 * `now` comes with every event.
 *
 * Life of a session:
 *     START -> READY -> MAIL -> RCPT -> DATA | BDAT -> COMMIT -> READY ... -> CLOSED
 *     READY -> TLS (STARTTLS: 220, handshake, then as new) -> START
 *     READY -> AUTH (challenges and responses) -> READY
 *     REFUSED (not trusted): a 554 greeting, then only QUIT (P-2)
 * Limits: every one in struct smtp_limits; a session that is idle holds no heap memory of its own
 * beyond its EHLO name and its user.
 * To add a command: a row in the verb table of session.c and a handler that returns the next state.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/entropy.h"
#include "core/base/metrics.h"
#include "core/smtp/account.h"
#include "core/smtp/dot.h"
#include "core/smtp/message.h"
#include "core/smtp/rcpt_set.h"
#include "core/smtp/reply.h"

struct return_path_key;

struct smtp_limits {
    uint64_t message_size_max; /* octets; 0: none (RFC 1870 4) */
    uint32_t recipients_max, errors_max, received_max, header_size_max;
    uint32_t auth_attempts_max;
    uint32_t mails_max;   /* transactions; 0: any number */
    uint64_t hold_max_ms; /* 0: FUTURERELEASE is not offered */
    uint32_t deliver_by_min_s;
    uint32_t command_timeout_ms, data_timeout_ms, session_timeout_ms, transaction_timeout_ms;
};

/* What all sessions of one worker share; borrowed by each, outlives them. */
struct smtp_server {
    struct smtp_limits limits;
    struct slice hostname;
    struct entropy *entropy;
    struct metrics *metrics;
    struct chain_budget *budget;
    bool is_draining;  /* shutting down: 421 between transactions */
    bool hides_client; /* Received does not say where mail comes from (P-94) */
    bool signs;        /* messages get a dkim_digest */
};

/* Whom the connection comes from; set at the start and by XCLIENT. */
struct smtp_peer {
    struct slice client; /* the driver's: address as in struct message */
    bool is_trusted;     /* may submit without AUTH, where AUTH is not required */
    bool is_refused;     /* may do nothing: the 554 greeting */
    bool may_xclient;
};

/* What one listener offers; shared by its sessions, borrowed. */
struct smtp_service {
    const struct smtp_server *server; /* borrowed */
    enum tls_mode tls;
    enum auth_mode auth;
    bool auth_without_tls;
    uint32_t mechanisms;                /* bits of enum auth_mechanism that work here */
    const struct config *cfg;           /* borrowed; where a user's tenant is found */
    const struct config_tenant *tenant; /* of clients that do not authenticate; NULL: none */
    enum mail_lane lane;                /* of mail that asks for none */
    /* borrowed; here come bounces and complaints, from anybody, and nothing is relayed. NULL: mail
     * is submitted. */
    const struct return_path_key *returns;
    /* Judges an address that XCLIENT named ("unavailable": one that nobody knows): sets is_trusted
     * and is_refused. NULL: nobody there may send XCLIENT. */
    void (*judge)(const void *ctx, struct slice client, struct smtp_peer *peer);
    const void *judge_ctx; /* borrowed */
};

/* What TLS has brought; slices and names are the connection's. */
struct smtp_tls {
    const char *version, *cipher;
    struct slice client_name; /* of a verified certificate; empty: none */
    const char *binding_name; /* NULL: none */
    struct slice binding;
};

enum smtp_state {
    SMTP_START,   /* greeted, no EHLO yet */
    SMTP_REFUSED, /* 554 greeting given */
    SMTP_TLS,     /* 220 to STARTTLS given, or an implicit handshake not over yet */
    SMTP_READY,
    SMTP_AUTH,   /* an authentication exchange */
    SMTP_MAIL,   /* sender known */
    SMTP_RCPT,   /* at least one recipient */
    SMTP_DATA,   /* content is coming */
    SMTP_BDAT,   /* between chunks or inside one */
    SMTP_COMMIT, /* end of data seen; the queue has the message */
    SMTP_CLOSED, /* nothing more is read; close when out is flushed */
};

enum smtp_wait {
    SMTP_WAIT_INPUT, /* feed more bytes */
    SMTP_WAIT_TLS,   /* flush out, drop all input, shake hands, then smtp_session_secured */
    SMTP_WAIT_AUTH,  /* smtp_session_get_auth to the authenticator, then smtp_session_auth_answer */
    SMTP_WAIT_ADMIT, /* ask about s->admission, then smtp_session_admitted */
    SMTP_WAIT_COMMIT, /* take s->message to the queue, then call smtp_session_verdict */
    SMTP_WAIT_CLOSE,  /* flush out, then close */
};

/* A recipient on its way through the suppression list, the rates and the quotas (one per RCPT). */
struct smtp_admission {
    const struct config_tenant *tenant;     /* borrowed */
    struct slice user;                      /* "": nobody authenticated */
    struct slice rcpt;                      /* the mailbox; the driver's to read until the answer */
    uint32_t user_per_minute, user_per_day; /* limits that hold for this user; 0: none */
};

enum smtp_admit {
    SMTP_ADMIT_OK,
    SMTP_ADMIT_SUPPRESSED, /* 550 5.7.1 with the reason */
    SMTP_ADMIT_RATE,       /* 450 4.7.1: too many this minute */
    SMTP_ADMIT_QUOTA,      /* 452 4.7.1: too many today */
    SMTP_ADMIT_DOWN,       /* 451 4.3.0: Redis is out of reach */
};

/* The queue's answer to a message. */
enum smtp_verdict {
    SMTP_QUEUED, /* durable: 250 with the queue id; of a message sent again, that of the first */
    SMTP_NOT_QUEUED,   /* 451 4.3.0: nothing was queued, or it will be withdrawn */
    SMTP_QUEUE_FULL,   /* 452 4.3.1 */
    SMTP_KEY_CONFLICT, /* 554 5.6.0: its idempotency key was used for another message */
    SMTP_RETURNED,     /* 250: it was a bounce or a complaint, and is known now */
    SMTP_NOT_SIGNED,   /* 451 4.7.5: it must be signed and cannot be (P-246) */
};

struct smtp_content; /* content.h: header checks, trace header; lives from DATA to the end of data
                      */

struct smtp_session {
    const struct smtp_server *server;   /* borrowed */
    const struct smtp_service *service; /* borrowed */
    enum smtp_state state;
    enum smtp_wait wait;
    bool is_esmtp;            /* EHLO, not HELO */
    bool line_is_overlong;    /* True from the limit to the next LF: swallow (P-21) */
    uint32_t errors;          /* protocol errors so far */
    int64_t started_ms;       /* monotonic */
    int64_t last_progress_ms; /* monotonic; a command line was begun or finished, content came, or
                                 a verdict: what dripping bytes cannot renew (P-114) */
    int64_t transaction_ms;   /* monotonic; when MAIL came; meaningful from MAIL to COMMIT */
    struct smtp_peer peer;
    const struct smtp_tls *tls;         /* the driver's; NULL: in clear */
    const struct config_tenant *tenant; /* borrowed; NULL: none */
    struct account *account;            /* owned; NULL: nobody authenticated */
    struct sasl_exchange *sasl;         /* owned; in AUTH */
    char *xclient;                      /* owned; the address since XCLIENT; NULL: there was none */
    uint32_t auth_failures, mails;
    uint64_t chunk_left;  /* octets of a BDAT chunk still to come, whatever the state */
    uint64_t chunk_sum;   /* of this transaction, as announced */
    uint32_t chunk_size;  /* of the present one, for the reply; clipped */
    uint16_t chunk_fault; /* enum reply_id that this and later chunks are answered; REPLY_OK */
    bool chunk_is_last;
    bool chunk_is_misplaced;      /* it is dropped, and its fault said behind it (P-99) */
    char *helo;                   /* owned; sanitised (P-5); NULL before EHLO */
    struct buf line;              /* an unfinished command line; memory only while there is one */
    struct buf out;               /* replies to send */
    bool is_returned;             /* the message is for a return path of ours: it is read here */
    struct message *message;      /* owned; from MAIL to the end of data */
    struct rcpt_set rcpts;        /* private; with message */
    struct smtp_content *content; /* owned; from DATA to the end of data */
    const char *end_reason;       /* static; why it was closed, for the log: quit, refused, errors,
                                     foreign-protocol, shutdown, idle-timeout, session-timeout,
                                     transaction-timeout; NULL until then */
};

/* Starts with the greeting (220, or 554 when the client is refused); with implicit TLS it waits for
 * smtp_session_secured first. */
void smtp_session_init(struct smtp_session *s, const struct smtp_service *service,
                       const struct smtp_peer *peer, const struct now *now);
void smtp_session_done(
    struct smtp_session *s); /* frees all it owns; an unfinished message is gone (P-81) */

/* Takes bytes until s->wait says stop or all are taken; returns how many were taken. What was not
 * taken must be fed again first, once s->wait is SMTP_WAIT_INPUT. Stops early too, with wait still
 * INPUT, when s->out holds more than SMTP_OUT_HIGH octets (P-112): flush, then feed the rest. */
#define SMTP_LINE_MAX      2048                /* octets of a command line before its LF (P-20) */
#define SMTP_LINE_MAX_AUTH (SASL_TEXT_MAX + 1) /* ... of a line of AUTH, its CR counted */
#define SMTP_OUT_MAX       (64 * 1024)
#define SMTP_OUT_HIGH      (32 * 1024)
size_t smtp_session_input(struct smtp_session *s, struct slice in, const struct now *now);

/* True while content is coming and its header section is over: from here on the driver may take
 * octets off the front of s->message->content. */
bool smtp_session_content_is_body(const struct smtp_session *s);

/* The handshake is over: all that was said in clear is forgotten (P-124). tls lives as long as the
 * connection. */
void smtp_session_secured(struct smtp_session *s, const struct smtp_tls *tls,
                          const struct now *now);
/* With SMTP_WAIT_AUTH. */
void smtp_session_get_auth(const struct smtp_session *s, struct sasl_request *out);
void smtp_session_auth_answer(struct smtp_session *s, const struct sasl_answer *answer,
                              const struct now *now);
/* With SMTP_WAIT_ADMIT; slices live until the answer. */
void smtp_session_get_admission(const struct smtp_session *s, struct smtp_admission *out);
/* reason: of a suppression, "" otherwise. */
void smtp_session_admitted(struct smtp_session *s, enum smtp_admit answer, struct slice reason,
                           const struct now *now);

/* With SMTP_WAIT_COMMIT: hands over the message; the caller owns it. Its id, trace header, size,
 * flags and accepted_ms are set. */
struct message *smtp_session_take_message(struct smtp_session *s);
/* The queue's answer; writes the reply "250 2.0.0 Ok: queued as ID" or 451/452. */
void smtp_session_verdict(struct smtp_session *s, enum smtp_verdict verdict, const char *id,
                          const struct now *now);

/* When the session must be looked at next, monotonic ms (the nearest of its deadlines). INT64_MAX:
 * never, because the client waits for us (COMMIT), or all that is left is the driver's (CLOSED). */
int64_t smtp_session_deadline(const struct smtp_session *s);
/* A deadline may have passed: 421 4.4.2 and SMTP_WAIT_CLOSE when one has (P-114). */
void smtp_session_tick(struct smtp_session *s, const struct now *now);
/* Shutting down: closes with 421 4.3.2 when between transactions, else lets the message finish. */
void smtp_session_drain(struct smtp_session *s, const struct now *now);
