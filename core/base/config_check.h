/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * config_check - the reading of one configuration file, as config.c and config_check.c share it:
 * what was set on which line, how an error is said, and the rules between settings.
 */
#include "core/base/settings.h"
#include "core/base/ucl.h"

#define CONFIG_SETTINGS_MAX 256 /* rows that a reader can keep lines for */

struct config_reader {
    struct config *cfg;
    struct buf *error;            /* borrowed; gets the one line of the first error */
    const struct ucl_node *scope; /* the section being read; NULL: the top of the file */
    /* Line of each row's setting, 0: not set. Rows of sections that stand several times are
     * those of the one read last. */
    int lines[CONFIG_SETTINGS_MAX];
};

/* Says "FILE:LINE: [SCOPE: ]KEY: ..."; always false, so that a caller can return it. Without a key
 * that part is left out; line 0 stands for that of the scope. */
bool config_complain(struct config_reader *r, int line, struct slice key, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* The line that a setting of the section that was read last is on; 0: it is not set. */
int config_line_of(const struct config_reader *r, enum setting_section section, const char *key);

/* A value as it is shown in an error: printable and short. */
struct config_shown {
    char text[64];
};
struct config_shown config_show(struct slice value);

/* The rules between settings; called when a section, and when the whole file, has been read. */
NODISCARD bool config_check_listener(struct config_reader *r, const struct config_listener *l);
/* A name that is a part of keys in Redis: one word, up to that long, without a slash. */
bool config_is_key_name(struct slice name, size_t most);
NODISCARD bool config_check_route(struct config_reader *r, const struct config_route *route);
NODISCARD bool config_check_route_tenants(struct config_reader *r); /* of all routes */
NODISCARD bool config_check_tenant(struct config_reader *r, const struct config_tenant *t);
NODISCARD bool config_check_dkim(struct config_reader *r, const struct config_dkim *d);
NODISCARD bool config_check_source(struct config_reader *r,
                                   struct config_source *s);  /* completes it */
NODISCARD bool config_check_sources(struct config_reader *r); /* that all that are named exist */
/* Sets route->source_set; all names are known. */
void config_link_sources(const struct config *cfg, struct config_route *route);
NODISCARD bool config_check_all(struct config_reader *r);
