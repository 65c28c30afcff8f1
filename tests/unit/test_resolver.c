/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups against a scripted name server: the rules of P-208 to P-213, the cache, joined lookups,
 * names that need no DNS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "tests/lib/scripted_dns.h"
#include <cmocka.h>
#include <poll.h>

#include "core/base/must.h"
#include "io/resolver.h"
#include "io/resolver_cache.h"

/* clang-format off */
static const struct dns_row zone[] = {
    { "order.example", DNS_MX, DNS_OK, 300, "20 mx2.order.example" },
    { "order.example", DNS_MX, DNS_OK, 300, "5 mx1.order.example" },
    { "order.example", DNS_MX, DNS_OK, 300, "20 mx3.order.example" },
    { "mx1.order.example", DNS_A, DNS_OK, 300, "192.0.2.1" },
    { "mx1.order.example", DNS_AAAA, DNS_OK, 300, "2001:db8::1" },
    { "mx2.order.example", DNS_A, DNS_OK, 60, "192.0.2.2" },
    { "mx3.order.example", DNS_A, DNS_OK, 300, "192.0.2.3" },
    { "null.example", DNS_MX, DNS_OK, 300, "0 ." },
    { "null.example", DNS_A, DNS_OK, 300, "192.0.2.9" },
    { "dot.example", DNS_MX, DNS_OK, 300, "0 ." },
    { "dot.example", DNS_MX, DNS_OK, 300, "10 mx2.order.example" },
    { "implicit.example", DNS_A, DNS_OK, 300, "192.0.2.4" },
    { "empty.example", DNS_MX, DNS_OK, 300, NULL },
    { "broken.example", DNS_MX, DNS_SERVFAIL, 0, NULL },
    { "shy.example", DNS_MX, DNS_REFUSED, 0, NULL },
    { "useless.example", DNS_MX, DNS_OK, 300, "10 nowhere.example" },
    { "useless.example", DNS_A, DNS_OK, 300, "192.0.2.9" },
    { "half.example", DNS_MX, DNS_OK, 300, "10 broken-host.example" },
    { "half.example", DNS_MX, DNS_OK, 300, "20 mx2.order.example" },
    { "twin.example", DNS_MX, DNS_OK, 300, "5 mx2.order.example" },
    { "twin.example", DNS_MX, DNS_OK, 300, "7 BROKEN-host.example" },
    { "unsure.example", DNS_MX, DNS_OK, 300, "10 broken-host.example" },
    { "broken-host.example", DNS_A, DNS_SERVFAIL, 0, NULL },
    { "broken-host.example", DNS_AAAA, DNS_SERVFAIL, 0, NULL },
    { "inside.example", DNS_MX, DNS_OK, 300, "10 inside-host.example" },
    { "inside-host.example", DNS_A, DNS_OK, 300, "127.0.0.1" },
    { "inside-host.example", DNS_AAAA, DNS_OK, 300, "fe80::1" },
    { "mixed.example", DNS_MX, DNS_OK, 300, "10 mixed-host.example" },
    { "mixed-host.example", DNS_A, DNS_OK, 300, "10.1.2.3" },
    { "mixed-host.example", DNS_A, DNS_OK, 300, "192.0.2.5" },
    { "relay.test", DNS_A, DNS_OK, 300, "10.0.0.25" },
    { "brief.example", DNS_MX, DNS_OK, 0, "10 mx1.order.example" },
    { "slow.example", DNS_MX, DNS_OK, 300, "10 mx1.order.example" },
    { NULL, 0, 0, 0, NULL },
};
/* clang-format on */

struct fixture {
    struct scripted_dns dns;
    struct config cfg;
    char server[32];
    char *servers[1];
    uint64_t seed;
    struct entropy entropy;
    struct metrics metrics;
    struct resolver *r;
    struct now now;
};

/* What a lookup answered. */
struct heard {
    int calls;
    int code;
    char enhanced[12];
    char text[400];
    enum outcome_stage stage;
    uint32_t ttl_ms;
    size_t count;
    char hosts[RESOLVER_MX_MAX * RESOLVER_ADDRESS_MAX][320]; /* "address port name" */
    char site[SITE_DIGEST_MAX];                              /* of the last host */
};

static void describe(const struct relay_host *h, char *out, size_t len)
{
    char ip[64];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&h->addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&h->addr;
    bool is_v4 = h->addr.ss_family == AF_INET;
    inet_ntop(h->addr.ss_family, is_v4 ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr,
              ip, sizeof ip);
    snprintf(out, len, "%s %u %s", ip, ntohs(is_v4 ? v4->sin_port : v6->sin6_port), h->name);
}

