/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * address_caps - how many sessions one client address has, and how many handshakes a second it may
 * cost us (P-116, P-135); one table for the process, for any thread.
 *
 * A session enters once, when its address is known, and leaves when its connection is gone. An IPv4
 * address counts by itself, however it is written; of an IPv6 address the first 64 bits count,
 * because one client has all the rest. What has no IP address is never counted.
 *
 * Limits: four places for each of limits.sessions_max, in rows of eight. An address that finds its
 * row full is let in uncounted: the limits of the process hold for it.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct address_caps;

struct address_limits {
    uint32_t sessions;   /* of one address at once; 0: any number */
    uint32_t per_second; /* TLS connections of one address that begin; 0: any number */
};

enum address_verdict { ADDRESS_WELCOME, ADDRESS_TOO_MANY, ADDRESS_TOO_FAST };

/* NULL: nothing is limited, and there is nothing to ask. */
struct address_caps *address_caps_new(const struct address_limits *limits, uint32_t sessions_max);
void address_caps_free(struct address_caps *caps); /* NULL is harmless */

/*
 * costs_handshake: the session is going to speak TLS. *ticket is for address_caps_leave, and 0 when
 * the session was not counted: because it is not welcome, or for want of room. caps may be NULL.
 */
enum address_verdict address_caps_enter(struct address_caps *caps, const struct sockaddr *addr,
                                        bool costs_handshake, int64_t mono_ms, uint32_t *ticket);
void address_caps_leave(struct address_caps *caps, uint32_t ticket); /* 0 is harmless */
