/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy: headers of load balancers, versions 1 and 2. Every row is parsed whole, with octets of a
 * client behind it, and octet by octet: a header is "more" until its last octet, and what is none
 * stays none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/must.h"
#include "core/smtp/proxy.h"
#include <arpa/inet.h>
#include <stdio.h>

#define INPUT_MAX 2048

/* Parses a block of exactly this length, so that ASan sees a read past its end. */
static enum proxy_result parse_exactly(struct slice in, size_t *used, struct proxy_header *out)
{
    char *copy = mem_alloc(in.len > 0 ? in.len : 1);
    if (in.len > 0)
        memcpy(copy, in.ptr, in.len);
    enum proxy_result result = proxy_parse(slice_of(copy, in.len), used, out);
    free(copy);
    return result;
}

/* As a connection does: all that has come so far, one octet more each time. */
static enum proxy_result parse_growing(struct slice in, struct proxy_header *out)
{
    size_t used = 0;
    for (size_t len = 0; len <= in.len; len++) {
        enum proxy_result result = parse_exactly(slice_head(in, len), &used, out);
        if (result == PROXY_DONE)
            assert_int_equal(used, len); /* not before its last octet, and then at once */
        if (result != PROXY_MORE)
            return result;
    }
    return PROXY_MORE;
}

static void expect_bad(struct slice in, const char *name)
{
    struct proxy_header whole, grown;
    size_t used = 12345;
    if (parse_exactly(in, &used, &whole) != PROXY_BAD || used != 12345)
        fail_msg("whole: %s", name);
    if (parse_growing(in, &grown) != PROXY_BAD)
        fail_msg("growing: %s", name);
}

/* The header alone, growing, and with a client's octets behind it. */
static struct proxy_header expect_good(struct slice header, const char *name)
{
    struct proxy_header grown, out;
    struct buf all;
    size_t used = 0;
    buf_init(&all, INPUT_MAX);
    assert_int_equal(buf_append(&all, header), STATUS_OK);
    assert_int_equal(buf_append(&all, SLICE("EHLO client.example\r\n")), STATUS_OK);
    if (parse_exactly(buf_slice(&all), &used, &out) != PROXY_DONE || used != header.len)
        fail_msg("whole: %s", name);
    if (parse_growing(header, &grown) != PROXY_DONE || memcmp(&grown, &out, sizeof out) != 0)
        fail_msg("growing: %s", name);
    buf_done(&all);
    return out;
}

/* "[address]:port", or "-" for none. */
static const char *shown(const struct proxy_header *h, const struct sockaddr_storage *addr)
{
    static char text[INET6_ADDRSTRLEN + 10];
    char host[INET6_ADDRSTRLEN];
    bool is_v4 = addr->ss_family == AF_INET;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
    if (!h->has_source)
        return "-";
    assert_true(is_v4 || addr->ss_family == AF_INET6);
    assert_non_null(inet_ntop(addr->ss_family,
                              is_v4 ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr,
                              host, sizeof host));
    snprintf(text, sizeof text, "[%s]:%u", host, ntohs(is_v4 ? v4->sin_port : v6->sin6_port));
    return text;
}

/* --- version 1 ------------------------------------------------------------------------------- */

#define V6_FULL "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

