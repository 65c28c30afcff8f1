# SPDX-License-Identifier: Apache-2.0
"""
knot - a name server with signed zones: Knot DNS on 127.0.0.1, from text, ended with the test.

    with Knot(folder, {"test": "@ SOA ...\\nrcpt MX 10 mx.rcpt\\n..."}, anchors=["test"]) as dns:
        Kilat(..., dns={"servers": [dns.address], "trust_anchor": str(dns.trust_anchor)})

Zones in `anchors` are signed and trusted; those in `broken` are trusted by a key that is not
theirs, so whatever is asked there is bogus; others are not signed.
"""
import socket
import subprocess
import time

from lib.net import end_with_us, free_port

HEAD = """$ORIGIN {zone}.
$TTL 60
@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 60
@ NS ns.{zone}.
ns A 127.0.0.1
"""
CONFIG = """
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
database:
    storage: {folder}/db
log:
  - target: {folder}/knot.log
    any: info
policy:
  - id: quick
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: {folder}
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: all
zone:
"""


class Knot:
    def __init__(self, folder, zones, anchors=(), broken=()):
        self.folder, self.zones = folder, zones
        self.anchors, self.broken = list(anchors), list(broken)
        self.trust_anchor = folder / "anchors"
        self.port = free_port()
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1@{self.port}"

    def _write(self):
        (self.folder / "db").mkdir(parents=True)
        text = CONFIG.format(folder=self.folder, port=self.port)
        for zone, records in self.zones.items():
            (self.folder / f"{zone}.zone").write_text(HEAD.format(zone=zone) + records)
            text += f"  - domain: {zone}\n    file: {zone}.zone\n"
            if zone in self.anchors + self.broken:
                text += "    dnssec-signing: on\n    dnssec-policy: quick\n"
        self.config = self.folder / "knot.conf"
        self.config.write_text(text)

    def _digest(self, zone):
        done = subprocess.run(["keymgr", "-c", str(self.config), zone, "ds"], capture_output=True,
                              text=True, check=True)
        return next(line for line in done.stdout.split("\n") if " 13 2 " in line)

    def __enter__(self):
        self._write()
        self.process = subprocess.Popen(["knotd", "-c", str(self.config)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=end_with_us)
        end = time.monotonic() + 20
        while not self._is_ready():
            assert time.monotonic() < end and self.process.poll() is None, \
                (self.folder / "knot.log").read_text()
            time.sleep(0.05)
        lines = [self._digest(zone) for zone in self.anchors]
        for zone in self.broken:
            line = self._digest(zone)
            lines.append(line[:-4] + ("0000" if not line.endswith("0000") else "1111"))
        self.trust_anchor.write_text("\n".join(lines) + "\n")
        return self

    def _is_ready(self):
        """It answers for every zone, signed where it is to be."""
        return all(self._answers(zone) for zone in self.zones)

    def _answers(self, zone):
        name = b"".join(bytes([len(label)]) + label.encode() for label in zone.split(".")) + b"\0"
        kind = b"\0\x30" if zone in self.anchors + self.broken else b"\0\x06"    # DNSKEY, SOA
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            sock.sendto(b"\0\1\0\0\0\1\0\0\0\0\0\0" + name + kind + b"\0\1",
                        ("127.0.0.1", self.port))
            try:
                answer = sock.recv(4096)
            except OSError:
                return False
        return answer[3] & 15 == 0 and answer[7] > 0

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
