/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dkim_store - a set of keys, a lock around the pointer, and a serial that tells a worker without
 * the lock whether its own set is still the newest (as in rules_store.c).
 *
 * A set is made from nothing each time: what cannot be read now does not sign, even if it could
 * before, for a file that was taken away may have been taken away on purpose. A directory that
 * cannot be read might hold keys of any domain: it becomes the domain "", which holds all mail back
 * that no other key signs.
 *
 * Of several keys of one kind for one domain the first counts: the first listed in a dkim section;
 * in a directory the one whose selector sorts last ("2026b" before "2026a"), so that a new key
 * takes over when its file appears.
 *
 * Limits: KEY_FILE_MAX octets of a file, TROUBLES_MAX of what is said about bad ones; one stat a
 * file, LOOKS_MAX a second.
 */
#include "io/dkim_store.h"
#include "core/base/config_value.h"
#include "core/base/must.h"
#include "io/auth_file.h"
#include "io/fail.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/mem.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KEY_FILE_MAX (64 * 1024)
#define ERROR_MAX    1024
#define TROUBLES_MAX (64 * 1024)
#define LOOKS_MAX    1000
#define PATH_LEN     4096

struct watched {
    char *path; /* owned */
    struct auth_stamp stamp;
};

struct dkim_store {
    const struct config *cfg; /* borrowed */
    pthread_mutex_t lock;     /* around keys */
    struct dkim_keys *keys;
    _Atomic uint32_t serial; /* of keys; the first is 1 */
    struct helpers *helpers; /* owned */
    struct buf troubles;
    struct watched *watched; /* owned; what was read, files and directories */
    size_t watched_count, watched_cap;
    size_t look_at; /* which of them is looked at next */
};

bool dkim_store_is_wanted(const struct config *cfg)
{
    bool is_wanted = cfg->dkim.domain_count > 0 || cfg->dkim.directory;
    for (size_t i = 0; i < cfg->tenant_count && !is_wanted; i++)
        is_wanted = cfg->tenants[i].dkim_directory != NULL;
    return is_wanted;
}

/* --- what is watched ------------------------------------------------------------------------- */

/* Before it is read: a change meanwhile is seen next time. */
static void watch(struct dkim_store *s, const char *path)
{
    if (s->watched_count == s->watched_cap) {
        s->watched_cap = s->watched_cap > 0 ? 2 * s->watched_cap : 16;
        s->watched = mem_realloc(s->watched, s->watched_cap * sizeof *s->watched);
    }
    s->watched[s->watched_count++] = (struct watched){ mem_strdup(path), auth_stamp_of(path) };
}

static void unwatch_all(struct dkim_store *s)
{
    for (size_t i = 0; i < s->watched_count; i++)
        free(s->watched[i].path);
    s->watched_count = s->look_at = 0;
}

bool dkim_store_has_changed(struct dkim_store *s)
{
    size_t looks = s->watched_count < LOOKS_MAX ? s->watched_count : LOOKS_MAX;
    for (; looks > 0; looks--) {
        const struct watched *w = &s->watched[s->look_at];
        s->look_at = (s->look_at + 1) % s->watched_count;
        if (!auth_stamp_eq(w->stamp, auth_stamp_of(w->path)))
            return true;
    }
    return false;
}

/* --- reading --------------------------------------------------------------------------------- */

/* What does not fit any more is left out: it is said when the rest was mended. */
static void note_trouble(struct dkim_store *s, const char *what, struct slice why)
{
    if (buf_printf(&s->troubles, "%s %.*s\n", what, SLICE_ARG(why)) != STATUS_OK)
        return;
}

/* NULL: it cannot be read, and that is noted. */
static EVP_PKEY *read_key(struct dkim_store *s, const char *path)
{
    struct buf pem, error;
    EVP_PKEY *pkey = NULL;
    buf_init(&pem, KEY_FILE_MAX);
    buf_init(&error, ERROR_MAX);
    watch(s, path);
    enum status st = auth_file_read(path, &pem, &error);
    if (st != STATUS_OK)
        note_trouble(s, "dkim:", buf_slice(&error));
    else if (dkim_key_parse(buf_slice(&pem), &pkey, &error) != STATUS_OK)
        note_trouble(s, path, buf_slice(&error));
    if (pem.ptr)
        OPENSSL_cleanse(pem.ptr, pem.cap);
    buf_done(&pem);
    buf_done(&error);
    return pkey;
}

/* False: it cannot be read. A second one of a kind is left out. */
static bool add_key(struct dkim_store *s, struct dkim_domain *d, struct slice selector,
                    const char *path)
{
    EVP_PKEY *pkey = read_key(s, path);
    if (pkey && !dkim_domain_add_key(d, selector, pkey))
        EVP_PKEY_free(pkey);
    return pkey != NULL;
}

/* With one bad key the domain does not sign at all: half of the promised signatures would be a
 * silence too. */
static void read_section(struct dkim_store *s, struct dkim_keys *keys, const struct config_dkim *c)
{
    struct dkim_domain *d = dkim_keys_add(keys, slice_str(c->domain));
    bool is_good = true;
    d->tenants = c->tenants;
    d->tenant_count = c->tenant_count;
    for (size_t i = 0; i < c->selector_count; i++)
        is_good &= add_key(s, d, slice_str(c->selectors[i]), c->private_keys[i]);
    if (!is_good)
        dkim_domain_drop_keys(d);
}

/* --- directories ----------------------------------------------------------------------------- */

static int is_entry(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int is_pem(const struct dirent *e)
{
    size_t len = strlen(e->d_name);
    return is_entry(e) && len > 4 && strcmp(e->d_name + len - 4, ".pem") == 0;
}

static int later_first(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*b)->d_name, (*a)->d_name);
}

