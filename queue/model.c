/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model - deliveries on lists, destinations on a list, records on a list.
 *
 * A delivery is on exactly one list: its destination's, or that of the leased, the scheduled or the
 * dead. Each function of lua/kilat.lua is one function here, in the same order, and says only what
 * happens (lua/enqueue.lua: model_enqueue.c; lua/operators.lua: model_operators.c); where Redis has
 * an order (a sorted set: by score, then by name), this file sorts too.
 */
#include "queue/model_private.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* --- words ----------------------------------------------------------------------------------- */

void model_put(struct queue_model *m, const char *word)
{
    must(buf_printf(m->reply, "%s ", word) == STATUS_OK);
}

void model_put_num(struct queue_model *m, long long n)
{
    must(buf_printf(m->reply, "%lld ", n) == STATUS_OK);
}

const char *model_word(const struct call *c, size_t i)
{
    static char words[8][8192];
    static int next;
    char *out = words[next++ % 8];
    must(i < c->argc && c->argv[i].len < sizeof words[0]);
    memcpy(out, c->argv[i].ptr, c->argv[i].len);
    out[c->argv[i].len] = 0;
    return out;
}

long long model_number(const struct call *c, size_t i)
{
    return i < c->argc ? atoll(model_word(c, i)) : 0;
}

void model_copy_text(char *to, size_t size, const char *from)
{
    must(strlen(from) < size);
    memcpy(to, from, strlen(from) + 1);
}

/* --- finding --------------------------------------------------------------------------------- */

struct model_delivery *model_find_in(const struct list *from, const char *id, const char *owner)
{
    list_for_each (node, from) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if (strcmp(d->id, id) == 0 && (!owner || strcmp(d->owner, owner) == 0))
            return d;
    }
    return NULL;
}

struct model_record *model_find_record(const struct queue_model *m, const char *id)
{
    list_for_each (node, &m->records) {
        struct model_record *r = list_entry(node, struct model_record, node);
        if (strncmp(r->id, id, QUEUE_ID_LEN) == 0)
            return r;
    }
    return NULL;
}

struct model_record *model_make_record(struct queue_model *m, const char *id, bool is_mark)
{
    struct model_record *r = mem_zalloc(sizeof *r);
    memcpy(r->id, id, QUEUE_ID_LEN);
    r->is_mark = is_mark;
    list_push_back(&m->records, &r->node);
    return r;
}

static struct model_worker *worker_of(struct queue_model *m, const char *name)
{
    list_for_each (node, &m->workers) {
        struct model_worker *w = list_entry(node, struct model_worker, node);
        if (strcmp(w->name, name) == 0)
            return w;
    }
    struct model_worker *w = mem_zalloc(sizeof *w);
    model_copy_text(w->name, sizeof w->name, name);
    list_push_back(&m->workers, &w->node);
    return w;
}

/* Whoever is overdue gets half a lease: Redis itself was away. */
static void excuse_the_late(struct queue_model *m, long long lease_ms)
{
    list_for_each (node, &m->workers) {
        struct model_worker *w = list_entry(node, struct model_worker, node);
        if (w->has_lease && w->expires_ms <= m->now_ms)
            w->expires_ms = m->now_ms + lease_ms / 2;
    }
}

void model_renew(struct queue_model *m, const char *worker, long long lease_ms)
{
    struct model_worker *w = worker_of(m, worker);
    if (w->has_lease && w->expires_ms < m->now_ms)
        excuse_the_late(m, lease_ms);
    w->has_lease = true;
    w->expires_ms = m->now_ms + lease_ms;
}

static struct model_dest *find_dest(const struct queue_model *m, char lane, const char *name)
{
    list_for_each (node, &m->dests) {
        struct model_dest *d = list_entry(node, struct model_dest, node);
        if (d->lane == lane && strcmp(d->name, name) == 0)
            return d;
    }
    return NULL;
}

struct model_dest *model_dest_of(struct queue_model *m, char lane, const char *name, int64_t score)
{
    struct model_dest *d = find_dest(m, lane, name);
    if (d)
        return d;
    d = mem_zalloc(sizeof *d);
    d->lane = lane;
    model_copy_text(d->name, sizeof d->name, name);
    d->score = score;
    list_init(&d->ready);
    list_push_back(&m->dests, &d->node);
    return d;
}

