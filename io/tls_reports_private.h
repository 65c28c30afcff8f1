/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tls_reports_private - what tls_reports.c (counting) and tls_report_sender.c (sending) share.
 */
#include "core/base/clock.h"
#include "core/relay/tls_report.h"

#define TLS_REPORTS_KEY_MAX 320
#define TLS_REPORTS_DAY_MS  ((int64_t)24 * 60 * 60 * 1000)

struct worker;
struct tls_report_sender;

struct tls_report_sender *tls_report_sender_new(struct worker *w);
void tls_report_sender_abandon(struct tls_report_sender *s);
void tls_report_sender_free(struct tls_report_sender *s);

/* In Redis: a set of domains for each day, and a hash of counters for each domain in it; without a
 * domain, the set's key. */
struct slice tls_reports_key(char out[TLS_REPORTS_KEY_MAX], int64_t day_ms, const char *domain);
