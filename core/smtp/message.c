/* SPDX-License-Identifier: Apache-2.0 */
/*
 * message - one mail in memory, and the stored form of its envelope.
 *
 * A message is counted, not shared between threads: the session, the commit batch and the relay of
 * one worker hold references, the last one frees. A new message keeps its words in its arena and
 * its content in its chain; one that was read back keeps the record itself (`blob`) and points into
 * it.
 *
 * The record, numbers big-endian:
 *
 *     "K1"  u32 length of the fields  { u8 tag  u32 length  octets } ...  content
 *
 * Reading trusts nothing: every length is checked against what is left, every tag has its size, a
 * single field may not come twice, the ones that a delivery needs must be there, and the content
 * must be as long as the record says. A field that is optional is written only when it says
 * something, so most records have none of them and records from before they existed read the same.
 * With TAG_PACKED the content is compressed; the record's size is that of the content as it was.
 *
 * A tag from 128 on that is not known is skipped, so that a newer version may add what an older one
 * can do without; another unknown tag, or an unknown flag, is BAD: better kept for a newer version
 * than delivered wrong.
 *
 * Limits: MESSAGE_ENVELOPE_MAX octets of envelope.
 * To add a field: a tag, a row in layouts[], a case in text_at or in number_of_field and
 * set_number, a seed for the fuzzer.
 */
#include "core/smtp/message.h"
#include "core/base/must.h"
#include "core/smtp/dkim.h"
#include "core/smtp/returned.h"

#include <endian.h>
#include <lz4.h>
#include <stdlib.h>

#define MAGIC         "K1"
#define HEAD_LEN      (2 + 4) /* magic and the length of the fields */
#define FIELD_HEAD    (1 + 4) /* tag and length */
#define RCPT_HEAD     2       /* octets of the domain, before the address */
#define RCPT_DSN_HEAD 1       /* notify, before the orcpt */
#define RCPT_CAP_MIN  4
#define SKIPPABLE_MIN 128
#define PACKED_LZ4    1   /* value of TAG_PACKED: the content is one LZ4 block */
#define LZ4_RATIO_MAX 255 /* no block says more */
#define FLAGS_KNOWN                                                                                \
    (MESSAGE_8BIT | MESSAGE_DOT_LINES | MESSAGE_BOUNCE | MESSAGE_UTF8 | MESSAGE_BINARY |           \
     MESSAGE_REQUIRE_TLS | MESSAGE_TLS_OPTIONAL | MESSAGE_BY_RETURN | MESSAGE_BY_TRACE)
#define NOTIFY_KNOWN (DSN_NOTIFY_NEVER | DSN_NOTIFY_SUCCESS | DSN_NOTIFY_FAILURE | DSN_NOTIFY_DELAY)

enum tag {
    TAG_FLAGS = 1,
    TAG_LANE,
    TAG_SENDER,
    TAG_RCPT, /* once per recipient, in order */
    TAG_HELO,
    TAG_CLIENT,
    TAG_TENANT,
    TAG_ACCEPTED_MS,
    TAG_CHUNK_COUNT,
    TAG_SIZE,
    TAG_RCPT_DSN, /* of the recipient before it, at most once each */
    TAG_USER,
    TAG_ENVID,
    TAG_RET,
    TAG_PRIORITY,
    TAG_HOLD_UNTIL_MS,
    TAG_DELIVER_BY_MS,
    TAG_SIGNATURE,
    TAG_PACKED,
    TAG_COUNT
};

enum kind { KIND_NUMBER, KIND_TEXT, KIND_RCPT, KIND_RCPT_DSN };

