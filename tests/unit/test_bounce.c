/* SPDX-License-Identifier: Apache-2.0 */
/* Shows that a bounce is a well-formed report whatever a peer said. It is taken apart here as a
 * reader would: header, parts by their boundary, fields unfolded. Who gets one: test_report.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/must.h"
#include "core/relay/bounce.h"
#include "core/smtp/queue_id.h"
#include <stdio.h>

#define ORIGINAL_MAX (80 * 1024)
#define PARTS        3

static const char small[] = "Received: from c.example ([192.0.2.1])\r\n\tby gw.example\r\n"
                            "From: <s@y.example>\r\nSubject: hello\r\n\r\nFirst line\r\n";

static uint64_t seed;
static struct entropy entropy;
static struct chain_budget budget;
static struct message *original, *bounce;
static struct delivery *delivery;
static struct bounce_context ctx;
static struct buf content;            /* of the bounce */
static enum report_action actions[2]; /* told of the delivery's first recipients; the rest failed */
static const struct now now = { .mono_ms = 5, .wall_ms = 1795392741000 };

static int start(void **state)
{
    seed = 7;
    entropy_init_seeded(&entropy, &seed);
    budget = (struct chain_budget){ .max = SIZE_MAX };
    buf_init(&content, 4 * 1024 * 1024);
    original = message_new(&budget);
    bounce = NULL;
    actions[0] = actions[1] = REPORT_FAILED;
    queue_id_make(original->id, now.wall_ms - 1000, &entropy);
    original->sender = SLICE("s@y.example");
    original->tenant = SLICE("tenant-1");
    original->lane = 'b';
    original->accepted_ms = now.wall_ms - 1000;
    message_add_rcpt(original, SLICE("zero@x.example"), SLICE("x.example"));
    message_add_rcpt(original, SLICE("one@x.example"), SLICE("x.example"));
    message_add_rcpt(original, SLICE("\"t w@o\"@x.example"), SLICE("x.example"));
    uint32_t rcpts[] = { 1, 2 };
    delivery = delivery_new(original, "id", SLICE("x.example"), 0, rcpts, 2);
    ctx = (struct bounce_context){ .hostname = SLICE("gw.example"),
                                   .remote_mta = SLICE("mx1.x.example"),
                                   .original = slice_str(small),
                                   .entropy = &entropy,
                                   .budget = &budget };
    original->size = sizeof small - 1;
    return 0;
}

static int stop(void **state)
{
    message_unref(bounce);
    delivery_free(delivery);
    message_unref(original);
    buf_done(&content);
    assert_int_equal(budget.used, 0);
    return 0;
}

static void outcome(uint32_t i, enum outcome_stage stage, int code, const char *enhanced,
                    struct slice text)
{
    delivery->outcomes[i] = (struct rcpt_outcome){ .stage = stage, .code = code, .text = text };
    snprintf(delivery->outcomes[i].enhanced, sizeof delivery->outcomes[i].enhanced, "%s", enhanced);
}

/* --- taking it apart ------------------------------------------------------------------------- */

struct part {
    struct slice header, body;
};

static struct part whole, parts[PARTS];

static size_t find(struct slice s, const char *what)
{
    const char *at = memmem(s.ptr, s.len, what, strlen(what));
    return at ? (size_t)(at - s.ptr) : SIZE_MAX;
}

static bool has(struct slice s, const char *what)
{
    return find(s, what) != SIZE_MAX;
}

static void want(struct slice s, const char *what)
{
    if (!has(s, what))
        fail_msg("no \"%s\" in:\n%.*s", what, SLICE_ARG(s));
}

/* Header up to the empty line, which belongs to neither. */
static struct part part_of(struct slice s)
{
    size_t end = find(s, "\r\n\r\n");
    assert_true(end != SIZE_MAX);
    return (struct part){ slice_head(s, end + 2), slice_skip(s, end + 4) };
}

/* P-230: ASCII unless declared, lines of CR LF, 998 octets at most, no control but tab. */
static void check_octets(bool may_be_8bit)
{
    size_t line_len = 0;
    bool has_8bit = false, has_dot_line = false;
    for (uint32_t i = 0; i < content.len; i++) {
        unsigned char c = (unsigned char)content.ptr[i];
        has_8bit |= c > 127;
        has_dot_line |= c == '.' && line_len == 0;
        if (c == '\r') {
            assert_true(i + 1 < content.len && content.ptr[i + 1] == '\n');
            assert_true(line_len <= 998);
        } else if (c == '\n') {
            assert_true(i > 0 && content.ptr[i - 1] == '\r');
            line_len = 0;
            continue;
        } else {
            assert_true(c >= ' ' || c == '\t');
            assert_true(c != 127);
        }
        line_len += c != '\r';
    }
    assert_int_equal(line_len, 0);
    assert_true(may_be_8bit || !has_8bit);
    assert_true(!has_8bit || (bounce->flags & MESSAGE_8BIT));
    assert_true(may_be_8bit || !(bounce->flags & MESSAGE_8BIT));
    assert_int_equal(has_dot_line, (bounce->flags & MESSAGE_DOT_LINES) != 0);
}

