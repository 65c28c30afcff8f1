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
 * must be as long as the record says. A tag from 128 on that is not known is skipped, so that a
 * newer version may add what an older one can do without; another unknown tag, or an unknown flag,
 * is BAD: better kept for a newer version than delivered wrong.
 *
 * Limits: MESSAGE_ENVELOPE_MAX octets of envelope.
 * To add a field: a tag, a line in put_fields, one in fields_size, a row in readers[], a seed for
 * the fuzzer.
 */
#include "core/smtp/message.h"
#include "core/base/must.h"

#include <stdlib.h>

#define MAGIC         "K1"
#define HEAD_LEN      (2 + 4) /* magic and the length of the fields */
#define FIELD_HEAD    (1 + 4) /* tag and length */
#define RCPT_HEAD     2       /* octets of the domain, before the address */
#define FLAGS_KNOWN   (MESSAGE_8BIT | MESSAGE_DOT_LINES | MESSAGE_BOUNCE)
#define RCPT_CAP_MIN  4
#define SKIPPABLE_MIN 128

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
    TAG_COUNT
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
    arena_done(&m->arena);
    free(m->blob);
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

void message_set_rcpt_dsn(struct message *m, uint32_t notify, struct slice orcpt)
{
    must(m->rcpt_count > 0);
    struct rcpt *rcpt = &m->rcpts[m->rcpt_count - 1];
    rcpt->notify = notify;
    rcpt->orcpt = arena_copy(&m->arena, orcpt);
}

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

static char *put_field_head(char *to, enum tag tag, size_t len)
{
    return put_number(put_number(to, tag, 1), len, 4);
}

static char *put_text(char *to, enum tag tag, struct slice text)
{
    return put_octets(put_field_head(to, tag, text.len), text);
}

static char *put_value(char *to, enum tag tag, uint64_t number, unsigned octets)
{
    return put_number(put_field_head(to, tag, octets), number, octets);
}

static char *put_rcpt(char *to, const struct rcpt *rcpt)
{
    to = put_field_head(to, TAG_RCPT, RCPT_HEAD + rcpt->address.len);
    return put_octets(put_number(to, rcpt->domain.len, RCPT_HEAD), rcpt->address);
}

static size_t fields_size(const struct message *m)
{
    size_t size = (TAG_COUNT - 2) * FIELD_HEAD; /* each field but the recipients, once */
    size += 4 + 1 + 8 + 4 + 8;                  /* flags, lane, accepted_ms, chunk_count, size */
    size += m->sender.len + m->helo.len + m->client.len + m->tenant.len;
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        size += FIELD_HEAD + RCPT_HEAD + m->rcpts[i].address.len;
    return size;
}

static char *put_fields(char *to, const struct message *m)
{
    to = put_value(to, TAG_FLAGS, m->flags, 4);
    to = put_text(to, TAG_LANE, slice_of(&m->lane, 1));
    to = put_text(to, TAG_SENDER, m->sender);
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        to = put_rcpt(to, &m->rcpts[i]);
    to = put_text(to, TAG_HELO, m->helo);
    to = put_text(to, TAG_CLIENT, m->client);
    to = put_text(to, TAG_TENANT, m->tenant);
    to = put_value(to, TAG_ACCEPTED_MS, (uint64_t)m->accepted_ms, 8);
    to = put_value(to, TAG_CHUNK_COUNT, m->chunk_count, 4);
    return put_value(to, TAG_SIZE, m->size, 8);
}

enum status message_encode_envelope(const struct message *m, struct buf *out)
{
    size_t fields = fields_size(m);
    if (fields > MESSAGE_ENVELOPE_MAX - HEAD_LEN)
        return STATUS_FULL;
    char *start = buf_reserve(out, (uint32_t)(HEAD_LEN + fields));
    if (start == NULL)
        return STATUS_FULL;
    char *end = put_octets(start, SLICE(MAGIC));
    end = put_fields(put_number(end, fields, 4), m);
    must((size_t)(end - start) == HEAD_LEN + fields);
    out->len += (uint32_t)(HEAD_LEN + fields);
    return STATUS_OK;
}

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

