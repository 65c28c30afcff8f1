# SPDX-License-Identifier: Apache-2.0
"""Starting, being watched, and ending."""
import concurrent.futures
import json
import re
import signal
import smtplib
import socket
import threading
import time

import pytest

from lib.kilat import HOLD, config_text, message, parse_line, send, smarthost
from lib.mx import Mx, Reply
from lib.net import RawSmtp, queue_id, wait_until


# -- configuration -----------------------------------------------------------------------------

@pytest.mark.parametrize("line, key", [
    ("nonsense = 1;", "nonsense"),
    ("limits { sesions_max = 5; }", "sesions_max"),
    ("limits { sessions_max = 0; }", "sessions_max"),
    ("limits { command_timeout = 5parsec; }", "command_timeout"),
    ("workers = many;", "workers"),
    ('listener "x" { bind = ["nowhere"]; networks = ["127.0.0.0/8"]; }', "bind"),
    ('listener "x" { bind = ["127.0.0.1:0"]; networks = ["127.0.0.1/33"]; }', "networks"),
    ('route "a.test" { relay = "pigeon"; }', "relay"),
    ('route "a.test" { relay = "smarthost"; }', "host"),
    ('redis { mode = "external"; }', "url"),
    ('listener "x" { bind = ["127.0.0.1:0"]; networks = ["::1"]; tls = "starttls"; }', "tls"),
], ids=lambda v: v if " " not in v else "")
@pytest.mark.parametrize("command", ["check", "serve"])
def test_configuration_errors(gateways, command, line, key):
    """File, line and key, on one line; exit code 2."""
    kilat = gateways(start=False)
    base = dict(kilat.settings)
    for section in ("limits", "redis", "workers"):
        if line.startswith(section):
            base.pop(section)
    text = config_text(base)
    kilat.config.write_text(text + line + "\n")
    done = kilat.command(command)
    number = text.count("\n") + 1
    assert done.returncode == 2, done
    assert f"{kilat.config}:{number}:" in done.stderr and key in done.stderr, done.stderr
    assert len(done.stderr.strip().split("\n")) == 1


def test_configuration_file_is_missing(gateways):
    kilat = gateways(start=False)
    kilat.config.unlink()
    done = kilat.command("check")
    assert done.returncode == 2 and str(kilat.config) in done.stderr


def test_usage():
    import subprocess
    from lib.kilat import binary
    for arguments in ([], ["serve"], ["bogus", "-c", "x"], ["check", "-c", "/nonexistent", "more"]):
        done = subprocess.run([binary(), *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr, arguments
    assert subprocess.run([binary(), "--version"], capture_output=True).stdout.startswith(b"kilat ")


def test_check_tells_what_the_kernel_offers(gateways):
    done = gateways(start=False).command("check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ring" in done.stdout or "io_uring" in done.stdout


def test_port_in_use(gateways):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = "127.0.0.1:%d" % other.getsockname()[1]
        kilat = gateways(start=False, listener={"t": {"bind": [taken],
                                                      "networks": ["127.0.0.0/8"]}})
        done = kilat.command("serve")
    assert done.returncode not in (0, -6, 99), done
    assert taken in done.stderr + done.stdout


# -- the admin port and the log ----------------------------------------------------------------

def test_admin(gateways):
    kilat = gateways()
    assert kilat.get("/healthz")[0] == 200
    assert kilat.get("/readyz")[0] == 200
    assert kilat.get("/nothing")[0] == 404
    for _ in range(3):
        send(kilat.port, message(1024), rcpts=["a@rcpt.test", "b@rcpt.test"])
    status, text = kilat.get("/metrics")
    assert status == 200
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) kilat_\w+ .+|kilat_\w+(\{[^}]*\})? -?[0-9.e+]+",
                            line), line
    metrics = kilat.metrics()
    assert metrics["messages_accepted_total"] == 3
    assert metrics["recipients_accepted_total"] == 6
    assert metrics["messages_accepted_bytes_total"] >= 3 * 1024
    assert metrics["commit_messages_total"] == 3
    assert metrics["redis_links_up"] >= 2


