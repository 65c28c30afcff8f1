# SPDX-License-Identifier: Apache-2.0
"""Rows of the protocol checklist that need a whole gateway and belong to no other file."""
import socket
import ssl
import time

import pytest

from lib.certs import Authority
from lib.kilat import message, secure, smarthost
from lib.net import RawSmtp, queue_id, wait_until

LISTENER = {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off"}


@pytest.fixture
def ca(folder):
    return Authority(folder / "ca")


def v1(client):
    return f"PROXY TCP4 {client} 192.0.2.1 40000 587\r\n".encode()


# -- what one address may take ------------------------------------------------------------------

def test_sessions_of_an_address(gateways):
    """P-116: 421 4.7.0 at the greeting for one more; another address is served, and a place is free
    when a session has ended. All workers count together."""
    kilat = gateways(workers=2, limits={"sessions_per_address": 3},
                     listener={"trusted": {**LISTENER, "networks": ["127.0.0.0/8"]}})
    held = [RawSmtp(kilat.port) for _ in range(3)]
    for c in held:
        c.hello()
    for _ in range(8):
        with RawSmtp(kilat.port) as c:
            assert c.line() == ("421 4.7.0 Too many sessions from your address, try again later")
            assert c.line() is None
    with RawSmtp(kilat.port, source="127.0.0.2") as c:
        c.hello()
        assert queue_id(c.mail(message()))
    assert held[0].cmd("QUIT").code == 221
    held[0].sock.close()

    def is_served():
        with RawSmtp(kilat.port) as c:
            return c.reply().code == 220
    wait_until(is_served, 5)
    for c in held[1:]:
        assert queue_id(c.mail(message()))      # those who are here notice nothing
        c.sock.close()
    assert kilat.metrics()["sessions_refused_total"] >= 8


def test_sessions_of_a_carried_address(gateways):
    """P-116, P-257: behind a load balancer the address in the header counts, never the balancer's;
    its health checks are not counted."""
    kilat = gateways(limits={"sessions_per_address": 1},
                     listener={"trusted": {**LISTENER, "networks": ["203.0.113.0/24"],
                                           "proxy_protocol": ["127.0.0.1/32"]}})
    held = []
    for i in range(5):
        held.append(RawSmtp(kilat.port))
        held[-1].send(v1(f"203.0.113.{i}"))
        held[-1].hello()
    with RawSmtp(kilat.port) as c:
        c.send(v1("203.0.113.4") + b"EHLO early.test\r\n")
        assert c.reply().lines[0].startswith("421 4.7.0 ")
        assert c.line() is None
    for _ in range(3):
        held.append(RawSmtp(kilat.port))
        held[-1].send(b"PROXY UNKNOWN\r\n")
        assert held[-1].reply().code in (220, 554)
    for c in held:
        c.sock.close()


def test_spokesman_is_not_counted(gateways):
    """P-116: a peer that may send XCLIENT has the sessions of all whom it speaks for."""
    kilat = gateways(limits={"sessions_per_address": 1},
                     listener={"trusted": {**LISTENER, "networks": ["127.0.0.0/8"],
                                           "xclient": ["127.0.0.1/32"]}})
    held = [RawSmtp(kilat.port) for _ in range(4)]
    for c in held:
        c.hello()
        c.sock.close()


def test_sessions_under_implicit_tls(gateways, ca):
    """P-116, P-127: no word in clear, and no handshake."""
    kilat = gateways(**secure(ca, limits={"sessions_per_address": 1}))
    with RawSmtp(kilat.ports["submissions"]) as first:
        first.tls(ca.context()).hello()
        with RawSmtp(kilat.ports["submissions"]) as c:
            assert c.line() is None
        with RawSmtp(kilat.ports["submission"]) as c:
            assert c.reply().code == 421
    assert kilat.metrics()["tls_handshakes_total"] == 1


def test_full_house_under_implicit_tls(gateways, ca):
    """P-127, P-2: limits.sessions_max is told in clear only where clear text is spoken."""
    kilat = gateways(workers=1, **secure(ca, limits={"sessions_max": 1}))
    with RawSmtp(kilat.ports["submission"]) as first:
        first.hello()
        with RawSmtp(kilat.ports["submission"]) as c:
            assert c.reply().lines[0].startswith("421 4.3.2 ")
        with RawSmtp(kilat.ports["submissions"]) as c:
            assert c.line() is None


def test_handshakes_of_an_address(gateways, ca):
    """P-135: more connections a second than an address may begin cost no handshake; in the next
    second it is welcome again, and others are all the time."""
    kilat = gateways(**secure(ca, tls={"handshakes_per_address": 3}))
    for port, refusal in (("submission", 421), ("submissions", 0)):
        time.sleep(1.1)
        answers = []
        for _ in range(12):     # in less than two seconds
            with RawSmtp(kilat.ports[port]) as c:
                try:
                    if port == "submissions":
                        c.tls(ca.context())
                    answers.append(c.reply().code)
                except (ssl.SSLError, ConnectionError):
                    answers.append(0)
        assert answers[:3] == [220] * 3 and refusal in answers, answers
        with RawSmtp(kilat.ports["submission"], source="127.0.0.3") as c:
            assert c.reply().code == 220
    time.sleep(1.1)
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context()).hello()


