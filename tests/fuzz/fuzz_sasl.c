/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as one authentication exchange. The first octet chooses the mechanism (by eight's
 * remainder), the channel (its bits) and how the authenticator answers; the rest is a list of
 * responses with NUL NUL between them, of which the first is the initial response unless bit 3 says
 * that there is none. Base64 is between us as it is on the wire, so each response is also one of
 * base64's inputs. Chance is a seed, and the users' password is "pencil", so a seed may hold a
 * whole exchange of SCRAM.
 *
 * Whatever comes: the order of the exchange holds, what is asked is within its bounds, is_proven is
 * true only of who knows the password, and challenges are text that a line bears.
 */
#include "core/smtp/sasl.h"
#include "tests/fuzz/fuzz.h"

#define NO_INITIAL  0x08
#define IS_TLS      0x10 /* with bindings, and PLUS offered */
#define RESULT_BITS 0x60 /* of the answer: OK, WRONG, DOWN, THROTTLED */
#define IS_UNKNOWN  0x80 /* the user is not there: a fake verifier */

#define STEPS_MAX 8

static const enum auth_result results[] = { AUTH_RESULT_OK, AUTH_RESULT_WRONG, AUTH_RESULT_DOWN,
                                            AUTH_RESULT_THROTTLED };

struct exchange {
    uint8_t choice;
    struct sasl_exchange *x;
    struct scram_verifier verifier;
    struct buf challenge;
    enum auth_result result; /* of the last answer */
    int asked;
};

static enum auth_result result_of(const struct exchange *e, const struct sasl_request *r)
{
    enum auth_result chosen = results[(e->choice & RESULT_BITS) >> 5];
    if (r->question == SASL_ASK_VERIFIER)
        return chosen == AUTH_RESULT_WRONG ? AUTH_RESULT_OK : chosen;
    if (r->question == SASL_ASK_PROOF && !r->is_proven)
        return AUTH_RESULT_WRONG;
    return chosen;
}

static void check_request(const struct exchange *e, const struct sasl_request *r)
{
    bool has_user = r->question != SASL_ASK_TOKEN;
    must(r->user.len <= 255 && slice_find(r->user, '\0') == r->user.len);
    must(!has_user || r->user.len > 0);
    must(slice_find(r->secret, '\0') == r->secret.len);
    must(r->secret.len <= (r->question == SASL_ASK_TOKEN ? 8192u : 1024u));
    must(r->question != SASL_ASK_TOKEN || r->secret.len > 0);
    must(!r->is_proven || (r->question == SASL_ASK_PROOF && !(e->choice & IS_UNKNOWN)));
}

static enum sasl_step answer(struct exchange *e)
{
    struct sasl_request request;
    struct sasl_answer given = { .result = AUTH_RESULT_OK };
    sasl_get_request(e->x, &request);
    check_request(e, &request);
    must(++e->asked <= 2);
    if (request.question == SASL_ASK_VERIFIER && e->choice & IS_UNKNOWN)
        scram_fake_verifier(request.user, (const uint8_t[32]){ 7 }, &given.verifier);
    else
        given.verifier = e->verifier;
    given.result = e->result = result_of(e, &request);
    return sasl_answer(e->x, &given, &e->challenge);
}

/* What goes to the wire comes back the same. */
static void check_challenge(const struct exchange *e)
{
    struct buf text, octets;
    buf_init(&text, SASL_TEXT_MAX);
    buf_init(&octets, SASL_TEXT_MAX);
    must(e->challenge.len <= 1024 && slice_is_printable(buf_slice(&e->challenge)));
    must(base64_encode(buf_slice(&e->challenge), &text) == STATUS_OK);
    must(base64_decode(buf_slice(&text), &octets) == STATUS_OK);
    must(slice_eq(buf_slice(&octets), buf_slice(&e->challenge)));
    buf_done(&text);
    buf_done(&octets);
}

/* Strict base64 has one text for each octet string (P-142). */
static void check_base64(struct slice text)
{
    struct buf octets, again;
    buf_init(&octets, SASL_TEXT_MAX);
    buf_init(&again, SASL_TEXT_MAX);
    if (base64_decode(text, &octets) == STATUS_OK) {
        must(base64_encode(buf_slice(&octets), &again) == STATUS_OK);
        must(slice_eq(buf_slice(&again), text));
    } else
        must(octets.len == 0);
    buf_done(&octets);
    buf_done(&again);
}

static enum sasl_step step(struct exchange *e, bool has_response, struct slice response)
{
    char *copy = exact_copy(response);
    check_base64(slice_of(copy, response.len));
    buf_clear(&e->challenge);
    enum sasl_step next =
        sasl_step(e->x, has_response, slice_of(copy, response.len), &e->challenge);
    free(copy); /* nothing of it may be needed later */
    if (next == SASL_ASK)
        next = answer(e);
    must(next != SASL_ASK);
    return next;
}

static void check_end(const struct exchange *e, enum sasl_step last)
{
    if (last == SASL_DONE)
        must(e->asked > 0 && e->result == AUTH_RESULT_OK);
    if (last == SASL_REFUSED)
        must(sasl_result(e->x) != AUTH_RESULT_OK);
    if (last == SASL_REFUSED && e->asked > 0)
        must(sasl_result(e->x) == e->result);
}

/* Cuts one response off the front. */
static struct slice cut_response(struct slice *rest)
{
    size_t end = 0;
    while (end < rest->len &&
           !(end + 1 < rest->len && rest->ptr[end] == '\0' && rest->ptr[end + 1] == '\0'))
        end++;
    struct slice response = slice_head(*rest, end);
    *rest = slice_skip(*rest, end + 2);
    return response;
}

static void talk(struct exchange *e, struct slice rest)
{
    enum sasl_step last = SASL_CHALLENGE;
    bool has_response = !(e->choice & NO_INITIAL);
    for (int i = 0; i < STEPS_MAX && last == SASL_CHALLENGE; i++) {
        last = step(e, has_response, has_response ? cut_response(&rest) : SLICE_NONE);
        has_response = true;
        if (last == SASL_CHALLENGE)
            check_challenge(e);
    }
    must(last != SASL_CHALLENGE); /* no mechanism goes on for ever */
    check_end(e, last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scram_verifier pencil;
    uint64_t seed = 1;
    struct entropy entropy;
    if (size == 0 || size > SASL_TEXT_MAX)
        return 0;
    if (pencil.iterations == 0)
        scram_make_verifier(SLICE("pencil"), (const uint8_t[16]){ 1, 2, 3 }, 4096, &pencil);
    entropy_init_seeded(&entropy, &seed);
    struct exchange e = { .choice = data[0], .verifier = pencil };
    struct sasl_channel channel = { .entropy = &entropy };
    if (e.choice & IS_TLS)
        channel = (struct sasl_channel){ .entropy = &entropy,
                                         .offers_plus = true,
                                         .binding_name = "tls-exporter",
                                         .binding = SLICE("0123456789abcdef0123456789abcdef"),
                                         .client_name = SLICE("user@example.org") };
    buf_init(&e.challenge, SASL_TEXT_MAX);
    uint32_t mechanism = 1u << (e.choice & 7);
    if ((e.choice & 7) < 7) {
        must(sasl_mechanism_find(slice_str(sasl_mechanism_name(mechanism))) == mechanism);
        e.x = sasl_new(mechanism, &channel);
        talk(&e, slice_of((const char *)data + 1, size - 1));
        sasl_free(e.x);
    } else
        must(sasl_mechanism_find(slice_of((const char *)data + 1, size - 1)) < 1u << 7);
    buf_done(&e.challenge);
    return 0;
}
