/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The committer and the claimer on a real Redis, over blocking sockets: a message's life as the
 * gateway lives it, and what happens to it when links break and workers fall silent.
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

static void wire_connect(struct wire *w)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", server.socket);
    w->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(w->fd, (struct sockaddr *)&addr, sizeof addr), 0);
}

static void wire_init(struct wire *w)
{
    redis_link_init(&w->link);
    gather_init(&w->out);
    wire_connect(w);
}

static void wire_done(struct wire *w)
{
    redis_link_lost(&w->link);
    redis_link_done(&w->link);
    gather_done(&w->out);
    close(w->fd);
}

static void wire_send(struct wire *w)
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
static void wire_settle(struct wire *w)
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

static struct now read_clock(void)
{
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct now){ mono.tv_sec * 1000 + mono.tv_nsec / 1000000,
                         wall.tv_sec * 1000 + wall.tv_nsec / 1000000 };
}

static void on_delivery(void *ctx, struct delivery *d)
{
    struct gateway *g = ctx;
    list_push_back(&g->held, &d->node);
    g->held_count++;
}

static void on_broken(void *ctx, uint16_t shard, const char *id, const char *reason)
{
    ((struct gateway *)ctx)->broken++;
}

static void on_lease_lost(void *ctx, uint16_t shard)
{
    ((struct gateway *)ctx)->lost_shards++;
}

static void gateway_init(struct gateway *g, const char *token, uint32_t lease_ms)
{
    memset(g, 0, sizeof *g);
    struct commit_config commit = { .shards = SHARDS, .lease_ms = lease_ms };
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

static void drop_held(struct gateway *g)
{
    struct list *node;
    while ((node = list_pop_front(&g->held)))
        delivery_free(list_entry(node, struct delivery, node));
    g->held_count = 0;
}

static void gateway_done(struct gateway *g)
{
    wire_done(&g->commits);
    wire_done(&g->claims);
    commit_free(g->committer);
    claim_free(g->claimer);
    drop_held(g);
    assert_int_equal(g->budget.used, 0);
}

/* Commits what waits, finishes too; returns how many batches it took. */
static uint32_t commit_all(struct gateway *g)
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
static void claim_all(struct gateway *g, uint32_t room)
{
    g->now.mono_ms += 1000;
    for (int turn = 0; turn < 60; turn++) {
        claim_pump(g->claimer, &g->claims.link, room > g->held_count ? room - g->held_count : 0,
                   &g->claims.out, &g->now);
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

static void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct mail *m = container_of(entry, struct mail, entry);
    struct message *msg = entry->message;
    m->calls++;
    m->verdict = verdict;
    for (uint32_t k = 0; k < entry->target_count && verdict == SMTP_QUEUED; k++) {
        char id[DELIVERY_ID_MAX];
        if (entry->targets[k].mode != COMMIT_LEASED)
            continue;
        snprintf(id, sizeof id, entry->target_count > 1 ? "%s/%u" : "%s", msg->id, k);
        on_delivery(m->g, delivery_new(msg, id, slice_str(entry->targets[k].dest), entry->shard,
                                       entry->targets[k].rcpts, entry->targets[k].rcpt_count));
    }
    message_unref(msg);
}

static struct mail *mail_new(struct gateway *g, uint32_t number, size_t size, uint32_t targets,
                             enum commit_mode mode)
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
    commit_add(g->committer, &m->entry, &g->now);
    return m;
}

static uint32_t finished, finished_lost;

static void on_finished(struct commit_finish *f, bool was_lost)
{
    finished++;
    finished_lost += was_lost;
    commit_finish_free(f);
}

/* Ends every delivery in hand in this way. */
static void finish_held(struct gateway *g, enum commit_finish_kind kind)
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
static long there(size_t which)
{
    long sum = 0;
    for (int shard = 0; shard < SHARDS; shard++) {
        redisReply *r = redisCommand(redis, "FCALL kilat_count 1 {q%d}n", shard);
        sum += (long)r->element[which]->integer;
        freeReplyObject(r);
    }
    return sum;
}

static long keys_like(const char *pattern)
{
    redisReply *r = redisCommand(redis, "KEYS %s", pattern);
    long n = (long)r->elements;
    freeReplyObject(r);
    return n;
}

static void expect_nothing_left(void)
{
    assert_int_equal(keys_like("*}b:*") + keys_like("*}w:*") + keys_like("*}r:*"), 0);
    assert_int_equal(keys_like("*}d:*") + keys_like("*}t*") + keys_like("*}c"), 0);
}

static void simply(const char *command)
{
    redisReply *r = redisCommand(redis, command);
    assert_non_null(r);
    assert_int_not_equal(r->type, REDIS_REPLY_ERROR);
    freeReplyObject(r);
}

static void load_functions(void)
{
    redisReply *r = redisCommand(redis, "FUNCTION LOAD REPLACE %b", queue_lua, queue_lua_len);
    assert_int_equal(r->type, REDIS_REPLY_STRING);
    freeReplyObject(r);
}

static int start_server(void **state)
{
    static const char *const options[] = { "--appendonly", "no", NULL };
    private_redis_start(&server, options);
    redis = redisConnectUnix(server.socket);
    assert_non_null(redis);
    load_functions();
    return 0;
}

static int stop_server(void **state)
{
    redisFree(redis);
    private_redis_stop(&server);
    return 0;
}

static int fresh(void **state)
{
    simply("CONFIG SET maxmemory 0");
    simply("FLUSHALL");
    finished = finished_lost = 0;
    return 0;
}

/* --- cases ----------------------------------------------------------------------------------- */

static void accepted_delivered_forgotten(void **state)
{
    struct gateway g;
    struct mail *m[50];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 50; i++)
        m[i] = mail_new(&g, i, 10240, 1 + i % 2, COMMIT_LEASED);
    assert_int_equal(commit_all(&g), 1);
    assert_int_equal(g.held_count, 75);
    assert_int_equal(there(5), 75);
    assert_int_equal(keys_like("*}b:*"), 50);
    finish_held(&g, FINISH_DONE);
    assert_int_equal(commit_all(&g), 1);
    assert_int_equal(finished, 75);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(m[i]->verdict, SMTP_QUEUED);
        free(m[i]);
    }
    gateway_done(&g);
}

