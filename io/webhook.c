/* SPDX-License-Identifier: Apache-2.0 */
/*
 * webhook - from the streams to an HTTPS address.
 *
 *     OWN    SET {cfg}webhook <token> NX PX: ours, or another node's: look again later
 *     AT     HMGET {cfg}webhook:at, how far the shards are
 *     READ   XRANGE of a shard, from there on; nothing: the next shard, after the last a pause
 *     POST   2xx: HSET {cfg}webhook:at, and READ goes on; else the same batch after a pause, 1 s to
 *            5 min, from OWN on
 *
 * The place is kept after the reply, so a batch may be posted twice and is never left out; a node
 * that dies leaves the rest to the next when its ownership ends. What is trimmed before it was
 * posted is gone: events never take more memory than they were given.
 *
 * The secret is read for each post: one that changed is used from the next on.
 */
#include "io/webhook.h"
#include "core/base/must.h"
#include "io/auth_call.h"
#include "io/fetch.h"
#include "io/worker.h"
#include "queue/schema.h"

#include <inttypes.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_EVENTS "100"
#define BATCH_MAX    (8 * 1024 * 1024) /* octets of a post */
#define IDLE_MS      500               /* after all shards had nothing */
#define ELSEWHERE_MS 5000              /* between looks whether another node still posts */
#define OWN_MS       "60000"
#define POST_MS      30000
#define REPLY_MAX    (64 * 1024)
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS (5 * 60 * 1000)
#define ID_LEN_MAX   48
#define SECRET_MAX   512
#define AT_KEY       QUEUE_WEBHOOK_KEY ":at"

struct webhook {
    struct worker *w;
    struct resolver *resolver;
    struct tls_client *tls;
    struct config_url url;
    char token[QUEUE_WORKER_LEN + 1];
    struct wheel_timer timer;
    struct auth_call *call;
    struct list fetches;
    char (*at)[ID_LEN_MAX]; /* owned; of each shard, the last event that was taken; "" none */
    uint16_t shard;         /* that is looked at */
    uint16_t quiet;         /* shards in a row that had nothing */
    uint32_t pause_ms;
    /* The batch. */
    struct buf body;
    uint32_t count;
    char last[ID_LEN_MAX];
};

static void own(struct webhook *h);
static void read_shard(struct webhook *h);

static void wait(struct webhook *h, uint32_t ms)
{
    wheel_set(&h->w->wheel, &h->timer, h->w->now.mono_ms + ms);
}

/* Redis did not answer. */
static void begin_again(struct webhook *h)
{
    wait(h, ELSEWHERE_MS);
}

static void ask(struct webhook *h, const struct slice *argv, size_t argc, auth_reply_fn *fn)
{
    h->call = auth_call_new(h->w, argv, argc, fn, h);
    if (!h->call)
        begin_again(h);
}

/* --- posting --------------------------------------------------------------------------------- */

static void log_failure(struct webhook *h, const char *why)
{
    struct log *log = &h->w->log;
    metrics_add(&h->w->metrics, METRIC_WEBHOOK_FAILURES_TOTAL, 1);
    log_begin(log, LOG_WARN, "webhook.failed");
    log_cstr(log, "url", h->w->cfg->events.webhook);
    log_num(log, "events", h->count);
    log_num(log, "again_ms", h->pause_ms);
    log_cstr(log, "error", why);
    log_end(log);
}

static void fail(struct webhook *h, const char *why)
{
    h->pause_ms = h->pause_ms == 0                 ? PAUSE_MIN_MS
                  : h->pause_ms * 2 < PAUSE_MAX_MS ? h->pause_ms * 2
                                                   : PAUSE_MAX_MS;
    log_failure(h, why);
    wait(h, h->pause_ms);
}

static void on_kept(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    if (!reply || reply->type == REDIS_REPLY_ERROR)
        begin_again(h);
    else
        own(h); /* and prolong it */
}

static void on_posted(void *ctx, const char *why, struct slice body)
{
    struct webhook *h = ctx;
    char shard[8];
    if (why) {
        fail(h, why);
        return;
    }
    h->pause_ms = 0;
    metrics_add(&h->w->metrics, METRIC_WEBHOOK_EVENTS_TOTAL, h->count);
    snprintf(h->at[h->shard], ID_LEN_MAX, "%s", h->last);
    int len = snprintf(shard, sizeof shard, "%u", h->shard);
    h->shard =
        (uint16_t)((h->shard + 1) % h->w->shards); /* one that is never empty waits its turn */
    ask(h,
        (const struct slice[]){ SLICE("HSET"), SLICE(AT_KEY), slice_of(shard, (size_t)len),
                                slice_str(h->last) },
        4, on_kept);
}

