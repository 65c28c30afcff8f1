/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_audit - what went into the queue is there or has ended: looked at all the time.
 *
 * Every second one shard is asked for its accounts, by the first worker of a process (kilat_audit
 * in lua/operators.lua: enqueued + split - done - bounced - expired - cancelled - dropped - what is
 * there, in one atomic call). The sum over the shards, each as it was known last, is
 * kilat_queue_imbalance. The cost of a call is that of a look at every destination with mail in the
 * shard.
 *
 * Life: queue_audit_new, queue_audit_start; a look that is under way when the link breaks is asked
 * again a second later.
 */
#include "core/base/must.h"
#include "io/drive_queue_private.h"
#include <stdlib.h>

#define LOOK_MS 1000

struct queue_audit {
    struct queue_driver *q; /* borrowed */
    struct redis_request request;
    struct wheel_timer timer;
    bool is_asking;   /* the request is under way */
    uint16_t shard;   /* the one to look at, or being looked at */
    int64_t *missing; /* owned; of each shard, as known last */
    char key[QUEUE_KEY_MAX];
};

static void log_imbalance(struct queue_audit *a, int64_t missing)
{
    struct log *log = &a->q->w->log;
    log_begin(log, missing != 0 ? LOG_ERROR : LOG_INFO, "queue.imbalance");
    log_num(log, "shard", a->shard);
    log_num(log, "missing", missing);
    log_end(log);
}

/* Too many in one shard do not make up for too few in another. */
static int64_t imbalance(const struct queue_audit *a)
{
    int64_t sum = 0;
    for (uint16_t i = 0; i < a->q->w->shards; i++)
        sum += a->missing[i] < 0 ? -a->missing[i] : a->missing[i];
    return sum;
}

static void on_accounts(struct redis_request *req, const redisReply *reply)
{
    struct queue_audit *a = container_of(req, struct queue_audit, request);
    a->is_asking = false;
    if (!reply || reply->type != REDIS_REPLY_INTEGER)
        return;
    if (a->missing[a->shard] != reply->integer) {
        log_imbalance(a, reply->integer);
        a->missing[a->shard] = reply->integer;
        metrics_set(&a->q->w->metrics, METRIC_QUEUE_IMBALANCE, imbalance(a));
    }
    a->shard = (uint16_t)((a->shard + 1) % a->q->w->shards);
}

static void on_look(struct wheel_timer *timer)
{
    struct queue_audit *a = container_of(timer, struct queue_audit, timer);
    struct slice argv[] = { SLICE("FCALL"), SLICE("kilat_audit"), SLICE("1"),
                            queue_key_counters(a->key, a->shard) };
    if (!a->is_asking)
        a->is_asking = queue_ask(a->q, &a->request, on_accounts, argv, ARRAY_LEN(argv));
    wheel_set(&a->q->w->wheel, &a->timer, a->q->w->now.mono_ms + LOOK_MS);
}

struct queue_audit *queue_audit_new(struct queue_driver *q)
{
    struct queue_audit *a = mem_zalloc(sizeof *a);
    a->q = q;
    a->missing = mem_zalloc(q->w->shards * sizeof *a->missing);
    wheel_timer_init(&a->timer, on_look);
    return a;
}

void queue_audit_free(struct queue_audit *a)
{
    if (!a)
        return;
    must(!a->is_asking);
    wheel_clear(&a->q->w->wheel, &a->timer);
    free(a->missing);
    free(a);
}

void queue_audit_start(struct queue_audit *a)
{
    wheel_set(&a->q->w->wheel, &a->timer, a->q->w->now.mono_ms + LOOK_MS);
}
