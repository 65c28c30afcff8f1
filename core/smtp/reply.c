/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply - the server's rows to bytes, and a peer's bytes to one struct smtp_reply.
 *
 * Outwards, every row is a finished line made by the compiler; writing one is one append.
 *
 * Inwards, the parser takes one line at a time. A line that lies whole and clean in the input is
 * judged where it lies; one that is cut, or holds controls or 8-bit octets, is gathered in
 * parser->line, where those become '?'. So nothing of a peer's reply that reaches a log, a bounce
 * or the client's code can carry more than printable ASCII (P-165, P-230).
 *
 * Tolerated: LF alone as line end, a code without text, "250-" lines whose codes differ within one
 * class (the last line decides, P-187). Not tolerated, and INVALID: anything but three digits from
 * 200 to 599 and then SP, "-" or the end of the line; lines of different classes in one reply; a
 * line, a number of lines or a sum of octets over the limits. The caller drops the connection and
 * defers, so a broken peer costs time, never mail.
 *
 * Limits: SMTP_REPLY_LINE_MAX, SMTP_REPLY_LINES_MAX, SMTP_REPLY_OCTETS_MAX; of the text,
 * SMTP_REPLY_TEXT_MAX - 1 octets are kept.
 * To add a reply of ours: a row in reply_table.h.
 */
#include "core/smtp/reply.h"
#include "core/base/must.h"

#define REPLY_LINE_OUT_MAX 512 /* RFC 5321 4.5.3.1.5, with CR LF (P-22) */

