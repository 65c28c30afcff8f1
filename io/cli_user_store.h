/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_user_store - the users as `kilat user` changes them, wherever they are kept: one change at a
 * time, whole or not at all.
 */
#include "core/smtp/account.h"
#include "io/auth_users.h"
#include "io/cli_redis.h"

struct user_store {
    const struct config *cfg; /* borrowed */
    struct buf error;         /* one line, when something failed */
    struct buf text;          /* of the file */
    char *path;               /* owned: of the file itself, behind links; NULL: Redis */
    int folder;               /* locked while we write; -1: not */
    bool is_new;              /* there is no file yet */
    struct auth_users *users; /* owned: what is there, of a file */
    struct cli redis;
    bool has_redis;
};

/* For writing: others who write wait. False: error says why. user_store_close ends it either way.
 */
bool user_store_open(struct user_store *s, const struct config *cfg, bool for_writing);
void user_store_close(struct user_store *s);
/* The caller's reference; NULL: nobody of that name, or, with s->error filled, failed. */
struct account *user_store_find(struct user_store *s, struct slice name);
/* Adds it, or replaces the one of its name. */
bool user_store_put(struct user_store *s, const struct account *a);
bool user_store_remove(struct user_store *s, struct slice name);
/* All of them by name; borrowed until user_store_close. False: error says why. */
bool user_store_load(struct user_store *s);
