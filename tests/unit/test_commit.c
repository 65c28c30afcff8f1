/* SPDX-License-Identifier: Apache-2.0 */
/* The group commit against a scripted Redis: what goes out, when, and what each answer leads to. */
#include "tests/lib/commit_scene.h"

/* --- one message ----------------------------------------------------------------------------- */

static void a_message_is_one_transaction(void **state)
{
    struct scene s;
    scene_init(&s, 16);
    struct mail *m = add(&s, 1);
    assert_int_equal(commit_wake_ms(s.c, &s.now), 0);
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(s.redis.count, 4);
    assert_true(fake_is(unanswered(&s, 0), "MULTI", NULL));
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_enq", "1", "{q0}n", WORKER, "5000", "1",
                        "m0000000000000000001", "n\td0.example\t0\t1000\t2000\t\t0\t100\t0", "L",
                        "0", "0", NULL));
    const struct fake_command *set = unanswered(&s, 2);
    assert_true(fake_is(set, "SET", "{q0}b:m0000000000000000001", NULL));
    assert_true(slice_eq(set->argv[3], SLICE("XX")) && slice_eq(set->argv[4], SLICE("KEEPTTL")));
    struct slice record = set->argv[2];
    assert_memory_equal(record.ptr, "K1", 2);
    for (size_t i = record.len - 100; i < record.len; i++)
        assert_int_equal(record.ptr[i], 'b');
    assert_true(fake_is(unanswered(&s, 3), "EXEC", NULL));
    assert_int_equal(m->calls, 0);
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    assert_int_equal(m->entry.shard, 0);
    assert_int_equal(commit_pending(s.c), 0);
    assert_int_equal(metrics_get(&s.metrics, METRIC_COMMIT_BATCHES_TOTAL), 1);
    assert_int_equal(metrics_get(&s.metrics, METRIC_COMMIT_MESSAGES_TOTAL), 1);
    free(m);
    scene_done(&s);
}

static void each_destination_is_a_delivery(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    struct mail *m = mail_new(7, 10, 40000);
    m->entry.target_count = 3;
    m->targets[1].mode = COMMIT_READY;
    m->targets[2].mode = COMMIT_HELD;
    commit_add(s.c, &m->entry, &s.now);
    turn(&s, 1);
    const struct slice *argv = unanswered(&s, 1)->argv;
    static const char *const want[] = {
        "3", "m0000000000000000007/0", "n\td0.example\t0\t1000\t2000\t\t0\t10\t0", "L", "3",
        "0", "m0000000000000000007/1", "n\td1.example\t0\t1000\t2000\t\t0\t10\t0", "R", "0",
        "0", "m0000000000000000007/2", "n\td2.example\t0\t1000\t2000\t\t0\t10\t0", "H", "0",
        "0"
    };
    assert_int_equal(unanswered(&s, 1)->argc, 6 + ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_true(slice_eq(argv[6 + i], slice_str(want[i])));
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    free(m);
    scene_done(&s);
}

/* --- the rule -------------------------------------------------------------------------------- */

static void one_batch_in_flight_or_two_when_busy(void **state)
{
    struct scene s;
    struct mail *m[6];
    scene_init(&s, 16);
    m[0] = add(&s, 0);
    assert_int_equal(turn(&s, COMMIT_BUSY_SESSIONS - 1), 1);
    m[1] = add(&s, 1);
    m[2] = add(&s, 2);
    assert_int_equal(turn(&s, COMMIT_BUSY_SESSIONS - 1), 0);
    assert_int_equal(turn(&s, COMMIT_BUSY_SESSIONS), 1);
    m[3] = add(&s, 3);
    assert_int_equal(turn(&s, COMMIT_BUSY_SESSIONS), 0);
    fake_exec(&s.redis, NULL);
    expect_verdict(m[0], SMTP_QUEUED);
    assert_int_equal(m[1]->calls, 0);
    assert_int_equal(turn(&s, COMMIT_BUSY_SESSIONS - 1), 0);
    fake_exec(&s.redis, NULL);
    expect_verdict(m[1], SMTP_QUEUED);
    expect_verdict(m[2], SMTP_QUEUED);
    assert_int_equal(m[2]->entry.shard, 1); /* shards take turns, a batch each */
    assert_int_equal(turn(&s, 1), 1);
    fake_exec(&s.redis, NULL);
    assert_int_equal(m[3]->entry.shard, 2);
    for (int i = 0; i < 4; i++)
        free(m[i]);
    scene_done(&s);
}

/* Adds `count` messages of `size`, sends one batch; returns how many messages it had. */
static uint32_t batch_of(uint32_t count, size_t size)
{
    struct scene s;
    struct mail **m = mem_zalloc(count * sizeof *m);
    scene_init(&s, 16);
    for (uint32_t i = 0; i < count; i++) {
        m[i] = mail_new(i, size, 100000);
        commit_add(s.c, &m[i]->entry, &s.now);
    }
    s.is_slow = true;
    assert_int_equal(turn(&s, 1), 1);
    assert_true(s.redis.out.part_count <= 1000);
    fake_take(&s.redis);
    uint32_t n = (uint32_t)fake_transaction(&s.redis) - 1;
    fake_lose(&s.redis);
    scene_done(&s);
    for (uint32_t i = 0; i < count; i++)
        free(m[i]);
    free(m);
    return n;
}

static void batches_have_a_number(void **state)
{
    assert_int_equal(batch_of(300, 100), COMMIT_MESSAGES_MAX);
    uint32_t large = batch_of(20, 100 * 1024); /* 1 MiB, envelopes too */
    assert_int_equal(large, 10);
    assert_int_equal(batch_of(3, 3 * 1024 * 1024), 1); /* one alone may be larger */
    uint32_t cut = batch_of(256, 3900);                /* two segments each: parts are bounded */
    assert_true(cut > 200 && cut < 256);
}

/* --- finishes -------------------------------------------------------------------------------- */

static void finishes_wait_five_ms_or_sixty_four(void **state)
{
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 16);
    commit_finish(s.c, finish_new(&w, FINISH_DONE, 3, 1), &s.now);
    assert_int_equal(turn(&s, 1), 0);
    assert_int_equal(commit_wake_ms(s.c, &s.now), s.now.mono_ms + COMMIT_FINISH_DELAY_MS);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(s.redis.count, 1); /* no MULTI: one call is one fsync anyhow */
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_done", "1", "{q3}n", WORKER,
                        "f0000000000000000001", NULL));
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(w.calls, 1);
    for (uint32_t i = 0; i < COMMIT_FINISH_COUNT; i++) {
        assert_int_equal(turn(&s, 1), 0);
        commit_finish(s.c, finish_new(&w, FINISH_DONE, 3, i), &s.now);
    }
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(unanswered(&s, 0)->argc, 5 + COMMIT_FINISH_COUNT);
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(w.calls, 1 + COMMIT_FINISH_COUNT);
    assert_int_equal(commit_pending(s.c), 0);
    scene_done(&s);
}

