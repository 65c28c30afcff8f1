/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content_private - what the parts of content share: content.c (phases, entry points),
 * content_header.c (the walk through the header section), content_field.c (fields whose value
 * counts), content_trace.c (fields we write), content_digest.c (idempotency). Nobody else includes
 * it.
 */
#include "core/base/must.h"
#include "core/smtp/content.h"
#include "core/smtp/content_digest.h"
#include "core/smtp/dkim.h"

#define CONTENT_NAME_MAX 23 /* the longest name in fields[], and one to tell longer ones apart */

enum phase { PHASE_HEADER, PHASE_BODY, PHASE_DOOMED };

enum line_state {
    LINE_START, /* before the first octet of a line */
    LINE_NAME,  /* in what may be a field's name */
    LINE_SPACE, /* in white space between a name and, perhaps, its colon */
    LINE_VALUE, /* behind the colon, or in a continuation line */
    LINE_EMPTY, /* behind the CR of what is going to be the empty line */
};

/* What the header section had, in smtp_content.seen. */
enum field_bit {
    FIELD_DATE = 1 << 0,
    FIELD_MESSAGE_ID = 1 << 1,
    FIELD_FROM = 1 << 2,
    FIELD_SENDER = 1 << 3,
    FIELD_SUBJECT = 1 << 4,
    FIELD_TO = 1 << 5,
    FIELD_FROM_MANY = 1 << 6,  /* From has several addresses */
    FIELD_TLS_WAIVED = 1 << 7, /* "TLS-Required: No" */
    FIELD_LANE = 1 << 8,       /* a lane was asked for */
    FIELD_LIST = 1 << 9,       /* it is mail to a list, by its own words */
};

struct content_field; /* a row of fields[] */

struct smtp_content {
    const struct smtp_server *server; /* borrowed */
    struct message *message;          /* borrowed */
    struct smtp_content_policy policy;
    struct dot_decoder dot;
    enum phase phase;
    enum line_state line;
    enum reply_id fault;    /* the first of the header section; REPLY_OK: none */
    bool is_lax;            /* BINARYMIME, and the header section is over: octets are just octets */
    uint8_t header_defects; /* with is_lax: what the decoder had noted until then */
    bool is_stripping;      /* the field being read is left out, its continuation lines too */
    bool line_is_stored;    /* The line's start lies in the chain, at line_mark. */
    bool header_is_8bit;    /* with SMTPUTF8: a field that is kept has an octet above 127 */
    uint8_t name_len;       /* octets of name; CONTENT_NAME_MAX: longer than any that matters */
    char name[CONTENT_NAME_MAX]; /* of a field, as far as earlier spans brought it */
    uint32_t seen;               /* bits of enum field_bit */
    uint32_t fields, received;
    uint64_t header_octets;              /* in spans that are done with */
    uint64_t line_at;                    /* where the line began, counted as header_octets */
    struct chain_mark line_mark;         /* meaningful with line_is_stored */
    const struct content_field *reading; /* its value is wanted; NULL: none */
    struct chain_mark field_mark;        /* of a field that may be cut off again: its start */
    bool field_mark_is_8bit;             /* header_is_8bit at field_mark */
    struct buf value;                    /* what earlier spans brought of the value */
    struct content_digest *digest;       /* owned; NULL: no idempotency key was seen */
    struct dkim_digest *dkim; /* owned; from the end of the header section, when it is signed */
    int64_t wall_ms;          /* when the content began: the date of the fields we write */
};

static inline void content_store(struct smtp_content *c, struct slice s)
{
    c->message->size += s.len;
    chain_append(&c->message->content, s);
}

/* Refuses the message: with `fault` when nothing worse comes, at the end. */
void content_doom(struct smtp_content *c, enum reply_id fault);

/* Walks the header section. What is left of the span belongs to the next phase. */
struct slice content_walk_header(struct smtp_content *c, struct slice span);
/* The content ended inside the header section (RFC 5322 3.5 allows it). */
void content_end_in_header(struct smtp_content *c);

/* The value of a field, folds and final CR LF in it, at most CONTENT_VALUE_MAX octets. True: the
 * field is to be cut off again. */
typedef bool content_value_fn(struct smtp_content *c, struct slice value);
content_value_fn content_on_from, content_on_sender, content_on_message_id, content_on_key,
    content_on_tls_required, content_on_auth_results, content_on_lane, content_on_precedence;
/* All fields are known: the lane that they make it. */
void content_settle_lane(struct smtp_content *c);

/* The Received field (RFC 5321 4.4). */
void content_store_trace(struct smtp_content *c);
/* Date, Message-ID and From, as far as they are missing (P-90, P-95). */
void content_store_missing(struct smtp_content *c);
