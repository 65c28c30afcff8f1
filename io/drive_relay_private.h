/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * drive_relay_private - the relay driver's inside, shared by drive_relay.c (deliveries, what the
 * pool asks), relay_outbound.c (one connection), relay_secure.c (its TLS and login), relay_report.c
 * (what TLS reports tell of it) and relay_body.c (content on its way).
 */
#include "core/relay/pool.h"
#include "io/drive_relay.h"
#include "io/relay_return.h"
#include "io/relay_sites.h"
#include "io/relay_sources.h"
#include "io/settle.h"
#include "io/tls_reports.h"
#include "io/webhook.h"

/* The body that is being written. */
struct body {
    struct smtp_txn *txn; /* borrowed; NULL: none */
    struct dot_stuffer stuffer;
    bool has_begun;            /* the signature is written */
    char tail[2];              /* the last octets written; CR LF at the very start */
    uint64_t written;          /* octets of content */
    uint32_t chunk;            /* the next chunk to ask for */
    struct queue_chunk *asked; /* borrowed; the chunk on its way */
};

enum outbound_way {
    OUTBOUND_USUAL,
    OUTBOUND_HELO,  /* once more: the peer hung up on EHLO (P-163) */
    OUTBOUND_CLEAR, /* once more: TLS failed, and the route can do without (P-192) */
};

struct outbound {
    struct list node; /* on the driver's outbounds */
    struct relay_driver *r;
    struct relay_slot *slot; /* borrowed; the pool's */
    struct conn *conn;       /* borrowed; ours until on_closed */
    struct smtp_client client;
    struct wheel_timer timer;
    struct body body;
    struct list pins;
    struct sockaddr_storage addr; /* where it is connected to */
    socklen_t addr_len;
    struct tlsa_set tlsa;  /* what DANE demands of the peer */
    enum sts_mode sts;     /* what MTA-STS does, where DANE is silent (P-201) */
    char *secret;          /* owned; the password or token of the route; NULL: no login */
    enum outbound_way way; /* how it is tried */
    bool was_ready;        /* greeted and EHLO done: the pool knows */
    bool has_served;       /* a transaction has ended well on it */
    bool is_closing;       /* conn_finish or conn_close was called */
    bool hung_up_on_ehlo;  /* the peer did */
    bool is_abandoned;     /* the worker ends: it is not tried again */
    bool is_told;          /* it is in the TLS reports */
};

/* What this worker has of one shard. */
struct relay_shard {
    uint32_t held; /* deliveries in memory */
    int64_t
        barred_until_ms; /* monotonic; nothing is claimed before, nor while a lost one is held */
    bool is_barred;
};

struct relay_driver {
    struct worker *w; /* borrowed */
    struct relay_pool *pool;
    struct resolver *resolver;
    struct tls_client *tls;        /* owned */
    struct sts_store *sts;         /* owned */
    struct tls_reports *reports;   /* owned; NULL: none are made */
    struct webhook *webhook;       /* owned; NULL: another worker posts, or nobody */
    struct relay_sites *sites;     /* owned */
    struct relay_sources *sources; /* owned */
    struct list outbounds;
    struct list lookups; /* at the resolver */
    struct settle settle;
    uint32_t held;                /* deliveries in memory */
    uint32_t held_of[LANE_COUNT]; /* of those, of each lane */
    uint32_t in_flight;           /* of those, on a connection */
    uint32_t held_max;
    struct relay_shard *shards; /* owned; one for each shard */
    bool is_waiting_for_lease;  /* the last pump stopped at a delivery without a live lease */
};

/* relay_outbound.c */

/* Connects the slot; it is gone at once when there is no socket for it. */
void outbound_connect(struct relay_driver *r, struct relay_slot *slot,
                      const struct relay_host *host);
/* Begins a delivery that the slot may take. */
void outbound_send(struct outbound *o, struct delivery *d);
void outbound_quit(struct outbound *o);
/* One turn: says what is to be said, collects what is over. */
void outbound_pump(struct outbound *o);
/* Ends it now, as if lost; why is static. */
void outbound_give_up(struct outbound *o, const char *why);
/* Closes it; gently: after what it still has to say. */
void outbound_close(struct outbound *o, bool gently);

/* relay_secure.c */

/* What the route, DANE and MTA-STS demand of a connection. *secret becomes the caller's, NULL
 * without a login. False: the secret cannot be read, and `why` says so. */
bool outbound_policy(const struct config_route *route, const struct relay_host *host,
                     enum outbound_way way, struct client_policy *policy, char **secret, char *why,
                     size_t cap);
void outbound_free_secret(char *secret); /* wiped; NULL is harmless */
void outbound_start_tls(struct outbound *o);
/* The handshake is over: finds out whom it was with, and tells the machine, or ends it. */
void outbound_take_tls(struct outbound *o);
const char *outbound_tls_error(const struct outbound *o);
/* Whose policy the connection is held to, as TLS reports tell it. */
enum tls_policy outbound_tls_policy(const struct outbound *o);

/* relay_report.c; these do nothing where no reports are made. */

/* Counts a connection, the first time. */
void outbound_report_tls(struct outbound *o, enum tls_policy policy, enum tls_outcome outcome);
/* It is what it is going to be: counts one that is not encrypted although it should be. */
void outbound_report_clear(struct outbound *o);
/* Counts that a policy left no host to connect to. */
void relay_report_no_host(struct relay_driver *r, const struct relay_dest *dest,
                          enum tls_policy policy, enum tls_outcome outcome);

/* relay_body.c */

void body_begin(struct outbound *o, struct smtp_txn *txn);
/* One step: the next chunk is asked for, or the rest is written. False: it waits, or the connection
 * was given up. */
bool body_write(struct outbound *o);
/* The transaction is over, written or not. */
void body_end(struct outbound *o);
/* Lets go of what lies before stream offset `sent`. */
void body_unpin(struct outbound *o, uint64_t sent);
