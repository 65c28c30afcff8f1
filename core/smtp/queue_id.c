/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_id - 20 characters that name a message everywhere.
 *
 * Two numbers in base 32, most significant digit first: 45 bits of milliseconds since 1970 (enough
 * until the year 3084) and 55 bits of chance. The alphabet is in ASCII order, so ids sort by time
 * as plain strings; i, l, o and u are left out because ids are read aloud and typed. An id is a
 * safe part of a Redis key, a file name and a header field.
 *
 * Two ids of the same millisecond meet with a chance of one in 2^55.
 */
#include "core/smtp/queue_id.h"

#define TIME_DIGITS   9
#define CHANCE_DIGITS 11
#define TIME_MAX      ((1ll << (5 * TIME_DIGITS)) - 1)

_Static_assert(TIME_DIGITS + CHANCE_DIGITS == QUEUE_ID_LEN, "two numbers fill an id");

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
_Static_assert(sizeof(alphabet) == 32 + 1, "five bits a digit");

static void put_digits(char *out, unsigned count, uint64_t number)
{
    while (count > 0) {
        out[--count] = alphabet[number & 31];
        number >>= 5;
    }
}

void queue_id_make(char out[QUEUE_ID_LEN + 1], int64_t wall_ms, struct entropy *entropy)
{
    /* The machine's clock may be anything; sorting is all that is lost. */
    int64_t time = wall_ms < 0 ? 0 : wall_ms > TIME_MAX ? TIME_MAX : wall_ms;
    put_digits(out, TIME_DIGITS, (uint64_t)time);
    put_digits(out + TIME_DIGITS, CHANCE_DIGITS, entropy_u64(entropy));
    out[QUEUE_ID_LEN] = '\0';
}

bool queue_id_is_valid(struct slice id)
{
    if (id.len != QUEUE_ID_LEN)
        return false;
    for (size_t i = 0; i < id.len; i++)
        if (id.ptr[i] == '\0' || !strchr(alphabet, id.ptr[i]))
            return false;
    return true;
}
