/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * rules - which reply means what, and what is done about it: lines of text, read once, looked
 * through for every failure.
 *
 *     # Words of ours, from "#" to the end of the line. A line that begins with a blank goes on.
 *     host *.example.net code 4xx text "too fast" "slow down"
 *         -> rate-limited slow 2 suspend 10min
 *     defaults off
 *
 * A rule has conditions, all of which must hold; each holds when one of its values does:
 *
 *     host    who said it: a name, in which * stands for any characters
 *     code    the reply's code, in which x stands for any digit: 550, 45x, 4xx
 *     status  the enhanced code, x for any number: x.1.1, 5.7.x; its first digit is taken from the
 *             reply's code, which alone says how bad it is (P-166)
 *     stage   where it was said: dns connect greeting ehlo auth tls mail rcpt data dot lost unknown
 *             local
 *     text    words in the reply, upper and lower case alike, * for any characters between them; it
 *             may stand twice, and both must hold
 *
 * After the arrow stand a category (classify.h), and what else is to be done: slow FACTOR, suspend
 * DURATION, retry, bounce, suppress, reroute. The first rule that fits decides. Rules of a file
 * come before those that are built in (rules/replies.rules); "defaults off" leaves these out.
 *
 * Limits: REPLY_RULES_SIZE_MAX octets, REPLY_RULES_MAX rules, REPLY_VALUES_MAX values in one.
 */
#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/base/status.h"
#include "core/relay/classify.h"
#include <stdatomic.h>

#define REPLY_RULES_SIZE_MAX (1024 * 1024)
#define REPLY_RULES_MAX      5000
#define REPLY_VALUES_MAX     64
#define REPLY_TEXTS_MAX      2

/* Values of one condition; none: it always holds. */
struct reply_values {
    struct slice *all; /* in the arena; lower case */
    uint32_t count;
};

struct reply_rule {
    struct reply_rule *next;
    struct reply_values hosts, codes, statuses;
    struct reply_values texts[REPLY_TEXTS_MAX]; /* all of them must hold */
    uint32_t text_count;
    uint32_t stages; /* a bit for each enum outcome_stage; 0: any */
    struct reply_verdict verdict;
    int line; /* of its file */
};

struct reply_rules {
    _Atomic uint32_t refs;
    struct arena arena;
    struct reply_rule *first, **last; /* in the arena, in order */
    uint32_t count;                   /* of the file and built in */
};

/* Rules of a file's text, then those that are built in. One reference. BAD: error says "FILE:LINE:
 * what is wrong". Empty text: what is built in. */
NODISCARD enum status reply_rules_parse(const char *file, struct slice text,
                                        struct reply_rules **out, struct buf *error);
struct reply_rules *reply_rules_ref(struct reply_rules *rules);
void reply_rules_unref(struct reply_rules *rules); /* any thread; NULL is harmless */
/* The first rule that fits; NULL: none. */
const struct reply_rule *reply_rules_find(const struct reply_rules *rules,
                                          const struct rcpt_outcome *o, struct slice host);

/* The text of rules/replies.rules. */
extern const char reply_rules_text[];
extern const size_t reply_rules_text_len;
