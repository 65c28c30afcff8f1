/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source - the choice is a hash of the queue id, which is random: no state, and a message that is
 * looked at again, here or on another node, has the source that it had.
 */
#include "core/relay/source.h"
#include "core/base/must.h"

#define DAY_MS (24 * 60 * 60 * 1000)

/* FNV-1a. */
static uint64_t hash_of(const char *text)
{
    uint64_t h = 14695981039346656037u;
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 1099511628211u;
    return h ^ h >> 32;
}

static uint32_t weight_of(const struct config *cfg, uint64_t set)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < cfg->source_count; i++)
        sum += set >> i & 1 ? cfg->sources[i].weight : 0;
    return sum;
}

const struct config_source *source_pick(const struct config *cfg, const struct config_route *route,
                                        const char *queue_id, uint64_t spent)
{
    uint64_t set = route->source_set & ~spent ? route->source_set & ~spent : route->source_set;
    if (set == 0 || route->relay == RELAY_HOLD)
        return NULL;
    uint32_t left = (uint32_t)(hash_of(queue_id) % weight_of(cfg, set));
    for (size_t i = 0;; i++) {
        must(i < cfg->source_count);
        if (!(set >> i & 1))
            continue;
        if (left < cfg->sources[i].weight)
            return &cfg->sources[i];
        left -= cfg->sources[i].weight;
    }
}

int32_t source_day(int64_t wall_ms)
{
    return (int32_t)(wall_ms / DAY_MS);
}

int64_t source_next_day_ms(int64_t wall_ms)
{
    return ((int64_t)source_day(wall_ms) + 1) * DAY_MS;
}

uint32_t source_allowance(const struct config_source *source, int32_t day)
{
    if (source->warmup_count == 0)
        return SOURCE_UNLIMITED;
    if (day < source->first_day)
        return 0;
    size_t n = (size_t)(day - source->first_day);
    return n < source->warmup_count ? source->warmup[n] : SOURCE_UNLIMITED;
}
