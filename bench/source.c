/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kilat-source - sends test mail, and measures how it is taken.
 *
 * Closed loop: each session begins a message as soon as it may. Open loop (--rate): messages begin
 * at fixed times, whether the server keeps up or not; how long one took is counted from when it was
 * to begin, so that a server that stalls cannot hide the messages which that kept from being sent.
 *
 * Limits: one thread, so one core: several processes (--run keeps their messages apart) send more.
 */
#include "bench/source.h"
#include "bench/body.h"
#include "core/base/must.h"
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TOOL           "kilat-source"
#define CONNECTING_MAX 128     /* connections on the way: no more than a backlog holds */
#define SPIN_NS        1500000 /* a message due sooner is waited for awake */
#define BUSY           0.9     /* of a core: then this program may be the limit */
#define PROGRESS_NS    1000000000
#define HOLD_NS        20000000000 /* for all idle sessions to be there */

/* --- options --------------------------------------------------------------------------------- */

static const char help[] =
    "usage: kilat-source [OPTIONS] ADDRESS:PORT\n"
    "  -s, --sessions N        sessions at once (100)\n"
    "  -m, --messages N        messages in all (10000); with -c 0: connections\n"
    "  -t, --time SECONDS      no longer than that, and without -m as many as that takes\n"
    "  -c, --per-connection N  messages on each connection (100); 0: EHLO and QUIT\n"
    "  -l, --size SIZES        octets of a message (10k), or a mix: 1k:70,10k:25,1m:5\n"
    "  -r, --rate N            messages a second at fixed times, instead of as fast as they are "
    "taken\n"
    "  -w, --warm-up N         messages that do not count (0)\n"
    "  -i, --idle N            sessions more that only stay\n"
    "  -p, --pipelining        commands go together (RFC 2920)\n"
    "  -b, --bdat              BDAT instead of DATA (RFC 3030)\n"
    "  -d, --depth N           with -p: messages under way on a connection (1)\n"
    "  -S, --starttls          STARTTLS;  -T, --tls  TLS from the first octet\n"
    "  -R, --resume            resume TLS sessions\n"
    "  -u, --user NAME         AUTH PLAIN;  -P, --password WORD\n"
    "  -f, --from ADDRESS      envelope sender (bench@source.test)\n"
    "  -o, --to ADDRESS        recipient (bench@sink.test)\n"
    "  -n, --recipients N      of each message (1): numbered\n"
    "  -D, --domains N         destinations: d0, d1 ... before the domain of --to\n"
    "  -N, --noise             bodies that cannot be compressed; else they are words\n"
    "  -x, --run HEX           the number of this run, in each message (drawn)\n"
    "  -j, --json FILE         the result; -: instead of the table\n"
    "  -A, --acknowledged FILE numbers of messages answered 250\n"
    "  -q, --quiet             no progress\n";

struct report_options {
    const char *json, *acknowledged;
    bool is_quiet;
};

