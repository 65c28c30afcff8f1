/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * source - which address of this machine mail leaves from, and how much may leave from one that is
 * being warmed up. Pure.
 */
#include "core/base/config.h"

#define SOURCE_UNLIMITED UINT32_MAX

/* One of the route's sources, by weight and the message's id: the same each time, as long as
 * `spent` (a bit for each source of the configuration) is. Those that are spent are chosen only
 * when all are. NULL: the route has none. */
const struct config_source *source_pick(const struct config *cfg, const struct config_route *route,
                                        const char *queue_id, uint64_t spent);

/* The day, UTC, of a wall clock time: days since 1970. */
int32_t source_day(int64_t wall_ms);
/* When the next one begins, wall clock. */
int64_t source_next_day_ms(int64_t wall_ms);
/* Recipients that may be sent to from it on that day; SOURCE_UNLIMITED: any number. */
uint32_t source_allowance(const struct config_source *source, int32_t day);
