/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * content_digest - by what a message that is sent again is known.
 *
 * The key says which message is meant: it is the client's own (X-Idempotency-Key), or its
 * Message-ID and envelope. The digest says whether it is that one: sender, recipients in any order,
 * and the octets of the body; the header section may differ, since a client that sends again may
 * date its mail anew.
 *
 * Life: content_digest_new (recipients are known) -> a key -> update with the body -> end -> free.
 */
#include "core/smtp/message.h"

struct content_digest;

struct content_digest *content_digest_new(const struct message *m);
void content_digest_free(struct content_digest *d); /* NULL is harmless */
/* The client's key, which outweighs a Message-ID. False: it has given one already. */
bool content_digest_set_key(struct content_digest *d, struct slice tenant, struct slice key);
/* Without effect behind a key. */
void content_digest_set_message_id(struct content_digest *d, struct slice tenant, struct slice id);
void content_digest_update(struct content_digest *d, struct slice body);
/* Writes has_key and key, once one of the two was set and the header section is over: a large
 * message needs to know its shard before its body has come. */
void content_digest_tell_key(const struct content_digest *d, struct message *m);
/* Writes the digest. */
void content_digest_end(struct content_digest *d, struct message *m);
