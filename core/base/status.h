/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * status - what the world answered. The third kind of trouble: not our bug (must.h), not the
 * peer's choice (a reply), but memory bounds, missing things and bad bytes.
 */
#define NODISCARD         __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* X(name, what an operator reads) */
#define STATUS_TABLE(X)                                                                            \
    X(OK, "ok")                                                                                    \
    X(MORE, "more input is needed")                                                                \
    X(FULL, "the buffer or pool has reached its limit")                                            \
    X(BAD, "the input does not follow its grammar")                                                \
    X(MISSING, "no such thing")                                                                    \
    X(REFUSED, "the other side refused")                                                           \
    X(SYSTEM, "the operating system refused")

enum status {
#define X(name, text) STATUS_##name,
    STATUS_TABLE(X)
#undef X
};

static inline const char *status_text(enum status st)
{
    static const char *const texts[] = {
#define X(name, text) text,
        STATUS_TABLE(X)
#undef X
    };
    return texts[st];
}
