/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * account - one user who may submit mail, as one line of text: in a users file, or as a field of a
 * hash in Redis. `kilat user` writes these lines, the authenticator reads them.
 *
 *     alice@example.org tenant=acme argon2id=$argon2id$v=19$m=19456,t=2,p=1$...
 * scram=4096,SALT,STORED,SERVER reports disabled sender=@example.org sender=billing@example.net
 * recipients_per_day=5000 lane=bulk
 *
 * The first word is the name (1 to 255 octets, printable UTF-8 without spaces; written as it is
 * typed at login, compared octet by octet), then `disabled` or key=value in any order, separated by
 * single spaces. A file may have empty lines and lines that begin with '#'.
 *
 * Pure text in, struct out; hashing passwords is io/'s (slow, and needs chance).
 */
#include "core/base/buf.h"
#include "core/base/config.h"
#include "core/smtp/sasl.h"
#include "core/smtp/sender_list.h"
#include <stdatomic.h>

struct account {
    _Atomic uint32_t refs;
    char *name;   /* owned */
    char *tenant; /* owned; "" none */
    bool is_disabled;
    char *argon2; /* owned; encoded hash; NULL: none */
    bool has_scram;
    struct scram_verifier scram;
    struct sender_list senders;                         /* empty: the tenant's decide */
    uint32_t recipients_per_minute, recipients_per_day; /* 0: the tenant's default for users */
    bool has_lane;
    enum mail_lane lane; /* with has_lane: of mail that asks for none; else the listener's */
};

#define ACCOUNT_NAME_MAX 255
#define ACCOUNT_LINE_MAX 8192

/* BAD: error holds what is wrong with which word. One reference. */
NODISCARD enum status account_parse(struct slice line, struct account **out, struct buf *error);
NODISCARD enum status account_format(const struct account *a, struct buf *out); /* without LF */
bool account_name_is_valid(struct slice name);
/* Sets the lane of that name; false: there is none. */
bool account_read_lane(struct account *a, struct slice value);
const char *account_lane(const struct account *a); /* its name; NULL: it has none of its own */
struct account *account_ref(struct account *a);
void account_unref(struct account *a); /* any thread; NULL is harmless */
