/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_value - a scanner for tokens, and on it the grammar of address lists.
 *
 *     list     address *( "," address ); empty places are skipped (RFC 5322 4.4)
 *     address  words "<" mailbox ">"  |  mailbox  |  words ":" list ";"
 *     mailbox  word "@" domain, where a word is a dot-atom or a quoted string
 *
 * A token is a run of atom octets and dots (UTF-8 too, RFC 6532), a quoted string, a domain
 * literal, or one special. White space, folds and comments may stand around every token and are
 * left out.
 *
 * Refused though RFC 5322 4.4 would still read them: white space or comments inside a dot-atom, and
 * source routes; and what no grammar has but some readers take: words behind an address, an
 * address as an unquoted display name, a local part alone, control octets. Taken though the grammar
 * has it not: brackets and dots in a display name ("[Shop] J. Doe <...>"), which nobody reads
 * otherwise.
 *
 * Limits: see content_value.h.
 * To read another kind of field: a function on next_token.
 */
#include "core/smtp/content_value.h"

enum token {
    TOKEN_END,
    TOKEN_BAD,
    TOKEN_WORD,    /* atom octets and dots */
    TOKEN_QUOTED,  /* with its quotes */
    TOKEN_LITERAL, /* with its brackets */
    TOKEN_SPECIAL, /* one of <>@,:; */
};

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* RFC 5322 3.2.3, RFC 6532 3.2, and the dot. */
static bool is_word_octet(char c)
{
    unsigned char u = (unsigned char)c;
    return u > 127 || (u > ' ' && u < 127 && !strchr("()<>[]:;@\\,\"", c));
}

/* Cuts n octets from the front. */
static struct slice take(struct slice *from, size_t n)
{
    struct slice head = slice_head(*from, n);
    *from = slice_skip(*from, n);
    return head;
}

/* Length of a comment at the start, parentheses included; 0: it does not end, or is too deep. */
static size_t comment_len(struct slice s)
{
    unsigned depth = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '(' && ++depth > VALUE_COMMENT_NESTING)
            return 0;
        else if (s.ptr[i] == ')' && --depth == 0)
            return i + 1;
    }
    return 0;
}

/* White space, folds and comments. */
static bool skip_between(struct slice *s)
{
    while (s->len > 0) {
        size_t n = is_white(s->ptr[0]) ? 1 : s->ptr[0] == '(' ? comment_len(*s) : SIZE_MAX;
        if (n == SIZE_MAX)
            break;
        if (n == 0)
            return false;
        take(s, n);
    }
    return true;
}

/* Length of what begins with one octet and ends with another, both included; 0: it does not. */
static size_t enclosed_len(struct slice s, char end)
{
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == end)
            return i + 1;
    }
    return 0;
}

static enum token token_at(struct slice s, size_t *len)
{
    switch (s.ptr[0]) {
    case '"': *len = enclosed_len(s, '"'); return *len ? TOKEN_QUOTED : TOKEN_BAD;
    case '[': *len = enclosed_len(s, ']'); return *len ? TOKEN_LITERAL : TOKEN_BAD;
    case '<':
    case '>':
    case '@':
    case ',':
    case ':':
    case ';': *len = 1; return TOKEN_SPECIAL;
    default: break;
    }
    for (*len = 0; *len < s.len && is_word_octet(s.ptr[*len]);)
        ++*len;
    return *len ? TOKEN_WORD : TOKEN_BAD;
}

static enum token next_token(struct slice *rest, struct slice *text)
{
    size_t len;
    if (!skip_between(rest))
        return TOKEN_BAD;
    if (rest->len == 0)
        return TOKEN_END;
    enum token token = token_at(*rest, &len);
    if (token != TOKEN_BAD)
        *text = take(rest, len);
    return token;
}

/* A dot at neither end, and no two in a row. */
static bool is_dot_atom(struct slice word)
{
    char before = '.';
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] == '.' && before == '.')
            return false;
        before = word.ptr[i];
    }
    return before != '.';
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 127)
            return true;
    return false;
}

static bool is_local_part(enum token token, struct slice text)
{
    return (token == TOKEN_WORD && is_dot_atom(text)) ||
           (token == TOKEN_QUOTED && !has_control(text));
}

