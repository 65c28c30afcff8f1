/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route - patterns to next hops, recipients to destinations.
 *
 * Finding a route compares the domain with each pattern; configurations have few. Splitting a
 * message sorts its recipients by destination and walks the sorted run, so a thousand recipients at
 * a thousand domains cost a thousand times ten comparisons, whatever names a sender makes up. The
 * usual message, one recipient, is not sorted at all.
 *
 * Groups come in the order of their first recipient, recipients within a group in the given order.
 *
 * A domain in U-labels has the routes and the key of its A-labels. One that has none (idn.h) is
 * like no domain at all.
 *
 * A message that leaves from one of several sources has the name of one in its keys: connections,
 * limits and patience are kept apart by source that way, without a word about it anywhere else.
 *
 * A route for some tenants or lanes has its name in the keys of its MX deliveries: what it says of
 * TLS, say, is not what the general route says for the same domain.
 *
 * To add a kind of route: enum relay_kind, its sign in route_dest_key, its case in route_of_key.
 */
#include "core/relay/route.h"
#include "core/base/must.h"
#include "core/relay/source.h"
#include "core/smtp/idn.h"
#include <stdlib.h>

/* The key of a domain that is not there (bare postmaster) under an MX route: the root, which has no
 * MX, so that it fails like any other domain without one. */
#define KEY_NO_DOMAIN "."

/* --- routes ---------------------------------------------------------------------------------- */

/* "*.example.org" has the domain a.example.org below it, and a.b.example.org, not example.org. */
static bool is_below(struct slice domain, struct slice suffix)
{
    return domain.len > suffix.len &&
           slice_eq_nocase(slice_skip(domain, domain.len - suffix.len), suffix);
}

static bool matches(struct slice pattern, struct slice domain)
{
    if (slice_eq(pattern, SLICE("*")))
        return true;
    if (pattern.len > 1 && pattern.ptr[0] == '*')
        return is_below(domain, slice_skip(pattern, 1)); /* its dot stays */
    return domain.len > 0 && slice_eq_nocase(pattern, domain);
}

/* The domain as DNS has it: itself when it is ASCII, else its A-labels, written to out; empty when
 * it has none (P-71, P-215). */
static struct slice ascii_domain(struct slice domain, char out[IDN_ASCII_MAX])
{
    size_t len;
    if (!idn_is_needed(domain))
        return domain;
    return idn_to_ascii(domain, out, &len) ? slice_of(out, len) : SLICE_NONE;
}

static bool is_for_tenant(const struct config_route *route, struct slice tenant)
{
    for (size_t i = 0; i < route->tenant_count; i++)
        if (slice_eq(slice_str(route->tenants[i]), tenant))
            return true;
    return route->tenant_count == 0;
}

static bool takes(const struct config_route *route, const struct route_query *query)
{
    return matches(slice_str(route->pattern), query->domain) &&
           (route->lanes == 0 || (route->lanes & 1U << query->lane)) &&
           is_for_tenant(route, query->tenant);
}

/* An exact pattern beats any wildcard, a longer wildcard a shorter one; then who names the tenant,
 * then who names the lane. Configurations have no two of one rank for the same mail. */
static size_t rank(const struct config_route *route)
{
    size_t pattern = route->pattern[0] == '*' ? strlen(route->pattern) : SIZE_MAX / 4;
    return pattern * 4 + (route->tenant_count > 0) * 2 + (route->lanes != 0);
}

static const struct config_route *find_ascii(const struct config *cfg,
                                             const struct route_query *query)
{
    const struct config_route *best = NULL;
    for (size_t i = 0; i < cfg->route_count; i++)
        if (takes(&cfg->routes[i], query) && (!best || rank(&cfg->routes[i]) > rank(best)))
            best = &cfg->routes[i];
    return best;
}

const struct config_route *route_find(const struct config *cfg, const struct route_query *query)
{
    char ascii[IDN_ASCII_MAX];
    struct route_query q = *query;
    q.domain = ascii_domain(query->domain, ascii);
    return find_ascii(cfg, &q);
}

static const struct config_route *route_named(const struct config *cfg, struct slice name,
                                              enum relay_kind kind)
{
    for (size_t i = 0; i < cfg->route_count; i++)
        if (cfg->routes[i].relay == kind && slice_eq(slice_str(cfg->routes[i].name), name))
            return &cfg->routes[i];
    return NULL;
}

/* The best of those that take the mail of every tenant and lane. */
static const struct config_route *general_route(const struct config *cfg, struct slice domain)
{
    const struct config_route *best = NULL;
    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct config_route *route = &cfg->routes[i];
        if (config_route_is_general(route) && matches(slice_str(route->pattern), domain) &&
            (!best || rank(route) > rank(best)))
            best = route;
    }
    return best;
}

