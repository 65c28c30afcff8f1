/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * must - our own promises, checked in release builds too. Bytes from a peer can never decide one:
 * for those there are replies and status. A broken promise ends the process; nothing acknowledged
 * is lost, because everything acknowledged is in Redis.
 */
#include <stddef.h>

#define must(condition)                                                                            \
    ((condition) ? (void)0 : must_failed(#condition, __FILE__, __LINE__, __func__))

/* Prints the broken promise to stderr and aborts. */
_Noreturn void must_failed(const char *what, const char *file, int line, const char *func);

/* Heap memory or the end of the process: never NULL. Every pool above it has a number, so running
 * out here means that the numbers do not fit the machine. */
void *mem_alloc(size_t size);              /* not cleared; free() it */
void *mem_zalloc(size_t size);             /* cleared; free() it */
void *mem_realloc(void *ptr, size_t size); /* as realloc */
char *mem_strdup(const char *str);         /* as strdup; NULL gives NULL */

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
