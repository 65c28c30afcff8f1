/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_file - "address name name ..." line by line, '#' begins a comment (hosts(5)).
 *
 * Names for smarthosts only: mail domains belong to the DNS, and a machine that lists its own name
 * as 127.0.1.1 must not redirect that domain's mail. The table is small and looked at once per
 * destination and hour, so it is searched from the front.
 */
#include "io/hosts_file.h"
#include "core/base/must.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

bool hosts_parse_address(const char *text, struct sockaddr_storage *addr, socklen_t *addr_len)
{
    char bare[64];
    struct sockaddr_in *v4 = (struct sockaddr_in *)addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)addr;
    size_t len = strlen(text);
    bool in_brackets = len > 2 && text[0] == '[' && text[len - 1] == ']';
    if (len >= sizeof bare)
        return false;
    snprintf(bare, sizeof bare, "%.*s", (int)(in_brackets ? len - 2 : len), text + in_brackets);
    memset(addr, 0, sizeof *addr);
    if (!in_brackets && inet_pton(AF_INET, bare, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        *addr_len = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, bare, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    *addr_len = sizeof *v6;
    return true;
}

static void add_row(struct hosts_file *h, const char *name, const struct sockaddr_storage *addr,
                    socklen_t addr_len)
{
    if (h->count % 64 == 0)
        h->rows = mem_realloc(h->rows, (h->count + 64) * sizeof *h->rows);
    h->rows[h->count++] =
        (struct hosts_row){ .name = mem_strdup(name), .addr = *addr, .addr_len = addr_len };
}

static void take_line(struct hosts_file *h, char *line)
{
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char *save = NULL;
    line[strcspn(line, "#\r\n")] = '\0';
    const char *first = strtok_r(line, " \t", &save);
    if (!first || !hosts_parse_address(first, &addr, &addr_len))
        return;
    for (const char *name; (name = strtok_r(NULL, " \t", &save)) != NULL;) {
        if (h->count < HOSTS_FILE_ROWS_MAX)
            add_row(h, name, &addr, addr_len);
    }
}

void hosts_file_load(struct hosts_file *h, const char *path)
{
    char line[4096];
    *h = (struct hosts_file){ 0 };
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    while (h->count < HOSTS_FILE_ROWS_MAX && fgets(line, sizeof line, f))
        take_line(h, line);
    (void)fclose(f);
}

void hosts_file_done(struct hosts_file *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->rows[i].name);
    free(h->rows);
    *h = (struct hosts_file){ 0 };
}

const struct hosts_row *hosts_file_next(const struct hosts_file *h, struct slice name, size_t *at)
{
    for (; *at < h->count; (*at)++) {
        if (slice_eq_nocase(slice_str(h->rows[*at].name), name))
            return &h->rows[(*at)++];
    }
    return NULL;
}
