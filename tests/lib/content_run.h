/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content_run - plays one content through smtp_content, for tests: as DATA or as chunks of BDAT, in
 * pieces of any size, each in a heap block of exactly its length.
 */
#include "core/smtp/content.h"
#include "tests/lib/smtp_server.h"

#define CONTENT_ID "0123456789abcdefghjk"

struct content_result {
    enum reply_id reply;
    char *content; /* owned */
    size_t len;
    uint64_t size;
    uint32_t flags;
    char lane;
    bool has_key;
    uint8_t key[32], digest[32];
};

static inline struct message *content_message(struct test_server *t, const char *sender,
                                              const char *rcpt)
{
    struct message *m = message_new(&t->budget);
    struct slice address = slice_str(rcpt);
    memcpy(m->id, CONTENT_ID, sizeof m->id);
    m->helo = SLICE("client.test");
    m->client = SLICE("192.0.2.1");
    m->sender = slice_str(sender);
    message_add_rcpt(m, address, slice_skip(address, slice_find(address, '@') + 1));
    return m;
}

/* Feeds all of `in` in pieces: `first` octets, then `piece` at a time. */
static inline void content_feed(struct smtp_content *c, bool is_chunked, struct slice in,
                                size_t first, size_t piece)
{
    enum dot_event event = DOT_MORE;
    for (size_t n = first, used = 0; in.len > 0; n = piece) {
        struct slice part = slice_head(in, n);
        char *copy = mem_alloc(part.len);
        memcpy(copy, part.ptr, part.len);
        must(event == DOT_MORE);
        if (is_chunked)
            smtp_content_feed_chunk(c, slice_of(copy, part.len));
        else
            event = smtp_content_feed(c, slice_of(copy, part.len), &used);
        must(is_chunked || used == part.len);
        in = slice_skip(in, part.len);
        free(copy);
    }
    must(is_chunked || event == DOT_END);
}

/* Ends both; free() the result's content. */
static inline struct content_result content_end(struct test_server *t, struct smtp_content *c,
                                                struct message *m)
{
    struct content_result r = { .reply = smtp_content_finish(c, &t->now) };
    smtp_content_free(c);
    r.content = test_flatten(&m->content);
    r.len = m->content.len;
    r.size = m->size;
    r.flags = m->flags;
    r.lane = m->lane;
    r.has_key = m->has_key;
    memcpy(r.key, m->key, sizeof r.key);
    memcpy(r.digest, m->digest, sizeof r.digest);
    message_unref(m);
    return r;
}

/* Takes m; free() the result's content. */
static inline struct content_result content_run(struct test_server *t, struct message *m,
                                                const struct smtp_content_policy *policy,
                                                bool is_chunked, struct slice in, size_t first,
                                                size_t piece)
{
    struct smtp_content *c = smtp_content_new(&t->server, m, policy, &t->now);
    content_feed(c, is_chunked, in, first, piece);
    return content_end(t, c, m);
}

/* True when both tell the same, octet by octet. */
static inline bool content_result_eq(const struct content_result *a, const struct content_result *b)
{
    return a->reply == b->reply && a->size == b->size && a->flags == b->flags &&
           a->lane == b->lane && a->has_key == b->has_key &&
           memcmp(a->key, b->key, sizeof a->key) == 0 &&
           memcmp(a->digest, b->digest, sizeof a->digest) == 0 &&
           slice_eq(slice_of(a->content, a->len), slice_of(b->content, b->len));
}

/* The octets that DATA would carry: what BDAT has in its chunks. `wire` has its final dot. */
static inline struct slice content_undot(struct slice wire, char *out)
{
    struct dot_decoder d;
    struct slice span;
    size_t len = 0, used;
    enum dot_event event;
    dot_decoder_init(&d);
    while ((event = dot_decode(&d, wire, &used, &span)) == DOT_SPAN) {
        memcpy(out + len, span.ptr, span.len);
        len += span.len;
        wire = slice_skip(wire, used);
    }
    must(event == DOT_END);
    return slice_of(out, len);
}
