/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which destinations use each other's connections, and which do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdio.h>

static struct config_route routes[] = {
    { .name = "*", .pattern = "*", .relay = RELAY_MX },
    { .name = "*.strict.example",
      .pattern = "*.strict.example",
      .relay = RELAY_MX,
      .tls = ROUTE_TLS_VERIFY },
    { .name = "*.other.example", .pattern = "*.other.example", .relay = RELAY_MX },
};
static struct config cfg;
static struct relay_pool *pool;
static struct message *message;
static struct now now;
static uint32_t added;

static int start(void **state)
{
    cfg = (struct config){ .routes = routes, .route_count = ARRAY_LEN(routes) };
    cfg.relay.connections_max = 10;
    cfg.relay.per_destination_max = 3;
    cfg.relay.messages_per_connection = 4;
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

static void add(const char *dest)
{
    char id[DELIVERY_ID_MAX];
    uint32_t rcpt = 0;
    snprintf(id, sizeof id, "%u", added++);
    relay_pool_add(pool, delivery_new(message, id, slice_str(dest), 0, &rcpt, 1));
}

static struct relay_action want(enum relay_action_kind kind)
{
    struct relay_action a = relay_pool_next(pool, &now);
    if (a.kind != kind)
        fail_msg("wanted action %d, got %d", (int)kind, (int)a.kind);
    return a;
}

/* The hosts of a provider: addresses from `first` on. */
struct provider {
    const char *site;
    uint32_t first, count;
    bool has_tlsa;
    enum sts_mode sts;
};
static const struct provider big = { "mx0.big.example mx1.big.example", 1, 2 };
static const struct provider other = { "mx0.other.example", 1, 2 };

static void resolve(const struct provider *at)
{
    struct relay_host hosts[4] = { 0 };
    struct relay_dest *dest = want(RELAY_RESOLVE).dest;
    for (uint32_t i = 0; i < at->count; i++) {
        struct sockaddr_in *addr = (struct sockaddr_in *)&hosts[i].addr;
        hosts[i].addr_len = sizeof *addr;
        addr->sin_addr.s_addr = at->first + i;
        snprintf(hosts[i].name, sizeof hosts[i].name, "mx%u", i);
        snprintf(hosts[i].site, sizeof hosts[i].site, "%s", at->site);
        hosts[i].tlsa.is_present = at->has_tlsa;
        hosts[i].sts = at->sts;
    }
    relay_pool_resolved(pool, dest, hosts, at->count, 3600000, NULL, &now);
}

static void serve(struct relay_slot *slot)
{
    struct relay_action a = want(RELAY_SEND);
    assert_ptr_equal(a.slot, slot);
    assert_string_equal(a.delivery->dest, slot->dest->key);
    relay_pool_sent(pool, slot, &now);
    delivery_free(a.delivery);
}

/* A connection of `key` that has served one message and is idle. */
static struct relay_slot *begin(const char *key, const struct provider *at)
{
    add(key);
    resolve(at);
    struct relay_slot *slot = want(RELAY_CONNECT).slot;
    relay_pool_connected(pool, slot, &now);
    serve(slot);
    want(RELAY_NOTHING);
    return slot;
}

/* --- who shares ------------------------------------------------------------------------------ */

static void domains_hosted_together_use_one_connection(void **state)
{
    struct relay_slot *slot = begin("a.example", &big);
    add("b.example");
    resolve(&big);
    serve(slot);
    add("a.example"); /* and back */
    resolve(&big);    /* nothing was known of it any more */
    serve(slot);
    assert_int_equal(relay_pool_connections(pool), 1);
}

/* messages_per_connection counts all of them. */
static void it_is_as_old_as_it_is(void **state)
{
    struct relay_slot *slot = begin("a.example", &big);
    for (int i = 0; i < 3; i++) {
        char key[32];
        snprintf(key, sizeof key, "b%d.example", i);
        add(key);
        resolve(&big);
        serve(slot);
    }
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
}

static void who_has_mail_keeps_its_connection(void **state)
{
    cfg.relay.per_destination_max = 1;
    struct relay_slot *slot = begin("a.example", &big);
    add("b.example");
    struct relay_dest *b = want(RELAY_RESOLVE).dest;
    add("a.example");
    struct relay_action a = want(RELAY_SEND);
    assert_ptr_equal(a.slot, slot);
    b->state = DEST_RESOLVING;
    add("a.example");
    relay_pool_sent(pool, slot, &now);
    delivery_free(a.delivery);
    serve(slot);
    assert_string_equal(slot->dest->key, "a.example");
}

static void not_where_hosts_differ(void **state)
{
    static const struct provider half = { "mx0.big.example mx1.big.example", 7, 2 };
    begin("a.example", &big);
    add("b.example");
    resolve(&other); /* the same addresses under another name: another way to them */
    want(RELAY_CONNECT);
    add("c.example");
    resolve(&half); /* the same names at other addresses */
    want(RELAY_CONNECT);
}

static void not_under_another_route(void **state)
{
    begin("a.example", &big);
    add("b.other.example");
    resolve(&big);
    want(RELAY_CONNECT);
}

/* P-202: what was verified was verified for one domain. */
static void not_what_was_verified(void **state)
{
    struct provider secure = big;
    begin("a.strict.example", &big);
    add("b.strict.example");
    resolve(&big);
    want(RELAY_CONNECT);
    secure.has_tlsa = true;
    begin("a.example", &secure);
    add("b.example");
    resolve(&secure);
    want(RELAY_CONNECT);
    secure = big;
    secure.sts = STS_TESTING;
    begin("c.example", &secure);
    add("d.example");
    resolve(&secure);
    want(RELAY_CONNECT);
    add("e.example");
    resolve(&big); /* it has none, and theirs are not for it */
    want(RELAY_CONNECT);
}

/* P-192: what failed once for one domain is tried anew for the next. */
static void not_what_went_on_in_clear(void **state)
{
    add("a.example");
    resolve(&big);
    struct relay_slot *slot = want(RELAY_CONNECT).slot;
    slot->is_downgraded = true;
    relay_pool_connected(pool, slot, &now);
    serve(slot);
    add("b.example");
    resolve(&big);
    want(RELAY_CONNECT);
}

static void mail_that_waives_tls_may_follow_mail_without_a_policy(void **state)
{
    struct relay_slot *slot = begin("a.example", &big);
    add("~a.example");
    resolve(&big);
    serve(slot);
}

/* --- when all connections are used ----------------------------------------------------------- */

static void one_that_starves_gets_it_before_it_is_closed(void **state)
{
    cfg.relay.connections_max = 1;
    add("a.example");
    resolve(&big);
    struct relay_slot *slot = want(RELAY_CONNECT).slot;
    relay_pool_connected(pool, slot, &now);
    struct relay_action a = want(RELAY_SEND);
    add("x.example");
    resolve(&other);
    add("b.example");
    resolve(&big);
    want(RELAY_NOTHING);
    relay_pool_sent(pool, slot, &now);
    delivery_free(a.delivery);
    serve(slot); /* b, although x has starved for longer */
    assert_string_equal(slot->dest->key, "b.example");
    assert_ptr_equal(want(RELAY_QUIT).slot, slot);
    relay_pool_slot_gone(pool, slot, NULL, &now);
    assert_string_equal(want(RELAY_CONNECT).dest->key, "x.example");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(domains_hosted_together_use_one_connection, start, stop),
        cmocka_unit_test_setup_teardown(it_is_as_old_as_it_is, start, stop),
        cmocka_unit_test_setup_teardown(who_has_mail_keeps_its_connection, start, stop),
        cmocka_unit_test_setup_teardown(not_where_hosts_differ, start, stop),
        cmocka_unit_test_setup_teardown(not_under_another_route, start, stop),
        cmocka_unit_test_setup_teardown(not_what_was_verified, start, stop),
        cmocka_unit_test_setup_teardown(not_what_went_on_in_clear, start, stop),
        cmocka_unit_test_setup_teardown(mail_that_waives_tls_may_follow_mail_without_a_policy,
                                        start, stop),
        cmocka_unit_test_setup_teardown(one_that_starves_gets_it_before_it_is_closed, start, stop),
    };
    return cmocka_run_group_tests_name("pool share", tests, NULL, NULL);
}
