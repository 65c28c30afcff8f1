/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * log - one line per event, as JSON or plain key=value text, built in memory.
 *
 * A line names an event ("msg.accepted") and carries keys and values; log_end closes it. Control
 * characters, quotes and bytes that are not UTF-8 are escaped in both forms (P-121), values are cut
 * at LOG_VALUE_MAX. Lines collect in `out`; io/log_sink.c writes them out. When the sink stalls and
 * `out` is full, whole lines are dropped and counted: a slow disk never stops mail.
 *
 * To add an event: call log_begin with its name and describe it in docs/logs.md.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"

#define LOG_VALUE_MAX 512           /* octets of one value before escaping */
#define LOG_OUT_MAX   (1024 * 1024) /* octets waiting for the sink */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_PLAIN, LOG_JSON };

struct log {
    struct buf out; /* whole lines, each ended by LF */
    enum log_format format;
    enum log_level level;  /* less than this is not written */
    uint64_t dropped;      /* lines that found no room */
    uint32_t line_start;   /* offset in out of the line being built */
    bool line_is_open;     /* True exactly between log_begin and log_end */
    bool line_is_lost;     /* True when the open line found no room or is below the level */
    const struct now *now; /* borrowed: the worker's clock reading of this turn */
    int64_t stamp_ms;      /* private: wall time that `stamp` shows; -1: none yet */
    char stamp[CLOCK_DATE_MAX];
};

void log_init(struct log *l, enum log_format format, enum log_level level, const struct now *now);
void log_done(struct log *l);
void log_begin(struct log *l, enum log_level level, const char *event);
void log_str(struct log *l, const char *key, struct slice value);
void log_cstr(struct log *l, const char *key, const char *value);
void log_num(struct log *l, const char *key, int64_t value);
void log_end(struct log *l);
