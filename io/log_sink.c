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
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_MAX (128 * 1024)

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
    if (done->result < 0 && done->result != -EINTR && done->result != -EAGAIN) {
        s->has_failed = true;
        return;
    }
    if (done->result > 0)
        s->written += (uint32_t)done->result;
    if (s->written < s->writing.len)
        submit(s);
}

void log_sink_pump(struct log_sink *s)
{
    if (s->has_failed) {
        buf_clear(&s->log->out);
        return;
    }
    if (s->is_writing || s->log->out.len == 0)
        return;
    struct buf spent = s->writing;
    s->writing = s->log->out;
    s->log->out = spent;
    buf_clear(&s->log->out);
    s->written = 0;
    submit(s);
}

static void write_all(int fd, struct slice rest)
{
    while (rest.len > 0) {
        ssize_t n = write(fd, rest.ptr, rest.len);
        if (n < 0 && errno != EINTR)
            return;
        rest = slice_skip(rest, n > 0 ? (size_t)n : 0);
    }
}

void log_sink_finish(struct log_sink *s)
{
    if (!s->has_failed) {
        write_all(s->fd, slice_skip(buf_slice(&s->writing), s->written));
        write_all(s->fd, buf_slice(&s->log->out));
    }
    buf_clear(&s->log->out);
    buf_done(&s->writing);
}
