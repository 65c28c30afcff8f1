/* SPDX-License-Identifier: Apache-2.0 */
/* Shows the end of data and the dots against a reference that reads one octet at a time, on
 * hand-made, random and adversarial input, cut everywhere. test_dot_scalar.c runs the same tests
 * on the code for machines without SSE2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/dot.h"

#ifndef DOT_TEST_NAME
#define DOT_TEST_NAME "dot"
#endif

#define OUT_MAX 8192

/* All that decoding an input tells. */
struct result {
    char out[OUT_MAX];
    size_t out_len, used, spans;
    bool is_ended, has_8bit, has_dot_lines;
    unsigned defects;
    uint64_t octets;
};

/* The reference. `line` counts the octets of the line so far, without the dot taken off. */
struct reference {
    bool start, dot, cr; /* at the start of a line; after its dot; after a CR */
    size_t line;
};

static void reference_put(struct result *r, struct reference *f, char c)
{
    r->out[r->out_len++] = c;
    f->line++;
    if (c == '\0')
        r->defects |= DOT_NUL;
    r->has_8bit |= (unsigned char)c > 127;
}

static void reference_octet(struct result *r, struct reference *f, char c)
{
    bool after_cr = f->cr, at_start = f->start, after_dot = f->dot;
    f->start = f->dot = f->cr = false;
    if (at_start && c == '.') {
        f->dot = true;
        return;
    }
    r->has_dot_lines |= after_dot && c == '.';
    if (after_cr && c != '\n')
        r->defects |= DOT_BARE_CR;
    if (!after_cr && c == '\n')
        r->defects |= DOT_BARE_LF;
    reference_put(r, f, c);
    f->cr = c == '\r';
    if (f->line - f->cr > DOT_LINE_MAX && !(after_cr && c == '\n'))
        r->defects |= DOT_LONG_LINE;
    if (after_cr && c == '\n') {
        f->start = true;
        f->line = 0;
    }
}

static void reference_decode(struct slice in, struct result *r)
{
    struct reference f = { .start = true };
    memset(r, 0, sizeof(*r));
    for (size_t i = 0; i < in.len && !r->is_ended; i++) {
        if (f.start && in.len - i >= 3 && memcmp(in.ptr + i, ".\r\n", 3) == 0) {
            r->is_ended = true;
            r->used = i + 3;
        } else {
            reference_octet(r, &f, in.ptr[i]);
        }
    }
    if (!r->is_ended)
        r->used = in.len;
    r->octets = r->out_len;
}

/* Feeds pieces of the sizes that `next_size` gives, each in a heap block of exactly its length. */
typedef size_t size_fn(void *ctx);

static void take_span(struct result *r, struct slice span)
{
    assert_true(span.len > 0 && r->out_len + span.len <= OUT_MAX);
    memcpy(r->out + r->out_len, span.ptr, span.len);
    r->out_len += span.len;
    r->spans++;
}

static void decode_piece(struct dot_decoder *d, struct slice piece, struct result *r)
{
    char *copy = malloc(piece.len > 0 ? piece.len : 1);
    if (piece.len > 0)
        memcpy(copy, piece.ptr, piece.len);
    struct slice rest = slice_of(copy, piece.len);
    for (;;) {
        size_t used = 0;
        struct slice span = SLICE_NONE;
        enum dot_event event = dot_decode(d, rest, &used, &span);
        assert_true(used <= rest.len);
        r->used += used;
        rest = slice_skip(rest, used);
        if (event == DOT_SPAN)
            take_span(r, span);
        else
            assert_int_equal(span.len, 0);
        r->is_ended = event == DOT_END;
        if (event == DOT_MORE)
            assert_int_equal(rest.len, 0);
        if (event != DOT_SPAN)
            break;
    }
    free(copy);
}

static void decode_in_pieces(struct slice in, size_fn *next_size, void *ctx, struct result *r)
{
    struct dot_decoder d;
    memset(r, 0, sizeof(*r));
    dot_decoder_init(&d);
    for (size_t at = 0; !r->is_ended && at < in.len;) {
        struct slice piece = slice_head(slice_skip(in, at), next_size(ctx));
        decode_piece(&d, piece, r);
        at += piece.len;
    }
    r->defects = d.defects;
    r->has_8bit = d.has_8bit;
    r->has_dot_lines = d.has_dot_lines;
    r->octets = d.octets;
}

