/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * pool_site - the inside of the pool's sites, shared by pool_site.c (who uses what),
 * pool_site_ask.c (questions and answers) and pool_pace.c (rates, and sites that ask for less).
 * Nobody else includes it but tests.
 */
#include "core/relay/pool_inside.h"

/* What all destinations with the same hosts may use together, here and elsewhere (pool_site.c). */
struct relay_site {
    struct list node; /* on the pool's sites */
    struct list hash; /* in its bucket */
    struct list ask;  /* on the pool's asks, when there is something to ask */
    struct list slots;
    struct list waiting;       /* destinations, by relay_dest.node */
    uint32_t refs;             /* destinations and slots */
    uint32_t most;             /* connections of all nodes; 0: any number */
    struct config_rate rate;   /* messages of all nodes; none: any number */
    struct list timed;         /* on the pool's, while tokens_from_ms is not over */
    uint32_t pace;             /* thousandths of what it may get, as Redis says */
    uint32_t good, good_asked; /* messages that it took, since and before the last question */
    bool is_cut, cut_asked;    /* a reply asked for less, likewise */
    int64_t pace_until_ms;     /* monotonic; below 1000 it is forgotten then */
    struct list slowed;        /* on the pool's, with pace below 1000 */
    uint32_t tokens;           /* messages that may begin ... */
    int64_t tokens_from_ms, tokens_until_ms;            /* ... between then (monotonic) and then */
    uint32_t allowed, plain_allowed;                    /* of this worker */
    uint32_t slot_count, connecting_count, plain_count; /* in use */
    char wanted;        /* a letter of lua/sites.lua: others wait; 0: nobody is known to */
    bool is_asked;      /* True exactly from relay_pool_site_next to its answer */
    bool is_known;      /* Redis has something of ours */
    bool is_queued;     /* Redis has it wait */
    uint32_t asked_for; /* connections, in all */
    int asked, refused; /* how much the last question, and what was refused, mattered */
    bool is_giving;     /* plain ones that are not in use are given back */
    size_t host;        /* where the host's name begins in `name` */
    char name[];        /* and, behind its NUL, that of a host */
};

#define SITE_BUCKETS 16384
#define PACE_FULL    1000
#define GOOD_TOLD    20 /* messages taken, by a slowed site, before Redis is told */

/* Redis is asked about its limits all the time. */
static inline bool pool_site_is_limited(const struct relay_site *site)
{
    return site->most > 0 || site->rate.messages > 0;
}

void pool_site_free(struct relay_pool *p, struct relay_site *site); /* nothing is of it */
/* There may be something to ask about it. */
void pool_site_touch(struct relay_pool *p, struct relay_site *site);
/* Those that wait may find what they want, as many as there is something for. */
void pool_site_wake(struct relay_pool *p, struct relay_site *site);
/* 0: it can do without; 1: welcome; 2: it has nothing; 3: and that for urgent mail. */
int pool_site_importance(const struct relay_dest *dest);

/* pool_pace.c */

/* What a question says of its rate. */
void pool_site_ask_rate(const struct relay_site *site, struct relay_site_ask *ask);
void pool_site_take_tokens(struct relay_pool *p, struct relay_site *site,
                           const struct relay_site_answer *answer, const struct now *now);
void pool_site_drop_tokens(struct relay_site *site);
void pool_site_set_pace(struct relay_pool *p, struct relay_site *site, uint32_t pace,
                        const struct now *now);
/* Of those that nobody has mail for, and that were slowed long ago. */
void pool_sites_forget_pace(struct relay_pool *p, const struct now *now);