/* Cuts the body at its boundary; exactly three parts and nothing around them. */
static void split(void)
{
    char delimiter[100];
    size_t at = find(whole.header, "boundary=\"");
    struct slice name = slice_skip(whole.header, at + strlen("boundary=\""));
    assert_true(at != SIZE_MAX);
    name = slice_head(name, slice_find(name, '"'));
    assert_true(name.len > 20 && name.len <= 70);
    snprintf(delimiter, sizeof delimiter, "\r\n--%.*s", SLICE_ARG(name));
    struct slice rest = slice_of(whole.body.ptr - 2, whole.body.len + 2); /* with the CR LF */
    assert_int_equal(find(rest, delimiter), 0);
    for (int i = 0; i < PARTS; i++) {
        rest = slice_skip(rest, strlen(delimiter));
        assert_memory_equal(rest.ptr, "\r\n", 2);
        size_t end = find(rest, delimiter);
        assert_true(end != SIZE_MAX);
        /* The part's lines end with their CR LF; that of the delimiter is the delimiter's. */
        parts[i] = part_of(slice_of(rest.ptr + 2, end - 2));
        rest = slice_skip(rest, end);
    }
    rest = slice_skip(rest, strlen(delimiter));
    assert_true(slice_eq(rest, SLICE("--\r\n")));
}

/* Takes the bounce that was made before away, so that a case can make several. */
static void remake(const struct report_rcpt *rcpts, uint32_t count, bool may_be_8bit)
{
    message_unref(bounce);
    bounce = bounce_make(delivery, rcpts, count, &ctx, &now);
    buf_clear(&content);
    assert_int_equal(buf_append(&content, SLICE("\r\n")), STATUS_OK); /* so field() may look back */
    for (struct chain_seg *seg = bounce->content.head; seg; seg = seg->next)
        assert_int_equal(buf_append(&content, slice_of(seg->data, seg->len)), STATUS_OK);
    assert_int_equal(bounce->size + 2, content.len);
    check_octets(may_be_8bit);
    whole = part_of(slice_skip(buf_slice(&content), 2));
    split();
}

static void make_for(const uint32_t *told, uint32_t count, bool may_be_8bit)
{
    struct report_rcpt *rcpts = test_malloc(count * sizeof *rcpts);
    for (uint32_t k = 0; k < count; k++)
        rcpts[k] = (struct report_rcpt){ .i = told[k],
                                         .action = told[k] < 2 ? actions[told[k]] : REPORT_FAILED };
    remake(rcpts, count, may_be_8bit);
    test_free(rcpts);
}

static void make(uint32_t count, bool may_be_8bit)
{
    static const uint32_t failed[] = { 0, 1 };
    /* Of a single one, the second: the indices are those of the delivery. */
    make_for(failed + (count == 1), count, may_be_8bit);
    want(parts[0].header, "Content-Type: text/plain");
    want(whole.header, "Content-Type: multipart/report;");
}

/* The field's value, unfolded (RFC 5322 2.2.3), in a block of fields; it must be there once. */
static const char *field(struct slice block, const char *name)
{
    static char value[8192];
    char start_of[100];
    size_t len = 0;
    snprintf(start_of, sizeof start_of, "\r\n%s: ", name);
    struct slice s = slice_of(block.ptr - 2, block.len + 2);
    size_t at = find(s, start_of);
    if (at == SIZE_MAX)
        return NULL;
    s = slice_skip(s, at + strlen(start_of));
    assert_false(has(s, start_of));
    for (size_t i = 0; i < s.len && len < sizeof value - 1; i++) {
        if (s.ptr[i] == '\r' && (i + 2 >= s.len || (s.ptr[i + 2] != ' ' && s.ptr[i + 2] != '\t')))
            break;
        if (s.ptr[i] != '\r' && s.ptr[i] != '\n')
            value[len++] = s.ptr[i];
    }
    value[len] = '\0';
    return value;
}

static void want_field(struct slice block, const char *name, const char *value)
{
    const char *is = field(block, name);
    if (!is || strcmp(is, value) != 0)
        fail_msg("%s is %s", name, is ? is : "missing");
}

/* Block i of the status part: 0 is the message's, then one per recipient. */
static struct slice block(int i)
{
    struct slice s = parts[1].body;
    while (i-- > 0) {
        size_t end = find(s, "\r\n\r\n");
        assert_true(end != SIZE_MAX);
        s = slice_skip(s, end + 4);
    }
    size_t end = find(s, "\r\n\r\n");
    return slice_head(s, end == SIZE_MAX ? s.len : end + 2);
}

/* --- cases ----------------------------------------------------------------------------------- */

static void nobody_is_told_about_a_bounce_or_without_a_sender(void **state) /* P-227 */
{
    assert_true(report_is_possible(original));
    original->flags = MESSAGE_BOUNCE;
    assert_false(report_is_possible(original));
    original->flags = MESSAGE_8BIT | MESSAGE_DOT_LINES;
    assert_true(report_is_possible(original));
    original->sender = SLICE_NONE;
    assert_false(report_is_possible(original));
    original->flags = MESSAGE_BOUNCE;
    assert_false(report_is_possible(original));
}

