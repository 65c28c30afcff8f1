/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that speak TLS: what conn.c gives to and takes from a TLS session.
 *
 * Life: WAITING (what was said in clear leaves) -> HANDSHAKE -> OPEN; FAILED from both.
 *
 * Input. In a handshake ciphertext is copied and the connection queues for a step; at most
 * CONN_HANDSHAKES_TURN steps are made in one loop turn, oldest first, so that a flood of clients
 * that begin costs those who are at work a few milliseconds a turn (P-135). Afterwards ciphertext
 * is decrypted where it lies, record by record into the table's scratch buffer, and offered to the
 * owner at once. When the owner pauses, the plaintext it did not take is in c->held and all that
 * follows stays ciphertext in `cipher`; nothing overtakes.
 *
 * Output. c->filling collects plaintext as ever. For a flight it becomes `sealing`, and up to
 * FLIGHT_PLAIN_MAX octets of that are encrypted: small parts are joined, so that a reply, or a
 * group of replies, is one record. References into the owner's memory are not needed after that,
 * but c->sent moves only when the ciphertext has left.
 *
 * Clear input before TLS. Whoever says STARTTLS waits for our word, so anything between is forged
 * and dropped (P-123); octets that come after our word but were sent before it break the handshake.
 * While we have said nothing, what the owner did not take is the beginning of TLS.
 *
 * The end. close_notify is said with the last flight. A peer that ends without saying it may have
 * been cut off: -ECONNABORTED (P-136).
 */
#include "core/base/must.h"
#include "io/conn_private.h"

#include <errno.h>
#include <stdlib.h>

#define RECORD_MAX          16384       /* octets of plaintext in one record; RFC 8446 5.1 */
#define RECORD_OVERHEAD_MAX 64          /* octets around it in our suites, with room to spare */
#define FLIGHT_PLAIN_MAX    (63 * 1024) /* sealed, it fits the 64 KiB that a spare flight keeps */
#define HANDSHAKE_AHEAD_MAX (64 * 1024) /* ciphertext that may wait for steps before we stop */

/* --- beginning and end ----------------------------------------------------------------------- */

static void begin_handshake(struct conn *c)
{
    if (c->flying || c->secure->clear)
        return;
    c->secure->state = SECURE_HANDSHAKE;
    conn_mark_dirty(c); /* a client speaks first */
}

void conn_start_tls(struct conn *c, struct tls_session *tls)
{
    must(!c->secure);
    if (c->state != CONN_OPEN) {
        tls_session_free(tls);
        return;
    }
    struct conn_secure *s = mem_zalloc(sizeof *s);
    s->conn = c;
    s->tls = tls;
    s->drops_clear = conn_offset(c) > 0;
    list_init(&s->step);
    if (c->filling && c->filling->out.octets > 0) {
        c->queued += c->filling->out.octets;
        s->clear = c->filling;
        c->filling = NULL;
    }
    if (!c->table->scratch)
        c->table->scratch = mem_alloc(RECORD_MAX);
    c->secure = s;
    c->is_paused = false;
    conn_mark_dirty(c);
    begin_handshake(c);
}

const struct tls_session *conn_tls(const struct conn *c)
{
    return c->secure ? c->secure->tls : NULL;
}

void conn_secure_free(struct conn *c)
{
    struct conn_secure *s = c->secure;
    list_remove(&s->step);
    conn_free_chain(&s->cipher);
    flight_give(c->table, s->clear);
    flight_give(c->table, s->sealing);
    tls_session_free(s->tls);
    free(s);
    c->secure = NULL;
}

static void drop_output(struct conn *c)
{
    flight_give(c->table, c->filling);
    flight_give(c->table, c->secure->sealing);
    c->filling = c->secure->sealing = NULL;
}

/* The alert leaves, then the connection ends; the owner is told once. */
static void fail(struct conn *c)
{
    struct conn_secure *s = c->secure;
    bool was_open = s->state == SECURE_OPEN;
    if (c->state != CONN_OPEN || s->state == SECURE_FAILED)
        return;
    s->state = SECURE_FAILED;
    list_remove(&s->step);
    conn_free_chain(&s->cipher);
    drop_output(c);
    conn_start_flight(c); /* now: the owner may close at once */
    conn_end_after_send(c);
    if (was_open)
        c->events->on_end(c, -EPROTO);
    else if (c->events->on_secure)
        c->events->on_secure(c, -EPROTO);
}

int conn_secure_end(const struct conn *c)
{
    if (c->secure->is_notified)
        return 0;
    return c->end_result < 0 ? c->end_result : -ECONNABORTED;
}

/* --- input ----------------------------------------------------------------------------------- */

static void queue_step(struct conn *c)
{
    struct conn_secure *s = c->secure;
    if (list_is_empty(&s->step))
        list_push_back(&c->table->handshakes, &s->step);
    if (s->cipher->len > HANDSHAKE_AHEAD_MAX) {
        c->is_paused = true;
        conn_stop_receiving(c);
    }
}

