/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * http_reply - the reply to one GET over a connection that is closed after it (RFC 9112): status,
 * type, and the body with its transfer coding undone. For the few small files that mail needs.
 */
#include "core/base/buf.h"
#include "core/base/slice.h"
#include <stdbool.h>

enum http_progress {
    HTTP_MORE, /* feed more, or say that it ended */
    HTTP_DONE,
    HTTP_BAD, /* no HTTP, cut off, or a coding that we do not know */
};

struct http_reply {
    int status;
    struct slice type; /* Content-Type up to a semicolon; into the text, as the body is */
    struct slice body; /* coding undone: in `plain` when it came in chunks */
};

/* Status and type only, as soon as all fields are there: what a post needs to know. The body stays
 * empty. */
enum http_progress http_read_head(struct slice text, struct http_reply *out);
/* Reads what came so far; is_ended: nothing more will come. out is set with HTTP_DONE; `plain` is
 * the caller's, empty, and bounds a body in chunks. */
enum http_progress http_read(struct slice text, bool is_ended, struct http_reply *out,
                             struct buf *plain);
