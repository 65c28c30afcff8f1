/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * resolver_context - a libunbound context for one resolver: its servers, what it validates, a
 * thread of its own. Private to resolver.c.
 */
#include "core/base/buf.h"
#include "core/base/config.h"
#include <unbound.h>

/* SYSTEM: error says what libunbound does not like. */
NODISCARD enum status resolver_context_new(const struct config *cfg, struct ub_ctx **out,
                                           struct buf *error);
/* Ends its thread; no callback comes any more. */
void resolver_context_free(struct ub_ctx *ctx);
