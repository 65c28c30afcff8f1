/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * smtp_server - what a session needs around it, for tests: a server with small limits, a seeded
 * source of chance, a clock that stands still until it is told to move.
 */
#include "core/base/must.h"
#include "core/smtp/session.h"
#include <stdlib.h>

#define TEST_WALL_MS INT64_C(1763856000000) /* Sun, 23 Nov 2025 00:00:00 +0000 */
#define TEST_DATE    "Sun, 23 Nov 2025 00:00:00 +0000"

struct test_server {
    struct smtp_server server;
    struct smtp_service service; /* a trusted listener without TLS; change it before the session */
    struct config cfg;
    struct entropy entropy;
    uint64_t seed;
    struct metrics metrics;
    struct chain_budget budget;
    struct now now;
};

static inline void test_server_init(struct test_server *t)
{
    memset(t, 0, sizeof *t);
    t->seed = 1;
    t->budget.max = 64 * 1024 * 1024;
    t->now = (struct now){ .mono_ms = 1000000, .wall_ms = TEST_WALL_MS };
    entropy_init_seeded(&t->entropy, &t->seed);
    t->server = (struct smtp_server){
        .limits = {
            .message_size_max = 10000,
            .recipients_max = 100,
            .errors_max = 10,
            .received_max = 50,
            .auth_attempts_max = 3,
            .hold_max_ms = 7 * 86400000LL,
            .deliver_by_min_s = 60,
            .header_size_max = 4000,
            .command_timeout_ms = 300000,
            .data_timeout_ms = 180000,
            .session_timeout_ms = 3600000,
            .transaction_timeout_ms = 1800000,
        },
        .hostname = SLICE("mx.test"),
        .entropy = &t->entropy,
        .metrics = &t->metrics,
        .budget = &t->budget,
    };
    t->service = (struct smtp_service){ .server = &t->server, .cfg = &t->cfg, .lane = LANE_NORMAL };
}

static inline void test_server_pass_ms(struct test_server *t, int64_t ms)
{
    t->now.mono_ms += ms;
    t->now.wall_ms += ms;
}

/* The octets of a chain in one piece with a NUL behind them; free() it. */
static inline char *test_flatten(const struct chain *c)
{
    char *text = mem_alloc(c->len + 1);
    size_t len = 0;
    for (const struct chain_seg *seg = c->head; seg; seg = seg->next) {
        memcpy(text + len, seg->data, seg->len);
        len += seg->len;
    }
    must(len == c->len);
    text[len] = '\0';
    return text;
}
