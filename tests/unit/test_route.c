/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which route a domain takes, what its destination is called, and how a message is split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/route.h"

static struct config_route routes[] = {
    { .name = "*.example.org", .pattern = "*.example.org", .relay = RELAY_SMARTHOST },
    { .name = "example.org", .pattern = "example.org", .relay = RELAY_SMARTHOST },
    { .name = "*", .pattern = "*", .relay = RELAY_MX },
    { .name = "*.deep.example.org", .pattern = "*.deep.example.org", .relay = RELAY_HOLD },
    { .name = "mx.deep.example.org", .pattern = "mx.deep.example.org", .relay = RELAY_MX },
    { .name = "held.example", .pattern = "held.example", .relay = RELAY_HOLD },
};
static const struct config cfg = { .routes = routes, .route_count = ARRAY_LEN(routes) };
/* Without a route for everybody. */
static const struct config strict = { .routes = routes, .route_count = 2 };

static const struct {
    const char *domain, *pattern, *key;
} rows[] = {
    { "example.org", "example.org", "@example.org" },
    { "EXAMPLE.org", "example.org", "@example.org" },
    { "a.example.org", "*.example.org", "@*.example.org" },
    { "a.b.Example.Org", "*.example.org", "@*.example.org" },
    { "deep.example.org", "*.example.org", "@*.example.org" },
    { "x.deep.example.org", "*.deep.example.org", "!*.deep.example.org" },
    { "mx.deep.example.org", "mx.deep.example.org", "mx.deep.example.org" },
    { "notexample.org", "*", "notexample.org" },
    { ".example.org", "*", ".example.org" },
    { "Other.Example", "*", "other.example" },
    { "held.example", "held.example", "!held.example" },
    { "[192.0.2.1]", "*", "[192.0.2.1]" },
    { "", "*", "." },
};

static const struct config_route *find(const struct config *c, struct slice domain)
{
    return route_find(c, &(struct route_query){ .domain = domain, .lane = LANE_NORMAL });
}

static size_t key_of(const struct config_route *route, struct slice domain, char *out)
{
    return route_dest_key(route, &(struct route_query){ .domain = domain }, out);
}

static void the_most_specific_pattern_wins(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char key[DEST_KEY_MAX];
        struct slice domain = slice_str(rows[i].domain);
        const struct config_route *route = find(&cfg, domain);
        if (!route || strcmp(route->pattern, rows[i].pattern) != 0)
            fail_msg("%s: %s, not %s", rows[i].domain, route ? route->pattern : "none",
                     rows[i].pattern);
        assert_int_equal(key_of(route, domain, key), strlen(rows[i].key));
        assert_string_equal(key, rows[i].key);
        assert_ptr_equal(route_of_key(&cfg, slice_str(key)), route);
    }
    assert_null(find(&strict, SLICE("other.example")));
    assert_null(find(&strict, SLICE_NONE));
}

/* Keys outlive configurations: what they named may be gone or be something else now. */
static void a_key_of_another_configuration_finds_nothing(void **state)
{
    assert_null(route_of_key(&cfg, SLICE("@gone.example")));
    assert_null(route_of_key(&cfg, SLICE("!example.org")));  /* a smarthost now */
    assert_null(route_of_key(&cfg, SLICE("held.example")));  /* was MX */
    assert_null(route_of_key(&cfg, SLICE("@held.example"))); /* held now */
    assert_null(route_of_key(&strict, SLICE("other.example")));
    assert_null(route_of_key(&cfg, SLICE("@")));
}

static void keys_are_bounded_and_printable(void **state)
{
    char key[DEST_KEY_MAX], longest[1000];
    memset(longest, 'L', sizeof(longest));
    const struct config_route *any = find(&cfg, SLICE("x"));
    assert_int_equal(key_of(any, slice_of(longest, sizeof(longest)), key), DEST_KEY_MAX - 1);
    assert_int_equal(strlen(key), DEST_KEY_MAX - 1);
    assert_int_equal(key_of(any, SLICE("a \x01\x7f\n.b"), key), 7);
    assert_string_equal(key, "a????.b");
}

/* --- sources --------------------------------------------------------------------------------- */

static struct config_source sources[] = { { .name = "a", .weight = 1 },
                                          { .name = "b", .weight = 1 } };
static struct config_route sourced[] = {
    { .name = "*", .pattern = "*", .relay = RELAY_MX, .source_set = 3 },
    { .name = "one", .pattern = "one.example", .relay = RELAY_SMARTHOST, .source_set = 2 },
    { .name = "none", .pattern = "none.example", .relay = RELAY_SMARTHOST },
};
static const struct config with_sources = { .routes = sourced,
                                            .route_count = ARRAY_LEN(sourced),
                                            .sources = sources,
                                            .source_count = ARRAY_LEN(sources) };

