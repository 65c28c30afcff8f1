/* SPDX-License-Identifier: Apache-2.0 */
/* The claimer against a scripted Redis: heartbeats, ticks, claims, reading back, and what a lost
 * link or a lost lease leads to. */
#include "tests/lib/fake_redis.h"

#include "queue/claim.h"

#define WORKER "0123456789abcdef"
#define A      "a0000000000000000000"
#define B      "b0000000000000000000"
#define ITEM   "n\tx.example\t3\t1000\t5000\t\t0\t5\t0"

struct scene {
    struct fake_redis redis;
    struct metrics metrics;
    struct chain_budget budget;
    struct claimer *c;
    struct now now;
    uint16_t shards;
    struct delivery *delivered[64];
    uint32_t delivered_count, broken, lost;
    char reason[128];
    uint16_t last_lost;
};

static void on_delivery(void *ctx, struct delivery *d)
{
    struct scene *s = ctx;
    s->delivered[s->delivered_count++] = d;
}

static void on_broken(void *ctx, uint16_t shard, const char *id, const char *reason)
{
    struct scene *s = ctx;
    s->broken++;
    snprintf(s->reason, sizeof s->reason, "%u %s %s", shard, id, reason);
}

static void on_lease_lost(void *ctx, uint16_t shard)
{
    struct scene *s = ctx;
    s->lost++;
    s->last_lost = shard;
}

static void scene_init_with(struct scene *s, uint16_t shards, const struct config_tenant *tenants,
                            size_t tenant_count)
{
    memset(s, 0, sizeof *s);
    s->budget.max = 1 << 20;
    s->shards = shards;
    struct claim_config cfg = { .shards = shards, .lease_ms = 5000, .worker = WORKER };
    cfg.metrics = &s->metrics;
    cfg.budget = &s->budget;
    cfg.tenants = tenants;
    cfg.tenant_count = tenant_count;
    struct claim_sink sink = { s, on_delivery, on_broken, on_lease_lost, NULL };
    fake_init(&s->redis);
    s->now = (struct now){ .mono_ms = 10000 };
    s->c = claim_new(&cfg, &sink);
}

static void scene_init(struct scene *s, uint16_t shards)
{
    scene_init_with(s, shards, NULL, 0);
}

static void scene_done(struct scene *s)
{
    redis_link_lost(&s->redis.link);
    for (uint32_t i = 0; i < s->delivered_count; i++)
        delivery_free(s->delivered[i]);
    claim_free(s->c);
    fake_done(&s->redis);
    assert_int_equal(s->budget.used, 0);
}

/* One turn; returns how many commands it sent. */
static size_t pump(struct scene *s, uint32_t room)
{
    struct claim_room of = { { room, room, room }, 2 * room, room, { NULL }, 0 };
    claim_pump(s->c, &s->redis.link, &of, &s->redis.out, &s->now);
    return fake_take(&s->redis);
}

static const struct fake_command *unanswered(struct scene *s, size_t n)
{
    assert_true(s->redis.answered + n < s->redis.count);
    return &s->redis.commands[s->redis.answered + n];
}

/* Heartbeats and ticks of every shard, all well; `claimable` in the last shard. */
static void settle_in(struct scene *s, int claimable)
{
    char tick[64];
    assert_int_equal(pump(s, 0), 2u * s->shards);
    for (uint16_t i = 0; i < s->shards; i++) {
        assert_true(fake_is(unanswered(s, 0), "FCALL", "kilat_beat", NULL));
        fake_answer(&s->redis, ":0\r\n");
    }
    for (uint16_t i = 0; i < s->shards; i++) {
        assert_true(fake_is(unanswered(s, 0), "FCALL", "kilat_tick", NULL));
        snprintf(tick, sizeof tick, "*3\r\n:0\r\n:0\r\n:%d\r\n",
                 i == s->shards - 1 ? claimable : 0);
        fake_answer(&s->redis, tick);
    }
    assert_int_equal(s->lost, 0);
}

/* The record of a message with one recipient and the content "hello". */
static struct slice record(struct buf *out)
{
    struct message *m = message_new(NULL);
    m->sender = SLICE("a@example.org");
    message_add_rcpt(m, SLICE("b@x.example"), SLICE("x.example"));
    m->size = 5;
    buf_init(out, 4096);
    assert_int_equal(message_encode_envelope(m, false, out), STATUS_OK);
    assert_int_equal(buf_append(out, SLICE("hello")), STATUS_OK);
    message_unref(m);
    return buf_slice(out);
}

