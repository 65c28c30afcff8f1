/* SPDX-License-Identifier: Apache-2.0 */
/* ucl: the grammar row by row, every prefix of a file, and an error with its line for each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/must.h"
#include "core/base/ucl.h"
#include <stdlib.h>

static void show(struct buf *out, const struct ucl_node *node);

static void show_children(struct buf *out, const struct ucl_node *node)
{
    size_t count = 0;
    for (const struct ucl_node *child = node->first; child; child = child->next, count++)
        show(out, child);
    assert_int_equal(count, node->child_count);
}

/* key'label'=<text>@line, [...] for lists, {...} for sections */
static void show(struct buf *out, const struct ucl_node *node)
{
    assert_int_equal(buf_append(out, node->key), STATUS_OK);
    if (node->label.ptr)
        assert_int_equal(buf_printf(out, "'%.*s'", SLICE_ARG(node->label)), STATUS_OK);
    if (node->kind == UCL_TEXT) {
        assert_int_equal(buf_printf(out, "<%.*s>", SLICE_ARG(node->text)), STATUS_OK);
    } else {
        assert_int_equal(buf_append(out, node->kind == UCL_LIST ? SLICE("[") : SLICE("{")), 0);
        show_children(out, node);
        assert_int_equal(buf_append(out, node->kind == UCL_LIST ? SLICE("]") : SLICE("}")), 0);
    }
    assert_int_equal(buf_printf(out, "@%d ", node->line), STATUS_OK);
}

/* Parses a copy of exactly the text's size, so that reading past its end is caught. */
static enum status parse(struct slice text, struct buf *out, struct ucl_error *error)
{
    struct arena arena;
    struct ucl_node *root = NULL;
    char *copy = mem_alloc(text.len);
    memcpy(copy, text.ptr, text.len);
    arena_init(&arena);
    enum status st = ucl_parse(slice_of(copy, text.len), &arena, &root, error);
    if (st == STATUS_OK)
        show_children(out, root);
    else
        error->key = SLICE_NONE; /* it lies in the copy */
    arena_done(&arena);
    free(copy);
    return st;
}

static void the_grammar(void **state)
{
    static const struct {
        const char *text, *tree;
    } rows[] = {
        { "", "" },
        { " \r\n\t", "" },
        { "\xef\xbb\xbfk=v", "k<v>@1 " },
        { "k = v;", "k<v>@1 " },
        { "k: v", "k<v>@1 " },
        { "k=v", "k<v>@1 " },
        { "k\t=\tv\r\nx=y", "k<v>@1 x<y>@2 " },
        { "a=1;b=2,c=3\nd=4", "a<1>@1 b<2>@1 c<3>@1 d<4>@2 " },
        { ";;a=1;;", "a<1>@1 " },
        { "\"quoted key\" = v", "quoted key<v>@1 " },
        { "a-b_C9 = on", "a-b_C9<on>@1 " },
        { "u = redis://user@127.0.0.1:6379/0", "u<redis://user@127.0.0.1:6379/0>@1 " },
        { "p = /var/lib/kilat", "p</var/lib/kilat>@1 " },
        { "k = \"\"", "k<>@1 " },
        { "k = \"a b;#{}[]\"", "k<a b;#{}[]>@1 " },
        { "k = \"\\\"\\\\\\/\\n\\t\\r\\b\\f\"", "k<\"\\/\n\t\r\b\f>@1 " },
        { "k = \"\\u0041\\u00e9\\u20AC\"", "k<A\xc3\xa9\xe2\x82\xac>@1 " },
        { "k =\n  v", "k<v>@1 " },
        { "# c\nk = v # c\n/* c\n /* nested */ c */ x = /* c */ y", "k<v>@2 x<y>@4 " },
        { "k = v /* to the\nend */; x = y", "k<v>@1 x<y>@2 " },
        { "l = []", "l[]@1 " },
        { "l = [a]", "l[<a>@1 ]@1 " },
        { "l = [a, \"b c\" , d,]; x = y", "l[<a>@1 <b c>@1 <d>@1 ]@1 x<y>@1 " },
        { "l = [\n a, # one\n b\n]\nx=y", "l[<a>@2 <b>@3 ]@1 x<y>@5 " },
        { "s { }", "s{}@1 " },
        { "s{a=1}t{b=2}", "s{a<1>@1 }@1 t{b<2>@1 }@1 " },
        { "s {\n a = 1;\n b { c = 2 }\n}", "s{a<1>@2 b{c<2>@3 }@3 }@1 " },
        { "s = { a = 1 }; x = y", "s{a<1>@1 }@1 x<y>@1 " },
        { "s \"the name\" { a = 1; }", "s'the name'{a<1>@1 }@1 " },
        { "s \"\" { }", "s''{}@1 " },
        { "s name { }", "s'name'{}@1 " },
        { "s \"*\" { } s \"b\" { }", "s'*'{}@1 s'b'{}@1 " },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out;
        struct ucl_error error = { 0 };
        buf_init(&out, 10000);
        assert_int_equal(parse(slice_str(rows[i].text), &out, &error), STATUS_OK);
        assert_int_equal(buf_append(&out, slice_of("", 1)), STATUS_OK);
        assert_string_equal(out.ptr, rows[i].tree);
        buf_done(&out);
    }
}