/* The octets that wait for what follows: a dot taken off stands for none, a CR after it for one. */
static void assert_same(struct slice in, const struct result *got, const struct result *want)
{
    bool holds_cr = !want->is_ended && want->out_len == got->out_len + 1 &&
                    in.ptr[in.len - 1] == '\r' && in.ptr[in.len - 2] == '.';
    if (got->is_ended != want->is_ended || got->used != want->used ||
        got->out_len + holds_cr != want->out_len || memcmp(got->out, want->out, got->out_len) != 0)
        fail_msg("decoded %zu of %zu octets to %zu, want %zu to %zu", got->used, in.len,
                 got->out_len, want->used, want->out_len);
    assert_int_equal(got->defects, want->defects);
    assert_int_equal(got->has_8bit, want->has_8bit);
    assert_int_equal(got->has_dot_lines, want->has_dot_lines);
    assert_int_equal(got->octets + holds_cr, want->octets);
}

/* Gives *ctx first, then all the rest. */
static size_t size_then_rest(void *ctx)
{
    size_t size = *(size_t *)ctx;
    *(size_t *)ctx = SIZE_MAX;
    return size;
}

static size_t size_fixed(void *ctx)
{
    return *(size_t *)ctx;
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static size_t size_random(void *ctx)
{
    uint64_t r = next_random(ctx);
    return r % 5 == 0 ? 1 + r % 200 : 1 + r % 9;
}

static void check_cut_everywhere(struct slice in)
{
    static struct result want, got;
    reference_decode(in, &want);
    for (size_t cut = 1; cut <= in.len; cut++) {
        size_t ctx = cut;
        decode_in_pieces(in, size_then_rest, &ctx, &got);
        assert_same(in, &got, &want);
        ctx = cut;
        if (cut < 200)
            decode_in_pieces(in, size_fixed, &ctx, &got);
        assert_same(in, &got, &want);
    }
}

static const struct {
    struct slice in, out;
    bool is_ended;
    size_t left; /* octets after the end */
    unsigned defects;
} rows[] = {
    { SLICE(".\r\n"), SLICE(""), true, 0, 0 },
    { SLICE("a\r\n.\r\n"), SLICE("a\r\n"), true, 0, 0 },
    { SLICE("a\r\n.\r\nQUIT\r\n"), SLICE("a\r\n"), true, 6, 0 },
    { SLICE(".\r\n.\r\n"), SLICE(""), true, 3, 0 },
    { SLICE("\r\n.\r\n"), SLICE("\r\n"), true, 0, 0 },
    /* P-79 */
    { SLICE("..\r\n.\r\n"), SLICE(".\r\n"), true, 0, 0 },
    { SLICE("...a\r\n.b\r\n.\r\n"), SLICE("..a\r\nb\r\n"), true, 0, 0 },
    { SLICE("a.\r\n.\r\n"), SLICE("a.\r\n"), true, 0, 0 },
    { SLICE("a\r\n..\r\n..\r\n.\r\n"), SLICE("a\r\n.\r\n.\r\n"), true, 0, 0 },
    /* P-75, P-76, P-77: none of these is the end */
    { SLICE("a\n.\n"), SLICE("a\n.\n"), false, 0, DOT_BARE_LF },
    { SLICE("a\n.\r\n"), SLICE("a\n.\r\n"), false, 0, DOT_BARE_LF },
    { SLICE("a\r\n.\nb"), SLICE("a\r\n\nb"), false, 0, DOT_BARE_LF },
    { SLICE("a\r.\rb"), SLICE("a\r.\rb"), false, 0, DOT_BARE_CR },
    { SLICE("a\r.\r\nb"), SLICE("a\r.\r\nb"), false, 0, DOT_BARE_CR },
    { SLICE("a\r\n.\rb"), SLICE("a\r\n\rb"), false, 0, DOT_BARE_CR },
    { SLICE("a\r\r\n.\r\r\nb"), SLICE("a\r\r\n\r\r\nb"), false, 0, DOT_BARE_CR },
    { SLICE("a\r\n.\r\r\n.\r\n"), SLICE("a\r\n\r\r\n"), true, 0, DOT_BARE_CR },
    { SLICE("a\n\r.\r\nb"), SLICE("a\n\r.\r\nb"), false, 0, DOT_BARE_CR | DOT_BARE_LF },
    { SLICE("a\r\n\0.\r\nb"), SLICE("a\r\n\0.\r\nb"), false, 0, DOT_NUL },
    { SLICE("a\r\n.\0\r\nb"), SLICE("a\r\n\0\r\nb"), false, 0, DOT_NUL },
    { SLICE("a\r\0\n.\r\nb"), SLICE("a\r\0\n.\r\nb"), false, 0,
      DOT_NUL | DOT_BARE_CR | DOT_BARE_LF },
    { SLICE("a\xc2\x85.\xc2\x85"), SLICE("a\xc2\x85.\xc2\x85"), false, 0, 0 },
    { SLICE("a\xe2\x80\xa8.\xe2\x80\xa8"), SLICE("a\xe2\x80\xa8.\xe2\x80\xa8"), false, 0, 0 },
    { SLICE("a\v.\vb\f.\f"), SLICE("a\v.\vb\f.\f"), false, 0, 0 },
    { SLICE("a\r\n .\r\nb"), SLICE("a\r\n .\r\nb"), false, 0, 0 },
    { SLICE("a\r\n. \r\nb"), SLICE("a\r\n \r\nb"), false, 0, 0 },
    { SLICE("a\r\n.\r\n"
            "\0\x80\r\n"),
      SLICE("a\r\n"), true, 4, 0 }, /* what follows the end is not content */
};

static size_t size_all(void *ctx)
{
    return SIZE_MAX;
}

static void decodes_the_known_cases(void **state)
{
    static struct result got;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        decode_in_pieces(rows[i].in, size_all, NULL, &got);
        if (got.is_ended != rows[i].is_ended || got.defects != rows[i].defects ||
            rows[i].in.len - got.used != rows[i].left ||
            !slice_eq(slice_of(got.out, got.out_len), rows[i].out))
            fail_msg("row %zu", i);
        check_cut_everywhere(rows[i].in);
    }
}

