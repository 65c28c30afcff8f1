/* SPDX-License-Identifier: Apache-2.0 */
/* base64 as AUTH wants it (P-142): one text for each octet string, and nothing else. */
#include "core/smtp/sasl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROOM 4096

/* Decodes from a block of exactly this length, so that ASan sees a read past its end. */
static enum status decode(struct slice text, struct buf *out)
{
    char *copy = malloc(text.len + !text.len);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    enum status st = base64_decode(slice_of(copy, text.len), out);
    free(copy);
    return st;
}

static bool is_base64(struct slice text)
{
    struct buf out;
    buf_init(&out, ROOM);
    enum status st = decode(text, &out);
    assert_true(st == STATUS_OK || (st == STATUS_BAD && out.len == 0));
    buf_done(&out);
    return st == STATUS_OK;
}

static void check_both_ways(struct slice octets, struct slice text)
{
    struct buf out;
    buf_init(&out, ROOM);
    assert_int_equal(base64_encode(octets, &out), STATUS_OK);
    assert_true(slice_eq(buf_slice(&out), text));
    buf_clear(&out);
    assert_int_equal(decode(text, &out), STATUS_OK);
    assert_true(slice_eq(buf_slice(&out), octets));
    buf_done(&out);
}

/* RFC 4648 10, and what has octets of every kind. */
static void known_texts(void **state)
{
    check_both_ways(SLICE(""), SLICE(""));
    check_both_ways(SLICE("f"), SLICE("Zg=="));
    check_both_ways(SLICE("fo"), SLICE("Zm8="));
    check_both_ways(SLICE("foo"), SLICE("Zm9v"));
    check_both_ways(SLICE("foob"), SLICE("Zm9vYg=="));
    check_both_ways(SLICE("fooba"), SLICE("Zm9vYmE="));
    check_both_ways(SLICE("foobar"), SLICE("Zm9vYmFy"));
    check_both_ways(SLICE("\0\0\0"), SLICE("AAAA"));
    check_both_ways(SLICE("\xff\xff\xff"), SLICE("////"));
    check_both_ways(SLICE("\xfb\xef\xbe"), SLICE("++++"));
    check_both_ways(SLICE("\0user\0pencil"), SLICE("AHVzZXIAcGVuY2ls"));
    check_both_ways(SLICE("Username:"), SLICE("VXNlcm5hbWU6"));
    check_both_ways(SLICE("Password:"), SLICE("UGFzc3dvcmQ6"));
    check_both_ways(SLICE("\1"), SLICE("AQ=="));
}

static void every_length_and_octet(void **state)
{
    char octets[300];
    struct buf text, back;
    for (size_t i = 0; i < sizeof octets; i++)
        octets[i] = (char)(i * 167 + i / 256);
    for (size_t len = 0; len <= sizeof octets; len++) {
        buf_init(&text, ROOM);
        buf_init(&back, ROOM);
        assert_int_equal(base64_encode(slice_of(octets, len), &text), STATUS_OK);
        assert_int_equal(text.len, (len + 2) / 3 * 4);
        assert_int_equal(decode(buf_slice(&text), &back), STATUS_OK);
        assert_true(slice_eq(buf_slice(&back), slice_of(octets, len)));
        buf_done(&text);
        buf_done(&back);
    }
}

static void malformed_texts(void **state)
{
    static const struct slice bad[] = {
        /* not whole groups: CVE-2018-6789 */
        SLICE("A"), SLICE("AA"), SLICE("AAA"), SLICE("AAAAA"), SLICE("AAAAAA"), SLICE("AAAAAAA"),
        /* padding where none belongs */
        SLICE("="), SLICE("===="), SLICE("A==="), SLICE("=AAA"), SLICE("A=AA"), SLICE("AA=A"),
        SLICE("AA==AAAA"), SLICE("AAA=AAAA"), SLICE("AAAA===="), SLICE("AAAA="), SLICE("AAAA=="),
        /* bits that stand for nothing */
        SLICE("AB=="), SLICE("AP=="), SLICE("A/=="), SLICE("AAB="), SLICE("AAC="), SLICE("AA/="),
        SLICE("AAAAAB=="), SLICE("AAAAAAB="),
        /* white space, line ends, NUL, the other alphabet, a response that is none */
        SLICE("AA A"), SLICE(" AAA"), SLICE("AAA "), SLICE("AAA\n"), SLICE("AA\r\n"),
        SLICE("AA\tA"), SLICE("A\0AA"), SLICE("AAA\0"), SLICE("AA-_"), SLICE("A.AA"), SLICE("*"),
        SLICE("***="), SLICE("\xc3\xa4\xc3\xa4")
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (is_base64(bad[i]))
            fail_msg("%.*s is taken for base64", SLICE_ARG(bad[i]));
}

/* Each octet at each place of a group. */
static void the_alphabet_and_nothing_else(void **state)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int c = 0; c < 256; c++) {
        bool is_letter = c != 0 && strchr(alphabet, c);
        for (size_t at = 0; at < 4; at++) {
            char first[8] = "AAAABBBB", last[8] = "BBBBAAAA";
            first[at] = last[4 + at] = (char)c;
            assert_int_equal(is_base64(slice_of(first, 8)), is_letter);
            /* "AAA=" is the one group where a sign stands for nothing */
            assert_int_equal(is_base64(slice_of(last, 8)), is_letter || (c == '=' && at == 3));
        }
    }
}

static void room_is_used_to_the_last_octet(void **state)
{
    struct buf out;
    buf_init(&out, 4);
    assert_int_equal(buf_append(&out, SLICE("<")), STATUS_OK);
    assert_int_equal(base64_decode(SLICE("Zm9v"), &out), STATUS_OK); /* behind what is there */
    assert_true(slice_eq(buf_slice(&out), SLICE("<foo")));
    assert_int_equal(base64_decode(SLICE("Zg=="), &out), STATUS_FULL);
    assert_int_equal(base64_encode(SLICE("f"), &out), STATUS_FULL);
    assert_true(slice_eq(buf_slice(&out), SLICE("<foo")));
    assert_int_equal(base64_decode(SLICE(""), &out), STATUS_OK);
    assert_int_equal(base64_encode(SLICE(""), &out), STATUS_OK);
    buf_clear(&out);
    assert_int_equal(base64_encode(SLICE("f"), &out), STATUS_OK);
    assert_true(slice_eq(buf_slice(&out), SLICE("Zg==")));
    buf_clear(&out);
    assert_int_equal(base64_decode(SLICE("Zm9vYg=="), &out), STATUS_OK);
    assert_true(slice_eq(buf_slice(&out), SLICE("foob")));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts),
        cmocka_unit_test(every_length_and_octet),
        cmocka_unit_test(malformed_texts),
        cmocka_unit_test(the_alphabet_and_nothing_else),
        cmocka_unit_test(room_is_used_to_the_last_octet),
    };
    return cmocka_run_group_tests_name("base64", tests, NULL, NULL);
}
