/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages sent again under their idempotency key, as gateways live it, on a real Redis: links that
 * break, gateways that die between EXEC and 250, deadlines that pass. However it goes, a mail whose
 * sender heard 250 is in the queue, once.
 */
#include "tests/lib/queue_gateway.h"

#define GATEWAY_A "aaaaaaaaaaaaaaaa"
#define GATEWAY_B "bbbbbbbbbbbbbbbb"

/* A message under this key, which says what is in it, too. */
static struct mail *send_keyed(struct gateway *g, uint32_t number, uint8_t key)
{
    struct mail *m = mail_make(g, number, 1000, 1 + key % 2, COMMIT_LEASED);
    struct message *msg = m->entry.message;
    msg->has_key = true;
    memset(msg->key, key, sizeof msg->key);
    memset(msg->digest, key ^ 0xff, sizeof msg->digest);
    commit_add(g->committer, &m->entry, &g->now);
    return m;
}

static void expect_first_id(const struct mail *m, const struct mail *first)
{
    assert_int_equal(m->calls, 1);
    assert_int_equal(m->verdict, SMTP_QUEUED);
    assert_string_equal(m->entry.first_id, first->id);
}

/* Sends a batch whose reply is never read; it has run when this returns. */
static void send_and_hear_nothing(struct gateway *g, long deliveries)
{
    uint64_t number;
    while (commit_next(g->committer, &g->commits.link, 64, &g->commits.out, &g->now, &number)) {
        wire_send(&g->commits);
        commit_sent(g->committer, number);
    }
    for (int i = 0; i < 500 && there(1) + there(5) < deliveries; i++)
        usleep(2000);
    assert_int_equal(there(1) + there(5), deliveries);
}

static void cut(struct gateway *g)
{
    redis_link_lost(&g->commits.link);
    gather_clear(&g->commits.out);
    close(g->commits.fd);
}

static void reconnect(struct gateway *g)
{
    wire_connect(&g->commits);
    commit_link_up(g->committer);
}

/* Every delivery there is goes to this gateway and is over. */
static void deliver_all(struct gateway *g, uint32_t want)
{
    claim_all(g, 1000);
    assert_int_equal(g->held_count, want);
    finish_held(g, FINISH_DONE);
    commit_all(g);
    assert_int_equal(finished, want);
    assert_int_equal(finished_lost, 0);
    expect_nothing_left();
}

/* --- one after the other --------------------------------------------------------------------- */

/* Both go to the shard of their key, one batch each, whatever else is in it. */
static void a_gateway_dies_between_exec_and_250(void **state)
{
    struct gateway a, b;
    struct mail *first[2], *again[2];
    gateway_init(&a, GATEWAY_A, 1000);
    for (uint32_t i = 0; i < 2; i++)
        first[i] = send_keyed(&a, i, (uint8_t)(3 + 3 * i));
    send_and_hear_nothing(&a, 3);
    gateway_done(&a);
    gateway_init(&b, GATEWAY_B, 1000);
    for (uint32_t i = 0; i < 2; i++)
        again[i] = send_keyed(&b, 10 + i, (uint8_t)(3 + 3 * i));
    commit_all(&b);
    for (uint32_t i = 0; i < 2; i++)
        expect_first_id(again[i], first[i]);
    assert_int_equal(b.held_count, 0);
    usleep(1100000); /* the dead one's lease */
    deliver_all(&b, 3);
    /* Long over, it is still known. */
    struct mail *late = send_keyed(&b, 20, 3);
    commit_all(&b);
    expect_first_id(late, first[0]);
    expect_nothing_left();
    for (uint32_t i = 0; i < 2; i++) {
        free(first[i]);
        free(again[i]);
    }
    free(late);
    gateway_done(&b);
}

/* Cut off after its EXEC, a gateway says 451 at its deadline. */
static struct mail *refused_but_stored(struct gateway *a)
{
    struct mail *m = send_keyed(a, 1, 7);
    send_and_hear_nothing(a, 2);
    cut(a);
    a->now.mono_ms += 30000;
    commit_tick(a->committer, &a->now);
    assert_int_equal(m->verdict, SMTP_NOT_QUEUED);
    return m;
}

