/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_check - what no single row of settings_table.h can say: settings that need each other or
 * exclude each other, names and addresses that may stand once only. Each rule says what to write.
 * Those of routes are in config_check_route.c.
 *
 * To add a rule: a function here, called from one of the three entry points, and a row in the
 * error table of test_config.c.
 */
#include "core/base/config_check.h"
#include "core/base/config_value.h"
#include "core/base/must.h"
#include <stdio.h>

#define ERROR_MAX    512 /* octets of the one line of an error */
#define SELECTOR_MAX 128 /* octets of a DKIM selector */

struct config_shown config_show(struct slice value)
{
    struct config_shown shown;
    size_t room = sizeof shown.text - sizeof "...";
    size_t n = value.len < room ? value.len : room;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        shown.text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    memcpy(shown.text + n, value.len > n ? "..." : "", value.len > n ? 4 : 1);
    return shown;
}

/* What stands before the key: `limits: `, `listener "x": ` or nothing. */
static size_t put_scope(const struct ucl_node *scope, char *out, size_t size)
{
    int n = 0;
    if (scope && scope->label.ptr)
        n = snprintf(out, size, "%s \"%s\": ", config_show(scope->key).text,
                     config_show(scope->label).text);
    else if (scope)
        n = snprintf(out, size, "%s: ", config_show(scope->key).text);
    must(n >= 0 && (size_t)n < size);
    return (size_t)n;
}

int config_line_of(const struct config_reader *r, enum setting_section section, const char *key)
{
    const struct setting *row = settings_find(section, slice_str(key));
    must(row != NULL);
    return r->lines[row - settings];
}

bool config_complain(struct config_reader *r, int line, struct slice key, const char *format, ...)
{
    char text[ERROR_MAX];
    if (line == 0)
        line = r->scope ? r->scope->line : 1;
    int n = snprintf(text, sizeof text, "%.200s:%d: ", r->cfg->file, line);
    must(n > 0 && (size_t)n < sizeof text / 2);
    size_t len = (size_t)n;
    len += put_scope(r->scope, text + len, sizeof text - len);
    if (key.len)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s: ", config_show(key).text);
    va_list args;
    va_start(args, format);
    n = vsnprintf(text + len, sizeof text - len, format, args);
    va_end(args);
    must(n >= 0);
    len += (size_t)n;
    if (len >= sizeof text)
        len = sizeof text - 1;
    /* A caller's small buffer gets the beginning, which names the place. */
    uint32_t room = r->error->max - r->error->len;
    enum status st = buf_append(r->error, slice_head(slice_of(text, len), room));
    must(st == STATUS_OK);
    return false;
}

static bool same_bind(const struct config_bind *a, const struct config_bind *b)
{
    return a->port != 0 && a->addr_len == b->addr_len &&
           memcmp(&a->addr, &b->addr, a->addr_len) == 0;
}

/* SO_REUSEPORT would let two listeners share an address and each get some of the clients. */
static bool check_bind_once(struct config_reader *r, int line, struct slice key,
                            const struct config_bind *bind, const struct config_bind *last)
{
    for (const struct config_listener *l = r->cfg->listeners, *end = l + r->cfg->listener_count;
         l < end; l++)
        for (const struct config_bind *b = l->binds; b < l->binds + l->bind_count; b++) {
            if (b == last)
                return true;
            if (same_bind(b, bind))
                return config_complain(r, line, key,
                                       "port %u of %s is taken by listener \"%s\": use another",
                                       bind->port, bind->host, l->name);
        }
    return true;
}

static bool is_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], lower = (char)(c | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && !strchr("-_.", c))
            return false;
    }
    return name.len > 0 && name.len <= 32;
}

static bool is_everybody(const struct config_network *n)
{
    return n->prefix == 0 || (n->prefix == 96 && IN6_IS_ADDR_V4MAPPED(&n->base));
}

