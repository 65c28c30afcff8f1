# SPDX-License-Identifier: Apache-2.0
"""
measure - one system, one scenario, once.

The server's processes have one core, kilat-source and kilat-sink the other. The queue is fresh, a
warm-up comes first. CPU is that of all processes of the server. What anybody else used meanwhile is
told, and a measurement that was disturbed by more than OTHER_MAX of a core is made again.
"""
import json
import signal
import subprocess
import time
import tomllib

from lib.net import free_port, wait_until

from . import machine

OTHER_MAX = 0.25
WARM_UP_S = 1
DRAIN_S = 240
MOST = 0.9      # the rate of a delivery is that of the first nine tenths: some rest before the end


class Scenario:
    def __init__(self, path):
        text = tomllib.loads(path.read_text())
        self.name, self.title, self.kind = path.stem, text["title"], text["kind"]
        self.source, self.sink = text["source"], text.get("sink", [])
        self.measure, self.only = text.get("measure", "rate"), text.get("only")
        self.idle = text.get("idle", 0)

    def takes(self, peer):
        return not self.only or peer in self.only


class Sink:
    def __init__(self, tools, folder, options, core=machine.CLIENT_CORE):
        self.path, self.port = folder / "sink.json", free_port()
        self.process = subprocess.Popen(
            machine.on_core(core, tools / "kilat-sink", "--quiet", "--chunking",
                            "--json", self.path, *options, f"127.0.0.1:{self.port}"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert "listening" in self.process.stderr.readline()

    def messages(self):
        """So far: it writes its count when it is asked to."""
        self.process.send_signal(signal.SIGUSR1)
        return int(self.process.stderr.readline())

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            self.process.stderr.close()
        return json.loads(self.path.read_text())


def start_source(tools, folder, port, options):
    return subprocess.Popen(
        machine.on_core(machine.CLIENT_CORE, tools / "kilat-source", "--quiet", "--json",
                        folder / "source.json", "--acknowledged", folder / "acknowledged",
                        *options, f"127.0.0.1:{port}"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run_source(tools, folder, port, options, timeout=180):
    source = start_source(tools, folder, port, options)
    _, errors = source.communicate(timeout=timeout)
    found = json.loads((folder / "source.json").read_text())
    assert source.returncode == 0, errors + json.dumps(found)
    return found


class Run:
    def __init__(self, options, peer, scenario, folder):
        self.options, self.peer, self.scenario, self.folder = options, peer, scenario, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sink = Sink(options.tools, folder, scenario.sink)
        self.group = machine.Cgroup(peer.name.lower())
        self.disk = machine.Disk(folder)
        self.system = None

    def __enter__(self):
        self.system = self.group.run_inside(self._start)
        return self

    def _start(self):
        system = self.peer(self.folder / "system", self.scenario.kind, self.sink.port,
                           self.options.build)
        system.start()
        return system

    def __exit__(self, *_):
        if self.system:
            self.system.stop()
        self.sink.stop()
        self.group.remove()

    def push(self, *more):
        return run_source(self.options.tools, self.folder, self.system.port,
                          [*self.scenario.source, *more])

    def wait_delivered(self, count):
        wait_until(lambda: self.sink.messages() >= count, DRAIN_S,
                   lambda: f"{self.sink.messages()} of {count} at the sink", 0.05)

    def rate(self):
        """Messages a second, CPU, flushes and octets of the disk."""
        warm = self._warm_up()
        time.sleep(0.3)
        own, busy, mine = self.group.seconds(), machine.all_busy(), machine.children_seconds()
        sink = self._sink_seconds()
        flushes, octets = self.disk.counts()
        began = time.monotonic()
        found = self.push("--time", self.options.seconds, *self._most())
        count = found["accepted"]
        elapsed = found["seconds"]
        if self.scenario.kind == "relay":
            self.wait_delivered(warm + MOST * count)
            elapsed = (time.monotonic() - began) / MOST
            self.wait_delivered(warm + count)
        whole = time.monotonic() - began
        own = self.group.seconds() - own
        clients = machine.children_seconds() - mine + self._sink_seconds() - sink
        after = self.disk.counts()
        return {"rate": count / elapsed, "cpu_per_1000": own / count * 1000,
                "busy": own / whole,
                "other": max(0.0, (machine.all_busy() - busy - own - clients) / whole),
                "flushes": (after[0] - flushes) / count, "written": (after[1] - octets) / count,
                "messages": count, "seconds": whole, "source": found}

    def _warm_up(self):
        is_relay = self.scenario.kind == "relay"
        if is_relay and not getattr(self.peer, "relay_warm_up", True):
            return 0
        count = self.push("--time", WARM_UP_S, *self._most())["accepted"]
        if is_relay:
            self.wait_delivered(count)
        return count

    def _most(self):
        """Of one that delivers far more slowly than it accepts no more is asked."""
        most = getattr(self.peer, "relay_most", None)
        return ["--messages", most] if most and self.scenario.kind == "relay" else []

    def _sink_seconds(self):
        fields = open(f"/proc/{self.sink.process.pid}/stat", encoding="ascii").read() \
            .rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / 100

    def latency(self):
        self.push("--messages", 200)
        time.sleep(0.3)
        busy = machine.all_busy()
        own, mine = self.group.seconds(), machine.children_seconds()
        began = time.monotonic()
        found = self.push("--time", self.options.seconds)
        elapsed = time.monotonic() - began
        own = self.group.seconds() - own
        clients = machine.children_seconds() - mine
        return {"rate": found["messages_per_second"], "times": found["end_of_data_to_250"],
                "other": max(0.0, (machine.all_busy() - busy - own - clients) / elapsed),
                "seconds": elapsed, "source": found}

    def memory(self):
        """Proportional resident octets that each idle session adds."""
        self.push("--messages", 1, "--idle", 0)
        before = self.group.memory()
        source = start_source(self.options.tools, self.folder, self.system.port,
                              [*self.scenario.source, "--time", 6])
        time.sleep(5)
        after = self.group.memory()
        source.communicate(timeout=60)
        held = json.loads((self.folder / "source.json").read_text())
        return {"octets": (after - before) / self.scenario.idle, "other": 0.0,
                "connections": held["connections"], "source": held}


def once(options, peer, scenario, folders):
    """A measurement that nothing disturbed, of three at most; else the last, marked."""
    for _ in range(3):
        with Run(options, peer, scenario, next(folders)) as run:
            found = getattr(run, scenario.measure)()
        found["disturbed"] = found["other"] > OTHER_MAX
        if not found["disturbed"]:
            break
    return found
