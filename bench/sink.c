/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kilat-sink - takes mail over SMTP and throws it away; counts what came, what came twice, and,
 * told what was acknowledged, what did not come.
 *
 * It answers as RFC 5321 says to clients that speak correctly, and looks at as little as it can:
 * the first letters of a command, the end of the data, the field of the run in the header.
 *
 * Limits: one thread, so one core; several on one port (--share) take more.
 */
#include "bench/engine.h"
#include "bench/numbers.h"
#include "core/base/entropy.h"
#include "core/base/must.h"
#include "core/smtp/dot.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TOOL        "kilat-sink"
#define ACCEPTS     16
#define LINE_MAX    1000
#define HEADER_MAX  4096 /* octets of a message that the run's field is looked for in */
#define PROGRESS_NS 1000000000

struct sink_options {
    struct sockaddr_storage addr;
    socklen_t addr_len;
    uint32_t sessions;
    uint32_t delay_ms;                  /* before the reply to a message */
    uint32_t tempfail, reject, hang_up; /* percent of the messages */
    uint64_t messages;                  /* ends after so many; 0: when it is told to */
    bool has_chunking, is_shared, is_quiet;
    const char *json, *received, *expect;
};

struct sink {
    struct sink_options o;
    struct engine engine;
    struct entropy entropy;
    uint64_t seed;
    int listener;
    struct {
        struct sockaddr_storage addr;
        socklen_t len;
    } peers[ACCEPTS];
    struct list open; /* sessions */
    uint64_t connections, open_count, most_open;
    uint64_t messages, unmarked; /* taken with 250; of them without a run's field */
    uint64_t tempfailed, rejected, hung_up;
    uint64_t octets;
    uint32_t run;
    bool has_run;
    struct numbers numbers; /* of the run that was seen first */
    uint64_t other_runs;
    int64_t first_ns, last_ns;
};

enum sink_state { IN_COMMANDS, IN_DATA, IN_CHUNK, IN_DELAY };

struct sink_session {
    struct sink *sink;
    struct list node;
    struct conn *conn;
    struct wheel_timer delay;
    enum sink_state state;
    bool is_last_chunk, has_rcpt;
    struct dot_decoder dots;
    uint64_t chunk_left, octets;
    char *header; /* owned; the first octets of the content, once they came in pieces */
    uint32_t header_len;
    bool is_found; /* the run's field was */
    uint32_t run;
    uint64_t number;
    char line[LINE_MAX];
    uint32_t line_len;
};

static void say(struct sink_session *ss, const char *text)
{
    gather_copy(conn_out(ss->conn), slice_str(text));
}

/* --- messages -------------------------------------------------------------------------------- */

static void begin_content(struct sink_session *ss)
{
    dot_decoder_init(&ss->dots);
    ss->octets = ss->header_len = 0;
    ss->is_found = false;
}

/* The field is the first of the header, or behind those that the server added: the whole header is
 * in the first piece, mostly. */
static void look_for_field(struct sink_session *ss, struct slice piece)
{
    if (ss->is_found || ss->octets >= HEADER_MAX)
        return;
    if (ss->octets == 0 && numbers_find(piece, &ss->run, &ss->number)) {
        ss->is_found = true;
        return;
    }
    piece = slice_head(piece, HEADER_MAX - ss->header_len);
    if (!ss->header)
        ss->header = mem_alloc(HEADER_MAX);
    memcpy(ss->header + ss->header_len, piece.ptr, piece.len);
    ss->header_len += (uint32_t)piece.len;
    ss->is_found = numbers_find(slice_of(ss->header, ss->header_len), &ss->run, &ss->number);
}

static void take_content(struct sink_session *ss, struct slice piece)
{
    look_for_field(ss, piece);
    ss->octets += piece.len;
}

