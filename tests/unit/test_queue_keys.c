/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mail that is sent again under its idempotency key, and mail that waits for its time, in a real
 * Redis: what is queued, what its sender hears, and that no answer of "queued" is ever taken back.
 */
#include "tests/lib/queue_words.h"

#define K    "00112233445566778899aabbccddeeff"
#define KEY  TAG "k:" K
#define D1   "11111111111111111111111111111111"
#define D2   "22222222222222222222222222222222"
#define DAY  "86400000"
#define DONE "[ [ [ ] [ ] [ ] ] OK ]"

/* An item that was accepted just now, by a clock like Redis'. */
static const char *item_now(const char *chunks)
{
    static char texts[4][128];
    static int next;
    char *text = texts[next++ % 4];
    redisReply *r = redisCommand(redis, "TIME");
    snprintf(text, sizeof texts[0], "n\tx.example\t0\t%s000\t9999999999999\t\t%s\t10\t0",
             r->element[0]->str, chunks);
    freeReplyObject(r);
    return text;
}

/* One message under the key K, as the committer queues it. */
static const char *enqueue_keyed(const char *worker, const char *id, const char *item,
                                 const char *mode, const char *chunks, const char *digest)
{
    char record[64];
    snprintf(record, sizeof record, TAG "b:%s", id);
    SAY("MULTI");
    FN("enq", worker, LONG, "1", id, item, mode, "0", chunks, DAY, id, K, digest);
    SAY("SET", record, "record", "XX", "KEEPTTL");
    return SAY("EXEC");
}

static const char *withdraw(const char *worker, const char *id, const char *item, const char *ttl)
{
    char text[256];
    snprintf(text, sizeof text, "%s\n" K " %s", item, ttl);
    return FN("cancel", worker, id, text);
}

/* --- sent again ------------------------------------------------------------------------------ */

static void the_second_hears_of_the_first(void **state)
{
    expect(enqueue_keyed(W1, A, ITEM, "L", "0", D1), DONE);
    expect(SAY("GET", KEY), A " " D1);
    assert_in_range(atol(SAY("PTTL", KEY)), 86300000, 86400000);
    expect(enqueue_keyed(W2, B, ITEM, "L", "0", D1), "[ [ [ ] [ ] [ " B " " A " ] ] nil ]");
    expect(SAY("EXISTS", TAG "b:" B), "0");
    expect_counts(0, 0, 1, 0, 0);
    expect(SAY("HGET", TAG "n", "enqueued"), "1");
    expect(SAY("HGET", TAG "n", "repeated"), "1");
    assert_in_range(atol(SAY("PTTL", KEY)), 86300000, 86400000);
}

static void another_body_is_a_conflict(void **state)
{
    enqueue_keyed(W1, A, ITEM, "L", "0", D1);
    expect(enqueue_keyed(W2, B, ITEM, "L", "0", D2), "[ [ [ ] [ ] [ " B "  ] ] nil ]");
    expect(SAY("GET", KEY), A " " D1);
    expect_counts(0, 0, 1, 0, 0);
}

static void a_key_outlives_its_message(void **state)
{
    enqueue_keyed(W1, A, ITEM, "L", "0", D1);
    expect(FN("done", W1, A), "[ ]");
    expect_empty();
    expect(enqueue_keyed(W2, B, ITEM, "L", "0", D1), "[ [ [ ] [ ] [ " B " " A " ] ] nil ]");
    expect_empty();
    SAY("DEL", KEY); /* its time is over */
    expect(enqueue_keyed(W2, B, ITEM, "L", "0", D1), DONE);
}

/* A transaction of unknown fate under its own id: as without a key, and also when it is over. */
static void the_same_batch_again(void **state)
{
    for (int i = 0; i < 3; i++)
        expect(enqueue_keyed(W1, A, ITEM, "L", "0", D1), DONE);
    expect_counts(0, 0, 1, 0, 0);
    FN("release", W1, A);
    FN("claim", W2, LONG, "unb", "9", "9");
    expect(enqueue_keyed(W1, A, ITEM, "L", "0", D1), "[ [ [ ] [ " A " ] [ ] ] OK ]");
    FN("done", W2, A);
    expect(enqueue_keyed(W1, A, ITEM, "L", "0", D1), "[ [ [ ] [ ] [ " A " " A " ] ] nil ]");
    expect_empty();
}

