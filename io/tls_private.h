/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tls_private - what the parts of TLS share: tls.c (sessions), tls_store.c (files and what is made
 * of them), tls_choose.c (which certificate a client gets), tls_ticket.c (keys of session tickets).
 */
#include "io/tls.h"
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/types.h>

/* The wall clock, ms since 1970. Tests bring their own. */
typedef int64_t tls_clock_fn(void);

enum tls_key_kind { TLS_KEY_RSA, TLS_KEY_ECDSA };

/* One certificate with its key. */
struct tls_identity {
    SSL_CTX *ctx; /* owned; a session that uses it holds it too */
    enum tls_key_kind kind;
    uint16_t scheme;   /* ECDSA: the one signature scheme that TLS 1.3 allows for its curve */
    char **names;      /* owned; DNS names it is valid for, "*." in front of a wildcard */
    size_t name_count; /* may be 0: it is then only ever the default */
    int64_t expires_ms;
};

struct tls_session {
    SSL *ssl;                  /* owned */
    struct tls_set *set;       /* held; NULL for a client */
    struct slice in;           /* fed and not taken yet */
    struct buf out;            /* to be sent */
    struct gather *divert;     /* borrowed; where output goes instead while it is not NULL */
    const char *error;         /* static; NULL: none */
    char *client_name;         /* owned; of a verified certificate, once the handshake is over */
    struct tls_client *client; /* borrowed; NULL for a server */
    char *host;                /* owned; a client's: what its tickets are remembered under */
};

/* All that was loaded together: never changed once it is in use. */
struct tls_set {
    uint32_t refs; /* atomic: the store's and one of each session */
    struct tls_identity *ids;
    size_t id_count;
    uint8_t ticket_prk[32]; /* what the keys of each epoch are derived from */
    uint64_t ticket_rotate_ms;
    tls_clock_fn *clock;
    int64_t expires_ms;
};

/* A file as it was when it was last read, or tried to be. */
struct tls_stamp {
    const char *path; /* borrowed from the configuration */
    dev_t dev;
    ino_t inode;
    off_t size;
    int64_t changed_ns;
};

struct tls_store {
    const struct config *cfg; /* borrowed: outlives the store */
    pthread_mutex_t lock;     /* guards `set`, the pointer */
    struct tls_set *set;
    struct tls_stamp *stamps; /* owned; one per file */
    size_t stamp_count;
    uint8_t own_secret[32]; /* of tickets, where the nodes share none */
    tls_clock_fn *clock;
};

/* For tests: what is loaded from here on, and what is now, take the time from it. */
void tls_store_set_clock(struct tls_store *s, tls_clock_fn *clock);
struct tls_set *tls_set_acquire(struct tls_store *s);
void tls_set_release(struct tls_set *set); /* NULL is harmless */
struct tls_session *tls_session_make(SSL_CTX *ctx);
struct tls_session *tls_session_of(const SSL *ssl);
/* The set of the session that an SSL belongs to. */
const struct tls_set *tls_set_of(const SSL *ssl);

/* Fills names of an identity: the DNS names of its certificate, its common name when it has none
 * (RFC 6125 6.4.4). */
void tls_names_of(X509 *cert, struct tls_identity *id);
/* True when one of the names, or its wildcard, is host: 2 exactly, 1 by wildcard, 0 not at all. */
int tls_name_match(const struct tls_identity *id, struct slice host);
/* BoringSSL asks it at the beginning of each handshake. */
enum ssl_select_cert_result_t tls_choose(const SSL_CLIENT_HELLO *hello);

/* One row of what both sides of ours may speak: versions, suites, groups. */
void tls_set_policy(SSL_CTX *ctx);

/* From the secret (at least 32 octets) to what `set` keeps. */
void tls_tickets_init(struct tls_set *set, struct slice secret);
/* Lets ctx issue and accept tickets of its set. */
void tls_tickets_use(SSL_CTX *ctx, const struct tls_set *set);
