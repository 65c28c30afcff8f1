/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * idn - the name that DNS knows a domain by: A-labels for what SMTPUTF8 lets be written in U-labels
 * (RFC 5891, P-71, P-215).
 */
#include "core/base/slice.h"

#define IDN_ASCII_MAX 256 /* octets of an A-label form, its NUL included */

/* True when s has an octet above 127. */
bool idn_is_needed(struct slice s);

/*
 * Writes the domain with A-labels, in lower case and ended by a NUL; *len is set. A domain that is
 * ASCII already is only lowered. False, nothing usable written: it is too long, not UTF-8, or has a
 * character that IDNA2008 does not allow. Characters are composed (NFC) but never mapped: a full
 * width letter or an ideographic dot makes no other domain of it, it makes none.
 */
bool idn_to_ascii(struct slice domain, char out[IDN_ASCII_MAX], size_t *len);