static void hear(void *ctx, const struct relay_host *hosts, size_t count, uint32_t ttl_ms,
                 const struct rcpt_outcome *failure)
{
    struct heard *h = ctx;
    h->calls++;
    h->ttl_ms = ttl_ms;
    h->count = count;
    for (size_t i = 0; i < count; i++)
        describe(&hosts[i], h->hosts[i], sizeof h->hosts[i]);
    if (count > 0)
        memcpy(h->site, hosts[count - 1].site, sizeof h->site);
    assert_int_equal(count == 0, failure != NULL);
    if (!failure)
        return;
    h->code = failure->code;
    h->stage = failure->stage;
    snprintf(h->enhanced, sizeof h->enhanced, "%s", failure->enhanced);
    snprintf(h->text, sizeof h->text, "%.*s", SLICE_ARG(failure->text));
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct buf error;
    buf_init(&error, 256);
    assert_true(scripted_dns_start(&f->dns, zone));
    snprintf(f->server, sizeof f->server, "127.0.0.1@%u", f->dns.port);
    f->servers[0] = f->server;
    f->cfg.dns.servers = f->servers;
    f->cfg.dns.server_count = 1;
    f->cfg.dns.cache_max_ms = 3600 * 1000;
    f->cfg.dns.negative_ms = 5000;
    f->cfg.relay.mx_port = 25;
    f->now = (struct now){ .mono_ms = 1000000, .wall_ms = 1700000000000 };
    entropy_init_seeded(&f->entropy, &f->seed);
    if (resolver_new(&f->cfg, &f->entropy, &f->metrics, &f->r, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    resolver_free(f->r);
    scripted_dns_stop(&f->dns);
    free(f);
    return 0;
}

/* Turns the loop until the lookup has answered. */
static void wait_for(struct fixture *f, const struct heard *h, int calls)
{
    for (int i = 0; i < 600 && h->calls < calls; i++) {
        struct pollfd p = { .fd = resolver_fd(f->r), .events = POLLIN };
        if (poll(&p, 1, 100) > 0)
            resolver_process(f->r, &f->now);
    }
    assert_int_equal(h->calls, calls);
}

static void ask_mx(struct fixture *f, const char *domain, struct heard *h)
{
    *h = (struct heard){ 0 };
    resolver_lookup_mx(f->r, slice_str(domain), &f->now, hear, h);
    wait_for(f, h, 1);
}

static void check_failure(struct fixture *f, const char *domain, int code, const char *enhanced)
{
    static struct heard h;
    ask_mx(f, domain, &h);
    if (h.code != code || strcmp(h.enhanced, enhanced) != 0)
        fail_msg("%s: %d %s %s", domain, h.code, h.enhanced, h.text);
    assert_int_equal(h.stage, OUTCOME_DNS);
    assert_non_null(strstr(h.text, domain));
    assert_int_equal(h.ttl_ms, f->cfg.dns.negative_ms);
}

/* P-208: by preference; IPv4 before IPv6 of one host; the least TTL counts. */
static void mx_hosts_come_by_preference(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    ask_mx(f, "Order.Example", &h);
    assert_int_equal(h.count, 4);
    assert_string_equal(h.hosts[0], "192.0.2.1 25 mx1.order.example");
    assert_string_equal(h.hosts[1], "2001:db8::1 25 mx1.order.example");
    bool two_first = strstr(h.hosts[2], "192.0.2.2") != NULL;
    assert_string_equal(h.hosts[two_first ? 2 : 3], "192.0.2.2 25 mx2.order.example");
    assert_string_equal(h.hosts[two_first ? 3 : 2], "192.0.2.3 25 mx3.order.example");
    assert_true(h.ttl_ms <= 60 * 1000 && h.ttl_ms >= 50 * 1000);
}

/* P-208: equals are shuffled, and only equals. */
static void equal_preferences_are_shuffled(void **state)
{
    struct fixture *f = *state;
    static unsigned char wire[3][32];
    int len[4] = { 0 };
    char *data[4] = { (char *)wire[0], (char *)wire[1], (char *)wire[2], NULL };
    static const char *const names[] = { "a.example", "b.example", "c.example" };
    for (size_t i = 0; i < 3; i++) {
        wire[i][1] = i == 2 ? 5 : 10;
        len[i] = (int)(2 + dns_put_name(wire[i] + 2, names[i]));
    }
    struct ub_result result = { .havedata = 1, .data = data, .len = len };
    struct mx_target targets[RESOLVER_MX_MAX];
    size_t count, a_second = 0;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(resolver_read_mx(&result, &f->entropy, targets, &count),
                         MX_ANSWER_TARGETS);
        assert_int_equal(count, 3);
        assert_string_equal(targets[0].name, "c.example");
        a_second += targets[1].name[0] == 'a';
    }
    assert_true(a_second > 50 && a_second < 150);
}

/* P-208, P-215: many records are capped after sorting; names that are no host names are left out;
 * every cut of a record is survived. */
static void odd_mx_records_are_left_out(void **state)
{
    struct fixture *f = *state;
    static unsigned char wire[40][40];
    char *data[41] = { NULL };
    int len[41] = { 0 };
    struct mx_target targets[RESOLVER_MX_MAX];
    size_t count;
    for (size_t i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof name, "mx%zu.example", i);
        wire[i][1] = (unsigned char)(100 - i);
        len[i] = (int)(2 + dns_put_name(wire[i] + 2, name));
        data[i] = (char *)wire[i];
    }
    struct ub_result result = { .havedata = 1, .data = data, .len = len };
    assert_int_equal(resolver_read_mx(&result, &f->entropy, targets, &count), MX_ANSWER_TARGETS);
    assert_int_equal(count, RESOLVER_MX_MAX);
    assert_string_equal(targets[0].name, "mx39.example");
    wire[39][4] = '.';  /* a dot inside a label */
    wire[38][4] = '\n'; /* a control */
    assert_int_equal(resolver_read_mx(&result, &f->entropy, targets, &count), MX_ANSWER_TARGETS);
    assert_string_equal(targets[0].name, "mx37.example");
    data[1] = NULL;
    int whole = len[0];
    for (len[0] = 0; len[0] < whole; len[0]++) {
        assert_int_equal(resolver_read_mx(&result, &f->entropy, targets, &count),
                         MX_ANSWER_TARGETS);
        assert_int_equal(count, 0);
    }
}

