/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_sources - who wants to leave from a source that is being warmed up waits here until Redis
 * has granted it.
 *
 * One call at a time, for all sources together, asks for exactly what waits; what was granted is
 * for those that wait longest. A grant is used up when the delivery begins to wait for a
 * connection, so an attempt that fails, and a worker that ends before it could send, count too: a
 * day may send less than its number, never more, but for one delivery with more recipients than a
 * whole day may have, which takes the whole day.
 *
 * A source that did not get all it asked for is spent until the next day, UTC, begins.
 */
#include "io/relay_sources.h"
#include "core/base/must.h"
#include "core/relay/source.h"
#include "io/drive_queue.h"
#include "io/drive_relay_private.h"
#include "queue/schema.h"
#include <stdio.h>
#include <stdlib.h>

#define AGAIN_MS 1000 /* after a question that nobody answered */
#define NUMBER   12   /* octets of a number, with NUL */
#define ARGS_MAX (5 + 3 * SOURCES_MAX)

struct warm_source {
    struct list waiting; /* deliveries */
    uint32_t granted;    /* not used yet */
    uint32_t asked;      /* in the question that is out */
};

struct relay_sources {
    struct relay_driver *r; /* borrowed; NULL: freed, as soon as the reply has come */
    struct redis_request request;
    bool is_out;         /* true exactly from sending to the reply */
    int64_t again_at_ms; /* monotonic; nothing is asked before */
    int32_t day, asked_day;
    uint64_t spent;
    struct warm_source *sources; /* owned; one for each of the configuration */
};

static const struct config *config_of(const struct relay_sources *s)
{
    return s->r->w->cfg;
}

struct relay_sources *relay_sources_new(struct relay_driver *r)
{
    struct relay_sources *s = mem_zalloc(sizeof *s);
    s->r = r;
    s->day = source_day(r->w->now.wall_ms);
    s->sources = mem_zalloc((r->w->cfg->source_count + 1) * sizeof *s->sources);
    for (size_t i = 0; i < r->w->cfg->source_count; i++)
        list_init(&s->sources[i].waiting);
    return s;
}

void relay_sources_free(struct relay_sources *s)
{
    for (size_t i = 0; i < config_of(s)->source_count; i++)
        must(list_is_empty(&s->sources[i].waiting));
    free(s->sources);
    s->sources = NULL;
    s->r = NULL;
    if (!s->is_out)
        free(s);
}

static void begin_day(struct relay_sources *s, int32_t day)
{
    s->day = day;
    s->spent = 0;
    for (size_t i = 0; i < config_of(s)->source_count; i++)
        s->sources[i].granted = 0;
}

/* The clock may have been set back: then the day is the old one again. */
static void see_day(struct relay_sources *s)
{
    int32_t today = source_day(s->r->w->now.wall_ms);
    if (today != s->day)
        begin_day(s, today);
}

static const struct config_source *source_of(const struct relay_sources *s, size_t i)
{
    return &config_of(s)->sources[i];
}

/* What a delivery takes of the day. */
static uint32_t need_of(const struct relay_sources *s, size_t i, const struct delivery *d)
{
    uint32_t most = source_allowance(source_of(s, i), s->day);
    return d->rcpt_count < most ? d->rcpt_count : most;
}

static bool is_spent(const struct relay_sources *s, size_t i)
{
    return s->spent >> i & 1;
}

/* --- deliveries that may not go -------------------------------------------------------------- */

static void log_spent(struct relay_sources *s, const struct config_source *source)
{
    struct log *log = &s->r->w->log;
    log_begin(log, LOG_INFO, "source.spent");
    log_cstr(log, "source", source->name);
    log_num(log, "worker", s->r->w->id);
    log_num(log, "warmup", source_allowance(source, s->day));
    log_end(log);
}

static void note_spent(struct relay_sources *s, size_t i)
{
    if (is_spent(s, i))
        return;
    s->spent |= UINT64_C(1) << i;
    log_spent(s, source_of(s, i));
}

static bool has_other(const struct relay_sources *s, const char *dest)
{
    const struct config_route *route = route_of_key(config_of(s), slice_str(dest));
    return route && (route->source_set & ~s->spent);
}

/* Nothing of it is sent today: from another source, or tomorrow. */
static void turn_away(struct relay_sources *s, size_t i, struct delivery *d)
{
    char why[96];
    if (has_other(s, d->dest)) {
        settle_resplit(&s->r->settle, d);
        return;
    }
    int len = snprintf(why, sizeof why, "source %s has sent what its warm-up allows today",
                       source_of(s, i)->name);
    delivery_fail_open(d, OUTCOME_CONNECT, 451, "4.3.2", slice_of(why, (size_t)len));
    settle_decided(&s->r->settle, d, "");
}

bool relay_sources_hold(struct relay_sources *s, struct delivery *d)
{
    const struct config_source *source = route_key_source(config_of(s), d->dest);
    if (!source)
        return false;
    size_t i = (size_t)(source - config_of(s)->sources);
    see_day(s);
    uint32_t allowance = source_allowance(source, s->day);
    if (allowance == SOURCE_UNLIMITED)
        return false;
    if (allowance == 0)
        note_spent(s, i);
    if (is_spent(s, i)) {
        turn_away(s, i, d);
        return true;
    }
    list_push_back(&s->sources[i].waiting, &d->node);
    return true;
}

/* --- what waits ------------------------------------------------------------------------------ */

