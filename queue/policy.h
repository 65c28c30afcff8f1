/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * policy - the question whether a recipient may be accepted, in Redis' words, and its answer.
 *
 *     struct policy_question q;
 *     if (!policy_is_asked(&admission))   -> SMTP_ADMIT_OK, nothing limits this tenant
 *     policy_ask(&q, &admission, shards)  -> send q.argv, one command
 *     policy_answer(reply, &reason)
 *
 * One question is one recipient, and counts it when it passes (lua/policy.lua). A tenant without
 * limits is only looked up, by a function that writes nothing.
 */
#include "core/smtp/address.h"
#include "core/smtp/session.h"
#include "queue/redis_link.h"
#include "queue/schema.h"

#define POLICY_ARGS_MAX   11
#define POLICY_REASON_MAX 200 /* octets of a reason that a client is told */
/* A mailbox in its one form: twice the local part, should every octet need a backslash. */
#define POLICY_ADDRESS_MAX (2 * 256 + 2)

struct policy_question {
    struct slice argv[POLICY_ARGS_MAX]; /* point into this question and into the admission */
    size_t argc;
    char key[QUEUE_KEY_MAX];
    char rcpt[POLICY_ADDRESS_MAX];
    char numbers[4][12];
};

/* False: neither a suppression list nor a limit holds for it. */
bool policy_is_asked(const struct smtp_admission *a);
/* The admission, and q, must stay as they are until q->argv was used. */
void policy_ask(struct policy_question *q, const struct smtp_admission *a, uint16_t shards);
/* reply NULL: the link was lost. *reason points into the reply: printable ASCII; empty unless the
 * recipient is suppressed. */
enum smtp_admit policy_answer(const redisReply *reply, struct slice *reason);

/* What FINISH_SUPPRESS says: after `limit` hard bounces (at least 1) of this mailbox it is on the
 * tenant's list, with this reason: printable ASCII, cut at POLICY_REASON_MAX. */
void policy_hard_bounce(struct buf *out, struct slice tenant, uint32_t limit, struct slice rcpt,
                        struct slice reason);

/*
 * The one form in which a mailbox stands on a suppression list: the domain in lower case, the local
 * part as given, quoted only where it must be (P-44: what is compared is what the quotes say).
 */
struct slice policy_address(char out[POLICY_ADDRESS_MAX], struct slice mailbox);