static void its_envelope(void **state) /* P-190, P-227 */
{
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no such user"));
    make(1, false);
    assert_int_equal(bounce->sender.len, 0);
    assert_int_equal(bounce->rcpt_count, 1);
    assert_true(slice_eq(bounce->rcpts[0].address, SLICE("s@y.example")));
    assert_true(slice_eq(bounce->rcpts[0].domain, SLICE("y.example")));
    assert_true(bounce->flags & MESSAGE_BOUNCE);
    assert_int_equal(bounce->rcpts[0].notify, DSN_NOTIFY_NEVER);
    assert_false(report_is_possible(bounce));
    assert_int_equal(bounce->lane, 'n');
    assert_true(slice_eq(bounce->tenant, SLICE("tenant-1")));
    assert_true(bounce->tenant.ptr != original->tenant.ptr);
    assert_int_equal(bounce->accepted_ms, now.wall_ms);
    assert_true(slice_eq(bounce->helo, SLICE("gw.example")));
    assert_true(slice_eq(bounce->client, SLICE("local")));
    assert_int_equal(bounce->refs, 1);
    assert_true(queue_id_is_valid(slice_str(bounce->id)));
    assert_string_not_equal(bounce->id, original->id);
}

/* The bounce is routed by it. */
static void the_last_at_sign_divides_the_sender(void **state)
{
    original->sender = SLICE("\"s@z.example\"@y.example");
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no such user"));
    make(1, false);
    assert_true(slice_eq(bounce->rcpts[0].address, original->sender));
    assert_true(slice_eq(bounce->rcpts[0].domain, SLICE("y.example")));
    want_field(whole.header, "To", "<\"s@z.example\"@y.example>");
}

static void its_header(void **state) /* P-228, P-235 */
{
    char id[64];
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no such user"));
    make(1, false);
    assert_true(slice_eq(parts[1].header, SLICE("Content-Type: message/delivery-status\r\n")));
    assert_memory_equal(whole.header.ptr, "Received: by gw.example", 23);
    want(slice_str(field(whole.header, "Received")), bounce->id);
    want_field(whole.header, "From", "Mail Delivery System <MAILER-DAEMON@gw.example>");
    want_field(whole.header, "To", "<s@y.example>");
    want_field(whole.header, "Auto-Submitted", "auto-replied");
    want_field(whole.header, "MIME-Version", "1.0");
    char date[CLOCK_DATE_MAX];
    clock_format_rfc5322(now.wall_ms, date);
    want_field(whole.header, "Date", date);
    snprintf(id, sizeof id, "<%s@gw.example>", bounce->id);
    want_field(whole.header, "Message-ID", id);
    want(slice_str(field(whole.header, "Content-Type")),
         "multipart/report; report-type=delivery-status;");
    assert_non_null(field(whole.header, "Subject"));
    assert_null(field(whole.header, "Content-Transfer-Encoding"));
}

static void each_failed_recipient_is_reported(void **state) /* P-229 */
{
    char arrival[CLOCK_DATE_MAX];
    outcome(0, OUTCOME_RCPT, 550, "5.1.1", SLICE("no such user"));
    outcome(1, OUTCOME_DOT, 554, "", SLICE("refused"));
    make(2, false);
    clock_format_rfc5322(original->accepted_ms, arrival);
    want_field(block(0), "Reporting-MTA", "dns; gw.example");
    want_field(block(0), "Arrival-Date", arrival);
    want_field(block(1), "Final-Recipient", "rfc822; one@x.example");
    want_field(block(1), "Action", "failed");
    want_field(block(1), "Status", "5.1.1");
    want_field(block(1), "Remote-MTA", "dns; mx1.x.example");
    want_field(block(1), "Diagnostic-Code", "smtp; 550 5.1.1 no such user");
    want_field(block(2), "Final-Recipient", "rfc822; \"t w@o\"@x.example");
    want_field(block(2), "Status", "5.0.0");
    want_field(block(2), "Diagnostic-Code", "smtp; 554 refused");
    assert_false(has(parts[1].body, "zero@"));
    want(parts[0].body, "<one@x.example>\r\n    550 5.1.1 no such user\r\n");
    want(parts[0].body, "<\"t w@o\"@x.example>\r\n    554 refused\r\n");
    want(parts[0].body, original->id);
    assert_false(has(parts[0].body, "zero@"));
}

static void only_the_failed_are_named(void **state)
{
    outcome(0, OUTCOME_DOT, 250, "2.0.0", SLICE("ok"));
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no such user"));
    make(1, false);
    assert_false(has(parts[0].body, "one@x.example"));
    assert_false(has(parts[1].body, "one@x.example"));
    want_field(block(1), "Final-Recipient", "rfc822; \"t w@o\"@x.example");
}

