/* SPDX-License-Identifier: Apache-2.0 */
/* resolver_context - how libunbound is set up for mail; see resolver_context.h. */
#include "io/resolver_context.h"
#include "core/base/must.h"
#include "io/fail.h"

#include <pthread.h>

/* Options that our queries rely on, in libunbound's spelling. */
static const char *const options[][2] = {
    { "do-not-query-localhost:", "no" }, /* a resolver on loopback is the usual one */
    { "infra-keep-probing:", "yes" },    /* a name server that was down is found again */
    { "use-syslog:", "no" },
};

static int set_servers(struct ub_ctx *ctx, const struct config *cfg)
{
    int rc = UB_NOERROR;
    for (size_t i = 0; i < cfg->dns.server_count && rc == UB_NOERROR; i++)
        rc = ub_ctx_set_fwd(ctx, cfg->dns.servers[i]);
    if (cfg->dns.server_count > 0)
        return rc;
    /* Without the file libunbound asks the root servers itself, which is as good. */
    rc = ub_ctx_resolvconf(ctx, NULL);
    return rc == UB_READFILE ? UB_NOERROR : rc;
}

static int set_up(struct ub_ctx *ctx, const struct config *cfg)
{
    int rc = ub_ctx_debugout(ctx, NULL); /* stderr is not its place */
    for (size_t i = 0; i < ARRAY_LEN(options) && rc == UB_NOERROR; i++)
        rc = ub_ctx_set_option(ctx, options[i][0], options[i][1]);
    if (rc == UB_NOERROR) /* without anchors there is nothing to validate */
        rc = ub_ctx_set_option(
            ctx, "module-config:", cfg->dns.trust_anchor ? "validator iterator" : "iterator");
    if (rc == UB_NOERROR && cfg->dns.trust_anchor)
        rc = ub_ctx_add_ta_file(ctx, cfg->dns.trust_anchor);
    if (rc == UB_NOERROR)
        rc = set_servers(ctx, cfg);
    if (rc == UB_NOERROR)
        rc = ub_ctx_async(ctx, 1);
    /* Who names servers may have such zones there; libunbound would answer them itself. Last: this
     * call settles the configuration. */
    if (rc == UB_NOERROR && cfg->dns.server_count > 0)
        rc = ub_ctx_zone_remove(ctx, "test.");
    if (rc == UB_NOERROR && cfg->dns.server_count > 0)
        rc = ub_ctx_zone_remove(ctx, "home.arpa.");
    return rc;
}

/* libunbound sets up and takes down globals of its own with the first and last context: workers
 * that start or end together must not do it at once. */
static pthread_mutex_t contexts = PTHREAD_MUTEX_INITIALIZER;

static struct ub_ctx *context_new(void)
{
    pthread_mutex_lock(&contexts);
    struct ub_ctx *ctx = ub_ctx_create();
    pthread_mutex_unlock(&contexts);
    return ctx;
}

void resolver_context_free(struct ub_ctx *ctx)
{
    pthread_mutex_lock(&contexts);
    ub_ctx_delete(ctx);
    pthread_mutex_unlock(&contexts);
}

enum status resolver_context_new(const struct config *cfg, struct ub_ctx **out, struct buf *error)
{
    struct ub_ctx *ctx = context_new();
    if (!ctx)
        return fail_with(error, STATUS_SYSTEM, "libunbound cannot start");
    int rc = set_up(ctx, cfg);
    if (rc != UB_NOERROR) {
        resolver_context_free(ctx);
        return fail_with(error, STATUS_SYSTEM,
                         "libunbound: %s (check dns.servers and dns.trust_anchor)",
                         ub_strerror(rc));
    }
    *out = ctx;
    return STATUS_OK;
}
