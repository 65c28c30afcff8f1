/* SPDX-License-Identifier: Apache-2.0 */
/*
 * params - one reader per parameter, in two tables. A reader that says no makes it a 501; one that
 * is not in the table, or not offered, a 555.
 *
 * xtext is checked and kept as it was given: what goes on to the next hop, or into a report, is
 * what the client wrote, and its decoded form never held a control (P-61, P-62).
 *
 * To add a parameter: a row in SMTP_PARAM_TABLE, a reader, a row here.
 */
#include "core/smtp/params.h"
#include "core/base/must.h"

#define ENVID_MAX 100 /* octets of xtext, RFC 3461 4.4 */
#define ORCPT_MAX 500
#define BY_MAX    999999999 /* RFC 2852 4 */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* 1 to `most` digits that fit in max. */
static bool read_number(struct slice text, size_t most, uint32_t max, uint32_t *out)
{
    uint64_t n = 0;
    if (text.len < 1 || text.len > most)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
        n = n * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *out = (uint32_t)n;
    return n <= max;
}

static bool is_xtext(struct slice text, size_t max)
{
    char decoded[ORCPT_MAX];
    size_t len;
    return text.len <= max && smtp_xtext_decode(text, decoded, &len);
}

/* --- dates ----------------------------------------------------------------------------------- */

static bool read_fixed(struct slice *text, size_t digits, char end, uint32_t *out)
{
    if (!read_number(slice_head(*text, digits), digits, UINT32_MAX, out) || text->len < digits)
        return false;
    *text = slice_skip(*text, digits);
    if (end && (text->len == 0 || text->ptr[0] != end))
        return false;
    if (end)
        *text = slice_skip(*text, 1);
    return true;
}

/* Days since 1970-01-01 of a date in the Gregorian calendar. */
static int64_t days_of(uint32_t year, uint32_t month, uint32_t day)
{
    int64_t y = (int64_t)year - (month <= 2), era = y / 400;
    int64_t in_era = y - era * 400;
    int64_t in_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

static uint32_t days_in(uint32_t year, uint32_t month)
{
    static const uint32_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && is_leap);
}

/* "Z", "+07:00"; minutes east of UTC. */
static bool read_offset(struct slice text, int64_t *minutes)
{
    uint32_t hours, rest;
    *minutes = 0;
    if (slice_eq_nocase(text, SLICE("Z")))
        return true;
    if (text.len != 6 || (text.ptr[0] != '+' && text.ptr[0] != '-'))
        return false;
    int sign = text.ptr[0] == '-' ? -1 : 1;
    text = slice_skip(text, 1);
    if (!read_fixed(&text, 2, ':', &hours) || !read_fixed(&text, 2, '\0', &rest) || hours > 23 ||
        rest > 59)
        return false;
    *minutes = sign * (int64_t)(hours * 60 + rest);
    return true;
}

bool rfc3339_parse(struct slice text, int64_t *wall_ms)
{
    uint32_t year, month, day, hour, minute, second;
    int64_t east;
    if (!read_fixed(&text, 4, '-', &year) || !read_fixed(&text, 2, '-', &month) ||
        !read_fixed(&text, 2, '\0', &day) || text.len == 0 || (text.ptr[0] | 0x20) != 't')
        return false;
    text = slice_skip(text, 1);
    if (!read_fixed(&text, 2, ':', &hour) || !read_fixed(&text, 2, ':', &minute) ||
        !read_fixed(&text, 2, '\0', &second))
        return false;
    if (text.len > 0 && text.ptr[0] == '.') {
        text = slice_skip(text, 1);
        if (text.len == 0 || !is_digit(text.ptr[0]))
            return false;
        while (text.len > 0 && is_digit(text.ptr[0]))
            text = slice_skip(text, 1);
    }
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > days_in(year, month) ||
        hour > 23 || minute > 59 || second > 60 || !read_offset(text, &east))
        return false;
    int64_t minutes = (days_of(year, month, day) * 24 + hour) * 60 + minute - east;
    *wall_ms = (minutes * 60 + second) * 1000;
    return true;
}

/* --- MAIL ------------------------------------------------------------------------------------ */

typedef bool mail_reader(struct slice value, struct mail_params *out);

static bool read_size(struct slice value, struct mail_params *out)
{
    return smtp_size_parse(value, &out->size);
}

static bool read_body(struct slice value, struct mail_params *out)
{
    static const struct slice words[] = { { "7BIT", 4 }, { "8BITMIME", 8 }, { "BINARYMIME", 10 } };
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (slice_eq_nocase(value, words[i])) {
            out->body = (enum smtp_body)i;
            return true;
        }
    return false;
}

/* Checked, and believed of nobody: as if it were AUTH=<> (P-61). */
static bool read_auth(struct slice value, struct mail_params *out)
{
    return slice_eq(value, SLICE("<>")) || is_xtext(value, ORCPT_MAX);
}

static bool read_ret(struct slice value, struct mail_params *out)
{
    out->ret = slice_eq_nocase(value, SLICE("FULL"))   ? DSN_RET_FULL
               : slice_eq_nocase(value, SLICE("HDRS")) ? DSN_RET_HDRS
                                                       : DSN_RET_NONE;
    return out->ret != DSN_RET_NONE;
}

static bool read_envid(struct slice value, struct mail_params *out)
{
    out->envid = value;
    return is_xtext(value, ENVID_MAX);
}

static bool read_utf8(struct slice value, struct mail_params *out)
{
    return out->is_utf8 = true;
}

static bool read_require_tls(struct slice value, struct mail_params *out)
{
    return out->requires_tls = true;
}

