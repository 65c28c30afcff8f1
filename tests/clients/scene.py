# SPDX-License-Identifier: Apache-2.0
"""
scene - a gateway with TLS and AUTH, its authority and its next hop, for one client to send through;
and the verdict on what has come.
"""
import email
import email.policy
import os
import pathlib
import subprocess

from lib.certs import Authority
from lib.kilat import Kilat, secure, smarthost
from lib.mx import Mx
from lib.postfix_tools import ROOT

HERE = pathlib.Path(__file__).resolve().parent
USER, PASSWORD = "web@sender.test", "rahasia & 100% 'x'\""
SENDER, RCPTS = "shop@sender.test", ["one@rcpt.test", "two@rcpt.test"]


class Scene:
    def __init__(self, folder, password=PASSWORD):
        self.folder = pathlib.Path(folder)
        self.password = password

    def __enter__(self):
        self.mx = Mx().start()
        self.ca = Authority(self.folder / "ca")
        cert, key = self.ca.issue("localhost", "kilat.test")
        settings = secure(self.ca, route={"*": smarthost(self.mx.port)})
        settings["tls"] = {"certificate": str(cert), "private_key": str(key)}
        self.kilat = Kilat(self.folder / "k", **settings)
        self.kilat.add_user(USER, self.password, "--tenant", "acme")
        self.kilat.start()
        return self

    def __exit__(self, *why):
        try:
            self.kilat.__exit__(*why)
        finally:
            self.mx.stop()

    def run(self, command, **env):
        command = [part.replace("{dir}", str(self.folder)) for part in command]
        done = subprocess.run(command, cwd=HERE, env={**os.environ, **env}, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def send(self, client, mode):
        """Runs the client and judges: once, for both, intact, over TLS and after AUTH."""
        if client.prepare:
            self.run(client.prepare, HOME=str(self.folder), GOFLAGS="-mod=mod",
                     GOCACHE=str(self.folder / "go"))
        port = self.kilat.ports["submissions" if mode == "implicit" else "submission"]
        store = self.trust_store() if client.name == "javamail" else ""
        before = len(self.mx.messages)
        self.run(client.command, MAIL_HOST="localhost", MAIL_PORT=str(port), MAIL_TLS=mode,
                 MAIL_USER=USER, MAIL_PASSWORD=self.password, MAIL_CA=str(self.ca.cert),
                 MAIL_FROM=SENDER, MAIL_TO1=RCPTS[0], MAIL_TO2=RCPTS[1], MAIL_DIR=str(self.folder),
                 SSL_CERT_FILE=str(self.ca.cert), NODE_EXTRA_CA_CERTS=str(self.ca.cert),
                 NODE_PATH="/usr/share/nodejs", EXIM=exim(), JAVA_TOOL_OPTIONS=store)
        message = self.mx.wait(before + 1)[before]
        judge(message)
        assert len(self.mx.messages) == before + 1

    def trust_store(self):
        """Java keeps authorities in a file of its own kind."""
        path = self.folder / "trust.p12"
        if not path.exists():
            self.run(["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file",
                      str(self.ca.cert), "-keystore", str(path), "-storetype", "PKCS12",
                      "-storepass", "changeit"])
        return (f"-Djavax.net.ssl.trustStore={path} -Djavax.net.ssl.trustStorePassword=changeit "
                "-Dfile.encoding=UTF-8")


def exim():
    """Installed, or unpacked by ./test."""
    unpacked = ROOT / "build/tools/bin/exim4"
    return str(unpacked) if unpacked.exists() else "exim4"


def judge(message):
    assert message.sender == SENDER, message.sender
    assert sorted(message.rcpts) == RCPTS, message.rcpts
    parsed = email.message_from_bytes(message.content, policy=email.policy.default)
    trace = " ".join(parsed["Received"].split())    # UTF8SMTPSA: it said SMTPUTF8
    assert "with ESMTPSA" in trace or "with UTF8SMTPSA" in trace, trace
    assert "☀" in parsed["Subject"], parsed["Subject"]
    body = parsed.get_body(preferencelist=("plain",)).get_content()
    assert "Isi pesan: ä ö ü ☀" in body, body
    for part in parsed.iter_attachments():
        assert part.get_filename() == "a.bin"
        assert b"attached octets" in part.get_payload(decode=True)