static bool is_current(const char *domain, const char *key)
{
    struct route_query query = { .domain = slice_str(domain), .lane = LANE_NORMAL };
    return route_key_is_current(&with_sources, &query, key);
}

static void a_source_is_a_part_of_the_key(void **state)
{
    char key[DEST_KEY_MAX];
    struct route_query query = { .domain = SLICE("x.example"), .waives_tls = true };
    route_source_key(&sourced[0], &query, &sources[1], key);
    assert_string_equal(key, "b^~x.example");
    assert_ptr_equal(route_of_key(&with_sources, slice_str(key)), &sourced[0]);
    assert_ptr_equal(route_key_source(&with_sources, key), &sources[1]);
    assert_string_equal(route_key_base(key), "~x.example");
    assert_string_equal(route_key_domain(key), "x.example");
    assert_true(route_key_waives_tls(key));
    route_source_key(&sourced[1], &query, &sources[1], key);
    assert_string_equal(key, "b^@one");
    assert_ptr_equal(route_of_key(&with_sources, slice_str(key)), &sourced[1]);
    assert_null(route_key_source(&with_sources, "gone^x.example"));
    assert_null(route_key_source(&with_sources, "x.example"));
}

static void a_key_is_current_while_its_route_names_its_source(void **state)
{
    assert_true(is_current("x.example", "a^x.example"));
    assert_true(is_current("x.example", "b^x.example"));
    assert_false(is_current("x.example", "gone^x.example"));
    assert_false(is_current("x.example", "x.example"));
    assert_false(is_current("x.example", "a^y.example"));
    assert_true(is_current("one.example", "b^@one"));
    assert_false(is_current("one.example", "a^@one"));
    assert_true(is_current("none.example", "@none"));
    assert_false(is_current("none.example", "a^@none"));
}

/* --- tenants and lanes -------------------------------------------------------------------------
 */

static char *shop[] = { "shop", "store" }, *news[] = { "news" };
static struct config_route special[] = {
    { .name = "*", .pattern = "*", .relay = RELAY_MX },
    { .name = "shop",
      .pattern = "*",
      .tenants = shop,
      .tenant_count = 2,
      .relay = RELAY_SMARTHOST },
    { .name = "bulk", .pattern = "*", .lanes = 1U << LANE_BULK, .relay = RELAY_MX },
    { .name = "shop-bulk",
      .pattern = "*",
      .tenants = shop,
      .tenant_count = 2,
      .lanes = 1U << LANE_BULK,
      .relay = RELAY_MX },
    { .name = "news-held",
      .pattern = "*.held.example",
      .tenants = news,
      .tenant_count = 1,
      .relay = RELAY_HOLD },
    { .name = "example.org", .pattern = "example.org", .relay = RELAY_SMARTHOST },
};
static const struct config by_tenant = { .routes = special, .route_count = ARRAY_LEN(special) };

static const struct {
    const char *domain, *tenant;
    enum mail_lane lane;
    const char *name, *key;
} choices[] = {
    { "a.example", "", LANE_NORMAL, "*", "a.example" },
    { "a.example", "other", LANE_URGENT, "*", "a.example" },
    { "a.example", "shop", LANE_NORMAL, "shop", "@shop" },
    { "a.example", "store", LANE_URGENT, "shop", "@shop" },
    { "a.example", "other", LANE_BULK, "bulk", "bulk/a.example" },
    { "A.Example", "shop", LANE_BULK, "shop-bulk", "shop-bulk/a.example" },
    { "", "shop", LANE_BULK, "shop-bulk", "shop-bulk/." },
    { "a.held.example", "news", LANE_BULK, "news-held", "!news-held" },
    { "a.held.example", "shop", LANE_NORMAL, "shop", "@shop" },
    { "example.org", "shop", LANE_BULK, "example.org", "@example.org" }, /* the domain decides */
};

