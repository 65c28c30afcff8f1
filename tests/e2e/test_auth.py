# SPDX-License-Identifier: Apache-2.0
"""AUTH end to end: mechanisms, refusals that tell nothing, throttling, storms."""
import base64
import hashlib
import hmac
import json
import os
import smtplib
import subprocess
import threading
import time

import pytest

from lib.certs import Authority
from lib.kilat import merged, message, secure, smarthost
from lib.net import RawSmtp, queue_id, wait_until

USER, PASSWORD = "alice@sender.test", "correct horse battery"


def b64(octets):
    return base64.b64encode(octets if isinstance(octets, bytes) else octets.encode()).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


@pytest.fixture
def ca(folder):
    return Authority(folder / "ca")


@pytest.fixture
def make(gateways, ca, mx):
    """A gateway with one user."""
    def made(**changes):
        settings = merged(secure(ca, route={"*": smarthost(mx.port)}), changes)
        kilat = gateways(start=False, **settings)
        kilat.add_user(USER, PASSWORD, "--tenant", "acme")
        return kilat.start()
    return made


def secured(kilat, ca):
    c = RawSmtp(kilat.ports["submission"])
    c.hello()
    c.starttls(ca.context())
    reply = c.cmd("EHLO client.test")
    assert reply.code == 250
    c.mechanisms = next((line[4:].split()[1:] for line in reply.lines if line[4:9] == "AUTH "), [])
    return c


def scram(c, user, password, plus=False, binding=b""):
    """RFC 5802 by hand; returns the final reply. The server's signature is verified."""
    header = b"p=tls-unique,," if plus else b"n,,"
    bare = b"n=" + user.encode() + b",r=" + b64(os.urandom(18)).encode()
    reply = c.cmd("AUTH SCRAM-SHA-256" + ("-PLUS " if plus else " ") + b64(header + bare))
    if reply.code != 334:
        return reply
    first = unb64(reply.text)
    fields = dict(f.split(b"=", 1) for f in first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), unb64(fields[b"s"]),
                                 int(fields[b"i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    final = b"c=" + b64(header + binding).encode() + b",r=" + fields[b"r"]
    signed = bare + b"," + first + b"," + final
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    reply = c.cmd(b64(final + b",p=" + b64(proof).encode()))
    if reply.code != 334:
        return reply
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
    assert unb64(reply.text) == b"v=" + b64(server).encode()
    return c.cmd("")


def test_plain_login_and_delivery(make, ca, mx):
    """P-137, P-144, P-147; the mail carries ESMTPSA and not the user (P-93, P-156)."""
    kilat = make()
    with secured(kilat, ca) as c:
        assert c.mechanisms[:2] == ["PLAIN", "LOGIN"]
        assert c.cmd("MAIL FROM:<a@sender.test>").code == 530       # P-31
        assert c.auth_plain(USER, PASSWORD).code == 235
        assert c.auth_plain(USER, PASSWORD).code == 503             # P-138
        assert queue_id(c.mail(message()))
    with secured(kilat, ca) as c:
        assert c.cmd("AUTH LOGIN").text == "VXNlcm5hbWU6"
        assert c.cmd(b64(USER)).text == "UGFzc3dvcmQ6"
        assert c.cmd(b64(PASSWORD)).code == 235
    with secured(kilat, ca) as c:
        assert c.cmd("AUTH LOGIN " + b64(USER)).text == "UGFzc3dvcmQ6"
        assert c.cmd("*").code == 501                               # P-141
        assert c.auth_plain(USER, PASSWORD).code == 235
    got = mx.wait(1)[0]
    assert b"with ESMTPSA\r\n" in got.content
    assert USER.encode() not in got.content.split(b"From:")[0]
    assert kilat.metrics()["auth_ok_total"] == 3


def test_scram(make, ca):
    """P-148, P-150; with the channel binding too."""
    import ssl
    kilat = make()
    with secured(kilat, ca) as c:
        assert scram(c, USER, PASSWORD).code == 235
    with secured(kilat, ca) as c:
        assert scram(c, USER, "wrong").code == 535
        assert scram(c, USER, PASSWORD).code == 235
    with secured(kilat, ca) as c:       # an unknown user is asked like a known one
        assert scram(c, "nobody@sender.test", "wrong").code == 535
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context(maximum_version=ssl.TLSVersion.TLSv1_2)).hello()
        assert scram(c, USER, PASSWORD, plus=True,
                     binding=c.sock.get_channel_binding("tls-unique")).code == 235
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context(maximum_version=ssl.TLSVersion.TLSv1_2)).hello()
        assert scram(c, USER, PASSWORD, plus=True, binding=b"another channel").code == 535


