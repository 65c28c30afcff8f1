/* SPDX-License-Identifier: Apache-2.0 */
/* Shows the mailbox grammar as tables: what is taken and how it is cut, what is refused and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/address.h"

#define A10 "aaaaaaaaaa"
#define A60 A10 A10 A10 A10 A10 A10
#define A63 A60 "aaa"

/* The input in its own heap block of exactly its length, so that ASan sees a read past its end. */
static struct slice exact(struct slice s)
{
    char *copy = malloc(s.len > 0 ? s.len : 1);
    assert_non_null(copy);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return slice_of(copy, s.len);
}

static void release(struct slice s)
{
    free((char *)(uintptr_t)s.ptr);
}

static void assert_slice(struct slice got, const char *want, const char *input)
{
    if (!slice_eq(got, slice_str(want)))
        fail_msg("%s: got '%.*s', want '%s'", input, SLICE_ARG(got), want);
}

static const struct {
    const char *input, *mailbox, *local, *domain, *rest;
    bool is_literal;
} good_paths[] = {
    { "<a@b>", "a@b", "a", "b", "", false },
    { "<a@b> SIZE=1", "a@b", "a", "b", " SIZE=1", false },
    { "<>", "", "", "", "", false }, /* P-37 */
    { "<> X", "", "", "", " X", false },
    { "<Joe.User+tag=x@Example.COM>", "Joe.User+tag=x@Example.COM", "Joe.User+tag=x", "Example.COM",
      "", false }, /* P-9: case kept */
    { "<!#$%&'*+-/=?^_`{|}~@x.y>", "!#$%&'*+-/=?^_`{|}~@x.y", "!#$%&'*+-/=?^_`{|}~", "x.y", "",
      false },
    /* P-44: quoted local parts */
    { "<\"a b\"@c>", "\"a b\"@c", "\"a b\"", "c", "", false },
    { "<\"a@b\"@c>", "\"a@b\"@c", "\"a@b\"", "c", "", false },
    { "<\"a>b\"@c>x", "\"a>b\"@c", "\"a>b\"", "c", "x", false },
    { "<\"\\\"\\\\\"@c>", "\"\\\"\\\\\"@c", "\"\\\"\\\\\"", "c", "", false },
    { "<\"\"@c>", "\"\"@c", "\"\"", "c", "", false },
    { "<\"a..b.\"@c>", "\"a..b.\"@c", "\"a..b.\"", "c", "", false },
    { "<\"\\ \"@c>", "\"\\ \"@c", "\"\\ \"", "c", "", false },
    /* P-42: the route is dropped */
    { "<@a:u@c>", "u@c", "u", "c", "", false },
    { "<@a,@b.example:u@c> X", "u@c", "u", "c", " X", false },
    /* P-36 */
    { "<postmaster>", "postmaster", "postmaster", "", "", false },
    { "<PostMaster> X", "PostMaster", "PostMaster", "", " X", false },
    { "<@a:Postmaster>", "Postmaster", "Postmaster", "", "", false },
    /* P-43, P-50: only data */
    { "<u%other.example@c>", "u%other.example@c", "u%other.example", "c", "", false },
    { "<a!b!c@d>", "a!b!c@d", "a!b!c", "d", "", false },
    { "<-oQ/tmp/x@c>", "-oQ/tmp/x@c", "-oQ/tmp/x", "c", "", false },
    { "<|/bin/sh@c>", "|/bin/sh@c", "|/bin/sh", "c", "", false },
    { "<${run{x}}@c>", "${run{x}}@c", "${run{x}}", "c", "", false },
    /* P-47 */
    { "<a@_dmarc.b-c.d>", "a@_dmarc.b-c.d", "a", "_dmarc.b-c.d", "", false },
    { "<a@1.2.3.4>", "a@1.2.3.4", "a", "1.2.3.4", "", false },
    { "<a@" A63 ".x>", "a@" A63 ".x", "a", A63 ".x", "", false },
    /* P-48 */
    { "<a@[1.2.3.4]>", "a@[1.2.3.4]", "a", "[1.2.3.4]", "", true },
    { "<a@[IPv6:::1]>", "a@[IPv6:::1]", "a", "[IPv6:::1]", "", true },
    { "<a@[ipv6:2001:db8::192.0.2.1]>", "a@[ipv6:2001:db8::192.0.2.1]", "a",
      "[ipv6:2001:db8::192.0.2.1]", "", true },
};

