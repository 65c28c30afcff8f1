/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_transcript - plays the conversations of tests/transcript/ against a session, each twice:
 * what the client says in one step is fed whole, then octet by octet. Both must go as written.
 *
 * A file is read line by line. A comment cites the rows of the checklist that it shows.
 *
 *     SESSION             a new server and a new session; `SESSION untrusted`,
 *                         `SESSION from ADDRESS`
 *     HELLO               a new session that has its greeting and an EHLO behind it
 *     LIMIT name N        one of struct smtp_limits, until the next session
 *     SERVICE name VALUE  what the next sessions get of struct smtp_service: tls off|starttls|
 *                         implicit, auth off|optional|required, clear yes, mechanisms NAME...,
 *                         xclient yes, lane NAME
 *     TENANT name VALUE   the tenant of clients without account, named "acme": senders PATTERN...,
 *                         null_sender no, suppression yes, recipients_max N, message_size_max N,
 *                         lane_best NAME, idempotency NAME
 *
 *     C: text             the client says a line; CR LF is added. Lines of C that follow each
 *                         other are one step
 *     C~: text            ... nothing is added; C*N: text, C*N~: text the same, N times
 *     S: text             the server says exactly this line; S~: text a line that begins so
 *     CLOSED reason       the session is over, for this reason
 *
 *     SECURED             the handshake that the session waits for is over; `SECURED NAME`: the
 *                         client has a certificate
 *     AUTH ok LINE        the authenticator's answer, with an account (account.h); AUTH wrong,
 * down, busy, throttled, too-many, `verifier PASSWORD` ADMIT ok            the answer for a
 * recipient; suppressed REASON, rate, quota, down ACCEPT FAIL FULL CONFLICT  the session has handed
 * over a message; the queue's verdict on it
 *
 *     ENVELOPE: text      of the last message handed over: "<sender> <rcpt> <rcpt> FLAGS"
 *     RECORD: text        what else it carries, as put_record has it
 *     MESSAGE: text       one line of its content; these lines are the whole content
 *
 *     TIME +300s          the clock moves on, the session's deadlines are looked at
 *     ROOM none, ROOM     content memory is used up, is there again
 *     DRAIN               the server shuts down
 *
 * On lines of C and MESSAGE \r \n \t \0 \\ and \xNN stand for octets. QUEUEID stands for the id of
 * the last message. Whatever the server said must be in the file before the client goes on.
 */
#include "core/smtp/queue_id.h"
#include "tests/lib/smtp_server.h"
#include <dirent.h>
#include <stdio.h>

#define SAID_MAX     (1024 * 1024)
#define LINE_OF_OURS 4096

struct play {
    struct smtp_service service; /* what the next session gets */
    struct config_tenant tenant;
    char *senders[8]; /* owned; of the tenant */
    bool may_xclient;
    struct smtp_tls tls;
    const char *path;
    int line;
    size_t piece; /* octets fed at a time; 0: all */
    bool failed;
    struct test_server t;
    struct smtp_session s;
    char client[64]; /* where it comes from; the session borrows it */
    bool is_open;
    struct buf inbox;        /* what the client said */
    uint32_t taken;          /* octets of inbox that the session has taken */
    struct buf said;         /* what the server said and the file has not shown */
    struct message *message; /* owned; the last one handed over */
    char *content;           /* owned; what of it was not shown yet; NULL: not looked at */
    size_t shown;            /* octets of content */
};

