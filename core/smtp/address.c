/* SPDX-License-Identifier: Apache-2.0 */
/*
 * address - the mailbox grammar of RFC 5321 4.1.2 as a set of scanners.
 *
 * Every scanner takes the input and a cursor, moves the cursor over what it matched, and says
 * ADDRESS_OK or why it stopped. None of them looks further than the octet it judges, so quoted
 * strings may hold '@', '>' and spaces (P-44), and a NUL is an octet like any other: there are no
 * C strings here but one bounded copy for inet_pton, which makes no system call.
 *
 * What is not grammar stays out: a percent sign, a bang, a pipe or "${run{" in a local part is data
 * (P-43, P-50), the local part's case is kept (P-9), and whether a literal may be relayed to is the
 * session's policy (P-48).
 *
 * Limits: those of RFC 5321 4.5.3.1, counted over the octets as given; the path's over all of it,
 * source route and brackets too. Only 253 octets of a domain name can exist in the DNS; the longer
 * ones fail there.
 *
 * SMTPUTF8 (RFC 6531 3.3): a UTF-8 character may stand wherever a letter may. The encoding is
 * strict (P-70), controls and line separators are no characters here, and a domain must have
 * A-labels, so that no ideographic full stop or wide letter makes another domain of it (P-71).
 * Whether the extension was asked for is the session's to check: is_utf8 tells.
 */
#include "core/smtp/address.h"
#include "core/smtp/idn.h"

#include <arpa/inet.h>
#include <stdint.h>

#define LABEL_MAX 63 /* RFC 1035 2.3.4 */

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* RFC 5322 3.2.3 */
static bool is_atext(char c)
{
    return is_letter_or_digit(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

static bool is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

static bool at_octet(struct slice in, size_t at, char c)
{
    return at < in.len && in.ptr[at] == c;
}

/* The octets from..to-1; `in` may be the empty slice, whose pointer is NULL. */
static struct slice span(struct slice in, size_t from, size_t to)
{
    return slice_head(slice_skip(in, from), to - from);
}

/* Octets of the UTF-8 character at the cursor; 0: there is none, or one that must not be (C1
 * controls, line and paragraph separators, surrogates, overlong forms, beyond U+10FFFF). */
static size_t utf8_len(struct slice in, size_t at)
{
    static const uint32_t least[] = { 0, 0, 0xa0, 0x800, 0x10000 };
    const unsigned char *p = (const unsigned char *)in.ptr + at;
    size_t left = in.len - at;
    if (at >= in.len || *p < 0xc2 || *p > 0xf4)
        return 0;
    size_t len = *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
    if (left < len)
        return 0;
    uint32_t code = *p & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ||
        code == 0x2028 || code == 0x2029)
        return 0;
    return len;
}

/* Why the octet at the cursor (or the end) cannot stand there. */
static enum address_error octet_fault(struct slice in, size_t at)
{
    if (at >= in.len)
        return ADDRESS_SYNTAX;
    if ((unsigned char)in.ptr[at] > 127)
        return ADDRESS_NOT_ASCII;
    return is_printable(in.ptr[at]) ? ADDRESS_SYNTAX : ADDRESS_CONTROL;
}

/* Dot-string = Atom *("." Atom) */
static enum address_error scan_dot_string(struct slice in, size_t *at)
{
    for (;; (*at)++) {
        size_t atom = *at, step;
        while (*at < in.len && (step = is_atext(in.ptr[*at]) ? 1 : utf8_len(in, *at)) > 0)
            *at += step;
        if (*at == atom)
            return octet_fault(in, *at);
        if (!at_octet(in, *at, '.'))
            return ADDRESS_OK;
    }
}

/* Quoted-string = DQUOTE *(qtextSMTP / "\" %d32-126) DQUOTE; the cursor is on the first quote. */
static enum address_error scan_quoted_string(struct slice in, size_t *at)
{
    size_t step;
    for ((*at)++; !at_octet(in, *at, '"'); *at += step) {
        bool is_pair = at_octet(in, *at, '\\');
        *at += is_pair;
        step = *at < in.len && is_printable(in.ptr[*at]) ? 1 : is_pair ? 0 : utf8_len(in, *at);
        if (step == 0)
            return octet_fault(in, *at);
    }
    (*at)++;
    return ADDRESS_OK;
}

static enum address_error scan_local(struct slice in, size_t *at, struct slice *local)
{
    size_t start = *at;
    enum address_error error =
        at_octet(in, *at, '"') ? scan_quoted_string(in, at) : scan_dot_string(in, at);
    *local = span(in, start, *at);
    if (error == ADDRESS_OK && local->len > ADDRESS_LOCAL_MAX)
        return ADDRESS_TOO_LONG;
    return error;
}

static bool is_ldh(char c)
{
    return is_letter_or_digit(c) || c == '-' || c == '_';
}

/* One label: letters, digits, '_' and inner hyphens; UTF-8 is judged with the whole domain. */
static enum address_error scan_label(struct slice in, size_t *at)
{
    size_t start = *at, step;
    while (*at < in.len && (step = is_ldh(in.ptr[*at]) ? 1 : utf8_len(in, *at)) > 0)
        *at += step;
    if (*at == start)
        return octet_fault(in, *at);
    if (in.ptr[start] == '-' || in.ptr[*at - 1] == '-')
        return ADDRESS_SYNTAX;
    return *at - start > LABEL_MAX ? ADDRESS_TOO_LONG : ADDRESS_OK;
}

static bool has_a_labels(struct slice domain)
{
    char ascii[IDN_ASCII_MAX];
    size_t len;
    return !idn_is_needed(domain) || idn_to_ascii(domain, ascii, &len);
}

/* P-47: no empty label, so neither a leading nor a trailing dot. */
static enum address_error scan_domain_name(struct slice in, size_t *at)
{
    size_t start = *at;
    for (;; (*at)++) {
        enum address_error error = scan_label(in, at);
        if (error != ADDRESS_OK)
            return error;
        if (!at_octet(in, *at, '.'))
            break;
    }
    struct slice domain = span(in, start, *at);
    if (domain.len > ADDRESS_DOMAIN_MAX)
        return ADDRESS_TOO_LONG;
    return has_a_labels(domain) ? ADDRESS_OK : ADDRESS_NOT_ASCII;
}

/* Only octets of an address reach inet_pton, so its copy has no NUL inside. */
static bool is_ip_address(int family, struct slice text)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    if (text.len >= sizeof(copy))
        return false;
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == '\0' || !strchr("0123456789abcdefABCDEF:.", text.ptr[i]))
            return false;
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(family, copy, &ignored) == 1;
}

