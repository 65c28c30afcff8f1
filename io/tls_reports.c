/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_reports - counting.
 *
 * Life of a tally: the first session with a domain -> FLUSH_MS at most -> its TXT record is asked
 * for -> the domain wants reports: the counts go to Redis -> freed. Counts of domains that want
 * none, or whose record cannot be had, go nowhere: counting costs one small block a domain and ten
 * seconds, and a look into libunbound's cache.
 *
 * What a worker has counted when it ends or dies is lost: at most FLUSH_MS of sessions, in a report
 * of a day.
 *
 * Limits: DOMAINS_MAX domains at once, COUNTS_MAX different results of one; more are not counted.
 */
#include "io/tls_reports.h"
#include "core/base/list.h"
#include "core/base/must.h"
#include "io/auth_call.h"
#include "io/resolver.h"
#include "io/tls_reports_private.h"
#include "io/worker.h"
#include "queue/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_MS        (10 * 1000)
#define KEEP_S          "259200" /* three days: today, and until the report of it is sent */
#define DOMAINS_MAX     20000
#define COUNTS_MAX      100
#define BUCKETS         4096
#define POLICY_TEXT_MAX (STS_MX_MAX * 270) /* octets */
#define LOOKUPS_MAX     100                /* at once */

struct count {
    struct list node;
    uint32_t n;
    char name[];
};

struct tally {
    struct list node; /* on t->tallies until its record is asked for, then on t->asked */
    struct tally *hash_next;
    struct tls_reports *t;
    struct list counts;
    uint32_t count_count;
    char *texts[TLS_POLICY_COUNT]; /* owned; NULL: not seen */
    char domain[];
};

struct tls_reports {
    struct worker *w;
    struct resolver *resolver;
    struct tls_report_sender *sender; /* owned; NULL: another worker sends */
    struct wheel_timer timer;
    struct tally *buckets[BUCKETS]; /* those on tallies */
    struct list tallies, asked;
    uint32_t count, asked_count;
    bool is_abandoned;
};

struct slice tls_reports_key(char out[TLS_REPORTS_KEY_MAX], int64_t day_ms, const char *domain)
{
    char day[CLOCK_DATE_MAX];
    clock_format_rfc3339(day_ms, day);
    int len = snprintf(out, TLS_REPORTS_KEY_MAX, "%s%.10s%s%.255s", QUEUE_TLSRPT_PREFIX, day,
                       domain ? ":" : "", domain ? domain : "");
    must(len > 0 && len < TLS_REPORTS_KEY_MAX);
    return slice_of(out, (size_t)len);
}

/* --- the table ------------------------------------------------------------------------------- */

static struct tally **bucket_of(struct tls_reports *t, const char *domain)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *domain; domain++)
        h = (h ^ (uint8_t)*domain) * 16777619u;
    return &t->buckets[h % BUCKETS];
}

static struct tally **find(struct tls_reports *t, const char *domain)
{
    struct tally **link = bucket_of(t, domain);
    while (*link && strcmp((*link)->domain, domain) != 0)
        link = &(*link)->hash_next;
    return link;
}

static struct tally *tally_of(struct tls_reports *t, const char *domain)
{
    struct tally **link = find(t, domain);
    size_t len = strlen(domain);
    if (*link)
        return *link;
    if (t->count + t->asked_count >= DOMAINS_MAX)
        return NULL;
    struct tally *tally = mem_zalloc(sizeof *tally + len + 1);
    memcpy(tally->domain, domain, len + 1);
    tally->t = t;
    list_init(&tally->counts);
    list_push_back(&t->tallies, &tally->node);
    *link = tally;
    t->count++;
    return tally;
}

static void tally_free(struct tally *tally)
{
    list_remove(&tally->node);
    for (struct list *node; (node = list_pop_front(&tally->counts));)
        free(list_entry(node, struct count, node));
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++)
        free(tally->texts[i]);
    free(tally);
}

static void add(struct tally *tally, const char *name, size_t len)
{
    list_for_each (node, &tally->counts) {
        struct count *count = list_entry(node, struct count, node);
        if (strcmp(count->name, name) == 0) {
            count->n++;
            return;
        }
    }
    if (tally->count_count == COUNTS_MAX)
        return;
    struct count *count = mem_zalloc(sizeof *count + len + 1);
    memcpy(count->name, name, len + 1);
    count->n = 1;
    list_push_back(&tally->counts, &count->node);
    tally->count_count++;
}

static void keep_text(struct tally *tally, enum tls_policy policy, struct slice text)
{
    if (text.len == 0 || tally->texts[policy])
        return;
    tally->texts[policy] = mem_zalloc(text.len + 1);
    memcpy(tally->texts[policy], text.ptr, text.len);
}

void tls_reports_note(struct tls_reports *t, const char *domain, const struct tls_count *count,
                      struct slice text)
{
    char name[TLS_REPORT_FIELD_MAX];
    struct tally *tally = t && !t->is_abandoned ? tally_of(t, domain) : NULL;
    if (!tally)
        return;
    add(tally, name, tls_count_name(count, name));
    keep_text(tally, count->policy, text);
}

