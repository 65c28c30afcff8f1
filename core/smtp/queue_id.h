/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * queue_id - the name of a message everywhere: in the 250, the logs, the Received field, Redis.
 * 20 characters of [0-9a-z] without i, l, o, u: 9 of milliseconds since 1970 (so ids sort by time),
 * 11 of chance (55 bits: not to be guessed).
 */
#include "core/base/entropy.h"
#include "core/smtp/message.h"

void queue_id_make(char out[QUEUE_ID_LEN + 1], int64_t wall_ms, struct entropy *entropy);
bool queue_id_is_valid(struct slice id);
int64_t queue_id_time_ms(const char *id); /* the wall clock time in a valid id */
