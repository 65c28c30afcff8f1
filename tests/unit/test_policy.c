/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suppression, rates and quotas: the words of the question, and what a real Redis answers.
 */
#include "tests/lib/queue_words.h"

#include "queue/policy.h"

#define SHARDS 16

/* --- addresses ------------------------------------------------------------------------------- */

static void an_address_has_one_form(void **state)
{
    static const char *const rows[][2] = {
        { "bob@example.org", "bob@example.org" },
        { "Bob@EXAMPLE.Org", "Bob@example.org" },
        { "\"bob\"@example.org", "bob@example.org" }, /* P-44 */
        { "\"b\\ob\"@Example.org", "bob@example.org" },
        { "\"b.ob\"@example.org", "b.ob@example.org" },
        { "\"b..ob\"@example.org", "\"b..ob\"@example.org" },
        { "\".bob\"@example.org", "\".bob\"@example.org" },
        { "\"a b\"@example.org", "\"a b\"@example.org" },
        { "\"a\\ b\"@example.org", "\"a b\"@example.org" },
        { "\"a@B\"@C.example", "\"a@B\"@c.example" },
        { "\"a\\\"b\"@c.example", "\"a\\\"b\"@c.example" },
        { "\"a\\\\\"@c.example", "\"a\\\\\"@c.example" },
        { "\"\"@c.example", "\"\"@c.example" },
        { "a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]" },
        { "Postmaster", "Postmaster" },
        { "d\xc3\xb6rte@ex\xc3\xa4mple.ORG", "d\xc3\xb6rte@ex\xc3\xa4mple.org" },
    };
    char out[POLICY_ADDRESS_MAX];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct slice got = policy_address(out, slice_str(rows[i][0]));
        if (!slice_eq(got, slice_str(rows[i][1])))
            fail_msg("%s became %.*s", rows[i][0], SLICE_ARG(got));
        char again[POLICY_ADDRESS_MAX];
        assert_true(slice_eq(policy_address(again, got), got));
    }
}

/* Other programs compute it too: it must never change. */
/* What a hard bounce says: in the one form, with a reason that a client may be told. */
static void a_hard_bounce_in_words(void **state)
{
    struct buf out;
    buf_init(&out, 1000);
    policy_hard_bounce(&out, SLICE("acme"), 3, SLICE("\"ann\"@X.Example"), SLICE("gone, 550\tx"));
    assert_true(slice_eq(buf_slice(&out), SLICE("acme\t3\tgone, 550\tann@x.example")));
    buf_done(&out);
}

static void a_tenant_has_its_shard(void **state)
{
    assert_int_equal(queue_tenant_shard(SLICE(""), 16), 2166136261u % 16);
    assert_int_equal(queue_tenant_shard(SLICE("a"), 16), 0xe40c292cu % 16);
    assert_int_equal(queue_tenant_shard(SLICE("foobar"), 100), 0xbf9cf968u % 100);
    bool seen[SHARDS] = { false };
    uint32_t used = 0;
    for (int i = 0; i < 100; i++) {
        char name[16];
        int len = snprintf(name, sizeof name, "tenant%d", i);
        seen[queue_tenant_shard(slice_of(name, (size_t)len), SHARDS)] = true;
    }
    for (int i = 0; i < SHARDS; i++)
        used += seen[i];
    assert_int_equal(used, SHARDS);
}

/* --- words ----------------------------------------------------------------------------------- */

static char acme_name[] = "acme";

static void expect_words(const struct smtp_admission *a, const char *want)
{
    struct policy_question q;
    char got[1024] = "";
    policy_ask(&q, a, SHARDS);
    for (size_t i = 0; i < q.argc; i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%.*s", i ? "|" : "", SLICE_ARG(q.argv[i]));
    }
    assert_string_equal(got, want);
}

static void nothing_is_asked_without_need(void **state)
{
    struct config_tenant free_tenant = { .name = acme_name };
    struct smtp_admission a = { .rcpt = SLICE("bob@example.org") };
    assert_false(policy_is_asked(&a));
    a.tenant = &free_tenant;
    assert_false(policy_is_asked(&a));
    a.user_per_day = 5; /* of nobody */
    assert_false(policy_is_asked(&a));
    a.user = SLICE("ann");
    assert_true(policy_is_asked(&a));
    a.user_per_day = 0;
    free_tenant.suppression = true;
    assert_true(policy_is_asked(&a));
}

