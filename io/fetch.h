/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * fetch - one request over HTTPS, in the worker's loop: name, connection, TLS, certificate, reply.
 * A small file that is got, or something that is posted.
 *
 * The host must be public (unless relay.allow_private, or it is one of ours), its certificate good
 * for its name; no redirect is followed. Of a file only 200 counts, of a post any 2xx. Life:
 * fetch_start -> fn, once -> freed by itself. Its owner forgets it with fetch_cancel.
 */
#include "core/base/list.h"
#include "core/base/slice.h"
#include <stdint.h>

struct worker;
struct resolver;
struct tls_client;
struct fetch;

struct fetch_request {
    const char *host, *path; /* copied */
    const char *type;        /* the Content-Type it must have; static; NULL: any */
    struct slice post;       /* copied; what is sent, application/json; none: it is a GET */
    const char *headers;     /* copied; more lines of a post, each with CR LF; NULL: none */
    bool is_ours;            /* the configuration names the host: it may be private */
    uint16_t port;
    const char *ca_file; /* borrowed, outlives it; NULL: the system's authorities */
    uint32_t size_max;   /* octets of the body */
    uint32_t timeout_ms; /* from here to the last octet */
    struct list *home;   /* borrowed, outlives it: where it is listed while it lives */
};

/* why NULL: body is it, valid for the call; else what is wrong, in words for the log. */
typedef void fetch_fn(void *ctx, const char *why, struct slice body);

/* fn may be called before this returns, and then NULL is returned. */
struct fetch *fetch_start(struct worker *w, struct resolver *resolver, struct tls_client *tls,
                          const struct fetch_request *request, fetch_fn *fn, void *ctx);
/* fn is not called any more; the connection closes. NULL is harmless. */
void fetch_cancel(struct fetch *f);
/* Cancels all that are listed. */
void fetch_cancel_all(struct list *home);
/* When resolver and connections are gone: frees what was cancelled and waited for a name. */
void fetch_free_all(struct list *home);
