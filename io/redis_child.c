/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_child - the embedded Redis: a private `redis-server` that lives in data_dir/redis and ends
 * with us.
 *
 * data_dir/redis holds: lock (flock, held by us and by the server), redis.conf (written at every
 * start), r.sock (where it listens), redis.log (what it says, its stderr too), appendonlydir (the
 * queue).
 *
 * Life: start takes the lock, forks, execs, waits until the server answers. The server's end is
 * noticed by reap, which starts it again: at once the first time, then, as long as it keeps ending
 * within HEALTHY_MS, after a growing wait. stop sends SIGTERM and waits.
 *
 * The lock is one open file description that the server inherits, so it is free exactly when both
 * processes are gone: a gateway that was killed and started again waits for its old server to
 * finish writing before it lets a new one open the same files. PR_SET_PDEATHSIG ends a server whose
 * gateway was killed; the kernel sends it when the forking thread ends, hence "main thread only".
 *
 * Between fork and exec other threads' locks may be held for ever, so the child makes only
 * async-signal-safe calls; whatever can be prepared is prepared before.
 */
#include "core/base/must.h"
#include "io/fail.h"
#include "io/redis_boot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCK_WAIT_MS    30000 /* an old server that still writes */
#define ANSWER_WAIT_MS  30000 /* no word at all, not even "loading" */
#define STOP_WAIT_MS    10000 /* SIGTERM to SIGKILL: everything is on disk already */
#define POLL_MS         20
#define HEALTHY_MS      10000 /* a server that lived this long did not die of its start */
#define BACKOFF_MAX_MS  30000
#define LOG_TAIL_OCTETS 1500
#define LOG_KEEP_OCTETS (8 * 1024 * 1024) /* at start a longer log moves to redis.log.1 */

const struct redis_child_waits redis_child_waits_default = { LOCK_WAIT_MS, ANSWER_WAIT_MS };

struct redis_child {
    char *dir;     /* owned; data_dir/redis, absolute */
    char *program; /* owned; absolute path of the server */
    char *conf;    /* owned; dir/redis.conf */
    char *log;     /* owned; dir/redis.log */
    struct redis_address addr;
    uint64_t maxmemory;     /* octets; 0: no limit */
    int lock_fd;            /* held for as long as this struct lives */
    pid_t pid;              /* 0: not running */
    int64_t started_ms;     /* monotonic; of the last start */
    int64_t restart_at_ms;  /* monotonic; with pid 0: not before this */
    uint32_t short_lives;   /* ends within HEALTHY_MS, in a row */
    off_t log_start;        /* where the running server's part of the log begins */
    char end[96];           /* how it ended last, for the note */
    struct buf start_error; /* scratch for restarts */
};

static int64_t mono_ms(void)
{
    struct timespec ts;
    must(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };
    (void)nanosleep(&ts, NULL);
}

static char *join(const char *dir, const char *name)
{
    char *out = NULL;
    must(asprintf(&out, "%s/%s", dir, name) > 0);
    return out;
}

/* ---- preparing: program, folder, lock, settings ---- */

/* The absolute path of the server, or NULL. The caller frees. */
static char *find_program(const char *name)
{
    char *path = NULL;
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? realpath(name, NULL) : NULL;
    const char *env = getenv("PATH");
    char *dirs = mem_strdup(env && *env ? env : "/usr/local/bin:/usr/bin:/bin"), *save = NULL;
    for (char *dir = strtok_r(dirs, ":", &save); dir && !path; dir = strtok_r(NULL, ":", &save)) {
        path = join(dir, name);
        if (access(path, X_OK) != 0) {
            free(path);
            path = NULL;
        }
    }
    free(dirs);
    return path;
}

static enum status locate_program(struct redis_child *c, const char *name, struct buf *error)
{
    c->program = find_program(name);
    if (c->program)
        return STATUS_OK;
    return fail_with(error, STATUS_MISSING,
                     "the embedded Redis needs the program %s, which was not found: install the "
                     "package redis-server (or valkey-server and name it in redis.server), or use "
                     "redis { mode = \"external\"; }",
                     name);
}

static enum status make_dir(const char *path, mode_t mode, struct buf *error)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return STATUS_OK;
    return fail_with(error, STATUS_SYSTEM, "cannot make the directory %s: %s", path,
                     strerror(errno));
}

