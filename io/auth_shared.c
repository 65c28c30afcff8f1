/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_shared - users and token keys of the process, swapped whole when their files change.
 *
 * The main thread reads a file and makes a new set of it without any lock; the lock is held only to
 * change the pointer, and by a worker for one search. What was found has its own reference and
 * outlives the set. When one file is bad the other is taken all the same, what was loaded stays
 * in place of the bad one, and the stamps remember that this state of the files was tried.
 *
 * Life: auth_shared_new, auth_shared_adopt (once Redis is there), then workers; auth_shared_free
 * after the last of them.
 * To add a file: a stamp, a load_* function, and a line in auth_shared_reload.
 */
#include "io/auth_shared.h"
#include "core/base/must.h"
#include "io/auth_file.h"
#include "io/auth_users.h"
#include "io/fail.h"
#include "io/shared_secret.h"

#include <openssl/mem.h>
#include <openssl/rand.h>
#include <stdlib.h>

#define KEYS_FILE_MAX (1024 * 1024)

struct auth_keys {
    _Atomic uint32_t refs;
    struct jwt_keys *keys; /* owned */
};

struct auth_shared {
    const struct config *cfg;                  /* borrowed */
    struct helpers *helpers;                   /* owned */
    pthread_mutex_t lock;                      /* around the two pointers */
    struct auth_users *users;                  /* owned; NULL: users are in Redis */
    struct auth_keys *keys;                    /* one reference; NULL: no tokens */
    struct auth_stamp users_stamp, keys_stamp; /* the main thread's */
    uint8_t cache_key[AUTH_SECRET_LEN], fake_secret[AUTH_SECRET_LEN];
};

/* --- files ----------------------------------------------------------------------------------- */

