/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCRAM-SHA-256 and -PLUS (P-148 to P-150): the example of RFC 7677, whole exchanges with a client
 * that is written here from RFC 5802 3, and all that a server must not take.
 */
#include "core/smtp/scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <cmocka.h>

#include "tests/lib/sasl_talk.h"

/* --- SCRAM: the arithmetic ------------------------------------------------------------------- */

static void check_base64(const uint8_t *octets, size_t len, const char *want)
{
    struct buf text;
    buf_init(&text, 256);
    assert_int_equal(base64_encode(slice_of((const char *)octets, len), &text), STATUS_OK);
    assert_true(slice_eq(buf_slice(&text), slice_str(want)));
    buf_done(&text);
}

static void from_base64(const char *text, uint8_t *out, size_t len)
{
    struct buf octets;
    buf_init(&octets, 256);
    assert_int_equal(base64_decode(slice_str(text), &octets), STATUS_OK);
    assert_int_equal(octets.len, len);
    memcpy(out, octets.ptr, len);
    buf_done(&octets);
}

#define RFC_FIRST  "n=user,r=rOprNGfwEbeRWgbNEkqO"
#define RFC_NONCE  "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_SERVER "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_FINAL  "c=biws,r=" RFC_NONCE
#define RFC_PROOF  "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

