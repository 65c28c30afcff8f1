/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_suppress - one hash in Redis, s:<tenant>, field by field.
 *
 * Addresses are kept in their one form (policy_address), so that "Bob@EXAMPLE.org" and
 * "\"Bob\"@example.org" are the same entry. A file to import has one address a line, then, if there
 * is one, white space or a comma, and its reason; empty lines and lines that begin with # are
 * skipped. It is checked whole before anything is written; an address that is listed already gets
 * the new reason.
 *
 * Limits: REASON_MAX octets of a reason, printable ASCII, because a client is told it; LINE_LEN_MAX
 * octets of a line; pages of PAGE_ROWS keep Redis responsive.
 * To add a command: a row in commands[] and a cmd_* function.
 */
#include "io/cli_suppress.h"
#include "core/base/must.h"
#include "io/cli.h"
#include "io/cli_print.h"
#include "io/cli_redis.h"
#include "io/fail.h"
#include "queue/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define REASON_MAX     POLICY_REASON_MAX
#define REASON_DEFAULT "suppressed"
#define LINE_LEN_MAX   1024
#define PAGE_ROWS      500

/* One tenant's list in Redis. */
struct suppressions {
    struct cli cli;
    char key[QUEUE_KEY_MAX];
};

/* ---- what may be said ---- */

/* NULL: it is a mailbox; else why not. Octets above 127 are left to SMTPUTF8. */
static const char *fault_of_address(struct slice text)
{
    static const char *const faults[] = {
        [ADDRESS_SYNTAX] = "not an address",
        [ADDRESS_TOO_LONG] = "too long for an address",
        [ADDRESS_CONTROL] = "control characters in an address",
        [ADDRESS_NO_DOMAIN] = "an address without a domain",
        [ADDRESS_LITERAL] = "not a valid address literal",
    };
    struct address a;
    enum address_error error = address_parse_mailbox(text, &a);
    if (text.len + 2 > ADDRESS_PATH_MAX)
        return faults[ADDRESS_TOO_LONG];
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f)
            return faults[ADDRESS_CONTROL];
    if (error == ADDRESS_NOT_ASCII)
        return slice_find(text, '@') < text.len ? NULL : faults[ADDRESS_NO_DOMAIN];
    return error == ADDRESS_OK ? NULL : faults[error];
}

static const char *fault_of_reason(struct slice reason)
{
    if (reason.len == 0 || reason.len > REASON_MAX)
        return "a reason has 1 to 200 characters";
    for (size_t i = 0; i < reason.len; i++)
        if (reason.ptr[i] < ' ' || reason.ptr[i] > '~')
            return "a reason is told to clients: printable ASCII only";
    return NULL;
}

static bool fail(struct suppressions *s, const char *fault, struct slice what)
{
    (void)fail_with(&s->cli.error, STATUS_BAD, "%s: %.*s", fault, SLICE_ARG(what));
    return false;
}

/* Checks an address as it was given and brings it into its one form. */
static bool read_address(struct suppressions *s, struct slice text, char form[POLICY_ADDRESS_MAX],
                         struct slice *out)
{
    const char *fault = fault_of_address(text);
    if (fault)
        return fail(s, fault, text);
    *out = policy_address(form, text);
    return true;
}

/* ---- Redis ---- */

/* One command on the list: "HSET key ...". NULL: error says why. The caller frees. */
static redisReply *tell(struct suppressions *s, const char *command, int count,
                        const struct slice *args)
{
    const char *argv[4] = { command, s->key };
    size_t lens[4] = { strlen(command), strlen(s->key) };
    must(count <= 2);
    for (int i = 0; i < count; i++) {
        argv[2 + i] = args[i].ptr;
        lens[2 + i] = args[i].len;
    }
    redisReply *r = redisCommandArgv(s->cli.redis, 2 + count, argv, lens);
    if (r && r->type != REDIS_REPLY_ERROR)
        return r;
    (void)fail_with(&s->cli.error, STATUS_REFUSED, "Redis: %s", r ? r->str : s->cli.redis->errstr);
    freeReplyObject(r);
    return NULL;
}

/* The number that a command answers; -1: error says why. */
static long long count_of(struct suppressions *s, const char *command, int count,
                          const struct slice *args)
{
    redisReply *r = tell(s, command, count, args);
    long long n = r ? r->integer : -1;
    freeReplyObject(r);
    return n;
}

/* ---- add, remove ---- */

/* TENANT ADDRESS [--reason TEXT] */
static int cmd_add(struct suppressions *s, int argc, char **argv)
{
    char form[POLICY_ADDRESS_MAX];
    struct slice args[2] = { SLICE_NONE, SLICE(REASON_DEFAULT) };
    if (argc != 1 && !(argc == 3 && strcmp(argv[1], "--reason") == 0))
        return CLI_USAGE;
    if (argc == 3)
        args[1] = slice_str(argv[2]);
    const char *fault = fault_of_reason(args[1]);
    if (!read_address(s, slice_str(argv[0]), form, &args[0]))
        return CLI_FAILED;
    if (fault)
        return fail(s, fault, args[1]), CLI_FAILED;
    long long added = count_of(s, "HSET", 2, args);
    if (added < 0)
        return CLI_FAILED;
    printf("%s %.*s\n", added ? "added" : "changed the reason of", SLICE_ARG(args[0]));
    return CLI_OK;
}

