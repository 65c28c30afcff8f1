/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The users file: read whole, refused whole, read again when it changes, also while others look;
 * and what is stored of a password.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "io/auth_hash.h"
#include "io/auth_shared.h"
#include "io/auth_users.h"

#include <pthread.h>

static struct auth_users *parse(const char *text, char *why, size_t len)
{
    struct auth_users *u = NULL;
    struct buf error;
    buf_init(&error, 1024);
    enum status st = auth_users_parse("users", slice_str(text), &u, &error);
    assert_true((st == STATUS_OK) == (u != NULL));
    snprintf(why, len, "%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return u;
}

static void find_each_by_name(void **state)
{
    static const char text[] = "# first\nzoe\nalice tenant=a\n\nali\nalicia disabled\n#bob\nZoe";
    char why[512];
    struct auth_users *u = parse(text, why, sizeof why);
    assert_non_null(u);
    assert_int_equal(auth_users_count(u), 5);
    assert_string_equal(auth_users_find(u, SLICE("alice"))->tenant, "a");
    assert_string_equal(auth_users_find(u, SLICE("ali"))->name, "ali");
    assert_true(auth_users_find(u, SLICE("alicia"))->is_disabled);
    assert_string_equal(auth_users_find(u, SLICE("Zoe"))->name, "Zoe");
    assert_string_equal(auth_users_find(u, SLICE("zoe"))->name, "zoe");
    assert_null(auth_users_find(u, SLICE("ALICE"))); /* octet by octet */
    assert_null(auth_users_find(u, SLICE("al")));
    assert_null(auth_users_find(u, SLICE("bob")));
    assert_null(auth_users_find(u, SLICE_NONE));
    assert_null(auth_users_find(u, slice_of("ali\0ce", 6)));
    assert_string_equal(auth_users_at(u, 0)->name, "Zoe");
    assert_string_equal(auth_users_at(u, 4)->name, "zoe");
    auth_users_free(u);
    u = parse("", why, sizeof why);
    assert_int_equal(auth_users_count(u), 0);
    assert_null(auth_users_find(u, SLICE("alice")));
    auth_users_free(u);
}

static void errors_name_the_line(void **state)
{
    static const char *const cases[][2] = {
        { "alice\nbob\n\nalice disabled\n", "users:4: user \"alice\" stands on line 1 already" },
        { "#\n\nbob tenent=acme\n", "users:3: user \"bob\": \"tenent=acme\": no such word" },
        { "bob\r\n", "users:1: user \"bob\r\": \"bob\r\": is not a name" },
        { "alice \n", "users:1: user \"alice\": \"\": no such word" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char why[512];
        assert_null(parse(cases[i][0], why, sizeof why));
        if (strncmp(why, cases[i][1], strlen(cases[i][1])) != 0)
            fail_msg("%s", why);
    }
}

/* Pages of a hash that grows may hold one twice. */
static void collected_lines_may_come_twice(void **state)
{
    struct auth_users *u;
    struct buf error;
    buf_init(&error, 512);
    assert_int_equal(auth_users_collect("users",
                                        SLICE("bob\nalice\nbob disabled\nalice\nalice disabled\n"),
                                        &u, &error),
                     STATUS_OK);
    assert_int_equal(auth_users_count(u), 2);
    assert_true(auth_users_at(u, 0)->is_disabled && auth_users_at(u, 1)->is_disabled);
    auth_users_free(u);
    assert_int_equal(auth_users_collect("users", SLICE("bob\nbob x\n"), &u, &error), STATUS_BAD);
    buf_done(&error);
}

static void many_users(void **state)
{
    enum { USERS = 20000 };
    struct buf text;
    char name[32], why[512];
    buf_init(&text, USERS * 32);
    for (int i = 0; i < USERS; i++)
        assert_int_equal(buf_printf(&text, "user%d@example.org\n", i * 7919 % USERS), STATUS_OK);
    assert_int_equal(buf_append(&text, slice_of("", 1)), STATUS_OK);
    struct auth_users *u = parse(text.ptr, why, sizeof why);
    assert_non_null(u);
    for (int i = 0; i < USERS; i++) {
        snprintf(name, sizeof name, "user%d@example.org", i);
        assert_string_equal(auth_users_find(u, slice_str(name))->name, name);
    }
    auth_users_free(u);
    buf_done(&text);
}

/* --- reading again --------------------------------------------------------------------------- */

struct fixture {
    char dir[64], path[96];
    struct config cfg;
    struct auth_shared *shared;
    struct buf error;
};

static void put(struct fixture *f, const char *text)
{
    char temp[128];
    snprintf(temp, sizeof temp, "%s.new", f->path);
    FILE *file = fopen(temp, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
    assert_int_equal(rename(temp, f->path), 0);
}

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    make_temp_dir(f->dir);
    snprintf(f->path, sizeof f->path, "%s/users", f->dir);
    buf_init(&f->error, 1024);
    f->cfg.auth.users_file = f->path;
    f->cfg.auth.threads = 1;
    f->cfg.auth.waiting_max = 1;
    put(f, "alice\n");
    assert_int_equal(auth_shared_new(&f->cfg, &f->shared, &f->error), STATUS_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    auth_shared_free(f->shared);
    buf_done(&f->error);
    remove_tree(f->dir);
    free(f);
    return 0;
}

static bool knows(struct fixture *f, const char *name)
{
    struct account *a = auth_shared_find(f->shared, slice_str(name));
    account_unref(a);
    return a != NULL;
}

static void a_changed_file_is_read_again(void **state)
{
    struct fixture *f = *state;
    assert_false(auth_shared_has_changed(f->shared));
    put(f, "bob\n");
    assert_true(auth_shared_has_changed(f->shared));
    assert_true(knows(f, "alice") && !knows(f, "bob"));
    assert_int_equal(auth_shared_reload(f->shared, &f->error), STATUS_OK);
    assert_true(!knows(f, "alice") && knows(f, "bob"));
    assert_false(auth_shared_has_changed(f->shared));
}

/* What was loaded stays; the same bad file is told once, a better one is taken. */
static void a_bad_file_changes_nothing(void **state)
{
    struct fixture *f = *state;
    put(f, "bob\nalice colour=red\n");
    assert_int_equal(auth_shared_reload(f->shared, &f->error), STATUS_BAD);
    assert_non_null(memmem(f->error.ptr, f->error.len, "/users:2: ", 10));
    assert_true(knows(f, "alice") && !knows(f, "bob"));
    assert_false(auth_shared_has_changed(f->shared));
    assert_int_equal(remove(f->path), 0);
    assert_true(auth_shared_has_changed(f->shared));
    buf_clear(&f->error);
    assert_int_equal(auth_shared_reload(f->shared, &f->error), STATUS_SYSTEM);
    assert_non_null(memmem(f->error.ptr, f->error.len, f->path, strlen(f->path)));
    assert_true(knows(f, "alice"));
    put(f, "bob\n");
    assert_true(auth_shared_has_changed(f->shared));
    assert_int_equal(auth_shared_reload(f->shared, &f->error), STATUS_OK);
    assert_true(knows(f, "bob"));
}

static void no_start_with_a_bad_file(void **state)
{
    struct fixture *f = *state;
    struct auth_shared *other;
    put(f, "alice\nalice\n");
    assert_int_equal(auth_shared_new(&f->cfg, &other, &f->error), STATUS_BAD);
    assert_int_equal(remove(f->path), 0);
    assert_int_equal(auth_shared_new(&f->cfg, &other, &f->error), STATUS_SYSTEM);
    f->cfg.auth.users_file = NULL; /* users in Redis: there is nothing to read */
    assert_int_equal(auth_shared_new(&f->cfg, &other, &f->error), STATUS_OK);
    assert_false(auth_shared_has_users(other));
    assert_false(auth_shared_has_changed(other));
    auth_shared_free(other);
    f->cfg.auth.users_file = f->path;
}

static _Atomic bool is_over;

static void *look(void *arg)
{
    struct fixture *f = arg;
    uintptr_t found = 0;
    while (!atomic_load(&is_over)) {
        struct account *a = auth_shared_find(f->shared, SLICE("alice"));
        if (a && strcmp(a->name, "alice") == 0)
            found++;
        account_unref(a);
    }
    return (void *)found;
}

/* With -Dsanitize=thread this is where a race would show. */
static void workers_look_while_it_is_read_again(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[3];
    void *found;
    atomic_store(&is_over, false);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, f), 0);
    for (int i = 0; i < 200; i++) {
        put(f, i % 2 ? "alice\n" : "alice tenant=t\nbob\n");
        assert_int_equal(auth_shared_reload(f->shared, &f->error), STATUS_OK);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], &found);
        assert_non_null(found);
    }
}

