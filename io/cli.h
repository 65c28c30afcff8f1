/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli - `kilat queue ...`: what operators ask of the queue, and do to it. Speaks to Redis directly,
 * with the admin functions of queue/lua/kilat.lua, so it works beside any number of gateways and
 * without one (external Redis).
 */
#include "core/base/config.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1, /* Redis did not answer, or there is no such thing */
    CLI_USAGE = 2,
};

/* argv[0] is the command ("list", "show", ...), argv[1] ... its arguments. Prints to stdout, errors
 * and usage to stderr; returns an enum cli_exit for exit(). */
int cli_queue(const struct config *cfg, int argc, char **argv);
