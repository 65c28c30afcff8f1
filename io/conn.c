/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: receive, hold, gather, send, linger, close.
 *
 * Closing. close(2) does not end a pending receive, so an end is always: cancel what is in flight
 * (or shut the socket), wait until in_flight is 0, close, tell the owner, free the slot and raise
 * its generation. Completions of the old generation find nobody.
 *
 * Pausing. When the owner takes less than it is given, the rest is held and nothing more is
 * delivered. The multishot receive stays armed until more arrives (a client that waits for our
 * reply sends nothing, so this costs nothing), and is then cancelled.
 *
 * Sending. Output collects in `filling`; at the end of the turn it becomes `flying` and one
 * sendmsg (or send, for a single part) carries it. A short send goes on where it stopped.
 *
 * TLS. A connection with `secure` takes a turn through conn_tls.c at four places: where input
 * comes, where held input is delivered, where a flight is made, and where the end is told.
 */
#include "core/base/must.h"
#include "io/conn_private.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLIGHT_IOV_MAX 1000
#define STARVED_TO_GROW                                                                            \
    4 /* connections that starve in one turn before more buffers are published */

/* --- the table ------------------------------------------------------------------------------- */

static void on_recv(void *ctx, const struct ring_done *done);
static void on_send(void *ctx, const struct ring_done *done);
static void on_connect(void *ctx, const struct ring_done *done);
static void on_shutdown(void *ctx, const struct ring_done *done);

void conn_table_init(struct conn_table *t, struct ring *ring, struct wheel *wheel,
                     struct metrics *metrics, const struct now *now, uint32_t count)
{
    *t = (struct conn_table){
        .ring = ring, .wheel = wheel, .metrics = metrics, .now = now, .count = count
    };
    /* Untouched slots cost no memory: the slab is zero pages until it is used. */
    t->slots = mem_zalloc(count * sizeof *t->slots);
    list_init(&t->free);
    list_init(&t->starved);
    list_init(&t->dirty);
    list_init(&t->handshakes);
    ring_on(ring, RING_RECV, on_recv, t);
    ring_on(ring, RING_SEND, on_send, t);
    ring_on(ring, RING_CONNECT, on_connect, t);
    ring_on(ring, RING_SHUTDOWN, on_shutdown, t);
}

static void release_memory(struct conn *c)
{
    if (c->secure)
        conn_secure_free(c);
    flight_give(c->table, c->filling);
    flight_give(c->table, c->flying);
    conn_free_chain(&c->held);
    if (c->linger) {
        wheel_clear(c->table->wheel, c->linger);
        free(c->linger);
    }
    free(c->peer);
    c->filling = c->flying = NULL;
    c->peer = NULL;
    c->linger = NULL;
}

void conn_table_done(struct conn_table *t)
{
    for (uint32_t i = 0; i < t->used; i++)
        if (t->slots[i].state != CONN_FREE) {
            release_memory(&t->slots[i]);
            if (!t->slots[i].socket.is_direct)
                close(t->slots[i].socket.fd);
        }
    flight_free_spares(t);
    free(t->scratch);
    free(t->slots);
}

static struct conn *take_slot(struct conn_table *t)
{
    struct list *node = list_pop_front(&t->free);
    struct conn *c;
    if (node) {
        c = list_entry(node, struct conn, node);
    } else {
        if (t->used == t->count)
            return NULL;
        c = &t->slots[t->used];
        c->index = t->used++;
    }
    t->live++;
    uint32_t index = c->index, generation = c->generation;
    *c = (struct conn){ .table = t, .index = index, .generation = generation };
    list_init(&c->node);
    list_init(&c->dirty);
    return c;
}

static struct ring_tag tag_of(const struct conn *c, enum ring_kind kind)
{
    return (struct ring_tag){ kind, c->generation, c->index };
}

/* The connection of a completion; NULL when its slot has been used again since. */
static struct conn *conn_of(struct conn_table *t, const struct ring_done *done)
{
    must(done->index < t->used);
    struct conn *c = &t->slots[done->index];
    return (c->generation & RING_GENERATION_MASK) == done->generation ? c : NULL;
}

