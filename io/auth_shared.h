/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_shared - what all workers' authenticators have in common, as they see it. The main thread
 * makes and reloads it (io/authenticator.h); everything here is for any thread.
 */
#include "core/smtp/account.h"
#include "core/smtp/jwt.h"
#include "io/authenticator.h"
#include "io/helpers.h"
#include "io/shared_secret.h"

#define AUTH_SECRET_LEN SHARED_SECRET_LEN

struct helpers *auth_shared_helpers(struct auth_shared *s);
/* Users are in a file; else in Redis. */
bool auth_shared_has_users(const struct auth_shared *s);
/* A reference of the caller's; NULL: nobody of that name. */
struct account *auth_shared_find(struct auth_shared *s, struct slice name);
/* Of this process: keys the digests of verified credentials. */
const uint8_t *auth_shared_cache_key(const struct auth_shared *s);
/* Of all nodes that share a Redis: makes up the verifiers of users that do not exist. */
const uint8_t *auth_shared_fake_secret(const struct auth_shared *s);

struct auth_keys; /* the keys that sign tokens, as they were at one time */
/* A reference; NULL: there are none. policy borrows from the configuration. */
struct auth_keys *auth_shared_keys(struct auth_shared *s, struct jwt_policy *policy);
const struct jwt_keys *auth_keys_of(const struct auth_keys *k);
void auth_keys_unref(struct auth_keys *k); /* NULL is harmless */
