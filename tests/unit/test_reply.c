/* SPDX-License-Identifier: Apache-2.0 */
/* Shows that every reply of ours is well formed, and what the parser makes of good, odd and
 * hostile peers: whole, byte by byte, and cut at every octet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/reply.h"

static const struct {
    int code;
    const char *enhanced, *text;
} table[] = {
#define X(id, code, enhanced, text) { code, enhanced, text },
    REPLY_TABLE(X)
#undef X
};

/* P-22, P-23 */
static void our_replies_are_well_formed(void **state)
{
    for (int id = 0; id < REPLY_COUNT; id++) {
        struct buf out;
        char want[600];
        const char *gap = table[id].enhanced[0] ? " " : "";
        snprintf(want, sizeof(want), "%d %s%s%s\r\n", table[id].code, table[id].enhanced, gap,
                 table[id].text);
        buf_init(&out, 600);
        assert_int_equal(reply_write(&out, (enum reply_id)id), STATUS_OK);
        assert_true(slice_eq(buf_slice(&out), slice_str(want)));
        assert_true(out.len <= 512);
        for (uint32_t i = 0; i + 2 < out.len; i++)
            assert_true(out.ptr[i] >= ' ' && out.ptr[i] <= '~');
        assert_int_equal(reply_code((enum reply_id)id), table[id].code);
        if (table[id].enhanced[0])
            assert_int_equal(table[id].enhanced[0] - '0', table[id].code / 100);
        else
            assert_true(table[id].code / 100 == 3); /* only START_MAIL goes without */
        buf_done(&out);
    }
}

static void own_text_takes_the_place_of_the_rows(void **state)
{
    struct buf out;
    buf_init(&out, 60);
    assert_int_equal(reply_write_text(&out, REPLY_OK, SLICE("Ok: queued as X")), STATUS_OK);
    assert_int_equal(reply_write_text(&out, REPLY_START_MAIL, SLICE("Go")), STATUS_OK);
    assert_true(slice_eq(buf_slice(&out), SLICE("250 2.0.0 Ok: queued as X\r\n354 Go\r\n")));
    assert_int_equal(reply_write_text(&out, REPLY_OK, SLICE("More than there is room for")),
                     STATUS_FULL);
    assert_int_equal(reply_write(&out, REPLY_BAD_HELO), STATUS_FULL);
    assert_int_equal(out.len, 35);
    buf_done(&out);
}

/* What came of a whole input; the events are L (line), D (done) and ! (invalid). */
struct run {
    char events[300];
    char lines[4096]; /* the first octets of each text given, and a '|' */
    struct smtp_reply reply;
};

static void add(char *to, size_t size, const char *text, size_t len)
{
    size_t used = strlen(to);
    assert_true(used + len < size);
    memcpy(to + used, text, len);
    to[used + len] = '\0';
}

static void note_event(struct run *r, enum reply_event event, struct slice text)
{
    const char *name = event == REPLY_EVENT_LINE ? "L" : event == REPLY_EVENT_DONE ? "D" : "!";
    add(r->events, sizeof(r->events), name, 1);
    if (event == REPLY_EVENT_INVALID)
        return;
    for (size_t i = 0; i < text.len; i++)
        assert_true(text.ptr[i] >= ' ' && text.ptr[i] <= '~');
    add(r->lines, sizeof(r->lines), text.ptr, text.len < 60 ? text.len : 60);
    add(r->lines, sizeof(r->lines), "|", 1);
}

/* One piece, in a heap block of its own; false after INVALID. */
static bool feed_piece(struct reply_parser *p, struct run *r, struct slice piece)
{
    bool is_fine = true;
    char *copy = malloc(piece.len > 0 ? piece.len : 1);
    if (piece.len > 0)
        memcpy(copy, piece.ptr, piece.len);
    struct slice rest = slice_of(copy, piece.len);
    while (is_fine && rest.len > 0) {
        size_t used = 0;
        struct slice text = SLICE_NONE;
        enum reply_event event = reply_parser_feed(p, rest, &used, &text);
        rest = slice_skip(rest, used);
        if (event == REPLY_EVENT_MORE)
            assert_int_equal(rest.len, 0);
        else
            note_event(r, event, text);
        if (event == REPLY_EVENT_DONE)
            r->reply = p->reply;
        is_fine = event != REPLY_EVENT_INVALID;
    }
    free(copy);
    return is_fine;
}

/* In two pieces cut at `cut`, or octet by octet when `each` is set. */
static void run_cut(struct run *r, struct slice in, size_t cut, bool each)
{
    struct reply_parser p;
    memset(r, 0, sizeof(*r));
    reply_parser_init(&p);
    if (!each && feed_piece(&p, r, slice_head(in, cut)))
        feed_piece(&p, r, slice_skip(in, cut));
    for (size_t i = 0; each && i < in.len; i++)
        if (!feed_piece(&p, r, slice_of(in.ptr + i, 1)))
            break;
    reply_parser_done(&p);
}