def test_nothing_before_tls(make, ca):
    """P-125, P-126: neither offered nor looked at in clear."""
    kilat = make()
    with RawSmtp(kilat.ports["submission"]) as c:
        assert not any(line[4:].startswith("AUTH") for line in c.hello().lines)
        assert c.auth_plain(USER, PASSWORD).code in (530, 538)
        assert c.cmd("MAIL FROM:<a@sender.test>").code == 530
    assert kilat.metrics()["auth_ok_total"] == 0


def test_refusals_look_alike(make, ca):
    """P-145: unknown, wrong and disabled: the same words, and about the same time."""
    kilat = make(auth={"failure_delay": "200ms", "attempts_max": 10})
    kilat.add_user("off@sender.test", PASSWORD, "--tenant", "acme")
    done = kilat.command("user", "disable", "off@sender.test")
    assert done.returncode == 0, done.stderr
    time.sleep(2.5)         # the gateway looks at its files every second
    said = set()
    with secured(kilat, ca) as c:
        for user, password in ((USER, "wrong"), ("nobody@sender.test", "x"),
                               ("off@sender.test", PASSWORD)):
            began = time.monotonic()
            reply = c.auth_plain(user, password)
            assert time.monotonic() - began >= 0.2
            said.add((reply.code, reply.text))
    assert len(said) == 1 and said.pop()[0] == 535


def test_attempts_per_session(make, ca):
    """P-117, P-155: counted across RSET and EHLO."""
    kilat = make()
    with secured(kilat, ca) as c:
        for _ in range(2):
            assert c.auth_plain(USER, "wrong").code == 535
            c.cmd("RSET")
            c.cmd("EHLO client.test")
        assert c.auth_plain(USER, "wrong").code in (421, 535)
        assert c.line() is None or c.line() is None


def test_throttled_across_gateways(gateways, ca, folder):
    """P-117: failures at one gateway count at the other; what else works is not touched."""
    from lib.redis_server import Redis
    with Redis(folder / "redis") as redis:
        settings = secure(ca, redis={"mode": "external", "url": redis.url},
                          auth={"failures_max": 4, "attempts_max": 100})
        both = [gateways(name, start=False, **settings) for name in ("a", "b")]
        both[0].add_user(USER, PASSWORD, "--tenant", "acme")
        for kilat in both:
            kilat.start()
        codes = []
        for i in range(10):
            with secured(both[i % 2], ca) as c:
                codes.append(c.auth_plain(USER, "wrong").code)
        assert codes[:4] == [535] * 4 and codes[-1] == 454, codes
        with secured(both[0], ca) as c:
            assert c.auth_plain(USER, PASSWORD).code == 454


def test_users_in_redis(gateways, ca, mx):
    settings = secure(ca, route={"*": smarthost(mx.port)})
    del settings["auth"]["users_file"]
    kilat = gateways(**settings)
    kilat.add_user(USER, PASSWORD, "--tenant", "acme")
    with secured(kilat, ca) as c:
        assert c.auth_plain(USER, PASSWORD).code == 235
        assert queue_id(c.mail(message()))
    assert kilat.command("user", "disable", USER).returncode == 0
    with secured(kilat, ca) as c:
        assert c.auth_plain(USER, PASSWORD).code == 535
    mx.wait(1)


def test_storm_stalls_nobody(make, ca):
    """Many logins at once: sessions that only talk are answered meanwhile (P-157)."""
    kilat = make(auth={"failures_max": 0, "cache_ttl": 0, "attempts_max": 100, "waiting_max": 20})
    stop = threading.Event()

    def hammer():
        with secured(kilat, ca) as c:
            while not stop.is_set():
                assert c.auth_plain(USER, "wrong").code in (535, 454, 421)
                if c.auth_plain(USER, "wrong").code in (421, 0):
                    return
    threads = [threading.Thread(target=hammer) for _ in range(30)]
    with secured(kilat, ca) as quiet:
        for t in threads:
            t.start()
        slowest = 0
        for _ in range(100):
            began = time.monotonic()
            assert quiet.cmd("NOOP").code == 250
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.01)
    stop.set()
    for t in threads:
        t.join(60)
    assert slowest < 2, slowest


