/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * helpers - a few threads for what would block a worker: passwords, mostly.
 *
 * A job is made by a worker, run by a helper, and comes back to that worker: it lands in its inbox
 * and the worker is woken by its eventfd. Jobs that wait are bounded.
 */
#include "core/base/list.h"
#include "core/base/status.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct helper_inbox { /* one per worker */
    pthread_mutex_t lock;
    struct list done; /* struct helper_job */
    int wake_fd;      /* borrowed: the worker's eventfd */
};
void helper_inbox_init(struct helper_inbox *in, int wake_fd);
void helper_inbox_done(struct helper_inbox *in);

struct helper_job {
    struct list node;
    struct helper_inbox *inbox;           /* borrowed */
    void (*run)(struct helper_job *job);  /* in a helper thread; touches nothing but the job */
    void (*done)(struct helper_job *job); /* in the worker; owns the job again */
};

struct helpers;
NODISCARD enum status helpers_new(uint32_t threads, uint32_t waiting_max, struct helpers **out);
void helpers_free(struct helpers *h); /* waits for the running jobs, drops the waiting ones after
                                         run was skipped: done is not called; see helpers.c */
/* FULL: too many wait. */
NODISCARD enum status helpers_run(struct helpers *h, struct helper_job *job);
/* In the worker: calls done of what has come back. */
void helper_inbox_drain(struct helper_inbox *in);
