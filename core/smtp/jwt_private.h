/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * jwt_private - what reading tokens (jwt.c) and reading files of keys (jwt_keys.c) share.
 */
#include "core/smtp/jwt.h"
#include <jansson.h>
#include <openssl/evp.h>

#define JWT_KEYS_MAX 64

struct jwt_key {
    EVP_PKEY *key; /* owned; of a kind that jwt_algorithm_of knows */
    char *kid;     /* owned; NULL: none */
};

struct jwt_keys {
    struct jwt_key keys[JWT_KEYS_MAX];
    size_t count;
};

/* The one `alg` that a key verifies. */
struct slice jwt_algorithm_of(const EVP_PKEY *key);

/* base64url (RFC 7515 2), strict: the alphabet, no padding, no stray bits. At most 8 KiB. */
bool jwt_decode_url(struct slice text, struct buf *out);

/* An object, to be given back by json_decref; NULL: it is none, is nested too deeply, or has two
 * members of one name. */
json_t *jwt_parse_object(struct slice text);
struct slice jwt_string_of(const json_t *value); /* borrowed; none when it is no string */
bool jwt_has_word(const json_t *object, const char *name, struct slice want);
