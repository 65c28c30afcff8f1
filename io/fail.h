/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * fail - one line of error text for the operator, and the status that goes with it, in one
 * statement: return fail_with(error, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
 */
#include "core/base/buf.h"

/* Replaces what error holds; text that does not fit is left out. Returns st. */
enum status fail_with(struct buf *error, enum status st, const char *format, ...) PRINTF_LIKE(3, 4);
