/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit - the group commit, the heart of the durable 250: what waits, when it goes, and when it
 * has waited too long. What goes into a batch is commit_seal.c, what its answer means
 * commit_answer.c.
 *
 * Redis fsyncs once per event loop turn and reads at most 16 KiB a turn, so commands that are
 * merely pipelined share nearly no fsync. Inside MULTI ... EXEC nothing happens before EXEC: one
 * transaction is one write to the AOF and one fsync, whatever it carries. So while one batch is in
 * flight the next one fills, by itself, with whatever arrives; nobody ever waits for company.
 *
 * Life of an entry (a message):
 *     waiting (any, or its shard's entries) -> in a slot of a batch in flight -> answered
 *                      ^                              |
 *                      +-- refused, or fate unknown --+
 * Life of a finish: waiting (its shard's finishes, by kind) -> in a call in flight -> answered, or
 * back. An entry's `with` finishes travel in calls of their own in the entry's transaction and go
 * back to the entry when that did not happen.
 *
 * Memory: a batch keeps a reference to each of its messages until it was both answered and sent;
 * Redis answers +QUEUED while the rest is still on its way, and the octets of a message that was
 * answered at its deadline may still be in the output.
 *
 * Limits: those of a batch (commit_seal.c), two transactions and one batch of finishes in flight.
 * All work is O(1) per entry and finish; entries are kept in order of deadline by insertion from
 * the end, where nearly all belong.
 */
#include "queue/commit.h"
#include "core/base/must.h"
#include "queue/commit_private.h"
#include <stdlib.h>

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define RESPLIT_MAX    (4 * 1024 * 1024)
#define SCRATCH_MAX    (64 * 1024 * 1024)

/* --- making ---------------------------------------------------------------------------------- */

struct commit_finish *commit_finish_new(enum commit_finish_kind kind, uint16_t shard,
                                        const char *id)
{
    struct commit_finish *f = mem_zalloc(sizeof *f);
    f->kind = kind;
    f->shard = shard;
    must(strlen(id) < sizeof f->id);
    memcpy(f->id, id, strlen(id) + 1);
    buf_init(&f->item, kind == FINISH_RESPLIT  ? RESPLIT_MAX
                       : kind == FINISH_CANCEL ? QUEUE_ITEM_MAX + BATCH_KEY_MAX
                                               : QUEUE_ITEM_MAX);
    list_init(&f->node);
    return f;
}

void commit_finish_free(struct commit_finish *f)
{
    buf_done(&f->item);
    free(f);
}

static void shard_init(struct shard *s)
{
    list_init(&s->entries);
    list_init(&s->turn);
    for (int kind = 0; kind < FINISH_KINDS; kind++)
        list_init(&s->finishes[kind]);
}

struct committer *commit_new(const struct commit_config *cfg)
{
    must(cfg->shards > 0 && cfg->shards < COMMIT_ANY_SHARD);
    struct committer *c = mem_zalloc(sizeof *c);
    c->cfg = *cfg;
    c->shards = mem_zalloc(cfg->shards * sizeof *c->shards);
    for (uint16_t i = 0; i < cfg->shards; i++)
        shard_init(&c->shards[i]);
    list_init(&c->any);
    list_init(&c->by_deadline);
    list_init(&c->turns);
    list_init(&c->flight);
    list_init(&c->answered);
    buf_init(&c->scratch, SCRATCH_MAX);
    buf_init(&c->pack_scratch, 2 * PACK_MAX);
    c->next_number = 1;
    c->is_up = true;
    c->messages.next_ms = c->finishing.next_ms = BACKOFF_MIN_MS;
    return c;
}

static void free_finishes(struct list *finishes)
{
    struct list *node;
    while ((node = list_pop_front(finishes)))
        commit_finish_free(list_entry(node, struct commit_finish, node));
}

static void drop_entries(struct list *entries)
{
    struct list *node;
    while ((node = list_pop_front(entries))) {
        struct commit_entry *entry = list_entry(node, struct commit_entry, node);
        free_finishes(&entry->with);
        list_remove(&entry->by_deadline);
        entry->done(entry, SMTP_NOT_QUEUED);
    }
}

void commit_free(struct committer *c)
{
    struct list *node;
    must(list_is_empty(&c->flight));
    drop_entries(&c->any);
    for (uint16_t i = 0; i < c->cfg.shards; i++) {
        drop_entries(&c->shards[i].entries);
        for (int kind = 0; kind < FINISH_KINDS; kind++)
            free_finishes(&c->shards[i].finishes[kind]);
    }
    while ((node = list_pop_front(&c->answered)))
        batch_free(list_entry(node, struct commit_batch, node));
    buf_done(&c->scratch);
    buf_done(&c->pack_scratch);
    free(c->spans);
    free(c->shards);
    free(c);
}

/* --- pauses ---------------------------------------------------------------------------------- */

void commit_backoff_reset(struct backoff *b)
{
    *b = (struct backoff){ .next_ms = BACKOFF_MIN_MS };
}

void commit_backoff_fail(struct backoff *b, int64_t now_ms)
{
    if (b->until_ms > now_ms)
        return; /* two batches in flight failed together: once is enough */
    b->until_ms = now_ms + b->next_ms;
    b->next_ms = b->next_ms * 2 < BACKOFF_MAX_MS ? b->next_ms * 2 : BACKOFF_MAX_MS;
}

/* --- waiting --------------------------------------------------------------------------------- */

/* In order of deadline; the end is nearly always the place. */
static void insert_by_deadline(struct committer *c, struct commit_entry *entry)
{
    struct list *before = c->by_deadline.prev;
    while (before != &c->by_deadline &&
           list_entry(before, struct commit_entry, by_deadline)->deadline_ms > entry->deadline_ms)
        before = before->prev;
    list_insert_between(&entry->by_deadline, before, before->next);
}

/* So that looking for the key and queueing are one step. */
static void bind_to_key(const struct committer *c, struct commit_entry *entry)
{
    uint16_t shard = queue_key_shard(entry->message->key, c->cfg.shards);
    must(entry->shard == COMMIT_ANY_SHARD || entry->shard == shard);
    entry->shard = shard;
}

void commit_add(struct committer *c, struct commit_entry *entry, const struct now *now)
{
    must(entry->target_count > 0);
    if (entry->message->has_key)
        bind_to_key(c, entry);
    c->now_ms = now->mono_ms;
    entry->slot = NULL;
    entry->pack = c->cfg.packs ? pack_new(entry->message, &c->pack_scratch) : NULL;
    entry->may_be_stored = false;
    list_init(&entry->by_deadline);
    c->inside++;
    c->entries_waiting++;
    entry->must_succeed = !list_is_empty(&entry->with);
    if (!entry->must_succeed)
        insert_by_deadline(c, entry);
    else
        must(entry->shard != COMMIT_ANY_SHARD);
    if (entry->shard == COMMIT_ANY_SHARD) {
        list_push_back(&c->any, &entry->node);
        return;
    }
    must(entry->shard < c->cfg.shards);
    list_push_back(&c->shards[entry->shard].entries, &entry->node);
    c->shards[entry->shard].entry_count++;
    c->fixed_waiting++;
}

void commit_put_back(struct committer *c, struct commit_entry *entry)
{
    struct shard *s = &c->shards[entry->shard];
    entry->slot = NULL;
    list_push_front(&s->entries, &entry->node);
    s->entry_count++;
    c->fixed_waiting++;
    c->entries_waiting++;
}

void commit_take(struct committer *c, struct commit_entry *entry)
{
    list_remove(&entry->node);
    c->entries_waiting--;
    if (entry->shard == COMMIT_ANY_SHARD)
        return;
    c->shards[entry->shard].entry_count--;
    c->fixed_waiting--;
}

void commit_add_finishes(struct committer *c, uint16_t shard, enum commit_finish_kind kind,
                         struct list *finishes, uint32_t count, bool to_front)
{
    struct shard *s = &c->shards[shard];
    if (c->finishes_waiting == 0)
        c->finishes_since_ms = c->now_ms;
    if (to_front)
        list_append_all(finishes, &s->finishes[kind]);
    list_append_all(&s->finishes[kind], finishes);
    s->finish_count[kind] += count;
    c->finishes_waiting += count;
    if (list_is_empty(&s->turn))
        list_push_back(&c->turns, &s->turn);
}

void commit_finish(struct committer *c, struct commit_finish *finish, const struct now *now)
{
    struct list one;
    must(finish->shard < c->cfg.shards);
    c->now_ms = now->mono_ms;
    c->inside++;
    list_init(&one);
    list_push_back(&one, &finish->node);
    commit_add_finishes(c, finish->shard, finish->kind, &one, 1, false);
}

/* --- sending --------------------------------------------------------------------------------- */

static void send_off(struct committer *c, struct commit_batch *b, int64_t now_ms)
{
    b->number = c->next_number++;
    b->sealed_ms = now_ms;
    list_push_back(&c->flight, &b->node);
    if (b->is_transaction)
        c->transactions++;
    else
        c->alone++;
    metrics_add(c->cfg.metrics, METRIC_COMMIT_BATCHES_TOTAL, 1);
    metrics_add(c->cfg.metrics, METRIC_COMMIT_MESSAGES_TOTAL, b->slot_count);
}

static void send_transaction(struct committer *c, struct commit_batch *b, struct redis_link *link,
                             struct gather *out)
{
    uint32_t replies = batch_encode_transaction(b, &c->cfg, c->scratch.ptr, c->spans, out);
    redis_link_push(link, &b->request, replies, commit_on_transaction);
}

static void send_alone(struct committer *c, struct commit_batch *b, struct redis_link *link,
                       struct gather *out)
{
    list_for_each (node, &b->calls) {
        struct commit_call *call = list_entry(node, struct commit_call, node);
        batch_encode_call(call, &c->cfg, out);
        redis_link_push(link, &call->request, 1, commit_on_call);
    }
}

/* --- what may go ----------------------------------------------------------------------------- */

static bool messages_may_go(const struct committer *c, uint32_t busy_sessions, int64_t now_ms)
{
    uint32_t at_once = busy_sessions < COMMIT_BUSY_SESSIONS ? 1 : 2;
    return c->entries_waiting > 0 && c->transactions < at_once && c->messages.until_ms <= now_ms;
}

/* When finishes that wait may go without a transaction to ride in; INT64_MAX: an event will tell.
 */
static int64_t finishes_due_ms(const struct committer *c, int64_t now_ms)
{
    if (c->finishes_waiting == 0 || c->alone > 0)
        return INT64_MAX;
    bool will_ride = c->entries_waiting > 0 && c->messages.until_ms <= now_ms && !c->is_full;
    if (will_ride && c->transactions > 0)
        return INT64_MAX; /* the next transaction takes them */
    int64_t due = c->finishes_since_ms + COMMIT_FINISH_DELAY_MS;
    if (c->finishes_waiting >= COMMIT_FINISH_COUNT && c->transactions == 0)
        due = c->finishes_since_ms;
    return due > c->finishing.until_ms ? due : c->finishing.until_ms;
}

bool commit_next(struct committer *c, struct redis_link *link, uint32_t busy_sessions,
                 struct gather *out, const struct now *now, uint64_t *batch_number)
{
    struct commit_batch *b = NULL;
    c->now_ms = now->mono_ms;
    if (!c->is_up)
        return false;
    while (!b && messages_may_go(c, busy_sessions, now->mono_ms))
        b = commit_seal_transaction(c);
    if (!b && finishes_due_ms(c, now->mono_ms) <= now->mono_ms)
        b = commit_seal_finishes(c);
    if (!b)
        return false;
    send_off(c, b, now->mono_ms);
    if (b->is_transaction)
        send_transaction(c, b, link, out);
    else
        send_alone(c, b, link, out);
    *batch_number = b->number;
    return true;
}

void commit_sent(struct committer *c, uint64_t batch_number)
{
    struct list *node;
    if (batch_number > c->sent_number)
        c->sent_number = batch_number;
    while (!list_is_empty(&c->answered)) {
        struct commit_batch *b = list_entry(c->answered.next, struct commit_batch, node);
        if (b->number > c->sent_number)
            return;
        node = list_pop_front(&c->answered);
        batch_free(list_entry(node, struct commit_batch, node));
    }
}

void commit_link_up(struct committer *c)
{
    c->is_up = true;
    commit_backoff_reset(&c->messages);
    commit_backoff_reset(&c->finishing);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static void expire(struct committer *c, struct commit_entry *entry)
{
    if (entry->slot || entry->may_be_stored)
        commit_withdraw(c, entry);
    if (entry->slot)
        entry->slot->entry = NULL;
    else
        commit_take(c, entry);
    commit_answer(c, entry, SMTP_NOT_QUEUED);
}

void commit_tick(struct committer *c, const struct now *now)
{
    c->now_ms = now->mono_ms;
    while (!list_is_empty(&c->by_deadline)) {
        struct commit_entry *entry =
            list_entry(c->by_deadline.next, struct commit_entry, by_deadline);
        if (entry->deadline_ms > now->mono_ms)
            return;
        expire(c, entry);
    }
}

/* --- questions ------------------------------------------------------------------------------- */

int64_t commit_wake_ms(const struct committer *c, const struct now *now)
{
    int64_t wake = INT64_MAX;
    if (!list_is_empty(&c->by_deadline))
        wake = list_entry(c->by_deadline.next, struct commit_entry, by_deadline)->deadline_ms;
    if (!c->is_up)
        return wake;
    int64_t due = finishes_due_ms(c, now->mono_ms);
    if (due < wake)
        wake = due;
    if (c->entries_waiting > 0 && c->transactions == 0 && c->messages.until_ms < wake)
        wake = c->messages.until_ms;
    return wake;
}

uint32_t commit_pending(const struct committer *c)
{
    return c->inside;
}

int64_t commit_age_ms(const struct committer *c, const struct now *now)
{
    if (list_is_empty(&c->flight))
        return 0;
    return now->mono_ms - list_entry(c->flight.next, struct commit_batch, node)->sealed_ms;
}
