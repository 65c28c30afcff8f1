/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a message: the header section up to the first empty line, the rest as a body, in
 * pieces whose lengths the first octets give. The pieces change nothing; a body in relaxed form is
 * in relaxed form; the names that are signed are those of the table.
 */
#include "core/smtp/dkim.h"
#include "core/smtp/dkim_private.h"
#include "tests/fuzz/fuzz.h"

static void hash_in_pieces(struct slice body, size_t piece, uint8_t hash[SHA256_DIGEST_LENGTH])
{
    struct dkim_body b;
    dkim_body_init(&b);
    while (body.len > 0) {
        dkim_body_update(&b, slice_head(body, piece));
        body = slice_skip(body, piece);
    }
    dkim_body_end(&b, hash);
}

/* Relaxed by hand, in the slowest and plainest way: what stands between line ends, then the ends.
 */
static size_t relax(struct slice body, char *out)
{
    size_t len = 0, kept = 0;
    while (body.len > 0) {
        const char *end = memmem(body.ptr, body.len, "\r\n", 2);
        size_t line = end ? (size_t)(end - body.ptr) : body.len, start = len;
        for (size_t i = 0; i < line; i++) {
            bool is_white = body.ptr[i] == ' ' || body.ptr[i] == '\t';
            if (!is_white)
                out[len++] = body.ptr[i];
            else if (len == start || out[len - 1] != ' ')
                out[len++] = ' ';
        }
        if (len > start && out[len - 1] == ' ')
            len--;
        bool has_text = len > start;
        out[len++] = '\r';
        out[len++] = '\n';
        if (has_text)
            kept = len;
        body = slice_skip(body, end ? line + 2 : line);
    }
    return kept;
}

static void check_body(struct slice body, size_t piece)
{
    uint8_t want[SHA256_DIGEST_LENGTH], got[SHA256_DIGEST_LENGTH];
    char *relaxed = mem_alloc(2 * body.len + 3);
    size_t len = relax(body, relaxed);
    SHA256((const uint8_t *)relaxed, len, want);
    hash_in_pieces(body, piece, got);
    must(memcmp(want, got, sizeof want) == 0);
    hash_in_pieces(slice_of(relaxed, len), SIZE_MAX, got);
    must(memcmp(want, got, sizeof want) == 0);
    free(relaxed);
}

/* The content machine lets no more fields pass than a digest takes. */
static bool has_few_lines(struct slice header)
{
    size_t lines = 0;
    for (size_t i = 0; i < header.len; i++)
        lines += header.ptr[i] == '\n';
    return lines < DKIM_FIELDS_MAX;
}

static void check_header(struct slice header)
{
    if (!has_few_lines(header))
        return;
    struct dkim_digest *d = dkim_digest_new(header);
    struct slice names = buf_slice(&d->names), domain = dkim_digest_domain(d);
    must(slice_eq(slice_head(names, 4), SLICE("From")));
    must(domain.len < IDN_ASCII_MAX);
    for (size_t i = 0; i < domain.len; i++)
        must(domain.ptr[i] > ' ' && domain.ptr[i] < 0x7f && domain.ptr[i] != ';');
    dkim_digest_end(d);
    dkim_digest_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *copy = exact_copy(slice_of((const char *)data + 1, size - 1));
    struct slice in = slice_of(copy, size - 1);
    const char *empty = in.len ? memmem(in.ptr, in.len, "\r\n\r\n", 4) : NULL;
    size_t header = empty ? (size_t)(empty - in.ptr) + 2 : 0;
    check_header(empty ? slice_head(in, header) : in);
    check_body(slice_skip(in, empty ? header + 2 : 0), (size_t)data[0] + 1);
    free(copy);
    return 0;
}
