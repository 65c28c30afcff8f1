/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_client - TLS towards other servers: sessions that are resumed, and who the peer is.
 *
 * Resumption: each ticket that a host gives replaces the one before. A TLS 1.3 ticket is used once
 * (RFC 8446 C.4), so taking one out of the table forgets it; the handshake brings another. The
 * table is a ring of TLS_CLIENT_HOSTS places behind a hash; the oldest place is taken when all are
 * in use. A resumed session carries the certificates of its first handshake, so it is verified as
 * that was, against what is demanded now.
 *
 * Verification is asked for by who needs it, not by BoringSSL: opportunistic encryption needs none,
 * and its handshakes are not to pay for it. Names are looked for in the certificate's subject
 * alternative names, in its common name only where it has none (P-196). Authorities are read once
 * from each file and kept; a file that cannot be read is tried again each time.
 */
#include "core/base/must.h"
#include "io/tls_private.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"
#define BUCKETS        1024 /* twice as many as hosts */

struct remembered {
    char *host; /* owned; NULL: the place is free */
    SSL_SESSION *session;
    uint16_t next; /* of its bucket, plus one; 0: the last */
};

struct authorities {
    struct authorities *next;
    char *file;
    X509_STORE *store;
};

struct tls_client {
    SSL_CTX *ctx; /* owned */
    struct authorities *authorities;
    struct remembered places[TLS_CLIENT_HOSTS];
    uint16_t buckets[BUCKETS]; /* index plus one; 0: empty */
    uint16_t oldest;           /* the next place to be used */
};

/* --- what is remembered ---------------------------------------------------------------------- */

static uint16_t *bucket_of(struct tls_client *c, const char *host)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *host; host++)
        h = (h ^ (uint8_t)*host) * 16777619u;
    return &c->buckets[h % BUCKETS];
}

/* The link to the place of a host, or to where it would be. */
static uint16_t *find(struct tls_client *c, const char *host)
{
    uint16_t *link = bucket_of(c, host);
    while (*link && strcmp(c->places[*link - 1].host, host) != 0)
        link = &c->places[*link - 1].next;
    return link;
}

/* Empties a place; returns its session. */
static SSL_SESSION *take(struct tls_client *c, uint16_t *link)
{
    struct remembered *at = &c->places[*link - 1];
    SSL_SESSION *session = at->session;
    *link = at->next;
    free(at->host);
    *at = (struct remembered){ .host = NULL };
    return session;
}

static void forget(struct tls_client *c, const char *host)
{
    uint16_t *link = find(c, host);
    if (*link)
        SSL_SESSION_free(take(c, link));
}

/* Of BoringSSL: 1 keeps the reference. */
static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct tls_session *t = tls_session_of(ssl);
    struct tls_client *c = t->client;
    forget(c, t->host);
    struct remembered *at = &c->places[c->oldest];
    if (at->host)
        forget(c, at->host);
    uint16_t *link = find(c, t->host);
    *at = (struct remembered){ .host = mem_strdup(t->host), .session = session };
    *link = (uint16_t)(c->oldest + 1);
    c->oldest = (uint16_t)((c->oldest + 1) % TLS_CLIENT_HOSTS);
    return 1;
}

static void resume(struct tls_client *c, struct tls_session *t)
{
    uint16_t *link = find(c, t->host);
    if (!*link)
        return;
    SSL_SESSION *session = c->places[*link - 1].session;
    if (SSL_SESSION_should_be_single_use(session))
        session = take(c, link);
    else
        SSL_SESSION_up_ref(session);
    SSL_set_session(t->ssl, session);
    SSL_SESSION_free(session);
}

/* --- life ------------------------------------------------------------------------------------ */

struct tls_client *tls_client_new(void)
{
    struct tls_client *c = mem_zalloc(sizeof *c);
    c->ctx = SSL_CTX_new(TLS_client_method());
    must(c->ctx);
    tls_set_policy(c->ctx);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ctx, on_ticket);
    return c;
}

void tls_client_free(struct tls_client *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < TLS_CLIENT_HOSTS; i++) {
        free(c->places[i].host);
        SSL_SESSION_free(c->places[i].session);
    }
    for (struct authorities *a = c->authorities, *next; a; a = next) {
        next = a->next;
        X509_STORE_free(a->store);
        free(a->file);
        free(a);
    }
    SSL_CTX_free(c->ctx);
    free(c);
}

struct tls_session *tls_session_new_client(struct tls_client *client, const char *server_name,
                                           const char *host)
{
    struct tls_session *t = tls_session_make(client->ctx);
    t->client = client;
    t->host = mem_strdup(host);
    SSL_set_connect_state(t->ssl);
    /* A name that cannot be one (an address, too long) is not sent; verification will tell. */
    if (server_name && !SSL_set_tlsext_host_name(t->ssl, server_name))
        ERR_clear_error();
    resume(client, t);
    must(tls_session_handshake(t) == TLS_MORE); /* the ClientHello is in the output */
    return t;
}

/* --- who the peer is ------------------------------------------------------------------------- */

static X509_STORE *read_authorities(const char *file)
{
    X509_STORE *store = X509_STORE_new();
    must(store);
    if (X509_STORE_load_locations(store, file, NULL) == 1)
        return store;
    ERR_clear_error();
    X509_STORE_free(store);
    return NULL;
}

