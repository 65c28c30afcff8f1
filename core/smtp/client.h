/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * smtp_client - the client side of one outbound connection, bytes in, effects out.
 *
 * The driver (io/drive_relay.c) feeds what the peer sent, asks smtp_client_next what to send, and
 * collects finished transactions. Every command is a row: what I send beside where its reply leads.
 * A send cursor and a receive cursor walk the same rows, so with PIPELINING the commands of a
 * transaction go out together, and MAIL, RCPT, DATA of the next transaction follow the final dot of
 * the present one in the same flight (RFC 2920 3.1 allows content to begin a group).
 *
 * Life:   GREETING -> EHLO (-> HELO) -> READY <-> BUSY -> QUIT -> CLOSED
 *         EHLO -> TLS -> EHLO (STARTTLS); TLS -> GREETING (implicit); EHLO -> AUTH -> READY
 *         any -> BROKEN: a 421, a protocol error, a timeout (P-165, P-168, P-170)
 * Limits: two transactions at once; replies as reply.h bounds them.
 */
#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/gather.h"
#include "core/base/list.h"
#include "core/smtp/dot.h"
#include "core/smtp/message.h"
#include "core/smtp/reply.h"

/* Where a recipient's outcome was decided; also names the step in logs and bounces. */
enum outcome_stage {
    OUTCOME_NONE, /* not decided */
    OUTCOME_DNS,
    OUTCOME_CONNECT,
    OUTCOME_GREETING,
    OUTCOME_EHLO,
    OUTCOME_AUTH, /* logging in to a smarthost */
    OUTCOME_MAIL,
    OUTCOME_RCPT,
    OUTCOME_DATA,
    OUTCOME_DOT,     /* the reply to the final dot: 2xx is delivered */
    OUTCOME_LOST,    /* the connection ended or timed out before the final dot was sent */
    OUTCOME_UNKNOWN, /* ... after the final dot, before its reply: may have been delivered (P-185)
                      */
    OUTCOME_LOCAL,   /* decided here, without asking a peer: routing, limits, expiry */
    OUTCOME_TLS,     /* no encryption, or not with whom it should be */
};

enum client_tls {
    CLIENT_TLS_OFF,
    CLIENT_TLS_MAY,      /* when it is offered; a refusal of STARTTLS leaves it in clear */
    CLIENT_TLS_REQUIRED, /* nothing is said in clear but EHLO and STARTTLS */
    CLIENT_TLS_IMPLICIT, /* nothing at all */
};

enum client_login {
    CLIENT_LOGIN_PLAIN = 1 << 0,
    CLIENT_LOGIN_LOGIN = 1 << 1,
    CLIENT_LOGIN_XOAUTH2 = 1 << 2,
};

/* What is fixed before a connection is made. */
struct client_policy {
    enum client_tls tls;
    struct slice user;   /* borrowed; empty: no AUTH */
    struct slice secret; /* borrowed; the password, or the token of XOAUTH2 */
    uint32_t logins;     /* bits of enum client_login that may be used */
    bool is_helo_only;   /* EHLO is not tried: the peer hung up on it (P-163) */
};

struct rcpt_outcome {
    enum outcome_stage stage;
    int code;          /* the reply's code, or 4xx/5xx chosen here when no reply came */
    char enhanced[12]; /* "5.1.1" or "" */
    struct slice text; /* in the transaction's arena; the peer's words made printable, or ours */
};

/* One transaction: one message, some of its recipients. The caller fills the first part and keeps
 * it alive until it comes back through smtp_client_finished. One that is sent again, because the
 * peer took no BDAT (P-188), is still the same transaction here. */
