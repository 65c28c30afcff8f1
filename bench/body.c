/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/body.h"
#include "core/base/must.h"
#include <string.h>

#define LINE 74 /* octets of a line */

static void put_text(char *out, uint32_t len, bool is_noise, uint64_t *seed)
{
    static const char noise[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char *const words[] = { "order",   "your",     "has",     "been",    "password",
                                         "reset",   "receipt",  "thank",   "you",     "for",
                                         "account", "the",      "link",    "below",   "within",
                                         "hours",   "delivery", "of",      "invoice", "number",
                                         "please",  "reply",    "support", "a" };
    uint32_t at = 0;
    while (at < len) {
        *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint32_t draw = (uint32_t)(*seed >> 33);
        if (is_noise || draw % 4 == 0) { /* a number, a name: letters that no other word has */
            for (int i = 0; i < 5 && at < len; i++, draw >>= 6)
                out[at++] = noise[draw % 64];
        } else {
            for (const char *w = words[draw / 4 % ARRAY_LEN(words)]; *w && at < len; w++)
                out[at++] = *w;
        }
        if (!is_noise && at < len)
            out[at++] = ' ';
    }
}

char *body_make(uint32_t octets, bool is_noise)
{
    static const char header[] = "From: Bench <bench@source.test>\r\nTo: <bench@sink.test>\r\n"
                                 "Subject: A message of a known size\r\n"
                                 "Date: Mon, 23 Nov 2026 00:00:00 +0000\r\n\r\n";
    uint64_t seed = octets;
    char *body = mem_alloc(octets), *at = body + sizeof header - 1;
    must(octets > sizeof header + 4);
    memcpy(body, header, sizeof header - 1);
    for (uint32_t left = octets - (uint32_t)(sizeof header - 1); left > 0;) {
        uint32_t line = left > LINE + 4 ? LINE : left - 2;
        put_text(at, line, is_noise, &seed);
        memcpy(at + line, "\r\n", 2);
        at += line + 2;
        left -= line + 2;
    }
    return body;
}
