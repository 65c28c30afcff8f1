/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_file - one bounded read of one file, on the main thread, before anything else runs.
 *
 * It reads what the path leads to, a pipe too (`kilat check -c /dev/stdin`), so the size is learnt
 * by reading, not asked beforehand. One rule is added to those of core/base/config_check.c: what a
 * sender's pattern is, core/smtp knows.
 */
#include "io/config_file.h"
#include "core/smtp/address.h"
#include "core/smtp/return_path.h"
#include "core/smtp/sender_list.h"
#include "io/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define READ_STEP (16 * 1024)

/* Reads up to the end of file; false: errno says why. The text's own bound is one octet more than
 * what we accept, so that too much can be told from just enough. */
static bool read_all(int fd, struct buf *text)
{
    while (text->len < text->max) {
        uint32_t step = text->max - text->len < READ_STEP ? text->max - text->len : READ_STEP;
        char *room = buf_reserve(text, step);
        if (!room)
            break;
        ssize_t n = read(fd, room, step);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        text->len += (uint32_t)n;
    }
    return true;
}

static enum status read_file(const char *path, struct buf *text, struct buf *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_with(error, STATUS_SYSTEM, "cannot open %s: %s", path, strerror(errno));
    bool good = read_all(fd, text);
    int saved = errno;
    (void)close(fd);
    if (!good)
        return fail_with(error, STATUS_SYSTEM, "cannot read %s: %s", path, strerror(saved));
    if (text->len > CONFIG_FILE_MAX)
        return fail_with(error, STATUS_FULL, "%s is larger than %d octets", path, CONFIG_FILE_MAX);
    return STATUS_OK;
}

static enum status check_senders(const struct config_tenant *t, const char *file, struct buf *error)
{
    for (size_t i = 0; i < t->sender_count; i++)
        if (!sender_pattern_is_valid(slice_str(t->senders[i])))
            return fail_with(error, STATUS_BAD,
                             "%s:%d: tenant \"%s\": senders: \"%.60s\" is no pattern: write "
                             "\"a@example.org\", \"@example.org\", \"@*.example.org\" or \"*\"",
                             file, t->line, t->name, t->senders[i]);
    return STATUS_OK;
}

static enum status check_report_from(const struct config *cfg, struct buf *error)
{
    struct address parsed;
    const char *from = cfg->relay.tls_report_from;
    if (!from || (address_parse_mailbox(slice_str(from), &parsed) == ADDRESS_OK &&
                  parsed.domain.len > 0 && !parsed.is_literal))
        return STATUS_OK;
    return fail_with(error, STATUS_BAD,
                     "%s: relay: tls_report_from: \"%.60s\" is no mailbox: write "
                     "\"tls-reports@example.org\"",
                     cfg->file, from);
}

/* One at a domain whose mail comes in here would go in a circle. */
static enum status check_postmaster(const struct config *cfg, struct buf *error)
{
    struct address parsed;
    const char *to = cfg->bounces.postmaster;
    if (!to ||
        (address_parse_mailbox(slice_str(to), &parsed) == ADDRESS_OK && parsed.domain.len > 0 &&
         !parsed.is_literal && !return_path_is_domain(cfg, parsed.domain)))
        return STATUS_OK;
    return fail_with(error, STATUS_BAD,
                     "%s: bounces: postmaster: \"%.60s\" is no mailbox at another domain: write "
                     "\"postmaster@example.org\"",
                     cfg->file, to);
}

static enum status parse_file(const char *path, struct slice text, struct config **out,
                              struct buf *error)
{
    struct config *cfg = NULL;
    enum status st = config_parse(path, text, &cfg, error);
    for (size_t i = 0; st == STATUS_OK && i < cfg->tenant_count; i++)
        st = check_senders(&cfg->tenants[i], cfg->file, error);
    if (st == STATUS_OK)
        st = check_report_from(cfg, error);
    if (st == STATUS_OK)
        st = check_postmaster(cfg, error);
    if (st == STATUS_OK)
        *out = cfg;
    else if (cfg)
        config_free(cfg);
    return st;
}

enum status config_load(const char *path, struct config **out, struct buf *error)
{
    struct buf text;
    buf_init(&text, CONFIG_FILE_MAX + 1);
    enum status st = read_file(path, &text, error);
    if (st == STATUS_OK)
        st = parse_file(path, buf_slice(&text), out, error);
    buf_done(&text);
    return st;
}
