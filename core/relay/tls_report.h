/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tls_report - what a domain is told of the TLS sessions with its mail hosts (TLSRPT, RFC 8460):
 * its TXT record, the counters of a day, the report in JSON, and the mail that carries it (P-205).
 *
 * Pure text. Collecting and sending is io/tls_reports.c's; the counters lie in Redis as fields of a
 * hash, one hash for a domain and a day, whose names and values are read and written here.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/entropy.h"
#include "core/relay/sts.h"
#include "core/relay/tlsa.h"
#include "core/smtp/message.h"

#define TLS_REPORT_RUA_MAX   1000 /* octets of the list of addresses that are kept */
#define TLS_REPORT_FIELD_MAX 400  /* octets of a counter's name */

/* Whose policy a session was held to (RFC 8460 4.2). */
enum tls_policy { TLS_POLICY_NONE, TLS_POLICY_STS, TLS_POLICY_TLSA, TLS_POLICY_COUNT };

/* X(name, RFC 8460 4.3) */
#define TLS_OUTCOME_TABLE(X)                                                                       \
    X(SUCCESS, "successful")                                                                       \
    X(NO_STARTTLS, "starttls-not-supported")                                                       \
    X(OTHER_NAME, "certificate-host-mismatch")                                                     \
    X(EXPIRED, "certificate-expired")                                                              \
    X(UNTRUSTED, "certificate-not-trusted")                                                        \
    X(OTHER, "validation-failure")                                                                 \
    X(TLSA, "tlsa-invalid")                                                                        \
    X(DNSSEC, "dnssec-invalid")                                                                    \
    X(STS_FETCH, "sts-policy-fetch-error")                                                         \
    X(STS_POLICY, "sts-policy-invalid")

enum tls_outcome {
#define X(name, text) TLS_OUTCOME_##name,
    TLS_OUTCOME_TABLE(X)
#undef X
        TLS_OUTCOME_COUNT
};

/* --- who wants reports ----------------------------------------------------------------------- */

/* The rua list of the one TXT record that is of TLSRPT. False: there is none, or more than one, or
 * it is malformed. */
bool tls_report_read_record(const struct slice *texts, size_t count,
                            char rua[TLS_REPORT_RUA_MAX + 1]);
/* Cuts the next address off a rua list; false: there are no more. */
bool tls_report_next_address(struct slice *rua, struct slice *uri);
/* The mailbox of a mailto: address, percent signs decoded, in out; false: it is another kind, or
 * too long. */
bool tls_report_mailbox(struct slice uri, struct buf *out);

/* --- counters -------------------------------------------------------------------------------- */

struct tls_count {
    enum tls_policy policy;
    enum tls_outcome outcome;
    struct slice host, address; /* of the MX; with SUCCESS and without a session: empty */
};

/* The counter's name, NUL-terminated. Returns its length. */
size_t tls_count_name(const struct tls_count *c, char out[TLS_REPORT_FIELD_MAX]);
/* False: it is none. The slices are parts of name. */
bool tls_count_read(struct slice name, struct tls_count *out);
/* The field that holds a policy's text, "policy sts" say: static. */
const char *tls_policy_field(enum tls_policy policy);
/* The text itself, a line for each of its strings; replaces what out holds. */
void tls_policy_text_sts(const struct sts_policy *policy, struct buf *out);
void tls_policy_text_tlsa(const struct tlsa_set *tlsa, struct buf *out);

/* --- the report ------------------------------------------------------------------------------ */

struct tls_report_field {
    struct slice name, value;
};

struct tls_report {
    struct slice domain;    /* that it is about and goes to */
    struct slice submitter; /* our host name */
    struct slice contact;   /* our mailbox, its sender */
    const char *id;         /* of the message */
    int64_t day_ms;         /* wall clock: when its day began, UTC */
    const struct tls_report_field *fields;
    size_t field_count;
};

/* Appends the JSON of RFC 8460 4. False: there is nothing to tell, or too much for out. */
bool tls_report_json(const struct tls_report *r, struct buf *out);
/* The mail with that JSON compressed, to one mailbox: complete but for its signature. The caller
 * owns it. */
struct message *tls_report_mail(const struct tls_report *r, struct slice gzip, struct slice to,
                                struct entropy *entropy, struct chain_budget *budget,
                                const struct now *now);
