/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents that are stored compressed: what is written is read back, whatever lies in how many
 * segments; what is not worth it stays as it is; a record that lies is BAD.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "queue/pack.h"

static struct chain_budget budget = { .max = 1 << 30 };

static struct message *make_message(void)
{
    struct message *m = message_new(&budget);
    m->sender = SLICE("a@b.example");
    message_add_rcpt(m, SLICE("c@d.example"), SLICE("d.example"));
    return m;
}

static void add(struct message *m, struct slice octets)
{
    chain_append(&m->content, octets);
    m->size += octets.len;
}

static char *record_of(const struct message *m, const struct pack *p, size_t *len)
{
    struct buf out;
    buf_init(&out, MESSAGE_ENVELOPE_MAX);
    assert_int_equal(message_encode_envelope(m, true, &out), STATUS_OK);
    char *record = mem_alloc(out.len + p->len);
    memcpy(record, out.ptr, out.len);
    memcpy(record + out.len, p->octets, p->len);
    *len = out.len + p->len;
    buf_done(&out);
    return record;
}

static bool holds(const struct message *m, struct slice body)
{
    size_t at = 0;
    for (const struct chain_seg *seg = m->content.head; seg; seg = seg->next) {
        if (memcmp(seg->data, body.ptr + at, seg->len) != 0)
            return false;
        at += seg->len;
    }
    return at == body.len;
}

static void what_is_packed_is_read(void **state)
{
    struct buf scratch;
    buf_init(&scratch, 2 * PACK_MAX);
    for (size_t lines = 20; lines < 3000; lines = lines * 3 / 2) {
        struct message *m = make_message(), *back;
        size_t len;
        for (size_t i = 0; i < lines; i++)
            add(m, i % 3 ? SLICE("Dear customer, your order is on its way to you.\r\n")
                         : SLICE("<td style=\"padding:0\">1,234.56</td>\r\n"));
        struct pack *p = pack_new(m, &scratch);
        if (m->content.len < PACK_MIN || m->content.len > PACK_MAX) {
            assert_null(p);
            message_unref(m);
            continue;
        }
        assert_non_null(p);
        assert_true(p->len < m->size / 2);
        char *record = record_of(m, p, &len);
        assert_int_equal(message_decode(record, len, &budget, &back), STATUS_OK);
        assert_true(back->size == m->size && holds(m, back->body));
        assert_int_equal(back->blob_len, len + m->size);

        struct pack *again = pack_new(back, &scratch); /* from a record, as when it is split */
        assert_non_null(again);
        assert_int_equal(again->len, p->len);
        pack_unref(pack_ref(again));
        pack_unref(again);
        pack_unref(p);
        message_unref(m);
        message_unref(back);
    }
    buf_done(&scratch);
    assert_int_equal(budget.used, 0);
}

static void what_does_not_shrink_stays(void **state)
{
    struct buf scratch;
    struct message *m = make_message();
    uint32_t x = 1;
    char noise[8192];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)((x = x * 1664525 + 1013904223) >> 24);
    buf_init(&scratch, 2 * PACK_MAX);
    add(m, slice_of(noise, sizeof noise));
    assert_null(pack_new(m, &scratch));
    m->chunk_count = 1;
    assert_null(pack_new(m, &scratch));
    message_unref(m);
    buf_done(&scratch);
    pack_unref(NULL);
}

/* Every octet changed, every length: BAD, or a message of the size that it says. */
static void a_record_that_lies(void **state)
{
    struct buf scratch;
    struct message *m = make_message();
    size_t len;
    buf_init(&scratch, 2 * PACK_MAX);
    for (int i = 0; i < 100; i++)
        add(m, SLICE("0123456789 0123456789\r\n"));
    struct pack *p = pack_new(m, &scratch);
    char *record = record_of(m, p, &len);
    for (size_t i = 0; i < len; i++) {
        for (int change = 1; change < 256; change *= 2) {
            struct message *back;
            char *copy = mem_alloc(len);
            memcpy(copy, record, len);
            copy[i] = (char)(copy[i] ^ change);
            if (message_decode(copy, len, &budget, &back) == STATUS_OK) {
                assert_true(back->body.len == back->size);
                message_unref(back);
            } else {
                free(copy);
            }
        }
        struct message *back;
        char *copy = mem_alloc(i + 1);
        memcpy(copy, record, i);
        assert_int_equal(message_decode(copy, i, &budget, &back), STATUS_BAD);
        free(copy);
    }
    free(record);
    pack_unref(p);
    message_unref(m);
    buf_done(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_is_read),
        cmocka_unit_test(what_does_not_shrink_stays),
        cmocka_unit_test(a_record_that_lies),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
