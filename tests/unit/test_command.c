/* SPDX-License-Identifier: Apache-2.0 */
/* Shows how command lines are taken apart, and which fault each broken one is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/smtp/command.h"

static enum command_error parse(struct slice line, struct smtp_command *c)
{
    memset(c, 0xee, sizeof(*c)); /* the parser writes every field */
    return smtp_command_parse(line, c);
}

static void assert_slice(struct slice got, const char *want, const char *input)
{
    if (!slice_eq(got, slice_str(want)))
        fail_msg("%s: got '%.*s', want '%s'", input, SLICE_ARG(got), want);
}

static const struct {
    const char *line;
    enum smtp_verb verb;
    const char *name, *argument;
} verb_rows[] = {
    { "EHLO a.example", SMTP_VERB_EHLO, "EHLO", "a.example" },
    { "ehlo a.example", SMTP_VERB_EHLO, "ehlo", "a.example" }, /* P-9 */
    { "hElO [1.2.3.4]", SMTP_VERB_HELO, "hElO", "[1.2.3.4]" },
    { "EHLO", SMTP_VERB_EHLO, "EHLO", "" },
    { "EHLO  two  words ", SMTP_VERB_EHLO, "EHLO", "two  words" },
    { "DATA", SMTP_VERB_DATA, "DATA", "" },
    { "DATA  \t ", SMTP_VERB_DATA, "DATA", "" }, /* RFC 5321 4.1.1 */
    { "DATA now", SMTP_VERB_DATA, "DATA", "now" },
    { "RSET", SMTP_VERB_RSET, "RSET", "" },
    { "noop anything at all", SMTP_VERB_NOOP, "noop", "anything at all" },
    { "VRFY bob", SMTP_VERB_VRFY, "VRFY", "bob" },
    { "EXPN list", SMTP_VERB_EXPN, "EXPN", "list" },
    { "HELP", SMTP_VERB_HELP, "HELP", "" },
    { "quit", SMTP_VERB_QUIT, "quit", "" },
    { "BDAT 10 LAST", SMTP_VERB_BDAT, "BDAT", "10 LAST" },
    { "STARTTLS", SMTP_VERB_STARTTLS, "STARTTLS", "" },
    { "AUTH PLAIN AGEAYg==", SMTP_VERB_AUTH, "AUTH", "PLAIN AGEAYg==" },
    { "ETRN #x", SMTP_VERB_ETRN, "ETRN", "#x" }, /* P-14 */
    { "TURN", SMTP_VERB_TURN, "TURN", "" },
    { "SEND FROM:<a@b>", SMTP_VERB_SEND, "SEND", "FROM:<a@b>" },
    { "SOML", SMTP_VERB_SOML, "SOML", "" },
    { "SAML", SMTP_VERB_SAML, "SAML", "" },
    { "XCLIENT NAME=x", SMTP_VERB_XCLIENT, "XCLIENT", "NAME=x" },
    /* P-13 */
    { "", SMTP_VERB_UNKNOWN, "", "" },
    { "   ", SMTP_VERB_UNKNOWN, "", "" },
    { " EHLO x", SMTP_VERB_UNKNOWN, "", "EHLO x" },
    { "EHLOX", SMTP_VERB_UNKNOWN, "EHLOX", "" },
    { "EHL", SMTP_VERB_UNKNOWN, "EHL", "" },
    { "XYZZY 1", SMTP_VERB_UNKNOWN, "XYZZY", "1" },
    { "MAILFROM:<a@b>", SMTP_VERB_UNKNOWN, "MAILFROM:<a@b>", "" },
    { "*", SMTP_VERB_UNKNOWN, "*", "" },
    { "SSH", SMTP_VERB_UNKNOWN, "SSH", "" },
    { "GETTING there", SMTP_VERB_UNKNOWN, "GETTING", "there" },
    /* P-25 */
    { "GET / HTTP/1.1", SMTP_VERB_FOREIGN, "GET", "/ HTTP/1.1" },
    { "post /x HTTP/1.0", SMTP_VERB_FOREIGN, "post", "/x HTTP/1.0" },
    { "CONNECT a:25 HTTP/1.1", SMTP_VERB_FOREIGN, "CONNECT", "a:25 HTTP/1.1" },
    { "PUT /", SMTP_VERB_FOREIGN, "PUT", "/" },
    { "HEAD /", SMTP_VERB_FOREIGN, "HEAD", "/" },
    { "OPTIONS *", SMTP_VERB_FOREIGN, "OPTIONS", "*" },
    { "PRI * HTTP/2.0", SMTP_VERB_FOREIGN, "PRI", "* HTTP/2.0" },
    { "Host: example.org", SMTP_VERB_FOREIGN, "Host:", "example.org" },
    { "host:example.org", SMTP_VERB_FOREIGN, "host:example.org", "" },
    { "SSH-2.0-OpenSSH_9.2", SMTP_VERB_FOREIGN, "SSH-2.0-OpenSSH_9.2", "" },
    { "*1", SMTP_VERB_FOREIGN, "*1", "" },
    { "*3", SMTP_VERB_FOREIGN, "*3", "" },
};

