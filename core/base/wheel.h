/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * wheel - deadlines for tens of thousands of sessions at the price of a list link each.
 *
 * A hashed hierarchical wheel: 4 levels of 64 slots; a tick is 16 ms, so the levels span about 1 s,
 * 65 s, 70 min and 3 days; later deadlines wait in the last slot and are put in again. A timer
 * fires at or after its due time, never before, at most two ticks late. Setting and clearing are
 * O(1). A timer that is set again simply moves.
 */
#include "core/base/list.h"
#include <stdint.h>

#define WHEEL_TICK_MS 16
#define WHEEL_LEVELS  4
#define WHEEL_SLOTS   64

struct wheel_timer;
typedef void wheel_fn(struct wheel_timer *timer); /* may set or clear any timer, its own too */

struct wheel_timer {
    struct list node; /* on a slot while set */
    int64_t due_ms;   /* monotonic */
    wheel_fn *fire;   /* container_of(timer, ...) finds the owner */
};

struct wheel {
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
    uint64_t occupied[WHEEL_LEVELS]; /* bit per slot that may hold a timer */
    int64_t tick;                    /* ticks of WHEEL_TICK_MS passed, of the monotonic clock */
    uint32_t count;                  /* timers set */
};

void wheel_init(struct wheel *w, int64_t now_ms);
void wheel_timer_init(struct wheel_timer *t, wheel_fn *fire);
void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t due_ms);
void wheel_clear(struct wheel *w, struct wheel_timer *t); /* harmless when not set */
bool wheel_timer_is_set(const struct wheel_timer *t);
/* Fires all that is due, in order of ticks. */
void wheel_advance(struct wheel *w, int64_t now_ms);
/* Milliseconds until something may be due: 0 at once, -1 never. May be early, never late. */
int64_t wheel_wait_ms(const struct wheel *w, int64_t now_ms);
