/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which addresses are read from the value of a From field, and what is refused because
 * readers could see another one (P-34). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/content_value.h"
#include <stdio.h>
#include <stdlib.h>

#define BAD "!"

/* `want`: the addresses, each with a space behind it, and "!" when it ends badly. */
static const struct {
    const char *value, *want;
} rows[] = {
    { "a@b", "a@b " },
    { " a@b \r\n", "a@b " },
    { "<a@b>", "a@b " },
    { "Name <a@b>", "a@b " },
    { "J. Q. Doe <a@b>", "a@b " },
    { "[Shop] \"Doe, J.\" (x) <a@b>", "a@b " },
    { "=?utf-8?B?w6Q=?=\r\n =?utf-8?Q?=40?= <a@b>", "a@b " },
    { "J\xc3\xb6rg <j\xc3\xb6rg@b\xc3\xbc.de>", "j\xc3\xb6rg@b\xc3\xbc.de " },
    { "a.b+c=d@e.f", "a.b+c=d@e.f " },
    { "a@[192.0.2.1]", "a@[192.0.2.1] " },
    { "\"a b\"@c", "\"a b\"@c " },
    { "\"a\\\"@x\"@c", "\"a\\\"@x\"@c " },
    { "< a @ b >", "a@b " },
    { "(1(2)\\)3)a(4)@(5)b(6)", "a@b " },
    { "a\r\n @b", "a@b " },
    /* lists */
    { "", "" },
    { " (nobody) ", "" },
    { "a@b,c@d", "a@b c@d " },
    { "A <a@b>,\r\n\t\"C, D\" <c@d>,", "a@b c@d " },
    { ",, a@b ,, ", "a@b " },
    { "G:;", "" },
    { "G: a@b, C <c@d>;", "a@b c@d " },
    { "G: a@b;, c@d", "a@b c@d " },
    { "\"G\" h: ;,I:a@b;", "a@b " },
    /* no addresses */
    { "a", BAD },
    { "a b", BAD },
    { "a@", BAD },
    { "@b", BAD },
    { "a@b@c", "a@b " BAD },
    { "<>", BAD },
    { "<a>", BAD },
    { "<a@b", BAD },
    { "a@b>", "a@b " BAD },
    { "<a@b c>", BAD },
    { "Name", BAD },
    { "Name <a@b", BAD },
    { "\"\"", BAD },
    { "a@,b", BAD },
    { "a@\"b\"", BAD },
    { "[a]@b", BAD },
    { "a b@c", BAD },
    { "\"a\"b@c", BAD },
    { "\"a\".b@c", BAD },
    /* dots */
    { ".a@b", BAD },
    { "a.@b", BAD },
    { "a..b@c", BAD },
    { "a@.b", BAD },
    { "a@b.", BAD },
    { "a@b..c", BAD },
    { "a . b@c", BAD },
    { "a@b . c", "a@b " BAD },
    /* two readings */
    { "a@b <c@d>", "a@b " BAD },
    { "<a@b> <c@d>", "a@b " BAD },
    { "<a@b> c", "a@b " BAD },
    { "a@b c@d", "a@b " BAD },
    { "a@b; c@d", "a@b " BAD },
    { "<@x,@y:a@b>", BAD },
    { "Foo, Inc. <a@b>", BAD },
    { "a:b:c@d;;", BAD },
    { ": a@b;", BAD },
    { "G: a@b", "a@b " BAD },
    { "G: a;", BAD },
    { "G:; a@b", BAD },
    { "G:;;", BAD },
    { ";", BAD },
    /* not closed, controls */
    { "\"a@b", BAD },
    { "\"a@b\\\"", BAD },
    { "\"a@b\\", BAD },
    { "(a@b", BAD },
    { "(a@b\\)", BAD },
    { "a@b (", "a@b " BAD },
    { "a)@b", BAD },
    { "a@[b", BAD },
    { "a@[b\\]", BAD },
    { "a@[1\r\n 2]", BAD },
    { "\"a\r\n b\"@c", BAD },
    { "\"a\x7f\"@c", BAD },
    { "a\\@b", BAD },
    { "a\v@b", BAD },
    { "a\x7f@b", BAD },
};

