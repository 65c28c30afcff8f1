/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idn - U-labels to A-labels, by libidn2.
 *
 * ASCII domains, which nearly all are, never reach the library. It is asked for the strict form of
 * IDNA2008 without the mappings of UTS 46: mapping is what turns "example。com" and "ｅxample.com"
 * into somebody else's domain. Upper case beyond ASCII is refused with them. Hyphens at a label's
 * ends, empty labels and other rules of ASCII are the address parser's matter (address.c).
 *
 * Limits: names as long as DNS has them; the library keeps no state and makes no system calls.
 */
#include "core/smtp/idn.h"
#include <idn2.h>

bool idn_is_needed(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return true;
    return false;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Copies s in lower case with a NUL; false: it does not fit, or has a NUL of its own. */
static bool copy_lower(struct slice s, char *out, size_t size)
{
    if (s.len >= size || slice_find(s, '\0') != s.len)
        return false;
    for (size_t i = 0; i < s.len; i++)
        out[i] = lower(s.ptr[i]);
    out[s.len] = '\0';
    return true;
}

bool idn_to_ascii(struct slice domain, char out[IDN_ASCII_MAX], size_t *len)
{
    char name[4 * IDN_ASCII_MAX]; /* U-labels may be longer than their A-labels */
    uint8_t *ascii = NULL;
    if (!idn_is_needed(domain)) {
        *len = domain.len;
        return copy_lower(domain, out, IDN_ASCII_MAX);
    }
    if (!copy_lower(domain, name, sizeof name) ||
        idn2_lookup_u8((const uint8_t *)name, &ascii, IDN2_NFC_INPUT | IDN2_NO_TR46) != IDN2_OK)
        return false;
    struct slice found = slice_str((const char *)ascii);
    bool fits = copy_lower(found, out, IDN_ASCII_MAX);
    *len = found.len;
    idn2_free(ascii);
    return fits;
}
