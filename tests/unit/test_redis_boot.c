/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Redis we start and the Redis we are given: URLs, the embedded server's life (start, SIGKILL,
 * restart, lock, end with its parent), and what an external one must keep.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "io/redis_boot.h"
#include "queue/schema.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <time.h>

/* ---- URLs ---- */

struct url_row {
    const char *url;
    enum status want;
    const char *host; /* numeric, or the path */
    int port;
    const char *user, *password;
    int db;
    const char *error; /* a part of it */
};

static const struct url_row urls[] = {
    { "redis://127.0.0.1", STATUS_OK, "127.0.0.1", 6379, NULL, NULL, 0, NULL },
    { "redis://127.0.0.1:6380/3", STATUS_OK, "127.0.0.1", 6380, NULL, NULL, 3, NULL },
    { "REDIS://127.0.0.1/", STATUS_OK, "127.0.0.1", 6379, NULL, NULL, 0, NULL },
    { "redis://:secret@127.0.0.1", STATUS_OK, "127.0.0.1", 6379, NULL, "secret", 0, NULL },
    { "redis://me:s%40c%3aret@127.0.0.1:1", STATUS_OK, "127.0.0.1", 1, "me", "s@c:ret", 0, NULL },
    { "redis://me:a@b/c@127.0.0.1:1", STATUS_OK, "127.0.0.1", 1, "me", "a@b/c", 0, NULL },
    { "redis://[::1]:7000/1", STATUS_OK, "::1", 7000, NULL, NULL, 1, NULL },
    { "redis://[::1]", STATUS_OK, "::1", 6379, NULL, NULL, 0, NULL },
    { "unix:///run/redis.sock", STATUS_OK, "/run/redis.sock", 0, NULL, NULL, 0, NULL },
    { "", STATUS_BAD, NULL, 0, NULL, NULL, 0, "redis:// or unix://" },
    { "http://127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "redis:// or unix://" },
    { "rediss://127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "TLS" },
    { "unix://redis.sock", STATUS_BAD, NULL, 0, NULL, NULL, 0, "absolute" },
    { "redis://", STATUS_BAD, NULL, 0, NULL, NULL, 0, "host" },
    { "redis://me@127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "without a password" },
    { "redis://me:%zz@127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "%XX" },
    { "redis://me:%00@127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "%XX" },
    { "redis://me:x%4@127.0.0.1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "%XX" },
    { "redis://127.0.0.1:0", STATUS_BAD, NULL, 0, NULL, NULL, 0, "port" },
    { "redis://127.0.0.1:65536", STATUS_BAD, NULL, 0, NULL, NULL, 0, "port" },
    { "redis://127.0.0.1:", STATUS_BAD, NULL, 0, NULL, NULL, 0, "port" },
    { "redis://127.0.0.1:+1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "port" },
    { "redis://127.0.0.1/x", STATUS_BAD, NULL, 0, NULL, NULL, 0, "database" },
    { "redis://[::1", STATUS_BAD, NULL, 0, NULL, NULL, 0, "]" },
    { "redis://[::1]x", STATUS_BAD, NULL, 0, NULL, NULL, 0, "port" },
};

static void check_str(const char *got, const char *want)
{
    if (want)
        assert_string_equal(got, want);
    else
        assert_null(got);
}

static void check_address(const struct url_row *row, const struct redis_address *a)
{
    char host[64] = "";
    int port = 0;
    if (a->is_unix) {
        assert_string_equal(a->path, row->host);
    } else if (a->addr.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->addr;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        port = ntohs(v4->sin_port);
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->addr;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        port = ntohs(v6->sin6_port);
    }
    if (!a->is_unix)
        assert_string_equal(host, row->host);
    assert_int_equal(port, row->port);
    assert_int_equal(a->db, row->db);
    check_str(a->user, row->user);
    check_str(a->password, row->password);
}

static void check_error(struct buf *error, const char *part)
{
    char text[4096];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(buf_slice(error)));
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static void urls_are_parsed(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct redis_address a = { 0 };
        struct buf error;
        buf_init(&error, 1024);
        enum status st = redis_address_parse(urls[i].url, &a, &error);
        if (st != urls[i].want)
            fail_msg("%s: %s", urls[i].url, status_text(st));
        if (st == STATUS_OK)
            check_address(&urls[i], &a);
        else
            check_error(&error, urls[i].error);
        redis_address_done(&a);
        buf_done(&error);
    }
}

static void long_socket_paths_are_refused(void **state)
{
    char url[200] = "unix:///";
    struct redis_address a;
    struct buf error;
    buf_init(&error, 1024);
    memset(url + 8, 'x', 150);
    assert_int_equal(redis_address_parse(url, &a, &error), STATUS_BAD);
    check_error(&error, "shorter directory");
    buf_done(&error);
}

/* ---- the embedded server ---- */

struct fixture {
    struct config cfg;
    char dir[64];
    struct buf error;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    make_temp_dir(f->dir);
    f->cfg.data_dir = f->dir;
    f->cfg.redis.mode = REDIS_EMBEDDED;
    f->cfg.redis.server = (char *)(uintptr_t) "redis-server";
    f->cfg.queue.shards = 16;
    buf_init(&f->error, 8192);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    remove_tree(f->dir);
    buf_done(&f->error);
    free(f);
    return 0;
}

static const struct redis_child_waits in_a_hurry = { 300, 20000 };

static struct redis_child *start(struct fixture *f)
{
    struct redis_child *c = NULL;
    struct redis_child_waits patient = { 10000, 20000 };
    if (redis_child_start_within(&f->cfg, &patient, &c, &f->error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&f->error)));
    return c;
}

static void socket_of(const struct fixture *f, char out[128])
{
    snprintf(out, 128, "%s/redis/r.sock", f->dir);
}

static void say(const struct fixture *f, char *out, size_t len, const char *command)
{
    char path[128];
    socket_of(f, path);
    private_redis_say(path, out, len, command);
}

static void child_keeps_the_promises(void **state)
{
    static const struct {
        const char *get, *want;
    } rows[] = {
        { "CONFIG GET appendfsync", "always" },
        { "CONFIG GET appendonly", "yes" },
        { "CONFIG GET maxmemory-policy", "noeviction" },
        { "CONFIG GET maxmemory", "104857600" },
        { "CONFIG GET save", "" },
        { "CONFIG GET port", "0" },
        { "CONFIG GET no-appendfsync-on-rewrite", "no" },
    };
    struct fixture *f = *state;
    char got[64];
    f->cfg.redis.maxmemory = 100 * 1024 * 1024;
    struct redis_child *c = start(f);
    assert_true(redis_child_pid(c) > 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        say(f, got, sizeof got, rows[i].get);
        assert_string_equal(got, rows[i].want);
    }
    redis_child_stop(c);
}

static void child_is_booted_and_adopts_shards(void **state)
{
    struct fixture *f = *state;
    struct redis_address a = { 0 };
    struct redis_child *c = start(f);
    uint16_t shards = 0;
    assert_int_equal(redis_address_of(&f->cfg, &a, &f->error), STATUS_OK);
    for (int round = 0; round < 2; round++) {
        if (redis_boot(&f->cfg, &a, &shards, &f->error) != STATUS_OK)
            fail_msg("%.*s", SLICE_ARG(buf_slice(&f->error)));
        assert_int_equal(shards, 16);
        f->cfg.queue.shards = 4; /* the number is fixed by the first boot */
    }
    redis_child_stop(c);
    redis_address_done(&a);
}

static void killed_child_is_started_again(void **state)
{
    struct fixture *f = *state;
    char note[256], got[64];
    struct redis_child *c = start(f);
    assert_false(redis_child_reap(c, note, sizeof note));
    assert_string_equal(note, "");
    say(f, got, sizeof got, "SET kept yes");
    int before = redis_child_pid(c);
    kill(before, SIGKILL);
    bool again = false;
    for (int i = 0; i < 500 && !again; i++) {
        again = redis_child_reap(c, note, sizeof note);
        usleep(10000);
    }
    assert_true(again);
    assert_non_null(strstr(note, "signal 9"));
    assert_int_not_equal(redis_child_pid(c), before);
    struct redis_address a;
    assert_int_equal(redis_address_of(&f->cfg, &a, &f->error), STATUS_OK);
    redisContext *redis = NULL;
    for (int i = 0; i < 500 && !redis; i++, usleep(20000))
        redis = redis_connect_blocking(&a, &f->error);
    assert_non_null(redis);
    redisFree(redis);
    say(f, got, sizeof got, "GET kept");
    assert_string_equal(got, "yes");
    redis_child_stop(c);
}

/* Three quick ends: the second restart waits, and says so. */
static void dying_child_is_backed_off(void **state)
{
    struct fixture *f = *state;
    char note[256];
    struct redis_child *c = start(f);
    for (int round = 0; round < 2; round++) {
        kill(redis_child_pid(c), SIGKILL);
        note[0] = '\0';
        bool again = false;
        for (int i = 0; i < 500 && note[0] == '\0'; i++) {
            usleep(10000);
            again = redis_child_reap(c, note, sizeof note);
        }
        assert_int_equal(again, round == 0);
    }
    assert_non_null(strstr(note, "after a wait"));
    assert_int_equal(redis_child_pid(c), 0);
    assert_false(redis_child_reap(c, note, sizeof note));
    usleep(1100 * 1000);
    assert_true(redis_child_reap(c, note, sizeof note));
    assert_true(redis_child_pid(c) > 0);
    redis_child_stop(c);
}

static void second_gateway_is_told_who_holds_the_lock(void **state)
{
    struct fixture *f = *state;
    char pid[32];
    struct redis_child *c = start(f), *second = NULL;
    assert_int_equal(redis_child_start_within(&f->cfg, &in_a_hurry, &second, &f->error),
                     STATUS_REFUSED);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    check_error(&f->error, pid);
    check_error(&f->error, "external");
    redis_child_stop(c);
    c = start(f); /* and with the first one gone the place is free */
    redis_child_stop(c);
}

/* True while the process has not ended. */
static bool lives(pid_t pid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    bool is_there = fgets(line, sizeof line, file) != NULL && !strstr(line, ") Z");
    fclose(file);
    return is_there;
}

/* A gateway that is killed takes its server along, and the next one waits for its end. */
static void child_ends_with_its_parent(void **state)
{
    struct fixture *f = *state;
    int report[2];
    assert_int_equal(pipe(report), 0);
    pid_t gateway = fork();
    if (gateway == 0) {
        struct redis_child *c = NULL;
        int pid = 0;
        if (redis_child_start_within(&f->cfg, &in_a_hurry, &c, &f->error) == STATUS_OK)
            pid = redis_child_pid(c);
        (void)!write(report[1], &pid, sizeof pid);
        pause();
        _exit(0);
    }
    int server = 0;
    assert_int_equal(read(report[0], &server, sizeof server), sizeof server);
    assert_true(server > 0);
    kill(gateway, SIGKILL);
    struct redis_child *c = start(f);
    assert_false(lives(server));
    redis_child_stop(c);
    assert_int_equal(waitpid(gateway, NULL, 0), gateway);
    close(report[0]);
    close(report[1]);
}

/* Descriptors of ours, blocked and ignored signals do not reach the server. */
static void child_inherits_only_the_lock(void **state)
{
    struct fixture *f = *state;
    int leak[2];
    char path[320], target[256], mine[256];
    sigset_t term, before;
    assert_int_equal(pipe(leak), 0); /* no O_CLOEXEC, as a library might */
    snprintf(path, sizeof path, "/proc/self/fd/%d", leak[0]);
    ssize_t len = readlink(path, mine, sizeof mine - 1);
    assert_true(len > 0);
    mine[len] = '\0';
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    struct redis_child *c = start(f);
    sigprocmask(SIG_SETMASK, &before, NULL);
    snprintf(path, sizeof path, "/proc/%d/fd", redis_child_pid(c));
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int locks = 0;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        char link[600];
        snprintf(link, sizeof link, "%s/%s", path, d->d_name);
        len = readlink(link, target, sizeof target - 1);
        if (len <= 0)
            continue;
        target[len] = '\0';
        assert_string_not_equal(target, mine);
        locks += strstr(target, "/redis/lock") != NULL;
    }
    closedir(dir);
    assert_int_equal(locks, 1);
    time_t begun = time(NULL);
    redis_child_stop(c); /* SIGTERM is not blocked there: no ten seconds until SIGKILL */
    assert_true(time(NULL) - begun < 6);
    close(leak[0]);
    close(leak[1]);
}

/* Debian's redis-server is a link to a program that goes by the name it is called with. */
static void server_may_be_named_by_path(void **state)
{
    struct fixture *f = *state;
    char path[256] = "";
    FILE *which = popen("command -v redis-server", "r");
    assert_non_null(which);
    assert_non_null(fgets(path, sizeof path, which));
    assert_int_equal(pclose(which), 0);
    path[strcspn(path, "\n")] = '\0';
    f->cfg.redis.server = path;
    redis_child_stop(start(f));
}

static void missing_server_names_the_package(void **state)
{
    struct fixture *f = *state;
    struct redis_child *c = NULL;
    f->cfg.redis.server = (char *)(uintptr_t) "no-such-redis-server";
    assert_int_equal(redis_child_start(&f->cfg, &c, &f->error), STATUS_MISSING);
    check_error(&f->error, "install the package redis-server");
}

static void server_that_ends_at_once_shows_its_log(void **state)
{
    struct fixture *f = *state;
    struct redis_child *c = NULL;
    f->cfg.redis.server = (char *)(uintptr_t) "/bin/ls"; /* complains about nothing, ends */
    assert_int_equal(redis_child_start_within(&f->cfg, &in_a_hurry, &c, &f->error), STATUS_SYSTEM);
    check_error(&f->error, "ended with status 0");
    check_error(&f->error, "redis.conf"); /* what it printed */
}

/* Overwrites octets in the middle of the append-only file. */
static void spoil_aof(const struct fixture *f)
{
    char path[600], file[400] = "";
    snprintf(path, sizeof path, "%s/redis/appendonlydir", f->dir);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        if (strstr(d->d_name, ".incr.aof"))
            snprintf(file, sizeof file, "%s", d->d_name);
    }
    closedir(dir);
    snprintf(path, sizeof path, "%s/redis/appendonlydir/%s", f->dir, file);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "garbage garbage", 15, 20), 15);
    close(fd);
}

static void corrupted_aof_shows_the_log(void **state)
{
    struct fixture *f = *state;
    char got[64];
    struct redis_child *c = start(f);
    for (int i = 0; i < 10; i++)
        say(f, got, sizeof got, "SET some value-of-some-length");
    redis_child_stop(c);
    spoil_aof(f);
    assert_int_equal(redis_child_start_within(&f->cfg, &in_a_hurry, &c, &f->error), STATUS_SYSTEM);
    check_error(&f->error, "did not start");
    check_error(&f->error, "Bad file format");
}

/* ---- an external server ---- */

#define ALL_GOOD "--appendonly", "yes", "--appendfsync", "always"

struct promise_row {
    const char *name;
    const char *options[8];
    uint32_t accept;
    enum status want;
    const char *error;
};

static const struct promise_row promises[] = {
    { "all kept", { ALL_GOOD }, 0, STATUS_OK, NULL },
    { "everysec", { "--appendonly", "yes" }, 0, STATUS_REFUSED, "accept_risk = [\"appendfsync\"]" },
    { "everysec, named", { "--appendonly", "yes" }, REDIS_RISK_FSYNC, STATUS_OK, NULL },
    { "everysec, another risk named",
      { "--appendonly", "yes" },
      REDIS_RISK_NO_AOF | REDIS_RISK_EVICTION,
      STATUS_REFUSED,
      "everysec" },
    { "no fsync while rewriting",
      { ALL_GOOD, "--no-appendfsync-on-rewrite", "yes" },
      0,
      STATUS_REFUSED,
      "no-appendfsync-on-rewrite" },
    { "no AOF", { "--appendonly", "no" }, 0, STATUS_REFUSED, "accept_risk = [\"no-aof\"]" },
    { "no AOF, named", { "--appendonly", "no" }, REDIS_RISK_NO_AOF, STATUS_OK, NULL },
    { "eviction",
      { ALL_GOOD, "--maxmemory-policy", "allkeys-lru" },
      0,
      STATUS_REFUSED,
      "accept_risk = [\"eviction\"]" },
    { "eviction, named",
      { ALL_GOOD, "--maxmemory-policy", "allkeys-lru" },
      REDIS_RISK_EVICTION,
      STATUS_OK,
      NULL },
    { "replica",
      { ALL_GOOD, "--replicaof", "127.0.0.1 1" },
      0,
      STATUS_REFUSED,
      "replica of 127.0.0.1 port 1" },
    { "cluster", { ALL_GOOD, "--cluster-enabled", "yes" }, 0, STATUS_REFUSED, "cluster mode" },
};

static void check_promise(const struct promise_row *row)
{
    struct private_redis p;
    struct config cfg = { .redis.mode = REDIS_EXTERNAL, .queue.shards = 8 };
    struct redis_address a = { 0 };
    struct buf error;
    char url[128];
    uint16_t shards = 0;
    buf_init(&error, 4096);
    private_redis_start(&p, row->options);
    snprintf(url, sizeof url, "unix://%s", p.socket);
    cfg.redis.url = url;
    cfg.redis.accept_risk = row->accept;
    assert_int_equal(redis_address_of(&cfg, &a, &error), STATUS_OK);
    enum status st = redis_boot(&cfg, &a, &shards, &error);
    if (st != row->want)
        fail_msg("%s: %s: %.*s", row->name, status_text(st), SLICE_ARG(buf_slice(&error)));
    if (st == STATUS_OK)
        assert_int_equal(shards, 8);
    else
        check_error(&error, row->error);
    private_redis_stop(&p);
    redis_address_done(&a);
    buf_done(&error);
}

static void external_server_must_keep_the_promises(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(promises); i++)
        check_promise(&promises[i]);
}