/* Answers MGET: `count` records, the one numbered `missing` is not there. */
static void answer_records(struct scene *s, uint32_t count, uint32_t missing)
{
    struct buf text, whole;
    struct slice rec = record(&text);
    buf_init(&whole, 1 << 20);
    assert_int_equal(buf_printf(&whole, "*%u\r\n", count), STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        if (i == missing) {
            assert_int_equal(buf_append(&whole, SLICE("$-1\r\n")), STATUS_OK);
            continue;
        }
        assert_int_equal(buf_printf(&whole, "$%zu\r\n", rec.len), STATUS_OK);
        assert_int_equal(buf_append(&whole, rec), STATUS_OK);
        assert_int_equal(buf_append(&whole, SLICE("\r\n")), STATUS_OK);
    }
    assert_int_equal(redis_link_feed(&s->redis.link, buf_slice(&whole)), STATUS_OK);
    s->redis.answered++;
    buf_done(&text);
    buf_done(&whole);
}

/* Answers a claim with id and item pairs; NULL ends. */
static void answer_claim(struct scene *s, const char *first, ...)
{
    struct buf body, head;
    va_list args;
    uint32_t n = 0;
    buf_init(&body, 1 << 20);
    buf_init(&head, 64);
    va_start(args, first);
    for (const char *word = first; word; word = va_arg(args, const char *), n++)
        assert_int_equal(buf_printf(&body, "$%zu\r\n%s\r\n", strlen(word), word), STATUS_OK);
    va_end(args);
    assert_true(fake_is(unanswered(s, 0), "FCALL", "kilat_claim", NULL));
    assert_int_equal(buf_printf(&head, "*%u\r\n", n), STATUS_OK);
    assert_int_equal(redis_link_feed(&s->redis.link, buf_slice(&head)), STATUS_OK);
    if (body.len)
        assert_int_equal(redis_link_feed(&s->redis.link, buf_slice(&body)), STATUS_OK);
    s->redis.answered++;
    buf_done(&head);
    buf_done(&body);
}

static void heartbeats_come_first_and_every_second(void **state)
{
    struct scene s;
    scene_init(&s, 2);
    assert_false(claim_lease_is_live(s.c, 0, &s.now));
    assert_true(claim_wake_ms(s.c) <= s.now.mono_ms);
    assert_int_equal(pump(&s, 0), 4);
    assert_true(
        fake_is(unanswered(&s, 0), "FCALL", "kilat_beat", "1", "{q0}n", WORKER, "5000", NULL));
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_beat", "1", "{q1}n", NULL));
    assert_true(fake_is(unanswered(&s, 2), "FCALL", "kilat_tick", "1", "{q0}n", "256", NULL));
    assert_true(fake_is(unanswered(&s, 3), "FCALL", "kilat_tick", "1", "{q1}n", NULL));
    assert_int_equal(pump(&s, 0), 0); /* one of each in flight */
    assert_false(claim_lease_is_live(s.c, 0, &s.now));
    fake_answer(&s.redis, ":0\r\n"); /* the very first: nothing was lost */
    assert_int_equal(s.lost, 0);
    assert_true(claim_lease_is_live(s.c, 0, &s.now));
    assert_false(claim_lease_is_live(s.c, 1, &s.now));
    fake_answer(&s.redis, ":1\r\n");
    fake_answer(&s.redis, "*3\r\n:0\r\n:0\r\n:0\r\n");
    fake_answer(&s.redis, "*3\r\n:0\r\n:2\r\n:0\r\n");
    assert_int_equal(metrics_get(&s.metrics, METRIC_REAPED_TOTAL), 2);
    assert_int_equal(claim_wake_ms(s.c), s.now.mono_ms + 250);
    s.now.mono_ms += 250;
    assert_int_equal(pump(&s, 0), 2);
    fake_answer(&s.redis, "*3\r\n:0\r\n:0\r\n:0\r\n");
    fake_answer(&s.redis, "-LOADING wait\r\n");
    s.now.mono_ms += 750;
    assert_int_equal(pump(&s, 0), 4);
    /* The lease counts from when the confirmed heartbeat was sent. */
    s.now.mono_ms = 10000 + 4999;
    assert_true(claim_lease_is_live(s.c, 0, &s.now));
    s.now.mono_ms++;
    assert_false(claim_lease_is_live(s.c, 0, &s.now));
    fake_answer(&s.redis, ":1\r\n");
    assert_true(claim_lease_is_live(s.c, 0, &s.now));
    fake_answer(&s.redis, "-ERR no\r\n"); /* not confirmed */
    assert_false(claim_lease_is_live(s.c, 1, &s.now));
    scene_done(&s);
}

