/* SPDX-License-Identifier: Apache-2.0 */
/* Items as text, both ways, and the keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "queue/schema.h"

#define ID "0123456789abcdefghjk"

static struct slice encode(struct buf *out, struct queue_item item)
{
    buf_clear(out);
    assert_int_equal(queue_item_encode(&item, out), STATUS_OK);
    return buf_slice(out);
}

static struct queue_item simple_item(const uint32_t *rcpts, uint32_t count)
{
    return (struct queue_item){ .lane = 'n',
                                .dest = SLICE("example.org"),
                                .attempts = 2,
                                .accepted_ms = 1700000000000,
                                .expires_ms = 1700000432000,
                                .tenant = SLICE("acme"),
                                .chunks = 7,
                                .size = 10240,
                                .rcpts = rcpts,
                                .rcpt_count = count };
}

/* And a tenth when there is something in it. */
static void an_item_is_nine_fields(void **state)
{
    const uint32_t rcpts[] = { 0, 1, 2, 3, 4, 7 };
    struct buf out;
    buf_init(&out, QUEUE_ITEM_MAX);
    struct slice text = encode(&out, simple_item(rcpts, 6));
    struct slice want =
        SLICE("n\texample.org\t2\t1700000000000\t1700000432000\tacme\t7\t10240\t0-4,7");
    assert_true(slice_eq(text, want));
    struct arena arena;
    struct queue_item item = simple_item(rcpts, 6), again;
    arena_init(&arena);
    item.told = DELIVERY_TOLD_LATE;
    text = encode(&out, item);
    assert_true(slice_eq(slice_head(text, want.len), want));
    assert_true(slice_eq(slice_skip(text, want.len), SLICE("\t2")));
    assert_int_equal(queue_item_decode(text, &arena, &again), STATUS_OK);
    assert_int_equal(again.told, DELIVERY_TOLD_LATE);
    assert_int_equal(again.rcpt_count, 6);
    arena_done(&arena);
    buf_done(&out);
}

static void what_is_written_is_read(void **state)
{
    static const struct {
        uint32_t rcpts[6], count;
        const char *text;
    } rows[] = {
        { { 0 }, 1, "0" },
        { { 5 }, 1, "5" },
        { { 0, 1 }, 2, "0-1" },
        { { 0, 2, 4 }, 3, "0,2,4" },
        { { 3, 4, 5, 9, 10, 4294967295u }, 6, "3-5,9-10,4294967295" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out;
        struct arena arena;
        struct queue_item item;
        buf_init(&out, QUEUE_ITEM_MAX);
        arena_init(&arena);
        struct slice text = encode(&out, simple_item(rows[i].rcpts, rows[i].count));
        size_t n = strlen(rows[i].text);
        assert_true(slice_eq(slice_skip(text, text.len - n), slice_str(rows[i].text)));
        assert_int_equal(text.ptr[text.len - n - 1], '\t');
        assert_int_equal(queue_item_decode(text, &arena, &item), STATUS_OK);
        assert_int_equal(item.lane, 'n');
        assert_true(slice_eq(item.dest, SLICE("example.org")));
        assert_true(slice_eq(item.tenant, SLICE("acme")));
        assert_int_equal(item.attempts, 2);
        assert_int_equal(item.accepted_ms, 1700000000000);
        assert_int_equal(item.expires_ms, 1700000432000);
        assert_int_equal(item.chunks, 7);
        assert_int_equal(item.size, 10240);
        assert_int_equal(item.rcpt_count, rows[i].count);
        assert_memory_equal(item.rcpts, rows[i].rcpts, rows[i].count * sizeof(uint32_t));
        arena_done(&arena);
        buf_done(&out);
    }
}

static void only_what_we_write_is_an_item(void **state)
{
    static const struct {
        const char *text;
        enum status want;
    } rows[] = {
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0", STATUS_OK },
        { "u\t@*\t0\t0\t0\tbig tenant\t0\t18446744073709551615\t0", STATUS_OK },
        { "b\t!held.example\t4294967295\t1\t9223372036854775807\t\t0\t9\t0-65535", STATUS_OK },
        { "", STATUS_BAD },
        { "n", STATUS_BAD },
        { "x\ta.example\t0\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "nn\ta.example\t0\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\t\t0\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta example\t0\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t-1\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t00\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t4294967296\t1\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t0\t9223372036854775808\t2\t\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t18446744073709551616\t0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\n\t0\t9\t0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0,", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t,0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t1,0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t1,1", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t2-1", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t1-", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t-1", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0-65536", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0-4294967295", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t1", STATUS_OK }, /* told */
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t3", STATUS_OK },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t0", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t4", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\t1\t1", STATUS_BAD },
        { "n\ta.example\t0\t1\t2\t\t0\t9\t0\textra", STATUS_BAD },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct queue_item item;
        arena_init(&arena);
        assert_int_equal(queue_item_decode(slice_str(rows[i].text), &arena, &item), rows[i].want);
        arena_done(&arena);
    }
}

