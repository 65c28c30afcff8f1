/* SPDX-License-Identifier: Apache-2.0 */
/* Shows that an envelope comes back from its stored form as it was, and that a record which is
 * short, long, mixed up or of a newer version is refused without a leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/message.h"

#define CONTENT "Subject: x\r\n\r\nhello\r\n"

static struct chain_budget budget = { .max = 1 << 20 };

static struct message *make_message(void)
{
    struct message *m = message_new(&budget);
    m->flags = MESSAGE_8BIT | MESSAGE_BOUNCE;
    m->lane = 'b';
    m->sender = arena_copy(&m->arena, SLICE("\"a b\"@sender.example"));
    message_add_rcpt(m, SLICE("one@a.example"), SLICE("a.example"));
    message_set_rcpt_dsn(m, DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY, SLICE("rfc822;one+40a.example"));
    message_add_rcpt(m, SLICE("postmaster"), SLICE_NONE);
    message_set_rcpt_dsn(m, 0, SLICE("rfc822;postmaster"));
    message_add_rcpt(m, SLICE("\"x@y\"@b"), SLICE("b"));
    m->helo = arena_copy(&m->arena, SLICE("client.example"));
    m->client = arena_copy(&m->arena, SLICE("IPv6:2001:db8::1"));
    m->accepted_ms = 1795392000123;
    m->size = sizeof(CONTENT) - 1;
    return m;
}

/* The envelope and CONTENT in one block, as Redis would give it back. */
static char *make_record(const struct message *m, size_t *len)
{
    struct buf out;
    buf_init(&out, MESSAGE_ENVELOPE_MAX);
    assert_int_equal(message_encode_envelope(m, false, &out), STATUS_OK);
    char *record = malloc(out.len + sizeof(CONTENT) - 1);
    memcpy(record, out.ptr, out.len);
    memcpy(record + out.len, CONTENT, sizeof(CONTENT) - 1);
    *len = out.len + sizeof(CONTENT) - 1;
    buf_done(&out);
    return record;
}

static void assert_same_envelope(const struct message *a, const struct message *b)
{
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->lane, b->lane);
    assert_true(slice_eq(a->sender, b->sender));
    assert_int_equal(a->rcpt_count, b->rcpt_count);
    for (uint32_t i = 0; i < a->rcpt_count; i++) {
        assert_true(slice_eq(a->rcpts[i].address, b->rcpts[i].address));
        assert_true(slice_eq(a->rcpts[i].domain, b->rcpts[i].domain));
        assert_int_equal(a->rcpts[i].notify, b->rcpts[i].notify);
        assert_true(slice_eq(a->rcpts[i].orcpt, b->rcpts[i].orcpt));
    }
    assert_true(slice_eq(a->helo, b->helo));
    assert_true(slice_eq(a->client, b->client));
    assert_true(slice_eq(a->tenant, b->tenant));
    assert_true(slice_eq(a->user, b->user));
    assert_true(slice_eq(a->envid, b->envid));
    assert_true(slice_eq(a->signature, b->signature));
    assert_int_equal(a->ret, b->ret);
    assert_int_equal(a->priority, b->priority);
    assert_true(a->hold_until_ms == b->hold_until_ms);
    assert_true(a->deliver_by_ms == b->deliver_by_ms);
    assert_true(a->accepted_ms == b->accepted_ms);
    assert_int_equal(a->chunk_count, b->chunk_count);
    assert_true(a->size == b->size);
}

static void an_envelope_survives_the_store(void **state)
{
    struct message *m = make_message(), *back = NULL;
    size_t len;
    char *record = make_record(m, &len);
    assert_int_equal(message_decode(record, len, &budget, &back), STATUS_OK);
    assert_same_envelope(m, back);
    assert_ptr_equal(back->blob, record);
    assert_true(slice_eq(back->body, SLICE(CONTENT)));
    assert_int_equal(back->content.len, 0);
    assert_int_equal(back->refs, 1);
    message_unref(m);
    message_unref(back);
}