/* Queued, then its key's time ended, another took it, and only now the batch comes again. */
static void a_key_that_passed_on_takes_nothing_along(void **state)
{
    const char *item = ITEM_OF("n", "x.example", "1");
    SAY("SET", TAG "b:" A ":0", "part", "EX", "86400");
    expect(enqueue_keyed(W1, A, item, "L", "1", D1), DONE);
    SAY("DEL", KEY);
    expect(enqueue_keyed(W2, B, ITEM, "L", "0", D1), DONE);
    expect(enqueue_keyed(W1, A, item, "L", "1", D1), DONE);
    expect(SAY("EXISTS", TAG "b:" A ":0"), "1");
    expect_counts(0, 0, 2, 0, 0);
}

static void a_batch_mixes_all_kinds(void **state)
{
    SAY("MULTI");
    FN("enq", W1, LONG, "4", A, ITEM, "L", "0", "0", B "/0", ITEM, "L", "2", "0", B "/1", ITEM, "R",
       "0", "0", C, ITEM, "L", "0", "0", DAY, B, K, D1, C, K, D1);
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("SET", TAG "b:" B, "record", "XX", "KEEPTTL");
    SAY("SET", TAG "b:" C, "record", "XX", "KEEPTTL");
    expect(SAY("EXEC"), "[ [ [ ] [ ] [ " C " " B " ] ] OK OK nil ]");
    expect_counts(1, 0, 2, 0, 0);
    expect(SAY("GET", KEY), B " " D1 " +");
}

/* The first of the batch cannot be queued: the second is not told that it was. */
static void who_was_refused_has_no_key(void **state)
{
    SAY("MULTI");
    FN("enq", W1, LONG, "2", A, ITEM_OF("n", "x.example", "1"), "L", "0", "1", B, ITEM, "L", "0",
       "0", DAY, A, K, D1, B, K, D1);
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("SET", TAG "b:" B, "record", "XX", "KEEPTTL");
    expect(SAY("EXEC"), "[ [ [ " A " ] [ ] [ ] ] nil OK ]");
    expect(SAY("GET", KEY), B " " D1);
}

static void chunks_of_a_repeat_go_at_once(void **state)
{
    const char *item = ITEM_OF("n", "x.example", "2");
    for (int i = 0; i < 2; i++) {
        SAY("SET", TAG "b:" A ":0", "part", "EX", "86400", "NX");
        SAY("SET", TAG "b:" A ":1", "part", "EX", "86400", "NX");
        expect(enqueue_keyed(W1, A, item, "L", "2", D1), DONE);
    }
    static const char *const digests[] = { D1, D2 };
    for (int i = 0; i < 2; i++) {
        SAY("SET", TAG "b:" B ":0", "part", "EX", "86400");
        SAY("SET", TAG "b:" B ":1", "part", "EX", "86400");
        enqueue_keyed(W1, B, item, "L", "2", digests[i]);
        expect(SAY("EXISTS", TAG "b:" B ":0", TAG "b:" B ":1"), "0");
    }
    expect(SAY("EXISTS", TAG "b:" A ":0", TAG "b:" A ":1"), "2");
}

/* --- taken back ------------------------------------------------------------------------------ */

/* Answered 451, taken back, sent again: a new message, not a "queued" without mail. */
static void a_withdrawn_message_leaves_no_key(void **state)
{
    static const char *const modes[] = { "L", "R", "S9999999999999" };
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const char *item = item_now("0");
        SAY("DEL", KEY);
        expect(enqueue_keyed(W1, A, item, modes[i], "0", D1), DONE);
        expect(withdraw(W1, A, item, DAY), "[ ]");
        expect(SAY("EXISTS", KEY), "0");
        expect_empty();
        expect(enqueue_keyed(W2, B, item, "L", "0", D1), DONE);
        expect_counts(0, 0, 1, 0, 0);
        FN("done", W2, B);
    }
}

/* Sent again BEFORE it was taken back: its sender was told that it is queued, so it is delivered.
 */
