/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: reads certificates, keys, client_ca and the ticket secret, and makes of them one
 * `set` that sessions begin with.
 *
 * A set is complete before anybody sees it and is never changed afterwards. tls_store_reload makes
 * a new one and swaps the pointer; the old set goes with the last session that began with it. When
 * anything is wrong the old set stays, and the stamps remember that this state of the files was
 * tried.
 *
 * Every certificate has an SSL_CTX of its own, alike in all but the certificate; a session begins
 * with the first and tls_choose.c moves it. What resumes is bound to client_ca by the session
 * id context: trust that was withdrawn does not live on in tickets.
 *
 * A client certificate that client_ca does not vouch for counts as none, and the handshake goes
 * on (P-132): mail servers show their own certificate to whoever asks, and must still be able to
 * deliver; what is not verified is never an identity.
 *
 * To add a file: paths_of, and where load_set reads it.
 */
#include "core/base/must.h"
#include "io/fail.h"
#include "io/tls_private.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TLS_FILE_MAX      (1024 * 1024) /* octets; a bundle of all public authorities is 220 KiB */
#define TICKET_SECRET_MIN 32
#define RSA_BITS_MIN      2048 /* RFC 9325 4.5 */

static int64_t wall_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- files ----------------------------------------------------------------------------------- */

static enum status read_file(const char *path, struct buf *out, struct buf *error)
{
    ssize_t n = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_with(error, STATUS_SYSTEM, "cannot open %s: %s", path, strerror(errno));
    while (n > 0 && out->len < out->max) {
        char *room = buf_reserve(out, out->max - out->len < 16384 ? out->max - out->len : 16384);
        must(room);
        n = read(fd, room, out->max - out->len < 16384 ? out->max - out->len : 16384);
        if (n > 0)
            out->len += (uint32_t)n;
    }
    int saved = errno;
    (void)close(fd);
    if (n < 0)
        return fail_with(error, STATUS_SYSTEM, "cannot read %s: %s", path, strerror(saved));
    if (out->len == out->max)
        return fail_with(error, STATUS_BAD, "%s is larger than %d octets", path, TLS_FILE_MAX);
    return STATUS_OK;
}

static struct tls_stamp stamp_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return (struct tls_stamp){ .path = path };
    return (struct tls_stamp){ path, st.st_dev, st.st_ino, st.st_size,
                               (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec };
}

static bool stamp_eq(const struct tls_stamp *a, const struct tls_stamp *b)
{
    return a->dev == b->dev && a->inode == b->inode && a->size == b->size &&
           a->changed_ns == b->changed_ns;
}

static void add_stamp(struct tls_store *s, const char *path)
{
    if (path)
        s->stamps[s->stamp_count++] = stamp_of(path);
}

/* Before the files are read: a change in between is seen the next time. */
static void take_stamps(struct tls_store *s)
{
    const struct config *cfg = s->cfg;
    s->stamp_count = 0;
    for (size_t i = 0; i < cfg->tls.certificate_count; i++) {
        add_stamp(s, cfg->tls.certificates[i]);
        add_stamp(s, cfg->tls.private_keys[i]);
    }
    add_stamp(s, cfg->tls.client_ca);
    add_stamp(s, cfg->tls.ticket_secret);
}

bool tls_store_has_changed(const struct tls_store *s)
{
    for (size_t i = 0; i < s->stamp_count; i++) {
        struct tls_stamp now = stamp_of(s->stamps[i].path);
        if (!stamp_eq(&now, &s->stamps[i]))
            return true;
    }
    return false;
}

/* --- PEM ------------------------------------------------------------------------------------- */

/* What BoringSSL found wrong last; forgets it. */
static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return text ? text : "unknown";
}

/* Nobody is there to type a password. */
static int no_password(char *buf, int size, int writing, void *ctx)
{
    return 0;
}

typedef enum status take_cert_fn(void *ctx, X509 *cert); /* takes cert */