static void count_message(struct sink_session *ss)
{
    struct sink *s = ss->sink;
    int64_t now = engine_ns();
    s->first_ns = s->messages++ == 0 ? now : s->first_ns;
    s->last_ns = now;
    s->octets += ss->octets;
    if (!ss->is_found) {
        s->unmarked++;
        return;
    }
    if (!s->has_run) {
        s->run = ss->run;
        s->has_run = true;
    }
    if (ss->run == s->run)
        numbers_add(&s->numbers, ss->number);
    else
        s->other_runs++;
}

static void judge(struct sink_session *ss)
{
    struct sink *s = ss->sink;
    uint32_t faults = s->o.tempfail + s->o.reject + s->o.hang_up;
    uint64_t draw = faults ? entropy_below(&s->entropy, 100) : 100;
    ss->state = IN_COMMANDS;
    if (draw < s->o.tempfail) {
        s->tempfailed++;
        say(ss, "451 4.3.0 As I was told to\r\n");
    } else if (draw < s->o.tempfail + s->o.reject) {
        s->rejected++;
        say(ss, "550 5.7.1 As I was told to\r\n");
    } else if (draw < faults) {
        s->hung_up++;
        conn_close(ss->conn);
    } else {
        count_message(ss);
        say(ss, "250 2.0.0 Taken\r\n");
    }
}

static void on_delay(struct wheel_timer *timer)
{
    struct sink_session *ss = container_of(timer, struct sink_session, delay);
    judge(ss);
    conn_resume(ss->conn);
}

static void end_content(struct sink_session *ss)
{
    struct sink *s = ss->sink;
    ss->has_rcpt = false;
    if (s->o.delay_ms == 0) {
        judge(ss);
        return;
    }
    ss->state = IN_DELAY;
    wheel_set(&s->engine.wheel, &ss->delay, s->engine.now.mono_ms + s->o.delay_ms);
}

static size_t take_data(struct sink_session *ss, struct slice in)
{
    size_t taken = 0, used;
    struct slice piece;
    for (enum dot_event event = DOT_SPAN; event == DOT_SPAN; taken += used) {
        event = dot_decode(&ss->dots, slice_skip(in, taken), &used, &piece);
        if (event == DOT_SPAN)
            take_content(ss, piece);
        if (event == DOT_END)
            end_content(ss);
    }
    return taken;
}

static size_t take_chunk(struct sink_session *ss, struct slice in)
{
    struct slice piece = slice_head(in, ss->chunk_left);
    take_content(ss, piece);
    ss->chunk_left -= piece.len;
    if (ss->chunk_left > 0)
        return piece.len;
    if (ss->is_last_chunk) {
        end_content(ss);
    } else {
        ss->state = IN_COMMANDS;
        say(ss, "250 2.0.0 Chunk taken\r\n");
    }
    return piece.len;
}

/* --- commands -------------------------------------------------------------------------------- */

static void say_ehlo(struct sink_session *ss)
{
    say(ss, "250-sink.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
            "250-ENHANCEDSTATUSCODES\r\n");
    say(ss, ss->sink->o.has_chunking ? "250 CHUNKING\r\n" : "250 SIZE\r\n");
}

static void begin_chunk(struct sink_session *ss, struct slice line)
{
    char text[64] = "", last[8] = "";
    memcpy(text, line.ptr, line.len < sizeof text ? line.len : sizeof text - 1);
    if (sscanf(text + 4, "%" SCNu64 " %7s", &ss->chunk_left, last) < 1) {
        say(ss, "501 5.5.4 BDAT needs a size\r\n");
        return;
    }
    if (!ss->has_rcpt) { /* who pipelines does not know better: its octets follow */
        say(ss, "503 5.5.1 RCPT first\r\n");
        conn_finish(ss->conn);
        return;
    }
    if (ss->header_len == 0 && ss->octets == 0)
        begin_content(ss);
    ss->is_last_chunk = last[0] != '\0';
    ss->state = IN_CHUNK;
    if (ss->chunk_left == 0)
        take_chunk(ss, SLICE_NONE);
}

