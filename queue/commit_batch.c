/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit_batch - a batch in Redis' words.
 *
 * The order inside the transaction carries a promise. kilat_enq comes first and makes every record,
 * empty, as its last act; SET ... XX then fills only records that exist. So a record exists exactly
 * when its deliveries were queued: a function library that is missing, a chunk that is gone or an
 * error on the way leaves no record behind, and a record that is found when a batch is sent again
 * proves that the first try had happened. KEEPTTL lets the mark of a withdrawn message keep its
 * end.
 *
 * Bodies are pointed at, never copied, and never pass through Lua; all else is copied.
 *
 * Events are told last. One that could not be told is lost, and nothing else is.
 *
 * To add a kind of finish: a row in functions[], how many arguments it has, its function in
 * kilat.lua.
 */
#include "queue/commit_batch.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

/* Each finish is its id and these; events have their budget before all. */
enum call_args { ARGS_NONE, ARGS_ITEM, ARGS_DELAY_ITEM, ARGS_EVENT };

static const struct {
    struct slice name;
    enum call_args args;
} functions[FINISH_KINDS] = {
    [FINISH_EVENT] = { { "kilat_tell", 10 }, ARGS_EVENT },
    [FINISH_TRACE] = { { "kilat_trace", 11 }, ARGS_ITEM },
    [FINISH_DONE] = { { "kilat_done", 10 }, ARGS_NONE },
    [FINISH_BOUNCED] = { { "kilat_bounced", 13 }, ARGS_NONE },
    [FINISH_EXPIRED] = { { "kilat_expired", 13 }, ARGS_NONE },
    [FINISH_RETRY] = { { "kilat_retry", 11 }, ARGS_DELAY_ITEM },
    [FINISH_RELEASE] = { { "kilat_release", 13 }, ARGS_NONE },
    [FINISH_PASS] = { { "kilat_pass", 10 }, ARGS_NONE },
    [FINISH_DEAD] = { { "kilat_dead", 10 }, ARGS_ITEM },
    [FINISH_CANCEL] = { { "kilat_cancel", 12 }, ARGS_ITEM },
    [FINISH_RESPLIT] = { { "kilat_resplit", 13 }, ARGS_ITEM },
    [FINISH_SUPPRESS] = { { "kilat_hard_bounce", 17 }, ARGS_ITEM },
};

/* --- life ------------------------------------------------------------------------------------ */

struct commit_batch *batch_new(struct committer *c, uint32_t slots_max, uint16_t runs_max)
{
    struct commit_batch *b = mem_zalloc(sizeof *b);
    b->committer = c;
    b->slots_max = slots_max;
    b->slots = slots_max ? mem_zalloc(slots_max * sizeof *b->slots) : NULL;
    b->runs = runs_max ? mem_zalloc(runs_max * sizeof *b->runs) : NULL;
    list_init(&b->calls);
    list_init(&b->node);
    return b;
}

void batch_free(struct commit_batch *b)
{
    struct list *node;
    while ((node = list_pop_front(&b->calls))) {
        struct commit_call *call = list_entry(node, struct commit_call, node);
        must(list_is_empty(&call->finishes));
        free(call);
    }
    for (uint32_t i = 0; i < b->slot_count; i++)
        message_unref(b->slots[i].message);
    for (uint32_t i = 0; i < b->slot_count; i++)
        pack_unref(b->slots[i].pack);
    free(b->slots);
    free(b->runs);
    free(b);
}

struct commit_call *batch_add_call(struct commit_batch *b, enum commit_finish_kind kind,
                                   uint16_t shard)
{
    struct commit_call *call = mem_zalloc(sizeof *call);
    call->batch = b;
    call->kind = kind;
    call->shard = shard;
    list_init(&call->finishes);
    list_push_back(&b->calls, &call->node);
    b->call_count++;
    return call;
}

/* --- entries as text ------------------------------------------------------------------------- */

void batch_delivery_id(char out[DELIVERY_ID_MAX], const struct commit_entry *entry, uint32_t k)
{
    int n = entry->target_count == 1
                ? snprintf(out, DELIVERY_ID_MAX, "%s", entry->message->id)
                : snprintf(out, DELIVERY_ID_MAX, "%s/%u", entry->message->id, k);
    must(n > 0 && n < DELIVERY_ID_MAX);
}