/* by-time ";" by-mode [by-trace] (P-68). With R the time must be ahead. */
static bool read_by(struct slice value, struct mail_params *out)
{
    size_t semicolon = slice_find(value, ';');
    struct slice time = slice_head(value, semicolon), mode = slice_skip(value, semicolon + 1);
    bool is_negative = time.len > 0 && time.ptr[0] == '-';
    uint32_t seconds;
    if (!read_number(slice_skip(time, is_negative), 9, BY_MAX, &seconds))
        return false;
    if (mode.len < 1 || mode.len > 2 || (mode.len == 2 && (mode.ptr[1] | 0x20) != 't'))
        return false;
    char letter = (char)(mode.ptr[0] | 0x20);
    out->has_by = true;
    out->by_s = is_negative ? -(int32_t)seconds : (int32_t)seconds;
    out->by_return = letter == 'r';
    out->by_trace = mode.len == 2;
    return letter == 'n' || (letter == 'r' && out->by_s > 0);
}

static bool read_hold_for(struct slice value, struct mail_params *out)
{
    out->has_hold_for = true;
    return read_number(value, 9, 999999999, &out->hold_for_s);
}

static bool read_hold_until(struct slice value, struct mail_params *out)
{
    out->has_hold_until = true;
    return rfc3339_parse(value, &out->hold_until_ms);
}

static bool read_priority(struct slice value, struct mail_params *out)
{
    bool is_negative = value.len > 0 && value.ptr[0] == '-';
    uint32_t n;
    if (!read_number(slice_skip(value, is_negative), 1, 9, &n))
        return false;
    out->has_priority = true;
    out->priority = (int8_t)(is_negative ? -(int)n : (int)n);
    return true;
}

static const struct {
    mail_reader *read;
    bool has_value;
} mail_readers[] = {
    [SMTP_PARAM_SIZE] = { read_size, true },
    [SMTP_PARAM_BODY] = { read_body, true },
    [SMTP_PARAM_AUTH] = { read_auth, true },
    [SMTP_PARAM_RET] = { read_ret, true },
    [SMTP_PARAM_ENVID] = { read_envid, true },
    [SMTP_PARAM_SMTPUTF8] = { read_utf8, false },
    [SMTP_PARAM_REQUIRETLS] = { read_require_tls, false },
    [SMTP_PARAM_BY] = { read_by, true },
    [SMTP_PARAM_HOLDFOR] = { read_hold_for, true },
    [SMTP_PARAM_HOLDUNTIL] = { read_hold_until, true },
    [SMTP_PARAM_MT_PRIORITY] = { read_priority, true },
};

enum params_result mail_params_read(struct slice params, uint32_t offered, struct mail_params *out)
{
    struct smtp_param p;
    *out = (struct mail_params){ 0 };
    while (smtp_param_next(&params, &p)) {
        if (!(offered >> p.id & 1) || p.id >= ARRAY_LEN(mail_readers) || !mail_readers[p.id].read)
            return PARAMS_UNKNOWN;
        if (p.has_value != mail_readers[p.id].has_value || !mail_readers[p.id].read(p.value, out))
            return PARAMS_BAD_VALUE;
    }
    return out->has_hold_for && out->has_hold_until ? PARAMS_BAD_VALUE : PARAMS_OK;
}

/* --- RCPT ------------------------------------------------------------------------------------ */

/* NEVER alone, or any of the others, each once (P-63). */
static bool read_notify(struct slice value, struct rcpt_params *out)
{
    static const struct {
        struct slice word;
        uint32_t bit;
    } words[] = {
        { { "NEVER", 5 }, DSN_NOTIFY_NEVER },
        { { "SUCCESS", 7 }, DSN_NOTIFY_SUCCESS },
        { { "FAILURE", 7 }, DSN_NOTIFY_FAILURE },
        { { "DELAY", 5 }, DSN_NOTIFY_DELAY },
    };
    for (;;) {
        size_t comma = slice_find(value, ',');
        struct slice word = slice_head(value, comma);
        uint32_t bit = 0;
        for (size_t i = 0; i < ARRAY_LEN(words); i++)
            if (slice_eq_nocase(word, words[i].word))
                bit = words[i].bit;
        if (!bit || (out->notify & bit))
            return false;
        out->notify |= bit;
        if (comma >= value.len)
            break;
        value = slice_skip(value, comma + 1);
    }
    return !(out->notify & DSN_NOTIFY_NEVER) || out->notify == DSN_NOTIFY_NEVER;
}

/* addr-type ";" xtext (P-64). */
static bool read_orcpt(struct slice value, struct rcpt_params *out)
{
    size_t semicolon = slice_find(value, ';');
    if (semicolon == 0 || semicolon >= value.len || value.len > ORCPT_MAX)
        return false;
    for (size_t i = 0; i < semicolon; i++) {
        char c = value.ptr[i];
        if (!is_digit(c) && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && c != '-')
            return false;
    }
    struct slice address = slice_skip(value, semicolon + 1);
    out->orcpt = value;
    return address.len > 0 && is_xtext(address, ORCPT_MAX);
}

enum params_result rcpt_params_read(struct slice params, uint32_t offered, struct rcpt_params *out)
{
    struct smtp_param p;
    *out = (struct rcpt_params){ 0 };
    while (smtp_param_next(&params, &p)) {
        if (!(offered >> p.id & 1) || (p.id != SMTP_PARAM_NOTIFY && p.id != SMTP_PARAM_ORCPT))
            return PARAMS_UNKNOWN;
        if (!p.has_value ||
            !(p.id == SMTP_PARAM_NOTIFY ? read_notify(p.value, out) : read_orcpt(p.value, out)))
            return PARAMS_BAD_VALUE;
    }
    return PARAMS_OK;
}
