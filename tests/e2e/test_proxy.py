# SPDX-License-Identifier: Apache-2.0
"""A load balancer's PROXY header, versions 1 and 2, in clear and in front of TLS."""
import socket
import ssl
import struct

import pytest

from lib.certs import Authority
from lib.kilat import message, secure, smarthost
from lib.net import RawSmtp, queue_id

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(client="203.0.113.9"):
    return f"PROXY TCP4 {client} 192.0.2.1 40000 587\r\n".encode()


def v2(client="203.0.113.9", command=1):
    body = socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 587)
    return SIGNATURE + bytes([0x20 | command, 0x11]) + struct.pack("!H", len(body)) + body


LOCAL = SIGNATURE + b"\x20\0\0\0"


@pytest.fixture
def ca(folder):
    return Authority(folder / "ca")


@pytest.fixture
def kilat(gateways, ca, mx):
    settings = secure(ca, mode="optional", route={"*": smarthost(mx.port)},
                      limits={"proxy_timeout": "1s"})
    for listener in settings["listener"].values():
        listener["proxy_protocol"] = ["127.0.0.1/32"]
        listener["networks"] = ["203.0.113.0/24", "2001:db8::/32"]
    return gateways(**settings)


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_carried_address_counts(kilat, ca, mx, header):
    """P-254, P-255, P-257: trust, trace and log go by the address that the header carries."""
    with RawSmtp(kilat.ports["submission"]) as c:
        c.send(header)
        c.hello()
        assert queue_id(c.mail(message()))
    assert b"([203.0.113.9])" in mx.wait(1)[0].content
    with RawSmtp(kilat.ports["submission"]) as c:      # not in `networks`: must authenticate
        c.send(header.replace(b"203.0.113.9", b"198.51.100.7")
               .replace(socket.inet_aton("203.0.113.9"), socket.inet_aton("198.51.100.7")))
        c.hello()
        assert c.cmd("MAIL FROM:<a@sender.test>").code == 530


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_before_tls(kilat, ca, mx, header):
    """P-257: in front of the first octet of TLS, in the same segment too."""
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.send(header)
        c.tls(ca.context()).hello()
        assert queue_id(c.mail(message()))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ca.context().wrap_bio(incoming, outgoing, server_hostname="kilat.test")
    with socket.create_connection(("127.0.0.1", kilat.ports["submissions"]), 10) as sock:
        first = header
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(first + outgoing.read())
                first = b""
                incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        assert tls.read(1000).startswith(b"220 ")


def test_octet_by_octet(kilat):
    for header in (v1(), v2()):
        with RawSmtp(kilat.ports["submission"]) as c:
            for i in range(len(header)):
                c.send(header[i:i + 1])
            assert c.reply().code == 220


def test_health_check(kilat):
    """P-255, P-118: LOCAL is greeted, under the balancer's own address, and is no error."""
    with RawSmtp(kilat.ports["submission"]) as c:
        c.send(LOCAL)
        assert c.reply().code == 220
        assert c.cmd("QUIT").code == 221
    for _ in range(50):
        socket.create_connection(("127.0.0.1", kilat.ports["submission"])).close()
    assert not [e for e in kilat.log() if e["level"] in ("warn", "error")]


@pytest.mark.parametrize("octets", [
    b"EHLO client.test\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"\x16\x03\x01", v1("999.1.1.1"),
    b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", SIGNATURE + b"\x31\x11\0\x0c" + b"\0" * 12,
    b"PROXY" + b"x" * 200, b""])
def test_no_header_no_word(kilat, octets):
    """P-256: closed without a banner, at once or when the time is over."""
    with RawSmtp(kilat.ports["submission"], timeout=5) as c:
        c.send(octets)
        assert c.line() is None
    assert kilat.metrics()["messages_accepted_total"] == 0


def test_only_from_the_balancer(gateways, ca):
    """P-256: whoever else knows the port is closed on, whatever it says."""
    settings = secure(ca, mode="optional")
    for listener in settings["listener"].values():
        listener["proxy_protocol"] = ["127.0.0.9/32"]
    kilat = gateways(**settings)
    with RawSmtp(kilat.ports["submission"], timeout=5) as c:
        c.send(v1())
        assert c.line() is None
    with RawSmtp(kilat.ports["submission"], source="127.0.0.9") as c:
        c.send(v1())
        assert c.reply().code == 220
    kilat.wait_metric("proxy_refused_total", 1)


def test_on_a_port_without(gateways):
    """P-258: only a bad command there."""
    kilat = gateways()
    with RawSmtp(kilat.port) as c:
        assert c.reply().code == 220
        assert c.cmd("PROXY TCP4 203.0.113.9 192.0.2.1 40000 587").code == 500
