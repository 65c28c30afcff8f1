# SPDX-License-Identifier: Apache-2.0
"""
scene - the whole lab: network, names, mail servers, policies, a gateway; and the verdict on each
case, from the gateway's log and from the mailboxes.
"""
import contextlib
import email.message
import email.policy
import pathlib
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from lab import names, network
from lab.hosts import HOSTS, Certificates
from lab.servers import SERVERS
from lib.certs import Authority
from lib.kilat import Kilat
from lib.net import RawSmtp, queue_id, wait_until

GATEWAY, PORT = 2, 2525
WEB = 80
SENDER = "lab@sender.test"
WAIT_S = 90
BODY = ("Isi pesan: ä ö ü ☀\r\n.a dot begins this line\r\n..two this one\r\n.\r\n"
        "and an empty one stands before this.\r\n\r\n" + "x" * 900 + "\r\n") * 40


class Scene:
    def __init__(self, folder, cases):
        self.folder, self.cases = pathlib.Path(folder), cases
        self.servers = [server(self.folder) for server in SERVERS]
        self.began = time.monotonic()
        self.idents, self.life = {}, contextlib.ExitStack()

    # -- life ---------------------------------------------------------------------------------

    def install(self):
        """While the machine's network is there."""
        for server in self.servers:
            server.root.mount()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.root.install(), self.servers))

    def __enter__(self):
        with contextlib.ExitStack() as life:
            self.authority = Authority(self.folder / "ca")
            certificates = Certificates(self.authority,
                                        Authority(self.folder / "stranger", "Somebody else"))
            network.become_private()
            self.names = names.names(self.folder / "names", certificates, self.cases,
                                     network.ipv4(WEB))
            life.callback(self.names.stop)
            self.names.start()
            for server in self.servers:
                life.callback(server.stop)
                server.prepare(certificates, names.ADDRESS)
                server.start()
            self.kilat = self._gateway()
            life.enter_context(network.inside("kilat"))
            life.enter_context(self.kilat)
            self.life = life.pop_all()
        return self

    def __exit__(self, *why):
        return self.life.__exit__(*why)

    def copy_logs(self, where):
        where.mkdir(parents=True, exist_ok=True)
        for name in ("kilat/kilat.conf", "kilat/log.1", "kilat/err.1", "names/knot.log"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, where)
        for server in self.servers:
            for path in [server.root.folder / "out", server.root.path / server.log_path]:
                if path.exists():
                    shutil.copy(path, where / f"{server.name}.{path.name}")

    def _gateway(self):
        network.add("kilat", [GATEWAY])
        routes = {case.domain: {"relay": "mx", "tls": case.level,
                                "ca_file": str(self.authority.cert)}
                  for case in self.cases if case.level}
        return Kilat(
            self.folder / "kilat", route={"*": {"relay": "mx"}, **routes},
            listener={"lab": {"bind": [f"{network.ipv4(GATEWAY)}:{PORT}"], "tls": "off",
                              "auth": "off", "networks": ["10.77.0.0/24"]}},
            dns={"servers": [names.ADDRESS], "trust_anchor": str(self.names.trust_anchor)},
            relay={"allow_private": True, "ca_file": str(self.authority.cert),
                   "connect_timeout": "5s", "reply_timeout": "10s"},
            log={"format": "json", "level": "debug"})

    # -- sending ------------------------------------------------------------------------------

    def send(self):
        """Everything at once: the trouble of one destination is none of the others'."""
        with RawSmtp(PORT, host=network.ipv4(GATEWAY)) as raw:
            raw.hello("lab.sender.test")
            for case in self.cases:
                reply = raw.mail(composed(case), SENDER,
                                 [f"{rcpt}@{case.domain}" for rcpt in case.rcpts])
                assert reply.code == 250, reply
                self.idents[case] = queue_id(reply)

    # -- the verdict --------------------------------------------------------------------------

    def attempts(self, case, rcpt):
        return [e for e in self.kilat.events("relay.done", rcpt=f"{rcpt}@{case.domain}")
                if e["id"].split("/")[0] == self.idents[case]]

    def steps(self, case, rcpt):
        """["deferred 450", "delivered 250"]: the same again is the same step."""
        said = []
        for e in self.attempts(case, rcpt):
            step = f"{e['fate']} {e['code']}"
            if not said or said[-1] != step:
                said.append(step)
        return tuple(said)

    def wait(self):
        """Until each is where it should end, or the time is over."""
        end = time.monotonic() + WAIT_S
        while not all(self._has_ended(case) for case in self.cases) and time.monotonic() < end:
            time.sleep(0.2)

    def _has_ended(self, case):
        return all(self._is_where_it_ends(case, rcpt) for rcpt in case.rcpts)

    def _is_where_it_ends(self, case, rcpt):
        if self.steps(case, rcpt) != case.steps(rcpt):
            return False
        deferred = case.steps(rcpt)[-1].startswith("deferred")
        return not deferred or len(self.attempts(case, rcpt)) >= TRIES_MIN

    def differences(self, case):
        """What is not as it must be, as sentences."""
        wrong = []
        for rcpt in case.rcpts:
            got, want = self.steps(case, rcpt), case.steps(rcpt)
            if got != want:
                wrong.append(f"{rcpt}: {' -> '.join(got) or 'nothing'}, not {' -> '.join(want)}")
        first = self.reason(case)
        if case.why not in first:
            wrong.append(f"the log says {first!r}, not {case.why!r}")
        return wrong + self._tls_differences(case) + self._mail_differences(case)

    def reason(self, case):
        """What the log says of the first attempt that tells something."""
        attempts = [e for rcpt in case.rcpts for e in self.attempts(case, rcpt)]
        attempts.sort(key=lambda e: e["fate"] == "delivered")
        return attempts[0]["text"] if attempts else ""

    def _tls_differences(self, case):
        if not case.tls:
            return []
        host = next(host for host in HOSTS if host.name == case.at)
        events = [e for e in self.kilat.events("relay.tls", dest=case.domain)
                  if e["host"].startswith(host.fqdn)]
        got = "clear" if not events else "verified" if events[-1]["verified"] else "encrypted"
        return [] if got == case.tls else [f"{got}, not {case.tls}"]

    def _mail_differences(self, case):
        wrong = []
        for rcpt in case.rcpts:
            address = f"{rcpt}@{case.domain}"
            copies = [(server, mail) for server in self.servers for mail in server.messages()
                      if mail["Message-ID"] == message_id(case) and is_for(mail, address)]
            due = case.steps(rcpt)[-1].startswith("delivered")
            if len(copies) != due:
                wrong.append(f"{len(copies)} copies in the mailbox of {rcpt}")
            wrong += [f"{rcpt}: {fault}" for server, mail in copies
                      for fault in self._faults(case, server, mail)]
        return wrong

    def _faults(self, case, server, mail):
        host = next((host for host in HOSTS if host.name == case.at), None)
        if host and host.server != server.name:
            yield f"at {server.name}, not {host.server}"
        if mail.get_payload(decode=True).replace(b"\r\n", b"\n") != \
                BODY.encode().replace(b"\r\n", b"\n"):
            yield "its content has changed"
        trace = " ".join(mail.get_all("Received")[0].split())
        if bool(re.search(r"with E?SMTPS", trace, re.I)) != (case.tls not in ("", "clear")) \
                and case.tls:
            yield f"{trace!r}, not {case.tls}"


TRIES_MIN = 2       # of what must go on waiting


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
    return any(address in (value or "") for name in ("Delivered-To", "Envelope-To")
               for value in mail.get_all(name, []))
