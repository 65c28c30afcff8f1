/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_secure - how an outbound connection is secured: what its route demands, the handshake, and
 * with whom it turned out to be.
 *
 * Whom a certificate must name. A smarthost: the name that the configuration gives, tls_name or the
 * host itself. MX hosts: what the DNS called them proves nothing (P-197), so the name must be the
 * recipient's domain, or the MX host's when that is in this domain. Opportunistic encryption asks
 * for no name. A host with TLSA records (DANE) is who they say, whatever its name and whoever
 * signed (P-199, P-201); with records of kinds that are of no use, it must encrypt, whoever it is.
 *
 * A secret is read when it is needed, from a file whose first line it is, and wiped with the
 * connection: a password or token that changed is used from the next connection on.
 */
#include "core/base/must.h"
#include "io/drive_relay_private.h"
#include "io/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <openssl/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the policy ------------------------------------------------------------------------------ */

void outbound_free_secret(char *secret)
{
    if (!secret)
        return;
    OPENSSL_cleanse(secret, strlen(secret));
    free(secret);
}

/* The first line of a file, in memory of its own. NULL: `why` says what is wrong. */
static char *read_secret(const char *path, char *why, size_t cap)
{
    char line[ROUTE_SECRET_MAX + 2], *copy = NULL;
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(why, cap, "cannot read the secret of this route from %s: %s", path,
                 strerror(errno));
        return NULL;
    }
    setvbuf(file, NULL, _IONBF, 0); /* no copy in a buffer that nobody wipes */
    if (!fgets(line, sizeof line, file))
        line[0] = '\0';
    size_t len = strcspn(line, "\r\n");
    if (len == 0 || len > ROUTE_SECRET_MAX) {
        snprintf(why, cap, "the first line of %s is empty or too long for a secret", path);
    } else {
        line[len] = '\0';
        copy = mem_strdup(line);
    }
    OPENSSL_cleanse(line, sizeof line);
    fclose(file);
    return copy;
}

static enum client_tls tls_of(const struct config_route *route, const struct relay_host *host,
                              enum outbound_way way)
{
    switch (route->tls) {
    case ROUTE_TLS_OFF: return CLIENT_TLS_OFF;
    case ROUTE_TLS_MAY:
        if (host->tlsa.is_present || host->sts == STS_ENFORCE)
            return CLIENT_TLS_REQUIRED;
        return way == OUTBOUND_USUAL ? CLIENT_TLS_MAY : CLIENT_TLS_OFF;
    case ROUTE_TLS_ENCRYPT:
    case ROUTE_TLS_VERIFY: break;
    }
    return route->tls_implicit ? CLIENT_TLS_IMPLICIT : CLIENT_TLS_REQUIRED;
}

bool outbound_policy(const struct config_route *route, const struct relay_host *host,
                     enum outbound_way way, struct client_policy *policy, char **secret, char *why,
                     size_t cap)
{
    *secret = NULL;
    *policy = (struct client_policy){
        .tls = tls_of(route, host, way),
        .logins = route->token_file ? CLIENT_LOGIN_XOAUTH2
                                    : (uint32_t)(CLIENT_LOGIN_PLAIN | CLIENT_LOGIN_LOGIN),
        .is_helo_only = way == OUTBOUND_HELO,
    };
    if (!route->user)
        return true;
    *secret = read_secret(route->token_file ? route->token_file : route->password_file, why, cap);
    if (!*secret)
        return false;
    policy->user = slice_str(route->user);
    policy->secret = slice_str(*secret);
    return true;
}

/* --- the handshake --------------------------------------------------------------------------- */

static const char *name_of(const struct outbound *o)
{
    const struct config_route *route = o->slot->dest->route;
    return route->tls_name ? route->tls_name : o->slot->host_name;
}

static uint16_t port_of(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)addr)->sin6_port);
    return ntohs(((const struct sockaddr_in *)addr)->sin_port);
}

void outbound_start_tls(struct outbound *o)
{
    char host[300];
    snprintf(host, sizeof host, "%s:%u", o->slot->host_name, port_of(&o->addr));
    conn_start_tls(o->conn, tls_session_new_client(o->r->tls, name_of(o), host));
}

const char *outbound_tls_error(const struct outbound *o)
{
    const struct tls_session *t = conn_tls(o->conn);
    const char *error = t ? tls_session_error(t) : "";
    return *error ? error : "the TLS handshake failed";
}

/* --- who the peer is ------------------------------------------------------------------------- */

/* True when name is domain or lies in it. */
static bool is_within(const char *name, const char *domain)
{
    size_t len = strlen(name), of = strlen(domain);
    if (len < of || strcasecmp(name + len - of, domain) != 0)
        return false;
    return len == of || name[len - of - 1] == '.';
}