/* Its client is told by another gateway that it IS queued; then the first comes to take it back. */
static void sent_again_before_it_was_taken_back(void **state)
{
    struct gateway a, b;
    gateway_init(&a, GATEWAY_A, 60000);
    gateway_init(&b, GATEWAY_B, 60000);
    struct mail *first = refused_but_stored(&a);
    struct mail *again = send_keyed(&b, 2, 7);
    commit_all(&b);
    expect_first_id(again, first);
    reconnect(&a);
    commit_all(&a);
    assert_int_equal(commit_pending(a.committer), 0);
    assert_int_equal(a.held_count, 0);
    deliver_all(&b, 2);
    free(first);
    free(again);
    gateway_done(&a);
    gateway_done(&b);
}

static void sent_again_after_it_was_taken_back(void **state)
{
    struct gateway a, b;
    gateway_init(&a, GATEWAY_A, 60000);
    gateway_init(&b, GATEWAY_B, 60000);
    struct mail *first = refused_but_stored(&a);
    reconnect(&a);
    commit_all(&a);
    expect_nothing_left();
    assert_int_equal(keys_like("*}k:*"), 0);
    struct mail *again = send_keyed(&b, 2, 7);
    commit_all(&b);
    assert_int_equal(again->verdict, SMTP_QUEUED);
    assert_string_equal(again->entry.first_id, "");
    deliver_all(&b, 2);
    free(first);
    free(again);
    gateway_done(&a);
    gateway_done(&b);
}

/* To the same gateway: the withdrawal rides in the very transaction that says "repeated". */
static void sent_again_to_the_same_gateway(void **state)
{
    struct gateway a;
    gateway_init(&a, GATEWAY_A, 60000);
    struct mail *first = refused_but_stored(&a);
    reconnect(&a);
    struct mail *again = send_keyed(&a, 2, 7);
    assert_int_equal(commit_all(&a), 1);
    expect_first_id(again, first);
    assert_int_equal(commit_pending(a.committer), 0);
    deliver_all(&a, 2);
    free(first);
    free(again);
    gateway_done(&a);
}

static void held_back_mail_comes_in_its_time(void **state)
{
    struct gateway g;
    gateway_init(&g, GATEWAY_A, 60000);
    struct mail *m = mail_make(&g, 1, 1000, 1, COMMIT_SCHEDULED);
    m->entry.due_ms = g.now.wall_ms + 700;
    commit_add(g.committer, &m->entry, &g.now);
    commit_all(&g);
    assert_int_equal(m->verdict, SMTP_QUEUED);
    assert_int_equal(g.held_count, 0);
    claim_all(&g, 10);
    assert_int_equal(g.held_count, 0);
    usleep(750000);
    deliver_all(&g, 1);
    free(m);
    gateway_done(&g);
}

/* --- everything at once ---------------------------------------------------------------------- */

enum { CLIENTS = 12, GATEWAYS = 3, STEPS = 160, STORMS = 25 };

/* A client sends its message, under its key, until it hears 250. */
struct client {
    struct mail *mail; /* on its way; NULL: none */
    uint32_t at;       /* the gateway that has it */
    char told[QUEUE_ID_LEN + 1];
};

struct storm {
    struct gateway g[GATEWAYS];
    bool is_up[GATEWAYS];
    struct client clients[CLIENTS];
    uint32_t serial, lives; /* messages made; gateways made */
    uint64_t chance;
};

static uint32_t chance(struct storm *s, uint32_t bound)
{
    s->chance = s->chance * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->chance >> 33) % bound;
}

static void client_sends(struct storm *s, uint32_t i, uint32_t at)
{
    struct client *c = &s->clients[i];
    if (c->mail || c->told[0])
        return;
    c->mail = send_keyed(&s->g[at], s->serial++, (uint8_t)i);
    c->at = at;
}

static void clients_listen(struct storm *s)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client *c = &s->clients[i];
        if (!c->mail || c->mail->calls == 0)
            continue;
        if (c->mail->verdict == SMTP_QUEUED)
            snprintf(c->told, sizeof c->told, "%s",
                     c->mail->entry.first_id[0] ? c->mail->entry.first_id : c->mail->id);
        else
            assert_int_equal(c->mail->verdict, SMTP_NOT_QUEUED);
        free(c->mail);
        c->mail = NULL;
    }
}

/* Sends what may go, and then hears all of it, or loses the link before or after the octets left.
 */