static void retried_claimed_and_read_back(void **state)
{
    struct gateway g;
    struct mail *m[100];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 100; i++) {
        m[i] = mail_new(&g, i, 5000 + i, 1, i % 2 ? COMMIT_LEASED : COMMIT_READY);
        if (i % 10 == 9)
            commit_all(&g); /* over all shards */
    }
    finish_held(&g, FINISH_RETRY);
    commit_all(&g);
    assert_int_equal(there(1), 50);
    assert_int_equal(there(3), 50);
    claim_all(&g, 30);
    assert_int_equal(g.held_count, 30); /* never more than there is room for */
    claim_all(&g, 1000);
    assert_int_equal(g.held_count, 100);
    list_for_each (node, &g.held) {
        const struct delivery *d = list_entry(node, struct delivery, node);
        uint32_t number = (uint32_t)atoi(d->id + 1);
        assert_int_equal(d->message->body.len, 5000 + number);
        assert_int_equal(d->attempts, number % 2);
        assert_int_equal(d->rcpt_count, 2);
        assert_string_equal(d->dest, "d0.example");
    }
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    for (uint32_t i = 0; i < 100; i++)
        free(m[i]);
    gateway_done(&g);
}

static void two_gateways_share_and_one_falls_silent(void **state)
{
    struct gateway a, b;
    struct mail *m[20];
    gateway_init(&a, "aaaaaaaaaaaaaaaa", 1000);
    gateway_init(&b, "bbbbbbbbbbbbbbbb", 1000);
    for (uint32_t i = 0; i < 20; i++) {
        m[i] = mail_new(&a, i, 1000, 2, COMMIT_LEASED);
        if (i % 5 == 4)
            commit_all(&a);
    }
    claim_all(&a, 0);
    assert_true(claim_lease_is_live(a.claimer, 0, &a.now));
    claim_all(&b, 100);
    assert_int_equal(b.held_count, 0);
    for (int beat = 0; beat < 3; beat++) { /* a says nothing for longer than its lease */
        usleep(450000);
        claim_all(&b, 100);
    }
    assert_int_equal(b.held_count, 40);
    assert_int_equal(metrics_get(&b.metrics, METRIC_REAPED_TOTAL), 40);
    /* a comes back: its lease is not live, Redis tells it why, and what it ends is lost. */
    a.now.mono_ms += 1350;
    assert_false(claim_lease_is_live(a.claimer, 0, &a.now));
    finish_held(&a, FINISH_DONE);
    commit_all(&a);
    assert_int_equal(finished_lost, 40);
    claim_all(&a, 0);
    assert_int_equal(a.lost_shards, SHARDS);
    finish_held(&b, FINISH_DONE);
    commit_all(&b);
    assert_int_equal(finished, 80);
    assert_int_equal(finished_lost, 40);
    expect_nothing_left();
    for (uint32_t i = 0; i < 20; i++)
        free(m[i]);
    gateway_done(&a);
    gateway_done(&b);
}

