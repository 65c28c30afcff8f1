/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_print - how `kilat queue` shows deliveries: one row each, fixed columns, then free text.
 */
#include "queue/schema.h"

void cli_print_header(void);
/* item: its text in Redis. info: due or died ms, or the worker, by state; reason: with "dead". */
void cli_print_row(const char *state, struct slice id, struct slice item, struct slice info,
                   struct slice reason);
/* Sender, client, the item's recipients, expiry; indented. */
void cli_print_envelope(const struct message *m, struct slice item);
