# SPDX-License-Identifier: Apache-2.0
"""kilat-source and kilat-sink: what they send, take and count; the gateway between them."""
import json
import re
import signal
import subprocess

import pytest

from lib.certs import Authority
from lib.kilat import HOLD, build_dir, secure, smarthost
from lib.net import end_with_us, wait_until


def run_source(folder, port, *options, code=0):
    """Its result; the numbers that were acknowledged are in folder/acknowledged."""
    path = folder / "source.json"
    done = subprocess.run(
        [build_dir() / "bench/kilat-source", "--json", path, "--acknowledged",
         folder / "acknowledged", "--sessions", "10", *map(str, options), f"127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(path.read_text()) if code == 0 else done.stderr


class Sink:
    def __init__(self, folder, *options):
        self.path = folder / "sink.json"
        self.process = subprocess.Popen(
            [build_dir() / "bench/kilat-sink", "--json", self.path, "--chunking",
             *map(str, options), "127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, preexec_fn=end_with_us)
        self.port = int(re.search(r"port (\d+)", self.process.stderr.readline())[1])

    def messages(self):
        self.process.send_signal(signal.SIGUSR1)
        return int(self.process.stderr.readline())

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0, self.process.stderr.read()
        self.process.stderr.close()
        return json.loads(self.path.read_text())


@pytest.fixture
def sink(folder):
    made = []

    def make(*options):
        made.append(Sink(folder, *options))
        return made[-1]
    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.parametrize("options", [
    [], ["--pipelining"], ["--pipelining", "--depth", 2], ["--bdat"],
    ["--bdat", "--pipelining", "--depth", 8], ["--per-connection", 1],
    ["--per-connection", 7, "--pipelining"], ["--recipients", 3, "--domains", 10],
    ["--size", "400:3,2k:2,300k:1"], ["--idle", 20, "--noise"], ["--rate", 500],
], ids=lambda options: " ".join(map(str, options)) or "plain")
def test_each_is_taken_once(folder, sink, options):
    to = sink()
    found = run_source(folder, to.port, "--messages", 200, *options)
    assert found["accepted"] == 200 and found["lost"] == found["rejected"] == 0
    taken = to.stop()
    assert (taken["messages"], taken["different"], taken["duplicates"]) == (200, 200, 0)
    assert taken["unmarked"] == taken["other_runs"] == 0
    assert (folder / "acknowledged").read_text() == "0-199"
    if "--per-connection" in options:
        assert taken["connections"] >= 200 // options[options.index("--per-connection") + 1]


def test_connections_without_mail(folder, sink):
    to = sink()
    found = run_source(folder, to.port, "--messages", 50, "--per-connection", 0)
    assert found["connections"] >= 50 and found["accepted"] == 0
    assert to.stop()["messages"] == 0


def test_what_is_not_taken_is_counted(folder, sink):
    to = sink("--tempfail", 20, "--reject", 20, "--close", 20)
    found = run_source(folder, to.port, "--messages", 300, "--per-connection", 10)
    taken = to.stop()
    assert found["accepted"] == taken["messages"]
    assert (found["tempfailed"], found["rejected"]) == (taken["tempfailed"], taken["rejected"])
    assert found["lost"] == taken["hung_up"]
    assert found["accepted"] + found["tempfailed"] + found["rejected"] + found["lost"] == 300
    assert all(taken[key] > 20 for key in ("tempfailed", "rejected", "hung_up"))


def test_through_the_gateway_nothing_is_lost(gateways, folder, sink):
    """The sink refuses for now and hangs up; all arrive all the same, each once."""
    to = sink("--tempfail", 10, "--close", 5, "--expect", folder / "acknowledged")
    kilat = gateways(route={"*": smarthost(to.port)})
    found = run_source(folder, kilat.port, "--messages", 300)
    assert found["accepted"] == 300
    wait_until(lambda: to.messages() >= 300, 60, lambda: f"{to.messages()} of 300")
    taken = to.stop()
    assert (taken["different"], taken["duplicates"], taken["lost"]) == (300, 0, 0)


def test_the_sink_says_what_is_lost(folder, sink):
    to = sink("--expect", folder / "acknowledged")
    run_source(folder, to.port, "--messages", 10)
    (folder / "acknowledged").write_text("0-9,12,20-21")
    assert to.stop()["lost"] == 3


@pytest.mark.parametrize("tls, listener", [("--starttls", "submission"), ("--tls", "submissions")])
def test_tls_and_a_login(gateways, folder, tls, listener):
    kilat = gateways(start=False, **secure(Authority(folder / "ca"), route={"*": HOLD}))
    kilat.add_user("bench@source.test", "correct horse battery")
    kilat.start()
    found = run_source(folder, kilat.ports[listener], "--messages", 30, "--per-connection", 5, tls,
                       "--resume", "--user", "bench@source.test", "--password",
                       "correct horse battery")
    assert found["accepted"] == 30


@pytest.mark.parametrize("options, words", [
    (["--size", "10"], "--size: 10 is out of range"),
    (["--messages", "many"], '--messages: "many" is no number'),
    (["--to", "nobody"], '--to: "nobody" has no domain'),
    (["--depth", "3", "--pipelining"], "--depth"),
    ([], "cannot connect: Connection refused"),
])
def test_errors_name_the_option(folder, sink, options, words):
    to = sink()
    to.stop()
    assert words in run_source(folder, to.port, *options, code=2)


@pytest.mark.release
@pytest.mark.parametrize("kind, most", [("accept", 0.3), ("relay", 0.6)])
def test_turns_for_a_message(gateways, folder, sink, kind, most):
    """A turn of the loop is one system call: with 64 sessions many messages share it."""
    to = sink()
    kilat = gateways(workers=1, route={"*": HOLD if kind == "accept" else smarthost(to.port)})
    run_source(folder, kilat.port, "--messages", 1000, "--sessions", 64)
    before = kilat.metrics()["loop_turns_total"]
    run_source(folder, kilat.port, "--messages", 5000, "--sessions", 64)
    if kind == "relay":
        wait_until(lambda: to.messages() >= 6000, 60, "all at the sink")
    assert (kilat.metrics()["loop_turns_total"] - before) / 5000 <= most
