/* SPDX-License-Identifier: Apache-2.0 */
/* wheel: random timers against a model that only remembers due times; never early, at most two
 * ticks late, each once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/entropy.h"
#include "core/base/wheel.h"

#define TIMERS 300
#define LATE   (2 * WHEEL_TICK_MS)

struct probe {
    struct wheel_timer timer;
    bool is_set; /* what the model believes */
    int64_t set_at, due;
    uint32_t fired;
};

static struct wheel wheel;
static struct probe probes[TIMERS];
static int64_t now;      /* what wheel_advance is being told */
static int64_t previous; /* what it was told before */
static int64_t last_due_tick;
static struct entropy entropy;

static int64_t tick_of(int64_t due)
{
    return (due + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
}

static void on_fire(struct wheel_timer *t)
{
    struct probe *p = container_of(t, struct probe, timer);
    assert_true(p->is_set);
    assert_false(wheel_timer_is_set(t));
    assert_true(now >= p->due); /* never early */
    int64_t could = p->due > p->set_at ? p->due : p->set_at;
    assert_true(previous < could + LATE); /* an earlier turn would have fired it otherwise */
    if (tick_of(p->due) > tick_of(p->set_at)) {
        assert_true(tick_of(p->due) >= last_due_tick); /* in order of ticks */
        last_due_tick = tick_of(p->due);
    }
    p->is_set = false;
    p->fired++;
}

static void set_probe(struct probe *p, int64_t due)
{
    wheel_set(&wheel, &p->timer, due);
    p->is_set = true;
    p->due = due;
    p->set_at = now;
}

static uint32_t model_count(void)
{
    uint32_t n = 0;
    for (int i = 0; i < TIMERS; i++)
        n += probes[i].is_set;
    return n;
}

static int64_t model_next_due(void)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < TIMERS; i++)
        if (probes[i].is_set && probes[i].due < next)
            next = probes[i].due;
    return next;
}

/* Spans of every level and beyond the last one. */
static int64_t random_delay(void)
{
    static const int64_t spans[] = { 1,       16,        900,       1100,          60000,
                                     4200000, 250000000, 300000000, 10 * 86400000L };
    return (int64_t)entropy_below(&entropy, (uint64_t)spans[entropy_below(&entropy, 9)] + 1);
}

static void advance_to(int64_t when)
{
    previous = now;
    now = when;
    last_due_tick = 0;
    wheel_advance(&wheel, now);
    for (int i = 0; i < TIMERS; i++)
        if (probes[i].is_set) /* what is left is not overdue by two ticks */
            assert_true(now < probes[i].due + LATE || now < probes[i].set_at + LATE);
    assert_int_equal(wheel.count, model_count());
}

static void start(uint64_t *seed, int64_t at)
{
    entropy_init_seeded(&entropy, seed);
    now = previous = at;
    wheel_init(&wheel, now);
    for (int i = 0; i < TIMERS; i++) {
        probes[i] = (struct probe){ 0 };
        wheel_timer_init(&probes[i].timer, on_fire);
    }
}

static void touch_some(void)
{
    for (uint64_t n = entropy_below(&entropy, 20); n > 0; n--) {
        struct probe *p = &probes[entropy_below(&entropy, TIMERS)];
        if (entropy_below(&entropy, 4) == 0) {
            wheel_clear(&wheel, &p->timer);
            p->is_set = false;
        } else {
            set_probe(p, now + random_delay() - 20);
        }
        assert_int_equal(wheel_timer_is_set(&p->timer), p->is_set);
    }
}

static void random_timers_agree_with_the_model(void **state)
{
    for (uint64_t round = 1; round <= 40; round++) {
        uint64_t seed = round;
        start(&seed, (int64_t)(round * 987654321));
        for (int turn = 0; turn < 500; turn++) {
            touch_some();
            int64_t wait = wheel_wait_ms(&wheel, now);
            int64_t next = model_next_due();
            assert_int_equal(wait < 0, next == INT64_MAX);
            if (wait > 0 && next > now) /* may be early, never late */
                assert_true(now + wait < next + LATE);
            advance_to(now + random_delay() / (entropy_below(&entropy, 2) ? 1 : 1000));
        }
    }
}

static void sleeping_as_told_fires_everything_in_time(void **state)
{
    uint64_t seed = 7;
    start(&seed, 1000);
    for (int i = 0; i < TIMERS; i++)
        set_probe(&probes[i], now + random_delay());
    int64_t wait, turns = 0;
    while ((wait = wheel_wait_ms(&wheel, now)) >= 0) {
        advance_to(now + wait);
        turns++;
    }
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(probes[i].fired, 1);
    assert_true(turns < TIMERS * 2 * WHEEL_LEVELS); /* no busy waiting */
}

static void waiting_is_endless_only_when_nothing_is_set(void **state)
{
    uint64_t seed = 1;
    start(&seed, 12345);
    assert_int_equal(wheel_wait_ms(&wheel, now), -1);
    set_probe(&probes[0], now - 5000); /* already due: the next tick */
    assert_true(wheel_wait_ms(&wheel, now) <= WHEEL_TICK_MS);
    assert_int_equal(wheel_wait_ms(&wheel, now + 1000), 0);
    wheel_clear(&wheel, &probes[0].timer);
    wheel_clear(&wheel, &probes[0].timer); /* harmless */
    assert_int_equal(wheel_wait_ms(&wheel, now), -1);
    assert_int_equal(wheel.count, 0);
}

static struct wheel_timer again, victim;
static uint32_t again_count, victim_count;

static void on_again(struct wheel_timer *t)
{
    wheel_clear(&wheel, &victim);
    if (++again_count < 5)
        wheel_set(&wheel, t, t->due_ms); /* overdue again: must not spin */
}

static void on_victim(struct wheel_timer *t)
{
    victim_count++;
}

static void a_callback_may_set_itself_and_clear_others(void **state)
{
    wheel_init(&wheel, 0);
    again_count = victim_count = 0;
    wheel_timer_init(&again, on_again);
    wheel_timer_init(&victim, on_victim);
    wheel_set(&wheel, &again, 100);
    wheel_set(&wheel, &victim, 100); /* same slot, behind it */
    for (int64_t ms = 0; ms <= 400; ms += WHEEL_TICK_MS)
        wheel_advance(&wheel, ms);
    assert_int_equal(again_count, 5);
    assert_int_equal(victim_count, 0);
    assert_int_equal(wheel.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_timers_agree_with_the_model),
        cmocka_unit_test(sleeping_as_told_fires_everything_in_time),
        cmocka_unit_test(waiting_is_endless_only_when_nothing_is_set),
        cmocka_unit_test(a_callback_may_set_itself_and_clear_others),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
