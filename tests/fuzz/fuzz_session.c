/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as what a client says to a session. Three octets choose what is around it:
 *
 *     1: the queue's verdicts, two bits each, in turn; 0x40 a client that is not trusted, 0x80 a
 *        shutdown when the first message is in
 *     2: the listener, IS_... below
 *     3: the answers to AUTH and about recipients, two bits each, in turn
 *
 * The rest is fed whole and in pieces. Both give the same replies and messages. Every reply line is
 * well formed (P-22); every message taken has a trace header, its true size, and nothing in it that
 * could end it elsewhere (P-77, P-85); none came from whom the listener must not take it (P-31), to
 * more recipients than there may be, to one that was not admitted (P-35). A handshake finds a
 * session that has forgotten all (P-124); what is said behind STARTTLS comes over TLS here, since
 * what came in clear is the driver's to drop.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/smtp_server.h"

#define OUT_MAX     (1u << 26)
#define IS_DISTRUST 0x40
#define IS_DRAIN    0x80

#define TLS_BITS   0x03 /* of the second octet: off, STARTTLS, implicit, off */
#define AUTH_BITS  0x0c /* off, optional, required, required */
#define IS_CLEAR   0x10 /* AUTH without TLS */
#define IS_TENANT  0x20
#define IS_XCLIENT 0x40
#define IS_NARROW  0x80 /* small limits, no FUTURERELEASE */

static struct scram_verifier pencil; /* of the password "pencil" */
static char *tenant_senders[] = { (char *)"@b.example", (char *)"user@example.org" };

struct talk {
    struct test_server t;
    struct smtp_session s;
    uint8_t choice, listener, answers;
    uint32_t messages, asked;
    struct config_tenant tenant;
    struct smtp_tls tls;
    struct buf replies;  /* all of them */
    struct buf contents; /* of all messages */
};

static void append(struct buf *out, struct slice s)
{
    must(buf_append(out, s) == STATUS_OK);
}

/* "250 x" or "250-x", printable, at most 512 octets with CR LF; challenges may be longer. */
static void check_line(struct slice line)
{
    bool is_challenge = slice_eq(slice_head(line, 4), SLICE("334 "));
    must(line.len >= 4 && line.len <= (is_challenge ? 2048 : 510));
    must(line.ptr[0] >= '2' && line.ptr[0] <= '5');
    must(line.ptr[1] >= '0' && line.ptr[1] <= '9' && line.ptr[2] >= '0' && line.ptr[2] <= '9');
    must(line.ptr[3] == ' ' || line.ptr[3] == '-');
    must(slice_is_printable(line));
}

static void check_replies(struct slice out)
{
    while (out.len > 0) {
        size_t len = slice_find(out, '\n');
        must(len > 0 && len < out.len && out.ptr[len - 1] == '\r');
        check_line(slice_head(out, len - 1));
        out = slice_skip(out, len + 1);
    }
}

static void flush(struct talk *k)
{
    check_replies(buf_slice(&k->s.out));
    append(&k->replies, buf_slice(&k->s.out));
    buf_done(&k->s.out);
}

static void check_content(const struct message *m)
{
    size_t len = m->content.len;
    char *text = test_flatten(&m->content);
    must(len > 10 && memcmp(text, "Received: ", 10) == 0);
    for (size_t i = 0; i < len && !(m->flags & MESSAGE_BINARY); i++) {
        must(text[i] != '\0');
        must(text[i] != '\r' || text[i + 1] == '\n'); /* a NUL stands behind the end */
        must(text[i] != '\n' || text[i - 1] == '\r');
    }
    free(text);
}

static void check_message(const struct talk *k, const struct message *m)
{
    const struct smtp_service *service = &k->t.service;
    const struct smtp_limits *l = &k->t.server.limits;
    const struct config_tenant *tenant = k->s.tenant;
    must(m->size == m->content.len && m->rcpt_count > 0);
    must(m->rcpt_count <= l->recipients_max);
    must(!tenant || !tenant->recipients_max || m->rcpt_count <= tenant->recipients_max);
    must((m->user.len > 0) == (k->s.account != NULL));
    must(service->auth != AUTH_REQUIRED || m->user.len > 0);
    must(service->auth == AUTH_OFF || k->s.peer.is_trusted || m->user.len > 0);
    must(m->user.len == 0 || k->s.tls || service->auth_without_tls);
    must(!(m->flags & MESSAGE_REQUIRE_TLS) || k->s.tls);
    must(m->hold_until_ms <= TEST_WALL_MS + (int64_t)l->hold_max_ms);
    must(!tenant || m->lane == 'n' || m->lane == 'b');
    check_content(m);
}

