/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of kilat.lua in a real Redis: what each move does to the keys, who may make it, and
 * what is left when a message is over.
 */
#include "tests/lib/queue_words.h"

/* --- one delivery's life --------------------------------------------------------------------- */

static void born_leased_and_done(void **state)
{
    expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ [ [ ] [ ] ] OK ]");
    expect(SAY("HGET", TAG "w:" W1, A), ITEM);
    expect(SAY("GET", TAG "b:" A), "record");
    expect_counts(0, 0, 1, 0, 0);
    expect(FN("done", W1, A), "[ ]");
    expect(FN("done", W1, A, B), "[ " A " " B " ]"); /* only what was leased */
    expect_empty();
}

static void ready_is_claimed_oldest_first(void **state)
{
    enqueue(W1, LONG, A, ITEM, "R", "0");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    expect_counts(2, 0, 0, 0, 0);
    expect(FN("claim", W2, LONG, "unb", "1", "64", "1"), "[ " A " " ITEM " ]");
    expect(FN("claim", W2, LONG, "unb", "9", "64", "2"), "[ " B " " ITEM " ]");
    expect(FN("claim", W2, LONG, "unb", "9", "64", "3"), "[ ]");
    expect(FN("done", W1, A), "[ " A " ]"); /* fenced: it is another's */
    expect(FN("done", W2, A, B), "[ ]");
    expect_empty();
}

/* A backlog of bulk mail for the same destination is not looked at before what is better. */
static void lanes_are_claimed_in_order_and_number(void **state)
{
    static const char *const bulk = ITEM_OF("b", "x.example", "0");
    enqueue(W1, LONG, "k0000000000000000001", bulk, "R", "0");
    enqueue(W1, LONG, "k0000000000000000002", bulk, "R", "0");
    enqueue(W1, LONG, "k0000000000000000003", bulk, "R", "0");
    enqueue(W1, LONG, A, ITEM, "R", "0");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    enqueue(W1, LONG, C, ITEM_OF("u", "x.example", "0"), "R", "0");
    expect(FN("claim", W2, LONG, "u9n1b1", "9", "9"),
           "[ " C " " ITEM_OF("u", "x.example",
                              "0") " " A " " ITEM
                                   " k0000000000000000001 " ITEM_OF("b", "x.example", "0") " ]");
    expect(FN("claim", W2, LONG, "u9n0", "9", "9"), "[ ]");
    expect(FN("claim", W2, LONG, "u9b9n9", "2", "9"),
           "[ k0000000000000000002 " ITEM_OF(
               "b", "x.example", "0") " k0000000000000000003 " ITEM_OF("b", "x.example", "0") " ]");
    expect(FN("claim", W2, LONG, "u9b9n9", "2", "9"), "[ " B " " ITEM " ]");
}

#define OF(tenant) "n\tx.example\t0\t1000\t5000\t" tenant "\t0\t10\t0"

/* Ready deliveries of one tenant, with ids "<letter>0..." and so on. */
static void fill(char letter, const char *item, int count)
{
    char id[QUEUE_ID_LEN + 1];
    for (int i = 0; i < count; i++) {
        snprintf(id, sizeof id, "%c%019d", letter, i);
        enqueue(W1, LONG, id, item, "R", "0");
    }
}

/* The first letters of the ids that a claim of so many gives. */
static const char *claim_letters(const char *max)
{
    static char letters[128];
    size_t n = 0;
    redisReply *r =
        redisCommand(redis, "FCALL kilat_claim 1 " TAG "n " W2 " " LONG " unb %s %s", max, max);
    for (size_t i = 0; i < r->elements; i += 2)
        letters[n++] = r->element[i]->str[0];
    letters[n] = 0;
    freeReplyObject(r);
    return letters;
}

/* A long list of one does not delay the others, whoever came first. */
static void tenants_take_turns(void **state)
{
    fill('a', OF("acme"), 20);
    fill('b', OF("bell"), 3);
    fill('z', ITEM, 3); /* nobody's mail is one of them */
    assert_string_equal(claim_letters("8"), "zabzabza");
    assert_string_equal(claim_letters("4"), "baaa");
    enqueue(W1, LONG, "b1000000000000000000", OF("bell"), "R", "0");
    enqueue(W1, LONG, "b2000000000000000000", OF("bell"), "R", "0");
    assert_string_equal(claim_letters("4"), "abab"); /* it saved nothing up */
    expect_counts(12, 0, 16, 0, 0);
    expect(FN("bye", W2), "16");
    expect_counts(28, 0, 0, 0, 0);
    assert_int_equal(strlen(claim_letters("64")), 28);
    expect(SAY("KEYS", TAG "v:*"), "[ ]");
}

