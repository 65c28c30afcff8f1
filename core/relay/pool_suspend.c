/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_suspend - a destination that asked for less mail is left alone for a while.
 *
 * A rule about a reply says for how long (rules.h). It is a BACKOFF with a time of its own: what
 * waits is given back at once and what comes meanwhile too, with an outcome of ours that cites the
 * reply; that outcome is no peer's, so no rule about replies fits it again. Connections that are
 * open finish what they carry and close when they have idled. A destination whose hosts are being
 * looked up sends nothing either, and becomes one that rests when they are found.
 *
 * Each worker keeps its own; one that has not heard the reply may ask once more. A restart forgets
 * it. The longest rest wins.
 */
#include "core/base/must.h"
#include "core/relay/pool_inside.h"
#include <stdio.h>

static void remember(struct relay_dest *dest, const struct rcpt_outcome *why)
{
    int len = snprintf(dest->failure_text, sizeof dest->failure_text,
                       "not tried, the host asked for less mail: %d%s%s %.*s", why->code,
                       why->enhanced[0] ? " " : "", why->enhanced, SLICE_ARG(why->text));
    must(len > 0);
    dest->failure_host[0] = '\0';
    size_t room = sizeof dest->failure_text - 1;
    dest->failure = (struct rcpt_outcome){
        .stage = OUTCOME_LOCAL,
        .code = 451,
        .enhanced = "4.4.5", /* congestion, RFC 3463 3.5 */
        .text = slice_of(dest->failure_text, (size_t)len < room ? (size_t)len : room),
    };
}

/* The state of a rest; it ends like any back-off, with a look for hosts. */
static void rest(struct relay_pool *p, struct relay_dest *dest)
{
    dest->state = DEST_BACKOFF;
    dest->not_before_ms = dest->suspended_until_ms;
    dest->failures = dest->failures > 0 ? dest->failures : 1;
    pool_give_back_all(p, dest, &dest->failure);
    pool_touch(p, dest);
}

bool pool_is_suspended(struct relay_pool *p, struct relay_dest *dest, const struct now *now)
{
    if (now->mono_ms >= dest->suspended_until_ms)
        return false;
    rest(p, dest);
    return true;
}

void relay_pool_suspend(struct relay_pool *p, const char *key, int64_t until_ms,
                        const struct rcpt_outcome *why, const struct now *now)
{
    struct relay_dest *dest = pool_dest(p, key);
    if (p->is_draining || until_ms <= dest->suspended_until_ms || until_ms <= now->mono_ms)
        return;
    dest->suspended_until_ms = until_ms;
    remember(dest, why);
    if (dest->state != DEST_RESOLVING)
        rest(p, dest);
    else
        pool_touch(p, dest);
}

int64_t relay_pool_suspension_ms(const struct relay_pool *p, const char *key, const struct now *now)
{
    const struct relay_dest *dest = pool_find_dest(p, key);
    if (!dest || now->mono_ms >= dest->suspended_until_ms)
        return 0;
    return dest->suspended_until_ms - now->mono_ms;
}
