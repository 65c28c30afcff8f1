/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Return paths: what is made is read, in either case; what is changed in any place is not.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/smtp/address.h"
#include "core/smtp/queue_id.h"
#include "core/smtp/return_path.h"

static const struct return_path_key key = { { 1, 2, 3 } }, other_key = { { 1, 2, 4 } };
static const struct return_path example = { "0abcdefghjkmnpqrstvw", 65535, UINT32_MAX };

static void made_and_read(void **state)
{
    char text[RETURN_PATH_LOCAL_MAX];
    struct return_path got;
    struct address address;
    return_path_make(&key, &example, text);
    assert_true(strlen(text) <= ADDRESS_LOCAL_MAX);
    assert_true(return_path_read(&key, slice_str(text), &got));
    assert_string_equal(got.id, example.id);
    assert_int_equal(got.shard, example.shard);
    assert_int_equal(got.rcpt, example.rcpt);
    assert_true(return_path_is_likely(slice_str(text)));
    assert_false(return_path_read(&other_key, slice_str(text), &got));
    char mailbox[RETURN_PATH_LOCAL_MAX + 16];
    snprintf(mailbox, sizeof mailbox, "%s@b.example", text);
    assert_int_equal(address_parse_mailbox(slice_str(mailbox), &address), ADDRESS_OK);
    for (char *c = text; *c; c++)
        *c = (char)toupper(*c);
    assert_true(return_path_read(&key, slice_str(text), &got));
    assert_string_equal(got.id, example.id);
}

/* Each octet to each other one; letters in the other case are the same. */
static void changed_anywhere(void **state)
{
    char text[RETURN_PATH_LOCAL_MAX];
    struct return_path path = { "0abcdefghjkmnpqrstvw", 3, 0 }, got;
    return_path_make(&key, &path, text);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char was = text[i];
        for (int c = 0; c < 256; c++) {
            text[i] = (char)c;
            bool is_same = tolower((unsigned char)was) == tolower(c);
            assert_int_equal(return_path_read(&key, slice_of(text, len), &got), is_same);
        }
        text[i] = was;
        assert_false(return_path_read(&key, slice_of(text, i), &got));
    }
}

static void what_is_none(void **state)
{
    static const char *const texts[] = {
        "",
        "b-",
        "fbl",
        "b-0abcdefghjkmnpqrstvw",
        "b-0abcdefghjkmnpqrstvw-",
        "b-----",
        "b-0abcdefghjkmnpqrstvw-1-2-",
        "b-0abcdefghjkmnpqrstvw-1-2-0000000000000000",
        "b-0abcdefghjkmnpqrstvw-65536-2-0000000000000000",
        "b-0abcdefghjkmnpqrstvw-1-4294967296-0000000000000000",
        "b-0abcdefghjkmnpqrstvw-99999999999-0-0000000000000000",
        "b-0abcdefghjkmnpqrstvw-1-2-0000000000000000-",
        "b-0abcdefghjkmnpqrstvw-1-2-00000000000000000000000000000000000000000000000000000",
    };
    struct return_path got;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_false(return_path_read(&key, slice_str(texts[i]), &got));
    assert_true(return_path_is_likely(slice_str(texts[7])));
    assert_false(return_path_is_likely(slice_str(texts[8])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_and_read),
        cmocka_unit_test(changed_anywhere),
        cmocka_unit_test(what_is_none),
    };
    return cmocka_run_group_tests_name("return_path", tests, NULL, NULL);
}
