# SPDX-License-Identifier: Apache-2.0
"""
cases - what is sent where, and what must become of it.

A case is a domain of its own, NAME.ZONE, with these records. Its mail goes to each of `rcpts` in
one message; `expect` says by what steps each recipient's delivery goes ("deferred 450", then
"delivered"), `why` what the log must say about the first step, `rows` which rows of the protocol
checklist say so.
"""
import dataclasses


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
    policy: str = ""                # MTA-STS
    testing: str = ""               # what a policy in mode testing must have said

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
CASES = [
    Case("postfix", "plain delivery to Postfix", mx("mx.postfix"), DELIVERED,
         (172, 181, 184, 185, 192, 195), at="mx.postfix", tls="encrypted"),
]