static void finds_the_verb(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(verb_rows); i++) {
        struct smtp_command c;
        assert_int_equal(parse(slice_str(verb_rows[i].line), &c), COMMAND_OK);
        if (c.verb != verb_rows[i].verb)
            fail_msg("%s: verb %d", verb_rows[i].line, c.verb);
        assert_slice(c.name, verb_rows[i].name, verb_rows[i].line);
        assert_slice(c.argument, verb_rows[i].argument, verb_rows[i].line);
        assert_int_equal(c.params.len, 0);
        assert_int_equal(c.path.mailbox.len, 0);
    }
}

#define LINE(text, why, address)                                                                   \
    {                                                                                              \
        SLICE(text), COMMAND_##why, ADDRESS_##address, text                                        \
    }

static const struct {
    struct slice line;
    enum command_error error;
    enum address_error address_error;
    const char *what;
} fault_rows[] = {
    LINE("MAIL FROM:<a@b>", OK, OK),
    LINE("mail from:<a@b>", OK, OK), /* P-9 */
    LINE("MAIL FROM:<> ", OK, OK),   /* P-37 */
    LINE("MAIL  FROM:<a@b>", OK, OK),
    LINE("MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME", OK, OK),
    LINE("MAIL FROM:<a@b> X-NEW", OK, OK),
    LINE("RCPT TO:<a@b>", OK, OK),
    LINE("rcpt To:<POSTMASTER>", OK, OK), /* P-36 */
    LINE("RCPT TO:<@x:a@b> NOTIFY=NEVER", OK, OK),
    /* P-38 */
    LINE("MAIL", BAD_SYNTAX, OK),
    LINE("MAIL FROM", BAD_SYNTAX, OK),
    LINE("MAIL FROM:", BAD_SYNTAX, OK),
    LINE("MAIL FROM: <a@b>", BAD_SYNTAX, OK),
    LINE("MAIL FROM :<a@b>", BAD_SYNTAX, OK),
    LINE("MAIL FROM:a@b", BAD_SYNTAX, OK),
    LINE("MAIL <a@b>", BAD_SYNTAX, OK),
    LINE("MAIL TO:<a@b>", BAD_SYNTAX, OK),
    LINE("RCPT FROM:<a@b>", BAD_SYNTAX, OK),
    LINE("RCPT TO:a@b", BAD_SYNTAX, OK),
    LINE("RCPT TO: <a@b>", BAD_SYNTAX, OK),
    /* P-32, P-36, P-49 */
    LINE("MAIL FROM:<a@b", BAD_ADDRESS, SYNTAX),
    LINE("MAIL FROM:<bob>", BAD_ADDRESS, NO_DOMAIN),
    LINE("MAIL FROM:<postmaster>", BAD_ADDRESS, NO_DOMAIN),
    LINE("RCPT TO:<>", BAD_ADDRESS, SYNTAX),
    LINE("RCPT TO:<bob>", BAD_ADDRESS, NO_DOMAIN),
    LINE("RCPT TO:<a@[x]>", BAD_ADDRESS, LITERAL),
    LINE("RCPT TO:<\"a\r\"@b>", BAD_ADDRESS, CONTROL), /* P-45 */
    LINE("RCPT TO:<a\0@b>", BAD_ADDRESS, CONTROL),
    LINE("MAIL FROM:<\xc3@b>", BAD_ADDRESS, NOT_ASCII), /* P-70 */
    /* P-41 */
    LINE("MAIL FROM:<a@b>SIZE=1", NO_SPACE, OK),
    LINE("MAIL FROM:<a@b>>", NO_SPACE, OK),
    LINE("MAIL FROM:<a@b>  SIZE=1", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> SIZE=1  BODY=7BIT", BAD_PARAM, OK),
    /* P-39 */
    LINE("MAIL FROM:<a@b> SIZE=", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> =1", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> SIZE=1=2", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> A=b=", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> -X=1", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> X_Y=1", BAD_PARAM, OK),
    LINE("MAIL FROM:<a@b> <c@d>", BAD_PARAM, OK),
    LINE("RCPT TO:<a@b>,<c@d>", NO_SPACE, OK),
    /* P-40 */
    LINE("MAIL FROM:<a@b> SIZE=1 SIZE=9", DUPLICATE_PARAM, OK),
    LINE("MAIL FROM:<a@b> SIZE=1 BODY=7BIT size=1", DUPLICATE_PARAM, OK),
    LINE("MAIL FROM:<a@b> X=1 X=1", OK, OK), /* unknown: the session refuses it anyway */
    /* P-18, P-19 */
    LINE("NOOP \0", BAD_OCTET, OK),
    LINE("NOOP a\rb", BAD_OCTET, OK),
    LINE("NOOP \x80", BAD_OCTET, OK),
    LINE("NOOP\tx", BAD_OCTET, OK),
    LINE("EHLO a\x7f", BAD_OCTET, OK),
    LINE("EHLO a\r", BAD_OCTET, OK),
    LINE("\0EHLO a", BAD_OCTET, OK),
    LINE("RSET\0", BAD_OCTET, OK),
    LINE("MAIL FROM:<a@b> SIZE=1\0", BAD_OCTET, OK),
    LINE("MAIL FROM:<a@b>\r", BAD_OCTET, OK),
    LINE("MAIL FROM:<a@b> X=\xff", BAD_OCTET, OK),
    LINE("MAIL FROM:\t<a@b>", BAD_OCTET, OK),
    LINE("MAIL\tFROM:<a@b>", BAD_OCTET, OK),
    LINE("MAIL \0FROM:<a@b>", BAD_OCTET, OK),
};

static void names_the_fault(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(fault_rows); i++) {
        /* A heap block of exactly this length, so that ASan sees a read past the end. */
        struct slice line = fault_rows[i].line;
        char *copy = malloc(line.len > 0 ? line.len : 1);
        memcpy(copy, line.ptr, line.len);
        struct smtp_command c;
        enum command_error error = parse(slice_of(copy, line.len), &c);
        if (error != fault_rows[i].error || c.address_error != fault_rows[i].address_error)
            fail_msg("row %zu, %s: got %d/%d", i, fault_rows[i].what, error, c.address_error);
        if (error != COMMAND_OK)
            assert_int_equal(c.params.len, 0);
        free(copy);
    }
}

static void foreign_verbs_show_through_garbage(void **state)
{
    struct smtp_command c;
    assert_int_equal(parse(SLICE("GET /\x80 HTTP/1.1"), &c), COMMAND_BAD_OCTET);
    assert_int_equal(c.verb, SMTP_VERB_FOREIGN);
    assert_int_equal(parse(SLICE("*1\r"), &c), COMMAND_BAD_OCTET);
    assert_int_equal(c.verb, SMTP_VERB_FOREIGN);
}

static void gives_path_and_parameters(void **state)
{
    struct smtp_command c;
    struct smtp_param p;
    struct slice line = SLICE("MAIL FROM:<\"a b\"@c.d> size=12 SmtpUtf8 X-1=a+b;c");
    assert_int_equal(parse(line, &c), COMMAND_OK);
    assert_slice(c.path.mailbox, "\"a b\"@c.d", "mailbox");
    assert_slice(c.path.domain, "c.d", "domain");
    struct slice params = c.params;
    assert_true(smtp_param_next(&params, &p));
    assert_int_equal(p.id, SMTP_PARAM_SIZE);
    assert_slice(p.keyword, "size", "keyword");
    assert_slice(p.value, "12", "value");
    assert_true(p.has_value);
    assert_true(smtp_param_next(&params, &p));
    assert_int_equal(p.id, SMTP_PARAM_SMTPUTF8);
    assert_false(p.has_value);
    assert_int_equal(p.value.len, 0);
    assert_true(smtp_param_next(&params, &p));
    assert_int_equal(p.id, SMTP_PARAM_UNKNOWN);
    assert_slice(p.value, "a+b;c", "value");
    assert_false(smtp_param_next(&params, &p));
    assert_int_equal(params.len, 0);
}

static void knows_every_parameter(void **state)
{
#define X(name, spelling)                                                                          \
    {                                                                                              \
        struct slice params = SLICE(" " spelling "=1");                                            \
        struct smtp_param p;                                                                       \
        assert_true(smtp_param_next(&params, &p));                                                 \
        assert_int_equal(p.id, SMTP_PARAM_##name);                                                 \
    }
    SMTP_PARAM_TABLE(X)
#undef X
}

/* P-56 */
static void reads_sizes(void **state)
{
    static const struct {
        const char *value;
        bool is_ok;
        uint64_t octets;
    } rows[] = {
        { "0", true, 0 },
        { "1", true, 1 },
        { "0000000000000000001", true, 1 },
        { "26214400", true, 26214400 },
        { "4294967296", true, 4294967296ull },
        { "9223372036854775808", true, 9223372036854775808ull },
        { "18446744073709551614", true, UINT64_MAX - 1 },
        { "18446744073709551615", true, UINT64_MAX },
        { "18446744073709551616", true, UINT64_MAX },
        { "18446744073709551620", true, UINT64_MAX },
        { "99999999999999999999", true, UINT64_MAX },
        { "", false, 0 },
        { "000000000000000000001", false, 0 },
        { "100000000000000000000", false, 0 },
        { "-1", false, 0 },
        { "+1", false, 0 },
        { "1k", false, 0 },
        { "0x10", false, 0 },
        { " 1", false, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t octets = 4711;
        assert_int_equal(smtp_size_parse(slice_str(rows[i].value), &octets), rows[i].is_ok);
        assert_true(octets == (rows[i].is_ok ? rows[i].octets : 4711));
    }
}

/* P-61, P-62 */
static void decodes_xtext(void **state)
{
    static const struct {
        struct slice in;
        const char *out; /* NULL: refused */
    } rows[] = {
        { SLICE(""), "" },
        { SLICE("abc@x.y"), "abc@x.y" },
        { SLICE("a+2Bb+3Dc"), "a+b=c" },
        { SLICE("+20+7E"), " ~" },
        { SLICE("+"), NULL },
        { SLICE("a+2"), NULL },
        { SLICE("+2b"), NULL },
        { SLICE("+G0"), NULL },
        { SLICE("a=b"), NULL },
        { SLICE("a b"), NULL },
        { SLICE("a\0b"), NULL },
        { SLICE("+0D+0A"), NULL },
        { SLICE("+00"), NULL },
        { SLICE("+7F"), NULL },
        { SLICE("+C3+A9"), NULL },
        { SLICE("\xc3\xa9"), NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[32];
        size_t len = 99;
        bool is_ok = smtp_xtext_decode(rows[i].in, out, &len);
        assert_int_equal(is_ok, rows[i].out != NULL);
        if (is_ok)
            assert_slice(slice_of(out, len), rows[i].out, "xtext");
        else
            assert_int_equal(len, 99);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_verb),
        cmocka_unit_test(names_the_fault),
        cmocka_unit_test(foreign_verbs_show_through_garbage),
        cmocka_unit_test(gives_path_and_parameters),
        cmocka_unit_test(knows_every_parameter),
        cmocka_unit_test(reads_sizes),
        cmocka_unit_test(decodes_xtext),
    };
    return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
