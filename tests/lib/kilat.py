# SPDX-License-Identifier: Apache-2.0
"""
kilat - runs the gateway for a test and tells what it says.

    with Kilat(folder, route={"*": smarthost(mx.port)}) as k:
        ...k.port...  k.wait_event("relay.done", id=...)  k.metrics()["messages_accepted_total"]

The build folder is build-test, or $KILAT_BUILD. Leaving the `with` sends SIGTERM and demands an
exit of 0 within the drain time and nothing from a sanitizer; a test that kills the gateway calls
kill().
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

from lib.net import end_with_us, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY_S = 30        # start to serve.ready, sanitized build, loaded machine
EXIT_S = 40         # SIGTERM to exit; above limits.drain_timeout


def build_dir():
    return ROOT / os.environ.get("KILAT_BUILD", "build-test")


def binary():
    return build_dir() / "kilat"


def is_sanitized():
    """Memory and speed of such a build say nothing."""
    octets = binary().read_bytes()
    return b"__asan_init" in octets or b"__tsan_init" in octets


# -- configuration -----------------------------------------------------------------------------

def smarthost(port, host="127.0.0.1"):
    return {"relay": "smarthost", "host": host, "port": port, "tls": "off"}


HOLD = {"relay": "hold"}
# Sections that stand once under each name.
LABELLED = ("listener", "route", "source", "tenant", "dkim")


def secure(ca, mode="required", folder=None, **changes):
    """Settings of a gateway with a certificate of ca for kilat.test: a "submission" listener with
    STARTTLS, a "submissions" one with TLS from the start, users in a file beside the CA."""
    cert, key = ca.issue("kilat.test")
    users = (folder or ca.folder) / "users"
    users.touch(mode=0o600)
    settings = {
        "listener": {
            "submission": {"bind": ["127.0.0.1:0"], "tls": "starttls", "auth": mode,
                           **({"networks": ["127.0.0.0/8"]} if mode != "required" else {})},
            "submissions": {"bind": ["127.0.0.1:0"], "tls": "implicit", "auth": mode,
                            **({"networks": ["127.0.0.0/8"]} if mode != "required" else {})},
        },
        "tls": {"certificate": str(cert), "private_key": str(key)},
        "auth": {"users_file": str(users), "failure_delay": "10ms"},
        "tenant": {"acme": {"senders": ["@sender.test"]}},
    }
    return merged(settings, changes)


def _value(v):
    if isinstance(v, bool):
        return "yes" if v else "no"
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(_value(x) for x in v) + "]"
    if isinstance(v, str) and not re.fullmatch(r"\d+(ms|s|min|h|d|k|m|g)?", v):
        return '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(v)


def config_text(settings):
    """{"hostname": "a", "limits": {...}, "route": {"*": {...}}} in the form of the README."""
    out = []
    for key, value in settings.items():
        if key in LABELLED:
            for label, section in value.items():
                out.append(f'{key} "{label}" {{')
                out += [f"    {k} = {_value(v)};" for k, v in section.items()]
                out.append("}")
        elif isinstance(value, dict):
            out.append(f"{key} {{")
            out += [f"    {k} = {_value(v)};" for k, v in value.items()]
            out.append("}")
        else:
            out.append(f"{key} = {_value(value)};")
    return "\n".join(out) + "\n"


def merged(base, changes):
    """base with changes; sections are merged key by key, listeners and routes are replaced."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and key not in LABELLED:
            result[key] = {**base.get(key, {}), **value}
        else:
            result[key] = value
    return result


DEFAULTS = {
    "hostname": "kilat.test",
    "workers": 2,
    "redis": {"mode": "embedded"},
    "listener": {"trusted": {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off",
                             "networks": ["127.0.0.0/8"]}},
    "route": {"*": HOLD},
    "admin": {"bind": "127.0.0.1:0"},
    "queue": {"lease": "2s"},
    "retry": {"schedule": ["1s"], "jitter": 0},
    "limits": {"drain_timeout": "10s"},
    "log": {"format": "json"},
}


