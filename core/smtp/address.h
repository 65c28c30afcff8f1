/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * address - the mailbox grammar of RFC 5321 4.1.2, in full: dot-strings, quoted strings, domains,
 * address literals, source routes (parsed and dropped).
 *
 * Parsing is pure, takes bytes of any kind, and never allocates: the result points into the input.
 */
#include "core/base/slice.h"

#define ADDRESS_LOCAL_MAX  64  /* octets, RFC 5321 4.5.3.1.1 */
#define ADDRESS_DOMAIN_MAX 255 /* octets, 4.5.3.1.2 */
#define ADDRESS_PATH_MAX   256 /* octets with the brackets, 4.5.3.1.3 */

enum address_error {
    ADDRESS_OK,
    ADDRESS_SYNTAX,    /* does not follow the grammar */
    ADDRESS_TOO_LONG,  /* local part, domain or path over its limit */
    ADDRESS_NOT_ASCII, /* an octet above 127: needs SMTPUTF8 (P-70) */
    ADDRESS_CONTROL,   /* CR, LF, NUL or another control (P-45) */
    ADDRESS_NO_DOMAIN, /* a local part alone, other than postmaster */
    ADDRESS_LITERAL,   /* an address literal that is malformed (P-48) */
};

/* A parsed mailbox; every slice points into the parsed input. */
struct address {
    struct slice mailbox; /* local@domain as given, without brackets and source route; empty: <> */
    struct slice local;   /* as given, quotes included */
    struct slice domain;  /* as given; empty for <> and for bare postmaster (P-36) */
    bool is_literal;      /* domain is [..] */
    bool is_utf8;         /* it has octets above 127: for SMTPUTF8 only (RFC 6531 3.3) */
};

/* Parses a path with its angle brackets at the start of `in`: "<a@b> SIZE=1". On ADDRESS_OK
 * *used is how many octets the path took. The null path <> is OK with an empty mailbox. */
enum address_error address_parse_path(struct slice in, struct address *out, size_t *used);

/* Parses a mailbox without brackets that fills `in` exactly. */
enum address_error address_parse_mailbox(struct slice in, struct address *out);

/* True when `in` is a domain name of LDH labels; underscores tolerated, no trailing dot (P-47). */
bool address_domain_is_valid(struct slice in);

/* True when `in` is an address literal, brackets included. */
bool address_literal_is_valid(struct slice in);
