/* SPDX-License-Identifier: Apache-2.0 */
/* Shows what a delivery owns, and that open outcomes are decided once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/delivery.h"

static struct message *make_message(void)
{
    struct message *m = message_new(NULL);
    message_add_rcpt(m, SLICE("a@x.example"), SLICE("x.example"));
    message_add_rcpt(m, SLICE("b@y.example"), SLICE("y.example"));
    message_add_rcpt(m, SLICE("c@x.example"), SLICE("x.example"));
    return m;
}

static void it_copies_what_it_is_given(void **state)
{
    struct message *m = make_message();
    uint32_t rcpts[] = { 0, 2 };
    struct delivery *d = delivery_new(m, "01h/2", SLICE("x.example"), 7, rcpts, 2);
    assert_int_equal(m->refs, 2);
    message_unref(m);
    rcpts[1] = 1;
    assert_string_equal(d->id, "01h/2");
    assert_string_equal(d->dest, "x.example");
    assert_int_equal(d->shard, 7);
    assert_int_equal(d->rcpt_count, 2);
    assert_int_equal(d->rcpts[1], 2);
    assert_int_equal(d->attempts, 0);
    assert_false(d->was_requeued);
    assert_true(list_is_empty(&d->node));
    delivery_free(d); /* the last reference: ASan tells when it is not */
    delivery_free(NULL);
}

static void open_outcomes_are_failed_decided_ones_stay(void **state)
{
    struct message *m = make_message();
    uint32_t rcpts[] = { 0, 1, 2 };
    char words[] = "no route to host";
    struct delivery *d = delivery_new(m, "01h", SLICE("*"), 0, rcpts, 3);
    d->outcomes[1] = (struct rcpt_outcome){ OUTCOME_RCPT, 550, "5.1.1", SLICE("who") };
    delivery_fail_open(d, OUTCOME_CONNECT, 451, "4.4.1", slice_str(words));
    memset(words, 'x', sizeof(words) - 1);
    for (int i = 0; i < 3; i += 2) {
        assert_int_equal(d->outcomes[i].stage, OUTCOME_CONNECT);
        assert_int_equal(d->outcomes[i].code, 451);
        assert_string_equal(d->outcomes[i].enhanced, "4.4.1");
        assert_true(slice_eq(d->outcomes[i].text, SLICE("no route to host")));
    }
    assert_int_equal(d->outcomes[1].code, 550);
    delivery_fail_open(d, OUTCOME_LOCAL, 550, "", SLICE_NONE); /* nothing is open */
    assert_int_equal(d->outcomes[0].code, 451);
    delivery_free(d);
    message_unref(m);
}

static void a_restart_forgets_the_attempt(void **state)
{
    struct message *m = make_message();
    uint32_t rcpts[] = { 1, 2 };
    struct delivery *d = delivery_new(m, "01h", SLICE("y"), 0, rcpts, 2);
    d->started_ms = 5;
    delivery_fail_open(d, OUTCOME_LOST, 451, "4.4.2", SLICE("gone"));
    delivery_restart(d);
    assert_int_equal(d->started_ms, 0);
    assert_int_equal(d->arena.used, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(d->outcomes[i].stage, OUTCOME_NONE);
    delivery_fail_open(d, OUTCOME_DNS, 550, "5.1.2", SLICE("no such domain"));
    assert_int_equal(d->outcomes[1].code, 550);
    delivery_free(d);
    message_unref(m);
}

/* P-68: what no host can change is decided before one is asked. */
static void what_is_hopeless_is_not_tried(void **state)
{
    static const struct {
        uint32_t flags;
        int64_t deliver_by_ms;
        const char *enhanced; /* "": it is tried */
    } rows[] = {
        { 0, 0, "" },
        { 0, 999, "" }, /* by-mode N */
        { MESSAGE_BY_RETURN, 0, "" },
        { MESSAGE_BY_RETURN, 1001, "" },
        { MESSAGE_BY_RETURN, 1000, "5.4.7" },
        { MESSAGE_REQUIRE_TLS, 0, "" }, /* a host may be verified and offer it */
    };
    struct now now = { .wall_ms = 1000 };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct message *m = message_new(NULL);
        uint32_t rcpt = 0;
        message_add_rcpt(m, SLICE("a@x.example"), SLICE("x.example"));
        m->flags = rows[i].flags;
        m->deliver_by_ms = rows[i].deliver_by_ms;
        struct delivery *d = delivery_new(m, "id", SLICE("x.example"), 0, &rcpt, 1);
        assert_int_equal(delivery_is_hopeless(d, &now), rows[i].enhanced[0] != 0);
        assert_string_equal(d->outcomes[0].enhanced, rows[i].enhanced);
        if (rows[i].enhanced[0]) {
            assert_int_equal(d->outcomes[0].stage, OUTCOME_LOCAL);
            assert_int_equal(d->outcomes[0].code, 550);
        }
        delivery_free(d);
        message_unref(m);
    }
}

