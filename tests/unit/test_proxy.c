/* SPDX-License-Identifier: Apache-2.0 */
/* P-254 to P-258: the header of a load balancer; each row whole, and octet by octet. */
#include "core/base/must.h"
#include "core/smtp/proxy.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V4  "\xcb\0\x71\x09\xc0\0\x02\x01\x9c\x40\x02\x4b"
#define V6                                                                                         \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"                                                   \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                                   \
    "\x9c\x40\x02\x4b"

struct row {
    const char *in;
    size_t len;
    enum proxy_result result;
    const char *source; /* NULL: none */
    uint16_t port;
    bool is_local;
};
#define ROW(text, ...)                                                                             \
    {                                                                                              \
        text, sizeof(text) - 1, __VA_ARGS__                                                        \
    }

static const struct row rows[] = {
    /* version 1 */
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\r\n", PROXY_DONE, "203.0.113.9", 40000, false),
    ROW("PROXY TCP6 2001:db8::9 2001:db8::1 1 65535\r\n", PROXY_DONE, "2001:db8::9", 1, false),
    ROW("PROXY TCP6 ::ffff:203.0.113.9 ::1 0 0\r\n", PROXY_DONE, "::ffff:203.0.113.9", 0, false),
    ROW("PROXY UNKNOWN\r\n", PROXY_DONE, NULL, 0, false),
    ROW("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", PROXY_DONE, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\r\nEHLO x\r\n", PROXY_DONE, "203.0.113.9",
        40000, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587 \r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4  203.0.113.9 192.0.2.1 40000 587\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 040 587\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 65536 587\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 -1 587\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 2001:db8::9 192.0.2.1 1 2\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP6 203.0.113.9 192.0.2.1 1 2\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.999 192.0.2.1 1 2\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY UDP4 203.0.113.9 192.0.2.1 1 2\r\n", PROXY_BAD, NULL, 0, false),
    ROW("PROXY \r\n", PROXY_BAD, NULL, 0, false),
    ROW("proxy TCP4 203.0.113.9 192.0.2.1 1 2\r\n", PROXY_BAD, NULL, 0, false),
    ROW("EHLO client.test\r\n", PROXY_BAD, NULL, 0, false),
    ROW("\x16\x03\x01\x02", PROXY_BAD, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9", PROXY_MORE, NULL, 0, false),
    ROW("PROXY TCP4 203.0.113.9\0 192.0.2.1 1 2", PROXY_BAD, NULL, 0, false),
    /* version 2 */
    ROW(SIG "\x21\x11\0\x0c" V4, PROXY_DONE, "203.0.113.9", 40000, false),
    ROW(SIG "\x21\x21\0\x24" V6, PROXY_DONE, "2001:db8::9", 40000, false),
    ROW(SIG "\x20\0\0\0", PROXY_DONE, NULL, 0, true),
    ROW(SIG "\x20\x11\0\x0c" V4, PROXY_DONE, NULL, 0, true),
    ROW(SIG "\x21\0\0\x02xx", PROXY_DONE, NULL, 0, false),
    ROW(SIG "\x21\x12\0\x0c" V4, PROXY_DONE, NULL, 0, false), /* datagrams */
    ROW(SIG "\x21\x11\0\x0f" V4 "\x04\0\0", PROXY_DONE, "203.0.113.9", 40000, false),
    ROW(SIG "\x21\x11\0\x10" V4 "\x02\0\x01x", PROXY_DONE, "203.0.113.9", 40000, false),
    ROW(SIG "\x21\x11\0\x0b\xcb\0\x71\x09\xc0\0\x02\x01\x9c\x40\x02", PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x11\0\x0e" V4 "\x02\0", PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x11\0\x10" V4 "\x02\0\x02x", PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x11\0\x13" V4 "\x03\0\x04\0\0\0\0", PROXY_BAD, NULL, 0, false), /* checksum */
    ROW(SIG "\x21\x11\0\x12" V4 "\x03\0\x03\0\0\0", PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x11\x11\0\x0c" V4, PROXY_BAD, NULL, 0, false), /* version 1 in the form of 2 */
    ROW(SIG "\x22\x11\0\x0c" V4, PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x41\0\x0c" V4, PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x13\0\x0c" V4, PROXY_BAD, NULL, 0, false),
    ROW(SIG "\x21\x11\x02\x09" V4, PROXY_BAD, NULL, 0, false), /* longer than we keep */
    ROW(SIG "\x21\x11\0\x0c\xcb\0", PROXY_MORE, NULL, 0, false),
    ROW("\r\n\r\n", PROXY_MORE, NULL, 0, false),
    ROW("\r\n\r\n\r\n", PROXY_BAD, NULL, 0, false),
};

static void check(const struct row *row, enum proxy_result result, const struct proxy_header *h)
{
    char text[INET6_ADDRSTRLEN] = "";
    assert_int_equal(result, row->result);
    if (result != PROXY_DONE)
        return;
    assert_int_equal(h->has_source, row->source != NULL);
    assert_int_equal(h->is_local, row->is_local);
    if (!row->source)
        return;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&h->source;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&h->source;
    bool is_v4 = h->source.ss_family == AF_INET;
    inet_ntop(h->source.ss_family, is_v4 ? (const void *)&v4->sin_addr : &v6->sin6_addr, text,
              sizeof text);
    assert_string_equal(text, row->source);
    assert_int_equal(ntohs(is_v4 ? v4->sin_port : v6->sin6_port), row->port);
}

static void reads_headers(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct proxy_header header;
        size_t used = 0;
        check(&rows[i], proxy_parse(slice_of(rows[i].in, rows[i].len), &used, &header), &header);
        enum proxy_result result = PROXY_MORE;
        for (size_t len = 0; len <= rows[i].len && result == PROXY_MORE; len++)
            result = proxy_parse(slice_of(rows[i].in, len), &used, &header);
        check(&rows[i], result, &header);
    }
}

/* 107 octets are the most of version 1; without an end by then it is none. */
static void a_line_has_an_end(void **state)
{
    char line[200];
    struct proxy_header header;
    size_t used = 0;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + 105, "\r\n", 2);
    assert_int_equal(proxy_parse(slice_of(line, 107), &used, &header), PROXY_DONE);
    assert_int_equal(used, 107);
    memcpy(line + 105, "xx\r\n", 4);
    assert_int_equal(proxy_parse(slice_of(line, 106), &used, &header), PROXY_MORE);
    assert_int_equal(proxy_parse(slice_of(line, 109), &used, &header), PROXY_BAD);
}

/* The right checksum, computed by the definition of CRC-32C. */
static void a_right_checksum_is_taken(void **state)
{
    char in[] = SIG "\x21\x11\0\x13" V4 "\x03\0\x04\0\0\0\0";
    size_t len = sizeof in - 1, used = 0;
    struct proxy_header header;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)in[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    crc = htonl(~crc);
    memcpy(in + len - 4, &crc, 4);
    assert_int_equal(proxy_parse(slice_of(in, len), &used, &header), PROXY_DONE);
    assert_int_equal(used, len);
    assert_true(header.has_source);
    in[20] ^= 1;
    assert_int_equal(proxy_parse(slice_of(in, len), &used, &header), PROXY_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_headers),
        cmocka_unit_test(a_line_has_an_end),
        cmocka_unit_test(a_right_checksum_is_taken),
    };
    return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
