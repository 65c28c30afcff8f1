/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sts_store - policies of domains, found, fetched and kept.
 *
 * Life of an entry:
 *     REDIS (what others know) -> RECORD (its TXT) -> FILE (only when its id is new) -> KNOWN
 *     KNOWN, and asked for again after CHECK_MS -> RECORD
 * Whoever asks meanwhile waits. A file that cannot be fetched is not tried again for RETRY_MS;
 * until then, and as long as it has not expired, what is kept counts.
 *
 * In Redis: {cfg}sts:<domain> = "<expires, wall ms> <id>\n<policy file>", which goes when it
 * expires. Two workers that fetch the same file write the same.
 *
 * Limits: ENTRIES_MAX domains in memory; above that, the ones that were asked for longest ago go.
 * A store is asked by the relay only, once per destination and resolution.
 */
#include "io/sts_store.h"
#include "core/base/list.h"
#include "core/base/must.h"
#include "io/auth_call.h"
#include "io/fetch.h"
#include "io/resolver.h"
#include "io/tls_reports.h"
#include "io/worker.h"
#include "queue/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 10000
#define BUCKETS     16384
#define CHECK_MS    (10 * 60 * 1000) /* between looks at the TXT record */
#define RETRY_MS    (5 * 60 * 1000)  /* RFC 8461 3.3: after a fetch that failed */
#define FETCH_MS    (60 * 1000)      /* RFC 8461 3.3 */
#define KEY_MAX     300

enum sts_state { STS_REDIS, STS_RECORD, STS_FILE, STS_KNOWN };

struct sts_entry {
    struct list node; /* with KNOWN: on s->known, the last asked for at its end */
    struct sts_entry *hash_next;
    struct sts_store *s;
    enum sts_state state;
    struct list waiters;
    struct auth_call *call; /* with REDIS */
    struct sts_policy *policy;
    char id[STS_ID_MAX + 1];     /* of the policy */
    char new_id[STS_ID_MAX + 1]; /* of the file that is being fetched */
    int64_t expires_ms;          /* wall clock; of the policy */
    int64_t check_at_ms;         /* monotonic */
    int64_t fetch_at_ms;         /* monotonic; not before */
    char domain[];
};

struct waiter {
    struct list node;
    sts_fn *fn;
    void *ctx;
};

struct sts_store {
    struct worker *w;
    struct resolver *resolver;
    struct tls_client *tls;
    struct tls_reports *reports;
    struct sts_entry *buckets[BUCKETS];
    struct list known;
    struct list fetches;
    uint32_t count;
    bool is_abandoned;
};

/* --- the table ------------------------------------------------------------------------------- */

static struct sts_entry **bucket_of(struct sts_store *s, const char *domain)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *domain; domain++)
        h = (h ^ (uint8_t)*domain) * 16777619u;
    return &s->buckets[h % BUCKETS];
}

static struct sts_entry **find(struct sts_store *s, const char *domain)
{
    struct sts_entry **link = bucket_of(s, domain);
    while (*link && strcmp((*link)->domain, domain) != 0)
        link = &(*link)->hash_next;
    return link;
}

static void entry_free(struct sts_entry *e)
{
    list_remove(&e->node);
    for (struct list *node; (node = list_pop_front(&e->waiters));)
        free(list_entry(node, struct waiter, node));
    free(e->policy);
    free(e);
}

static void drop(struct sts_store *s, struct sts_entry *e)
{
    *find(s, e->domain) = e->hash_next;
    s->count--;
    entry_free(e);
}

static struct sts_entry *add(struct sts_store *s, const char *domain)
{
    size_t len = strlen(domain);
    if (s->count >= ENTRIES_MAX && !list_is_empty(&s->known))
        drop(s, list_entry(s->known.next, struct sts_entry, node));
    struct sts_entry *e = mem_zalloc(sizeof *e + len + 1), **to = bucket_of(s, domain);
    memcpy(e->domain, domain, len + 1);
    e->s = s;
    list_init(&e->node);
    list_init(&e->waiters);
    e->hash_next = *to;
    *to = e;
    s->count++;
    return e;
}

/* --- the answer ------------------------------------------------------------------------------ */

static void forget_expired(struct sts_entry *e)
{
    if (!e->policy || e->s->w->now.wall_ms < e->expires_ms)
        return;
    free(e->policy);
    e->policy = NULL;
    e->id[0] = '\0';
}