def test_tokens(gateways, ca, folder, mx):
    """P-152 to P-154: a signed token, and the failure dance."""
    key, public = folder / "jwt.key", folder / "jwt.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key],
                   check=True)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True,
                   capture_output=True)

    def token(**claims):
        body = {"email": USER, "exp": int(time.time()) + 60, "aud": "kilat", **claims}
        parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=")
                 for p in ({"alg": "ES256", "typ": "JWT"}, body)]
        der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=b".".join(parts),
                             capture_output=True, check=True).stdout
        return b".".join(parts + [base64.urlsafe_b64encode(raw_signature(der)).rstrip(b"=")])

    settings = secure(ca)
    settings["auth"] |= {"jwt_keys": str(public), "jwt_audience": "kilat"}
    kilat = gateways(start=False, route={"*": smarthost(mx.port)}, **settings)
    kilat.add_user(USER, PASSWORD, "--tenant", "acme")
    kilat.start()

    def bearer(tok):
        return b"n,a=" + USER.encode() + b",\x01auth=Bearer " + tok + b"\x01\x01"
    with secured(kilat, ca) as c:
        assert {"OAUTHBEARER", "XOAUTH2"} <= set(c.mechanisms)
        assert c.cmd("AUTH OAUTHBEARER " + b64(bearer(token()))).code == 235
        assert queue_id(c.mail(message()))
    with secured(kilat, ca) as c:
        tok = b"user=" + USER.encode() + b"\x01auth=Bearer " + token() + b"\x01\x01"
        assert c.cmd("AUTH XOAUTH2 " + b64(tok)).code == 235
    with secured(kilat, ca) as c:
        for bad in (token(exp=1), token(aud="other"), token()[:-4] + b"AAAA"):
            reply = c.cmd("AUTH OAUTHBEARER " + b64(bearer(bad)))
            assert reply.code == 334 and json.loads(unb64(reply.text))["status"] == "invalid_token"
            assert c.cmd("AQ==").code in (535, 421)
    mx.wait(1)


def raw_signature(der):
    """r | s of a DER ECDSA signature."""
    def integer(at):
        length = der[at + 1]
        return int.from_bytes(der[at + 2:at + 2 + length], "big"), at + 2 + length
    r, at = integer(2)
    s, _ = integer(at)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_client_certificate(gateways, ca, mx):
    """P-132: EXTERNAL with a certificate that our authority signed, and only then."""
    cert, key = ca.issue("alice", email=USER, file="client")
    settings = secure(ca)
    settings["tls"] |= {"client_ca": str(ca.cert)}
    kilat = gateways(start=False, route={"*": smarthost(mx.port)}, **settings)
    kilat.add_user(USER, PASSWORD, "--tenant", "acme")
    kilat.start()
    context = ca.context()
    context.load_cert_chain(cert, key)
    with RawSmtp(kilat.ports["submissions"]) as c:
        assert "EXTERNAL" in c.tls(context).hello().text
        assert c.cmd("AUTH EXTERNAL =").code == 235
        assert queue_id(c.mail(message()))
    with RawSmtp(kilat.ports["submissions"]) as c:
        assert "EXTERNAL" not in c.tls(ca.context()).hello().text
        assert c.cmd("AUTH EXTERNAL =").code == 504
    mx.wait(1)


def test_smtplib(make, ca, mx):
    """Python's own client, as its documentation shows it."""
    kilat = make()
    with smtplib.SMTP("localhost", kilat.ports["submission"]) as s:
        s.starttls(context=ca.context(check_hostname=False))
        s.login(USER, PASSWORD)
        s.sendmail(USER, ["to@rcpt.test"], message())
    mx.wait(1)


def test_changed_password(make, ca):
    """A cached credential ends with the password it was."""
    kilat = make()
    with secured(kilat, ca) as c:
        assert c.auth_plain(USER, PASSWORD).code == 235
    done = subprocess.run([str(kilat.program), "user", "-c", str(kilat.config), "passwd", USER],
                          input="another one\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kilat.wait_event("users.reloaded")

    def accepted(password):
        with secured(kilat, ca) as c:
            return c.auth_plain(USER, password).code == 235
    wait_until(lambda: accepted("another one"), 10)
    assert not accepted(PASSWORD)
