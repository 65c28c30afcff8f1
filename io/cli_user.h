/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_user - `kilat user ...`: who may submit mail. Works on auth.users_file, or on the users in
 * Redis when there is none; the gateways notice by themselves, within a second or at once.
 *
 *     add NAME [--tenant T] [--sender PATTERN]... [--recipients-per-minute N]
 *              [--recipients-per-day N] [PASSWORD]     passwd NAME [PASSWORD]
 *     disable NAME     enable NAME     remove NAME     show NAME [--json]     list [--json]
 *
 * PASSWORD: [--password-file FILE] [--no-argon2] [--no-scram]; without a file from standard input.
 */
#include "core/base/config.h"

/* argv[0] is the command. Prints to stdout, errors and usage to stderr; returns an enum cli_exit.
 */
int cli_user(const struct config *cfg, int argc, char **argv);