static void takes_good_paths(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(good_paths); i++) {
        const char *input = good_paths[i].input;
        struct slice in = exact(slice_str(input));
        struct address a;
        size_t used = 0;
        if (address_parse_path(in, &a, &used) != ADDRESS_OK)
            fail_msg("%s: refused", input);
        assert_slice(a.mailbox, good_paths[i].mailbox, input);
        assert_slice(a.local, good_paths[i].local, input);
        assert_slice(a.domain, good_paths[i].domain, input);
        assert_slice(slice_skip(in, used), good_paths[i].rest, input);
        assert_int_equal(a.is_literal, good_paths[i].is_literal);
        release(in);
    }
}

/* Every mailbox of the paths is a mailbox on its own, cut the same way. */
static void takes_their_mailboxes(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(good_paths); i++) {
        struct slice in = exact(slice_str(good_paths[i].mailbox));
        struct address a;
        enum address_error error = address_parse_mailbox(in, &a);
        if (in.len == 0) {
            assert_int_equal(error, ADDRESS_SYNTAX);
        } else {
            assert_int_equal(error, ADDRESS_OK);
            assert_slice(a.mailbox, good_paths[i].mailbox, good_paths[i].input);
            assert_slice(a.domain, good_paths[i].domain, good_paths[i].input);
        }
        release(in);
    }
}

#define BAD(text, why)                                                                             \
    {                                                                                              \
        SLICE(text), ADDRESS_##why, #why " for " text                                              \
    }

