/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authenticator - the way of one question to its answer:
 *
 *     ask -> throttle -> [token] -> account -> [password] -> let in
 *                 \         \           \          \-> refuse: count -> wait -> answer
 *
 *   throttle  one FCALL: have there been too many failures? Before anything is looked up or
 *             computed, so that a refused attempt costs nothing and tells nothing.
 *   account   from the file (at once) or by one HGET.
 *   password, token    in a helper thread (auth_work.c), unless this very password was right a
 *             moment ago (auth_cache.c).
 *   count     one FCALL; the answer waits for it, so that the next attempt sees it on every node.
 *   wait      until auth.failure_delay after the question, however long the way was (P-145).
 *
 * What is counted (lua/auth.lua), and why three ways (P-117): failures of one user from one
 * address, up to auth.failures_max: who has a wrong password saved hurts himself alone. Of one
 * address, up to ADDRESS_FACTOR times that: guessing through a list of users. Of one user from
 * anywhere, up to USER_FACTOR times that: guessing from many addresses; but where that user has
 * logged in of late he still may, so strangers cannot lock him out of his own place. A success
 * forgives nothing: else an attacker with one account of his own could guess for ever. Attempts
 * that run at the same time are judged by what had failed before them, so a few more than the limit
 * may pass. An IPv6 client is its /64, for that is what one customer gets.
 *
 * Redis out of reach: users in Redis are DOWN (P-144: 454, never 535); users in a file go on, and
 * counting rests.
 *
 * Life of an ask: it is on `asks` from authenticator_ask to its answer or authenticator_forget.
 * It waits for exactly one thing at a time: a call, a work, the timer, or the list `ready`, which
 * is how an answer that was there at once still comes later. Limits: one ask a session; helpers.h
 * bounds what waits for them (else BUSY, P-157). To add a kind of question: a case in judge.
 */
#include "io/authenticator.h"
#include "core/base/must.h"
#include "io/auth_cache.h"
#include "io/auth_call.h"
#include "io/auth_shared.h"
#include "io/auth_work.h"
#include "queue/schema.h"

#include <arpa/inet.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ADDRESS_FACTOR 10
#define USER_FACTOR    10
#define KNOWN_MS       INT64_C(2592000000) /* 30 days: how long a success at a place counts */
#define HEX_LEN        32
#define LINE_ERROR_MAX 512
#define NUMBER_MAX     24

/* What failures are counted of: digests, so that no name or address lies open in Redis. */
struct tallies {
    char pair[HEX_LEN + 1], address[HEX_LEN + 1], user[HEX_LEN + 1];
};

struct authenticator {
    struct worker *w;           /* borrowed */
    struct auth_shared *shared; /* borrowed */
    struct auth_cache *cache;   /* owned */
    struct auth_works works;
    struct list asks, ready; /* struct auth_ask; an ask is on one of the two */
    bool is_asking;          /* inside authenticator_ask: answers go to `ready` */
};

struct auth_ask {
    struct list node;
    struct authenticator *a; /* borrowed */
    auth_answer_fn *fn;
    void *owner;
    enum sasl_question question;
    bool is_proven;
    char *user, *secret; /* owned; wiped */
    size_t user_len, secret_len;
    char *client; /* owned; for the log */
    struct tallies tallies;
    bool is_known;           /* this user has logged in from this address of late */
    int64_t asked_ms;        /* monotonic */
    struct account *account; /* one reference; NULL: not looked up, or nobody */
    uint8_t digest[AUTH_DIGEST_LEN];
    struct auth_call *call;    /* waits for Redis */
    struct auth_waiter waiter; /* waits for a helper */
    struct wheel_timer delay;  /* waits before a refusal */
    struct sasl_answer answer;
};

static void look_up(struct auth_ask *ask, struct slice user);
static void judge(struct auth_ask *ask);

/* --- names and digests ----------------------------------------------------------------------- */

static struct slice user_of(const struct auth_ask *ask)
{
    return slice_of(ask->user, ask->user_len);
}

static struct slice secret_of(const struct auth_ask *ask)
{
    return slice_of(ask->secret, ask->secret_len);
}

/* The octets that stand for an address: IPv4 in any spelling is one, IPv6 its first half. */
static struct slice canonical_address(struct slice client, uint8_t out[16])
{
    char text[INET6_ADDRSTRLEN];
    if (client.len >= sizeof text)
        return client;
    memcpy(text, client.ptr, client.len);
    text[client.len] = '\0';
    if (inet_pton(AF_INET, text, out) == 1)
        return slice_of((const char *)out, 4);
    if (inet_pton(AF_INET6, text, out) != 1)
        return client;
    if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)out))
        return slice_of((const char *)out + 12, 4);
    return slice_of((const char *)out, 8);
}

