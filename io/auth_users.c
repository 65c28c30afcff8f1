/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_users - accounts in an array sorted by name, searched by halves.
 *
 * One bad line makes the whole file bad: a gateway that skipped it would lock somebody out without
 * a word. Empty lines and lines that begin with '#' are skipped.
 *
 * Life: auth_shared.c makes one each time the file has changed and frees the one before; accounts
 * in use outlive it by their own references. Limits: auth_file.h's.
 */
#include "io/auth_users.h"
#include "core/base/must.h"
#include "io/fail.h"

#include <stdlib.h>

struct entry {
    struct account *account; /* one reference */
    uint32_t line;
};

struct auth_users {
    struct entry *entries; /* owned; sorted by name */
    size_t count, cap;
};

static int compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.ptr, b.ptr, len) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_name(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    int order = compare(slice_str(left->account->name), slice_str(right->account->name));
    return order != 0 ? order : (left->line > right->line) - (left->line < right->line);
}

static void add(struct auth_users *u, struct account *account, uint32_t line)
{
    if (u->count == u->cap) {
        u->cap = u->cap ? u->cap * 2 : 64;
        u->entries = mem_realloc(u->entries, u->cap * sizeof *u->entries);
    }
    u->entries[u->count++] = (struct entry){ account, line };
}

static enum status read_lines(struct auth_users *u, const char *path, struct slice text,
                              struct buf *error)
{
    struct buf why;
    enum status st = STATUS_OK;
    buf_init(&why, 512);
    for (uint32_t number = 1; st == STATUS_OK && text.len > 0; number++) {
        struct account *account;
        struct slice line = slice_head(text, slice_find(text, '\n'));
        text = slice_skip(text, line.len + 1);
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        st = account_parse(line, &account, &why);
        if (st == STATUS_OK)
            add(u, account, number);
        else
            (void)fail_with(error, st, "%s:%u: user \"%.*s\": %.*s", path, number,
                            SLICE_ARG(slice_head(line, slice_find(line, ' '))),
                            SLICE_ARG(buf_slice(&why)));
    }
    buf_done(&why);
    return st;
}

static void sort(struct auth_users *u)
{
    if (u->count > 0)
        qsort(u->entries, u->count, sizeof *u->entries, by_name);
}

static enum status find_twins(const struct auth_users *u, const char *path, struct buf *error)
{
    for (size_t i = 1; i < u->count; i++) {
        const struct entry *one = &u->entries[i - 1], *two = &u->entries[i];
        if (strcmp(one->account->name, two->account->name) == 0)
            return fail_with(error, STATUS_BAD, "%s:%u: user \"%s\" stands on line %u already",
                             path, two->line, two->account->name, one->line);
    }
    return STATUS_OK;
}

enum status auth_users_parse(const char *path, struct slice text, struct auth_users **out,
                             struct buf *error)
{
    struct auth_users *u = mem_zalloc(sizeof *u);
    enum status st = read_lines(u, path, text, error);
    sort(u);
    if (st == STATUS_OK)
        st = find_twins(u, path, error);
    if (st == STATUS_OK)
        *out = u;
    else
        auth_users_free(u);
    return st;
}

/* Of several of one name, which stand together, the last stays. */
static void drop_twins(struct auth_users *u)
{
    size_t kept = 0;
    for (size_t i = 0; i < u->count; i++) {
        if (i + 1 < u->count &&
            strcmp(u->entries[i].account->name, u->entries[i + 1].account->name) == 0)
            account_unref(u->entries[i].account);
        else
            u->entries[kept++] = u->entries[i];
    }
    u->count = kept;
}

enum status auth_users_collect(const char *path, struct slice text, struct auth_users **out,
                               struct buf *error)
{
    struct auth_users *u = mem_zalloc(sizeof *u);
    enum status st = read_lines(u, path, text, error);
    sort(u);
    drop_twins(u);
    if (st == STATUS_OK)
        *out = u;
    else
        auth_users_free(u);
    return st;
}

void auth_users_free(struct auth_users *u)
{
    if (!u)
        return;
    for (size_t i = 0; i < u->count; i++)
        account_unref(u->entries[i].account);
    free(u->entries);
    free(u);
}

struct account *auth_users_find(const struct auth_users *u, struct slice name)
{
    size_t low = 0, high = u->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(name, slice_str(u->entries[middle].account->name));
        if (order == 0)
            return u->entries[middle].account;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

size_t auth_users_count(const struct auth_users *u)
{
    return u->count;
}

struct account *auth_users_at(const struct auth_users *u, size_t i)
{
    must(i < u->count);
    return u->entries[i].account;
}
