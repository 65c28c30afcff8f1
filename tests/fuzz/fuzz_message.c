/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a stored record. What is taken lies in the record, and its envelope written anew
 * reads back to the same message and the same octets.
 */
#include "core/smtp/message.h"
#include "tests/fuzz/fuzz.h"

static struct chain_budget budget = { .max = 1 << 20 };

static void check_message(const struct message *m, struct slice record)
{
    must(m->refs == 1 && m->blob == record.ptr && m->rcpt_count > 0);
    must(slice_lies_in(m->sender, record) && slice_lies_in(m->helo, record));
    must(slice_lies_in(m->client, record) && slice_lies_in(m->tenant, record));
    must(slice_lies_in(m->user, record) && slice_lies_in(m->envid, record));
    must(m->ret <= DSN_RET_HDRS && m->priority >= -9 && m->priority <= 9);
    must(m->body.len <= m->size && (m->unpacked || m->body.len <= record.len));
    must(m->body.len == 0 || m->unpacked || m->body.ptr + m->body.len == record.ptr + record.len);
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        struct slice address = m->rcpts[i].address, domain = m->rcpts[i].domain;
        must(address.len > 0 && slice_lies_in(address, record));
        must(slice_lies_in(domain, address) && domain.len < address.len);
        must(slice_lies_in(m->rcpts[i].orcpt, record));
    }
}

static void check_same(const struct message *a, const struct message *b)
{
    must(a->flags == b->flags && a->lane == b->lane && a->rcpt_count == b->rcpt_count);
    must(slice_eq(a->sender, b->sender) && slice_eq(a->helo, b->helo));
    must(slice_eq(a->client, b->client) && slice_eq(a->tenant, b->tenant));
    must(a->accepted_ms == b->accepted_ms && a->chunk_count == b->chunk_count);
    must(slice_eq(a->user, b->user) && slice_eq(a->envid, b->envid) && a->ret == b->ret);
    must(a->priority == b->priority && a->hold_until_ms == b->hold_until_ms);
    must(a->deliver_by_ms == b->deliver_by_ms);
    must(a->size == b->size && slice_eq(a->body, b->body));
    for (uint32_t i = 0; i < a->rcpt_count; i++) {
        must(slice_eq(a->rcpts[i].address, b->rcpts[i].address));
        must(slice_eq(a->rcpts[i].domain, b->rcpts[i].domain));
        must(slice_eq(a->rcpts[i].orcpt, b->rcpts[i].orcpt));
        must(a->rcpts[i].notify == b->rcpts[i].notify);
    }
}

/* The envelope of m, and its body, in one block as Redis would give it back. */
static char *write_record(const struct message *m, size_t *len)
{
    struct buf out;
    buf_init(&out, MESSAGE_ENVELOPE_MAX);
    must(message_encode_envelope(m, false, &out) == STATUS_OK);
    char *record = mem_alloc(out.len + m->body.len);
    memcpy(record, out.ptr, out.len);
    if (m->body.len > 0)
        memcpy(record + out.len, m->body.ptr, m->body.len);
    *len = out.len + m->body.len;
    buf_done(&out);
    return record;
}

/* Into one that is being made, as a session does it. */
static void check_copy(const struct message *m)
{
    struct message *copy = message_new(&budget), *back = NULL;
    size_t len;
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        message_add_rcpt(copy, m->rcpts[i].address, m->rcpts[i].domain);
        message_set_rcpt_dsn(copy, m->rcpts[i].notify, m->rcpts[i].orcpt);
    }
    must(message_ref(copy) == copy);
    message_unref(copy);
    char *record = write_record(copy, &len);
    must(message_decode(record, len, &budget, &back) == STATUS_OK);
    must(back->rcpt_count == m->rcpt_count && back->user.len == 0 && back->priority == 0);
    message_unref(back);
    message_unref(copy);
}

static void check_round_trip(const struct message *m)
{
    struct message *again = NULL;
    size_t len, len_again;
    char *record = write_record(m, &len);
    must(message_decode(record, len, &budget, &again) == STATUS_OK);
    check_same(m, again);
    char *record_again = write_record(again, &len_again);
    must(slice_eq(slice_of(record, len), slice_of(record_again, len_again)));
    free(record_again);
    message_unref(again); /* and `record` with it */
    message_unref(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message *m = NULL;
    char *copy = exact_copy(slice_of((const char *)data, size));
    if (message_decode(copy, size, &budget, &m) != STATUS_OK) {
        free(copy);
        return 0;
    }
    check_message(m, slice_of(copy, size));
    check_round_trip(m);
    check_copy(m);
    message_unref(m);
    return 0;
}
