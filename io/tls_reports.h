/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tls_reports - what becomes of TLS sessions with the hosts of other domains is counted, and told
 * once a day to the domains that ask for it (TLSRPT, RFC 8460; P-205).
 *
 * Every worker counts in memory and adds its counts to those of the day in Redis; the first worker
 * of every node sends the reports of yesterday, each domain's once in the cluster. Only when
 * relay.tls_report_from is set.
 */
#include "core/relay/tls_report.h"

struct worker;
struct resolver;
struct tls_reports;

/* NULL: no reports are wanted; every function here takes that. */
struct tls_reports *tls_reports_new(struct worker *w, struct resolver *resolver);
/* Nothing is begun any more. Before the worker's connections end. */
void tls_reports_abandon(struct tls_reports *t);
void tls_reports_free(struct tls_reports *t); /* after the resolver */
/* One session, or why there was none, with a host of a mail domain in lower case. text: of the
 * policy, as tls_policy_text_* make it; may be empty. */
void tls_reports_note(struct tls_reports *t, const char *domain, const struct tls_count *count,
                      struct slice text);
/* The policy of a domain that mail is about to go to. */
void tls_reports_note_policy(struct tls_reports *t, const char *domain,
                             const struct sts_policy *policy);