/* P-209 */
static void no_mx_means_the_domain_itself(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    ask_mx(f, "implicit.example", &h);
    assert_int_equal(h.count, 1);
    assert_string_equal(h.hosts[0], "192.0.2.4 25 implicit.example");
    check_failure(f, "empty.example", 550, "5.1.2");
}

/* P-209: MX records without use never fall back to the domain's own address. */
static void useless_mx_is_no_reason_to_try_the_domain(void **state)
{
    check_failure(*state, "useless.example", 451, "4.4.4");
}

/* P-210, RFC 7505 */
/* The same hosts are the same site, in whatever order, with an address or without. */
static void a_site_is_the_names_of_all_hosts(void **state)
{
    struct fixture *f = *state;
    static struct heard half, twin, order, alone;
    ask_mx(f, "half.example", &half);
    ask_mx(f, "twin.example", &twin);
    ask_mx(f, "order.example", &order);
    ask_mx(f, "dot.example", &alone);
    assert_int_equal(strlen(half.site), 16);
    assert_string_equal(twin.site, half.site);
    assert_string_not_equal(order.site, half.site);
    assert_int_equal(strlen(alone.site), 16);
    assert_string_not_equal(alone.site, order.site);
}

static void null_mx_is_permanent(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    check_failure(f, "null.example", 556, "5.1.10");
    ask_mx(f, "dot.example", &h); /* "." amid others is ignored */
    assert_int_equal(h.count, 1);
    assert_string_equal(h.hosts[0], "192.0.2.2 25 mx2.order.example");
}

/* P-211 */
static void only_nxdomain_is_permanent(void **state)
{
    struct fixture *f = *state;
    check_failure(f, "absent.example", 550, "5.1.2");
    check_failure(f, "broken.example", 451, "4.4.3");
    check_failure(f, "shy.example", 451, "4.4.3");
    check_failure(f, "unsure.example", 451, "4.4.3");
}

static void one_broken_host_leaves_the_others(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    ask_mx(f, "half.example", &h);
    assert_int_equal(h.count, 1);
    assert_string_equal(h.hosts[0], "192.0.2.2 25 mx2.order.example");
    assert_int_equal(h.ttl_ms, f->cfg.dns.negative_ms); /* and soon asked again */
}