struct external {
    struct private_redis p;
    struct config cfg;
    struct redis_address addr;
    struct buf error;
    char reply[256];
    uint16_t shards;
};

static int set_up_external(void **state)
{
    static const char *const options[] = { ALL_GOOD, NULL };
    struct external *x = calloc(1, sizeof *x);
    private_redis_start(&x->p, options);
    x->cfg.redis.mode = REDIS_EXTERNAL;
    x->cfg.queue.shards = 8;
    x->addr.is_unix = true;
    snprintf(x->addr.path, sizeof x->addr.path, "%s", x->p.socket);
    buf_init(&x->error, 4096);
    *state = x;
    return 0;
}

static int tear_down_external(void **state)
{
    struct external *x = *state;
    private_redis_stop(&x->p);
    redis_address_done(&x->addr);
    buf_done(&x->error);
    free(x);
    return 0;
}

static enum status boot(struct external *x)
{
    return redis_boot(&x->cfg, &x->addr, &x->shards, &x->error);
}

#define TELL(x, ...) private_redis_say((x)->p.socket, (x)->reply, sizeof(x)->reply, __VA_ARGS__)

/* Where CONFIG is denied nobody can see appendfsync: it counts as not `always`. */
static void denied_config_counts_as_unknown(void **state)
{
    struct external *x = *state;
    TELL(x, "ACL SETUSER me on >pass ~* +@all -config");
    assert_string_equal(x->reply, "OK");
    x->addr.user = strdup("me");
    x->addr.password = strdup("pass");
    assert_int_equal(boot(x), STATUS_REFUSED);
    check_error(&x->error, "appendfsync = unknown");
    x->cfg.redis.accept_risk = REDIS_RISK_FSYNC;
    assert_int_equal(boot(x), STATUS_OK);
}

