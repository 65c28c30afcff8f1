/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_events - `kilat events ...`: prints the event stream (docs/events.md), one JSON object a
 * line.
 */
#include "core/base/config.h"

/* argv: the arguments. Prints to stdout, errors and usage to stderr; returns an enum cli_exit. */
int cli_events(const struct config *cfg, int argc, char **argv);
