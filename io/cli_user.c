/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_user - arguments in, one change of one account, or a list out.
 *
 * Two tables: commands[], and options[] with a bit for each command that takes it. The password is
 * read before anything is locked, so that nobody waits for somebody who types; it is wiped when the
 * command ends. What is stored of it is never shown.
 *
 * With --no-argon2 and --no-scram there is no password: such a user comes by token or certificate.
 *
 * To add a command: a row in commands[] and a cmd_* function. To add an option: a row in options[]
 * and a field of struct request.
 */
#include "io/cli_user.h"
#include "core/base/must.h"
#include "io/auth_hash.h"
#include "io/cli.h"
#include "io/cli_password.h"
#include "io/cli_print.h"
#include "io/cli_user_store.h"
#include "io/fail.h"

#include <openssl/mem.h>
#include <stdio.h>
#include <stdlib.h>

#define SENDERS_MAX 256
#define LIMIT_MAX   UINT64_C(4000000000)

struct request {
    const struct config *cfg; /* borrowed */
    const char *name, *tenant, *lane, *password_file;
    const char *senders[SENDERS_MAX];
    size_t sender_count;
    uint32_t per_minute, per_day;
    bool no_argon2, no_scram, is_json;
    struct buf password; /* wiped */
};

static int complain(const char *what, const char *about)
{
    fprintf(stderr, "kilat user: %s%s%s\n", what, about ? ": " : "", about ? about : "");
    return CLI_USAGE;
}

/* --- options --------------------------------------------------------------------------------- */

static bool set_tenant(struct request *r, const char *value)
{
    r->tenant = value;
    if (config_find_tenant(r->cfg, slice_str(value)))
        return true;
    (void)complain("the configuration has no tenant of that name", value);
    return false;
}

/* A space would end the word in the account's line. */
static bool add_sender(struct request *r, const char *value)
{
    struct slice pattern = slice_str(value);
    bool is_good = sender_pattern_is_valid(pattern) && slice_find(pattern, ' ') == pattern.len;
    if (!is_good)
        (void)complain("not user@domain, @domain, @*.domain or *", value);
    else if (r->sender_count == SENDERS_MAX)
        (void)complain("too many senders", value);
    if (!is_good || r->sender_count == SENDERS_MAX)
        return false;
    r->senders[r->sender_count++] = value;
    return true;
}

static bool read_limit(const char *value, uint32_t *out)
{
    char *end;
    unsigned long long n = strtoull(value, &end, 10);
    bool is_good = value[0] >= '0' && value[0] <= '9' && *end == '\0' && n <= LIMIT_MAX;
    if (!is_good)
        (void)complain("not a number of recipients", value);
    *out = (uint32_t)n;
    return is_good;
}

static bool set_per_minute(struct request *r, const char *value)
{
    return read_limit(value, &r->per_minute);
}

static bool set_per_day(struct request *r, const char *value)
{
    return read_limit(value, &r->per_day);
}

static bool set_lane(struct request *r, const char *value)
{
    struct account a = { 0 };
    r->lane = value;
    return account_read_lane(&a, slice_str(value)) ||
           !complain("not urgent, normal or bulk", value);
}

static bool set_password_file(struct request *r, const char *value)
{
    r->password_file = value;
    return true;
}

static bool set_no_argon2(struct request *r, const char *value)
{
    return r->no_argon2 = true;
}

static bool set_no_scram(struct request *r, const char *value)
{
    return r->no_scram = true;
}

static bool set_json(struct request *r, const char *value)
{
    return r->is_json = true;
}

enum takes { ACCOUNT = 1, PASSWORD = 2, JSON = 4, NAME = 8 }; /* bits of commands[].takes */

