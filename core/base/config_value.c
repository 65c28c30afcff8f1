/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_value - numbers with units, addresses and names. Pure: nothing is looked up, no zone or
 * interface is asked for, so the same text means the same on every machine.
 */
#include "core/base/config_value.h"
#include "core/base/must.h"
#include <arpa/inet.h>
#include <stdlib.h>

#define ADDRESS_TEXT_MAX 64
#define DOMAIN_MAX       253 /* RFC 1035 2.3.4: 255 octets on the wire */
#define LABEL_MAX        63

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 }, { "k", 1ull << 10 }, { "m", 1ull << 20 }, { "g", 1ull << 30 }, { NULL, 0 },
};

static const struct unit duration_units[] = {
    { "ms", 1 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { NULL, 0 },
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The digits at the start of *text, which then begins behind them. */
static bool cut_number(struct slice *text, uint64_t *out)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < text->len && is_digit(text->ptr[n]); n++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text->ptr[n] - '0'), &value))
            return false;
    *text = slice_skip(*text, n);
    *out = value;
    return n > 0;
}

bool config_value_number(struct slice text, uint64_t *out)
{
    uint64_t value;
    if (!cut_number(&text, &value) || text.len)
        return false;
    *out = value;
    return true;
}

static bool number_with_unit(struct slice text, const struct unit *units, uint64_t *out)
{
    uint64_t value;
    if (!cut_number(&text, &value))
        return false;
    if (value == 0 && text.len == 0) { /* nothing is nothing in every unit */
        *out = 0;
        return true;
    }
    for (const struct unit *u = units; u->name; u++)
        if (slice_eq_nocase(text, slice_str(u->name)))
            return !__builtin_mul_overflow(value, u->factor, out);
    return false;
}

bool config_value_size(struct slice text, uint64_t *out)
{
    return number_with_unit(text, size_units, out);
}

bool config_value_duration(struct slice text, uint64_t *out)
{
    return number_with_unit(text, duration_units, out);
}

#define RATE_PER_MIN_MS 1000
#define RATE_PER_MAX_MS (24 * 3600 * 1000)

bool config_value_rate(struct slice text, struct config_rate *out)
{
    uint64_t messages, per_ms;
    size_t slash = slice_find(text, '/');
    if (slash == text.len || !config_value_number(slice_head(text, slash), &messages) ||
        !config_value_duration(slice_skip(text, slash + 1), &per_ms))
        return false;
    if (messages < 1 || messages > UINT32_MAX / 2 || per_ms < RATE_PER_MIN_MS ||
        per_ms > RATE_PER_MAX_MS)
        return false;
    *out = (struct config_rate){ (uint32_t)messages, (uint32_t)per_ms };
    return true;
}

bool config_value_bool(struct slice text, bool *out)
{
    static const char *const words[] = { "no", "yes", "off", "on", "false", "true" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!slice_eq_nocase(text, slice_str(words[i])))
            continue;
        *out = i % 2;
        return true;
    }
    return false;
}

/* inet_pton wants a NUL. */
static bool read_address(int family, struct slice text, void *out)
{
    char copy[ADDRESS_TEXT_MAX];
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(family, copy, out) == 1;
}

static bool is_address(struct slice text)
{
    struct in6_addr ignored;
    return read_address(AF_INET, text, &ignored) || read_address(AF_INET6, text, &ignored);
}

