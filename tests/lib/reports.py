# SPDX-License-Identifier: Apache-2.0
"""
reports - bounces and complaints as other hosts send them (RFC 3464, RFC 5965), to be brought back.

    bring(kilat.ports["returns"], bounce(status="5.1.1"), to=return_path)
"""
import smtplib

BOUNDARY = "=_report"


def report(kind, status_type, fields, original=""):
    """A multipart/report of these fields: a text, or several, of which each is a group."""
    groups = "\r\n".join(fields) if isinstance(fields, (list, tuple)) else fields
    return ("From: MAILER-DAEMON@mx.test\r\n"
            "To: whoever@bounces.test\r\n"
            "Subject: Undelivered Mail\r\n"
            "MIME-Version: 1.0\r\n"
            f"Content-Type: multipart/report; report-type={kind};\r\n"
            f"\tboundary=\"{BOUNDARY}\"\r\n\r\n"
            "preamble\r\n"
            f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n"
            "Action: failed\r\nStatus: 5.1.1\r\n\r\n"       # prose, whatever it looks like
            f"--{BOUNDARY}\r\nContent-Type: {status_type}\r\n\r\n{groups}\r\n"
            f"--{BOUNDARY}\r\nContent-Type: message/rfc822\r\n\r\n{original}"
            "Subject: hello\r\n\r\nFeedback-Type: abuse\r\n"
            f"--{BOUNDARY}--\r\n").encode()


def bounce(action="failed", status="5.1.1", diagnostic="smtp; 550 5.1.1 No such user here",
           final="gone@rcpt.test", more=()):
    group = (f"Final-Recipient: rfc822; {final}\r\nAction: {action}\r\nStatus: {status}\r\n"
             f"Remote-MTA: dns; store.rcpt.test\r\nDiagnostic-Code: {diagnostic}\r\n")
    return report("delivery-status", "message/delivery-status",
                  ["Reporting-MTA: dns; mx.rcpt.test\r\n"
                   "Arrival-Date: Mon, 23 Nov 2026 00:00:00 +0000\r\n", group, *more])


def complaint(sender="", kind="abuse", path=""):
    """sender: what Original-Mail-From says; path: the Return-Path of the mail that is attached."""
    fields = f"Feedback-Type: {kind}\r\nUser-Agent: Loop/1.0\r\nVersion: 1\r\n"
    if sender:
        fields += f"Original-Mail-From: <{sender}>\r\n"
    fields += "Original-Rcpt-To: <somebody@else.test>\r\n"
    return report("feedback-report", "message/feedback-report", fields,
                  f"Return-Path: <{path}>\r\n" if path else "")


def bring(port, content, to, sender="", timeout=30):
    """The reply to the end of data, or to what was refused before: (code, text)."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="mx.rcpt.test", timeout=timeout) as s:
        s.ehlo()
        for said in (s.mail(sender), s.rcpt(to)):
            if said[0] // 100 != 2:
                return said[0], said[1].decode()
        code, text = s.data(content)
        return code, text.decode()
