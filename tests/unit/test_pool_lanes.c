/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which mail goes first: lanes, tenants in a lane, and the connections that are kept for
 * urgent mail. What the pool does besides is in test_pool.c; test_pool_chaos.c shows that the rules
 * hold together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdio.h>

#define X "x.example"

static struct config_route routes[] = { { .name = "*", .pattern = "*", .relay = RELAY_MX } };
static struct config_tenant tenants[] = {
    { .name = "one", .weight = 10 },
    { .name = "three", .weight = 30 },
    { .name = "tenth", .weight = 1 },
};
static struct config cfg;
static struct relay_pool *pool;
static struct now now;
static uint32_t added;

static int start(void **state)
{
    cfg = (struct config){ .routes = routes,
                           .route_count = ARRAY_LEN(routes),
                           .tenants = tenants,
                           .tenant_count = ARRAY_LEN(tenants) };
    cfg.relay.connections_max = 10;
    cfg.relay.per_destination_max = 1;
    cfg.relay.urgent_share = 20;
    cfg.relay.messages_per_connection = 1000000;
    cfg.relay.idle_timeout_ms = 5000;
    now = (struct now){ .mono_ms = 1000000 };
    added = 0;
    pool = relay_pool_new(&cfg);
    return 0;
}

static int stop(void **state)
{
    relay_pool_free(pool);
    return 0;
}

/* --- saying what happens --------------------------------------------------------------------- */

static struct delivery *make(char lane, const char *tenant, uint32_t rcpts, uint64_t size)
{
    char id[DELIVERY_ID_MAX];
    uint32_t index[2000];
    struct message *m = message_new(NULL);
    for (uint32_t i = 0; i < rcpts; i++) {
        message_add_rcpt(m, SLICE("a@x.example"), SLICE(X));
        index[i] = i;
    }
    m->lane = lane;
    m->tenant = slice_str(tenant);
    m->size = size;
    snprintf(id, sizeof id, "%u", added++);
    struct delivery *d = delivery_new(m, id, SLICE(X), 0, index, rcpts);
    message_unref(m);
    return d;
}

static void add(char lane, const char *tenant, int count)
{
    while (count-- > 0)
        relay_pool_add(pool, make(lane, tenant, 1, 1000));
}

static struct relay_action want(enum relay_action_kind kind)
{
    struct relay_action a = relay_pool_next(pool, &now);
    if (a.kind != kind)
        fail_msg("wanted action %d, got %d", (int)kind, (int)a.kind);
    return a;
}

static struct relay_slot *up(struct relay_slot *slot)
{
    relay_pool_connected(pool, slot, &now);
    return slot;
}

/* For the first delivery that waits: hosts, and a connection that greets. */
static struct relay_slot *begin(void)
{
    struct relay_host host = { .name = "mx.example" };
    relay_pool_resolved(pool, want(RELAY_RESOLVE).dest, &host, 1, 3600000, NULL, &now);
    return up(want(RELAY_CONNECT).slot);
}

/* A delivery of that lane goes out on that slot. */
static struct delivery *want_send(struct relay_slot *slot, char lane)
{
    struct relay_action a = want(RELAY_SEND);
    assert_ptr_equal(a.slot, slot);
    if (a.delivery->message->lane != lane)
        fail_msg("wanted lane %c, got %c", lane, a.delivery->message->lane);
    return a.delivery;
}

static void finish(struct relay_slot *slot, struct delivery *d)
{
    relay_pool_sent(pool, slot, &now);
    delivery_free(d);
}

/* One goes out on the only connection, and is over. */
static char next_lane(void)
{
    struct relay_action a = want(RELAY_SEND);
    char lane = a.delivery->message->lane;
    finish(a.slot, a.delivery);
    return lane;
}

/* Of `count` recipients that go next, those of that tenant. */
static uint32_t share_of(const char *tenant, uint32_t count)
{
    uint32_t of = 0, all = 0;
    while (all < count) {
        struct relay_action a = want(RELAY_SEND);
        bool is_its = slice_eq(a.delivery->message->tenant, slice_str(tenant));
        all += a.delivery->rcpt_count;
        of += is_its ? a.delivery->rcpt_count : 0;
        finish(a.slot, a.delivery);
    }
    return of;
}

