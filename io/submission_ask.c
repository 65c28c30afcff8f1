/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session waits for besides the queue: a TLS handshake, the authenticator, the admission of
 * a recipient. Each answer goes to the session, and the submission goes on.
 *
 * The admission of a recipient is one call to Redis, and one at a time: a client that pipelines a
 * hundred recipients has its commands answered in order in any case (P-108).
 */
#include "core/base/must.h"
#include "io/submission.h"
#include "queue/policy.h"
#include <stdlib.h>

/* --- TLS ------------------------------------------------------------------------------------- */

/* What the session has said leaves in clear first; conn.c sees to that. */
void submission_start_tls(struct submission *s)
{
    struct worker *w = s->d->w;
    s->handshake_until_ms = w->now.mono_ms + w->cfg->tls.handshake_timeout_ms;
    conn_start_tls(s->conn, tls_session_new(w->tls));
}

static bool wants_binding(const struct submission *s)
{
    const struct smtp_service *service = s->session.service;
    return service->auth != AUTH_OFF && (service->mechanisms & AUTH_SCRAM_SHA_256_PLUS);
}

static struct submission_tls *describe_tls(const struct submission *s)
{
    const struct tls_session *tls = conn_tls(s->conn);
    struct submission_tls *t = mem_zalloc(sizeof *t);
    struct tls_info info;
    tls_session_info(tls, &info);
    t->told = (struct smtp_tls){
        .version = info.version,
        .cipher = info.cipher,
        .client_name = info.client_name ? slice_str(info.client_name) : SLICE_NONE,
    };
    if (wants_binding(s))
        t->told.binding.len = tls_session_binding(tls, t->binding, &t->told.binding_name);
    t->told.binding.ptr = t->binding;
    return t;
}

static void log_handshake(struct submission *s, const char *error)
{
    struct log *log = &s->d->w->log;
    log_begin(log, LOG_DEBUG, error ? "tls.failed" : "tls.open");
    log_cstr(log, "listener", s->listener->name);
    log_cstr(log, "client", s->client);
    if (error) {
        log_cstr(log, "error", error);
    } else {
        struct tls_info info;
        tls_session_info(conn_tls(s->conn), &info);
        log_cstr(log, "version", info.version);
        log_cstr(log, "cipher", info.cipher);
        log_cstr(log, "resumed", info.is_resumed ? "yes" : "no");
    }
    log_end(log);
}

/* A failed handshake closes the connection by itself. */
void submission_on_secure(struct conn *c, int result)
{
    struct submission *s = c->owner;
    s->handshake_until_ms = 0;
    if (result < 0) {
        metrics_add(&s->d->w->metrics, METRIC_TLS_FAILED_TOTAL, 1);
        log_handshake(s, tls_session_error(conn_tls(c)));
        s->session.end_reason = "tls-failed";
        s->is_over = true;
        return;
    }
    struct tls_info info;
    tls_session_info(conn_tls(c), &info);
    metrics_add(&s->d->w->metrics, METRIC_TLS_HANDSHAKES_TOTAL, 1);
    metrics_add(&s->d->w->metrics, METRIC_TLS_RESUMED_TOTAL, info.is_resumed);
    log_handshake(s, NULL);
    s->tls = describe_tls(s);
    smtp_session_secured(&s->session, &s->tls->told, &s->d->w->now);
    submission_after_event(s);
}

/* --- who it is ------------------------------------------------------------------------------- */

bool submission_count_tenant(struct submission *s, const struct config_tenant *tenant)
{
    struct worker *w = s->d->w;
    if (!tenant || tenant->sessions_max == 0 || s->counted == tenant)
        return true;
    must(s->counted == NULL);
    _Atomic uint32_t *count = &w->tenant_sessions[tenant - w->cfg->tenants];
    if (atomic_fetch_add(count, 1) >= tenant->sessions_max) {
        atomic_fetch_sub(count, 1);
        return false;
    }
    s->counted = tenant;
    return true;
}

static void uncount_tenant(struct submission *s)
{
    struct worker *w = s->d->w;
    if (s->counted)
        atomic_fetch_sub(&w->tenant_sessions[s->counted - w->cfg->tenants], 1);
    s->counted = NULL;
}

/* All other answers the authenticator logs. */
static void log_too_many(struct submission *s, const struct account *account)
{
    struct log *log = &s->d->w->log;
    log_begin(log, LOG_WARN, "auth.failed");
    log_cstr(log, "listener", s->listener->name);
    log_cstr(log, "client", s->client);
    log_cstr(log, "user", account->name);
    log_cstr(log, "reason", "the tenant has as many sessions as it may");
    log_end(log);
}

static void on_auth_answer(void *owner, const struct sasl_answer *given)
{
    struct submission *s = owner;
    struct sasl_answer answer = *given;
    s->ask = NULL;
    if (answer.account) {
        struct slice name = slice_str(answer.account->tenant);
        if (!submission_count_tenant(s, config_find_tenant(s->d->w->cfg, name))) {
            log_too_many(s, answer.account);
            account_unref(answer.account);
            answer = (struct sasl_answer){ .result = AUTH_RESULT_TOO_MANY };
        }
    }
    smtp_session_auth_answer(&s->session, &answer, &s->d->w->now);
    submission_after_event(s);
    submission_unblock(s);
}

void submission_ask_auth(struct submission *s)
{
    struct sasl_request request;
    smtp_session_get_auth(&s->session, &request);
    s->ask = authenticator_ask(s->d->w->auth, &request, s->session.peer.client, on_auth_answer, s);
}

/* --- may this recipient be written to --------------------------------------------------------- */

struct submission_admit {
    struct redis_request request;
    struct submission *s; /* borrowed; NULL: it is gone */
};

static void admitted(struct submission *s, enum smtp_admit answer, struct slice reason)
{
    if (answer != SMTP_ADMIT_OK)
        metrics_add(&s->d->w->metrics, METRIC_RECIPIENTS_DECLINED_TOTAL, 1);
    smtp_session_admitted(&s->session, answer, reason, &s->d->w->now);
    submission_after_event(s);
    submission_unblock(s);
}

static void on_admission(struct redis_request *request, const redisReply *reply)
{
    struct submission_admit *a = container_of(request, struct submission_admit, request);
    struct submission *s = a->s;
    struct slice reason = SLICE_NONE;
    enum smtp_admit answer = policy_answer(reply, &reason);
    free(a);
    if (!s)
        return;
    s->admit = NULL;
    admitted(s, answer, reason);
}

void submission_ask_admission(struct submission *s)
{
    struct worker *w = s->d->w;
    struct smtp_admission admission;
    struct policy_question question;
    smtp_session_get_admission(&s->session, &admission);
    policy_ask(&question, &admission, w->shards);
    struct submission_admit *a = mem_zalloc(sizeof *a);
    a->s = s;
    s->admit = a;
    if (queue_ask(w->queue, &a->request, on_admission, question.argv, question.argc))
        return;
    s->admit = NULL;
    free(a);
    admitted(s, SMTP_ADMIT_DOWN, SLICE_NONE);
}

void submission_forget_asks(struct submission *s)
{
    if (s->ask)
        authenticator_forget(s->ask);
    if (s->admit)
        s->admit->s = NULL;
    s->ask = NULL;
    s->admit = NULL;
    uncount_tenant(s);
}
