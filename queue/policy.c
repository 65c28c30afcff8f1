/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy - arguments of kilat_suppressed and kilat_admit, and their replies.
 *
 * Keys are made of the tenant's name, which the configuration has checked; addresses and users'
 * names are arguments only (P-222). A reason comes from Redis, where others may have written it,
 * and goes to a client in a reply: it ends before the first octet that is not printable.
 */
#include "queue/policy.h"
#include "core/base/must.h"
#include <stdio.h>

/* --- addresses ------------------------------------------------------------------------------- */

/* The local part with its quotes and backslashes undone. */
static size_t unquote(struct slice local, char *out)
{
    size_t n = 0;
    if (local.len < 2 || local.ptr[0] != '"') {
        memcpy(out, local.ptr, local.len);
        return local.len;
    }
    for (size_t i = 1; i + 1 < local.len; i++) {
        if (local.ptr[i] == '\\' && i + 2 < local.len)
            i++;
        out[n++] = local.ptr[i];
    }
    return n;
}

/* True when it may stand without quotes: RFC 5321's Dot-string. */
static bool is_dot_string(struct slice local)
{
    static const char specials[] = "()<>[]:;@\\,\" ";
    bool was_dot = true;
    for (size_t i = 0; i < local.len; i++) {
        bool is_dot = local.ptr[i] == '.';
        if ((is_dot && was_dot) || memchr(specials, local.ptr[i], sizeof specials) != NULL)
            return false;
        was_dot = is_dot;
    }
    return !was_dot;
}

static size_t quote(struct slice local, char *out)
{
    size_t n = 0;
    out[n++] = '"';
    for (size_t i = 0; i < local.len; i++) {
        if (local.ptr[i] == '"' || local.ptr[i] == '\\')
            out[n++] = '\\';
        out[n++] = local.ptr[i];
    }
    out[n++] = '"';
    return n;
}

/* Where the domain's "@" is; all of it, when there is none. No domain holds one. */
static size_t find_domain(struct slice mailbox)
{
    size_t at = mailbox.len;
    for (size_t i = 0; i < mailbox.len; i++)
        if (mailbox.ptr[i] == '@')
            at = i;
    return at;
}

struct slice policy_address(char out[POLICY_ADDRESS_MAX], struct slice mailbox)
{
    char plain[ADDRESS_PATH_MAX];
    must(mailbox.len <= sizeof plain);
    size_t at = find_domain(mailbox);
    struct slice local = slice_of(plain, unquote(slice_head(mailbox, at), plain));
    size_t n = local.len;
    if (is_dot_string(local))
        memcpy(out, local.ptr, local.len);
    else
        n = quote(local, out);
    for (size_t i = at; i < mailbox.len; i++) {
        char c = mailbox.ptr[i];
        out[n++] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    return slice_of(out, n);
}

/* --- the question ---------------------------------------------------------------------------- */

static bool is_limited(const struct smtp_admission *a)
{
    return a->tenant->recipients_per_minute > 0 || a->tenant->recipients_per_day > 0 ||
           (a->user.len > 0 && (a->user_per_minute > 0 || a->user_per_day > 0));
}

bool policy_is_asked(const struct smtp_admission *a)
{
    return a->tenant && (a->tenant->suppression || is_limited(a));
}

static void add(struct policy_question *q, struct slice arg)
{
    must(q->argc < POLICY_ARGS_MAX);
    q->argv[q->argc++] = arg;
}

static void add_number(struct policy_question *q, char text[12], uint32_t n)
{
    int len = snprintf(text, 12, "%u", n);
    add(q, slice_of(text, (size_t)len));
}

/* "kilat_admit" needs these besides. Who has not authenticated is nobody in particular. */
static void add_limits(struct policy_question *q, const struct smtp_admission *a)
{
    bool is_known = a->user.len > 0;
    add_number(q, q->numbers[0], a->tenant->recipients_per_minute);
    add_number(q, q->numbers[1], a->tenant->recipients_per_day);
    add(q, a->user);
    add_number(q, q->numbers[2], is_known ? a->user_per_minute : 0);
    add_number(q, q->numbers[3], is_known ? a->user_per_day : 0);
}

void policy_ask(struct policy_question *q, const struct smtp_admission *a, uint16_t shards)
{
    struct slice tenant = slice_str(a->tenant->name);
    q->argc = 0;
    add(q, SLICE("FCALL"));
    add(q, is_limited(a) ? SLICE("kilat_admit") : SLICE("kilat_suppressed"));
    add(q, SLICE("1"));
    add(q, queue_key_counters(q->key, queue_tenant_shard(tenant, shards)));
    add(q, tenant);
    add(q, a->tenant->suppression ? policy_address(q->rcpt, a->rcpt) : SLICE_NONE);
    if (is_limited(a))
        add_limits(q, a);
}

static struct slice printable(struct slice text)
{
    size_t n = 0;
    while (n < text.len && n < POLICY_REASON_MAX && text.ptr[n] >= ' ' && text.ptr[n] <= '~')
        n++;
    return slice_head(text, n);
}

/* --- hard bounces ---------------------------------------------------------------------------- */

void policy_hard_bounce(struct buf *out, struct slice tenant, uint32_t limit, struct slice rcpt,
                        struct slice reason)
{
    char form[POLICY_ADDRESS_MAX];
    struct slice address = policy_address(form, rcpt);
    must(limit > 0 && printable(reason).len > 0);
    enum status st = buf_printf(out, "%.*s\t%u\t%.*s\t%.*s", SLICE_ARG(tenant), limit,
                                SLICE_ARG(printable(reason)), SLICE_ARG(address));
    must(st == STATUS_OK);
}

/* --- the answer ------------------------------------------------------------------------------ */

enum smtp_admit policy_answer(const redisReply *reply, struct slice *reason)
{
    static const struct {
        struct slice word;
        enum smtp_admit answer;
    } words[] = {
        { { "ok", 2 }, SMTP_ADMIT_OK },
        { { "suppressed", 10 }, SMTP_ADMIT_SUPPRESSED },
        { { "rate", 4 }, SMTP_ADMIT_RATE },
        { { "quota", 5 }, SMTP_ADMIT_QUOTA },
    };
    *reason = SLICE_NONE;
    if (!reply || reply->type != REDIS_REPLY_STRING)
        return SMTP_ADMIT_DOWN;
    struct slice text = slice_of(reply->str, (size_t)reply->len);
    size_t space = slice_find(text, ' ');
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!slice_eq(slice_head(text, space), words[i].word))
            continue;
        *reason = printable(slice_skip(text, space + 1));
        return words[i].answer;
    }
    return SMTP_ADMIT_DOWN;
}
