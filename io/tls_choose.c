/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which certificate a client gets.
 *
 * Each certificate is ranked: can the client check a signature of its key at all, does its name
 * fit (exactly, or by a wildcard for one label), is its key the cheaper one (ECDSA: about a
 * fifth of the CPU of RSA-2048). The first of the best wins. A name that no certificate has, and no
 * name at all, stand for the first name of the first certificate (P-129), so that a default that
 * exists with both kinds of key is served to every client too.
 *
 * To add a kind of key: enum tls_key_kind, can_sign here, key_kind in tls_store.c.
 */
#include "core/base/must.h"
#include "io/tls_private.h"

#include <openssl/x509v3.h>
#include <stdlib.h>

#define EXT_SIGNATURE_ALGORITHMS 13
#define EXT_SUPPORTED_VERSIONS   43
#define TLS_1_3                  0x0304

/* --- names ----------------------------------------------------------------------------------- */

static struct slice text_of(const ASN1_STRING *s)
{
    return slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static void add_name(struct tls_identity *id, struct slice name)
{
    if (name.len == 0 || slice_find(name, '\0') < name.len) /* a NUL inside is an attack */
        return;
    char *copy = mem_alloc(name.len + 1);
    memcpy(copy, name.ptr, name.len);
    copy[name.len] = '\0';
    id->names = mem_realloc(id->names, (id->name_count + 1) * sizeof *id->names);
    id->names[id->name_count++] = copy;
}

static void add_common_name(X509 *cert, struct tls_identity *id)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at >= 0)
        add_name(id, text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
}

void tls_names_of(X509 *cert, struct tls_identity *id)
{
    GENERAL_NAMES *alt = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool has_alt = false;
    for (size_t i = 0; alt && i < sk_GENERAL_NAME_num(alt); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(alt, i);
        if (name->type != GEN_DNS)
            continue;
        has_alt = true;
        add_name(id, text_of(name->d.dNSName));
    }
    GENERAL_NAMES_free(alt);
    if (!has_alt)
        add_common_name(cert, id);
}

int tls_name_match(const struct tls_identity *id, struct slice host)
{
    size_t label = slice_find(host, '.');
    struct slice domain = label > 0 ? slice_skip(host, label) : SLICE_NONE; /* ".example.org" */
    int best = 0;
    for (size_t i = 0; i < id->name_count; i++) {
        struct slice name = slice_str(id->names[i]);
        if (slice_eq_nocase(name, host))
            return 2;
        if (domain.len > 1 && name.len > 2 && name.ptr[0] == '*' &&
            slice_eq_nocase(slice_skip(name, 1), domain))
            best = 1;
    }
    return best;
}

/* --- what the client can check --------------------------------------------------------------- */

/* A run of 16-bit numbers of a ClientHello. */
struct numbers {
    const uint8_t *ptr;
    size_t len; /* octets */
};

static bool has_number(struct numbers n, uint16_t wanted)
{
    for (size_t i = 0; i + 1 < n.len; i += 2)
        if ((n.ptr[i] << 8 | n.ptr[i + 1]) == wanted)
            return true;
    return false;
}

static bool has_any(struct numbers n, const uint16_t *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (has_number(n, wanted[i]))
            return true;
    return false;
}

struct client {
    struct numbers suites, schemes;
    bool has_schemes; /* false: it did not say, an old TLS 1.2 */
    bool speaks_1_3;
};

static void read_hello(const SSL_CLIENT_HELLO *hello, struct client *out)
{
    const uint8_t *ext;
    size_t len;
    *out = (struct client){ .suites = { hello->cipher_suites, hello->cipher_suites_len } };
    if (SSL_early_callback_ctx_extension_get(hello, EXT_SIGNATURE_ALGORITHMS, &ext, &len) &&
        len >= 2) {
        out->schemes = (struct numbers){ ext + 2, len - 2 };
        out->has_schemes = true;
    }
    if (SSL_early_callback_ctx_extension_get(hello, EXT_SUPPORTED_VERSIONS, &ext, &len) && len >= 1)
        out->speaks_1_3 = has_number((struct numbers){ ext + 1, len - 1 }, TLS_1_3);
}

static bool can_sign_1_2(const struct tls_identity *id, const struct client *c)
{
    static const uint16_t suites[2][3] = {
        [TLS_KEY_RSA] = { 0xc02f, 0xc030, 0xcca8 },
        [TLS_KEY_ECDSA] = { 0xc02b, 0xc02c, 0xcca9 },
    };
    /* RSA: PSS and PKCS #1 with SHA-256, -384, -512; ECDSA the same (RFC 8446 4.2.3). */
    static const uint16_t schemes[2][6] = {
        [TLS_KEY_RSA] = { 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601 },
        [TLS_KEY_ECDSA] = { 0x0403, 0x0503, 0x0603, 0x0403, 0x0403, 0x0403 },
    };
    return has_any(c->suites, suites[id->kind], 3) &&
           (!c->has_schemes || has_any(c->schemes, schemes[id->kind], 6));
}

static bool can_sign(const struct tls_identity *id, const struct client *c)
{
    static const uint16_t pss[] = { 0x0804, 0x0805, 0x0806 };
    if (!c->speaks_1_3)
        return can_sign_1_2(id, c);
    if (id->kind == TLS_KEY_ECDSA)
        return has_number(c->schemes, id->scheme);
    return has_any(c->schemes, pss, ARRAY_LEN(pss));
}

/* --- the choice ------------------------------------------------------------------------------ */

static bool is_known(const struct tls_set *set, struct slice host)
{
    for (size_t i = 0; i < set->id_count; i++)
        if (tls_name_match(&set->ids[i], host) > 0)
            return true;
    return false;
}

/* The name that decides; empty when even the first certificate has none. */
static struct slice wanted_name(const struct tls_set *set, const SSL *ssl)
{
    struct slice host = slice_str(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    if (host.len > 0 && is_known(set, host))
        return host;
    return set->ids[0].name_count > 0 ? slice_str(set->ids[0].names[0]) : SLICE_NONE;
}

static int rank(const struct tls_identity *id, struct slice host, const struct client *c)
{
    int match = tls_name_match(id, host);
    if (match == 0)
        return -1;
    return can_sign(id, c) ? 8 + 2 * match + (id->kind == TLS_KEY_ECDSA) : match;
}

enum ssl_select_cert_result_t tls_choose(const SSL_CLIENT_HELLO *hello)
{
    const struct tls_set *set = tls_set_of(hello->ssl);
    struct slice host = wanted_name(set, hello->ssl);
    struct client client;
    const struct tls_identity *best = &set->ids[0];
    read_hello(hello, &client);
    int best_rank = -1;
    for (size_t i = 0; i < set->id_count; i++) {
        int r = rank(&set->ids[i], host, &client);
        if (r > best_rank) {
            best_rank = r;
            best = &set->ids[i];
        }
    }
    return SSL_set_SSL_CTX(hello->ssl, best->ctx) ? ssl_select_cert_success : ssl_select_cert_error;
}
