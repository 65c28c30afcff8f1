/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers - one queue, a few threads that take from it, and an inbox for each worker.
 *
 *     worker: helpers_run -> [waiting] -> helper: run -> [inbox] -> worker: helper_inbox_drain:
 * done
 *
 * Jobs are taken in the order they came. A job belongs to the queue from helpers_run until its
 * done; its maker must not free it, or the inbox, before. Who wants to go earlier marks the job
 * (an atomic of its own that `run` looks at) and waits for it to come back: authenticator_free.
 *
 * helpers_free comes after the last worker, so nothing should wait any more. What does is dropped:
 * neither run nor done is called, since the worker that would own the job again is gone.
 *
 * Limits: `threads`, and waiting_max jobs that wait; jobs that run and jobs in inboxes are bounded
 * by what their makers have waited for. Inboxes are locked only to link or unlink.
 */
#include "io/helpers.h"
#include "core/base/must.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct helpers {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list waiting; /* struct helper_job, oldest first */
    uint32_t waiting_count, waiting_max;
    bool is_ending;
    pthread_t *threads; /* owned */
    uint32_t thread_count;
};

/* --- inboxes --------------------------------------------------------------------------------- */

void helper_inbox_init(struct helper_inbox *in, int wake_fd)
{
    must(pthread_mutex_init(&in->lock, NULL) == 0);
    list_init(&in->done);
    in->wake_fd = wake_fd;
}

void helper_inbox_done(struct helper_inbox *in)
{
    must(list_is_empty(&in->done));
    pthread_mutex_destroy(&in->lock);
}

static void give_back(struct helper_job *job)
{
    struct helper_inbox *in = job->inbox;
    uint64_t one = 1;
    pthread_mutex_lock(&in->lock);
    list_push_back(&in->done, &job->node);
    /* Inside the lock: once a job is seen its worker may end, and its eventfd with it. A full
     * counter has woken it already. */
    if (write(in->wake_fd, &one, sizeof one) < 0) {
    }
    pthread_mutex_unlock(&in->lock);
}

void helper_inbox_drain(struct helper_inbox *in)
{
    struct list done, *node;
    list_init(&done);
    pthread_mutex_lock(&in->lock);
    list_append_all(&done, &in->done);
    pthread_mutex_unlock(&in->lock);
    while ((node = list_pop_front(&done))) {
        struct helper_job *job = list_entry(node, struct helper_job, node);
        job->done(job);
    }
}

/* --- threads --------------------------------------------------------------------------------- */

/* The next job; NULL: the end. */
static struct helper_job *take(struct helpers *h)
{
    pthread_mutex_lock(&h->lock);
    while (list_is_empty(&h->waiting) && !h->is_ending)
        pthread_cond_wait(&h->work, &h->lock);
    struct list *node = h->is_ending ? NULL : list_pop_front(&h->waiting);
    if (node)
        h->waiting_count--;
    pthread_mutex_unlock(&h->lock);
    return node ? list_entry(node, struct helper_job, node) : NULL;
}

static void *run(void *arg)
{
    struct helpers *h = arg;
    struct helper_job *job;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while ((job = take(h))) {
        job->run(job);
        give_back(job);
    }
    return NULL;
}

enum status helpers_new(uint32_t threads, uint32_t waiting_max, struct helpers **out)
{
    struct helpers *h = mem_zalloc(sizeof *h);
    must(pthread_mutex_init(&h->lock, NULL) == 0 && pthread_cond_init(&h->work, NULL) == 0);
    list_init(&h->waiting);
    h->waiting_max = waiting_max;
    h->threads = mem_zalloc(threads * sizeof *h->threads);
    while (h->thread_count < threads &&
           pthread_create(&h->threads[h->thread_count], NULL, run, h) == 0)
        h->thread_count++;
    if (h->thread_count < threads) {
        helpers_free(h);
        return STATUS_SYSTEM;
    }
    *out = h;
    return STATUS_OK;
}

void helpers_free(struct helpers *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->is_ending = true;
    pthread_cond_broadcast(&h->work);
    pthread_mutex_unlock(&h->lock);
    for (uint32_t i = 0; i < h->thread_count; i++)
        pthread_join(h->threads[i], NULL);
    while (list_pop_front(&h->waiting)) {
    }
    pthread_cond_destroy(&h->work);
    pthread_mutex_destroy(&h->lock);
    free(h->threads);
    free(h);
}

enum status helpers_run(struct helpers *h, struct helper_job *job)
{
    enum status st = STATUS_FULL;
    pthread_mutex_lock(&h->lock);
    if (h->waiting_count < h->waiting_max) {
        list_push_back(&h->waiting, &job->node);
        h->waiting_count++;
        pthread_cond_signal(&h->work);
        st = STATUS_OK;
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}
