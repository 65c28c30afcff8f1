/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * commit - the group commit: many messages and many finished deliveries become durable with one
 * MULTI/EXEC, one AOF write, one fsync.
 *
 * While a batch is in flight the next one fills; commit_next seals it when the rule allows: one
 * batch in flight below COMMIT_BUSY_SESSIONS busy sessions, else two; at most COMMIT_MESSAGES_MAX
 * messages or COMMIT_OCTETS_MAX octets; never an artificial delay. When only finishes wait, they go
 * after COMMIT_FINISH_DELAY_MS or COMMIT_FINISH_COUNT of them.
 *
 * A batch: MULTI, FCALL kilat_enq (born leased), SET b:<id> ... XX for each message, FCALL
 * kilat_done / _retry / _release / ... for finished work, EXEC. Messages that may go to any shard
 * go to one, rotating; those that are bound to others, and finishes of every shard, ride along
 * (those of the same shard only, when clustered).
 *
 * A lost link leaves a batch's fate unknown: after commit_link_up its messages are sent again under
 * the same ids, and the enqueue function is idempotent by id. An entry that outlives its deadline
 * is answered SMTP_NOT_QUEUED and withdrawn (kilat_cancel).
 *
 * A message with an idempotency key that another message of the same digest was queued under is not
 * queued: SMTP_QUEUED, with the first one's id in first_id. With another digest: SMTP_KEY_CONFLICT.
 *
 * A full Redis (-OOM) fails the messages of a batch with SMTP_QUEUE_FULL; the finishes in it are
 * sent again in a batch of their own, outside of MULTI, since they free memory and are allowed.
 */
#include "core/base/clock.h"
#include "core/base/metrics.h"
#include "core/smtp/session.h"
#include "queue/redis_link.h"
#include "queue/schema.h"

#define COMMIT_MESSAGES_MAX    256
#define COMMIT_OCTETS_MAX      (1024 * 1024)
#define COMMIT_BUSY_SESSIONS   32
#define COMMIT_FINISH_DELAY_MS 5
#define COMMIT_FINISH_COUNT    64
#define COMMIT_ANY_SHARD       UINT16_MAX

enum commit_mode {
    COMMIT_LEASED,
    COMMIT_READY,
    COMMIT_HELD,
    COMMIT_SCHEDULED, /* ready at the entry's due_ms (FUTURERELEASE, P-67) */
};

/* One destination of a message to be queued. */
struct commit_target {
    char dest[DEST_KEY_MAX];
    enum commit_mode mode; /* LEASED: this worker delivers it from memory */
    const uint32_t *rcpts; /* in the message's arena */
    uint32_t rcpt_count;
};

struct commit_entry;
struct pack;
struct commit_slot; /* commit_batch.h */
/* Called exactly once. With SMTP_QUEUED and no first_id, entry->shard is final and targets that are
 * LEASED are this worker's (one whose lease passed on while the commit's reply was lost has become
 * READY). The callee owns the entry again and frees it. */
typedef void commit_done_fn(struct commit_entry *entry, enum smtp_verdict verdict);

/* A message to make durable. The maker owns it until commit_add, then again in done(). */
struct commit_entry {
    struct list node;
    struct message *message;       /* one reference, the entry's; commit never drops it */
    struct commit_target *targets; /* in the message's arena */
    uint32_t target_count; /* at least 1; delivery k is "<id>" when alone, else "<id>/<k>" */
    uint16_t shard;        /* COMMIT_ANY_SHARD, or the shard that its chunks are in; a message with
                              an idempotency key goes to the shard of that (queue_key_shard) */
    int64_t due_ms;        /* wall clock; of SCHEDULED targets */
    int64_t expires_ms;    /* wall clock: when to give up delivering */
    int64_t deadline_ms;   /* monotonic: when to answer SMTP_NOT_QUEUED at the latest */
    commit_done_fn *done;
    void *owner;                     /* the maker's */
    char first_id[QUEUE_ID_LEN + 1]; /* with SMTP_QUEUED: the message that stands for this one,
                                        which was not queued; "": it was */
    /* struct commit_finish: made durable in the same transaction (a bounce and the end of what it
     * reports); their shard is the entry's. Such an entry has no deadline and is tried until it is
     * durable. */
    struct list with;
    struct slice event; /* borrowed: JSON that tells of the message when it is durable; or none */
    /* commit's own from here on; zero before commit_add */
    struct list by_deadline;
    struct pack *pack;        /* one reference; how its content is stored; NULL: as it is */
    struct commit_slot *slot; /* in the batch in flight that carries it; NULL: it waits */
    bool must_succeed;        /* it came with company */
    bool may_be_stored;       /* a batch of unknown fate carried it */
};

