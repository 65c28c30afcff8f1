/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules - the file of rules, from text to a list.
 *
 * A word at a time: a word that begins a line begins a rule, one behind a blank goes on with it. A
 * key word (conditions[], actions[]) decides what the words behind it are. Patterns are kept in
 * lower case; the search is in rules_find.c.
 *
 * To add a condition: a row in conditions[], a field of struct reply_rule, its line in fits() of
 * rules_find.c. To
 * add an action: a row in actions[].
 */
#include "core/relay/rules.h"
#include "core/base/config_value.h"
#include "core/base/must.h"
#include "core/relay/rules_inside.h"
#include <stdlib.h>

#define SLOW_MAX       100
#define SUSPEND_MIN_MS 1000
#define SUSPEND_MAX_MS (7 * 24 * 3600 * 1000u)

/* --- words ----------------------------------------------------------------------------------- */

enum word_kind {
    WORD_BARE,
    WORD_QUOTED,
    WORD_END, /* of the rule: the next word begins a line, or there is none */
    WORD_BAD, /* `complain` was called */
};

struct reader {
    const char *file;
    struct slice rest;
    int line;
    bool is_at_start; /* of a line: no blank has been seen in it */
    struct reply_rules *rules;
    struct buf *error;
    bool has_defaults;
    /* The word that was read last. */
    enum word_kind kind;
    struct slice word; /* in the text, or in the arena */
    int word_line;
    uint32_t seen; /* conditions of the present rule, a bit for each row */
};

