/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * route - which next hop a recipient's domain has, by the route sections of the configuration.
 *
 * The most specific pattern wins: "example.org", then "*.example.org" (any depth), then "*".
 * Everything that shares a next hop shares a destination, named by a key:
 *     "example.org"   MX delivery for that domain (lower case)
 *     "."             the same for bare postmaster, which has no domain, and for a domain in
 *                     U-labels that has no A-labels: the root has no MX
 *     "@PATTERN"      the smarthost of the route with that pattern
 *     "!PATTERN"      held by the route with that pattern
 * Keys hold printable ASCII without space; they are names in Redis and in `kilat queue`.
 */
#include "core/base/config.h"
#include "core/smtp/message.h"

#define DEST_KEY_MAX 272

/* The route for a domain, in U-labels or A-labels ("" for bare postmaster: matches "*" only); NULL:
 * none matches. */
const struct config_route *route_find(const struct config *cfg, struct slice domain);
/* Finds the route a key names; for MX keys the route of that domain. NULL: the configuration no
 * longer has it. */
const struct config_route *route_of_key(const struct config *cfg, struct slice key);
/* Writes the NUL-terminated destination key; returns its length. */
size_t route_dest_key(const struct config_route *route, struct slice domain,
                      char out[DEST_KEY_MAX]);

/* Recipients of one message that share a destination. */
struct route_group {
    char key[DEST_KEY_MAX];
    const struct config_route *route; /* borrowed */
    uint32_t *rcpts;                  /* in the message's arena; indices into message->rcpts */
    uint32_t rcpt_count;
};

/* Groups the given recipients (all of them when rcpts is NULL) by destination; *groups lies in the
 * arena. Recipients without a route are in *unrouted (indices, arena). Returns the number of
 * groups. */
size_t route_split(const struct config *cfg, struct message *m, const uint32_t *rcpts,
                   uint32_t rcpt_count, struct arena *arena, struct route_group **groups,
                   uint32_t **unrouted, uint32_t *unrouted_count);
