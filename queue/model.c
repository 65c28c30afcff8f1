/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model - deliveries on lists, destinations on a list, records on a list.
 *
 * A delivery is on exactly one list: its destination's, or that of the leased, the scheduled or the
 * dead. Each function of kilat.lua is one function here, in the same order, and says only what
 * happens; where Redis has an order (a sorted set: by score, then by name), this file sorts too.
 */
#include "queue/model.h"
#include "core/base/list.h"
#include "core/smtp/message.h"
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_LEN 300
#define HELD         INT64_MAX

struct model_delivery {
    struct list node;
    char id[64];
    char *item;      /* owned */
    char owner[64];  /* leased: the worker */
    char *reason;    /* owned; dead: why */
    int64_t when_ms; /* scheduled: due; dead: when it died */
};

struct model_dest {
    struct list node;
    char lane;
    char name[NAME_MAX_LEN];
    int64_t score; /* earliest claim; HELD */
    struct list ready;
};

struct model_record {
    struct list node;
    char id[QUEUE_ID_LEN + 1];
    int copies;   /* deliveries left; 0: it has one */
    bool is_mark; /* only the mark of a withdrawn message */
};

struct model_key {
    struct list node;
    char name[64], id[QUEUE_ID_LEN + 1], digest[64];
    bool is_promised; /* its message cannot be withdrawn any more */
};

struct model_worker {
    struct list node;
    char name[64];
    bool has_lease; /* has a heartbeat */
    int64_t expires_ms;
    bool was_reaped; /* and has not heard of it */
    long long claim; /* number of its last claim; 0: none known */
    char claimed[4096];
};

struct queue_model {
    struct list leased, scheduled, dead, dests, records, workers, keys;
    int64_t now_ms;
    struct buf *reply;
};

struct call {
    const struct slice *argv;
    size_t argc;
};

/* --- words ----------------------------------------------------------------------------------- */

static void put(struct queue_model *m, const char *word)
{
    must(buf_printf(m->reply, "%s ", word) == STATUS_OK);
}

static void put_num(struct queue_model *m, long long n)
{
    must(buf_printf(m->reply, "%lld ", n) == STATUS_OK);
}

static const char *word(const struct call *c, size_t i)
{
    static char words[8][8192];
    static int next;
    char *out = words[next++ % 8];
    must(i < c->argc && c->argv[i].len < sizeof words[0]);
    memcpy(out, c->argv[i].ptr, c->argv[i].len);
    out[c->argv[i].len] = 0;
    return out;
}

static long long number(const struct call *c, size_t i)
{
    return i < c->argc ? atoll(word(c, i)) : 0;
}

static void copy_text(char *to, size_t size, const char *from)
{
    must(strlen(from) < size);
    memcpy(to, from, strlen(from) + 1);
}

/* --- finding --------------------------------------------------------------------------------- */

static struct model_delivery *find_in(const struct list *from, const char *id, const char *owner)
{
    list_for_each (node, from) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if (strcmp(d->id, id) == 0 && (!owner || strcmp(d->owner, owner) == 0))
            return d;
    }
    return NULL;
}

static struct model_record *find_record(const struct queue_model *m, const char *id)
{
    list_for_each (node, &m->records) {
        struct model_record *r = list_entry(node, struct model_record, node);
        if (strncmp(r->id, id, QUEUE_ID_LEN) == 0)
            return r;
    }
    return NULL;
}

static struct model_record *make_record(struct queue_model *m, const char *id, bool is_mark)
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
    copy_text(w->name, sizeof w->name, name);
    list_push_back(&m->workers, &w->node);
    return w;
}

static struct model_key *find_key(const struct queue_model *m, const char *name)
{
    list_for_each (node, &m->keys) {
        struct model_key *k = list_entry(node, struct model_key, node);
        if (strcmp(k->name, name) == 0)
            return k;
    }
    return NULL;
}

