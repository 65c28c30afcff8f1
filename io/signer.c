/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signer - one message, on its way through a helper thread.
 *
 *     worker: signer_begin -> helper: run -> worker: come_back -> fn
 *
 * The worker decides who signs; the helper touches nothing but the job: the digest, which left the
 * message for that time, the keys, which the job holds a reference of, and the text it writes. When
 * the session goes meanwhile, the job is marked, skipped if it has not begun, and its message
 * dropped when it comes back.
 *
 * Nothing goes unsigned in silence: without keys a line `dkim.unsigned` says so where keys exist
 * for others, and `dkim.deferred` where it may not go.
 *
 * Limits: one work a session, so no more wait than there are sessions.
 */
#include "io/signer.h"
#include "core/base/must.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_MS 100

struct signer {
    struct worker *w;         /* borrowed */
    struct dkim_store *store; /* borrowed */
    struct dkim_keys *keys;   /* one reference */
    uint32_t serial;          /* of keys; 0: none yet */
    struct list works;        /* struct sign_work that are out */
};

struct sign_work {
    struct helper_job job;
    struct list node; /* on signer.works */
    struct signer *g;
    sign_fn *fn; /* NULL: forgotten */
    void *owner;
    struct message *message; /* owned; the worker's alone */
    _Atomic bool is_unwanted;
    /* The helper's until it comes back. */
    struct dkim_digest *digest; /* owned */
    struct dkim_keys *keys;     /* one reference */
    const struct dkim_domain *domain;
    struct dkim_times times;
    struct buf text;
    enum status st;
};

struct signer *signer_new(struct worker *w, struct dkim_store *store)
{
    struct signer *g = mem_zalloc(sizeof *g);
    g->w = w;
    g->store = store;
    list_init(&g->works);
    return g;
}

void signer_pump(struct signer *g)
{
    helper_inbox_drain(&g->w->inbox);
}

void signer_free(struct signer *g)
{
    uint64_t count;
    if (!g)
        return;
    list_for_each (node, &g->works)
        signer_forget(list_entry(node, struct sign_work, node));
    for (;;) {
        struct pollfd woken = { .fd = g->w->wake_fd, .events = POLLIN };
        signer_pump(g);
        if (list_is_empty(&g->works))
            break;
        /* Whatever woke us, the inbox is looked at again. */
        if (poll(&woken, 1, LOOK_MS) > 0 && read(woken.fd, &count, sizeof count) < 0) {
        }
    }
    dkim_keys_unref(g->keys);
    free(g);
}

static void work_free(struct sign_work *work)
{
    list_remove(&work->node);
    dkim_digest_free(work->digest);
    dkim_keys_unref(work->keys);
    buf_done(&work->text);
    free(work);
}

void signer_forget(struct sign_work *work)
{
    work->fn = NULL;
    atomic_store(&work->is_unwanted, true);
}

/* --- in a helper thread ---------------------------------------------------------------------- */

static void run(struct helper_job *job)
{
    struct sign_work *work = container_of(job, struct sign_work, job);
    if (atomic_load(&work->is_unwanted))
        return;
    for (uint32_t i = 0; i < work->domain->key_count && work->st == STATUS_OK; i++)
        work->st = dkim_sign(work->digest, work->domain->name, &work->domain->keys[i], &work->times,
                             &work->text);
}

/* --- in the worker --------------------------------------------------------------------------- */

static void log_unsigned(struct signer *g, const struct message *m, bool is_deferred,
                         struct slice domain, const char *reason)
{
    struct log *log = &g->w->log;
    metrics_add(&g->w->metrics,
                is_deferred ? METRIC_DKIM_DEFERRED_TOTAL : METRIC_DKIM_UNSIGNED_TOTAL, 1);
    log_begin(log, is_deferred ? LOG_WARN : LOG_INFO,
              is_deferred ? "dkim.deferred" : "dkim.unsigned");
    log_cstr(log, "id", m->id);
    log_str(log, "domain", domain);
    log_str(log, "from", m->sender);
    if (m->tenant.len > 0)
        log_str(log, "tenant", m->tenant);
    log_cstr(log, "reason", reason);
    log_end(log);
}

