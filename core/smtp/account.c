/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account - a user's line, read and written.
 *
 * Reading is strict: one space between words, every key once (but for sender), every value in the
 * one form that account_format writes or an operator is told to write. A line that is half
 * understood could let somebody in, or send as somebody else; so the whole line is BAD, and the
 * error names the word. Values that are secrets are never shown in it.
 *
 * The numbers inside a hash are bounded too: they say how much memory and time a login takes.
 *
 * Life: account_parse makes one with one reference; a store, a session and a helper thread may each
 * hold one; the last account_unref frees it. Nothing in it changes after account_parse.
 * Limits: ACCOUNT_LINE_MAX octets.
 * To add a word: a row in words[], where it is written in account_format, and test_account.
 */
#include "core/smtp/account.h"
#include "core/base/must.h"

#include <stdlib.h>

#define TENANT_MAX         32
#define SHOWN_MAX          64 /* octets of a bad word in an error */
#define RECIPIENTS_MAX     4000000000u
#define SCRAM_MIN          4096 /* iterations; RFC 7677 4 */
#define SCRAM_MAX          1000000
#define SCRAM_SALT_MIN     8
#define ARGON2_MEMORY_MAX  1048576 /* KiB; that of the library is 4 TiB */
#define ARGON2_PASSES_MAX  64
#define ARGON2_THREADS_MAX 16

/* --- names ----------------------------------------------------------------------------------- */

/* Octets of the well-formed UTF-8 character (RFC 3629) at the start of s and its code point; 0:
 * there is none. */
static size_t take_char(struct slice s, uint32_t *code)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    unsigned char c = (unsigned char)s.ptr[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || len > s.len)
        return 0;
    *code = len == 1 ? c : c & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s.ptr[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (uint32_t)(s.ptr[i] & 0x3f);
    }
    bool is_surrogate = *code >= 0xd800 && *code <= 0xdfff;
    return *code < least[len] || *code > 0x10ffff || is_surrogate ? 0 : len;
}

/* No controls (C0, DEL, C1, line separators) and nothing that looks like a space. */
static bool is_visible(uint32_t code)
{
    if (code <= ' ' || (code >= 0x7f && code <= 0xa0))
        return false;
    return !(code >= 0x2000 && code <= 0x200f) && !(code >= 0x2028 && code <= 0x202f) &&
           code != 0x3000 && code != 0x1680 && code != 0x205f && code != 0xfeff;
}

/* A first '#' would make the line a comment. */
bool account_name_is_valid(struct slice name)
{
    uint32_t code;
    if (name.len == 0 || name.len > ACCOUNT_NAME_MAX || name.ptr[0] == '#')
        return false;
    while (name.len > 0) {
        size_t len = take_char(name, &code);
        if (len == 0 || !is_visible(code))
            return false;
        name = slice_skip(name, len);
    }
    return true;
}

/* As the name of a tenant in the configuration. */
static bool tenant_is_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '-' || c == '_'))
            return false;
    }
    return name.len > 0 && name.len <= TENANT_MAX;
}

/* --- values ---------------------------------------------------------------------------------- */

