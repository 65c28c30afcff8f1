/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * node_private - what the files of the main thread share, and what check.c, which asks whether it
 * would start, wants of them.
 *
 *     node.c         start, running, end; the log
 *     node_listen.c  listening sockets
 *     node_files.c   files that are read again when they change
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/base/status.h"
#include "core/smtp/return_path.h"
#include "io/redis_boot.h"
#include <stdatomic.h>

struct worker_listener;

#define NODE_ERROR_MAX 2048 /* octets of a message for the operator */

struct node {
    const struct config *cfg; /* borrowed */
    struct worker *workers;   /* owned */
    uint32_t worker_count;
    struct redis_address redis;
    struct redis_child *child; /* owned; NULL with an external Redis */
    uint16_t shards;
    struct tls_store *tls;             /* owned; NULL: no listener encrypts */
    struct return_path_key return_key; /* as all nodes have it, once Redis is there */
    struct auth_shared *auth;          /* owned; NULL: no listener has AUTH */
    struct rules_store *rules;         /* owned */
    struct dkim_store *dkim;           /* owned; NULL: nothing is signed */
    _Atomic uint32_t *tenant_sessions; /* owned; one for each tenant */
    struct address_caps *address_caps; /* owned; NULL: no address is limited */
    struct admin *admin;               /* owned; NULL without an admin port */
    const struct metrics **sets;
    int log_fd;
    struct log log; /* the main thread's few lines */
    struct now now;
    _Atomic bool is_draining;
    struct buf error;
};

uint32_t node_worker_count(const struct config *cfg); /* one per core where it says 0 */
void node_raise_file_limit(void);                     /* as many as the system lets us have */

/* A line of the main thread's: node_line, fields by log_*, node_line_end. */
void node_line(struct node *n, enum log_level level, const char *event);
void node_line_end(struct node *n);

/* node_listen.c */

size_t node_bind_count(const struct config *cfg); /* addresses of all listeners */
/* Binds each of them for each worker; sets[w][i] is that of worker w. SYSTEM: n->error says why. */
NODISCARD enum status node_bind_all(struct node *n, struct worker_listener **sets);

/* node_files.c; BAD, SYSTEM: n->error says why. */

NODISCARD enum status node_load_tls(struct node *n);
NODISCARD enum status node_load_users(struct node *n);
NODISCARD enum status node_load_dkim(struct node *n);
/* Reads again what has changed, or all when it was asked for. */
void node_watch_files(struct node *n, bool is_asked);
bool node_needs_users(const struct config *cfg); /* a listener has AUTH */
