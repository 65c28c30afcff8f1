/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * hosts_file - the names of /etc/hosts, read once at start: for smarthosts, never for MX delivery.
 */
#include "core/base/slice.h"
#include <sys/socket.h>

#define HOSTS_FILE_ROWS_MAX 10000 /* name-address pairs; the rest is left out */

struct hosts_row {
    char *name; /* owned */
    struct sockaddr_storage addr;
    socklen_t addr_len;
};

struct hosts_file {
    struct hosts_row *rows; /* owned; in the file's order */
    size_t count;
};

/* A file that is missing or unreadable is an empty one. */
void hosts_file_load(struct hosts_file *h, const char *path);
void hosts_file_done(struct hosts_file *h);
/* The next row of that name (any case) at or after *at; NULL: none. Begin with *at = 0. */
const struct hosts_row *hosts_file_next(const struct hosts_file *h, struct slice name, size_t *at);

/* An address as text ("192.0.2.1", "2001:db8::1", "[2001:db8::1]") into addr, port 0. */
bool hosts_parse_address(const char *text, struct sockaddr_storage *addr, socklen_t *addr_len);
