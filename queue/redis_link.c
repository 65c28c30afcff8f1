/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_link - hiredis as a parser, a FIFO of requests, and an encoder of commands.
 *
 * Redis answers in order, so the oldest pending request owns the next reply. A request may await
 * several: of MULTI, n commands and EXEC it sees only the last, and the first error among the
 * others. Nearly all of those replies say +OK or +QUEUED, which are static objects here: they cost
 * no allocation. Every other reply is one allocation per object, its text inside.
 *
 * Limits: ARRAY_MAX elements in one array (Redis is a peer: a length it sends must not become
 * memory unchecked), hiredis' depth of 7, BUF_KEEP octets of idle read buffer.
 * on_reply may push and append new requests; it must not feed the link or declare it lost.
 */
#include "queue/redis_link.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

#define ARRAY_MAX (1 << 20)
/* hiredis frees its buffer, when it is empty, above this; its default of 16 KiB would do so after
 * nearly every turn. */
#define BUF_KEEP (1024 * 1024)

/* --- replies --------------------------------------------------------------------------------- */

static char ok_text[] = "OK", queued_text[] = "QUEUED";
static redisReply reply_ok = { .type = REDIS_REPLY_STATUS, .str = ok_text, .len = 2 };
static redisReply reply_queued = { .type = REDIS_REPLY_STATUS, .str = queued_text, .len = 6 };
static redisReply reply_nil = { .type = REDIS_REPLY_NIL };

static bool is_static(const redisReply *r)
{
    return r == &reply_ok || r == &reply_queued || r == &reply_nil;
}

/* Puts an object where its parent expects it. */
static void *place(const redisReadTask *task, redisReply *r)
{
    if (task->parent) {
        redisReply *parent = task->parent->obj;
        must(parent->type == REDIS_REPLY_ARRAY && (size_t)task->idx < parent->elements);
        parent->element[task->idx] = r;
    }
    return r;
}

static redisReply *static_status(struct slice text)
{
    if (slice_eq(text, SLICE("QUEUED")))
        return &reply_queued;
    return slice_eq(text, SLICE("OK")) ? &reply_ok : NULL;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    redisReply *r = task->type == REDIS_REPLY_STATUS ? static_status(slice_of(text, len)) : NULL;
    if (!r) {
        r = mem_alloc(sizeof *r + len + 1);
        *r = (redisReply){ .type = task->type, .len = len, .str = (char *)(r + 1) };
        memcpy(r->str, text, len);
        r->str[len] = 0;
    }
    return place(task, r);
}

static void *create_array(const redisReadTask *task, int elements)
{
    if (elements < 0 || elements > ARRAY_MAX)
        return NULL; /* the reader then fails, and the connection with it */
    size_t size = (size_t)elements * sizeof(redisReply *);
    redisReply *r = mem_zalloc(sizeof *r + size);
    r->type = REDIS_REPLY_ARRAY;
    r->elements = (size_t)elements;
    r->element = (redisReply **)(r + 1);
    return place(task, r);
}

static void *create_integer(const redisReadTask *task, long long number)
{
    redisReply *r = mem_alloc(sizeof *r);
    *r = (redisReply){ .type = REDIS_REPLY_INTEGER, .integer = number };
    return place(task, r);
}

static void *create_nil(const redisReadTask *task)
{
    return place(task, &reply_nil);
}

static void free_reply(void *object)
{
    redisReply *r = object;
    if (!r || is_static(r))
        return;
    if (r->type == REDIS_REPLY_ARRAY)
        for (size_t i = 0; i < r->elements; i++)
            free_reply(r->element[i]); /* NULL where a broken reply ended */
    free(r);
}

static redisReplyObjectFunctions functions = { create_string, create_array, create_integer,
                                               create_nil, free_reply };

/* --- the link -------------------------------------------------------------------------------- */

static redisReader *new_reader(void)
{
    redisReader *reader = redisReaderCreateWithFunctions(&functions);
    must(reader);
    reader->maxbuf = BUF_KEEP;
    return reader;
}

void redis_link_init(struct redis_link *l)
{
    *l = (struct redis_link){ .reader = new_reader() };
    list_init(&l->pending);
}

void redis_link_done(struct redis_link *l)
{
    must(list_is_empty(&l->pending));
    redisReaderFree(l->reader);
    l->reader = NULL;
}

void redis_link_push(struct redis_link *l, struct redis_request *req, uint32_t replies,
                     redis_reply_fn *on_reply)
{
    must(replies > 0);
    req->on_reply = on_reply;
    req->replies = replies;
    req->replies_seen = 0;
    req->error[0] = 0;
    list_push_back(&l->pending, &req->node);
    l->pending_count++;
}

/* One reply for the oldest request; false: nobody awaits it. */
static bool take_reply(struct redis_link *l, const redisReply *reply)
{
    if (list_is_empty(&l->pending))
        return false;
    struct redis_request *req = list_entry(l->pending.next, struct redis_request, node);
    if (++req->replies_seen < req->replies) {
        if (reply->type == REDIS_REPLY_ERROR && !req->error[0])
            snprintf(req->error, sizeof req->error, "%s", reply->str);
        return true;
    }
    list_remove(&req->node);
    l->pending_count--;
    req->on_reply(req, reply); /* req may be gone now */
    return true;
}

enum status redis_link_feed(struct redis_link *l, struct slice in)
{
    if (redisReaderFeed(l->reader, in.ptr, in.len) != REDIS_OK)
        return STATUS_BAD;
    for (;;) {
        void *reply;
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK)
            return STATUS_BAD;
        if (!reply)
            return STATUS_OK;
        bool was_awaited = take_reply(l, reply);
        free_reply(reply);
        if (!was_awaited)
            return STATUS_BAD;
    }
}

void redis_link_lost(struct redis_link *l)
{
    struct list orphans, *node;
    redisReaderFree(l->reader);
    l->reader = new_reader();
    list_init(&orphans);
    list_append_all(&orphans, &l->pending);
    l->pending_count = 0;
    while ((node = list_pop_front(&orphans))) {
        struct redis_request *req = list_entry(node, struct redis_request, node);
        req->on_reply(req, NULL);
    }
}

/* --- commands -------------------------------------------------------------------------------- */

/* "<mark><n>\r\n", by hand: a batch has some thousand of these. */
static void put_head(struct gather *out, char mark, size_t n)
{
    char text[24], *at = text + sizeof text;
    *--at = '\n';
    *--at = '\r';
    do
        *--at = (char)('0' + n % 10);
    while (n /= 10);
    *--at = mark;
    gather_copy(out, slice_of(at, (size_t)(text + sizeof text - at)));
}

void redis_command_begin(struct gather *out, size_t argc)
{
    put_head(out, '*', argc);
}

void redis_arg_open(struct gather *out, size_t octets)
{
    put_head(out, '$', octets);
}

void redis_arg_close(struct gather *out)
{
    gather_copy(out, SLICE("\r\n"));
}

void redis_arg(struct gather *out, struct slice arg)
{
    redis_arg_open(out, arg.len);
    gather_copy(out, arg);
    redis_arg_close(out);
}

void redis_arg_num(struct gather *out, int64_t n)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%lld", (long long)n);
    redis_arg(out, slice_of(text, (size_t)len));
}

void redis_command(struct gather *out, const struct slice *argv, size_t argc)
{
    redis_command_begin(out, argc);
    for (size_t i = 0; i < argc; i++)
        redis_arg(out, argv[i]);
}