static const struct {
    const char *name;
    enum takes of;
    bool has_value;
    bool (*set)(struct request *r, const char *value);
} options[] = {
    { "--tenant", ACCOUNT, true, set_tenant },
    { "--sender", ACCOUNT, true, add_sender },
    { "--recipients-per-minute", ACCOUNT, true, set_per_minute },
    { "--recipients-per-day", ACCOUNT, true, set_per_day },
    { "--lane", ACCOUNT, true, set_lane },
    { "--password-file", PASSWORD, true, set_password_file },
    { "--no-argon2", PASSWORD, false, set_no_argon2 },
    { "--no-scram", PASSWORD, false, set_no_scram },
    { "--json", JSON, false, set_json },
};

/* --- passwords ------------------------------------------------------------------------------- */

static bool read_password(struct request *r)
{
    struct buf error;
    if (r->no_argon2 && r->no_scram)
        return true;
    buf_init(&error, 1024);
    bool is_good = cli_password_read(r->password_file, &r->password, &error);
    if (!is_good)
        fprintf(stderr, "kilat user: %.*s\n", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return is_good;
}

static bool set_password(const struct request *r, struct account *a, struct buf *error)
{
    if (r->no_argon2 && r->no_scram) {
        free(a->argon2);
        a->argon2 = NULL;
        a->has_scram = false;
        return true;
    }
    if (auth_hash_set(a, buf_slice(&r->password), !r->no_argon2, !r->no_scram) == STATUS_OK)
        return true;
    (void)fail_with(error, STATUS_SYSTEM, "not enough memory to hash a password");
    return false;
}

/* --- commands that change -------------------------------------------------------------------- */

static int say(const char *what, const struct request *r)
{
    printf("%s %s\n", what, r->name);
    return CLI_OK;
}

static int nobody(const struct user_store *s, const struct request *r)
{
    if (s->error.len == 0)
        fprintf(stderr, "kilat user: there is no user %s\n", r->name);
    return CLI_FAILED;
}

static struct account *new_account(const struct request *r, struct buf *error)
{
    struct account *a = mem_zalloc(sizeof *a);
    atomic_init(&a->refs, 1);
    a->name = mem_strdup(r->name);
    a->tenant = mem_strdup(r->tenant ? r->tenant : "");
    a->recipients_per_minute = r->per_minute;
    a->recipients_per_day = r->per_day;
    must(!r->lane || account_read_lane(a, slice_str(r->lane)));
    for (size_t i = 0; i < r->sender_count; i++)
        must(sender_list_add(&a->senders, slice_str(r->senders[i])) == STATUS_OK);
    if (set_password(r, a, error))
        return a;
    account_unref(a);
    return NULL;
}

static int cmd_add(struct user_store *s, struct request *r)
{
    struct account *there = user_store_find(s, slice_str(r->name));
    if (there || s->error.len > 0) {
        if (there)
            fprintf(stderr,
                    "kilat user: there is a user %s already (`passwd` changes its "
                    "password)\n",
                    r->name);
        account_unref(there);
        return CLI_FAILED;
    }
    struct account *a = new_account(r, &s->error);
    bool is_done = a && user_store_put(s, a);
    account_unref(a);
    return is_done ? say("added", r) : CLI_FAILED;
}

static int cmd_passwd(struct user_store *s, struct request *r)
{
    struct account *a = user_store_find(s, slice_str(r->name));
    if (!a)
        return nobody(s, r);
    bool is_done = set_password(r, a, &s->error) && user_store_put(s, a);
    account_unref(a);
    return is_done ? say("changed the password of", r) : CLI_FAILED;
}

static int set_disabled(struct user_store *s, struct request *r, bool is_disabled, const char *done)
{
    struct account *a = user_store_find(s, slice_str(r->name));
    if (!a)
        return nobody(s, r);
    a->is_disabled = is_disabled;
    bool is_done = user_store_put(s, a);
    account_unref(a);
    return is_done ? say(done, r) : CLI_FAILED;
}

static int cmd_disable(struct user_store *s, struct request *r)
{
    return set_disabled(s, r, true, "disabled");
}

static int cmd_enable(struct user_store *s, struct request *r)
{
    return set_disabled(s, r, false, "enabled");
}

/* Also where the line in Redis cannot be read: that is how to get rid of it. */
static int cmd_remove(struct user_store *s, struct request *r)
{
    struct account *a = user_store_find(s, slice_str(r->name));
    if (!a && s->error.len == 0)
        return nobody(s, r);
    account_unref(a);
    buf_clear(&s->error);
    return user_store_remove(s, slice_str(r->name)) ? say("removed", r) : CLI_FAILED;
}

/* --- commands that show ---------------------------------------------------------------------- */

/* "argon2id+scram", "none" */
static const char *forms_of(const struct account *a)
{
    if (a->argon2)
        return a->has_scram ? "argon2id+scram" : "argon2id";
    return a->has_scram ? "scram" : "none";
}

static void print_json(const struct account *a)
{
    fputs("{\"name\":", stdout);
    cli_print_json(slice_str(a->name));
    fputs(",\"tenant\":", stdout);
    cli_print_json(slice_str(a->tenant));
    printf(",\"disabled\":%s,\"password\":\"%s\",\"senders\":[", a->is_disabled ? "true" : "false",
           forms_of(a));
    for (size_t i = 0; i < a->senders.count; i++) {
        fputs(i > 0 ? "," : "", stdout);
        cli_print_json(slice_str(a->senders.patterns[i]));
    }
    printf("],\"recipients_per_minute\":%u,\"recipients_per_day\":%u,\"lane\":\"%s\"}",
           a->recipients_per_minute, a->recipients_per_day, a->has_lane ? account_lane(a) : "");
}

static void print_limit(const char *what, uint32_t n)
{
    if (n > 0)
        printf("%s %u\n", what, n);
    else
        printf("%s as the tenant says\n", what);
}

static void print_account(const struct account *a)
{
    printf("name                   %s\n", a->name);
    printf("tenant                 %s\n", a->tenant[0] ? a->tenant : "(none)");
    printf("state                  %s\n", a->is_disabled ? "disabled" : "enabled");
    printf("password               %s\n", forms_of(a));
    for (size_t i = 0; i < a->senders.count; i++)
        printf("sender                 %s\n", a->senders.patterns[i]);
    if (a->senders.count == 0)
        printf("sender                 as the tenant says\n");
    print_limit("recipients per minute ", a->recipients_per_minute);
    print_limit("recipients per day    ", a->recipients_per_day);
    printf("lane                   %s\n", a->has_lane ? account_lane(a) : "as the listener says");
}

static int cmd_show(struct user_store *s, struct request *r)
{
    struct account *a = user_store_find(s, slice_str(r->name));
    if (!a)
        return nobody(s, r);
    if (r->is_json) {
        print_json(a);
        putchar('\n');
    } else
        print_account(a);
    account_unref(a);
    return CLI_OK;
}

static void print_row(const struct account *a)
{
    printf("%-40s %-20s %-8s %s\n", a->name, a->tenant[0] ? a->tenant : "-",
           a->is_disabled ? "disabled" : "enabled", forms_of(a));
}

static int cmd_list(struct user_store *s, struct request *r)
{
    if (!user_store_load(s))
        return CLI_FAILED;
    if (!r->is_json)
        printf("%-40s %-20s %-8s %s\n", "NAME", "TENANT", "STATE", "PASSWORD");
    for (size_t i = 0; i < auth_users_count(s->users); i++) {
        const struct account *a = auth_users_at(s->users, i);
        if (r->is_json) {
            fputs(i > 0 ? ",\n " : "[", stdout);
            print_json(a);
        } else
            print_row(a);
    }
    if (r->is_json)
        puts(auth_users_count(s->users) > 0 ? "]" : "[]");
    return CLI_OK;
}

/* --- the table ------------------------------------------------------------------------------- */

#define PASSWORD_OPTIONS "[--password-file FILE] [--no-argon2] [--no-scram]"

static const struct command {
    const char *name;
    int takes; /* bits of enum takes */
    bool is_writing;
    int (*run)(struct user_store *s, struct request *r);
    const char *usage;
} commands[] = {
    { "add", NAME | ACCOUNT | PASSWORD, true, cmd_add,
      "add NAME [--tenant TENANT] [--sender PATTERN]... [--recipients-per-minute N]\n"
      "           [--recipients-per-day N] [--lane urgent|normal|bulk]\n"
      "           " PASSWORD_OPTIONS },
    { "passwd", NAME | PASSWORD, true, cmd_passwd, "passwd NAME " PASSWORD_OPTIONS },
    { "disable", NAME, true, cmd_disable, "disable NAME" },
    { "enable", NAME, true, cmd_enable, "enable NAME" },
    { "remove", NAME, true, cmd_remove, "remove NAME" },
    { "show", NAME | JSON, false, cmd_show, "show NAME [--json]" },
    { "list", JSON, false, cmd_list, "list [--json]" },
};

static int usage(void)
{
    fputs("usage: kilat user -c FILE COMMAND\n", stderr);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(stderr, "  %s\n", commands[i].usage);
    fputs("without --password-file the password is read from standard input, from a terminal "
          "twice and\nwithout echo\n",
          stderr);
    return CLI_USAGE;
}

/* Takes one option with its value; false: it was wrong, and why is printed. */
static bool take_option(struct request *r, int takes, int argc, char **argv, int *at)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (!(takes & (int)options[i].of) || strcmp(options[i].name, argv[*at]) != 0)
            continue;
        if (options[i].has_value && ++*at == argc) {
            (void)complain("a value is missing after", options[i].name);
            return false;
        }
        return options[i].set(r, argv[*at]);
    }
    (void)complain("no such option here", argv[*at]);
    return false;
}

