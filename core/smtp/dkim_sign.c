/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dkim_sign - the DKIM-Signature field (RFC 6376 3.5, 3.7).
 *
 * The field is written first with an empty b=, its last tag; its relaxed form is added to a copy of
 * the digest's state, and the result is signed: by PKCS #1 v1.5, or by Ed25519 over the hash (RFC
 * 8463 3). Then b= is filled in. There is no l= and no i= (P-242): what is not said cannot be
 * abused. Whatever stands in the field is a number of ours, base64, a name of a table, or a name
 * that dkim_is_selector or IDNA let through, so nothing in it needs dkim-quoted-printable (P-245).
 *
 * Lines are folded before column 78, where the words are short enough.
 */
#include "core/base/must.h"
#include "core/smtp/dkim_private.h"
#include "core/smtp/sasl.h"

#include <inttypes.h>
#include <openssl/mem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>

#define COLUMN_MAX 78

/* A field on its way into a buffer. */
struct writer {
    struct buf *out; /* borrowed */
    size_t column;
    enum status st; /* the first that was not OK */
};

static void write_raw(struct writer *w, struct slice s)
{
    if (w->st == STATUS_OK)
        w->st = buf_append(w->out, s);
    w->column += s.len;
}

static void fold(struct writer *w)
{
    write_raw(w, SLICE("\r\n\t"));
    w->column = 8; /* as it is shown */
}

/* A word that is not divided, and what must stay with it. */
static void write_word(struct writer *w, struct slice word)
{
    if (w->column + word.len + 1 > COLUMN_MAX)
        fold(w);
    write_raw(w, word);
}

/* " tag=value;" */
static void write_tag(struct writer *w, const char *tag, struct slice value)
{
    char head[8];
    int len = snprintf(head, sizeof head, "%s=", tag);
    must(len > 0 && (size_t)len < sizeof head);
    if (w->column + 1 + (size_t)len + value.len + 1 > COLUMN_MAX)
        fold(w);
    else
        write_raw(w, SLICE(" "));
    write_raw(w, slice_of(head, (size_t)len));
    write_raw(w, value);
    write_raw(w, SLICE(";"));
}

static void write_number(struct writer *w, const char *tag, int64_t number)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRId64, number);
    write_tag(w, tag, slice_of(text, (size_t)len));
}

/* White space may stand behind each colon. */
static void write_names(struct writer *w, struct slice names)
{
    fold(w);
    write_raw(w, SLICE("h="));
    while (names.len > 0) {
        size_t len = slice_find(names, ':') + 1;
        write_word(w, slice_head(names, len));
        names = slice_skip(names, len);
    }
    write_raw(w, SLICE(";"));
}

/* base64 may be folded anywhere. */
static void write_base64(struct writer *w, struct slice octets)
{
    struct buf text;
    buf_init(&text, 4 * ((uint32_t)octets.len / 3 + 1));
    must(base64_encode(octets, &text) == STATUS_OK);
    struct slice rest = buf_slice(&text);
    while (rest.len > 0) {
        if (w->column == COLUMN_MAX)
            fold(w);
        struct slice part = slice_head(rest, COLUMN_MAX - w->column);
        write_raw(w, part);
        rest = slice_skip(rest, part.len);
    }
    buf_done(&text);
}

static void write_all_but_b(struct writer *w, const struct dkim_digest *d, const char *domain,
                            const struct dkim_key *key, const struct dkim_times *times)
{
    bool is_ed25519 = dkim_key_is_ed25519(key->pkey);
    write_raw(w, SLICE("DKIM-Signature: v=1;"));
    write_tag(w, "a", is_ed25519 ? SLICE("ed25519-sha256") : SLICE("rsa-sha256"));
    write_tag(w, "c", SLICE("relaxed/relaxed"));
    write_tag(w, "d", slice_str(domain));
    write_tag(w, "s", slice_str(key->selector));
    write_number(w, "t", times->now_s);
    if (times->expires_s > 0)
        write_number(w, "x", times->expires_s);
    write_names(w, buf_slice(&d->names));
    fold(w);
    write_raw(w, SLICE("bh="));
    write_base64(w, slice_of((const char *)d->body_hash, sizeof d->body_hash));
    write_raw(w, SLICE(";"));
    fold(w);
    write_raw(w, SLICE("b="));
}

/* Of the fields and of what of this one is written. */
static void hash_header(const struct dkim_digest *d, struct slice field,
                        uint8_t hash[SHA256_DIGEST_LENGTH])
{
    SHA256_CTX sha = d->header;
    dkim_relax_field(&sha, field);
    SHA256_Final(hash, &sha);
}

static bool sign_ed25519(EVP_PKEY *pkey, const uint8_t *hash, uint8_t *sig, size_t *len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestSign(ctx, sig, len, hash, SHA256_DIGEST_LENGTH) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool sign_rsa(EVP_PKEY *pkey, const uint8_t *hash, uint8_t *sig, size_t *len)
{
    unsigned written = 0;
    bool ok = RSA_sign(NID_sha256, hash, SHA256_DIGEST_LENGTH, sig, &written,
                       EVP_PKEY_get0_RSA(pkey)) == 1;
    *len = written;
    return ok;
}

enum status dkim_sign(const struct dkim_digest *d, const char *domain, const struct dkim_key *key,
                      const struct dkim_times *times, struct buf *out)
{
    uint8_t hash[SHA256_DIGEST_LENGTH], sig[DKIM_RSA_BITS_MAX / 8];
    struct writer w = { .out = out };
    uint32_t start = out->len;
    size_t len = sizeof sig;
    write_all_but_b(&w, d, domain, key, times);
    if (w.st == STATUS_OK) {
        hash_header(d, slice_skip(buf_slice(out), start), hash);
        bool is_signed = dkim_key_is_ed25519(key->pkey) ? sign_ed25519(key->pkey, hash, sig, &len)
                                                        : sign_rsa(key->pkey, hash, sig, &len);
        if (!is_signed)
            w.st = STATUS_BAD;
        else
            write_base64(&w, slice_of((const char *)sig, len));
    }
    write_raw(&w, SLICE("\r\n"));
    if (w.st != STATUS_OK)
        out->len = start;
    return w.st;
}
