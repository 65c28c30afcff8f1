/* SPDX-License-Identifier: Apache-2.0 */
/* arena: aligned, cleared, never overlapping, all gone at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/arena.h"
#include "core/base/must.h"

static void pieces_are_aligned_cleared_and_do_not_overlap(void **state)
{
    struct arena a;
    arena_init(&a);
    assert_null(a.blocks);
    unsigned char *piece[600];
    for (size_t i = 0; i < ARRAY_LEN(piece); i++) {
        piece[i] = arena_alloc(&a, i);
        assert_int_equal((uintptr_t)piece[i] % 8, 0);
        for (size_t j = 0; j < i; j++)
            assert_int_equal(piece[i][j], 0);
        memset(piece[i], (int)(i & 0xff), i);
    }
    for (size_t i = 0; i < ARRAY_LEN(piece); i++)
        for (size_t j = 0; j < i; j++)
            assert_int_equal(piece[i][j], i & 0xff);
    assert_true(a.used >= 599 * 600 / 2);
    arena_done(&a);
    assert_int_equal(a.used, 0);
    assert_null(a.blocks);
}

static void a_piece_larger_than_any_block_is_given(void **state)
{
    struct arena a;
    arena_init(&a);
    memset(arena_alloc(&a, 1000000), 1, 1000000);
    memset(arena_alloc(&a, 3), 2, 3);
    arena_done(&a);
}

static void copies_live_on_their_own(void **state)
{
    struct arena a;
    arena_init(&a);
    char text[] = "user@example.org";
    struct slice copy = arena_copy(&a, slice_str(text));
    memset(text, 'x', sizeof text);
    assert_true(slice_eq(copy, SLICE("user@example.org")));
    assert_int_equal(arena_copy(&a, SLICE_NONE).len, 0);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_cleared_and_do_not_overlap),
        cmocka_unit_test(a_piece_larger_than_any_block_is_given),
        cmocka_unit_test(copies_live_on_their_own),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