static void what_was_decided_here_is_no_smtp_diagnostic(void **state)
{
    static const struct {
        enum outcome_stage stage;
        int code;
        const char *enhanced, *status, *diagnostic;
        bool has_remote;
    } rows[] = {
        { OUTCOME_DNS, 550, "5.1.2", "5.1.2", "x-kilat; 550 5.1.2 why", false },
        { OUTCOME_LOCAL, 556, "5.3.4", "5.3.4", "x-kilat; 556 5.3.4 why", false },
        { OUTCOME_GREETING, 554, "", "5.0.0", "smtp; 554 why", true },
        { OUTCOME_MAIL, 550, "5.7.1", "5.7.1", "smtp; 550 5.7.1 why", true },
        { OUTCOME_DATA, 554, "5.6.777", "5.6.777", "smtp; 554 5.6.777 why", true },
        /* P-219: given up; the last thing that happened is told. */
        { OUTCOME_CONNECT, 421, "4.4.1", "4.4.7", "x-kilat; 421 4.4.1 why", true },
        { OUTCOME_UNKNOWN, 0, "", "4.4.7", "x-kilat; why", true },
        { OUTCOME_RCPT, 450, "4.2.2", "4.4.7", "smtp; 450 4.2.2 why", true },
        /* P-23: not a status, or of another class. */
        { OUTCOME_RCPT, 550, "4.2.2", "5.0.0", "smtp; 550 4.2.2 why", true },
        { OUTCOME_RCPT, 550, "5.1", "5.0.0", "smtp; 550 5.1 why", true },
        { OUTCOME_RCPT, 550, "5.1.1234", "5.0.0", "smtp; 550 5.1.1234 why", true },
        { OUTCOME_RCPT, 550, "5.1.1x", "5.0.0", "smtp; 550 5.1.1x why", true },
        { OUTCOME_RCPT, 550, "5..1", "5.0.0", "smtp; 550 5..1 why", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        outcome(1, rows[i].stage, rows[i].code, rows[i].enhanced, SLICE("why"));
        make(1, false);
        want_field(block(1), "Status", rows[i].status);
        want_field(block(1), "Diagnostic-Code", rows[i].diagnostic);
        assert_int_equal(field(block(1), "Remote-MTA") != NULL, rows[i].has_remote);
        assert_int_equal(has(parts[0].body, "in time"), rows[i].status[0] == '4');
    }
}

static void no_remote_host_no_field(void **state)
{
    ctx.remote_mta = SLICE_NONE;
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    make(1, false);
    assert_null(field(block(1), "Remote-MTA"));
}

static void a_reply_writes_no_fields(void **state) /* P-230 */
{
    static const struct {
        struct slice words;
        const char *diagnostic;
    } rows[] = {
        { SLICE("bad\r\nAction: delivered\r\n\r\nStatus: 2.0.0"),
          "smtp; 550 bad Action: delivered Status: 2.0.0" },
        { SLICE("bad\nX: y\rZ: w"), "smtp; 550 bad X: y Z: w" },
        { SLICE("\x1b[2J\x01\x7f nul \0 caf\xc3\xa9 \xff"), "smtp; 550 ?[2J?? nul ? caf?? ?" },
        { SLICE("\r\n.\r\nQUIT\r\n"), "smtp; 550 . QUIT" },
        { SLICE("  \t many    blanks \t "), "smtp; 550 many blanks" },
        { SLICE(""), "smtp; 550 " },
        { SLICE(" "), "smtp; 550 " },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        outcome(1, OUTCOME_RCPT, 550, "", rows[i].words);
        make(1, false);
        want_field(block(1), "Diagnostic-Code", rows[i].diagnostic);
        want_field(block(1), "Action", "failed");
        want_field(block(1), "Status", "5.0.0");
    }
}

/* Folded lines are short, never blank, and say the same. */
static void long_words_are_folded_and_cut(void **state)
{
    static const size_t word_lens[] = { 1, 2, 7, 59, 60, 61, 75, 76, 77, 200, 1000 };
    for (size_t k = 0; k < ARRAY_LEN(word_lens); k++) {
        char words[1000], joined[1200];
        for (size_t i = 0; i < sizeof words; i++)
            words[i] = i % (word_lens[k] + 1) == word_lens[k] ? ' ' : 'w';
        outcome(1, OUTCOME_DOT, 550, "", slice_of(words, sizeof words));
        make(1, false);
        size_t len = 0;
        for (const char *c = field(block(1), "Diagnostic-Code"); *c; c++)
            if (*c != ' ' && *c != '\t')
                joined[len++] = *c;
        assert_true(len <= strlen("smtp;550") + 500);
        assert_true(len >= strlen("smtp;550") + 249); /* half of it may be spaces */
        assert_int_equal(strspn(joined + strlen("smtp;550"), "w"), len - strlen("smtp;550"));
        struct slice rest = slice_skip(block(1), find(block(1), "Diagnostic-Code"));
        while (rest.len > 0) {
            size_t line = slice_find(rest, '\n') + 1;
            assert_true(line <= 110);
            assert_true(strspn(rest.ptr, " \t") < line - 2);
            rest = slice_skip(rest, line);
        }
    }
}

static void a_small_original_is_returned_whole(void **state) /* P-228 */
{
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    make(1, false);
    assert_true(slice_eq(parts[2].header, SLICE("Content-Type: message/rfc822\r\n")));
    assert_true(slice_eq(parts[2].body, slice_str(small)));
}

static char big[ORIGINAL_MAX];

/* An original of that many octets, header first. */
static void make_big(size_t len)
{
    size_t head = sizeof small - 1;
    memcpy(big, small, head);
    for (size_t i = head; i < len; i++)
        big[i] = i == len - 1 || i % 64 == 63 ? '\n' : i == len - 2 || i % 64 == 62 ? '\r' : 'x';
    if (len % 64 == 63 || len % 64 == 0)
        big[len - 3] = 'x';
    ctx.original = slice_of(big, len);
    original->size = len;
}

static void a_large_one_by_its_header(void **state) /* P-236 */
{
    static const struct {
        size_t in_memory, size;
        bool is_whole;
    } rows[] = {
        { BOUNCE_RETURNED_MAX, BOUNCE_RETURNED_MAX, true },
        { BOUNCE_RETURNED_MAX + 1, BOUNCE_RETURNED_MAX + 1, false },
        { BOUNCE_RETURNED_MAX + 1, 25000000, false },
        { 4096, 4098, false },
        { 4096, 4096, true },
    };
    struct slice header = slice_head(slice_str(small), strstr(small, "\r\n\r\n") + 2 - small);
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        make_big(rows[i].in_memory);
        original->size = rows[i].size;
        make(1, false);
        if (rows[i].is_whole) {
            want(parts[2].header, "message/rfc822");
            assert_true(slice_eq(parts[2].body, ctx.original));
        } else {
            want(parts[2].header, "text/rfc822-headers");
            assert_true(slice_eq(parts[2].body, header));
        }
    }
}