/* A digest of a kind and two strings, as hex. */
static void tally_name(char out[HEX_LEN + 1], char kind, struct slice one, struct slice two)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    uint32_t len = (uint32_t)one.len;
    SHA256_CTX ctx;
    SHA256_Init(&ctx);
    SHA256_Update(&ctx, &kind, 1);
    SHA256_Update(&ctx, &len, sizeof len);
    SHA256_Update(&ctx, one.ptr, one.len);
    SHA256_Update(&ctx, two.ptr, two.len);
    SHA256_Final(digest, &ctx);
    for (size_t i = 0; i < HEX_LEN / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void name_tallies(struct auth_ask *ask, struct slice client)
{
    uint8_t octets[16];
    struct slice address = canonical_address(client, octets), user = user_of(ask);
    tally_name(ask->tallies.pair, 'p', address, user);
    tally_name(ask->tallies.address, 'a', address, SLICE_NONE);
    tally_name(ask->tallies.user, 'u', user, SLICE_NONE);
}

static void hash_field(HMAC_CTX *ctx, struct slice s)
{
    uint32_t len = (uint32_t)s.len;
    must(HMAC_Update(ctx, (const uint8_t *)&len, sizeof len) == 1);
    must(HMAC_Update(ctx, (const uint8_t *)s.ptr, s.len) == 1);
}

/* Of everything that a password's or token's outcome depends on: with another password, or another
 * one stored, it is another. */
static void digest_of(struct auth_ask *ask)
{
    const struct account *a = ask->account;
    unsigned len = 0;
    HMAC_CTX ctx;
    HMAC_CTX_init(&ctx);
    must(HMAC_Init_ex(&ctx, auth_shared_cache_key(ask->a->shared), AUTH_SECRET_LEN, EVP_sha256(),
                      NULL) == 1);
    hash_field(&ctx, slice_of((const char *)&ask->question, sizeof ask->question));
    hash_field(&ctx, user_of(ask));
    hash_field(&ctx, secret_of(ask));
    hash_field(&ctx, slice_str(a ? a->argon2 : NULL));
    if (a && a->has_scram) {
        hash_field(&ctx, slice_of((const char *)a->scram.salt, a->scram.salt_len));
        hash_field(&ctx, slice_of((const char *)&a->scram.iterations, sizeof(uint32_t)));
        hash_field(&ctx, slice_of((const char *)a->scram.stored_key, sizeof a->scram.stored_key));
    }
    must(HMAC_Final(&ctx, ask->digest, &len) == 1 && len == AUTH_DIGEST_LEN);
    HMAC_CTX_cleanup(&ctx);
}

/* --- the answer ------------------------------------------------------------------------------ */

static void ask_free(struct auth_ask *ask)
{
    auth_call_forget(ask->call);
    auth_waiter_leave(&ask->waiter);
    wheel_clear(&ask->a->w->wheel, &ask->delay);
    list_remove(&ask->node);
    account_unref(ask->account);
    OPENSSL_cleanse(ask->secret, ask->secret_len);
    free(ask->secret);
    free(ask->user);
    free(ask->client);
    OPENSSL_cleanse(&ask->answer, sizeof ask->answer);
    free(ask);
}

static void tell(struct auth_ask *ask)
{
    struct sasl_answer answer = ask->answer;
    auth_answer_fn *fn = ask->fn;
    void *owner = ask->owner;
    if (answer.account)
        ask->account = NULL; /* the reference goes with the answer */
    ask_free(ask);
    fn(owner, &answer);
    OPENSSL_cleanse(&answer, sizeof answer);
}

static void wake(struct worker *w)
{
    uint64_t one = 1;
    /* A full counter has woken it already. */
    if (write(w->wake_fd, &one, sizeof one) < 0) {
    }
}

static void finish(struct auth_ask *ask, enum auth_result result)
{
    struct authenticator *a = ask->a;
    ask->answer.result = result;
    if (!a->is_asking) {
        tell(ask);
        return;
    }
    list_remove(&ask->node);
    list_push_back(&a->ready, &ask->node);
    wake(a->w);
}

static void on_delay(struct wheel_timer *timer)
{
    struct auth_ask *ask = container_of(timer, struct auth_ask, delay);
    finish(ask, ask->answer.result);
}

/* No refusal is faster than the delay, none slower than its own work. */
static void finish_late(struct auth_ask *ask, enum auth_result result)
{
    struct worker *w = ask->a->w;
    int64_t due_ms = ask->asked_ms + w->cfg->auth.failure_delay_ms;
    ask->answer.result = result;
    if (due_ms <= w->now.mono_ms)
        finish(ask, result);
    else
        wheel_set(&w->wheel, &ask->delay, due_ms);
}

static void log_refusal(struct auth_ask *ask, const char *reason)
{
    struct worker *w = ask->a->w;
    metrics_add(&w->metrics, METRIC_AUTH_FAILED_TOTAL, 1);
    log_begin(&w->log, LOG_INFO, "auth.failed");
    log_str(&w->log, "user", user_of(ask));
    log_cstr(&w->log, "client", ask->client);
    log_cstr(&w->log, "reason", reason);
    log_end(&w->log);
}

static void give_up(struct auth_ask *ask, enum auth_result result, const char *reason)
{
    log_refusal(ask, reason);
    finish(ask, result);
}

/* --- counting -------------------------------------------------------------------------------- */

static bool is_counting(const struct auth_ask *ask)
{
    return ask->a->w->cfg->auth.failures_max > 0;
}

static struct slice number(char out[NUMBER_MAX], int64_t n)
{
    return slice_of(out, (size_t)snprintf(out, NUMBER_MAX, "%lld", (long long)n));
}

static void on_counted(void *owner, const redisReply *reply)
{
    struct auth_ask *ask = owner;
    ask->call = NULL;
    finish_late(ask, AUTH_RESULT_WRONG);
}

/* Every reason but too many failures, and our own trouble, comes this way and looks alike. */
static void refuse(struct auth_ask *ask, const char *reason)
{
    char window[NUMBER_MAX];
    const struct slice argv[] = { SLICE("FCALL"),
                                  SLICE("kilat_auth_fail"),
                                  SLICE("1"),
                                  SLICE(QUEUE_CFG_KEY),
                                  number(window, (int64_t)ask->a->w->cfg->auth.failures_window_ms),
                                  slice_str(ask->tallies.pair),
                                  slice_str(ask->tallies.address),
                                  slice_str(ask->tallies.user) };
    log_refusal(ask, reason);
    ask->call =
        is_counting(ask) ? auth_call_new(ask->a->w, argv, ARRAY_LEN(argv), on_counted, ask) : NULL;
    if (!ask->call)
        finish_late(ask, AUTH_RESULT_WRONG);
}

static void on_remembered(void *owner, const redisReply *reply) {}

/* Nobody waits for it: what it costs to lose it is one more at the next success. */
static void remember_place(struct auth_ask *ask)
{
    char known[NUMBER_MAX];
    const struct slice argv[] = {
        SLICE("FCALL"),       SLICE("kilat_auth_good"), SLICE("1"),
        SLICE(QUEUE_CFG_KEY), number(known, KNOWN_MS),  slice_str(ask->tallies.pair)
    };
    if (is_counting(ask) && !ask->is_known)
        (void)auth_call_new(ask->a->w, argv, ARRAY_LEN(argv), on_remembered, NULL);
}

/* The limits of one that the configuration does not know would be no limits. */
static bool has_its_tenant(const struct auth_ask *ask)
{
    struct slice tenant = slice_str(ask->account->tenant);
    return tenant.len == 0 || config_find_tenant(ask->a->w->cfg, tenant);
}

static void let_in(struct auth_ask *ask)
{
    if (!has_its_tenant(ask)) {
        give_up(ask, AUTH_RESULT_DOWN, "no such tenant");
        return;
    }
    metrics_add(&ask->a->w->metrics, METRIC_AUTH_OK_TOTAL, 1);
    remember_place(ask);
    ask->answer.account = ask->account;
    finish(ask, AUTH_RESULT_OK);
}

/* --- throttle -------------------------------------------------------------------------------- */

static void on_outcome(struct auth_waiter *waiter, const struct auth_outcome *outcome);

static void go_on(struct auth_ask *ask)
{
    if (ask->question != SASL_ASK_TOKEN) {
        look_up(ask, user_of(ask));
        return;
    }
    digest_of(ask);
    if (auth_work_token(&ask->a->works, &ask->waiter, ask->digest, secret_of(ask),
                        &ask->a->w->now) != STATUS_OK)
        give_up(ask, AUTH_RESULT_BUSY, "busy");
}

static void go_on_without_redis(struct auth_ask *ask)
{
    if (auth_shared_has_users(ask->a->shared))
        go_on(ask);
    else
        give_up(ask, AUTH_RESULT_DOWN, "redis");
}

/* 0: too many failures; 1: welcome; 2: and known here. */
static void on_throttle(void *owner, const redisReply *reply)
{
    struct auth_ask *ask = owner;
    ask->call = NULL;
    if (!reply || reply->type != REDIS_REPLY_INTEGER) {
        go_on_without_redis(ask);
        return;
    }
    ask->is_known = reply->integer == 2;
    if (reply->integer > 0) {
        go_on(ask);
        return;
    }
    log_refusal(ask, "throttled");
    finish_late(ask, AUTH_RESULT_THROTTLED);
}

static void throttle(struct auth_ask *ask)
{
    char pair[NUMBER_MAX], address[NUMBER_MAX], user[NUMBER_MAX];
    int64_t max = ask->a->w->cfg->auth.failures_max;
    const struct slice argv[] = { SLICE("FCALL"),
                                  SLICE("kilat_auth_check"),
                                  SLICE("1"),
                                  SLICE(QUEUE_CFG_KEY),
                                  number(pair, max),
                                  number(address, max * ADDRESS_FACTOR),
                                  number(user, max * USER_FACTOR),
                                  slice_str(ask->tallies.pair),
                                  slice_str(ask->tallies.address),
                                  slice_str(ask->tallies.user) };
    if (!is_counting(ask)) {
        go_on(ask);
        return;
    }
    ask->call = auth_call_new(ask->a->w, argv, ARRAY_LEN(argv), on_throttle, ask);
    if (!ask->call)
        go_on_without_redis(ask);
}

/* --- the account ----------------------------------------------------------------------------- */

static void log_bad_line(struct auth_ask *ask, struct slice error)
{
    struct log *log = &ask->a->w->log;
    log_begin(log, LOG_ERROR, "users.bad");
    log_str(log, "user", user_of(ask));
    log_str(log, "error", error);
    log_end(log);
}

/* A line of somebody else's would be somebody else's account. */
static bool read_line(struct auth_ask *ask, struct slice line)
{
    struct buf error;
    buf_init(&error, LINE_ERROR_MAX);
    bool is_good = account_parse(line, &ask->account, &error) == STATUS_OK;
    if (is_good && !slice_eq(slice_str(ask->account->name), user_of(ask))) {
        account_unref(ask->account);
        ask->account = NULL;
        is_good = false;
        (void)!buf_append(&error, SLICE("the line's name is not its field's"));
    }
    if (!is_good)
        log_bad_line(ask, buf_slice(&error));
    buf_done(&error);
    return is_good;
}

static void on_line(void *owner, const redisReply *reply)
{
    struct auth_ask *ask = owner;
    ask->call = NULL;
    if (reply && reply->type == REDIS_REPLY_NIL)
        judge(ask);
    else if (!reply || reply->type != REDIS_REPLY_STRING)
        give_up(ask, AUTH_RESULT_DOWN, "redis");
    else if (read_line(ask, slice_of(reply->str, reply->len)))
        judge(ask);
    else
        give_up(ask, AUTH_RESULT_DOWN, "line");
}

static void look_up(struct auth_ask *ask, struct slice user)
{
    struct authenticator *a = ask->a;
    const struct slice argv[] = { SLICE("HGET"), SLICE(QUEUE_USERS_KEY), user };
    if (auth_shared_has_users(a->shared)) {
        ask->account = auth_shared_find(a->shared, user);
        judge(ask);
        return;
    }
    ask->call = auth_call_new(a->w, argv, ARRAY_LEN(argv), on_line, ask);
    if (!ask->call)
        give_up(ask, AUTH_RESULT_DOWN, "redis");
}

/* --- what is asked of it --------------------------------------------------------------------- */

/* NULL: the account may come in. */
static const char *trouble_with(const struct account *a)
{
    if (!a)
        return "unknown user";
    return a->is_disabled ? "disabled" : NULL;
}

static void let_in_if(struct auth_ask *ask, bool is_right, const char *otherwise)
{
    const char *trouble = trouble_with(ask->account);
    if (is_right && !trouble)
        let_in(ask);
    else
        refuse(ask, trouble ? trouble : otherwise);
}

/* A disabled user shows his own, one that is unknown or has none a made-up one, always the same:
 * nothing changes at this point that anybody could see (P-148). */
static void show_verifier(struct auth_ask *ask)
{
    const struct account *a = ask->account;
    if (a && a->has_scram)
        ask->answer.verifier = a->scram;
    else
        scram_fake_verifier(user_of(ask), auth_shared_fake_secret(ask->a->shared),
                            &ask->answer.verifier);
    finish(ask, AUTH_RESULT_OK);
}

static void check_password(struct auth_ask *ask)
{
    struct authenticator *a = ask->a;
    digest_of(ask);
    if (!trouble_with(ask->account) && auth_cache_has(a->cache, ask->digest, a->w->now.mono_ms))
        let_in(ask);
    else if (auth_work_password(&a->works, &ask->waiter, ask->digest, ask->account,
                                secret_of(ask)) != STATUS_OK)
        give_up(ask, AUTH_RESULT_BUSY, "busy");
}

/* The account is looked up, or there is none of that name. */
static void judge(struct auth_ask *ask)
{
    switch (ask->question) {
    case SASL_ASK_VERIFIER: show_verifier(ask); break;
    case SASL_ASK_PASSWORD: check_password(ask); break;
    case SASL_ASK_PROOF:
        let_in_if(ask, ask->is_proven && ask->account && ask->account->has_scram, "wrong proof");
        break;
    case SASL_ASK_TOKEN: /* which was good, and named this user */
    case SASL_ASK_EXTERNAL: let_in_if(ask, true, NULL); break;
    }
}

static void on_password(struct auth_ask *ask, const struct auth_outcome *outcome)
{
    if (outcome->is_right && !trouble_with(ask->account))
        auth_cache_put(ask->a->cache, ask->digest, ask->a->w->now.mono_ms);
    let_in_if(ask, outcome->is_right, "wrong password");
}

static void on_token(struct auth_ask *ask, const struct auth_outcome *outcome)
{
    if (!outcome->is_right) {
        refuse(ask, jwt_verdict_name(outcome->verdict));
        return;
    }
    if (ask->user_len > 0 && !slice_eq(user_of(ask), outcome->user)) {
        refuse(ask, "token of another user");
        return;
    }
    if (ask->user_len == 0) { /* from here on it is known */
        free(ask->user);
        ask->user = mem_alloc(outcome->user.len + 1);
        ask->user_len = outcome->user.len;
        memcpy(ask->user, outcome->user.ptr, outcome->user.len);
    }
    look_up(ask, user_of(ask));
}

static void on_outcome(struct auth_waiter *waiter, const struct auth_outcome *outcome)
{
    struct auth_ask *ask = container_of(waiter, struct auth_ask, waiter);
    if (ask->question == SASL_ASK_TOKEN)
        on_token(ask, outcome);
    else
        on_password(ask, outcome);
}

/* --- entry points ---------------------------------------------------------------------------- */

static char *copy_of(struct slice s)
{
    char *copy = mem_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

struct auth_ask *authenticator_ask(struct authenticator *a, const struct sasl_request *request,
                                   struct slice client, auth_answer_fn *fn, void *owner)
{
    struct auth_ask *ask = mem_zalloc(sizeof *ask);
    *ask = (struct auth_ask){ .a = a,
                              .fn = fn,
                              .owner = owner,
                              .question = request->question,
                              .is_proven = request->is_proven,
                              .user = copy_of(request->user),
                              .user_len = request->user.len,
                              .secret = copy_of(request->secret),
                              .secret_len = request->secret.len,
                              .client = copy_of(client),
                              .asked_ms = a->w->now.mono_ms,
                              .waiter = { .fn = on_outcome } };
    list_push_back(&a->asks, &ask->node);
    list_init(&ask->waiter.node);
    wheel_timer_init(&ask->delay, on_delay);
    name_tallies(ask, client);
    a->is_asking = true;
    throttle(ask);
    a->is_asking = false;
    return ask;
}

void authenticator_forget(struct auth_ask *ask)
{
    ask_free(ask);
}

void authenticator_pump(struct authenticator *a)
{
    struct list *node, ready;
    helper_inbox_drain(&a->w->inbox);
    list_init(&ready);
    list_append_all(&ready, &a->ready);
    while ((node = list_pop_front(&ready)))
        tell(list_entry(node, struct auth_ask, node));
}

struct authenticator *authenticator_new(struct worker *w, struct auth_shared *shared)
{
    struct authenticator *a = mem_zalloc(sizeof *a);
    *a = (struct authenticator){ .w = w, .shared = shared };
    a->cache = auth_cache_new(w->cfg->auth.cache_max, w->cfg->auth.cache_ttl_ms);
    auth_works_init(&a->works, shared, &w->inbox);
    list_init(&a->asks);
    list_init(&a->ready);
    return a;
}

void authenticator_free(struct authenticator *a)
{
    struct list *node;
    if (!a)
        return;
    while ((node = list_pop_front(&a->asks)) || (node = list_pop_front(&a->ready)))
        ask_free(list_entry(node, struct auth_ask, node));
    auth_works_done(&a->works);
    auth_cache_free(a->cache);
    free(a);
}
