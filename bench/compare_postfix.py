#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
compare_postfix - Kilat and Postfix side by side: the same client (smtp-source), the same sink
(smtp-sink), the same disk, one core for the server's processes and the other for client and sink.

    ./test tidy; bench/compare_postfix.py [--repeat 3] [--json FILE] [--syscalls]

`./test` must have built build/kilat and unpacked Postfix into build/tools; nothing is installed
(strace, for --syscalls, you install yourself). Postfix needs the users its package would make; as
root this script makes the two system accounts when they are missing, and says so.

What is compared
    accept     mail is taken and kept: Kilat by a route "hold", Postfix by its HOLD action, which
               spares its queue manager any work. Both answer 250 after an fsync.
    relay      mail is taken and delivered to smtp-sink; the clock stops when the last one is there.
    kept       100 messages on each client connection;  one: a connection for each message.
Each measurement has a fresh queue and a warm-up; systems alternate; the table shows medians.
    messages/s          of the whole run
    CPU s per 1,000     user and system time of all server processes, ended ones included
    busy                of the server's core; well below 100 %: the client or the sink was the limit
    other               CPU use by anybody else, in cores: kernel threads, your editor. If it is
                        above OTHER_MAX, measured again, twice at most. What stays disturbed is
                        left out of the median, or marked when nothing else is left.
Postfix is tuned as its TUNING_README says: no rate or count limits, no in-flow delay, no lookups,
many warm processes. It logs to nobody (there is no syslogd); Kilat writes its usual log file.

To add a system: a class with start, stop, delivered, and a row in SYSTEMS.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]
from lib.dkim_keys import make_key  # noqa: E402
from lib.kilat import HOLD, Kilat, smarthost  # noqa: E402
from lib.net import RawSmtp, free_port, wait_until  # noqa: E402
from lib.postfix_tools import program  # noqa: E402
from suite import peers  # noqa: E402

SESSIONS = 100
ROUND = 10_000              # messages of one smtp-source: 100 on each kept connection
WARM_UP = 2_000
OTHER_MAX = 0.25
SCENARIOS = [("accept", "kept"), ("accept", "one"), ("relay", "kept"), ("relay", "one")]


# -- CPU time ----------------------------------------------------------------------------------

