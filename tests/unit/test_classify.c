/* SPDX-License-Identifier: Apache-2.0 */
/* Shows what the replies of real mail servers are about (P-237), what may put an address on a
 * suppression list (P-238), and what a file of rules may say and must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/relay/rules.h"

#define GOOGLE  "gmail-smtp-in.l.google.com"
#define OUTLOOK "example-org.mail.protection.outlook.com"
#define HOTMAIL "hotmail-com.olc.protection.outlook.com"
#define YAHOO   "mta5.am0.yahoodns.net"
#define ANY     "mx1.example.net"

static struct reply_rules *rules_of(const char *text)
{
    struct reply_rules *rules;
    struct buf error;
    buf_init(&error, 512);
    if (reply_rules_parse("my.rules", slice_str(text), &rules, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    buf_done(&error);
    return rules;
}

static struct rcpt_outcome outcome(enum outcome_stage stage, int code, const char *enhanced,
                                   const char *text)
{
    struct rcpt_outcome o = { .stage = stage, .code = code, .text = slice_str(text) };
    snprintf(o.enhanced, sizeof o.enhanced, "%s", enhanced);
    return o;
}

/* Actions by their first letters: sLow, susPend, Retry, Bounce; "" none. */
static const struct reply_row {
    const char *host;
    enum outcome_stage stage;
    int code;
    const char *enhanced, *text;
    const char *category, *actions;
} replies[] = {
    /* Gmail. */
    { GOOGLE, OUTCOME_RCPT, 550, "5.1.1",
      "The email account that you tried to reach does not exist. Please try double-checking the "
      "recipient's email address for typos or unnecessary spaces.",
      "invalid-mailbox", "" },
    { GOOGLE, OUTCOME_RCPT, 550, "5.2.1",
      "The email account that you tried to reach is disabled. For more information, go to "
      "https://support.google.com/mail/?p=DisabledUser",
      "inactive-mailbox", "" },
    { GOOGLE, OUTCOME_RCPT, 452, "4.2.2",
      "The recipient's inbox is out of storage space. Please direct the recipient to "
      "https://support.google.com/mail/?p=OverQuotaTemp",
      "mailbox-full", "" },
    { GOOGLE, OUTCOME_RCPT, 450, "4.2.1",
      "The user you are trying to contact is receiving mail at a rate that prevents additional "
      "messages from being delivered.",
      "rate-limited", "l" },
    { GOOGLE, OUTCOME_RCPT, 550, "5.2.1",
      "The user you are trying to contact is receiving mail at a rate that prevents additional "
      "messages from being delivered.",
      "rate-limited", "lr" },
    { GOOGLE, OUTCOME_DOT, 421, "4.7.28",
      "Gmail has detected an unusual rate of unsolicited mail originating from your IP address. "
      "To protect our users from spam, mail sent from your IP address has been temporarily rate "
      "limited.",
      "rate-limited", "p" },
    { GOOGLE, OUTCOME_DOT, 421, "4.7.0",
      "[192.0.2.1 15] Our system has detected an unusual rate of unsolicited mail originating "
      "from your IP address.",
      "rate-limited", "p" },
    { GOOGLE, OUTCOME_DOT, 550, "5.7.1",
      "[192.0.2.1 12] Our system has detected that this message is likely unsolicited mail. To "
      "reduce the amount of spam sent to Gmail, this message has been blocked.",
      "spam-content", "" },
    { GOOGLE, OUTCOME_DOT, 550, "5.7.1",
      "[192.0.2.1 19] Our system has detected that this message is likely suspicious due to the "
      "very low reputation of the sending domain.",
      "blocked", "" },
    { GOOGLE, OUTCOME_DOT, 550, "5.7.26",
      "Unauthenticated email from example.org is not accepted due to domain's DMARC policy.",
      "authentication", "" },
    { GOOGLE, OUTCOME_DOT, 550, "5.7.26",
      "This mail has been blocked because the sender is unauthenticated. Gmail requires all "
      "senders to authenticate with either SPF or DKIM.",
      "authentication", "" },
    { GOOGLE, OUTCOME_DOT, 550, "5.7.25",
      "[2001:db8::1] The IP address sending this message does not have a PTR record setup",
      "authentication", "" },
    { GOOGLE, OUTCOME_DOT, 421, "4.7.29", "Connection is not using TLS", "tls", "" },
    { GOOGLE, OUTCOME_DOT, 552, "5.7.0",
      "This message was blocked because its content presents a potential security issue.",
      "spam-content", "" },
    { GOOGLE, OUTCOME_DOT, 552, "5.3.4", "Your message exceeded Google's message size limits.",
      "message-too-large", "" },
    { GOOGLE, OUTCOME_MAIL, 550, "5.4.5", "Daily user sending limit exceeded.", "rate-limited",
      "pr" },
    { GOOGLE, OUTCOME_DOT, 421, "4.3.0", "Temporary System Problem.  Try again later", "system",
      "" },
    /* Outlook, Hotmail, Microsoft 365. */
    { HOTMAIL, OUTCOME_MAIL, 550, "5.7.1",
      "Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service "
      "provider since part of their network is on our block list (S3140).",
      "blocked", "" },
    { HOTMAIL, OUTCOME_MAIL, 550, "5.7.1",
      "Unfortunately, messages from [192.0.2.1] weren't sent. ... block list (S3150).", "blocked",
      "" },
    { HOTMAIL, OUTCOME_GREETING, 421, "",
      "RP-001 (SNT004-MC1F34) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try "
      "again. We have limits for how many messages can be sent per hour and per day.",
      "rate-limited", "p" },
    { HOTMAIL, OUTCOME_RCPT, 451, "4.7.650",
      "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For "
      "e-mail delivery information, see https://postmaster.live.com (S775)",
      "rate-limited", "p" },
    { HOTMAIL, OUTCOME_RCPT, 550, "5.5.0",
      "Requested action not taken: mailbox unavailable (S2017062302).", "invalid-mailbox", "" },
    { OUTLOOK, OUTCOME_RCPT, 550, "5.4.1",
      "Recipient address rejected: Access denied. AS(201806281)", "invalid-mailbox", "" },
    { OUTLOOK, OUTCOME_RCPT, 550, "5.7.606",
      "Access denied, banned sending IP [192.0.2.1]. To request removal from this list please "
      "visit https://sender.office.com/",
      "blocked", "" },
    { OUTLOOK, OUTCOME_RCPT, 550, "5.7.511",
      "Access denied, banned sender[192.0.2.1]. To request removal from this list please forward "
      "this message to delist@microsoft.com.",
      "blocked", "" },
    { OUTLOOK, OUTCOME_RCPT, 550, "5.1.10",
      "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
      "invalid-mailbox", "" },
    { OUTLOOK, OUTCOME_DOT, 554, "5.2.2",
      "mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiException",
      "mailbox-full", "" },
    { OUTLOOK, OUTCOME_DOT, 550, "5.7.509",
      "Access denied, sending domain example.org does not pass DMARC verification",
      "authentication", "" },
    { OUTLOOK, OUTCOME_DOT, 550, "5.7.515",
      "Access denied, sending domain example.org doesn't meet the required authentication level.",
      "authentication", "" },
    { OUTLOOK, OUTCOME_RCPT, 550, "5.7.64", "TenantAttribution; Relay Access Denied",
      "relay-denied", "" },
    { OUTLOOK, OUTCOME_RCPT, 451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]",
      "rate-limited", "p" },
    { OUTLOOK, OUTCOME_DOT, 550, "5.7.520",
      "Message blocked because it contains content identified as spam. AS(4810)", "spam-content",
      "" },
    { OUTLOOK, OUTCOME_DOT, 432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded",
      "rate-limited", "l" },
    { OUTLOOK, OUTCOME_DOT, 550, "5.4.14", "Hop count exceeded - possible mail loop ATTR34", "loop",
      "" },
    { OUTLOOK, OUTCOME_DOT, 550, "5.7.133",
      "RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", "policy", "" },
    /* Yahoo, AOL. */
    { YAHOO, OUTCOME_MAIL, 421, "4.7.0",
      "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user "
      "complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
      "rate-limited", "p" },
    { YAHOO, OUTCOME_MAIL, 421, "4.7.1",
      "[TSS09] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT "
      "succeed.",
      "blocked", "b" },
    { YAHOO, OUTCOME_MAIL, 421, "4.7.0", "[TS01] Messages from 192.0.2.1 temporarily deferred",
      "rate-limited", "p" },
    { YAHOO, OUTCOME_GREETING, 553, "5.7.1",
      "[BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's "
      "list",
      "blocked", "" },
    { YAHOO, OUTCOME_DOT, 554, "",
      "delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0] - mta4",
      "invalid-mailbox", "" },
    { YAHOO, OUTCOME_DOT, 554, "",
      "30 Sorry, your message to bob@yahoo.com cannot be delivered. This mailbox is disabled "
      "(554.30).",
      "inactive-mailbox", "" },
    { YAHOO, OUTCOME_DOT, 554, "5.7.9", "Message not accepted for policy reasons.", "policy", "" },
    { YAHOO, OUTCOME_DOT, 451, "", "Resources temporarily not available - Please try again later",
      "system", "" },
    { YAHOO, OUTCOME_MAIL, 421, "", "Max message per connection reached, closing transmission",
      "rate-limited", "" },
    /* iCloud. */
    { "mx01.mail.icloud.com", OUTCOME_RCPT, 550, "5.1.1", "<bob@icloud.com>: user does not exist",
      "invalid-mailbox", "" },
    { "mx01.mail.icloud.com", OUTCOME_DOT, 554, "5.7.1",
      "[HM07] Message rejected due to local policy. Please visit "
      "https://support.apple.com/en-us/HT204137",
      "blocked", "" },
    { "mx01.mail.icloud.com", OUTCOME_DOT, 550, "5.7.1",
      "[CS01] Message rejected due to local policy.", "spam-content", "" },
    { "mx01.mail.icloud.com", OUTCOME_RCPT, 552, "5.2.2", "<bob@icloud.com>: user is over quota",
      "mailbox-full", "" },
    /* GMX, WEB.DE. */
    { "mx00.gmx.net", OUTCOME_RCPT, 550, "",
      "Requested action not taken: mailbox unavailable For explanation visit "
      "https://postmaster.gmx.net/en/error-messages?ip=192.0.2.1&c=rp",
      "invalid-mailbox", "" },
    { "mx00.gmx.net", OUTCOME_GREETING, 554, "",
      "gmx.net (mxgmx109) Nemesis ESMTP Service not available No SMTP service Bad DNS PTR resource "
      "record.",
      "authentication", "" },
    { "mx-ha.web.de", OUTCOME_GREETING, 554, "",
      "web.de (mxweb112) Nemesis ESMTP Service not available No SMTP service IP address is black "
      "listed.",
      "blocked", "" },
    { "mx-ha.web.de", OUTCOME_DOT, 552, "",
      "Requested mail action aborted: exceeded storage allocation Quota exceeded. The recipients "
      "mailbox is full.",
      "mailbox-full", "" },
    { "mx-ha.web.de", OUTCOME_MAIL, 552, "",
      "Requested mail action aborted: exceeded storage allocation Size limit exceeded.",
      "message-too-large", "" },
    { "mx00.gmx.net", OUTCOME_RCPT, 450, "",
      "Requested mail action not taken: mailbox unavailable Mail send limit exceeded.",
      "rate-limited", "p" },
    /* Comcast, Charter, AT&T. */
    { "mx1.mxge.comcast.net", OUTCOME_GREETING, 554, "",
      "resimta-c1p-020.sys.comcast.net 192.0.2.1 Comcast block for spam. Please see "
      "http://postmaster.comcast.net/smtp-error-codes.php#BL000000",
      "blocked", "" },
    { "mx1.mxge.comcast.net", OUTCOME_MAIL, 421, "4.1.0",
      "192.0.2.1 Throttled - see http://postmaster.comcast.net/smtp-error-codes.php#RL000001",
      "rate-limited", "p" },
    { "mx1.mxge.comcast.net", OUTCOME_RCPT, 550, "5.1.1", "<bob@comcast.net> Account not available",
      "invalid-mailbox", "" },
    { "ff-ip4-mx-vip1.prodigy.net", OUTCOME_MAIL, 553, "5.3.0",
      "flph829 DNSBL:RBL 521< 192.0.2.1 >_is_blocked.For assistance forward this error to "
      "abuse_rbl@abuse-att.net",
      "blocked", "" },
    { "mx0.charter.net", OUTCOME_GREETING, 421, "4.7.0",
      "192.0.2.1 Too many sessions opened AUP#CNCT", "rate-limited", "p" },
    /* Orange, La Poste. */
    { "smtp-in.orange.fr", OUTCOME_GREETING, 421, "",
      "mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. Too many "
      "connections, slow down. OFR004_104 [104]",
      "rate-limited", "p" },
    { "smtp-in.orange.fr", OUTCOME_RCPT, 550, "5.1.1",
      "Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]",
      "invalid-mailbox", "" },
    { "smtp-in.orange.fr", OUTCOME_RCPT, 552, "5.1.1",
      "Boite du destinataire pleine. Recipient overquota. OFR_417 [417]", "mailbox-full", "" },
    { "smtp-in.orange.fr", OUTCOME_DOT, 550, "5.2.0", "Mail rejete. Mail rejected. ofr_506 [506]",
      "spam-content", "" },
    { "smtp-in.orange.fr", OUTCOME_GREETING, 550, "",
      "mwinf5c44 ME Adresse IP source bloquee pour incident de spam. OFR006_102 [102]", "blocked",
      "" },
    /* mail.ru, Yandex, QQ, NetEase. */
    { "mxs.mail.ru", OUTCOME_RCPT, 550, "",
      "Message was not accepted -- invalid mailbox.  Local mailbox bob@mail.ru is unavailable: "
      "user not found",
      "invalid-mailbox", "" },
    { "mxs.mail.ru", OUTCOME_RCPT, 550, "",
      "Message was not accepted -- invalid mailbox. Local mailbox bob@mail.ru is unavailable: "
      "user is terminated",
      "inactive-mailbox", "" },
    { "mxs.mail.ru", OUTCOME_DOT, 550, "",
      "spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=abc",
      "spam-content", "" },
    { "mx.yandex.ru", OUTCOME_DOT, 554, "5.7.1",
      "[2] Message rejected under suspicion of SPAM; https://ya.cc/1IrBc", "spam-content", "" },
    { "mx.yandex.ru", OUTCOME_RCPT, 550, "5.7.1", "No such user!", "invalid-mailbox", "" },
    { "mx3.qq.com", OUTCOME_GREETING, 550, "",
      "Ip frequency limited [abc IP: 192.0.2.1]. http://service.mail.qq.com/cgi-bin/help",
      "rate-limited", "pr" },
    { "mx3.qq.com", OUTCOME_DOT, 550, "", "Mail content denied. http://service.mail.qq.com/",
      "spam-content", "" },
    { "163mx01.mxmail.netease.com", OUTCOME_DOT, 554, "",
      "DT:SPM 163 mx7,PsCowAB3, please see http://mail.163.com/help/", "spam-content", "" },
    /* Filters. */
    { ANY, OUTCOME_RCPT, 550, "5.7.0", "Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1",
      "blocked", "" },
    { ANY, OUTCOME_GREETING, 421, "4.7.0",
      "Deferred - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", "blocked", "p" },
    { ANY, OUTCOME_DOT, 550, "5.7.0", "Local Policy Violation - 2f3a", "policy", "" },
    { ANY, OUTCOME_RCPT, 451, "",
      "Internal resource temporarily unavailable - "
      "https://community.mimecast.com/docs/DOC-1369#451 [abc.us5]",
      "greylisted", "" },
    { ANY, OUTCOME_RCPT, 550, "",
      "Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550 [abc.us5]",
      "invalid-mailbox", "" },
    { ANY, OUTCOME_RCPT, 550, "",
      "csi.mimecast.org Poor Reputation Sender. - https://community.mimecast.com/", "blocked", "" },
    { ANY, OUTCOME_DOT, 554, "", "Email rejected due to security policies - https://x.mimecast.com",
      "policy", "" },
    { ANY, OUTCOME_RCPT, 554, "5.7.1",
      "Service unavailable; Client host [192.0.2.1] blocked using Barracuda Reputation; "
      "https://www.barracudanetworks.com/reputation/?r=1&ip=192.0.2.1",
      "blocked", "" },
    { ANY, OUTCOME_GREETING, 554, "",
      "esa1.example.net Your access to this mail system has been rejected due to the sending "
      "MTA's poor reputation.",
      "blocked", "" },
    { ANY, OUTCOME_RCPT, 550, "", "#5.1.0 Address rejected.", "invalid-mailbox", "" },
    { ANY, OUTCOME_RCPT, 554, "5.7.1",
      "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; "
      "https://www.spamhaus.org/query/ip/192.0.2.1",
      "blocked", "" },
    { ANY, OUTCOME_RCPT, 550, "5.1.1", "<bob@x.test> rejected: sender listed at bl.spamcop.net",
      "blocked", "" },
    /* Postfix, Exim, Sendmail, qmail, Dovecot. */
    { ANY, OUTCOME_RCPT, 550, "5.1.1",
      "<bob@x.test>: Recipient address rejected: User unknown in virtual mailbox table",
      "invalid-mailbox", "" },
    { ANY, OUTCOME_RCPT, 450, "4.2.0",
      "<bob@x.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/",
      "greylisted", "" },
    { ANY, OUTCOME_RCPT, 554, "5.7.1", "<bob@x.test>: Relay access denied", "relay-denied", "" },
    { ANY, OUTCOME_RCPT, 450, "4.7.25",
      "Client host rejected: cannot find your reverse hostname, [192.0.2.1]", "authentication",
      "" },
    { ANY, OUTCOME_RCPT, 450, "4.1.8",
      "<a@nowhere.test>: Sender address rejected: Domain not found", "invalid-sender", "" },
    { ANY, OUTCOME_MAIL, 552, "5.3.4", "Message size exceeds fixed limit", "message-too-large",
      "" },
    { ANY, OUTCOME_MAIL, 452, "4.3.1", "Insufficient system storage", "system", "" },
    { ANY, OUTCOME_DOT, 554, "5.4.6", "Too many hops 30 (25 max)", "loop", "" },
    { ANY, OUTCOME_RCPT, 550, "", "Unrouteable address", "invalid-mailbox", "" },
    { ANY, OUTCOME_RCPT, 550, "", "relay not permitted", "relay-denied", "" },
    { ANY, OUTCOME_RCPT, 550, "", "Sender verify failed", "invalid-sender", "" },
    { ANY, OUTCOME_RCPT, 550, "", "No Such User Here", "invalid-mailbox", "" },
    { ANY, OUTCOME_DOT, 550, "",
      "Domain example.org has exceeded the max emails per hour (501/500 (100%)) allowed.",
      "rate-limited", "pr" },
    { ANY, OUTCOME_RCPT, 553, "5.7.1",
      "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", "relay-denied", "" },
    { ANY, OUTCOME_RCPT, 452, "4.2.2", "<bob@x.test> Quota exceeded (mailbox for user is full)",
      "mailbox-full", "" },
    { ANY, OUTCOME_GREETING, 421, "4.7.0", "Too many concurrent SMTP connections", "rate-limited",
      "l" },
    /* Codes that say it alone, and codes that do not (P-239). */
    { ANY, OUTCOME_RCPT, 550, "5.7.1", "", "policy", "" },
    { ANY, OUTCOME_RCPT, 550, "5.2.1", "", "inactive-mailbox", "" },
    { ANY, OUTCOME_RCPT, 450, "5.1.1", "", "invalid-mailbox", "" },
    { ANY, OUTCOME_RCPT, 550, "", "", "other-permanent", "" },
    { ANY, OUTCOME_RCPT, 450, "", "later", "other-transient", "" },
    { ANY, OUTCOME_RCPT, 452, "4.5.3", "", "rate-limited", "" },
    { ANY, OUTCOME_DOT, 554, "5.6.0", "", "protocol", "" },
    { ANY, OUTCOME_RCPT, 556, "5.1.10", "", "invalid-domain", "" },
    { ANY, OUTCOME_MAIL, 550, "5.7.30", "", "tls", "" },
    { ANY, OUTCOME_DATA, 503, "5.5.1", "", "protocol", "" },
    { ANY, OUTCOME_MAIL, 530, "5.7.0", "Authentication required", "login", "" },
    /* What we say ourselves. */
    { "", OUTCOME_DNS, 550, "5.1.2", "the domain does not exist", "invalid-domain", "" },
    { "", OUTCOME_DNS, 556, "5.1.10", "the domain takes no mail", "invalid-domain", "" },
    { "", OUTCOME_DNS, 451, "4.4.3", "the lookup failed", "dns", "" },
    { ANY, OUTCOME_CONNECT, 451, "4.4.1", "connection refused", "network", "" },
    { ANY, OUTCOME_LOST, 421, "4.4.2", "the connection was lost", "network", "" },
    { ANY, OUTCOME_UNKNOWN, 451, "4.4.2", "no reply to the final dot", "network", "" },
    { ANY, OUTCOME_TLS, 451, "4.7.5", "the certificate is not good", "tls", "" },
    { ANY, OUTCOME_AUTH, 535, "5.7.8", "Username and Password not accepted", "login", "" },
    { "", OUTCOME_LOCAL, 550, "5.4.7", "the time is over", "expired", "" },
    { ANY, OUTCOME_DOT, 250, "2.0.0", "Ok", "", "" },
};

