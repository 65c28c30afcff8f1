/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * ucl - reads the part of the Universal Configuration Language that our configuration needs, into a
 * tree whose every node knows its line.
 *
 *     statement  key = value;   key: value;   key { ... }   key "label" { ... }
 *     value      "quoted \"string\"\n"  bare-word  10m  true  [value, value]  { ... }
 *     end        ; or , or the end of the line, or the closing brace
 *     comment    # to the end of the line, or between slash-star and star-slash (they nest)
 *
 * Values stay text here; whoever knows what a setting means turns them into numbers.
 * Limits: UCL_SIZE_MAX octets, UCL_DEPTH_MAX open braces, UCL_NODES_MAX nodes.
 */
#include "core/base/arena.h"
#include "core/base/status.h"

#define UCL_SIZE_MAX  (1024 * 1024)
#define UCL_DEPTH_MAX 8
#define UCL_NODES_MAX 20000

enum ucl_kind {
    UCL_TEXT,    /* `text` holds it, escapes resolved */
    UCL_LIST,    /* children are texts without a key */
    UCL_SECTION, /* children are statements */
};

struct ucl_node {
    enum ucl_kind kind;
    int line;           /* where it begins */
    struct slice key;   /* empty in a list and at the root */
    struct slice label; /* of a section; ptr NULL when it has none */
    struct slice text;  /* UCL_TEXT; holds no NUL */
    size_t child_count;
    struct ucl_node *first, *last; /* children, in order of the file */
    struct ucl_node *next;
};

struct ucl_error {
    int line;
    struct slice key; /* the statement it happened in; in the text that was parsed; may be empty */
    const char *what; /* what is wrong and what to do; static */
};

/* On success *root is a section without a key. Nodes and their texts lie in the arena or in the
 * text, so both must outlive the tree. BAD: error is set. */
NODISCARD enum status ucl_parse(struct slice text, struct arena *arena, struct ucl_node **root,
                                struct ucl_error *error);
