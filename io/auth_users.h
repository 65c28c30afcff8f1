/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_users - the users of one file: made whole, never changed, found by name.
 */
#include "core/smtp/account.h"

struct auth_users;

/* BAD: error holds one line "PATH:LINE: what is wrong". */
NODISCARD enum status auth_users_parse(const char *path, struct slice text, struct auth_users **out,
                                       struct buf *error);
/* The same of lines that came page by page from Redis: of one name several times the last counts.
 */
NODISCARD enum status auth_users_collect(const char *path, struct slice text,
                                         struct auth_users **out, struct buf *error);
void auth_users_free(struct auth_users *u); /* its references; NULL is harmless */
/* Borrowed; NULL: nobody of that name. */
struct account *auth_users_find(const struct auth_users *u, struct slice name);
size_t auth_users_count(const struct auth_users *u);
/* In the order of their names. */
struct account *auth_users_at(const struct auth_users *u, size_t i);
