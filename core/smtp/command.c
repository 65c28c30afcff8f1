/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command - one command line into a verb and its arguments.
 *
 * A line is judged in this order: its first word (so that HTTP and Redis are known for what they
 * are even when the rest is garbage), its octets, its grammar. For MAIL and RCPT the path comes
 * before the octets, because an address with a control or an 8-bit octet has replies of its own
 * (P-45, P-70).
 *
 * Strictness, chosen: one or more spaces may part the verb from its argument, and white space at
 * the end of the line is dropped; inside MAIL and RCPT every space counts as the grammar has it:
 * none after the colon (P-38), exactly one before each parameter (P-41). A tab is a control.
 *
 * Limits: the caller bounds the line; work is linear in it.
 * To add a verb or a parameter: a row in command.h.
 */
#include "core/smtp/command.h"

static const struct {
    struct slice name;
    enum smtp_verb verb;
} verbs[] = {
#define X(verb) { { #verb, sizeof(#verb) - 1 }, SMTP_VERB_##verb },
    SMTP_VERB_TABLE(X)
#undef X
/* What other protocols begin with, as whole words (P-25; CVE-2021-3618). */
#define X(word) { { word, sizeof(word) - 1 }, SMTP_VERB_FOREIGN },
        X("GET") X("POST") X("CONNECT") X("PUT") X("HEAD") X("OPTIONS") X("DELETE") X("PATCH")
            X("TRACE") X("PRI") X("Host:")
#undef X
};

static const struct {
    struct slice keyword;
    enum smtp_param_id id;
} param_ids[] = {
#define X(id, spelling) { { spelling, sizeof(spelling) - 1 }, SMTP_PARAM_##id },
    SMTP_PARAM_TABLE(X)
#undef X
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c);
}

static bool is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

static bool has_bad_octet(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_printable(s.ptr[i]))
            return true;
    return false;
}

static bool has_prefix_nocase(struct slice s, struct slice prefix)
{
    return slice_eq_nocase(slice_head(s, prefix.len), prefix);
}

/* An SSH banner, or the array header that every Redis request begins with: "*1". */
static bool is_foreign_start(struct slice line)
{
    if (has_prefix_nocase(line, SLICE("SSH-")) || has_prefix_nocase(line, SLICE("Host:")))
        return true;
    return line.len >= 2 && line.ptr[0] == '*' && is_digit(line.ptr[1]);
}

static enum smtp_verb verb_of(struct slice line, struct slice name)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (slice_eq_nocase(name, verbs[i].name))
            return verbs[i].verb;
    return is_foreign_start(line) ? SMTP_VERB_FOREIGN : SMTP_VERB_UNKNOWN;
}

