/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content - three phases, each entered once:
 *
 *     HEADER --(empty line, or a first line that is no field)--> BODY
 *        \________(a fault, a defect, over the size)___________/  \--> DOOMED
 *
 * HEADER is content_header.c's. BODY appends spans. DOOMED stores nothing and frees what was
 * stored, but still reads to the true end of data, because what follows a refused message must
 * never be taken for commands.
 *
 * Bare CR or LF, NUL, lines over 998 octets are refused with 554 at the end, never repaired (P-77,
 * P-84, P-85), in DATA and in BDAT alike. A repaired message is no longer the one that was signed,
 * and a forwarded bare LF would make us the smuggler. With BINARYMIME that holds for the header
 * section; the body may be anything, and is noted as binary only when it really is, because what is
 * not can go on by DATA (P-106). There the header section is fed line by line, so that what the
 * decoder notes can be told apart.
 *
 * What comes back to a return path is read and not stored (returned.h). It is nobody's to sign or
 * to pass on, so nothing is wrong with it but its size.
 *
 * The answer must not depend on how the octets were cut into reads. So the reasons have an order
 * (size, then the decoder's defects, then the first fault of the header section) rather than a
 * time.
 */
#include "core/smtp/content_private.h"

#include <stdlib.h>

void content_doom(struct smtp_content *c, enum reply_id fault)
{
    c->phase = PHASE_DOOMED;
    if (c->fault == REPLY_OK)
        c->fault = fault;
    chain_done(&c->message->content);
    buf_done(&c->value);
    dkim_digest_free(c->dkim);
    c->dkim = NULL;
    c->message->size = 0;
    c->message->has_key = false; /* it is not to be known again */
    memset(c->message->key, 0, sizeof c->message->key);
}

static bool is_too_big(const struct smtp_content *c)
{
    uint64_t max = c->policy.size_max; /* 0: none, as SIZE 0 says (RFC 1870 4) */
    return max && c->dot.octets > max;
}

/* Bits of enum dot_defect that count against the message. */
static unsigned defects_of(const struct smtp_content *c)
{
    return c->is_lax ? c->header_defects : c->dot.defects;
}

/* --- entry points ---------------------------------------------------------------------------- */

struct smtp_content *smtp_content_new(const struct smtp_server *server, struct message *m,
                                      const struct smtp_content_policy *policy,
                                      const struct now *now)
{
    struct smtp_content *c = mem_zalloc(sizeof *c);
    c->server = server;
    c->message = m;
    c->policy = *policy;
    c->fault = REPLY_OK;
    c->wall_ms = now->wall_ms;
    dot_decoder_init(&c->dot);
    buf_init(&c->value, CONTENT_VALUE_MAX);
    m->size = 0;
    if (!policy->reader)
        content_store_trace(c);
    c->is_lax = policy->reader != NULL;
    return c;
}

void smtp_content_free(struct smtp_content *c)
{
    if (!c)
        return;
    content_digest_free(c->digest);
    dkim_digest_free(c->dkim);
    buf_done(&c->value);
    free(c);
}

bool smtp_content_is_body(const struct smtp_content *c)
{
    return c->phase == PHASE_BODY;
}

static inline void take_body(struct smtp_content *c, struct slice span)
{
    content_store(c, span);
    if (c->digest)
        content_digest_update(c->digest, span);
    if (c->dkim)
        dkim_digest_update(c->dkim, span);
}

static inline void take_span(struct smtp_content *c, struct slice span)
{
    if (c->policy.reader)
        returned_read(c->policy.reader, span);
    if (c->policy.reader || c->phase == PHASE_DOOMED)
        return;
    if (defects_of(c) || is_too_big(c)) {
        content_doom(c, REPLY_OK); /* the decoder knows why */
        return;
    }
    if (c->phase == PHASE_HEADER)
        span = content_walk_header(c, span);
    if (c->phase == PHASE_BODY)
        take_body(c, span);
}

enum dot_event smtp_content_feed(struct smtp_content *c, struct slice in, size_t *used)
{
    struct slice span;
    size_t n, total = 0;
    enum dot_event event;
    while ((event = dot_decode(&c->dot, slice_skip(in, total), &n, &span)) == DOT_SPAN) {
        total += n;
        take_span(c, span);
    }
    *used = total + n;
    return event;
}

/* With BINARYMIME, a line of the header section or a part of one. Its defects count when it turns
 * out to be a field's, and when it is the line that dooms the message. */
static void take_header_line(struct smtp_content *c, struct slice part)
{
    dot_note(&c->dot, part);
    if (c->phase == PHASE_HEADER) {
        struct slice rest = content_walk_header(c, part);
        if (c->phase == PHASE_BODY) {
            c->is_lax = true;
            take_body(c, rest);
        }
        if (defects_of(c) || is_too_big(c))
            content_doom(c, REPLY_OK);
    }
    if (c->phase == PHASE_DOOMED && !c->is_lax && part.ptr[part.len - 1] == '\n') {
        c->is_lax = true;
        c->header_defects = c->dot.defects;
    }
}

void smtp_content_feed_chunk(struct smtp_content *c, struct slice in)
{
    while (c->policy.is_binary && !c->is_lax && in.len > 0) {
        struct slice part = slice_head(in, slice_find(in, '\n') + 1);
        take_header_line(c, part);
        in = slice_skip(in, part.len);
    }
    if (in.len == 0)
        return;
    dot_note(&c->dot, in);
    take_span(c, in);
}

/* --- the end --------------------------------------------------------------------------------- */

/* Why the content is refused; REPLY_OK: it is not. */
static enum reply_id refusal(const struct smtp_content *c)
{
    unsigned defects = defects_of(c);
    if (is_too_big(c))
        return REPLY_TOO_BIG; /* only now, and the session goes on (P-57) */
    if (defects & DOT_NUL)
        return REPLY_NUL_IN_CONTENT;
    if (defects & (DOT_BARE_CR | DOT_BARE_LF))
        return REPLY_BARE_CR_LF;
    if (defects & DOT_LONG_LINE)
        return REPLY_CONTENT_LINE_TOO_LONG;
    return c->fault;
}

static bool is_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return true;
    return false;
}

