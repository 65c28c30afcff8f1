/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which connection carries which delivery: one case per rule. test_pool_chaos.c shows that
 * the rules hold together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct config_route routes[] = {
    { .name = "*", .pattern = "*", .relay = RELAY_MX },
    { .name = "smart.example", .pattern = "smart.example", .relay = RELAY_SMARTHOST },
    { .name = "held.example", .pattern = "held.example", .relay = RELAY_HOLD },
};
static struct config cfg;
static struct relay_pool *pool;
static struct message *message;
static struct now now;
static uint32_t added;

static const struct rcpt_outcome refused = {
    .stage = OUTCOME_CONNECT, .code = 421, .enhanced = "4.4.1", .text = { "connection refused", 18 }
};

static int start(void **state)
{
    cfg = (struct config){ .routes = routes, .route_count = ARRAY_LEN(routes) };
    cfg.relay.connections_max = 10;
    cfg.relay.per_destination_max = 3;
    cfg.relay.messages_per_connection = 100;
    cfg.relay.idle_timeout_ms = 5000;
    now = (struct now){ .mono_ms = 1000000 };
    added = 0;
    message = message_new(NULL);
    message_add_rcpt(message, SLICE("a@x.example"), SLICE("x.example"));
    pool = relay_pool_new(&cfg);
    return 0;
}

static int stop(void **state)
{
    relay_pool_free(pool);
    message_unref(message);
    return 0;
}

/* --- saying what happens --------------------------------------------------------------------- */

static struct delivery *make(const char *dest, uint16_t shard)
{
    char id[DELIVERY_ID_MAX];
    uint32_t rcpt = 0;
    snprintf(id, sizeof id, "%u", added++);
    return delivery_new(message, id, slice_str(dest), shard, &rcpt, 1);
}

static void add(const char *dest, int count)
{
    while (count-- > 0)
        relay_pool_add(pool, make(dest, 0));
}

static struct relay_action want(enum relay_action_kind kind)
{
    struct relay_action a = relay_pool_next(pool, &now);
    if (a.kind != kind)
        fail_msg("wanted action %d, got %d", (int)kind, (int)a.kind);
    return a;
}

static struct relay_host host_of(uint32_t number)
{
    struct relay_host h = { .addr_len = sizeof(struct sockaddr_in) };
    snprintf(h.name, sizeof h.name, "mx%u.example", number);
    return h;
}

static void hosts(struct relay_dest *dest, uint32_t count, uint32_t ttl_ms)
{
    struct relay_host h[8];
    for (uint32_t i = 0; i < count; i++)
        h[i] = host_of(i);
    relay_pool_resolved(pool, dest, h, count, ttl_ms, NULL, &now);
}

static void no_hosts(struct relay_dest *dest, int code, const char *text)
{
    struct rcpt_outcome o = { .stage = OUTCOME_DNS, .code = code, .text = slice_str(text) };
    relay_pool_resolved(pool, dest, NULL, 0, 0, &o, &now);
}

static struct relay_slot *want_connect(const char *host)
{
    struct relay_action a = want(RELAY_CONNECT);
    assert_string_equal(a.host->name, host);
    assert_string_equal(a.slot->host_name, host);
    return a.slot;
}

/* A destination with one delivery, its hosts known and a connection greeted. */
static struct relay_slot *begin(const char *key, uint32_t host_count)
{
    add(key, 1);
    hosts(want(RELAY_RESOLVE).dest, host_count, 3600000);
    struct relay_slot *slot = want_connect("mx0.example");
    relay_pool_connected(pool, slot, &now);
    return slot;
}

static struct delivery *want_send(struct relay_slot *slot)
{
    struct relay_action a = want(RELAY_SEND);
    assert_ptr_equal(a.slot, slot);
    assert_string_equal(a.delivery->dest, slot->dest->key);
    return a.delivery;
}

static void finish(struct relay_slot *slot, struct delivery *d)
{
    relay_pool_sent(pool, slot, &now);
    delivery_free(d);
}

static void want_defer(enum outcome_stage stage, int code, const char *text)
{
    struct delivery *d = want(RELAY_DEFER).delivery;
    assert_int_equal(d->outcomes[0].stage, stage);
    assert_int_equal(d->outcomes[0].code, code);
    assert_true(slice_eq(d->outcomes[0].text, slice_str(text)));
    delivery_free(d);
}

/* The words are gone after the call: the pool keeps what it needs. */
static void fail_slot(struct relay_slot *slot)
{
    char words[32];
    struct rcpt_outcome o = refused;
    memcpy(words, refused.text.ptr, refused.text.len);
    o.text.ptr = words;
    relay_pool_slot_gone(pool, slot, &o, &now);
    memset(words, 'x', sizeof words);
}

/* The slot's host lacks something for its present delivery. */
static bool misfit(struct relay_slot *slot, struct delivery *d)
{
    relay_pool_sent(pool, slot, &now);
    delivery_fail_open(d, OUTCOME_LOCAL, 552, "5.3.4", SLICE("too large"));
    return relay_pool_misfit(pool, slot, d);
}

/* --- what a host cannot take (P-178) --------------------------------------------------------- */

static void another_host_is_asked_before_it_is_given_up(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    assert_true(misfit(slot, d));
    assert_int_equal(d->outcomes[0].stage, OUTCOME_NONE);
    assert_int_equal(relay_pool_waiting(pool), 1);
    struct relay_slot *other = want_connect("mx1.example");
    add("x.example", 1);
    finish(slot, want_send(slot)); /* the usual host goes on */
    want(RELAY_NOTHING);
    relay_pool_connected(pool, other, &now);
    assert_ptr_equal(want_send(other), d);
    assert_int_equal(other->state, SLOT_DRAINING); /* ordinary mail is not for it */
    finish(other, d);
    assert_ptr_equal(want(RELAY_QUIT).slot, other);
    relay_pool_slot_gone(pool, other, NULL, &now);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_connections(pool), 1);
}