static uint32_t verb_of(struct slice line)
{
    uint32_t verb = 0;
    for (size_t i = 0; i < 4; i++)
        verb = verb << 8 | (i < line.len ? (unsigned char)line.ptr[i] & 0xdf : 0);
    return verb;
}

#define VERB(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

static void take_line(struct sink_session *ss, struct slice line)
{
    switch (verb_of(line)) {
    case VERB('E', 'H', 'L', 'O'): say_ehlo(ss); break;
    case VERB('M', 'A', 'I', 'L'):
        begin_content(ss);
        say(ss, "250 2.1.0 Ok\r\n");
        break;
    case VERB('R', 'C', 'P', 'T'):
        ss->has_rcpt = true;
        say(ss, "250 2.1.5 Ok\r\n");
        break;
    case VERB('D', 'A', 'T', 'A'):
        if (!ss->has_rcpt) {
            say(ss, "503 5.5.1 RCPT first\r\n");
            break;
        }
        begin_content(ss);
        ss->state = IN_DATA;
        say(ss, "354 Go on\r\n");
        break;
    case VERB('B', 'D', 'A', 'T'): begin_chunk(ss, line); break;
    case VERB('Q', 'U', 'I', 'T'):
        say(ss, "221 2.0.0 Bye\r\n");
        conn_finish(ss->conn);
        break;
    case VERB('R', 'S', 'E', 'T'):
        ss->has_rcpt = false;
        say(ss, "250 2.0.0 Ok\r\n");
        break;
    case VERB('H', 'E', 'L', 'O'):
    case VERB('N', 'O', 'O', 'P'): say(ss, "250 2.0.0 Ok\r\n"); break;
    default: say(ss, "500 5.5.1 Not known here\r\n"); break;
    }
}

/* Octets of a line that came in pieces are kept; one that is whole is read where it is. */
static size_t take_command(struct sink_session *ss, struct slice in)
{
    size_t end = slice_find(in, '\n');
    struct slice piece = slice_head(in, end);
    bool is_whole = end < in.len;
    if (!is_whole || ss->line_len > 0) {
        struct slice part = slice_head(piece, LINE_MAX - ss->line_len);
        memcpy(ss->line + ss->line_len, part.ptr, part.len);
        ss->line_len += (uint32_t)part.len;
        piece = slice_of(ss->line, ss->line_len);
    }
    if (is_whole) {
        ss->line_len = 0;
        take_line(ss, piece);
    }
    return is_whole ? end + 1 : in.len;
}

static size_t on_data(struct conn *c, struct slice in)
{
    struct sink_session *ss = c->owner;
    size_t taken = 0;
    while (taken < in.len && ss->state != IN_DELAY && c->state == CONN_OPEN) {
        struct slice rest = slice_skip(in, taken);
        taken += ss->state == IN_DATA    ? take_data(ss, rest)
                 : ss->state == IN_CHUNK ? take_chunk(ss, rest)
                                         : take_command(ss, rest);
    }
    return c->state == CONN_OPEN ? taken : in.len;
}

/* --- connections ----------------------------------------------------------------------------- */

static void on_end(struct conn *c, int result)
{
    conn_close(c);
}

static void on_closed(struct conn *c)
{
    struct sink_session *ss = c->owner;
    wheel_clear(&ss->sink->engine.wheel, &ss->delay);
    list_remove(&ss->node);
    ss->sink->open_count--;
    free(ss->header);
    free(ss);
}

static void arm_accept(struct sink *s, uint32_t i)
{
    s->peers[i].len = sizeof s->peers[i].addr;
    ring_accept(s->engine.ring, s->listener, &s->peers[i].addr, &s->peers[i].len,
                (struct ring_tag){ RING_ACCEPT, 0, i });
}