/* Whoever is told first may hear twice; nothing ends untold. */
static void events_go_before_what_they_tell_of(void **state)
{
    struct scene s;
    struct work w[300] = { 0 };
    scene_init(&s, 2);
    commit_finish(s.c, finish_new(&w[0], FINISH_DONE, 1, 0), &s.now);
    for (uint32_t i = 1; i < 300; i += 2) {
        commit_finish(s.c, finish_new(&w[i], FINISH_EVENT, 1, i), &s.now);
        if (i + 1 < 300)
            commit_finish(s.c, finish_new(&w[i + 1], FINISH_DONE, 1, i), &s.now);
    }
    struct mail *m = add(&s, 1);
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(fake_transaction(&s.redis), 4);
    const struct fake_command *told = unanswered(&s, 3), *done = unanswered(&s, 4);
    assert_true(fake_is(told, "FCALL", "kilat_tell", "1", "{q1}n", WORKER, "0",
                        "f0000000000000000001", "text", NULL));
    assert_int_equal(told->argc, 6 + 2 * 150);
    assert_true(fake_is(done, "FCALL", "kilat_done", "1", "{q1}n", WORKER, NULL));
    assert_int_equal(done->argc, 5 + 256 - 150);
    const char *const replies[] = { NULL, NULL, "*0\r\n", "*0\r\n" };
    fake_exec(&s.redis, replies);
    expect_verdict(m, SMTP_QUEUED);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(unanswered(&s, 0)->argc, 5 + 149 + 1 - (256 - 150));
    fake_answer(&s.redis, "*0\r\n");
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(w[i].calls, 1);
    free(m);
    scene_done(&s);
}

static void a_message_is_told_of_in_its_transaction(void **state)
{
    struct scene s;
    scene_init(&s, 16);
    struct mail *m = mail_new(7, 10, 40000);
    m->entry.event = SLICE("{}");
    commit_add(s.c, &m->entry, &s.now);
    struct mail *quiet = add(&s, 1);
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(fake_transaction(&s.redis), 4);
    assert_true(fake_is(unanswered(&s, 4), "FCALL", "kilat_accepted", "1", "{q0}n", WORKER, "0",
                        "m0000000000000000007", "{}", NULL));
    const char *const replies[] = { NULL, NULL, NULL, ":1\r\n" };
    fake_exec(&s.redis, replies);
    expect_verdict(m, SMTP_QUEUED);
    expect_verdict(quiet, SMTP_QUEUED);
    free(quiet);
    free(m);
    m = mail_new(8, 10, 40000); /* what cannot be told harms nothing */
    m->entry.event = SLICE("{}");
    commit_add(s.c, &m->entry, &s.now);
    assert_int_equal(turn(&s, 1), 1);
    const char *const error[] = { NULL, NULL, "-ERR no such function\r\n" };
    fake_exec(&s.redis, error);
    expect_verdict(m, SMTP_QUEUED);
    free(m);
    scene_done(&s);
}

