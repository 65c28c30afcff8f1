/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two Redis links and the machines behind them.
 *
 * Life of a link:   DOWN -> CONNECTING -> HELLO (AUTH, SELECT) -> UP -> (broken) DOWN ...
 * When a link breaks, its connection is closed first; only when its last operation has ended is
 * the machine told, since until then the kernel may still read what the batches point at.
 *
 * Messages come in by queue_submit.c, large ones' chunks by queue_chunk.c.
 */
#include "core/base/must.h"
#include "io/drive_queue_private.h"
#include "io/drive_relay.h"
#include "io/drive_submit.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/un.h>

#define RECONNECT_MIN_MS 50
#define RECONNECT_MAX_MS 1000
#define ANSWER_MS        5000  /* to connect and to answer the hello */
#define SILENCE_MS       15000 /* an up link with requests and no octet for this long is dead */
#define STALL_MS         5000  /* no reply for this long: /readyz says so */

static const struct conn_events link_events;
static void connect_link(struct link *l);

/* --- making ---------------------------------------------------------------------------------- */

static void sink_delivery(void *ctx, struct delivery *d);
static void sink_broken(void *ctx, uint16_t shard, const char *id, const char *reason);
static void sink_lease_lost(void *ctx, uint16_t shard);
static bool sink_may_claim(void *ctx, uint16_t shard);

static void break_link(struct link *l, const char *reason);

static void on_reconnect(struct wheel_timer *timer)
{
    struct link *l = container_of(timer, struct link, reconnect);
    if (l->state == LINK_DOWN)
        connect_link(l);
    else
        break_link(l, "no answer");
}

static void link_init(struct link *l, struct queue_driver *q, const char *name)
{
    l->q = q;
    l->name = name;
    l->pause_ms = RECONNECT_MIN_MS;
    redis_link_init(&l->redis);
    wheel_timer_init(&l->reconnect, on_reconnect);
}

static void make_token(struct queue_driver *q)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t r = entropy_u64(&q->w->entropy);
    for (int i = 0; i < QUEUE_WORKER_LEN; i++)
        q->token[i] = digits[r >> (4 * i) & 15];
}

struct queue_driver *queue_new(struct worker *w)
{
    struct queue_driver *q = mem_zalloc(sizeof *q);
    q->w = w;
    list_init(&q->chunks_waiting);
    make_token(q);
    struct commit_config commit = { .shards = w->shards,
                                    .packs = w->cfg->queue.compress,
                                    .lease_ms = w->cfg->queue.lease_ms,
                                    .key_ttl_ms = w->cfg->queue.idempotency_ttl_ms,
                                    .events_max = w->cfg->events.size_max / w->shards,
                                    .metrics = &w->metrics };
    struct claim_config claim = { .shards = w->shards,
                                  .lease_ms = w->cfg->queue.lease_ms,
                                  .metrics = &w->metrics,
                                  .budget = &w->budget,
                                  .tenants = w->cfg->tenants,
                                  .tenant_count = w->cfg->tenant_count };
    struct claim_sink sink = { q, sink_delivery, sink_broken, sink_lease_lost, sink_may_claim };
    memcpy(commit.worker, q->token, sizeof commit.worker);
    memcpy(claim.worker, q->token, sizeof claim.worker);
    q->committer = commit_new(&commit);
    q->claimer = claim_new(&claim, &sink);
    q->next_shard = (uint16_t)entropy_below(&w->entropy, w->shards);
    link_init(&q->commits, q, "commit");
    link_init(&q->claims, q, "claim");
    q->audit = w->id == 0 ? queue_audit_new(q) : NULL;
    return q;
}