static void wrong_password_is_told(void **state)
{
    struct external *x = *state;
    TELL(x, "ACL SETUSER default >right");
    x->addr.password = strdup("wrong");
    assert_int_equal(boot(x), STATUS_SYSTEM);
    check_error(&x->error, "WRONGPASS");
    assert_null(memmem(x->error.ptr, x->error.len, "wrong ", 6));
}

static void another_schema_is_refused(void **state)
{
    struct external *x = *state;
    TELL(x, "HSET " QUEUE_CFG_KEY " version 99 shards 8");
    assert_int_equal(boot(x), STATUS_REFUSED);
    check_error(&x->error, "schema version 99");
    TELL(x, "FUNCTION LIST"); /* and its functions were left alone */
    assert_string_equal(x->reply, "");
}

static void absurd_shard_count_is_refused(void **state)
{
    struct external *x = *state;
    TELL(x, "HSET " QUEUE_CFG_KEY " shards 0");
    assert_int_equal(boot(x), STATUS_REFUSED);
    check_error(&x->error, "0 shards");
}

/* A gateway must be able to come back to a Redis without memory, or it could never drain. */
static void full_server_can_be_booted_again(void **state)
{
    struct external *x = *state;
    assert_int_equal(boot(x), STATUS_OK);
    TELL(x, "CONFIG SET maxmemory 1");
    TELL(x, "SET more data");
    assert_non_null(strstr(x->reply, "OOM"));
    x->shards = 0;
    if (boot(x) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&x->error)));
    assert_int_equal(x->shards, 8);
}