enum status batch_encode_item(const struct commit_entry *entry, const struct commit_target *target,
                              struct buf *out)
{
    const struct message *m = entry->message;
    struct queue_item item = {
        .lane = m->lane,
        .dest = slice_str(target->dest),
        .accepted_ms = m->accepted_ms,
        .expires_ms = entry->expires_ms,
        .tenant = m->tenant,
        .chunks = m->chunk_count,
        .size = m->size,
        .rcpts = target->rcpts,
        .rcpt_count = target->rcpt_count,
    };
    uint32_t start = out->len;
    enum status st = queue_item_encode(&item, out);
    if (st == STATUS_OK && out->len - start > QUEUE_ITEM_MAX)
        st = STATUS_FULL;
    return st;
}

void batch_encode_key(const struct message *m, const struct commit_config *cfg, struct buf *out)
{
    char key[QUEUE_DIGEST_HEX + 1];
    queue_digest_hex(key, m->key);
    enum status st = buf_printf(out, "\n%s %llu", key, (unsigned long long)cfg->key_ttl_ms);
    must(st == STATUS_OK);
}

enum status batch_encode_entry(const struct commit_entry *entry, struct buf *scratch,
                               struct commit_span *spans)
{
    uint32_t start = scratch->len;
    enum status st = message_encode_envelope(entry->message, entry->pack != NULL, scratch);
    spans[0] = (struct commit_span){ start, scratch->len - start };
    for (uint32_t k = 0; st == STATUS_OK && k < entry->target_count; k++) {
        uint32_t at = scratch->len;
        st = batch_encode_item(entry, &entry->targets[k], scratch);
        spans[k + 1] = (struct commit_span){ at, scratch->len - at };
    }
    if (st != STATUS_OK)
        scratch->len = start;
    return st;
}

/* --- the transaction ------------------------------------------------------------------------- */

static struct slice span_text(const char *scratch, struct commit_span span)
{
    return slice_of(scratch + span.at, span.len);
}

/* "FCALL <function> 1 <key> <worker>"; args: how many follow. */
static void begin_fcall(struct gather *out, struct slice function, uint16_t shard,
                        const struct commit_config *cfg, size_t args)
{
    char key[QUEUE_KEY_MAX];
    redis_command_begin(out, 5 + args);
    redis_arg(out, SLICE("FCALL"));
    redis_arg(out, function);
    redis_arg(out, SLICE("1"));
    redis_arg(out, queue_key_counters(key, shard));
    redis_arg(out, slice_str(cfg->worker));
}

static void put_mode(const struct commit_entry *entry, enum commit_mode mode, struct gather *out)
{
    static const char letters[] = "LRH";
    char text[24];
    int len = mode == COMMIT_SCHEDULED
                  ? snprintf(text, sizeof text, "S%lld", (long long)entry->due_ms)
                  : 1;
    redis_arg(out, slice_of(mode == COMMIT_SCHEDULED ? text : &letters[mode], (size_t)len));
}

static void put_deliveries(const struct commit_slot *slot, const char *scratch,
                           const struct commit_span *spans, struct gather *out)
{
    const struct commit_entry *entry = slot->entry;
    char id[DELIVERY_ID_MAX];
    for (uint32_t k = 0; k < entry->target_count; k++) {
        bool is_first_of_several = k == 0 && entry->target_count > 1;
        batch_delivery_id(id, entry, k);
        redis_arg(out, slice_str(id));
        redis_arg(out, span_text(scratch, spans[slot->first_span + 1 + k]));
        put_mode(entry, entry->targets[k].mode, out);
        redis_arg_num(out, is_first_of_several ? entry->target_count : 0);
        redis_arg_num(out, entry->message->chunk_count);
    }
}

static void put_key(const struct message *m, struct gather *out)
{
    char hex[QUEUE_DIGEST_HEX + 1];
    redis_arg(out, slice_str(m->id));
    queue_digest_hex(hex, m->key);
    redis_arg(out, slice_str(hex));
    queue_digest_hex(hex, m->digest);
    redis_arg(out, slice_str(hex));
}

static void put_keys(const struct commit_slot *slots, uint32_t count,
                     const struct commit_config *cfg, struct gather *out)
{
    redis_arg_num(out, (int64_t)cfg->key_ttl_ms);
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].message->has_key)
            put_key(slots[i].message, out);
}

static void put_enqueue(const struct commit_batch *b, const struct commit_run *run,
                        const struct commit_config *cfg, const char *scratch,
                        const struct commit_span *spans, struct gather *out)
{
    const struct commit_slot *slots = b->slots + run->first_slot;
    size_t keyed = 0;
    for (uint32_t i = 0; i < run->slot_count; i++)
        keyed += slots[i].message->has_key;
    begin_fcall(out, SLICE("kilat_enq"), run->shard, cfg,
                2 + 5 * (size_t)run->deliveries + (keyed ? 1 + 3 * keyed : 0));
    redis_arg_num(out, cfg->lease_ms);
    redis_arg_num(out, run->deliveries);
    for (uint32_t i = 0; i < run->slot_count; i++)
        put_deliveries(&slots[i], scratch, spans, out);
    if (keyed)
        put_keys(slots, run->slot_count, cfg, out);
}