void queue_free(struct queue_driver *q)
{
    wheel_clear(&q->w->wheel, &q->commits.reconnect);
    wheel_clear(&q->w->wheel, &q->claims.reconnect);
    q->commits.state = q->claims.state = LINK_DOWN;
    redis_link_lost(&q->commits.redis);
    redis_link_lost(&q->claims.redis);
    queue_pump_chunks(q, INT64_MAX);
    commit_free(q->committer);
    claim_free(q->claimer);
    queue_audit_free(q->audit);
    redis_link_done(&q->commits.redis);
    redis_link_done(&q->claims.redis);
    free(q);
}

/* --- links ----------------------------------------------------------------------------------- */

static void log_link(const struct link *l, enum log_level level, const char *event,
                     const char *reason)
{
    struct log *log = &l->q->w->log;
    log_begin(log, level, event);
    log_cstr(log, "link", l->name);
    log_num(log, "worker", l->q->w->id);
    if (reason)
        log_cstr(log, "reason", reason);
    log_end(log);
}

static void schedule_reconnect(struct link *l)
{
    if (l->q->is_leaving)
        return;
    wheel_set(&l->q->w->wheel, &l->reconnect, l->q->w->now.mono_ms + l->pause_ms);
    l->pause_ms = l->pause_ms * 2 < RECONNECT_MAX_MS ? l->pause_ms * 2 : RECONNECT_MAX_MS;
}

static void connect_link(struct link *l)
{
    const struct redis_address *a = l->q->w->redis;
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    const struct sockaddr *addr = (const struct sockaddr *)&a->addr;
    socklen_t len = a->addr_len;
    if (l->conn || l->q->is_leaving)
        return;
    if (a->is_unix) {
        memcpy(un.sun_path, a->path, sizeof un.sun_path);
        addr = (const struct sockaddr *)&un;
        len = sizeof un;
    }
    l->conn = conn_connect(&l->q->w->conns, NULL, addr, len, &link_events, l);
    l->state = l->conn ? LINK_CONNECTING : LINK_DOWN;
    if (l->conn)
        wheel_set(&l->q->w->wheel, &l->reconnect, l->q->w->now.mono_ms + ANSWER_MS);
    else
        schedule_reconnect(l);
}

static void link_is_up(struct link *l)
{
    struct queue_driver *q = l->q;
    l->state = LINK_UP;
    l->heard_ms = q->w->now.mono_ms;
    wheel_clear(&q->w->wheel, &l->reconnect);
    l->pause_ms = RECONNECT_MIN_MS;
    metrics_add(&q->w->metrics, METRIC_REDIS_UP, 1);
    if (l->was_up) {
        metrics_add(&q->w->metrics, METRIC_REDIS_RECONNECTS_TOTAL, 1);
        log_link(l, LOG_INFO, "redis.reconnected", NULL);
    }
    l->was_up = true;
    if (l == &q->commits)
        commit_link_up(q->committer);
    else
        claim_link_up(q->claimer);
}

static void break_link(struct link *l, const char *reason)
{
    if (!l->conn || l->conn->state == CONN_CLOSING)
        return;
    log_link(l, LOG_WARN, "redis.lost", reason);
    conn_close(l->conn);
}

static void on_hello(struct redis_request *req, const redisReply *reply)
{
    struct link *l = container_of(req, struct link, hello);
    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_ERROR || req->error[0]) {
        break_link(l, req->error[0] ? req->error : reply->str);
        return;
    }
    link_is_up(l);
}

/* AUTH and SELECT as the URL asks; PING otherwise, which finds out about LOADING too. */
static void say_hello(struct link *l)
{
    const struct redis_address *a = l->q->w->redis;
    struct gather *out = conn_out(l->conn);
    uint32_t commands = 2;
    if (a->password)
        commands++;
    redis_link_push(&l->redis, &l->hello, commands, on_hello);
    if (a->password) {
        redis_command_begin(out, a->user ? 3 : 2);
        redis_arg(out, SLICE("AUTH"));
        if (a->user)
            redis_arg(out, slice_str(a->user));
        redis_arg(out, slice_str(a->password));
    }
    redis_command_begin(out, 2);
    redis_arg(out, SLICE("SELECT"));
    redis_arg_num(out, a->db);
    redis_command_begin(out, 2);
    redis_arg(out, SLICE("EXISTS"));
    redis_arg(out, SLICE(QUEUE_CFG_KEY));
    l->state = LINK_HELLO;
}