/* TENANT ADDRESS */
static int cmd_remove(struct suppressions *s, int argc, char **argv)
{
    char form[POLICY_ADDRESS_MAX];
    struct slice address;
    if (argc != 1)
        return CLI_USAGE;
    if (!read_address(s, slice_str(argv[0]), form, &address))
        return CLI_FAILED;
    long long removed = count_of(s, "HDEL", 1, &address);
    if (removed == 0)
        fail(s, "not on the list", address);
    if (removed <= 0)
        return CLI_FAILED;
    printf("removed %.*s\n", SLICE_ARG(address));
    return CLI_OK;
}

/* ---- list ---- */

struct row {
    char *address, *reason; /* owned */
};

struct rows {
    struct row *all; /* owned */
    size_t count, cap;
};

static void add_row(struct rows *rows, struct slice address, struct slice reason)
{
    if (rows->count == rows->cap) {
        rows->cap = rows->cap ? 2 * rows->cap : 64;
        rows->all = mem_realloc(rows->all, rows->cap * sizeof *rows->all);
    }
    struct row *row = &rows->all[rows->count++];
    row->address = mem_alloc(address.len + 1);
    row->reason = mem_alloc(reason.len + 1);
    snprintf(row->address, address.len + 1, "%.*s", SLICE_ARG(address));
    snprintf(row->reason, reason.len + 1, "%.*s", SLICE_ARG(reason));
}

static void rows_done(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        free(rows->all[i].address);
        free(rows->all[i].reason);
    }
    free(rows->all);
}

static int by_address(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->address, ((const struct row *)b)->address);
}

/* Reads a page; *cursor is "0" when it was the last. */
static bool read_page(struct suppressions *s, char cursor[24], struct rows *rows)
{
    const char *argv[] = { "HSCAN", s->key, cursor, "COUNT", "500" };
    redisReply *r = cli_ask(&s->cli, 5, argv);
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
        freeReplyObject(r);
        return false;
    }
    snprintf(cursor, 24, "%.*s", SLICE_ARG(cli_field(r, 0)));
    for (size_t i = 0; i + 1 < r->element[1]->elements; i += 2)
        add_row(rows, cli_field(r->element[1], i), cli_field(r->element[1], i + 1));
    freeReplyObject(r);
    return true;
}

static void print_row(const struct row *row, bool is_json)
{
    if (is_json) {
        fputs("{\"address\":", stdout);
        cli_print_json(slice_str(row->address));
        fputs(",\"reason\":", stdout);
        cli_print_json(slice_str(row->reason));
        fputs("}\n", stdout);
        return;
    }
    cli_print_text(slice_str(row->address));
    putchar('\t');
    cli_print_text(slice_str(row->reason));
    putchar('\n');
}

/* TENANT [--json]; a scan may show one twice. */
static int cmd_list(struct suppressions *s, int argc, char **argv)
{
    bool is_json = argc == 1 && strcmp(argv[0], "--json") == 0, is_read = true;
    struct rows rows = { 0 };
    char cursor[24] = "0";
    if (argc > 1 || (argc == 1 && !is_json))
        return CLI_USAGE;
    do
        is_read = read_page(s, cursor, &rows);
    while (is_read && strcmp(cursor, "0") != 0);
    if (rows.count > 0)
        qsort(rows.all, rows.count, sizeof *rows.all, by_address);
    for (size_t i = 0; is_read && i < rows.count; i++)
        if (i == 0 || strcmp(rows.all[i].address, rows.all[i - 1].address) != 0)
            print_row(&rows.all[i], is_json);
    rows_done(&rows);
    return is_read ? CLI_OK : CLI_FAILED;
}

/* ---- import ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct slice trim(struct slice text)
{
    while (text.len > 0 && is_space(text.ptr[0]))
        text = slice_skip(text, 1);
    while (text.len > 0 && is_space(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* Where a line's address ends: at white space or a comma outside of quotes. */
static size_t end_of_address(struct slice line)
{
    bool is_quoted = false;
    for (size_t i = 0; i < line.len; i++) {
        if (is_quoted && line.ptr[i] == '\\')
            i++;
        else if (line.ptr[i] == '"')
            is_quoted = !is_quoted;
        else if (!is_quoted && (line.ptr[i] == ',' || is_space(line.ptr[i])))
            return i;
    }
    return line.len;
}

/* "ADDRESS", "ADDRESS REASON" or "ADDRESS,REASON"; false: error says why. */
static bool read_line(struct suppressions *s, struct slice line, struct rows *rows)
{
    char form[POLICY_ADDRESS_MAX];
    struct slice address;
    size_t end = end_of_address(line);
    if (!read_address(s, slice_head(line, end), form, &address))
        return false;
    struct slice reason = trim(slice_skip(line, end));
    if (reason.len > 0 && reason.ptr[0] == ',')
        reason = trim(slice_skip(reason, 1));
    if (reason.len == 0)
        reason = SLICE(REASON_DEFAULT);
    const char *fault = fault_of_reason(reason);
    if (fault)
        return fail(s, fault, reason);
    add_row(rows, address, reason);
    return true;
}

