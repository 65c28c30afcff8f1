/* SPDX-License-Identifier: Apache-2.0 */
/* The Redis codec: replies find their requests however the bytes come; commands are RESP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "queue/redis_link.h"
#include <stdio.h>

#define REQUESTS_MAX 8

/* A request that writes down what it was told. */
struct asked {
    struct redis_request request;
    uint32_t calls;
    bool was_lost;
    char seen[256]; /* the last reply as text */
};

static void describe(const redisReply *r, char *out, size_t max)
{
    size_t n = strlen(out);
    if (r->type == REDIS_REPLY_INTEGER)
        snprintf(out + n, max - n, ":%lld ", r->integer);
    else if (r->type == REDIS_REPLY_NIL)
        snprintf(out + n, max - n, "nil ");
    else if (r->type == REDIS_REPLY_ARRAY)
        snprintf(out + n, max - n, "[ ");
    else
        snprintf(out + n, max - n, "%c%.*s ", "?$???+-"[r->type], (int)r -> len, r -> str);
    if (r->type != REDIS_REPLY_ARRAY)
        return;
    for (size_t i = 0; i < r->elements; i++)
        describe(r->element[i], out, max);
    n = strlen(out);
    snprintf(out + n, max - n, "] ");
}

static void on_reply(struct redis_request *req, const redisReply *reply)
{
    struct asked *a = container_of(req, struct asked, request);
    a->calls++;
    a->was_lost = !reply;
    a->seen[0] = 0;
    if (reply)
        describe(reply, a->seen, sizeof a->seen);
}

struct row {
    const char *input;
    uint32_t replies[REQUESTS_MAX]; /* of each request; 0 ends */
    const char *seen[REQUESTS_MAX], *error[REQUESTS_MAX];
    enum status want;
};

static const struct row rows[] = {
    { "+PONG\r\n", { 1 }, { "+PONG " }, { "" }, STATUS_OK },
    { "+OK\r\n:42\r\n$-1\r\n", { 1, 1, 1 }, { "+OK ", ":42 ", "nil " }, { "", "", "" }, STATUS_OK },
    { "$5\r\na\r\nbc\r\n$0\r\n\r\n", { 1, 1 }, { "$a\r\nbc ", "$ " }, { "", "" }, STATUS_OK },
    { "*0\r\n*-1\r\n", { 1, 1 }, { "[ ] ", "nil " }, { "", "" }, STATUS_OK },
    { "*3\r\n*2\r\n+OK\r\n*1\r\n:7\r\n$-1\r\n-WRONGTYPE no\r\n",
      { 1 },
      { "[ [ +OK [ :7 ] ] nil -WRONGTYPE no ] " },
      { "" },
      STATUS_OK },
    { "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n+OK\r\n+PONG\r\n",
      { 4, 1 },
      { "[ :1 +OK ] ", "+PONG " },
      { "", "" },
      STATUS_OK },
    /* Only the first error before the last reply is kept: it is the cause. */
    { "+OK\r\n-OOM command not allowed\r\n-ERR second\r\n-EXECABORT discarded\r\n",
      { 4 },
      { "-EXECABORT discarded " },
      { "OOM command not allowed" },
      STATUS_OK },
    { "-LOADING wait\r\n", { 1 }, { "-LOADING wait " }, { "" }, STATUS_OK },
    { "+OK\r\n", { 0 }, { NULL }, { NULL }, STATUS_BAD }, /* nobody asked */
    { "+OK\r\n+OK\r\n", { 1 }, { "+OK " }, { "" }, STATUS_BAD },
    { "HTTP/1.1 400 Bad Request\r\n", { 1 }, { NULL }, { NULL }, STATUS_BAD },
    { "*2000000\r\n", { 1 }, { NULL }, { NULL }, STATUS_BAD },
    { "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
      { 1 },
      { NULL },
      { NULL },
      STATUS_BAD },
    { "$-7\r\n", { 1 }, { NULL }, { NULL }, STATUS_BAD },
    { ":12x\r\n", { 1 }, { NULL }, { NULL }, STATUS_BAD },
};

/* Feeds the row's input in pieces of `step`, each in memory of its own size. */
static void feed_row(const struct row *row, size_t step)
{
    struct redis_link link;
    struct asked asked[REQUESTS_MAX] = { 0 };
    enum status st = STATUS_OK;
    redis_link_init(&link);
    for (uint32_t i = 0; row->replies[i]; i++)
        redis_link_push(&link, &asked[i].request, row->replies[i], on_reply);
    for (size_t at = 0, len = strlen(row->input); at < len && st == STATUS_OK; at += step) {
        size_t n = len - at < step ? len - at : step;
        char *piece = mem_alloc(n);
        memcpy(piece, row->input + at, n);
        st = redis_link_feed(&link, slice_of(piece, n));
        free(piece);
    }
    assert_int_equal(st, row->want);
    for (uint32_t i = 0; row->replies[i]; i++) {
        assert_int_equal(asked[i].calls, row->seen[i] ? 1 : 0);
        if (!row->seen[i])
            continue;
        assert_string_equal(asked[i].seen, row->seen[i]);
        assert_string_equal(asked[i].request.error, row->error[i]);
    }
    redis_link_lost(&link);
    for (uint32_t i = 0; row->replies[i]; i++)
        assert_int_equal(asked[i].calls, 1);
    assert_int_equal(link.pending_count, 0);
    redis_link_done(&link);
}

static void replies_come_whole(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        feed_row(&rows[i], 1 << 20);
}

static void replies_come_byte_by_byte(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 4; step++)
            feed_row(&rows[i], step);
}

