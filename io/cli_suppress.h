/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_suppress - `kilat suppress ...`: the addresses that a tenant may not send to. RCPT answers
 * them 550 with the reason, on all nodes, from the moment the command returns.
 *
 *     add TENANT ADDRESS [--reason TEXT]    remove TENANT ADDRESS
 *     list TENANT [--json]                  import TENANT FILE
 */
#include "core/base/config.h"

/* argv[0] is the command. Prints to stdout, errors and usage to stderr; returns an enum cli_exit.
 */
int cli_suppress(const struct config *cfg, int argc, char **argv);
