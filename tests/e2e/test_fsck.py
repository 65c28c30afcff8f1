# SPDX-License-Identifier: Apache-2.0
"""The queue's accounts: they balance, and when something is broken they say so."""
import subprocess
import threading

from lib.kilat import message, send, smarthost
from lib.mx import Mx
from lib.net import queue_id, wait_until


def redis(kilat, *words):
    done = subprocess.run(["redis-cli", "-s", str(kilat.redis_socket()), *words], check=True,
                          capture_output=True, text=True)
    return done.stdout.strip()


def test_accounts_balance(gateways, mx):
    """Delivered, bounced, deferred, held: 0; then a counter that lies, and one that is mended."""
    mx.on("rcpt", "550 5.1.1 No such user", match="bad@")
    mx.on("rcpt", "450 4.2.0 Later", match="later@")
    with Mx(name="home.test") as home:
        kilat = gateways(queue={"lease": "2s", "shards": 2}, retry={"schedule": ["1h"]},
                         route={"rcpt.test": smarthost(mx.port), "held.test": {"relay": "hold"},
                                "*": smarthost(home.port)})
        for i in range(20):
            send(kilat.port, message(500), rcpts=("good@rcpt.test", "bad@rcpt.test",
                                                  "later@rcpt.test", "x@held.test"))
        home.wait(20)
        wait_until(lambda: redis(kilat, "HLEN", "{q0}ti") != "0", 5, "retries")
        stats = dict(line.split() for line in kilat.queue("stats").splitlines())
        ends = {k: int(v) for k, v in stats.items() if k in ("total_done", "total_bounced")}
        assert ends == {"total_done": 20}, stats        # bounces; the others have "later@"
        assert (stats["held"], stats["scheduled"]) == ("20", "20")
        send(kilat.port, message(500), rcpts=("good@rcpt.test", "bad@rcpt.test"))
        home.wait(21)
        wait_until(lambda: "total_bounced 1\n" in kilat.queue("stats"), 5, "one that bounced")
        redis(kilat, "HINCRBY", "{q1}n", "enqueued", "3")
        event = kilat.wait_event("queue.imbalance", timeout=10)
        assert (str(event["shard"]), str(event["missing"])) == ("1", "3")
        kilat.wait_metric("queue_imbalance", 3)
        redis(kilat, "HINCRBY", "{q1}n", "enqueued", "-3")
        kilat.wait_metric("queue_imbalance", 0)
        wait_until(lambda: len(kilat.events("queue.imbalance")) == 2, 5, "an end of it")


def fsck(kilat, code):
    """{what: finding} and the summary."""
    done = kilat.command("queue", "fsck")
    assert (done.returncode, done.stderr) == (code, ""), (done.stdout, done.stderr)
    *rows, summary = done.stdout.splitlines()
    return {tuple(row.split("\t")[:2]): row.split("\t")[2] for row in rows}, summary


def first_key(kilat, pattern):
    return redis(kilat, "--scan", "--pattern", pattern).splitlines()[0]


def test_fsck_finds_what_is_broken(gateways, mx):
    mx.on("rcpt", "450 4.2.0 Later", match="later@")
    with Mx(name="home.test") as home:
        kilat = gateways(queue={"shards": 1}, retry={"schedule": ["1h"]},
                         route={"rcpt.test": smarthost(mx.port), "held.test": {"relay": "hold"},
                                "*": smarthost(home.port)})
        ids = [queue_id(send(kilat.port, message(500), rcpts=("later@rcpt.test", "x@held.test")))
               for _ in range(4)]
        held = queue_id(send(kilat.port, message(500), rcpts=("y@held.test",)))
        large = queue_id(send(kilat.port, message(700000), rcpts=("z@held.test",)))
        wait_until(lambda: redis(kilat, "ZCARD", "{q0}t") == "4", 10, "four retries")
        assert fsck(kilat, 0) == ({}, "6 records, 10 deliveries, 0 findings")

        redis(kilat, "DEL", f"{{q0}}b:{ids[0]}")                        # mail without content
        redis(kilat, "SET", f"{{q0}}b:{'0' * 20}", "x")                 # content without mail
        redis(kilat, "SET", f"{{q0}}b:{'1' * 20}", "x", "EX", "60")     # ... of a withdrawn one
        redis(kilat, "HSET", "{q0}c", ids[1], "3")
        scheduled = [line.split("/")[0] + "/" + line.split("/")[1]
                     for line in redis(kilat, "HKEYS", "{q0}ti").splitlines()]
        broken = next(i for i in scheduled if i.startswith(ids[2]))
        redis(kilat, "ZREM", "{q0}t", broken)
        redis(kilat, "DEL", f"{{q0}}b:{large}")                         # its chunks stay
        redis(kilat, "HSET", "{q0}w:0123456789abcdef", held, "n\tx\t0\t0\t0\t\t0\t1\t0")
        redis(kilat, "ZREM", "{q0}d:n", "!held.test")
        found, summary = fsck(kilat, 1)
        lists = [what for (_, what) in found if what.startswith("r:")]
        assert len(lists) == 1 and "held" in lists[0]
        assert found.pop(("{q0}", lists[0])) == "list that nobody claims"
        assert found.pop(("{q0}", "w:0123456789abcdef")) == "leases of no worker"
        assert found.pop(("{q0}", ids[0])) == "delivery without record"
        assert found.pop(("{q0}", "0" * 20)) == "record without delivery"
        assert found.pop(("{q0}", f"ti:{broken}")) == "an item, but not scheduled"
        assert found.pop(("{q0}", "accounts")).endswith("deliveries too few")
        # Nobody sees the lost list: what is in it is missing.
        assert found.pop(("{q0}", ids[1])) == "1 deliveries, not 3"
        assert set(found.values()) <= {"1 deliveries, not 2", "record without delivery",
                                       "chunks without record"}
        assert ("{q0}", "1" * 20) not in found
        assert found[("{q0}", large)] == "chunks without record"
        redis(kilat, "DEL", "{q0}w:0123456789abcdef")


def test_fsck_is_not_fooled_by_traffic(gateways, mx):
    """What moves while it looks is no finding."""
    mx.keep_content = False
    with Mx(name="home.test") as home:
        kilat = gateways(retry={"schedule": ["1s"]},
                         route={"rcpt.test": smarthost(mx.port), "*": smarthost(home.port)})
        mx.on("rcpt", "450 4.2.0 Later", match="later@", times=100)
        stop = threading.Event()

        def submit():
            while not stop.is_set():
                send(kilat.port, message(500), rcpts=("a@rcpt.test", "later@rcpt.test",
                                                      "b@elsewhere.test"))
        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                found, summary = fsck(kilat, 0)
                assert found == {}, found
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert kilat.metrics()["queue_imbalance"] == 0
