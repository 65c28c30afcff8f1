/* SPDX-License-Identifier: Apache-2.0 */
/* content: the fields whose value counts, and the trace field. Every row is played as DATA and as
 * BDAT, whole, octet by octet, and cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/content_run.h"
#include <stdio.h>

#define REST "Date: d\r\nMessage-ID: m\r\n"
#define BODY "\r\nx\r\n"
#define DOT  ".\r\n"

static struct test_server t;
static struct smtp_content_policy policy;
static char *shop[] = { "@shop.example", "*@x" /* no pattern: fits nothing */, "me@home.example" };

struct row {
    const char *name;
    const char *header;  /* before REST and BODY */
    enum reply_id reply; /* REPLY_OK: accepted */
    const char *want;    /* what is left of `header`; NULL: all of it */
};

struct play {
    struct slice wire;
    bool is_chunked;
    const char *name;
};

static struct content_result play_cut(const struct play *p, size_t first, size_t piece)
{
    struct message *m = content_message(&t, "a@example.com", "b@example.org");
    return content_run(&t, m, &policy, p->is_chunked, p->wire, first, piece);
}

static void check_same(const struct play *p, const struct content_result *whole, size_t first,
                       size_t piece)
{
    struct content_result cut = play_cut(p, first, piece);
    if (!content_result_eq(whole, &cut))
        fail_msg("%s: cut at %zu, then by %zu", p->name, first, piece);
    free(cut.content);
}

/* However it is cut, it is the same; free() the result's content. */
static struct content_result play(const struct play *p)
{
    struct content_result whole = play_cut(p, p->wire.len, 1);
    check_same(p, &whole, 1, 1);
    for (size_t cut = 1; cut < p->wire.len && cut < 400; cut++)
        check_same(p, &whole, cut, p->wire.len);
    return whole;
}

/* The content behind the trace field, which is three lines. */
static const char *behind_trace(const char *content)
{
    for (int i = 0; i < 3; i++)
        content = strstr(content, "\r\n") + 2;
    return content;
}

static struct content_result play_header(const char *name, const char *header)
{
    static char wire[100000], undotted[100000];
    struct play p = { .name = name };
    int len = snprintf(wire, sizeof wire, "%s" REST BODY DOT, header);
    p.wire = slice_of(wire, (size_t)len);
    struct content_result r = play(&p);
    p.wire = content_undot(p.wire, undotted);
    p.is_chunked = true;
    struct content_result chunked = play(&p);
    assert_true(content_result_eq(&r, &chunked));
    free(chunked.content);
    return r;
}

static void check_rows(const struct row *rows, size_t count)
{
    char want[2000];
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        struct content_result r = play_header(row->name, row->header);
        if (r.reply != row->reply)
            fail_msg("%s: %d %d", row->name, r.reply, reply_code(r.reply));
        snprintf(want, sizeof want, "%s" REST BODY, row->want ? row->want : row->header);
        if (r.reply == REPLY_OK && strcmp(behind_trace(r.content), want) != 0)
            fail_msg("%s:\n%s", row->name, behind_trace(r.content));
        free(r.content);
        assert_int_equal(t.budget.used, 0);
    }
}

#define OK(name, header)                                                                           \
    {                                                                                              \
        name, header, REPLY_OK, NULL                                                               \
    }
#define LEFT(name, header, want)                                                                   \
    {                                                                                              \
        name, header, REPLY_OK, want                                                               \
    }
#define NO(name, header, reply)                                                                    \
    {                                                                                              \
        name, header, REPLY_##reply, NULL                                                          \
    }
#define CHECK(...)                                                                                 \
    check_rows((const struct row[]){ __VA_ARGS__ },                                                \
               sizeof((const struct row[]){ __VA_ARGS__ }) / sizeof(struct row))

/* --- who sends ------------------------------------------------------------------------------- */