void model_drop_dest(struct model_dest *d)
{
    list_remove(&d->node);
    free(d);
}

/* --- moving ---------------------------------------------------------------------------------- */

struct model_delivery *model_make_delivery(const char *id, const char *item)
{
    struct model_delivery *d = mem_zalloc(sizeof *d);
    list_init(&d->node);
    model_copy_text(d->id, sizeof d->id, id);
    d->item = mem_strdup(item);
    return d;
}

void model_end_delivery(struct model_delivery *d)
{
    list_remove(&d->node);
    free(d->item);
    free(d->reason);
    free(d);
}

void model_set_item(struct model_delivery *d, const char *item)
{
    free(d->item);
    d->item = mem_strdup(item);
}

void model_make_ready(struct queue_model *m, struct model_delivery *d, bool to_front, bool is_held)
{
    char name[NAME_MAX_LEN];
    must(sscanf(d->item, "%*c\t%299[^\t]", name) == 1);
    is_held |= name[0] == '!';
    struct model_dest *dest = model_dest_of(m, d->item[0], name, is_held ? HELD : m->now_ms);
    list_remove(&d->node);
    d->owner[0] = 0;
    if (to_front)
        list_push_front(&dest->ready, &d->node);
    else
        list_push_back(&dest->ready, &d->node);
}

void model_lease(struct queue_model *m, struct model_delivery *d, const char *worker)
{
    list_remove(&d->node);
    model_copy_text(d->owner, sizeof d->owner, worker);
    list_push_back(&m->leased, &d->node);
}

/* A delivery is over; its record goes with the last. */
void model_forget(struct queue_model *m, struct model_delivery *d)
{
    struct model_record *r = model_find_record(m, d->id);
    bool is_last = strlen(d->id) == QUEUE_ID_LEN || !r || --r->copies <= 0;
    if (r && is_last) {
        list_remove(&r->node);
        free(r);
    }
    model_end_delivery(d);
}

static int by_id_descending(const void *a, const void *b)
{
    const struct model_delivery *const *x = a, *const *y = b;
    return strcmp((*y)->id, (*x)->id);
}

/* All that a worker holds, to the front, the oldest foremost. */
static int hand_back(struct queue_model *m, const char *worker)
{
    struct model_delivery *held[1024];
    int n = 0;
    list_for_each (node, &m->leased) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if (strcmp(d->owner, worker) == 0 && n < 1024)
            held[n++] = d;
    }
    qsort(held, (size_t)n, sizeof held[0], by_id_descending);
    for (int i = 0; i < n; i++)
        model_make_ready(m, held[i], true, false);
    return n;
}

/* --- the functions --------------------------------------------------------------------------- */

/* Gives each id to `move` when it is leased to the worker, and its group of arguments; the others
 * are the reply. */
typedef void move_fn(struct queue_model *m, struct model_delivery *d, const struct call *c,
                     size_t i);

static void move_leased(struct queue_model *m, const struct call *c, size_t width, move_fn *move)
{
    model_put(m, "[");
    for (size_t i = 1; i < c->argc; i += width) {
        struct model_delivery *d = model_find_in(&m->leased, model_word(c, i), model_word(c, 0));
        if (d)
            move(m, d, c, i);
        else
            model_put(m, model_word(c, i));
    }
    model_put(m, "]");
}

static void move_done(struct queue_model *m, struct model_delivery *d, const struct call *c,
                      size_t i)
{
    model_forget(m, d);
}

static void call_done(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 1, move_done);
}

static void move_retry(struct queue_model *m, struct model_delivery *d, const struct call *c,
                       size_t i)
{
    list_remove(&d->node);
    model_set_item(d, model_word(c, i + 2));
    d->when_ms = m->now_ms + model_number(c, i + 1);
    d->owner[0] = 0;
    list_push_back(&m->scheduled, &d->node);
}

static void call_retry(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 3, move_retry);
}

