# SPDX-License-Identifier: Apache-2.0
"""The queue's accounts: they balance, and when something is broken they say so."""
import subprocess

from lib.kilat import message, send, smarthost
from lib.mx import Mx
from lib.net import wait_until


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
        redis(kilat, "HINCRBY", "{q1}n", "enqueued", "3")
        event = kilat.wait_event("queue.imbalance", timeout=10)
        assert (str(event["shard"]), str(event["missing"])) == ("1", "3")
        kilat.wait_metric("queue_imbalance", 3)
        redis(kilat, "HINCRBY", "{q1}n", "enqueued", "-3")
        kilat.wait_metric("queue_imbalance", 0)
        wait_until(lambda: len(kilat.events("queue.imbalance")) == 2, 5, "an end of it")
