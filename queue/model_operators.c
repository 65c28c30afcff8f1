/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_operators - what operators do to the queue: lua/operators.lua, said again.
 */
#include "queue/model_private.h"
#include <stdio.h>
#include <stdlib.h>

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
            model_forget(m, d);
            n++;
        }
    }
    return n;
}

void model_call_drop(struct queue_model *m, const struct call *c)
{
    const char *asked = model_word(c, 0);
    int leased = count_meant(&m->leased, asked);
    int dropped = drop_from(m, &m->scheduled, asked) + drop_from(m, &m->dead, asked);
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        dropped += drop_from(m, &dest->ready, asked);
        if (list_is_empty(&dest->ready) && dest->score != HELD)
            model_drop_dest(dest);
    }
    model_put(m, "[");
    model_put_num(m, dropped);
    model_put_num(m, leased);
    model_put(m, "]");
}

void model_call_hold(struct queue_model *m, const struct call *c)
{
    const char *lanes = model_word(c, 1);
    for (const char *lane = *lanes == '*' ? "unb" : lanes; *lane; lane++)
        model_dest_of(m, *lane, model_word(c, 0), HELD)->score = HELD;
    model_put_num(m, 1);
}

void model_call_free(struct queue_model *m, const struct call *c)
{
    const char *asked = model_word(c, 0);
    int freed = 0;
    list_for_each_safe (node, &m->dests) {
        struct model_dest *dest = list_entry(node, struct model_dest, node);
        if (dest->score != HELD || (*asked != '*' && strcmp(dest->name, asked) != 0))
            continue;
        dest->score = 0;
        freed++;
        if (list_is_empty(&dest->ready))
            model_drop_dest(dest);
    }
    model_put_num(m, freed);
}

static int attempts_of(const char *item)
{
    int attempts;
    must(sscanf(item, "%*c\t%*[^\t]\t%d", &attempts) == 1);
    return attempts;
}

void model_call_kick(struct queue_model *m, const struct call *c)
{
    const char *asked = model_word(c, 0);
    int kicked = 0;
    list_for_each (node, &m->scheduled) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        bool was_tried = attempts_of(d->item) > 0; /* else its sender holds it back */
        if (d->when_ms > m->now_ms && (*asked == '*' ? was_tried : is_meant(d->id, asked))) {
            d->when_ms = m->now_ms;
            kicked++;
        }
    }
    model_put_num(m, kicked);
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
    model_set_item(d, item);
}

static int by_death(const void *a, const void *b)
{
    const struct model_delivery *const *x = a, *const *y = b;
    if ((*x)->when_ms != (*y)->when_ms)
        return (*x)->when_ms < (*y)->when_ms ? -1 : 1;
    return strcmp((*x)->id, (*y)->id);
}

void model_call_revive(struct queue_model *m, const struct call *c)
{
    struct model_delivery *risen[256];
    const char *asked = model_word(c, 0);
    size_t n = 0;
    list_for_each (node, &m->dead) {
        struct model_delivery *d = list_entry(node, struct model_delivery, node);
        if ((*asked == '*' || is_meant(d->id, asked)) && n < 256)
            risen[n++] = d;
    }
    qsort(risen, n, sizeof risen[0], by_death);
    for (size_t i = 0; i < n; i++) {
        reborn(risen[i], m->now_ms);
        model_make_ready(m, risen[i], false, false);
    }
    model_put_num(m, (long long)n);
}