/* Of clients that need not authenticate. */
static bool check_networks(struct config_reader *r, const struct config_listener *l)
{
    int line = config_line_of(r, SECTION_LISTENER, "networks");
    if (l->role == LISTENER_BOUNCES)
        return true;
    if (l->network_count == 0 && l->auth == AUTH_OFF)
        return config_complain(r, line, SLICE("networks"),
                               "nobody is trusted, so nobody could submit mail: list the clients, "
                               "for example networks = [\"127.0.0.0/8\"]");
    if (l->auth == AUTH_REQUIRED)
        return true;
    for (size_t i = 0; i < l->network_count; i++)
        if (is_everybody(&l->networks[i]))
            return config_complain(r, line, SLICE("networks"),
                                   "a prefix of 0 would relay mail for the whole Internet: "
                                   "list the networks of your own clients");
    return true;
}

/* Passwords in clear only where the file says so in as many words. */
static bool check_auth(struct config_reader *r, const struct config_listener *l)
{
    int line = config_line_of(r, SECTION_LISTENER, "auth_without_tls");
    if (l->auth == AUTH_OFF && l->auth_without_tls)
        return config_complain(
            r, line, SLICE("auth_without_tls"),
            "there is no AUTH to offer: write auth = \"required\" or take it out");
    if (l->auth != AUTH_OFF && l->tls == TLS_OFF && !l->auth_without_tls)
        return config_complain(r, config_line_of(r, SECTION_LISTENER, "auth"), SLICE("auth"),
                               "passwords would cross the network in clear: write tls = "
                               "\"starttls\" or \"implicit\", or auth_without_tls = yes where the "
                               "network is trusted");
    return true;
}

/* Of peers whose word about the client is taken: who is trusted, throttled, logged and, with
 * XCLIENT, logged in. */
static bool check_spokesmen(struct config_reader *r, const char *key,
                            const struct config_network *networks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_everybody(&networks[i]))
            return config_complain(r, config_line_of(r, SECTION_LISTENER, key), slice_str(key),
                                   "a prefix of 0 would let every client say who it is: list the "
                                   "addresses of your own machines");
    return true;
}

/* What only clients need that hand in mail. */
static bool check_role(struct config_reader *r, const struct config_listener *l)
{
    static const char *const keys[] = { "auth", "auth_without_tls", "tenant", "lane" };
    for (size_t i = 0; i < ARRAY_LEN(keys) && l->role == LISTENER_BOUNCES; i++) {
        int line = config_line_of(r, SECTION_LISTENER, keys[i]);
        if (line)
            return config_complain(r, line, slice_str(keys[i]),
                                   "is for role = \"submission\": nobody hands in mail here");
    }
    return true;
}

bool config_check_listener(struct config_reader *r, const struct config_listener *l)
{
    if (!is_name(slice_str(l->name)))
        return config_complain(r, 0, SLICE_NONE,
                               "a name has 1 to 32 letters, digits, dots, hyphens or underscores");
    for (const struct config_listener *other = r->cfg->listeners; other < l; other++)
        if (strcmp(other->name, l->name) == 0)
            return config_complain(r, 0, SLICE_NONE,
                                   "there is a listener of this name on line %d: use another name",
                                   other->line);
    if (l->bind_count == 0)
        return config_complain(r, config_line_of(r, SECTION_LISTENER, "bind"), SLICE("bind"),
                               "is missing: write where to listen, for example "
                               "bind = [\"127.0.0.1:2525\"]");
    for (size_t i = 0; i < l->bind_count; i++)
        if (!check_bind_once(r, config_line_of(r, SECTION_LISTENER, "bind"), SLICE("bind"),
                             &l->binds[i], &l->binds[i]))
            return false;
    return check_role(r, l) && check_networks(r, l) && check_auth(r, l) &&
           check_spokesmen(r, "proxy_protocol", l->proxy_networks, l->proxy_network_count) &&
           check_spokesmen(r, "xclient", l->xclient_networks, l->xclient_network_count);
}

