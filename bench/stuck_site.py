#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
stuck_site - what a site that accepts connections and never answers costs the others.

    bench/stuck_site.py [--repeat 5] [--waiting 20000]

Nine sites share one smtp-sink and get 9 x MESSAGES messages as fast as they go; all of Kilat on one
core, clients and sink on the other. Measured is how many of these are delivered in a second, in
pairs that alternate:
    alone     there is no tenth site;                 waiting   the tenth is stuck, and --waiting
              messages for it were there before: more than this gateway holds in memory
    ten       the tenth site is as good as the others; arriving  it is stuck, and gets as much mail
              as each of the others while they are measured
The table shows medians, and the median of the ratios of the pairs.
"""
import argparse
import contextlib
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from compare_postfix import ROOT, on_client_core, start_sink

sys.path.insert(0, str(ROOT / "tests"))
from lib.kilat import Kilat, smarthost  # noqa: E402
from lib.net import wait_until  # noqa: E402
from lib.postfix_tools import program  # noqa: E402

SITES = 9
MESSAGES = 10_000       # for each site
PAIRS = [("alone", "waiting"), ("ten", "arriving")]


class Stuck:
    """Connections are made, nobody ever answers."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.socket.close()


def source(kilat, site, count):
    return on_client_core([program("smtp-source"), "-d", "-s", 10, "-m", count, "-l", 1024, "-f",
                           "from@sender.test", "-t", f"to@site{site}.test",
                           f"127.0.0.1:{kilat.port}"], stderr=subprocess.PIPE)


def finish(client):
    _, errors = client.communicate(timeout=600)
    assert client.returncode == 0, errors.decode()


def measure(kind, options, folder):
    with contextlib.ExitStack() as stack:
        sink, port = start_sink()
        stack.callback(sink.wait)
        stack.callback(sink.kill)
        stuck = stack.enter_context(Stuck())
        tenth = smarthost(port if kind in ("alone", "ten") else stuck.port)
        kilat = Kilat(folder, build=options.build, workers=1, wrap=["taskset", "-c", "0"],
                      route={"site0.test": tenth,
                             **{f"site{i}.test": smarthost(port) for i in range(1, SITES + 1)},
                             "*": tenth},
                      queue={"deliveries_max": 5000}, relay={"per_destination_max": 20},
                      log={"format": "plain"}).start()
        stack.callback(kilat.stop)
        if kind == "waiting":
            finish(source(kilat, 0, options.waiting))
        sites = range(0 if kind in ("ten", "arriving") else 1, SITES + 1)
        begun = time.monotonic()
        clients = [source(kilat, site, MESSAGES) for site in sites]
        for client in clients:
            finish(client)
        wanted = MESSAGES * (len(sites) if kind == "ten" else SITES)
        wait_until(lambda: kilat.metrics()["recipients_delivered_total"] >= wanted, 300,
                   lambda: str(kilat.metrics()["recipients_delivered_total"]), 0.02)
        return MESSAGES * SITES / (time.monotonic() - begun)


def parse():
    parser = argparse.ArgumentParser(description="See the top of this file.")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--waiting", type=int, default=20_000)
    parser.add_argument("--build", default="build")
    return parser.parse_args()


def main():
    options = parse()
    base = pathlib.Path(tempfile.mkdtemp(prefix="kilat-stuck."))
    found = {kind: [] for pair in PAIRS for kind in pair}
    try:
        for number in range(options.repeat):
            for pair in PAIRS:
                for kind in pair if number % 2 == 0 else pair[::-1]:
                    rate = measure(kind, options, base / f"{kind}{number}")
                    found[kind].append(rate)
                    print(f"{number + 1}/{options.repeat} {kind:8} {rate:,.0f}/s",
                          file=sys.stderr)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print("| good sites alone | messages/s | with a stuck one | messages/s | ratio |")
    print("|---|---|---|---|---|")
    for good, bad in PAIRS:
        ratio = statistics.median(b / g for g, b in zip(found[good], found[bad]))
        print(f"| {good} | {statistics.median(found[good]):,.0f} | {bad} | "
              f"{statistics.median(found[bad]):,.0f} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
