# SPDX-License-Identifier: Apache-2.0
"""
hosts - the mail hosts of the lab: each a name and an address with a certificate of its own, at one
of the servers.

To add one: a row in HOSTS; what its server is to do there, by the word in `does`, in servers.py or
scripted.py.
"""
import dataclasses
import hashlib
import subprocess

from lab.network import ipv4, ipv6


@dataclasses.dataclass(frozen=True)
class Host:
    name: str                   # without its zone
    server: str
    number: int                 # 10.77.0.N, fd77::N
    certificate: str = "good"   # good, other (name), stranger (authority), late, or none: no TLS
    families: str = "4"         # of its addresses in DNS: 4, 6, 46
    tlsa: tuple = ()            # usage, selector, matching, whose: own, authority, another
    zone: str = "test"
    does: str = ""              # what is odd there

    @property
    def fqdn(self):
        return f"{self.name}.{self.zone}"

    @property
    def addresses(self):
        return [{"4": ipv4, "6": ipv6}[family](self.number) for family in self.families]


HOSTS = [
    Host("mx.postfix", "postfix", 10, families="46"),
    Host("six.postfix", "postfix", 11, families="6"),
    Host("grey.postfix", "postfix", 12, does="greylist"),
    Host("busy.postfix", "postfix", 13, does="busy"),
    Host("bare.postfix", "postfix", 14, certificate=""),
    Host("other.postfix", "postfix", 15, certificate="other"),
    Host("ee.postfix", "postfix", 16, certificate="other", tlsa=(3, 1, 1, "own")),
    Host("wrong.postfix", "postfix", 17, tlsa=(3, 1, 1, "another")),
    Host("strip.postfix", "postfix", 18, certificate="", tlsa=(3, 1, 1, "another")),
    Host("bogus.postfix", "postfix", 19, tlsa=(3, 1, 1, "own"), zone="broken"),
    Host("old.postfix", "postfix", 33, does="old"),
    Host("small.postfix", "postfix", 34, does="small"),

    Host("mx.exim", "exim", 20, families="46"),
    Host("many.exim", "exim", 21, does="552"),
    Host("closed.exim", "exim", 22, does="554"),
    Host("ta.exim", "exim", 23, tlsa=(2, 0, 1, "authority")),
    Host("pkix.exim", "exim", 24, certificate="other", tlsa=(1, 0, 1, "own")),
    Host("stranger.exim", "exim", 25, certificate="stranger"),
    Host("late.exim", "exim", 26, certificate="late"),
    Host("mx.verify", "exim", 27),
    Host("unsigned.exim", "exim", 28, certificate="other", tlsa=(3, 1, 1, "another"),
         zone="plain"),
    Host("expired.exim", "exim", 29, certificate="late", tlsa=(3, 0, 1, "own")),

    # Debian 12's is broken since OpenSSL 3: each handshake ends in "internal error"
    # (github.com/OpenSMTPD/OpenSMTPD/issues/1171). There are such hosts; so we have them too.
    Host("mx.opensmtpd", "opensmtpd", 30, families="46"),
    Host("ee.opensmtpd", "opensmtpd", 31, tlsa=(3, 1, 1, "own")),

    Host("deaf", "scripted", 40, does="deaf"),
    Host("421.content", "scripted", 41, does="421 in the content"),
    Host("421.later", "scripted", 42, does="421 at the second recipient"),
    Host("drip", "scripted", 43, does="drip"),
    Host("slow", "scripted", 44, does="drip without end"),
    Host("cut", "scripted", 45, does="cut"),
    Host("none", "nobody", 50),        # the address is nobody's
]


def hosts_of(server):
    return [host for host in HOSTS if host.server == server]


class Certificates:
    """(certificate with its chain, key) of each host, and its TLSA record."""

    def __init__(self, authority, stranger):
        self.authority, self.stranger = authority, stranger
        self.another, _ = authority.issue("another.test")
        self.pairs = {host.name: self._issue(host) for host in HOSTS if host.certificate}

    def _issue(self, host):
        ca = self.stranger if host.certificate == "stranger" else self.authority
        name = "mx.elsewhere.test" if host.certificate == "other" else host.fqdn
        days = -1 if host.certificate == "late" else 2
        cert, key = ca.issue(name, days=days, file=host.name)
        chain = cert.with_suffix(".chain")
        chain.write_text(cert.read_text() + ca.cert.read_text())
        return chain, key

    def record(self, host):
        usage, selector, matching, whose = host.tlsa
        cert = {"authority": self.authority.cert, "another": self.another}.get(whose)
        octets = _der(cert or self.pairs[host.name][0], selector)
        octets = {0: lambda o: o, 1: lambda o: hashlib.sha256(o).digest(),
                  2: lambda o: hashlib.sha512(o).digest()}[matching](octets)
        return f"TLSA {usage} {selector} {matching} {octets.hex()}"


def _der(cert, selector):
    """The octets that a selector is about: the certificate (0), its key (1)."""
    if selector == 0:
        return _openssl("x509", "-in", cert, "-outform", "DER")
    key = _openssl("x509", "-in", cert, "-noout", "-pubkey")
    return _openssl("pkey", "-pubin", "-outform", "DER", said=key)


def _openssl(*words, said=None):
    return subprocess.run(["openssl", *map(str, words)], input=said, check=True,
                          capture_output=True).stdout
