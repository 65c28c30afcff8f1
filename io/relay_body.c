/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_body - content on its way to a peer.
 *
 * The DKIM signature comes first; it is not part of the content. Its lines never begin with a dot.
 *
 * Bodies are written by reference: the message is pinned until the octets have left, even when the
 * peer answers early (P-186). Large messages are read from Redis chunk by chunk while they are
 * sent, one chunk ahead; a chunk is copied, because it lies in the receive buffer of the queue's
 * link.
 *
 * By DATA, lines that begin with a dot get another one, and content that does not end in CR LF gets
 * that too (P-105): what came by BDAT may end anywhere. By BDAT everything goes as it is, in
 * exactly as many octets as were announced: octets too many would be commands to the peer, so a
 * record that is not as long as it says closes the connection in the middle of the chunk, which the
 * peer then throws away.
 */
#include "core/base/must.h"
#include "io/drive_queue.h"
#include "io/drive_relay_private.h"
#include <stdlib.h>

/* Octets of a large body on their way before the next chunk is read. */
#define CHUNK_UNSENT_MAX (512 * 1024)

/* A message whose octets are on their way. */
struct pin {
    struct list node;
    struct message *message; /* one reference; NULL when `copy` is the matter */
    char *copy;              /* owned; a chunk's octets */
    size_t octets;           /* of copy */
    uint64_t end;            /* stream offset after which it may go */
};

static void pin(struct outbound *o, struct message *message, char *copy, size_t octets)
{
    struct pin *p = mem_zalloc(sizeof *p);
    p->message = message ? message_ref(message) : NULL;
    p->copy = copy;
    p->octets = octets;
    o->r->w->budget.used += octets;
    p->end = conn_offset(o->conn);
    list_push_back(&o->pins, &p->node);
}

void body_unpin(struct outbound *o, uint64_t sent)
{
    while (!list_is_empty(&o->pins)) {
        struct pin *p = list_entry(o->pins.next, struct pin, node);
        if (p->end > sent)
            return;
        list_remove(&p->node);
        message_unref(p->message);
        o->r->w->budget.used -= p->octets;
        free(p->copy);
        free(p);
    }
}

/* --- writing --------------------------------------------------------------------------------- */

static struct message *message_of(const struct outbound *o)
{
    return ((struct delivery *)o->body.txn->owner)->message;
}

/* Dots are looked for only where some line begins with one. */
static bool must_stuff(const struct outbound *o)
{
    return !o->body.txn->by_bdat && (message_of(o)->flags & MESSAGE_DOT_LINES);
}

static void note(struct body *b, struct slice s)
{
    b->written += s.len;
    if (s.len > 1)
        memcpy(b->tail, s.ptr + s.len - 2, 2);
    else if (s.len == 1)
        memcpy(b->tail, (char[]){ b->tail[1], s.ptr[0] }, 2);
}

static void write_span(struct outbound *o, struct slice rest)
{
    struct gather *out = conn_out(o->conn);
    struct slice span;
    note(&o->body, rest);
    if (!must_stuff(o)) {
        gather_ref(out, rest);
        return;
    }
    while (dot_stuff_next(&o->body.stuffer, &rest, &span))
        gather_ref(out, span);
}

static void write_end(struct outbound *o)
{
    bool is_ended = memcmp(o->body.tail, "\r\n", 2) == 0;
    if (must_stuff(o))
        gather_ref(conn_out(o->conn), dot_stuff_end(&o->body.stuffer));
    else if (!o->body.txn->by_bdat)
        gather_ref(conn_out(o->conn), is_ended ? SLICE(".\r\n") : SLICE("\r\n.\r\n"));
}

/* Octets of content that are not in Redis. */
static uint64_t octets_at_hand(const struct message *m)
{
    return m->blob ? m->body.len : m->content.len;
}

/* Looked at before the last octets are written; the record's own length was checked when it was
 * read, the chunks' only adds up here. */
static bool is_as_long_as_it_says(const struct outbound *o)
{
    const struct message *m = message_of(o);
    return o->body.written + octets_at_hand(m) == m->size;
}

static bool write_rest(struct outbound *o)
{
    struct smtp_txn *txn = o->body.txn;
    struct message *m = message_of(o);
    if (!is_as_long_as_it_says(o)) {
        outbound_give_up(o, "a part of the message is missing from the queue");
        return false;
    }
    if (m->blob)
        write_span(o, m->body);
    else
        for (struct chain_seg *seg = m->content.head; seg; seg = seg->next)
            write_span(o, slice_of(seg->data, seg->len));
    write_end(o);
    pin(o, m, NULL, 0);
    o->body.txn = NULL;
    smtp_client_body_sent(&o->client, txn, &o->r->w->now);
    return true;
}

/* --- chunks ---------------------------------------------------------------------------------- */

static void on_body_chunk(void *owner, bool is_ok, struct slice data)
{
    struct outbound *o = owner;
    o->body.asked = NULL;
    if (!is_ok) {
        outbound_give_up(o, "a chunk of the message could not be read from the queue");
        return;
    }
    if (o->body.written + data.len > message_of(o)->size) {
        outbound_give_up(o, "a chunk of the message is longer than it was");
        return;
    }
    char *copy = mem_alloc(data.len + 1);
    memcpy(copy, data.ptr, data.len);
    write_span(o, slice_of(copy, data.len));
    pin(o, NULL, copy, data.len);
    outbound_pump(o);
}

/* Pinned at once: of a large message only chunks are, until its end. */
static void write_signature(struct outbound *o)
{
    struct message *m = message_of(o);
    o->body.has_begun = true;
    if (m->signature.len == 0)
        return;
    gather_ref(conn_out(o->conn), m->signature);
    if (m->chunk_count > 0)
        pin(o, m, NULL, 0);
}

bool body_write(struct outbound *o)
{
    struct delivery *d = o->body.txn->owner;
    if (!o->body.has_begun)
        write_signature(o);
    if (o->body.asked)
        return false;
    if (o->body.chunk == d->message->chunk_count)
        return write_rest(o);
    if (conn_unsent(o->conn) < CHUNK_UNSENT_MAX)
        o->body.asked = queue_chunk_get(o->r->w->queue, d->shard, d->message->id, o->body.chunk++,
                                        on_body_chunk, o);
    return false;
}

void body_begin(struct outbound *o, struct smtp_txn *txn)
{
    o->body = (struct body){ .txn = txn, .tail = { '\r', '\n' } };
    dot_stuffer_init(&o->body.stuffer);
}

void body_end(struct outbound *o)
{
    if (o->body.asked)
        queue_chunk_forget(o->body.asked);
    o->body = (struct body){ 0 };
}
