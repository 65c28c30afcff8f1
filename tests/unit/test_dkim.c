/* SPDX-License-Identifier: Apache-2.0 */
/* dkim: canonical forms, what is signed, keys, and the field itself; bodies whole and octet by
 * octet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/dkim.h"
#include "core/smtp/sasl.h"
#include "tests/lib/content_run.h"
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>

#define LEN SHA256_DIGEST_LENGTH

static void hash_of(struct slice s, uint8_t out[LEN])
{
    SHA256((const uint8_t *)(s.ptr ? s.ptr : ""), s.len, out);
}

/* --- canonical forms (P-244) ----------------------------------------------------------------- */

#define X10(s)   s s s s s s s s s s
#define X100(s)  X10(X10(s))
#define X1000(s) X10(X100(s))

static const struct form {
    struct slice given, relaxed;
} bodies[] = {
    /* RFC 6376 3.4.5 */
    { SLICE(" C \r\nD \t E\r\n\r\n\r\n"), SLICE(" C\r\nD E\r\n") },
    /* RFC 6376 3.4.4: an empty body is nothing, and so are empty lines alone */
    { SLICE(""), SLICE("") },
    { SLICE("\r\n"), SLICE("") },
    { SLICE("\r\n\r\n \t\r\n"), SLICE("") },
    { SLICE(" "), SLICE("") },
    /* without a line's end it gets one */
    { SLICE("a"), SLICE("a\r\n") },
    { SLICE("a "), SLICE("a\r\n") },
    { SLICE("a\r\nb"), SLICE("a\r\nb\r\n") },
    { SLICE("a\r\n"), SLICE("a\r\n") },
    /* empty lines inside stay, white space at a line's beginning too */
    { SLICE("\r\n\r\na\r\n\r\n \r\n\tb\r\n\r\n"), SLICE("\r\n\r\na\r\n\r\n\r\n b\r\n") },
    { SLICE("a \t b\t\t\r\n"), SLICE("a b\r\n") },
    /* only CR LF ends a line (binary content) */
    { SLICE("a\rb\n\r\n"), SLICE("a\rb\n\r\n") },
    { SLICE("a\r\r\n"), SLICE("a\r\r\n") },
    { SLICE("a \r b"), SLICE("a \r b\r\n") },
    { SLICE("\r"), SLICE("\r\r\n") },
    { SLICE(" \r"), SLICE(" \r\r\n") },
    { SLICE("\n"), SLICE("\n\r\n") },
    { SLICE("a\0b\xff\r\n"), SLICE("a\0b\xff\r\n") },
    /* lines of 998 octets and more; more than a pen holds */
    { SLICE(X1000("x") "\r\n" X1000("y  ") "z\r\n"), SLICE(X1000("x") "\r\n" X1000("y ") "z\r\n") },
    { SLICE(X1000("\r\n") "a" X1000("\r\n")), SLICE(X1000("\r\n") "a\r\n") },
    { SLICE(X1000(" ") "a" X1000("\t") "b" X1000(" ") "\r\n"), SLICE(" a b\r\n") },
    { SLICE(X1000("ab c") "\r\n"), SLICE(X1000("ab c") "\r\n") },
};

static void hash_in_pieces(struct slice body, size_t piece, uint8_t out[LEN])
{
    struct dkim_body b;
    dkim_body_init(&b);
    do {
        dkim_body_update(&b, slice_head(body, piece));
        body = slice_skip(body, piece);
    } while (body.len > 0);
    dkim_body_end(&b, out);
}

static void bodies_are_relaxed(void **state)
{
    static const size_t pieces[] = { 1, 2, 3, 7, 500, SIZE_MAX };
    uint8_t want[LEN], got[LEN];
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        hash_of(bodies[i].relaxed, want);
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            hash_in_pieces(bodies[i].given, pieces[p], got);
            if (memcmp(want, got, LEN) != 0)
                fail_msg("body %zu in pieces of %zu", i, pieces[p]);
        }
    }
}

