/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * fake_redis - the other end of a redis_link, played by a test: what was sent is cut into commands,
 * and the test says what Redis answers. Header only: every test is one program.
 */
#include "core/base/must.h"
#include "queue/redis_link.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define FAKE_COMMANDS_MAX 4096

struct fake_command {
    struct slice *argv; /* owned array; slices point into the fake's bytes */
    size_t argc;
};

struct fake_redis {
    struct redis_link link;
    struct gather out; /* what the machine under test appends to */
    struct fake_command commands[FAKE_COMMANDS_MAX];
    size_t count, answered; /* commands taken so far; of them answered */
    char *bytes[FAKE_COMMANDS_MAX];
    size_t bytes_count;
};

static inline void fake_init(struct fake_redis *f)
{
    memset(f, 0, sizeof *f);
    redis_link_init(&f->link);
    gather_init(&f->out);
}

static inline void fake_forget(struct fake_redis *f)
{
    for (size_t i = 0; i < f->count; i++)
        free(f->commands[i].argv);
    for (size_t i = 0; i < f->bytes_count; i++)
        free(f->bytes[i]);
    f->count = f->answered = f->bytes_count = 0;
}

static inline void fake_done(struct fake_redis *f)
{
    fake_forget(f);
    gather_done(&f->out);
    redis_link_done(&f->link);
}

static inline size_t fake_number(const char **at, char mark)
{
    assert_int_equal(**at, mark);
    char *end;
    size_t n = strtoul(*at + 1, &end, 10);
    assert_memory_equal(end, "\r\n", 2);
    *at = end + 2;
    return n;
}

/* Cuts everything in `out` into commands and empties it, as if all of it had been sent. Returns how
 * many there were. */
static inline size_t fake_take(struct fake_redis *f)
{
    size_t before = f->count, len = 0;
    char *bytes = mem_alloc(f->out.octets + 1);
    for (uint32_t part = 0; part < f->out.part_count; part++) {
        struct iovec iov;
        assert_int_equal(gather_iov(&f->out, part, 0, &iov, 1), 1);
        memcpy(bytes + len, iov.iov_base, iov.iov_len);
        len += iov.iov_len;
    }
    assert_int_equal(len, f->out.octets);
    bytes[len] = 0;
    f->bytes[f->bytes_count++] = bytes;
    for (const char *at = bytes; at < bytes + len;) {
        assert_true(f->count < FAKE_COMMANDS_MAX);
        struct fake_command *c = &f->commands[f->count++];
        c->argc = fake_number(&at, '*');
        c->argv = mem_zalloc(c->argc * sizeof *c->argv);
        for (size_t i = 0; i < c->argc; i++) {
            size_t octets = fake_number(&at, '$');
            c->argv[i] = slice_of(at, octets);
            at += octets;
            assert_memory_equal(at, "\r\n", 2);
            at += 2;
        }
    }
    gather_clear(&f->out);
    return f->count - before;
}

/* True when the command's words begin with these; NULL ends. */
static inline bool fake_is(const struct fake_command *c, ...)
{
    va_list words;
    bool is_same = true;
    va_start(words, c);
    for (size_t i = 0; is_same; i++) {
        const char *word = va_arg(words, const char *);
        if (!word)
            break;
        is_same = i < c->argc && slice_eq(c->argv[i], slice_str(word));
    }
    va_end(words);
    return is_same;
}

static inline void fake_say(struct fake_redis *f, const char *reply)
{
    assert_int_equal(redis_link_feed(&f->link, slice_str(reply)), STATUS_OK);
}

/* How many commands stand before the next EXEC, MULTI not counted; the first unanswered command
 * must be MULTI. */
static inline size_t fake_transaction(const struct fake_redis *f)
{
    size_t n = 0;
    assert_true(fake_is(&f->commands[f->answered], "MULTI", NULL));
    while (!fake_is(&f->commands[f->answered + 1 + n], "EXEC", NULL)) {
        n++;
        assert_true(f->answered + 1 + n < f->count);
    }
    return n;
}

/* What Redis says to one command of ours when all is well. */
static inline const char *fake_success(const struct fake_command *c)
{
    if (fake_is(c, "SET", NULL))
        return "+OK\r\n";
    return fake_is(c, "FCALL", "kilat_enq", NULL) ? "*2\r\n*0\r\n*0\r\n" : "*0\r\n";
}

/* Answers the oldest transaction: `replies[i]` for its command i, NULL for success. */
static inline void fake_exec(struct fake_redis *f, const char *const *replies)
{
    size_t n = fake_transaction(f);
    char text[32];
    fake_say(f, "+OK\r\n");
    for (size_t i = 0; i < n; i++)
        fake_say(f, "+QUEUED\r\n");
    snprintf(text, sizeof text, "*%zu\r\n", n);
    fake_say(f, text);
    for (size_t i = 0; i < n; i++)
        fake_say(f, replies && replies[i] ? replies[i]
                                          : fake_success(&f->commands[f->answered + 1 + i]));
    f->answered += n + 2;
}

/* Refuses the oldest transaction: its first command already, with this error. */
static inline void fake_abort(struct fake_redis *f, const char *error)
{
    size_t n = fake_transaction(f);
    fake_say(f, "+OK\r\n");
    for (size_t i = 0; i < n; i++)
        fake_say(f, error);
    fake_say(f, "-EXECABORT Transaction discarded because of previous errors.\r\n");
    f->answered += n + 2;
}

/* Answers one command that stands alone. */
static inline void fake_answer(struct fake_redis *f, const char *reply)
{
    assert_true(f->answered < f->count);
    fake_say(f, reply);
    f->answered++;
}

/* The connection is gone, with all that was not answered. */
static inline void fake_lose(struct fake_redis *f)
{
    gather_clear(&f->out);
    redis_link_lost(&f->link);
    f->answered = f->count;
}
