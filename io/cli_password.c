/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_password - one line of input is the password; its end (LF or CR LF) is not part of it.
 *
 * What a client could not send, or nobody could type again, is refused: nothing at all, control
 * characters, more than AUTH_PASSWORD_MAX octets, a file of several lines.
 *
 * A terminal gets its echo back also when the wait is interrupted: the signals that would end us
 * are noted instead, and end the wait.
 */
#include "io/cli_password.h"
#include "core/base/must.h"
#include "io/auth_file.h"
#include "io/auth_hash.h"
#include "io/fail.h"

#include <errno.h>
#include <openssl/mem.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t is_interrupted;

static void on_signal(int sig)
{
    is_interrupted = 1;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Until there is something to read; with a mask signals are heard exactly here, so that none comes
 * unnoticed between a look and the read. */
static bool wait_for_input(const sigset_t *mask)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    while (!is_interrupted && mask && ppoll(&in, 1, NULL, mask) < 0 && errno == EINTR) {
    }
    return !is_interrupted;
}

/* Octet by octet: what follows the line is somebody else's. */
static bool read_line(const sigset_t *mask, struct buf *out, struct buf *error)
{
    char c = '\0';
    while (c != '\n') {
        ssize_t n = wait_for_input(mask) ? read(STDIN_FILENO, &c, 1) : -1;
        if (n < 0 && !is_interrupted && errno == EINTR)
            continue;
        if (n < 0) {
            (void)fail_with(error, STATUS_SYSTEM, "cannot read the password: %s",
                            is_interrupted ? "interrupted" : strerror(errno));
            return false;
        }
        if (n == 0)
            break;
        if (buf_append(out, slice_of(&c, 1)) != STATUS_OK) {
            (void)fail_with(error, STATUS_BAD, "a password has at most %d octets",
                            AUTH_PASSWORD_MAX);
            return false;
        }
    }
    return true;
}

static bool check(struct buf *out, struct buf *error)
{
    const char *trouble = NULL;
    if (out->len > 0 && out->ptr[out->len - 1] == '\n')
        out->len--;
    if (out->len > 0 && out->ptr[out->len - 1] == '\r')
        out->len--;
    for (uint32_t i = 0; i < out->len; i++)
        if ((unsigned char)out->ptr[i] < ' ' || out->ptr[i] == 127)
            trouble = "the password holds a control character, or is more than one line";
    if (out->len == 0)
        trouble = "the password is empty";
    if (out->len > AUTH_PASSWORD_MAX)
        trouble = "the password is too long";
    if (trouble)
        (void)fail_with(error, STATUS_BAD, "%s", trouble);
    return !trouble;
}

/* --- a terminal ------------------------------------------------------------------------------ */

struct signals_before {
    struct sigaction on_int, on_term;
    sigset_t mask;
};

static void hear_signals(struct signals_before *before)
{
    struct sigaction note = { .sa_handler = on_signal };
    sigset_t ours;
    is_interrupted = 0;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigprocmask(SIG_BLOCK, &ours, &before->mask);
    sigaction(SIGINT, &note, &before->on_int);
    sigaction(SIGTERM, &note, &before->on_term);
}

static void unhear_signals(const struct signals_before *before)
{
    sigaction(SIGINT, &before->on_int, NULL);
    sigaction(SIGTERM, &before->on_term, NULL);
    sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

static bool ask(const char *prompt, struct buf *out, struct buf *error)
{
    struct termios before, quiet;
    struct signals_before signals;
    if (tcgetattr(STDIN_FILENO, &before) < 0) {
        (void)fail_with(error, STATUS_SYSTEM, "the terminal: %s", strerror(errno));
        return false;
    }
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    hear_signals(&signals);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    fputs(prompt, stderr);
    bool is_read = read_line(&signals.mask, out, error);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputc('\n', stderr);
    unhear_signals(&signals);
    return is_read && check(out, error);
}

static bool ask_twice(struct buf *out, struct buf *error)
{
    struct buf again;
    buf_init(&again, out->max);
    bool is_good = ask("Password: ", out, error) && ask("Once more: ", &again, error);
    if (is_good && !slice_eq(buf_slice(out), buf_slice(&again))) {
        (void)fail_with(error, STATUS_BAD, "these were two passwords");
        is_good = false;
    }
    if (again.ptr)
        OPENSSL_cleanse(again.ptr, again.cap);
    buf_done(&again);
    return is_good;
}

bool cli_password_read(const char *path, struct buf *out, struct buf *error)
{
    if (path && !slice_eq(slice_str(path), SLICE("-")))
        return auth_file_read(path, out, error) == STATUS_OK && check(out, error);
    if (isatty(STDIN_FILENO))
        return ask_twice(out, error);
    return read_line(NULL, out, error) && check(out, error);
}