static void what_is_claimable_is_claimed_and_read(void **state)
{
    struct scene s;
    scene_init(&s, 3);
    settle_in(&s, 1);
    assert_int_equal(pump(&s, 0), 0); /* no room */
    assert_int_equal(claim_wake_ms(s.c), s.now.mono_ms + 250);
    assert_int_equal(pump(&s, 10), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_claim", "1", "{q2}n", WORKER, "5000",
                        "u10n10b10", "10", "10", "1", NULL));
    answer_claim(&s, A, ITEM, B "/3", ITEM, NULL);
    assert_int_equal(s.delivered_count, 0);
    assert_int_equal(claim_wake_ms(s.c), s.now.mono_ms);
    assert_int_equal(pump(&s, 0), 1); /* what is leased is read, room or not */
    assert_true(fake_is(unanswered(&s, 0), "MGET", "{q2}b:" A, "{q2}b:" B, NULL));
    answer_records(&s, 2, 9);
    assert_int_equal(s.delivered_count, 2);
    const struct delivery *d = s.delivered[1];
    assert_string_equal(d->id, B "/3");
    assert_string_equal(d->dest, "x.example");
    assert_string_equal(d->message->id, B);
    assert_int_equal(d->shard, 2);
    assert_int_equal(d->attempts, 3);
    assert_int_equal(d->expires_ms, 5000);
    assert_int_equal(d->rcpt_count, 1);
    assert_true(slice_eq(d->message->body, SLICE("hello")));
    assert_int_equal(d->message->refs, 1);
    assert_int_equal(metrics_get(&s.metrics, METRIC_CLAIMED_TOTAL), 2);
    assert_int_equal(pump(&s, 10), 0); /* fewer than asked: there is no more */
    scene_done(&s);
}

static void a_full_claim_is_followed_by_another(void **state)
{
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 1);
    pump(&s, 1);
    answer_claim(&s, A, ITEM, NULL);
    pump(&s, 1);
    answer_records(&s, 1, 9);
    assert_int_equal(pump(&s, 1), 1);
    assert_true(slice_eq(unanswered(&s, 0)->argv[9], SLICE("2"))); /* a new number */
    answer_claim(&s, NULL);
    assert_int_equal(pump(&s, 1), 0);
    assert_true(claim_wake_ms(s.c) > s.now.mono_ms);
    scene_done(&s);
}

static size_t pump_room(struct scene *s, uint32_t urgent, uint32_t normal, uint32_t bulk)
{
    struct claim_room room = {
        { urgent, normal, bulk }, normal + bulk, urgent + normal + bulk, { NULL }, 0
    };
    claim_pump(s->c, &s->redis.link, &room, &s->redis.out, &s->now);
    return fake_take(&s->redis);
}

/* Full of bulk mail, a worker still asks for the rest; and only when there may be some. */
static void each_lane_has_room_of_its_own(void **state)
{
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 9);
    assert_int_equal(pump_room(&s, 100, 3, 0), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_claim", "1", "{q0}n", WORKER, "5000",
                        "u64n3", "64", "64", "1", NULL));
    answer_claim(&s, A, ITEM, NULL);
    pump_room(&s, 100, 3, 0);
    answer_records(&s, 1, 9);
    assert_int_equal(pump_room(&s, 100, 3, 0), 0); /* neither has more */
    assert_true(claim_wake_ms(s.c) > s.now.mono_ms);
    assert_int_equal(pump_room(&s, 100, 3, 1), 1); /* bulk was not asked for yet */
    answer_claim(&s, NULL);
    assert_int_equal(pump_room(&s, 100, 3, 1), 0);
    scene_done(&s);
}

