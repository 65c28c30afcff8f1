/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sts - what a domain demands of the way to it (MTA-STS, RFC 8461): its TXT record, its policy
 * file, and which MX hosts that allows. Pure text; fetching and remembering is io/sts_store.c's.
 */
#include "core/base/slice.h"
#include <stdbool.h>
#include <stdint.h>

#define STS_ID_MAX    32
#define STS_MX_MAX    64          /* patterns of one policy; more are an error */
#define STS_TEXT_MAX  (64 * 1024) /* octets of a policy file (RFC 8461 3.3) */
#define STS_AGE_S_MAX 31557600    /* a year (RFC 8461 3.2) */

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE };

struct sts_policy {
    enum sts_mode mode;
    uint32_t max_age_s;
    uint32_t mx_count;
    char mx[STS_MX_MAX][256]; /* lower case; "*." in front of any one label */
};

/* The id of the one TXT record that is of MTA-STS. False: there is none, or more than one, or it is
 * malformed (RFC 8461 3.1). */
bool sts_read_record(const struct slice *texts, size_t count, char id[STS_ID_MAX + 1]);
/* False: it is no policy, and *why says so; static. */
bool sts_read_policy(struct slice text, struct sts_policy *out, const char **why);
/* True when a pattern is this host, in any case (RFC 8461 4.1). */
bool sts_allows(const struct sts_policy *policy, const char *host);
