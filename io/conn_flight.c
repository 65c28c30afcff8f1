/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flights: output on its way, and where it stands. A connection has one only while there is
 * something to send; the table keeps a few spare ones with their memory.
 */
#include "core/base/must.h"
#include "io/conn_private.h"
#include <stdlib.h>

#define FLIGHT_SPARE_MAX 64
#define FLIGHT_KEEP_MAX  (64 * 1024) /* octets of copy buffer a spare may keep */

struct flight *flight_take(struct conn_table *t)
{
    struct flight *f = t->spare_flights;
    if (f) {
        t->spare_flights = f->next;
        t->spare_count--;
        return f;
    }
    f = mem_zalloc(sizeof *f);
    gather_init(&f->out);
    return f;
}

static void flight_free(struct flight *f)
{
    gather_done(&f->out);
    free(f->iov);
    free(f);
}

void flight_give(struct conn_table *t, struct flight *f)
{
    if (!f)
        return;
    if (t->spare_count >= FLIGHT_SPARE_MAX || f->out.bytes.cap > FLIGHT_KEEP_MAX) {
        flight_free(f);
        return;
    }
    gather_clear(&f->out);
    f->part = f->offset = f->plain = 0;
    f->is_sealed = false;
    f->next = t->spare_flights;
    t->spare_flights = f;
    t->spare_count++;
}

void flight_advance(struct flight *f, size_t n)
{
    while (n > 0) {
        uint32_t left = f->out.parts[f->part].len - f->offset;
        if (n < left) {
            f->offset += (uint32_t)n;
            return;
        }
        n -= left;
        f->part++;
        f->offset = 0;
    }
}

bool flight_is_over(const struct flight *f)
{
    return f->part >= f->out.part_count;
}

void flight_free_spares(struct conn_table *t)
{
    while (t->spare_flights) {
        struct flight *f = t->spare_flights;
        t->spare_flights = f->next;
        flight_free(f);
    }
}
