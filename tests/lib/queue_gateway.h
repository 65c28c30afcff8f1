/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * queue_gateway - a committer and a claimer on a private Redis, over blocking sockets: the queue
 * side of a gateway, in a test's hands. Header only: every test is one program.
 */
#include "tests/lib/private_redis.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "core/base/must.h"
#include "queue/claim.h"
#include "queue/commit.h"

#define SHARDS 3

static struct private_redis server;
static redisContext *redis; /* for looking, beside the machines */

/* --- a link over a blocking socket ----------------------------------------------------------- */

struct wire {
    struct redis_link link;
    struct gather out;
    int fd;
};

static inline void wire_connect(struct wire *w)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", server.socket);
    w->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(w->fd, (struct sockaddr *)&addr, sizeof addr), 0);
}

static inline void wire_init(struct wire *w)
{
    redis_link_init(&w->link);
    gather_init(&w->out);
    wire_connect(w);
}

static inline void wire_done(struct wire *w)
{
    redis_link_lost(&w->link);
    redis_link_done(&w->link);
    gather_done(&w->out);
    close(w->fd);
}

static inline void wire_send(struct wire *w)
{
    for (uint32_t part = 0; part < w->out.part_count; part++) {
        struct iovec iov;
        assert_int_equal(gather_iov(&w->out, part, 0, &iov, 1), 1);
        for (size_t at = 0; at < iov.iov_len;) {
            ssize_t n = send(w->fd, (char *)iov.iov_base + at, iov.iov_len - at, MSG_NOSIGNAL);
            assert_true(n > 0);
            at += (size_t)n;
        }
    }
    gather_clear(&w->out);
}

/* Sends what waits and reads until nothing is awaited. */
static inline void wire_settle(struct wire *w)
{
    char in[16384];
    wire_send(w);
    while (w->link.pending_count > 0) {
        ssize_t n = recv(w->fd, in, sizeof in, 0);
        assert_true(n > 0);
        assert_int_equal(redis_link_feed(&w->link, slice_of(in, (size_t)n)), STATUS_OK);
    }
}

/* --- a gateway's queue side ------------------------------------------------------------------ */

struct gateway {
    struct wire commits, claims;
    struct committer *committer;
    struct claimer *claimer;
    struct metrics metrics;
    struct chain_budget budget;
    struct now now;
    struct list held; /* struct delivery */
    uint32_t held_count, broken, lost_shards;
};

static inline struct now read_clock(void)
{
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct now){ mono.tv_sec * 1000 + mono.tv_nsec / 1000000,
                         wall.tv_sec * 1000 + wall.tv_nsec / 1000000 };
}

static inline void on_delivery(void *ctx, struct delivery *d)
{
    struct gateway *g = ctx;
    list_push_back(&g->held, &d->node);
    g->held_count++;
}

static inline void on_broken(void *ctx, uint16_t shard, const char *id, const char *reason)
{
    ((struct gateway *)ctx)->broken++;
}

static inline void on_lease_lost(void *ctx, uint16_t shard)
{
    ((struct gateway *)ctx)->lost_shards++;
}

static inline void gateway_init(struct gateway *g, const char *token, uint32_t lease_ms)
{
    memset(g, 0, sizeof *g);
    struct commit_config commit = {
        .shards = SHARDS, .packs = true, .lease_ms = lease_ms, .key_ttl_ms = 86400000
    };
    struct claim_config claim = { .shards = SHARDS, .lease_ms = lease_ms };
    struct claim_sink sink = { g, on_delivery, on_broken, on_lease_lost, NULL };
    snprintf(commit.worker, sizeof commit.worker, "%s", token);
    snprintf(claim.worker, sizeof claim.worker, "%s", token);
    commit.metrics = claim.metrics = &g->metrics;
    g->budget.max = 1 << 30;
    claim.budget = &g->budget;
    list_init(&g->held);
    g->now = read_clock();
    g->committer = commit_new(&commit);
    g->claimer = claim_new(&claim, &sink);
    wire_init(&g->commits);
    wire_init(&g->claims);
}

