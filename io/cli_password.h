/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_password - a password for the command line, from where nobody else sees it: a file, a pipe,
 * or a terminal without echo, asked twice. Never from an argument: those are in `ps` and in the
 * shell's history.
 */
#include "core/base/buf.h"

/* Appends it to out, which should hold AUTH_PASSWORD_MAX + 2 octets. path NULL or "-": standard
 * input. False: error says why. */
bool cli_password_read(const char *path, struct buf *out, struct buf *error);
