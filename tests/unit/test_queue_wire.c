/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The committer and the claimer on a real Redis, over blocking sockets: a message's life as the
 * gateway lives it, and what happens to it when links break and workers fall silent.
 */
#include "tests/lib/queue_gateway.h"

/* --- cases ----------------------------------------------------------------------------------- */

static void accepted_delivered_forgotten(void **state)
{
    struct gateway g;
    struct mail *m[50];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 50; i++)
        m[i] = mail_new(&g, i, 10240, 1 + i % 2, COMMIT_LEASED);
    assert_int_equal(commit_all(&g), 1);
    assert_int_equal(g.held_count, 75);
    assert_int_equal(there(5), 75);
    assert_int_equal(keys_like("*}b:*"), 50);
    finish_held(&g, FINISH_DONE);
    assert_int_equal(commit_all(&g), 1);
    assert_int_equal(finished, 75);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(m[i]->verdict, SMTP_QUEUED);
        free(m[i]);
    }
    gateway_done(&g);
}

static void retried_claimed_and_read_back(void **state)
{
    struct gateway g;
    struct mail *m[100];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 100; i++) {
        m[i] = mail_new(&g, i, 5000 + i, 1, i % 2 ? COMMIT_LEASED : COMMIT_READY);
        if (i % 10 == 9)
            commit_all(&g); /* over all shards */
    }
    finish_held(&g, FINISH_RETRY);
    commit_all(&g);
    assert_int_equal(there(1), 50);
    assert_int_equal(there(3), 50);
    claim_all(&g, 30);
    assert_int_equal(g.held_count, 30); /* never more than there is room for */
    claim_all(&g, 1000);
    assert_int_equal(g.held_count, 100);
    list_for_each (node, &g.held) {
        const struct delivery *d = list_entry(node, struct delivery, node);
        uint32_t number = (uint32_t)atoi(d->id + 1);
        assert_int_equal(d->message->body.len, 5000 + number);
        assert_int_equal(d->attempts, number % 2);
        assert_int_equal(d->rcpt_count, 2);
        assert_string_equal(d->dest, "d0.example");
    }
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    for (uint32_t i = 0; i < 100; i++)
        free(m[i]);
    gateway_done(&g);
}

static void two_gateways_share_and_one_falls_silent(void **state)
{
    struct gateway a, b;
    struct mail *m[20];
    gateway_init(&a, "aaaaaaaaaaaaaaaa", 1000);
    gateway_init(&b, "bbbbbbbbbbbbbbbb", 1000);
    for (uint32_t i = 0; i < 20; i++) {
        m[i] = mail_new(&a, i, 1000, 2, COMMIT_LEASED);
        if (i % 5 == 4)
            commit_all(&a);
    }
    claim_all(&a, 0);
    assert_true(claim_lease_is_live(a.claimer, 0, &a.now));
    claim_all(&b, 100);
    assert_int_equal(b.held_count, 0);
    for (int beat = 0; beat < 3; beat++) { /* a says nothing for longer than its lease */
        usleep(450000);
        claim_all(&b, 100);
    }
    assert_int_equal(b.held_count, 40);
    assert_int_equal(metrics_get(&b.metrics, METRIC_REAPED_TOTAL), 40);
    /* a comes back: its lease is not live, Redis tells it why, and what it ends is lost. */
    a.now.mono_ms += 1350;
    assert_false(claim_lease_is_live(a.claimer, 0, &a.now));
    finish_held(&a, FINISH_DONE);
    commit_all(&a);
    assert_int_equal(finished_lost, 40);
    claim_all(&a, 0);
    assert_int_equal(a.lost_shards, SHARDS);
    finish_held(&b, FINISH_DONE);
    commit_all(&b);
    assert_int_equal(finished, 80);
    assert_int_equal(finished_lost, 40);
    expect_nothing_left();
    for (uint32_t i = 0; i < 20; i++)
        free(m[i]);
    gateway_done(&a);
    gateway_done(&b);
}

