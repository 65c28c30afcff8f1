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

/* What the sender was told of a delivery that goes on. Part of the queue item: once is enough. */
enum delivery_told {
    DELIVERY_TOLD_DELAY = 1 << 0, /* it takes long (NOTIFY=DELAY, P-218) */
    DELIVERY_TOLD_LATE = 1 << 1,  /* the time to deliver it by is over (DELIVERBY, P-68) */
    DELIVERY_TOLD_ALL = DELIVERY_TOLD_DELAY | DELIVERY_TOLD_LATE,
};

struct delivery {
    struct list node;        /* on a destination's waiting list, or in the driver's hands */
    struct message *message; /* one reference */
    char id[DELIVERY_ID_MAX];
    char dest[DEST_KEY_MAX];
    uint16_t shard;
    uint32_t attempts;  /* attempts that ended before this one */
    uint32_t told;      /* bits of enum delivery_told */
    int64_t expires_ms; /* wall clock */
    uint32_t *rcpts;    /* owned; live recipients, indices into message->rcpts */
    uint32_t rcpt_count;
    struct rcpt_outcome *outcomes; /* owned; rcpt_count of them */
    struct arena arena;            /* texts of outcomes */
    struct smtp_txn txn;           /* valid while it rides a connection */
    const char *said_by; /* in the arena; the host whose words the outcomes are although none was
                            asked about this delivery; NULL: none */
    int64_t started_ms;  /* monotonic; when the present attempt began; 0: it did not */
    void *owner;         /* the driver's */
    bool was_requeued;   /* a stale connection lost it once; the next loss counts */
    struct {
        uint64_t hosts;        /* a bit for each host of that list that was asked or not reached */
        uint32_t hosts_serial; /* of the destination's list */
        uint32_t tries;        /* hosts that lacked something, lists of any serial */
        bool was_unreached;    /* a host that might have taken it could not be reached */
        struct rcpt_outcome why; /* what it becomes when no host is left; text in the arena */
    } misfit;                    /* the pool's (pool_misfit.c) */
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
/* Forgets the outcomes and keeps their texts: the attempt goes on with another host. */
void delivery_reopen(struct delivery *d);
/* What no host of any destination can change: decides the outcomes and returns true when the time
 * is over by which it had to be delivered (DELIVERBY with by-mode R, P-68). */
bool delivery_is_hopeless(struct delivery *d, const struct now *now);

/* Recipients that go together. */
struct delivery_part {
    uint32_t *rcpts; /* in the arena; indices into message->rcpts, ascending */
    uint32_t rcpt_count;
};

/* False: it keeps the limits, without a closer look. */
bool delivery_may_exceed(const struct delivery *d, const struct client_limits *limits);
/* Divides its recipients into parts that keep the limits, but for the last one when there would be
 * very many; *parts lies in the arena. 1: it keeps them as it is. */
size_t delivery_split(const struct delivery *d, const struct client_limits *limits,
                      struct arena *arena, struct delivery_part **parts);
