/* SPDX-License-Identifier: Apache-2.0 */
/* What an outbound connection says between EHLO and the first message: STARTTLS and AUTH. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/smtp/client.h"

#define EHLO    "EHLO me.example\r\n"
#define GREETED "220 mx\r\n"
#define OFFERS  "250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN XOAUTH2\r\n"
#define PLAIN   "AUTH PLAIN AHdobwBzM2NyZXQ=\r\n"
#define TLS_OK                                                                                     \
    GREETED "\0" OFFERS "\0"                                                                       \
            "220 go\r\n\0<secured>\0"

struct row {
    enum client_tls tls;
    uint32_t logins; /* 0: no user */
    /* What the peer says, events in <>, each ended by a NUL; all of what we say. */
    const char *peer;
    size_t peer_len;
    const char *said;
    enum client_state state;
    enum outcome_stage stage; /* of the failure */
    const char *enhanced;
    bool may_go_clear;
};

#define SAYS(text) text, sizeof text

static const struct row rows[] = {
    /* off: not even when it is offered */
    { CLIENT_TLS_OFF, 0, SAYS(GREETED "\0" OFFERS), EHLO, CLIENT_READY, 0, "", false },
    /* may */
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0"
                   "250 mx\r\n"),
      EHLO, CLIENT_READY, 0, "", false },
    { CLIENT_TLS_MAY, 0, SAYS(TLS_OK "250 mx\r\n"), EHLO "STARTTLS\r\n[tls]" EHLO, CLIENT_READY, 0,
      "", false },
    /* P-193: refused */
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "454 not now\r\n"),
      EHLO "STARTTLS\r\n", CLIENT_READY, 0, "", false },
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "502 no\r\n"),
      EHLO "STARTTLS\r\n", CLIENT_READY, 0, "", false },
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "250 go\r\n"),
      EHLO "STARTTLS\r\n", CLIENT_BROKEN, OUTCOME_TLS, "4.5.0", true },
    /* P-192: the handshake fails */
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "220 go\r\n\0<tls failed>"),
      EHLO "STARTTLS\r\n[tls]", CLIENT_BROKEN, OUTCOME_TLS, "4.7.5", true },
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "220 go\r\n\0<timeout>"),
      EHLO "STARTTLS\r\n[tls]", CLIENT_BROKEN, OUTCOME_TLS, "4.7.5", true },
    { CLIENT_TLS_REQUIRED, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "220 go\r\n\0<tls failed>"),
      EHLO "STARTTLS\r\n[tls]", CLIENT_BROKEN, OUTCOME_TLS, "4.7.5", false },
    /* P-194: in one packet with the 220 */
    { CLIENT_TLS_MAY, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "220 go\r\n250 injected\r\n"),
      EHLO "STARTTLS\r\n", CLIENT_BROKEN, OUTCOME_LOST, "4.7.5", false },
    /* P-193: demanded */
    { CLIENT_TLS_REQUIRED, 0,
      SAYS(GREETED "\0"
                   "250 mx\r\n"),
      EHLO, CLIENT_BROKEN, OUTCOME_TLS, "4.7.10", false },
    { CLIENT_TLS_REQUIRED, 0,
      SAYS(GREETED "\0" OFFERS "\0"
                   "454 not now\r\n"),
      EHLO "STARTTLS\r\n", CLIENT_BROKEN, OUTCOME_TLS, "", false },
    { CLIENT_TLS_REQUIRED, 0,
      SAYS(GREETED "\0"
                   "502 no\r\n\0"
                   "250 mx\r\n"),
      EHLO "HELO me.example\r\n", CLIENT_BROKEN, OUTCOME_TLS, "4.7.10", false },
    /* P-195: what was offered in clear counts no more */
    { CLIENT_TLS_REQUIRED, CLIENT_LOGIN_PLAIN, SAYS(TLS_OK "250 mx\r\n"),
      EHLO "STARTTLS\r\n[tls]" EHLO, CLIENT_BROKEN, OUTCOME_AUTH, "4.7.9", false },
    /* P-206: implicit */
    { CLIENT_TLS_IMPLICIT, 0,
      SAYS("<secured>\0" GREETED "\0"
           "250 mx\r\n"),
      "[tls]" EHLO, CLIENT_READY, 0, "", false },
    { CLIENT_TLS_IMPLICIT, 0, SAYS("<tls failed>"), "[tls]", CLIENT_BROKEN, OUTCOME_TLS, "4.7.5",
      false },
    /* P-158: the order of preference, never in clear */
    { CLIENT_TLS_REQUIRED, CLIENT_LOGIN_PLAIN | CLIENT_LOGIN_LOGIN,
      SAYS(TLS_OK OFFERS "\0"
                         "235 in\r\n"),
      EHLO "STARTTLS\r\n[tls]" EHLO PLAIN, CLIENT_READY, 0, "", false },
    { CLIENT_TLS_IMPLICIT, CLIENT_LOGIN_LOGIN,
      SAYS("<secured>\0" GREETED "\0" OFFERS "\0"
           "334 VXNlcm5hbWU6\r\n\0"
           "334 x\r\n\0"
           "235 in\r\n"),
      "[tls]" EHLO "AUTH LOGIN\r\nd2hv\r\nczNjcmV0\r\n", CLIENT_READY, 0, "", false },
    { CLIENT_TLS_MAY, CLIENT_LOGIN_PLAIN,
      SAYS(GREETED "\0"
                   "250-mx\r\n250 AUTH PLAIN\r\n"),
      EHLO, CLIENT_BROKEN, OUTCOME_AUTH, "4.7.11", false },
    { CLIENT_TLS_OFF, CLIENT_LOGIN_PLAIN, SAYS(GREETED "\0" OFFERS), EHLO, CLIENT_BROKEN,
      OUTCOME_AUTH, "4.7.11", false },
    /* P-159: refused */
    { CLIENT_TLS_IMPLICIT, CLIENT_LOGIN_PLAIN,
      SAYS("<secured>\0" GREETED "\0" OFFERS "\0"
           "535 5.7.8 wrong\r\n"),
      "[tls]" EHLO PLAIN, CLIENT_BROKEN, OUTCOME_AUTH, "5.7.8", false },
    /* P-153: XOAUTH2 explains itself and waits for an empty line */
    { CLIENT_TLS_IMPLICIT, CLIENT_LOGIN_XOAUTH2,
      SAYS("<secured>\0" GREETED "\0" OFFERS "\0"
           "334 eyJ9\r\n\0"
           "535 5.7.8 expired\r\n"),
      "[tls]" EHLO "AUTH XOAUTH2 dXNlcj13aG8BYXV0aD1CZWFyZXIgczNjcmV0AQE=\r\n\r\n", CLIENT_BROKEN,
      OUTCOME_AUTH, "5.7.8", false },
    /* P-160: nobody is asked for ever */
    { CLIENT_TLS_IMPLICIT, CLIENT_LOGIN_PLAIN,
      SAYS("<secured>\0" GREETED "\0" OFFERS "\0"
           "334 \r\n"),
      "[tls]" EHLO PLAIN, CLIENT_BROKEN, OUTCOME_AUTH, "4.5.0", false },
    { CLIENT_TLS_IMPLICIT, CLIENT_LOGIN_LOGIN,
      SAYS("<secured>\0" GREETED "\0" OFFERS "\0"
           "334 a\r\n\0"
           "334 b\r\n\0"
           "334 c\r\n"),
      "[tls]" EHLO "AUTH LOGIN\r\nd2hv\r\nczNjcmV0\r\n", CLIENT_BROKEN, OUTCOME_AUTH, "4.5.0",
      false },
};