void tls_reports_note_policy(struct tls_reports *t, const char *domain,
                             const struct sts_policy *policy)
{
    struct tally *tally = t && !t->is_abandoned ? tally_of(t, domain) : NULL;
    struct buf text;
    if (!tally)
        return;
    buf_init(&text, POLICY_TEXT_MAX);
    tls_policy_text_sts(policy, &text);
    keep_text(tally, TLS_POLICY_STS, buf_slice(&text));
    buf_done(&text);
}

/* --- to Redis -------------------------------------------------------------------------------- */

/* Nobody waits for it: a lost count is a count less. */
static void ignore_reply(void *owner, const redisReply *reply) {}

static void tell(struct worker *w, const struct slice *argv, size_t argc)
{
    (void)auth_call_new(w, argv, argc, ignore_reply, NULL);
}

static void keep_counts(struct worker *w, const struct tally *tally, struct slice key)
{
    list_for_each (node, &tally->counts) {
        const struct count *count = list_entry(node, struct count, node);
        char number[16];
        int len = snprintf(number, sizeof number, "%" PRIu32, count->n);
        tell(w,
             (const struct slice[]){ SLICE("HINCRBY"), key, slice_str(count->name),
                                     slice_of(number, (size_t)len) },
             4);
    }
    for (size_t i = 0; i < TLS_POLICY_COUNT; i++)
        if (tally->texts[i])
            tell(w,
                 (const struct slice[]){ SLICE("HSETNX"), key,
                                         slice_str(tls_policy_field((enum tls_policy)i)),
                                         slice_str(tally->texts[i]) },
                 4);
}

static void keep(struct worker *w, const struct tally *tally, const char *rua)
{
    char key_text[TLS_REPORTS_KEY_MAX], set_text[TLS_REPORTS_KEY_MAX];
    int64_t day_ms = w->now.wall_ms - w->now.wall_ms % TLS_REPORTS_DAY_MS;
    struct slice key = tls_reports_key(key_text, day_ms, tally->domain);
    struct slice set = tls_reports_key(set_text, day_ms, NULL);
    keep_counts(w, tally, key);
    tell(w, (const struct slice[]){ SLICE("HSET"), key, SLICE("rua"), slice_str(rua) }, 4);
    tell(w, (const struct slice[]){ SLICE("EXPIRE"), key, SLICE(KEEP_S) }, 3);
    tell(w, (const struct slice[]){ SLICE("SADD"), set, slice_str(tally->domain) }, 3);
    tell(w, (const struct slice[]){ SLICE("EXPIRE"), set, SLICE(KEEP_S) }, 3);
}

static void on_record(void *ctx, bool is_answer, const struct slice *texts, size_t count)
{
    struct tally *tally = ctx;
    struct tls_reports *t = tally->t;
    char rua[TLS_REPORT_RUA_MAX + 1];
    if (!t->is_abandoned && is_answer && tls_report_read_record(texts, count, rua))
        keep(t->w, tally, rua);
    t->asked_count--;
    tally_free(tally);
}

static void ask(struct tls_reports *t, struct tally *tally)
{
    char name[300];
    *find(t, tally->domain) = tally->hash_next;
    tally->hash_next = NULL;
    list_remove(&tally->node);
    list_push_back(&t->asked, &tally->node);
    t->count--;
    t->asked_count++;
    snprintf(name, sizeof name, "_smtp._tls.%.255s", tally->domain);
    resolver_lookup_txt(t->resolver, name, on_record, tally);
}

static void on_timer(struct wheel_timer *timer)
{
    struct tls_reports *t = container_of(timer, struct tls_reports, timer);
    while (!list_is_empty(&t->tallies) && t->asked_count < LOOKUPS_MAX)
        ask(t, list_entry(t->tallies.next, struct tally, node));
    wheel_set(&t->w->wheel, &t->timer,
              t->w->now.mono_ms + (list_is_empty(&t->tallies) ? FLUSH_MS : 100));
}

/* --- start and end --------------------------------------------------------------------------- */

struct tls_reports *tls_reports_new(struct worker *w, struct resolver *resolver)
{
    if (!w->cfg->relay.tls_report_from)
        return NULL;
    struct tls_reports *t = mem_zalloc(sizeof *t);
    t->w = w;
    t->resolver = resolver;
    list_init(&t->tallies);
    list_init(&t->asked);
    wheel_timer_init(&t->timer, on_timer);
    wheel_set(&w->wheel, &t->timer, w->now.mono_ms + FLUSH_MS);
    t->sender = w->id == 0 ? tls_report_sender_new(w) : NULL;
    return t;
}

void tls_reports_abandon(struct tls_reports *t)
{
    if (!t)
        return;
    t->is_abandoned = true;
    wheel_clear(&t->w->wheel, &t->timer);
    tls_report_sender_abandon(t->sender);
}

void tls_reports_free(struct tls_reports *t)
{
    if (!t)
        return;
    tls_report_sender_free(t->sender);
    list_for_each_safe (node, &t->tallies)
        tally_free(list_entry(node, struct tally, node));
    list_for_each_safe (node, &t->asked)
        tally_free(list_entry(node, struct tally, node));
    free(t);
}
