/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_home - the lock, the settings and the log of the embedded server. See redis_home.h.
 *
 * The lock is one open file description that the server inherits, so it is free exactly when both
 * processes are gone: a gateway that was killed and started again waits for its old server to
 * finish writing before it lets a new one open the same files.
 *
 * To change a setting of the server: settings[] below.
 */
#include "io/redis_home.h"
#include "core/base/must.h"
#include "io/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_POLL_MS    20
#define LOG_TAIL_OCTETS 1500
#define LOG_KEEP_OCTETS (8 * 1024 * 1024) /* at start a longer log moves to redis.log.1 */

void redis_home_init(struct redis_home *h)
{
    *h = (struct redis_home){ .lock_fd = -1 };
}

static char *join(const char *dir, const char *name)
{
    char *out = NULL;
    must(asprintf(&out, "%s/%s", dir, name) > 0);
    return out;
}

static enum status make_dir(const char *path, mode_t mode, struct buf *error)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return STATUS_OK;
    return fail_with(error, STATUS_SYSTEM, "cannot make the directory %s: %s", path,
                     strerror(errno));
}

enum status redis_home_open(struct redis_home *h, const char *data_dir, struct buf *error)
{
    enum status st = make_dir(data_dir, 0750, error);
    char *dir = join(data_dir, REDIS_HOME_DIR);
    if (st == STATUS_OK)
        st = make_dir(dir, 0700, error);
    if (st == STATUS_OK) {
        h->dir = realpath(dir, NULL);
        if (!h->dir)
            st = fail_with(error, STATUS_SYSTEM, "%s: %s", dir, strerror(errno));
    }
    free(dir);
    if (st != STATUS_OK)
        return st;
    h->conf = join(h->dir, "redis.conf");
    h->log = join(h->dir, "redis.log");
    return STATUS_OK;
}

void redis_home_close(struct redis_home *h)
{
    if (h->lock_fd >= 0)
        (void)close(h->lock_fd);
    free(h->dir);
    free(h->conf);
    free(h->log);
    redis_home_init(h);
}

/* Who wrote itself into the lock file: "gateway server". */
static void read_holder(int fd, long *gateway, long *server)
{
    char text[64] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    *gateway = *server = 0;
    if (n > 0)
        (void)sscanf(text, "%ld %ld", gateway, server);
}

static enum status lock_is_held(const struct redis_home *h, int fd, uint32_t waited_ms,
                                struct buf *error)
{
    long gateway, server;
    read_holder(fd, &gateway, &server);
    bool gateway_lives = gateway > 0 && (kill((pid_t)gateway, 0) == 0 || errno == EPERM);
    return fail_with(error, STATUS_REFUSED,
                     "%s/lock is still held after %u ms by %s %ld: only one gateway can use an "
                     "embedded Redis; a second one needs a data_dir of its own, or "
                     "redis { mode = \"external\"; }",
                     h->dir, waited_ms,
                     gateway_lives ? "the gateway with pid" : "redis-server, pid",
                     gateway_lives ? gateway : server);
}

enum status redis_home_lock(struct redis_home *h, uint32_t wait_ms, struct buf *error)
{
    char *path = join(h->dir, "lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        enum status st = fail_with(error, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
        free(path);
        return st;
    }
    free(path);
    struct timespec pause = { .tv_nsec = LOCK_POLL_MS * 1000000L };
    for (uint32_t waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_POLL_MS) {
        enum status st = STATUS_OK;
        if (errno != EWOULDBLOCK && errno != EINTR)
            st = fail_with(error, STATUS_SYSTEM, "%s/lock: %s", h->dir, strerror(errno));
        else if (waited_ms >= wait_ms)
            st = lock_is_held(h, fd, wait_ms, error);
        if (st != STATUS_OK) {
            (void)close(fd);
            return st;
        }
        (void)nanosleep(&pause, NULL);
    }
    h->lock_fd = fd;
    return STATUS_OK;
}

