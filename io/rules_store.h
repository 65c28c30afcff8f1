/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * rules_store - the rules about replies of this process: those of relay.rules and those built in,
 * swapped whole when the file changes.
 */
#include "core/base/config.h"
#include "core/relay/rules.h"

struct rules_store;

/* SYSTEM, BAD: error says why. */
NODISCARD enum status rules_store_new(const struct config *cfg, struct rules_store **out,
                                      struct buf *error);
void rules_store_free(struct rules_store *s); /* after the last worker; NULL is harmless */
bool rules_store_has_changed(const struct rules_store *s); /* the file is not what was tried last */
/* Reads the file again; a bad one leaves the good rules in place. The main thread's. */
NODISCARD enum status rules_store_reload(struct rules_store *s, struct buf *error);
/* Any thread: changes *rules, which is NULL or a reference of the caller's, and *serial, when there
 * are newer ones. */
void rules_store_refresh(struct rules_store *s, struct reply_rules **rules, uint32_t *serial);
