/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * trace - what is known of a recipient who got mail from a return path of ours, for as long as
 * something may come back (bounces.kept): o:<queue id>.<recipient> in Redis.
 */
#include "core/smtp/return_path.h"
#include "queue/schema.h"

struct queue_trace {
    struct slice tenant;  /* "": none */
    struct slice rcpt;    /* mailbox */
    struct slice sender;  /* the envelope sender as it was submitted */
    int64_t delivered_ms; /* wall clock */
};

/* What FINISH_TRACE says. */
void queue_trace_encode(const struct return_path *path, const struct queue_trace *trace,
                        uint64_t kept_ms, struct buf *out);
/* A value in Redis; slices point into it. BAD: not one of ours. */
NODISCARD enum status queue_trace_decode(struct slice value, struct queue_trace *out);
