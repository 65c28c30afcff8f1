/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * sasl_talk - one authentication exchange as a test holds it: responses go in from blocks of
 * exactly their length that are gone afterwards, so that ASan sees a read behind the end, or later.
 *
 * For tests with cmocka, whose headers come before this one.
 */
#include "core/smtp/sasl.h"
#include <stdlib.h>

#define COUNT(list) (sizeof(list) / sizeof(list)[0])
#define BINDING     SLICE("0123456789abcdef0123456789abcdef")
#define TEXT_ROOM   16384

struct talk {
    uint64_t seed;
    struct entropy entropy;
    struct sasl_channel channel;
    struct sasl_exchange *x;
    struct buf said; /* the last challenge */
};

static inline void start(struct talk *t, uint32_t mechanism)
{
    *t = (struct talk){ .seed = 1 };
    entropy_init_seeded(&t->entropy, &t->seed);
    t->channel.entropy = &t->entropy;
    t->x = sasl_new(mechanism, &t->channel);
    buf_init(&t->said, SASL_TEXT_MAX);
}

static inline void start_on_tls(struct talk *t, uint32_t mechanism)
{
    start(t, mechanism);
    sasl_free(t->x);
    t->channel.offers_plus = true;
    t->channel.binding_name = "tls-exporter";
    t->channel.binding = BINDING;
    t->channel.client_name = SLICE("user@example.org");
    t->x = sasl_new(mechanism, &t->channel);
}

static inline void finish(struct talk *t)
{
    sasl_free(t->x);
    buf_done(&t->said);
}

static inline enum sasl_step respond(struct talk *t, struct slice response)
{
    char *copy = malloc(response.len + !response.len);
    if (response.len)
        memcpy(copy, response.ptr, response.len);
    buf_clear(&t->said);
    enum sasl_step step = sasl_step(t->x, true, slice_of(copy, response.len), &t->said);
    memset(copy, 0xee, response.len);
    free(copy);
    return step;
}

static inline enum sasl_step say_nothing(struct talk *t)
{
    buf_clear(&t->said);
    return sasl_step(t->x, false, SLICE_NONE, &t->said);
}

static inline enum sasl_step answer(struct talk *t, enum auth_result result)
{
    struct sasl_answer given = { .result = result };
    buf_clear(&t->said);
    return sasl_answer(t->x, &given, &t->said);
}

static inline enum sasl_step answer_verifier(struct talk *t, const struct scram_verifier *v)
{
    struct sasl_answer given = { .result = AUTH_RESULT_OK, .verifier = *v };
    buf_clear(&t->said);
    return sasl_answer(t->x, &given, &t->said);
}

static inline void check_said(const struct talk *t, struct slice want)
{
    if (!slice_eq(buf_slice(&t->said), want))
        fail_msg("said \"%.*s\", not \"%.*s\"", SLICE_ARG(buf_slice(&t->said)), SLICE_ARG(want));
}

static inline void check_asked(const struct talk *t, enum sasl_question question, struct slice user,
                               struct slice secret)
{
    struct sasl_request r;
    sasl_get_request(t->x, &r);
    assert_int_equal(r.question, question);
    assert_true(slice_eq(r.user, user));
    assert_true(slice_eq(r.secret, secret));
}

/* One response to a fresh exchange of each mechanism. */
struct first {
    struct slice response;
    enum sasl_step step;
};

static inline void check_firsts(uint32_t mechanism, bool is_tls, const struct first *list,
                                size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct talk t;
        if (is_tls)
            start_on_tls(&t, mechanism);
        else
            start(&t, mechanism);
        enum sasl_step step = respond(&t, list[i].response);
        if (step != list[i].step)
            fail_msg("%s: row %zu (%.*s): %d, not %d", sasl_mechanism_name(mechanism), i,
                     SLICE_ARG(list[i].response), step, list[i].step);
        if (step == SASL_REFUSED)
            assert_int_equal(sasl_result(t.x), AUTH_RESULT_WRONG);
        finish(&t);
    }
}
