/* SPDX-License-Identifier: Apache-2.0 */
/* must.h and list.h: allocation never gives NULL, a broken promise aborts, lists keep their order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/list.h"
#include "core/base/must.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct item {
    int number;
    struct list node;
};

static void memory_is_never_null_and_zalloc_is_cleared(void **state)
{
    char *none = mem_alloc(0);
    assert_non_null(none);
    free(none);
    char *clear = mem_zalloc(100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(clear[i], 0);
    strcpy(clear, "kept");
    clear = mem_realloc(clear, 4000);
    assert_string_equal(clear, "kept");
    char *copy = mem_strdup(clear);
    assert_string_equal(copy, "kept");
    free(clear);
    free(copy);
    assert_null(mem_strdup(NULL));
}

static void a_broken_promise_aborts_and_says_which(void **state)
{
    int pipe_fd[2];
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_fd[1], STDERR_FILENO);
        int two = 2;
        must(two == 3);
        _exit(0);
    }
    close(pipe_fd[1]);
    char text[256] = { 0 };
    assert_true(read(pipe_fd[0], text, sizeof text - 1) > 0);
    close(pipe_fd[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "two == 3"));
    assert_non_null(strstr(text, "test_must.c"));
}

static void a_true_promise_evaluates_once(void **state)
{
    int n = 0;
    must(++n == 1);
    assert_int_equal(n, 1);
}

static void lists_keep_order_and_survive_removal_while_walking(void **state)
{
    struct list head, other;
    struct item items[10];
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 10; i++) {
        items[i].number = i;
        list_push_back(&head, &items[i].node);
    }
    list_for_each_safe (node, &head) {
        if (list_entry(node, struct item, node)->number % 2)
            list_remove(node);
    }
    list_remove(&items[1].node); /* twice is harmless */
    list_push_front(&other, &items[9].node);
    list_append_all(&other, &head);
    assert_true(list_is_empty(&head));
    static const int expect[] = { 9, 0, 2, 4, 6, 8 };
    for (size_t i = 0; i < ARRAY_LEN(expect); i++) {
        struct list *node = list_pop_front(&other);
        assert_non_null(node);
        assert_int_equal(list_entry(node, struct item, node)->number, expect[i]);
    }
    assert_null(list_pop_front(&other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_never_null_and_zalloc_is_cleared),
        cmocka_unit_test(a_broken_promise_aborts_and_says_which),
        cmocka_unit_test(a_true_promise_evaluates_once),
        cmocka_unit_test(lists_keep_order_and_survive_removal_while_walking),
    };
    return cmocka_run_group_tests_name("must", tests, NULL, NULL);
}