void conn_secure_leftover(struct conn *c, struct slice in)
{
    struct conn_secure *s = c->secure;
    if (s->drops_clear)
        return;
    conn_hold(c, &s->cipher, in);
    if (c->state == CONN_OPEN)
        queue_step(c);
}

/* What was held in clear when TLS was started. */
static void settle_leftovers(struct conn *c)
{
    struct chain *held = c->held;
    if (!held)
        return;
    c->held = NULL;
    for (struct chain_seg *seg = held->head; seg && c->state == CONN_OPEN; seg = seg->next)
        conn_secure_leftover(c, slice_of(seg->data, seg->len));
    conn_free_chain(&held);
}

/* Decrypts `in` as far as the owner takes it; returns how many octets of it were used up. */
static size_t decrypt(struct conn *c, struct slice in)
{
    struct conn_secure *s = c->secure;
    enum tls_result result = TLS_DONE;
    size_t len;
    tls_session_feed(s->tls, in);
    while (result == TLS_DONE && c->state == CONN_OPEN && !c->is_paused && !c->held) {
        result = tls_session_read(s->tls, c->table->scratch, RECORD_MAX, &len);
        if (result == TLS_DONE)
            conn_offer(c, slice_of(c->table->scratch, len));
    }
    size_t unread = tls_session_unread(s->tls);
    tls_session_feed(s->tls, SLICE_NONE);
    if (result == TLS_ENDED)
        s->is_notified = true;
    if (result == TLS_FAILED)
        fail(c);
    if (tls_session_has_output(s->tls))
        conn_mark_dirty(c);
    return result == TLS_ENDED || result == TLS_FAILED ? in.len : in.len - unread;
}

static void input_open(struct conn *c, struct slice in)
{
    struct conn_secure *s = c->secure;
    if (c->is_paused || c->held || s->cipher) {
        conn_hold(c, &s->cipher, in);
        if (c->is_paused)
            conn_stop_receiving(c);
        return;
    }
    size_t used = decrypt(c, in);
    if (used < in.len && c->state == CONN_OPEN)
        conn_hold(c, &s->cipher, slice_skip(in, used));
    if (s->is_notified)
        conn_ended(c, 0);
}

void conn_secure_input(struct conn *c, struct slice in)
{
    struct conn_secure *s = c->secure;
    if (s->state < SECURE_OPEN)
        settle_leftovers(c);
    if (c->state != CONN_OPEN || s->state == SECURE_FAILED || s->is_notified)
        return;
    if (s->state == SECURE_OPEN) {
        input_open(c, in);
    } else if (s->state == SECURE_HANDSHAKE) {
        conn_hold(c, &s->cipher, in);
        if (c->state == CONN_OPEN)
            queue_step(c);
    } /* WAITING: dropped, P-123 */
}

void conn_secure_deliver(struct conn *c)
{
    struct conn_secure *s = c->secure;
    if (s->state < SECURE_OPEN)
        settle_leftovers(c);
    while (s->state == SECURE_OPEN && s->cipher && c->state == CONN_OPEN && !c->is_paused &&
           !c->held) {
        struct chain_seg *seg = s->cipher->head;
        size_t used = decrypt(c, slice_of(seg->data, seg->len));
        if (s->is_notified)
            conn_free_chain(&s->cipher);
        else if (s->cipher)
            conn_drop(&s->cipher, used);
    }
    if (s->is_notified)
        c->is_ended = true; /* conn.c tells it next */
}

/* --- the handshake --------------------------------------------------------------------------- */

static void now_open(struct conn *c)
{
    c->secure->state = SECURE_OPEN;
    c->is_paused = false;
    if (c->events->on_secure)
        c->events->on_secure(c, 0);
}

static void after_step(struct conn *c, enum tls_result result)
{
    struct conn_secure *s = c->secure;
    bool was_ended = c->is_ended;
    switch (result) {
    case TLS_DONE: now_open(c); break;
    case TLS_MORE:
        c->is_paused = false;
        if (s->cipher)
            queue_step(c);
        break;
    case TLS_ENDED: /* in the middle: a cut */
        conn_free_chain(&s->cipher);
        conn_ended(c, -ECONNABORTED);
        break;
    case TLS_FAILED: fail(c); break;
    }
    if (was_ended && !s->cipher)
        conn_tell_end(c);
}

static void shake_hands(struct conn *c)
{
    struct conn_secure *s = c->secure;
    struct chain_seg *seg = s->cipher->head;
    tls_session_feed(s->tls, slice_of(seg->data, seg->len));
    enum tls_result result = tls_session_handshake(s->tls);
    conn_drop(&s->cipher, seg->len - tls_session_unread(s->tls));
    tls_session_feed(s->tls, SLICE_NONE);
    conn_mark_dirty(c);
    c->table->events++;
    after_step(c, result);
}

void conn_secure_turn(struct conn_table *t)
{
    struct list *node;
    for (int i = 0; i < CONN_HANDSHAKES_TURN && (node = list_pop_front(&t->handshakes)); i++) {
        struct conn *c = list_entry(node, struct conn_secure, step)->conn;
        if (c->state == CONN_OPEN)
            shake_hands(c);
    }
}

/* --- output ---------------------------------------------------------------------------------- */