static const struct form fields[] = {
    /* RFC 6376 3.4.5 */
    { SLICE("A: X\r\n"), SLICE("a:X") },
    { SLICE("B : Y\t\r\n\tZ  \r\n"), SLICE("b:Y Z") },
    { SLICE("Subject:"), SLICE("subject:") },
    { SLICE("SUBJECT: \t \r\n"), SLICE("subject:") },
    { SLICE("Subject:\r\n a\r\n \r\n\tb c\r\n"), SLICE("subject:a b c") },
    { SLICE("X-\xc3\xa4:a: b \r\n"), SLICE("x-\xc3\xa4:a: b") },
    { SLICE("Long: " X1000("ab  ") "c\r\n"), SLICE("long:" X1000("ab ") "c") },
};

static void fields_are_relaxed(void **state)
{
    uint8_t want[LEN], got[LEN];
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        SHA256_CTX sha;
        SHA256_Init(&sha);
        dkim_relax_field(&sha, fields[i].given);
        SHA256_Final(got, &sha);
        hash_of(fields[i].relaxed, want);
        if (memcmp(want, got, LEN) != 0)
            fail_msg("field %zu", i);
    }
}

/* --- RFC 8463 appendix A --------------------------------------------------------------------- */

#define RFC_FROM    "From: Joe SixPack <joe@football.example.com>\r\n"
#define RFC_TO      "To: Suzie Q <suzie@shopping.example.net>\r\n"
#define RFC_SUBJECT "Subject: Is dinner ready?\r\n"
#define RFC_DATE    "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
#define RFC_ID      "Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
#define RFC_BODY    "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
#define RFC_BH      "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="

#define RFC_TAGS(a, s)                                                                             \
    "DKIM-Signature: v=1; a=" a "; c=relaxed/relaxed;\r\n"                                         \
    " d=football.example.com; i=@football.example.com;\r\n"                                        \
    " q=dns/txt; s=" s "; t=1528637909; h=from : to : subject :\r\n"                               \
    " date : message-id : from : subject : date;\r\n"                                              \
    " bh=" RFC_BH ";\r\n b="

static void append_base64(struct buf *out, const uint8_t *octets, size_t len)
{
    assert_int_equal(base64_encode(slice_of((const char *)octets, len), out), STATUS_OK);
}

static void rfc_8463_header_hash(struct slice tags, uint8_t hash[LEN])
{
    static const char *const order[] = { RFC_FROM, RFC_TO, RFC_SUBJECT, RFC_DATE, RFC_ID };
    SHA256_CTX sha;
    SHA256_Init(&sha);
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        dkim_relax_field(&sha, slice_str(order[i]));
        SHA256_Update(&sha, "\r\n", 2);
    }
    dkim_relax_field(&sha, tags);
    SHA256_Final(hash, &sha);
}

static void the_example_of_rfc_8463(void **state)
{
    uint8_t hash[LEN], seed[32], sig[64];
    size_t len = sizeof sig;
    struct buf text, secret;
    buf_init(&text, 256);
    buf_init(&secret, 64);
    hash_in_pieces(SLICE(RFC_BODY), 1, hash);
    append_base64(&text, hash, sizeof hash);
    assert_true(slice_eq(buf_slice(&text), SLICE(RFC_BH)));
    buf_clear(&text);
    assert_int_equal(base64_decode(SLICE("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="), &secret),
                     STATUS_OK);
    memcpy(seed, secret.ptr, sizeof seed);
    rfc_8463_header_hash(SLICE(RFC_TAGS("ed25519-sha256", "brisbane")), hash);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey), 1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &len, hash, sizeof hash), 1);
    append_base64(&text, sig, len);
    assert_true(
        slice_eq(buf_slice(&text), SLICE("/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus"
                                         "Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==")));
    buf_clear(&text);
    assert_int_equal(dkim_key_record(pkey, &text), STATUS_OK);
    assert_true(slice_eq(buf_slice(&text), SLICE("v=DKIM1; k=ed25519; p="
                                                 "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")));
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    buf_done(&text);
    buf_done(&secret);
}

