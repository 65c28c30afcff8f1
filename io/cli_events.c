/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_events - the streams of all shards, page by page.
 *
 * Each line is an event as it stands in Redis with its number in front: "seq":"SHARD-ID". Events of
 * one message are in one shard and come in order; those of different shards come in pages of
 * PAGE_ROWS, so their order is that of time only about.
 *
 * A cursor file has a line "SHARD ID" for each shard: the last event that was printed. It is
 * replaced when a page is printed and flushed, never before: whoever reads on from it sees every
 * event at least once.
 */
#include "io/cli_events.h"
#include "core/base/must.h"
#include "io/cli.h"
#include "io/cli_redis.h"
#include "io/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PAGE_ROWS "100"
#define ID_MAX    48 /* octets of "1795392000000-0" and what stands before it */
#define PAUSE_NS  250000000L
#define PATH_LEN  4096

struct reader {
    struct cli cli;
    const char *cursor; /* path; NULL: none */
    const char *from;   /* NULL: the beginning */
    bool follows;
    uint64_t left;         /* events that may be printed still */
    char (*start)[ID_MAX]; /* owned; of each shard: where XRANGE begins */
};

static bool fail(struct reader *r, const char *what, const char *path)
{
    (void)fail_with(&r->cli.error, STATUS_SYSTEM, "%s %s: %s", what, path, strerror(errno));
    return false;
}

/* --- where to begin -------------------------------------------------------------------------- */

static const char *key_of(char key[QUEUE_KEY_MAX], long shard)
{
    cli_set_key(key, queue_key_events(key, (uint16_t)shard));
    return key;
}

static bool is_id(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    const char *rest = text + digits;
    return digits > 0 && digits < 20 && rest[0] == '-' && rest[1] != '\0' &&
           rest[1 + strspn(rest + 1, "0123456789")] == '\0' && strlen(rest) < 21;
}

/* A file that is not there yet is an empty one. */
static bool read_cursor(struct reader *r)
{
    long shard;
    char id[ID_MAX - 4];
    FILE *file = fopen(r->cursor, "re");
    if (!file)
        return errno == ENOENT || fail(r, "cannot read the cursor", r->cursor);
    int fields;
    while ((fields = fscanf(file, "%ld %40s", &shard, id)) == 2)
        if (shard < 0 || shard >= r->cli.shards || !is_id(id))
            break;
        else
            snprintf(r->start[shard], ID_MAX, "(%s", id);
    fclose(file);
    if (fields == EOF)
        return true;
    (void)fail_with(&r->cli.error, STATUS_BAD,
                    "%s: is no cursor of this queue: remove it to begin "
                    "again",
                    r->cursor);
    return false;
}

/* The number of the last event there is. */
static bool start_at_end(struct reader *r, long shard)
{
    char key[QUEUE_KEY_MAX];
    const char *argv[] = { "XREVRANGE", key_of(key, shard), "+", "-", "COUNT", "1" };
    redisReply *reply = cli_ask(&r->cli, (int)ARRAY_LEN(argv), argv);
    if (!reply)
        return false;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements > 0)
        snprintf(r->start[shard], ID_MAX, "(%.40s", cli_field(reply->element[0], 0).ptr);
    freeReplyObject(reply);
    return true;
}

static bool find_start(struct reader *r)
{
    bool at_end = r->from && strcmp(r->from, "end") == 0;
    r->start = mem_zalloc((size_t)r->cli.shards * sizeof *r->start);
    for (long shard = 0; shard < r->cli.shards; shard++) {
        snprintf(r->start[shard], ID_MAX, "%s", r->from && !at_end ? r->from : "-");
        if (at_end && !start_at_end(r, shard))
            return false;
    }
    return !r->cursor || read_cursor(r);
}

static bool write_cursor(const struct reader *r, FILE *file)
{
    for (long shard = 0; shard < r->cli.shards; shard++)
        if (r->start[shard][0] == '(')
            fprintf(file, "%ld %s\n", shard, r->start[shard] + 1);
    bool good = fflush(file) == 0 && fsync(fileno(file)) == 0;
    return fclose(file) == 0 && good;
}

/* What was printed is out: it need not be seen again. */
static bool keep_cursor(struct reader *r)
{
    char path[PATH_LEN];
    if (fflush(stdout) != 0)
        return fail(r, "cannot write to", "standard output");
    if (!r->cursor)
        return true;
    if ((size_t)snprintf(path, sizeof path, "%s.new", r->cursor) >= sizeof path)
        errno = ENAMETOOLONG;
    else {
        FILE *file = fopen(path, "we");
        if (file && write_cursor(r, file) && rename(path, r->cursor) == 0)
            return true;
    }
    return fail(r, "cannot write the cursor", r->cursor);
}