/* "1k:70,10k:25". */
static void read_sizes(struct source_options *o, char *text)
{
    char *rest = NULL;
    o->size_count = o->weights = 0;
    for (char *one = strtok_r(text, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        char *colon = strchr(one, ':');
        if (o->size_count == SOURCE_SIZES)
            engine_die(TOOL, "--size: there are more than %d", SOURCE_SIZES);
        struct source_size *size = &o->sizes[o->size_count++];
        size->weight = colon ? (uint32_t)engine_number(TOOL, "--size", colon + 1, 1, 1000000) : 1;
        if (colon)
            *colon = '\0';
        size->octets = (uint32_t)engine_number(TOOL, "--size", one, 300, 1 << 30);
        o->weights += size->weight;
    }
    if (o->size_count == 0)
        engine_die(TOOL, "--size: is empty");
}

static const struct option long_options[] = {
    { "sessions", required_argument, NULL, 's' },
    { "messages", required_argument, NULL, 'm' },
    { "time", required_argument, NULL, 't' },
    { "per-connection", required_argument, NULL, 'c' },
    { "size", required_argument, NULL, 'l' },
    { "rate", required_argument, NULL, 'r' },
    { "warm-up", required_argument, NULL, 'w' },
    { "idle", required_argument, NULL, 'i' },
    { "pipelining", no_argument, NULL, 'p' },
    { "bdat", no_argument, NULL, 'b' },
    { "depth", required_argument, NULL, 'd' },
    { "starttls", no_argument, NULL, 'S' },
    { "tls", no_argument, NULL, 'T' },
    { "resume", no_argument, NULL, 'R' },
    { "user", required_argument, NULL, 'u' },
    { "password", required_argument, NULL, 'P' },
    { "from", required_argument, NULL, 'f' },
    { "to", required_argument, NULL, 'o' },
    { "recipients", required_argument, NULL, 'n' },
    { "domains", required_argument, NULL, 'D' },
    { "noise", no_argument, NULL, 'N' },
    { "run", required_argument, NULL, 'x' },
    { "json", required_argument, NULL, 'j' },
    { "acknowledged", required_argument, NULL, 'A' },
    { "quiet", no_argument, NULL, 'q' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static uint32_t number(const char *option, uint32_t least, uint32_t most)
{
    return (uint32_t)engine_number(TOOL, option, optarg, least, most);
}

static void read_option(struct source *s, struct report_options *report, int option)
{
    struct source_options *o = &s->o;
    switch (option) {
    case 's': o->sessions = number("--sessions", 1, 100000); break;
    case 'm': o->messages = engine_number(TOOL, "--messages", optarg, 1, BENCH_NUMBER_MAX); break;
    case 't': o->seconds = number("--time", 1, 86400); break;
    case 'c': o->per_connection = number("--per-connection", 0, UINT32_MAX); break;
    case 'l': read_sizes(o, optarg); break;
    case 'r': o->rate = number("--rate", 1, 10000000); break;
    case 'w': o->warm_up = number("--warm-up", 0, UINT32_MAX); break;
    case 'i': o->idle = number("--idle", 0, 100000); break;
    case 'p': o->is_pipelining = true; break;
    case 'b': o->has_bdat = true; break;
    case 'd': o->depth = number("--depth", 1, SOURCE_DEPTH); break;
    case 'S': o->tls = SOURCE_STARTTLS; break;
    case 'T': o->tls = SOURCE_IMPLICIT; break;
    case 'R': o->resumes = true; break;
    case 'u': o->user = optarg; break;
    case 'P': o->password = optarg; break;
    case 'f': o->sender = optarg; break;
    case 'o': o->rcpt = optarg; break;
    case 'n': o->rcpts = number("--recipients", 1, 20); break;
    case 'D': o->domains = number("--domains", 1, 100000000); break;
    case 'N': o->is_random = true; break;
    case 'x': s->run = (uint32_t)strtoul(optarg, NULL, 16); break;
    case 'j': report->json = optarg; break;
    case 'A': report->acknowledged = optarg; break;
    case 'q': report->is_quiet = true; break;
    case 'h': fputs(help, stdout); exit(0);
    default: fputs(help, stderr); exit(2);
    }
}

static void read_options(struct source *s, struct report_options *report, int argc, char **argv)
{
    struct source_options *o = &s->o;
    char ten[] = "10k";
    *o = (struct source_options){ .sessions = 100,
                                  .per_connection = 100,
                                  .depth = 1,
                                  .rcpts = 1,
                                  .sender = "bench@source.test",
                                  .rcpt = "bench@sink.test",
                                  .password = "" };
    read_sizes(o, ten);
    s->run = (uint32_t)engine_ns();
    for (int option;
         (option = getopt_long(argc, argv, "s:m:t:c:l:r:w:i:pbd:STRu:P:f:o:n:D:Nx:j:A:qh",
                               long_options, NULL)) >= 0;)
        read_option(s, report, option);
    if (optind + 1 != argc)
        engine_die(TOOL, "write ADDRESS:PORT as the last argument; --help tells the rest");
    o->addr_len = engine_address(TOOL, "ADDRESS:PORT", argv[optind], &o->addr);
    if (!strchr(o->rcpt, '@'))
        engine_die(TOOL, "--to: \"%s\" has no domain", o->rcpt);
    if (o->messages == 0)
        o->messages = o->seconds ? BENCH_NUMBER_MAX : 10000;
    if (o->is_pipelining && !o->has_bdat && o->depth > 2)
        engine_die(TOOL, "--depth: after DATA a server is waited for: at most 2 without --bdat");
}

/* --- when what begins ------------------------------------------------------------------------ */

static int64_t due_ns(const struct source *s)
{
    if (!s->o.rate)
        return 0;
    return s->began_ns + (int64_t)((double)s->begun * 1e9 / s->o.rate);
}

static void begin_one(struct source *s, int64_t now)
{
    struct source_session *ss = list_entry(s->ready.next, struct source_session, node);
    int64_t due = s->o.rate ? due_ns(s) : now;
    if (s->ended >= s->o.warm_up && s->o.rate)
        histogram_record(s->late, now - due);
    source_session_begin(ss, s->begun++, due);
}

static void wind_up(struct source *s)
{
    s->is_over = true;
    for (uint32_t i = 0; i < s->o.sessions + s->o.idle; i++)
        source_session_wind_up(&s->sessions[i]);
}

/* The churn of connections that carry nothing ends by their number. */
static bool is_enough(const struct source *s)
{
    if (s->o.seconds && s->began_ns &&
        engine_ns() - s->began_ns >= (int64_t)s->o.seconds * 1000000000)
        return true;
    uint64_t done = s->o.per_connection == 0 ? s->counts.connections : s->begun;
    return done >= s->o.messages || engine_is_told_to_stop;
}

static void begin_run(struct source *s)
{
    s->began_ns = s->warm_ns = engine_ns();
    s->warm_cpu_s = engine_cpu_s();
}

static void pump(void *ctx)
{
    struct source *s = ctx;
    struct list *node;
    if (!s->is_over && is_enough(s))
        wind_up(s);
    if (s->is_over)
        return;
    while (s->connecting < CONNECTING_MAX && (node = list_pop_front(&s->closed)))
        source_session_connect(list_entry(node, struct source_session, node));
    if (s->held < s->o.idle) {
        if (engine_ns() - s->opened_ns > HOLD_NS)
            engine_die(TOOL, "--idle: only %u of %u sessions are there after 20 s", s->held,
                       s->o.idle);
        return;
    }
    if (!s->began_ns)
        begin_run(s);
    for (int64_t now = engine_ns(); !list_is_empty(&s->ready) && s->begun < s->o.messages;) {
        if (due_ns(s) > now)
            break;
        begin_one(s, now);
    }
}

/* Half of those that talk may be gathered before the loop wakes; a clock is kept instead. */
static void turn(struct source *s)
{
    int64_t wait_ms = 100;
    uint32_t expected = s->talking / 2;
    if (s->o.rate && s->began_ns && !s->is_over) {
        int64_t until = due_ns(s) - engine_ns();
        bool can = !list_is_empty(&s->ready);
        wait_ms = !can ? 100 : until < SPIN_NS ? 0 : (until - SPIN_NS / 2) / 1000000;
        expected = 1;
    }
    engine_turn(&s->engine, wait_ms, expected, pump, s);
}

/* --- the report ------------------------------------------------------------------------------ */

static double elapsed_s(const struct source *s)
{
    int64_t last = s->o.per_connection == 0 ? engine_ns() : s->last_ns;
    return last > s->warm_ns ? (double)(last - s->warm_ns) / 1e9 : 1e-9;
}

static void show_progress(struct source *s)
{
    static int64_t next_ns;
    static uint64_t before;
    int64_t now = engine_ns();
    if (!s->began_ns || now < next_ns)
        return;
    if (next_ns)
        fprintf(stderr, "%s: %5.0f s  %8" PRIu64 " messages  %7" PRIu64 "/s  p99 %.2f ms\n", TOOL,
                (double)(now - s->began_ns) / 1e9, s->ended, s->ended - before,
                (double)histogram_at(s->end_to_250, 99) / 1e6);
    before = s->ended;
    next_ns = now + PROGRESS_NS;
}

static json_t *json_times(const struct histogram *h)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f}", "mean_ms",
                     h->count ? (double)h->sum_ns / (double)h->count / 1e6 : 0.0, "p50_ms",
                     (double)histogram_at(h, 50) / 1e6, "p90_ms", (double)histogram_at(h, 90) / 1e6,
                     "p99_ms", (double)histogram_at(h, 99) / 1e6, "p99.9_ms",
                     (double)histogram_at(h, 99.9) / 1e6, "max_ms",
                     h->count ? (double)h->most_ns / 1e6 : 0.0);
}

