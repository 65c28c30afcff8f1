/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dot - the end of data and the dots that hide it, in both directions.
 *
 * Inwards. Content is read in blocks of up to 64 octets. For each block five bit masks are made
 * (CR, LF, '.', NUL, 8-bit); everything else is arithmetic on them, so an ordinary block costs no
 * branch that depends on its content. The scan stops at one thing only: a dot at the start of a
 * line. What stands before it goes out as one span; the next call looks at the dot.
 *
 * Decoder states, which say what the last octets were:
 *
 *     START   nothing yet, or CR LF
 *     INSIDE  anything else
 *     CR      a CR inside a line
 *     DOT     a dot at the start of a line: taken off, given to nobody
 *     DOT_CR  ... and then a CR, held back: with an LF it is the end of data, otherwise content
 *
 * Only START makes a dot special, and only CR LF leads to START: LF "." LF, CR "." CR, LF "." CR LF
 * and their kin never end the content (P-75, P-76). A bare CR or LF, a NUL and a line over the
 * limit are noted as defects and handed on as they are; the session refuses the message at its
 * end. All state is in the decoder, so cuts may fall anywhere (P-79).
 *
 * A chunk of BDAT has no dots to take off and no end to find (P-98); dot_note makes the same walk
 * without the stop, through START, INSIDE and CR only.
 *
 * Outwards. A dot is doubled at the start of the content and after every LF, CR before it or not.
 * Content that was accepted has no bare LF, so this is the rule of RFC 5321 4.5.2; should one ever
 * get here, a peer that takes LF for a line end must not see a lone dot (P-78, P-184). Doubling is
 * done by letting two spans overlap in the dot, so nothing is copied.
 *
 * SSE2 makes the masks on x86-64; elsewhere a plain loop does. The tests build both (DOT_SCALAR).
 * To add a defect: a mask in struct masks, both makers, and a line in note_block.
 */
#include "core/smtp/dot.h"

#if defined(__SSE2__) && !defined(DOT_SCALAR)
#include <emmintrin.h>
#define DOT_SSE2 1
#else
#define DOT_SSE2 0
#endif

#define BLOCK 64

/* More than any line may have, less than what could overflow. */
#define LINE_LEN_CLIP (1u << 30)

enum { START, INSIDE, CR, DOT, DOT_CR };

/* Bit i speaks of octet i of a block. */
struct masks {
    uint64_t cr, lf, dot, nul, high;
};

#if DOT_SSE2
static inline uint64_t eq_mask(const __m128i v[4], char c)
{
    const __m128i want = _mm_set1_epi8(c);
    uint64_t m0 = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[0], want));
    uint64_t m1 = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[1], want));
    uint64_t m2 = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[2], want));
    uint64_t m3 = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[3], want));
    return m0 | m1 << 16 | m2 << 32 | m3 << 48;
}

/* One movemask tells whether any of the 64 octets is NUL or 8-bit; only then are there four. */
static inline struct masks full_block_masks(const char *p)
{
    __m128i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
    struct masks m = { eq_mask(v, '\r'), eq_mask(v, '\n'), eq_mask(v, '.'), 0, 0 };
    /* As signed octets, plain text is 1 to 127: exactly what is above 0. */
    __m128i least = _mm_min_epu8(_mm_min_epu8(v[0], v[1]), _mm_min_epu8(v[2], v[3]));
    __m128i any = _mm_or_si128(_mm_or_si128(v[0], v[1]), _mm_or_si128(v[2], v[3]));
    __m128i odd = _mm_or_si128(_mm_cmpeq_epi8(least, _mm_setzero_si128()), any);
    if (_mm_movemask_epi8(odd) == 0)
        return m;
    m.nul = eq_mask(v, '\0');
    for (int i = 0; i < 4; i++)
        m.high |= (uint64_t)(uint32_t)_mm_movemask_epi8(v[i]) << (16 * i);
    return m;
}
#else
static inline struct masks full_block_masks(const char *p)
{
    struct masks m = { 0 };
    for (unsigned i = 0; i < BLOCK; i++) {
        m.cr |= (uint64_t)(p[i] == '\r') << i;
        m.lf |= (uint64_t)(p[i] == '\n') << i;
        m.dot |= (uint64_t)(p[i] == '.') << i;
        m.nul |= (uint64_t)(p[i] == '\0') << i;
        m.high |= (uint64_t)((unsigned char)p[i] > 127) << i;
    }
    return m;
}
#endif

