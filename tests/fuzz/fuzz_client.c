/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a peer of the outbound client, while transactions are offered whenever it takes
 * them, with everything that a message can ask for. Whatever the peer says: every transaction comes
 * back once with every outcome decided, only the reply to a final dot delivers, what we say is
 * bounded, and the machine ends when the connection does.
 */
#include "core/smtp/client.h"
#include "tests/fuzz/fuzz.h"

#define MAILS_MAX   8
#define RCPTS_MAX   150 /* more than the window */
#define WINDOW      100
#define COMMAND_MAX 400 /* octets of one command, parameters included */

struct mail {
    struct smtp_txn txn;
    struct arena arena;
    struct rcpt_outcome outcomes[RCPTS_MAX];
    bool is_back;
};

struct peer {
    struct smtp_client client;
    struct now now;
    struct message *message;
    uint32_t rcpts[RCPTS_MAX];
    struct mail mails[MAILS_MAX];
    uint32_t begun;
    struct smtp_txn *writing; /* content that is not ended yet */
    struct cutter chance;
    bool is_closed;
};

static void check_outcomes(const struct mail *m)
{
    for (uint32_t i = 0; i < m->txn.rcpt_count; i++) {
        const struct rcpt_outcome *o = &m->outcomes[i];
        must(o->stage != OUTCOME_NONE && o->code >= 200 && o->code <= 599);
        must(o->code / 100 != 3 && (o->code / 100 != 2 || o->stage == OUTCOME_DOT));
        must(o->stage != OUTCOME_DOT || m->txn.rcpts_good > 0);
        must(o->stage != OUTCOME_UNKNOWN || m->txn.dot_sent);
        must(o->stage != OUTCOME_LOCAL || o->code / 100 == 5);
        must(slice_is_printable(o->text) && o->text.len < SMTP_REPLY_TEXT_MAX);
    }
}

static void collect(struct peer *p)
{
    struct smtp_txn *txn;
    while ((txn = smtp_client_finished(&p->client))) {
        struct mail *m = container_of(txn, struct mail, txn);
        must(!m->is_back);
        m->is_back = true;
        check_outcomes(m);
        if (p->writing == txn)
            p->writing = NULL;
    }
}

static void offer(struct peer *p)
{
    static const uint32_t rcpt_counts[] = { 1, 2, RCPTS_MAX, 3 };
    while (p->begun < MAILS_MAX && smtp_client_can_take(&p->client)) {
        struct mail *m = &p->mails[p->begun++];
        m->txn = (struct smtp_txn){
            .message = p->message,
            .rcpts = p->rcpts,
            .rcpt_count = rcpt_counts[p->begun % ARRAY_LEN(rcpt_counts)],
            .outcomes = m->outcomes,
            .arena = &m->arena,
        };
        smtp_client_begin(&p->client, &m->txn, &p->now);
    }
}

static void end_body(struct peer *p)
{
    struct smtp_txn *txn = p->writing;
    p->writing = NULL;
    if (txn)
        smtp_client_body_sent(&p->client, txn, &p->now);
}

static bool step(struct peer *p)
{
    struct gather out;
    struct smtp_txn *txn = NULL;
    gather_init(&out);
    enum client_next next = smtp_client_next(&p->client, &out, &txn, &p->now);
    bool is_chunk = next == CLIENT_NEXT_BODY && txn->by_bdat;
    must((next == CLIENT_NEXT_BYTES || is_chunk) == (out.octets > 0));
    must(out.octets <= WINDOW * COMMAND_MAX);
    must(p->client.expect_count <= WINDOW);
    gather_done(&out);
    if (next == CLIENT_NEXT_BODY) {
        must(txn && !txn->dot_sent && txn->rcpts_good > 0 && !p->writing);
        must(txn->by_bdat || !(p->message->flags & MESSAGE_BINARY));
        p->writing = txn;
    }
    p->is_closed = next == CLIENT_NEXT_CLOSE;
    if (next == CLIENT_NEXT_TLS)
        smtp_client_secured(&p->client, p->chance.x & 1, &p->now);
    return next == CLIENT_NEXT_BYTES || next == CLIENT_NEXT_TLS;
}

