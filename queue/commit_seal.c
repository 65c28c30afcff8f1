/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit_seal - what goes into the next batch.
 *
 * Messages first: those that are bound to a shard, by their chunks, their idempotency key or an
 * earlier try, then any. Shards take turns to be the first, one per batch. A batch is one
 * transaction whatever shards are in it, each with its own kilat_enq, so that batches stay full
 * however many shards there are; when Redis is a cluster, a transaction lives on one node, and a
 * batch has one shard. Then finished work joins, of all shards in turn, or of that one.
 *
 * Limits: COMMIT_MESSAGES_MAX, COMMIT_OCTETS_MAX, PARTS_MAX and DELIVERIES_MAX per batch, though a
 * single message may be larger; FINISHES_MAX of finished work, and COMMIT_OCTETS_MAX of its items.
 */
#include "core/base/must.h"
#include "queue/commit_private.h"

#define PARTS_MAX       900 /* gather parts of a batch: below the kernel's IOV_MAX of 1024 */
#define DELIVERIES_MAX  1024
#define FINISHES_MAX    256
#define PARTS_PER_ENTRY 2 /* copied octets before and after its content */

/* Room for an entry's spans. */
static struct commit_span *reserve_spans(struct committer *c, uint32_t n)
{
    if (c->span_count + n > c->span_cap) {
        c->span_cap = 2 * (c->span_count + n);
        c->spans = mem_realloc(c->spans, c->span_cap * sizeof *c->spans);
    }
    return c->spans + c->span_count;
}

/* What a batch holds already, or an entry would add to it. */
struct load {
    size_t octets;
    uint32_t parts, deliveries;
};

static struct load load_of(const struct commit_entry *entry, uint32_t encoded)
{
    const struct message *m = entry->message;
    struct load l = { batch_content_len(m, entry->pack), PARTS_PER_ENTRY, entry->target_count };
    l.octets += encoded;
    l.parts += entry->pack != NULL;
    for (const struct chain_seg *seg = m->content.head; seg && !entry->pack; seg = seg->next)
        l.parts++;
    return l;
}

static bool fits(const struct load *batch, const struct load *more)
{
    return batch->deliveries == 0 || (batch->octets + more->octets <= COMMIT_OCTETS_MAX &&
                                      batch->parts + more->parts <= PARTS_MAX &&
                                      batch->deliveries + more->deliveries <= DELIVERIES_MAX);
}

/* Into the batch's last run. */
static void put_in_slot(struct committer *c, struct commit_batch *b, struct commit_entry *entry)
{
    struct commit_run *run = &b->runs[b->run_count - 1];
    struct commit_slot *slot = &b->slots[b->slot_count++];
    *slot = (struct commit_slot){ .entry = entry,
                                  .message = message_ref(entry->message),
                                  .pack = pack_ref(entry->pack),
                                  .shard = run->shard,
                                  .run = (uint16_t)(run - b->runs),
                                  .first_span = c->span_count };
    c->span_count += 1 + entry->target_count;
    run->slot_count++;
    run->deliveries += entry->target_count;
    run->told += entry->event.len > 0;
    entry->slot = slot;
    entry->shard = run->shard;
}

/* Moves waiting entries into slots while there is room; false: the batch is full. */
static bool fill_from(struct committer *c, struct commit_batch *b, struct list *from,
                      struct load *load)
{
    while (!list_is_empty(from)) {
        struct commit_entry *entry = list_entry(from->next, struct commit_entry, node);
        uint32_t start = c->scratch.len;
        if (b->slot_count == b->slots_max)
            return false;
        struct commit_span *spans = reserve_spans(c, 1 + entry->target_count);
        if (batch_encode_entry(entry, &c->scratch, spans) != STATUS_OK) {
            commit_take(c, entry);
            commit_answer(c, entry, SMTP_NOT_QUEUED);
            continue;
        }
        struct load more = load_of(entry, c->scratch.len - start);
        if (!fits(load, &more)) {
            c->scratch.len = start;
            return false;
        }
        load->octets += more.octets;
        load->parts += more.parts;
        load->deliveries += more.deliveries;
        commit_take(c, entry);
        put_in_slot(c, b, entry);
    }
    return true;
}

/* A run without a slot makes room for another shard. */
static void begin_run(struct commit_batch *b, uint16_t shard)
{
    if (b->run_count == 0 || b->runs[b->run_count - 1].slot_count > 0)
        b->run_count++;
    b->runs[b->run_count - 1] = (struct commit_run){ .shard = shard, .first_slot = b->slot_count };
}

