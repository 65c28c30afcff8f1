/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * relay_sites - the limits that all nodes keep together, agreed on through Redis.
 *
 * Asks what the pool wants to know (core/relay/pool_site.c) and what is new, all sites in one call,
 * one call at a time; see queue/lua/sites.lua. A worker without a limited site asks nothing.
 */
#include <stdbool.h>
#include <stdint.h>

struct relay_driver;
struct relay_sites;

struct relay_sites *relay_sites_new(struct relay_driver *r);
void relay_sites_free(struct relay_sites *s);
void relay_sites_pump(struct relay_sites *s); /* at the end of a turn */
int64_t relay_sites_wake_ms(const struct relay_sites *s);
/* Draining, nothing is under way: closes what is left; true when all was given back, or cannot be.
 */
bool relay_sites_bye(struct relay_sites *s);
