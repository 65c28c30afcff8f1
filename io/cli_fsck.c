/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_fsck - a walk through Redis, and a second look at what seemed odd.
 *
 * The walk stops nobody: SCAN gives the records, chunks, lists and leases, kilat_list the
 * deliveries, page by page, while gateways go on working. So what it sees is of different moments,
 * and much that moved meanwhile looks odd. Messages whose record and deliveries do not match, and
 * lists and leases, are therefore looked at again by functions in Redis that see one moment
 * (kilat_suspects, kilat_strays); only what is wrong there is reported.
 *
 *     finding                        what it means
 *     record without delivery        mail that will never go, or memory that was not freed
 *     delivery without record        mail whose content is lost
 *     N deliveries, not M            the record goes too early, or never
 *     chunk without record           memory that was not freed
 *     list that nobody claims        mail that will never go
 *     leases of no worker            likewise
 *     scheduled / dead, one half     a delivery that is named in one of its two places
 *     accounts                       see queue_audit.c
 *
 * Limits: some 30 octets of memory for each record and delivery. kilat_suspects reads through a
 * shard for each SUSPECTS_MAX messages. To add a check: a finding above, a check_ function.
 */
#include "io/cli_fsck.h"
#include "core/base/must.h"
#include "io/cli.h"
#include "io/cli_print.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_ROWS    5000 /* a page of a list costs a look at every destination */
#define SUSPECTS_MAX 500

/* A queue id, and where it was seen. */
struct entry {
    uint16_t shard;
    char id[QUEUE_ID_LEN];
    uint32_t n; /* of counters: deliveries it should have */
};

struct entries {
    struct entry *all; /* owned */
    size_t count, cap;
};

struct fsck {
    struct cli *c; /* borrowed */
    struct entries records, chunks, deliveries, counters, suspects;
    char **names; /* owned; "{q0}r:n:example.org", "{q0}w:..." */
    size_t name_count, name_cap;
    size_t found;
};

/* ---- what was seen ---- */

static struct entry *add_entry(struct entries *e, uint16_t shard, struct slice id)
{
    must(id.len >= QUEUE_ID_LEN);
    if (e->count == e->cap) {
        e->cap = e->cap ? 2 * e->cap : 1024;
        e->all = mem_realloc(e->all, e->cap * sizeof *e->all);
    }
    struct entry *made = &e->all[e->count++];
    made->shard = shard;
    made->n = 0;
    memcpy(made->id, id.ptr, QUEUE_ID_LEN);
    return made;
}

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->shard != y->shard ? (int)x->shard - (int)y->shard
                                : memcmp(x->id, y->id, QUEUE_ID_LEN);
}

static void sort(struct entries *e)
{
    if (e->count > 0)
        qsort(e->all, e->count, sizeof *e->all, compare);
}

/* Sorted entries, each once. */
static void sort_and_thin(struct entries *e)
{
    size_t n = 0;
    sort(e);
    for (size_t i = 0; i < e->count; i++)
        if (n == 0 || compare(&e->all[n - 1], &e->all[i]) != 0)
            e->all[n++] = e->all[i];
    e->count = n;
}

static void add_name(struct fsck *f, struct slice name)
{
    if (f->name_count == f->name_cap) {
        f->name_cap = f->name_cap ? 2 * f->name_cap : 256;
        f->names = mem_realloc(f->names, f->name_cap * sizeof *f->names);
    }
    char *copy = mem_alloc(name.len + 1);
    memcpy(copy, name.ptr, name.len);
    copy[name.len] = '\0';
    f->names[f->name_count++] = copy;
}

/* ---- the walk ---- */

/* "{q12}b:..." -> 12 and "b:..."; false: it is no key of the queue. */
static bool split_key(const struct fsck *f, struct slice key, uint16_t *shard, struct slice *rest)
{
    size_t end = slice_find(key, '}');
    unsigned long number = 0;
    if (end < 3 || end == key.len || key.ptr[0] != '{' || key.ptr[1] != 'q')
        return false;
    for (size_t i = 2; i < end; i++) {
        if (key.ptr[i] < '0' || key.ptr[i] > '9' || number > UINT16_MAX)
            return false;
        number = number * 10 + (unsigned long)(key.ptr[i] - '0');
    }
    *shard = (uint16_t)number;
    *rest = slice_skip(key, end + 1);
    return number < (unsigned long)f->c->shards;
}