static uint32_t actions_of(const char *letters)
{
    uint32_t bits = 0;
    for (; *letters; letters++)
        bits |= *letters == 'l'   ? REPLY_SLOW
                : *letters == 'p' ? REPLY_SUSPEND
                : *letters == 'r' ? REPLY_RETRY
                                  : REPLY_BOUNCE;
    return bits;
}

static void real_replies(void **state)
{
    struct reply_rules *rules = rules_of("");
    assert_true(ARRAY_LEN(replies) >= 100);
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        const struct reply_row *row = &replies[i];
        struct rcpt_outcome o = outcome(row->stage, row->code, row->enhanced, row->text);
        struct reply_verdict v = classify(rules, &o, slice_str(row->host));
        const struct reply_rule *rule = reply_rules_find(rules, &o, slice_str(row->host));
        if (strcmp(category_name(v.category), row->category) != 0 ||
            v.actions != actions_of(row->actions))
            fail_msg("%d %s %s: %s, actions %x, by line %d", row->code, row->enhanced, row->text,
                     category_name(v.category), v.actions, rule ? rule->line : 0);
    }
    reply_rules_unref(rules);
}

/* P-238: what may put an address on the list. */
static const struct {
    enum outcome_stage stage;
    int code;
    const char *enhanced, *text;
    bool is_hard;
} hard_rows[] = {
    { OUTCOME_RCPT, 550, "5.1.1", "no such user", true },
    { OUTCOME_RCPT, 550, "", "User unknown", true },
    { OUTCOME_DOT, 554, "", "This user doesn't have a yahoo.com account", true },
    { OUTCOME_DNS, 550, "5.1.2", "the domain does not exist", true },
    { OUTCOME_RCPT, 556, "5.1.10", "", true },
    { OUTCOME_RCPT, 450, "5.1.1", "no such user", false }, /* P-166 */
    { OUTCOME_RCPT, 550, "5.7.1", "No such user!", false },
    { OUTCOME_RCPT, 550, "5.4.1", "Recipient address rejected: Access denied", false },
    { OUTCOME_RCPT, 552, "5.2.2", "mailbox full", false },
    { OUTCOME_RCPT, 550, "5.2.1", "disabled", false },
    { OUTCOME_RCPT, 550, "5.1.1", "blocked using zen.spamhaus.org", false },
    { OUTCOME_MAIL, 550, "5.1.1", "no such user", false }, /* about whom? */
    { OUTCOME_GREETING, 554, "5.1.1", "no such user", false },
    { OUTCOME_RCPT, 550, "", "", false },
    { OUTCOME_RCPT, 550, "5.1.1", "<a@b.test>: Sender address rejected: User unknown", false },
    { OUTCOME_RCPT, 550, "5.1.0", "<a@b.test>: Sender rejected", false },
    { OUTCOME_RCPT, 550, "", "Sender verify failed", false },
    { OUTCOME_RCPT, 554, "", "<x@y.test>: Recipient address rejected: Access denied", false },
    { OUTCOME_RCPT, 553, "", "no", false },
    { OUTCOME_RCPT, 551, "", "not here", false },
};