/* Fills the names that the certificate may have; returns how many. */
static size_t names_of(const struct outbound *o, const char *names[2])
{
    const struct relay_dest *dest = o->slot->dest;
    size_t count = 0;
    const char *domain = route_key_domain(dest->key);
    if (dest->route->relay == RELAY_SMARTHOST || is_within(o->slot->host_name, domain))
        names[count++] = name_of(o);
    if (dest->route->relay != RELAY_SMARTHOST)
        names[count++] = domain;
    return count;
}

static void log_tls(struct outbound *o, bool is_verified)
{
    struct tls_info info;
    struct log *log = &o->r->w->log;
    tls_session_info(conn_tls(o->conn), &info);
    log_begin(log, LOG_DEBUG, "relay.tls");
    log_cstr(log, "dest", o->slot->dest->key);
    log_cstr(log, "host", o->slot->host_name);
    log_cstr(log, "version", info.version);
    log_cstr(log, "cipher", info.cipher);
    log_num(log, "resumed", info.is_resumed);
    log_num(log, "verified", is_verified);
    log_end(log);
}

/* Who says which certificate is good. */
enum judge { JUDGE_NOBODY, JUDGE_TLSA, JUDGE_STS, JUDGE_ROUTE };

/* TLSA records that can be used say more than any authority (RFC 7672 2.2), and more than a policy
 * (P-201); those that cannot say only that there must be TLS. A policy that vouches for the host's
 * name says as much as a route that verifies. */
static enum judge judge_of(const struct outbound *o)
{
    if (o->tlsa.count > 0)
        return JUDGE_TLSA;
    if (o->sts != STS_NONE)
        return JUDGE_STS;
    return o->slot->dest->route->tls == ROUTE_TLS_VERIFY ? JUDGE_ROUTE : JUDGE_NOBODY;
}

enum tls_policy outbound_tls_policy(const struct outbound *o)
{
    if (o->tlsa.count > 0)
        return TLS_POLICY_TLSA;
    if (o->sts != STS_NONE)
        return TLS_POLICY_STS;
    return o->tlsa.is_present ? TLS_POLICY_TLSA : TLS_POLICY_NONE;
}

static enum tls_outcome outcome_of(enum tls_trust trust)
{
    switch (trust) {
    case TLS_TRUSTED: return TLS_OUTCOME_SUCCESS;
    case TLS_OTHER_NAME: return TLS_OUTCOME_OTHER_NAME;
    case TLS_EXPIRED: return TLS_OUTCOME_EXPIRED;
    case TLS_UNTRUSTED: return TLS_OUTCOME_UNTRUSTED;
    case TLS_OTHER_KEY: return TLS_OUTCOME_TLSA;
    case TLS_UNKNOWN: break;
    }
    return TLS_OUTCOME_OTHER;
}

static enum tls_trust trust_peer(struct outbound *o, enum judge judge, char *why, size_t cap)
{
    const struct config_route *route = o->slot->dest->route;
    const struct tls_session *tls = conn_tls(o->conn);
    const char *names[2] = { o->slot->host_name, route_key_domain(o->slot->dest->key) };
    switch (judge) {
    case JUDGE_NOBODY: break;
    case JUDGE_TLSA: return tls_client_verify_tlsa(tls, &o->tlsa, names, 2, why, cap);
    case JUDGE_STS:
        return tls_client_verify(o->r->tls, tls, o->r->w->cfg->relay.ca_file, names, 1, why, cap);
    case JUDGE_ROUTE:
        return tls_client_verify(o->r->tls, tls, route->ca_file, names, names_of(o, names), why,
                                 cap);
    }
    return TLS_TRUSTED;
}

/* RFC 8461 5: a policy that is tested keeps nothing back; its domain may read our reports. */
static bool is_only_tested(const struct outbound *o, enum judge judge)
{
    return judge == JUDGE_STS && o->sts == STS_TESTING &&
           o->slot->dest->route->tls != ROUTE_TLS_VERIFY;
}

static void log_testing(struct outbound *o, const char *why)
{
    struct log *log = &o->r->w->log;
    log_begin(log, LOG_WARN, "sts.testing");
    log_cstr(log, "dest", o->slot->dest->key);
    log_cstr(log, "host", o->slot->host_name);
    log_cstr(log, "error", why);
    log_end(log);
}

void outbound_take_tls(struct outbound *o)
{
    char why[256];
    enum judge judge = judge_of(o);
    enum tls_trust trust = trust_peer(o, judge, why, sizeof why);
    bool is_right = trust == TLS_TRUSTED;
    bool is_verified = is_right && judge != JUDGE_NOBODY;
    outbound_report_tls(o, outbound_tls_policy(o), outcome_of(trust));
    if (!is_right && is_only_tested(o, judge)) {
        log_testing(o, why);
    } else if (!is_right) {
        smtp_client_lost(&o->client, OUTCOME_TLS, why);
        return;
    }
    log_tls(o, is_verified);
    metrics_add(&o->r->w->metrics, METRIC_RELAY_TLS_TOTAL, 1);
    smtp_client_secured(&o->client, is_verified, &o->r->w->now);
}