/* For lock_is_held of another gateway; of no importance if it fails. */
void redis_home_sign(const struct redis_home *h, pid_t server)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%ld %ld\n", (long)getpid(), (long)server);
    if (ftruncate(h->lock_fd, 0) == 0)
        (void)!pwrite(h->lock_fd, text, (size_t)len, 0);
}

/* A path as redis.conf reads it: in quotes, with escapes. */
static void write_quoted(FILE *f, const char *key, const char *path)
{
    fprintf(f, "%s \"", key);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        if (*p < 0x20 || *p == '"' || *p == '\\')
            fprintf(f, "\\x%02x", *p);
        else
            fputc(*p, f);
    }
    fputs("\"\n", f);
}

/*
 * appendfsync always: a reply means "on disk", which is what our 250 repeats. No RDB snapshots:
 * the AOF is the truth, and a second fork would only cost memory. The rewrite threshold is high
 * because a busy queue appends 100 MB/s of which almost nothing stays.
 */
static const char settings[] = "# Written by kilat at every start; changes here are lost.\n"
                               "daemonize no\n"
                               "port 0\n"
                               "unixsocketperm 700\n"
                               "databases 1\n"
                               "timeout 0\n"
                               "proc-title-template \"{title} {listen-addr} (kilat)\"\n"
                               "loglevel notice\n"
                               "appendonly yes\n"
                               "appendfsync always\n"
                               "no-appendfsync-on-rewrite no\n"
                               "aof-use-rdb-preamble yes\n"
                               "auto-aof-rewrite-percentage 100\n"
                               "auto-aof-rewrite-min-size 1gb\n"
                               "save \"\"\n"
                               "maxmemory-policy noeviction\n"
                               "lazyfree-lazy-user-del yes\n"
                               "io-threads 1\n"
                               "activedefrag no\n";

/* Written beside and renamed, so that a full disk never leaves half a configuration. */
enum status redis_home_write_conf(const struct redis_home *h, uint64_t maxmemory, struct buf *error)
{
    char *temp = join(h->dir, "redis.conf.new");
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool good = f != NULL;
    if (good) {
        fputs(settings, f);
        fprintf(f, "maxmemory %llu\n", (unsigned long long)maxmemory);
        write_quoted(f, "dir", h->dir);
        write_quoted(f, "logfile", h->log);
        fputs("unixsocket " REDIS_HOME_SOCKET "\n", f); /* in dir */
        good = !ferror(f);
        good = fclose(f) == 0 && good && rename(temp, h->conf) == 0;
    }
    enum status st = STATUS_OK;
    if (!good)
        st = fail_with(error, STATUS_SYSTEM, "cannot write %s: %s", h->conf, strerror(errno));
    free(temp);
    return st;
}

static void rotate_log(const struct redis_home *h)
{
    struct stat info;
    if (stat(h->log, &info) != 0 || info.st_size < LOG_KEEP_OCTETS)
        return;
    char *old = join(h->dir, "redis.log.1");
    (void)rename(h->log, old);
    free(old);
}

int redis_home_open_log(struct redis_home *h)
{
    rotate_log(h);
    int fd = open(h->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    h->log_start = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    return fd;
}

/* The last lines of the server's log, for an error: it knows best why it gave up. */
void redis_home_append_log(const struct redis_home *h, struct buf *error)
{
    char text[LOG_TAIL_OCTETS];
    int fd = open(h->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    bool is_cut = size - h->log_start > LOG_TAIL_OCTETS;
    off_t from = is_cut ? size - LOG_TAIL_OCTETS : h->log_start;
    ssize_t n = pread(fd, text, sizeof text, from);
    (void)close(fd);
    struct slice tail = slice_of(text, n > 0 ? (size_t)n : 0);
    if (is_cut) /* begin with a whole line */
        tail = slice_skip(tail, slice_find(tail, '\n') + 1);
    if (buf_printf(error, "; the end of %s:\n%.*s", h->log, SLICE_ARG(tail)) != STATUS_OK)
        return; /* the first line of the error stands without it */
}