bool config_check_tenant(struct config_reader *r, const struct config_tenant *t)
{
    if (!is_name(slice_str(t->name)))
        return config_complain(r, 0, SLICE_NONE,
                               "a name has 1 to 32 letters, digits, dots, hyphens or underscores");
    for (const struct config_tenant *other = r->cfg->tenants; other < t; other++)
        if (strcmp(other->name, t->name) == 0)
            return config_complain(r, 0, SLICE_NONE,
                                   "there is a tenant of this name on line %d: use another name",
                                   other->line);
    return true;
}

/* As it stands in DNS, before "._domainkey"; digits alone are one. */
static bool is_selector(const char *text)
{
    char name[SELECTOR_MAX + sizeof ".x"];
    int len = snprintf(name, sizeof name, "%s.x", text);
    return len > 0 && (size_t)len < sizeof name && config_value_is_domain(slice_str(name));
}

bool config_check_dkim(struct config_reader *r, const struct config_dkim *d)
{
    if (!config_value_is_domain(slice_str(d->domain)))
        return config_complain(r, 0, SLICE_NONE,
                               "is no domain name: write for example dkim \"example.org\" { ... }");
    for (const struct config_dkim *other = r->cfg->dkim.domains; other < d; other++)
        if (strcmp(other->domain, d->domain) == 0)
            return config_complain(r, 0, SLICE_NONE,
                                   "there is a section of this domain on line %d: keep one",
                                   other->line);
    if (d->selector_count == 0 || d->selector_count != d->private_key_count)
        return config_complain(r, 0, SLICE_NONE,
                               "there are %zu of selector and %zu of private_key: write as many of "
                               "both, at least one, in the same order",
                               d->selector_count, d->private_key_count);
    for (size_t i = 0; i < d->selector_count; i++)
        if (!is_selector(d->selectors[i]))
            return config_complain(r, config_line_of(r, SECTION_DKIM, "selector"),
                                   SLICE("selector"),
                                   "\"%s\" is none: write letters, digits and hyphens",
                                   config_show(slice_str(d->selectors[i])).text);
    return true;
}

/* Settings that only one mode of Redis has. */
static bool check_redis(struct config_reader *r)
{
    static const struct {
        const char *key;
        enum redis_mode mode;
    } rules[] = {
        { "url", REDIS_EXTERNAL },
        { "accept_risk", REDIS_EXTERNAL },
        { "maxmemory", REDIS_EMBEDDED },
        { "server", REDIS_EMBEDDED },
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        int line = config_line_of(r, SECTION_REDIS, rules[i].key);
        if (line && r->cfg->redis.mode != rules[i].mode)
            return config_complain(
                r, line, SLICE_NONE,
                "redis: %s: is for mode = \"%s\": change the mode or take it out", rules[i].key,
                rules[i].mode == REDIS_EXTERNAL ? "external" : "embedded");
    }
    if (r->cfg->redis.mode == REDIS_EMBEDDED)
        return true;
    const char *url = r->cfg->redis.url;
    if (!url)
        return config_complain(r, config_line_of(r, SECTION_REDIS, "mode"), SLICE_NONE,
                               "redis: url: is missing: mode = \"external\" needs one, for example "
                               "url = \"redis://127.0.0.1:6379/0\"");
    if (strncmp(url, "redis://", 8) != 0 && strncmp(url, "unix://", 7) != 0)
        return config_complain(r, config_line_of(r, SECTION_REDIS, "url"), SLICE_NONE,
                               "redis: url: begins with redis:// or unix://, for example "
                               "\"redis://127.0.0.1:6379/0\"");
    return true;
}