struct smtp_txn {
    struct list node;              /* the client's, while it has the transaction */
    const struct message *message; /* borrowed */
    const uint32_t *rcpts;         /* borrowed; indices into message->rcpts */
    uint32_t rcpt_count;           /* at least 1 */
    struct slice return_path; /* borrowed; said in MAIL for the message's sender; empty: that */
    struct rcpt_outcome *outcomes; /* borrowed; rcpt_count of them, zeroed by the caller */
    struct arena *arena;           /* borrowed; for the outcomes' text */
    void *owner;                   /* the driver's */
    /* the client's from here on */
    uint32_t rcpt_next; /* the first recipient not said and not decided, or rcpt_count */
    uint32_t rcpts_said, rcpts_replied, rcpts_good;
    uint32_t rcpts_decided; /* outcomes whose stage is not NONE */
    uint32_t awaited;       /* replies that are expected for its commands */
    bool mail_failed, data_failed, body_sent, dot_sent;
    bool by_bdat;    /* its content goes as one chunk of BDAT, octet by octet as it is */
    bool passes_dsn; /* the peer reports what becomes of it (DSN): we need not */
    bool is_unfit;   /* finished without a word: this host lacks what the message needs, another
                        may have it */
};

enum client_state {
    CLIENT_GREETING,
    CLIENT_EHLO,
    CLIENT_HELO,
    CLIENT_TLS, /* the driver shakes hands: smtp_client_secured, or smtp_client_lost */
    CLIENT_AUTH,
    CLIENT_READY, /* idle, takes transactions */
    CLIENT_BUSY,  /* one or two transactions under way */
    CLIENT_QUIT,
    CLIENT_CLOSED, /* over, in good order */
    CLIENT_BROKEN, /* over: `failure` says why; close the connection */
};

enum client_next {
    CLIENT_NEXT_NOTHING, /* wait for input */
    CLIENT_NEXT_BYTES,   /* commands were appended to out; send them (call again first: more may
                            follow) */
    CLIENT_NEXT_BODY, /* now the content of *txn, then smtp_client_body_sent: dot-stuffed and ended;
                       * with txn->by_bdat, whose command was appended to out, message->size octets
                       * of it and nothing else */
    CLIENT_NEXT_TLS,  /* start TLS behind what was said, then smtp_client_secured */
    CLIENT_NEXT_CLOSE, /* close the connection */
};

enum client_capability {
    CLIENT_CAN_PIPELINING = 1 << 0,
    CLIENT_CAN_SIZE = 1 << 1,
    CLIENT_CAN_8BITMIME = 1 << 2,
    CLIENT_CAN_ENHANCED = 1 << 3,
    CLIENT_CAN_CHUNKING = 1 << 4,
    CLIENT_CAN_STARTTLS = 1 << 5,
    CLIENT_CAN_BINARYMIME = 1 << 6,
    CLIENT_CAN_SMTPUTF8 = 1 << 7,
    CLIENT_CAN_DSN = 1 << 8,
    CLIENT_CAN_DELIVERBY = 1 << 9,
    CLIENT_CAN_MT_PRIORITY = 1 << 10,
    CLIENT_CAN_LIMITS = 1 << 11,
    CLIENT_CAN_REQUIRETLS = 1 << 12,
    CLIENT_CAN_AUTH = 1 << 13,
};

/* What a peer announced by LIMITS (RFC 9422); 0: no limit. */
struct client_limits {
    uint32_t mail_max;        /* transactions in one connection */
    uint32_t rcpt_max;        /* recipients in one transaction */
    uint32_t rcpt_domain_max; /* their domains */
};

