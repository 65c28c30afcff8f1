/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * commit_batch - what one group commit carries, as commands for Redis, and what Redis' answer means
 * for each part. commit.c decides what goes into a batch and what follows; private to it.
 *
 * Life: commit.c makes it and fills slots and calls -> batch_encode_* appends its commands -> in
 * flight -> replies -> freed when it was answered and every octet was sent: the output points at
 * the messages' content.
 */
#include "queue/commit.h"
#include "queue/pack.h"

/* A run of the committer's scratch buffer. */
struct commit_span {
    uint32_t at, len;
};

enum slot_fate {
    SLOT_QUEUED,
    SLOT_REPEATED, /* nothing was stored: the message entry->first_id stands for it */
    SLOT_CONFLICT, /* nothing was stored: its key belongs to another message */
    SLOT_REFUSED,  /* nothing was stored: its chunks are gone, or it had been withdrawn */
    SLOT_FULL,     /* nothing was stored: no memory */
    SLOT_RETRY,    /* nothing was stored this time; worth another try */
    SLOT_BROKEN,   /* part of it may be stored */
};

/* One message of a batch. */
struct commit_slot {
    struct commit_entry *entry; /* NULL: it was answered at its deadline */
    struct message *message;    /* one reference */
    struct pack *pack;          /* one reference; NULL: the content goes as it is */
    uint16_t shard;
    uint16_t run;        /* which of the batch's runs it is in */
    uint32_t first_span; /* its envelope, then its items; only while encoding */
    enum slot_fate fate; /* with the reply */
};

/* Slots of one shard, side by side: one FCALL kilat_enq. */
struct commit_run {
    uint16_t shard;
    uint32_t first_slot, slot_count, deliveries;
    uint32_t told; /* of its messages, those with an event: one FCALL kilat_accepted */
};

/* One FCALL that finishes work. */
struct commit_call {
    struct list node;             /* on its batch's calls, in the order sent */
    struct redis_request request; /* outside of a transaction */
    struct commit_batch *batch;
    enum commit_finish_kind kind;
    uint16_t shard;
    struct list finishes; /* struct commit_finish */
    uint32_t count;
    struct commit_slot *with; /* whose entry these ride with; NULL: none */
};

struct commit_batch {
    struct list node;
    struct redis_request request; /* the transaction's */
    struct committer *committer;  /* borrowed */
    uint64_t number;
    int64_t sealed_ms; /* monotonic */
    bool is_transaction;
    struct commit_slot *slots; /* owned */
    uint32_t slot_count, slots_max;
    struct commit_run *runs; /* owned; at least one in a transaction, each with a slot */
    uint16_t run_count;
    struct list calls;   /* owned */
    uint32_t call_count; /* calls without an answer */
};

struct commit_batch *batch_new(struct committer *c, uint32_t slots_max, uint16_t runs_max);
void batch_free(struct commit_batch *b); /* drops its messages; calls must hold no finishes */
struct commit_call *batch_add_call(struct commit_batch *b, enum commit_finish_kind kind,
                                   uint16_t shard);

/* Octets of a message's content as it is stored. */
size_t batch_content_len(const struct message *m, const struct pack *pack);
/* Appends an entry's envelope and items to scratch, a span for each to spans. FULL or BAD: this
 * message can never be queued; nothing was appended. */
NODISCARD enum status batch_encode_entry(const struct commit_entry *entry, struct buf *scratch,
                                         struct commit_span *spans);
/* The item of one target, as it is queued. */
NODISCARD enum status batch_encode_item(const struct commit_entry *entry,
                                        const struct commit_target *target, struct buf *out);
/* Appends what a withdrawal of the message must know of its idempotency key. */
#define BATCH_KEY_MAX 64 /* octets of that */
void batch_encode_key(const struct message *m, const struct commit_config *cfg, struct buf *out);
/* The delivery id of target k. */
void batch_delivery_id(char out[DELIVERY_ID_MAX], const struct commit_entry *entry, uint32_t k);

/* Appends the whole transaction; returns how many replies it gets. */
uint32_t batch_encode_transaction(const struct commit_batch *b, const struct commit_config *cfg,
                                  const char *scratch, const struct commit_span *spans,
                                  struct gather *out);
/* Appends one call alone. */
void batch_encode_call(const struct commit_call *call, const struct commit_config *cfg,
                       struct gather *out);

enum batch_result {
    BATCH_UNKNOWN,  /* it may have happened */
    BATCH_EXECUTED, /* slots have their fate; calls have elements of their own */
    BATCH_REFUSED,  /* nothing of it happened; try again */
    BATCH_FULL,     /* nothing of it happened: no memory */
};

/* Reads the reply of a transaction; sets the slots' fates, and targets whose lease passed on to
 * READY. reply NULL: UNKNOWN. */
enum batch_result batch_read(struct commit_batch *b, const redisReply *reply);
/* The element for call number n of an executed transaction. */
const redisReply *batch_call_reply(const struct commit_batch *b, uint32_t n,
                                   const redisReply *reply);