static bool check_tls(struct config_reader *r)
{
    const struct config *cfg = r->cfg;
    int line = config_line_of(r, SECTION_TLS, "certificate");
    if (line == 0)
        line = config_line_of(r, SECTION_TLS, "private_key");
    if (cfg->tls.certificate_count != cfg->tls.private_key_count)
        return config_complain(r, line, SLICE_NONE,
                               "tls: there are %zu of certificate and %zu of private_key: write as "
                               "many of both, in the same order",
                               cfg->tls.certificate_count, cfg->tls.private_key_count);
    for (size_t i = 0; i < cfg->listener_count; i++)
        if (cfg->listeners[i].tls != TLS_OFF && cfg->tls.certificate_count == 0)
            return config_complain(r, cfg->listeners[i].line, SLICE_NONE,
                                   "listener \"%s\": tls: there is no certificate: write tls { "
                                   "certificate = \"...\"; private_key = \"...\"; }",
                                   cfg->listeners[i].name);
    return true;
}

/* What can be offered with what else the file names; a client without TLS gets less. */
static uint32_t usable_mechanisms(const struct config *cfg, enum tls_mode tls)
{
    uint32_t usable = cfg->auth.mechanisms;
    if (!cfg->auth.jwt_keys)
        usable &= ~(uint32_t)(AUTH_OAUTHBEARER | AUTH_XOAUTH2);
    if (!cfg->tls.client_ca || tls == TLS_OFF)
        usable &= ~(uint32_t)AUTH_EXTERNAL;
    if (tls == TLS_OFF)
        usable &= ~(uint32_t)AUTH_SCRAM_SHA_256_PLUS;
    return usable;
}

/* Every listener with AUTH has a way to log in. */
static bool check_mechanisms(struct config_reader *r)
{
    int line = config_line_of(r, SECTION_AUTH, "mechanisms");
    for (const struct config_listener *l = r->cfg->listeners, *end = l + r->cfg->listener_count;
         l < end; l++)
        if (l->auth != AUTH_OFF && !usable_mechanisms(r->cfg, l->tls))
            return config_complain(
                r, line, SLICE_NONE,
                "auth: mechanisms: listener \"%s\" would have none to offer: add plain, or what "
                "these need (auth.jwt_keys, tls.client_ca, TLS)",
                l->name);
    return true;
}

/* Rules for tokens that are never looked at would be a false comfort. */
static bool check_jwt(struct config_reader *r)
{
    static const char *const keys[] = { "jwt_issuer", "jwt_audience", "jwt_scope",
                                        "jwt_user_claim" };
    if (r->cfg->auth.jwt_keys)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        int line = config_line_of(r, SECTION_AUTH, keys[i]);
        if (line)
            return config_complain(r, line, SLICE_NONE,
                                   "auth: %s: is for tokens: write jwt_keys or take it out",
                                   keys[i]);
    }
    return true;
}

static bool check_listener_tenants(struct config_reader *r)
{
    for (const struct config_listener *l = r->cfg->listeners, *end = l + r->cfg->listener_count;
         l < end; l++)
        if (l->tenant && !config_find_tenant(r->cfg, slice_str(l->tenant)))
            return config_complain(r, l->line, SLICE_NONE,
                                   "listener \"%s\": tenant: there is no tenant \"%s\": write "
                                   "tenant \"%s\" { ... }",
                                   l->name, config_show(slice_str(l->tenant)).text,
                                   config_show(slice_str(l->tenant)).text);
    return true;
}

/* A name that is no tenant's would sign for nobody. */
static bool check_dkim_tenants(struct config_reader *r, const struct config_dkim *d)
{
    for (size_t i = 0; i < d->tenant_count; i++)
        if (!config_find_tenant(r->cfg, slice_str(d->tenants[i])))
            return config_complain(
                r, d->line, SLICE_NONE, "dkim \"%s\": tenant: there is no tenant \"%s\"",
                config_show(slice_str(d->domain)).text, config_show(slice_str(d->tenants[i])).text);
    return true;
}

