/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a command line, and as the values of its helpers. What is taken holds no octet that
 * a command may not hold; MAIL and RCPT, written anew from their parts, parse to the same parts.
 */
#include "core/base/buf.h"
#include "core/smtp/command.h"
#include "tests/fuzz/fuzz.h"

static void append(struct buf *out, struct slice s)
{
    must(buf_append(out, s) == STATUS_OK);
}

static unsigned write_params(struct slice params, struct buf *out)
{
    struct smtp_param p;
    unsigned count = 0;
    for (; smtp_param_next(&params, &p); count++) {
        must(p.keyword.len > 0 && slice_is_printable(p.keyword));
        must(p.has_value == (p.value.len > 0) && slice_is_printable(p.value));
        must(slice_find(p.value, '=') == p.value.len && slice_find(p.value, ' ') == p.value.len);
        append(out, SLICE(" "));
        append(out, p.keyword);
        append(out, p.has_value ? SLICE("=") : SLICE_NONE);
        append(out, p.value);
    }
    must(params.len == 0);
    return count;
}

static void check_path_command(const struct smtp_command *c)
{
    struct buf line;
    struct smtp_command again;
    buf_init(&line, 1 << 24);
    append(&line, c->verb == SMTP_VERB_MAIL ? SLICE("MAIL FROM:<") : SLICE("RCPT TO:<"));
    append(&line, c->path.mailbox);
    append(&line, SLICE(">"));
    write_params(c->params, &line);
    must(smtp_command_parse(buf_slice(&line), &again) == COMMAND_OK);
    must(again.verb == c->verb && slice_eq(again.path.mailbox, c->path.mailbox));
    must(slice_eq(again.path.domain, c->path.domain) && slice_eq(again.params, c->params));
    must(c->verb == SMTP_VERB_RCPT ? c->path.mailbox.len > 0
                                   : c->path.domain.len > 0 || c->path.mailbox.len == 0);
    buf_done(&line);
}

/* P-18, P-19: no control; octets beyond ASCII in paths only (SMTPUTF8). */
static bool is_clean(struct slice s, bool may_be_utf8)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < ' ' || c == 127 || (c > 127 && !may_be_utf8))
            return false;
    }
    return true;
}

static void check_line(struct slice line)
{
    struct smtp_command c;
    enum command_error error = smtp_command_parse(line, &c);
    must(c.verb < SMTP_VERB_COUNT && slice_lies_in(c.name, line));
    must(slice_lies_in(c.argument, line) && slice_lies_in(c.params, line));
    must((error == COMMAND_BAD_ADDRESS) == (c.address_error != ADDRESS_OK));
    bool is_path_command = c.verb == SMTP_VERB_MAIL || c.verb == SMTP_VERB_RCPT;
    must(is_path_command || error == COMMAND_OK || error == COMMAND_BAD_OCTET);
    must(error == COMMAND_OK || c.params.len == 0);
    if (error != COMMAND_OK)
        return;
    must(slice_is_printable(c.name)); /* P-18 */
    must(is_clean(c.argument, is_path_command));
    must(slice_is_printable(c.params));
    if (is_path_command)
        check_path_command(&c);
}

static void check_size(struct slice value)
{
    uint64_t octets = 0;
    unsigned __int128 want = 0;
    if (!smtp_size_parse(value, &octets))
        return;
    must(value.len >= 1 && value.len <= 20);
    for (size_t i = 0; i < value.len; i++)
        want = want * 10 + (unsigned)(value.ptr[i] - '0');
    must(octets == (want > UINT64_MAX ? UINT64_MAX : (uint64_t)want));
}

/* What was decoded is printable, and encoded anew decodes to the same. */
static void check_xtext(struct slice in)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = mem_alloc(in.len + 1), *again = mem_alloc(3 * in.len + 1);
    char *encoded = mem_alloc(3 * in.len + 1);
    size_t len = 0, again_len = 0;
    if (smtp_xtext_decode(in, out, &len)) {
        must(len <= in.len && slice_is_printable(slice_of(out, len)));
        for (size_t i = 0; i < len; i++) {
            encoded[3 * i] = '+';
            encoded[3 * i + 1] = hex[(unsigned char)out[i] >> 4];
            encoded[3 * i + 2] = hex[out[i] & 15];
        }
        must(smtp_xtext_decode(slice_of(encoded, 3 * len), again, &again_len));
        must(slice_eq(slice_of(out, len), slice_of(again, again_len)));
    }
    free(out);
    free(again);
    free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    check_line(in);
    check_size(in);
    check_xtext(in);
    return 0;
}
