/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * relay_pool - decides which outbound connection carries which delivery.
 *
 * One pool per worker; never shared, never blocks, makes no system calls. The driver
 * (io/drive_relay.c) reports what happened and carries out what relay_pool_next asks.
 *
 * A destination (dest) has deliveries that wait, a list of hosts to try, and slots. A slot is one
 * connection:   CONNECTING -> READY <-> BUSY -> DRAINING -> gone
 * Rules: what waits is in lanes, and in a lane in lines of tenants that share by their weight
 * (pool_wait.c); urgent mail goes before all other, and a share of the connections is kept for it
 * (pool_pick.c). A warm READY slot is used first; another connection is opened when none is READY,
 * limits allow it, and more deliveries wait than the present connections will take soon;
 * connections that served messages_per_connection or idled too long are drained. A destination
 * whose every host failed backs off: its waiting deliveries are given back (the driver defers
 * them), and so are those that come before not_before_ms. Destinations take turns, so a long list
 * never starves another. What one host of a destination cannot take (its SIZE, an extension that it
 * lacks) goes to another one before it is given up. Limits: relay.connections_max in all,
 * relay.per_destination_max each. To add a rule: pick_* functions in pool_pick.c and a case in
 * test_pool.c or test_pool_lanes.c.
 */
#include "core/base/wheel.h"
#include "core/relay/retry.h"
#include "core/relay/sts.h"
#include "core/relay/tlsa.h"

#define SITE_DIGEST_MAX 20

/* One address to connect to. */
struct relay_host {
    struct sockaddr_storage addr; /* with port */
    socklen_t addr_len;
    char name[256]; /* MX host or smarthost name, for logs and Remote-MTA */
    struct tlsa_set tlsa;
    enum sts_mode sts;          /* of its domain's policy, which allows it */
    char site[SITE_DIGEST_MAX]; /* a digest of the names of all in its list */
};

enum relay_dest_state {
    DEST_NEW, /* hosts unknown: resolve */
    DEST_RESOLVING,
    DEST_OPEN,    /* hosts known */
    DEST_BACKOFF, /* every host failed; until not_before_ms */
};

/* What waits for a destination in one lane: lines of tenants (pool_wait.c). */
struct relay_lane {
    struct list turns;
    uint32_t count; /* deliveries */
};

/* Where a destination is listed (pool_inside.h). */
enum relay_dest_place {
    PLACE_NONE,
    PLACE_TURNS,
    PLACE_STARVED,
    PLACE_HOLDING,
    PLACE_RESTING,
    PLACE_SITE, /* wants what the limits of its site do not allow now */
};

/* What a destination wants of its site (pool_site.c). */
enum relay_site_want {
    WANT_URGENT, /* a connection for urgent mail */
    WANT_PLAIN,  /* one for other mail */
    WANT_TURN,   /* that a connection it has may take other mail */
    WANT_TOKEN,  /* to send a message */
};

struct relay_site;

struct relay_dest {
    struct list node; /* on the pool's list that `place` names */
    enum relay_dest_place place;
    struct relay_dest *hash_next;
    char key[DEST_KEY_MAX];
    const struct config_route *route;   /* borrowed; delivers, is not held */
    const struct config_source *source; /* borrowed; where its connections come from; NULL: the
                                           system chooses */
    enum relay_dest_state state;
    struct relay_lane lanes[LANE_COUNT]; /* by enum mail_lane */
    uint32_t waiting_count;              /* deliveries, of all lanes */
    uint32_t bulk_passed_by;             /* normal ones that went since bulk mail did */
    bool is_starved_urgent;              /* STARVED, for urgent mail */
    struct relay_site *site;             /* NULL: it has no limits, or its hosts are unknown */
    enum relay_site_want site_want;      /* with PLACE_SITE */
    struct list crowd; /* on the pool's crowds while as many wait as relay_pool_watch_crowds says */
    struct list misfits; /* deliveries that a host could not take, for another one */
    uint32_t misfit_count;
    struct relay_slot *misfit_slot; /* connecting for the first of them; NULL: none */
    struct list slots;
    struct list offers;   /* slots that are READY */
    struct list overlaps; /* BUSY ones that may take a second delivery; is_plain last */
    uint32_t slot_count;  /* in any state */
    uint32_t connecting_count;
    uint32_t draining_count;
    uint32_t plain_count;          /* slots that carry or did carry, see is_plain */
    uint32_t plain_draining_count; /* of them DRAINING */
    struct relay_host *hosts;      /* owned; in order of preference */
    size_t host_count;
    size_t host_next;      /* the host that new connections try */
    size_t hosts_failed;   /* of them, in this round; a message that is sent ends it */
    bool is_round_over;    /* every host failed, and no connection was begun since */
    uint32_t hosts_serial; /* which list of hosts this is; slots outlive theirs */
    bool is_sharing; /* its connections are as good for others with these hosts (pool_share.c) */
    int64_t hosts_expire_ms;    /* monotonic: resolve again before the next round */
    int64_t not_before_ms;      /* monotonic: no new connection before this */
    int64_t suspended_until_ms; /* monotonic: nothing is sent before, a rule said so; 0: none did */
    uint32_t failures;          /* rounds over all hosts that failed, in a row */
    struct rcpt_outcome failure; /* in BACKOFF: why; its text is in failure_text */
    char failure_text[256];
    char failure_host[256]; /* who said it; "" nobody */
};

