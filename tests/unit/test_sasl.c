/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authentication exchanges as a client has them, one mechanism after the other: rows P-137 to P-153
 * of the checklist as far as the exchange decides them (replies, counting and base64 lines are the
 * session's: tests/transcript/auth.txt). SCRAM has a file of its own, test_scram.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/sasl_talk.h"

/* --- names ----------------------------------------------------------------------------------- */

static void names_of_mechanisms(void **state) /* P-9, P-139, P-151 */
{
    static const char *const names[] = { "PLAIN",         "LOGIN",
                                         "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS",
                                         "OAUTHBEARER",   "XOAUTH2",
                                         "EXTERNAL" };
    for (size_t i = 0; i < COUNT(names); i++) {
        assert_int_equal(sasl_mechanism_find(slice_str(names[i])), 1u << i);
        assert_string_equal(sasl_mechanism_name(1u << i), names[i]);
    }
    assert_int_equal(sasl_mechanism_find(SLICE("pLain")), AUTH_PLAIN);
    assert_int_equal(sasl_mechanism_find(SLICE("scram-sha-256")), AUTH_SCRAM_SHA_256);
    static const char *const others[] = { "",     "PLAI",       "PLAINX", "PLAIN ",      "SCRAM",
                                          "NTLM", "CRAM-MD5",   "GSSAPI", "SCRAM-SHA-1", "LOGIN=",
                                          "MSN",  "DIGEST-MD5", "XOAUTH", "ANONYMOUS" };
    for (size_t i = 0; i < COUNT(others); i++)
        assert_int_equal(sasl_mechanism_find(slice_str(others[i])), 0);
    assert_int_equal(sasl_mechanism_find(SLICE("PLAIN\0")), 0);
}

/* --- PLAIN ----------------------------------------------------------------------------------- */

static void plain_asks_for_a_password(void **state) /* P-146 */
{
    struct talk t;
    start(&t, AUTH_PLAIN);
    assert_int_equal(respond(&t, SLICE("\0tim\0tanstaaftanstaaf")), SASL_ASK); /* RFC 4616 4 */
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("tim"), SLICE("tanstaaftanstaaf"));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_DONE);
    check_said(&t, SLICE(""));
    finish(&t);
}

static void plain_without_initial_response(void **state) /* P-140 */
{
    struct talk t;
    start(&t, AUTH_PLAIN);
    assert_int_equal(say_nothing(&t), SASL_CHALLENGE);
    check_said(&t, SLICE(""));
    assert_int_equal(respond(&t, SLICE("\0tim\0pw")), SASL_ASK);
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("tim"), SLICE("pw"));
    finish(&t);
}

/* P-146, P-145: asked like any other, with a password that is nobody's. */
static void plain_for_somebody_else(void **state)
{
    struct talk t;
    start(&t, AUTH_PLAIN);
    assert_int_equal(respond(&t, SLICE("tim\0tim\0pw")), SASL_ASK);
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("tim"), SLICE("pw"));
    finish(&t);
    start(&t, AUTH_PLAIN);
    assert_int_equal(respond(&t, SLICE("Ursel\0Kurt\0xipj3plmq")), SASL_ASK);
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("Kurt"), SLICE(""));
    assert_int_equal(answer(&t, AUTH_RESULT_WRONG), SASL_REFUSED);
    finish(&t);
}