static X509_STORE *authorities_of(struct tls_client *c, const char *file)
{
    for (struct authorities *a = c->authorities; a; a = a->next)
        if (strcmp(a->file, file) == 0)
            return a->store;
    X509_STORE *store = read_authorities(file);
    if (!store)
        return NULL;
    struct authorities *a = mem_zalloc(sizeof *a);
    *a = (struct authorities){ .next = c->authorities, .file = mem_strdup(file), .store = store };
    c->authorities = a;
    return store;
}

static bool has_name(X509 *cert, const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_check_ip_asc(cert, name, 0) == 1;
    return X509_check_host(cert, name, strlen(name), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) ==
           1;
}

static enum tls_trust check_names(X509 *cert, const char *const *names, size_t count, char *why,
                                  size_t cap)
{
    for (size_t i = 0; i < count; i++)
        if (has_name(cert, names[i]))
            return TLS_TRUSTED;
    snprintf(why, cap, "the certificate is not for %s", count > 0 ? names[0] : "this host");
    return TLS_OTHER_NAME;
}

static enum tls_trust trust_of(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return TLS_EXPIRED;
    default: return TLS_UNTRUSTED;
    }
}

/* Whether the chain ends in the store. */
static enum tls_trust check_chain(X509_STORE *store, X509 *cert, STACK_OF(X509) * chain, char *why,
                                  size_t cap)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    enum tls_trust trust = TLS_TRUSTED;
    must(ctx && X509_STORE_CTX_init(ctx, store, cert, chain));
    must(X509_STORE_CTX_set_default(ctx, "ssl_server"));
    if (X509_verify_cert(ctx) != 1) {
        int error = X509_STORE_CTX_get_error(ctx);
        trust = trust_of(error);
        snprintf(why, cap, "the certificate is not good: %s", X509_verify_cert_error_string(error));
    }
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return trust;
}

static enum tls_trust check(X509_STORE *store, STACK_OF(X509) * chain, const char *const *names,
                            size_t name_count, char *why, size_t cap)
{
    X509 *cert = sk_X509_value(chain, 0);
    enum tls_trust trust = check_chain(store, cert, chain, why, cap);
    return trust == TLS_TRUSTED ? check_names(cert, names, name_count, why, cap) : trust;
}

enum tls_trust tls_client_verify(struct tls_client *client, const struct tls_session *t,
                                 const char *ca_file, const char *const *names, size_t name_count,
                                 char *why, size_t cap)
{
    const char *file = ca_file ? ca_file : SYSTEM_CA_FILE;
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(t->ssl);
    X509_STORE *store = authorities_of(client, file);
    if (!chain || sk_X509_num(chain) == 0) {
        snprintf(why, cap, "the host showed no certificate");
        return TLS_UNKNOWN;
    }
    if (!store) {
        snprintf(why, cap, "no authorities can be read from %s", file);
        return TLS_UNKNOWN;
    }
    return check(store, chain, names, name_count, why, cap);
}

/* --- DANE ------------------------------------------------------------------------------------ */

static bool fits(const struct tlsa_record *r, X509 *cert)
{
    uint8_t *der = NULL;
    int len = r->selector == TLSA_KEY ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der)
                                      : i2d_X509(cert, &der);
    bool is_it = len > 0 && tlsa_record_fits(r, slice_of((const char *)der, (size_t)len));
    OPENSSL_free(der);
    return is_it;
}

/* P-199: neither name nor time matters. */
static bool is_end_entity(const struct tlsa_set *tlsa, X509 *cert)
{
    for (size_t i = 0; i < tlsa->count; i++)
        if (tlsa->records[i].usage == TLSA_DANE_EE && fits(&tlsa->records[i], cert))
            return true;
    return false;
}

static bool is_anchor(const struct tlsa_set *tlsa, X509 *cert)
{
    for (size_t i = 0; i < tlsa->count; i++)
        if (tlsa->records[i].usage == TLSA_DANE_TA && fits(&tlsa->records[i], cert))
            return true;
    return false;
}

/* The certificates of the chain that a record names, as the only authorities there are. */
static X509_STORE *anchors_of(const struct tlsa_set *tlsa, STACK_OF(X509) * chain)
{
    X509_STORE *store = X509_STORE_new();
    must(store);
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* they need not be roots */
    for (size_t i = 0; i < sk_X509_num(chain); i++)
        if (is_anchor(tlsa, sk_X509_value(chain, i)))
            (void)X509_STORE_add_cert(store, sk_X509_value(chain, i));
    return store;
}

static bool has_anchor(const struct tlsa_set *tlsa, STACK_OF(X509) * chain)
{
    for (size_t i = 0; i < sk_X509_num(chain); i++)
        if (is_anchor(tlsa, sk_X509_value(chain, i)))
            return true;
    return false;
}

enum tls_trust tls_client_verify_tlsa(const struct tls_session *t, const struct tlsa_set *tlsa,
                                      const char *const *names, size_t name_count, char *why,
                                      size_t cap)
{
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(t->ssl);
    if (!chain || sk_X509_num(chain) == 0) {
        snprintf(why, cap, "the host showed no certificate");
        return TLS_UNKNOWN;
    }
    if (is_end_entity(tlsa, sk_X509_value(chain, 0)))
        return TLS_TRUSTED;
    if (!has_anchor(tlsa, chain)) {
        snprintf(why, cap, "the certificate is not what the TLSA records of the host say");
        return TLS_OTHER_KEY;
    }
    X509_STORE *store = anchors_of(tlsa, chain);
    enum tls_trust trust = check(store, chain, names, name_count, why, cap);
    X509_STORE_free(store);
    return trust;
}
