/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_print - how commands print what came from outside, and how `kilat queue` shows deliveries:
 * one row each, fixed columns, then free text.
 */
#include "queue/schema.h"

/* Octets that are not printable ASCII become '?'. */
void cli_print_text(struct slice s);
/* As a JSON string; octets above 127 as they are, when they are UTF-8. */
void cli_print_json(struct slice s);
void cli_print_header(void);
/* item: its text in Redis. info: due or died ms, or the worker, by state; reason: with "dead". */
void cli_print_row(const char *state, struct slice id, struct slice item, struct slice info,
                   struct slice reason);
/* Sender, client, who sent it and what was asked for, the item's recipients, expiry; indented. */
void cli_print_envelope(const struct message *m, struct slice item);
