/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retry - replies into policy.
 *
 * One row per stage: whose failure it is, and what a positive, transient and permanent code means
 * there. Peers decide the code, the row decides what it is worth: only a 2xx to the final dot is a
 * delivery (P-185), only a stage where the peer (or DNS, or we) judged the mail can fail it for
 * good. Trouble of the way there, connections lost or not made, is transient whatever code it
 * carries; so is a final dot without a reply. Codes outside 2xx, 4xx and 5xx count as transient.
 *
 * A rule about replies (rules.h) may say otherwise for what it fits: retry a 5xx, bounce a 4xx.
 *
 * To change policy: a row here, a row in test_retry.c.
 */
#include "core/relay/retry.h"
#include "core/base/config.h"
#include "core/base/entropy.h"
#include "core/base/must.h"

enum scope {
    SCOPE_DESTINATION, /* every host of it */
    SCOPE_CONNECTION,  /* one host; another may do better */
    SCOPE_MESSAGE,
    SCOPE_RECIPIENT,
};

static const struct rule {
    enum scope scope;
    enum retry_fate positive, transient, permanent; /* by the code's first digit, P-166 */
} rules[] = {
    /* NXDOMAIN and null MX come as 5xx, a failed lookup as 4xx (P-210, P-211). */
    [OUTCOME_DNS] = { SCOPE_DESTINATION, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_CONNECT] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_LATER },
    /* Permanent only when the pool has no host left and says so (P-162). */
    [OUTCOME_GREETING] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_EHLO] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_MAIL] = { SCOPE_MESSAGE, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_RCPT] = { SCOPE_RECIPIENT, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_DATA] = { SCOPE_MESSAGE, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_DOT] = { SCOPE_MESSAGE, RETRY_DELIVERED, RETRY_LATER, RETRY_FAILED },
    [OUTCOME_LOST] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_LATER },
    [OUTCOME_UNKNOWN] = { SCOPE_MESSAGE, RETRY_LATER, RETRY_LATER, RETRY_LATER },
    /* A password that changed, a certificate that ran out: ours or theirs to mend, nobody's mail is
     * to come back for it (P-159, P-193). */
    [OUTCOME_AUTH] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_LATER },
    [OUTCOME_TLS] = { SCOPE_CONNECTION, RETRY_LATER, RETRY_LATER, RETRY_LATER },
    [OUTCOME_LOCAL] = { SCOPE_MESSAGE, RETRY_LATER, RETRY_LATER, RETRY_FAILED },
};

static const struct rule *rule_for(const struct rcpt_outcome *o)
{
    must(o->stage != OUTCOME_NONE && o->stage < ARRAY_LEN(rules));
    return &rules[o->stage];
}

static enum retry_fate by_code(const struct rule *rule, int code)
{
    switch (code / 100) {
    case 2: return rule->positive;
    case 5: return rule->permanent;
    default: return rule->transient;
    }
}

/* A rule may end what would be tried again, where a reply could end it, and keep what would end. */
static enum retry_fate by_rule(const struct rule *rule, enum retry_fate fate, uint32_t actions)
{
    if (fate == RETRY_FAILED && (actions & REPLY_RETRY))
        return RETRY_LATER;
    if (fate == RETRY_LATER && (actions & REPLY_BOUNCE))
        return rule->permanent;
    return fate;
}

enum retry_fate retry_fate(const struct rcpt_outcome *o, const struct reply_verdict *v,
                           int64_t expires_ms, const struct now *now)
{
    const struct rule *rule = rule_for(o);
    enum retry_fate fate = by_rule(rule, by_code(rule, o->code), v ? v->actions : 0);
    if (fate == RETRY_LATER && now->wall_ms >= expires_ms) /* P-219 */
        return RETRY_EXPIRED;
    return fate;
}

uint32_t retry_delay_ms(const struct config *cfg, uint32_t attempts, struct entropy *entropy)
{
    must(attempts > 0 && cfg->retry.schedule_len > 0);
    size_t last = cfg->retry.schedule_len - 1;
    uint64_t delay = cfg->retry.schedule_ms[attempts - 1 < last ? attempts - 1 : last];
    uint64_t spread = delay * cfg->retry.jitter_percent / 100;
    must(spread <= delay);
    delay = delay - spread + entropy_below(entropy, 2 * spread + 1);
    return delay < UINT32_MAX ? (uint32_t)delay : UINT32_MAX;
}

uint32_t retry_longer_ms(uint32_t delay_ms, uint32_t factor, uint64_t suspended_ms,
                         struct entropy *entropy)
{
    uint64_t delay = (uint64_t)delay_ms * factor;
    if (delay < suspended_ms)
        delay = suspended_ms + entropy_below(entropy, suspended_ms / 10 + 1);
    return delay < UINT32_MAX ? (uint32_t)delay : UINT32_MAX;
}

uint32_t retry_cap_delay_ms(uint32_t delay_ms, const struct message *m, const struct now *now)
{
    int64_t left = m->deliver_by_ms - now->wall_ms;
    return left > 0 && left < delay_ms ? (uint32_t)left : delay_ms;
}

enum retry_connection retry_connection_fate(const struct rcpt_outcome *failure, bool has_next_host)
{
    const struct rule *rule = rule_for(failure);
    if (has_next_host && rule->scope != SCOPE_DESTINATION)
        return RETRY_NEXT_HOST;
    return by_code(rule, failure->code) == RETRY_FAILED ? RETRY_FAIL_ALL : RETRY_DEFER_ALL;
}
