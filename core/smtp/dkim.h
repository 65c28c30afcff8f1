/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * dkim - signatures of messages (RFC 6376, RFC 8463): relaxed/relaxed, rsa-sha256 and
 * ed25519-sha256.
 *
 *     dkim_canon.c    the two canonical forms, straight into SHA-256
 *     dkim_digest.c   what of a message is signed, taken while it streams by
 *     dkim_sign.c     the DKIM-Signature field
 *     dkim_keys.c     keys, and which of them sign for a domain
 *
 * Life of a digest: dkim_digest_new (the header section is complete) -> update with the body ->
 * dkim_digest_end -> dkim_sign, once for each key -> free. It holds no header and no body, only
 * two states of SHA-256 and the names of the fields.
 */
#include "core/base/buf.h"
#include "core/smtp/idn.h"
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdatomic.h>

/* --- canonical forms (RFC 6376 3.4) ---------------------------------------------------------- */

/* A body in relaxed form, hashed as it comes. */
struct dkim_body {
    SHA256_CTX sha;
    uint64_t empty_lines; /* held back: at the end of the body they do not count */
    bool has_cr;          /* the last octet was a CR */
    bool has_space;       /* white space was seen since the last octet of text in this line */
    bool line_has_text;
};
void dkim_body_init(struct dkim_body *b);
void dkim_body_update(struct dkim_body *b, struct slice octets);
void dkim_body_end(struct dkim_body *b, uint8_t hash[SHA256_DIGEST_LENGTH]);

/* Adds a field, "Name: value" with its folds and with or without its final CR LF, in relaxed form
 * and without CR LF at its end. */
void dkim_relax_field(SHA256_CTX *sha, struct slice field);

/* --- what is signed -------------------------------------------------------------------------- */

#define DKIM_FIELDS_MAX 1100 /* of a header section, ours counted */

struct dkim_digest;

/* The header section, whole, without the empty line; at most DKIM_FIELDS_MAX fields. */
struct dkim_digest *dkim_digest_new(struct slice header);
void dkim_digest_free(struct dkim_digest *d); /* NULL is harmless */
void dkim_digest_update(struct dkim_digest *d, struct slice body);
void dkim_digest_end(struct dkim_digest *d);
/* The domain of From with A-labels, in lower case. Empty: From cannot be read safely, or names
 * addresses of several domains. */
struct slice dkim_digest_domain(const struct dkim_digest *d);

/* --- keys ------------------------------------------------------------------------------------ */

#define DKIM_RSA_BITS_MIN 1024 /* RFC 8301 3.2 */
#define DKIM_RSA_BITS_MAX 8192
#define DKIM_RECORD_MAX   2048 /* octets of the TXT record of a key */

struct dkim_key {
    char *selector; /* owned */
    EVP_PKEY *pkey; /* owned */
};

/* Reads a PEM private key. BAD: error says why, without naming the file. */
NODISCARD enum status dkim_key_parse(struct slice pem, EVP_PKEY **out, struct buf *error);
bool dkim_key_is_ed25519(const EVP_PKEY *pkey);
/* What stands in DNS at SELECTOR._domainkey.DOMAIN. FULL: not within out's maximum. */
NODISCARD enum status dkim_key_record(const EVP_PKEY *pkey, struct buf *out);
/* Letters, digits, hyphens and underscores between dots, at most 128 octets. */
bool dkim_is_selector(struct slice selector);

/* Who signs for a domain. At most one key of each algorithm. */
struct dkim_domain {
    char *name; /* owned; A-labels, lower case; "": every domain (see dkim_keys_find) */
    struct dkim_key keys[2];
    uint32_t key_count;   /* 0: there should be keys, but they cannot be read */
    char *const *tenants; /* borrowed; whose users it signs for; without any: for everybody */
    size_t tenant_count;
};

/* Never changed once it is shared. */
struct dkim_keys {
    _Atomic uint32_t refs;
    struct dkim_domain *domains; /* owned; sorted by name after dkim_keys_seal */
    size_t count;
};

struct dkim_keys *dkim_keys_new(void); /* one reference */
struct dkim_keys *dkim_keys_ref(struct dkim_keys *k);
void dkim_keys_unref(struct dkim_keys *k); /* NULL is harmless; any thread */
/* A new domain at the end; valid until the next is added. The name is copied in lower case. */
struct dkim_domain *dkim_keys_add(struct dkim_keys *k, struct slice name);
/* Takes pkey. False: there is one of this algorithm already, and pkey is still the caller's. */
bool dkim_domain_add_key(struct dkim_domain *d, struct slice selector, EVP_PKEY *pkey);
void dkim_domain_drop_keys(struct dkim_domain *d); /* it has none that can be read */
void dkim_keys_seal(struct dkim_keys *k);          /* all were added */

enum dkim_match {
    DKIM_NO_KEY,  /* nobody has a key for it */
    DKIM_FOREIGN, /* its keys are another tenant's */
    DKIM_BROKEN,  /* its keys cannot be read */
    DKIM_FOUND,
};
/* Who signs for mail From this domain: itself, or the nearest domain above it; last comes "", which
 * stands for a directory of keys that cannot be read. Keys of the tenant itself outweigh those of
 * everybody. *out is set with FOUND. */
enum dkim_match dkim_keys_find(const struct dkim_keys *k, struct slice domain, struct slice tenant,
                               const struct dkim_domain **out);

/* --- signing --------------------------------------------------------------------------------- */

#define DKIM_SIGNATURE_MAX (64 * 1024) /* octets of one field; most have some 700 */

struct dkim_times {
    int64_t now_s;     /* t= */
    int64_t expires_s; /* x=; 0: none */
};

/* Appends "DKIM-Signature: ...", folded, with its final CR LF. Any thread. FULL, BAD (the key does
 * not sign). */
NODISCARD enum status dkim_sign(const struct dkim_digest *d, const char *domain,
                                const struct dkim_key *key, const struct dkim_times *times,
                                struct buf *out);
