/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model against Redis: the same random calls to both, every reply the same, and the same counts
 * after each. A disagreement prints the seed and the calls that led to it.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "queue/model.h"
#include "queue/schema.h"

#define TAG     "{q1}"
#define ARGS    64
#define SEEDS   60
#define STEPS   250
#define LONG_MS 1000000000

static struct private_redis server;
static redisContext *redis;
static uint64_t state_of_chance;

static uint32_t chance(uint32_t bound)
{
    state_of_chance = state_of_chance * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_chance >> 33) % bound;
}

/* One call in the making. */
struct words {
    char text[ARGS][512];
    uint32_t count;
};

static void say(struct words *w, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(struct words *w, const char *format, ...)
{
    va_list args;
    assert_true(w->count < ARGS);
    va_start(args, format);
    vsnprintf(w->text[w->count++], sizeof w->text[0], format, args);
    va_end(args);
}

/* --- what may be said ------------------------------------------------------------------------ */

enum { MESSAGES = 10 };

static void say_worker(struct words *w)
{
    say(w, "worker%u", chance(3));
}

/* Leases and delays are over at once, or never while this runs. */
static void say_ms(struct words *w, uint32_t often)
{
    say(w, "%d", chance(often) ? LONG_MS : 0);
}

/* Messages with an odd number have one delivery, others three. */
static void say_id(struct words *w)
{
    uint32_t n = chance(MESSAGES);
    if (n % 2)
        say(w, "m%019u", n);
    else
        say(w, "m%019u/%u", n, chance(3));
}

static void say_item(struct words *w)
{
    uint32_t dest = chance(3);
    say(w, "%c\td%u.example\t%u\t1000\t2000\t\t0\t9\t0", "ubn"[chance(3)], dest, chance(2));
}

/* One message: its deliveries, each in a place of its own. */
static void say_mail(struct words *w, uint32_t n)
{
    static const char *const modes[] = { "L", "L", "L", "R", "R", "H", "S1", "S9999999999999" };
    uint32_t copies = n % 2 ? 1 : 3;
    for (uint32_t k = 0; k < copies; k++) {
        if (copies == 1)
            say(w, "m%019u", n);
        else
            say(w, "m%019u/%u", n, k);
        say_item(w);
        say(w, "%s", modes[chance(8)]);
        say(w, "%u", copies > 1 && k == 0 ? copies : 0);
        say(w, "0");
    }
}

/* Few keys and fewer bodies, so that they meet. */
static void say_key(struct words *w, uint32_t n)
{
    say(w, "m%019u", n);
    say(w, "%02x", chance(4));
    say(w, "%02x", chance(4) == 0);
}

/* One message or two, with a key or without. */
static void say_enq(struct words *w)
{
    uint32_t n = chance(MESSAGES), more = (n + 1) % MESSAGES;
    bool is_two = chance(3) == 0, is_keyed = chance(2), is_first = chance(2), is_second = chance(2);
    say_worker(w);
    say_ms(w, 8);
    say(w, "%u", (n % 2 ? 1 : 3) + (is_two ? (more % 2 ? 1 : 3) : 0));
    say_mail(w, n);
    if (is_two)
        say_mail(w, more);
    if (!is_keyed || (!is_first && !(is_two && is_second)))
        return;
    say(w, "%d", LONG_MS);
    if (is_first)
        say_key(w, n);
    if (is_two && is_second)
        say_key(w, more);
}

/* Withdraws a message as a committer does: all its deliveries; its key may have ended, or not. */
static void say_withdrawal(struct words *w)
{
    uint32_t n = chance(MESSAGES), copies = n % 2 ? 1 : 3, key = chance(4);
    bool may_have_ended = chance(4) == 0;
    say_worker(w);
    for (uint32_t k = 0; k < copies; k++) {
        if (copies == 1)
            say(w, "m%019u", n);
        else
            say(w, "m%019u/%u", n, k);
        say_item(w);
        char *text = w->text[w->count - 1];
        size_t len = strlen(text);
        snprintf(text + len, sizeof w->text[0] - len, "\n%02x %s", key,
                 may_have_ended ? "0" : "9999999999999");
    }
}

static void say_ids(struct words *w)
{
    say_worker(w);
    for (uint32_t n = 1 + chance(4); n > 0; n--)
        say_id(w);
}

static void say_retry(struct words *w)
{
    say_worker(w);
    for (uint32_t n = 1 + chance(3); n > 0; n--) {
        say_id(w);
        say_ms(w, 2);
        say_item(w);
    }
}

static void say_texts(struct words *w)
{
    say_worker(w);
    for (uint32_t n = 1 + chance(3); n > 0; n--) {
        say_id(w);
        say_item(w);
    }
}

/* Splits one that can be told apart from all others: the third delivery into two more. */
static void say_resplit(struct words *w)
{
    static uint32_t serial;
    uint32_t n = 2 * chance(MESSAGES / 2);
    say_worker(w);
    say(w, "m%019u/%u", n, chance(3));
    char text[512];
    int len = snprintf(text, sizeof text, "2");
    for (int k = 0; k < 2; k++)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "\nm%019u/s%05u\tn\td%u.example\t0\t1000\t2000\t\t0\t9\t0", n,
                        serial++ % 100000, chance(3));
    say(w, "%s", text);
}

