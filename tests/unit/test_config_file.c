/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration file: what is there, what is not, what is too large. */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "io/config_file.h"

static void check(const char *path, enum status want, const char *part)
{
    struct config *cfg = NULL;
    struct buf error;
    buf_init(&error, 1024);
    enum status st = config_load(path, &cfg, &error);
    if (st != want || (part && !memmem(error.ptr, error.len, part, strlen(part))))
        fail_msg("%s: %s: %.*s", path, status_text(st), SLICE_ARG(buf_slice(&error)));
    if (st == STATUS_OK)
        config_free(cfg);
    buf_done(&error);
}

static const char minimal[] = "hostname = \"gateway.example\";\n"
                              "listener \"trusted\" { bind = [\"127.0.0.1:2525\"]; "
                              "networks = [\"127.0.0.0/8\"]; }\n";
static const char comment[] = "# thirty-two octets of comment..\n";

static void put(const char *path, const char *first, const char *text, size_t copies)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(first, f);
    for (size_t i = 0; i < copies; i++)
        fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void files(void **state)
{
    char dir[64], path[96];
    make_temp_dir(dir);
    snprintf(path, sizeof path, "%s/kilat.conf", dir);
    check(path, STATUS_SYSTEM, "No such file or directory");
    check(dir, STATUS_SYSTEM, "Is a directory");
    put(path, "", minimal, 1);
    check(path, STATUS_OK, NULL);
    put(path, "", "nonsense = 1;\n", 1);
    check(path, STATUS_BAD, "kilat.conf:1:");
    size_t fill = (CONFIG_FILE_MAX - strlen(minimal)) / strlen(comment);
    put(path, minimal, comment, fill);
    check(path, STATUS_OK, NULL);
    put(path, minimal, comment, fill + 1);
    check(path, STATUS_FULL, "larger than");
    remove_tree(dir);
}

/* What core/base cannot know: what a pattern of senders is. */
static void patterns_of_senders(void **state)
{
    static const struct {
        const char *senders;
        bool is_good;
    } rows[] = {
        { "[\"a@example.org\", \"@example.org\", \"@*.example.org\", \"*\"]", true },
        { "[\"@example.org\", \"example.org\"]", false },
        { "\"*@example.org\"", false },
        { "\"@\"", false },
        { "\"a@b@example.org\"", false },
    };
    char dir[64], path[96], tenant[300];
    make_temp_dir(dir);
    snprintf(path, sizeof path, "%s/kilat.conf", dir);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        snprintf(tenant, sizeof tenant, "tenant \"acme\" { senders = %s }\n", rows[i].senders);
        put(path, minimal, tenant, 1);
        check(path, rows[i].is_good ? STATUS_OK : STATUS_BAD,
              rows[i].is_good ? NULL : "kilat.conf:3: tenant \"acme\": senders: ");
    }
    remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(files),
                                        cmocka_unit_test(patterns_of_senders) };
    return cmocka_run_group_tests_name("config_file", tests, NULL, NULL);
}
