/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * source - what kilat-source is told to do, and what it counts.
 *
 * One thread. source.c reads the command line, decides which message begins when, and reports;
 * source_session.c holds one conversation.
 */
#include "bench/engine.h"
#include "bench/histogram.h"
#include "bench/numbers.h"
#include "io/tls.h"

#define SOURCE_SIZES 8
#define SOURCE_DEPTH 16 /* transactions under way on one connection */

enum source_tls { SOURCE_CLEAR, SOURCE_STARTTLS, SOURCE_IMPLICIT };

struct source_size {
    uint32_t octets, weight;
    char *body; /* owned; what follows the header */
    uint32_t body_len;
};

struct source_options {
    struct sockaddr_storage addr;
    socklen_t addr_len;
    uint32_t sessions, idle, depth;
    uint64_t messages;       /* in all */
    uint64_t per_connection; /* messages; 0: EHLO and QUIT are all that is said */
    uint64_t warm_up;        /* messages that do not count */
    uint32_t seconds;        /* 0: until all messages are sent */
    uint32_t rate;           /* messages a second, at fixed times; 0: as fast as they are taken */
    bool is_pipelining, has_bdat, resumes;
    enum source_tls tls;
    const char *user, *password;
    const char *sender, *rcpt; /* borrowed */
    uint32_t rcpts, domains;   /* recipients of a message; destinations, 0: that of rcpt */
    struct source_size sizes[SOURCE_SIZES];
    uint32_t size_count, weights;
    bool is_random; /* the body is noise: what compresses nothing sees */
};

/* All from the end of the warm-up on, but for those that say otherwise. */
struct source_counts {
    uint64_t accepted;
    uint64_t tempfailed, rejected; /* answered 4yz, 5yz, at any stage */
    uint64_t lost;                 /* connection lost before the answer */
    uint64_t connections, failed;  /* opened; not opened, or lost before EHLO was answered */
    uint64_t octets;               /* of accepted contents */
};

struct source {
    struct source_options o;
    struct engine engine;
    struct tls_client *tls;
    uint32_t run;
    struct source_session *sessions;    /* owned; idle ones behind the others */
    struct list ready;                  /* sessions that may begin a message */
    struct list closed;                 /* ... that are to connect */
    uint32_t connecting;                /* on the way to a reply to EHLO */
    uint32_t held;                      /* idle ones that are there */
    uint32_t talking;                   /* with something unanswered */
    uint64_t begun, ended;              /* messages, the warm-up's too */
    int64_t opened_ns;                  /* the first connection */
    int64_t began_ns, warm_ns, last_ns; /* first message; end of the warm-up; last answer */
    double warm_cpu_s;
    bool is_over; /* nothing new is begun */
    struct source_counts counts;
    struct histogram *end_to_250; /* from the last octet of content to its reply */
    struct histogram *due_to_250; /* ... from when the message was to begin */
    struct histogram *late;       /* ... from when it was to begin to when it did */
    struct numbers acknowledged;  /* the warm-up's too */
};

/* source_session.c */

struct source_txn {
    uint64_t number;
    int64_t due_ns, end_ns;
    uint32_t size; /* index into sizes */
    uint32_t left; /* recipients not yet answered, or not yet said */
    int refused;   /* the first reply that refused it; 0: none */
};

struct source_session {
    struct source *s; /* borrowed */
    struct conn *conn;
    struct list node; /* on ready or closed */
    struct wheel_timer again;
    bool is_idle;  /* one of those that only stay */
    bool is_up;    /* EHLO, and what follows, is done */
    bool is_ready; /* on the ready list */
    bool is_quitting;
    bool awaits_354;
    bool is_secure;
    bool offers_pipelining, offers_chunking;
    uint64_t begun;                       /* messages on this connection */
    struct source_txn txns[SOURCE_DEPTH]; /* those under way, oldest at `first` */
    uint32_t first, count;
    uint8_t expects[64]; /* enum source_reply, oldest at expect_first */
    uint32_t expect_first, expect_count;
    char line[1024]; /* a reply line that came in part */
    uint32_t line_len;
};

void source_session_init(struct source_session *ss, struct source *s, bool is_idle);
void source_session_connect(struct source_session *ss);
/* Begins a message that was to begin at due_ns; only one that is ready. */
void source_session_begin(struct source_session *ss, uint64_t number, int64_t due_ns);
/* Nothing more is sent: it ends as soon as nothing is under way. */
void source_session_wind_up(struct source_session *ss);