static void turns_are_as_long_as_weights(void **state)
{
    const char *letters;
    int of_a = 0;
    expect(FN("weights", "acme", "30", "bell", "5"), "1");
    fill('a', OF("acme"), 60);
    fill('b', OF("bell"), 60);
    letters = claim_letters("35");
    for (size_t i = 0; letters[i]; i++)
        of_a += letters[i] == 'a';
    assert_int_equal(of_a, 30);
    expect(FN("weights"), "1"); /* all are usual now */
    expect(SAY("EXISTS", TAG "tw"), "0");
}

/* What operators do they do to all lists of a destination. */
static void tenants_are_held_and_withdrawn_too(void **state)
{
    fill('a', OF("acme"), 2);
    enqueue(W1, LONG, B, OF("bell"), "R", "0");
    expect(FN("hold", "x.example", "*"), "1");
    enqueue(W1, LONG, C, ITEM, "R", "0");
    expect_counts(0, 0, 0, 4, 0);
    assert_string_equal(claim_letters("9"), "");
    expect(FN("strays", "r:n:x.example", "r:n:x.example acme", "r:n:x.example bell"), "[ ]");
    expect(SAY("ZREM", TAG "v:n:x.example", "acme"), "1");
    expect(FN("strays", "r:n:x.example", "r:n:x.example acme"), "[ r:n:x.example acme ]");
    expect(SAY("ZADD", TAG "v:n:x.example", "0", "acme"), "1");
    expect(FN("suspects", B), "[ [ " B " 1 1 1 ] ]");
    expect(FN("find", B), "[ [ held " B " " OF("bell") " x.example ] ]");
    expect(FN("cancel", W1, B, OF("bell")), "[ ]");
    expect(SAY("ZRANGE", TAG "v:n:x.example", "0", "-1"), "[  acme ]");
    expect(FN("drop", C), "[ 1 0 ]");
    expect(FN("free", "x.example"), "3"); /* of the lanes, two of which are empty */
    assert_string_equal(claim_letters("9"), "aa");
    expect(SAY("KEYS", TAG "d:*"), "[ ]");
}

/* Lists that were filled before there were turns. */
static void a_list_without_a_turn_gets_one(void **state)
{
    fill('a', ITEM, 3);
    expect(SAY("DEL", TAG "v:n:x.example"), "1");
    expect(FN("hold", "x.example", "n"), "1");
    expect(FN("free", "x.example"), "1");
    expect(SAY("ZCARD", TAG "d:n"), "1");
    fill('b', OF("bell"), 3);
    expect_counts(6, 0, 0, 0, 0);
    assert_int_equal(strlen(claim_letters("9")), 6);
}

static void retry_comes_back_when_due(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W1, LONG, B, ITEM, "L", "0");
    expect(FN("retry", W1, A, "0", "n\tx.example\t1\t1000\t5000\t\t0\t10\t0", B, "3600000", ITEM, C,
              "5", ITEM),
           "[ " C " ]");
    expect_counts(0, 2, 0, 0, 0);
    expect(FN("tick", "100"), "[ 1 0 1 ]");
    expect_counts(1, 1, 0, 0, 0);
    expect(FN("claim", W1, LONG, "unb", "9", "64"),
           "[ " A " n\tx.example\t1\t1000\t5000\t\t0\t10\t0 ]");
    expect(FN("kick", B), "1");
    expect(FN("kick", B), "0");
    expect(FN("tick", "100"), "[ 1 0 1 ]");
    expect(FN("claim", W1, LONG, "unb", "9", "64"), "[ " B " " ITEM " ]");
    expect(FN("done", W1, A, B), "[ ]");
    expect_empty();
}