static void what_no_host_takes_is_given_up(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    assert_true(misfit(slot, d));
    struct relay_slot *other = want_connect("mx1.example");
    relay_pool_connected(pool, other, &now);
    assert_ptr_equal(want_send(other), d);
    assert_false(misfit(other, d));
    assert_int_equal(d->outcomes[0].code, 552);
    delivery_free(d);
    assert_int_equal(relay_pool_waiting(pool), 0);
}

/* One connection serves all of them. */
static void misfits_share_a_connection(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d[2];
    add("x.example", 1);
    d[0] = want_send(slot);
    assert_true(misfit(slot, d[0]));
    struct relay_slot *other = want_connect("mx1.example");
    d[1] = want_send(slot);
    assert_true(misfit(slot, d[1]));
    want(RELAY_NOTHING);
    relay_pool_connected(pool, other, &now);
    assert_ptr_equal(want_send(other), d[0]);
    assert_int_equal(other->state, SLOT_BUSY);
    finish(other, d[0]);
    assert_ptr_equal(want_send(other), d[1]);
    finish(other, d[1]);
    assert_ptr_equal(want(RELAY_QUIT).slot, other);
}

/* What a host that is down might have taken comes later, not back. */
static void a_host_that_is_down_defers_it(void **state)
{
    struct relay_slot *slot = begin("x.example", 3);
    struct delivery *d = want_send(slot);
    assert_true(misfit(slot, d));
    fail_slot(want_connect("mx1.example"));
    struct relay_slot *last = want_connect("mx2.example");
    relay_pool_connected(pool, last, &now);
    assert_ptr_equal(want_send(last), d);
    assert_true(misfit(last, d));
    want_defer(OUTCOME_CONNECT, 421, "connection refused");
    assert_ptr_equal(want(RELAY_QUIT).slot, last);
    add("x.example", 1); /* and the destination is as good as before */
    finish(slot, want_send(slot));
}

static void the_last_host_is_down(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    assert_true(misfit(slot, d));
    struct relay_slot *other = want_connect("mx1.example");
    relay_pool_connected(pool, other, &now);
    relay_pool_slot_closing(pool, other);
    relay_pool_slot_gone(pool, other, NULL, &now); /* it greets and hangs up */
    want_defer(OUTCOME_LOST, 421, "the host closes connections before it takes a message");
}

/* Addresses of one name are one host: it is not asked twice. */
static void a_host_has_one_answer(void **state)
{
    struct relay_host h[3] = { host_of(0), host_of(0), host_of(0) };
    add("x.example", 1);
    relay_pool_resolved(pool, want(RELAY_RESOLVE).dest, h, 3, 60000, NULL, &now);
    struct relay_slot *slot = want_connect("mx0.example");
    relay_pool_connected(pool, slot, &now);
    struct delivery *d = want_send(slot);
    assert_false(misfit(slot, d));
    delivery_free(d);
}

static void an_idle_connection_makes_room_for_a_misfit(void **state)
{
    cfg.relay.per_destination_max = 1;
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    add("x.example", 1);
    assert_true(misfit(slot, d));
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    relay_pool_connected(pool, want_connect("mx1.example"), &now);
    assert_ptr_equal(want(RELAY_SEND).delivery, d);
    delivery_free(d);
}

static void a_misfit_waits_for_room_like_others(void **state)
{
    cfg.relay.connections_max = 2;
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    struct relay_slot *y = begin("y.example", 1);
    struct delivery *busy = want_send(y);
    add("x.example", 1);
    assert_true(misfit(slot, d));
    struct delivery *next = want_send(slot);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), INT64_MAX);
    finish(y, busy);
    assert_ptr_equal(want(RELAY_QUIT).slot, y);
    relay_pool_slot_gone(pool, y, NULL, &now);
    want_connect("mx1.example");
    finish(slot, next);
}

static void misfits_are_handed_back_like_others(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    assert_true(misfit(slot, d));
    struct delivery *taken = relay_pool_take_shard(pool, 0);
    assert_ptr_equal(taken, d);
    assert_null(relay_pool_take_shard(pool, 0));
    assert_int_equal(relay_pool_waiting(pool), 0);
    delivery_free(d);
    want(RELAY_NOTHING);

    add("x.example", 2);
    d = want_send(slot);
    assert_true(misfit(slot, d));
    want_connect("mx1.example");
    struct delivery *flying = want_send(slot);
    relay_pool_drain(pool);
    want_defer(OUTCOME_LOCAL, 451, "not tried, shutting down");
    assert_true(misfit(slot, flying)); /* nor is the other host asked now */
    want_defer(OUTCOME_LOCAL, 451, "not tried, shutting down");
}

/* Lists that change all the time end in an answer. */
static void asking_has_an_end(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    for (int i = 0; i < 9; i++) {
        slot->dest->hosts_serial++;
        assert_true(misfit(slot, d));
        assert_ptr_equal(relay_pool_take_shard(pool, 0), d);
        relay_pool_requeue(pool, d);
        slot->dest->hosts_serial = slot->hosts_serial;
        assert_ptr_equal(want_send(slot), d);
    }
    assert_false(misfit(slot, d));
    delivery_free(d);
}

/* --- connections ----------------------------------------------------------------------------- */

static void a_warm_connection_is_used_first(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    for (int i = 0; i < 20; i++) {
        finish(slot, want_send(slot));
        want(RELAY_NOTHING);
        add("x.example", 1);
    }
    assert_int_equal(relay_pool_connections(pool), 1);
    assert_int_equal(relay_pool_waiting(pool), 1);
    add("x.example", 20);
    for (uint32_t i = 20; i < 41; i++) { /* in order */
        struct delivery *d = want_send(slot);
        assert_int_equal(strtoul(d->id, NULL, 10), i);
        finish(slot, d);
    }
}

