/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report - from fates and NOTIFY to reports.
 *
 *     fate                     reported when
 *     failed, expired          NOTIFY has FAILURE, or was not said
 *     delivered                NOTIFY has SUCCESS and the next hop does not report itself; or
 *                              DELIVERBY asked for a trace and NOTIFY is not NEVER
 *     later, for too long      NOTIFY has DELAY; retry.delay_notice after the mail could first go
 *     later, past its time     DELIVERBY with by-mode N; NOTIFY has DELAY, or was not said
 *
 * The two notices are given once each for a delivery; the queue item remembers it (delivery.told).
 * Mail without NOTIFY gets no notice of delay: most of it is sent by programs, to nobody's mailbox.
 *
 * To add a reason: a row above, its case in report_action, a row in test_report.c.
 */
#include "core/relay/report.h"
#include "core/base/config.h"

/* Never to nobody, never about a report. */
bool report_is_possible(const struct message *m)
{
    return m->sender.len > 0 && !(m->flags & MESSAGE_BOUNCE);
}

/* P-67: mail that was held back begins its time when it is let go. */
static int64_t begun_ms(const struct message *m)
{
    return m->hold_until_ms > m->accepted_ms ? m->hold_until_ms : m->accepted_ms;
}

uint32_t report_notices_due(const struct config *cfg, const struct delivery *d,
                            const struct now *now)
{
    const struct message *m = d->message;
    uint32_t due = 0;
    if (cfg->retry.delay_notice_ms > 0 &&
        now->wall_ms - begun_ms(m) >= (int64_t)cfg->retry.delay_notice_ms)
        due |= DELIVERY_TOLD_DELAY;
    if (m->deliver_by_ms > 0 && !(m->flags & MESSAGE_BY_RETURN) && now->wall_ms >= m->deliver_by_ms)
        due |= DELIVERY_TOLD_LATE;
    return due & ~d->told;
}

static bool is_asked(uint32_t notify, enum dsn_notify bit)
{
    return notify & bit;
}

static bool is_asked_or_open(uint32_t notify, enum dsn_notify bit)
{
    return notify == 0 || is_asked(notify, bit);
}

static bool wants_delayed(uint32_t notify, uint32_t notices)
{
    return ((notices & DELIVERY_TOLD_DELAY) && is_asked(notify, DSN_NOTIFY_DELAY)) ||
           ((notices & DELIVERY_TOLD_LATE) && is_asked_or_open(notify, DSN_NOTIFY_DELAY));
}

static bool wants_relayed(const struct delivery *d, uint32_t notify)
{
    bool is_traced = (d->message->flags & MESSAGE_BY_TRACE) && !is_asked(notify, DSN_NOTIFY_NEVER);
    return is_traced || (is_asked(notify, DSN_NOTIFY_SUCCESS) && !d->txn.passes_dsn);
}

enum report_action report_action(const struct config *cfg, const struct delivery *d, uint32_t i,
                                 enum retry_fate fate, uint32_t notices)
{
    uint32_t notify = d->message->rcpts[d->rcpts[i]].notify;
    if (!report_is_possible(d->message))
        return REPORT_NONE;
    switch (fate) {
    case RETRY_DELIVERED: return wants_relayed(d, notify) ? REPORT_RELAYED : REPORT_NONE;
    case RETRY_LATER: return wants_delayed(notify, notices) ? REPORT_DELAYED : REPORT_NONE;
    case RETRY_FAILED:
    case RETRY_EXPIRED: break;
    }
    bool wants_failed = cfg->retry.bounces && is_asked_or_open(notify, DSN_NOTIFY_FAILURE);
    return wants_failed ? REPORT_FAILED : REPORT_NONE;
}