static inline void drop_held(struct gateway *g)
{
    struct list *node;
    while ((node = list_pop_front(&g->held)))
        delivery_free(list_entry(node, struct delivery, node));
    g->held_count = 0;
}

static inline void gateway_done(struct gateway *g)
{
    wire_done(&g->commits);
    wire_done(&g->claims);
    commit_free(g->committer);
    claim_free(g->claimer);
    drop_held(g);
    assert_int_equal(g->budget.used, 0);
}

/* Commits what waits, finishes too; returns how many batches it took. */
static inline uint32_t commit_all(struct gateway *g)
{
    uint32_t batches = 0;
    uint64_t number;
    g->now.mono_ms += COMMIT_FINISH_DELAY_MS;
    while (commit_next(g->committer, &g->commits.link, 1, &g->commits.out, &g->now, &number)) {
        wire_settle(&g->commits);
        commit_sent(g->committer, number);
        batches++;
    }
    return batches;
}

/* Housekeeping and claims until nothing more comes; time passes for ticks. */
static inline void claim_all(struct gateway *g, uint32_t room)
{
    g->now.mono_ms += 1000;
    for (int turn = 0; turn < 60; turn++) {
        uint32_t left = room > g->held_count ? room - g->held_count : 0;
        struct claim_room of = { { left, left, left }, left, left };
        claim_pump(g->claimer, &g->claims.link, &of, &g->claims.out, &g->now);
        wire_settle(&g->claims);
    }
}

/* --- messages -------------------------------------------------------------------------------- */

struct mail {
    struct commit_entry entry;
    struct commit_target targets[2];
    struct gateway *g;
    uint32_t calls;
    enum smtp_verdict verdict;
    char id[QUEUE_ID_LEN + 1];
};

static const uint32_t rcpts[] = { 0, 1 };

static inline void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct mail *m = container_of(entry, struct mail, entry);
    struct message *msg = entry->message;
    m->calls++;
    m->verdict = verdict;
    bool is_ours = verdict == SMTP_QUEUED && !entry->first_id[0];
    for (uint32_t k = 0; k < entry->target_count && is_ours; k++) {
        char id[DELIVERY_ID_MAX];
        if (entry->targets[k].mode != COMMIT_LEASED)
            continue;
        snprintf(id, sizeof id, entry->target_count > 1 ? "%s/%u" : "%s", msg->id, k);
        on_delivery(m->g, delivery_new(msg, id, slice_str(entry->targets[k].dest), entry->shard,
                                       entry->targets[k].rcpts, entry->targets[k].rcpt_count));
    }
    message_unref(msg);
}

static inline struct mail *mail_make(struct gateway *g, uint32_t number, size_t size,
                                     uint32_t targets, enum commit_mode mode)
{
    struct mail *m = mem_zalloc(sizeof *m);
    struct message *msg = message_new(&g->budget);
    char *content = mem_alloc(size);
    snprintf(msg->id, sizeof msg->id, "m%019u", number);
    memcpy(m->id, msg->id, sizeof m->id);
    msg->sender = SLICE("a@example.org");
    for (int i = 0; i < 2; i++)
        message_add_rcpt(msg, SLICE("b@example.net"), SLICE("example.net"));
    memset(content, 'x', size);
    chain_append(&msg->content, slice_of(content, size));
    free(content);
    msg->size = size;
    msg->accepted_ms = g->now.wall_ms;
    m->g = g;
    m->entry = (struct commit_entry){ .message = msg,
                                      .targets = m->targets,
                                      .target_count = targets,
                                      .shard = COMMIT_ANY_SHARD,
                                      .expires_ms = g->now.wall_ms + 86400000,
                                      .deadline_ms = g->now.mono_ms + 30000,
                                      .done = on_verdict };
    list_init(&m->entry.with);
    for (uint32_t k = 0; k < 2; k++) {
        snprintf(m->targets[k].dest, DEST_KEY_MAX, "d%u.example", k);
        m->targets[k].mode = mode;
        m->targets[k].rcpts = rcpts + k;
        m->targets[k].rcpt_count = targets == 1 ? 2 : 1;
    }
    return m;
}

