/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * queue_age - how long deliveries waited from acceptance to their outcome, by lane and tenant: a
 * histogram of all, and p50 and p99 of the last minutes.
 *
 * One per worker, a part of its metrics: written by that worker, read by the admin thread. Shown
 * are the first QUEUE_AGE_TENANTS tenants of the configuration; the others together are
 * tenant="(other)", mail without one, or of one that is gone, is tenant="". A series appears with
 * its first delivery.
 */
#include "core/base/buf.h"
#include "core/base/config.h"
#include "core/base/tenant_index.h"

#define QUEUE_AGE_TENANTS 50

struct queue_age; /* queue_age.c */

struct queue_age *queue_age_new(const struct config *cfg);
void queue_age_free(struct queue_age *q); /* NULL is harmless */
/* Once a loop turn: what is recent depends on it. mono_ms as in struct now. */
void queue_age_tick(struct queue_age *q, int64_t mono_ms);
void queue_age_note(struct queue_age *q, enum mail_lane lane, struct slice tenant, int64_t age_ms);
/* The sum over several, made of the same configuration. FULL: out is too small. */
NODISCARD enum status queue_age_format(const struct queue_age *const *ages, size_t count,
                                       struct buf *out);