static void drop_key(struct model_key *k)
{
    list_remove(&k->node);
    free(k);
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

static void renew(struct queue_model *m, const char *worker, long long lease_ms)
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

static struct model_dest *dest_of(struct queue_model *m, char lane, const char *name, int64_t score)
{
    struct model_dest *d = find_dest(m, lane, name);
    if (d)
        return d;
    d = mem_zalloc(sizeof *d);
    d->lane = lane;
    copy_text(d->name, sizeof d->name, name);
    d->score = score;
    list_init(&d->ready);
    list_push_back(&m->dests, &d->node);
    return d;
}

static void drop_dest(struct model_dest *d)
{
    list_remove(&d->node);
    free(d);
}

/* --- moving ---------------------------------------------------------------------------------- */

static struct model_delivery *make_delivery(const char *id, const char *item)
{
    struct model_delivery *d = mem_zalloc(sizeof *d);
    list_init(&d->node);
    copy_text(d->id, sizeof d->id, id);
    d->item = mem_strdup(item);
    return d;
}

static void end_delivery(struct model_delivery *d)
{
    list_remove(&d->node);
    free(d->item);
    free(d->reason);
    free(d);
}

static void set_item(struct model_delivery *d, const char *item)
{
    free(d->item);
    d->item = mem_strdup(item);
}

static void make_ready(struct queue_model *m, struct model_delivery *d, bool to_front, bool is_held)
{
    char name[NAME_MAX_LEN];
    must(sscanf(d->item, "%*c\t%299[^\t]", name) == 1);
    is_held |= name[0] == '!';
    struct model_dest *dest = dest_of(m, d->item[0], name, is_held ? HELD : m->now_ms);
    list_remove(&d->node);
    d->owner[0] = 0;
    if (to_front)
        list_push_front(&dest->ready, &d->node);
    else
        list_push_back(&dest->ready, &d->node);
}

static void lease(struct queue_model *m, struct model_delivery *d, const char *worker)
{
    list_remove(&d->node);
    copy_text(d->owner, sizeof d->owner, worker);
    list_push_back(&m->leased, &d->node);
}

/* A delivery is over; its record goes with the last. */
static void forget(struct queue_model *m, struct model_delivery *d)
{
    struct model_record *r = find_record(m, d->id);
    bool is_last = strlen(d->id) == QUEUE_ID_LEN || !r || --r->copies <= 0;
    if (r && is_last) {
        list_remove(&r->node);
        free(r);
    }
    end_delivery(d);
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
        make_ready(m, held[i], true, false);
    return n;
}

/* --- the functions --------------------------------------------------------------------------- */

/* Gives each id to `move` when it is leased to the worker, and its group of arguments; the others
 * are the reply. */
typedef void move_fn(struct queue_model *m, struct model_delivery *d, const struct call *c,
                     size_t i);

static void move_leased(struct queue_model *m, const struct call *c, size_t width, move_fn *move)
{
    put(m, "[");
    for (size_t i = 1; i < c->argc; i += width) {
        struct model_delivery *d = find_in(&m->leased, word(c, i), word(c, 0));
        if (d)
            move(m, d, c, i);
        else
            put(m, word(c, i));
    }
    put(m, "]");
}

static void enq_one(struct queue_model *m, const struct call *c, size_t i)
{
    const char *mode = word(c, i + 2);
    struct model_delivery *d = make_delivery(word(c, i), word(c, i + 1));
    if (*mode == 'L') {
        lease(m, d, word(c, 0));
        renew(m, word(c, 0), number(c, 1));
    } else if (*mode == 'S') {
        d->when_ms = atoll(mode + 1);
        list_push_back(&m->scheduled, &d->node);
    } else {
        make_ready(m, d, false, *mode == 'H');
    }
}

/* Why a message of an enqueue is queued or not. */
enum model_fate { FATE_NEW, FATE_THERE, FATE_WITHDRAWN, FATE_REPEATED, FATE_CONFLICT };

struct model_mail {
    char id[QUEUE_ID_LEN + 1];
    enum model_fate fate;
    char first_id[QUEUE_ID_LEN + 1]; /* REPEATED */
};

/* Where a message's key stands among the arguments; 0: it has none. */
static size_t key_at(const struct call *c, const char *id)
{
    for (size_t i = 4 + 5 * (size_t)number(c, 2); i < c->argc; i += 3)
        if (strcmp(word(c, i), id) == 0)
            return i;
    return 0;
}

static void make_key(struct queue_model *m, const struct call *c, size_t at)
{
    struct model_key *k = mem_zalloc(sizeof *k);
    copy_text(k->id, sizeof k->id, word(c, at));
    copy_text(k->name, sizeof k->name, word(c, at + 1));
    copy_text(k->digest, sizeof k->digest, word(c, at + 2));
    list_push_back(&m->keys, &k->node);
}

/* Another message under the same key: the first stands for it, or they are in conflict. */
static enum model_fate compare_keys(struct model_key *k, const char *digest,
                                    struct model_mail *mail)
{
    if (strcmp(k->digest, digest) != 0)
        return FATE_CONFLICT;
    k->is_promised = true;
    copy_text(mail->first_id, sizeof mail->first_id, k->id);
    return FATE_REPEATED;
}

static enum model_fate fate_of_mail(struct queue_model *m, const struct call *c,
                                    struct model_mail *mail)
{
    struct model_record *r = find_record(m, mail->id);
    size_t at = key_at(c, mail->id);
    struct model_key *k = at ? find_key(m, word(c, at + 1)) : NULL;
    bool is_own = k && strcmp(k->id, mail->id) == 0;
    if (k && !is_own && (!r || r->is_mark))
        return compare_keys(k, word(c, at + 2), mail);
    if (r)
        return r->is_mark ? FATE_WITHDRAWN : FATE_THERE;
    if (is_own) {
        copy_text(mail->first_id, sizeof mail->first_id, mail->id);
        return FATE_REPEATED;
    }
    return FATE_NEW;
}

/* The messages of an enqueue, each with its fate; what the call makes decides nothing but keys. */
static size_t sort_mail(struct queue_model *m, const struct call *c, struct model_mail *mail)
{
    size_t count = 0, n = (size_t)number(c, 2);
    for (size_t k = 0; k < n; k++) {
        char id[QUEUE_ID_LEN + 1];
        snprintf(id, sizeof id, "%s", word(c, 3 + 5 * k));
        if (count > 0 && strcmp(mail[count - 1].id, id) == 0)
            continue;
        must(count < 64);
        memcpy(mail[count].id, id, sizeof id);
        mail[count].fate = fate_of_mail(m, c, &mail[count]);
        size_t at = key_at(c, id);
        if (at && mail[count].fate <= FATE_THERE && !find_key(m, word(c, at + 1)))
            make_key(m, c, at);
        count++;
    }
    return count;
}

static const struct model_mail *mail_of(const struct model_mail *mail, size_t count, const char *id)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(mail[i].id, id, QUEUE_ID_LEN) == 0)
            return &mail[i];
    must(false);
    return NULL;
}