static void hard_bounces(void **state)
{
    struct reply_rules *rules = rules_of("");
    for (size_t i = 0; i < ARRAY_LEN(hard_rows); i++) {
        struct rcpt_outcome o = outcome(hard_rows[i].stage, hard_rows[i].code,
                                        hard_rows[i].enhanced, hard_rows[i].text);
        struct reply_verdict v = classify(rules, &o, SLICE(ANY));
        if (classify_is_hard(&o, &v) != hard_rows[i].is_hard)
            fail_msg("%d %s %s", hard_rows[i].code, hard_rows[i].enhanced, hard_rows[i].text);
    }
    reply_rules_unref(rules);
}

/* A rule of the operator's comes first, and adds to lists but where P-238 forbids it. */
static void a_file_comes_first(void **state)
{
    struct reply_rules *rules = rules_of("# ours\n"
                                         "host *.example.net code 55x text \"Closed * for good\"\n"
                                         "    -> inactive-mailbox suppress # gone\n"
                                         "status 5.1.1 -> policy retry suspend 90s\n");
    struct rcpt_outcome o = outcome(OUTCOME_RCPT, 550, "5.2.1", "CLOSED by us, for good.");
    struct reply_verdict v = classify(rules, &o, SLICE("MX1.Example.NET"));
    assert_string_equal(category_name(v.category), "inactive-mailbox");
    assert_true(classify_is_hard(&o, &v));
    v = classify(rules, &o, SLICE("mx.example.net.test"));
    assert_false(v.actions & REPLY_SUPPRESS);
    snprintf(o.enhanced, sizeof o.enhanced, "5.7.1");
    v = classify(rules, &o, SLICE(ANY));
    assert_true(v.actions & REPLY_SUPPRESS);
    assert_false(classify_is_hard(&o, &v));
    o = outcome(OUTCOME_RCPT, 550, "5.1.1", "who?");
    v = classify(rules, &o, SLICE(ANY));
    assert_string_equal(category_name(v.category), "policy");
    assert_int_equal(v.suspend_ms, 90000);
    assert_false(classify_is_hard(&o, &v));
    reply_rules_unref(rules);
}

