/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * conn - one stream connection of any kind: a submission client, an outbound SMTP peer, Redis.
 *
 * The table is a slab sized at start; a connection is an index with a generation. Output is
 * appended to conn_out and leaves once a loop turn, in one send per connection, one send in flight.
 * Input is delivered as it comes; what the owner does not take is held here and delivered again
 * after conn_resume.
 *
 * Life:   CONNECTING -> OPEN -> LINGER (all is said, waiting for the peer's end) -> CLOSING ->
 * free An operation in flight pins the slot: on_closed comes after the last completion, and only
 *         then may memory that the output points at go.
 * Limits: table size; CONN_HELD_MAX octets of input held; CONN_LINGER_MS; CONN_HANDSHAKES_TURN.
 */
#include "core/base/chain.h"
#include "core/base/clock.h"
#include "core/base/gather.h"
#include "core/base/list.h"
#include "core/base/metrics.h"
#include "core/base/wheel.h"
#include "io/ring.h"

#define CONN_HELD_MAX                                                                              \
    (2 * RING_BUFFERS_MAX * RING_BUFFER_SIZE) /* what a ring can bring until a cancel works */
#define CONN_LINGER_MS 2000
#define CONN_POLITE_MS 20 /* a peer that has heard all may end first, before we shut our side */
#define CONN_FLUSH_MS                                                                              \
    30000 /* a peer that does not read what was said last is not waited for longer */
#define CONN_HANDSHAKES_TURN                                                                       \
    8 /* TLS handshake steps in one loop turn, of all connections: each may cost 0.7 ms */

struct conn;

struct conn_events {
    /* Connected (0) or not (-errno; on_closed follows). Only after conn_connect. */
    void (*on_open)(struct conn *c, int result);
    /* Returns how many octets were taken; fewer than all means: hold the rest until conn_resume. */
    size_t (*on_data)(struct conn *c, struct slice in);
    /* The peer ended its side (0) or the connection broke (-errno). The owner decides: conn_close
     * now, or after what it still has to send. */
    void (*on_end)(struct conn *c, int result);
    /* The handshake that conn_start_tls began is over (0), or failed (-EPROTO; the connection is
     * being closed and on_closed follows). May be NULL where TLS is never started. */
    void (*on_secure)(struct conn *c, int result);
    /* Everything appended before stream offset `sent` has left; may be NULL. */
    void (*on_sent)(struct conn *c, uint64_t sent);
    /* The slot is free after this call; drop every pointer to it. */
    void (*on_closed)(struct conn *c);
};

enum conn_state { CONN_FREE, CONN_CONNECTING, CONN_OPEN, CONN_LINGER, CONN_CLOSING };

struct flight;      /* conn_private.h: output on its way */
struct conn_secure; /* conn_private.h: what a connection that speaks TLS has more */

struct conn {
    struct conn_table *table;         /* borrowed */
    const struct conn_events *events; /* static */
    void *owner;                      /* the owner's; set before the first event */
    struct ring_socket socket;
    uint32_t index, generation;
    enum conn_state state;
    uint8_t in_flight;     /* operations not completed: receive, send, connect, shutdown */
    bool recv_is_armed;    /* True exactly while a receive is submitted and not completed */
    bool recv_once;        /* Unix sockets: see ring_recv */
    bool is_paused;        /* input is held, not delivered */
    bool is_ended;         /* the peer's side is over; on_end was called unless input is held */
    bool is_starved;       /* waits for a receive buffer */
    int end_result;        /* with is_ended: 0 or -errno */
    bool close_after_send; /* linger once all output has left */
    bool is_shut;          /* our side is: only in LINGER */
    struct list node;      /* free list, or the starved list */
    struct list
        dirty; /* on the table's dirty list while output or input waits for the turn's end */
    struct chain *held;              /* owned; input not taken yet; NULL mostly */
    struct conn_secure *secure;      /* owned; NULL while it speaks in clear */
    struct flight *filling, *flying; /* owned; NULL when nothing is to be sent */
    uint64_t queued;                 /* octets ever appended, up to the last flush */
    uint64_t sent;                   /* octets that have left */
    struct sockaddr *peer;           /* owned; only while CONNECTING */
    struct wheel_timer *linger;      /* owned; from conn_finish on */
};

struct conn_table {
    struct ring *ring;       /* borrowed */
    struct wheel *wheel;     /* borrowed */
    struct metrics *metrics; /* borrowed */
    const struct now *now;   /* borrowed */
    struct conn *slots;      /* owned */
    uint32_t count, used, live, starved_count;
    uint64_t events; /* owners' functions called by conn_table_flush so far */
    struct list free, starved, dirty;
    struct list handshakes;       /* connections with ciphertext for a handshake, oldest first */
    char *scratch;                /* owned; one TLS record in clear; NULL until TLS is spoken */
    struct flight *spare_flights; /* owned; recycled */
    uint32_t spare_count;
};

void conn_table_init(struct conn_table *t, struct ring *ring, struct wheel *wheel,
                     struct metrics *metrics, const struct now *now, uint32_t count);
static inline uint32_t conn_table_live(const struct conn_table *t)
{
    return t->live;
}
void conn_table_done(struct conn_table *t); /* frees all; the ring must be gone or idle */

/* Takes a slot for a connected socket and starts to receive; NULL: the table is full (the caller
 * closes the socket). */
struct conn *conn_adopt(struct conn_table *t, struct ring_socket s,
                        const struct conn_events *events, void *owner);
/* Starts to connect. from: the address of ours that it comes from, of the same family; NULL: the
 * system chooses. NULL: the table is full, or no socket could be made or bound (errno says). */
struct conn *conn_connect(struct conn_table *t, const struct sockaddr *from,
                          const struct sockaddr *addr, socklen_t len,
                          const struct conn_events *events, void *owner);

/* Where to append output; it leaves at the end of the loop turn. */
struct gather *conn_out(struct conn *c);
/* The stream offset of what was appended so far: on_sent with at least this means it has left. */
uint64_t conn_offset(const struct conn *c);
/* Octets appended and not yet sent. */
uint64_t conn_unsent(const struct conn *c);
/* Speaks TLS from here on; takes the session. What was appended so far leaves in clear first; input
 * that was not taken, and what comes before all that has left, is discarded (P-123): nobody else
 * can have sent it but an attacker, as the peer waits for our word. At the very start of a
 * connection, while nothing was said yet, nothing is discarded (implicit TLS, also when a PROXY
 * header came first). Then the handshake runs, on_secure tells, and
 * on_data and conn_out carry plaintext; offsets count plaintext. conn_finish says close_notify;
 * before the handshake is over it closes at once. A peer that goes without close_notify is told as
 * on_end(-ECONNABORTED) (P-136); one that breaks TLS gets an alert and is closed, after
 * on_end(-EPROTO). */
struct tls_session;
void conn_start_tls(struct conn *c, struct tls_session *tls);
/* NULL: in clear. Borrowed. */
const struct tls_session *conn_tls(const struct conn *c);
/* Delivers held input again, from the end of the turn on. */
void conn_resume(struct conn *c);
/* Sends what is appended, ends our side, waits shortly for the peer's end, then closes (P-15). */
void conn_finish(struct conn *c);
/* Closes at once; on_closed follows, never from inside this call. */
void conn_close(struct conn *c);
/* At the end of a loop turn: delivers resumed input, submits sends. True: there is more to do at
 * once. */
bool conn_table_flush(struct conn_table *t);
/* Receive buffers were given back: re-arms starved connections. */
void conn_table_feed_starved(struct conn_table *t);