static void a_lost_link_answers_everyone_once(void **state)
{
    struct redis_link link;
    struct asked asked[3] = { 0 };
    redis_link_init(&link);
    for (int i = 0; i < 3; i++)
        redis_link_push(&link, &asked[i].request, 2, on_reply);
    /* The first is done, the second has half its replies, a third reply is cut in the middle. */
    assert_int_equal(redis_link_feed(&link, SLICE("+OK\r\n+OK\r\n-ERR x\r\n$10\r\nabc")),
                     STATUS_OK);
    assert_int_equal(asked[0].calls, 1);
    assert_int_equal(link.pending_count, 2);
    redis_link_lost(&link);
    assert_false(asked[0].was_lost);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(asked[i].calls, 1);
        assert_true(asked[i].was_lost);
    }
    /* The reader begins anew: nothing of the cut reply is left. */
    redis_link_push(&link, &asked[0].request, 1, on_reply);
    assert_int_equal(redis_link_feed(&link, SLICE(":5\r\n")), STATUS_OK);
    assert_string_equal(asked[0].seen, ":5 ");
    redis_link_done(&link);
}

/* An on_reply that asks again at once, on the link that is telling it. */
struct asking {
    struct asked asked;
    struct redis_link *link;
};

static void ask_again(struct redis_request *req, const redisReply *reply)
{
    struct asking *a = container_of(req, struct asking, asked.request);
    a->asked.calls++;
    if (a->asked.calls < 3)
        redis_link_push(a->link, req, 1, ask_again);
}

static void a_reply_may_bring_the_next_request(void **state)
{
    struct redis_link link;
    struct asking a = { .link = &link };
    redis_link_init(&link);
    redis_link_push(&link, &a.asked.request, 1, ask_again);
    assert_int_equal(redis_link_feed(&link, SLICE("+OK\r\n")), STATUS_OK);
    redis_link_lost(&link); /* asks again: that one stays, for the next connection */
    assert_int_equal(a.asked.calls, 2);
    assert_int_equal(link.pending_count, 1);
    assert_int_equal(redis_link_feed(&link, SLICE("+OK\r\n")), STATUS_OK);
    assert_int_equal(a.asked.calls, 3);
    redis_link_done(&link);
}

static void a_large_string_comes_in_pieces(void **state)
{
    struct redis_link link;
    struct asked a = { 0 };
    size_t size = 300000, fed = 0;
    char *body = mem_alloc(size);
    memset(body, 'x', size);
    redis_link_init(&link);
    redis_link_push(&link, &a.request, 1, on_reply);
    assert_int_equal(redis_link_feed(&link, SLICE("$300000\r\n")), STATUS_OK);
    for (; fed < size; fed += 16384)
        assert_int_equal(
            redis_link_feed(&link, slice_of(body + fed, size - fed < 16384 ? size - fed : 16384)),
            STATUS_OK);
    assert_int_equal(a.calls, 0);
    assert_int_equal(redis_link_feed(&link, SLICE("\r\n")), STATUS_OK);
    assert_int_equal(a.calls, 1);
    redis_link_done(&link);
    free(body);
}

/* Random bytes never crash it and never leave a request unanswered. */
static void garbage_is_bad(void **state)
{
    static const char alphabet[] = "*$:+-0123456789\r\n\r\nOKabc";
    uint64_t seed = 7;
    for (int round = 0; round < 20000; round++) {
        struct redis_link link;
        struct asked asked[4] = { 0 };
        char bytes[24];
        redis_link_init(&link);
        for (int i = 0; i < 4; i++)
            redis_link_push(&link, &asked[i].request, 1 + (uint32_t)(round % 3), on_reply);
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = alphabet[(seed >> 33) % (sizeof alphabet - 1)];
        }
        enum status st = redis_link_feed(&link, slice_of(bytes, sizeof bytes));
        assert_true(st == STATUS_OK || st == STATUS_BAD);
        redis_link_lost(&link);
        for (int i = 0; i < 4; i++)
            assert_int_equal(asked[i].calls, 1);
        redis_link_done(&link);
    }
}

static void commands_are_resp(void **state)
{
    struct gather out;
    struct iovec iov[8];
    char text[256];
    size_t len = 0;
    const struct slice argv[] = { SLICE("SET"), SLICE("k"), SLICE("") };
    gather_init(&out);
    redis_command(&out, argv, 3);
    redis_command_begin(&out, 12);
    redis_arg_num(&out, -9223372036854775807 - 1);
    redis_arg_open(&out, 10);
    gather_ref(&out, SLICE("0123"));
    gather_ref(&out, SLICE("456789"));
    redis_arg_close(&out);
    uint32_t n = gather_iov(&out, 0, 0, iov, 8);
    for (uint32_t i = 0; i < n; len += iov[i++].iov_len)
        memcpy(text + len, iov[i].iov_base, iov[i].iov_len);
    text[len] = 0;
    assert_string_equal(text, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"
                              "*12\r\n$20\r\n-9223372036854775808\r\n$10\r\n0123456789\r\n");
    gather_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_come_whole),
        cmocka_unit_test(replies_come_byte_by_byte),
        cmocka_unit_test(a_lost_link_answers_everyone_once),
        cmocka_unit_test(a_reply_may_bring_the_next_request),
        cmocka_unit_test(a_large_string_comes_in_pieces),
        cmocka_unit_test(garbage_is_bad),
        cmocka_unit_test(commands_are_resp),
    };
    return cmocka_run_group_tests_name("redis_link", tests, NULL, NULL);
}
