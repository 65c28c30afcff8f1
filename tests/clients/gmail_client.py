#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The conversation that Gmail has with a server of "Send mail as": EHLO, STARTTLS, EHLO, AUTH PLAIN,
MAIL with SIZE and RCPT in one go where PIPELINING is offered, then the content: by BDAT, or with
--data by DATA, as it does with servers that offer no CHUNKING.
"""
import base64
import os
import pathlib
import socket
import ssl
import sys

env = os.environ
NAME = "mail-ed1-f54.google.com"


class Talk:
    def __init__(self):
        self.sock = socket.create_connection((env["MAIL_HOST"], int(env["MAIL_PORT"])), 20)
        self.file = self.sock.makefile("rb")

    def secure(self):
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=env["MAIL_HOST"])
        self.file = self.sock.makefile("rb")

    def expect(self, code):
        """The lines of a reply, without the code."""
        lines = []
        while True:
            line = self.file.readline().decode().rstrip("\r\n")
            lines.append(line[4:])
            if line[3:4] != "-":
                break
        assert line.startswith(str(code)), line
        return lines

    def ask(self, line, code):
        self.sock.sendall(line.encode() + b"\r\n")
        return self.expect(code)

    def envelope(self, size, pipelined):
        lines = [f"MAIL FROM:<{env['MAIL_FROM']}> SIZE={size}"]
        lines += [f"RCPT TO:<{env[to]}>" for to in ("MAIL_TO1", "MAIL_TO2")]
        if not pipelined:
            for line in lines:
                self.ask(line, 250)
            return
        self.sock.sendall("".join(line + "\r\n" for line in lines).encode())
        for _ in lines:
            self.expect(250)


def main():
    content = pathlib.Path(env["MAIL_EML"]).read_bytes().replace(b"\n", b"\r\n")
    talk = Talk()
    if env["MAIL_TLS"] == "implicit":
        talk.secure()
    talk.expect(220)
    offers = talk.ask(f"EHLO {NAME}", 250)
    if env["MAIL_TLS"] != "implicit":
        assert "STARTTLS" in offers
        assert not any(o.startswith("AUTH") for o in offers), "never in clear"
        talk.ask("STARTTLS", 220)
        talk.secure()
        offers = talk.ask(f"EHLO {NAME}", 250)
    assert any(o.startswith("AUTH ") and "PLAIN" in o.split() for o in offers)
    assert any(o.startswith("SIZE ") for o in offers)
    secret = f"\0{env['MAIL_USER']}\0{env['MAIL_PASSWORD']}".encode()
    talk.ask("AUTH PLAIN " + base64.b64encode(secret).decode(), 235)
    talk.envelope(len(content), "PIPELINING" in offers)
    if "--data" in sys.argv:
        talk.ask("DATA", 354)
        talk.sock.sendall(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    else:
        assert "CHUNKING" in offers
        talk.sock.sendall(b"BDAT %d LAST\r\n" % len(content) + content)
    talk.expect(250)
    talk.ask("QUIT", 221)


main()