/* RFC 8463 A.2 */
static const char rfc_rsa_key[] =
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\n"
    "Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM\n"
    "KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB\n"
    "AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm\n"
    "6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe\n"
    "zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy\n"
    "6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc\n"
    "uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy\n"
    "WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd\n"
    "WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a\n"
    "licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst\n"
    "o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe\n"
    "uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL\n"
    "-----END RSA PRIVATE KEY-----\n";

static EVP_PKEY *parse(const char *pem)
{
    struct buf error;
    EVP_PKEY *pkey = NULL;
    buf_init(&error, 256);
    enum status st = dkim_key_parse(slice_str(pem), &pkey, &error);
    if (st != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return pkey;
}

static void the_rsa_example_of_rfc_8463(void **state)
{
    uint8_t hash[LEN], sig[128];
    unsigned len = 0;
    struct buf text;
    buf_init(&text, 512);
    EVP_PKEY *pkey = parse(rfc_rsa_key);
    rfc_8463_header_hash(SLICE(RFC_TAGS("rsa-sha256", "test")), hash);
    assert_int_equal(RSA_sign(NID_sha256, hash, sizeof hash, sig, &len, EVP_PKEY_get0_RSA(pkey)),
                     1);
    append_base64(&text, sig, len);
    assert_true(slice_eq(buf_slice(&text),
                         SLICE("F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3"
                               "DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz"
                               "dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=")));
    buf_clear(&text);
    assert_int_equal(dkim_key_record(pkey, &text), STATUS_OK);
    assert_true(slice_eq(
        buf_slice(&text),
        SLICE("v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3"
              "idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1"
              "Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB")));
    EVP_PKEY_free(pkey);
    buf_done(&text);
}

/* --- what is signed (P-242, P-249) ----------------------------------------------------------- */

#define SMALL "From: a@Example.ORG\r\nDate: d\r\n"

static struct buf sign_as(struct slice header, struct slice body, const char *domain,
                          const char *selector, int64_t expires_s)
{
    struct dkim_digest *d = dkim_digest_new(header);
    struct dkim_key key = { mem_strdup(selector), parse(rfc_rsa_key) };
    struct dkim_times times = { 1700000000, expires_s };
    struct buf out;
    buf_init(&out, DKIM_SIGNATURE_MAX);
    dkim_digest_update(d, body);
    dkim_digest_end(d);
    assert_int_equal(dkim_sign(d, domain, &key, &times, &out), STATUS_OK);
    dkim_digest_free(d);
    free(key.selector);
    EVP_PKEY_free(key.pkey);
    return out;
}

/* The value of a tag, folds left out. */
static void read_tag(struct slice field, const char *tag, struct buf *out)
{
    char pattern[16];
    buf_init(out, DKIM_SIGNATURE_MAX);
    snprintf(pattern, sizeof pattern, "%s=", tag);
    const char *at = memmem(field.ptr, field.len, pattern, strlen(pattern));
    while (at && !strchr(" \t;", at[-1]))
        at = memmem(at + 1, (size_t)(field.ptr + field.len - at) - 1, pattern, strlen(pattern));
    assert_non_null(at);
    struct slice rest = slice_skip(field, (size_t)(at - field.ptr) + strlen(pattern));
    rest = slice_head(rest, slice_find(rest, ';'));
    for (size_t i = 0; i < rest.len; i++)
        if (!strchr(" \t\r\n", rest.ptr[i]))
            assert_int_equal(buf_append(out, slice_of(rest.ptr + i, 1)), STATUS_OK);
}

static void assert_tag(struct slice field, const char *tag, const char *want)
{
    struct buf value;
    read_tag(field, tag, &value);
    if (!slice_eq(buf_slice(&value), slice_str(want)))
        fail_msg("%s is %.*s", tag, SLICE_ARG(buf_slice(&value)));
    buf_done(&value);
}

/* Checks the field as a verifier would: b= emptied, relaxed, behind the fields in `order`. */
static void assert_verifies(struct slice field, const struct slice *order, size_t count)
{
    uint8_t hash[LEN];
    struct buf b, sig;
    SHA256_CTX sha;
    const char *at = memmem(field.ptr, field.len, "\tb=", 3);
    assert_non_null(at);
    SHA256_Init(&sha);
    for (size_t i = 0; i < count; i++) {
        dkim_relax_field(&sha, order[i]);
        SHA256_Update(&sha, "\r\n", 2);
    }
    dkim_relax_field(&sha, slice_head(field, (size_t)(at - field.ptr) + 3));
    SHA256_Final(hash, &sha);
    read_tag(field, "b", &b);
    buf_init(&sig, 1024);
    assert_int_equal(base64_decode(buf_slice(&b), &sig), STATUS_OK);
    EVP_PKEY *pkey = parse(rfc_rsa_key);
    assert_int_equal(RSA_verify(NID_sha256, hash, sizeof hash, (const uint8_t *)sig.ptr, sig.len,
                                EVP_PKEY_get0_RSA(pkey)),
                     1);
    EVP_PKEY_free(pkey);
    buf_done(&b);
    buf_done(&sig);
}

static void fields_of_one_name_go_from_the_bottom_up(void **state)
{
    static const struct slice order[] = {
        SLICE("From: a@example.org\r\n"), SLICE("Cc: second\r\n"),   SLICE("cC: first\r\n"),
        SLICE("Subject: x\r\n y\r\n"),    SLICE("Resent-To: 2\r\n"), SLICE("Resent-To: 1\r\n"),
    };
    struct slice header = SLICE("Received: r\r\nResent-To: 1\r\ncC: first\r\n"
                                "From: a@example.org\r\nReturn-Path: <x>\r\nX-Other: y\r\n"
                                "Subject: x\r\n y\r\nResent-To: 2\r\nCc: second\r\n"
                                "DKIM-Signature: other\r\n");
    struct buf out = sign_as(header, SLICE("\r\n"), "example.org", "s", 0);
    assert_tag(buf_slice(&out), "h",
               "From:From:To:Cc:Cc:Cc:Subject:Subject:Date:Reply-To:Message-ID:In-Reply-To:"
               "References:MIME-Version:Content-Type:Content-Transfer-Encoding:List-Unsubscribe:"
               "List-Unsubscribe-Post:List-Id:Resent-To:Resent-To");
    /* SHA-256 of nothing */
    assert_tag(buf_slice(&out), "bh", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_verifies(buf_slice(&out), order, ARRAY_LEN(order));
    buf_done(&out);
}

static void the_tags_are_right_and_lines_short(void **state)
{
    char domain[254];
    for (size_t i = 0; i < sizeof domain - 1; i++)
        domain[i] = i % 10 == 9 ? '.' : 'd';
    domain[sizeof domain - 1] = '\0';
    struct buf out = sign_as(SLICE(SMALL), SLICE("x"), "example.org", "2026a", 1800000000);
    struct slice rest = buf_slice(&out);
    assert_tag(rest, "a", "rsa-sha256");
    assert_tag(rest, "c", "relaxed/relaxed");
    assert_tag(rest, "d", "example.org");
    assert_tag(rest, "s", "2026a");
    assert_tag(rest, "t", "1700000000");
    assert_tag(rest, "x", "1800000000");
    assert_null(memmem(rest.ptr, rest.len, "l=", 2));
    for (size_t n = 0; rest.len > 0; n++) {
        size_t len = slice_find(rest, '\n');
        assert_true(len < rest.len && rest.ptr[len - 1] == '\r');
        assert_true(n == 0 || rest.ptr[0] == '\t');
        assert_true(len - 1 + (n > 0 ? 7 : 0) <= 78); /* a tab shows as eight columns */
        rest = slice_skip(rest, len + 1);
    }
    buf_done(&out);
    out = sign_as(SLICE(SMALL), SLICE("x"), domain, "s", 0);
    assert_tag(buf_slice(&out), "d", domain);
    assert_null(memmem(out.ptr, out.len, "x=", 2));
    buf_done(&out);
}

static const struct {
    const char *header, *domain;
} froms[] = {
    { "From: a@example.org\r\n", "example.org" },
    { "From: \"x@other.org\" <a@Example.ORG> (b@c.d)\r\n", "example.org" },
    { "From: a@example.org,\r\n b@EXAMPLE.org\r\n", "example.org" },
    { "From: a@example.org, b@other.org\r\n", "" },
    { "From: a@b\xc3\xbc"
      "cher.example\r\n",
      "xn--bcher-kva.example" },
    { "From: nobody\r\n", "" },
    { "From:\r\n", "" },
    { "From: <a@example.org\r\n", "" },
    { "From: a@example.org> <b@other.org>\r\n", "" },
    { "Subject: x\r\n", "" },
    { "", "" },
};

static void from_names_the_domain(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(froms); i++) {
        struct dkim_digest *d = dkim_digest_new(slice_str(froms[i].header));
        struct slice domain = dkim_digest_domain(d);
        if (!slice_eq(domain, slice_str(froms[i].domain)))
            fail_msg("%s gives %.*s", froms[i].header, SLICE_ARG(domain));
        dkim_digest_free(d);
    }
}

/* --- keys (P-241, P-243, P-246) -------------------------------------------------------------- */

static EVP_PKEY *ed25519(void)
{
    uint8_t seed[32] = { 1 };
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
}

static char *pem_of(EVP_PKEY *pkey)
{
    char *text;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &text);
    char *copy = mem_zalloc((size_t)len + 1);
    memcpy(copy, text, (size_t)len);
    BIO_free(bio);
    return copy;
}

