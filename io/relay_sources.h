/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * relay_sources - sources that are being warmed up: what may leave from each of them today is
 * counted by all nodes together (queue/lua/warm.lua).
 */
#include "core/relay/delivery.h"

struct relay_driver;
struct relay_sources;

struct relay_sources *relay_sources_new(struct relay_driver *r);
/* What waits was taken before. */
void relay_sources_free(struct relay_sources *s);
/* True: d is to be asked for first. It is taken, and goes on when the answer is there: to the pool,
 * to another source of its route, or, where none has anything left, to the next day. */
bool relay_sources_hold(struct relay_sources *s, struct delivery *d);
/* Takes a waiting delivery of that shard out; NULL: there is none. */
struct delivery *relay_sources_take_shard(struct relay_sources *s, uint16_t shard);
/* A bit for each source of the configuration from which nothing more may leave today. */
uint64_t relay_sources_spent(const struct relay_sources *s);
/* Milliseconds until mail may leave for the destination again; 0: now, or from another source. */
uint64_t relay_sources_rest_ms(const struct relay_sources *s, const char *dest);
void relay_sources_pump(struct relay_sources *s); /* at the end of a turn */
int64_t relay_sources_wake_ms(const struct relay_sources *s);