static void events_are_told_of_what_is_there(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    expect(FN("accepted", W1, "1000", A, "{\"a\":1}", B, "{\"b\":1}"), "1");
    expect(FN("tell", W1, "1000", A, "{\"c\":1}"), "[ ]");
    expect(SAY("XLEN", TAG "e"), "2");
    expect(SAY("HGET", TAG "n", "event_octets"), "142");
    expect(SAY("HGET", TAG "n", "events"), "2");
    expect(FN("drop", A), "[ 0 1 ]"); /* it is being delivered */
    expect(SAY("XLEN", TAG "e"), "2");
    expect(FN("release", W1, A), "[ ]");
    expect(FN("drop", A), "[ 1 0 ]");
    expect(SAY("XLEN", TAG "e"), "3");
    expect(SAY("DEL", TAG "e"), "1");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    expect(FN("drop", B), "[ 1 0 ]");
    expect(SAY("EXISTS", TAG "e"), "0"); /* nobody wants them */
}

static void events_keep_to_their_budget(void **state)
{
    for (int i = 0; i < 100; i++)
        expect(FN("tell", W1, "5000", A, "0123456789012345678901234567890123456"), "[ ]"); /* 101 */
    const char *len = SAY("XLEN", TAG "e");
    assert_in_range(strtol(len, NULL, 10), 40, 49);
    assert_in_range(strtol(SAY("HGET", TAG "n", "event_octets"), NULL, 10), 4000, 5000);
    assert_int_equal(strtol(SAY("HGET", TAG "n", "events_trimmed"), NULL, 10) +
                         strtol(SAY("XLEN", TAG "e"), NULL, 10),
                     100);
    expect(FN("tell", W1, "10", A, "{}"), "[ ]"); /* smaller than one: nothing stays */
    expect(SAY("XLEN", TAG "e"), "0");
}

static void release_goes_to_the_front_in_order(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W1, LONG, B, ITEM, "L", "0");
    enqueue(W1, LONG, C, ITEM, "R", "0");
    expect(FN("release", W1, A, B), "[ ]");
    expect(FN("claim", W2, LONG, "unb", "9", "64"),
           "[ " A " " ITEM " " B " " ITEM " " C " " ITEM " ]");
    expect(FN("release", W1, A), "[ " A " ]");
    expect(FN("bye", W2), "3");
    expect(SAY("ZCARD", TAG "hb"), "1"); /* W1 is still there */
    expect_counts(3, 0, 0, 0, 0);
    expect(FN("claim", W1, LONG, "unb", "9", "64"),
           "[ " A " " ITEM " " B " " ITEM " " C " " ITEM " ]");
}

static void the_last_delivery_takes_the_record(void **state)
{
    SAY("MULTI");
    FN("enq", W1, LONG, "3", A "/0", ITEM, "L", "3", "0", A "/1", ITEM_OF("b", "y.example", "0"),
       "R", "0", "0", A "/2", ITEM, "H", "0", "0");
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    expect(SAY("EXEC"), "[ [ [ ] [ ] ] OK ]");
    expect(SAY("HGET", TAG "c", A), "3");
    expect_counts(1, 0, 1, 1, 0);
    expect(FN("done", W1, A "/0"), "[ ]");
    expect(SAY("EXISTS", TAG "b:" A), "1");
    expect(FN("drop", A), "[ 2 0 ]");
    expect(SAY("EXISTS", TAG "b:" A), "0");
    expect(FN("free", "*"), "1"); /* the hold outlives what it held */
    expect_empty();
}

static void chunks_become_permanent_and_go_with_the_record(void **state)
{
    const char *item = ITEM_OF("n", "x.example", "2");
    SAY("SET", TAG "b:" A ":0", "part", "EX", "86400");
    SAY("SET", TAG "b:" A ":1", "part", "EX", "86400");
    expect(enqueue(W1, LONG, A, item, "L", "2"), "[ [ [ ] [ ] ] OK ]");
    expect(SAY("TTL", TAG "b:" A ":0"), "-1");
    expect(SAY("TTL", TAG "b:" A ":1"), "-1");
    expect(FN("done", W1, A), "[ ]");
    expect_empty();
}

static void a_missing_chunk_refuses_the_message(void **state)
{
    const char *item = ITEM_OF("n", "x.example", "2");
    SAY("SET", TAG "b:" A ":0", "part", "EX", "86400");
    SAY("MULTI");
    FN("enq", W1, LONG, "3", A "/0", item, "L", "2", "2", A "/1", item, "R", "0", "2", B, ITEM, "L",
       "0", "0");
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("SET", TAG "b:" B, "record", "XX", "KEEPTTL");
    expect(SAY("EXEC"), "[ [ [ " A " ] [ ] ] nil OK ]");
    expect(SAY("EXISTS", TAG "b:" A), "0"); /* no record without its deliveries */
    expect_counts(0, 0, 1, 0, 0);
    assert_string_not_equal(SAY("TTL", TAG "b:" A ":0"), "-1"); /* it will vanish */
    expect(SAY("EXISTS", TAG "c"), "0");
}

