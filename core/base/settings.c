/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings - turns the table into arrays and finds rows in them. Nothing here knows what a setting
 * means.
 */
#include "core/base/settings.h"
#include "core/base/must.h"

#define SIZE_IN(type, field) sizeof(((type *)0)->field)
#define PLACE(type, field)   offsetof(type, field), SIZE_IN(type, field), 0
#define PLACE_LIST(type, field, counter)                                                           \
    offsetof(type, field), SIZE_IN(type, field), offsetof(type, counter)

#define TOP(field)                    PLACE(struct config, field)
#define TOP_LIST(field, counter)      PLACE_LIST(struct config, field, counter)
#define IN_LISTENER(field)            PLACE(struct config_listener, field)
#define LISTENER_LIST(field, counter) PLACE_LIST(struct config_listener, field, counter)
#define IN_ROUTE(field)               PLACE(struct config_route, field)
#define ROUTE_LIST(field, counter)    PLACE_LIST(struct config_route, field, counter)
#define IN_TENANT(field)              PLACE(struct config_tenant, field)
#define TENANT_LIST(field, counter)   PLACE_LIST(struct config_tenant, field, counter)
#define IN_SOURCE(field)              PLACE(struct config_source, field)
#define SOURCE_LIST(field, counter)   PLACE_LIST(struct config_source, field, counter)
#define DKIM_LIST(field, counter)     PLACE_LIST(struct config_dkim, field, counter)

const struct setting settings[] = {
#define X(section, key, type, place, range, initial, unit, prose)                                  \
    { SECTION_##section, key, SETTING_##type, place, range, initial, unit, prose },
    SETTINGS_TABLE(X)
#undef X
};
const size_t setting_count = ARRAY_LEN(settings);

const struct section sections[SECTION_COUNT] = {
#define X(id, name, label, prose) { name, label, prose },
    SECTIONS_TABLE(X)
#undef X
};

const struct setting *settings_find(enum setting_section section, struct slice key)
{
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == section && slice_eq(slice_str(settings[i].key), key))
            return &settings[i];
    return NULL;
}

enum setting_section settings_find_section(struct slice name)
{
    for (int i = SECTION_TOP + 1; i < SECTION_COUNT; i++)
        if (slice_eq(slice_str(sections[i].name), name))
            return (enum setting_section)i;
    return SECTION_COUNT;
}

enum setting_section settings_find_home(struct slice key)
{
    for (size_t i = 0; i < setting_count; i++)
        if (slice_eq(slice_str(settings[i].key), key))
            return settings[i].section;
    return SECTION_COUNT;
}

#define NAME_MAX_LEN 32 /* octets compared; longer names are cut */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance: inserted, dropped and changed octets. */
static size_t distance(struct slice a, struct slice b)
{
    size_t row[NAME_MAX_LEN + 1];
    a = slice_head(a, NAME_MAX_LEN);
    b = slice_head(b, NAME_MAX_LEN);
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t changed = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
            diagonal = row[j];
            row[j] = least(changed, 1 + least(row[j], row[j - 1]));
        }
    }
    return row[b.len];
}

static void consider(struct slice key, const char *name, const char **nearest, size_t *best)
{
    size_t d = distance(key, slice_str(name));
    if (*nearest && d >= *best)
        return;
    *nearest = name;
    *best = d;
}

const char *settings_nearest(enum setting_section section, struct slice key)
{
    const char *nearest = NULL;
    size_t best = 0;
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == section)
            consider(key, settings[i].key, &nearest, &best);
    for (int i = SECTION_TOP + 1; section == SECTION_TOP && i < SECTION_COUNT; i++)
        consider(key, sections[i].name, &nearest, &best);
    must(nearest != NULL);
    return nearest;
}

static struct slice trim(struct slice s)
{
    while (s.len && *s.ptr == ' ')
        s = slice_skip(s, 1);
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

bool settings_next_word(struct slice *range, struct slice *word, bool *is_offered)
{
    if (range->len == 0)
        return false;
    size_t bar = slice_find(*range, '|');
    *word = trim(slice_head(*range, bar));
    *range = slice_skip(*range, bar + 1);
    *is_offered = *word->ptr != '(';
    if (!*is_offered)
        *word = slice_of(word->ptr + 1, word->len - 2);
    return true;
}
