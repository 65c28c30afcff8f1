/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * bounce_inside - what the files of the bounce share: bounce.c (the whole, and its text),
 * bounce_status.c (the part for programs), bounce_words.c (how anything is written). Nobody else
 * includes it.
 */
#include "core/relay/bounce.h"

#define BOUNCE_BOUNDARY_MAX 40

struct bounce_writer {
    struct message *m;
    const struct delivery *d;
    const struct report_rcpt *rcpts;
    uint32_t rcpt_count;
    const struct bounce_context *ctx;
    const struct now *now;
    struct slice returned; /* of the original, or its header section */
    bool is_whole;         /* True when returned is all of it and clean */
    bool is_8bit;          /* True when any part has octets above 127 */
    bool is_global;        /* an address in it has: the parts of RFC 6533 */
    char boundary[BOUNCE_BOUNDARY_MAX];
};

static inline const struct rcpt *bounce_rcpt(const struct bounce_writer *w, uint32_t k)
{
    return &w->d->message->rcpts[w->d->rcpts[w->rcpts[k].i]];
}

static inline const struct rcpt_outcome *bounce_outcome(const struct bounce_writer *w, uint32_t k)
{
    return &w->d->outcomes[w->rcpts[k].i];
}

/* retry.h: what is not a permanent reply has expired, unless a rule gave it up. */
static inline bool bounce_has_expired(const struct bounce_writer *w, uint32_t k)
{
    return bounce_outcome(w, k)->code / 100 != 5 && !w->rcpts[k].is_given_up;
}

/* bounce_words.c */

void bounce_put(struct bounce_writer *w, struct slice s);
/* For what is ours and short. */
void bounce_putf(struct bounce_writer *w, const char *format, ...) PRINTF_LIKE(2, 3);
/* A peer's or client's words, made printable, bounded, and folded with `fold`. */
void bounce_put_words(struct bounce_writer *w, struct slice words, const char *fold);
/* An address, UTF-8 kept. */
void bounce_put_address(struct bounce_writer *w, struct slice address);
/* "550 5.1.1 no such user", as far as there is something of each. */
void bounce_put_reply(struct bounce_writer *w, const struct rcpt_outcome *o, const char *fold);
void bounce_put_date(struct bounce_writer *w, int64_t wall_ms);

/* bounce_status.c: the body part, its content type included. */
void bounce_write_status(struct bounce_writer *w);
