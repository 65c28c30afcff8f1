# SPDX-License-Identifier: Apache-2.0
"""postfix_tools - Postfix's own client and sink, smtp-source and smtp-sink, as they come."""
import os
import pathlib
import re
import shutil
import subprocess

from lib.net import end_with_us, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program(name):
    path = ROOT / "build" / "tools" / "bin" / name
    found = str(path) if path.exists() else shutil.which(name)
    assert found, f"{name} is missing; ./test unpacks it"
    return found


def smtp_source(port, *options, timeout=120):
    done = subprocess.run([program("smtp-source"), *map(str, options), f"127.0.0.1:{port}"],
                          capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class SmtpSink:
    """smtp-sink -d: each message in a file of its own."""

    def __init__(self, folder, *options):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.port = free_port()

    def __enter__(self):
        user = ["-u", "root"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [program("smtp-sink"), *user, "-d", "m.", *self.options, f"127.0.0.1:{self.port}",
             "1000"], cwd=self.folder, start_new_session=True, preexec_fn=end_with_us)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def files(self):
        return sorted(self.folder.glob("m.*"))

    def wait(self, count, timeout=60):
        """The content of the messages, in CRLF lines, once there are that many whole ones."""
        wait_until(lambda: len(self.contents()) >= count, timeout, f"{count} messages at smtp-sink")
        return self.contents()

    def contents(self):
        return [c for c in map(self.content, self.files()) if c is not None]

    @staticmethod
    def content(path):
        """What the client sent: without the fields that smtp-sink writes before it."""
        octets = path.read_bytes()
        found = re.match(rb"(?:X-[A-Za-z-]+: [^\n]*\n)+Received: [^\n]*\n(?:[ \t][^\n]*\n)*",
                         octets)
        if not found:
            return None
        return octets[found.end():].replace(b"\n", b"\r\n")
