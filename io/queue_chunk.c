/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_chunk - pieces of large messages on their way to Redis, or back.
 *
 * They go over the second link, so that they never delay a commit. Without that link they wait, in
 * order, for limits.commit_timeout; one whose link was lost waits for the next and is tried again.
 */
#include "core/base/must.h"
#include "io/drive_queue_private.h"
#include <stdlib.h>

struct queue_chunk {
    struct redis_request request;
    struct queue_driver *q;
    struct chain content; /* a chunk being written, until its reply */
    queue_chunk_fn *fn;   /* NULL: forgotten */
    void *owner;
    char id[QUEUE_ID_LEN + 1];
    uint32_t n;
    uint16_t shard;
    bool is_write;
    int64_t deadline_ms; /* monotonic: it waits no longer for a link */
};

static void answer_chunk(struct queue_chunk *chunk, const redisReply *reply)
{
    bool is_ok = reply && (chunk->is_write ? reply->type == REDIS_REPLY_STATUS
                                           : reply->type == REDIS_REPLY_STRING);
    /* What was read, or Redis' words why not. */
    bool has_words = is_ok ? !chunk->is_write : reply && reply->type == REDIS_REPLY_ERROR;
    if (chunk->fn)
        chunk->fn(chunk->owner, is_ok, has_words ? slice_of(reply->str, reply->len) : SLICE_NONE);
    chain_done(&chunk->content);
    free(chunk);
}

/* Both directions may be tried twice; so a chunk whose link was lost waits for the next one. */
static void on_chunk(struct redis_request *req, const redisReply *reply)
{
    struct queue_chunk *chunk = container_of(req, struct queue_chunk, request);
    if (reply || !chunk->fn)
        answer_chunk(chunk, reply);
    else
        list_push_back(&chunk->q->chunks_waiting, &req->node);
}

static void send_chunk(struct queue_chunk *chunk)
{
    struct queue_driver *q = chunk->q;
    /* Behind those that wait: chunks of one message are answered in order. */
    if (q->claims.state != LINK_UP || !list_is_empty(&q->chunks_waiting))
        list_push_back(&q->chunks_waiting, &chunk->request.node);
    else if (chunk->is_write)
        claim_chunk_put(&q->claims.redis, &chunk->request, on_chunk, chunk->shard, chunk->id,
                        chunk->n, &chunk->content, conn_out(q->claims.conn));
    else
        claim_chunk_get(&q->claims.redis, &chunk->request, on_chunk, chunk->shard, chunk->id,
                        chunk->n, conn_out(q->claims.conn));
}

void queue_pump_chunks(struct queue_driver *q, int64_t now_ms)
{
    struct list waiting, *node;
    list_init(&waiting);
    list_append_all(&waiting, &q->chunks_waiting);
    while ((node = list_pop_front(&waiting))) {
        struct queue_chunk *chunk =
            container_of(list_entry(node, struct redis_request, node), struct queue_chunk, request);
        if (q->claims.state != LINK_UP && (!chunk->fn || chunk->deadline_ms <= now_ms))
            answer_chunk(chunk, NULL);
        else
            send_chunk(chunk);
    }
}

static struct queue_chunk *chunk_new(struct queue_driver *q, uint16_t shard, const char *id,
                                     uint32_t n, queue_chunk_fn *fn, void *owner)
{
    struct queue_chunk *chunk = mem_zalloc(sizeof *chunk);
    chunk->q = q;
    chunk->shard = shard;
    memcpy(chunk->id, id, sizeof chunk->id);
    chunk->n = n;
    chunk->fn = fn;
    chunk->owner = owner;
    chunk->deadline_ms = q->w->now.mono_ms + q->w->cfg->limits.commit_timeout_ms;
    chain_init(&chunk->content, &q->w->budget);
    return chunk;
}

struct queue_chunk *queue_chunk_put(struct queue_driver *q, uint16_t shard, const char *id,
                                    uint32_t n, struct chain *content, queue_chunk_fn *fn,
                                    void *owner)
{
    struct queue_chunk *chunk = chunk_new(q, shard, id, n, fn, owner);
    chunk->content = *content;
    chunk->is_write = true;
    send_chunk(chunk);
    return chunk;
}

struct queue_chunk *queue_chunk_get(struct queue_driver *q, uint16_t shard, const char *id,
                                    uint32_t n, queue_chunk_fn *fn, void *owner)
{
    struct queue_chunk *chunk = chunk_new(q, shard, id, n, fn, owner);
    send_chunk(chunk);
    return chunk;
}

void queue_chunk_forget(struct queue_chunk *chunk)
{
    chunk->fn = NULL;
}