/* Gives each certificate of a PEM text away. */
static enum status each_cert(const char *path, struct slice pem, take_cert_fn *take, void *ctx,
                             struct buf *error)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509 *cert;
    enum status st = STATUS_OK;
    size_t count = 0;
    must(bio);
    for (; st == STATUS_OK && (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL)); count++)
        st = take(ctx, cert);
    BIO_free(bio);
    if (st != STATUS_OK)
        return fail_with(error, st, "%s: certificate %zu: %s", path, count, reason());
    bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (!at_end)
        return fail_with(error, STATUS_BAD, "%s: certificate %zu: %s", path, count + 1, reason());
    ERR_clear_error();
    if (count == 0)
        return fail_with(error, STATUS_BAD, "%s: there is no PEM certificate in it", path);
    return STATUS_OK;
}

/* From 1970 to the time, ms. */
static int64_t to_wall_ms(const ASN1_TIME *time)
{
    int days = 0, seconds = 0;
    ASN1_TIME *zero = ASN1_TIME_set(NULL, 0);
    bool good = zero && ASN1_TIME_diff(&days, &seconds, zero, time) == 1;
    ASN1_TIME_free(zero);
    ERR_clear_error();
    return good ? ((int64_t)days * 86400 + seconds) * 1000 : 0;
}

/* The certificate and its chain on their way into an SSL_CTX. */
struct chain_reader {
    SSL_CTX *ctx;
    X509 *leaf; /* owned */
    int64_t expires_ms;
};

static enum status take_chain_cert(void *ctx, X509 *cert)
{
    struct chain_reader *r = ctx;
    int64_t expires_ms = to_wall_ms(X509_get0_notAfter(cert));
    if (!r->leaf || expires_ms < r->expires_ms)
        r->expires_ms = expires_ms;
    if (r->leaf) {
        if (SSL_CTX_add0_chain_cert(r->ctx, cert))
            return STATUS_OK;
        X509_free(cert);
        return STATUS_BAD;
    }
    r->leaf = cert;
    return SSL_CTX_use_certificate(r->ctx, cert) ? STATUS_OK : STATUS_BAD;
}

/* Which kind of key; BAD: none that we can serve. */
static enum status key_kind(EVP_PKEY *key, struct tls_identity *id)
{
    id->kind = TLS_KEY_RSA;
    if (EVP_PKEY_id(key) == EVP_PKEY_RSA)
        return EVP_PKEY_bits(key) >= RSA_BITS_MIN ? STATUS_OK : STATUS_BAD;
    if (EVP_PKEY_id(key) != EVP_PKEY_EC)
        return STATUS_BAD;
    id->kind = TLS_KEY_ECDSA;
    switch (EC_GROUP_get_curve_name(EC_KEY_get0_group(EVP_PKEY_get0_EC_KEY(key)))) {
    case NID_X9_62_prime256v1: id->scheme = SSL_SIGN_ECDSA_SECP256R1_SHA256; return STATUS_OK;
    case NID_secp384r1: id->scheme = SSL_SIGN_ECDSA_SECP384R1_SHA384; return STATUS_OK;
    case NID_secp521r1: id->scheme = SSL_SIGN_ECDSA_SECP521R1_SHA512; return STATUS_OK;
    default: return STATUS_BAD;
    }
}

static enum status use_key(const char *cert_path, const char *path, struct slice pem, X509 *leaf,
                           struct tls_identity *id, struct buf *error)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    must(bio);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    enum status st = STATUS_OK;
    BIO_free(bio);
    if (!key)
        return fail_with(error, STATUS_BAD,
                         "%s: there is no PEM private key in it that can be read without a "
                         "password: %s",
                         path, reason());
    if (!X509_check_private_key(leaf, key))
        st = fail_with(error, STATUS_BAD,
                       "%s is not the key of %s: write private keys in the order of certificates",
                       path, cert_path);
    else if (key_kind(key, id) != STATUS_OK)
        st = fail_with(
            error, STATUS_BAD,
            "%s: this kind of key cannot be served: use ECDSA (secp256r1, secp384r1, secp521r1) or "
            "RSA of %d bits or more",
            path, RSA_BITS_MIN);
    else if (!SSL_CTX_use_PrivateKey(id->ctx, key))
        st = fail_with(error, STATUS_BAD, "%s: %s", path, reason());
    EVP_PKEY_free(key);
    ERR_clear_error();
    return st;
}

/* --- client certificates --------------------------------------------------------------------- */

static enum status take_authority(void *ctx, X509 *cert)
{
    struct tls_set *set = ctx;
    bool good = true;
    for (size_t i = 0; good && i < set->id_count; i++)
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(set->ids[i].ctx), cert) &&
               SSL_CTX_add_client_CA(set->ids[i].ctx, cert);
    X509_free(cert);
    return good ? STATUS_OK : STATUS_BAD;
}

