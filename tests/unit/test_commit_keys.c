/* SPDX-License-Identifier: Apache-2.0 */
/* Idempotency keys and held-back mail in the group commit, against a scripted Redis. */
#include "tests/lib/commit_scene.h"

#define KEY_HEX    "101112131415161718191a1b1c1d1e1f"
#define DIGEST_HEX "404142434445464748494a4b4c4d4e4f"
#define TTL        "86400000"
#define ITEM       "n\td0.example\t0\t1000\t2000\t\t0\t100\t0"
#define ID         "m0000000000000000001"
#define FIRST      "f0000000000000000009"

static void begin_clustered(struct scene *s, uint16_t shards, bool is_clustered)
{
    scene_init(s, shards);
    commit_free(s->c);
    struct commit_config cfg = { .shards = shards,
                                 .is_clustered = is_clustered,
                                 .lease_ms = 5000,
                                 .key_ttl_ms = 86400000,
                                 .worker = WORKER,
                                 .metrics = &s->metrics };
    s->c = commit_new(&cfg);
}

static void begin(struct scene *s, uint16_t shards)
{
    begin_clustered(s, shards, false);
}

/* A message under a key whose shard is `last`, when there are more than that. */
static struct mail *add_keyed(struct scene *s, uint32_t number, uint8_t last)
{
    struct mail *m = mail_new(number, 100, s->now.mono_ms + 30000);
    m->entry.message->has_key = true;
    for (uint8_t i = 0; i < 32; i++) {
        m->entry.message->key[i] = i < 16 ? (uint8_t)(0x10 + i) : 0;
        m->entry.message->digest[i] = (uint8_t)(0x40 + i);
    }
    m->entry.message->key[31] = last;
    commit_add(s->c, &m->entry, &s->now);
    return m;
}

static void a_key_rides_behind_all_deliveries(void **state)
{
    struct scene s;
    begin(&s, 16);
    struct mail *plain = add(&s, 2), *keyed = add_keyed(&s, 1, 5);
    turn(&s, 1);
    assert_int_equal(fake_transaction(&s.redis), 3);
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_enq", "1", "{q5}n", WORKER, "5000", "2",
                        ID, ITEM, "L", "0", "0", "m0000000000000000002", ITEM, "L", "0", "0", TTL,
                        ID, KEY_HEX, DIGEST_HEX, NULL));
    assert_int_equal(unanswered(&s, 1)->argc, 21);

    fake_exec(&s.redis, (const char *const[]){ "*3\r\n*0\r\n*0\r\n*0\r\n", NULL, NULL });
    expect_verdict(plain, SMTP_QUEUED);
    expect_verdict(keyed, SMTP_QUEUED);
    assert_string_equal(keyed->entry.first_id, "");
    assert_int_equal(keyed->entry.shard, 5);
    free(plain);
    free(keyed);
    scene_done(&s);
}

static void without_keys_nothing_is_said_of_them(void **state)
{
    struct scene s;
    begin(&s, 16);
    struct mail *plain = add(&s, 1);
    turn(&s, 1);
    assert_int_equal(unanswered(&s, 1)->argc, 12);
    fake_exec(&s.redis, NULL);
    expect_verdict(plain, SMTP_QUEUED);
    free(plain);
    scene_done(&s);
}

/* What Redis says of the keys, and what the session hears; nothing is withdrawn for it. */
static void repeats_and_conflicts(void **state)
{
    static const struct {
        const char *enq;
        enum smtp_verdict want;
        const char *first_id;
    } rows[] = {
        { "*3\r\n*0\r\n*0\r\n*2\r\n$20\r\n" ID "\r\n$20\r\n" FIRST "\r\n", SMTP_QUEUED, FIRST },
        { "*3\r\n*0\r\n*0\r\n*2\r\n$20\r\n" ID "\r\n$20\r\n" ID "\r\n", SMTP_QUEUED, ID },
        { "*3\r\n*0\r\n*0\r\n*2\r\n$20\r\n" ID "\r\n$0\r\n\r\n", SMTP_KEY_CONFLICT, "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scene s;
        begin(&s, 4);
        struct mail *m = add_keyed(&s, 1, 0), *other = add_keyed(&s, 2, 0);
        turn(&s, 1);
        fake_exec(&s.redis, (const char *const[]){ rows[i].enq, "$-1\r\n", NULL });
        expect_verdict(m, rows[i].want);
        assert_string_equal(m->entry.first_id, rows[i].first_id);
        expect_verdict(other, SMTP_QUEUED);
        assert_string_equal(other->entry.first_id, "");
        s.now.mono_ms += 100;
        assert_int_equal(turn(&s, 1), 0);
        assert_int_equal(commit_pending(s.c), 0);
        free(m);
        free(other);
        scene_done(&s);
    }
}

/* May be stored, may be not: taken back. */
static void a_reply_that_makes_no_sense(void **state)
{
    static const char *const replies[] = { "*3\r\n*0\r\n*0\r\n:1\r\n",
                                           "*4\r\n*0\r\n*0\r\n*0\r\n*0\r\n", ":1\r\n" };
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        struct scene s;
        begin(&s, 4);
        struct mail *m = add_keyed(&s, 1, 0);
        turn(&s, 1);
        fake_exec(&s.redis, (const char *const[]){ replies[i], NULL });
        expect_verdict(m, SMTP_NOT_QUEUED);
        s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
        assert_int_equal(turn(&s, 1), 1);
        assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", NULL));
        fake_answer(&s.redis, "*0\r\n");
        free(m);
        scene_done(&s);
    }
}