static void a_destination_is_looked_up_by_its_key(void **state)
{
    add("x.example", 1);
    add("@smart.example", 1);
    add("x.example", 1);
    assert_string_equal(want(RELAY_RESOLVE).dest->key, "x.example"); /* keeps its place */
    struct relay_dest *smart = want(RELAY_RESOLVE).dest;
    assert_string_equal(smart->key, "@smart.example");
    assert_int_equal(smart->route->relay, RELAY_SMARTHOST);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_waiting(pool), 3);
}

/* More than four waiting for each connection that works, connecting ones included. */
static void another_connection_is_opened_when_many_wait(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *first = want_send(slot);
    add("x.example", 4);
    want(RELAY_NOTHING);
    add("x.example", 1);
    struct relay_slot *second = want_connect("mx0.example");
    want(RELAY_NOTHING);
    add("x.example", 3);
    want(RELAY_NOTHING);
    add("x.example", 1); /* nine for two */
    struct relay_slot *third = want_connect("mx0.example");
    add("x.example", 100);
    want(RELAY_NOTHING); /* per_destination_max */
    relay_pool_connected(pool, third, &now);
    delivery_free(want_send(third));
    relay_pool_connected(pool, second, &now);
    delivery_free(want_send(second));
    want(RELAY_NOTHING);
    finish(slot, first);
    delivery_free(want_send(slot));
}

static void a_destination_with_fewer_waiting_gets_its_first_connection(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("y.example", 1);
    struct relay_dest *y = want(RELAY_RESOLVE).dest;
    want(RELAY_NOTHING);
    hosts(y, 2, 1000);
    assert_ptr_equal(want(RELAY_CONNECT).dest, y);
    finish(slot, d);
}

static void an_idle_connection_makes_room(void **state)
{
    cfg.relay.connections_max = 1;
    struct relay_slot *slot = begin("x.example", 1);
    finish(slot, want_send(slot));
    add("y.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    struct relay_action quit = want(RELAY_QUIT);
    assert_ptr_equal(quit.slot, slot);
    want(RELAY_NOTHING); /* one is enough */
    assert_int_equal(relay_pool_wake_ms(pool), INT64_MAX);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    assert_int_equal(relay_pool_wake_ms(pool), 0);
    assert_string_equal(want(RELAY_CONNECT).dest->key, "y.example");
    assert_int_equal(relay_pool_connections(pool), 1);
}

static void one_that_becomes_idle_later_makes_room_too(void **state)
{
    cfg.relay.connections_max = 1;
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("y.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    want(RELAY_NOTHING);
    add("x.example", 1);
    finish(slot, d);
    d = want_send(slot); /* its own mail comes first */
    want(RELAY_NOTHING);
    finish(slot, d);
    assert_int_equal(relay_pool_wake_ms(pool), 0);
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    want(RELAY_NOTHING);
}

/* A place that one starved destination does not need any more goes to the next. */
static void room_goes_to_whoever_still_wants_it(void **state)
{
    cfg.relay.connections_max = 1;
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    relay_pool_add(pool, make("y.example", 7));
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    want(RELAY_NOTHING);
    add("z.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    want(RELAY_NOTHING);
    delivery_free(relay_pool_take_shard(pool, 7));
    assert_null(relay_pool_take_shard(pool, 7));
    finish(slot, d);
    want(RELAY_QUIT);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    assert_string_equal(want(RELAY_CONNECT).dest->key, "z.example");
}

static void no_more_room_is_made_than_is_wanted(void **state)
{
    cfg.relay.connections_max = 2;
    struct relay_slot *first = begin("x.example", 1);
    finish(first, want_send(first));
    struct relay_slot *second = begin("y.example", 1);
    finish(second, want_send(second));
    add("z.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    assert_ptr_equal(want(RELAY_QUIT).slot, first); /* idle for longest */
    want(RELAY_NOTHING);
    add("y.example", 1);
    finish(second, want_send(second));
    want(RELAY_NOTHING);
}

static void a_connection_serves_so_many_messages(void **state)
{
    cfg.relay.messages_per_connection = 2;
    struct relay_slot *slot = begin("x.example", 1);
    add("x.example", 2);
    finish(slot, want_send(slot));
    struct delivery *last = want_send(slot);
    assert_int_equal(slot->state, SLOT_DRAINING);
    struct relay_slot *next = want_connect("mx0.example"); /* without waiting for the old one */
    relay_pool_can_overlap(pool, slot);
    want(RELAY_NOTHING); /* not before the last one is over */
    finish(slot, last);
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    relay_pool_connected(pool, next, &now);
    delivery_free(want_send(next));
}

/* P-173: MAILMAX. */
static void a_peer_may_want_fewer(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    slot->messages_max = 2;
    add("x.example", 2);
    finish(slot, want_send(slot));
    finish(slot, want_send(slot));
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    want_connect("mx0.example");
}

static void an_idle_connection_is_closed_in_time(void **state)
{
    struct relay_slot *x = begin("x.example", 1);
    finish(x, want_send(x));
    now.mono_ms += 1000;
    struct relay_slot *y = begin("y.example", 1);
    finish(y, want_send(y));
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), now.mono_ms + 4000);
    now.mono_ms += 3999;
    want(RELAY_NOTHING);
    now.mono_ms += 1;
    assert_ptr_equal(want(RELAY_QUIT).slot, x);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), now.mono_ms + 1000);
    relay_pool_slot_gone(pool, x, NULL, &now);
    now.mono_ms += 1000;
    assert_ptr_equal(want(RELAY_QUIT).slot, y);
    relay_pool_slot_gone(pool, y, NULL, &now);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), INT64_MAX);
    assert_int_equal(relay_pool_connections(pool), 0);
}

static void what_waits_is_sent_rather_than_the_connection_closed(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    finish(slot, want_send(slot));
    add("x.example", 1);
    now.mono_ms += 5000;
    delivery_free(want_send(slot));
    want(RELAY_NOTHING);
}

