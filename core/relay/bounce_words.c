/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce_words - how anything gets into a bounce.
 *
 * Every word of a peer or a client is made printable, bounded and free of line ends first: a reply
 * must not be able to write fields of ours (P-230). Of addresses, strict UTF-8 is kept, without the
 * characters that end lines or control anything; they were checked when they came in, and one that
 * was read back from Redis is made harmless all the same.
 */
#include "core/base/must.h"
#include "core/relay/bounce_inside.h"
#include <stdio.h>

#define WORDS_MAX   500 /* octets of a peer's words in one field, P-230 */
#define FOLD_AT     60  /* octets of them on a line from which a space may end it */
#define FOLD_MAX    76  /* octets of them on a line at most */
#define ADDRESS_MAX 900 /* octets of an address that fit a line with all that stands around it */

void bounce_put(struct bounce_writer *w, struct slice s)
{
    chain_append(&w->m->content, s);
}

void bounce_putf(struct bounce_writer *w, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    must(len >= 0 && (size_t)len < sizeof line);
    bounce_put(w, slice_of(line, (size_t)len));
}

void bounce_put_date(struct bounce_writer *w, int64_t wall_ms)
{
    char date[CLOCK_DATE_MAX];
    bounce_put(w, slice_of(date, clock_format_rfc5322(wall_ms, date)));
}

/* --- words ----------------------------------------------------------------------------------- */

/* What is not printable ASCII becomes a question mark. */
static char printable(char c)
{
    return c >= ' ' && c <= '~' ? c : '?';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/*
 * A peer's words on lines of our making: blanks and line ends become one space, and `fold` goes in
 * at a space where a line is long enough, or anywhere when there is none. No line is left blank, so
 * nothing ends the field (RFC 5322 2.2.3).
 */
void bounce_put_words(struct bounce_writer *w, struct slice words, const char *fold)
{
    char line[FOLD_MAX];
    size_t len = 0;
    bool is_after_blank = false, has_begun = false;
    words = slice_head(words, WORDS_MAX);
    for (size_t i = 0; i < words.len; i++) {
        if (is_blank(words.ptr[i])) {
            is_after_blank = has_begun;
            continue;
        }
        if (len == sizeof line || (is_after_blank && len >= FOLD_AT)) {
            bounce_put(w, slice_of(line, len));
            bounce_put(w, slice_str(fold));
            len = 0;
        } else if (is_after_blank) {
            line[len++] = ' ';
        }
        is_after_blank = false;
        has_begun = true;
        line[len++] = printable(words.ptr[i]);
    }
    bounce_put(w, slice_of(line, len));
}

void bounce_put_reply(struct bounce_writer *w, const struct rcpt_outcome *o, const char *fold)
{
    if (o->code > 0)
        bounce_putf(w, "%d ", o->code);
    bounce_put_words(w, slice_str(o->enhanced), "");
    bounce_put(w, o->enhanced[0] ? SLICE(" ") : SLICE(""));
    bounce_put_words(w, o->text, fold);
}

/* --- addresses ------------------------------------------------------------------------------- */

/* The code point of `len` octets that look like one; 0: they are none. */
static uint32_t code_point(const char *s, size_t len)
{
    static const unsigned char lead_bits[] = { 0, 0, 0x1f, 0x0f, 0x07 };
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint32_t code = (unsigned char)s[0] & lead_bits[len];
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | ((unsigned char)s[i] & 0x3f);
    }
    return code >= least[len] ? code : 0;
}

/* C1 controls and the separators of U+2028 and U+2029 are line ends to some, surrogates are nothing
 * (RFC 3629 3). */
static bool is_harmless(uint32_t code)
{
    return code >= 0xa0 && code <= 0x10ffff && code != 0x2028 && code != 0x2029 &&
           (code < 0xd800 || code > 0xdfff);
}

/* Octets of the harmless UTF-8 character beyond ASCII that s begins with; 0: it begins with none.
 */
static size_t utf8_len(struct slice s)
{
    unsigned char lead = (unsigned char)s.ptr[0];
    size_t len = lead >= 0xf0 && lead < 0xf8 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 0;
    return len > 0 && lead < 0xf8 && len <= s.len && is_harmless(code_point(s.ptr, len)) ? len : 0;
}

void bounce_put_address(struct bounce_writer *w, struct slice address)
{
    address = slice_head(address, ADDRESS_MAX);
    while (address.len > 0) {
        size_t len = utf8_len(address);
        char c = printable(address.ptr[0]);
        bounce_put(w, len > 0 ? slice_head(address, len) : slice_of(&c, 1));
        address = slice_skip(address, len > 0 ? len : 1);
    }
}