static bool is_domain(enum token token, struct slice text)
{
    return (token == TOKEN_WORD && is_dot_atom(text)) ||
           (token == TOKEN_LITERAL && !has_control(text));
}

/* The reader is behind the '@'. */
static bool read_domain(struct value_reader *r, struct slice local, struct slice *mailbox)
{
    struct slice domain;
    enum token token = next_token(&r->rest, &domain);
    if (token == TOKEN_END || token == TOKEN_BAD || !is_domain(token, domain))
        return false;
    if (local.len + 1 + domain.len > sizeof r->address)
        return false;
    memcpy(r->address, local.ptr, local.len);
    r->address[local.len] = '@';
    memcpy(r->address + local.len + 1, domain.ptr, domain.len);
    *mailbox = slice_of(r->address, local.len + 1 + domain.len);
    return ++r->addresses <= VALUE_ADDRESSES_MAX;
}

static bool is_special(enum token token, struct slice text, char c)
{
    return token == TOKEN_SPECIAL && text.ptr[0] == c;
}

/* The reader is behind the '<'. */
static bool read_angle(struct value_reader *r, struct slice *mailbox)
{
    struct slice local, text;
    enum token token = next_token(&r->rest, &local);
    if (token == TOKEN_END || token == TOKEN_BAD || !is_local_part(token, local))
        return false;
    token = next_token(&r->rest, &text);
    if (!is_special(token, text, '@') || !read_domain(r, local, mailbox))
        return false;
    token = next_token(&r->rest, &text);
    return is_special(token, text, '>');
}

/* Words in front of a special; the last of them is kept. */
struct words {
    uint32_t count;
    enum token token;
    struct slice text;
};

/* What a special means where it stands. VALUE_END: go on. */
static enum value_event on_special(struct value_reader *r, char special, struct words *words,
                                   struct slice *mailbox)
{
    bool is_good = false;
    switch (special) {
    case '@':
        is_good = words->count == 1 && is_local_part(words->token, words->text) &&
                  read_domain(r, words->text, mailbox);
        r->is_separated = false;
        return is_good ? VALUE_ADDRESS : VALUE_BAD;
    case '<':
        is_good = r->is_separated && read_angle(r, mailbox);
        r->is_separated = false;
        return is_good ? VALUE_ADDRESS : VALUE_BAD;
    case ':':
        is_good = words->count > 0 && !r->in_group;
        r->in_group = true;
        break;
    case ';':
        is_good = words->count == 0 && r->in_group;
        r->in_group = r->is_separated = false;
        break;
    case ',':
        is_good = words->count == 0;
        r->is_separated = true;
        break;
    default: break; /* '>' */
    }
    *words = (struct words){ 0 };
    return is_good ? VALUE_END : VALUE_BAD;
}

void value_reader_init(struct value_reader *r, struct slice value)
{
    r->rest = value;
    r->addresses = 0;
    r->in_group = false;
    r->is_separated = true;
}

enum value_event value_next_address(struct value_reader *r, struct slice *mailbox)
{
    struct words words = { 0 };
    for (;;) {
        struct slice text;
        enum token token = next_token(&r->rest, &text);
        if (token == TOKEN_END)
            return words.count == 0 && !r->in_group ? VALUE_END : VALUE_BAD;
        if (token == TOKEN_BAD)
            return VALUE_BAD;
        if (token == TOKEN_SPECIAL) {
            enum value_event event = on_special(r, text.ptr[0], &words, mailbox);
            if (event != VALUE_END)
                return event;
        } else {
            if (!r->is_separated)
                return VALUE_BAD;
            words = (struct words){ words.count + 1, token, text };
        }
    }
}

bool value_first_word(struct slice value, struct slice *word)
{
    struct slice text;
    enum token token = next_token(&value, &text);
    if (token == TOKEN_QUOTED)
        text = slice_of(text.ptr + 1, text.len - 2);
    if (token == TOKEN_QUOTED || token == TOKEN_WORD)
        *word = text;
    return token == TOKEN_QUOTED || token == TOKEN_WORD;
}

struct slice value_trim(struct slice value)
{
    while (value.len > 0 && is_white(value.ptr[0]))
        value = slice_skip(value, 1);
    while (value.len > 0 && is_white(value.ptr[value.len - 1]))
        value.len--;
    return value;
}