static bool check_dkim(struct config_reader *r)
{
    const struct config *cfg = r->cfg;
    if (cfg->dkim.expire_ms > 0 && cfg->dkim.expire_ms < cfg->retry.expire_ms)
        return config_complain(r, config_line_of(r, SECTION_TOP, "dkim_expire"),
                               SLICE("dkim_expire"),
                               "is shorter than retry.expire: mail that is delivered late would "
                               "carry a signature that has expired");
    for (size_t i = 0; i < cfg->dkim.domain_count; i++)
        if (!check_dkim_tenants(r, &cfg->dkim.domains[i]))
            return false;
    return true;
}

static bool check_events(struct config_reader *r)
{
    const struct config *cfg = r->cfg;
    struct config_url url;
    int line = config_line_of(r, SECTION_EVENTS, "webhook");
    if (!cfg->events.webhook)
        return true;
    if (!config_url_of(slice_str(cfg->events.webhook), &url))
        return config_complain(r, line, SLICE_NONE,
                               "events: webhook: is no address: write "
                               "\"https://app.example.org/path\"");
    if (!cfg->events.webhook_secret)
        return config_complain(r, line, SLICE_NONE,
                               "events: webhook: needs webhook_secret: who reads the posts must "
                               "know that they are yours");
    return cfg->events.size_max > 0 ||
           config_complain(r, line, SLICE_NONE,
                           "events: webhook: needs size_max: without it there are no events");
}

static bool has_bounce_domain(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->tenant_count; i++)
        if (cfg->tenants[i].bounce_domain)
            return true;
    return cfg->bounces.domain != NULL;
}

static const struct config_listener *bounces_listener(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->listener_count; i++)
        if (cfg->listeners[i].role == LISTENER_BOUNCES)
            return &cfg->listeners[i];
    return NULL;
}

/* Return paths that lead to nobody would lose every bounce. */
static bool check_bounces(struct config_reader *r)
{
    const struct config_listener *l = bounces_listener(r->cfg);
    struct slice complaints = slice_str(r->cfg->bounces.complaints);
    if (!is_name(complaints) || strncasecmp(complaints.ptr, "b-", 2) == 0)
        return config_complain(r, config_line_of(r, SECTION_BOUNCES, "complaints"), SLICE_NONE,
                               "bounces: complaints: is a local part of 1 to 32 letters, digits, "
                               "dots, hyphens or underscores that does not begin with \"b-\"");
    if (!l && has_bounce_domain(r->cfg))
        return config_complain(r, config_line_of(r, SECTION_BOUNCES, "domain"), SLICE_NONE,
                               "bounces: domain: nobody would take what comes back: write "
                               "listener \"returns\" { bind = [\"0.0.0.0:25\"]; role = "
                               "\"bounces\"; }");
    return !l || has_bounce_domain(r->cfg) ||
           config_complain(r, l->line, SLICE_NONE,
                           "listener \"%s\": role: nothing comes back there: write bounces { "
                           "domain = \"bounces.example.org\"; }",
                           l->name);
}

bool config_check_all(struct config_reader *r)
{
    r->scope = NULL;
    if (!r->cfg->hostname)
        return config_complain(r, 0, SLICE("hostname"),
                               "is missing: write the name of this gateway, for example "
                               "hostname = \"gateway.example.org\"");
    if (r->cfg->listener_count == 0)
        return config_complain(r, 0, SLICE("listener"),
                               "there is none: write one, for example listener \"trusted\" { "
                               "bind = [\"127.0.0.1:2525\"]; networks = [\"127.0.0.0/8\"]; }");
    if (r->cfg->admin.bind && !check_bind_once(r, config_line_of(r, SECTION_ADMIN, "bind"),
                                               SLICE("admin: bind"), r->cfg->admin.bind, NULL))
        return false;
    return check_tls(r) && check_mechanisms(r) && check_jwt(r) && check_listener_tenants(r) &&
           check_dkim(r) && config_check_route_tenants(r) && config_check_sources(r) &&
           check_events(r) && check_bounces(r) && check_redis(r);
}
