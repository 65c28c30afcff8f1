/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * returned - what a message that came back says: a bounce (RFC 3464, RFC 6533) or a complaint
 * (RFC 5965), read while it streams by and kept nowhere else (P-250, P-251).
 *
 * Everything in it is a stranger's: text is made printable and cut, and no address in it is taken
 * for that of a recipient; return_path.h says whom it is about.
 */
#include "core/base/slice.h"
#include "core/smtp/address.h"
#include <stdbool.h>

#define RETURNED_TEXT_MAX 512 /* octets of a diagnostic */

enum returned_kind {
    RETURNED_OTHER,     /* no report that we can read: an answer by hand, or by a machine */
    RETURNED_BOUNCE,    /* a delivery status notification */
    RETURNED_COMPLAINT, /* a feedback report */
};

/* Texts end in a NUL, printable ASCII; "": nothing was said. */
struct returned {
    enum returned_kind kind;
    char action[16]; /* "failed", "delayed", "delivered", "relayed", "expanded"; lower case */
    char status[12]; /* "5.1.1" */
    char host[256];  /* Remote-MTA, or else Reporting-MTA, without "dns;" */
    char text[RETURNED_TEXT_MAX];  /* Diagnostic-Code, without "smtp;" */
    char feedback[24];             /* Feedback-Type: "abuse", "fraud", ...; lower case */
    char sender[ADDRESS_PATH_MAX]; /* of a complaint: the address that the mail was sent from */
};

struct returned_reader; /* returned.c */

struct returned_reader *returned_reader_new(void);
void returned_reader_free(struct returned_reader *r); /* NULL is harmless */
/* The next octets of the content, cut anywhere; lines end in CR LF or LF. */
void returned_read(struct returned_reader *r, struct slice in);
/* The content is over; the result lives as long as the reader. Called once. */
const struct returned *returned_end(struct returned_reader *r);

/* A bounce as the reply that it tells of. */
struct returned_reply {
    int code;          /* 400 to 599; of the diagnostic, else 450 or 550 by the status; 0: none */
    char enhanced[12]; /* of the status; of the diagnostic, where the status says less */
    const char *text;  /* into r->text, behind code and enhanced code */
};
void returned_reply_of(const struct returned *r, struct returned_reply *out);
