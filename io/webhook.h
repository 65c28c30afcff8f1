/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * webhook - posts the event streams to events.webhook, in signed batches, at least once
 * (docs/events.md). One node of the cluster at a time does it, by its first worker.
 */
struct worker;
struct resolver;
struct tls_client;
struct webhook;

/* NULL: none is configured; the functions below take that. */
struct webhook *webhook_new(struct worker *w, struct resolver *resolver, struct tls_client *tls);
/* Nothing is begun any more. Before the worker's connections end. */
void webhook_abandon(struct webhook *h);
void webhook_free(struct webhook *h); /* after the resolver */
