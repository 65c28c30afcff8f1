/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * bounce - the message that tells a sender what could not be delivered (RFC 3461 6, 3462, 3464;
 * P-227 to P-230, P-235, P-236).
 */
#include "core/relay/retry.h"

#define BOUNCE_RETURNED_MAX (64 * 1024) /* octets of the original that are returned at most */

struct bounce_context {
    struct slice hostname;   /* Reporting-MTA, our domain */
    struct slice remote_mta; /* host of the last attempt, or empty */
    struct slice original;   /* the original content as far as it is in memory (header at least) */
    struct entropy *entropy;
    struct chain_budget *budget;
};

/* True when this message may be bounced at all: it has a sender and is no bounce itself. */
bool bounce_is_due(const struct message *m);

/*
 * Makes the bounce for the recipients `failed` (indices into d->rcpts/outcomes; fates FAILED or
 * EXPIRED). The new message has a null sender, the original's sender as only recipient,
 * MESSAGE_BOUNCE, its own id and trace header; the caller owns it. Only when bounce_is_due.
 */
struct message *bounce_make(const struct delivery *d, const uint32_t *failed, uint32_t failed_count,
                            const struct bounce_context *ctx, const struct now *now);
