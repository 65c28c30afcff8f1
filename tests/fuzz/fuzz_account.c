/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a user's line. What is read must be within its bounds and written as a line that
 * reads the same; what is not read must say why.
 */
#include "core/smtp/account.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct account *a)
{
    must(account_name_is_valid(slice_str(a->name)));
    must(strlen(a->tenant) <= 32);
    must(!a->argon2 || strncmp(a->argon2, "$argon2id$v=19$", 15) == 0);
    if (a->has_scram)
        must(a->scram.iterations >= 4096 && a->scram.salt_len >= 8 &&
             a->scram.salt_len <= sizeof a->scram.salt);
    for (size_t i = 0; i < a->senders.count; i++)
        must(sender_pattern_is_valid(slice_str(a->senders.patterns[i])));
}

static void check_again(struct slice line)
{
    struct account *a;
    struct buf again, error;
    buf_init(&again, ACCOUNT_LINE_MAX);
    buf_init(&error, 512);
    must(account_parse(line, &a, &error) == STATUS_OK);
    must(account_format(a, &again) == STATUS_OK);
    must(slice_eq(buf_slice(&again), line));
    account_unref(a);
    buf_done(&again);
    buf_done(&error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = exact_copy(slice_of((const char *)data, size));
    struct account *a;
    struct buf line, error;
    buf_init(&line, ACCOUNT_LINE_MAX);
    buf_init(&error, 512);
    if (account_parse(slice_of(copy, size), &a, &error) == STATUS_OK) {
        check(a);
        must(account_format(a, &line) == STATUS_OK);
        check_again(buf_slice(&line));
        account_unref(a);
    } else
        must(error.len > 0);
    buf_done(&line);
    buf_done(&error);
    free(copy);
    return 0;
}
