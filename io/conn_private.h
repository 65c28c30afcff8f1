/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * conn_private - what conn.c (sockets, holding, sending) and conn_tls.c (what TLS puts in between)
 * share.
 */
#include "io/conn.h"
#include "io/tls.h"

struct flight {
    struct gather out;
    struct msghdr msg;
    struct iovec *iov; /* owned */
    uint32_t iov_cap;
    uint32_t part, offset; /* where the next send, or the next record, starts */
    uint32_t plain;        /* octets of plaintext in it, when it is sealed */
    bool is_sealed;        /* holds ciphertext */
    struct flight *next;   /* spare list */
};

/* WAITING: what was said in clear has not all left yet. */
enum secure_state { SECURE_WAITING, SECURE_HANDSHAKE, SECURE_OPEN, SECURE_FAILED };

struct conn_secure {
    struct conn *conn; /* borrowed */
    struct tls_session *tls;
    enum secure_state state;
    bool drops_clear;       /* we spoke in clear before: what comes until TLS begins is forged */
    bool is_notified;       /* the peer said close_notify */
    bool has_said_goodbye;  /* we did */
    struct chain *cipher;   /* owned; ciphertext not taken yet; NULL mostly */
    struct flight *clear;   /* owned; in clear, to leave before the handshake */
    struct flight *sealing; /* owned; plaintext that is being encrypted */
    struct list step;       /* on the table's handshakes while ciphertext waits for a step */
};

/* --- conn_flight.c --------------------------------------------------------------------------- */

struct flight *flight_take(struct conn_table *t);         /* empty */
void flight_give(struct conn_table *t, struct flight *f); /* NULL is harmless */
void flight_free_spares(struct conn_table *t);
/* Moves the start past n octets that have left. */
void flight_advance(struct flight *f, size_t n);
bool flight_is_over(const struct flight *f);

/* --- conn.c ---------------------------------------------------------------------------------- */

/* Sends c->flying from where it stands. */
void conn_submit_flight(struct conn *c);
void conn_start_flight(struct conn *c);
void conn_mark_dirty(struct conn *c);
/* Gives input to the owner; what it did not take is held, and the connection is paused then. */
void conn_offer(struct conn *c, struct slice in);
/* Appends to c->held or another chain of the connection; too much closes it. */
void conn_hold(struct conn *c, struct chain **chain, struct slice in);
/* Takes octets off the front of a held chain; NULL when it is empty then. */
void conn_drop(struct chain **chain, size_t n);
void conn_free_chain(struct chain **chain);
/* No more is received until c->is_paused is cleared and the connection marked dirty. */
void conn_stop_receiving(struct conn *c);
/* Nothing more will come; tells the owner when it has taken all that came before. */
void conn_ended(struct conn *c, int result);
void conn_tell_end(struct conn *c);
/* Lingers once all output has left. */
void conn_end_after_send(struct conn *c);

/* --- conn_tls.c; all but the first only where c->secure is ----------------------------------- */

/* Ciphertext has come. */
void conn_secure_input(struct conn *c, struct slice in);
/* Input that the owner did not take when it started TLS. */
void conn_secure_leftover(struct conn *c, struct slice in);
/* Decrypts what is held, as far as the owner takes it. */
void conn_secure_deliver(struct conn *c);
/* True when plaintext of c->held may be delivered. */
static inline bool conn_secure_is_open(const struct conn *c)
{
    return c->secure->state == SECURE_OPEN;
}
/* There is ciphertext that may be decrypted. */
static inline bool conn_secure_has_input(const struct conn *c)
{
    return c->secure->cipher && c->secure->state == SECURE_OPEN;
}
/* All that came was decrypted, and the owner does not know of the end by a failure. */
static inline bool conn_secure_is_drained(const struct conn *c)
{
    return !c->secure->cipher && c->secure->state != SECURE_FAILED;
}
/* What on_end is told. */
int conn_secure_end(const struct conn *c);
/* There is something to be sent, or to be said before the end. */
bool conn_secure_has_output(const struct conn *c);
/* Makes the next flight, if there is something to send. */
void conn_secure_start_flight(struct conn *c);
/* A flight has left. */
void conn_secure_flight_left(struct conn *c);
void conn_secure_free(struct conn *c);
/* The handshake steps of this turn. */
void conn_secure_turn(struct conn_table *t);
