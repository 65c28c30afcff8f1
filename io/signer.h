/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * signer - signs accepted messages before they go to the queue; one per worker.
 *
 * RSA costs a good part of a millisecond, so helper threads do it (io/helpers.h); the session waits
 * for the queue at that time anyway.
 */
#include "core/smtp/message.h"
#include "io/dkim_store.h"
#include "io/worker.h"

struct signer;
struct sign_work;

enum sign_start {
    SIGN_BEGUN,   /* fn is called later */
    SIGN_NOTHING, /* it goes as it is */
    SIGN_REFUSED, /* it must be signed and cannot be (P-246) */
};
/* The message is the caller's again, its signature set; not is_signed: it cannot be. */
typedef void sign_fn(void *owner, struct message *m, bool is_signed);

struct signer *signer_new(struct worker *w, struct dkim_store *store);
void signer_free(struct signer *g); /* waits for the helpers; NULL is harmless */
void signer_pump(struct signer *g); /* calls what has come back */

/* A message with a dkim_digest. With BEGUN it belongs to the signer until fn. */
NODISCARD enum sign_start signer_begin(struct signer *g, struct message *m, sign_fn *fn,
                                       void *owner, struct sign_work **out);
/* fn will not be called; the message goes. */
void signer_forget(struct sign_work *work);
