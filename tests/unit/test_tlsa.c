/* SPDX-License-Identifier: Apache-2.0 */
/* TLSA records, as they stand in DNS, into what they demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/relay/tlsa.h"

/* SHA-256 of "abc", FIPS 180-2. */
#define ABC_256                                                                                    \
    "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"                             \
    "\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad"
#define HALF_512 "0123456789abcdef0123456789abcdef"

#define RECORD(text)                                                                               \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }

/* P-199: what is of use, what only asks for TLS, what is no record. */
static void records(void **state)
{
    static const struct {
        struct slice data;
        bool is_present, is_usable;
    } rows[] = {
        { RECORD("\3\1\1" ABC_256), true, true },
        { RECORD("\2\0\1" ABC_256), true, true },
        { RECORD("\3\1\2" HALF_512 HALF_512), true, true },
        { RECORD("\3\1\0"
                 "abc"),
          true, true },
        { RECORD("\0\0\1" ABC_256), true, false }, /* PKIX-TA */
        { RECORD("\1\0\1" ABC_256), true, false }, /* PKIX-EE */
        { RECORD("\4\0\1" ABC_256), true, false },
        { RECORD("\3\2\1" ABC_256), true, false },
        { RECORD("\3\1\3" ABC_256), true, false },
        { RECORD("\3\1\1" HALF_512 "x"), false, false }, /* no digest has 33 octets */
        { RECORD("\3\1\1"), false, false },
        { RECORD("\3\1"), false, false },
        { RECORD(""), false, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlsa_set set = { .count = 0 };
        tlsa_add(&set, rows[i].data);
        assert_int_equal(set.is_present, rows[i].is_present);
        assert_int_equal(set.count, rows[i].is_usable);
    }
}

static void digests_are_compared(void **state)
{
    struct tlsa_set set = { .count = 0 };
    tlsa_add(&set, (struct slice)RECORD("\3\1\1" ABC_256));
    tlsa_add(&set, (struct slice)RECORD("\3\1\0"
                                        "abc"));
    tlsa_add(&set, (struct slice)RECORD("\3\1\2" HALF_512 HALF_512));
    assert_int_equal(set.count, 3);
    assert_true(tlsa_record_fits(&set.records[0], SLICE("abc")));
    assert_true(tlsa_record_fits(&set.records[1], SLICE("abc")));
    assert_false(tlsa_record_fits(&set.records[0], SLICE("abd")));
    assert_false(tlsa_record_fits(&set.records[2], SLICE("abc")));
}

/* More than fit are left out; that there are some is remembered. */
static void many_records(void **state)
{
    struct tlsa_set set = { .count = 0 };
    for (int i = 0; i < TLSA_RECORDS_MAX + 3; i++)
        tlsa_add(&set, (struct slice)RECORD("\3\1\1" ABC_256));
    assert_int_equal(set.count, TLSA_RECORDS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),
        cmocka_unit_test(digests_are_compared),
        cmocka_unit_test(many_records),
    };
    return cmocka_run_group_tests_name("tlsa", tests, NULL, NULL);
}
