/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * config - what the operator wrote, checked and turned into numbers.
 *
 * config_parse takes the text (io/ reads the file) in the UCL form of README.md: `key = value;`,
 * `section { ... }`, `section "name" { ... }`, lists in [ ], comments with #, sizes (10m) and
 * durations (5s, 10min, 5d) with a unit. Settings are rows of settings_table.h: name, type, range,
 * default, unit, prose; the parser, the defaults and docs/configuration.md grow from them.
 * Anything unknown, misplaced, out of range or twice is an error that names file, line and key.
 *
 * Life: config_parse makes it, workers borrow it read-only, config_free ends it.
 * To add a setting: a row in settings_table.h and a field here.
 */
#include "core/base/buf.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

enum redis_mode { REDIS_EMBEDDED, REDIS_EXTERNAL };
enum tls_mode { TLS_OFF, TLS_STARTTLS, TLS_IMPLICIT };
enum auth_mode {
    AUTH_OFF,      /* never offered: `networks` decides */
    AUTH_OPTIONAL, /* clients in `networks` may submit without; all others must authenticate */
    AUTH_REQUIRED, /* everybody must */
};
/* Bits, in the order of the words of auth.mechanisms. */
enum auth_mechanism {
    AUTH_PLAIN = 1 << 0,
    AUTH_LOGIN = 1 << 1,
    AUTH_SCRAM_SHA_256 = 1 << 2,
    AUTH_SCRAM_SHA_256_PLUS = 1 << 3,
    AUTH_OAUTHBEARER = 1 << 4,
    AUTH_XOAUTH2 = 1 << 5,
    AUTH_EXTERNAL = 1 << 6, /* the client's certificate */
};
enum listener_role { LISTENER_SUBMISSION, LISTENER_BOUNCES };
enum mail_lane { LANE_URGENT, LANE_NORMAL, LANE_BULK };
#define LANE_COUNT 3
enum idempotency_mode {
    IDEMPOTENCY_OFF,
    IDEMPOTENCY_HEADER,     /* X-Idempotency-Key */
    IDEMPOTENCY_MESSAGE_ID, /* ... or, without one, Message-ID and envelope */
};
enum dkim_missing { DKIM_MISSING_DEFER, DKIM_MISSING_UNSIGNED };
enum relay_kind { RELAY_MX, RELAY_SMARTHOST, RELAY_HOLD };
enum route_verp { VERP_AUTO, VERP_ON, VERP_OFF };
enum route_tls { ROUTE_TLS_OFF, ROUTE_TLS_MAY, ROUTE_TLS_ENCRYPT, ROUTE_TLS_VERIFY };

/* Takes "host", "host:port", "[IPv6]" or "[IPv6]:port" apart; *host is a part of text, *port is
 * untouched when there is none. False: it is none of these. */
bool config_host_of(struct slice text, struct slice *host, uint16_t *port);

/* So many in any so long; none: 0. */
struct config_rate {
    uint32_t messages, per_ms;
};

/* An https: address, taken apart. */
struct config_url {
    char host[256];
    uint16_t port;
    const char *path; /* a part of the text, "/" at least */
};
/* False: it is none, or its host is too long. */
bool config_url_of(struct slice text, struct config_url *out);

/* Promises an external Redis may be unable to keep; each must be named to be accepted. */
enum redis_risk {
    REDIS_RISK_EVICTION = 1 << 0, /* "eviction": maxmemory-policy is not noeviction */
    REDIS_RISK_NO_AOF = 1 << 1,   /* "no-aof": appendonly is off */
    REDIS_RISK_FSYNC = 1 << 2,    /* "appendfsync": it is not `always` */
};

struct config_network {
    struct in6_addr base; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t prefix;       /* bits of base that count, 0 to 128 */
};

struct config_bind {
    char *host;                   /* owned; as written, without brackets */
    uint16_t port;                /* 0: any free port, for tests */
    struct sockaddr_storage addr; /* host and port, ready for bind(2) */
    socklen_t addr_len;
};

