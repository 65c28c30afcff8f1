/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules_store - one set of rules, a lock around the pointer, and a serial that tells a worker
 * without the lock whether its own set is still the newest. Sets are never changed; the last worker
 * to let go of one frees it.
 */
#include "io/rules_store.h"
#include "core/base/must.h"
#include "io/auth_file.h"

#include <pthread.h>
#include <stdlib.h>

struct rules_store {
    const char *path;     /* borrowed, the configuration's; NULL: what is built in */
    pthread_mutex_t lock; /* around rules */
    struct reply_rules *rules;
    _Atomic uint32_t serial; /* of rules; the first is 1 */
    struct auth_stamp stamp; /* of the file when it was tried last */
};

static enum status load(const char *path, struct reply_rules **out, struct buf *error)
{
    struct buf text;
    enum status st = STATUS_OK;
    buf_init(&text, REPLY_RULES_SIZE_MAX);
    if (path)
        st = auth_file_read(path, &text, error);
    if (st == STATUS_OK)
        st = reply_rules_parse(path ? path : "", buf_slice(&text), out, error);
    buf_done(&text);
    return st;
}

enum status rules_store_reload(struct rules_store *s, struct buf *error)
{
    struct reply_rules *rules, *old;
    s->stamp = auth_stamp_of(s->path); /* before reading: a change meanwhile is seen next time */
    enum status st = load(s->path, &rules, error);
    if (st != STATUS_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    old = s->rules;
    s->rules = rules;
    s->serial++;
    pthread_mutex_unlock(&s->lock);
    reply_rules_unref(old);
    return STATUS_OK;
}

enum status rules_store_new(const struct config *cfg, struct rules_store **out, struct buf *error)
{
    struct rules_store *s = mem_zalloc(sizeof *s);
    s->path = cfg->relay.rules;
    pthread_mutex_init(&s->lock, NULL);
    enum status st = rules_store_reload(s, error);
    if (st == STATUS_OK)
        *out = s;
    else
        rules_store_free(s);
    return st;
}

void rules_store_free(struct rules_store *s)
{
    if (!s)
        return;
    reply_rules_unref(s->rules);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool rules_store_has_changed(const struct rules_store *s)
{
    return s->path && !auth_stamp_eq(s->stamp, auth_stamp_of(s->path));
}

void rules_store_refresh(struct rules_store *s, struct reply_rules **rules, uint32_t *serial)
{
    if (s->serial == *serial)
        return;
    reply_rules_unref(*rules);
    pthread_mutex_lock(&s->lock);
    *rules = reply_rules_ref(s->rules);
    *serial = s->serial;
    pthread_mutex_unlock(&s->lock);
}
