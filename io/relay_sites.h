/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * relay_sites - the limits that all nodes keep together, agreed on through Redis.
 *
 * Asks what the pool wants to know (core/relay/pool_site.c) and what is new, all sites in one call,
 * one call at a time; see queue/lua/sites.lua. A worker without a limited site asks nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct outbound;
struct rcpt_outcome;
struct relay_driver;
struct relay_sites;

struct relay_sites *relay_sites_new(struct relay_driver *r);
void relay_sites_free(struct relay_sites *s);
void relay_sites_pump(struct relay_sites *s); /* at the end of a turn */
int64_t relay_sites_wake_ms(const struct relay_sites *s);
/* What a peer said, to one message or to the connection: whether its site is to get less, or takes
 * what it gets. */
void relay_sites_heard(const struct outbound *o, const struct rcpt_outcome *outcomes, size_t count);
/* Draining, nothing is under way: closes what is left; true when all was given back, or cannot be.
 */
bool relay_sites_bye(struct relay_sites *s);
