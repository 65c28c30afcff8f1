/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/numbers.h"
#include "core/base/must.h"
#include <inttypes.h>
#include <stdlib.h>

void numbers_init(struct numbers *n)
{
    *n = (struct numbers){ 0 };
}

void numbers_done(struct numbers *n)
{
    free(n->seen);
}

void numbers_add(struct numbers *n, uint64_t number)
{
    uint64_t word = number / 64, bit = UINT64_C(1) << number % 64;
    if (word >= n->words) {
        uint64_t words = word * 2 + 1024;
        n->seen = mem_realloc(n->seen, words * sizeof *n->seen);
        memset(n->seen + n->words, 0, (words - n->words) * sizeof *n->seen);
        n->words = words;
    }
    if (n->seen[word] & bit)
        n->duplicates++;
    else
        n->count++;
    n->seen[word] |= bit;
}

bool numbers_has(const struct numbers *n, uint64_t number)
{
    return number / 64 < n->words && n->seen[number / 64] >> number % 64 & 1;
}

void numbers_print(const struct numbers *n, FILE *out)
{
    const char *comma = "";
    for (uint64_t i = 0; i < n->words * 64; i++) {
        uint64_t first = i;
        if (!numbers_has(n, i))
            continue;
        while (i + 1 < n->words * 64 && numbers_has(n, i + 1))
            i++;
        fprintf(out, i > first ? "%s%" PRIu64 "-%" PRIu64 : "%s%" PRIu64, comma, first, i);
        comma = ",";
    }
}

bool numbers_find(struct slice header, uint32_t *run, uint64_t *number)
{
    const char *at =
        header.len ? memmem(header.ptr, header.len, BENCH_FIELD, sizeof BENCH_FIELD - 1) : NULL;
    char text[BENCH_ID_LEN + 1] = "";
    if (!at || (size_t)(header.ptr + header.len - at) < sizeof BENCH_FIELD - 1 + BENCH_ID_LEN)
        return false;
    memcpy(text, at + sizeof BENCH_FIELD - 1, BENCH_ID_LEN);
    return sscanf(text, "%8" SCNx32 "-%10" SCNu64, run, number) == 2;
}
