/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_header - the walk through the header section, once, while it streams by.
 *
 * It goes line by line, but copies runs of lines: octets are stored when a span ends or when
 * something must be left out. A line that a span's end cuts before its kind is known is stored,
 * with a mark to go back to. Of a field its name is kept aside; its value only when somebody wants
 * it (fields[]), and then it is copied only when a span's end cuts it. A value is read when the
 * next line shows that it is over.
 *
 * Fields that are stripped (P-96) are never stored, or are cut off again, with their continuation
 * lines; one that is stripped for its value is stored with a mark at its start until it is known.
 *
 * Choices where the checklist leaves one:
 *   - A first line that is no header field: everything is body (P-87). A later one, a fold before
 *     any field, a space before the colon: refused (P-88), since readers disagree about them.
 *   - Missing From: added from the envelope sender; with a null sender refused (P-90).
 *   - Fields that exist are never touched, whether of the original or of a resent block (P-95);
 *     two of From, Sender, Subject, Date or To are refused (P-89).
 *   - Octets above 127 in the header section are taken with SMTPUTF8 or without; only with it do
 *     they make the message need it onward.
 *
 * Nothing here may depend on how the octets were cut into spans.
 * To treat another field: a row in fields[].
 */
#include "core/smtp/content_private.h"

#include <stdlib.h>

#define LINE_MAX_HELD DOT_LINE_MAX

/* A span on its way through the header section. */
struct cursor {
    struct slice span;
    size_t at;    /* next octet to look at */
    size_t kept;  /* octets before this one are stored or left out */
    size_t line;  /* where the current line starts; meaningless with line_is_stored */
    size_t value; /* where the value that is being read goes on */
};

enum field_rule {
    FIELD_NOTED,
    FIELD_ONCE,
    FIELD_COUNTED,
    FIELD_STRIPPED,
    FIELD_JUDGED, /* stripped when its value says so */
};

static const struct content_field {
    struct slice name;
    enum field_rule rule;
    uint32_t bit;           /* 0: nobody asks whether it was there */
    content_value_fn *read; /* NULL: nobody asks what it says */
} fields[] = {
    { { "Received", 8 }, FIELD_COUNTED, 0, NULL },
    { { "Date", 4 }, FIELD_ONCE, FIELD_DATE, NULL },
    { { "From", 4 }, FIELD_ONCE, FIELD_FROM, content_on_from },
    { { "To", 2 }, FIELD_ONCE, FIELD_TO, NULL },
    { { "Subject", 7 }, FIELD_ONCE, FIELD_SUBJECT, NULL },
    { { "Sender", 6 }, FIELD_ONCE, FIELD_SENDER, content_on_sender },
    { { "Message-ID", 10 }, FIELD_NOTED, FIELD_MESSAGE_ID, content_on_message_id },
    { { "Bcc", 3 }, FIELD_STRIPPED, 0, NULL },
    { { "Resent-Bcc", 10 }, FIELD_STRIPPED, 0, NULL },
    { { "Return-Path", 11 }, FIELD_STRIPPED, 0, NULL },
    { { "X-Idempotency-Key", 17 }, FIELD_STRIPPED, 0, content_on_key },
    { { "X-Kilat-Lane", 12 }, FIELD_STRIPPED, 0, content_on_lane },
    { { "List-Unsubscribe", 16 }, FIELD_NOTED, FIELD_LIST, NULL },
    { { "Precedence", 10 }, FIELD_NOTED, 0, content_on_precedence },
    { { "TLS-Required", 12 }, FIELD_NOTED, 0, content_on_tls_required },
    { { "Authentication-Results", 22 }, FIELD_JUDGED, 0, content_on_auth_results },
};

/* Every field whose name begins so is internal (P-96). */
static const struct content_field internal_field = { { "X-Kilat-", 8 }, FIELD_STRIPPED, 0, NULL };

/* --- storing --------------------------------------------------------------------------------- */

static bool has_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return true;
    return false;
}

static void store_fields(struct smtp_content *c, struct slice s)
{
    if (c->policy.is_utf8 && !c->header_is_8bit)
        c->header_is_8bit = has_8bit(s);
    content_store(c, s);
}

/* Back to a mark; only while nothing was taken from the front. */
static void unstore(struct smtp_content *c, struct chain_mark mark)
{
    chain_truncate(&c->message->content, mark);
    c->message->size = c->message->content.len;
}

/* Stores all lines before the current one, and makes sure that nothing of this one is. */
static void store_to_line(struct smtp_content *c, struct cursor *cur)
{
    if (c->line_is_stored) {
        unstore(c, c->line_mark);
        c->line_is_stored = false;
        return;
    }
    store_fields(c, slice_head(slice_skip(cur->span, cur->kept), cur->line - cur->kept));
    cur->kept = cur->line;
}

/* The octets of the current line that earlier spans brought. */
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

/* --- the end of it --------------------------------------------------------------------------- */

/* All fields are stored, ours too, and none has left for Redis: what is signed of them is taken
 * (P-240). */