/* --- lanes ----------------------------------------------------------------------------------- */

static void urgent_overtakes_ten_thousand(void **state)
{
    add('b', "one", 10000);
    add('n', "one", 1000);
    struct relay_slot *slot = begin();
    struct delivery *d = want_send(slot, 'n');
    add('u', "one", 1);
    want(RELAY_NOTHING);
    finish(slot, d);
    finish(slot, want_send(slot, 'u'));
    finish(slot, want_send(slot, 'n'));
}

static void normal_goes_first_and_bulk_still_moves(void **state)
{
    char order[33] = "";
    add('b', "one", 100);
    add('n', "one", 100);
    begin();
    for (int i = 0; i < 32; i++)
        order[i] = next_lane();
    assert_string_equal(order, "nnnnnnnbnnnnnnnbnnnnnnnbnnnnnnnb");
    while (relay_pool_waiting(pool) > 0)
        next_lane();
}

static void bulk_alone_loses_nothing(void **state)
{
    add('b', "one", 20);
    begin();
    for (int i = 0; i < 20; i++)
        assert_int_equal(next_lane(), 'b');
    add('n', "one", 7); /* what passed before does not count against it */
    add('b', "one", 1);
    for (int i = 0; i < 7; i++)
        assert_int_equal(next_lane(), 'n');
    assert_int_equal(next_lane(), 'b');
}

/* A delivery that a stale connection lost is the next of its lane, not of all. */
static void what_comes_back_is_first_in_its_lane(void **state)
{
    add('b', "one", 3);
    struct relay_slot *slot = begin();
    struct delivery *d = want_send(slot, 'b');
    add('u', "one", 1);
    relay_pool_sent(pool, slot, &now);
    relay_pool_requeue(pool, d);
    finish(slot, want_send(slot, 'u'));
    assert_ptr_equal(want_send(slot, 'b'), d);
    finish(slot, d);
}

static void all_lanes_are_given_back(void **state)
{
    static const struct rcpt_outcome why = { .stage = OUTCOME_DNS, .code = 451 };
    add('b', "one", 2);
    add('n', "three", 2);
    add('u', "nobody", 2);
    relay_pool_resolved(pool, want(RELAY_RESOLVE).dest, NULL, 0, 0, &why, &now);
    for (int i = 0; i < 6; i++)
        delivery_free(want(RELAY_DEFER).delivery);
    assert_int_equal(relay_pool_waiting(pool), 0);
    assert_int_equal(pool->waits.line_count, 3); /* one stays in each lane */
    assert_int_equal(pool->waits.spare_count, 0);
    add('n', "one", 1);
    assert_int_equal(pool->waits.line_count, 3);
    assert_int_equal(pool->waits.spare_count, 0); /* another's, in its place */
    delivery_free(want(RELAY_DEFER).delivery);
    now.mono_ms += 3000;
    want(RELAY_NOTHING);
    assert_int_equal(pool->dest_count, 0);
    assert_int_equal(pool->waits.line_count, 0);
}

/* --- tenants --------------------------------------------------------------------------------- */

static void weights_are_shares(void **state)
{
    add('n', "one", 4000);
    add('n', "three", 4000);
    begin();
    assert_int_equal(share_of("three", 4000), 3000);
}

static void the_least_weight_still_moves(void **state)
{
    add('n', "one", 4000);
    begin();
    add('n', "tenth", 400);
    assert_in_range(share_of("tenth", 1100), 99, 101);
}

/* Usual ones alternate; whoever is not in the configuration weighs as much. */
static void equal_tenants_alternate(void **state)
{
    add('n', "nobody", 10);
    add('n', "one", 10);
    begin();
    for (int i = 0; i < 5; i++)
        assert_int_equal(share_of("one", 2), 1);
}

