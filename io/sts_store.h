/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sts_store - the MTA-STS policies of the domains that mail goes to (RFC 8461): found by their TXT
 * record, fetched over HTTPS, kept for as long as they say in memory and in Redis, where all
 * workers and nodes find them, also after a restart.
 *
 * A policy that is kept counts when its record or its file cannot be had: whoever can block those
 * must not be able to switch it off (P-203). One store per worker.
 */
#include "core/relay/sts.h"

struct worker;
struct resolver;
struct tls_client;
struct tls_reports;
struct sts_store;

/* policy NULL: none. Borrowed for the call. */
typedef void sts_fn(void *ctx, const struct sts_policy *policy);

/* reports: borrowed; NULL: none are made. */
struct sts_store *sts_store_new(struct worker *w, struct resolver *resolver, struct tls_client *tls,
                                struct tls_reports *reports);
/* Ends what is being fetched; nobody is told any more. Before the worker's connections end. */
void sts_store_abandon(struct sts_store *s);
void sts_store_free(struct sts_store *s); /* after the resolver */
/* The policy of a mail domain, in lower case; at once when it is known. */
void sts_store_lookup(struct sts_store *s, const char *domain, sts_fn *fn, void *ctx);
