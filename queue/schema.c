/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schema - items as text, keys, and which shard they are in.
 *
 * An item is read by this file, by lua/ (lane, dest, attempts, accepted, chunks) and by people at a
 * redis-cli, so it is text: nine or ten fields with tabs between them. Numbers are plain decimal,
 * recipients ranges of indices in ascending order. Reading is strict: whatever this file could not
 * have written is BAD, and its delivery becomes a dead letter instead of a guess.
 *
 * Limits: RCPTS_MAX recipients in one item, DEST_KEY_MAX octets of destination.
 * To add a field: at the end, so that older items stay readable, with the version in {cfg} raised.
 */
#include "queue/schema.h"
#include "core/base/must.h"
#include <stdio.h>

#define RCPTS_MAX 65536

static bool lane_is_valid(char lane)
{
    return lane == 'u' || lane == 'n' || lane == 'b';
}

/* True when s holds printable ASCII only; a space is allowed in a tenant's name. */
static bool is_plain(struct slice s, char lowest)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < lowest || s.ptr[i] > '~')
            return false;
    return true;
}

static bool dest_is_valid(struct slice dest)
{
    return dest.len > 0 && dest.len < DEST_KEY_MAX && is_plain(dest, '!');
}

/* --- writing --------------------------------------------------------------------------------- */

static enum status put_rcpts(const uint32_t *rcpts, uint32_t count, struct buf *out)
{
    for (uint32_t i = 0; i < count;) {
        uint32_t last = i;
        while (last + 1 < count && rcpts[last + 1] == rcpts[last] + 1)
            last++;
        const char *comma = i ? "," : "";
        enum status st = last > i ? buf_printf(out, "%s%u-%u", comma, rcpts[i], rcpts[last])
                                  : buf_printf(out, "%s%u", comma, rcpts[i]);
        if (st != STATUS_OK)
            return st;
        i = last + 1;
    }
    return STATUS_OK;
}

static enum status put_fields(const struct queue_item *item, struct buf *out)
{
    return buf_printf(out, "%c\t%.*s\t%u\t%lld\t%lld\t%.*s\t%u\t%llu\t", item->lane,
                      SLICE_ARG(item->dest), item->attempts, (long long)item->accepted_ms,
                      (long long)item->expires_ms, SLICE_ARG(item->tenant), item->chunks,
                      (unsigned long long)item->size);
}