/* A lane that gave all that there was room for may have more. */
static void a_full_lane_is_asked_again(void **state)
{
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 9);
    pump_room(&s, 64, 1, 0);
    answer_claim(&s, A, ITEM, NULL);
    pump_room(&s, 64, 0, 0);
    answer_records(&s, 1, 9);
    assert_int_equal(pump_room(&s, 64, 0, 0), 0);
    assert_int_equal(pump_room(&s, 64, 1, 0), 1);
    answer_claim(&s, NULL);
    scene_done(&s);
}

/* Every eighth claim takes bulk before normal mail; urgent is always first. */
static void bulk_gets_every_eighth_claim(void **state)
{
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 9);
    for (int i = 1; i <= 10; i++) { /* within a quarter of a second: no ticks between */
        claim_hint(s.c);
        s.now.mono_ms += 20;
        assert_int_equal(pump_room(&s, 9, 9, 9), 1);
        assert_true(
            slice_eq(unanswered(&s, 0)->argv[6], i % 8 == 0 ? SLICE("u9b9n9") : SLICE("u9n9b9")));
        answer_claim(&s, NULL);
    }
    scene_done(&s);
}

/* What normal and bulk have together goes to one of them, and to the other when that has none. */
static void room_that_is_shared_is_asked_for_once(void **state)
{
    static const char *const wants[] = {
        "u5n4", "b3", "u5n4", "b3", "u5n4", "b3", "u5n4", "u5b3n1"
    };
    struct claim_room room = { { 5, 4, 3 }, 4, 5 };
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 9);
    for (size_t i = 0; i < ARRAY_LEN(wants); i++) {
        bool is_new = i % 2 == 0 || i == 7;
        if (is_new)
            claim_hint(s.c);
        s.now.mono_ms += is_new ? 20 : 0;
        claim_pump(s.c, &s.redis.link, &room, &s.redis.out, &s.now);
        assert_int_equal(fake_take(&s.redis), 1);
        assert_true(slice_eq(unanswered(&s, 0)->argv[6], slice_str(wants[i])));
        answer_claim(&s, NULL);
    }
    scene_done(&s);
}

/* Weights that are not the usual one are told to each shard, once for each time the link is up. */
static void weights_are_told(void **state)
{
    static const struct config_tenant tenants[] = { { .name = "usual", .weight = 10 },
                                                    { .name = "large", .weight = 50 },
                                                    { .name = "made" } };
    struct scene s;
    scene_init_with(&s, 2, tenants, ARRAY_LEN(tenants));
    assert_int_equal(pump(&s, 0), 6);
    for (int i = 0; i < 2; i++) {
        assert_true(fake_is(unanswered(&s, 4 + (size_t)i), "FCALL", "kilat_weights", "1",
                            i == 0 ? "{q0}n" : "{q1}n", "large", "50", NULL));
        assert_int_equal(unanswered(&s, 4 + (size_t)i)->argc, 6);
    }
    for (int i = 0; i < 6; i++)
        fake_answer(&s.redis, i < 2 ? ":1\r\n" : i < 4 ? "*3\r\n:0\r\n:0\r\n:0\r\n" : ":1\r\n");
    assert_int_equal(pump(&s, 0), 0);
    fake_lose(&s.redis);
    claim_link_down(s.c);
    claim_link_up(s.c);
    assert_int_equal(pump(&s, 0), 6);
    scene_done(&s);
}

static void a_hint_looks_everywhere_but_not_all_the_time(void **state)
{
    struct scene s;
    scene_init(&s, 2);
    settle_in(&s, 0);
    claim_hint(s.c);
    assert_true(claim_wake_ms(s.c) <= s.now.mono_ms);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pump(&s, 64), 1);
        answer_claim(&s, NULL);
    }
    assert_int_equal(pump(&s, 64), 0);
    claim_hint(s.c);
    assert_int_equal(pump(&s, 64), 0);
    assert_int_equal(claim_wake_ms(s.c), s.now.mono_ms + 20);
    s.now.mono_ms += 20;
    assert_int_equal(pump(&s, 64), 1);
    answer_claim(&s, NULL);
    scene_done(&s);
}

