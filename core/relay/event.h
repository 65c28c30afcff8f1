/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * event - what happens to mail, as one line of JSON each, for the event stream (docs/events.md).
 *
 * Pure. Octets that are no UTF-8 become "?"; replies are cut at EVENT_TEXT_MAX octets, lists of
 * recipients at EVENT_RCPTS_MAX.
 */
#include "core/base/buf.h"
#include "core/relay/classify.h"
#include "core/smtp/message.h"
#include "core/smtp/returned.h"

#define EVENT_TEXT_MAX  200
#define EVENT_RCPTS_MAX 100
#define EVENT_MAX       (64 * 1024) /* octets of one */

/* {"event":"accepted",...}; a bounce of ours is told as "bounce". FULL. */
NODISCARD enum status event_accepted(const struct message *m, struct buf *out);

struct event_outcome {
    const char *event; /* "delivered", "deferred", "bounced", "expired" */
    const struct message *message;
    const struct rcpt *rcpt;
    const char *dest, *host; /* host: who said so; "" nobody */
    const struct rcpt_outcome *outcome;
    enum bounce_category category;
    uint32_t attempt; /* from 1 */
    int64_t wall_ms;
};

/* What came back of one recipient's mail, long after it was delivered. */
struct event_returned {
    const char *id; /* of the message */
    struct slice tenant, sender, rcpt;
    const struct returned *report; /* a bounce or a complaint */
    const struct returned_reply *reply;
    enum bounce_category category; /* of a bounce that says "failed" */
    int64_t delivered_ms, wall_ms;
};
/* {"event":"returned",...} or {"event":"complaint",...}. FULL. */
NODISCARD enum status event_returned(const struct event_returned *e, struct buf *out);

/* What became of one recipient in one attempt. FULL. */
NODISCARD enum status event_outcome(const struct event_outcome *o, struct buf *out);
