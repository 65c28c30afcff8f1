/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_hash - makes and checks what is stored of a password. Slow by intent: for helper threads
 * and the command line, never in a worker.
 */
#include "core/smtp/account.h"

#define AUTH_PASSWORD_MAX 1024 /* octets */

/* Gives the account (nobody else may know it yet) hashes of this password, from fresh salts; those
 * that are not wanted are taken away. SYSTEM: no memory or no chance to be had. */
NODISCARD enum status auth_hash_set(struct account *a, struct slice password, bool argon2,
                                    bool scram);
/* NULL: there is no such account; that takes as long, and is false. */
bool auth_hash_is_right(const struct account *a, struct slice password);