/* P-213 */
static void private_addresses_are_left_out(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    check_failure(f, "inside.example", 550, "5.4.4");
    check_failure(f, "localhost", 550, "5.4.4");
    ask_mx(f, "mixed.example", &h);
    assert_int_equal(h.count, 1);
    assert_string_equal(h.hosts[0], "192.0.2.5 25 mixed-host.example");
}

static void private_addresses_may_be_allowed(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    f->cfg.relay.allow_private = true;
    f->cfg.relay.mx_port = 2525;
    ask_mx(f, "inside.example", &h);
    assert_int_equal(h.count, 2);
    assert_string_equal(h.hosts[0], "127.0.0.1 2525 inside-host.example");
}

/* P-213, address by address. */
static void networks_that_are_not_for_mail(void **state)
{
    static const struct {
        const char *ip;
        bool is_public;
    } rows[] = {
        { "0.0.0.0", false },
        { "10.255.255.255", false },
        { "11.0.0.0", true },
        { "100.63.255.255", true },
        { "100.64.0.1", false },
        { "127.0.0.53", false },
        { "169.254.169.254", false },
        { "172.15.255.255", true },
        { "172.16.0.1", false },
        { "172.31.255.255", false },
        { "172.32.0.0", true },
        { "192.0.0.8", false },
        { "192.168.1.1", false },
        { "198.18.0.1", false },
        { "198.20.0.1", true },
        { "203.0.113.1", true },
        { "224.0.0.1", false },
        { "255.255.255.255", false },
        { "::", false },
        { "::1", false },
        { "::127.0.0.1", false },
        { "::ffff:127.0.0.1", false },
        { "::ffff:192.0.2.1", true },
        { "64:ff9b::10.0.0.1", false },
        { "64:ff9b::192.0.2.1", true },
        { "2002:7f00:1::1", false },
        { "2001:db8::1", true },
        { "2a00:1450::1", true },
        { "fc00::1", false },
        { "fd12::1", false },
        { "fe80::1", false },
        { "fec0::1", false },
        { "ff02::1", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned char octets[16];
        struct sockaddr_storage addr;
        socklen_t len;
        bool is_v4 = inet_pton(AF_INET, rows[i].ip, octets) == 1;
        assert_true(is_v4 || inet_pton(AF_INET6, rows[i].ip, octets) == 1);
        assert_true(resolver_read_address((char *)octets, is_v4 ? 4 : 16, &addr, &len));
        if (resolver_address_is_public((struct sockaddr *)&addr) != rows[i].is_public)
            fail_msg("%s", rows[i].ip);
    }
}

/* P-48, P-215: what is no domain name is not asked for. */
static void names_that_are_no_domains(void **state)
{
    static const char *const names[] = { "", "[192.0.2.1]", "a..b", ".", "-", "a b", "a\nb" };
    struct fixture *f = *state;
    static struct heard h;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        h = (struct heard){ 0 };
        resolver_lookup_mx(f->r, slice_str(names[i]), &f->now, hear, &h);
        if (h.calls != 1 || h.code != 550 || strcmp(h.enhanced, "5.1.2") != 0)
            fail_msg("%s", names[i]);
    }
}

static void answers_are_cached_by_ttl(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    ask_mx(f, "order.example", &h);
    assert_int_equal(metrics_get(&f->metrics, METRIC_DNS_CACHE_HITS_TOTAL), 0);
    uint32_t ttl_ms = h.ttl_ms;
    f->now.mono_ms += 10000;
    h = (struct heard){ 0 };
    resolver_lookup_mx(f->r, SLICE("ORDER.example"), &f->now, hear, &h);
    assert_int_equal(h.calls, 1); /* at once */
    assert_int_equal(h.count, 4);
    assert_int_equal(h.ttl_ms, ttl_ms - 10000);
    assert_int_equal(metrics_get(&f->metrics, METRIC_DNS_CACHE_HITS_TOTAL), 1);
    assert_int_equal(metrics_get(&f->metrics, METRIC_DNS_LOOKUPS_TOTAL), 2);
    assert_int_equal(scripted_dns_asked(&f->dns, "order.example", DNS_MX), 1);
    f->now.mono_ms += ttl_ms;
    h = (struct heard){ 0 };
    resolver_lookup_mx(f->r, SLICE("order.example"), &f->now, hear, &h);
    assert_int_equal(h.calls, 0); /* expired: asked again */
    wait_for(f, &h, 1);
    assert_int_equal(h.count, 4);
}