static void the_example_of_rfc_7677(void **state) /* P-148 */
{
    struct scram_verifier v;
    uint8_t salt[16], proof[32], signature[32];
    from_base64("W22ZaJ0SNY7soEsUEjb6gQ==", salt, 16);
    from_base64(RFC_PROOF, proof, 32);
    scram_make_verifier(SLICE("pencil"), salt, 4096, &v);
    assert_int_equal(v.iterations, 4096);
    assert_int_equal(v.salt_len, 16);
    assert_memory_equal(v.salt, salt, 16);
    struct slice text = SLICE(RFC_FIRST "," RFC_SERVER "," RFC_FINAL);
    assert_true(scram_check_proof(&v, text, proof, signature));
    check_base64(signature, 32, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_false(scram_check_proof(&v, slice_skip(text, 1), proof, signature));
    for (size_t bit = 0; bit < 256; bit++) {
        proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(scram_check_proof(&v, text, proof, signature));
        proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    scram_make_verifier(SLICE("pencils"), salt, 4096, &v);
    assert_false(scram_check_proof(&v, text, proof, signature));
    scram_make_verifier(SLICE("pencil"), salt, 4097, &v);
    assert_false(scram_check_proof(&v, text, proof, signature));
}

static void the_messages_of_rfc_7677(void **state)
{
    struct scram_first first;
    struct scram_final final;
    assert_true(scram_read_first(SLICE("n,," RFC_FIRST), &first));
    assert_int_equal(first.binding, 'n');
    assert_true(slice_eq(first.gs2, SLICE("n,,")));
    assert_true(slice_eq(first.bare, SLICE(RFC_FIRST)));
    assert_true(slice_eq(first.name, SLICE("user")));
    assert_true(slice_eq(first.nonce, SLICE("rOprNGfwEbeRWgbNEkqO")));
    assert_int_equal(first.authzid.len, 0);
    assert_true(scram_read_final(SLICE(RFC_FINAL ",p=" RFC_PROOF), &final));
    assert_true(slice_eq(final.binding, SLICE("biws")));
    assert_true(slice_eq(final.nonce, SLICE(RFC_NONCE)));
    assert_true(slice_eq(final.proof, SLICE(RFC_PROOF)));
    assert_true(slice_eq(final.without_proof, SLICE(RFC_FINAL)));
}

/* P-148, P-145: the same each time, another for another user and another gateway's secret. */
static void a_fake_verifier(void **state)
{
    struct scram_verifier a, again, other, elsewhere;
    const uint8_t secret[32] = { 1 }, another[32] = { 2 };
    memset(&a, 0xaa, sizeof a);
    memset(&again, 0x55, sizeof again);
    scram_fake_verifier(SLICE("nobody"), secret, &a);
    scram_fake_verifier(SLICE("nobody"), secret, &again);
    scram_fake_verifier(SLICE("nobodi"), secret, &other);
    scram_fake_verifier(SLICE("nobody"), another, &elsewhere);
    assert_int_equal(a.iterations, 4096);
    assert_int_equal(a.salt_len, 16);
    assert_memory_equal(a.salt, again.salt, 16);
    assert_memory_equal(a.stored_key, again.stored_key, 32);
    assert_memory_equal(a.server_key, again.server_key, 32);
    assert_memory_not_equal(a.salt, other.salt, 16);
    assert_memory_not_equal(a.salt, elsewhere.salt, 16);
    assert_memory_not_equal(a.stored_key, other.stored_key, 32);
    assert_memory_not_equal(a.stored_key, a.server_key, 32);
}

/* --- SCRAM: the client ----------------------------------------------------------------------- */

struct client {
    const char *gs2, *bare, *password;
    struct slice binding;   /* behind gs2 in c= */
    const char *nonce;      /* NULL: the server's */
    const char *extensions; /* before p=, with their comma */
    char final[4096];       /* what to send */
    char verdict[64];       /* what the server must say then */
};

static void hmac(const void *key, size_t key_len, const char *text, uint8_t out[32])
{
    unsigned len = 32;
    assert_non_null(
        HMAC(EVP_sha256(), key, key_len, (const uint8_t *)text, strlen(text), out, &len));
}

static void put_base64(char *out, size_t room, struct slice octets)
{
    struct buf text;
    buf_init(&text, 2048);
    assert_int_equal(base64_encode(octets, &text), STATUS_OK);
    snprintf(out, room, "%.*s", SLICE_ARG(buf_slice(&text)));
    buf_done(&text);
}

/* server: "r=...,s=...,i=4096" */
static void make_final(struct client *c, struct slice server)
{
    uint8_t salt[64], salted[32], client_key[32], stored[32], signature[32], server_key[32];
    char nonce[512], salt_text[128], server_text[1024], without[2048], text[4096], octets[2048];
    char cbind[1024], proof[64];
    snprintf(server_text, sizeof server_text, "%.*s", SLICE_ARG(server));
    assert_int_equal(sscanf(server_text, "r=%511[^,],s=%127[^,],i=4096", nonce, salt_text), 2);
    size_t salt_len = strlen(salt_text) / 4 * 3 - (strchr(salt_text, '=') ? 2 : 0);
    from_base64(salt_text, salt, salt_len);
    assert_int_equal(PKCS5_PBKDF2_HMAC(c->password, strlen(c->password), salt, salt_len, 4096,
                                       EVP_sha256(), 32, salted),
                     1);
    hmac(salted, 32, "Client Key", client_key);
    hmac(salted, 32, "Server Key", server_key);
    SHA256(client_key, 32, stored);
    size_t gs2_len = strlen(c->gs2);
    memcpy(octets, c->gs2, gs2_len);
    if (c->binding.len)
        memcpy(octets + gs2_len, c->binding.ptr, c->binding.len);
    put_base64(cbind, sizeof cbind, slice_of(octets, gs2_len + c->binding.len));
    snprintf(without, sizeof without, "c=%s,r=%s%s", cbind, c->nonce ? c->nonce : nonce,
             c->extensions ? c->extensions : "");
    snprintf(text, sizeof text, "%s,%s,%s", c->bare, server_text, without);
    hmac(stored, 32, text, signature);
    for (int i = 0; i < 32; i++)
        client_key[i] ^= signature[i];
    put_base64(proof, sizeof proof, slice_of((char *)client_key, 32));
    snprintf(c->final, sizeof c->final, "%s,p=%s", without, proof);
    hmac(server_key, 32, text, signature);
    strcpy(c->verdict, "v=");
    put_base64(c->verdict + 2, sizeof c->verdict - 2, slice_of((char *)signature, 32));
}

static const struct scram_verifier *pencil(void)
{
    static struct scram_verifier v;
    if (v.iterations == 0)
        scram_make_verifier(SLICE("pencil"), (const uint8_t[16]){ 9, 8, 7 }, 4096, &v);
    return &v;
}

/* Up to the question whether the proof is good enough: true when it is proven. */
static bool prove(struct talk *t, struct client *c)
{
    char first[4096];
    struct sasl_request r;
    snprintf(first, sizeof first, "%s%s", c->gs2, c->bare);
    assert_int_equal(respond(t, slice_str(first)), SASL_ASK);
    sasl_get_request(t->x, &r);
    assert_int_equal(r.question, SASL_ASK_VERIFIER);
    assert_int_equal(answer_verifier(t, pencil()), SASL_CHALLENGE);
    make_final(c, buf_slice(&t->said));
    assert_int_equal(respond(t, slice_str(c->final)), SASL_ASK);
    sasl_get_request(t->x, &r);
    assert_int_equal(r.question, SASL_ASK_PROOF);
    return r.is_proven;
}

static bool proves(uint32_t mechanism, bool is_tls, struct client c)
{
    struct talk t;
    if (is_tls)
        start_on_tls(&t, mechanism);
    else
        start(&t, mechanism);
    bool is_proven = prove(&t, &c);
    finish(&t);
    return is_proven;
}

static void scram_from_end_to_end(void **state) /* P-148 */
{
    struct talk t;
    struct client c = { .gs2 = "n,,", .bare = "n=us=2Cer=3D,r=abc", .password = "pencil" };
    start(&t, AUTH_SCRAM_SHA_256);
    assert_int_equal(say_nothing(&t), SASL_CHALLENGE);
    check_said(&t, SLICE(""));
    assert_true(prove(&t, &c));
    check_asked(&t, SASL_ASK_PROOF, SLICE("us,er="), SLICE(""));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_CHALLENGE);
    check_said(&t, slice_str(c.verdict));
    assert_int_equal(respond(&t, SLICE("")), SASL_DONE);
    check_said(&t, SLICE(""));
    finish(&t);
}

static void scram_refuses(void **state) /* P-145, P-148 */
{
    struct talk t;
    struct client c = { .gs2 = "n,,", .bare = "n=user,r=abc", .password = "pencil" };
    start(&t, AUTH_SCRAM_SHA_256);
    assert_true(prove(&t, &c)); /* right, but disabled */
    assert_int_equal(answer(&t, AUTH_RESULT_WRONG), SASL_REFUSED);
    assert_int_equal(sasl_result(t.x), AUTH_RESULT_WRONG);
    check_said(&t, SLICE("")); /* no v=: whoever asks has not proved that it may know */
    finish(&t);
    start(&t, AUTH_SCRAM_SHA_256);
    c.password = "pencils";
    assert_false(prove(&t, &c));
    assert_int_equal(answer(&t, AUTH_RESULT_WRONG), SASL_REFUSED);
    finish(&t);
    start(&t, AUTH_SCRAM_SHA_256);
    c.password = "pencil";
    assert_true(prove(&t, &c));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_CHALLENGE);
    assert_int_equal(respond(&t, SLICE("x")), SASL_MALFORMED);
    finish(&t);
}

