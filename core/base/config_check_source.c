/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_check_source - the rules of sources, and the names that routes know them by.
 */
#include "core/base/config_check.h"
#include "core/base/must.h"
#include <arpa/inet.h>

/* For keys in Redis: letters are lower case by now. */
bool config_is_key_name(struct slice name, size_t most)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_plain =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (!is_plain)
            return false;
    }
    return name.len > 0 && name.len <= most;
}

static bool check_name(struct config_reader *r, const struct config_source *s)
{
    if (!config_is_key_name(slice_str(s->name), SOURCE_NAME_MAX))
        return config_complain(r, 0, SLICE_NONE,
                               "is no name: write up to %d letters, digits, hyphens and dots",
                               SOURCE_NAME_MAX);
    for (const struct config_source *other = r->cfg->sources; other < s; other++)
        if (strcmp(other->name, s->name) == 0)
            return config_complain(r, 0, SLICE_NONE,
                                   "there is a source of this name on line %d: use another name",
                                   other->line);
    return true;
}

/* False: it is no address, or there is one of its family. */
static bool take_address(struct config_source *s, const char *text)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
    if (s->v4.ss_family == 0 && inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        memcpy(&s->v4, &v4, sizeof v4);
        return true;
    }
    if (s->v6.ss_family == 0 && inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
        memcpy(&s->v6, &v6, sizeof v6);
        return true;
    }
    return false;
}

static bool check_addresses(struct config_reader *r, struct config_source *s)
{
    int line = config_line_of(r, SECTION_SOURCE, "address");
    if (s->address_count == 0)
        return config_complain(r, 0, SLICE("address"),
                               "is missing: write one of this machine, for example "
                               "address = \"192.0.2.10\"");
    for (size_t i = 0; i < s->address_count; i++)
        if (!take_address(s, s->addresses[i]))
            return config_complain(r, line, SLICE("address"),
                                   "\"%s\": write an IPv4 address, an IPv6 address, or one of each",
                                   config_show(slice_str(s->addresses[i])).text);
    return true;
}

static bool check_warmup(struct config_reader *r, const struct config_source *s)
{
    int start = config_line_of(r, SECTION_SOURCE, "warmup_start");
    int days = config_line_of(r, SECTION_SOURCE, "warmup");
    if ((start == 0) == (days == 0))
        return true;
    return config_complain(r, start ? start : days, slice_str(start ? "warmup" : "warmup_start"),
                           "is missing: a warm-up has a first day and as many numbers as days, "
                           "for example warmup_start = \"2026-11-23\"; warmup = [50, 100, 200]");
}

bool config_check_source(struct config_reader *r, struct config_source *s)
{
    return check_name(r, s) && check_addresses(r, s) && check_warmup(r, s);
}

/* --- the names ------------------------------------------------------------------------------- */

static const char *unknown_in(const struct config *cfg, char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!config_find_source(cfg, slice_str(names[i])))
            return names[i];
    return NULL;
}

bool config_check_sources(struct config_reader *r)
{
    const struct config *cfg = r->cfg;
    const char *name = unknown_in(cfg, cfg->relay.sources, cfg->relay.source_count);
    if (name)
        return config_complain(r, config_line_of(r, SECTION_RELAY, "sources"), SLICE_NONE,
                               "relay: sources: there is no source \"%s\": write source \"%s\" { "
                               "address = \"192.0.2.10\"; }",
                               config_show(slice_str(name)).text,
                               config_show(slice_str(name)).text);
    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct config_route *route = &cfg->routes[i];
        name = unknown_in(cfg, route->sources, route->source_count);
        if (name)
            return config_complain(r, route->line, SLICE_NONE,
                                   "route \"%s\": sources: there is no source \"%s\": write source "
                                   "\"%s\" { address = \"192.0.2.10\"; }",
                                   config_show(slice_str(route->name)).text,
                                   config_show(slice_str(name)).text,
                                   config_show(slice_str(name)).text);
    }
    return true;
}
