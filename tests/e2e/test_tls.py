# SPDX-License-Identifier: Apache-2.0
"""TLS on listeners: STARTTLS and implicit, what is refused, certificates that change."""
import socket
import ssl
import time

import pytest

from lib.certs import Authority
from lib.kilat import message, secure, smarthost
from lib.net import RawSmtp, queue_id, wait_until


@pytest.fixture
def ca(folder):
    return Authority(folder / "ca")


@pytest.fixture
def kilat(gateways, ca, mx):
    return gateways(route={"*": smarthost(mx.port)}, **secure(ca, mode="optional"))


def keywords(reply):
    return {line[4:].split()[0] for line in reply.lines[1:]}


def test_starttls_and_delivery(kilat, ca, mx):
    """P-122, P-124: offered once; the session begins anew; the trace names the protocol (P-93)."""
    with RawSmtp(kilat.ports["submission"]) as c:
        assert "STARTTLS" in keywords(c.hello())
        c.starttls(ca.context())
        assert c.cmd("MAIL FROM:<a@sender.test>").code == 503     # no EHLO yet
        assert "STARTTLS" not in keywords(c.cmd("EHLO client.test"))
        assert c.cmd("STARTTLS").code == 503
        assert queue_id(c.mail(message(), sender="from@sender.test"))
    got = mx.wait(1)[0]
    assert b"with ESMTPS\r\n\t(TLSv1.3 " in got.content


def test_implicit(kilat, ca, mx):
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context()).hello()
        assert queue_id(c.mail(message()))
        assert c.cmd("QUIT").code == 221
        assert c.line() is None
    mx.wait(1)


def test_injected_octets_are_dropped(kilat, ca):
    """P-123: what came in clear behind STARTTLS is neither obeyed nor answered under TLS."""
    with RawSmtp(kilat.ports["submission"]) as c:
        c.hello()
        c.send("STARTTLS\r\nEHLO injected.test\r\nMAIL FROM:<evil@sender.test>\r\n")
        assert c.reply().code == 220
        c.tls(ca.context())
        reply = c.cmd("EHLO client.test")
        assert reply.code == 250 and reply.lines[0].startswith("250-kilat.test")
        assert c.cmd("RCPT TO:<a@rcpt.test>").code == 503


