/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * config_file - reads the configuration file; core/base/config.h understands it.
 */
#include "core/base/config.h"

#define CONFIG_FILE_MAX (1024 * 1024) /* octets; more is surely not a configuration */

/* On success *out is owned by the caller (config_free). Else error holds one line: SYSTEM with the
 * path and the system's reason, FULL when it is too large, BAD from config_parse,
 * or for a sender that is no pattern. */
NODISCARD enum status config_load(const char *path, struct config **out, struct buf *error);