static enum status make_dirs(struct redis_child *c, const char *data_dir, struct buf *error)
{
    enum status st = make_dir(data_dir, 0750, error);
    char *dir = join(data_dir, "redis");
    if (st == STATUS_OK)
        st = make_dir(dir, 0700, error);
    if (st == STATUS_OK) {
        c->dir = realpath(dir, NULL);
        if (!c->dir)
            st = fail_with(error, STATUS_SYSTEM, "%s: %s", dir, strerror(errno));
    }
    free(dir);
    if (st != STATUS_OK)
        return st;
    c->conf = join(c->dir, "redis.conf");
    c->log = join(c->dir, "redis.log");
    return STATUS_OK;
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

static enum status lock_is_held(const struct redis_child *c, int fd, uint32_t waited_ms,
                                struct buf *error)
{
    long gateway, server;
    read_holder(fd, &gateway, &server);
    bool gateway_lives = gateway > 0 && (kill((pid_t)gateway, 0) == 0 || errno == EPERM);
    return fail_with(error, STATUS_REFUSED,
                     "%s/lock is still held after %u ms by %s %ld: only one gateway can use an "
                     "embedded Redis; a second one needs a data_dir of its own, or "
                     "redis { mode = \"external\"; }",
                     c->dir, waited_ms,
                     gateway_lives ? "the gateway with pid" : "redis-server, pid",
                     gateway_lives ? gateway : server);
}

static enum status take_lock(struct redis_child *c, uint32_t wait_ms, struct buf *error)
{
    char *path = join(c->dir, "lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        enum status st = fail_with(error, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
        free(path);
        return st;
    }
    free(path);
    int64_t until = mono_ms() + wait_ms;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum status st = STATUS_OK;
        if (errno != EWOULDBLOCK && errno != EINTR)
            st = fail_with(error, STATUS_SYSTEM, "%s/lock: %s", c->dir, strerror(errno));
        else if (mono_ms() >= until)
            st = lock_is_held(c, fd, wait_ms, error);
        if (st != STATUS_OK) {
            (void)close(fd);
            return st;
        }
        sleep_ms(POLL_MS);
    }
    c->lock_fd = fd;
    return STATUS_OK;
}

/* For lock_is_held of another gateway; of no importance if it fails. */
static void write_holder(const struct redis_child *c)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%ld %ld\n", (long)getpid(), (long)c->pid);
    if (ftruncate(c->lock_fd, 0) == 0)
        (void)!pwrite(c->lock_fd, text, (size_t)len, 0);
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
static enum status write_conf(const struct redis_child *c, struct buf *error)
{
    char *temp = join(c->dir, "redis.conf.new");
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool good = f != NULL;
    if (good) {
        fputs(settings, f);
        fprintf(f, "maxmemory %llu\n", (unsigned long long)c->maxmemory);
        write_quoted(f, "dir", c->dir);
        write_quoted(f, "logfile", c->log);
        fputs("unixsocket r.sock\n", f); /* in dir; a short name never meets the limit of 107 */
        good = !ferror(f);
        good = fclose(f) == 0 && good && rename(temp, c->conf) == 0;
    }
    enum status st = STATUS_OK;
    if (!good)
        st = fail_with(error, STATUS_SYSTEM, "cannot write %s: %s", c->conf, strerror(errno));
    free(temp);
    return st;
}

static void rotate_log(const struct redis_child *c)
{
    struct stat info;
    if (stat(c->log, &info) != 0 || info.st_size < LOG_KEEP_OCTETS)
        return;
    char *old = join(c->dir, "redis.log.1");
    (void)rename(c->log, old);
    free(old);
}

/* ---- fork and exec ---- */

/* Everything the child needs, made before the fork. */
struct launch {
    const char *program;
    char *const *argv;
    int lock_fd, log_fd, null_fd, report_fd;
    pid_t parent;
};

/* Runs in the child; async-signal-safe calls only; never returns. */
_Noreturn static void run_child(const struct launch *l)
{
    sigset_t none;
    struct sigaction standard = { .sa_handler = SIG_DFL };
    for (int sig = 1; sig < NSIG; sig++)
        (void)sigaction(sig, &standard, NULL); /* exec keeps what is ignored */
    (void)setsid(); /* a Ctrl-C at our terminal is for us to handle, not for the server */
    (void)umask(077);
    int failed = 0;
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
        failed = errno;
    else if (getppid() != l->parent) /* it died before prctl: no signal will come */
        failed = ECHILD;
    else if (dup2(l->null_fd, 0) < 0 || dup2(l->log_fd, 1) < 0 || dup2(l->log_fd, 2) < 0)
        failed = errno;
    else if (fcntl(l->lock_fd, F_SETFD, FD_CLOEXEC) < 0)
        failed = errno;
    if (failed == 0) {
        /* What a library opened without O_CLOEXEC stays with us; the lock goes along. */
        (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
        (void)fcntl(l->lock_fd, F_SETFD, 0);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)execv(l->program, l->argv);
        failed = errno;
    }
    (void)!write(l->report_fd, &failed, sizeof failed);
    _exit(127);
}