static void what_was_promised_is_not_withdrawn(void **state)
{
    static const char *const modes[] = { "L", "R", "S1" };
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const char *item = item_now("0");
        SAY("FLUSHALL");
        expect(enqueue_keyed(W1, A, item, modes[i], "0", D1), DONE);
        expect(enqueue_keyed(W2, B, item, "L", "0", D1), "[ [ [ ] [ ] [ " B " " A " ] ] nil ]");
        expect(SAY("GET", KEY), A " " D1 " +");
        expect(withdraw(W1, A, item, DAY), "[ " A " ]");
        FN("tick", "9");
        assert_memory_equal(FN("claim", W2, LONG, "unb", "9", "9"), "[ " A, 22);
        expect(SAY("GET", TAG "b:" A), "record");
        expect(SAY("TTL", TAG "b:" A), "-1");
        expect(FN("done", W2, A), "[ ]");
        expect_empty();
        expect(enqueue_keyed(W2, C, item, "L", "0", D1), "[ [ [ ] [ ] [ " C " " A " ] ] nil ]");
    }
}

/* Others deliver it already: whoever sends it again must hear so. */
static void what_others_deliver_keeps_its_key(void **state)
{
    const char *item = item_now("0");
    enqueue_keyed(W1, A, item, "R", "0", D1);
    FN("claim", W2, LONG, "unb", "9", "9");
    expect(withdraw(W1, A, item, DAY), "[ " A " ]");
    expect(enqueue_keyed(W1, B, item, "L", "0", D1), "[ [ [ ] [ ] [ " B " " A " ] ] nil ]");
    expect(FN("done", W2, A), "[ ]");
    /* ... and also when it is long over. */
    SAY("DEL", TAG "b:" A);
    expect(withdraw(W1, A, item, DAY), "[ " A " ]");
    expect(enqueue_keyed(W1, B, item, "L", "0", D1), "[ [ [ ] [ ] [ " B " " A " ] ] nil ]");
}

/* One destination of three is out of reach: all of the message stays. */
static void a_message_stays_or_goes_as_a_whole(void **state)
{
    const char *item = item_now("0");
    char text[256];
    snprintf(text, sizeof text, "%s\n" K " " DAY, item);
    for (int is_claimed = 0; is_claimed < 2; is_claimed++) {
        SAY("FLUSHALL");
        SAY("MULTI");
        FN("enq", W1, LONG, "3", A "/0", item, "L", "3", "0", A "/1", item, "S9999999999999", "0",
           "0", A "/2", item, "R", "0", "0", DAY, A, K, D1);
        SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
        expect(SAY("EXEC"), DONE);
        if (is_claimed)
            FN("claim", W2, LONG, "unb", "9", "9");
        expect(FN("cancel", W1, A "/0", text, A "/1", text, A "/2", text),
               is_claimed ? "[ " A "/0 " A "/1 " A "/2 ]" : "[ ]");
        if (is_claimed)
            expect_counts(1, 1, 1, 0, 0);
        else
            expect_empty();
        expect(SAY("EXISTS", KEY), is_claimed ? "1" : "0");
    }
}

/* The parts of a withdrawal may go in several calls: what the first decides holds. */
static void a_withdrawal_in_parts(void **state)
{
    const char *item = item_now("0");
    SAY("MULTI");
    FN("enq", W1, LONG, "2", A "/0", item, "L", "2", "0", A "/1", item, "L", "0", "0", DAY, A, K,
       D1);
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("EXEC");
    expect(withdraw(W1, A "/0", item, DAY), "[ ]");
    expect(enqueue_keyed(W2, B, item, "L", "0", D1), DONE); /* in between: a new message */
    expect(withdraw(W1, A "/1", item, DAY), "[ ]");
    expect(SAY("GET", KEY), B " " D1); /* the other's key is not ours to take */
    expect_counts(0, 0, 1, 0, 0);
    FN("done", W2, B);
    expect_empty();
}

/* The withdrawal overtook the transaction: that never happens, and has no key. */
static void withdrawn_before_it_came(void **state)
{
    const char *item = item_now("0");
    expect(withdraw(W1, A, item, DAY), "[ " A " ]");
    expect(enqueue_keyed(W1, A, item, "L", "0", D1), "[ [ [ " A " ] [ ] [ ] ] OK ]");
    expect(SAY("EXISTS", KEY), "0");
    expect(enqueue_keyed(W2, B, item, "L", "0", D1), DONE);
}