static void free_entries(struct dirent **entries, int count)
{
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
}

static bool join(char out[PATH_LEN], const char *directory, const char *name)
{
    int len = snprintf(out, PATH_LEN, "%s/%s", directory, name);
    return len > 0 && len < PATH_LEN;
}

static bool add_file(struct dkim_store *s, struct dkim_domain *d, const char *directory,
                     const char *name)
{
    char path[PATH_LEN];
    struct slice selector = slice_of(name, strlen(name) - 4);
    if (!join(path, directory, name))
        return false;
    if (!dkim_is_selector(selector)) {
        note_trouble(s, path, SLICE("is not named after a selector"));
        return false;
    }
    return add_key(s, d, selector, path);
}

/* DIRECTORY/DOMAIN */
static void read_domain(struct dkim_store *s, struct dkim_domain *d, const char *path)
{
    struct dirent **entries;
    bool is_good = true;
    watch(s, path);
    int count = scandir(path, &entries, is_pem, later_first);
    if (count < 0) {
        note_trouble(s, path, slice_str(strerror(errno)));
        return;
    }
    if (count == 0)
        note_trouble(s, path, SLICE("holds no SELECTOR.pem"));
    for (int i = 0; i < count; i++)
        is_good &= add_file(s, d, path, entries[i]->d_name);
    if (!is_good)
        dkim_domain_drop_keys(d);
    free_entries(entries, count);
}

/* A directory of one tenant, or of everybody (tenant is NULL). */
static void read_directory(struct dkim_store *s, struct dkim_keys *keys, const char *directory,
                           char *const *tenant)
{
    struct dirent **entries;
    char path[PATH_LEN];
    watch(s, directory);
    int count = scandir(directory, &entries, is_entry, later_first);
    if (count < 0) {
        struct dkim_domain *any = dkim_keys_add(keys, SLICE_NONE);
        any->tenants = tenant;
        any->tenant_count = tenant != NULL;
        note_trouble(s, directory, slice_str(strerror(errno)));
        return;
    }
    for (int i = 0; i < count; i++) {
        struct slice name = slice_str(entries[i]->d_name);
        if (!join(path, directory, entries[i]->d_name))
            continue;
        if (!config_value_is_domain(name)) {
            note_trouble(s, path, SLICE("is not named after a domain"));
            continue;
        }
        struct dkim_domain *d = dkim_keys_add(keys, name);
        d->tenants = tenant;
        d->tenant_count = tenant != NULL;
        read_domain(s, d, path);
    }
    free_entries(entries, count);
}

static struct dkim_keys *read_all(struct dkim_store *s)
{
    const struct config *cfg = s->cfg;
    struct dkim_keys *keys = dkim_keys_new();
    unwatch_all(s);
    buf_clear(&s->troubles);
    for (size_t i = 0; i < cfg->dkim.domain_count; i++)
        read_section(s, keys, &cfg->dkim.domains[i]);
    if (cfg->dkim.directory)
        read_directory(s, keys, cfg->dkim.directory, NULL);
    for (const struct config_tenant *t = cfg->tenants, *end = t + cfg->tenant_count; t < end; t++)
        if (t->dkim_directory)
            read_directory(s, keys, t->dkim_directory, &t->name);
    dkim_keys_seal(keys);
    return keys;
}

/* --- the store ------------------------------------------------------------------------------- */

void dkim_store_reload(struct dkim_store *s)
{
    struct dkim_keys *keys = read_all(s), *old;
    pthread_mutex_lock(&s->lock);
    old = s->keys;
    s->keys = keys;
    s->serial++;
    pthread_mutex_unlock(&s->lock);
    dkim_keys_unref(old);
}

static uint32_t thread_count(const struct config *cfg)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cfg->dkim.threads > 0)
        return cfg->dkim.threads;
    return cores > 0 && cores <= 256 ? (uint32_t)cores : 1;
}

/* A session waits with one message at most, so the queue of jobs cannot be full. */
enum status dkim_store_new(const struct config *cfg, struct dkim_store **out, struct buf *error)
{
    struct helpers *helpers;
    if (helpers_new(thread_count(cfg), cfg->limits.sessions_max, &helpers) != STATUS_OK)
        return fail_with(error, STATUS_SYSTEM, "dkim_threads: %u threads cannot be started",
                         thread_count(cfg));
    struct dkim_store *s = mem_zalloc(sizeof *s);
    s->cfg = cfg;
    s->helpers = helpers;
    buf_init(&s->troubles, TROUBLES_MAX);
    must(pthread_mutex_init(&s->lock, NULL) == 0);
    dkim_store_reload(s);
    *out = s;
    return STATUS_OK;
}

void dkim_store_free(struct dkim_store *s)
{
    if (!s)
        return;
    helpers_free(s->helpers);
    dkim_keys_unref(s->keys);
    unwatch_all(s);
    free(s->watched);
    buf_done(&s->troubles);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct slice dkim_store_troubles(const struct dkim_store *s)
{
    return buf_slice(&s->troubles);
}

uint32_t dkim_store_count(const struct dkim_store *s)
{
    uint32_t count = 0;
    for (size_t i = 0; i < s->keys->count; i++)
        count += s->keys->domains[i].key_count;
    return count;
}

void dkim_store_refresh(struct dkim_store *s, struct dkim_keys **keys, uint32_t *serial)
{
    if (s->serial == *serial)
        return;
    dkim_keys_unref(*keys);
    pthread_mutex_lock(&s->lock);
    *keys = dkim_keys_ref(s->keys);
    *serial = s->serial;
    pthread_mutex_unlock(&s->lock);
}

struct helpers *dkim_store_helpers(struct dkim_store *s)
{
    return s->helpers;
}
