/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * drive_queue - wires the queue machines (queue/commit, queue/claim) to two Redis connections: one
 * for commits, one for everything else, so that reading never delays a commit.
 *
 * Both are made again with a growing pause (50 ms to 1 s) when they break; what was in flight is
 * sent again under the same ids (queue/commit.h).
 */
#include "core/relay/delivery.h"
#include "io/worker.h"
#include "queue/commit.h"

struct queue_driver *queue_new(struct worker *w);
void queue_free(struct queue_driver *q);
void queue_start(struct queue_driver *q); /* begins to connect */
void queue_pump(struct queue_driver *q);  /* at the end of a turn */
int64_t queue_wake_ms(const struct queue_driver *q);
bool queue_is_up(const struct queue_driver *q);
/* Of the oldest commit in flight, ms; 0: none is. */
int64_t queue_commit_age_ms(const struct queue_driver *q);

/* With SMTP_QUEUED: the id of the message that is queued; when it was sent again under its
 * idempotency key, that of the first. */
typedef void queue_verdict_fn(void *owner, enum smtp_verdict verdict, const char *id);

/* Makes a message durable. Takes the caller's reference. The verdict comes once, unless forgotten.
 * shard: COMMIT_ANY_SHARD, or where its chunks are: that of its key, when it has one. The result
 * names the submission for queue_forget. */
struct commit_entry *queue_submit(struct queue_driver *q, struct message *m, uint16_t shard,
                                  queue_verdict_fn *fn, void *owner);
/* The owner is gone: no verdict is wanted any more. The message stays. */
void queue_forget(struct commit_entry *entry);

/* Queues a bounce and ends what it reports in the same transaction. Takes the message's reference
 * and the finish. */
void queue_submit_with(struct queue_driver *q, struct message *m, struct commit_finish *with);
void queue_finish(struct queue_driver *q, struct commit_finish *f);

/* The next shard for a message whose chunks are about to stream ... */
uint16_t queue_pick_shard(struct queue_driver *q);
/* ... and the only one, when it has an idempotency key. */
uint16_t queue_shard_of_key(const struct queue_driver *q, const uint8_t key[32]);
/* A chunk on its way to or from Redis. is_ok: stored, or read (data). Else data holds Redis' words,
 * or nothing when no Redis could be reached within limits.commit_timeout. */
typedef void queue_chunk_fn(void *owner, bool is_ok, struct slice data);
/* Writes content as chunk n; takes the chain's segments. fn is told; NULL owner after
 * queue_chunk_forget. */
struct queue_chunk *queue_chunk_put(struct queue_driver *q, uint16_t shard, const char *id,
                                    uint32_t n, struct chain *content, queue_chunk_fn *fn,
                                    void *owner);
struct queue_chunk *queue_chunk_get(struct queue_driver *q, uint16_t shard, const char *id,
                                    uint32_t n, queue_chunk_fn *fn, void *owner);
void queue_chunk_forget(struct queue_chunk *chunk);

/* One command over the second link; the request is the caller's until fn was called, once. False:
 * Redis is out of reach, fn is not called. */
bool queue_ask(struct queue_driver *q, struct redis_request *req, redis_reply_fn *fn,
               const struct slice *argv, size_t argc);

/* This worker's name in Redis. */
const char *queue_token(const struct queue_driver *q);

/* True when this worker surely holds its leases in the shard. */
bool queue_lease_is_live(const struct queue_driver *q, uint16_t shard);
/* Draining: gives the leases back; true when Redis has confirmed, or is out of reach. */
bool queue_bye(struct queue_driver *q);
void queue_abandon(struct queue_driver *q); /* closes its connections */
uint32_t queue_pending(const struct queue_driver *q);
