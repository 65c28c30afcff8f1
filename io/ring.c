/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring on io_uring, Linux 6.1 upward.
 *
 * Features are found by trying them: set-up flags are dropped one at a time until the kernel takes
 * the rest, and a self test on a socket pair decides about multishot receives. Only one rule looks
 * at the kernel's version: below 6.8 multishot receives starve new connections, so receives are
 * one-shot.
 *
 * Receive buffers are 16 KiB pieces of one reserved region, handed to the kernel through a buffer
 * ring. That ring is first in, first out, so every published buffer is touched in turn: few are
 * published (they stay in the cache) and more only when a receive starved.
 */
#include "io/ring.h"
#include "core/base/must.h"
#include "io/compat.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SQ_ENTRIES      2048
#define CQ_ENTRIES_MIN  16384
#define CQ_ENTRIES_MAX  65536
#define TURN_EVENTS_MAX 4096
#define BUFFER_GROUP    0

struct ring {
    struct io_uring uring;
    struct ring_features features;
    struct {
        ring_handler *fn;
        void *ctx;
    } handlers[RING_KINDS];
    struct io_uring_buf_ring *buffers; /* shared with the kernel */
    char *region;                      /* RING_BUFFERS_MAX buffers, reserved */
    uint16_t spare[RING_BUFFERS_MAX];  /* buffers not published now */
    uint32_t spare_count;
    uint32_t published;     /* in the buffer ring or with a handler */
    uint32_t published_max; /* how many should be */
    bool has_starved;       /* since the last ring_buffers_calm */
    uint32_t sends;         /* queued since the last wait; nearly all complete at once */
};

/* --- tags ------------------------------------------------------------------------------------ */

static uint64_t tag_pack(struct ring_tag tag)
{
    return (uint64_t)tag.kind << 56 | (uint64_t)(tag.generation & RING_GENERATION_MASK) << 32 |
           tag.index;
}

/* --- set-up ---------------------------------------------------------------------------------- */

static uint32_t cq_entries_for(uint32_t sockets_max)
{
    uint32_t entries = CQ_ENTRIES_MIN;
    while (entries < 2 * sockets_max && entries < CQ_ENTRIES_MAX)
        entries *= 2;
    return entries;
}

static int try_setup(struct ring *r, const struct ring_config *cfg, unsigned flags)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | flags,
        .cq_entries = cq_entries_for(cfg->sockets_max),
    };
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &r->uring, &params);
    if (rc < 0)
        return rc;
    r->features.single_issuer = flags & IORING_SETUP_SINGLE_ISSUER;
    r->features.defer_taskrun = flags & IORING_SETUP_DEFER_TASKRUN;
    r->features.coop_taskrun = flags & IORING_SETUP_COOP_TASKRUN;
    return 0;
}

static int setup(struct ring *r, const struct ring_config *cfg)
{
    static const unsigned attempts[] = {
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
        IORING_SETUP_SUBMIT_ALL,
    };
    int rc = -EINVAL;
    for (size_t i = cfg->force_plain ? 2 : 0; i < ARRAY_LEN(attempts) && rc == -EINVAL; i++)
        rc = try_setup(r, cfg, attempts[i]);
    return rc;
}

static enum status explain(struct buf *error, int rc)
{
    const char *advice = "see dmesg and the kernel's io_uring settings";
    if (rc == -EPERM)
        advice =
            "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, or let the "
            "container's seccomp profile allow io_uring_setup, io_uring_enter, io_uring_register";
    else if (rc == -ENOSYS || rc == -EINVAL)
        advice = "Kilat needs Linux 6.1 or newer with io_uring";
    else if (rc == -ENOMEM)
        advice = "raise the locked memory limit (ulimit -l)";
    if (buf_printf(error, "io_uring: %s: %s", strerror(-rc), advice) != STATUS_OK)
        return STATUS_FULL;
    return STATUS_SYSTEM;
}

