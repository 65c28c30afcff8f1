/* SPDX-License-Identifier: Apache-2.0 */
/*
 * classify - the first rule that fits names the category; what no rule knows has that of its code's
 * class. Which replies mean what stands in rules/replies.rules, not here.
 */
#include "core/relay/classify.h"
#include "core/base/must.h"
#include "core/relay/rules.h"

static const struct {
    const char *name, *meaning;
} categories[CATEGORY_COUNT] = { [CATEGORY_NONE] = { "", "" },
#define X(id, name, meaning) [CATEGORY_##id] = { name, meaning },
                                 CATEGORIES_TABLE(X)
#undef X
};

static const char *const stage_names[] = {
    [OUTCOME_NONE] = "none",         [OUTCOME_DNS] = "dns",   [OUTCOME_CONNECT] = "connect",
    [OUTCOME_GREETING] = "greeting", [OUTCOME_EHLO] = "ehlo", [OUTCOME_AUTH] = "auth",
    [OUTCOME_MAIL] = "mail",         [OUTCOME_RCPT] = "rcpt", [OUTCOME_DATA] = "data",
    [OUTCOME_DOT] = "dot",           [OUTCOME_LOST] = "lost", [OUTCOME_UNKNOWN] = "unknown",
    [OUTCOME_LOCAL] = "local",       [OUTCOME_TLS] = "tls",
};

const char *category_name(enum bounce_category category)
{
    must(category < CATEGORY_COUNT);
    return categories[category].name;
}

const char *category_meaning(enum bounce_category category)
{
    must(category < CATEGORY_COUNT);
    return categories[category].meaning;
}

const char *outcome_stage_name(enum outcome_stage stage)
{
    must(stage < ARRAY_LEN(stage_names));
    return stage_names[stage];
}

bool outcome_stage_find(struct slice name, enum outcome_stage *out)
{
    for (size_t i = OUTCOME_NONE + 1; i < ARRAY_LEN(stage_names); i++)
        if (slice_eq(name, slice_str(stage_names[i]))) {
            *out = (enum outcome_stage)i;
            return true;
        }
    return false;
}

struct reply_verdict classify(const struct reply_rules *rules, const struct rcpt_outcome *o,
                              struct slice host)
{
    struct reply_verdict none = { .slow_factor = 1 };
    if (o->stage == OUTCOME_DOT && o->code / 100 == 2)
        return none;
    const struct reply_rule *rule = reply_rules_find(rules, o, host);
    if (rule)
        return rule->verdict;
    none.category = o->code / 100 == 5 ? CATEGORY_OTHER_PERMANENT : CATEGORY_OTHER_TRANSIENT;
    return none;
}

/* P-238, on what the peer said: "5.7.1", "5.2.2", "5.4.1". */
static bool is_protected(const char *enhanced)
{
    return enhanced[0] != '\0' && enhanced[1] == '.' &&
           (strncmp(enhanced + 2, "7.", 2) == 0 || strncmp(enhanced + 2, "4.", 2) == 0 ||
            strcmp(enhanced + 2, "2.2") == 0);
}

bool classify_is_hard(const struct rcpt_outcome *o, const struct reply_verdict *v)
{
    bool is_of_address = v->category == CATEGORY_INVALID_MAILBOX ||
                         v->category == CATEGORY_INVALID_DOMAIN || (v->actions & REPLY_SUPPRESS);
    bool is_of_rcpt =
        o->stage == OUTCOME_RCPT || o->stage == OUTCOME_DOT || o->stage == OUTCOME_DNS;
    return is_of_address && is_of_rcpt && o->code / 100 == 5 && !(v->actions & REPLY_RETRY) &&
           !is_protected(o->enhanced);
}