/* Without limits by a function that writes nothing: no octet for the AOF. */
static void a_question_in_redis_words(void **state)
{
    struct config_tenant tenant = { .name = acme_name, .suppression = true };
    struct smtp_admission a = { .tenant = &tenant, .rcpt = SLICE("Bob@Example.ORG") };
    expect_words(&a, "FCALL|kilat_suppressed|1|{q15}n|acme|Bob@example.org");
    tenant.recipients_per_minute = 7;
    expect_words(&a, "FCALL|kilat_admit|1|{q15}n|acme|Bob@example.org|7|0||0|0");
    a.user_per_minute = 3;
    expect_words(&a, "FCALL|kilat_admit|1|{q15}n|acme|Bob@example.org|7|0||0|0");
    a.user = SLICE("ann@acme.test");
    a.user_per_day = 4000000000u;
    tenant.suppression = false;
    expect_words(&a, "FCALL|kilat_admit|1|{q15}n|acme||7|0|ann@acme.test|3|4000000000");
}

static void an_answer_from_redis(void **state)
{
    static const struct {
        int type;
        const char *text;
        enum smtp_admit want;
        const char *reason;
    } rows[] = {
        { REDIS_REPLY_STRING, "ok", SMTP_ADMIT_OK, "" },
        { REDIS_REPLY_STRING, "rate", SMTP_ADMIT_RATE, "" },
        { REDIS_REPLY_STRING, "quota", SMTP_ADMIT_QUOTA, "" },
        { REDIS_REPLY_STRING, "suppressed hard bounce", SMTP_ADMIT_SUPPRESSED, "hard bounce" },
        { REDIS_REPLY_STRING, "suppressed ", SMTP_ADMIT_SUPPRESSED, "" },
        /* A reason must not become a reply of its own. */
        { REDIS_REPLY_STRING, "suppressed no\r\n250 ok", SMTP_ADMIT_SUPPRESSED, "no" },
        { REDIS_REPLY_STRING, "suppressed\xff", SMTP_ADMIT_DOWN, "" },
        { REDIS_REPLY_STRING, "", SMTP_ADMIT_DOWN, "" },
        { REDIS_REPLY_STATUS, "ok", SMTP_ADMIT_DOWN, "" },
        { REDIS_REPLY_ERROR, "OOM command not allowed", SMTP_ADMIT_DOWN, "" },
        { REDIS_REPLY_NIL, "", SMTP_ADMIT_DOWN, "" },
    };
    struct slice reason;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", rows[i].text);
        redisReply r = { .type = rows[i].type, .str = text, .len = strlen(text) };
        assert_int_equal(policy_answer(&r, &reason), rows[i].want);
        assert_true(slice_eq(reason, slice_str(rows[i].reason)));
    }
    assert_int_equal(policy_answer(NULL, &reason), SMTP_ADMIT_DOWN);
}

/* --- Redis ----------------------------------------------------------------------------------- */

static void the_list_is_looked_at_first(void **state)
{
    SAY("HSET", TAG "s:acme", "bob@example.org", "hard bounce");
    expect(FN("suppressed", "acme", "bob@example.org"), "suppressed hard bounce");
    expect(FN("suppressed", "acme", "ann@example.org"), "ok");
    expect(FN("suppressed", "other", "bob@example.org"),
           "ok"); /* each tenant has its own (P-238) */
    expect(FN("admit", "acme", "bob@example.org", "1", "1", "u", "1", "1"),
           "suppressed hard bounce");
    expect(SAY("KEYS", TAG "a:*"), "[ ]"); /* and was not counted */
    expect(FN("admit", "acme", "", "1", "0", "", "0", "0"), "ok");
}

/* Asks n times; the answers must be ok but for the last. */
static void admit_until(int n, const char *last, const char *per_minute, const char *per_day,
                        const char *user, const char *user_per_minute, const char *user_per_day)
{
    for (int i = 0; i <= n; i++)
        expect(FN("admit", "acme", "x@example.org", per_minute, per_day, user, user_per_minute,
                  user_per_day),
               i < n ? "ok" : last);
}

static void each_limit_holds(void **state)
{
    admit_until(5, "rate", "5", "0", "", "0", "0");
    SAY("FLUSHALL");
    admit_until(5, "quota", "0", "5", "", "0", "0");
    SAY("FLUSHALL");
    admit_until(4, "rate", "9", "9", "ann", "4", "9");
    admit_until(4, "quota", "9", "9", "bea", "9", "4"); /* a user's limit is hers alone */
    admit_until(1, "rate", "9", "99", "eve", "9", "9"); /* and 9 were the tenant's */
}

/* What is refused is not counted, in none of the four. */
static void only_what_passes_counts(void **state)
{
    admit_until(2, "quota", "9", "9", "ann", "9", "2");
    for (int i = 0; i < 20; i++)
        expect(FN("admit", "acme", "x@example.org", "9", "9", "ann", "9", "2"), "quota");
    admit_until(7, "rate", "9", "99", "bea", "99", "99");
}

