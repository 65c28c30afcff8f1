/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits that workers keep together: what lua/sites.lua answers in a real Redis, and several pools
 * that ask it, at random, with answers that are lost: never more connections than the limit, never
 * more of them for mail that is not urgent than its share, and everything is sent in the end, with
 * nothing left in Redis.
 */
#include "tests/lib/queue_words.h"

#include "core/base/entropy.h"
#include "core/relay/pool_inside.h"

#define SITES(...) say("FCALL", "kilat_sites", "1", QUEUE_CFG_KEY, ##__VA_ARGS__, NULL)
#define W3         "3333333333333333"

/* --- one question at a time ------------------------------------------------------------------ */

/* Numbers: most, plain most, kept, plain kept; urgent, plain, turned; welcome: urgent, plain;
 * messages, interval in us, burst; less was asked for, messages taken. Answers: connections, plain,
 * waits; messages, ms to wait; pace. */

static void what_is_free_is_given_up_to_the_limit(void **state)
{
    expect(SITES(W1, LONG, "mx", "2 2 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 0 1 1 0 0 0 1000 ]");
    expect(SITES(W2, LONG, "mx", "2 2 0 0 0 2 0 0 0 0 0 0 0 0"), "[ 0 1 1 1 0 0 1000 ]");
    expect(SITES(W1, LONG, "mx", "2 2 1 1 0 0 0 0 1 0 0 0 0 0"), "[ 1 1 1 0 0 0 1000 pmx ]");
    expect(SITES(W3, LONG, "other", "2 2 0 0 1 0 0 0 0 0 0 0 0 0"), "[ 0 1 0 0 0 0 1000 ]");
}

static void a_share_is_for_urgent_mail(void **state)
{
    expect(SITES(W1, LONG, "mx", "2 1 0 0 0 2 0 0 0 0 0 0 0 0"), "[ 0 1 1 1 0 0 1000 ]");
    expect(SITES(W2, LONG, "mx", "2 1 0 0 1 0 0 0 0 0 0 0 0 0"), "[ 0 1 0 0 0 0 1000 ]");
    expect(SITES(W3, LONG, "mx", "2 1 0 0 1 0 0 0 0 0 0 0 0 0"), "[ 0 0 0 1 0 0 1000 ]");
    expect(SITES(W2, LONG), "[ 1 umx ]");
    expect(SITES(W2, LONG, "mx", "2 1 1 0 0 0 1 0 0 0 0 0 0 0"), "[ 1 1 0 1 0 0 1000 pmx ]");
}

static void who_waits_is_told_and_first(void **state)
{
    SITES(W1, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0");
    expect(SITES(W2, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 0 0 0 1 0 0 1000 ]");
    expect(SITES(W1, LONG), "[ 1 pmx ]");
    expect(SITES(W1, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 1 0 0 1 0 0 1000 ]");
    expect(SITES(W3, LONG, "mx", "1 1 0 0 0 0 0 0 1 0 0 0 0 0"), "[ 0 0 0 0 0 0 1000 ]");
    expect(SITES(W2, LONG), "[ 1 fmx ]");
    expect(SITES(W2, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 1 1 1 0 0 0 1000 ]");
}

static void urgent_mail_waits_before_other(void **state)
{
    SITES(W1, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0");
    SITES(W2, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0");
    SITES(W3, LONG, "mx", "1 1 0 0 1 0 0 0 0 0 0 0 0 0");
    SITES(W1, LONG, "mx", "1 1 0 0 0 0 0 0 0 0 0 0 0 0");
    expect(SITES(W2, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 1 0 0 1 0 0 1000 fmx ]");
    expect(SITES(W3, LONG, "mx", "1 1 0 0 1 0 0 0 0 0 0 0 0 0"), "[ 1 1 0 0 0 0 1000 fmx ]");
}

static void what_is_kept_is_not_taken_away(void **state)
{
    SITES(W1, LONG, "mx", "4 4 0 0 0 3 0 0 0 0 0 0 0 0");
    expect(SITES(W1, LONG, "mx", "2 2 3 3 0 0 0 0 0 0 0 0 0 0"), "[ 1 3 3 0 0 0 1000 ]");
    expect(SITES(W1, LONG, "mx", "2 2 2 2 0 1 0 0 0 0 0 0 0 0"), "[ 1 2 2 1 0 0 1000 pmx ]");
}

static void a_lease_that_ended_frees_all(void **state)
{
    SITES(W1, "1", "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0");
    usleep(20000);
    expect(SITES(W2, LONG, "mx", "1 1 0 0 0 1 0 0 0 0 0 0 0 0"), "[ 0 1 1 0 0 0 1000 ]");
    expect(SITES(W1, LONG, "mx", "1 1 1 1 0 0 0 0 0 0 0 0 0 0"), "[ 0 0 0 0 0 0 1000 ]");
    expect(SITES(W2, LONG, "mx", "1 1 0 0 0 0 0 0 0 0 0 0 0 0"), "[ 1 0 0 0 0 0 1000 ]");
    expect(SAY("KEYS", "{cfg}s[toqn]*"), "[ ]");
}

/* The first `burst` at once, then one each interval, in the order of asking; a block comes when its
 * last is due. */
static void a_rate_is_kept_in_order(void **state)
{
    static const char *const one = "0 0 0 0 0 0 0 0 0 1 60000000 2 0 0";
    expect(SITES(W1, LONG, "mx", "0 0 0 0 0 0 0 0 0 5 60000000 2 0 0"), "[ 0 0 0 0 2 0 1000 ]");
    const char *first = SITES(W1, LONG, "mx", one), *second = SITES(W2, LONG, "mx", one);
    int wait_1 = 0, wait_2 = 0;
    assert_int_equal(sscanf(first, "[ 1 0 0 0 1 %d 1000 ]", &wait_1), 1);
    assert_int_equal(sscanf(second, "[ 0 0 0 0 1 %d 1000 ]", &wait_2), 1);
    assert_in_range(wait_1, 50000, 60000);
    assert_in_range(wait_2 - wait_1, 50000, 60000);
    expect(SITES(W2, LONG, "other", one), "[ 1 0 0 0 1 0 1000 ]");
}

/* Halved once, however many say so; then a step for each twenty messages, to all of it. */
static void a_site_that_asks_for_less_gets_half(void **state)
{
    static const char *const cut = "8 6 6 6 0 0 0 0 0 0 0 0 1 0";
    SITES(W1, LONG, "mx", "8 6 0 0 0 6 0 0 0 0 0 0 0 0");
    expect(SITES(W1, LONG, "mx", cut), "[ 1 6 6 0 0 0 500 ]");
    expect(SITES(W1, LONG, "mx", cut), "[ 1 6 6 0 0 0 500 ]");
    expect(SITES(W1, LONG, "mx", "8 6 2 2 0 4 0 0 0 0 0 0 0 0"), "[ 1 3 3 1 0 0 500 pmx ]");
    expect(SITES(W2, LONG, "mx", "8 6 0 0 2 0 0 0 0 0 0 0 0 0"), "[ 0 1 0 1 0 0 500 ]");
    expect(SITES(W3, LONG, "mx", "0 0 0 0 0 0 0 0 0 0 0 0 0 19"), "[ 0 0 0 0 0 0 500 ]");
    expect(SITES(W3, LONG, "mx", "0 0 0 0 0 0 0 0 0 0 0 0 0 21"), "[ 1 0 0 0 0 0 600 ]");
    expect(SITES(W3, LONG, "mx", "0 0 0 0 0 0 0 0 0 0 0 0 0 180"), "[ 1 0 0 0 0 0 1000 ]");
    expect(SAY("KEYS", "{cfg}sa:*"), "[ ]");
}

static void one_connection_is_left(void **state)
{
    static const char *const cut = "3 2 0 0 0 0 0 0 0 0 0 0 1 0";
    for (int i = 0; i < 6; i++) {
        SAY("SET", "{cfg}sa:mx", i == 0 ? "70 0 0" : "62 0 0");
        expect(SITES(W1, LONG, "mx", cut), i == 0 ? "[ 0 0 0 0 0 0 62 ]" : "[ 1 0 0 0 0 0 62 ]");
    }
    expect(SITES(W1, LONG, "mx", "3 2 0 0 0 2 0 0 0 0 0 0 0 0"), "[ 1 1 1 1 0 0 62 ]");
}

/* --- several pools --------------------------------------------------------------------------- */

#define POOLS      3
#define MOST       4
#define PLAIN_MOST 3
#define STEPS      4000
#define LINKS_MAX  16

struct sim_link {
    struct relay_slot *slot; /* NULL: none */
    struct delivery *flying[2];
    bool is_up, is_asked;
};

static struct config_route routes[] = {
    { .name = "*", .pattern = "*", .relay = RELAY_MX, .connections = MOST }
};
static struct sim {
    struct config cfg;
    struct entropy dice;
    uint64_t seed;
    struct now now;
    struct relay_pool *pools[POOLS];
    struct sim_link links[POOLS][LINKS_MAX];
    struct message *messages[LANE_COUNT];
    uint32_t added, sent, peak;
    bool is_good; /* no answer is lost */
} sim;

static uint32_t roll(uint32_t sides)
{
    return (uint32_t)entropy_below(&sim.dice, sides);
}

static void sim_add(int pool)
{
    char id[DELIVERY_ID_MAX], dest[32];
    uint32_t rcpt = 0;
    snprintf(id, sizeof id, "%u", sim.added++);
    snprintf(dest, sizeof dest, "d%u.example", roll(4));
    struct message *m = sim.messages[roll(5) ? LANE_NORMAL : LANE_URGENT];
    relay_pool_add(sim.pools[pool], delivery_new(m, id, slice_str(dest), 0, &rcpt, 1));
}

static void sim_resolve(int pool, struct relay_dest *dest)
{
    struct relay_host host = { .addr_len = 1, .name = "mx0", .site = "mx" };
    relay_pool_resolved(sim.pools[pool], dest, &host, 1, 1000, NULL, &sim.now);
}

static struct sim_link *link_of(int pool, const struct relay_slot *slot)
{
    for (int i = 0; i < LINKS_MAX; i++)
        if (sim.links[pool][i].slot == slot)
            return &sim.links[pool][i];
    fail_msg("no such connection");
    return NULL;
}

static void sim_act(int pool)
{
    for (;;) {
        struct relay_action a = relay_pool_next(sim.pools[pool], &sim.now);
        struct sim_link *l;
        switch (a.kind) {
        case RELAY_NOTHING: return;
        case RELAY_RESOLVE: sim_resolve(pool, a.dest); break;
        case RELAY_CONNECT: *link_of(pool, NULL) = (struct sim_link){ .slot = a.slot }; break;
        case RELAY_QUIT: link_of(pool, a.slot)->is_asked = true; break;
        case RELAY_DEFER: fail_msg("nothing fails here"); break;
        case RELAY_SEND:
            l = link_of(pool, a.slot);
            l->flying[l->flying[0] != NULL] = a.delivery;
            break;
        }
    }
}

static void sim_finish(int pool, struct sim_link *l)
{
    struct delivery *d = l->flying[0];
    l->flying[0] = l->flying[1];
    l->flying[1] = NULL;
    sim.sent++;
    delivery_free(d);
    relay_pool_sent(sim.pools[pool], l->slot, &sim.now);
}

/* Something happens to a connection. */
static void sim_move(int pool)
{
    struct sim_link *l = &sim.links[pool][roll(LINKS_MAX)];
    if (!l->slot)
        return;
    if (!l->is_up) {
        l->is_up = true;
        relay_pool_connected(sim.pools[pool], l->slot, &sim.now);
    } else if (l->flying[0] && !l->flying[1] && !roll(3)) {
        relay_pool_can_overlap(sim.pools[pool], l->slot);
    } else if (l->flying[0] && !sim.is_good && !roll(40)) {
        relay_pool_slow_down(sim.pools[pool], l->slot);
    } else if (l->flying[0]) {
        relay_pool_went_well(sim.pools[pool], l->slot);
        sim_finish(pool, l);
    } else if (l->is_asked) {
        struct relay_slot *slot = l->slot;
        *l = (struct sim_link){ .slot = NULL };
        relay_pool_slot_gone(sim.pools[pool], slot, NULL, &sim.now);
    }
}

static const char *numbers_of(char text[140], const struct relay_site_ask *a)
{
    snprintf(text, 140, "%u %u %u %u %u %u %u %u %u %u %u %u %d %u", a->most, a->plain_most,
             a->kept, a->plain_kept, a->urgent, a->plain, a->turned, a->urgent_welcome,
             a->plain_welcome, a->tokens, a->interval_us, a->burst, a->asks_for_less, a->good);
    return text;
}

static void sim_hear(int pool, struct relay_site *site, redisReply *r)
{
    struct relay_site_answer a;
    unsigned is_queued;
    if (site) {
        assert_int_equal(sscanf(r->element[1]->str, "%u %u %u %u %u %u", &a.connections, &a.plain,
                                &is_queued, &a.tokens, &a.wait_ms, &a.pace),
                         6);
        a.is_queued = is_queued != 0;
        relay_pool_site_answered(sim.pools[pool], site, &a, &sim.now);
    }
    for (size_t i = site ? 2 : 1; i < r->elements; i++)
        relay_pool_site_news(sim.pools[pool], slice_str(r->element[i]->str));
}

/* A question is lost on its way, or its answer; then it is asked again. */
static void sim_ask(int pool)
{
    char worker[24], text[140];
    struct relay_site_ask ask;
    relay_pool_sites_tick(sim.pools[pool], !roll(5), &sim.now);
    struct relay_site *site = relay_pool_site_next(sim.pools[pool], &ask);
    uint32_t luck = sim.is_good ? 9 : roll(10);
    snprintf(worker, sizeof worker, "%d", pool);
    redisReply *r = NULL;
    if (luck > 0 && site)
        r = redisCommand(redis, "FCALL kilat_sites 1 {cfg} %s 60000 %s %s", worker,
                         relay_site_name(site), numbers_of(text, &ask));
    else if (luck > 0)
        r = redisCommand(redis, "FCALL kilat_sites 1 {cfg} %s 60000", worker);
    if (luck > 1)
        sim_hear(pool, site, r);
    else if (site)
        relay_pool_site_unanswered(sim.pools[pool], site);
    freeReplyObject(r);
}

static uint32_t plain_links(int pool)
{
    uint32_t count = 0;
    for (int i = 0; i < LINKS_MAX; i++)
        count += sim.links[pool][i].slot && sim.links[pool][i].slot->is_plain;
    return count;
}

static void check_limits(void)
{
    uint32_t connections = 0, plain = 0;
    for (int i = 0; i < POOLS; i++) {
        connections += relay_pool_connections(sim.pools[i]);
        plain += plain_links(i);
    }
    assert_true(connections <= MOST);
    sim.peak = connections > sim.peak ? connections : sim.peak;
    assert_true(plain <= PLAIN_MOST);
}

static void sim_step(void)
{
    int pool = (int)roll(POOLS);
    sim.now.mono_ms += roll(20);
    switch (roll(6)) {
    case 0: sim_ask(pool); break;
    case 1:
        if (!sim.is_good && !roll(3))
            sim_add(pool);
        break;
    default: sim_move(pool); break;
    }
    sim_act(pool);
    check_limits();
}

static uint32_t known_sites(void)
{
    uint32_t count = 0;
    for (int i = 0; i < POOLS; i++)
        count += relay_pool_sites(sim.pools[i]);
    return count;
}

static void sim_begin(uint64_t seed)
{
    sim = (struct sim){ .cfg = { .routes = routes, .route_count = 1 }, .now = { .mono_ms = 1000 } };
    routes[0].rate = (struct config_rate){ seed % 3 == 0 ? 200000 : 0, 1000 };
    sim.cfg.relay.adaptive = seed % 2 == 0;
    sim.cfg.relay.connections_max = 10;
    sim.cfg.relay.per_destination_max = 5;
    sim.cfg.relay.messages_per_connection = 20;
    sim.cfg.relay.idle_timeout_ms = 3000;
    sim.cfg.relay.urgent_share = 20;
    sim.seed = seed;
    entropy_init_seeded(&sim.dice, &sim.seed);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        sim.messages[lane] = message_new(NULL);
        message_add_rcpt(sim.messages[lane], SLICE("a@x.example"), SLICE("x.example"));
        sim.messages[lane]->lane = lane_letter((enum mail_lane)lane);
    }
    for (int i = 0; i < POOLS; i++)
        sim.pools[i] = relay_pool_new(&sim.cfg);
}

static void sim_end(void)
{
    for (int i = 0; i < POOLS; i++)
        relay_pool_free(sim.pools[i]);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        message_unref(sim.messages[lane]);
}

static void pools_keep_the_limits_and_send_all(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        flush(state);
        sim_begin(seed);
        for (int i = 0; i < STEPS; i++)
            sim_step();
        sim.is_good = true;
        for (int i = 0; i < 50 * STEPS && sim.sent < sim.added; i++)
            sim_step();
        sim.now.mono_ms += 3600 * 1000; /* how slow a site was is remembered for so long */
        SAY("DEL", "{cfg}sa:mx");
        for (int i = 0; i < STEPS && known_sites() > 0; i++)
            sim_step();
        assert_true(sim.added > 100 && (sim.peak == MOST || sim.cfg.relay.adaptive));
        assert_int_equal(sim.sent, sim.added);
        assert_int_equal(known_sites(), 0);
        expect(SAY("KEYS", "{cfg}s[toq]*"), "[ ]");
        sim_end();
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup(name, flush)
    static const struct CMUnitTest tests[] = {
        CASE(what_is_free_is_given_up_to_the_limit),
        CASE(a_share_is_for_urgent_mail),
        CASE(who_waits_is_told_and_first),
        CASE(urgent_mail_waits_before_other),
        CASE(what_is_kept_is_not_taken_away),
        CASE(a_lease_that_ended_frees_all),
        CASE(a_rate_is_kept_in_order),
        CASE(a_site_that_asks_for_less_gets_half),
        CASE(one_connection_is_left),
        CASE(pools_keep_the_limits_and_send_all),
    };
    return cmocka_run_group_tests_name("sites", tests, start_server, stop_server);
}
