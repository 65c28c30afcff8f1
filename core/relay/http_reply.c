/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_reply - one HTTP/1.1 reply.
 *
 * The text is looked at from its beginning each time; it is small. A body ends by its length, by
 * its last chunk, or with the connection when neither is said; one that ends early is bad. Interim
 * replies (1xx) are not asked for and are an error, as are two lengths that differ.
 */
#include "core/relay/http_reply.h"

#define LINE_OCTETS_MAX 8192

struct header {
    bool has_length, is_chunked, is_unknown_coding;
    uint64_t length;
};

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = slice_skip(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s = slice_head(s, s.len - 1);
    return s;
}

/* A line without its end, cut off. HTTP_MORE: its end has not come. */
static enum http_progress next_line(struct slice *rest, struct slice *line)
{
    size_t end = slice_find(*rest, '\n');
    if (end == rest->len)
        return end > LINE_OCTETS_MAX ? HTTP_BAD : HTTP_MORE;
    *line = slice_head(*rest, end);
    if (line->len > 0 && line->ptr[line->len - 1] == '\r')
        *line = slice_head(*line, line->len - 1);
    *rest = slice_skip(*rest, end + 1);
    return HTTP_DONE;
}

/* "HTTP/1.1 200 OK" */
static bool read_status(struct slice line, int *status)
{
    if (line.len < 12 || !slice_eq(slice_head(line, 7), SLICE("HTTP/1.")) || line.ptr[8] != ' ')
        return false;
    *status = 0;
    for (int i = 9; i < 12; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9')
            return false;
        *status = *status * 10 + (line.ptr[i] - '0');
    }
    return *status >= 200;
}

static bool read_number(struct slice digits, unsigned base, uint64_t *out)
{
    uint64_t n = 0;
    if (digits.len == 0 || digits.len > 15)
        return false;
    for (size_t i = 0; i < digits.len; i++) {
        char c = digits.ptr[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit >= base)
            return false;
        n = n * base + digit;
    }
    *out = n;
    return true;
}

static bool read_field(struct slice line, struct header *h, struct http_reply *out)
{
    size_t colon = slice_find(line, ':');
    struct slice name = slice_head(line, colon), value = trim(slice_skip(line, colon + 1));
    uint64_t length;
    if (colon == line.len || colon == 0)
        return false;
    if (slice_eq_nocase(name, SLICE("Content-Type"))) {
        out->type = trim(slice_head(value, slice_find(value, ';')));
    } else if (slice_eq_nocase(name, SLICE("Transfer-Encoding"))) {
        h->is_chunked = slice_eq_nocase(value, SLICE("chunked"));
        h->is_unknown_coding |= !h->is_chunked;
    } else if (slice_eq_nocase(name, SLICE("Content-Encoding"))) {
        h->is_unknown_coding |= !slice_eq_nocase(value, SLICE("identity"));
    } else if (slice_eq_nocase(name, SLICE("Content-Length"))) {
        if (!read_number(value, 10, &length) || (h->has_length && h->length != length))
            return false;
        h->has_length = true;
        h->length = length;
    }
    return true;
}

static enum http_progress read_head(struct slice *rest, struct header *h, struct http_reply *out)
{
    struct slice line;
    enum http_progress st = next_line(rest, &line);
    if (st != HTTP_DONE)
        return st;
    if (!read_status(line, &out->status))
        return HTTP_BAD;
    while ((st = next_line(rest, &line)) == HTTP_DONE) {
        if (line.len == 0)
            return h->is_unknown_coding || (h->has_length && h->is_chunked) ? HTTP_BAD : HTTP_DONE;
        if (!read_field(line, h, out))
            return HTTP_BAD;
    }
    return st;
}

static enum http_progress read_chunks(struct slice rest, struct http_reply *out, struct buf *plain)
{
    struct slice line;
    enum http_progress st;
    uint64_t size;
    while ((st = next_line(&rest, &line)) == HTTP_DONE) {
        if (!read_number(trim(slice_head(line, slice_find(line, ';'))), 16, &size))
            return HTTP_BAD;
        if (size == 0) { /* what may trail is nothing to us */
            out->body = buf_slice(plain);
            return HTTP_DONE;
        }
        if (size > rest.len)
            return HTTP_MORE;
        if (buf_append(plain, slice_head(rest, size)) != STATUS_OK)
            return HTTP_BAD;
        rest = slice_skip(rest, size);
        st = next_line(&rest, &line);
        if (st != HTTP_DONE || line.len > 0)
            return st == HTTP_DONE ? HTTP_BAD : st;
    }
    return st;
}

static enum http_progress read_all(struct slice rest, bool is_ended, struct http_reply *out,
                                   struct buf *plain)
{
    struct header h = { .has_length = false };
    enum http_progress st = read_head(&rest, &h, out);
    if (st != HTTP_DONE)
        return st;
    if (h.is_chunked)
        return read_chunks(rest, out, plain);
    if (h.has_length && rest.len < h.length)
        return HTTP_MORE;
    if (!h.has_length && !is_ended)
        return HTTP_MORE;
    out->body = h.has_length ? slice_head(rest, (size_t)h.length) : rest;
    return HTTP_DONE;
}

enum http_progress http_read_head(struct slice text, struct http_reply *out)
{
    struct header h = { .has_length = false };
    *out = (struct http_reply){ .status = 0 };
    return read_head(&text, &h, out);
}

enum http_progress http_read(struct slice text, bool is_ended, struct http_reply *out,
                             struct buf *plain)
{
    *out = (struct http_reply){ .status = 0 };
    buf_clear(plain);
    enum http_progress st = read_all(text, is_ended, out, plain);
    return st == HTTP_MORE && is_ended ? HTTP_BAD : st;
}
