/* SPDX-License-Identifier: Apache-2.0 */
/* chain: bytes in order, cut and truncated at every place that can matter, budget exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/chain.h"
#include "core/base/must.h"
#include <stdlib.h>

#define TEXT_LEN 20000 /* segments of 2, 4, 8 and 16 KiB, the last one partly filled */

static char text[TEXT_LEN];
static struct chain_budget budget;

static int make_text(void **state)
{
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 31 + i / 251);
    budget = (struct chain_budget){ .max = 100000 };
    return 0;
}

static void append_in_pieces(struct chain *c, size_t len, size_t piece)
{
    for (size_t at = 0; at < len; at += piece)
        chain_append(c, slice_of(text + at, at + piece < len ? piece : len - at));
}

/* The chain holds exactly text[from, from + len), has no empty segment, and knows its tail. */
static void check(const struct chain *c, size_t from, size_t len)
{
    size_t at = 0;
    const struct chain_seg *last = NULL;
    for (const struct chain_seg *seg = c->head; seg; seg = seg->next) {
        assert_true(seg->len > 0 && seg->len <= seg->cap);
        assert_true(at + seg->len <= len);
        assert_memory_equal(seg->data, text + from + at, seg->len);
        at += seg->len;
        last = seg;
    }
    assert_int_equal(at, len);
    assert_int_equal(c->len, len);
    assert_ptr_equal(c->tail, last);
}

static size_t memory_of(const struct chain *c)
{
    size_t sum = 0;
    for (const struct chain_seg *seg = c->head; seg; seg = seg->next)
        sum += sizeof *seg + seg->cap;
    return sum;
}

static void bytes_come_out_as_they_went_in(void **state)
{
    static const size_t pieces[] = { 1, 2, 7, 100, 2032, 2033, 4096, TEXT_LEN };
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct chain c;
        chain_init(&c, &budget);
        append_in_pieces(&c, TEXT_LEN, pieces[i]);
        check(&c, 0, TEXT_LEN);
        assert_int_equal(budget.used, memory_of(&c));
        chain_done(&c);
        assert_int_equal(budget.used, 0);
    }
}

static void segments_grow_with_the_message(void **state)
{
    struct chain c;
    chain_init(&c, &budget);
    chain_append(&c, SLICE("x"));
    assert_int_equal(memory_of(&c), 2048);
    for (int i = 0; i < 20; i++)
        append_in_pieces(&c, TEXT_LEN, 10);
    assert_int_equal(sizeof *c.tail + c.tail->cap, 64 * 1024);
    assert_true(chain_budget_is_over(&budget));
    chain_done(&c);
    assert_false(chain_budget_is_over(&budget));
}

static void expecting_a_size_makes_one_segment_of_it(void **state)
{
    struct chain c;
    chain_init(&c, &budget);
    chain_expect(&c, TEXT_LEN);
    append_in_pieces(&c, TEXT_LEN, 999);
    assert_ptr_equal(c.head, c.tail);
    check(&c, 0, TEXT_LEN);
    chain_done(&c);
    chain_expect(&c, SIZE_MAX); /* a lie costs 64 KiB, no more */
    chain_append(&c, SLICE("x"));
    assert_int_equal(memory_of(&c), 64 * 1024);
    chain_done(&c);
}

static void written_bytes_never_move(void **state)
{
    struct chain c;
    chain_init(&c, &budget);
    chain_append(&c, slice_of(text, 10));
    const char *first = c.head->data;
    append_in_pieces(&c, TEXT_LEN, 333);
    assert_ptr_equal(c.head->data, first);
    assert_memory_equal(first, text, 10);
    chain_done(&c);
}

static void truncating_at_every_boundary(void **state)
{
    for (size_t keep = 0; keep <= TEXT_LEN; keep += keep > 2020 && keep < 2050 ? 1 : 97) {
        struct chain c;
        chain_init(&c, &budget);
        append_in_pieces(&c, keep, 211);
        struct chain_mark mark = chain_mark(&c);
        chain_append(&c, slice_of(text, 100)); /* bytes that must vanish */
        append_in_pieces(&c, 9000, 500);
        chain_truncate(&c, mark);
        check(&c, 0, keep);
        assert_int_equal(budget.used, memory_of(&c));
        chain_append(&c, slice_of(text + keep, TEXT_LEN - keep));
        check(&c, 0, TEXT_LEN);
        chain_done(&c);
        assert_int_equal(budget.used, 0);
    }
}

static void split_at(size_t n, size_t piece)
{
    struct chain from, to;
    chain_init(&from, &budget);
    chain_init(&to, &budget);
    append_in_pieces(&from, TEXT_LEN, piece);
    chain_split(&from, n, &to);
    check(&to, 0, n);
    check(&from, n, TEXT_LEN - n);
    assert_int_equal(budget.used, memory_of(&from) + memory_of(&to));
    chain_append(&from, slice_of(text, 50)); /* from stays writable */
    assert_int_equal(from.len, TEXT_LEN - n + 50);
    chain_done(&to);
    assert_int_equal(budget.used, memory_of(&from));
    chain_done(&from);
    assert_int_equal(budget.used, 0);
}

static void splitting_at_every_boundary(void **state)
{
    for (size_t n = 1; n <= TEXT_LEN; n++)
        split_at(n, n % 2 ? 1000 : TEXT_LEN);
}

static void split_carries_memory_to_another_budget(void **state)
{
    struct chain_budget second = { 0 };
    struct chain from, to;
    chain_init(&from, &budget);
    chain_init(&to, &second);
    append_in_pieces(&from, TEXT_LEN, 512);
    chain_split(&from, 7777, &to);
    assert_int_equal(budget.used, memory_of(&from));
    assert_int_equal(second.used, memory_of(&to));
    chain_done(&from);
    chain_done(&to);
    assert_int_equal(budget.used + second.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_out_as_they_went_in),
        cmocka_unit_test(segments_grow_with_the_message),
        cmocka_unit_test(expecting_a_size_makes_one_segment_of_it),
        cmocka_unit_test(written_bytes_never_move),
        cmocka_unit_test(truncating_at_every_boundary),
        cmocka_unit_test(splitting_at_every_boundary),
        cmocka_unit_test(split_carries_memory_to_another_budget),
    };
    return cmocka_run_group_tests_name("chain", tests, make_text, NULL);
}