/* Lets every handshake go on; what came out of it is kept as the session's verify result. */
static int verify_client(X509_STORE_CTX *store, void *arg)
{
    if (X509_verify_cert(store) <= 0 && X509_STORE_CTX_get_error(store) == X509_V_OK)
        X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
    ERR_clear_error();
    return 1;
}

static void ask_for_certificates(SSL_CTX *ctx)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, verify_client, NULL);
}

/* Sessions resume only under the same trust. */
static void bind_sessions(struct tls_set *set, struct slice authorities)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)authorities.ptr, authorities.len, digest);
    for (size_t i = 0; i < set->id_count; i++)
        must(SSL_CTX_set_session_id_context(set->ids[i].ctx, digest, sizeof digest) == 1);
}

static enum status load_client_ca(const struct config *cfg, struct tls_set *set, struct buf *error)
{
    struct buf pem;
    enum status st = STATUS_OK;
    buf_init(&pem, TLS_FILE_MAX);
    if (cfg->tls.client_ca) {
        st = read_file(cfg->tls.client_ca, &pem, error);
        if (st == STATUS_OK)
            st = each_cert(cfg->tls.client_ca, buf_slice(&pem), take_authority, set, error);
        for (size_t i = 0; st == STATUS_OK && i < set->id_count; i++)
            ask_for_certificates(set->ids[i].ctx);
    }
    bind_sessions(set, buf_slice(&pem));
    buf_done(&pem);
    return st;
}

/* --- one certificate ------------------------------------------------------------------------- */

/* P-130: "smtp" or nothing, so that what was meant for another protocol does not end up here. */
static int choose_protocol(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                           unsigned in_len, void *arg)
{
    static const uint8_t smtp[] = "smtp";
    const uint8_t len = sizeof smtp - 1;
    for (unsigned i = 0; i + 1 + len <= in_len; i += 1u + in[i])
        if (in[i] == len && memcmp(in + i + 1, smtp, len) == 0) {
            *out = smtp;
            *out_len = len;
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *make_ctx(const struct tls_set *set)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    must(ctx);
    tls_set_policy(ctx);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_select_certificate_cb(ctx, tls_choose);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    tls_tickets_use(ctx, set);
    return ctx;
}

static enum status load_identity(const char *cert_path, const char *key_path,
                                 struct tls_identity *id, struct buf *error)
{
    struct buf pem;
    struct chain_reader reader = { .ctx = id->ctx };
    buf_init(&pem, TLS_FILE_MAX);
    enum status st = read_file(cert_path, &pem, error);
    if (st == STATUS_OK)
        st = each_cert(cert_path, buf_slice(&pem), take_chain_cert, &reader, error);
    buf_clear(&pem);
    if (st == STATUS_OK)
        st = read_file(key_path, &pem, error);
    if (st == STATUS_OK)
        st = use_key(cert_path, key_path, buf_slice(&pem), reader.leaf, id, error);
    if (st == STATUS_OK) {
        id->expires_ms = reader.expires_ms;
        tls_names_of(reader.leaf, id);
    }
    if (pem.ptr)
        OPENSSL_cleanse(pem.ptr, pem.cap);
    buf_done(&pem);
    X509_free(reader.leaf);
    return st;
}

static enum status load_identities(const struct config *cfg, struct tls_set *set, struct buf *error)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < cfg->tls.certificate_count; i++) {
        struct tls_identity *id = &set->ids[set->id_count++];
        id->ctx = make_ctx(set);
        st = load_identity(cfg->tls.certificates[i], cfg->tls.private_keys[i], id, error);
        if (i == 0 || id->expires_ms < set->expires_ms)
            set->expires_ms = id->expires_ms;
    }
    return st;
}

/* --- the set --------------------------------------------------------------------------------- */

struct tls_set *tls_set_acquire(struct tls_store *s)
{
    pthread_mutex_lock(&s->lock);
    struct tls_set *set = s->set;
    __atomic_fetch_add(&set->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&s->lock);
    return set;
}

