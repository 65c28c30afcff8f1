/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions and handshakes of one address (P-116, P-135): what counts as one, the limits, what is
 * freed when, and what happens without room.
 */
#include "core/base/must.h"
#include "io/address_caps.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 10500 /* in the middle of a second */

static const struct sockaddr *address(const char *text)
{
    static struct sockaddr_storage ss;
    memset(&ss, 0, sizeof ss);
    if (strchr(text, ':')) {
        ss.ss_family = AF_INET6;
        must(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&ss)->sin6_addr) == 1);
    } else {
        ss.ss_family = AF_INET;
        must(inet_pton(AF_INET, text, &((struct sockaddr_in *)&ss)->sin_addr) == 1);
    }
    return (struct sockaddr *)&ss;
}

static struct address_caps *caps_of(uint32_t sessions, uint32_t per_second, uint32_t room)
{
    return address_caps_new(&(struct address_limits){ sessions, per_second }, room);
}

static enum address_verdict enter(struct address_caps *caps, const char *text, uint32_t *ticket)
{
    return address_caps_enter(caps, address(text), true, NOW, ticket);
}

static void without_limits_nobody_counts(void **state)
{
    uint32_t ticket = 7;
    assert_null(caps_of(0, 0, 100));
    assert_int_equal(enter(NULL, "192.0.2.1", &ticket), ADDRESS_WELCOME);
    assert_int_equal(ticket, 0);
    address_caps_leave(NULL, 0);
    address_caps_free(NULL);
}

/* P-116: so many at once, one more when one has left; nobody pays for another's. */
static void sessions_of_an_address(void **state)
{
    struct address_caps *caps = caps_of(2, 0, 100);
    uint32_t first, second, none, other;
    assert_int_equal(enter(caps, "192.0.2.1", &first), ADDRESS_WELCOME);
    assert_int_equal(enter(caps, "192.0.2.1", &second), ADDRESS_WELCOME);
    assert_int_equal(enter(caps, "192.0.2.1", &none), ADDRESS_TOO_MANY);
    assert_int_equal(none, 0);
    assert_int_equal(enter(caps, "192.0.2.2", &other), ADDRESS_WELCOME);
    address_caps_leave(caps, none);
    assert_int_equal(enter(caps, "192.0.2.1", &none), ADDRESS_TOO_MANY);
    address_caps_leave(caps, first);
    assert_int_equal(enter(caps, "192.0.2.1", &first), ADDRESS_WELCOME);
    assert_int_equal(enter(caps, "192.0.2.1", &none), ADDRESS_TOO_MANY);
    address_caps_leave(caps, first);
    address_caps_leave(caps, second);
    address_caps_leave(caps, other);
    address_caps_free(caps);
}

struct pair {
    const char *one, *other;
    bool is_same;
};

static void what_one_address_is(void **state)
{
    static const struct pair pairs[] = {
        { "192.0.2.1", "::ffff:192.0.2.1", true }, /* P-28: however it is written */
        { "192.0.2.1", "192.0.2.129", false },     /* not a network */
        { "::ffff:192.0.2.1", "::ffff:192.0.2.2", false },
        { "2001:db8::1", "2001:db8::ffff:2", true }, /* one /64 is one client */
        { "2001:db8::1", "2001:db8:0:1::1", false },
        { "2001:db8::1", "192.0.2.1", false },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct address_caps *caps = caps_of(1, 0, 100);
        uint32_t ticket, other;
        assert_int_equal(enter(caps, pairs[i].one, &ticket), ADDRESS_WELCOME);
        assert_int_equal(enter(caps, pairs[i].other, &other),
                         pairs[i].is_same ? ADDRESS_TOO_MANY : ADDRESS_WELCOME);
        address_caps_free(caps);
    }
}

static void no_address_is_no_limit(void **state)
{
    struct address_caps *caps = caps_of(1, 1, 100);
    struct sockaddr local = { .sa_family = AF_UNIX };
    uint32_t ticket;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(address_caps_enter(caps, &local, true, NOW, &ticket), ADDRESS_WELCOME);
        assert_int_equal(ticket, 0);
    }
    address_caps_free(caps);
}

