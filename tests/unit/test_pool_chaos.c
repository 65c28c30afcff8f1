/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool against a driver that does anything a driver may do, at random: deliveries come, names
 * resolve or not, connections come up, refuse, hang, serve, overlap, break, a host cannot take what
 * another might, time passes. After
 * every step a model of our own says what must hold: no limit is passed, no delivery is lost, given
 * twice or given to the wrong destination, a connection in a closing state is left alone. In some
 * cases every host dies then, slowly, and all that waits must be given back. Then the world becomes
 * good, and everything must drain by the pool's own wake times alone.
 *
 * A failing case names its seed; give it as the first argument to run it alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/entropy.h"
#include "core/base/must.h"
#include "core/relay/pool.h"
#include <stdio.h>

#define STEPS          3000
#define CASES          300
#define DELIVERIES_MAX (STEPS * 8)
#define SLOTS_MAX      16
#define TENANTS        4 /* the last is none of the configuration's */
#define DESTS          12
#define ACTIONS_MAX    20000 /* of one pump */

enum fate { ABSENT, WAITING, FLYING, GIVEN_BACK, OVER };
enum link { FREE, CONNECTING, UP, ASKED, CLOSING };

struct sim_slot {
    enum link link;
    struct relay_slot *slot; /* borrowed */
    struct delivery *flying[2];
    bool may_overlap;
};

static struct config_route routes[] = { { .name = "*", .pattern = "*", .relay = RELAY_MX } };
static struct config_tenant tenants[TENANTS - 1] = { { .name = "tiny", .weight = 1 },
                                                     { .name = "usual", .weight = 10 },
                                                     { .name = "large", .weight = 100 } };
static struct sim {
    uint64_t seed;
    struct entropy dice;
    struct config cfg;
    struct relay_pool *pool;
    struct message *messages[LANE_COUNT][TENANTS];
    struct now now;
    enum fate fates[DELIVERIES_MAX];
    uint32_t added, waiting, links, flying;
    struct sim_slot slots[SLOTS_MAX];
    struct relay_dest *lookups[DESTS]; /* that the pool asked for */
    uint32_t lookup_count;
    bool is_good;   /* everything works from now on */
    bool is_dead;   /* names resolve, and nothing else works */
    bool is_hosted; /* destinations have hosts together */
} sim;

static void check_that(bool is_so, int line, const char *what)
{
    if (!is_so)
        fail_msg("seed %llu line %d: %s", (unsigned long long)sim.seed, line, what);
}

#define CHECK(condition) check_that((condition), __LINE__, #condition)

static uint32_t roll(uint32_t sides)
{
    return (uint32_t)entropy_below(&sim.dice, sides);
}

/* --- the world ------------------------------------------------------------------------------- */

static const struct rcpt_outcome broken = { .stage = OUTCOME_CONNECT,
                                            .code = 421,
                                            .text = { "broken", 6 } };

static void add(void)
{
    char id[DELIVERY_ID_MAX], dest[32];
    uint32_t rcpt = 0;
    if (sim.added == DELIVERIES_MAX)
        return;
    snprintf(id, sizeof id, "%u", sim.added);
    /* Half of all mail is for two destinations. */
    snprintf(dest, sizeof dest, "d%u.example", roll(2) ? roll(2) : roll(DESTS));
    /* Half of all mail is normal and nobody's. */
    struct message *m = roll(2) ? sim.messages[LANE_NORMAL][TENANTS - 1]
                                : sim.messages[roll(LANE_COUNT)][roll(TENANTS)];
    struct delivery *d = delivery_new(m, id, slice_str(dest), (uint16_t)roll(4), &rcpt, 1);
    sim.fates[sim.added++] = WAITING;
    sim.waiting++;
    relay_pool_add(sim.pool, d);
}

static void add_some(void)
{
    uint32_t count = roll(10) ? 1 : 40;
    if (sim.waiting < 300)
        while (count-- > 0)
            add();
}

static enum fate *fate_of(const struct delivery *d)
{
    return &sim.fates[strtoul(d->id, NULL, 10)];
}

static void end(struct delivery *d)
{
    CHECK(*fate_of(d) == FLYING || *fate_of(d) == GIVEN_BACK);
    *fate_of(d) = OVER;
    delivery_free(d);
}

