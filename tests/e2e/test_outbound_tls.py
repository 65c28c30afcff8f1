# SPDX-License-Identifier: Apache-2.0
"""Encryption towards other hosts, and logging in to smarthosts."""
import contextlib

import pytest

from lib.certs import Authority
from lib.dns import Dns
from lib.kilat import message, secure
from lib.mx import Close, Mx, Reply
from lib.net import RawSmtp, free_port, wait_until

import test_promises
EXTENSIONS = (*Mx.extensions, "CHUNKING", "DSN", "REQUIRETLS")


def submit(kilat, content=None, **more):
    return test_promises.submit(kilat, content or message(), **more)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def hop(gateways, ca):
    """hop(route settings, Mx settings): a gateway with one smarthost, "localhost"."""
    with contextlib.ExitStack() as stack:
        def make(route=None, settings=None, **mx):
            mx.setdefault("tls", ca.issue("localhost"))
            host = stack.enter_context(Mx(extensions=EXTENSIONS, **mx))
            stack.callback(lambda: check(host))
            kilat = gateways(route={"*": {"relay": "smarthost", "host": "localhost",
                                          "port": host.port, **(route or {})}},
                             retry={"schedule": ["1s"]}, log={"level": "debug"},
                             **(settings or {}))
            return kilat, host
        yield make


def check(host):
    assert host.violations == []


def test_opportunistic_by_default(hop):
    """P-192, P-195: STARTTLS when it is offered; whose certificate it is does not matter."""
    kilat, host = hop()
    submit(kilat)
    sent = host.wait(1)[0]
    assert sent.tls == "TLSv1.3"
    assert host.connections[0].commands[:3] == ["EHLO kilat.test", "STARTTLS", "EHLO kilat.test"]
    assert host.connections[0].server_name == "localhost"
    assert kilat.metrics()["relay_tls_total"] == 1


def test_not_when_it_is_off(hop):
    kilat, host = hop({"tls": "off"})
    submit(kilat)
    assert host.wait(1)[0].tls == ""


def test_large_and_many(hop):
    """Content of every size goes through TLS whole, on connections that are kept."""
    kilat, host = hop({"tls": "encrypt"}, {"relay": {"per_destination_max": 2}})
    contents = [message(size) for size in (400, 1000, 20_000, 300_000, 2_000_000)] * 3
    for content in contents:
        submit(kilat, content)
    sent = host.wait(len(contents), 60)
    assert sorted(m.content[m.content.index(b"From: "):] for m in sent) == sorted(contents)
    assert all(m.tls for m in sent)


def test_sessions_are_resumed(hop):
    """The second connection of a worker resumes the session of the first."""
    kilat, host = hop({"tls": "encrypt"}, {"workers": 1, "relay": {"messages_per_connection": 1}})
    for number in range(3):
        submit(kilat)
        host.wait(number + 1)
    assert [c.resumed for c in host.connections] == [False, True, True]


@pytest.mark.parametrize("reply", ["454 4.7.0 Not now", "502 5.5.1 What?"])
def test_starttls_refused(hop, reply):
    """P-193: opportunistic goes on in clear."""
    kilat, host = hop()
    host.on("starttls", reply)
    submit(kilat)
    assert host.wait(1)[0].tls == ""
    assert len(host.connections) == 1


@pytest.mark.parametrize("trouble", [Close(), Close(reset=True)])
def test_handshake_fails(hop, trouble):
    """P-192: a new connection, in clear, at once; nothing is deferred."""
    kilat, host = hop()
    host.on("tls", trouble)
    submit(kilat)
    assert host.wait(1)[0].tls == ""
    assert [("STARTTLS" in c.commands) for c in host.connections] == [True, False]
    assert kilat.metrics()["recipients_deferred_total"] == 0


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_handshake_fails_where_it_must_not(hop, level):
    """P-192: never in clear."""
    kilat, host = hop({"tls": level})
    host.on("tls", Close(), times=2)
    ident = submit(kilat)
    assert kilat.wait_event("relay.done", id=ident, fate="deferred")["stage"] == "tls"
    assert all(c.commands == ["EHLO kilat.test", "STARTTLS"] for c in host.connections[:1])