/* Octets of "SOURCE^" in front of a key. */
static size_t source_len(struct slice key)
{
    size_t caret = slice_find(key, '^');
    return caret < key.len ? caret + 1 : 0;
}

static struct slice domain_of_key(struct slice key)
{
    return slice_eq(key, SLICE(KEY_NO_DOMAIN)) ? SLICE_NONE : key;
}

/* "NAME/DOMAIN": whether its mail still finds this route best is seen when it is taken up. */
static const struct config_route *special_route(const struct config *cfg, struct slice key,
                                                size_t slash)
{
    const struct config_route *route = route_named(cfg, slice_head(key, slash), RELAY_MX);
    struct slice domain = domain_of_key(slice_skip(key, slash + 1));
    if (!route || config_route_is_general(route))
        return NULL;
    return matches(slice_str(route->pattern), domain) ? route : NULL;
}

/* A key is good as long as the configuration would make it again. */
const struct config_route *route_of_key(const struct config *cfg, struct slice key)
{
    key = slice_skip(key, source_len(key));
    if (key.len > 0 && key.ptr[0] == '@')
        return route_named(cfg, slice_skip(key, 1), RELAY_SMARTHOST);
    if (key.len > 0 && key.ptr[0] == '!')
        return route_named(cfg, slice_skip(key, 1), RELAY_HOLD);
    if (key.len > 0 && key.ptr[0] == '~')
        key = slice_skip(key, 1);
    size_t slash = slice_find(key, '/');
    if (slash < key.len)
        return special_route(cfg, key, slash);
    const struct config_route *route = general_route(cfg, domain_of_key(key));
    return route && route->relay == RELAY_MX ? route : NULL;
}

/* --- keys ------------------------------------------------------------------------------------ */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Domains were checked when they came in; what a record read back may hold besides is made harmless
 * for logs and keys. */
static char key_octet(char c)
{
    return c > ' ' && c < '~' && c != '/' && c != '^' ? lower(c) : '?';
}

static size_t put_name(struct slice name, char out[DEST_KEY_MAX], size_t len)
{
    name = slice_head(name, DEST_KEY_MAX - 1 - len);
    for (size_t i = 0; i < name.len; i++)
        out[len++] = key_octet(name.ptr[i]);
    return len;
}

static size_t put_mx_key(const struct config_route *route, const struct route_query *query,
                         char out[DEST_KEY_MAX], size_t len)
{
    char ascii[IDN_ASCII_MAX];
    struct slice name = ascii_domain(query->domain, ascii);
    if (query->waives_tls)
        out[len++] = '~';
    if (!config_route_is_general(route)) {
        must(strlen(route->name) <= ROUTE_NAME_MAX);
        len = put_name(slice_str(route->name), out, len);
        out[len++] = '/';
    }
    return put_name(name.len > 0 ? name : SLICE(KEY_NO_DOMAIN), out, len);
}

size_t route_source_key(const struct config_route *route, const struct route_query *query,
                        const struct config_source *source, char out[DEST_KEY_MAX])
{
    static const char signs[] = { [RELAY_SMARTHOST] = '@', [RELAY_HOLD] = '!' };
    size_t len = 0;
    if (source) {
        len = put_name(slice_str(source->name), out, 0);
        out[len++] = '^';
    }
    if (route->relay == RELAY_MX) {
        len = put_mx_key(route, query, out, len);
    } else {
        out[len++] = signs[route->relay];
        len = put_name(slice_str(route->name), out, len);
    }
    out[len] = '\0';
    return len;
}

size_t route_dest_key(const struct config_route *route, const struct route_query *query,
                      char out[DEST_KEY_MAX])
{
    return route_source_key(route, query, NULL, out);
}

const char *route_key_base(const char *key)
{
    return key + source_len(slice_str(key));
}

const char *route_key_domain(const char *key)
{
    const char *base = route_key_base(key);
    const char *slash = strchr(base, '/');
    return slash ? slash + 1 : base + (base[0] == '~');
}

const struct config_source *route_key_source(const struct config *cfg, const char *key)
{
    size_t len = source_len(slice_str(key));
    return len > 0 ? config_find_source(cfg, slice_of(key, len - 1)) : NULL;
}

bool route_key_is_current(const struct config *cfg, const struct route_query *query,
                          const char *key)
{
    char base[DEST_KEY_MAX];
    const struct config_route *route = route_find(cfg, query);
    const struct config_source *source = route_key_source(cfg, key);
    bool has_source = route_key_base(key) != key;
    if (!route || has_source != (route->source_set != 0 && route->relay != RELAY_HOLD))
        return false;
    if (has_source && (!source || !(route->source_set >> (source - cfg->sources) & 1)))
        return false;
    route_dest_key(route, query, base);
    return strcmp(base, route_key_base(key)) == 0;
}

/* --- splitting ------------------------------------------------------------------------------- */

