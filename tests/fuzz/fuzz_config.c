/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_config - any bytes as a configuration file: either a complete configuration or one printable
 * line that begins with the file's name; never a crash, a leak or a broken promise.
 */
#include "core/base/config.h"
#include "core/base/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_complete(const struct config *cfg)
{
    must(cfg->hostname && cfg->data_dir && cfg->listener_count > 0 && cfg->route_count > 0);
    must(cfg->retry.schedule_len > 0 && cfg->limits.sessions_max > 0);
    for (size_t i = 0; i < cfg->listener_count; i++) {
        const struct config_listener *l = &cfg->listeners[i];
        must(l->bind_count > 0 && l->network_count > 0 && l->line > 0);
        const struct sockaddr *addr = (const struct sockaddr *)&l->binds[0].addr;
        (void)config_networks_contain(l->networks, l->network_count, addr);
    }
}

static void check_error(struct slice error)
{
    must(error.len > 11 && memcmp(error.ptr, "kilat.conf:", 11) == 0);
    for (size_t i = 0; i < error.len; i++)
        must(error.ptr[i] >= 0x20 && error.ptr[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *cfg = NULL;
    struct buf error;
    buf_init(&error, 4096);
    enum status st = config_parse("kilat.conf", slice_of((const char *)data, size), &cfg, &error);
    if (st == STATUS_OK)
        check_complete(cfg);
    else
        check_error(buf_slice(&error));
    config_free(st == STATUS_OK ? cfg : NULL);
    buf_done(&error);
    return 0;
}