static EVP_PKEY *rsa_of(int bits)
{
    RSA *rsa = RSA_new();
    BIGNUM *e = BN_new();
    EVP_PKEY *pkey = EVP_PKEY_new();
    BN_set_word(e, 65537);
    assert_int_equal(RSA_generate_key_ex(rsa, bits, e, NULL), 1);
    assert_int_equal(EVP_PKEY_assign_RSA(pkey, rsa), 1);
    BN_free(e);
    return pkey;
}

static void assert_refused(const char *pem, const char *why)
{
    struct buf error;
    EVP_PKEY *pkey = NULL;
    buf_init(&error, 256);
    assert_int_equal(dkim_key_parse(slice_str(pem), &pkey, &error), STATUS_BAD);
    assert_non_null(memmem(error.ptr, error.len, why, strlen(why)));
    assert_null(pkey);
    buf_done(&error);
}

static void keys_are_judged(void **state)
{
    EVP_PKEY *made[] = { ed25519(), rsa_of(768) };
    char *good = pem_of(made[0]), *weak = pem_of(made[1]);
    EVP_PKEY *back = parse(good);
    assert_true(dkim_key_is_ed25519(back));
    assert_refused(weak, "fewer than 1024");
    assert_refused("", "no PEM private key");
    assert_refused("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no PEM");
    EVP_PKEY_free(back);
    EVP_PKEY_free(made[0]);
    EVP_PKEY_free(made[1]);
    free(good);
    free(weak);
}

