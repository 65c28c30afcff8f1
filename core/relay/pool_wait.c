/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_wait - what waits for a destination, and which of it goes next.
 *
 * A destination has a list for each lane. In a lane each tenant that has mail there has a line, and
 * the lines take turns. A line is made by the first delivery of its tenant and goes with the last;
 * but the last line of a lane stays, empty, for what comes next is most often of the same tenant.
 * Lines come from a heap of spare ones, so in the long run nothing is allocated.
 *
 * Between lanes: urgent always first. Normal mail goes before bulk, but while both wait every
 * eighth of them is bulk (BULK_EVERY), so that a newsletter is late and not stuck.
 *
 * Between tenants of a lane: deficit round robin. A turn is worth `tenant.weight` and a delivery
 * costs COST_OF_RCPT for each recipient, and as much again for each 64 KiB; a line goes on until
 * its credit is used up, and what it took beyond that it owes at its next turns. Recipients,
 * because they are what hosts count and limit, and what round trips are spent on; octets with them,
 * since ten megabytes hold a connection for as long as hundreds of small letters. Debts make it
 * exact over time without knowing the next delivery's cost before its turn. With the usual weight
 * tenants alternate letter by letter. A tenant that is alone in a lane pays nothing.
 *
 * Finding the line of a delivery costs a comparison when its tenant is the only one, a hash
 * otherwise; taking the next one a few steps for each recipient sent, whatever waits. Mail of
 * tenants that the configuration does not know stands in one line with mail that has none.
 *
 * Limits: as many lines as tenants times lanes times destinations have mail in memory, and one for
 * each lane of a destination that had; SPARE_MAX more are kept.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdlib.h>

#define BULK_EVERY     8
#define WEIGHT_USUAL   10
#define COST_OF_RCPT   10
#define COST_OCTETS    (64 * 1024)
#define COST_RCPTS_MAX 100 /* of one delivery: nobody owes for more than a few hundred turns */
#define LINES_MIN      64
#define SPARE_MAX      4096

/* What one tenant has waiting in one lane of one destination. */
struct pool_line {
    struct list turn; /* on its lane's turns, or among the spare ones */
    struct list deliveries;
    struct pool_line *hash_next;
    struct relay_lane *lane; /* borrowed; what it is part of */
    uint32_t tenant;         /* index into the configuration's; their count: any other */
    int32_t credit;
};

/* --- tenants --------------------------------------------------------------------------------- */

static uint32_t tenant_of(const struct relay_pool *p, const struct delivery *d)
{
    return tenant_index_find(&p->waits.tenants, d->message->tenant);
}

static int32_t weight_of(const struct relay_pool *p, const struct pool_line *line)
{
    if (line->tenant >= p->cfg->tenant_count)
        return WEIGHT_USUAL;
    const struct config_tenant *tenant = &p->cfg->tenants[line->tenant];
    return tenant->weight > 0 ? (int32_t)tenant->weight : WEIGHT_USUAL;
}

/* --- lines ----------------------------------------------------------------------------------- */

static struct pool_line *line_at(struct list *turn)
{
    return list_entry(turn, struct pool_line, turn);
}

static struct pool_line **bucket_of(const struct pool_waits *w, const struct relay_lane *lane,
                                    uint32_t tenant)
{
    uint64_t h = ((uint64_t)(uintptr_t)lane ^ ((uint64_t)tenant << 40)) * 0x9e3779b97f4a7c15u;
    return &w->lines[(h >> 32) & (w->bucket_count - 1)];
}

static void insert(struct pool_waits *w, struct pool_line *line)
{
    struct pool_line **to = bucket_of(w, line->lane, line->tenant);
    line->hash_next = *to;
    *to = line;
}

static void grow(struct pool_waits *w)
{
    struct pool_line **old = w->lines, *line;
    uint32_t old_count = w->bucket_count;
    w->bucket_count *= 2;
    w->lines = mem_zalloc(w->bucket_count * sizeof *w->lines);
    for (uint32_t i = 0; i < old_count; i++)
        while ((line = old[i])) {
            old[i] = line->hash_next;
            insert(w, line);
        }
    free(old);
}