/* One field's octets into the message; false: they cannot be such a field. Number fields have
 * their length checked already. */
typedef bool field_reader(struct message *m, struct slice octets);

static bool read_flags(struct message *m, struct slice octets)
{
    m->flags = (uint32_t)number_of(octets);
    return (m->flags & ~(uint32_t)FLAGS_KNOWN) == 0;
}

static bool read_lane(struct message *m, struct slice octets)
{
    m->lane = octets.ptr[0];
    return m->lane == 'u' || m->lane == 'n' || m->lane == 'b';
}

static bool read_sender(struct message *m, struct slice octets)
{
    m->sender = octets;
    return true;
}

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

static bool read_helo(struct message *m, struct slice octets)
{
    m->helo = octets;
    return true;
}

static bool read_client(struct message *m, struct slice octets)
{
    m->client = octets;
    return true;
}

static bool read_tenant(struct message *m, struct slice octets)
{
    m->tenant = octets;
    return true;
}

static bool read_accepted_ms(struct message *m, struct slice octets)
{
    m->accepted_ms = (int64_t)number_of(octets);
    return true;
}

static bool read_chunk_count(struct message *m, struct slice octets)
{
    m->chunk_count = (uint32_t)number_of(octets);
    return true;
}

static bool read_size(struct message *m, struct slice octets)
{
    m->size = number_of(octets);
    return true;
}

static const struct {
    field_reader *read;
    unsigned len; /* exactly so many octets; 0: any number */
} readers[TAG_COUNT] = {
    [TAG_FLAGS] = { read_flags, 4 },
    [TAG_LANE] = { read_lane, 1 },
    [TAG_SENDER] = { read_sender, 0 },
    [TAG_RCPT] = { read_rcpt, 0 },
    [TAG_HELO] = { read_helo, 0 },
    [TAG_CLIENT] = { read_client, 0 },
    [TAG_TENANT] = { read_tenant, 0 },
    [TAG_ACCEPTED_MS] = { read_accepted_ms, 8 },
    [TAG_CHUNK_COUNT] = { read_chunk_count, 4 },
    [TAG_SIZE] = { read_size, 8 },
};

/* `seen` has a bit per tag. */
static bool read_field(struct message *m, unsigned tag, struct slice octets, uint32_t *seen)
{
    if (tag >= SKIPPABLE_MIN)
        return true;
    if (tag == 0 || tag >= TAG_COUNT)
        return false;
    if (tag != TAG_RCPT && (*seen & 1u << tag) != 0)
        return false;
    *seen |= 1u << tag;
    if (readers[tag].len > 0 && octets.len != readers[tag].len)
        return false;
    return readers[tag].read(m, octets);
}

/* All fields, each known one once. */
static bool read_fields(struct message *m, struct slice fields)
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
    return seen == (1u << TAG_COUNT) - 2; /* bit 0 is no tag */
}

/* The content that is here must be all of it, or, with chunks, the end of it. */
static bool size_fits(const struct message *m)
{
    return m->chunk_count > 0 ? m->body.len <= m->size : m->body.len == m->size;
}

static bool read_record(struct message *m, struct slice record)
{
    struct slice magic, length, fields;
    if (!cut(&record, 2, &magic) || !slice_eq(magic, SLICE(MAGIC)))
        return false;
    if (!cut(&record, 4, &length) || number_of(length) > MESSAGE_ENVELOPE_MAX - HEAD_LEN)
        return false;
    if (!cut(&record, (size_t)number_of(length), &fields) || !read_fields(m, fields))
        return false;
    m->body = record;
    return size_fits(m);
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
    m->blob_len = len;
    if (budget)
        budget->used += len;
    *out = m;
    return STATUS_OK;
}