static void one_more_may_overlap(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("x.example", 3);
    want(RELAY_NOTHING);
    relay_pool_can_overlap(pool, slot);
    struct delivery *second = want_send(slot);
    relay_pool_can_overlap(pool, slot);
    want(RELAY_NOTHING); /* two at once */
    finish(slot, d);
    want(RELAY_NOTHING); /* the second one's body may not be under way */
    relay_pool_can_overlap(pool, slot);
    relay_pool_can_overlap(pool, slot); /* saying it twice changes nothing */
    d = want_send(slot);
    finish(slot, second);
    finish(slot, d);
    finish(slot, want_send(slot));
    /* Said while nothing waited, it still holds. */
    add("x.example", 1);
    d = want_send(slot);
    relay_pool_can_overlap(pool, slot);
    want(RELAY_NOTHING);
    add("x.example", 1);
    second = want_send(slot);
    finish(slot, d);
    finish(slot, second);
}

static void a_ready_connection_is_better_than_overlap(void **state)
{
    struct relay_slot *a = begin("x.example", 1);
    struct delivery *d = want_send(a);
    add("x.example", 5);
    struct relay_slot *b = want_connect("mx0.example");
    relay_pool_can_overlap(pool, a);
    relay_pool_connected(pool, b, &now);
    delivery_free(want_send(b));
    delivery_free(want_send(a));
    relay_pool_sent(pool, a, &now);
    want(RELAY_NOTHING);
    relay_pool_sent(pool, b, &now);
    relay_pool_can_overlap(pool, a); /* the other way round it is the same */
    struct delivery *e = want_send(b);
    delivery_free(want_send(a));
    delivery_free(e);
    delivery_free(d);
    want(RELAY_NOTHING);
}

static void a_closing_connection_takes_nothing(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    finish(slot, want_send(slot));
    relay_pool_slot_closing(pool, slot);
    add("x.example", 1);
    struct relay_slot *next = want_connect("mx0.example");
    want(RELAY_NOTHING); /* no QUIT: the driver closes it */
    relay_pool_slot_gone(pool, slot, NULL, &now);
    relay_pool_connected(pool, next, &now);
    struct delivery *d = want_send(next);
    add("x.example", 1);
    want(RELAY_NOTHING);
    relay_pool_slot_closing(pool, next);
    struct relay_slot *last = want_connect("mx0.example"); /* who waits waits for another */
    finish(next, d);
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, next, NULL, &now);
    relay_pool_connected(pool, last, &now);
    finish(last, want_send(last));
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, last, NULL, &now); /* without a word before */
    now.mono_ms += 5000;
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_connections(pool), 0);
}

static void one_that_closes_before_it_greets_takes_nothing(void **state)
{
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    struct relay_slot *slot = want_connect("mx0.example");
    relay_pool_slot_closing(pool, slot);
    want(RELAY_NOTHING);
    relay_pool_connected(pool, slot, &now); /* its greeting was on the way */
    want_connect("mx0.example");            /* who waits waits for another */
    want(RELAY_NOTHING);
}

/* --- failures -------------------------------------------------------------------------------- */

static void hosts_are_tried_in_order_then_all_is_deferred(void **state)
{
    add("x.example", 3);
    hosts(want(RELAY_RESOLVE).dest, 3, 3600000);
    fail_slot(want_connect("mx0.example"));
    fail_slot(want_connect("mx1.example"));
    fail_slot(want_connect("mx2.example"));
    for (int i = 0; i < 3; i++)
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_waiting(pool), 0);
    assert_int_equal(relay_pool_wake_ms(pool), INT64_MAX); /* nothing waits */
    add("x.example", 1);                                   /* meanwhile */
    want_defer(OUTCOME_CONNECT, 421, "connection refused");
    want(RELAY_NOTHING);
}

static void rests_grow_to_a_minute_and_success_ends_them(void **state)
{
    static const int rests_s[] = { 1, 2, 4, 8, 16, 32, 60, 60, 60 };
    for (size_t i = 0; i < ARRAY_LEN(rests_s); i++) {
        add("x.example", 1);
        hosts(want(RELAY_RESOLVE).dest, 1, 3600000);
        fail_slot(want_connect("mx0.example"));
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
        want(RELAY_NOTHING);
        now.mono_ms += rests_s[i] * 1000 - 1;
        want(RELAY_NOTHING);
        add("x.example", 1);
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
        now.mono_ms += 1;
    }
    struct relay_slot *slot = begin("x.example", 1);
    finish(slot, want_send(slot));
    relay_pool_slot_gone(pool, slot, NULL, &now);
    add("x.example", 1);
    fail_slot(want_connect("mx0.example"));
    want_defer(OUTCOME_CONNECT, 421, "connection refused");
    now.mono_ms += 1000;
    add("x.example", 1);
    want(RELAY_RESOLVE);
}

static void failures_are_forgotten_after_twice_the_rest(void **state)
{
    for (int i = 0; i < 2; i++) {
        add("x.example", 1);
        hosts(want(RELAY_RESOLVE).dest, 1, 3600000);
        struct relay_slot *slot = want_connect("mx0.example");
        want(RELAY_NOTHING);
        fail_slot(slot);
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
        want(RELAY_NOTHING);
        now.mono_ms += 1999;
        want(RELAY_NOTHING);
        assert_int_equal(pool->dest_count, 1);
        now.mono_ms += 1;
        want(RELAY_NOTHING);
        assert_int_equal(pool->dest_count, 0);
    }
    add("x.example", 1); /* 2 s after a failure that was the first again */
    assert_int_equal(want(RELAY_RESOLVE).dest->failures, 0);
}

/* P-162: the next host first, then the last host's 5xx is final for what waits. */
static void a_greeting_that_refuses_for_good_on_the_last_host_bounces(void **state)
{
    struct rcpt_outcome no = { .stage = OUTCOME_GREETING, .code = 554, .text = SLICE("go away") };
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    relay_pool_slot_gone(pool, want_connect("mx0.example"), &no, &now);
    relay_pool_slot_gone(pool, want_connect("mx1.example"), &no, &now);
    want_defer(OUTCOME_GREETING, 554, "go away");
    want(RELAY_NOTHING);
}