/* From the last to the first, so that they come to stand in the order given. */
static void give_back(struct queue_model *m, const struct call *c, bool is_first)
{
    struct model_delivery *found[64] = { NULL };
    must(c->argc <= 64);
    model_put(m, "[");
    for (size_t i = 1; i < c->argc; i++) {
        found[i] = model_find_in(&m->leased, model_word(c, i), model_word(c, 0));
        for (size_t k = 1; k < i; k++)
            if (found[k] == found[i])
                found[i] = NULL; /* said twice */
        if (!found[i])
            model_put(m, model_word(c, i));
    }
    for (size_t i = c->argc; i-- > 1;) {
        size_t k = is_first ? i : c->argc - i;
        if (found[k])
            model_make_ready(m, found[k], is_first, false);
    }
    model_put(m, "]");
}

static void call_release(struct queue_model *m, const struct call *c)
{
    give_back(m, c, true);
}

static void call_pass(struct queue_model *m, const struct call *c)
{
    give_back(m, c, false);
}

static void move_dead(struct queue_model *m, struct model_delivery *d, const struct call *c,
                      size_t i)
{
    list_remove(&d->node);
    free(d->reason);
    d->reason = mem_strdup(model_word(c, i + 1));
    d->when_ms = m->now_ms;
    d->owner[0] = 0;
    list_push_back(&m->dead, &d->node);
}

static void call_dead(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 2, move_dead);
}

static int by_score(const void *a, const void *b)
{
    const struct model_dest *const *x = a, *const *y = b;
    if ((*x)->score != (*y)->score)
        return (*x)->score < (*y)->score ? -1 : 1;
    return strcmp((*x)->name, (*y)->name);
}

/* Claimable destinations of a lane, the longest waiting first. */
static size_t claimable(const struct queue_model *m, char lane, struct model_dest **out, size_t max)
{
    size_t n = 0;
    list_for_each (node, &m->dests) {
        struct model_dest *d = list_entry(node, struct model_dest, node);
        if (d->lane == lane && d->score <= m->now_ms && n < max)
            out[n++] = d;
    }
    qsort(out, n, sizeof *out, by_score);
    return n;
}

/* True when this claim was asked before, or a later one was: then it says what that gave. */
static bool repeat_claim(struct queue_model *m, struct model_worker *w, long long seq)
{
    if (seq == 0 || w->claim < seq)
        return false;
    char ids[sizeof w->claimed], *rest;
    memcpy(ids, w->claimed, sizeof ids);
    for (char *id = strtok_r(ids, " ", &rest); id && w->claim == seq;
         id = strtok_r(NULL, " ", &rest)) {
        struct model_delivery *d = model_find_in(&m->leased, id, w->name);
        if (d) {
            model_put(m, d->id);
            model_put(m, d->item);
        }
    }
    return true;
}

/* Leases up to max of one destination, which then goes to the back, or away. */
static long long claim_from(struct queue_model *m, struct model_dest *dest, struct model_worker *w,
                            long long max, struct buf *ids)
{
    long long n = 0;
    for (; n < max && !list_is_empty(&dest->ready); n++) {
        struct model_delivery *d = list_entry(dest->ready.next, struct model_delivery, node);
        model_lease(m, d, w->name);
        model_put(m, d->id);
        model_put(m, d->item);
        must(buf_printf(ids, "%s ", d->id) == STATUS_OK);
    }
    if (list_is_empty(&dest->ready))
        model_drop_dest(dest);
    else
        dest->score = m->now_ms;
    return n;
}

/* Leases up to max of a lane, up to per_dest of each destination. */
static long long claim_lane(struct queue_model *m, char lane, struct model_worker *w, long long max,
                            long long per_dest, struct buf *ids)
{
    struct model_dest *dests[64];
    long long left = max;
    size_t n = claimable(m, lane, dests, 64);
    for (size_t i = 0; i < n && left > 0; i++)
        left -= claim_from(m, dests[i], w, left < per_dest ? left : per_dest, ids);
    return max - left;
}

