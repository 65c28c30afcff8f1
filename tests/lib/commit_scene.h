/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * commit_scene - a committer, a scripted Redis, messages and finished work, for tests of the group
 * commit. Header only: every test is one program.
 */
#include "tests/lib/fake_redis.h"

#include "core/base/list.h"
#include "queue/commit.h"

#define WORKER "0123456789abcdef"

/* --- a message and its owner ----------------------------------------------------------------- */

struct mail {
    struct commit_entry entry;
    struct commit_target targets[3];
    uint32_t calls;
    enum smtp_verdict verdict;
    uint32_t order; /* of the answer, among all */
};

static uint32_t answers; /* counts answers of every kind */

static inline void on_verdict(struct commit_entry *entry, enum smtp_verdict verdict)
{
    struct mail *m = container_of(entry, struct mail, entry);
    m->calls++;
    m->verdict = verdict;
    m->order = ++answers;
    message_unref(entry->message);
    entry->message = NULL;
}

static const uint32_t first_rcpt[] = { 0 };

static inline void fill_message(struct message *m, uint32_t number, size_t size)
{
    char *content = mem_alloc(size);
    memset(content, 'a' + (int)(number % 26), size);
    snprintf(m->id, sizeof m->id, "m%019u", number);
    m->sender = SLICE("a@example.org");
    message_add_rcpt(m, SLICE("b@example.net"), SLICE("example.net"));
    for (size_t at = 0; at < size; at += 1000) /* as it comes from a socket */
        chain_append(&m->content, slice_head(slice_of(content + at, size - at), 1000));
    m->size = size;
    m->accepted_ms = 1000;
    free(content);
}

static inline struct mail *mail_new(uint32_t number, size_t size, int64_t deadline_ms)
{
    struct mail *m = mem_zalloc(sizeof *m);
    m->entry = (struct commit_entry){ .message = message_new(NULL),
                                      .targets = m->targets,
                                      .target_count = 1,
                                      .shard = COMMIT_ANY_SHARD,
                                      .expires_ms = 2000,
                                      .deadline_ms = deadline_ms,
                                      .done = on_verdict };
    list_init(&m->entry.with);
    fill_message(m->entry.message, number, size);
    for (size_t k = 0; k < ARRAY_LEN(m->targets); k++) {
        snprintf(m->targets[k].dest, DEST_KEY_MAX, "d%zu.example", k);
        m->targets[k].rcpts = first_rcpt;
        m->targets[k].rcpt_count = 1;
    }
    return m;
}

/* --- finished work --------------------------------------------------------------------------- */

struct work {
    uint32_t calls, order;
    bool was_lost;
};

static inline void on_finished(struct commit_finish *f, bool was_lost)
{
    struct work *w = f->owner;
    w->calls++;
    w->was_lost = was_lost;
    w->order = ++answers;
    commit_finish_free(f);
}

static inline struct commit_finish *finish_new(struct work *w, enum commit_finish_kind kind,
                                               uint16_t shard, uint32_t number)
{
    char id[DELIVERY_ID_MAX];
    snprintf(id, sizeof id, "f%019u", number);
    struct commit_finish *f = commit_finish_new(kind, shard, id);
    f->owner = w;
    f->done = on_finished;
    f->delay_ms = 60000;
    if (kind != FINISH_DONE && kind != FINISH_RELEASE)
        assert_int_equal(buf_append(&f->item, SLICE("text")), STATUS_OK);
    return f;
}

/* --- the scene ------------------------------------------------------------------------------- */

struct scene {
    struct fake_redis redis;
    struct metrics metrics;
    struct committer *c;
    struct now now;
    uint64_t last; /* number of the last batch */
    bool is_slow;  /* batches are not reported as sent at once */
};

static inline void scene_init(struct scene *s, uint16_t shards)
{
    memset(s, 0, sizeof *s);
    struct commit_config cfg = { .shards = shards, .lease_ms = 5000, .worker = WORKER };
    cfg.metrics = &s->metrics;
    fake_init(&s->redis);
    s->now = (struct now){ .mono_ms = 10000, .wall_ms = 1000 };
    s->c = commit_new(&cfg);
    answers = 0;
}

static inline void scene_done(struct scene *s)
{
    redis_link_lost(&s->redis.link);
    commit_free(s->c);
    fake_done(&s->redis);
}

static inline struct mail *add(struct scene *s, uint32_t number)
{
    struct mail *m = mail_new(number, 100, s->now.mono_ms + 30000);
    commit_add(s->c, &m->entry, &s->now);
    return m;
}

/* One turn with so many busy sessions; returns how many batches went. */
static inline uint32_t turn(struct scene *s, uint32_t busy)
{
    uint32_t n = 0;
    uint64_t number;
    while (commit_next(s->c, &s->redis.link, busy, &s->redis.out, &s->now, &number)) {
        assert_true(number > s->last);
        s->last = number;
        n++;
    }
    if (n > 0 && !s->is_slow) {
        fake_take(&s->redis);
        commit_sent(s->c, s->last);
    }
    commit_tick(s->c, &s->now);
    return n;
}

static inline const struct fake_command *unanswered(struct scene *s, size_t n)
{
    assert_true(s->redis.answered + n < s->redis.count);
    return &s->redis.commands[s->redis.answered + n];
}

static inline void expect_verdict(const struct mail *m, enum smtp_verdict verdict)
{
    assert_int_equal(m->calls, 1);
    assert_int_equal(m->verdict, verdict);
}
