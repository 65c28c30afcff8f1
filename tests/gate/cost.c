/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cost - a fixed number of messages through the machines, in memory, for counting instructions:
 *
 *     cost accept MESSAGES    session -> content -> record -> group commit -> 250
 *     cost relay MESSAGES     the same, then to a peer, and out of the queue
 *
 * 32 sessions send messages of 10 KiB, one command after the other, in pieces as a ring brings
 * them. No system call is made on the way, and chance and clock are fixed: the same program
 * executes the same instructions each time. Redis and the peer are texts that say yes.
 */
#include "core/base/must.h"
#include "core/relay/delivery.h"
#include "core/smtp/client.h"
#include "core/smtp/session.h"
#include "queue/commit.h"
#include "tests/lib/smtp_server.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS 32
#define OCTETS   10240
#define PIECE    16384
#define PEER     "peer.example"

struct mail {
    struct commit_entry entry;
    struct commit_target target;
    struct smtp_session *session;
};

struct scene {
    struct test_server server;
    struct smtp_session sessions[SESSIONS];
    struct committer *committer;
    struct redis_link link;
    struct gather to_redis, to_peer;
    struct smtp_client client;
    struct list accepted; /* struct delivery: to be relayed */
    struct slice content; /* with its dot */
    bool relays;
    uint32_t done;
};

static struct scene scene; /* on_verdict has no other way to it */

/* --- the queue ------------------------------------------------------------------------------- */

static void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct mail *mail = container_of(entry, struct mail, entry);
    must(verdict == SMTP_QUEUED);
    smtp_session_verdict(mail->session, verdict, entry->message->id, &scene.server.now);
    if (scene.relays) {
        struct delivery *d =
            delivery_new(entry->message, entry->message->id, slice_str(mail->target.dest),
                         entry->shard, mail->target.rcpts, 1);
        list_push_back(&scene.accepted, &d->node);
    }
    message_unref(entry->message);
    free(mail);
    scene.done++;
}

static void queue(struct smtp_session *session)
{
    static const uint32_t first[] = { 0 };
    struct mail *mail = mem_zalloc(sizeof *mail);
    mail->session = session;
    mail->target = (struct commit_target){ .mode = COMMIT_LEASED, .rcpts = first, .rcpt_count = 1 };
    strcpy(mail->target.dest, PEER);
    mail->entry = (struct commit_entry){ .message = smtp_session_take_message(session),
                                         .targets = &mail->target,
                                         .target_count = 1,
                                         .shard = COMMIT_ANY_SHARD,
                                         .expires_ms = TEST_WALL_MS + 86400000,
                                         .deadline_ms = INT64_MAX,
                                         .done = on_verdict };
    list_init(&mail->entry.with);
    commit_add(scene.committer, &mail->entry, &scene.server.now);
}

static void say(const char *reply)
{
    must(redis_link_feed(&scene.link, slice_str(reply)) == STATUS_OK);
}

/* Redis does as it is told. A transaction of messages is one kilat_enq and a SET for each; finished
 * work alone is one kilat_done. */
static void answer(void)
{
    struct redis_request *request = list_entry(scene.link.pending.next, struct redis_request, node);
    uint32_t commands = request->replies - 2;
    char head[16];
    if (request->replies == 1) {
        say("*0\r\n");
        return;
    }
    say("+OK\r\n");
    for (uint32_t i = 0; i < commands; i++)
        say("+QUEUED\r\n");
    snprintf(head, sizeof head, "*%u\r\n", commands);
    say(head);
    say(commands > 1 ? "*2\r\n*0\r\n*0\r\n" : "*0\r\n");
    for (uint32_t i = 1; i < commands; i++)
        say("+OK\r\n");
}

static void commit(void)
{
    uint64_t number;
    scene.server.now.mono_ms += COMMIT_FINISH_DELAY_MS;
    while (
        commit_next(scene.committer, &scene.link, 1, &scene.to_redis, &scene.server.now, &number)) {
        gather_clear(&scene.to_redis);
        commit_sent(scene.committer, number);
        answer();
    }
}

/* --- in -------------------------------------------------------------------------------------- */

static void feed(struct smtp_session *session, struct slice text)
{
    while (text.len > 0) {
        struct slice piece = slice_head(text, PIECE);
        must(smtp_session_input(session, piece, &scene.server.now) == piece.len);
        text = slice_skip(text, piece.len);
    }
    buf_done(&session->out);
}

static void feed_all(struct slice text)
{
    for (int i = 0; i < SESSIONS; i++)
        feed(&scene.sessions[i], text);
}

static void accept_some(void)
{
    feed_all(SLICE("MAIL FROM:<sender@source.example> SIZE=10240\r\n"));
    feed_all(SLICE("RCPT TO:<somebody@" PEER ">\r\n"));
    feed_all(SLICE("DATA\r\n"));
    feed_all(scene.content);
    for (int i = 0; i < SESSIONS; i++) {
        must(scene.sessions[i].wait == SMTP_WAIT_COMMIT);
        queue(&scene.sessions[i]);
    }
    commit();
    for (int i = 0; i < SESSIONS; i++)
        buf_done(&scene.sessions[i].out);
}

/* --- out ------------------------------------------------------------------------------------- */

static void hear(const char *replies)
{
    smtp_client_input(&scene.client, slice_str(replies), &scene.server.now);
}