/* Puts "FILE:LINE: " before the error. */
static bool fail_in_line(struct suppressions *s, const char *path, int number)
{
    char text[LINE_LEN_MAX];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(buf_slice(&s->cli.error)));
    (void)fail_with(&s->cli.error, STATUS_BAD, "%s:%d: %s", path, number, text);
    return false;
}

static bool read_lines(struct suppressions *s, const char *path, FILE *file, struct rows *rows)
{
    char text[LINE_LEN_MAX + 2];
    for (int number = 1; fgets(text, sizeof text, file); number++) {
        struct slice line = slice_str(text);
        bool is_whole = line.len < sizeof text - 1 || line.ptr[line.len - 1] == '\n';
        if (!is_whole) {
            (void)fail_with(&s->cli.error, STATUS_BAD, "longer than %d octets", LINE_LEN_MAX);
            return fail_in_line(s, path, number);
        }
        line = trim(line);
        if (line.len > 0 && line.ptr[0] != '#' && !read_line(s, line, rows))
            return fail_in_line(s, path, number);
    }
    if (!ferror(file))
        return true;
    (void)fail_with(&s->cli.error, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
    return false;
}

static bool read_file(struct suppressions *s, const char *path, struct rows *rows)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        (void)fail_with(&s->cli.error, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
        return false;
    }
    bool is_read = read_lines(s, path, file, rows);
    fclose(file);
    return is_read;
}

/* Up to PAGE_ROWS rows in one command; how many are new, -1: error says why. */
static long long write_rows(struct suppressions *s, const struct row *row, size_t count)
{
    const char *argv[2 + 2 * PAGE_ROWS] = { "HSET", s->key };
    int argc = 2;
    for (size_t i = 0; i < count; i++) {
        argv[argc++] = row[i].address;
        argv[argc++] = row[i].reason;
    }
    redisReply *r = cli_ask(&s->cli, argc, argv);
    long long added = r ? r->integer : -1;
    freeReplyObject(r);
    return added;
}

/* TENANT FILE */
static int cmd_import(struct suppressions *s, int argc, char **argv)
{
    struct rows rows = { 0 };
    long long added = 0, n = 0;
    if (argc != 1)
        return CLI_USAGE;
    if (!read_file(s, argv[0], &rows))
        n = -1;
    for (size_t i = 0; i < rows.count && n >= 0; i += PAGE_ROWS) {
        size_t count = rows.count - i < PAGE_ROWS ? rows.count - i : PAGE_ROWS;
        n = write_rows(s, rows.all + i, count);
        added += n;
    }
    if (n >= 0)
        printf("%zu addresses read, %lld of them new\n", rows.count, added);
    rows_done(&rows);
    return n >= 0 ? CLI_OK : CLI_FAILED;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    int (*run)(struct suppressions *s, int argc, char **argv); /* after TENANT */
    const char *usage;
} commands[] = {
    { "add", cmd_add, "add TENANT ADDRESS [--reason TEXT]   RCPT is answered 550 with the reason" },
    { "remove", cmd_remove, "remove TENANT ADDRESS                may be sent to again" },
    { "list", cmd_list, "list TENANT [--json]                 address and reason, one a line" },
    { "import", cmd_import, "import TENANT FILE                   ADDRESS [REASON], one a line" },
};

static int usage(void)
{
    fputs("usage: kilat suppress -c FILE COMMAND\n", stderr);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(stderr, "  %s\n", commands[i].usage);
    return CLI_USAGE;
}

static int run(const struct config *cfg, size_t which, int argc, char **argv)
{
    struct suppressions s;
    struct slice tenant = slice_str(argv[0]);
    int rc = CLI_FAILED;
    if (!config_find_tenant(cfg, tenant)) {
        fprintf(stderr, "kilat suppress: there is no tenant \"%s\" in %s\n", argv[0], cfg->file);
        return CLI_FAILED;
    }
    if (cli_connect(&s.cli, cfg)) {
        uint16_t shard = queue_tenant_shard(tenant, (uint16_t)s.cli.shards);
        cli_set_key(s.key, queue_key_suppression(s.key, shard, tenant));
        rc = commands[which].run(&s, argc - 1, argv + 1);
    }
    if (rc == CLI_FAILED)
        fprintf(stderr, "kilat suppress: %.*s\n", SLICE_ARG(buf_slice(&s.cli.error)));
    cli_close(&s.cli);
    /* A full disk behind `> file` must not look like success. */
    if (fflush(stdout) != 0 && rc == CLI_OK)
        rc = CLI_FAILED;
    return rc == CLI_USAGE ? usage() : rc;
}

int cli_suppress(const struct config *cfg, int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, argv[0]) == 0)
            return run(cfg, i, argc - 1, argv + 1);
    return usage();
}