@pytest.mark.parametrize("form", ["plain", "json"])
def test_log_lines(gateways, mx, form):
    """P-121 too: what a client says cannot make a line of its own."""
    kilat = gateways(route={"*": smarthost(mx.port)}, log={"format": form})
    with RawSmtp(kilat.port) as raw:
        raw.reply()
        raw.cmd(b"EHLO [127.0.0.1]")
        reply = raw.mail(message(1024), sender='"a\\"b=c"@sender.test')
        ident = queue_id(reply)
    kilat.wait_event("relay.done", id=ident)
    for line in kilat.log_path.read_text().splitlines():
        assert parse_line(line), line
        if form == "json":
            json.loads(line)
    accepted = kilat.events("msg.accepted", id=ident)
    done = kilat.events("relay.done", id=ident)
    assert len(accepted) == 1 and len(done) == 1
    for key in ("from", "rcpts", "size", "client"):
        assert key in accepted[0]
    for key in ("dest", "host", "rcpt", "code", "stage", "text", "ms"):
        assert key in done[0]
    assert str(done[0]["code"]) == "250" and done[0]["rcpt"] == "to@rcpt.test"


def test_log_level(gateways, mx):
    kilat = gateways(route={"*": smarthost(mx.port)}, start=False)
    text = kilat.config.read_text().replace('format = "json";', 'format = "json"; level = error;')
    kilat.config.write_text(text)
    kilat.launch()
    time.sleep(3)
    assert kilat.log() == []


# -- the end -----------------------------------------------------------------------------------

def test_sigterm_when_idle(gateways):
    kilat = gateways()
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        began = time.monotonic()
        kilat.process.send_signal(signal.SIGTERM)
        assert raw.reply().code == 421
        assert kilat.process.wait(12) == 0
    assert time.monotonic() - began < 11
    assert kilat.events("serve.end")


def test_mail_survives_a_restart(gateways, mx):
    """What was held by a host that stalls goes back to the queue, and out after the next start."""
    mx.on("dot", Reply("451 4.3.0 Later"), times=5)
    kilat = gateways(route={"*": smarthost(mx.port)}, retry={"schedule": ["2s"]})
    idents = [queue_id(send(kilat.port, message(1024))) for _ in range(5)]
    wait_until(lambda: len(mx.refused) >= 5, 20, "five refusals")
    assert kilat.stop() == 0
    kilat.start()
    mx.wait(5, timeout=30)
    got = b"".join(m.content for m in mx.messages)
    assert all(ident.encode() in got for ident in idents)
    assert len(mx.messages) == 5


def test_sigterm_under_load(gateways):
    """Every 250 of a drained gateway is kept: delivered by it, or by its successor; none twice."""
    with Mx() as host:
        host.on("dot", Reply("250 2.0.0 Ok", delay=0.02))
        kilat = gateways(route={"*": smarthost(host.port)}, relay={"per_destination_max": 4})
        acked, stopped = [], threading.Event()

        def client(number):
            while not stopped.is_set():
                try:
                    with smtplib.SMTP("127.0.0.1", kilat.port, "client.test", timeout=20) as s:
                        s.ehlo()
                        for _ in range(50):
                            s.mail("a@sender.test")
                            s.rcpt("b@rcpt.test")
                            code, text = s.data(message(3000))
                            if code == 250:
                                acked.append(queue_id(text))
                except (OSError, smtplib.SMTPException):
                    time.sleep(0.05)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            clients = [pool.submit(client, n) for n in range(20)]
            try:
                wait_until(lambda: len(acked) > 200, 60, "some load")
                kilat.process.send_signal(signal.SIGTERM)
                code = kilat.process.wait(30)
            finally:
                stopped.set()
            for c in clients:
                c.result(30)
        assert code == 0, kilat.tail()
        kilat.start()
        wait_until(lambda: len(host.messages) >= len(acked), 60,
                   lambda: f"{len(host.messages)} of {len(acked)}")
        time.sleep(0.5)
        seen = b"\n".join(m.content.split(b"\r\n\r\n")[0] for m in host.messages).decode()
        counts = {ident: seen.count(ident) for ident in acked}
        assert all(counts.values()), "lost"
        assert max(counts.values()) == 1, "delivered twice"
        assert host.violations == []


def test_sigterm_during_a_transaction(gateways):
    """A message that is half there when the drain begins may finish."""
    kilat = gateways(route={"*": HOLD})
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
            raw.cmd(line)
        raw.send(message(1000))
        kilat.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        raw.send(b".\r\n")
        reply = raw.reply()
        assert reply.code in (250, 421), reply
    assert kilat.process.wait(15) == 0


def test_no_new_clients_while_draining(gateways):
    kilat = gateways()
    with RawSmtp(kilat.port) as busy:
        busy.hello()
        busy.cmd("MAIL FROM:<a@sender.test>")
        busy.cmd("RCPT TO:<b@rcpt.test>")
        busy.cmd("DATA")
        kilat.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        try:
            with RawSmtp(kilat.port, timeout=3) as late:
                assert late.reply().code in (0, 421)
        except OSError:
            pass
    assert kilat.process.wait(15) == 0