static const struct {
    struct slice input;
    enum address_error error;
    const char *what;
} bad_paths[] = {
    BAD("", SYNTAX),
    BAD("<", SYNTAX),
    BAD("a@b", SYNTAX),
    BAD(" <a@b>", SYNTAX),
    BAD("<a@b", SYNTAX),
    BAD("<a@b ", SYNTAX),
    BAD("< a@b>", SYNTAX),
    BAD("<a@b >", SYNTAX),
    BAD("<a @b>", SYNTAX),
    BAD("<a@>", SYNTAX),
    BAD("<@b>", SYNTAX),
    BAD("<a@b@c>", SYNTAX),
    BAD("<.a@b>", SYNTAX),
    BAD("<a.@b>", SYNTAX),
    BAD("<a..b@c>", SYNTAX),
    BAD("<<a@b>>", SYNTAX),
    BAD("<a(x)@b>", SYNTAX),
    BAD("<a,b@c>", SYNTAX),
    BAD("<a:b@c>", SYNTAX),
    BAD("<\"a@b>", SYNTAX),
    BAD("<\"a\"b@c>", SYNTAX),
    BAD("<a\"b\"@c>", SYNTAX),
    BAD("<\"a\\", SYNTAX),
    BAD("<\"a\\\"@c>", SYNTAX),
    BAD("<\"a\".b@c>", SYNTAX),
    /* P-42: a route must be whole */
    BAD("<@a>", SYNTAX),
    BAD("<@a:>", SYNTAX),
    BAD("<@a,:u@c>", SYNTAX),
    BAD("<@a,b:u@c>", SYNTAX),
    BAD("<@a@b:u@c>", SYNTAX),
    BAD("<@:u@c>", SYNTAX),
    BAD("<@a:@b:u@c>", SYNTAX),
    /* P-47 */
    BAD("<a@b.>", SYNTAX),
    BAD("<a@.b>", SYNTAX),
    BAD("<a@b..c>", SYNTAX),
    BAD("<a@-b>", SYNTAX),
    BAD("<a@b->", SYNTAX),
    BAD("<a@b-.c>", SYNTAX),
    BAD("<a@../../etc/passwd>", SYNTAX),
    BAD("<a@b/c>", SYNTAX),
    BAD("<a@b*c>", SYNTAX),
    BAD("<a@" A63 "a.x>", TOO_LONG),
    /* P-46 */
    BAD("<" A60 "aaaaa@b>", TOO_LONG),
    BAD("<\"" A60 "aaa\"@b>", TOO_LONG),
    BAD("<a@" A63 "." A63 "." A63 "." A63 ".a>", TOO_LONG),
    BAD("<aa@" A63 "." A63 "." A63 "." A60 ">", TOO_LONG), /* domain 252, path 257 */
    BAD("<@r:a@" A63 "." A63 "." A63 "." A60 ">", TOO_LONG),
    /* P-45, P-19: controls, also where they would be quoted */
    BAD("<a\0@b>", CONTROL),
    BAD("<a@b\0>", CONTROL),
    BAD("<\"a\0b\"@c>", CONTROL),
    BAD("<\"a\rb\"@c>", CONTROL),
    BAD("<\"a\nb\"@c>", CONTROL),
    BAD("<\"a\\\rb\"@c>", CONTROL),
    BAD("<\"a\\\nb\"@c>", CONTROL),
    BAD("<\"a\\\0b\"@c>", CONTROL),
    BAD("<\"a\tb\"@c>", CONTROL),
    BAD("<\"a\x7f\"@c>", CONTROL),
    BAD("<a@[1.2.3.4\0]>", CONTROL),
    BAD("\r", CONTROL),
    /* P-70 */
    /* P-70: strict UTF-8, no C1 control, no line separator. */
    BAD("<\xc3@b>", NOT_ASCII),
    BAD("<\xc0\xaf@b>", NOT_ASCII),
    BAD("<\xed\xa0\x80@b>", NOT_ASCII),
    BAD("<\xf4\x90\x80\x80@b>", NOT_ASCII),
    BAD("<\xc2\x85@b>", NOT_ASCII),
    BAD("<\xe2\x80\xa8@b>", NOT_ASCII),
    BAD("<\"\xe2\x80\xa9\"@b>", NOT_ASCII),
    /* P-71: what IDNA would map to another domain makes none. */
    BAD("<a@\xe3\x80\x82.x>", NOT_ASCII),
    BAD("<a@b\xe3\x80\x82x>", NOT_ASCII),
    BAD("<a@\xef\xbd\x81.x>", NOT_ASCII),
    BAD("<\"\xff\"@b>", NOT_ASCII),
    BAD("<a@[\x80]>", NOT_ASCII),
    BAD("<a@b\xe2\x80\xa8>", NOT_ASCII),
    /* P-36: only postmaster may do without a domain */
    BAD("<bob>", NO_DOMAIN),
    BAD("<postmasters>", NO_DOMAIN),
    BAD("<\"postmaster\">", NO_DOMAIN),
    /* P-48 */
    BAD("<a@[]>", LITERAL),
    BAD("<a@[1.2.3]>", LITERAL),
    BAD("<a@[1.2.3.4.5]>", LITERAL),
    BAD("<a@[1.2.3.256]>", LITERAL),
    BAD("<a@[01.2.3.4]>", LITERAL),
    BAD("<a@[1.2.3.4>", LITERAL),
    BAD("<a@[ 1.2.3.4]>", LITERAL),
    BAD("<a@[::1]>", LITERAL),
    BAD("<a@[IPv6:]>", LITERAL),
    BAD("<a@[IPv6:1::2::3]>", LITERAL),
    BAD("<a@[IPv6:12345::]>", LITERAL),
    BAD("<a@[IPv6:1.2.3.4]>", LITERAL),
    BAD("<a@[IPv6:fe80::1%lo]>", LITERAL),
    BAD("<a@[IPv6:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]>", LITERAL),
    BAD("<a@[IPv6:0000:0000:0000:0000:0000:0000:0000:0000:000000]>", LITERAL), /* 46 octets */
    BAD("<a@[IPv5:1.2.3.4]>", LITERAL),
    BAD("<a@[x400:foo]>", LITERAL),
    BAD("<a@[localhost]>", LITERAL),
    BAD("<a@[1.2.3.4]x>", SYNTAX),
};

static void refuses_bad_paths(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(bad_paths); i++) {
        struct slice in = exact(bad_paths[i].input);
        struct address a = { .is_literal = true };
        size_t used = 77;
        enum address_error error = address_parse_path(in, &a, &used);
        if (error != bad_paths[i].error)
            fail_msg("row %zu: got %d, want %s", i, error, bad_paths[i].what);
        assert_int_equal(used, 77); /* outputs are written on success only */
        assert_true(a.is_literal);
        release(in);
    }
}

/* P-46: exactly at the limits */
static void takes_the_longest(void **state)
{
    struct address a;
    size_t used = 0;
    assert_int_equal(address_parse_path(SLICE("<" A60 "aaaa@b>"), &a, &used), ADDRESS_OK);
    assert_int_equal(a.local.len, ADDRESS_LOCAL_MAX);
    struct slice path = SLICE("<a@" A63 "." A63 "." A63 "." A60 ">");
    assert_int_equal(path.len, ADDRESS_PATH_MAX);
    assert_int_equal(address_parse_path(path, &a, &used), ADDRESS_OK);
    struct slice mailbox = slice_of(path.ptr + 1, path.len - 2);
    assert_int_equal(address_parse_mailbox(mailbox, &a), ADDRESS_OK);
    assert_int_equal(address_parse_mailbox(SLICE("aa@" A63 "." A63 "." A63 "." A60), &a),
                     ADDRESS_TOO_LONG);
}

