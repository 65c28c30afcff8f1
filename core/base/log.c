/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log - builds a line straight at the end of `out`, piece by piece.
 *
 * Life of a line:  log_begin -> log_str, log_num ... -> log_end.  Each piece reserves the worst
 * case of its escaping and then writes without further checks. A piece that finds no room rolls
 * the whole line back and counts it; the pieces after it then do nothing. The sink takes whole
 * lines off the front between lines, never inside one.
 *
 *   JSON:   {"time":"...","level":"info","event":"msg.accepted","msg":"7f3a","ms":41}
 *   plain:  2026-11-23T00:12:21.042Z info msg.accepted msg=7f3a ms=41
 *
 * A plain value that is empty or holds anything but printable ASCII without quote, backslash, '='
 * and blank stands in quotes. Escapes (P-121): \" \\ \n \r \t; other control characters
 * (C0, DEL, C1, the line and paragraph separators, the bidirectional overrides) as \u and four
 * digits; a byte that is no part of UTF-8 as \x and two digits, whose backslash is doubled
 * in JSON, because JSON has no such escape. A value that was cut ends in "...".
 */
#include "core/base/log.h"
#include "core/base/must.h"

#define ESCAPED_MAX 6  /* octets that one octet may become: \u001b */
#define MARGIN      32 /* octets of quotes, separators, "...", a number */

static const char *const level_names[] = { "debug", "info", "warn", "error" };
static const char hex[] = "0123456789abcdef";

void log_init(struct log *l, enum log_format format, enum log_level level, const struct now *now)
{
    *l = (struct log){ .format = format, .level = level, .now = now, .stamp_ms = -1 };
    buf_init(&l->out, LOG_OUT_MAX);
}

void log_done(struct log *l)
{
    buf_done(&l->out);
}

static void lose_line(struct log *l)
{
    l->out.len = l->line_start;
    l->line_is_lost = true;
    l->dropped++;
}

/* Room for n octets and the end of the line; NULL when the line is or becomes lost. */
static char *room(struct log *l, size_t n)
{
    must(l->line_is_open);
    if (l->line_is_lost)
        return NULL;
    char *at = n <= LOG_OUT_MAX ? buf_reserve(&l->out, (uint32_t)n + MARGIN) : NULL;
    if (!at)
        lose_line(l);
    return at;
}

static void wrote(struct log *l, const char *end)
{
    l->out.len = (uint32_t)(end - l->out.ptr);
}

static char *put(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

static char *put_cstr(char *at, const char *text)
{
    return put(at, text, strlen(text));
}

/* Octets of the well-formed UTF-8 character (RFC 3629) at the start of s and its code point; 0
 * when there is none. */
static size_t utf8_char(struct slice s, uint32_t *code)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    unsigned char first = (unsigned char)s.ptr[0];
    size_t len = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (len == 0 || len > s.len)
        return 0;
    uint32_t value = first & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)s.ptr[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | ((unsigned char)s.ptr[i] & 0x3f);
    }
    if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code = value;
    return len;
}

/* Characters that move or hide text on a terminal. */
static bool is_hidden(uint32_t code)
{
    return code < 0xa0 || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

static char *put_code(char *at, uint32_t code)
{
    at = put(at, "\\u", 2);
    for (int shift = 12; shift >= 0; shift -= 4)
        *at++ = hex[code >> shift & 15];
    return at;
}

static char *put_ascii(char *at, unsigned char c)
{
    switch (c) {
    case '"': return put(at, "\\\"", 2);
    case '\\': return put(at, "\\\\", 2);
    case '\n': return put(at, "\\n", 2);
    case '\r': return put(at, "\\r", 2);
    case '\t': return put(at, "\\t", 2);
    default: return put_code(at, c);
    }
}

static char *put_bad_byte(char *at, unsigned char c, enum log_format format)
{
    at = format == LOG_JSON ? put(at, "\\\\x", 3) : put(at, "\\x", 2);
    *at++ = hex[c >> 4];
    *at++ = hex[c & 15];
    return at;
}

/* True for octets that stand for themselves inside quotes. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* At most ESCAPED_MAX octets per octet of s: a character of n octets becomes n or 6, n >= 2. */
static char *put_escaped(char *at, struct slice s, enum log_format format)
{
    while (s.len) {
        unsigned char c = (unsigned char)s.ptr[0];
        uint32_t code = 0;
        size_t n = 1;
        if (is_plain(c))
            *at++ = (char)c;
        else if (c < 0x80)
            at = put_ascii(at, c);
        else if ((n = utf8_char(s, &code)) == 0)
            at = put_bad_byte(at, c, format), n = 1;
        else if (is_hidden(code))
            at = put_code(at, code);
        else
            at = put(at, s.ptr, n);
        s = slice_skip(s, n);
    }
    return at;
}

static bool needs_quotes(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (!is_plain(c) || c == ' ' || c == '=')
            return true;
    }
    return s.len == 0;
}

