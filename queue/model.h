/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * model - the queue as plain lists: what queue/lua promises, written down a second time, simply.
 *
 * Tests give the same calls to a model and to a real Redis and compare every reply
 * (tests/unit/test_queue_model.c); simulations without a Redis may use one as their queue. It takes
 * the functions' own arguments and writes their replies as text: "[ ", "] " around arrays, a space
 * after each string or number.
 *
 * One model is one shard. Time is an argument and must grow from call to call. Linear searches
 * everywhere: it is for hundreds of deliveries.
 * Not modelled: turns of tenants (to it all mail has none), chunks, the end of an idempotency key,
 * limits on how much one call moves, kilat_list, kilat_find, lua/policy.lua, lua/warm.lua, and
 * lua/sites.lua, which tests/unit/test_sites.c holds against the pools that ask it.
 */
#include "core/base/buf.h"

struct queue_model;

struct queue_model *queue_model_new(void);
void queue_model_free(struct queue_model *m);
/* FCALL `function` 1 {..}n argv...; appends the reply. MISSING: no such function here. */
NODISCARD enum status queue_model_call(struct queue_model *m, int64_t now_ms, const char *function,
                                       const struct slice *argv, size_t argc, struct buf *reply);
/* True when the record of this queue id is there. */
bool queue_model_has_record(const struct queue_model *m, const char *queue_id);
/* Every delivery and where it is, one a line, in the order of the lists; for comparing. */
void queue_model_dump(const struct queue_model *m, struct buf *out);
