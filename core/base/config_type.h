/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * config_type - how each type of setting is read from a value of the file, stored in its field and
 * freed.
 */
#include "core/base/config_check.h"

/* Reads node as the row's type into the row's field of base (a struct config, config_listener or
 * config_route). False: it has complained and the field is safe to free. */
NODISCARD bool config_type_set(struct config_reader *r, const struct setting *row, void *base,
                               const struct ucl_node *node);
void config_type_free(const struct setting *row, void *base);
char *config_type_copy(struct slice text); /* as a C string; free() it */
