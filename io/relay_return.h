/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * relay_return - return paths of deliveries; see relay_return.c.
 */
#include "core/relay/delivery.h"

struct outbound;
struct worker;

/* The domain that this mail comes back to when it goes over this connection; NULL: it keeps its
 * sender's address. */
const char *relay_return_domain(const struct outbound *o, const struct message *m);
/* The address to say in MAIL, in the delivery's arena; empty: the sender's own. */
struct slice relay_return_path(const struct outbound *o, struct delivery *d);
/* Recipient i was delivered: if it had a return path, Redis remembers it, before the finish that
 * ends the delivery. */
void relay_return_keep(struct worker *w, const struct delivery *d, uint32_t i);