static void on_finished(struct commit_finish *finish, bool was_lost)
{
    must(!was_lost);
    commit_finish_free(finish);
}

static void write_body(struct delivery *d, struct smtp_txn *txn)
{
    struct dot_stuffer stuffer;
    struct slice out;
    dot_stuffer_init(&stuffer);
    for (struct chain_seg *seg = d->message->content.head; seg; seg = seg->next)
        for (struct slice rest = slice_of(seg->data, seg->len);
             dot_stuff_next(&stuffer, &rest, &out);)
            gather_ref(&scene.to_peer, out);
    gather_copy(&scene.to_peer, dot_stuff_end(&stuffer));
    smtp_client_body_sent(&scene.client, txn, &scene.server.now);
}

static void relay_one(struct delivery *d)
{
    struct smtp_txn *txn = &d->txn;
    *txn = (struct smtp_txn){ .message = d->message,
                              .rcpts = d->rcpts,
                              .rcpt_count = 1,
                              .outcomes = d->outcomes,
                              .arena = &d->arena };
    smtp_client_begin(&scene.client, txn, &scene.server.now);
    while (smtp_client_next(&scene.client, &scene.to_peer, &txn, &scene.server.now) ==
           CLIENT_NEXT_BYTES)
        ;
    hear("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n");
    must(smtp_client_next(&scene.client, &scene.to_peer, &txn, &scene.server.now) ==
         CLIENT_NEXT_BODY);
    write_body(d, txn);
    hear("250 2.0.0 Taken\r\n");
    must(smtp_client_finished(&scene.client) == &d->txn && d->outcomes[0].code == 250);
    gather_clear(&scene.to_peer);
    struct commit_finish *finish = commit_finish_new(FINISH_DONE, d->shard, d->id);
    finish->done = on_finished;
    commit_finish(scene.committer, finish, &scene.server.now);
    delivery_free(d);
}

static void relay_all(void)
{
    struct list *node;
    while ((node = list_pop_front(&scene.accepted)))
        relay_one(list_entry(node, struct delivery, node));
    commit();
}

/* --- the run --------------------------------------------------------------------------------- */

/* Words that a compressor halves. */
static char *make_content(void)
{
    static const char header[] = "From: a@source.example\r\nTo: b@" PEER "\r\nSubject: cost\r\n"
                                 "Date: Mon, 23 Nov 2026 00:00:00 +0000\r\n"
                                 "Message-ID: <1@source.example>\r\n\r\n";
    char *content = mem_alloc(OCTETS + 4);
    uint32_t seed = 1;
    size_t len = sizeof header - 1;
    memcpy(content, header, len);
    for (uint32_t column = 0; len < OCTETS - 2; len++) {
        seed = seed * 1664525 + 1013904223;
        bool ends = ++column == 76;
        content[len] = ends ? '\r' : (seed >> 28) < 3 ? ' ' : (char)('a' + (seed >> 24) % 12);
        if (ends && len + 1 < OCTETS - 2) {
            content[++len] = '\n';
            column = 0;
        } else if (ends) {
            content[len] = 'x';
        }
    }
    memcpy(content + len, "\r\n.\r\n", 6);
    return content;
}

static void prepare(bool relays)
{
    struct commit_config cfg = {
        .shards = 16, .lease_ms = 20000, .packs = true, .worker = "0123456789abcdef"
    };
    struct smtp_peer peer = { .client = SLICE("192.0.2.1"), .is_trusted = true };
    struct client_policy policy = { 0 };
    test_server_init(&scene.server);
    scene.server.server.limits.message_size_max = 1000000;
    cfg.metrics = &scene.server.metrics;
    scene.relays = relays;
    scene.committer = commit_new(&cfg);
    redis_link_init(&scene.link);
    gather_init(&scene.to_redis);
    gather_init(&scene.to_peer);
    list_init(&scene.accepted);
    scene.content = slice_str(make_content());
    for (int i = 0; i < SESSIONS; i++)
        smtp_session_init(&scene.sessions[i], &scene.server.service, &peer, &scene.server.now);
    feed_all(SLICE("EHLO source.example\r\n"));
    smtp_client_init(&scene.client, &policy, SLICE("kilat.test"), 0, &scene.server.now);
    hear("220 " PEER "\r\n");
    struct smtp_txn *txn;
    while (smtp_client_next(&scene.client, &scene.to_peer, &txn, &scene.server.now) ==
           CLIENT_NEXT_BYTES)
        ;
    hear("250-" PEER "\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
    gather_clear(&scene.to_peer);
}

static void clean_up(void)
{
    for (int i = 0; i < SESSIONS; i++)
        smtp_session_done(&scene.sessions[i]);
    smtp_client_lost(&scene.client, OUTCOME_CONNECT, "the end");
    smtp_client_done(&scene.client);
    commit_free(scene.committer);
    redis_link_done(&scene.link);
    gather_done(&scene.to_redis);
    gather_done(&scene.to_peer);
    free((char *)scene.content.ptr);
}

int main(int argc, char **argv)
{
    uint32_t wanted = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    if (wanted == 0) {
        fprintf(stderr, "usage: cost accept|relay MESSAGES\n");
        return 2;
    }
    prepare(strcmp(argv[1], "relay") == 0);
    while (scene.done < wanted) {
        accept_some();
        if (scene.relays)
            relay_all();
    }
    must(scene.server.budget.used == 0);
    clean_up();
    printf("%u\n", scene.done);
    return 0;
}