static void call_claim(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, model_word(c, 0));
    long long left = model_number(c, 3), per_dest = model_number(c, 4), seq = model_number(c, 5);
    struct buf ids;
    buf_init(&ids, sizeof w->claimed - 1);
    model_put(m, "[");
    bool is_repeated = repeat_claim(m, w, seq);
    for (const char *lane = model_word(c, 2), *next; *lane && !is_repeated; lane = next) {
        long long most = isdigit(lane[1]) ? strtoll(lane + 1, NULL, 10) : left;
        next = lane + 1 + strspn(lane + 1, "0123456789");
        left -= claim_lane(m, *lane, w, most < left ? most : left, per_dest, &ids);
    }
    if (ids.len > 0) {
        model_renew(m, w->name, model_number(c, 1));
        if (seq > 0) {
            w->claim = seq;
            snprintf(w->claimed, sizeof w->claimed, "%.*s", (int)ids.len, ids.ptr);
        }
    }
    model_put(m, "]");
    buf_done(&ids);
}

static struct model_delivery *next_due(const struct queue_model *m)
{
    struct model_delivery *first = NULL;
    list_for_each (node, &m->scheduled) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if (d->when_ms > m->now_ms)
            continue;
        if (!first || d->when_ms < first->when_ms ||
            (d->when_ms == first->when_ms && strcmp(d->id, first->id) < 0))
            first = d;
    }
    return first;
}

static struct model_worker *next_silent(const struct queue_model *m)
{
    struct model_worker *first = NULL;
    list_for_each (node, &m->workers) {
        struct model_worker *w = list_entry(node, struct model_worker, node);
        if (!w->has_lease || w->expires_ms > m->now_ms)
            continue;
        if (!first || w->expires_ms < first->expires_ms ||
            (w->expires_ms == first->expires_ms && strcmp(w->name, first->name) < 0))
            first = w;
    }
    return first;
}

static void call_tick(struct queue_model *m, const struct call *c)
{
    int moved = 0, reaped = 0;
    size_t open = 0;
    struct model_delivery *d;
    struct model_worker *w;
    struct model_dest *dests[64];
    for (; (d = next_due(m)); moved++)
        model_make_ready(m, d, false, false);
    while ((w = next_silent(m))) {
        int n = hand_back(m, w->name);
        w->was_reaped |= n > 0;
        w->has_lease = false;
        w->claim = 0;
        reaped += n;
    }
    for (const char *lane = "unb"; *lane; lane++)
        open += claimable(m, *lane, dests, 64);
    model_put(m, "[");
    model_put_num(m, moved);
    model_put_num(m, reaped);
    model_put_num(m, (long long)open);
    model_put(m, "]");
}

static void call_beat(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, model_word(c, 0));
    bool had_lease = w->has_lease;
    if (w->was_reaped) {
        w->was_reaped = false;
        w->claim = 0;
        hand_back(m, w->name);
        model_put_num(m, -1);
    } else {
        model_put_num(m, had_lease);
    }
    model_renew(m, w->name, model_number(c, 1));
}

static void call_bye(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, model_word(c, 0));
    model_put_num(m, hand_back(m, w->name));
    w->has_lease = w->was_reaped = false;
    w->claim = 0;
}

static void call_count(struct queue_model *m, const struct call *c)
{
    long long ready = 0, held = 0, leased = 0, scheduled = 0, died = 0;
    list_for_each (node, &m->dests) {
        const struct model_dest *dest = list_entry(node, struct model_dest, node);
        list_for_each (item, &dest->ready)
            *(dest->score == HELD ? &held : &ready) += 1;
    }
    list_for_each (node, &m->leased)
        leased++;
    list_for_each (node, &m->scheduled)
        scheduled++;
    list_for_each (node, &m->dead)
        died++;
    must(buf_printf(m->reply, "[ ready %lld scheduled %lld leased %lld held %lld dead %lld ] ",
                    ready, scheduled, leased, held, died) == STATUS_OK);
}

/* The new deliveries of one resplit, in the order of its text. */
static int split_into(struct queue_model *m, char *text, struct model_delivery **out, int max)
{
    char *rest;
    int n = 0;
    strtok_r(text, "\n", &rest);
    for (char *line; (line = strtok_r(NULL, "\n", &rest)) && n < max; n++) {
        char *tab = strchr(line, '\t');
        must(tab);
        *tab = 0;
        out[n] = model_make_delivery(line, tab + 1);
    }
    return n;
}

