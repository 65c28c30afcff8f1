# SPDX-License-Identifier: Apache-2.0
"""
names - the lab's DNS: Knot with the zones "test" (signed, trusted), "plain" (not signed) and
"broken" (signed by a key that is not the trusted one), from the hosts and the cases.
"""
from lab import network
from lab.hosts import HOSTS
from lib.knot import Knot

NUMBER = 53
ADDRESS = network.ipv4(NUMBER)
TRUSTED, BROKEN = ["test"], ["broken"]


class Names(Knot):
    """The tests' Knot, which listens at the lab's address too."""

    def _write(self):
        super()._write()
        here = f"listen: 127.0.0.1@{self.port}"
        text = self.config.read_text()
        assert here in text
        self.config.write_text(text.replace(here, f"{here}\n    listen: {ADDRESS}@53"))

    def start(self):
        self.folder.mkdir()
        network.add("names", [NUMBER])
        with network.inside("names"):
            return self.__enter__()

    def stop(self):
        if self.process:
            self.__exit__()


def names(folder, certificates, cases, web):
    zones = {zone: [] for zone in ("test", "plain", "broken")}
    for host in HOSTS:
        zones[host.zone] += _host_records(host, certificates)
    for case in cases:
        zones[case.zone] += _case_records(case, web)
    zones["test"] += ["sender MX 10 mx.postfix.test.", f"mx.names A {ADDRESS}"]
    return Names(folder, {zone: "\n".join(lines) + "\n" for zone, lines in zones.items()},
                 TRUSTED, BROKEN)


def _host_records(host, certificates):
    for address in host.addresses:
        yield f"{host.name} {'AAAA' if ':' in address else 'A'} {address}"
    if host.tlsa:
        yield f"_25._tcp.{host.name} {certificates.record(host)}"


def _case_records(case, web):
    for record in case.records:
        yield f"{case.name} {record}"
    if case.policy:
        yield f"mta-sts.{case.name} A {web}"
        yield f'_mta-sts.{case.name} TXT "v=STSv1; id=1;"'
