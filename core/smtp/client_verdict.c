/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_verdict - how outcomes are written, and what a broken conversation makes of them.
 *
 * An outcome is written once: by a reply about its recipient, by one about its message, or when the
 * connection is over. Only replies that cannot be matched to commands take verdicts back, and only
 * of transactions whose content was not sent.
 */
#include "core/smtp/client_rows.h"
#include <stdio.h>

void client_set_enhanced(struct rcpt_outcome *o, const char *enhanced)
{
    snprintf(o->enhanced, sizeof o->enhanced, "%s", enhanced);
}

struct rcpt_outcome client_verdict_of(const struct smtp_reply *r, enum outcome_stage stage)
{
    struct rcpt_outcome v = { stage, r->code, "", slice_of(r->text, r->text_len) };
    client_set_enhanced(&v, r->enhanced);
    return v;
}

struct rcpt_outcome client_verdict_ours(enum outcome_stage stage, int code, const char *enhanced,
                                        const char *text)
{
    struct rcpt_outcome v = { stage, code, "", slice_str(text) };
    client_set_enhanced(&v, enhanced);
    return v;
}

static bool is_decided(const struct rcpt_outcome *o)
{
    return o->stage != OUTCOME_NONE;
}

bool client_all_decided(const struct smtp_txn *txn)
{
    return txn->rcpts_decided == txn->rcpt_count;
}

void client_decide(struct smtp_txn *txn, uint32_t rcpt, struct rcpt_outcome v)
{
    must(!is_decided(&txn->outcomes[rcpt]) && v.stage != OUTCOME_NONE);
    v.text = arena_copy(txn->arena, v.text);
    txn->outcomes[rcpt] = v;
    txn->rcpts_decided++;
}

void client_decide_open(struct smtp_txn *txn, struct rcpt_outcome v)
{
    if (client_all_decided(txn))
        return;
    v.text = arena_copy(txn->arena, v.text);
    for (uint32_t i = 0; i < txn->rcpt_count; i++)
        if (!is_decided(&txn->outcomes[i]))
            txn->outcomes[i] = v;
    txn->rcpts_decided = txn->rcpt_count;
}

static void forget_verdicts(struct smtp_txn *txn)
{
    memset(txn->outcomes, 0, txn->rcpt_count * sizeof *txn->outcomes);
    txn->rcpts_decided = 0;
}

void client_finish(struct smtp_client *c, struct smtp_txn *txn)
{
    must(client_all_decided(txn));
    list_remove(&txn->node);
    list_push_back(&c->done, &txn->node);
    if (c->sending == txn)
        c->sending = NULL;
    if (c->state == CLIENT_BUSY && list_is_empty(&c->active))
        client_enter(c, CLIENT_READY);
}

static void keep_failure(struct smtp_client *c, struct rcpt_outcome v)
{
    size_t len = v.text.len < sizeof c->failure_text ? v.text.len : sizeof c->failure_text - 1;
    if (len > 0)
        memmove(c->failure_text, v.text.ptr, len);
    c->failure_text[len] = '\0';
    c->failure = v;
    c->failure.text = slice_of(c->failure_text, len);
}

/* Whom v was not said about was merely there. */
void client_break(struct smtp_client *c, struct rcpt_outcome v, const struct smtp_txn *whose)
{
    keep_failure(c, v);
    while (!list_is_empty(&c->active)) {
        struct smtp_txn *txn = list_entry(c->active.next, struct smtp_txn, node);
        struct rcpt_outcome own = v;
        if (txn != whose)
            own.stage = txn->dot_sent ? OUTCOME_UNKNOWN : OUTCOME_LOST;
        client_decide_open(txn, own);
        client_finish(c, txn);
    }
    c->expect_count = 0;
    c->waiting_since_ms = -1;
    c->send_step = STEP_IDLE;
    client_enter(c, CLIENT_BROKEN);
}

/* Replies and commands do not match any more. Verdicts of transactions whose content was not sent
 * may belong to others: deferred, never bounced (P-168). */
void client_break_protocol(struct smtp_client *c, const struct client_expect *e, const char *why)
{
    struct smtp_txn *whose = e ? e->txn : NULL;
    enum outcome_stage stage = e ? client_rows[e->step].stage : OUTCOME_LOST;
    list_for_each (node, &c->active) {
        struct smtp_txn *txn = list_entry(node, struct smtp_txn, node);
        if (!txn->dot_sent)
            forget_verdicts(txn);
        else if (txn == whose)
            stage = OUTCOME_UNKNOWN; /* its content was sent: it may have been taken */
    }
    client_break(c, client_verdict_ours(stage, 451, "4.5.0", why), whose);
}