/* RFC 5321 4.1.1: white space before the end of the line is tolerated. */
static struct slice trim_end(struct slice s)
{
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static struct slice trim_start(struct slice s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = slice_skip(s, 1);
    return s;
}

static enum smtp_param_id param_id_of(struct slice keyword)
{
    for (size_t i = 0; i < sizeof(param_ids) / sizeof(param_ids[0]); i++)
        if (slice_eq_nocase(keyword, param_ids[i].keyword))
            return param_ids[i].id;
    return SMTP_PARAM_UNKNOWN;
}

/* esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-") */
static size_t keyword_len(struct slice s)
{
    size_t len = 0;
    while (len < s.len && (is_letter_or_digit(s.ptr[len]) || (s.ptr[len] == '-' && len > 0)))
        len++;
    return len;
}

/* esmtp-value = 1*(%d33-60 / %d62-126) */
static size_t value_len(struct slice s)
{
    size_t len = 0;
    while (len < s.len && is_printable(s.ptr[len]) && s.ptr[len] != ' ' && s.ptr[len] != '=')
        len++;
    return len;
}

bool smtp_param_next(struct slice *params, struct smtp_param *out)
{
    if (params->len < 2 || params->ptr[0] != ' ')
        return false;
    struct slice rest = slice_skip(*params, 1);
    struct smtp_param found = { .keyword = slice_head(rest, keyword_len(rest)) };
    rest = slice_skip(rest, found.keyword.len);
    if (found.keyword.len > 0 && rest.len > 0 && rest.ptr[0] == '=') {
        rest = slice_skip(rest, 1);
        found.value = slice_head(rest, value_len(rest));
        found.has_value = found.value.len > 0;
        rest = slice_skip(rest, found.value.len);
        if (!found.has_value)
            return false;
    }
    if (found.keyword.len == 0 || (rest.len > 0 && rest.ptr[0] != ' '))
        return false;
    found.id = param_id_of(found.keyword);
    *out = found;
    *params = rest;
    return true;
}

/* Walks all parameters once, so that nobody later meets a malformed one. */
static enum command_error check_params(struct slice params)
{
    uint32_t seen = 0;
    struct smtp_param param;
    while (smtp_param_next(&params, &param)) {
        uint32_t bit = 1u << param.id;
        if (param.id != SMTP_PARAM_UNKNOWN && (seen & bit) != 0)
            return COMMAND_DUPLICATE_PARAM;
        seen |= bit;
    }
    return params.len == 0 ? COMMAND_OK : COMMAND_BAD_PARAM;
}

/* What the grammar of paths allows, but not for this verb. */
static enum address_error check_path(enum smtp_verb verb, const struct address *path)
{
    if (verb == SMTP_VERB_RCPT)
        return path->mailbox.len == 0 ? ADDRESS_SYNTAX : ADDRESS_OK; /* P-49 */
    if (path->mailbox.len > 0 && path->domain.len == 0)
        return ADDRESS_NO_DOMAIN; /* bare postmaster is for recipients (P-36) */
    return ADDRESS_OK;
}

/* "FROM:" path params, or "TO:" path params */
static enum command_error parse_path_command(struct slice keyword, struct smtp_command *c)
{
    size_t used = 0;
    struct address path = { 0 };
    struct slice rest = slice_skip(c->argument, keyword.len);
    if (!has_prefix_nocase(c->argument, keyword) || rest.len == 0 || rest.ptr[0] != '<')
        return has_bad_octet(c->argument) ? COMMAND_BAD_OCTET : COMMAND_BAD_SYNTAX;
    c->address_error = address_parse_path(rest, &path, &used);
    if (c->address_error == ADDRESS_OK)
        c->address_error = check_path(c->verb, &path);
    if (c->address_error != ADDRESS_OK)
        return COMMAND_BAD_ADDRESS;
    rest = slice_skip(rest, used);
    if (has_bad_octet(rest))
        return COMMAND_BAD_OCTET;
    c->path = path;
    if (rest.len > 0 && rest.ptr[0] != ' ')
        return COMMAND_NO_SPACE;
    enum command_error error = check_params(rest);
    if (error == COMMAND_OK)
        c->params = rest;
    return error;
}

enum command_error smtp_command_parse(struct slice line, struct smtp_command *out)
{
    struct smtp_command c = { 0 };
    line = trim_end(line);
    c.name = slice_head(line, slice_find(line, ' '));
    c.argument = trim_start(slice_skip(line, c.name.len));
    c.verb = verb_of(line, c.name);
    enum command_error error;
    if (c.verb == SMTP_VERB_MAIL)
        error = parse_path_command(SLICE("FROM:"), &c);
    else if (c.verb == SMTP_VERB_RCPT)
        error = parse_path_command(SLICE("TO:"), &c);
    else
        error = has_bad_octet(line) ? COMMAND_BAD_OCTET : COMMAND_OK;
    *out = c;
    return error;
}

bool smtp_size_parse(struct slice value, uint64_t *octets)
{
    uint64_t n = 0;
    if (value.len < 1 || value.len > 20)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (!is_digit(value.ptr[i]))
            return false;
        uint64_t digit = (uint64_t)(value.ptr[i] - '0');
        n = n > (UINT64_MAX - digit) / 10 ? UINT64_MAX : n * 10 + digit;
    }
    *octets = n;
    return true;
}

/* An upper case hex digit's value, or -1. */
static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The octet behind "+XX" at the front of s; -1 when it is not that, or hides a control. */
static int xtext_hex(struct slice s)
{
    if (s.len < 3)
        return -1;
    int high = hex_value(s.ptr[1]), low = hex_value(s.ptr[2]);
    if (high < 0 || low < 0)
        return -1;
    int octet = high * 16 + low;
    return octet >= ' ' && octet <= '~' ? octet : -1;
}

bool smtp_xtext_decode(struct slice in, char *out, size_t *out_len)
{
    size_t len = 0;
    while (in.len > 0) {
        char c = in.ptr[0];
        if (!is_printable(c) || c == ' ' || c == '=')
            return false;
        int octet = c == '+' ? xtext_hex(in) : c;
        if (octet < 0)
            return false;
        out[len++] = (char)octet;
        in = slice_skip(in, c == '+' ? 3 : 1);
    }
    *out_len = len;
    return true;
}
