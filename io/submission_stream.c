/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large messages, and the commit.
 *
 *     end of data -> signed (signer.c) -> its chunks are stored -> queue_submit -> verdict
 *
 * Once the header section is over, content leaves for Redis in chunks of 256 KiB while it still
 * arrives, two on their way at most, so a session never holds more than about three. When content
 * memory is used up, chunks are cut smaller, which frees memory without waiting for anybody to
 * finish. A message with an idempotency key streams to the shard of its key, where the commit will
 * look for it.
 */
#include "core/base/must.h"
#include "io/submission.h"
#include <stdlib.h>

#define CHUNK_UNDER_PRESSURE (16 * 1024)

static void commit(struct submission *s, struct message *m);

/* --- large messages -------------------------------------------------------------------------- */

static void on_chunk_stored(void *owner, bool is_ok, struct slice data)
{
    struct submission *s = owner;
    struct submission_stream *stream = s->stream;
    /* Chunks are answered in order: the oldest is the first. */
    stream->chunks[0] = stream->chunks[1];
    stream->chunks[1] = NULL;
    stream->in_flight--;
    if (!is_ok)
        stream->verdict =
            slice_eq(slice_head(data, 3), SLICE("OOM")) ? SMTP_QUEUE_FULL : SMTP_NOT_QUEUED;
    if (stream->is_committing)
        commit(s, stream->message);
    else
        submission_unblock(s);
}

bool submission_stream_is_orphaned(const struct submission *s)
{
    enum smtp_state state = s->session.state;
    return s->stream && !s->stream->is_committing && state != SMTP_DATA && state != SMTP_BDAT &&
           state != SMTP_COMMIT;
}

static struct submission_stream *stream_of(struct submission *s)
{
    if (!s->stream) {
        s->stream = mem_zalloc(sizeof *s->stream);
        s->stream->shard = s->session.message->has_key
                               ? queue_shard_of_key(s->d->w->queue, s->session.message->key)
                               : queue_pick_shard(s->d->w->queue);
    }
    return s->stream;
}

static void put_chunk(struct submission *s, size_t octets)
{
    struct submission_stream *stream = stream_of(s);
    struct message *m = s->session.message;
    struct chain chunk;
    chain_init(&chunk, m->content.budget);
    chain_split(&m->content, octets, &chunk);
    stream->chunks[stream->in_flight++] = queue_chunk_put(
        s->d->w->queue, stream->shard, m->id, m->chunk_count++, &chunk, on_chunk_stored, s);
}

/* Moves content to Redis while it arrives. False: no more can be taken now. */
bool submission_stream_content(struct submission *s)
{
    struct message *m = s->session.message;
    if (!m || !smtp_session_content_is_body(&s->session))
        return true;
    bool is_pressed = chain_budget_is_over(&s->d->w->budget);
    uint32_t threshold = s->d->w->cfg->queue.stream_size;
    size_t least = is_pressed                                  ? CHUNK_UNDER_PRESSURE
                   : s->stream || threshold < QUEUE_CHUNK_SIZE ? QUEUE_CHUNK_SIZE
                                                               : threshold;
    while (m->content.len >= least) {
        if (s->stream && s->stream->in_flight == SUBMISSION_CHUNKS_MAX)
            return false;
        size_t octets = m->content.len < QUEUE_CHUNK_SIZE ? m->content.len : QUEUE_CHUNK_SIZE;
        put_chunk(s, octets);
    }
    return true;
}

void submission_stream_done(struct submission *s)
{
    struct submission_stream *stream = s->stream;
    if (!stream)
        return;
    for (uint32_t i = 0; i < stream->in_flight; i++)
        queue_chunk_forget(stream->chunks[i]);
    message_unref(stream->message);
    free(stream);
    s->stream = NULL;
}

/* --- the commit ------------------------------------------------------------------------------ */

static void give_verdict(struct submission *s, enum smtp_verdict verdict, const char *id)
{
    smtp_session_verdict(&s->session, verdict, id, &s->d->w->now);
    submission_stream_done(s);
    submission_after_event(s);
    if (s->peer_is_gone && !s->is_over) {
        s->is_over = true;
        conn_finish(s->conn);
        return;
    }
    submission_unblock(s);
}

static void on_verdict(void *owner, enum smtp_verdict verdict, const char *id)
{
    struct submission *s = owner;
    s->entry = NULL;
    s->d->committing--;
    give_verdict(s, verdict, id);
}

/* The message goes to the queue, but only after its chunks are in Redis. */
static void commit(struct submission *s, struct message *m)
{
    struct submission_stream *stream = s->stream;
    if (stream) {
        stream->message = m;
        stream->is_committing = true;
        if (stream->in_flight > 0)
            return;
        stream->message = NULL;
        if (stream->verdict != SMTP_QUEUED) {
            message_unref(m);
            give_verdict(s, stream->verdict, "");
            return;
        }
    }
    s->d->committing++;
    s->entry =
        queue_submit(s->d->w->queue, m, stream ? stream->shard : COMMIT_ANY_SHARD, on_verdict, s);
}

static void refuse_unsigned(struct submission *s, struct message *m)
{
    message_unref(m);
    give_verdict(s, SMTP_NOT_SIGNED, "");
}

static void on_signed(void *owner, struct message *m, bool is_signed)
{
    struct submission *s = owner;
    s->signing = NULL;
    s->d->committing--;
    if (is_signed)
        commit(s, m);
    else
        refuse_unsigned(s, m);
}

static void on_returned(void *owner, bool is_kept)
{
    struct submission *s = owner;
    s->returning = NULL;
    s->d->committing--;
    give_verdict(s, is_kept ? SMTP_RETURNED : SMTP_NOT_QUEUED, "");
}

void submission_begin_commit(struct submission *s)
{
    struct message *m = smtp_session_take_message(&s->session);
    if (m->returned) {
        s->d->committing++;
        returns_take(s->d->returns, m, on_returned, s, &s->returning);
        return;
    }
    if (!m->dkim) {
        commit(s, m);
        return;
    }
    switch (signer_begin(s->d->w->signer, m, on_signed, s, &s->signing)) {
    case SIGN_BEGUN: s->d->committing++; break;
    case SIGN_NOTHING: commit(s, m); break;
    case SIGN_REFUSED: refuse_unsigned(s, m); break;
    }
}