enum commit_finish_kind {
    FINISH_EVENT,    /* ends nothing: an event of what the next finishes end. Those of a shard go
                        before its other finishes, so that none ends untold; `item` is the JSON */
    FINISH_TRACE,    /* ends nothing: a recipient of what the next finishes end, `item` is what
                        queue_trace_encode writes */
    FINISH_DONE,     /* delivered: forget it */
    FINISH_BOUNCED,  /* it, or a part of it, failed for good: likewise */
    FINISH_EXPIRED,  /* it, or a part of it, was given up after its time: likewise */
    FINISH_RETRY,    /* again in delay_ms, with `item` */
    FINISH_RELEASE,  /* hand back at once, to the front */
    FINISH_PASS,     /* hand on at once, behind what waits: it was never begun */
    FINISH_DEAD,     /* to the dead letters, item holds the reason */
    FINISH_CANCEL,   /* as if never queued: withdrawn after a 451 */
    FINISH_RESPLIT,  /* replaced by other deliveries, ready at the front: `item` holds their count,
                        then "\nid\titem" for each */
    FINISH_SUPPRESS, /* ends nothing: a hard bounce for a tenant's suppression list; the shard is
                        the tenant's, `item` what policy_hard_bounce writes */
};
#define FINISH_KINDS (FINISH_SUPPRESS + 1)

struct commit_finish;
/* Called exactly once when durable; was_lost: the lease had passed to another worker. The callee
 * owns the finish again and frees it. */
typedef void commit_finished_fn(struct commit_finish *finish, bool was_lost);

struct commit_finish {
    struct list node;
    enum commit_finish_kind kind;
    uint16_t shard;
    char id[DELIVERY_ID_MAX];
    struct buf item;   /* RETRY: the new item; DEAD: the reason; CANCEL: the item as queued, or
                          nothing, and its idempotency key; see RESPLIT */
    uint32_t delay_ms; /* RETRY */
    commit_finished_fn *done;
    void *owner;
    bool may_be_done; /* commit's own: a batch of unknown fate carried it */
};

struct commit_finish *commit_finish_new(enum commit_finish_kind kind, uint16_t shard,
                                        const char *id);
void commit_finish_free(struct commit_finish *f);

struct commit_config {
    uint16_t shards;
    bool is_clustered;
    uint32_t lease_ms;
    uint64_t key_ttl_ms; /* how long an idempotency key is kept */
    bool packs;          /* contents are compressed where that helps (queue/pack.h) */
    uint64_t events_max; /* octets of events in a shard; 0: none are told */
    char worker[QUEUE_WORKER_LEN + 1];
    struct metrics *metrics;
};

struct committer; /* commit.c */

struct committer *commit_new(const struct commit_config *cfg);
/* What is still inside is answered SMTP_NOT_QUEUED (entries) or freed without a call (finishes)
 * first. No reply may be awaited any more: call redis_link_lost before. */
void commit_free(struct committer *c);
void commit_add(struct committer *c, struct commit_entry *entry, const struct now *now);
void commit_finish(struct committer *c, struct commit_finish *finish, const struct now *now);
/*
 * Seals and appends the next batch to out and pushes its request on the link; false: nothing may
 * be sent now. The batch's messages are borrowed by `out` until commit_sent says their bytes have
 * left: *batch_end is the batch's number, passed to commit_sent.
 */
bool commit_next(struct committer *c, struct redis_link *link, uint32_t busy_sessions,
                 struct gather *out, const struct now *now, uint64_t *batch_number);
/* Every byte of this batch and all before it was sent (or will never be: the connection is closed).
 */
void commit_sent(struct committer *c, uint64_t batch_number);
/* The link is usable (again): batches of unknown fate are sent again first by commit_next. After a
 * loss, call redis_link_lost, commit_sent for all, then this once it is back. */
void commit_link_up(struct committer *c);
/* Gives entries past their deadline their answer. */
void commit_tick(struct committer *c, const struct now *now);
/* Monotonic ms when commit_next or commit_tick may have something to do without an event;
 * INT64_MAX: never. */
int64_t commit_wake_ms(const struct committer *c, const struct now *now);
/* Entries and finishes inside, in flight or not. */
uint32_t commit_pending(const struct committer *c);
/* Age in ms of the oldest batch in flight; 0 when none is. */
int64_t commit_age_ms(const struct committer *c, const struct now *now);
