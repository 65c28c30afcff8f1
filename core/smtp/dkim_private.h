/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * dkim_private - a digest from the inside, for dkim_digest.c and dkim_sign.c.
 */
#include "core/smtp/dkim.h"

#define DKIM_NAMES_MAX (48 * 1024) /* DKIM_FIELDS_MAX of the longest name, and each once more */

struct dkim_digest {
    SHA256_CTX header; /* all signed fields were added */
    struct dkim_body body;
    uint8_t body_hash[SHA256_DIGEST_LENGTH]; /* after dkim_digest_end */
    struct buf names;                        /* of the signed fields, "From:From:To", as in h= */
    char domain[IDN_ASCII_MAX];
    size_t domain_len;
};
