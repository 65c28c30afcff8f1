/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config - walks the tree of ucl.c by the rows of settings_table.h.
 *
 * Each statement finds its row; config_type.c turns its text into a value by the row's type. Values
 * that the file leaves out are read from the row's default in the same way, so a default cannot
 * mean anything that a file could not say. A configuration that failed half way is freed like a
 * complete one.
 *
 * Limits: those of ucl.c and config_type.c; LISTENERS_MAX, ROUTES_MAX, TENANTS_MAX, DKIM_MAX and
 * SOURCES_MAX.
 */
#include "core/base/config.h"
#include "core/base/config_check.h"
#include "core/base/config_type.h"
#include "core/base/must.h"
#include "core/base/settings.h"
#include "core/base/ucl.h"
#include <stdio.h>
#include <stdlib.h>

#define LISTENERS_MAX 64
#define ROUTES_MAX    10000
#define TENANTS_MAX   100000
#define DKIM_MAX      100000

/* What the table says, read as if the file had said it. */
static void set_default(struct config_reader *r, const struct setting *row, void *base)
{
    char text[128];
    struct ucl_node *root = NULL;
    struct ucl_error error;
    struct arena arena;
    int n = snprintf(text, sizeof text, "%s = %s", row->key, row->initial);
    must(n > 0 && (size_t)n < sizeof text);
    arena_init(&arena);
    enum status st = ucl_parse(slice_str(text), &arena, &root, &error);
    must(st == STATUS_OK);
    bool ok = config_type_set(r, row, base, root->first);
    must(ok);
    arena_done(&arena);
}

static void set_defaults(struct config_reader *r, enum setting_section section, void *base)
{
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == section && r->lines[i] == 0 && *settings[i].initial)
            set_default(r, &settings[i], base);
}

static bool complain_unknown(struct config_reader *r, enum setting_section section,
                             const struct ucl_node *node)
{
    enum setting_section home = settings_find_home(node->key);
    if (home == SECTION_TOP)
        return config_complain(r, node->line, node->key, "belongs at the top of the file");
    if (home != SECTION_COUNT)
        return config_complain(r, node->line, node->key, "belongs in section %s",
                               sections[home].name);
    return config_complain(r, node->line, node->key, "is not known: the nearest name is %s",
                           settings_nearest(section, node->key));
}

static bool read_setting(struct config_reader *r, enum setting_section section, void *base,
                         const struct ucl_node *node)
{
    const struct setting *row = settings_find(section, node->key);
    if (!row)
        return complain_unknown(r, section, node);
    int *line = &r->lines[row - settings];
    if (*line)
        return config_complain(r, node->line, node->key, "is already set on line %d", *line);
    *line = node->line;
    return config_type_set(r, row, base, node);
}

/* The settings of one section, then what it left out. */
static bool read_section(struct config_reader *r, enum setting_section section, void *base,
                         const struct ucl_node *node)
{
    r->scope = node;
    for (const struct ucl_node *child = node->first; child; child = child->next)
        if (!read_setting(r, section, base, child))
            return false;
    set_defaults(r, section, base);
    return true;
}

static void forget_lines(struct config_reader *r, enum setting_section section)
{
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == section)
            r->lines[i] = 0;
}

static bool read_listener(struct config_reader *r, const struct ucl_node *node)
{
    struct config *cfg = r->cfg;
    r->scope = node;
    if (cfg->listener_count == LISTENERS_MAX)
        return config_complain(r, node->line, SLICE_NONE, "there are more than %d listeners",
                               LISTENERS_MAX);
    cfg->listeners =
        mem_realloc(cfg->listeners, (cfg->listener_count + 1) * sizeof *cfg->listeners);
    struct config_listener *l = &cfg->listeners[cfg->listener_count++];
    *l = (struct config_listener){ .name = config_type_copy(node->label), .line = node->line };
    forget_lines(r, SECTION_LISTENER);
    return read_section(r, SECTION_LISTENER, l, node) && config_check_listener(r, l);
}

