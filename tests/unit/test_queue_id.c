/* SPDX-License-Identifier: Apache-2.0 */
/* Shows that ids are well formed, sort by time and do not repeat. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/queue_id.h"

#define NOW_MS 1795392000000ll

static void ids_sort_by_time(void **state)
{
    static const int64_t times[] = { INT64_MIN,  1,      31,         32,          1023,     1024,
                                     NOW_MS - 1, NOW_MS, NOW_MS + 1, NOW_MS * 10, INT64_MAX };
    struct entropy entropy;
    uint64_t seed = 7;
    char before[QUEUE_ID_LEN + 1] = "", id[QUEUE_ID_LEN + 1];
    entropy_init_seeded(&entropy, &seed);
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        queue_id_make(id, times[i], &entropy);
        assert_true(queue_id_is_valid(slice_str(id)));
        assert_true(strcmp(before, id) < 0);
        memcpy(before, id, sizeof(before));
    }
}

static void time_is_the_first_nine_digits(void **state)
{
    struct entropy entropy;
    uint64_t seed = 7;
    char id[QUEUE_ID_LEN + 1];
    entropy_init_seeded(&entropy, &seed);
    queue_id_make(id, 0, &entropy);
    assert_memory_equal(id, "000000000", 9);
    queue_id_make(id, 31 * 32 + 10, &entropy);
    assert_memory_equal(id, "0000000za", 9);
    queue_id_make(id, -5, &entropy);
    assert_memory_equal(id, "000000000", 9);
    queue_id_make(id, INT64_MAX, &entropy);
    assert_memory_equal(id, "zzzzzzzzz", 9);
}

static int by_text(const void *a, const void *b)
{
    return memcmp(a, b, QUEUE_ID_LEN + 1);
}

/* One moment, many ids: all differ, and every one of the 55 bits is used. */
static void ids_of_one_moment_differ(void **state)
{
    enum { COUNT = 20000 };
    static char ids[COUNT][QUEUE_ID_LEN + 1];
    struct entropy entropy;
    uint64_t seed = 1;
    entropy_init_seeded(&entropy, &seed);
    for (int i = 0; i < COUNT; i++)
        queue_id_make(ids[i], NOW_MS, &entropy);
    for (int digit = 9; digit < QUEUE_ID_LEN; digit++) {
        bool seen[128] = { false };
        int kinds = 0;
        for (int i = 0; i < COUNT; i++) {
            kinds += !seen[(int)ids[i][digit]];
            seen[(int)ids[i][digit]] = true;
        }
        assert_int_equal(kinds, 32);
    }
    qsort(ids, COUNT, sizeof(ids[0]), by_text);
    for (int i = 1; i < COUNT; i++)
        assert_true(strcmp(ids[i - 1], ids[i]) < 0);
}

static void knows_what_is_no_id(void **state)
{
    assert_true(queue_id_is_valid(SLICE("0123456789abcdefghjk")));
    assert_true(queue_id_is_valid(SLICE("mnpqrstvwxyz00000000")));
    assert_false(queue_id_is_valid(SLICE("")));
    assert_false(queue_id_is_valid(SLICE_NONE));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghj")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghjk0")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghji")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghjl")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghjo")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghju")));
    assert_false(queue_id_is_valid(SLICE("0123456789ABCDEFGHJK")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefghj\0")));
    assert_false(queue_id_is_valid(SLICE("../../../../../../..")));
    assert_false(queue_id_is_valid(SLICE("0123456789abcdefgh}k")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_sort_by_time),
        cmocka_unit_test(time_is_the_first_nine_digits),
        cmocka_unit_test(ids_of_one_moment_differ),
        cmocka_unit_test(knows_what_is_no_id),
    };
    return cmocka_run_group_tests_name("queue_id", tests, NULL, NULL);
}
