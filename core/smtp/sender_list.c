/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sender_list - patterns of addresses, and whether an address fits one.
 *
 * An address is cut into its local part and its domain once: behind the closing quote of a quoted
 * local part, otherwise at its only '@'. What cannot be cut fits nothing but "*". Local parts are
 * compared without their quotes and backslashes ("a.b" in quotes is a.b), so that a spelling is no
 * way round a pattern (P-44), and octet by octet (RFC 5321 2.4); domains in any case of ASCII. A
 * domain in UTF-8 and its A-label form are two domains here: list the one that is used.
 *
 * Life: patterns are added one by one and go together. Lists are short and walked in order.
 * Limits: SENDER_PATTERN_MAX octets each; how many is bounded by where they are written.
 * To add a kind of pattern: sender_pattern_is_valid, pattern_allows and their tests.
 */
#include "core/smtp/sender_list.h"
#include "core/base/must.h"
#include "core/smtp/address.h"

#include <stdlib.h>

#define SENDER_PATTERN_MAX ADDRESS_PATH_MAX

/* A mailbox in two. */
struct parts {
    struct slice local; /* without the quotes around it, backslashes still in */
    struct slice domain;
};

/* The octets of a local part as they are meant. */
struct plain {
    struct slice rest;
    bool is_quoted;
};

static bool is_quoted(struct slice local)
{
    return local.len > 0 && local.ptr[0] == '"';
}

/* Offset behind the local part, where the '@' must be; past the end when there is none. */
static size_t local_end(struct slice mailbox)
{
    size_t at = 1;
    if (!is_quoted(mailbox))
        return slice_find(mailbox, '@');
    while (at < mailbox.len && mailbox.ptr[at] != '"')
        at += mailbox.ptr[at] == '\\' ? 2 : 1;
    return at + 1;
}

/* False: it has no domain, or more than one '@' outside quotes. */
static bool cut_mailbox(struct slice mailbox, struct parts *out)
{
    size_t end = local_end(mailbox);
    if (end == 0 || end >= mailbox.len || mailbox.ptr[end] != '@')
        return false;
    out->local = slice_head(mailbox, end);
    out->domain = slice_skip(mailbox, end + 1);
    return out->domain.len > 0 && slice_find(out->domain, '@') == out->domain.len;
}

static struct plain plain_of(struct slice local)
{
    if (!is_quoted(local))
        return (struct plain){ local, false };
    return (struct plain){ slice_of(local.ptr + 1, local.len - 2), true };
}

/* The next octet that is meant; -1 at the end. */
static int plain_next(struct plain *p)
{
    if (p->is_quoted && p->rest.len > 1 && p->rest.ptr[0] == '\\')
        p->rest = slice_skip(p->rest, 1);
    if (p->rest.len == 0)
        return -1;
    int c = (unsigned char)p->rest.ptr[0];
    p->rest = slice_skip(p->rest, 1);
    return c;
}

static bool is_same_local(struct slice a, struct slice b)
{
    struct plain left = plain_of(a), right = plain_of(b);
    int c;
    do {
        c = plain_next(&left);
        if (c != plain_next(&right))
            return false;
    } while (c >= 0);
    return true;
}

static bool is_same_mailbox(const struct parts *a, const struct parts *b)
{
    return slice_eq_nocase(a->domain, b->domain) && is_same_local(a->local, b->local);
}

/* ".example.org" at the end of the domain, and a name before it. */
static bool is_below(struct slice domain, struct slice parent)
{
    return domain.len > parent.len &&
           slice_eq_nocase(slice_skip(domain, domain.len - parent.len), parent);
}

static bool pattern_allows(struct slice pattern, const struct parts *mailbox)
{
    struct parts wanted;
    if (pattern.ptr[0] != '@')
        return cut_mailbox(pattern, &wanted) && is_same_mailbox(&wanted, mailbox);
    pattern = slice_skip(pattern, 1);
    if (pattern.len > 0 && pattern.ptr[0] == '*')
        return is_below(mailbox->domain, slice_skip(pattern, 1));
    return slice_eq_nocase(mailbox->domain, pattern);
}

bool sender_list_allows(char *const *patterns, size_t count, struct slice mailbox)
{
    struct parts parts;
    bool is_whole = cut_mailbox(mailbox, &parts);
    for (size_t i = 0; i < count; i++) {
        struct slice pattern = slice_str(patterns[i]);
        if (slice_eq(pattern, SLICE("*")))
            return true;
        if (is_whole && pattern.len > 0 && pattern_allows(pattern, &parts))
            return true;
    }
    return false;
}

bool sender_is_own(struct slice name, struct slice mailbox)
{
    struct parts own, parts;
    return cut_mailbox(name, &own) && cut_mailbox(mailbox, &parts) && is_same_mailbox(&own, &parts);
}

/* --- the list -------------------------------------------------------------------------------- */

static bool is_clean(struct slice s, const char *without)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < ' ' || c == 127 || (c < 127 && strchr(without, c)))
            return false;
    }
    return true;
}

/* Letters, digits, hyphens, underscores and UTF-8, in labels. */
static bool is_domain_name(struct slice domain)
{
    char before = '.';
    if (domain.len == 0 || domain.len > ADDRESS_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < domain.len; i++) {
        if (domain.ptr[i] == '.' && before == '.')
            return false;
        before = domain.ptr[i];
    }
    return before != '.' && is_clean(domain, " !\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");
}

static bool is_domain(struct slice domain)
{
    return is_domain_name(domain) || address_literal_is_valid(domain);
}

/* A quoted one may hold anything printable. */
static bool is_local(struct slice local)
{
    if (local.len == 0 || local.len > ADDRESS_LOCAL_MAX)
        return false;
    return is_clean(local, is_quoted(local) ? "" : " \"(),:;<>@[\\]*");
}

bool sender_pattern_is_valid(struct slice pattern)
{
    struct parts parts;
    if (pattern.len == 0 || pattern.len > SENDER_PATTERN_MAX)
        return false;
    if (slice_eq(pattern, SLICE("*")))
        return true;
    if (slice_eq(slice_head(pattern, 3), SLICE("@*.")))
        return is_domain_name(slice_skip(pattern, 3));
    if (pattern.ptr[0] == '@')
        return is_domain(slice_skip(pattern, 1));
    return cut_mailbox(pattern, &parts) && is_local(parts.local) && is_domain(parts.domain);
}

enum status sender_list_add(struct sender_list *l, struct slice pattern)
{
    if (!sender_pattern_is_valid(pattern))
        return STATUS_BAD;
    char *copy = mem_alloc(pattern.len + 1);
    memcpy(copy, pattern.ptr, pattern.len);
    copy[pattern.len] = '\0';
    l->patterns = mem_realloc(l->patterns, (l->count + 1) * sizeof *l->patterns);
    l->patterns[l->count++] = copy;
    return STATUS_OK;
}

void sender_list_done(struct sender_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->patterns[i]);
    free(l->patterns);
    *l = (struct sender_list){ 0 };
}