/* Redis was away for longer than a lease. The first word of one of two workers may be a commit, not
 * a heartbeat; it must not make the other one look silent. */
static void nobody_is_reaped_because_redis_was_away(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W2, LONG, B, ITEM, "L", "0");
    SAY("ZADD", TAG "hb", "1", W1, "1", W2); /* both leases ended long ago */
    enqueue(W1, LONG, C, ITEM, "L", "0");
    expect(FN("tick", "100"), "[ 0 0 0 ]");
    expect(FN("beat", W2, LONG), "1");
    expect(FN("done", W2, B), "[ ]");
}

/* --- sent again ------------------------------------------------------------------------------ */

static void enqueueing_twice_is_enqueueing_once(void **state)
{
    for (int i = 0; i < 3; i++) {
        expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ [ [ ] [ ] ] OK ]");
        expect(enqueue(W1, LONG, B, ITEM, "R", "0"), "[ [ [ ] [ ] ] OK ]");
        expect(enqueue(W1, LONG, C, ITEM, "H", "0"), "[ [ [ ] [ ] ] OK ]");
        expect_counts(2, 0, 1, 0, 0); /* the held one shares its destination with a ready one */
    }
    expect(SAY("HGET", TAG "n", "enqueued"), "3");
}

static void half_of_a_batch_may_be_there_already(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    SAY("MULTI");
    FN("enq", W1, LONG, "2", A, ITEM, "L", "0", "0", B, ITEM, "L", "0", "0");
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("SET", TAG "b:" B, "record", "XX", "KEEPTTL");
    expect(SAY("EXEC"), "[ [ [ ] [ ] ] OK OK ]");
    expect_counts(0, 0, 2, 0, 0);
    expect(SAY("HGET", TAG "n", "enqueued"), "2");
}

static void a_lease_that_passed_on_is_told(void **state)
{
    enqueue(W1, "1", A, ITEM, "L", "0");
    usleep(3000);
    expect(FN("tick", "100"), "[ 0 1 1 ]");
    expect(FN("claim", W2, LONG, "unb", "9", "64"), "[ " A " " ITEM " ]");
    expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ [ [ ] [ " A " ] ] OK ]");
    expect_counts(0, 0, 1, 0, 0);
}

/* Function not found inside EXEC does not stop the SET; XX does. */
static void without_the_library_nothing_is_stored(void **state)
{
    expect(SAY("FUNCTION", "DELETE", "kilat"), "OK");
    expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ ERR Function not found nil ]");
    expect(SAY("DBSIZE"), "0");
    redisReply *r = redisCommand(redis, "FUNCTION LOAD %b", queue_lua, queue_lua_len);
    expect(text_of(r), "kilat");
    expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ [ [ ] [ ] ] OK ]");
}

static void withdrawn_from_wherever_it_is(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    expect(FN("cancel", W1, A, ITEM, B, ITEM), "[ ]");
    expect_empty();
    /* Claimed by another meanwhile: too late, it will be delivered. */
    enqueue(W1, LONG, A, ITEM, "R", "0");
    FN("claim", W2, LONG, "unb", "9", "64");
    expect(FN("cancel", W1, A, ITEM), "[ " A " ]");
    expect(SAY("GET", TAG "b:" A), "record");
    expect(SAY("TTL", TAG "b:" A), "-1");
}

/* The cancel overtook the transaction, whose octets were still in a dead connection's socket. */
static void withdrawn_before_it_came_it_never_comes(void **state)
{
    expect(FN("cancel", W1, A, ITEM), "[ " A " ]");
    expect(enqueue(W1, LONG, A, ITEM, "L", "0"), "[ [ [ " A " ] [ ] ] OK ]");
    expect_counts(0, 0, 0, 0, 0);
    const char *ttl = SAY("TTL", TAG "b:" A);
    assert_in_range(atol(ttl), 100, 120); /* the mark goes by itself */
}

/* --- leases ---------------------------------------------------------------------------------- */

