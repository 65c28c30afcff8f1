/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * retry - the only place that turns replies into policy: scope (connection, message, recipient) x
 * hardness x what is left to try.
 */
#include "core/relay/classify.h"
#include "core/relay/delivery.h"

struct entropy;

enum retry_fate {
    RETRY_DELIVERED, /* positive reply to the final dot */
    RETRY_LATER,     /* transient: again after a delay */
    RETRY_FAILED,    /* permanent: bounce */
    RETRY_EXPIRED, /* transient, but its time is over: bounce with 4.4.7 and the last diagnostic */
};

/* The fate of one decided recipient at wall clock time now; v: what the rules made of its outcome,
 * NULL: nothing. */
enum retry_fate retry_fate(const struct rcpt_outcome *o, const struct reply_verdict *v,
                           int64_t expires_ms, const struct now *now);

/* Wait before the next attempt when `attempts` have ended (at least 1): the schedule with jitter.
 */
uint32_t retry_delay_ms(const struct config *cfg, uint32_t attempts, struct entropy *entropy);
/* The same when rules have a say: longer by the factor (1: none), and not before the destination's
 * suspension is over (0: there is none), a tenth spread so that not all come back at once. */
uint32_t retry_longer_ms(uint32_t delay_ms, uint32_t factor, uint64_t suspended_ms,
                         struct entropy *entropy);

/* No longer than until the time to deliver by: then it fails, or its sender is told (P-68). */
uint32_t retry_cap_delay_ms(uint32_t delay_ms, const struct message *m, const struct now *now);

/* What a failure of a connection (not of a message) means for its destination. */
enum retry_connection {
    RETRY_NEXT_HOST, /* try the next host of the destination at once */
    RETRY_DEFER_ALL, /* no host left: every waiting delivery is deferred, the destination backs off
                      */
    RETRY_FAIL_ALL,  /* permanent: 5xx greeting on the last host, NXDOMAIN, null MX */
};
enum retry_connection retry_connection_fate(const struct rcpt_outcome *failure, bool has_next_host);
