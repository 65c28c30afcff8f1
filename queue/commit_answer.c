/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit_answer - the end of a batch: who gets which answer, what goes back to wait, what is taken
 * back.
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
 * To add a fate: a value of enum slot_fate, its reading in commit_batch.c, its row in answer_slot.
 */
#include "core/base/must.h"
#include "queue/commit_private.h"

/* --- answers --------------------------------------------------------------------------------- */

void commit_answer(struct committer *c, struct commit_entry *entry, enum smtp_verdict verdict)
{
    list_remove(&entry->by_deadline);
    entry->slot = NULL;
    pack_unref(entry->pack);
    entry->pack = NULL;
    c->inside--;
    entry->done(entry, verdict);
}

static void on_cancelled(struct commit_finish *finish, bool was_lost)
{
    commit_finish_free(finish);
}

void commit_withdraw(struct committer *c, const struct commit_entry *entry)
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
    commit_add_finishes(c, entry->shard, FINISH_CANCEL, &cancels, entry->target_count, false);
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
        commit_add_finishes(c, call->shard, call->kind, &call->finishes, call->count, true);
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
    commit_backoff_fail(&c->finishing, c->now_ms);
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
    commit_put_back(c, slot->entry);
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
        commit_withdraw(c, entry);
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
        commit_backoff_fail(&c->messages, c->now_ms);
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
    commit_backoff_fail(&c->messages, c->now_ms);
}

static void transaction_executed(struct committer *c, struct commit_batch *b,
                                 const redisReply *reply)
{
    c->is_full = b->slots[0].fate == SLOT_FULL;
    if (is_decided(b->slots[0].fate))
        commit_backoff_reset(&c->messages);
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

void commit_on_transaction(struct redis_request *req, const redisReply *reply)
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

void commit_on_call(struct redis_request *req, const redisReply *reply)
{
    struct commit_call *call = container_of(req, struct commit_call, request);
    struct commit_batch *b = call->batch;
    struct committer *c = b->committer;
    if (!reply) {
        c->is_up = false;
        put_back_call(c, call, true);
    } else {
        if (reply->type == REDIS_REPLY_ARRAY)
            commit_backoff_reset(&c->finishing);
        read_call(c, call, reply);
    }
    if (--b->call_count == 0)
        batch_is_answered(c, b);
}
