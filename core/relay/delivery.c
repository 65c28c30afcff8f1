/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delivery - memory of one leased item: the struct, its recipients and their outcomes in one piece
 * each, the texts of outcomes in an arena that goes with the attempt.
 *
 * Limits: none of its own; the relay driver counts deliveries (queue.deliveries_max).
 */
#include "core/relay/delivery.h"
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>

/* Destinations and ids are ours and fit (route.h, DELIVERY_ID_MAX). */
static void copy_name(char *to, size_t size, struct slice name)
{
    must(name.len < size);
    if (name.len > 0)
        memcpy(to, name.ptr, name.len);
    to[name.len] = '\0';
}

struct delivery *delivery_new(struct message *m, const char *id, struct slice dest, uint16_t shard,
                              const uint32_t *rcpts, uint32_t rcpt_count)
{
    must(rcpt_count > 0);
    struct delivery *d = mem_zalloc(sizeof *d);
    list_init(&d->node);
    list_init(&d->txn.node);
    arena_init(&d->arena);
    d->message = message_ref(m);
    copy_name(d->id, sizeof d->id, slice_str(id));
    copy_name(d->dest, sizeof d->dest, dest);
    d->shard = shard;
    d->rcpt_count = rcpt_count;
    d->rcpts = mem_alloc(rcpt_count * sizeof *d->rcpts);
    memcpy(d->rcpts, rcpts, rcpt_count * sizeof *d->rcpts);
    for (uint32_t i = 0; i < rcpt_count; i++)
        must(rcpts[i] < m->rcpt_count);
    d->outcomes = mem_zalloc(rcpt_count * sizeof *d->outcomes);
    return d;
}

void delivery_free(struct delivery *d)
{
    if (d == NULL)
        return;
    must(list_is_empty(&d->node)); /* on no list any more */
    message_unref(d->message);
    arena_done(&d->arena);
    free(d->outcomes);
    free(d->rcpts);
    free(d);
}

void delivery_fail_open(struct delivery *d, enum outcome_stage stage, int code,
                        const char *enhanced, struct slice text)
{
    must(stage != OUTCOME_NONE && code / 100 >= 4);
    struct rcpt_outcome o = { .stage = stage, .code = code, .text = arena_copy(&d->arena, text) };
    snprintf(o.enhanced, sizeof o.enhanced, "%s", enhanced);
    for (uint32_t i = 0; i < d->rcpt_count; i++)
        if (d->outcomes[i].stage == OUTCOME_NONE)
            d->outcomes[i] = o;
}

void delivery_reopen(struct delivery *d)
{
    memset(d->outcomes, 0, d->rcpt_count * sizeof *d->outcomes);
}

void delivery_restart(struct delivery *d)
{
    delivery_reopen(d);
    memset(&d->misfit, 0, sizeof d->misfit);
    arena_done(&d->arena);
    d->said_by = NULL;
    d->started_ms = 0;
}

bool delivery_is_hopeless(struct delivery *d, const struct now *now)
{
    const struct message *m = d->message;
    bool is_late =
        (m->flags & MESSAGE_BY_RETURN) && m->deliver_by_ms > 0 && now->wall_ms >= m->deliver_by_ms;
    if (is_late)
        delivery_fail_open(d, OUTCOME_LOCAL, 550, "5.4.7",
                           SLICE("the time to deliver it by is over"));
    return is_late;
}