struct config_listener {
    char *name; /* owned */
    struct config_bind *binds;
    size_t bind_count;
    enum listener_role role;
    struct config_network *networks; /* clients trusted to relay */
    size_t network_count;
    enum tls_mode tls;
    enum auth_mode auth;
    bool auth_without_tls;                 /* AUTH is offered in clear too */
    struct config_network *proxy_networks; /* load balancers: each connection must begin with a
                                              PROXY header */
    size_t proxy_network_count;
    struct config_network *xclient_networks; /* peers that may send XCLIENT */
    size_t xclient_network_count;
    bool hide_client;    /* Received does not say where the mail came from */
    char *tenant;        /* owned; of clients that do not authenticate; NULL: none */
    enum mail_lane lane; /* of mail that asks for none */
    int line;            /* where it stands in the file */
};

/* Who a user belongs to, and what that allows. Zero is no limit, wherever a number limits. */
struct config_tenant {
    char *name;     /* owned */
    char **senders; /* owned; patterns as in core/smtp/sender_list.h; none: any address */
    size_t sender_count;
    uint32_t recipients_per_minute, recipients_per_day;           /* all its users together */
    uint32_t user_recipients_per_minute, user_recipients_per_day; /* each of them */
    uint32_t recipients_max;                                      /* of one message */
    uint64_t message_size_max;                                    /* octets */
    uint32_t sessions_max;                                        /* at once, in this process */
    bool null_sender;                                             /* MAIL FROM:<> is allowed */
    bool suppression;                /* its suppression list is looked at */
    uint32_t suppress_after_bounces; /* hard bounces that put an address on it; 0: none do */
    bool suppress_complaints;        /* who complains is put on it */
    char *bounce_domain;             /* owned; NULL: bounces.domain */
    uint32_t weight;                 /* against other tenants with mail in the same lane */
    enum mail_lane lane_best;
    bool lists_are_bulk; /* mail to a list is bulk when it asks for no lane */
    enum idempotency_mode idempotency;
    char *dkim_directory; /* owned; NULL: none */
    bool dkim_required;   /* mail that nothing signs is deferred */
    int line;
};

#define SOURCES_MAX     64 /* so that a set of them is one number */
#define SOURCE_NAME_MAX 32

/* An address that mail leaves from. */
struct config_source {
    char *name;       /* owned; lower case; one of its kind */
    char **addresses; /* owned; as written */
    size_t address_count;
    struct sockaddr_storage v4, v6; /* port 0; ss_family is 0 where it has none */
    char *helo;                     /* owned; NULL: relay.helo */
    uint32_t weight;
    uint32_t *warmup; /* owned; recipients a day, from the first on */
    size_t warmup_count;
    int32_t first_day; /* of warmup; days since 1970 */
    uint32_t connections;
    struct config_rate rate; /* to one site, of all nodes; none: those of the route */
    int line;
};

/* Keys that sign for a domain; the n-th selector with the n-th key. */
struct config_dkim {
    char *domain;                                /* owned; lower case */
    char **selectors, **private_keys, **tenants; /* owned */
    size_t selector_count, private_key_count, tenant_count;
    int line;
};

#define ROUTE_USER_MAX   512  /* octets of the name to log in with */
#define ROUTE_SECRET_MAX 4096 /* octets of a password or token */

#define ROUTE_NAME_MAX 63 /* octets of the name of a route that is not its pattern */

struct config_route {
    char *name;     /* owned; as the section is called, lower case; one of its kind */
    char *pattern;  /* owned; "*", "example.org" or "*.example.org", lower case */
    char *domain;   /* owned; the pattern as it was set; NULL: the name is the pattern */
    char **tenants; /* owned; whose mail it takes; none: of any */
    size_t tenant_count;
    uint32_t lanes; /* a bit per enum mail_lane; 0: any */
    enum relay_kind relay;
    char *host; /* owned; smarthost only: name or address */
    uint16_t port;
    char **fallbacks; /* owned; smarthost only: "host" or "host:port", config_host_of reads them */
    size_t fallback_count;
    enum route_tls tls;
    bool tls_implicit;
    char *tls_name;                   /* owned; NULL: host */
    char *ca_file;                    /* owned; NULL: the system's */
    char *user;                       /* owned; NULL: no login */
    char *password_file, *token_file; /* owned; one of them with a user */
    enum route_verp verp;
    char **sources; /* owned */
    size_t source_count;
    uint64_t source_set;     /* a bit for each of cfg->sources that mail may leave from; 0: the
                                system chooses */
    uint32_t connections;    /* to one site, of all nodes; 0: as many as each worker may have */
    struct config_rate rate; /* to one site, of all nodes */
    int line;
};