static void plain_forms(void **state) /* P-146 */
{
    static const struct first rows[] = {
        { SLICE("\0u\0p"), SASL_ASK },
        { SLICE("\0\xc3\xbc\xe2\x82\xac\xf0\x90\x8d\x88\0\xf4\x8f\xbf\xbf"), SASL_ASK },
        { SLICE("\0u\0p\1\n "), SASL_ASK }, /* a password is nobody's syntax */
        { SLICE(""), SASL_MALFORMED },
        { SLICE("u"), SASL_MALFORMED },
        { SLICE("\0"), SASL_MALFORMED },
        { SLICE("\0u"), SASL_MALFORMED },
        { SLICE("\0u\0"), SASL_MALFORMED },
        { SLICE("\0\0p"), SASL_MALFORMED },
        { SLICE("u\0\0p"), SASL_MALFORMED },
        { SLICE("\0u\0p\0"), SASL_MALFORMED },
        { SLICE("\0u\0p\0x"), SASL_MALFORMED },
        { SLICE("\0\0\0"), SASL_MALFORMED },
        /* not UTF-8 (RFC 3629): alone, cut, overlong, surrogates, beyond the last */
        { SLICE("\0\x80\0p"), SASL_MALFORMED },
        { SLICE("\0\xff\0p"), SASL_MALFORMED },
        { SLICE("\0u\xc3\0p"), SASL_MALFORMED },
        { SLICE("\0u\xe2\x82\0p"), SASL_MALFORMED },
        { SLICE("\0u\xf0\x90\x8d\0p"), SASL_MALFORMED },
        { SLICE("\0u\xe2\x28\xa1\0p"), SASL_MALFORMED },
        { SLICE("\0u\xc0\xaf\0p"), SASL_MALFORMED },
        { SLICE("\0u\xc1\xbf\0p"), SASL_MALFORMED },
        { SLICE("\0u\xe0\x9f\xbf\0p"), SASL_MALFORMED },
        { SLICE("\0u\xf0\x8f\xbf\xbf\0p"), SASL_MALFORMED },
        { SLICE("\0u\xed\xa0\x80\0p"), SASL_MALFORMED },
        { SLICE("\0u\xf4\x90\x80\x80\0p"), SASL_MALFORMED },
        { SLICE("\0u\xf5\x80\x80\x80\0p"), SASL_MALFORMED },
        { SLICE("\0u\0p\xe9"), SASL_MALFORMED },
    };
    check_firsts(AUTH_PLAIN, false, rows, COUNT(rows));
}

static enum sasl_step plain_of(size_t user_len, size_t secret_len)
{
    static char text[TEXT_ROOM];
    struct talk t;
    memset(text, 'x', sizeof text);
    text[0] = text[1 + user_len] = '\0';
    start(&t, AUTH_PLAIN);
    enum sasl_step step = respond(&t, slice_of(text, 2 + user_len + secret_len));
    finish(&t);
    return step;
}

static void plain_bounds(void **state) /* P-146 */
{
    assert_int_equal(plain_of(255, 1024), SASL_ASK);
    assert_int_equal(plain_of(256, 10), SASL_MALFORMED);
    assert_int_equal(plain_of(10, 1025), SASL_MALFORMED);
    assert_int_equal(plain_of(9000, 1), SASL_MALFORMED);
}

/* --- LOGIN, EXTERNAL ------------------------------------------------------------------------- */

static void login(void **state) /* P-147 */
{
    struct talk t;
    start(&t, AUTH_LOGIN);
    assert_int_equal(say_nothing(&t), SASL_CHALLENGE);
    check_said(&t, SLICE("Username:"));
    assert_int_equal(respond(&t, SLICE("tim")), SASL_CHALLENGE);
    check_said(&t, SLICE("Password:"));
    assert_int_equal(respond(&t, SLICE("pw")), SASL_ASK);
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("tim"), SLICE("pw"));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_DONE);
    finish(&t);
}

static void login_with_the_name_at_once(void **state) /* P-147 */
{
    struct talk t;
    start(&t, AUTH_LOGIN);
    assert_int_equal(respond(&t, SLICE("tim")), SASL_CHALLENGE);
    check_said(&t, SLICE("Password:"));
    assert_int_equal(respond(&t, SLICE("pw")), SASL_ASK);
    check_asked(&t, SASL_ASK_PASSWORD, SLICE("tim"), SLICE("pw"));
    finish(&t);
}

