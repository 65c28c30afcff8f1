/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_misfit - what the usual host of a destination cannot take, and another one might (P-178).
 *
 * A host that was asked and lacks something (a larger SIZE, BINARYMIME, SMTPUTF8, DELIVERBY) says
 * nothing bad about itself: its connections go on, its turn does not pass. Only the delivery moves
 * to `misfits`, with a bit set for each address of that host, and one connection at a time is made
 * for the first of them, to the first address without its bit. That connection takes misfits as
 * long as there are any and is drained then: ordinary mail belongs to the preferred host.
 *
 * When every host was asked, the delivery keeps what the last one said, which ends it. When one of
 * them could not be reached, it is deferred with that failure instead: what that host would have
 * taken must not come back because it was down for a minute.
 *
 * Misfits are rare and have waited: they take a connection before all lanes, urgent ones first, and
 * may take one that is kept for urgent mail.
 *
 * Limits: those of the pool, so an idle connection to the usual host makes room when all are used;
 * HOSTS_MAX addresses are told apart, TRIES_MAX hosts are asked in one attempt even if the list of
 * hosts changes in between.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"

#define HOSTS_MAX 64 /* bits of misfit.hosts */
#define TRIES_MAX 10

static const struct relay_action nothing = { .kind = RELAY_NOTHING };

/* --- hosts of one delivery ------------------------------------------------------------------- */

/* Bits are those of the present list. */
static void follow_list(const struct relay_dest *dest, struct delivery *d)
{
    if (d->misfit.hosts_serial == dest->hosts_serial)
        return;
    d->misfit.hosts = 0;
    d->misfit.hosts_serial = dest->hosts_serial;
}

static bool was_asked(const struct delivery *d, size_t host)
{
    return host >= HOSTS_MAX || (d->misfit.hosts >> host & 1);
}

static void mark_host(struct delivery *d, size_t host)
{
    if (host < HOSTS_MAX)
        d->misfit.hosts |= (uint64_t)1 << host;
}

/* All addresses of a name are one host, with one answer. */
static void mark_name(const struct relay_dest *dest, struct delivery *d, const char *name)
{
    for (size_t i = 0; i < dest->host_count; i++)
        if (strcmp(dest->hosts[i].name, name) == 0)
            mark_host(d, i);
}

/* The host to ask next; host_count: none is left. */
static size_t next_host(const struct relay_dest *dest, struct delivery *d)
{
    size_t host = 0;
    follow_list(dest, d);
    while (host < dest->host_count && was_asked(d, host))
        host++;
    return host;
}

/* --- events ---------------------------------------------------------------------------------- */

static void put_misfit(struct relay_pool *p, struct relay_dest *dest, struct delivery *d)
{
    /* The first stays the one that a connection is being made for. */
    if (message_lane(d->message) == LANE_URGENT)
        list_push_front(dest->misfit_slot ? dest->misfits.next : &dest->misfits, &d->node);
    else
        list_push_back(&dest->misfits, &d->node);
    dest->misfit_count++;
    p->waiting++;
    pool_touch(p, dest);
}

struct delivery *pool_pop_misfit(struct relay_pool *p, struct relay_dest *dest)
{
    struct list *node = list_pop_front(&dest->misfits);
    must(node != NULL);
    dest->misfit_count--;
    p->waiting--;
    return list_entry(node, struct delivery, node);
}

bool relay_pool_misfit(struct relay_pool *p, struct relay_slot *slot, struct delivery *d)
{
    struct relay_dest *dest = slot->dest;
    follow_list(dest, d);
    mark_name(dest, d, slot->host_name);
    bool is_last = ++d->misfit.tries >= TRIES_MAX || next_host(dest, d) == dest->host_count;
    if (is_last && !d->misfit.was_unreached)
        return false;
    if (!d->misfit.was_unreached)
        d->misfit.why = d->outcomes[0];
    delivery_reopen(d);
    if (p->is_draining)
        pool_give_back(p, d, &pool_shutting_down);
    else if (is_last)
        pool_give_back(p, d, &d->misfit.why);
    else
        put_misfit(p, dest, d);
    return true;
}