static void link_open(struct conn *c, int result)
{
    struct link *l = c->owner;
    if (result == 0)
        say_hello(l);
    else if (l->pause_ms == RECONNECT_MAX_MS)
        log_link(l, LOG_WARN, "redis.unreachable", strerror(-result));
}

static size_t link_data(struct conn *c, struct slice in)
{
    struct link *l = c->owner;
    l->heard_ms = l->q->w->now.mono_ms;
    if (redis_link_feed(&l->redis, in) != STATUS_OK)
        break_link(l, "not Redis protocol");
    return in.len;
}

static void link_end(struct conn *c, int result)
{
    break_link(c->owner, result < 0 ? strerror(-result) : "closed by Redis");
}

static void link_sent(struct conn *c, uint64_t sent)
{
    struct link *l = c->owner;
    struct queue_driver *q = l->q;
    uint32_t n = 0;
    if (l != &q->commits)
        return;
    while (n < q->batch_count && q->batches[n].end <= sent)
        commit_sent(q->committer, q->batches[n++].number);
    q->batch_count -= n;
    memmove(q->batches, q->batches + n, q->batch_count * sizeof q->batches[0]);
}

static void link_closed(struct conn *c)
{
    struct link *l = c->owner;
    struct queue_driver *q = l->q;
    if (l->state == LINK_UP)
        metrics_add(&q->w->metrics, METRIC_REDIS_UP, -1);
    l->state = LINK_DOWN;
    l->conn = NULL;
    redis_link_lost(&l->redis);
    if (l == &q->commits)
        link_sent(c, UINT64_MAX);
    else
        claim_link_down(q->claimer);
    schedule_reconnect(l);
}

static const struct conn_events link_events = {
    .on_open = link_open,
    .on_data = link_data,
    .on_end = link_end,
    .on_sent = link_sent,
    .on_closed = link_closed,
};

void queue_start(struct queue_driver *q)
{
    connect_link(&q->commits);
    connect_link(&q->claims);
    if (q->audit)
        queue_audit_start(q->audit);
}

void queue_abandon(struct queue_driver *q)
{
    q->is_leaving = true;
    wheel_clear(&q->w->wheel, &q->commits.reconnect);
    wheel_clear(&q->w->wheel, &q->claims.reconnect);
    if (q->commits.conn)
        conn_close(q->commits.conn);
    if (q->claims.conn)
        conn_close(q->claims.conn);
}

bool queue_is_up(const struct queue_driver *q)
{
    return q->commits.state == LINK_UP && q->claims.state == LINK_UP &&
           commit_age_ms(q->committer, &q->w->now) < STALL_MS;
}

int64_t queue_commit_age_ms(const struct queue_driver *q)
{
    return commit_age_ms(q->committer, &q->w->now);
}

/* --- claims ---------------------------------------------------------------------------------- */

static void sink_delivery(void *ctx, struct delivery *d)
{
    struct queue_driver *q = ctx;
    relay_add(q->w->relay, d);
}

static void on_dead(struct commit_finish *f, bool was_lost)
{
    commit_finish_free(f);
}

static void sink_broken(void *ctx, uint16_t shard, const char *id, const char *reason)
{
    struct queue_driver *q = ctx;
    struct commit_finish *f = commit_finish_new(FINISH_DEAD, shard, id);
    log_begin(&q->w->log, LOG_ERROR, "queue.broken");
    log_cstr(&q->w->log, "id", id);
    log_cstr(&q->w->log, "reason", reason);
    log_end(&q->w->log);
    metrics_add(&q->w->metrics, METRIC_DEAD_TOTAL, 1);
    must(buf_append(&f->item, slice_str(reason)) == STATUS_OK);
    f->done = on_dead;
    queue_finish(q, f);
}

