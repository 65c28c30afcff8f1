/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base64 (RFC 4648 4), strict in the way that AUTH needs it (P-142): the alphabet and nothing else,
 * padding where it belongs, and no bits set that stand for nothing, so that each octet string has
 * exactly one text.
 */
#include "core/smtp/sasl.h"

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters into one to three octets; 0: they are not base64. */
static size_t decode_group(const char *in, bool is_last, char out[3])
{
    size_t pad = in[3] != '=' ? 0 : in[2] != '=' ? 1 : 2;
    uint32_t bits = 0;
    if (pad && !is_last)
        return 0;
    for (size_t i = 0; i < 4; i++) {
        int value = i < 4 - pad ? value_of(in[i]) : 0;
        if (value < 0)
            return 0;
        bits = bits << 6 | (uint32_t)value;
    }
    if (bits & ((1u << 8 * pad) - 1)) /* stray bits behind the last octet */
        return 0;
    out[0] = (char)(bits >> 16);
    out[1] = (char)(bits >> 8);
    out[2] = (char)bits;
    return 3 - pad;
}

enum status base64_decode(struct slice text, struct buf *out)
{
    if (text.len % 4 != 0)
        return STATUS_BAD;
    if (text.len == 0)
        return STATUS_OK;
    size_t pad = (text.ptr[text.len - 1] == '=') + (text.ptr[text.len - 2] == '=');
    char *to = buf_reserve(out, (uint32_t)(text.len / 4 * 3 - pad));
    if (!to)
        return STATUS_FULL;
    size_t len = 0;
    for (size_t at = 0; at < text.len; at += 4) {
        char group[3];
        size_t n = decode_group(text.ptr + at, at + 4 == text.len, group);
        if (n == 0)
            return STATUS_BAD;
        memcpy(to + len, group, n);
        len += n;
    }
    out->len += (uint32_t)len;
    return STATUS_OK;
}

enum status base64_encode(struct slice octets, struct buf *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t size = (uint32_t)((octets.len + 2) / 3 * 4);
    if (size == 0)
        return STATUS_OK;
    char *to = buf_reserve(out, size);
    if (!to)
        return STATUS_FULL;
    for (size_t at = 0; at < octets.len; at += 3) {
        size_t left = octets.len - at;
        uint32_t bits = (uint32_t)(unsigned char)octets.ptr[at] << 16;
        if (left > 1)
            bits |= (uint32_t)(unsigned char)octets.ptr[at + 1] << 8;
        if (left > 2)
            bits |= (uint32_t)(unsigned char)octets.ptr[at + 2];
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        *to++ = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? alphabet[bits & 63] : '=';
    }
    out->len += size;
    return STATUS_OK;
}