static void assert_same(const struct run *a, const struct run *b)
{
    assert_string_equal(a->events, b->events);
    assert_string_equal(a->lines, b->lines);
    assert_int_equal(a->reply.code, b->reply.code);
    assert_string_equal(a->reply.enhanced, b->reply.enhanced);
    assert_string_equal(a->reply.text, b->reply.text);
    assert_int_equal(a->reply.text_len, b->reply.text_len);
}

static const struct {
    struct slice in;
    const char *events;
    int code; /* of the last DONE */
    const char *enhanced, *text, *lines;
} rows[] = {
    { SLICE("220 mx.example ESMTP\r\n"), "D", 220, "", "mx.example ESMTP", "mx.example ESMTP|" },
    { SLICE("250 2.1.0 Ok\r\n"), "D", 250, "2.1.0", "Ok", "2.1.0 Ok|" },
    { SLICE("250\r\n"), "D", 250, "", "", "|" },
    { SLICE("250 \r\n"), "D", 250, "", "", "|" },
    { SLICE("250 2.0.0\r\n"), "D", 250, "2.0.0", "", "2.0.0|" },
    { SLICE("354 go\r\n"), "D", 354, "", "go", "go|" },
    { SLICE("250-a.example\r\n250-SIZE 100\r\n250 8BITMIME\r\n"), "LLD", 250, "",
      "a.example SIZE 100 8BITMIME", "a.example|SIZE 100|8BITMIME|" },
    { SLICE("250-\r\n250\r\n"), "LD", 250, "", "", "||" },
    { SLICE("550-5.1.1 No such user\r\n550 5.1.1 see example.org\r\n"), "LD", 550, "5.1.1",
      "No such user see example.org", "5.1.1 No such user|5.1.1 see example.org|" },
    /* two replies in one piece; what comes after the last line end stays open */
    { SLICE("250 a\r\n451 4.3.0 b\r\n22"), "DD", 451, "4.3.0", "b", "a|4.3.0 b|" },
    { SLICE("250 2.0.0 a\r\n250 b\r\n"), "DD", 250, "", "b", "2.0.0 a|b|" },
    /* P-165: LF alone; NUL, controls and 8-bit */
    { SLICE("250-a\n250 b\n"), "LD", 250, "", "a b", "a|b|" },
    { SLICE("250 a\0b\x01\x7f\xc3\xa9\tc\r\n"), "D", 250, "", "a?b?????c", "a?b?????c|" },
    { SLICE("250 a\rb\r\r\n"), "D", 250, "", "a?b?", "a?b?|" },
    /* P-166: an enhanced code of another class is only text */
    { SLICE("450 5.1.1 no\r\n"), "D", 450, "", "5.1.1 no", "5.1.1 no|" },
    { SLICE("354 3.0.0 go\r\n"), "D", 354, "", "3.0.0 go", "3.0.0 go|" },
    { SLICE("550 5.1 no\r\n"), "D", 550, "", "5.1 no", "5.1 no|" },
    { SLICE("550 5.1.1x\r\n"), "D", 550, "", "5.1.1x", "5.1.1x|" },
    { SLICE("550 5.1234.1 x\r\n"), "D", 550, "", "5.1234.1 x", "5.1234.1 x|" },
    { SLICE("550 5.123.456 x\r\n"), "D", 550, "5.123.456", "x", "5.123.456 x|" },
    { SLICE("550 5..1 x\r\n"), "D", 550, "", "5..1 x", "5..1 x|" },
    { SLICE("550 5.1. x\r\n"), "D", 550, "", "5.1. x", "5.1. x|" },
    { SLICE("550  5.1.1 x\r\n"), "D", 550, "", " 5.1.1 x", " 5.1.1 x|" },
    /* P-187: the last line decides within a class; across classes nothing is decided */
    { SLICE("550-5.7.1 a\r\n554 5.7.2 b\r\n"), "LD", 554, "5.7.1", "a b", "5.7.1 a|5.7.2 b|" },
    { SLICE("250-a\r\n550 b\r\n"), "L!", 0, "", "", "a|" },
    { SLICE("550-a\r\n450 b\r\n"), "L!", 0, "", "", "a|" },
    /* P-165: not a reply */
    { SLICE("\r\n"), "!", 0, "", "", "" },
    { SLICE("25\r\n"), "!", 0, "", "", "" },
    { SLICE("2500 x\r\n"), "!", 0, "", "", "" },
    { SLICE("250x\r\n"), "!", 0, "", "", "" },
    { SLICE("250\tx\r\n"), "!", 0, "", "", "" },
    { SLICE("199 x\r\n"), "!", 0, "", "", "" },
    { SLICE("600 x\r\n"), "!", 0, "", "", "" },
    { SLICE("-50 x\r\n"), "!", 0, "", "", "" },
    { SLICE(" 250 x\r\n"), "!", 0, "", "", "" },
    { SLICE("2\0000 x\r\n"), "!", 0, "", "", "" },
    { SLICE("SSH-2.0-x\r\n"), "!", 0, "", "", "" },
    { SLICE("250-a\r\nfree text\r\n250 b\r\n"), "L!", 0, "", "", "a|" },
    /* P-167: not finished is not a reply */
    { SLICE("250-a\r\n250-b\r\n"), "LL", 0, "", "", "a|b|" },
    { SLICE("250 almost\r"), "", 0, "", "", "" },
};