/* All that goes to the queue, so that both ways must agree on it. */
static void keep(struct talk *k, struct message *m)
{
    struct buf record;
    char *text = test_flatten(&m->content);
    buf_init(&record, OUT_MAX);
    must(message_encode_envelope(m, false, &record) == STATUS_OK);
    append(&k->contents, buf_slice(&record));
    append(&k->contents, slice_of(text, m->content.len));
    buf_done(&record);
    free(text);
}

static void take_message(struct talk *k)
{
    struct message *m = smtp_session_take_message(&k->s);
    check_message(k, m);
    keep(k, m);
    if (k->choice & IS_DRAIN) {
        k->t.server.is_draining = true;
        smtp_session_drain(&k->s, &k->t.now);
    }
    smtp_session_verdict(&k->s, (enum smtp_verdict)(k->choice >> k->messages++ * 2 % 6 & 3), m->id,
                         &k->t.now);
    message_unref(m);
}

/* --- those whom a session waits for ---------------------------------------------------------- */

static unsigned next_answer(struct talk *k)
{
    return k->answers >> k->asked++ * 2 % 8 & 3;
}

static struct account *new_account(unsigned answer)
{
    static const char *const lines[] = {
        "user@example.org",
        "user@example.org tenant=acme",
        "user@example.org tenant=gone",
        "user tenant=acme sender=@b.example recipients_per_day=5",
    };
    struct account *account = NULL;
    struct buf error;
    buf_init(&error, 1024);
    must(account_parse(slice_str(lines[answer]), &account, &error) == STATUS_OK);
    buf_done(&error);
    return account;
}

static void answer_auth(struct talk *k)
{
    static const enum auth_result results[] = { AUTH_RESULT_OK, AUTH_RESULT_OK, AUTH_RESULT_WRONG,
                                                AUTH_RESULT_DOWN };
    struct sasl_request request;
    struct sasl_answer answer = { .verifier = pencil };
    unsigned chosen = next_answer(k);
    smtp_session_get_auth(&k->s, &request);
    must(k->t.service.auth != AUTH_OFF && !k->s.account && !k->s.message);
    must(k->s.tls || k->t.service.auth_without_tls); /* P-125 */
    answer.result = results[chosen];
    if (request.question == SASL_ASK_PROOF && !request.is_proven)
        answer.result = AUTH_RESULT_WRONG;
    if (answer.result == AUTH_RESULT_OK && request.question != SASL_ASK_VERIFIER)
        answer.account = new_account((chosen + k->asked) % 4);
    smtp_session_auth_answer(&k->s, &answer, &k->t.now);
}

static void answer_admission(struct talk *k)
{
    static const enum smtp_admit answers[] = { SMTP_ADMIT_OK, SMTP_ADMIT_SUPPRESSED,
                                               SMTP_ADMIT_RATE, SMTP_ADMIT_DOWN };
    struct smtp_admission admission;
    enum smtp_admit answer = answers[next_answer(k)];
    uint32_t before = k->s.message->rcpt_count;
    if (answer == SMTP_ADMIT_RATE && k->asked % 2)
        answer = SMTP_ADMIT_QUOTA;
    smtp_session_get_admission(&k->s, &admission);
    must(admission.tenant == &k->tenant && admission.rcpt.len > 0);
    smtp_session_admitted(&k->s, answer, k->asked % 2 ? SLICE("a reason") : SLICE_NONE, &k->t.now);
    must(k->s.message->rcpt_count == before - (answer != SMTP_ADMIT_OK));
}

static void shake_hands(struct talk *k)
{
    k->tls = (struct smtp_tls){
        .version = "TLSv1.3",
        .cipher = "TLS_AES_128_GCM_SHA256",
        .client_name = k->answers & 1 ? SLICE("user@example.org") : SLICE_NONE,
        .binding_name = "tls-exporter",
        .binding = SLICE("0123456789abcdef0123456789abcdef"),
    };
    smtp_session_secured(&k->s, &k->tls, &k->t.now);
    must(!k->s.helo && !k->s.account && !k->s.message && k->s.tls == &k->tls);
    must(k->s.state == SMTP_START || k->s.state == SMTP_REFUSED);
}

/* Answers until the session wants input, or ends. What it waits for is not the client's to say. */
static void settle(struct talk *k)
{
    for (;;) {
        flush(k);
        if (k->s.wait != SMTP_WAIT_INPUT && k->s.wait != SMTP_WAIT_CLOSE) {
            must(smtp_session_input(&k->s, SLICE("QUIT\r\n"), &k->t.now) == 0);
            must(smtp_session_deadline(&k->s) == INT64_MAX);
        }
        switch (k->s.wait) {
        case SMTP_WAIT_TLS: shake_hands(k); break;
        case SMTP_WAIT_AUTH: answer_auth(k); break;
        case SMTP_WAIT_ADMIT: answer_admission(k); break;
        case SMTP_WAIT_COMMIT: take_message(k); break;
        case SMTP_WAIT_INPUT:
        case SMTP_WAIT_CLOSE: return;
        }
    }
}