static void on_accept(void *ctx, const struct ring_done *done)
{
    static const struct conn_events events = { NULL, on_data, on_end, NULL, NULL, on_closed };
    struct sink *s = ctx;
    struct ring_socket socket = { done->result, ring_features(s->engine.ring).direct_sockets };
    if (done->result == -ECANCELED)
        return;
    arm_accept(s, done->index);
    if (done->result < 0)
        return;
    struct sink_session *ss = mem_zalloc(sizeof *ss);
    *ss = (struct sink_session){ .sink = s };
    ss->conn = conn_adopt(&s->engine.conns, socket, &events, ss);
    if (!ss->conn) {
        free(ss);
        ring_close(s->engine.ring, socket);
        return;
    }
    wheel_timer_init(&ss->delay, on_delay);
    list_push_back(&s->open, &ss->node);
    s->connections++;
    if (++s->open_count > s->most_open)
        s->most_open = s->open_count;
    say(ss, "220 sink.bench.test ESMTP kilat-sink\r\n");
}

static void open_listener(struct sink *s)
{
    int one = 1;
    struct sockaddr_storage addr = s->o.addr;
    s->listener = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(s->listener >= 0);
    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (s->o.is_shared)
        setsockopt(s->listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    setsockopt(s->listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(s->listener, (const struct sockaddr *)&addr, s->o.addr_len) < 0)
        engine_die(TOOL, "cannot listen there: %s", strerror(errno));
    if (listen(s->listener, 4096) < 0)
        engine_die(TOOL, "cannot listen: %s", strerror(errno));
    socklen_t len = sizeof addr;
    getsockname(s->listener, (struct sockaddr *)&addr, &len);
    fprintf(stderr, "%s: listening on port %u\n", TOOL,
            ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                             : ((struct sockaddr_in *)&addr)->sin_port));
}

/* --- options --------------------------------------------------------------------------------- */

static const char help[] =
    "usage: kilat-sink [OPTIONS] ADDRESS:PORT      port 0: one that is free, told on standard "
    "error\n"
    "  -s, --sessions N       connections at once, at most (10000)\n"
    "  -m, --messages N       end after so many; else when told to (SIGTERM, SIGINT)\n"
    "  -d, --delay MS         before the reply to each message\n"
    "  -t, --tempfail P       percent of messages answered 451\n"
    "  -r, --reject P         percent of messages answered 550\n"
    "  -c, --close P          percent of messages answered by hanging up\n"
    "  -b, --chunking         offer BDAT\n"
    "  -S, --share            several processes listen on this port\n"
    "  -e, --expect FILE      numbers that kilat-source saw acknowledged: what is missing is lost\n"
    "  -R, --received FILE    numbers that came\n"
    "  -j, --json FILE        the result; -: instead of the table\n"
    "  -q, --quiet            no progress\n"
    "SIGUSR1: tells on standard error how many messages it has taken so far.\n";

static uint32_t number(const char *option, uint32_t least, uint32_t most)
{
    return (uint32_t)engine_number(TOOL, option, optarg, least, most);
}