static void selectors_hold_nothing_odd(void **state)
{
    static const char *const good[] = { "s", "2026a", "a-b_c", "a.b" };
    static const char *const bad[] = {
        "", ".", "a.", ".a", "a..b", "a b", "a;b", "a\r\nb", "\xc3"
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(dkim_is_selector(slice_str(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(dkim_is_selector(slice_str(bad[i])));
}

static struct dkim_domain *add(struct dkim_keys *k, const char *name, char *const *tenants,
                               bool has_key)
{
    struct dkim_domain *d = dkim_keys_add(k, slice_str(name));
    d->tenants = tenants;
    d->tenant_count = tenants != NULL;
    if (has_key)
        assert_true(dkim_domain_add_key(d, SLICE("s"), ed25519()));
    return d;
}

static char *acme = (char *)(uintptr_t) "acme", *other = (char *)(uintptr_t) "other";

static const struct {
    const char *domain, *tenant;
    enum dkim_match match;
    const char *found;
} lookups[] = {
    { "example.org", "", DKIM_FOUND, "example.org" },
    { "example.org", "acme", DKIM_FOUND, "example.org" },
    { "a.b.example.org", "acme", DKIM_FOUND, "example.org" },
    { "badexample.org", "", DKIM_NO_KEY, NULL },
    { "org", "", DKIM_NO_KEY, NULL },
    { "sub.example.org", "acme", DKIM_FOUND, "sub.example.org" },
    { "x.sub.example.org", "acme", DKIM_FOUND, "sub.example.org" },
    { "sub.example.org", "other", DKIM_FOREIGN, NULL }, /* not by example.org's key either */
    { "sub.example.org", "", DKIM_FOREIGN, NULL },
    { "broken.org", "acme", DKIM_BROKEN, NULL },
    { "a.broken.org", "acme", DKIM_BROKEN, NULL },
    { "both.org", "acme", DKIM_FOUND, "both.org" },
    { "both.org", "other", DKIM_FOUND, "both.org" },
    { "blind.org", "other", DKIM_BROKEN, NULL }, /* a directory that cannot be read */
    { "", "other", DKIM_BROKEN, NULL },
    { "", "", DKIM_NO_KEY, NULL },
};

static void the_nearest_domain_signs_for_its_tenants(void **state)
{
    struct dkim_keys *k = dkim_keys_new();
    add(k, "Example.ORG", NULL, true);
    add(k, "sub.example.org", &acme, true);
    add(k, "broken.org", NULL, false);
    add(k, "both.org", NULL, true);
    add(k, "both.org", &acme, true);
    add(k, "", &other, false);
    dkim_keys_seal(k);
    for (size_t i = 0; i < ARRAY_LEN(lookups); i++) {
        const struct dkim_domain *d = NULL;
        enum dkim_match match =
            dkim_keys_find(k, slice_str(lookups[i].domain), slice_str(lookups[i].tenant), &d);
        if (match != lookups[i].match || (d && strcmp(d->name, lookups[i].found) != 0))
            fail_msg("%s of %s: %d", lookups[i].domain, lookups[i].tenant, match);
        if (strcmp(lookups[i].domain, "both.org") == 0)
            assert_int_equal(d->tenant_count, strcmp(lookups[i].tenant, "acme") == 0);
    }
    dkim_keys_unref(k);
}

static void one_key_of_each_kind(void **state)
{
    struct dkim_keys *k = dkim_keys_new();
    struct dkim_domain *d = add(k, "example.org", NULL, true);
    EVP_PKEY *second = ed25519();
    assert_true(dkim_domain_add_key(d, SLICE("r"), parse(rfc_rsa_key)));
    assert_false(dkim_domain_add_key(d, SLICE("s2"), second));
    EVP_PKEY_free(second);
    dkim_keys_unref(dkim_keys_ref(k));
    assert_int_equal(d->key_count, 2);
    dkim_keys_unref(k);
}

/* --- behind the content ---------------------------------------------------------------------- */

static struct test_server server;

/* The field over what `wire` becomes, fed in pieces; "" when nothing is to be signed. */
static struct buf sign_content(struct slice wire, bool is_chunked, size_t piece)
{
    struct smtp_content_policy policy = { .is_esmtp = true, .is_signed = true };
    struct message *m = content_message(&server, "a@example.com", "b@example.org");
    struct smtp_content *c = smtp_content_new(&server.server, m, &policy, &server.now);
    struct dkim_key key = { mem_strdup("s"), parse(rfc_rsa_key) };
    struct dkim_times times = { 1, 0 };
    struct buf out;
    buf_init(&out, DKIM_SIGNATURE_MAX);
    content_feed(c, is_chunked, wire, piece, piece);
    if (smtp_content_finish(c, &server.now) == REPLY_OK)
        assert_int_equal(dkim_sign(m->dkim, "example.com", &key, &times, &out), STATUS_OK);
    else
        assert_null(m->dkim);
    smtp_content_free(c);
    message_unref(m);
    free(key.selector);
    EVP_PKEY_free(key.pkey);
    return out;
}

static const struct {
    struct slice wire; /* without the final dot */
    const char *bh;    /* NULL: refused */
} contents[] = {
    { SLICE("From: f@x.y\r\n\r\n" RFC_BODY), RFC_BH },
    { SLICE("Bcc: secret\r\nFrom: f@x.y\r\n\r\n" RFC_BODY "\r\n"), RFC_BH },
    { SLICE(RFC_BODY), RFC_BH }, /* P-87: no header section, all is body */
    { SLICE("From: f@x.y\r\n"), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" },
    { SLICE("From: f@x.y\r\n\r\n"), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" },
    { SLICE("From: f@x.y\r\nFrom: f@x.y\r\n\r\nx\r\n"), NULL },
    { SLICE("From: f@x.y\r\n\r\nbare\nx\r\n"), NULL },
};

static void content_is_signed_however_it_is_cut(void **state)
{
    static const size_t pieces[] = { 1, 2, 5, 40, 10000 };
    test_server_init(&server);
    for (size_t i = 0; i < ARRAY_LEN(contents); i++) {
        struct buf whole = sign_content(contents[i].wire, true, 10000);
        assert_int_equal(whole.len > 0, contents[i].bh != NULL);
        if (contents[i].bh)
            assert_tag(buf_slice(&whole), "bh", contents[i].bh);
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            struct buf again = sign_content(contents[i].wire, true, pieces[p]);
            if (!slice_eq(buf_slice(&whole), buf_slice(&again)))
                fail_msg("content %zu in pieces of %zu", i, pieces[p]);
            buf_done(&again);
        }
        buf_done(&whole);
    }
}

/* P-240: what Kilat adds is signed; what it strips is not there; dots are those of the content. */
static void dots_and_added_fields(void **state)
{
    test_server_init(&server);
    struct buf dotted = sign_content(SLICE("From: f@x.y\r\n\r\n..x\r\n.\r\n"), false, 1);
    struct buf plain = sign_content(SLICE("From: f@x.y\r\n\r\n.x\r\n"), true, 1);
    assert_true(dotted.len > 0 && slice_eq(buf_slice(&dotted), buf_slice(&plain)));
    struct buf names;
    read_tag(buf_slice(&plain), "h", &names);
    assert_non_null(memmem(names.ptr, names.len, ":Date:Date:", 11));
    assert_non_null(memmem(names.ptr, names.len, ":Message-ID:Message-ID:", 23));
    buf_done(&names);
    buf_done(&dotted);
    buf_done(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_are_relaxed),
        cmocka_unit_test(fields_are_relaxed),
        cmocka_unit_test(the_example_of_rfc_8463),
        cmocka_unit_test(the_rsa_example_of_rfc_8463),
        cmocka_unit_test(fields_of_one_name_go_from_the_bottom_up),
        cmocka_unit_test(the_tags_are_right_and_lines_short),
        cmocka_unit_test(from_names_the_domain),
        cmocka_unit_test(keys_are_judged),
        cmocka_unit_test(selectors_hold_nothing_odd),
        cmocka_unit_test(the_nearest_domain_signs_for_its_tenants),
        cmocka_unit_test(one_key_of_each_kind),
        cmocka_unit_test(content_is_signed_however_it_is_cut),
        cmocka_unit_test(dots_and_added_fields),
    };
    return cmocka_run_group_tests_name("dkim", tests, NULL, NULL);
}
