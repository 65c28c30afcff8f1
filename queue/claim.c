/* SPDX-License-Identifier: Apache-2.0 */
/*
 * claim - heartbeats, housekeeping and fetching work, for every shard in turn.
 *
 * Life of a claim, one at a time for the whole worker:
 *     IDLE -> CLAIMING (kilat_claim, by number) -> HOLDING (items known, records wanted)
 *          <- all handed on --------------------- READING (one MGET of about READ_OCTETS) <-+
 * A claim has a number. When its reply is lost with the link, the same claim is asked again under
 * the same number, and Redis answers with what it gave: nothing is leased to a worker that does not
 * know of it.
 *
 * A shard is looked at when its tick says that something is claimable, when a hint says that there
 * may be, and at once again while its claims come back full. Ticks cost Redis a few microseconds
 * and write nothing while nothing is due.
 *
 * Lanes. A claim takes urgent mail first, then normal, then bulk, of each what there is room for;
 * rooms are such that no lane fills the memory of another (io/drive_relay.c). What normal and bulk
 * share is asked for bulk only where normal seems to have none, and in every eighth claim
 * (BULK_EVERY) the other way round, so that a stream of normal mail does not stop a newsletter.
 *
 * Leases. The worker may begin deliveries of a shard only while its last confirmed heartbeat was
 * sent less than lease_ms ago: Redis counts from later, by the same duration, so whoever reaps us
 * does so after we have stopped. Heartbeats and claims share the link, so an answer that the lease
 * was lost speaks of the claims answered before it, and only of them.
 *
 * Tenants that have mail in Redis for one destination take turns there (lua/kilat.lua), by weights
 * that are told to each shard when the link comes up.
 *
 * Limits: CLAIM_MAX items in hand; a record is asked for only with the others that fit READ_OCTETS.
 */
#include "queue/claim.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

#define CLAIM_MAX      64
#define BEAT_EVERY_MS  1000
#define TICK_EVERY_MS  250
#define TICK_LIMIT     256 /* items moved by one kilat_tick */
#define HINT_EVERY_MS  20
#define READ_OCTETS    (1024 * 1024)
#define BULK_EVERY     8
#define WEIGHT_USUAL   10 /* of a tenant, as lua/kilat.lua takes it */
#define LANES_TEXT_MAX (LANE_COUNT * 12)
#define ALL_LANES      ((1u << LANE_COUNT) - 1)
#define NEVER          INT64_MIN

/* One shard, and its requests. */
struct claim_shard {
    struct claimer *claimer; /* borrowed */
    struct redis_request beat, tick, bye, weights;
    bool beat_is_out, tick_is_out; /* True exactly from sending to the reply */
    bool bye_is_done;
    bool weights_are_out, weights_are_told; /* since the link is up */
    bool was_held;     /* a heartbeat was confirmed before: losing it matters */
    uint32_t may_have; /* lanes in which a claim may find something: bits, 1 << enum mail_lane */
    int64_t beat_sent_ms, beat_due_ms, tick_due_ms;
    int64_t confirmed_ms; /* when the last confirmed heartbeat was sent; NEVER */
};

/* One claimed delivery on its way to its owner. */
struct claimed {
    char id[DELIVERY_ID_MAX];
    struct slice text; /* owned: the item; queue_item points into it */
    struct queue_item item;
};

enum claim_state { CLAIM_IDLE, CLAIM_CLAIMING, CLAIM_HOLDING, CLAIM_READING };

struct claimer {
    struct claim_config cfg;
    struct claim_sink sink;
    struct claim_shard *shards; /* owned; cfg.shards of them */
    enum claim_state state;
    struct redis_request request;  /* the claim, or the reading of records */
    uint16_t shard;                /* claimed from, or next to look at */
    uint64_t number;               /* of the last claim begun */
    uint32_t asked;                /* items that it asks for */
    uint32_t asked_of[LANE_COUNT]; /* ... and of each lane at most */
    bool ask_again;                /* its reply was lost */
    struct claimed items[CLAIM_MAX];
    uint32_t item_count, handed; /* items known; of them handed on */
    uint32_t reading;            /* records of the reading under way */
    bool reading_is_void;        /* the lease was lost meanwhile */
    struct arena arena;          /* the items' recipients */
    struct claim_room room;      /* at the last pump */
    bool is_up, is_leaving, is_hinted;
    int64_t hint_after_ms, now_ms;
};