/* What a field's octets are, and whether a record may do without it: then it is zero. */
static const struct layout {
    enum kind kind;
    uint8_t octets; /* of a number, big-endian */
    bool is_optional;
} layouts[TAG_COUNT] = {
    [TAG_FLAGS] = { KIND_NUMBER, 4, false },        [TAG_LANE] = { KIND_NUMBER, 1, false },
    [TAG_SENDER] = { KIND_TEXT, 0, false },         [TAG_RCPT] = { KIND_RCPT, 0, false },
    [TAG_HELO] = { KIND_TEXT, 0, false },           [TAG_CLIENT] = { KIND_TEXT, 0, false },
    [TAG_TENANT] = { KIND_TEXT, 0, false },         [TAG_ACCEPTED_MS] = { KIND_NUMBER, 8, false },
    [TAG_CHUNK_COUNT] = { KIND_NUMBER, 4, false },  [TAG_SIZE] = { KIND_NUMBER, 8, false },
    [TAG_RCPT_DSN] = { KIND_RCPT_DSN, 0, true },    [TAG_USER] = { KIND_TEXT, 0, true },
    [TAG_ENVID] = { KIND_TEXT, 0, true },           [TAG_RET] = { KIND_NUMBER, 1, true },
    [TAG_PRIORITY] = { KIND_NUMBER, 1, true },      [TAG_HOLD_UNTIL_MS] = { KIND_NUMBER, 8, true },
    [TAG_DELIVER_BY_MS] = { KIND_NUMBER, 8, true }, [TAG_SIGNATURE] = { KIND_TEXT, 0, true },
    [TAG_PACKED] = { KIND_NUMBER, 1, true },
};

struct message *message_new(struct chain_budget *budget)
{
    struct message *m = mem_zalloc(sizeof(*m));
    m->refs = 1;
    m->lane = 'n';
    arena_init(&m->arena);
    chain_init(&m->content, budget);
    return m;
}

struct message *message_ref(struct message *m)
{
    must(m->refs > 0);
    m->refs++;
    return m;
}

void message_unref(struct message *m)
{
    if (m == NULL)
        return;
    must(m->refs > 0);
    if (--m->refs > 0)
        return;
    if (m->content.budget)
        m->content.budget->used -= m->blob_len;
    chain_done(&m->content);
    dkim_digest_free(m->dkim);
    returned_reader_free(m->returned);
    arena_done(&m->arena);
    free(m->blob);
    free(m->unpacked);
    free(m);
}

/* Doubles the room; the old array stays in the arena until the message goes, which at most
 * doubles it again. */
static void grow_rcpts(struct message *m)
{
    uint32_t cap = m->rcpt_cap > 0 ? m->rcpt_cap * 2 : RCPT_CAP_MIN;
    struct rcpt *rcpts = arena_alloc(&m->arena, cap * sizeof(*rcpts));
    if (m->rcpt_count > 0)
        memcpy(rcpts, m->rcpts, m->rcpt_count * sizeof(*rcpts));
    m->rcpts = rcpts;
    m->rcpt_cap = cap;
}

/* The domain is the last domain_len octets of the address, which stays where it is. */
static void push_rcpt(struct message *m, struct slice address, size_t domain_len)
{
    if (m->rcpt_count == m->rcpt_cap)
        grow_rcpts(m);
    m->rcpts[m->rcpt_count++] = (struct rcpt){
        .address = address,
        .domain = slice_skip(address, address.len - domain_len),
    };
}

void message_add_rcpt(struct message *m, struct slice address, struct slice domain)
{
    must(domain.len <= address.len && address.len <= UINT16_MAX);
    must(slice_eq(slice_skip(address, address.len - domain.len), domain));
    push_rcpt(m, arena_copy(&m->arena, address), domain.len);
}

/* RFC 3461 4.1: NEVER stands alone. */
static bool notify_is_valid(uint64_t notify)
{
    bool is_mixed = (notify & DSN_NOTIFY_NEVER) && notify != DSN_NOTIFY_NEVER;
    return (notify & ~(uint64_t)NOTIFY_KNOWN) == 0 && !is_mixed;
}

void message_set_rcpt_dsn(struct message *m, uint32_t notify, struct slice orcpt)
{
    must(m->rcpt_count > 0 && notify_is_valid(notify));
    struct rcpt *rcpt = &m->rcpts[m->rcpt_count - 1];
    rcpt->notify = notify;
    rcpt->orcpt = arena_copy(&m->arena, orcpt);
}

/* --- the fields ------------------------------------------------------------------------------ */

/* Where a text field lives; tags of KIND_TEXT only. */
static struct slice *text_at(struct message *m, enum tag tag)
{
    switch (tag) {
    case TAG_SENDER: return &m->sender;
    case TAG_HELO: return &m->helo;
    case TAG_CLIENT: return &m->client;
    case TAG_TENANT: return &m->tenant;
    case TAG_USER: return &m->user;
    case TAG_SIGNATURE: return &m->signature;
    default: must(tag == TAG_ENVID); return &m->envid;
    }
}