static struct sim_slot *find(const struct relay_slot *slot)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        if (sim.slots[i].link != FREE && sim.slots[i].slot == slot)
            return &sim.slots[i];
    CHECK(!"a slot of the pool's");
    return NULL;
}

/* A random one in that state; NULL: none. */
static struct sim_slot *some(enum link link)
{
    uint32_t from = roll(SLOTS_MAX);
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        if (sim.slots[(from + i) % SLOTS_MAX].link == link)
            return &sim.slots[(from + i) % SLOTS_MAX];
    return NULL;
}

static void gone(struct sim_slot *s, const struct rcpt_outcome *failure)
{
    CHECK(!s->flying[0]);
    relay_pool_slot_gone(sim.pool, s->slot, failure, &sim.now);
    *s = (struct sim_slot){ 0 };
    sim.links--;
}

/* This host cannot take it. True: it waits for another one. */
static bool is_misfit(struct sim_slot *s, struct delivery *d)
{
    if (sim.is_good || roll(6))
        return false;
    d->outcomes[0] = (struct rcpt_outcome){ .stage = OUTCOME_LOCAL, .code = 552 };
    if (!relay_pool_misfit(sim.pool, s->slot, d))
        return false;
    *fate_of(d) = WAITING;
    sim.waiting++;
    return true;
}

/* The oldest transaction of the slot is over; one in five that may is put back. */
static void land(struct sim_slot *s, bool may_requeue)
{
    struct delivery *d = s->flying[0];
    s->flying[0] = s->flying[1];
    s->flying[1] = NULL;
    s->may_overlap = false;
    sim.flying--;
    relay_pool_sent(sim.pool, s->slot, &sim.now);
    if (is_misfit(s, d))
        return;
    if (may_requeue && roll(5) == 0) {
        *fate_of(d) = WAITING;
        sim.waiting++;
        relay_pool_requeue(sim.pool, d);
    } else {
        end(d);
    }
}

/* In half of the cases destinations with as many hosts share their connections. */
static void name_host(struct relay_host *h, uint32_t number, uint32_t name, uint32_t count)
{
    h->addr_len = sizeof(struct sockaddr_in);
    ((struct sockaddr_in *)&h->addr)->sin_port = (in_port_t)number;
    snprintf(h->name, sizeof h->name, "mx%u", name);
    if (sim.is_hosted)
        snprintf(h->site, sizeof h->site, "%u hosts", count);
}

static void resolve(void)
{
    struct relay_host hosts[3] = { 0 };
    struct rcpt_outcome why = { .stage = OUTCOME_DNS, .code = roll(2) ? 451 : 550 };
    if (sim.lookup_count == 0)
        return;
    uint32_t i = roll(sim.lookup_count);
    struct relay_dest *dest = sim.lookups[i];
    sim.lookups[i] = sim.lookups[--sim.lookup_count];
    size_t count = sim.is_good ? 1 : sim.is_dead ? 3 : roll(4);
    uint32_t per_name = 1 + roll(2);
    for (uint32_t k = 0; k < count; k++)
        name_host(&hosts[k], k, k / per_name, (uint32_t)count);
    relay_pool_resolved(sim.pool, dest, hosts, count, roll(3) * 4000, count ? NULL : &why,
                        &sim.now);
}

static void connect_ends(void)
{
    struct sim_slot *s = some(CONNECTING);
    if (!s)
        return;
    if (sim.is_good || roll(2)) {
        s->link = UP;
        s->slot->messages_max = roll(4);
        relay_pool_connected(sim.pool, s->slot, &sim.now);
    } else {
        if (roll(2))
            relay_pool_slot_closing(sim.pool, s->slot);
        gone(s, roll(8) ? &broken : NULL);
    }
}

static void transaction_ends(void)
{
    struct sim_slot *s = some(UP);
    if (s && s->flying[0])
        land(s, false);
}

static void overlap(void)
{
    struct sim_slot *s = some(UP);
    if (!s || !s->flying[0] || s->flying[1])
        return;
    s->may_overlap = true;
    relay_pool_can_overlap(sim.pool, s->slot);
}

static void breaks(void)
{
    struct sim_slot *s = some(UP);
    if (!s || sim.is_good)
        return;
    if (roll(2))
        relay_pool_slot_closing(sim.pool, s->slot);
    while (s->flying[0])
        land(s, true);
    if (roll(4) == 0) {
        gone(s, NULL);
        return;
    }
    relay_pool_slot_closing(sim.pool, s->slot);
    s->link = CLOSING;
}