/* --- making ---------------------------------------------------------------------------------- */

struct claimer *claim_new(const struct claim_config *cfg, const struct claim_sink *sink)
{
    must(cfg->shards > 0);
    struct claimer *c = mem_zalloc(sizeof *c);
    c->cfg = *cfg;
    c->sink = *sink;
    c->shards = mem_zalloc(cfg->shards * sizeof *c->shards);
    for (uint16_t i = 0; i < cfg->shards; i++) {
        c->shards[i].claimer = c;
        c->shards[i].confirmed_ms = NEVER;
    }
    arena_init(&c->arena);
    c->is_up = true;
    return c;
}

static void forget_items(struct claimer *c)
{
    for (uint32_t i = 0; i < c->item_count; i++)
        free((void *)(uintptr_t)c->items[i].text.ptr);
    c->item_count = c->handed = 0;
    arena_done(&c->arena);
}

void claim_free(struct claimer *c)
{
    forget_items(c);
    free(c->shards);
    free(c);
}

static uint16_t shard_number(const struct claim_shard *s)
{
    return (uint16_t)(s - s->claimer->shards);
}

/* "FCALL <function> 1 <key>"; args: how many follow. */
static void begin_fcall(struct gather *out, struct slice function, uint16_t shard, size_t args)
{
    char key[QUEUE_KEY_MAX];
    redis_command_begin(out, 4 + args);
    redis_arg(out, SLICE("FCALL"));
    redis_arg(out, function);
    redis_arg(out, SLICE("1"));
    redis_arg(out, queue_key_counters(key, shard));
}

/* --- heartbeats ------------------------------------------------------------------------------ */

static void lose_lease(struct claimer *c, uint16_t shard)
{
    if (c->shard == shard && c->state == CLAIM_HOLDING) {
        forget_items(c);
        c->state = CLAIM_IDLE;
    } else if (c->shard == shard && c->state == CLAIM_READING) {
        c->reading_is_void = true;
    }
    c->sink.on_lease_lost(c->sink.ctx, shard);
}

static void on_beat(struct redis_request *req, const redisReply *reply)
{
    struct claim_shard *s = container_of(req, struct claim_shard, beat);
    s->beat_is_out = false;
    if (!reply || reply->type != REDIS_REPLY_INTEGER)
        return; /* not confirmed; the next is due in a second, or when the link is up */
    bool is_lost = reply->integer < 0 || (reply->integer == 0 && s->was_held);
    s->was_held = true;
    s->confirmed_ms = s->beat_sent_ms;
    if (is_lost)
        lose_lease(s->claimer, shard_number(s));
}

static void pump_beat(struct claimer *c, struct claim_shard *s, struct redis_link *link,
                      struct gather *out)
{
    if (s->beat_is_out || s->beat_due_ms > c->now_ms)
        return;
    s->beat_is_out = true;
    s->beat_sent_ms = c->now_ms;
    s->beat_due_ms = c->now_ms + BEAT_EVERY_MS;
    redis_link_push(link, &s->beat, 1, on_beat);
    begin_fcall(out, SLICE("kilat_beat"), shard_number(s), 2);
    redis_arg(out, slice_str(c->cfg.worker));
    redis_arg_num(out, c->cfg.lease_ms);
}

bool claim_lease_is_live(const struct claimer *c, uint16_t shard, const struct now *now)
{
    must(shard < c->cfg.shards);
    int64_t confirmed = c->shards[shard].confirmed_ms;
    return confirmed != NEVER && now->mono_ms - confirmed < (int64_t)c->cfg.lease_ms;
}

/* --- housekeeping ---------------------------------------------------------------------------- */

static void on_tick(struct redis_request *req, const redisReply *reply)
{
    struct claim_shard *s = container_of(req, struct claim_shard, tick);
    s->tick_is_out = false;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return;
    long long moved = reply->element[0]->integer, reaped = reply->element[1]->integer;
    metrics_add(s->claimer->cfg.metrics, METRIC_REAPED_TOTAL, reaped);
    if (reply->element[2]->integer > 0)
        s->may_have = ALL_LANES;
    if (moved >= TICK_LIMIT || reaped >= TICK_LIMIT)
        s->tick_due_ms = s->claimer->now_ms; /* there is more */
}

