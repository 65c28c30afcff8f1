/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolver - lookups that are cached, joined and never wait. Rules: resolver.h.
 *
 * Life of an entry (one name, as mail domain or as host):
 *     MX -> ADDRESSES -> TLSA -> KNOWN -> (expired or evicted) freed
 *     a host begins at ADDRESSES; a failure goes to KNOWN at once. TLSA is for mail domains whose
 *     MX records DNSSEC vouches for, and of their hosts those whose addresses it vouches for.
 * While it is asking, everybody who wants the same name waits on it. `step` moves it on when its
 * last open query was answered; `conclude` answers the waiters.
 *
 * Limits: the cache's (resolver_cache.c). At most as many entries are asking as there are
 * destinations the caller waits for. libunbound has a small cache of its own below, and joins equal
 * queries of different names.
 *
 * Blocking: libunbound resolves in its own thread; ub_resolve_async writes a few dozen octets to a
 * pipe that this thread empties at once.
 *
 * Addresses of a host are tried IPv4 first: many receivers judge mail over IPv6 more harshly, and
 * many gateways have no IPv6 at all.
 *
 * DANE (RFC 7672): with dns.trust_anchor libunbound validates. What is bogus is no answer at all. A
 * host whose TLSA records cannot be had is left out, as if it did not exist: whoever can suppress
 * them must not be able to choose clear text (P-200). An alias's TLSA records are looked for under
 * the name that the MX record has.
 *
 * To add a failure: a row in FAILURE_TABLE (resolver_cache.h). To look something else up (MTA-STS):
 * another state before KNOWN.
 */
#include "io/resolver.h"
#include "core/base/must.h"
#include "core/smtp/address.h"
#include "io/hosts_file.h"
#include "io/resolver_cache.h"
#include "io/resolver_context.h"

#include <arpa/inet.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#define TTL_MIN_MS 1000 /* TTL 0 still serves the mail of one second */

#define TYPE_A    1
#define TYPE_MX   15
#define TYPE_TXT  16
#define TYPE_AAAA 28
#define TYPE_TLSA 52
#define CLASS_IN  1

#define RCODE_NOERROR  0
#define RCODE_NXDOMAIN 3

static const struct {
    int code;
    const char *enhanced;
    const char *text;
} failures[] = {
#define X(name, code, enhanced, text) { code, enhanced, text },
    FAILURE_TABLE(X)
#undef X
};

/* One question to libunbound. */
struct query {
    struct list node; /* on r->queries */
    struct resolver *r;
    struct resolver_entry *entry; /* NULL: TXT, which is nobody's */
    size_t target;
    int type;
    resolver_txt_fn *txt_fn;
    void *txt_ctx;
};

struct resolver {
    struct ub_ctx *ctx;
    const struct config *cfg;
    struct entropy *entropy;
    struct metrics *metrics;
    struct now now; /* of the call we are in */
    struct hosts_file hosts;
    struct resolver_cache cache;
    struct list queries; /* struct query, under way */
};

/* ---- answering ---- */

static void set_port(struct relay_host *h, uint16_t port)
{
    if (h->addr.ss_family == AF_INET)
        ((struct sockaddr_in *)&h->addr)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)&h->addr)->sin6_port = htons(port);
}

static int compare_names(const void *left, const void *right)
{
    return strcasecmp(*(char *const *)left, *(char *const *)right);
}

/* In lower case, with its NUL. */
static void add_name(SHA256_CTX *sha, const char *name)
{
    for (size_t i = 0; i <= strlen(name); i++) {
        char c = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
        SHA256_Update(sha, &c, 1);
    }
}

/* Of the hosts that the domain names, whether they have an address now or not, so that all nodes
 * say the same. */