/* P-72. */
static void mail_that_waives_tls_has_destinations_of_its_own(void **state)
{
    static const struct {
        const char *domain;
        enum mail_lane lane;
        const char *key, *of_key;
    } waiving[] = {
        { "a.example", LANE_NORMAL, "~a.example", "a.example" },
        { "a.example", LANE_BULK, "~bulk/a.example", "a.example" },
        { "", LANE_NORMAL, "~.", "." },
        { "example.org", LANE_NORMAL, "@example.org", NULL }, /* what a smarthost must is ours */
        { "~a.example", LANE_NORMAL, "~?a.example", "?a.example" },
    };
    for (size_t i = 0; i < ARRAY_LEN(waiving); i++) {
        char key[DEST_KEY_MAX];
        struct route_query query = { .domain = slice_str(waiving[i].domain),
                                     .lane = waiving[i].lane,
                                     .waives_tls = true };
        const struct config_route *route = route_find(&by_tenant, &query);
        route_dest_key(route, &query, key);
        assert_string_equal(key, waiving[i].key);
        assert_ptr_equal(route_of_key(&by_tenant, slice_str(key)), route);
        assert_int_equal(route_key_waives_tls(key), waiving[i].of_key != NULL);
        if (waiving[i].of_key)
            assert_string_equal(route_key_domain(key), waiving[i].of_key);
    }
}

static void the_tenant_then_the_lane_decide_among_routes_for_one_pattern(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
        char key[DEST_KEY_MAX];
        struct slice domain = slice_str(choices[i].domain);
        struct route_query query = { domain, slice_str(choices[i].tenant), choices[i].lane };
        const struct config_route *route = route_find(&by_tenant, &query);
        assert_non_null(route);
        assert_string_equal(route->name, choices[i].name);
        key_of(route, domain, key);
        assert_string_equal(key, choices[i].key);
        assert_ptr_equal(route_of_key(&by_tenant, slice_str(key)), route);
    }
}

static void a_special_route_that_is_gone_is_not_found_by_its_key(void **state)
{
    assert_null(route_of_key(&by_tenant, SLICE("gone/a.example")));
    assert_null(route_of_key(&by_tenant, SLICE("*/a.example")));    /* general: not its key */
    assert_null(route_of_key(&by_tenant, SLICE("shop/a.example"))); /* a smarthost */
    assert_null(route_of_key(&cfg, SLICE("bulk/a.example")));
}

static void the_domain_of_a_key(void **state)
{
    assert_string_equal(route_key_domain("a.example"), "a.example");
    assert_string_equal(route_key_domain("bulk/a.example"), "a.example");
}

/* --- splitting ------------------------------------------------------------------------------- */

static void add(struct message *m, const char *address)
{
    struct slice s = slice_str(address);
    message_add_rcpt(m, s, slice_skip(s, slice_find(s, '@') + 1));
}

struct split {
    struct message *m;
    struct arena arena;
    struct route_group *groups;
    uint32_t *unrouted, unrouted_count;
    size_t count;
};

static void split(struct split *s, const struct config *c, const uint32_t *rcpts, uint32_t count)
{
    arena_init(&s->arena);
    s->count = route_split(c, 0, s->m, rcpts, count, &s->arena, &s->groups, &s->unrouted,
                           &s->unrouted_count);
}

static void split_done(struct split *s)
{
    arena_done(&s->arena);
    message_unref(s->m);
}

static void check_group(const struct route_group *g, const char *key, const uint32_t *rcpts,
                        uint32_t count)
{
    assert_string_equal(g->key, key);
    assert_int_equal(g->rcpt_count, count);
    assert_memory_equal(g->rcpts, rcpts, count * sizeof(*rcpts));
    assert_non_null(g->route);
}

static struct message *mixed_message(void)
{
    struct message *m = message_new(NULL);
    add(m, "a@z.example");       /* 0 */
    add(m, "b@example.org");     /* 1 */
    add(m, "c@Z.Example");       /* 2 */
    add(m, "d@one.example.org"); /* 3 */
    add(m, "e@a.example");       /* 4 */
    add(m, "f@two.example.org"); /* 5 */
    add(m, "postmaster");        /* 6 */
    add(m, "g@z.example");       /* 7 */
    return m;
}

static void groups_come_in_the_order_of_recipients(void **state)
{
    struct split s = { .m = mixed_message() };
    split(&s, &cfg, NULL, 0);
    assert_int_equal(s.count, 5);
    assert_int_equal(s.unrouted_count, 0);
    check_group(&s.groups[0], "z.example", (uint32_t[]){ 0, 2, 7 }, 3);
    check_group(&s.groups[1], "@example.org", (uint32_t[]){ 1 }, 1);
    check_group(&s.groups[2], "@*.example.org", (uint32_t[]){ 3, 5 }, 2);
    check_group(&s.groups[3], "a.example", (uint32_t[]){ 4 }, 1);
    check_group(&s.groups[4], ".", (uint32_t[]){ 6 }, 1);
    split_done(&s);
}

