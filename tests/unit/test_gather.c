/* SPDX-License-Identifier: Apache-2.0 */
/* gather: what the iovecs show is what was appended, from every place and through every window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/gather.h"
#include "core/base/must.h"

#define PARTS 1000

static char body[8 * PARTS];

/* PARTS parts, copied and borrowed in turn, of 1 to 7 octets; `expect` gets the same bytes. */
static void fill(struct gather *g, struct buf *expect)
{
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)('a' + i % 26);
    for (size_t i = 0; i < PARTS; i++) {
        size_t len = 1 + i % 7;
        if (i % 2) {
            struct slice s = slice_of(body + 8 * i, len);
            gather_ref(g, s);
            assert_int_equal(buf_append(expect, s), STATUS_OK);
        } else {
            gather_printf(g, "%.*s", (int)len, "0123456");
            assert_int_equal(buf_append(expect, slice_of("0123456", len)), STATUS_OK);
        }
    }
    assert_int_equal(g->part_count, PARTS);
    assert_int_equal(g->octets, expect->len);
}

static struct slice compare(struct slice expect, const struct iovec *iov, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_true(iov[i].iov_len > 0 && iov[i].iov_len <= expect.len);
        assert_memory_equal(iov[i].iov_base, expect.ptr, iov[i].iov_len);
        expect = slice_skip(expect, iov[i].iov_len);
    }
    return expect;
}

static void windows_of_every_width_show_everything(void **state)
{
    static const uint32_t widths[] = { 1, 2, 3, 16, 64, 999, 1000, 1001 };
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        struct gather g;
        struct buf expect;
        struct iovec iov[1001];
        gather_init(&g);
        buf_init(&expect, 100000);
        fill(&g, &expect);
        struct slice left = buf_slice(&expect);
        for (uint32_t part = 0; part < PARTS;) {
            uint32_t n = gather_iov(&g, part, 0, iov, widths[w]);
            assert_true(n > 0 && n <= widths[w]);
            left = compare(left, iov, n);
            part += n;
        }
        assert_int_equal(left.len, 0);
        gather_done(&g);
        buf_done(&expect);
    }
}

static void a_send_may_stop_at_every_octet(void **state)
{
    struct gather g;
    struct buf expect;
    gather_init(&g);
    buf_init(&expect, 100000);
    fill(&g, &expect);
    size_t sent = 0;
    for (uint32_t part = 0; part < PARTS; part++) {
        for (uint32_t offset = 0; offset <= g.parts[part].len; offset++) {
            struct iovec iov[3];
            uint32_t n = gather_iov(&g, part, offset, iov, 3);
            assert_true(n > 0 || sent + offset == expect.len);
            (void)compare(slice_skip(buf_slice(&expect), sent + offset), iov, n);
        }
        sent += g.parts[part].len;
    }
    assert_int_equal(gather_iov(&g, PARTS, 0, NULL, 0), 0);
    gather_done(&g);
    buf_done(&expect);
}

static void neighbours_are_joined(void **state)
{
    struct gather g;
    struct iovec iov[4];
    gather_init(&g);
    gather_copy(&g, SLICE("250-one\r\n"));
    gather_printf(&g, "250 %s\r\n", "two");
    gather_copy(&g, SLICE_NONE);
    gather_ref(&g, slice_of(body, 4));
    gather_ref(&g, slice_of(body + 4, 4));
    gather_ref(&g, SLICE_NONE);
    gather_ref(&g, slice_of(body + 9, 1)); /* a gap: not the same run */
    assert_int_equal(gather_iov(&g, 0, 0, iov, 4), 3);
    assert_int_equal(iov[0].iov_len, 18);
    assert_memory_equal(iov[0].iov_base, "250-one\r\n250 two\r\n", 18);
    assert_int_equal(iov[1].iov_len, 8);
    assert_int_equal(g.octets, 27);
    gather_done(&g);
}

static void clearing_keeps_memory_and_starts_over(void **state)
{
    struct gather g;
    struct iovec iov[2];
    gather_init(&g);
    gather_copy(&g, SLICE("first"));
    char *kept = g.bytes.ptr;
    gather_clear(&g);
    assert_int_equal(gather_iov(&g, 0, 0, iov, 2), 0);
    gather_copy(&g, SLICE("again"));
    assert_ptr_equal(g.bytes.ptr, kept);
    assert_int_equal(gather_iov(&g, 0, 0, iov, 2), 1);
    assert_memory_equal(iov[0].iov_base, "again", 5);
    gather_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_of_every_width_show_everything),
        cmocka_unit_test(a_send_may_stop_at_every_octet),
        cmocka_unit_test(neighbours_are_joined),
        cmocka_unit_test(clearing_keeps_memory_and_starts_over),
    };
    return cmocka_run_group_tests_name("gather", tests, NULL, NULL);
}