/* The first line of the file. False: it cannot be read, or is empty. */
static bool read_secret(const char *path, char out[SECRET_MAX])
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    setvbuf(file, NULL, _IONBF, 0);
    if (!fgets(out, SECRET_MAX, file))
        out[0] = '\0';
    fclose(file);
    out[strcspn(out, "\r\n")] = '\0';
    return out[0] != '\0';
}

/* "Kilat-Signature: t=SECONDS,v1=HEX": HMAC-SHA256 over "SECONDS.BODY". */
static bool sign(const struct webhook *h, char *out, size_t cap)
{
    char secret[SECRET_MAX], seconds[24];
    uint8_t mac[32];
    unsigned mac_len = 0;
    if (!read_secret(h->w->cfg->events.webhook_secret, secret))
        return false;
    int len = snprintf(seconds, sizeof seconds, "%" PRId64, h->w->now.wall_ms / 1000);
    HMAC_CTX ctx;
    HMAC_CTX_init(&ctx);
    must(HMAC_Init_ex(&ctx, secret, strlen(secret), EVP_sha256(), NULL) &&
         HMAC_Update(&ctx, (const uint8_t *)seconds, (size_t)len) &&
         HMAC_Update(&ctx, (const uint8_t *)".", 1) &&
         HMAC_Update(&ctx, (const uint8_t *)h->body.ptr, h->body.len) &&
         HMAC_Final(&ctx, mac, &mac_len));
    HMAC_CTX_cleanup(&ctx);
    OPENSSL_cleanse(secret, sizeof secret);
    size_t at = (size_t)snprintf(out, cap, "Kilat-Signature: t=%s,v1=", seconds);
    for (unsigned i = 0; i < mac_len; i++)
        at += (size_t)snprintf(out + at, cap - at, "%02x", mac[i]);
    snprintf(out + at, cap - at, "\r\n");
    return true;
}

static void post(struct webhook *h)
{
    char headers[256];
    if (!sign(h, headers, sizeof headers)) {
        fail(h, "the secret cannot be read");
        return;
    }
    struct fetch_request request = {
        .host = h->url.host,
        .path = h->url.path,
        .port = h->url.port,
        .post = buf_slice(&h->body),
        .headers = headers,
        .is_ours = true,
        .ca_file = h->w->cfg->events.webhook_ca,
        .size_max = REPLY_MAX,
        .timeout_ms = POST_MS,
        .home = &h->fetches,
    };
    (void)fetch_start(h->w, h->resolver, h->tls, &request, on_posted, h);
}

/* --- reading --------------------------------------------------------------------------------- */

static struct slice text_at(const redisReply *array, size_t i)
{
    if (array->type != REDIS_REPLY_ARRAY || i >= array->elements ||
        array->element[i]->type != REDIS_REPLY_STRING)
        return SLICE_NONE;
    return slice_of(array->element[i]->str, array->element[i]->len);
}

/* Adds one entry, {id, {"j", text}}; false: the batch is full. */
static bool add(struct webhook *h, const redisReply *entry)
{
    struct slice id = text_at(entry, 0);
    struct slice text =
        id.len > 0 && entry->elements > 1 ? text_at(entry->element[1], 1) : SLICE_NONE;
    if (text.len > 1 &&
        buf_printf(&h->body, "%s{\"seq\":\"%u-%.*s\",%.*s", h->count ? "," : "", h->shard,
                   SLICE_ARG(id), SLICE_ARG(slice_skip(text, 1))) != STATUS_OK)
        return false;
    h->count += text.len > 1;
    snprintf(h->last, sizeof h->last, "%.*s", (int)slice_head(id, ID_LEN_MAX - 1).len, id.ptr);
    return true;
}

static void make_batch(struct webhook *h, const redisReply *reply)
{
    h->count = 0;
    buf_clear(&h->body);
    must(buf_append(&h->body, SLICE("{\"events\":[")) == STATUS_OK);
    for (size_t i = 0; i < reply->elements; i++)
        if (!add(h, reply->element[i]))
            break;
}

/* How long the oldest of what is to be posted has waited; its id begins with its time. */
static void note_age(struct webhook *h, struct slice id)
{
    int64_t at_ms = id.len > 0 ? strtoll(id.ptr, NULL, 10) : h->w->now.wall_ms;
    int64_t age_ms = h->w->now.wall_ms - at_ms;
    metrics_set(&h->w->metrics, METRIC_WEBHOOK_BEHIND_MS, age_ms > 0 ? age_ms : 0);
}