/* Messages that are bound to a shard, beginning with this one, then any. */
static void fill(struct committer *c, struct commit_batch *b, uint16_t first)
{
    struct load load = { 0 };
    uint16_t shards = c->cfg.is_clustered ? 1 : c->cfg.shards;
    begin_run(b, first);
    for (uint16_t i = 0; i < shards && (i == 0 || c->fixed_waiting > 0); i++) {
        uint16_t shard = (uint16_t)((first + i) % c->cfg.shards);
        if (c->shards[shard].entry_count == 0)
            continue;
        begin_run(b, shard);
        if (!fill_from(c, b, &c->shards[shard].entries, &load))
            return;
    }
    fill_from(c, b, &c->any, &load);
}

/* The next shard in turn; one that entries are bound to, when there are such. */
static uint16_t pick_shard(struct committer *c)
{
    uint16_t shard = c->next_shard;
    while (c->fixed_waiting > 0 && c->shards[shard].entry_count == 0)
        shard = (uint16_t)((shard + 1) % c->cfg.shards);
    c->next_shard = (uint16_t)((shard + 1) % c->cfg.shards);
    return shard;
}

/* Moves finishes of one shard and kind into a call; returns how many octets of items it has. */
static size_t take_finishes(struct committer *c, struct commit_batch *b, struct shard *s,
                            enum commit_finish_kind kind, uint32_t max)
{
    struct commit_call *call = batch_add_call(b, kind, (uint16_t)(s - c->shards));
    size_t octets = 0;
    while (call->count < max && octets < COMMIT_OCTETS_MAX && !list_is_empty(&s->finishes[kind])) {
        struct list *node = list_pop_front(&s->finishes[kind]);
        octets += list_entry(node, struct commit_finish, node)->item.len;
        list_push_back(&call->finishes, node);
        call->count++;
    }
    s->finish_count[kind] -= call->count;
    c->finishes_waiting -= call->count;
    return octets;
}

/* Takes what a shard has, as far as there is room. */
static void take_shard_finishes(struct committer *c, struct commit_batch *b, struct shard *s,
                                uint32_t *room, size_t *octets)
{
    bool is_empty = true;
    for (int kind = 0; kind < FINISH_KINDS; kind++) {
        if (s->finish_count[kind] > 0 && *room > 0 && *octets < COMMIT_OCTETS_MAX) {
            uint32_t before = c->finishes_waiting;
            *octets += take_finishes(c, b, s, kind, *room);
            *room -= before - c->finishes_waiting;
        }
        is_empty &= s->finish_count[kind] == 0;
    }
    list_remove(&s->turn);
    if (!is_empty)
        list_push_back(&c->turns, &s->turn);
}

/* Finished work joins the batch: of one shard when Redis is a cluster, else of all in turn. */
static void take_calls(struct committer *c, struct commit_batch *b)
{
    uint32_t room = FINISHES_MAX;
    size_t octets = 0;
    if (b->is_transaction && !list_is_empty(&c->shards[b->runs[0].shard].turn))
        take_shard_finishes(c, b, &c->shards[b->runs[0].shard], &room, &octets);
    bool is_one_shard = c->cfg.is_clustered && b->is_transaction;
    while (!is_one_shard && !list_is_empty(&c->turns) && room > 0 && octets < COMMIT_OCTETS_MAX) {
        struct shard *s = list_entry(c->turns.next, struct shard, turn);
        take_shard_finishes(c, b, s, &room, &octets);
        is_one_shard = c->cfg.is_clustered;
    }
    c->finishes_since_ms = c->now_ms;
}

/* The finishes that an entry must not be durable without. */
static void take_with(struct commit_batch *b, struct commit_slot *slot, uint32_t *inside)
{
    struct list *node;
    while ((node = list_pop_front(&slot->entry->with))) {
        struct commit_finish *f = list_entry(node, struct commit_finish, node);
        must(f->shard == slot->shard);
        struct commit_call *call = batch_add_call(b, f->kind, f->shard);
        call->with = slot;
        call->count = 1;
        list_push_back(&call->finishes, node);
        (*inside)++;
    }
}

struct commit_batch *commit_seal_transaction(struct committer *c)
{
    uint32_t slots = c->entries_waiting;
    struct commit_batch *b =
        batch_new(c, slots < COMMIT_MESSAGES_MAX ? slots : COMMIT_MESSAGES_MAX, c->cfg.shards);
    b->is_transaction = true;
    buf_clear(&c->scratch);
    c->span_count = 0;
    fill(c, b, pick_shard(c));
    b->run_count -= b->runs[b->run_count - 1].slot_count == 0;
    if (b->slot_count == 0) {
        batch_free(b);
        return NULL;
    }
    for (uint32_t i = 0; i < b->slot_count; i++)
        take_with(b, &b->slots[i], &c->inside);
    if (!c->is_full && c->finishing.until_ms <= c->now_ms)
        take_calls(c, b);
    return b;
}

struct commit_batch *commit_seal_finishes(struct committer *c)
{
    struct commit_batch *b = batch_new(c, 0, 0);
    take_calls(c, b);
    return b;
}