static char *copy_lower(struct slice text)
{
    char *copy = config_type_copy(text);
    for (char *c = copy; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    return copy;
}

static struct config_route *add_route(struct config *cfg, struct slice name, int line)
{
    cfg->routes = mem_realloc(cfg->routes, (cfg->route_count + 1) * sizeof *cfg->routes);
    struct config_route *route = &cfg->routes[cfg->route_count++];
    *route = (struct config_route){ .name = copy_lower(name), .line = line };
    return route;
}

static void set_pattern(struct config_route *route)
{
    route->pattern = copy_lower(slice_str(route->domain ? route->domain : route->name));
}

static bool read_route(struct config_reader *r, const struct ucl_node *node)
{
    r->scope = node;
    if (r->cfg->route_count == ROUTES_MAX)
        return config_complain(r, node->line, SLICE_NONE, "there are more than %d routes",
                               ROUTES_MAX);
    struct config_route *route = add_route(r->cfg, node->label, node->line);
    forget_lines(r, SECTION_ROUTE);
    if (!read_section(r, SECTION_ROUTE, route, node))
        return false;
    set_pattern(route);
    return config_check_route(r, route);
}

static bool read_tenant(struct config_reader *r, const struct ucl_node *node)
{
    struct config *cfg = r->cfg;
    r->scope = node;
    if (cfg->tenant_count == TENANTS_MAX)
        return config_complain(r, node->line, SLICE_NONE, "there are more than %d tenants",
                               TENANTS_MAX);
    cfg->tenants = mem_realloc(cfg->tenants, (cfg->tenant_count + 1) * sizeof *cfg->tenants);
    struct config_tenant *t = &cfg->tenants[cfg->tenant_count++];
    *t = (struct config_tenant){ .name = config_type_copy(node->label), .line = node->line };
    forget_lines(r, SECTION_TENANT);
    return read_section(r, SECTION_TENANT, t, node) && config_check_tenant(r, t);
}

static bool read_dkim(struct config_reader *r, const struct ucl_node *node)
{
    struct config *cfg = r->cfg;
    r->scope = node;
    if (cfg->dkim.domain_count == DKIM_MAX)
        return config_complain(r, node->line, SLICE_NONE, "there are more than %d domains",
                               DKIM_MAX);
    cfg->dkim.domains =
        mem_realloc(cfg->dkim.domains, (cfg->dkim.domain_count + 1) * sizeof *cfg->dkim.domains);
    struct config_dkim *d = &cfg->dkim.domains[cfg->dkim.domain_count++];
    *d = (struct config_dkim){ .domain = copy_lower(node->label), .line = node->line };
    forget_lines(r, SECTION_DKIM);
    return read_section(r, SECTION_DKIM, d, node) && config_check_dkim(r, d);
}

static bool read_source(struct config_reader *r, const struct ucl_node *node)
{
    struct config *cfg = r->cfg;
    r->scope = node;
    if (cfg->source_count == SOURCES_MAX)
        return config_complain(r, node->line, SLICE_NONE, "there are more than %d sources",
                               SOURCES_MAX);
    cfg->sources = mem_realloc(cfg->sources, (cfg->source_count + 1) * sizeof *cfg->sources);
    struct config_source *s = &cfg->sources[cfg->source_count++];
    *s = (struct config_source){ .name = copy_lower(node->label), .line = node->line };
    forget_lines(r, SECTION_SOURCE);
    return read_section(r, SECTION_SOURCE, s, node) && config_check_source(r, s);
}

/* Sections that stand as often as they are wanted, each under a name. */
static bool is_repeated(enum setting_section section)
{
    return section == SECTION_LISTENER || section == SECTION_ROUTE || section == SECTION_TENANT ||
           section == SECTION_SOURCE || section == SECTION_DKIM;
}

/* A section at the top of the file; seen holds the line of each that may stand only once. */
static bool read_top_section(struct config_reader *r, enum setting_section section, int *seen,
                             const struct ucl_node *node)
{
    const struct section *known = &sections[section];
    r->scope = NULL;
    if (node->kind != UCL_SECTION)
        return config_complain(r, node->line, node->key, "is a section: write %s%s { ... }",
                               known->name, *known->label ? " \"...\"" : "");
    if (*known->label && !node->label.ptr)
        return config_complain(r, node->line, node->key, "has no %s: write %s \"%s\" { ... }",
                               known->label, known->name, known->label);
    if (section == SECTION_LISTENER)
        return read_listener(r, node);
    if (section == SECTION_ROUTE)
        return read_route(r, node);
    if (section == SECTION_TENANT)
        return read_tenant(r, node);
    if (section == SECTION_SOURCE)
        return read_source(r, node);
    if (section == SECTION_DKIM)
        return read_dkim(r, node);
    if (node->label.ptr)
        return config_complain(r, node->line, node->key, "takes no name: write %s { ... }",
                               known->name);
    if (*seen)
        return config_complain(r, node->line, node->key,
                               "is already there on line %d: write all of it in one place", *seen);
    *seen = node->line;
    return read_section(r, section, r->cfg, node);
}

static bool read_file(struct config_reader *r, const struct ucl_node *root)
{
    int seen[SECTION_COUNT] = { 0 };
    for (const struct ucl_node *node = root->first; node; node = node->next) {
        enum setting_section section = settings_find_section(node->key);
        r->scope = NULL;
        if (section == SECTION_COUNT ? !read_setting(r, SECTION_TOP, r->cfg, node)
                                     : !read_top_section(r, section, &seen[section], node))
            return false;
    }
    r->scope = NULL;
    for (int section = SECTION_TOP; section < SECTION_COUNT; section++)
        if (!seen[section] && !is_repeated((enum setting_section)section))
            set_defaults(r, (enum setting_section)section, r->cfg);
    return config_check_all(r);
}

/* Mail that no route names goes to the MX hosts of its domain: there always is a route "*". */
static void complete_routes(struct config_reader *r)
{
    for (size_t i = 0; i < r->cfg->route_count; i++)
        if (config_route_is_general(&r->cfg->routes[i]) &&
            strcmp(r->cfg->routes[i].pattern, "*") == 0)
            return;
    forget_lines(r, SECTION_ROUTE);
    struct config_route *route = add_route(r->cfg, SLICE("*"), 0);
    set_defaults(r, SECTION_ROUTE, route);
    set_pattern(route);
}

enum status config_parse(const char *file, struct slice text, struct config **out,
                         struct buf *error)
{
    struct config *cfg = mem_zalloc(sizeof *cfg);
    struct config_reader reader = { .cfg = cfg, .error = error };
    struct ucl_error syntax;
    struct ucl_node *root = NULL;
    struct arena arena;
    must(setting_count <= CONFIG_SETTINGS_MAX);
    cfg->file = mem_strdup(file);
    arena_init(&arena);
    enum status st = ucl_parse(text, &arena, &root, &syntax);
    if (st != STATUS_OK)
        (void)config_complain(&reader, syntax.line, syntax.key, "%s", syntax.what);
    else if (!read_file(&reader, root))
        st = STATUS_BAD;
    arena_done(&arena);
    if (st != STATUS_OK) {
        config_free(cfg);
        return st;
    }
    complete_routes(&reader);
    for (size_t i = 0; i < cfg->route_count; i++)
        config_link_sources(cfg, &cfg->routes[i]);
    *out = cfg;
    return STATUS_OK;
}

static void free_values(enum setting_section section, void *base)
{
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == section)
            config_type_free(&settings[i], base);
}