/* What kept the rate down, when it was not the server; NULL: nothing of ours. */
static const char *bottleneck(const struct source *s, double busy)
{
    if (s->o.rate && histogram_at(s->late, 99) > 1000000)
        return "messages began late: there were too few sessions, or this program was too slow";
    if (!s->o.rate && busy > BUSY)
        return "this program used its core up: it may have been the limit";
    return NULL;
}

static json_t *result(const struct source *s)
{
    const struct source_counts *c = &s->counts;
    double elapsed = elapsed_s(s), cpu = engine_cpu_s() - s->warm_cpu_s;
    const char *limit = bottleneck(s, cpu / elapsed);
    json_t *r = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f}", "tool", TOOL, "accepted",
        (json_int_t)c->accepted, "tempfailed", (json_int_t)c->tempfailed, "rejected",
        (json_int_t)c->rejected, "lost", (json_int_t)c->lost, "connections",
        (json_int_t)c->connections, "connections_failed", (json_int_t)c->failed, "idle_held",
        (json_int_t)s->held, "seconds", elapsed, "messages_per_second",
        (double)c->accepted / elapsed, "connections_per_second", (double)c->connections / elapsed,
        "megabytes_per_second", (double)c->octets / elapsed / 1e6, "cpu_share", cpu / elapsed);
    char run[9];
    snprintf(run, sizeof run, "%08" PRIx32, s->run);
    json_object_set_new(r, "run", json_string(run));
    json_object_set_new(r, "end_of_data_to_250", json_times(s->end_to_250));
    if (s->o.rate) {
        json_object_set_new(r, "rate", json_integer(s->o.rate));
        json_object_set_new(r, "due_to_250", json_times(s->due_to_250));
        json_object_set_new(r, "begun_late", json_times(s->late));
    }
    json_object_set_new(r, "bottleneck", limit ? json_string(limit) : json_null());
    return r;
}