@pytest.mark.parametrize("port", ["submission", "submissions"])
def test_resumption(kilat, ca, port):
    """Both protocols, on whichever worker the second connection lands."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ca.context(maximum_version=version)
        session = None
        reused = 0
        for _ in range(6):
            with RawSmtp(kilat.ports[port]) as c:
                if port == "submission":
                    c.hello()
                    c.starttls(context, session=session)
                    c.cmd("EHLO client.test")
                else:
                    c.tls(context, session=session).hello()
                reused += c.sock.session_reused
                session = c.sock.session
        assert reused == 5, version


def test_old_protocols_and_foreign_alpn_are_refused(kilat, ca):
    """P-128, P-130."""
    context = ca.context(minimum_version=ssl.TLSVersion.TLSv1,
                         maximum_version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with RawSmtp(kilat.ports["submissions"]) as c, pytest.raises((ssl.SSLError, OSError)):
        c.tls(context)
    context = ca.context()
    context.set_alpn_protocols(["http/1.1"])
    with RawSmtp(kilat.ports["submissions"]) as c, pytest.raises((ssl.SSLError, OSError)):
        c.tls(context)
        c.reply()
        raise OSError("it was accepted") if c.sock.selected_alpn_protocol() else OSError
    context = ca.context()
    context.set_alpn_protocols(["smtp"])
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(context).hello()


def test_clear_text_on_the_tls_port(kilat):
    """P-127: an alert or the end, at once, and never a word of SMTP."""
    with RawSmtp(kilat.ports["submissions"], timeout=5) as c:
        c.send("EHLO client.test\r\n")
        got = b""
        while chunk := _recv(c.sock):
            got += chunk
        assert b"220" not in got and b"250" not in got


def test_hello_of_tls_on_the_clear_port(kilat):
    """P-127: refused fast."""
    with RawSmtp(kilat.ports["submission"], timeout=5) as c:
        assert c.reply().code == 220
        c.send(bytes.fromhex("16030100c8010000c40303") + b"\0" * 190)
        c.send("\r\n")
        assert c.reply().code in (0, 421, 500)


def _recv(sock):
    try:
        return sock.recv(4096)
    except ConnectionError:
        return b""


def test_a_stuck_handshake_ends_and_delays_nobody(gateways, ca):
    """P-115, P-135."""
    kilat = gateways(**secure(ca, mode="optional", tls={"handshake_timeout": "1s"}))
    stuck = [socket.create_connection(("127.0.0.1", kilat.ports["submissions"])) for _ in range(50)]
    try:
        for sock in stuck:
            sock.sendall(b"\x16\x03\x01")
        began = time.monotonic()
        with RawSmtp(kilat.ports["submissions"]) as c:
            c.tls(ca.context()).hello()
        assert time.monotonic() - began < 2
        for sock in stuck:
            sock.settimeout(10)
            assert _recv(sock) == b""
    finally:
        for sock in stuck:
            sock.close()


def test_sni_and_key_type(gateways, ca):
    """P-129: the name chooses, an unknown one gets the first; a client without ECDSA gets RSA."""
    files = [ca.issue("kilat.test"), ca.issue("kilat.test", kind="rsa"),
             ca.issue("mail.other.test", "*.wild.test")]
    settings = secure(ca, mode="optional")
    settings["tls"] = {"certificate": [str(c) for c, _ in files],
                       "private_key": [str(k) for _, k in files]}
    kilat = gateways(**settings)

    def names(server_name, **changes):
        context = ca.context(check_hostname=False)
        for key, value in changes.items():
            getattr(context, key)(value)
        with RawSmtp(kilat.ports["submissions"]) as c:
            c.tls(context, server_name).hello()
            cert = c.sock.getpeercert()
            return [v for k, v in cert["subjectAltName"] if k == "DNS"], c.sock.cipher()[0]
    assert names("mail.other.test")[0] == ["mail.other.test", "*.wild.test"]
    assert names("a.wild.test")[0] == ["mail.other.test", "*.wild.test"]
    assert names("unknown.test")[0] == ["kilat.test"]
    context = ca.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    for suite, want in (("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
                        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")):
        context = ca.context(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(suite)
        with RawSmtp(kilat.ports["submissions"]) as c:
            c.tls(context).hello()
            assert c.sock.cipher()[0] == want


def test_certificates_are_reloaded(kilat, ca):
    """P-131: new sessions get the new one, open ones go on; a bad file changes nothing."""
    def serial():
        with RawSmtp(kilat.ports["submissions"]) as c:
            c.tls(ca.context()).hello()
            return c.sock.getpeercert()["serialNumber"]
    first = serial()
    with RawSmtp(kilat.ports["submissions"]) as old:
        old.tls(ca.context()).hello()
        ca.issue("kilat.test")
        wait_until(lambda: serial() != first, 10, "the new certificate")
        second = serial()
        path = kilat.settings["tls"]["certificate"]
        good = open(path).read()
        with open(path, "w") as f:
            f.write("no certificate\n")
        event = kilat.wait_event("tls.bad")
        assert path in event["error"]
        assert serial() == second
        with open(path, "w") as f:
            f.write(good)
        assert queue_id(old.mail(message()))
    assert kilat.events("tls.reloaded")


def test_sighup_reloads(kilat, ca):
    import signal
    kilat.process.send_signal(signal.SIGHUP)
    kilat.wait_event("tls.reloaded")


def test_truncation_is_no_message(kilat, ca, mx):
    """P-81, P-136: an end without close_notify inside DATA queues nothing."""
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context()).hello()
        for line, code in (("MAIL FROM:<a@sender.test>", 250), ("RCPT TO:<b@rcpt.test>", 250),
                           ("DATA", 354)):
            assert c.cmd(line).code == code
        c.send("Subject: cut\r\n\r\nbody\r\n")
        c.sock.unwrap = None
        socket.socket.shutdown(c.sock, socket.SHUT_RDWR)
    time.sleep(0.5)
    assert kilat.metrics()["messages_accepted_total"] == 0


def test_large_message(kilat, ca, mx):
    """25 MiB through TLS, byte-exact."""
    content = message(25 * 1024 * 1024)
    with RawSmtp(kilat.ports["submission"], timeout=60) as c:
        c.hello()
        c.starttls(ca.context())
        c.cmd("EHLO client.test")
        assert queue_id(c.mail(content))
    assert mx.wait(1, 60)[0].content.endswith(content)
