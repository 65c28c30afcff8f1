# SPDX-License-Identifier: Apache-2.0
"""The client's side: who may, in what order, how much, and what becomes of the impolite."""
import socket
import time

import pytest

from lib.kilat import HOLD, is_sanitized, message, send
from lib.net import RawSmtp, queue_id, stuff, wait_until


@pytest.fixture
def kilat(gateways):
    return gateways(limits={"errors_max": 5, "message_size_max": "1m", "recipients_max": 100})


def test_reply_names_the_queue_id(kilat):
    ident = queue_id(send(kilat.port, message(1024), rcpts=["a@rcpt.test", "b@rcpt.test"]))
    event = kilat.wait_event("msg.accepted", id=ident)
    assert event["from"] == "from@sender.test"
    assert int(event["rcpts"]) == 2 and int(event["size"]) >= 1024
    assert "127.0.0.1" in event["client"]


def test_extensions(kilat):
    with RawSmtp(kilat.port) as raw:
        words = {line[4:].split()[0] for line in raw.hello().lines[1:]}
        assert words == {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8",
                         "CHUNKING", "BINARYMIME", "DSN", "DELIVERBY", "FUTURERELEASE",
                         "MT-PRIORITY", "LIMITS"}


def test_untrusted_client_is_refused(gateways):
    """P-2, P-29: 554, then only QUIT."""
    kilat = gateways(listener={"trusted": {"bind": ["127.0.0.1:0"], "networks": ["127.0.0.2/32"]}})
    with RawSmtp(kilat.port) as raw:
        assert raw.reply().code == 554
        assert raw.cmd("EHLO client.test").code == 503
        assert raw.cmd("MAIL FROM:<a@b.test>").code == 503
        assert raw.cmd("QUIT").code == 221
    with RawSmtp(kilat.port, source="127.0.0.2") as raw:
        assert raw.mail is not None
        raw.hello()
        assert raw.mail(message(1024)).code == 250
    assert kilat.metrics()["sessions_refused_total"] == 1


def test_pipelined_client(kilat):
    """Several transactions without waiting for one reply; each gets its own id (RFC 2920)."""
    one = stuff(message(2000)) + b".\r\n"
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        count = 20
        for _ in range(count):
            raw.send(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nDATA\r\n" + one)
        raw.send("QUIT\r\n")
        idents = set()
        for _ in range(count):
            assert [raw.reply().code for _ in range(3)] == [250, 250, 354]
            idents.add(queue_id(raw.reply()))
        assert raw.reply().code == 221
        assert raw.reply().code == 0
        assert len(idents) == count
    for ident in idents:
        kilat.wait_event("msg.accepted", id=ident)


def test_octet_by_octet(kilat):
    talk = (b"EHLO client.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nDATA\r\n"
            + stuff(message(400)) + b".\r\nQUIT\r\n")
    with RawSmtp(kilat.port) as raw:
        for octet in talk:
            raw.send(bytes([octet]))
        codes = [raw.reply().code for _ in range(7)]
    assert codes == [220, 250, 250, 250, 354, 250, 221]


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r",
                                 b"\r.\r\n"])
def test_only_crlf_dot_crlf_ends(kilat, end):
    """P-75 to P-77: a look-alike does not end the message, and the message is refused for it."""
    smuggled = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<v@rcpt.test>\r\nDATA\r\nevil\r\n"
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
            raw.cmd(line)
        raw.send(message(400)[:-2] + end + smuggled + b"\r\n.\r\n")
        reply = raw.reply()
        assert reply.code in (550, 554), reply
        assert raw.cmd("NOOP").code == 250
    assert kilat.metrics()["messages_accepted_total"] == 0


def test_no_commands_after_too_many_errors(kilat):
    """P-24."""
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        codes = [raw.cmd("BOGUS").code for _ in range(5)]
        assert codes[0] == 500 and codes[-1] in (421, 500)
        wait_until(lambda: raw.cmd("BOGUS").code in (421, 0), 5, "421")


def test_long_command_line(kilat):
    """P-21: one 500 for a line of any length, and its tail is no command."""
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        before = kilat.rss()
        raw.send(b"NOOP " + b"x" * 4_000_000)
        raw.send(b"\r\nNOOP\r\n")
        assert raw.reply().code == 500
        assert raw.reply().code == 250
        assert is_sanitized() or kilat.rss() - before < 3_000_000


