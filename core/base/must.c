/* SPDX-License-Identifier: Apache-2.0 */
/*
 * must - the one place that ends the process.
 *
 * A broken promise means that memory no longer says what the code believes, so nothing is saved
 * or tidied: one line to stderr and an abort, which leaves a core to read. Everything that was
 * acknowledged is in Redis and is delivered by whoever starts next.
 */
#include "core/base/must.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void must_failed(const char *what, const char *file, int line, const char *func)
{
    fprintf(stderr, "kilat: broken promise: %s (%s:%d, %s)\n", what, file, line, func);
    abort();
}

void *mem_alloc(size_t size)
{
    void *ptr = malloc(size ? size : 1);
    must(ptr != NULL);
    return ptr;
}

void *mem_zalloc(size_t size)
{
    void *ptr = calloc(1, size ? size : 1);
    must(ptr != NULL);
    return ptr;
}

void *mem_realloc(void *ptr, size_t size)
{
    void *grown = realloc(ptr, size ? size : 1);
    must(grown != NULL);
    return grown;
}

char *mem_strdup(const char *str)
{
    if (!str)
        return NULL;
    size_t size = strlen(str) + 1;
    return memcpy(mem_alloc(size), str, size);
}
