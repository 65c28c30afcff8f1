#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Python's smtplib and email.message, as their documentation shows them."""
import os
import pathlib
import smtplib
import ssl
from email.message import EmailMessage

env = os.environ
msg = EmailMessage()
msg["Subject"] = env["MAIL_SUBJECT"]
msg["From"] = env["MAIL_FROM"]
msg["To"] = [env["MAIL_TO1"], env["MAIL_TO2"]]
if "MAIL_KEY" in env:
    msg["X-Idempotency-Key"] = env["MAIL_KEY"]
msg.set_content(env["MAIL_BODY"])
if "MAIL_FILE" in env:
    msg.add_attachment(pathlib.Path(env["MAIL_FILE"]).read_bytes(), maintype="application",
                       subtype="octet-stream", filename="a.bin")

context = ssl.create_default_context()      # SSL_CERT_FILE names the authority in the test
host, port = env["MAIL_HOST"], int(env["MAIL_PORT"])
if env["MAIL_TLS"] == "implicit":
    server = smtplib.SMTP_SSL(host, port, context=context)
else:
    server = smtplib.SMTP(host, port)
    server.starttls(context=context)
with server:
    server.login(env["MAIL_USER"], env["MAIL_PASSWORD"])
    server.send_message(msg)
