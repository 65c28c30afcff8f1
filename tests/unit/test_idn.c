/* SPDX-License-Identifier: Apache-2.0 */
/* Shows which name is looked up for a domain in U-labels, and which domains have none (P-71). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/must.h"
#include "core/smtp/idn.h"

static const struct {
    const char *domain, *ascii; /* NULL: refused */
} rows[] = {
    { "example.org", "example.org" },
    { "EXAMPLE.Org", "example.org" },
    { "", "" },
    { "caf\xc3\xa9.example", "xn--caf-dma.example" },
    { "CAF\xc3\xa9.EXAMPLE", "xn--caf-dma.example" },
    { "cafe\xcc\x81.example", "xn--caf-dma.example" }, /* composed first: NFC */
    { "xn--caf-dma.example", "xn--caf-dma.example" },
    { "stra\xc3\x9f"
      "e.example",
      "xn--strae-oqa.example" }, /* not "strasse" */
    { "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xbc\xd0\xb5\xd1\x80.\xd1\x80\xd1\x84",
      "xn--e1afmkfd.xn--p1ai" },
    { "caf\xc3\x89.example", NULL }, /* upper case is no U-label */
    { "a\xe3\x80\x82"
      "b.example",
      NULL },                           /* ideographic full stop */
    { "\xef\xbd\x85xample.org", NULL }, /* full width e */
    { "a\xe2\x80\x8d.example", NULL },  /* zero width joiner */
    { "\xe2\x98\x83.example", NULL },   /* a symbol */
    { "a\xe2\x80\xa8.example", NULL },  /* U+2028 */
    { "\xff.example", NULL },           /* not UTF-8 */
    { "\xc0\xae.example", NULL },       /* an overlong dot */
    { "\xed\xa0\x80.example", NULL },   /* a surrogate */
};

static void names_are_those_of_idna2008(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[IDN_ASCII_MAX];
        size_t len = 0;
        bool is_ok = idn_to_ascii(slice_str(rows[i].domain), out, &len);
        if (is_ok != (rows[i].ascii != NULL))
            fail_msg("%s: %s", rows[i].domain, is_ok ? out : "refused");
        if (is_ok && (strcmp(out, rows[i].ascii) != 0 || len != strlen(out)))
            fail_msg("%s: %s", rows[i].domain, out);
    }
}

static void names_are_bounded(void **state)
{
    struct buf long_name;
    char out[IDN_ASCII_MAX];
    size_t len;
    buf_init(&long_name, 4096);
    assert_false(idn_to_ascii(SLICE("a\0b"), out, &len));
    for (int i = 0; i < 127; i++)
        assert_int_equal(buf_append(&long_name, SLICE("a.")), STATUS_OK);
    assert_true(idn_to_ascii(buf_slice(&long_name), out, &len));
    assert_int_equal(len, 254);
    assert_int_equal(buf_append(&long_name, SLICE("a.")), STATUS_OK);
    assert_false(idn_to_ascii(buf_slice(&long_name), out, &len));
    while (long_name.len < 1020)
        assert_int_equal(buf_append(&long_name, SLICE("\xc3\xa9.")), STATUS_OK);
    assert_false(idn_to_ascii(buf_slice(&long_name), out, &len));
    while (long_name.len < 2000)
        assert_int_equal(buf_append(&long_name, SLICE("\xc3\xa9.")), STATUS_OK);
    assert_false(idn_to_ascii(buf_slice(&long_name), out, &len));
    buf_done(&long_name);
}

static void ascii_needs_nothing(void **state)
{
    assert_false(idn_is_needed(SLICE("example.org")));
    assert_false(idn_is_needed(SLICE_NONE));
    assert_true(idn_is_needed(SLICE("a\x80")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_idna2008),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(ascii_needs_nothing),
    };
    return cmocka_run_group_tests_name("idn", tests, NULL, NULL);
}