enum relay_slot_state { SLOT_CONNECTING, SLOT_READY, SLOT_BUSY, SLOT_DRAINING };

struct relay_slot {
    struct list node; /* on its dest's slots */
    struct relay_dest *dest;
    enum relay_slot_state state;
    size_t host;           /* index into the hosts of its serial */
    uint32_t hosts_serial; /* dest->hosts_serial when it was made */
    char host_name[256];
    uint32_t in_flight;    /* transactions given and not finished */
    uint32_t messages;     /* transactions given in all */
    uint32_t messages_max; /* the peer's MAILMAX, set by the driver; 0: none (P-173) */
    int64_t idle_since_ms; /* monotonic; with READY */
    void *conn;            /* the driver's */
    struct list offer;     /* on its dest's offers or overlaps, while it may take a delivery */
    struct list share;     /* in a bucket, while it is READY and others may take it */
    struct list idle; /* on the pool's idle list while READY, on quits while it is to be closed */
    struct relay_site *site; /* that it counts for; NULL: none */
    struct list site_node;   /* on its site's slots */
    int64_t opened_ms;       /* monotonic; when it was greeted */
    bool is_closing;         /* the driver closes it: it takes nothing more, and needs no QUIT */
    bool is_asked;           /* RELAY_QUIT was given */
    bool is_downgraded;  /* in clear after TLS failed, set by the driver: nobody else takes it */
    bool is_for_misfits; /* made for what the usual host could not take */
    bool is_plain; /* took mail that is not urgent, and was not READY since: not of the share */
};

enum relay_action_kind {
    RELAY_NOTHING,
    RELAY_RESOLVE, /* find the hosts of action.dest, then relay_pool_resolved */
    RELAY_CONNECT, /* connect action.slot to action.host, then relay_pool_connected or _slot_gone */
    RELAY_SEND,    /* begin action.delivery on action.slot, then relay_pool_sent when it is over */
    RELAY_QUIT,    /* say QUIT on action.slot and close it, then relay_pool_slot_gone */
    RELAY_DEFER,   /* action.delivery: not tried, give it back to the queue (outcomes are set) */
};

struct relay_action {
    enum relay_action_kind kind;
    struct relay_dest *dest;
    struct relay_slot *slot;
    struct delivery *delivery;
    const struct relay_host *host; /* valid until the next call */
};

/* A question about a site: what this worker uses of its limits, and what it wants beside. */
struct relay_site_ask {
    uint32_t most, plain_most; /* connections of all nodes; those of them for mail not urgent */
    uint32_t kept, plain_kept; /* what is in use */
    uint32_t urgent, plain, turned;         /* wanted: the destination has no other, or it waits */
    uint32_t urgent_welcome, plain_welcome; /* ... it has some, and can use more */
    uint32_t tokens;                        /* messages to begin; 0: none, or no rate */
    uint32_t interval_us, burst; /* one more each interval, and so many at once; with tokens */
    bool asks_for_less;          /* a reply did, since the last question */
    uint32_t good;               /* messages that it took since */
};

struct relay_site_answer {
    uint32_t connections, plain; /* that this worker may have now, at most */
    bool is_queued;              /* it waits for more */
    uint32_t tokens;             /* messages that may begin, after wait_ms */
    uint32_t wait_ms;
    uint32_t pace; /* thousandths of its limits that it gets now */
};

struct relay_pool; /* pool.c */

struct relay_pool *relay_pool_new(const struct config *cfg);
void relay_pool_free(struct relay_pool *p);
void relay_pool_add(struct relay_pool *p, struct delivery *d); /* takes it */
/* The next thing to do now; call until RELAY_NOTHING. */
struct relay_action relay_pool_next(struct relay_pool *p, const struct now *now);
/* Monotonic ms when relay_pool_next may have something without an event; INT64_MAX: never. */
int64_t relay_pool_wake_ms(const struct relay_pool *p);

/* hosts is copied. With host_count 0, failure says why (stage DNS; code 5xx is permanent); a
 * destination that still has connections keeps the hosts it knew for a while. */
void relay_pool_resolved(struct relay_pool *p, struct relay_dest *dest,
                         const struct relay_host *hosts, size_t host_count, uint32_t ttl_ms,
                         const struct rcpt_outcome *failure, const struct now *now);
/* The slot greeted and may take deliveries. */
void relay_pool_connected(struct relay_pool *p, struct relay_slot *slot, const struct now *now);
/* The slot could take one more delivery (the client's overlap): relay_pool_next may answer SEND,
 * now or when a delivery comes, until its present transaction is over. */