/* Cut off for longer than a key lives: nobody knows whether it was promised, so it is delivered. */
static void when_nobody_knows_it_stays(void **state)
{
    const char *long_ago = "n\tx.example\t0\t1000\t9999999999999\t\t0\t10\t0";
    enqueue_keyed(W1, A, long_ago, "L", "0", D1);
    enqueue_keyed(W2, B, long_ago, "L", "0", D1);
    SAY("DEL", KEY); /* its time is over */
    expect(withdraw(W1, A, long_ago, DAY), "[ " A " ]");
    expect_counts(1, 0, 0, 0, 0);
    expect(SAY("GET", TAG "b:" A), "record");
}

/* --- mail that waits ------------------------------------------------------------------------- */

static void held_back_mail_waits_for_its_time(void **state)
{
    expect(enqueue(W1, LONG, A, ITEM, "S9999999999999", "0"), "[ [ [ ] [ ] ] OK ]");
    expect(enqueue(W1, LONG, B, ITEM, "S1000", "0"), "[ [ [ ] [ ] ] OK ]");
    expect(SAY("ZSCORE", TAG "t", A), "9999999999999");
    expect_counts(0, 2, 0, 0, 0);
    expect(enqueue(W1, LONG, A, ITEM, "S9999999999999", "0"), "[ [ [ ] [ ] ] OK ]");
    expect_counts(0, 2, 0, 0, 0);
    expect(SAY("ZCARD", TAG "hb"), "0"); /* no lease is taken for it */
    expect(FN("tick", "9"), "[ 1 0 1 ]");
    expect(FN("claim", W1, LONG, "unb", "9", "9"), "[ " B " " ITEM " ]");
    expect(SAY("GET", TAG "b:" A), "record");
    FN("done", W1, B);
    /* "retry all" is for what failed; this one waits for its own time, or its own name. */
    expect(FN("kick", "*"), "0");
    expect(FN("kick", A), "1");
    expect(FN("tick", "9"), "[ 1 0 1 ]");
    expect(FN("drop", A), "[ 1 0 ]");
    expect_empty();
}

static void held_back_for_a_route_that_holds(void **state)
{
    enqueue(W1, LONG, A, ITEM_OF("n", "!kept", "0"), "S1", "0");
    expect(FN("tick", "9"), "[ 1 0 0 ]");
    expect_counts(0, 0, 0, 1, 0);
}

/* More than a page of it in front of what waits for a retry. */
static void retries_are_found_behind_held_back_mail(void **state)
{
    char id[32];
    for (int i = 0; i < 1500; i++) {
        snprintf(id, sizeof id, "m%019d", i);
        FN("enq", W1, LONG, "1", id, ITEM, "S8888888888888", "0", "0");
    }
    enqueue(W1, LONG, A, ITEM, "L", "0");
    FN("retry", W1, A, "9000000000000", TRIED);
    expect(FN("kick", "*"), "1");
    expect(FN("kick", "*"), "0");
    expect(FN("tick", "9"), "[ 1 0 1 ]");
    expect_counts(1, 1500, 0, 0, 0);
}

static void held_back_mail_is_withdrawn(void **state)
{
    enqueue(W1, LONG, A, ITEM, "S9999999999999", "0");
    expect(FN("cancel", W1, A, TRIED), "[ " A " ]"); /* another item: it was tried since */
    expect(FN("cancel", W1, A, ITEM), "[ ]");
    expect_empty();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        row(the_second_hears_of_the_first),
        row(another_body_is_a_conflict),
        row(a_key_outlives_its_message),
        row(the_same_batch_again),
        row(a_key_that_passed_on_takes_nothing_along),
        row(a_batch_mixes_all_kinds),
        row(who_was_refused_has_no_key),
        row(chunks_of_a_repeat_go_at_once),
        row(a_withdrawn_message_leaves_no_key),
        row(what_was_promised_is_not_withdrawn),
        row(what_others_deliver_keeps_its_key),
        row(a_message_stays_or_goes_as_a_whole),
        row(a_withdrawal_in_parts),
        row(withdrawn_before_it_came),
        row(when_nobody_knows_it_stays),
        row(held_back_mail_waits_for_its_time),
        row(held_back_for_a_route_that_holds),
        row(retries_are_found_behind_held_back_mail),
        row(held_back_mail_is_withdrawn),
    };
    return cmocka_run_group_tests_name("queue_keys", tests, start_server, stop_server);
}
