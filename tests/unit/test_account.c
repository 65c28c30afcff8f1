/* SPDX-License-Identifier: Apache-2.0 */
/* A user's line: what is read, what is written back, and which word an error names. */
#include "core/base/must.h"
#include "core/smtp/account.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define HASH                                                                                       \
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$"                                       \
    "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm8"
#define KEY32 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define SCRAM "4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEY32 "," KEY32

static struct account *parse(const char *line, char *why, size_t len)
{
    struct account *a = NULL;
    struct buf error;
    buf_init(&error, 512);
    enum status st = account_parse(slice_str(line), &a, &error);
    assert_true(st == STATUS_OK || st == STATUS_BAD);
    assert_true((st == STATUS_OK) == (a != NULL));
    assert_true((st == STATUS_OK) == (error.len == 0));
    snprintf(why, len, "%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return a;
}

static struct account *parse_good(const char *line)
{
    char why[512];
    struct account *a = parse(line, why, sizeof why);
    if (!a)
        fail_msg("%s: %s", line, why);
    return a;
}

static void check_written(const struct account *a, const char *want)
{
    struct buf line;
    buf_init(&line, ACCOUNT_LINE_MAX);
    assert_int_equal(account_format(a, &line), STATUS_OK);
    assert_int_equal(line.len, strlen(want));
    assert_memory_equal(line.ptr, want, line.len);
    buf_done(&line);
}

static void a_whole_line(void **state)
{
    struct account *a = parse_good("alice@example.org tenant=acme argon2id=" HASH " scram=" SCRAM
                                   " disabled sender=@example.org sender=billing@example.net "
                                   "recipients_per_minute=60 recipients_per_day=5000");
    assert_string_equal(a->name, "alice@example.org");
    assert_string_equal(a->tenant, "acme");
    assert_string_equal(a->argon2, HASH);
    assert_true(a->is_disabled && a->has_scram);
    assert_int_equal(a->scram.iterations, 4096);
    assert_int_equal(a->scram.salt_len, 16);
    assert_int_equal(a->scram.salt[0], 0x5b);
    assert_int_equal(a->scram.stored_key[31], 31);
    assert_int_equal(a->scram.server_key[1], 1);
    assert_int_equal(a->senders.count, 2);
    assert_string_equal(a->senders.patterns[1], "billing@example.net");
    assert_int_equal(a->recipients_per_minute, 60);
    assert_int_equal(a->recipients_per_day, 5000);
    account_unref(a);
}

static void a_name_alone(void **state)
{
    struct account *a = parse_good("alice");
    assert_string_equal(a->name, "alice");
    assert_string_equal(a->tenant, "");
    assert_null(a->argon2);
    assert_false(a->has_scram || a->is_disabled);
    assert_int_equal(a->senders.count, 0);
    assert_int_equal(a->recipients_per_minute + a->recipients_per_day, 0);
    account_unref(a);
}

/* Written in one order, whatever the order was; what is written reads the same. */
static void written_lines(void **state)
{
    static const char *const lines[][2] = {
        { "alice", "alice" },
        { "disabled", "disabled" }, /* a name is a name */
        { "disabled disabled", "disabled disabled" },
        { "a=b tenant=t", "a=b tenant=t" },
        { "m\xc3\xbcller sender=@m\xc3\xbcller.example",
          "m\xc3\xbcller sender=@m\xc3\xbcller.example" },
        { "alice recipients_per_day=7 disabled tenant=a.b-c_D sender=* argon2id=" HASH,
          "alice tenant=a.b-c_D argon2id=" HASH " disabled sender=* recipients_per_day=7" },
        { "alice lane=bulk recipients_per_day=7", "alice recipients_per_day=7 lane=bulk" },
        { "alice lane=urgent", "alice lane=urgent" },
        { "alice scram=" SCRAM " tenant=acme", "alice tenant=acme scram=" SCRAM },
        { "alice sender=b@x.example sender=a@x.example",
          "alice sender=b@x.example sender=a@x.example" },
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct account *a = parse_good(lines[i][0]), *again = parse_good(lines[i][1]);
        check_written(a, lines[i][1]);
        check_written(again, lines[i][1]);
        account_unref(a);
        account_unref(again);
    }
}

/* Every error names the word that is wrong. */
static void bad_lines(void **state)
{
    static const char *const lines[][2] = {
        { "", "\"\": is not a name" },
        { " alice", "\"\": is not a name" },
        { "#alice", "\"#alice\": is not a name" },
        { "al\tice", "is not a name" },
        { "alice\r", "is not a name" },
        { "al\x7fice", "is not a name" },
        { "al\xc2\xa0ice", "is not a name" },     /* a space that does not break */
        { "al\xe2\x80\xaeice", "is not a name" }, /* writes from right to left */
        { "al\xc3", "is not a name" },
        { "al\xc0\xaf", "is not a name" },
        { "al\xed\xa0\x80", "is not a name" },
        { "al\xf4\x90\x80\x80", "is not a name" },
        { "alice ", "\"\": no such word" },
        { "alice  disabled", "\"\": no such word (two spaces?)" },
        { "alice disabled disabled", "\"disabled\": stands there twice" },
        { "alice Disabled", "\"Disabled\": no such word" },
        { "alice disabled=no", "\"disabled=no\": no such word" },
        { "alice lane=", "\"lane=\": is not urgent, normal or bulk" },
        { "alice lane=slow", "\"lane=slow\": is not urgent, normal or bulk" },
        { "alice colour=red", "\"colour=red\": no such word" },
        { "alice tenant", "\"tenant\": no such word" },
        { "alice tenant=", "\"tenant=\": is not 1 to 32 letters" },
        { "alice tenant=a/b", "\"tenant=a/b\": is not 1 to 32 letters" },
        { "alice tenant=a234567890123456789012345678901234", "is not 1 to 32 letters" },
        { "alice tenant=a tenant=a", "\"tenant=a\": stands there twice" },
        { "alice sender=", "\"sender=\": is not user@domain" },
        { "alice sender=a@b@c", "\"sender=a@b@c\": is not user@domain" },
        { "alice recipients_per_day=0", "\"recipients_per_day=0\": is not a number" },
        { "alice recipients_per_day=007", "is not a number" },
        { "alice recipients_per_day=-1", "is not a number" },
        { "alice recipients_per_day=4000000001", "is not a number" },
        { "alice recipients_per_minute=99999999999", "is not a number" },
        { "alice recipients_per_minute=5x", "\"recipients_per_minute=5x\": is not a number" },
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        char why[512];
        assert_null(parse(lines[i][0], why, sizeof why));
        if (!strstr(why, lines[i][1]))
            fail_msg("line %zu: \"%s\" is not in: %s", i, lines[i][1], why);
    }
}

/* A hash bounds what a login costs; and no error shows it. */
static void bad_hashes(void **state)
{
    static const char *const words[] = {
        "argon2id=",
        "argon2id=secret",
        "argon2id=$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=0,t=2,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=19456,t=900,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=19456,t=2,p=99$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$t=2,m=19456,p=1$c29tZXNhbHQ$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=19456,t=2,p=1$c29t$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$c2hvcnQ",
        "argon2id=$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ=$Zm9vYmFyZm9vYmFyZm9vYmFyZm8",
        "argon2id=" HASH "$more",
        "scram=",
        "scram=4095,W22ZaJ0SNY7soEsUEjb6gQ==," KEY32 "," KEY32,
        "scram=9999999,W22ZaJ0SNY7soEsUEjb6gQ==," KEY32 "," KEY32,
        "scram=4096,c2hvcnQ=," KEY32 "," KEY32,
        "scram=4096,W22ZaJ0SNY7soEsUEjb6gQ," KEY32 "," KEY32,
        "scram=4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEY32,
        "scram=4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEY32 ",c2hvcnQ=",
        "scram=" SCRAM "," KEY32,
        "scram=4096,W22ZaJ0SNY7soEsUEjb6gQ==,AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g," KEY32,
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        char line[512], why[512], want[32];
        snprintf(line, sizeof line, "alice %s", words[i]);
        snprintf(want, sizeof want, "\"%.*s=\": is not ", (int)strcspn(words[i], "="), words[i]);
        assert_null(parse(line, why, sizeof why));
        if (strncmp(why, want, strlen(want)) != 0)
            fail_msg("%s: %s", words[i], why);
    }
}

static void long_things(void **state)
{
    char line[ACCOUNT_LINE_MAX + 2], why[512];
    memset(line, 'a', sizeof line);
    line[ACCOUNT_NAME_MAX] = '\0';
    account_unref(parse_good(line));
    line[ACCOUNT_NAME_MAX] = 'a';
    line[ACCOUNT_NAME_MAX + 1] = '\0';
    assert_null(parse(line, why, sizeof why));
    assert_non_null(strstr(why, "is not a name"));
    line[ACCOUNT_NAME_MAX + 1] = 'a';
    line[1] = ' ';
    line[ACCOUNT_LINE_MAX + 1] = '\0';
    assert_null(parse(line, why, sizeof why));
    assert_non_null(strstr(why, "the line is too long"));
}

static void what_does_not_fit_is_not_written(void **state)
{
    struct account *a = parse_good("alice tenant=acme");
    struct buf out;
    for (uint32_t max = 0; max < 17; max++) {
        buf_init(&out, max);
        assert_int_equal(account_format(a, &out), STATUS_FULL);
        assert_int_equal(out.len, 0);
        buf_done(&out);
    }
    buf_init(&out, 2 * ACCOUNT_LINE_MAX);
    for (int i = 0; i < 40; i++) {
        char pattern[ACCOUNT_NAME_MAX];
        snprintf(pattern, sizeof pattern, "@%0200d.example", i);
        for (size_t j = 50; j < 200; j += 50)
            pattern[j] = '.';
        assert_int_equal(sender_list_add(&a->senders, slice_str(pattern)), STATUS_OK);
    }
    assert_int_equal(account_format(a, &out), STATUS_FULL); /* it could not be read again */
    assert_int_equal(out.len, 0);
    buf_done(&out);
    account_unref(a);
}

static void references(void **state)
{
    struct account *a = parse_good("alice");
    assert_ptr_equal(account_ref(a), a);
    account_unref(a);
    assert_string_equal(a->name, "alice"); /* still there: ASan says otherwise */
    account_unref(a);
    account_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_line),
        cmocka_unit_test(a_name_alone),
        cmocka_unit_test(written_lines),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(bad_hashes),
        cmocka_unit_test(long_things),
        cmocka_unit_test(what_does_not_fit_is_not_written),
        cmocka_unit_test(references),
    };
    return cmocka_run_group_tests_name("account", tests, NULL, NULL);
}
