/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ucl - a recursive-descent reader; one function per rule of the grammar in ucl.h.
 *
 * The first error ends the parse: every rule returns false then and writes nothing more. Recursion
 * is as deep as the braces, which are bounded. Strings without escapes are slices of the input;
 * the others are copied to the arena.
 *
 * To extend the grammar: a rule here, its line in ucl.h, rows in test_ucl.c and a fuzz seed.
 */
#include "core/base/ucl.h"
#include "core/base/must.h"

struct parser {
    const char *at, *end; /* borrowed */
    int line;
    int depth;
    size_t nodes;
    struct slice key; /* of the statement being read, for errors */
    struct arena *arena;
    struct ucl_error *error;
};

static bool fail_at(struct parser *p, int line, const char *what)
{
    *p->error = (struct ucl_error){ .line = line, .key = p->key, .what = what };
    return false;
}

static bool fail(struct parser *p, const char *what)
{
    return fail_at(p, p->line, what);
}

/* The octet at the cursor, or NUL at the end (the text itself holds none). */
static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static char peek_next(const struct parser *p)
{
    return p->end - p->at > 1 ? p->at[1] : '\0';
}

static bool is_word(char c)
{
    return c && !strchr(" \t\r\n;,{}[]\"#=", c);
}

static bool is_key(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static void skip_line_comment(struct parser *p)
{
    while (p->at < p->end && *p->at != '\n')
        p->at++;
}

static bool skip_block_comment(struct parser *p)
{
    int opened_at = p->line;
    int open = 0;
    do {
        if (p->at == p->end)
            return fail_at(p, opened_at, "a comment is not closed: end it with */");
        if (*p->at == '\n')
            p->line++;
        if (*p->at == '/' && peek_next(p) == '*') {
            open++;
            p->at++;
        } else if (*p->at == '*' && peek_next(p) == '/') {
            open--;
            p->at++;
        }
        p->at++;
    } while (open);
    return true;
}

/* Blanks and comments; ends of lines too when across_lines. */
static bool skip_space(struct parser *p, bool across_lines)
{
    for (;;) {
        char c = peek(p);
        if (c == '#') {
            skip_line_comment(p);
        } else if (c == '/' && peek_next(p) == '*') {
            if (!skip_block_comment(p))
                return false;
        } else if (c == ' ' || c == '\t' || c == '\r' || (c == '\n' && across_lines)) {
            p->line += c == '\n';
            p->at++;
        } else {
            return true;
        }
    }
}

static struct ucl_node *new_node(struct parser *p, struct slice key)
{
    if (p->nodes++ == UCL_NODES_MAX) {
        (void)fail(p, "the file has too many settings");
        return NULL;
    }
    struct ucl_node *node = arena_alloc(p->arena, sizeof *node);
    node->line = p->line;
    node->key = key;
    return node;
}

static void add_child(struct ucl_node *parent, struct ucl_node *child)
{
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->child_count++;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* The four digits after \u; half of a surrogate pair and NUL are no characters. */
static bool read_code(struct parser *p, const char *digits, const char *end, unsigned *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = digits + i < end ? hex_digit(digits[i]) : -1;
        if (digit < 0)
            return fail(p, "\\u in a string needs four hexadecimal digits");
        *code = *code << 4 | (unsigned)digit;
    }
    if (*code == 0 || (*code >= 0xd800 && *code <= 0xdfff))
        return fail(p, "\\u in a string names no character");
    return true;
}

/* What a single letter after a backslash stands for; NUL: nothing. */
static char escaped_letter(char c)
{
    static const char letters[] = "\"\\/nrtbf", meaning[] = "\"\\/\n\r\t\b\f";
    const char *found = c ? strchr(letters, c) : NULL;
    return found ? meaning[found - letters] : '\0';
}

/* Escapes only ever shrink, so the copy fits in as many octets as the source. */
static bool unescape(struct parser *p, struct slice raw, struct slice *out)
{
    char *copy = arena_alloc(p->arena, raw.len);
    size_t len = 0;
    for (const char *at = raw.ptr, *end = raw.ptr + raw.len; at < end; at++) {
        if (*at != '\\') {
            copy[len++] = *at;
            continue;
        }
        at++; /* the string's end was found behind the escape, so there is one more octet */
        unsigned code;
        if (*at == 'u') {
            if (!read_code(p, at + 1, end, &code))
                return false;
            len += put_utf8(copy + len, code);
            at += 4;
        } else if ((copy[len++] = escaped_letter(*at)) == '\0') {
            return fail(p, "a string holds an unknown escape: write \\\\ for a backslash");
        }
    }
    *out = slice_of(copy, len);
    return true;
}

static bool read_quoted(struct parser *p, struct slice *out)
{
    const char *start = ++p->at;
    bool has_escape = false;
    for (; peek(p) != '"'; p->at++) {
        if (peek(p) == '\\' && peek_next(p) != '\n' && p->end - p->at > 1) {
            has_escape = true;
            p->at++;
        } else if (p->at == p->end || *p->at == '\n') {
            return fail(p, "a string is not closed: end it with \" on the same line");
        }
    }
    *out = slice_of(start, (size_t)(p->at - start));
    p->at++;
    return !has_escape || unescape(p, *out, out);
}

static struct slice read_while(struct parser *p, bool (*wanted)(char))
{
    const char *start = p->at;
    while (p->at < p->end && wanted(*p->at))
        p->at++;
    return slice_of(start, (size_t)(p->at - start));
}

static bool read_text(struct parser *p, struct slice *out)
{
    if (peek(p) == '"')
        return read_quoted(p, out);
    *out = read_while(p, is_word);
    return out->len > 0 || fail(p, "a value is missing: write a word, a number, or a \"string\"");
}

static bool read_list(struct parser *p, struct ucl_node *list)
{
    list->kind = UCL_LIST;
    p->at++;
    for (;;) {
        if (!skip_space(p, true))
            return false;
        if (peek(p) == ']')
            break;
        if (p->at == p->end)
            return fail_at(p, list->line, "a list is not closed: end it with ]");
        struct ucl_node *item = new_node(p, SLICE_NONE);
        if (!item || !read_text(p, &item->text))
            return false;
        add_child(list, item);
        if (!skip_space(p, true))
            return false;
        if (peek(p) == ',')
            p->at++;
        else if (peek(p) != ']' && p->at < p->end)
            return fail(p, "the values of a list are separated by commas and end with ]");
    }
    p->at++;
    return true;
}

static bool read_statements(struct parser *p, struct ucl_node *section, char closing);

static bool read_section(struct parser *p, struct ucl_node *section)
{
    section->kind = UCL_SECTION;
    if (++p->depth > UCL_DEPTH_MAX)
        return fail(p, "sections are nested too deep");
    p->at++;
    if (!read_statements(p, section, '}'))
        return false;
    p->at++;
    p->depth--;
    return true;
}

static bool read_value(struct parser *p, struct ucl_node *node)
{
    if (!skip_space(p, true))
        return false;
    if (peek(p) == '{')
        return read_section(p, node);
    if (peek(p) == '[')
        return read_list(p, node);
    return read_text(p, &node->text);
}

/* After a key: `= value`, `: value`, `{`, or a label and `{`. */
static bool read_rest(struct parser *p, struct ucl_node *node)
{
    if (!skip_space(p, false))
        return false;
    char c = peek(p);
    if (c == '=' || c == ':') {
        p->at++;
        return read_value(p, node);
    }
    if (c != '{' && (c == '"' || is_word(c))) {
        if (!read_text(p, &node->label) || !skip_space(p, false))
            return false;
    }
    if (peek(p) != '{')
        return fail(p, "expected `= value;` or `{` here");
    return read_section(p, node);
}

/* A statement ends with ; or , or with its line, or where its section ends. */
static bool read_end(struct parser *p, const struct ucl_node *node)
{
    if (!skip_space(p, false))
        return false;
    char c = peek(p);
    if (c == ';' || c == ',') {
        p->at++;
        return true;
    }
    if (c == '\n' || c == '}' || p->at == p->end || node->kind == UCL_SECTION)
        return true;
    return fail(p, "expected ; or the end of the line after the value (quote a value with blanks)");
}

static bool read_key(struct parser *p, struct slice *key)
{
    p->key = SLICE_NONE;
    if (peek(p) == '"') {
        if (!read_quoted(p, key))
            return false;
    } else {
        *key = read_while(p, is_key);
    }
    if (key->len == 0)
        return fail(p, peek(p) == '}' ? "there is a } too many" : "expected the name of a setting");
    p->key = *key;
    return true;
}

static bool read_statement(struct parser *p, struct ucl_node *section)
{
    struct slice key = SLICE_NONE;
    if (!read_key(p, &key))
        return false;
    struct ucl_node *node = new_node(p, key);
    if (!node || !read_rest(p, node))
        return false;
    add_child(section, node);
    return read_end(p, node);
}

/* Up to the closing octet, which stays; NUL stands for the end of the text. */
static bool read_statements(struct parser *p, struct ucl_node *section, char closing)
{
    for (;;) {
        if (!skip_space(p, true))
            return false;
        if (peek(p) == ';') {
            p->at++;
            continue;
        }
        if (peek(p) == closing)
            return true;
        if (p->at == p->end) {
            p->key = section->key;
            return fail_at(p, section->line, "the section is not closed: end it with }");
        }
        if (!read_statement(p, section))
            return false;
    }
}

/* Control characters have no meaning in a configuration and would end up in logs and names. */
static bool check_octets(struct parser *p)
{
    for (const char *at = p->at; at < p->end; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '\n')
            p->line++;
        else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
            return fail(p, "the file holds a control character");
    }
    p->line = 1;
    return true;
}

enum status ucl_parse(struct slice text, struct arena *arena, struct ucl_node **root,
                      struct ucl_error *error)
{
    struct slice mark = SLICE("\xef\xbb\xbf"); /* some editors begin a file with U+FEFF */
    if (slice_eq(slice_head(text, mark.len), mark))
        text = slice_skip(text, mark.len);
    struct parser p = { .line = 1, .arena = arena, .error = error };
    p.at = text.len ? text.ptr : "";
    p.end = p.at + text.len;
    if (text.len > UCL_SIZE_MAX) {
        (void)fail(&p, "the file is larger than a configuration can be (1 MiB)");
        return STATUS_BAD;
    }
    struct ucl_node *top = new_node(&p, SLICE_NONE);
    top->kind = UCL_SECTION;
    if (!check_octets(&p) || !read_statements(&p, top, '\0'))
        return STATUS_BAD;
    *root = top;
    return STATUS_OK;
}
