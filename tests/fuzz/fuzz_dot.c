/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as what a client sends after DATA, and as content to send on. Decoding in pieces
 * equals decoding whole; what we stuff ends where we end it and nowhere before, for a peer that
 * takes LF for a line end too; and content without a bare CR or LF comes back as it was.
 */
#include "core/base/buf.h"
#include "core/smtp/dot.h"
#include "tests/fuzz/fuzz.h"

#define OUT_MAX (1u << 24)

struct decoded {
    struct dot_decoder d;
    struct buf out;
    size_t used;
    bool is_ended;
};

static void append(struct buf *out, struct slice s)
{
    must(buf_append(out, s) == STATUS_OK);
}

static void decode_piece(struct decoded *r, struct slice piece)
{
    char *copy = exact_copy(piece);
    struct slice rest = slice_of(copy, piece.len), span;
    enum dot_event event;
    do {
        size_t used = 0;
        event = dot_decode(&r->d, rest, &used, &span);
        must(used <= rest.len && (event != DOT_SPAN || span.len > 0));
        rest = slice_skip(rest, used);
        r->used += used;
        if (event == DOT_SPAN)
            append(&r->out, span);
    } while (event == DOT_SPAN);
    must(event == DOT_END || rest.len == 0);
    r->is_ended = event == DOT_END;
    free(copy);
}

static void decode(struct decoded *r, struct slice in, struct cutter *cutter)
{
    *r = (struct decoded){ .used = 0 };
    dot_decoder_init(&r->d);
    buf_init(&r->out, OUT_MAX);
    while (!r->is_ended && in.len > 0) {
        struct slice piece = slice_head(in, cutter ? cutter_next(cutter) : in.len);
        decode_piece(r, piece);
        in = slice_skip(in, piece.len);
    }
    must(r->d.octets == r->out.len);
}

static void check_cuts(struct slice in)
{
    struct cutter cutter = cutter_of(in);
    struct decoded whole, cut;
    decode(&whole, in, NULL);
    decode(&cut, in, &cutter);
    must(whole.used == cut.used && whole.is_ended == cut.is_ended);
    must(slice_eq(buf_slice(&whole.out), buf_slice(&cut.out)));
    must(memcmp(&whole.d.octets, &cut.d.octets, sizeof(whole.d.octets)) == 0);
    must(whole.d.state == cut.d.state && whole.d.line_len == cut.d.line_len);
    must(whole.d.defects == cut.d.defects && whole.d.has_8bit == cut.d.has_8bit);
    must(whole.d.has_dot_lines == cut.d.has_dot_lines);
    if (whole.is_ended)
        must(whole.used >= 3 && memcmp(in.ptr + whole.used - 3, ".\r\n", 3) == 0);
    buf_done(&whole.out);
    buf_done(&cut.out);
}

static void stuff(struct slice in, struct cutter *cutter, struct buf *out)
{
    struct dot_stuffer s;
    dot_stuffer_init(&s);
    while (in.len > 0) {
        struct slice piece = slice_head(in, cutter ? cutter_next(cutter) : in.len), span;
        in = slice_skip(in, piece.len);
        while (dot_stuff_next(&s, &piece, &span)) {
            must(span.len > 0);
            append(out, span);
        }
    }
    append(out, dot_stuff_end(&s));
}

/* P-78: LF "." and then LF or CR, which some servers take for the end of data. */
static bool has_lone_dot(struct slice s)
{
    for (size_t i = 0; i + 1 < s.len; i++)
        if (s.ptr[i] == '.' && (i == 0 || s.ptr[i - 1] == '\n') &&
            (s.ptr[i + 1] == '\r' || s.ptr[i + 1] == '\n'))
            return true;
    return false;
}

static void check_round_trip(struct slice in)
{
    struct cutter cutter = cutter_of(in);
    struct buf sent, cut;
    struct decoded back;
    buf_init(&sent, OUT_MAX);
    buf_init(&cut, OUT_MAX);
    stuff(in, NULL, &sent);
    stuff(in, &cutter, &cut);
    must(slice_eq(buf_slice(&sent), buf_slice(&cut)));
    must(!has_lone_dot(slice_head(buf_slice(&sent), sent.len - 3)));
    decode(&back, buf_slice(&sent), NULL);
    must(back.is_ended && back.used == sent.len);
    if ((back.d.defects & (DOT_BARE_CR | DOT_BARE_LF)) == 0) {
        must(back.out.len == in.len || back.out.len == in.len + 2);
        must(slice_eq(slice_head(buf_slice(&back.out), in.len), in));
    }
    buf_done(&sent);
    buf_done(&cut);
    buf_done(&back.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    check_cuts(in);
    check_round_trip(in);
    return 0;
}
