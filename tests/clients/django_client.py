#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Django's EmailMessage with the EMAIL_* settings of settings.py."""
import os

from django.conf import settings
from django.core.mail import EmailMessage

env = os.environ
settings.configure(
    EMAIL_HOST=env["MAIL_HOST"],
    EMAIL_PORT=int(env["MAIL_PORT"]),
    EMAIL_HOST_USER=env["MAIL_USER"],
    EMAIL_HOST_PASSWORD=env["MAIL_PASSWORD"],
    EMAIL_USE_TLS=env["MAIL_TLS"] != "implicit",
    EMAIL_USE_SSL=env["MAIL_TLS"] == "implicit",
)
mail = EmailMessage(env["MAIL_SUBJECT"], env["MAIL_BODY"], env["MAIL_FROM"],
                    [env["MAIL_TO1"], env["MAIL_TO2"]])
if "MAIL_KEY" in env:
    mail.extra_headers["X-Idempotency-Key"] = env["MAIL_KEY"]
if "MAIL_FILE" in env:
    mail.attach_file(env["MAIL_FILE"], "application/octet-stream")
assert mail.send() == 1