static void odd_values_survive_too(void **state)
{
    struct message *m = make_message(), *back = NULL;
    size_t len;
    m->sender = SLICE_NONE; /* <> (P-190) */
    m->helo = SLICE_NONE;
    m->tenant = SLICE("t");
    m->accepted_ms = -1;
    m->chunk_count = UINT32_MAX;
    m->size = UINT64_MAX;
    for (int i = 0; i < 1000; i++)
        message_add_rcpt(m, SLICE("more@a.example"), SLICE("a.example"));
    char *record = make_record(m, &len);
    assert_int_equal(message_decode(record, len, &budget, &back), STATUS_OK);
    assert_same_envelope(m, back);
    message_unref(m);
    message_unref(back);
}

/* P-64, P-65, P-66, P-67, P-68, P-72: what an extension asked for is kept with the message. */
static void every_wish_survives(void **state)
{
    struct message *m = make_message(), *back = NULL;
    size_t len;
    m->flags = MESSAGE_UTF8 | MESSAGE_BINARY | MESSAGE_REQUIRE_TLS | MESSAGE_TLS_OPTIONAL |
               MESSAGE_BY_RETURN | MESSAGE_BY_TRACE;
    message_set_rcpt_dsn(m, DSN_NOTIFY_NEVER, SLICE_NONE);
    m->user = SLICE("j\xc3\xb6rg");
    m->envid = SLICE("QQ314159+2B");
    m->ret = DSN_RET_HDRS;
    m->priority = -9;
    m->hold_until_ms = INT64_MAX;
    m->deliver_by_ms = -1;
    m->signature = SLICE("DKIM-Signature: v=1;\r\n\tb=\r\n");
    char *record = make_record(m, &len);
    assert_int_equal(message_decode(record, len, &budget, &back), STATUS_OK);
    assert_same_envelope(m, back);
    assert_int_equal(back->priority, -9);
    assert_int_equal(back->rcpts[0].notify, DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY);
    assert_int_equal(back->rcpts[2].notify, DSN_NOTIFY_NEVER);
    message_unref(m);
    message_unref(back);
}

/* A message without wishes is stored as it always was. */
static void no_wish_takes_no_room(void **state)
{
    struct message *m = message_new(&budget), *back = NULL;
    struct buf out;
    size_t len;
    message_add_rcpt(m, SLICE("c@d"), SLICE("d"));
    message_set_rcpt_dsn(m, 0, SLICE_NONE);
    m->size = sizeof(CONTENT) - 1;
    buf_init(&out, MESSAGE_ENVELOPE_MAX);
    assert_int_equal(message_encode_envelope(m, false, &out), STATUS_OK);
    assert_int_equal(out.len, 6 + 10 * 5 + 4 + 1 + 2 + 3 + 8 + 4 + 8);
    buf_done(&out);
    char *record = make_record(m, &len);
    assert_int_equal(message_decode(record, len, &budget, &back), STATUS_OK);
    assert_same_envelope(m, back);
    message_unref(m);
    message_unref(back);
}

static void recipients_are_copied(void **state)
{
    struct message *m = message_new(&budget);
    char address[] = "who@where.example";
    struct slice whole = slice_str(address);
    for (int i = 0; i < 50; i++) {
        address[0] = (char)('0' + i);
        message_add_rcpt(m, whole, slice_skip(whole, 4));
    }
    memset(address, '!', sizeof(address) - 1);
    assert_int_equal(m->rcpt_count, 50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(m->rcpts[i].address.ptr[0], '0' + i);
        assert_true(slice_eq(m->rcpts[i].domain, SLICE("where.example")));
        assert_ptr_equal(m->rcpts[i].domain.ptr, m->rcpts[i].address.ptr + 4);
    }
    message_unref(m);
}

static void the_last_reference_frees(void **state)
{
    size_t before = budget.used;
    struct message *m = make_message();
    chain_append(&m->content, SLICE(CONTENT));
    assert_true(budget.used > before);
    assert_ptr_equal(message_ref(m), m);
    message_unref(m);
    assert_int_equal(m->refs, 1);
    message_unref(m);
    assert_int_equal(budget.used, before);
    message_unref(NULL);
}

