/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * redis_link - one Redis connection as a codec: requests out, replies matched in order.
 *
 * hiredis' reader parses; the driver (io/drive_redis.c) moves the bytes. A request is owned by
 * whoever made it and stays alive until its on_reply was called, which happens exactly once, also
 * when the link is lost.
 */
#include "core/base/gather.h"
#include "core/base/list.h"
#include <hiredis/hiredis.h>

struct redis_request;

/* reply NULL: the link was lost, and what became of the request is unknown. The reply is freed
 * after the call. */
typedef void redis_reply_fn(struct redis_request *req, const redisReply *reply);

struct redis_request {
    struct list node; /* the link's, until on_reply */
    redis_reply_fn *on_reply;
    uint32_t replies; /* replies it will get; on_reply sees the last one (1 for a plain command,
                         n + 2 for MULTI, n commands, EXEC) */
    uint32_t replies_seen;
    char error[128]; /* first error reply before the last one (EXECABORT's cause); "" none */
};

struct redis_link {
    struct list pending; /* requests, oldest first */
    uint32_t pending_count;
    redisReader *reader; /* owned */
};

void redis_link_init(struct redis_link *l);
void redis_link_done(struct redis_link *l); /* pending must be empty: call redis_link_lost first */
/* Expects the replies of a request whose bytes the caller is about to send. Push BEFORE sending:
 * Redis answers +QUEUED while the rest is still on its way. */
void redis_link_push(struct redis_link *l, struct redis_request *req, uint32_t replies,
                     redis_reply_fn *on_reply);
/* BAD: not Redis protocol, or a reply nobody awaits; drop the connection. */
NODISCARD enum status redis_link_feed(struct redis_link *l, struct slice in);
void redis_link_lost(
    struct redis_link *l); /* answers every pending request with NULL; resets the reader */

/* Appends one command in RESP. */
void redis_command(struct gather *out, const struct slice *argv, size_t argc);
/* For commands whose last argument is a body: header now, then gather_ref the body's parts (octets
 * in all), then redis_command_end. */
void redis_command_begin(struct gather *out, size_t argc);
void redis_arg(struct gather *out, struct slice arg);
void redis_arg_num(struct gather *out, int64_t n);
void redis_arg_open(struct gather *out,
                    size_t octets);       /* "$octets\r\n"; then the octets themselves */
void redis_arg_close(struct gather *out); /* "\r\n" */
