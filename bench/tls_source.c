/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls-source - many SMTP clients over TLS in one thread, to load a server's handshakes and its
 * submission over TLS. A program of its own, on OpenSSL: its client side is several times cheaper
 * than the server's, so that one core of clients keeps one core of server busy.
 *
 *     tls-source [options] ADDRESS:PORT
 *       -s N    clients at once                       (100)
 *       -c N    connections in all                    (1000)
 *       -m N    messages on each connection; 0: connect, EHLO, STARTTLS, EHLO, QUIT   (0)
 *       -l N    octets of a message                   (10240)
 *       -r      resume: each client offers the session ticket of its last connection
 *       -i      implicit TLS: no STARTTLS
 *       -2      TLS 1.2 only
 *       -H N    after the last EHLO hold the connections open for N seconds, then QUIT
 *       -f, -t  sender and recipient
 *
 * Each client is a slot that makes one connection after the other. A connection walks down the
 * rows of script[]: what to say, and which reply must come. A message is said pipelined: MAIL,
 * RCPT, DATA in one write, then the content. Ends with one line of JSON; anything unexpected is an
 * error and exit code 1, so that a figure is never made of failures.
 *
 * Certificates are not verified against anything: the cost of the signature is there all the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_OCTETS 8192
#define STALL_S         60 /* without any progress: give up */

enum step { GREETING, EHLO, STARTTLS, EHLO_TLS, ENVELOPE, CONTENT, HOLD, QUIT, STEPS };

struct client {
    int fd;
    SSL *ssl;             /* NULL: in clear */
    SSL_SESSION *session; /* of the last connection, with -r */
    enum step step;
    int replies_due; /* of the present step */
    int messages;    /* still to be sent on this connection */
    bool is_shaking;
    char in[LINE_MAX_OCTETS];
    size_t in_len;
    const char *out; /* what is left to write; static or content */
    size_t out_len;
};

static struct {
    struct sockaddr_in server;
    int clients, connections, messages, hold_s;
    size_t size;
    bool resume, implicit, only_12;
    const char *from, *to;
} opt = {
    .clients = 100, .connections = 1000, .size = 10240, .from = "a@sender.test", .to = "b@rcpt.test"
};

static struct {
    long connections, handshakes, resumed, messages;
    int open, started, holding;
} done;

static SSL_CTX *ctx;
static int ep;
static char envelope[1024], *content;
static size_t content_len;
static const char ehlo[] = "EHLO tls-source.test\r\n", quit[] = "QUIT\r\n",
                  starttls[] = "STARTTLS\r\n";

static void die(const struct client *c, const char *what)
{
    unsigned long e = ERR_get_error();
    fprintf(stderr, "tls-source: step %d: %s%s%s (after %ld connections, %ld messages)\n",
            c ? (int)c->step : -1, what, e ? ": " : "", e ? ERR_reason_error_string(e) : "",
            done.connections, done.messages);
    exit(1);
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void make_content(void)
{
    static const char line[] = "The quick brown fox jumps over the lazy dog, again and again.\r\n";
    snprintf(envelope, sizeof envelope, "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", opt.from,
             opt.to);
    content = malloc(opt.size + 1024);
    content_len = (size_t)snprintf(content, 1024, "From: <%s>\r\nTo: <%s>\r\nSubject: load\r\n\r\n",
                                   opt.from, opt.to);
    while (content_len + sizeof line <= opt.size) {
        memcpy(content + content_len, line, sizeof line - 1);
        content_len += sizeof line - 1;
    }
    memcpy(content + content_len, ".\r\n", 3);
    content_len += 3;
}

/* --- octets ---------------------------------------------------------------------------------- */

static void watch(struct client *c, bool for_output)
{
    struct epoll_event ev = { .events = EPOLLIN | (for_output ? EPOLLOUT : 0u), .data.ptr = c };
    if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev) < 0)
        die(c, "epoll_ctl");
}

