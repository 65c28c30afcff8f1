/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * drive_relay - wires the relay pool, the outbound SMTP machines and the resolver to connections,
 * and turns outcomes into the queue's words: done, retry, bounce, dead letter.
 */
#include "core/relay/delivery.h"
#include "io/worker.h"
#include "queue/claim.h"

struct relay_driver *relay_new(struct worker *w);
void relay_free(struct relay_driver *r);
/* Takes a leased delivery: accepted here, or claimed. */
void relay_add(struct relay_driver *r, struct delivery *d);
/* Deliveries this worker may still take. 0: the memory or the number is used up. */
uint32_t relay_room(const struct relay_driver *r, enum mail_lane lane);
/* True when so much waits in memory for a destination that more is for the shared queue to keep. */
bool relay_is_crowded(const struct relay_driver *r, const char *dest, enum mail_lane lane);
struct claim_room relay_rooms(const struct relay_driver *r); /* ... of all lanes */
/* Takes a delivery that is to be handed back untried. */
void relay_give_back(struct relay_driver *r, struct delivery *d);
/* False after a lost lease, until every delivery of it has ended and a lease time has passed: what
 * is said of the old lease must not end a new one. */
bool relay_may_claim(const struct relay_driver *r, uint16_t shard);
/* The leases of a shard passed to others: what waits is dropped. */
void relay_lease_lost(struct relay_driver *r, uint16_t shard);
/* Leaves a destination alone for a while; false: it was told so before, for as long. */
bool relay_suspend(struct relay_driver *r, const char *dest, uint32_t ms,
                   const struct rcpt_outcome *why);
int64_t relay_suspension_ms(const struct relay_driver *r, const char *dest); /* 0: none */
/* How long nothing is to be sent to it: it is suspended, or its source is spent; 0: now. */
uint64_t relay_rest_ms(const struct relay_driver *r, const char *dest);
/* A bit for each source of the configuration from which nothing more may leave today. */
uint64_t relay_spent_sources(const struct relay_driver *r);
void relay_pump(struct relay_driver *r); /* at the end of a turn */
int64_t relay_wake_ms(const struct relay_driver *r);
void relay_drain(struct relay_driver *r);             /* waiting deliveries go back to the queue */
uint32_t relay_talking(const struct relay_driver *r); /* deliveries on a connection */
uint32_t relay_held(const struct relay_driver *r);    /* deliveries in memory, in flight or not */
/* Draining, nothing held: true when what was agreed on with other nodes is given back. */
bool relay_bye(struct relay_driver *r);
void relay_abandon(struct relay_driver *r); /* closes what is left */