void tls_set_release(struct tls_set *set)
{
    if (!set || __atomic_sub_fetch(&set->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < set->id_count; i++) {
        struct tls_identity *id = &set->ids[i];
        for (size_t n = 0; n < id->name_count; n++)
            free(id->names[n]);
        free(id->names);
        SSL_CTX_free(id->ctx);
    }
    OPENSSL_cleanse(set->ticket_prk, sizeof set->ticket_prk);
    free(set->ids);
    free(set);
}

static enum status load_secret(const struct tls_store *s, struct tls_set *set, struct buf *error)
{
    const char *path = s->cfg->tls.ticket_secret;
    struct buf secret;
    buf_init(&secret, TLS_FILE_MAX);
    enum status st = STATUS_OK;
    if (path)
        st = read_file(path, &secret, error);
    else
        st = buf_append(&secret, slice_of((const char *)s->own_secret, sizeof s->own_secret));
    /* An editor's newline at the end must not make two nodes differ. */
    while (path && secret.len > 0 && strchr("\r\n", secret.ptr[secret.len - 1]))
        secret.len--;
    if (st == STATUS_OK && secret.len < TICKET_SECRET_MIN)
        st = fail_with(error, STATUS_BAD, "%s: a ticket secret is at least %d random octets", path,
                       TICKET_SECRET_MIN);
    if (st == STATUS_OK)
        tls_tickets_init(set, buf_slice(&secret));
    if (secret.ptr)
        OPENSSL_cleanse(secret.ptr, secret.cap);
    buf_done(&secret);
    return st;
}

static enum status load_set(struct tls_store *s, struct tls_set **out, struct buf *error)
{
    const struct config *cfg = s->cfg;
    take_stamps(s);
    ERR_clear_error();
    struct tls_set *set = mem_zalloc(sizeof *set);
    set->refs = 1;
    set->clock = s->clock;
    set->ticket_rotate_ms = cfg->tls.ticket_rotate_ms;
    set->ids = mem_zalloc(cfg->tls.certificate_count * sizeof *set->ids);
    enum status st = load_secret(s, set, error);
    if (st == STATUS_OK)
        st = load_identities(cfg, set, error);
    if (st == STATUS_OK)
        st = load_client_ca(cfg, set, error);
    if (st == STATUS_OK)
        *out = set;
    else
        tls_set_release(set);
    return st;
}

/* --- the store ------------------------------------------------------------------------------- */

enum status tls_store_new(const struct config *cfg, struct tls_store **out, struct buf *error)
{
    if (cfg->tls.certificate_count == 0)
        return fail_with(error, STATUS_BAD, "tls: there is no certificate");
    must(cfg->tls.certificate_count == cfg->tls.private_key_count); /* config_check.c saw to it */
    struct tls_store *s = mem_zalloc(sizeof *s);
    s->cfg = cfg;
    s->clock = wall_clock;
    s->stamps = mem_zalloc((2 * cfg->tls.certificate_count + 2) * sizeof *s->stamps);
    must(pthread_mutex_init(&s->lock, NULL) == 0);
    must(RAND_bytes(s->own_secret, sizeof s->own_secret) == 1);
    enum status st = load_set(s, &s->set, error);
    if (st == STATUS_OK)
        *out = s;
    else
        tls_store_free(s);
    return st;
}

void tls_store_free(struct tls_store *s)
{
    if (!s)
        return;
    tls_set_release(s->set);
    pthread_mutex_destroy(&s->lock);
    OPENSSL_cleanse(s->own_secret, sizeof s->own_secret);
    free(s->stamps);
    free(s);
}

static void swap_set(struct tls_store *s, struct tls_set *set)
{
    pthread_mutex_lock(&s->lock);
    struct tls_set *old = s->set;
    s->set = set;
    pthread_mutex_unlock(&s->lock);
    tls_set_release(old);
}

enum status tls_store_reload(struct tls_store *s, struct buf *error)
{
    struct tls_set *set;
    enum status st = load_set(s, &set, error);
    if (st == STATUS_OK)
        swap_set(s, set);
    return st;
}

void tls_store_set_clock(struct tls_store *s, tls_clock_fn *clock)
{
    s->clock = s->set->clock = clock;
}

int64_t tls_store_expires_ms(const struct tls_store *s)
{
    struct tls_set *set = tls_set_acquire((struct tls_store *)(uintptr_t)s);
    int64_t expires_ms = set->expires_ms;
    tls_set_release(set);
    return expires_ms;
}