void conn_mark_dirty(struct conn *c)
{
    if (list_is_empty(&c->dirty))
        list_push_back(&c->table->dirty, &c->dirty);
}

/* --- opening --------------------------------------------------------------------------------- */

static void arm_recv(struct conn *c)
{
    if (c->recv_is_armed || c->is_ended || c->is_starved)
        return;
    ring_recv(c->table->ring, c->socket, c->recv_once, tag_of(c, RING_RECV));
    c->recv_is_armed = true;
    c->in_flight++;
}

struct conn *conn_adopt(struct conn_table *t, struct ring_socket s,
                        const struct conn_events *events, void *owner)
{
    struct conn *c = take_slot(t);
    if (!c)
        return NULL;
    c->socket = s;
    c->events = events;
    c->owner = owner;
    c->state = CONN_OPEN;
    arm_recv(c);
    return c;
}

/* The port is chosen with connect, when the other end is known: one that is taken towards another
 * host will do. */
static int bound_socket(const struct sockaddr *from, sa_family_t family, socklen_t len)
{
    int one = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !from)
        return fd;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, from, len) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

struct conn *conn_connect(struct conn_table *t, const struct sockaddr *from,
                          const struct sockaddr *addr, socklen_t len,
                          const struct conn_events *events, void *owner)
{
    int one = 1;
    int fd = bound_socket(from, addr->sa_family, len);
    if (fd < 0)
        return NULL;
    struct conn *c = take_slot(t);
    if (!c) {
        close(fd);
        errno = ENFILE;
        return NULL;
    }
    c->recv_once = addr->sa_family == AF_UNIX;
    if (!c->recv_once)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->socket = (struct ring_socket){ fd, false };
    c->events = events;
    c->owner = owner;
    c->state = CONN_CONNECTING;
    /* The kernel reads it when the turn is submitted, long after the caller's has gone. */
    c->peer = mem_alloc(len);
    memcpy(c->peer, addr, len);
    ring_connect(t->ring, c->socket, c->peer, len, tag_of(c, RING_CONNECT));
    c->in_flight++;
    return c;
}

/* --- closing --------------------------------------------------------------------------------- */

static void free_slot(struct conn *c)
{
    struct conn_table *t = c->table;
    ring_close(t->ring, c->socket);
    list_remove(&c->dirty);
    list_remove(&c->node);
    c->events->on_closed(c);
    release_memory(c);
    c->state = CONN_FREE;
    c->generation++;
    t->live--;
    t->events++;
    list_push_front(&t->free, &c->node);
}

void conn_close(struct conn *c)
{
    if (c->state == CONN_CLOSING || c->state == CONN_FREE)
        return;
    c->state = CONN_CLOSING;
    if (c->is_starved) {
        list_remove(&c->node);
        c->table->starved_count--;
        c->is_starved = false;
    }
    if (c->in_flight > 0)
        ring_cancel_all(c->table->ring, c->socket);
    conn_mark_dirty(c); /* with nothing in flight the end of the turn frees it */
}

static void on_linger_over(struct wheel_timer *timer);

struct linger_timer {
    struct wheel_timer timer;
    struct conn *conn;
};

/* The connection ends by then, whatever its peer does. */
static void set_linger(struct conn *c, int64_t wait_ms)
{
    if (!c->linger) {
        struct linger_timer *l = mem_zalloc(sizeof *l);
        l->conn = c;
        wheel_timer_init(&l->timer, on_linger_over);
        c->linger = &l->timer;
    }
    wheel_set(c->table->wheel, c->linger, c->table->now->mono_ms + wait_ms);
}

/* All is said. Most peers end their side as soon as they have read it; they get a moment for that,
 * because io_uring hands a shutdown to a thread of its own, which costs more than the rest of a
 * short connection. */
static void start_linger(struct conn *c)
{
    if (c->is_ended) {
        conn_close(c);
        return;
    }
    c->state = CONN_LINGER;
    set_linger(c, CONN_POLITE_MS);
    c->is_paused = false;
    arm_recv(c);
}