static void put_repeats(struct queue_model *m, const struct model_mail *mail, size_t count)
{
    put(m, "[");
    for (size_t i = 0; i < count; i++)
        if (mail[i].fate >= FATE_REPEATED) {
            put(m, mail[i].id);
            put(m, mail[i].first_id);
        }
    put(m, "]");
}

static void call_enq(struct queue_model *m, const struct call *c)
{
    struct model_mail mail[64];
    memset(mail, 0, sizeof mail);
    size_t n = (size_t)number(c, 2), count = sort_mail(m, c, mail);
    put(m, "[");
    put(m, "[");
    for (size_t k = 0; k < count; k++) {
        const struct model_record *r = find_record(m, mail[k].id);
        if (r && r->is_mark)
            put(m, mail[k].id);
    }
    put(m, "]");
    put(m, "[");
    for (size_t k = 0; k < n; k++) {
        size_t i = 3 + 5 * k;
        enum model_fate fate = mail_of(mail, count, word(c, i))->fate;
        if (fate == FATE_THERE && *word(c, i + 2) == 'L' &&
            !find_in(&m->leased, word(c, i), word(c, 0)))
            put(m, word(c, i));
        if (fate != FATE_NEW)
            continue;
        enq_one(m, c, i);
        struct model_record *r = find_record(m, word(c, i));
        if (!r)
            r = make_record(m, word(c, i), false);
        if (number(c, i + 3) > 0)
            r->copies = (int)number(c, i + 3);
    }
    put(m, "]");
    if (c->argc > 3 + 5 * n)
        put_repeats(m, mail, count);
    put(m, "]");
}

