/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_work - one computation, and who waits for it.
 *
 *     worker: start -> helper: run -> worker: come_back -> every waiter's fn
 *
 * While it runs the helper alone reads `in` and writes `outcome` and `token_user`; the worker
 * touches only the list of waiters and the one atomic between them. When the last waiter leaves,
 * the job is marked and the helper skips it: a client that hangs up costs nothing more.
 *
 * Secrets are copies of their own and wiped with the work.
 *
 * Limits: auth.waiting_max works wait in the process (helpers.h); joining one needs no place in
 * that queue, and is bounded by the sessions. The search for one to join walks what is running.
 */
#include "io/auth_work.h"
#include "core/base/must.h"
#include "io/auth_hash.h"

#include <openssl/mem.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define TOKEN_USER_MAX 1024
#define LOOK_MS        100

struct auth_work {
    struct helper_job job;
    struct list node; /* in auth_works.running */
    struct auth_works *all;
    struct list waiters; /* struct auth_waiter */
    uint8_t digest[AUTH_DIGEST_LEN];
    _Atomic bool is_unwanted;
    struct {
        struct account *account; /* one reference; NULL: nobody */
        struct auth_keys *keys;  /* one reference; a token's */
        struct jwt_policy policy;
        struct now now;
        char *secret; /* owned */
        size_t secret_len;
    } in;
    struct buf token_user;
    struct auth_outcome outcome;
};

void auth_works_init(struct auth_works *all, struct auth_shared *shared, struct helper_inbox *inbox)
{
    *all = (struct auth_works){ .helpers = auth_shared_helpers(shared),
                                .inbox = inbox,
                                .shared = shared };
    list_init(&all->running);
}

static void mark_all(struct auth_works *all)
{
    list_for_each (node, &all->running) {
        struct auth_work *work = list_entry(node, struct auth_work, node);
        must(list_is_empty(&work->waiters));
        atomic_store(&work->is_unwanted, true);
    }
}

void auth_works_done(struct auth_works *all)
{
    uint64_t count;
    mark_all(all);
    for (;;) {
        struct pollfd woken = { .fd = all->inbox->wake_fd, .events = POLLIN };
        helper_inbox_drain(all->inbox);
        if (all->out == 0)
            return;
        /* Whatever woke us, the inbox is looked at again. */
        if (poll(&woken, 1, LOOK_MS) > 0 && read(woken.fd, &count, sizeof count) < 0) {
        }
    }
}

static void work_free(struct auth_work *work)
{
    list_remove(&work->node);
    account_unref(work->in.account);
    auth_keys_unref(work->in.keys);
    OPENSSL_cleanse(work->in.secret, work->in.secret_len);
    free(work->in.secret);
    buf_done(&work->token_user);
    free(work);
}

/* --- in a helper thread ---------------------------------------------------------------------- */

static void run_password(struct helper_job *job)
{
    struct auth_work *work = container_of(job, struct auth_work, job);
    if (atomic_load(&work->is_unwanted))
        return;
    work->outcome.is_right =
        auth_hash_is_right(work->in.account, slice_of(work->in.secret, work->in.secret_len));
}

static void run_token(struct helper_job *job)
{
    struct auth_work *work = container_of(job, struct auth_work, job);
    int64_t expires_s;
    work->outcome.verdict = JWT_BAD_SIGNATURE;
    if (!work->in.keys || atomic_load(&work->is_unwanted))
        return;
    work->outcome.verdict = jwt_check(auth_keys_of(work->in.keys), &work->in.policy,
                                      slice_of(work->in.secret, work->in.secret_len), &work->in.now,
                                      &work->token_user, &expires_s);
    work->outcome.is_right = work->outcome.verdict == JWT_GOOD;
    work->outcome.user = buf_slice(&work->token_user);
}

/* --- in the worker --------------------------------------------------------------------------- */

static void come_back(struct helper_job *job)
{
    struct auth_work *work = container_of(job, struct auth_work, job);
    struct list *node;
    list_remove(&work->node); /* nobody joins any more */
    work->all->out--;
    while ((node = list_pop_front(&work->waiters))) {
        struct auth_waiter *waiter = list_entry(node, struct auth_waiter, node);
        waiter->work = NULL;
        waiter->fn(waiter, &work->outcome);
    }
    work_free(work);
}

static void join(struct auth_work *work, struct auth_waiter *waiter)
{
    waiter->work = work;
    list_push_back(&work->waiters, &waiter->node);
}

void auth_waiter_leave(struct auth_waiter *waiter)
{
    struct auth_work *work = waiter->work;
    if (!work)
        return;
    waiter->work = NULL;
    list_remove(&waiter->node);
    if (list_is_empty(&work->waiters))
        atomic_store(&work->is_unwanted, true);
}

static bool join_equal(struct auth_works *all, struct auth_waiter *waiter, const uint8_t *digest)
{
    list_for_each (node, &all->running) {
        struct auth_work *work = list_entry(node, struct auth_work, node);
        /* One that was left may have been skipped already. */
        if (memcmp(work->digest, digest, AUTH_DIGEST_LEN) != 0 || list_is_empty(&work->waiters))
            continue;
        join(work, waiter);
        return true;
    }
    return false;
}

static struct auth_work *work_new(struct auth_works *all, const uint8_t *digest,
                                  struct slice secret)
{
    struct auth_work *work = mem_zalloc(sizeof *work);
    work->all = all;
    work->job.inbox = all->inbox;
    work->job.done = come_back;
    list_init(&work->node);
    list_init(&work->job.node);
    list_init(&work->waiters);
    memcpy(work->digest, digest, AUTH_DIGEST_LEN);
    atomic_init(&work->is_unwanted, false);
    work->in.secret = mem_alloc(secret.len + 1);
    work->in.secret_len = secret.len;
    if (secret.len > 0)
        memcpy(work->in.secret, secret.ptr, secret.len);
    buf_init(&work->token_user, TOKEN_USER_MAX);
    return work;
}

static enum status start(struct auth_work *work, struct auth_waiter *waiter)
{
    struct auth_works *all = work->all;
    join(work, waiter);
    enum status st = helpers_run(all->helpers, &work->job);
    if (st == STATUS_OK) {
        list_push_back(&all->running, &work->node);
        all->out++;
        return st;
    }
    list_remove(&waiter->node);
    waiter->work = NULL;
    work_free(work);
    return st;
}

enum status auth_work_password(struct auth_works *all, struct auth_waiter *waiter,
                               const uint8_t digest[AUTH_DIGEST_LEN], struct account *account,
                               struct slice password)
{
    if (join_equal(all, waiter, digest))
        return STATUS_OK;
    struct auth_work *work = work_new(all, digest, password);
    work->job.run = run_password;
    work->in.account = account ? account_ref(account) : NULL;
    return start(work, waiter);
}

enum status auth_work_token(struct auth_works *all, struct auth_waiter *waiter,
                            const uint8_t digest[AUTH_DIGEST_LEN], struct slice token,
                            const struct now *now)
{
    if (join_equal(all, waiter, digest))
        return STATUS_OK;
    struct auth_work *work = work_new(all, digest, token);
    work->job.run = run_token;
    work->in.keys = auth_shared_keys(all->shared, &work->in.policy);
    work->in.now = *now;
    return start(work, waiter);
}
