/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_enqueue - how mail comes in, once, and is taken back: lua/enqueue.lua, said again. A
 * message of an enqueue is first given its fate; only then anything moves.
 */
#include "queue/model_private.h"
#include <stdio.h>
#include <stdlib.h>

static struct model_key *find_key(const struct queue_model *m, const char *name)
{
    list_for_each (node, &m->keys) {
        struct model_key *k = list_entry(node, struct model_key, node);
        if (strcmp(k->name, name) == 0)
            return k;
    }
    return NULL;
}

void model_drop_key(struct model_key *k)
{
    list_remove(&k->node);
    free(k);
}

/* --- in -------------------------------------------------------------------------------------- */

static void enq_one(struct queue_model *m, const struct call *c, size_t i)
{
    const char *mode = model_word(c, i + 2);
    struct model_delivery *d = model_make_delivery(model_word(c, i), model_word(c, i + 1));
    if (*mode == 'L') {
        model_lease(m, d, model_word(c, 0));
        model_renew(m, model_word(c, 0), model_number(c, 1));
    } else if (*mode == 'S') {
        d->when_ms = atoll(mode + 1);
        list_push_back(&m->scheduled, &d->node);
    } else {
        model_make_ready(m, d, false, *mode == 'H');
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
    for (size_t i = 4 + 5 * (size_t)model_number(c, 2); i < c->argc; i += 3)
        if (strcmp(model_word(c, i), id) == 0)
            return i;
    return 0;
}

static void make_key(struct queue_model *m, const struct call *c, size_t at)
{
    struct model_key *k = mem_zalloc(sizeof *k);
    model_copy_text(k->id, sizeof k->id, model_word(c, at));
    model_copy_text(k->name, sizeof k->name, model_word(c, at + 1));
    model_copy_text(k->digest, sizeof k->digest, model_word(c, at + 2));
    list_push_back(&m->keys, &k->node);
}

/* Another message under the same key: the first stands for it, or they are in conflict. */
static enum model_fate compare_keys(struct model_key *k, const char *digest,
                                    struct model_mail *mail)
{
    if (strcmp(k->digest, digest) != 0)
        return FATE_CONFLICT;
    k->is_promised = true;
    model_copy_text(mail->first_id, sizeof mail->first_id, k->id);
    return FATE_REPEATED;
}

static enum model_fate fate_of_mail(struct queue_model *m, const struct call *c,
                                    struct model_mail *mail)
{
    struct model_record *r = model_find_record(m, mail->id);
    size_t at = key_at(c, mail->id);
    struct model_key *k = at ? find_key(m, model_word(c, at + 1)) : NULL;
    bool is_own = k && strcmp(k->id, mail->id) == 0;
    if (k && !is_own && (!r || r->is_mark))
        return compare_keys(k, model_word(c, at + 2), mail);
    if (r)
        return r->is_mark ? FATE_WITHDRAWN : FATE_THERE;
    if (is_own) {
        model_copy_text(mail->first_id, sizeof mail->first_id, mail->id);
        return FATE_REPEATED;
    }
    return FATE_NEW;
}

/* The messages of an enqueue, each with its fate; what the call makes decides nothing but keys. */
static size_t sort_mail(struct queue_model *m, const struct call *c, struct model_mail *mail)
{
    size_t count = 0, n = (size_t)model_number(c, 2);
    for (size_t k = 0; k < n; k++) {
        char id[QUEUE_ID_LEN + 1];
        snprintf(id, sizeof id, "%s", model_word(c, 3 + 5 * k));
        if (count > 0 && strcmp(mail[count - 1].id, id) == 0)
            continue;
        must(count < 64);
        memcpy(mail[count].id, id, sizeof id);
        mail[count].fate = fate_of_mail(m, c, &mail[count]);
        size_t at = key_at(c, id);
        if (at && mail[count].fate <= FATE_THERE && !find_key(m, model_word(c, at + 1)))
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
    model_put(m, "[");
    for (size_t i = 0; i < count; i++)
        if (mail[i].fate >= FATE_REPEATED) {
            model_put(m, mail[i].id);
            model_put(m, mail[i].first_id);
        }
    model_put(m, "]");
}

void model_call_enq(struct queue_model *m, const struct call *c)
{
    struct model_mail mail[64];
    memset(mail, 0, sizeof mail);
    size_t n = (size_t)model_number(c, 2), count = sort_mail(m, c, mail);
    model_put(m, "[");
    model_put(m, "[");
    for (size_t k = 0; k < count; k++) {
        const struct model_record *r = model_find_record(m, mail[k].id);
        if (r && r->is_mark)
            model_put(m, mail[k].id);
    }
    model_put(m, "]");
    model_put(m, "[");
    for (size_t k = 0; k < n; k++) {
        size_t i = 3 + 5 * k;
        enum model_fate fate = mail_of(mail, count, model_word(c, i))->fate;
        if (fate == FATE_THERE && *model_word(c, i + 2) == 'L' &&
            !model_find_in(&m->leased, model_word(c, i), model_word(c, 0)))
            model_put(m, model_word(c, i));
        if (fate != FATE_NEW)
            continue;
        enq_one(m, c, i);
        struct model_record *r = model_find_record(m, model_word(c, i));
        if (!r)
            r = model_make_record(m, model_word(c, i), false);
        if (model_number(c, i + 3) > 0)
            r->copies = (int)model_number(c, i + 3);
    }
    model_put(m, "]");
    if (c->argc > 3 + 5 * n)
        put_repeats(m, mail, count);
    model_put(m, "]");
}

/* --- back ------------------------------------------------------------------------------------ */

/* The last one on its destination's list that is exactly this. */
static struct model_delivery *find_ready(const struct queue_model *m, const char *id,
                                         const char *item, struct model_dest **dest)
{
    list_for_each (node, &m->dests) {
        *dest = list_entry(node, struct model_dest, node);
        struct model_delivery *d = model_find_in(&(*dest)->ready, id, NULL);
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
    model_copy_text(out.item, sizeof out.item, model_word(c, i + 1));
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
    struct model_delivery *d = model_find_in(&m->leased, model_word(c, i), model_word(c, 0));
    if (d)
        return d;
    d = model_find_in(&m->scheduled, model_word(c, i), NULL);
    if (d && strcmp(d->item, item) == 0)
        return d;
    d = find_ready(m, model_word(c, i), item, dest);
    if (!d)
        *dest = NULL;
    return d;
}

static bool all_in_reach(const struct queue_model *m, const struct call *c, const char *record)
{
    struct model_dest *dest;
    for (size_t i = 1; i < c->argc; i += 2) {
        struct model_cancel said = read_cancel(c, i);
        if (strncmp(model_word(c, i), record, QUEUE_ID_LEN) == 0 &&
            !in_reach(m, c, i, said.item, &dest))
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
    if (!k || strncmp(k->id, model_word(c, i), QUEUE_ID_LEN) != 0)
        return m->now_ms - said.accepted_ms >= said.ttl_ms;
    if (k->is_promised || !all_in_reach(m, c, k->id)) {
        k->is_promised = true;
        return true;
    }
    model_drop_key(k);
    return false;
}

/* Each message is decided once, by the first of its deliveries that names a key. */
static void decide_kept(struct queue_model *m, const struct call *c, bool *kept)
{
    for (size_t i = 1; i < c->argc; i += 2) {
        size_t first = 1;
        while (first < i && (strncmp(model_word(c, first), model_word(c, i), QUEUE_ID_LEN) != 0 ||
                             !read_cancel(c, first).key[0]))
            first += 2;
        bool is_decided = first < i;
        if (!is_decided && read_cancel(c, i).key[0] && is_kept(m, c, i))
            for (size_t k = 1; k < c->argc; k += 2)
                kept[k] |= strncmp(model_word(c, k), model_word(c, i), QUEUE_ID_LEN) == 0;
    }
}

/* What is leased is decided before anything moves. */
void model_call_cancel(struct queue_model *m, const struct call *c)
{
    bool had_record[64] = { false }, kept[64] = { false };
    must(c->argc <= 64);
    for (size_t i = 1; i < c->argc; i += 2)
        had_record[i] = model_find_record(m, model_word(c, i)) != NULL;
    decide_kept(m, c, kept);
    model_put(m, "[");
    for (size_t i = 1; i < c->argc; i += 2) {
        struct model_dest *dest;
        struct model_cancel said = read_cancel(c, i);
        struct model_delivery *d = in_reach(m, c, i, said.item, &dest);
        if (d && !kept[i]) {
            model_forget(m, d);
            if (dest && list_is_empty(&dest->ready) && dest->score != HELD)
                model_drop_dest(dest);
            continue;
        }
        model_put(m, model_word(c, i));
        if (d && model_find_in(&m->leased, model_word(c, i), model_word(c, 0)))
            model_make_ready(m, d, true, false);
        else if (!had_record[i] && !model_find_record(m, model_word(c, i)))
            model_make_record(m, model_word(c, i), true);
    }
    model_put(m, "]");
}