static bool has_plaintext(const struct conn *c)
{
    return c->secure->sealing || (c->filling && c->filling->out.octets > 0);
}

/* close_notify is due. */
static bool must_say_goodbye(const struct conn *c)
{
    const struct conn_secure *s = c->secure;
    return s->state == SECURE_OPEN && c->close_after_send && !s->has_said_goodbye;
}

bool conn_secure_has_output(const struct conn *c)
{
    const struct conn_secure *s = c->secure;
    return s->clear || s->sealing || tls_session_has_output(s->tls) || must_say_goodbye(c);
}

static const char *part_start(const struct flight *f)
{
    const struct gather_part *p = &f->out.parts[f->part];
    return (p->ptr ? p->ptr : f->out.bytes.ptr + p->offset) + f->offset;
}

static struct slice part_rest(const struct flight *f)
{
    return slice_of(part_start(f), f->out.parts[f->part].len - f->offset);
}

/* The next octets of a flight, at most max: where they lie when one part has enough or is the last,
 * else joined in the scratch buffer. */
static struct slice next_record(struct flight *f, size_t max, char *scratch)
{
    struct slice first = slice_head(part_rest(f), max);
    flight_advance(f, first.len);
    if (first.len == max || flight_is_over(f))
        return first;
    memcpy(scratch, first.ptr, first.len);
    size_t len = first.len;
    while (len < max && !flight_is_over(f)) {
        struct slice more = slice_head(part_rest(f), max - len);
        memcpy(scratch + len, more.ptr, more.len);
        len += more.len;
        flight_advance(f, more.len);
    }
    return slice_of(scratch, len);
}

/* What was appended is encrypted from here on; more goes to a new c->filling. */
static void begin_sealing(struct conn *c)
{
    c->secure->sealing = c->filling;
    c->filling = NULL;
    c->queued += c->secure->sealing->out.octets;
}

/* One growth for all that will be appended to it. */
static void make_room(const struct flight *sealing, struct flight *f)
{
    size_t plain = sealing->out.octets < FLIGHT_PLAIN_MAX ? sealing->out.octets : FLIGHT_PLAIN_MAX;
    size_t sealed = plain + (plain / RECORD_MAX + 1) * RECORD_OVERHEAD_MAX;
    must(buf_reserve(&f->out.bytes, (uint32_t)sealed));
}

static enum status seal_record(struct conn *c, struct flight *f)
{
    struct conn_secure *s = c->secure;
    size_t room = FLIGHT_PLAIN_MAX - f->plain;
    struct slice record =
        next_record(s->sealing, room < RECORD_MAX ? room : RECORD_MAX, c->table->scratch);
    enum status st = tls_session_write(s->tls, record);
    f->plain += (uint32_t)record.len;
    if (flight_is_over(s->sealing)) {
        flight_give(c->table, s->sealing);
        s->sealing = NULL;
    }
    return st;
}

/* Encrypts plaintext into f. */
static enum status seal(struct conn *c, struct flight *f)
{
    enum status st = STATUS_OK;
    while (st == STATUS_OK && f->plain < FLIGHT_PLAIN_MAX && has_plaintext(c)) {
        if (!c->secure->sealing)
            begin_sealing(c);
        if (f->plain == 0)
            make_room(c->secure->sealing, f);
        st = seal_record(c, f);
    }
    return st;
}

static void speak(struct conn *c, struct flight *f)
{
    struct conn_secure *s = c->secure;
    tls_session_divert(s->tls, &f->out);
    enum status st = seal(c, f);
    if (st == STATUS_OK && must_say_goodbye(c) && !has_plaintext(c)) {
        tls_session_shutdown(s->tls);
        s->has_said_goodbye = true;
    }
    tls_session_divert(s->tls, NULL);
    if (st != STATUS_OK)
        conn_close(c);
}

static void fly(struct conn *c, struct flight *f)
{
    c->flying = f;
    conn_submit_flight(c);
}

/* Tickets leave with the first reply: most clients have spoken before them anyway, and each write
 * saved is a twentieth of a short session's time. */
static bool is_urgent(const struct conn_secure *s)
{
    bool can_wait = s->state == SECURE_OPEN && tls_session_output_can_wait(s->tls);
    return tls_session_has_output(s->tls) && !can_wait;
}

void conn_secure_start_flight(struct conn *c)
{
    struct conn_secure *s = c->secure;
    if (s->state == SECURE_FAILED)
        drop_output(c);
    if (s->clear) {
        fly(c, s->clear);
        s->clear = NULL;
        return;
    }
    bool may_speak = s->state == SECURE_OPEN && (has_plaintext(c) || must_say_goodbye(c));
    if (s->state == SECURE_WAITING || (!may_speak && !is_urgent(s)))
        return;
    struct flight *f = flight_take(c->table);
    f->is_sealed = true;
    tls_session_take_output(s->tls, &f->out);
    if (may_speak)
        speak(c, f);
    fly(c, f);
}

void conn_secure_flight_left(struct conn *c)
{
    if (c->secure->state == SECURE_WAITING)
        begin_handshake(c);
}