/* P-34: the addresses that readers show are the ones that are looked up. */
static void from_must_be_allowed(void **state)
{
    policy.senders = shop;
    policy.sender_count = ARRAY_LEN(shop);
    CHECK(OK("plain", "From: a@shop.example\r\n"),
          OK("angle", "From: Shop <orders@Shop.Example>\r\n"),
          OK("folded", "From:\r\n =?utf-8?q?Caf=C3=A9?=\r\n\t<me\r\n @home.example>\r\n"),
          OK("quoted name", "From: \"<boss@evil.test>, x\" <me@home.example>\r\n"),
          OK("comment", "From: me@home.example (boss@evil.test)\r\n"),
          OK("group", "From: The Shop: a@shop.example;\r\n"),
          OK("two and a Sender",
             "From: a@shop.example, b@shop.example\r\nSender: me@home.example\r\n"),
          OK("Sender before From", "Sender: me@home.example\r\nFrom: a@shop.example\r\n"),
          NO("another", "From: you@home.example\r\n", FROM_NOT_ALLOWED),
          NO("another domain", "From: Shop <orders@shop.example.evil.test>\r\n", FROM_NOT_ALLOWED),
          NO("a subdomain", "From: Shop <orders@sub.shop.example>\r\n", FROM_NOT_ALLOWED),
          NO("behind a good name", "From: \"orders@shop.example\" <x@evil.test>\r\n",
             FROM_NOT_ALLOWED),
          NO("behind a comment", "From: (orders@shop.example) x@evil.test\r\n", FROM_NOT_ALLOWED),
          NO("the second", "From: a@shop.example, x@evil.test\r\nSender: me@home.example\r\n",
             FROM_NOT_ALLOWED),
          NO("in a group", "From: G: a@shop.example, x@evil.test;\r\n", FROM_NOT_ALLOWED),
          NO("the Sender", "From: a@shop.example\r\nSender: x@evil.test\r\n", FROM_NOT_ALLOWED),
          NO("quoted at", "From: \"a@shop.example\"@evil.test\r\n", FROM_NOT_ALLOWED),
          NO("two without a Sender", "From: a@shop.example, b@shop.example\r\n", NEED_SENDER),
          NO("address as a name", "From: orders@shop.example <x@evil.test>\r\n", BAD_FROM),
          NO("two in brackets", "From: <orders@shop.example> <x@evil.test>\r\n", BAD_FROM),
          NO("no address", "From: Shop\r\n", BAD_FROM), NO("empty", "From:\r\n", BAD_FROM),
          NO("empty group", "From: Shop:;\r\n", BAD_FROM),
          NO("a route", "From: <@shop.example:x@evil.test>\r\n", BAD_FROM),
          NO("open quote", "From: \"Shop <orders@shop.example>\r\n", BAD_FROM),
          NO("open comment", "From: orders@shop.example (x\r\n", BAD_FROM),
          NO("two Senders", "From: a@shop.example\r\nSender: a@shop.example, b@shop.example\r\n",
             BAD_FROM),
          NO("an empty Sender", "From: a@shop.example\r\nSender: \r\n", BAD_FROM));
}

/* Without a list a user is who the name says. */
static void a_name_may_send_as_itself(void **state)
{
    policy.own_name = SLICE("alice@example.org");
    CHECK(OK("itself", "From: Alice <alice@example.org>\r\n"),
          NO("another", "From: bob@example.org\r\n", FROM_NOT_ALLOWED));
    policy.own_name = SLICE("@example.org"); /* no address, and no pattern */
    CHECK(NO("no pattern", "From: bob@example.org\r\n", FROM_NOT_ALLOWED));
    policy.senders = shop;
    policy.sender_count = ARRAY_LEN(shop);
    policy.own_name = SLICE("alice@example.org"); /* a list replaces it */
    CHECK(NO("a list", "From: Alice <alice@example.org>\r\n", FROM_NOT_ALLOWED));
    policy.sender_count = 0;
    CHECK(NO("an empty list", "From: Alice <alice@example.org>\r\n", FROM_NOT_ALLOWED));
}

/* P-90 holds for everybody; the rest of From is nobody's business then (P-97). */
static void without_a_policy_only_several_need_a_sender(void **state)
{
    CHECK(OK("anybody", "From: x@y, \"z, w\" <\r\n"),
          OK("name with a comma", "From: \"a, b\" <c@d>\r\n"),
          OK("unreadable", "From: Foo, Inc. <a@b>\r\n"), OK("nothing", "From:\r\n"),
          OK("several and a Sender", "From: a@b, c@d\r\nSender: what, ever\r\n"),
          OK("one and nothing", "From: a@b,\r\n"), NO("several", "From: a@b, c@d\r\n", NEED_SENDER),
          NO("several, folded", "From: A <a@b>,\r\n\tC\r\n <c@d>\r\n", NEED_SENDER),
          NO("several in groups", "From: G: a@b;, H: c@d;\r\n", NEED_SENDER));
}