static void read_options(struct sink_options *o, int argc, char **argv)
{
    static const struct option long_options[] = {
        { "sessions", required_argument, NULL, 's' }, { "messages", required_argument, NULL, 'm' },
        { "delay", required_argument, NULL, 'd' },    { "tempfail", required_argument, NULL, 't' },
        { "reject", required_argument, NULL, 'r' },   { "close", required_argument, NULL, 'c' },
        { "chunking", no_argument, NULL, 'b' },       { "share", no_argument, NULL, 'S' },
        { "expect", required_argument, NULL, 'e' },   { "received", required_argument, NULL, 'R' },
        { "json", required_argument, NULL, 'j' },     { "quiet", no_argument, NULL, 'q' },
        { "help", no_argument, NULL, 'h' },           { NULL, 0, NULL, 0 },
    };
    *o = (struct sink_options){ .sessions = 10000 };
    for (int c; (c = getopt_long(argc, argv, "s:m:d:t:r:c:bSe:R:j:qh", long_options, NULL)) >= 0;)
        switch (c) {
        case 's': o->sessions = number("--sessions", 1, 100000); break;
        case 'm': o->messages = engine_number(TOOL, "--messages", optarg, 1, UINT64_MAX); break;
        case 'd': o->delay_ms = number("--delay", 0, 3600000); break;
        case 't': o->tempfail = number("--tempfail", 0, 100); break;
        case 'r': o->reject = number("--reject", 0, 100); break;
        case 'c': o->hang_up = number("--close", 0, 100); break;
        case 'b': o->has_chunking = true; break;
        case 'S': o->is_shared = true; break;
        case 'e': o->expect = optarg; break;
        case 'R': o->received = optarg; break;
        case 'j': o->json = optarg; break;
        case 'q': o->is_quiet = true; break;
        case 'h': fputs(help, stdout); exit(0);
        default: fputs(help, stderr); exit(2);
        }
    if (optind + 1 != argc)
        engine_die(TOOL, "write ADDRESS:PORT as the last argument; --help tells the rest");
    if (o->tempfail + o->reject + o->hang_up > 100)
        engine_die(TOOL, "--tempfail, --reject and --close are more than 100 percent together");
    o->addr_len = engine_address(TOOL, "ADDRESS:PORT", argv[optind], &o->addr);
}

/* --- the report ------------------------------------------------------------------------------ */

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = strcmp(path, "-") != 0 ? fopen(path, mode) : *mode == 'r' ? stdin : stdout;
    if (!file)
        engine_die(TOOL, "cannot open %s: %s", path, strerror(errno));
    return file;
}

/* Those of "0-99,101" that did not come. The file is read at the end: kilat-source has ended. */
static uint64_t count_lost(const struct sink *s)
{
    uint64_t lost = 0, first, last;
    FILE *in = open_file(s->o.expect, "r");
    for (int c = ','; c == ',' && fscanf(in, "%" SCNu64, &first) == 1; c = fgetc(in)) {
        last = first;
        if ((c = fgetc(in)) == '-') {
            if (fscanf(in, "%" SCNu64, &last) != 1)
                engine_die(TOOL, "--expect: %s is not what kilat-source wrote", s->o.expect);
        } else {
            ungetc(c, in);
        }
        for (uint64_t i = first; i <= last; i++)
            lost += !numbers_has(&s->numbers, i);
    }
    fclose(in);
    return lost;
}

static double elapsed_s(const struct sink *s)
{
    return s->messages > 1 ? (double)(s->last_ns - s->first_ns) / 1e9 : 0;
}

static json_t *result(const struct sink *s)
{
    double elapsed = elapsed_s(s);
    json_t *r =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f}", "tool", TOOL,
                  "messages", (json_int_t)s->messages, "different", (json_int_t)s->numbers.count,
                  "duplicates", (json_int_t)s->numbers.duplicates, "unmarked",
                  (json_int_t)s->unmarked, "other_runs", (json_int_t)s->other_runs, "tempfailed",
                  (json_int_t)s->tempfailed, "rejected", (json_int_t)s->rejected, "hung_up",
                  (json_int_t)s->hung_up, "connections", (json_int_t)s->connections, "most_open",
                  (json_int_t)s->most_open, "seconds", elapsed, "messages_per_second",
                  elapsed > 0 ? (double)s->messages / elapsed : 0.0, "cpu_seconds", engine_cpu_s());
    if (s->o.expect)
        json_object_set_new(r, "lost", json_integer((json_int_t)count_lost(s)));
    return r;
}

