#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The conversation that Gmail has with a server of "Send mail as": EHLO, STARTTLS, EHLO, AUTH PLAIN,
MAIL with SIZE, RCPT, then BDAT, pipelined where the server allows it."""
import base64
import os
import socket
import ssl

env = os.environ
context = ssl.create_default_context()


class Talk:
    def __init__(self):
        self.sock = socket.create_connection((env["MAIL_HOST"], int(env["MAIL_PORT"])), 20)
        self.file = self.sock.makefile("rb")

    def secure(self):
        self.sock = context.wrap_socket(self.sock, server_hostname=env["MAIL_HOST"])
        self.file = self.sock.makefile("rb")

    def expect(self, code):
        lines = []
        while True:
            line = self.file.readline().decode().rstrip("\r\n")
            lines.append(line[4:])
            if line[3:4] != "-":
                break
        assert line.startswith(str(code)), (code, line)
        return lines

    def say(self, text):
        self.sock.sendall(text if isinstance(text, bytes) else text.encode())


t = Talk()
if env["MAIL_TLS"] == "implicit":
    t.secure()
t.expect(220)
t.say("EHLO mail-ed1-f54.google.com\r\n")
offers = t.expect(250)
if env["MAIL_TLS"] != "implicit":
    assert "STARTTLS" in offers
    t.say("STARTTLS\r\n")
    t.expect(220)
    t.secure()
    t.say("EHLO mail-ed1-f54.google.com\r\n")
    offers = t.expect(250)
assert any(o.startswith("AUTH ") and "PLAIN" in o for o in offers)
secret = base64.b64encode(f"\0{env['MAIL_USER']}\0{env['MAIL_PASSWORD']}".encode()).decode()
t.say(f"AUTH PLAIN {secret}\r\n")
t.expect(235)
content = (f"From: {env['MAIL_FROM']}\r\nTo: {env['MAIL_TO1']}\r\nSubject: =?utf-8?B?4piA?= gmail\r\n"
           "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\n"
           "Isi pesan: ä ö ü ☀\r\n").encode()
t.say(f"MAIL FROM:<{env['MAIL_FROM']}> SIZE={len(content)}\r\n"
      f"RCPT TO:<{env['MAIL_TO1']}>\r\nRCPT TO:<{env['MAIL_TO2']}>\r\n")
if "CHUNKING" in offers:
    t.say(f"BDAT {len(content)} LAST\r\n".encode() + content)
for _ in range(3):
    t.expect(250)
t.expect(250)
t.say("QUIT\r\n")
t.expect(221)