static void fail(struct play *p, const char *format, ...) PRINTF_LIKE(2, 3);
static void fail(struct play *p, const char *format, ...)
{
    va_list args;
    if (p->failed)
        return;
    p->failed = true;
    va_start(args, format);
    printf("# %s:%d: ", p->path, p->line);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

/* --- the client and the server --------------------------------------------------------------- */

static void listen_to_server(struct play *p)
{
    must(buf_append(&p->said, buf_slice(&p->s.out)) == STATUS_OK);
    buf_done(&p->s.out);
}

static void forget_inbox(struct play *p)
{
    buf_clear(&p->inbox);
    p->taken = 0;
}

/* It waits for somebody else: what the client says meanwhile is not looked at. */
static bool is_asking(const struct play *p)
{
    return p->s.wait != SMTP_WAIT_INPUT && p->s.wait != SMTP_WAIT_CLOSE;
}

static void feed(struct play *p)
{
    while (p->taken < p->inbox.len && !is_asking(p) && !p->failed) {
        struct slice rest = slice_skip(buf_slice(&p->inbox), p->taken);
        struct slice piece = slice_head(rest, p->piece ? p->piece : rest.len);
        size_t taken = smtp_session_input(&p->s, piece, &p->t.now);
        if (p->s.out.len > 0)
            listen_to_server(p);
        if (taken == 0)
            fail(p, "the session takes nothing");
        p->taken += (uint32_t)taken;
    }
    if (p->taken == p->inbox.len)
        forget_inbox(p);
}

/* The client stops speaking: everything it said so far goes out. */
static void settle(struct play *p)
{
    if (!p->is_open)
        fail(p, "there is no session");
    else
        feed(p);
}

static void forget_message(struct play *p)
{
    message_unref(p->message);
    free(p->content);
    p->message = NULL;
    p->content = NULL;
    p->shown = 0;
}

static void check_content_was_shown(struct play *p)
{
    if (p->content && p->shown < p->message->content.len)
        fail(p, "the message goes on: %s", p->content + p->shown);
}

/* Nothing may be left over where something new begins. */
static void check_nothing_left(struct play *p)
{
    check_content_was_shown(p);
    if (p->said.len > 0)
        fail(p, "the server also said: %.*s", SLICE_ARG(buf_slice(&p->said)));
}

static void end_session(struct play *p)
{
    if (!p->is_open)
        return;
    settle(p);
    check_nothing_left(p);
    if (p->inbox.len > 0)
        fail(p, "the session did not take all");
    smtp_session_done(&p->s);
    forget_message(p);
    p->is_open = false;
    if (p->t.budget.used != 0 && !p->failed)
        fail(p, "content memory is left: %zu", p->t.budget.used);
}

/* --- what a line of the file does ------------------------------------------------------------ */

/* XCLIENT: 192.0.2.x is trusted, 203.0.113.x refused. */
static void judge(const void *ctx, struct slice client, struct smtp_peer *peer)
{
    peer->is_trusted = slice_eq(slice_head(client, 8), SLICE("192.0.2."));
    peer->is_refused = slice_eq(slice_head(client, 10), SLICE("203.0.113."));
}

static int place_of(struct play *p, struct slice word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq(word, slice_str(words[i])))
            return (int)i;
    fail(p, "what is %.*s", SLICE_ARG(word));
    return 0;
}
#define PLACE_OF(p, word, ...)                                                                     \
    place_of(p, word, (const char *const[]){ __VA_ARGS__ },                                        \
             ARRAY_LEN(((const char *const[]){ __VA_ARGS__ })))

static struct slice cut_word(struct slice *rest)
{
    size_t gap = slice_find(*rest, ' ');
    struct slice word = slice_head(*rest, gap);
    *rest = slice_skip(*rest, gap < rest->len ? gap + 1 : gap);
    return word;
}

static void on_service(struct play *p, struct slice rest)
{
    struct slice name = cut_word(&rest);
    if (slice_eq(name, SLICE("tls")))
        p->service.tls = (enum tls_mode)PLACE_OF(p, rest, "off", "starttls", "implicit");
    else if (slice_eq(name, SLICE("auth")))
        p->service.auth = (enum auth_mode)PLACE_OF(p, rest, "off", "optional", "required");
    else if (slice_eq(name, SLICE("lane")))
        p->service.lane = (enum mail_lane)PLACE_OF(p, rest, "urgent", "normal", "bulk");
    else if (slice_eq(name, SLICE("clear")))
        p->service.auth_without_tls = true;
    else if (slice_eq(name, SLICE("xclient")))
        p->may_xclient = true;
    else if (slice_eq(name, SLICE("mechanisms")))
        for (p->service.mechanisms = 0; rest.len > 0;)
            p->service.mechanisms |= sasl_mechanism_find(cut_word(&rest));
    else
        fail(p, "no such part of a service");
}

