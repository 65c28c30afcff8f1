/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * drive_submit - wires submission sessions (core/smtp/session) to connections and to the queue.
 *
 * Accepts on the worker's listeners, decides who is trusted, feeds received octets to the session,
 * sends its replies, streams the content of large messages to Redis while it comes, takes finished
 * messages to the queue and brings the verdict back.
 *
 * When something is full: sessions_max reached: 421 4.3.2 and close; connection table full: the
 * accepted socket is closed and accepting pauses until a slot is free; content memory full: MAIL
 * gets 452 and sessions inside DATA are not read from.
 */
#include "io/worker.h"

struct submit_driver *submit_new(struct worker *w);
void submit_free(struct submit_driver *d);
void submit_start(struct submit_driver *d); /* begins to accept */
void submit_pump(struct submit_driver *d);  /* at the end of a turn */
void submit_drain(struct submit_driver *d); /* stops accepting; sessions end between transactions */
void submit_abandon(struct submit_driver *d);            /* closes what is left */
bool submit_is_quiet(const struct submit_driver *d);     /* no accept is in flight any more */
uint32_t submit_sessions(const struct submit_driver *d); /* open */
uint32_t submit_busy(const struct submit_driver *d);     /* inside a transaction */
uint32_t submit_talking(const struct submit_driver *d);  /* ... and not waiting for its commit */
