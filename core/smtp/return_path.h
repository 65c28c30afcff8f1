/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * return_path - the sender's address that a delivery is given so that what comes back names it
 * (VERP): "b-<queue id>-<shard>-<recipient>-<proof>@bounces.example.org".
 *
 * The proof is 80 bits of an HMAC-SHA256 over the rest, so nobody makes up an address of somebody
 * else's mail. Who has one, which is whoever got the mail, can say that this recipient bounces or
 * complains, and nothing about any other. Letters may come back in either case. Pure.
 */
#include "core/base/config.h"
#include "core/smtp/message.h"

#define RETURN_PATH_KEY_LEN 32
#define RETURN_PATH_LOCAL_MAX                                                                      \
    64 /* octets with a NUL; 56 are needed at most (RFC 5321 4.5.3.1.1)                            \
        */

/* What all nodes that share a Redis have in common. */
struct return_path_key {
    uint8_t octets[RETURN_PATH_KEY_LEN];
};

/* Which recipient of which message. */
struct return_path {
    char id[QUEUE_ID_LEN + 1];
    uint16_t shard;
    uint32_t rcpt; /* index into the message's recipients */
};

/* The local part, with a NUL. path->id is valid. */
void return_path_make(const struct return_path_key *key, const struct return_path *path,
                      char out[RETURN_PATH_LOCAL_MAX]);
/* False: it is no local part of ours. */
bool return_path_read(const struct return_path_key *key, struct slice local,
                      struct return_path *out);
/* True when it has the form of one; who has the key looks closer. */
bool return_path_is_likely(struct slice local);

/* The domain that mail of this tenant comes back to; NULL: it keeps the sender's own address. */
const char *return_path_domain(const struct config *cfg, struct slice tenant);
/* True when it is one of those, of any tenant. */
bool return_path_is_domain(const struct config *cfg, struct slice domain);
/* True when it is for a human being, and there is one. */
bool return_path_is_postmaster(const struct config *cfg, struct slice local);
/* True when it is the mailbox for feedback reports, at a domain of the above. */
bool return_path_is_complaints(const struct config *cfg, struct slice local);