/* P-148: a proof over another nonce, header or binding is no proof, though its sums are right. */
static void scram_proofs_that_prove_nothing(void **state)
{
    struct client good = { .gs2 = "n,,", .bare = "n=user,r=abc", .password = "pencil" };
    assert_true(proves(AUTH_SCRAM_SHA_256, false, good));
    struct client c = good;
    c.nonce = "abc";
    assert_false(proves(AUTH_SCRAM_SHA_256, false, c));
    c.nonce = "another";
    assert_false(proves(AUTH_SCRAM_SHA_256, false, c));
    c = good;
    c.binding = SLICE("x");
    assert_false(proves(AUTH_SCRAM_SHA_256, false, c));
    c = good;
    c.extensions = ",x=y";
    assert_true(proves(AUTH_SCRAM_SHA_256, false, c));
    c = good;
    c.gs2 = "n,a=user,";
    assert_true(proves(AUTH_SCRAM_SHA_256, false, c));
    c.gs2 = "y,,";
    assert_true(proves(AUTH_SCRAM_SHA_256, false, c));
}

static void scram_nonce_is_ours_too(void **state) /* P-148: 18 octets of chance */
{
    struct talk t;
    char nonces[2][128];
    start(&t, AUTH_SCRAM_SHA_256);
    for (int i = 0; i < 2; i++) {
        sasl_free(t.x);
        t.x = sasl_new(AUTH_SCRAM_SHA_256, &t.channel);
        assert_int_equal(respond(&t, SLICE("n,,n=user,r=abc")), SASL_ASK);
        assert_int_equal(answer_verifier(&t, pencil()), SASL_CHALLENGE);
        char said[512];
        snprintf(said, sizeof said, "%.*s", SLICE_ARG(buf_slice(&t.said)));
        assert_int_equal(sscanf(said, "r=abc%127[^,],s=CQgHAAAAAAAAAAAAAAAAAA==,i=4096", nonces[i]),
                         1);
        assert_non_null(strstr(said, ",s=CQgHAAAAAAAAAAAAAAAAAA==,i=4096"));
        uint8_t octets[18];
        from_base64(nonces[i], octets, sizeof octets);
    }
    assert_string_not_equal(nonces[0], nonces[1]);
    finish(&t);
}

