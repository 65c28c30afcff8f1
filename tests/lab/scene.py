# SPDX-License-Identifier: Apache-2.0
"""
scene - the whole lab: network, names, mail servers, policies, a gateway that all is sent to.
"""
import contextlib
import pathlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from lab import names, network, policies
from lab.hosts import Certificates
from lab.mail import SENDER, composed
from lab.policies import Policies
from lab.scripted import Scripted
from lab.servers import SERVERS
from lab.verdict import Verdict
from lib.certs import Authority
from lib.kilat import Kilat
from lib.net import RawSmtp, queue_id

GATEWAY, PORT = 2, 2525
WAIT_S = 90


class Scene:
    def __init__(self, folder, cases):
        self.folder, self.cases = pathlib.Path(folder), cases
        self.servers = [server(self.folder) for server in SERVERS]
        self.scripted = Scripted()
        self.began = time.monotonic()
        self.idents, self.life = {}, contextlib.ExitStack()
        self.verdict = Verdict(self)

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
            self.policies = Policies(self.authority, self.cases)
            self.names = names.names(self.folder / "names", certificates, self.cases,
                                     policies.ADDRESS)
            life.callback(self.names.stop)
            self.names.start()
            for host in (self.scripted, self.policies):
                life.callback(host.stop)
                host.start()
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
                self.idents[case.name] = queue_id(reply)

    def wait(self):
        """Until each is where it should end, or the time is over."""
        end = time.monotonic() + WAIT_S
        while not all(self.verdict.has_ended(case) for case in self.cases) and \
                time.monotonic() < end:
            time.sleep(0.5)