static int setup_buffers(struct ring *r)
{
    size_t table = RING_BUFFERS_MAX * sizeof(struct io_uring_buf);
    r->buffers = mmap(NULL, table, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    r->region = mmap(NULL, (size_t)RING_BUFFERS_MAX * RING_BUFFER_SIZE, PROT_READ | PROT_WRITE,
                     MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, -1, 0);
    if (r->buffers == MAP_FAILED || r->region == MAP_FAILED)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)r->buffers,
        .ring_entries = RING_BUFFERS_MAX,
        .bgid = BUFFER_GROUP,
    };
    int rc = io_uring_register_buf_ring(&r->uring, &reg, 0);
    if (rc < 0)
        return rc;
    io_uring_buf_ring_init(r->buffers);
    for (uint32_t i = 0; i < RING_BUFFERS_MAX; i++)
        r->spare[i] = (uint16_t)(RING_BUFFERS_MAX - 1 - i);
    r->spare_count = RING_BUFFERS_MAX;
    return 0;
}

static void publish(struct ring *r, uint16_t buffer)
{
    io_uring_buf_ring_add(r->buffers, r->region + (size_t)buffer * RING_BUFFER_SIZE,
                          RING_BUFFER_SIZE, buffer, io_uring_buf_ring_mask(RING_BUFFERS_MAX), 0);
    io_uring_buf_ring_advance(r->buffers, 1);
}

static void publish_up_to(struct ring *r, uint32_t count)
{
    r->published_max = count;
    while (r->published < count && r->spare_count > 0) {
        publish(r, r->spare[--r->spare_count]);
        r->published++;
    }
}

/* Below 6.8 a multishot receive may keep the loop to itself while new connections wait. */
static bool kernel_is_at_least(unsigned major, unsigned minor)
{
    struct utsname name;
    unsigned a = 0, b = 0;
    if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &a, &b) != 2)
        return false;
    return a > major || (a == major && b >= minor);
}

/* A multishot receive on a socket pair: must deliver twice from one submission. */
static bool multishot_recv_works(struct ring *r)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return false;
    bool works = false;
    struct ring_socket s = { pair[0], false };
    r->features.multishot_recv = true;
    ring_recv(r, s, false, (struct ring_tag){ RING_IGNORED, 0, 0 });
    for (int i = 0; i < 2; i++) {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec second = { .tv_sec = 1 };
        if (write(pair[1], "x", 1) != 1 || io_uring_submit(&r->uring) < 0 ||
            io_uring_wait_cqe_timeout(&r->uring, &cqe, &second) < 0)
            break;
        works = cqe->res == 1 && cqe->flags & IORING_CQE_F_MORE && cqe->flags & IORING_CQE_F_BUFFER;
        if (cqe->flags & IORING_CQE_F_BUFFER)
            ring_buffer_return(r, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT));
        io_uring_cqe_seen(&r->uring, cqe);
        if (!works)
            break;
    }
    shutdown(pair[0], SHUT_RDWR);
    close(pair[1]);
    ring_turn(r, 100, 1);
    close(pair[0]);
    return works;
}

/* The table may not be larger than the limit of open files; a full one makes accepting rest. */
static bool register_table(struct ring *r, uint32_t sockets)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && sockets > limit.rlim_cur)
        sockets = (uint32_t)limit.rlim_cur;
    return io_uring_register_files_sparse(&r->uring, sockets) == 0;
}

static void probe(struct ring *r, const struct ring_config *cfg)
{
    publish_up_to(r, RING_BUFFERS_START);
    if (cfg->force_plain)
        return;
    r->features.ring_fd = io_uring_register_ring_fd(&r->uring) == 1;
    r->features.direct_sockets = register_table(r, cfg->sockets_max);
    r->features.multishot_recv = kernel_is_at_least(6, 8) && multishot_recv_works(r);
}

enum status ring_new(const struct ring_config *cfg, struct ring **out, struct buf *error)
{
    struct ring *r = mem_zalloc(sizeof *r);
    int rc = kernel_is_at_least(6, 1) ? setup(r, cfg) : -ENOSYS;
    if (rc < 0) {
        free(r);
        return explain(error, rc);
    }
    rc = setup_buffers(r);
    if (rc < 0) {
        ring_free(r);
        return explain(error, rc);
    }
    probe(r, cfg);
    *out = r;
    return STATUS_OK;
}

