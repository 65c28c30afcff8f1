/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * route - which next hop a recipient's domain has, by the route sections of the configuration.
 *
 * The most specific pattern wins: "example.org", then "*.example.org" (any depth), then "*". Of
 * several routes for that pattern, one that names the tenant comes before one that does not; then
 * one that names the lane.
 * Everything that shares a next hop shares a destination, named by a key:
 *     "example.org"   MX delivery for that domain (lower case)
 *     "."             the same for bare postmaster, which has no domain, and for a domain in
 *                     U-labels that has no A-labels: the root has no MX
 *     "NAME/DOMAIN"   MX delivery by the route of that name, which is for some tenants or lanes
 *     "~..."          one of these three for mail whose sender waives the recipients' policies on
 *                     TLS (P-72): what is known of the hosts, and their connections, differ
 *     "@NAME"         the smarthost of the route of that name (often its pattern)
 *     "!NAME"         held by the route of that name
 *     "SOURCE^..."    one of these whose mail leaves from that source: a host judges the address it
 *                     sees, so connections, limits and patience are kept apart
 *
 * Keys hold printable ASCII without space; they are names in Redis and in `kilat queue`.
 */
#include "core/base/config.h"
#include "core/smtp/message.h"

#define DEST_KEY_MAX 368

/* What a route is chosen by. */
struct route_query {
    struct slice domain; /* in U-labels or A-labels; "" for bare postmaster: matches "*" only */
    struct slice tenant; /* "": none */
    enum mail_lane lane;
    bool waives_tls; /* "TLS-Required: No" (RFC 8689 5) */
};

static inline struct route_query route_query_of(const struct message *m, struct slice domain)
{
    bool waives_tls = (m->flags & MESSAGE_TLS_OPTIONAL) && !(m->flags & MESSAGE_REQUIRE_TLS);
    return (struct route_query){ domain, m->tenant, message_lane(m), waives_tls };
}

/* NULL: none matches. */
const struct config_route *route_find(const struct config *cfg, const struct route_query *query);
/* Finds the route a key names; for MX keys the route of that domain. NULL: the configuration no
 * longer has it. */
const struct config_route *route_of_key(const struct config *cfg, struct slice key);
/* Writes the NUL-terminated key of the destination that the query has by the route that was found
 * for it; returns its length. */
size_t route_dest_key(const struct config_route *route, const struct route_query *query,
                      char out[DEST_KEY_MAX]);
/* The same of mail that leaves from that source; NULL: from where the system chooses. */
size_t route_source_key(const struct config_route *route, const struct route_query *query,
                        const struct config_source *source, char out[DEST_KEY_MAX]);

/* The domain in the key of an MX delivery: a part of it. */
const char *route_key_domain(const char *key);
/* The key without its source: a part of it. */
const char *route_key_base(const char *key);
static inline bool route_key_waives_tls(const char *key)
{
    return route_key_base(key)[0] == '~';
}
/* The source in a key; NULL: there is none, or the configuration no longer has it. */
const struct config_source *route_key_source(const struct config *cfg, const char *key);
/* True when the configuration would still give this key to mail of the query. */
bool route_key_is_current(const struct config *cfg, const struct route_query *query,
                          const char *key);

/* Recipients of one message that share a destination. */
struct route_group {
    char key[DEST_KEY_MAX];
    const struct config_route *route; /* borrowed */
    uint32_t *rcpts;                  /* in the message's arena; indices into message->rcpts */
    uint32_t rcpt_count;
};

/* Groups the given recipients (all of them when rcpts is NULL) by destination; *groups lies in the
 * arena. `spent`: a bit for each source of the configuration that is not to be chosen today where
 * there is another. Recipients without a route are in *unrouted (indices, arena). Returns the
 * number of groups. */
size_t route_split(const struct config *cfg, uint64_t spent, struct message *m,
                   const uint32_t *rcpts, uint32_t rcpt_count, struct arena *arena,
                   struct route_group **groups, uint32_t **unrouted, uint32_t *unrouted_count);
