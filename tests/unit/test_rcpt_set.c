/* SPDX-License-Identifier: Apache-2.0 */
/* rcpt_set: the same answers before and after the table comes (P-54). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/smtp/rcpt_set.h"
#include <stdio.h>

static const char *addresses[] = {
    "a@x.example", "A@x.example",  "b@x.example",     "a@y.example",
    "postmaster",  "Postmaster",   "\"a\"@x.example", "\"a@b\"@x.example",
    "a@x.exampl",  "aa@x.example", "a@xx.example",    "@x.example",
};

#define COUNT (sizeof addresses / sizeof addresses[0])

static struct slice domain_of(struct slice address)
{
    size_t at = address.len;
    while (at > 0 && address.ptr[at - 1] != '@')
        at--;
    return slice_skip(address, at > 0 ? at : address.len);
}

static bool contains(const struct rcpt_set *set, const struct message *m, const char *text)
{
    struct slice address = slice_str(text);
    return rcpt_set_contains(set, m, address, domain_of(address));
}

static void add(struct rcpt_set *set, struct message *m, const char *text)
{
    struct slice address = slice_str(text);
    message_add_rcpt(m, address, domain_of(address));
    rcpt_set_note_last(set, m);
}

/* Fills a set with `strangers` others, then asks for and adds the addresses one by one. */
static void check_all(unsigned strangers)
{
    char text[64];
    struct rcpt_set set = { 0 };
    struct message *m = message_new(NULL);
    for (unsigned i = 0; i < strangers; i++) {
        snprintf(text, sizeof text, "s%u@Z.example", i);
        assert_false(contains(&set, m, text));
        add(&set, m, text);
    }
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = 0; j < COUNT; j++)
            assert_int_equal(contains(&set, m, addresses[j]), j < i);
        add(&set, m, addresses[i]);
    }
    for (unsigned i = 0; i < strangers; i++) {
        snprintf(text, sizeof text, "s%u@z.EXAMPLE", i);
        assert_true(contains(&set, m, text));
        text[0] = 'S';
        assert_false(contains(&set, m, text));
    }
    message_unref(m);
}

static void a_few(void **state)
{
    check_all(0);
}

static void around_the_first_table(void **state)
{
    for (unsigned n = 1; n < 40; n++)
        check_all(n);
}

static void many(void **state)
{
    check_all(5000);
}

static void the_domain_has_no_case(void **state)
{
    struct rcpt_set set = { 0 };
    struct message *m = message_new(NULL);
    add(&set, m, "a@X.Example");
    assert_true(contains(&set, m, "a@x.example"));
    assert_true(contains(&set, m, "a@X.EXAMPLE"));
    assert_false(contains(&set, m, "A@X.Example"));
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_few),
        cmocka_unit_test(around_the_first_table),
        cmocka_unit_test(many),
        cmocka_unit_test(the_domain_has_no_case),
    };
    return cmocka_run_group_tests_name("rcpt_set", tests, NULL, NULL);
}
