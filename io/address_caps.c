/* SPDX-License-Identifier: Apache-2.0 */
/*
 * address_caps - a table of rows; the keyed digest of an address chooses the row, and a row has a
 * few places.
 *
 * A place belongs to an address while it has sessions, and until the second in which it last began
 * one is over. Then anybody may have it; nothing is swept. The digest has a key of this process, so
 * nobody can choose addresses that fill one row. Seconds are whole ones of the monotonic clock: an
 * address may begin twice its number around the turn of one.
 *
 * One mutex: a session takes it twice in its life, for one row each time.
 *
 * To count something else of an address: a field of struct place, a limit, a verdict.
 */
#include "io/address_caps.h"
#include "core/base/must.h"

#include <netinet/in.h>
#include <openssl/rand.h>
#include <openssl/siphash.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CAPS_WAYS         8
#define ROOM_FOR_EACH     4 /* places for each session of limits.sessions_max */
#define PREFIX_OCTETS     8 /* of an IPv6 address */
#define ADDRESS_OCTETS    16
#define MS_OF_A_SECOND    1000
#define IPV4_MAPPED_FRONT 12

struct place {
    uint8_t key[ADDRESS_OCTETS]; /* IPv4 as ::ffff:a.b.c.d */
    uint32_t sessions;
    uint32_t begun; /* in `second` */
    int64_t second; /* 1 more than that of the clock; 0: never used */
};

struct address_caps {
    struct address_limits limits;
    uint64_t secret[2];
    uint32_t row_count; /* a power of two */
    pthread_mutex_t lock;
    struct place *places; /* owned; CAPS_WAYS for each row */
};

/* --- life ------------------------------------------------------------------------------------ */

struct address_caps *address_caps_new(const struct address_limits *limits, uint32_t sessions_max)
{
    if (limits->sessions == 0 && limits->per_second == 0)
        return NULL;
    struct address_caps *caps = mem_zalloc(sizeof *caps);
    caps->limits = *limits;
    caps->row_count = 1;
    while ((uint64_t)caps->row_count * CAPS_WAYS < (uint64_t)sessions_max * ROOM_FOR_EACH)
        caps->row_count *= 2;
    caps->places = mem_zalloc((size_t)caps->row_count * CAPS_WAYS * sizeof *caps->places);
    must(RAND_bytes((uint8_t *)caps->secret, sizeof caps->secret) == 1);
    must(pthread_mutex_init(&caps->lock, NULL) == 0);
    return caps;
}

void address_caps_free(struct address_caps *caps)
{
    if (!caps)
        return;
    pthread_mutex_destroy(&caps->lock);
    free(caps->places);
    free(caps);
}

/* --- places ---------------------------------------------------------------------------------- */

static bool read_key(const struct sockaddr *addr, uint8_t key[ADDRESS_OCTETS])
{
    memset(key, 0, ADDRESS_OCTETS);
    if (addr->sa_family == AF_INET) {
        memset(key + IPV4_MAPPED_FRONT - 2, 0xff, 2);
        memcpy(key + IPV4_MAPPED_FRONT, &((const struct sockaddr_in *)addr)->sin_addr, 4);
        return true;
    }
    if (addr->sa_family != AF_INET6)
        return false;
    const struct in6_addr *a = &((const struct sockaddr_in6 *)addr)->sin6_addr;
    memcpy(key, a, IN6_IS_ADDR_V4MAPPED(a) ? ADDRESS_OCTETS : PREFIX_OCTETS);
    return true;
}

static bool is_free(const struct place *p, int64_t second)
{
    return p->sessions == 0 && p->second != second;
}

/* The address's own place, or one that it may have; NULL: its row is full. */
static struct place *find_place(struct address_caps *caps, const uint8_t key[ADDRESS_OCTETS],
                                int64_t second)
{
    uint64_t digest = SIPHASH_24(caps->secret, key, ADDRESS_OCTETS);
    struct place *row = caps->places + (digest & (caps->row_count - 1)) * CAPS_WAYS;
    struct place *spare = NULL;
    for (size_t i = 0; i < CAPS_WAYS; i++) {
        if (row[i].second && memcmp(row[i].key, key, ADDRESS_OCTETS) == 0)
            return &row[i];
        if (!spare && is_free(&row[i], second))
            spare = &row[i];
    }
    if (spare) {
        *spare = (struct place){ .second = second };
        memcpy(spare->key, key, ADDRESS_OCTETS);
    }
    return spare;
}

/* --- sessions -------------------------------------------------------------------------------- */

static enum address_verdict judge(const struct address_limits *limits, const struct place *p,
                                  bool costs_handshake)
{
    if (limits->sessions && p->sessions >= limits->sessions)
        return ADDRESS_TOO_MANY;
    if (limits->per_second && costs_handshake && p->begun >= limits->per_second)
        return ADDRESS_TOO_FAST;
    return ADDRESS_WELCOME;
}

static enum address_verdict enter(struct address_caps *caps, struct place *p, bool costs_handshake,
                                  int64_t second)
{
    if (p->second != second)
        p->begun = 0;
    p->second = second;
    enum address_verdict verdict = judge(&caps->limits, p, costs_handshake);
    if (verdict == ADDRESS_WELCOME) {
        p->sessions++;
        p->begun += costs_handshake;
    }
    return verdict;
}

enum address_verdict address_caps_enter(struct address_caps *caps, const struct sockaddr *addr,
                                        bool costs_handshake, int64_t mono_ms, uint32_t *ticket)
{
    uint8_t key[ADDRESS_OCTETS];
    int64_t second = mono_ms / MS_OF_A_SECOND + 1;
    enum address_verdict verdict = ADDRESS_WELCOME;
    *ticket = 0;
    if (!caps || !read_key(addr, key))
        return verdict;
    pthread_mutex_lock(&caps->lock);
    struct place *p = find_place(caps, key, second);
    if (p)
        verdict = enter(caps, p, costs_handshake, second);
    if (p && verdict == ADDRESS_WELCOME)
        *ticket = (uint32_t)(p - caps->places) + 1;
    pthread_mutex_unlock(&caps->lock);
    return verdict;
}

void address_caps_leave(struct address_caps *caps, uint32_t ticket)
{
    if (!ticket)
        return;
    pthread_mutex_lock(&caps->lock);
    struct place *p = &caps->places[ticket - 1];
    must(p->sessions > 0);
    p->sessions--;
    pthread_mutex_unlock(&caps->lock);
}