static struct pool_line *line_find(const struct pool_waits *w, const struct relay_lane *lane,
                                   uint32_t tenant)
{
    if (list_is_empty(&lane->turns))
        return NULL;
    if (line_at(lane->turns.prev)->tenant == tenant)
        return line_at(lane->turns.prev);
    struct pool_line *line = *bucket_of(w, lane, tenant);
    while (line && (line->lane != lane || line->tenant != tenant))
        line = line->hash_next;
    return line;
}

/* It has a turn at once, behind those that wait. */
static struct pool_line *line_new(struct relay_pool *p, struct relay_lane *lane, uint32_t tenant)
{
    struct pool_waits *w = &p->waits;
    struct list *spare = list_pop_front(&w->spare);
    struct pool_line *line = spare ? line_at(spare) : mem_zalloc(sizeof *line);
    w->spare_count -= spare != NULL;
    if (w->line_count++ == w->bucket_count)
        grow(w);
    list_init(&line->deliveries);
    line->lane = lane;
    line->tenant = tenant;
    line->credit = weight_of(p, line);
    list_push_back(&lane->turns, &line->turn);
    insert(w, line);
    return line;
}

static void line_drop(struct pool_waits *w, struct pool_line *line)
{
    struct pool_line **link = bucket_of(w, line->lane, line->tenant);
    while (*link != line)
        link = &(*link)->hash_next;
    *link = line->hash_next;
    list_remove(&line->turn);
    w->line_count--;
    if (w->spare_count >= SPARE_MAX) {
        free(line);
        return;
    }
    list_push_front(&w->spare, &line->turn);
    w->spare_count++;
}

static bool is_alone(const struct relay_lane *lane, const struct pool_line *line)
{
    return lane->turns.next == &line->turn && lane->turns.prev == &line->turn;
}

/* The line of that tenant; the one that stayed is its, or goes. */
static struct pool_line *line_for(struct relay_pool *p, struct relay_lane *lane, uint32_t tenant)
{
    if (lane->count == 0 && !list_is_empty(&lane->turns)) {
        struct pool_line *stayed = line_at(lane->turns.next);
        stayed->credit = weight_of(p, stayed);
        if (stayed->tenant == tenant)
            return stayed;
        line_drop(&p->waits, stayed);
    }
    struct pool_line *line = line_find(&p->waits, lane, tenant);
    return line ? line : line_new(p, lane, tenant);
}

void pool_drop_lines(struct relay_pool *p, struct relay_dest *dest)
{
    for (int i = 0; i < LANE_COUNT; i++)
        if (!list_is_empty(&dest->lanes[i].turns))
            line_drop(&p->waits, line_at(dest->lanes[i].turns.next));
}

/* --- in and out ------------------------------------------------------------------------------ */

void pool_waits_init(struct relay_pool *p)
{
    struct pool_waits *w = &p->waits;
    list_init(&w->spare);
    w->bucket_count = LINES_MIN;
    w->lines = mem_zalloc(w->bucket_count * sizeof *w->lines);
    tenant_index_init(&w->tenants, p->cfg);
}

void pool_waits_done(struct relay_pool *p)
{
    struct pool_waits *w = &p->waits;
    struct list *node;
    must(w->line_count == 0);
    while ((node = list_pop_front(&w->spare)))
        free(line_at(node));
    free(w->lines);
    tenant_index_done(&w->tenants);
}

void pool_put_waiting(struct relay_pool *p, struct relay_dest *dest, struct delivery *d,
                      bool is_first)
{
    struct relay_lane *lane = &dest->lanes[message_lane(d->message)];
    struct pool_line *line = line_for(p, lane, tenant_of(p, d));
    if (is_first)
        list_push_front(&line->deliveries, &d->node);
    else
        list_push_back(&line->deliveries, &d->node);
    lane->count++;
    dest->waiting_count++;
    p->waiting++;
    if (dest->waiting_count == p->crowd_least)
        list_push_back(&p->crowds, &dest->crowd);
}

/* After deliveries went. */
static void leave_crowds(const struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->waiting_count < p->crowd_least)
        list_remove(&dest->crowd);
}

static int32_t cost_of(const struct delivery *d)
{
    uint64_t units = d->rcpt_count + d->message->size / COST_OCTETS;
    return COST_OF_RCPT * (int32_t)(units < COST_RCPTS_MAX ? units : COST_RCPTS_MAX);
}

