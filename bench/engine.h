/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * engine - the gateway's ring and connections, in one thread, for the tools that load it.
 *
 * Life: engine_init -> engine_turn ... -> engine_done, when no connection is left
 */
#include "io/conn.h"

struct engine {
    struct ring *ring; /* owned */
    struct wheel wheel;
    struct now now;
    struct metrics metrics;
    struct conn_table conns;
    bool has_more; /* a connection has something to do at once */
};

/* For up to so many connections. Ends the process when the machine does not let it. */
void engine_init(struct engine *e, const char *tool, uint32_t connections);
void engine_done(struct engine *e);
/* One turn: waits up to wait_ms (0: not at all) for something to happen, and gathers `expected`
 * completions where many talk; then `pump` has its say, and what was appended leaves. */
void engine_turn(struct engine *e, int64_t wait_ms, uint32_t expected, void (*pump)(void *),
                 void *ctx);
/* Monotonic nanoseconds, now. */
int64_t engine_ns(void);
/* User and system seconds of this process so far. */
double engine_cpu_s(void);

/* "ADDRESS:PORT", "[V6]:PORT". Ends the process, with a word about `option`, when it is none. */
socklen_t engine_address(const char *tool, const char *option, const char *text,
                         struct sockaddr_storage *out);
/* Says why and ends the process with status 2. */
_Noreturn void engine_die(const char *tool, const char *format, ...) PRINTF_LIKE(2, 3);
/* A number between least and most, given to that option; ends the process when it is none. */
uint64_t engine_number(const char *tool, const char *option, const char *text, uint64_t least,
                       uint64_t most);
/* SIGINT and SIGTERM set the first, SIGUSR1 the second; who answers it clears it. */
extern volatile int engine_is_told_to_stop, engine_is_asked;
