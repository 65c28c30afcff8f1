/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * node - one gateway process: sockets bound, Redis ready, workers running, signals heard.
 */
#include "core/base/config.h"

/* Runs until SIGTERM or SIGINT and the drain that follows. Returns the exit code: 0 after a drain,
 * 1 when it could not start (the reason is on stderr). */
int node_serve(const struct config *cfg);
/* `kilat check`: prints what this machine and this configuration give; 0 when it would start. */
int node_check(const struct config *cfg);
