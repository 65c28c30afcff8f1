/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kilat - the command line.
 *
 *     kilat serve -c FILE            run the gateway
 *     kilat check -c FILE            would it start here, and with which kernel features
 *     kilat queue -c FILE COMMAND    look at the queue and act on it
 *     kilat suppress -c FILE COMMAND keep a tenant's suppression list
 *     kilat events -c FILE           print what happens to mail
 */
#include "core/base/must.h"
#include "io/cli.h"
#include "io/cli_events.h"
#include "io/cli_suppress.h"
#include "io/cli_user.h"
#include "io/config_file.h"
#include "io/node.h"
#include <stdio.h>

#define ERROR_MAX 2048

/* argv holds what follows the command and its -c FILE. */
typedef int command_fn(const struct config *cfg, int argc, char **argv);

static int run_serve(const struct config *cfg, int argc, char **argv)
{
    return node_serve(cfg);
}

static int run_check(const struct config *cfg, int argc, char **argv)
{
    return node_check(cfg);
}

static const struct {
    const char *name;
    command_fn *run;
    int args_max; /* -1: as many as it likes */
    const char *help;
} commands[] = {
    { "serve", run_serve, 0, "run the gateway until SIGTERM" },
    { "check", run_check, 0, "check configuration, kernel and Redis; start nothing" },
    { "queue", cli_queue, -1, "list, show, delete, hold, release, retry, dead, revive, stats" },
    { "user", cli_user, -1, "add, passwd, disable, enable, remove, show, list" },
    { "suppress", cli_suppress, -1,
      "add, remove, list, import: addresses a tenant may not send to" },
    { "events", cli_events, -1, "print what happens to mail, one JSON object a line" },
};

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: kilat COMMAND -c FILE [ARGUMENTS]\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "  --version\n");
    return code;
}

/* Takes "-c FILE" out of the arguments; NULL: it is not there. */
static const char *take_config(int *argc, char **argv)
{
    for (int i = 0; i + 1 < *argc; i++)
        if (slice_eq(slice_str(argv[i]), SLICE("-c"))) {
            const char *path = argv[i + 1];
            for (int j = i; j + 2 < *argc; j++)
                argv[j] = argv[j + 2];
            *argc -= 2;
            return path;
        }
    return NULL;
}

static int run_with_config(command_fn *run, const char *path, int argc, char **argv)
{
    struct config *cfg;
    struct buf error;
    buf_init(&error, ERROR_MAX);
    if (config_load(path, &cfg, &error) != STATUS_OK) {
        fprintf(stderr, "kilat: %.*s\n", SLICE_ARG(buf_slice(&error)));
        buf_done(&error);
        return 2;
    }
    int code = run(cfg, argc, argv);
    config_free(cfg);
    buf_done(&error);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, 2);
    struct slice name = slice_str(argv[1]);
    if (slice_eq(name, SLICE("--version"))) {
        printf("kilat %s\n", KILAT_VERSION);
        return 0;
    }
    if (slice_eq(name, SLICE("--help")) || slice_eq(name, SLICE("help")))
        return usage(stdout, 0);
    argc -= 2;
    argv += 2;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (!slice_eq(name, slice_str(commands[i].name)))
            continue;
        const char *path = take_config(&argc, argv);
        if (!path || (commands[i].args_max >= 0 && argc > commands[i].args_max))
            return usage(stderr, 2);
        return run_with_config(commands[i].run, path, argc, argv);
    }
    fprintf(stderr, "kilat: unknown command \"%s\"\n", argv[-1]);
    return usage(stderr, 2);
}
