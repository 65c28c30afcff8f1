/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_call - a request over the worker's second link, and a timer.
 *
 * The link answers every request exactly once, also when it is lost; until then the call stays, be
 * it that its owner has forgotten it or has given up: only the reply frees it. A Redis that is
 * reached but silent (it loads, or its disk hangs) costs a login AUTH_CALL_PATIENCE_MS and then
 * counts as out of reach; the link itself is judged by drive_queue.c.
 */
#include "io/auth_call.h"
#include "core/base/must.h"
#include "io/drive_queue.h"

#include <stdlib.h>

struct auth_call {
    struct redis_request request;
    struct wheel_timer patience;
    struct worker *w;  /* borrowed */
    auth_reply_fn *fn; /* NULL: was called, or forgotten */
    void *owner;
};

static void answer(struct auth_call *c, const redisReply *reply)
{
    auth_reply_fn *fn = c->fn;
    wheel_clear(&c->w->wheel, &c->patience);
    c->fn = NULL;
    if (fn)
        fn(c->owner, reply);
}

static void on_reply(struct redis_request *req, const redisReply *reply)
{
    struct auth_call *c = container_of(req, struct auth_call, request);
    answer(c, reply);
    free(c);
}

static void on_impatience(struct wheel_timer *timer)
{
    answer(container_of(timer, struct auth_call, patience), NULL);
}

struct auth_call *auth_call_new(struct worker *w, const struct slice *argv, size_t argc,
                                auth_reply_fn *fn, void *owner)
{
    struct auth_call *c = mem_zalloc(sizeof *c);
    *c = (struct auth_call){ .w = w, .fn = fn, .owner = owner };
    wheel_timer_init(&c->patience, on_impatience);
    if (!queue_ask(w->queue, &c->request, on_reply, argv, argc)) {
        free(c);
        return NULL;
    }
    wheel_set(&w->wheel, &c->patience, w->now.mono_ms + AUTH_CALL_PATIENCE_MS);
    return c;
}

void auth_call_forget(struct auth_call *c)
{
    if (!c)
        return;
    wheel_clear(&c->w->wheel, &c->patience);
    c->fn = NULL;
}
