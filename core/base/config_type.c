/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_type - one setter per type of setting, in the table types[]; a list calls its setter once
 * per item. What a setter made, config_type_free frees; both know the field from the row alone.
 *
 * Limits: LIST_MAX values in one list, TEXT_MAX octets in a text.
 *
 * To add a type: a value in enum setting_type, a reader in config_value.c, a setter and rows of
 * expectations[] and types[] here, and a case in config_type_free if it owns memory.
 */
#include "core/base/config_type.h"
#include "core/base/config_value.h"
#include "core/base/must.h"
#include <stdlib.h>

#define LIST_MAX 1000
#define TEXT_MAX 1024

/* What is wrong with a text that is no value of its type. */
static const char *const expectations[] = {
    [SETTING_TEXT] = "is empty: write a value or take the line out",
    [SETTING_DOMAIN] = "is no domain name: write letters, digits and hyphens between dots, for "
                       "example gateway.example.org",
    [SETTING_HOST] = "is no host: write a domain name or an address",
    [SETTING_NUMBER] = "is no number: write decimal digits",
    [SETTING_SIZE] = "is no size: write a number of octets, or one with k, m or g, for example 10m",
    [SETTING_DURATION] = "is no duration: write a number and ms, s, min, h or d, for example 5min",
    [SETTING_RATE] = "is no rate: write how many, a slash, and 1s to 1d, for example 100/1min",
    [SETTING_BOOL] = "is neither yes nor no: write yes or no",
    [SETTING_BIND] = "is no address and port: write for example 127.0.0.1:2525 or [::1]:2525 "
                     "(names are not looked up)",
    [SETTING_BINDS] = "is no address and port: write for example 127.0.0.1:2525 or [::1]:2525 "
                      "(names are not looked up)",
    [SETTING_NETWORKS] = "is no network: write an address, or one with a prefix and no bits "
                         "behind it, for example 10.0.0.0/8 or ::1",
    [SETTING_TEXTS] = "is empty: write a value or take it out",
    [SETTING_SERVERS] = "is no address: write for example 127.0.0.1 or 127.0.0.1@5353",
    [SETTING_DURATIONS] = "is no duration: write a number and ms, s, min, h or d, for example 5min",
    [SETTING_NUMBERS] = "is no number: write decimal digits",
    [SETTING_DAY] = "is no day: write for example \"2026-11-23\"",
};