static void a_silent_worker_is_reaped(void **state)
{
    expect(FN("beat", W1, "1"), "0");
    enqueue(W1, "1", B, ITEM, "L", "0");
    enqueue(W1, "1", A, ITEM, "L", "0");
    enqueue(W2, LONG, C, ITEM, "R", "0");
    usleep(3000);
    expect(FN("tick", "1"), "[ 0 2 1 ]"); /* a page of a small hash comes whole */
    expect_counts(3, 0, 0, 0, 0);
    expect(SAY("ZCARD", TAG "hb"), "0");
    expect(FN("done", W1, A), "[ " A " ]");
    /* In front of what waits, oldest foremost. */
    expect(FN("claim", W2, LONG, "unb", "9", "64"),
           "[ " A " " ITEM " " B " " ITEM " " C " " ITEM " ]");
    expect(SAY("HGET", TAG "n", "reaped"), "2");
}

static void the_reaped_learn_of_it_once(void **state)
{
    enqueue(W1, "1", A, ITEM, "L", "0");
    usleep(3000);
    FN("tick", "100");
    /* It does not know yet, and enqueues more. */
    enqueue(W1, LONG, B, ITEM, "L", "0");
    expect(FN("beat", W1, LONG), "-1");
    expect_counts(2, 0, 0, 0, 0); /* what came since went back too: the worker drops it */
    expect(FN("beat", W1, LONG), "1");
    expect(FN("beat", W1, LONG), "1");
}

static void large_hands_are_emptied_bit_by_bit(void **state)
{
    char id[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(id, sizeof id, "m%019d", i);
        FN("enq", W1, LONG, "1", id, ITEM, "L", "0", "0");
    }
    SAY("ZADD", TAG "hb", "1", W1);
    int calls = 0;
    while (strcmp(SAY("ZCARD", TAG "hb"), "1") == 0) {
        FN("tick", "200");
        assert_true(++calls < 8);
    }
    assert_true(calls >= 3);
    expect_counts(1000, 0, 0, 0, 0);
    expect(SAY("HGET", TAG "n", "reaped"), "1000");
}

/* Redis was away for longer than a lease: whoever is back first must not reap all the others. */
static void nobody_is_reaped_for_redis_own_absence(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W2, LONG, B, ITEM, "L", "0");
    SAY("ZADD", TAG "hb", "1000", W1, "1000", W2);
    expect(FN("beat", W1, LONG), "1");
    expect(FN("tick", "100"), "[ 0 0 0 ]");
    expect(FN("beat", W2, LONG), "1");
    expect_counts(0, 0, 2, 0, 0);
    /* But who stays away is reaped as ever. */
    SAY("ZADD", TAG "hb", "1000", W1);
    expect(FN("tick", "100"), "[ 0 1 1 ]");
}

static void a_claim_asked_again_gives_the_same(void **state)
{
    enqueue(W2, LONG, A, ITEM, "R", "0");
    enqueue(W2, LONG, B, ITEM, "R", "0");
    enqueue(W2, LONG, C, ITEM, "R", "0");
    const char *two = "[ " A " " ITEM " " B " " ITEM " ]";
    expect(FN("claim", W1, LONG, "unb", "2", "64", "5"), two);
    expect(FN("claim", W1, LONG, "unb", "2", "64", "5"), two);
    expect(FN("claim", W1, LONG, "unb", "2", "64", "6"), "[ " C " " ITEM " ]");
    expect(FN("claim", W1, LONG, "unb", "2", "64", "5"), "[ ]"); /* overtaken */
    expect_counts(0, 0, 3, 0, 0);
}

