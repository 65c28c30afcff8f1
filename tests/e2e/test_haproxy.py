# SPDX-License-Identifier: Apache-2.0
"""
HAProxy in front of two gateways on one Redis, as docs/load-balancer.md says. One after the other is
drained and restarted under load; no client sees a failed transaction, and all mail arrives once.
"""
import random
import threading
import time

import pytest

from lib.certs import Authority
from lib.haproxy import HaProxy
from lib.kilat import merged, message, secure, smarthost
from lib.net import RawSmtp, free_port, queue_id, wait_until
from lib.redis_server import Redis

PASSWORD = "correct horse battery"
USER = "web@sender.test"


class Load(threading.Thread):
    """A client with one connection: short ones are made for each message, pooled ones are kept
    until a 421 between two messages; anything else that goes wrong is a failure."""

    def __init__(self, number, balancer, ca, stop):
        super().__init__()
        self.number, self.balancer, self.ca, self.stopped = number, balancer, ca, stop
        self.is_pooled, self.is_implicit = number % 2 == 0, number % 4 < 2
        self.sent, self.failures, self.reconnects = [], [], 0
        self.client = None

    def connect(self):
        port = self.balancer.tls_port if self.is_implicit else self.balancer.port
        c = RawSmtp(port, timeout=30)
        if self.is_implicit:
            c.tls(self.ca.context())
            c.hello()
        else:
            c.hello()
            c.starttls(self.ca.context())
            assert c.cmd("EHLO client.test").code == 250
        reply = c.auth_plain(USER, PASSWORD)
        assert reply.code == 235, reply
        return c

    def send_one(self, subject):
        for _ in range(3):
            self.client = self.client or self.connect()
            reply = self.client.cmd(f"MAIL FROM:<{USER}>")
            if reply.code in (421, 0):      # between transactions: a pool connects again
                self.client.sock.close()
                self.client = None
                self.reconnects += 1
                continue
            assert reply.code == 250, reply
            for line, code in (("RCPT TO:<to@rcpt.test>", 250), ("DATA", 354)):
                reply = self.client.cmd(line)
                assert reply.code == code, reply
            self.client.send(message(2000, subject=subject, From=USER) + b".\r\n")
            queue_id(self.client.reply())
            return
        raise AssertionError("421 three times")

    def run(self):
        count = 0
        while not self.stopped.is_set():
            subject = f"{self.number}-{count}"
            count += 1
            try:
                self.send_one(subject)
                self.sent.append(subject)
                if not self.is_pooled:
                    assert self.client.cmd("QUIT").code == 221
                    self.client.sock.close()
                    self.client = None
            except Exception as error:      # pylint: disable=broad-except
                self.failures.append((subject, repr(error)))
                self.client = None
            time.sleep(random.random() / 50)
        if self.client:
            self.client.sock.close()


@pytest.fixture
def pair(gateways, folder, mx):
    ca = Authority(folder / "ca")
    with Redis(folder / "redis") as redis:
        made = []
        for name in ("a", "b"):
            ports = [free_port() for _ in range(3)]
            settings = merged(secure(ca), {
                "hostname": f"{name}.kilat.test", "redis": {"mode": "external", "url": redis.url},
                "route": {"*": smarthost(mx.port)}, "limits": {"drain_notice": "3s"},
                "admin": {"bind": f"127.0.0.1:{ports[2]}"}})
            for listener, port in zip(("submission", "submissions"), ports):
                settings["listener"][listener] |= {"bind": [f"127.0.0.1:{port}"],
                                                   "proxy_protocol": ["127.0.0.1/32"]}
            kilat = gateways(name, start=False, **settings)
            kilat.at = tuple(ports)
            made.append(kilat)
        made[0].add_user(USER, PASSWORD, "--tenant", "acme")
        for kilat in made:
            kilat.start()
        with HaProxy(folder / "haproxy", [k.at for k in made]) as balancer:
            yield ca, made, balancer


def test_drained_and_restarted_under_load(pair, mx):
    """Must show 2."""
    ca, made, balancer = pair
    stop = threading.Event()
    clients = [Load(n, balancer, ca, stop) for n in range(16)]
    for c in clients:
        c.start()
    try:
        time.sleep(2)
        for kilat in (made[0], made[1], made[0]):
            assert kilat.stop(60) == 0
            time.sleep(1)
            kilat.start()
            time.sleep(3)       # rise 2
    finally:
        stop.set()
        for c in clients:
            c.join(60)
    failures = [f for c in clients for f in c.failures]
    assert not failures, failures[:5]
    sent = sorted(s for c in clients for s in c.sent)
    assert len(sent) > 300 and all(c.sent for c in clients)
    wait_until(lambda: len(mx.messages) >= len(sent), 60,
               lambda: f"{len(mx.messages)}/{len(sent)}")
    time.sleep(1)
    got = sorted(line[9:].decode() for m in mx.messages for line in m.content.split(b"\r\n")
                 if line.startswith(b"Subject: "))
    assert got == sent
    by_host = {host: sum(f"by {host}.kilat.test".encode() in m.content for m in mx.messages)
               for host in "ab"}
    print(f"{len(sent)} messages, {sum(c.reconnects for c in clients)} reconnects, {by_host}")
    assert all(by_host.values())


@pytest.mark.parametrize("version", [1, 2])
def test_true_addresses(gateways, folder, mx, version):
    """P-254, P-255, P-257: trust, Received and log go by the client's address, not HAProxy's."""
    ca = Authority(folder / "ca")
    ports = [free_port() for _ in range(3)]
    settings = merged(secure(ca, mode="optional"), {
        "route": {"*": smarthost(mx.port)}, "admin": {"bind": f"127.0.0.1:{ports[2]}"},
        "log": {"level": "debug"}})
    for listener, port in zip(("submission", "submissions"), ports):
        settings["listener"][listener] |= {"bind": [f"127.0.0.1:{port}"],
                                           "proxy_protocol": ["127.0.0.1/32"],
                                           "networks": ["127.0.0.7/32"]}
    kilat = gateways(**settings)
    with HaProxy(folder / "haproxy", [tuple(ports)] * 2, version) as balancer:
        with RawSmtp(balancer.port, source="127.0.0.7") as c:
            c.hello()
            assert queue_id(c.mail(message()))
        with RawSmtp(balancer.tls_port, source="127.0.0.7") as c:
            c.tls(ca.context()).hello()
            assert queue_id(c.mail(message()))
        with RawSmtp(balancer.port, source="127.0.0.8") as c:      # must authenticate
            c.hello()
            assert c.cmd("MAIL FROM:<from@sender.test>").code == 530
    assert all(b"([127.0.0.7])" in m.content for m in mx.wait(2))
    assert [e["client"].split(":")[0] for e in kilat.events("msg.accepted")] == ["127.0.0.7"] * 2
    clients = {e["client"].split(":")[0] for e in kilat.events("session.open")}
    assert clients == {"127.0.0.1", "127.0.0.7", "127.0.0.8"}      # .1: the fixture's own look
