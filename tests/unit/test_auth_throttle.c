/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures counted in Redis, users kept there, and what happens when it is out of reach: against a
 * private server with the functions of queue/lua.
 */
#include "tests/lib/auth_bench.h"

#include "queue/schema.h"

#define HERE  "192.0.2.7"
#define THERE "198.51.100.9"
#define MAX   3 /* auth.failures_max */

struct fixture {
    struct private_redis p;
    struct bench b;
};

static int start_redis(void **state)
{
    static const char *const options[] = { "--appendonly", "no", NULL };
    struct fixture *f = mem_zalloc(sizeof *f);
    private_redis_start(&f->p, options);
    redisContext *c = redisConnectUnix(f->p.socket);
    redisReply *r = redisCommand(c, "FUNCTION LOAD REPLACE %b", queue_lua, queue_lua_len);
    if (r->type == REDIS_REPLY_ERROR)
        fail_msg("%s", r->str);
    freeReplyObject(r);
    redisFree(c);
    *state = f;
    return 0;
}

static int stop_redis(void **state)
{
    struct fixture *f = *state;
    private_redis_stop(&f->p);
    free(f);
    return 0;
}

/* An empty Redis, a file of alice and bob, MAX failures allowed. */
static int set_up(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    private_redis_say(f->p.socket, text, sizeof text, "FLUSHALL");
    bench_init(&f->b);
    f->b.cfg.auth.failures_max = MAX;
    f->b.redis = BENCH_REAL;
    f->b.real = redisConnectUnix(f->p.socket);
    assert_true(f->b.real && !f->b.real->err);
    snprintf(text, sizeof text, "alice%s\nbob%s\n", bench_hash("right"), bench_hash("right"));
    bench_write(f->b.users, text);
    bench_start(&f->b);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    bench_stop(&f->b);
    redisFree(f->b.real);
    return 0;
}

static void fail_often(struct bench *b, const char *user, const char *client, int times)
{
    for (int i = 0; i < times; i++)
        assert_int_equal(bench_password(b, user, "wrong", client), AUTH_RESULT_WRONG);
}

static void check(struct bench *b, const char *user, const char *client, enum auth_result want)
{
    assert_int_equal(bench_password(b, user, "right", client), want);
}

/* P-117: too many failures at one place hurt this user there, and nobody else. */
static void one_user_at_one_address(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    fail_often(b, "alice", HERE, MAX - 1);
    check(b, "alice", HERE, AUTH_RESULT_OK);
    fail_often(b, "alice", HERE, 1); /* the success has forgiven nothing */
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
    assert_int_equal(bench_password(b, "alice", "wrong", HERE), AUTH_RESULT_THROTTLED);
    check(b, "alice", THERE, AUTH_RESULT_OK);
    check(b, "bob", HERE, AUTH_RESULT_OK);
    assert_true(bench_logged(b, "reason=throttled"));
}

/* P-145: one that does not exist is throttled like one that does. */
static void an_unknown_user_is_throttled_alike(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    fail_often(b, "nobody", HERE, MAX);
    assert_int_equal(bench_password(b, "nobody", "x", HERE), AUTH_RESULT_THROTTLED);
}

