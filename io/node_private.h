/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * node_private - what starting (node.c) and asking whether it would start (check.c) share.
 */
#include "core/base/config.h"

uint32_t node_worker_count(const struct config *cfg); /* one per core where it says 0 */
void node_raise_file_limit(void);                     /* as many as the system lets us have */
bool node_needs_users(const struct config *cfg);      /* a listener has AUTH */
