# SPDX-License-Identifier: Apache-2.0
"""Through a real Exim, as it stands on a cPanel server: port 465, port 25 with STARTTLS, logins."""
import pytest

import test_promises
from lib.certs import Authority
from lib.exim import Exim
from lib.kilat import message

USER, PASSWORD = "web@site.test", "correct horse"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def exim(folder, ca):
    with Exim(folder / "exim", ca.issue("localhost"), {USER: PASSWORD}) as server:
        yield server


@pytest.fixture
def secret(folder):
    path = folder / "secret"
    path.write_text(PASSWORD + "\n")
    return path


def route(port, ca, secret, **more):
    return {"*": {"relay": "smarthost", "host": "localhost", "port": port, "tls": "verify",
                  "ca_file": str(ca.cert), "user": USER, "password_file": str(secret), **more}}


def submit(kilat, content, **more):
    return test_promises.submit(kilat, content, "<to@elsewhere.test>", **more)


@pytest.mark.parametrize("implicit", [True, False])
def test_login(gateways, exim, ca, secret, implicit):
    """P-158, P-206: the recipe of docs/relaying.md."""
    kilat = gateways(route=route(exim.submissions if implicit else exim.port, ca, secret,
                                 tls_implicit=implicit), log={"level": "debug"})
    contents = [message(size) for size in (500, 20_000, 300_000)] + \
        [message(fill="ä".encode() * 2)]
    for content in contents:
        submit(kilat, content)
    kept = exim.wait(len(contents))
    for content in contents:
        body = content.split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n")
        assert any(mail.endswith(body) for mail in kept)
    assert all(b"Return-path: <from@sender.test>" in mail for mail in kept)
    assert all(b"esmtpsa" in mail for mail in kept)
    assert f"A=plain:{USER}" in exim.log() and "X=TLS1.3" in exim.log()


def test_wrong_password(gateways, exim, ca, secret):
    """P-159: it waits, and goes when the password is mended."""
    secret.write_text("wrong\n")
    kilat = gateways(route=route(exim.port, ca, secret), retry={"schedule": ["1s"]})
    ident = submit(kilat, message())
    done = kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert done["stage"] == "auth" and done["code"] == 535
    secret.write_text(PASSWORD + "\n")
    exim.wait(1)
    assert kilat.metrics()["recipients_bounced_total"] == 0


def test_without_login(gateways, exim):
    """Opportunistic TLS to a host that nobody knows; it refuses to relay, and says so."""
    host = {"*": {"relay": "smarthost", "host": "localhost", "port": exim.port}}
    kilat = gateways(route=host, retry={"bounces": False})
    ident = submit(kilat, message())
    done = kilat.wait_event("relay.done", id=ident)
    assert done["fate"] == "bounced" and "relay not permitted" in done["text"]
    test_promises.submit(kilat, message(), "<to@local.test>")
    assert b"esmtps" in exim.wait(1)[0]