static struct slice text_of_field(const struct message *m, enum tag tag)
{
    return *text_at((struct message *)m, tag);
}

/* Tags of KIND_NUMBER only. A negative one is written in its field's octets as two's complement. */
static uint64_t number_of_field(const struct message *m, enum tag tag)
{
    switch (tag) {
    case TAG_FLAGS: return m->flags;
    case TAG_LANE: return (unsigned char)m->lane;
    case TAG_ACCEPTED_MS: return (uint64_t)m->accepted_ms;
    case TAG_CHUNK_COUNT: return m->chunk_count;
    case TAG_SIZE: return m->size;
    case TAG_RET: return m->ret;
    case TAG_PRIORITY: return (uint8_t)m->priority;
    case TAG_PACKED: return 0; /* written by hand, last */
    case TAG_HOLD_UNTIL_MS: return (uint64_t)m->hold_until_ms;
    default: must(tag == TAG_DELIVER_BY_MS); return (uint64_t)m->deliver_by_ms;
    }
}

/* The number fits the field's octets. False: the field cannot have this value. */
static bool set_number(struct message *m, enum tag tag, uint64_t number)
{
    switch (tag) {
    case TAG_FLAGS: m->flags = (uint32_t)number; return (m->flags & ~(uint32_t)FLAGS_KNOWN) == 0;
    case TAG_LANE: m->lane = (char)number; return number == 'u' || number == 'n' || number == 'b';
    case TAG_ACCEPTED_MS: m->accepted_ms = (int64_t)number; return true;
    case TAG_CHUNK_COUNT: m->chunk_count = (uint32_t)number; return true;
    case TAG_SIZE: m->size = number; return true;
    case TAG_RET: m->ret = (enum dsn_ret)number; return number <= DSN_RET_HDRS;
    case TAG_PRIORITY: m->priority = (int8_t)number; return m->priority >= -9 && m->priority <= 9;
    case TAG_HOLD_UNTIL_MS: m->hold_until_ms = (int64_t)number; return true;
    case TAG_PACKED: return number == PACKED_LZ4; /* has_tag looks for it */
    default:
        must(tag == TAG_DELIVER_BY_MS);
        m->deliver_by_ms = (int64_t)number;
        return true;
    }
}

/* --- writing --------------------------------------------------------------------------------- */

static char *put_number(char *to, uint64_t number, unsigned octets)
{
    for (unsigned i = octets; i > 0; i--) {
        to[i - 1] = (char)(number & 0xff);
        number >>= 8;
    }
    return to + octets;
}

static char *put_octets(char *to, struct slice octets)
{
    if (octets.len > 0)
        memcpy(to, octets.ptr, octets.len);
    return to + octets.len;
}

static inline char *put_field_head(char *to, enum tag tag, size_t len)
{
    uint32_t big_endian = htobe32((uint32_t)len);
    to[0] = (char)tag;
    memcpy(to + 1, &big_endian, sizeof big_endian);
    return to + FIELD_HEAD;
}

static bool has_dsn(const struct rcpt *rcpt)
{
    return rcpt->notify != 0 || rcpt->orcpt.len > 0;
}

static size_t rcpt_size(const struct rcpt *rcpt)
{
    size_t size = FIELD_HEAD + RCPT_HEAD + rcpt->address.len;
    return has_dsn(rcpt) ? size + FIELD_HEAD + RCPT_DSN_HEAD + rcpt->orcpt.len : size;
}

static char *put_rcpt(char *to, const struct rcpt *rcpt)
{
    to = put_field_head(to, TAG_RCPT, RCPT_HEAD + rcpt->address.len);
    to = put_octets(put_number(to, rcpt->domain.len, RCPT_HEAD), rcpt->address);
    if (!has_dsn(rcpt))
        return to;
    to = put_field_head(to, TAG_RCPT_DSN, RCPT_DSN_HEAD + rcpt->orcpt.len);
    return put_octets(put_number(to, rcpt->notify, RCPT_DSN_HEAD), rcpt->orcpt);
}

