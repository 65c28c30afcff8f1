# SPDX-License-Identifier: Apache-2.0
"""
Submission that may be repeated: the same X-Idempotency-Key (or Message-ID and envelope) gets the
same 250 and one mail leaves; another body under the key is refused; whatever is cut or killed
between.
"""

import socket
import threading
import time

import pytest

from lib.kilat import message, smarthost
from lib.net import RawSmtp, queue_id, stuff, wait_until

SUBMISSIONS = 1000


def settings(mx, mode="header", **more):
    return {"listener": {"trusted": {"bind": ["127.0.0.1:0"], "networks": ["127.0.0.0/8"],
                                     "tenant": "acme"}},
            "tenant": {"acme": {"idempotency": mode}}, "route": {"*": smarthost(mx.port)}, **more}


def keyed(key, size=2000, **fields):
    return message(size, X_Idempotency_Key=key, **fields)


def submit(port, content, rcpts=("to@rcpt.test",), cut=False):
    """The reply to the final dot; cut: the connection ends right behind the dot."""
    with RawSmtp(port) as c:
        c.hello()
        if not cut:
            return c.mail(content, rcpts=rcpts)
        for line in ("MAIL FROM:<from@sender.test>", *(f"RCPT TO:<{r}>" for r in rcpts), "DATA"):
            assert c.cmd(line).code in (250, 354)
        c.send(stuff(content) + b".\r\n")
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return None


def test_repeated_and_refused(gateways, mx):
    kilat = gateways(**settings(mx))
    first = submit(kilat.port, keyed("k-1"))
    content = keyed("k-1")
    again = submit(kilat.port, content)
    assert queue_id(first) == queue_id(again)
    assert submit(kilat.port, keyed("k-1", size=2001)).code == 554         # another body
    assert submit(kilat.port, content, rcpts=("to@rcpt.test", "b@rcpt.test")).code == 554
    assert queue_id(submit(kilat.port, keyed("k-2"))) != queue_id(first)
    mx.wait(2)
    time.sleep(0.5)
    assert len(mx.messages) == 2
    assert all(b"idempotency" not in m.content.lower() for m in mx.messages)
    assert kilat.metrics()["messages_repeated_total"] == 1


def test_large_messages(gateways, mx):
    """Those that stream to Redis while they arrive."""
    kilat = gateways(**settings(mx))
    content = keyed("large", size=2_000_000)
    first, again = submit(kilat.port, content), submit(kilat.port, content)
    assert queue_id(first) == queue_id(again)
    assert submit(kilat.port, keyed("large", size=2_000_001)).code == 554
    mx.wait(1)
    time.sleep(0.5)
    assert len(mx.messages) == 1


def test_message_id_mode(gateways, mx):
    """Opt-in: Message-ID and envelope are the key; other recipients are another message."""
    kilat = gateways(**settings(mx, "message-id"))
    content = message(2000, Message_ID="<fixed@sender.test>")
    first, again = submit(kilat.port, content), submit(kilat.port, content)
    assert queue_id(first) == queue_id(again)
    other = submit(kilat.port, content, rcpts=("other@rcpt.test",))
    assert queue_id(other) != queue_id(first)
    mx.wait(2)


def test_tenants_are_apart(gateways, mx):
    base = settings(mx)
    base["listener"]["second"] = {"bind": ["127.0.0.1:0"], "networks": ["127.0.0.0/8"],
                                  "tenant": "other"}
    base["tenant"]["other"] = {}
    kilat = gateways(**base)
    content = keyed("same")
    ids = {queue_id(submit(kilat.ports[name], content)) for name in ("trusted", "second")}
    assert len(ids) == 2
    mx.wait(2)


def test_off(gateways, mx):
    kilat = gateways(**settings(mx, "off"))
    content = keyed("k")
    assert queue_id(submit(kilat.port, content)) != queue_id(submit(kilat.port, content))
    assert mx.wait(2)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x01b"])
def test_bad_keys(gateways, mx, key):
    kilat = gateways(**settings(mx))
    assert submit(kilat.port, keyed(key)).code == 554


def test_thousand_cut_submissions(gateways, mx):
    """Must show 5: each cut behind the final dot, before the 250, and sent again: 1,000 leave."""
    mx.keep_content = True
    kilat = gateways(**settings(mx))
    errors = []

    def run(worker, workers=20):
        try:
            for i in range(worker, SUBMISSIONS, workers):
                content = keyed(f"cut-{i}", subject=f"number {i}")
                submit(kilat.port, content, cut=True)
                assert queue_id(submit(kilat.port, content))
        except Exception as error:      # pylint: disable=broad-except
            errors.append(error)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    mx.wait(SUBMISSIONS, 60)
    time.sleep(1)
    subjects = sorted(line for m in mx.messages for line in m.content.split(b"\r\n")
                      if line.startswith(b"Subject: "))
    assert len(subjects) == SUBMISSIONS == len(set(subjects))
    print("repeated:", kilat.metrics()["messages_repeated_total"])


def test_killed_between(gateways, mx):
    """The gateway dies under load; what was not answered is sent again to the next one."""
    kilat = gateways(**settings(mx))
    for round_ in range(3):
        contents = [keyed(f"kill-{round_}-{i}", subject=f"{round_}-{i}") for i in range(200)]
        answered = {}

        def run(part):
            for i in part:
                try:
                    answered[i] = queue_id(submit(kilat.port, contents[i]))
                except (OSError, AssertionError, IndexError):
                    return
        threads = [threading.Thread(target=run, args=(range(n, 200, 8),)) for n in range(8)]
        for t in threads:
            t.start()
        wait_until(lambda: len(answered) > 30, 20)
        kilat.kill()
        for t in threads:
            t.join()
        kilat.start()
        for i, content in enumerate(contents):
            again = queue_id(submit(kilat.port, content))
            assert answered.get(i, again) == again
    want = {f"Subject: {r}-{i}".encode() for r in range(3) for i in range(200)}

    def missing():
        return want - {line for m in list(mx.messages) for line in m.content.split(b"\r\n")
                       if line.startswith(b"Subject: ")}
    wait_until(lambda: not missing(), 60, lambda: sorted(missing())[:10])