static void finishes_ride_with_the_next_messages(void **state)
{
    struct scene s;
    struct work w[5] = { 0 };
    scene_init(&s, 2);
    commit_finish(s.c, finish_new(&w[0], FINISH_DONE, 1, 0), &s.now);
    commit_finish(s.c, finish_new(&w[1], FINISH_RETRY, 0, 1), &s.now);
    commit_finish(s.c, finish_new(&w[2], FINISH_DONE, 1, 2), &s.now);
    commit_finish(s.c, finish_new(&w[3], FINISH_RELEASE, 1, 3), &s.now);
    commit_finish(s.c, finish_new(&w[4], FINISH_DEAD, 0, 4), &s.now);
    struct mail *m = add(&s, 1);
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(fake_transaction(&s.redis), 6);
    assert_true(fake_is(unanswered(&s, 3), "FCALL", "kilat_retry", "1", "{q0}n", WORKER,
                        "f0000000000000000001", "60000", "text", NULL));
    assert_true(fake_is(unanswered(&s, 4), "FCALL", "kilat_dead", "1", "{q0}n", WORKER,
                        "f0000000000000000004", "text", NULL));
    assert_true(fake_is(unanswered(&s, 5), "FCALL", "kilat_done", "1", "{q1}n", WORKER,
                        "f0000000000000000000", "f0000000000000000002", NULL));
    assert_true(fake_is(unanswered(&s, 6), "FCALL", "kilat_release", "1", "{q1}n", WORKER,
                        "f0000000000000000003", NULL));
    const char *const replies[] = { NULL, NULL, NULL, NULL, "*1\r\n$20\r\nf0000000000000000002\r\n",
                                    NULL };
    fake_exec(&s.redis, replies);
    expect_verdict(m, SMTP_QUEUED);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(w[i].calls, 1);
        assert_int_equal(w[i].was_lost, i == 2);
    }
    free(m);
    scene_done(&s);
}

static void in_a_cluster_only_the_same_shard_rides(void **state)
{
    struct scene s;
    struct work w[2] = { 0 };
    scene_init(&s, 2);
    commit_free(s.c);
    struct commit_config cfg = { .shards = 2, .is_clustered = true, .lease_ms = 5000 };
    cfg.metrics = &s.metrics;
    s.c = commit_new(&cfg);
    commit_finish(s.c, finish_new(&w[0], FINISH_DONE, 0, 0), &s.now);
    commit_finish(s.c, finish_new(&w[1], FINISH_DONE, 1, 1), &s.now);
    struct mail *m = add(&s, 1);
    turn(&s, 1);
    assert_int_equal(fake_transaction(&s.redis), 3);
    fake_exec(&s.redis, NULL);
    assert_int_equal(w[0].calls, 1);
    assert_int_equal(w[1].calls, 0);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(w[1].calls, 1);
    free(m);
    scene_done(&s);
}

/* --- company --------------------------------------------------------------------------------- */

static struct mail *add_with(struct scene *s, uint32_t number, struct work *w)
{
    struct mail *m = mail_new(number, 50, INT64_MAX);
    m->entry.shard = 1;
    list_push_back(&m->entry.with, &finish_new(w, FINISH_DONE, 1, number)->node);
    commit_add(s->c, &m->entry, &s->now);
    return m;
}

static void a_bounce_and_what_it_reports_are_one(void **state)
{
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 4);
    struct mail *m = add_with(&s, 9, &w);
    turn(&s, 1);
    assert_int_equal(fake_transaction(&s.redis), 3);
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_enq", "1", "{q1}n", NULL));
    assert_true(fake_is(unanswered(&s, 3), "FCALL", "kilat_done", "1", "{q1}n", WORKER,
                        "f0000000000000000009", NULL));
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    assert_int_equal(w.calls, 1);
    assert_true(w.order < m->order);
    assert_int_equal(commit_pending(s.c), 0);
    free(m);
    scene_done(&s);
}

