/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sender_list - which addresses may stand in MAIL and in the From field (P-34).
 *
 * Patterns: "a@example.org" (the local part octet by octet, the domain in any case),
 * "@example.org" (every address of exactly this domain), "@*.example.org" (of every domain below
 * it, not of itself), "*" (every address). An empty list allows nothing.
 */
#include "core/base/slice.h"
#include "core/base/status.h"

struct sender_list {
    char **patterns; /* owned */
    size_t count;
};

bool sender_pattern_is_valid(struct slice pattern);
NODISCARD enum status sender_list_add(struct sender_list *l,
                                      struct slice pattern); /* BAD: no pattern */
void sender_list_done(struct sender_list *l);
/* mailbox: local@domain as in struct address, without brackets. Quoted local parts are compared in
 * their plainest form. */
bool sender_list_allows(char *const *patterns, size_t count, struct slice mailbox);
/* True when a user's name is an address, and this mailbox is it: what stands for a list where there
 * is none. A name is never taken as a pattern. */
bool sender_is_own(struct slice name, struct slice mailbox);