static void shut(struct conn *c)
{
    c->is_shut = true;
    ring_shutdown(c->table->ring, c->socket, SHUT_WR, tag_of(c, RING_SHUTDOWN));
    c->in_flight++;
    set_linger(c, CONN_LINGER_MS);
}

static void on_linger_over(struct wheel_timer *timer)
{
    struct conn *c = container_of(timer, struct linger_timer, timer)->conn;
    if (c->state == CONN_LINGER && !c->is_shut)
        shut(c);
    else
        conn_close(c);
}

void conn_end_after_send(struct conn *c)
{
    c->close_after_send = true;
    set_linger(c, CONN_FLUSH_MS);
    conn_mark_dirty(c);
}

void conn_finish(struct conn *c)
{
    if (c->state != CONN_OPEN || (c->secure && !conn_secure_is_open(c))) {
        conn_close(c);
        return;
    }
    conn_end_after_send(c);
}

/* An operation has completed; true when the slot is gone with it. */
static bool operation_ended(struct conn *c)
{
    must(c->in_flight > 0);
    c->in_flight--;
    if (c->state != CONN_CLOSING || c->in_flight > 0)
        return false;
    free_slot(c);
    return true;
}

/* --- receiving ------------------------------------------------------------------------------- */

void conn_hold(struct conn *c, struct chain **chain, struct slice in)
{
    if (!*chain) {
        *chain = mem_alloc(sizeof **chain);
        chain_init(*chain, NULL);
    }
    chain_append(*chain, in);
    if ((*chain)->len > CONN_HELD_MAX)
        conn_close(c);
}

void conn_free_chain(struct chain **chain)
{
    if (!*chain)
        return;
    chain_done(*chain);
    free(*chain);
    *chain = NULL;
}

void conn_drop(struct chain **chain, size_t n)
{
    struct chain front;
    if (n == (*chain)->len) {
        conn_free_chain(chain);
    } else if (n > 0) {
        chain_init(&front, NULL);
        chain_split(*chain, n, &front);
        chain_done(&front);
    }
}

void conn_stop_receiving(struct conn *c)
{
    if (c->recv_is_armed && c->state == CONN_OPEN)
        ring_cancel(c->table->ring, tag_of(c, RING_RECV));
}

/* Gives input to the owner; returns how much was taken. What was not is left to the caller, and the
 * connection is paused then, unless the owner has resumed it meanwhile. */
static size_t offer(struct conn *c, struct slice in)
{
    c->is_paused = true;
    size_t taken = c->events->on_data(c, in);
    if (taken == in.len)
        c->is_paused = false;
    return taken;
}

void conn_offer(struct conn *c, struct slice in)
{
    size_t taken = offer(c, in);
    if (taken < in.len && c->state == CONN_OPEN)
        conn_hold(c, &c->held, slice_skip(in, taken));
}

static void deliver(struct conn *c, struct slice in)
{
    if (c->state == CONN_LINGER || c->state == CONN_CLOSING)
        return;
    if (c->secure) {
        conn_secure_input(c, in);
        return;
    }
    /* Behind what is held already, also when that is about to be delivered at the end of the turn:
     * octets never overtake each other. */
    if (c->is_paused || c->held) {
        conn_hold(c, &c->held, in);
        if (c->is_paused)
            conn_stop_receiving(c);
        return;
    }
    size_t taken = offer(c, in);
    if (taken == in.len || c->state != CONN_OPEN)
        return;
    if (c->secure) /* since this call */
        conn_secure_leftover(c, slice_skip(in, taken));
    else
        conn_hold(c, &c->held, slice_skip(in, taken));
}

static void starve(struct conn *c)
{
    struct conn_table *t = c->table;
    metrics_add(t->metrics, METRIC_BUFFER_STARVED_TOTAL, 1);
    c->is_starved = true;
    list_push_back(&t->starved, &c->node);
    t->starved_count++;
    /* One that floods has only itself to wait for: it gets its buffers back at the end of the turn.
     */
    if (t->starved_count >= STARVED_TO_GROW)
        ring_buffers_grow(t->ring);
}

