/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content - the server's side of DATA and BDAT: from the first octet to the end of data, wire
 * octets in, a message's content out.
 *
 * It writes the trace header, undoes dot stuffing, walks the header section once while it streams
 * by, and stores everything else as it came. What is wrong with the content is found out on the
 * way and told at the end: the client always gets to send its final dot, or its last chunk.
 *
 * Life:   smtp_content_new (DATA, first BDAT) -> smtp_content_feed ... DOT_END, or
 *         smtp_content_feed_chunk ... (never both) -> smtp_content_finish -> free
 * Limits: size_max of the policy; header_size_max and received_max of struct smtp_limits; 1000
 *         fields; CONTENT_VALUE_MAX octets of a field that is read.
 * To treat another field: a row in fields[] of content_header.c.
 */
#include "core/base/config.h"
#include "core/smtp/dot.h"
#include "core/smtp/returned.h"
#include "core/smtp/session.h"

#define SMTP_HEADER_FIELDS_MAX 1000        /* P-86 */
#define CONTENT_VALUE_MAX      (16 * 1024) /* octets of a field's value, folds and all */

/* What the session knows of the transaction and the content must heed. Everything that is pointed
 * to is borrowed and outlives the content. */
struct smtp_content_policy {
    /* Mail that came back: it goes in here, whatever it looks like, and is not stored. NULL: mail
     * to be delivered. */
    struct returned_reader *reader;
    bool is_esmtp;
    bool is_authenticated;
    bool is_binary;             /* BODY=BINARYMIME was said */
    bool is_utf8;               /* SMTPUTF8 was said */
    const struct smtp_tls *tls; /* NULL: in clear */
    /* Who may stand in From and Sender (P-34): the patterns; without any, own_name. With neither
     * nothing is looked up. */
    char *const *senders; /* as in sender_list.h; NULL: none */
    size_t sender_count;
    struct slice own_name;    /* the account's; empty: no account, or one that may say anything */
    uint64_t size_max;        /* octets; 0: none */
    enum mail_lane lane_best; /* what the header may ask for */
    bool lists_are_bulk;      /* what looks like mail to a list is bulk mail */
    enum idempotency_mode idempotency;
    struct slice tenant; /* whose keys these are; "": none */
    bool is_signed;      /* it gets a dkim_digest, for who signs it */
};

/* The message has its id, envelope and helo; the trace header goes into its content at once. Server
 * and message are borrowed and outlive the content, the policy is copied. */
struct smtp_content *smtp_content_new(const struct smtp_server *server, struct message *m,
                                      const struct smtp_content_policy *policy,
                                      const struct now *now);
void smtp_content_free(struct smtp_content *c); /* NULL is harmless */

/* Takes octets until the input (DOT_MORE) or the content (DOT_END) is over; *used says how many. */
enum dot_event smtp_content_feed(struct smtp_content *c, struct slice in, size_t *used);

/* Takes octets of a BDAT chunk, all of them: a dot is an octet there (P-98), and a line may go on
 * in the next chunk (P-105). */
void smtp_content_feed_chunk(struct smtp_content *c, struct slice in);

/* True from the end of the header section on: what is stored is never looked at again, so its front
 * may be taken away while more arrives. */
bool smtp_content_is_body(const struct smtp_content *c);

/* After DOT_END or the last chunk. REPLY_OK: the message's size, flags, key, dkim and accepted_ms
 * are set and its content is complete. Otherwise the reply that refuses it; nothing of it is stored
 * any more. */
enum reply_id smtp_content_finish(struct smtp_content *c, const struct now *now);
