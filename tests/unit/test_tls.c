/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store and its sessions, in memory: files good and bad, which certificate is chosen, what is
 * refused, what resumes, what is agreed. The client is BoringSSL itself, so that it can ask for
 * what ours never would.
 */
#include "core/base/gather.h"
#include "io/tls_private.h"
#include "tests/lib/certificates.h"
#include "tests/lib/private_redis.h"

#include <malloc.h>
#include <openssl/err.h>
#include <sys/stat.h>
#include <time.h>

#define HOUR_MS   (3600 * 1000)
#define PUMPS_MAX 50

/* --- files ----------------------------------------------------------------------------------- */

static char dir[64];

/* A path in the test's folder; several live at once. */
static char *in_dir(const char *name)
{
    static char paths[32][96];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    int len = snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    assert_true(len > 0 && (size_t)len < sizeof paths[0]);
    return path;
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void put_cert(const char *cert, const char *key, struct cert_wish wish)
{
    struct made_cert made = cert_make(&wish);
    cert_write(&made, in_dir(cert), in_dir(key));
    cert_free(&made);
}

static struct made_cert authority, client_good, client_bad;

static int make_files(void **state)
{
    make_temp_dir(dir);
    put_cert("ec.pem", "ec.key", (struct cert_wish){ "ec", { "a.example", "b.example" } });
    put_cert("rsa.pem", "rsa.key", (struct cert_wish){ "rsa", { "A.example" }, .is_rsa = true });
    put_cert("wild.pem", "wild.key", (struct cert_wish){ "wild", { "*.wild.example" } });
    put_cert("exact.pem", "exact.key", (struct cert_wish){ "exact", { "x.wild.example" } });
    put_cert("cn.pem", "cn.key", (struct cert_wish){ "cn.example" });
    put_cert("old.pem", "old.key",
             (struct cert_wish){
                 "old", { "old.example" }, .from_s = -9 * CERT_DAY, .until_s = -2 * CERT_DAY });
    authority = cert_make(&(struct cert_wish){ "authority", .is_authority = true });
    client_good = cert_make(
        &(struct cert_wish){ "good", { "host.example" }, "u@a.example", .signer = &authority });
    client_bad = cert_make(&(struct cert_wish){ "bad", .email = "forged@a.example" });
    cert_write(&authority, in_dir("ca.pem"), NULL);
    put("secret1", "one secret of more than thirty-two octets\n");
    put("secret1-again", "one secret of more than thirty-two octets");
    put("secret2", "another secret of more than thirty-two octets\n");
    return 0;
}

static int remove_files(void **state)
{
    cert_free(&authority);
    cert_free(&client_good);
    cert_free(&client_bad);
    remove_tree(dir);
    return 0;
}

/* --- stores ---------------------------------------------------------------------------------- */

#define PAIRS_MAX 5

/* A configuration of certificates "name.pem" with "name.key". */
struct setup {
    struct config cfg;
    char *certs[PAIRS_MAX], *keys[PAIRS_MAX];
};

static struct setup setup_of(const char *const *names)
{
    struct setup s = { .cfg.tls.ticket_rotate_ms = HOUR_MS };
    char file[64];
    for (size_t i = 0; names[i]; i++) {
        snprintf(file, sizeof file, "%s.pem", names[i]);
        s.certs[i] = in_dir(file);
        snprintf(file, sizeof file, "%s.key", names[i]);
        s.keys[i] = in_dir(file);
        s.cfg.tls.certificate_count = s.cfg.tls.private_key_count = i + 1;
    }
    return s;
}

#define SETUP(...) setup_of((const char *const[]){ __VA_ARGS__, NULL })

static struct tls_store *store_of(struct setup *s)
{
    struct tls_store *store = NULL;
    struct buf error;
    buf_init(&error, 512);
    s->cfg.tls.certificates = s->certs;
    s->cfg.tls.private_keys = s->keys;
    if (tls_store_new(&s->cfg, &store, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return store;
}

static void refused(struct setup s, enum status want, const char *first, const char *second)
{
    struct tls_store *store = NULL;
    struct buf error;
    buf_init(&error, 512);
    s.cfg.tls.certificates = s.certs;
    s.cfg.tls.private_keys = s.keys;
    assert_int_equal(tls_store_new(&s.cfg, &store, &error), want);
    if (!memmem(error.ptr, error.len, first, strlen(first)) ||
        !memmem(error.ptr, error.len, second, strlen(second)))
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    assert_null(store);
    buf_done(&error);
}

/* --- the client ------------------------------------------------------------------------------ */

struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    SSL_SESSION *ticket;
    bool is_done;
    int error; /* of the handshake: SSL_ERROR_*, 0: none */
    uint32_t reason;
};

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct client *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION_free(c->ticket);
    c->ticket = session;
    return 1;
}

static struct client *client_new(void)
{
    struct client *c = mem_zalloc(sizeof *c);
    c->ctx = SSL_CTX_new(TLS_client_method());
    assert_non_null(c->ctx);
    SSL_CTX_set_app_data(c->ctx, c);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(c->ctx, keep_ticket);
    return c;
}

/* A new connection of the same client; it offers the ticket it has. */
static void client_begin(struct client *c, const char *name)
{
    SSL_free(c->ssl);
    c->ssl = SSL_new(c->ctx);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(c->in, -1);
    SSL_set_bio(c->ssl, c->in, c->out);
    SSL_set_connect_state(c->ssl);
    if (name)
        assert_int_equal(SSL_set_tlsext_host_name(c->ssl, name), 1);
    if (c->ticket)
        SSL_set_session(c->ssl, c->ticket);
    c->is_done = false;
    c->error = 0;
    ERR_clear_error();
}

static void client_free(struct client *c)
{
    SSL_free(c->ssl);
    SSL_SESSION_free(c->ticket);
    SSL_CTX_free(c->ctx);
    free(c);
}

static void client_step(struct client *c)
{
    char drop[256];
    if (c->error)
        return;
    ERR_clear_error();
    int n = c->is_done ? SSL_read(c->ssl, drop, sizeof drop) : SSL_do_handshake(c->ssl);
    int error = n > 0 ? 0 : SSL_get_error(c->ssl, n);
    if (n > 0 && !c->is_done) {
        c->is_done = true;
        client_step(c); /* a ticket may be there */
    }
    if (error != 0 && error != SSL_ERROR_WANT_READ) {
        c->error = error;
        c->reason = (uint32_t)ERR_GET_REASON(ERR_peek_last_error());
    }
}

/* The session's output to the client and back, `chunk` octets at a time; returns the session's
 * last word. */
static enum tls_result pump(struct client *c, struct tls_session *t, size_t chunk)
{
    static char drop[16384];
    struct gather out;
    const uint8_t *ptr;
    size_t len;
    enum tls_result result = TLS_MORE;
    bool is_done = false;
    gather_init(&out);
    for (int i = 0; i < PUMPS_MAX; i++) {
        client_step(c);
        assert_int_equal(BIO_mem_contents(c->out, &ptr, &len), 1);
        struct slice in = slice_of((const char *)ptr, len);
        while (in.len > 0 && result != TLS_FAILED) {
            tls_session_feed(t, slice_head(in, chunk));
            in = slice_skip(in, chunk);
            if (!is_done) {
                result = tls_session_handshake(t);
                is_done = result == TLS_DONE;
                if (is_done) /* tickets leave with the first that is said */
                    assert_int_equal(tls_session_write(t, SLICE("220 hello\r\n")), STATUS_OK);
            }
            if (is_done)
                (void)tls_session_read(t, drop, sizeof drop, &len);
            if (result != TLS_FAILED)
                assert_int_equal(tls_session_unread(t), 0);
        }
        BIO_reset(c->out);
        tls_session_take_output(t, &out);
        if (out.octets > 0)
            BIO_write(c->in, out.bytes.ptr, (int)out.octets);
        gather_clear(&out);
    }
    gather_done(&out);
    return result;
}

static struct tls_session *shake(struct client *c, struct tls_store *store, const char *name)
{
    struct tls_session *t = tls_session_new(store);
    client_begin(c, name);
    enum tls_result result = pump(c, t, SIZE_MAX);
    if (result != TLS_DONE || !c->is_done)
        fail_msg("%s: %d %s, client %d", name, result, tls_session_error(t), (int)c->reason);
    assert_string_equal(tls_session_error(t), "");
    return t;
}

/* One connection, and whether it resumed an earlier one. */
static bool resumes(struct client *c, struct tls_store *store)
{
    struct tls_info info;
    struct tls_session *t = shake(c, store, "a.example");
    tls_session_info(t, &info);
    tls_session_free(t);
    return info.is_resumed;
}

static void only_tls_1_2(struct client *c)
{
    assert_int_equal(SSL_CTX_set_max_proto_version(c->ctx, TLS1_2_VERSION), 1);
}

/* --- the store ------------------------------------------------------------------------------- */

static void test_what_is_wrong_with_the_files_is_said(void **state)
{
    struct setup s = SETUP("ec");
    put("empty", "");
    put("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    put("short", "too short\n");
    s.certs[0] = in_dir("nowhere.pem");
    refused(s, STATUS_SYSTEM, "nowhere.pem", "No such file");
    s = SETUP("ec");
    s.keys[0] = in_dir("nowhere.key");
    refused(s, STATUS_SYSTEM, "nowhere.key", "No such file");
    s = SETUP("ec");
    s.keys[0] = in_dir("wild.key");
    refused(s, STATUS_BAD, "wild.key", "ec.pem");
    s.keys[0] = in_dir("rsa.key");
    refused(s, STATUS_BAD, "rsa.key", "ec.pem");
    s = SETUP("ec");
    s.certs[0] = in_dir("empty");
    refused(s, STATUS_BAD, "empty", "no PEM certificate");
    s.certs[0] = in_dir("garbage");
    refused(s, STATUS_BAD, "garbage", "certificate 1");
    s = SETUP("ec");
    s.keys[0] = in_dir("ec.pem");
    refused(s, STATUS_BAD, "ec.pem", "no PEM private key");
    s = SETUP("ec");
    s.cfg.tls.ticket_secret = in_dir("short");
    refused(s, STATUS_BAD, "short", "32");
    s = SETUP("ec");
    s.cfg.tls.client_ca = in_dir("empty");
    refused(s, STATUS_BAD, "empty", "no PEM certificate");
    struct setup none = { .cfg.tls.ticket_rotate_ms = HOUR_MS };
    refused(none, STATUS_BAD, "tls", "certificate");
}

/* A key behind a password would stop a start to ask for it. */
static void test_a_key_with_a_password_is_refused(void **state)
{
    struct made_cert made = cert_make(&(struct cert_wish){ "locked", { "locked.example" } });
    FILE *f = fopen(in_dir("locked.key"), "w");
    char password[] = "secret";
    cert_write(&made, in_dir("locked.pem"), NULL);
    assert_int_equal(
        PEM_write_PrivateKey(f, made.key, EVP_aes_128_cbc(), (uint8_t *)password, 6, NULL, NULL),
        1);
    fclose(f);
    cert_free(&made);
    refused(SETUP("locked"), STATUS_BAD, "locked.key", "password");
}

static void test_an_expired_certificate_serves_and_is_told(void **state)
{
    struct setup s = SETUP("ec", "old");
    struct tls_store *store = store_of(&s);
    int64_t expected = ((int64_t)time(NULL) - 2 * CERT_DAY) * 1000;
    assert_in_range(tls_store_expires_ms(store), expected - 120000, expected);
    struct client *c = client_new();
    tls_session_free(shake(c, store, "old.example"));
    client_free(c);
    tls_store_free(store);
}

static void test_a_change_of_the_files_is_seen_once(void **state)
{
    struct buf error;
    buf_init(&error, 512);
    put_cert("turn.pem", "turn.key", (struct cert_wish){ "before", { "a.example" } });
    struct setup s = SETUP("turn");
    struct tls_store *store = store_of(&s);
    assert_false(tls_store_has_changed(store));
    put("turn.key", "half a file");
    assert_true(tls_store_has_changed(store));
    assert_int_equal(tls_store_reload(store, &error), STATUS_BAD);
    assert_false(tls_store_has_changed(store)); /* tried; not again before it changes again */
    struct client *c = client_new();
    tls_session_free(shake(c, store, NULL)); /* what was loaded still serves */
    assert_int_equal(unlink(in_dir("turn.pem")), 0);
    assert_true(tls_store_has_changed(store));
    assert_int_equal(tls_store_reload(store, &error), STATUS_SYSTEM);
    client_free(c);
    tls_store_free(store);
    buf_done(&error);
}

/* --- the choice ------------------------------------------------------------------------------ */

static void expect_cert(struct client *c, struct tls_store *store, const char *name,
                        const char *common_name)
{
    char got[64] = "";
    struct tls_session *t = shake(c, store, name);
    X509 *cert = SSL_get_peer_certificate(c->ssl);
    assert_non_null(cert);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, got, sizeof got);
    X509_free(cert);
    tls_session_free(t);
    if (strcmp(got, common_name) != 0)
        fail_msg("%s: got %s, not %s", name ? name : "(no name)", got, common_name);
}

/* P-129 */
static void test_the_name_chooses(void **state)
{
    static const struct {
        const char *name, *common_name;
    } rows[] = {
        { "a.example", "ec" },
        { "A.Example", "ec" },
        { "b.example", "ec" },
        { "y.wild.example", "wild" },
        { "x.wild.example", "exact" },  /* exactly before by wildcard */
        { "x.y.wild.example", "ec" },   /* a wildcard is one label: unknown */
        { "wild.example", "ec" },       /* ... and at least one */
        { "cn.example", "cn.example" }, /* the common name where there is nothing else */
        { "wild", "ec" },               /* ... and not where there is */
        { "unknown.example", "ec" },    /* the first */
        { NULL, "ec" },
    };
    struct setup s = SETUP("ec", "wild", "exact", "cn");
    struct tls_store *store = store_of(&s);
    for (int version = 0; version < 2; version++) {
        struct client *c = client_new();
        if (version == 1)
            only_tls_1_2(c);
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            SSL_SESSION_free(c->ticket);
            c->ticket = NULL;
            expect_cert(c, store, rows[i].name, rows[i].common_name);
        }
        client_free(c);
    }
    tls_store_free(store);
}