static void company_is_tried_until_it_is_durable(void **state)
{
    static const char *const enq_fails[] = { "-ERR Function not found\r\n", "$-1\r\n",
                                             "-ERR Function not found\r\n" };
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 4);
    struct mail *m = add_with(&s, 9, &w);
    for (int round = 0; round < 4; round++) {
        s.now.mono_ms += 1000;
        assert_int_equal(turn(&s, 1), 1);
        assert_int_equal(fake_transaction(&s.redis), 3);
        if (round == 0)
            fake_abort(&s.redis, "-OOM command not allowed\r\n");
        else if (round == 1)
            fake_abort(&s.redis, "-READONLY replica\r\n");
        else if (round == 2)
            fake_exec(&s.redis, enq_fails);
        else {
            fake_lose(&s.redis);
            commit_link_up(s.c);
        }
        assert_int_equal(m->calls + w.calls, 0);
        assert_int_equal(commit_pending(s.c), 1);
    }
    s.now.mono_ms += 1000;
    turn(&s, 1);
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    assert_int_equal(w.calls, 1);
    assert_int_equal(commit_pending(s.c), 0);
    free(m);
    scene_done(&s);
}

/* The message was refused at run time, its company was not: it must not be given up now. */
static void half_done_company_is_completed(void **state)
{
    static const char *const half[] = { "-WRONGTYPE corrupt\r\n", "$-1\r\n", NULL };
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 4);
    struct mail *m = add_with(&s, 9, &w);
    turn(&s, 1);
    fake_exec(&s.redis, half);
    assert_int_equal(w.calls, 1);
    assert_int_equal(m->calls, 0);
    s.now.mono_ms += 1000;
    turn(&s, 1);
    assert_int_equal(fake_transaction(&s.redis), 2); /* the message only */
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    free(m);
    scene_done(&s);
}

/* --- a lost link ----------------------------------------------------------------------------- */

static void unknown_fate_is_sent_again_to_the_same_shard(void **state)
{
    struct scene s;
    struct mail *m[3];
    struct work w = { 0 };
    scene_init(&s, 16);
    m[0] = add(&s, 0);
    turn(&s, 64);
    m[1] = add(&s, 1);
    commit_finish(s.c, finish_new(&w, FINISH_DONE, 5, 1), &s.now);
    turn(&s, 64);
    fake_lose(&s.redis);
    m[2] = add(&s, 2);
    assert_int_equal(turn(&s, 64), 0);
    assert_int_equal(m[0]->calls + m[1]->calls, 0);
    commit_link_up(s.c);
    assert_int_equal(turn(&s, 64), 1);
    assert_int_equal(fake_transaction(&s.redis), 6);
    for (size_t call = 1; call <= 2; call++) {
        const struct slice *argv = unanswered(&s, call)->argv;
        bool is_first = slice_eq(argv[3], SLICE("{q0}n"));
        assert_true(is_first || slice_eq(argv[3], SLICE("{q1}n")));
        assert_true(slice_eq(argv[7], is_first ? SLICE("m0000000000000000000")
                                               : SLICE("m0000000000000000001")));
    }
    fake_exec(&s.redis, NULL);
    for (int i = 0; i < 3; i++)
        expect_verdict(m[i], SMTP_QUEUED);
    assert_int_equal(m[0]->entry.shard, 0);
    assert_int_equal(m[1]->entry.shard, 1);
    assert_int_equal(w.calls, 1);
    for (int i = 0; i < 3; i++)
        free(m[i]);
    scene_done(&s);
}

/* done was executed before the link broke: that nothing is there the second time is no lost lease.
 */
static void a_finish_sent_twice_is_not_called_lost(void **state)
{
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 16);
    commit_finish(s.c, finish_new(&w, FINISH_DONE, 5, 1), &s.now);
    s.now.mono_ms += 10;
    turn(&s, 1);
    fake_lose(&s.redis);
    commit_link_up(s.c);
    s.now.mono_ms += 10;
    turn(&s, 1);
    fake_answer(&s.redis, "*1\r\n$20\r\nf0000000000000000001\r\n");
    assert_int_equal(w.calls, 1);
    assert_false(w.was_lost);
    scene_done(&s);
}

static void a_lease_that_passed_on_is_not_ours(void **state)
{
    static const char *const elsewhere[] = { "*2\r\n*0\r\n*1\r\n$22\r\nm0000000000000000007/2\r\n",
                                             NULL };
    struct scene s;
    scene_init(&s, 4);
    struct mail *m = mail_new(7, 10, 40000);
    m->entry.target_count = 3;
    commit_add(s.c, &m->entry, &s.now);
    turn(&s, 1);
    fake_exec(&s.redis, elsewhere);
    expect_verdict(m, SMTP_QUEUED);
    assert_int_equal(m->targets[0].mode, COMMIT_LEASED);
    assert_int_equal(m->targets[1].mode, COMMIT_LEASED);
    assert_int_equal(m->targets[2].mode, COMMIT_READY);
    free(m);
    scene_done(&s);
}

