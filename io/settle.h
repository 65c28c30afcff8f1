/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * settle - what becomes of a delivery that is decided: the log lines, the bounce, and the queue's
 * word (done, retry, dead, release, resplit). The delivery is freed when that is durable.
 */
#include "core/relay/delivery.h"
#include "core/relay/rules.h"
#include "io/worker.h"

typedef void settled_fn(void *ctx, const struct delivery *d);

struct settle {
    struct worker *w;          /* borrowed */
    settled_fn *on_settled;    /* told of each delivery that is about to be freed */
    void *ctx;                 /* borrowed */
    struct list finishing;     /* struct delivery: their end is on the way to Redis */
    struct list waits;         /* deliveries whose bounce waits for the original's header */
    struct reply_rules *rules; /* one reference; the newest set of the process's */
    uint32_t rules_serial;
};

void settle_init(struct settle *s, struct worker *w, settled_fn *on_settled, void *ctx);
void settle_done(struct settle *s); /* frees what is finishing; the queue will deliver it again */
/* True when rules want another host to be asked for all of its recipients. */
bool settle_wants_other_host(struct settle *s, const struct delivery *d, const char *host);
/* Every outcome of d is decided; host: who said so, "" nobody. Takes d. */
void settle_decided(struct settle *s, struct delivery *d, const char *host);
/* Back to the queue's front, untried. Takes d. */
void settle_release(struct settle *s, struct delivery *d);
/* Untried, behind what waits: it was born leased, and there is no room for it. Takes d. */
void settle_pass(struct settle *s, struct delivery *d);
/* The peer takes so many at once only: replaced by deliveries of these parts, more than one. Takes
 * d, in whose arena they may lie. */
void settle_split(struct settle *s, struct delivery *d, const struct delivery_part *parts,
                  size_t count);
/* The configuration routes d's recipients otherwise now: replaced by new deliveries. Takes d. */
void settle_resplit(struct settle *s, struct delivery *d);
