/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * classify - what a reply is about: one of few categories whose names never change (P-237).
 *
 * A category says what is the matter, never how bad it is: whether mail is tried again is the
 * code's first digit's word (P-166), or that of a rule which says so. docs/bounces.md tells users
 * of these names. To add a category: a row here, its metric in core/base/metrics_table.h in the
 * same order, a rule in rules/replies.rules.
 *
 * X(id, name, what it means)
 */
#include "core/smtp/client.h"

#define CATEGORIES_TABLE(X)                                                                        \
    X(INVALID_MAILBOX, "invalid-mailbox", "there is no such mailbox")                              \
    X(INVALID_DOMAIN, "invalid-domain", "the domain does not exist or takes no mail")              \
    X(INACTIVE_MAILBOX, "inactive-mailbox", "the mailbox exists but is disabled")                  \
    X(MAILBOX_FULL, "mailbox-full", "the mailbox is full")                                         \
    X(MESSAGE_TOO_LARGE, "message-too-large", "the message is too large")                          \
    X(SPAM_CONTENT, "spam-content", "the message looks like spam, phishing or malware")            \
    X(BLOCKED, "blocked", "the sending address or domain has a bad reputation")                    \
    X(AUTHENTICATION, "authentication", "SPF, DKIM, DMARC or reverse DNS do not hold")             \
    X(POLICY, "policy", "a rule of the receiver forbids it")                                       \
    X(INVALID_SENDER, "invalid-sender", "the sender's address is not accepted")                    \
    X(GREYLISTED, "greylisted", "the receiver wants to see a second attempt")                      \
    X(RATE_LIMITED, "rate-limited", "too much mail or too many connections at once")               \
    X(RELAY_DENIED, "relay-denied", "the receiver does not serve this domain, or not for us")      \
    X(LOGIN, "login", "a smarthost did not accept our login")                                      \
    X(PROTOCOL, "protocol", "a command, or the form of the message, was not accepted")             \
    X(SYSTEM, "system", "the receiver has trouble of its own")                                     \
    X(LOOP, "loop", "the mail went in a circle")                                                   \
    X(EXPIRED, "expired", "the time to deliver it was over")                                       \
    X(NETWORK, "network", "no connection, or it was lost")                                         \
    X(TLS, "tls", "no encryption as it is wanted")                                                 \
    X(DNS, "dns", "the domain could not be looked up")                                             \
    X(OTHER_TRANSIENT, "other-transient", "a temporary refusal without a known reason")            \
    X(OTHER_PERMANENT, "other-permanent", "a refusal for good without a known reason")

enum bounce_category {
    CATEGORY_NONE, /* it was delivered, or nobody asked */
#define X(id, name, meaning) CATEGORY_##id,
    CATEGORIES_TABLE(X)
#undef X
        CATEGORY_COUNT
};

/* What a rule wants done besides (docs/bounces.md); retry.c and the drivers do it. */
enum reply_action {
    REPLY_SLOW = 1 << 0,     /* the next attempt comes later, by a factor */
    REPLY_SUSPEND = 1 << 1,  /* nothing is sent to the destination for a time */
    REPLY_RETRY = 1 << 2,    /* a 5xx that is no end: tried again */
    REPLY_BOUNCE = 1 << 3,   /* a 4xx that will not get better: it fails at once */
    REPLY_SUPPRESS = 1 << 4, /* a hard bounce puts the recipient on the suppression list */
    REPLY_REROUTE = 1 << 5,  /* another host of the destination is asked before all that */
};

struct reply_verdict {
    enum bounce_category category;
    uint32_t actions;     /* bits of enum reply_action */
    uint32_t slow_factor; /* of SLOW; else 1 */
    uint32_t suspend_ms;  /* of SUSPEND; else 0 */
};

struct reply_rules; /* rules.h */

/* What the outcome of one recipient is about, by the first rule that fits; host: who said so, ""
 * nobody. A delivery is CATEGORY_NONE. */
struct reply_verdict classify(const struct reply_rules *rules, const struct rcpt_outcome *o,
                              struct slice host);
/*
 * True when this failure shows that the address is no good: a permanent reply to this recipient
 * (or, of a domain, DNS) of a category that says so, or of a rule that does. Never for 5.7.x, 5.2.2
 * and 5.4.x, whatever a rule says: they are about the sender, the moment or the way, and an outage
 * of a provider must not empty lists (P-238).
 */
bool classify_is_hard(const struct rcpt_outcome *o, const struct reply_verdict *v);

const char *category_name(enum bounce_category category);    /* "" for NONE */
const char *category_meaning(enum bounce_category category); /* for people; "" for NONE */
const char *outcome_stage_name(enum outcome_stage stage);    /* as in logs and rules */
bool outcome_stage_find(struct slice name, enum outcome_stage *out);