/* The first fault is told, and what is worse than a fault outweighs it. */
static void faults_have_an_order(void **state)
{
    policy.senders = shop;
    policy.sender_count = ARRAY_LEN(shop);
    CHECK(NO("From first", "From: x@evil.test\r\nSubject : s\r\n", FROM_NOT_ALLOWED),
          NO("another first", "Subject : s\r\nFrom: x@evil.test\r\n", BAD_HEADER),
          NO("From last", "To: a\r\nTo: b\r\nFrom: x@evil.test\r\n", DUPLICATE_HEADER),
          NO("a defect", "From: x@evil.test\r\nX: \rx\r\n", BARE_CR_LF),
          NO("in From itself", "From: x@evil\n.test\r\n", BARE_CR_LF));
}

/* A From as long as the limit is read; a longer one is not, however it was cut. */
static void a_from_has_its_maximum(void **state)
{
    static char header[CONTENT_VALUE_MAX + 100];
    t.server.limits.header_size_max = 100000;
    policy.size_max = 0;
    policy.own_name = SLICE("a@b");
    for (int over = 0; over < 2; over++) {
        size_t len = (size_t)sprintf(header, "From: a@b");
        while (len < CONTENT_VALUE_MAX + 5 - 2 - 100)
            len += (size_t)sprintf(header + len, "\r\n%99s", "");
        while (len < (size_t)(CONTENT_VALUE_MAX + 5 - 1 - 2 + over))
            len += (size_t)sprintf(header + len, " ");
        sprintf(header + len, "\r\n");
        struct content_result r = play_header("long", header);
        assert_int_equal(r.reply, over ? REPLY_BAD_FROM : REPLY_OK);
        free(r.content);
    }
}

/* --- lanes ----------------------------------------------------------------------------------- */

#define LANE "X-Kilat-Lane: "

/* The field never leaves, whatever it says. */
static void a_lane_is_asked_for(void **state)
{
    static const struct {
        const char *header;
        enum mail_lane best;
        bool lists_are_bulk;
        char lane;
    } rows[] = {
        { "From: f\r\n" LANE "urgent\r\n", LANE_URGENT, false, 'u' },
        { LANE "\r\n  Bulk \r\nFrom: f\r\n", LANE_URGENT, false, 'b' },
        { "x-kilat-lane:normal\r\nFrom: f\r\n", LANE_URGENT, false, 'n' },
        { LANE "fast\r\nFrom: f\r\n", LANE_URGENT, false, 'n' },
        { LANE "\r\nFrom: f\r\n", LANE_URGENT, false, 'n' },
        { LANE "urgent\r\nFrom: f\r\n", LANE_NORMAL, false, 'n' },
        { LANE "urgent\r\nFrom: f\r\n", LANE_BULK, false, 'b' },
        { LANE "bulk\r\nFrom: f\r\n", LANE_NORMAL, false, 'b' },
        { LANE "bulk\r\n" LANE "urgent\r\nFrom: f\r\n", LANE_URGENT, false, 'u' },
        { "From: f\r\nList-Unsubscribe: <x:y>\r\n", LANE_URGENT, false, 'n' },
        { "From: f\r\nList-Unsubscribe: <x:y>\r\n", LANE_URGENT, true, 'b' },
        { "From: f\r\nPrecedence: bulk\r\n", LANE_URGENT, false, 'n' },
        { "From: f\r\nPrecedence: bulk\r\n", LANE_URGENT, true, 'b' },
        { "From: f\r\nPrecedence:  List\r\n", LANE_URGENT, true, 'b' },
        { "From: f\r\nPrecedence: first-class\r\n", LANE_URGENT, true, 'n' },
        { LANE "normal\r\nFrom: f\r\nPrecedence: bulk\r\n", LANE_URGENT, true, 'n' },
        { "From: f\r\nPrecedence: bulk\r\n" LANE "urgent\r\n", LANE_URGENT, true, 'u' },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        policy.lane_best = rows[i].best;
        policy.lists_are_bulk = rows[i].lists_are_bulk;
        struct content_result r = play_header(rows[i].header, rows[i].header);
        if (r.reply != REPLY_OK || r.lane != rows[i].lane)
            fail_msg("row %zu: %d, lane %c", i, r.reply, r.lane);
        assert_null(strcasestr(r.content, "x-kilat"));
        free(r.content);
    }
}

