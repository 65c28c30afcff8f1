# SPDX-License-Identifier: Apache-2.0
"""
limits - what the machine can do at all: the disk's syncs, Redis without a gateway, SMTP without a
queue, TLS without SMTP.
"""
import json
import os
import statistics
import subprocess
import sys
import time

from lib.certs import Authority
from lib.kilat import HOLD, Kilat
from lib.net import free_port
from lib.postfix_tools import program

from . import machine
from .measure import Sink, run_source

SYNC_S = 2


def disk(folder):
    """fdatasync after an append of 10 KiB, one after the other."""
    times, octets = [], os.urandom(10240)
    with open(folder / "sync", "wb", buffering=0) as file:
        end = time.monotonic() + SYNC_S
        while time.monotonic() < end:
            file.write(octets)
            began = time.monotonic()
            os.fdatasync(file.fileno())
            times.append(time.monotonic() - began)
    middle = statistics.median(times) * 1000
    return [["the disk: 10 KiB appended and fdatasync", f"{len(times) / SYNC_S:,.0f}/s",
             f"median {middle:.2f} ms"]]


def redis(options, folder):
    """A pipelined client that queues as the gateway does, without one; Redis has the server's core,
    the client the other."""
    rows = []
    for size in (1024, 10240, 102400):
        kilat = Kilat(folder / f"redis-{size}", build=options.build, workers=1,
                      route={"*": HOLD}, wrap=machine.on_core(machine.SERVER_CORE))
        with kilat:
            done = subprocess.run(
                machine.on_core(machine.CLIENT_CORE, options.tools / "redis_limit",
                                kilat.redis_socket(), size, options.seconds),
                capture_output=True, text=True, check=True, timeout=120)
        found = json.loads(done.stdout)
        rows.append([f"Redis, messages of {size // 1024} KiB queued without a gateway",
                     f"{found['messages_per_second']:,.0f}/s",
                     f"{found['messages_per_transaction']:.0f} in a transaction"])
    return rows


def smtp(options, folder):
    """What generator and sink can do: nothing is stored."""
    rows = []
    sink = Sink(options.tools, folder, [], machine.SERVER_CORE)
    for title, more in (("one command after the other", []), ("pipelined", ["--pipelining"]),
                        ("pipelined, BDAT", ["--pipelining", "--bdat"]),
                        ("pipelined, BDAT, 4 under way", ["-p", "-b", "--depth", "4"])):
        rates = [run_source(options.tools, folder, sink.port,
                            ["--time", 2, "-c", 1000, *more])["messages_per_second"]
                 for _ in range(3)]
        rows.append([f"kilat-source into kilat-sink, 10 KiB, {title}",
                     f"{statistics.median(rates):,.0f}/s", "a core each"])
    sink.stop()
    return rows


def postfix_tools(options, folder):
    port = free_port()
    sink = subprocess.Popen(machine.on_core("0", program("smtp-sink"), "-u", "root",
                                            f"127.0.0.1:{port}", 4096))
    time.sleep(0.5)
    rates = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(machine.on_core("1", program("smtp-source"), "-s", 100, "-m", 20000, "-d",
                                       "-l", 10240, f"127.0.0.1:{port}"), check=True, timeout=120)
        rates.append(20000 / (time.monotonic() - began))
    sink.kill()
    sink.wait()
    return [["smtp-source into smtp-sink, 10 KiB", f"{statistics.median(rates):,.0f}/s",
             "a core each"]]


def handshakes(options, folder):
    certificate, key = Authority(folder / "ca").issue("localhost")
    done = subprocess.run(machine.on_core(machine.SERVER_CORE, options.tools / "handshake_limit",
                                          certificate, key, 1500),
                          capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    return [["BoringSSL's server side of TLS handshakes, P-256",
             f"{found['full_per_core']:,.0f}/s", "full"],
            ["", f"{found['resumed_per_core']:,.0f}/s", "resumed"]]


def measure_all(options, folder):
    rows = []
    for find in (disk, lambda where: redis(options, where), lambda where: smtp(options, where),
                 lambda where: postfix_tools(options, where),
                 lambda where: handshakes(options, where)):
        rows += find(folder)
        print(f"limits: {rows[-1]}", file=sys.stderr, flush=True)
    return rows