/* --- the client ------------------------------------------------------------------------------ */

static void feed(struct talk *k, struct slice piece)
{
    char *copy = exact_copy(piece);
    struct slice rest = slice_of(copy, piece.len);
    while (rest.len > 0) {
        size_t taken = smtp_session_input(&k->s, rest, &k->t.now);
        must(taken > 0 && taken <= rest.len);
        must(k->s.out.len <= SMTP_OUT_HIGH + 2048);
        rest = slice_skip(rest, taken);
        settle(k);
    }
    free(copy);
}

/* XCLIENT: 192.0.2.x is trusted, 203.0.113.x refused. */
static void judge(const void *ctx, struct slice client, struct smtp_peer *peer)
{
    peer->is_trusted = slice_eq(slice_head(client, 8), SLICE("192.0.2."));
    peer->is_refused = slice_eq(slice_head(client, 10), SLICE("203.0.113."));
}

static void set_listener(struct talk *k)
{
    static const enum tls_mode tls[] = { TLS_OFF, TLS_STARTTLS, TLS_IMPLICIT, TLS_OFF };
    static const enum auth_mode auth[] = { AUTH_OFF, AUTH_OPTIONAL, AUTH_REQUIRED, AUTH_REQUIRED };
    struct smtp_service *service = &k->t.service;
    k->tenant = (struct config_tenant){
        .name = (char *)"acme",
        .senders = tenant_senders,
        .sender_count = ARRAY_LEN(tenant_senders),
        .suppression = true,
        .recipients_max = 3,
        .message_size_max = 2000,
        .lane_best = LANE_NORMAL,
        .idempotency = IDEMPOTENCY_HEADER,
    };
    k->t.cfg.tenants = &k->tenant;
    k->t.cfg.tenant_count = 1;
    service->tls = tls[k->listener & TLS_BITS];
    service->auth = auth[(k->listener & AUTH_BITS) >> 2];
    service->auth_without_tls = k->listener & IS_CLEAR;
    service->mechanisms = 2 * AUTH_EXTERNAL - 1;
    service->tenant = k->listener & IS_TENANT ? &k->tenant : NULL;
    service->judge = judge;
    if (k->listener & IS_NARROW) {
        k->t.server.limits.mails_max = 2;
        k->t.server.limits.hold_max_ms = 0;
        k->t.server.limits.message_size_max = 500;
        k->t.server.limits.recipients_max = 2;
    }
}

static void talk(struct talk *k, const uint8_t *head, struct slice in, struct cutter *cutter)
{
    *k = (struct talk){ .choice = head[0], .listener = head[1], .answers = head[2] };
    bool is_trusted = !(k->choice & IS_DISTRUST);
    buf_init(&k->replies, OUT_MAX);
    buf_init(&k->contents, OUT_MAX);
    test_server_init(&k->t);
    set_listener(k);
    struct smtp_peer peer = {
        .client = SLICE("192.0.2.1"),
        .is_trusted = is_trusted,
        .is_refused = !is_trusted && k->t.service.auth == AUTH_OFF,
        .may_xclient = k->listener & IS_XCLIENT,
    };
    smtp_session_init(&k->s, &k->t.service, &peer, &k->t.now);
    settle(k);
    while (in.len > 0) {
        struct slice piece = slice_head(in, cutter ? cutter_next(cutter) : in.len);
        feed(k, piece);
        in = slice_skip(in, piece.len);
    }
    k->t.now.mono_ms = INT64_C(1) << 40;
    smtp_session_tick(&k->s, &k->t.now);
    must(k->s.wait == SMTP_WAIT_CLOSE && k->s.end_reason);
    flush(k);
    smtp_session_done(&k->s);
    must(k->t.budget.used == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct talk whole, cut;
    if (size < 3)
        return 0;
    if (pencil.iterations == 0)
        scram_make_verifier(SLICE("pencil"), (const uint8_t[16]){ 1, 2, 3 }, 4096, &pencil);
    struct slice in = slice_of((const char *)data + 3, size - 3);
    struct cutter cutter = cutter_of(in);
    talk(&whole, data, in, NULL);
    talk(&cut, data, in, &cutter);
    must(slice_eq(buf_slice(&whole.replies), buf_slice(&cut.replies)));
    must(slice_eq(buf_slice(&whole.contents), buf_slice(&cut.contents)));
    buf_done(&whole.replies);
    buf_done(&whole.contents);
    buf_done(&cut.replies);
    buf_done(&cut.contents);
    return 0;
}