/* ECDSA to whoever can check it, RSA to the rest, in both versions and whichever comes first. */
static void test_the_key_type_follows_the_client(void **state)
{
    static const uint16_t only_rsa[] = { SSL_SIGN_RSA_PSS_RSAE_SHA256, SSL_SIGN_RSA_PKCS1_SHA256 };
    static const uint16_t p384_and_rsa[] = { SSL_SIGN_ECDSA_SECP384R1_SHA384,
                                             SSL_SIGN_RSA_PSS_RSAE_SHA256 };
    struct setup orders[] = { SETUP("ec", "rsa"), SETUP("rsa", "ec") };
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        struct tls_store *store = store_of(&orders[i]);
        struct client *c13 = client_new(), *c12 = client_new(), *c384 = client_new();
        only_tls_1_2(c12);
        expect_cert(c13, store, "a.example", "ec");
        expect_cert(c12, store, "a.example", "ec");
        assert_int_equal(SSL_CTX_set_verify_algorithm_prefs(c13->ctx, only_rsa, 2), 1);
        assert_int_equal(SSL_CTX_set_verify_algorithm_prefs(c384->ctx, p384_and_rsa, 2), 1);
        assert_int_equal(SSL_CTX_set_strict_cipher_list(c12->ctx, "ECDHE-RSA-AES128-GCM-SHA256"),
                         1);
        c13->ticket = (SSL_SESSION_free(c13->ticket), NULL);
        c12->ticket = (SSL_SESSION_free(c12->ticket), NULL);
        expect_cert(c13, store, "a.example", "rsa");
        expect_cert(c384, store, "a.example", "rsa"); /* our secp256r1 it cannot check */
        expect_cert(c12, store, "a.example", "rsa");
        expect_cert(c12, store, NULL, "rsa"); /* no name: the default, in the kind that fits */
        expect_cert(c12, store, "unknown.example", "rsa");
        client_free(c13);
        client_free(c12);
        client_free(c384);
        tls_store_free(store);
    }
}

