/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as what a client says to a session. The first octet chooses the verdicts of the queue
 * (two bits each, in turn), bit 6 a client that is not trusted, bit 7 a shutdown when the first
 * message is in; the rest is fed whole and in pieces. Both give the same replies and messages;
 * every reply line is well formed (P-22), every message taken has a trace header, its true size,
 * and nothing in it that could end it elsewhere (P-77, P-85).
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/smtp_server.h"

#define OUT_MAX     (1u << 26)
#define IS_DISTRUST 0x40
#define IS_DRAIN    0x80

struct talk {
    struct test_server t;
    struct smtp_session s;
    uint8_t choice;
    uint32_t messages;
    struct buf replies;  /* all of them */
    struct buf contents; /* of all messages */
};

static void append(struct buf *out, struct slice s)
{
    must(buf_append(out, s) == STATUS_OK);
}

/* "250 x" or "250-x", printable, at most 512 octets with CR LF. */
static void check_line(struct slice line)
{
    must(line.len >= 4 && line.len <= 510);
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

static void check_content(const char *text, size_t len)
{
    must(len > 10 && memcmp(text, "Received: ", 10) == 0);
    for (size_t i = 0; i < len; i++) {
        must(text[i] != '\0');
        must(text[i] != '\r' || text[i + 1] == '\n'); /* a NUL stands behind the end */
        must(text[i] != '\n' || text[i - 1] == '\r');
    }
}

static void take_message(struct talk *k)
{
    struct message *m = smtp_session_take_message(&k->s);
    char *text = test_flatten(&m->content);
    must(m->size == m->content.len && m->rcpt_count > 0);
    must(m->rcpt_count <= k->t.server.limits.recipients_max);
    check_content(text, m->content.len);
    append(&k->contents, slice_of(text, m->content.len));
    free(text);
    if (k->choice & IS_DRAIN) {
        k->t.server.is_draining = true;
        smtp_session_drain(&k->s, &k->t.now);
    }
    smtp_session_verdict(&k->s, (enum smtp_verdict)((k->choice >> k->messages++ * 2 % 6 & 3) % 3),
                         m->id, &k->t.now);
    message_unref(m);
}

static void feed(struct talk *k, struct slice piece)
{
    char *copy = exact_copy(piece);
    struct slice rest = slice_of(copy, piece.len);
    while (rest.len > 0) {
        size_t taken = smtp_session_input(&k->s, rest, &k->t.now);
        must(taken <= rest.len && (taken > 0 || k->s.wait == SMTP_WAIT_COMMIT));
        must(k->s.out.len <= SMTP_OUT_HIGH + 1024);
        flush(k);
        rest = slice_skip(rest, taken);
        if (k->s.wait == SMTP_WAIT_COMMIT)
            take_message(k);
    }
    flush(k);
    free(copy);
}

static void talk(struct talk *k, uint8_t choice, struct slice in, struct cutter *cutter)
{
    *k = (struct talk){ .choice = choice };
    buf_init(&k->replies, OUT_MAX);
    buf_init(&k->contents, OUT_MAX);
    test_server_init(&k->t);
    struct smtp_peer peer = { .client = SLICE("192.0.2.1"), .is_refused = choice & IS_DISTRUST };
    smtp_session_init(&k->s, &k->t.service, &peer, &k->t.now);
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
    if (size == 0)
        return 0;
    struct slice in = slice_of((const char *)data + 1, size - 1);
    struct cutter cutter = cutter_of(in);
    talk(&whole, data[0], in, NULL);
    talk(&cut, data[0], in, &cutter);
    must(slice_eq(buf_slice(&whole.replies), buf_slice(&cut.replies)));
    must(slice_eq(buf_slice(&whole.contents), buf_slice(&cut.contents)));
    buf_done(&whole.replies);
    buf_done(&whole.contents);
    buf_done(&cut.replies);
    buf_done(&cut.contents);
    return 0;
}
