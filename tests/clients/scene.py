# SPDX-License-Identifier: Apache-2.0
"""
scene - a gateway with TLS and AUTH, its authority and its next hop, for the clients to send
through; and the verdict on what has come.

Each client is a program of its own that finds in its environment where to send and what
(Scene.environment). Three things are asked of each: that the mail arrives once, whole, for all and
as a logged-in user over TLS (send); that it refuses a server whose certificate it has no reason to
trust (refuses_certificate); that it says so when the password is wrong (reports_password).
"""
import email
import email.message
import email.policy
import os
import pathlib
import subprocess
import time

from lib.certs import Authority
from lib.kilat import Kilat, secure, smarthost
from lib.mx import Mx
from lib.net import wait_until
from lib.postfix_tools import ROOT

HERE = pathlib.Path(__file__).resolve().parent
USER, PASSWORD = "web@sender.test", "rahasia & 100% 'x'\""
SENDER, RCPTS = "shop@sender.test", ["one@rcpt.test", "two@rcpt.test"]
BODY = "Isi pesan: ä ö ü ☀\n.a dot begins this line\n\nand an empty one stands before this.\n"
ATTACHED = bytes(range(256)) * 20
MODES = ("starttls", "implicit")
CLIENT_S = 180


class Scene:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.mail = self.folder / "mail"    # the clients' own; they may leave files there
        self.prepared = set()
        self.sent = 0

    def __enter__(self):
        self.mail.mkdir()
        (self.mail / "a.bin").write_bytes(ATTACHED)
        self.mx = Mx().start()
        self.ca = Authority(self.folder / "ca")
        self.stranger = Authority(self.folder / "stranger", "Somebody else")
        cert, key = self.ca.issue("localhost", "kilat.test")
        settings = secure(self.ca, route={"*": smarthost(self.mx.port)},
                          auth={"failures_max": 0})
        settings["tls"] = {"certificate": str(cert), "private_key": str(key)}
        self.kilat = Kilat(self.folder / "k", **settings)
        self.kilat.add_user(USER, PASSWORD, "--tenant", "acme")
        self.kilat.start()
        return self

    def __exit__(self, *why):
        try:
            self.kilat.__exit__(*why)
        finally:
            self.mx.stop()

    # -- running a client ---------------------------------------------------------------------

    def environment(self, client, mode, ca, password):
        """What a client's program reads."""
        port = self.kilat.ports["submissions" if mode == "implicit" else "submission"]
        return {
            "MAIL_HOST": "localhost", "MAIL_PORT": str(port),
            "MAIL_TLS": mode,                                   # starttls, implicit
            "MAIL_USER": USER, "MAIL_PASSWORD": password, "MAIL_CA": str(ca.cert),
            "MAIL_FROM": SENDER, "MAIL_TO1": RCPTS[0], "MAIL_TO2": RCPTS[1],
            "MAIL_SUBJECT": subject_of(client), "MAIL_BODY": BODY,
            "MAIL_FILE": str(self.mail / "a.bin"),              # to be attached
            "MAIL_EML": str(self.mail / "mail.eml"),            # or the whole message
            "MAIL_COUNT": str(client.messages),                 # messages to send
            "MAIL_DIR": str(self.mail),                         # for files of its own
            # how each kind of program learns of an authority that its system does not know
            "SSL_CERT_FILE": str(ca.cert), "NODE_EXTRA_CA_CERTS": str(ca.cert),
            "JAVA_TOOL_OPTIONS": self.trust_store(ca) if client.name == "javamail" else "",
            "NODE_PATH": "/usr/share/nodejs", "EXIM": exim(), "LC_ALL": "C.UTF-8",
            "HOME": str(self.mail), "GOCACHE": str(self.mail / "go"), "GO111MODULE": "off",
        }

    def run(self, client, mode, ca=None, password=PASSWORD, files=("a.bin",), **more):
        env = {**os.environ, **self.environment(client, mode, ca or self.ca, password), **more}
        if not files:
            del env["MAIL_FILE"]
        if client.prepare and client.name not in self.prepared:
            done = self.program(client.prepare, env)
            assert done.returncode == 0, done.stdout
            self.prepared.add(client.name)
        (self.mail / "mail.eml").write_bytes(composed(client).as_bytes())
        return self.program(client.command, env)

    def program(self, command, env):
        command = [part.replace("{dir}", str(self.mail)) for part in command]
        return subprocess.run(command, cwd=HERE, env=env, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              errors="replace", timeout=CLIENT_S)

    def trust_store(self, ca):
        """Java keeps authorities in a file of its own kind."""
        path = ca.folder / "trust.p12"
        if not path.exists():
            subprocess.run(["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file",
                            str(ca.cert), "-keystore", str(path), "-storetype", "PKCS12",
                            "-storepass", "changeit"], check=True, capture_output=True)
        return f"-Djavax.net.ssl.trustStore={path} -Djavax.net.ssl.trustStorePassword=changeit"

    # -- what is asked of each ----------------------------------------------------------------

    def send(self, client, mode):
        """Once, for both, intact, over TLS and after AUTH."""
        sessions = self.kilat.metrics()["sessions_total"]
        done = self.run(client, mode)
        assert done.returncode == 0, done.stdout
        before, self.sent = self.sent, self.sent + client.messages
        self.kilat.wait_event("msg.accepted", count=self.sent, user=USER, tenant="acme")
        for message in self.mx.wait(self.sent)[before:]:
            judge(message, subject_of(client))
        assert self.kilat.metrics()["sessions_total"] == sessions + 1, "one connection"
        self.nothing_more()

    def refuses_certificate(self, client, mode):
        """A man in the middle has a certificate too. Returns what the client says."""
        logins = self.kilat.metrics()["auth_ok_total"]
        done = self.run(client, mode, ca=self.stranger)
        assert done.returncode != 0, f"sent through a server nobody vouches for\n{done.stdout}"
        assert self.kilat.metrics()["auth_ok_total"] == logins, "gave its password away"
        self.nothing_more()
        return done.stdout

    def reports_password(self, client, mode):
        """Returns what the client says."""
        failed = self.kilat.metrics()["auth_failed_total"]
        done = self.run(client, mode, password="wrong")
        assert done.returncode != 0, f"a wrong password is no success\n{done.stdout}"
        wait_until(lambda: self.kilat.metrics()["auth_failed_total"] > failed, 10, "a failed login")
        self.nothing_more()
        return done.stdout

    def sends_once(self, client, mode):
        """Twice with one X-Idempotency-Key, as a job that is tried again: one mail leaves."""
        again = self.twice(client, mode, "text", files=())
        assert again.returncode == 0, again.stdout

    def sends_once_in_parts(self, client, mode):
        """The same with an attachment. The client makes another boundary each time, so another
        body; it is refused, and one mail leaves all the same. Returns what the client says."""
        again = self.twice(client, mode, "parts", files=("a.bin",))
        assert again.returncode != 0, "the boundary was the same"
        return again.stdout

    def twice(self, client, mode, key, files):
        more = {"MAIL_KEY": f"{client.name}-{key}", "MAIL_COUNT": "1"}
        done = self.run(client, mode, files=files, **more)
        assert done.returncode == 0, done.stdout
        self.sent += 1
        message = self.mx.wait(self.sent)[-1]
        judge(message, subject_of(client), files)
        assert b"idempotency" not in message.content.lower()
        again = self.run(client, mode, files=files, **more)
        self.nothing_more()
        return again

    def nothing_more(self):
        assert self.kilat.metrics()["messages_accepted_total"] == self.sent
        assert len(self.mx.messages) == self.sent

    def finish(self):
        """When all have sent: no late copy, no bounce, a clean next hop."""
        time.sleep(1)
        self.nothing_more()
        assert not self.mx.violations, self.mx.violations


