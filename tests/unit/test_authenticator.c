/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions of SASL exchanges, answered from a users file: passwords through real helper threads,
 * verifiers, proofs, tokens, certificates. What is counted in Redis: test_auth_throttle.
 */
#include "tests/lib/auth_bench.h"

#include <openssl/base64.h>
#include <openssl/curve25519.h>

#define HERE "192.0.2.7"

/* A bench on this users file; more lines by printf. */
static void PRINTF_LIKE(2, 3) start_with(struct bench *b, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bench_write(b->users, text);
    bench_start(b);
}

static void a_password_from_a_file(void **state)
{
    struct bench b;
    struct bench_answer out;
    bench_init(&b);
    start_with(&b, "# users\n\nalice tenant=acme%s\nbob%s\n", bench_hash("right"),
               bench_hash("of bob"));
    bench_ask(&b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_await(&b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    assert_string_equal(out.answer.account->name, "alice");
    assert_string_equal(out.answer.account->tenant, "acme");
    account_unref(out.answer.account);
    assert_int_equal(bench_password(&b, "bob", "of bob", HERE), AUTH_RESULT_OK);
    assert_int_equal(bench_password(&b, "bob", "right", HERE), AUTH_RESULT_WRONG);
    assert_int_equal(metrics_get(&b.w.metrics, METRIC_AUTH_OK_TOTAL), 2);
    assert_int_equal(metrics_get(&b.w.metrics, METRIC_AUTH_FAILED_TOTAL), 1);
    bench_stop(&b);
}

/* P-145, P-117: what is told, and when, is the same; only the log knows more. */
static void refusals_look_alike(void **state)
{
    static const char *const cases[][3] = {
        { "alice", "wrong", "wrong password" }, { "ali", "right", "unknown user" },
        { "off", "right", "disabled" },         { "off", "wrong", "disabled" },
        { "token", "right", "wrong password" }, { "alice", "", "wrong password" },
        { "", "right", "unknown user" },        { "scram", "wrong", "wrong password" },
    };
    struct bench b;
    bench_init(&b);
    b.cfg.auth.failure_delay_ms = 150;
    start_with(&b, "alice%s\noff disabled%s\ntoken\nscram%s\n", bench_hash("right"),
               bench_hash("right"), bench_scram("right"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bench_answer out;
        bench_read_clock(&b);
        int64_t began = b.w.now.mono_ms;
        bench_ask(&b, SASL_ASK_PASSWORD, cases[i][0], cases[i][1], HERE, &out);
        bench_await(&b, &out);
        assert_int_equal(out.answer.result, AUTH_RESULT_WRONG);
        assert_null(out.answer.account);
        assert_true(out.at_ms - began >= 150 && out.at_ms - began < 2000);
        if (!bench_logged(&b, cases[i][2]))
            fail_msg("%s is not in %.*s", cases[i][2], SLICE_ARG(buf_slice(&b.w.log.out)));
        buf_clear(&b.w.log.out);
    }
    assert_int_equal(b.asked, 0); /* auth.failures_max is 0: nothing is counted */
    bench_stop(&b);
}

/* Who belongs to a tenant that the configuration has lost has no limits, so he stays out: by our
 * fault, so 454 (P-144), and only he who is right learns of it. */
static void a_tenant_that_is_not_there(void **state)
{
    struct bench b;
    bench_init(&b);
    start_with(&b, "alice tenant=lost%s\nbob tenant=acme%s\n", bench_hash("right"),
               bench_hash("right"));
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_DOWN);
    assert_true(bench_logged(&b, "no such tenant"));
    assert_int_equal(bench_password(&b, "alice", "wrong", HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_password(&b, "bob", "right", HERE), AUTH_RESULT_OK);
    bench_stop(&b);
}

static void a_scram_verifier_checks_plain_passwords_too(void **state)
{
    struct bench b;
    bench_init(&b);
    start_with(&b, "alice%s\n", bench_scram("right"));
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_OK);
    assert_int_equal(bench_password(&b, "alice", "wrong", HERE), AUTH_RESULT_WRONG);
    bench_stop(&b);
}

/* --- SCRAM ----------------------------------------------------------------------------------- */

static void get_verifier(struct bench *b, const char *user, struct scram_verifier *v)
{
    struct bench_answer out;
    bench_ask(b, SASL_ASK_VERIFIER, user, NULL, HERE, &out);
    bench_await(b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    assert_null(out.answer.account);
    *v = out.answer.verifier;
}

/* P-148: a made-up verifier is the same each time, and no other user's. */
static void verifiers(void **state)
{
    struct bench b;
    struct scram_verifier alice, off, nobody, again, other, plain;
    bench_init(&b);
    start_with(&b, "alice%s\noff disabled%s\nplain%s\n", bench_scram("a"), bench_scram("b"),
               bench_hash("c"));
    get_verifier(&b, "alice", &alice);
    get_verifier(&b, "off", &off);
    get_verifier(&b, "nobody", &nobody);
    get_verifier(&b, "nobody", &again);
    get_verifier(&b, "another", &other);
    get_verifier(&b, "plain", &plain);
    struct account *stored = auth_shared_find(b.shared, SLICE("alice"));
    assert_memory_equal(&alice, &stored->scram, sizeof alice);
    account_unref(stored);
    stored = auth_shared_find(b.shared, SLICE("off"));
    assert_memory_equal(&off, &stored->scram, sizeof off);
    account_unref(stored);
    assert_memory_equal(nobody.salt, again.salt, nobody.salt_len);
    assert_memory_not_equal(nobody.salt, other.salt, nobody.salt_len);
    assert_int_equal(nobody.iterations, alice.iterations); /* or one could tell them apart */
    assert_int_equal(nobody.salt_len, alice.salt_len);
    assert_int_equal(plain.iterations, alice.iterations);
    bench_stop(&b);
}

static void proofs(void **state)
{
    static const struct {
        const char *user, *proven;
        enum auth_result want;
    } cases[] = {
        { "alice", "yes", AUTH_RESULT_OK },     { "alice", NULL, AUTH_RESULT_WRONG },
        { "nobody", "yes", AUTH_RESULT_WRONG }, { "nobody", NULL, AUTH_RESULT_WRONG },
        { "off", "yes", AUTH_RESULT_WRONG },    { "plain", "yes", AUTH_RESULT_WRONG },
    };
    struct bench b;
    bench_init(&b);
    start_with(&b, "alice%s\noff disabled%s\nplain%s\n", bench_scram("a"), bench_scram("b"),
               bench_hash("c"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(bench_result(&b, SASL_ASK_PROOF, cases[i].user, cases[i].proven, HERE),
                         cases[i].want);
    bench_stop(&b);
}

/* --- the cache ------------------------------------------------------------------------------- */

/* True when the password is right and was not computed: the answer is there on the next turn. */
static bool is_remembered(struct bench *b, const char *user, const char *password)
{
    struct bench_answer out;
    bench_ask(b, SASL_ASK_PASSWORD, user, password, HERE, &out);
    authenticator_pump(b->a);
    bool is_at_once = out.is_there;
    bench_await(b, &out);
    account_unref(out.answer.account);
    return is_at_once && out.answer.result == AUTH_RESULT_OK;
}

static void a_right_password_is_remembered_for_a_while(void **state)
{
    struct bench b;
    bench_init(&b);
    start_with(&b, "alice%s\nbob%s\n", bench_hash_of("right", 19456),
               bench_hash_of("right", 19456));
    assert_false(is_remembered(&b, "alice", "right"));
    assert_true(is_remembered(&b, "alice", "right"));
    assert_false(is_remembered(&b, "bob", "right"));
    assert_false(is_remembered(&b, "alice", "wrong"));
    assert_false(is_remembered(&b, "alice", "wrong")); /* a wrong one never is */
    b.ahead_ms += b.cfg.auth.cache_ttl_ms;
    bench_read_clock(&b);
    assert_false(is_remembered(&b, "alice", "right"));
    assert_true(is_remembered(&b, "alice", "right"));
    bench_stop(&b);
}

static void reload(struct bench *b, const char *text)
{
    struct buf error;
    buf_init(&error, 1024);
    bench_write(b->users, text);
    if (auth_shared_reload(b->shared, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
}

static void a_change_of_the_account_ends_what_was_remembered(void **state)
{
    struct bench b;
    char text[1024], hash[300];
    bench_init(&b);
    snprintf(hash, sizeof hash, "%s", bench_hash_of("right", 19456));
    start_with(&b, "alice%s\n", hash);
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_OK);
    snprintf(text, sizeof text, "alice%s disabled\n", hash);
    reload(&b, text);
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_WRONG);
    snprintf(text, sizeof text, "alice tenant=acme%s\n", hash);
    reload(&b, text);
    assert_true(is_remembered(&b, "alice", "right")); /* that did not touch the password */
    snprintf(text, sizeof text, "alice%s\n", bench_hash("another"));
    reload(&b, text);
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_password(&b, "alice", "another", HERE), AUTH_RESULT_OK);
    reload(&b, "");
    assert_int_equal(bench_password(&b, "alice", "another", HERE), AUTH_RESULT_WRONG);
    bench_stop(&b);
}

/* --- storms ---------------------------------------------------------------------------------- */

#define STORM 60

static uint32_t storm(struct bench *b, bool is_same, enum auth_result which)
{
    static struct bench_answer out[STORM];
    uint32_t count = 0;
    for (size_t i = 0; i < STORM; i++) {
        char password[32] = "right";
        if (!is_same)
            snprintf(password, sizeof password, "wrong %zu", i);
        bench_ask(b, SASL_ASK_PASSWORD, "alice", password, HERE, &out[i]);
    }
    for (size_t i = 0; i < STORM; i++) {
        bench_await(b, &out[i]);
        account_unref(out[i].answer.account);
        count += out[i].answer.result == which;
    }
    return count;
}

/* One computation answers all who ask the same; the queue has one place. */
static void a_storm_of_one_login_computes_once(void **state)
{
    struct bench b;
    bench_init(&b);
    b.cfg.auth.threads = b.cfg.auth.waiting_max = 1;
    start_with(&b, "alice%s\n", bench_hash("right"));
    assert_int_equal(storm(&b, true, AUTH_RESULT_OK), STORM);
    bench_stop(&b);
}

/* P-157: 454 when too many wait, and at once: our own trouble is no guess. */
static void more_than_may_wait_are_told_busy(void **state)
{
    struct bench b;
    bench_init(&b);
    b.cfg.auth.threads = b.cfg.auth.waiting_max = 1;
    start_with(&b, "alice%s\n", bench_hash_of("right", 19456));
    uint32_t busy = storm(&b, false, AUTH_RESULT_BUSY);
    assert_true(busy >= STORM / 2 && busy < STORM);
    assert_true(bench_logged(&b, "reason=busy"));
    assert_int_equal(bench_password(&b, "alice", "right", HERE), AUTH_RESULT_OK);
    bench_stop(&b);
}

/* A client may vanish at any point: in the queue, at a helper, in the delay, as one of many. */
static void forgotten_asks_are_never_answered(void **state)
{
    struct bench b;
    struct bench_answer out[8], last;
    struct auth_ask *asks[8];
    bench_init(&b);
    b.cfg.auth.failure_delay_ms = 100;
    start_with(&b, "alice%s\n", bench_hash("right"));
    for (int turns = 0; turns < 40; turns += 3) {
        for (size_t i = 0; i < ARRAY_LEN(asks); i++)
            asks[i] = bench_ask(&b, SASL_ASK_PASSWORD, "alice", i % 2 ? "wrong" : "also wrong",
                                HERE, &out[i]);
        for (int i = 0; i < turns; i++)
            bench_turn(&b);
        for (size_t i = 0; i < ARRAY_LEN(asks); i++)
            if (!out[i].is_there)
                authenticator_forget(asks[i]);
    }
    bench_ask(&b, SASL_ASK_PASSWORD, "alice", "right", HERE, &last);
    bench_await(&b, &last);
    account_unref(last.answer.account);
    for (size_t i = 0; i < ARRAY_LEN(asks); i++) /* the end finds some at work */
        bench_ask(&b, SASL_ASK_PASSWORD, "alice", i % 2 ? "x" : "y", HERE, &out[i]);
    bench_stop(&b);
}

/* Who asks again after a client of the same login has gone gets an answer of his own. */
static void what_was_left_is_not_joined(void **state)
{
    struct bench b;
    struct bench_answer busy, gone, out;
    bench_init(&b);
    b.cfg.auth.threads = 1;
    start_with(&b, "alice%s\n", bench_hash("right"));
    bench_ask(&b, SASL_ASK_PASSWORD, "nobody", "x", HERE, &busy); /* the only helper */
    authenticator_forget(bench_ask(&b, SASL_ASK_PASSWORD, "alice", "right", HERE, &gone));
    bench_ask(&b, SASL_ASK_PASSWORD, "alice", "right", HERE, &out);
    bench_await(&b, &out);
    assert_int_equal(out.answer.result, AUTH_RESULT_OK);
    account_unref(out.answer.account);
    bench_await(&b, &busy);
    bench_stop(&b);
}

static int64_t ms_of_one_login(struct bench *b)
{
    bench_read_clock(b);
    int64_t began = b->w.now.mono_ms;
    assert_int_equal(bench_password(b, "nobody", "x", HERE), AUTH_RESULT_WRONG);
    return b->w.now.mono_ms - began + 1;
}

/* Forty that have hung up cost the next one nothing. */
static void what_nobody_waits_for_is_not_computed(void **state)
{
    struct bench b;
    struct bench_answer out;
    bench_init(&b);
    b.cfg.auth.threads = 1;
    start_with(&b, "alice\n");
    int64_t one_ms = ms_of_one_login(&b);
    for (int i = 0; i < 40; i++) {
        char password[32];
        snprintf(password, sizeof password, "guess %d", i);
        authenticator_forget(bench_ask(&b, SASL_ASK_PASSWORD, "alice", password, HERE, &out));
    }
    assert_true(ms_of_one_login(&b) < 20 * one_ms);
    bench_stop(&b);
}

/* --- tokens, certificates -------------------------------------------------------------------- */

static void base64url(struct slice in, char *out)
{
    size_t len = EVP_EncodeBlock((uint8_t *)out, (const uint8_t *)in.ptr, in.len);
    while (len > 0 && out[len - 1] == '=')
        len--;
    out[len] = '\0';
    for (char *c = out; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
}

/* A token of this key for that user, good for a minute from now. */
static const char *token(const uint8_t key[64], const char *user, int64_t seconds)
{
    static char out[1024];
    char payload[256];
    uint8_t signature[64];
    snprintf(payload, sizeof payload, "{\"email\":\"%s\",\"exp\":%lld}", user,
             (long long)(time(NULL) + seconds));
    base64url(SLICE("{\"alg\":\"EdDSA\"}"), out);
    strcat(out, ".");
    base64url(slice_str(payload), out + strlen(out));
    assert_int_equal(ED25519_sign(signature, (const uint8_t *)out, strlen(out), key), 1);
    strcat(out, ".");
    base64url(slice_of((const char *)signature, sizeof signature), out + strlen(out));
    return out;
}

static void make_key(struct bench *b, uint8_t private[64])
{
    uint8_t public[32];
    char x[64], text[256];
    ED25519_keypair(public, private);
    base64url(slice_of((const char *)public, sizeof public), x);
    snprintf(text, sizeof text, "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%s\"}]}",
             x);
    bench_write(b->keys, text);
}

/* P-152 to P-154 */
static void tokens(void **state)
{
    struct bench b;
    uint8_t key[64], other[64];
    bench_init(&b);
    make_key(&b, other);
    make_key(&b, key);
    b.cfg.auth.jwt_keys = b.keys;
    start_with(&b, "alice\nbob disabled\n");
    const struct {
        const char *user, *named;
        const uint8_t *key;
        int64_t seconds;
        enum auth_result want;
    } cases[] = {
        { "alice", "alice", key, 60, AUTH_RESULT_OK },
        { "", "alice", key, 60, AUTH_RESULT_OK },
        { "bob", "alice", key, 60, AUTH_RESULT_WRONG },
        { "alice", "bob", key, 60, AUTH_RESULT_WRONG },
        { "bob", "bob", key, 60, AUTH_RESULT_WRONG },
        { "", "bob", key, 60, AUTH_RESULT_WRONG },
        { "", "carol", key, 60, AUTH_RESULT_WRONG },
        { "alice", "alice", key, -3600, AUTH_RESULT_WRONG },
        { "alice", "alice", other, 60, AUTH_RESULT_WRONG },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (bench_result(&b, SASL_ASK_TOKEN, cases[i].user,
                         token(cases[i].key, cases[i].named, cases[i].seconds),
                         HERE) != cases[i].want)
            fail_msg("case %zu", i);
    assert_int_equal(bench_result(&b, SASL_ASK_TOKEN, "alice", "no.token", HERE),
                     AUTH_RESULT_WRONG);
    make_key(&b, other); /* the file has another key now */
    assert_true(auth_shared_has_changed(b.shared));
    reload(&b, "alice\n");
    assert_int_equal(bench_result(&b, SASL_ASK_TOKEN, "alice", token(key, "alice", 60), HERE),
                     AUTH_RESULT_WRONG);
    assert_int_equal(bench_result(&b, SASL_ASK_TOKEN, "alice", token(other, "alice", 60), HERE),
                     AUTH_RESULT_OK);
    bench_stop(&b);
}

static void without_keys_no_token_is_good(void **state)
{
    struct bench b;
    uint8_t key[64];
    bench_init(&b);
    make_key(&b, key);
    start_with(&b, "alice\n");
    assert_int_equal(bench_result(&b, SASL_ASK_TOKEN, "alice", token(key, "alice", 60), HERE),
                     AUTH_RESULT_WRONG);
    assert_int_equal(auth_shared_mechanisms(b.shared),
                     AUTH_PLAIN | AUTH_LOGIN | AUTH_SCRAM_SHA_256 | AUTH_SCRAM_SHA_256_PLUS);
    b.cfg.auth.jwt_keys = b.keys;
    b.cfg.tls.client_ca = b.keys;
    assert_int_equal(auth_shared_mechanisms(b.shared), 0x7f);
    b.cfg.auth.mechanisms = AUTH_LOGIN | AUTH_EXTERNAL;
    assert_int_equal(auth_shared_mechanisms(b.shared), AUTH_LOGIN | AUTH_EXTERNAL);
    b.cfg.auth.jwt_keys = NULL;
    bench_stop(&b);
}

/* P-132: the certificate was verified by TLS; here only whether there is such a user. */
static void certificates(void **state)
{
    struct bench b;
    bench_init(&b);
    start_with(&b, "alice\nbob disabled\n");
    assert_int_equal(bench_result(&b, SASL_ASK_EXTERNAL, "alice", NULL, HERE), AUTH_RESULT_OK);
    assert_int_equal(bench_result(&b, SASL_ASK_EXTERNAL, "bob", NULL, HERE), AUTH_RESULT_WRONG);
    assert_int_equal(bench_result(&b, SASL_ASK_EXTERNAL, "carol", NULL, HERE), AUTH_RESULT_WRONG);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_password_from_a_file),
        cmocka_unit_test(refusals_look_alike),
        cmocka_unit_test(a_tenant_that_is_not_there),
        cmocka_unit_test(a_scram_verifier_checks_plain_passwords_too),
        cmocka_unit_test(verifiers),
        cmocka_unit_test(proofs),
        cmocka_unit_test(a_right_password_is_remembered_for_a_while),
        cmocka_unit_test(a_change_of_the_account_ends_what_was_remembered),
        cmocka_unit_test(a_storm_of_one_login_computes_once),
        cmocka_unit_test(more_than_may_wait_are_told_busy),
        cmocka_unit_test(forgotten_asks_are_never_answered),
        cmocka_unit_test(what_was_left_is_not_joined),
        cmocka_unit_test(what_nobody_waits_for_is_not_computed),
        cmocka_unit_test(tokens),
        cmocka_unit_test(without_keys_no_token_is_good),
        cmocka_unit_test(certificates),
    };
    return cmocka_run_group_tests_name("authenticator", tests, NULL, NULL);
}