size_t batch_content_len(const struct message *m, const struct pack *pack)
{
    return pack ? pack->len : m->blob ? m->body.len : m->content.len;
}

static void put_record(const struct commit_slot *slot, struct slice envelope, struct gather *out)
{
    const struct message *m = slot->message;
    char key[QUEUE_KEY_MAX];
    redis_command_begin(out, 5);
    redis_arg(out, SLICE("SET"));
    redis_arg(out, queue_key_record(key, slot->shard, m->id));
    redis_arg_open(out, envelope.len + batch_content_len(m, slot->pack));
    gather_copy(out, envelope);
    if (slot->pack)
        gather_ref(out, slice_of(slot->pack->octets, slot->pack->len));
    else if (m->blob)
        gather_ref(out, m->body);
    else
        for (const struct chain_seg *seg = m->content.head; seg; seg = seg->next)
            gather_ref(out, slice_of(seg->data, seg->len));
    redis_arg_close(out);
    redis_arg(out, SLICE("XX"));
    redis_arg(out, SLICE("KEEPTTL"));
}

void batch_encode_call(const struct commit_call *call, const struct commit_config *cfg,
                       struct gather *out)
{
    enum call_args args = functions[call->kind].args;
    size_t of_each = args == ARGS_NONE ? 1 : args == ARGS_DELAY_ITEM ? 3 : 2;
    begin_fcall(out, functions[call->kind].name, call->shard, cfg,
                call->count * of_each + (args == ARGS_EVENT));
    if (args == ARGS_EVENT)
        redis_arg_num(out, (int64_t)cfg->events_max);
    list_for_each (node, &call->finishes) {
        const struct commit_finish *f = list_entry(node, struct commit_finish, node);
        redis_arg(out, slice_str(f->id));
        if (args == ARGS_DELAY_ITEM)
            redis_arg_num(out, f->delay_ms);
        if (args != ARGS_NONE)
            redis_arg(out, buf_slice(&f->item));
    }
}

/* Behind the records: it tells of those that are there. */
static void put_accepted(const struct commit_batch *b, const struct commit_run *run,
                         const struct commit_config *cfg, struct gather *out)
{
    begin_fcall(out, SLICE("kilat_accepted"), run->shard, cfg, 1 + 2 * (size_t)run->told);
    redis_arg_num(out, (int64_t)cfg->events_max);
    for (uint32_t i = 0; i < run->slot_count; i++) {
        const struct commit_slot *slot = &b->slots[run->first_slot + i];
        if (slot->entry->event.len == 0)
            continue;
        redis_arg(out, slice_str(slot->message->id));
        redis_arg(out, slot->entry->event);
    }
}

static uint32_t told_count(const struct commit_batch *b)
{
    uint32_t count = 0;
    for (uint16_t i = 0; i < b->run_count; i++)
        count += b->runs[i].told > 0;
    return count;
}

uint32_t batch_encode_transaction(const struct commit_batch *b, const struct commit_config *cfg,
                                  const char *scratch, const struct commit_span *spans,
                                  struct gather *out)
{
    gather_copy(out, SLICE("*1\r\n$5\r\nMULTI\r\n"));
    for (uint16_t i = 0; i < b->run_count; i++)
        put_enqueue(b, &b->runs[i], cfg, scratch, spans, out);
    for (uint32_t i = 0; i < b->slot_count; i++)
        put_record(&b->slots[i], span_text(scratch, spans[b->slots[i].first_span]), out);
    list_for_each (node, &b->calls)
        batch_encode_call(list_entry(node, struct commit_call, node), cfg, out);
    for (uint16_t i = 0; i < b->run_count; i++)
        if (b->runs[i].told > 0)
            put_accepted(b, &b->runs[i], cfg, out);
    gather_copy(out, SLICE("*1\r\n$4\r\nEXEC\r\n"));
    return 1 + b->run_count + b->slot_count + b->call_count + told_count(b) + 1;
}

/* --- what Redis said ------------------------------------------------------------------------- */

static bool says(const char *error, const char *what)
{
    return strstr(error, what) != NULL;
}

/* An error of kilat_enq itself, inside a transaction that ran: without its function it did not run;
 * whatever else it may be, it may have done half of its work. */