enum status queue_item_encode(const struct queue_item *item, struct buf *out)
{
    must(item->rcpt_count > 0 && item->accepted_ms >= 0 && item->expires_ms >= 0);
    if (!lane_is_valid(item->lane) || !dest_is_valid(item->dest) || !is_plain(item->tenant, ' '))
        return STATUS_BAD;
    if (item->rcpt_count > RCPTS_MAX)
        return STATUS_FULL;
    uint32_t start = out->len;
    enum status st = put_fields(item, out);
    if (st == STATUS_OK)
        st = put_rcpts(item->rcpts, item->rcpt_count, out);
    if (st == STATUS_OK && item->told != 0)
        st = buf_printf(out, "\t%u", item->told);
    if (st != STATUS_OK)
        out->len = start; /* all or nothing */
    return st;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Cuts what stands before the next `stop`, or all of it, from *rest. */
static struct slice cut_until(struct slice *rest, char stop)
{
    size_t n = slice_find(*rest, stop);
    struct slice field = slice_head(*rest, n);
    *rest = slice_skip(*rest, n + 1);
    return field;
}

/* Digits only, no leading zero, at most max. */
static bool read_number(struct slice s, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (s.len == 0 || s.len > 20 || (s.len > 1 && s.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.ptr[i] - '0');
        if (n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return true;
}

/* "4" or "4-7"; from must be at least `next`. */
static bool read_range(struct slice text, uint64_t next, uint64_t *from, uint64_t *to)
{
    size_t dash = slice_find(text, '-');
    if (!read_number(slice_head(text, dash), UINT32_MAX, from) || *from < next)
        return false;
    *to = *from;
    if (dash == text.len)
        return true;
    return read_number(slice_skip(text, dash + 1), UINT32_MAX, to) && *to > *from;
}

/* Walks the ranges; with rcpts it writes them too. Returns how many there are, 0: BAD. */
static uint32_t walk_rcpts(struct slice text, uint32_t *rcpts)
{
    uint64_t next = 0, count = 0, from, to;
    if (text.len == 0 || text.ptr[text.len - 1] == ',')
        return 0;
    while (text.len > 0) {
        if (!read_range(cut_until(&text, ','), next, &from, &to) || to - from >= RCPTS_MAX - count)
            return 0;
        for (uint64_t r = from; r <= to; r++, count++)
            if (rcpts)
                rcpts[count] = (uint32_t)r;
        next = to + 1;
    }
    return (uint32_t)count;
}

static bool read_rcpts(struct slice text, struct arena *arena, struct queue_item *item)
{
    item->rcpt_count = walk_rcpts(text, NULL);
    if (item->rcpt_count == 0)
        return false;
    uint32_t *rcpts = arena_alloc(arena, item->rcpt_count * sizeof *rcpts);
    walk_rcpts(text, rcpts);
    item->rcpts = rcpts;
    return true;
}

static bool read_numbers(const struct slice *field, struct queue_item *item)
{
    uint64_t attempts, accepted, expires, chunks;
    if (!read_number(field[2], UINT32_MAX, &attempts) ||
        !read_number(field[3], INT64_MAX, &accepted) ||
        !read_number(field[4], INT64_MAX, &expires) ||
        !read_number(field[6], UINT32_MAX, &chunks) ||
        !read_number(field[7], UINT64_MAX, &item->size))
        return false;
    item->attempts = (uint32_t)attempts;
    item->accepted_ms = (int64_t)accepted;
    item->expires_ms = (int64_t)expires;
    item->chunks = (uint32_t)chunks;
    return true;
}

/* The tenth field, which is there only when there is something in it. */
static bool read_told(struct slice text, struct queue_item *item)
{
    uint64_t told;
    if (!read_number(text, UINT32_MAX, &told) || told == 0 || told > DELIVERY_TOLD_ALL)
        return false;
    item->told = (uint32_t)told;
    return true;
}

enum status queue_item_decode(struct slice text, struct arena *arena, struct queue_item *out)
{
    struct slice field[8], rest = text;
    struct queue_item item = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(field); i++)
        field[i] = cut_until(&rest, '\t');
    if (field[0].len != 1 || !lane_is_valid(field[0].ptr[0]) || !dest_is_valid(field[1]) ||
        !is_plain(field[5], ' ') || !read_numbers(field, &item))
        return STATUS_BAD;
    item.lane = field[0].ptr[0];
    item.dest = field[1];
    item.tenant = field[5];
    bool has_told = slice_find(rest, '\t') < rest.len;
    struct slice rcpts = cut_until(&rest, '\t');
    if (!read_rcpts(rcpts, arena, &item) || (has_told && !read_told(rest, &item)))
        return STATUS_BAD;
    *out = item;
    return STATUS_OK;
}

/* --- keys ------------------------------------------------------------------------------------ */

static struct slice key_of(char out[QUEUE_KEY_MAX], int len)
{
    must(len > 0 && len < QUEUE_KEY_MAX);
    return slice_of(out, (size_t)len);
}

struct slice queue_key_counters(char out[QUEUE_KEY_MAX], uint16_t shard)
{
    return key_of(out, snprintf(out, QUEUE_KEY_MAX, "{q%u}n", shard));
}

struct slice queue_key_events(char out[QUEUE_KEY_MAX], uint16_t shard)
{
    return key_of(out, snprintf(out, QUEUE_KEY_MAX, "{q%u}e", shard));
}

struct slice queue_key_record(char out[QUEUE_KEY_MAX], uint16_t shard, const char *queue_id)
{
    return key_of(out, snprintf(out, QUEUE_KEY_MAX, "{q%u}b:%s", shard, queue_id));
}

struct slice queue_key_chunk(char out[QUEUE_KEY_MAX], uint16_t shard, const char *queue_id,
                             uint32_t n)
{
    return key_of(out, snprintf(out, QUEUE_KEY_MAX, "{q%u}b:%s:%u", shard, queue_id, n));
}

struct slice queue_key_suppression(char out[QUEUE_KEY_MAX], uint16_t shard, struct slice tenant)
{
    return key_of(out, snprintf(out, QUEUE_KEY_MAX, "{q%u}s:%.*s", shard, SLICE_ARG(tenant)));
}

/* 128 bits are enough to tell a tenant's own messages apart, and half as much to keep. */
void queue_digest_hex(char out[QUEUE_DIGEST_HEX + 1], const uint8_t digest[32])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < QUEUE_DIGEST_HEX / 2; i++) {
        *out++ = digits[digest[i] >> 4];
        *out++ = digits[digest[i] & 15];
    }
    *out = 0;
}

/* --- shards ---------------------------------------------------------------------------------- */

/* Of the half that is not in the key's name. */
uint16_t queue_key_shard(const uint8_t key[32], uint16_t shards)
{
    uint32_t n = (uint32_t)key[28] << 24 | (uint32_t)key[29] << 16 | (uint32_t)key[30] << 8 |
                 (uint32_t)key[31];
    return (uint16_t)(n % shards);
}

/* FNV-1a; other programs that fill suppression lists compute it too. */
uint16_t queue_tenant_shard(struct slice tenant, uint16_t shards)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < tenant.len; i++)
        hash = (hash ^ (uint8_t)tenant.ptr[i]) * 16777619u;
    return (uint16_t)(hash % shards);
}
