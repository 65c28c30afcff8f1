# SPDX-License-Identifier: Apache-2.0
"""Redis killed, stopped, badly set, full; several gateways on one Redis."""
import os
import signal
import threading
import time

import pytest

from lib.kilat import HOLD, Kilat, message, send, smarthost
from lib.mx import Mx, Stall
from lib.net import RawSmtp, free_port, queue_id, wait_until
from lib.redis_server import Redis, call


class Load:
    """A few clients that submit until told; what was answered 250, and what came instead."""

    def __init__(self, port, clients=4, size=2000):
        self.port, self.size = port, size
        self.acked, self.others = [], []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _client(self):
        while not self.stopping.is_set():
            try:
                with RawSmtp(self.port, timeout=60) as raw:
                    raw.hello()
                    while not self.stopping.is_set():
                        reply = raw.mail(message(self.size))
                        if reply.code == 250:
                            self.acked.append(queue_id(reply))
                        else:
                            self.others.append(reply.code)
                            if reply.code == 0:
                                break
            except (OSError, AssertionError):
                time.sleep(0.1)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(70)
        return self.acked


def check_all_arrive(host, idents, timeout=60):
    def seen():
        return b"\n".join(m.content.split(b"\r\n\r\n")[0] for m in host.messages).decode()
    wait_until(lambda: len(host.messages) >= len(idents), timeout,
               lambda: f"{len(host.messages)} of {len(idents)}", 0.1)
    heads = seen()
    missing = [ident for ident in idents if ident not in heads]
    if missing:
        time.sleep(5)
        heads = seen()
        missing = [ident for ident in idents if ident not in heads]
    assert not missing, f"{len(missing)} of {len(idents)} lost: {missing[:5]}"
    return sum(heads.count(ident) > 1 for ident in idents)


# -- the embedded one --------------------------------------------------------------------------

def test_redis_killed_while_submitting(gateways, mx):
    """The gateway restarts it, clients see a pause or 451, nothing acknowledged is lost."""
    kilat = gateways(route={"*": smarthost(mx.port)})
    load = Load(kilat.port)
    try:
        for _ in range(3):
            before = len(load.acked)
            wait_until(lambda: len(load.acked) > before + 50, 60, "progress")
            os.kill(kilat.redis_pid(), signal.SIGKILL)
            wait_until(lambda: kilat.redis_pid(), 20, "a new Redis")
        before = len(load.acked)
        wait_until(lambda: len(load.acked) > before + 50, 60, "progress")
    finally:
        acked = load.stop()
    assert set(load.others) <= {451, 421, 452}, set(load.others)
    check_all_arrive(mx, acked)
    assert kilat.events("redis.restarted")


def test_redis_stopped_means_451(gateways, mx):
    """P-80, P-221: a Redis that does not answer: no 250, 451 at the deadline, /readyz says so."""
    kilat = gateways(route={"*": HOLD}, limits={"commit_timeout": "2s"})
    pid = kilat.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with RawSmtp(kilat.port) as raw:
            raw.hello()
            began = time.monotonic()
            reply = raw.mail(message(1024))
            assert reply.code == 451, reply
            assert 1.5 < time.monotonic() - began < 8
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: _accepts(kilat.port), 20, "mail to be taken again")


def test_not_ready_without_redis(gateways, folder):
    with Redis(folder / "r") as redis:
        kilat = gateways(redis={"mode": "external", "url": redis.url})
        assert kilat.get("/readyz")[0] == 200
        redis.kill()
        wait_until(lambda: kilat.get("/readyz")[0] == 503, 10, "not ready")
        assert kilat.get("/healthz")[0] == 200
        redis.start()
        wait_until(lambda: kilat.get("/readyz")[0] == 200, 20, "ready again")
        assert queue_id(send(kilat.port, message(1024)))


def _accepts(port):
    with RawSmtp(port) as raw:
        raw.hello()
        return raw.mail(message(1024)).code == 250


def test_gateway_killed_and_started_again(folder, mx):
    """SIGKILL, start: the same files, the queue continues."""
    kilat = Kilat(folder / "k", route={"*": smarthost(mx.port)}).start()
    try:
        mx.on("dot", "451 4.3.0 Later", times=10)
        idents = [queue_id(send(kilat.port, message(1024))) for _ in range(10)]
        kilat.kill()
        mx.clear()
        kilat.start()
        check_all_arrive(mx, idents)
    finally:
        kilat.__exit__(None)


def test_full_redis(gateways, mx):
    """P-221: 452 when Redis is full; what leaves the queue makes room."""
    kilat = gateways(route={"hold.test": HOLD, "*": smarthost(mx.port)},
                     redis={"maxmemory": "24m"}, limits={"message_size_max": "4m"},
                     queue={"compress": "no"})
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        codes = []
        while len(codes) < 400 and (not codes or codes[-1] == 250):
            codes.append(raw.mail(message(200_000), rcpts=["a@hold.test"]).code)
        assert codes[-1] == 452, codes[-5:]
        assert len(codes) > 10
    assert kilat.get("/healthz")[0] == 200
    for row in kilat.queue("list", "held").splitlines()[1:]:
        kilat.queue("delete", row.split()[0])
    wait_until(lambda: _accepts(kilat.port), 60, "room")