static void on_tenant(struct play *p, struct slice rest)
{
    struct slice name = cut_word(&rest);
    struct config_tenant *t = &p->tenant;
    t->name = "acme";
    p->service.tenant = t;
    if (slice_eq(name, SLICE("senders"))) {
        while (rest.len > 0 && t->sender_count < ARRAY_LEN(p->senders)) {
            struct slice word = cut_word(&rest);
            p->senders[t->sender_count] = mem_zalloc(word.len + 1);
            memcpy(p->senders[t->sender_count++], word.ptr, word.len);
        }
        t->senders = p->senders;
    } else if (slice_eq(name, SLICE("null_sender")))
        t->null_sender = slice_eq(rest, SLICE("yes"));
    else if (slice_eq(name, SLICE("suppression")))
        t->suppression = slice_eq(rest, SLICE("yes"));
    else if (slice_eq(name, SLICE("recipients_max")))
        t->recipients_max = (uint32_t)strtoul(rest.ptr, NULL, 10);
    else if (slice_eq(name, SLICE("message_size_max")))
        t->message_size_max = strtoul(rest.ptr, NULL, 10);
    else if (slice_eq(name, SLICE("lane_best")))
        t->lane_best = (enum mail_lane)PLACE_OF(p, rest, "urgent", "normal", "bulk");
    else if (slice_eq(name, SLICE("idempotency")))
        t->idempotency = (enum idempotency_mode)PLACE_OF(p, rest, "off", "header", "message-id");
    else
        fail(p, "no such part of a tenant");
}

static void on_session(struct play *p, struct slice rest)
{
    bool is_trusted = !slice_eq(rest, SLICE("untrusted"));
    bool has_address = slice_eq(slice_head(rest, 5), SLICE("from "));
    end_session(p);
    test_server_init(&p->t);
    snprintf(p->client, sizeof p->client, "%.*s",
             SLICE_ARG(has_address ? slice_skip(rest, 5) : SLICE("192.0.2.1")));
    forget_inbox(p);
    buf_clear(&p->said);
    struct smtp_peer peer = {
        .client = slice_str(p->client),
        .is_trusted = is_trusted,
        .is_refused = !is_trusted && p->service.auth == AUTH_OFF,
        .may_xclient = p->may_xclient,
    };
    struct config cfg = p->t.cfg;
    cfg.tenants = &p->tenant;
    cfg.tenant_count = p->tenant.name != NULL;
    p->t.cfg = cfg;
    p->service.server = &p->t.server;
    p->service.cfg = &p->t.cfg;
    p->service.judge = judge;
    p->t.service = p->service;
    smtp_session_init(&p->s, &p->t.service, &peer, &p->t.now);
    p->is_open = true;
    listen_to_server(p);
}

static void on_hello(struct play *p, struct slice rest)
{
    on_session(p, rest);
    must(buf_append(&p->inbox, SLICE("EHLO client.test\r\n")) == STATUS_OK);
    feed(p);
    buf_clear(&p->said);
}

