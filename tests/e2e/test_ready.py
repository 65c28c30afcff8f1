# SPDX-License-Identifier: Apache-2.0
"""/readyz: false before any client is refused, so that a load balancer can act first."""
import signal
import time

from lib.kilat import HOLD, message, send
from lib.net import RawSmtp, queue_id, wait_until


def ready(kilat):
    status, text = kilat.get("/readyz")
    return status == 200 or text.strip()


def test_overload_by_sessions(gateways):
    """Near the limit it is "overload", and everybody is still served; well below it is over."""
    kilat = gateways(workers=1, limits={"sessions_max": 20})
    held = [RawSmtp(kilat.port) for _ in range(17)]
    for c in held:
        c.hello()
    assert ready(kilat) is True
    held += [RawSmtp(kilat.port) for _ in range(2)]
    wait_until(lambda: ready(kilat) is not True, 5)
    assert "overload" in ready(kilat)
    for c in held[-2:]:
        c.hello()
        assert queue_id(c.mail(message()))
    for c in held[:4]:
        c.sock.close()
    time.sleep(1.2)
    assert "overload" in ready(kilat)       # 15 of 20: not calm yet
    for c in held[4:8]:
        c.sock.close()
    wait_until(lambda: ready(kilat) is True, 5)
    assert [e["reason"] for e in kilat.events("worker.not_ready")] == ["overload"]
    for c in held[8:]:
        c.sock.close()


def test_redis_outage(gateways):
    """False within a moment, long before the 451 at the end of data."""
    kilat = gateways(route={"*": HOLD}, limits={"commit_timeout": "20s"})
    assert ready(kilat) is True
    import os
    os.kill(kilat.redis_pid(), signal.SIGSTOP)
    stopped = kilat.redis_pid()
    try:
        with RawSmtp(kilat.port) as c:
            c.hello()
            for line in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"):
                c.cmd(line)
            c.send("Subject: x\r\n\r\n.\r\n")
            wait_until(lambda: ready(kilat) is not True, 15)
            os.kill(stopped, signal.SIGCONT)
            assert queue_id(c.reply())
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: ready(kilat) is True, 15)


def test_notice(gateways):
    """After SIGTERM /readyz is false at once, while new connections are served for drain_notice."""
    kilat = gateways(limits={"drain_notice": "3s"})
    with RawSmtp(kilat.port) as old:
        old.hello()
        kilat.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ready(kilat) is not True, 2)
        assert "draining" in ready(kilat)
        assert queue_id(send(kilat.port, message()))
        assert queue_id(old.mail(message()))
        wait_until(lambda: kilat.events("worker.drain"), 10)
        assert old.reply().code == 421
    assert kilat.process.wait(20) == 0


def test_second_signal(gateways):
    """Ends the process at once, in the midst of the notice; what was accepted is still there."""
    kilat = gateways(limits={"drain_notice": "60s"})
    sent = queue_id(send(kilat.port, message()))
    kilat.process.send_signal(signal.SIGTERM)
    kilat.wait_event("serve.notice")
    kilat.process.send_signal(signal.SIGTERM)
    assert kilat.process.wait(5) == 128 + signal.SIGTERM
    kilat.reconfigure(limits={"drain_notice": 0})
    kilat.start()
    assert sent in kilat.queue("list")


def test_overload_by_content(gateways):
    """Near limits.content_memory_max it is "overload" before MAIL is answered 452."""
    kilat = gateways(workers=1, limits={"content_memory_max": "1m"},
                     queue={"stream_size": "16m", "lease": "2s"})
    with RawSmtp(kilat.port) as c:
        c.hello()
        for line, code in (("MAIL FROM:<a@b.test>", 250), ("RCPT TO:<c@d.test>", 250),
                           ("DATA", 354)):
            assert c.cmd(line).code == code
        content = message(1100 * 1000)
        c.send(content[:980 * 1000])
        wait_until(lambda: ready(kilat) is not True, 5)
        assert "overload" in ready(kilat)
