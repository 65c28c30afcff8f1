# SPDX-License-Identifier: Apache-2.0
"""
dns - a name server for tests: UDP on 127.0.0.1, answers from a table.

    with Dns({("rcpt.test", "MX"): [(10, "mx.rcpt.test")],
              ("mx.rcpt.test", "A"): ["127.0.0.2"]}) as d:
        Kilat(..., dns={"servers": [d.address]}, relay={"mx_port": ..., "allow_private": True})

A name without any row is NXDOMAIN; a row that is an rcode by name ("SERVFAIL") is that error;
"SILENT" is never answered.
"""
import ipaddress
import socket
import struct
import threading

TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28}
RCODES = {"FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "REFUSED": 5}
TTL = 60


def _name(text):
    labels = [label for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def _rdata(kind, value):
    if kind == "A":
        return ipaddress.IPv4Address(value).packed
    if kind == "AAAA":
        return ipaddress.IPv6Address(value).packed
    if kind == "MX":
        return struct.pack("!H", value[0]) + _name(value[1])
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    return _name(value)


class Dns:
    def __init__(self, table=None, at=("127.0.0.1", 0)):
        self.table = {(name.lower(), kind): rows for (name, kind), rows in (table or {}).items()}
        self.asked = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(at)
        self.host, self.port = self.sock.getsockname()
        self.thread = None

    @property
    def address(self):
        return f"{self.host}@{self.port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.sendto(b"", ("127.0.0.1", self.port))
        sock.close()
        self.thread.join(5)
        self.sock.close()

    def _run(self):
        while True:
            query, peer = self.sock.recvfrom(4096)
            if not query:
                return
            answer = self._answer(query)
            if answer:
                self.sock.sendto(answer, peer)

    def _answer(self, query):
        if len(query) < 17:
            return None
        ident, flags = struct.unpack("!HH", query[:4])
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        question = query[12:at + 5]
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        kind = next((k for k, n in TYPES.items() if n == kind), str(kind))
        name = ".".join(labels).lower()
        self.asked.append((name, kind))
        rcode, rows = 0, []
        found = self.table.get((name, kind), self.table.get((name, "ANY")))
        if found == "SILENT":
            return None
        if isinstance(found, str):
            rcode = RCODES[found]
        elif found is not None:
            rows = [(kind, value) for value in found]
        elif (name, "CNAME") in self.table:
            rows = [("CNAME", value) for value in self.table[name, "CNAME"]]
        elif not any(name == n or n.endswith("." + name) for n, _ in self.table):
            rcode = RCODES["NXDOMAIN"]
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", TYPES[k], 1, TTL, len(d)) + d
            for k, d in ((k, _rdata(k, v)) for k, v in rows))
        authority, count = b"", 0
        if not rows:    # an SOA, so that "no" can be cached
            soa = _name("ns.test") + _name("root.test") + struct.pack("!IIIII", 1, 60, 60, 60, 60)
            authority = b"\0" + struct.pack("!HHIH", 6, 1, TTL, len(soa)) + soa
            count = 1
        return struct.pack("!HHHHHH", ident, 0x8480 | (flags & 0x0100) | rcode, 1, len(rows), count,
                           0) + question + records + authority
