/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dkim_canon - the relaxed forms of RFC 6376 3.4.2 and 3.4.4, straight into SHA-256.
 *
 * Body: white space at the end of lines goes, other runs of it become one space, empty lines at the
 * end go, and text that ends without CR LF gets it. Nothing that was given is looked at again, so a
 * body may come in pieces of any size; what could still vanish (white space, a CR, empty lines) is
 * only counted. Only CR LF ends a line; a CR or LF alone, which binary content may have, is an
 * octet like others.
 *
 * Field: the name in lower case, folds undone, runs of white space one space, none around the colon
 * and at the end.
 *
 * Limits: a pen holds PEN_MAX octets; longer runs of text go to SHA-256 from where they lie.
 */
#include "core/smtp/dkim.h"

#include <string.h>

#define PEN_MAX  512
#define RUN_LONG 128 /* octets above which a run is not copied */

/* Gathers small pieces: SHA-256 costs less in large ones. */
struct pen {
    SHA256_CTX *sha; /* borrowed */
    size_t len;
    char held[PEN_MAX];
};

static void flush(struct pen *p)
{
    if (p->len > 0)
        SHA256_Update(p->sha, p->held, p->len);
    p->len = 0;
}

static inline void put(struct pen *p, char octet)
{
    if (p->len == PEN_MAX)
        flush(p);
    p->held[p->len++] = octet;
}

static void put_run(struct pen *p, struct slice run)
{
    if (run.len > PEN_MAX - p->len || run.len > RUN_LONG)
        flush(p);
    if (run.len > RUN_LONG) {
        SHA256_Update(p->sha, run.ptr, run.len);
        return;
    }
    memcpy(p->held + p->len, run.ptr, run.len);
    p->len += run.len;
}

static inline bool is_white(char octet)
{
    return octet == ' ' || octet == '\t';
}

/* --- bodies ---------------------------------------------------------------------------------- */

void dkim_body_init(struct dkim_body *b)
{
    *b = (struct dkim_body){ 0 };
    SHA256_Init(&b->sha);
}

/* Text comes: what was held back before it counts. */
static inline void settle(struct dkim_body *b, struct pen *p)
{
    for (; b->empty_lines > 0; b->empty_lines--) {
        put(p, '\r');
        put(p, '\n');
    }
    if (b->has_space)
        put(p, ' ');
    b->has_space = false;
    b->line_has_text = true;
}

static void end_line(struct dkim_body *b, struct pen *p)
{
    if (b->line_has_text) {
        put(p, '\r');
        put(p, '\n');
    } else {
        b->empty_lines++;
    }
    b->line_has_text = b->has_space = false;
}

/* True when the octet was the LF of a line's end. */
static bool resolve_cr(struct dkim_body *b, struct pen *p, char next)
{
    b->has_cr = false;
    if (next == '\n') {
        end_line(b, p);
        return true;
    }
    settle(b, p);
    put(p, '\r');
    return false;
}

/* The octets at the front that stand for themselves. */
static inline size_t run_length(struct slice s)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] != ' ' && s.ptr[n] != '\t' && s.ptr[n] != '\r')
        n++;
    return n;
}

void dkim_body_update(struct dkim_body *b, struct slice rest)
{
    struct pen p = { .sha = &b->sha };
    while (rest.len > 0) {
        size_t used = 1;
        if (b->has_cr && resolve_cr(b, &p, rest.ptr[0])) {
            rest = slice_skip(rest, 1);
            continue;
        }
        if (rest.ptr[0] == '\r') {
            b->has_cr = true;
        } else if (is_white(rest.ptr[0])) {
            b->has_space = true;
        } else {
            used = run_length(rest);
            settle(b, &p);
            put_run(&p, slice_head(rest, used));
        }
        rest = slice_skip(rest, used);
    }
    flush(&p);
}

void dkim_body_end(struct dkim_body *b, uint8_t hash[SHA256_DIGEST_LENGTH])
{
    struct pen p = { .sha = &b->sha };
    if (b->has_cr)
        resolve_cr(b, &p, '\0');
    if (b->line_has_text)
        end_line(b, &p);
    flush(&p);
    SHA256_Final(hash, &b->sha);
}

/* --- fields ---------------------------------------------------------------------------------- */

static void relax_name(struct pen *p, struct slice name)
{
    while (name.len > 0 && is_white(name.ptr[name.len - 1]))
        name.len--;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        put(p, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
    }
}

static void relax_value(struct pen *p, struct slice value)
{
    bool has_space = false, has_text = false;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == '\r' || c == '\n')
            continue;
        if (is_white(c)) {
            has_space = has_text;
            continue;
        }
        if (has_space)
            put(p, ' ');
        has_space = false;
        has_text = true;
        put(p, c);
    }
}

void dkim_relax_field(SHA256_CTX *sha, struct slice field)
{
    struct pen p = { .sha = sha };
    size_t colon = slice_find(field, ':');
    relax_name(&p, slice_head(field, colon));
    put(&p, ':');
    relax_value(&p, slice_skip(field, colon + 1));
    flush(&p);
}
