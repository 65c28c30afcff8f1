# SPDX-License-Identifier: Apache-2.0
"""
cases - what is sent where, and what must become of it.

A case is a domain of its own, NAME.ZONE, with these records. Its mail goes to each of `rcpts` in
one message; `expect` says by what steps each recipient's delivery goes ("deferred 450", then
"delivered"), `why` what the log must say about the first step, `rows` which rows of the protocol
checklist say so.
"""
import dataclasses

from lib.policy_host import policy


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    what: str                       # for the table
    records: tuple
    expect: tuple                   # steps; or {recipient: steps}
    rows: tuple
    why: str = ""
    at: str = ""                    # the name of the host that gets it
    tls: str = ""                   # there: clear, encrypted, verified
    rcpts: tuple = ("to",)
    zone: str = "test"
    level: str = ""                 # `tls` of its route
    status: str = ""                # in the bounce
    policy: str = ""                # MTA-STS
    fleeting: bool = False          # it can be fetched once
    testing: str = ""               # what the log must say of a policy in mode testing

    @property
    def domain(self):
        return f"{self.name}.{self.zone}"

    @property
    def hosts(self):
        """As the table names them."""
        return ", ".join(record.split()[-1].removesuffix(".test.") for record in self.records)

    def steps(self, rcpt):
        return self.expect[rcpt] if isinstance(self.expect, dict) else self.expect


def mx(*hosts):
    """10 for the first, 20 for the second, ..."""
    return tuple(f"MX {10 * n} {host}.test." for n, host in enumerate(hosts, 1))


DELIVERED = ("delivered 250",)
SITE = ("one", "two", "three", "four", "five")


def enforce(*hosts, mode="enforce", max_age=86400):
    return policy(mode, *(f"{host}.test" for host in hosts), max_age=max_age)


def some_later(*first):
    """Those are delivered at once, the others in another transaction."""
    return {rcpt: DELIVERED if rcpt in first else ("deferred 452", *DELIVERED) for rcpt in SITE}