/* What stands between the brackets: an IPv4 address, or "IPv6:" and an IPv6 address. No other tag
 * is registered, so General-address-literal is refused (P-48). */
static bool literal_is_valid(struct slice inner)
{
    struct slice tag = SLICE("IPv6:");
    if (slice_eq_nocase(slice_head(inner, tag.len), tag))
        return is_ip_address(AF_INET6, slice_skip(inner, tag.len));
    return is_ip_address(AF_INET, inner);
}

/* The cursor is on the opening bracket. */
static enum address_error scan_literal(struct slice in, size_t *at)
{
    size_t start = ++*at;
    while (*at < in.len && is_printable(in.ptr[*at]) && !strchr(" []\\", in.ptr[*at]))
        (*at)++;
    if (!at_octet(in, *at, ']')) {
        enum address_error error = octet_fault(in, *at);
        return error == ADDRESS_SYNTAX ? ADDRESS_LITERAL : error;
    }
    struct slice inner = span(in, start, *at);
    (*at)++;
    return literal_is_valid(inner) ? ADDRESS_OK : ADDRESS_LITERAL;
}

static enum address_error scan_domain(struct slice in, size_t *at, struct address *out)
{
    size_t start = *at;
    out->is_literal = at_octet(in, *at, '[');
    enum address_error error = out->is_literal ? scan_literal(in, at) : scan_domain_name(in, at);
    out->domain = span(in, start, *at);
    return error;
}

/* Mailbox = Local-part "@" ( Domain / address-literal ), or postmaster alone (P-36). */
static enum address_error scan_mailbox(struct slice in, size_t *at, struct address *out)
{
    size_t start = *at;
    enum address_error error = scan_local(in, at, &out->local);
    if (error != ADDRESS_OK)
        return error;
    if (at_octet(in, *at, '@')) {
        (*at)++;
        error = scan_domain(in, at, out);
    } else if (*at < in.len && in.ptr[*at] != '>') {
        error = octet_fault(in, *at);
    } else if (!slice_eq_nocase(out->local, SLICE("postmaster"))) {
        error = ADDRESS_NO_DOMAIN;
    }
    out->mailbox = span(in, start, *at);
    out->is_utf8 = idn_is_needed(out->mailbox);
    return error;
}

/* A-d-l ":" with A-d-l = "@" Domain *( "," "@" Domain ); the cursor is on the first '@'. Checked,
 * then forgotten (P-42). */
static enum address_error scan_source_route(struct slice in, size_t *at)
{
    for (;; (*at)++) {
        if (!at_octet(in, *at, '@'))
            return octet_fault(in, *at);
        (*at)++;
        enum address_error error = scan_domain_name(in, at);
        if (error != ADDRESS_OK)
            return error;
        if (!at_octet(in, *at, ','))
            break;
    }
    if (!at_octet(in, *at, ':'))
        return octet_fault(in, *at);
    (*at)++;
    return ADDRESS_OK;
}

/* What stands between the angle brackets; nothing at all is the null path. */
static enum address_error scan_path_inner(struct slice in, size_t *at, struct address *out)
{
    if (at_octet(in, *at, '>'))
        return ADDRESS_OK;
    if (at_octet(in, *at, '@')) {
        enum address_error error = scan_source_route(in, at);
        if (error != ADDRESS_OK)
            return error;
    }
    return scan_mailbox(in, at, out);
}

enum address_error address_parse_path(struct slice in, struct address *out, size_t *used)
{
    struct address found = { 0 };
    size_t at = 0;
    if (!at_octet(in, at, '<'))
        return octet_fault(in, at);
    at++;
    enum address_error error = scan_path_inner(in, &at, &found);
    if (error != ADDRESS_OK)
        return error;
    if (!at_octet(in, at, '>'))
        return octet_fault(in, at);
    at++;
    if (at > ADDRESS_PATH_MAX)
        return ADDRESS_TOO_LONG;
    *out = found;
    *used = at;
    return ADDRESS_OK;
}

enum address_error address_parse_mailbox(struct slice in, struct address *out)
{
    struct address found = { 0 };
    size_t at = 0;
    enum address_error error = scan_mailbox(in, &at, &found);
    if (error != ADDRESS_OK)
        return error;
    if (at != in.len)
        return octet_fault(in, at);
    if (in.len + 2 > ADDRESS_PATH_MAX)
        return ADDRESS_TOO_LONG;
    *out = found;
    return ADDRESS_OK;
}

bool address_domain_is_valid(struct slice in)
{
    size_t at = 0;
    return !idn_is_needed(in) && scan_domain_name(in, &at) == ADDRESS_OK && at == in.len;
}

bool address_literal_is_valid(struct slice in)
{
    size_t at = 0;
    return at_octet(in, at, '[') && scan_literal(in, &at) == ADDRESS_OK && at == in.len;
}
