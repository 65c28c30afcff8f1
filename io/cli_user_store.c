/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_user_store - a file, or the hash {cfg}users in Redis.
 *
 * File: the folder it is in is locked (flock; a lock file would be litter, and a lock on the file
 * itself would be on the old one after the rename). The new text is the old one but for one line,
 * comments and all; it is written beside it, synced, given the old owner and mode, and renamed over
 * it, so that a reader and a crash see the old or the new one. Nothing is changed in a file that
 * the gateway could not read.
 *
 * Redis: WATCH before the look, MULTI around the change: who comes in between makes EXEC refuse.
 *
 * Limits: auth_file.h's; one page of PAGE_USERS at a time from Redis.
 */
#include "io/cli_user_store.h"
#include "core/base/must.h"
#include "io/auth_file.h"
#include "io/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERROR_MAX  4096
#define PAGE_USERS "500"

static bool fail(struct user_store *s, const char *what, const char *path)
{
    (void)fail_with(&s->error, STATUS_SYSTEM, "cannot %s %s: %s", what, path, strerror(errno));
    return false;
}

/* --- the file -------------------------------------------------------------------------------- */

/* Renaming must replace the file, not the link to it. */
static void resolve_path(struct user_store *s)
{
    s->path = realpath(s->cfg->auth.users_file, NULL);
    s->is_new = !s->path;
    if (s->is_new)
        s->path = mem_strdup(s->cfg->auth.users_file);
}

static bool lock_folder(struct user_store *s)
{
    char *copy = mem_strdup(s->path);
    const char *folder = dirname(copy);
    s->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_locked = s->folder >= 0 && flock(s->folder, LOCK_EX) == 0;
    if (!is_locked)
        (void)fail(s, "lock", folder);
    free(copy);
    return is_locked;
}

static bool open_file(struct user_store *s, bool for_writing)
{
    resolve_path(s);
    if (for_writing && !lock_folder(s))
        return false;
    if (s->is_new && for_writing)
        s->is_new = access(s->path, F_OK) < 0; /* somebody may have made it meanwhile */
    if (!(s->is_new && for_writing) && auth_file_read(s->path, &s->text, &s->error) != STATUS_OK)
        return false;
    return auth_users_parse(s->path, buf_slice(&s->text), &s->users, &s->error) == STATUS_OK;
}

/* The line's first word. */
static struct slice name_of(struct slice line)
{
    return slice_head(line, slice_find(line, ' '));
}

/* The old text with `line` in place of the one of that name, or at the end; without one when `line`
 * is empty. */
static void edit(struct buf *out, struct slice text, struct slice name, struct slice line)
{
    bool is_placed = line.len == 0;
    while (text.len > 0) {
        struct slice old = slice_head(text, slice_find(text, '\n'));
        text = slice_skip(text, old.len + 1);
        if (old.len > 0 && old.ptr[0] != '#' && slice_eq(name_of(old), name)) {
            old = line;
            is_placed = true;
            if (line.len == 0)
                continue;
        }
        must(buf_printf(out, "%.*s\n", SLICE_ARG(old)) == STATUS_OK);
    }
    if (!is_placed)
        must(buf_printf(out, "%.*s\n", SLICE_ARG(line)) == STATUS_OK);
}

static bool write_all(int fd, struct slice text)
{
    while (text.len > 0) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0 && errno != EINTR)
            return false;
        text = slice_skip(text, n > 0 ? (size_t)n : 0);
    }
    return true;
}

/* As the old file was, or for its owner only. */
static bool dress(const struct user_store *s, int fd)
{
    struct stat old, new;
    if (s->is_new)
        return fchmod(fd, 0600) == 0;
    if (stat(s->path, &old) < 0 || fstat(fd, &new) < 0)
        return false;
    if ((old.st_uid != new.st_uid || old.st_gid != new.st_gid) &&
        fchown(fd, old.st_uid, old.st_gid) < 0)
        return false;
    return fchmod(fd, old.st_mode & 07777) == 0;
}

static bool replace_file(struct user_store *s, struct slice text)
{
    size_t size = strlen(s->path) + sizeof ".XXXXXX";
    char *temp = mem_alloc(size);
    snprintf(temp, size, "%s.XXXXXX", s->path);
    int fd = mkostemp(temp, O_CLOEXEC);
    bool is_good = fd >= 0 && write_all(fd, text) && dress(s, fd) && fsync(fd) == 0 &&
                   rename(temp, s->path) == 0;
    if (!is_good) {
        (void)fail(s, "write", fd >= 0 ? s->path : temp);
        if (fd >= 0)
            (void)unlink(temp);
    }
    if (fd >= 0)
        (void)close(fd);
    free(temp);
    /* Without this the new name may be lost with the power, but never the file. */
    return is_good && (fsync(s->folder) == 0 || fail(s, "sync the folder of", s->path));
}

static bool change_file(struct user_store *s, struct slice name, struct slice line)
{
    struct buf text;
    buf_init(&text, s->text.len + ACCOUNT_LINE_MAX + 2);
    edit(&text, buf_slice(&s->text), name, line);
    bool is_good = replace_file(s, buf_slice(&text));
    buf_done(&text);
    return is_good;
}

/* --- Redis ----------------------------------------------------------------------------------- */

