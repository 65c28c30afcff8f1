/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a file of rules, and then as a reply that they are tried on. What is read must be
 * within its bounds, what is not read must name its line, and the rule that is found must be one of
 * the file's.
 */
#include "core/relay/rules.h"
#include "tests/fuzz/fuzz.h"

static const char defaults_off[] = "defaults off\n"; /* those that are built in are read once */

static void check_rule(const struct reply_rule *rule)
{
    const struct reply_verdict *v = &rule->verdict;
    must(rule->line > 1 && rule->text_count <= REPLY_TEXTS_MAX);
    must(v->category > CATEGORY_NONE && v->category < CATEGORY_COUNT);
    must(v->slow_factor >= 1 && (v->slow_factor == 1) == !(v->actions & REPLY_SLOW));
    must((v->suspend_ms == 0) == !(v->actions & REPLY_SUSPEND));
    must(!(v->actions & REPLY_RETRY) || !(v->actions & (REPLY_BOUNCE | REPLY_SUPPRESS)));
    must(rule->hosts.count + rule->codes.count + rule->statuses.count + rule->texts[0].count > 0 ||
         rule->stages != 0);
}

/* The input's last octets as the reply of the host that its first ones name. */
static void try_on(const struct reply_rules *rules, struct slice in)
{
    struct rcpt_outcome o = { .stage = OUTCOME_RCPT, .code = 550, .enhanced = "5.1.1" };
    o.text = slice_skip(in, in.len > 600 ? in.len - 600 : 0);
    struct slice host = slice_head(in, 300);
    const struct reply_rule *found = reply_rules_find(rules, &o, host), *rule = rules->first;
    while (rule && rule != found)
        rule = rule->next;
    must(rule == found);
    struct reply_verdict v = classify(rules, &o, host);
    must(v.category == (found ? found->verdict.category : CATEGORY_OTHER_PERMANENT));
    o.enhanced[2] = '7';
    must(!classify_is_hard(&o, &v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    size_t head = sizeof defaults_off - 1;
    char *text = mem_alloc(head + size);
    struct reply_rules *rules;
    struct buf error;
    memcpy(text, defaults_off, head);
    if (size > 0)
        memcpy(text + head, data, size);
    buf_init(&error, 1024);
    if (reply_rules_parse("f", slice_of(text, head + size), &rules, &error) == STATUS_OK) {
        uint32_t count = 0;
        for (const struct reply_rule *rule = rules->first; rule; rule = rule->next, count++)
            check_rule(rule);
        must(count == rules->count && count <= REPLY_RULES_MAX);
        try_on(rules, in);
        reply_rules_unref(rules);
    } else {
        must(error.len > 4 && memcmp(buf_slice(&error).ptr, "f:", 2) == 0);
    }
    buf_done(&error);
    free(text);
    return 0;
}