static bool complain(struct reader *r, const char *what, struct slice about)
{
    r->kind = WORD_BAD;
    enum status st = about.len > 0
                         ? buf_printf(r->error, "%s:%d: \"%.*s\": %s", r->file, r->word_line,
                                      SLICE_ARG(slice_head(about, 60)), what)
                         : buf_printf(r->error, "%s:%d: %s", r->file, r->word_line, what);
    must(st == STATUS_OK || r->error->len > 0);
    return false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void skip(struct reader *r, size_t n)
{
    r->rest = slice_skip(r->rest, n);
}

/* Up to the next word; a blank at the start of a line makes the line a continuation. */
static void skip_blanks(struct reader *r)
{
    while (r->rest.len > 0) {
        char c = r->rest.ptr[0];
        if (c == '#') {
            skip(r, slice_find(r->rest, '\n'));
        } else if (c == '\n') {
            r->line++;
            r->is_at_start = true;
            skip(r, 1);
        } else if (is_blank(c)) {
            r->is_at_start = false;
            skip(r, 1);
        } else {
            break;
        }
    }
}

/* In quotes stands anything that is printed; a backslash makes the next character plain. */
static bool read_quoted(struct reader *r)
{
    char *out = arena_alloc(&r->rules->arena, slice_find(r->rest, '\n') + 1);
    size_t n = 0, at = 1;
    while (at < r->rest.len && r->rest.ptr[at] != '"' && r->rest.ptr[at] != '\n') {
        if (r->rest.ptr[at] == '\\' && at + 1 < r->rest.len && r->rest.ptr[at + 1] != '\n')
            at++;
        if ((unsigned char)r->rest.ptr[at] < ' ')
            return complain(r, "a control character in a text", SLICE_NONE);
        out[n++] = reply_lower(r->rest.ptr[at++]);
    }
    if (at == r->rest.len || r->rest.ptr[at] != '"')
        return complain(r, "a text without its closing quote", slice_head(r->rest, 20));
    skip(r, at + 1);
    r->kind = WORD_QUOTED;
    r->word = slice_of(out, n);
    return true;
}

static bool read_bare(struct reader *r)
{
    size_t n = 0;
    while (n < r->rest.len && !is_blank(r->rest.ptr[n]) && r->rest.ptr[n] != '\n' &&
           r->rest.ptr[n] != '"') {
        if ((unsigned char)r->rest.ptr[n] < ' ')
            return complain(r, "a control character", SLICE_NONE);
        n++;
    }
    r->kind = WORD_BARE;
    r->word = slice_head(r->rest, n);
    skip(r, n);
    return true;
}

/* The next word of the rule, or WORD_END; false: it is bad. */
static bool next(struct reader *r)
{
    skip_blanks(r);
    if (r->rest.len == 0 || r->is_at_start) {
        r->kind = WORD_END;
        r->word = SLICE_NONE;
        return true;
    }
    r->word_line = r->line;
    return r->rest.ptr[0] == '"' ? read_quoted(r) : read_bare(r);
}

static bool is_word(const struct reader *r, const char *word)
{
    return r->kind == WORD_BARE && slice_eq(r->word, slice_str(word));
}

/* --- conditions ------------------------------------------------------------------------------ */

typedef bool value_fn(struct reader *r, struct reply_rule *rule, struct slice value);

static void grow(struct arena *arena, struct reply_values *values)
{
    struct slice *all = arena_alloc(arena, (2 * (size_t)values->count + 1) * sizeof *all);
    if (values->count > 0)
        memcpy(all, values->all, values->count * sizeof *all);
    values->all = all;
}

static bool add(struct reader *r, struct reply_values *values, struct slice value)
{
    struct arena *arena = &r->rules->arena;
    if (values->count == REPLY_VALUES_MAX)
        return complain(r, "too many values: write a second rule", value);
    if ((values->count & (values->count - 1)) == 0) /* as many as there is room for: twice that */
        grow(arena, values);
    char *copy = arena_alloc(arena, value.len + 1);
    for (size_t i = 0; i < value.len; i++)
        copy[i] = reply_lower(value.ptr[i]);
    values->all[values->count++] = slice_of(copy, value.len);
    return true;
}

static bool add_host(struct reader *r, struct reply_rule *rule, struct slice value)
{
    return add(r, &rule->hosts, value);
}

static bool add_code(struct reader *r, struct reply_rule *rule, struct slice value)
{
    bool is_good = value.len == 3 && (value.ptr[0] == '4' || value.ptr[0] == '5');
    for (size_t i = 1; i < 3 && is_good; i++)
        is_good = value.ptr[i] == 'x' || (value.ptr[i] >= '0' && value.ptr[i] <= '9');
    if (!is_good)
        return complain(r, "is no code: write for example 550, 45x or 4xx", value);
    return add(r, &rule->codes, value);
}

static bool add_status(struct reader *r, struct reply_rule *rule, struct slice value)
{
    if (!reply_status_is_valid(value, true))
        return complain(r, "is no status: write for example 5.1.1, x.1.1 or 5.7.x", value);
    return add(r, &rule->statuses, value);
}

static bool add_stage(struct reader *r, struct reply_rule *rule, struct slice value)
{
    enum outcome_stage stage;
    if (!outcome_stage_find(value, &stage))
        return complain(r, "is no stage: write for example rcpt or dot", value);
    rule->stages |= 1u << stage;
    return true;
}

static bool add_text(struct reader *r, struct reply_rule *rule, struct slice value)
{
    return add(r, &rule->texts[rule->text_count - 1], value);
}

static const struct condition {
    const char *name;
    bool is_quoted;
    value_fn *add;
} conditions[] = {
    { "host", false, add_host },   { "code", false, add_code }, { "status", false, add_status },
    { "stage", false, add_stage }, { "text", true, add_text },
};

static const struct condition *find_condition(const struct reader *r)
{
    for (size_t i = 0; i < ARRAY_LEN(conditions); i++)
        if (is_word(r, conditions[i].name))
            return &conditions[i];
    return NULL;
}

/* Each condition stands once, but for texts: there may be two of them, and both must hold. */
static bool begin_condition(struct reader *r, struct reply_rule *rule, const struct condition *c)
{
    uint32_t bit = 1u << (c - conditions);
    if (c->add == add_text && rule->text_count < REPLY_TEXTS_MAX)
        rule->text_count++;
    else if (r->seen & bit)
        return complain(r, "stands once too often: values of one condition stand side by side",
                        slice_str(c->name));
    r->seen |= bit;
    return true;
}

/* The values behind a condition's name; ends at the word that is none. */
static bool read_values(struct reader *r, struct reply_rule *rule, const struct condition *c)
{
    bool has_value = false;
    if (!begin_condition(r, rule, c))
        return false;
    while (next(r)) {
        if (r->kind == WORD_END || is_word(r, "->") || find_condition(r))
            return has_value || complain(r, "has no value", slice_str(c->name));
        if (c->is_quoted != (r->kind == WORD_QUOTED))
            return complain(r, c->is_quoted ? "must stand in quotes" : "must not stand in quotes",
                            r->word);
        if (r->word.len == 0)
            return complain(r, "an empty text fits everything", SLICE_NONE);
        if (!c->add(r, rule, r->word))
            return false;
        has_value = true;
    }
    return false;
}

static bool read_conditions(struct reader *r, struct reply_rule *rule)
{
    if (is_word(r, "->"))
        return complain(r, "a rule without a condition would fit every reply", SLICE_NONE);
    while (!is_word(r, "->")) {
        const struct condition *c = find_condition(r);
        if (r->kind == WORD_END)
            return complain(r, "a rule without \"->\" and a category", SLICE_NONE);
        if (!c)
            return complain(r, "is not known: write host, code, status, stage, text or ->",
                            r->word);
        if (!read_values(r, rule, c))
            return false;
    }
    return true;
}

/* --- what follows ---------------------------------------------------------------------------- */

static bool read_category(struct reader *r, struct reply_rule *rule)
{
    if (!next(r))
        return false;
    for (int i = CATEGORY_NONE + 1; i < CATEGORY_COUNT; i++)
        if (is_word(r, category_name((enum bounce_category)i))) {
            rule->verdict.category = (enum bounce_category)i;
            return true;
        }
    return complain(r, "is no category", r->kind == WORD_END ? SLICE("(nothing)") : r->word);
}

static bool read_slow(struct reader *r, struct reply_verdict *v)
{
    uint64_t factor;
    if (!next(r))
        return false;
    if (r->kind != WORD_BARE || !config_value_number(r->word, &factor) || factor < 2 ||
        factor > SLOW_MAX)
        return complain(r, "slow takes a factor from 2 to 100", r->word);
    v->slow_factor = (uint32_t)factor;
    return true;
}

static bool read_suspend(struct reader *r, struct reply_verdict *v)
{
    uint64_t ms;
    if (!next(r))
        return false;
    if (r->kind != WORD_BARE || !config_value_duration(r->word, &ms) || ms < SUSPEND_MIN_MS ||
        ms > SUSPEND_MAX_MS)
        return complain(r, "suspend takes a time from 1s to 7d, such as 10min", r->word);
    v->suspend_ms = (uint32_t)ms;
    return true;
}

static const struct action {
    const char *name;
    enum reply_action bit;
    bool (*read)(struct reader *r, struct reply_verdict *v); /* what stands behind it */
} actions[] = {
    { "slow", REPLY_SLOW, read_slow },    { "suspend", REPLY_SUSPEND, read_suspend },
    { "retry", REPLY_RETRY, NULL },       { "bounce", REPLY_BOUNCE, NULL },
    { "suppress", REPLY_SUPPRESS, NULL }, { "reroute", REPLY_REROUTE, NULL },
};

static bool read_action(struct reader *r, struct reply_verdict *v)
{
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (!is_word(r, actions[i].name))
            continue;
        if (v->actions & actions[i].bit)
            return complain(r, "stands twice", r->word);
        v->actions |= actions[i].bit;
        return !actions[i].read || actions[i].read(r, v);
    }
    return complain(r, "is no action: write slow, suspend, retry, bounce, suppress or reroute",
                    r->word);
}

