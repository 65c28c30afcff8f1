/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * admin - the HTTP port for machines that watch us: /metrics (Prometheus text), /healthz (the
 * process runs), /readyz (200 while new mail is welcome, else 503 with the reason). libmicrohttpd
 * in a thread of its own; it reads the workers' atomics and never waits for a worker.
 */
#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/base/status.h"

struct admin_view {
    const struct metrics *const *sets; /* borrowed */
    size_t set_count;
    /* NULL when ready, else a short static reason ("draining", "redis"). Called in the admin
     * thread. */
    const char *(*not_ready)(void *ctx);
    void *ctx;
};

struct admin;

NODISCARD enum status admin_start(const struct config_bind *bind, const struct admin_view *view,
                                  struct admin **out, struct buf *error);
uint16_t admin_port(const struct admin *a); /* the real one, when 0 was asked for */
void admin_stop(struct admin *a);