static void absent_server_is_told(void **state)
{
    struct redis_address a = { .is_unix = true, .path = "/nonexistent/r.sock" };
    struct config cfg = { .redis.mode = REDIS_EXTERNAL, .queue.shards = 8 };
    struct buf error;
    uint16_t shards;
    buf_init(&error, 1024);
    assert_int_equal(redis_boot(&cfg, &a, &shards, &error), STATUS_SYSTEM);
    check_error(&error, "/nonexistent/r.sock: No such file");
    buf_done(&error);
}

#define EMBEDDED(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define EXTERNAL(name) cmocka_unit_test_setup_teardown(name, set_up_external, tear_down_external)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_parsed),
        cmocka_unit_test(long_socket_paths_are_refused),
        EMBEDDED(child_keeps_the_promises),
        EMBEDDED(child_is_booted_and_adopts_shards),
        EMBEDDED(killed_child_is_started_again),
        EMBEDDED(dying_child_is_backed_off),
        EMBEDDED(second_gateway_is_told_who_holds_the_lock),
        EMBEDDED(child_ends_with_its_parent),
        EMBEDDED(child_inherits_only_the_lock),
        EMBEDDED(server_may_be_named_by_path),
        EMBEDDED(missing_server_names_the_package),
        EMBEDDED(server_that_ends_at_once_shows_its_log),
        EMBEDDED(corrupted_aof_shows_the_log),
        cmocka_unit_test(external_server_must_keep_the_promises),
        EXTERNAL(denied_config_counts_as_unknown),
        EXTERNAL(wrong_password_is_told),
        EXTERNAL(another_schema_is_refused),
        EXTERNAL(absurd_shard_count_is_refused),
        EXTERNAL(full_server_can_be_booted_again),
        cmocka_unit_test(absent_server_is_told),
    };
    return cmocka_run_group_tests_name("redis_boot", tests, NULL, NULL);
}
