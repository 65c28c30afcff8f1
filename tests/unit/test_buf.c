/* SPDX-License-Identifier: Apache-2.0 */
/* buf: every append is all or nothing, the maximum is exact, memory stays when cleared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/buf.h"

static void appending_stops_exactly_at_the_maximum(void **state)
{
    for (uint32_t max = 0; max <= 300; max++) {
        struct buf b;
        buf_init(&b, max);
        for (uint32_t i = 0; i < max; i++)
            assert_int_equal(buf_append(&b, SLICE("x")), STATUS_OK);
        assert_int_equal(buf_append(&b, SLICE("x")), STATUS_FULL);
        assert_int_equal(buf_printf(&b, "x"), STATUS_FULL);
        assert_null(buf_reserve(&b, 1));
        assert_int_equal(b.len, max);
        assert_true(b.cap <= (max ? max : 1));
        buf_done(&b);
    }
}

static void what_does_not_fit_changes_nothing(void **state)
{
    struct buf b;
    buf_init(&b, 5);
    assert_int_equal(buf_append(&b, SLICE("abc")), STATUS_OK);
    assert_int_equal(buf_append(&b, SLICE("def")), STATUS_FULL);
    assert_int_equal(buf_printf(&b, "%d", 123), STATUS_FULL);
    assert_int_equal(buf_append(&b, slice_of("x", SIZE_MAX)), STATUS_FULL);
    assert_true(slice_eq(buf_slice(&b), SLICE("abc")));
    assert_int_equal(buf_append(&b, SLICE_NONE), STATUS_OK);
    assert_int_equal(buf_printf(&b, "%d", 12), STATUS_OK);
    assert_true(slice_eq(buf_slice(&b), SLICE("abc12")));
    buf_done(&b);
}

static void an_empty_buf_holds_no_memory(void **state)
{
    struct buf b;
    buf_init(&b, 100);
    assert_null(b.ptr);
    assert_int_equal(buf_append(&b, SLICE("abc")), STATUS_OK);
    char *kept = b.ptr;
    buf_clear(&b);
    assert_ptr_equal(b.ptr, kept);
    assert_int_equal(b.len, 0);
    buf_done(&b);
    assert_null(b.ptr);
    assert_int_equal(b.max, 100);
    assert_int_equal(buf_append(&b, SLICE("again")), STATUS_OK);
    buf_done(&b);
}

static void printing_at_every_fill_level(void **state)
{
    for (uint32_t start = 0; start < 140; start++) {
        struct buf b;
        buf_init(&b, 1000);
        for (uint32_t i = 0; i < start; i++)
            assert_int_equal(buf_append(&b, SLICE(".")), STATUS_OK);
        assert_int_equal(buf_printf(&b, "%s-%d", "value", 42), STATUS_OK);
        assert_int_equal(b.len, start + 8);
        assert_memory_equal(b.ptr + start, "value-42", 8);
        buf_done(&b);
    }
}

static void reserving_gives_room_without_using_it(void **state)
{
    struct buf b;
    buf_init(&b, 64);
    assert_non_null(buf_reserve(&b, 0));
    char *at = buf_reserve(&b, 64);
    assert_non_null(at);
    assert_int_equal(b.len, 0);
    memset(at, 'y', 64);
    b.len += 64;
    assert_null(buf_reserve(&b, UINT32_MAX));
    buf_done(&b);
}

static void consuming_moves_the_rest_to_the_front(void **state)
{
    struct buf b;
    buf_init(&b, 64);
    assert_int_equal(buf_append(&b, SLICE("0123456789")), STATUS_OK);
    buf_consume(&b, 0);
    buf_consume(&b, 3);
    assert_true(slice_eq(buf_slice(&b), SLICE("3456789")));
    buf_consume(&b, 7);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appending_stops_exactly_at_the_maximum),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(an_empty_buf_holds_no_memory),
        cmocka_unit_test(printing_at_every_fill_level),
        cmocka_unit_test(reserving_gives_room_without_using_it),
        cmocka_unit_test(consuming_moves_the_rest_to_the_front),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