# -- the process -------------------------------------------------------------------------------

class Kilat:
    def __init__(self, folder, build=None, wrap=(), env=None, **changes):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.data.mkdir(exist_ok=True)
        self.settings = merged(dict(DEFAULTS, data_dir=str(self.data)), changes)
        self.config = self.folder / "kilat.conf"
        self.config.write_text(config_text(self.settings))
        self.program = (ROOT / build if build else build_dir()) / "kilat"
        self.wrap = list(wrap)          # a command before ours, such as taskset
        self.env = dict(os.environ, **(env or {}))
        self.env.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=99")
        self.env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        self.env.setdefault("TSAN_OPTIONS", "exitcode=66")
        self.process = None
        self.runs = 0
        self.ports = {}                 # listener name -> port of its first bind
        self.admin_port = None

    def reconfigure(self, **changes):
        """For the next start."""
        self.settings = merged(self.settings, changes)
        self.config.write_text(config_text(self.settings))

    # -- life ---------------------------------------------------------------------------------

    def launch(self):
        """Starts the process and does not wait."""
        self.runs += 1
        self.log_path = self.folder / f"log.{self.runs}"
        self.err_path = self.folder / f"err.{self.runs}"
        self._events, self._offset, self._partial = [], 0, b""
        with open(self.log_path, "wb") as out, open(self.err_path, "wb") as err:
            self.process = subprocess.Popen(
                self.wrap + [str(self.program), "serve", "-c", str(self.config)], stdout=out,
                stderr=err, stdin=subprocess.DEVNULL, env=self.env, start_new_session=True,
                preexec_fn=end_with_us)
        return self

    def start(self, timeout=READY_S):
        self.launch()
        wait_until(self._is_ready, timeout, lambda: "serve.ready\n" + self.tail())
        self.ports = {}
        for event in self.events("listen.open"):
            self.ports.setdefault(event["name"], int(event["addr"].rsplit(":", 1)[1]))
        opened = self.events("admin.open")
        self.admin_port = int(opened[0]["addr"].rsplit(":", 1)[1]) if opened else None
        return self

    def _is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"kilat ended with {self.process.returncode} at its start\n"
                                 + self.tail())
        return self.events("serve.ready")

    def stop(self, timeout=EXIT_S):
        """SIGTERM, waits; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no exit within {timeout} s of SIGTERM\n" + self.tail()) from None
        return code

    def kill(self):
        """SIGKILL to the gateway; an embedded Redis is told by the kernel."""
        self.process.kill()
        self.process.wait()

    def check(self):
        """The verdict of sanitizers and must() on all runs."""
        for run in range(1, self.runs + 1):
            text = (self.folder / f"err.{run}").read_text(errors="replace")
            for sign in ("Sanitizer", "runtime error:", "broken promise"):
                assert sign not in text, text[:8000]

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process is None:
            return
        try:
            was_running = self.process.poll() is None
            code = self.stop()
            self.check()
            if kind is None and was_running:
                assert code == 0, f"exit code {code}\n" + self.tail()
        finally:
            if self.process.poll() is None:
                self.kill()
            if kind not in (None, KeyboardInterrupt):
                print(f"--- {self.log_path}\n{self.tail()}")

    def tail(self, lines=40):
        parts = []
        for path in (self.log_path, self.err_path):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join(text))
        return "\n".join(parts)

    # -- what it says -------------------------------------------------------------------------

    @property
    def port(self):
        return next(iter(self.ports.values()))

    def log(self):
        """All events so far, as dictionaries with at least "level" and "event"."""
        with open(self.log_path, "rb") as f:
            f.seek(self._offset)
            new = f.read()
        self._offset += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        self._events += [event for line in lines if (event := parse_line(line.decode()))]
        return self._events

    def events(self, name, **match):
        return [e for e in self.log() if e["event"] == name and
                all(str(e.get(k)) == str(v) for k, v in match.items())]

    def wait_event(self, name, timeout=20.0, count=1, **match):
        """The count-th event of that name whose keys match."""
        wait_until(lambda: len(self.events(name, **match)) >= count, timeout,
                   lambda: f"{count} of {name} {match}\n{self.tail()}", 0.05)
        return self.events(name, **match)[count - 1]

    # -- the admin port -----------------------------------------------------------------------

    def get(self, path, timeout=10):
        """(status, body) of a GET at the admin port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}",
                                        timeout=timeout) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name without kilat_: sum over all label sets}"""
        status, text = self.get("/metrics")
        assert status == 200, text
        sums = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0].removeprefix("kilat_")
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def wait_metric(self, name, value, timeout=20.0):
        return wait_until(lambda: self.metrics()[name] >= value, timeout,
                          lambda: f"{name} >= {value}, now {self.metrics().get(name)}", 0.05)

    # -- the command line ---------------------------------------------------------------------

    def queue(self, *args, check=True, timeout=30):
        """Standard output of `kilat queue -c FILE ARGS`."""
        done = self.command("queue", *args, timeout=timeout)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def command(self, name, *args, timeout=30):
        return subprocess.run([str(self.program), name, "-c", str(self.config), *map(str, args)],
                              capture_output=True, text=True, timeout=timeout, env=self.env)

    def add_user(self, name, password, *args):
        """By `kilat user add`; the running gateway learns of it by itself."""
        done = subprocess.run([str(self.program), "user", "-c", str(self.config), "add", name,
                               *map(str, args)], input=password + "\n", capture_output=True,
                              text=True, timeout=30, env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr

    # -- the process from outside -------------------------------------------------------------

    def rss(self):
        """Resident octets of the gateway, without its Redis."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def redis_pid(self):
        """The embedded Redis; None while there is none."""
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            for pid in children:
                try:
                    if b"redis" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
                except OSError:
                    pass
        return None

    def redis_socket(self):
        return self.data / "redis" / "r.sock"

    def redis(self, *words):
        """What the embedded Redis says, as lines."""
        command = ["redis-cli", "-s", str(self.redis_socket()), *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []


def parse_line(line):
    """A log line, plain or JSON, as a dictionary; None when it is neither."""
    line = line.strip()
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except ValueError:
            return None
        return event if "event" in event else None
    found = re.match(r"(\S+) (debug|info|warn|error) ([a-z0-9_.]+)((?: .*)?)$", line)
    if not found:
        return None
    event = {"ts": found[1], "level": found[2], "event": found[3]}
    for key, quoted, bare in re.findall(r' ([a-z0-9_]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', found[4]):
        event[key] = quoted or bare
    return event


def delivery_id(event_or_id):
    """The queue id in a delivery id ("ID" or "ID/k")."""
    text = event_or_id if isinstance(event_or_id, str) else event_or_id["id"]
    return text.split("/")[0]


def send(port, content, sender="from@sender.test", rcpts=("to@rcpt.test",), timeout=30):
    """Submits by smtplib; returns the text of the final 250."""
    import smtplib
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=timeout) as s:
        s.ehlo_or_helo_if_needed()
        code, text = s.mail(sender)
        assert code == 250, (code, text)
        for rcpt in rcpts:
            code, text = s.rcpt(rcpt)
            assert code == 250, (code, text)
        code, text = s.data(content)
        assert code == 250, (code, text)
        return text.decode()


def message(size=1024, subject="test", fill=b"x", **headers):
    """A message of exactly size octets with the three fields that Kilat would add otherwise."""
    fields = {"From": "from@sender.test", "To": "to@rcpt.test", "Subject": subject,
              "Date": "Mon, 23 Nov 2026 00:00:00 +0000",
              "Message-ID": f"<{time.monotonic_ns()}@sender.test>", **headers}
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n"
    line = fill * (70 // len(fill)) + b"\r\n"
    left = size - len(head)
    assert left >= 2, "the header alone is larger"
    body = line * (left // len(line))
    rest = left - len(body)
    if rest == 1:
        body = body[:-2] + fill[:1] + b"\r\n"
    elif rest:
        body += fill[:1] * (rest - 2) + b"\r\n"
    assert len(head + body) == size
    return head + body
