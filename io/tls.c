/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS sessions: BoringSSL between two ends of memory.
 *
 * BoringSSL reads and writes through one BIO of ours per session, on_read and on_write: ciphertext
 * comes from the slice that was fed last, and goes to the session's output, or straight to the
 * gather that the caller diverts it to. Nothing is copied into buffers in between, and an idle
 * session holds none: the output is freed when it has been taken, the handshake's configuration
 * when it is over.
 *
 * Limits: TLS_OUTPUT_MAX octets of output that nobody takes; then the session fails.
 *
 * Sessions of clients are made, remembered and verified in tls_client.c.
 *
 * What both sides may speak is tls_set_policy: TLS 1.2 and 1.3, AEAD suites with an ephemeral
 * exchange, X25519 and secp256r1 (P-128). Early data is off, which is BoringSSL's default (P-134),
 * and renegotiation does not exist here.
 */
#include "core/base/must.h"
#include "io/tls_private.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#define TLS_OUTPUT_MAX (1024 * 1024)

/* --- the BIO --------------------------------------------------------------------------------- */

static int on_read(BIO *bio, char *out, int cap)
{
    struct tls_session *t = BIO_get_data(bio);
    size_t n = t->in.len < (size_t)cap ? t->in.len : (size_t)cap;
    BIO_clear_retry_flags(bio);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, t->in.ptr, n);
    t->in = slice_skip(t->in, n);
    return (int)n;
}

static int on_write(BIO *bio, const char *in, int len)
{
    struct tls_session *t = BIO_get_data(bio);
    struct slice s = slice_of(in, (size_t)len);
    BIO_clear_retry_flags(bio);
    if (t->divert) {
        gather_copy(t->divert, s);
        return len;
    }
    return buf_append(&t->out, s) == STATUS_OK ? len : -1;
}

static long on_control(BIO *bio, int cmd, long num, void *ptr)
{
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kilat");
    must(bio_method);
    BIO_meth_set_read(bio_method, on_read);
    BIO_meth_set_write(bio_method, on_write);
    BIO_meth_set_ctrl(bio_method, on_control);
}

static void attach_bio(struct tls_session *t)
{
    must(pthread_once(&bio_once, make_bio_method) == 0);
    BIO *bio = BIO_new(bio_method);
    must(bio);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
}

struct tls_session *tls_session_of(const SSL *ssl)
{
    return BIO_get_data(SSL_get_rbio(ssl));
}

const struct tls_set *tls_set_of(const SSL *ssl)
{
    return tls_session_of(ssl)->set;
}

/* --- beginning and end ----------------------------------------------------------------------- */

void tls_set_policy(SSL_CTX *ctx)
{
    static const int groups[] = { NID_X25519, NID_X9_62_prime256v1 };
    must(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
    must(SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1);
    /* In brackets: as the client prefers, because it knows whether it has AES in hardware. */
    must(SSL_CTX_set_strict_cipher_list(
             ctx, "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:"
                  "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:"
                  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384") == 1);
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    must(SSL_CTX_set1_curves(ctx, groups, ARRAY_LEN(groups)) == 1);
}

struct tls_session *tls_session_make(SSL_CTX *ctx)
{
    struct tls_session *t = mem_zalloc(sizeof *t);
    t->ssl = SSL_new(ctx);
    must(t->ssl);
    buf_init(&t->out, TLS_OUTPUT_MAX);
    attach_bio(t);
    SSL_set_shed_handshake_config(t->ssl, 1);
    return t;
}

struct tls_session *tls_session_new(struct tls_store *s)
{
    struct tls_set *set = tls_set_acquire(s);
    struct tls_session *t = tls_session_make(set->ids[0].ctx);
    t->set = set;
    SSL_set_accept_state(t->ssl);
    return t;
}

void tls_session_free(struct tls_session *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    tls_set_release(t->set);
    buf_done(&t->out);
    free(t->client_name);
    free(t->host);
    free(t);
}

/* --- steps ----------------------------------------------------------------------------------- */

void tls_session_feed(struct tls_session *t, struct slice ciphertext)
{
    t->in = ciphertext;
}

size_t tls_session_unread(const struct tls_session *t)
{
    return t->in.len;
}

static enum tls_result fail(struct tls_session *t)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    t->error = text ? text : "the connection cannot be used";
    ERR_clear_error();
    return TLS_FAILED;
}

/* What a call that returned `returned`, which is not positive, means. */
static enum tls_result result_of(struct tls_session *t, int returned)
{
    switch (SSL_get_error(t->ssl, returned)) {
    case SSL_ERROR_WANT_READ: return TLS_MORE;
    case SSL_ERROR_ZERO_RETURN: return TLS_ENDED;
    default: return fail(t);
    }
}

static char *name_of_client(const SSL *ssl);

enum tls_result tls_session_handshake(struct tls_session *t)
{
    ERR_clear_error();
    int n = SSL_do_handshake(t->ssl);
    if (n != 1)
        return result_of(t, n);
    if (t->set && !t->client_name)
        t->client_name = name_of_client(t->ssl);
    return TLS_DONE;
}

enum tls_result tls_session_read(struct tls_session *t, char *out, size_t cap, size_t *len)
{
    ERR_clear_error();
    int n = SSL_read(t->ssl, out, cap < INT32_MAX ? (int)cap : INT32_MAX);
    if (n <= 0)
        return result_of(t, n);
    *len = (size_t)n;
    return TLS_DONE;
}

enum status tls_session_write(struct tls_session *t, struct slice plaintext)
{
    must(plaintext.len <= INT32_MAX);
    if (plaintext.len == 0)
        return STATUS_OK;
    ERR_clear_error();
    if (SSL_write(t->ssl, plaintext.ptr, (int)plaintext.len) == (int)plaintext.len)
        return STATUS_OK;
    (void)fail(t);
    return STATUS_FULL;
}

void tls_session_shutdown(struct tls_session *t)
{
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* 0: the peer has not answered, and need not (RFC 8446 6.1) */
    ERR_clear_error();
}

/* --- output ---------------------------------------------------------------------------------- */

void tls_session_take_output(struct tls_session *t, struct gather *out)
{
    if (t->out.len == 0)
        return;
    gather_copy(out, buf_slice(&t->out));
    buf_done(&t->out);
}

bool tls_session_has_output(const struct tls_session *t)
{
    return t->out.len > 0;
}

bool tls_session_output_can_wait(const struct tls_session *t)
{
    return SSL_is_server(t->ssl) && SSL_version(t->ssl) == TLS1_3_VERSION && !SSL_in_init(t->ssl);
}

void tls_session_divert(struct tls_session *t, struct gather *out)
{
    t->divert = out;
}

/* --- what was agreed ------------------------------------------------------------------------- */

/* A name that an account may have: no controls, no NUL inside. NULL: it is none. */
static char *clean_copy(const unsigned char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] < ' ' || at[i] == 0x7f)
            return NULL;
    char *copy = mem_alloc(len + 1);
    memcpy(copy, at, len);
    copy[len] = '\0';
    return copy;
}