static inline bool is_left_out(const struct message *m, enum tag tag)
{
    if (!layouts[tag].is_optional)
        return false;
    return layouts[tag].kind == KIND_TEXT ? text_of_field(m, tag).len == 0
                                          : number_of_field(m, tag) == 0;
}

/* One that is not a recipient's. */
static inline size_t field_size(const struct message *m, enum tag tag)
{
    if (is_left_out(m, tag))
        return 0;
    return FIELD_HEAD +
           (layouts[tag].kind == KIND_TEXT ? text_of_field(m, tag).len : layouts[tag].octets);
}

static inline char *put_field(char *to, const struct message *m, enum tag tag)
{
    if (is_left_out(m, tag))
        return to;
    if (layouts[tag].kind == KIND_TEXT) {
        struct slice text = text_of_field(m, tag);
        return put_octets(put_field_head(to, tag, text.len), text);
    }
    to = put_field_head(to, tag, layouts[tag].octets);
    return put_number(to, number_of_field(m, tag), layouts[tag].octets);
}

static bool is_of_rcpts(enum tag tag)
{
    return layouts[tag].kind == KIND_RCPT || layouts[tag].kind == KIND_RCPT_DSN;
}

/* Most mail asks for nothing: then none of the optional fields, which come last, is looked at. */
static enum tag tag_end(const struct message *m)
{
    bool asks = m->user.len > 0 || m->envid.len > 0 || m->ret || m->priority || m->hold_until_ms ||
                m->deliver_by_ms || m->signature.len > 0;
    return asks ? TAG_COUNT : TAG_RCPT_DSN;
}

static size_t fields_size(const struct message *m)
{
    size_t size = 0;
    for (enum tag tag = 1, end = tag_end(m); tag < end; tag++)
        if (!is_of_rcpts(tag))
            size += field_size(m, tag);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        size += rcpt_size(&m->rcpts[i]);
    return size;
}

static char *put_fields(char *to, const struct message *m)
{
    for (enum tag tag = 1, end = tag_end(m); tag < end; tag++)
        if (!is_of_rcpts(tag))
            to = put_field(to, m, tag);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        to = put_rcpt(to, &m->rcpts[i]);
    return to;
}

static char *put_packed(char *to)
{
    return put_number(put_field_head(to, TAG_PACKED, 1), PACKED_LZ4, 1);
}

