/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a peer's replies. Fed whole and cut anywhere they must tell the same; what the
 * parser gives is printable, bounded and consistent in its codes.
 */
#include "core/smtp/reply.h"
#include "tests/fuzz/fuzz.h"

/* A running digest of all events, so that two runs are compared by one number. */
static void mix(uint64_t *sum, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        *sum = (*sum ^ (unsigned char)s.ptr[i]) * 0x100000001b3u;
    *sum = (*sum ^ 0x1ff) * 0x100000001b3u;
}

static void check_reply(const struct smtp_reply *r)
{
    must(r->code >= 200 && r->code <= 599);
    must(r->text_len < SMTP_REPLY_TEXT_MAX && r->text[r->text_len] == '\0');
    must(slice_is_printable(slice_of(r->text, r->text_len)));
    must(strlen(r->enhanced) < sizeof(r->enhanced) && slice_is_printable(slice_str(r->enhanced)));
    must(r->enhanced[0] == '\0' || r->enhanced[0] - '0' == r->code / 100); /* P-166 */
}

/* One piece; false after INVALID. */
static bool feed(struct reply_parser *p, struct slice piece, uint64_t *sum)
{
    bool is_fine = true;
    char *copy = exact_copy(piece);
    struct slice rest = slice_of(copy, piece.len);
    while (is_fine && rest.len > 0) {
        struct slice text = SLICE_NONE;
        size_t used = 0;
        enum reply_event event = reply_parser_feed(p, rest, &used, &text);
        must(used > 0 && used <= rest.len && (event != REPLY_EVENT_MORE || used == rest.len));
        rest = slice_skip(rest, used);
        if (event == REPLY_EVENT_MORE)
            break;
        must(slice_is_printable(text) && text.len <= SMTP_REPLY_LINE_MAX);
        mix(sum, slice_of((const char *)&event, sizeof(event)));
        mix(sum, text);
        is_fine = event != REPLY_EVENT_INVALID;
        if (event == REPLY_EVENT_DONE) {
            check_reply(&p->reply);
            mix(sum, slice_of(p->reply.text, p->reply.text_len));
            mix(sum, slice_of((const char *)&p->reply.code, sizeof(p->reply.code)));
            mix(sum, slice_str(p->reply.enhanced));
        }
    }
    free(copy);
    return is_fine;
}

static uint64_t run(struct slice in, struct cutter *cutter)
{
    struct reply_parser p;
    uint64_t sum = 0xcbf29ce484222325u;
    bool is_fine = true;
    reply_parser_init(&p);
    while (is_fine && in.len > 0) {
        struct slice piece = slice_head(in, cutter ? cutter_next(cutter) : in.len);
        is_fine = feed(&p, piece, &sum);
        in = slice_skip(in, piece.len);
    }
    must(p.line.cap <= SMTP_REPLY_LINE_MAX && p.lines <= SMTP_REPLY_LINES_MAX + 1);
    reply_parser_done(&p);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    struct cutter cutter = cutter_of(in);
    must(run(in, NULL) == run(in, &cutter));
    return 0;
}