static bool read_port(struct slice text, uint64_t least, uint16_t *out)
{
    uint64_t port;
    if (!config_value_number(text, &port) || port < least || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static bool set_bind_address(struct slice host, bool is_v6, struct config_bind *bind)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&bind->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&bind->addr;
    bind->addr.ss_family = is_v6 ? AF_INET6 : AF_INET;
    if (is_v6) {
        v6->sin6_port = htons(bind->port);
        bind->addr_len = sizeof *v6;
        return read_address(AF_INET6, host, &v6->sin6_addr);
    }
    v4->sin_port = htons(bind->port);
    bind->addr_len = sizeof *v4;
    return read_address(AF_INET, host, &v4->sin_addr);
}

bool config_value_bind(struct slice text, struct config_bind *out)
{
    struct config_bind bind = { 0 };
    bool is_v6 = text.len && *text.ptr == '[';
    if (is_v6)
        text = slice_skip(text, 1);
    struct slice host = slice_head(text, slice_find(text, is_v6 ? ']' : ':'));
    struct slice rest = slice_skip(text, host.len + is_v6);
    if (rest.len == 0 || *rest.ptr != ':' || !read_port(slice_skip(rest, 1), 0, &bind.port) ||
        !set_bind_address(host, is_v6, &bind))
        return false;
    bind.host = mem_alloc(host.len + 1);
    memcpy(bind.host, host.ptr, host.len);
    bind.host[host.len] = '\0';
    *out = bind;
    return true;
}

static void map_v4(const struct in_addr *v4, struct in6_addr *out)
{
    *out = (struct in6_addr){ 0 };
    memset(&out->s6_addr[10], 0xff, 2);
    memcpy(&out->s6_addr[12], v4, sizeof *v4);
}

static bool has_bits_behind(const struct in6_addr *addr, unsigned prefix)
{
    for (unsigned bit = prefix; bit < 128; bit++)
        if (addr->s6_addr[bit / 8] & (0x80 >> bit % 8))
            return true;
    return false;
}

bool config_value_network(struct slice text, struct config_network *out)
{
    size_t slash = slice_find(text, '/');
    struct slice host = slice_head(text, slash);
    struct in6_addr base;
    struct in_addr v4;
    uint64_t bits = 128, prefix;
    if (read_address(AF_INET, host, &v4)) {
        map_v4(&v4, &base);
        bits = 32;
    } else if (!read_address(AF_INET6, host, &base)) {
        return false;
    }
    prefix = bits;
    if (slash < text.len && !config_value_number(slice_skip(text, slash + 1), &prefix))
        return false;
    if (prefix > bits || has_bits_behind(&base, (unsigned)(128 - bits + prefix)))
        return false;
    *out = (struct config_network){ base, (uint8_t)(128 - bits + prefix) };
    return true;
}

static bool is_label(struct slice label)
{
    if (label.len == 0 || label.len > LABEL_MAX || label.ptr[0] == '-' ||
        label.ptr[label.len - 1] == '-')
        return false;
    for (size_t i = 0; i < label.len; i++) {
        char c = label.ptr[i], lower = (char)(c | 0x20);
        if (!is_digit(c) && c != '-' && (lower < 'a' || lower > 'z'))
            return false;
    }
    return true;
}

bool config_value_is_domain(struct slice text)
{
    uint64_t number;
    struct slice label;
    if (text.len > DOMAIN_MAX)
        return false;
    for (;;) {
        size_t dot = slice_find(text, '.');
        label = slice_head(text, dot);
        if (!is_label(label))
            return false;
        if (dot == text.len)
            break;
        text = slice_skip(text, dot + 1);
    }
    /* A last label of digits is an address that went wrong (RFC 1123 2.1). */
    return !config_value_number(label, &number);
}

bool config_value_is_host(struct slice text)
{
    return is_address(text) || config_value_is_domain(text);
}

bool config_value_is_server(struct slice text)
{
    uint16_t port;
    size_t at = slice_find(text, '@');
    return is_address(slice_head(text, at)) &&
           (at == text.len || read_port(slice_skip(text, at + 1), 1, &port));
}

static bool has_prefix(const struct in6_addr *addr, const struct config_network *network)
{
    unsigned bytes = network->prefix / 8, bits = network->prefix % 8;
    if (memcmp(addr, &network->base, bytes) != 0)
        return false;
    unsigned mask = 0xff00u >> bits & 0xff;
    return bits == 0 || ((addr->s6_addr[bytes] ^ network->base.s6_addr[bytes]) & mask) == 0;
}

bool config_networks_contain(const struct config_network *networks, size_t count,
                             const struct sockaddr *addr)
{
    struct in6_addr key;
    if (addr->sa_family == AF_INET)
        map_v4(&((const struct sockaddr_in *)(const void *)addr)->sin_addr, &key);
    else if (addr->sa_family == AF_INET6)
        key = ((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;
    else
        return false;
    /* A short IPv6 prefix such as ::/8 covers the mapped addresses by accident only. */
    unsigned least = IN6_IS_ADDR_V4MAPPED(&key) ? 96 : 0;
    for (size_t i = 0; i < count; i++)
        if (networks[i].prefix >= least && has_prefix(&key, &networks[i]))
            return true;
    return false;
}

/* --- days ------------------------------------------------------------------------------------ */

/* Two digits, or more, without sign; -1: no. */
static int number_of(struct slice digits)
{
    int n = 0;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.ptr[i] < '0' || digits.ptr[i] > '9')
            return -1;
        n = n * 10 + (digits.ptr[i] - '0');
    }
    return n;
}

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* "2026-11-23" as days since 1970; false: there is no such day. */
bool config_value_day(struct slice text, int32_t *out)
{
    static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    if (text.len != 10 || text.ptr[4] != '-' || text.ptr[7] != '-')
        return false;
    int year = number_of(slice_head(text, 4)),
        month = number_of(slice_head(slice_skip(text, 5), 2));
    int day = number_of(slice_skip(text, 8));
    if (year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > lengths[month - 1] + (month == 2 && is_leap(year)))
        return false;
    int32_t days = day - 1;
    for (int y = 1970; y < year; y++)
        days += 365 + is_leap(y);
    for (int m = 1; m < month; m++)
        days += lengths[m - 1] + (m == 2 && is_leap(year));
    *out = days;
    return true;
}