static void an_envelope_has_its_maximum(void **state)
{
    static char address[UINT16_MAX];
    struct buf out;
    struct message *m = make_message();
    buf_init(&out, MESSAGE_ENVELOPE_MAX * 2);
    assert_int_equal(buf_append(&out, SLICE("before")), STATUS_OK);
    memset(address, 'a', sizeof(address));
    for (int i = 0; i < 15; i++)
        message_add_rcpt(m, slice_of(address, sizeof(address)), SLICE_NONE);
    assert_int_equal(message_encode_envelope(m, false, &out), STATUS_OK);
    buf_clear(&out);
    message_add_rcpt(m, slice_of(address, sizeof(address)), SLICE_NONE);
    assert_int_equal(message_encode_envelope(m, false, &out), STATUS_FULL);
    assert_int_equal(out.len, 0);
    buf_done(&out);
    message_unref(m);
    m = make_message();
    buf_init(&out, 100); /* too small for this one */
    assert_int_equal(message_encode_envelope(m, false, &out), STATUS_FULL);
    assert_int_equal(out.len, 0);
    buf_done(&out);
    message_unref(m);
}

/* Decodes a copy of exactly its length; owns nothing afterwards. */
static enum status try(const char *record, size_t len)
{
    struct message *back = NULL;
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, record, len);
    enum status st = message_decode(copy, len, &budget, &back);
    if (st == STATUS_OK) {
        message_unref(back);
    } else {
        assert_null(back);
        free(copy); /* still ours */
    }
    return st;
}

static void every_cut_is_bad(void **state)
{
    struct message *m = make_message();
    size_t len;
    char *record = make_record(m, &len);
    assert_int_equal(try(record, len), STATUS_OK);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(try(record, n), STATUS_BAD);
    free(record);
    message_unref(m);
}

/* Any value of any octet: no crash, and what is taken can be given again. */
static void every_changed_octet_is_bad_or_whole(void **state)
{
    struct message *m = make_message();
    size_t len;
    char *record = make_record(m, &len);
    for (size_t i = 0; i < len; i++) {
        char was = record[i];
        for (int value = 0; value < 256; value++) {
            record[i] = (char)value;
            enum status st = try(record, len);
            if (i < 6 && record[i] != was)
                assert_int_equal(st, STATUS_BAD); /* magic and length hold it together */
        }
        record[i] = was;
    }
    free(record);
    message_unref(m);
}

#define FLAGS    "\1\0\0\0\4\0\0\0\1"
#define LANE     "\2\0\0\0\1n"
#define SENDER   "\3\0\0\0\3a@b"
#define RCPT     "\4\0\0\0\5\0\1c@d"
#define HELO     "\5\0\0\0\1h"
#define CLIENT   "\6\0\0\0\1c"
#define TENANT   "\7\0\0\0\0"
#define ACCEPTED "\10\0\0\0\10\0\0\0\0\0\0\0\1"
#define CHUNKS   "\11\0\0\0\4\0\0\0\0"
#define SIZE     "\12\0\0\0\10\0\0\0\0\0\0\0\2"
#define RCPT_DSN "\13\0\0\0\4\4r;x"
#define USER     "\14\0\0\0\1u"
#define ENVID    "\15\0\0\0\1e"
#define RET      "\16\0\0\0\1\1"
#define PRIORITY "\17\0\0\0\1\3"
#define HOLD     "\20\0\0\0\10\0\0\0\0\0\0\0\1"
#define BY       "\21\0\0\0\10\0\0\0\0\0\0\0\1"
#define A64      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define REST     HELO CLIENT TENANT ACCEPTED CHUNKS SIZE
#define ALL      FLAGS LANE SENDER RCPT REST