/* Recipients count, and octets. */
static void a_large_message_costs_more(void **state)
{
    for (int i = 0; i < 100; i++)
        relay_pool_add(pool, make('n', "one", 20, 1000));
    add('n', "nobody", 2000);
    begin();
    assert_in_range(share_of("one", 2000), 900, 1100);
    share_of("one", 2000);
    for (int i = 0; i < 10; i++)
        relay_pool_add(pool, make('n', "one", 1, 19 * 65536));
    add('n', "nobody", 2000);
    assert_in_range(share_of("one", 210), 9, 11);
}

/* One that waited with nothing has saved nothing up. */
static void credit_is_not_saved(void **state)
{
    add('n', "one", 1000);
    begin();
    share_of("one", 500);
    add('n', "nobody", 100);
    assert_int_equal(share_of("nobody", 20), 10);
}

static void lanes_before_tenants(void **state)
{
    add('n', "three", 100);
    begin();
    add('u', "tenth", 50);
    assert_int_equal(share_of("tenth", 50), 50);
}

/* Thousands of tenants at one destination, each in its line. */
static void thousands_of_tenants(void **state)
{
    static struct config_tenant many[5000];
    static char names[5000][8];
    relay_pool_free(pool);
    for (int i = 0; i < 5000; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        many[i] = (struct config_tenant){ .name = names[i], .weight = 10 };
    }
    cfg.tenants = many;
    cfg.tenant_count = ARRAY_LEN(many);
    pool = relay_pool_new(&cfg);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 5000; i++)
            add('n', names[i], 1);
    assert_int_equal(pool->waits.line_count, 5000);
    begin();
    for (int i = 0; i < 5000; i++)
        assert_int_equal(share_of(names[i], 1), 1);
    for (int i = 0; i < 5000; i++)
        share_of("", 1);
    assert_int_equal(pool->waits.line_count, 1);
    assert_int_equal(relay_pool_waiting(pool), 0);
}

/* --- connections ----------------------------------------------------------------------------- */

/* Two connections: one is for urgent mail alone, and is not even opened without. */
static void a_connection_stays_free(void **state)
{
    cfg.relay.per_destination_max = 2;
    add('b', "one", 1000);
    struct relay_slot *first = begin();
    struct delivery *bulk = want_send(first, 'b');
    relay_pool_can_overlap(pool, first);
    struct delivery *second = want_send(first, 'b');
    want(RELAY_NOTHING);
    add('u', "one", 1);
    struct relay_slot *kept = up(want(RELAY_CONNECT).slot);
    struct delivery *urgent = want_send(kept, 'u');
    relay_pool_can_overlap(pool, kept);
    want(RELAY_NOTHING); /* bulk does not follow it there */
    finish(kept, urgent);
    want(RELAY_NOTHING); /* nor use it while it is idle */
    add('u', "one", 1);
    finish(kept, want_send(kept, 'u'));
    finish(first, bulk);
    finish(first, second);
    finish(first, want_send(first, 'b'));
}

/* Whichever is free first: the connection that is made for it, or the one that serves bulk. */
static void urgent_takes_what_is_free_first(void **state)
{
    cfg.relay.per_destination_max = 2;
    add('b', "one", 1000);
    struct relay_slot *first = begin();
    struct delivery *bulk = want_send(first, 'b');
    add('u', "one", 1);
    struct relay_slot *kept = want(RELAY_CONNECT).slot;
    relay_pool_can_overlap(pool, first);
    want(RELAY_NOTHING); /* neither urgent behind a transaction that may be stuck, nor bulk */
    finish(first, bulk);
    struct delivery *urgent = want_send(first, 'u');
    /* Which of them serves what is open: now it is the other one that bulk may have. */
    bulk = want_send(up(kept), 'b');
    finish(first, urgent);
    want(RELAY_NOTHING);
    finish(kept, bulk);
}