/* Every question is throttled and every refusal counted, whichever mechanism asks. */
static void all_mechanisms_count_together(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    assert_int_equal(bench_result(b, SASL_ASK_PROOF, "alice", NULL, HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_result(b, SASL_ASK_TOKEN, "alice", "none", HERE), AUTH_RESULT_WRONG);
    fail_often(b, "alice", HERE, MAX - 2);
    assert_int_equal(bench_result(b, SASL_ASK_VERIFIER, "alice", NULL, HERE),
                     AUTH_RESULT_THROTTLED);
    assert_int_equal(bench_result(b, SASL_ASK_PROOF, "alice", "yes", HERE), AUTH_RESULT_THROTTLED);
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
}

static void one_address_with_many_users(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    for (int i = 0; i < 10 * MAX; i++) {
        char user[32];
        snprintf(user, sizeof user, "user %d", i);
        fail_often(b, user, HERE, 1);
    }
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
    check(b, "alice", THERE, AUTH_RESULT_OK);
}

static void fail_from_everywhere(struct bench *b, const char *user)
{
    for (int i = 0; i < 10 * MAX; i++) {
        char client[32];
        snprintf(client, sizeof client, "203.0.113.%d", i);
        fail_often(b, user, client, 1);
    }
}

/* P-117: strangers cannot lock a user out of where he has logged in before. */
static void a_user_guessed_at_from_everywhere(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    check(b, "alice", HERE, AUTH_RESULT_OK);
    fail_from_everywhere(b, "alice");
    check(b, "alice", THERE, AUTH_RESULT_THROTTLED);
    check(b, "alice", HERE, AUTH_RESULT_OK);
    check(b, "bob", THERE, AUTH_RESULT_OK);
    fail_often(b, "alice", HERE, MAX); /* but there too he may not guess for ever */
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
}

/* A place is remembered once, not at each login. */
static void a_known_place_is_not_told_again(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    check(b, "alice", HERE, AUTH_RESULT_OK);
    uint32_t asked = b->asked;
    check(b, "alice", HERE, AUTH_RESULT_OK);
    assert_int_equal(b->asked, asked + 1);
}

static void addresses_in_other_clothes(void **state)
{
    static const char *const same[][2] = {
        { "2001:db8:1:2:aaaa::1", "2001:db8:1:2::9" }, /* one customer's /64 */
        { "192.0.2.44", "::ffff:192.0.2.44" },
        { "2001:DB8:0:5::1", "2001:db8::5:0:0:0:1" },
    };
    static const char *const other[][2] = {
        { "2001:db8:1:2:aaaa::1", "2001:db8:1:3::9" },
        { "192.0.2.44", "192.0.2.45" },
        { "::ffff:192.0.2.46", "::ffff:192.0.2.47" },
    };
    struct bench *b = &((struct fixture *)*state)->b;
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        set_up(state);
        fail_often(b, "alice", same[i][0], MAX);
        check(b, "alice", same[i][1], AUTH_RESULT_THROTTLED);
        tear_down(state);
        set_up(state);
        fail_often(b, "alice", other[i][0], MAX);
        check(b, "alice", other[i][1], AUTH_RESULT_OK);
        tear_down(state);
    }
}

static void failures_count_for_a_window(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    b->cfg.auth.failures_window_ms = 300;
    fail_often(b, "alice", HERE, MAX);
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
    usleep(350000);
    check(b, "alice", HERE, AUTH_RESULT_OK);
}

/* A full Redis refuses no login and forgets no failure. */
static void a_full_redis(void **state)
{
    struct fixture *f = *state;
    freeReplyObject(redisCommand(f->b.real, "CONFIG SET maxmemory 1"));
    fail_often(&f->b, "alice", HERE, MAX);
    check(&f->b, "alice", HERE, AUTH_RESULT_THROTTLED);
    check(&f->b, "bob", HERE, AUTH_RESULT_OK);
    freeReplyObject(redisCommand(f->b.real, "CONFIG SET maxmemory 0"));
}

/* Nothing in Redis outlives its time, and nothing tells whom it is about. */
static void what_lies_in_redis(void **state)
{
    struct fixture *f = *state;
    fail_often(&f->b, "alice", HERE, 1);
    check(&f->b, "alice", HERE, AUTH_RESULT_OK);
    bench_turn(&f->b);
    redisReply *keys = redisCommand(f->b.real, "KEYS *");
    assert_int_equal(keys->elements, 4); /* pair, address, user; and the known place */
    for (size_t i = 0; i < keys->elements; i++) {
        const char *key = keys->element[i]->str;
        assert_true(strncmp(key, "{cfg}af:", 8) == 0 || strncmp(key, "{cfg}ak:", 8) == 0);
        assert_null(strstr(key, "alice"));
        redisReply *ttl = redisCommand(f->b.real, "PTTL %s", key);
        assert_true(ttl->integer > 0 &&
                    (key[6] == 'k' || ttl->integer <= (long long)f->b.cfg.auth.failures_window_ms));
        freeReplyObject(ttl);
    }
    freeReplyObject(keys);
}