void relay_pool_can_overlap(struct relay_pool *p, struct relay_slot *slot);
/* The driver has begun to close the connection: it takes nothing more. */
void relay_pool_slot_closing(struct relay_pool *p, struct relay_slot *slot);
/* One transaction of the slot is over, whatever came of it. */
void relay_pool_sent(struct relay_pool *p, struct relay_slot *slot, const struct now *now);
/* The connection is gone, and its transactions were told by relay_pool_sent before; failure NULL:
 * in good order, or after it had served (a stale connection says nothing about the host). One that
 * ends unasked before it served anything counts as failed all the same while deliveries wait.
 * Frees the slot. */
void relay_pool_slot_gone(struct relay_pool *p, struct relay_slot *slot,
                          const struct rcpt_outcome *failure, const struct now *now);
/* Puts a delivery back at the front of its destination (a stale connection lost it before DATA). */
void relay_pool_requeue(struct relay_pool *p, struct delivery *d);
/* Draining: no new work; waiting deliveries come out as RELAY_DEFER, slots as RELAY_QUIT when idle.
 */
void relay_pool_drain(struct relay_pool *p);
/* Takes waiting deliveries of a shard away whose lease was lost; the caller frees them. NULL: none
 * left. */
struct delivery *relay_pool_take_shard(struct relay_pool *p, uint16_t shard);
/* After relay_pool_sent: the slot's host lacks what the delivery needs, its outcomes say what.
 * True: the pool took it back, for another host of the destination, or to be deferred while that
 * cannot be reached. False: no other host is left, the outcomes stand (P-178). */
bool relay_pool_misfit(struct relay_pool *p, struct relay_slot *slot, struct delivery *d);
/* Nothing more is begun with the destination of that key until then (monotonic ms), or longer when
 * it was told so before: a reply of it asked for that. What waits is given back, and what comes
 * meanwhile; what is under way goes on. why is copied. */
void relay_pool_suspend(struct relay_pool *p, const char *key, int64_t until_ms,
                        const struct rcpt_outcome *why, const struct now *now);
/* Milliseconds until it ends; 0: it is not suspended. */
int64_t relay_pool_suspension_ms(const struct relay_pool *p, const char *key,
                                 const struct now *now);
/* Destinations for which at least so many deliveries wait are found by the next two. To be called
 * before anything waits. */
void relay_pool_watch_crowds(struct relay_pool *p, uint32_t least);
/* Deliveries that wait for a destination; 0 also when they are fewer than are watched for. */
uint32_t relay_pool_crowd(const struct relay_pool *p, const char *dest);
/* Fills keys with the destinations for which at least `most` wait; returns how many (at most max).
 * Borrowed until the next call of the pool. */
size_t relay_pool_crowded(const struct relay_pool *p, uint32_t most, const char **keys, size_t max);
uint32_t relay_pool_waiting(const struct relay_pool *p); /* deliveries waiting, all destinations */
uint32_t relay_pool_connections(const struct relay_pool *p); /* slots in any state */

/* --- limits that all nodes keep together (pool_site.c, io/relay_sites.c) ---------------------- */

/* The next site about which there is something to ask; NULL: none. It may begin nothing new until
 * relay_pool_site_answered, or _unanswered: it is to be asked about again. */
struct relay_site *relay_pool_site_next(struct relay_pool *p, struct relay_site_ask *ask);
/* Its name in Redis: a digest of the names of the MX hosts, or a smarthost and its port; and the
 * name of one of its hosts, for people. */
const char *relay_site_name(const struct relay_site *site);
const char *relay_site_host(const struct relay_site *site);
void relay_pool_site_answered(struct relay_pool *p, struct relay_site *site,
                              const struct relay_site_answer *answer, const struct now *now);
void relay_pool_site_unanswered(struct relay_pool *p, struct relay_site *site);
/* One piece of news (lua/sites.lua): a letter, and the site. */
void relay_pool_site_news(struct relay_pool *p, struct slice news);
/* Gives what others wait for, when it is time; asks again for what was not to be had, when
 * `again`. */
void relay_pool_sites_tick(struct relay_pool *p, bool again, const struct now *now);
/* The agreement with the others is void: nothing is allowed until it is asked for anew. */
void relay_pool_sites_void(struct relay_pool *p);
uint32_t relay_pool_sites(const struct relay_pool *p); /* that have limits */
bool relay_pool_asks(const struct relay_pool *p);      /* relay_pool_site_next has something */
/* A reply of the destination's site asked for less mail; a message was taken by it. */
void relay_pool_slow_down(struct relay_pool *p, const struct relay_slot *slot);
void relay_pool_went_well(struct relay_pool *p, const struct relay_slot *slot);
uint32_t relay_pool_slowed(const struct relay_pool *p);  /* sites with less than all */
uint32_t relay_site_pace(const struct relay_site *site); /* thousandths; 1000: all */
/* True when the slot counts for a site that has more than it may. */
bool relay_slot_is_excess(const struct relay_slot *slot);