char *config_type_copy(struct slice text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

static bool complain_value(struct config_reader *r, const struct setting *row,
                           const struct ucl_node *node)
{
    return config_complain(r, node->line, slice_str(row->key), "\"%s\" %s",
                           config_show(node->text).text, expectations[row->type]);
}

static void *field_of(const struct setting *row, void *base)
{
    return (char *)base + row->offset;
}

static size_t *counter_of(const struct setting *row, void *base)
{
    must(row->count_offset != 0);
    return (size_t *)(void *)((char *)base + row->count_offset);
}

/* Ranges of the table keep value inside of the field. */
static void store(const struct setting *row, void *base, uint64_t value)
{
    must(row->size == 8 || value >> (8 * row->size) == 0);
    memcpy(field_of(row, base), &value, row->size); /* little-endian machines only: see below */
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "store() copies the low octets");

static bool read_quantity(const struct setting *row, struct slice text, uint64_t *out)
{
    switch (row->type) {
    case SETTING_NUMBERS:
    case SETTING_NUMBER: return config_value_number(text, out);
    case SETTING_SIZE: return config_value_size(text, out);
    default: return config_value_duration(text, out);
    }
}

/* A quantity inside of the row's range "least..most". */
static bool read_in_range(struct config_reader *r, const struct setting *row,
                          const struct ucl_node *node, uint64_t *out)
{
    const char *dots = strstr(row->range, "..");
    uint64_t least, most;
    must(dots && read_quantity(row, slice_of(row->range, (size_t)(dots - row->range)), &least) &&
         read_quantity(row, slice_str(dots + 2), &most));
    if (!read_quantity(row, node->text, out))
        return complain_value(r, row, node);
    if (*out < least || *out > most)
        return config_complain(r, node->line, slice_str(row->key), "%s is out of range: %s",
                               config_show(node->text).text, row->range);
    return true;
}

static bool set_quantity(struct config_reader *r, const struct setting *row, void *base,
                         const struct ucl_node *node)
{
    uint64_t value;
    if (!read_in_range(r, row, node, &value))
        return false;
    store(row, base, value);
    return true;
}

static bool set_bool(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    bool value;
    if (!config_value_bool(node->text, &value))
        return complain_value(r, row, node);
    store(row, base, value);
    return true;
}

static bool set_rate(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    struct config_rate rate;
    if (!config_value_rate(node->text, &rate))
        return complain_value(r, row, node);
    *(struct config_rate *)field_of(row, base) = rate;
    return true;
}

static bool set_day(struct config_reader *r, const struct setting *row, void *base,
                    const struct ucl_node *node)
{
    return config_value_day(node->text, field_of(row, base)) || complain_value(r, row, node);
}

/* The place of the text among the words of the row's range. */
static bool find_word(struct config_reader *r, const struct setting *row,
                      const struct ucl_node *node, uint64_t *out)
{
    struct slice range = slice_str(row->range), word, first = SLICE_NONE;
    bool is_offered;
    *out = 0;
    for (uint64_t i = 0; settings_next_word(&range, &word, &is_offered); i++) {
        if (!first.len)
            first = word;
        if (!slice_eq(word, node->text))
            continue;
        *out = i;
        return is_offered || config_complain(r, node->line, slice_str(row->key),
                                             "this version does not offer \"%.*s\" yet: "
                                             "write %s = \"%.*s\"",
                                             SLICE_ARG(word), row->key, SLICE_ARG(first));
    }
    return config_complain(r, node->line, slice_str(row->key),
                           "\"%s\" is not known: write one of %s", config_show(node->text).text,
                           row->range);
}

static bool set_word(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    uint64_t value;
    if (!find_word(r, row, node, &value))
        return false;
    store(row, base, value);
    return true;
}

static bool set_text(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    bool ok = row->type == SETTING_DOMAIN ? config_value_is_domain(node->text)
              : row->type == SETTING_HOST ? config_value_is_host(node->text)
                                          : node->text.len > 0;
    for (size_t i = 0; i < node->text.len; i++)
        if ((unsigned char)node->text.ptr[i] < 0x20)
            return config_complain(r, node->line, slice_str(row->key),
                                   "holds a control character: take it out");
    if (!ok)
        return complain_value(r, row, node);
    if (node->text.len > TEXT_MAX)
        return config_complain(r, node->line, slice_str(row->key), "is longer than %d octets",
                               TEXT_MAX);
    *(char **)field_of(row, base) = config_type_copy(node->text);
    return true;
}

static bool set_bind(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    struct config_bind bind;
    if (!config_value_bind(node->text, &bind))
        return complain_value(r, row, node);
    struct config_bind *copy = mem_alloc(sizeof *copy);
    *copy = bind;
    *(struct config_bind **)field_of(row, base) = copy;
    return true;
}

static bool set_later(struct config_reader *r, const struct setting *row, void *base,
                      const struct ucl_node *node)
{
    return config_complain(r, node->line, slice_str(row->key),
                           "this version does not offer it yet: take it out");
}

static bool add_word(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    uint64_t place;
    if (!find_word(r, row, node, &place))
        return false;
    *(uint32_t *)field_of(row, base) |= 1u << place;
    return true;
}

/* A place for one more item at the end of the row's list. */
static void *add_item(const struct setting *row, void *base, size_t item_size)
{
    void **items = field_of(row, base);
    size_t *count = counter_of(row, base);
    *items = mem_realloc(*items, (*count + 1) * item_size);
    return (char *)*items + (*count)++ * item_size;
}

static bool add_bind(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    struct config_bind bind;
    if (!config_value_bind(node->text, &bind))
        return complain_value(r, row, node);
    *(struct config_bind *)add_item(row, base, sizeof bind) = bind;
    return true;
}

static bool add_network(struct config_reader *r, const struct setting *row, void *base,
                        const struct ucl_node *node)
{
    struct config_network network;
    if (!config_value_network(node->text, &network))
        return complain_value(r, row, node);
    *(struct config_network *)add_item(row, base, sizeof network) = network;
    return true;
}

static bool add_server(struct config_reader *r, const struct setting *row, void *base,
                       const struct ucl_node *node)
{
    if (!config_value_is_server(node->text))
        return complain_value(r, row, node);
    *(char **)add_item(row, base, sizeof(char *)) = config_type_copy(node->text);
    return true;
}

static bool add_text(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    char *text = NULL;
    struct setting one = *row;
    one.offset = 0;
    if (!set_text(r, &one, &text, node))
        return false;
    *(char **)add_item(row, base, sizeof(char *)) = text;
    return true;
}

static bool add_quantity(struct config_reader *r, const struct setting *row, void *base,
                         const struct ucl_node *node)
{
    uint64_t value;
    if (!read_in_range(r, row, node, &value))
        return false;
    *(uint32_t *)add_item(row, base, sizeof(uint32_t)) = (uint32_t)value;
    return true;
}

typedef bool set_fn(struct config_reader *r, const struct setting *row, void *base,
                    const struct ucl_node *node);

static const struct {
    set_fn *set;
    bool is_list; /* set is called per item */
} types[] = {
    [SETTING_TEXT] = { set_text, false },     [SETTING_DOMAIN] = { set_text, false },
    [SETTING_HOST] = { set_text, false },     [SETTING_NUMBER] = { set_quantity, false },
    [SETTING_SIZE] = { set_quantity, false }, [SETTING_DURATION] = { set_quantity, false },
    [SETTING_BOOL] = { set_bool, false },     [SETTING_WORD] = { set_word, false },
    [SETTING_WORDS] = { add_word, true },     [SETTING_BIND] = { set_bind, false },
    [SETTING_BINDS] = { add_bind, true },     [SETTING_NETWORKS] = { add_network, true },
    [SETTING_SERVERS] = { add_server, true }, [SETTING_DURATIONS] = { add_quantity, true },
    [SETTING_TEXTS] = { add_text, true },     [SETTING_LATER] = { set_later, true },
    [SETTING_RATE] = { set_rate, false },     [SETTING_NUMBERS] = { add_quantity, true },
    [SETTING_DAY] = { set_day, false },
};

static bool set_list(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    if (node->child_count > LIST_MAX)
        return config_complain(r, node->line, slice_str(row->key), "holds more than %d values",
                               LIST_MAX);
    if (node->child_count == 0)
        return config_complain(r, node->line, slice_str(row->key),
                               "is empty: write a value or take the line out");
    for (const struct ucl_node *item = node->first; item; item = item->next)
        if (!types[row->type].set(r, row, base, item))
            return false;
    return true;
}

bool config_type_set(struct config_reader *r, const struct setting *row, void *base,
                     const struct ucl_node *node)
{
    if (node->kind == UCL_SECTION)
        return config_complain(r, node->line, slice_str(row->key),
                               "is a setting, not a section: write %s = value;", row->key);
    if (node->kind == UCL_TEXT) /* a list of one needs no brackets */
        return types[row->type].set(r, row, base, node);
    if (!types[row->type].is_list)
        return config_complain(r, node->line, slice_str(row->key), "takes one value, not a list");
    return set_list(r, row, base, node);
}

static void free_binds(struct config_bind *binds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(binds[i].host);
    free(binds);
}

void config_type_free(const struct setting *row, void *base)
{
    void **field = field_of(row, base);
    switch (row->type) {
    case SETTING_TEXT:
    case SETTING_DOMAIN:
    case SETTING_HOST:
    case SETTING_NETWORKS:
    case SETTING_NUMBERS:
    case SETTING_DURATIONS: free(*field); break;
    case SETTING_BIND: free_binds(*field, *field != NULL); break;
    case SETTING_BINDS: free_binds(*field, *counter_of(row, base)); break;
    case SETTING_TEXTS:
    case SETTING_SERVERS:
        for (size_t i = 0; i < *counter_of(row, base); i++)
            free(((char **)*field)[i]);
        free(*field);
        break;
    default: break;
    }
}