/* The known cases behind 0 to 130 octets of plain text, so that each falls on every place of a
 * block and over its edges. */
static void decodes_them_at_every_offset(void **state)
{
    static struct result got, want;
    static char in[1024];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t pad = 0; pad < 130; pad++) {
            memset(in, 'x', pad);
            memcpy(in + pad, "\r\n", 2);
            memcpy(in + pad + 2, rows[i].in.ptr, rows[i].in.len);
            struct slice all = slice_of(in, pad + 2 + rows[i].in.len);
            reference_decode(all, &want);
            decode_in_pieces(all, size_all, NULL, &got);
            assert_same(all, &got, &want);
        }
}

/* Octets drawn from few kinds, so that CR, LF and dots meet in every way. */
static size_t fill_random(char *in, size_t max, uint64_t *x)
{
    static const char kinds[][9] = { "\r\n.", "\r\n.a", "\r\n.aaaaa", "aaaaaa\r\n", "\n.\r\x80g" };
    const char *kind = kinds[next_random(x) % ARRAY_LEN(kinds)];
    size_t len = 1 + next_random(x) % max, at = 0;
    while (at < len) {
        uint64_t r = next_random(x);
        if (r % 7 == 0 && len - at >= 5) {
            memcpy(in + at, r % 3 ? "\r\n..." : "ab\r\n.", 5);
            at += 5;
        } else {
            in[at++] = r % 61 == 0 ? '\0' : kind[r / 64 % strlen(kind)];
        }
    }
    return len;
}

static void decodes_random_input_in_random_pieces(void **state)
{
    static struct result got, want;
    static char in[700];
    uint64_t x = 0x9e3779b97f4a7c15;
    for (int round = 0; round < 20000; round++) {
        struct slice all = slice_of(in, fill_random(in, sizeof(in), &x));
        reference_decode(all, &want);
        decode_in_pieces(all, size_random, &x, &got);
        assert_same(all, &got, &want);
        decode_in_pieces(all, size_all, NULL, &got);
        assert_same(all, &got, &want);
    }
}

/* Lines around the limit, ended in every way; P-84. */
static void measures_lines(void **state)
{
    static struct result got, want;
    static const char *const ends[] = { "\r\n", "\r", "\n", "", "\r\r\n", "x\r\n.\r\n" };
    static char in[2300];
    for (size_t len = DOT_LINE_MAX - 3; len < DOT_LINE_MAX + 4; len++)
        for (size_t e = 0; e < ARRAY_LEN(ends); e++)
            for (size_t before = 0; before < 5; before++) {
                memset(in, 'a', len + before + 2);
                memcpy(in + before, "\r\n", 2);
                in[before + 2] = len % 2 ? '.' : 'a';     /* a dot that is taken off, */
                in[before + 3] = before % 2 ? '\r' : 'a'; /* and a CR held back */
                memcpy(in + before + 2 + len, ends[e], strlen(ends[e]) + 1);
                struct slice all = slice_of(in, before + 2 + len + strlen(ends[e]));
                reference_decode(all, &want);
                for (size_t size = 1; size <= all.len; size += size < 70 ? 1 : 133) {
                    decode_in_pieces(all, size_fixed, &size, &got);
                    assert_same(all, &got, &want);
                }
            }
}

