/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * body - contents of messages: lines of words, none of a dictionary, that a compressor halves; or
 * noise that it can do nothing with.
 */
#include <stdbool.h>
#include <stdint.h>

/* A header and a body, `octets` together (at least 200); free() it. */
char *body_make(uint32_t octets, bool is_noise);