static void print_times(const char *name, const struct histogram *h)
{
    printf("%-20s p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms\n", name,
           (double)histogram_at(h, 50) / 1e6, (double)histogram_at(h, 90) / 1e6,
           (double)histogram_at(h, 99) / 1e6, (double)histogram_at(h, 99.9) / 1e6,
           h->count ? (double)h->most_ns / 1e6 : 0.0);
}

static void print_table(const struct source *s)
{
    const struct source_counts *c = &s->counts;
    double elapsed = elapsed_s(s), cpu = engine_cpu_s() - s->warm_cpu_s;
    const char *limit = bottleneck(s, cpu / elapsed);
    printf("%-20s %" PRIu64 " in %.2f s: %.0f/s, %.1f MB/s\n", "messages accepted", c->accepted,
           elapsed, (double)c->accepted / elapsed, (double)c->octets / elapsed / 1e6);
    printf("%-20s %" PRIu64 " answered 4yz, %" PRIu64 " answered 5yz, %" PRIu64 " lost with their "
           "connection\n",
           "not accepted", c->tempfailed, c->rejected, c->lost);
    printf("%-20s %" PRIu64 " (%.0f/s), %" PRIu64 " failed\n", "connections", c->connections,
           (double)c->connections / elapsed, c->failed);
    print_times("end of data to 250", s->end_to_250);
    if (s->o.rate)
        print_times("due to 250", s->due_to_250);
    printf("%-20s %.0f %% of a core\n", "CPU of this program", 100 * cpu / elapsed);
    if (limit)
        printf("%-20s %s\n", "careful", limit);
}

static FILE *open_file(const char *path)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!out)
        engine_die(TOOL, "cannot write %s", path);
    return out;
}

static void report(const struct source *s, const struct report_options *o)
{
    if (!o->json || strcmp(o->json, "-") != 0)
        print_table(s);
    if (o->json) {
        FILE *out = open_file(o->json);
        json_t *r = result(s);
        json_dumpf(r, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        fputc('\n', out);
        json_decref(r);
        if (out != stdout)
            fclose(out);
    }
    if (o->acknowledged) {
        FILE *out = open_file(o->acknowledged);
        numbers_print(&s->acknowledged, out);
        if (out != stdout)
            fclose(out);
    }
}

/* --- the run --------------------------------------------------------------------------------- */

static void prepare(struct source *s)
{
    uint32_t count = s->o.sessions + s->o.idle;
    list_init(&s->ready);
    list_init(&s->closed);
    numbers_init(&s->acknowledged);
    s->end_to_250 = histogram_new();
    s->due_to_250 = histogram_new();
    s->late = histogram_new();
    s->tls = tls_client_new();
    for (uint32_t i = 0; i < s->o.size_count; i++) {
        struct source_size *size = &s->o.sizes[i];
        size->body_len = size->octets - (uint32_t)(sizeof BENCH_FIELD - 1 + BENCH_ID_LEN + 2);
        size->body = body_make(size->body_len, s->o.is_random);
    }
    engine_init(&s->engine, TOOL, count + 1);
    s->opened_ns = engine_ns();
    s->sessions = mem_alloc(count * sizeof *s->sessions);
    for (uint32_t i = 0; i < count; i++)
        source_session_init(&s->sessions[i], s, i >= s->o.sessions);
}

static void clean_up(struct source *s)
{
    engine_done(&s->engine);
    tls_client_free(s->tls);
    for (uint32_t i = 0; i < s->o.size_count; i++)
        free(s->o.sizes[i].body);
    numbers_done(&s->acknowledged);
    free(s->end_to_250);
    free(s->due_to_250);
    free(s->late);
    free(s->sessions);
}

int main(int argc, char **argv)
{
    struct source *s = mem_zalloc(sizeof *s);
    struct report_options o = { 0 };
    read_options(s, &o, argc, argv);
    o.is_quiet |= !isatty(STDERR_FILENO);
    prepare(s);
    while (!s->is_over || conn_table_live(&s->engine.conns) > 0) {
        turn(s);
        if (!o.is_quiet)
            show_progress(s);
    }
    report(s, &o);
    bool is_well = s->counts.accepted > 0 || s->o.per_connection == 0;
    clean_up(s);
    free(s);
    return is_well ? 0 : 1;
}