# -- who comes and goes -------------------------------------------------------------------------

def test_probes(gateways, ca):
    """P-118: 200 connections a second that are closed at once, on every kind of port, are no
    errors, and nobody who is at work waits for them."""
    kilat = gateways(**secure(ca, mode="optional"))
    with RawSmtp(kilat.ports["submission"]) as c:
        c.hello()
        for i in range(400):
            port = kilat.ports[("submission", "submissions")[i % 2]]
            socket.create_connection(("127.0.0.1", port)).close()
            if i % 40 == 0:
                started = time.monotonic()
                assert c.cmd("NOOP").code == 250
                assert time.monotonic() - started < 2
        assert queue_id(c.mail(message()))
    assert not [e for e in kilat.log() if e["level"] in ("warn", "error")]
    wait_until(lambda: kilat.metrics()["sessions_open"] == 0, 10)


def test_client_that_vanishes(gateways, mx):
    """P-81, P-82: gone before the final dot there is nothing, gone behind it there is one mail."""
    kilat = gateways(route={"*": smarthost(mx.port)})
    envelope = "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
    for end in (b"", b".\r", b".\r\n"):
        with RawSmtp(kilat.port) as c:
            assert c.reply().code == 220
            c.send(envelope)
            for want in (250, 250, 250):
                assert c.reply().code == want
            assert c.cmd("DATA").code == 354
            c.send(b"Subject: " + (b"whole" if end == b".\r\n" else b"half") + b"\r\n\r\n" + end)
    with RawSmtp(kilat.port) as c:
        assert c.reply().code == 220
        c.send(envelope + "BDAT 20\r\nSubject: half\r\n\r\nabc" + "BDAT 20 LAST\r\nhalf")
    assert b"Subject: whole" in mx.wait(1)[0].content
    time.sleep(0.5)
    assert len(mx.messages) == 1
    assert kilat.metrics()["messages_accepted_total"] == 1


def test_resumption_carries_no_login(gateways, ca):
    """P-133: a resumed session is nobody's until it has authenticated."""
    kilat = gateways(start=False, **secure(ca))
    kilat.add_user("alice@sender.test", "correct horse")
    kilat.start()
    context = ca.context(maximum_version=ssl.TLSVersion.TLSv1_2)    # its ticket comes at once
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(context).hello()
        assert c.auth_plain("alice@sender.test", "correct horse").code == 235
        assert c.cmd("MAIL FROM:<alice@sender.test>").code == 250
        session = c.sock.session
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(context, session=session).hello()
        assert c.sock.session_reused
        assert c.cmd("MAIL FROM:<alice@sender.test>").code == 530
        assert c.cmd("RCPT TO:<a@rcpt.test>").code == 503


# -- privacy ------------------------------------------------------------------------------------

def test_client_is_hidden(gateways, mx):
    """P-94: the recipient does not learn where the mail came from; the log does."""
    kilat = gateways(route={"*": smarthost(mx.port)},
                     listener={"open": {**LISTENER, "networks": ["127.0.0.0/8"]},
                               "private": {**LISTENER, "networks": ["127.0.0.0/8"],
                                           "hide_client": True}})
    for name in ("private", "open"):
        with RawSmtp(kilat.ports[name]) as c:
            c.hello("my-laptop.home.test")
            ident = queue_id(c.mail(message()))
        assert kilat.wait_event("msg.accepted", id=ident)["client"] == "127.0.0.1"
    contents = [m.content for m in mx.wait(2)]
    start = b"Received: by kilat.test (Kilat) with ESMTP id "
    hidden = [c for c in contents if c.startswith(start)]
    assert len(hidden) == 1
    for word in (b"my-laptop", b"127.0.0.1"):
        assert word not in hidden[0]
    assert any(b"from my-laptop.home.test ([127.0.0.1])" in c for c in contents)


# -- sockets ------------------------------------------------------------------------------------

