/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_print - rows and envelopes on stdout. Texts that came from outside are made printable first:
 * a queue listing must not be able to steer the terminal (P-121).
 *
 * To add a column: cli_print_header and cli_print_row, before the free text at the end.
 */
#include "io/cli_print.h"
#include "core/base/clock.h"

#include <stdio.h>
#include <stdlib.h>

/* Octets that are not printable ASCII become '?'. */
static void print_text(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        putchar(s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f ? s.ptr[i] : '?');
}

static void print_column(struct slice s, int width)
{
    print_text(s);
    printf("%*s", s.len < (size_t)width ? width - (int)s.len + 1 : 1, "");
}

static void print_time(struct slice ms)
{
    char text[CLOCK_DATE_MAX], number[24];
    snprintf(number, sizeof number, "%.*s", SLICE_ARG(slice_head(ms, sizeof number - 1)));
    print_text(slice_of(text, clock_format_rfc3339(strtoll(number, NULL, 10), text)));
}

void cli_print_header(void)
{
    printf("%-26s %-9s %-32s %5s %5s %9s  %-24s %s\n", "DELIVERY", "STATE", "DESTINATION", "TRIES",
           "RCPTS", "OCTETS", "ACCEPTED", "DETAIL");
}

/* What the state's `info` means. */
static void print_detail(const char *state, struct slice info, struct slice reason)
{
    if (strcmp(state, "scheduled") == 0) {
        fputs("due ", stdout);
        print_time(info);
    } else if (strcmp(state, "leased") == 0) {
        fputs("worker ", stdout);
        print_text(info);
    } else if (strcmp(state, "dead") == 0) {
        if (info.len > 0) {
            print_time(info);
            putchar(' ');
        }
        print_text(reason);
    }
}

void cli_print_row(const char *state, struct slice id, struct slice text, struct slice info,
                   struct slice reason)
{
    struct arena arena;
    struct queue_item item;
    char accepted[CLOCK_DATE_MAX] = "?";
    arena_init(&arena);
    print_column(id, 26);
    print_column(slice_str(state), 9);
    if (queue_item_decode(text, &arena, &item) == STATUS_OK) {
        size_t len = clock_format_rfc3339(item.accepted_ms, accepted);
        print_column(item.dest, 32);
        printf("%5u %5u %9llu  ", item.attempts, item.rcpt_count, (unsigned long long)item.size);
        print_column(slice_of(accepted, len), 24);
    } else {
        fputs("(unreadable item) ", stdout);
    }
    print_detail(state, info, reason);
    putchar('\n');
    arena_done(&arena);
}

void cli_print_envelope(const struct message *m, struct slice item_text)
{
    struct arena arena;
    struct queue_item item;
    arena_init(&arena);
    fputs("    sender     <", stdout);
    print_text(m->sender);
    fputs(">\n    client     ", stdout);
    print_text(m->client);
    fputs(" helo ", stdout);
    print_text(m->helo);
    putchar('\n');
    if (queue_item_decode(item_text, &arena, &item) == STATUS_OK) {
        for (uint32_t i = 0; i < item.rcpt_count; i++) {
            if (item.rcpts[i] >= m->rcpt_count)
                continue;
            fputs("    recipient  <", stdout);
            print_text(m->rcpts[item.rcpts[i]].address);
            fputs(">\n", stdout);
        }
        fputs("    expires    ", stdout);
        char text[CLOCK_DATE_MAX];
        print_text(slice_of(text, clock_format_rfc3339(item.expires_ms, text)));
        putchar('\n');
    }
    arena_done(&arena);
}