/* The lowest n bits; n is 0 to 64. */
static inline uint64_t low_bits(unsigned n)
{
    return n < 64 ? (1ull << n) - 1 : ~0ull;
}

static inline struct masks masks_head(struct masks m, unsigned n)
{
    uint64_t keep = low_bits(n);
    return (struct masks){ m.cr & keep, m.lf & keep, m.dot & keep, m.nul & keep, m.high & keep };
}

/* A block of n octets, 1 to 64. A short one is looked at in a copy, never read past its end. */
static inline struct masks block_masks(const char *p, unsigned n)
{
    char copy[BLOCK] = { 0 };
    if (n == BLOCK)
        return full_block_masks(p);
    memcpy(copy, p, n);
    return masks_head(full_block_masks(copy), n);
}

/* `ends` are the LFs of the block that end a line. Lines that lie inside a block are short. */
static inline void note_lines(struct dot_decoder *d, uint64_t ends, unsigned n)
{
    if (ends == 0) {
        d->line_len = d->line_len + n < LINE_LEN_CLIP ? d->line_len + n : LINE_LEN_CLIP;
        return;
    }
    uint32_t with_cr = d->line_len + (unsigned)__builtin_ctzll(ends);
    if (with_cr > DOT_LINE_MAX + 1)
        d->defects |= DOT_LONG_LINE;
    d->line_len = n - 1 - (63 - (unsigned)__builtin_clzll(ends));
}

/* Takes n octets of content into account; no dot at the start of a line is among them. */
static inline void note_block(struct dot_decoder *d, struct masks m, unsigned n)
{
    uint64_t after_cr = m.cr << 1 | (d->state == CR);
    uint64_t ends = m.lf & after_cr;
    uint64_t last = 1ull << (n - 1);
    if (m.lf & ~after_cr)
        d->defects |= DOT_BARE_LF;
    if (after_cr & ~m.lf & low_bits(n))
        d->defects |= DOT_BARE_CR;
    if (m.nul)
        d->defects |= DOT_NUL;
    if (m.high)
        d->has_8bit = true;
    note_lines(d, ends, n);
    d->state = m.cr & last ? CR : ends & last ? START : INSIDE;
}

/* How many octets lie before the first dot at the start of a line; n when there is none. */
static inline unsigned octets_before_dot(const struct dot_decoder *d, struct masks m, unsigned n)
{
    uint64_t ends = m.lf & (m.cr << 1 | (d->state == CR));
    uint64_t hits = m.dot & (ends << 1 | (d->state == START));
    return hits ? (unsigned)__builtin_ctzll(hits) : n;
}

/* A CR at the end of the unfinished line may be part of its end. */
static inline void note_unfinished_line(struct dot_decoder *d)
{
    if (d->line_len - (d->state == CR) > DOT_LINE_MAX)
        d->defects |= DOT_LONG_LINE;
}

/* Walks content from `at` on; returns where it stopped: at the end of the input or at a dot at the
 * start of a line (state START). */
static size_t walk_content(struct dot_decoder *walking, struct slice in, size_t at)
{
    struct dot_decoder d = *walking; /* in registers */
    while (at < in.len) {
        unsigned n = in.len - at < BLOCK ? (unsigned)(in.len - at) : BLOCK;
        struct masks m = block_masks(in.ptr + at, n);
        unsigned plain = octets_before_dot(&d, m, n);
        if (plain > 0)
            note_block(&d, plain < n ? masks_head(m, plain) : m, plain);
        at += plain;
        if (plain < n)
            break;
    }
    note_unfinished_line(&d);
    *walking = d;
    return at;
}

/* The CR held back after a dot turned out to be content. */
static enum dot_event give_held_cr(struct dot_decoder *d, struct slice *out)
{
    d->state = CR;
    d->line_len = 1;
    d->octets++;
    *out = SLICE("\r");
    return DOT_SPAN;
}

/* The octet that follows a dot at the start of a line, or that dot and a CR. Moves the state to
 * INSIDE when content goes on. */
static enum dot_event after_dot(struct dot_decoder *d, char c, size_t *at, struct slice *out)
{
    if (d->state == DOT_CR) {
        if (c != '\n')
            return give_held_cr(d, out);
        d->state = START;
        (*at)++;
        return DOT_END;
    }
    if (c == '\r') {
        d->state = DOT_CR;
        (*at)++;
    } else {
        d->has_dot_lines = d->has_dot_lines || c == '.';
        d->state = INSIDE;
    }
    return DOT_MORE;
}

