/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_child - the embedded Redis: a private `redis-server` that lives in data_dir/redis and ends
 * with us.
 *
 * Life: start takes the lock, forks, execs, waits until the server answers. The server's end is
 * noticed by reap, which starts it again: at once the first time, then, as long as it keeps ending
 * within HEALTHY_MS, after a growing wait. stop sends SIGTERM and waits.
 *
 * PR_SET_PDEATHSIG ends a server whose gateway was killed; the kernel sends it when the forking
 * thread ends, hence "main thread only". The lock in the folder (redis_home.c), which both hold,
 * makes the next gateway wait for that end.
 *
 * Between fork and exec other threads' locks may be held for ever, so the child makes only
 * async-signal-safe calls; whatever can be prepared is prepared before.
 */
#include "core/base/must.h"
#include "io/fail.h"
#include "io/redis_boot.h"
#include "io/redis_home.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCK_WAIT_MS   30000 /* an old server that still writes */
#define ANSWER_WAIT_MS 30000 /* no word at all, not even "loading" */
#define STOP_WAIT_MS   10000 /* SIGTERM to SIGKILL: everything is on disk already */
#define POLL_MS        20
#define HEALTHY_MS     10000 /* a server that lived this long did not die of its start */
#define BACKOFF_MAX_MS 30000

const struct redis_child_waits redis_child_waits_default = { LOCK_WAIT_MS, ANSWER_WAIT_MS };

struct redis_child {
    struct redis_home home;
    char *program; /* owned; path of the server */
    struct redis_address addr;
    pid_t pid;              /* 0: not running */
    int64_t started_ms;     /* monotonic; of the last start */
    int64_t restart_at_ms;  /* monotonic; with pid 0: not before this */
    uint32_t short_lives;   /* ends within HEALTHY_MS, in a row */
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

/* ---- preparing ---- */

/* The path of the server, or NULL. The caller frees. */
static char *find_program(const char *name)
{
    char *path = NULL;
    /* As it is: redis-server may be a link to a program that goes by its name. */
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? mem_strdup(name) : NULL;
    const char *env = getenv("PATH");
    char *dirs = mem_strdup(env && *env ? env : "/usr/local/bin:/usr/bin:/bin"), *save = NULL;
    for (char *dir = strtok_r(dirs, ":", &save); dir && !path; dir = strtok_r(NULL, ":", &save)) {
        must(asprintf(&path, "%s/%s", dir, name) > 0);
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
    char *const argv[] = { c->program, c->home.conf, NULL };
    int report[2] = { -1, -1 };
    struct launch l = { .program = c->program, .argv = argv, .lock_fd = c->home.lock_fd };
    l.parent = getpid();
    l.log_fd = redis_home_open_log(&c->home);
    l.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
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
    c->started_ms = mono_ms();
    redis_home_sign(&c->home, pid);
    return STATUS_OK;
}

/* ---- readiness ---- */

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
            redis_home_append_log(&c->home, error);
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
        st = redis_home_open(&c->home, cfg->data_dir, error);
    if (st == STATUS_OK)
        st = redis_home_lock(&c->home, lock_wait_ms, error);
    if (st == STATUS_OK)
        st = redis_home_write_conf(&c->home, cfg->redis.maxmemory, error);
    return st;
}

enum status redis_child_start_within(const struct config *cfg,
                                     const struct redis_child_waits *waits,
                                     struct redis_child **out, struct buf *error)
{
    must(cfg->redis.mode == REDIS_EMBEDDED);
    struct redis_child *c = mem_zalloc(sizeof *c);
    redis_home_init(&c->home);
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
    redis_home_close(&c->home);
    redis_address_done(&c->addr);
    buf_done(&c->start_error);
    free(c->program);
    free(c);
}

int redis_child_pid(const struct redis_child *c)
{
    return c->pid;
}