static void take_key(struct fsck *f, struct slice key)
{
    uint16_t shard;
    struct slice rest;
    if (!split_key(f, key, &shard, &rest) || rest.len < 3 || rest.ptr[1] != ':')
        return;
    struct slice id = slice_skip(rest, 2);
    if (rest.ptr[0] == 'r' || rest.ptr[0] == 'w')
        add_name(f, key);
    else if (rest.ptr[0] == 'b' && id.len == QUEUE_ID_LEN)
        add_entry(&f->records, shard, id);
    else if (rest.ptr[0] == 'b' && id.len > QUEUE_ID_LEN && id.ptr[QUEUE_ID_LEN] == ':')
        add_entry(&f->chunks, shard, id);
}

static bool scan_keys(struct fsck *f)
{
    char cursor[24] = "0";
    do {
        const char *argv[] = { "SCAN", cursor, "MATCH", "{q*", "COUNT", "1000" };
        redisReply *r = cli_ask(f->c, 6, argv);
        if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
            freeReplyObject(r);
            return false;
        }
        snprintf(cursor, sizeof cursor, "%.*s", SLICE_ARG(cli_field(r, 0)));
        for (size_t i = 0; i < r->element[1]->elements; i++)
            take_key(f, cli_field(r->element[1], i));
        freeReplyObject(r);
    } while (strcmp(cursor, "0") != 0);
    return true;
}

/* One page of a state; -1: Redis did not answer. */
static long list_page(struct fsck *f, long shard, const char *state, long offset)
{
    char offset_text[24], count_text[24];
    const char *args[] = { state, offset_text, count_text };
    snprintf(offset_text, sizeof offset_text, "%ld", offset);
    snprintf(count_text, sizeof count_text, "%d", PAGE_ROWS);
    redisReply *r = cli_call(f->c, shard, "kilat_list", 3, args);
    if (!r)
        return -1;
    long got = r->type == REDIS_REPLY_ARRAY ? (long)r->elements : 0;
    for (long i = 0; i < got; i++) {
        struct slice id = cli_field(r->element[i], 0);
        if (id.len >= QUEUE_ID_LEN)
            add_entry(&f->deliveries, (uint16_t)shard, id);
    }
    freeReplyObject(r);
    return got;
}

static void take_counter(struct fsck *f, long shard, struct slice id, const redisReply *count)
{
    if (id.len == QUEUE_ID_LEN && count->type == REDIS_REPLY_STRING)
        add_entry(&f->counters, (uint16_t)shard, id)->n = (uint32_t)strtoul(count->str, NULL, 10);
}

/* How many deliveries messages with several have. */
static bool list_counters(struct fsck *f, long shard)
{
    char key[32], cursor[24] = "0";
    snprintf(key, sizeof key, "{q%ld}c", shard);
    do {
        const char *argv[] = { "HSCAN", key, cursor, "COUNT", "1000" };
        redisReply *r = cli_ask(f->c, 5, argv);
        if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
            freeReplyObject(r);
            return false;
        }
        snprintf(cursor, sizeof cursor, "%.*s", SLICE_ARG(cli_field(r, 0)));
        for (size_t i = 0; i + 1 < r->element[1]->elements; i += 2)
            take_counter(f, shard, cli_field(r->element[1], i), r->element[1]->element[i + 1]);
        freeReplyObject(r);
    } while (strcmp(cursor, "0") != 0);
    return true;
}

static bool list_deliveries(struct fsck *f)
{
    static const char *const states[] = { "ready", "scheduled", "leased", "held", "dead" };
    for (long shard = 0; shard < f->c->shards; shard++) {
        if (!list_counters(f, shard))
            return false;
        for (size_t s = 0; s < ARRAY_LEN(states); s++) {
            long got, offset = 0;
            do {
                got = list_page(f, shard, states[s], offset);
                offset += got;
            } while (got == PAGE_ROWS);
            if (got < 0)
                return false;
        }
    }
    return true;
}

/* ---- findings ---- */

static void report(struct fsck *f, uint16_t shard, struct slice what, const char *finding)
{
    printf("{q%u}\t", shard);
    cli_print_text(what);
    printf("\t%s\n", finding);
    f->found++;
}

