/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules_find - the first rule that fits a reply.
 *
 * A reply is brought into lower case once, as patterns are (rules.c), so that the walk over some
 * hundred rules is a few thousand comparisons of octets: failures are rare beside deliveries.
 *
 * To add a condition: its line in fits().
 */
#include "core/relay/rules_inside.h"

/* --- a reply -------------------------------------------------------------------------------- */

/* A number of at most three digits, or "x"; 0: neither. */
static size_t part_len(struct slice s)
{
    size_t n = 0;
    if (s.len > 0 && s.ptr[0] == 'x')
        return 1;
    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return n <= 3 ? n : 0;
}

bool reply_status_is_valid(struct slice s, bool is_pattern)
{
    if (s.len < 2 || !(s.ptr[0] == '4' || s.ptr[0] == '5' || (is_pattern && s.ptr[0] == 'x')))
        return false;
    for (int i = 0; i < 2; i++) {
        s = slice_skip(s, i == 0 ? 1 : part_len(s));
        size_t len = s.len > 0 && s.ptr[0] == '.' ? part_len(slice_skip(s, 1)) : 0;
        if (len == 0 || (!is_pattern && s.ptr[1] == 'x'))
            return false;
        s = slice_skip(s, 1);
    }
    return part_len(s) == s.len;
}

/* A reply as rules see it. */
struct subject {
    const struct rcpt_outcome *o;
    char code[4];
    char status[sizeof((struct rcpt_outcome *)0)->enhanced]; /* "" none */
    char text[SMTP_REPLY_TEXT_MAX];
    size_t text_len;
    char host[256];
    size_t host_len;
};

static size_t copy_lower(char *out, size_t max, struct slice s)
{
    size_t n = s.len < max ? s.len : max;
    for (size_t i = 0; i < n; i++)
        out[i] = reply_lower(s.ptr[i]);
    return n;
}

static void subject_init(struct subject *s, const struct rcpt_outcome *o, struct slice host)
{
    char class = o->code / 100 == 5 ? '5' : '4';
    *s = (struct subject){ .o = o };
    s->code[0] = class;
    s->code[1] = (char)('0' + o->code / 10 % 10);
    s->code[2] = (char)('0' + o->code % 10);
    if (reply_status_is_valid(slice_str(o->enhanced), false)) { /* P-166: 450 5.1.1 is a 4.1.1 */
        memcpy(s->status, o->enhanced, sizeof s->status);
        s->status[0] = class;
    }
    s->text_len = copy_lower(s->text, sizeof s->text, o->text);
    s->host_len = copy_lower(s->host, sizeof s->host, host);
}

/* Where the part of a pattern before its first * stands in s, at or after `from`; s.len + 1: it
 * does not. */
static size_t find_part(struct slice s, size_t from, struct slice part)
{
    const char *at =
        part.len > 0 ? memmem(s.ptr + from, s.len - from, part.ptr, part.len) : s.ptr + from;
    return at ? (size_t)(at - s.ptr) : s.len + 1;
}

/* The parts of the pattern stand in s, in order; a whole one must begin and end where s does. */
static bool matches(struct slice s, struct slice pattern, bool is_whole)
{
    size_t at = 0;
    for (bool is_first = true;; is_first = false) {
        size_t star = slice_find(pattern, '*');
        struct slice part = slice_head(pattern, star);
        bool is_last = star == pattern.len;
        if (is_last && is_whole && !is_first)
            return s.len - at >= part.len && slice_eq(slice_skip(s, s.len - part.len), part);
        size_t found = find_part(s, at, part);
        if (found > s.len || (is_whole && is_first && found > 0))
            return false;
        at = found + part.len;
        if (is_last)
            return !is_whole || at == s.len;
        pattern = slice_skip(pattern, star + 1);
    }
}

static bool code_fits(const char *code, struct slice pattern)
{
    for (size_t i = 0; i < 3; i++)
        if (pattern.ptr[i] != 'x' && pattern.ptr[i] != code[i])
            return false;
    return true;
}

/* Part by part; "x" fits any number. */
static bool status_fits(struct slice status, struct slice pattern)
{
    while (status.len > 0 && pattern.len > 0) {
        struct slice a = slice_head(status, slice_find(status, '.'));
        struct slice b = slice_head(pattern, slice_find(pattern, '.'));
        if (!slice_eq(b, SLICE("x")) && !slice_eq(a, b))
            return false;
        status = slice_skip(status, a.len + 1);
        pattern = slice_skip(pattern, b.len + 1);
    }
    return status.len == pattern.len;
}

static bool any_code(const struct reply_values *v, const struct subject *s)
{
    for (uint32_t i = 0; i < v->count; i++)
        if (code_fits(s->code, v->all[i]))
            return true;
    return v->count == 0;
}

static bool any_status(const struct reply_values *v, const struct subject *s)
{
    for (uint32_t i = 0; i < v->count && s->status[0]; i++)
        if (status_fits(slice_str(s->status), v->all[i]))
            return true;
    return v->count == 0;
}

static bool any_match(const struct reply_values *v, struct slice s, bool is_whole)
{
    for (uint32_t i = 0; i < v->count && s.len > 0; i++)
        if (matches(s, v->all[i], is_whole))
            return true;
    return v->count == 0;
}

static bool all_texts(const struct reply_rule *rule, const struct subject *s)
{
    for (uint32_t i = 0; i < rule->text_count; i++)
        if (!any_match(&rule->texts[i], slice_of(s->text, s->text_len), false))
            return false;
    return true;
}

static bool fits(const struct reply_rule *rule, const struct subject *s)
{
    return (rule->stages == 0 || (rule->stages & 1u << s->o->stage)) && any_code(&rule->codes, s) &&
           any_status(&rule->statuses, s) &&
           any_match(&rule->hosts, slice_of(s->host, s->host_len), true) && all_texts(rule, s);
}

const struct reply_rule *reply_rules_find(const struct reply_rules *rules,
                                          const struct rcpt_outcome *o, struct slice host)
{
    struct subject s;
    subject_init(&s, o, host);
    for (const struct reply_rule *rule = rules->first; rule; rule = rule->next)
        if (fits(rule, &s))
            return rule;
    return NULL;
}