/* --- sent again ------------------------------------------------------------------------------ */

#define KEY  "X-Idempotency-Key: "
#define K50  "01234567890123456789012345678901234567890123456789"
#define K255 K50 K50 K50 K50 K50 "12345"

/* The field never leaves, and says one thing (P-96). */
static void a_key_is_taken_out(void **state)
{
    for (int mode = IDEMPOTENCY_OFF; mode <= IDEMPOTENCY_MESSAGE_ID; mode++) {
        policy.idempotency = (enum idempotency_mode)mode;
        CHECK(LEFT("key", "From: f\r\n" KEY "abc\r\nTo: t\r\n", "From: f\r\nTo: t\r\n"),
              LEFT("folded", "From: f\r\nx-idempotency-KEY:\r\n\tabc \r\n", "From: f\r\n"),
              LEFT("longest", KEY K255 "\r\nFrom: f\r\n", "From: f\r\n"),
              OK("another field", "From: f\r\nX-Idempotency-Keys: a\r\n"));
    }
    policy.idempotency = IDEMPOTENCY_HEADER;
    CHECK(NO("none", "From: f\r\nX-Idempotency-Key:\r\n", BAD_KEY),
          NO("blank", "From: f\r\n" KEY "\r\n \r\n", BAD_KEY),
          NO("too long", "From: f\r\n" KEY K255 "6\r\n", BAD_KEY),
          NO("fold inside", "From: f\r\n" KEY "a\r\n b\r\n", BAD_KEY),
          NO("8-bit", "From: f\r\n" KEY "\xc3\xa4\r\n", BAD_KEY),
          NO("twice", "From: f\r\n" KEY "a\r\n" KEY "a\r\n", BAD_KEY));
    policy.idempotency = IDEMPOTENCY_OFF;
    CHECK(LEFT("nobody cares", KEY "\xc3\xa4\r\n" KEY "b\r\nFrom: f\r\n", "From: f\r\n"));
}

struct sent {
    bool has_key;
    uint8_t key[32], digest[32];
};

static struct sent send_again(const char *sender, const char *const *rcpts, const char *wire)
{
    struct sent sent;
    struct message *m = content_message(&t, sender, rcpts[0]);
    for (size_t i = 1; rcpts[i]; i++) {
        struct slice rcpt = slice_str(rcpts[i]);
        message_add_rcpt(m, rcpt, slice_skip(rcpt, slice_find(rcpt, '@') + 1));
    }
    struct content_result r = content_run(&t, m, &policy, false, slice_str(wire), 11, 7);
    assert_int_equal(r.reply, REPLY_OK);
    sent.has_key = r.has_key;
    memcpy(sent.key, r.key, sizeof sent.key);
    memcpy(sent.digest, r.digest, sizeof sent.digest);
    free(r.content);
    return sent;
}

#define TO(...) ((const char *const[]){ __VA_ARGS__, NULL })

static bool is_same_key(struct sent a, struct sent b)
{
    assert_true(a.has_key && b.has_key);
    return memcmp(a.key, b.key, sizeof a.key) == 0;
}

static bool is_same_digest(struct sent a, struct sent b)
{
    assert_true(a.has_key && b.has_key);
    return memcmp(a.digest, b.digest, sizeof a.digest) == 0;
}