/* Redis answers while the batch is still being sent (the output points at the message), and the
 * owner lets go of the message with the answer. */
static void octets_outlive_the_answer_until_they_are_sent(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    s.is_slow = true;
    struct mail *m = add(&s, 1);
    turn(&s, 1);
    fake_say(&s.redis, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n*2\r\n*0\r\n*0\r\n+OK\r\n");
    expect_verdict(m, SMTP_QUEUED);
    fake_take(&s.redis); /* reads every octet */
    commit_sent(s.c, s.last);
    /* And the other way round. */
    struct mail *n = add(&s, 2);
    turn(&s, 1);
    fake_take(&s.redis);
    commit_sent(s.c, s.last);
    fake_say(&s.redis, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n*2\r\n*0\r\n*0\r\n+OK\r\n");
    expect_verdict(n, SMTP_QUEUED);
    free(m);
    free(n);
    scene_done(&s);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static void never_sent_is_simply_dropped(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    struct mail *m[2] = { add(&s, 0), NULL };
    turn(&s, 1);
    m[1] = add(&s, 1);
    m[1]->entry.deadline_ms = s.now.mono_ms + 30000;
    fake_exec(&s.redis, NULL);
    /* Redis takes nothing for thirty seconds: not even a transaction begins. */
    struct mail *late = add(&s, 2);
    s.now.mono_ms += 30000;
    commit_tick(s.c, &s.now);
    expect_verdict(m[1], SMTP_NOT_QUEUED);
    expect_verdict(late, SMTP_NOT_QUEUED);
    assert_int_equal(commit_pending(s.c), 0);
    assert_int_equal(turn(&s, 1), 0);
    assert_int_equal(commit_wake_ms(s.c, &s.now), INT64_MAX);
    free(m[0]);
    free(m[1]);
    free(late);
    scene_done(&s);
}

static void in_flight_is_answered_and_withdrawn(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    s.is_slow = true;
    struct mail *m = add(&s, 1), *other = NULL;
    turn(&s, 1);
    s.now.mono_ms += 29999;
    turn(&s, 1);
    assert_int_equal(m->calls, 0);
    assert_int_equal(commit_age_ms(s.c, &s.now), 29999);
    s.now.mono_ms += 1;
    other = add(&s, 2);
    turn(&s, 1);
    expect_verdict(m, SMTP_NOT_QUEUED);
    free(m);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    s.is_slow = false;
    turn(&s, 64);              /* the message's octets are read here: they are still there */
    fake_exec(&s.redis, NULL); /* it was durable after all */
    assert_int_equal(commit_pending(s.c), 2);
    assert_int_equal(fake_transaction(&s.redis), 3);
    assert_true(fake_is(unanswered(&s, 3), "FCALL", "kilat_cancel", "1", "{q0}n", WORKER,
                        "m0000000000000000001", "n\td0.example\t0\t1000\t2000\t\t0\t100\t0", NULL));
    fake_exec(&s.redis, NULL);
    expect_verdict(other, SMTP_QUEUED);
    assert_int_equal(commit_pending(s.c), 0);
    free(other);
    scene_done(&s);
}

static void unknown_fate_is_withdrawn_when_redis_is_back(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    struct mail *m = add(&s, 1);
    turn(&s, 1);
    fake_lose(&s.redis);
    s.now.mono_ms += 30000;
    assert_int_equal(commit_wake_ms(s.c, &s.now), s.now.mono_ms);
    turn(&s, 1);
    expect_verdict(m, SMTP_NOT_QUEUED);
    commit_link_up(s.c);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", "1", "{q0}n", NULL));
    fake_answer(&s.redis, "*1\r\n$20\r\nm0000000000000000001\r\n");
    assert_int_equal(m->calls, 1);
    assert_int_equal(commit_pending(s.c), 0);
    free(m);
    scene_done(&s);
}

static void deadlines_come_in_any_order(void **state)
{
    static const int64_t deadlines[] = { 30, 10, 20, 40, 10, 25 };
    struct scene s;
    struct mail *m[6];
    scene_init(&s, 4);
    fake_lose(&s.redis);
    for (uint32_t i = 0; i < 6; i++) {
        m[i] = mail_new(i, 10, s.now.mono_ms + deadlines[i]);
        commit_add(s.c, &m[i]->entry, &s.now);
    }
    for (int64_t t = 1; t <= 40; t++) {
        s.now.mono_ms++;
        commit_tick(s.c, &s.now);
        for (uint32_t i = 0; i < 6; i++)
            assert_int_equal(m[i]->calls, t >= deadlines[i]);
    }
    for (uint32_t i = 0; i < 6; i++)
        free(m[i]);
    scene_done(&s);
}

/* --- refusals -------------------------------------------------------------------------------- */

static void a_full_redis_is_452_and_still_drains(void **state)
{
    static const char *const errors[] = {
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n", NULL
    };
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 4);
    struct mail *m = add(&s, 1);
    commit_finish(s.c, finish_new(&w, FINISH_DONE, 2, 1), &s.now);
    turn(&s, 1);
    assert_int_equal(fake_transaction(&s.redis), 3);
    fake_abort(&s.redis, errors[0]);
    expect_verdict(m, SMTP_QUEUE_FULL);
    assert_int_equal(w.calls, 0);
    struct mail *n = add(&s, 2);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 2); /* the message; the finish, alone, without MULTI */
    assert_int_equal(fake_transaction(&s.redis), 2);
    fake_abort(&s.redis, errors[0]);
    expect_verdict(n, SMTP_QUEUE_FULL);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_done", NULL));
    fake_answer(&s.redis, "*0\r\n");
    assert_int_equal(w.calls, 1);
    assert_int_equal(commit_pending(s.c), 0);
    free(m);
    free(n);
    scene_done(&s);
}

static void refused_is_tried_again_until_the_deadline(void **state)
{
    static const char *const errors[] = {
        "-READONLY You can't write against a read only replica.\r\n",
        "-MISCONF Errors writing to the AOF file\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-CLUSTERDOWN The cluster is down\r\n"
    };
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        struct scene s;
        scene_init(&s, 4);
        struct mail *m = add(&s, 1);
        uint32_t tries = 0;
        int64_t pause = 0, start = s.now.mono_ms;
        while (m->calls == 0) {
            int64_t before = s.now.mono_ms;
            if (turn(&s, 1)) {
                fake_abort(&s.redis, errors[i]);
                tries++;
                pause = 0;
            }
            int64_t wake = commit_wake_ms(s.c, &s.now);
            assert_true(m->calls || (wake > before && wake - before <= 1000));
            s.now.mono_ms++;
            pause++;
        }
        expect_verdict(m, SMTP_NOT_QUEUED);
        assert_int_equal(s.now.mono_ms - start, 30001);
        assert_in_range(tries, 30, 36);           /* 50, 100, ... 800 ms, then every second */
        assert_int_equal(commit_pending(s.c), 0); /* it never happened: nothing to withdraw */
        free(m);
        scene_done(&s);
    }
}