static void pump_tick(struct claimer *c, struct claim_shard *s, struct redis_link *link,
                      struct gather *out)
{
    if (s->tick_is_out || s->tick_due_ms > c->now_ms)
        return;
    s->tick_is_out = true;
    s->tick_due_ms = c->now_ms + TICK_EVERY_MS;
    redis_link_push(link, &s->tick, 1, on_tick);
    begin_fcall(out, SLICE("kilat_tick"), shard_number(s), 1);
    redis_arg_num(out, TICK_LIMIT);
}

/* --- weights of tenants ---------------------------------------------------------------------- */

/* What it does not hear it hears when the link comes back. */
static void on_weights(struct redis_request *req, const redisReply *reply)
{
    container_of(req, struct claim_shard, weights)->weights_are_out = false;
}

static bool is_unusual(const struct config_tenant *tenant)
{
    return tenant->weight > 0 && tenant->weight != WEIGHT_USUAL;
}

static size_t count_unusual(const struct claim_config *cfg)
{
    size_t count = 0;
    for (size_t i = 0; i < cfg->tenant_count; i++)
        count += is_unusual(&cfg->tenants[i]);
    return count;
}

static void pump_weights(struct claimer *c, struct claim_shard *s, struct redis_link *link,
                         struct gather *out)
{
    if (s->weights_are_out || s->weights_are_told || c->cfg.tenant_count == 0)
        return;
    s->weights_are_out = s->weights_are_told = true;
    redis_link_push(link, &s->weights, 1, on_weights);
    begin_fcall(out, SLICE("kilat_weights"), shard_number(s), 2 * count_unusual(&c->cfg));
    for (size_t i = 0; i < c->cfg.tenant_count; i++) {
        if (!is_unusual(&c->cfg.tenants[i]))
            continue;
        redis_arg(out, slice_str(c->cfg.tenants[i].name));
        redis_arg_num(out, c->cfg.tenants[i].weight);
    }
}

/* --- claiming -------------------------------------------------------------------------------- */

static void break_item(struct claimer *c, const char *id, const char *reason)
{
    c->sink.on_broken(c->sink.ctx, c->shard, id, reason);
}

static void keep_item(struct claimer *c, const redisReply *id, const redisReply *text)
{
    struct claimed *item = &c->items[c->item_count];
    if (id->type != REDIS_REPLY_STRING || id->len < QUEUE_ID_LEN || id->len >= DELIVERY_ID_MAX ||
        text->type != REDIS_REPLY_STRING || c->item_count == CLAIM_MAX)
        return; /* no id of ours: kilat queue shows it, and nobody can deliver it */
    memcpy(item->id, id->str, id->len + 1);
    char *copy = mem_alloc(text->len + 1);
    memcpy(copy, text->str, text->len + 1);
    item->text = slice_of(copy, text->len);
    if (queue_item_decode(item->text, &c->arena, &item->item) == STATUS_OK) {
        c->item_count++;
        return;
    }
    free(copy);
    break_item(c, item->id, "the item is unreadable");
}

/* A lane that gave less than was asked of it has no more, when all others left it the chance. */
static void note_rest(struct claimer *c, uint32_t count)
{
    uint32_t got[LANE_COUNT] = { 0 };
    for (uint32_t i = 0; i < c->item_count; i++)
        got[lane_of_letter(c->items[i].item.lane)]++;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (count < c->asked && c->asked_of[lane] > 0 && got[lane] < c->asked_of[lane])
            c->shards[c->shard].may_have &= ~(1u << lane);
}

static void on_claim(struct redis_request *req, const redisReply *reply)
{
    struct claimer *c = container_of(req, struct claimer, request);
    struct claim_shard *s = &c->shards[c->shard];
    c->state = CLAIM_IDLE;
    c->ask_again = !reply;
    if (!reply || reply->type != REDIS_REPLY_ARRAY) {
        if (reply)
            s->may_have = 0; /* an error: the next tick will say */
        return;
    }
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        keep_item(c, reply->element[i], reply->element[i + 1]);
    note_rest(c, (uint32_t)(reply->elements / 2));
    metrics_add(c->cfg.metrics, METRIC_CLAIMED_TOTAL, (int64_t)(reply->elements / 2));
    if (c->item_count > 0)
        c->state = CLAIM_HOLDING;
}