/* --- printing -------------------------------------------------------------------------------- */

/* An entry is {id, {"j", text}}. */
static void print_entry(struct reader *r, long shard, const redisReply *entry)
{
    struct slice id = cli_field(entry, 0);
    struct slice text = entry->elements > 1 ? cli_field(entry->element[1], 1) : SLICE_NONE;
    snprintf(r->start[shard], ID_MAX, "(%.*s", (int)slice_head(id, ID_MAX - 2).len, id.ptr);
    if (text.len < 2 || text.ptr[0] != '{')
        return; /* not ours */
    printf("{\"seq\":\"%ld-%.*s\",%.*s\n", shard, SLICE_ARG(id), SLICE_ARG(slice_skip(text, 1)));
    r->left--;
}

/* How many there were; -1: Redis failed. */
static long print_page(struct reader *r, long shard)
{
    char key[QUEUE_KEY_MAX];
    const char *argv[] = { "XRANGE", key_of(key, shard), r->start[shard], "+", "COUNT", PAGE_ROWS };
    redisReply *reply = cli_ask(&r->cli, (int)ARRAY_LEN(argv), argv);
    if (!reply)
        return -1;
    long count = 0;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && r->left > 0;
         i++) {
        if (reply->element[i]->type == REDIS_REPLY_ARRAY && reply->element[i]->elements == 2)
            print_entry(r, shard, reply->element[i]);
        count++;
    }
    freeReplyObject(reply);
    return count;
}

/* One page of each shard; -1: something failed. */
static long print_round(struct reader *r)
{
    long count = 0;
    for (long shard = 0; shard < r->cli.shards && r->left > 0; shard++) {
        long n = print_page(r, shard);
        if (n < 0)
            return -1;
        count += n;
    }
    return count > 0 && !keep_cursor(r) ? -1 : count;
}

static bool print_all(struct reader *r)
{
    const struct timespec pause = { .tv_nsec = PAUSE_NS };
    while (r->left > 0) {
        long count = print_round(r);
        if (count < 0)
            return false;
        if (count == 0 && !r->follows)
            return true;
        if (count == 0)
            nanosleep(&pause, NULL);
    }
    return true;
}

/* --- the command ----------------------------------------------------------------------------- */

static int usage(void)
{
    fputs("usage: kilat events -c FILE [--from MS|end] [--cursor FILE] [--count N] [--follow]\n"
          "  --from    only what came at this time (ms since 1970) or later; end: from now on\n"
          "  --cursor  go on behind what this file says, and keep it up to date\n"
          "  --count   print so many events at most\n"
          "  --follow  wait for more\n",
          stderr);
    return CLI_USAGE;
}

static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < 20 && text[digits] == '\0';
}

/* Takes an option and its value; how many words that were, 0: it is none. */
static int take_option(struct reader *r, int argc, char **argv)
{
    if (strcmp(argv[0], "--follow") == 0) {
        r->follows = true;
        return 1;
    }
    if (argc < 2)
        return 0;
    if (strcmp(argv[0], "--cursor") == 0)
        r->cursor = argv[1];
    else if (strcmp(argv[0], "--from") == 0 && (is_number(argv[1]) || strcmp(argv[1], "end") == 0))
        r->from = argv[1];
    else if (strcmp(argv[0], "--count") == 0 && is_number(argv[1]))
        r->left = strtoull(argv[1], NULL, 10);
    else
        return 0;
    return 2;
}

int cli_events(const struct config *cfg, int argc, char **argv)
{
    struct reader r = { .left = UINT64_MAX };
    for (int used; argc > 0; argc -= used, argv += used)
        if ((used = take_option(&r, argc, argv)) == 0)
            return usage();
    bool good = cli_connect(&r.cli, cfg) && find_start(&r) && print_all(&r);
    if (!good)
        fprintf(stderr, "kilat events: %.*s\n", SLICE_ARG(buf_slice(&r.cli.error)));
    else if (cfg->events.size_max == 0)
        fprintf(stderr, "kilat events: %s has no events { size_max = ...; }: nothing is told\n",
                cfg->file);
    cli_close(&r.cli);
    free(r.start);
    return good ? CLI_OK : CLI_FAILED;
}