/* A throttled attempt is not computed, and is told no sooner than any other. */
static void a_throttled_attempt_waits_too(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    struct bench_answer out;
    fail_often(b, "alice", HERE, MAX);
    b->cfg.auth.failure_delay_ms = 120;
    bench_read_clock(b);
    int64_t began = b->w.now.mono_ms;
    bench_ask(b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_await(b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_THROTTLED);
    assert_true(out.at_ms - began >= 120);
}

/* --- without Redis --------------------------------------------------------------------------- */

static void users_of_a_file_need_no_redis(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    fail_often(b, "alice", HERE, MAX);
    b->redis = BENCH_GONE; /* counting rests */
    check(b, "alice", HERE, AUTH_RESULT_OK);
    fail_often(b, "alice", HERE, MAX);
    b->redis = BENCH_REAL;
    check(b, "alice", HERE, AUTH_RESULT_THROTTLED);
}

/* Redis holds the connection and says nothing: patience ends; then it is as if it were gone. */
static void a_silent_redis(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    struct bench_answer out;
    b->redis = BENCH_SILENT;
    bench_ask(b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_turn(b);
    assert_false(out.is_there);
    b->ahead_ms += 6000;
    bench_await(b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    account_unref(out.answer.account);
    bench_deliver(b, true); /* the answer that comes after all is nobody's */
}

static void a_lost_link(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    struct bench_answer out;
    b->redis = BENCH_SILENT;
    bench_ask(b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_deliver(b, true);
    bench_await(b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    account_unref(out.answer.account);
}

static void forgotten_while_redis_thinks(void **state)
{
    struct bench *b = &((struct fixture *)*state)->b;
    struct bench_answer out;
    b->redis = BENCH_SILENT;
    authenticator_forget(bench_ask(b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out));
    b->redis = BENCH_REAL;
    authenticator_forget(bench_ask(b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out));
    bench_turn(b);
    bench_deliver(b, true);
    assert_false(out.is_there);
}

/* --- users in Redis -------------------------------------------------------------------------- */

static void put_user(struct fixture *f, const char *name, const char *line)
{
    redisReply *r = redisCommand(f->b.real, "HSET {cfg}users %s %s", name, line);
    assert_int_equal(r->type, REDIS_REPLY_INTEGER);
    freeReplyObject(r);
}

/* Starts the bench again without a users file. */
static void keep_users_in_redis(struct fixture *f)
{
    char line[512];
    bench_stop(&f->b);
    redisContext *real = f->b.real;
    bench_init(&f->b);
    f->b.cfg.auth.users_file = NULL;
    f->b.cfg.auth.failures_max = 1000;
    f->b.real = real;
    f->b.redis = BENCH_REAL;
    bench_start(&f->b);
    snprintf(line, sizeof line, "alice tenant=acme%s", bench_hash("right"));
    put_user(f, "alice", line);
}

static void users_in_redis(void **state)
{
    struct fixture *f = *state;
    struct bench_answer out;
    keep_users_in_redis(f);
    bench_ask(&f->b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_await(&f->b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    assert_string_equal(out.answer.account->tenant, "acme");
    account_unref(out.answer.account);
    assert_int_equal(bench_password(&f->b, "alice", "wrong", HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_password(&f->b, "bob", "right", HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_password(&f->b, "", "right", HERE), AUTH_RESULT_WRONG);
    put_user(f, "alice", "alice disabled");
    check(&f->b, "alice", HERE, AUTH_RESULT_WRONG); /* at once, whatever was remembered */
}

/* P-144: what is our trouble is never 535, which would make clients forget their password. */
static void trouble_with_users_in_redis(void **state)
{
    struct fixture *f = *state;
    struct bench_answer out;
    keep_users_in_redis(f);
    put_user(f, "broken", "broken colour=red");
    put_user(f, "mallory", "alice tenant=acme");
    check(&f->b, "broken", HERE, AUTH_RESULT_DOWN);
    assert_true(bench_logged(&f->b, "colour=red"));
    check(&f->b, "mallory", HERE, AUTH_RESULT_DOWN);
    f->b.redis = BENCH_GONE;
    check(&f->b, "alice", HERE, AUTH_RESULT_DOWN);
    f->b.redis = BENCH_SILENT;
    bench_ask(&f->b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    f->b.ahead_ms += 6000;
    bench_await(&f->b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_DOWN);
    f->b.redis = BENCH_REAL;
    freeReplyObject(redisCommand(f->b.real, "DEL {cfg}users"));
    freeReplyObject(redisCommand(f->b.real, "SET {cfg}users nonsense"));
    check(&f->b, "alice", HERE, AUTH_RESULT_DOWN); /* an error reply */
}

/* --- the secret of all nodes ----------------------------------------------------------------- */

static void two_nodes_make_up_the_same_verifiers(void **state)
{
    struct fixture *f = *state;
    struct auth_shared *other;
    struct redis_address addr = { .is_unix = true };
    struct buf error;
    buf_init(&error, 512);
    snprintf(addr.path, sizeof addr.path, "%s", f->p.socket);
    assert_int_equal(auth_shared_new(&f->b.cfg, &other, &error), STATUS_OK);
    assert_memory_not_equal(auth_shared_fake_secret(f->b.shared), auth_shared_fake_secret(other),
                            AUTH_SECRET_LEN);
    assert_int_equal(auth_shared_adopt(f->b.shared, &addr, &error), STATUS_OK);
    assert_int_equal(auth_shared_adopt(other, &addr, &error), STATUS_OK);
    assert_memory_equal(auth_shared_fake_secret(f->b.shared), auth_shared_fake_secret(other),
                        AUTH_SECRET_LEN);
    freeReplyObject(redisCommand(f->b.real, "HDEL {cfg} auth_secret"));
    freeReplyObject(redisCommand(f->b.real, "CONFIG SET maxmemory 1"));
    uint8_t kept[AUTH_SECRET_LEN];
    memcpy(kept, auth_shared_fake_secret(other), sizeof kept);
    assert_int_equal(auth_shared_adopt(other, &addr, &error), STATUS_OK); /* full: it starts */
    assert_memory_equal(auth_shared_fake_secret(other), kept, sizeof kept);
    freeReplyObject(redisCommand(f->b.real, "CONFIG SET maxmemory 0"));
    freeReplyObject(redisCommand(f->b.real, "HSET {cfg} auth_secret short"));
    assert_int_equal(auth_shared_adopt(other, &addr, &error), STATUS_SYSTEM);
    assert_true(error.len > 0);
    auth_shared_free(other);
    buf_done(&error);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_user_at_one_address),
        CASE(an_unknown_user_is_throttled_alike),
        CASE(all_mechanisms_count_together),
        CASE(one_address_with_many_users),
        CASE(a_user_guessed_at_from_everywhere),
        CASE(a_known_place_is_not_told_again),
        cmocka_unit_test(addresses_in_other_clothes),
        CASE(failures_count_for_a_window),
        CASE(a_full_redis),
        CASE(what_lies_in_redis),
        CASE(a_throttled_attempt_waits_too),
        CASE(users_of_a_file_need_no_redis),
        CASE(a_silent_redis),
        CASE(a_lost_link),
        CASE(forgotten_while_redis_thinks),
        CASE(users_in_redis),
        CASE(trouble_with_users_in_redis),
        CASE(two_nodes_make_up_the_same_verifiers),
    };
    return cmocka_run_group_tests_name("auth_throttle", tests, start_redis, stop_redis);
}
