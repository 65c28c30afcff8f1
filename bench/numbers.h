/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * numbers - which messages of a run were seen: a bit for each, twice.
 *
 * A message of a run is told by a field of its header, BENCH_FIELD, "<run>-<number>": eight hex
 * digits that the source draws, and ten decimal ones.
 */
#include "core/base/slice.h"
#include <stdint.h>
#include <stdio.h>

#define BENCH_FIELD      "X-Bench-Run: "
#define BENCH_NUMBER_MAX UINT64_C(9999999999)
#define BENCH_ID_LEN     19 /* octets of "<run>-<number>" */

struct numbers {
    uint64_t *seen; /* owned */
    uint64_t words;
    uint64_t count;      /* different ones */
    uint64_t duplicates; /* how often one came that was there */
};

void numbers_init(struct numbers *n);
void numbers_done(struct numbers *n);
void numbers_add(struct numbers *n, uint64_t number);
bool numbers_has(const struct numbers *n, uint64_t number);
/* As "0-99,101"; nothing when there is none. */
void numbers_print(const struct numbers *n, FILE *out);
/* Finds the field in a header that begins there; false: it is not in this piece. */
bool numbers_find(struct slice header, uint32_t *run, uint64_t *number);