static void move_done(struct queue_model *m, struct model_delivery *d, const struct call *c,
                      size_t i)
{
    forget(m, d);
}

static void call_done(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 1, move_done);
}

static void move_retry(struct queue_model *m, struct model_delivery *d, const struct call *c,
                       size_t i)
{
    list_remove(&d->node);
    set_item(d, word(c, i + 2));
    d->when_ms = m->now_ms + number(c, i + 1);
    d->owner[0] = 0;
    list_push_back(&m->scheduled, &d->node);
}

static void call_retry(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 3, move_retry);
}

/* From the last to the first, so that they come to stand in the order given. */
static void call_release(struct queue_model *m, const struct call *c)
{
    struct model_delivery *found[64] = { NULL };
    must(c->argc <= 64);
    put(m, "[");
    for (size_t i = 1; i < c->argc; i++) {
        found[i] = find_in(&m->leased, word(c, i), word(c, 0));
        for (size_t k = 1; k < i; k++)
            if (found[k] == found[i])
                found[i] = NULL; /* said twice */
        if (!found[i])
            put(m, word(c, i));
    }
    for (size_t i = c->argc; i-- > 1;)
        if (found[i])
            make_ready(m, found[i], true, false);
    put(m, "]");
}

static void move_dead(struct queue_model *m, struct model_delivery *d, const struct call *c,
                      size_t i)
{
    list_remove(&d->node);
    free(d->reason);
    d->reason = mem_strdup(word(c, i + 1));
    d->when_ms = m->now_ms;
    d->owner[0] = 0;
    list_push_back(&m->dead, &d->node);
}

static void call_dead(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 2, move_dead);
}

/* The last one on its destination's list that is exactly this. */
static struct model_delivery *find_ready(const struct queue_model *m, const char *id,
                                         const char *item, struct model_dest **dest)
{
    list_for_each (node, &m->dests) {
        *dest = list_entry(node, struct model_dest, node);
        struct model_delivery *d = find_in(&(*dest)->ready, id, NULL);
        if (d && strcmp(d->item, item) == 0)
            return d;
    }
    return NULL;
}

/* What a withdrawal says of a delivery: its item, and its message's key, when it has one. */
struct model_cancel {
    char item[1024], key[64];
    long long accepted_ms, ttl_ms;
};

static struct model_cancel read_cancel(const struct call *c, size_t i)
{
    struct model_cancel out = { .key = "" };
    copy_text(out.item, sizeof out.item, word(c, i + 1));
    char *key = strchr(out.item, '\n');
    if (!key)
        return out;
    *key++ = 0;
    must(sscanf(key, "%63s %lld", out.key, &out.ttl_ms) == 2);
    must(sscanf(out.item, "%*c\t%*[^\t]\t%*u\t%lld", &out.accepted_ms) == 1);
    return out;
}

/* The delivery, where a withdrawal reaches it; NULL: it does not. */
static struct model_delivery *in_reach(const struct queue_model *m, const struct call *c, size_t i,
                                       const char *item, struct model_dest **dest)
{
    *dest = NULL;
    struct model_delivery *d = find_in(&m->leased, word(c, i), word(c, 0));
    if (d)
        return d;
    d = find_in(&m->scheduled, word(c, i), NULL);
    if (d && strcmp(d->item, item) == 0)
        return d;
    d = find_ready(m, word(c, i), item, dest);
    if (!d)
        *dest = NULL;
    return d;
}