/* The connection was made for the first one; that is the one that goes without. */
void pool_misfit_unreached(struct relay_slot *slot, const struct rcpt_outcome *failure)
{
    struct relay_dest *dest = slot->dest;
    if (dest->misfit_slot == slot)
        dest->misfit_slot = NULL;
    if (dest->misfit_count == 0 || slot->hosts_serial != dest->hosts_serial)
        return;
    struct delivery *d = list_entry(dest->misfits.next, struct delivery, node);
    follow_list(dest, d);
    mark_host(d, slot->host);
    d->misfit.was_unreached = true;
    d->misfit.why = *failure;
    d->misfit.why.text = arena_copy(&d->arena, failure->text);
}

/* --- what to do ------------------------------------------------------------------------------ */

bool pool_misfit_wants(const struct relay_dest *dest)
{
    return dest->misfit_count > 0 && !dest->misfit_slot;
}

static struct relay_slot *fit_slot(struct relay_dest *dest, struct list *offers,
                                   const struct delivery *d)
{
    list_for_each (node, offers) {
        struct relay_slot *slot = list_entry(node, struct relay_slot, offer);
        if (slot->hosts_serial == dest->hosts_serial && !was_asked(d, slot->host))
            return slot;
    }
    return NULL;
}

/* A slot that may take a delivery now and whose host was not asked about this one; NULL: none. */
static struct relay_slot *fit_offer(struct relay_dest *dest, struct delivery *d)
{
    follow_list(dest, d);
    struct relay_slot *slot = fit_slot(dest, &dest->offers, d);
    return slot ? slot : fit_slot(dest, &dest->overlaps, d);
}

static struct relay_action send_misfit(struct relay_pool *p, struct relay_slot *slot)
{
    struct relay_dest *dest = slot->dest;
    struct relay_action a = pool_send(p, slot, pool_pop_misfit(p, dest));
    if (slot->is_for_misfits && dest->misfit_count == 0 && slot->state != SLOT_DRAINING)
        pool_slot_drain(p, slot);
    return a;
}

/* All connections of the destination are to hosts that were asked: an idle one goes. */
static void make_room(struct relay_pool *p, struct relay_dest *dest)
{
    if (dest->draining_count == 0 && !list_is_empty(&dest->offers))
        pool_slot_drain(p, list_entry(dest->offers.next, struct relay_slot, offer));
}

static struct relay_action connect_misfit(struct relay_pool *p, struct relay_dest *dest,
                                          size_t host)
{
    if (dest->slot_count >= pool_dest_most(p, dest)) {
        make_room(p, dest);
        return nothing;
    }
    if (p->slots >= p->cfg->relay.connections_max)
        return nothing;
    if (!pool_site_may_connect(dest, true)) {
        pool_site_wait(p, dest, WANT_URGENT);
        return nothing;
    }
    struct relay_slot *slot = pool_slot_new(p, dest, host);
    slot->is_for_misfits = true;
    dest->misfit_slot = slot;
    return (struct relay_action){
        .kind = RELAY_CONNECT, .dest = dest, .slot = slot, .host = &dest->hosts[host]
    };
}

struct relay_action pool_pick_misfit(struct relay_pool *p, struct relay_dest *dest)
{
    while (dest->misfit_count > 0) {
        struct delivery *d = list_entry(dest->misfits.next, struct delivery, node);
        struct relay_slot *slot = fit_offer(dest, d);
        if (slot)
            return send_misfit(p, slot);
        if (dest->misfit_slot)
            return nothing;
        size_t host = next_host(dest, d);
        if (host < dest->host_count)
            return connect_misfit(p, dest, host);
        pool_give_back(p, pool_pop_misfit(p, dest), &d->misfit.why);
    }
    return nothing;
}