static enum status load_users(struct auth_shared *s, struct buf *error)
{
    const char *path = s->cfg->auth.users_file;
    struct auth_users *old, *users = NULL;
    struct buf text;
    if (!path)
        return STATUS_OK;
    buf_init(&text, AUTH_FILE_MAX);
    s->users_stamp = auth_stamp_of(path); /* before reading: a change meanwhile is seen next time */
    enum status st = auth_file_read(path, &text, error);
    if (st == STATUS_OK)
        st = auth_users_parse(path, buf_slice(&text), &users, error);
    buf_done(&text);
    if (st != STATUS_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    old = s->users;
    s->users = users;
    pthread_mutex_unlock(&s->lock);
    auth_users_free(old);
    return STATUS_OK;
}

static enum status parse_keys(const char *path, struct slice text, struct auth_keys **out,
                              struct buf *error)
{
    struct jwt_keys *keys;
    struct buf why;
    buf_init(&why, 512);
    enum status st = jwt_keys_parse(text, &keys, &why);
    if (st != STATUS_OK)
        (void)fail_with(error, st, "%s: %.*s", path, SLICE_ARG(buf_slice(&why)));
    buf_done(&why);
    if (st != STATUS_OK)
        return st;
    *out = mem_zalloc(sizeof **out);
    atomic_init(&(*out)->refs, 1);
    (*out)->keys = keys;
    return STATUS_OK;
}

static enum status load_keys(struct auth_shared *s, struct buf *error)
{
    const char *path = s->cfg->auth.jwt_keys;
    struct auth_keys *old, *keys = NULL;
    struct buf text;
    if (!path)
        return STATUS_OK;
    buf_init(&text, KEYS_FILE_MAX);
    s->keys_stamp = auth_stamp_of(path);
    enum status st = auth_file_read(path, &text, error);
    if (st == STATUS_OK)
        st = parse_keys(path, buf_slice(&text), &keys, error);
    buf_done(&text);
    if (st != STATUS_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    old = s->keys;
    s->keys = keys;
    pthread_mutex_unlock(&s->lock);
    auth_keys_unref(old);
    return STATUS_OK;
}

enum status auth_shared_reload(struct auth_shared *s, struct buf *error)
{
    struct buf second;
    buf_init(&second, error->max);
    enum status users = load_users(s, error);
    enum status keys = load_keys(s, users == STATUS_OK ? error : &second);
    if (users != STATUS_OK && keys != STATUS_OK &&
        buf_printf(error, "; %.*s", SLICE_ARG(buf_slice(&second))) != STATUS_OK) {
        /* One of the two has to do. */
    }
    buf_done(&second);
    return users != STATUS_OK ? users : keys;
}

bool auth_shared_has_changed(const struct auth_shared *s)
{
    return !auth_stamp_eq(s->users_stamp, auth_stamp_of(s->cfg->auth.users_file)) ||
           !auth_stamp_eq(s->keys_stamp, auth_stamp_of(s->cfg->auth.jwt_keys));
}

/* --- life ------------------------------------------------------------------------------------ */

enum status auth_shared_new(const struct config *cfg, struct auth_shared **out, struct buf *error)
{
    struct auth_shared *s = mem_zalloc(sizeof *s);
    s->cfg = cfg;
    must(pthread_mutex_init(&s->lock, NULL) == 0);
    must(RAND_bytes(s->cache_key, sizeof s->cache_key) == 1);
    shared_secret_make(s->fake_secret);
    enum status st = auth_shared_reload(s, error);
    if (st == STATUS_OK) {
        st = helpers_new(cfg->auth.threads, cfg->auth.waiting_max, &s->helpers);
        if (st != STATUS_OK)
            (void)fail_with(error, st, "cannot start %u threads (auth.threads)", cfg->auth.threads);
    }
    if (st == STATUS_OK)
        *out = s;
    else
        auth_shared_free(s);
    return st;
}

void auth_shared_free(struct auth_shared *s)
{
    if (!s)
        return;
    helpers_free(s->helpers);
    auth_users_free(s->users);
    auth_keys_unref(s->keys);
    pthread_mutex_destroy(&s->lock);
    OPENSSL_cleanse(s, sizeof *s);
    free(s);
}

enum status auth_shared_adopt(struct auth_shared *s, const struct redis_address *addr,
                              struct buf *error)
{
    return shared_secret_adopt(addr, "auth_secret", s->fake_secret, error);
}

/* --- what workers ask ------------------------------------------------------------------------ */

uint32_t auth_shared_mechanisms(const struct auth_shared *s)
{
    uint32_t can = s->cfg->auth.mechanisms;
    if (!s->cfg->auth.jwt_keys)
        can &= ~(uint32_t)(AUTH_OAUTHBEARER | AUTH_XOAUTH2);
    if (!s->cfg->tls.client_ca)
        can &= ~(uint32_t)AUTH_EXTERNAL;
    return can;
}

struct helpers *auth_shared_helpers(struct auth_shared *s)
{
    return s->helpers;
}

bool auth_shared_has_users(const struct auth_shared *s)
{
    return s->cfg->auth.users_file != NULL;
}

struct account *auth_shared_find(struct auth_shared *s, struct slice name)
{
    pthread_mutex_lock(&s->lock);
    struct account *a = auth_users_find(s->users, name);
    if (a)
        account_ref(a);
    pthread_mutex_unlock(&s->lock);
    return a;
}

const uint8_t *auth_shared_cache_key(const struct auth_shared *s)
{
    return s->cache_key;
}

const uint8_t *auth_shared_fake_secret(const struct auth_shared *s)
{
    return s->fake_secret;
}

struct auth_keys *auth_shared_keys(struct auth_shared *s, struct jwt_policy *policy)
{
    const struct config *cfg = s->cfg;
    *policy = (struct jwt_policy){ .issuer = cfg->auth.jwt_issuer,
                                   .audience = cfg->auth.jwt_audience,
                                   .scope = cfg->auth.jwt_scope,
                                   .user_claim = cfg->auth.jwt_user_claim };
    pthread_mutex_lock(&s->lock);
    struct auth_keys *k = s->keys;
    if (k)
        atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    return k;
}

const struct jwt_keys *auth_keys_of(const struct auth_keys *k)
{
    return k->keys;
}

void auth_keys_unref(struct auth_keys *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) > 1)
        return;
    jwt_keys_free(k->keys);
    free(k);
}
