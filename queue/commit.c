/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit - the group commit, the heart of the durable 250.
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
 * Fates. EXEC's array: done. An error instead: nothing happened; messages get 452 when Redis is
 * full, else all is tried again after a pause, 50 ms to 1 s, until the entry's deadline. No reply
 * (the link is lost): unknown, so it is sent again under the same ids, in the same shard; kilat_enq
 * tells by the records what had happened. An error inside the array: answered 451 and withdrawn.
 *
 * A full Redis refuses whatever is said inside MULTI, kilat_done too: while it is full, finishes go
 * alone, as plain FCALLs, which it runs.
 *
 * Withdrawing is a finish of our own, kilat_cancel, which goes behind the transaction that it takes
 * back, on the same link, or on the next one; there it also leaves a mark, in case the old
 * connection's bytes still wait in Redis' socket and run after it. It takes back the message's
 * idempotency key too; unless its sender tried again before and was told, by that key, that the
 * message is queued: then it stays, and others deliver it (lua/enqueue.lua).
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
    free(c->spans);
    free(c->shards);
    free(c);
}

/* --- pauses ---------------------------------------------------------------------------------- */

static void backoff_reset(struct backoff *b)
{
    *b = (struct backoff){ .next_ms = BACKOFF_MIN_MS };
}

static void backoff_fail(struct backoff *b, int64_t now_ms)
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

/* An entry that was in a batch waits again, before all that came later. */
static void put_back_entry(struct committer *c, struct commit_entry *entry)
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

/* Finishes, of one kind, join those that wait for the shard. */
static void add_finishes(struct committer *c, uint16_t shard, enum commit_finish_kind kind,
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
    add_finishes(c, finish->shard, finish->kind, &one, 1, false);
}

/* --- answers --------------------------------------------------------------------------------- */

void commit_answer(struct committer *c, struct commit_entry *entry, enum smtp_verdict verdict)
{
    list_remove(&entry->by_deadline);
    entry->slot = NULL;
    c->inside--;
    entry->done(entry, verdict);
}

static void on_cancelled(struct commit_finish *finish, bool was_lost)
{
    commit_finish_free(finish);
}

/* Takes back what may be stored of an entry that is about to get no. */
static void withdraw(struct committer *c, const struct commit_entry *entry)
{
    struct list cancels;
    list_init(&cancels);
    for (uint32_t k = 0; k < entry->target_count; k++) {
        char id[DELIVERY_ID_MAX];
        batch_delivery_id(id, entry, k);
        struct commit_finish *f = commit_finish_new(FINISH_CANCEL, entry->shard, id);
        /* It could be encoded when it was sent, so it can be again. */
        enum status st = batch_encode_item(entry, &entry->targets[k], &f->item);
        must(st == STATUS_OK);
        if (entry->message->has_key)
            batch_encode_key(entry->message, &c->cfg, &f->item);
        f->done = on_cancelled;
        list_push_back(&cancels, &f->node);
    }
    c->inside += entry->target_count;
    add_finishes(c, entry->shard, FINISH_CANCEL, &cancels, entry->target_count, false);
}

/* Every finish of a call is durable, or its lease was lost: ids in the order of the call. */
static void answer_finishes(struct committer *c, struct commit_call *call, const redisReply *lost)
{
    struct list *node;
    size_t next = 0;
    while ((node = list_pop_front(&call->finishes))) {
        struct commit_finish *f = list_entry(node, struct commit_finish, node);
        bool is_lost = next < lost->elements && lost->element[next]->type == REDIS_REPLY_STRING &&
                       strcmp(lost->element[next]->str, f->id) == 0;
        next += is_lost;
        c->inside--;
        /* When an earlier try may have done it, that it is gone now is no news. */
        f->done(f, is_lost && !f->may_be_done);
    }
}

/* The call did not happen, or may not have: its finishes wait again, or are their entry's again. */
static void put_back_call(struct committer *c, struct commit_call *call, bool may_be_done)
{
    list_for_each (node, &call->finishes)
        list_entry(node, struct commit_finish, node)->may_be_done |= may_be_done;
    if (!call->with) {
        add_finishes(c, call->shard, call->kind, &call->finishes, call->count, true);
        return;
    }
    c->inside -= call->count;
    list_append_all(&call->with->entry->with, &call->finishes);
}

static void read_call(struct committer *c, struct commit_call *call, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ARRAY) {
        answer_finishes(c, call, reply);
        return;
    }
    if (call->with && call->with->fate == SLOT_QUEUED)
        call->with = NULL; /* its entry is durable: it goes on its own now */
    put_back_call(c, call, false);
    backoff_fail(&c->finishing, c->now_ms);
}

/* --- the end of a batch ---------------------------------------------------------------------- */

static void batch_is_answered(struct committer *c, struct commit_batch *b)
{
    list_remove(&b->node);
    if (b->is_transaction)
        c->transactions--;
    else
        c->alone--;
    if (b->number <= c->sent_number)
        batch_free(b);
    else
        list_push_back(&c->answered, &b->node);
}

/* True when Redis did what it was asked, and has its answer. */
static bool is_decided(enum slot_fate fate)
{
    return fate == SLOT_QUEUED || fate == SLOT_REPEATED || fate == SLOT_CONFLICT;
}

/* True when the slot's entry goes back to wait; an entry that has company must succeed. */
static bool goes_back(const struct commit_slot *slot)
{
    if (is_decided(slot->fate) || slot->fate == SLOT_REFUSED)
        return false;
    return slot->fate == SLOT_RETRY || slot->entry->must_succeed;
}

