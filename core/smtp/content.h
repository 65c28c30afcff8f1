/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content - the server's side of DATA: from the 354 to the end of data, wire octets in, a
 * message's content out.
 *
 * It writes the trace header, undoes dot stuffing, walks the header section once while it streams
 * by, and stores everything else as it came. What is wrong with the content is found out on the
 * way and told at the end: the client always gets to send its final dot.
 *
 * Life:   smtp_content_new (DATA) -> smtp_content_feed ... DOT_END -> smtp_content_finish -> free
 * Limits: message_size_max, header_size_max and received_max of struct smtp_limits; 1000 fields.
 * To treat another field: a row in fields[] of content.c.
 */
#include "core/smtp/dot.h"
#include "core/smtp/session.h"

#define SMTP_HEADER_FIELDS_MAX 1000 /* P-86 */

/* The message has its id, envelope and helo; the trace header goes into its content at once. Both
 * are borrowed and outlive the content. */
struct smtp_content *smtp_content_new(const struct smtp_server *server, struct message *m,
                                      bool is_esmtp, const struct now *now);
void smtp_content_free(struct smtp_content *c); /* NULL is harmless */

/* Takes octets until the input (DOT_MORE) or the content (DOT_END) is over; *used says how many. */
enum dot_event smtp_content_feed(struct smtp_content *c, struct slice in, size_t *used);

/* True from the end of the header section on: what is stored is never looked at again, so its front
 * may be taken away while more arrives. */
bool smtp_content_is_body(const struct smtp_content *c);

/* After DOT_END. REPLY_OK: the message's size, flags and accepted_ms are set and its content is
 * complete. Otherwise the reply that refuses it; nothing of it is stored any more. */
enum reply_id smtp_content_finish(struct smtp_content *c, const struct now *now);