/* The first LOG_VALUE_MAX octets, less what would cut a UTF-8 character in two. */
static struct slice cut_value(struct slice value)
{
    size_t len = LOG_VALUE_MAX;
    for (size_t back = 1; back <= 3; back++) {
        unsigned char c = (unsigned char)value.ptr[len - back];
        uint32_t code;
        if ((c & 0xc0) == 0x80)
            continue;
        if (c >= 0xc0 && utf8_char(slice_skip(value, len - back), &code) > back)
            len -= back;
        break;
    }
    return slice_head(value, len);
}

static char *put_key(const struct log *l, char *at, const char *key, size_t key_len)
{
    if (l->format == LOG_PLAIN) {
        *at++ = ' ';
        at = put(at, key, key_len);
        *at++ = '=';
        return at;
    }
    at = put(at, ",\"", 2);
    at = put(at, key, key_len);
    return put(at, "\":", 2);
}

static char *put_stamp(struct log *l, char *at)
{
    if (l->stamp_ms != l->now->wall_ms) {
        (void)clock_format_rfc3339(l->now->wall_ms, l->stamp);
        l->stamp_ms = l->now->wall_ms;
    }
    return put_cstr(at, l->stamp);
}

void log_begin(struct log *l, enum log_level level, const char *event)
{
    must(!l->line_is_open);
    l->line_is_open = true;
    l->line_is_lost = level < l->level;
    l->line_start = l->out.len;
    char *at = room(l, strlen(event) + CLOCK_DATE_MAX + 2 * MARGIN);
    if (!at)
        return;
    bool json = l->format == LOG_JSON;
    at = put_cstr(at, json ? "{\"time\":\"" : "");
    at = put_stamp(l, at);
    at = put_cstr(at, json ? "\",\"level\":\"" : " ");
    at = put_cstr(at, level_names[level]);
    at = put_cstr(at, json ? "\",\"event\":\"" : " ");
    at = put_cstr(at, event);
    at = put_cstr(at, json ? "\"" : "");
    wrote(l, at);
}

void log_str(struct log *l, const char *key, struct slice value)
{
    if (l->line_is_lost)
        return;
    bool cut = value.len > LOG_VALUE_MAX;
    if (cut)
        value = cut_value(value);
    size_t key_len = strlen(key);
    char *at = room(l, key_len + value.len * ESCAPED_MAX);
    if (!at)
        return;
    bool quotes = l->format == LOG_JSON || needs_quotes(value);
    at = put_key(l, at, key, key_len);
    if (quotes)
        *at++ = '"';
    at = put_escaped(at, value, l->format);
    if (cut)
        at = put(at, "...", 3);
    if (quotes)
        *at++ = '"';
    wrote(l, at);
}

void log_cstr(struct log *l, const char *key, const char *value)
{
    log_str(l, key, slice_str(value));
}

static char *put_number(char *at, int64_t value)
{
    char digits[20];
    size_t n = 0;
    uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do {
        digits[n++] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0)
        *at++ = '-';
    while (n)
        *at++ = digits[--n];
    return at;
}

void log_num(struct log *l, const char *key, int64_t value)
{
    size_t key_len = strlen(key);
    char *at = room(l, key_len);
    if (!at)
        return;
    at = put_key(l, at, key, key_len);
    wrote(l, put_number(at, value));
}

void log_end(struct log *l)
{
    char *at = room(l, 0);
    if (at)
        wrote(l, put_cstr(at, l->format == LOG_JSON ? "}\n" : "\n"));
    l->line_is_open = false;
}
