# SPDX-License-Identifier: Apache-2.0
"""redis_server - an external Redis for tests, on a Unix socket, with an append-only file."""
import pathlib
import signal
import socket
import subprocess

from lib.net import end_with_us, wait_until


class Redis:
    """Settings as keyword arguments, underscores for dashes: Redis(folder, appendonly="no")."""

    def __init__(self, folder, **settings):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket = self.folder / "s"
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "",
                         "maxmemory_policy": "noeviction", **settings}
        self.process = None
        self.first = [("AUTH", settings["requirepass"])] if "requirepass" in settings else []

    @property
    def url(self):
        return f"unix://{self.socket}"

    def start(self, timeout=20):
        command = ["redis-server", "--unixsocket", str(self.socket), "--dir", str(self.folder),
                   "--logfile", str(self.folder / "redis.log")]
        for key, value in {"port": "0", **self.settings}.items():
            command += ["--" + key.replace("_", "-"), value]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, start_new_session=True,
                                        preexec_fn=end_with_us)
        try:
            wait_until(self._answers, timeout, "redis to answer")
        except AssertionError:
            self.stop()
            raise
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "redis.log").read_text()
        try:
            return self.call("PING") == "PONG"
        except (OSError, RuntimeError):
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def call(self, *words):
        return call(self.socket, *words, first=self.first)


def call(path, *words, first=()):
    """One command, after those in `first`; strings, numbers, lists and None come back, errors are
    RuntimeError."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        f = s.makefile("rb")
        for command in [*first, words]:
            parts = [w if isinstance(w, bytes) else str(w).encode() for w in command]
            s.sendall(b"*%d\r\n" % len(parts) +
                      b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            answer = _read(f)
        return answer


def _read(f):
    line = f.readline()
    if not line.endswith(b"\r\n"):
        raise RuntimeError("the connection ended")
    kind, rest = line[:1], line[1:-2].decode("utf-8", "replace")
    if kind == b"-":
        raise RuntimeError(rest)
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return None if rest == "-1" else [_read(f) for _ in range(int(rest))]
    if rest == "-1":
        return None
    return f.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
