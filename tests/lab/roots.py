# SPDX-License-Identifier: Apache-2.0
"""
roots - a Debian for each mail server: this machine's, seen through an overlay in which the server
is installed as its package does it. Debian's mail servers exclude each other; here each has the
machine for itself, and the machine gets nothing.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEBS = ROOT / "build/lab-debs"      # kept, so that a second run downloads nothing
STOP_S = 3
APT = ["apt-get", "-q", "-y", "-o", "APT::Sandbox::User=root", "-o", "Dir::Cache::archives=/debs",
       "-o", "Dpkg::Options::=--force-unsafe-io", "--no-install-recommends"]


class Root:
    def __init__(self, folder, name, packages):
        self.folder, self.name, self.packages = pathlib.Path(folder) / name, name, packages
        self.path = self.folder / "root"
        self.processes = []

    def mount(self):
        upper, work = self.folder / "upper", self.folder / "work"
        debs = DEBS / self.name         # apt-get locks it
        for path in (upper, work, self.path, debs / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        _mount("-t", "overlay", "lab", "-o", f"lowerdir=/,upperdir={upper},workdir={work}",
               self.path)
        for name in ("dev", "proc", "tmp"):
            (self.path / name).mkdir(exist_ok=True)
        _mount("--rbind", "/dev", self.path / "dev")
        _mount("-t", "proc", "proc", self.path / "proc")
        _mount("-t", "tmpfs", "lab", self.path / "tmp")
        (self.path / "debs").mkdir()
        _mount("--bind", debs, self.path / "debs")

    def install(self):
        """Needs the machine's network."""
        self.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)  # starts nothing
        done = self.run(*APT, "install", *self.packages)
        if done.returncode != 0:
            self.run(*APT, "update")
            done = self.run(*APT, "install", *self.packages)
        assert done.returncode == 0, f"{self.name}: {done.stdout}"

    def write(self, path, text, mode=0o644):
        where = self.path / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)
        where.write_text(text)
        where.chmod(mode)

    def command(self, *words):
        return ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", "chroot", str(self.path), *map(str, words)]

    def run(self, *words):
        return subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start(self, *words):
        """A program that stays in the foreground; what it says goes to `out`."""
        with open(self.folder / "out", "ab") as out:
            self.processes.append(subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        return self.processes[-1]

    def said(self):
        return (self.folder / "out").read_text(errors="replace")

    def version(self):
        done = self.run("dpkg-query", "-W", "-f", "${Version}", self.packages[0])
        return done.stdout.strip()

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)
