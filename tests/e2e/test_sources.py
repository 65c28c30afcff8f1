# SPDX-License-Identifier: Apache-2.0
"""The addresses that mail leaves from: shares, names, limits of their own, warm-up."""
import datetime
import time

import pytest

from lib.kilat import message, send, smarthost
from lib.mx import Mx, Reply
from lib.net import wait_until
from lib.redis_server import Redis

NAMES = {"127.0.0.2": "two.sender.test", "127.0.0.3": "three.sender.test"}
TWO = {"address": "127.0.0.2", "helo": NAMES["127.0.0.2"]}
THREE = {"address": ["127.0.0.3", "::1"], "helo": NAMES["127.0.0.3"]}
TODAY = datetime.datetime.now(datetime.timezone.utc).date()


def via(mx, *names, **more):
    return {**smarthost(mx.port), "sources": list(names), **more}


def peers(mx, messages=None):
    """How many messages came from which address."""
    count = {}
    for got in messages or mx.messages:
        peer = mx.connections[got.connection].peer
        count[peer] = count.get(peer, 0) + 1
    return count


def submit(kilat, count, rcpt="to@rcpt.test", **more):
    return [send(kilat.port, message(600), rcpts=[rcpt], **more) for _ in range(count)]


def warming(source, *days, start=TODAY):
    return {**source, "warmup": list(days), "warmup_start": str(start)}


def test_shares_and_names(gateways, mx):
    """Each message leaves from one of the route's sources, by weight, under that one's name."""
    kilat = gateways(source={"two": {**TWO, "weight": 30}, "three": {**THREE, "weight": 10}},
                     route={"*": via(mx, "two", "three")})
    submit(kilat, 80)
    count = peers(mx, mx.wait(80))
    assert set(count) == set(NAMES) and 40 < count["127.0.0.2"] < 75, count
    for got in mx.messages:
        assert got.helo == NAMES[mx.connections[got.connection].peer]
        assert b"Received:" in got.content


