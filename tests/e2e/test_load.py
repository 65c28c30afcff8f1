# SPDX-License-Identifier: Apache-2.0
"""Many sessions, large messages, long runs: what is held in memory stays bounded."""
import asyncio
import os
import resource
import socket
import subprocess
import time

import pytest

from lib import postfix_tools
from lib.kilat import HOLD, Kilat, message, send, smarthost
from lib.mx import Mx
from lib.net import RawSmtp, end_with_us, free_port, queue_id, stuff, wait_until

IDLE_SESSIONS = 15000
IDLE_OCTETS_MAX = 1024      # of the gateway's resident memory, each
MIB = 1024 * 1024


@pytest.mark.release
def test_idle_sessions(gateways, folder):
    """15,000 at once, after EHLO; each costs at most 1 KiB; all are alive at the end. The limit has
    room to spare: it is split over the workers, and the kernel spreads clients by chance."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = IDLE_SESSIONS + 2000
    if hard < need:
        pytest.skip(f"the limit of open files is {hard}, this needs {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kilat = gateways(limits={"sessions_max": IDLE_SESSIONS + 1500, "command_timeout": "10min"},
                     relay={"connections_max": 100})
    for _ in range(200):      # what is allocated once is not counted
        send(kilat.port, message(1024))
    before = kilat.rss()
    held = []
    try:
        for _ in range(IDLE_SESSIONS):
            sock = socket.create_connection(("127.0.0.1", kilat.port), 20)
            sock.settimeout(20)
            held.append(sock)
        for sock in held:
            assert sock.recv(4096).startswith(b"220 ")
            sock.sendall(b"EHLO client.test\r\n")
        for sock in held:
            assert sock.recv(4096).startswith(b"250-")
        time.sleep(2)
        assert kilat.metrics()["sessions_open"] == IDLE_SESSIONS
        each = (kilat.rss() - before) / IDLE_SESSIONS
        print(f"{IDLE_SESSIONS} idle sessions: {each:.0f} octets of resident memory each")
        began = time.monotonic()
        assert queue_id(send(kilat.port, message(1024)))
        print(f"one more message among them: {(time.monotonic() - began) * 1000:.0f} ms")
        for sock in held[::10]:
            sock.sendall(b"NOOP\r\n")
            assert sock.recv(4096).startswith(b"250 ")
        assert each <= IDLE_OCTETS_MAX
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: kilat.metrics()["sessions_open"] == 0, 30, "all sessions to end")


@pytest.mark.release
def test_large_messages_in_bounded_memory(gateways):
    """20 messages of 25 MiB at once, with 16 MiB for content: they stream through. Beside the
    content there are chunks on their way to and from Redis, a few MiB a session."""
    with Mx(keep_content=False) as host:
        kilat = gateways(route={"*": smarthost(host.port)}, workers=2,
                         limits={"content_memory_max": "16m"})
        before = kilat.rss()
        octets = stuff(message(25 * MIB)) + b".\r\n"
        peak = asyncio.run(_submit_at_once(kilat, octets, 20))
        host.wait(20, timeout=120)
        print(f"peak {(peak - before) / MIB:.0f} MiB over {before / MIB:.0f} MiB at rest")
        assert peak - before < (16 + 20 * 4) * MIB


async def _submit_at_once(kilat, octets, count):
    peak = 0

    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", kilat.port)
        await reader.readline()
        for line in ("HELO client.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>",
                     "DATA"):
            writer.write(line.encode() + b"\r\n")
            reply = await reader.readline()
            assert reply[:1] in b"23", reply
        writer.write(octets)
        await writer.drain()
        reply = await asyncio.wait_for(reader.readline(), 180)
        writer.close()
        assert reply.startswith(b"250 "), reply

    async def watch():
        nonlocal peak
        while True:
            peak = max(peak, kilat.rss())
            await asyncio.sleep(0.02)
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(one() for _ in range(count)))
    watcher.cancel()
    return peak


@pytest.mark.release
def test_nothing_grows(gateways):
    """File descriptors and memory after 5,000 messages and after 35,000 more."""
    with postfix_sink() as sink:
        kilat = gateways(route={"*": smarthost(sink)}, workers=2)

        def push(count):
            done = kilat.metrics()["recipients_delivered_total"]
            postfix_tools.smtp_source(kilat.port, "-s", 20, "-m", count, "-l", 2000, "-d")
            kilat.wait_metric("recipients_delivered_total", done + count, timeout=120)
            return kilat.rss(), kilat.fd_count()
        push(5000)
        rss, fds = push(5000)
        rss_after, fds_after = push(30000)
        print(f"rss {rss // 1024} -> {rss_after // 1024} KiB, fds {fds} -> {fds_after}")
        assert rss_after - rss < 8 * MIB
        assert abs(fds_after - fds) <= 40


class postfix_sink:
    """smtp-sink that throws away."""

    def __enter__(self):
        port = free_port()
        user = ["-u", "root"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen([postfix_tools.program("smtp-sink"), *user, "-c",
                                         f"127.0.0.1:{port}", "1000"], stdout=subprocess.DEVNULL,
                                        start_new_session=True, preexec_fn=end_with_us)
        wait_until(lambda: _listens(port), 10, "smtp-sink")
        return port

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def _listens(port):
    try:
        with RawSmtp(port):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("connection", ["kept", "one-each"])
def test_smtp_source_to_smtp_sink(gateways, connection):
    """Postfix's own load tools on both sides, counted."""
    with postfix_sink() as sink:
        kilat = gateways(route={"*": smarthost(sink)})
        options = ["-d"] if connection == "kept" else []
        postfix_tools.smtp_source(kilat.port, "-s", 50, "-m", 2000, "-l", 10240, *options)
        kilat.wait_metric("recipients_delivered_total", 2000, timeout=60)
        metrics = kilat.metrics()
        assert metrics["messages_accepted_total"] == 2000
        assert metrics["recipients_delivered_total"] == 2000
        assert metrics["recipients_deferred_total"] == 0


def test_small_content_budget(folder):
    """Far more mail than limits.content_memory_max: it is slower, not lost."""
    with Mx() as host:
        with Kilat(folder / "k", route={"*": smarthost(host.port)},
                   limits={"content_memory_max": "1m"}) as kilat:
            octets = stuff(message(200_000)) + b".\r\n"
            asyncio.run(_submit_at_once(kilat, octets, 40))
            host.wait(40, timeout=60)


def test_few_deliveries_in_memory(gateways):
    """More than queue.deliveries_max: the rest waits in Redis and is claimed."""
    with Mx() as host:
        kilat = gateways(route={"*": smarthost(host.port), "hold.test": HOLD},
                         queue={"deliveries_max": 100})
        host.on("connect", "x", times=0)
        postfix_tools.smtp_source(kilat.port, "-s", 50, "-m", 1500, "-l", 1000, "-d", "-t",
                                  "to@rcpt.test", "-f", "a@sender.test")
        host.wait(1500, timeout=90)
        assert kilat.metrics()["deliveries_in_memory"] <= 100
        assert len(host.messages) == 1500