void dot_decoder_init(struct dot_decoder *d)
{
    *d = (struct dot_decoder){ .state = START };
}

enum dot_event dot_decode(struct dot_decoder *d, struct slice in, size_t *used, struct slice *out)
{
    size_t at = 0;
    enum dot_event event = DOT_MORE;
    *out = SLICE_NONE;
    if (d->state == START && in.len > 0 && in.ptr[0] == '.') {
        d->state = DOT;
        at = 1;
    }
    while ((d->state == DOT || d->state == DOT_CR) && at < in.len && event == DOT_MORE)
        event = after_dot(d, in.ptr[at], &at, out);
    if (event == DOT_MORE && d->state != DOT && d->state != DOT_CR) {
        size_t start = at;
        at = walk_content(d, in, at);
        if (at > start) {
            *out = slice_of(in.ptr + start, at - start);
            d->octets += out->len;
            event = DOT_SPAN;
        }
    }
    *used = at;
    return event;
}

void dot_note(struct dot_decoder *noting, struct slice in)
{
    struct dot_decoder d = *noting; /* in registers */
    for (size_t at = 0; at < in.len; at += BLOCK) {
        unsigned n = in.len - at < BLOCK ? (unsigned)(in.len - at) : BLOCK;
        struct masks m = block_masks(in.ptr + at, n);
        if (octets_before_dot(&d, m, n) < n)
            d.has_dot_lines = true;
        note_block(&d, m, n);
    }
    note_unfinished_line(&d);
    d.octets += in.len;
    *noting = d;
}

void dot_note_end(struct dot_decoder *d)
{
    if (d->state == CR)
        d->defects |= DOT_BARE_CR;
}

void dot_stuffer_init(struct dot_stuffer *s)
{
    *s = (struct dot_stuffer){ .at_line_start = true, .is_terminated = true };
}

/* Offset of the first dot that follows an LF, looking at octets from 1 on; len when there is none.
 * A pair shows as one bit when the block is laid over itself, one octet on. */
static size_t find_dot_after_lf(struct slice s)
{
    size_t at = 1;
#if DOT_SSE2
    const __m128i lf = _mm_set1_epi8('\n'), dot = _mm_set1_epi8('.');
    for (; at + BLOCK <= s.len; at += BLOCK) {
        __m128i pair[4], any = _mm_setzero_si128();
        for (int i = 0; i < 4; i++) {
            const char *p = s.ptr + at + 16 * i;
            __m128i here = _mm_loadu_si128((const __m128i *)(const void *)p);
            __m128i before = _mm_loadu_si128((const __m128i *)(const void *)(p - 1));
            pair[i] = _mm_and_si128(_mm_cmpeq_epi8(here, dot), _mm_cmpeq_epi8(before, lf));
            any = _mm_or_si128(any, pair[i]);
        }
        if (_mm_movemask_epi8(any) != 0)
            break; /* the loop below finds which */
    }
#endif
    for (; at < s.len; at++)
        if (s.ptr[at] == '.' && s.ptr[at - 1] == '\n')
            return at;
    return s.len;
}

/* Remembers how what was given so far ends. */
static void note_given(struct dot_stuffer *s, struct slice out)
{
    char last = out.ptr[out.len - 1];
    bool cr_before = out.len > 1 ? out.ptr[out.len - 2] == '\r' : s->after_cr;
    s->is_terminated = last == '\n' && cr_before;
    s->at_line_start = last == '\n';
    s->after_cr = last == '\r';
}

bool dot_stuff_next(struct dot_stuffer *s, struct slice *rest, struct slice *out)
{
    if (rest->len == 0)
        return false;
    bool is_due = s->at_line_start && rest->ptr[0] == '.';
    size_t dot_at = is_due ? 0 : find_dot_after_lf(*rest);
    /* Up to the dot and with it. The next span begins with the same dot, which stands no longer at
     * the start of a line: it follows itself. */
    *out = slice_head(*rest, dot_at + 1);
    *rest = slice_skip(*rest, dot_at);
    note_given(s, *out);
    return true;
}

struct slice dot_stuff_end(const struct dot_stuffer *s)
{
    return s->is_terminated ? SLICE(".\r\n") : SLICE("\r\n.\r\n");
}