static char *copy_of(struct slice s)
{
    char *copy = mem_alloc(s.len + 1);
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

/* A decimal number without sign and leading zeros. */
static bool read_number(struct slice s, uint32_t least, uint32_t most, uint32_t *out)
{
    uint64_t n = 0;
    if (s.len == 0 || s.len > 10 || (s.len > 1 && s.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    *out = (uint32_t)n;
    return n >= least && n <= most;
}

/* What stands before the next `mark`, which is taken off too; without one, all of it. */
static struct slice take_until(struct slice *rest, char mark)
{
    size_t at = slice_find(*rest, mark);
    struct slice part = slice_head(*rest, at);
    *rest = slice_skip(*rest, at + 1);
    return part;
}

/* Base64 as argon2 writes it: without padding. */
static bool is_base64(struct slice s, size_t least, size_t most)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/'))
            return false;
    }
    return s.len >= least && s.len <= most && s.len % 4 != 1;
}

static bool take_cost(struct slice *rest, struct slice key, char mark, uint32_t most)
{
    uint32_t n;
    struct slice part = take_until(rest, mark);
    return slice_eq(slice_head(part, key.len), key) &&
           read_number(slice_skip(part, key.len), 1, most, &n);
}

/* $argon2id$v=19$m=KIB,t=PASSES,p=THREADS$SALT$HASH */
static bool read_argon2(struct account *a, struct slice value)
{
    static const struct slice head = { "$argon2id$v=19$", 15 };
    struct slice rest = slice_skip(value, head.len);
    if (!slice_eq(slice_head(value, head.len), head) ||
        !take_cost(&rest, SLICE("m="), ',', ARGON2_MEMORY_MAX) ||
        !take_cost(&rest, SLICE("t="), ',', ARGON2_PASSES_MAX) ||
        !take_cost(&rest, SLICE("p="), '$', ARGON2_THREADS_MAX))
        return false;
    struct slice salt = take_until(&rest, '$');
    if (!is_base64(salt, 11, 86) || !is_base64(rest, 22, 86)) /* 8 to 64, 16 to 64 octets */
        return false;
    a->argon2 = copy_of(value);
    return true;
}

/* True when text is base64 of least to most octets; out has room for most. */
static bool read_octets(struct slice text, size_t least, size_t most, uint8_t *out, size_t *len)
{
    struct buf octets;
    buf_init(&octets, (uint32_t)most + 2); /* the padding of a last group wants room too */
    bool is_good =
        base64_decode(text, &octets) == STATUS_OK && octets.len >= least && octets.len <= most;
    if (is_good) {
        memcpy(out, octets.ptr, octets.len);
        *len = octets.len;
    }
    buf_done(&octets);
    return is_good;
}

/* ITERATIONS,SALT,STORED KEY,SERVER KEY */
static bool read_scram(struct account *a, struct slice value)
{
    struct scram_verifier *v = &a->scram;
    struct slice rest = value;
    struct slice iterations = take_until(&rest, ','), salt = take_until(&rest, ',');
    struct slice stored = take_until(&rest, ',');
    size_t salt_len = 0, len;
    a->has_scram =
        read_number(iterations, SCRAM_MIN, SCRAM_MAX, &v->iterations) &&
        read_octets(salt, SCRAM_SALT_MIN, sizeof v->salt, v->salt, &salt_len) &&
        read_octets(stored, sizeof v->stored_key, sizeof v->stored_key, v->stored_key, &len) &&
        read_octets(rest, sizeof v->server_key, sizeof v->server_key, v->server_key, &len);
    v->salt_len = (uint8_t)salt_len;
    return a->has_scram;
}

static bool read_tenant(struct account *a, struct slice value)
{
    if (!tenant_is_valid(value))
        return false;
    free(a->tenant);
    a->tenant = copy_of(value);
    return true;
}

static bool read_disabled(struct account *a, struct slice value)
{
    a->is_disabled = true;
    return true;
}

static bool read_sender(struct account *a, struct slice value)
{
    return sender_list_add(&a->senders, value) == STATUS_OK;
}

static bool read_per_minute(struct account *a, struct slice value)
{
    return read_number(value, 1, RECIPIENTS_MAX, &a->recipients_per_minute);
}

static bool read_per_day(struct account *a, struct slice value)
{
    return read_number(value, 1, RECIPIENTS_MAX, &a->recipients_per_day);
}

static const char *const lane_words[LANE_COUNT] = {
    [LANE_URGENT] = "urgent", [LANE_NORMAL] = "normal", [LANE_BULK] = "bulk"
};

bool account_read_lane(struct account *a, struct slice value)
{
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (slice_eq(value, slice_str(lane_words[lane]))) {
            a->lane = (enum mail_lane)lane;
            return a->has_lane = true;
        }
    return false;
}

const char *account_lane(const struct account *a)
{
    return a->has_lane ? lane_words[a->lane] : NULL;
}

/* --- words ----------------------------------------------------------------------------------- */

static const struct {
    const char *start; /* of the word: all of it, or up to '=' */
    bool (*read)(struct account *a, struct slice value);
    bool is_many, is_secret;
    const char *want;
} words[] = {
    { "disabled", read_disabled, false, false, "" },
    { "tenant=", read_tenant, false, false, "1 to 32 letters, digits, dots, hyphens, underscores" },
    { "argon2id=", read_argon2, false, true, "$argon2id$v=19$m=KIB,t=PASSES,p=THREADS$SALT$HASH" },
    { "scram=", read_scram, false, true,
      "ITERATIONS,SALT,STORED,SERVER; at least 4096 iterations" },
    { "sender=", read_sender, true, false, "user@domain, @domain, @*.domain or *" },
    { "recipients_per_minute=", read_per_minute, false, false, "a number from 1 to 4000000000" },
    { "recipients_per_day=", read_per_day, false, false, "a number from 1 to 4000000000" },
    { "lane=", account_read_lane, false, false, "urgent, normal or bulk" },
};

static enum status complain(struct buf *error, struct slice word, const char *what,
                            const char *more)
{
    struct slice shown = slice_head(word, SHOWN_MAX);
    buf_clear(error);
    if (buf_printf(error, "\"%.*s\"%s: %s%s", SLICE_ARG(shown), shown.len < word.len ? "..." : "",
                   what, more) != STATUS_OK)
        buf_clear(error);
    return STATUS_BAD;
}

/* The row that reads a word; ARRAY_LEN(words): none. */
static size_t row_of(struct slice word)
{
    size_t i = 0;
    for (; i < ARRAY_LEN(words); i++) {
        struct slice start = slice_str(words[i].start);
        bool is_key = start.ptr[start.len - 1] == '=';
        if (slice_eq(is_key ? slice_head(word, start.len) : word, start))
            break;
    }
    return i;
}

static enum status read_word(struct account *a, struct slice word, uint32_t *seen,
                             struct buf *error)
{
    size_t i = row_of(word);
    if (i == ARRAY_LEN(words))
        return complain(error, word, "no such word", word.len == 0 ? " (two spaces?)" : "");
    struct slice start = slice_str(words[i].start);
    struct slice shown = words[i].is_secret ? start : word;
    if ((*seen & 1u << i) && !words[i].is_many)
        return complain(error, shown, "stands there twice", "");
    *seen |= 1u << i;
    if (words[i].read(a, slice_skip(word, start.len)))
        return STATUS_OK;
    return complain(error, shown, "is not ", words[i].want);
}

static enum status read_words(struct account *a, struct slice rest, struct buf *error)
{
    uint32_t seen = 0;
    bool is_more = true;
    while (is_more) {
        is_more = slice_find(rest, ' ') < rest.len;
        enum status st = read_word(a, take_until(&rest, ' '), &seen, error);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status account_parse(struct slice line, struct account **out, struct buf *error)
{
    enum status st = STATUS_OK;
    if (line.len > ACCOUNT_LINE_MAX)
        return complain(error, line, "the line is too long", "");
    bool has_words = slice_find(line, ' ') < line.len;
    struct slice name = take_until(&line, ' ');
    if (!account_name_is_valid(name))
        return complain(error, name, "is not ", "a name: 1 to 255 octets of visible UTF-8");
    struct account *a = mem_zalloc(sizeof *a);
    atomic_init(&a->refs, 1);
    a->name = copy_of(name);
    a->tenant = mem_strdup("");
    if (has_words)
        st = read_words(a, line, error);
    if (st == STATUS_OK)
        *out = a;
    else
        account_unref(a);
    return st;
}

/* --- writing --------------------------------------------------------------------------------- */

static enum status put_octets(const char *before, const uint8_t *octets, size_t len,
                              struct buf *out)
{
    enum status st = buf_append(out, slice_str(before));
    return st == STATUS_OK ? base64_encode(slice_of((const char *)octets, len), out) : st;
}

static enum status put_scram(const struct scram_verifier *v, struct buf *out)
{
    enum status st = buf_printf(out, " scram=%u", v->iterations);
    if (st == STATUS_OK)
        st = put_octets(",", v->salt, v->salt_len, out);
    if (st == STATUS_OK)
        st = put_octets(",", v->stored_key, sizeof v->stored_key, out);
    if (st == STATUS_OK)
        st = put_octets(",", v->server_key, sizeof v->server_key, out);
    return st;
}

static enum status put_text(const char *key, const char *value, struct buf *out)
{
    return value && value[0] ? buf_printf(out, " %s%s", key, value) : STATUS_OK;
}

static enum status put_number(const char *key, uint32_t n, struct buf *out)
{
    return n > 0 ? buf_printf(out, " %s%u", key, n) : STATUS_OK;
}

static enum status put_words(const struct account *a, struct buf *out)
{
    enum status st = put_text("tenant=", a->tenant, out);
    if (st == STATUS_OK)
        st = put_text("argon2id=", a->argon2, out);
    if (st == STATUS_OK && a->has_scram)
        st = put_scram(&a->scram, out);
    if (st == STATUS_OK && a->is_disabled)
        st = buf_append(out, SLICE(" disabled"));
    for (size_t i = 0; st == STATUS_OK && i < a->senders.count; i++)
        st = put_text("sender=", a->senders.patterns[i], out);
    if (st == STATUS_OK)
        st = put_number("recipients_per_minute=", a->recipients_per_minute, out);
    if (st == STATUS_OK)
        st = put_number("recipients_per_day=", a->recipients_per_day, out);
    if (st == STATUS_OK)
        st = put_text("lane=", account_lane(a), out);
    return st;
}

enum status account_format(const struct account *a, struct buf *out)
{
    uint32_t start = out->len;
    enum status st = buf_append(out, slice_str(a->name));
    if (st == STATUS_OK)
        st = put_words(a, out);
    if (st == STATUS_OK && out->len - start > ACCOUNT_LINE_MAX)
        st = STATUS_FULL;
    if (st != STATUS_OK)
        out->len = start;
    return st;
}

/* --- references ------------------------------------------------------------------------------ */

struct account *account_ref(struct account *a)
{
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void account_unref(struct account *a)
{
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) > 1)
        return;
    sender_list_done(&a->senders);
    free(a->argon2);
    free(a->tenant);
    free(a->name);
    free(a);
}