void conn_table_feed_starved(struct conn_table *t)
{
    struct list waiting;
    list_init(&waiting);
    list_append_all(&waiting, &t->starved);
    t->starved_count = 0;
    struct list *node;
    while ((node = list_pop_front(&waiting))) {
        struct conn *c = list_entry(node, struct conn, node);
        c->is_starved = false;
        arm_recv(c);
    }
}

/* The end is told after all that came before it was taken: a client may send everything, QUIT too,
 * and shut its side. */
void conn_tell_end(struct conn *c)
{
    if (c->state == CONN_LINGER)
        conn_close(c);
    else if (c->state == CONN_OPEN && !c->held && !c->secure)
        c->events->on_end(c, c->end_result);
    else if (c->state == CONN_OPEN && !c->held && conn_secure_is_drained(c))
        c->events->on_end(c, conn_secure_end(c));
}

void conn_ended(struct conn *c, int result)
{
    if (c->is_ended)
        return;
    c->is_ended = true;
    c->end_result = result;
    conn_tell_end(c);
}

static void on_recv(void *ctx, const struct ring_done *done)
{
    struct conn_table *t = ctx;
    struct conn *c = conn_of(t, done);
    if (!c) {
        if (done->has_buffer)
            ring_buffer_return(t->ring, done->buffer);
        return;
    }
    if (!done->more)
        c->recv_is_armed = false;
    if (done->result > 0)
        deliver(c, done->data);
    if (done->has_buffer)
        ring_buffer_return(t->ring, done->buffer);
    if (done->more)
        return;
    if (operation_ended(c) || c->state == CONN_CLOSING)
        return;
    if (done->result == -ENOBUFS)
        starve(c);
    else if (done->result == 0 || (done->result < 0 && done->result != -ECANCELED &&
                                   done->result != -EINTR && done->result != -EAGAIN))
        conn_ended(c, done->result);
    else if (!c->is_paused)
        arm_recv(c);
}

void conn_resume(struct conn *c)
{
    if (c->state != CONN_OPEN)
        return;
    c->is_paused = false;
    conn_mark_dirty(c);
}

/* Held input may go to the owner: not what was held in clear when TLS was started. */
static bool may_deliver(const struct conn *c)
{
    return c->held && !c->is_paused && c->state == CONN_OPEN &&
           (!c->secure || conn_secure_is_open(c));
}

static void deliver_held(struct conn *c)
{
    c->table->events++;
    while (may_deliver(c)) {
        struct chain_seg *seg = c->held->head;
        conn_drop(&c->held, offer(c, slice_of(seg->data, seg->len)));
    }
    if (c->secure)
        conn_secure_deliver(c);
    if (!c->held && c->is_ended)
        conn_tell_end(c);
}

/* --- sending --------------------------------------------------------------------------------- */

struct gather *conn_out(struct conn *c)
{
    if (!c->filling)
        c->filling = flight_take(c->table);
    conn_mark_dirty(c);
    return &c->filling->out;
}

uint64_t conn_offset(const struct conn *c)
{
    return c->queued + (c->filling ? c->filling->out.octets : 0);
}

uint64_t conn_unsent(const struct conn *c)
{
    return conn_offset(c) - c->sent;
}

void conn_submit_flight(struct conn *c)
{
    struct flight *f = c->flying;
    uint32_t left = f->out.part_count - f->part;
    uint32_t want = left < FLIGHT_IOV_MAX ? left : FLIGHT_IOV_MAX;
    if (f->iov_cap < want) {
        f->iov = mem_realloc(f->iov, want * sizeof *f->iov);
        f->iov_cap = want;
    }
    uint32_t n = gather_iov(&f->out, f->part, f->offset, f->iov, want);
    c->in_flight++;
    if (n == 1) {
        ring_send(c->table->ring, c->socket, f->iov[0].iov_base, f->iov[0].iov_len,
                  tag_of(c, RING_SEND));
        return;
    }
    f->msg = (struct msghdr){ .msg_iov = f->iov, .msg_iovlen = n };
    ring_sendmsg(c->table->ring, c->socket, &f->msg, tag_of(c, RING_SEND));
}