static void gateway_commits(struct storm *s, uint32_t at, uint32_t fate)
{
    struct gateway *g = &s->g[at];
    uint64_t number;
    if (!s->is_up[at])
        return;
    g->now.mono_ms += COMMIT_FINISH_DELAY_MS;
    while (s->is_up[at] &&
           commit_next(g->committer, &g->commits.link, 64, &g->commits.out, &g->now, &number)) {
        if (fate == 0) {
            cut(g);
            s->is_up[at] = false;
        } else if (fate == 1) {
            wire_send(&g->commits);
            usleep(chance(s, 2) * 1000);
            cut(g);
            s->is_up[at] = false;
        } else {
            wire_settle(&g->commits);
        }
        commit_sent(g->committer, number);
    }
}

static void gateway_returns(struct storm *s, uint32_t at)
{
    if (!s->is_up[at])
        reconnect(&s->g[at]);
    s->is_up[at] = true;
}

static void gateway_starts(struct storm *s, uint32_t at)
{
    char token[QUEUE_WORKER_LEN + 1];
    snprintf(token, sizeof token, "%016x", s->lives++);
    gateway_init(&s->g[at], token, 600000);
    s->is_up[at] = true;
}

/* Its clients hear nothing. */
static void gateway_dies(struct storm *s, uint32_t at)
{
    if (!s->is_up[at])
        s->g[at].commits.fd = dup(2);
    gateway_done(&s->g[at]);
    clients_listen(s);
    gateway_starts(s, at);
}

static void deadline_passes(struct storm *s, uint32_t at)
{
    s->g[at].now.mono_ms += 30000;
    commit_tick(s->g[at].committer, &s->g[at].now);
}

static void anything_happens(struct storm *s)
{
    uint32_t what = chance(s, 20), at = chance(s, GATEWAYS);
    if (what < 7)
        client_sends(s, chance(s, CLIENTS), at);
    else if (what < 12)
        gateway_commits(s, at, chance(s, 4));
    else if (what < 15)
        gateway_returns(s, at);
    else if (what < 18)
        deadline_passes(s, at);
    else if (what < 19)
        gateway_dies(s, at);
    clients_listen(s);
}

/* Nothing fails any more; every client sends until it has its 250. */
static void calm_down(struct storm *s)
{
    for (int round = 0; round < 10; round++) {
        for (uint32_t i = 0; i < CLIENTS; i++)
            client_sends(s, i, chance(s, GATEWAYS));
        for (uint32_t at = 0; at < GATEWAYS; at++) {
            gateway_returns(s, at);
            s->g[at].now.mono_ms += 1000;
            gateway_commits(s, at, 9);
        }
        clients_listen(s);
    }
    for (uint32_t at = 0; at < GATEWAYS; at++)
        assert_int_equal(commit_pending(s->g[at].committer), 0);
}

static void expect_one_mail_each(const struct storm *s, uint64_t seed)
{
    long deliveries = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        char pattern[64];
        assert_int_equal(strlen(s->clients[i].told), QUEUE_ID_LEN);
        snprintf(pattern, sizeof pattern, "*}b:%s", s->clients[i].told);
        if (keys_like(pattern) != 1)
            fail_msg("seed %llu: client %u was told %s, which is not there",
                     (unsigned long long)seed, i, s->clients[i].told);
        deliveries += 1 + i % 2;
    }
    long queued = there(1) + there(5);
    if (queued != deliveries)
        fail_msg("seed %llu: %ld deliveries, not %ld", (unsigned long long)seed, queued,
                 deliveries);
}

static void storm(uint64_t seed)
{
    struct storm s = { .chance = seed };
    simply("FLUSHALL");
    for (uint32_t at = 0; at < GATEWAYS; at++)
        gateway_starts(&s, at);
    for (int step = 0; step < STEPS; step++)
        anything_happens(&s);
    calm_down(&s);
    expect_one_mail_each(&s, seed);
    for (uint32_t at = 0; at < GATEWAYS; at++)
        gateway_done(&s.g[at]);
}

static void whoever_hears_250_has_one_mail_in_the_queue(void **state)
{
    const char *only = getenv("KILAT_SEED");
    for (uint64_t seed = 1; seed <= STORMS && !only; seed++)
        storm(seed);
    if (only)
        storm(strtoull(only, NULL, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        row(a_gateway_dies_between_exec_and_250), row(sent_again_before_it_was_taken_back),
        row(sent_again_after_it_was_taken_back),  row(sent_again_to_the_same_gateway),
        row(held_back_mail_comes_in_its_time),    row(whoever_hears_250_has_one_mail_in_the_queue),
    };
    return cmocka_run_group_tests_name("queue_again", tests, start_server, stop_server);
}
