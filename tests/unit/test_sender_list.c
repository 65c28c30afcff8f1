/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which addresses a list of patterns lets through (P-34), however they are spelt (P-44). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/sender_list.h"

static const struct {
    const char *pattern, *mailbox;
    bool is_allowed;
} rows[] = {
    { "a@example.org", "a@example.org", true },
    { "a@example.org", "a@EXAMPLE.Org", true },
    { "a@example.org", "A@example.org", false }, /* RFC 5321 2.4 */
    { "a@example.org", "b@example.org", false },
    { "a@example.org", "aa@example.org", false },
    { "a@example.org", "a@example.org.evil", false },
    { "a@example.org", "a@sub.example.org", false },
    /* the whole domain, and no other */
    { "@example.org", "any.one@example.org", true },
    { "@example.org", "\"a b@c\"@Example.org", true },
    { "@example.org", "a@sub.example.org", false },
    { "@example.org", "a@xexample.org", false },
    { "@example.org", "a@example.or", false },
    { "@[192.0.2.1]", "a@[192.0.2.1]", true },
    { "@[192.0.2.1]", "a@192.0.2.1", false },
    /* all below it, not itself */
    { "@*.example.org", "a@b.example.org", true },
    { "@*.example.org", "a@c.b.Example.ORG", true },
    { "@*.example.org", "a@example.org", false },
    { "@*.example.org", "a@.example.org", false },
    { "@*.example.org", "a@xexample.org", false },
    { "@*.example.org", "x@evil.test@a.example.org", false },
    { "*", "who@ever", true },
    { "*", "postmaster", true },
    /* P-44: one address, several spellings */
    { "a@example.org", "\"a\"@example.org", true },
    { "\"a\"@example.org", "a@example.org", true },
    { "a.b@example.org", "\"a.\\b\"@example.org", true },
    { "\"a b\"@example.org", "\"a\\ b\"@example.org", true },
    { "\"a\\\"b\"@example.org", "\"a\\\"b\"@example.org", true },
    { "\"a\\\\\"@example.org", "\"a\\\\\"@example.org", true },
    { "\"a\\\\\"@example.org", "\"a\"@example.org", false },
    { "a@example.org", "\"a@example.org\"@evil.test", false },
    { "@example.org", "\"a@example.org\"@evil.test", false },
    { "@example.org", "\"x\\\"@example.org", false }, /* the quote does not close */
    { "@example.org", "x@evil.test@example.org", false },
    { "@example.org", "\"x\"y@example.org", false },
    { "@example.org", "@example.org", false },
    { "@example.org", "", false },
    { "@example.org", "\"", false },
    { "@example.org", "x@", false },
    { "a@example.org", "postmaster", false },
    { "j\xc3\xb6rg@b\xc3\xbc.example", "j\xc3\xb6rg@b\xc3\xbc.example", true },
};

static void each_pattern_means_what_it_says(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *patterns[] = { (char *)rows[i].pattern };
        assert_true(sender_pattern_is_valid(slice_str(rows[i].pattern)));
        if (sender_list_allows(patterns, 1, slice_str(rows[i].mailbox)) != rows[i].is_allowed)
            fail_msg("%s with %s", rows[i].pattern, rows[i].mailbox);
    }
}

static void what_is_no_pattern_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "@",
        "a",
        "**",
        "*@example.org",
        "a*@example.org",
        "a@*.org",
        "@*",
        "@*.",
        "@.org",
        "@a..b",
        "@a.",
        "a@",
        "a@b@c",
        "a b@c",
        "a@b c",
        "@*.*.org",
        "<a@b>",
        "a@b,c@d",
        "\"a\"b@c",
        "\"a@c",
        "a@\x7f",
        "a\r@b",
        "\"a\r\"@b",
        "@[192.0.2]",
        "@[999.1.1.1]",
        "@*.[192.0.2.1]",
        "@exa*mple.org",
        "\"\\\"@b",
    };
    struct sender_list l = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (sender_list_add(&l, slice_str(bad[i])) != STATUS_BAD)
            fail_msg("%s", bad[i]);
    assert_int_equal(sender_list_add(&l, slice_of("a@b\0c", 5)), STATUS_BAD);
    assert_int_equal(l.count, 0);
    assert_null(l.patterns);
}

static void lengths_have_limits(void **state)
{
    char pattern[600];
    memset(pattern, 'a', sizeof pattern);
    pattern[64] = '@';
    assert_true(sender_pattern_is_valid(slice_of(pattern, 256)));
    assert_false(sender_pattern_is_valid(slice_of(pattern, 257)));
    pattern[64] = 'a';
    pattern[65] = '@';
    assert_false(sender_pattern_is_valid(slice_of(pattern, 100))); /* local part */
    pattern[0] = '@';
    pattern[65] = 'a';
    assert_true(sender_pattern_is_valid(slice_of(pattern, 256)));
}

static void a_list_is_any_of_its_patterns(void **state)
{
    struct sender_list l = { 0 };
    assert_false(sender_list_allows(l.patterns, l.count, SLICE("a@b"))); /* empty: nothing */
    assert_int_equal(sender_list_add(&l, SLICE("@example.org")), STATUS_OK);
    assert_int_equal(sender_list_add(&l, SLICE("me@example.net")), STATUS_OK);
    assert_true(sender_list_allows(l.patterns, l.count, SLICE("a@example.org")));
    assert_true(sender_list_allows(l.patterns, l.count, SLICE("me@example.net")));
    assert_false(sender_list_allows(l.patterns, l.count, SLICE("you@example.net")));
    sender_list_done(&l);
    assert_int_equal(l.count, 0);
    assert_null(l.patterns);
}

/* An account's name is one address at most, never a pattern. */
static void a_name_is_only_itself(void **state)
{
    assert_true(sender_is_own(SLICE("alice@example.org"), SLICE("alice@Example.org")));
    assert_true(sender_is_own(SLICE("alice@example.org"), SLICE("\"alice\"@example.org")));
    assert_false(sender_is_own(SLICE("alice@example.org"), SLICE("bob@example.org")));
    assert_false(sender_is_own(SLICE("@example.org"), SLICE("bob@example.org")));
    assert_false(sender_is_own(SLICE("*"), SLICE("bob@example.org")));
    assert_false(sender_is_own(SLICE("alice"), SLICE("alice")));
    assert_false(sender_is_own(SLICE(""), SLICE("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pattern_means_what_it_says),
        cmocka_unit_test(what_is_no_pattern_is_refused),
        cmocka_unit_test(lengths_have_limits),
        cmocka_unit_test(a_list_is_any_of_its_patterns),
        cmocka_unit_test(a_name_is_only_itself),
    };
    return cmocka_run_group_tests_name("sender_list", tests, NULL, NULL);
}