def test_routes_of_tenants_do_not_mix(gateways, mx):
    listener = {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off", "networks": ["127.0.0.0/8"]}
    kilat = gateways(source={"two": TWO, "three": THREE}, tenant={"shop": {}},
                     listener={"plain": listener, "shop": {**listener, "tenant": "shop"}},
                     route={"*": via(mx, "two"),
                            "shop": via(mx, "three", domain="*", tenant="shop")})
    for _ in range(5):
        send(kilat.ports["plain"], message(600), sender="plain@sender.test")
        send(kilat.ports["shop"], message(600), sender="shop@sender.test")
    for got in mx.wait(10):
        wanted = "127.0.0.3" if got.sender.startswith("shop") else "127.0.0.2"
        assert mx.connections[got.connection].peer == wanted


def test_limits_are_the_sources(gateways, mx):
    """One connection from the one, and what the worker may have from the other."""
    mx.on("dot", Reply("250 2.0.0 Slowly", delay=0.1))
    kilat = gateways(source={"two": {**TWO, "connections": 1}, "three": THREE}, workers=1,
                     route={"*": via(mx, "two", "three")})
    submit(kilat, 40)
    mx.wait(40)
    count = [c.peer for c in mx.connections]
    assert count.count("127.0.0.2") == 1 and count.count("127.0.0.3") > 1, count


def test_an_address_that_is_not_here(gateways, mx):
    """Deferred, with a word that says which source; `kilat check` says it before."""
    kilat = gateways(source={"gone": {"address": "192.0.2.77"}}, route={"*": via(mx, "gone")})
    submit(kilat, 1)
    done = kilat.wait_event("relay.done", fate="deferred")
    assert 'source "gone"' in done["text"] and "assign" in done["text"]
    check = kilat.command("check")
    assert check.returncode == 1
    assert 'source "gone"' in check.stderr and "IPv4" in check.stderr


def test_a_family_that_the_source_lacks(gateways):
    with Mx(host="::1") as mx:
        kilat = gateways(source={"two": TWO},
                         route={"*": {**via(mx, "two"), "host": "::1"}})
        submit(kilat, 1)
        done = kilat.wait_event("relay.done", fate="deferred")
        assert "family" in done["text"] and not mx.connections


def test_a_source_that_is_taken_out(gateways, mx):
    """What waits for it leaves from another."""
    mx.on("dot", "451 4.3.0 Later", times=1)
    kilat = gateways(source={"two": TWO, "three": THREE}, route={"*": via(mx, "two")},
                     retry={"schedule": ["1h"]})
    submit(kilat, 1)
    kilat.wait_event("relay.done", fate="deferred")
    kilat.stop()
    kilat.reconfigure(source={"three": THREE}, route={"*": via(mx, "three")})
    kilat.start()
    kilat.queue("retry", "all")
    assert peers(mx, mx.wait(1)) == {"127.0.0.3": 1}


@pytest.fixture
def pair(gateways, folder):
    with Redis(folder / "r") as redis:
        made = []

        def make(**settings):
            made.extend(gateways(name, redis={"mode": "external", "url": redis.url}, **settings)
                        for name in ("one", "two"))
            return made
        yield make
        for kilat in made:
            if kilat.process.poll() is None:
                kilat.stop()


def test_warm_up_of_two_nodes(pair, mx):
    """Together they send what the day allows from it, and the rest from the other."""
    one, two = pair(source={"two": warming(TWO, 7, 100), "three": THREE},
                    route={"*": via(mx, "two", "three")})
    for _ in range(20):
        submit(one, 1)
        submit(two, 1)
    assert peers(mx, mx.wait(40)) == {"127.0.0.2": 7, "127.0.0.3": 33}
    wait_until(lambda: any(k.metrics()["sources_spent"] for k in (one, two)), 10, "spent")


def test_nothing_left_today(gateways, mx):
    """Deferred to the next day, UTC, and delivered then, as far as that one allows."""
    kilat = gateways(source={"two": warming(TWO, 3)}, route={"*": via(mx, "two")},
                     retry={"schedule": ["5min"]})
    submit(kilat, 5)
    mx.wait(3)
    for _ in range(2):
        done = kilat.wait_event("relay.done", fate="deferred")
    assert "warm-up" in done["text"]
    assert kilat.wait_event("source.spent")["source"] == "two"
    time.sleep(0.5)
    assert len(mx.messages) == 3
    midnight = datetime.datetime.combine(TODAY + datetime.timedelta(1), datetime.time(),
                                         datetime.timezone.utc).timestamp() * 1000
    dues = [float(due) for shard in range(16)
            for due in kilat.redis("ZRANGE", f"{{q{shard}}}t", "0", "-1", "WITHSCORES")[1::2]]
    assert len(dues) == 2 and all(midnight <= due <= midnight + 3 * 3600_000 for due in dues)
    # The warm-up is over: what waits goes at once, when somebody asks for it.
    kilat.stop()
    kilat.reconfigure(source={"two": warming(TWO, 3, start=TODAY - datetime.timedelta(1))})
    kilat.start()
    kilat.queue("retry", "all")
    mx.wait(5)


def test_before_the_first_day(gateways, mx):
    """Nothing leaves from it, and everything from the other."""
    tomorrow = TODAY + datetime.timedelta(1)
    kilat = gateways(source={"two": warming(TWO, 100, start=tomorrow), "three": THREE},
                     route={"*": via(mx, "two", "three")})
    submit(kilat, 20)
    assert peers(mx, mx.wait(20)) == {"127.0.0.3": 20}


def test_more_recipients_than_a_day(gateways, mx):
    """Takes the whole day, once."""
    kilat = gateways(source={"two": warming(TWO, 2)}, route={"*": via(mx, "two")})
    many = [f"r{i}@rcpt.test" for i in range(5)]
    send(kilat.port, message(600), rcpts=many)
    assert len(mx.wait(1)[0].rcpts) == 5
    submit(kilat, 1)
    assert "warm-up" in kilat.wait_event("relay.done", fate="deferred")["text"]


def test_redis_goes_meanwhile(gateways, folder, mx):
    """What waits for a grant waits for Redis, and goes when it is back."""
    with Redis(folder / "r") as redis:
        kilat = gateways(source={"two": warming(TWO, 100)}, route={"*": via(mx, "two")},
                         redis={"mode": "external", "url": redis.url})
        submit(kilat, 1)
        mx.wait(1)
        redis.kill()
        redis.start()
        wait_until(lambda: kilat.get("/readyz")[0] == 200, 20, "ready again")
        submit(kilat, 3)
        mx.wait(4)
        kilat.stop()
