/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_call - one question of the authenticator to Redis, with an end to its patience.
 */
#include "io/worker.h"
#include <hiredis/hiredis.h>

#define AUTH_CALL_PATIENCE_MS 5000

/* Once, later, unless forgotten. NULL: Redis was lost, or has not answered in time. May be an error
 * reply. */
typedef void auth_reply_fn(void *owner, const redisReply *reply);

struct auth_call;

/* NULL: Redis is out of reach; fn is not called. */
struct auth_call *auth_call_new(struct worker *w, const struct slice *argv, size_t argc,
                                auth_reply_fn *fn, void *owner);
/* A call nobody waits for: its answer is not wanted. */
void auth_call_forget(struct auth_call *c); /* NULL is harmless; not after fn */
