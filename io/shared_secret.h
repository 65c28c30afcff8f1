/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * shared_secret - random octets that all nodes with one Redis have in common, in {cfg}.
 */
#include "core/base/buf.h"
#include "core/base/status.h"
#include "io/redis_boot.h"

#define SHARED_SECRET_LEN 32

void shared_secret_make(uint8_t secret[SHARED_SECRET_LEN]);
/*
 * The secret of that name, a field of {cfg}; the first to ask gives it `secret`, which then holds
 * what all have. A Redis that is full keeps none: this process goes on with its own until the next
 * start. SYSTEM, error: Redis is out of reach, or what it has is no such secret. Blocks.
 */
NODISCARD enum status shared_secret_adopt(const struct redis_address *addr, const char *field,
                                          uint8_t secret[SHARED_SECRET_LEN], struct buf *error);
