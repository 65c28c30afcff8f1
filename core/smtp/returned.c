/* SPDX-License-Identifier: Apache-2.0 */
/*
 * returned - a line at a time, and of lines the fields of four kinds of header: that of the
 * message, those of its parts, the groups of a message/delivery-status, a message/feedback-report,
 * and the header of the mail that a complaint has attached.
 *
 *     TOP --(multipart/report)--> BETWEEN --boundary--> PART --empty line--> STATUS | FEEDBACK |
 *      \                            ^                                         ORIGINAL | SKIP
 *       \--(anything else)--> OVER  \--------------------boundary-----------------/
 *
 * Of several recipients in a bounce the first that failed counts, else the first; there should be
 * one, since every delivery had an address of its own to come back to.
 *
 * Limits: LINE_MAX_HELD octets of a line, FIELD_MAX of a field with its folds; what is longer is
 * cut. A part in base64 is not read; a report inside another part is not found.
 *
 * To read another field: a row in fields[].
 */
#include "core/smtp/returned.h"
#include "core/base/buf.h"
#include "core/base/must.h"
#include "core/smtp/return_path.h"
#include <stdlib.h>

#define LINE_MAX_HELD 1000
#define FIELD_MAX     2048
#define BOUNDARY_MAX  200 /* octets; RFC 2046 allows 70 */

enum place {
    IN_TOP,      /* the message's own header */
    IN_BETWEEN,  /* before the first boundary */
    IN_PART,     /* the header of a part */
    IN_STATUS,   /* message/delivery-status: groups of fields */
    IN_FEEDBACK, /* message/feedback-report */
    IN_ORIGINAL, /* the header of the mail that it is about */
    IN_SKIP,     /* a part, or the rest of one, that says nothing to us */
    IN_OVER,     /* no report, or the last boundary was seen */
};

struct returned_reader {
    struct returned result;
    struct returned group; /* of the recipient that is being read */
    enum place place;
    enum place next; /* of a part's body, as its Content-Type has it */
    bool has_rcpt;
    uint32_t line_len, field_len, boundary_len;
    char reporting_mta[256];
    char boundary[BOUNDARY_MAX];
    char line[LINE_MAX_HELD];
    char field[FIELD_MAX];
};

struct returned_reader *returned_reader_new(void)
{
    return mem_zalloc(sizeof(struct returned_reader));
}

void returned_reader_free(struct returned_reader *r)
{
    free(r);
}