static void limits_lines_to_998_octets(void **state)
{
    static struct result got;
    static char in[2300];
    memset(in, 'a', sizeof(in));
    memcpy(in + 998, "\r\n.", 3); /* 998 octets, then 998 behind a dot */
    memcpy(in + 998 + 3 + 998, "\r\n.\r\n", 5);
    decode_in_pieces(slice_of(in, 998 + 3 + 998 + 5), size_all, NULL, &got);
    assert_true(got.is_ended);
    assert_int_equal(got.defects, 0);
    in[998] = 'a'; /* the first line goes on: "a\n." */
    decode_in_pieces(slice_of(in, 998 + 3 + 998 + 5), size_all, NULL, &got);
    assert_int_equal(got.defects, DOT_BARE_LF | DOT_LONG_LINE);
}

/* A fragment without a dot to take off is one span, whatever else is in it. */
static void gives_long_spans(void **state)
{
    static struct result got;
    static char in[4096];
    for (size_t i = 0; i + 64 <= sizeof(in); i += 64) {
        memset(in + i, 'a', 62);
        memcpy(in + i + 62, "\r\n", 2);
    }
    in[100] = '\0';
    memcpy(in + 300, "\n.\r\r.", 5);
    in[500] = (char)0x80;
    decode_in_pieces(slice_of(in, sizeof(in)), size_all, NULL, &got);
    assert_int_equal(got.spans, 1);
    assert_int_equal(got.out_len, sizeof(in));
    assert_true(got.has_8bit);
}

/* Stuffs in pieces; spans may overlap in a dot. */
static size_t stuff(struct slice in, size_fn *next_size, void *ctx, char *out, size_t *spans)
{
    struct dot_stuffer s;
    size_t len = 0;
    dot_stuffer_init(&s);
    *spans = 0;
    for (size_t at = 0; at < in.len;) {
        struct slice piece = slice_head(slice_skip(in, at), next_size(ctx)), span;
        at += piece.len;
        char *copy = malloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        struct slice rest = slice_of(copy, piece.len);
        while (dot_stuff_next(&s, &rest, &span)) {
            assert_true(span.len > 0 && len + span.len <= OUT_MAX);
            memcpy(out + len, span.ptr, span.len);
            len += span.len;
            (*spans)++;
        }
        assert_int_equal(rest.len, 0);
        free(copy);
    }
    struct slice end = dot_stuff_end(&s);
    memcpy(out + len, end.ptr, end.len);
    return len + end.len;
}

/* The rule in its simplest form: a dot at the start or after LF is doubled. */
static size_t reference_stuff(struct slice in, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] == '.' && (i == 0 || in.ptr[i - 1] == '\n'))
            out[len++] = '.';
        out[len++] = in.ptr[i];
    }
    bool is_ended = in.len == 0 || (in.len >= 2 && memcmp(in.ptr + in.len - 2, "\r\n", 2) == 0);
    struct slice end = is_ended ? SLICE(".\r\n") : SLICE("\r\n.\r\n");
    memcpy(out + len, end.ptr, end.len);
    return len + end.len;
}

static void stuffs_the_known_cases(void **state)
{
    static const struct {
        struct slice in, out;
        size_t spans;
    } cases[] = {
        { SLICE(""), SLICE(".\r\n"), 0 },
        { SLICE("a\r\n"), SLICE("a\r\n.\r\n"), 1 },
        { SLICE("a"), SLICE("a\r\n.\r\n"), 1 },
        { SLICE("."), SLICE("..\r\n.\r\n"), 2 },
        { SLICE(".\r\n"), SLICE("..\r\n.\r\n"), 2 },
        { SLICE("a\r\n.b\r\n"), SLICE("a\r\n..b\r\n.\r\n"), 2 },
        { SLICE("..\r\n..\r\n"), SLICE("...\r\n...\r\n.\r\n"), 3 },
        { SLICE("a.\r\n"), SLICE("a.\r\n.\r\n"), 1 },
        /* P-78, P-184: never accepted, but if it were here */
        { SLICE("a\n.\n"), SLICE("a\n..\n\r\n.\r\n"), 2 },
        { SLICE("a\r"), SLICE("a\r\r\n.\r\n"), 1 },
    };
    static char out[OUT_MAX];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t spans, len = stuff(cases[i].in, size_all, NULL, out, &spans);
        if (!slice_eq(slice_of(out, len), cases[i].out) || spans != cases[i].spans)
            fail_msg("row %zu: '%.*s' in %zu", i, (int)len, out, spans);
    }
}