static void the_same_is_known_again(void **state)
{
    policy.idempotency = IDEMPOTENCY_HEADER;
    policy.tenant = SLICE("acme");
    const char *wire = KEY "k1\r\n\r\nbody\r\n" DOT;
    struct sent first = send_again("s@x", TO("a@b", "c@d", "e@D"), wire);
    struct sent again = send_again("s@X", TO("e@d", "a@B", "c@d"),
                                   "Date: later\r\n" KEY "\tk1 \r\nSubject: s\r\n\r\nbody\r\n" DOT);
    assert_true(is_same_key(first, again) && is_same_digest(first, again));
    /* what is another message under the same key */
    assert_false(is_same_digest(first, send_again("s@x", TO("a@b", "c@d", "f@d"), wire)));
    assert_false(is_same_digest(first, send_again("s@x", TO("a@b", "c@d"), wire)));
    assert_false(is_same_digest(first, send_again("S@x", TO("a@b", "c@d", "e@d"), wire)));
    assert_false(is_same_digest(
        first, send_again("s@x", TO("a@b", "c@d", "e@d"), KEY "k1\r\n\r\nBody\r\n" DOT)));
    assert_false(is_same_digest(
        first, send_again("s@x", TO("a@b", "c@d", "e@d"), KEY "k1\r\n\r\nbody\r\n\r\n" DOT)));
    assert_true(is_same_key(first, send_again("q@x", TO("z@b"), wire)));
    /* another key, another tenant */
    assert_false(is_same_key(first, send_again("s@x", TO("a@b"), KEY "k2\r\n\r\nbody\r\n" DOT)));
    policy.tenant = SLICE("acm");
    assert_false(is_same_key(first, send_again("s@x", TO("a@b"), KEY "ek1\r\n\r\n" DOT)));
}

static void nothing_is_known_without_a_key(void **state)
{
    const char *with_id = "Message-ID: <1@x>\r\n\r\nbody\r\n" DOT;
    policy.idempotency = IDEMPOTENCY_OFF;
    assert_false(send_again("s@x", TO("a@b"), KEY "k\r\n\r\nbody\r\n" DOT).has_key);
    policy.idempotency = IDEMPOTENCY_HEADER;
    assert_false(send_again("s@x", TO("a@b"), with_id).has_key);
    policy.idempotency = IDEMPOTENCY_MESSAGE_ID;
    assert_false(send_again("s@x", TO("a@b"), "Subject: s\r\n\r\nbody\r\n" DOT).has_key);
    assert_false(send_again("s@x", TO("a@b"), "Message-ID: \r\n\r\nbody\r\n" DOT).has_key);
    assert_false(send_again("s@x", TO("a@b"), "body\r\n" DOT).has_key);
}

/* With message-id: the same Message-ID in the same envelope; a key of the client's outweighs it,
 * wherever it stands. */
static void a_message_id_is_a_key(void **state)
{
    const char *wire = "Message-ID: <1@x>\r\n\r\nbody\r\n" DOT;
    policy.idempotency = IDEMPOTENCY_MESSAGE_ID;
    struct sent first = send_again("s@x", TO("a@b", "c@d"), wire);
    struct sent again =
        send_again("s@x", TO("c@D", "a@b"), "message-id:\r\n <1@x>\r\n\r\nbody\r\n" DOT);
    assert_true(is_same_key(first, again) && is_same_digest(first, again));
    assert_false(is_same_key(first, send_again("s@x", TO("a@b"), wire)));
    assert_false(is_same_key(first, send_again("r@x", TO("a@b", "c@d"), wire)));
    assert_false(is_same_key(
        first, send_again("s@x", TO("a@b", "c@d"), "Message-ID: <2@x>\r\n\r\nbody\r\n" DOT)));
    assert_false(is_same_digest(
        first, send_again("s@x", TO("a@b", "c@d"), "Message-ID: <1@x>\r\n\r\nBody\r\n" DOT)));
    struct sent before = send_again("s@x", TO("a@b"), KEY "k\r\nMessage-ID: <1@x>\r\n\r\n" DOT);
    struct sent behind = send_again("s@x", TO("a@b"), "Message-ID: <2@x>\r\n" KEY "k\r\n\r\n" DOT);
    assert_true(is_same_key(before, behind) && is_same_digest(before, behind));
}

/* --- what is ours ---------------------------------------------------------------------------- */