/* False: come back when the socket is ready. */
static bool flush(struct client *c)
{
    while (c->out_len > 0) {
        ssize_t n;
        if (c->ssl) {
            size_t written;
            int ok = SSL_write_ex(c->ssl, c->out, c->out_len, &written);
            if (!ok) {
                int why = SSL_get_error(c->ssl, ok);
                if (why != SSL_ERROR_WANT_WRITE && why != SSL_ERROR_WANT_READ)
                    die(c, "SSL_write");
                watch(c, why == SSL_ERROR_WANT_WRITE);
                return false;
            }
            n = (ssize_t)written;
        } else {
            n = write(c->fd, c->out, c->out_len);
            if (n < 0 && errno != EAGAIN)
                die(c, "write");
            if (n < 0) {
                watch(c, true);
                return false;
            }
        }
        c->out += n;
        c->out_len -= (size_t)n;
    }
    return true;
}

static void say(struct client *c, const char *text, size_t len, int replies)
{
    c->out = text;
    c->out_len = len;
    c->replies_due = replies;
    flush(c);
}

/* --- the conversation ------------------------------------------------------------------------ */

static void start(struct client *c);

static void finish(struct client *c)
{
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
    close(c->fd);
    done.connections++;
    done.open--;
    start(c);
}

static void shake(struct client *c)
{
    int ok = SSL_do_handshake(c->ssl);
    if (ok == 1) {
        c->is_shaking = false;
        done.handshakes++;
        done.resumed += SSL_session_reused(c->ssl);
        if (opt.implicit) {
            c->step = GREETING;
            c->replies_due = 1;
        } else {
            c->step = EHLO_TLS;
            say(c, ehlo, sizeof ehlo - 1, 1);
        }
        return;
    }
    int why = SSL_get_error(c->ssl, ok);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        die(c, "handshake");
}

static void begin_tls(struct client *c)
{
    c->ssl = SSL_new(ctx);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    SSL_set_app_data(c->ssl, c);
    if (c->session) {
        SSL_SESSION *copy = SSL_SESSION_dup(c->session); /* using one may spoil it */
        SSL_set_session(c->ssl, copy);
        SSL_SESSION_free(copy);
    }
    c->is_shaking = true;
    shake(c);
}

static void say_quit(struct client *c)
{
    c->step = QUIT;
    say(c, quit, sizeof quit - 1, 1);
}

static void next_message(struct client *c)
{
    if (opt.hold_s && c->messages == 0) {
        c->step = HOLD;
        done.holding++;
    } else if (c->messages == 0) {
        say_quit(c);
    } else {
        c->messages--;
        c->step = ENVELOPE;
        say(c, envelope, strlen(envelope), 3);
    }
}

/* All replies of the step have come. */
static void advance(struct client *c)
{
    switch (c->step) {
    case GREETING:
        c->step = opt.implicit ? EHLO_TLS : EHLO;
        say(c, ehlo, sizeof ehlo - 1, 1);
        break;
    case EHLO:
        c->step = STARTTLS;
        say(c, starttls, sizeof starttls - 1, 1);
        break;
    case STARTTLS: begin_tls(c); break;
    case EHLO_TLS: next_message(c); break;
    case ENVELOPE:
        c->step = CONTENT;
        say(c, content, content_len, 1);
        break;
    case CONTENT:
        done.messages++;
        next_message(c);
        break;
    case QUIT: finish(c); break;
    case HOLD:
    case STEPS: die(c, "a reply that nothing asked for");
    }
}

static void on_line(struct client *c, const char *line, size_t len)
{
    bool is_last = len >= 4 && line[3] == ' ';
    char want = c->step == ENVELOPE && c->replies_due == 1 ? '3' : '2';
    if (len < 4 || line[0] != want) {
        fprintf(stderr, "tls-source: step %d: %.*s\n", (int)c->step, (int)len, line);
        die(c, "unexpected reply");
    }
    if (is_last)
        c->replies_due--;
}

