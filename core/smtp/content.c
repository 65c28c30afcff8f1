/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content - three phases, each entered once:
 *
 *     HEADER --(empty line, or a first line that is no field)--> BODY
 *        \________(a fault, a defect, over the size)___________/  \--> DOOMED
 *
 * HEADER walks line by line, but copies runs of lines: octets are stored when a span ends or when
 * something must be left out. Only the name of a field is kept aside. A line that a span's end cuts
 * before its kind is known is stored, with a mark to go back to. Fields that are stripped (P-96)
 * are never stored or are cut off again, with their continuation lines.
 * BODY appends spans. DOOMED stores nothing and frees what was stored, but still reads to the true
 * end of data, because what follows a refused message must never be taken for commands.
 *
 * Choices where the checklist leaves one:
 *   - Bare CR or LF, NUL, lines over 998 octets: refused with 554 after the final dot, never
 *     repaired (P-77, P-84, P-85). A repaired message is no longer the one that was signed, and a
 *     forwarded bare LF would make us the smuggler.
 *   - A first line that is no header field: everything is body (P-87). A later one, a fold before
 *     any field, a space before the colon: refused (P-88), since readers disagree about them.
 *   - Missing From: added from the envelope sender; with a null sender refused (P-90).
 *   - Fields that exist are never touched, whether of the original or of a resent block (P-95);
 *     two of From, Sender, Subject, Date or To are refused (P-89).
 *
 * The answer must not depend on how the octets were cut into reads. So the reasons have an order
 * (size, then the decoder's defects, then the first fault of the header section) rather than a
 * time.
 */
#include "core/smtp/content.h"
#include "core/base/must.h"
#include <stdlib.h>

#define NAME_MAX_KEPT                                                                              \
    12 /* the longest name in fields[], and one more to tell longer ones apart                     \
        */
#define LINE_MAX_HELD DOT_LINE_MAX

enum phase { PHASE_HEADER, PHASE_BODY, PHASE_DOOMED };

enum line_state {
    LINE_START, /* before the first octet of a line */
    LINE_NAME,  /* in what may be a field's name */
    LINE_SPACE, /* in white space between a name and, perhaps, its colon */
    LINE_VALUE, /* behind the colon, or in a continuation line */
    LINE_EMPTY, /* behind the CR of what is going to be the empty line */
};

struct smtp_content {
    const struct smtp_server *server; /* borrowed */
    struct message *message;          /* borrowed */
    struct smtp_content_policy policy;
    struct dot_decoder dot;
    enum phase phase;
    enum line_state line;
    enum reply_id fault; /* the first of the header section; REPLY_OK: none */
    bool is_stripping;   /* the field being read is left out, its continuation lines too */
    bool line_is_stored; /* The line's start lies in the chain, at line_mark. */
    uint8_t name_len;    /* octets of name; NAME_MAX_KEPT: longer than any that matters */
    char name[NAME_MAX_KEPT];
    uint32_t seen; /* bits of enum field_bit */
    uint32_t fields, received;
    uint64_t header_octets;      /* in spans that are done with */
    struct chain_mark line_mark; /* meaningful with line_is_stored */
    int64_t wall_ms;             /* when DATA came: the date of the fields we write */
};

/* A span on its way through the header section. */
struct cursor {
    struct slice span;
    size_t at;   /* next octet to look at */
    size_t kept; /* octets before this one are stored or left out */
    size_t line; /* where the current line starts; meaningless with line_is_stored */
};

enum field_rule { FIELD_NOTED, FIELD_ONCE, FIELD_STRIPPED, FIELD_COUNTED };
enum field_bit {
    FIELD_DATE = 1 << 0,
    FIELD_MESSAGE_ID = 1 << 1,
    FIELD_FROM = 1 << 2,
    FIELD_SENDER = 1 << 3,
    FIELD_SUBJECT = 1 << 4,
    FIELD_TO = 1 << 5,
};

static const struct field {
    struct slice name;
    enum field_rule rule;
    uint32_t bit; /* 0: nobody asks whether it was there */
} fields[] = {
    { { "Received", 8 }, FIELD_COUNTED, 0 },
    { { "Date", 4 }, FIELD_ONCE, FIELD_DATE },
    { { "From", 4 }, FIELD_ONCE, FIELD_FROM },
    { { "To", 2 }, FIELD_ONCE, FIELD_TO },
    { { "Subject", 7 }, FIELD_ONCE, FIELD_SUBJECT },
    { { "Sender", 6 }, FIELD_ONCE, FIELD_SENDER },
    { { "Message-ID", 10 }, FIELD_NOTED, FIELD_MESSAGE_ID },
    { { "Bcc", 3 }, FIELD_STRIPPED, 0 },
    { { "Resent-Bcc", 10 }, FIELD_STRIPPED, 0 },
    { { "Return-Path", 11 }, FIELD_STRIPPED, 0 },
};

/* --- storing --------------------------------------------------------------------------------- */

static inline void store(struct smtp_content *c, struct slice s)
{
    c->message->size += s.len;
    chain_append(&c->message->content, s);
}

static void store_all(struct smtp_content *c, const struct slice *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store(c, parts[i]);
}

/* Back to where the line began; only while nothing was taken from the front. */
static void unstore_line(struct smtp_content *c)
{
    chain_truncate(&c->message->content, c->line_mark);
    c->message->size = c->message->content.len;
    c->line_is_stored = false;
}

static void doom(struct smtp_content *c, enum reply_id fault)
{
    c->phase = PHASE_DOOMED;
    if (c->fault == REPLY_OK)
        c->fault = fault;
    chain_done(&c->message->content);
    c->message->size = 0;
}

static bool is_too_big(const struct smtp_content *c)
{
    uint64_t max = c->policy.size_max; /* 0: none, as SIZE 0 says (RFC 1870 4) */
    return max && c->dot.octets > max;
}

/* --- the fields we write --------------------------------------------------------------------- */

#define STORE(c, ...)                                                                              \
    store_all(c, (const struct slice[]){ __VA_ARGS__ },                                            \
              sizeof((const struct slice[]){ __VA_ARGS__ }) / sizeof(struct slice))

/* RFC 5321 4.4. "for" only when it betrays nobody (P-92); RFC 3848 names what follows "with"
 * (P-93). The comment carries no version. */
static void store_trace(struct smtp_content *c, bool is_esmtp)
{
    const struct message *m = c->message;
    char date[CLOCK_DATE_MAX];
    struct slice now = slice_of(date, clock_format_rfc5322(c->wall_ms, date));
    STORE(c, SLICE("Received: from "), m->helo, SLICE(" (["), m->client, SLICE("])\r\n\tby "),
          c->server->hostname,
          is_esmtp ? SLICE(" (Kilat) with ESMTP id ") : SLICE(" (Kilat) with SMTP id "),
          slice_of(m->id, QUEUE_ID_LEN));
    if (m->rcpt_count == 1)
        STORE(c, SLICE("\r\n\tfor <"), m->rcpts[0].address, SLICE(">; "), now, SLICE("\r\n"));
    else
        STORE(c, SLICE(";\r\n\t"), now, SLICE("\r\n"));
}

static void store_date(struct smtp_content *c)
{
    char date[CLOCK_DATE_MAX];
    STORE(c, SLICE("Date: "), slice_of(date, clock_format_rfc5322(c->wall_ms, date)),
          SLICE("\r\n"));
}

/* The header section is over: adds what it lacks (P-90, P-95) and goes on to the body. */
static void end_header(struct smtp_content *c)
{
    const struct message *m = c->message;
    if (!(c->seen & FIELD_FROM) && m->sender.len == 0) {
        doom(c, REPLY_NO_FROM);
        return;
    }
    if (!(c->seen & FIELD_DATE))
        store_date(c);
    if (!(c->seen & FIELD_MESSAGE_ID))
        STORE(c, SLICE("Message-ID: <"), slice_of(m->id, QUEUE_ID_LEN), SLICE("@"),
              c->server->hostname, SLICE(">\r\n"));
    if (!(c->seen & FIELD_FROM))
        STORE(c, SLICE("From: "), m->sender, SLICE("\r\n"));
    c->phase = PHASE_BODY;
}

/* --- the header section ---------------------------------------------------------------------- */

static bool is_white(char octet)
{
    return octet == ' ' || octet == '\t';
}

/* Stores all lines before the current one, and makes sure that nothing of this one is. */
static void store_to_line(struct smtp_content *c, struct cursor *cur)
{
    if (c->line_is_stored) {
        unstore_line(c);
        return;
    }
    store(c, slice_of(cur->span.ptr + cur->kept, cur->line - cur->kept));
    cur->kept = cur->line;
}

/* The octets of the current line that an earlier span brought. */
static struct slice copy_line(const struct smtp_content *c, char out[LINE_MAX_HELD])
{
    size_t len = 0;
    uint32_t from = c->line_mark.seg_len;
    for (const struct chain_seg *seg = c->line_mark.seg; seg; seg = seg->next, from = 0) {
        memcpy(out + len, seg->data + from, seg->len - from);
        len += seg->len - from;
    }
    return slice_of(out, len);
}

/* The line that cur->at is in has no field name. */
static void on_no_field(struct smtp_content *c, struct cursor *cur)
{
    char held[LINE_MAX_HELD];
    struct slice line = SLICE_NONE;
    if (c->fields > 0) {
        doom(c, REPLY_BAD_HEADER);
        return;
    }
    if (c->line_is_stored) {
        /* Longer ones have the decoder's defect, and it decides the reply. */
        if (c->message->content.len - c->line_mark.len > sizeof held) {
            doom(c, REPLY_CONTENT_LINE_TOO_LONG);
            return;
        }
        line = copy_line(c, held);
    }
    store_to_line(c, cur);
    end_header(c);
    if (c->phase == PHASE_BODY)
        STORE(c, SLICE("\r\n"), line);
}

static const struct field *find_field(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (slice_eq_nocase(name, fields[i].name))
            return &fields[i];
    return NULL;
}

/* The colon was found: which field is it? */
static void on_field(struct smtp_content *c, struct cursor *cur)
{
    c->line = LINE_VALUE;
    if (++c->fields > SMTP_HEADER_FIELDS_MAX) {
        doom(c, REPLY_HEADER_TOO_BIG);
        return;
    }
    const struct field *field = find_field(slice_of(c->name, c->name_len));
    if (!field)
        return;
    if (field->rule == FIELD_ONCE && (c->seen & field->bit))
        doom(c, REPLY_DUPLICATE_HEADER);
    else if (field->rule == FIELD_COUNTED && ++c->received >= c->server->limits.received_max)
        doom(c, REPLY_LOOP); /* P-91 */
    else if (field->rule == FIELD_STRIPPED) {
        store_to_line(c, cur);
        c->is_stripping = true;
    }
    c->seen |= field->bit;
}

static void on_line_start(struct smtp_content *c, struct cursor *cur)
{
    char first = cur->span.ptr[cur->at];
    if (is_white(first)) {
        c->line = LINE_VALUE;
        if (c->fields == 0)
            doom(c, REPLY_BAD_HEADER);
        return;
    }
    if (c->is_stripping)
        cur->kept = cur->at;
    c->is_stripping = false;
    c->line_is_stored = false;
    cur->line = cur->at;
    c->name_len = 0;
    c->line = first == '\r' ? LINE_EMPTY : LINE_NAME;
    if (first == '\r')
        cur->at++;
}

/* RFC 5322 3.6.8: a name is printable octets other than the colon. */
static void on_name(struct smtp_content *c, struct cursor *cur)
{
    while (cur->at < cur->span.len) {
        char octet = cur->span.ptr[cur->at];
        if (octet == ':' && c->name_len > 0) {
            on_field(c, cur);
            return;
        }
        if (is_white(octet) && c->name_len > 0) {
            c->line = LINE_SPACE;
            return;
        }
        if (octet <= ' ' || octet > '~' || octet == ':') {
            on_no_field(c, cur);
            return;
        }
        if (c->name_len < NAME_MAX_KEPT)
            c->name[c->name_len++] = octet;
        cur->at++;
    }
}

static void on_space(struct smtp_content *c, struct cursor *cur)
{
    while (cur->at < cur->span.len && is_white(cur->span.ptr[cur->at]))
        cur->at++;
    if (cur->at == cur->span.len)
        return;
    if (cur->span.ptr[cur->at] == ':')
        doom(c, REPLY_BAD_HEADER); /* "Subject : x" is a field to some readers only (P-88) */
    else
        on_no_field(c, cur);
}

static void on_value(struct smtp_content *c, struct cursor *cur)
{
    struct slice rest = slice_skip(cur->span, cur->at);
    size_t len = slice_find(rest, '\n');
    cur->at += len;
    if (len == rest.len)
        return;
    cur->at++;
    c->line = LINE_START;
    if (c->header_octets + cur->at > c->server->limits.header_size_max)
        doom(c, REPLY_HEADER_TOO_BIG); /* P-86 */
}

static void on_empty(struct smtp_content *c, struct cursor *cur)
{
    if (cur->span.ptr[cur->at] != '\n') {
        doom(c, REPLY_BAD_HEADER); /* a bare CR, which the decoder has noted */
        return;
    }
    cur->at++;
    store_to_line(c, cur);
    cur->kept = cur->at;
    end_header(c);
    if (c->phase == PHASE_BODY)
        store(c, SLICE("\r\n"));
}

/* The span ends inside the header section. */
static void end_span(struct smtp_content *c, struct cursor *cur)
{
    bool is_undecided = c->line == LINE_NAME || c->line == LINE_SPACE || c->line == LINE_EMPTY;
    c->header_octets += cur->span.len;
    if (c->is_stripping)
        return;
    if (is_undecided && !c->line_is_stored) {
        store_to_line(c, cur);
        c->line_mark = chain_mark(&c->message->content);
        c->line_is_stored = true;
    }
    store(c, slice_skip(cur->span, cur->kept));
}

/* Walks the header section. What is left of the span belongs to the next phase. */
static struct slice walk_header(struct smtp_content *c, struct slice span)
{
    static void (*const steps[])(struct smtp_content *, struct cursor *) = {
        [LINE_START] = on_line_start, [LINE_NAME] = on_name,   [LINE_SPACE] = on_space,
        [LINE_VALUE] = on_value,      [LINE_EMPTY] = on_empty,
    };
    struct cursor cur = { .span = span };
    while (cur.at < span.len && c->phase == PHASE_HEADER)
        steps[c->line](c, &cur);
    if (c->phase == PHASE_HEADER) {
        end_span(c, &cur);
        return SLICE_NONE;
    }
    return slice_skip(span, cur.kept);
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
    m->size = 0;
    store_trace(c, policy->is_esmtp);
    return c;
}

void smtp_content_free(struct smtp_content *c)
{
    free(c);
}

bool smtp_content_is_body(const struct smtp_content *c)
{
    return c->phase == PHASE_BODY;
}

static inline void take_span(struct smtp_content *c, struct slice span)
{
    if (c->phase == PHASE_DOOMED)
        return;
    if (c->dot.defects || is_too_big(c)) {
        doom(c, REPLY_OK); /* the decoder knows why */
        return;
    }
    if (c->phase == PHASE_HEADER)
        span = walk_header(c, span);
    if (c->phase == PHASE_BODY)
        store(c, span);
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

void smtp_content_feed_chunk(struct smtp_content *c, struct slice in)
{
    dot_note(&c->dot, in);
    if (in.len > 0)
        take_span(c, in);
}

/* Why the content is refused; REPLY_OK: it is not. */
static enum reply_id refusal(const struct smtp_content *c)
{
    if (is_too_big(c))
        return REPLY_TOO_BIG; /* only now, and the session goes on (P-57) */
    if (c->dot.defects & DOT_NUL)
        return REPLY_NUL_IN_CONTENT;
    if (c->dot.defects & (DOT_BARE_CR | DOT_BARE_LF))
        return REPLY_BARE_CR_LF;
    if (c->dot.defects & DOT_LONG_LINE)
        return REPLY_CONTENT_LINE_TOO_LONG;
    return c->fault;
}

enum reply_id smtp_content_finish(struct smtp_content *c, const struct now *now)
{
    struct message *m = c->message;
    dot_note_end(&c->dot);
    if (c->phase == PHASE_HEADER)
        end_header(c); /* no body and no empty line: RFC 5322 3.5 allows it */
    enum reply_id why = refusal(c);
    if (why != REPLY_OK) {
        doom(c, why);
        return why;
    }
    must(c->phase == PHASE_BODY);
    m->accepted_ms = now->wall_ms;
    if (c->dot.has_8bit)
        m->flags |= MESSAGE_8BIT;
    if (c->dot.has_dot_lines)
        m->flags |= MESSAGE_DOT_LINES;
    return REPLY_OK;
}