/* With one connection there is nothing to keep: urgent goes next, behind what is on the wire. */
static void with_one_connection_urgent_overlaps(void **state)
{
    add('b', "one", 1000);
    struct relay_slot *slot = begin();
    struct delivery *bulk = want_send(slot, 'b');
    add('u', "one", 1);
    want(RELAY_NOTHING);
    relay_pool_can_overlap(pool, slot);
    struct delivery *urgent = want_send(slot, 'u');
    finish(slot, bulk);
    relay_pool_can_overlap(pool, slot);
    bulk = want_send(slot, 'b');
    finish(slot, urgent);
    finish(slot, bulk);
}

static void the_share_is_of_all_connections(void **state)
{
    static const struct {
        uint32_t percent, connections, plain;
    } rows[] = {
        { 0, 1, 1 },   { 0, 10, 10 },  { 20, 1, 1 }, { 20, 2, 1 },  { 20, 3, 2 },
        { 20, 10, 8 }, { 20, 14, 12 }, { 90, 2, 1 }, { 90, 10, 1 }, { 1, 10000, 9900 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cfg.relay.urgent_share = rows[i].percent;
        assert_int_equal(pool_plain_share(pool, rows[i].connections), rows[i].plain);
    }
}

/* Bulk for many destinations leaves connections for urgent mail to another one. */
static void some_of_all_connections_are_kept(void **state)
{
    struct relay_host host = { .name = "mx.example" };
    uint32_t opened = 0;
    for (int i = 0; i < 12; i++) {
        struct delivery *d = make('b', "one", 1, 1000);
        snprintf(d->dest, sizeof d->dest, "d%d.example", i);
        relay_pool_add(pool, d);
    }
    for (int i = 0; i < 12; i++)
        relay_pool_resolved(pool, want(RELAY_RESOLVE).dest, &host, 1, 3600000, NULL, &now);
    struct relay_action a;
    while ((a = relay_pool_next(pool, &now)).kind == RELAY_CONNECT)
        opened++;
    assert_int_equal(a.kind, RELAY_NOTHING);
    assert_int_equal(opened, 8);
    add('u', "one", 1);
    struct relay_slot *slot = begin();
    finish(slot, want_send(slot, 'u'));
    want(RELAY_QUIT); /* idle, and bulk mail is starved of one */
}

/* A connection kept for urgent mail that its peer closes says nothing about the host. */
static void a_kept_connection_may_end(void **state)
{
    cfg.relay.per_destination_max = 2;
    add('b', "one", 1000);
    struct relay_slot *first = begin();
    struct delivery *bulk = want_send(first, 'b');
    add('u', "one", 1);
    struct relay_slot *kept = want(RELAY_CONNECT).slot;
    finish(first, bulk);
    finish(first, want_send(first, 'u'));
    bulk = want_send(first, 'b');
    up(kept);
    want(RELAY_NOTHING);
    relay_pool_slot_gone(pool, kept, NULL, &now);
    want(RELAY_NOTHING);
    assert_int_equal(pool_dest(pool, X)->hosts_failed, 0);
    finish(first, bulk);
    finish(first, want_send(first, 'b'));
    assert_int_equal(pool_dest(pool, X)->state, DEST_OPEN);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(urgent_overtakes_ten_thousand),
        CASE(normal_goes_first_and_bulk_still_moves),
        CASE(bulk_alone_loses_nothing),
        CASE(what_comes_back_is_first_in_its_lane),
        CASE(all_lanes_are_given_back),
        CASE(weights_are_shares),
        CASE(the_least_weight_still_moves),
        CASE(equal_tenants_alternate),
        CASE(a_large_message_costs_more),
        CASE(credit_is_not_saved),
        CASE(lanes_before_tenants),
        CASE(thousands_of_tenants),
        CASE(a_connection_stays_free),
        CASE(urgent_takes_what_is_free_first),
        CASE(with_one_connection_urgent_overlaps),
        CASE(the_share_is_of_all_connections),
        CASE(some_of_all_connections_are_kept),
        CASE(a_kept_connection_may_end),
    };
    return cmocka_run_group_tests_name("pool: lanes", tests, NULL, NULL);
}
