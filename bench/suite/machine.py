# SPDX-License-Identifier: Apache-2.0
"""
machine - what the kernel counts: CPU time of a group of processes, of everybody, flushes and octets
of the disk.
"""
import os
import pathlib
import re
import subprocess
import time

SERVER_CORE, CLIENT_CORE = "0", "1"


class Cgroup:
    """CPU seconds of all processes started inside, ended ones and their children too."""

    def __init__(self, name):
        for root, file in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
                           ("/sys/fs/cgroup", "cpu.stat")):
            self.path = pathlib.Path(root) / f"kilat-bench-{name}-{time.time_ns()}"
            try:
                self.path.mkdir()
                self.file = self.path / file
                self.file.read_text()
                return
            except OSError:
                continue
        raise SystemExit("compare needs cgroups that it may make: run it as root")

    def seconds(self):
        text = self.file.read_text()
        found = re.search(r"usage_usec (\d+)", text)
        return int(found[1]) / 1e6 if found else int(text) / 1e9

    def pids(self):
        return list(map(int, (self.path / "cgroup.procs").read_text().split()))

    def memory(self):
        """Proportional resident octets of its processes."""
        total = 0
        for pid in self.pids():
            try:
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) * 1024
            except (OSError, TypeError):
                continue
        return total

    def run_inside(self, start):
        """Calls it while this process is inside: what it starts is born there."""
        home = self._home()
        (self.path / "cgroup.procs").write_text(str(os.getpid()))
        try:
            return start()
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))

    def _home(self):
        controllers = self.path.parent.name
        for line in pathlib.Path("/proc/self/cgroup").read_text().split("\n"):
            if line:
                _, names, path = line.split(":", 2)
                if controllers in names.split(",") or (not names and controllers == "cgroup"):
                    return self.path.parent / path.lstrip("/")
        return self.path.parent

    def remove(self):
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def all_busy():
    """CPU seconds that the machine's cores were not idle, together."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system


class Disk:
    """Flushes and octets written of the device that a folder is on, whoever caused them."""

    def __init__(self, folder):
        device = os.stat(folder).st_dev
        self.path = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        if not (self.path / "stat").exists():
            self.path = None

    def counts(self):
        if not self.path:
            return 0, 0
        fields = list(map(int, (self.path / "stat").read_text().split()))
        return (fields[15] if len(fields) > 15 else 0), fields[6] * 512


def on_core(core, *command):
    return ["taskset", "-c", core, *map(str, command)]


def describe():
    """The machine, for the documents."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    system = re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text())
    kernel = os.uname().release
    filesystem = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", "."], capture_output=True,
                                text=True, check=False).stdout.strip()
    return {"cpu": cpu[1] if cpu else os.uname().machine, "cores": os.cpu_count(),
            "memory_gib": round(int(memory[1]) / 1048576) if memory else 0,
            "system": system[1] if system else "", "kernel": kernel, "filesystem": filesystem}
