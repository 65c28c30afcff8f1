/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_report - what of outbound connections is counted for TLS reports (tls_reports.h).
 *
 * A session counts once, when it is known how it came out: encrypted and right, encrypted with the
 * wrong peer, or without encryption although it was wanted. Only those of MX delivery count:
 * a smarthost is ours to watch. So do not sessions of mail that waives TLS, reports among it
 * (P-205: no reports on reports), and second tries in clear.
 */
#include "core/base/must.h"
#include "io/drive_relay_private.h"
#include "io/tls_reports.h"
#include <arpa/inet.h>

#define TEXT_MAX (TLSA_RECORDS_MAX * 160)

static bool is_told_of(const struct relay_dest *dest)
{
    return dest->route->relay == RELAY_MX && dest->route->tls != ROUTE_TLS_OFF &&
           !route_key_waives_tls(dest->key) && strcmp(route_key_domain(dest->key), ".") != 0;
}

static void put_address(const struct sockaddr_storage *addr, char out[INET6_ADDRSTRLEN])
{
    const void *octets = addr->ss_family == AF_INET6
                             ? (const void *)&((const struct sockaddr_in6 *)addr)->sin6_addr
                             : (const void *)&((const struct sockaddr_in *)addr)->sin_addr;
    const char *text = inet_ntop(addr->ss_family, octets, out, INET6_ADDRSTRLEN);
    must(text);
}

void outbound_report_tls(struct outbound *o, enum tls_policy policy, enum tls_outcome outcome)
{
    const struct relay_dest *dest = o->slot->dest;
    char address[INET6_ADDRSTRLEN];
    struct tls_count count = { .policy = policy, .outcome = outcome };
    struct buf text;
    if (!o->r->reports || o->is_told || !is_told_of(dest))
        return;
    o->is_told = true;
    put_address(&o->addr, address);
    if (outcome != TLS_OUTCOME_SUCCESS) {
        count.host = slice_str(o->slot->host_name);
        count.address = slice_str(address);
    }
    buf_init(&text, TEXT_MAX);
    if (policy == TLS_POLICY_TLSA)
        tls_policy_text_tlsa(&o->tlsa, &text);
    tls_reports_note(o->r->reports, route_key_domain(dest->key), &count, buf_slice(&text));
    buf_done(&text);
}

void outbound_report_clear(struct outbound *o)
{
    if (!o->client.is_secure && o->client.policy.tls != CLIENT_TLS_OFF)
        outbound_report_tls(o, outbound_tls_policy(o), TLS_OUTCOME_NO_STARTTLS);
}

void relay_report_no_host(struct relay_driver *r, const struct relay_dest *dest,
                          enum tls_policy policy, enum tls_outcome outcome)
{
    if (is_told_of(dest))
        tls_reports_note(r->reports, route_key_domain(dest->key),
                         &(struct tls_count){ .policy = policy, .outcome = outcome }, SLICE_NONE);
}
