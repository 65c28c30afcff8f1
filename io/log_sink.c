/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers share one descriptor (a terminal, a pipe, a file opened for append). A write to a pipe is
 * one piece up to PIPE_BUF octets, to a file of any size; so writes are cut at line ends below
 * that, and lines of two workers never mix.
 */
#include "io/log_sink.h"
#include "core/base/must.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_MAX (128 * 1024)
#define RETRY_MS  100  /* after a write that failed: the disk is full, the reader is slow */
#define FINISH_MS 1000 /* for each piece of what is left at the end */

static void on_written(void *ctx, const struct ring_done *done);

void log_sink_init(struct log_sink *s, struct ring *ring, struct log *log, int fd)
{
    struct stat st;
    *s = (struct log_sink){ .ring = ring, .log = log, .fd = fd, .write_max = PIPE_BUF };
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        s->write_max = WRITE_MAX;
    buf_init(&s->writing, LOG_OUT_MAX);
    ring_on(ring, RING_WRITE, on_written, s);
}

/* The octets of whole lines that one write may carry; at least one line. */
static uint32_t piece(const struct log_sink *s)
{
    struct slice left = slice_skip(buf_slice(&s->writing), s->written);
    if (left.len <= s->write_max)
        return (uint32_t)left.len;
    const char *end = memrchr(left.ptr, '\n', s->write_max);
    if (!end)
        end = memchr(left.ptr, '\n', left.len);
    return end ? (uint32_t)(end - left.ptr) + 1 : (uint32_t)left.len;
}

static void submit(struct log_sink *s)
{
    s->is_writing = true;
    ring_write(s->ring, s->fd, s->writing.ptr + s->written, piece(s),
               (struct ring_tag){ RING_WRITE, 0, 0 });
}

static void on_written(void *ctx, const struct ring_done *done)
{
    struct log_sink *s = ctx;
    s->is_writing = false;
    if (done->result == -EPIPE || done->result == -EBADF) {
        s->has_failed = true; /* nobody will ever read it */
        return;
    }
    if (done->result < 0) {
        s->retry_at_ms = s->log->now->mono_ms + RETRY_MS;
        return;
    }
    s->written += (uint32_t)done->result;
    if (s->written < s->writing.len)
        submit(s);
}

static void drop_lines(struct log *log)
{
    for (uint32_t i = 0; i < log->out.len; i++)
        log->dropped += log->out.ptr[i] == '\n';
    buf_clear(&log->out);
}

void log_sink_pump(struct log_sink *s)
{
    if (s->has_failed) {
        drop_lines(s->log);
        return;
    }
    if (s->is_writing || s->log->now->mono_ms < s->retry_at_ms)
        return;
    if (s->written < s->writing.len) {
        submit(s);
        return;
    }
    if (s->log->out.len == 0)
        return;
    struct buf spent = s->writing;
    s->writing = s->log->out;
    s->log->out = spent;
    buf_clear(&s->log->out);
    s->written = 0;
    submit(s);
}

/* Blocking, but not for ever: a reader that is stuck does not keep the process from ending. */
static void write_all(int fd, struct slice rest)
{
    struct pollfd ready = { .fd = fd, .events = POLLOUT };
    while (rest.len > 0 && poll(&ready, 1, FINISH_MS) == 1) {
        ssize_t n = write(fd, rest.ptr, rest.len < PIPE_BUF ? rest.len : PIPE_BUF);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        rest = slice_skip(rest, n > 0 ? (size_t)n : 0);
    }
}

void log_sink_finish(struct log_sink *s)
{
    /* A write that never completed may still read its octets: they are left where they are. */
    if (s->is_writing)
        return;
    if (!s->has_failed) {
        write_all(s->fd, slice_skip(buf_slice(&s->writing), s->written));
        write_all(s->fd, buf_slice(&s->log->out));
    }
    buf_clear(&s->log->out);
    buf_done(&s->writing);
}