static void reads_replies_cut_anywhere(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct run whole, other;
        run_cut(&whole, rows[i].in, rows[i].in.len, false);
        if (strcmp(whole.events, rows[i].events) != 0 || strcmp(whole.lines, rows[i].lines) != 0)
            fail_msg("row %zu: '%s' '%s'", i, whole.events, whole.lines);
        assert_int_equal(whole.reply.code, rows[i].code);
        assert_string_equal(whole.reply.enhanced, rows[i].enhanced);
        assert_string_equal(whole.reply.text, rows[i].text);
        assert_int_equal(whole.reply.text_len, strlen(rows[i].text));
        for (size_t cut = 0; cut < rows[i].in.len; cut++) {
            run_cut(&other, rows[i].in, cut, false);
            assert_same(&whole, &other);
        }
        run_cut(&other, rows[i].in, 0, true);
        assert_same(&whole, &other);
    }
}

/* One line "250 xxx" of `len` octets with its line end, or many of them. */
static char *make_lines(size_t len, unsigned count, bool is_last)
{
    char *all = malloc(len * count + 1);
    for (unsigned i = 0; i < count; i++) {
        char *line = all + len * i;
        memset(line, 'x', len);
        memcpy(line, is_last && i == count - 1 ? "250 " : "250-", 4);
        memcpy(line + len - 2, "\r\n", 2);
    }
    all[len * count] = '\0';
    return all;
}

static void assert_events(char *input, const char *last, size_t count)
{
    for (int each = 0; each < 2; each++) {
        struct run r;
        run_cut(&r, slice_str(input), strlen(input), each);
        assert_int_equal(strlen(r.events), count);
        assert_string_equal(r.events + strlen(r.events) - strlen(last), last);
    }
    free(input);
}

/* P-165; CVE-2020-8794 */
static void bounds_what_a_peer_may_send(void **state)
{
    assert_events(make_lines(SMTP_REPLY_LINE_MAX, 1, true), "D", 1);
    assert_events(make_lines(SMTP_REPLY_LINE_MAX + 1, 1, true), "!", 1);
    assert_events(make_lines(SMTP_REPLY_LINE_MAX * 3, 1, true), "!", 1);
    assert_events(make_lines(10, SMTP_REPLY_LINES_MAX, true), "LLD", SMTP_REPLY_LINES_MAX);
    assert_events(make_lines(10, SMTP_REPLY_LINES_MAX + 9, true), "L!", SMTP_REPLY_LINES_MAX + 1);
    /* 64 KiB are 32 lines of 2 KiB, without their line ends */
    assert_events(make_lines(SMTP_REPLY_LINE_MAX, 40, true), "L!", 33);
}

/* The limits are those of one reply: a long session has as many as it likes. */
static void limits_are_per_reply(void **state)
{
    struct reply_parser p;
    char *line = make_lines(SMTP_REPLY_LINE_MAX, 1, true);
    reply_parser_init(&p);
    for (int i = 0; i < 200; i++) {
        size_t used;
        struct slice text;
        assert_int_equal(reply_parser_feed(&p, slice_str(line), &used, &text), REPLY_EVENT_DONE);
    }
    reply_parser_done(&p);
    free(line);
}

static void keeps_a_bounded_text(void **state)
{
    struct run r;
    char *input = make_lines(400, 3, true);
    run_cut(&r, slice_str(input), strlen(input), false);
    assert_string_equal(r.events, "LLD");
    assert_int_equal(r.reply.text_len, SMTP_REPLY_TEXT_MAX - 1);
    assert_int_equal(strlen(r.reply.text), SMTP_REPLY_TEXT_MAX - 1);
    free(input);
}

static void holds_no_memory_between_lines(void **state)
{
    struct reply_parser p;
    size_t used;
    struct slice text;
    reply_parser_init(&p);
    assert_int_equal(reply_parser_feed(&p, SLICE("250 a\r\n"), &used, &text), REPLY_EVENT_DONE);
    assert_null(p.line.ptr);
    assert_int_equal(reply_parser_feed(&p, SLICE("25"), &used, &text), REPLY_EVENT_MORE);
    assert_int_equal(reply_parser_feed(&p, SLICE("0 b\r\n2"), &used, &text), REPLY_EVENT_DONE);
    assert_int_equal(used, 5);
    assert_true(slice_eq(text, SLICE("b")));
    assert_int_equal(reply_parser_feed(&p, SLICE("250 c\r\n"), &used, &text), REPLY_EVENT_DONE);
    assert_true(slice_eq(text, SLICE("c")));
    assert_null(p.line.ptr);
    reply_parser_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_replies_are_well_formed),
        cmocka_unit_test(own_text_takes_the_place_of_the_rows),
        cmocka_unit_test(reads_replies_cut_anywhere),
        cmocka_unit_test(bounds_what_a_peer_may_send),
        cmocka_unit_test(limits_are_per_reply),
        cmocka_unit_test(keeps_a_bounded_text),
        cmocka_unit_test(holds_no_memory_between_lines),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