static bool read_actions(struct reader *r, struct reply_verdict *v)
{
    while (next(r)) {
        if (r->kind != WORD_END) {
            if (!read_action(r, v))
                return false;
            continue;
        }
        if ((v->actions & REPLY_RETRY) && (v->actions & (REPLY_BOUNCE | REPLY_SUPPRESS)))
            return complain(r, "the rule above tries again and gives up", SLICE_NONE);
        return true;
    }
    return false;
}

/* --- the file -------------------------------------------------------------------------------- */

static bool read_rule(struct reader *r)
{
    struct reply_rules *rules = r->rules;
    if (rules->count == REPLY_RULES_MAX)
        return complain(r, "too many rules", SLICE_NONE);
    struct reply_rule *rule = arena_alloc(&rules->arena, sizeof *rule);
    rule->line = r->line;
    r->seen = 0;
    rule->verdict.slow_factor = 1;
    if (!read_conditions(r, rule) || !read_category(r, rule) || !read_actions(r, &rule->verdict))
        return false;
    *rules->last = rule;
    rules->last = &rule->next;
    rules->count++;
    return true;
}

static bool read_defaults(struct reader *r)
{
    if (!next(r))
        return false;
    if (!is_word(r, "off"))
        return complain(r, "write: defaults off", SLICE_NONE);
    r->has_defaults = false;
    return next(r) &&
           (r->kind == WORD_END || complain(r, "does not belong to \"defaults off\"", r->word));
}

