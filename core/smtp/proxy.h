/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * proxy - the header that a load balancer writes in front of a connection: PROXY protocol, versions
 * 1 (text) and 2 (binary), as HAProxy's proxy-protocol.txt describes it (P-254, P-255).
 *
 * Pure, and without state: it is given all octets that have come so far and says whether they are
 * a whole header, the beginning of one, or none. What follows the header is the client's and is
 * not looked at.
 */
#include "core/base/slice.h"
#include <stdbool.h>
#include <sys/socket.h>

#define PROXY_HEADER_MAX 536 /* octets: 16, addresses and about 500 of TLVs; more is refused */

enum proxy_result {
    PROXY_MORE, /* so far it is one */
    PROXY_DONE,
    PROXY_BAD, /* it is none, and never will be */
};

struct proxy_header {
    bool is_local;   /* the balancer speaks for itself: a health check */
    bool has_source; /* False for LOCAL, UNKNOWN, AF_UNSPEC, AF_UNIX: the connection's own address
                        counts */
    struct sockaddr_storage source, destination; /* with has_source; AF_INET or AF_INET6 */
};

/* With DONE, *used is the header's length and *out is set. */
enum proxy_result proxy_parse(struct slice in, size_t *used, struct proxy_header *out);