void conn_start_flight(struct conn *c)
{
    if (c->flying || c->state != CONN_OPEN)
        return;
    if (c->secure) {
        conn_secure_start_flight(c);
        return;
    }
    if (!c->filling)
        return;
    if (c->filling->out.octets == 0) {
        flight_give(c->table, c->filling);
        c->filling = NULL;
        return;
    }
    c->flying = c->filling;
    c->filling = NULL;
    c->queued += c->flying->out.octets;
    conn_submit_flight(c);
}

static void flight_left(struct conn *c)
{
    uint64_t sent = c->sent;
    bool is_sealed = c->flying->is_sealed;
    c->sent += c->flying->plain;
    flight_give(c->table, c->flying);
    c->flying = NULL;
    if (c->secure)
        conn_secure_flight_left(c);
    /* A flight of the handshake has nothing of the owner's in it. */
    if (c->events->on_sent && (!is_sealed || c->sent > sent))
        c->events->on_sent(c, c->sent);
    if (c->state == CONN_OPEN && (c->filling || c->close_after_send || c->secure))
        conn_mark_dirty(c);
}

static void on_send(void *ctx, const struct ring_done *done)
{
    struct conn *c = conn_of(ctx, done);
    if (!c || operation_ended(c) || c->state == CONN_CLOSING)
        return;
    if (done->result <= 0) {
        if (done->result == -EINTR || done->result == -EAGAIN) {
            conn_submit_flight(c);
            return;
        }
        /* What the peer said before it broke is worth reading (P-186): the receive side reports the
         * end, unless it is silent. */
        if (!c->recv_is_armed)
            conn_ended(c, done->result);
        return;
    }
    if (!c->flying->is_sealed)
        c->sent += (uint64_t)done->result;
    flight_advance(c->flying, (size_t)done->result);
    if (flight_is_over(c->flying))
        flight_left(c);
    else
        conn_submit_flight(c);
}

static void on_connect(void *ctx, const struct ring_done *done)
{
    struct conn *c = conn_of(ctx, done);
    if (!c || operation_ended(c) || c->state == CONN_CLOSING)
        return;
    free(c->peer);
    c->peer = NULL;
    if (done->result == 0) {
        c->state = CONN_OPEN;
        arm_recv(c);
        c->events->on_open(c, 0);
        conn_mark_dirty(c);
        return;
    }
    c->events->on_open(c, done->result);
    conn_close(c);
}

static void on_shutdown(void *ctx, const struct ring_done *done)
{
    struct conn *c = conn_of(ctx, done);
    if (!c || operation_ended(c))
        return;
    if (done->result < 0 || c->is_ended)
        conn_close(c);
}

/* --- the end of a turn ----------------------------------------------------------------------- */

static void settle(struct conn *c)
{
    if (c->state == CONN_CLOSING) {
        if (c->in_flight == 0)
            free_slot(c);
        return;
    }
    if (c->state == CONN_OPEN && !c->is_paused &&
        (c->held || (c->secure && conn_secure_has_input(c))))
        deliver_held(c);
    if (c->state == CONN_OPEN && !c->is_paused)
        arm_recv(c);
    conn_start_flight(c);
    if (c->state == CONN_OPEN && c->close_after_send && !c->flying && !c->filling &&
        !(c->secure && conn_secure_has_output(c)))
        start_linger(c);
    if (c->state == CONN_CLOSING && c->in_flight == 0)
        conn_mark_dirty(c);
}

bool conn_table_flush(struct conn_table *t)
{
    uint64_t events = t->events;
    struct list turn;
    if (!list_is_empty(&t->handshakes))
        conn_secure_turn(t);
    list_init(&turn);
    list_append_all(&turn, &t->dirty);
    struct list *node;
    while ((node = list_pop_front(&turn)))
        settle(list_entry(node, struct conn, dirty));
    if (!list_is_empty(&t->starved))
        conn_table_feed_starved(t);
    return t->events != events || !list_is_empty(&t->dirty) || !list_is_empty(&t->handshakes);
}
