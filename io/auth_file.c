/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_file - see auth_file.h. Blocks: for the main thread and the command line. Limits:
 * AUTH_FILE_MAX, or less when `out` holds less.
 */
#include "io/auth_file.h"
#include "core/base/must.h"
#include "io/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 65536

static ssize_t read_piece(int fd, struct buf *out)
{
    uint32_t left = out->max - out->len, want = left < PIECE ? left : PIECE;
    char *room = buf_reserve(out, want);
    must(room);
    ssize_t n = read(fd, room, want);
    if (n > 0)
        out->len += (uint32_t)n;
    return n;
}

enum status auth_file_read(const char *path, struct buf *out, struct buf *error)
{
    ssize_t n = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_with(error, STATUS_SYSTEM, "cannot open %s: %s", path, strerror(errno));
    while (out->len < out->max && (n > 0 || (n < 0 && errno == EINTR)))
        n = read_piece(fd, out);
    int saved = errno;
    (void)close(fd);
    if (n < 0)
        return fail_with(error, STATUS_SYSTEM, "cannot read %s: %s", path, strerror(saved));
    if (out->len == out->max)
        return fail_with(error, STATUS_BAD, "%s has %u octets or more", path, out->max);
    return STATUS_OK;
}

struct auth_stamp auth_stamp_of(const char *path)
{
    struct stat st;
    if (!path || stat(path, &st) < 0)
        return (struct auth_stamp){ 0 };
    return (struct auth_stamp){ st.st_dev, st.st_ino, st.st_size,
                                (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec };
}

bool auth_stamp_eq(struct auth_stamp a, struct auth_stamp b)
{
    return a.device == b.device && a.inode == b.inode && a.size == b.size &&
           a.changed_ns == b.changed_ns;
}