struct smtp_client {
    enum client_state state;
    uint32_t capabilities;       /* bits of enum client_capability, of the last EHLO */
    uint64_t size_max;           /* the peer's SIZE; 0: none given */
    uint64_t deliver_by_min_s;   /* the peer's DELIVERBY; 0: any time */
    struct client_limits limits; /* the caller's to obey, in what it gives (P-173) */
    uint32_t logins;             /* the peer's AUTH: bits of enum client_login that we know */
    struct client_policy policy;
    struct slice helo;             /* borrowed: our name */
    uint32_t reply_timeout_cap_ms; /* 0: RFC 5321 4.5.3.2 as it is */
    struct list active;            /* transactions under way, oldest first; at most 2 */
    struct list done;              /* finished ones */
    struct reply_parser parser;
    struct rcpt_outcome failure; /* with BROKEN: stage, code, text (text in failure_text) */
    char failure_text[SMTP_REPLY_TEXT_MAX];
    int64_t wall_ms;          /* wall clock, as of the last call */
    int64_t waiting_since_ms; /* monotonic; when waiting for the oldest expected reply, or for
                                 content to leave, began; -1: nothing is waited for */
    uint32_t transactions;    /* begun on this connection */
    /* Expected replies, oldest first: a ring of rows. Private to client.c. */
    struct client_expect *expect; /* owned */
    uint32_t expect_head, expect_count, expect_cap;
    /* The send cursor. Private to client.c. */
    struct smtp_txn *sending; /* borrowed; whose commands go out next; NULL: none */
    uint8_t send_step;
    uint8_t challenges; /* of the login, so far */
    uint8_t ehlo_lines; /* of the reply to EHLO so far; at most SMTP_REPLY_LINES_MAX */
    bool quit_wanted;
    bool is_greeted;  /* the peer's 220 came */
    bool is_secure;   /* TLS is spoken */
    bool is_verified; /* ... with whom the policy names: fit for REQUIRETLS */
    bool is_logged_in;
};

void smtp_client_init(struct smtp_client *c, const struct client_policy *policy, struct slice helo,
                      uint32_t reply_timeout_cap_ms, const struct now *now);
/* The handshake that CLIENT_NEXT_TLS asked for is over. is_verified: the peer is who the route or
 * its domain's policy says, not merely somebody. */
void smtp_client_secured(struct smtp_client *c, bool is_verified, const struct now *now);
/* True when only TLS failed and the policy would have had it in clear: a new connection without TLS
 * may be tried (P-192). */
bool smtp_client_may_go_clear(const struct smtp_client *c);
/* True while EHLO was said and nothing was heard since: a peer that ends now may know HELO only. */
bool smtp_client_awaits_ehlo(const struct smtp_client *c);
/* Frees what the client owns. Transactions it still has come back through smtp_client_finished
 * first: call smtp_client_lost before. */
void smtp_client_done(struct smtp_client *c);

/* Takes everything the peer sent. */
void smtp_client_input(struct smtp_client *c, struct slice in, const struct now *now);
/* True when a transaction may be given: READY, or BUSY with a pipelining peer whose last body is
 * under way by DATA and no second transaction waits. */
bool smtp_client_can_take(const struct smtp_client *c);
/* To be called in READY or BUSY with less than two transactions under way, or when the connection
 * is over: then, and when the peer lacks what the message needs (client_needs.c), the transaction
 * is finished at once. */
void smtp_client_begin(struct smtp_client *c, struct smtp_txn *txn, const struct now *now);
/* What to do next for sending. BYTES appends to out. */
enum client_next smtp_client_next(struct smtp_client *c, struct gather *out, struct smtp_txn **txn,
                                  const struct now *now);
/* The body of the transaction given by CLIENT_NEXT_BODY was put into the output, its end too. */
void smtp_client_body_sent(struct smtp_client *c, struct smtp_txn *txn, const struct now *now);
/* Octets left for the peer: content that moves is not late, however large it is. Without these
 * calls the whole content has three minutes, and its reply ten from body_sent on (P-161). */
void smtp_client_progress(struct smtp_client *c, const struct now *now);
/* A transaction that is over, every outcome decided; NULL: none (left). */
struct smtp_txn *smtp_client_finished(struct smtp_client *c);
/* The connection ended (EOF, reset, timeout of the driver's): decides what is open and goes BROKEN
 * or CLOSED. `why` is static. */
void smtp_client_lost(struct smtp_client *c, enum outcome_stage stage, const char *why);
void smtp_client_quit(struct smtp_client *c); /* when READY: QUIT next */
/* Monotonic ms at which the peer must have answered (P-161); INT64_MAX: nothing is awaited. */
int64_t smtp_client_deadline(const struct smtp_client *c);
/* The deadline has passed: outcomes as after a lost connection, "4.4.2". */
void smtp_client_timeout(struct smtp_client *c);