/* The line whose turn it is, with credit. Who has none is paid for the turn that it lets pass. */
static struct pool_line *line_in_turn(const struct relay_pool *p, struct relay_lane *lane)
{
    struct pool_line *line = line_at(lane->turns.next);
    while (line->credit <= 0 && lane->turns.prev != &line->turn) {
        line->credit += weight_of(p, line);
        list_remove(&line->turn);
        list_push_back(&lane->turns, &line->turn);
        line = line_at(lane->turns.next);
    }
    return line;
}

static void charge(const struct relay_pool *p, struct relay_lane *lane, struct pool_line *line,
                   const struct delivery *d)
{
    if (is_alone(lane, line))
        line->credit = weight_of(p, line);
    else
        line->credit -= cost_of(d);
}

struct delivery *pool_pop_waiting(struct relay_pool *p, struct relay_dest *dest,
                                  enum mail_lane which)
{
    struct relay_lane *lane = &dest->lanes[which];
    must(lane->count > 0);
    struct pool_line *line = line_in_turn(p, lane);
    struct delivery *d = list_entry(list_pop_front(&line->deliveries), struct delivery, node);
    charge(p, lane, line, d);
    if (list_is_empty(&line->deliveries) && !is_alone(lane, line))
        line_drop(&p->waits, line);
    lane->count--;
    dest->waiting_count--;
    p->waiting--;
    leave_crowds(p, dest);
    return d;
}

enum mail_lane pool_plain_lane(const struct relay_dest *dest)
{
    if (dest->lanes[LANE_BULK].count == 0)
        return LANE_NORMAL;
    bool is_bulk = dest->lanes[LANE_NORMAL].count == 0 || dest->bulk_passed_by + 1 >= BULK_EVERY;
    return is_bulk ? LANE_BULK : LANE_NORMAL;
}

struct delivery *pool_pop_plain(struct relay_pool *p, struct relay_dest *dest)
{
    enum mail_lane lane = pool_plain_lane(dest);
    bool is_passing = lane == LANE_NORMAL && dest->lanes[LANE_BULK].count > 0;
    dest->bulk_passed_by = is_passing ? dest->bulk_passed_by + 1 : 0;
    return pool_pop_waiting(p, dest, lane);
}

/* --- all of them ----------------------------------------------------------------------------- */

static void take_from_line(struct relay_pool *p, struct relay_dest *dest, struct pool_line *line,
                           struct list *to, uint32_t shard)
{
    struct relay_lane *lane = line->lane;
    list_for_each_safe (node, &line->deliveries) {
        if (shard != POOL_ALL_SHARDS && list_entry(node, struct delivery, node)->shard != shard)
            continue;
        list_remove(node);
        list_push_back(to, node);
        lane->count--;
        dest->waiting_count--;
        p->waiting--;
    }
    if (list_is_empty(&line->deliveries))
        line_drop(&p->waits, line);
}

void pool_take_waiting(struct relay_pool *p, struct relay_dest *dest, struct list *to,
                       uint32_t shard)
{
    for (int i = 0; i < LANE_COUNT; i++)
        list_for_each_safe (node, &dest->lanes[i].turns)
            take_from_line(p, dest, line_at(node), to, shard);
    leave_crowds(p, dest);
}

/* --- crowds ---------------------------------------------------------------------------------- */

void relay_pool_watch_crowds(struct relay_pool *p, uint32_t least)
{
    must(p->waiting == 0 && least > 0);
    p->crowd_least = least;
}

uint32_t relay_pool_crowd(const struct relay_pool *p, const char *key)
{
    if (list_is_empty(&p->crowds))
        return 0;
    const struct relay_dest *dest = pool_find_dest(p, key);
    return dest && dest->waiting_count >= p->crowd_least ? dest->waiting_count : 0;
}

size_t relay_pool_crowded(const struct relay_pool *p, uint32_t most, const char **keys, size_t max)
{
    size_t count = 0;
    list_for_each (node, &p->crowds) {
        const struct relay_dest *dest = list_entry(node, struct relay_dest, crowd);
        if (dest->waiting_count >= most && count < max)
            keys[count++] = dest->key;
    }
    return count;
}
