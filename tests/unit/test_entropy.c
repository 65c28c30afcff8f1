/* SPDX-License-Identifier: Apache-2.0 */
/* entropy: repeatable from a seed, no byte twice, used bytes wiped, bounds fair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/entropy.h"
#include <string.h>

/* Counts up, so that every octet of the stream is known. */
struct counter {
    uint8_t next;
    uint32_t calls;
};

static void fill_counting(void *ctx, void *out, size_t len)
{
    struct counter *c = ctx;
    c->calls++;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = ++c->next;
}

static void one_seed_one_stream(void **state)
{
    uint64_t seed1 = 42, seed2 = 42, seed3 = 43;
    struct entropy a, b, c;
    entropy_init_seeded(&a, &seed1);
    entropy_init_seeded(&b, &seed2);
    entropy_init_seeded(&c, &seed3);
    uint32_t different = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = entropy_u64(&a);
        assert_int_equal(value, entropy_u64(&b));
        different += value != entropy_u64(&c);
    }
    assert_int_equal(different, 1000);
}

static void the_pool_is_fetched_in_one_call_and_wiped(void **state)
{
    struct counter counter = { 0 };
    struct entropy e;
    uint8_t out[300];
    entropy_init(&e, fill_counting, &counter);
    for (uint32_t i = 0; i < 32; i++)
        (void)entropy_u64(&e);
    assert_int_equal(counter.calls, 1);
    for (size_t i = 0; i < sizeof e.pool; i++)
        assert_int_equal(e.pool[i], 0);
    entropy_bytes(&e, out, 1);
    assert_int_equal(counter.calls, 2);
    entropy_bytes(&e, out, sizeof out); /* more than the pool: straight from the source */
    assert_int_equal(counter.calls, 3);
    entropy_bytes(&e, out, 0);
    assert_int_equal(counter.calls, 3);
}

static void below_stays_below_and_reaches_all(void **state)
{
    uint64_t seed = 5;
    struct entropy e;
    uint32_t seen[7] = { 0 };
    entropy_init_seeded(&e, &seed);
    for (int i = 0; i < 70000; i++)
        seen[entropy_below(&e, 7)]++;
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500);
    assert_int_equal(entropy_below(&e, 1), 0);
    for (int i = 0; i < 1000; i++)
        assert_true(entropy_below(&e, UINT64_MAX) < UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_seed_one_stream),
        cmocka_unit_test(the_pool_is_fetched_in_one_call_and_wiped),
        cmocka_unit_test(below_stays_below_and_reaches_all),
    };
    return cmocka_run_group_tests_name("entropy", tests, NULL, NULL);
}