/* The link breaks with a batch in flight that had been executed: sent again, nothing doubles. */
static void a_broken_link_doubles_nothing(void **state)
{
    struct gateway g;
    struct mail *m[10];
    uint64_t number;
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 10; i++)
        m[i] = mail_new(&g, i, 2000, 1, i < 5 ? COMMIT_LEASED : COMMIT_READY);
    assert_true(commit_next(g.committer, &g.commits.link, 1, &g.commits.out, &g.now, &number));
    wire_send(&g.commits);
    commit_sent(g.committer, number);
    for (int i = 0; i < 500 && there(1) + there(5) < 10; i++)
        usleep(2000);
    assert_int_equal(there(1) + there(5), 10);
    redis_link_lost(&g.commits.link);
    close(g.commits.fd);
    assert_int_equal(m[0]->calls, 0);
    wire_connect(&g.commits);
    commit_link_up(g.committer);
    assert_int_equal(commit_all(&g), 1);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(m[i]->calls, 1);
        assert_int_equal(m[i]->verdict, SMTP_QUEUED);
        free(m[i]);
    }
    assert_int_equal(there(1), 5);
    assert_int_equal(there(5), 5);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    claim_all(&g, 100);
    assert_int_equal(g.held_count, 5);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    expect_nothing_left();
    gateway_done(&g);
}

/* Answered 451 while Redis was out of reach, although the transaction had run: taken back. */
static void what_was_refused_is_not_delivered(void **state)
{
    struct gateway g;
    uint64_t number;
    gateway_init(&g, "1111111111111111", 5000);
    struct mail *m[2] = { mail_new(&g, 1, 2000, 2, COMMIT_LEASED),
                          mail_new(&g, 2, 2000, 1, COMMIT_READY) };
    assert_true(commit_next(g.committer, &g.commits.link, 1, &g.commits.out, &g.now, &number));
    wire_send(&g.commits);
    commit_sent(g.committer, number);
    for (int i = 0; i < 500 && there(1) + there(5) < 3; i++)
        usleep(2000);
    redis_link_lost(&g.commits.link);
    close(g.commits.fd);
    g.now.mono_ms += 30000;
    commit_tick(g.committer, &g.now);
    assert_int_equal(m[0]->verdict, SMTP_NOT_QUEUED);
    assert_int_equal(m[1]->verdict, SMTP_NOT_QUEUED);
    wire_connect(&g.commits);
    commit_link_up(g.committer);
    commit_all(&g);
    expect_nothing_left();
    assert_int_equal(commit_pending(g.committer), 0);
    free(m[0]);
    free(m[1]);
    gateway_done(&g);
}

static void a_full_redis_says_452_and_drains(void **state)
{
    struct gateway g;
    struct mail *m[20];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 20; i++)
        m[i] = mail_new(&g, i, 100000, 1, COMMIT_LEASED);
    commit_all(&g);
    simply("CONFIG SET maxmemory 1000000");
    struct mail *refused = mail_new(&g, 77, 1000, 1, COMMIT_LEASED);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(refused->verdict, SMTP_QUEUE_FULL);
    commit_all(&g);
    assert_int_equal(finished, 20);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    struct mail *late = mail_new(&g, 78, 1000, 1, COMMIT_LEASED);
    simply("CONFIG SET maxmemory 0");
    commit_all(&g);
    assert_int_equal(late->verdict, SMTP_QUEUED);
    for (uint32_t i = 0; i < 20; i++)
        free(m[i]);
    free(refused);
    free(late);
    gateway_done(&g);
}

static void a_missing_library_delays_and_loses_nothing(void **state)
{
    struct gateway g;
    gateway_init(&g, "1111111111111111", 5000);
    simply("FUNCTION DELETE kilat");
    struct mail *m = mail_new(&g, 1, 1000, 1, COMMIT_LEASED);
    commit_all(&g);
    assert_int_equal(m->calls, 0);
    assert_int_equal(keys_like("*"), 0);
    load_functions();
    g.now.mono_ms += 1000;
    commit_all(&g);
    assert_int_equal(m->verdict, SMTP_QUEUED);
    assert_int_equal(there(5), 1);
    free(m);
    gateway_done(&g);
}

