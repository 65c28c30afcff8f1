# SPDX-License-Identifier: Apache-2.0
"""mail - what is sent in each case, and whether a mail that was found is it."""

SENDER = "lab@sender.test"
BODY = ("Isi pesan: ä ö ü ☀\r\n.a dot begins this line\r\n..two this one\r\n.\r\n"
        "and an empty one stands before this.\r\n\r\n" + "x" * 900 + "\r\n") * 40


def message_id(case):
    return f"<{case.name}@lab.sender.test>"


def composed(case):
    fields = {"From": SENDER, "To": f"{case.rcpts[0]}@{case.domain}", "Subject": case.what,
              "Date": "Mon, 23 Nov 2026 00:00:00 +0000", "Message-ID": message_id(case),
              "MIME-Version": "1.0", "Content-Type": "text/plain; charset=utf-8",
              "Content-Transfer-Encoding": "8bit"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return (head + "\r\n" + BODY).encode()


def is_for(mail, address):
    """As those who keep it have noted."""
    return any(address in (value or "") for name in ("Delivered-To", "Envelope-To")
               for value in mail.get_all(name, []))


def is_whole(mail):
    lines = mail.get_payload(decode=True).replace(b"\r\n", b"\n")
    return lines == BODY.encode().replace(b"\r\n", b"\n")


def bounces(mails, case):
    """Those that came back to the sender for this case: their message/delivery-status parts."""
    found = []
    for mail in mails:
        parts = {part.get_content_type(): part for part in mail.walk()}
        report = parts.get("message/delivery-status")
        if report and is_for(mail, SENDER) and message_id(case) in mail.as_string():
            found.append(report.as_string())
    return found