/* Which of normal and bulk this claim takes first. */
static enum mail_lane lane_first(const struct claimer *c)
{
    return c->number % BULK_EVERY == 0 ? LANE_BULK : LANE_NORMAL;
}

/* "u64n64b8". */
static struct slice lanes_wanted(const struct claimer *c, char text[LANES_TEXT_MAX])
{
    enum mail_lane first = lane_first(c);
    const enum mail_lane order[] = { LANE_URGENT, first,
                                     first == LANE_NORMAL ? LANE_BULK : LANE_NORMAL };
    int len = 0;
    for (size_t i = 0; i < LANE_COUNT; i++)
        if (c->asked_of[order[i]] > 0)
            len += snprintf(text + len, LANES_TEXT_MAX - (size_t)len, "%c%u", lane_letter(order[i]),
                            c->asked_of[order[i]]);
    return slice_of(text, (size_t)len);
}

static void send_claim(struct claimer *c, struct redis_link *link, struct gather *out)
{
    char lanes[LANES_TEXT_MAX];
    c->state = CLAIM_CLAIMING;
    redis_link_push(link, &c->request, 1, on_claim);
    begin_fcall(out, SLICE("kilat_claim"), c->shard, 6 + c->room.crowded_count);
    redis_arg(out, slice_str(c->cfg.worker));
    redis_arg_num(out, c->cfg.lease_ms);
    redis_arg(out, lanes_wanted(c, lanes));
    redis_arg_num(out, c->asked);
    redis_arg_num(out, c->asked); /* of one destination: they take turns claim by claim */
    redis_arg_num(out, (int64_t)c->number);
    for (size_t i = 0; i < c->room.crowded_count; i++)
        redis_arg(out, slice_str(c->room.crowded[i]));
}

static uint32_t lanes_with_room(const struct claimer *c)
{
    uint32_t lanes = 0;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        lanes |= (uint32_t)(c->room.lanes[lane] > 0) << lane;
    return lanes;
}

/* The next shard after this one that may have something; false: none. */
static bool pick_shard(struct claimer *c)
{
    for (uint16_t i = 1; i <= c->cfg.shards; i++) {
        uint16_t shard = (uint16_t)((c->shard + i) % c->cfg.shards);
        if (!(c->shards[shard].may_have & lanes_with_room(c)))
            continue;
        if (!c->sink.may_claim || c->sink.may_claim(c->sink.ctx, shard)) {
            c->shard = shard;
            return true;
        }
        c->shards[shard].may_have = 0; /* the next tick will say again */
    }
    return false;
}

