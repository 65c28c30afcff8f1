# SPDX-License-Identifier: Apache-2.0
"""Who goes first where there are few connections and thousands that wait: lanes, and tenants."""
import time

import pytest

from lib import postfix_tools
from lib.certs import Authority
from lib.kilat import HOLD, message, secure, send, smarthost
from lib.mx import Mx, Reply
from lib.net import RawSmtp, queue_id, wait_until

TRUSTED = {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off", "networks": ["127.0.0.0/8"]}
LANES = {lane: {**TRUSTED, "lane": lane} for lane in ("urgent", "normal", "bulk")}


def fill(kilat, listener, count, rcpt):
    postfix_tools.smtp_source(kilat.ports[listener], "-s", 10, "-m", count, "-l", 1000, "-d", "-t",
                              rcpt, "-f", "a@sender.test")


def slow(mx, seconds):
    mx.on("dot", Reply("250 2.0.0 Ok", delay=seconds))


def rcpts_of(messages):
    return [m.rcpts[0] for m in messages]


def queue_age(kilat, which, lane):
    """Seconds, of mail without a tenant."""
    _, text = kilat.get("/metrics")
    series = f'kilat_queue_age_{which}_seconds{{lane="{lane}",tenant=""}} '
    return float(text.split(series)[1].split("\n")[0])


@pytest.mark.parametrize("connections", [1, 2])
def test_urgent_never_waits_behind_bulk(gateways, connections):
    """One site, so many connections, memory and Redis full of bulk mail. Each urgent message leaves
    after what was on the wire: on each connection a transaction and the one behind it."""
    bulk, urgent = 2000, 25
    with Mx() as mx:
        slow(mx, 0.05)
        kilat = gateways(workers=1, listener=LANES, route={"*": smarthost(mx.port)},
                         queue={"deliveries_max": 100},
                         relay={"per_destination_max": connections})
        fill(kilat, "bulk", bulk, "bulk@rcpt.test")
        waits = []
        for i in range(urgent):
            rcpt = f"urgent{i}@rcpt.test"
            asks = {"X_Kilat_Lane": "urgent"} if i % 2 else {}
            start = len(mx.messages)
            send(kilat.ports["normal" if asks else "urgent"], message(**asks), rcpts=[rcpt])
            before, since = len(mx.messages), time.monotonic()
            wait_until(lambda: rcpt in rcpts_of(mx.messages[start:]), 10, rcpt)
            at = start + rcpts_of(mx.messages[start:]).index(rcpt)
            assert at - before <= 2 * connections, f"{at - before} went before {rcpt}"
            assert b"X-Kilat" not in mx.messages[at].content
            waits.append(mx.messages[at].time - since)
            time.sleep(0.05 * (i % 4))
        assert max(waits) < 1, sorted(waits)
        assert "bulk@rcpt.test" in rcpts_of(mx.messages[-10:])
        assert rcpts_of(mx.messages).count("bulk@rcpt.test") < bulk, "nothing waited any more"
        assert queue_age(kilat, "p99", "urgent") <= 1
        assert queue_age(kilat, "p50", "bulk") > queue_age(kilat, "p50", "urgent")
        assert mx.open_connections() <= connections
        assert mx.violations == []


@pytest.mark.release
def test_a_hundred_thousand_wait(gateways):
    """A site with two connections, each transaction 0.3 s long: an urgent message has left within
    one second of the next free one, at p99 (here: always)."""
    with Mx(keep_content=False) as mx:
        slow(mx, 0.3)
        kilat = gateways(workers=1, listener=LANES, route={"*": smarthost(mx.port)},
                         relay={"per_destination_max": 2})
        postfix_tools.smtp_source(kilat.ports["bulk"], "-s", 50, "-m", 100000, "-l", 1000, "-d",
                                  "-t", "bulk@rcpt.test", "-f", "a@sender.test")
        assert kilat.metrics()["deliveries_in_memory"] < 9000, "a part is left free"
        waits = []
        for i in range(100):
            rcpt, before = f"urgent{i}@rcpt.test", len(mx.messages)
            send(kilat.ports["urgent"], message(), rcpts=[rcpt])
            since = time.monotonic()
            wait_until(lambda: rcpt in rcpts_of(mx.messages[before:]), 10, rcpt, 0.005)
            at = before + rcpts_of(mx.messages[before:]).index(rcpt)
            waits.append(mx.messages[at].time - since)
            time.sleep(0.05 * (i % 4))
        assert max(waits) < 0.3 + 1, sorted(waits)[-5:]
        assert mx.open_connections() <= 2


@pytest.mark.parametrize("in_memory", [10000, 100])
def test_bulk_still_moves_and_tenants_share(gateways, in_memory):
    """Two tenants of weight 10 and 30, normal and bulk mail, one connection; all in memory, or
    nearly all in Redis."""
    listeners = {f"{lane}-{tenant}": {**TRUSTED, "lane": lane, "tenant": tenant}
                 for lane in ("normal", "bulk") for tenant in ("small", "large")}
    with Mx() as mx:
        kilat = gateways(workers=1, listener=listeners, route={"*": smarthost(mx.port)},
                         relay={"per_destination_max": 1},
                         queue={"deliveries_max": in_memory, "shards": 1},
                         tenant={"small": {"weight": 10}, "large": {"weight": 30}})
        slow(mx, 2)         # little goes before all is there, however long that takes
        for name in listeners:
            fill(kilat, name, 700 if "normal" in name else 150, f"{name}@rcpt.test")
        mx.clear()
        slow(mx, 0.03)
        before = len(mx.messages) + 300     # what the first of them had to themselves
        seen = rcpts_of(mx.wait(before + 320, timeout=100)[before:before + 320])
        count = {name: seen.count(f"{name}@rcpt.test") for name in listeners}
        bulk = count["bulk-small"] + count["bulk-large"]
        ratio = count["normal-large"] / count["normal-small"]
        if in_memory > 1000:
            assert bulk in range(37, 44) and 2.5 < ratio < 3.5, count
        else:   # as claims bring it: who has mail here goes while others' mail is fetched
            assert 36 < bulk < 120 and 1.3 < ratio < 4, count
        assert count["bulk-large"] >= 2 * count["bulk-small"] > 0, count


def test_a_user_has_a_lane(gateways, folder):
    """Its own, or what it asks for, no better than its tenant may."""
    ca = Authority(folder / "ca")
    kilat = gateways(start=False, route={"*": HOLD},
                     **secure(ca, tenant={"shop": {"lane_best": "normal", "senders": ["*"]},
                                          "free": {"senders": ["*"], "lists_are_bulk": True}}))
    users = {"news": ("free", "bulk"), "login": ("free", "urgent"), "shop": ("shop", "urgent")}
    for name, (tenant, lane) in users.items():
        kilat.add_user(name, "secret words", "--tenant", tenant, "--lane", lane)
    kilat.add_user("plain", "secret words", "--tenant", "free")
    kilat.start()
    rows = [("news", {}, "bulk"), ("login", {}, "urgent"), ("shop", {}, None), ("plain", {}, None),
            ("news", {"X_Kilat_Lane": "urgent"}, "urgent"),
            ("shop", {"X_Kilat_Lane": "urgent"}, None),
            ("shop", {"X_Kilat_Lane": "bulk"}, "bulk"), ("plain", {"Precedence": "bulk"}, "bulk")]
    for user, fields, lane in rows:
        with RawSmtp(kilat.ports["submissions"]) as raw:
            raw.tls(ca.context()).hello()
            assert raw.auth_plain(user, "secret words").code == 235
            ident = queue_id(raw.mail(message(**fields)).lines[-1])
        assert kilat.wait_event("msg.accepted", id=ident).get("lane") == lane, (user, fields)