static void login_forms(void **state)
{
    static const struct slice bad[] = { SLICE(""), SLICE("a\0b"), SLICE("\xff") };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct talk t;
        start(&t, AUTH_LOGIN);
        assert_int_equal(respond(&t, bad[i]), SASL_MALFORMED);
        finish(&t);
        start(&t, AUTH_LOGIN);
        say_nothing(&t);
        assert_int_equal(respond(&t, bad[i]), SASL_MALFORMED);
        finish(&t);
        start(&t, AUTH_LOGIN);
        respond(&t, SLICE("tim"));
        assert_int_equal(respond(&t, bad[i]), SASL_MALFORMED);
        finish(&t);
    }
}

static void external(void **state) /* P-132 */
{
    static const struct first rows[] = {
        { SLICE(""), SASL_ASK },
        { SLICE("user@example.org"), SASL_ASK },
        { SLICE("User@example.org"), SASL_REFUSED },
        { SLICE("root"), SASL_REFUSED },
        { SLICE("\xff"), SASL_MALFORMED },
        { SLICE("user@example.org\0"), SASL_MALFORMED },
    };
    check_firsts(AUTH_EXTERNAL, true, rows, COUNT(rows));
    struct talk t;
    start_on_tls(&t, AUTH_EXTERNAL);
    assert_int_equal(say_nothing(&t), SASL_CHALLENGE);
    check_said(&t, SLICE(""));
    assert_int_equal(respond(&t, SLICE("")), SASL_ASK);
    check_asked(&t, SASL_ASK_EXTERNAL, SLICE("user@example.org"), SLICE(""));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_DONE);
    finish(&t);
    start(&t, AUTH_EXTERNAL); /* no certificate: the session does not offer it */
    assert_int_equal(respond(&t, SLICE("")), SASL_REFUSED);
    finish(&t);
}

/* --- answers --------------------------------------------------------------------------------- */

/* P-144, P-157, P-117: the session's reply is chosen by the result, so it must come through. */
static void results_come_through(void **state)
{
    static const struct {
        uint32_t mechanism;
        struct slice response;
    } rows[] = { { AUTH_PLAIN, SLICE("\0u\0p") },
                 { AUTH_EXTERNAL, SLICE("") },
                 { AUTH_SCRAM_SHA_256, SLICE("n,,n=u,r=x") },
                 { AUTH_OAUTHBEARER, SLICE("n,,\1auth=Bearer t\1\1") },
                 { AUTH_XOAUTH2, SLICE("user=u\1auth=Bearer t\1\1") } };
    for (size_t i = 0; i < COUNT(rows); i++)
        for (int result = AUTH_RESULT_DOWN; result <= AUTH_RESULT_TOO_MANY; result++) {
            struct talk t;
            start_on_tls(&t, rows[i].mechanism);
            assert_int_equal(respond(&t, rows[i].response), SASL_ASK);
            assert_int_equal(answer(&t, (enum auth_result)result), SASL_REFUSED);
            assert_int_equal(sasl_result(t.x), result);
            check_said(&t, SLICE(""));
            finish(&t);
        }
    sasl_free(NULL);
}

/* --- bearer tokens --------------------------------------------------------------------------- */

static struct slice decoded(const char *text, struct buf *room)
{
    buf_init(room, TEXT_ROOM);
    assert_int_equal(base64_decode(slice_str(text), room), STATUS_OK);
    return buf_slice(room);
}

static void the_examples_of_rfc_7628(void **state) /* P-152 */
{
    struct talk t;
    struct buf room;
    start(&t, AUTH_OAUTHBEARER);
    assert_int_equal(
        respond(&t, decoded("bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9"
                            "MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZ"
                            "Mjl0Q2c9PQEB",
                            &room)),
        SASL_ASK);
    check_asked(&t, SASL_ASK_TOKEN, SLICE("user@example.com"),
                SLICE("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="));
    assert_int_equal(answer(&t, AUTH_RESULT_OK), SASL_DONE);
    finish(&t);
    buf_done(&room);
    start(&t, AUTH_OAUTHBEARER); /* 4.3: without a token, to hear where there are some */
    assert_int_equal(respond(&t, SLICE("n,a=user@example.com,\1host=server.example.com\1port=143\1"
                                       "auth=\1\1")),
                     SASL_CHALLENGE);
    check_said(&t, SLICE("{\"status\":\"invalid_token\"}"));
    assert_int_equal(respond(&t, decoded("AQ==", &room)), SASL_REFUSED);
    assert_int_equal(sasl_result(t.x), AUTH_RESULT_WRONG);
    finish(&t);
    buf_done(&room);
}

