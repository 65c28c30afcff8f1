/* SPDX-License-Identifier: Apache-2.0 */
/* Digests that are remembered: for a time, up to a number, the least used first to go. */
#include "io/auth_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define TTL 1000

/* All end in the same slot when `slot` is the same. */
static const uint8_t *digest(uint32_t slot, uint32_t n)
{
    static uint8_t out[4][AUTH_DIGEST_LEN];
    static unsigned next;
    uint8_t *d = out[next++ % 4];
    memset(d, 0, AUTH_DIGEST_LEN);
    memcpy(d, &slot, sizeof slot);
    memcpy(d + 16, &n, sizeof n);
    return d;
}

static void remembers_until_the_time_is_over(void **state)
{
    struct auth_cache *c = auth_cache_new(10, TTL);
    assert_false(auth_cache_has(c, digest(1, 1), 0));
    auth_cache_put(c, digest(1, 1), 0);
    assert_true(auth_cache_has(c, digest(1, 1), TTL - 1)); /* asking prolongs nothing */
    assert_false(auth_cache_has(c, digest(1, 2), 0));
    assert_false(auth_cache_has(c, digest(1, 1), TTL));
    assert_int_equal(auth_cache_count(c), 0); /* found too old, it is gone */
    auth_cache_put(c, digest(1, 1), 5000);
    auth_cache_put(c, digest(1, 1), 5500);
    assert_int_equal(auth_cache_count(c), 1);
    assert_true(auth_cache_has(c, digest(1, 1), 5500 + TTL - 1));
    auth_cache_free(c);
}

static void the_least_used_makes_room(void **state)
{
    struct auth_cache *c = auth_cache_new(3, TTL);
    for (uint32_t i = 1; i <= 3; i++)
        auth_cache_put(c, digest(i, i), 0);
    assert_true(auth_cache_has(c, digest(1, 1), 1));
    auth_cache_put(c, digest(4, 4), 2);
    assert_int_equal(auth_cache_count(c), 3);
    assert_true(auth_cache_has(c, digest(1, 1), 3));
    assert_false(auth_cache_has(c, digest(2, 2), 3));
    assert_true(auth_cache_has(c, digest(3, 3), 3));
    assert_true(auth_cache_has(c, digest(4, 4), 3));
    auth_cache_free(c);
}

static void one_slot_holds_many(void **state)
{
    struct auth_cache *c = auth_cache_new(50, TTL);
    for (uint32_t i = 0; i < 80; i++)
        auth_cache_put(c, digest(7, i), i);
    assert_int_equal(auth_cache_count(c), 50);
    for (uint32_t i = 0; i < 80; i++)
        assert_true(auth_cache_has(c, digest(7, i), 80) == (i >= 30));
    auth_cache_free(c);
}

static void without_room_or_time_it_forgets(void **state)
{
    static const uint32_t limits[][2] = { { 0, TTL }, { 10, 0 }, { 0, 0 } };
    for (int i = 0; i < 3; i++) {
        struct auth_cache *c = auth_cache_new(limits[i][0], limits[i][1]);
        auth_cache_put(c, digest(1, 1), 0);
        assert_false(auth_cache_has(c, digest(1, 1), 0));
        assert_int_equal(auth_cache_count(c), 0);
        auth_cache_free(c);
    }
    auth_cache_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remembers_until_the_time_is_over),
        cmocka_unit_test(the_least_used_makes_room),
        cmocka_unit_test(one_slot_holds_many),
        cmocka_unit_test(without_room_or_time_it_forgets),
    };
    return cmocka_run_group_tests_name("auth_cache", tests, NULL, NULL);
}