static void put_back_slot(struct committer *c, struct commit_slot *slot, bool may_be_stored)
{
    slot->entry->may_be_stored |= may_be_stored;
    put_back_entry(c, slot->entry);
    slot->entry = NULL;
}

static void answer_slot(struct committer *c, struct commit_slot *slot)
{
    static const enum smtp_verdict verdicts[] = {
        [SLOT_QUEUED] = SMTP_QUEUED,         [SLOT_REPEATED] = SMTP_QUEUED,
        [SLOT_CONFLICT] = SMTP_KEY_CONFLICT, [SLOT_REFUSED] = SMTP_NOT_QUEUED,
        [SLOT_FULL] = SMTP_QUEUE_FULL,       [SLOT_RETRY] = SMTP_NOT_QUEUED,
        [SLOT_BROKEN] = SMTP_NOT_QUEUED,
    };
    struct commit_entry *entry = slot->entry;
    slot->entry = NULL;
    if (slot->fate == SLOT_BROKEN || (slot->fate == SLOT_FULL && entry->may_be_stored))
        withdraw(c, entry);
    commit_answer(c, entry, verdicts[slot->fate]);
}

/* Entries without a slot's entry were answered and withdrawn at their deadline. Those that go back
 * do so last first, which keeps their order. */
static void settle_slots(struct committer *c, struct commit_batch *b)
{
    for (uint32_t i = b->slot_count; i-- > 0;) {
        if (!b->slots[i].entry || !goes_back(&b->slots[i]))
            continue;
        put_back_slot(c, &b->slots[i], b->slots[i].fate == SLOT_BROKEN);
        backoff_fail(&c->messages, c->now_ms);
    }
    for (uint32_t i = 0; i < b->slot_count; i++)
        if (b->slots[i].entry)
            answer_slot(c, &b->slots[i]);
}

static void set_fates(struct commit_batch *b, enum slot_fate fate)
{
    for (uint32_t i = 0; i < b->slot_count; i++)
        b->slots[i].fate = fate;
}

static void put_back_calls(struct committer *c, struct commit_batch *b, bool may_be_done)
{
    list_for_each (node, &b->calls)
        put_back_call(c, list_entry(node, struct commit_call, node), may_be_done);
}

/* The calls of an executed transaction; finishes are answered before the entries they ride with. */
static void read_calls(struct committer *c, struct commit_batch *b, const redisReply *reply)
{
    uint32_t n = 0;
    list_for_each (node, &b->calls)
        read_call(c, list_entry(node, struct commit_call, node), batch_call_reply(b, n++, reply));
}

/* All of it waits again, last first, which keeps the order. */
static void put_back_slots(struct committer *c, struct commit_batch *b, bool may_be_stored)
{
    for (uint32_t i = b->slot_count; i-- > 0;)
        if (b->slots[i].entry)
            put_back_slot(c, &b->slots[i], may_be_stored);
    backoff_fail(&c->messages, c->now_ms);
}

static void transaction_executed(struct committer *c, struct commit_batch *b,
                                 const redisReply *reply)
{
    c->is_full = b->slots[0].fate == SLOT_FULL;
    if (is_decided(b->slots[0].fate))
        backoff_reset(&c->messages);
    read_calls(c, b, reply);
    settle_slots(c, b);
}

static void transaction_full(struct committer *c, struct commit_batch *b)
{
    c->is_full = true;
    set_fates(b, SLOT_FULL);
    put_back_calls(c, b, false);
    settle_slots(c, b);
}

static void on_transaction(struct redis_request *req, const redisReply *reply)
{
    struct commit_batch *b = container_of(req, struct commit_batch, request);
    struct committer *c = b->committer;
    enum batch_result result = batch_read(b, reply);
    if (!reply)
        c->is_up = false;
    if (result == BATCH_EXECUTED) {
        transaction_executed(c, b, reply);
    } else if (result == BATCH_FULL) {
        transaction_full(c, b);
    } else {
        put_back_calls(c, b, result == BATCH_UNKNOWN);
        put_back_slots(c, b, result == BATCH_UNKNOWN);
    }
    batch_is_answered(c, b);
}

static void on_call(struct redis_request *req, const redisReply *reply)
{
    struct commit_call *call = container_of(req, struct commit_call, request);
    struct commit_batch *b = call->batch;
    struct committer *c = b->committer;
    if (!reply) {
        c->is_up = false;
        put_back_call(c, call, true);
    } else {
        if (reply->type == REDIS_REPLY_ARRAY)
            backoff_reset(&c->finishing);
        read_call(c, call, reply);
    }
    if (--b->call_count == 0)
        batch_is_answered(c, b);
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
    redis_link_push(link, &b->request, replies, on_transaction);
}

static void send_alone(struct committer *c, struct commit_batch *b, struct redis_link *link,
                       struct gather *out)
{
    list_for_each (node, &b->calls) {
        struct commit_call *call = list_entry(node, struct commit_call, node);
        batch_encode_call(call, &c->cfg, out);
        redis_link_push(link, &call->request, 1, on_call);
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
    backoff_reset(&c->messages);
    backoff_reset(&c->finishing);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static void expire(struct committer *c, struct commit_entry *entry)
{
    if (entry->slot || entry->may_be_stored)
        withdraw(c, entry);
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