def test_size_limit(kilat):
    """P-56, P-57: refused at MAIL when declared, at the end when found; the session goes on."""
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        assert raw.cmd("MAIL FROM:<a@sender.test> SIZE=2000000").code == 552
        assert raw.mail(message(1_200_000)).code == 552
        assert raw.mail(message(900_000)).code == 250


def test_recipient_limit(kilat):
    """P-52."""
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        raw.cmd("MAIL FROM:<a@sender.test>")
        codes = [raw.cmd(f"RCPT TO:<r{n}@rcpt.test>").code for n in range(101)]
        assert codes == [250] * 100 + [452]
        assert raw.cmd("DATA").code == 354
        raw.send(message(400) + b".\r\n")
        assert raw.reply().code == 250


def test_session_limit(gateways):
    kilat = gateways(workers=1, limits={"sessions_max": 10})
    held = [RawSmtp(kilat.port) for _ in range(10)]
    try:
        assert all(raw.reply().code == 220 for raw in held)
        with RawSmtp(kilat.port) as surplus:
            reply = surplus.reply()
            assert reply.code == 421 and surplus.reply().code == 0, reply
        held.pop().sock.close()
        wait_until(lambda: _greets(kilat.port), 5, "room after one has gone")
    finally:
        for raw in held:
            raw.sock.close()


def _greets(port):
    with RawSmtp(port) as raw:
        return raw.reply().code == 220


def test_idle_sessions_time_out(gateways):
    kilat = gateways(limits={"command_timeout": "1s", "data_timeout": "1s"})
    with RawSmtp(kilat.port) as idle, RawSmtp(kilat.port) as in_data:
        idle.hello()
        in_data.hello()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
            in_data.cmd(line)
        in_data.send("From: a@sender.test\r\n")
        assert idle.reply().code == 421 and idle.reply().code == 0
        assert in_data.reply().code == 421
    assert kilat.metrics()["messages_accepted_total"] == 0


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_half_a_message_is_nothing(kilat, how):
    """P-81."""
    raw = RawSmtp(kilat.port)
    raw.hello()
    for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
        raw.cmd(line)
    raw.send(message(5000))
    if how == "rst":
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.sock.close()
    wait_until(lambda: kilat.metrics()["sessions_open"] == 0, 10, "the session to end")
    assert kilat.metrics()["messages_accepted_total"] == 0
    assert "held" not in kilat.queue("list")


def test_client_that_does_not_read(gateways):
    """Replies to a client that never reads are bounded; the others are served."""
    kilat = gateways(workers=1)
    deaf = RawSmtp(kilat.port)
    deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sock.settimeout(2)
    before = kilat.rss()
    try:
        for _ in range(3000):
            deaf.send(b"NOOP\r\n" * 1000)
    except TimeoutError:
        pass
    assert queue_id(send(kilat.port, message(1024)))
    # a worker's receive buffers may grow to 1,024 of 16 KiB
    assert is_sanitized() or kilat.rss() - before < 32_000_000
    deaf.sock.close()


def test_http_is_turned_away(kilat):
    """P-25."""
    with RawSmtp(kilat.port) as raw:
        raw.reply()
        raw.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.reply().code in (221, 421)
        assert raw.reply().code == 0


def test_received_loop(gateways):
    kilat = gateways(limits={"received_max": 10})
    loop = b"Received: from a by b; Mon, 23 Nov 2026 00:00:00 +0000\r\n"
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        assert raw.mail(loop * 9 + message(400)).code == 250
        assert raw.mail(loop * 11 + message(400)).code == 554


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_end_of_data_in_pieces(kilat, cut):
    """P-79: the final dot in any two pieces."""
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
            raw.cmd(line)
        octets = message(600) + b".\r\n"
        raw.send(octets[:-cut])
        time.sleep(0.05)
        raw.send(octets[-cut:])
        assert raw.reply().code == 250


def test_two_listeners(gateways):
    kilat = gateways(listener={
        "one": {"bind": ["127.0.0.1:0", "127.0.0.2:0"], "networks": ["127.0.0.0/8"]},
        "two": {"bind": ["[::1]:0"], "networks": ["::1/128"]}}, route={"*": HOLD})
    assert len(kilat.events("listen.open")) == 3
    assert queue_id(send(kilat.ports["one"], message(1024)))
    with RawSmtp(kilat.ports["two"], host="::1") as raw:
        raw.hello()
        assert raw.mail(message(1024)).code == 250
