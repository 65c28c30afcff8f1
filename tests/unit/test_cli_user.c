/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kilat user` on a file, and on a private Redis: the same commands, the same words. What a
 * terminal sees is in tests/e2e/test_users.py.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "io/auth_file.h"
#include "io/auth_hash.h"
#include "io/auth_users.h"
#include "io/cli.h"
#include "io/cli_user.h"
#include "io/redis_boot.h"

#include <fcntl.h>
#include <sys/stat.h>

#define OUTPUT_MAX 65536

struct fixture {
    struct config cfg;
    struct config_tenant tenants[1];
    char dir[64], path[96], passwords[96], url[128];
    struct private_redis p;
    bool has_redis;
    char out[OUTPUT_MAX], err[OUTPUT_MAX];
};

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
}

static int set_up_file(void **state)
{
    static char acme[] = "acme";
    struct fixture *f = mem_zalloc(sizeof *f);
    make_temp_dir(f->dir);
    snprintf(f->path, sizeof f->path, "%s/users", f->dir);
    snprintf(f->passwords, sizeof f->passwords, "%s/password", f->dir);
    put(f->passwords, "correct horse\n");
    f->tenants[0].name = acme;
    f->cfg.tenants = f->tenants;
    f->cfg.tenant_count = 1;
    f->cfg.auth.users_file = f->path;
    *state = f;
    return 0;
}

static int set_up_redis(void **state)
{
    static const char *const options[] = { "--appendonly", "yes", "--appendfsync", "always", NULL };
    struct redis_address a = { .is_unix = true };
    struct buf error;
    uint16_t shards;
    set_up_file(state);
    struct fixture *f = *state;
    buf_init(&error, 4096);
    private_redis_start(&f->p, options);
    f->has_redis = true;
    snprintf(f->url, sizeof f->url, "unix://%s", f->p.socket);
    snprintf(a.path, sizeof a.path, "%s", f->p.socket);
    f->cfg.auth.users_file = NULL;
    f->cfg.redis.mode = REDIS_EXTERNAL;
    f->cfg.redis.url = f->url;
    f->cfg.queue.shards = 2;
    if (redis_boot(&f->cfg, &a, &shards, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->has_redis)
        private_redis_stop(&f->p);
    remove_tree(f->dir);
    free(f);
    return 0;
}

static void read_back(FILE *file, char out[OUTPUT_MAX])
{
    rewind(file);
    out[fread(out, 1, OUTPUT_MAX - 1, file)] = '\0';
    fclose(file);
}

/* Runs a command line (words with one space between) with this on its standard input. */
static int run_with(struct fixture *f, const char *input, const char *line)
{
    char words[2048], *argv[64], *save = NULL;
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    FILE *in = tmpfile(), *out = tmpfile(), *err = tmpfile();
    assert_true(in && out && err);
    assert_true(fputs(input, in) >= 0 && fflush(in) == 0);
    rewind(in);
    fflush(stdout);
    int old[3] = { dup(0), dup(1), dup(2) };
    dup2(fileno(in), 0);
    dup2(fileno(out), 1);
    dup2(fileno(err), 2);
    int rc = cli_user(&f->cfg, argc, argv);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 3; i++) {
        dup2(old[i], i);
        close(old[i]);
    }
    fclose(in);
    read_back(out, f->out);
    read_back(err, f->err);
    return rc;
}

static void run(struct fixture *f, int want, const char *line)
{
    int rc = run_with(f, "from a pipe\n", line);
    if (rc != want)
        fail_msg("%s: %d\n%s%s", line, rc, f->out, f->err);
}

static void check_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

/* The account as it is stored now; NULL: nobody. The caller's reference. */
static struct account *stored(struct fixture *f, const char *name)
{
    struct buf text, error;
    struct auth_users *users = NULL;
    buf_init(&text, 1 << 20);
    buf_init(&error, 1024);
    if (f->has_redis) {
        char line[ACCOUNT_LINE_MAX];
        private_redis_say(f->p.socket, line, sizeof line, "HGET {cfg}users %s", name);
        assert_int_equal(buf_printf(&text, "%s\n", line), STATUS_OK);
    } else
        assert_int_equal(auth_file_read(f->path, &text, &error), STATUS_OK);
    if (auth_users_parse("users", buf_slice(&text), &users, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    struct account *a = auth_users_find(users, slice_str(name));
    if (a)
        account_ref(a);
    auth_users_free(users);
    buf_done(&text);
    buf_done(&error);
    return a;
}

static void check_password(struct fixture *f, const char *name, const char *password, bool want)
{
    struct account *a = stored(f, name);
    assert_non_null(a);
    assert_true(auth_hash_is_right(a, slice_str(password)) == want);
    account_unref(a);
}

/* --- wherever users are kept ----------------------------------------------------------------- */

static void the_life_of_a_user(void **state)
{
    struct fixture *f = *state;
    char line[512];
    if (!f->has_redis)
        put(f->path, "");
    run(f, CLI_OK, "list");
    run(f, CLI_OK, "list --json");
    assert_string_equal(f->out, "[]\n");
    snprintf(line, sizeof line,
             "add alice@example.org --tenant acme --sender @example.org --sender b@example.net "
             "--recipients-per-minute 60 --recipients-per-day 5000 --password-file %s",
             f->passwords);
    run(f, CLI_OK, line);
    assert_string_equal(f->out, "added alice@example.org\n");
    struct account *a = stored(f, "alice@example.org");
    assert_string_equal(a->tenant, "acme");
    assert_int_equal(a->senders.count, 2);
    assert_int_equal(a->recipients_per_minute, 60);
    assert_int_equal(a->recipients_per_day, 5000);
    assert_true(a->argon2 && a->has_scram && !a->is_disabled);
    account_unref(a);
    check_password(f, "alice@example.org", "correct horse", true);
    check_password(f, "alice@example.org", "correct horse\n", false);

    run(f, CLI_OK, "passwd alice@example.org");
    check_password(f, "alice@example.org", "from a pipe", true);
    check_password(f, "alice@example.org", "correct horse", false);
    run(f, CLI_OK, "disable alice@example.org");
    check_password(f, "alice@example.org", "from a pipe", true); /* kept for later */
    run(f, CLI_OK, "show alice@example.org");
    check_has(f->out, "disabled");
    check_has(f->out, "argon2id+scram");
    check_has(f->out, "b@example.net");
    assert_null(strstr(f->out, "$argon2id"));
    run(f, CLI_OK, "enable alice@example.org");
    run(f, CLI_OK, "show alice@example.org --json");
    assert_string_equal(f->out,
                        "{\"name\":\"alice@example.org\",\"tenant\":\"acme\",\"disabled\":false,"
                        "\"password\":\"argon2id+scram\",\"senders\":[\"@example.org\","
                        "\"b@example.net\"],\"recipients_per_minute\":60,"
                        "\"recipients_per_day\":5000,\"lane\":\"\"}\n");
    run(f, CLI_OK, "add bob");
    run(f, CLI_OK, "list");
    check_has(f->out, "alice@example.org");
    check_has(f->out, "bob");
    run(f, CLI_OK, "remove alice@example.org");
    run(f, CLI_OK, "list");
    assert_null(strstr(f->out, "alice"));
    check_has(f->out, "bob");
    run(f, CLI_FAILED, "show alice@example.org");
    check_has(f->err, "there is no user alice@example.org");
}

static void forms_of_a_password(void **state)
{
    struct fixture *f = *state;
    run(f, CLI_OK, "add one --no-scram");
    run(f, CLI_OK, "add two --no-argon2");
    run(f, CLI_OK, "add three --no-argon2 --no-scram"); /* by token or certificate */
    struct account *one = stored(f, "one"), *two = stored(f, "two"), *three = stored(f, "three");
    assert_true(one->argon2 && !one->has_scram);
    assert_true(!two->argon2 && two->has_scram);
    assert_true(!three->argon2 && !three->has_scram);
    account_unref(one);
    account_unref(two);
    account_unref(three);
    check_password(f, "one", "from a pipe", true);
    check_password(f, "two", "from a pipe", true);
    run(f, CLI_OK, "passwd one --no-argon2 --no-scram");
    check_password(f, "one", "from a pipe", false);
}

/* Whatever fails changes nothing. */
static void what_is_refused(void **state)
{
    static const struct {
        const char *line;
        int rc;
        const char *says;
    } cases[] = {
        { "add alice", CLI_FAILED, "there is a user alice already" },
        { "passwd bob", CLI_FAILED, "there is no user bob" },
        { "disable bob", CLI_FAILED, "there is no user bob" },
        { "enable bob", CLI_FAILED, "there is no user bob" },
        { "remove bob", CLI_FAILED, "there is no user bob" },
        { "add bob --password-file /nowhere/at/all", CLI_FAILED, "cannot open /nowhere/at/all" },
        { "add bob --tenant nobody", CLI_USAGE, "no tenant of that name: nobody" },
        { "add bob --sender x@", CLI_USAGE, "not user@domain" },
        { "add bob --recipients-per-day many", CLI_USAGE, "not a number" },
        { "add bob --recipients-per-day -1", CLI_USAGE, "not a number" },
        { "add bob --recipients-per-day 4000000001", CLI_USAGE, "not a number" },
        { "add bob --tenant", CLI_USAGE, "a value is missing after: --tenant" },
        { "add bob --password secret", CLI_USAGE, "no such option here: --password" },
        { "add bob secret", CLI_USAGE, "one word too many: secret" },
        { "add #bob", CLI_USAGE, "a name is 1 to 255 octets" },
        { "add", CLI_USAGE, "which user?" },
        { "disable alice --json", CLI_USAGE, "no such option here: --json" },
        { "list alice", CLI_USAGE, "one word too many: alice" },
        { "frobnicate alice", CLI_USAGE, "usage: kilat user" },
        { "", CLI_USAGE, "usage: kilat user" },
    };
    struct fixture *f = *state;
    run(f, CLI_OK, "add alice");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        run(f, cases[i].rc, cases[i].line);
        check_has(f->err, cases[i].says);
        assert_string_equal(f->out, "");
    }
    run(f, CLI_OK, "list --json");
    assert_non_null(strstr(f->out, "alice"));
    assert_null(strstr(f->out, "bob"));
}

static void bad_passwords(void **state)
{
    static const char *const cases[][2] = {
        { "", "the password is empty" },     { "\n", "the password is empty" },
        { "\r\n", "the password is empty" }, { "tab\tin it\n", "a control character" },
        { "\x7f\n", "a control character" },
    };
    struct fixture *f = *state;
    char longest[AUTH_PASSWORD_MAX + 3];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(run_with(f, cases[i][0], "add alice"), CLI_FAILED);
        check_has(f->err, cases[i][1]);
    }
    put(f->passwords, "first line\nsecond line\n");
    char line[256];
    snprintf(line, sizeof line, "add alice --password-file %s", f->passwords);
    run(f, CLI_FAILED, line);
    check_has(f->err, "more than one line");
    memset(longest, 'x', sizeof longest);
    longest[AUTH_PASSWORD_MAX + 1] = '\n';
    longest[AUTH_PASSWORD_MAX + 2] = '\0';
    assert_int_equal(run_with(f, longest, "add alice"), CLI_FAILED);
    check_has(f->err, "password");
    longest[AUTH_PASSWORD_MAX] = '\n';
    longest[AUTH_PASSWORD_MAX + 1] = '\0';
    assert_int_equal(run_with(f, longest, "add alice"), CLI_OK);
    /* Without a line's end, and with one of Windows. */
    assert_int_equal(run_with(f, "p\xc3\xa4ss", "add bob"), CLI_OK);
    check_password(f, "bob", "p\xc3\xa4ss", true);
    assert_int_equal(run_with(f, "windows\r\n", "passwd bob"), CLI_OK);
    check_password(f, "bob", "windows", true);
}

/* --- the file -------------------------------------------------------------------------------- */

static void read_file(const char *path, char *out, size_t len)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    out[fread(out, 1, len - 1, f)] = '\0';
    fclose(f);
}

/* Everything that is not the one line stays as it was. */
static void comments_and_order_stay(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    put(f->path, "# of the shop\nzoe tenant=acme\n\n# of the office\nbob sender=* disabled\nalice");
    run(f, CLI_OK, "enable bob");
    read_file(f->path, text, sizeof text);
    assert_string_equal(text, "# of the shop\nzoe tenant=acme\n\n# of the office\nbob sender=*\n"
                              "alice\n");
    run(f, CLI_OK, "remove zoe");
    run(f, CLI_OK, "add carol --no-argon2 --no-scram");
    read_file(f->path, text, sizeof text);
    assert_string_equal(text, "# of the shop\n\n# of the office\nbob sender=*\nalice\ncarol\n");
}

static void modes_and_links_stay(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char link[96];
    run(f, CLI_OK, "add alice");
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(chmod(f->path, 0640), 0);
    if (geteuid() == 0)
        assert_int_equal(chown(f->path, 12, 34), 0);
    run(f, CLI_OK, "disable alice");
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_true(geteuid() != 0 || (st.st_uid == 12 && st.st_gid == 34));
    snprintf(link, sizeof link, "%s/link", f->dir);
    assert_int_equal(symlink(f->path, link), 0);
    f->cfg.auth.users_file = link;
    run(f, CLI_OK, "enable alice");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    f->cfg.auth.users_file = f->path;
    struct account *a = stored(f, "alice");
    assert_false(a->is_disabled);
    account_unref(a);
}

static int count_files(const char *dir)
{
    char command[128];
    int count = -1;
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_int_equal(fscanf(p, "%d", &count), 1);
    pclose(p);
    return count;
}

static void a_bad_file_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char text[256], want[160];
    put(f->path, "alice\nbob colour=red\n");
    run(f, CLI_FAILED, "add carol");
    snprintf(want, sizeof want, "%s:2: user \"bob\": \"colour=red\": no such word", f->path);
    check_has(f->err, want);
    run(f, CLI_FAILED, "list");
    read_file(f->path, text, sizeof text);
    assert_string_equal(text, "alice\nbob colour=red\n");
    assert_int_equal(count_files(f->dir), 2); /* the file and the password; nothing half made */
    assert_int_equal(remove(f->path), 0);
    run(f, CLI_FAILED, "list");
    check_has(f->err, "cannot open");
    f->cfg.auth.users_file = (char[]){ "/nowhere/at/all/users" };
    run(f, CLI_FAILED, "add alice");
    check_has(f->err, "/nowhere/at/all");
}

static void too_long_a_line(void **state)
{
    struct fixture *f = *state;
    char line[2048] = "add alice --no-argon2 --no-scram";
    for (int i = 0; i < 14; i++) {
        char more[128];
        snprintf(more, sizeof more, " --sender @%060d.example", i);
        strcat(line, more);
    }
    run(f, CLI_OK, line);
    struct account *a = stored(f, "alice");
    assert_int_equal(a->senders.count, 14);
    account_unref(a);
}

/* Ten at once: each waits for the one before it. */
static void many_commands_at_once(void **state)
{
    struct fixture *f = *state;
    pid_t pids[10];
    for (int i = 0; i < 10; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            char line[64];
            snprintf(line, sizeof line, "add user%d --no-argon2 --no-scram", i);
            _exit(run_with(f, "", line));
        }
    }
    for (int i = 0; i < 10; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == CLI_OK);
    }
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "user%d", i);
        struct account *a = stored(f, name);
        assert_non_null(a);
        account_unref(a);
    }
}

/* --- Redis ----------------------------------------------------------------------------------- */

static void a_bad_line_in_redis_can_be_removed(void **state)
{
    struct fixture *f = *state;
    char out[64];
    private_redis_say(f->p.socket, out, sizeof out, "HSET {cfg}users bob %s", "bob colour=red");
    run(f, CLI_FAILED, "show bob");
    check_has(f->err, "{cfg}users: user \"bob\": \"colour=red\": no such word");
    run(f, CLI_FAILED, "enable bob");
    run(f, CLI_OK, "remove bob");
    run(f, CLI_FAILED, "show bob");
    check_has(f->err, "there is no user bob");
}

static void more_than_a_page(void **state)
{
    struct fixture *f = *state;
    redisContext *c = redisConnectUnix(f->p.socket);
    for (int i = 0; i < 2000; i++)
        freeReplyObject(redisCommand(c, "HSET {cfg}users user%04d user%04d", i, i));
    redisFree(c);
    run(f, CLI_OK, "list");
    size_t lines = 0;
    for (const char *at = f->out; (at = strchr(at, '\n')); at++)
        lines++;
    assert_true(lines > 800); /* OUTPUT_MAX cuts the rest */
    check_has(f->out, "\nuser0000 ");
    check_has(f->out, "\nuser0499 ");
}

static void redis_out_of_reach(void **state)
{
    struct fixture *f = *state;
    f->cfg.redis.url = (char[]){ "unix:///nowhere/at/all.sock" };
    run(f, CLI_FAILED, "list");
    check_has(f->err, "/nowhere/at/all.sock");
    assert_string_equal(f->out, "");
}

#define FILE_CASE(test)                                                                            \
    {                                                                                              \
#test "_file", test, set_up_file, tear_down, NULL                                          \
    }
#define REDIS_CASE(test)                                                                           \
    {                                                                                              \
#test "_redis", test, set_up_redis, tear_down, NULL                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_CASE(the_life_of_a_user),
        REDIS_CASE(the_life_of_a_user),
        FILE_CASE(forms_of_a_password),
        REDIS_CASE(forms_of_a_password),
        FILE_CASE(what_is_refused),
        REDIS_CASE(what_is_refused),
        FILE_CASE(bad_passwords),
        FILE_CASE(comments_and_order_stay),
        FILE_CASE(modes_and_links_stay),
        FILE_CASE(a_bad_file_is_left_alone),
        FILE_CASE(too_long_a_line),
        FILE_CASE(many_commands_at_once),
        REDIS_CASE(a_bad_line_in_redis_can_be_removed),
        REDIS_CASE(more_than_a_page),
        REDIS_CASE(redis_out_of_reach),
    };
    return cmocka_run_group_tests_name("cli_user", tests, NULL, NULL);
}
