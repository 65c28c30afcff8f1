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
#include "core/base/status.h"

#define QUEUE_ID_LEN 20 /* characters of a queue id: [0-9a-z], time-ordered, unguessable */

struct rcpt {
    struct slice address; /* mailbox as given, without brackets */
    struct slice domain;  /* part of address; empty only for bare postmaster */
};

enum message_flag {
    MESSAGE_8BIT = 1 << 0,      /* content has octets above 127, or BODY=8BITMIME was said */
    MESSAGE_DOT_LINES = 1 << 1, /* a content line begins with a dot: stuffing must look */
    MESSAGE_BOUNCE = 1 << 2,    /* a bounce of ours: never bounced again (P-227) */
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
    struct slice helo;    /* what the client called itself, printable */
    struct slice client;  /* its address, "192.0.2.1" or "IPv6:2001:db8::1" */
    struct slice tenant;  /* "" until tenants come */
    int64_t accepted_ms;  /* wall clock, when the end of data was seen */
    struct chain content; /* trace header and content that is in memory */
    char *blob;           /* owned; the record read back from Redis; NULL otherwise */
    size_t blob_len;      /* octets of blob, counted in the budget */
    struct slice body;    /* with blob: the content in it */
    uint32_t chunk_count; /* content octets before `content` that are chunks in Redis */
    uint64_t size;        /* octets of the whole content */
};

struct message *message_new(struct chain_budget *budget); /* one reference */
struct message *message_ref(struct message *m);
void message_unref(struct message *m); /* NULL is harmless; the last one frees */
/* Adds a recipient (copied into the arena). Duplicates are the caller's matter (P-54). */
void message_add_rcpt(struct message *m, struct slice address, struct slice domain);

/*
 * The stored form: "K1", envelope length, tagged fields, then content. The envelope part is
 * appended to out; the content follows it as it lies in m->content. FULL: out is too small.
 */
#define MESSAGE_ENVELOPE_MAX (1024 * 1024)
NODISCARD enum status message_encode_envelope(const struct message *m, struct buf *out);
/* Takes ownership of blob (malloc, len octets) on success only. BAD: not a record we wrote, or of a
 * newer version. The id is not part of the record: the caller sets it. */
NODISCARD enum status message_decode(char *blob, size_t len, struct chain_budget *budget,
                                     struct message **out);