static void come_back(struct helper_job *job)
{
    struct sign_work *work = container_of(job, struct sign_work, job);
    struct message *m = work->message;
    bool is_signed = work->st == STATUS_OK;
    if (!work->fn) {
        message_unref(m);
    } else {
        if (is_signed) {
            m->signature = arena_copy(&m->arena, buf_slice(&work->text));
            metrics_add(&work->g->w->metrics, METRIC_DKIM_SIGNED_TOTAL, 1);
        } else {
            log_unsigned(work->g, m, true, slice_str(work->domain->name), "signing failed");
        }
        work->fn(work->owner, m, is_signed);
    }
    work_free(work);
}

/* Held mail is signed when it comes and read when it goes: its time begins then. */
static struct dkim_times times_of(const struct signer *g, const struct message *m)
{
    const struct config *cfg = g->w->cfg;
    int64_t now_ms = g->w->now.wall_ms;
    int64_t from_ms = m->hold_until_ms > now_ms ? m->hold_until_ms : now_ms;
    return (struct dkim_times){
        .now_s = now_ms / 1000,
        .expires_s =
            cfg->dkim.expire_ms ? (from_ms + (int64_t)cfg->dkim.expire_ms + 999) / 1000 : 0,
    };
}

static enum sign_start begin(struct signer *g, struct message *m, const struct dkim_domain *domain,
                             sign_fn *fn, void *owner, struct sign_work **out)
{
    struct sign_work *work = mem_zalloc(sizeof *work);
    *work = (struct sign_work){ .g = g, .fn = fn, .owner = owner, .message = m };
    work->job = (struct helper_job){ .inbox = &g->w->inbox, .run = run, .done = come_back };
    list_init(&work->job.node);
    list_push_back(&g->works, &work->node);
    atomic_init(&work->is_unwanted, false);
    work->digest = m->dkim;
    m->dkim = NULL;
    work->keys = dkim_keys_ref(g->keys);
    work->domain = domain;
    work->times = times_of(g, m);
    buf_init(&work->text, 2 * DKIM_SIGNATURE_MAX);
    if (helpers_run(dkim_store_helpers(g->store), &work->job) == STATUS_OK) {
        *out = work;
        return SIGN_BEGUN;
    }
    log_unsigned(g, m, true, slice_str(domain->name), "too many messages wait for a thread");
    work_free(work);
    return SIGN_REFUSED;
}

static bool is_required(const struct signer *g, const struct message *m)
{
    const struct config_tenant *t = config_find_tenant(g->w->cfg, m->tenant);
    return t && t->dkim_required;
}

/* Nobody signs it: does it go all the same? That there is no key at all is the usual case of a
 * gateway that signs for some: it is counted, and not worth a line. */
static enum sign_start go_unsigned(struct signer *g, const struct message *m, enum dkim_match match)
{
    struct slice domain = dkim_digest_domain(m->dkim);
    bool is_deferred = is_required(g, m) ||
                       (match == DKIM_BROKEN && g->w->cfg->dkim.missing == DKIM_MISSING_DEFER);
    const char *reason = match == DKIM_BROKEN    ? "its keys cannot be read"
                         : match == DKIM_FOREIGN ? "its keys are another tenant's"
                         : domain.len == 0       ? "From names no domain, or several"
                                                 : "no key";
    if (is_deferred || match != DKIM_NO_KEY || domain.len == 0)
        log_unsigned(g, m, is_deferred, domain, reason);
    else
        metrics_add(&g->w->metrics, METRIC_DKIM_UNSIGNED_TOTAL, 1);
    return is_deferred ? SIGN_REFUSED : SIGN_NOTHING;
}

enum sign_start signer_begin(struct signer *g, struct message *m, sign_fn *fn, void *owner,
                             struct sign_work **out)
{
    const struct dkim_domain *domain;
    dkim_store_refresh(g->store, &g->keys, &g->serial);
    enum dkim_match match =
        dkim_keys_find(g->keys, dkim_digest_domain(m->dkim), m->tenant, &domain);
    return match == DKIM_FOUND ? begin(g, m, domain, fn, owner, out) : go_unsigned(g, m, match);
}