static const struct {
    struct slice fields, content;
    enum status st;
} rows[] = {
    { SLICE(ALL), SLICE("xy"), STATUS_OK },
    { SLICE(REST RCPT SENDER LANE FLAGS), SLICE("xy"), STATUS_OK }, /* any order */
    { SLICE(ALL RCPT RCPT), SLICE("xy"), STATUS_OK },
    /* a newer version's fields: what may be skipped is */
    { SLICE("\x80\0\0\0\3new" ALL "\xff\0\0\0\0"), SLICE("xy"), STATUS_OK },
    { SLICE("\x80\0\0\0\3new" ALL "\x80\0\0\0\3new"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\x7f\0\0\0\0"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\23\0\0\0\0"), SLICE("xy"), STATUS_BAD }, /* the next one */
    { SLICE(ALL "\0\0\0\0\0"), SLICE("xy"), STATUS_BAD },
    /* the content's length */
    { SLICE(ALL), SLICE("x"), STATUS_BAD },
    { SLICE(ALL), SLICE("xyz"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER RCPT HELO CLIENT TENANT ACCEPTED "\11\0\0\0\4\0\0\0\1" SIZE),
      SLICE("x"), STATUS_OK },
    { SLICE(FLAGS LANE SENDER RCPT HELO CLIENT TENANT ACCEPTED "\11\0\0\0\4\0\0\0\1" SIZE),
      SLICE("xyz"), STATUS_BAD },
    /* twice, or not at all */
    { SLICE(ALL FLAGS), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL SENDER), SLICE("xy"), STATUS_BAD },
    { SLICE(LANE SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER REST), SLICE("xy"), STATUS_BAD },
    { SLICE(""), SLICE(""), STATUS_BAD },
    /* values */
    { SLICE("\1\0\0\0\4\0\0\1\377" LANE SENDER RCPT REST), SLICE("xy"), STATUS_OK },
    { SLICE("\1\0\0\0\4\0\0\2\0" LANE SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE("\1\0\0\0\3\0\0\1" LANE SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS "\2\0\0\0\1x" SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS "\2\0\0\0\0" SENDER RCPT REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\2\0\0" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\1\0" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\0" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\5\0\3c@d" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\5\0\2c@d" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\5\377\377c@d" REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\x42\0@" A64 REST), SLICE("xy"), STATUS_BAD },
    { SLICE(FLAGS LANE SENDER "\4\0\0\0\5\0\0c@d" REST), SLICE("xy"), STATUS_OK },
    /* a recipient's wishes: behind it, once, and some (P-63) */
    { SLICE(ALL RCPT_DSN), SLICE("xy"), STATUS_OK },
    { SLICE(ALL RCPT_DSN RCPT RCPT_DSN), SLICE("xy"), STATUS_OK },
    { SLICE(RCPT_DSN ALL), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL RCPT_DSN RCPT_DSN), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\13\0\0\0\1\1"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\13\0\0\0\1\16"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\13\0\0\0\2\0r"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\13\0\0\0\0"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\13\0\0\0\1\0"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\13\0\0\0\1\3"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\13\0\0\0\1\20"), SLICE("xy"), STATUS_BAD },
    /* the other optional ones: any order, once, in range */
    { SLICE(USER ENVID RET PRIORITY HOLD BY ALL), SLICE("xy"), STATUS_OK },
    { SLICE(BY HOLD PRIORITY RET ENVID USER ALL), SLICE("xy"), STATUS_OK },
    { SLICE(ALL USER USER), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL BY BY), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\22\0\0\0\3a:\n"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\22\0\0\0\1a\22\0\0\0\1a"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\16\0\0\0\1\0"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\16\0\0\0\1\3"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\16\0\0\0\0"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\17\0\0\0\1\367"), SLICE("xy"), STATUS_OK },
    { SLICE(ALL "\17\0\0\0\1\366"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\17\0\0\0\1\12"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\20\0\0\0\7\0\0\0\0\0\0\1"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\21\0\0\0\4\0\0\0\1"), SLICE("xy"), STATUS_BAD },
    /* lengths beyond the end */
    { SLICE(ALL "\x80\0\0\0\1"), SLICE(""), STATUS_BAD },
    { SLICE(ALL "\x80\377\377\377\377"), SLICE("xy"), STATUS_BAD },
    { SLICE(ALL "\x80\0\0\0"), SLICE("xy"), STATUS_BAD },
};

static void reads_fields_as_a_stranger_would(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char record[512] = "K1";
        size_t fields = rows[i].fields.len;
        record[4] = (char)(fields >> 8);
        record[5] = (char)fields;
        memcpy(record + 6, rows[i].fields.ptr, fields);
        memcpy(record + 6 + fields, rows[i].content.ptr, rows[i].content.len);
        if (try(record, 6 + fields + rows[i].content.len) != rows[i].st)
            fail_msg("row %zu", i);
    }
    assert_int_equal(try("K2\0\0\0\0", 6), STATUS_BAD);
    assert_int_equal(try("K1\377\377\377\377", 6), STATUS_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_envelope_survives_the_store),
        cmocka_unit_test(odd_values_survive_too),
        cmocka_unit_test(every_wish_survives),
        cmocka_unit_test(no_wish_takes_no_room),
        cmocka_unit_test(recipients_are_copied),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(an_envelope_has_its_maximum),
        cmocka_unit_test(every_cut_is_bad),
        cmocka_unit_test(every_changed_octet_is_bad_or_whole),
        cmocka_unit_test(reads_fields_as_a_stranger_would),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
