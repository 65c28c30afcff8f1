/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * message - one mail: its envelope, and its content in memory or in Redis.
 *
 * Life: the session makes it at MAIL (message_new), gives it to the queue at the end of data,
 * the queue commits it and hands it to the relay; one reference per holder, all within one worker
 * thread. The envelope is immutable from the end of data on.
 *
 * Content in order: chunks 0 .. chunk_count-1 in Redis (large messages only), then `content` here.
 * After a claim, the record read back from Redis is one block, `blob`, and `content` is empty.
 */
#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/base/chain.h"
#include "core/base/config.h"
#include "core/base/status.h"

struct dkim_digest;
struct returned_reader;

#define QUEUE_ID_LEN 20 /* characters of a queue id: [0-9a-z], time-ordered, unguessable */

/* Which reports a sender wants of a recipient (RFC 3461 4.1); none set: as the server likes. */
enum dsn_notify {
    DSN_NOTIFY_NEVER = 1 << 0, /* alone */
    DSN_NOTIFY_SUCCESS = 1 << 1,
    DSN_NOTIFY_FAILURE = 1 << 2,
    DSN_NOTIFY_DELAY = 1 << 3,
};
enum dsn_ret { DSN_RET_NONE, DSN_RET_FULL, DSN_RET_HDRS };

struct rcpt {
    struct slice address; /* mailbox as given, without brackets */
    struct slice domain;  /* part of address; empty only for bare postmaster */
    uint32_t notify;      /* bits of enum dsn_notify */
    struct slice orcpt; /* ORCPT's value as given, "rfc822;bob@example.org" in xtext; empty: none */
};

enum message_flag {
    MESSAGE_8BIT = 1 << 0,      /* content has octets above 127, or BODY=8BITMIME was said */
    MESSAGE_DOT_LINES = 1 << 1, /* a content line begins with a dot: stuffing must look */
    MESSAGE_BOUNCE = 1 << 2,    /* a bounce of ours: never bounced again (P-227) */
    MESSAGE_UTF8 = 1 << 3,   /* SMTPUTF8 was said and is needed: by an address or a header field */
    MESSAGE_BINARY = 1 << 4, /* BODY=BINARYMIME: only BDAT can carry it on (RFC 3030 3) */
    MESSAGE_REQUIRE_TLS = 1 << 5,  /* REQUIRETLS (RFC 8689) */
    MESSAGE_TLS_OPTIONAL = 1 << 6, /* "TLS-Required: No" in the header: no policy may demand TLS */
    MESSAGE_BY_RETURN = 1 << 7,    /* DELIVERBY mode R: late is failed; else N: late is reported */
    MESSAGE_BY_TRACE = 1 << 8,     /* DELIVERBY asked for a trace */
};

struct message {
    uint32_t refs;
    uint32_t flags; /* bits of enum message_flag */
    char id[QUEUE_ID_LEN + 1];
    char lane; /* 'u' urgent, 'n' normal, 'b' bulk */
    struct arena arena;
    struct slice sender; /* mailbox; empty: <> */
    struct rcpt *rcpts;  /* in the arena */
    uint32_t rcpt_count, rcpt_cap;
    struct slice helo;      /* what the client called itself, printable */
    struct slice client;    /* its address, "192.0.2.1" or "IPv6:2001:db8::1" */
    struct slice tenant;    /* "" : none */
    struct slice user;      /* who authenticated; "": nobody */
    struct slice envid;     /* ENVID as given, xtext; "": none */
    struct slice signature; /* DKIM-Signature fields, sent before the content; "": none */
    enum dsn_ret ret;
    int8_t priority;       /* MT-PRIORITY, -9 to 9; 0: none (RFC 6710) */
    int64_t hold_until_ms; /* wall clock; not delivered before; 0: at once (RFC 4865) */
    int64_t deliver_by_ms; /* wall clock; 0: any time (RFC 2852) */
    int64_t accepted_ms;   /* wall clock, when the end of data was seen */
    struct chain content;  /* trace header and content that is in memory */
    char *blob;            /* owned; the record read back from Redis; NULL otherwise */
    char *unpacked;        /* owned; the content, when the record has it compressed; else NULL */
    size_t blob_len;       /* octets of both, counted in the budget */
    struct slice body;     /* with blob: the content */
    uint32_t chunk_count;  /* content octets before `content` that are chunks in Redis */
    uint64_t size;         /* octets of the whole content, without the signature */
    /* Not part of the record: what is to be signed, until it is. */
    struct dkim_digest *dkim; /* owned; NULL: nothing */
    /* Not part of the record: mail that came back, read (returned.h). */
    struct returned_reader *returned; /* owned; NULL: it is mail to be delivered */
    /* Not part of the record: what the commit needs to know a message that is sent again. */
    bool has_key;
    uint8_t key[32]; /* digest of tenant and idempotency key */
    uint8_t
        digest[32]; /* of sender, recipients and body: another one under the same key is refused */
};

/* Octets that the next hop gets. */
static inline uint64_t message_sent_size(const struct message *m)
{
    return m->signature.len + m->size;
}

static inline enum mail_lane lane_of_letter(char letter)
{
    return letter == 'u' ? LANE_URGENT : letter == 'b' ? LANE_BULK : LANE_NORMAL;
}

static inline char lane_letter(enum mail_lane lane)
{
    return "unb"[lane];
}

static inline enum mail_lane message_lane(const struct message *m)
{
    return lane_of_letter(m->lane);
}

/* Sets the last recipient's DSN wishes (orcpt is copied). */
void message_set_rcpt_dsn(struct message *m, uint32_t notify, struct slice orcpt);

struct message *message_new(struct chain_budget *budget); /* one reference */
struct message *message_ref(struct message *m);
void message_unref(struct message *m); /* NULL is harmless; the last one frees */
/* Adds a recipient (copied into the arena). Duplicates are the caller's matter (P-54). */
void message_add_rcpt(struct message *m, struct slice address, struct slice domain);

/*
 * The stored form: "K1", envelope length, tagged fields, then content. The envelope part is
 * appended to out; the content follows it as it lies in m->content, or, is_packed, as one LZ4 block
 * of all of it (a message without chunks). FULL: out is too small.
 */
#define MESSAGE_ENVELOPE_MAX (1024 * 1024)
NODISCARD enum status message_encode_envelope(const struct message *m, bool is_packed,
                                              struct buf *out);
/* Takes ownership of blob (malloc, len octets) on success only. BAD: not a record we wrote, or of a
 * newer version. The id is not part of the record: the caller sets it. */
NODISCARD enum status message_decode(char *blob, size_t len, struct chain_budget *budget,
                                     struct message **out);
