/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sts - MTA-STS records and policies.
 *
 * Both are lists of names and values that may grow: unknown names mean nothing. Of a name that
 * stands twice the first counts, but for mx. A record or policy that is malformed is none at all,
 * so that a half-read policy never lets mail through that the whole one would not.
 *
 * To read another field: a row in fields[].
 */
#include "core/relay/sts.h"
#include "core/smtp/address.h"
#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = slice_skip(s, 1);
    while (s.len > 0 && (is_blank(s.ptr[s.len - 1]) || s.ptr[s.len - 1] == '\r'))
        s = slice_head(s, s.len - 1);
    return s;
}

/* Cuts off what comes before `mark`, trimmed; the rest begins behind it. */
static struct slice cut(struct slice *rest, char mark)
{
    size_t end = slice_find(*rest, mark);
    struct slice part = trim(slice_head(*rest, end));
    *rest = slice_skip(*rest, end < rest->len ? end + 1 : end);
    return part;
}

/* --- the record ------------------------------------------------------------------------------ */

static bool is_id(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z'))
            return false;
    }
    return s.len > 0 && s.len <= STS_ID_MAX;
}

static bool is_of_sts(struct slice text)
{
    return slice_eq(cut(&text, ';'), SLICE("v=STSv1"));
}

static bool read_id(struct slice text, char id[STS_ID_MAX + 1])
{
    cut(&text, ';');
    while (text.len > 0) {
        struct slice field = cut(&text, ';');
        struct slice name = cut(&field, '=');
        if (!slice_eq(name, SLICE("id")))
            continue;
        field = trim(field);
        if (!is_id(field))
            return false;
        memcpy(id, field.ptr, field.len);
        id[field.len] = '\0';
        return true;
    }
    return false;
}

bool sts_read_record(const struct slice *texts, size_t count, char id[STS_ID_MAX + 1])
{
    size_t found = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        if (is_of_sts(texts[i])) {
            found++;
            at = i;
        }
    return found == 1 && read_id(texts[at], id);
}

/* --- the policy ------------------------------------------------------------------------------ */

struct reading {
    struct sts_policy *out;
    bool has_version, has_mode, has_age;
};

static bool on_version(struct reading *r, struct slice value)
{
    bool is_first = !r->has_version;
    r->has_version = true;
    return !is_first || slice_eq(value, SLICE("STSv1"));
}

static bool on_mode(struct reading *r, struct slice value)
{
    static const struct slice names[] = {
        [STS_NONE] = { "none", 4 },
        [STS_TESTING] = { "testing", 7 },
        [STS_ENFORCE] = { "enforce", 7 },
    };
    if (r->has_mode)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_eq(value, names[i])) {
            r->out->mode = (enum sts_mode)i;
            r->has_mode = true;
        }
    return r->has_mode;
}

static bool on_max_age(struct reading *r, struct slice value)
{
    uint64_t age = 0;
    if (r->has_age)
        return true;
    if (value.len == 0 || value.len > 10)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return false;
        age = age * 10 + (uint64_t)(value.ptr[i] - '0');
    }
    r->out->max_age_s = age < STS_AGE_S_MAX ? (uint32_t)age : STS_AGE_S_MAX;
    r->has_age = true;
    return true;
}

static bool on_mx(struct reading *r, struct slice value)
{
    struct slice name = value;
    if (slice_eq(slice_head(name, 2), SLICE("*.")))
        name = slice_skip(name, 2);
    if (value.len > 255 || r->out->mx_count == STS_MX_MAX || !address_domain_is_valid(name))
        return false;
    char *to = r->out->mx[r->out->mx_count++];
    for (size_t i = 0; i < value.len; i++)
        to[i] =
            value.ptr[i] >= 'A' && value.ptr[i] <= 'Z' ? (char)(value.ptr[i] | 0x20) : value.ptr[i];
    to[value.len] = '\0';
    return true;
}

static const struct {
    struct slice name;
    bool (*read)(struct reading *r, struct slice value); /* false: malformed */
    const char *error;
} fields[] = {
    { { "version", 7 }, on_version, "its version is not STSv1" },
    { { "mode", 4 }, on_mode, "its mode is none of enforce, testing, none" },
    { { "max_age", 7 }, on_max_age, "its max_age is no number of seconds" },
    { { "mx", 2 }, on_mx, "an mx is no host name, or there are too many" },
};

static bool read_line(struct reading *r, struct slice line, const char **why)
{
    struct slice name = cut(&line, ':'), value = trim(line);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (!slice_eq(name, fields[i].name))
            continue;
        *why = fields[i].error;
        return fields[i].read(r, value);
    }
    return true;
}

bool sts_read_policy(struct slice text, struct sts_policy *out, const char **why)
{
    struct reading r = { .out = out };
    memset(out, 0, sizeof *out);
    while (text.len > 0)
        if (!read_line(&r, cut(&text, '\n'), why))
            return false;
    *why = "version, mode or max_age is missing";
    if (!r.has_version || !r.has_mode || !r.has_age)
        return false;
    *why = "it names no mx";
    return out->mode == STS_NONE || out->mx_count > 0;
}

/* --- hosts ----------------------------------------------------------------------------------- */

static bool fits(const char *pattern, struct slice host)
{
    if (pattern[0] != '*')
        return slice_eq_nocase(host, slice_str(pattern));
    size_t label = slice_find(host, '.');
    return label > 0 && label < host.len &&
           slice_eq_nocase(slice_skip(host, label), slice_str(pattern + 1));
}

bool sts_allows(const struct sts_policy *policy, const char *host)
{
    struct slice name = slice_str(host);
    if (name.len > 0 && name.ptr[name.len - 1] == '.')
        name = slice_head(name, name.len - 1);
    for (uint32_t i = 0; i < policy->mx_count; i++)
        if (fits(policy->mx[i], name))
            return true;
    return false;
}