/* --- parts (P-173) --------------------------------------------------------------------------- */

static struct message *message_for(const char *const *addresses, uint32_t count)
{
    struct message *m = message_new(NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct slice s = slice_str(addresses[i]);
        message_add_rcpt(m, s, slice_skip(s, slice_find(s, '@') + 1));
    }
    return m;
}

static const char *const mixed[] = { "0@a.x", "1@bb.x", "2@A.x", "3@c.x", "4@a.x", "5@bb.x" };

static const struct {
    struct client_limits limits;
    const char *parts; /* "0 2 4, 1 5" */
} splits[] = {
    { { 0, 0, 0 }, "0 1 2 3 4 5" },      { { 1, 6, 3 }, "0 1 2 3 4 5" },
    { { 0, 1, 0 }, "0, 1, 2, 3, 4, 5" }, { { 0, 4, 0 }, "0 1 2 3, 4 5" },
    { { 0, 5, 0 }, "0 1 2 3 4, 5" },     { { 0, 0, 1 }, "0 2 4, 3, 1 5" },
    { { 0, 0, 2 }, "0 2 3 4, 1 5" },     { { 0, 2, 1 }, "0 2, 4, 3, 1 5" },
    { { 0, 2, 2 }, "0 2, 3 4, 1 5" },
};

static void check_split(const struct delivery *d, const struct client_limits *limits,
                        const char *want)
{
    struct arena arena;
    struct delivery_part *parts;
    struct buf got;
    arena_init(&arena);
    buf_init(&got, 1000);
    size_t count = delivery_split(d, limits, &arena, &parts);
    for (size_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < parts[i].rcpt_count; k++)
            assert_int_equal(buf_printf(&got, "%s%u",
                                        k   ? " "
                                        : i ? ", "
                                            : "",
                                        parts[i].rcpts[k]),
                             STATUS_OK);
    if (!slice_eq(buf_slice(&got), slice_str(want)))
        fail_msg("%.*s, not %s", SLICE_ARG(buf_slice(&got)), want);
    assert_true(count == 1 || delivery_may_exceed(d, limits));
    buf_done(&got);
    arena_done(&arena);
}

static void parts_keep_the_limits(void **state)
{
    const uint32_t rcpts[] = { 0, 1, 2, 3, 4, 5 };
    struct message *m = message_for(mixed, ARRAY_LEN(mixed));
    struct delivery *d = delivery_new(m, "id", SLICE("@*"), 0, rcpts, ARRAY_LEN(rcpts));
    for (size_t i = 0; i < ARRAY_LEN(splits); i++)
        check_split(d, &splits[i].limits, splits[i].parts);
    delivery_free(d);
    d = delivery_new(m, "id", SLICE("@*"), 0, (uint32_t[]){ 1, 4 }, 2); /* those that are left */
    check_split(d, &(struct client_limits){ 0, 1, 0 }, "1, 4");
    assert_false(delivery_may_exceed(d, &(struct client_limits){ 1, 2, 2 }));
    delivery_free(d);
    message_unref(m);
}

/* At a hundred, the rest stays together. */
static void parts_are_bounded(void **state)
{
    enum { COUNT = 1000 };
    const char *addresses[COUNT];
    uint32_t rcpts[COUNT], next = 0;
    struct delivery_part *parts;
    struct arena arena;
    arena_init(&arena);
    for (uint32_t i = 0; i < COUNT; i++) {
        addresses[i] = mixed[i % ARRAY_LEN(mixed)];
        rcpts[i] = i;
    }
    struct message *m = message_for(addresses, COUNT);
    struct delivery *d = delivery_new(m, "id", SLICE("@*"), 0, rcpts, COUNT);
    size_t count = delivery_split(d, &(struct client_limits){ 0, 2, 0 }, &arena, &parts);
    assert_int_equal(count, 100);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(parts[i].rcpt_count, i < 99 ? 2 : COUNT - 2 * 99);
        for (uint32_t k = 0; k < parts[i].rcpt_count; k++)
            assert_int_equal(parts[i].rcpts[k], next++);
    }
    arena_done(&arena);
    delivery_free(d);
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_hopeless_is_not_tried),
        cmocka_unit_test(parts_keep_the_limits),
        cmocka_unit_test(parts_are_bounded),
        cmocka_unit_test(it_copies_what_it_is_given),
        cmocka_unit_test(open_outcomes_are_failed_decided_ones_stay),
        cmocka_unit_test(a_restart_forgets_the_attempt),
    };
    return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