static void is_gone(void)
{
    struct sim_slot *s = some(roll(2) ? CLOSING : ASKED);
    if (s)
        gone(s, NULL);
}

static void lose_shard(void)
{
    uint16_t shard = (uint16_t)roll(4);
    struct delivery *d;
    if (sim.is_good || roll(50))
        return;
    while ((d = relay_pool_take_shard(sim.pool, shard))) {
        CHECK(d->shard == shard && *fate_of(d) == WAITING);
        sim.waiting--;
        *fate_of(d) = GIVEN_BACK;
        end(d);
    }
}

static void suspend_some(void)
{
    static const int64_t spans[] = { 1, 500, 5000, 100000 };
    char dest[32];
    snprintf(dest, sizeof dest, "d%u.example", roll(DESTS));
    relay_pool_suspend(sim.pool, dest, sim.now.mono_ms + spans[roll(ARRAY_LEN(spans))], &broken,
                       &sim.now);
}

static void pass_time(void)
{
    static const int64_t spans[] = { 1, 10, 500, 1000, 3000, 70000 };
    sim.now.mono_ms += spans[roll(ARRAY_LEN(spans))];
}

/* --- what the pool asks ---------------------------------------------------------------------- */

static void on_resolve(const struct relay_action *a)
{
    for (uint32_t i = 0; i < sim.lookup_count; i++)
        CHECK(sim.lookups[i] != a->dest);
    CHECK(sim.lookup_count < DESTS);
    sim.lookups[sim.lookup_count++] = a->dest;
}

static void on_connect(const struct relay_action *a)
{
    uint32_t of_dest = 0;
    struct sim_slot *s = some(FREE);
    CHECK(relay_pool_suspension_ms(sim.pool, a->dest->key, &sim.now) == 0);
    CHECK(s && sim.links < sim.cfg.relay.connections_max);
    CHECK(a->host >= a->dest->hosts && a->host < a->dest->hosts + a->dest->host_count);
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        of_dest += sim.slots[i].link != FREE && sim.slots[i].slot->dest == a->dest;
    CHECK(of_dest < sim.cfg.relay.per_destination_max);
    CHECK(a->dest->waiting_count > 4 * (uint32_t)(a->dest->connecting_count - 1) || of_dest == 0 ||
          a->slot->is_for_misfits);
    *s = (struct sim_slot){ .link = CONNECTING, .slot = a->slot };
    sim.links++;
}

static uint32_t messages_max(const struct relay_slot *slot)
{
    uint32_t ours = sim.cfg.relay.messages_per_connection;
    return slot->messages_max > 0 && slot->messages_max < ours ? slot->messages_max : ours;
}

static bool is_urgent(const struct delivery *d)
{
    return d->message->lane == 'u';
}

/* Connections of one destination that plain mail may be on, as the settings say. */
static uint32_t plain_max(void)
{
    uint32_t most = sim.cfg.relay.per_destination_max, share = sim.cfg.relay.urgent_share;
    if (share == 0 || most == 1)
        return most;
    return most - (most * share < 100 ? 1 : most * share / 100);
}

/* Misfits may be on a connection that is kept for urgent mail. */
static bool is_plain(const struct delivery *d)
{
    return d && !is_urgent(d) && d->misfit.tries == 0;
}

/* Those of a destination that have such mail in flight, other than this one. */
static uint32_t plain_links(const struct relay_dest *dest, const struct sim_slot *but)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        const struct sim_slot *s = &sim.slots[i];
        if (s == but || s->link == FREE || s->slot->dest != dest || !s->flying[0])
            continue;
        count += is_plain(s->flying[0]) || is_plain(s->flying[1]);
    }
    return count;
}

/* What waits in a lane; a misfit has been through that before. */
static void check_lanes(const struct relay_action *a, const struct sim_slot *s)
{
    if (is_urgent(a->delivery) || a->delivery->misfit.tries > 0)
        return;
    CHECK(a->dest->lanes[LANE_URGENT].count == 0);
    CHECK(plain_links(a->dest, s) < plain_max());
}