def test_client_that_reads_little(gateways):
    """P-113: our writes into a full socket are partial and go on where they stopped: every reply
    arrives, whole and in order; one that closes instead of reading harms nobody."""
    kilat = gateways(workers=1, limits={"errors_max": 1000})
    count = 6000
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", kilat.port))
        c = RawSmtp.__new__(RawSmtp)
        c.sock, c.buf = sock, b""
        c.hello()
        want, sent, got = b"", 0, b""
        lines = b"".join(b"NOOP\r\n" if i % 3 else b"VRFY x\r\n" for i in range(count))
        for i in range(count):
            want += (b"250 2.0.0 Ok\r\n" if i % 3
                     else b"252 2.1.5 Send some mail, it will be tried\r\n")
        sock.setblocking(False)
        end = time.monotonic() + 60
        while len(got) < len(want) and time.monotonic() < end:
            try:
                sent += sock.send(lines[sent:sent + 4096]) if sent < len(lines) else 0
            except BlockingIOError:
                pass
            try:
                got += sock.recv(1000)
            except BlockingIOError:
                time.sleep(0.001)
        assert got == want
    with socket.socket() as sock:       # SIGPIPE, EPIPE, RST: the peer is gone, no more
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", kilat.port))
        sock.sendall(lines[:20000])
        time.sleep(0.3)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with RawSmtp(kilat.port) as c:
        c.hello()
        assert queue_id(c.mail(message()))


@pytest.mark.parametrize("is_secure", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("end", [b"", b"QUIT\r\n"], ids=["cut", "quit"])
def test_all_said_and_shut(gateways, ca, is_secure, end):
    """P-82: a client that says everything, QUIT too, and shuts its side (Exim does) hears the 250:
    it would send the message again otherwise."""
    kilat = gateways(**secure(ca, mode="optional"))
    content = message()
    talk = (b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
            b"BDAT %d LAST\r\n" % len(content)) + content + end
    sock = socket.create_connection(("127.0.0.1", kilat.ports["submissions" if is_secure else
                                                              "submission"]), 20)
    heard = b""
    with sock:
        if is_secure:
            sealed, plain = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = ca.context().wrap_bio(plain, sealed, server_hostname="kilat.test")

            def step(what):
                while True:
                    try:
                        return what()
                    except ssl.SSLWantReadError:
                        sock.sendall(sealed.read())
                        octets = sock.recv(65536)
                        plain.write(octets) if octets else plain.write_eof()
            step(tls.do_handshake)
            tls.write(talk)
            try:
                tls.unwrap()        # says close_notify, behind all that
            except ssl.SSLWantReadError:
                pass
            sock.sendall(sealed.read())
            sock.shutdown(socket.SHUT_WR)
            plain.write(b"".join(iter(lambda: sock.recv(65536), b"")))
            with pytest.raises(ssl.SSLZeroReturnError):     # it says so when it closes
                while True:
                    heard += tls.read(65536)
        else:
            sock.sendall(talk)
            sock.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: sock.recv(65536), b""))
    assert b"250 2.0.0 Ok: queued as" in heard and (b"221 2.0.0" in heard) == bool(end), heard


# -- hostile octets -----------------------------------------------------------------------------

def test_random_octets(gateways, ca):
    """P-119: whatever comes, on every kind of port; the sanitizers judge at the end."""
    import random
    chance = random.Random(119)
    kilat = gateways(**secure(ca, mode="optional"))
    envelope = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
    starts = [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n", b"EHLO x\r\n",
              b"EHLO x\r\nSTARTTLS\r\n", envelope + b"DATA\r\n", envelope + b"BDAT 300 LAST\r\n"]
    for i in range(60):
        port = kilat.ports[("submission", "submissions")[i % 2]]
        with RawSmtp(port, timeout=10) as c:
            try:
                noise = chance.randbytes(chance.choice([1, 30, 700, 5000]))
                c.send(starts[i % len(starts)] + noise)
                c.sock.shutdown(socket.SHUT_WR)
                while c.sock.recv(65536):
                    pass
            except (ConnectionError, OSError):
                pass
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context()).hello()
        assert queue_id(c.mail(message()))


def test_no_early_data(gateways, ca):
    """P-134: a ticket of ours allows none (max_early_data_size), and nothing said before the
    handshake is over is obeyed."""
    import subprocess
    kilat = gateways(**secure(ca, mode="optional"))
    port = kilat.ports["submissions"]
    ticket = ca.folder / "ticket"

    def client(*words, text=b"QUIT\r\n"):
        return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3",
                               "-servername", "kilat.test", "-CAfile", str(ca.cert), "-ign_eof",
                               *words], input=text, capture_output=True, timeout=60)
    first = client("-sess_out", str(ticket))
    assert b"221 2.0.0" in first.stdout, first
    shown = subprocess.run(["openssl", "sess_id", "-in", str(ticket), "-noout", "-text"],
                           capture_output=True, text=True)
    assert "Max Early Data: 0" in shown.stdout, shown
    early = ca.folder / "early"
    early.write_bytes(b"EHLO early.test\r\n")
    second = client("-sess_in", str(ticket), "-early_data", str(early))
    said = second.stdout + second.stderr
    assert b"Reused, TLSv1.3" in said, said
    assert b"Early data was accepted" not in said
    assert b"250-kilat.test" not in second.stdout