static bool all_in_reach(const struct queue_model *m, const struct call *c, const char *record)
{
    struct model_dest *dest;
    for (size_t i = 1; i < c->argc; i += 2) {
        struct model_cancel said = read_cancel(c, i);
        if (strncmp(word(c, i), record, QUEUE_ID_LEN) == 0 && !in_reach(m, c, i, said.item, &dest))
            return false;
    }
    return true;
}

/* True when the key keeps the message from being withdrawn; else the key is gone. */
static bool is_kept(struct queue_model *m, const struct call *c, size_t i)
{
    struct model_cancel said = read_cancel(c, i);
    struct model_key *k = find_key(m, said.key);
    if (!said.key[0])
        return false;
    if (!k || strncmp(k->id, word(c, i), QUEUE_ID_LEN) != 0)
        return m->now_ms - said.accepted_ms >= said.ttl_ms;
    if (k->is_promised || !all_in_reach(m, c, k->id)) {
        k->is_promised = true;
        return true;
    }
    drop_key(k);
    return false;
}

/* Each message is decided once, by the first of its deliveries that names a key. */
static void decide_kept(struct queue_model *m, const struct call *c, bool *kept)
{
    for (size_t i = 1; i < c->argc; i += 2) {
        size_t first = 1;
        while (first < i && (strncmp(word(c, first), word(c, i), QUEUE_ID_LEN) != 0 ||
                             !read_cancel(c, first).key[0]))
            first += 2;
        bool is_decided = first < i;
        if (!is_decided && read_cancel(c, i).key[0] && is_kept(m, c, i))
            for (size_t k = 1; k < c->argc; k += 2)
                kept[k] |= strncmp(word(c, k), word(c, i), QUEUE_ID_LEN) == 0;
    }
}

/* What is leased is decided before anything moves. */
static void call_cancel(struct queue_model *m, const struct call *c)
{
    bool had_record[64] = { false }, kept[64] = { false };
    must(c->argc <= 64);
    for (size_t i = 1; i < c->argc; i += 2)
        had_record[i] = find_record(m, word(c, i)) != NULL;
    decide_kept(m, c, kept);
    put(m, "[");
    for (size_t i = 1; i < c->argc; i += 2) {
        struct model_dest *dest;
        struct model_cancel said = read_cancel(c, i);
        struct model_delivery *d = in_reach(m, c, i, said.item, &dest);
        if (d && !kept[i]) {
            forget(m, d);
            if (dest && list_is_empty(&dest->ready) && dest->score != HELD)
                drop_dest(dest);
            continue;
        }
        put(m, word(c, i));
        if (d && find_in(&m->leased, word(c, i), word(c, 0)))
            make_ready(m, d, true, false);
        else if (!had_record[i] && !find_record(m, word(c, i)))
            make_record(m, word(c, i), true);
    }
    put(m, "]");
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
        struct model_delivery *d = find_in(&m->leased, id, w->name);
        if (d) {
            put(m, d->id);
            put(m, d->item);
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
        lease(m, d, w->name);
        put(m, d->id);
        put(m, d->item);
        must(buf_printf(ids, "%s ", d->id) == STATUS_OK);
    }
    if (list_is_empty(&dest->ready))
        drop_dest(dest);
    else
        dest->score = m->now_ms;
    return n;
}