static void a_host_that_works_starts_a_new_round(void **state)
{
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    fail_slot(want_connect("mx0.example"));
    struct relay_slot *slot = want_connect("mx1.example");
    relay_pool_connected(pool, slot, &now);
    finish(slot, want_send(slot));
    relay_pool_slot_gone(pool, slot, NULL, &now);
    add("x.example", 1);
    fail_slot(want_connect("mx1.example")); /* the one that worked, then the other */
    fail_slot(want_connect("mx0.example"));
    want_defer(OUTCOME_CONNECT, 421, "connection refused");
}

static void two_that_fail_together_skip_no_host(void **state)
{
    add("x.example", 5);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    struct relay_slot *a = want_connect("mx0.example"), *b = want_connect("mx0.example");
    fail_slot(a);
    fail_slot(b);
    a = want_connect("mx1.example");
    b = want_connect("mx1.example");
    fail_slot(a);
    assert_int_equal(relay_pool_waiting(pool), 5); /* b may still come up */
    fail_slot(b);
    for (int i = 0; i < 5; i++)
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
    want(RELAY_NOTHING);
}

/* The hosts ended their round while an old attempt was still under way: when it fails too, nothing
 * is left. */
static void the_last_of_a_round_ends_it(void **state)
{
    add("x.example", 5);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    struct relay_slot *a = want_connect("mx0.example"), *slow = want_connect("mx0.example");
    fail_slot(a);
    fail_slot(want_connect("mx1.example"));
    want(RELAY_NOTHING);
    fail_slot(slow);
    for (int i = 0; i < 5; i++)
        want_defer(OUTCOME_CONNECT, 421, "connection refused");
    want(RELAY_NOTHING);
    now.mono_ms += 1000;
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000); /* and the next one tries every host */
    fail_slot(want_connect("mx0.example"));
    want_connect("mx1.example");
}

/* The same, but one of the old attempts came up and took mail: a new round has begun. */
static void a_late_success_begins_a_new_round(void **state)
{
    add("x.example", 9);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    struct relay_slot *a = want_connect("mx0.example"), *b = want_connect("mx0.example");
    struct relay_slot *slow = want_connect("mx0.example");
    fail_slot(a);
    fail_slot(want_connect("mx1.example"));
    want(RELAY_NOTHING);
    relay_pool_connected(pool, b, &now);
    finish(b, want_send(b));
    relay_pool_slot_gone(pool, b, NULL, &now);
    fail_slot(slow);
    want(RELAY_NOTHING); /* neither given back nor tried at once */
    assert_int_equal(relay_pool_waiting(pool), 8);
    now.mono_ms += 1000;
    want_connect("mx1.example");
}

static void nothing_is_given_up_while_a_connection_works(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("x.example", 5);
    struct relay_slot *extra = want_connect("mx0.example");
    want(RELAY_NOTHING);
    fail_slot(extra);
    want(RELAY_NOTHING); /* not at once again */
    assert_int_equal(relay_pool_waiting(pool), 5);
    assert_int_equal(relay_pool_wake_ms(pool), now.mono_ms + 1000);
    now.mono_ms += 1000;
    finish(slot, d);
    d = want_send(slot);
    add("x.example", 1);
    fail_slot(want_connect("mx0.example"));
    want(RELAY_NOTHING);
    finish(slot, d); /* that the old one goes on working changes nothing for new ones */
    d = want_send(slot);
    add("x.example", 1);
    want(RELAY_NOTHING);
    finish(slot, d);
}

/* Else the hosts that fail would be tried in turn for as long as another connection works. */
static void an_old_connection_does_not_prolong_the_round(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    add("x.example", 6);
    struct relay_slot *extra = want_connect("mx0.example");
    finish(slot, d);
    d = want_send(slot);
    fail_slot(extra);
    extra = want_connect("mx1.example");
    finish(slot, d);
    d = want_send(slot);
    add("x.example", 1);
    fail_slot(extra);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), now.mono_ms + 1000);
    finish(slot, d);
}

/* A destination with one busy connection that holds from now on. */
static struct relay_slot *begin_hold(const char *key)
{
    struct relay_slot *slot = begin(key, 1);
    delivery_free(want_send(slot));
    add(key, 6);
    fail_slot(want_connect("mx0.example"));
    want(RELAY_NOTHING);
    return slot;
}

static void those_that_hold_wake_in_the_order_of_their_times(void **state)
{
    int64_t begun = now.mono_ms;
    struct relay_slot *x = begin_hold("x.example");
    now.mono_ms += 500;
    begin_hold("y.example");
    relay_pool_sent(pool, x, &now); /* x has a turn, and holds again behind y */
    delivery_free(want_send(x));
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), begun + 1000);
    now.mono_ms = begun + 1000;
    assert_string_equal(want(RELAY_CONNECT).dest->key, "x.example");
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), begun + 1500);
}

static void a_new_round_after_a_pause_tries_every_host(void **state)
{
    struct relay_slot *slot = begin("x.example", 2);
    struct delivery *d = want_send(slot);
    add("x.example", 5);
    fail_slot(want_connect("mx0.example"));
    fail_slot(want_connect("mx1.example"));
    want(RELAY_NOTHING);
    relay_pool_slot_closing(pool, slot);
    finish(slot, d);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    want(RELAY_NOTHING);
    now.mono_ms += 1000;
    slot = want_connect("mx0.example");
    struct relay_slot *other = want_connect("mx0.example");
    fail_slot(slot);
    fail_slot(other);
    slot = want_connect("mx1.example");
    relay_pool_connected(pool, slot, &now);
    delivery_free(want_send(slot));
}