static void on_send(const struct relay_action *a)
{
    struct sim_slot *s = find(a->slot);
    check_lanes(a, s);
    CHECK(s->link == UP);
    CHECK(relay_pool_suspension_ms(sim.pool, a->dest->key, &sim.now) == 0);
    CHECK(!s->flying[0] || (!s->flying[1] && s->may_overlap));
    CHECK(*fate_of(a->delivery) == WAITING);
    CHECK(strcmp(a->delivery->dest, a->slot->dest->key) == 0);
    CHECK(a->slot->messages <= messages_max(a->slot));
    *fate_of(a->delivery) = FLYING;
    sim.waiting--;
    sim.flying++;
    s->may_overlap = false;
    s->flying[s->flying[0] != NULL] = a->delivery;
}

static void on_quit(const struct relay_action *a)
{
    struct sim_slot *s = find(a->slot);
    CHECK(s->link == UP && !s->flying[0]);
    s->link = ASKED;
}

static void on_defer(const struct relay_action *a)
{
    CHECK(*fate_of(a->delivery) == WAITING);
    CHECK(a->delivery->outcomes[0].stage != OUTCOME_NONE && a->delivery->outcomes[0].code >= 400);
    *fate_of(a->delivery) = GIVEN_BACK;
    sim.waiting--;
    end(a->delivery);
}

static void pump(void)
{
    for (uint32_t i = 0;; i++) {
        CHECK(i < ACTIONS_MAX);
        struct relay_action a = relay_pool_next(sim.pool, &sim.now);
        switch (a.kind) {
        case RELAY_RESOLVE: on_resolve(&a); break;
        case RELAY_CONNECT: on_connect(&a); break;
        case RELAY_SEND: on_send(&a); break;
        case RELAY_QUIT: on_quit(&a); break;
        case RELAY_DEFER: on_defer(&a); break;
        case RELAY_NOTHING: return;
        }
    }
}

/* Something waits that a READY connection may take. */
static bool may_serve(const struct relay_dest *dest)
{
    return dest->lanes[LANE_URGENT].count > 0 ||
           (dest->waiting_count > 0 && dest->plain_count < plain_max());
}

/* ... and one with a transaction: urgent mail goes behind plain only for want of others. */
static bool may_follow(const struct sim_slot *s)
{
    const struct relay_dest *dest = s->slot->dest;
    if (dest->lanes[LANE_URGENT].count > 0)
        return !s->slot->is_plain;
    return dest->waiting_count > 0 && (s->slot->is_plain || dest->plain_count < plain_max());
}

static void check(void)
{
    CHECK(relay_pool_waiting(sim.pool) == sim.waiting);
    CHECK(relay_pool_connections(sim.pool) == sim.links);
    CHECK(relay_pool_wake_ms(sim.pool) > sim.now.mono_ms);
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        const struct sim_slot *s = &sim.slots[i];
        if (s->link != UP)
            continue;
        /* A connection that could serve does. */
        CHECK(s->flying[0] || !may_serve(s->slot->dest));
        CHECK(!s->may_overlap || s->flying[1] || !may_follow(s) ||
              s->slot->messages == messages_max(s->slot) || s->slot->is_for_misfits);
    }
}

/* --- a case ---------------------------------------------------------------------------------- */

static const struct {
    void (*happens)(void);
    uint32_t weight;
} events[] = {
    { add_some, 10 },  { resolve, 5 },      { connect_ends, 6 }, { transaction_ends, 12 },
    { overlap, 6 },    { pass_time, 2 },    { breaks, 1 },       { is_gone, 5 },
    { lose_shard, 1 }, { suspend_some, 1 },
};

static void step(void)
{
    uint32_t sum = 0, pick;
    size_t i = 0;
    for (size_t k = 0; k < ARRAY_LEN(events); k++)
        sum += events[k].weight;
    for (pick = roll(sum); pick >= events[i].weight; i++)
        pick -= events[i].weight;
    events[i].happens();
    if (roll(3)) { /* several events in a turn of the loop, too */
        pump();
        check();
    }
}

/* All that is under way ends well, in one turn. */
static bool world_moves(void)
{
    uint32_t before = sim.lookup_count + sim.flying;
    while (sim.lookup_count)
        resolve();
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        struct sim_slot *s = &sim.slots[i];
        before += s->link != FREE && s->link != UP;
        if (s->link == CONNECTING) {
            s->link = UP;
            relay_pool_connected(sim.pool, s->slot, &sim.now);
        } else if (s->link == ASKED || s->link == CLOSING) {
            gone(s, NULL);
        }
        while (s->link == UP && s->flying[0])
            land(s, false);
    }
    return before > 0;
}