/* One fsync for all of them, whatever shards their keys are in; each shard answers for its own. */
static void shards_share_a_transaction(void **state)
{
    struct scene s;
    struct mail *m[5];
    begin(&s, 4);
    for (uint32_t i = 0; i < 4; i++)
        m[i] = add_keyed(&s, i, (uint8_t)(i < 2 ? 1 : i));
    m[4] = add(&s, 4);
    assert_int_equal(turn(&s, 64), 1);
    assert_int_equal(fake_transaction(&s.redis), 3 + 5);
    static const char *const keys[] = { "{q1}n", "{q2}n", "{q3}n" };
    static const char *const counts[] = { "2", "1", "2" };
    for (size_t i = 0; i < 3; i++)
        assert_true(fake_is(unanswered(&s, 1 + i), "FCALL", "kilat_enq", "1", keys[i], WORKER,
                            "5000", counts[i], NULL));
    static const char *const replies[] = {
        NULL,
        "*3\r\n*0\r\n*0\r\n*2\r\n$20\r\nm0000000000000000002\r\n$0\r\n\r\n",
        "-ERR user_function: script error\r\n",
        NULL,
        NULL,
        "$-1\r\n",
        "$-1\r\n",
        "$-1\r\n"
    };
    fake_exec(&s.redis, replies);
    static const enum smtp_verdict want[] = { SMTP_QUEUED, SMTP_QUEUED, SMTP_KEY_CONFLICT,
                                              SMTP_NOT_QUEUED, SMTP_NOT_QUEUED };
    for (int i = 0; i < 5; i++) {
        expect_verdict(m[i], want[i]);
        assert_int_equal(m[i]->entry.shard, i < 2 ? 1 : i < 4 ? i : 3);
        free(m[i]);
    }
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 64), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", "1", "{q3}n", NULL));
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(commit_pending(s.c), 0);
    scene_done(&s);
}

static void but_not_in_a_cluster(void **state)
{
    struct scene s;
    struct mail *m[3];
    begin_clustered(&s, 4, true);
    for (uint32_t i = 0; i < 2; i++)
        m[i] = add_keyed(&s, i, (uint8_t)(1 + i));
    m[2] = add(&s, 2);
    assert_int_equal(turn(&s, 64), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fake_transaction(&s.redis), i == 0 ? 3 : 2);
        fake_exec(&s.redis, NULL);
    }
    for (int i = 0; i < 3; i++) {
        expect_verdict(m[i], SMTP_QUEUED);
        assert_int_equal(m[i]->entry.shard, i == 1 ? 2 : 1);
        free(m[i]);
    }
    scene_done(&s);
}

/* A shard whose messages cannot be queued at all leaves no empty call. */
static void no_call_without_messages(void **state)
{
    struct scene s;
    begin(&s, 4);
    struct mail *good = add_keyed(&s, 1, 1), *bad = mail_new(2, 10, 40000);
    snprintf(bad->targets[0].dest, DEST_KEY_MAX, "has space");
    bad->entry.shard = 2;
    commit_add(s.c, &bad->entry, &s.now);
    assert_int_equal(turn(&s, 1), 1);
    expect_verdict(bad, SMTP_NOT_QUEUED);
    assert_int_equal(fake_transaction(&s.redis), 2);
    fake_exec(&s.redis, NULL);
    expect_verdict(good, SMTP_QUEUED);
    free(good);
    free(bad);
    scene_done(&s);
}

static void a_withdrawal_names_the_key(void **state)
{
    struct scene s;
    begin(&s, 4);
    struct mail *m = add_keyed(&s, 1, 3);
    turn(&s, 1);
    fake_lose(&s.redis);
    s.now.mono_ms += 30000;
    turn(&s, 1);
    expect_verdict(m, SMTP_NOT_QUEUED);
    commit_link_up(s.c);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", "1", "{q3}n", WORKER, ID,
                        ITEM "\n" KEY_HEX " " TTL, NULL));
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(commit_pending(s.c), 0);
    free(m);
    scene_done(&s);
}

/* Its answer comes after its deadline: whoever stands for it, it was refused. */
static void a_repeat_that_comes_too_late(void **state)
{
    struct scene s;
    begin(&s, 4);
    struct mail *m = add_keyed(&s, 1, 0);
    turn(&s, 1);
    s.now.mono_ms += 30000;
    turn(&s, 1);
    expect_verdict(m, SMTP_NOT_QUEUED);
    free(m);
    fake_exec(&s.redis, (const char *const[]){ "*3\r\n*0\r\n*0\r\n*2\r\n$20\r\n" ID
                                               "\r\n$20\r\n" FIRST "\r\n",
                                               "$-1\r\n" });
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", NULL));
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(commit_pending(s.c), 0);
    scene_done(&s);
}

static void held_back_mail_says_when(void **state)
{
    struct scene s;
    begin(&s, 4);
    struct mail *m = mail_new(1, 100, 40000);
    m->targets[0].mode = COMMIT_SCHEDULED;
    m->entry.due_ms = 1800000000000;
    commit_add(s.c, &m->entry, &s.now);
    turn(&s, 1);
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_enq", "1", "{q0}n", WORKER, "5000", "1",
                        ID, ITEM, "S1800000000000", "0", "0", NULL));
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    free(m);
    scene_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_rides_behind_all_deliveries),
        cmocka_unit_test(without_keys_nothing_is_said_of_them),
        cmocka_unit_test(repeats_and_conflicts),
        cmocka_unit_test(a_reply_that_makes_no_sense),
        cmocka_unit_test(shards_share_a_transaction),
        cmocka_unit_test(but_not_in_a_cluster),
        cmocka_unit_test(no_call_without_messages),
        cmocka_unit_test(a_withdrawal_names_the_key),
        cmocka_unit_test(a_repeat_that_comes_too_late),
        cmocka_unit_test(held_back_mail_says_when),
    };
    return cmocka_run_group_tests_name("commit_keys", tests, NULL, NULL);
}