/* What the driver does after every event. Now and then content is still on its way when the peer
 * speaks again. */
static void pump(struct peer *p)
{
    bool is_slow = cutter_next(&p->chance) == 3;
    do {
        collect(p);
        offer(p);
        if (!is_slow)
            end_body(p);
    } while (!p->writing && step(p));
    collect(p);
    must((smtp_client_deadline(&p->client) == INT64_MAX) ||
         smtp_client_deadline(&p->client) >= p->now.mono_ms);
}

static void hear(struct peer *p, struct slice piece)
{
    char *copy = exact_copy(piece);
    smtp_client_input(&p->client, slice_of(copy, piece.len), &p->now);
    free(copy);
    pump(p);
}

static void add_rcpt(struct message *m, uint32_t i)
{
    if ((m->flags & MESSAGE_UTF8) && i % 5 == 1)
        message_add_rcpt(m, SLICE("\xc3\xa9@b.example"), SLICE("b.example"));
    else
        message_add_rcpt(m, SLICE("a@b.example"), SLICE("b.example"));
    if (i % 3 == 0)
        message_set_rcpt_dsn(m, DSN_NOTIFY_SUCCESS, SLICE("rfc822;x"));
    else if (i % 3 == 1)
        message_set_rcpt_dsn(m, DSN_NOTIFY_DELAY, SLICE_NONE);
}

static struct message *make_message(struct slice in)
{
    struct message *m = message_new(NULL);
    m->size = 2000;
    m->flags = (in.len % 2 ? MESSAGE_8BIT : 0) | (in.len % 8 == 4 ? MESSAGE_BINARY : 0) |
               (in.len % 8 == 6 ? MESSAGE_UTF8 : 0) | (in.len % 16 == 7 ? MESSAGE_BY_RETURN : 0);
    m->deliver_by_ms = in.len % 8 == 7 ? 5000 : 0;
    m->envid = SLICE("envelope");
    m->ret = DSN_RET_FULL;
    m->priority = 9;
    for (uint32_t i = 0; i < RCPTS_MAX; i++)
        add_rcpt(m, i);
    return m;
}

static void end_it(struct peer *p, size_t size)
{
    if (size % 4 == 1)
        smtp_client_timeout(&p->client);
    smtp_client_lost(&p->client, OUTCOME_LOST, "the input is over");
    pump(p);
    must(p->is_closed || p->writing);
    must(list_is_empty(&p->client.active) && !p->writing);
    for (uint32_t i = 0; i < p->begun; i++) {
        must(p->mails[i].is_back);
        arena_done(&p->mails[i].arena);
    }
    smtp_client_done(&p->client);
    message_unref(p->message);
}

/* Every kind of TLS and login; mostly neither. */
static struct client_policy policy_of(size_t size)
{
    struct client_policy policy = { .is_helo_only = size % 32 == 9 };
    if (size % 8 < 3)
        return policy;
    policy.tls = size % 5 % 4;
    policy.logins = (uint32_t)(size % 7);
    policy.user = size % 3 ? SLICE("user") : SLICE_NONE;
    policy.secret = SLICE("secret");
    return policy;
}

/* by_line: a peer that waits for us after each line; otherwise cut anywhere. */
static void run(struct slice in, bool by_line)
{
    struct peer *p = mem_zalloc(sizeof(*p));
    size_t size = in.len;
    p->chance = cutter_of(in);
    p->message = make_message(in);
    struct client_policy policy = policy_of(size);
    smtp_client_init(&p->client, &policy, SLICE("me.example"), 0, &p->now);
    for (uint32_t i = 0; i < RCPTS_MAX; i++)
        p->rcpts[i] = i;
    pump(p);
    while (in.len > 0) {
        size_t n = by_line ? slice_find(in, '\n') + 1 : cutter_next(&p->chance);
        struct slice piece = slice_head(in, n);
        hear(p, piece);
        in = slice_skip(in, piece.len);
        p->now.mono_ms++;
        if (in.len == size / 2 && size % 3 == 0)
            smtp_client_quit(&p->client);
    }
    end_it(p, size);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    run(in, true);
    run(in, false);
    return 0;
}