static void an_unused_connection_may_end(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("x.example", 5);
    struct relay_slot *extra = want_connect("mx0.example");
    for (int i = 0; i < 5; i++) {
        finish(slot, d);
        d = want_send(slot);
    }
    finish(slot, d);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    relay_pool_connected(pool, extra, &now);
    relay_pool_slot_gone(pool, extra, NULL, &now); /* nobody waited: nothing has failed */
    add("x.example", 1);
    want_connect("mx0.example");
    want(RELAY_NOTHING);
}

static void one_that_was_asked_to_end_has_not_failed(void **state)
{
    relay_pool_add(pool, make("x.example", 7));
    hosts(want(RELAY_RESOLVE).dest, 1, 3600000);
    struct relay_slot *slot = want_connect("mx0.example");
    delivery_free(relay_pool_take_shard(pool, 7));
    relay_pool_connected(pool, slot, &now);
    want(RELAY_NOTHING);
    now.mono_ms += 5000;
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    add("x.example", 1); /* it comes while the QUIT is under way */
    relay_pool_slot_gone(pool, slot, NULL, &now);
    want_connect("mx0.example");
}

/* P-170: greets, and hangs up before it takes anything: no endless connecting. */
static void a_host_that_hangs_up_unused_has_failed(void **state)
{
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 2, 3600000);
    for (uint32_t i = 0; i < 2; i++) {
        struct relay_slot *slot = want_connect(i == 0 ? "mx0.example" : "mx1.example");
        relay_pool_connected(pool, slot, &now);
        relay_pool_slot_closing(pool, slot);
        relay_pool_slot_gone(pool, slot, NULL, &now);
    }
    want_defer(OUTCOME_LOST, 421, "the host closes connections before it takes a message");
    want(RELAY_NOTHING);
}

static void a_lookup_that_fails_defers_or_bounces(void **state)
{
    add("x.example", 2);
    no_hosts(want(RELAY_RESOLVE).dest, 451, "no answer"); /* P-211 */
    want_defer(OUTCOME_DNS, 451, "no answer");
    add("x.example", 1);
    want_defer(OUTCOME_DNS, 451, "no answer");
    want_defer(OUTCOME_DNS, 451, "no answer");
    for (int i = 0; i < 5; i++) { /* a permanent failure is not believed for longer each time */
        now.mono_ms += 1000;
        add("y.example", 1);
        no_hosts(want(RELAY_RESOLVE).dest, 550, "no such domain");
        want_defer(OUTCOME_DNS, 550, "no such domain");
        want(RELAY_NOTHING);
    }
}

static void long_words_of_a_failure_are_cut(void **state)
{
    char words[1000];
    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = '\0';
    add("x.example", 1);
    no_hosts(want(RELAY_RESOLVE).dest, 451, words);
    struct delivery *d = want(RELAY_DEFER).delivery;
    size_t len = d->outcomes[0].text.len;
    assert_in_range(len, 200, sizeof((struct relay_dest *)0)->failure_text);
    assert_true(slice_eq(d->outcomes[0].text, slice_of(words, len)));
    delivery_free(d);
}

static void hosts_are_looked_up_again_before_a_connection(void **state)
{
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 2000);
    struct relay_slot *slot = want_connect("mx0.example");
    relay_pool_connected(pool, slot, &now);
    struct delivery *d = want_send(slot);
    now.mono_ms += 2000;
    add("x.example", 5);
    struct relay_dest *dest = want(RELAY_RESOLVE).dest;
    want(RELAY_NOTHING);
    finish(slot, d);
    d = want_send(slot); /* meanwhile mail moves */
    add("x.example", 1);
    no_hosts(dest, 550, "no such domain"); /* with a connection that works: not believed */
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_waiting(pool), 5);
    now.mono_ms += 1000;
    assert_ptr_equal(want(RELAY_RESOLVE).dest, dest);
    hosts(dest, 2, 0);
    struct relay_slot *second = want_connect("mx0.example"); /* TTL 0 is good for now */
    relay_pool_sent(pool, slot, &now);
    delivery_free(d);
    fail_slot(slot); /* a host of the old list: it says nothing about the new one */
    struct relay_slot *third = want_connect("mx0.example");
    fail_slot(second);
    fail_slot(third);
    second = want_connect("mx1.example");
    relay_pool_connected(pool, second, &now);
    delivery_free(want_send(second));
    now.mono_ms += 1000;
    add("x.example", 5);
    hosts(want(RELAY_RESOLVE).dest, 2, 0); /* and a new list begins with its first host */
    relay_pool_sent(pool, second, &now);
    fail_slot(second);
    fail_slot(want_connect("mx0.example"));
    want_connect("mx1.example");
}

/* A host that hangs for longer than its addresses are good for: the round goes on where it was, or
 * the first host would be tried for ever (P-162). */
static void hosts_that_expire_in_a_round_are_tried_to_its_end(void **state)
{
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 3, 5000);
    for (uint32_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "mx%u.example", i);
        struct relay_slot *slot = want_connect(name);
        want(RELAY_NOTHING);
        now.mono_ms += 30000; /* relay.connect_timeout */
        fail_slot(slot);
    }
    want_defer(OUTCOME_CONNECT, 421, "connection refused");
    now.mono_ms += 1000;
    add("x.example", 1);
    want(RELAY_RESOLVE); /* what comes next sees the new ones */
}

/* --- deliveries ------------------------------------------------------------------------------ */

static const struct rcpt_outcome slow_down = {
    .stage = OUTCOME_MAIL, .code = 421, .enhanced = "4.7.0", .text = { "slow down", 9 }
};
#define REST "not tried, the host asked for less mail: 421 4.7.0 slow down"