/* A row without an enhanced code has one space, not two. */
#define ROW_LINE(code, enhanced, text)                                                             \
    (sizeof(enhanced) > 1 ? #code " " enhanced " " text "\r\n" : #code " " text "\r\n")
#define ROW_LEN(code, enhanced, text)                                                              \
    (sizeof(enhanced) > 1 ? sizeof(#code " " enhanced " " text "\r\n") - 1                         \
                          : sizeof(#code " " text "\r\n") - 1)

static const struct row {
    int code;
    const char *enhanced;
    struct slice line;
} rows[] = {
#define X(id, code, enhanced, text)                                                                \
    { code, enhanced, { ROW_LINE(code, enhanced, text), ROW_LEN(code, enhanced, text) } },
    REPLY_TABLE(X)
#undef X
};

#define X(id, code, enhanced, text)                                                                \
    _Static_assert(ROW_LEN(code, enhanced, text) <= REPLY_LINE_OUT_MAX, #id " is too long");
REPLY_TABLE(X)
#undef X

int reply_code(enum reply_id id)
{
    must(id < REPLY_COUNT);
    return rows[id].code;
}

enum status reply_write(struct buf *out, enum reply_id id)
{
    must(id < REPLY_COUNT);
    return buf_append(out, rows[id].line);
}

enum status reply_write_text(struct buf *out, enum reply_id id, struct slice text)
{
    must(id < REPLY_COUNT);
    const struct row *row = &rows[id];
    const char *gap = row->enhanced[0] != '\0' ? " " : "";
    must(text.len + sizeof("250 2.0.0 \r\n") - 1 <= REPLY_LINE_OUT_MAX);
    return buf_printf(out, "%d %s%s%.*s\r\n", row->code, row->enhanced, gap, SLICE_ARG(text));
}

void reply_parser_init(struct reply_parser *p)
{
    *p = (struct reply_parser){ 0 };
    buf_init(&p->line, SMTP_REPLY_LINE_MAX);
}

void reply_parser_done(struct reply_parser *p)
{
    buf_done(&p->line);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

/* Three digits from 200 to 599, then SP, "-" or the end; 0: not a reply line. */
static int line_code(struct slice line)
{
    if (line.len < 3 || line.ptr[0] < '2' || line.ptr[0] > '5' || !is_digit(line.ptr[1]) ||
        !is_digit(line.ptr[2]))
        return 0;
    if (line.len > 3 && line.ptr[3] != ' ' && line.ptr[3] != '-')
        return 0;
    return (line.ptr[0] - '0') * 100 + (line.ptr[1] - '0') * 10 + (line.ptr[2] - '0');
}

/* 1 to 3 digits at the front. */
static size_t digits_len(struct slice s)
{
    size_t len = 0;
    while (len < 3 && len < s.len && is_digit(s.ptr[len]))
        len++;
    return len;
}

/* The length of an enhanced code of this class at the front of the text ("5.1.1"), 0 when there is
 * none. One of another class is text: the first digit of the reply decides (P-166). */
static size_t enhanced_len(struct slice text, int class)
{
    if (text.len < 5 || text.ptr[0] != '0' + class || class == 3 || text.ptr[1] != '.')
        return 0;
    size_t subject = digits_len(slice_skip(text, 2));
    size_t dot = 2 + subject;
    if (subject == 0 || dot >= text.len || text.ptr[dot] != '.')
        return 0;
    size_t detail = digits_len(slice_skip(text, dot + 1));
    size_t end = dot + 1 + detail;
    if (detail == 0 || (end < text.len && text.ptr[end] != ' '))
        return 0;
    return end;
}

/* Keeps the code of the first line that has one. */
static void take_enhanced(struct smtp_reply *r, struct slice code)
{
    if (r->enhanced[0] != '\0' || code.len == 0)
        return;
    must(code.len < sizeof(r->enhanced));
    memcpy(r->enhanced, code.ptr, code.len);
    r->enhanced[code.len] = '\0';
}

/* Adds a line's text, after one space unless it is the first; what does not fit is dropped. */
static void add_text(struct smtp_reply *r, struct slice text)
{
    if (text.len > 0 && r->text_len > 0 && r->text_len < SMTP_REPLY_TEXT_MAX - 1)
        r->text[r->text_len++] = ' ';
    text = slice_head(text, (size_t)(SMTP_REPLY_TEXT_MAX - 1 - r->text_len));
    if (text.len > 0)
        memcpy(r->text + r->text_len, text.ptr, text.len);
    r->text_len = (uint16_t)(r->text_len + text.len);
    r->text[r->text_len] = '\0';
}

static void start_reply(struct reply_parser *p)
{
    p->octets = 0;
    p->reply.code = 0;
    p->reply.enhanced[0] = '\0';
    p->reply.text_len = 0;
    p->reply.text[0] = '\0';
}

static bool is_over_limit(const struct reply_parser *p)
{
    return p->lines > SMTP_REPLY_LINES_MAX || p->octets > SMTP_REPLY_OCTETS_MAX;
}

/* One whole line, printable, without its line end. */
static enum reply_event take_line(struct reply_parser *p, struct slice line, struct slice *text)
{
    struct smtp_reply *r = &p->reply;
    int code = line_code(line);
    if (p->lines == 0)
        start_reply(p);
    p->lines++;
    p->octets += (uint32_t)line.len;
    if (code == 0 || is_over_limit(p) || (p->lines > 1 && code / 100 != r->code / 100))
        return REPLY_EVENT_INVALID;
    struct slice words = slice_skip(line, 4);
    size_t enhanced = enhanced_len(words, code / 100);
    r->code = code;
    take_enhanced(r, slice_head(words, enhanced));
    add_text(r, slice_skip(words, enhanced > 0 ? enhanced + 1 : 0));
    *text = words;
    if (line.len > 3 && line.ptr[3] == '-')
        return REPLY_EVENT_LINE;
    p->lines = 0;
    return REPLY_EVENT_DONE;
}

static struct slice without_line_end(struct slice line)
{
    if (line.len > 0 && line.ptr[line.len - 1] == '\n')
        line.len--;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    return line;
}

static bool is_clean(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_printable(s.ptr[i]))
            return false;
    return true;
}

/* What gathered in p->line, made printable. */
static struct slice gathered_line(struct reply_parser *p)
{
    struct slice line = without_line_end(buf_slice(&p->line));
    for (size_t i = 0; i < line.len; i++)
        if (!is_printable(p->line.ptr[i]))
            p->line.ptr[i] = '?';
    return line;
}

enum reply_event reply_parser_feed(struct reply_parser *p, struct slice in, size_t *used,
                                   struct slice *text)
{
    size_t end = slice_find(in, '\n');
    struct slice piece = slice_head(in, end + 1);
    *used = piece.len;
    if (p->line_is_over) /* the last call gave text that lay in p->line */
        buf_done(&p->line);
    p->line_is_over = false;
    struct slice line = without_line_end(piece);
    if (end < in.len && p->line.len == 0 && piece.len <= SMTP_REPLY_LINE_MAX && is_clean(line))
        return take_line(p, line, text);
    if (buf_append(&p->line, piece) != STATUS_OK)
        return REPLY_EVENT_INVALID;
    if (end == in.len)
        return REPLY_EVENT_MORE;
    p->line_is_over = true;
    return take_line(p, gathered_line(p), text);
}
