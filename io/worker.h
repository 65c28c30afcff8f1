/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * worker - one thread, one ring, and everything a session or a delivery needs, shared with nobody.
 *
 * A loop turn: wait for completions or the next deadline, run their handlers, then let the drivers
 * finish the turn: commits are sealed, deliveries started, output submitted, log lines written.
 *
 * Life:   worker_init (main thread) -> worker_start -> ... -> worker_drain -> worker_join ->
 * worker_done Limits: its share of limits.sessions_max, limits.content_memory_max and
 * queue.deliveries_max.
 */
#include "core/base/chain.h"
#include "core/base/config.h"
#include "core/base/entropy.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "io/conn.h"
#include "io/helpers.h"
#include "io/log_sink.h"
#include "io/redis_boot.h"
#include <pthread.h>
#include <stdatomic.h>

struct address_caps;
struct auth_shared;
struct authenticator;
struct dkim_store;
struct signer;
struct submit_driver;
struct queue_driver;
struct relay_driver;
struct return_path_key;
struct rules_store;
struct tls_store;

/* Why no more mail should be sent here now; told before any client is answered 4xx for it. */
enum worker_trouble {
    WORKER_READY,
    WORKER_NO_REDIS,
    WORKER_OVERLOADED, /* sessions, content memory or the commit are near their limits */
};
const char *worker_trouble_name(enum worker_trouble trouble); /* NULL: ready */

/* A bound and listening socket of this worker. */
struct worker_listener {
    const struct config_listener *cfg; /* borrowed */
    int fd;                            /* owned */
};

struct worker {
    uint32_t id; /* 0 .. workers-1 */
    uint32_t worker_count;
    const struct config *cfg;          /* borrowed */
    const struct redis_address *redis; /* borrowed */
    uint16_t shards;
    struct tls_store *tls;                    /* borrowed; NULL: no listener encrypts */
    struct auth_shared *auth_shared;          /* borrowed; NULL: no listener has AUTH */
    const struct return_path_key *return_key; /* borrowed; of return paths */
    struct rules_store *rules;                /* borrowed */
    struct dkim_store *dkim;                  /* borrowed; NULL: nothing is signed */
    _Atomic uint32_t *tenant_sessions;        /* borrowed; of the process, one for each tenant */
    struct address_caps *address_caps; /* borrowed; of the process; NULL: no address is limited */
    int log_fd;                        /* borrowed */
    struct worker_listener *listeners; /* owned */
    size_t listener_count;

    struct ring *ring;
    struct wheel wheel;
    struct now now; /* read once a turn */
    struct entropy entropy;
    struct metrics metrics;
    struct log log;
    struct log_sink sink;
    struct chain_budget budget;
    struct conn_table conns;
    struct helper_inbox inbox;
    struct authenticator *auth; /* owned; NULL: no listener has AUTH */
    struct signer *signer;      /* owned; NULL: nothing is signed */
    struct submit_driver *submit;
    struct queue_driver *queue;
    struct relay_driver *relay;

    pthread_t thread;
    int wake_fd; /* eventfd: another thread has changed an atomic below */
    _Atomic bool drain_wanted;
    _Atomic int trouble;     /* enum worker_trouble; for /readyz */
    _Atomic bool has_failed; /* could not start; `error` says why */
    struct buf error;
    bool is_draining;
    int64_t drain_until_ms; /* monotonic */
    int64_t calm_at_ms;     /* monotonic; when to look at the receive buffers again */
};

/* Takes ownership of listeners. */
void worker_init(struct worker *w, uint32_t id, uint32_t worker_count, const struct config *cfg,
                 const struct redis_address *redis, uint16_t shards, int log_fd,
                 struct worker_listener *listeners, size_t listener_count);
NODISCARD enum status worker_start(struct worker *w);
void worker_drain(struct worker *w); /* any thread; the worker exits within limits.drain_timeout */
/* True when the worker has ended; waits at most that long. */
bool worker_join_within(struct worker *w, uint32_t wait_ms);
void worker_done(struct worker *w);

/* This worker's share of a number that the configuration gives for the process; at least 1. */
static inline uint64_t worker_share(const struct worker *w, uint64_t total)
{
    uint64_t share = total / w->worker_count;
    return share > 0 ? share : 1;
}
