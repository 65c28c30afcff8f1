# SPDX-License-Identifier: Apache-2.0
"""kilat queue: looking at the queue and acting on it, while the gateway runs."""
import base64
import os
import re
import time

import pytest

from lib.kilat import HOLD, message, send, smarthost
from lib.mx import Mx
from lib.net import queue_id, wait_until


def submit(kilat, rcpt="to@rcpt.test"):
    return queue_id(send(kilat.port, message(1024), rcpts=[rcpt]))


@pytest.fixture
def holding(gateways, mx):
    """Mail for hold.test is held, the rest goes to mx."""
    return gateways(route={"hold.test": HOLD, "*": smarthost(mx.port)})


def test_held_mail_is_listed_and_kept(holding, mx):
    idents = [submit(holding, "a@hold.test") for _ in range(3)]
    listing = holding.queue("list")
    for ident in idents:
        line = next(row for row in listing.splitlines() if ident in row)
        assert "held" in line and "hold.test" in line
    assert holding.queue("list", "ready").count("hold.test") == 0
    stats = holding.queue("stats")
    assert re.search(r"held\D+3\b", stats), stats
    assert mx.messages == []


def test_show_and_delete(holding):
    ident = submit(holding, "a@hold.test")
    shown = holding.queue("show", ident)
    for word in (ident, "held", "from@sender.test", "a@hold.test"):
        assert word in shown
    holding.queue("delete", ident)
    assert ident not in holding.queue("list")
    assert holding.command("queue", "show", ident).returncode != 0


def test_hold_and_release(gateways, mx):
    """A hold by hand stops a destination; release lets it go."""
    kilat = gateways(route={"*": smarthost(mx.port)})
    submit(kilat)
    mx.wait(1)
    dest = kilat.wait_event("relay.done")["dest"]
    mx.on("mail", "451 4.3.0 Later", times=1)
    ident = submit(kilat)
    kilat.wait_event("relay.done", id=ident, fate="deferred")
    kilat.queue("hold", dest)
    wait_until(lambda: ident in kilat.queue("list", "held"), 10, "the retry to be held")
    assert len(mx.messages) == 1
    kilat.queue("release", dest)
    mx.wait(2)


def test_hold_route_is_opened(gateways, mx):
    """Mail of a hold route goes where the next configuration says, once it is released."""
    kilat = gateways(route={"*": HOLD})
    ident = submit(kilat)
    wait_until(lambda: ident in kilat.queue("list", "held"), 10, "held mail")
    assert kilat.stop() == 0
    kilat.reconfigure(route={"*": smarthost(mx.port)})
    kilat.start()
    time.sleep(0.5)
    assert mx.messages == []
    kilat.queue("release", "all")
    assert ident.encode() in mx.wait(1)[0].content


def test_hold_route_is_released(gateways):
    """Released while its route still says hold: kept, and nobody is hurt."""
    kilat = gateways(route={"*": HOLD})
    ident = submit(kilat)
    held = wait_until(lambda: kilat.queue("list", "held").splitlines()[1:], 10, "held mail")[0]
    refused = kilat.command("queue", "release", held.split()[2])
    assert refused.returncode == 1 and "still holds this mail" in refused.stderr
    kilat.queue("release", "all")  # claimed, found to be held by its route, held again
    time.sleep(2)
    assert kilat.process.poll() is None, kilat.tail()
    assert ident in kilat.queue("list", "held")


@pytest.mark.parametrize("compress", ["yes", "no"])
def test_compressed(gateways, mx, compress):
    """Contents are stored as they are told to be, and go out as they came, also by a gateway that
    would store them otherwise."""
    kilat = gateways(route={"*": HOLD}, queue={"compress": compress})
    contents = [message(size) for size in (300, 5000, 200_000)]
    contents.append(b"Subject: noise\r\n\r\n" + base64.encodebytes(os.urandom(9000))
                    .replace(b"\n", b"\r\n"))
    ids = [queue_id(send(kilat.port, content)) for content in contents]
    stored = [max(int(kilat.redis("STRLEN", f"{{q{shard}}}b:{ident}")[0]) for shard in range(16))
              for ident in ids]
    assert stored[0] > 300 and stored[3] > 12_000
    assert (stored[1] < 1000 and stored[2] < 5000) == (compress == "yes")
    kilat.stop()
    kilat.reconfigure(route={"*": smarthost(mx.port)},
                      queue={"compress": "no" if compress == "yes" else "yes"})
    kilat.start()
    kilat.queue("release", "all")
    got = [m.content for m in mx.wait(4)]
    for content in contents:
        assert any(whole.endswith(content.split(b"\r\n\r\n", 1)[1]) for whole in got)


def test_retry_now(gateways, mx):
    mx.on("dot", "451 4.3.0 Later", times=1)
    kilat = gateways(route={"*": smarthost(mx.port)}, retry={"schedule": ["1h"]})
    ident = submit(kilat)
    kilat.wait_event("relay.done", id=ident, fate="deferred")
    wait_until(lambda: ident in kilat.queue("list", "scheduled"), 10, "a scheduled retry")
    kilat.queue("retry", ident)
    mx.wait(1)


def test_dead_letters(gateways, mx):
    mx.on("rcpt", "550 5.1.1 No such person", times=1)
    kilat = gateways(route={"*": smarthost(mx.port)}, retry={"bounces": False})
    ident = submit(kilat)
    wait_until(lambda: ident in kilat.queue("dead"), 10, "a dead letter")
    assert "550" in kilat.queue("dead") or "5.1.1" in kilat.queue("dead")
    kilat.queue("revive", ident)
    mx.wait(1)
    wait_until(lambda: ident not in kilat.queue("dead"), 10, "no dead letter")


def test_nothing_is_left_behind(gateways, mx):
    """When all is delivered, Redis holds no record, no item, no lease of it."""
    from lib.redis_server import call
    kilat = gateways(route={"*": smarthost(mx.port)})
    for n in range(20):
        submit(kilat, f"r{n}@d{n % 3}.test")
    send(kilat.port, message(700_000))
    send(kilat.port, message(5000), rcpts=["a@x.test", "b@y.test", "c@z.test"])
    mx.wait(20)

    def leftovers():
        keys = call(kilat.redis_socket(), "KEYS", "*")
        return [k for k in keys if re.search(r"\}(b|w|c|r|t|ti|x|xr):?", k)
                and not re.search(r"\}(n|hb)$", k)]
    wait_until(lambda: not leftovers(), 15, lambda: f"no keys: {leftovers()[:20]}")


def test_unknown_command_and_id(holding):
    done = holding.command("queue", "frobnicate")
    assert done.returncode != 0 and done.stderr
    done = holding.command("queue", "show", "A" * 20)
    assert done.returncode != 0 and done.stderr
    done = holding.command("queue", "delete", "../../etc")
    assert done.returncode != 0


def test_queue_command_without_redis(gateways):
    kilat = gateways()
    kilat.stop()
    done = kilat.command("queue", "stats")
    assert done.returncode not in (0, 99) and done.stderr.startswith("kilat")


def test_hold_route_with_mx(gateways):
    """Only the held destination is held."""
    with Mx() as host:
        kilat = gateways(route={"hold.test": HOLD, "*": smarthost(host.port)})
        ident = queue_id(send(kilat.port, message(1024), rcpts=["a@hold.test", "b@go.test"]))
        assert host.wait(1)[0].rcpts == ["b@go.test"]
        assert "a@hold.test" in kilat.queue("show", ident)