/* The addresses as in rows[]. The value lies in a block of exactly its length. */
static void read_all(struct slice value, char *out)
{
    struct value_reader r;
    struct slice mailbox;
    enum value_event event;
    char *copy = malloc(value.len > 0 ? value.len : 1);
    memcpy(copy, value.ptr, value.len);
    value_reader_init(&r, slice_of(copy, value.len));
    *out = '\0';
    while ((event = value_next_address(&r, &mailbox)) == VALUE_ADDRESS)
        out += sprintf(out, "%.*s ", SLICE_ARG(mailbox));
    if (event == VALUE_BAD)
        strcpy(out, BAD);
    free(copy);
}

static void addresses_are_read_or_refused(void **state)
{
    char got[1000];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        read_all(slice_str(rows[i].value), got);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("'%s' gives '%s'", rows[i].value, got);
    }
    read_all(SLICE("a\0@b"), got);
    assert_string_equal(got, BAD);
}

static void everything_is_bounded(void **state)
{
    static char value[2000], got[2000];
    /* addresses */
    for (int n = VALUE_ADDRESSES_MAX; n <= VALUE_ADDRESSES_MAX + 1; n++) {
        for (int i = 0; i < n; i++)
            strcpy(value + 4 * i, "a@b,");
        read_all(slice_str(value), got);
        assert_int_equal(strlen(got), 400 + (n > VALUE_ADDRESSES_MAX));
    }
    /* octets of one */
    for (int n = VALUE_ADDRESS_MAX; n <= VALUE_ADDRESS_MAX + 1; n++) {
        memset(value, 'a', (size_t)n);
        value[n] = '\0';
        value[200] = '@';
        read_all(slice_str(value), got);
        assert_int_equal(strlen(got), n > VALUE_ADDRESS_MAX ? 1 : n + 1);
    }
    /* comments in comments */
    for (size_t n = VALUE_COMMENT_NESTING; n <= VALUE_COMMENT_NESTING + 1; n++) {
        memset(value, '(', n);
        memset(value + n, ')', n);
        strcpy(value + 2 * n, "a@b");
        read_all(slice_str(value), got);
        assert_string_equal(got, n > VALUE_COMMENT_NESTING ? BAD : "a@b ");
    }
}

static void the_first_word_is_found(void **state)
{
    static const struct {
        const char *value, *want; /* NULL: none */
    } cases[] = {
        { " mx.test; x", "mx.test" },
        { "(c) mx.test", "mx.test" },
        { "\r\n\t\"mx.test\" 1;", "mx.test" },
        { "mx.test", "mx.test" },
        { "", NULL },
        { "(x", NULL },
        { ";mx.test", NULL },
        { "[x]", NULL },
        { "\"", NULL },
        { "\"\"", "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slice word = SLICE("untouched");
        bool is_found = value_first_word(slice_str(cases[i].value), &word);
        assert_int_equal(is_found, cases[i].want != NULL);
        assert_true(slice_eq(word, slice_str(cases[i].want ? cases[i].want : "untouched")));
    }
}

static void ends_are_trimmed(void **state)
{
    assert_true(slice_eq(value_trim(SLICE(" \r\n\t a b \r\n")), SLICE("a b")));
    assert_true(slice_eq(value_trim(SLICE("a")), SLICE("a")));
    assert_int_equal(value_trim(SLICE(" \r\n ")).len, 0);
    assert_int_equal(value_trim(SLICE_NONE).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_or_refused),
        cmocka_unit_test(everything_is_bounded),
        cmocka_unit_test(the_first_word_is_found),
        cmocka_unit_test(ends_are_trimmed),
    };
    return cmocka_run_group_tests_name("content_value", tests, NULL, NULL);
}