static void a_header_that_is_cut_ends_with_a_whole_line(void **state)
{
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    for (size_t len = 0; len < (size_t)(strstr(small, "\r\n\r\n") - small); len++) {
        ctx.original = slice_head(slice_str(small), len);
        make(1, false);
        want(parts[2].header, "text/rfc822-headers");
        struct slice s = parts[2].body;
        assert_true(s.len <= len && slice_eq(s, slice_head(slice_str(small), s.len)));
        assert_true(s.len == 0 || s.ptr[s.len - 1] == '\n');
        assert_false(has(slice_skip(ctx.original, s.len), "\r\n"));
    }
}

static void a_header_of_more_than_may_be_returned_is_cut(void **state) /* P-236 */
{
    static const char line[] = "X-Field: 0123456789012345678901234567890123456789012345678\r\n";
    size_t len = sizeof line - 1, count = (BOUNCE_RETURNED_MAX + len - 1) / len + 1;
    for (size_t i = 0; i < count; i++)
        memcpy(big + i * len, line, len);
    memcpy(big + count * len, "\r\n", 2);
    ctx.original = slice_of(big, count * len + 2);
    original->size = ctx.original.len;
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    make(1, false);
    want(parts[2].header, "text/rfc822-headers");
    assert_int_equal(parts[2].body.len, BOUNCE_RETURNED_MAX / len * len);
}

static void an_original_that_is_not_clean_comes_as_headers(void **state)
{
    static const struct slice bodies[] = { SLICE("bare\rcr\r\n"), SLICE("bare\nlf\r\n"),
                                           SLICE("nul\0\r\n"), SLICE("no end"),
                                           SLICE("half an end\r") };
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    for (size_t i = 0; i < ARRAY_LEN(bodies) + 2; i++) {
        size_t head = sizeof small - 1;
        memcpy(big, small, head);
        if (i < ARRAY_LEN(bodies)) {
            memcpy(big + head, bodies[i].ptr, bodies[i].len);
            original->size = head + bodies[i].len;
        } else { /* a line of 998, then one of 999 octets */
            size_t len = 998 + i - ARRAY_LEN(bodies);
            memset(big + head, 'x', len);
            memcpy(big + head + len, "\r\n", 2);
            original->size = head + len + 2;
        }
        ctx.original = slice_of(big, original->size);
        make(1, false);
        want(parts[2].header, i == ARRAY_LEN(bodies) ? "message/rfc822" : "text/rfc822-headers");
    }
}

static void returned_8bit_is_declared(void **state)
{
    static const char text[] = "Subject: caf\xc3\xa9\r\n\r\n.\r\n..dots\r\n";
    ctx.original = slice_str(text);
    original->size = sizeof text - 1;
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    make(1, true);
    want_field(whole.header, "Content-Transfer-Encoding", "8bit");
    want_field(parts[2].header, "Content-Transfer-Encoding", "8bit");
    assert_true(slice_eq(parts[2].body, slice_str(text)));
    assert_true(bounce->flags & MESSAGE_8BIT);
    assert_true(bounce->flags & MESSAGE_DOT_LINES);
    original->size++; /* headers only: the dots go, the 8-bit header stays */
    make(1, true);
    assert_true(bounce->flags & MESSAGE_8BIT);
    assert_false(bounce->flags & MESSAGE_DOT_LINES);
    ctx.original = SLICE(".first\r\n\r\n"); /* the very first octet counts */
    make(1, false);
    assert_true(bounce->flags & MESSAGE_DOT_LINES);
}