/* Of one message, at one moment. */
static void judge(struct fsck *f, uint16_t shard, const redisReply *row)
{
    char text[80];
    if (row->type != REDIS_REPLY_ARRAY || row->elements != 4)
        return;
    struct slice id = cli_field(row, 0);
    bool has_record = row->element[1]->integer == 1;
    long long there = row->element[2]->integer, wanted = row->element[3]->integer;
    if (has_record && there == 0) {
        report(f, shard, id, "record without delivery");
    } else if (!has_record && there > 0) {
        report(f, shard, id, "delivery without record");
    } else if (there > 0 && there != wanted) {
        snprintf(text, sizeof text, "%lld deliveries, not %lld", there, wanted);
        report(f, shard, id, text);
    }
}

/* A second look at some messages of one shard. */
static bool look_again(struct fsck *f, const struct entry *first, size_t count)
{
    char key[QUEUE_KEY_MAX];
    const char *argv[4 + SUSPECTS_MAX] = { "FCALL", "kilat_suspects", "1", key };
    char ids[SUSPECTS_MAX][QUEUE_ID_LEN + 1];
    must(count <= SUSPECTS_MAX);
    cli_set_key(key, queue_key_counters(key, first->shard));
    for (size_t i = 0; i < count; i++) {
        snprintf(ids[i], sizeof ids[i], "%.*s", QUEUE_ID_LEN, first[i].id);
        argv[4 + i] = ids[i];
    }
    redisReply *r = cli_ask(f->c, (int)(4 + count), argv);
    if (!r)
        return false;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
        judge(f, first->shard, r->element[i]);
    freeReplyObject(r);
    return true;
}

static bool look_again_at_all(struct fsck *f)
{
    const struct entries *e = &f->suspects;
    for (size_t i = 0, n; i < e->count; i += n) {
        for (n = 1; i + n < e->count && n < SUSPECTS_MAX; n++)
            if (e->all[i + n].shard != e->all[i].shard)
                break;
        if (!look_again(f, &e->all[i], n))
            return false;
    }
    return true;
}

/* ---- checks ---- */

/* True when sorted a[*at] is this one; *at goes on to the first that is not before it. */
static bool meets(const struct entries *e, size_t *at, const struct entry *x)
{
    while (*at < e->count && compare(&e->all[*at], x) < 0)
        (*at)++;
    return *at < e->count && compare(&e->all[*at], x) == 0;
}

static void suspect(struct fsck *f, const struct entry *x)
{
    add_entry(&f->suspects, x->shard, slice_of(x->id, QUEUE_ID_LEN));
}

static void suspect_records(struct fsck *f)
{
    size_t at = 0;
    for (size_t i = 0; i < f->records.count; i++)
        if (!meets(&f->deliveries, &at, &f->records.all[i]))
            suspect(f, &f->records.all[i]);
}

/* Without a record, or not as many as there should be. */
static void suspect_deliveries(struct fsck *f)
{
    const struct entries *d = &f->deliveries;
    size_t record = 0, counter = 0;
    for (size_t i = 0, n; i < d->count; i += n) {
        for (n = 1; i + n < d->count && compare(&d->all[i], &d->all[i + n]) == 0;)
            n++;
        bool has_record = meets(&f->records, &record, &d->all[i]);
        bool has_counter = meets(&f->counters, &counter, &d->all[i]);
        if (!has_record || n != (has_counter ? f->counters.all[counter].n : 1))
            suspect(f, &d->all[i]);
    }
}

static bool check_messages(struct fsck *f)
{
    sort_and_thin(&f->records);
    sort(&f->deliveries);
    sort_and_thin(&f->counters);
    suspect_records(f);
    suspect_deliveries(f);
    sort_and_thin(&f->suspects);
    return look_again_at_all(f);
}

/* What a command says of a key; false: Redis did not answer. */
static bool ask_number(struct fsck *f, const char *command, const char *key, long long *out)
{
    const char *argv[] = { command, key };
    redisReply *r = cli_ask(f->c, 2, argv);
    if (!r)
        return false;
    *out = r->integer;
    freeReplyObject(r);
    return true;
}

/* Chunks of an upload have a TTL until their message is queued; they go with its record, also
 * between two of these questions. */
