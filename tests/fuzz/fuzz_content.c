/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a mail's content. The first octet chooses the policy (see policy_of); the rest is
 * played as DATA and as BDAT, each whole and in pieces. Pieces change nothing; a text says the same
 * in BDAT as it says in DATA; what is taken begins with our trace field, has its true size, holds
 * no field that must not leave, and nothing that could end it elsewhere (P-77, P-85, P-96).
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/content_run.h"

#define IS_BINARY 0x01
#define IS_UTF8   0x02
#define HAS_LIST  0x04
#define HAS_NAME  0x08
#define KEY_MODE  0x30 /* off, header, message-id, off */
#define IS_SECURE 0x40
#define IS_NULL   0x80 /* MAIL FROM:<> */
#define END       "\r\n.\r\n"

static struct test_server t;

static struct smtp_content_policy policy_of(uint8_t choice)
{
    static char *senders[] = { "a@example.org", "@example.net", "@*.example.com" };
    static const struct smtp_tls tls = { .version = "TLSv1.3", .cipher = "CIPHER" };
    struct smtp_content_policy policy = {
        .is_signed = true,
        .is_esmtp = true,
        .is_binary = choice & IS_BINARY,
        .is_utf8 = choice & IS_UTF8,
        .is_authenticated = choice & HAS_NAME,
        .tls = choice & IS_SECURE ? &tls : NULL,
        .senders = choice & HAS_LIST ? senders : NULL,
        .sender_count = choice & HAS_LIST ? ARRAY_LEN(senders) : 0,
        .own_name = choice & HAS_NAME ? SLICE("me@example.org") : SLICE_NONE,
        .size_max = 100000,
        .idempotency = (enum idempotency_mode)((choice & KEY_MODE) >> 4) % 3,
        .tenant = SLICE("acme"),
    };
    return policy;
}

static struct message *message_of(uint8_t choice)
{
    struct message *m = content_message(&t, choice & IS_NULL ? "" : "s@example.org",
                                        choice & HAS_NAME ? "\xc3\xa4@d" : "b@d");
    if (choice & HAS_LIST) {
        message_add_rcpt(m, SLICE("c@D"), SLICE("D"));
        message_add_rcpt(m, SLICE("b@a"), SLICE("a"));
        message_add_rcpt(m, SLICE("a.b@c.d"), SLICE("c.d"));
    }
    m->priority = choice & IS_SECURE ? -9 : 0;
    return m;
}

struct play {
    uint8_t choice;
    bool is_chunked;
    struct slice in;
};

static size_t feed_piece(struct smtp_content *c, const struct play *p, struct slice piece,
                         bool *is_over)
{
    char *copy = exact_copy(piece);
    size_t used = piece.len;
    if (p->is_chunked)
        smtp_content_feed_chunk(c, slice_of(copy, piece.len));
    else
        *is_over = smtp_content_feed(c, slice_of(copy, piece.len), &used) == DOT_END;
    must(*is_over || used == piece.len);
    free(copy);
    return used;
}

/* The result, and in *used how much of the input was content. */
static struct content_result run(const struct play *p, struct cutter *cutter, size_t *used)
{
    struct smtp_content_policy policy = policy_of(p->choice);
    struct message *m = message_of(p->choice);
    struct smtp_content *c = smtp_content_new(&t.server, m, &policy, &t.now);
    bool is_over = false, was_body = false;
    *used = 0;
    for (struct slice rest = p->in; rest.len > 0 && !is_over; rest = slice_skip(p->in, *used)) {
        size_t len = cutter ? cutter_next(cutter) : rest.len;
        *used += feed_piece(c, p, slice_head(rest, len), &is_over);
        must(!was_body || smtp_content_is_body(c) || m->content.len == 0);
        was_body = smtp_content_is_body(c);
    }
    must(is_over || p->is_chunked);
    struct content_result r = content_end(&t, c, m);
    must(t.budget.used == 0);
    return r;
}

/* Lines of the header section: none that must not leave, and all of them lines. */
static void check_header(const char *content, const char *end)
{
    static const char *const never[] = { "Bcc:", "Resent-Bcc:", "Return-Path:",
                                         "X-Idempotency-Key:", "X-Kilat-" };
    for (const char *line = content; line < end; line = strstr(line, "\r\n") + 2)
        for (size_t i = 0; i < ARRAY_LEN(never); i++)
            must(strncasecmp(line, never[i], strlen(never[i])) != 0);
}

static void check_text(const char *from, const char *end)
{
    for (const char *at = from; at < end; at++) {
        must(*at != '\0');
        must(*at != '\r' || at[1] == '\n'); /* a NUL stands behind the end */
        must(*at != '\n' || at[-1] == '\r');
    }
}

static void check_taken(const struct play *p, const struct content_result *r)
{
    struct smtp_content_policy policy = policy_of(p->choice);
    const char *end = r->content + r->len;
    const char *body = memmem(r->content, r->len, "\r\n\r\n", 4);
    must(r->size == r->len && strncmp(r->content, "Received: ", 10) == 0);
    check_header(r->content, body ? body : end);
    if (!(r->flags & MESSAGE_BINARY))
        check_text(r->content, end);
    must(!(r->flags & MESSAGE_BINARY) || (policy.is_binary && p->is_chunked));
    must(!(r->flags & MESSAGE_UTF8) || policy.is_utf8);
    must(!r->has_key || policy.idempotency != IDEMPOTENCY_OFF);
}

/* Plays it whole and in pieces; free() the result's content. */
static struct content_result play(const struct play *p)
{
    size_t used, used_cut;
    struct cutter cutter = cutter_of(p->in);
    struct content_result whole = run(p, NULL, &used), cut = run(p, &cutter, &used_cut);
    must(used == used_cut && content_result_eq(&whole, &cut));
    free(cut.content);
    if (whole.reply == REPLY_OK)
        check_taken(p, &whole);
    else
        must(whole.len == 0 && whole.size == 0 && !whole.has_key);
    return whole;
}

/* What DATA says of a text, BDAT says of the same octets without their dots. */
static void check_both(uint8_t choice, struct slice wire)
{
    char *octets = mem_alloc(wire.len);
    struct play data = { choice, false, wire };
    struct play chunk = { choice & ~IS_BINARY, true, content_undot(wire, octets) };
    struct content_result a = play(&data), b = play(&chunk);
    must(content_result_eq(&a, &b));
    free(a.content);
    free(b.content);
    free(octets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 200000)
        return 0;
    test_server_init(&t);
    t.server.limits.header_size_max = 40000;
    struct slice in = slice_of((const char *)data + 1, size - 1);
    struct play chunk = { data[0], true, in };
    struct content_result r = play(&chunk);
    free(r.content);
    char *wire = mem_alloc(in.len + sizeof END);
    if (in.len > 0)
        memcpy(wire, in.ptr, in.len);
    memcpy(wire + in.len, END, sizeof END - 1);
    check_both(data[0], slice_of(wire, in.len + sizeof END - 1));
    free(wire);
    return 0;
}
