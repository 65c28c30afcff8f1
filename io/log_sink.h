/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * log_sink - writes a worker's log lines through the ring: one write in flight, whole lines at a
 * time. A sink that stalls never stops the loop; lines collect in the log until that is full.
 */
#include "core/base/log.h"
#include "io/ring.h"

struct log_sink {
    struct ring *ring;  /* borrowed */
    struct log *log;    /* borrowed */
    int fd;             /* borrowed */
    uint32_t write_max; /* octets a write may have and still be one piece among other writers */
    struct buf writing; /* on its way; its first `written` octets have left */
    uint32_t written;
    int64_t retry_at_ms; /* monotonic; no write is tried before */
    bool is_writing;     /* True exactly while a write is submitted and not completed */
    bool has_failed;     /* the file is gone: lines are dropped */
};

void log_sink_init(struct log_sink *s, struct ring *ring, struct log *log, int fd);
void log_sink_pump(struct log_sink *s); /* at the end of a turn */
void log_sink_finish(
    struct log_sink *s); /* writes what is left, blocking; the ring is idle or gone */