static const struct {
    const char *header, *source, *destination;
} v1_rows[] = {
    { "PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\r\n", "[203.0.113.9]:40000", "[192.0.2.1]:587" },
    { "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "[0.0.0.0]:0", "[255.255.255.255]:65535" },
    { "PROXY TCP6 2001:db8::9 ::1 1 465\r\n", "[2001:db8::9]:1", "[::1]:465" },
    { "PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n", "[::ffff:203.0.113.9]:1", "[::1]:2" },
    { "PROXY TCP6 " V6_FULL " " V6_FULL " 65535 65535\r\n", "[" V6_FULL "]:65535",
      "[" V6_FULL "]:65535" }, /* 104 octets: the longest that has addresses */
    { "PROXY UNKNOWN\r\n", "-", "-" },
    { "PROXY UNKNOWN " V6_FULL " " V6_FULL " 65535 65535\r\n", "-", "-" }, /* 107 octets */
    { "PROXY UNKNOWN whatever  comes, \r is ignored\r\n", "-", "-" },
};

static void v1_headers_name_the_client(void **state) /* P-254 */
{
    for (size_t i = 0; i < ARRAY_LEN(v1_rows); i++) {
        const char *name = v1_rows[i].header;
        struct proxy_header h = expect_good(slice_str(name), name);
        assert_false(h.is_local);
        assert_string_equal(shown(&h, &h.source), v1_rows[i].source);
        assert_string_equal(shown(&h, &h.destination), v1_rows[i].destination);
    }
}

static void v1_is_exact(void **state) /* P-254, P-256 */
{
    static const struct slice rows[] = {
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\n"), /* CR LF only */
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\r\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587 \r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587 1\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 40000 \r\n"),
        SLICE("PROXY TCP4 203.0.113.9\r\n"),
        SLICE("PROXY TCP4\r\n"),
        SLICE("PROXY \r\n"),
        SLICE("PROXY \n"),
        SLICE("PROXY\r\n"),
        SLICE("PROXY TCP4  203.0.113.9 192.0.2.1 40000 587\r\n"), /* two spaces */
        SLICE("PROXY\tTCP4 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("proxy TCP4 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE(" PROXY TCP4 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY tcp4 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY UDP4 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP5 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY UNKNOWNS\r\n"),
        SLICE("PROXY TCP4 2001:db8::9 ::1 40000 587\r\n"), /* the family it names */
        SLICE("PROXY TCP6 203.0.113.9 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 ::1 40000 587\r\n"),
        SLICE("PROXY TCP4 203.0.113 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.256 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.09 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP4 client.example 192.0.2.1 40000 587\r\n"),
        SLICE("PROXY TCP6 [::1] ::1 40000 587\r\n"),
        SLICE("PROXY TCP6 fe80::1%eth0 ::1 40000 587\r\n"),
        SLICE("PROXY TCP6 2001:db8:0:0:0:0:0:0000000000000000000000000000000009 ::1 1 2\r\n"),
        SLICE("PROXY TCP4 203.0.113.9\0x 192.0.2.1 40000 587\r\n"), /* not cut at the NUL */
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 040000 587\r\n"),   /* ports */
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 00 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 65536 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 99999 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 123456 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 +1 587\r\n"),
        SLICE("PROXY TCP4 203.0.113.9 192.0.2.1 1 58x\r\n"),
        SLICE("PROXY UNKNOWN " V6_FULL " " V6_FULL " 65535 65535 \r\n"), /* 108 octets */
        SLICE("PROXY UNKNOWN\0"),
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        expect_bad(rows[i], rows[i].ptr);
}

/* A line that does not end is refused with its 107th octet, whatever is still to come. */
static void v1_is_bounded(void **state) /* P-254 */
{
    char line[200];
    size_t used;
    struct proxy_header h;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY ", 6);
    assert_int_equal(parse_exactly(slice_of(line, 106), &used, &h), PROXY_MORE);
    assert_int_equal(parse_exactly(slice_of(line, 107), &used, &h), PROXY_BAD);
    assert_int_equal(parse_exactly(slice_of(line, sizeof line), &used, &h), PROXY_BAD);
}

/* What clients that know of no load balancer say first (P-256). */
static void anything_else_is_no_header(void **state)
{
    static const struct slice rows[] = {
        SLICE("EHLO client.example\r\n"),
        SLICE("\x16\x03\x01\x02\x00"),
        SLICE("GET / HTTP/1.1\r\n"),
        SLICE("\r\n\r\n\r\n"),
        SLICE("\0"),
        SLICE("PRAXY "),
        SLICE("\r\n\r\n\0\r\nQUIX"),
        SLICE("\r\nEHLO x\r\n"),
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        expect_bad(rows[i], rows[i].ptr);
    struct proxy_header h;
    size_t used;
    assert_int_equal(proxy_parse(SLICE_NONE, &used, &h), PROXY_MORE);
}

/* --- version 2 ------------------------------------------------------------------------------- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define ADDR4     "\xcb\x00\x71\x09\xc0\x00\x02\x01\x9c\x40\x02\x4b" /* 203.0.113.9:40000, :587 */
#define CLIENT6   "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"
#define SERVER6   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
#define ADDR6     CLIENT6 SERVER6 "\x9c\x40\x01\xd1"

/* Built anew each time: the length field counts the body. */
static struct slice v2(unsigned version_command, unsigned family_transport, struct slice body)
{
    static char header[INPUT_MAX];
    memcpy(header, SIGNATURE, 12);
    header[12] = (char)version_command;
    header[13] = (char)family_transport;
    header[14] = (char)(body.len >> 8);
    header[15] = (char)body.len;
    assert_true(16 + body.len <= sizeof header);
    if (body.len > 0)
        memcpy(header + 16, body.ptr, body.len);
    return slice_of(header, 16 + body.len);
}

static const struct {
    const char *name;
    unsigned version_command, family_transport;
    struct slice body;
    bool is_local;
    const char *source;
} v2_rows[] = {
    { "TCP over IPv4", 0x21, 0x11, SLICE(ADDR4), false, "[203.0.113.9]:40000" },
    { "TCP over IPv6", 0x21, 0x21, SLICE(ADDR6), false, "[2001:db8::9]:40000" },
    { "a TLV", 0x21, 0x11, SLICE(ADDR4 "\x04\0\x02xx"), false, "[203.0.113.9]:40000" },
    { "an empty TLV", 0x21, 0x21, SLICE(ADDR6 "\xee\0\0"), false, "[2001:db8::9]:40000" },
    { "three", 0x21, 0x11, SLICE(ADDR4 "\x01\0\x02h2\x04\0\0\x05\0\x01x"), false,
      "[203.0.113.9]:40000" },
    { "LOCAL", 0x20, 0x00, SLICE_NONE, true, "-" },
    { "LOCAL with addresses", 0x20, 0x11, SLICE(ADDR4), true, "-" },
    { "LOCAL with whatever", 0x20, 0xff, SLICE("12345"), true, "-" },
    { "AF_UNSPEC", 0x21, 0x00, SLICE_NONE, false, "-" },
    { "AF_UNSPEC with octets", 0x21, 0x00, SLICE("12345"), false, "-" },
    { "AF_INET, unspecified transport", 0x21, 0x10, SLICE(ADDR4), false, "-" },
    { "AF_UNSPEC, stream", 0x21, 0x01, SLICE(ADDR4), false, "-" },
    { "datagrams", 0x21, 0x12, SLICE(ADDR4), false, "-" },
};

static void v2_headers_name_the_client(void **state) /* P-255 */
{
    for (size_t i = 0; i < ARRAY_LEN(v2_rows); i++) {
        struct slice header =
            v2(v2_rows[i].version_command, v2_rows[i].family_transport, v2_rows[i].body);
        struct proxy_header h = expect_good(header, v2_rows[i].name);
        if (h.is_local != v2_rows[i].is_local ||
            strcmp(shown(&h, &h.source), v2_rows[i].source) != 0)
            fail_msg("%s: %s", v2_rows[i].name, shown(&h, &h.source));
    }
    struct proxy_header h = expect_good(v2(0x21, 0x11, SLICE(ADDR4)), "v4");
    assert_string_equal(shown(&h, &h.destination), "[192.0.2.1]:587");
    h = expect_good(v2(0x21, 0x21, SLICE(ADDR6)), "v6");
    assert_string_equal(shown(&h, &h.destination), "[::1]:465");
}

static void v2_sockets_of_the_machine_keep_the_peer(void **state) /* P-255 */
{
    char body[220] = "/run/a";
    struct proxy_header h = expect_good(v2(0x21, 0x31, slice_of(body, 216)), "AF_UNIX");
    assert_false(h.has_source || h.is_local);
    expect_bad(v2(0x21, 0x31, slice_of(body, 215)), "AF_UNIX, cut");
    expect_bad(v2(0x21, 0x31, slice_of(body, 217)), "AF_UNIX, one octet of a TLV");
}

static void v2_is_exact(void **state) /* P-255, P-256 */
{
    static const struct {
        const char *name;
        unsigned version_command, family_transport;
        struct slice body;
    } rows[] = {
        { "version 1", 0x11, 0x11, SLICE(ADDR4) },
        { "version 3", 0x31, 0x11, SLICE(ADDR4) },
        { "version 0", 0x01, 0x11, SLICE(ADDR4) },
        { "command 2", 0x22, 0x11, SLICE(ADDR4) },
        { "command 15", 0x2f, 0x11, SLICE(ADDR4) },
        { "family 4", 0x21, 0x41, SLICE(ADDR6) },
        { "family 15", 0x21, 0xf1, SLICE(ADDR6) },
        { "transport 3", 0x21, 0x13, SLICE(ADDR4) },
        { "unknown family, no transport", 0x21, 0x40, SLICE(ADDR6) },
        { "no addresses", 0x21, 0x11, SLICE_NONE },
        { "IPv4, 11 octets", 0x21, 0x11, SLICE("12345678901") },
        { "IPv6 with those of IPv4", 0x21, 0x21, SLICE(ADDR4) },
        { "a TLV of one octet", 0x21, 0x11, SLICE(ADDR4 "\x04") },
        { "of two", 0x21, 0x11, SLICE(ADDR4 "\x04\0") },
        { "longer than the header", 0x21, 0x11, SLICE(ADDR4 "\x04\0\x03xx") },
        { "the second longer", 0x21, 0x11, SLICE(ADDR4 "\x04\0\x01x\x05\xff\xff") },
        { "a checksum of 3 octets", 0x21, 0x11, SLICE(ADDR4 "\x03\0\x03xxx") },
        { "a checksum of 5", 0x21, 0x11, SLICE(ADDR4 "\x03\0\x05xxxxx") },
        { "a wrong checksum", 0x21, 0x11, SLICE(ADDR4 "\x03\0\x04\0\0\0\0") },
        { "datagrams with a broken TLV", 0x21, 0x12, SLICE(ADDR4 "\x04") },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        expect_bad(v2(rows[i].version_command, rows[i].family_transport, rows[i].body),
                   rows[i].name);
}

/* 536 octets are a header, 537 are refused as soon as the length is known: nobody makes us keep
 * 64 KiB (P-255). */
static void v2_is_bounded(void **state)
{
    char body[1024] = ADDR4;
    struct proxy_header h;
    size_t used;
    size_t tlv = PROXY_HEADER_MAX - 16 - 12 - 3;
    memcpy(body, ADDR4, 12);
    body[12] = 0x04;
    body[13] = (char)(tlv >> 8);
    body[14] = (char)tlv;
    h = expect_good(v2(0x21, 0x11, slice_of(body, 12 + 3 + tlv)), "the longest");
    assert_true(h.has_source);
    struct slice long_one = v2(0x21, 0x11, slice_of(body, 12 + 3 + tlv + 1));
    assert_int_equal(parse_exactly(slice_head(long_one, 15), &used, &h), PROXY_MORE);
    assert_int_equal(parse_exactly(slice_head(long_one, 16), &used, &h), PROXY_BAD);
    expect_bad(long_one, "one more");
    struct slice local = v2(0x20, 0x00, slice_of(body, 1000));
    expect_bad(local, "a long LOCAL");
}

/* An implementation of its own: by the definition, most significant bit first, reflected at the
 * end. */
static uint32_t crc32c_by_definition(struct slice octets)
{
    uint32_t crc = 0xffffffff, reflected = 0;
    for (size_t i = 0; i < octets.len; i++)
        for (int bit = 0; bit < 8; bit++) {
            uint32_t in = (unsigned char)octets.ptr[i] >> bit & 1;
            crc = crc << 1 ^ ((crc >> 31 ^ in) ? 0x1edc6f41 : 0);
        }
    for (int bit = 0; bit < 32; bit++)
        reflected |= (crc >> bit & 1) << (31 - bit);
    return ~reflected;
}

/* A header with TLVs around its checksum, which is that of the header with its own field zero. */
static struct slice summed(void)
{
    struct slice header =
        v2(0x21, 0x11, SLICE(ADDR4 "\x02\0\x04name\x03\0\x04\0\0\0\0\x04\0\x02xx"));
    uint32_t sum = htonl(crc32c_by_definition(header));
    memcpy((char *)header.ptr + 16 + 12 + 7 + 3, &sum, sizeof sum);
    return header;
}

static void v2_checksums_hold(void **state) /* P-255 */
{
    assert_int_equal(crc32c_by_definition(SLICE("123456789")), 0xe3069283);
    struct slice header = summed();
    struct proxy_header h = expect_good(header, "summed");
    assert_string_equal(shown(&h, &h.source), "[203.0.113.9]:40000");
    for (size_t i = 16; i < header.len; i++)
        for (int bit = 0; bit < 8; bit++) {
            bool is_type = i == 16 + 12 + 7; /* is a TLV of another type then: no checksum */
            header = summed();
            ((char *)header.ptr)[i] ^= (char)(1 << bit);
            if (!is_type)
                expect_bad(header, "a bit flipped");
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v1_headers_name_the_client),
        cmocka_unit_test(v1_is_exact),
        cmocka_unit_test(v1_is_bounded),
        cmocka_unit_test(anything_else_is_no_header),
        cmocka_unit_test(v2_headers_name_the_client),
        cmocka_unit_test(v2_sockets_of_the_machine_keep_the_peer),
        cmocka_unit_test(v2_is_exact),
        cmocka_unit_test(v2_is_bounded),
        cmocka_unit_test(v2_checksums_hold),
    };
    return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
