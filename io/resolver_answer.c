/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolver_answer - MX and address records, and which addresses are for mail.
 *
 * Names in answers are chosen by strangers: one that is not a plain host name is left out, and
 * every address passes the table below before anybody connects to it (P-213: a domain whose MX is
 * 127.0.0.1 would otherwise let its owner talk to our own Redis).
 *
 * To refuse another network: a row in private_networks[].
 */
#include "io/resolver_answer.h"
#include "core/base/config.h"
#include "core/base/must.h"
#include "core/smtp/address.h"

#include <stdio.h>
#include <stdlib.h>

#define RECORDS_MAX 128 /* of one MX answer that are looked at */

#define V4(a, b, c, d, bits)                                                                       \
    {                                                                                              \
        { { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, (a), (b), (c), (d) } } }, 96 + (bits)      \
    }
#define V6(a, b, bits)                                                                             \
    {                                                                                              \
        { { { (a), (b) } } }, (bits)                                                               \
    }

/* RFC 6890 and the IANA special-purpose registries, as far as they are never a public host. */
static const struct config_network private_networks[] = {
    V4(0, 0, 0, 0, 8),      /* this network */
    V4(10, 0, 0, 0, 8),     /* private */
    V4(100, 64, 0, 0, 10),  /* carrier-grade NAT */
    V4(127, 0, 0, 0, 8),    /* loopback */
    V4(169, 254, 0, 0, 16), /* link-local; clouds' metadata */
    V4(172, 16, 0, 0, 12),  /* private */
    V4(192, 0, 0, 0, 24),   /* protocol assignments */
    V4(192, 168, 0, 0, 16), /* private */
    V4(198, 18, 0, 0, 15),  /* benchmarking */
    V4(224, 0, 0, 0, 4),    /* multicast */
    V4(240, 0, 0, 0, 4),    /* reserved, broadcast */
    V6(0xfc, 0x00, 7),      /* unique local */
    V6(0xfe, 0x80, 10),     /* link-local */
    V6(0xfe, 0xc0, 10),     /* site-local, once */
    V6(0xff, 0x00, 8),      /* multicast */
    V6(0x20, 0x02, 16),     /* 6to4: holds any IPv4 address; nobody's mail host any more */
};

/* NAT64 (RFC 6052): the last four octets are an IPv4 address that decides. */
static const unsigned char nat64_prefix[12] = { 0x00, 0x64, 0xff, 0x9b };
static const unsigned char zeros[12];

static bool is_listed(const struct sockaddr *addr)
{
    return config_networks_contain(private_networks, ARRAY_LEN(private_networks), addr);
}

bool resolver_address_is_public(const struct sockaddr *addr)
{
    if (is_listed(addr))
        return false;
    if (addr->sa_family != AF_INET6)
        return addr->sa_family == AF_INET;
    const unsigned char *ip = ((const struct sockaddr_in6 *)addr)->sin6_addr.s6_addr;
    if (memcmp(ip, zeros, 12) == 0) /* unspecified, loopback, IPv4-compatible */
        return false;
    if (memcmp(ip, nat64_prefix, 12) != 0)
        return true;
    struct sockaddr_in inner = { .sin_family = AF_INET };
    memcpy(&inner.sin_addr, ip + 12, 4);
    return !is_listed((const struct sockaddr *)&inner);
}

bool resolver_read_address(const char *data, int len, struct sockaddr_storage *addr,
                           socklen_t *addr_len)
{
    memset(addr, 0, sizeof *addr);
    if (len == 4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)addr;
        v4->sin_family = AF_INET;
        memcpy(&v4->sin_addr, data, 4);
        *addr_len = sizeof *v4;
    } else if (len == 16) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)addr;
        v6->sin6_family = AF_INET6;
        memcpy(&v6->sin6_addr, data, 16);
        *addr_len = sizeof *v6;
    }
    return len == 4 || len == 16;
}

/* A name in wire form that fills `in` exactly, as text without the final dot; "" is the root.
 * False: malformed, or a name that no host has (a dot or control inside a label, P-215). */
static bool read_name(struct slice in, char out[256])
{
    size_t len = 0, at = 0;
    while (at < in.len && in.ptr[at] != 0) {
        size_t label = (unsigned char)in.ptr[at++];
        if (label > 63 || at + label > in.len || len + label + 1 > 255)
            return false;
        if (memchr(in.ptr + at, '.', label) || memchr(in.ptr + at, '\0', label))
            return false;
        if (len > 0)
            out[len++] = '.';
        memcpy(out + len, in.ptr + at, label);
        len += label;
        at += label;
    }
    out[len] = '\0';
    return at + 1 == in.len && (len == 0 || address_domain_is_valid(slice_of(out, len)));
}

/* One record's data: preference and name. */
static bool read_record(const char *data, int len, struct mx_target *out)
{
    if (len < 3)
        return false;
    const unsigned char *p = (const unsigned char *)data;
    out->preference = (uint32_t)p[0] << 8 | p[1];
    return read_name(slice_of(data + 2, (size_t)len - 2), out->name);
}

static int compare_targets(const void *left, const void *right)
{
    const struct mx_target *a = left, *b = right;
    if (a->preference != b->preference)
        return a->preference < b->preference ? -1 : 1;
    return (a->shuffle > b->shuffle) - (a->shuffle < b->shuffle);
}

enum mx_answer resolver_read_mx(const struct ub_result *result, struct entropy *entropy,
                                struct mx_target out[RESOLVER_MX_MAX], size_t *count)
{
    *count = 0;
    if (!result->havedata)
        return MX_ANSWER_NONE;
    struct mx_target *all = mem_zalloc(RECORDS_MAX * sizeof *all);
    size_t records = 0, good = 0;
    bool has_root = false;
    for (; result->data[records] && records < RECORDS_MAX; records++) {
        if (!read_record(result->data[records], result->len[records], &all[good]))
            continue;
        if (all[good].name[0] == '\0') {
            has_root = true; /* amid others it is ignored, P-210 */
            continue;
        }
        all[good++].shuffle = entropy_u64(entropy);
    }
    qsort(all, good, sizeof *all, compare_targets);
    *count = good < RESOLVER_MX_MAX ? good : RESOLVER_MX_MAX;
    memcpy(out, all, *count * sizeof *all);
    free(all);
    return records == 1 && has_root ? MX_ANSWER_NULL : MX_ANSWER_TARGETS;
}