static long sum_of(const char *key)
{
    long sum = 0;
    char *rest = strchr(SAY("GET", key), ' ');
    while (rest && *rest)
        sum += strtol(rest, &rest, 10);
    return sum;
}

/* Puts recipients into slots of the past: `ago` slots before the one of now. */
static void count_in_the_past(const char *key, long slot_ms, int ago, int n)
{
    redisReply *r = redisCommand(redis, "TIME");
    long long now = atoll(r->element[0]->str) * 1000 + atoll(r->element[1]->str) / 1000;
    freeReplyObject(r);
    char text[64];
    snprintf(text, sizeof text, "%lld %d", now / slot_ms - ago, n);
    SAY("SET", key, text);
}

static void counts_slide(void **state)
{
    static const struct {
        const char *key;
        long slot_ms;
        int slots;
        const char *minute, *day, *answer;
    } rows[] = {
        { TAG "a:acme:m", 5000, 12, "3", "0", "rate" },
        { TAG "a:acme:d", 3600000, 24, "0", "3", "quota" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        SAY("DEL", rows[i].key);
        count_in_the_past(rows[i].key, rows[i].slot_ms, rows[i].slots - 1, 3);
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), rows[i].answer);
        count_in_the_past(rows[i].key, rows[i].slot_ms, rows[i].slots + 1, 3);
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), "ok");
        assert_int_equal(sum_of(rows[i].key), 1);
        count_in_the_past(rows[i].key, rows[i].slot_ms, 3, 2);
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), "ok");
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), rows[i].answer);
        assert_int_equal(sum_of(rows[i].key), 3);
        /* A clock that stepped back forgets nothing. */
        count_in_the_past(rows[i].key, rows[i].slot_ms, -40, 2);
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), "ok");
        expect(FN("admit", "acme", "", rows[i].minute, rows[i].day, "", "0", "0"), rows[i].answer);
    }
    long ttl = atol(SAY("PTTL", TAG "a:acme:m")), day_ttl = atol(SAY("PTTL", TAG "a:acme:d"));
    assert_in_range(ttl, 60000, 65000);
    assert_in_range(day_ttl, 86400000, 90000000);
}

/* P-222: no address and no name of a user in any key. */
static void names_are_no_keys(void **state)
{
    expect(FN("admit", "acme", "x@example.org", "9", "9", "ann@acme.test", "9", "9"), "ok");
    expect(SAY("EXISTS", TAG "a:acme:m", TAG "a:acme:d"), "2");
    expect(SAY("KEYS", "*@*"), "[ ]");
    expect(SAY("KEYS", "*ann*"), "[ ]");
    expect(SAY("DBSIZE"), "4");
}

static void a_full_redis_still_answers(void **state)
{
    SAY("HSET", TAG "s:acme", "bob@example.org", "gone");
    expect(SAY("CONFIG", "SET", "maxmemory", "1mb"), "OK");
    expect(FN("suppressed", "acme", "bob@example.org"), "suppressed gone");
    expect(FN("admit", "acme", "bob@example.org", "9", "9", "ann", "9", "9"), "suppressed gone");
    expect(FN("admit", "acme", "ann@example.org", "1", "9", "ann", "9", "9"), "ok");
    expect(FN("admit", "acme", "ann@example.org", "1", "9", "ann", "9", "9"), "rate");
}

/* What asks without limits must not be written, replicated, or fsynced. */
static void looking_up_writes_nothing(void **state)
{
    SAY("HSET", TAG "s:acme", "bob@example.org", "gone");
    redisReply *r = redisCommand(redis, "INFO persistence");
    char *changes = strstr(r->str, "rdb_changes_since_last_save:");
    long before = atol(changes + 28);
    freeReplyObject(r);
    FN("suppressed", "acme", "bob@example.org");
    FN("suppressed", "acme", "ann@example.org");
    r = redisCommand(redis, "INFO persistence");
    assert_int_equal(atol(strstr(r->str, "rdb_changes_since_last_save:") + 28), before);
    freeReplyObject(r);
    expect(SAY("FCALL_RO", "kilat_suppressed", "1", TAG "n", "acme", "bob@example.org"),
           "suppressed gone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_has_one_form),
        cmocka_unit_test(a_hard_bounce_in_words),
        cmocka_unit_test(a_tenant_has_its_shard),
        cmocka_unit_test(nothing_is_asked_without_need),
        cmocka_unit_test(a_question_in_redis_words),
        cmocka_unit_test(an_answer_from_redis),
        row(the_list_is_looked_at_first),
        row(each_limit_holds),
        row(only_what_passes_counts),
        row(counts_slide),
        row(names_are_no_keys),
        row(a_full_redis_still_answers),
        row(looking_up_writes_nothing),
    };
    return cmocka_run_group_tests_name("policy", tests, start_server, stop_server);
}
