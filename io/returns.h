/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * returns - what a bounce or a complaint leads to, once its last octet is here: a log line, an
 * event, an entry on a suppression list. The sender hears 250 when that is durable.
 */
#include "core/smtp/message.h"
#include "io/worker.h"

struct returns;   /* of a worker */
struct returning; /* one report on its way */

/* is_kept: it may be answered 250; else it is to come again. */
typedef void returned_fn(void *owner, bool is_kept);

struct returns *returns_new(struct worker *w);
void returns_free(struct returns *r); /* before the queue */

/* Takes the message's reference. fn is called once, at once or within limits.commit_timeout, unless
 * forgotten; *out is set while it is still to be called. */
void returns_take(struct returns *r, struct message *m, returned_fn *fn, void *owner,
                  struct returning **out);
/* The owner is gone. */
void returns_forget(struct returning *one);