static void destinations_and_lanes_take_turns(void **state)
{
    char id[32];
    for (int i = 0; i < 6; i++) {
        snprintf(id, sizeof id, "m%019d", i);
        enqueue(W2, LONG, id,
                i < 4 ? ITEM_OF("n", "p.example", "0") : ITEM_OF("n", "q.example", "0"), "R", "0");
    }
    enqueue(W2, LONG, A, ITEM_OF("b", "p.example", "0"), "R", "0");
    enqueue(W2, LONG, B, ITEM_OF("u", "z.example", "0"), "R", "0");
    expect(FN("claim", W1, LONG, "unb", "3", "2", "1"),
           "[ " B " " ITEM_OF("u", "z.example", "0") " m0000000000000000000 " ITEM_OF(
               "n", "p.example", "0") " m0000000000000000001 " ITEM_OF("n", "p.example", "0") " ]");
    expect(FN("claim", W1, LONG, "unb", "1", "2", "2"),
           "[ m0000000000000000004 " ITEM_OF("n", "q.example", "0") " ]");
    expect(FN("claim", W1, LONG, "unb", "1", "2", "3"),
           "[ m0000000000000000002 " ITEM_OF("n", "p.example", "0") " ]");
    expect(FN("claim", W1, LONG, "b", "9", "9", "4"),
           "[ " A " " ITEM_OF("b", "p.example", "0") " ]");
    expect(FN("claim", W1, LONG, "unb", "9", "9", "5"),
           "[ m0000000000000000005 " ITEM_OF(
               "n", "q.example", "0") " m0000000000000000003 " ITEM_OF("n", "p.example", "0") " ]");
    expect(SAY("KEYS", TAG "d:*"), "[ ]");
}

/* --- what operators do ----------------------------------------------------------------------- */

static void dead_letters_rest_and_rise(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    expect(FN("dead", W1, A, "550 no\tsuch user", B, "x"), "[ " B " ]");
    expect_counts(0, 0, 0, 0, 1);
    expect(SAY("HGET", TAG "xr", A), "550 no such user\t" ITEM);
    expect(SAY("GET", TAG "b:" A), "record");
    assert_non_null(strstr(FN("find", A), "dead " A " " ITEM " 550 no such user"));
    expect(FN("revive", A), "1");
    expect(FN("revive", A), "0");
    expect_counts(1, 0, 0, 0, 0);
    /* Risen with no attempts behind it, and as much time as it once had. */
    const char *claimed = FN("claim", W1, LONG, "unb", "9", "9");
    assert_non_null(strstr(claimed, "n\tx.example\t0\t1000\t"));
    assert_true(atoll(strstr(claimed, "\t1000\t") + 6) > 1700000000000);
    expect(FN("dead", W1, A, "again"), "[ ]");
    expect(FN("drop", A), "[ 1 0 ]");
    expect_empty();
}

static void a_destination_is_held_and_freed(void **state)
{
    enqueue(W1, LONG, A, ITEM, "R", "0");
    expect(FN("hold", "x.example", "*"), "1");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    enqueue(W1, LONG, C, ITEM, "L", "0");
    FN("release", W1, C);
    expect_counts(0, 0, 0, 3, 0);
    expect(FN("tick", "9"), "[ 0 0 0 ]");
    expect(FN("claim", W1, LONG, "unb", "9", "9"), "[ ]");
    expect(FN("list", "held", "1", "1"), "[ [ " A " " ITEM " x.example ] ]");
    expect(FN("free", "y.example"), "0");
    expect(FN("free", "x.example"), "3");
    expect_counts(3, 0, 0, 0, 0);
    expect(SAY("ZCARD", TAG "d:u"), "0"); /* empty lanes leave no trace */
    expect(FN("claim", W1, LONG, "unb", "9", "9"),
           "[ " C " " ITEM " " A " " ITEM " " B " " ITEM " ]");
}

static void lists_are_read_in_pages(void **state)
{
    enqueue(W1, LONG, A, ITEM, "R", "0");
    enqueue(W1, LONG, B, ITEM_OF("n", "y.example", "0"), "R", "0");
    enqueue(W1, LONG, C, ITEM, "L", "0");
    expect(FN("list", "ready", "0", "9"), "[ [ " A " " ITEM " x.example ] [ " B
                                          " " ITEM_OF("n", "y.example", "0") " y.example ] ]");
    expect(FN("list", "ready", "1", "9"),
           "[ [ " B " " ITEM_OF("n", "y.example", "0") " y.example ] ]");
    expect(FN("list", "ready", "0", "1"), "[ [ " A " " ITEM " x.example ] ]");
    expect(FN("list", "ready", "2", "9"), "[ ]");
    expect(FN("list", "leased", "0", "9"), "[ [ " C " " ITEM " " W1 " ] ]");
    FN("retry", W1, C, "60000", ITEM);
    assert_memory_equal(FN("list", "scheduled", "0", "9"), "[ [ " C " " ITEM " 1", 28);
    expect(FN("list", "nonsense", "0", "9"), "ERR ready, scheduled, leased, held or dead");
}