static void say_claim(struct words *w)
{
    static const char *const lanes[] = { "unb", "n", "bu", "u2n1b3", "n2bu0" };
    static uint32_t number;
    number += chance(4) > 0;
    say_worker(w);
    say_ms(w, 8);
    say(w, "%s", lanes[chance(ARRAY_LEN(lanes))]);
    say(w, "%u", 1 + chance(6));
    say(w, "%u", 1 + chance(4));
    if (chance(2))
        say(w, "%u", number);
}

static void say_tick(struct words *w)
{
    say(w, "1000");
}

static void say_beat(struct words *w)
{
    say_worker(w);
    say_ms(w, 4);
}

static void say_anything(struct words *w)
{
    if (chance(4) == 0)
        say(w, "*");
    else if (chance(2))
        say(w, "m%019u", chance(MESSAGES));
    else
        say_id(w);
}

static void say_message(struct words *w)
{
    if (chance(2))
        say(w, "m%019u", chance(MESSAGES));
    else
        say_id(w);
}

static void say_hold(struct words *w)
{
    say(w, "d%u.example", chance(3));
    say(w, "%s", chance(2) ? "*" : "n");
}

static void say_free(struct words *w)
{
    if (chance(2))
        say(w, "*");
    else
        say(w, "d%u.example", chance(3));
}

static const struct {
    const char *function;
    void (*say)(struct words *w);
    uint32_t weight;
} calls[] = {
    { "kilat_enq", say_enq, 24 },          { "kilat_done", say_ids, 8 },
    { "kilat_bounced", say_ids, 2 },       { "kilat_expired", say_ids, 2 },
    { "kilat_cancel", say_withdrawal, 6 }, { "kilat_retry", say_retry, 10 },
    { "kilat_release", say_ids, 6 },       { "kilat_dead", say_texts, 4 },
    { "kilat_pass", say_ids, 4 },          { "kilat_cancel", say_texts, 4 },
    { "kilat_resplit", say_resplit, 3 },   { "kilat_claim", say_claim, 20 },
    { "kilat_tick", say_tick, 10 },        { "kilat_beat", say_beat, 8 },
    { "kilat_bye", say_worker, 2 },        { "kilat_drop", say_message, 3 },
    { "kilat_hold", say_hold, 2 },         { "kilat_free", say_free, 3 },
    { "kilat_kick", say_anything, 3 },     { "kilat_revive", say_anything, 3 },
};

static size_t pick_call(void)
{
    uint32_t total = 0;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        total += calls[i].weight;
    uint32_t at = chance(total);
    for (size_t i = 0;; i++) {
        if (at < calls[i].weight)
            return i;
        at -= calls[i].weight;
    }
}

/* --- comparing ------------------------------------------------------------------------------- */

static void describe(const redisReply *r, struct buf *out)
{
    if (r->type == REDIS_REPLY_INTEGER)
        assert_int_equal(buf_printf(out, "%lld ", r->integer), STATUS_OK);
    else if (r->type != REDIS_REPLY_ARRAY)
        assert_int_equal(buf_printf(out, "%s ", r->str ? r->str : "nil"), STATUS_OK);
    else {
        assert_int_equal(buf_append(out, SLICE("[ ")), STATUS_OK);
        for (size_t i = 0; i < r->elements; i++)
            describe(r->element[i], out);
        assert_int_equal(buf_append(out, SLICE("] ")), STATUS_OK);
    }
}

static void ask_redis(const char *function, const struct words *w, struct buf *out)
{
    const char *argv[ARGS + 4] = { "FCALL", function, "1", TAG "n" };
    for (uint32_t i = 0; i < w->count; i++)
        argv[4 + i] = w->text[i];
    redisReply *r = redisCommandArgv(redis, (int)(4 + w->count), argv, NULL);
    assert_non_null(r);
    describe(r, out);
    freeReplyObject(r);
}

