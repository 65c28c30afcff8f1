/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * slice - a borrowed run of bytes: where it starts and how long it is.
 *
 * A slice owns nothing and is never NUL-terminated; its bytes live as long as the buffer, arena
 * or literal it was cut from. Pass it by value.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *ptr; /* borrowed; may be NULL only when len is 0 */
    size_t len;      /* octets */
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })
#define SLICE_NONE     ((struct slice){ NULL, 0 })

/* For printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct slice slice_of(const char *ptr, size_t len)
{
    return (struct slice){ ptr, len };
}

/* The bytes of a C string, without its NUL; a NULL string is the empty slice. */
static inline struct slice slice_str(const char *str)
{
    return (struct slice){ str, str ? strlen(str) : 0 };
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case-insensitive equality. */
static inline bool slice_eq_nocase(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

/* What is left after the first n octets; n is clipped to the length. */
static inline struct slice slice_skip(struct slice s, size_t n)
{
    if (n > s.len)
        n = s.len;
    return (struct slice){ s.ptr ? s.ptr + n : NULL, s.len - n };
}

/* The first n octets; n is clipped to the length. */
static inline struct slice slice_head(struct slice s, size_t n)
{
    return (struct slice){ s.ptr, n < s.len ? n : s.len };
}

/* Offset of the first octet c, or s.len when there is none. */
static inline size_t slice_find(struct slice s, char c)
{
    const char *at = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}
