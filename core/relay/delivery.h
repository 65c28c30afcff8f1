/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * delivery - one leased queue item in this worker's memory: a message, a destination, the
 * recipients still to be served there, and what came of each.
 *
 * Life: made when a message is committed or an item is claimed; waits in its destination's list;
 * rides a connection as a transaction; its outcomes become done, retry, bounce or dead letter
 * (retry.h), and with the queue's word that this is durable it is freed.
 */
#include "core/base/list.h"
#include "core/relay/route.h"
#include "core/smtp/client.h"
#include <stdio.h>

#define DELIVERY_ID_MAX (QUEUE_ID_LEN + 12) /* "<queue id>" or "<queue id>/<n>", with NUL */

struct delivery {
    struct list node;        /* on a destination's waiting list, or in the driver's hands */
    struct message *message; /* one reference */
    char id[DELIVERY_ID_MAX];
    char dest[DEST_KEY_MAX];
    uint16_t shard;
    uint32_t attempts;  /* attempts that ended before this one */
    int64_t expires_ms; /* wall clock */
    uint32_t *rcpts;    /* owned; live recipients, indices into message->rcpts */
    uint32_t rcpt_count;
    struct rcpt_outcome *outcomes; /* owned; rcpt_count of them */
    struct arena arena;            /* texts of outcomes */
    struct smtp_txn txn;           /* valid while it rides a connection */
    int64_t started_ms;            /* monotonic; when the present attempt began; 0: it did not */
    void *owner;                   /* the driver's */
    bool was_requeued;             /* a stale connection lost it once; the next loss counts */
};

/* The name of delivery k of count: "<queue id>" when it is the only one, else "<queue id>/<k>". */
static inline void delivery_id_format(char out[DELIVERY_ID_MAX], const char *queue_id, uint32_t k,
                                      uint32_t count)
{
    if (count == 1)
        snprintf(out, DELIVERY_ID_MAX, "%s", queue_id);
    else
        snprintf(out, DELIVERY_ID_MAX, "%s/%u", queue_id, k);
}

struct delivery *delivery_new(struct message *m, const char *id, struct slice dest, uint16_t shard,
                              const uint32_t *rcpts, uint32_t rcpt_count);
void delivery_free(struct delivery *d); /* drops its message reference */
/* Gives every undecided recipient this outcome; text is copied. */
void delivery_fail_open(struct delivery *d, enum outcome_stage stage, int code,
                        const char *enhanced, struct slice text);
/* Forgets all outcomes: the next attempt begins. */
void delivery_restart(struct delivery *d);