static void print_table(const struct sink *s)
{
    double elapsed = elapsed_s(s);
    printf("%-20s %" PRIu64 " in %.2f s: %.0f/s, %.1f MB/s\n", "messages taken", s->messages,
           elapsed, elapsed > 0 ? (double)s->messages / elapsed : 0.0,
           elapsed > 0 ? (double)s->octets / elapsed / 1e6 : 0.0);
    printf("%-20s %" PRIu64 " different, %" PRIu64 " more than once, %" PRIu64
           " of other runs, %" PRIu64 " of none\n",
           "of the run", s->numbers.count, s->numbers.duplicates, s->other_runs, s->unmarked);
    printf("%-20s %" PRIu64 " answered 451, %" PRIu64 " answered 550, %" PRIu64 " hung up on\n",
           "not taken", s->tempfailed, s->rejected, s->hung_up);
    printf("%-20s %" PRIu64 ", at most %" PRIu64 " at once\n", "connections", s->connections,
           s->most_open);
    printf("%-20s %.2f s\n", "CPU of this program", engine_cpu_s());
    if (s->o.expect)
        printf("%-20s %" PRIu64 " that were acknowledged\n", "lost", count_lost(s));
}

static void report(const struct sink *s)
{
    if (!s->o.json || strcmp(s->o.json, "-") != 0)
        print_table(s);
    if (s->o.json) {
        FILE *out = open_file(s->o.json, "w");
        json_t *r = result(s);
        json_dumpf(r, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        fputc('\n', out);
        json_decref(r);
        if (out != stdout)
            fclose(out);
    }
    if (s->o.received) {
        FILE *out = open_file(s->o.received, "w");
        numbers_print(&s->numbers, out);
        if (out != stdout)
            fclose(out);
    }
}

/* --- the run --------------------------------------------------------------------------------- */

/* SIGUSR1: how many so far. */
static void answer(const struct sink *s)
{
    if (!engine_is_asked)
        return;
    engine_is_asked = 0;
    fprintf(stderr, "%" PRIu64 "\n", s->messages);
}

static void show_progress(const struct sink *s)
{
    static int64_t next_ns;
    static uint64_t before;
    int64_t now = engine_ns();
    if (now < next_ns)
        return;
    if (s->messages > before)
        fprintf(stderr, "%s: %10" PRIu64 " messages  %7" PRIu64 "/s  %5" PRIu64 " connections\n",
                TOOL, s->messages, s->messages - before, s->open_count);
    before = s->messages;
    next_ns = now + PROGRESS_NS;
}

static void pump(void *ctx) {}

static void close_all(struct sink *s)
{
    for (uint32_t i = 0; i < ACCEPTS; i++)
        ring_cancel(s->engine.ring, (struct ring_tag){ RING_ACCEPT, 0, i });
    list_for_each_safe (node, &s->open)
        conn_close(list_entry(node, struct sink_session, node)->conn);
    while (conn_table_live(&s->engine.conns) > 0)
        engine_turn(&s->engine, 10, 1, pump, s);
}

int main(int argc, char **argv)
{
    struct sink *s = mem_zalloc(sizeof *s);
    read_options(&s->o, argc, argv);
    list_init(&s->open);
    numbers_init(&s->numbers);
    s->seed = 1;
    entropy_init_seeded(&s->entropy, &s->seed);
    engine_init(&s->engine, TOOL, s->o.sessions + ACCEPTS);
    open_listener(s);
    ring_on(s->engine.ring, RING_ACCEPT, on_accept, s);
    for (uint32_t i = 0; i < ACCEPTS; i++)
        arm_accept(s, i);
    s->o.is_quiet |= !isatty(STDERR_FILENO);
    while (!engine_is_told_to_stop && (s->o.messages == 0 || s->messages < s->o.messages)) {
        engine_turn(&s->engine, 100, (uint32_t)(s->open_count / 4), pump, s);
        answer(s);
        if (!s->o.is_quiet)
            show_progress(s);
    }
    close_all(s);
    report(s);
    numbers_done(&s->numbers);
    engine_done(&s->engine);
    close(s->listener);
    free(s);
    return 0;
}