static void on_chunk(struct redis_request *req, const redisReply *reply)
{
    assert_non_null(reply);
    assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
}

/* Chunk n of a message, in this shard. */
static void put_chunk(struct gateway *g, uint16_t shard, const char *id, uint32_t n)
{
    struct redis_request put;
    struct chain chunk;
    chain_init(&chunk, &g->budget);
    for (int i = 0; i < 10000; i++)
        chain_append(&chunk, SLICE("0123456789"));
    claim_chunk_put(&g->claims.link, &put, on_chunk, shard, id, n, &chunk, &g->claims.out);
    wire_settle(&g->claims);
    chain_done(&chunk);
}

/* A large message: chunks ahead, the end in its record; refused while one is missing. */
static void chunks_travel_beside_the_record(void **state)
{
    struct gateway g;
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t present = 1; present <= 2; present++) {
        struct mail *m = mail_new(&g, present, 100, 1, COMMIT_READY);
        m->entry.message->chunk_count = 2;
        m->entry.message->size = 200100;
        for (uint32_t n = 0; n < present; n++)
            put_chunk(&g, (uint16_t)(present - 1), m->id, n); /* the next batch's shard */
        commit_all(&g);
        assert_int_equal(m->verdict, present == 2 ? SMTP_QUEUED : SMTP_NOT_QUEUED);
        assert_int_equal(there(1), present == 2);
        free(m);
    }
    claim_all(&g, 10);
    assert_int_equal(g.held_count, 1);
    const struct delivery *d = list_entry(g.held.next, struct delivery, node);
    assert_int_equal(d->message->chunk_count, 2);
    assert_int_equal(d->message->size, 200100);
    assert_int_equal(d->message->body.len, 100);
    struct redis_request get;
    claim_chunk_get(&g.claims.link, &get, on_chunk, d->shard, d->message->id, 1, &g.claims.out);
    wire_settle(&g.claims);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(keys_like("*}b:m0000000000000000002*"), 0);
    assert_int_equal(keys_like("*}b:*"), 1); /* the refused one's chunk, until its TTL */
    gateway_done(&g);
}

static void draining_hands_everything_back(void **state)
{
    struct gateway a, b;
    struct mail *m[10];
    gateway_init(&a, "aaaaaaaaaaaaaaaa", 60000);
    gateway_init(&b, "bbbbbbbbbbbbbbbb", 60000);
    for (uint32_t i = 0; i < 10; i++)
        m[i] = mail_new(&a, i, 1000, 1, COMMIT_LEASED);
    commit_all(&a);
    claim_bye(a.claimer, &a.claims.link, &a.claims.out);
    wire_settle(&a.claims);
    assert_true(claim_bye_is_done(a.claimer));
    claim_all(&b, 100);
    assert_int_equal(b.held_count, 10);
    /* In the order in which they came. */
    uint32_t number = 0;
    list_for_each (node, &b.held)
        assert_int_equal(atoi(list_entry(node, struct delivery, node)->id + 1), number++);
    for (uint32_t i = 0; i < 10; i++)
        free(m[i]);
    gateway_done(&a);
    gateway_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        row(accepted_delivered_forgotten),
        row(retried_claimed_and_read_back),
        row(two_gateways_share_and_one_falls_silent),
        row(a_broken_link_doubles_nothing),
        row(what_was_refused_is_not_delivered),
        row(a_full_redis_says_452_and_drains),
        row(a_missing_library_delays_and_loses_nothing),
        row(chunks_travel_beside_the_record),
        row(draining_hands_everything_back),
    };
    return cmocka_run_group_tests_name("queue_wire", tests, start_server, stop_server);
}
