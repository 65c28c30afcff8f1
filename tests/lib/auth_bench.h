/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * auth_bench - an authenticator on a worker that has nothing else, and the Redis link played by the
 * test: gone, silent, or a real server asked on the spot whose replies come a turn later. Defines
 * queue_ask, so it is for programs that do not link the queue driver. Header only.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "io/auth_hash.h"
#include "io/auth_shared.h"
#include "io/drive_queue.h"

#include <argon2.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

enum bench_redis { BENCH_GONE, BENCH_SILENT, BENCH_REAL };

struct bench_reply { /* of a request on its way back */
    struct list node;
    struct redis_request *request;
    redis_reply_fn *fn;
    redisReply *reply; /* owned; NULL: it will be lost */
};

struct bench {
    struct config cfg;
    struct config_tenant tenants[1]; /* "acme" */
    struct worker w;
    struct auth_shared *shared;
    struct authenticator *a;
    char dir[64], users[96], keys[96];
    int64_t ahead_ms; /* of the real clock */
    enum bench_redis redis;
    redisContext *real;
    struct list replies;
    uint32_t asked; /* requests to Redis */
};

static struct bench *the_bench; /* queue_ask has no other way to it */

struct bench_answer {
    bool is_there;
    struct sasl_answer answer;
    int64_t at_ms;
};

bool queue_ask(struct queue_driver *q, struct redis_request *req, redis_reply_fn *fn,
               const struct slice *argv, size_t argc)
{
    struct bench *b = the_bench;
    const char *words[16];
    size_t lens[16];
    assert_true(argc <= ARRAY_LEN(words));
    if (b->redis == BENCH_GONE)
        return false;
    struct bench_reply *r = mem_zalloc(sizeof *r);
    *r = (struct bench_reply){ .request = req, .fn = fn };
    for (size_t i = 0; i < argc; i++) {
        words[i] = argv[i].len > 0 ? argv[i].ptr : "";
        lens[i] = argv[i].len;
    }
    if (b->redis == BENCH_REAL) {
        r->reply = redisCommandArgv(b->real, (int)argc, words, lens);
        assert_non_null(r->reply);
    }
    b->asked++;
    list_push_back(&b->replies, &r->node);
    return true;
}

static inline void bench_read_clock(struct bench *b)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    b->w.now.mono_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + b->ahead_ms;
    clock_gettime(CLOCK_REALTIME, &ts);
    b->w.now.wall_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Gives what Redis has said, or, when is_lost, nothing. */
static inline void bench_deliver(struct bench *b, bool is_lost)
{
    struct list now, *node;
    list_init(&now);
    list_append_all(&now, &b->replies);
    while ((node = list_pop_front(&now))) {
        struct bench_reply *r = list_entry(node, struct bench_reply, node);
        if (!r->reply && !is_lost) {
            list_push_back(&b->replies, &r->node);
            continue;
        }
        r->fn(r->request, r->reply);
        freeReplyObject(r->reply);
        free(r);
    }
}

/* One turn of a worker's loop. */
static inline void bench_turn(struct bench *b)
{
    uint64_t count;
    struct pollfd woken = { .fd = b->w.wake_fd, .events = POLLIN };
    if (poll(&woken, 1, list_is_empty(&b->replies) ? 2 : 0) == 1)
        assert_int_equal(read(b->w.wake_fd, &count, sizeof count), sizeof count);
    bench_read_clock(b);
    bench_deliver(b, false);
    wheel_advance(&b->w.wheel, b->w.now.mono_ms);
    authenticator_pump(b->a);
}

static inline void bench_on_answer(void *owner, const struct sasl_answer *answer)
{
    struct bench_answer *out = owner;
    assert_false(out->is_there); /* exactly once */
    *out = (struct bench_answer){ true, *answer, the_bench->w.now.mono_ms };
}

static inline struct auth_ask *bench_ask(struct bench *b, enum sasl_question question,
                                         const char *user, const char *secret, const char *client,
                                         struct bench_answer *out)
{
    struct sasl_request request = { .question = question,
                                    .user = slice_str(user),
                                    .secret = slice_str(secret),
                                    .is_proven = question == SASL_ASK_PROOF && secret };
    *out = (struct bench_answer){ .is_there = false };
    struct auth_ask *ask =
        authenticator_ask(b->a, &request, slice_str(client), bench_on_answer, out);
    assert_false(out->is_there); /* later, never at once */
    return ask;
}