static void failures_are_cached_briefly(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    check_failure(f, "absent.example", 550, "5.1.2");
    f->now.mono_ms += f->cfg.dns.negative_ms - 1;
    h = (struct heard){ 0 };
    resolver_lookup_mx(f->r, SLICE("absent.example"), &f->now, hear, &h);
    assert_int_equal(h.calls, 1);
    assert_int_equal(h.code, 550);
    f->now.mono_ms += 1;
    h = (struct heard){ 0 };
    resolver_lookup_mx(f->r, SLICE("absent.example"), &f->now, hear, &h);
    assert_int_equal(h.calls, 0);
    wait_for(f, &h, 1);
}

static void ttl_zero_serves_a_second(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    ask_mx(f, "brief.example", &h);
    assert_int_equal(h.ttl_ms, 1000);
}

static void cache_max_bounds_the_ttl(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    f->cfg.dns.cache_max_ms = 7000;
    ask_mx(f, "order.example", &h);
    assert_int_equal(h.ttl_ms, 7000);
}

/* The oldest answers go when there are too many names, or too many octets of hosts. */
static void cache_is_bounded(void **state)
{
    struct resolver_cache c;
    char name[32];
    resolver_cache_init(&c, 42);
    struct resolver_entry *asking = resolver_cache_add(&c, true, SLICE("asking.example"));
    for (int i = 0; i < 70000; i++) {
        snprintf(name, sizeof name, "d%d.example", i);
        struct resolver_entry *e = resolver_cache_add(&c, true, slice_str(name));
        e->state = ENTRY_KNOWN;
        resolver_cache_keep(&c, e);
    }
    assert_int_equal(c.count, 65536);
    assert_null(resolver_cache_find(&c, true, SLICE("d4463.example")));
    assert_non_null(resolver_cache_find(&c, true, SLICE("d4464.example")));
    assert_null(resolver_cache_find(&c, false, SLICE("d69999.example")));
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "h%d.example", i);
        struct resolver_entry *e = resolver_cache_add(&c, false, slice_str(name));
        e->state = ENTRY_KNOWN;
        e->host_count = 200;
        e->hosts = calloc(e->host_count, sizeof *e->hosts);
        resolver_cache_keep(&c, e);
    }
    assert_true(c.octets <= 32 * 1024 * 1024);
    assert_true(c.count < 500);
    assert_non_null(resolver_cache_find(&c, false, SLICE("h999.example")));
    assert_ptr_equal(resolver_cache_find(&c, true, SLICE("asking.example")), asking);
    resolver_cache_done(&c);
}

static void equal_lookups_are_joined(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    h = (struct heard){ 0 };
    atomic_store(&f->dns.delay_ms, 50);
    for (int i = 0; i < 5; i++)
        resolver_lookup_mx(f->r, SLICE("slow.example"), &f->now, hear, &h);
    assert_int_equal(h.calls, 0);
    wait_for(f, &h, 5);
    assert_int_equal(h.count, 2);
    assert_int_equal(scripted_dns_asked(&f->dns, "slow.example", DNS_MX), 1);
    assert_int_equal(metrics_get(&f->metrics, METRIC_DNS_CACHE_HITS_TOTAL), 0);
}

/* A callee that looks up more, its own name first, while it is being told. */
struct nosy {
    struct fixture *f;
    struct heard inner[2];
    int calls;
};

static void hear_and_ask(void *ctx, const struct relay_host *hosts, size_t count, uint32_t ttl_ms,
                         const struct rcpt_outcome *failure)
{
    struct nosy *n = ctx;
    n->calls++;
    resolver_lookup_mx(n->f->r, SLICE("order.example"), &n->f->now, hear, &n->inner[0]);
    resolver_lookup_mx(n->f->r, SLICE("implicit.example"), &n->f->now, hear, &n->inner[1]);
}

static void callee_may_look_up_more(void **state)
{
    struct fixture *f = *state;
    struct nosy *n = calloc(1, sizeof *n);
    n->f = f;
    f->cfg.dns.cache_max_ms = 0; /* the hardest case: expired as soon as known */
    resolver_lookup_mx(f->r, SLICE("order.example"), &f->now, hear_and_ask, n);
    resolver_lookup_mx(f->r, SLICE("order.example"), &f->now, hear_and_ask, n);
    wait_for(f, &n->inner[1], 2);
    assert_int_equal(n->calls, 2);
    assert_int_equal(n->inner[0].calls, 2);
    assert_int_equal(n->inner[0].count, 4);
    free(n);
}