/* A path cut short anywhere is never accepted, and never read past its end. */
static void refuses_every_cut(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(good_paths); i++) {
        struct slice whole = slice_str(good_paths[i].input);
        size_t path_len = whole.len - strlen(good_paths[i].rest);
        for (size_t n = 0; n < path_len; n++) {
            struct slice in = exact(slice_head(whole, n));
            struct address a;
            size_t used;
            if (address_parse_path(in, &a, &used) == ADDRESS_OK)
                fail_msg("%s: taken after %zu octets", good_paths[i].input, n);
            release(in);
        }
    }
}

static void mailbox_fills_the_input(void **state)
{
    struct address a;
    assert_int_equal(address_parse_mailbox(SLICE("a@b>"), &a), ADDRESS_SYNTAX);
    assert_int_equal(address_parse_mailbox(SLICE("a@b "), &a), ADDRESS_SYNTAX);
    assert_int_equal(address_parse_mailbox(SLICE("postmaster>"), &a), ADDRESS_SYNTAX);
    assert_int_equal(address_parse_mailbox(SLICE("<a@b>"), &a), ADDRESS_SYNTAX);
    assert_int_equal(address_parse_mailbox(SLICE("a@b\0"), &a), ADDRESS_CONTROL);
    assert_int_equal(address_parse_mailbox(SLICE_NONE, &a), ADDRESS_SYNTAX);
}

static void judges_domains_alone(void **state)
{
    assert_true(address_domain_is_valid(SLICE("localhost"))); /* P-4 */
    assert_true(address_domain_is_valid(SLICE("a_b.example")));
    assert_true(address_domain_is_valid(SLICE("x--y.example")));
    assert_false(address_domain_is_valid(SLICE("")));
    assert_false(address_domain_is_valid(SLICE_NONE));
    assert_true(address_domain_is_valid(SLICE(A63 "." A63 "." A63 "." A63)));
    assert_false(address_domain_is_valid(SLICE(A63 "." A63 "." A63 "." A60 "aa.a")));
    assert_false(address_domain_is_valid(SLICE("a.")));
    assert_false(address_domain_is_valid(SLICE("a b")));
    assert_false(address_domain_is_valid(SLICE("a\0b")));
    assert_false(address_domain_is_valid(SLICE("[1.2.3.4]")));
    assert_true(address_literal_is_valid(SLICE("[1.2.3.4]")));
    assert_true(address_literal_is_valid(SLICE("[IPv6:fe80::1]")));
    assert_false(address_literal_is_valid(SLICE("[1.2.3.4]x")));
    assert_false(address_literal_is_valid(SLICE("1.2.3.4")));
    assert_false(address_literal_is_valid(SLICE("[1.2.3.4")));
    assert_false(address_literal_is_valid(SLICE("[")));
    assert_false(address_literal_is_valid(SLICE_NONE));
}

/* RFC 6531 3.3: characters, in the local part, in quotes and in the domain. */
static void takes_utf8_and_says_so(void **state)
{
    static const struct {
        const char *path;
        bool is_utf8;
    } rows[] = {
        { "<\xc3\xa9@b.example>", true },
        { "<a@\xc3\xa9.example>", true },
        { "<\"\xe6\xbc\xa2 \xf0\x9f\x98\x80\"@b.example>", true },
        { "<a@xn--9ca.example>", false },
        { "<a@b.example>", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct address a;
        size_t used = 0;
        assert_int_equal(address_parse_path(slice_str(rows[i].path), &a, &used), ADDRESS_OK);
        assert_int_equal(used, strlen(rows[i].path));
        assert_int_equal(a.is_utf8, rows[i].is_utf8);
    }
    assert_false(address_domain_is_valid(SLICE("\xc3\xa9.example"))); /* EHLO has no SMTPUTF8 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_utf8_and_says_so),  cmocka_unit_test(takes_good_paths),
        cmocka_unit_test(takes_their_mailboxes),   cmocka_unit_test(refuses_bad_paths),
        cmocka_unit_test(takes_the_longest),       cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(mailbox_fills_the_input), cmocka_unit_test(judges_domains_alone),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