static void only_the_given_ones_in_the_given_order(void **state)
{
    struct split s = { .m = mixed_message() };
    split(&s, &cfg, (uint32_t[]){ 7, 4, 0 }, 3);
    assert_int_equal(s.count, 2);
    check_group(&s.groups[0], "z.example", (uint32_t[]){ 7, 0 }, 2);
    check_group(&s.groups[1], "a.example", (uint32_t[]){ 4 }, 1);
    split_done(&s);
}

static void who_has_no_route_is_named(void **state)
{
    struct split s = { .m = mixed_message() };
    split(&s, &strict, NULL, 0);
    assert_int_equal(s.count, 2);
    check_group(&s.groups[0], "@example.org", (uint32_t[]){ 1 }, 1);
    check_group(&s.groups[1], "@*.example.org", (uint32_t[]){ 3, 5 }, 2);
    assert_int_equal(s.unrouted_count, 5);
    assert_memory_equal(s.unrouted, ((uint32_t[]){ 0, 2, 4, 6, 7 }), 5 * sizeof(uint32_t));
    arena_done(&s.arena);
    split(&s, &strict, (uint32_t[]){ 0 }, 1);
    assert_int_equal(s.count, 0);
    assert_int_equal(s.unrouted_count, 1);
    split_done(&s);
}

/* P-71, P-215: U-labels and A-labels name the same place; what has no A-labels has none. */
static void a_domain_has_one_place_however_it_is_written(void **state)
{
    char key[DEST_KEY_MAX];
    struct split s = { .m = message_new(NULL) };
    add(s.m, "a@caf\xc3\xa9.example");
    add(s.m, "b@XN--CAF-DMA.example");
    add(s.m, "c@a\xe3\x80\x82z.example");
    add(s.m, "d@\xc3\xa9.example.org");
    split(&s, &cfg, NULL, 0);
    assert_int_equal(s.count, 3);
    check_group(&s.groups[0], "xn--caf-dma.example", (uint32_t[]){ 0, 1 }, 2);
    check_group(&s.groups[1], ".", (uint32_t[]){ 2 }, 1);
    check_group(&s.groups[2], "@*.example.org", (uint32_t[]){ 3 }, 1);
    for (uint32_t i = 0; i < 4; i++) {
        struct slice domain = s.m->rcpts[i].domain;
        const struct config_route *route = find(&cfg, domain);
        size_t len = key_of(route, domain, key);
        assert_string_equal(key, s.groups[i == 0 ? 0 : i - 1].key);
        assert_ptr_equal(route_of_key(&cfg, slice_of(key, len)), route);
    }
    split_done(&s);
}

/* The limit of limits.recipients_max, each at a domain of its own, twice: seconds if it were
 * quadratic even for far fewer. */
static void many_domains_are_split_quickly(void **state)
{
    const uint32_t domains = 50000;
    struct split s = { .m = message_new(NULL) };
    for (uint32_t i = 0; i < 2 * domains; i++) {
        char address[64];
        snprintf(address, sizeof(address), "u@d%u.example", i * 7919 % domains);
        add(s.m, address);
    }
    clock_t start = clock();
    split(&s, &cfg, NULL, 0);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 5);
    assert_int_equal(s.count, domains);
    for (uint32_t i = 0; i < domains; i++) {
        assert_int_equal(s.groups[i].rcpt_count, 2);
        assert_int_equal(s.groups[i].rcpts[0], i);
        assert_int_equal(s.groups[i].rcpts[1], i + domains);
    }
    split_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_specific_pattern_wins),
        cmocka_unit_test(a_key_of_another_configuration_finds_nothing),
        cmocka_unit_test(keys_are_bounded_and_printable),
        cmocka_unit_test(a_source_is_a_part_of_the_key),
        cmocka_unit_test(a_key_is_current_while_its_route_names_its_source),
        cmocka_unit_test(the_tenant_then_the_lane_decide_among_routes_for_one_pattern),
        cmocka_unit_test(a_special_route_that_is_gone_is_not_found_by_its_key),
        cmocka_unit_test(mail_that_waives_tls_has_destinations_of_its_own),
        cmocka_unit_test(the_domain_of_a_key),
        cmocka_unit_test(groups_come_in_the_order_of_recipients),
        cmocka_unit_test(only_the_given_ones_in_the_given_order),
        cmocka_unit_test(who_has_no_route_is_named),
        cmocka_unit_test(a_domain_has_one_place_however_it_is_written),
        cmocka_unit_test(many_domains_are_split_quickly),
    };
    return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
