/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as mail that came back: read whole and in pieces (the first octet says how large) it
 * is the same; what is read is printable and ends; any octets as a return path.
 */
#include "core/smtp/return_path.h"
#include "core/smtp/returned.h"
#include "tests/fuzz/fuzz.h"

static void is_text(const char *text, size_t size)
{
    size_t len = strnlen(text, size);
    must(len < size);
    for (size_t i = 0; i < len; i++)
        must(text[i] >= ' ' && text[i] <= '~');
}

static void look_at(const struct returned *r)
{
    struct returned_reply reply;
    is_text(r->action, sizeof r->action);
    is_text(r->status, sizeof r->status);
    is_text(r->host, sizeof r->host);
    is_text(r->text, sizeof r->text);
    is_text(r->feedback, sizeof r->feedback);
    is_text(r->sender, sizeof r->sender);
    returned_reply_of(r, &reply);
    is_text(reply.enhanced, sizeof reply.enhanced);
    must(reply.code == 0 || (reply.code >= 400 && reply.code <= 599));
    must(reply.text >= r->text && reply.text <= r->text + strlen(r->text));
}

static struct returned_reader *read_by(struct slice in, size_t step)
{
    struct returned_reader *r = returned_reader_new();
    for (size_t at = 0; at < in.len; at += step)
        returned_read(r, slice_head(slice_skip(in, at), step));
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct return_path_key key = { { 7 } };
    struct return_path path;
    if (size == 0)
        return 0;
    char *copy = exact_copy(slice_of((const char *)data + 1, size - 1));
    struct slice in = slice_of(copy, size - 1);
    struct returned_reader *whole = read_by(in, in.len + 1), *parts = read_by(in, 1 + data[0]);
    const struct returned *a = returned_end(whole), *b = returned_end(parts);
    look_at(a);
    must(memcmp(a, b, sizeof *a) == 0);
    if (return_path_read(&key, in, &path))
        must(return_path_is_likely(in));
    returned_reader_free(whole);
    returned_reader_free(parts);
    free(copy);
    return 0;
}