static void become_known(struct sts_entry *e)
{
    struct list waiters;
    list_init(&waiters);
    forget_expired(e);
    e->state = STS_KNOWN;
    e->check_at_ms = e->s->w->now.mono_ms + CHECK_MS;
    list_append_all(&waiters, &e->waiters);
    for (struct list *node; (node = list_pop_front(&waiters));) { /* off the table meanwhile */
        struct waiter *waiter = list_entry(node, struct waiter, node);
        waiter->fn(waiter->ctx, e->policy);
        free(waiter);
    }
    list_push_back(&e->s->known, &e->node);
}

static void log_policy(struct sts_entry *e, const char *error)
{
    static const char *const modes[] = { "none", "testing", "enforce" };
    struct log *log = &e->s->w->log;
    log_begin(log, error ? LOG_WARN : LOG_INFO, error ? "sts.failed" : "sts.policy");
    log_cstr(log, "domain", e->domain);
    log_cstr(log, "id", error ? e->new_id : e->id);
    if (error)
        log_cstr(log, "error", error);
    log_cstr(log, "mode", e->policy ? modes[e->policy->mode] : "none");
    log_end(log);
}

/* --- Redis ----------------------------------------------------------------------------------- */

static struct slice key_of(const struct sts_entry *e, char key[KEY_MAX])
{
    return slice_of(key, (size_t)snprintf(key, KEY_MAX, "%s%s", QUEUE_STS_PREFIX, e->domain));
}

/* Nobody waits for it: what is lost is fetched again. */
static void ignore_reply(void *owner, const redisReply *reply) {}

static void keep_in_redis(struct sts_entry *e, struct slice text)
{
    char key[KEY_MAX], ms[24];
    struct buf value;
    int ms_len = snprintf(ms, sizeof ms, "%" PRIu64, (uint64_t)e->policy->max_age_s * 1000);
    buf_init(&value, STS_TEXT_MAX + 128);
    if (buf_printf(&value, "%" PRId64 " %s\n", e->expires_ms, e->id) == STATUS_OK &&
        buf_append(&value, text) == STATUS_OK) {
        const struct slice argv[] = { SLICE("SET"), key_of(e, key), buf_slice(&value), SLICE("PX"),
                                      slice_of(ms, (size_t)ms_len) };
        (void)auth_call_new(e->s->w, argv, ARRAY_LEN(argv), ignore_reply, NULL);
    }
    buf_done(&value);
}

/* False: it is not what keep_in_redis writes, or no policy. */
static bool take_kept(struct sts_entry *e, struct slice value)
{
    const char *why;
    size_t end = slice_find(value, '\n'), space = slice_find(value, ' ');
    char head[64];
    if (end >= value.len || space >= end || end - space - 1 > STS_ID_MAX || space >= sizeof head)
        return false;
    snprintf(head, sizeof head, "%.*s", (int)space, value.ptr);
    struct sts_policy *policy = mem_alloc(sizeof *policy);
    if (!sts_read_policy(slice_skip(value, end + 1), policy, &why)) {
        free(policy);
        return false;
    }
    e->policy = policy;
    e->expires_ms = strtoll(head, NULL, 10);
    snprintf(e->id, sizeof e->id, "%.*s", (int)(end - space - 1), value.ptr + space + 1);
    return true;
}

/* --- steps ----------------------------------------------------------------------------------- */

static void report_trouble(struct sts_entry *e, enum tls_outcome outcome)
{
    tls_reports_note(e->s->reports, e->domain,
                     &(struct tls_count){ .policy = TLS_POLICY_STS, .outcome = outcome },
                     SLICE_NONE);
}

static void on_file(void *ctx, const char *why, struct slice text)
{
    struct sts_entry *e = ctx;
    struct sts_policy *policy = mem_alloc(sizeof *policy);
    bool is_had = !why;
    if (!why && sts_read_policy(text, policy, &why))
        why = NULL;
    if (why) {
        report_trouble(e, is_had ? TLS_OUTCOME_STS_POLICY : TLS_OUTCOME_STS_FETCH);
        free(policy);
        e->fetch_at_ms = e->s->w->now.mono_ms + RETRY_MS;
        log_policy(e, why);
        become_known(e);
        return;
    }
    free(e->policy);
    e->policy = policy;
    e->expires_ms = e->s->w->now.wall_ms + (int64_t)policy->max_age_s * 1000;
    snprintf(e->id, sizeof e->id, "%s", e->new_id);
    log_policy(e, NULL);
    if (policy->max_age_s > 0)
        keep_in_redis(e, text);
    become_known(e);
}