void ring_free(struct ring *r)
{
    io_uring_queue_exit(&r->uring);
    if (r->region && r->region != MAP_FAILED)
        munmap(r->region, (size_t)RING_BUFFERS_MAX * RING_BUFFER_SIZE);
    if (r->buffers && r->buffers != MAP_FAILED)
        munmap(r->buffers, RING_BUFFERS_MAX * sizeof(struct io_uring_buf));
    free(r);
}

struct ring_features ring_features(const struct ring *r)
{
    return r->features;
}

void ring_on(struct ring *r, enum ring_kind kind, ring_handler *fn, void *ctx)
{
    r->handlers[kind].fn = fn;
    r->handlers[kind].ctx = ctx;
}

/* --- a turn ---------------------------------------------------------------------------------- */

static void dispatch(struct ring *r, uint64_t tag, int result, unsigned flags)
{
    enum ring_kind kind = (enum ring_kind)(tag >> 56);
    struct ring_done done = {
        .index = (uint32_t)tag,
        .generation = (uint32_t)(tag >> 32) & RING_GENERATION_MASK,
        .result = result,
        .more = flags & IORING_CQE_F_MORE,
        .has_buffer = flags & IORING_CQE_F_BUFFER,
    };
    must(kind < RING_KINDS);
    if (done.has_buffer) {
        done.buffer = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
        done.data = slice_of(r->region + (size_t)done.buffer * RING_BUFFER_SIZE,
                             result > 0 ? (size_t)result : 0);
    }
    if (r->handlers[kind].fn)
        r->handlers[kind].fn(r->handlers[kind].ctx, &done);
    else if (done.has_buffer)
        ring_buffer_return(r, done.buffer);
}

/* EBUSY and EAGAIN: the completion queue is full or the kernel is short of memory; what is queued
 * stays queued, and the completions that follow make room. */
static int enter(struct ring *r, uint32_t want, struct __kernel_timespec *ts)
{
    struct io_uring_cqe *cqe;
    int rc = io_uring_submit_and_wait_timeout(&r->uring, &cqe, want, ts, NULL);
    must(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN);
    return rc;
}

void ring_wait(struct ring *r, int64_t timeout_ms, uint32_t expected)
{
    uint32_t sends = r->sends;
    r->sends = 0;
    if (timeout_ms == 0) {
        io_uring_submit_and_get_events(&r->uring);
        return;
    }
    if (expected > 1) {
        struct __kernel_timespec gather = { .tv_nsec = RING_GATHER_US * 1000 };
        enter(r, expected + sends, &gather);
        if (io_uring_cq_ready(&r->uring) > 0)
            return;
    }
    struct __kernel_timespec ts = {
        .tv_sec = timeout_ms / 1000,
        .tv_nsec = (timeout_ms % 1000) * 1000000,
    };
    enter(r, 1, timeout_ms < 0 ? NULL : &ts);
}

void ring_turn(struct ring *r, int64_t timeout_ms, uint32_t expected)
{
    ring_wait(r, timeout_ms, expected);
    ring_dispatch(r);
}

void ring_dispatch(struct ring *r)
{
    for (int i = 0; i < TURN_EVENTS_MAX; i++) {
        struct io_uring_cqe *cqe;
        if (io_uring_peek_cqe(&r->uring, &cqe) != 0)
            break;
        uint64_t tag = io_uring_cqe_get_data64(cqe);
        int result = cqe->res;
        unsigned flags = cqe->flags;
        io_uring_cqe_seen(&r->uring, cqe);
        dispatch(r, tag, result, flags);
    }
}

/* --- operations ------------------------------------------------------------------------------ */

static struct io_uring_sqe *get_sqe(struct ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    if (!sqe) {
        io_uring_submit(&r->uring);
        sqe = io_uring_get_sqe(&r->uring);
    }
    must(sqe != NULL);
    return sqe;
}

static void finish_sqe(struct io_uring_sqe *sqe, struct ring_socket s, struct ring_tag tag)
{
    if (s.is_direct)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, tag_pack(tag));
}