static void a_missing_library_is_waited_for(void **state)
{
    static const char *const missing[] = { "-ERR Function not found\r\n", "$-1\r\n",
                                           "-ERR Function not found\r\n" };
    struct scene s;
    struct work w = { 0 };
    scene_init(&s, 4);
    struct mail *m = add(&s, 1);
    commit_finish(s.c, finish_new(&w, FINISH_DONE, 0, 1), &s.now);
    turn(&s, 1);
    fake_exec(&s.redis, missing);
    assert_int_equal(m->calls + w.calls, 0);
    assert_int_equal(turn(&s, 1), 0);
    s.now.mono_ms += 50;
    assert_int_equal(turn(&s, 1), 1);
    fake_exec(&s.redis, NULL);
    expect_verdict(m, SMTP_QUEUED);
    assert_int_equal(w.calls, 1);
    free(m);
    scene_done(&s);
}

/* What an error inside an executed transaction leads to, for the message and for a withdrawal. */
static void errors_inside_are_noticed(void **state)
{
    static const struct {
        const char *enq, *set;
        enum smtp_verdict want;
        bool is_withdrawn;
    } rows[] = {
        { "-WRONGTYPE Operation against a key\r\n", "$-1\r\n", SMTP_NOT_QUEUED, true },
        { "-ERR user_function: script error\r\n", "+OK\r\n", SMTP_NOT_QUEUED, true },
        { ":1\r\n", "+OK\r\n", SMTP_NOT_QUEUED, true },
        { "*1\r\n*0\r\n", "+OK\r\n", SMTP_NOT_QUEUED, true },
        { NULL, "-NOPERM no permissions\r\n", SMTP_NOT_QUEUED, true },
        { NULL, "-OOM command not allowed\r\n", SMTP_NOT_QUEUED, true },
        { NULL, "$-1\r\n", SMTP_NOT_QUEUED, true },
        /* Its chunks are gone: nothing was queued, no record was made. */
        { "*2\r\n*1\r\n$20\r\nm0000000000000000001\r\n*0\r\n", "$-1\r\n", SMTP_NOT_QUEUED, false },
        { "-OOM allow-oom flag is not set on the function\r\n", "$-1\r\n", SMTP_QUEUE_FULL, false },
        { NULL, NULL, SMTP_QUEUED, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scene s;
        const char *const replies[] = { rows[i].enq, rows[i].set };
        scene_init(&s, 4);
        struct mail *m = add(&s, 1);
        turn(&s, 1);
        fake_exec(&s.redis, replies);
        expect_verdict(m, rows[i].want);
        s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
        assert_int_equal(turn(&s, 1), rows[i].is_withdrawn);
        if (rows[i].is_withdrawn) {
            assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", NULL));
            fake_answer(&s.redis, "*0\r\n");
        }
        assert_int_equal(commit_pending(s.c), 0);
        free(m);
        scene_done(&s);
    }
}

/* Refused now, but an earlier try may have been stored: 452, and taken back. */
static void full_after_unknown_is_withdrawn(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    struct mail *m = add(&s, 1);
    turn(&s, 1);
    fake_lose(&s.redis);
    commit_link_up(s.c);
    turn(&s, 1);
    fake_abort(&s.redis, "-OOM command not allowed\r\n");
    expect_verdict(m, SMTP_QUEUE_FULL);
    s.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    assert_int_equal(turn(&s, 1), 1);
    assert_true(fake_is(unanswered(&s, 0), "FCALL", "kilat_cancel", NULL));
    fake_answer(&s.redis, "*0\r\n");
    free(m);
    scene_done(&s);
}

static void a_message_that_cannot_be_an_item_is_answered(void **state)
{
    struct scene s;
    scene_init(&s, 4);
    struct mail *bad = mail_new(1, 10, 40000), *good = NULL;
    snprintf(bad->targets[0].dest, DEST_KEY_MAX, "has space");
    commit_add(s.c, &bad->entry, &s.now);
    good = add(&s, 2);
    assert_int_equal(turn(&s, 1), 1);
    expect_verdict(bad, SMTP_NOT_QUEUED);
    fake_exec(&s.redis, NULL);
    expect_verdict(good, SMTP_QUEUED);
    free(bad);
    free(good);
    scene_done(&s);
}

static void chunked_messages_stay_in_their_shard(void **state)
{
    struct scene s;
    struct mail *m[4];
    scene_init(&s, 8);
    for (uint32_t i = 0; i < 4; i++) {
        m[i] = mail_new(i, 10, 40000);
        m[i]->entry.shard = i % 2 ? 6 : COMMIT_ANY_SHARD;
        m[i]->entry.message->chunk_count = i % 2 ? 3 : 0;
        commit_add(s.c, &m[i]->entry, &s.now);
    }
    assert_int_equal(turn(&s, 1), 1);
    assert_int_equal(fake_transaction(&s.redis), 5); /* those of shard 6, and any */
    assert_true(fake_is(unanswered(&s, 1), "FCALL", "kilat_enq", "1", "{q6}n", NULL));
    assert_true(slice_eq(unanswered(&s, 1)->argv[11], SLICE("3")));
    fake_exec(&s.redis, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        expect_verdict(m[i], SMTP_QUEUED);
        assert_int_equal(m[i]->entry.shard, 6);
        free(m[i]);
    }
    scene_done(&s);
}

/* --- everything at once ---------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t chance(uint32_t bound)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % bound;
}

static void answer_something(struct scene *s)
{
    static const char *const errors[] = { "-OOM no\r\n", "-READONLY no\r\n", "-LOADING no\r\n" };
    static const char *const broken[64] = { "-WRONGTYPE no\r\n" };
    static const char *const missing[64] = { "-ERR Function not found\r\n" };
    if (s->redis.answered == s->redis.count)
        return;
    if (!fake_is(unanswered(s, 0), "MULTI", NULL)) {
        fake_answer(&s->redis, chance(4) ? "*0\r\n" : "-ERR Function not found\r\n");
        return;
    }
    uint32_t what = chance(8);
    if (what < 3)
        fake_abort(&s->redis, errors[what]);
    else if (fake_transaction(&s->redis) <= 64 && what < 5)
        fake_exec(&s->redis, what == 3 ? broken : missing);
    else
        fake_exec(&s->redis, NULL);
}

/* Whatever happens in whatever order: every message and every finish is answered exactly once, and
 * nothing stays inside. ASan watches the octets. */
static void storm(uint64_t start)
{
    enum { MAILS = 200, WORKS = 200 };
    struct scene s;
    struct mail *m[MAILS] = { 0 };
    struct work w[WORKS] = { 0 };
    uint32_t mails = 0, works = 0;
    seed = start;
    uint16_t shards = (uint16_t)(1 + chance(5));
    scene_init(&s, shards);
    for (int step = 0; step < 2000; step++) {
        uint32_t what = step < 1200 ? chance(10) : 4 + chance(6);
        s.now.mono_ms += chance(30);
        if (what < 2 && mails < MAILS) {
            m[mails] = mail_new(mails, chance(6000), s.now.mono_ms + chance(3000));
            m[mails]->entry.target_count = 1 + chance(3);
            if (chance(6) == 0 && works < WORKS) {
                m[mails]->entry.shard = 0;
                list_push_back(&m[mails]->entry.with,
                               &finish_new(&w[works], FINISH_DONE, 0, 1000 + works)->node);
                works++;
            } else if (chance(3) == 0) {
                m[mails]->entry.message->has_key = true;
                m[mails]->entry.message->key[31] = (uint8_t)chance(256);
            }
            commit_add(s.c, &m[mails]->entry, &s.now);
            mails++;
        } else if (what < 4 && works < WORKS) {
            enum commit_finish_kind kind = (enum commit_finish_kind)chance(FINISH_KINDS);
            commit_finish(s.c, finish_new(&w[works], kind, (uint16_t)chance(shards), works),
                          &s.now);
            works++;
        } else if (what < 7) {
            s.is_slow = chance(3) == 0;
            turn(&s, chance(64));
        } else if (what < 9) {
            fake_take(&s.redis);
            commit_sent(s.c, s.last);
            answer_something(&s);
        } else if (chance(6) == 0) {
            fake_take(&s.redis);
            fake_lose(&s.redis);
            commit_sent(s.c, s.last);
            commit_link_up(s.c);
        }
        if (step % 50 == 0 && s.redis.answered == s.redis.count && s.redis.out.octets == 0)
            fake_forget(&s.redis);
    }
    for (int calm = 0; calm < 400 && commit_pending(s.c) > 0; calm++) {
        s.is_slow = false;
        s.now.mono_ms += 100;
        fake_take(&s.redis);
        turn(&s, 64);
        while (s.redis.answered < s.redis.count) {
            if (fake_is(unanswered(&s, 0), "MULTI", NULL))
                fake_exec(&s.redis, NULL);
            else
                fake_answer(&s.redis, "*0\r\n");
        }
        fake_forget(&s.redis);
    }
    assert_int_equal(commit_pending(s.c), 0);
    for (uint32_t i = 0; i < mails; i++) {
        assert_int_equal(m[i]->calls, 1);
        free(m[i]);
    }
    for (uint32_t i = 0; i < works; i++)
        assert_int_equal(w[i].calls, 1);
    scene_done(&s);
}

static void every_one_is_answered_once_in_any_storm(void **state)
{
    for (uint64_t start = 1; start <= 60; start++)
        storm(start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_one_transaction),
        cmocka_unit_test(each_destination_is_a_delivery),
        cmocka_unit_test(one_batch_in_flight_or_two_when_busy),
        cmocka_unit_test(batches_have_a_number),
        cmocka_unit_test(finishes_wait_five_ms_or_sixty_four),
        cmocka_unit_test(finishes_ride_with_the_next_messages),
        cmocka_unit_test(in_a_cluster_only_the_same_shard_rides),
        cmocka_unit_test(a_bounce_and_what_it_reports_are_one),
        cmocka_unit_test(company_is_tried_until_it_is_durable),
        cmocka_unit_test(half_done_company_is_completed),
        cmocka_unit_test(unknown_fate_is_sent_again_to_the_same_shard),
        cmocka_unit_test(a_finish_sent_twice_is_not_called_lost),
        cmocka_unit_test(a_lease_that_passed_on_is_not_ours),
        cmocka_unit_test(octets_outlive_the_answer_until_they_are_sent),
        cmocka_unit_test(never_sent_is_simply_dropped),
        cmocka_unit_test(in_flight_is_answered_and_withdrawn),
        cmocka_unit_test(unknown_fate_is_withdrawn_when_redis_is_back),
        cmocka_unit_test(deadlines_come_in_any_order),
        cmocka_unit_test(a_full_redis_is_452_and_still_drains),
        cmocka_unit_test(refused_is_tried_again_until_the_deadline),
        cmocka_unit_test(events_go_before_what_they_tell_of),
        cmocka_unit_test(a_message_is_told_of_in_its_transaction),
        cmocka_unit_test(a_missing_library_is_waited_for),
        cmocka_unit_test(errors_inside_are_noticed),
        cmocka_unit_test(full_after_unknown_is_withdrawn),
        cmocka_unit_test(a_message_that_cannot_be_an_item_is_answered),
        cmocka_unit_test(chunked_messages_stay_in_their_shard),
        cmocka_unit_test(every_one_is_answered_once_in_any_storm),
    };
    return cmocka_run_group_tests_name("commit", tests, NULL, NULL);
}