/* The first alternative name of a kind. */
static char *alternative_name(const GENERAL_NAMES *alt, int kind)
{
    for (size_t i = 0; alt && i < sk_GENERAL_NAME_num(alt); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(alt, i);
        if (g->type != kind)
            continue;
        char *name =
            clean_copy(ASN1_STRING_get0_data(g->d.ia5), (size_t)ASN1_STRING_length(g->d.ia5));
        if (name)
            return name;
    }
    return NULL;
}

static char *common_name(X509 *cert)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0)
        return NULL;
    unsigned char *utf8;
    int len =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (len < 0)
        return NULL;
    char *name = clean_copy(utf8, (size_t)len);
    OPENSSL_free(utf8);
    return name;
}

/* Users mostly are mail addresses, so that name counts first. */
static char *subject_of(X509 *cert)
{
    GENERAL_NAMES *alt = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    char *name = alternative_name(alt, GEN_EMAIL);
    if (!name)
        name = alternative_name(alt, GEN_DNS);
    if (!name)
        name = common_name(cert);
    GENERAL_NAMES_free(alt);
    return name;
}

static char *name_of_client(const SSL *ssl)
{
    X509 *cert = SSL_get_peer_certificate(ssl);
    if (!cert)
        return NULL;
    char *name = NULL;
    if (SSL_get_verify_result(ssl) == X509_V_OK)
        name = subject_of(cert);
    X509_free(cert);
    ERR_clear_error();
    return name;
}

void tls_session_info(const struct tls_session *t, struct tls_info *out)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    *out = (struct tls_info){ .version = SSL_get_version(t->ssl),
                              .cipher = cipher ? SSL_CIPHER_standard_name(cipher) : "",
                              .is_resumed = SSL_session_reused(t->ssl) == 1,
                              .client_name = t->client_name };
}

size_t tls_session_binding(const struct tls_session *t, char out[TLS_BINDING_MAX],
                           const char **name)
{
    static const char label[] = "EXPORTER-Channel-Binding";
    const size_t exporter_len = 32; /* RFC 9266 2 */
    size_t len = 0;
    if (SSL_version(t->ssl) == TLS1_3_VERSION) {
        *name = "tls-exporter";
        if (SSL_export_keying_material(t->ssl, (uint8_t *)out, exporter_len, label,
                                       sizeof label - 1, NULL, 0, 1))
            len = exporter_len;
    } else {
        *name = "tls-unique"; /* none when a session without extended master secret was resumed */
        if (!SSL_get_tls_unique(t->ssl, (uint8_t *)out, &len, TLS_BINDING_MAX))
            len = 0;
    }
    ERR_clear_error();
    return len;
}

const char *tls_session_error(const struct tls_session *t)
{
    return t->error ? t->error : "";
}
