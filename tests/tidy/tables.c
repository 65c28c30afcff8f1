/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables - prints the reference documents that grow from our tables:
 *
 *     tables configuration   docs/configuration.md, from settings_table.h
 *     tables metrics         docs/metrics.md, from metrics_table.h
 *
 * The tidy check compares its output with what is committed.
 */
#include "core/base/metrics_table.h"
#include "core/base/must.h"
#include "core/base/settings.h"
#include <stdio.h>

static const char *const type_names[] = {
    [SETTING_TEXT] = "text",
    [SETTING_DOMAIN] = "domain name",
    [SETTING_HOST] = "domain name or address",
    [SETTING_NUMBER] = "number",
    [SETTING_SIZE] = "size",
    [SETTING_DURATION] = "duration",
    [SETTING_BOOL] = "yes or no",
    [SETTING_WORD] = "word",
    [SETTING_WORDS] = "list of words",
    [SETTING_BIND] = "address:port",
    [SETTING_BINDS] = "list of address:port",
    [SETTING_NETWORKS] = "list of networks",
    [SETTING_SERVERS] = "list of addresses",
    [SETTING_DURATIONS] = "list of durations",
    [SETTING_NUMBERS] = "list of numbers",
    [SETTING_RATE] = "number/duration",
    [SETTING_DAY] = "day",
    [SETTING_LATER] = "not offered yet",
};

static const char configuration_intro[] =
    "# Configuration\n"
    "\n"
    "<!-- Made by `tables configuration` from core/base/settings_table.h; do not edit. -->\n"
    "\n"
    "Kilat reads one file, in a subset of UCL:\n"
    "\n"
    "```\n"
    "hostname = \"gateway.example.org\";     # a setting; ; or the end of the line ends it\n"
    "listener \"trusted\" {                  # a section with a name\n"
    "    bind = [\"127.0.0.1:2525\", \"[::1]:2525\"];\n"
    "    networks = [\"127.0.0.0/8\", \"::1\"];\n"
    "}\n"
    "limits { message_size_max: 25m, command_timeout: 2min }\n"
    "route \"*\" { relay = \"smarthost\"; host = \"smtp.example.org\"; port = 25; }\n"
    "```\n"
    "\n"
    "- `key = value` and `key: value` mean the same. A value is a word, a number, a \"string\" "
    "with\n"
    "  the escapes of JSON, or a list in brackets; a list of one needs no brackets.\n"
    "- A size is a number of octets, or one with `k`, `m` or `g` (powers of 1024). A duration has "
    "a\n"
    "  unit: `ms`, `s`, `min`, `h` or `d`. Yes and no may be written `on`, `off`, `true`, "
    "`false`.\n"
    "- Comments go from `#` to the end of the line, or between `/*` and `*/`.\n"
    "- Whatever is unknown, misplaced, out of range or written twice is an error that names file,\n"
    "  line and key. `kilat check -c FILE` reads the file without starting anything.\n"
    "- Words in parentheses are known, but this version does not offer them yet and refuses "
    "them.\n";

/* A table cell must not end at a bar of its own. */
static void print_cell(const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            putchar('\\');
        putchar(*text);
    }
}

static void print_code(const char *text)
{
    if (!*text) {
        printf("none");
        return;
    }
    putchar('`');
    print_cell(text);
    putchar('`');
}

static void print_setting(const struct setting *s)
{
    printf("| `%s` | %s", s->key, type_names[s->type]);
    if (*s->range) {
        printf(", ");
        print_cell(s->range);
    }
    if (*s->unit)
        printf(" %s", s->unit);
    printf(" | ");
    print_code(s->initial);
    printf(" | ");
    print_cell(s->prose);
    printf(" |\n");
}

static void print_section(enum setting_section id)
{
    const struct section *section = &sections[id];
    if (id == SECTION_TOP)
        printf("\n## Top of the file\n");
    else if (*section->label)
        printf("\n## %s \"%s\" { }\n", section->name, section->label);
    else
        printf("\n## %s { }\n", section->name);
    printf("\n%s\n\n| setting | value | default | what it does |\n|---|---|---|---|\n",
           section->prose);
    for (size_t i = 0; i < setting_count; i++)
        if (settings[i].section == id)
            print_setting(&settings[i]);
}

static void print_configuration(void)
{
    printf("%s", configuration_intro);
    for (int id = SECTION_TOP; id < SECTION_COUNT; id++)
        print_section((enum setting_section)id);
}

static void print_metrics(void)
{
    static const struct {
        const char *type, *name, *help;
    } rows[] = {
#define X(id, type, name, help) { #type, name, help },
        METRICS_TABLE(X) QUEUE_AGE_TABLE(X)
#undef X
    };
    printf("# Metrics\n"
           "\n"
           "<!-- Made by `tables metrics` from core/base/metrics_table.h; do not edit. -->\n"
           "\n"
           "`/metrics` on the admin port shows these in the text format of Prometheus (0.0.4), "
           "summed over\nthe workers. Counters begin at 0 when the process starts.\n"
           "\n"
           "| name | type | what it counts |\n|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        printf("| `kilat_%s` | %s | ", rows[i].name, rows[i].type);
        print_cell(rows[i].help);
        printf(" |\n");
    }
}

int main(int argc, char **argv)
{
    struct slice which = slice_str(argc == 2 ? argv[1] : NULL);
    if (slice_eq(which, SLICE("configuration"))) {
        print_configuration();
    } else if (slice_eq(which, SLICE("metrics"))) {
        print_metrics();
    } else {
        fprintf(stderr, "usage: tables configuration | tables metrics\n");
        return 2;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
