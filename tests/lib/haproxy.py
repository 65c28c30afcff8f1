# SPDX-License-Identifier: Apache-2.0
"""haproxy - a load balancer in front of gateways, with the configuration of docs/load-balancer.md
on free ports."""
import pathlib
import re
import subprocess

from lib.net import end_with_us, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program():
    """Unpacked by ./test, or installed."""
    unpacked = ROOT / "build/tools/bin/haproxy"
    return str(unpacked) if unpacked.exists() else "haproxy"


def documented_config():
    """The block of docs/load-balancer.md."""
    text = (ROOT / "docs/load-balancer.md").read_text()
    return re.search(r"```haproxy\n(.*?)```", text, re.S)[1]


class HaProxy:
    """gateways: [(submission port, submissions port, admin port)] of 127.0.0.1. version: of the
    PROXY header."""

    def __init__(self, folder, gateways, version=2):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port = free_port(), free_port()
        text = documented_config()
        text = text.replace(":587\n", f":{self.port}\n").replace(":465\n", f":{self.tls_port}\n")
        text = re.sub(r"bind \S+?(:\d+)", r"bind 127.0.0.1\1", text)
        for number, (submission, submissions, admin) in enumerate(gateways, 1):
            for service, port in (("587", submission), ("465", submissions)):
                here = rf"server k{number} 10\.0\.0\.1{number}:{service}\b(.*)check port 2580"
                text = re.sub(here, rf"server k{number} 127.0.0.1:{port}\1check port {admin}", text)
        if version == 1:
            text = text.replace("send-proxy-v2", "send-proxy")
        assert "10.0.0." not in text, text
        self.config = self.folder / "haproxy.cfg"
        self.config.write_text(text)
        self.process = None

    def __enter__(self):
        self.log = open(self.folder / "haproxy.log", "wb")
        self.process = subprocess.Popen([program(), "-db", "-f", str(self.config)], stdout=self.log,
                                        stderr=self.log, start_new_session=True,
                                        preexec_fn=end_with_us)
        wait_until(self._answers, 15, lambda: (self.folder / "haproxy.log").read_text())
        return self

    def _answers(self):
        from lib.net import RawSmtp
        assert self.process.poll() is None, (self.folder / "haproxy.log").read_text()
        try:
            with RawSmtp(self.port, timeout=2) as c:
                return c.reply().code == 220
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