struct talk {
    struct smtp_client client;
    struct gather out;
    struct buf said;
    struct now now;
};

static void append(struct talk *t, struct slice s)
{
    assert_int_equal(buf_append(&t->said, s), STATUS_OK);
}

static void pump(struct talk *t)
{
    struct smtp_txn *txn;
    enum client_next next;
    do {
        struct iovec iov[16];
        next = smtp_client_next(&t->client, &t->out, &txn, &t->now);
        uint32_t n = gather_iov(&t->out, 0, 0, iov, 16);
        for (uint32_t i = 0; i < n; i++)
            append(t, slice_of(iov[i].iov_base, iov[i].iov_len));
        gather_clear(&t->out);
        if (next == CLIENT_NEXT_TLS)
            append(t, SLICE("[tls]"));
    } while (next == CLIENT_NEXT_BYTES);
}

static void happen(struct talk *t, struct slice event, bool is_cut)
{
    if (slice_eq(event, SLICE("<secured>")))
        smtp_client_secured(&t->client, true, &t->now);
    else if (slice_eq(event, SLICE("<tls failed>")))
        smtp_client_lost(&t->client, OUTCOME_TLS, "the handshake failed");
    else if (slice_eq(event, SLICE("<timeout>")))
        smtp_client_timeout(&t->client);
    else
        for (size_t n; event.len > 0; event = slice_skip(event, n)) {
            n = is_cut ? 1 : event.len;
            smtp_client_input(&t->client, slice_head(event, n), &t->now);
        }
    pump(t);
}