def test_injection(hop):
    """P-194: octets behind the reply to STARTTLS end the connection."""
    kilat, host = hop()
    host.on("starttls", Reply(["220 Go ahead", "250-evil", "250 AUTH PLAIN"]), times=1)
    ident = submit(kilat)
    done = kilat.wait_event("relay.done", id=ident)
    assert done["fate"] == "deferred" and "behind the reply to STARTTLS" in done["text"]
    host.violations.clear()


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_starttls_is_not_offered(hop, level):
    """P-193: mail waits, and is not said in clear."""
    kilat, host = hop({"tls": level}, tls=None)
    ident = submit(kilat)
    done = kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert done["stage"] == "tls" and "does not offer STARTTLS" in done["text"]
    assert host.connections[0].commands == ["EHLO kilat.test"]


def test_verified(hop, ca):
    """P-196."""
    kilat, host = hop({"tls": "verify", "ca_file": str(ca.cert)})
    submit(kilat)
    assert host.wait(1)[0].tls
    assert kilat.wait_event("relay.tls")["verified"] == 1


def test_verified_is_resumed_and_verified_again(hop, ca):
    kilat, host = hop({"tls": "verify", "ca_file": str(ca.cert)},
                      {"workers": 1, "relay": {"messages_per_connection": 1}})
    for number in range(2):
        submit(kilat)
        host.wait(number + 1)
    assert host.connections[1].resumed
    assert [e["verified"] for e in kilat.events("relay.tls")] == [1, 1]


@pytest.mark.parametrize("trouble", ["name", "authority", "expired"])
def test_wrong_certificate(hop, ca, tmp_path, trouble):
    """P-196, P-207: mail waits, and the log says why."""
    route = {"tls": "verify", "ca_file": str(ca.cert)}
    certificate = {"name": lambda: ca.issue("other.test"),
                   "expired": lambda: ca.issue("localhost", days=-1, file="expired"),
                   "authority": lambda: Authority(tmp_path / "x").issue("localhost")}[trouble]()
    words = {"name": "is not for localhost", "expired": "expired",
             "authority": "unable to get"}[trouble]
    kilat, host = hop(route, tls=certificate)
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert done["stage"] == "tls" and words in done["text"].lower(), done["text"]
    assert "MAIL" not in " ".join(host.connections[0].commands)


def test_wildcard_and_tls_name(hop, ca):
    """P-196: a wildcard is one label; tls_name is what must be certified."""
    kilat, host = hop({"tls": "verify", "ca_file": str(ca.cert), "tls_name": "mx7.pool.test"},
                      tls=ca.issue("*.pool.test"))
    submit(kilat)
    host.wait(1)
    assert host.connections[0].server_name == "mx7.pool.test"


@pytest.mark.parametrize("host_name, good", [("mx.rcpt.test", True), ("mx.evil.test", False)])
def test_mx_names_are_verified_by_the_domain(gateways, ca, host_name, good):
    """P-197: an MX host of another domain must have the recipient's domain in its certificate."""
    port = free_port()
    table = {("rcpt.test", "MX"): [(10, host_name)], (host_name, "A"): ["127.0.0.2"]}
    with Mx(host="127.0.0.2", port=port, tls=ca.issue(host_name)) as host, Dns(table) as dns:
        kilat = gateways(route={"*": {"relay": "mx", "tls": "verify", "ca_file": str(ca.cert)}},
                         dns={"servers": [dns.address]},
                         relay={"mx_port": port, "allow_private": True})
        ident = submit(kilat)
        if good:
            assert host.wait(1)[0].tls
        else:
            done = kilat.wait_event("relay.done", id=ident, fate="deferred")
            assert "is not for rcpt.test" in done["text"]


