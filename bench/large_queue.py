#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
large_queue - what a queue of a million messages for 100,000 domains costs.

    bench/large_queue.py [--messages 1000000] [--domains 100000] [--build build]

Mail of 2 KiB is accepted while the name server answers nobody, so that all of it waits. Then Kilat
and its Redis are stopped and started again, the name server answers (every domain has the MX host
127.0.0.2, an smtp-sink), and the queue drains. Each step is told in tenths: what is linear has the
same figure in each. Needs some 3.5 GB of memory for a million messages, and ten minutes.
"""
import argparse
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from compare_postfix import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from lib.dns import Dns  # noqa: E402
from lib.kilat import Kilat  # noqa: E402
from lib.net import end_with_us, free_port, wait_until  # noqa: E402
from lib.postfix_tools import program  # noqa: E402

CLIENTS = 16
AT_ONCE = 50        # messages that a client sends before it reads the replies
BODY = (b"From: a@sender.test\r\nTo: b@x.test\r\nSubject: x\r\nMessage-ID: <1@sender.test>\r\n"
        b"Date: Mon, 23 Nov 2026 00:00:00 +0000\r\n\r\n" + (b"x" * 70 + b"\r\n") * 27)


class Everywhere(dict):
    """The table of a name server for which every domain takes mail; silent at first."""
    is_silent = True

    def get(self, key, default=None):
        if self.is_silent:
            return "SILENT"
        return {"MX": [(10, "mx.test")], "A": ["127.0.0.2"]}.get(key[1], [])


class Sink:
    def __init__(self):
        self.port = free_port()

    def __enter__(self):
        self.process = subprocess.Popen(
            [program("smtp-sink"), "-u", "root", "-m", "4096", f"127.0.0.2:{self.port}",
             "4096"], start_new_session=True, preexec_fn=end_with_us)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def memory(pid):
    """Resident octets."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


# -- filling -----------------------------------------------------------------------------------

class Filler(threading.Thread):
    """Sends the messages first, first + CLIENTS, ..."""

    def __init__(self, port, first, options, counter):
        super().__init__(daemon=True)
        self.port, self.numbers = port, range(first, options.messages, CLIENTS)
        self.domains, self.counter, self.error = options.domains, counter, None

    def run(self):
        try:
            for at in range(0, len(self.numbers), 100 * AT_ONCE):
                self.session(self.numbers[at:at + 100 * AT_ONCE])
        except (OSError, AssertionError) as error:
            self.error = error

    def session(self, numbers):
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as sock:
            replies = sock.makefile("rb")
            replies.readline()
            sock.sendall(b"EHLO client.test\r\n")
            while not replies.readline().startswith(b"250 "):
                pass
            for at in range(0, len(numbers), AT_ONCE):
                self.batch(sock, replies, numbers[at:at + AT_ONCE])

    def batch(self, sock, replies, numbers):
        sock.sendall(b"".join(
            b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<u%d@d%d.test>\r\nBDAT %d LAST\r\n%s" %
            (n, n % self.domains, len(BODY), BODY) for n in numbers))
        for _ in range(3 * len(numbers)):
            line = replies.readline()
            assert line.startswith(b"250"), line
        self.counter.append(len(numbers))


def fill(kilat, options):
    counter, tenth = [], options.messages // 10
    print("| accepted | messages/s | Kilat MiB | Redis MiB | Redis octets a message |")
    print("|---|---|---|---|---|")
    fillers = [Filler(kilat.port, n, options, counter) for n in range(CLIENTS)]
    began = last = time.monotonic()
    empty = memory(kilat.redis_pid())
    for filler in fillers:
        filler.start()
    for number in range(1, 11):
        wait_until(lambda: sum(counter) >= tenth * number or any(f.error for f in fillers), 1200,
                   "mail to be accepted", 0.1)
        assert not any(f.error for f in fillers), [f.error for f in fillers]
        now, redis = time.monotonic(), memory(kilat.redis_pid())
        print(f"| {tenth * number:,} | {tenth / (now - last):,.0f} | "
              f"{memory(kilat.process.pid) / 2**20:,.0f} | {redis / 2**20:,.0f} | "
              f"{(redis - empty) / (tenth * number):,.0f} |", flush=True)
        last = now
    for filler in fillers:
        filler.join()
    return time.monotonic() - began


# -- draining ----------------------------------------------------------------------------------

def drain(kilat, options):
    """The counter begins at 0 with the restart."""
    tenth = options.messages // 10
    print("| delivered | messages/s | Kilat MiB | Redis MiB |")
    print("|---|---|---|---|")
    last = time.monotonic()
    for number in range(1, 11):
        wanted = tenth * number if number < 10 else options.messages
        wait_until(lambda: kilat.metrics()["recipients_delivered_total"] >= wanted, 3000,
                   lambda: str(kilat.metrics()["recipients_delivered_total"]), 0.2)
        now = time.monotonic()
        print(f"| {wanted:,} | {tenth / (now - last):,.0f} | "
              f"{memory(kilat.process.pid) / 2**20:,.0f} | "
              f"{memory(kilat.redis_pid()) / 2**20:,.0f} |", flush=True)
        last = now


def run(folder, options):
    table = Everywhere()
    dns = Dns()
    dns.table = table
    with dns, Sink() as sink:
        kilat = Kilat(folder, build=options.build, workers=2, route={"*": {"relay": "mx"}},
                      dns={"servers": [dns.address]}, retry={"schedule": ["2s"]},
                      relay={"mx_port": sink.port, "allow_private": True, "mta_sts": False,
                             "connections_max": 500}, log={"format": "plain"},
                      limits={"drain_timeout": "5s"}).start()
        try:
            fill(kilat, options)
            began = time.monotonic()
            kilat.stop()
            stopped = time.monotonic()
            table.is_silent = False
            kilat.start(timeout=300)
            print(f"\nstopped in {stopped - began:.1f} s, ready again after "
                  f"{time.monotonic() - stopped:.1f} s\n", flush=True)
            drain(kilat, options)
        finally:
            kilat.stop(timeout=60)


def main():
    parser = argparse.ArgumentParser(description="See the top of this file.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=100_000)
    parser.add_argument("--build", default="build")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kilat-large."))
    try:
        run(folder / "k", parser.parse_args())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