/* P-135: in a second, whether the sessions are still there or not; those in clear cost nothing. */
static void handshakes_of_a_second(void **state)
{
    struct address_caps *caps = caps_of(0, 2, 100);
    const char *here = "2001:db8::1";
    uint32_t ticket;
    for (int second = 0; second < 3; second++) {
        int64_t now = NOW + second * 1000;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(address_caps_enter(caps, address(here), true, now, &ticket),
                             ADDRESS_WELCOME);
            address_caps_leave(caps, ticket);
        }
        assert_int_equal(address_caps_enter(caps, address(here), true, now + 499, &ticket),
                         ADDRESS_TOO_FAST);
        assert_int_equal(ticket, 0);
        assert_int_equal(address_caps_enter(caps, address(here), false, now + 499, &ticket),
                         ADDRESS_WELCOME);
        address_caps_leave(caps, ticket);
    }
    address_caps_free(caps);
}

/* One row of eight: whoever comes ninth is let in uncounted; a place is free again in the next
 * second after its last session, and not before. */
static void a_full_row(void **state)
{
    struct address_caps *caps = caps_of(1, 0, 1);
    char text[] = "192.0.2.0";
    uint32_t tickets[8], ticket;
    for (int i = 0; i < 8; i++) {
        text[8] = (char)('0' + i);
        assert_int_equal(enter(caps, text, &tickets[i]), ADDRESS_WELCOME);
        assert_int_not_equal(tickets[i], 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(enter(caps, "192.0.2.9", &ticket), ADDRESS_WELCOME);
        assert_int_equal(ticket, 0);
    }
    address_caps_leave(caps, tickets[3]);
    assert_int_equal(enter(caps, "192.0.2.9", &ticket), ADDRESS_WELCOME);
    assert_int_equal(ticket, 0);
    assert_int_equal(address_caps_enter(caps, address("192.0.2.9"), true, NOW + 1000, &ticket),
                     ADDRESS_WELCOME);
    assert_int_equal(ticket, tickets[3]);
    assert_int_equal(address_caps_enter(caps, address("192.0.2.9"), true, NOW + 1000, &ticket),
                     ADDRESS_TOO_MANY);
    address_caps_free(caps);
}

/* --- threads --------------------------------------------------------------------------------- */

#define THREADS 4
#define TURNS   20000
#define AT_ONCE 3

static void *come_and_go(void *ctx)
{
    struct address_caps *caps = ctx;
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201) };
    uintptr_t welcome = 0;
    for (int i = 0; i < TURNS; i++) {
        uint32_t ticket;
        if (address_caps_enter(caps, (struct sockaddr *)&here, false, NOW, &ticket) ==
            ADDRESS_WELCOME)
            welcome++;
        address_caps_leave(caps, ticket);
    }
    return (void *)welcome;
}

/* Whatever the threads did, all have left and as many as ever may come. */
static void many_threads(void **state)
{
    struct address_caps *caps = caps_of(AT_ONCE, 0, 100);
    pthread_t threads[THREADS];
    uint32_t tickets[AT_ONCE + 1];
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, come_and_go, caps) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *welcome;
        pthread_join(threads[i], &welcome);
        assert_true((uintptr_t)welcome > 0);
    }
    for (int i = 0; i < AT_ONCE; i++)
        assert_int_equal(enter(caps, "192.0.2.1", &tickets[i]), ADDRESS_WELCOME);
    assert_int_equal(enter(caps, "192.0.2.1", &tickets[AT_ONCE]), ADDRESS_TOO_MANY);
    address_caps_free(caps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_nobody_counts),
        cmocka_unit_test(sessions_of_an_address),
        cmocka_unit_test(what_one_address_is),
        cmocka_unit_test(no_address_is_no_limit),
        cmocka_unit_test(handshakes_of_a_second),
        cmocka_unit_test(a_full_row),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests_name("address_caps", tests, NULL, NULL);
}
