/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are read at the start and again when they change, or on SIGHUP: certificates, users,
 * rules about replies, keys that sign. A bad one leaves in place what was loaded, and the log says
 * so once for each change.
 *
 * To add one: a watch function, and its line in node_watch_files.
 */
#include "io/authenticator.h"
#include "io/dkim_store.h"
#include "io/node_private.h"
#include "io/rules_store.h"
#include "io/tls.h"

static void log_reload(struct node *n, enum status st, const char *event, const struct buf *error)
{
    node_line(n, st == STATUS_OK ? LOG_INFO : LOG_ERROR, event);
    if (st != STATUS_OK)
        log_str(&n->log, "error", buf_slice(error));
    node_line_end(n);
}

/* --- certificates ---------------------------------------------------------------------------- */

enum status node_load_tls(struct node *n)
{
    if (n->cfg->tls.certificate_count == 0)
        return STATUS_OK;
    return tls_store_new(n->cfg, &n->tls, &n->error);
}

static void watch_tls(struct node *n, bool is_asked)
{
    struct buf error;
    if (!n->tls || (!is_asked && !tls_store_has_changed(n->tls)))
        return;
    buf_init(&error, NODE_ERROR_MAX);
    enum status st = tls_store_reload(n->tls, &error);
    log_reload(n, st, st == STATUS_OK ? "tls.reloaded" : "tls.bad", &error);
    buf_done(&error);
}

/* --- users ----------------------------------------------------------------------------------- */

bool node_needs_users(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->listener_count; i++)
        if (cfg->listeners[i].auth != AUTH_OFF)
            return true;
    return false;
}

enum status node_load_users(struct node *n)
{
    return node_needs_users(n->cfg) ? auth_shared_new(n->cfg, &n->auth, &n->error) : STATUS_OK;
}

static void watch_users(struct node *n, bool is_asked)
{
    struct buf error;
    if (!n->auth || (!is_asked && !auth_shared_has_changed(n->auth)))
        return;
    buf_init(&error, NODE_ERROR_MAX);
    enum status st = auth_shared_reload(n->auth, &error);
    log_reload(n, st, st == STATUS_OK ? "users.reloaded" : "users.bad", &error);
    buf_done(&error);
}

/* --- rules about replies --------------------------------------------------------------------- */

static void watch_rules(struct node *n, bool is_asked)
{
    struct buf error;
    if (!n->cfg->relay.rules || (!is_asked && !rules_store_has_changed(n->rules)))
        return;
    buf_init(&error, NODE_ERROR_MAX);
    enum status st = rules_store_reload(n->rules, &error);
    log_reload(n, st, st == STATUS_OK ? "rules.reloaded" : "rules.bad", &error);
    buf_done(&error);
}

/* --- keys that sign -------------------------------------------------------------------------- */

static void log_troubles(struct node *n)
{
    struct slice rest = dkim_store_troubles(n->dkim);
    while (rest.len > 0) {
        size_t len = slice_find(rest, '\n');
        node_line(n, LOG_ERROR, "dkim.bad");
        log_str(&n->log, "error", slice_head(rest, len));
        node_line_end(n);
        rest = slice_skip(rest, len + 1);
    }
}

enum status node_load_dkim(struct node *n)
{
    if (!dkim_store_is_wanted(n->cfg))
        return STATUS_OK;
    enum status st = dkim_store_new(n->cfg, &n->dkim, &n->error);
    if (st == STATUS_OK)
        log_troubles(n);
    return st;
}

static void watch_dkim(struct node *n, bool is_asked)
{
    if (!n->dkim || (!is_asked && !dkim_store_has_changed(n->dkim)))
        return;
    dkim_store_reload(n->dkim);
    node_line(n, LOG_INFO, "dkim.reloaded");
    log_num(&n->log, "keys", dkim_store_count(n->dkim));
    node_line_end(n);
    log_troubles(n);
}

void node_watch_files(struct node *n, bool is_asked)
{
    watch_tls(n, is_asked);
    watch_users(n, is_asked);
    watch_rules(n, is_asked);
    watch_dkim(n, is_asked);
}
