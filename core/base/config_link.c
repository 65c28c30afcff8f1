/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_link - what names in a configuration that was found good stand for.
 */
#include "core/base/config_check.h"

void config_link_sources(const struct config *cfg, struct config_route *route)
{
    bool is_own = route->source_count > 0 || route->relay != RELAY_MX;
    char *const *names = is_own ? route->sources : cfg->relay.sources;
    size_t count = is_own ? route->source_count : cfg->relay.source_count;
    for (size_t i = 0; i < count; i++)
        route->source_set |= UINT64_C(1)
                             << (config_find_source(cfg, slice_str(names[i])) - cfg->sources);
}
