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

void cli_print_text(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        putchar(s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f ? s.ptr[i] : '?');
}

/* Octets of the UTF-8 character that s begins with; 0: it is none. */
static size_t utf8_len(struct slice s)
{
    unsigned char c = (unsigned char)s.ptr[0];
    size_t len = c < 0x80                ? 1
                 : c >= 0xc2 && c < 0xe0 ? 2
                 : c >= 0xe0 && c < 0xf0 ? 3
                 : c >= 0xf0 && c < 0xf5 ? 4
                                         : 0;
    for (size_t i = 1; i < len; i++)
        if (i >= s.len || ((unsigned char)s.ptr[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

void cli_print_json(struct slice s)
{
    putchar('"');
    while (s.len > 0) {
        size_t len = utf8_len(s);
        if (len == 0)
            fputs("\\ufffd", stdout);
        else if (len == 1 && ((unsigned char)s.ptr[0] < ' ' || s.ptr[0] == 0x7f))
            printf("\\u%04x", (unsigned)s.ptr[0]);
        else if (len == 1 && (s.ptr[0] == '"' || s.ptr[0] == '\\'))
            printf("\\%c", s.ptr[0]);
        else
            printf("%.*s", (int)len, s.ptr);
        s = slice_skip(s, len ? len : 1);
    }
    putchar('"');
}

static void print_column(struct slice s, int width)
{
    cli_print_text(s);
    printf("%*s", s.len < (size_t)width ? width - (int)s.len + 1 : 1, "");
}

static void print_time(struct slice ms)
{
    char text[CLOCK_DATE_MAX], number[24];
    snprintf(number, sizeof number, "%.*s", SLICE_ARG(slice_head(ms, sizeof number - 1)));
    cli_print_text(slice_of(text, clock_format_rfc3339(strtoll(number, NULL, 10), text)));
}

void cli_print_header(void)
{
    printf("%-26s %-9s %-32s %5s %5s %9s  %-24s %-6s %-12s %s\n", "DELIVERY", "STATE",
           "DESTINATION", "TRIES", "RCPTS", "OCTETS", "ACCEPTED", "LANE", "TENANT", "DETAIL");
}

/* What the state's `info` means. Scheduled without an attempt: its sender holds it back. */
static void print_detail(const char *state, bool was_tried, struct slice info, struct slice reason)
{
    if (strcmp(state, "scheduled") == 0) {
        fputs(was_tried ? "due " : "held back until ", stdout);
        print_time(info);
    } else if (strcmp(state, "leased") == 0) {
        fputs("worker ", stdout);
        cli_print_text(info);
    } else if (strcmp(state, "dead") == 0) {
        if (info.len > 0) {
            print_time(info);
            putchar(' ');
        }
        cli_print_text(reason);
    }
}

static struct slice lane_name(char lane)
{
    return lane == 'u' ? SLICE("urgent") : lane == 'b' ? SLICE("bulk") : SLICE("normal");
}

void cli_print_row(const char *state, struct slice id, struct slice text, struct slice info,
                   struct slice reason)
{
    struct arena arena;
    struct queue_item item = { .attempts = 1 };
    char accepted[CLOCK_DATE_MAX] = "?";
    arena_init(&arena);
    print_column(id, 26);
    print_column(slice_str(state), 9);
    if (queue_item_decode(text, &arena, &item) == STATUS_OK) {
        size_t len = clock_format_rfc3339(item.accepted_ms, accepted);
        print_column(item.dest, 32);
        printf("%5u %5u %9llu  ", item.attempts, item.rcpt_count, (unsigned long long)item.size);
        print_column(slice_of(accepted, len), 24);
        print_column(lane_name(item.lane), 6);
        print_column(item.tenant.len > 0 ? item.tenant : SLICE("-"), 12);
    } else {
        fputs("(unreadable item) ", stdout);
    }
    print_detail(state, item.attempts > 0, info, reason);
    putchar('\n');
    arena_done(&arena);
}

/* A line of its own, when there is something to say. */
static void print_line(const char *name, struct slice value)
{
    if (value.len == 0)
        return;
    printf("    %-10s ", name);
    cli_print_text(value);
    putchar('\n');
}

static void print_moment(const char *name, int64_t ms)
{
    char text[CLOCK_DATE_MAX];
    if (ms > 0)
        print_line(name, slice_of(text, clock_format_rfc3339(ms, text)));
}

static void print_recipients(const struct message *m, const struct queue_item *item)
{
    for (uint32_t i = 0; i < item->rcpt_count; i++) {
        if (item->rcpts[i] >= m->rcpt_count)
            continue;
        fputs("    recipient  <", stdout);
        cli_print_text(m->rcpts[item->rcpts[i]].address);
        fputs(">\n", stdout);
    }
}

/* Who sent it and what was asked for it; only what there is. */
static void print_wishes(const struct message *m)
{
    print_line("tenant", m->tenant);
    print_line("user", m->user);
    if (m->priority != 0)
        printf("    priority   %d\n", m->priority);
    print_moment("hold until", m->hold_until_ms);
    print_moment("deliver by", m->deliver_by_ms);
    print_line("envid", m->envid);
}

void cli_print_envelope(const struct message *m, struct slice item_text)
{
    struct arena arena;
    struct queue_item item;
    arena_init(&arena);
    fputs("    sender     <", stdout);
    cli_print_text(m->sender);
    fputs(">\n    client     ", stdout);
    cli_print_text(m->client);
    fputs(" helo ", stdout);
    cli_print_text(m->helo);
    putchar('\n');
    print_wishes(m);
    if (queue_item_decode(item_text, &arena, &item) == STATUS_OK) {
        print_line("lane", lane_name(item.lane));
        print_recipients(m, &item);
        print_moment("expires", item.expires_ms);
    }
    arena_done(&arena);
}