static bool envelope_is_8bit(const struct message *m)
{
    bool found = is_8bit(m->sender);
    for (uint32_t i = 0; i < m->rcpt_count && !found; i++)
        found = is_8bit(m->rcpts[i].address);
    return found;
}

/* What the next hop must be able to do (P-60, P-106, RFC 6531 3.2). What MAIL said and nothing
 * needs is taken back, so that it cannot make a delivery fail. */
static void set_flags(struct smtp_content *c)
{
    struct message *m = c->message;
    m->flags &= ~(uint32_t)(MESSAGE_BINARY | MESSAGE_UTF8);
    if (c->dot.has_8bit)
        m->flags |= MESSAGE_8BIT;
    if (c->dot.has_dot_lines)
        m->flags |= MESSAGE_DOT_LINES;
    if (c->dot.defects)
        m->flags |= MESSAGE_BINARY; /* only a binary body may have any */
    if ((c->seen & FIELD_TLS_WAIVED) && !(m->flags & MESSAGE_REQUIRE_TLS))
        m->flags |= MESSAGE_TLS_OPTIONAL;
    if (c->policy.is_utf8 && (c->header_is_8bit || envelope_is_8bit(m)))
        m->flags |= MESSAGE_UTF8;
}

enum reply_id smtp_content_finish(struct smtp_content *c, const struct now *now)
{
    dot_note_end(&c->dot);
    if (c->policy.reader)
        return is_too_big(c) ? REPLY_TOO_BIG : REPLY_OK;
    if (c->phase == PHASE_HEADER)
        content_end_in_header(c);
    enum reply_id why = refusal(c);
    if (why != REPLY_OK) {
        content_doom(c, why);
        return why;
    }
    must(c->phase == PHASE_BODY);
    c->message->accepted_ms = now->wall_ms;
    set_flags(c);
    if (c->digest)
        content_digest_end(c->digest, c->message);
    if (c->dkim)
        dkim_digest_end(c->dkim);
    c->message->dkim = c->dkim;
    c->dkim = NULL;
    return REPLY_OK;
}
