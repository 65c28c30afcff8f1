/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 1 is one line of at most 107 octets, ended by CR LF. Everything about it is exact: single
 * spaces, addresses of the family it names, ports without leading zeros. Version 2 begins with a
 * signature of 12 octets that no other protocol has; its length is known after 16.
 *
 * Type-length-values behind the addresses are walked, so that their lengths must fit, and skipped,
 * but for the checksum: when there is one it must be right.
 *
 * To read another TLV: a case in read_tlvs.
 */
#include "core/smtp/proxy.h"
#include "core/base/must.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#define V1_MAX         107 /* octets, CR LF counted */
#define V2_FIXED       16
#define TLV_HEAD       3
#define TLV_CRC32C     0x03
#define ADDRESSES_IPV4 12
#define ADDRESSES_IPV6 36
#define ADDRESSES_UNIX 216

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* --- version 1 ------------------------------------------------------------------------------- */

/* Cuts the octets before the next space, or all; the space goes too. */
static struct slice next_word(struct slice *line)
{
    size_t len = slice_find(*line, ' ');
    struct slice word = slice_head(*line, len);
    *line = slice_skip(*line, len < line->len ? len + 1 : len);
    return word;
}

static bool read_port(struct slice word, in_port_t *out)
{
    uint32_t port = 0;
    if (word.len < 1 || word.len > 5 || (word.len > 1 && word.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(word.ptr[i] - '0');
    }
    *out = htons((uint16_t)port);
    return port <= UINT16_MAX;
}

static bool read_address(int family, struct slice word, struct slice port,
                         struct sockaddr_storage *out)
{
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    bool is_v4 = family == AF_INET;
    if (word.len == 0 || word.len >= sizeof text)
        return false;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    *out = (struct sockaddr_storage){ .ss_family = (sa_family_t)family };
    return inet_pton(family, text, is_v4 ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr) == 1 &&
           read_port(port, is_v4 ? &v4->sin_port : &v6->sin6_port);
}

static bool read_line(struct slice line, struct proxy_header *out)
{
    if (!slice_eq(next_word(&line), SLICE("PROXY")))
        return false;
    struct slice protocol = next_word(&line);
    if (slice_eq(protocol, SLICE("UNKNOWN")))
        return true; /* whatever follows is to be ignored */
    int family = slice_eq(protocol, SLICE("TCP4"))   ? AF_INET
                 : slice_eq(protocol, SLICE("TCP6")) ? AF_INET6
                                                     : AF_UNSPEC;
    struct slice source = next_word(&line), destination = next_word(&line);
    struct slice source_port = next_word(&line), destination_port = line;
    out->has_source = family != AF_UNSPEC &&
                      read_address(family, source, source_port, &out->source) &&
                      read_address(family, destination, destination_port, &out->destination);
    return out->has_source;
}

static enum proxy_result parse_v1(struct slice in, size_t *used, struct proxy_header *out)
{
    struct slice head = slice_head(in, V1_MAX);
    size_t lf = slice_find(head, '\n');
    if (memchr(head.ptr, '\0', lf)) /* inet_pton would take it for the end of an address */
        return PROXY_BAD;
    if (lf == head.len)
        return in.len < V1_MAX ? PROXY_MORE : PROXY_BAD;
    if (lf == 0 || head.ptr[lf - 1] != '\r' || !read_line(slice_head(head, lf - 1), out))
        return PROXY_BAD;
    *used = lf + 1;
    return PROXY_DONE;
}

/* --- version 2 ------------------------------------------------------------------------------- */

static uint32_t crc32c(struct slice octets)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < octets.len; i++) {
        crc ^= (unsigned char)octets.ptr[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static size_t number16(const char *p)
{
    return (size_t)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* The sum is over the whole header with its own four octets zero. */
static bool checksum_is_right(struct slice header, const char *value)
{
    char copy[PROXY_HEADER_MAX];
    uint32_t want;
    memcpy(&want, value, sizeof want);
    memcpy(copy, header.ptr, header.len);
    memset(copy + (value - header.ptr), 0, sizeof want);
    return crc32c(slice_of(copy, header.len)) == ntohl(want);
}

static bool read_tlvs(struct slice header, struct slice tlvs)
{
    while (tlvs.len > 0) {
        if (tlvs.len < TLV_HEAD)
            return false;
        size_t len = number16(tlvs.ptr + 1);
        if (tlvs.len - TLV_HEAD < len)
            return false;
        if (tlvs.ptr[0] == TLV_CRC32C &&
            (len != 4 || !checksum_is_right(header, tlvs.ptr + TLV_HEAD)))
            return false;
        tlvs = slice_skip(tlvs, TLV_HEAD + len);
    }
    return true;
}

static struct sockaddr_storage address_v4(const char *address, const char *port)
{
    struct sockaddr_storage ss = { .ss_family = AF_INET };
    memcpy(&((struct sockaddr_in *)&ss)->sin_addr, address, 4);
    memcpy(&((struct sockaddr_in *)&ss)->sin_port, port, 2);
    return ss;
}

static struct sockaddr_storage address_v6(const char *address, const char *port)
{
    struct sockaddr_storage ss = { .ss_family = AF_INET6 };
    memcpy(&((struct sockaddr_in6 *)&ss)->sin6_addr, address, 16);
    memcpy(&((struct sockaddr_in6 *)&ss)->sin6_port, port, 2);
    return ss;
}

/* Octets of addresses in a family's block; 0 for those whose block has no form of its own. */
static size_t block_size(unsigned family)
{
    static const size_t sizes[] = { 0, ADDRESSES_IPV4, ADDRESSES_IPV6, ADDRESSES_UNIX };
    return sizes[family];
}

/* body: what stands behind the fixed 16 octets. */
static bool read_proxied(struct slice header, struct slice body, struct proxy_header *out)
{
    unsigned family = (unsigned char)header.ptr[13] >> 4;
    unsigned transport = (unsigned char)header.ptr[13] & 0xf;
    if (family > 3 || transport > 2)
        return false;
    if (family == 0 || transport == 0) /* UNSPEC: the rest is to be ignored */
        return true;
    size_t size = block_size(family);
    if (body.len < size || !read_tlvs(header, slice_skip(body, size)))
        return false;
    if (family == 3 || transport != 1) /* a Unix socket, or datagrams: no client that we know */
        return true;
    const char *p = body.ptr;
    out->has_source = true;
    out->source = family == 1 ? address_v4(p, p + 8) : address_v6(p, p + 32);
    out->destination = family == 1 ? address_v4(p + 4, p + 10) : address_v6(p + 16, p + 34);
    return true;
}

static enum proxy_result parse_v2(struct slice in, size_t *used, struct proxy_header *out)
{
    if (in.len < V2_FIXED)
        return PROXY_MORE;
    unsigned version = (unsigned char)in.ptr[12] >> 4, command = (unsigned char)in.ptr[12] & 0xf;
    size_t len = V2_FIXED + number16(in.ptr + 14);
    if (version != 2 || command > 1 || len > PROXY_HEADER_MAX)
        return PROXY_BAD;
    if (in.len < len)
        return PROXY_MORE;
    struct slice header = slice_head(in, len);
    out->is_local = command == 0;
    if (!out->is_local && !read_proxied(header, slice_skip(header, V2_FIXED), out))
        return PROXY_BAD;
    *used = len;
    return PROXY_DONE;
}

/* --- which one ------------------------------------------------------------------------------- */

static bool begins_like(struct slice in, const char *with, size_t len)
{
    return memcmp(in.ptr, with, in.len < len ? in.len : len) == 0;
}

enum proxy_result proxy_parse(struct slice in, size_t *used, struct proxy_header *out)
{
    *out = (struct proxy_header){ 0 };
    if (in.len == 0)
        return PROXY_MORE;
    if (begins_like(in, signature, sizeof signature))
        return parse_v2(in, used, out);
    if (begins_like(in, "PROXY ", 6))
        return parse_v1(in, used, out);
    return PROXY_BAD;
}