static enum slot_fate fate_of_error(const char *error)
{
    if (says(error, "OOM "))
        return SLOT_FULL;
    return says(error, "Function not found") ? SLOT_RETRY : SLOT_BROKEN;
}

static bool is_status_ok(const redisReply *r)
{
    return r->type == REDIS_REPLY_STATUS && strcmp(r->str, "OK") == 0;
}

static bool array_has(const redisReply *array, const char *text)
{
    for (size_t i = 0; i < array->elements; i++)
        if (array->element[i]->type == REDIS_REPLY_STRING &&
            strcmp(array->element[i]->str, text) == 0)
            return true;
    return false;
}

/* {refused, elsewhere}, and repeats when there were keys. */
static bool is_enqueue_reply(const redisReply *r)
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 2 || r->elements > 3)
        return false;
    for (size_t i = 0; i < r->elements; i++)
        if (r->element[i]->type != REDIS_REPLY_ARRAY)
            return false;
    return true;
}

/* The id that stands for this message, "" for a conflict; NULL: it is not among the repeats. */
static const char *first_id_of(const struct message *m, const redisReply *enqueued)
{
    if (!m->has_key || enqueued->elements < 3)
        return NULL;
    const redisReply *repeats = enqueued->element[2];
    for (size_t i = 0; i + 1 < repeats->elements; i += 2)
        if (repeats->element[i]->type == REDIS_REPLY_STRING &&
            repeats->element[i + 1]->type == REDIS_REPLY_STRING &&
            strcmp(repeats->element[i]->str, m->id) == 0)
            return repeats->element[i + 1]->str;
    return NULL;
}

/* Nothing of it was stored; its sender hears of the message that stands for it. */
static enum slot_fate repeated(struct commit_slot *slot, const char *first_id)
{
    if (!*first_id)
        return SLOT_CONFLICT;
    if (slot->entry)
        snprintf(slot->entry->first_id, sizeof slot->entry->first_id, "%s", first_id);
    return SLOT_REPEATED;
}

static enum slot_fate fate_of(struct commit_slot *slot, const redisReply *enqueued,
                              const redisReply *set)
{
    if (enqueued->type == REDIS_REPLY_ERROR)
        return fate_of_error(enqueued->str);
    if (!is_enqueue_reply(enqueued))
        return SLOT_BROKEN;
    if (array_has(enqueued->element[0], slot->message->id))
        return SLOT_REFUSED;
    const char *first_id = first_id_of(slot->message, enqueued);
    if (first_id)
        return repeated(slot, first_id);
    return is_status_ok(set) ? SLOT_QUEUED : SLOT_BROKEN;
}

/* Targets that an earlier try queued and whose lease has passed on since: others deliver them. */
static void note_elsewhere(struct commit_slot *slot, const redisReply *elsewhere)
{
    struct commit_entry *entry = slot->entry;
    char id[DELIVERY_ID_MAX];
    for (uint32_t k = 0; entry && k < entry->target_count; k++) {
        batch_delivery_id(id, entry, k);
        if (array_has(elsewhere, id))
            entry->targets[k].mode = COMMIT_READY;
    }
}

static enum batch_result read_refusal(const struct commit_batch *b, const redisReply *reply)
{
    const char *final = reply->type == REDIS_REPLY_ERROR ? reply->str : "";
    /* MULTI itself was refused, and what followed ran, or not, command by command. */
    if (says(final, "EXEC without MULTI"))
        return BATCH_UNKNOWN;
    return says(b->request.error, "OOM ") || says(final, "OOM ") ? BATCH_FULL : BATCH_REFUSED;
}

enum batch_result batch_read(struct commit_batch *b, const redisReply *reply)
{
    if (!reply)
        return BATCH_UNKNOWN;
    if (reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_NIL)
        return read_refusal(b, reply);
    if (reply->type != REDIS_REPLY_ARRAY ||
        reply->elements != b->run_count + (size_t)b->slot_count + b->call_count + told_count(b))
        return BATCH_UNKNOWN;
    for (uint32_t i = 0; i < b->slot_count; i++) {
        const redisReply *enqueued = reply->element[b->slots[i].run];
        b->slots[i].fate = fate_of(&b->slots[i], enqueued, reply->element[b->run_count + i]);
        if (b->slots[i].fate == SLOT_QUEUED && enqueued->element[1]->elements > 0)
            note_elsewhere(&b->slots[i], enqueued->element[1]);
    }
    return BATCH_EXECUTED;
}

const redisReply *batch_call_reply(const struct commit_batch *b, uint32_t n,
                                   const redisReply *reply)
{
    return reply->element[b->run_count + (size_t)b->slot_count + n];
}