static void take_hint(struct claimer *c)
{
    if (!c->is_hinted || c->now_ms < c->hint_after_ms)
        return;
    c->is_hinted = false;
    c->hint_after_ms = c->now_ms + HINT_EVERY_MS;
    for (uint16_t i = 0; i < c->cfg.shards; i++)
        c->shards[i].may_have = ALL_LANES;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What of a lane is asked for when there is room for so many. */
static uint32_t ask_of(const struct claimer *c, enum mail_lane lane, uint32_t room)
{
    bool may_have = c->shards[c->shard].may_have >> lane & 1;
    return may_have ? least(least(c->room.lanes[lane], room), CLAIM_MAX) : 0;
}

/* Room that normal and bulk share goes to the one whose turn it is, as far as it may need it. */
static void plan_claim(struct claimer *c)
{
    uint32_t *asked = c->asked_of;
    enum mail_lane first, second;
    c->number++;
    first = lane_first(c);
    second = first == LANE_NORMAL ? LANE_BULK : LANE_NORMAL;
    asked[LANE_URGENT] = ask_of(c, LANE_URGENT, UINT32_MAX);
    asked[first] = ask_of(c, first, c->room.plain);
    asked[second] = ask_of(c, second, c->room.plain - asked[first]);
    c->asked = least(least(c->room.all, CLAIM_MAX), asked[0] + asked[1] + asked[2]);
    must(c->asked > 0); /* a lane that may have some had room */
}

static void pump_claim(struct claimer *c, struct redis_link *link, struct gather *out)
{
    take_hint(c);
    if (c->state != CLAIM_IDLE)
        return;
    if (c->ask_again) {
        send_claim(c, link, out);
    } else if (pick_shard(c)) {
        plan_claim(c);
        send_claim(c, link, out);
    }
}

/* --- reading records ------------------------------------------------------------------------- */

static bool rcpts_are_in(const struct queue_item *item, const struct message *m)
{
    return item->rcpts[item->rcpt_count - 1] < m->rcpt_count; /* ascending */
}

static struct delivery *make_delivery(struct claimer *c, const struct claimed *it,
                                      struct message *m)
{
    const struct queue_item *item = &it->item;
    memcpy(m->id, it->id, QUEUE_ID_LEN);
    m->id[QUEUE_ID_LEN] = 0;
    m->lane = item->lane;
    m->chunk_count = item->chunks;
    struct delivery *d =
        delivery_new(m, it->id, item->dest, c->shard, item->rcpts, item->rcpt_count);
    d->attempts = item->attempts;
    d->expires_ms = item->expires_ms;
    d->told = item->told;
    return d;
}

static void hand_on(struct claimer *c, const struct claimed *it, const redisReply *record)
{
    struct message *m;
    if (record->type != REDIS_REPLY_STRING) {
        break_item(c, it->id, "the record is missing");
        return;
    }
    char *blob = mem_alloc(record->len + 1);
    memcpy(blob, record->str, record->len + 1);
    if (message_decode(blob, record->len, c->cfg.budget, &m) != STATUS_OK) {
        free(blob);
        break_item(c, it->id, "the record is unreadable");
        return;
    }
    if (rcpts_are_in(&it->item, m))
        c->sink.on_delivery(c->sink.ctx, make_delivery(c, it, m));
    else
        break_item(c, it->id, "the item names recipients that the record has not");
    message_unref(m); /* a delivery has a reference of its own */
}

static void on_records(struct redis_request *req, const redisReply *reply)
{
    struct claimer *c = container_of(req, struct claimer, request);
    c->state = CLAIM_HOLDING;
    if (c->reading_is_void) {
        forget_items(c);
        c->state = CLAIM_IDLE;
        return;
    }
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != c->reading)
        return; /* asked again by the next pump */
    for (uint32_t i = 0; i < c->reading; i++)
        hand_on(c, &c->items[c->handed + i], reply->element[i]);
    c->handed += c->reading;
    if (c->handed == c->item_count) {
        forget_items(c);
        c->state = CLAIM_IDLE;
    }
}

/* How many of the items that wait are read at once. */
static uint32_t readable(const struct claimer *c)
{
    uint64_t octets = 0;
    uint32_t n = 0;
    while (c->handed + n < c->item_count) {
        const struct queue_item *item = &c->items[c->handed + n].item;
        octets += item->chunks > 0 ? QUEUE_CHUNK_SIZE : item->size;
        if (n > 0 && octets > READ_OCTETS)
            break;
        n++;
    }
    return n;
}

static void pump_read(struct claimer *c, struct redis_link *link, struct gather *out)
{
    if (c->state != CLAIM_HOLDING)
        return;
    char key[QUEUE_KEY_MAX], id[QUEUE_ID_LEN + 1] = "";
    c->state = CLAIM_READING;
    c->reading = readable(c);
    c->reading_is_void = false;
    redis_link_push(link, &c->request, 1, on_records);
    redis_command_begin(out, 1 + c->reading);
    redis_arg(out, SLICE("MGET"));
    for (uint32_t i = 0; i < c->reading; i++) {
        memcpy(id, c->items[c->handed + i].id, QUEUE_ID_LEN);
        redis_arg(out, queue_key_record(key, c->shard, id));
    }
}

/* --- what the driver calls ------------------------------------------------------------------- */

