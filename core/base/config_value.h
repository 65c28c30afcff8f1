/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * config_value - one value of the configuration file from its text. Each function takes the whole
 * text or returns false and leaves the output alone; what it owns is then nothing.
 */
#include "core/base/config.h"

NODISCARD bool config_value_number(struct slice text, uint64_t *out); /* decimal digits */
NODISCARD bool config_value_size(struct slice text, uint64_t *out);   /* octets: 10, 64k, 10m, 1g */
NODISCARD bool config_value_duration(struct slice text,
                                     uint64_t *out); /* ms: 0, 20ms, 5s, 1min, 1h, 5d */
NODISCARD bool config_value_rate(struct slice text, struct config_rate *out); /* 100/1min */
NODISCARD bool config_value_day(struct slice text, int32_t *out); /* 2026-11-23: since 1970 */
NODISCARD bool config_value_bool(struct slice text, bool *out);   /* yes no, on off, true false */
/* "127.0.0.1:25", "[::1]:25"; out->host is the caller's to free. */
NODISCARD bool config_value_bind(struct slice text, struct config_bind *out);
/* "10.0.0.0/8", "::1"; no bit may be set behind the prefix. */
NODISCARD bool config_value_network(struct slice text, struct config_network *out);
NODISCARD bool config_value_is_domain(struct slice text); /* letters, digits, hyphens, dots */
NODISCARD bool config_value_is_host(struct slice text);   /* a domain or an address */
NODISCARD bool config_value_is_server(struct slice text); /* an address, or address@port */