static void digest_site(const struct resolver_entry *e, char out[SITE_DIGEST_MAX])
{
    char *names[RESOLVER_MX_MAX];
    uint8_t hash[SHA256_DIGEST_LENGTH];
    SHA256_CTX sha;
    for (size_t i = 0; i < e->target_count; i++)
        names[i] = e->targets[i].name;
    qsort(names, e->target_count, sizeof *names, compare_names);
    SHA256_Init(&sha);
    for (size_t i = 0; i < e->target_count; i++)
        add_name(&sha, names[i]);
    SHA256_Final(hash, &sha);
    for (size_t i = 0; i < 8; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

/* Gives the hosts, at least one (copied, so that the callee may look up more and evict what they
 * came from). */
static void give_hosts(const struct relay_host *hosts, size_t count, uint32_t ttl_ms, uint16_t port,
                       resolver_fn *fn, void *ctx)
{
    struct relay_host *copy = mem_alloc(count * sizeof *copy);
    memcpy(copy, hosts, count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        set_port(&copy[i], port);
    fn(ctx, copy, count, ttl_ms, NULL);
    free(copy);
}

static void give_failure(enum resolver_failure why, struct slice name, uint32_t ttl_ms,
                         resolver_fn *fn, void *ctx)
{
    char text[400];
    int len = snprintf(text, sizeof text, "%.*s: %s", (int)(name.len < 255 ? name.len : 255),
                       name.len ? name.ptr : "", failures[why].text);
    struct rcpt_outcome o = { .stage = OUTCOME_DNS, .code = failures[why].code };
    snprintf(o.enhanced, sizeof o.enhanced, "%s", failures[why].enhanced);
    o.text = slice_of(text, (size_t)len);
    fn(ctx, NULL, 0, ttl_ms, &o);
}

static uint32_t ttl_left(const struct resolver *r, const struct resolver_entry *e)
{
    int64_t left = e->expires_ms - r->now.mono_ms;
    return left > 0 ? (uint32_t)left : 0;
}

/* The hosts that somebody may be sent to; returns how many. */
static size_t usable_hosts(const struct resolver_entry *e, bool waives_dane, struct relay_host *out)
{
    size_t count = 0;
    for (size_t i = 0; i < e->host_count; i++) {
        if (e->hosts[i].tlsa.is_unknown && !waives_dane)
            continue;
        out[count] = e->hosts[i];
        if (waives_dane)
            out[count].tlsa = (struct tlsa_set){ 0 };
        count++;
    }
    return count;
}

static void give(struct resolver *r, const struct resolver_entry *e,
                 const struct resolver_waiter *w)
{
    if (e->failure != FAILURE_NONE) {
        give_failure(e->failure, slice_str(e->name), ttl_left(r, e), w->fn, w->ctx);
        return;
    }
    struct relay_host *hosts = mem_alloc(e->host_count * sizeof *hosts);
    size_t count = usable_hosts(e, w->waives_dane, hosts);
    if (count > 0)
        give_hosts(hosts, count, ttl_left(r, e), w->port, w->fn, w->ctx);
    else
        give_failure(FAILURE_TLSA, slice_str(e->name), ttl_left(r, e), w->fn, w->ctx);
    free(hosts);
}

/* ---- concluding ---- */

static int compare_found(const void *left, const void *right)
{
    const struct resolver_found *a = left, *b = right;
    if (a->target != b->target)
        return a->target < b->target ? -1 : 1;
    if (a->is_v6 != b->is_v6)
        return a->is_v6 ? 1 : -1;
    return (a->shuffle > b->shuffle) - (a->shuffle < b->shuffle);
}

/* Hosts in the order to try them, RESOLVER_ADDRESS_MAX of each target. */
static void order_hosts(struct resolver_entry *e)
{
    if (e->found_count == 0)
        return;
    qsort(e->found, e->found_count, sizeof *e->found, compare_found);
    e->hosts = mem_zalloc(e->found_count * sizeof *e->hosts);
    uint32_t of_target = 0;
    char site[SITE_DIGEST_MAX];
    digest_site(e, site);
    for (size_t i = 0; i < e->found_count; i++) {
        const struct resolver_found *f = &e->found[i];
        of_target = i > 0 && f[-1].target == f->target ? of_target + 1 : 0;
        if (of_target >= RESOLVER_ADDRESS_MAX)
            continue;
        struct relay_host *h = &e->hosts[e->host_count++];
        h->addr = f->addr;
        h->addr_len = f->addr_len;
        snprintf(h->name, sizeof h->name, "%s", e->targets[f->target].name);
        h->tlsa = e->targets[f->target].tlsa;
        h->tlsa.is_unknown = e->targets[f->target].lacks_tlsa;
        memcpy(h->site, site, sizeof h->site);
    }
}

static enum resolver_failure why_no_host(const struct resolver_entry *e)
{
    if (e->is_uncertain) /* P-211: never a bounce on a guess */
        return e->is_bogus ? FAILURE_BOGUS : FAILURE_SERVERS;
    if (e->saw_private)
        return FAILURE_PRIVATE;
    if (!e->is_mx)
        return FAILURE_SMARTHOST; /* our configuration's fault: wait for its repair */
    return e->is_implicit ? FAILURE_NO_HOST : FAILURE_NO_ADDRESS;
}

/* How long the answer may serve. */
static uint32_t lifetime_ms(const struct resolver *r, const struct resolver_entry *e)
{
    uint32_t ms = e->ttl_ms > TTL_MIN_MS ? e->ttl_ms : TTL_MIN_MS;
    if ((e->failure != FAILURE_NONE || e->is_uncertain || e->lacks_tlsa) &&
        ms > r->cfg->dns.negative_ms)
        ms = r->cfg->dns.negative_ms;
    return ms < r->cfg->dns.cache_max_ms ? ms : r->cfg->dns.cache_max_ms;
}

/* The answers are complete: the entry becomes KNOWN and its waiters hear it. A callee may look up
 * more, even this name, so the entry is held outside the cache until the last one was told. */
static void conclude(struct resolver *r, struct resolver_entry *e)
{
    must(e->open == 0 && e->state != ENTRY_KNOWN);
    order_hosts(e);
    if (e->failure == FAILURE_NONE && e->host_count == 0)
        e->failure = why_no_host(e);
    free(e->targets);
    free(e->found);
    e->targets = NULL;
    e->found = NULL;
    e->state = ENTRY_KNOWN;
    e->expires_ms = r->now.mono_ms + lifetime_ms(r, e);
    while (!list_is_empty(&e->waiters)) {
        struct resolver_waiter *w = list_entry(e->waiters.next, struct resolver_waiter, node);
        list_remove(&w->node);
        give(r, e, w);
        free(w);
    }
    resolver_cache_keep(&r->cache, e);
}

/* ---- asking ---- */

static void on_answer(void *arg, int err, struct ub_result *result);

static void ask(struct resolver *r, struct resolver_entry *e, size_t target, const char *name,
                int type)
{
    struct query *q = mem_zalloc(sizeof *q);
    q->r = r;
    q->entry = e;
    q->target = target;
    q->type = type;
    if (ub_resolve_async(r->ctx, name, type, CLASS_IN, q, on_answer, NULL) != UB_NOERROR) {
        e->is_uncertain = true;
        free(q);
        return;
    }
    list_push_back(&r->queries, &q->node);
    e->open++;
}

static void ask_addresses(struct resolver *r, struct resolver_entry *e)
{
    for (size_t i = 0; i < e->target_count; i++) {
        ask(r, e, i, e->targets[i].name, TYPE_A);
        ask(r, e, i, e->targets[i].name, TYPE_AAAA);
    }
}

static bool has_address(const struct resolver_entry *e, size_t target)
{
    for (size_t i = 0; i < e->found_count; i++)
        if (e->found[i].target == target)
            return true;
    return false;
}

/* RFC 7672 2.2: of hosts that DNSSEC vouches for, all the way. */
static void ask_tlsa(struct resolver *r, struct resolver_entry *e)
{
    for (size_t i = 0; i < e->target_count; i++) {
        char name[sizeof e->targets[i].name + sizeof "_65535._tcp."];
        if (e->targets[i].is_insecure || !has_address(e, i))
            continue;
        snprintf(name, sizeof name, "_%u._tcp.%s", r->cfg->relay.mx_port, e->targets[i].name);
        ask(r, e, i, name, TYPE_TLSA);
    }
}

/* The name itself is the only target: a smarthost, or an implicit MX. */
static void target_self(struct resolver_entry *e)
{
    e->targets = mem_zalloc(sizeof *e->targets);
    e->target_count = 1;
    snprintf(e->targets[0].name, sizeof e->targets[0].name, "%s", e->name);
}

/* No query is open: on to the next state. */
static void step(struct resolver *r, struct resolver_entry *e)
{
    bool has_targets = e->state == ENTRY_MX && e->target_count > 0;
    if (has_targets && e->failure == FAILURE_NONE) {
        e->state = ENTRY_ADDRESSES;
        ask_addresses(r, e);
    } else if (e->state == ENTRY_ADDRESSES && e->is_secure) {
        e->state = ENTRY_TLSA;
        ask_tlsa(r, e);
    }
    if (e->open == 0)
        conclude(r, e);
}

static void begin(struct resolver *r, struct resolver_entry *e)
{
    if (e->is_mx) {
        ask(r, e, 0, e->name, TYPE_MX);
    } else {
        target_self(e);
        ask_addresses(r, e);
    }
    if (e->open == 0)
        conclude(r, e);
}

static void note_ttl(struct resolver_entry *e, const struct ub_result *result)
{
    int64_t ms = (int64_t)result->ttl * 1000;
    if (ms >= 0 && ms < e->ttl_ms)
        e->ttl_ms = (uint32_t)ms;
}

static void on_mx(struct resolver *r, struct resolver_entry *e, const struct ub_result *result)
{
    e->is_secure = result->secure;
    if (result->rcode == RCODE_NXDOMAIN) {
        e->failure = FAILURE_NO_DOMAIN;
        return;
    }
    struct mx_target targets[RESOLVER_MX_MAX];
    switch (resolver_read_mx(result, r->entropy, targets, &e->target_count)) {
    case MX_ANSWER_NONE:
        e->is_implicit = true;
        target_self(e);
        break;
    case MX_ANSWER_NULL: e->failure = FAILURE_NULL_MX; break;
    case MX_ANSWER_TARGETS:
        note_ttl(e, result);
        e->targets = mem_alloc(RESOLVER_MX_MAX * sizeof *e->targets);
        memcpy(e->targets, targets, e->target_count * sizeof *targets);
        break;
    }
}

static void add_address(struct resolver *r, struct resolver_entry *e, size_t target,
                        const char *data, int len)
{
    struct resolver_found f = { .target = (uint32_t)target, .is_v6 = len == 16 };
    if (!resolver_read_address(data, len, &f.addr, &f.addr_len))
        return;
    if (e->is_mx && !r->cfg->relay.allow_private &&
        !resolver_address_is_public((const struct sockaddr *)&f.addr)) {
        e->saw_private = true;
        return;
    }
    f.shuffle = entropy_u64(r->entropy);
    e->found = mem_realloc(e->found, (e->found_count + 1) * sizeof f);
    e->found[e->found_count++] = f;
}

static void on_address(struct resolver *r, struct resolver_entry *e, size_t target,
                       const struct ub_result *result)
{
    e->targets[target].is_insecure |= !result->secure;
    if (!result->havedata)
        return;
    note_ttl(e, result);
    for (size_t i = 0; result->data[i] && i < RESOLVER_ADDRESS_MAX; i++)
        add_address(r, e, target, result->data[i], result->len[i]);
}

/* An answer that DNSSEC does not vouch for, below a host for which it did, is none of DANE's. */
static void on_tlsa(struct resolver_entry *e, size_t target, const struct ub_result *result)
{
    if (!result->havedata || !result->secure)
        return;
    note_ttl(e, result);
    for (size_t i = 0; result->data[i]; i++)
        tlsa_add(&e->targets[target].tlsa,
                 slice_of(result->data[i], (size_t)(result->len[i] > 0 ? result->len[i] : 0)));
}

/* A query without an answer. */
static void on_nothing(struct resolver_entry *e, const struct query *q)
{
    if (q->type == TYPE_TLSA)
        e->lacks_tlsa = e->targets[q->target].lacks_tlsa = true;
    else
        e->is_uncertain = true;
}

/* libunbound's callback, from within ub_process. */
static void on_answer(void *arg, int err, struct ub_result *result)
{
    struct query *q = arg;
    struct resolver *r = q->r;
    struct resolver_entry *e = q->entry;
    must(e->open > 0);
    e->open--;
    list_remove(&q->node);
    e->is_bogus |= err == 0 && result->bogus;
    bool is_answer = err == 0 && !result->bogus &&
                     (result->rcode == RCODE_NOERROR || result->rcode == RCODE_NXDOMAIN);
    if (!is_answer)
        on_nothing(e, q);
    else if (q->type == TYPE_MX)
        on_mx(r, e, result);
    else if (q->type == TYPE_TLSA)
        on_tlsa(e, q->target, result);
    else
        on_address(r, e, q->target, result);
    if (err == 0)
        ub_resolve_free(result);
    free(q);
    if (e->open == 0)
        step(r, e);
}

/* ---- TXT ---- */

/* Joins the strings of a record into out, which has room for all of them. */
static struct slice join_strings(struct slice data, char *out)
{
    size_t len = 0;
    while (data.len > 0) {
        size_t part = (unsigned char)data.ptr[0];
        data = slice_skip(data, 1);
        struct slice string = slice_head(data, part);
        memcpy(out + len, string.ptr, string.len);
        len += string.len;
        data = slice_skip(data, part);
    }
    return slice_of(out, len);
}

static void on_txt(void *arg, int err, struct ub_result *result)
{
    struct query *q = arg;
    struct slice texts[RESOLVER_TXT_MAX];
    size_t count = 0;
    bool is_answer = err == 0 && !result->bogus &&
                     (result->rcode == RCODE_NOERROR || result->rcode == RCODE_NXDOMAIN);
    char *room[RESOLVER_TXT_MAX];
    list_remove(&q->node);
    for (; is_answer && result->havedata && count < RESOLVER_TXT_MAX && result->data[count];
         count++) {
        size_t len = result->len[count] > 0 ? (size_t)result->len[count] : 0;
        room[count] = mem_alloc(len + 1);
        texts[count] = join_strings(slice_of(result->data[count], len), room[count]);
    }
    if (err == 0)
        ub_resolve_free(result);
    q->txt_fn(q->txt_ctx, is_answer, texts, count);
    while (count > 0)
        free(room[--count]);
    free(q);
}

void resolver_lookup_txt(struct resolver *r, const char *name, resolver_txt_fn *fn, void *ctx)
{
    struct query *q = mem_zalloc(sizeof *q);
    *q = (struct query){ .r = r, .type = TYPE_TXT, .txt_fn = fn, .txt_ctx = ctx };
    list_push_back(&r->queries, &q->node);
    if (ub_resolve_async(r->ctx, name, TYPE_TXT, CLASS_IN, q, on_txt, NULL) == UB_NOERROR)
        return;
    list_remove(&q->node);
    free(q);
    fn(ctx, false, NULL, 0);
}

/* ---- entry points ---- */

static void lookup(struct resolver *r, bool is_mx, struct slice name,
                   const struct resolver_waiter *waiter)
{
    struct resolver_entry *e = resolver_cache_find(&r->cache, is_mx, name);
    if (e && resolver_cache_keeps(e) && e->expires_ms <= r->now.mono_ms) {
        resolver_cache_drop(&r->cache, e);
        e = NULL;
    }
    if (e && e->state == ENTRY_KNOWN) {
        metrics_add(r->metrics, METRIC_DNS_CACHE_HITS_TOTAL, 1);
        give(r, e, waiter);
        return;
    }
    bool is_new = e == NULL;
    if (is_new)
        e = resolver_cache_add(&r->cache, is_mx, name);
    struct resolver_waiter *w = mem_alloc(sizeof *w);
    *w = *waiter;
    list_push_back(&e->waiters, &w->node);
    if (is_new)
        begin(r, e);
}

/* Lower case into out; false: not a domain name. Address literals end here too (P-48). */
static bool normalize(struct slice name, char out[ADDRESS_DOMAIN_MAX + 1])
{
    if (name.len > ADDRESS_DOMAIN_MAX || !address_domain_is_valid(name))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    out[name.len] = '\0';
    return true;
}

static void lookup_mx(struct resolver *r, struct slice domain, const struct now *now,
                      const struct resolver_waiter *waiter)
{
    char name[ADDRESS_DOMAIN_MAX + 1];
    r->now = *now;
    metrics_add(r->metrics, METRIC_DNS_LOOKUPS_TOTAL, 1);
    if (!normalize(domain, name))
        give_failure(FAILURE_NAME, domain, r->cfg->dns.negative_ms, waiter->fn, waiter->ctx);
    else
        lookup(r, true, slice_str(name), waiter);
}

void resolver_lookup_mx(struct resolver *r, struct slice domain, const struct now *now,
                        resolver_fn *fn, void *ctx)
{
    struct resolver_waiter w = { .fn = fn, .ctx = ctx, .port = r->cfg->relay.mx_port };
    lookup_mx(r, domain, now, &w);
}

void resolver_lookup_mx_without_dane(struct resolver *r, struct slice domain, const struct now *now,
                                     resolver_fn *fn, void *ctx)
{
    struct resolver_waiter w = {
        .fn = fn, .ctx = ctx, .port = r->cfg->relay.mx_port, .waives_dane = true
    };
    lookup_mx(r, domain, now, &w);
}

/* Addresses that need no DNS: a literal, or the names of /etc/hosts. Returns how many. */
static size_t find_local(const struct resolver *r, const char *name,
                         struct relay_host out[RESOLVER_ADDRESS_MAX])
{
    size_t count = 0, at = 0;
    const struct hosts_row *row;
    if (hosts_parse_address(name, &out[0].addr, &out[0].addr_len))
        count = 1;
    while (count < RESOLVER_ADDRESS_MAX && at < r->hosts.count &&
           (row = hosts_file_next(&r->hosts, slice_str(name), &at)) != NULL) {
        out[count].addr = row->addr;
        out[count++].addr_len = row->addr_len;
    }
    for (size_t i = 0; i < count; i++)
        snprintf(out[i].name, sizeof out[i].name, "%s", name);
    return count;
}

void resolver_lookup_host(struct resolver *r, const char *name, uint16_t port,
                          const struct now *now, resolver_fn *fn, void *ctx)
{
    struct relay_host local[RESOLVER_ADDRESS_MAX] = { 0 };
    char lower[ADDRESS_DOMAIN_MAX + 1];
    r->now = *now;
    metrics_add(r->metrics, METRIC_DNS_LOOKUPS_TOTAL, 1);
    size_t count = find_local(r, name, local);
    if (count > 0)
        give_hosts(local, count, r->cfg->dns.cache_max_ms, port, fn, ctx);
    else if (!normalize(slice_str(name), lower))
        give_failure(FAILURE_SMARTHOST, slice_str(name), r->cfg->dns.negative_ms, fn, ctx);
    else
        lookup(r, false, slice_str(lower),
               &(struct resolver_waiter){ .fn = fn, .ctx = ctx, .port = port });
}

int resolver_fd(const struct resolver *r)
{
    return ub_fd(r->ctx);
}

void resolver_process(struct resolver *r, const struct now *now)
{
    r->now = *now;
    /* An error here means that the resolver thread is gone; queries then never end, and the relay's
     * deliveries stay leased until we are restarted: better to end now, loudly. */
    must(ub_process(r->ctx) == UB_NOERROR);
}

/* ---- start and end ---- */

enum status resolver_new(const struct config *cfg, struct entropy *entropy, struct metrics *metrics,
                         struct resolver **out, struct buf *error)
{
    struct ub_ctx *ctx;
    enum status st = resolver_context_new(cfg, &ctx, error);
    if (st != STATUS_OK)
        return st;
    struct resolver *r = mem_zalloc(sizeof *r);
    r->ctx = ctx;
    r->cfg = cfg;
    r->entropy = entropy;
    r->metrics = metrics;
    resolver_cache_init(&r->cache, entropy_u64(entropy));
    list_init(&r->queries);
    hosts_file_load(&r->hosts, "/etc/hosts");
    *out = r;
    return STATUS_OK;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    resolver_context_free(r->ctx); /* ends its thread; no callback comes any more */
    list_for_each_safe (node, &r->queries)
        free(list_entry(node, struct query, node));
    resolver_cache_done(&r->cache);
    hosts_file_done(&r->hosts);
    free(r);
}