/* One recipient on its way into a group. */
struct place {
    const struct config_route *route;
    struct slice domain; /* empty when the route alone is the destination */
    uint32_t position;   /* in the given list */
    uint32_t rcpt;       /* index into message->rcpts */
};

/* A run of places of one destination. */
struct run {
    uint32_t first; /* index of its first place */
    uint32_t count;
    uint32_t position; /* of that place */
};

static int by_number(uintptr_t a, uintptr_t b)
{
    return (a > b) - (a < b);
}

static int by_domain(struct slice a, struct slice b)
{
    if (a.len != b.len || a.len == 0)
        return by_number(a.len, b.len);
    return strncasecmp(a.ptr, b.ptr, a.len);
}

static int by_destination(const struct place *a, const struct place *b)
{
    int order = by_number((uintptr_t)a->route, (uintptr_t)b->route);
    return order ? order : by_domain(a->domain, b->domain);
}

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    int order = by_destination(a, b);
    return order ? order : by_number(a->position, b->position);
}

static int compare_runs(const void *left, const void *right)
{
    const struct run *a = left, *b = right;
    return by_number(a->position, b->position);
}

/* So that both ways to write a domain are one destination. */
static struct slice lasting_domain(struct slice domain, struct arena *arena)
{
    char out[IDN_ASCII_MAX];
    struct slice ascii = ascii_domain(domain, out);
    return ascii.ptr == out ? arena_copy(arena, ascii) : ascii;
}

/* Fills places with the routed recipients; the others go to *unrouted. Returns how many places. */
static uint32_t find_places(const struct config *cfg, const struct message *m,
                            const uint32_t *rcpts, uint32_t rcpt_count, struct arena *arena,
                            struct place *places, uint32_t *unrouted, uint32_t *unrouted_count)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rcpt_count; i++) {
        uint32_t rcpt = rcpts ? rcpts[i] : i;
        must(rcpt < m->rcpt_count);
        struct slice domain = lasting_domain(m->rcpts[rcpt].domain, arena);
        struct route_query query = route_query_of(m, domain);
        const struct config_route *route = route_find(cfg, &query);
        if (!route) {
            unrouted[(*unrouted_count)++] = rcpt;
            continue;
        }
        bool is_mx = route->relay == RELAY_MX;
        places[count++] = (struct place){ route, is_mx ? domain : SLICE_NONE, i, rcpt };
    }
    return count;
}

static uint32_t find_runs(const struct place *places, uint32_t count, struct run *runs)
{
    uint32_t run_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && by_destination(&places[i - 1], &places[i]) == 0)
            runs[run_count - 1].count++;
        else
            runs[run_count++] = (struct run){ i, 1, places[i].position };
    }
    return run_count;
}

static void fill_group(const struct config *cfg, uint64_t spent, struct route_group *group,
                       const struct message *m, const struct run *run, const struct place *places,
                       struct arena *arena)
{
    const struct place *first = &places[run->first];
    struct route_query query = route_query_of(m, first->domain);
    route_source_key(first->route, &query, source_pick(cfg, first->route, m->id, spent),
                     group->key);
    group->route = first->route;
    group->rcpts = arena_alloc(arena, run->count * sizeof *group->rcpts);
    group->rcpt_count = run->count;
    for (uint32_t i = 0; i < run->count; i++)
        group->rcpts[i] = first[i].rcpt;
}

static size_t group_places(const struct config *cfg, uint64_t spent, const struct message *m,
                           struct place *places, uint32_t count, struct arena *arena,
                           struct route_group **groups)
{
    if (count > 1)
        qsort(places, count, sizeof *places, compare_places);
    struct run *runs = mem_alloc((count + 1) * sizeof *runs);
    uint32_t run_count = find_runs(places, count, runs);
    if (run_count > 1)
        qsort(runs, run_count, sizeof *runs, compare_runs);
    *groups = arena_alloc(arena, run_count * sizeof **groups);
    for (uint32_t i = 0; i < run_count; i++)
        fill_group(cfg, spent, &(*groups)[i], m, &runs[i], places, arena);
    free(runs);
    return run_count;
}

size_t route_split(const struct config *cfg, uint64_t spent, struct message *m,
                   const uint32_t *rcpts, uint32_t rcpt_count, struct arena *arena,
                   struct route_group **groups, uint32_t **unrouted, uint32_t *unrouted_count)
{
    if (!rcpts)
        rcpt_count = m->rcpt_count;
    struct place *places = mem_alloc((rcpt_count + 1) * sizeof *places);
    *unrouted = arena_alloc(arena, rcpt_count * sizeof **unrouted);
    *unrouted_count = 0;
    uint32_t count =
        find_places(cfg, m, rcpts, rcpt_count, arena, places, *unrouted, unrouted_count);
    size_t group_count = group_places(cfg, spent, m, places, count, arena, groups);
    free(places);
    return group_count;
}