static void scram_first_messages(void **state) /* P-148, P-149 */
{
    static const struct first rows[] = {
        { SLICE("n,,n=user,r=abc"), SASL_ASK },
        { SLICE("y,,n=user,r=abc"), SASL_ASK }, /* no PLUS was offered */
        { SLICE("n,a=user,n=user,r=abc"), SASL_ASK },
        { SLICE("n,a=u=3D,n=u=3D,r=abc"), SASL_ASK },
        { SLICE("n,,n=user,r=!~:;<>"), SASL_ASK },
        { SLICE("n,,n=user,r=abc,x=1,Y=,z=a=b"), SASL_ASK },
        { SLICE("n,,n=\xc3\xbc,r=abc"), SASL_ASK },
        /* to act as somebody else */
        { SLICE("n,a=root,n=user,r=abc"), SASL_REFUSED },
        { SLICE("n,a=User,n=user,r=abc"), SASL_REFUSED },
        /* headers */
        { SLICE(""), SASL_MALFORMED },
        { SLICE("n"), SASL_MALFORMED },
        { SLICE("n,"), SASL_MALFORMED },
        { SLICE("n,,"), SASL_MALFORMED },
        { SLICE(",,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("N,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("x,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("nn,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,a=,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,b=user,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,a=user"), SASL_MALFORMED },
        { SLICE("n,auser,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("p=tls-exporter,,n=user,r=abc"), SASL_MALFORMED }, /* P-150: not with this one */
        { SLICE("p=,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("p,,n=user,r=abc"), SASL_MALFORMED },
        /* P-149: extensions that must be understood */
        { SLICE("n,,m=x,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc,m=x"), SASL_MALFORMED },
        { SLICE("n,,n=user,m=x,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc,x"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc,1=x"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc,"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc,,"), SASL_MALFORMED },
        /* names: =2C and =3D alone */
        { SLICE("n,,n=,r=abc"), SASL_MALFORMED },
        { SLICE("n,,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=us=er,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=us=2cer,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=us=3der,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=us=41er,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user=,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user=2,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=\xff,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=us\0er,r=abc"), SASL_MALFORMED },
        /* nonces: Cyrus takes an empty one */
        { SLICE("n,,n=user"), SASL_MALFORMED },
        { SLICE("n,,n=user,"), SASL_MALFORMED },
        { SLICE("n,,n=user,r="), SASL_MALFORMED },
        { SLICE("n,,n=user,r=a b"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=a\x7f"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=\xc3\xbc"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=a\0b"), SASL_MALFORMED },
    };
    check_firsts(AUTH_SCRAM_SHA_256, false, rows, COUNT(rows));
}

static void scram_final_messages(void **state) /* P-148, P-149 */
{
#define NONCE "abc!"
#define PROOF "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    static const struct first rows[] = {
        { SLICE("c=biws,r=" NONCE ",p=" PROOF), SASL_ASK },
        { SLICE("c=biws,r=" NONCE ",x=1,p=" PROOF), SASL_ASK },
        { SLICE("c=,r=,p=" PROOF), SASL_ASK }, /* well formed, and nobody's */
        { SLICE(""), SASL_MALFORMED },
        { SLICE("c=biws"), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ","), SASL_MALFORMED },
        { SLICE("c=biws,p=" PROOF), SASL_MALFORMED },
        { SLICE("r=" NONCE ",p=" PROOF), SASL_MALFORMED },
        { SLICE("r=" NONCE ",c=biws,p=" PROOF), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",m=1,p=" PROOF), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",1=1,p=" PROOF), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p="), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=AAAA"), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=" PROOF "AAAA"), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"),
          SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
          SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=" PROOF ",x=1"), SASL_MALFORMED },
        { SLICE("c=biws,r=" NONCE ",p=" PROOF ","), SASL_MALFORMED },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct talk t;
        start(&t, AUTH_SCRAM_SHA_256);
        assert_int_equal(respond(&t, SLICE("n,,n=user,r=abc")), SASL_ASK);
        assert_int_equal(answer_verifier(&t, pencil()), SASL_CHALLENGE);
        enum sasl_step step = respond(&t, rows[i].response);
        if (step != rows[i].step)
            fail_msg("row %zu (%.*s): %d", i, SLICE_ARG(rows[i].response), step);
        if (step == SASL_ASK) {
            struct sasl_request r;
            sasl_get_request(t.x, &r);
            assert_false(r.is_proven);
        }
        finish(&t);
    }
}

/* Builds n,,n=<name>,r=<nonce>,x=<more> of the lengths given. */
static enum sasl_step first_of(size_t name, size_t nonce, size_t more)
{
    static char text[TEXT_ROOM], x[TEXT_ROOM];
    struct talk t;
    memset(x, 'x', sizeof x);
    int len = snprintf(text, sizeof text, "n,,n=%.*s,r=%.*s,x=%.*s", (int)name, x, (int)nonce, x,
                       (int)more, x);
    start(&t, AUTH_SCRAM_SHA_256);
    enum sasl_step step = respond(&t, slice_of(text, (size_t)len));
    if (step == SASL_ASK) { /* whatever was taken leaves room for our part of it */
        struct scram_verifier long_salt = *pencil();
        long_salt.salt_len = sizeof long_salt.salt;
        long_salt.iterations = UINT32_MAX;
        assert_int_equal(answer_verifier(&t, &long_salt), SASL_CHALLENGE);
        assert_true(t.said.len <= 1024);
    }
    finish(&t);
    return step;
}

/* An extension of 4 KiB once filled the buffer of the AuthMessage and ended the process. */
static void scram_bounds(void **state)
{
    assert_int_equal(first_of(255, 256, 10), SASL_ASK);
    assert_int_equal(first_of(256, 256, 10), SASL_MALFORMED);
    assert_int_equal(first_of(255, 257, 10), SASL_MALFORMED);
    assert_int_equal(first_of(255, 256, SCRAM_BARE_MAX - 255 - 256 - 8), SASL_ASK);
    assert_int_equal(first_of(255, 256, SCRAM_BARE_MAX - 255 - 256 - 7), SASL_MALFORMED);
    for (size_t more = 3600; more < 4200; more++)
        assert_int_equal(first_of(4, 20, more), SASL_MALFORMED);
    assert_int_equal(first_of(4, 20, 9000), SASL_MALFORMED);
}

/* Names at their longest in both places, every octet escaped. */
static void scram_longest_names(void **state)
{
    static char first[TEXT_ROOM], name[3 * 256 + 1];
    struct talk t;
    for (int i = 0; i < 256; i++)
        memcpy(name + 3 * i, "=2C", 3);
    for (int octets = 255; octets <= 256; octets++) {
        int len = snprintf(first, sizeof first, "n,a=%.*s,n=%.*s,r=abc", 3 * octets, name,
                           3 * octets, name);
        start(&t, AUTH_SCRAM_SHA_256);
        assert_int_equal(respond(&t, slice_of(first, (size_t)len)),
                         octets == 255 ? SASL_ASK : SASL_MALFORMED);
        finish(&t);
    }
}

/* --- SCRAM-SHA-256-PLUS ---------------------------------------------------------------------- */

static void plus_from_end_to_end(void **state) /* P-150 */
{
    struct talk t;
    struct client c = {
        .gs2 = "p=tls-exporter,,", .bare = "n=user,r=abc", .password = "pencil", .binding = BINDING
    };
    start_on_tls(&t, AUTH_SCRAM_SHA_256_PLUS);
    assert_true(prove(&t, &c));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_CHALLENGE);
    check_said(&t, slice_str(c.verdict));
    assert_int_equal(respond(&t, SLICE("")), SASL_DONE);
    finish(&t);
    c.binding = SLICE("0123456789abcdef0123456789abcdeg"); /* somebody sits between */
    assert_false(proves(AUTH_SCRAM_SHA_256_PLUS, true, c));
    c.binding = SLICE("");
    assert_false(proves(AUTH_SCRAM_SHA_256_PLUS, true, c));
}

static void plus_flags(void **state) /* P-150 */
{
    static const struct first with_plus[] = {
        { SLICE("p=tls-exporter,,n=user,r=abc"), SASL_ASK },
        { SLICE("p=tls-exporter,a=user,n=user,r=abc"), SASL_ASK },
        { SLICE("p=tls-exporter,a=root,n=user,r=abc"), SASL_REFUSED },
        { SLICE("p=tls-unique,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("p=tls-exporte,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("y,,n=user,r=abc"), SASL_MALFORMED },
    };
    static const struct first without[] = {
        { SLICE("n,,n=user,r=abc"), SASL_ASK },
        { SLICE("y,,n=user,r=abc"), SASL_MALFORMED }, /* the offer was tampered with */
        { SLICE("p=tls-exporter,,n=user,r=abc"), SASL_MALFORMED },
    };
    static const struct first no_tls[] = {
        { SLICE("p=tls-exporter,,n=user,r=abc"), SASL_MALFORMED },
        { SLICE("n,,n=user,r=abc"), SASL_MALFORMED },
    };
    check_firsts(AUTH_SCRAM_SHA_256_PLUS, true, with_plus, COUNT(with_plus));
    check_firsts(AUTH_SCRAM_SHA_256, true, without, COUNT(without));
    check_firsts(AUTH_SCRAM_SHA_256_PLUS, false, no_tls, COUNT(no_tls));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_rfc_7677),
        cmocka_unit_test(the_messages_of_rfc_7677),
        cmocka_unit_test(a_fake_verifier),
        cmocka_unit_test(scram_from_end_to_end),
        cmocka_unit_test(scram_refuses),
        cmocka_unit_test(scram_proofs_that_prove_nothing),
        cmocka_unit_test(scram_nonce_is_ours_too),
        cmocka_unit_test(scram_first_messages),
        cmocka_unit_test(scram_final_messages),
        cmocka_unit_test(scram_bounds),
        cmocka_unit_test(scram_longest_names),
        cmocka_unit_test(plus_from_end_to_end),
        cmocka_unit_test(plus_flags),
    };
    return cmocka_run_group_tests_name("scram", tests, NULL, NULL);
}
