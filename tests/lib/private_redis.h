/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * private_redis - a redis-server of a test's own, in a folder of its own, on a Unix socket. It ends
 * with private_redis_stop, or with the test that forgot. Header only: every test is one program.
 */
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct private_redis {
    char dir[64];
    char socket[96];
    pid_t pid;
};

static inline void remove_tree(const char *dir)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline void make_temp_dir(char out[64])
{
    const char *base = getenv("TMPDIR");
    /* A Unix socket path has 107 octets: a long TMPDIR does not do. */
    snprintf(out, 64, "%s/kilat-test-XXXXXX", base && strlen(base) < 30 ? base : "/tmp");
    assert_non_null(mkdtemp(out));
}

/* options: NULL-terminated pairs "--name", "value" besides the socket, dir and log. */
static inline void private_redis_start(struct private_redis *p, const char *const *options)
{
    char log[96];
    const char *argv[40] = { "redis-server", "--port", "0", "--unixsocket", p->socket, "--dir",
                             p->dir,         "--save", "",  "--logfile",    log,       "--loglevel",
                             "warning" };
    int argc = 13;
    make_temp_dir(p->dir);
    snprintf(p->socket, sizeof p->socket, "%s/r.sock", p->dir);
    snprintf(log, sizeof log, "%s/log", p->dir);
    for (int i = 0; options[i]; i++)
        argv[argc++] = options[i];
    argv[argc] = NULL;
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    for (int i = 0; i < 500; i++) {
        redisContext *c = redisConnectUnix(p->socket);
        bool up = c && !c->err;
        if (c)
            redisFree(c);
        if (up)
            return;
        usleep(20000);
    }
    fail_msg("redis-server did not start in %s", p->dir);
}

static inline void private_redis_stop(struct private_redis *p)
{
    kill(p->pid, SIGKILL);
    assert_int_equal(waitpid(p->pid, NULL, 0), p->pid);
    remove_tree(p->dir);
}

/* One command given as printf-like hiredis format; the reply's text or number as a string. */
static inline void private_redis_say(const char *socket, char *out, size_t len, const char *format,
                                     ...)
{
    va_list args;
    va_start(args, format);
    redisContext *c = redisConnectUnix(socket);
    assert_non_null(c);
    assert_int_equal(c->err, 0);
    redisReply *r = redisvCommand(c, format, args);
    va_end(args);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[1]->str)
        snprintf(out, len, "%s", r->element[1]->str);
    else if (r->type == REDIS_REPLY_INTEGER)
        snprintf(out, len, "%lld", r->integer);
    else
        snprintf(out, len, "%s", r->str ? r->str : "");
    freeReplyObject(r);
    redisFree(c);
}