/* What is on the wire goes on; what waits or comes is given back until the time is over. */
static void a_suspended_destination_is_left_alone(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *d = want_send(slot);
    add("x.example", 1);
    relay_pool_suspend(pool, "x.example", now.mono_ms + 60000, &slow_down, &now);
    want_defer(OUTCOME_LOCAL, 451, REST);
    assert_int_equal(relay_pool_suspension_ms(pool, "x.example", &now), 60000);
    finish(slot, d);
    add("x.example", 1);
    want_defer(OUTCOME_LOCAL, 451, REST);
    relay_pool_suspend(pool, "x.example", now.mono_ms + 100, &slow_down,
                       &now); /* the longer wins */
    now.mono_ms += 59999;
    add("x.example", 1);
    assert_int_equal(relay_pool_suspension_ms(pool, "x.example", &now), 1);
    delivery_free(want(RELAY_DEFER).delivery);
    now.mono_ms++;
    assert_int_equal(relay_pool_suspension_ms(pool, "x.example", &now), 0);
}

/* One that nothing waits for is remembered until its rest is over, and then looked up anew. */
static void a_rest_is_remembered(void **state)
{
    relay_pool_suspend(pool, "x.example", now.mono_ms + 60000, &slow_down, &now);
    want(RELAY_NOTHING);
    now.mono_ms += 30000;
    want(RELAY_NOTHING);
    add("x.example", 1);
    want_defer(OUTCOME_LOCAL, 451, REST);
    now.mono_ms += 30000;
    add("x.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 3600000);
    want_connect("mx0.example");
    assert_int_equal(relay_pool_suspension_ms(pool, "y.example", &now), 0);
}

static void hosts_that_are_found_during_a_rest_are_not_asked(void **state)
{
    add("x.example", 1);
    struct relay_dest *dest = want(RELAY_RESOLVE).dest;
    relay_pool_suspend(pool, "x.example", now.mono_ms + 60000, &slow_down, &now);
    want_defer(OUTCOME_LOCAL, 451, REST);
    add("x.example", 1);
    hosts(dest, 1, 3600000);
    want_defer(OUTCOME_LOCAL, 451, REST);
    want(RELAY_NOTHING);
}

static void destinations_take_turns(void **state)
{
    cfg.relay.connections_max = 1000;
    struct relay_slot *big = begin("big.example", 1);
    add("big.example", 999);
    struct delivery *d = want_send(big);
    uint32_t others = 0, rounds = 0;
    for (int i = 0; i < 50; i++) {
        char key[32];
        snprintf(key, sizeof key, "d%d.example", i);
        add(key, 1);
    }
    for (; others < 50; rounds++) {
        assert_true(rounds < 1000);
        struct relay_action a = relay_pool_next(pool, &now);
        switch (a.kind) {
        case RELAY_RESOLVE: hosts(a.dest, 1, 3600000); break;
        case RELAY_CONNECT: relay_pool_connected(pool, a.slot, &now); break;
        case RELAY_SEND:
            others += a.dest != big->dest;
            finish(a.slot, a.delivery);
            break;
        default: fail();
        }
    }
    assert_true(relay_pool_waiting(pool) > 900); /* the long list had few turns meanwhile */
    delivery_free(d);
}

static void what_is_put_back_goes_first(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    struct delivery *first = want_send(slot);
    add("x.example", 2);
    relay_pool_sent(pool, slot, &now);
    relay_pool_requeue(pool, first);
    relay_pool_slot_closing(pool, slot);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    slot = want_connect("mx0.example");
    relay_pool_connected(pool, slot, &now);
    assert_ptr_equal(want_send(slot), first);
    delivery_free(first);
}

static void draining_gives_everything_back(void **state)
{
    cfg.relay.connections_max = 3;
    struct relay_slot *idle = begin("x.example", 1);
    finish(idle, want_send(idle));
    struct relay_slot *busy = begin("y.example", 1);
    struct delivery *d = want_send(busy);
    add("z.example", 1);
    hosts(want(RELAY_RESOLVE).dest, 1, 1000);
    struct relay_slot *connecting = want_connect("mx0.example");
    add("y.example", 2);
    add("new.example", 1);
    relay_pool_drain(pool);
    add("late.example", 1);
    assert_int_equal(relay_pool_wake_ms(pool), 0);
    for (int i = 0; i < 5; i++)
        want_defer(OUTCOME_LOCAL, 451, "not tried, shutting down");
    assert_ptr_equal(want(RELAY_QUIT).slot, idle);
    want(RELAY_NOTHING);
    relay_pool_connected(pool, connecting, &now);
    assert_ptr_equal(want(RELAY_QUIT).slot, connecting);
    want(RELAY_NOTHING);
    relay_pool_sent(pool, busy, &now);
    relay_pool_requeue(pool, d);
    want_defer(OUTCOME_LOCAL, 451, "not tried, shutting down");
    assert_ptr_equal(want(RELAY_QUIT).slot, busy);
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, idle, NULL, &now);
    relay_pool_slot_gone(pool, connecting, NULL, &now);
    relay_pool_slot_gone(pool, busy, NULL, &now);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_connections(pool), 0);
    assert_int_equal(relay_pool_waiting(pool), 0);
}

static void a_shard_is_taken_away(void **state)
{
    for (uint16_t i = 0; i < 30; i++)
        relay_pool_add(pool, make(i % 2 ? "x.example" : "y.example", i % 3));
    no_hosts(want(RELAY_RESOLVE).dest, 451, "no answer"); /* y: on their way back already */
    struct delivery *d;
    int count = 0;
    for (; (d = relay_pool_take_shard(pool, 2)); count++) {
        assert_int_equal(d->shard, 2);
        delivery_free(d);
    }
    assert_int_equal(count, 10);
    assert_int_equal(relay_pool_waiting(pool), 10); /* of x */
    assert_null(relay_pool_take_shard(pool, 9));
}

static void what_is_in_the_pool_goes_with_it(void **state)
{
    struct relay_slot *slot = begin("x.example", 1);
    delivery_free(want_send(slot));
    add("x.example", 9);
    add("y.example", 1);
    want(RELAY_CONNECT);
    add("z.example", 1);
    want(RELAY_RESOLVE);
    relay_pool_add(pool, make("z.example", 7));
    relay_pool_add(pool, make("z.example", 7));
    delivery_free(relay_pool_take_shard(pool, 7)); /* ASan tells when something stays */
}

