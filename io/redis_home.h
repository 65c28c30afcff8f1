/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * redis_home - data_dir/redis, the folder of the embedded server. Private to redis_child.c.
 *
 *     lock            flock, held by us and by the server
 *     redis.conf      written at every start
 *     r.sock          where the server listens
 *     redis.log       what it says, its stderr too
 *     appendonlydir   the queue
 */
#include "core/base/buf.h"
#include <sys/types.h>

#define REDIS_HOME_DIR    "redis"  /* in data_dir */
#define REDIS_HOME_SOCKET "r.sock" /* short: a Unix socket's path has 107 octets */

struct redis_home {
    char *dir;       /* owned; absolute */
    char *conf;      /* owned; dir/redis.conf */
    char *log;       /* owned; dir/redis.log */
    int lock_fd;     /* held until redis_home_close; -1: not held */
    off_t log_start; /* where the running server's part of the log begins */
};

void redis_home_init(struct redis_home *h);
/* Makes the folder where it is missing. */
NODISCARD enum status redis_home_open(struct redis_home *h, const char *data_dir,
                                      struct buf *error);
void redis_home_close(struct redis_home *h); /* lets go of the lock */
/* Waits at most wait_ms for another holder. REFUSED: error says who it is. */
NODISCARD enum status redis_home_lock(struct redis_home *h, uint32_t wait_ms, struct buf *error);
/* Notes who holds the lock, for the error of another gateway. */
void redis_home_sign(const struct redis_home *h, pid_t server);
/* maxmemory in octets; 0: no limit. */
NODISCARD enum status redis_home_write_conf(const struct redis_home *h, uint64_t maxmemory,
                                            struct buf *error);
/* Opens the log for a server that is about to start; -1: errno says why. The caller closes. */
int redis_home_open_log(struct redis_home *h);
/* Adds the last lines of the running server's log to an error. */
void redis_home_append_log(const struct redis_home *h, struct buf *error);