static inline void bench_await(struct bench *b, struct bench_answer *out)
{
    for (int i = 0; i < 20000 && !out->is_there; i++)
        bench_turn(b);
    assert_true(out->is_there);
}

/* Asks and waits; gives back the reference of an account. */
static inline enum auth_result bench_result(struct bench *b, enum sasl_question question,
                                            const char *user, const char *secret,
                                            const char *client)
{
    struct bench_answer out;
    bench_read_clock(b);
    bench_ask(b, question, user, secret, client, &out);
    bench_await(b, &out);
    assert_true((out.answer.result == AUTH_RESULT_OK && question != SASL_ASK_VERIFIER) ==
                (out.answer.account != NULL));
    account_unref(out.answer.account);
    return out.answer.result;
}

static inline enum auth_result bench_password(struct bench *b, const char *user,
                                              const char *password, const char *client)
{
    return bench_result(b, SASL_ASK_PASSWORD, user, password, client);
}

static inline void bench_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* " argon2id=..." that takes this much memory and so long: 19456 KiB are about 20 ms. */
static inline const char *bench_hash_of(const char *password, uint32_t memory_kib)
{
    static char words[8][256];
    static unsigned next;
    char *out = words[next++ % ARRAY_LEN(words)];
    size_t at = (size_t)snprintf(out, sizeof words[0], " argon2id=");
    assert_int_equal(argon2id_hash_encoded(2, memory_kib, 1, password, strlen(password),
                                           "salt of tests", 13, 32, out + at, sizeof words[0] - at),
                     ARGON2_OK);
    return out;
}

/* The cheapest, where a test has many of them. */
static inline const char *bench_hash(const char *password)
{
    return bench_hash_of(password, 64);
}

/* " scram=..." */
static inline const char *bench_scram(const char *password)
{
    static char word[512];
    struct account a = { .name = (char[]){ "x" }, .tenant = (char[]){ "" } };
    struct buf line;
    buf_init(&line, sizeof word);
    assert_int_equal(auth_hash_set(&a, slice_str(password), false, true), STATUS_OK);
    assert_int_equal(account_format(&a, &line), STATUS_OK);
    snprintf(word, sizeof word, "%.*s", (int)line.len - 1, line.ptr + 1);
    buf_done(&line);
    return word;
}

/* What the configuration says unless a test changes it before bench_start. */
static inline void bench_init(struct bench *b)
{
    static char email[] = "email", acme[] = "acme";
    *b = (struct bench){ .redis = BENCH_GONE };
    the_bench = b;
    make_temp_dir(b->dir);
    snprintf(b->users, sizeof b->users, "%s/users", b->dir);
    snprintf(b->keys, sizeof b->keys, "%s/keys", b->dir);
    list_init(&b->replies);
    b->tenants[0].name = acme;
    b->cfg.tenants = b->tenants;
    b->cfg.tenant_count = 1;
    b->cfg.auth.users_file = b->users;
    b->cfg.auth.mechanisms = 0x7f;
    b->cfg.auth.threads = 2;
    b->cfg.auth.waiting_max = 100;
    b->cfg.auth.cache_max = 100;
    b->cfg.auth.cache_ttl_ms = 60000;
    b->cfg.auth.failures_window_ms = 60000;
    b->cfg.auth.jwt_user_claim = email;
}

static inline void bench_start(struct bench *b)
{
    struct buf error;
    buf_init(&error, 1024);
    if (auth_shared_new(&b->cfg, &b->shared, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    b->w.cfg = &b->cfg;
    b->w.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    helper_inbox_init(&b->w.inbox, b->w.wake_fd);
    bench_read_clock(b);
    wheel_init(&b->w.wheel, b->w.now.mono_ms);
    log_init(&b->w.log, LOG_PLAIN, LOG_INFO, &b->w.now);
    b->a = authenticator_new(&b->w, b->shared);
}

static inline void bench_stop(struct bench *b)
{
    authenticator_free(b->a);
    bench_deliver(b, true); /* as the link does when it is closed */
    assert_int_equal(b->w.wheel.count, 0);
    auth_shared_free(b->shared);
    helper_inbox_done(&b->w.inbox);
    log_done(&b->w.log);
    close(b->w.wake_fd);
    remove_tree(b->dir);
}

static inline bool bench_logged(const struct bench *b, const char *text)
{
    struct slice out = buf_slice(&b->w.log.out);
    return out.len > 0 && memmem(out.ptr, out.len, text, strlen(text));
}
