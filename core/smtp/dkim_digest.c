/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dkim_digest - what of a message is signed.
 *
 * The header section is looked at once, when it is complete and nothing will be added any more
 * (P-240): its fields that signed[] names are added to a state of SHA-256, in the order of that
 * table, those of one name from the bottom up (RFC 6376 5.4.2). Each key's signature goes on from a
 * copy of that state, so the header itself is not kept.
 *
 * A field that is over-signed is named once more than it occurs: another one added on the way
 * breaks the signature (RFC 6376 8.15). That holds for what a reader sees, or acts on at a click.
 * Fields of the list operator who may forward the mail (List-Post and the like, Sender) and of
 * resending are signed as they stand. Received and Return-Path never are: they are every relay's.
 *
 * Limits: DKIM_FIELDS_MAX fields.
 * To sign another field: a row in signed_fields[].
 */
#include "core/base/must.h"
#include "core/smtp/content_value.h"
#include "core/smtp/dkim_private.h"

#include <stdlib.h>

static const struct signed_field {
    struct slice name;
    bool is_oversigned;
} signed_fields[] = {
    { { "From", 4 }, true },
    { { "To", 2 }, true },
    { { "Cc", 2 }, true },
    { { "Subject", 7 }, true },
    { { "Date", 4 }, true },
    { { "Reply-To", 8 }, true },
    { { "Message-ID", 10 }, true },
    { { "In-Reply-To", 11 }, true },
    { { "References", 10 }, true },
    { { "MIME-Version", 12 }, true },
    { { "Content-Type", 12 }, true },
    { { "Content-Transfer-Encoding", 25 }, true },
    { { "Content-Disposition", 19 }, false },
    { { "Content-Language", 16 }, false },
    { { "Content-ID", 10 }, false },
    { { "Sender", 6 }, false },
    { { "List-Unsubscribe", 16 }, true }, /* P-249, RFC 8058 4 */
    { { "List-Unsubscribe-Post", 21 }, true },
    { { "List-Id", 7 }, true },
    { { "List-Help", 9 }, false },
    { { "List-Subscribe", 14 }, false },
    { { "List-Post", 9 }, false },
    { { "List-Owner", 10 }, false },
    { { "List-Archive", 12 }, false },
    { { "Feedback-ID", 11 }, false },
    { { "CFBL-Address", 12 }, false }, /* RFC 9477 3.1.2: must be signed */
    { { "CFBL-Feedback-ID", 16 }, false },
    { { "Auto-Submitted", 14 }, false },
    { { "Importance", 10 }, false },
    { { "TLS-Required", 12 }, false },
    { { "Resent-Date", 11 }, false },
    { { "Resent-From", 11 }, false },
    { { "Resent-Sender", 13 }, false },
    { { "Resent-To", 9 }, false },
    { { "Resent-Cc", 9 }, false },
    { { "Resent-Message-ID", 17 }, false },
};

#define ROWS ARRAY_LEN(signed_fields)

/* Where the fields of each row lie. */
struct found {
    struct slice field;
    size_t row;
};
struct finds {
    struct found *items; /* owned */
    size_t count, cap;
};

/* --- the fields ------------------------------------------------------------------------------ */

static size_t row_of(struct slice name)
{
    size_t row = 0;
    while (row < ROWS && !slice_eq_nocase(name, signed_fields[row].name))
        row++;
    return row;
}

static void note_field(struct finds *f, struct slice field)
{
    size_t row = row_of(slice_head(field, slice_find(field, ':')));
    if (row == ROWS)
        return;
    if (f->count == f->cap) {
        f->cap = f->cap > 0 ? 2 * f->cap : 32;
        f->items = mem_realloc(f->items, f->cap * sizeof *f->items);
    }
    f->items[f->count++] = (struct found){ field, row };
    must(f->count <= DKIM_FIELDS_MAX);
}

/* Octets of the field at the front: its first line and those that are folded to it. */
static size_t field_length(struct slice header)
{
    size_t len = 0;
    do {
        len += slice_find(slice_skip(header, len), '\n') + 1;
    } while (len < header.len && (header.ptr[len] == ' ' || header.ptr[len] == '\t'));
    return len < header.len ? len : header.len;
}

static void find_fields(struct finds *f, struct slice header)
{
    while (header.len > 0) {
        size_t len = field_length(header);
        note_field(f, slice_head(header, len));
        header = slice_skip(header, len);
    }
}

static void name_field(struct dkim_digest *d, size_t row)
{
    if (d->names.len > 0)
        must(buf_append(&d->names, SLICE(":")) == STATUS_OK);
    must(buf_append(&d->names, signed_fields[row].name) == STATUS_OK);
}

static void sign_row(struct dkim_digest *d, const struct finds *f, size_t row)
{
    for (size_t i = f->count; i-- > 0;) {
        if (f->items[i].row != row)
            continue;
        dkim_relax_field(&d->header, f->items[i].field);
        SHA256_Update(&d->header, "\r\n", 2);
        name_field(d, row);
    }
    if (signed_fields[row].is_oversigned)
        name_field(d, row);
}

/* --- From ------------------------------------------------------------------------------------ */

static struct slice domain_of(struct slice mailbox)
{
    const char *at = mailbox.len ? memrchr(mailbox.ptr, '@', mailbox.len) : NULL;
    return at ? slice_skip(mailbox, (size_t)(at + 1 - mailbox.ptr)) : SLICE_NONE;
}

/* False: the address has no domain, or another one than those before it. */
static bool take_domain(struct dkim_digest *d, struct slice domain)
{
    char ascii[IDN_ASCII_MAX];
    size_t len;
    if (domain.len == 0 || !idn_to_ascii(domain, ascii, &len))
        return false;
    if (d->domain_len > 0)
        return slice_eq(slice_of(ascii, len), slice_of(d->domain, d->domain_len));
    memcpy(d->domain, ascii, len + 1);
    d->domain_len = len;
    return true;
}

static void read_from(struct dkim_digest *d, struct slice field)
{
    struct value_reader r;
    struct slice mailbox;
    enum value_event event;
    value_reader_init(&r, slice_skip(field, slice_find(field, ':') + 1));
    while ((event = value_next_address(&r, &mailbox)) == VALUE_ADDRESS)
        if (!take_domain(d, domain_of(mailbox)))
            break;
    if (event != VALUE_END)
        d->domain_len = 0;
}

static void find_domain(struct dkim_digest *d, const struct finds *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->items[i].row == 0)
            read_from(d, f->items[i].field);
}

/* --- a digest -------------------------------------------------------------------------------- */

struct dkim_digest *dkim_digest_new(struct slice header)
{
    struct dkim_digest *d = mem_zalloc(sizeof *d);
    struct finds f = { 0 };
    SHA256_Init(&d->header);
    dkim_body_init(&d->body);
    buf_init(&d->names, DKIM_NAMES_MAX);
    find_fields(&f, header);
    for (size_t row = 0; row < ROWS; row++)
        sign_row(d, &f, row);
    find_domain(d, &f);
    free(f.items);
    return d;
}

void dkim_digest_free(struct dkim_digest *d)
{
    if (!d)
        return;
    buf_done(&d->names);
    free(d);
}

void dkim_digest_update(struct dkim_digest *d, struct slice body)
{
    dkim_body_update(&d->body, body);
}

void dkim_digest_end(struct dkim_digest *d)
{
    dkim_body_end(&d->body, d->body_hash);
}

struct slice dkim_digest_domain(const struct dkim_digest *d)
{
    return slice_of(d->domain, d->domain_len);
}
