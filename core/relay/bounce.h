/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * bounce - the message that tells a sender what became of mail: that it could not be delivered,
 * waits, or was passed on (RFC 3461 6, 3462, 3464, 6533; P-204, P-227 to P-231, P-235, P-236).
 */
#include "core/relay/report.h"

#define BOUNCE_RETURNED_MAX (64 * 1024) /* octets of the original that are returned at most */

struct bounce_context {
    struct slice hostname;   /* Reporting-MTA, our domain */
    struct slice remote_mta; /* host of the last attempt, or empty */
    struct slice original;   /* the original content as far as it is in memory (header at least) */
    struct entropy *entropy;
    struct chain_budget *budget;
};

/*
 * Makes one report of these recipients of d, at least one, whatever is told of each. The new
 * message has a null sender, the original's sender as only recipient, MESSAGE_BOUNCE, its own id
 * and trace header; the caller owns it. Only when report_is_possible.
 */
struct message *bounce_make(const struct delivery *d, const struct report_rcpt *rcpts,
                            uint32_t rcpt_count, const struct bounce_context *ctx,
                            const struct now *now);
