/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * params - the parameters of MAIL and RCPT: their values, read and bounded.
 *
 * Pure: whether an extension is offered now, and what its value leads to, is the session's.
 */
#include "core/smtp/command.h"
#include "core/smtp/message.h"

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };

struct mail_params {
    uint64_t size; /* declared; 0: unknown */
    enum smtp_body body;
    bool is_utf8, requires_tls;
    bool has_by, has_hold_for, has_hold_until, has_priority;
    enum dsn_ret ret;
    struct slice envid; /* as given */
    int32_t by_s;       /* DELIVERBY's time, -999999999 to 999999999 */
    bool by_return, by_trace;
    uint32_t hold_for_s;
    int64_t hold_until_ms; /* wall clock */
    int8_t priority;
};

struct rcpt_params {
    uint32_t notify;
    struct slice orcpt; /* as given */
};

enum params_result { PARAMS_OK, PARAMS_UNKNOWN, PARAMS_BAD_VALUE };

/* offered: bits 1 << enum smtp_param_id; others are UNKNOWN (P-39). params as of struct
 * smtp_command; slices point into it. */
enum params_result mail_params_read(struct slice params, uint32_t offered, struct mail_params *out);
enum params_result rcpt_params_read(struct slice params, uint32_t offered, struct rcpt_params *out);

/* "2026-11-23T10:00:00Z", with an offset or a fraction too, years 1970 to 9999 (RFC 3339). */
bool rfc3339_parse(struct slice text, int64_t *wall_ms);
