/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_file - a file of users or keys: read whole, and recognised when it has changed.
 */
#include "core/base/buf.h"

#define AUTH_FILE_MAX (128 * 1024 * 1024) /* octets; some 400,000 users */

/* Appends the whole file. SYSTEM, BAD (too large): error says which file. */
NODISCARD enum status auth_file_read(const char *path, struct buf *out, struct buf *error);

/* What tells one state of a file from another; all zero: there is none. */
struct auth_stamp {
    uint64_t device, inode;
    int64_t size, changed_ns;
};
struct auth_stamp auth_stamp_of(const char *path); /* NULL: all zero */
bool auth_stamp_eq(struct auth_stamp a, struct auth_stamp b);