static void pending_lookups_are_dropped_without_a_call(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    h = (struct heard){ 0 };
    atomic_store(&f->dns.delay_ms, 100);
    resolver_lookup_mx(f->r, SLICE("slow.example"), &f->now, hear, &h);
    resolver_free(f->r);
    f->r = NULL;
    assert_int_equal(h.calls, 0);
}

/* Literals and /etc/hosts answer at once; DNS serves the rest, private networks and all. */
static void smarthosts(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name, *want;
    } rows[] = {
        { "127.0.0.1", "127.0.0.1 2526 127.0.0.1" },
        { "::1", "::1 2526 ::1" },
        { "[2001:db8::9]", "2001:db8::9 2526 [2001:db8::9]" },
    };
    static struct heard h;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        h = (struct heard){ 0 };
        resolver_lookup_host(f->r, rows[i].name, 2526, &f->now, hear, &h);
        assert_int_equal(h.calls, 1);
        assert_string_equal(h.hosts[0], rows[i].want);
    }
    h = (struct heard){ 0 };
    resolver_lookup_host(f->r, "localhost", 2526, &f->now, hear, &h);
    wait_for(f, &h, 1);
    assert_string_equal(h.hosts[0], "127.0.0.1 2526 localhost");
    h = (struct heard){ 0 };
    resolver_lookup_host(f->r, "Relay.test", 587, &f->now, hear, &h);
    wait_for(f, &h, 1);
    assert_string_equal(h.hosts[0], "10.0.0.25 587 relay.test");
    h = (struct heard){ 0 };
    resolver_lookup_host(f->r, "relay.test", 588, &f->now, hear, &h); /* cached, another port */
    assert_int_equal(h.calls, 1);
    assert_string_equal(h.hosts[0], "10.0.0.25 588 relay.test");
}

/* A smarthost that cannot be found is our configuration's trouble: never a bounce. */
static void missing_smarthost_defers(void **state)
{
    struct fixture *f = *state;
    static struct heard h;
    h = (struct heard){ 0 };
    resolver_lookup_host(f->r, "absent.example", 25, &f->now, hear, &h);
    wait_for(f, &h, 1);
    assert_int_equal(h.code, 451);
    assert_string_equal(h.enhanced, "4.4.4");
}

static void bad_server_is_told(void **state)
{
    char bad[] = "not an address";
    char *servers[] = { bad };
    struct config cfg = { .dns.servers = servers, .dns.server_count = 1 };
    uint64_t seed = 1;
    struct entropy entropy;
    struct metrics metrics;
    struct resolver *r = NULL;
    struct buf error;
    buf_init(&error, 256);
    entropy_init_seeded(&entropy, &seed);
    assert_int_equal(resolver_new(&cfg, &entropy, &metrics, &r, &error), STATUS_SYSTEM);
    assert_non_null(memmem(error.ptr, error.len, "dns.servers", 11));
    buf_done(&error);
}

#define WITH_DNS(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DNS(mx_hosts_come_by_preference),
        WITH_DNS(a_site_is_the_names_of_all_hosts),
        WITH_DNS(equal_preferences_are_shuffled),
        WITH_DNS(odd_mx_records_are_left_out),
        WITH_DNS(no_mx_means_the_domain_itself),
        WITH_DNS(useless_mx_is_no_reason_to_try_the_domain),
        WITH_DNS(null_mx_is_permanent),
        WITH_DNS(only_nxdomain_is_permanent),
        WITH_DNS(one_broken_host_leaves_the_others),
        WITH_DNS(private_addresses_are_left_out),
        WITH_DNS(private_addresses_may_be_allowed),
        cmocka_unit_test(networks_that_are_not_for_mail),
        WITH_DNS(names_that_are_no_domains),
        WITH_DNS(answers_are_cached_by_ttl),
        WITH_DNS(failures_are_cached_briefly),
        WITH_DNS(ttl_zero_serves_a_second),
        WITH_DNS(cache_max_bounds_the_ttl),
        cmocka_unit_test(cache_is_bounded),
        WITH_DNS(equal_lookups_are_joined),
        WITH_DNS(callee_may_look_up_more),
        WITH_DNS(pending_lookups_are_dropped_without_a_call),
        WITH_DNS(smarthosts),
        WITH_DNS(missing_smarthost_defers),
        cmocka_unit_test(bad_server_is_told),
    };
    return cmocka_run_group_tests_name("resolver", tests, NULL, NULL);
}