static inline struct mail *mail_new(struct gateway *g, uint32_t number, size_t size,
                                    uint32_t targets, enum commit_mode mode)
{
    struct mail *m = mail_make(g, number, size, targets, mode);
    commit_add(g->committer, &m->entry, &g->now);
    return m;
}

static uint32_t finished, finished_lost;

static inline void on_finished(struct commit_finish *f, bool was_lost)
{
    finished++;
    finished_lost += was_lost;
    commit_finish_free(f);
}

/* Ends every delivery in hand in this way. */
static inline void finish_held(struct gateway *g, enum commit_finish_kind kind)
{
    struct list *node;
    while ((node = list_pop_front(&g->held))) {
        struct delivery *d = list_entry(node, struct delivery, node);
        struct commit_finish *f = commit_finish_new(kind, d->shard, d->id);
        f->done = on_finished;
        if (kind == FINISH_RETRY) {
            struct queue_item item = { .lane = 'n',
                                       .dest = slice_str(d->dest),
                                       .attempts = d->attempts + 1,
                                       .accepted_ms = d->message->accepted_ms,
                                       .expires_ms = g->now.wall_ms + 86400000,
                                       .chunks = d->message->chunk_count,
                                       .size = d->message->size,
                                       .rcpts = d->rcpts,
                                       .rcpt_count = d->rcpt_count };
            assert_int_equal(queue_item_encode(&item, &f->item), STATUS_OK);
        } else if (kind == FINISH_DEAD) {
            assert_int_equal(buf_append(&f->item, SLICE("550 no")), STATUS_OK);
        }
        commit_finish(g->committer, f, &g->now);
        delivery_free(d);
    }
    g->held_count = 0;
}

/* --- looking --------------------------------------------------------------------------------- */

/* The sum over all shards of one of kilat_count's numbers: 1 ready, 3 scheduled, 5 leased, ... */
static inline long there(size_t which)
{
    long sum = 0;
    for (int shard = 0; shard < SHARDS; shard++) {
        redisReply *r = redisCommand(redis, "FCALL kilat_count 1 {q%d}n", shard);
        sum += (long)r->element[which]->integer;
        freeReplyObject(r);
    }
    return sum;
}

static inline long keys_like(const char *pattern)
{
    redisReply *r = redisCommand(redis, "KEYS %s", pattern);
    long n = (long)r->elements;
    freeReplyObject(r);
    return n;
}

static inline void expect_nothing_left(void)
{
    assert_int_equal(keys_like("*}b:*") + keys_like("*}w:*") + keys_like("*}r:*"), 0);
    assert_int_equal(keys_like("*}d:*") + keys_like("*}t*") + keys_like("*}c"), 0);
}

static inline void simply(const char *command)
{
    redisReply *r = redisCommand(redis, command);
    assert_non_null(r);
    assert_int_not_equal(r->type, REDIS_REPLY_ERROR);
    freeReplyObject(r);
}

static inline void load_functions(void)
{
    redisReply *r = redisCommand(redis, "FUNCTION LOAD REPLACE %b", queue_lua, queue_lua_len);
    assert_int_equal(r->type, REDIS_REPLY_STRING);
    freeReplyObject(r);
}

static inline int start_server(void **state)
{
    static const char *const options[] = { "--appendonly", "no", NULL };
    private_redis_start(&server, options);
    redis = redisConnectUnix(server.socket);
    assert_non_null(redis);
    load_functions();
    return 0;
}

static inline int stop_server(void **state)
{
    redisFree(redis);
    private_redis_stop(&server);
    return 0;
}

static inline int fresh(void **state)
{
    simply("CONFIG SET maxmemory 0");
    simply("FLUSHALL");
    finished = finished_lost = 0;
    return 0;
}

#define row(test) cmocka_unit_test_setup(test, fresh)