/* The chosen boundary stands in what is returned: another is taken. The generator starts from the
 * same seed, so the first choice is known. */
static void the_boundary_is_not_in_the_content(void **state)
{
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    uint64_t before = seed;
    struct entropy saved = entropy;
    make(1, false);
    struct slice s = slice_skip(whole.header, find(whole.header, "boundary=\"") + 10);
    int len = snprintf(big, sizeof big, "A: b\r\n\r\n--%.*s--\r\n", (int)slice_find(s, '"'), s.ptr);
    seed = before;
    entropy = saved;
    ctx.original = slice_of(big, (size_t)len);
    original->size = (size_t)len;
    make(1, false); /* split() finds three parts */
    assert_true(slice_eq(parts[2].body, ctx.original));
}

/* What a damaged record may hold. */
static void an_address_stays_on_its_line(void **state)
{
    static char address[5000];
    memset(address, 'a', sizeof address);
    memcpy(address, "x\r\nBcc: <y>\xff", 12);
    original->sender = slice_of(address, sizeof address);
    original->rcpts[2].address = slice_of(address, sizeof address);
    outcome(1, OUTCOME_RCPT, 550, "", SLICE("no"));
    make(1, true);
    assert_null(field(whole.header, "Bcc"));
    assert_int_equal(bounce->rcpts[0].address.len, sizeof address);
    assert_int_equal(bounce->rcpts[0].domain.len, 0);
}

static void a_thousand_recipients(void **state)
{
    enum { COUNT = 1000 };
    static uint32_t rcpts[COUNT], failed[COUNT];
    char address[64];
    for (uint32_t i = 0; i < COUNT; i++) {
        int len = snprintf(address, sizeof address, "r%u@x.example", i);
        message_add_rcpt(original, slice_of(address, (size_t)len), SLICE("x.example"));
        rcpts[i] = 3 + i;
        failed[i] = COUNT - 1 - i;
    }
    delivery_free(delivery);
    delivery = delivery_new(original, "id", SLICE("x.example"), 0, rcpts, COUNT);
    delivery_fail_open(delivery, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    make_for(failed, COUNT, false);
    want_field(block(1), "Final-Recipient", "rfc822; r999@x.example");
    want_field(block(COUNT), "Final-Recipient", "rfc822; r0@x.example");
}

/* --- what was asked for ---------------------------------------------------------------------- */

/* P-65, P-229 */
static void envelope_id_and_original_recipient_are_told(void **state)
{
    original->envid = SLICE("QQ+2B314 is not xtext");
    original->rcpts[2].orcpt = SLICE("rfc822;\"t+20w@o\"@x.example");
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    make(1, false);
    assert_null(field(block(0), "Original-Envelope-Id"));
    want_field(block(1), "Original-Recipient", "rfc822; \"t w@o\"@x.example");
    original->envid = SLICE("QQ+2B314");
    original->rcpts[2].orcpt = SLICE("x-odd-type;+28b+29");
    make(1, false);
    want_field(block(0), "Original-Envelope-Id", "QQ+314");
    want_field(block(1), "Original-Recipient", "x-odd-type; (b)");
}

/* What a damaged record may hold. */
static void an_orcpt_that_is_none_is_left_out(void **state)
{
    static char long_one[700] = "rfc822;";
    static const char *const bad[] = { "rfc822",
                                       ";a@b",
                                       "rfc822;a+0Ab",
                                       "rfc 822;a@b",
                                       "rfc822\r\nX: y;a",
                                       "rfc822;a\r\nX: y",
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;a@b",
                                       long_one };
    memset(long_one + 7, 'a', sizeof long_one - 8);
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        original->rcpts[2].orcpt = slice_str(bad[i]);
        make(1, false);
        assert_null(field(block(1), "Original-Recipient"));
        want_field(block(1), "Final-Recipient", "rfc822; \"t w@o\"@x.example");
    }
}