/* Held mail, and mail without a route, never comes here: our bug, not the world's. */
static void held_mail_is_not_delivered(void **state)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        add("!held.example", 1);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* --- many ------------------------------------------------------------------------------------ */

#define MANY 100000

/* All of them wait for one of ten connections; the run time is what would tell of a scan. */
static void a_hundred_thousand_destinations(void **state)
{
    cfg.relay.idle_timeout_ms = 1;
    for (uint32_t i = 0; i < MANY; i++) {
        char key[32];
        snprintf(key, sizeof key, "d%u.example", i);
        add(key, 1);
    }
    uint32_t sent = 0, actions = 0;
    while (sent < MANY) {
        struct relay_action a = relay_pool_next(pool, &now);
        assert_true(actions++ < 5 * MANY);
        assert_true(relay_pool_connections(pool) <= 10);
        switch (a.kind) {
        case RELAY_RESOLVE: hosts(a.dest, 1, 3600000); break;
        case RELAY_CONNECT: relay_pool_connected(pool, a.slot, &now); break;
        case RELAY_SEND: finish(a.slot, a.delivery), sent++; break;
        case RELAY_QUIT: relay_pool_slot_gone(pool, a.slot, NULL, &now); break;
        default: fail();
        }
    }
    now.mono_ms++;
    for (struct relay_action a; (a = relay_pool_next(pool, &now)).kind == RELAY_QUIT;)
        relay_pool_slot_gone(pool, a.slot, NULL, &now);
    want(RELAY_NOTHING);
    assert_int_equal(relay_pool_wake_ms(pool), INT64_MAX);
    assert_int_equal(pool->dest_count, 0); /* none is kept for nothing */
}

/* The same when none of them can be reached, and their failures are remembered for a while. */
static void a_hundred_thousand_dead_destinations(void **state)
{
    uint32_t deferred = 0, actions = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        char key[32];
        snprintf(key, sizeof key, "d%u.example", i);
        add(key, 1);
    }
    while (deferred < MANY) {
        struct relay_action a = relay_pool_next(pool, &now);
        assert_true(actions++ < 5 * MANY);
        switch (a.kind) {
        case RELAY_RESOLVE: hosts(a.dest, 1, 3600000); break;
        case RELAY_CONNECT: fail_slot(a.slot); break;
        case RELAY_DEFER: delivery_free(a.delivery), deferred++; break;
        default: fail();
        }
    }
    want(RELAY_NOTHING);
    assert_int_equal(pool->dest_count, MANY);
    now.mono_ms += 2000;
    for (int i = 0; i < MANY; i++) /* one is forgotten in each call */
        want(RELAY_NOTHING);
    assert_int_equal(pool->dest_count, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(another_host_is_asked_before_it_is_given_up),
        CASE(what_no_host_takes_is_given_up),
        CASE(misfits_share_a_connection),
        CASE(a_host_that_is_down_defers_it),
        CASE(the_last_host_is_down),
        CASE(a_host_has_one_answer),
        CASE(an_idle_connection_makes_room_for_a_misfit),
        CASE(a_misfit_waits_for_room_like_others),
        CASE(misfits_are_handed_back_like_others),
        CASE(asking_has_an_end),
        CASE(a_peer_may_want_fewer),
        CASE(a_warm_connection_is_used_first),
        CASE(a_destination_is_looked_up_by_its_key),
        CASE(another_connection_is_opened_when_many_wait),
        CASE(a_destination_with_fewer_waiting_gets_its_first_connection),
        CASE(an_idle_connection_makes_room),
        CASE(one_that_becomes_idle_later_makes_room_too),
        CASE(room_goes_to_whoever_still_wants_it),
        CASE(no_more_room_is_made_than_is_wanted),
        CASE(a_connection_serves_so_many_messages),
        CASE(an_idle_connection_is_closed_in_time),
        CASE(what_waits_is_sent_rather_than_the_connection_closed),
        CASE(one_more_may_overlap),
        CASE(a_ready_connection_is_better_than_overlap),
        CASE(a_closing_connection_takes_nothing),
        CASE(one_that_closes_before_it_greets_takes_nothing),
        CASE(hosts_are_tried_in_order_then_all_is_deferred),
        CASE(rests_grow_to_a_minute_and_success_ends_them),
        CASE(failures_are_forgotten_after_twice_the_rest),
        CASE(a_greeting_that_refuses_for_good_on_the_last_host_bounces),
        CASE(a_host_that_works_starts_a_new_round),
        CASE(two_that_fail_together_skip_no_host),
        CASE(the_last_of_a_round_ends_it),
        CASE(a_late_success_begins_a_new_round),
        CASE(nothing_is_given_up_while_a_connection_works),
        CASE(an_old_connection_does_not_prolong_the_round),
        CASE(those_that_hold_wake_in_the_order_of_their_times),
        CASE(a_new_round_after_a_pause_tries_every_host),
        CASE(an_unused_connection_may_end),
        CASE(one_that_was_asked_to_end_has_not_failed),
        CASE(a_host_that_hangs_up_unused_has_failed),
        CASE(a_lookup_that_fails_defers_or_bounces),
        CASE(long_words_of_a_failure_are_cut),
        CASE(hosts_are_looked_up_again_before_a_connection),
        CASE(hosts_that_expire_in_a_round_are_tried_to_its_end),
        CASE(a_suspended_destination_is_left_alone),
        CASE(a_rest_is_remembered),
        CASE(hosts_that_are_found_during_a_rest_are_not_asked),
        CASE(destinations_take_turns),
        CASE(what_is_put_back_goes_first),
        CASE(draining_gives_everything_back),
        CASE(a_shard_is_taken_away),
        CASE(what_is_in_the_pool_goes_with_it),
        CASE(held_mail_is_not_delivered),
        CASE(a_hundred_thousand_destinations),
        CASE(a_hundred_thousand_dead_destinations),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
