/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * resolver - MX and address lookups through libunbound, cached, never blocking the loop.
 *
 * libunbound resolves in a thread of its own and makes resolver_fd readable when answers wait; the
 * worker polls that fd in its ring and calls resolver_process. One resolver per worker.
 *
 * Rules (P-208 to P-213, P-216): MX by preference, equals shuffled; no MX: the domain's own
 * addresses; null MX: 556 5.1.10; NXDOMAIN: 550 5.1.2; SERVFAIL or timeout: 451 4.4.3; MX targets
 * that resolve to nothing usable: 451 4.4.4; addresses in loopback, private, link-local, multicast
 * and unspecified networks are left out unless relay.allow_private, 550 5.4.4 when none is left. At
 * most 20 MX and 10 addresses each. Answers are cached by TTL (bounded by dns.cache_max_ms;
 * failures dns.negative_ms); a lookup that is already under way is joined, not repeated.
 */
#include "core/base/clock.h"
#include "core/base/entropy.h"
#include "core/base/metrics.h"
#include "core/relay/pool.h"

struct resolver;

/* Called once per resolver_lookup, from resolver_process or at once from a cache hit. With
 * host_count 0, failure is set (stage OUTCOME_DNS). hosts and failure are borrowed for the call. */
typedef void resolver_fn(void *ctx, const struct relay_host *hosts, size_t host_count,
                         uint32_t ttl_ms, const struct rcpt_outcome *failure);

NODISCARD enum status resolver_new(const struct config *cfg, struct entropy *entropy,
                                   struct metrics *metrics, struct resolver **out,
                                   struct buf *error);
void resolver_free(struct resolver *r); /* pending lookups are dropped without a call */
int resolver_fd(const struct resolver *r);
void resolver_process(struct resolver *r, const struct now *now);
/* MX delivery: hosts of a mail domain, with relay.mx_port. */
void resolver_lookup_mx(struct resolver *r, struct slice domain, const struct now *now,
                        resolver_fn *fn, void *ctx);
/* The same for mail whose sender waives DANE ("TLS-Required: No", RFC 8689 5): no host has TLSA
 * records. */
void resolver_lookup_mx_without_dane(struct resolver *r, struct slice domain, const struct now *now,
                                     resolver_fn *fn, void *ctx);
/* Smarthost: the addresses of a name, or an address as it is; private addresses are allowed. */
void resolver_lookup_host(struct resolver *r, const char *name, uint16_t port,
                          const struct now *now, resolver_fn *fn, void *ctx);

/* TXT records of a name, each with its strings joined; borrowed for the call. is_answer: the name
 * servers said so, be it that there are none. Called from resolver_process, or at once; not after
 * resolver_free. Answers are cached by libunbound. */
typedef void resolver_txt_fn(void *ctx, bool is_answer, const struct slice *texts, size_t count);
#define RESOLVER_TXT_MAX 16 /* records of a name that are looked at */
void resolver_lookup_txt(struct resolver *r, const char *name, resolver_txt_fn *fn, void *ctx);