/* Between rules: the next word is the first of its line. */
static bool begin_line(struct reader *r)
{
    bool was_at_start = r->is_at_start;
    r->is_at_start = false;
    r->word_line = r->line;
    if (!was_at_start)
        return complain(r, "the first rule must not begin with a blank", SLICE_NONE);
    return next(r);
}

static bool read_text(struct reader *r)
{
    for (skip_blanks(r); r->rest.len > 0; skip_blanks(r)) {
        if (!begin_line(r))
            return false;
        if (!(is_word(r, "defaults") ? read_defaults(r) : read_rule(r)))
            return false;
    }
    return true;
}

/* Appends the rules of a text; false: error says why. */
static bool append(struct reply_rules *rules, const char *file, struct slice text,
                   struct buf *error, bool *has_defaults)
{
    struct reader r = { .file = file,
                        .rest = text,
                        .line = 1,
                        .word_line = 1,
                        .is_at_start = true,
                        .rules = rules,
                        .error = error,
                        .has_defaults = true };
    if (text.len > REPLY_RULES_SIZE_MAX)
        return complain(&r, "the file is larger than 1 MiB", SLICE_NONE);
    bool is_good = read_text(&r);
    *has_defaults = r.has_defaults;
    return is_good;
}

enum status reply_rules_parse(const char *file, struct slice text, struct reply_rules **out,
                              struct buf *error)
{
    struct reply_rules *rules = mem_zalloc(sizeof *rules);
    bool has_defaults = true;
    arena_init(&rules->arena);
    rules->refs = 1;
    rules->last = &rules->first;
    bool is_good = append(rules, file, text, error, &has_defaults);
    if (is_good && has_defaults)
        is_good = append(rules, "replies.rules", slice_of(reply_rules_text, reply_rules_text_len),
                         error, &has_defaults);
    if (!is_good) {
        reply_rules_unref(rules);
        return STATUS_BAD;
    }
    *out = rules;
    return STATUS_OK;
}

struct reply_rules *reply_rules_ref(struct reply_rules *rules)
{
    rules->refs++;
    return rules;
}

void reply_rules_unref(struct reply_rules *rules)
{
    if (!rules || --rules->refs > 0)
        return;
    arena_done(&rules->arena);
    free(rules);
}