/* It takes the mail of every tenant and lane. */
static inline bool config_route_is_general(const struct config_route *route)
{
    return route->tenant_count == 0 && route->lanes == 0;
}

struct config {
    char *file; /* owned; as given, for messages */
    char *hostname;
    uint32_t workers; /* as written: 0 is one per core */
    char *data_dir;
    struct {
        enum redis_mode mode;
        char *url;            /* external: redis://[user:pass@]host:port[/db] | unix://path */
        uint32_t accept_risk; /* bits of enum redis_risk */
        uint64_t maxmemory;   /* embedded: octets; 0: no limit */
        char *server;         /* embedded: program to run */
    } redis;
    struct config_listener *listeners;
    size_t listener_count;
    struct config_route *routes;
    size_t route_count;
    struct config_tenant *tenants;
    size_t tenant_count;
    struct config_source *sources;
    size_t source_count;
    struct {
        char *directory; /* owned; NULL: none */
        struct config_dkim *domains;
        size_t domain_count;
        enum dkim_missing missing;
        uint64_t expire_ms; /* 0: signatures do not expire */
        uint32_t threads;   /* 0: one per core */
    } dkim;
    struct {
        char **certificates; /* owned; PEM files, each a chain, the n-th with the n-th key */
        size_t certificate_count;
        char **private_keys; /* owned; PEM files */
        size_t private_key_count;
        char *client_ca;     /* owned; PEM file; NULL: no client is asked for a certificate */
        char *ticket_secret; /* owned; file shared by the nodes; NULL: random, of this process */
        uint64_t ticket_rotate_ms;
        uint32_t handshake_timeout_ms;
        uint32_t handshakes_per_address; /* connections in a second; 0: any number */
    } tls;
    struct {
        char *users_file;    /* owned; NULL: users are kept in Redis */
        uint32_t mechanisms; /* bits of enum auth_mechanism */
        uint32_t cache_ttl_ms, cache_max;
        uint32_t failures_max; /* per window, of an address and of a user, all nodes together */
        uint64_t failures_window_ms;
        uint32_t failure_delay_ms; /* before a refusal is told */
        uint32_t attempts_max;     /* per session */
        uint32_t threads;          /* that check passwords */
        uint32_t waiting_max;      /* checks that may wait for a thread before 454 */
        char *jwt_keys; /* owned; file of PEM public keys or a JWK set; NULL: no tokens */
        char *jwt_issuer, *jwt_audience; /* owned; NULL: any */
        char *jwt_scope;                 /* owned; NULL: none needed */
        char *jwt_user_claim;            /* owned */
    } auth;
    struct {
        struct config_bind *bind; /* NULL: no admin port */
    } admin;
    struct {
        uint32_t sessions_max;           /* per process, split over the workers */
        uint32_t sessions_per_address;   /* per process; 0: any number */
        uint64_t message_size_max;       /* octets; the SIZE advertised */
        uint32_t recipients_max;         /* per transaction, at least 100 */
        uint32_t errors_max;             /* protocol errors before 421 */
        uint32_t received_max;           /* Received fields before 554 5.4.6 */
        uint32_t header_size_max;        /* octets of header section */
        uint32_t command_timeout_ms;     /* silence between commands */
        uint32_t data_timeout_ms;        /* silence inside message content */
        uint32_t session_timeout_ms;     /* a whole session, however busy */
        uint32_t transaction_timeout_ms; /* one MAIL to its end of data, however it drips */
        uint64_t content_memory_max;     /* octets of message content in memory, all workers */
        uint32_t commit_timeout_ms;      /* end of data to 451 when Redis does not answer */
        uint32_t drain_notice_ms;        /* SIGTERM to the end of accepting: /readyz is false */
        uint32_t drain_timeout_ms;       /* ... and from there to the exit, at most */
        uint64_t hold_max_ms;            /* FUTURERELEASE; 0: not offered */
        uint32_t deliver_by_min_s;       /* DELIVERBY's least time */
        uint32_t mails_max;              /* transactions in one session (LIMITS); 0: any number */
        uint32_t proxy_timeout_ms;       /* a PROXY header must be complete by then */
    } limits;
    struct {
        uint32_t shards;             /* fixed when the queue is first made */
        uint32_t lease_ms;           /* a worker silent for this long is reaped */
        uint32_t stream_size;        /* octets above which content streams to Redis in chunks */
        bool compress;               /* contents are stored compressed where that helps */
        uint32_t deliveries_max;     /* deliveries in memory, all workers */
        uint64_t idempotency_ttl_ms; /* how long an idempotency key is remembered */
    } queue;
    struct {
        char **sources; /* owned; of MX routes that name none */
        size_t source_count;
        uint32_t connections_max;     /* outbound, per worker */
        uint32_t per_destination_max; /* connections to one destination, per worker */
        uint32_t urgent_share;        /* percent of both that only urgent mail may use */
        uint32_t messages_per_connection;
        uint32_t idle_timeout_ms; /* a warm connection is closed after this */
        uint32_t connect_timeout_ms;
        uint32_t reply_timeout_ms; /* 0: RFC 5321 4.5.3.2; else caps every reply timeout */
        uint16_t mx_port;          /* 25 */
        bool mta_sts;
        uint16_t mta_sts_port; /* 443 */
        char *tls_report_from; /* owned; NULL: no TLS reports */
        uint32_t tls_report_delay_ms;
        char *ca_file;      /* owned; of MTA-STS; NULL: the system's */
        bool adaptive;      /* sites that ask for less get less */
        bool allow_private; /* MX hosts in loopback, private and link-local networks */
        char *helo;         /* NULL: hostname */
        char *rules;        /* owned; file of rules about replies; NULL: those that are built in */
    } relay;
    struct {
        uint32_t *schedule_ms; /* owned; wait before the 2nd, 3rd, ... attempt; last repeats */
        size_t schedule_len;
        uint32_t jitter_percent;
        uint64_t expire_ms;       /* from acceptance to giving up */
        uint64_t delay_notice_ms; /* before a delay is reported to who asked for it; 0: never */
        bool bounces;             /* false: permanent failures become dead letters instead */
    } retry;
    struct {
        char **servers; /* owned; "127.0.0.1" or "127.0.0.1@5353"; none: /etc/resolv.conf */
        size_t server_count;
        char *trust_anchor; /* owned; file of keys that DNSSEC starts from; NULL: no validation */
        uint32_t cache_max_ms;
        uint32_t negative_ms;
    } dns;
    struct {
        uint64_t size_max;    /* octets in Redis; 0: no events */
        char *webhook;        /* owned; https://host[:port]/path; NULL: none */
        char *webhook_secret; /* owned; file; its first line signs */
        char *webhook_ca;     /* owned; PEM file; NULL: the system's */
    } events;
    struct {
        char *domain;     /* owned; NULL: mail keeps its sender's address */
        char *complaints; /* owned; a local part */
        char *postmaster; /* owned; an address; NULL: there is none */
        uint64_t kept_ms;
    } bounces;
    struct {
        bool json;
        int level;  /* enum log_level */
        char *file; /* NULL: standard output */
    } log;
};

/*
 * Parses the text of one file. On success *out is a complete configuration with every default
 * filled in. On BAD, error holds one line "FILE:LINE: KEY: what is wrong and what to do".
 */
NODISCARD enum status config_parse(const char *file, struct slice text, struct config **out,
                                   struct buf *error);
void config_free(struct config *cfg);

/* NULL: there is no tenant of that name. */
const struct config_tenant *config_find_tenant(const struct config *cfg, struct slice name);

/* NULL: there is no source of that name. */
const struct config_source *config_find_source(const struct config *cfg, struct slice name);

/* True when the address (IPv4 or IPv6) lies in one of the networks. */
bool config_networks_contain(const struct config_network *networks, size_t count,
                             const struct sockaddr *addr);