class Cgroup:
    """All processes started inside, ended ones too; None-like when cgroups cannot be used."""

    def __init__(self, name):
        self.path = self.file = None
        self.more = []      # of other hierarchies
        for root, file in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
                           ("/sys/fs/cgroup", "cpu.stat")):
            path = pathlib.Path(root) / f"kilat-bench-{name}-{os.getpid()}"
            try:
                path.mkdir()
                (path / file).read_text()
                self.path, self.file = path, path / file
                return
            except OSError:
                continue

    def __bool__(self):
        return self.path is not None

    def enter(self):
        for path in [self.path, *self.more]:
            (path / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self):
        text = self.file.read_text()
        found = re.search(r"usage_usec (\d+)", text)
        return int(found[1]) / 1e6 if found else int(text) / 1e9

    def limit(self, share):
        """All its processes together get this share of one core. Returns whether it can be done."""
        period = 10_000
        quota = int(period * share)
        v1 = pathlib.Path("/sys/fs/cgroup/cpu") / self.path.name
        try:
            if self.file.name == "cpu.stat":
                (self.path / "cpu.max").write_text(f"{quota} {period}")
                return True
            if v1 != self.path:
                v1.mkdir(exist_ok=True)
                self.more.append(v1)
            (v1 / "cpu.cfs_period_us").write_text(str(period))
            (v1 / "cpu.cfs_quota_us").write_text(str(quota))
            return True
        except OSError:
            return False

    def remove(self):
        for path in self.more:
            self._remove(path)
        self._remove(self.path)

    @staticmethod
    def _remove(path):
        for _ in range(100):
            try:
                path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def tree_seconds(pid):
    """The same from /proc: each process of the tree, and the ended ones its parent waited for."""
    ticks, total, todo = os.sysconf("SC_CLK_TCK"), 0, [pid]
    while todo:
        at = todo.pop()
        try:
            fields = pathlib.Path(f"/proc/{at}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))
            for task in pathlib.Path(f"/proc/{at}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total / ticks


def machine_busy():
    """CPU seconds that all cores together were not idle."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


# -- the systems -------------------------------------------------------------------------------

class KilatSystem:
    name = "Kilat"
    rounds = 5

    def __init__(self, folder, scenario, sink_port):
        route = HOLD if scenario == "accept" else smarthost(sink_port)
        more = {"dkim": {"sender.test": self.make_key(folder)}} if OPTIONS.dkim else {}
        self.kilat = Kilat(folder, build=OPTIONS.build, workers=1, route={"*": route},
                           wrap=["taskset", "-c", "0"], queue={"lease": "5s"},
                           limits={"content_memory_max": "256m"},
                           relay={"per_destination_max": 50, "connections_max": 200},
                           log={"format": "plain"}, **more)

    @staticmethod
    def make_key(folder):
        make_key(pathlib.Path(folder) / "dkim.pem")
        return {"selector": ["s"], "private_key": [str(pathlib.Path(folder) / "dkim.pem")]}

    def start(self):
        self.kilat.start()
        self.port, self.pid = self.kilat.port, self.kilat.process.pid

    def delivered(self):
        return int(self.kilat.metrics()["recipients_delivered_total"])

    def stop(self):
        self.kilat.stop()


class PostfixSystem(peers.Postfix):
    rounds = 1

    def __init__(self, folder, scenario, sink_port):
        super().__init__(folder, scenario, sink_port, OPTIONS.build)

    def start(self):
        super().start()
        self.pid = self.process.pid

    def delivered(self):
        """What was taken and is in no queue any more."""
        left = sum(len(files) for name in ("incoming", "active", "deferred")
                   for _, _, files in os.walk(self.folder / "queue" / name))
        return self.taken - left

    taken = 0       # set by the measurement


SYSTEMS = [KilatSystem, PostfixSystem]


# -- one measurement ---------------------------------------------------------------------------

def on_client_core(command, **more):
    return subprocess.Popen(["taskset", "-c", "1", *map(str, command)], stdout=subprocess.DEVNULL,
                            **more)


def push(port, count, connections):
    """smtp-source; returns when every message has its 250."""
    keep = ["-d"] if connections == "kept" else []
    client = on_client_core([program("smtp-source"), "-s", SESSIONS, "-m", count, "-l",
                             OPTIONS.size, "-f", "from@sender.test", "-t", "to@rcpt.test", *keep,
                             f"127.0.0.1:{port}"], stderr=subprocess.PIPE)
    _, errors = client.communicate(timeout=600)
    assert client.returncode == 0, errors.decode()


def children_seconds():
    times = os.times()
    return times.children_user + times.children_system


def start_sink():
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    sink = on_client_core([program("smtp-sink"), *user, f"127.0.0.1:{port}", "4096"],
                          start_new_session=True)
    wait_until(lambda: _listens(port), 10, "smtp-sink")
    return sink, port


def _listens(port):
    try:
        with RawSmtp(port):
            return True
    except OSError:
        return False


def measure(system_class, scenario, connections, folder):
    sink, sink_port = start_sink()
    group = Cgroup(system_class.name.lower())
    system = system_class(folder, scenario, sink_port)
    try:
        if group:
            start_inside(group, system)
        else:
            system.start()

        def seconds():
            return group.seconds() if group else tree_seconds(system.pid)
        system.taken = WARM_UP
        push(system.port, WARM_UP, connections)
        if scenario == "relay":
            wait_until(lambda: system.delivered() >= WARM_UP, 120, "the warm-up")
        time.sleep(0.5)
        count = ROUND * (OPTIONS.rounds or system_class.rounds)
        system.taken += count
        own, busy, client = seconds(), machine_busy(), children_seconds() + os.times().user
        sinks = tree_seconds(sink.pid)
        began = time.monotonic()
        for _ in range(count // ROUND):
            push(system.port, ROUND, connections)
        if scenario == "relay":
            wait_until(lambda: system.delivered() >= system.taken, 300,
                       lambda: f"{system.delivered()} of {system.taken}", 0.02)
        elapsed = time.monotonic() - began
        own = seconds() - own
        others = machine_busy() - busy - own - (tree_seconds(sink.pid) - sinks) - \
            (children_seconds() + os.times().user - client)
        return {"rate": count / elapsed, "cpu": own / count * 1000, "busy": own / elapsed,
                "other": max(0.0, others / elapsed), "messages": count, "seconds": elapsed,
                "accounting": "cgroup" if group else "/proc"}
    finally:
        system.stop()
        sink.kill()
        sink.wait()
        if group:
            group.remove()


def start_inside(group, system):
    """The server's processes are born in the group; we and the client stay outside."""
    home = {}
    for line in pathlib.Path("/proc/self/cgroup").read_text().split("\n"):
        if line:
            _, controllers, path = line.split(":", 2)
            home.update({name: path for name in controllers.split(",")})
    group.enter()
    try:
        system.start()
    finally:
        for path in [group.path, *group.more]:
            was = home.get(path.parent.name, home.get("", "/")).rstrip("/")
            (path.parent / was.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def undisturbed(system_class, scenario, connections, where):
    for attempt in range(3):
        found = measure(system_class, scenario, connections, next(where))
        found["disturbed"] = found["other"] > OTHER_MAX
        if not found["disturbed"]:
            break
    return found


# -- the report --------------------------------------------------------------------------------

def folders(base):
    """A new one each time; old ones stay until the end, because freed inodes are slow to reuse."""
    number = 0
    while True:
        number += 1
        path = base / str(number)
        path.mkdir(parents=True)
        yield path


def table(results):
    rows = ["| scenario | connections | Kilat/s | Postfix/s | ratio | Kilat CPU s per 1,000 | "
            "Postfix CPU s per 1,000 | ratio | busy K/P | other K/P |",
            "|---|---|---|---|---|---|---|---|---|---|"]
    for scenario, connections in SCENARIOS:
        key = f"{scenario} {connections}"
        if key not in results:
            continue
        k, p = (median(results[key][s.name]) for s in SYSTEMS)
        mark = "" if not (k["disturbed"] or p["disturbed"]) else " (disturbed)"
        rows.append(f"| {scenario}{mark} | {connections} | {k['rate']:,.0f} | {p['rate']:,.0f} | "
                    f"{k['rate'] / p['rate']:.1f} | {k['cpu']:.3f} | {p['cpu']:.3f} | "
                    f"{p['cpu'] / k['cpu']:.1f} | {k['busy']:.0%} / {p['busy']:.0%} | "
                    f"{k['other']:.2f} / {p['other']:.2f} |")
    return "\n".join(rows)


def median(found):
    disturbed = all(f["disturbed"] for f in found)
    found = [f for f in found if disturbed or not f["disturbed"]]
    return {"rate": statistics.median(f["rate"] for f in found),
            "cpu": statistics.median(f["cpu"] for f in found),
            "busy": statistics.median(f["busy"] for f in found),
            "other": statistics.median(f["other"] for f in found),
            "disturbed": disturbed}


def syscalls(scenario, folder):
    """System calls of the gateway per message, 100 messages a connection, by strace -c -f."""
    assert shutil.which("strace"), "strace is missing: apt-get install strace"
    sink, sink_port = start_sink()
    system = KilatSystem(folder, scenario, sink_port)
    system.start()
    try:
        push(system.port, WARM_UP, "kept")
        if scenario == "relay":
            wait_until(lambda: system.delivered() >= WARM_UP, 60, "the warm-up")
        path = folder / "strace"
        trace = subprocess.Popen(["strace", "-c", "-f", "-o", str(path), "-p", str(system.pid)],
                                 stderr=subprocess.DEVNULL)
        time.sleep(1)
        push(system.port, ROUND, "kept")
        if scenario == "relay":
            wait_until(lambda: system.delivered() >= WARM_UP + ROUND, 120, "delivery")
        trace.send_signal(2)
        trace.wait(20)
        calls = {}
        for line in path.read_text().split("\n"):
            fields = line.split()
            if len(fields) >= 5 and fields[0][:1].isdigit() and fields[3].isdigit():
                calls[fields[-1]] = int(fields[3])
        calls.pop("total", None)
        return {name: n / ROUND for name, n in sorted(calls.items(), key=lambda c: -c[1])}
    finally:
        system.stop()
        sink.kill()
        sink.wait()


def parse():
    parser = argparse.ArgumentParser(
        description="Kilat and Postfix side by side; see the top of this file.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, help=f"of {ROUND} messages; default by system")
    parser.add_argument("--size", type=int, default=10240, help="octets of a message")
    parser.add_argument("--only", help="scenarios such as \"accept kept,relay one\"")
    parser.add_argument("--build", default="build")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build/bench",
                        help="where queues are, for both; should be the disk you care about")
    parser.add_argument("--dkim", action="store_true",
                        help="Kilat signs with an RSA key of 2048 bits; Postfix signs nothing")
    parser.add_argument("--json", type=pathlib.Path, help="every single measurement")
    parser.add_argument("--syscalls", action="store_true",
                        help="Kilat only: system calls per message")
    return parser.parse_args()


def main():
    base = OPTIONS.dir / time.strftime("%Y%m%d-%H%M%S")
    base.mkdir(parents=True)
    subprocess.run(["chattr", "+T", str(base)], stderr=subprocess.DEVNULL)
    where = folders(base)
    try:
        if OPTIONS.syscalls:
            for scenario in ("accept", "relay"):
                calls = syscalls(scenario, next(where))
                print(f"{scenario}: {sum(calls.values()):.2f} system calls a message: " +
                      ", ".join(f"{k} {v:.3f}" for k, v in list(calls.items())[:8]))
            return 0
        PostfixSystem.prepare()
        wanted = [w.strip() for w in OPTIONS.only.split(",")] if OPTIONS.only else None
        results = {}
        for number in range(OPTIONS.repeat):
            for scenario, connections in SCENARIOS:
                key = f"{scenario} {connections}"
                if wanted and key not in wanted:
                    continue
                for system in (SYSTEMS if number % 2 == 0 else SYSTEMS[::-1]):
                    found = undisturbed(system, scenario, connections, where)
                    results.setdefault(key, {}).setdefault(system.name, []).append(found)
                    print(f"{number + 1}/{OPTIONS.repeat} {key:12} {system.name:8} "
                          f"{found['rate']:9,.0f}/s  {found['cpu']:.3f} CPU s per 1,000  "
                          f"busy {found['busy']:.0%}  other {found['other']:.2f}"
                          f"{'  DISTURBED' if found['disturbed'] else ''}",
                          file=sys.stderr, flush=True)
        print(f"{OPTIONS.size} octets, {SESSIONS} sessions, median of {OPTIONS.repeat}; durability "
              "of both: fsync before 250\n")
        print(table(results))
        if OPTIONS.json:
            OPTIONS.json.write_text(json.dumps(results, indent=1))
        return 0
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    OPTIONS = parse()
    sys.exit(main())