/* P-96, P-248: nobody else may speak in our name. mx.test is the host's. */
static void our_own_results_are_cut_off(void **state)
{
    CHECK(
        LEFT("ours", "From: f\r\nAuthentication-Results: mx.test; spf=pass\r\nTo: t\r\n",
             "From: f\r\nTo: t\r\n"),
        LEFT("first", "authentication-results:MX.Test;none\r\nFrom: f\r\n", "From: f\r\n"),
        LEFT("folded and quoted",
             "From: f\r\nAuthentication-Results: (x)\r\n \"mx.test\"\r\n 1; spf=pass\r\n\tx=y\r\n",
             "From: f\r\n"),
        LEFT("several",
             "Authentication-Results: mx.test; a\r\nAuthentication-Results: mx.test; b\r\n"
             "From: f\r\n",
             "From: f\r\n"),
        LEFT("nobody can tell whose", "From: f\r\nAuthentication-Results: (mx.test; a\r\n",
             "From: f\r\n"),
        LEFT("nobody's", "From: f\r\nAuthentication-Results: ; a\r\n", "From: f\r\n"),
        OK("another's", "From: f\r\nAuthentication-Results: mx.test.example; spf=pass\r\n a\r\n"),
        OK("another's, in words",
           "From: f\r\nAuthentication-Results: (mx.test) example.org\r\n (mx.test); x\r\n"),
        OK("another field", "From: f\r\nAuthentication-Result: mx.test; spf=pass\r\n"),
        LEFT("internal", "X-Kilat-Lane: u\r\nFrom: f\r\nx-kilat-a: \r\n b\r\n", "From: f\r\n"),
        LEFT("internal, and long", "From: f\r\nX-Kilat-0123456789-0123456789: u\r\n",
             "From: f\r\n"),
        LEFT("internal, and short", "From: f\r\nX-Kilat-: u\r\n", "From: f\r\n"),
        OK("not internal", "From: f\r\nX-Kilat: u\r\nXX-Kilat-A: u\r\n"));
}