static void the_defaults_can_be_left_out(void **state)
{
    struct reply_rules *rules = rules_of("defaults off\ncode 5xx -> policy\n");
    struct rcpt_outcome o = outcome(OUTCOME_RCPT, 450, "4.1.1", "no such user");
    assert_int_equal(rules->count, 1);
    assert_int_equal(classify(rules, &o, SLICE(ANY)).category, CATEGORY_OTHER_TRANSIENT);
    reply_rules_unref(rules);
}

/* The text of a pattern, a whole host name. */
static void patterns(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool fits;
    } rows[] = {
        { "text \"a*b\"", "xx a yy b zz", true },
        { "text \"a*b\"", "b a", false },
        { "text \"*\"", "anything", true },
        { "text \"A.B\"", "a.b", true },
        { "text \"say \\\"no\\\"\"", "we say \"no\"", true },
        { "text \"abc\"", "ab", false },
        { "text \"ab*ab\"", "ab", false },
        { "text \"a\" text \"b\"", "b and a", true },
        { "text \"a\" text \"b\"", "only a", false },
        { "text \"x\" \"y\"", "y", true },
        { "stage rcpt", "", true },
        { "stage data dot", "", false },
        { "code 4xx 550", "", true },
        { "code 551", "", false },
        { "status x.1.x", "", true },
        { "status 4.1.1", "", false },
        { "status 5.1.10", "", false },
        { "host *", "", true },
        { "host mx?", "", false },
        { "host mx1.example.net", "", true },
        { "host *.net", "", true },
        { "host mx*.example.*t", "", true },
        { "host *.example", "", false },
        { "host example.net", "", false },
        { "host mx1*mx1.example.net", "", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[200];
        snprintf(text, sizeof text, "defaults off\n%s -> loop", rows[i].pattern);
        struct reply_rules *rules = rules_of(text);
        struct rcpt_outcome o = outcome(OUTCOME_RCPT, 550, "5.1.1", rows[i].text);
        if ((reply_rules_find(rules, &o, SLICE(ANY)) != NULL) != rows[i].fits)
            fail_msg("%s on \"%s\"", rows[i].pattern, rows[i].text);
        reply_rules_unref(rules);
    }
}