/* The link breaks with a batch in flight that had been executed: sent again, nothing doubles. */
static void a_broken_link_doubles_nothing(void **state)
{
    struct gateway g;
    struct mail *m[10];
    uint64_t number;
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 10; i++)
        m[i] = mail_new(&g, i, 2000, 1, i < 5 ? COMMIT_LEASED : COMMIT_READY);
    assert_true(commit_next(g.committer, &g.commits.link, 1, &g.commits.out, &g.now, &number));
    wire_send(&g.commits);
    commit_sent(g.committer, number);
    for (int i = 0; i < 500 && there(1) + there(5) < 10; i++)
        usleep(2000);
    assert_int_equal(there(1) + there(5), 10);
    redis_link_lost(&g.commits.link);
    close(g.commits.fd);
    assert_int_equal(m[0]->calls, 0);
    wire_connect(&g.commits);
    commit_link_up(g.committer);
    assert_int_equal(commit_all(&g), 1);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(m[i]->calls, 1);
        assert_int_equal(m[i]->verdict, SMTP_QUEUED);
        free(m[i]);
    }
    assert_int_equal(there(1), 5);
    assert_int_equal(there(5), 5);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    claim_all(&g, 100);
    assert_int_equal(g.held_count, 5);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    expect_nothing_left();
    gateway_done(&g);
}

/* Answered 451 while Redis was out of reach, although the transaction had run: taken back. */
static void what_was_refused_is_not_delivered(void **state)
{
    struct gateway g;
    uint64_t number;
    gateway_init(&g, "1111111111111111", 5000);
    struct mail *m[2] = { mail_new(&g, 1, 2000, 2, COMMIT_LEASED),
                          mail_new(&g, 2, 2000, 1, COMMIT_READY) };
    assert_true(commit_next(g.committer, &g.commits.link, 1, &g.commits.out, &g.now, &number));
    wire_send(&g.commits);
    commit_sent(g.committer, number);
    for (int i = 0; i < 500 && there(1) + there(5) < 3; i++)
        usleep(2000);
    redis_link_lost(&g.commits.link);
    close(g.commits.fd);
    g.now.mono_ms += 30000;
    commit_tick(g.committer, &g.now);
    assert_int_equal(m[0]->verdict, SMTP_NOT_QUEUED);
    assert_int_equal(m[1]->verdict, SMTP_NOT_QUEUED);
    wire_connect(&g.commits);
    commit_link_up(g.committer);
    commit_all(&g);
    expect_nothing_left();
    assert_int_equal(commit_pending(g.committer), 0);
    free(m[0]);
    free(m[1]);
    gateway_done(&g);
}

static void a_full_redis_says_452_and_drains(void **state)
{
    struct gateway g;
    struct mail *m[20];
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t i = 0; i < 20; i++)
        m[i] = mail_new(&g, i, 100000, 1, COMMIT_LEASED);
    commit_all(&g);
    simply("CONFIG SET maxmemory 1000000");
    struct mail *refused = mail_new(&g, 77, 1000, 1, COMMIT_LEASED);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(refused->verdict, SMTP_QUEUE_FULL);
    commit_all(&g);
    assert_int_equal(finished, 20);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
    struct mail *late = mail_new(&g, 78, 1000, 1, COMMIT_LEASED);
    simply("CONFIG SET maxmemory 0");
    commit_all(&g);
    assert_int_equal(late->verdict, SMTP_QUEUED);
    for (uint32_t i = 0; i < 20; i++)
        free(m[i]);
    free(refused);
    free(late);
    gateway_done(&g);
}