# -- logins -------------------------------------------------------------------------------------

@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("correct horse\n")
    return path


def login(ca, secret, **more):
    return {"tls": "verify", "ca_file": str(ca.cert), "user": "who@site.test",
            "password_file": str(secret), **more}


USERS = {"who@site.test": "correct horse"}


def test_login(hop, ca, secret):
    """P-158: after verified TLS."""
    kilat, host = hop(login(ca, secret), users=USERS)
    submit(kilat)
    sent = host.wait(1)[0]
    assert sent.user == "who@site.test" and sent.tls
    assert not [e for e in kilat.log() if "horse" in str(e)]


def test_login_implicit(hop, ca, secret):
    """P-206: port 465."""
    kilat, host = hop(login(ca, secret, tls_implicit=True), users=USERS, implicit=True)
    submit(kilat)
    assert host.wait(1)[0].user == "who@site.test"
    assert "STARTTLS" not in host.connections[0].commands


def test_token(hop, ca, secret):
    """XOAUTH2, with a token that is renewed while we run."""
    route = login(ca, secret, token_file=str(secret))
    del route["password_file"]
    kilat, host = hop(route, users=USERS)
    secret.write_text("stale\n")
    ident = submit(kilat)
    done = kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert done["stage"] == "auth" and done["code"] == 535
    secret.write_text("correct horse\n")
    assert host.wait(1)[0].user == "who@site.test"


def test_wrong_password_bounces_nothing(hop, ca, secret):
    """P-159."""
    kilat, host = hop(login(ca, secret), users={"who@site.test": "changed"})
    idents = [submit(kilat) for _ in range(3)]
    for ident in idents:
        assert kilat.wait_event("relay.done", id=ident, fate="deferred")["stage"] == "auth"
    assert kilat.metrics()["recipients_bounced_total"] == 0
    host.users["who@site.test"] = "correct horse"
    host.wait(3)


def test_secret_cannot_be_read(hop, ca, secret):
    kilat, host = hop(login(ca, secret), users=USERS)
    secret.unlink()
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert "cannot read the secret of this route" in done["text"] and str(secret) in done["text"]
    assert host.connections == []


def test_fallback(hop, ca, secret):
    """A route's other hosts, in their order."""
    with Mx(tls=ca.issue("localhost"), users=USERS) as second:
        kilat, first = hop(login(ca, secret, fallback=[f"localhost:{free_port()}",
                                                       f"localhost:{second.port}"]), users=USERS)
        submit(kilat)
        first.wait(1)
        first.on("greeting", "421 4.3.2 Busy")
        first.on("mail", Reply("421 4.3.2 Closing", close=True))
        submit(kilat)
        assert second.wait(1)[0].user == "who@site.test"
        assert kilat.metrics()["recipients_bounced_total"] == 0


# -- REQUIRETLS -----------------------------------------------------------------------------------

@pytest.mark.parametrize("level, fate", [("verify", "delivered"), ("encrypt", "bounced")])
def test_requiretls(hop, ca, level, fate):
    """P-204: over verified TLS to who offers it, and passed on; else it comes back."""
    kilat, host = hop({"tls": level, "ca_file": str(ca.cert)}, secure(ca, mode="optional"))
    with RawSmtp(kilat.ports["submission"]) as raw:
        raw.hello()
        raw.starttls(ca.context())
        assert raw.cmd("EHLO client.test").code == 250
        ident = submit(kilat, message(), params=" REQUIRETLS", raw=raw)
    done = kilat.wait_event("relay.done", id=ident)
    assert done["fate"] == fate
    if fate == "delivered":
        assert host.wait(1)[0].sender_params.endswith("REQUIRETLS")
    else:
        wait_until(lambda: "5.7.30" in done["text"] or done["code"] == 550, 5)
