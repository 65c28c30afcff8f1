#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
kill_test - no 250 is ever taken back.

    tests/e2e/kill_test.py [--gateway 20] [--redis 20] [--both 10] [--sessions 100] [--seed N]
                           [--size 2000] [--build build]

Under load from many sessions the gateway, its Redis, or both get SIGKILL at random moments and
start again (the gateway by us, Redis by the gateway). The oracle: each message has an identifier of
its own and is sent once. Every message that was answered 250 must arrive at least once: else it is
lost. A message that arrives twice must have been in flight when something was killed: its first
arrival lies less than IN_FLIGHT_S before a kill, its next one after it.

Exit 0: nothing lost, every duplicate explained.
"""
import argparse
import asyncio
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from lib.kilat import Kilat, smarthost  # noqa: E402
from lib.mx import Mx  # noqa: E402
from lib.net import free_port, stuff, wait_until  # noqa: E402

IN_FLIGHT_S = 0.25      # from a host's 250 until Redis surely knew of it, on a loaded machine
PAUSE_S = (0.3, 1.5)    # between a recovery and the next kill
RECOVER_S = 40
FINISH_S = 90           # for the rest to be delivered once the load has ended


class Load:
    """Sessions that submit without pause, each on a connection kept as long as it lives."""

    def __init__(self, port, sessions, size, seed):
        self.port, self.sessions, self.size = port, sessions, size
        self.prefix = f"{seed:x}"
        self.acked = {}         # identifier -> when its 250 came
        self.unknown = set()    # sent whole, no reply seen
        self.refused = {}       # code -> count
        self.next = 0
        self.stopping = False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.thread.start()

    async def _run(self):
        await asyncio.gather(*(self._session() for _ in range(self.sessions)))

    async def _session(self):
        while not self.stopping:
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                await self._talk(reader, writer)
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(0.05)
            finally:
                if writer:
                    writer.transport.abort()

    async def _reply(self, reader):
        while True:
            line = await asyncio.wait_for(reader.readline(), 60)
            if not line.endswith(b"\n"):
                raise EOFError
            if line[3:4] != b"-":
                return int(line[:3])

    async def _talk(self, reader, writer):
        if await self._reply(reader) != 220:
            raise EOFError
        writer.write(b"EHLO client.test\r\n")
        await self._reply(reader)
        while not self.stopping:
            ident = f"{self.prefix}-{self.next}."
            self.next += 1
            writer.write(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nDATA\r\n")
            codes = [await self._reply(reader) for _ in range(3)]
            if codes != [250, 250, 354]:
                self._count(codes)
                raise EOFError
            writer.write(self._content(ident))
            self.unknown.add(ident)
            code = await self._reply(reader)
            self.unknown.discard(ident)
            if code == 250:
                self.acked[ident] = time.monotonic()
            else:
                self._count([code])
                if code == 421:
                    raise EOFError

    def _count(self, codes):
        for code in codes:
            if code not in (250, 354):
                self.refused[code] = self.refused.get(code, 0) + 1

    def _content(self, ident):
        head = f"From: a@sender.test\r\nSubject: x\r\nX-Ident: {ident}\r\n\r\n".encode()
        return stuff(head + b"y" * 70 + b"\r\n" * 1 + (b"y" * 78 + b"\r\n") *
                     ((self.size - len(head)) // 80)) + b".\r\n"

    def stop(self):
        self.stopping = True
        self.thread.join(90)
        assert not self.thread.is_alive(), "the load did not end"


class Arrivals:
    """What the host got: identifier -> times."""

    def __init__(self):
        self.times = {}

    def take(self, message, content):
        found = re.search(rb"X-Ident: (\S+)", content[:4096])
        if found:
            self.times.setdefault(found[1].decode(), []).append(time.monotonic())


def schedule(options, chance):
    kills = ["gateway"] * options.gateway + ["redis"] * options.redis + ["both"] * options.both
    chance.shuffle(kills)
    return kills


def strike(kilat, what, chance):
    """Kills, brings back; returns when it was."""
    redis = kilat.redis_pid()
    victims = {"gateway": [kilat.process.pid], "redis": [redis],
               "both": [kilat.process.pid, redis]}[what]
    chance.shuffle(victims)
    when = time.monotonic()
    for pid in victims:
        if pid:
            os.kill(pid, signal.SIGKILL)
    if what == "redis":
        wait_until(lambda: kilat.redis_pid() not in (None, redis), RECOVER_S, "a new Redis")
    else:
        kilat.process.wait(10)
        kilat.start(RECOVER_S)
    return when


def run(options, folder, say=print):
    """Returns a dictionary of what was found."""
    chance = random.Random(options.seed)
    arrivals = Arrivals()
    kills = []
    with Mx(keep_content=False, on_message=arrivals.take) as mx:
        port = free_port()
        kilat = Kilat(folder, build=options.build, route={"*": smarthost(mx.port)},
                      listener={"trusted": {"bind": [f"127.0.0.1:{port}"],
                                            "networks": ["127.0.0.0/8"]}},
                      relay={"per_destination_max": 20})
        kilat.start(RECOVER_S)
        load = Load(port, options.sessions, options.size, options.seed)
        try:
            for number, what in enumerate(schedule(options, chance), 1):
                before = len(load.acked)
                wait_until(lambda: len(load.acked) > before, RECOVER_S,
                           lambda: "a 250 after the last kill\n" + kilat.tail())
                time.sleep(chance.uniform(*PAUSE_S))
                kills.append((strike(kilat, what, chance), what))
                say(f"kill {number}: {what}; acknowledged {len(load.acked)}, "
                    f"arrived {len(arrivals.times)}")
            before = len(load.acked)
            wait_until(lambda: len(load.acked) > before, RECOVER_S, "a 250 after the last kill")
            load.stop()
            wait_until(lambda: all(i in arrivals.times for i in load.acked), FINISH_S,
                       "every acknowledged message")
        except AssertionError as error:
            say(f"error: {error}")
        finally:
            load.stopping = True
            load.thread.join(90)
            time.sleep(1)
            lost = [i for i in load.acked if i not in arrivals.times]
            code = kilat.stop()
        sanitizer = None
        try:
            kilat.check()
        except AssertionError as error:
            sanitizer = str(error)
    doubles = {i: t for i, t in arrivals.times.items() if len(t) > 1}
    why = {i: causes(t, kills) for i, t in doubles.items()}
    unexplained = [i for i, found in why.items() if None in found]
    known = [c for found in why.values() for c in found if c]
    by_kill = {what: sum(w == what for w, _ in known) for what in sorted({w for w, _ in known})}
    return {"acknowledged": len(load.acked), "arrived": len(arrivals.times), "lost": lost,
            "duplicates": len(doubles), "by_kill": by_kill,
            "oldest_ms": round(1000 * max((age for _, age in known), default=0)),
            "unexplained": unexplained, "refused": load.refused,
            "unknown_arrived": sum(i in arrivals.times for i in load.unknown),
            "unknown": len(load.unknown), "kills": len(kills), "violations": mx.violations,
            "exit": code, "sanitizer": sanitizer}


def causes(times, kills):
    """For each arrival but the last: (what was killed, seconds after it) or None."""
    return [next(((what, when - a) for when, what in kills
                  if a - 0.1 <= when <= b and when - a < IN_FLIGHT_S), None)
            for a, b in zip(times, times[1:])]


def verdict(found, wanted_kills):
    """None, or what is wrong."""
    if found["lost"]:
        return f"{len(found['lost'])} lost: {found['lost'][:5]}"
    if found["kills"] != wanted_kills:
        return f"only {found['kills']} of {wanted_kills} kills"
    if found["unexplained"]:
        return f"{len(found['unexplained'])} duplicates without a kill: {found['unexplained'][:5]}"
    if found["sanitizer"]:
        return found["sanitizer"]
    if found["violations"]:
        return f"the client's mistakes: {found['violations'][:5]}"
    if found["exit"] != 0:
        return f"exit code {found['exit']} at the end"
    return None


def parse(arguments):
    parser = argparse.ArgumentParser(description="No 250 is ever taken back.")
    parser.add_argument("--gateway", type=int, default=20, help="kills of the gateway")
    parser.add_argument("--redis", type=int, default=20, help="kills of its Redis")
    parser.add_argument("--both", type=int, default=10, help="kills of both")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--size", type=int, default=2000, help="octets of a message")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--build", default=os.environ.get("KILAT_BUILD", "build"))
    return parser.parse_args(arguments)


def main():
    options = parse(None)
    print(f"seed {options.seed}", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kilat-kill."))
    found = run(options, folder, lambda line: print(line, flush=True))
    wrong = verdict(found, options.gateway + options.redis + options.both)
    print(f"{found['kills']} kills, {found['acknowledged']} acknowledged, lost = "
          f"{len(found['lost'])}, duplicates = {found['duplicates']} "
          f"({found['duplicates'] - len(found['unexplained'])} in flight at a kill: "
          f"{found['by_kill']}, delivered at most {found['oldest_ms']} ms before it), "
          f"of {found['unknown']} without a reply {found['unknown_arrived']} arrived, "
          f"other replies {found['refused']}")
    if wrong:
        print(f"FAILED: {wrong}\nkept: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