# -- an external one ---------------------------------------------------------------------------

@pytest.mark.parametrize("setting, value, word, risk", [
    ("maxmemory_policy", "allkeys-lru", "maxmemory-policy", "eviction"),
    ("appendonly", "no", "appendonly", "no-aof"),
    ("appendfsync", "everysec", "appendfsync", "appendfsync"),
])
def test_redis_that_cannot_keep_the_promise(gateways, folder, setting, value, word, risk):
    """Refused with a message that names the setting, unless the risk is named."""
    with Redis(folder / "r", **{setting: value}) as redis:
        external = {"mode": "external", "url": redis.url}
        refused = gateways("refused", start=False, redis=external)
        done = refused.command("serve")
        assert done.returncode not in (0, -6, 99), done
        assert word in done.stderr + done.stdout, done
        risky = gateways("risky", redis=dict(external, accept_risk=[risk]))
        assert queue_id(send(risky.port, message(1024)))
        risky.stop()


def test_redis_that_is_not_there(gateways, folder):
    kilat = gateways(start=False, redis={"mode": "external",
                                         "url": f"redis://127.0.0.1:{free_port()}"})
    done = kilat.command("serve", timeout=60)
    assert done.returncode not in (0, -6, 99) and "edis" in done.stderr + done.stdout


def test_redis_over_tcp_with_a_password(gateways, folder):
    port = free_port()
    with Redis(folder / "r", port=str(port), requirepass="s3cret") as redis:
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        kilat = gateways(redis={"mode": "external", "url": url})
        assert queue_id(send(kilat.port, message(1024)))
        assert "s3cret" not in kilat.log_path.read_text() + kilat.err_path.read_text()
        assert redis


# -- two gateways ------------------------------------------------------------------------------

@pytest.fixture
def pair(gateways, folder, mx):
    """Two gateways on one Redis, relaying to mx."""
    with Redis(folder / "r") as redis:
        settings = {"redis": {"mode": "external", "url": redis.url},
                    "route": {"*": smarthost(mx.port)}}
        one, two = gateways("one", **settings), gateways("two", **settings)
        yield redis, one, two
        for kilat in (one, two):    # before their Redis goes
            if kilat.process.poll() is None:
                kilat.stop()


def test_two_gateways_share_a_queue(pair, mx):
    redis, one, two = pair
    idents = [queue_id(send(kilat.port, message(1024))) for _ in range(20) for kilat in (one, two)]
    check_all_arrive(mx, idents)
    assert len(set(idents)) == 40
    for kilat in (one, two):
        assert kilat.wait_metric("recipients_delivered_total", 1)
    assert len(mx.messages) == 40


def test_the_other_takes_over(pair, mx):
    """SIGKILL one of two: within lease time and a claim, the other delivers its mail."""
    redis, one, two = pair
    mx.on("dot", Stall(60), times=4)            # some in flight,
    mx.on("dot", "451 4.3.0 Later", times=10)   # some waiting for their retry
    idents = [queue_id(send(one.port, message(1024))) for _ in range(30)]
    idents += [queue_id(send(two.port, message(1024))) for _ in range(5)]
    killed = time.monotonic()
    one.kill()
    mx.clear()
    doubles = check_all_arrive(mx, idents, timeout=30)
    print(f"all delivered {max(m.time for m in mx.messages) - killed:.1f} s after the kill, "
          f"{doubles} twice")
    assert two.metrics()["queue_reaped_total"] >= 1
    assert doubles <= 30


def test_paused_gateway_does_not_deliver_what_it_lost(pair, mx):
    """SIGSTOP for longer than the lease: the other delivers; the paused one wakes up and finds its
    leases gone; doubles are only what was under way, and are counted."""
    redis, one, two = pair
    mx.on("dot", "451 4.3.0 Later", times=10)
    idents = [queue_id(send(one.port, message(1024))) for _ in range(10)]
    wait_until(lambda: len(mx.refused) >= 10, 20, "first attempts")
    one.process.send_signal(signal.SIGSTOP)
    try:
        check_all_arrive(mx, idents, timeout=30)
    finally:
        one.process.send_signal(signal.SIGCONT)
    time.sleep(3)
    assert len(mx.messages) == 10
    assert queue_id(send(one.port, message(1024)))
    mx.wait(11)


def test_submission_here_relay_there(gateways, folder):
    """A gateway that is drained leaves its mail to the other."""
    with Redis(folder / "r") as redis, Mx() as late:
        port = late.port
        late.stop()
        settings = {"redis": {"mode": "external", "url": redis.url},
                    "route": {"*": smarthost(port)}}
        one = gateways("one", **settings)
        idents = [queue_id(send(one.port, message(1024))) for _ in range(10)]
        assert one.stop() == 0
        with Mx(port=port) as host:
            two = gateways("two", **settings)
            check_all_arrive(host, idents, timeout=30)
            assert len(host.messages) == 10
            two.stop()
        leases = [k for k in call(redis.socket, "KEYS", "*") if "}w:" in k]
        assert leases == []
