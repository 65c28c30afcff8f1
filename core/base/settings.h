/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * settings - the rows of settings_table.h as data: for config.c, which reads a file by them, and
 * for the program that prints docs/configuration.md.
 */
#include "core/base/config.h"
#include "core/base/settings_table.h"

enum setting_section {
#define X(id, name, label, prose) SECTION_##id,
    SECTIONS_TABLE(X)
#undef X
        SECTION_COUNT
};

enum setting_type {
    SETTING_TEXT,      /* char *: any text */
    SETTING_DOMAIN,    /* char *: a domain name */
    SETTING_HOST,      /* char *: a domain name or an address */
    SETTING_NUMBER,    /* uint16_t, uint32_t */
    SETTING_SIZE,      /* uint32_t, uint64_t: octets; k, m, g are powers of 1024 */
    SETTING_DURATION,  /* uint32_t, uint64_t: milliseconds; ms, s, min, h, d */
    SETTING_BOOL,      /* bool */
    SETTING_WORD,      /* enum, int or bool: the place of the word in `range` */
    SETTING_WORDS,     /* uint32_t: a bit per word of `range` */
    SETTING_BIND,      /* struct config_bind *: address:port */
    SETTING_BINDS,     /* struct config_bind *, size_t */
    SETTING_NETWORKS,  /* struct config_network *, size_t */
    SETTING_SERVERS,   /* char **, size_t: address or address@port */
    SETTING_TEXTS,     /* char **, size_t: any texts */
    SETTING_DURATIONS, /* uint32_t *, size_t: milliseconds */
    SETTING_NUMBERS,   /* uint32_t *, size_t */
    SETTING_RATE,      /* struct config_rate: how many in a duration */
    SETTING_DAY,       /* int32_t: days since 1970 */
    SETTING_LATER,     /* known, but not offered by this version */
};

struct setting {
    enum setting_section section;
    const char *key;
    enum setting_type type;
    size_t
        offset;  /* of the field in struct config, config_listener, config_route or config_tenant */
    size_t size; /* of the field */
    size_t count_offset;                        /* lists: of the counter */
    const char *range, *initial, *unit, *prose; /* as in the table */
};

struct section {
    const char *name, *label, *prose; /* as in the table */
};

extern const struct setting settings[];
extern const size_t setting_count;
extern const struct section sections[SECTION_COUNT];

/* NULL: there is none of that name in the section. */
const struct setting *settings_find(enum setting_section section, struct slice key);
/* SECTION_COUNT: there is none of that name. */
enum setting_section settings_find_section(struct slice name);
/* Some other section that has a setting of that name; SECTION_COUNT: none. */
enum setting_section settings_find_home(struct slice key);
/* The name that needs the fewest changes to become `key`: of the settings of a section, and at the
 * top of the sections too. */
const char *settings_nearest(enum setting_section section, struct slice key);

/* Cuts the next word off a range such as "off | (starttls)"; false when none is left. */
bool settings_next_word(struct slice *range, struct slice *word, bool *is_offered);