def subject_of(client):
    return f"Selamat pagi ☀ {client.name}"


def composed(client):
    """For clients that carry a message and do not write one."""
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, RCPTS, subject_of(client)
    message.set_content(BODY, cte="8bit")       # so that its dots are seen on the wire
    message.add_attachment(ATTACHED, maintype="application", subtype="octet-stream",
                           filename="a.bin")
    return message


def exim():
    """Installed, or unpacked by ./test."""
    unpacked = ROOT / "build/tools/bin/exim4"
    return str(unpacked) if unpacked.exists() else "exim4"


def judge(message, subject, files=("a.bin",)):
    assert message.sender == SENDER, message.sender
    assert sorted(message.rcpts) == RCPTS, message.rcpts
    parsed = email.message_from_bytes(message.content, policy=email.policy.default)
    trace = " ".join(parsed["Received"].split())    # UTF8SMTPSA: it said SMTPUTF8
    assert "with ESMTPSA" in trace or "with UTF8SMTPSA" in trace, trace
    assert parsed["Subject"] == subject, parsed["Subject"]
    body = parsed.get_body(preferencelist=("plain",)).get_content()
    body = body.replace("\r", "")    # the mail gem of Rails encodes CR as "=0D" before line ends
    assert body.rstrip("\n") == BODY.rstrip("\n"), ascii(body)
    attached = list(parsed.iter_attachments())
    assert [part.get_filename() for part in attached] == list(files), message.content
    assert all(part.get_payload(decode=True) == ATTACHED for part in attached)