/* --- what is refused ------------------------------------------------------------------------- */

static void expect_refusal(struct client *c, struct tls_store *store, int reason)
{
    struct tls_session *t = tls_session_new(store);
    client_begin(c, "a.example");
    assert_int_equal(pump(c, t, SIZE_MAX), TLS_FAILED);
    assert_string_not_equal(tls_session_error(t), "");
    assert_int_equal(c->reason, reason); /* the alert that came */
    tls_session_free(t);
    client_free(c);
}

/* P-128 */
static void test_old_versions_and_suites_are_refused(void **state)
{
    struct setup s = SETUP("rsa");
    struct tls_store *store = store_of(&s);
    struct client *c = client_new();
    assert_int_equal(SSL_CTX_set_min_proto_version(c->ctx, TLS1_VERSION), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(c->ctx, TLS1_1_VERSION), 1);
    expect_refusal(c, store, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    static const char *const suites[] = { "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256",
                                          "AES128-SHA" };
    for (size_t i = 0; i < ARRAY_LEN(suites); i++) {
        c = client_new();
        only_tls_1_2(c);
        assert_int_equal(SSL_CTX_set_strict_cipher_list(c->ctx, suites[i]), 1);
        expect_refusal(c, store, SSL_R_HANDSHAKE_FAILURE_ON_CLIENT_HELLO);
    }
    tls_store_free(store);
}

/* P-130 */
static void test_alpn_is_smtp_or_nothing(void **state)
{
    static const uint8_t http[] = "\x08http/1.1\x02h2", mixed[] = "\x08http/1.1\x04smtp";
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    struct client *c = client_new();
    const uint8_t *chosen;
    unsigned len;
    SSL_CTX_set_alpn_protos(c->ctx, http, sizeof http - 1);
    expect_refusal(c, store, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    c = client_new();
    SSL_CTX_set_alpn_protos(c->ctx, mixed, sizeof mixed - 1);
    tls_session_free(shake(c, store, "a.example"));
    SSL_get0_alpn_selected(c->ssl, &chosen, &len);
    assert_int_equal(len, 4);
    assert_memory_equal(chosen, "smtp", 4);
    client_free(c);
    tls_store_free(store);
}

static void expect_broken(struct tls_store *store, struct slice in)
{
    struct tls_session *t = tls_session_new(store);
    struct gather out;
    gather_init(&out);
    tls_session_feed(t, in);
    assert_int_equal(tls_session_handshake(t), TLS_FAILED);
    assert_string_not_equal(tls_session_error(t), "");
    tls_session_take_output(t, &out);
    gather_done(&out);
    tls_session_free(t);
}

/* P-127 */
static void test_other_protocols_are_refused(void **state)
{
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    expect_broken(store, SLICE("EHLO client.example\r\n"));
    expect_broken(store, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_broken(store, SLICE("\x16\x03\x01\xff\xff garbage that is no record"));
    expect_broken(store, SLICE("\0\0\0\0\0\0\0\0"));
    tls_store_free(store);
}

static void test_a_handshake_may_come_octet_by_octet(void **state)
{
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    for (int version = 0; version < 2; version++) {
        struct client *c = client_new();
        if (version == 1)
            only_tls_1_2(c);
        struct tls_session *t = tls_session_new(store);
        client_begin(c, "a.example");
        assert_int_equal(pump(c, t, 1), TLS_DONE);
        assert_true(c->is_done);
        tls_session_free(t);
        client_free(c);
    }
    tls_store_free(store);
}

/* --- tickets --------------------------------------------------------------------------------- */

static int64_t fake_ms;

static int64_t fake_clock(void)
{
    return fake_ms;
}

/* Nodes with the same secret resume each other's sessions (P-133); others do not. */
static void test_tickets_are_good_where_the_secret_is_known(void **state)
{
    struct setup same = SETUP("ec"), again = SETUP("ec"), other = SETUP("ec"), own = SETUP("ec");
    same.cfg.tls.ticket_secret = in_dir("secret1");
    again.cfg.tls.ticket_secret = in_dir("secret1-again");
    other.cfg.tls.ticket_secret = in_dir("secret2");
    struct tls_store *a = store_of(&same), *b = store_of(&again), *c = store_of(&other),
                     *d = store_of(&own), *e = store_of(&own);
    for (int version = 0; version < 2; version++) {
        struct client *client = client_new();
        if (version == 1)
            only_tls_1_2(client);
        assert_false(resumes(client, a));
        assert_true(resumes(client, a));
        assert_true(resumes(client, b));
        assert_false(resumes(client, c));
        assert_false(resumes(client, d));
        assert_true(resumes(client, d));
        assert_false(resumes(client, e)); /* a secret of its own */
        client_free(client);
    }
    tls_store_free(a);
    tls_store_free(b);
    tls_store_free(c);
    tls_store_free(d);
    tls_store_free(e);
}

static void test_keys_of_tickets_rotate(void **state)
{
    struct setup s = SETUP("ec");
    s.cfg.tls.ticket_secret = in_dir("secret1");
    struct tls_store *store = store_of(&s);
    tls_store_set_clock(store, fake_clock);
    for (int version = 0; version < 2; version++) {
        struct client *c = client_new();
        if (version == 1)
            only_tls_1_2(c);
        fake_ms = 1000 * (int64_t)HOUR_MS;
        assert_false(resumes(c, store));
        SSL_SESSION *first = c->ticket;
        SSL_SESSION_up_ref(first);
        fake_ms += HOUR_MS;
        assert_true(resumes(c, store)); /* by the key before, and a new ticket came */
        assert_ptr_not_equal(c->ticket, first);
        fake_ms += HOUR_MS;
        assert_true(resumes(c, store));
        SSL_SESSION_free(c->ticket);
        c->ticket = first;
        assert_false(resumes(c, store)); /* two epochs old */
        fake_ms -= HOUR_MS;
        assert_true(resumes(c, store)); /* from a node whose clock is ahead */
        client_free(c);
    }
    tls_store_free(store);
}

/* --- reload ---------------------------------------------------------------------------------- */

static void test_a_reload_keeps_live_sessions(void **state)
{
    struct buf error;
    struct tls_info info;
    char plain[16];
    size_t len;
    buf_init(&error, 512);
    put_cert("live.pem", "live.key", (struct cert_wish){ "before", { "a.example" } });
    struct setup s = SETUP("live");
    struct tls_store *store = store_of(&s);
    struct client *live = client_new(), *half = client_new(), *fresh = client_new();
    struct tls_session *t = shake(live, store, "a.example");
    struct tls_session *begun = tls_session_new(store);
    put_cert("live.pem", "live.key", (struct cert_wish){ "after", { "a.example" } });
    assert_true(tls_store_has_changed(store));
    assert_int_equal(tls_store_reload(store, &error), STATUS_OK);
    client_begin(half, "a.example");
    assert_int_equal(pump(half, begun, SIZE_MAX), TLS_DONE); /* with what it began with */
    expect_cert(fresh, store, "a.example", "after");
    assert_true(resumes(live, store)); /* tickets outlive a reload */
    client_begin(live, "a.example");
    tls_session_info(t, &info);
    assert_string_equal(info.version, "TLSv1.3");
    tls_session_feed(t, SLICE_NONE);
    assert_int_equal(tls_session_read(t, plain, sizeof plain, &len), TLS_MORE);
    tls_store_free(store); /* sessions may even outlive the store's set */
    tls_session_free(t);
    tls_session_free(begun);
    client_free(live);
    client_free(half);
    client_free(fresh);
    buf_done(&error);
}

static bool must_stop;

static void *reload_often(void *arg)
{
    struct tls_store *store = arg;
    struct buf error;
    buf_init(&error, 512);
    while (!__atomic_load_n(&must_stop, __ATOMIC_ACQUIRE)) {
        must(tls_store_reload(store, &error) == STATUS_OK);
        must(!tls_store_has_changed(store));
    }
    buf_done(&error);
    return NULL;
}

/* Workers begin sessions while the main thread swaps what they begin with. */
static void test_sessions_begin_while_another_thread_reloads(void **state)
{
    struct setup s = SETUP("ec", "wild");
    struct tls_store *store = store_of(&s);
    struct client *c = client_new();
    pthread_t thread;
    must_stop = false;
    assert_int_equal(pthread_create(&thread, NULL, reload_often, store), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(resumes(c, store), i > 0);
    __atomic_store_n(&must_stop, true, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(thread, NULL), 0);
    client_free(c);
    tls_store_free(store);
}

/* --- client certificates --------------------------------------------------------------------- */

static const char *name_seen(struct tls_store *store, struct client *c,
                             const struct made_cert *made, char out[64])
{
    struct tls_info info;
    if (made) {
        assert_int_equal(SSL_CTX_use_certificate(c->ctx, made->cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(c->ctx, made->key), 1);
    }
    struct tls_session *t = shake(c, store, "a.example");
    tls_session_info(t, &info);
    snprintf(out, 64, "%s", info.client_name ? info.client_name : "(none)");
    tls_session_free(t);
    return out;
}

/* P-132: only what client_ca signed is an identity; everybody may come in. */
static void test_client_certificates_are_names_when_verified(void **state)
{
    struct made_cert expired = cert_make(&(struct cert_wish){ "expired",
                                                              { "host.example" },
                                                              .signer = &authority,
                                                              .from_s = -9 * CERT_DAY,
                                                              .until_s = -CERT_DAY });
    struct made_cert by_cn = cert_make(&(struct cert_wish){ "just a name", .signer = &authority });
    struct setup s = SETUP("ec"), deaf = SETUP("ec");
    s.cfg.tls.client_ca = in_dir("ca.pem");
    struct tls_store *store = store_of(&s), *asks_nobody = store_of(&deaf);
    char name[64];
    const struct {
        struct tls_store *store;
        const struct made_cert *made;
        const char *name;
    } rows[] = {
        { store, NULL, "(none)" },        { store, &client_good, "u@a.example" },
        { store, &by_cn, "just a name" }, { store, &client_bad, "(none)" },
        { store, &expired, "(none)" },    { asks_nobody, &client_good, "(none)" },
    };
    for (int version = 0; version < 2; version++)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct client *c = client_new();
            if (version == 1)
                only_tls_1_2(c);
            assert_string_equal(name_seen(rows[i].store, c, rows[i].made, name), rows[i].name);
            assert_string_equal(name_seen(rows[i].store, c, NULL, name), rows[i].name);
            assert_true(SSL_session_reused(c->ssl)); /* a resumed one is who it was */
            client_free(c);
        }
    tls_store_free(store);
    tls_store_free(asks_nobody);
    cert_free(&expired);
    cert_free(&by_cn);
}

/* Trust that was withdrawn does not live on in tickets. */
static void test_another_client_ca_ends_old_tickets(void **state)
{
    struct buf error;
    char name[64];
    buf_init(&error, 512);
    cert_write(&authority, in_dir("trusted.pem"), NULL);
    struct setup s = SETUP("ec");
    s.cfg.tls.client_ca = in_dir("trusted.pem");
    struct tls_store *store = store_of(&s);
    struct client *c = client_new();
    assert_string_equal(name_seen(store, c, &client_good, name), "u@a.example");
    put_cert("trusted.pem", "trusted.key", (struct cert_wish){ "other", .is_authority = true });
    assert_int_equal(tls_store_reload(store, &error), STATUS_OK);
    assert_string_equal(name_seen(store, c, NULL, name), "(none)");
    assert_false(SSL_session_reused(c->ssl));
    client_free(c);
    tls_store_free(store);
    buf_done(&error);
}

/* --- what is agreed -------------------------------------------------------------------------- */

/* P-150: both sides see the same, and every connection another. */
static void test_channel_bindings_are_equal_on_both_sides(void **state)
{
    static const char label[] = "EXPORTER-Channel-Binding";
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    char ours[TLS_BINDING_MAX], before[TLS_BINDING_MAX] = "";
    uint8_t theirs[TLS_BINDING_MAX];
    const char *name;
    size_t len;
    struct client *c = client_new(), *old = client_new();
    only_tls_1_2(old);
    for (int i = 0; i < 3; i++) { /* resumed from the second on */
        struct tls_session *t = shake(c, store, "a.example");
        assert_int_equal(tls_session_binding(t, ours, &name), 32);
        assert_string_equal(name, "tls-exporter");
        assert_int_equal(SSL_export_keying_material(c->ssl, theirs, 32, label, sizeof label - 1,
                                                    (const uint8_t *)"", 0, 1),
                         1);
        assert_memory_equal(ours, theirs, 32);
        assert_memory_not_equal(ours, before, 32);
        memcpy(before, ours, 32);
        tls_session_free(t);
        t = shake(old, store, "a.example");
        assert_int_equal(tls_session_binding(t, ours, &name), 12);
        assert_string_equal(name, "tls-unique");
        assert_int_equal(SSL_get_tls_unique(old->ssl, theirs, &len, sizeof theirs), 1);
        assert_int_equal(len, 12);
        assert_memory_equal(ours, theirs, 12);
        tls_session_free(t);
    }
    client_free(c);
    client_free(old);
    tls_store_free(store);
}

static void test_what_was_agreed_is_told(void **state)
{
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    struct client *c = client_new();
    struct tls_info info;
    only_tls_1_2(c);
    struct tls_session *t = shake(c, store, "a.example");
    tls_session_info(t, &info);
    assert_string_equal(info.version, "TLSv1.2");
    assert_string_equal(info.cipher, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    assert_false(info.is_resumed);
    assert_null(info.client_name);
    tls_session_free(t);
    client_free(c);
    tls_store_free(store);
}

/* --- data ------------------------------------------------------------------------------------ */

static void move(struct tls_session *from, struct tls_session *to, struct gather *wire)
{
    gather_clear(wire);
    tls_session_take_output(from, wire);
    tls_session_feed(to, slice_of(wire->bytes.ptr, wire->octets));
}

/* Our own client and server, by hand. */
static void test_our_client_meets_our_server(void **state)
{
    struct setup s = SETUP("ec", "wild");
    struct tls_store *store = store_of(&s);
    struct tls_client *client = tls_client_new();
    struct tls_session *a = tls_session_new_client(client, "y.wild.example", "y");
    struct tls_session *b = tls_session_new(store);
    struct gather wire;
    char plain[100];
    size_t len;
    gather_init(&wire);
    assert_true(tls_session_has_output(a));
    move(a, b, &wire);
    assert_int_equal(tls_session_handshake(b), TLS_MORE);
    move(b, a, &wire);
    assert_int_equal(tls_session_handshake(a), TLS_DONE);
    assert_int_equal(tls_session_write(a, SLICE("EHLO a\r\n")), STATUS_OK);
    move(a, b, &wire);
    assert_int_equal(tls_session_handshake(b), TLS_DONE);
    assert_true(tls_session_unread(b) > 0);
    assert_int_equal(tls_session_read(b, plain, 5, &len), TLS_DONE);
    assert_int_equal(len, 5);
    assert_int_equal(tls_session_read(b, plain + 5, sizeof plain - 5, &len), TLS_DONE);
    assert_int_equal(len, 3);
    assert_memory_equal(plain, "EHLO a\r\n", 8);
    assert_int_equal(tls_session_read(b, plain, sizeof plain, &len), TLS_MORE);
    gather_clear(&wire);
    tls_session_divert(b, &wire);
    assert_int_equal(tls_session_write(b, SLICE("250 ok\r\n")), STATUS_OK);
    tls_session_shutdown(b);
    tls_session_divert(b, NULL);
    tls_session_feed(a, slice_of(wire.bytes.ptr, wire.octets));
    assert_int_equal(tls_session_read(a, plain, sizeof plain, &len), TLS_DONE);
    assert_memory_equal(plain, "250 ok\r\n", 8);
    assert_int_equal(tls_session_read(a, plain, sizeof plain, &len), TLS_ENDED);
    gather_done(&wire);
    tls_session_free(a);
    tls_session_free(b);
    tls_client_free(client);
    tls_store_free(store);
}

/* --- memory ---------------------------------------------------------------------------------- */

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t allocated(void)
{
    if (__sanitizer_get_current_allocated_bytes)
        return __sanitizer_get_current_allocated_bytes();
    return mallinfo2().uordblks;
}

/* An idle session costs less than 3 KiB, connection not included. */
static void test_an_idle_session_is_small(void **state)
{
    enum { SESSIONS = 64 };
    struct setup s = SETUP("ec");
    struct tls_store *store = store_of(&s);
    struct tls_session *t[SESSIONS];
    for (int version = 0; version < 2; version++) {
        struct client *c = client_new();
        if (version == 1)
            only_tls_1_2(c);
        tls_session_free(shake(c, store, "a.example")); /* what is made once is there then */
        c->ticket = (SSL_SESSION_free(c->ticket), NULL);
        size_t before = allocated();
        for (int i = 0; i < SESSIONS; i++) {
            t[i] = shake(c, store, "a.example");
            c->ticket = (SSL_SESSION_free(c->ticket), NULL);
        }
        size_t each = (allocated() - before) / SESSIONS;
        print_message("# idle session, %s: %zu octets\n", version ? "TLS 1.2" : "TLS 1.3", each);
        assert_in_range(each, 1000, 3000);
        for (int i = 0; i < SESSIONS; i++)
            tls_session_free(t[i]);
        client_free(c);
    }
    tls_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_wrong_with_the_files_is_said),
        cmocka_unit_test(test_a_key_with_a_password_is_refused),
        cmocka_unit_test(test_an_expired_certificate_serves_and_is_told),
        cmocka_unit_test(test_a_change_of_the_files_is_seen_once),
        cmocka_unit_test(test_the_name_chooses),
        cmocka_unit_test(test_the_key_type_follows_the_client),
        cmocka_unit_test(test_old_versions_and_suites_are_refused),
        cmocka_unit_test(test_alpn_is_smtp_or_nothing),
        cmocka_unit_test(test_other_protocols_are_refused),
        cmocka_unit_test(test_a_handshake_may_come_octet_by_octet),
        cmocka_unit_test(test_tickets_are_good_where_the_secret_is_known),
        cmocka_unit_test(test_keys_of_tickets_rotate),
        cmocka_unit_test(test_a_reload_keeps_live_sessions),
        cmocka_unit_test(test_sessions_begin_while_another_thread_reloads),
        cmocka_unit_test(test_client_certificates_are_names_when_verified),
        cmocka_unit_test(test_another_client_ca_ends_old_tickets),
        cmocka_unit_test(test_channel_bindings_are_equal_on_both_sides),
        cmocka_unit_test(test_what_was_agreed_is_told),
        cmocka_unit_test(test_our_client_meets_our_server),
        cmocka_unit_test(test_an_idle_session_is_small),
    };
    return cmocka_run_group_tests_name("tls", tests, make_files, remove_files);
}