static void a_missing_library_delays_and_loses_nothing(void **state)
{
    struct gateway g;
    gateway_init(&g, "1111111111111111", 5000);
    simply("FUNCTION DELETE kilat");
    struct mail *m = mail_new(&g, 1, 1000, 1, COMMIT_LEASED);
    commit_all(&g);
    assert_int_equal(m->calls, 0);
    assert_int_equal(keys_like("*"), 0);
    load_functions();
    g.now.mono_ms += 1000;
    commit_all(&g);
    assert_int_equal(m->verdict, SMTP_QUEUED);
    assert_int_equal(there(5), 1);
    free(m);
    gateway_done(&g);
}

static void on_chunk(struct redis_request *req, const redisReply *reply)
{
    assert_non_null(reply);
    assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
}

/* Chunk n of a message, in this shard. */
static void put_chunk(struct gateway *g, uint16_t shard, const char *id, uint32_t n)
{
    struct redis_request put;
    struct chain chunk;
    chain_init(&chunk, &g->budget);
    for (int i = 0; i < 10000; i++)
        chain_append(&chunk, SLICE("0123456789"));
    claim_chunk_put(&g->claims.link, &put, on_chunk, shard, id, n, &chunk, &g->claims.out);
    wire_settle(&g->claims);
    chain_done(&chunk);
}

/* A large message: chunks ahead, the end in its record; refused while one is missing. */
static void chunks_travel_beside_the_record(void **state)
{
    struct gateway g;
    gateway_init(&g, "1111111111111111", 5000);
    for (uint32_t present = 1; present <= 2; present++) {
        struct mail *m = mail_new(&g, present, 100, 1, COMMIT_READY);
        m->entry.message->chunk_count = 2;
        m->entry.message->size = 200100;
        for (uint32_t n = 0; n < present; n++)
            put_chunk(&g, (uint16_t)(present - 1), m->id, n); /* the next batch's shard */
        commit_all(&g);
        assert_int_equal(m->verdict, present == 2 ? SMTP_QUEUED : SMTP_NOT_QUEUED);
        assert_int_equal(there(1), present == 2);
        free(m);
    }
    claim_all(&g, 10);
    assert_int_equal(g.held_count, 1);
    const struct delivery *d = list_entry(g.held.next, struct delivery, node);
    assert_int_equal(d->message->chunk_count, 2);
    assert_int_equal(d->message->size, 200100);
    assert_int_equal(d->message->body.len, 100);
    struct redis_request get;
    claim_chunk_get(&g.claims.link, &get, on_chunk, d->shard, d->message->id, 1, &g.claims.out);
    wire_settle(&g.claims);
    finish_held(&g, FINISH_DONE);
    commit_all(&g);
    assert_int_equal(keys_like("*}b:m0000000000000000002*"), 0);
    assert_int_equal(keys_like("*}b:*"), 1); /* the refused one's chunk, until its TTL */
    gateway_done(&g);
}

static void draining_hands_everything_back(void **state)
{
    struct gateway a, b;
    struct mail *m[10];
    gateway_init(&a, "aaaaaaaaaaaaaaaa", 60000);
    gateway_init(&b, "bbbbbbbbbbbbbbbb", 60000);
    for (uint32_t i = 0; i < 10; i++)
        m[i] = mail_new(&a, i, 1000, 1, COMMIT_LEASED);
    commit_all(&a);
    claim_bye(a.claimer, &a.claims.link, &a.claims.out);
    wire_settle(&a.claims);
    assert_true(claim_bye_is_done(a.claimer));
    claim_all(&b, 100);
    assert_int_equal(b.held_count, 10);
    /* In the order in which they came. */
    uint32_t number = 0;
    list_for_each (node, &b.held)
        assert_int_equal(atoi(list_entry(node, struct delivery, node)->id + 1), number++);
    for (uint32_t i = 0; i < 10; i++)
        free(m[i]);
    gateway_done(&a);
    gateway_done(&b);
}

#define row(test) cmocka_unit_test_setup(test, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        row(accepted_delivered_forgotten),
        row(retried_claimed_and_read_back),
        row(two_gateways_share_and_one_falls_silent),
        row(a_broken_link_doubles_nothing),
        row(what_was_refused_is_not_delivered),
        row(a_full_redis_says_452_and_drains),
        row(a_missing_library_delays_and_loses_nothing),
        row(chunks_travel_beside_the_record),
        row(draining_hands_everything_back),
    };
    return cmocka_run_group_tests_name("queue_wire", tests, start_server, stop_server);
}