/* P-65: RET; P-204: the body of a message under REQUIRETLS does not go out in clear. */
static void the_body_is_returned_or_not(void **state)
{
    static const struct {
        enum dsn_ret ret;
        uint32_t flags;
        enum report_action action;
        bool is_whole;
    } rows[] = {
        { DSN_RET_NONE, 0, REPORT_FAILED, true },
        { DSN_RET_FULL, 0, REPORT_FAILED, true },
        { DSN_RET_HDRS, 0, REPORT_FAILED, false },
        { DSN_RET_FULL, MESSAGE_REQUIRE_TLS, REPORT_FAILED, false },
        { DSN_RET_FULL, 0, REPORT_DELAYED, false },
        { DSN_RET_FULL, 0, REPORT_RELAYED, false },
    };
    outcome(1, OUTCOME_DOT, 250, "2.0.0", SLICE("ok"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        original->ret = rows[i].ret;
        original->flags = rows[i].flags;
        actions[1] = rows[i].action;
        make(1, false);
        want(parts[2].header, rows[i].is_whole ? "message/rfc822" : "text/rfc822-headers");
        assert_int_equal(has(parts[2].body, "First line"), rows[i].is_whole);
        assert_false(bounce->flags & MESSAGE_REQUIRE_TLS);
    }
}

/* P-218 */
static void a_delay_is_told_with_the_end_of_patience(void **state)
{
    char until[CLOCK_DATE_MAX];
    actions[1] = REPORT_DELAYED;
    delivery->expires_ms = now.wall_ms + 86400000;
    clock_format_rfc5322(delivery->expires_ms, until);
    outcome(1, OUTCOME_RCPT, 450, "4.2.2", SLICE("full"));
    make(1, false);
    want_field(whole.header, "Subject", "Delayed mail, still being tried");
    want_field(block(1), "Action", "delayed");
    want_field(block(1), "Status", "4.2.2");
    want_field(block(1), "Diagnostic-Code", "smtp; 450 4.2.2 full");
    want_field(block(1), "Will-Retry-Until", until);
    want(parts[0].body, "need not send it again");
    want(parts[0].body, until);
    assert_false(has(parts[0].body, "could not be delivered"));
    outcome(1, OUTCOME_CONNECT, 451, "", SLICE("refused"));
    make(1, false);
    want_field(block(1), "Status", "4.0.0");
    original->deliver_by_ms = now.wall_ms; /* P-68, by-mode N */
    outcome(1, OUTCOME_RCPT, 450, "4.2.2", SLICE("full"));
    make(1, false);
    want_field(block(1), "Status", "4.4.7");
}

/* P-68: by-mode R. */
static void what_is_late_has_failed(void **state)
{
    original->flags = MESSAGE_BY_RETURN;
    original->deliver_by_ms = now.wall_ms;
    outcome(1, OUTCOME_RCPT, 450, "4.2.2", SLICE("full"));
    make(1, false);
    want_field(block(1), "Action", "failed");
    want_field(block(1), "Status", "5.4.7");
    original->deliver_by_ms = now.wall_ms + 1; /* it expired otherwise */
    make(1, false);
    want_field(block(1), "Status", "4.4.7");
}

/* P-232 */
/* What it is about stands below the words; what a rule gave up has failed and not expired. */
static void the_category_is_told(void **state)
{
    outcome(1, OUTCOME_RCPT, 450, "4.2.1", SLICE("never again"));
    struct report_rcpt rcpt = {
        .i = 1, .action = REPORT_FAILED, .category = CATEGORY_POLICY, .is_given_up = true
    };
    remake(&rcpt, 1, false);
    want(parts[0].body, "    450 4.2.1 never again\r\n    (policy: a rule of the receiver forbids "
                        "it)\r\n\r\n");
    assert_false(has(parts[0].body, "in time"));
    want(parts[1].body, "Status: 4.2.1\r\n");
}

static void passing_on_is_told(void **state)
{
    actions[1] = REPORT_RELAYED;
    outcome(1, OUTCOME_DOT, 250, "2.6.0", SLICE("queued as 7"));
    make(1, false);
    want_field(whole.header, "Subject", "Mail was passed on");
    want_field(block(1), "Action", "relayed");
    want_field(block(1), "Status", "2.6.0");
    want_field(block(1), "Remote-MTA", "dns; mx1.x.example");
    want_field(block(1), "Diagnostic-Code", "smtp; 250 2.6.0 queued as 7");
    assert_null(field(block(1), "Will-Retry-Until"));
    want(parts[0].body, "does\r\nnot report");
    outcome(1, OUTCOME_DOT, 250, "", SLICE("ok"));
    make(1, false);
    want_field(block(1), "Status", "2.0.0");
}

static void one_report_tells_different_things(void **state)
{
    actions[0] = REPORT_RELAYED;
    outcome(0, OUTCOME_DOT, 250, "2.0.0", SLICE("ok"));
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("who"));
    make(2, false);
    want_field(whole.header, "Subject", "Undelivered mail returned to sender");
    want_field(block(1), "Action", "relayed");
    want_field(block(2), "Action", "failed");
    want(parts[2].header, "message/rfc822");
    size_t failed = find(parts[0].body, "could not be delivered");
    size_t who = find(parts[0].body, "<\"t w@o\"@x.example>");
    size_t passed = find(parts[0].body, "passed on"), one = find(parts[0].body, "<one@x.example>");
    assert_true(failed < who && who < passed && passed < one && one != SIZE_MAX);
}

/* --- addresses in UTF-8 (P-231) -------------------------------------------------------------- */

#define EACUTE "\xc3\xa9"

