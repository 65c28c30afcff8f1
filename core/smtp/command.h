/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * command - one command line, without its CR LF, into a verb and its arguments.
 *
 * Pure: no allocation, no state; every slice points into the line. It says what the line is;
 * whether the verb is legal now, and which reply a fault gets, is the session's business.
 */
#include "core/smtp/address.h"
#include <stdint.h>

/* X(verb): named as it is spelt. */
#define SMTP_VERB_TABLE(X)                                                                         \
    X(EHLO)                                                                                        \
    X(HELO)                                                                                        \
    X(MAIL)                                                                                        \
    X(RCPT)                                                                                        \
    X(DATA)                                                                                        \
    X(RSET)                                                                                        \
    X(NOOP)                                                                                        \
    X(VRFY)                                                                                        \
    X(EXPN)                                                                                        \
    X(HELP)                                                                                        \
    X(QUIT)                                                                                        \
    X(BDAT)                                                                                        \
    X(STARTTLS)                                                                                    \
    X(AUTH)                                                                                        \
    X(ETRN)                                                                                        \
    X(TURN)                                                                                        \
    X(SEND)                                                                                        \
    X(SOML)                                                                                        \
    X(SAML)                                                                                        \
    X(XCLIENT)

enum smtp_verb {
    SMTP_VERB_UNKNOWN, /* no such verb (P-13) */
    SMTP_VERB_FOREIGN, /* HTTP, SSH or Redis speaks: close at once (P-25) */
#define X(verb) SMTP_VERB_##verb,
    SMTP_VERB_TABLE(X)
#undef X
        SMTP_VERB_COUNT
};

enum command_error {
    COMMAND_OK,
    COMMAND_BAD_OCTET,   /* NUL, another control or an 8-bit octet outside a path (P-18, P-19) */
    COMMAND_BAD_SYNTAX,  /* MAIL, RCPT: no FROM:/TO:, no path, a space after the colon (P-38) */
    COMMAND_BAD_ADDRESS, /* MAIL, RCPT: the path; address_error says why */
    COMMAND_NO_SPACE,    /* MAIL, RCPT: octets right after the path's '>' (P-41) */
    COMMAND_BAD_PARAM,   /* MAIL, RCPT: a parameter is not KEYWORD or KEYWORD=value */
    COMMAND_DUPLICATE_PARAM, /* MAIL, RCPT: a keyword that we know stands twice (P-40) */
};

/* X(keyword, spelling): those with a meaning somewhere; the session decides which are offered. */
#define SMTP_PARAM_TABLE(X)                                                                        \
    X(SIZE, "SIZE")                                                                                \
    X(BODY, "BODY")                                                                                \
    X(AUTH, "AUTH")                                                                                \
    X(RET, "RET")                                                                                  \
    X(ENVID, "ENVID")                                                                              \
    X(NOTIFY, "NOTIFY")                                                                            \
    X(ORCPT, "ORCPT")                                                                              \
    X(SMTPUTF8, "SMTPUTF8")                                                                        \
    X(REQUIRETLS, "REQUIRETLS")                                                                    \
    X(BY, "BY")                                                                                    \
    X(HOLDFOR, "HOLDFOR")                                                                          \
    X(HOLDUNTIL, "HOLDUNTIL")                                                                      \
    X(MT_PRIORITY, "MT-PRIORITY")

enum smtp_param_id {
    SMTP_PARAM_UNKNOWN,
#define X(id, spelling) SMTP_PARAM_##id,
    SMTP_PARAM_TABLE(X)
#undef X
};

struct smtp_param {
    enum smtp_param_id id;
    struct slice keyword; /* as given */
    struct slice value;   /* never empty when has_value */
    bool has_value;
};

struct smtp_command {
    enum smtp_verb verb;
    struct slice name;     /* the first word as given */
    struct slice argument; /* what follows it, without the spaces around it; may be empty */
    /* MAIL and RCPT only; otherwise empty. */
    struct address path; /* valid with COMMAND_OK and the three parameter faults */
    enum address_error address_error;
    struct slice params; /* well formed with COMMAND_OK; for smtp_param_next */
};

/* Parses one line of any octets. The verb is set whatever is returned. White space at the end of
 * the line is dropped (RFC 5321 4.1.1). With COMMAND_OK: a MAIL path has a domain or is <>; a RCPT
 * path has a domain or is bare postmaster (P-36, P-49). Whether DATA, RSET, QUIT have an argument
 * that they must not have is left to the caller. */
enum command_error smtp_command_parse(struct slice line, struct smtp_command *out);

/* Cuts the next parameter from the front of *params (start with a copy of command.params); false
 * when there is none left. */
bool smtp_param_next(struct slice *params, struct smtp_param *out);

/* SIZE's value: 1 to 20 digits; what 64 bits cannot hold becomes UINT64_MAX (P-56). False: not a
 * SIZE, *octets is untouched. */
bool smtp_size_parse(struct slice value, uint64_t *octets);

/* Decodes xtext (RFC 3461 4): "+" and two upper case hex digits, or a printable octet other than
 * "+" and "=". Refuses everything else, also what decodes to a control or 8-bit octet (P-61, P-62).
 * `out` has room for in.len octets; *out_len is set on success. */
bool smtp_xtext_decode(struct slice in, char *out, size_t *out_len);