static void all_of_a_message_is_found_and_dropped(void **state)
{
    SAY("MULTI");
    FN("enq", W1, LONG, "4", A "/0", ITEM, "L", "4", "0", A "/1", ITEM, "L", "0", "0", A "/2", ITEM,
       "L", "0", "0", A "/3", ITEM, "R", "0", "0");
    SAY("SET", TAG "b:" A, "record", "XX", "KEEPTTL");
    SAY("EXEC");
    enqueue(W1, LONG, B, ITEM, "R", "0");
    FN("retry", W1, A "/1", "60000", ITEM);
    FN("dead", W1, A "/2", "why");
    const char *found = FN("find", A);
    assert_non_null(strstr(found, "leased " A "/0"));
    assert_non_null(strstr(found, "scheduled " A "/1"));
    assert_non_null(strstr(found, "dead " A "/2"));
    assert_non_null(strstr(found, "ready " A "/3"));
    assert_null(strstr(found, B));
    assert_non_null(strstr(FN("find", A "/3"), "ready " A "/3"));
    expect(FN("find", C), "[ ]");
    expect(FN("kick", A), "1");
    expect(FN("drop", A "/3"), "[ 1 0 ]");
    expect(FN("drop", A), "[ 2 1 ]");
    expect_counts(1, 0, 1, 0, 0);
    expect(FN("done", W1, A "/0"), "[ ]");
    expect(SAY("EXISTS", TAG "b:" A, TAG "c"), "0");
}

static void everything_scheduled_is_kicked(void **state)
{
    char id[32];
    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "m%019d", i);
        enqueue(W1, LONG, id, ITEM, "L", "0");
        FN("retry", W1, id, "60000", TRIED);
    }
    expect(FN("kick", "*"), "5");
    expect(FN("kick", "*"), "0");
    expect(FN("tick", "100"), "[ 5 0 1 ]");
    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "m%019d", i);
        FN("claim", W1, LONG, "unb", "9", "9");
        FN("dead", W1, id, "why");
    }
    expect(FN("revive", "*"), "5");
    expect(FN("revive", "*"), "0");
    expect_counts(5, 0, 0, 0, 0);
}

static void a_delivery_splits_into_others(void **state)
{
    const char *y = ITEM_OF("n", "y.example", "0"), *z = ITEM_OF("n", "z.example", "0");
    enqueue(W1, LONG, A, ITEM, "L", "0");
    char text[256];
    snprintf(text, sizeof text, "2\n" A "/aaaaaa\t%s\n" A "/bbbbbb\t%s", y, z);
    expect(FN("resplit", W1, A, text, B, text), "[ " B " ]");
    expect(SAY("HGET", TAG "c", A), "2");
    expect_counts(2, 0, 0, 0, 0);
    FN("claim", W1, LONG, "unb", "1", "9");
    snprintf(text, sizeof text, "3\n" A "/cccccc\t%s\n" A "/dddddd\t%s\n" A "/eeeeee\t%s", y, y, z);
    expect(FN("resplit", W1, A "/aaaaaa", text), "[ ]");
    expect(SAY("HGET", TAG "c", A), "4");
    FN("claim", W1, LONG, "unb", "9", "9");
    expect(FN("done", W1, A "/bbbbbb", A "/cccccc", A "/dddddd"), "[ ]");
    expect(SAY("GET", TAG "b:" A), "record");
    expect(FN("done", W1, A "/eeeeee"), "[ ]");
    expect_empty();
    /* To a single other destination: the same id alone. */
    enqueue(W1, LONG, A, ITEM, "L", "0");
    expect(FN("resplit", W1, A, "1\n" A "\t" ITEM_OF("n", "y.example", "0")), "[ ]");
    expect(FN("claim", W1, LONG, "unb", "9", "9"), "[ " A " " ITEM_OF("n", "y.example", "0") " ]");
    expect(FN("done", W1, A), "[ ]");
    expect_empty();
}

/* --- a full Redis ---------------------------------------------------------------------------- */