enum status message_encode_envelope(const struct message *m, bool is_packed, struct buf *out)
{
    size_t fields = fields_size(m) + (is_packed ? FIELD_HEAD + 1 : 0);
    if (fields > MESSAGE_ENVELOPE_MAX - HEAD_LEN)
        return STATUS_FULL;
    char *start = buf_reserve(out, (uint32_t)(HEAD_LEN + fields));
    if (start == NULL)
        return STATUS_FULL;
    char *end = put_octets(start, SLICE(MAGIC));
    end = put_fields(put_number(end, fields, 4), m);
    if (is_packed)
        end = put_packed(end);
    must((size_t)(end - start) == HEAD_LEN + fields);
    out->len += (uint32_t)(HEAD_LEN + fields);
    return STATUS_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

static uint64_t number_of(struct slice octets)
{
    uint64_t number = 0;
    for (size_t i = 0; i < octets.len; i++)
        number = number << 8 | (unsigned char)octets.ptr[i];
    return number;
}

/* Cuts `len` octets from the front; false when there are fewer. */
static bool cut(struct slice *from, size_t len, struct slice *out)
{
    if (from->len < len)
        return false;
    *out = slice_head(*from, len);
    *from = slice_skip(*from, len);
    return true;
}

/* False: the octets cannot be a recipient. */
static bool read_rcpt(struct message *m, struct slice octets)
{
    struct slice head;
    if (!cut(&octets, RCPT_HEAD, &head))
        return false;
    size_t domain_len = (size_t)number_of(head);
    if (octets.len == 0 || octets.len > UINT16_MAX || domain_len >= octets.len)
        return false;
    if (domain_len > 0 && octets.ptr[octets.len - domain_len - 1] != '@')
        return false;
    push_rcpt(m, octets, domain_len);
    return true;
}

static bool read_rcpt_dsn(struct message *m, struct slice octets)
{
    struct slice head;
    if (m->rcpt_count == 0 || !cut(&octets, RCPT_DSN_HEAD, &head))
        return false;
    struct rcpt *rcpt = &m->rcpts[m->rcpt_count - 1];
    if (has_dsn(rcpt) || !notify_is_valid(number_of(head)))
        return false;
    rcpt->notify = (uint32_t)number_of(head);
    rcpt->orcpt = octets;
    return has_dsn(rcpt);
}

static bool read_value(struct message *m, enum tag tag, struct slice octets)
{
    switch (layouts[tag].kind) {
    case KIND_RCPT: return read_rcpt(m, octets);
    case KIND_RCPT_DSN: return read_rcpt_dsn(m, octets);
    case KIND_TEXT: *text_at(m, tag) = octets; return true;
    case KIND_NUMBER: break;
    }
    return octets.len == layouts[tag].octets && set_number(m, tag, number_of(octets));
}

/* `seen` has a bit per tag. */
static bool read_field(struct message *m, unsigned tag, struct slice octets, uint32_t *seen)
{
    if (tag >= SKIPPABLE_MIN)
        return true;
    if (tag == 0 || tag >= TAG_COUNT)
        return false;
    if (!is_of_rcpts(tag) && (*seen & 1u << tag) != 0)
        return false;
    *seen |= 1u << tag;
    return read_value(m, tag, octets);
}

static bool has_all_needed(uint32_t seen)
{
    for (enum tag tag = 1; tag < TAG_COUNT; tag++)
        if (!layouts[tag].is_optional && !(seen & 1u << tag))
            return false;
    return true;
}

/* All fields, each known one once. */
static bool read_fields(struct message *m, struct slice fields, bool *is_packed)
{
    uint32_t seen = 0;
    struct slice head, octets;
    while (fields.len > 0) {
        if (!cut(&fields, FIELD_HEAD, &head))
            return false;
        unsigned tag = (unsigned char)head.ptr[0];
        if (!cut(&fields, (size_t)number_of(slice_skip(head, 1)), &octets))
            return false;
        if (!read_field(m, tag, octets, &seen))
            return false;
    }
    *is_packed = seen & 1u << TAG_PACKED;
    return has_all_needed(seen);
}

/* The content as it was; what the record says of its size is believed only as far as that many
 * octets can have become so few. */
static bool unpack(struct message *m)
{
    if (m->chunk_count > 0 || m->size == 0 || m->body.len > INT32_MAX ||
        m->size > m->body.len * LZ4_RATIO_MAX || m->size > INT32_MAX)
        return false;
    m->unpacked = mem_alloc((size_t)m->size);
    int len = LZ4_decompress_safe(m->body.ptr, m->unpacked, (int)m->body.len, (int)m->size);
    m->body = slice_of(m->unpacked, (size_t)m->size);
    return len >= 0 && (uint64_t)len == m->size;
}

/* The content that is here must be all of it, or, with chunks, the end of it. */
static bool size_fits(const struct message *m)
{
    return m->chunk_count > 0 ? m->body.len <= m->size : m->body.len == m->size;
}

static bool read_record(struct message *m, struct slice record)
{
    struct slice magic, length, fields;
    bool is_packed;
    if (!cut(&record, 2, &magic) || !slice_eq(magic, SLICE(MAGIC)))
        return false;
    if (!cut(&record, 4, &length) || number_of(length) > MESSAGE_ENVELOPE_MAX - HEAD_LEN)
        return false;
    if (!cut(&record, (size_t)number_of(length), &fields) || !read_fields(m, fields, &is_packed))
        return false;
    m->body = record;
    return is_packed ? unpack(m) : size_fits(m);
}

enum status message_decode(char *blob, size_t len, struct chain_budget *budget,
                           struct message **out)
{
    struct message *m = message_new(budget);
    if (!read_record(m, slice_of(blob, len))) {
        message_unref(m);
        return STATUS_BAD;
    }
    m->blob = blob;
    m->blob_len = len + (m->unpacked ? m->body.len : 0);
    if (budget)
        budget->used += m->blob_len;
    *out = m;
    return STATUS_OK;
}
