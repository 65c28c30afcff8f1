/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * certificates - keys and certificates made while a test runs, so that none lies in the tree and
 * expires. Header only: every test is one program.
 */
#include "core/base/must.h"
#include "core/base/slice.h"

#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define CERT_DAY 86400L

struct made_cert {
    X509 *cert;    /* owned */
    EVP_PKEY *key; /* owned */
};

struct cert_wish {
    const char *common_name;
    const char *dns[4];             /* up to the first NULL */
    const char *email;              /* NULL: none */
    bool is_rsa;                    /* else secp256r1 */
    bool is_authority;              /* may sign others */
    long from_s, until_s;           /* from now; both 0: yesterday to in 30 days */
    const struct made_cert *signer; /* NULL: itself */
};

static inline EVP_PKEY *cert_new_key(bool is_rsa)
{
    EVP_PKEY *key = EVP_PKEY_new();
    must(key);
    if (is_rsa) {
        RSA *rsa = RSA_new();
        BIGNUM *e = BN_new();
        must(rsa && e && BN_set_word(e, RSA_F4) && RSA_generate_key_ex(rsa, 2048, e, NULL));
        BN_free(e);
        must(EVP_PKEY_assign_RSA(key, rsa));
        return key;
    }
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    must(ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    return key;
}

static inline void cert_add_name(GENERAL_NAMES *names, int type, const char *text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *s = ASN1_IA5STRING_new();
    must(name && s && ASN1_STRING_set(s, text, (int)strlen(text)));
    GENERAL_NAME_set0_value(name, type, s);
    must(sk_GENERAL_NAME_push(names, name));
}

static inline void cert_add_extensions(X509 *cert, const struct cert_wish *wish)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    for (size_t i = 0; i < ARRAY_LEN(wish->dns) && wish->dns[i]; i++)
        cert_add_name(names, GEN_DNS, wish->dns[i]);
    if (wish->email)
        cert_add_name(names, GEN_EMAIL, wish->email);
    if (sk_GENERAL_NAME_num(names) > 0)
        must(X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0));
    GENERAL_NAMES_free(names);
    BASIC_CONSTRAINTS *basic = BASIC_CONSTRAINTS_new();
    basic->ca = wish->is_authority ? 0xff : 0;
    must(X509_add1_ext_i2d(cert, NID_basic_constraints, basic, 1, 0));
    BASIC_CONSTRAINTS_free(basic);
}

static inline struct made_cert cert_make(const struct cert_wish *wish)
{
    static long serial;
    struct made_cert made = { X509_new(), cert_new_key(wish->is_rsa) };
    const struct made_cert *signer = wish->signer ? wish->signer : &made;
    long until_s = wish->until_s || wish->from_s ? wish->until_s : 30 * CERT_DAY;
    must(made.cert && X509_set_version(made.cert, X509_VERSION_3));
    must(ASN1_INTEGER_set(X509_get_serialNumber(made.cert), ++serial));
    must(X509_gmtime_adj(X509_getm_notBefore(made.cert), wish->from_s ? wish->from_s : -CERT_DAY));
    must(X509_gmtime_adj(X509_getm_notAfter(made.cert), until_s));
    X509_NAME *subject = X509_get_subject_name(made.cert);
    must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    (const unsigned char *)wish->common_name, -1, -1, 0));
    must(X509_set_issuer_name(made.cert, X509_get_subject_name(signer->cert)));
    must(X509_set_pubkey(made.cert, made.key));
    cert_add_extensions(made.cert, wish);
    must(X509_sign(made.cert, signer->key, EVP_sha256()) > 0);
    return made;
}

static inline void cert_free(struct made_cert *made)
{
    X509_free(made->cert);
    EVP_PKEY_free(made->key);
    *made = (struct made_cert){ NULL, NULL };
}

/* Either path may be NULL. */
static inline void cert_write(const struct made_cert *made, const char *cert_path,
                              const char *key_path)
{
    if (cert_path) {
        FILE *f = fopen(cert_path, "w");
        must(f && PEM_write_X509(f, made->cert) == 1);
        must(fclose(f) == 0);
    }
    if (key_path) {
        FILE *f = fopen(key_path, "w");
        must(f && PEM_write_PrivateKey(f, made->key, NULL, NULL, 0, NULL, NULL) == 1);
        must(fclose(f) == 0);
    }
}