/* --- passwords ------------------------------------------------------------------------------- */

static void a_password_is_stored_both_ways(void **state)
{
    struct account a = { .name = NULL }, b = { .name = NULL };
    assert_int_equal(auth_hash_set(&a, SLICE("right"), true, true), STATUS_OK);
    assert_int_equal(auth_hash_set(&b, SLICE("right"), true, true), STATUS_OK);
    assert_non_null(strstr(a.argon2, "$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_true(a.has_scram && a.scram.iterations >= 4096 && a.scram.salt_len == 16);
    assert_string_not_equal(a.argon2, b.argon2); /* salted */
    assert_memory_not_equal(a.scram.stored_key, b.scram.stored_key, sizeof a.scram.stored_key);
    assert_true(auth_hash_is_right(&a, SLICE("right")));
    assert_false(auth_hash_is_right(&a, SLICE("Right")));
    assert_false(auth_hash_is_right(&a, SLICE_NONE));
    assert_int_equal(auth_hash_set(&a, SLICE("other"), false, true), STATUS_OK);
    assert_null(a.argon2);
    assert_true(auth_hash_is_right(&a, SLICE("other")));
    assert_false(auth_hash_is_right(&a, SLICE("right")));
    assert_int_equal(auth_hash_set(&a, SLICE("third"), true, false), STATUS_OK);
    assert_false(a.has_scram);
    assert_true(auth_hash_is_right(&a, SLICE("third")));
    free(a.argon2);
    free(b.argon2);
}

static void nobody_has_a_right_password(void **state)
{
    struct account token_only = { .name = NULL };
    char longest[AUTH_PASSWORD_MAX + 2];
    memset(longest, 'x', sizeof longest);
    assert_false(auth_hash_is_right(NULL, SLICE("right")));
    assert_false(auth_hash_is_right(NULL, SLICE_NONE));
    assert_false(auth_hash_is_right(&token_only, SLICE("right")));
    assert_false(auth_hash_is_right(NULL, slice_of(longest, sizeof longest)));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_each_by_name),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(collected_lines_may_come_twice),
        cmocka_unit_test(many_users),
        CASE(a_changed_file_is_read_again),
        CASE(a_bad_file_changes_nothing),
        CASE(no_start_with_a_bad_file),
        CASE(workers_look_while_it_is_read_again),
        cmocka_unit_test(a_password_is_stored_both_ways),
        cmocka_unit_test(nobody_has_a_right_password),
    };
    return cmocka_run_group_tests_name("auth_users", tests, NULL, NULL);
}
