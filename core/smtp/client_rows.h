/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * client_rows - what the files of the client machine share; nobody else includes it. The essay is
 * in client.c.
 */
#include "core/base/must.h"
#include "core/smtp/client.h"

enum client_step {
    STEP_IDLE,     /* nothing to say */
    STEP_GREETING, /* theirs */
    STEP_EHLO,
    STEP_HELO,
    STEP_STARTTLS,
    STEP_TLS, /* the driver must be told to shake hands */
    STEP_AUTH,
    STEP_AUTH_NEXT, /* what the mechanism says after a 334 */
    STEP_MAIL,
    STEP_RCPT,
    STEP_DATA,
    STEP_AWAIT,    /* nothing to say before replies are in */
    STEP_BODY,     /* 354 is there: the driver must be told */
    STEP_WRITING,  /* the driver writes content */
    STEP_DOT,      /* ends content; the driver says it */
    STEP_LONE_DOT, /* ends content that nobody is to get */
    STEP_RSET,
    STEP_QUIT,
    STEP_SAME, /* of a listener: the send cursor stays */
};

struct client_expect {
    enum client_step step;
    uint32_t rcpt;        /* with RCPT: index into the transaction's recipients */
    struct smtp_txn *txn; /* borrowed; NULL: a command of the connection */
};

/* Speakers append the command and return the step after it; listeners return where the send cursor
 * goes. */
typedef enum client_step client_say_fn(struct smtp_client *c, struct gather *out);
typedef enum client_step client_on_fn(struct smtp_client *c, const struct client_expect *e,
                                      const struct smtp_reply *r);

struct client_row {
    const char *name;         /* for texts; NULL: a step without a reply */
    client_say_fn *say;       /* NULL: nothing of ours to say here */
    client_on_fn *listen;     /* what its reply means */
    uint32_t timeout_ms;      /* for the whole reply */
    enum outcome_stage stage; /* of outcomes that its reply decides */
};

extern const struct client_row client_rows[]; /* by enum client_step; client_rows.c */

static inline void client_enter(struct smtp_client *c, enum client_state state)
{
    c->state = state;
}

static inline bool client_is_over(const struct smtp_client *c)
{
    return c->state == CLIENT_CLOSED || c->state == CLIENT_BROKEN;
}

/* The first recipient from i on that is not decided, or rcpt_count. */
static inline uint32_t client_open_rcpt(const struct smtp_txn *txn, uint32_t i)
{
    while (i < txn->rcpt_count && txn->outcomes[i].stage != OUTCOME_NONE)
        i++;
    return i;
}

static inline bool client_can(const struct smtp_client *c, enum client_capability capability)
{
    return c->capabilities & capability;
}

/* What comes when EHLO was answered: STARTTLS, AUTH, or READY (client_secure.c). Returns where the
 * send cursor goes. */
enum client_step client_after_ehlo(struct smtp_client *c);
client_say_fn client_say_starttls, client_say_auth, client_say_auth_next;
client_on_fn client_on_starttls_reply, client_on_auth_reply;
/* The words after AUTH in the reply to EHLO. */
void client_take_logins(struct smtp_client *c, struct slice words);

void client_forget_offers(struct smtp_client *c); /* until the next EHLO */
/* A line of the reply to EHLO came (client_rows.c). */
void client_take_ehlo_line(struct smtp_client *c, struct slice line);

/* What a message needs of a peer (client_needs.c). False: it cannot be sent there, and *why says it
 * in static words; txn->is_unfit is set when another host might take it. */
bool client_meets_needs(const struct smtp_client *c, struct smtp_txn *txn,
                        struct rcpt_outcome *why);
/* Decides the recipients that this peer cannot be told of; some are left. */
void client_decline_rcpts(const struct smtp_client *c, struct smtp_txn *txn);
/* True when its content is to go by BDAT. */
bool client_prefers_bdat(const struct smtp_client *c, const struct message *m);
/* What follows the path in MAIL and RCPT, each with its space before it (P-177). */
void client_put_mail_params(const struct smtp_client *c, const struct message *m,
                            struct gather *out);
void client_put_rcpt_params(const struct smtp_client *c, const struct message *m,
                            const struct rcpt *rcpt, struct gather *out);

/* The address in MAIL (client_rows.c). */
struct slice client_sender(const struct smtp_txn *txn);

/* Verdicts (client_verdict.c). Texts of verdicts are borrowed; deciding copies them. */
struct rcpt_outcome client_verdict_of(const struct smtp_reply *r, enum outcome_stage stage);
struct rcpt_outcome client_verdict_ours(enum outcome_stage stage, int code, const char *enhanced,
                                        const char *text);
void client_set_enhanced(struct rcpt_outcome *o, const char *enhanced);
bool client_all_decided(const struct smtp_txn *txn);
void client_decide(struct smtp_txn *txn, uint32_t rcpt, struct rcpt_outcome v);
/* Every undecided recipient gets this verdict; they share one copy of its text. */
void client_decide_open(struct smtp_txn *txn, struct rcpt_outcome v);
/* Moves a decided transaction to `done`. */
void client_finish(struct smtp_client *c, struct smtp_txn *txn);
/* The connection is over. `whose` is the transaction that v was said about (NULL: none): the others
 * were merely there. */
void client_break(struct smtp_client *c, struct rcpt_outcome v, const struct smtp_txn *whose);
/* Octets in clear where a handshake should begin: somebody else's (P-194). */
void client_break_injected(struct smtp_client *c);
/* The next word of a line, words cut off; empty at its end. */
struct slice client_next_word(struct slice *line);
/* Breaks the connection by a reply that refuses, or by one that is none; returns STEP_IDLE. */
enum client_step client_refused(struct smtp_client *c, const struct smtp_reply *r,
                                enum outcome_stage stage);
enum client_step client_protocol_error(struct smtp_client *c, const struct client_expect *e,
                                       const char *why);
/* Replies and commands do not match any more; e: what was expected, or NULL. */
void client_break_protocol(struct smtp_client *c, const struct client_expect *e, const char *why);
