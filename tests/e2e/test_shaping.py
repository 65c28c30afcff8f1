# SPDX-License-Identifier: Apache-2.0
"""Limits that several gateways keep together: connections to one site, messages in a time."""
import os
import signal
import socket
import time

import pytest

from lib import postfix_tools
from lib.dns import Dns
from lib.kilat import message, send, smarthost
from lib.mx import Mx, Reply, Rule, Stall
from lib.net import free_port, wait_until
from lib.redis_server import Redis

TRUSTED = {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off", "networks": ["127.0.0.0/8"]}
LANES = {lane: {**TRUSTED, "lane": lane} for lane in ("urgent", "bulk")}


def has_ended(writer):
    """The peer has closed it, whether our loop has seen that or not."""
    if writer.is_closing():
        return True
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        try:
            return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class CountingMx(Mx):
    """Counts the connections that are open whenever another one comes."""
    peak = 0
    writers = ()

    async def _client(self, reader, writer):
        self.writers = [w for w in self.writers if not has_ended(w)] + [writer]
        self.peak = max(self.peak, len(self.writers))
        try:
            await super()._client(reader, writer)
        finally:
            self.writers = [w for w in self.writers if w is not writer]


@pytest.fixture
def site():
    with CountingMx() as mx:
        yield mx


@pytest.fixture
def redis(folder):
    with Redis(folder / "r") as redis:
        yield redis


@pytest.fixture
def pair(gateways, redis, site):
    """Makes two gateways on one Redis, relaying to the site with these settings of its route."""
    made = []

    def make(route, **changes):
        settings = {"redis": {"mode": "external", "url": redis.url}, "listener": LANES,
                    "route": {"*": {**smarthost(site.port), **route}}, **changes}
        made.extend(gateways(name, **settings) for name in ("one", "two"))
        return made
    yield make
    for kilat in made:      # before their Redis goes
        if kilat.process.poll() is None:
            kilat.stop()


def fill(kilat, count, rcpt="bulk@rcpt.test"):
    postfix_tools.smtp_source(kilat.ports["bulk"], "-s", 10, "-m", count, "-l", 1000, "-d", "-t",
                              rcpt, "-f", "a@sender.test")


def arrival(site, rcpt):
    return next((m.time for m in site.messages if m.rcpts == [rcpt]), None)


def test_two_connections_from_two_gateways(pair, site):
    """Never more than two, while thousands wait in both; urgent mail of either goes first."""
    total, waits = 3000, []
    one, two = pair({"connections": 2})
    for kilat in (one, two):
        fill(kilat, total // 2)
    for i in range(10):
        kilat, rcpt = (one, two)[i % 2], f"urgent{i}@rcpt.test"
        site.on("dot", Reply("250 2.0.0 Ok", delay=0.05), times=10)
        send(kilat.ports["urgent"], message(), rcpts=[rcpt])
        since = time.monotonic()
        wait_until(lambda: arrival(site, rcpt), 30, rcpt)
        waits.append(arrival(site, rcpt) - since)
    left = total + len(waits) - len(site.messages)
    site.wait(total + 10, timeout=120)
    print(f"urgent waited {sorted(waits)}, {left} behind them; peak {site.peak}, "
          f"{len(site.connections)} connections")
    assert site.peak == 2
    assert sorted(waits)[len(waits) // 2] < 2, waits
    for kilat in (one, two):
        metrics = kilat.metrics()
        assert metrics["recipients_delivered_total"] > total // 10
        assert metrics["sites_asked_total"] < metrics["recipients_delivered_total"]
    assert site.violations == []


def test_domains_hosted_together_share_a_limit(gateways, redis):
    """And turns: none of them waits for another to have no mail left."""
    names = [f"d{i}.test" for i in range(6)]
    table = {(name, "MX"): [(10, "A.rcpt.test" if i % 2 else "a.rcpt.test"), (20, "b.rcpt.test")]
             for i, name in enumerate(names)}
    table |= {("a.rcpt.test", "A"): ["127.0.0.2"], ("b.rcpt.test", "A"): ["127.0.0.3"]}
    with CountingMx(host="127.0.0.2", port=free_port()) as site, Dns(table) as dns:
        pair = [gateways(name, listener=LANES, redis={"mode": "external", "url": redis.url},
                         route={"*": {"relay": "mx", "connections": 2}},
                         dns={"servers": [dns.address]},
                         relay={"mx_port": site.port, "allow_private": True})
                for name in ("one", "two")]
        site.on("dot", Reply("250 2.0.0 Ok", delay=0.01))
        for i, name in enumerate(names):
            fill(pair[i % 2], 50, f"to@{name}")
        site.wait(300, timeout=90)
        assert site.peak <= 2
        for kilat in pair:
            kilat.stop()


def test_what_a_killed_gateway_held_comes_back(pair, site, redis):
    """After its agreement has ended, three leases; what one held that was stopped, at once."""
    one, two = pair({"connections": 1})
    site.on("dot", Stall(60), times=1)
    send(one.ports["bulk"], message(), rcpts=["stuck@rcpt.test"])
    wait_until(lambda: site.open_connections(), 20, "a connection")
    fill(two, 20, "after@rcpt.test")
    began = time.monotonic()
    one.kill()
    site.wait(20, timeout=60)
    assert min(m.time for m in site.messages) - began > 3, "before the lease was over"
    assert site.peak == 1
    assert two.stop() == 0
    held = [field for key in redis.call("KEYS", "{cfg}st:*")
            for field in redis.call("HKEYS", key)]
    assert held == []


def test_without_redis_connections_end(pair, site, redis):
    """Before others might have them; afterwards mail goes on."""
    one, _ = pair({"connections": 2})
    site.on("dot", Stall(60), times=1)
    send(one.ports["bulk"], message(), rcpts=["stuck@rcpt.test"])
    wait_until(lambda: site.open_connections(), 20, "a connection")
    site.clear()
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: site.writers == [] or all(map(has_ended, site.writers)), 30, "no more")
        assert one.wait_event("relay.sites_void", sites=1)
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    wait_until(lambda: arrival(site, "stuck@rcpt.test"), 60, "the message")
    assert site.peak <= 2


def test_a_rate_over_two_gateways(pair, site):
    """20 in any second, whoever sends them; urgent mail goes first."""
    one, two = pair({"rate": "20/1s"})
    for kilat in (one, two):
        fill(kilat, 50)
    send(one.ports["urgent"], message(), rcpts=["urgent@rcpt.test"])
    site.wait(20, timeout=60)
    wait_until(lambda: arrival(site, "urgent@rcpt.test"), 5, "urgent mail")
    assert len(site.messages) < 100
    times = sorted(m.time for m in site.wait(101, timeout=60))
    most = max(sum(start <= t < start + 1 for t in times) for start in times)
    print(f"101 in {times[-1] - times[0]:.1f} s, {most} in a second")
    assert most <= 30, "20, and some that were late on their way"
    assert 4 < times[-1] - times[0] < 30
    calls = sum(kilat.metrics()["sites_asked_total"] for kilat in (one, two))
    assert calls < 500


def test_a_site_that_asks_for_less_gets_less(gateways, site):
    """421, without any limit set: half of the connections, later all again."""
    site.on("dot", Reply("250 2.0.0 Ok", delay=0.2))
    kilat = gateways(workers=1, listener=LANES, route={"*": smarthost(site.port)},
                     relay={"per_destination_max": 8, "urgent_share": 0})
    fill(kilat, 150)
    wait_until(lambda: site.open_connections() == 8, 20, "all connections")
    site.rules.insert(0, Rule("rcpt", Reply("421 4.7.0 Too much mail", close=True), None, 1, 0))
    assert kilat.wait_event("relay.pace", percent=50)
    assert kilat.metrics()["sites_slowed"] == 1
    wait_until(lambda: site.open_connections() <= 4, 20, "fewer connections")
    site.clear()
    begun = len(site.messages)
    fill(kilat, 400)
    assert kilat.wait_event("relay.pace", percent=100, timeout=60)
    site.wait(begun + 200, timeout=60)
    wait_until(lambda: kilat.metrics()["sites_slowed"] == 0, 20, "all again")
    assert kilat.metrics()["sites_cut_total"] == 1


@pytest.mark.release
def test_a_hundred_thousand_for_two_connections_of_two_gateways(pair, site):
    """Each transaction takes 0.3 s: never a third connection, and an urgent message that comes to
    either gateway has left within one second of the next free connection, at p99."""
    site.keep_content = False
    one, two = pair({"connections": 2})
    site.on("dot", Reply("250 2.0.0 Ok", delay=0.3))
    for kilat in (one, two):
        postfix_tools.smtp_source(kilat.ports["bulk"], "-s", 50, "-m", 50000, "-l", 1000, "-d",
                                  "-t", "bulk@rcpt.test", "-f", "a@sender.test")
    waits = []
    for i in range(100):
        kilat, rcpt = (one, two)[i % 2], f"urgent{i}@rcpt.test"
        send(kilat.ports["urgent"], message(), rcpts=[rcpt])
        since = time.monotonic()
        wait_until(lambda: arrival(site, rcpt), 30, rcpt, 0.005)
        waits.append(arrival(site, rcpt) - since)
        time.sleep(0.05 * (i % 4))
    waits.sort()
    print(f"waited {waits[50]:.2f} s at p50, {waits[98]:.2f} at p99, {waits[-1]:.2f} at most,"
          f" {len(site.messages)} of 100,100 delivered, {site.peak} connections at most")
    assert site.peak <= 2
    assert waits[98] < 0.3 + 1
