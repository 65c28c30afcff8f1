/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handshake-limit - what one core can do at most: BoringSSL's server side of a TLS handshake in
 * memory, without sockets, SMTP or a gateway. The limit that bench/compare_tls.py puts beside the
 * gateway's figures.
 *
 *     handshake-limit CERTIFICATE KEY [handshakes]
 *
 * Two ends in one thread pass their octets by hand; only the server's calls are timed, by the
 * thread's CPU clock. Full handshakes of TLS 1.3 first, then ones that resume the last session.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static SSL_CTX *server_ctx, *client_ctx;
static SSL_SESSION *ticket;

static double cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
}

static void die(const char *what)
{
    fprintf(stderr, "handshake-limit: %s: %s\n", what,
            ERR_reason_error_string(ERR_get_error()) ?: "?");
    exit(1);
}

static int step(SSL *ssl)
{
    int ok = SSL_do_handshake(ssl);
    if (ok != 1 && SSL_get_error(ssl, ok) != SSL_ERROR_WANT_READ)
        die("handshake");
    return ok == 1;
}

/* Returns the server's CPU seconds. */
static double handshake(int resume)
{
    BIO *a, *b;
    char octet;
    double spent = 0, at;
    if (!BIO_new_bio_pair(&a, 65536, &b, 65536))
        die("BIO");
    at = cpu_s();
    SSL *server = SSL_new(server_ctx);
    SSL_set_accept_state(server);
    spent += cpu_s() - at;
    SSL *client = SSL_new(client_ctx);
    SSL_set_connect_state(client);
    if (resume && ticket)
        SSL_set_session(client, ticket);
    SSL_set_bio(server, a, a);
    SSL_set_bio(client, b, b);
    for (int s = 0, c = 0; !s || !c;) {
        if (!c)
            c = step(client);
        at = cpu_s();
        if (!s)
            s = step(server);
        spent += cpu_s() - at;
    }
    at = cpu_s();
    SSL_write(server, "", 0); /* the tickets leave with it */
    SSL_write(server, "2", 1);
    spent += cpu_s() - at;
    SSL_read(client, &octet, 1);
    if (SSL_session_reused(server) != (resume && ticket))
        die(resume ? "was not resumed" : "was resumed");
    at = cpu_s();
    SSL_free(server);
    spent += cpu_s() - at;
    SSL_free(client);
    return spent;
}

static double rate(int count, int resume)
{
    double spent = 0;
    handshake(0);
    for (int i = 0; i < count; i++)
        spent += handshake(resume);
    return count / spent;
}

int main(int argc, char **argv)
{
    int count = argc > 3 ? atoi(argv[3]) : 2000;
    if (argc < 3 || count < 1) {
        fprintf(stderr, "usage: handshake-limit CERTIFICATE KEY [handshakes]\n");
        return 2;
    }
    server_ctx = SSL_CTX_new(TLS_method());
    client_ctx = SSL_CTX_new(TLS_method());
    if (SSL_CTX_use_certificate_chain_file(server_ctx, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(server_ctx, argv[2], SSL_FILETYPE_PEM) != 1)
        die("certificate");
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(client_ctx, keep_ticket);
    double full = rate(count, 0), resumed = rate(count, 1);
    printf("{\"full_per_core\": %.0f, \"resumed_per_core\": %.0f}\n", full, resumed);
    SSL_SESSION_free(ticket);
    SSL_CTX_free(client_ctx);
    SSL_CTX_free(server_ctx);
    return 0;
}