/* A risen item carries Redis' own clock: that one number is not compared. */
static void blur_expiry(struct buf *text)
{
    char *at = text->ptr;
    while (text->len && (at = memmem(at, text->len - (size_t)(at - text->ptr), "\t1000\t", 6))) {
        char *end = memchr(at + 6, '\t', text->len - (size_t)(at + 6 - text->ptr));
        size_t rest = text->len - (size_t)(end - text->ptr);
        memmove(at + 6, end, rest);
        text->len = (uint32_t)(at + 6 - text->ptr + (long)rest);
        at += 6;
    }
}

static void print_call(const char *function, const struct words *w, const struct buf *reply)
{
    print_message("%s", function);
    for (uint32_t i = 0; i < w->count; i++)
        print_message(" '%s'", w->text[i]);
    print_message(" -> %.*s\n", (int)reply->len, reply->ptr);
}

static void compare(struct queue_model *model, uint64_t seed, int step, const char *function,
                    const struct words *w)
{
    struct slice argv[ARGS];
    struct buf want, got;
    buf_init(&want, 1 << 20);
    buf_init(&got, 1 << 20);
    for (uint32_t i = 0; i < w->count; i++)
        argv[i] = slice_str(w->text[i]);
    ask_redis(function, w, &got);
    assert_int_equal(queue_model_call(model, 1000 + step, function, argv, w->count, &want),
                     STATUS_OK);
    blur_expiry(&want);
    blur_expiry(&got);
    if (!slice_eq(buf_slice(&want), buf_slice(&got))) {
        print_message("seed %llu step %d\nredis: ", (unsigned long long)seed, step);
        print_call(function, w, &got);
        print_message("model: ");
        print_call(function, w, &want);
        struct buf dump;
        buf_init(&dump, 1 << 20);
        queue_model_dump(model, &dump);
        print_message("%.*s", (int)dump.len, dump.ptr);
        fail();
    }
    buf_done(&want);
    buf_done(&got);
}

/* A record is there exactly while the model says so. */
static void compare_records(const struct queue_model *model)
{
    for (uint32_t n = 0; n < MESSAGES; n++) {
        char id[32];
        snprintf(id, sizeof id, "m%019u", n);
        redisReply *r = redisCommand(redis, "EXISTS " TAG "b:%s", id);
        assert_int_equal(r->integer, queue_model_has_record(model, id));
        freeReplyObject(r);
    }
}

/* What went in has ended or is there, after every move. */
static void check_accounts(uint64_t seed, int step)
{
    redisReply *r = redisCommand(redis, "FCALL kilat_audit 1 " TAG "n");
    assert_non_null(r);
    if (r->type != REDIS_REPLY_INTEGER || r->integer != 0)
        fail_msg("seed %llu step %d: %lld %s", (unsigned long long)seed, step, r->integer,
                 r->str ? r->str : "");
    freeReplyObject(r);
}

static void run(uint64_t seed)
{
    static const struct words none;
    struct queue_model *model = queue_model_new();
    redisReply *flushed = redisCommand(redis, "FLUSHALL");
    freeReplyObject(flushed);
    state_of_chance = seed;
    for (int step = 0; step < STEPS; step++) {
        size_t i = pick_call();
        struct words w;
        w.count = 0;
        calls[i].say(&w);
        compare(model, seed, step, calls[i].function, &w);
        compare(model, seed, step, "kilat_count", &none);
        check_accounts(seed, step);
    }
    compare_records(model);
    queue_model_free(model);
}

static void redis_and_the_model_agree(void **state)
{
    const char *only = getenv("KILAT_SEED");
    if (only) {
        run(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed);
}

static int start_server(void **state)
{
    static const char *const options[] = { "--appendonly", "no", NULL };
    private_redis_start(&server, options);
    redis = redisConnectUnix(server.socket);
    assert_non_null(redis);
    redisReply *r = redisCommand(redis, "FUNCTION LOAD REPLACE %b", queue_lua, queue_lua_len);
    assert_int_equal(r->type, REDIS_REPLY_STRING);
    freeReplyObject(r);
    return 0;
}

static int stop_server(void **state)
{
    redisFree(redis);
    private_redis_stop(&server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_and_the_model_agree),
    };
    return cmocka_run_group_tests_name("queue_model", tests, start_server, stop_server);
}