static void full_refuses_mail_and_still_drains(void **state)
{
    enqueue(W1, LONG, A, ITEM, "L", "0");
    enqueue(W1, LONG, B, ITEM, "L", "0");
    enqueue(W1, LONG, C, ITEM, "R", "0");
    expect(SAY("CONFIG", "SET", "maxmemory", "1mb"), "OK");
    assert_memory_equal(enqueue(W1, LONG, "d0000000000000000000", ITEM, "L", "0"), "EXECABORT", 9);
    /* Inside MULTI everything is refused, what frees memory too: finishes go alone. */
    SAY("MULTI");
    assert_memory_equal(FN("done", W1, A), "OOM", 3);
    assert_memory_equal(SAY("EXEC"), "EXECABORT", 9);
    assert_memory_equal(FN("enq", W1, LONG, "1", "d0000000000000000000", ITEM, "L", "0", "0"),
                        "OOM", 3);
    expect(FN("beat", W1, LONG), "1");
    expect(FN("retry", W1, A, "0", ITEM), "[ ]");
    expect(FN("tick", "9"), "[ 1 0 1 ]");
    expect(FN("claim", W1, LONG, "unb", "9", "9"), "[ " C " " ITEM " " A " " ITEM " ]");
    expect(FN("dead", W1, C, "why"), "[ ]");
    expect(FN("release", W1, B), "[ ]");
    expect(FN("cancel", W1, B, ITEM), "[ ]");
    expect(FN("done", W1, A), "[ ]");
    expect(FN("drop", C), "[ 1 0 ]");
    expect_empty();
    expect(SAY("CONFIG", "SET", "maxmemory", "0"), "OK");
}

/* P-238: with so many, each told once; what an operator wrote stays. */
static void hard_bounces_are_counted(void **state)
{
    expect(FN("hard_bounce", W1, A, "acme\t2\tone\tann@x.example"), "[ ]");
    expect(FN("hard_bounce", W1, A, "acme\t2\tone\tann@x.example"), "[ ]"); /* told again */
    expect(SAY("EXISTS", TAG "s:acme"), "0");
    expect(FN("hard_bounce", W1, B, "acme\t2\ttwo\tann@x.example", B,
              "acme\t1\tfirst\tbob@x.example", B, "other\t1\tgone\tann@x.example", B, "nonsense"),
           "[ ]");
    expect(SAY("HGET", TAG "s:acme", "ann@x.example"), "two");
    expect(SAY("HGET", TAG "s:acme", "bob@x.example"), "first");
    expect(SAY("HLEN", TAG "s:other"), "1");
    expect(FN("hard_bounce", W1, C, "acme\t1\tlater\tann@x.example"), "[ ]");
    expect(SAY("HGET", TAG "s:acme", "ann@x.example"), "two");
    redisReply *r = redisCommand(redis, "KEYS " TAG "h:*");
    assert_int_equal(r->elements, 0);
    freeReplyObject(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        row(born_leased_and_done),
        row(ready_is_claimed_oldest_first),
        row(lanes_are_claimed_in_order_and_number),
        row(tenants_take_turns),
        row(turns_are_as_long_as_weights),
        row(tenants_are_held_and_withdrawn_too),
        row(a_list_without_a_turn_gets_one),
        row(retry_comes_back_when_due),
        row(events_are_told_of_what_is_there),
        row(events_keep_to_their_budget),
        row(release_goes_to_the_front_in_order),
        row(the_last_delivery_takes_the_record),
        row(chunks_become_permanent_and_go_with_the_record),
        row(a_missing_chunk_refuses_the_message),
        row(nobody_is_reaped_because_redis_was_away),
        row(enqueueing_twice_is_enqueueing_once),
        row(half_of_a_batch_may_be_there_already),
        row(a_lease_that_passed_on_is_told),
        row(without_the_library_nothing_is_stored),
        row(withdrawn_from_wherever_it_is),
        row(withdrawn_before_it_came_it_never_comes),
        row(a_silent_worker_is_reaped),
        row(the_reaped_learn_of_it_once),
        row(large_hands_are_emptied_bit_by_bit),
        row(nobody_is_reaped_for_redis_own_absence),
        row(a_claim_asked_again_gives_the_same),
        row(destinations_and_lanes_take_turns),
        row(dead_letters_rest_and_rise),
        row(a_destination_is_held_and_freed),
        row(lists_are_read_in_pages),
        row(all_of_a_message_is_found_and_dropped),
        row(everything_scheduled_is_kicked),
        row(a_delivery_splits_into_others),
        row(full_refuses_mail_and_still_drains),
        row(hard_bounces_are_counted),
    };
    return cmocka_run_group_tests_name("queue_redis", tests, start_server, stop_server);
}
