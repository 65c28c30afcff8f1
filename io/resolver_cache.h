/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * resolver_cache - what resolver.c knows or is asking: one entry per name, as mail domain or as
 * host, found by name. Private to resolver.c.
 */
#include "core/base/list.h"
#include "io/resolver.h"
#include "io/resolver_answer.h"

/* X(name, code, enhanced, what an operator and a bounced sender read) */
#define FAILURE_TABLE(X)                                                                           \
    X(NONE, 0, "", "")                                                                             \
    X(NAME, 550, "5.1.2", "not a domain that mail can be sent to")                                 \
    X(NO_DOMAIN, 550, "5.1.2", "the domain does not exist")                                        \
    X(NO_HOST, 550, "5.1.2", "the domain has neither a mail exchanger nor an address")             \
    X(NULL_MX, 556, "5.1.10", "the domain accepts no mail (null MX)")                              \
    X(SERVERS, 451, "4.4.3", "the name servers gave no answer")                                    \
    X(BOGUS, 451, "4.4.3", "the answers of the name servers are bogus: DNSSEC denies them")        \
    X(NO_ADDRESS, 451, "4.4.4", "no mail exchanger of the domain has an address")                  \
    X(SMARTHOST, 451, "4.4.4", "the smarthost's name has no address")                              \
    X(PRIVATE, 550, "5.4.4", "every mail exchanger is in a network that is not for mail")          \
    X(TLSA, 451, "4.7.5",                                                                          \
      "the TLSA records of the mail exchangers cannot be had, so nobody can say whom to trust")

enum resolver_failure {
#define X(name, code, enhanced, text) FAILURE_##name,
    FAILURE_TABLE(X)
#undef X
};

enum resolver_entry_state { ENTRY_MX, ENTRY_ADDRESSES, ENTRY_TLSA, ENTRY_KNOWN };

/* One address of one target. */
struct resolver_found {
    uint32_t target;
    bool is_v6;
    uint64_t shuffle; /* order among equals */
    struct sockaddr_storage addr;
    socklen_t addr_len;
};

struct resolver_entry {
    struct list node; /* with KNOWN: on the cache's known list */
    struct resolver_entry *hash_next;
    struct list waiters; /* struct resolver_waiter */
    enum resolver_entry_state state;
    enum resolver_failure failure;
    bool is_mx;                /* a mail domain, not a smarthost */
    bool is_implicit;          /* it has no MX: its own addresses serve (P-209) */
    bool is_uncertain;         /* a query failed for now: a later one may say more */
    bool is_bogus;             /* ... because DNSSEC denies what was answered */
    bool saw_private;          /* an address was left out */
    bool is_secure;            /* DNSSEC vouches for its MX records, or that there are none */
    bool lacks_tlsa;           /* the TLSA records of a host cannot be had (P-200) */
    uint32_t open;             /* queries under way */
    struct mx_target *targets; /* owned; until conclude */
    size_t target_count;
    struct resolver_found *found; /* owned; until conclude */
    size_t found_count;
    struct relay_host *hosts; /* owned; with KNOWN; port 0; those that lack TLSA records too */
    size_t host_count;
    uint32_t ttl_ms;    /* the least of what was seen */
    int64_t expires_ms; /* monotonic; with KNOWN */
    char name[];        /* lower case */
};

/* Somebody who wants an entry's answer. */
struct resolver_waiter {
    struct list node;
    resolver_fn *fn;
    void *ctx;
    uint16_t port;
    bool waives_dane; /* it gets hosts without TLSA records, and those that lack them too */
};

struct resolver_cache {
    struct resolver_entry **buckets; /* owned */
    uint64_t seed;                   /* of the hash: strangers choose the names */
    struct list known;               /* entries, oldest first */
    size_t count, octets;            /* of those */
};

void resolver_cache_init(struct resolver_cache *c, uint64_t seed);
void resolver_cache_done(struct resolver_cache *c); /* frees every entry, asking ones too */
/* NULL: not there. The name in lower case. */
struct resolver_entry *resolver_cache_find(struct resolver_cache *c, bool is_mx, struct slice name);
/* A new entry that is asking; there must be none of that name. */
struct resolver_entry *resolver_cache_add(struct resolver_cache *c, bool is_mx, struct slice name);
/* The entry is KNOWN and nobody looks at it any more: it may be evicted from now on. */
void resolver_cache_keep(struct resolver_cache *c, struct resolver_entry *e);
static inline bool resolver_cache_keeps(const struct resolver_entry *e)
{
    return !list_is_empty(&e->node);
}
void resolver_cache_drop(struct resolver_cache *c,
                         struct resolver_entry *e); /* a kept one; frees it */