static void stuffs_random_input_in_random_pieces(void **state)
{
    static char in[700], got[OUT_MAX], want[OUT_MAX];
    uint64_t x = 88172645463325252ull;
    for (int round = 0; round < 20000; round++) {
        struct slice all = slice_of(in, fill_random(in, sizeof(in), &x));
        size_t spans, want_len = reference_stuff(all, want);
        size_t len = stuff(all, size_random, &x, got, &spans);
        assert_int_equal(len, want_len);
        assert_memory_equal(got, want, len);
        assert_int_equal(stuff(all, size_all, NULL, got, &spans), want_len);
        assert_memory_equal(got, want, len);
    }
}

/* What is accepted comes out again: decode(stuff(x)) is x for content without bare CR or LF. */
static void stuffing_and_decoding_are_inverse(void **state)
{
    static const char *const lines[] = { "", ".", "..", ".a", "a", "a.", "x\xc3\xa9" };
    static char in[700], out[OUT_MAX];
    static struct result got;
    uint64_t x = 42;
    for (int round = 0; round < 5000; round++) {
        size_t len = 0, spans;
        for (uint64_t n = next_random(&x) % 60; n > 0; n--) {
            const char *line = lines[next_random(&x) % ARRAY_LEN(lines)];
            len += (size_t)sprintf(in + len, "%s\r\n", line);
        }
        size_t out_len = stuff(slice_of(in, len), size_random, &x, out, &spans);
        decode_in_pieces(slice_of(out, out_len), size_random, &x, &got);
        assert_true(got.is_ended && got.used == out_len && got.defects == 0);
        assert_int_equal(got.out_len, len);
        assert_memory_equal(got.out, in, len);
        assert_int_equal(got.has_dot_lines, spans > 0 && out_len > len + 3);
    }
}

/* What noting tells of content is what decoding it would have told, had it come stuffed (P-98). */
static void check_note(struct slice in, size_fn *next_size, void *ctx)
{
    static struct result got, want;
    static char wire[OUT_MAX];
    struct dot_decoder d;
    size_t ignored, all = SIZE_MAX;
    size_t len = stuff(in, size_fixed, &all, wire, &ignored);
    reference_decode(slice_of(wire, len), &want);
    dot_decoder_init(&d);
    for (size_t at = 0; at < in.len;) {
        struct slice piece = slice_head(slice_skip(in, at), next_size(ctx));
        char *copy = malloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        dot_note(&d, slice_of(copy, piece.len));
        at += piece.len;
        free(copy);
    }
    dot_note_end(&d);
    got = (struct result){ .defects = d.defects, .has_8bit = d.has_8bit };
    assert_int_equal(got.defects, want.defects);
    assert_int_equal(got.has_8bit, want.has_8bit);
    assert_int_equal(d.octets, in.len);
}

static void notes_what_decoding_would(void **state)
{
    static char in[700];
    uint64_t x = 4711;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t size = 1; size <= rows[i].in.len; size++)
            check_note(rows[i].in, size_fixed, &size);
    for (int round = 0; round < 20000; round++)
        check_note(slice_of(in, fill_random(in, sizeof in, &x)), size_random, &x);
}

static void notes_lines_with_a_dot(void **state)
{
    static const struct {
        struct slice in;
        bool has_dot_lines;
    } cases[] = {
        { SLICE("."), true },     { SLICE("a.\r\n"), false }, { SLICE("a\r\n."), true },
        { SLICE("a\n."), false }, { SLICE("a\r."), false },   { SLICE("\r\n\r\n.."), true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            struct dot_decoder d;
            dot_decoder_init(&d);
            dot_note(&d, slice_head(cases[i].in, cut));
            dot_note(&d, slice_skip(cases[i].in, cut));
            assert_int_equal(d.has_dot_lines, cases[i].has_dot_lines);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_the_known_cases),
        cmocka_unit_test(decodes_them_at_every_offset),
        cmocka_unit_test(decodes_random_input_in_random_pieces),
        cmocka_unit_test(measures_lines),
        cmocka_unit_test(limits_lines_to_998_octets),
        cmocka_unit_test(gives_long_spans),
        cmocka_unit_test(notes_what_decoding_would),
        cmocka_unit_test(notes_lines_with_a_dot),
        cmocka_unit_test(stuffs_the_known_cases),
        cmocka_unit_test(stuffs_random_input_in_random_pieces),
        cmocka_unit_test(stuffing_and_decoding_are_inverse),
    };
    return cmocka_run_group_tests_name(DOT_TEST_NAME, tests, NULL, NULL);
}
