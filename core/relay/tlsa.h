/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tlsa - what a mail host's TLSA records demand of its certificate (DANE, RFC 6698 and 7672).
 *
 * Only records that DNSSEC vouches for come here, read from the octets of the answer. A record that
 * is malformed is left out; one of a kind that SMTP has no use for (PKIX-TA, PKIX-EE, an unknown
 * selector or matching type) counts as unusable: the host has TLSA records, so it must speak TLS,
 * but nothing can be checked (RFC 7672 2.2, P-199).
 *
 * A record of the full data (matching type 0) is kept as its SHA-256, which says the same.
 */
#include "core/base/slice.h"
#include <stdbool.h>
#include <stdint.h>

#define TLSA_RECORDS_MAX 8
#define TLSA_DIGEST_MAX  64

enum tlsa_usage { TLSA_DANE_TA = 2, TLSA_DANE_EE = 3 };
enum tlsa_selector { TLSA_CERTIFICATE = 0, TLSA_KEY = 1 };
enum tlsa_matching { TLSA_FULL = 0, TLSA_SHA256 = 1, TLSA_SHA512 = 2 };

struct tlsa_record {
    uint8_t usage, selector, matching; /* matching is never TLSA_FULL */
    uint8_t digest[TLSA_DIGEST_MAX];
};

struct tlsa_set {
    bool is_present; /* the host must speak TLS */
    bool is_unknown; /* they cannot be had: nobody can say whom to trust (P-200) */
    uint8_t count;   /* usable ones; 0 with is_present: whoever it is */
    struct tlsa_record records[TLSA_RECORDS_MAX];
};

/* Adds one record's data as it stands in DNS; more than TLSA_RECORDS_MAX usable ones are left out.
 */
void tlsa_add(struct tlsa_set *set, struct slice data);
/* True when the record is the digest of der, which is the certificate or the key as its selector
 * says. */
bool tlsa_record_fits(const struct tlsa_record *r, struct slice der);
