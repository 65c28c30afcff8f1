/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kilat queue` against a private Redis that holds one delivery in each state.
 */
#include "tests/lib/private_redis.h"

#include "core/base/must.h"
#include "core/smtp/queue_id.h"
#include "io/cli.h"
#include "io/redis_boot.h"
#include "queue/schema.h"

#define OUTPUT_MAX 65536

enum { READY, SCHEDULED, LEASED, HELD, DEAD, IDS };

struct fixture {
    struct private_redis p;
    struct config cfg;
    char url[128];
    char ids[IDS][QUEUE_ID_LEN + 1];
    char out[OUTPUT_MAX], err[OUTPUT_MAX];
};

static const char item_format[] =
    "n\t%s\t2\t1700000000000\t1700432000000\t\t0\t4321\t0-1"; /* as in queue/schema.h */

/* One command in words; words may hold anything. */
static void tell(struct fixture *f, int argc, const char **argv)
{
    redisContext *c = redisConnectUnix(f->p.socket);
    redisReply *r = redisCommandArgv(c, argc, argv, NULL);
    if (!r || r->type == REDIS_REPLY_ERROR)
        fail_msg("%s %s: %s", argv[0], argv[1], r ? r->str : c->errstr);
    freeReplyObject(r);
    redisFree(c);
}
#define TELL(f, ...)                                                                               \
    tell(f, (int)ARRAY_LEN(((const char *[]){ __VA_ARGS__ })), (const char *[]){ __VA_ARGS__ })

static void put_record(struct fixture *f, const char *shard, const char *id)
{
    struct chain_budget budget = { .max = SIZE_MAX };
    struct message *m = message_new(&budget);
    struct buf record;
    char key[64];
    buf_init(&record, MESSAGE_ENVELOPE_MAX);
    memcpy(m->id, id, sizeof m->id);
    m->lane = 'n';
    m->sender = SLICE("from@example.net");
    m->helo = SLICE("client\033[31m.example");
    m->client = SLICE("192.0.2.7");
    m->tenant = SLICE("acme");
    m->user = SLICE("ann@acme.test");
    m->priority = 6;
    m->hold_until_ms = 4102444800000;
    m->accepted_ms = 1700000000000;
    m->size = 4321;
    message_add_rcpt(m, SLICE("first@example.org"), SLICE("example.org"));
    message_add_rcpt(m, SLICE("second@example.org"), SLICE("example.org"));
    assert_int_equal(message_encode_envelope(m, false, &record), STATUS_OK);
    for (size_t i = 0; i < m->size; i++) /* the content follows the envelope */
        assert_int_equal(buf_append(&record, SLICE("x")), STATUS_OK);
    snprintf(key, sizeof key, "{%s}b:%s", shard, id);
    redisContext *c = redisConnectUnix(f->p.socket);
    redisReply *r = redisCommand(c, "SET %s %b", key, record.ptr, (size_t)record.len);
    assert_int_equal(r->type, REDIS_REPLY_STATUS);
    freeReplyObject(r);
    redisFree(c);
    buf_done(&record);
    message_unref(m);
}

static void enqueue(struct fixture *f, int which, const char *shard, const char *dest,
                    const char *mode)
{
    char key[16], item[512];
    snprintf(key, sizeof key, "{%s}n", shard);
    snprintf(item, sizeof item, item_format, dest);
    TELL(f, "FCALL", "kilat_enq", "1", key, "workerworker0001", "60000", "1", f->ids[which], item,
         mode, "0", "0");
    put_record(f, shard, f->ids[which]);
}

static void fill_queue(struct fixture *f)
{
    uint64_t seed = 7;
    struct entropy entropy;
    char item[512];
    entropy_init_seeded(&entropy, &seed);
    for (int i = 0; i < IDS; i++)
        queue_id_make(f->ids[i], 1700000000000 + i, &entropy);
    enqueue(f, READY, "q0", "example.org", "R");
    enqueue(f, SCHEDULED, "q1", "later.example", "L");
    enqueue(f, LEASED, "q1", "busy.example", "L");
    enqueue(f, HELD, "q0", "!kept.example", "H");
    enqueue(f, DEAD, "q0", "dead.example", "L");
    snprintf(item, sizeof item, item_format, "later.example");
    TELL(f, "FCALL", "kilat_retry", "1", "{q1}n", "workerworker0001", f->ids[SCHEDULED], "600000",
         item);
    TELL(f, "FCALL", "kilat_dead", "1", "{q0}n", "workerworker0001", f->ids[DEAD],
         "550 no \033[2Jsuch user");
}

static int set_up(void **state)
{
    static const char *const options[] = { "--appendonly", "yes", "--appendfsync", "always", NULL };
    struct fixture *f = calloc(1, sizeof *f);
    struct redis_address a = { .is_unix = true };
    struct buf error;
    uint16_t shards;
    buf_init(&error, 4096);
    private_redis_start(&f->p, options);
    snprintf(f->url, sizeof f->url, "unix://%s", f->p.socket);
    snprintf(a.path, sizeof a.path, "%s", f->p.socket);
    f->cfg.redis.mode = REDIS_EXTERNAL;
    f->cfg.redis.url = f->url;
    f->cfg.queue.shards = 2;
    if (redis_boot(&f->cfg, &a, &shards, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    fill_queue(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    private_redis_stop(&f->p);
    free(f);
    return 0;
}

static void read_back(FILE *file, char out[OUTPUT_MAX])
{
    rewind(file);
    out[fread(out, 1, OUTPUT_MAX - 1, file)] = '\0';
    fclose(file);
}

/* Runs a command line (words with one space between) and keeps what it printed. */
static int run(struct fixture *f, const char *line)
{
    char words[512], *argv[16], *save = NULL;
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    FILE *out = tmpfile(), *err = tmpfile();
    assert_true(out && err);
    fflush(stdout);
    int old_out = dup(1), old_err = dup(2);
    dup2(fileno(out), 1);
    dup2(fileno(err), 2);
    int rc = cli_queue(&f->cfg, argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(old_out, 1);
    dup2(old_err, 2);
    close(old_out);
    close(old_err);
    read_back(out, f->out);
    read_back(err, f->err);
    return rc;
}

static int run_id(struct fixture *f, const char *command, int which)
{
    char line[64];
    snprintf(line, sizeof line, "%s %s", command, f->ids[which]);
    return run(f, line);
}

static void check_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void check_has_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("\"%s\" is in:\n%s", part, text);
}

/* The state that `list` shows for a delivery, "" when it is not there. */
static void state_of(struct fixture *f, int which, char out[16])
{
    out[0] = '\0';
    assert_int_equal(run(f, "list"), CLI_OK);
    const char *row = strstr(f->out, f->ids[which]);
    if (row)
        assert_int_equal(sscanf(row, "%*s %15s", out), 1);
}

static void check_state(struct fixture *f, int which, const char *want)
{
    char got[16];
    state_of(f, which, got);
    assert_string_equal(got, want);
}

static void list_shows_every_state(void **state)
{
    struct fixture *f = *state;
    static const char *const want[IDS] = { "ready", "scheduled", "leased", "held", "dead" };
    for (int i = 0; i < IDS; i++)
        check_state(f, i, want[i]);
    check_has(f->out, "later.example");
    check_has(f->out, "2023-11-14T22:13:20.000Z");
    check_has(f->out, "4321");
    check_has(f->out, "worker workerworker0001");
    check_has(f->out, "due 20");
    check_has(f->out, "550 no ");
    check_has_not(f->out, "\033"); /* P-121 */
    assert_string_equal(f->err, "");
}

/* Mail that its sender holds back, of a tenant's user: until when, whose, how urgent. */
static void held_back_mail_is_told_apart(void **state)
{
    struct fixture *f = *state;
    const char *id = f->ids[SCHEDULED];
    TELL(f, "FCALL", "kilat_drop", "1", "{q1}n", id);
    TELL(f, "FCALL", "kilat_enq", "1", "{q1}n", "workerworker0001", "60000", "1", id,
         "u\tslow.example\t0\t1700000000000\t1700432000000\tacme\t0\t4321\t0", "S4102444800000",
         "0", "0");
    put_record(f, "q1", id);
    assert_int_equal(run(f, "list scheduled"), CLI_OK);
    check_has(f->out, "held back until 2100-01-01T00:00:00.000Z");
    check_has(f->out, " urgent ");
    check_has(f->out, " acme ");
    assert_int_equal(run_id(f, "show", SCHEDULED), CLI_OK);
    check_has(f->out, "tenant     acme\n");
    check_has(f->out, "user       ann@acme.test\n");
    check_has(f->out, "priority   6\n");
    check_has(f->out, "hold until 2100-01-01T00:00:00.000Z\n");
    check_has(f->out, "lane       urgent\n");
    assert_int_equal(run(f, "retry all"), CLI_OK);
    check_has(f->out, "0 deliveries"); /* it did not fail: it waits */
    assert_int_equal(run_id(f, "retry", SCHEDULED), CLI_OK);
    check_has(f->out, "1 deliveries");
}

static void list_can_be_narrowed(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(run(f, "list held"), CLI_OK);
    check_has(f->out, f->ids[HELD]);
    check_has_not(f->out, f->ids[READY]);
    assert_int_equal(run(f, "list -n 2"), CLI_OK);
    check_has(f->err, "stopped after 2 rows");
    check_has_not(f->out, f->ids[DEAD]);
    assert_int_equal(run(f, "dead"), CLI_OK);
    check_has(f->out, f->ids[DEAD]);
    check_has_not(f->out, f->ids[HELD]);
}

/* More than a page, of one destination. */
static void list_turns_pages(void **state)
{
    struct fixture *f = *state;
    char id[QUEUE_ID_LEN + 1], item[512];
    uint64_t seed = 99;
    struct entropy entropy;
    entropy_init_seeded(&entropy, &seed);
    snprintf(item, sizeof item, item_format, "many.example");
    for (int i = 0; i < 450; i++) {
        queue_id_make(id, 1700000001000 + i, &entropy);
        TELL(f, "FCALL", "kilat_enq", "1", "{q1}n", "workerworker0001", "60000", "1", id, item, "R",
             "0", "0");
    }
    assert_int_equal(run(f, "list ready -n 100000"), CLI_OK);
    int rows = 0;
    for (const char *at = f->out; (at = strstr(at, "many.example")) != NULL; at++)
        rows++;
    assert_int_equal(rows, 450);
}

static void show_tells_the_envelope(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < IDS; i++) {
        assert_int_equal(run_id(f, "show", i), CLI_OK);
        check_has(f->out, "<from@example.net>");
        check_has(f->out, "<first@example.org>");
        check_has(f->out, "<second@example.org>");
        check_has(f->out, "192.0.2.7");
        check_has_not(f->out, "\033");
    }
    check_has(f->out, "550 no ");
    assert_int_equal(run(f, "show 00000000000000000000"), CLI_FAILED);
    check_has(f->err, "does not hold");
}

static void delete_ends_all_but_the_leased(void **state)
{
    struct fixture *f = *state;
    static const int gone[] = { READY, SCHEDULED, HELD, DEAD };
    for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
        assert_int_equal(run_id(f, "delete", gone[i]), CLI_OK);
        check_has(f->out, "deleted 1");
        check_state(f, gone[i], "");
        assert_int_equal(run_id(f, "delete", gone[i]), CLI_FAILED);
    }
    assert_int_equal(run_id(f, "delete", LEASED), CLI_FAILED);
    check_has(f->err, "being delivered");
    check_state(f, LEASED, "leased");
}

static void hold_and_release(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(run(f, "hold Example.ORG"), CLI_OK);
    check_state(f, READY, "held");
    assert_int_equal(run(f, "release example.org"), CLI_OK);
    check_state(f, READY, "ready");
    assert_int_equal(run(f, "release example.org"), CLI_FAILED);
    check_has(f->err, "not on hold");
    assert_int_equal(run(f, "release all"), CLI_OK);
    check_state(f, HELD, "ready");
}

static void retry_makes_due(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(run_id(f, "retry", SCHEDULED), CLI_OK);
    check_has(f->out, "1 deliveries are due now");
    TELL(f, "FCALL", "kilat_tick", "1", "{q1}n", "100");
    check_state(f, SCHEDULED, "ready");
    assert_int_equal(run_id(f, "retry", SCHEDULED), CLI_FAILED);
    assert_int_equal(run(f, "retry all"), CLI_OK);
    check_has(f->out, "0 deliveries");
}

static void revive_brings_back(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(run_id(f, "revive", READY), CLI_FAILED);
    assert_int_equal(run_id(f, "revive", DEAD), CLI_OK);
    check_state(f, DEAD, "ready");
    assert_int_equal(run(f, "revive all"), CLI_OK);
    check_has(f->out, "0 dead letters");
}

static void stats_add_up(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(run(f, "stats"), CLI_OK);
    check_has(f->out, "shards 2\n");
    check_has(f->out, "ready 1\n");
    check_has(f->out, "scheduled 1\n");
    check_has(f->out, "leased 1\n");
    check_has(f->out, "held 1\n");
    check_has(f->out, "dead 1\n");
    check_has(f->out, "total_enqueued 5\n");
}

static void misuse_shows_the_usage(void **state)
{
    static const char *const lines[] = {
        "",
        "nonsense",
        "show",
        "show short",
        "show 00000000000000000000/x",
        "show 00000000000000000000 more",
        "delete all",
        "hold",
        "hold \t",
        "list nonsense",
        "list -n",
        "list -n 0",
        "stats please",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        if (run(f, lines[i]) != CLI_USAGE)
            fail_msg("%s", lines[i]);
        check_has(f->err, "usage: kilat queue");
        check_has(f->err, "release DESTINATION|all");
    }
}

static void absent_redis_is_told(void **state)
{
    struct fixture *f = *state;
    struct config embedded = { .redis.mode = REDIS_EMBEDDED, .data_dir = f->p.dir };
    struct config before = f->cfg;
    f->cfg = embedded;
    assert_int_equal(run(f, "stats"), CLI_FAILED);
    check_has(f->err, "cannot connect to Redis");
    check_has(f->err, "while the gateway does");
    f->cfg = before;
    TELL(f, "DEL", QUEUE_CFG_KEY);
    assert_int_equal(run(f, "stats"), CLI_FAILED);
    check_has(f->err, "no queue in this Redis");
}

#define WITH_QUEUE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_QUEUE(list_shows_every_state),  WITH_QUEUE(held_back_mail_is_told_apart),
        WITH_QUEUE(list_can_be_narrowed),    WITH_QUEUE(list_turns_pages),
        WITH_QUEUE(show_tells_the_envelope), WITH_QUEUE(delete_ends_all_but_the_leased),
        WITH_QUEUE(hold_and_release),        WITH_QUEUE(retry_makes_due),
        WITH_QUEUE(revive_brings_back),      WITH_QUEUE(stats_add_up),
        WITH_QUEUE(misuse_shows_the_usage),  WITH_QUEUE(absent_redis_is_told),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
