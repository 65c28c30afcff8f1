/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * commit_private - the committer's inside, shared by commit.c (what waits), commit_seal.c (what
 * goes into a batch) and commit_answer.c (what becomes of it).
 */
#include "queue/commit_batch.h"

/* What waits for one shard. */
struct shard {
    struct list entries; /* that must go here: their chunks, or an earlier try, are here */
    uint32_t entry_count;
    struct list finishes[FINISH_KINDS];
    uint32_t finish_count[FINISH_KINDS];
    struct list turn; /* on the committer's turns exactly while it has finishes */
};

/* A pause before the next try, growing while tries fail. */
struct backoff {
    int64_t until_ms; /* monotonic */
    uint32_t next_ms;
};

struct committer {
    struct commit_config cfg;
    struct shard *shards; /* owned */
    struct list any;      /* entries that may go to any shard */
    struct list by_deadline;
    uint32_t entries_waiting, fixed_waiting, finishes_waiting;
    struct list turns;            /* shards with finishes, next one first */
    int64_t finishes_since_ms;    /* monotonic; the oldest of them came then, or later */
    uint32_t inside;              /* entries and finishes, waiting or in flight */
    struct list flight;           /* batches without an answer, oldest first */
    struct list answered;         /* batches with one, whose octets have not all left */
    uint32_t transactions, alone; /* of those in flight */
    uint64_t next_number, sent_number;
    uint16_t next_shard;
    bool is_up;
    bool is_full; /* the last transaction met a full Redis: finishes go alone */
    struct backoff messages, finishing;
    struct buf scratch;        /* of the batch being sealed */
    struct buf pack_scratch;   /* of the content being packed */
    struct commit_span *spans; /* owned; of the batch being sealed */
    uint32_t span_count, span_cap;
    int64_t now_ms; /* monotonic; as of the last call that brought it */
};

/* A batch of messages, with finished work; NULL: of all that waited nothing could be sent. */
struct commit_batch *commit_seal_transaction(struct committer *c);
/* A batch of finished work alone. */
struct commit_batch *commit_seal_finishes(struct committer *c);

/* Takes a waiting entry off its list. */
void commit_take(struct committer *c, struct commit_entry *entry);
/* Gives an entry that is on no list its answer; its owner has it then. */
void commit_answer(struct committer *c, struct commit_entry *entry, enum smtp_verdict verdict);

/* One more failed try, or a success. */
void commit_backoff_fail(struct backoff *b, int64_t now_ms);
void commit_backoff_reset(struct backoff *b);
/* An entry that was in a batch waits again, before all that came later. */
void commit_put_back(struct committer *c, struct commit_entry *entry);
/* Finishes, of one kind, join those that wait for the shard. */
void commit_add_finishes(struct committer *c, uint16_t shard, enum commit_finish_kind kind,
                         struct list *finishes, uint32_t count, bool to_front);
/* Takes back what may be stored of an entry that is about to get no. */
void commit_withdraw(struct committer *c, const struct commit_entry *entry);
/* A transaction, or a call alone, was answered. */
void commit_on_transaction(struct redis_request *req, const redisReply *reply);
void commit_on_call(struct redis_request *req, const redisReply *reply);
