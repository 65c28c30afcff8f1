/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * authenticator - knows the users: answers the questions of SASL exchanges for one worker.
 *
 * Users come from a file that all workers share (read again when it changes) or from Redis, one
 * lookup each. Passwords are computed by the helper threads, never by the worker; one that was
 * right is remembered for auth.cache_ttl as a keyed digest. Failures are counted in Redis, per
 * client address and per user, for all nodes together; with Redis out of reach the answer is DOWN
 * for users in Redis, and counting rests for users in a file. Every refusal takes
 * auth.failure_delay.
 *
 * Metrics auth_ok_total and auth_failed_total, and the log's auth.failed, are counted and written
 * here, once for each question that lets in or refuses.
 */
#include "core/smtp/account.h"
#include "io/worker.h"

struct auth_shared; /* of the process: the users file, the token keys, the helper threads */

/* Error: what is wrong in which file and line. */
NODISCARD enum status auth_shared_new(const struct config *cfg, struct auth_shared **out,
                                      struct buf *error);
void auth_shared_free(struct auth_shared *s); /* after the last worker; NULL is harmless */
/* Before the workers: takes the secret that all nodes of this Redis share, so that users who do not
 * exist look the same everywhere (P-148). Blocks. */
NODISCARD enum status auth_shared_adopt(struct auth_shared *s, const struct redis_address *addr,
                                        struct buf *error);
/* Reads the files again; what was loaded stays when they are bad. */
NODISCARD enum status auth_shared_reload(struct auth_shared *s, struct buf *error);
bool auth_shared_has_changed(const struct auth_shared *s);
/* Mechanisms that can work here: a listener offers these of its own. Bits of enum auth_mechanism.
 */
uint32_t auth_shared_mechanisms(const struct auth_shared *s);

struct authenticator; /* of a worker */
struct authenticator *authenticator_new(struct worker *w, struct auth_shared *shared);
void authenticator_free(struct authenticator *a);
void authenticator_pump(
    struct authenticator *a); /* answers of helper threads; when woken and each turn */

struct auth_ask;
/* Exactly once, later, unless forgotten. The callee takes answer->account's reference. */
typedef void auth_answer_fn(void *owner, const struct sasl_answer *answer);
/* request is copied; client: the address that failures are counted for. */
struct auth_ask *authenticator_ask(struct authenticator *a, const struct sasl_request *request,
                                   struct slice client, auth_answer_fn *fn, void *owner);
void authenticator_forget(struct auth_ask *ask); /* the owner is gone */