void ring_accept(struct ring *r, int listen_fd, struct sockaddr_storage *addr, socklen_t *len,
                 struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    *len = sizeof *addr;
    /* One-shot, several at once: a multishot accept could not tell the peers' addresses, and a
     * direct descriptor has no getpeername. */
    if (r->features.direct_sockets) {
        io_uring_prep_accept_direct(sqe, listen_fd, (struct sockaddr *)addr, len, 0, 0);
        /* liburing 2.3 adds one to the index, which turns "any" into "none": set it here. */
        sqe->file_index = IORING_FILE_INDEX_ALLOC;
    } else
        io_uring_prep_accept(sqe, listen_fd, (struct sockaddr *)addr, len, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, tag_pack(tag));
}

void ring_recv(struct ring *r, struct ring_socket s, bool once, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    if (r->features.multishot_recv && !once)
        io_uring_prep_recv_multishot(sqe, s.fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, s.fd, NULL, RING_BUFFER_SIZE, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    finish_sqe(sqe, s, tag);
}

void ring_sendmsg(struct ring *r, struct ring_socket s, const struct msghdr *msg,
                  struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_sendmsg(sqe, s.fd, msg, MSG_WAITALL | MSG_NOSIGNAL);
    r->sends++;
    finish_sqe(sqe, s, tag);
}

void ring_send(struct ring *r, struct ring_socket s, const void *ptr, size_t len,
               struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_send(sqe, s.fd, ptr, len, MSG_WAITALL | MSG_NOSIGNAL);
    r->sends++;
    finish_sqe(sqe, s, tag);
}

void ring_connect(struct ring *r, struct ring_socket s, const struct sockaddr *addr, socklen_t len,
                  struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_connect(sqe, s.fd, addr, len);
    finish_sqe(sqe, s, tag);
}

void ring_shutdown(struct ring *r, struct ring_socket s, int how, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_shutdown(sqe, s.fd, how);
    finish_sqe(sqe, s, tag);
}

void ring_cancel_all(struct ring *r, struct ring_socket s)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_cancel_fd(sqe, s.fd, IORING_ASYNC_CANCEL_ALL);
    if (s.is_direct)
        sqe->cancel_flags |= IORING_ASYNC_CANCEL_FD_FIXED;
    io_uring_sqe_set_data64(sqe, tag_pack((struct ring_tag){ RING_IGNORED, 0, 0 }));
}

void ring_cancel(struct ring *r, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_cancel64(sqe, tag_pack(tag), 0);
    io_uring_sqe_set_data64(sqe, tag_pack((struct ring_tag){ RING_IGNORED, 0, 0 }));
}

void ring_close(struct ring *r, struct ring_socket s)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    if (s.is_direct)
        io_uring_prep_close_direct(sqe, (unsigned)s.fd);
    else
        io_uring_prep_close(sqe, s.fd);
    io_uring_sqe_set_data64(sqe, tag_pack((struct ring_tag){ RING_IGNORED, 0, 0 }));
}

void ring_poll_in(struct ring *r, int fd, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    io_uring_sqe_set_data64(sqe, tag_pack(tag));
}

void ring_write(struct ring *r, int fd, const void *ptr, size_t len, struct ring_tag tag)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_write(sqe, fd, ptr, (unsigned)len, (uint64_t)-1);
    io_uring_sqe_set_data64(sqe, tag_pack(tag));
}

/* --- receive buffers ------------------------------------------------------------------------- */

void ring_buffer_return(struct ring *r, uint16_t buffer)
{
    if (r->published > r->published_max) {
        r->published--;
        r->spare[r->spare_count++] = buffer;
        madvise(r->region + (size_t)buffer * RING_BUFFER_SIZE, RING_BUFFER_SIZE, MADV_DONTNEED);
        return;
    }
    publish(r, buffer);
}

void ring_buffers_grow(struct ring *r)
{
    r->has_starved = true;
    if (r->published_max < RING_BUFFERS_MAX)
        publish_up_to(r, r->published_max + RING_BUFFERS_STEP);
}

void ring_buffers_calm(struct ring *r)
{
    if (!r->has_starved && r->published_max > RING_BUFFERS_START)
        r->published_max -= RING_BUFFERS_STEP;
    r->has_starved = false;
}

uint32_t ring_buffers_published(const struct ring *r)
{
    return r->published;
}