static void sign_header(struct smtp_content *c)
{
    const struct chain *chain = &c->message->content;
    char *header = mem_alloc(chain->len + 1);
    size_t len = 0;
    for (const struct chain_seg *seg = chain->head; seg; seg = seg->next) {
        memcpy(header + len, seg->data, seg->len);
        len += seg->len;
    }
    c->dkim = dkim_digest_new(slice_of(header, len));
    free(header);
}

/* Adds what the header section lacks (P-90, P-95) and goes on to the body. */
static void end_header(struct smtp_content *c)
{
    bool needs_sender = (c->seen & FIELD_FROM_MANY) && !(c->seen & FIELD_SENDER);
    buf_done(&c->value);
    if (needs_sender) {
        content_doom(c, REPLY_NEED_SENDER);
    } else if (!(c->seen & FIELD_FROM) && c->message->sender.len == 0) {
        content_doom(c, REPLY_NO_FROM);
    } else {
        content_store_missing(c);
        content_settle_lane(c);
        if (c->digest)
            content_digest_tell_key(c->digest, c->message);
        if (c->policy.is_signed)
            sign_header(c);
        c->phase = PHASE_BODY;
    }
}

/* The line that cur->at is in has no field name. */
static void on_no_field(struct smtp_content *c, struct cursor *cur)
{
    char held[LINE_MAX_HELD];
    struct slice line = SLICE_NONE;
    if (c->fields > 0) {
        content_doom(c, REPLY_BAD_HEADER);
        return;
    }
    /* Without BINARYMIME the decoder has seen it first. */
    if (c->header_octets + cur->at - c->line_at > DOT_LINE_MAX) {
        content_doom(c, REPLY_CONTENT_LINE_TOO_LONG);
        return;
    }
    if (c->line_is_stored)
        line = copy_line(c, held);
    store_to_line(c, cur);
    end_header(c);
    if (c->phase == PHASE_BODY) {
        content_store(c, SLICE("\r\n"));
        content_store(c, line);
        if (c->dkim)
            dkim_digest_update(c->dkim, line);
    }
}

/* --- fields ---------------------------------------------------------------------------------- */

/* Most names are told apart by length or first letter. */
static inline bool is_named(struct slice name, struct slice known)
{
    return name.len == known.len && (name.ptr[0] | 0x20) == (known.ptr[0] | 0x20) &&
           slice_eq_nocase(name, known);
}

/* The name has an octet at least. */
static const struct content_field *find_field(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (is_named(name, fields[i].name))
            return &fields[i];
    bool is_internal = is_named(slice_head(name, internal_field.name.len), internal_field.name);
    return is_internal ? &internal_field : NULL;
}

/* Keeps the start of the field, so that all of it can be cut off. */
static void mark_field(struct smtp_content *c, struct cursor *cur)
{
    if (c->line_is_stored) {
        c->field_mark = c->line_mark;
    } else {
        store_to_line(c, cur);
        c->field_mark = chain_mark(&c->message->content);
    }
    c->field_mark_is_8bit = c->header_is_8bit;
}

/* All of the marked field, as far as it is stored, and what of it is in this span. */
static void cut_field_off(struct smtp_content *c, struct cursor *cur)
{
    unstore(c, c->field_mark);
    c->header_is_8bit = c->field_mark_is_8bit;
    cur->kept = cur->at;
}

static void obey_rule(struct smtp_content *c, struct cursor *cur, const struct content_field *field)
{
    switch (field->rule) {
    case FIELD_NOTED: break;
    case FIELD_ONCE:
        if (c->seen & field->bit)
            content_doom(c, REPLY_DUPLICATE_HEADER);
        break;
    case FIELD_COUNTED:
        if (++c->received >= c->server->limits.received_max)
            content_doom(c, REPLY_LOOP); /* P-91 */
        break;
    case FIELD_STRIPPED:
        store_to_line(c, cur);
        c->is_stripping = true;
        break;
    case FIELD_JUDGED: mark_field(c, cur); break;
    }
    c->seen |= field->bit;
}

/* The colon was found, cur->at is on it: which field is it? */
static void on_field(struct smtp_content *c, struct cursor *cur, struct slice name)
{
    c->line = LINE_VALUE;
    if (++c->fields > SMTP_HEADER_FIELDS_MAX) {
        content_doom(c, REPLY_HEADER_TOO_BIG);
        return;
    }
    const struct content_field *field = find_field(name);
    if (!field)
        return;
    obey_rule(c, cur, field);
    if (field->read) {
        c->reading = field;
        buf_clear(&c->value);
        cur->value = cur->at + 1;
    }
}

/* The octets of the value that are in this span, as far as there is room for them. */
static struct slice value_part(const struct smtp_content *c, const struct cursor *cur)
{
    struct slice part = slice_head(slice_skip(cur->span, cur->value), cur->at - cur->value);
    return slice_head(part, CONTENT_VALUE_MAX - c->value.len);
}

static void keep_value(struct smtp_content *c, const struct cursor *cur)
{
    must(buf_append(&c->value, value_part(c, cur)) == STATUS_OK);
}