/* Heartbeats go first: a tick of ours must never find our own lease run out. */
void claim_pump(struct claimer *c, struct redis_link *link, const struct claim_room *room,
                struct gather *out, const struct now *now)
{
    c->now_ms = now->mono_ms;
    c->room = *room;
    if (!c->is_up || c->is_leaving)
        return;
    for (uint16_t i = 0; i < c->cfg.shards; i++)
        pump_beat(c, &c->shards[i], link, out);
    for (uint16_t i = 0; i < c->cfg.shards; i++)
        pump_tick(c, &c->shards[i], link, out);
    for (uint16_t i = 0; i < c->cfg.shards; i++)
        pump_weights(c, &c->shards[i], link, out);
    pump_read(c, link, out);
    pump_claim(c, link, out);
}

static int64_t shard_wake_ms(const struct claim_shard *s)
{
    int64_t beat = s->beat_is_out ? INT64_MAX : s->beat_due_ms;
    int64_t tick = s->tick_is_out ? INT64_MAX : s->tick_due_ms;
    return beat < tick ? beat : tick;
}

int64_t claim_wake_ms(const struct claimer *c)
{
    int64_t wake = INT64_MAX;
    if (!c->is_up || c->is_leaving)
        return INT64_MAX;
    if (c->state == CLAIM_HOLDING || (c->state == CLAIM_IDLE && c->ask_again))
        return c->now_ms;
    for (uint16_t i = 0; i < c->cfg.shards; i++) {
        int64_t due = shard_wake_ms(&c->shards[i]);
        if (c->state == CLAIM_IDLE && c->shards[i].may_have & lanes_with_room(c))
            due = c->now_ms;
        wake = due < wake ? due : wake;
    }
    if (c->is_hinted && c->hint_after_ms < wake)
        wake = c->hint_after_ms;
    return wake;
}

void claim_link_up(struct claimer *c)
{
    c->is_up = true;
    for (uint16_t i = 0; i < c->cfg.shards; i++) {
        c->shards[i].beat_due_ms = c->shards[i].tick_due_ms = c->now_ms;
        c->shards[i].weights_are_told = false;
    }
}

void claim_link_down(struct claimer *c)
{
    c->is_up = false;
}

void claim_hint(struct claimer *c)
{
    c->is_hinted = true;
}

/* --- leaving --------------------------------------------------------------------------------- */

static void on_bye(struct redis_request *req, const redisReply *reply)
{
    struct claim_shard *s = container_of(req, struct claim_shard, bye);
    s->bye_is_done = reply && reply->type == REDIS_REPLY_INTEGER;
}

void claim_bye(struct claimer *c, struct redis_link *link, struct gather *out)
{
    c->is_leaving = true;
    for (uint16_t i = 0; i < c->cfg.shards; i++) {
        redis_link_push(link, &c->shards[i].bye, 1, on_bye);
        begin_fcall(out, SLICE("kilat_bye"), i, 1);
        redis_arg(out, slice_str(c->cfg.worker));
    }
}

bool claim_bye_is_done(const struct claimer *c)
{
    for (uint16_t i = 0; i < c->cfg.shards; i++)
        if (!c->shards[i].bye_is_done)
            return false;
    return true;
}

/* --- chunks ---------------------------------------------------------------------------------- */

void claim_chunk_put(struct redis_link *link, struct redis_request *req, redis_reply_fn *on_reply,
                     uint16_t shard, const char *id, uint32_t n, const struct chain *content,
                     struct gather *out)
{
    char key[QUEUE_KEY_MAX];
    redis_link_push(link, req, 1, on_reply);
    redis_command_begin(out, 5);
    redis_arg(out, SLICE("SET"));
    redis_arg(out, queue_key_chunk(key, shard, id, n));
    redis_arg_open(out, content->len);
    for (const struct chain_seg *seg = content->head; seg; seg = seg->next)
        gather_ref(out, slice_of(seg->data, seg->len));
    redis_arg_close(out);
    redis_arg(out, SLICE("EX"));
    redis_arg_num(out, QUEUE_CHUNK_TTL_S);
}

void claim_chunk_get(struct redis_link *link, struct redis_request *req, redis_reply_fn *on_reply,
                     uint16_t shard, const char *id, uint32_t n, struct gather *out)
{
    char key[QUEUE_KEY_MAX];
    redis_link_push(link, req, 1, on_reply);
    redis_command_begin(out, 2);
    redis_arg(out, SLICE("GET"));
    redis_arg(out, queue_key_chunk(key, shard, id, n));
}
