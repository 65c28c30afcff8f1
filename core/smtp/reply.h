/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * reply - both directions: the server's rows (reply_table.h) to bytes, and a peer's bytes to a
 * struct smtp_reply. A 550 from a peer is data, never an error of ours.
 */
#include "core/base/buf.h"
#include "core/smtp/reply_table.h"

#define SMTP_REPLY_LINE_MAX   2048        /* octets of one line we accept from a peer (P-165) */
#define SMTP_REPLY_LINES_MAX  128         /* lines of one reply */
#define SMTP_REPLY_OCTETS_MAX (64 * 1024) /* octets of all its lines */
#define SMTP_REPLY_TEXT_MAX   512         /* octets of text we keep of it, with a NUL at the end */

int reply_code(enum reply_id id);
/* Appends the reply as one line: "250 2.1.0 Sender ok\r\n". */
NODISCARD enum status reply_write(struct buf *out, enum reply_id id);
/* The same with text after the enhanced code instead of the row's; text is ours, never a peer's
 * (P-22), and short enough for a line of 512 octets. */
NODISCARD enum status reply_write_text(struct buf *out, enum reply_id id, struct slice text);

/* A whole reply of a peer. */
struct smtp_reply {
    int code;          /* 200 to 599; 0: none was seen */
    char enhanced[12]; /* "5.1.1"; "" when absent or of another class (P-166) */
    uint16_t text_len;
    char text[SMTP_REPLY_TEXT_MAX]; /* lines joined by one space, their enhanced codes taken off;
                                       controls and 8-bit made '?'; ends in a NUL */
};

static inline bool smtp_reply_is_positive(const struct smtp_reply *r)
{
    return r->code / 100 == 2;
}
static inline bool smtp_reply_is_transient(const struct smtp_reply *r)
{
    return r->code / 100 == 4;
}
static inline bool smtp_reply_is_permanent(const struct smtp_reply *r)
{
    return r->code / 100 == 5;
}

/* Collects one reply at a time, from input cut anywhere. Bounded: what does not fit is dropped. */
struct reply_parser {
    struct smtp_reply reply; /* being built; a verdict only after DONE (P-167) */
    struct buf line;         /* the current line so far; memory only while one is unfinished */
    bool line_is_over;       /* private: `line` is whole and was given out as text */
    uint32_t lines;          /* lines of the current reply so far; 0: between replies */
    uint32_t octets;         /* private: of those lines */
};

enum reply_event {
    REPLY_EVENT_MORE,    /* all input was taken, no reply is complete */
    REPLY_EVENT_LINE,    /* one more line "250-..." of an unfinished reply; see line text below */
    REPLY_EVENT_DONE,    /* parser->reply is complete */
    REPLY_EVENT_INVALID, /* not an SMTP reply, over a limit, or lines of different classes: drop
                            the connection and defer (P-165, P-187) */
};

void reply_parser_init(struct reply_parser *p);
void reply_parser_done(struct reply_parser *p);
/* Takes input up to the end of one line at most; *used says how much. For LINE and DONE, *text is
 * that line's text after the code, printable (borrowed from the parser or from `in`, until the next
 * call or until `in` changes). Not to be called again after INVALID. */
enum reply_event reply_parser_feed(struct reply_parser *p, struct slice in, size_t *used,
                                   struct slice *text);