static void play(const struct row *row, bool is_cut)
{
    struct talk t = { .now = { .mono_ms = 1000 } };
    struct client_policy policy = {
        .tls = row->tls,
        .logins = row->logins,
        .user = row->logins ? SLICE("who") : SLICE_NONE,
        .secret = SLICE("s3cret"),
    };
    struct slice peer = slice_of(row->peer, row->peer_len);
    gather_init(&t.out);
    buf_init(&t.said, 4096);
    smtp_client_init(&t.client, &policy, SLICE("me.example"), 0, &t.now);
    pump(&t);
    while (peer.len > 0) {
        size_t end = slice_find(peer, '\0');
        happen(&t, slice_head(peer, end), is_cut);
        peer = slice_skip(peer, end + 1);
    }
    append(&t, slice_of("", 1));
    assert_string_equal(t.said.ptr, row->said);
    assert_int_equal(t.client.state, row->state);
    if (row->state == CLIENT_BROKEN) {
        assert_int_equal(t.client.failure.stage, row->stage);
        assert_string_equal(t.client.failure.enhanced, row->enhanced);
    }
    assert_int_equal(smtp_client_may_go_clear(&t.client), row->may_go_clear);
    smtp_client_lost(&t.client, OUTCOME_LOST, "over");
    smtp_client_done(&t.client);
    gather_done(&t.out);
    buf_done(&t.said);
}

static void conversations(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        play(&rows[i], false);
        if (rows[i].stage != OUTCOME_LOST) /* cut, the injected octets come after the end */
            play(&rows[i], true);
    }
}

/* A handshake has a minute. */
static void handshakes_have_a_deadline(void **state)
{
    struct talk t = { .now = { .mono_ms = 1000 } };
    gather_init(&t.out);
    buf_init(&t.said, 4096);
    smtp_client_init(&t.client, &(struct client_policy){ .tls = CLIENT_TLS_IMPLICIT },
                     SLICE("me.example"), 0, &t.now);
    pump(&t);
    assert_int_equal(smtp_client_deadline(&t.client), 61000);
    t.now.mono_ms = 5000;
    smtp_client_secured(&t.client, false, &t.now);
    assert_int_equal(smtp_client_deadline(&t.client), 5000 + 5 * 60 * 1000);
    smtp_client_lost(&t.client, OUTCOME_LOST, "over");
    smtp_client_done(&t.client);
    gather_done(&t.out);
    buf_done(&t.said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations),
        cmocka_unit_test(handshakes_have_a_deadline),
    };
    return cmocka_run_group_tests_name("client_secure", tests, NULL, NULL);
}