static void what_cannot_be_delivered_is_told(void **state)
{
    static const struct {
        const char *item, *reason;
    } rows[] = {
        { "rubbish", "the item is unreadable" },
        { "n\tx.example\t0\t1\t2\t\t0\t5\t1", "the item names recipients that the record has not" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scene s;
        char want[128];
        scene_init(&s, 1);
        settle_in(&s, 1);
        pump(&s, 64);
        answer_claim(&s, A, rows[i].item, B, ITEM, NULL);
        pump(&s, 64);
        answer_records(&s, i == 0 ? 1 : 2, 9);
        snprintf(want, sizeof want, "0 " A " %s", rows[i].reason);
        assert_int_equal(s.broken, 1);
        assert_string_equal(s.reason, want);
        assert_int_equal(s.delivered_count, 1); /* the good one */
        scene_done(&s);
    }
}

static void a_missing_or_foreign_record_is_told(void **state)
{
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 1);
    pump(&s, 64);
    answer_claim(&s, A, ITEM, B, ITEM, NULL);
    pump(&s, 64);
    answer_records(&s, 2, 0);
    assert_string_equal(s.reason, "0 " A " the record is missing");
    claim_hint(s.c);
    pump(&s, 64);
    answer_claim(&s, A, ITEM, NULL);
    pump(&s, 64);
    fake_answer(&s.redis, "*1\r\n$2\r\nK9\r\n");
    assert_string_equal(s.reason, "0 " A " the record is unreadable");
    assert_int_equal(s.delivered_count, 1);
    assert_int_equal(s.broken, 2);
    scene_done(&s);
}

static void large_records_are_read_in_several_steps(void **state)
{
    static const char *const big = "n\tx.example\t0\t1\t2\t\t0\t400000\t0";
    struct scene s;
    scene_init(&s, 1);
    settle_in(&s, 1);
    pump(&s, 64);
    answer_claim(&s, A, big, B, big, "c0000000000000000000", big, "d0000000000000000000",
                 "n\tx.example\t0\t1\t2\t\t3\t90000000\t0", NULL);
    assert_int_equal(pump(&s, 64), 1);
    assert_int_equal(unanswered(&s, 0)->argc, 3);
    answer_records(&s, 2, 9);
    assert_int_equal(pump(&s, 64), 1); /* of a chunked one only the last part is in the record */
    assert_int_equal(unanswered(&s, 0)->argc, 3);
    answer_records(&s, 2, 0);
    assert_int_equal(s.delivered_count, 3);
    scene_done(&s);
}

static void a_claim_of_unknown_fate_is_asked_again_by_number(void **state)
{
    struct scene s;
    scene_init(&s, 2);
    settle_in(&s, 1);
    assert_int_equal(pump(&s, 7), 1);
    assert_true(slice_eq(unanswered(&s, 0)->argv[9], SLICE("1")));
    fake_lose(&s.redis);
    claim_link_down(s.c);
    assert_int_equal(pump(&s, 7), 0);
    assert_int_equal(claim_wake_ms(s.c), INT64_MAX);
    claim_link_up(s.c);
    assert_int_equal(pump(&s, 0), 5); /* heartbeats at once, ticks, and the claim */
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_beat", NULL));
    assert_true(fake_is(unanswered(&s, 4), "FCALL", "kilat_claim", "1", "{q1}n", WORKER, "5000",
                        "u7n7b7", "7", "7", "1", NULL));
    for (int i = 0; i < 2; i++)
        fake_answer(&s.redis, ":1\r\n");
    for (int i = 0; i < 2; i++)
        fake_answer(&s.redis, "*3\r\n:0\r\n:0\r\n:0\r\n");
    answer_claim(&s, A, ITEM, NULL);
    /* The link breaks again before the record was read: it is read later. */
    assert_int_equal(pump(&s, 7), 1);
    fake_lose(&s.redis);
    claim_link_down(s.c);
    claim_link_up(s.c);
    assert_int_equal(pump(&s, 7), 5);
    assert_true(fake_is(unanswered(&s, 4), "MGET", "{q1}b:" A, NULL));
    for (int i = 0; i < 2; i++)
        fake_answer(&s.redis, ":1\r\n");
    for (int i = 0; i < 2; i++)
        fake_answer(&s.redis, "*3\r\n:0\r\n:0\r\n:0\r\n");
    answer_records(&s, 1, 9);
    assert_int_equal(s.delivered_count, 1);
    scene_done(&s);
}