static void let_go(struct relay_sources *s, size_t i)
{
    struct warm_source *warm = &s->sources[i];
    list_for_each_safe (node, &warm->waiting) {
        struct delivery *d = list_entry(node, struct delivery, node);
        uint32_t need = need_of(s, i, d);
        if (need > warm->granted && !is_spent(s, i))
            break;
        list_remove(node);
        if (need > warm->granted) {
            turn_away(s, i, d);
            continue;
        }
        warm->granted -= need;
        relay_pool_add(s->r->pool, d);
    }
}

struct delivery *relay_sources_take_shard(struct relay_sources *s, uint16_t shard)
{
    for (size_t i = 0; i < config_of(s)->source_count; i++) {
        list_for_each_safe (node, &s->sources[i].waiting) {
            struct delivery *d = list_entry(node, struct delivery, node);
            if (d->shard != shard)
                continue;
            list_remove(node);
            return d;
        }
    }
    return NULL;
}

/* --- questions ------------------------------------------------------------------------------- */

static void take_answer(struct relay_sources *s, const redisReply *reply)
{
    size_t k = 0;
    for (size_t i = 0; i < config_of(s)->source_count; i++) {
        struct warm_source *warm = &s->sources[i];
        if (warm->asked == 0)
            continue;
        int64_t granted = k < reply->elements ? reply->element[k]->integer : 0;
        k++;
        if (granted < 0 || granted > warm->asked)
            granted = 0;
        warm->granted += (uint32_t)granted;
        if (granted < warm->asked)
            note_spent(s, i);
        warm->asked = 0;
        let_go(s, i);
    }
}

static void on_reply(struct redis_request *req, const redisReply *reply)
{
    struct relay_sources *s = container_of(req, struct relay_sources, request);
    s->is_out = false;
    if (!s->r) {
        free(s);
        return;
    }
    see_day(s);
    if (reply && reply->type == REDIS_REPLY_ARRAY && s->asked_day == s->day) {
        take_answer(s, reply);
        return;
    }
    for (size_t i = 0; i < config_of(s)->source_count; i++)
        s->sources[i].asked = 0;
    s->again_at_ms = s->r->w->now.mono_ms + AGAIN_MS;
}

/* Recipients to ask for, of what waits; 0: nobody is to be asked. */
static uint32_t wanted_of(struct relay_sources *s, size_t i)
{
    struct warm_source *warm = &s->sources[i];
    uint32_t wanted = 0, allowance = source_allowance(source_of(s, i), s->day);
    if (list_is_empty(&warm->waiting))
        return 0;
    if (allowance == 0 || allowance == SOURCE_UNLIMITED) { /* another day has begun */
        warm->granted = allowance;
        if (allowance == 0)
            note_spent(s, i);
        let_go(s, i);
        return 0;
    }
    list_for_each (node, &warm->waiting) {
        wanted += need_of(s, i, list_entry(node, struct delivery, node));
        if (wanted >= allowance)
            return allowance;
    }
    return wanted;
}

static struct slice write_number(char out[NUMBER], int64_t n)
{
    return slice_of(out, (size_t)snprintf(out, NUMBER, "%lld", (long long)n));
}

static void ask(struct relay_sources *s)
{
    char day[NUMBER], numbers[SOURCES_MAX][2][NUMBER];
    struct slice argv[ARGS_MAX] = { SLICE("FCALL"), SLICE("kilat_warm"), SLICE("1"),
                                    SLICE(QUEUE_CFG_KEY), write_number(day, s->day) };
    size_t argc = 5;
    for (size_t i = 0; i < config_of(s)->source_count; i++) {
        uint32_t wanted = s->sources[i].asked = wanted_of(s, i);
        if (wanted == 0)
            continue;
        argv[argc++] = slice_str(source_of(s, i)->name);
        argv[argc++] = write_number(numbers[i][0], source_allowance(source_of(s, i), s->day));
        argv[argc++] = write_number(numbers[i][1], wanted);
    }
    if (argc == 5)
        return;
    s->asked_day = s->day;
    s->is_out = queue_ask(s->r->w->queue, &s->request, on_reply, argv, argc);
    if (!s->is_out)
        on_reply(&s->request, NULL);
}

/* --- turns ----------------------------------------------------------------------------------- */

static bool is_idle(const struct relay_sources *s)
{
    for (size_t i = 0; i < config_of(s)->source_count; i++)
        if (!list_is_empty(&s->sources[i].waiting))
            return false;
    return true;
}

void relay_sources_pump(struct relay_sources *s)
{
    metrics_set(&s->r->w->metrics, METRIC_SOURCES_SPENT, __builtin_popcountll(s->spent));
    if (s->is_out || is_idle(s) || s->r->w->now.mono_ms < s->again_at_ms)
        return;
    see_day(s);
    ask(s);
}

int64_t relay_sources_wake_ms(const struct relay_sources *s)
{
    return s->is_out || is_idle(s) ? INT64_MAX : s->again_at_ms;
}

uint64_t relay_sources_spent(const struct relay_sources *s)
{
    return s->day == source_day(s->r->w->now.wall_ms) ? s->spent : 0;
}

uint64_t relay_sources_rest_ms(const struct relay_sources *s, const char *dest)
{
    const struct config_source *source = route_key_source(config_of(s), dest);
    int64_t now_ms = s->r->w->now.wall_ms;
    uint64_t spent = relay_sources_spent(s);
    if (!source || !(spent >> (source - config_of(s)->sources) & 1) || has_other(s, dest))
        return 0;
    return (uint64_t)(source_next_day_ms(now_ms) - now_ms);
}