/* All lines of the field that is being read have come. */
static void end_field(struct smtp_content *c, struct cursor *cur)
{
    const struct content_field *field = c->reading;
    struct slice value = value_part(c, cur);
    c->reading = NULL;
    if (c->value.len > 0) {
        keep_value(c, cur);
        value = buf_slice(&c->value);
    }
    if (field->read(c, value))
        cut_field_off(c, cur);
}

/* --- lines ----------------------------------------------------------------------------------- */

static bool is_white(char octet)
{
    return octet == ' ' || octet == '\t';
}

static void on_line_start(struct smtp_content *c, struct cursor *cur)
{
    char first = cur->span.ptr[cur->at];
    if (is_white(first)) {
        c->line = LINE_VALUE;
        if (c->fields == 0)
            content_doom(c, REPLY_BAD_HEADER);
        return;
    }
    if (c->reading)
        end_field(c, cur);
    if (c->phase != PHASE_HEADER)
        return;
    if (c->is_stripping)
        cur->kept = cur->at;
    c->is_stripping = false;
    c->line_is_stored = false;
    cur->line = cur->at;
    c->line_at = c->header_octets + cur->at;
    c->name_len = 0;
    c->line = first == '\r' ? LINE_EMPTY : LINE_NAME;
    if (first == '\r')
        cur->at++;
}

/* RFC 5322 3.6.8: printable octets other than the colon. */
static bool is_name_octet(char octet)
{
    return octet > ' ' && octet <= '~' && octet != ':';
}

/* Adds to what is kept aside of a name that a span's end cuts; what is too long matches nothing. */
static struct slice keep_name(struct smtp_content *c, struct slice part)
{
    part = slice_head(part, CONTENT_NAME_MAX - c->name_len);
    memcpy(c->name + c->name_len, part.ptr, part.len);
    c->name_len += (uint8_t)part.len;
    return slice_of(c->name, c->name_len);
}

static void on_name(struct smtp_content *c, struct cursor *cur)
{
    size_t start = cur->at, at = start;
    while (at < cur->span.len && is_name_octet(cur->span.ptr[at]))
        at++;
    cur->at = at;
    struct slice name = slice_of(cur->span.ptr + start, at - start);
    bool is_cut = at == cur->span.len;
    if (is_cut || c->name_len > 0)
        name = keep_name(c, name);
    if (is_cut)
        return;
    if (name.len > 0 && cur->span.ptr[at] == ':')
        on_field(c, cur, name);
    else if (name.len > 0 && is_white(cur->span.ptr[at]))
        c->line = LINE_SPACE;
    else
        on_no_field(c, cur);
}

static void on_space(struct smtp_content *c, struct cursor *cur)
{
    while (cur->at < cur->span.len && is_white(cur->span.ptr[cur->at]))
        cur->at++;
    if (cur->at == cur->span.len)
        return;
    if (cur->span.ptr[cur->at] == ':')
        content_doom(c, REPLY_BAD_HEADER); /* "Subject : x": a field to some readers only (P-88) */
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
        content_doom(c, REPLY_HEADER_TOO_BIG); /* P-86 */
}

static void on_empty(struct smtp_content *c, struct cursor *cur)
{
    if (cur->span.ptr[cur->at] != '\n') {
        content_doom(c, REPLY_BAD_HEADER); /* a bare CR, which the decoder has noted */
        return;
    }
    cur->at++;
    store_to_line(c, cur);
    cur->kept = cur->at;
    end_header(c);
    if (c->phase == PHASE_BODY)
        content_store(c, SLICE("\r\n"));
}

/* The span ends inside the header section. */
static void end_span(struct smtp_content *c, struct cursor *cur)
{
    bool is_undecided = c->line == LINE_NAME || c->line == LINE_SPACE || c->line == LINE_EMPTY;
    if (c->reading)
        keep_value(c, cur);
    c->header_octets += cur->span.len;
    if (c->is_stripping)
        return;
    if (is_undecided && !c->line_is_stored) {
        store_to_line(c, cur);
        c->line_mark = chain_mark(&c->message->content);
        c->line_is_stored = true;
    }
    store_fields(c, slice_skip(cur->span, cur->kept));
}

struct slice content_walk_header(struct smtp_content *c, struct slice span)
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

/* In a chunk the last line may lack its end (P-105): a field gets it, text without a colon is body,
 * a CR alone is a defect. */
void content_end_in_header(struct smtp_content *c)
{
    struct cursor nothing = { .span = SLICE_NONE };
    switch (c->line) {
    case LINE_NAME:
    case LINE_SPACE: on_no_field(c, &nothing); return;
    case LINE_EMPTY: content_doom(c, REPLY_BAD_HEADER); return;
    case LINE_VALUE:
        if (!c->is_stripping)
            content_store(c, SLICE("\r\n"));
        break;
    case LINE_START: break;
    }
    if (c->reading)
        end_field(c, &nothing);
    if (c->phase == PHASE_HEADER)
        end_header(c);
}
