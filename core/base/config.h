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
enum auth_mode { AUTH_OFF, AUTH_REQUIRED };
enum relay_kind { RELAY_MX, RELAY_SMARTHOST, RELAY_HOLD };
enum route_tls { ROUTE_TLS_OFF, ROUTE_TLS_MAY, ROUTE_TLS_ENCRYPT, ROUTE_TLS_VERIFY };

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
    struct config_network *networks; /* clients trusted to relay */
    size_t network_count;
    enum tls_mode tls;
    enum auth_mode auth;
    int line; /* where it stands in the file */
};

struct config_route {
    char *pattern; /* owned; "*", "example.org" or "*.example.org", lower case */
    enum relay_kind relay;
    char *host; /* owned; smarthost only: name or address */
    uint16_t port;
    enum route_tls tls;
    int line;
};

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
    struct {
        struct config_bind *bind; /* NULL: no admin port */
    } admin;
    struct {
        uint32_t sessions_max;           /* per process, split over the workers */
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
        uint32_t drain_timeout_ms;       /* SIGTERM to exit */
    } limits;
    struct {
        uint32_t shards;         /* fixed when the queue is first made */
        uint32_t lease_ms;       /* a worker silent for this long is reaped */
        uint32_t stream_size;    /* octets above which content streams to Redis in chunks */
        uint32_t deliveries_max; /* deliveries in memory, all workers */
    } queue;
    struct {
        uint32_t connections_max;     /* outbound, per worker */
        uint32_t per_destination_max; /* connections to one destination, per worker */
        uint32_t messages_per_connection;
        uint32_t idle_timeout_ms; /* a warm connection is closed after this */
        uint32_t connect_timeout_ms;
        uint32_t reply_timeout_ms; /* 0: RFC 5321 4.5.3.2; else caps every reply timeout */
        uint16_t mx_port;          /* 25 */
        bool allow_private;        /* MX hosts in loopback, private and link-local networks */
        char *helo;                /* NULL: hostname */
    } relay;
    struct {
        uint32_t *schedule_ms; /* owned; wait before the 2nd, 3rd, ... attempt; last repeats */
        size_t schedule_len;
        uint32_t jitter_percent;
        uint64_t expire_ms; /* from acceptance to giving up */
        bool bounces;       /* false: permanent failures become dead letters instead */
    } retry;
    struct {
        char **servers; /* owned; "127.0.0.1" or "127.0.0.1@5353"; none: /etc/resolv.conf */
        size_t server_count;
        uint32_t cache_max_ms;
        uint32_t negative_ms;
    } dns;
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

/* True when the address (IPv4 or IPv6) lies in one of the networks. */
bool config_networks_contain(const struct config_network *networks, size_t count,
                             const struct sockaddr *addr);
