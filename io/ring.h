/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * ring - the one seam to the kernel: operations go in, completions come out.
 *
 * Everything above speaks these functions, never io_uring; a second implementation chosen at link
 * time can drive the same code with virtual time.
 *
 * Each operation carries a tag: kind (which handler), generation and index (which object). A
 * handler drops a completion whose generation is not its object's: the slot was used again. A
 * completion is delivered from ring_turn only, never from inside a submitting call.
 *
 * Life:   ring_new in the thread that uses it -> ring_on for every kind -> ring_turn ... ->
 * ring_free Limits: 16 KiB receive buffers, RING_BUFFERS_START published, RING_BUFFERS_MAX at most;
 * a receive that finds none ends with -ENOBUFS and the ring publishes more.
 */
#include "core/base/buf.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define RING_BUFFER_SIZE   16384
#define RING_BUFFERS_START 128
#define RING_BUFFERS_STEP  64
#define RING_BUFFERS_MAX   1024

struct ring;

enum ring_kind {
    RING_IGNORED, /* nobody waits for it */
    RING_ACCEPT,
    RING_RECV,
    RING_SEND,
    RING_CONNECT,
    RING_SHUTDOWN,
    RING_POLL,
    RING_WAKE,
    RING_WRITE,
    RING_KINDS
};

struct ring_tag {
    enum ring_kind kind;
    uint32_t generation; /* 24 bits are kept */
    uint32_t index;
};

#define RING_GENERATION_MASK 0xffffffu

/* A socket: a file descriptor, or a slot of the ring's own table (a direct descriptor). */
struct ring_socket {
    int fd;
    bool is_direct;
};

/* A completion. */
struct ring_done {
    uint32_t index, generation;
    int result;      /* as the system call would return, -errno on failure */
    bool more;       /* the operation goes on: more completions will come */
    bool has_buffer; /* received octets lie in `data`; give the buffer back after use */
    uint16_t buffer;
    struct slice data;
};

typedef void ring_handler(void *ctx, const struct ring_done *done);

struct ring_config {
    uint32_t sockets_max; /* sockets open at once, for the direct table and the completion queue */
    bool force_plain;     /* use no optional feature: for tests of the fallbacks */
};

/* What is in use; `kilat check` prints it. */
struct ring_features {
    bool single_issuer, defer_taskrun, coop_taskrun, ring_fd, direct_sockets, multishot_recv;
};

/* Fails with one line in error that says what to change on the machine. */
NODISCARD enum status ring_new(const struct ring_config *cfg, struct ring **out, struct buf *error);
void ring_free(struct ring *r);
struct ring_features ring_features(const struct ring *r);
void ring_on(struct ring *r, enum ring_kind kind, ring_handler *fn, void *ctx);

/* Submits what is queued, waits up to timeout_ms (0: not at all, -1: until something happens) for
 * a completion. With `expected` above 1 it first waits up to RING_GATHER_US for that many, beside
 * those of the sends just queued, so that a busy loop is woken once for many. */
#define RING_GATHER_US 200
void ring_wait(struct ring *r, int64_t timeout_ms, uint32_t expected);
/* Runs the handlers of all completions that have come (at most 4,096). */
void ring_dispatch(struct ring *r);
/* Both, for loops without a clock. */
void ring_turn(struct ring *r, int64_t timeout_ms, uint32_t expected);

/* addr and len receive the peer's address and stay alive until the completion; the result is a new
 * socket, direct when features.direct_sockets. */
void ring_accept(struct ring *r, int listen_fd, struct sockaddr_storage *addr, socklen_t *len,
                 struct ring_tag tag);
/* Receives until told to stop (or once, on older kernels or when asked to: done.more tells). Ask
 * for once on Unix sockets: Linux 6.18 keeps the end of one to itself when it came together with
 * data. */
void ring_recv(struct ring *r, struct ring_socket s, bool once, struct ring_tag tag);
/* msg and all it points at stay alive until the completion. */
void ring_sendmsg(struct ring *r, struct ring_socket s, const struct msghdr *msg,
                  struct ring_tag tag);
void ring_send(struct ring *r, struct ring_socket s, const void *ptr, size_t len,
               struct ring_tag tag);
void ring_connect(struct ring *r, struct ring_socket s, const struct sockaddr *addr, socklen_t len,
                  struct ring_tag tag);
void ring_shutdown(struct ring *r, struct ring_socket s, int how, struct ring_tag tag);
/* Ends every operation on the socket; each still completes, with -ECANCELED or its result. */
void ring_cancel_all(struct ring *r, struct ring_socket s);
/* Ends the one operation with this tag. */
void ring_cancel(struct ring *r, struct ring_tag tag);
/* No operation may be in flight on the socket. */
void ring_close(struct ring *r, struct ring_socket s);
/* Once, when fd is readable. */
void ring_poll_in(struct ring *r, int fd, struct ring_tag tag);
/* At the file's own position (pipes, terminals, files opened for append). */
void ring_write(struct ring *r, int fd, const void *ptr, size_t len, struct ring_tag tag);

/* Gives a receive buffer back. */
void ring_buffer_return(struct ring *r, uint16_t buffer);
/* A receive ended with -ENOBUFS: publishes more buffers when the limit allows. */
void ring_buffers_grow(struct ring *r);
/* Once a minute: publishes fewer again when no receive starved since the last call. */
void ring_buffers_calm(struct ring *r);
uint32_t ring_buffers_published(const struct ring *r);
