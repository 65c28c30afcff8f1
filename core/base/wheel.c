/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wheel - where a timer waits, and when its slot is looked at.
 *
 * Ticks are counted on the monotonic clock. A timer due d ticks from now waits on the level whose
 * span holds d: level 0 has one slot per tick, level k one per 64^k ticks. When the wheel reaches
 * the first tick of a slot of a higher level, its timers are put in again and fall to a lower one.
 * Deadlines are rounded up to a tick, so a timer is never early.
 *
 * The occupied bits are exact, so an idle stretch is crossed in one step however long it was.
 * A slot is fired in place: what a callback sets is due in a later tick, which is another slot.
 */
#include "core/base/wheel.h"

#define SLOT_BITS 6
#define SLOT_MASK (WHEEL_SLOTS - 1)
#define SPAN      ((int64_t)1 << (SLOT_BITS * WHEEL_LEVELS)) /* ticks of the whole wheel */

void wheel_init(struct wheel *w, int64_t now_ms)
{
    *w = (struct wheel){ .tick = now_ms / WHEEL_TICK_MS };
    for (int level = 0; level < WHEEL_LEVELS; level++)
        for (int slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&w->slots[level][slot]);
}

void wheel_timer_init(struct wheel_timer *t, wheel_fn *fire)
{
    *t = (struct wheel_timer){ .fire = fire };
    list_init(&t->node);
}

bool wheel_timer_is_set(const struct wheel_timer *t)
{
    return t->node.next != &t->node;
}

static int64_t due_tick(const struct wheel_timer *t)
{
    return t->due_ms / WHEEL_TICK_MS + (t->due_ms % WHEEL_TICK_MS > 0);
}

/* Puts t on the slot of its tick, which is at least `earliest`. */
static void place(struct wheel *w, struct wheel_timer *t, int64_t earliest)
{
    int64_t tick = due_tick(t);
    if (tick < earliest)
        tick = earliest;
    if (tick - w->tick >= SPAN)
        tick = w->tick + SPAN - 1;
    int level = 0;
    while ((tick - w->tick) >> (SLOT_BITS * (level + 1)))
        level++;
    int slot = (int)(tick >> (SLOT_BITS * level)) & SLOT_MASK;
    list_push_back(&w->slots[level][slot], &t->node);
    w->occupied[level] |= (uint64_t)1 << slot;
}

/* Takes t off its slot; the last one to leave clears the slot's bit. */
static void take_off(struct wheel *w, struct wheel_timer *t)
{
    struct list *neighbour = t->node.next;
    list_remove(&t->node);
    if (!list_is_empty(neighbour))
        return;
    size_t at = (size_t)(neighbour - &w->slots[0][0]);
    w->occupied[at / WHEEL_SLOTS] &= ~((uint64_t)1 << (at % WHEEL_SLOTS));
}

void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t due_ms)
{
    if (wheel_timer_is_set(t))
        take_off(w, t);
    else
        w->count++;
    t->due_ms = due_ms;
    place(w, t, w->tick + 1); /* the slot of this tick has been fired */
}

void wheel_clear(struct wheel *w, struct wheel_timer *t)
{
    if (!wheel_timer_is_set(t))
        return;
    take_off(w, t);
    w->count--;
}

/* The next tick at which some slot is to be looked at; -1 when all are empty. */
static int64_t next_tick(const struct wheel *w)
{
    int64_t next = -1;
    for (int level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t bits = w->occupied[level];
        if (!bits)
            continue;
        int64_t first = (w->tick >> (SLOT_BITS * level)) + 1; /* the slot after the current one */
        int turn = (int)(first & SLOT_MASK);
        if (turn)
            bits = bits >> turn | bits << (WHEEL_SLOTS - turn);
        int64_t at = (first + __builtin_ctzll(bits)) << (SLOT_BITS * level);
        if (next < 0 || at < next)
            next = at;
    }
    return next;
}

static struct wheel_timer *first_of(struct list *slot)
{
    return list_entry(slot->next, struct wheel_timer, node);
}

/* Slots of higher levels that begin at this tick hand their timers down. */
static void hand_down(struct wheel *w)
{
    for (int level = 1; level < WHEEL_LEVELS; level++) {
        int shift = SLOT_BITS * level;
        if (w->tick & (((int64_t)1 << shift) - 1))
            return;
        struct list *slot = &w->slots[level][(w->tick >> shift) & SLOT_MASK];
        while (!list_is_empty(slot)) {
            struct wheel_timer *t = first_of(slot);
            take_off(w, t);
            place(w, t, w->tick);
        }
    }
}

void wheel_advance(struct wheel *w, int64_t now_ms)
{
    int64_t target = now_ms / WHEEL_TICK_MS;
    int64_t next;
    while ((next = next_tick(w)) >= 0 && next <= target) {
        w->tick = next;
        hand_down(w);
        struct list *slot = &w->slots[0][next & SLOT_MASK];
        while (!list_is_empty(slot)) {
            struct wheel_timer *t = first_of(slot);
            wheel_clear(w, t);
            t->fire(t);
        }
    }
    if (w->tick < target)
        w->tick = target;
}

int64_t wheel_wait_ms(const struct wheel *w, int64_t now_ms)
{
    int64_t next = next_tick(w);
    if (next < 0)
        return -1;
    int64_t wait = next * WHEEL_TICK_MS - now_ms;
    return wait > 0 ? wait : 0;
}