static bool take_name(struct request *r, int takes, const char *arg)
{
    bool is_good = (takes & NAME) && !r->name;
    if (!is_good)
        (void)complain("one word too many", arg);
    else if (!account_name_is_valid(slice_str(arg))) {
        is_good = false;
        (void)complain("a name is 1 to 255 octets of visible UTF-8, and begins with no #", arg);
    }
    r->name = arg;
    return is_good;
}

static bool take_arguments(struct request *r, int takes, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        bool is_option = strncmp(argv[i], "--", 2) == 0;
        if (is_option ? !take_option(r, takes, argc, argv, &i) : !take_name(r, takes, argv[i]))
            return false;
    }
    if (!(takes & NAME) || r->name)
        return true;
    (void)complain("which user?", NULL);
    return false;
}

static int run(const struct command *command, struct request *r)
{
    struct user_store store;
    int rc = CLI_FAILED;
    if ((command->takes & PASSWORD) && !read_password(r))
        return CLI_FAILED;
    if (user_store_open(&store, r->cfg, command->is_writing))
        rc = command->run(&store, r);
    if (store.error.len > 0)
        fprintf(stderr, "kilat user: %.*s\n", SLICE_ARG(buf_slice(&store.error)));
    user_store_close(&store);
    /* A full disk behind `> file` must not look like success. */
    return fflush(stdout) != 0 && rc == CLI_OK ? CLI_FAILED : rc;
}

int cli_user(const struct config *cfg, int argc, char **argv)
{
    for (size_t i = 0; argc > 0 && i < ARRAY_LEN(commands); i++) {
        struct request r = { .cfg = cfg };
        if (strcmp(commands[i].name, argv[0]) != 0)
            continue;
        if (!take_arguments(&r, commands[i].takes, argc - 1, argv + 1))
            return usage();
        buf_init(&r.password, AUTH_PASSWORD_MAX + 3);
        int rc = run(&commands[i], &r);
        if (r.password.ptr)
            OPENSSL_cleanse(r.password.ptr, r.password.cap);
        buf_done(&r.password);
        return rc;
    }
    return usage();
}
