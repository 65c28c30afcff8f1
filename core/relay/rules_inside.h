/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * rules_inside - what the reader of rules (rules.c) and the search (rules_find.c) share. Nobody
 * else includes it.
 */
#include "core/relay/rules.h"

static inline char reply_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* "5.1.1"; of a pattern also "x.7.x". */
bool reply_status_is_valid(struct slice s, bool is_pattern);
