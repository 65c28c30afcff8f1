/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * report - which recipients' fates the sender is told of (RFC 3461 4.1, P-218, P-232, P-233). How
 * it is told is bounce.h's matter.
 */
#include "core/relay/retry.h"

enum report_action {
    REPORT_NONE,
    REPORT_FAILED,
    REPORT_DELAYED, /* it is tried further */
    REPORT_RELAYED, /* it was passed on to a host that gives no reports */
};

/* A recipient in a report. */
struct report_rcpt {
    uint32_t i; /* index into the delivery's recipients and outcomes */
    enum report_action action;
    enum bounce_category category; /* NONE: nothing is said of it */
    bool is_given_up; /* a rule ended it although its code is transient, before its time was over */
};

/* True when there may be a report about this message at all: it has a sender and is none itself
 * (P-227). */
bool report_is_possible(const struct message *m);
/* The notices (bits of enum delivery_told) whose time has come for a delivery that goes on, and
 * that its sender has not had. */
uint32_t report_notices_due(const struct config *cfg, const struct delivery *d,
                            const struct now *now);
/* What the sender is to be told of recipient i of d; notices: those that are due. */
enum report_action report_action(const struct config *cfg, const struct delivery *d, uint32_t i,
                                 enum retry_fate fate, uint32_t notices);