static void move_resplit(struct queue_model *m, struct model_delivery *d, const struct call *c,
                         size_t i)
{
    struct model_delivery *made[64];
    char text[8192];
    model_copy_text(text, sizeof text, model_word(c, i + 1));
    int n = split_into(m, text, made, 64);
    struct model_record *r = model_find_record(m, d->id);
    if (!r)
        r = model_make_record(m, d->id, false);
    if (strlen(d->id) > QUEUE_ID_LEN)
        r->copies += n - 1;
    else if (strlen(made[0]->id) > QUEUE_ID_LEN)
        r->copies = n;
    model_end_delivery(d);
    for (int k = n - 1; k >= 0; k--)
        model_make_ready(m, made[k], true, false);
}

static void call_resplit(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 2, move_resplit);
}

static const struct {
    const char *name;
    void (*call)(struct queue_model *m, const struct call *c);
} functions[] = {
    { "kilat_enq", model_call_enq },       { "kilat_done", call_done },
    { "kilat_bounced", call_done },        { "kilat_expired", call_done },
    { "kilat_retry", call_retry },         { "kilat_release", call_release },
    { "kilat_pass", call_pass },           { "kilat_dead", call_dead },
    { "kilat_cancel", model_call_cancel }, { "kilat_resplit", call_resplit },
    { "kilat_claim", call_claim },         { "kilat_tick", call_tick },
    { "kilat_beat", call_beat },           { "kilat_bye", call_bye },
    { "kilat_count", call_count },         { "kilat_drop", model_call_drop },
    { "kilat_hold", model_call_hold },     { "kilat_free", model_call_free },
    { "kilat_kick", model_call_kick },     { "kilat_revive", model_call_revive },
};

/* --- entry points ---------------------------------------------------------------------------- */

enum status queue_model_call(struct queue_model *m, int64_t now_ms, const char *function,
                             const struct slice *argv, size_t argc, struct buf *reply)
{
    struct call c = { argv, argc };
    must(now_ms >= m->now_ms);
    m->now_ms = now_ms;
    m->reply = reply;
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        if (strcmp(functions[i].name, function) != 0)
            continue;
        functions[i].call(m, &c);
        return STATUS_OK;
    }
    return STATUS_MISSING;
}

bool queue_model_has_record(const struct queue_model *m, const char *queue_id)
{
    return model_find_record(m, queue_id) != NULL;
}

static void dump_list(const char *state, const struct list *from, struct buf *out)
{
    list_for_each (node, from) {
        const struct model_delivery *d = list_entry(node, struct model_delivery, node);
        must(buf_printf(out, "%s %s %s\n", state, d->id, d->owner) == STATUS_OK);
    }
}

void queue_model_dump(const struct queue_model *m, struct buf *out)
{
    dump_list("leased", &m->leased, out);
    dump_list("scheduled", &m->scheduled, out);
    dump_list("dead", &m->dead, out);
    list_for_each (node, &m->dests) {
        const struct model_dest *d = list_entry(node, struct model_dest, node);
        dump_list(d->name, &d->ready, out);
    }
}

struct queue_model *queue_model_new(void)
{
    struct queue_model *m = mem_zalloc(sizeof *m);
    list_init(&m->leased);
    list_init(&m->scheduled);
    list_init(&m->dead);
    list_init(&m->dests);
    list_init(&m->records);
    list_init(&m->workers);
    list_init(&m->keys);
    return m;
}

static void end_all(struct list *from)
{
    list_for_each_safe (node, from)
        model_end_delivery(list_entry(node, struct model_delivery, node));
}

void queue_model_free(struct queue_model *m)
{
    end_all(&m->leased);
    end_all(&m->scheduled);
    end_all(&m->dead);
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        end_all(&dest->ready);
        model_drop_dest(dest);
    }
    list_for_each_safe (node, &m->records)
        free(list_entry(node, struct model_record, node));
    list_for_each_safe (node, &m->workers)
        free(list_entry(node, struct model_worker, node));
    list_for_each_safe (node, &m->keys)
        model_drop_key(list_entry(node, struct model_key, node));
    free(m);
}