/* What was claimed and not yet handed on when the lease was found lost belongs to others. */
static void a_lost_lease_drops_what_is_in_hand(void **state)
{
    static const char *const beats[] = { ":-1\r\n", ":0\r\n" };
    for (size_t i = 0; i < ARRAY_LEN(beats); i++) {
        for (int is_reading = 0; is_reading < 2; is_reading++) {
            struct scene s;
            scene_init(&s, 1);
            settle_in(&s, 1);
            pump(&s, 64);
            s.now.mono_ms += 1000;
            pump(&s, 64); /* heartbeat and tick, behind the claim */
            answer_claim(&s, A, ITEM, NULL);
            if (is_reading)
                pump(&s, 64);
            fake_answer(&s.redis, beats[i]);
            assert_int_equal(s.lost, 1);
            assert_int_equal(s.last_lost, 0);
            assert_true(claim_lease_is_live(s.c, 0, &s.now));
            fake_answer(&s.redis, "*3\r\n:0\r\n:0\r\n:0\r\n");
            if (is_reading)
                answer_records(&s, 1, 9);
            assert_int_equal(s.delivered_count + s.broken, 0);
            assert_int_equal(pump(&s, 64), 0);
            scene_done(&s);
        }
    }
}

static void leaving_hands_everything_back(void **state)
{
    struct scene s;
    scene_init(&s, 2);
    settle_in(&s, 1);
    claim_bye(s.c, &s.redis.link, &s.redis.out);
    assert_int_equal(fake_take(&s.redis), 2);
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_bye", "1", "{q1}n", WORKER, NULL));
    assert_false(claim_bye_is_done(s.c));
    fake_answer(&s.redis, ":0\r\n");
    assert_false(claim_bye_is_done(s.c));
    fake_answer(&s.redis, ":12\r\n");
    assert_true(claim_bye_is_done(s.c));
    s.now.mono_ms += 5000;
    assert_int_equal(pump(&s, 64), 0); /* no heartbeat would bring the lease back */
    scene_done(&s);
}

static void on_chunk(struct redis_request *req, const redisReply *reply)
{
    snprintf(req->error, sizeof req->error, "%s", reply && reply->str ? reply->str : "lost");
}

static void chunks_go_and_come(void **state)
{
    struct scene s;
    struct redis_request put, get;
    struct chain content;
    scene_init(&s, 1);
    chain_init(&content, &s.budget);
    for (int i = 0; i < 500; i++)
        chain_append(&content, SLICE("0123456789"));
    claim_chunk_put(&s.redis.link, &put, on_chunk, 4, A, 11, &content, &s.redis.out);
    claim_chunk_get(&s.redis.link, &get, on_chunk, 4, A, 11, &s.redis.out);
    assert_int_equal(fake_take(&s.redis), 2);
    const struct fake_command *set = unanswered(&s, 0);
    assert_true(fake_is(set, "SET", "{q4}b:" A ":11", NULL));
    assert_int_equal(set->argv[2].len, 5000);
    assert_true(slice_eq(set->argv[3], SLICE("EX")) && slice_eq(set->argv[4], SLICE("86400")));
    fake_answer(&s.redis, "+OK\r\n");
    assert_string_equal(put.error, "OK");
    assert_true(fake_is(unanswered(&s, 0), "GET", "{q4}b:" A ":11", NULL));
    fake_answer(&s.redis, "$4\r\npart\r\n");
    assert_string_equal(get.error, "part");
    chain_done(&content);
    scene_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heartbeats_come_first_and_every_second),
        cmocka_unit_test(what_is_claimable_is_claimed_and_read),
        cmocka_unit_test(a_full_claim_is_followed_by_another),
        cmocka_unit_test(each_lane_has_room_of_its_own),
        cmocka_unit_test(a_full_lane_is_asked_again),
        cmocka_unit_test(bulk_gets_every_eighth_claim),
        cmocka_unit_test(room_that_is_shared_is_asked_for_once),
        cmocka_unit_test(weights_are_told),
        cmocka_unit_test(a_hint_looks_everywhere_but_not_all_the_time),
        cmocka_unit_test(what_cannot_be_delivered_is_told),
        cmocka_unit_test(a_missing_or_foreign_record_is_told),
        cmocka_unit_test(large_records_are_read_in_several_steps),
        cmocka_unit_test(a_claim_of_unknown_fate_is_asked_again_by_number),
        cmocka_unit_test(a_lost_lease_drops_what_is_in_hand),
        cmocka_unit_test(leaving_hands_everything_back),
        cmocka_unit_test(chunks_go_and_come),
    };
    return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