static void call_claim(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, word(c, 0));
    long long left = number(c, 3), per_dest = number(c, 4), seq = number(c, 5);
    struct buf ids;
    buf_init(&ids, sizeof w->claimed - 1);
    put(m, "[");
    bool is_repeated = repeat_claim(m, w, seq);
    for (const char *lane = word(c, 2); *lane && !is_repeated; lane++) {
        struct model_dest *dests[64];
        size_t n = claimable(m, *lane, dests, 64);
        for (size_t i = 0; i < n && left > 0; i++)
            left -= claim_from(m, dests[i], w, left < per_dest ? left : per_dest, &ids);
    }
    if (ids.len > 0) {
        renew(m, w->name, number(c, 1));
        if (seq > 0) {
            w->claim = seq;
            snprintf(w->claimed, sizeof w->claimed, "%.*s", (int)ids.len, ids.ptr);
        }
    }
    put(m, "]");
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
        make_ready(m, d, false, false);
    while ((w = next_silent(m))) {
        int n = hand_back(m, w->name);
        w->was_reaped |= n > 0;
        w->has_lease = false;
        w->claim = 0;
        reaped += n;
    }
    for (const char *lane = "unb"; *lane; lane++)
        open += claimable(m, *lane, dests, 64);
    put(m, "[");
    put_num(m, moved);
    put_num(m, reaped);
    put_num(m, (long long)open);
    put(m, "]");
}

static void call_beat(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, word(c, 0));
    bool had_lease = w->has_lease;
    if (w->was_reaped) {
        w->was_reaped = false;
        w->claim = 0;
        hand_back(m, w->name);
        put_num(m, -1);
    } else {
        put_num(m, had_lease);
    }
    renew(m, w->name, number(c, 1));
}

static void call_bye(struct queue_model *m, const struct call *c)
{
    struct model_worker *w = worker_of(m, word(c, 0));
    put_num(m, hand_back(m, w->name));
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

/* True when a delivery id is the one asked for, or belongs to the queue id asked for. */
static bool is_meant(const char *id, const char *asked)
{
    size_t n = strlen(asked);
    return strcmp(id, asked) == 0 ||
           (n == QUEUE_ID_LEN && strncmp(id, asked, n) == 0 && id[n] == '/');
}

static int count_meant(const struct list *in, const char *asked)
{
    int n = 0;
    list_for_each (node, in)
        n += is_meant(list_entry(node, struct model_delivery, node)->id, asked);
    return n;
}

static int drop_from(struct queue_model *m, struct list *from, const char *asked)
{
    int n = 0;
    list_for_each_safe (node, from) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if (is_meant(d->id, asked)) {
            forget(m, d);
            n++;
        }
    }
    return n;
}

static void call_drop(struct queue_model *m, const struct call *c)
{
    const char *asked = word(c, 0);
    int leased = count_meant(&m->leased, asked);
    int dropped = drop_from(m, &m->scheduled, asked) + drop_from(m, &m->dead, asked);
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        dropped += drop_from(m, &dest->ready, asked);
        if (list_is_empty(&dest->ready) && dest->score != HELD)
            drop_dest(dest);
    }
    put(m, "[");
    put_num(m, dropped);
    put_num(m, leased);
    put(m, "]");
}

static void call_hold(struct queue_model *m, const struct call *c)
{
    const char *lanes = word(c, 1);
    for (const char *lane = *lanes == '*' ? "unb" : lanes; *lane; lane++)
        dest_of(m, *lane, word(c, 0), HELD)->score = HELD;
    put_num(m, 1);
}

static void call_free(struct queue_model *m, const struct call *c)
{
    const char *asked = word(c, 0);
    int freed = 0;
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        if (dest->score != HELD || (*asked != '*' && strcmp(dest->name, asked) != 0))
            continue;
        dest->score = 0;
        freed++;
        if (list_is_empty(&dest->ready))
            drop_dest(dest);
    }
    put_num(m, freed);
}

static int attempts_of(const char *item)
{
    int attempts;
    must(sscanf(item, "%*c\t%*[^\t]\t%d", &attempts) == 1);
    return attempts;
}

static void call_kick(struct queue_model *m, const struct call *c)
{
    const char *asked = word(c, 0);
    int kicked = 0;
    list_for_each (node, &m->scheduled) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        bool was_tried = attempts_of(d->item) > 0; /* else its sender holds it back */
        if (d->when_ms > m->now_ms && (*asked == '*' ? was_tried : is_meant(d->id, asked))) {
            d->when_ms = m->now_ms;
            kicked++;
        }
    }
    put_num(m, kicked);
}

