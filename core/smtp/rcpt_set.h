/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * rcpt_set - which recipients a message already has, so that each is delivered to once (P-54).
 *
 * Two recipients are the same when their local parts are equal octet by octet (RFC 5321 2.4) and
 * their domains are equal but for case. A handful is compared one by one; from RCPT_SET_LINEAR on a
 * hash table of indices grows in the message's arena and goes with it.
 */
#include "core/smtp/message.h"

#define RCPT_SET_LINEAR 8

struct rcpt_set {
    uint32_t *slots; /* in the message's arena; index of a recipient plus 1, 0: free */
    uint32_t cap;    /* slots, a power of two; 0: no table yet */
};

/* True when m has this recipient; domain is the tail of address, or empty. */
bool rcpt_set_contains(const struct rcpt_set *set, const struct message *m, struct slice address,
                       struct slice domain);
/* To be called after each message_add_rcpt: takes the newest recipient in. */
void rcpt_set_note_last(struct rcpt_set *set, struct message *m);
