/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a path and as a mailbox. What is taken is printable, within its limits, made of
 * valid parts, and parses to the same again, alone and between brackets.
 */
#include "core/smtp/address.h"
#include "tests/fuzz/fuzz.h"

static void check_parts(const struct address *a, struct slice in)
{
    must(slice_lies_in(a->mailbox, in) && (a->is_utf8 || slice_is_printable(a->mailbox)));
    must(slice_lies_in(a->local, a->mailbox) && slice_lies_in(a->domain, a->mailbox));
    must(a->local.len <= ADDRESS_LOCAL_MAX && a->domain.len <= ADDRESS_DOMAIN_MAX);
    if (a->domain.len == 0) {
        must(a->mailbox.len == 0 || slice_eq_nocase(a->mailbox, SLICE("postmaster")));
        return;
    }
    must(a->local.len > 0 && a->mailbox.len == a->local.len + 1 + a->domain.len);
    must(a->mailbox.ptr[a->local.len] == '@');
    must(address_literal_is_valid(a->domain) == a->is_literal);
    must(a->is_utf8 || address_domain_is_valid(a->domain) != a->is_literal);
}

static void check_same(const struct address *a, const struct address *b)
{
    must(slice_eq(a->mailbox, b->mailbox) && slice_eq(a->local, b->local));
    must(slice_eq(a->domain, b->domain) && a->is_literal == b->is_literal);
}

/* "<" mailbox ">" is a path of that mailbox. */
static void check_as_path(const struct address *a)
{
    char path[ADDRESS_PATH_MAX];
    struct address again;
    size_t used = 0;
    must(a->mailbox.len + 2 <= sizeof(path));
    path[0] = '<';
    if (a->mailbox.len > 0)
        memcpy(path + 1, a->mailbox.ptr, a->mailbox.len);
    path[a->mailbox.len + 1] = '>';
    struct slice in = slice_of(path, a->mailbox.len + 2);
    must(address_parse_path(in, &again, &used) == ADDRESS_OK && used == in.len);
    check_same(a, &again);
}

static void check_path(struct slice in)
{
    struct address a, again;
    size_t used = 0, used_again = 0;
    if (address_parse_path(in, &a, &used) != ADDRESS_OK)
        return;
    must(used >= 2 && used <= in.len && used <= ADDRESS_PATH_MAX);
    must(in.ptr[0] == '<' && in.ptr[used - 1] == '>');
    must(a.is_utf8 || slice_is_printable(a.mailbox));
    check_parts(&a, in);
    check_as_path(&a);
    char *copy = exact_copy(slice_head(in, used)); /* nothing behind the path was looked at */
    must(address_parse_path(slice_of(copy, used), &again, &used_again) == ADDRESS_OK);
    must(used_again == used);
    check_same(&a, &again);
    free(copy);
    if (a.mailbox.len > 0) {
        must(address_parse_mailbox(a.mailbox, &again) == ADDRESS_OK);
        check_same(&a, &again);
    }
}

static void check_mailbox(struct slice in)
{
    struct address a;
    if (address_parse_mailbox(in, &a) != ADDRESS_OK)
        return;
    must(a.mailbox.ptr == in.ptr && a.mailbox.len == in.len);
    check_parts(&a, in);
    check_as_path(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    check_path(in);
    check_mailbox(in);
    if (address_domain_is_valid(in))
        must(in.len <= ADDRESS_DOMAIN_MAX && slice_find(in, '/') == in.len); /* P-47 */
    if (address_literal_is_valid(in))
        must(in.len <= ADDRESS_DOMAIN_MAX && slice_is_printable(in));
    return 0;
}