static void what_is_wrong_is_said_with_its_line(void **state)
{
    static const char *const rows[][2] = {
        { "\n -> policy", "my.rules:2: the first rule must not begin with a blank" },
        { "-> policy", "my.rules:1: a rule without a condition would fit every reply" },
        { "code 5xx\ncode 4xx -> policy", "my.rules:1: a rule without \"->\" and a category" },
        { "code 5xx ->", "my.rules:1: \"(nothing)\": is no category" },
        { "code 5xx -> nonsense", "my.rules:1: \"nonsense\": is no category" },
        { "code -> policy", "my.rules:1: \"code\": has no value" },
        { "# x\n\ncode 250 -> policy", "my.rules:3: \"250\": is no code: write for example 550" },
        { "code 5000 -> policy", "is no code" },
        { "status 6.1.1 -> policy", "is no status" },
        { "status 5.1 -> policy", "is no status" },
        { "status 5.1.1.1 -> policy", "is no status" },
        { "status 5.1234.1 -> policy", "is no status" },
        { "stage nowhere -> policy", "\"nowhere\": is no stage" },
        { "text spam -> policy", "\"spam\": must stand in quotes" },
        { "host \"a\" -> policy", "\"a\": must not stand in quotes" },
        { "text \"\" -> policy", "an empty text fits everything" },
        { "text \"a -> policy\n", "a text without its closing quote" },
        { "text \"a\tb\" -> policy\n", "a control character in a text" },
        { "reply 5xx -> policy", "\"reply\": is not known" },
        { "code 4xx code 5xx -> policy", "\"code\": stands once too often" },
        { "text \"a\" text \"b\" text \"c\" -> policy", "\"text\": stands once too often" },
        { "code 4xx -> policy slow", "slow takes a factor" },
        { "code 4xx -> policy slow 1", "\"1\": slow takes a factor" },
        { "code 4xx -> policy suspend 8d", "\"8d\": suspend takes a time" },
        { "code 4xx -> policy suspend", "suspend takes a time" },
        { "code 4xx -> policy retry retry", "\"retry\": stands twice" },
        { "code 4xx -> policy retry\n  bounce", "the rule above tries again and gives up" },
        { "code 4xx -> policy explode", "\"explode\": is no action" },
        { "defaults on", "write: defaults off" },
        { "defaults off policy", "\"policy\": does not belong" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct reply_rules *rules;
        struct buf error;
        buf_init(&error, 512);
        assert_int_equal(reply_rules_parse("my.rules", slice_str(rows[i][0]), &rules, &error),
                         STATUS_BAD);
        if (!memmem(buf_slice(&error).ptr, error.len, rows[i][1], strlen(rows[i][1])))
            fail_msg("%s\n%.*s", rows[i][0], SLICE_ARG(buf_slice(&error)));
        buf_done(&error);
    }
}

static void names_go_both_ways(void **state)
{
    enum outcome_stage stage;
    for (int i = OUTCOME_DNS; i <= OUTCOME_TLS; i++) {
        const char *name = outcome_stage_name((enum outcome_stage)i);
        assert_true(outcome_stage_find(slice_str(name), &stage));
        assert_int_equal(stage, i);
    }
    assert_false(outcome_stage_find(SLICE("none"), &stage));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_replies),       cmocka_unit_test(hard_bounces),
        cmocka_unit_test(a_file_comes_first), cmocka_unit_test(the_defaults_can_be_left_out),
        cmocka_unit_test(patterns),           cmocka_unit_test(what_is_wrong_is_said_with_its_line),
        cmocka_unit_test(names_go_both_ways),
    };
    return cmocka_run_group_tests_name("classify", tests, NULL, NULL);
}
