/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_fsck - `kilat queue fsck`: is everything in Redis that should be there, and nothing else?
 */
#include "io/cli_redis.h"

/* One line for each finding, then a summary, to stdout; returns an enum cli_exit: CLI_FAILED when
 * something was found, or when Redis did not answer (c->error). Changes nothing. */
int cli_fsck(struct cli *c);