static void sink_lease_lost(void *ctx, uint16_t shard)
{
    struct queue_driver *q = ctx;
    q->lease_epoch++;
    relay_lease_lost(q->w->relay, shard);
}

static bool sink_may_claim(void *ctx, uint16_t shard)
{
    struct queue_driver *q = ctx;
    return relay_may_claim(q->w->relay, shard);
}

bool queue_lease_is_live(const struct queue_driver *q, uint16_t shard)
{
    return claim_lease_is_live(q->claimer, shard, &q->w->now);
}

/* --- what others ask ------------------------------------------------------------------------ */

bool queue_ask(struct queue_driver *q, struct redis_request *req, redis_reply_fn *fn,
               const struct slice *argv, size_t argc)
{
    if (q->claims.state != LINK_UP || q->claims.conn->state == CONN_CLOSING)
        return false;
    redis_link_push(&q->claims.redis, req, 1, fn);
    redis_command(conn_out(q->claims.conn), argv, argc);
    return true;
}

const char *queue_token(const struct queue_driver *q)
{
    return q->token;
}

/* --- the end of a turn ----------------------------------------------------------------------- */

static void pump_commits(struct queue_driver *q)
{
    uint64_t number;
    while (q->commits.state == LINK_UP && q->batch_count < BATCHES_MAX &&
           commit_next(q->committer, &q->commits.redis, submit_busy(q->w->submit),
                       conn_out(q->commits.conn), &q->w->now, &number)) {
        q->batches[q->batch_count].number = number;
        q->batches[q->batch_count++].end = conn_offset(q->commits.conn);
    }
    commit_tick(q->committer, &q->w->now);
}

static void pump_claims(struct queue_driver *q)
{
    struct claim_room room = { .all = 0 };
    if (!q->w->is_draining)
        room = relay_rooms(q->w->relay);
    if (room.crowded_count < q->crowded_count) /* somebody has room again */
        claim_hint(q->claimer);
    q->crowded_count = room.crowded_count;
    claim_pump(q->claimer, &q->claims.redis, &room, conn_out(q->claims.conn), &q->w->now);
}

/* A host that vanished sends no reset: heartbeats go every second, so an up link is never silent.
 */
static void watch_link(struct link *l, int64_t now_ms)
{
    if (l->redis.pending_count == 0)
        l->heard_ms = now_ms;
    if (l->state == LINK_UP && now_ms - l->heard_ms > SILENCE_MS)
        break_link(l, "silent");
}

void queue_pump(struct queue_driver *q)
{
    watch_link(&q->commits, q->w->now.mono_ms);
    watch_link(&q->claims, q->w->now.mono_ms);
    pump_commits(q);
    queue_pump_chunks(q, q->w->now.mono_ms);
    if (q->claims.state == LINK_UP && !q->bye_is_sent)
        pump_claims(q);
}

int64_t queue_wake_ms(const struct queue_driver *q)
{
    int64_t commit = commit_wake_ms(q->committer, &q->w->now);
    int64_t claim = claim_wake_ms(q->claimer);
    if (q->commits.state != LINK_UP)
        commit = INT64_MAX;
    if (q->claims.state != LINK_UP)
        claim = INT64_MAX;
    return commit < claim ? commit : claim;
}

bool queue_bye(struct queue_driver *q)
{
    if (q->claims.state != LINK_UP)
        return true;
    if (!q->bye_is_sent)
        claim_bye(q->claimer, &q->claims.redis, conn_out(q->claims.conn));
    q->bye_is_sent = true;
    return claim_bye_is_done(q->claimer);
}

uint32_t queue_pending(const struct queue_driver *q)
{
    return q->commits.state == LINK_UP ? commit_pending(q->committer) : 0;
}