/* --- text ------------------------------------------------------------------------------------ */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct slice trimmed(struct slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = slice_skip(s, 1);
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

static char printable(char c)
{
    if (c == '\t' || c == '\r' || c == '\n')
        return ' ';
    return c >= ' ' && c <= '~' ? c : '?';
}

static void keep(char *out, size_t size, struct slice text)
{
    size_t n = text.len < size - 1 ? text.len : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = printable(text.ptr[i]);
    out[n] = '\0';
}

static void keep_lower(char *out, size_t size, struct slice text)
{
    keep(out, size, text);
    for (; *out; out++)
        if (*out >= 'A' && *out <= 'Z')
            *out = (char)(*out | 0x20);
}

/* "smtp; 550 no" without its type. */
static struct slice after_type(struct slice value)
{
    size_t at = slice_find(value, ';');
    return at == value.len ? value : trimmed(slice_skip(value, at + 1));
}

/* A value up to white space or a comment. */
static struct slice first_word(struct slice value)
{
    size_t n = 0;
    while (n < value.len && !is_blank(value.ptr[n]) && value.ptr[n] != '(')
        n++;
    return slice_head(value, n);
}

/* --- fields ---------------------------------------------------------------------------------- */

#define KEEP(member, text)       keep(r->member, sizeof r->member, text)
#define KEEP_LOWER(member, text) keep_lower(r->member, sizeof r->member, text)

/* The value of a parameter, without its quotes; empty: there is none (RFC 2045 5.1). */
static struct slice param_of(struct slice value, struct slice name)
{
    while ((value = slice_skip(value, slice_find(value, ';') + 1)).len > 0) {
        struct slice rest = trimmed(value);
        size_t equals = slice_find(rest, '=');
        if (!slice_eq_nocase(trimmed(slice_head(rest, equals)), name))
            continue;
        rest = trimmed(slice_skip(rest, equals + 1));
        if (rest.len > 0 && rest.ptr[0] == '"') {
            rest = slice_skip(rest, 1);
            return slice_head(rest, slice_find(rest, '"'));
        }
        return first_word(slice_head(rest, slice_find(rest, ';')));
    }
    return SLICE_NONE;
}

/* Of the whole message: only a report has parts that matter. */
static void on_top_type(struct returned_reader *r, struct slice value)
{
    struct slice type = trimmed(slice_head(value, slice_find(value, ';')));
    struct slice boundary = param_of(value, SLICE("boundary"));
    bool is_report = slice_eq_nocase(type, SLICE("multipart/report"));
    if (!is_report || boundary.len == 0 || boundary.len > sizeof r->boundary)
        return;
    memcpy(r->boundary, boundary.ptr, boundary.len);
    r->boundary_len = (uint32_t)boundary.len;
}

static void on_part_type(struct returned_reader *r, struct slice value)
{
    static const struct {
        struct slice type;
        enum place place;
    } types[] = {
        { { "message/delivery-status", 23 }, IN_STATUS },
        { { "message/global-delivery-status", 30 }, IN_STATUS },
        { { "message/feedback-report", 23 }, IN_FEEDBACK },
        { { "message/rfc822", 14 }, IN_ORIGINAL },
        { { "message/global", 14 }, IN_ORIGINAL },
        { { "message/global-headers", 22 }, IN_ORIGINAL },
        { { "text/rfc822-headers", 19 }, IN_ORIGINAL },
        { { "text/rfc822", 11 }, IN_ORIGINAL },
    };
    struct slice type = trimmed(slice_head(value, slice_find(value, ';')));
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (slice_eq_nocase(type, types[i].type))
            r->next = types[i].place;
}

static void on_action(struct returned_reader *r, struct slice value)
{
    KEEP_LOWER(group.action, first_word(value));
    r->result.kind = RETURNED_BOUNCE;
}

static void on_status(struct returned_reader *r, struct slice value)
{
    KEEP(group.status, first_word(value));
}

static void on_diagnostic(struct returned_reader *r, struct slice value)
{
    KEEP(group.text, after_type(value));
}

static void on_remote_mta(struct returned_reader *r, struct slice value)
{
    KEEP(group.host, first_word(after_type(value)));
}

static void on_reporting_mta(struct returned_reader *r, struct slice value)
{
    KEEP(reporting_mta, first_word(after_type(value)));
}

static void on_feedback_type(struct returned_reader *r, struct slice value)
{
    KEEP_LOWER(result.feedback, first_word(value));
    r->result.kind = RETURNED_COMPLAINT;
}

/* One that looks like ours beats one that does not: each host on the way may have put its own
 * Return-Path on top. */
static void on_sender(struct returned_reader *r, struct slice value)
{
    struct address address;
    size_t open = slice_find(value, '<'), used;
    if (open == value.len ||
        address_parse_path(slice_skip(value, open), &address, &used) != ADDRESS_OK)
        return;
    if (r->result.sender[0] == '\0' || return_path_is_likely(address.local))
        KEEP(result.sender, address.mailbox);
}

static const struct {
    enum place place;
    struct slice name;
    void (*on)(struct returned_reader *r, struct slice value);
} fields[] = {
    { IN_TOP, { "Content-Type", 12 }, on_top_type },
    { IN_PART, { "Content-Type", 12 }, on_part_type },
    { IN_STATUS, { "Action", 6 }, on_action },
    { IN_STATUS, { "Status", 6 }, on_status },
    { IN_STATUS, { "Diagnostic-Code", 15 }, on_diagnostic },
    { IN_STATUS, { "Remote-MTA", 10 }, on_remote_mta },
    { IN_STATUS, { "Reporting-MTA", 13 }, on_reporting_mta },
    { IN_FEEDBACK, { "Feedback-Type", 13 }, on_feedback_type },
    { IN_FEEDBACK, { "Original-Mail-From", 18 }, on_sender },
    { IN_ORIGINAL, { "Return-Path", 11 }, on_sender },
};

/* The field that was collected is over. */
static void end_field(struct returned_reader *r)
{
    struct slice field = slice_of(r->field, r->field_len);
    size_t colon = slice_find(field, ':');
    struct slice name = trimmed(slice_head(field, colon));
    struct slice value = trimmed(slice_skip(field, colon + 1));
    r->field_len = 0;
    for (size_t i = 0; i < ARRAY_LEN(fields) && colon < field.len; i++)
        if (fields[i].place == r->place && slice_eq_nocase(fields[i].name, name))
            fields[i].on(r, value);
}

/* --- lines ----------------------------------------------------------------------------------- */

/* A recipient's group is over. */
static void end_group(struct returned_reader *r)
{
    bool is_failed = strcmp(r->group.action, "failed") == 0;
    bool is_better = !r->has_rcpt || strcmp(r->result.action, "failed") != 0;
    if (r->group.action[0] && (!r->has_rcpt || (is_failed && is_better))) {
        memcpy(r->result.action, r->group.action, sizeof r->result.action);
        memcpy(r->result.status, r->group.status, sizeof r->result.status);
        memcpy(r->result.host, r->group.host, sizeof r->result.host);
        memcpy(r->result.text, r->group.text, sizeof r->result.text);
        r->has_rcpt = true;
    }
    memset(&r->group, 0, sizeof r->group);
}

/* An empty line, or a boundary, or the end. */
static void end_header(struct returned_reader *r)
{
    if (r->field_len > 0)
        end_field(r);
    switch (r->place) {
    case IN_TOP: r->place = r->boundary_len > 0 ? IN_BETWEEN : IN_OVER; break;
    case IN_PART: r->place = r->next; break;
    case IN_STATUS: end_group(r); break; /* the next recipient's may follow */
    case IN_FEEDBACK:
    case IN_ORIGINAL: r->place = IN_SKIP; break;
    case IN_BETWEEN:
    case IN_SKIP:
    case IN_OVER: break;
    }
}

/* "--boundary", with "--" behind it when it is the last; white space may follow. */
static bool is_boundary(const struct returned_reader *r, struct slice line, bool *is_last)
{
    struct slice boundary = slice_of(r->boundary, r->boundary_len);
    if (r->place == IN_TOP || line.len < 2 + boundary.len || memcmp(line.ptr, "--", 2) != 0 ||
        !slice_eq(slice_head(slice_skip(line, 2), boundary.len), boundary))
        return false;
    struct slice rest = trimmed(slice_skip(line, 2 + boundary.len));
    *is_last = slice_eq(rest, SLICE("--"));
    return rest.len == 0 || *is_last;
}

static void begin_part(struct returned_reader *r, bool is_last)
{
    end_header(r);
    r->place = is_last ? IN_OVER : IN_PART;
    r->next = IN_SKIP;
}

static void add_to_field(struct returned_reader *r, struct slice line)
{
    size_t room = sizeof r->field - r->field_len;
    struct slice part = slice_head(line, room);
    memcpy(r->field + r->field_len, part.ptr, part.len);
    r->field_len += (uint32_t)part.len;
}

static void on_header_line(struct returned_reader *r, struct slice line)
{
    bool is_fold = line.ptr[0] == ' ' || line.ptr[0] == '\t';
    if (is_fold && r->field_len == 0)
        return;
    if (!is_fold && r->field_len > 0)
        end_field(r);
    add_to_field(r, line);
}

static void on_line(struct returned_reader *r, struct slice line)
{
    bool is_last;
    if (r->place == IN_OVER)
        return;
    if (is_boundary(r, line, &is_last))
        begin_part(r, is_last);
    else if (r->place == IN_BETWEEN || r->place == IN_SKIP)
        return;
    else if (line.len == 0)
        end_header(r);
    else
        on_header_line(r, line);
}

static void end_line(struct returned_reader *r)
{
    struct slice line = slice_of(r->line, r->line_len);
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    r->line_len = 0;
    on_line(r, line);
}

void returned_read(struct returned_reader *r, struct slice in)
{
    while (in.len > 0 && r->place != IN_OVER) {
        size_t end = slice_find(in, '\n');
        struct slice part = slice_head(in, end), fits;
        fits = slice_head(part, sizeof r->line - r->line_len);
        memcpy(r->line + r->line_len, fits.ptr, fits.len);
        r->line_len += (uint32_t)fits.len;
        if (end < in.len)
            end_line(r);
        in = slice_skip(in, end + 1);
    }
}

/* --- the end --------------------------------------------------------------------------------- */

const struct returned *returned_end(struct returned_reader *r)
{
    if (r->line_len > 0)
        end_line(r);
    end_header(r);
    if (r->result.host[0] == '\0')
        memcpy(r->result.host, r->reporting_mta, sizeof r->result.host);
    return &r->result;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The code that a diagnostic begins with, and what follows it; 0: it begins with none. */
static int take_code(const char **text)
{
    const char *t = *text;
    if ((t[0] != '4' && t[0] != '5') || !is_digit(t[1]) || !is_digit(t[2]) || is_digit(t[3]))
        return 0;
    *text = t + 3 + (t[3] == ' ' || t[3] == '-');
    return (t[0] - '0') * 100 + (t[1] - '0') * 10 + (t[2] - '0');
}

/* "5.1.1 ", or nothing. */
static struct slice take_enhanced(const char **text)
{
    size_t len = strspn(*text, "0123456789.");
    struct slice word = slice_of(*text, len);
    if (len < 5 || len > 9 || word.ptr[1] != '.' || strchr("245", word.ptr[0]) == NULL)
        return SLICE_NONE;
    *text += len + strspn(*text + len, " ");
    return word;
}

void returned_reply_of(const struct returned *r, struct returned_reply *out)
{
    out->text = r->text;
    int code = take_code(&out->text);
    struct slice enhanced = take_enhanced(&out->text);
    bool is_vague = r->status[0] == '\0' || strcmp(r->status + 1, ".0.0") == 0;
    if (!is_vague || enhanced.len == 0)
        enhanced = slice_str(r->status);
    keep(out->enhanced, sizeof out->enhanced, enhanced);
    char class = out->enhanced[0];
    out->code = code ? code : class == '5' ? 550 : class == '4' ? 450 : 0;
}