PLAIN = [
    Case("postfix", "plain delivery to Postfix", mx("mx.postfix"), DELIVERED,
         (172, 181, 184, 185, 192, 195), at="mx.postfix", tls="encrypted"),
    Case("exim", "plain delivery to Exim", mx("mx.exim"), DELIVERED,
         (172, 181, 184, 185, 192, 195), at="mx.exim", tls="encrypted"),
    Case("opensmtpd", "plain delivery to OpenSMTPD; Debian's fails in each TLS handshake",
         mx("mx.opensmtpd"), DELIVERED, (172, 181, 184, 185, 192), at="mx.opensmtpd", tls="clear"),
    Case("clear", "a host without TLS", mx("bare.postfix"), DELIVERED, (192,), at="bare.postfix",
         tls="clear"),
    Case("old", "a host without PIPELINING, 8BITMIME, CHUNKING, SIZE and DSN", mx("old.postfix"),
         DELIVERED, (164, 172, 177, 179), at="old.postfix", tls="encrypted"),
]
ROUTES = [
    Case("no-mx", "no MX, an address", ("A 10.77.0.10",), DELIVERED, (209,), at="mx.postfix"),
    Case("alias", "the domain is an alias (CNAME)", ("CNAME exim.test.",), DELIVERED, (208,),
         at="mx.exim"),
    Case("null-mx", "null MX", ("MX 0 .",), ("bounced 556",), (210,), status="5.1.10"),
    Case("nothing", "no such domain", (), ("bounced 550",), (211,), status="5.1.2"),
    Case("bogus", "a zone signed by another key than the trusted one", ("MX 10 bogus.postfix",),
         ("deferred 451",), (200, 211), why="bogus", zone="broken"),
    Case("dead", "the first MX host is dead (nobody has its address)", mx("none", "mx.exim"),
         DELIVERED, (162, 175), why="No route to host", at="mx.exim"),
    Case("closed", "the first MX host has no mail server", mx("mx.names", "mx.exim"), DELIVERED,
         (162, 175), why="Connection refused", at="mx.exim"),
    Case("refused", "the first MX host refuses mail (554)", mx("closed.exim", "mx.opensmtpd"),
         DELIVERED, (162,), why="No service here", at="mx.opensmtpd"),
    Case("hangs-up", "the first MX host hangs up (scripted)", mx("deaf", "mx.postfix"), DELIVERED,
         (163, 176), why="closed", at="mx.postfix"),
    Case("all-dead", "all MX hosts are dead", mx("none"), ("deferred 451",), (175, 217)),
    Case("ipv6-dead", "its IPv6 address is dead, its IPv4 address is not",
         ("A 10.77.0.20", "AAAA fd77::50"), DELIVERED, (175,), at="mx.exim"),
    Case("ipv4-dead", "its IPv4 address is dead, its IPv6 address is not",
         ("A 10.77.0.50", "AAAA fd77::20"), DELIVERED, (175,), at="mx.exim"),
    Case("ipv6", "IPv6 only", mx("six.postfix"), DELIVERED, (175,), at="six.postfix",
         tls="encrypted"),
]
REPLIES = [
    Case("greylist", "greylisting (postgrey)", mx("grey.postfix"), ("deferred 450", *DELIVERED),
         (170, 217), why="Greylisted", at="grey.postfix"),
    Case("busy", "421 at the second recipient, for good", mx("busy.postfix"), ("deferred 421",),
         (170,), why="Too busy", rcpts=("one", "two")),
    Case("later", "421 at the second recipient, once (scripted)", mx("421.later"),
         ("deferred 421", *DELIVERED), (170,), why="Enough for now", at="421.later",
         rcpts=("one", "two")),
    Case("content", "421 in the middle of the content, once (scripted)", mx("421.content"),
         ("deferred 421", *DELIVERED), (170, 186), why="Going down", at="421.content"),
    Case("cut", "reset in the middle of the content, once (scripted)", mx("cut"),
         ("deferred 451", *DELIVERED), (185,), at="cut"),
    Case("drip", "replies drip, slowly (scripted)", mx("drip"), DELIVERED, (161,), at="drip"),
    Case("slow", "a reply drips without end (scripted)", mx("slow"), ("deferred 451",),
         (161,)),
    Case("full", "250, 550, 552 and 452 to single recipients", mx("mx.opensmtpd"),
         {"to": DELIVERED, "gone": ("bounced 550",), "over": ("deferred 452", "bounced 552"),
          "busy": ("deferred 452",)}, (53, 181), at="mx.opensmtpd", status="5.",
         rcpts=("to", "gone", "over", "busy"), why="Nobody of that name; Mailbox full"),
    Case("small", "a message larger than the host takes (SIZE)", mx("small.postfix"),
         ("bounced 552",), (178,), why="larger than", status="5.3.4"),
    Case("many452", "more recipients than it takes at once (452)", mx("mx.exim"),
         some_later("one", "two", "three"), (181,), at="mx.exim", rcpts=SITE),
    Case("many552", "more recipients than it takes at once (552)", mx("many.exim"),
         some_later("one", "two"), (181,), at="many.exim", rcpts=SITE),
]
CERTIFICATES = [
    Case("other", "certificate for another name, `tls = may`", mx("other.postfix"), DELIVERED,
         (192,), at="other.postfix", tls="encrypted"),
    Case("stranger", "certificate of an unknown authority, `tls = may`", mx("stranger.exim"),
         DELIVERED, (192,), at="stranger.exim", tls="encrypted"),
    Case("verify", "good certificate, `tls = verify`", mx("mx.verify"), DELIVERED, (196, 197),
         at="mx.verify", tls="verified", level="verify"),
    Case("verify-other", "certificate for another name, `tls = verify`", mx("other.postfix"),
         ("deferred 451",), (196, 197), why="is not for", level="verify"),
    Case("verify-ca", "certificate of an unknown authority, `tls = verify`", mx("stranger.exim"),
         ("deferred 451",), (196,), why="self signed certificate in", level="verify"),
    Case("verify-late", "expired certificate, `tls = verify`", mx("late.exim"), ("deferred 451",),
         (196,), why="expired", level="verify"),
    Case("encrypt", "no STARTTLS, `tls = encrypt`", mx("bare.postfix"), ("deferred 451",), (193,),
         why="does not offer STARTTLS", level="encrypt"),
]
DANE = [
    Case("dane-ee", "DANE, `3 1 1`: the certificate's name does not matter", mx("ee.postfix"),
         DELIVERED, (198, 199), at="ee.postfix", tls="verified"),
    Case("dane-ta", "DANE, `2 0 1`: an authority", mx("ta.exim"), DELIVERED, (198, 199),
         at="ta.exim", tls="verified"),
    Case("dane-late", "DANE, `3 0 1`: an expired certificate", mx("expired.exim"), DELIVERED,
         (199,), at="expired.exim", tls="verified"),
    Case("dane-pkix", "DANE, `1 0 1`: not usable for mail", mx("pkix.exim"), DELIVERED, (199,),
         at="pkix.exim", tls="encrypted"),
    Case("dane-wrong", "DANE, another key than the host's", mx("wrong.postfix"),
         ("deferred 451",), (199, 200), why="is not what the TLSA records"),
    Case("dane-fails", "DANE, and the handshake fails", mx("ee.opensmtpd"), ("deferred 451",),
         (192, 200), why="INTERNAL_ERROR"),
    Case("dane-strip", "DANE, and no STARTTLS", mx("strip.postfix"), ("deferred 451",), (200,),
         why="does not offer STARTTLS"),
    Case("dane-next", "DANE, wrong at the first MX host, right at the second",
         mx("wrong.postfix", "ee.postfix"), DELIVERED, (199, 200), why="is not what the TLSA",
         at="ee.postfix", tls="verified"),
    Case("dane-plain", "TLSA records in a zone that is not signed", ("MX 10 unsigned.exim",),
         DELIVERED, (198,), at="unsigned.exim", tls="encrypted", zone="plain"),
]
MTA_STS = [
    Case("sts", "MTA-STS enforce", mx("mx.postfix"), DELIVERED, (202, 203), at="mx.postfix",
         tls="verified", policy=enforce("mx.postfix")),
    Case("sts-other", "MTA-STS enforce, certificate for another name", mx("other.postfix"),
         ("deferred 451",), (203,), why="is not for", policy=enforce("other.postfix")),
    Case("sts-clear", "MTA-STS enforce, no STARTTLS", mx("bare.postfix"), ("deferred 451",),
         (203,), why="does not offer STARTTLS", policy=enforce("*.postfix")),
    Case("sts-host", "MTA-STS enforce, a host that it does not name", mx("mx.exim"),
         ("deferred 451",), (203,), why="allows none of its MX hosts",
         policy=enforce("mx.postfix")),
    Case("sts-next", "MTA-STS enforce, the second host is the one it names",
         mx("mx.postfix", "mx.exim"), DELIVERED, (203,), at="mx.exim", tls="verified",
         policy=enforce("mx.exim")),
    Case("sts-testing", "MTA-STS testing, certificate for another name", mx("other.postfix"),
         DELIVERED, (203,), at="other.postfix", tls="encrypted", testing="is not for",
         policy=enforce("other.postfix", mode="testing")),
    Case("sts-none", "MTA-STS none, certificate for another name", mx("other.postfix"), DELIVERED,
         (203,), at="other.postfix", tls="encrypted",
         policy=enforce("other.postfix", mode="none")),
    Case("sts-expired", "MTA-STS enforce, for 6 seconds; then its file is gone",
         mx("other.postfix"), ("deferred 451", *DELIVERED), (203,), why="is not for",
         at="other.postfix", tls="encrypted", policy=enforce("other.postfix", max_age=6),
         fleeting=True),
    Case("sts-dane", "DANE, and an MTA-STS policy that does not name the host", mx("ee.postfix"),
         DELIVERED, (201,), at="ee.postfix", tls="verified", policy=enforce("mx.postfix")),
    Case("sts-pkix", "DANE that is not usable, MTA-STS enforce, certificate for another name",
         mx("pkix.exim"), ("deferred 451",), (201, 203), why="is not for",
         policy=enforce("pkix.exim")),
]
CASES = PLAIN + ROUTES + REPLIES + CERTIFICATES + DANE + MTA_STS