static ssize_t receive(struct client *c)
{
    size_t room = sizeof c->in - c->in_len;
    if (!c->ssl)
        return read(c->fd, c->in + c->in_len, room);
    size_t n;
    int ok = SSL_read_ex(c->ssl, c->in + c->in_len, room, &n);
    if (ok)
        return (ssize_t)n;
    int why = SSL_get_error(c->ssl, ok);
    if (why == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        die(c, "SSL_read");
    errno = EAGAIN;
    return -1;
}

static void take_lines(struct client *c)
{
    char *lf;
    size_t at = 0;
    while ((lf = memchr(c->in + at, '\n', c->in_len - at))) {
        on_line(c, c->in + at, (size_t)(lf - c->in) - at);
        at = (size_t)(lf - c->in) + 1;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
}

static void on_ready(struct client *c, unsigned events)
{
    if (c->is_shaking) {
        shake(c);
        return;
    }
    if (c->out_len > 0) {
        if (flush(c))
            watch(c, false);
    }
    for (;;) {
        ssize_t n = receive(c);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            die(c, "the server closed the connection");
        c->in_len += (size_t)n;
        take_lines(c);
        if (c->replies_due == 0 && c->step != HOLD) {
            int fd = c->fd;
            SSL *ssl = c->ssl;
            advance(c);
            if (c->fd != fd || c->ssl != ssl || c->is_shaking || c->step == HOLD)
                return;
        }
    }
}

/* --- clients --------------------------------------------------------------------------------- */

static void start(struct client *c)
{
    int one = 1;
    if (done.started == opt.connections)
        return;
    done.started++;
    done.open++;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die(c, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&opt.server, sizeof opt.server) < 0)
        die(c, strerror(errno));
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
        die(c, "fcntl");
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        die(c, "epoll_ctl");
    c->step = GREETING;
    c->replies_due = 1;
    c->messages = opt.messages;
    c->in_len = c->out_len = 0;
    if (opt.implicit)
        begin_tls(c);
}

/* TLS 1.3 tickets come after the handshake: the newest is kept. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct client *c = SSL_get_app_data(ssl);
    if (!opt.resume)
        return 0;
    SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static void make_context(void)
{
    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (opt.only_12)
        SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
}

static void usage(void)
{
    fprintf(stderr, "usage: tls-source [-s N] [-c N] [-m N] [-l N] [-r] [-i] [-2] [-H N] [-f A] "
                    "[-t A] ADDRESS:PORT\n");
    exit(2);
}

static void parse(int argc, char **argv)
{
    int o;
    while ((o = getopt(argc, argv, "s:c:m:l:ri2H:f:t:")) != -1)
        switch (o) {
        case 's': opt.clients = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'm': opt.messages = atoi(optarg); break;
        case 'l': opt.size = (size_t)atol(optarg); break;
        case 'r': opt.resume = true; break;
        case 'i': opt.implicit = true; break;
        case '2': opt.only_12 = true; break;
        case 'H': opt.hold_s = atoi(optarg); break;
        case 'f': opt.from = optarg; break;
        case 't': opt.to = optarg; break;
        default: usage();
        }
    char *colon = optind < argc ? strrchr(argv[optind], ':') : NULL;
    if (!colon || opt.clients < 1 || opt.connections < 1 || opt.size < 200)
        usage();
    *colon = '\0';
    opt.server =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)) };
    if (inet_pton(AF_INET, argv[optind], &opt.server.sin_addr) != 1)
        usage();
    if (opt.clients > opt.connections)
        opt.clients = opt.connections;
}

/* All wait: the time of idle sessions runs. */
static void hold(struct client *clients, double began)
{
    printf("holding %d after %.1f s\n", done.holding, now_s() - began);
    fflush(stdout);
    sleep((unsigned)opt.hold_s);
    opt.hold_s = 0;
    done.holding = 0;
    for (int i = 0; i < opt.clients; i++)
        say_quit(&clients[i]);
}

static void run(struct client *clients, double began)
{
    struct epoll_event ready[256];
    while (done.open > 0) {
        if (done.holding == opt.connections)
            hold(clients, began);
        int n = epoll_wait(ep, ready, 256, STALL_S * 1000);
        if (n == 0)
            die(NULL, "the server says nothing any more");
        for (int i = 0; i < n; i++)
            on_ready(ready[i].data.ptr, ready[i].events);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files = { 0 };
    parse(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    make_context();
    make_content();
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc((size_t)opt.clients, sizeof *clients);
    double began = now_s();
    for (int i = 0; i < opt.clients; i++)
        start(&clients[i]);
    run(clients, began);
    double s = now_s() - began;
    printf("{\"seconds\": %.3f, \"connections\": %ld, \"handshakes\": %ld, \"resumed\": %ld, "
           "\"messages\": %ld, \"connections_per_s\": %.1f, \"messages_per_s\": %.1f}\n",
           s, done.connections, done.handshakes, done.resumed, done.messages,
           (double)done.connections / s, (double)done.messages / s);
    for (int i = 0; i < opt.clients; i++)
        SSL_SESSION_free(clients[i].session);
    free(clients);
    free(content);
    SSL_CTX_free(ctx);
    return 0;
}
