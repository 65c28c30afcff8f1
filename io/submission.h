/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * submission - one client's session on its connection; private to drive_submit.c and the
 * submission*.c files.
 *
 *     submission.c         opening, the PROXY header, connection events, what follows each event
 *     submission_ask.c     what the session waits for: TLS, the authenticator, admission
 *     submission_stream.c  large messages and the commit
 *
 * A submission is made at accept and lives until its connection's slot is free. It is *blocked*
 * while it waits for an answer, for chunks on their way to Redis, or for content memory: then it
 * takes no input (the connection holds what comes) until submission_unblock.
 */
#include "core/smtp/proxy.h"
#include "core/smtp/session.h"
#include "io/authenticator.h"
#include "io/drive_queue.h"
#include "io/drive_submit.h"
#include "io/returns.h"
#include "io/signer.h"
#include "io/tls.h"

#define SUBMISSION_CLIENT_MAX 64
#define SUBMISSION_CHUNKS_MAX 2 /* of one message on their way to Redis at once */

struct accept_slot {
    struct sockaddr_storage addr;
    socklen_t len;
    size_t listener;
    bool is_armed; /* True exactly while an accept is submitted and not completed */
};

struct submit_driver {
    struct worker *w;              /* borrowed */
    struct smtp_server servers[2]; /* the second: of listeners with hide_client */
    struct smtp_service *services; /* owned; one for each of the worker's listeners */
    struct returns *returns;       /* owned */
    struct accept_slot *slots;     /* owned; ACCEPTS_PER_LISTENER for each listener */
    size_t slot_count;
    struct list sessions;       /* struct submission */
    struct list memory_waiters; /* blocked for content memory */
    uint32_t session_count, session_max;
    uint32_t busy, committing; /* sessions inside a transaction; of those, waiting for the queue */
    struct wheel_timer accept_pause; /* set while accepting rests */
};

/* Content on its way to Redis while it arrives. */
struct submission_stream {
    struct queue_chunk *chunks[SUBMISSION_CHUNKS_MAX]; /* borrowed; NULL: free place */
    uint32_t in_flight;
    uint16_t shard;
    enum smtp_verdict verdict; /* SMTP_QUEUED while every chunk was stored */
    bool is_committing;        /* the end of data was seen; commit when in_flight is 0 */
    struct message *message;   /* owned; with is_committing */
};

/* What the session is told of its TLS. */
struct submission_tls {
    struct smtp_tls told;
    char binding[TLS_BINDING_MAX];
};

struct submission_admit;

/* What comes before the first word of SMTP. */
struct submission_door {
    struct buf proxy;             /* octets of an unfinished PROXY header */
    struct sockaddr_storage addr; /* of the load balancer */
    int64_t deadline_ms;          /* monotonic */
};

struct submission {
    struct list node;   /* on sessions */
    struct list waiter; /* on memory_waiters, while blocked for memory */
    struct submit_driver *d;
    struct conn *conn; /* borrowed; ours until on_closed */
    struct smtp_session session;
    struct wheel_timer timer;
    struct commit_entry *entry;             /* borrowed; while the queue has the message */
    struct returning *returning;            /* borrowed; while a report is taken in */
    struct sign_work *signing;              /* borrowed; while the message is being signed */
    struct submission_stream *stream;       /* owned; only for a large message */
    struct submission_door *door;           /* owned; until the PROXY header has come */
    struct submission_tls *tls;             /* owned; NULL: in clear */
    struct auth_ask *ask;                   /* borrowed; while the authenticator thinks */
    struct submission_admit *admit;         /* borrowed; while a recipient is asked about */
    const struct config_listener *listener; /* borrowed */
    const struct config_tenant *counted; /* borrowed; whose sessions this is one of; NULL: none */
    int64_t handshake_until_ms;          /* monotonic; 0: no handshake is going on */
    uint32_t address_ticket;             /* of address_caps; 0: not counted */
    bool is_greeted;                     /* the session exists: its door is passed */
    bool is_busy;                        /* counted in d->busy */
    bool is_over;                        /* conn_finish or conn_close was called */
    bool peer_is_gone;                   /* the client ended its side */
    char client[SUBMISSION_CLIENT_MAX];
};

/* --- submission.c ---------------------------------------------------------------------------- */

/* Takes the socket; false: the connection table is full and the socket is still the caller's. */
bool submission_open(struct submit_driver *d, struct ring_socket socket,
                     const struct accept_slot *slot);
/* Sends what the session said, does what it waits for, and moves its deadline. */
void submission_after_event(struct submission *s);
/* Whether a listener (ctx) trusts an address that XCLIENT named. */
void submission_judge(const void *ctx, struct slice client, struct smtp_peer *peer);
void submission_unblock(struct submission *s);
/* True when the session must not be given more input now. */
bool submission_is_blocked(struct submission *s);
/* The last word to a client that gets no session; where TLS is implicit there can be none (P-127),
 * and the connection is closed. */
void submission_dismiss(struct worker *w, struct conn *c, const struct config_listener *l,
                        enum reply_id why);
/* Ends a submission that has nothing to say. */
void submission_close(struct submission *s);

/* --- submission_ask.c ------------------------------------------------------------------------ */

void submission_start_tls(struct submission *s);
void submission_on_secure(struct conn *c, int result);
void submission_ask_auth(struct submission *s);
void submission_ask_admission(struct submission *s);
/* The submission is gone: nobody waits for answers any more. */
void submission_forget_asks(struct submission *s);
/* One session more of this tenant; false: it has as many as it may. */
bool submission_count_tenant(struct submission *s, const struct config_tenant *tenant);

/* --- submission_stream.c --------------------------------------------------------------------- */

/* Moves content to Redis while it arrives. False: no more can be taken now. */
bool submission_stream_content(struct submission *s);
/* The stream is over: chunks on their way are not waited for. */
void submission_stream_done(struct submission *s);
/* A streamed message that was refused or dropped: its chunks vanish. */
bool submission_stream_is_orphaned(const struct submission *s);
/* The message goes to the queue, after it was signed and its chunks are in Redis. */
void submission_begin_commit(struct submission *s);
