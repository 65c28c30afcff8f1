/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_check_route - the rules of routes: which mail one takes, and what it needs to deliver it.
 *
 * A route that stands for a domain only is called by its pattern. One that is for some tenants or
 * lanes has a name, because several may be for the same domain; two that might both be the best
 * route for some mail are an error here, so that the order in the file never matters.
 */
#include "core/base/config_check.h"
#include "core/base/config_value.h"
#include "core/base/must.h"

static bool is_pattern(struct slice pattern)
{
    if (slice_eq(pattern, SLICE("*")))
        return true;
    if (slice_eq(slice_head(pattern, 2), SLICE("*.")))
        pattern = slice_skip(pattern, 2);
    return config_value_is_domain(pattern);
}

bool config_host_of(struct slice text, struct slice *host, uint16_t *port)
{
    size_t end = slice_find(text, text.len > 0 && text.ptr[0] == '[' ? ']' : ':');
    bool is_bracketed = text.len > 0 && text.ptr[0] == '[';
    *host = slice_head(text, end);
    if (is_bracketed) {
        if (end == text.len)
            return false;
        *host = slice_skip(*host, 1);
        end++;
    }
    struct slice rest = slice_skip(text, end);
    uint32_t number = 0;
    if (rest.len == 0)
        return host->len > 0;
    for (size_t i = 1; i < rest.len && number <= UINT16_MAX; i++) {
        if (rest.ptr[i] < '0' || rest.ptr[i] > '9')
            return false;
        number = number * 10 + (uint32_t)(rest.ptr[i] - '0');
    }
    *port = (uint16_t)number;
    return host->len > 0 && rest.ptr[0] == ':' && number > 0 && number <= UINT16_MAX;
}

bool config_url_of(struct slice text, struct config_url *out)
{
    struct slice scheme = SLICE("https://");
    if (!slice_eq_nocase(slice_head(text, scheme.len), scheme))
        return false;
    text = slice_skip(text, scheme.len);
    struct slice host, place = slice_head(text, slice_find(text, '/'));
    out->port = 443;
    if (!config_host_of(place, &host, &out->port) || host.len >= sizeof out->host)
        return false;
    memcpy(out->host, host.ptr, host.len);
    out->host[host.len] = '\0';
    out->path = place.len < text.len ? place.ptr + place.len : "/";
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] > '~')
            return false;
    return true;
}

static bool check_fallbacks(struct config_reader *r, const struct config_route *route)
{
    for (size_t i = 0; i < route->fallback_count; i++) {
        struct slice host;
        uint16_t port;
        if (!config_host_of(slice_str(route->fallbacks[i]), &host, &port))
            return config_complain(r, config_line_of(r, SECTION_ROUTE, "fallback"),
                                   SLICE("fallback"), "has \"%s\", which is no host or host:port",
                                   route->fallbacks[i]);
    }
    return true;
}

/* A password goes to nobody who might be somebody else (P-158). */
static bool check_login(struct config_reader *r, const struct config_route *route)
{
    if (!route->user && !route->password_file && !route->token_file)
        return true;
    if (!route->user)
        return config_complain(r, 0, SLICE("user"), "is missing: whose secret is it?");
    if (!route->password_file == !route->token_file)
        return config_complain(r, config_line_of(r, SECTION_ROUTE, "user"), SLICE("user"),
                               "needs a password_file or a token_file, not both");
    if (strlen(route->user) > ROUTE_USER_MAX)
        return config_complain(r, config_line_of(r, SECTION_ROUTE, "user"), SLICE("user"),
                               "is longer than %d octets", ROUTE_USER_MAX);
    return route->tls == ROUTE_TLS_VERIFY ||
           config_complain(r, config_line_of(r, SECTION_ROUTE, "user"), SLICE("user"),
                           "needs tls = \"verify\", or the secret may go to anybody");
}

static bool check_smarthost(struct config_reader *r, const struct config_route *route)
{
    if (!config_line_of(r, SECTION_ROUTE, "host"))
        return config_complain(r, 0, SLICE("host"),
                               "is missing: a smarthost needs one, for example "
                               "host = \"smtp.example.org\"");
    if (route->tls_implicit && route->tls < ROUTE_TLS_ENCRYPT)
        return config_complain(r, config_line_of(r, SECTION_ROUTE, "tls_implicit"),
                               SLICE("tls_implicit"), "needs tls = \"encrypt\" or \"verify\"");
    return check_fallbacks(r, route) && check_login(r, route);
}

