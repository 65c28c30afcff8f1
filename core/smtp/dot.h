/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * dot - the end of data and the dots that hide it (RFC 5321 4.5.2), in both directions.
 *
 * Inwards, only CR LF "." CR LF ends the content (P-75, P-76). The decoder walks 64 octets at a
 * time over bit masks of CR, LF, NUL and 8-bit octets, so one pass finds the end, removes dots and
 * notes every defect; content is handed out as spans of the input, never copied.
 * Outwards, dot_stuffer cuts spans where a dot must be added: the span before ends with the dot,
 * the span after begins with the same octet.
 */
#include "core/base/slice.h"
#include <stdint.h>

#define DOT_LINE_MAX 998 /* octets of a content line without CR LF, RFC 5321 4.5.3.1.6 */

/* Defects of the content, noted and refused at the end of data, never repaired. */
enum dot_defect {
    DOT_BARE_CR = 1 << 0,
    DOT_BARE_LF = 1 << 1,
    DOT_NUL = 1 << 2,
    DOT_LONG_LINE = 1 << 3, /* over DOT_LINE_MAX octets, the dot taken off not counted */
};

enum dot_event {
    DOT_SPAN, /* *out holds decoded content; call again with the rest */
    DOT_MORE, /* all input was taken */
    DOT_END,  /* the end of data was found; the octets after it are commands */
};

struct dot_decoder {
    uint8_t state;      /* what the last octets were; see dot.c */
    uint8_t defects;    /* bits of enum dot_defect */
    bool has_8bit;      /* an octet above 127 was seen */
    bool has_dot_lines; /* a line of the decoded content begins with a dot */
    uint32_t line_len;  /* octets of the unfinished line */
    uint64_t octets;    /* decoded so far, CR LF as two (P-57) */
};

void dot_decoder_init(struct dot_decoder *d);
/* Decodes from the start of `in`. *used: octets of `in` taken by this call; *out: content, pointing
 * into `in` or to a static octet that an earlier call held back. */
enum dot_event dot_decode(struct dot_decoder *d, struct slice in, size_t *used, struct slice *out);
/* Takes all of `in` as content in which a dot is an octet like any other (BDAT, P-98), and notes
 * the same things about it. One content is decoded or noted, never both. */
void dot_note(struct dot_decoder *d, struct slice in);
/* The content ends here: a CR that was held to be half of CR LF is a bare one. */
void dot_note_end(struct dot_decoder *d);

struct dot_stuffer {
    bool at_line_start; /* True at the very start and after LF (see dot.c) */
    bool is_terminated; /* True at the very start and after CR LF */
    bool after_cr;
};

void dot_stuffer_init(struct dot_stuffer *s);
/* The next span to send; *rest becomes what is still to be looked at. Spans point into *rest as
 * given and may overlap in one dot. False when *rest is empty: give the next piece, or the end. The
 * pieces of one content may be cut anywhere. */
bool dot_stuff_next(struct dot_stuffer *s, struct slice *rest, struct slice *out);
/* What must follow the last span: ".\r\n", or "\r\n.\r\n" when the content did not end in CR LF. */
struct slice dot_stuff_end(const struct dot_stuffer *s);
