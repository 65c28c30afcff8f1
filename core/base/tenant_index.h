/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tenant_index - finds a tenant by name in constant time; made once, from the configuration. For
 * who asks once for each delivery.
 */
#include "core/base/config.h"

struct tenant_index {
    const struct config *cfg; /* borrowed */
    uint32_t *cells;          /* owned; a hash table: index into cfg->tenants, plus 1; 0: empty */
    uint32_t mask;
};

void tenant_index_init(struct tenant_index *t, const struct config *cfg);
void tenant_index_done(struct tenant_index *t);
/* Its place in cfg->tenants; cfg->tenant_count: "", or none of them. */
uint32_t tenant_index_find(const struct tenant_index *t, struct slice name);