static void on_limit(struct play *p, struct slice rest)
{
    size_t gap = slice_find(rest, ' ');
    struct slice name = slice_head(rest, gap);
    struct smtp_limits *l = &p->t.server.limits;
    uint32_t n = (uint32_t)strtoul(rest.ptr + gap, NULL, 10);
    if (slice_eq(name, SLICE("message_size_max")))
        l->message_size_max = n;
    else if (slice_eq(name, SLICE("recipients_max")))
        l->recipients_max = n;
    else if (slice_eq(name, SLICE("errors_max")))
        l->errors_max = n;
    else if (slice_eq(name, SLICE("received_max")))
        l->received_max = n;
    else if (slice_eq(name, SLICE("header_size_max")))
        l->header_size_max = n;
    else if (slice_eq(name, SLICE("mails_max")))
        l->mails_max = n;
    else if (slice_eq(name, SLICE("hold_max_ms")))
        l->hold_max_ms = n;
    else
        fail(p, "no such limit");
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Undoes the escapes; returns the length. */
static size_t unescape(struct play *p, struct slice in, char *out)
{
    static const char letters[] = "rnt0\\", octets[] = "\r\n\t\0\\";
    size_t len = 0;
    for (size_t i = 0; i < in.len; i++) {
        char next = i + 1 < in.len ? in.ptr[i + 1] : ' ';
        const char *letter = strchr(letters, next);
        if (in.ptr[i] != '\\') {
            out[len++] = in.ptr[i];
        } else if (next == 'x' && i + 3 < in.len) {
            out[len++] = (char)(hex_digit(in.ptr[i + 2]) << 4 | hex_digit(in.ptr[i + 3]));
            i += 3;
        } else if (letter) {
            out[len++] = octets[letter - letters];
            i++;
        } else {
            fail(p, "what is \\%c?", next);
        }
    }
    return len;
}

/* "C: text", "C~: text", "C*3: text", "C*3~: text"; rest begins behind the C. */
static void on_client(struct play *p, struct slice rest)
{
    char octets[LINE_OF_OURS];
    size_t colon = slice_find(rest, ':');
    unsigned long times = rest.len > 1 && rest.ptr[0] == '*' ? strtoul(rest.ptr + 1, NULL, 10) : 1;
    bool is_raw = colon > 0 && rest.ptr[colon - 1] == '~';
    size_t len = unescape(p, slice_skip(rest, colon + 2), octets);
    check_nothing_left(p);
    for (unsigned long i = 0; i < times; i++) {
        must(buf_append(&p->inbox, slice_of(octets, len)) == STATUS_OK);
        must(is_raw || buf_append(&p->inbox, SLICE("\r\n")) == STATUS_OK);
    }
}

/* `text` with QUEUEID made the id of the last message. */
static struct slice with_id(const struct play *p, struct slice text, char out[LINE_OF_OURS])
{
    const char *at = memmem(text.ptr, text.len, "QUEUEID", 7);
    if (!at || !p->message)
        return text;
    int n = snprintf(out, LINE_OF_OURS, "%.*s%s%.*s", (int)(at - text.ptr), text.ptr,
                     p->message->id, (int)(text.ptr + text.len - at - 7), at + 7);
    return slice_of(out, (size_t)n);
}

static void on_server(struct play *p, struct slice rest)
{
    char room[LINE_OF_OURS];
    bool is_prefix = rest.ptr[0] == '~';
    struct slice want = with_id(p, slice_skip(rest, is_prefix ? 3 : 2), room);
    settle(p);
    const char *end = p->said.len ? memmem(p->said.ptr, p->said.len, "\r\n", 2) : NULL;
    if (!end) {
        fail(p, "the server says nothing (state %d)", p->s.state);
        return;
    }
    struct slice got = slice_of(p->said.ptr, (size_t)(end - p->said.ptr));
    if (!slice_eq(is_prefix ? slice_head(got, want.len) : got, want))
        fail(p, "the server said: %.*s", SLICE_ARG(got));
    buf_consume(&p->said, (uint32_t)got.len + 2);
}

static void give_verdict(struct play *p, enum smtp_verdict verdict)
{
    settle(p);
    check_nothing_left(p);
    if (p->s.wait != SMTP_WAIT_COMMIT) {
        fail(p, "no message was handed over (state %d)", p->s.state);
        return;
    }
    forget_message(p);
    p->message = smtp_session_take_message(&p->s);
    if (!queue_id_is_valid(slice_str(p->message->id)))
        fail(p, "bad queue id");
    smtp_session_verdict(&p->s, verdict, p->message->id, &p->t.now);
    listen_to_server(p);
}

static void on_accept(struct play *p, struct slice rest)
{
    give_verdict(p, SMTP_QUEUED);
}

static void on_fail(struct play *p, struct slice rest)
{
    give_verdict(p, SMTP_NOT_QUEUED);
}

static void on_full(struct play *p, struct slice rest)
{
    give_verdict(p, SMTP_QUEUE_FULL);
}

static void on_conflict(struct play *p, struct slice rest)
{
    give_verdict(p, SMTP_KEY_CONFLICT);
}

/* What came in clear behind STARTTLS is not the session's any more (P-123). */
static void on_secured(struct play *p, struct slice rest)
{
    settle(p);
    check_nothing_left(p);
    if (p->s.wait != SMTP_WAIT_TLS) {
        fail(p, "no handshake is awaited (state %d)", p->s.state);
        return;
    }
    forget_inbox(p);
    p->tls = (struct smtp_tls){ .version = "TLSv1.3",
                                .cipher = "TLS_AES_128_GCM_SHA256",
                                .client_name = rest,
                                .binding_name = "tls-exporter",
                                .binding = SLICE("0123456789abcdef0123456789abcdef") };
    smtp_session_secured(&p->s, &p->tls, &p->t.now);
    listen_to_server(p);
}

static void on_auth(struct play *p, struct slice rest)
{
    struct slice what = cut_word(&rest);
    struct sasl_answer answer = { .result = AUTH_RESULT_OK };
    struct buf error;
    settle(p);
    check_nothing_left(p);
    if (p->s.wait != SMTP_WAIT_AUTH) {
        fail(p, "nobody is asked for (state %d)", p->s.state);
        return;
    }
    buf_init(&error, SAID_MAX);
    if (slice_eq(what, SLICE("verifier"))) {
        uint8_t salt[16] = { 1 };
        scram_make_verifier(rest, salt, 4096, &answer.verifier);
    } else if (!slice_eq(what, SLICE("ok"))) {
        answer.result = (enum auth_result)PLACE_OF(p, what, "ok", "wrong", "down", "busy",
                                                   "throttled", "too-many");
    } else if (account_parse(rest, &answer.account, &error) != STATUS_OK) {
        fail(p, "no account: %.*s", SLICE_ARG(buf_slice(&error)));
        answer.result = AUTH_RESULT_WRONG;
    }
    buf_done(&error);
    smtp_session_auth_answer(&p->s, &answer, &p->t.now);
    listen_to_server(p);
}

static void on_admit(struct play *p, struct slice rest)
{
    struct slice what = cut_word(&rest);
    settle(p);
    check_nothing_left(p);
    if (p->s.wait != SMTP_WAIT_ADMIT) {
        fail(p, "no recipient is asked about (state %d)", p->s.state);
        return;
    }
    enum smtp_admit answer =
        (enum smtp_admit)PLACE_OF(p, what, "ok", "suppressed", "rate", "quota", "down");
    smtp_session_admitted(&p->s, answer, rest, &p->t.now);
    listen_to_server(p);
}

static void put_record(const struct message *m, struct buf *out)
{
    static const struct {
        uint32_t bit;
        const char *word;
    } flags[] = { { MESSAGE_UTF8, " UTF8" },
                  { MESSAGE_BINARY, " BINARY" },
                  { MESSAGE_REQUIRE_TLS, " REQUIRETLS" },
                  { MESSAGE_BY_RETURN, " BY-RETURN" },
                  { MESSAGE_BY_TRACE, " BY-TRACE" } };
    must(buf_printf(out,
                    "lane=%c user=%.*s tenant=%.*s ret=%d envid=%.*s priority=%d hold=%lld "
                    "by=%lld",
                    m->lane, SLICE_ARG(m->user), SLICE_ARG(m->tenant), (int)m->ret,
                    SLICE_ARG(m->envid), m->priority,
                    m->hold_until_ms ? (long long)(m->hold_until_ms - TEST_WALL_MS) / 1000 : 0,
                    m->deliver_by_ms ? (long long)(m->deliver_by_ms - TEST_WALL_MS) / 1000 : 0) ==
         STATUS_OK);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        if (m->rcpts[i].notify || m->rcpts[i].orcpt.len)
            must(buf_printf(out, " notify=%u orcpt=%.*s", m->rcpts[i].notify,
                            SLICE_ARG(m->rcpts[i].orcpt)) == STATUS_OK);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (m->flags & flags[i].bit)
            must(buf_append(out, slice_str(flags[i].word)) == STATUS_OK);
}

static void on_record(struct play *p, struct slice rest)
{
    struct buf got;
    if (!p->message) {
        fail(p, "there is no message");
        return;
    }
    buf_init(&got, SAID_MAX);
    put_record(p->message, &got);
    if (!slice_eq(buf_slice(&got), slice_skip(rest, 2)))
        fail(p, "the record is: %.*s", SLICE_ARG(buf_slice(&got)));
    buf_done(&got);
}

static void on_envelope(struct play *p, struct slice rest)
{
    struct buf got;
    buf_init(&got, SAID_MAX);
    if (!p->message) {
        fail(p, "there is no message");
        return;
    }
    must(buf_printf(&got, "<%.*s>", SLICE_ARG(p->message->sender)) == STATUS_OK);
    for (uint32_t i = 0; i < p->message->rcpt_count; i++) {
        const struct rcpt *r = &p->message->rcpts[i];
        if (r->domain.len && r->domain.ptr + r->domain.len != r->address.ptr + r->address.len)
            fail(p, "the domain is not the address's");
        must(buf_printf(&got, " <%.*s>", SLICE_ARG(r->address)) == STATUS_OK);
    }
    if (p->message->flags & MESSAGE_8BIT)
        must(buf_append(&got, SLICE(" 8BIT")) == STATUS_OK);
    if (!slice_eq(buf_slice(&got), slice_skip(rest, 2)))
        fail(p, "the envelope is: %.*s", SLICE_ARG(buf_slice(&got)));
    buf_done(&got);
}

static void on_message(struct play *p, struct slice rest)
{
    char room[LINE_OF_OURS], octets[LINE_OF_OURS];
    if (!p->message) {
        fail(p, "there is no message");
        return;
    }
    if (!p->content)
        p->content = test_flatten(&p->message->content);
    struct slice want = with_id(p, slice_skip(rest, 2), room);
    want = slice_of(octets, unescape(p, want, octets));
    struct slice left = slice_of(p->content + p->shown, p->message->content.len - p->shown);
    struct slice got = slice_head(left, slice_find(left, '\n'));
    if (got.len == left.len || got.len == 0)
        fail(p, "the message ends before");
    else if (!slice_eq(slice_head(got, got.len - 1), want))
        fail(p, "the message has: %.*s", SLICE_ARG(got));
    p->shown += got.len + 1;
}

/* In steps, as a real timer would: the session is looked at when its deadline has come. */
static void on_time(struct play *p, struct slice rest)
{
    int64_t ms = strtol(rest.ptr + 1, NULL, 10) * 1000;
    settle(p);
    test_server_pass_ms(&p->t, ms);
    if (p->t.now.mono_ms >= smtp_session_deadline(&p->s))
        smtp_session_tick(&p->s, &p->t.now);
    listen_to_server(p);
}

static void on_room(struct play *p, struct slice rest)
{
    settle(p);
    p->t.budget.max = rest.len > 0 ? 0 : 64 * 1024 * 1024;
    if (rest.len > 0)
        p->t.budget.used++;
    else
        p->t.budget.used--;
}

static void on_drain(struct play *p, struct slice rest)
{
    settle(p);
    p->t.server.is_draining = true;
    smtp_session_drain(&p->s, &p->t.now);
    listen_to_server(p);
}

static void on_closed(struct play *p, struct slice rest)
{
    settle(p);
    if (p->s.wait != SMTP_WAIT_CLOSE)
        fail(p, "the session is not closed (state %d)", p->s.state);
    else if (!slice_eq(slice_str(p->s.end_reason), rest))
        fail(p, "the reason is %s", p->s.end_reason);
}

static const struct directive {
    struct slice name;
    void (*run)(struct play *p, struct slice rest);
} directives[] = {
    { { "SESSION", 7 }, on_session },   { { "HELLO", 5 }, on_hello },
    { { "LIMIT", 5 }, on_limit },       { { "ACCEPT", 6 }, on_accept },
    { { "FAIL", 4 }, on_fail },         { { "FULL", 4 }, on_full },
    { { "ENVELOPE", 8 }, on_envelope }, { { "MESSAGE", 7 }, on_message },
    { { "TIME", 4 }, on_time },         { { "ROOM", 4 }, on_room },
    { { "DRAIN", 5 }, on_drain },       { { "CLOSED", 6 }, on_closed },
    { { "SERVICE", 7 }, on_service },   { { "TENANT", 6 }, on_tenant },
    { { "SECURED", 7 }, on_secured },   { { "AUTH", 4 }, on_auth },
    { { "ADMIT", 5 }, on_admit },       { { "CONFLICT", 8 }, on_conflict },
    { { "RECORD", 6 }, on_record },     { { "C", 1 }, on_client },
    { { "S", 1 }, on_server },
};

static void play_line(struct play *p, struct slice line)
{
    if (line.len == 0 || line.ptr[0] == '#')
        return;
    for (size_t i = 0; i < ARRAY_LEN(directives); i++) {
        struct slice name = directives[i].name, rest = slice_skip(line, name.len);
        if (!slice_eq(slice_head(line, name.len), name))
            continue;
        if (rest.len > 0 && rest.ptr[0] == ' ')
            rest = slice_skip(rest, 1);
        directives[i].run(p, rest);
        return;
    }
    fail(p, "what is this: %.*s", SLICE_ARG(line));
}

/* --- files ----------------------------------------------------------------------------------- */

static bool play_file(const char *path, size_t piece)
{
    char text[LINE_OF_OURS];
    struct play p = { .path = path, .piece = piece };
    FILE *file = fopen(path, "r");
    p.service = (struct smtp_service){ .lane = LANE_NORMAL };
    p.tenant.null_sender = true;
    buf_init(&p.inbox, SAID_MAX);
    buf_init(&p.said, SAID_MAX);
    if (!file)
        fail(&p, "cannot be read");
    while (!p.failed && fgets(text, sizeof text, file)) {
        p.line++;
        play_line(&p, slice_head(slice_str(text), strcspn(text, "\n")));
    }
    if (p.line == 0)
        fail(&p, "is empty");
    end_session(&p);
    if (file)
        fclose(file);
    for (size_t i = 0; i < p.tenant.sender_count; i++)
        free(p.senders[i]);
    buf_done(&p.inbox);
    buf_done(&p.said);
    return !p.failed;
}

static int is_transcript(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 4 && strcmp(entry->d_name + len - 4, ".txt") == 0;
}

/* The folder of transcripts, or a single one, is the argument. */
int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    const char *folder = argc > 1 ? argv[1] : "tests/transcript";
    int count = scandir(folder, &entries, is_transcript, alphasort), failed = 0;
    if (count < 0)
        return !(play_file(folder, 0) && play_file(folder, 1));
    printf("1..%d\n", 2 * count);
    for (int i = 0; i < count; i++) {
        char path[LINE_OF_OURS];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        for (size_t piece = 0; piece < 2; piece++) {
            bool ok = play_file(path, piece);
            printf("%s %d - %s, %s\n", ok ? "ok" : "not ok", 2 * i + 1 + (int)piece,
                   entries[i]->d_name, piece ? "octet by octet" : "whole");
            failed += !ok;
        }
        free(entries[i]);
    }
    free(entries);
    return failed > 0 || count == 0;
}
