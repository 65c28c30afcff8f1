/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content_value - reads the value of a structured header field (RFC 5322 3.2, 3.4): words, quoted
 * strings, comments and folds, and from these the addresses of a From or Sender field.
 *
 * Pure: takes octets of any kind, allocates nothing. Strict where readers of mail disagree, because
 * what is found decides who may send (P-34): an address that some reader could see and this one not
 * makes the whole field bad.
 */
#include "core/base/slice.h"
#include <stdint.h>

#define VALUE_ADDRESSES_MAX   100 /* of one field */
#define VALUE_ADDRESS_MAX     320 /* octets, local@domain */
#define VALUE_COMMENT_NESTING 16  /* comments in comments */

struct value_reader {
    struct slice rest;  /* not read yet */
    uint32_t addresses; /* given so far */
    bool in_group;      /* behind "name:", before its ';' */
    bool is_separated;  /* An address may begin here. */
    char address[VALUE_ADDRESS_MAX];
};

enum value_event {
    VALUE_ADDRESS, /* *mailbox is the next one, in its own octets, comments and folds left out */
    VALUE_END,     /* the field is over, and all of it was understood */
    VALUE_BAD,     /* it is no list of addresses, or one over a limit */
};

void value_reader_init(struct value_reader *r, struct slice value);
/* *mailbox points into the reader, until the next call. Not to be called again after END or BAD. */
enum value_event value_next_address(struct value_reader *r, struct slice *mailbox);

/* The first word, or quoted string without its quotes. False: there is none. */
bool value_first_word(struct slice value, struct slice *word);
/* Without white space and folds at both ends. */
struct slice value_trim(struct slice value);