/* Every prefix of an item, in memory of exactly its size, is read without a step beside it; only
 * those that end inside the recipients can be whole. */
static void prefixes_are_read_safely(void **state)
{
    const char *text = "n\ta.example\t0\t1\t2\t\t0\t9\t0-3,40";
    for (size_t n = 0; n < strlen(text); n++) {
        struct arena arena;
        struct queue_item item;
        char *exact = mem_alloc(n + (n == 0));
        memcpy(exact, text, n);
        arena_init(&arena);
        enum status st = queue_item_decode(slice_of(exact, n), &arena, &item);
        bool may_be_whole = n > strlen("n\ta.example\t0\t1\t2\t\t0\t9\t") && text[n - 1] != '-' &&
                            text[n - 1] != ',';
        assert_int_equal(st, may_be_whole ? STATUS_OK : STATUS_BAD);
        arena_done(&arena);
        free(exact);
    }
}

static void encoding_is_all_or_nothing(void **state)
{
    const uint32_t rcpts[] = { 0, 2, 4, 6, 8 };
    struct queue_item item = simple_item(rcpts, 5);
    for (uint32_t max = 0; max < 70; max++) {
        struct buf out;
        buf_init(&out, max);
        enum status st = queue_item_encode(&item, &out);
        assert_true(st == STATUS_OK ? out.len > 60 : st == STATUS_FULL && out.len == 0);
        buf_done(&out);
    }
}

static void a_name_that_would_break_the_text_is_refused(void **state)
{
    static const char *const dests[] = { "", "a\tb", "a b", "a\nb", "\x7f" };
    const uint32_t rcpts[] = { 0 };
    struct buf out;
    buf_init(&out, QUEUE_ITEM_MAX);
    for (size_t i = 0; i < ARRAY_LEN(dests); i++) {
        struct queue_item item = simple_item(rcpts, 1);
        item.dest = slice_str(dests[i]);
        assert_int_equal(queue_item_encode(&item, &out), STATUS_BAD);
    }
    struct queue_item item = simple_item(rcpts, 1);
    item.tenant = SLICE("a\tb");
    assert_int_equal(queue_item_encode(&item, &out), STATUS_BAD);
    item = simple_item(rcpts, 1);
    item.lane = 'x';
    assert_int_equal(queue_item_encode(&item, &out), STATUS_BAD);
    assert_int_equal(out.len, 0);
    buf_done(&out);
}

static void keys_share_their_shards_tag(void **state)
{
    char key[QUEUE_KEY_MAX];
    assert_true(slice_eq(queue_key_counters(key, 3), SLICE("{q3}n")));
    assert_true(slice_eq(queue_key_record(key, 15, ID), SLICE("{q15}b:" ID)));
    assert_true(slice_eq(queue_key_chunk(key, 0, ID, 99), SLICE("{q0}b:" ID ":99")));
}

static void the_library_is_built_in(void **state)
{
    assert_int_equal(strlen(queue_lua), queue_lua_len);
    assert_memory_equal(queue_lua, "#!lua name=kilat\n", 17);
    assert_non_null(strstr(queue_lua, "'kilat_enq'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_is_nine_fields),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(only_what_we_write_is_an_item),
        cmocka_unit_test(prefixes_are_read_safely),
        cmocka_unit_test(encoding_is_all_or_nothing),
        cmocka_unit_test(a_name_that_would_break_the_text_is_refused),
        cmocka_unit_test(keys_share_their_shards_tag),
        cmocka_unit_test(the_library_is_built_in),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
