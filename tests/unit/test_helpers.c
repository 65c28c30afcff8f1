/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs through helper threads: each comes back once, to its own inbox, in the thread that asked.
 * Built with -Dsanitize=thread this is also where a race would show.
 */
#include "core/base/must.h"
#include "io/helpers.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define JOBS 2000

struct job {
    struct helper_job job;
    uint32_t runs, dones;
    pthread_t ran_in;
    struct gate *gate; /* NULL: runs through */
};

/* Holds helpers until the test opens it. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool is_open;
    uint32_t inside;
};

static void gate_init(struct gate *g)
{
    *g = (struct gate){ .is_open = false };
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
}

static void gate_pass(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->inside++;
    pthread_cond_broadcast(&g->moved);
    while (!g->is_open)
        pthread_cond_wait(&g->moved, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void gate_await(struct gate *g, uint32_t inside)
{
    pthread_mutex_lock(&g->lock);
    while (g->inside < inside)
        pthread_cond_wait(&g->moved, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->is_open = true;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static void run_job(struct helper_job *job)
{
    struct job *j = container_of(job, struct job, job);
    j->ran_in = pthread_self();
    if (j->gate)
        gate_pass(j->gate);
    j->runs++;
}

static void job_done(struct helper_job *job)
{
    container_of(job, struct job, job)->dones++;
}

static void job_init(struct job *j, struct helper_inbox *inbox, struct gate *gate)
{
    *j = (struct job){ .job = { .inbox = inbox, .run = run_job, .done = job_done }, .gate = gate };
}

/* As a worker does: sleeps on its eventfd, then drains. */
static void wait_done(struct helper_inbox *in, const uint32_t *dones, uint32_t want)
{
    uint64_t count;
    for (int i = 0; i < 1000 && *dones < want; i++) {
        struct pollfd woken = { .fd = in->wake_fd, .events = POLLIN };
        assert_true(poll(&woken, 1, 10000) == 1);
        assert_int_equal(read(in->wake_fd, &count, sizeof count), sizeof count);
        helper_inbox_drain(in);
    }
    assert_int_equal(*dones, want);
}

static void open_inbox(struct helper_inbox *in)
{
    helper_inbox_init(in, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static void close_inbox(struct helper_inbox *in)
{
    close(in->wake_fd);
    helper_inbox_done(in);
}

static void a_job_runs_elsewhere_and_comes_back(void **state)
{
    struct helpers *h;
    struct helper_inbox in;
    struct job job;
    open_inbox(&in);
    assert_int_equal(helpers_new(1, 10, &h), STATUS_OK);
    job_init(&job, &in, NULL);
    assert_int_equal(helpers_run(h, &job.job), STATUS_OK);
    wait_done(&in, &job.dones, 1);
    assert_int_equal(job.runs, 1);
    assert_false(pthread_equal(job.ran_in, pthread_self()));
    helpers_free(h);
    close_inbox(&in);
}

/* P-157: what waits is bounded; what runs does not count. */
static void the_queue_is_bounded(void **state)
{
    struct helpers *h;
    struct helper_inbox in;
    struct gate gate;
    struct job jobs[4];
    open_inbox(&in);
    gate_init(&gate);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        job_init(&jobs[i], &in, &gate);
    assert_int_equal(helpers_new(1, 2, &h), STATUS_OK);
    assert_int_equal(helpers_run(h, &jobs[0].job), STATUS_OK);
    gate_await(&gate, 1); /* the only helper is busy with it */
    assert_int_equal(helpers_run(h, &jobs[1].job), STATUS_OK);
    assert_int_equal(helpers_run(h, &jobs[2].job), STATUS_OK);
    assert_int_equal(helpers_run(h, &jobs[3].job), STATUS_FULL);
    gate_open(&gate);
    wait_done(&in, &jobs[2].dones, 1);
    assert_int_equal(jobs[0].dones + jobs[1].dones, 2);
    assert_int_equal(jobs[3].runs + jobs[3].dones, 0);
    assert_int_equal(helpers_run(h, &jobs[3].job), STATUS_OK); /* there is room again */
    wait_done(&in, &jobs[3].dones, 1);
    helpers_free(h);
    close_inbox(&in);
}

static void what_waits_at_the_end_is_dropped(void **state)
{
    struct helpers *h;
    struct helper_inbox in;
    struct gate gate;
    struct job running, waiting;
    open_inbox(&in);
    gate_init(&gate);
    job_init(&running, &in, &gate);
    job_init(&waiting, &in, NULL);
    assert_int_equal(helpers_new(1, 2, &h), STATUS_OK);
    assert_int_equal(helpers_run(h, &running.job), STATUS_OK);
    gate_await(&gate, 1);
    assert_int_equal(helpers_run(h, &waiting.job), STATUS_OK);
    gate_open(&gate);
    helpers_free(h);
    assert_int_equal(running.runs, 1); /* waited for */
    helper_inbox_drain(&in);
    assert_int_equal(running.dones, 1);
    assert_int_equal(waiting.dones, waiting.runs); /* never half of it */
    close_inbox(&in);
}

struct worker_of_test {
    struct helpers *helpers; /* borrowed */
    struct job *jobs;        /* owned: JOBS */
    struct helper_inbox in;
};

static void *work(void *arg)
{
    struct worker_of_test *w = arg;
    uint64_t count;
    uint32_t back = 0, given = 0;
    while (back < JOBS) {
        while (given < JOBS && helpers_run(w->helpers, &w->jobs[given].job) == STATUS_OK)
            given++;
        struct pollfd woken = { .fd = w->in.wake_fd, .events = POLLIN };
        (void)poll(&woken, 1, 10);
        if (read(w->in.wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
            return NULL;
        helper_inbox_drain(&w->in);
        back = 0;
        for (uint32_t i = 0; i < given; i++)
            back += w->jobs[i].dones;
    }
    return w;
}

/* Three workers and three helpers, a queue that is often full. */
static void every_job_comes_back_once_to_its_worker(void **state)
{
    struct helpers *h;
    struct worker_of_test workers[3];
    pthread_t threads[3];
    assert_int_equal(helpers_new(3, 16, &h), STATUS_OK);
    for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
        workers[i].helpers = h;
        workers[i].jobs = mem_zalloc(JOBS * sizeof(struct job));
        open_inbox(&workers[i].in);
        for (size_t j = 0; j < JOBS; j++)
            job_init(&workers[i].jobs[j], &workers[i].in, NULL);
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, &workers[i]);
        for (size_t j = 0; j < JOBS; j++)
            assert_true(workers[i].jobs[j].runs == 1 && workers[i].jobs[j].dones == 1);
        close_inbox(&workers[i].in);
        free(workers[i].jobs);
    }
    helpers_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_runs_elsewhere_and_comes_back),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(what_waits_at_the_end_is_dropped),
        cmocka_unit_test(every_job_comes_back_once_to_its_worker),
    };
    return cmocka_run_group_tests_name("helpers", tests, NULL, NULL);
}
