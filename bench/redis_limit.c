/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_limit - how many messages a second Redis queues durably when a client does nothing else:
 * the gateway's own group commits, of messages that are made up, without SMTP, sessions or
 * deliveries.
 *
 *     redis_limit SOCKET OCTETS SECONDS        a gateway runs there: it has loaded the functions
 *
 * What it queues is held, as by a route that holds.
 */
#include "bench/body.h"
#include "bench/engine.h"
#include "core/base/entropy.h"
#include "core/base/must.h"
#include "core/smtp/queue_id.h"
#include "queue/commit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define TOOL     "redis_limit"
#define AT_ONCE  600 /* messages that wait for their commit: the next batch is always full */
#define SENT_MAX 16
#define SHARDS   16

struct limit {
    struct engine engine;
    struct conn *conn;
    struct redis_link link;
    struct committer *committer;
    struct entropy entropy;
    uint64_t seed;
    const char *body;
    uint32_t octets;
    uint64_t queued, failed, batches;
    struct {
        uint64_t number, end;
    } sent[SENT_MAX];
    uint32_t sent_count;
    bool is_open, is_over;
};

struct mail {
    struct commit_entry entry;
    struct commit_target target;
    struct limit *limit;
};

static void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct mail *m = container_of(entry, struct mail, entry);
    m->limit->queued += verdict == SMTP_QUEUED;
    m->limit->failed += verdict != SMTP_QUEUED;
    message_unref(entry->message);
    free(m);
}

static void add_mail(struct limit *l)
{
    static const uint32_t first[] = { 0 };
    struct mail *m = mem_zalloc(sizeof *m);
    struct message *message = message_new(NULL);
    queue_id_make(message->id, l->engine.now.wall_ms, &l->entropy);
    message->sender = SLICE("bench@source.test");
    message_add_rcpt(message, SLICE("bench@sink.test"), SLICE("sink.test"));
    chain_append(&message->content, slice_of(l->body, l->octets));
    message->size = l->octets;
    message->accepted_ms = l->engine.now.wall_ms;
    m->limit = l;
    m->target = (struct commit_target){ .mode = COMMIT_HELD, .rcpts = first, .rcpt_count = 1 };
    snprintf(m->target.dest, sizeof m->target.dest, "!*");
    m->entry = (struct commit_entry){ .message = message,
                                      .targets = &m->target,
                                      .target_count = 1,
                                      .shard = COMMIT_ANY_SHARD,
                                      .expires_ms = l->engine.now.wall_ms + 86400000,
                                      .deadline_ms = INT64_MAX,
                                      .done = on_verdict };
    list_init(&m->entry.with);
    commit_add(l->committer, &m->entry, &l->engine.now);
}

static void pump(void *ctx)
{
    struct limit *l = ctx;
    uint64_t number;
    if (!l->is_open)
        return;
    while (!l->is_over && commit_pending(l->committer) < AT_ONCE)
        add_mail(l);
    while (l->sent_count < SENT_MAX && commit_next(l->committer, &l->link, AT_ONCE,
                                                   conn_out(l->conn), &l->engine.now, &number)) {
        l->sent[l->sent_count].number = number;
        l->sent[l->sent_count++].end = conn_offset(l->conn);
        l->batches++;
    }
}

static void on_open(struct conn *c, int result)
{
    struct limit *l = c->owner;
    if (result < 0)
        engine_die(TOOL, "cannot connect: %s", strerror(-result));
    l->is_open = true;
    commit_link_up(l->committer);
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct limit *l = c->owner;
    if (redis_link_feed(&l->link, in) != STATUS_OK)
        engine_die(TOOL, "that is not Redis");
    return in.len;
}

static void on_sent(struct conn *c, uint64_t sent)
{
    struct limit *l = c->owner;
    uint32_t n = 0;
    while (n < l->sent_count && l->sent[n].end <= sent)
        commit_sent(l->committer, l->sent[n++].number);
    l->sent_count -= n;
    memmove(l->sent, l->sent + n, l->sent_count * sizeof *l->sent);
}

static void on_end(struct conn *c, int result)
{
    engine_die(TOOL, "Redis has closed the connection");
}

static void on_closed(struct conn *c) {}

static void connect_to(struct limit *l, const char *path)
{
    static const struct conn_events events = { on_open, on_data, on_end, NULL, on_sent, on_closed };
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof addr.sun_path)
        engine_die(TOOL, "%s: is too long for the path of a socket", path);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    l->conn =
        conn_connect(&l->engine.conns, NULL, (struct sockaddr *)&addr, sizeof addr, &events, l);
    if (!l->conn)
        engine_die(TOOL, "cannot make a socket");
}

static void run(struct limit *l, double seconds)
{
    uint64_t before = 0, batches = 0;
    int64_t began = 0, now = engine_ns(), warm = now + 500000000;
    for (; !began || now - began < (int64_t)(seconds * 1e9); now = engine_ns()) {
        engine_turn(&l->engine, 100, 1, pump, l);
        if (began || now < warm)
            continue;
        began = now;
        before = l->queued;
        batches = l->batches;
    }
    double elapsed = (double)(now - began) / 1e9;
    uint64_t queued = l->queued - before;
    l->is_over = true;
    printf(
        "{\"messages_per_second\": %.1f, \"messages_per_transaction\": %.1f, \"failed\": %llu}\n",
        (double)queued / elapsed, (double)queued / (double)(l->batches - batches),
        (unsigned long long)l->failed);
}

int main(int argc, char **argv)
{
    struct limit *l = mem_zalloc(sizeof *l);
    struct commit_config cfg = {
        .shards = SHARDS, .lease_ms = 20000, .worker = "be2c4be2c4be2c40", .packs = true
    };
    if (argc != 4)
        engine_die(TOOL, "write SOCKET OCTETS SECONDS");
    l->octets = (uint32_t)engine_number(TOOL, "OCTETS", argv[2], 300, 1 << 28);
    l->body = body_make(l->octets, false);
    engine_init(&l->engine, TOOL, 2);
    cfg.metrics = &l->engine.metrics;
    l->committer = commit_new(&cfg);
    l->seed = (uint64_t)engine_ns();
    entropy_init_seeded(&l->entropy, &l->seed);
    redis_link_init(&l->link);
    connect_to(l, argv[1]);
    run(l, (double)engine_number(TOOL, "SECONDS", argv[3], 1, 3600));
    while (commit_pending(l->committer) > 0)
        engine_turn(&l->engine, 100, 1, pump, l);
    bool is_well = l->failed == 0 && l->queued > 0;
    conn_close(l->conn);
    while (conn_table_live(&l->engine.conns) > 0)
        engine_turn(&l->engine, 100, 1, pump, l);
    commit_free(l->committer);
    redis_link_done(&l->link);
    engine_done(&l->engine);
    free((char *)l->body);
    free(l);
    return is_well ? 0 : 1;
}