/* RFC 8461 3.3: no redirects, a minute, 64 KiB. */
static void fetch_file(struct sts_entry *e)
{
    const struct config *cfg = e->s->w->cfg;
    char host[300];
    struct fetch_request request = {
        .host = host,
        .path = "/.well-known/mta-sts.txt",
        .type = "text/plain",
        .port = cfg->relay.mta_sts_port,
        .ca_file = cfg->relay.ca_file,
        .size_max = STS_TEXT_MAX,
        .timeout_ms = FETCH_MS,
        .home = &e->s->fetches,
    };
    snprintf(host, sizeof host, "mta-sts.%s", e->domain);
    e->state = STS_FILE;
    (void)fetch_start(e->s->w, e->s->resolver, e->s->tls, &request, on_file, e);
}

static void on_record(void *ctx, bool is_answer, const struct slice *texts, size_t count)
{
    struct sts_entry *e = ctx;
    bool has_record = is_answer && sts_read_record(texts, count, e->new_id);
    bool is_news = has_record && (!e->policy || strcmp(e->new_id, e->id) != 0);
    if (e->s->is_abandoned)
        return;
    forget_expired(e);
    if (is_news && e->s->w->now.mono_ms >= e->fetch_at_ms)
        fetch_file(e);
    else
        become_known(e);
}

static void look_at_record(struct sts_entry *e)
{
    char name[300];
    snprintf(name, sizeof name, "_mta-sts.%s", e->domain);
    e->state = STS_RECORD;
    resolver_lookup_txt(e->s->resolver, name, on_record, e);
}

static void on_kept(void *owner, const redisReply *reply)
{
    struct sts_entry *e = owner;
    e->call = NULL;
    if (reply && reply->type == REDIS_REPLY_STRING)
        (void)take_kept(e, slice_of(reply->str, reply->len)); /* what is not ours is fetched anew */
    look_at_record(e);
}

static void look_in_redis(struct sts_entry *e)
{
    char key[KEY_MAX];
    const struct slice argv[] = { SLICE("GET"), key_of(e, key) };
    e->state = STS_REDIS;
    e->call = auth_call_new(e->s->w, argv, ARRAY_LEN(argv), on_kept, e);
    if (!e->call)
        look_at_record(e);
}

/* --- entry points ---------------------------------------------------------------------------- */

static void wait_for(struct sts_entry *e, sts_fn *fn, void *ctx)
{
    struct waiter *waiter = mem_alloc(sizeof *waiter);
    *waiter = (struct waiter){ .fn = fn, .ctx = ctx };
    list_push_back(&e->waiters, &waiter->node);
}

void sts_store_lookup(struct sts_store *s, const char *domain, sts_fn *fn, void *ctx)
{
    struct sts_entry *e = *find(s, domain);
    bool is_new = !e;
    if (is_new)
        e = add(s, domain);
    if (!is_new && e->state == STS_KNOWN && s->w->now.mono_ms < e->check_at_ms) {
        forget_expired(e);
        list_remove(&e->node);
        list_push_back(&s->known, &e->node);
        fn(ctx, e->policy);
        return;
    }
    wait_for(e, fn, ctx);
    if (is_new) {
        look_in_redis(e);
    } else if (e->state == STS_KNOWN) {
        list_remove(&e->node);
        look_at_record(e);
    }
}

struct sts_store *sts_store_new(struct worker *w, struct resolver *resolver, struct tls_client *tls,
                                struct tls_reports *reports)
{
    struct sts_store *s = mem_zalloc(sizeof *s);
    s->w = w;
    s->resolver = resolver;
    s->tls = tls;
    s->reports = reports;
    list_init(&s->known);
    list_init(&s->fetches);
    return s;
}

void sts_store_abandon(struct sts_store *s)
{
    s->is_abandoned = true;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct sts_entry *e = s->buckets[i]; e; e = e->hash_next) {
            auth_call_forget(e->call);
            e->call = NULL;
        }
    fetch_cancel_all(&s->fetches);
}

void sts_store_free(struct sts_store *s)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct sts_entry *e = s->buckets[i], *next; e; e = next) {
            next = e->hash_next;
            entry_free(e);
        }
    fetch_free_all(&s->fetches);
    free(s);
}