static bool is_lost_chunk(struct fsck *f, const struct entry *x, bool *is_lost)
{
    char record[QUEUE_KEY_MAX], first[QUEUE_KEY_MAX], id[QUEUE_ID_LEN + 1];
    long long before, has_record, after;
    snprintf(id, sizeof id, "%.*s", QUEUE_ID_LEN, x->id);
    cli_set_key(record, queue_key_record(record, x->shard, id));
    cli_set_key(first, queue_key_chunk(first, x->shard, id, 0));
    if (!ask_number(f, "TTL", first, &before) || !ask_number(f, "EXISTS", record, &has_record) ||
        !ask_number(f, "TTL", first, &after))
        return false;
    *is_lost = before == -1 && has_record == 0 && after == -1;
    return true;
}

static bool check_chunks(struct fsck *f)
{
    size_t at = 0;
    sort_and_thin(&f->chunks);
    for (size_t i = 0; i < f->chunks.count; i++) {
        const struct entry *x = &f->chunks.all[i];
        bool is_lost = false;
        if (!meets(&f->records, &at, x) && !is_lost_chunk(f, x, &is_lost))
            return false;
        if (is_lost)
            report(f, x->shard, slice_of(x->id, QUEUE_ID_LEN), "chunks without record");
    }
    return true;
}

static const char *name_of_stray(struct slice name)
{
    static const struct {
        const char *prefix, *finding;
    } rows[] = {
        { "r:", "list that nobody claims" },        { "w:", "leases of no worker" },
        { "t:", "scheduled, but without an item" }, { "ti:", "an item, but not scheduled" },
        { "x:", "dead, but without an item" },      { "xr:", "an item, but not dead" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (slice_eq(slice_head(name, slice_find(name, ':') + 1), slice_str(rows[i].prefix)))
            return rows[i].finding;
    return "unknown";
}

/* Some names of one shard; none: its halves. */
static bool ask_for_strays(struct fsck *f, uint16_t shard, const char **names, size_t count)
{
    char key[QUEUE_KEY_MAX];
    const char *argv[4 + SUSPECTS_MAX] = { "FCALL", "kilat_strays", "1", key };
    cli_set_key(key, queue_key_counters(key, shard));
    for (size_t i = 0; i < count; i++)
        argv[4 + i] = names[i];
    redisReply *r = cli_ask(f->c, (int)(4 + count), argv);
    if (!r)
        return false;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
        report(f, shard, cli_field(r, i), name_of_stray(cli_field(r, i)));
    freeReplyObject(r);
    return true;
}

static bool check_strays(struct fsck *f, uint16_t shard)
{
    const char *names[SUSPECTS_MAX];
    size_t count = 0, next = 0;
    if (!ask_for_strays(f, shard, NULL, 0))
        return false;
    while (next < f->name_count) {
        for (count = 0; next < f->name_count && count < SUSPECTS_MAX; next++) {
            uint16_t of;
            struct slice rest;
            if (split_key(f, slice_str(f->names[next]), &of, &rest) && of == shard)
                names[count++] = rest.ptr; /* its end is the name's */
        }
        if (count > 0 && !ask_for_strays(f, shard, names, count))
            return false;
    }
    return true;
}

static bool check_accounts(struct fsck *f, uint16_t shard)
{
    char text[80];
    redisReply *r = cli_call(f->c, shard, "kilat_audit", 0, NULL);
    if (!r)
        return false;
    if (r->integer != 0) {
        snprintf(text, sizeof text, "%lld deliveries too %s", llabs(r->integer),
                 r->integer > 0 ? "few" : "many");
        report(f, shard, SLICE("accounts"), text);
    }
    freeReplyObject(r);
    return true;
}

static bool check_all(struct fsck *f)
{
    if (!scan_keys(f) || !list_deliveries(f) || !check_messages(f) || !check_chunks(f))
        return false;
    for (long shard = 0; shard < f->c->shards; shard++)
        if (!check_strays(f, (uint16_t)shard) || !check_accounts(f, (uint16_t)shard))
            return false;
    return true;
}

int cli_fsck(struct cli *c)
{
    struct fsck f = { .c = c };
    bool is_done = check_all(&f);
    if (is_done)
        printf("%zu records, %zu deliveries, %zu findings\n", f.records.count, f.deliveries.count,
               f.found);
    for (size_t i = 0; i < f.name_count; i++)
        free(f.names[i]);
    free(f.names);
    free(f.records.all);
    free(f.chunks.all);
    free(f.deliveries.all);
    free(f.counters.all);
    free(f.suspects.all);
    return is_done && f.found == 0 ? CLI_OK : CLI_FAILED;
}
