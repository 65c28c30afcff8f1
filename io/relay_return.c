/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_return - the sender's address of a delivery that is to name itself when it comes back, and
 * what is kept to know it by (docs/returns.md).
 *
 * A recipient with a return path of its own has a transaction of its own (P-191). The address is
 * the same at each attempt, so a copy that was delivered although its reply was lost is known too,
 * once another was.
 */
#include "core/base/must.h"
#include "core/smtp/address.h"
#include "core/smtp/return_path.h"
#include "io/drive_queue.h"
#include "io/drive_relay_private.h"
#include "queue/trace.h"

const char *relay_return_domain(const struct outbound *o, const struct message *m)
{
    const struct config_route *route = o->slot->dest->route;
    if (m->sender.len == 0 || route->verp == VERP_OFF ||
        (route->verp == VERP_AUTO && route->relay == RELAY_SMARTHOST))
        return NULL;
    return return_path_domain(o->r->w->cfg, m->tenant);
}

static struct return_path path_of(const struct delivery *d, uint32_t i)
{
    struct return_path path = { .shard = d->shard, .rcpt = d->rcpts[i] };
    memcpy(path.id, d->message->id, sizeof path.id);
    return path;
}

struct slice relay_return_path(const struct outbound *o, struct delivery *d)
{
    char text[RETURN_PATH_LOCAL_MAX + ADDRESS_DOMAIN_MAX + 2];
    char local[RETURN_PATH_LOCAL_MAX];
    const char *domain = relay_return_domain(o, d->message);
    if (!domain || d->rcpt_count != 1)
        return SLICE_NONE;
    struct return_path path = path_of(d, 0);
    return_path_make(o->r->w->return_key, &path, local);
    int len = snprintf(text, sizeof text, "%s@%s", local, domain);
    must(len > 0 && (size_t)len < sizeof text);
    return arena_copy(&d->arena, slice_of(text, (size_t)len));
}

static void on_traced(struct commit_finish *f, bool was_lost)
{
    commit_finish_free(f);
}

void relay_return_keep(struct worker *w, const struct delivery *d, uint32_t i)
{
    const struct message *m = d->message;
    if (d->txn.return_path.len == 0)
        return;
    struct queue_trace trace = { .tenant = m->tenant,
                                 .rcpt = m->rcpts[d->rcpts[i]].address,
                                 .sender = m->sender,
                                 .delivered_ms = w->now.wall_ms };
    struct return_path path = path_of(d, i);
    struct commit_finish *f = commit_finish_new(FINISH_TRACE, d->shard, d->id);
    queue_trace_encode(&path, &trace, w->cfg->bounces.kept_ms, &f->item);
    f->done = on_traced;
    queue_finish(w->queue, f);
}
