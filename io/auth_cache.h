/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_cache - digests of credentials that were right, each for a while; of one worker.
 *
 * A digest is a keyed one of everything that the answer depends on (digest_of in authenticator.c),
 * so nothing is ever taken out because a password has changed: the old digest is simply not asked
 * for any more.
 */
#include <stdbool.h>
#include <stdint.h>

#define AUTH_DIGEST_LEN 32

struct auth_cache;

struct auth_cache *auth_cache_new(uint32_t max, uint32_t ttl_ms); /* either 0: it forgets all */
void auth_cache_free(struct auth_cache *c);
/* now_ms: monotonic. Being asked for does not prolong anything. */
bool auth_cache_has(struct auth_cache *c, const uint8_t digest[AUTH_DIGEST_LEN], int64_t now_ms);
void auth_cache_put(struct auth_cache *c, const uint8_t digest[AUTH_DIGEST_LEN], int64_t now_ms);
uint32_t auth_cache_count(const struct auth_cache *c);