/* RFC 8689 5; REQUIRETLS outweighs it (P-72). */
static void tls_may_be_waived(void **state)
{
    static const struct {
        const char *header;
        bool is_waived;
    } cases[] = {
        { "From: f\r\nTLS-Required: No\r\n", true },
        { "From: f\r\ntls-required:\r\n\tnO \r\n", true },
        { "From: f\r\nTLS-Required: x\r\nTLS-Required:no\r\n", true },
        { "From: f\r\nTLS-Required: Yes\r\n", false },
        { "From: f\r\nTLS-Required: None\r\n", false },
        { "From: f\r\nTLS-Required:\r\n", false },
        { "From: f\r\nX-TLS-Required: No\r\n", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct content_result r = play_header(cases[i].header, cases[i].header);
        assert_int_equal(r.flags, cases[i].is_waived ? MESSAGE_TLS_OPTIONAL : 0);
        assert_non_null(strstr(r.content, cases[i].header)); /* it stays, for the next hop */
        free(r.content);
    }
    struct message *m = content_message(&t, "a@b", "c@d");
    m->flags = MESSAGE_REQUIRE_TLS;
    struct content_result r =
        content_run(&t, m, &policy, false, SLICE("TLS-Required: No\r\n" DOT), 9, 9);
    assert_int_equal(r.flags, MESSAGE_REQUIRE_TLS);
    free(r.content);
}

/* P-180, RFC 6531 3.2: only what needs SMTPUTF8 asks the next hop for it. */
static void utf8_is_asked_for_when_needed(void **state)
{
    static const struct {
        const char *header, *sender, *rcpt;
        bool is_utf8, is_needed;
    } cases[] = {
        { "From: f\r\n", "a@b", "c@d", true, false },
        { "From: \xc3\xa4\r\n", "a@b", "c@d", true, true },
        { "From: \xc3\xa4\r\n", "a@b", "c@d", false, false }, /* taken all the same */
        { "From: f\r\n", "\xc3\xa4@b", "c@d", true, true },
        { "From: f\r\n", "a@b", "c@\xc3\xa4", true, true },
        { "From: f\r\nBcc: \xc3\xa4\r\n", "a@b", "c@d", true, false }, /* never leaves */
        { "From: f\r\nAuthentication-Results: mx.test; \xc3\xa4\r\n", "a@b", "c@d", true, false },
        { "Y: \xc3\xa4\r\nAuthentication-Results: mx.test; \xc3\xa4\r\n", "a@b", "c@d", true,
          true },
        { "From: f\r\n\r\n\xc3\xa4\r\nX: y\r\n", "a@b", "c@d", true, false }, /* the body */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char wire[500];
        policy.is_utf8 = cases[i].is_utf8;
        snprintf(wire, sizeof wire, "%s" REST BODY DOT, cases[i].header);
        for (size_t piece = 1; piece < sizeof wire; piece += piece < 20 ? 1 : 400) {
            struct message *m = content_message(&t, cases[i].sender, cases[i].rcpt);
            m->flags = MESSAGE_UTF8; /* as the session may have it */
            struct content_result r =
                content_run(&t, m, &policy, false, slice_str(wire), piece, piece);
            assert_int_equal(r.reply, REPLY_OK);
            assert_int_equal((r.flags & MESSAGE_UTF8) != 0, cases[i].is_needed);
            free(r.content);
        }
    }
}

/* --- the trace field ------------------------------------------------------------------------- */

static void check_trace(struct message *m, const char *want)
{
    smtp_content_free(smtp_content_new(&t.server, m, &policy, &t.now));
    char *text = test_flatten(&m->content);
    assert_string_equal(text, want);
    free(text);
    message_unref(m);
}

/* P-93 */
static void with_names_the_protocol(void **state)
{
    static const struct smtp_tls tls = { .version = "TLSv1.3", .cipher = "TLS_AES_128_GCM_SHA256" };
    static const struct {
        bool is_esmtp, is_utf8, is_tls, is_authenticated;
        const char *with;
    } cases[] = {
        { false, false, false, false, "SMTP" },   { false, false, true, false, "SMTP" },
        { true, false, false, false, "ESMTP" },   { true, false, true, false, "ESMTPS" },
        { true, false, false, true, "ESMTPA" },   { true, false, true, true, "ESMTPSA" },
        { true, true, false, false, "UTF8SMTP" }, { true, true, true, false, "UTF8SMTPS" },
        { true, true, false, true, "UTF8SMTPA" }, { true, true, true, true, "UTF8SMTPSA" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char want[300];
        policy.is_esmtp = cases[i].is_esmtp;
        policy.is_utf8 = cases[i].is_utf8;
        policy.tls = cases[i].is_tls ? &tls : NULL;
        policy.is_authenticated = cases[i].is_authenticated;
        policy.own_name = SLICE("secret@example.org"); /* P-156: not told */
        snprintf(want, sizeof want,
                 "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Kilat) with %s%s "
                 "id " CONTENT_ID "\r\n\tfor <b@example.org>; " TEST_DATE "\r\n",
                 cases[i].with, cases[i].is_tls ? "\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)" : "");
        check_trace(content_message(&t, "a@b", "b@example.org"), want);
    }
}

/* P-66 */
static void a_priority_is_told(void **state)
{
    struct message *m = content_message(&t, "a@b", "b@example.org");
    m->priority = -9;
    check_trace(
        m,
        "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Kilat) with ESMTP id " CONTENT_ID
        "\r\n\tfor <b@example.org> PRIORITY -9; " TEST_DATE "\r\n");
    m = content_message(&t, "a@b", "b@example.org");
    message_add_rcpt(m, SLICE("c@d"), SLICE("d"));
    m->priority = 4;
    check_trace(
        m,
        "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Kilat) with ESMTP id " CONTENT_ID
        " PRIORITY 4;\r\n\t" TEST_DATE "\r\n");
}

static int setup(void **state)
{
    test_server_init(&t);
    policy = (struct smtp_content_policy){ .is_esmtp = true, .size_max = 10000 };
    return 0;
}

static int teardown(void **state)
{
    return t.budget.used == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(from_must_be_allowed),
        TEST(a_name_may_send_as_itself),
        TEST(without_a_policy_only_several_need_a_sender),
        TEST(faults_have_an_order),
        TEST(a_from_has_its_maximum),
        TEST(a_lane_is_asked_for),
        TEST(a_key_is_taken_out),
        TEST(the_same_is_known_again),
        TEST(nothing_is_known_without_a_key),
        TEST(a_message_id_is_a_key),
        TEST(our_own_results_are_cut_off),
        TEST(tls_may_be_waived),
        TEST(utf8_is_asked_for_when_needed),
        TEST(with_names_the_protocol),
        TEST(a_priority_is_told),
    };
    return cmocka_run_group_tests_name("content_fields", tests, NULL, NULL);
}