static void a_token_that_is_not_good(void **state) /* P-152 */
{
    static const struct slice last_words[] = { SLICE("\1"), SLICE(""), SLICE("x") };
    for (size_t i = 0; i < COUNT(last_words); i++) {
        struct talk t;
        start(&t, AUTH_OAUTHBEARER);
        assert_int_equal(say_nothing(&t), SASL_CHALLENGE);
        assert_int_equal(respond(&t, SLICE("n,,\1auth=Bearer t\1\1")), SASL_ASK);
        check_asked(&t, SASL_ASK_TOKEN, SLICE(""), SLICE("t"));
        assert_int_equal(answer(&t, AUTH_RESULT_WRONG), SASL_CHALLENGE);
        check_said(&t, SLICE("{\"status\":\"invalid_token\"}"));
        assert_int_equal(respond(&t, last_words[i]), SASL_REFUSED);
        assert_int_equal(sasl_result(t.x), AUTH_RESULT_WRONG);
        finish(&t);
    }
}

static void oauthbearer_forms(void **state) /* P-152 */
{
    static const struct first rows[] = {
        { SLICE("n,,\1auth=Bearer t\1\1"), SASL_ASK },
        { SLICE("y,,\1auth=Bearer t\1\1"), SASL_ASK },
        { SLICE("n,a=u=2Cv=3D,\1auth=bearer   t\1\1"), SASL_ASK },
        { SLICE("n,,\1host=h\1port=1\1auth=BEARER t\1x=\1\1"), SASL_ASK },
        { SLICE("n,,\1user=u\1auth=Bearer t\1\1"), SASL_ASK }, /* not a key of this one */
        { SLICE(""), SASL_MALFORMED },
        { SLICE("\1"), SASL_MALFORMED },
        { SLICE("n,,\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1\1x"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1=\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1x\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer \1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearert\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Basic dTpw\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\1auth=Bearer u\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=\1auth=Bearer u\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\xff\1\1"), SASL_MALFORMED },
        { SLICE("n,,\1auth=Bearer t\0u\1\1"), SASL_MALFORMED },
        { SLICE("p=tls-exporter,,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,a=u\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,a=,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,a=u,v,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,a=u=,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,a=\xff,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("n,b=u,\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("user=u\1auth=Bearer t\1\1"), SASL_MALFORMED }, /* XOAUTH2's form */
    };
    check_firsts(AUTH_OAUTHBEARER, false, rows, COUNT(rows));
}

static void xoauth2(void **state) /* P-153: the example of its documentation */
{
    struct talk t;
    struct buf room;
    start(&t, AUTH_XOAUTH2);
    assert_int_equal(
        respond(&t, decoded("dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRx"
                            "bVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==",
                            &room)),
        SASL_ASK);
    check_asked(&t, SASL_ASK_TOKEN, SLICE("someuser@example.com"),
                SLICE("ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"));
    assert_int_equal(answer(&t, AUTH_RESULT_WRONG), SASL_CHALLENGE);
    check_said(&t, SLICE("{\"status\":\"invalid_token\",\"schemes\":\"Bearer\"}"));
    assert_int_equal(respond(&t, SLICE("")), SASL_REFUSED);
    assert_int_equal(sasl_result(t.x), AUTH_RESULT_WRONG);
    finish(&t);
    buf_done(&room);
}

static void xoauth2_forms(void **state) /* P-153 */
{
    static const struct first rows[] = {
        { SLICE("user=u\1auth=Bearer t\1\1"), SASL_ASK },
        { SLICE("auth=Bearer t\1user=u\1\1"), SASL_ASK },
        { SLICE("auth=Bearer t\1\1"), SASL_ASK }, /* the token says who */
        { SLICE("user=u\1auth=\1\1"), SASL_CHALLENGE },
        { SLICE(""), SASL_MALFORMED },
        { SLICE("user=u\1\1"), SASL_MALFORMED },
        { SLICE("user=\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("user=u\1user=v\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("user=\xff\1auth=Bearer t\1\1"), SASL_MALFORMED },
        { SLICE("user=u\1auth=Bearer t\1"), SASL_MALFORMED },
        { SLICE("n,a=u,\1auth=Bearer t\1\1"), SASL_MALFORMED }, /* OAUTHBEARER's form */
    };
    check_firsts(AUTH_XOAUTH2, false, rows, COUNT(rows));
}

static enum sasl_step token_of(uint32_t mechanism, size_t len)
{
    static char text[TEXT_ROOM];
    struct talk t;
    int at = snprintf(text, sizeof text, "%sauth=Bearer ",
                      mechanism == AUTH_XOAUTH2 ? "user=u\1" : "n,,\1");
    memset(text + at, 't', len);
    memcpy(text + at + len, "\1\1", 2);
    start(&t, mechanism);
    enum sasl_step step = respond(&t, slice_of(text, (size_t)at + len + 2));
    finish(&t);
    return step;
}

static void token_bounds(void **state)
{
    assert_int_equal(token_of(AUTH_OAUTHBEARER, 8192), SASL_ASK);
    assert_int_equal(token_of(AUTH_OAUTHBEARER, 8193), SASL_MALFORMED);
    assert_int_equal(token_of(AUTH_XOAUTH2, 8192), SASL_ASK);
    assert_int_equal(token_of(AUTH_XOAUTH2, 8193), SASL_MALFORMED);
}

/* --- cut anywhere ---------------------------------------------------------------------------- */

/* Of a response that is taken, no beginning is: but where the rest is the end of a free text. */
static void responses_cut_short(void **state)
{
    static const struct {
        uint32_t mechanism;
        struct slice response;
        size_t least; /* octets from which on it is a whole one */
    } rows[] = {
        { AUTH_PLAIN, SLICE("user\0user\0pencil"), 11 },
        { AUTH_SCRAM_SHA_256, SLICE("n,a=user,n=user,r=abc"), 19 },
        { AUTH_SCRAM_SHA_256_PLUS, SLICE("p=tls-exporter,,n=user,r=abc"), 26 },
        { AUTH_OAUTHBEARER, SLICE("n,a=user,\1host=x\1auth=Bearer token\1\1"), 36 },
        { AUTH_XOAUTH2, SLICE("user=user\1auth=Bearer token\1\1"), 29 },
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t len = 0; len <= rows[i].response.len; len++) {
            struct talk t;
            start_on_tls(&t, rows[i].mechanism);
            enum sasl_step step = respond(&t, slice_head(rows[i].response, len));
            if (step != (len < rows[i].least ? SASL_MALFORMED : SASL_ASK))
                fail_msg("row %zu, %zu octets: %d", i, len, step);
            finish(&t);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_mechanisms),
        cmocka_unit_test(plain_asks_for_a_password),
        cmocka_unit_test(plain_without_initial_response),
        cmocka_unit_test(plain_for_somebody_else),
        cmocka_unit_test(plain_forms),
        cmocka_unit_test(plain_bounds),
        cmocka_unit_test(login),
        cmocka_unit_test(login_with_the_name_at_once),
        cmocka_unit_test(login_forms),
        cmocka_unit_test(external),
        cmocka_unit_test(results_come_through),
        cmocka_unit_test(the_examples_of_rfc_7628),
        cmocka_unit_test(a_token_that_is_not_good),
        cmocka_unit_test(oauthbearer_forms),
        cmocka_unit_test(xoauth2),
        cmocka_unit_test(xoauth2_forms),
        cmocka_unit_test(token_bounds),
        cmocka_unit_test(responses_cut_short),
    };
    return cmocka_run_group_tests_name("sasl", tests, NULL, NULL);
}