static void a_utf8_recipient_makes_a_global_report(void **state)
{
    original->flags = MESSAGE_UTF8;
    original->rcpts[2].address = SLICE(EACUTE "@x.example");
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("caf" EACUTE));
    make(1, true);
    want(slice_str(field(whole.header, "Content-Type")), "report-type=global-delivery-status;");
    want_field(whole.header, "Content-Transfer-Encoding", "8bit");
    want(parts[0].header, "charset=utf-8");
    want_field(parts[0].header, "Content-Transfer-Encoding", "8bit");
    want_field(parts[1].header, "Content-Type", "message/global-delivery-status");
    want_field(parts[1].header, "Content-Transfer-Encoding", "8bit");
    want_field(block(1), "Final-Recipient", "utf-8; " EACUTE "@x.example");
    want_field(block(1), "Diagnostic-Code", "smtp; 550 5.1.1 caf??");
    want_field(parts[2].header, "Content-Type", "message/global");
    want(parts[0].body, "<" EACUTE "@x.example>\r\n");
    assert_true(bounce->flags & MESSAGE_8BIT);
    assert_false(bounce->flags & MESSAGE_UTF8); /* its own header and envelope are ASCII */
    original->ret = DSN_RET_HDRS;
    make(1, true);
    want_field(parts[2].header, "Content-Type", "message/global-headers");
    assert_null(field(parts[2].header, "Content-Transfer-Encoding"));
}

static void a_utf8_sender_needs_smtputf8(void **state)
{
    original->flags = MESSAGE_UTF8;
    original->sender = SLICE(EACUTE "@y.example");
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    make(1, true);
    want_field(whole.header, "To", "<" EACUTE "@y.example>");
    want_field(block(1), "Final-Recipient", "rfc822; \"t w@o\"@x.example");
    assert_true(bounce->flags & MESSAGE_UTF8);
}

/* Nobody else's address matters. */
static void a_utf8_recipient_who_is_not_named_changes_nothing(void **state)
{
    original->rcpts[1].address = SLICE(EACUTE "@x.example");
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    make(1, false);
    want_field(parts[1].header, "Content-Type", "message/delivery-status");
}

/* P-45, P-70: what a damaged record may hold. */
static void only_harmless_utf8_is_written(void **state)
{
    static const struct {
        const char *address, *shown;
    } rows[] = {
        { "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80@x", "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80@x" },
        { "\xc3@x", "?@x" },      /* cut */
        { "\xa9@x", "?@x" },      /* no lead */
        { "\xc0\xae@x", "??@x" }, /* overlong */
        { "\xe0\x80\xae@x", "???@x" },
        { "\xed\xa0\x80@x", "???@x" },      /* surrogate */
        { "\xf4\x90\x80\x80@x", "????@x" }, /* past U+10FFFF */
        { "\xf8\x88\x80\x80\x80@x", "?????@x" },
        { "\xc2\x85@x", "??@x" },      /* C1: next line */
        { "\xe2\x80\xa8@x", "???@x" }, /* line separator */
        { "\xf0\x9f\x98", "???" },
    };
    char want_shown[64];
    outcome(1, OUTCOME_RCPT, 550, "5.1.1", SLICE("no"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        original->rcpts[2].address = slice_str(rows[i].address);
        make(1, true);
        snprintf(want_shown, sizeof want_shown, "utf-8; %s", rows[i].shown);
        want_field(block(1), "Final-Recipient", want_shown);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nobody_is_told_about_a_bounce_or_without_a_sender),
        CASE(its_envelope),
        CASE(the_last_at_sign_divides_the_sender),
        CASE(its_header),
        CASE(each_failed_recipient_is_reported),
        CASE(only_the_failed_are_named),
        CASE(what_was_decided_here_is_no_smtp_diagnostic),
        CASE(no_remote_host_no_field),
        CASE(a_reply_writes_no_fields),
        CASE(long_words_are_folded_and_cut),
        CASE(a_small_original_is_returned_whole),
        CASE(a_large_one_by_its_header),
        CASE(a_header_that_is_cut_ends_with_a_whole_line),
        CASE(a_header_of_more_than_may_be_returned_is_cut),
        CASE(an_original_that_is_not_clean_comes_as_headers),
        CASE(returned_8bit_is_declared),
        CASE(the_boundary_is_not_in_the_content),
        CASE(an_address_stays_on_its_line),
        CASE(a_thousand_recipients),
        CASE(envelope_id_and_original_recipient_are_told),
        CASE(an_orcpt_that_is_none_is_left_out),
        CASE(the_body_is_returned_or_not),
        CASE(a_delay_is_told_with_the_end_of_patience),
        CASE(what_is_late_has_failed),
        CASE(the_category_is_told),
        CASE(passing_on_is_told),
        CASE(one_report_tells_different_things),
        CASE(a_utf8_recipient_makes_a_global_report),
        CASE(a_utf8_sender_needs_smtputf8),
        CASE(a_utf8_recipient_who_is_not_named_changes_nothing),
        CASE(only_harmless_utf8_is_written),
    };
    return cmocka_run_group_tests_name("bounce", tests, NULL, NULL);
}
