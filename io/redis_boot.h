/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * redis_boot - before any worker runs: is there a Redis that can keep our promises? Runs on the
 * main thread and blocks (hiredis' synchronous calls, bounded by timeouts).
 *
 * embedded: starts `redis-server` as a private child in data_dir/redis on a Unix socket and watches
 * it. A lock file held by both processes tells a second gateway, or a restarted one, that the old
 * server still runs: it waits for its end (bounded), then starts its own. The child ends with its
 * parent. external: connects by URL, checks version, eviction policy, AOF and appendfsync, refuses
 * what was not named in redis.accept_risk. Both: loads the functions, fixes the shard count in
 * {cfg} or adopts the one that is there.
 */
#include "core/base/config.h"
#include "core/base/status.h"
#include <hiredis/hiredis.h>

struct redis_address {
    bool is_unix;
    char path[108];               /* unix */
    struct sockaddr_storage addr; /* TCP; resolved */
    socklen_t addr_len;
    char *user, *password; /* owned; NULL: none */
    int db;
};

/* Parses redis://[user:pass@]host[:port][/db] or unix://path; error says what is wrong. */
NODISCARD enum status redis_address_parse(const char *url, struct redis_address *out,
                                          struct buf *error);
void redis_address_done(struct redis_address *a);
/* Where the configured Redis listens, without contacting it. */
NODISCARD enum status redis_address_of(const struct config *cfg, struct redis_address *out,
                                       struct buf *error);

struct redis_child; /* the embedded server */

/* Starts the embedded server and waits until it answers (loading a large AOF takes a while: waits
 * as long as it says LOADING). Call from the main thread: the child ends when that thread does. */
NODISCARD enum status redis_child_start(const struct config *cfg, struct redis_child **out,
                                        struct buf *error);

/* How long a start is patient; the default suits a gateway, tests are in a hurry. */
struct redis_child_waits {
    uint32_t lock_ms;   /* for an old server, or another gateway, to let go of data_dir/redis */
    uint32_t answer_ms; /* for any word of the server; "loading" is one */
};
extern const struct redis_child_waits redis_child_waits_default;
NODISCARD enum status redis_child_start_within(const struct config *cfg,
                                               const struct redis_child_waits *waits,
                                               struct redis_child **out, struct buf *error);
/* Call when SIGCHLD came, and about once a second while redis_child_pid is 0: true when the server
 * had ended and was started again. A server that ends again and again within seconds is started
 * after a growing wait (1 to 30 s), which a later call ends. note (may be NULL) gets one line of
 * what happened, "" when nothing did. Never blocks, does not wait for readiness: workers reconnect
 * by themselves. */
bool redis_child_reap(struct redis_child *c, char *note, size_t note_len);
/* SIGTERM, waits for a clean end (bounded), then frees. */
void redis_child_stop(struct redis_child *c);
int redis_child_pid(const struct redis_child *c); /* 0: not running just now */

/* Checks settings, loads the functions, fixes or adopts the shard count. */
NODISCARD enum status redis_boot(const struct config *cfg, const struct redis_address *addr,
                                 uint16_t *shards, struct buf *error);
/* A blocking client for the command line tools; NULL with error set when it cannot connect. */
redisContext *redis_connect_blocking(const struct redis_address *addr, struct buf *error);