static bool check_no_smarthost(struct config_reader *r)
{
    static const char *const keys[] = { "host",     "port", "fallback",      "tls_implicit",
                                        "tls_name", "user", "password_file", "token_file" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        int line = config_line_of(r, SECTION_ROUTE, keys[i]);
        if (line)
            return config_complain(r, line, slice_str(keys[i]),
                                   "is for smarthosts: write relay = \"smarthost\" or take it out");
    }
    return true;
}

/* Without `domain` the name is the pattern. */
static bool check_name(struct config_reader *r, const struct config_route *route)
{
    if (!route->domain && (route->tenant_count > 0 || route->lanes != 0))
        return config_complain(r, 0, SLICE("domain"),
                               "is missing: a route for some tenants or lanes has a name and says "
                               "for which domains it is, for example domain = \"*\"");
    if (!route->domain)
        return is_pattern(slice_str(route->pattern)) ||
               config_complain(
                   r, 0, SLICE_NONE,
                   "is no pattern: write \"*\", \"example.org\" or \"*.example.org\", or a name, "
                   "with the pattern in domain");
    if (!config_is_key_name(slice_str(route->name), ROUTE_NAME_MAX))
        return config_complain(r, 0, SLICE_NONE,
                               "is no name: write up to %d letters, digits, hyphens and dots",
                               ROUTE_NAME_MAX);
    return is_pattern(slice_str(route->pattern)) ||
           config_complain(r, config_line_of(r, SECTION_ROUTE, "domain"), SLICE("domain"),
                           "\"%s\" is no pattern: write \"*\", \"example.org\" or "
                           "\"*.example.org\"",
                           config_show(slice_str(route->domain)).text);
}

static bool share_tenant(const struct config_route *a, const struct config_route *b)
{
    for (size_t i = 0; i < a->tenant_count; i++)
        for (size_t j = 0; j < b->tenant_count; j++)
            if (strcmp(a->tenants[i], b->tenants[j]) == 0)
                return true;
    return a->tenant_count == 0 && b->tenant_count == 0;
}

/* Whether some mail would find both equally good (route.h). */
static bool are_rivals(const struct config_route *a, const struct config_route *b)
{
    bool share_lane = (a->lanes & b->lanes) != 0 || (a->lanes == 0 && b->lanes == 0);
    return strcmp(a->pattern, b->pattern) == 0 && share_lane && share_tenant(a, b);
}

static bool check_rivals(struct config_reader *r, const struct config_route *route)
{
    for (const struct config_route *other = r->cfg->routes; other < route; other++) {
        if (strcmp(other->name, route->name) == 0)
            return config_complain(r, 0, SLICE_NONE,
                                   "there is a route of this name on line %d: keep one, or give "
                                   "one a name of its own and the pattern in domain",
                                   other->line);
        if (are_rivals(other, route))
            return config_complain(r, 0, SLICE_NONE,
                                   "takes the same mail as route \"%s\" on line %d: give them "
                                   "other domains, tenants or lanes, or keep one",
                                   config_show(slice_str(other->name)).text, other->line);
    }
    return true;
}

bool config_check_route(struct config_reader *r, const struct config_route *route)
{
    if (!check_name(r, route) || !check_rivals(r, route))
        return false;
    if (route->relay == RELAY_HOLD && route->source_count > 0)
        return config_complain(r, config_line_of(r, SECTION_ROUTE, "sources"), SLICE("sources"),
                               "nothing leaves by a route that holds: take it out");
    return route->relay == RELAY_SMARTHOST ? check_smarthost(r, route) : check_no_smarthost(r);
}

bool config_check_route_tenants(struct config_reader *r)
{
    for (size_t i = 0; i < r->cfg->route_count; i++) {
        const struct config_route *route = &r->cfg->routes[i];
        for (size_t j = 0; j < route->tenant_count; j++)
            if (!config_find_tenant(r->cfg, slice_str(route->tenants[j])))
                return config_complain(r, route->line, SLICE_NONE,
                                       "route \"%s\": tenant: there is no tenant \"%s\": write "
                                       "tenant \"%s\" { ... }",
                                       config_show(slice_str(route->name)).text,
                                       config_show(slice_str(route->tenants[j])).text,
                                       config_show(slice_str(route->tenants[j])).text);
    }
    return true;
}