static void on_events(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    if (!reply || reply->type != REDIS_REPLY_ARRAY) {
        begin_again(h);
        return;
    }
    if (reply->elements > 0) {
        note_age(h, text_at(reply->element[0], 0));
        make_batch(h, reply);
    }
    if (reply->elements > 0 && h->count > 0 && buf_append(&h->body, SLICE("]}")) == STATUS_OK) {
        h->quiet = 0;
        post(h);
        return;
    }
    h->shard = (uint16_t)((h->shard + 1) % h->w->shards);
    if (++h->quiet < h->w->shards) {
        read_shard(h);
        return;
    }
    h->quiet = 0;
    note_age(h, SLICE_NONE);
    wait(h, IDLE_MS);
}

static void read_shard(struct webhook *h)
{
    char key[QUEUE_KEY_MAX], from[ID_LEN_MAX + 1];
    int len = h->at[h->shard][0] ? snprintf(from, sizeof from, "(%s", h->at[h->shard])
                                 : snprintf(from, sizeof from, "-");
    ask(h,
        (const struct slice[]){ SLICE("XRANGE"), queue_key_events(key, h->shard),
                                slice_of(from, (size_t)len), SLICE("+"), SLICE("COUNT"),
                                SLICE(BATCH_EVENTS) },
        6, on_events);
}

/* --- whose it is ----------------------------------------------------------------------------- */

static void on_places(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    if (!reply || reply->type != REDIS_REPLY_ARRAY) {
        begin_again(h);
        return;
    }
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        unsigned long shard = strtoul(text_at(reply, i).ptr, NULL, 10);
        struct slice id = text_at(reply, i + 1);
        if (shard < h->w->shards && id.len < ID_LEN_MAX)
            snprintf(h->at[shard], ID_LEN_MAX, "%.*s", SLICE_ARG(id));
    }
    read_shard(h);
}

static void on_prolonged(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    ask(h, (const struct slice[]){ SLICE("HGETALL"), SLICE(AT_KEY) }, 2, on_places);
}

static void on_owner(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    bool is_mine = reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, h->token) == 0;
    if (is_mine)
        ask(h, (const struct slice[]){ SLICE("PEXPIRE"), SLICE(QUEUE_WEBHOOK_KEY), SLICE(OWN_MS) },
            3, on_prolonged);
    else
        begin_again(h);
}

static void on_taken(void *owner, const redisReply *reply)
{
    struct webhook *h = owner;
    h->call = NULL;
    if (!reply)
        begin_again(h);
    else if (reply->type == REDIS_REPLY_STATUS)
        on_prolonged(h, reply);
    else
        ask(h, (const struct slice[]){ SLICE("GET"), SLICE(QUEUE_WEBHOOK_KEY) }, 2, on_owner);
}

static void own(struct webhook *h)
{
    ask(h,
        (const struct slice[]){ SLICE("SET"), SLICE(QUEUE_WEBHOOK_KEY), slice_str(h->token),
                                SLICE("NX"), SLICE("PX"), SLICE(OWN_MS) },
        6, on_taken);
}

static void on_timer(struct wheel_timer *timer)
{
    own(container_of(timer, struct webhook, timer));
}

/* --- start and end --------------------------------------------------------------------------- */

struct webhook *webhook_new(struct worker *w, struct resolver *resolver, struct tls_client *tls)
{
    if (!w->cfg->events.webhook || w->id != 0)
        return NULL;
    struct webhook *h = mem_zalloc(sizeof *h);
    h->w = w;
    h->resolver = resolver;
    h->tls = tls;
    must(config_url_of(slice_str(w->cfg->events.webhook), &h->url));
    snprintf(h->token, sizeof h->token, "%016" PRIx64, entropy_u64(&w->entropy));
    h->at = mem_zalloc(w->shards * sizeof *h->at);
    list_init(&h->fetches);
    buf_init(&h->body, BATCH_MAX);
    wheel_timer_init(&h->timer, on_timer);
    wait(h, IDLE_MS);
    return h;
}

void webhook_abandon(struct webhook *h)
{
    if (!h)
        return;
    wheel_clear(&h->w->wheel, &h->timer);
    auth_call_forget(h->call);
    h->call = NULL;
    fetch_cancel_all(&h->fetches);
}

void webhook_free(struct webhook *h)
{
    if (!h)
        return;
    fetch_free_all(&h->fetches);
    buf_done(&h->body);
    free(h->at);
    free(h);
}