/* One command by the words of an argv with lengths, for names and lines are not C strings. */
static redisReply *tell(struct user_store *s, const struct slice *words, int count)
{
    const char *argv[8];
    size_t lens[8];
    must(count <= 8);
    for (int i = 0; i < count; i++) {
        argv[i] = words[i].ptr;
        lens[i] = words[i].len;
    }
    redisReply *r = redisCommandArgv(s->redis.redis, count, argv, lens);
    if (r && r->type != REDIS_REPLY_ERROR)
        return r;
    (void)fail_with(&s->error, STATUS_REFUSED, "Redis: %s", r ? r->str : s->redis.redis->errstr);
    freeReplyObject(r);
    return NULL;
}
#define TELL(s, ...)                                                                               \
    tell(s, (const struct slice[]){ __VA_ARGS__ },                                                 \
         (int)ARRAY_LEN(((const struct slice[]){ __VA_ARGS__ })))

static bool is_told(redisReply *r)
{
    bool is_good = r != NULL;
    freeReplyObject(r);
    return is_good;
}

static bool open_redis(struct user_store *s, bool for_writing)
{
    s->has_redis = true;
    if (!cli_connect(&s->redis, s->cfg)) {
        (void)fail_with(&s->error, STATUS_SYSTEM, "%.*s", SLICE_ARG(buf_slice(&s->redis.error)));
        return false;
    }
    return !for_writing || is_told(TELL(s, SLICE("WATCH"), SLICE(QUEUE_USERS_KEY)));
}

static struct account *find_in_redis(struct user_store *s, struct slice name)
{
    struct account *a = NULL;
    struct buf why;
    redisReply *r = TELL(s, SLICE("HGET"), SLICE(QUEUE_USERS_KEY), name);
    buf_init(&why, ERROR_MAX);
    if (r && r->type == REDIS_REPLY_STRING &&
        account_parse(slice_of(r->str, r->len), &a, &why) != STATUS_OK)
        (void)fail_with(&s->error, STATUS_BAD, QUEUE_USERS_KEY ": user \"%.*s\": %.*s",
                        SLICE_ARG(name), SLICE_ARG(buf_slice(&why)));
    buf_done(&why);
    freeReplyObject(r);
    return a;
}

/* line empty: it goes. */
static bool change_redis(struct user_store *s, struct slice name, struct slice line)
{
    if (!is_told(TELL(s, SLICE("MULTI"))))
        return false;
    bool is_queued = line.len > 0
                         ? is_told(TELL(s, SLICE("HSET"), SLICE(QUEUE_USERS_KEY), name, line))
                         : is_told(TELL(s, SLICE("HDEL"), SLICE(QUEUE_USERS_KEY), name));
    redisReply *r = is_queued ? TELL(s, SLICE("EXEC")) : NULL;
    bool is_done = r && r->type == REDIS_REPLY_ARRAY;
    if (r && !is_done)
        (void)fail_with(&s->error, STATUS_REFUSED,
                        "somebody else changed the users just now: try again");
    freeReplyObject(r);
    return is_done;
}

static void add_lines(struct user_store *s, const redisReply *page)
{
    for (size_t i = 1; i < page->elements; i += 2)
        if (buf_printf(&s->text, "%.*s\n", (int)page->element[i]->len, page->element[i]->str) !=
            STATUS_OK)
            (void)fail_with(&s->error, STATUS_FULL, "there are too many users to list");
}

/* Page by page, so that Redis has time for mail; one may come twice. */
static bool load_redis(struct user_store *s)
{
    char cursor[24] = "0";
    do {
        redisReply *r = TELL(s, SLICE("HSCAN"), SLICE(QUEUE_USERS_KEY), slice_str(cursor),
                             SLICE("COUNT"), SLICE(PAGE_USERS));
        if (!r || r->elements != 2) {
            freeReplyObject(r);
            return false;
        }
        snprintf(cursor, sizeof cursor, "%s", r->element[0]->str);
        add_lines(s, r->element[1]);
        freeReplyObject(r);
    } while (s->error.len == 0 && strcmp(cursor, "0") != 0);
    return s->error.len == 0 && auth_users_collect(QUEUE_USERS_KEY, buf_slice(&s->text), &s->users,
                                                   &s->error) == STATUS_OK;
}

/* --- either ---------------------------------------------------------------------------------- */

bool user_store_open(struct user_store *s, const struct config *cfg, bool for_writing)
{
    *s = (struct user_store){ .cfg = cfg, .folder = -1 };
    buf_init(&s->error, ERROR_MAX);
    buf_init(&s->text, AUTH_FILE_MAX);
    return cfg->auth.users_file ? open_file(s, for_writing) : open_redis(s, for_writing);
}

void user_store_close(struct user_store *s)
{
    if (s->has_redis)
        cli_close(&s->redis);
    if (s->folder >= 0)
        (void)close(s->folder); /* and with it the lock */
    auth_users_free(s->users);
    free(s->path);
    buf_done(&s->text);
    buf_done(&s->error);
}

struct account *user_store_find(struct user_store *s, struct slice name)
{
    if (!s->path)
        return find_in_redis(s, name);
    struct account *a = auth_users_find(s->users, name);
    return a ? account_ref(a) : NULL;
}

static bool change(struct user_store *s, struct slice name, struct slice line)
{
    return s->path ? change_file(s, name, line) : change_redis(s, name, line);
}

bool user_store_put(struct user_store *s, const struct account *a)
{
    struct buf line;
    buf_init(&line, ACCOUNT_LINE_MAX);
    bool is_good = account_format(a, &line) == STATUS_OK;
    if (!is_good)
        (void)fail_with(&s->error, STATUS_FULL, "this user's line would have more than %d octets",
                        ACCOUNT_LINE_MAX);
    is_good = is_good && change(s, slice_str(a->name), buf_slice(&line));
    buf_done(&line);
    return is_good;
}

bool user_store_remove(struct user_store *s, struct slice name)
{
    return change(s, name, SLICE_NONE);
}

bool user_store_load(struct user_store *s)
{
    return s->path ? true : load_redis(s);
}
