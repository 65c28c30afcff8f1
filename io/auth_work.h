/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_work - passwords and tokens on their way through the helper threads; of one worker.
 *
 * Who waits for the same answer waits together: a login storm with the same credentials computes
 * once.
 */
#include "core/base/clock.h"
#include "core/smtp/account.h"
#include "core/smtp/jwt.h"
#include "io/auth_cache.h"
#include "io/auth_shared.h"
#include "io/helpers.h"

struct auth_outcome {
    bool is_right;
    enum jwt_verdict verdict; /* of a token */
    struct slice user;        /* of a good token */
};

struct auth_works {
    struct helpers *helpers;    /* borrowed */
    struct helper_inbox *inbox; /* borrowed */
    struct auth_shared *shared; /* borrowed */
    struct list running;        /* struct auth_work that may be joined */
    uint32_t out;               /* jobs not yet back */
};

struct auth_waiter;
typedef void auth_outcome_fn(struct auth_waiter *waiter, const struct auth_outcome *outcome);
struct auth_waiter {
    struct list node;       /* on a work's list while it waits */
    struct auth_work *work; /* borrowed; NULL: waits for nothing */
    auth_outcome_fn *fn;
};

void auth_works_init(struct auth_works *all, struct auth_shared *shared,
                     struct helper_inbox *inbox);
/* Blocks until the helpers have given back what is theirs; nobody may wait any more. */
void auth_works_done(struct auth_works *all);

/* The waiter's fn is called once, from helper_inbox_drain, unless it leaves. FULL: too many wait.
 * account may be NULL (referenced here while it runs); the digest tells equal questions. */
NODISCARD enum status auth_work_password(struct auth_works *all, struct auth_waiter *waiter,
                                         const uint8_t digest[AUTH_DIGEST_LEN],
                                         struct account *account, struct slice password);
NODISCARD enum status auth_work_token(struct auth_works *all, struct auth_waiter *waiter,
                                      const uint8_t digest[AUTH_DIGEST_LEN], struct slice token,
                                      const struct now *now);
void auth_waiter_leave(struct auth_waiter *waiter); /* harmless when it waits for nothing */