/* No attempts behind it, and as long to live as it was given once. */
static void reborn(struct model_delivery *d, int64_t now_ms)
{
    char dest[NAME_MAX_LEN], item[1024];
    long long accepted, expires;
    int tail = 0;
    must(sscanf(d->item, "%*c\t%299[^\t]\t%*u\t%lld\t%lld%n", dest, &accepted, &expires, &tail) ==
         3);
    long long until = now_ms + expires - accepted;
    snprintf(item, sizeof item, "%c\t%s\t0\t%lld\t%lld%s", d->item[0], dest, accepted,
             until > expires ? until : expires, d->item + tail);
    set_item(d, item);
}

static int by_death(const void *a, const void *b)
{
    const struct model_delivery *const *x = a, *const *y = b;
    if ((*x)->when_ms != (*y)->when_ms)
        return (*x)->when_ms < (*y)->when_ms ? -1 : 1;
    return strcmp((*x)->id, (*y)->id);
}

static void call_revive(struct queue_model *m, const struct call *c)
{
    struct model_delivery *risen[256];
    const char *asked = word(c, 0);
    size_t n = 0;
    list_for_each (node, &m->dead) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if ((*asked == '*' || is_meant(d->id, asked)) && n < 256)
            risen[n++] = d;
    }
    qsort(risen, n, sizeof risen[0], by_death);
    for (size_t i = 0; i < n; i++) {
        reborn(risen[i], m->now_ms);
        make_ready(m, risen[i], false, false);
    }
    put_num(m, (long long)n);
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
        out[n] = make_delivery(line, tab + 1);
    }
    return n;
}

static void move_resplit(struct queue_model *m, struct model_delivery *d, const struct call *c,
                         size_t i)
{
    struct model_delivery *made[64];
    char text[8192];
    copy_text(text, sizeof text, word(c, i + 1));
    int n = split_into(m, text, made, 64);
    struct model_record *r = find_record(m, d->id);
    if (!r)
        r = make_record(m, d->id, false);
    if (strlen(d->id) > QUEUE_ID_LEN)
        r->copies += n - 1;
    else if (strlen(made[0]->id) > QUEUE_ID_LEN)
        r->copies = n;
    end_delivery(d);
    for (int k = n - 1; k >= 0; k--)
        make_ready(m, made[k], true, false);
}

static void call_resplit(struct queue_model *m, const struct call *c)
{
    move_leased(m, c, 2, move_resplit);
}

static const struct {
    const char *name;
    void (*call)(struct queue_model *m, const struct call *c);
} functions[] = {
    { "kilat_enq", call_enq },         { "kilat_done", call_done },
    { "kilat_retry", call_retry },     { "kilat_release", call_release },
    { "kilat_dead", call_dead },       { "kilat_cancel", call_cancel },
    { "kilat_resplit", call_resplit }, { "kilat_claim", call_claim },
    { "kilat_tick", call_tick },       { "kilat_beat", call_beat },
    { "kilat_bye", call_bye },         { "kilat_count", call_count },
    { "kilat_drop", call_drop },       { "kilat_hold", call_hold },
    { "kilat_free", call_free },       { "kilat_kick", call_kick },
    { "kilat_revive", call_revive },
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
    return find_record(m, queue_id) != NULL;
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
        end_delivery(list_entry(node, struct model_delivery, node));
}

void queue_model_free(struct queue_model *m)
{
    end_all(&m->leased);
    end_all(&m->scheduled);
    end_all(&m->dead);
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        end_all(&dest->ready);
        drop_dest(dest);
    }
    list_for_each_safe (node, &m->records)
        free(list_entry(node, struct model_record, node));
    list_for_each_safe (node, &m->workers)
        free(list_entry(node, struct model_worker, node));
    list_for_each_safe (node, &m->keys)
        drop_key(list_entry(node, struct model_key, node));
    free(m);
}
