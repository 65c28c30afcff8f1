/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * drive_queue_private - the queue driver's inside, shared by drive_queue.c (links and turns),
 * queue_submit.c (messages), queue_chunk.c (pieces of large ones) and queue_audit.c (the accounts).
 */
#include "io/drive_queue.h"
#include "queue/claim.h"

#define BATCHES_MAX 16 /* batches whose octets may be on their way at once */

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_HELLO, LINK_UP };

struct link {
    struct queue_driver *q;
    const char *name;
    enum link_state state;
    struct conn *conn; /* borrowed; NULL when there is none */
    struct redis_link redis;
    struct redis_request hello;
    struct wheel_timer reconnect; /* while DOWN: the next try; while CONNECTING, HELLO: patience */
    int64_t heard_ms;             /* monotonic; when octets last came, or nothing was awaited */
    uint32_t pause_ms;
    bool was_up; /* it has been up once: later ones are reconnects */
};

struct queue_driver {
    struct worker *w; /* borrowed */
    struct committer *committer;
    struct claimer *claimer;
    size_t crowded_count; /* destinations that had enough at the last pump */
    struct link commits, claims;
    char token[QUEUE_WORKER_LEN + 1];
    struct list chunks_waiting; /* struct queue_chunk, for the claim link to be up */
    uint16_t next_shard;
    bool bye_is_sent;
    bool is_leaving;      /* the worker ends: no link is made again */
    uint32_t lease_epoch; /* grows when a lease was lost: what was submitted before is not ours */
    struct {
        uint64_t number, end; /* the batch, and the stream offset where it ends */
    } batches[BATCHES_MAX];   /* sent or being sent, oldest first */
    uint32_t batch_count;
    struct queue_audit *audit; /* owned; NULL but in the first worker */
};

/* queue_audit.c */
struct queue_audit *queue_audit_new(struct queue_driver *q);
void queue_audit_free(struct queue_audit *a); /* after both links were lost; NULL is harmless */
void queue_audit_start(struct queue_audit *a);

/* Chunks that wait for the second link: with it up all go; without it those whose time is over at
 * now_ms are answered. */
void queue_pump_chunks(struct queue_driver *q, int64_t now_ms);