/* Events, and where there are none the pool's own wake time, must be enough to end everything. */
static void everything_drains(void)
{
    sim.is_good = true;
    for (uint32_t turns = 0; sim.waiting + sim.flying + sim.links > 0; turns++) {
        CHECK(turns < 4 * DELIVERIES_MAX);
        pump();
        check();
        if (world_moves())
            continue;
        int64_t wake = relay_pool_wake_ms(sim.pool);
        CHECK(wake != INT64_MAX);
        sim.now.mono_ms = wake;
    }
    pump();
    CHECK(relay_pool_wake_ms(sim.pool) == INT64_MAX);
    for (uint32_t i = 0; i < sim.added; i++)
        CHECK(sim.fates[i] == OVER);
}

/* All that is under way fails, after longer than any address is good for. */
static void world_fails(void)
{
    sim.now.mono_ms += 30000;
    while (sim.lookup_count)
        resolve();
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        struct sim_slot *s = &sim.slots[i];
        while (s->flying[0])
            land(s, true);
        if (s->link != FREE)
            gone(s, s->link == CONNECTING ? &broken : NULL);
    }
}

/* Each host of each destination is tried once, with as little as one connection at a time. */
static void everything_is_given_back(void)
{
    sim.is_dead = true;
    for (uint32_t turns = 0; sim.waiting + sim.flying + sim.links > 0; turns++) {
        CHECK(turns < 10 * DESTS);
        world_fails();
        pump();
        check();
    }
    sim.is_dead = false;
}

static void shut_down(void)
{
    relay_pool_drain(sim.pool);
    sim.is_good = true;
    do {
        pump();
        check();
        CHECK(sim.waiting == 0);
    } while (world_moves());
    CHECK(sim.links == 0 && sim.flying == 0);
}

static void make_messages(void)
{
    for (int lane = 0; lane < LANE_COUNT; lane++)
        for (int tenant = 0; tenant < TENANTS; tenant++) {
            struct message *m = sim.messages[lane][tenant] = message_new(NULL);
            message_add_rcpt(m, SLICE("a@x.example"), SLICE("x.example"));
            m->lane = "unb"[lane];
            m->tenant = tenant < TENANTS - 1 ? slice_str(tenants[tenant].name) : SLICE("nobody");
            m->size = roll(3) * 200000;
        }
}

static void free_messages(void)
{
    for (int i = 0; i < LANE_COUNT * TENANTS; i++)
        message_unref(sim.messages[i / TENANTS][i % TENANTS]);
}

static void begin(uint64_t seed)
{
    static uint64_t state;
    memset(&sim, 0, sizeof sim);
    sim.seed = state = seed;
    entropy_init_seeded(&sim.dice, &state);
    sim.cfg = (struct config){ .routes = routes,
                               .route_count = ARRAY_LEN(routes),
                               .tenants = tenants,
                               .tenant_count = ARRAY_LEN(tenants) };
    sim.cfg.relay.connections_max = 1 + roll(6);
    sim.cfg.relay.per_destination_max = 1 + roll(4);
    sim.cfg.relay.messages_per_connection = 1 + roll(6);
    sim.cfg.relay.idle_timeout_ms = roll(2) ? 5000 : 600;
    sim.now.mono_ms = 1000 + roll(1000000);
    sim.cfg.relay.urgent_share = roll(2) ? roll(91) : 0;
    sim.is_hosted = seed / 2 % 2;
    make_messages();
    sim.pool = relay_pool_new(&sim.cfg);
}

static void run_case(uint64_t seed)
{
    begin(seed);
    for (uint32_t i = 0; i < STEPS; i++)
        step();
    if (seed % 2 == 0)
        everything_is_given_back();
    if (seed % 3 == 0)
        shut_down();
    else
        everything_drains();
    relay_pool_free(sim.pool);
    free_messages();
}

static uint64_t only_seed;

static void anything_may_happen(void **state)
{
    if (only_seed) {
        run_case(only_seed);
        return;
    }
    for (uint64_t seed = 1; seed <= CASES; seed++)
        run_case(seed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(anything_may_happen) };
    only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    return cmocka_run_group_tests_name("pool: chaos", tests, NULL, NULL);
}