/* Forks with every signal blocked, so that no handler of ours ever runs in the child. */
static pid_t fork_quietly(const struct launch *l)
{
    sigset_t all, before;
    must(sigfillset(&all) == 0 && pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    pid_t pid = fork();
    if (pid == 0)
        run_child(l);
    int saved = errno;
    must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    errno = saved;
    return pid;
}

/* The errno of a failed exec comes through the pipe; a good exec closes it without a word. */
static int read_report(int fd)
{
    int failed = 0;
    ssize_t n;
    do
        n = read(fd, &failed, sizeof failed);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof failed ? failed : 0;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

static enum status spawn(struct redis_child *c, struct buf *error)
{
    char *const argv[] = { c->program, c->conf, NULL };
    int report[2] = { -1, -1 };
    rotate_log(c);
    struct launch l = { .program = c->program, .argv = argv, .lock_fd = c->lock_fd };
    l.parent = getpid();
    l.log_fd = open(c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    l.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    off_t log_start = l.log_fd >= 0 ? lseek(l.log_fd, 0, SEEK_END) : 0;
    int failed = 0;
    pid_t pid = -1;
    if (l.log_fd < 0 || l.null_fd < 0 || pipe2(report, O_CLOEXEC) != 0) {
        failed = errno;
    } else {
        l.report_fd = report[1];
        pid = fork_quietly(&l);
        failed = pid < 0 ? errno : 0;
        close_fd(report[1]);
        if (pid > 0 && (failed = read_report(report[0])) != 0)
            (void)waitpid(pid, NULL, 0);
        close_fd(report[0]);
    }
    close_fd(l.log_fd);
    close_fd(l.null_fd);
    if (failed != 0)
        return fail_with(error, STATUS_SYSTEM, "cannot start %s: %s", c->program, strerror(failed));
    c->pid = pid;
    c->log_start = log_start;
    c->started_ms = mono_ms();
    write_holder(c);
    return STATUS_OK;
}

/* ---- readiness ---- */

/* The last lines of the server's log, for an error: it knows best why it gave up. */
static void append_log_tail(const struct redis_child *c, struct buf *error)
{
    char text[LOG_TAIL_OCTETS];
    int fd = open(c->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    bool is_cut = size - c->log_start > LOG_TAIL_OCTETS;
    off_t from = is_cut ? size - LOG_TAIL_OCTETS : c->log_start;
    ssize_t n = pread(fd, text, sizeof text, from);
    (void)close(fd);
    struct slice tail = slice_of(text, n > 0 ? (size_t)n : 0);
    if (is_cut) /* begin with a whole line */
        tail = slice_skip(tail, slice_find(tail, '\n') + 1);
    if (buf_printf(error, "; the end of %s:\n%.*s", c->log, SLICE_ARG(tail)) != STATUS_OK)
        return; /* the first line of the error stands without it */
}

/* True when the server has ended; says how in c->end. */
static bool has_ended(struct redis_child *c)
{
    int how = 0;
    if (c->pid == 0)
        return true;
    pid_t got = waitpid(c->pid, &how, WNOHANG);
    if (got == 0 || (got < 0 && errno != ECHILD))
        return false;
    if (got < 0) /* somebody else waited for it */
        snprintf(c->end, sizeof c->end, "redis-server (pid %ld) ended", (long)c->pid);
    else if (WIFSIGNALED(how))
        snprintf(c->end, sizeof c->end, "redis-server (pid %ld) was ended by signal %d",
                 (long)c->pid, WTERMSIG(how));
    else
        snprintf(c->end, sizeof c->end, "redis-server (pid %ld) ended with status %d", (long)c->pid,
                 WEXITSTATUS(how));
    c->pid = 0;
    return true;
}

enum answer { ANSWER_NONE, ANSWER_LOADING, ANSWER_READY };

/* The number after "name:" at the start of a line of INFO; -1: it is not there. */
static long info_number(const char *info, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = info; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) == 0 && line[len] == ':')
            return atol(line + len + 1);
    }
    return -1;
}

/* Asks for INFO, which a loading server answers too. Only our own child counts. */
static enum answer ask(const struct redis_child *c)
{
    char scratch[256];
    struct buf why;
    buf_init(&why, sizeof scratch);
    redisContext *redis = redis_connect_blocking(&c->addr, &why);
    buf_done(&why);
    if (!redis)
        return ANSWER_NONE;
    redisReply *reply = redisCommand(redis, "INFO");
    enum answer got = ANSWER_NONE;
    if (reply && reply->type == REDIS_REPLY_STRING &&
        info_number(reply->str, "process_id") == c->pid)
        got = info_number(reply->str, "loading") == 1 ? ANSWER_LOADING : ANSWER_READY;
    freeReplyObject(reply);
    redisFree(redis);
    return got;
}

static enum status wait_ready(struct redis_child *c, uint32_t wait_ms, struct buf *error)
{
    int64_t heard_ms = mono_ms();
    for (;;) {
        enum answer got = ask(c);
        if (got == ANSWER_READY)
            return STATUS_OK;
        if (got == ANSWER_LOADING)
            heard_ms = mono_ms();
        enum status st = STATUS_OK;
        if (has_ended(c))
            st = fail_with(error, STATUS_SYSTEM, "the embedded Redis did not start: %s", c->end);
        else if (mono_ms() - heard_ms >= wait_ms)
            st = fail_with(error, STATUS_SYSTEM,
                           "the embedded Redis (pid %ld) did not answer for %u ms", (long)c->pid,
                           wait_ms);
        if (st != STATUS_OK) {
            append_log_tail(c, error);
            return st;
        }
        sleep_ms(POLL_MS);
    }
}

/* ---- entry points ---- */

static enum status prepare(struct redis_child *c, const struct config *cfg, uint32_t lock_wait_ms,
                           struct buf *error)
{
    enum status st = redis_address_of(cfg, &c->addr, error);
    if (st == STATUS_OK)
        st = locate_program(c, cfg->redis.server ? cfg->redis.server : "redis-server", error);
    if (st == STATUS_OK)
        st = make_dirs(c, cfg->data_dir, error);
    if (st == STATUS_OK)
        st = take_lock(c, lock_wait_ms, error);
    if (st == STATUS_OK)
        st = write_conf(c, error);
    return st;
}

enum status redis_child_start_within(const struct config *cfg,
                                     const struct redis_child_waits *waits,
                                     struct redis_child **out, struct buf *error)
{
    must(cfg->redis.mode == REDIS_EMBEDDED);
    struct redis_child *c = mem_zalloc(sizeof *c);
    c->lock_fd = -1;
    c->maxmemory = cfg->redis.maxmemory;
    buf_init(&c->start_error, 1024);
    enum status st = prepare(c, cfg, waits->lock_ms, error);
    if (st == STATUS_OK)
        st = spawn(c, error);
    if (st == STATUS_OK)
        st = wait_ready(c, waits->answer_ms, error);
    if (st != STATUS_OK)
        redis_child_stop(c);
    else
        *out = c;
    return st;
}

enum status redis_child_start(const struct config *cfg, struct redis_child **out, struct buf *error)
{
    return redis_child_start_within(cfg, &redis_child_waits_default, out, error);
}

/* 0 after a healthy life, then 1 s, 2 s, 4 s ... BACKOFF_MAX_MS. */
static int64_t backoff_ms(const struct redis_child *c)
{
    if (c->short_lives < 2)
        return 0;
    int64_t ms = 1000LL << (c->short_lives - 2 < 5 ? c->short_lives - 2 : 5);
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

static void plan_restart(struct redis_child *c)
{
    int64_t now = mono_ms();
    c->short_lives = now - c->started_ms >= HEALTHY_MS ? 0 : c->short_lives + 1;
    c->restart_at_ms = now + backoff_ms(c);
}

static void say_note(char *note, size_t len, const char *first, const char *second)
{
    if (note)
        snprintf(note, len, "%s; %s", first, second);
}

bool redis_child_reap(struct redis_child *c, char *note, size_t note_len)
{
    if (note && note_len > 0)
        note[0] = '\0';
    bool was_running = c->pid != 0;
    if (!has_ended(c))
        return false;
    if (was_running)
        plan_restart(c);
    if (mono_ms() < c->restart_at_ms) {
        if (was_running)
            say_note(note, note_len, c->end, "it keeps ending and is started again after a wait");
        return false;
    }
    if (spawn(c, &c->start_error) != STATUS_OK) {
        c->short_lives++;
        c->restart_at_ms = mono_ms() + backoff_ms(c);
        if (note)
            snprintf(note, note_len, "%s; %.*s", c->end, SLICE_ARG(buf_slice(&c->start_error)));
        return false;
    }
    say_note(note, note_len, c->end, "it was started again");
    return true;
}

static void end_server(struct redis_child *c)
{
    int64_t kill_at = mono_ms() + STOP_WAIT_MS;
    if (c->pid != 0)
        (void)kill(c->pid, SIGTERM);
    while (!has_ended(c)) {
        if (mono_ms() >= kill_at)
            (void)kill(c->pid, SIGKILL);
        sleep_ms(POLL_MS);
    }
}

void redis_child_stop(struct redis_child *c)
{
    if (!c)
        return;
    end_server(c);
    close_fd(c->lock_fd);
    redis_address_done(&c->addr);
    buf_done(&c->start_error);
    free(c->dir);
    free(c->program);
    free(c->conf);
    free(c->log);
    free(c);
}

int redis_child_pid(const struct redis_child *c)
{
    return c->pid;
}
