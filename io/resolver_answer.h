/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * resolver_answer - what the octets of a DNS answer mean for mail. Private to resolver.c and its
 * test; no calls to libunbound, only its result struct.
 */
#include "core/base/entropy.h"
#include "core/base/slice.h"
#include "core/relay/tlsa.h"
#include <sys/socket.h>
#include <unbound.h>

#define RESOLVER_MX_MAX      20 /* hosts of one domain that are tried, P-208 */
#define RESOLVER_ADDRESS_MAX 10 /* addresses of one host */

struct mx_target {
    uint32_t preference; /* lower first */
    uint64_t shuffle;    /* order among equals */
    char name[256];
    bool is_insecure; /* DNSSEC does not vouch for all of its addresses */
    bool lacks_tlsa;  /* its TLSA records cannot be had: nothing may be sent there (P-200) */
    struct tlsa_set tlsa;
};

enum mx_answer {
    MX_ANSWER_TARGETS, /* count may still be 0: records, but none of use (P-209: no fallback) */
    MX_ANSWER_NONE,    /* no MX record: the domain is its own host (P-209) */
    MX_ANSWER_NULL,    /* null MX, RFC 7505 (P-210) */
};

/* The targets in the order to try them, equals shuffled. */
enum mx_answer resolver_read_mx(const struct ub_result *result, struct entropy *entropy,
                                struct mx_target out[RESOLVER_MX_MAX], size_t *count);
/* An A (4 octets) or AAAA (16 octets) record's data as an address with port 0. */
bool resolver_read_address(const char *data, int len, struct sockaddr_storage *addr,
                           socklen_t *addr_len);
/* False for networks that no stranger's domain may send us to (P-213). */
bool resolver_address_is_public(const struct sockaddr *addr);