void config_free(struct config *cfg)
{
    if (!cfg)
        return;
    for (size_t i = 0; i < cfg->listener_count; i++) {
        free_values(SECTION_LISTENER, &cfg->listeners[i]);
        free(cfg->listeners[i].name);
    }
    for (size_t i = 0; i < cfg->route_count; i++) {
        free_values(SECTION_ROUTE, &cfg->routes[i]);
        free(cfg->routes[i].pattern);
        free(cfg->routes[i].name);
    }
    for (int section = SECTION_TOP; section < SECTION_COUNT; section++)
        if (!is_repeated((enum setting_section)section))
            free_values((enum setting_section)section, cfg);
    for (size_t i = 0; i < cfg->tenant_count; i++) {
        free_values(SECTION_TENANT, &cfg->tenants[i]);
        free(cfg->tenants[i].name);
    }
    for (size_t i = 0; i < cfg->source_count; i++) {
        free_values(SECTION_SOURCE, &cfg->sources[i]);
        free(cfg->sources[i].name);
    }
    for (size_t i = 0; i < cfg->dkim.domain_count; i++) {
        free_values(SECTION_DKIM, &cfg->dkim.domains[i]);
        free(cfg->dkim.domains[i].domain);
    }
    free(cfg->sources);
    free(cfg->dkim.domains);
    free(cfg->listeners);
    free(cfg->tenants);
    free(cfg->routes);
    free(cfg->file);
    free(cfg);
}

const struct config_tenant *config_find_tenant(const struct config *cfg, struct slice name)
{
    for (size_t i = 0; i < cfg->tenant_count; i++)
        if (slice_eq(slice_str(cfg->tenants[i].name), name))
            return &cfg->tenants[i];
    return NULL;
}

const struct config_source *config_find_source(const struct config *cfg, struct slice name)
{
    for (size_t i = 0; i < cfg->source_count; i++)
        if (slice_eq_nocase(slice_str(cfg->sources[i].name), name))
            return &cfg->sources[i];
    return NULL;
}