static void errors_name_the_line_and_what_to_do(void **state)
{
    static const struct {
        struct slice text;
        int line;
        const char *what;
    } rows[] = {
        { SLICE("\nk"), 2, "expected `= value;`" },
        { SLICE("\n= v"), 2, "expected the name" },
        { SLICE("k =\n\n"), 3, "a value is missing" },
        { SLICE("k = ;"), 1, "a value is missing" },
        { SLICE("k = a b"), 1, "quote a value with blanks" },
        { SLICE("k = \"a\" \"b\""), 1, "quote a value with blanks" },
        { SLICE("k = a=b"), 1, "quote a value with blanks" },
        { SLICE("\n}\n"), 2, "a } too many" },
        { SLICE("s {\n\n\n"), 1, "the section is not closed" },
        { SLICE("a=b\ns \"x\" {\nt {\n}\n"), 2, "the section is not closed" },
        { SLICE("l = [\na\n"), 1, "a list is not closed" },
        { SLICE("l = [\na,\n"), 1, "a list is not closed" },
        { SLICE("l = [a b]"), 1, "separated by commas" },
        { SLICE("l = [{}]"), 1, "a value is missing" },
        { SLICE("l = [[a]]"), 1, "a value is missing" },
        { SLICE("\nk = \"ab\nc\""), 2, "a string is not closed" },
        { SLICE("k = \"ab"), 1, "a string is not closed" },
        { SLICE("k = \"ab\\"), 1, "a string is not closed" },
        { SLICE("k = \"ab\\\n\""), 1, "a string is not closed" },
        { SLICE("k = \"\\q\""), 1, "unknown escape" },
        { SLICE("k = \"\\u12\""), 1, "four hexadecimal digits" },
        { SLICE("k = \"\\u12g4\""), 1, "four hexadecimal digits" },
        { SLICE("k = \"\\u0000\""), 1, "names no character" },
        { SLICE("k = \"\\udc00\""), 1, "names no character" },
        { SLICE("a=b\n/* c\n\n"), 2, "a comment is not closed" },
        { SLICE("a=b /* /* */"), 1, "a comment is not closed" },
        { SLICE("a=b\n\x01"), 2, "control character" },
        { SLICE("a=b\0"), 1, "control character" },
        { SLICE("a{a{a{a{a{a{a{a{a{}}}}}}}}}"), 1, "nested too deep" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ucl_error error = { 0 };
        assert_int_equal(parse(rows[i].text, NULL, &error), STATUS_BAD);
        if (!strstr(error.what, rows[i].what) || error.line != rows[i].line)
            fail_msg("%.*s: line %d: %s", SLICE_ARG(rows[i].text), error.line, error.what);
    }
}

static void errors_know_the_statement(void **state)
{
    struct arena arena;
    struct ucl_node *root;
    struct ucl_error error;
    arena_init(&arena);
    assert_int_equal(ucl_parse(SLICE("s {\n inner = \"x\n}"), &arena, &root, &error), STATUS_BAD);
    assert_true(slice_eq(error.key, SLICE("inner")));
    assert_int_equal(error.line, 2);
    arena_done(&arena);
}

/* Every prefix of a file ends in a tree or an error, and never reads past its end. */
static void every_prefix_is_answered(void **state)
{
    struct slice text =
        SLICE("# c\nk = \"a\\u00e9\\n\"; s \"n\" { l = [a, \"b\"]\n/* x */ t { u: 5min } }\n");
    for (size_t len = 0; len <= text.len; len++) {
        struct buf out;
        struct ucl_error error = { 0 };
        buf_init(&out, 10000);
        enum status st = parse(slice_head(text, len), &out, &error);
        assert_true(st == STATUS_OK || (error.line >= 1 && error.line <= 3 && error.what));
        assert_true(len < text.len || st == STATUS_OK);
        buf_done(&out);
    }
}

static void size_and_number_of_nodes_are_bounded(void **state)
{
    struct ucl_error error = { 0 };
    char *text = mem_alloc(UCL_SIZE_MAX + 1);
    memset(text, '\n', UCL_SIZE_MAX + 1);
    assert_int_equal(parse(slice_of(text, UCL_SIZE_MAX), NULL, &error), STATUS_OK);
    assert_int_equal(parse(slice_of(text, UCL_SIZE_MAX + 1), NULL, &error), STATUS_BAD);
    assert_non_null(strstr(error.what, "larger"));
    for (size_t i = 0; i < 4 * (UCL_NODES_MAX + 1); i += 4)
        memcpy(text + i, "a=b;", 4);
    struct buf out;
    buf_init(&out, UCL_SIZE_MAX);
    assert_int_equal(parse(slice_of(text, 4 * (UCL_NODES_MAX - 1)), &out, &error), STATUS_OK);
    assert_int_equal(parse(slice_of(text, 4 * UCL_NODES_MAX), &out, &error), STATUS_BAD);
    assert_non_null(strstr(error.what, "too many"));
    buf_done(&out);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_grammar),
        cmocka_unit_test(errors_name_the_line_and_what_to_do),
        cmocka_unit_test(errors_know_the_statement),
        cmocka_unit_test(every_prefix_is_answered),
        cmocka_unit_test(size_and_number_of_nodes_are_bounded),
    };
    return cmocka_run_group_tests_name("ucl", tests, NULL, NULL);
}
